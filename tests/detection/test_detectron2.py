"""detectron2's own unmodified tools with our configurations, and what its parts promise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import PARAMETERS
from detectron2_tools import assert_went_on, script, stored, tool, write_data
from torch import nn

from fbnetv3_zoo import ZooError
from fbnetv3_zoo.detection.detectron2.ema import BufferedAverage

SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.FBNETV3.NORM", "BN", "MODEL.FBNETV3.PRETRAINED", ""),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.001", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16"),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TEST", "50"),
]


@pytest.fixture(scope="module")
def data(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    return shared("detectron2-datasets", write_data)


def trained(config: str, data: Path, folder: Path) -> list[object]:
    """Train three steps in ``folder``; the options that it was done with."""
    options = [*SMALL, "MODEL.FBNETV3.EMA_DECAY", 0.5, "OUTPUT_DIR", folder]
    told = tool(data, "train_net.py", config, *options, "SOLVER.MAX_ITER", 3)
    assert "Starting training from iteration 0" in told
    assert "copypaste: Task: bbox" in told
    losses = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert losses[0]["iteration"] == 2
    assert all(np.isfinite(losses[0][name]) for name in ("loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"))
    assert stored(folder)[2] == 3
    return options


def test_train_net_trains(data: Path, tmp_path: Path) -> None:
    trained("fbnetv3_a_c4.yaml", data, tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("config", ["fbnetv3_a_c4.yaml", "fbnetv3_a_fpn.yaml"])
def test_train_net_trains_resumes_and_evaluates(config: str, data: Path, tmp_path: Path) -> None:
    """Which the LazyConfig tool does in test_detectron2_lazy.py."""
    folder = tmp_path / "run"
    options = trained(config, data, folder)
    before = stored(folder)
    more = tool(data, "train_net.py", config, *options, "SOLVER.MAX_ITER", 4, before=("--resume",))
    assert "Starting training from iteration 3" in more
    assert_went_on(folder, before, 0.5)
    only = tool(data, "train_net.py", config, *options, "MODEL.WEIGHTS", folder / "model_final.pth",
                before=("--eval-only",))  # fmt: skip
    assert "copypaste: AP,AP50,AP75,APs,APm,APl" in only
    assert "unexpected" not in only
    assert "not found in the checkpoint" not in only


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "parameters"),
    [("fbnetv3_a_c4.yaml", "4.3M"), ("fbnetv3_a_detector.yaml", "5.3M"), ("fbnetv3_e_fpn.yaml", "23.0M")],
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
from fbnetv3_zoo.detection.detectron2.modules import add_fbnetv3_config, config_file
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
for size in ((33, 65), (97, 131), (201, 303)):
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
    ("MODEL.FBNETV3.NAME", "fbnetv3_a_detector", "MODEL.BACKBONE.NAME", "build_fbnetv3_fpn_backbone"),
    ("MODEL.PIXEL_MEAN", [0.5], "MODEL.PIXEL_STD", [1.0]),
    ("MODEL.BACKBONE.NAME", "build_fbnetv3_fpn_backbone", "MODEL.RPN.HEAD_NAME", "StandardRPNHead",
     "MODEL.RPN.IN_FEATURES", ["p4"], "MODEL.ROI_HEADS.IN_FEATURES", ["p4"]),
    ("MODEL.FBNETV3.EMA_DECAY", 1.0),
):
    try:
        build_model(config("fbnetv3_a_c4", *options))
    except ZooError as error:
        print("refused", error)
try:
    config_file("fbnetv3_a_c5")
except ZooError as error:
    print("refused", error)
"""


