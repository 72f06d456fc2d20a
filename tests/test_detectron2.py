"""detectron2's own unmodified tools with our configurations, and what its parts promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2_tree import environment, installed
from PIL import Image, ImageDraw

CONFIGS = Path(__file__).parents[1] / "detection" / "configs"
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.FBNETV3.NORM", "BN", "MODEL.FBNETV3.PRETRAINED", ""),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.001"),
]


def run(data: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment(data), capture_output=True, text=True, timeout=300
    )


def tool(data: Path, name: str, config: str, *options: object, before: tuple[str, ...] = ()) -> str:
    """What a tool of detectron2 writes; it must end well."""
    done = run(data, installed() / "tools" / name, *before, "--config-file", CONFIGS / f"{config}.yaml", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight and four images of rectangles, laid out like COCO 2017 with its 80 categories."""
    root, rng = tmp_path_factory.mktemp("datasets"), np.random.default_rng(0)
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


@pytest.mark.parametrize("config", ["fbnetv3_a_c4", "fbnetv3_a_fpn"])
def test_train_net_trains_resumes_and_evaluates(config: str, data: Path, tmp_path: Path) -> None:
    options = [*SMALL, "OUTPUT_DIR", tmp_path / "run"]
    first = tool(data, "train_net.py", config, *options, "SOLVER.MAX_ITER", 20)
    assert "Starting training from iteration 0" in first
    assert "copypaste: Task: bbox" in first
    losses = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert losses[0]["iteration"] == 19
    assert all(np.isfinite(losses[0][name]) for name in ("loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"))
    more = tool(data, "train_net.py", config, *options, "SOLVER.MAX_ITER", 24, before=("--resume",))
    assert "Starting training from iteration 20" in more
    only = tool(data, "train_net.py", config, *options, "MODEL.WEIGHTS", tmp_path / "run" / "model_final.pth",
                before=("--eval-only",))  # fmt: skip
    assert "copypaste: AP,AP50,AP75,APs,APm,APl" in only
    assert "unexpected" not in only


@pytest.mark.parametrize(
    ("config", "parameters"),
    [("fbnetv3_a_detector", "5.3M"), ("fbnetv3_a_c4", "4.3M"), ("fbnetv3_e_fpn", "23.0M")],
)
def test_analyze_model_counts(config: str, parameters: str, data: Path) -> None:
    written = tool(data, "analyze_model.py", config, *SMALL, before=("-n", "1", "--tasks", "parameter", "flop"))
    assert re.findall(r"^\| model +\| ([\d.]+M) +\|$", written, re.MULTILINE) == [parameters]
    (conv,) = re.findall(r"GFlops for each type of operators:\s*\[\('conv', ([\d.]+)\)", written)
    (total,) = re.findall(r"Total GFlops: ([\d.]+)", written)
    assert 0.1 < float(conv) < float(total) + 0.05


PROMISES = """
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from fbnetv3_zoo.detection.d2 import add_fbnetv3_config, config_file
from fbnetv3_zoo.errors import ZooError


def config(name, *options):
    cfg = get_cfg()
    add_fbnetv3_config(cfg)
    add_fbnetv3_config(cfg)
    cfg.merge_from_file(config_file(name))
    cfg.merge_from_list([*SMALL, *options])
    return cfg


for name in "abcdefg":
    model = build_model(config("fbnetv3_a_detector", "MODEL.FBNETV3.NAME", f"fbnetv3_{name}_detector"))
    print("parameters", name, sum(p.numel() for p in model.parameters()))
for size in ((33, 65), (97, 131), (801, 1203)):
    backbone = build_backbone(config("fbnetv3_a_c4")).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, *size))
    for key, shape in backbone.output_shape().items():
        wanted = (shape.channels, *(-(-side // shape.stride) for side in size))
        fits = tuple(maps[key].shape[1:]) == wanted
        print("map", key, fits, backbone.size_divisibility, backbone.padding_constraints)
print("pyramid", build_backbone(config("fbnetv3_a_fpn")).size_divisibility)
images = [{"image": torch.zeros(3, *size)} for size in ((64, 90), (81, 64))]
for name in ("fbnetv3_a_c4", "fbnetv3_a_fpn"):
    print("answers", [answer["instances"].image_size for answer in build_model(config(name)).eval()(images)])
for options in (
    ("MODEL.BACKBONE.FREEZE_AT", 2), ("MODEL.FBNETV3.NORM", "FrozenBN"), ("MODEL.FBNETV3.NORM", "GN"),
    ("MODEL.FBNETV3.NAME", "fbnetv3_h"),
    ("MODEL.FBNETV3.NAME", "fbnetv3_a_detector", "MODEL.FBNETV3.PRETRAINED", "true"),
    ("MODEL.PIXEL_MEAN", [0.5], "MODEL.PIXEL_STD", [1.0]),
):
    try:
        build_backbone(config("fbnetv3_a_c4", *options))
    except ZooError as error:
        print("refused", error)
try:
    config_file("fbnetv3_a_c5")
except ZooError as error:
    print("refused", error)
"""


def test_what_its_parts_promise(data: Path) -> None:
    from test_detection import PARAMETERS

    done = run(data, "-c", f"SMALL = {SMALL!r}\n{PROMISES}")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("parameters")] == [
        f"parameters {name[8]} {counts[-1]}" for name, counts in PARAMETERS.items()
    ]
    assert [line for line in lines if line.startswith("map")] == ["map stride16 True 0 {}"] * 3
    assert "pyramid 32" in lines
    assert [line for line in lines if line.startswith("answers")] == ["answers [(64, 90), (81, 64)]"] * 2
    keeps = "keeps weights and statistics as they are, and without weights they are random: give"
    remedy = "MODEL.FBNETV3.PRETRAINED or MODEL.WEIGHTS, or set FREEZE_AT 0 and NORM BN"
    assert [line for line in lines if line.startswith("refused")] == [
        f"refused MODEL.BACKBONE.FREEZE_AT 2 {keeps} {remedy}",
        f"refused MODEL.FBNETV3.NORM FrozenBN {keeps} {remedy}",
        "refused MODEL.FBNETV3.NORM is 'GN'; choose from BN, SyncBN, FrozenBN",
        "refused unknown model 'fbnetv3_h' (did you mean 'fbnetv3_g'?); `fbnetv3 list` shows all",
        "refused MODEL.FBNETV3.PRETRAINED: fbnetv3_a_detector has no ImageNet weights; give MODEL.WEIGHTS",
        "refused MODEL.PIXEL_MEAN has 1 channels, fbnetv3_a takes 3",
        "refused unknown configuration 'fbnetv3_a_c5' (did you mean 'fbnetv3_a_c4'?); there are fbnetv3_a_c4, "
        "fbnetv3_a_detector, fbnetv3_a_fpn, fbnetv3_e_c4, fbnetv3_e_fpn",
    ]
