"""Predictors of a candidate's score."""

from .predictor import (
    MLP,
    PredictedScores,
    Predictor,
    PredictorKind,
    Pretraining,
    TargetTransform,
    Trees,
    features,
    fit,
    pretrain_encoder,
)

__all__ = [
    "MLP",
    "PredictedScores",
    "Predictor",
    "PredictorKind",
    "Pretraining",
    "TargetTransform",
    "Trees",
    "features",
    "fit",
    "pretrain_encoder",
]