def test_what_its_parts_promise(told: list[str]) -> None:
    lines = told[: told.index("AVERAGE")]
    assert [line for line in lines if line.startswith("parameters")] == [
        f"parameters {name[8]} {counts[-1]}" for name, counts in PARAMETERS.items()
    ]
    assert [line for line in lines if line.startswith("map")] == ["map stride16 True 0 {}"] * 3
    assert "pyramid 32" in lines
    assert [line for line in lines if line.startswith("answers")] == ["answers [(64, 90), (81, 64)]"] * 2
    keeps = "would freeze random weights and statistics; give"
    remedy = (
        "MODEL.FBNETV3.PRETRAINED or MODEL.WEIGHTS (LazyConfig: model.backbone.pretrained or train.init_checkpoint), "
        "or set freeze_at 0 and norm BN"
    )
    assert [line for line in lines if line.startswith("refused")] == [
        f"refused freeze_at 2 {keeps} {remedy}",
        f"refused norm FrozenBN {keeps} {remedy}",
        "refused norm is 'GN'; choose from BN, SyncBN, FrozenBN",
        "refused unknown model 'fbnetv3_h' (did you mean 'fbnetv3_g'?); `fbnetv3 list` shows all",
        "refused fbnetv3_a_detector has no ImageNet weights; leave MODEL.FBNETV3.PRETRAINED empty (LazyConfig: "
        "model.backbone.pretrained) and give MODEL.WEIGHTS (train.init_checkpoint)",
        "refused fbnetv3_a_detector has no map of stride 32; use it for C4, with stride 16",
        "refused MODEL.PIXEL_MEAN has 1 channels; give 3 for fbnetv3_a",
        "refused FBNetV3BoxHead of fbnetv3_a takes 120 channels, not 256; use it with build_fbnetv3_backbone and "
        "MODEL.ROI_HEADS.IN_FEATURES [stride16]",
        "refused ema_decay is 1.0; it must be a number above 0 and below 1",
        "refused unknown configuration 'fbnetv3_a_c5' (did you mean 'fbnetv3_a_c4'?); there are fbnetv3_a_c4, "
        "fbnetv3_a_detector, fbnetv3_a_fpn, fbnetv3_e_c4, fbnetv3_e_fpn, fbnetv3_a_c4.py, fbnetv3_a_detector.py, "
        "fbnetv3_a_fpn.py, fbnetv3_e_c4.py, fbnetv3_e_fpn.py",
    ]


