"""``fbnetv3 validate``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from fbnetv3_zoo.cli.common import DataSource, Json, Pretrained, Seed, open_classifier, print_json
from fbnetv3_zoo.errors import ZooError


def validate(
    model: Annotated[str, typer.Argument(help="A .safetensors or .onnx file, or a name with --pretrained.")],
    pretrained: Pretrained = False,
    data: DataSource = "digits",
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Images to measure on.")] = "test",
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    as_json: Json = False,
) -> None:
    """Measure a model file's accuracy on labelled images.

    Example: fbnetv3 validate demo/model.onnx --data digits
    """
    from fbnetv3_zoo.training import evaluate, find_dataset

    classifier = open_classifier(model, pretrained=pretrained)
    images = find_dataset(data, seed=seed)
    names = classifier.description.class_names
    if names is not None and names != images.class_names:
        raise ZooError(f"{model}: tells apart {_some(names)}; {data} has {_some(images.class_names)}")
    if classifier.description.arch.num_classes != len(images.class_names):
        count = classifier.description.arch.num_classes
        raise ZooError(f"{model}: tells {count} classes apart; {data} has {len(images.class_names)}")
    found = evaluate(classifier.logits, images[split], classifier.description.preprocess, batch_size=batch_size)
    if as_json:
        fields = {"model": model, "data": data, "split": split, "accuracy": found.fraction, "interval": found.interval}
        print_json({**fields, **asdict(found)})
        return
    print(f"{split} accuracy {found}")
    print(f"top-5 {found.top5 / found.total:.2%}, loss {found.loss:.4f}")


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return f"{len(names)} classes ({shown}{', ...' if len(names) > 3 else ''})"
