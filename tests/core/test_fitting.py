"""Recipes fitted to the number of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from fbnetv3_zoo.recipes import OWN, CosineDecay, fit_detection_recipe, fit_recipe
from fbnetv3_zoo.recipes.presets import CHOSEN


@pytest.mark.parametrize(
    ("images", "pretrained", "batch_size", "epochs"),
    [(15, False, 8, 200), (135, False, 16, 188), (1000, False, 64, 100), (100_000, False, 64, 30), (135, True, 16, 60)],
)
def test_batches_and_epochs(images: int, pretrained: bool, batch_size: int, epochs: int) -> None:
    recipe = fit_recipe(images, pretrained=pretrained).recipe
    assert (recipe.batch_size, recipe.epochs) == (batch_size, epochs)
    assert recipe.learning_rate == pytest.approx((0.05 if pretrained else 0.1) * batch_size / 64)


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"), [(2, 2, 250), (16, 4, 125), (20, 4, 100), (100, 8, 42), (10_000, 8, 12)]
)
def test_batches_and_epochs_of_detectors(images: int, batch_size: int, epochs: int) -> None:
    recipe = fit_detection_recipe(images).recipe
    assert (recipe.batch_size, recipe.epochs) == (batch_size, epochs)
    assert recipe.learning_rate == pytest.approx(0.05 * batch_size / 8)


@given(images=st.integers(2, 10**7), epochs=st.none() | st.integers(1, 1000), pretrained=st.booleans())
def test_whatever_the_number(images: int, epochs: int | None, pretrained: bool) -> None:
    for fitted in (
        fit_recipe(images, epochs=epochs, pretrained=pretrained),
        fit_detection_recipe(images, epochs=epochs),
    ):
        recipe = fitted.recipe
        assert recipe.for_images(images) == recipe
        assert epochs in (None, recipe.epochs)
        assert recipe.warmup_epochs < recipe.epochs
        steps = images // recipe.batch_size * recipe.epochs
        assert recipe.ema_decay == 0 or 1 / (1 - recipe.ema_decay) <= steps / 9.99
        assert recipe.learning_rate_at(recipe.epochs - 1, 1.0) <= 0.05 * recipe.learning_rate or recipe.epochs == 1
        assert isinstance(recipe.schedule, CosineDecay)
        assert set(fitted.sources) <= set(recipe.values())
        told = {fitted.source_of(name) for name in recipe.values() if name != "epochs"}
        assert all(source.startswith(OWN) for source in told)
        assert fitted.source_of("epochs").startswith(OWN if epochs is None else CHOSEN)


def test_too_few_images() -> None:
    for fit in (fit_recipe, fit_detection_recipe):
        assert refusal(lambda fit=fit: fit(1)) == "images is 1; it must be a whole number of at least 2"  # type: ignore[misc]