AVERAGE = """
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import FlopCountAnalysis
from detectron2.utils.events import EventStorage
from fbnetv3_zoo.detection.detectron2.modules import add_fbnetv3_config, config_file


def build(*options):
    cfg = get_cfg()
    add_fbnetv3_config(cfg)
    cfg.merge_from_file(config_file("fbnetv3_a_detector"))
    cfg.merge_from_list([*SMALL, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "SOLVER.BASE_LR", 0.01, *options])
    torch.manual_seed(0)
    model = build_model(cfg)
    return model, build_optimizer(cfg, model)


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    box = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[4.0, 4, 40, 40]])), gt_classes=torch.tensor([1]))
    return [{"image": torch.rand(3, 64, 64, generator=generator) * 255, "instances": box} for _ in range(2)]


def learn(model, optimizer, *seeds):
    for seed in seeds:
        torch.manual_seed(seed)
        with EventStorage():
            loss = sum(model.train()(images(seed)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def plain(model):
    return {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("average.")}


def answers(model):
    with torch.no_grad():
        return [(a["instances"].pred_boxes.tensor, a["instances"].scores) for a in model.eval()(images(9))]


def same(one, other):
    return all(torch.equal(x, y) for pair in zip(one, other, strict=True) for x, y in zip(*pair, strict=True))


half = ("MODEL.FBNETV3.EMA_DECAY", 0.5)
rcnn = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
model, optimizer = build(*half)
bare, _ = build(*rcnn)
print("parameters", [n for n, _ in model.named_parameters()] == [n for n, _ in bare.named_parameters()])
bare.load_state_dict(plain(model))
print("untrained", same(answers(model), answers(bare)))
with torch.no_grad(), EventStorage():
    model.train()(images(0))
print("no gradients, no update", int(model.average.updates))

history = []
for seed in range(4):
    history.append(plain(model))
    learn(model, optimizer, seed)
    if seed == 1:
        DetectionCheckpointer(model, FOLDER, optimizer=optimizer).save("half_way")
mean = history[0]
for state in history[1:]:
    mean = {n: 0.5 * mean[n] + 0.5 * t if t.is_floating_point() else t for n, t in state.items()}
averaged = model.averaged_state_dict()
print("by hand", averaged.keys() == mean.keys(), max(float((averaged[n] - mean[n]).abs().max()) for n in mean) < 1e-5)
print("moved", max(float((averaged[n] - t).abs().max()) for n, t in plain(model).items()) > 1e-3)
print("count", averaged["backbone.trunk.stages.0.0.norm.num_batches_tracked"], int(model.average.updates))
bare.load_state_dict(averaged)
found = answers(model)
print("evaluated", len(found[0][1]) > 0, same(found, answers(bare)))
bare.load_state_dict(plain(model))
print("plain", same(found, answers(bare)))
count = FlopCountAnalysis(model, images(9)[:1]).uncalled_modules_warnings(False).unsupported_ops_warnings(False)
print("traced", count.total() > 1e7, same(found, answers(model)))

again, optimizer = build(*half)
DetectionCheckpointer(again, FOLDER, optimizer=optimizer).load(f"{FOLDER}/half_way.pth")
learn(again, optimizer, 2, 3)
state = again.state_dict()
print("resumed", all(torch.equal(t, state[n]) for n, t in model.state_dict().items()))

other, _ = build(*half, "MODEL.ROI_HEADS.NUM_CLASSES", 3)
DetectionCheckpointer(other).load(f"{FOLDER}/half_way.pth")
print("other classes", int(other.average.updates))
DetectionCheckpointer(bare, FOLDER).save("plain")
DetectionCheckpointer(model).load(f"{FOLDER}/plain.pth")
print("from plain", int(model.average.updates), same(answers(model), answers(bare)))
without, optimizer = build("MODEL.FBNETV3.EMA_DECAY", 0.0)
learn(without, optimizer, 0)
print("without", without.state_dict().keys() == mean.keys() == without.averaged_state_dict().keys())
"""


@pytest.fixture(scope="module")
def told(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the two scripts print in one process: importing detectron2 takes seconds."""
    folder = str(tmp_path_factory.mktemp("average"))
    return script(data, f"SMALL, FOLDER = {SMALL!r}, {folder!r}\n{PROMISES}\nprint('AVERAGE')\n{AVERAGE}")


def test_evaluation_uses_an_average_that_resuming_continues(told: list[str]) -> None:
    assert told[told.index("AVERAGE") + 1 :] == [
        "parameters True",
        "untrained True",
        "no gradients, no update 0",
        "by hand True True",
        "moved True",
        "count tensor(4) 4",
        "evaluated True True",
        "plain False",
        "traced True True",
        "resumed True",
        "other classes 0",
        "from plain 0 True",
        "without True",
    ]


def test_buffered_average_begins_with_what_it_is_given() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = BufferedAverage(module, 0.75)
    assert average.values() == {}
    assert list(average.parameters()) == []
    assert repr(average) == "BufferedAverage(decay=0.75)"
    first = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    average.update(module)
    assert all(torch.equal(tensor, first[name]) for name, tensor in average.values().items())
    with torch.no_grad():
        module[0].weight.add_(1)
        module[1].num_batches_tracked.add_(5)
    average.update(module)
    torch.testing.assert_close(average.values()["0.weight"], first["0.weight"] + 0.25)
    assert average.values()["1.num_batches_tracked"] == 5
    average.load_state_dict({})
    assert average.values() == {}
    for decay in (0, 1, -0.5, "much"):
        with pytest.raises(ZooError, match=r"^ema_decay is .*; it must be a number above 0 and below 1$"):
            BufferedAverage(module, decay)  # type: ignore[arg-type]
