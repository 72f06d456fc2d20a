"""detectron2's own unmodified LazyConfig tool with our configurations, and that these say what the yaml files say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2_tools import CONFIGS, assert_went_on, script, stored, tool, write_data
from folders import ROOT


def small(backbone: str, folder: Path) -> list[str]:
    """Overrides for a short run on a CPU."""
    return [
        *("train.device=cpu", f"train.output_dir={folder}", "train.log_period=1", "model.ema_decay=0.5"),
        *("model.proposal_generator.post_nms_topk=[50,50]", "model.roi_heads.batch_size_per_image=16"),
        *(f"model.{backbone}.norm=BN", f"model.{backbone}.pretrained=false"),
        *("dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0", "dataloader.test.num_workers=0"),
        *(f"dataloader.{part}.mapper.augmentations.0.short_edge_length=[64]" for part in ("train", "test")),
        *("optimizer.lr=0.001", "model.roi_heads.box_predictor.test_score_thresh=0.0"),
        "dataloader.evaluator.use_fast_impl=false",  # the fast one is C++, which the tree lacks
    ]


def results(run: Path) -> list[dict[str, object]]:
    """The boxes that a run's last evaluation found."""
    found: list[dict[str, object]] = json.loads((run / "inference" / "coco_instances_results.json").read_text())
    assert found
    return found


