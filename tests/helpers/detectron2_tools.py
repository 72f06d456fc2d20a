"""detectron2's own tools with our configurations, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from detectron2_tree import environment, installed
from folders import ROOT
from PIL import Image, ImageDraw
from torch import Tensor
from waiting import PATIENCE

CONFIGS = ROOT / "detection" / "configs"


def run(data: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment(data), capture_output=True, text=True, timeout=PATIENCE
    )


def tool(data: Path, name: str, config: str, *options: object, before: tuple[str, ...] = ()) -> str:
    """What a tool of detectron2 writes; it must end well."""
    done = run(data, installed() / "tools" / name, *before, "--config-file", CONFIGS / config, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def script(data: Path, text: str) -> list[str]:
    """The lines that a script prints; it must end well."""
    done = run(data, "-c", text)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def stored(run: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Weights and average of a finished run's model, and how many updates are in the average."""
    state = torch.load(run / "model_final.pth", weights_only=True)["model"]
    average = {n.removeprefix("average.").replace("/", "."): t for n, t in state.items() if n.startswith("average.")}
    updates = int(average.pop("updates"))
    return {name: tensor for name, tensor in state.items() if not name.startswith("average.")}, average, updates


def assert_went_on(run: Path, before: tuple[dict[str, Tensor], dict[str, Tensor], int], decay: float) -> None:
    """The run's average has taken in the weights of ``before``, and nothing else."""
    weights, average, updates = before
    _, after, now = stored(run)
    assert now == updates + 1
    assert weights.keys() == average.keys() == after.keys()
    for name, tensor in after.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, average[name] * decay + weights[name] * (1 - decay))
        else:
            assert torch.equal(tensor, weights[name])
    assert any(not torch.equal(average[name], weights[name]) for name in weights)


def write_data(root: Path) -> Path:
    """Eight and four images of rectangles, laid out like COCO 2017 with its 80 categories."""
    rng = np.random.default_rng(0)
    kinds = "import json; from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES as c; print(json.dumps(c))"
    told = run(root, "-c", kinds)
    categories = [{"id": c["id"], "name": c["name"]} for c in json.loads(told.stdout) if c["isthing"]]
    (root / "coco" / "annotations").mkdir(parents=True)
    for split, number in (("train2017", 8), ("val2017", 4)):
        (root / "coco" / split).mkdir()
        images, annotations = [], []
        for index in range(number):
            image = Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8))
            for _ in range(3):
                x, y, w, h = (int(value) for value in (*rng.integers(0, 50, 2), *rng.integers(16, 40, 2)))
                ImageDraw.Draw(image).rectangle((x, y, x + w, y + h), fill=(255, 0, 0))
                box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": []}
                annotations.append({"id": len(annotations) + 1, "image_id": index, "category_id": 1, **box})
            image.save(root / "coco" / split / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "width": 128, "height": 96})
        told_all = {"images": images, "annotations": annotations, "categories": categories}
        (root / "coco" / "annotations" / f"instances_{split}.json").write_text(json.dumps(told_all))
    return root
