"""Repositories as timm, transformers and ONNX Runtime load them, from a folder, each library in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from networks import NAMES, settled
from safetensors import safe_open

from fbnetv3_zoo import save_pretrained
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.weights.repository import ANY, architecture_of, crop_share
from fbnetv3_zoo.weights.serialization import load
from fbnetv3_zoo.zoo import ARCHS

HEAD = '''
import json, sys, warnings
import numpy as np, timm, torch
from PIL import Image
import fbnetv3_zoo, fbnetv3_zoo.timm
torch.set_num_threads(1)
folder = sys.argv[1]
images = torch.from_numpy(np.load(f"{folder}/../images.npy"))
def aligned(model):
    """transformers maps weights where they lie in the file, which can have a processor add in another order."""
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    return model
'''


def _ended(code: str, folder: Path) -> str:
    """What ``code`` prints of the repository ``folder``, without a connection."""
    given = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", HEAD + code, str(folder)]
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _saved(model: FBNet, folder: Path, **options: object) -> Path:
    """The repository of ``model``, with images and the logits that it gives for them beside it."""
    save_pretrained(model, folder / "net", **options)  # type: ignore[arg-type]
    images = stack(load(folder / "net" / "model.safetensors").preprocess, photographs(3, seed=4))
    np.save(folder / "images.npy", images)
    with torch.inference_mode():
        np.save(folder / "logits.npy", load(folder / "net" / "model.safetensors")(torch.from_numpy(images)).numpy())
    photographs(1, seed=4)[0].save(folder / "photo.png")
    return folder / "net"


@pytest.fixture(scope="session")
def repository(tiny_arch: Arch, shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A network that has no published name, with int8. Only read."""
    model = settled(tiny_arch, NAMES)
    model.preprocess = replace(model.preprocess, resize=37, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    return shared("repository", lambda folder: _saved(model, folder, images=photographs(16, seed=1))) / "net"


def _logits(repository: Path) -> np.ndarray:
    return np.asarray(np.load(repository.parent / "logits.npy"))


def test_the_files(repository: Path) -> None:
    files = sorted(path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file())
    assert files == [
        "README.md", "config.json", "model.safetensors", "onnx/model.onnx", "onnx/model_quantized.onnx",
        "preprocessor_config.json",
    ]  # fmt: skip
    config = json.loads((repository / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["model_type"]) == (ANY, 10, "timm_wrapper")
    assert config["label_names"] == list(NAMES)
    assert config["id2label"] == {str(number): name for number, name in enumerate(NAMES)}
    assert config["pretrained_cfg"]["mean"] == [0.4, 0.5, 0.6]
    with safe_open(repository / "model.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "pt"


def test_ours_loads_it(repository: Path, tiny_arch: Arch) -> None:
    model = load(repository / "model.safetensors")
    assert (model.arch, model.class_names) == (tiny_arch, NAMES)
    assert model.preprocess.resize == 37
    again = create(tiny_arch, pretrained=repository / "model.safetensors").eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_onnx_runtime_runs_the_graphs(repository: Path) -> None:
    images, wanted = np.load(repository.parent / "images.npy"), _logits(repository)
    session = onnxruntime.InferenceSession(repository / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixel_values": images})
    assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
    int8 = onnxruntime.InferenceSession(repository / "onnx" / "model_quantized.onnx")
    assert [one.name for one in int8.get_inputs()] == ["pixel_values"]
    (logits,) = int8.run(["logits"], {"pixel_values": images})
    assert 1e-4 < np.abs(logits - wanted).max() / np.abs(wanted).max() < 0.3
    assert Classifier.open(repository / "onnx" / "model.onnx").description.class_names == NAMES


def test_timm_loads_it(repository: Path) -> None:
    said = _ended(
        """
fbnetv3_zoo.timm.register()
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
assert torch.equal(model(images), torch.from_numpy(np.load(f"{folder}/../logits.npy")))
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config)
photo = Image.open(f"{folder}/../photo.png")
ours = fbnetv3_zoo.load(f"{folder}/model.safetensors").preprocess([photo])[0]
print(float((transform(photo) - ours).abs().max()), model.pretrained_cfg["label_names"] == json.loads(
    open(f"{folder}/config.json").read())["label_names"])
""",
        repository,
    )
    apart, labels = said.split()
    assert (float(apart) < 1e-5, labels) == (True, "True")


def test_transformers_loads_it(repository: Path) -> None:
    _ended(
        """
from transformers import AutoImageProcessor, AutoModelForImageClassification, BitImageProcessor, pipeline
fbnetv3_zoo.timm.register()
model = aligned(AutoModelForImageClassification.from_pretrained(folder).eval())
assert type(model).__name__ == "TimmWrapperForImageClassification", type(model)
assert torch.equal(model(images).logits, torch.from_numpy(np.load(f"{folder}/../logits.npy")))
ours = fbnetv3_zoo.load(f"{folder}/model.safetensors")
assert [model.config.id2label[n] for n in range(10)] == list(ours.class_names)
photo = Image.open(f"{folder}/../photo.png")
prepared = ours.preprocess([photo])
assert (AutoImageProcessor.from_pretrained(folder)(photo)["pixel_values"] - prepared).abs().max() < 1e-5
square = photo.crop((0, 0, 300, 300))  # where an odd number of pixels is cropped away, it begins one later
other = BitImageProcessor.from_pretrained(folder)(square, return_tensors="pt")["pixel_values"]
apart = (other - ours.preprocess([square])).abs()
assert apart.max() < 0.03, apart.max()  # a level of 255, over a deviation of 0.2
best = pipeline("image-classification", folder)(photo, top_k=1)[0]["label"]
assert best == ours.class_names[int(ours(prepared).argmax())]
""",
        repository,
    )


@pytest.fixture(scope="session")
def of_timm(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A network that timm has, whose stem has a bias here and none there. Only read."""
    model = FBNet(
        replace(ARCHS["fbnetv3_b"].with_symmetric_padding(), num_classes=5), generator=torch.Generator().manual_seed(0)
    )
    model.preprocess = model.preprocess.at_resolution(64)
    with torch.no_grad():
        model.stages[0][0].conv.bias.normal_(generator=torch.Generator().manual_seed(1))
        model.train()(model.preprocess(photographs(8)))
    model.eval()

    def fill(folder: Path) -> None:
        _saved(model, folder, onnx=False)
        np.save(folder / "bias.npy", model.stages[0][0].conv.bias.detach().numpy())
        with torch.inference_mode():
            images = torch.from_numpy(np.load(folder / "images.npy"))
            np.save(folder / "before.npy", model(images).numpy())

    return shared("repository-of-timm", fill) / "net"


def test_timm_loads_its_own_without_us(of_timm: Path) -> None:
    said = _ended(
        """
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
assert type(model).__module__ == "timm.models.mobilenetv3"
from fbnetv3_zoo.weights.convert import to_timm
ours = fbnetv3_zoo.load(f"{folder}/model.safetensors")
direct = timm.create_model("fbnetv3_b", num_classes=5)
direct.load_state_dict(to_timm(ours.arch, ours.state_dict()))
assert torch.equal(model(images), direct.eval()(images))
from transformers import AutoModelForImageClassification
wrapped = aligned(AutoModelForImageClassification.from_pretrained(folder).eval())
assert torch.equal(wrapped(images).logits, model(images))
logits = torch.from_numpy(np.load(f"{folder}/../logits.npy"))
print(float((model(images) - logits).abs().max() / logits.abs().max()))
""",
        of_timm,
    )
    assert float(said) < 1e-4


def test_ours_loads_what_is_in_timms_names(of_timm: Path) -> None:
    """The bias of the stem is in the mean of the norm that follows."""
    config = json.loads((of_timm / "config.json").read_text())
    assert config["architecture"] == "fbnetv3_b"
    assert "model_args" not in config
    model = load(of_timm / "model.safetensors")
    assert model.arch == replace(ARCHS["fbnetv3_b"].with_symmetric_padding(), num_classes=5)
    assert not model.stages[0][0].conv.bias.any()
    before, after = np.load(of_timm.parent / "before.npy"), np.load(of_timm.parent / "logits.npy")
    assert np.abs(np.load(of_timm.parent / "bias.npy")).max() > 0.5
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()


def test_a_published_network_keeps_its_name(tmp_path: Path) -> None:
    model = create("fbnetv3_nano", pretrained=True).eval()
    folder = _saved(model, tmp_path, onnx=False)
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("fbnetv3_nano", 39)
    assert config["pretrained_cfg"]["license"] == "apache-2.0"
    assert "license: apache-2.0" in (folder / "README.md").read_text()
    _ended(
        """
fbnetv3_zoo.timm.register()
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
assert torch.equal(model(images), torch.from_numpy(np.load(f"{folder}/../logits.npy")))
""",
        folder,
    )


def test_how_timm_builds_networks(tiny_arch: Arch) -> None:
    assert architecture_of(ARCHS["fbnetv3_c"]).name == "fbnetv3_c"
    gray = architecture_of(replace(ARCHS["fbnetv3_c"], in_channels=1, num_classes=3))
    assert (gray.name, gray.arguments, gray.own) == ("fbnetv3_c", {"in_chans": 1}, True)
    assert architecture_of(ARCHS["fbnetv3_d"]).own is False
    for other in (tiny_arch, ARCHS["fbnetv3_b"], replace(ARCHS["fbnetv3_c"], width_divisor=4)):
        found = architecture_of(other)
        assert (found.name, found.own) == (ANY, True)
        assert Arch.from_json(json.dumps(found.arguments["arch"])) == other


@pytest.mark.parametrize(("side", "resize"), [(248, 272), (224, 256), (32, 37), (100, 107), (224, 224)])
def test_timm_resizes_to_the_same_side(side: int, resize: int) -> None:
    assert int(side / crop_share(Preprocess(resize, side))) == resize


def test_other_files_stay(smallest_arch: Arch, tmp_path: Path) -> None:
    model = settled(smallest_arch)
    (tmp_path / "notes.txt").write_text("mine")
    save_pretrained(model, tmp_path)
    save_pretrained(model, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "onnx" / "model_fp16.onnx").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ZooError) as caught:
        save_pretrained(model, tmp_path)
    told = "has model_fp16.onnx, which is not of a repository; move it, or give another folder"
    assert str(caught.value) == f"{tmp_path}/onnx: {told}"
    with pytest.raises(ZooError, match="images are for the int8 form of the ONNX file; leave out onnx=False"):
        save_pretrained(model, tmp_path, onnx=False, images=photographs(8))
    (tmp_path / "onnx" / "model_fp16.onnx").unlink()
    with pytest.raises(ZooError, match="images: 3 images; give at least 8 images like those"):
        save_pretrained(model, tmp_path, images=photographs(3))
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    with pytest.raises(ZooError) as caught:
        save_pretrained(model, tmp_path)
    told = f"{tmp_path}/model.safetensors: not written, as classifier.bias cannot be used: "
    assert str(caught.value).startswith(told)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == {path: content for path, content in before.items() if path.name != "model_fp16.onnx"}


def test_files_of_something_else_stay(smallest_arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project")
    with pytest.raises(ZooError) as caught:
        save_pretrained(settled(smallest_arch), tmp_path)
    told = "already exists, and was not written by this program; give another folder, or move that file"
    assert str(caught.value) == f"{tmp_path}/README.md: {told}"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_graphs_of_older_weights_do_not_stay(smallest_arch: Arch, tmp_path: Path) -> None:
    save_pretrained(settled(smallest_arch), tmp_path)
    with pytest.raises(ZooError, match=r"onnx: has graphs of older weights; leave out onnx=False, or give another "):
        save_pretrained(settled(smallest_arch), tmp_path, onnx=False)


def test_a_damaged_description(repository: Path, tmp_path: Path) -> None:
    content = (repository / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(content.replace(b'\\"format_version\\"', b'\\"format_fersion\\"'))
    with pytest.raises(ZooError, match=r"has format version None; this release reads '1'"):
        load(path)
    path.write_bytes(content.replace(b'"fbnetv3_zoo":"{', b'"fbnetv3_zoo":"['))
    with pytest.raises(ZooError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_timm_refuses_a_network_without_arch() -> None:
    code = "fbnetv3_zoo.timm.register(); timm.create_model(sys.argv[1], **json.loads(sys.argv[2]))"
    for name, given, told in (
        (ANY, "{}", f"{ANY}: give arch, what an arch JSON file has"),
        ("fbnetv3_c", '{"arch": {}}', "fbnetv3_c: takes no arch"),
    ):
        head = "import json, sys, timm, fbnetv3_zoo.timm\n"
        done = subprocess.run([sys.executable, "-c", head + code, name, given], capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == f"fbnetv3_zoo.errors.ZooError: {told}"
