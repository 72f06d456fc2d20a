"""This project's networks in timm's registry, each test in a process of its own: timm's registry has no undo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import every

from fbnetv3_zoo.weights.registry import RECORDS
from fbnetv3_zoo.zoo import ARCHS

OURS = [name for name in ARCHS if name not in ("fbnetv3_b", "fbnetv3_d", "fbnetv3_g")]


def _printed(script: str, *arguments: object, fails: bool = False) -> str:
    head = "import math, sys, timm, torch, fbnetv3_zoo as zoo, fbnetv3_zoo.weights.registry\ntorch.set_num_threads(1)\n"
    command = [sys.executable, "-W", "error::UserWarning:timm", "-c", head + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr.splitlines()[-1] if fails else done.stdout


def test_nothing_is_registered_before_the_call() -> None:
    told = _printed(
        "import fbnetv3_zoo.timm, fbnetv3_zoo.timm.entrypoints\n"
        "before = timm.list_models()\n"
        "assert not timm.is_model('fbnetv3_c')\n"
        "theirs = type(timm.create_model('fbnetv3_b'))\n"
        "added = zoo.timm.register()\n"
        "print(*added)\n"
        "assert {*timm.list_models()} == {*before, *added}\n"
        "assert zoo.timm.register() == []\n"
        "assert type(timm.create_model('fbnetv3_b')) is theirs\n"
        "assert timm.list_pretrained('fbnetv3_c') == ['fbnetv3_c.fb_in1k']\n"
    )
    assert told.split() == [*OURS, "fbnetv3_zoo"]


def test_importing_it_imports_no_timm() -> None:
    script = "import sys, fbnetv3_zoo.timm; print('timm' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_without_timm() -> None:
    script = "import sys; sys.modules['timm'] = None; import fbnetv3_zoo.timm; fbnetv3_zoo.timm.register()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    expected = 'register() needs timm, which is not installed; pip install "fbnetv3-zoo[timm]"'
    assert done.stderr.splitlines()[-1] == f"fbnetv3_zoo.errors.ZooError: {expected}"


def test_models_maps_and_data_configuration() -> None:
    _printed("""
zoo.timm.register()
torch.manual_seed(0)
model = timm.create_model("fbnetv3_c", num_classes=5, in_chans=1, drop_rate=0.1, drop_path_rate=0.2).eval()
assert (model.num_classes, model.arch.in_channels, model.dropout.p) == (5, 1, 0.1)
assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)
model.set_grad_checkpointing(enable=True)
assert model.gradient_checkpointing
model.reset_classifier(3)
assert model.get_classifier().out_features == model.num_classes == 3
config = timm.data.resolve_model_data_config(timm.create_model("fbnetv3_c"))
record = zoo.weights.registry.RECORDS["fbnetv3_c.fb_in1k"]
assert config["input_size"] == (3, 248, 248)
assert math.floor(248 / config["crop_pct"]) == record.preprocess.resize == 272
assert (config["mean"], config["std"]) == (record.preprocess.mean, record.preprocess.std)
assert (config["interpolation"], config["crop_mode"]) == ("bilinear", "center")
backbone = timm.create_model("fbnetv3_c", features_only=True, out_indices=(1, 3)).eval()
maps = backbone(torch.zeros(1, 3, 64, 64))
assert [x.shape[1] for x in maps] == backbone.feature_info.channels()
assert backbone.feature_info.reduction() == [4, 16]
""")


@pytest.mark.parametrize("name", every(OURS, "fbnetv3_nano"))
def test_every_network_is_built(name: str) -> None:
    """With the input that timm is told of; timm resizes to the side that the weights are for."""
    _printed(
        """
name = sys.argv[1]
zoo.timm.register()
model = timm.create_model(name).eval()
config = timm.data.resolve_model_data_config(model)
channels, height, width = config["input_size"]
records = [record for record in zoo.weights.registry.RECORDS.values() if record.arch.name == name]
preprocess = records[0].preprocess if records else model.preprocess
assert height == width == preprocess.resolution
assert math.floor(height / config["crop_pct"]) == preprocess.resize
side = model.pretrained_cfg["min_input_size"][1]
assert model(torch.zeros(1, channels, side, side)).shape == (1, model.num_classes)
""",
        name,
    )


def test_pretrained_weights() -> None:
    assert RECORDS["fbnetv3_nano.zoo_v1"].packaged is not None
    _printed("""
zoo.timm.register()
ours = zoo.create("fbnetv3_nano", pretrained=True).eval()
images = torch.rand(2, 3, 32, 32)
for model in (
    timm.create_model("fbnetv3_nano", pretrained=True),
    timm.create_model("fbnetv3_nano.zoo_v1", pretrained=True),
):
    assert model.weights == "fbnetv3_nano.zoo_v1"
    assert model.pretrained_cfg["license"] == "apache-2.0"
    assert torch.equal(model.eval()(images), ours(images))
""")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_what_timm_saves_it_loads(file: str, tmp_path: Path) -> None:
    _printed(
        """
zoo.timm.register()
torch.manual_seed(0)
model = timm.create_model("fbnetv3_nano", num_classes=7).eval()
timm.models.save_for_hf(model, sys.argv[1], safe_serialization=sys.argv[2] == "model.safetensors")
again = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
images = torch.rand(2, 3, 32, 32)
assert torch.equal(again(images), model(images))
overlaid = timm.create_model(
    "fbnetv3_nano", pretrained=True, num_classes=7, pretrained_cfg_overlay={"file": f"{sys.argv[1]}/{sys.argv[2]}"}
).eval()
assert torch.equal(overlaid(images), model(images))
""",
        tmp_path / "saved",
        file,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("out_indices=(1,)", "out_indices selects feature maps; add features_only=True"),
        ("features_only=True, out_indices=(9,)", "out_indices has 9; fbnetv3_nano has maps 0 to 2"),
        ("pretrained=True, pretrained_cfg_overlay={'state_dict': {}}",
         "fbnetv3_nano: a state_dict in pretrained_cfg is not read; give a file, or load it into the model"),
    ],
)  # fmt: skip
def test_what_is_refused(options: str, message: str) -> None:
    told = _printed(f"zoo.timm.register()\ntimm.create_model('fbnetv3_nano', {options})", fails=True)
    assert told == f"fbnetv3_zoo.errors.ZooError: {message}"
