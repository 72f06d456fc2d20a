"""Train detectors on colored shapes over photographs, on torchvision and with detectron2's own trainer.

    python benchmarks/detector_shapes.py --folder /tmp/shapes --seeds 3

A seed: 240 images to train on and 80 held out (tests/helpers/shapes.py); a small FBNetV3-A trained on
scikit-learn's digits; the same detector, Faster R-CNN C4, trained from that network by `train_detector`, by
detectron2's `DefaultTrainer`, and by `train_detector` from random weights. All have the same images, anchors, regions,
steps, rates and moving average.
Prints COCO's average precision on the held-out images and the seconds of each training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import shapes
from detectron2_tree import environment

import fbnetv3_zoo
from fbnetv3_zoo.detection import RCNNSettings
from fbnetv3_zoo.detection.data.coco import CocoData, read_coco
from fbnetv3_zoo.detection.models.serialization import DetectorSpec
from fbnetv3_zoo.detection.training.train import train_detector
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import RECIPES, SGD, Augmentation, CosineDecay, Recipe
from fbnetv3_zoo.training import find_dataset, train
from fbnetv3_zoo.weights.state_dict import adapt_stem
from fbnetv3_zoo.zoo import ARCHS

TRAIN, HELD_OUT, SIDE = 240, 80, 128
ARCH = ARCHS["fbnetv3_a"].scaled(width=0.5, depth=0.5)
SETTINGS = RCNNSettings(
    min_size=SIDE, max_size=SIDE, anchor_sizes=(24, 36, 48), aspect_ratios=(1.0,), proposals_in_training=300,
    regions_in_training=32,
)  # fmt: skip
RECIPE = Recipe(
    12, 8, SGD(), 0.05, Augmentation(flip=0.5), CosineDecay(0.01), warmup_epochs=1, weight_decay=1e-4, ema_decay=0.98,
    clip_norm=10.0,
)  # fmt: skip
WAYS = {
    "torchvision": "train_detector, from the digits' network",
    "detectron2": "detectron2's DefaultTrainer, from the same",
    "random": "train_detector, from random weights",
}


def digits_network(folder: Path, seed: int) -> FBNet:
    """``ARCH`` with the weights of its small-image form trained on the digits; its gray stem made one for colors."""
    small = ARCHS["fbnetv3_a"].for_small_images().scaled(width=0.5, depth=0.5)
    learned = train(small, find_dataset("digits", seed=seed), replace(RECIPES["digits"], seed=seed), folder).model
    network = fbnetv3_zoo.create(ARCH, num_classes=len(learned.description.class_names))
    values = learned.state_dict()
    values["stages.0.0.conv.weight"] = adapt_stem(values["stages.0.0.conv.weight"], 3)
    network.load_state_dict(values)
    return network


def by_torchvision(data: CocoData, held_out: CocoData, folder: Path, source: FBNet, seed: int) -> dict[str, float]:
    """Precision and seconds of our trainer."""
    spec, recipe = DetectorSpec(data.class_names, arch=ARCH, settings=SETTINGS), replace(RECIPE, seed=seed)
    began = time.perf_counter()
    run = train_detector(spec, data, held_out, recipe, folder, source=source)
    return {**_figures(asdict(run.precision)), "seconds": time.perf_counter() - began}


def by_detectron2(folder: Path, network: FBNet, seed: int) -> dict[str, float]:
    """The same of detectron2's trainer, in a process where it can be imported."""
    (folder / "arch.json").write_text(network.arch.to_json())
    fbnetv3_zoo.save(network, folder / "network.safetensors")
    command = [sys.executable, __file__, "--folder", folder, "--inside", str(seed)]
    variables = environment(folder) | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([*map(str, command)], env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def inside_detectron2(folder: Path, seed: int) -> None:
    """Train in ``folder`` and print figures as JSON."""
    from detectron2.data.datasets import register_coco_instances
    from detectron2.engine import DefaultTrainer
    from detectron2.evaluation import COCOEvaluator, inference_on_dataset

    for part in ("train", "held_out"):
        register_coco_instances(part, {}, str(folder / part / "shapes.json"), str(folder / part))
    cfg = _configuration(folder, seed)
    began = time.perf_counter()
    trainer = DefaultTrainer(cfg)
    trainer.train()
    seconds = time.perf_counter() - began
    evaluator = COCOEvaluator("held_out", tasks=("bbox",), use_fast_impl=False)
    found = inference_on_dataset(trainer.model, DefaultTrainer.build_test_loader(cfg, "held_out"), evaluator)["bbox"]
    print(json.dumps({"ap": found["AP"] / 100, "ap50": found["AP50"] / 100, "seconds": seconds}))


def _configuration(folder: Path, seed: int) -> Any:
    from detectron2.config import get_cfg

    from fbnetv3_zoo.detection.detectron2.modules import config_file

    cfg, steps = get_cfg(), TRAIN // RECIPE.batch_size
    cfg.merge_from_file(config_file("fbnetv3_a_c4"))
    cfg.SEED, cfg.OUTPUT_DIR = seed, str(folder / "detectron2")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS = ("train",), (), 0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (SIDE,), SIDE
    model, solver = cfg.MODEL, cfg.SOLVER
    model.DEVICE, model.FBNETV3.NORM, model.FBNETV3.EMA_DECAY = "cpu", "BN", RECIPE.ema_decay
    model.FBNETV3.NAME, model.FBNETV3.PRETRAINED = str(folder / "arch.json"), str(folder / "network.safetensors")
    model.ANCHOR_GENERATOR.SIZES, model.ANCHOR_GENERATOR.ASPECT_RATIOS = [[*SETTINGS.anchor_sizes]], [[1.0]]
    model.RPN.POST_NMS_TOPK_TRAIN = SETTINGS.proposals_in_training
    model.ROI_HEADS.NUM_CLASSES = len(shapes.KINDS)
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = SETTINGS.regions_in_training
    solver.IMS_PER_BATCH, solver.BASE_LR = RECIPE.batch_size, RECIPE.learning_rate
    solver.MAX_ITER, solver.WARMUP_ITERS = RECIPE.epochs * steps, steps
    optimizer = RECIPE.optimizer
    assert isinstance(optimizer, SGD)
    solver.MOMENTUM, solver.NESTEROV = optimizer.momentum, optimizer.nesterov
    solver.CLIP_GRADIENTS.ENABLED, solver.CLIP_GRADIENTS.CLIP_TYPE = True, "norm"
    solver.CLIP_GRADIENTS.CLIP_VALUE = RECIPE.clip_norm
    return cfg


def _figures(precision: dict[str, Any]) -> dict[str, float]:
    return {name: precision[name] for name in ("ap", "ap50")}


def one_seed(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Figures of all three trainings."""
    shapes.write(folder / "train", TRAIN, seed=2 * seed, side=SIDE)
    shapes.write(folder / "held_out", HELD_OUT, seed=2 * seed + 1, side=SIDE)
    data, held_out = (read_coco(folder / part / "shapes.json", folder / part) for part in ("train", "held_out"))
    began = time.perf_counter()
    network = digits_network(folder / "digits", seed)
    print(f"seed {seed}: network trained on the digits in {time.perf_counter() - began:.0f} s", flush=True)
    untrained = fbnetv3_zoo.create(ARCH, generator=torch.Generator().manual_seed(seed))
    found = {}
    for way in WAYS:
        if way == "detectron2":
            found[way] = by_detectron2(folder, network, seed)
        else:
            source = untrained if way == "random" else network
            found[way] = by_torchvision(data, held_out, folder / way, source, seed)
        print(f"  {way}: {json.dumps({name: round(value, 3) for name, value in found[way].items()})}", flush=True)
    return found


def _interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{np.mean(values):.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where data and runs go; must not exist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside is not None:
        inside_detectron2(asked.folder, asked.inside)
        return
    results = []
    for seed in range(asked.seeds):
        results.append(one_seed(asked.folder / str(seed), seed))
    print("\n| trained by | AP50 | AP | seconds |\n|---|---:|---:|---:|")
    for way, words in WAYS.items():
        columns = [[result[way][name] for result in results] for name in ("ap50", "ap", "seconds")]
        print(f"| {words} | {_interval(columns[0])} | {_interval(columns[1])} | {np.median(columns[2]):.0f} |")


if __name__ == "__main__":
    main()
