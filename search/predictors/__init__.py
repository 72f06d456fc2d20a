"""Predictors of a candidate's score."""

from .predictor import (
    MLP,
    Prediction,
    Predictor,
    PredictorKind,
    Pretraining,
    Target,
    Trees,
    features,
    fit,
    pretrain_encoder,
)

__all__ = [
    "MLP",
    "Prediction",
    "Predictor",
    "PredictorKind",
    "Pretraining",
    "Target",
    "Trees",
    "features",
    "fit",
    "pretrain_encoder",
]