@pytest.fixture(scope="module")
def data(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    return shared("detectron2-datasets", write_data)


def test_the_tool_trains_resumes_and_evaluates(data: Path, tmp_path: Path) -> None:
    folder, name, config = tmp_path / "run", "lazyconfig_train_net.py", "fbnetv3_a_c4.py"
    options = small("backbone", folder)
    first = tool(data, name, config, *options, "train.max_iter=2")
    assert "Starting training from iteration 0" in first
    assert "copypaste: Task: bbox" in first
    losses = re.findall(r"total_loss: (\S+)", first)
    assert len(losses) == 2
    assert np.isfinite([float(loss) for loss in losses]).all()
    before = stored(folder)
    assert before[2] == 2
    more = tool(data, name, config, *options, "train.max_iter=3", before=("--resume",))
    assert "Starting training from iteration 2" in more
    assert_went_on(folder, before, 0.5)
    found = results(folder)
    only = tool(data, name, config, *options, f"train.init_checkpoint={folder / 'model_final.pth'}",
                before=("--eval-only",))  # fmt: skip
    assert "copypaste: AP,AP50,AP75,APs,APm,APl" in only
    assert "unexpected" not in only
    assert "not found in the checkpoint" not in only
    assert results(folder) == found


@pytest.mark.long
def test_the_tool_trains_a_pyramid(data: Path, tmp_path: Path) -> None:
    options = small("backbone.bottom_up", tmp_path / "run")
    told = tool(data, "lazyconfig_train_net.py", "fbnetv3_a_fpn.py", *options, "train.max_iter=2")
    assert "copypaste: Task: bbox" in told
    assert stored(tmp_path / "run")[2] == 2


SAME = """
import os

del os.environ["DETECTRON2_ENV_MODULE"]  # lazy files do without it
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from fbnetv3_zoo.detection.detectron2.modules import add_fbnetv3_config, config_file
from fbnetv3_zoo.errors import ZooError
from omegaconf import ListConfig


def plain(value):
    if isinstance(value, (tuple, list, ListConfig)):
        return [plain(one) for one in value]
    if isinstance(value, torch.nn.Module):
        return repr(value)
    return settings(value) if hasattr(value, "__dict__") else value


def settings(value):
    return {name: plain(one) for name, one in vars(value).items() if not name.startswith("_")}


def differences(one, other):
    for (name, module), (_, like) in zip(one.named_modules(), other.named_modules(), strict=True):
        left, right = settings(module), settings(like)
        yield from (f"{name}.{key}" for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def groups(optimizer):
    keys = ("lr", "momentum", "weight_decay", "nesterov")
    return [(len(group["params"]), *(group[key] for key in keys)) for group in optimizer.param_groups]


for name in NAMES:
    cfg = get_cfg()
    add_fbnetv3_config(cfg)
    cfg.merge_from_file(config_file(name))
    lazy = LazyConfig.load(config_file(f"{name}.py"))
    backbone = lazy.model.backbone if "name" in lazy.model.backbone else lazy.model.backbone.bottom_up
    print(name, backbone.name == cfg.MODEL.FBNETV3.NAME, backbone.pretrained is bool(cfg.MODEL.FBNETV3.PRETRAINED))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.FBNETV3.PRETRAINED", ""])
    backbone.pretrained = False
    one, other = build_model(cfg), instantiate(lazy.model)
    print(*sorted(differences(one, other)), str(one) == str(other), one.average.decay == other.average.decay)
    lazy.optimizer.params.model = one
    optimizer, also = build_optimizer(cfg, one), instantiate(lazy.optimizer)
    images, steps = lazy.dataloader.train.total_batch_size, lazy.train.max_iter
    print("solver", groups(optimizer) == groups(also), images == cfg.SOLVER.IMS_PER_BATCH, steps == cfg.SOLVER.MAX_ITER)
    schedule, multiplier = build_lr_scheduler(cfg, optimizer), instantiate(lazy.lr_multiplier)
    asked = [step / steps for step in (0, 1, 500, 999, 1000, 1001, steps // 2, steps - 1)]
    print("schedule", [multiplier(part) for part in asked] == [schedule._multiplier(part) for part in asked])
    for part, training in (("train", True), ("test", False)):
        mapper, like = DatasetMapper(cfg, training), instantiate(lazy.dataloader[part].mapper)
        print(part, settings(mapper) == settings(like), len(settings(like)["augmentations"]["augs"]))
    print("data", [lazy.dataloader.train.dataset.names] == list(cfg.DATASETS.TRAIN),
          [lazy.dataloader.evaluator.dataset_name] == list(cfg.DATASETS.TEST))

lazy = LazyConfig.load(config_file("fbnetv3_a_c4.py"))
LazyConfig.apply_overrides(lazy, ["model.backbone.name=fbnetv3_e", "model.backbone.pretrained=false",
                                  "model.backbone.norm=BN", "model.roi_heads.num_classes=7"])
print("one name", sum(p.numel() for p in instantiate(lazy.model).parameters()))
lazy.model.backbone.freeze_at = 2
lazy.train.init_checkpoint = "model_final.pth"
print("kept", sum(not p.requires_grad for p in instantiate(lazy.model).parameters()) > 0)
lazy.train.init_checkpoint = ""
try:
    instantiate(lazy.model)
except ZooError as error:
    print("refused", error)
"""


@pytest.mark.parametrize(
    "names",
    [
        ("fbnetv3_a_c4", "fbnetv3_a_fpn", "fbnetv3_a_detector"),
        pytest.param(("fbnetv3_e_c4", "fbnetv3_e_fpn"), marks=pytest.mark.long),
    ],
    ids=["a", "e"],
)
def test_lazy_files_say_what_yaml_files_say(names: tuple[str, ...], data: Path) -> None:
    lines = iter(script(data, f"NAMES = {names}\n{SAME}"))
    for name in names:
        assert next(lines) == f"{name} True True"
        # a weight of 1 that the one leaves out
        assert next(lines) == "roi_heads.box_predictor.loss_weight True True"
        assert next(lines) == "solver True True True"
        assert next(lines) == "schedule True"
        assert [next(lines), next(lines)] == ["train True 2", "test True 1"]
        assert next(lines) == "data True True"
    assert [*lines] == [
        f"one name {6_631_588 - 73 * 5 * 241}",  # fbnetv3_e with 80 classes, less 73
        "kept True",
        "refused freeze_at 2 would freeze random weights and statistics; give MODEL.FBNETV3.PRETRAINED or "
        "MODEL.WEIGHTS (LazyConfig: model.backbone.pretrained or train.init_checkpoint), or set freeze_at 0 and norm "
        "BN",
    ]


def test_configurations_are_shipped() -> None:
    (told,) = re.findall(r'^"fbnetv3_zoo.detection" = (\[.*\])$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    patterns = json.loads(told)
    shipped = {path for pattern in patterns for path in (ROOT / "detection").glob(pattern) if path.parent == CONFIGS}
    assert shipped == {path for path in CONFIGS.iterdir() if path.is_file()}
    assert {path.stem for path in shipped if path.suffix == ".py"} == {path.stem for path in shipped}
