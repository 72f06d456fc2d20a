"""Published weights in use: the official ones, timm's, and files in their layouts, through ``create`` alone."""

from __future__ import annotations

import functools
import http.server
import logging
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pytest
import timm
import torch
from golden import GOLDEN, expected_logits, golden_input, official_checkpoint, official_state_dict
from loopback import running
from refusals import refusal
from safetensors.torch import save_file
from sweeps import every
from torch import Tensor, nn

from fbnetv3_zoo import factory
from fbnetv3_zoo.arch import Activation, Arch
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.weights import pretrained
from fbnetv3_zoo.weights import registry as records
from fbnetv3_zoo.weights.cache import WeightsCache, sha256_of
from fbnetv3_zoo.weights.convert import from_official, from_timm, timm_name, to_timm
from fbnetv3_zoo.weights.pretrained import find_weights
from fbnetv3_zoo.weights.registry import RECORDS, TIMM_NAMES, timm_form
from fbnetv3_zoo.weights.serialization import load, save
from fbnetv3_zoo.zoo import ARCHS

NETWORK = "fbnetv2_f1"  # the cheapest of the golden ones


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        pass


@dataclass(frozen=True)
class Site:
    """A folder of published files, its address, and a cache that gets them from there."""

    folder: Path
    address: str
    cache: WeightsCache

    def publish(self, name: str, file: str, content: object) -> Path:
        path = self.folder / name / file
        path.parent.mkdir(exist_ok=True)
        torch.save(content, path)
        return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Published files behind a real server."""
    folder = tmp_path_factory.mktemp("site")
    handler = functools.partial(_Quiet, directory=str(folder))
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        kept = tmp_path_factory.mktemp("kept")
        yield Site(
            folder, address, WeightsCache(kept, offline=False, mirror=address, lock=kept / "lock.json", pause=0.0)
        )


@pytest.fixture(scope="module")
def cache(site: Site) -> WeightsCache:
    """A cache that has the official weights of NETWORK and may ask nobody any more."""
    site.publish(f"{NETWORK}.fb_in1k", "model.pth", official_checkpoint(NETWORK))
    create(NETWORK, pretrained=True, cache=site.cache)
    return replace(site.cache, offline=True, mirror=None)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FBNETV3_ZOO_CACHE", "FBNETV3_ZOO_OFFLINE", "FBNETV3_ZOO_MIRROR", "FBNETV3_ZOO_LOCK"):
        monkeypatch.delenv(name, raising=False)


# The official weights.


@pytest.mark.parametrize("name", every(GOLDEN, "fbnetv3_a", "fbnet_a"))
def test_official_weights_give_the_official_logits(site: Site, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = site.publish(f"{name}.fb_in1k", "model.pth", official_checkpoint(name))
    model = create(name, pretrained=True, cache=site.cache)
    assert model.training
    with torch.inference_mode():
        logits = model.eval()(golden_input(name))
    torch.testing.assert_close(logits, expected_logits(name), atol=1e-5, rtol=0)
    record = RECORDS[f"{name}.fb_in1k"]
    assert (model.arch, model.preprocess, model.class_names) == (ARCHS[name], record.preprocess, record.class_names)
    address, digest = f"{site.address}/{name}.fb_in1k/model.pth", sha256_of(path.read_bytes())
    assert _said(caplog) == [
        f"{address}: no digest is published; recorded SHA-256 {digest} in {site.cache.lock_path}",
        f"{name}.fb_in1k: license CC-BY-NC-4.0 (name the authors, no commercial use)",
    ]
    state = model.state_dict()
    averaged, raw = (from_official(ARCHS[name], official_state_dict(name, salt)) for salt in ("", "raw:"))
    assert all(torch.equal(state[key], averaged[key]) for key in state)
    assert not any(torch.equal(state[key], raw[key]) for key in state if "num_batches" not in key)
    model.load_state_dict(raw)
    with torch.inference_mode():
        assert (model(golden_input(name)) - logits).abs().max() > 0.1


def test_without_an_average_the_raw_weights_are_taken(tmp_path: Path) -> None:
    raw = official_checkpoint(NETWORK) | {"model_ema": None}
    (tmp_path / f"{NETWORK}.fb_in1k").mkdir()
    torch.save(raw, tmp_path / f"{NETWORK}.fb_in1k" / "model.pth")
    model = create(NETWORK, pretrained=True, cache=WeightsCache(tmp_path / "kept", mirror=str(tmp_path)))
    expected = from_official(ARCHS[NETWORK], official_state_dict(NETWORK, "raw:"))
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_kept_weights_need_nobody(cache: WeightsCache) -> None:
    for place in (True, "fb_in1k", f"{NETWORK}.fb_in1k"):
        for name in (NETWORK, f"{NETWORK}.fb_in1k"):
            model = create(name, pretrained=place, cache=cache).eval()
            with torch.inference_mode():
                torch.testing.assert_close(model(golden_input(NETWORK)), expected_logits(NETWORK), atol=1e-5, rtol=0)


# timm's weights.


def _random_timm(name: str) -> nn.Module:
    """A network of timm with random weights and statistics: logits of order 1, which depend on the image.

    Each norm takes away part of its input's mean only and residual branches are weak: the signal neither fades nor
    makes noise of rounding grow, as it does under timm's initial values.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2020)
        model: nn.Module = timm.create_model(name).eval()
        for key, parameter in model.named_parameters():
            if re.search(r"\.se\.conv_\w+\.weight", key):
                parameter.mul_(0.1)
        norms = [(key, module) for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
        hooks = [norm.register_forward_pre_hook(_settle) for _, norm in norms]
        for key, norm in norms:
            norm.branch_gain = 0.3 if key.endswith("bn3") else 1.0
        model(torch.randn(2, 3, 128, 128))
        for hook in hooks:
            hook.remove()
        model.get_classifier().weight.div_(4 * model(torch.randn(2, 3, 128, 128)).std())
        model.get_classifier().bias.normal_(0.0, 0.1)
    return model


def _settle(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
    """Draw a norm's values about the statistics of its input."""
    x = inputs[0]
    norm.weight.uniform_(0.5, 1.5).mul_(norm.branch_gain)
    norm.bias.normal_(0.0, 0.1)
    norm.running_mean.copy_(0.5 * x.mean((0, 2, 3))).mul_(torch.empty_like(norm.bias).uniform_(0.7, 1.3))
    spread = (x - norm.running_mean[:, None, None]).square().mean((0, 2, 3))
    norm.running_var.copy_(spread).mul_(torch.empty_like(norm.bias).uniform_(0.7, 1.4))


@pytest.fixture(scope="module", params=["fbnetv3_b", "fbnetv3_d", "fbnetv3_g"])
def theirs(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """One of the networks that timm has retrained, and its name."""
    return request.param, _random_timm(request.param)


def _images() -> Tensor:
    return torch.randn(2, 3, 131, 160, generator=torch.Generator().manual_seed(4))


def _difference(model: nn.Module, theirs: nn.Module) -> float:
    images = _images().to(next(model.parameters()).dtype)
    with torch.inference_mode():
        expected = theirs(images)
        assert 0.15 < expected.std() < 3
        assert (expected[0] - expected[1]).std() > 0.1 * expected.std()  # the logits do depend on the image
        return float((model.eval()(images) - expected).abs().max())


def _settled(arch: Arch) -> FBNet:
    """``arch`` with random weights and statistics, and logits that depend on the image."""
    model = FBNet(arch, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(0.5 if name.endswith("project.norm") else 1.0)
                module.bias.normal_(0.0, 0.1, generator=generator)
                module.momentum = None
        for name, parameter in model.named_parameters():
            if name == "stages.0.0.conv.bias":
                parameter.normal_(0.0, 0.5, generator=generator)
        model(_images())
        model.classifier.weight /= model.eval()(_images()).std()
    return model


@pytest.mark.parametrize("form", ["own", "timm"])
@pytest.mark.parametrize("name", every(TIMM_NAMES, "fbnetv3_b"))
def test_timm_gives_our_logits(name: str, form: str) -> None:
    """In float64, also with a bias in the stem, which timm's lacks, and with another number of classes."""
    arch = ARCHS[name].with_symmetric_padding() if form == "own" else timm_form(ARCHS[name])
    model = _settled(replace(arch, num_classes=7 if form == "own" else 1000)).double()
    assert timm_name(model.arch) == name
    theirs = timm.create_model(name, num_classes=model.num_classes).eval().double()
    theirs.load_state_dict(to_timm(model.arch, model.state_dict()))
    assert _difference(model, theirs) < 1e-12
    back = from_timm(timm_form(model.arch), to_timm(model.arch, model.state_dict()))
    if form == "timm":
        assert all(torch.equal(tensor, back[key]) for key, tensor in model.state_dict().items())


def test_timm_gives_our_logits_for_one_channel() -> None:
    arch = replace(timm_form(ARCHS["fbnetv3_b"]), in_channels=1, name="mine", resolution=64)
    model = FBNet(arch).eval()
    theirs = timm.create_model(timm_name(arch), in_chans=1).eval()
    theirs.load_state_dict(to_timm(arch, model.state_dict()))
    images = _images()[:, :1]
    with torch.inference_mode():
        torch.testing.assert_close(theirs(images), model(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in ARCHS if name not in (*TIMM_NAMES, "fbnetv3_a")])
def test_networks_that_timm_lacks(name: str) -> None:
    text = f"{name}: timm has no such network; it has fbnetv3_b, fbnetv3_d, fbnetv3_g"
    assert refusal(lambda: timm_name(ARCHS[name])) == text


@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv3_b"])
def test_timm_has_no_network_padded_as_published(name: str) -> None:
    """A has the rows of B."""
    arch = ARCHS[name]
    assert timm_name(arch.with_symmetric_padding()) == "fbnetv3_b"
    assert refusal(lambda: to_timm(arch, FBNet(arch).state_dict())) == (
        f"{name}: timm's fbnetv3_b pads symmetrically, this network does not; give arch.with_symmetric_padding(), "
        "whose logits differ from this network's"
    )


@pytest.mark.long
def test_timms_state_dict_gives_timms_logits(theirs: tuple[str, nn.Module]) -> None:
    name, net = theirs
    for arch in (RECORDS[f"{name}.ra2_in1k"].arch, timm_form(ARCHS[name])):
        with torch.device("meta"):
            model = FBNet(arch)
        model.load_state_dict(from_timm(arch, net.state_dict()), assign=True)
        assert _difference(model, net) < 1e-5
        with torch.inference_mode():  # in double precision nothing is left of rounding
            images = _images().double()
            difference = deepcopy(model).double().eval()(images) - deepcopy(net).double()(images)
        assert difference.abs().max() < 1e-9


@pytest.mark.long
@pytest.mark.parametrize("file", ["a.pth", "old.pth", "a.safetensors"])
def test_timms_files_give_timms_logits(theirs: tuple[str, nn.Module], file: str, tmp_path: Path) -> None:
    name, net = theirs
    path, record = tmp_path / file, RECORDS[f"{name}.ra2_in1k"]
    if file == "a.safetensors":
        save_file(net.state_dict(), path, {"format": "pt"})
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=file == "a.pth")
    for model_name in (name, f"{name}.ra2_in1k"):
        model = create(model_name, pretrained=path, cache=WeightsCache(tmp_path / "kept"))
        assert _difference(model, net) < 1e-5
        assert model.arch.stages == record.arch.stages
    assert _difference(create(record.arch, pretrained=path, cache=WeightsCache(tmp_path / "kept")), net) < 1e-5
    text = f"{path}: holds another form of {name}; create({name!r}, ...) takes the file's own, or load() the file alone"
    value = ARCHS[name]
    refused = refusal(lambda: create(value, pretrained=path, cache=WeightsCache(tmp_path / "kept")))
    assert refused.partition(": ")[2] == text.partition(": ")[2]


def _published(monkeypatch: pytest.MonkeyPatch, path: Path, name: str) -> None:
    """Have the record's published digits be those of the file at ``path``."""
    record = RECORDS[name]
    sources = (replace(record.sources[0], sha256=sha256_of(path.read_bytes())[:8]), *record.sources[1:])
    changed = MappingProxyType({**RECORDS, name: replace(record, sources=sources)})
    for module in (records, pretrained, factory):
        monkeypatch.setattr(module, "RECORDS", changed)


def test_timms_published_weights(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name, net = "fbnetv3_b.ra2_in1k", _random_timm("fbnetv3_b")
    path = site.publish(name, "fbnetv3_b_224-ead5d2a1.pth", net.state_dict())
    _published(monkeypatch, path, name)
    cache = replace(site.cache, folder=tmp_path, lock=None)
    model = create("fbnetv3_b", pretrained="ra2_in1k", cache=cache)
    assert _difference(model, net) < 1e-5
    record = RECORDS[name]
    assert (model.arch, model.preprocess, model.class_names) == (record.arch, record.preprocess, record.class_names)
    assert _said(caplog) == [f"{name}: license Apache-2.0 (any use, keep the notices)"]
    alone = replace(cache, offline=True, mirror=None)
    for make in (
        lambda: create(name, pretrained=True, cache=alone),
        lambda: create(name, pretrained="ra2_in1k", cache=alone),
        lambda: create("fbnetv3_b", pretrained=name, cache=alone),
        lambda: create("fbnetv3_b", pretrained="commercial", cache=alone),
    ):
        assert _difference(make(), net) < 1e-5
    value = replace(record.arch, name="mine", resolution=200)
    mine = create(value, pretrained=next(tmp_path.glob("*.safetensors")), cache=alone)
    assert (mine.arch, mine.preprocess) == (value, record.preprocess)
    assert _difference(mine, net) < 1e-5


def test_a_file_without_the_published_digits_is_refused(site: Site, tmp_path: Path) -> None:
    name = "fbnetv3_d.ra2_in1k"
    path = site.publish(name, "fbnetv3_d_224-c98bce42.pth", {"a": torch.zeros(1)})
    cache = replace(site.cache, folder=tmp_path, lock=None, attempts=1)
    refused = refusal(lambda: create(name, pretrained=True, cache=cache))
    digest = sha256_of(path.read_bytes())
    wrong = f"{site.address}/{name}/{path.name}: has SHA-256 {digest}, not c98bce42..., as published; refused"
    assert refused.startswith(f"{name}: cannot be fetched: {wrong}; ")
    assert not list(tmp_path.glob("*.safetensors"))


# Using them.


def test_other_classes_are_said_once(cache: WeightsCache, caplog: pytest.LogCaptureFixture) -> None:
    def make(seed: int = 5) -> FBNet:
        generator = torch.Generator().manual_seed(seed)
        return create(NETWORK, pretrained=True, num_classes=7, generator=generator, cache=cache)

    model, whole = make(), create(NETWORK, pretrained=True, cache=cache)
    path = cache.kept(f"{NETWORK}.fb_in1k")[0].path
    assert _said(caplog) == [f"{path}: new classifier for 7 classes, not 1000; all else is loaded"]
    assert (model.arch.num_classes, model.class_names) == (7, None)
    assert model.preprocess == whole.preprocess == RECORDS[f"{NETWORK}.fb_in1k"].preprocess
    state, old = model.state_dict(), whole.state_dict()
    assert state.keys() == old.keys()
    assert all(torch.equal(state[key], old[key]) for key in state if not key.startswith("classifier."))
    assert state["classifier.weight"].shape == (7, old["classifier.weight"].shape[1])
    assert torch.equal(make().classifier.weight, model.classifier.weight)
    assert not torch.equal(make(6).classifier.weight, model.classifier.weight)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("channels", [1, 4])
@torch.inference_mode()
def test_other_channels(cache: WeightsCache, channels: int, caplog: pytest.LogCaptureFixture) -> None:
    model = create(NETWORK, pretrained=True, in_chans=channels, cache=cache).eval()
    whole = create(NETWORK, pretrained=True, cache=cache).eval()
    assert _said(caplog) == [f"{cache.kept(f'{NETWORK}.fb_in1k')[0].path}: stem adapted from 3 to {channels} channels"]
    assert model.preprocess == whole.preprocess.for_channels(channels)
    assert (model.arch, model.class_names) == (replace(whole.arch, in_channels=channels), whole.class_names)
    state, old = model.state_dict(), whole.state_dict()
    stem = "stages.0.0.conv.weight"
    assert {key for key in state if not torch.equal(state[key], old[key])} == {stem}
    adapted = old[stem].sum(1, keepdim=True) if channels == 1 else old[stem][:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(state[stem], adapted)
    assert model(torch.randn(2, channels, 96, 96)).shape == (2, 1000)


def test_a_value_keeps_its_form_and_a_name_takes_the_records(
    cache: WeightsCache, caplog: pytest.LogCaptureFixture
) -> None:
    record = RECORDS[f"{NETWORK}.fb_in1k"]
    value = replace(ARCHS[NETWORK].with_symmetric_padding(), name=NETWORK, resolution=96, num_classes=5, in_channels=1)
    model = create(value, pretrained=True, cache=cache)
    assert (model.arch, model.class_names) == (value, None)
    assert model.preprocess == record.preprocess.for_channels(1)
    assert len(_said(caplog)) == 2
    overridden = create(value, pretrained=True, num_classes=6, in_chans=3, cache=cache)
    assert overridden.arch == replace(value, num_classes=6, in_channels=3)
    named = create(NETWORK, pretrained=True, cache=cache)
    assert (named.arch, named.class_names) == (record.arch, record.class_names)


def test_training_options_are_taken(cache: WeightsCache) -> None:
    model = create(NETWORK, pretrained=True, drop_rate=0.3, drop_path_rate=0.2, cache=cache)
    assert model.training
    assert model.dropout.p == 0.3
    rates = [module.rate for module in model.modules() if hasattr(module, "rate")]
    assert not rates or max(rates) == pytest.approx(0.2)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.inference_mode()
def test_features_without_the_head(cache: WeightsCache) -> None:
    model = create(NETWORK, pretrained=True, cache=cache).eval()
    images = golden_input(NETWORK)
    features, maps = model.forward_features(images), model.feature_maps(images)
    assert {info.name: info.channels for info in model.feature_info} == {name: m.shape[1] for name, m in maps.items()}
    assert torch.equal(list(maps.values())[-1], features)
    torch.testing.assert_close(model.forward_head(features), expected_logits(NETWORK), atol=1e-5, rtol=0)


def test_pretrained_weights_can_be_saved_and_loaded(cache: WeightsCache, tmp_path: Path) -> None:
    model = create(NETWORK, pretrained=True, cache=cache)
    save(model, tmp_path / "a.safetensors")
    back = load(tmp_path / "a.safetensors")
    assert back.description == model.description
    for place in (
        tmp_path / "a.safetensors",
        str(tmp_path / "a.safetensors"),
        cache.kept(f"{NETWORK}.fb_in1k")[0].path,
    ):
        again = create(NETWORK, pretrained=place)
        assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
        assert again.class_names == model.class_names


def test_another_networks_weights_are_refused(cache: WeightsCache, tmp_path: Path) -> None:
    kept = cache.kept(f"{NETWORK}.fb_in1k")[0].path
    text = f"{kept}: holds {NETWORK}, not fbnet_a; name {NETWORK} instead, or load() the file alone (--model FILE)"
    assert refusal(lambda: create("fbnet_a", pretrained=kept)) == text
    assert refusal(lambda: create(ARCHS["fbnet_a"], pretrained=str(kept))) == text
    save_file(official_state_dict(NETWORK), tmp_path / "a.safetensors")
    start = f"{tmp_path}/a.safetensors: state dict does not fit fbnet_a in official layout: "
    assert refusal(lambda: create("fbnet_a", pretrained=tmp_path / "a.safetensors")).startswith(start)


def test_a_published_name_for_another_network_is_refused(cache: WeightsCache) -> None:
    value = replace(ARCHS["fbnet_a"], name=NETWORK)
    text = f"holds another form of {NETWORK}; create({NETWORK!r}, ...) takes the file's own, or load() the file alone"
    assert (
        refusal(lambda: create(value, pretrained=True, cache=cache))
        == f"{cache.kept(f'{NETWORK}.fb_in1k')[0].path}: {text}"
    )


# Addresses.


@pytest.fixture
def tiny(site: Site, tiny_arch: Arch) -> tuple[str, Path, FBNet]:
    """A plain state dict of the tiny network: its address, its path, the network."""
    model = FBNet(tiny_arch, generator=torch.Generator().manual_seed(9))
    save_file(model.state_dict(), site.folder / "tiny.safetensors")
    return f"{site.address}/tiny.safetensors", site.folder / "tiny.safetensors", model


@pytest.mark.parametrize("digits", [8, 20, 64])
def test_an_address_may_be_pinned(
    site: Site, tiny: tuple[str, Path, FBNet], tiny_arch: Arch, digits: int, tmp_path: Path
) -> None:
    address, path, model = tiny
    digest = sha256_of(path.read_bytes())
    cache = replace(site.cache, folder=tmp_path, lock=None, mirror=None)
    for text in (digest, digest.upper()):
        got = create(tiny_arch, pretrained=f"{address}#sha256={text[:digits]}", cache=cache)
        assert torch.equal(got.classifier.weight, model.classifier.weight)
    assert (got.preprocess, got.class_names) == (Preprocess.for_arch(tiny_arch), None)
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:digits]
    refused = refusal(lambda: create(tiny_arch, pretrained=f"{address}#sha256={wrong}", cache=cache))
    assert f"{address}: has SHA-256 {digest}, not {wrong}" in refused


@pytest.mark.parametrize("place", ["address", "checkpoint"])
def test_what_was_loaded_before_makes_no_difference(
    place: str, site: Site, tiny: tuple[str, Path, FBNet], tiny_arch: Arch, tmp_path: Path
) -> None:
    """The cache keeps what the file says, not what it was loaded for."""
    address, _, model = tiny
    cache = replace(site.cache, folder=tmp_path / "cache", lock=None, mirror=None)
    if place == "checkpoint":
        torch.save(model.state_dict(), tmp_path / "tiny.pth")
        address = str(tmp_path / "tiny.pth")
    rows = tiny_arch.stages
    other = replace(tiny_arch, stages=(*rows[:-1], tuple(replace(row, activation=Activation.RELU) for row in rows[-1])))
    for arch in (replace(tiny_arch, resolution=64), other, tiny_arch, replace(tiny_arch, resolution=48)):
        found = create(arch, pretrained=address, cache=cache)
        assert (found.arch, found.preprocess) == (arch, Preprocess.for_arch(arch))
        assert torch.equal(found.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("pin", ["", "1234567", "g" * 8, "0" * 65, "12345678 "])
def test_a_pin_that_is_none_is_refused(tiny_arch: Arch, tmp_path: Path, pin: str) -> None:
    address = f"http://127.0.0.1:9/a.safetensors#sha256={pin}"
    text = "http://127.0.0.1:9/a.safetensors: no digest follows #sha256=; give 8 to 64 hexadecimal digits"
    assert refusal(lambda: create(tiny_arch, pretrained=address, cache=WeightsCache(tmp_path))) == text


def test_a_pin_after_a_path_is_part_of_it(tiny_arch: Arch, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "a.pth")
    for ending in ("pth", "safetensors"):
        place = f"{tmp_path}/a.{ending}#sha256=12345678"
        text = f"{place}: weights are read from .safetensors, .pth, .pt, .bin and .ckpt files only"
        assert refusal(lambda place=place: create(tiny_arch, pretrained=place, cache=WeightsCache(tmp_path))) == text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("gone.safetensors", "no such file"),
        ("gone.pth", "no such file"),
        ("a.pkl", "weights are read from .safetensors, .pth, .pt, .bin and .ckpt files only"),
        ("folder.safetensors", "is a folder, not a weight file"),
        ("folder.pth", "is a folder, not a weight file"),
    ],
)
def test_files_that_are_none_are_refused(tiny_arch: Arch, tmp_path: Path, file: str, text: str) -> None:
    for folder in ("folder.safetensors", "folder.pth"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a.pkl").touch()
    for place in (tmp_path / file, str(tmp_path / file)):
        refused = refusal(
            lambda place=place: create(tiny_arch, pretrained=place, cache=WeightsCache(tmp_path / "kept"))
        )
        assert refused == f"{tmp_path / file}: {text}"


# What ``pretrained`` stands for.


def test_places_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official, retrained = RECORDS["fbnetv3_b.fb_in1k"], RECORDS["fbnetv3_b.ra2_in1k"]
    assert find_weights("fbnetv3_b", True) is official
    assert find_weights("fbnetv3_b.ra2_in1k", True) is retrained
    assert find_weights("fbnetv3_b", "ra2_in1k") is retrained
    assert find_weights("fbnetv3_b", "fbnetv3_b.ra2_in1k") is retrained
    assert find_weights("fbnetv3_b.ra2_in1k", "ra2_in1k") is retrained
    assert find_weights("fbnetv3_b.ra2_in1k", "fbnetv3_b.ra2_in1k") is retrained
    for place in ("hf-hub:a/b", "http://a/b", "https://a/b#sha256=0", "gone.pth", Path("gone.safetensors")):
        assert find_weights("fbnetv3_b", place) is place
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").touch()
    assert find_weights("anything", "weights") == "weights"


OFFICIAL, RETRAINED = "fbnetv3_b.fb_in1k", "fbnetv3_b.ra2_in1k"
GIVE = "an address or hf-hub:owner/name"


@pytest.mark.parametrize(
    ("network", "place", "text"),
    [
        ("fbnetv3_a", "ra2_in1k", f"fbnetv3_a: unknown weights 'ra2_in1k'; give a tag (fb_in1k), a path, {GIVE}"),
        ("fbnetv3_b", "x", f"fbnetv3_b: unknown weights 'x'; give a tag (fb_in1k, ra2_in1k), a path, {GIVE}"),
        ("fbnetv3_a", Path("fb_in1k"), f"fbnetv3_a: unknown weights 'fb_in1k'; give a tag (fb_in1k), a path, {GIVE}"),
        ("mine", "x", f"mine: unknown weights 'x'; give a path, {GIVE}"),
        ("fbnetv3_b", "", f"pretrained is ''; give True, a tag, a path, {GIVE}"),
        ("fbnetv3_b", None, f"pretrained is None; give True, a tag, a path, {GIVE}"),
        ("fbnetv3_b", 1, f"pretrained is 1; give True, a tag, a path, {GIVE}"),
        ("fbnetv3_a", RETRAINED, f"{RETRAINED} are not weights of fbnetv3_a; name {RETRAINED} as the model"),
        (OFFICIAL, "ra2_in1k", f"{RETRAINED} are not weights of {OFFICIAL}; name {RETRAINED} as the model"),
        ("fbnetv3_a0", True, "fbnetv3_a0: no weights are published for this network; `fbnetv3 weights list` shows all"),
        ("mine", True, "unknown weights 'mine'; `fbnetv3 weights list` shows all"),
    ],
)  # fmt: skip
def test_places_that_are_none_are_refused(network: str, place: object, text: str) -> None:
    assert refusal(lambda: find_weights(network, place)) == text  # type: ignore[arg-type]


def test_create_asks_by_the_name_it_was_given() -> None:
    text = "fbnetv3_b.ra2_in1k are not weights of fbnetv3_b.fb_in1k; name fbnetv3_b.ra2_in1k as the model"
    assert refusal(lambda: create("fbnetv3_b.fb_in1k", pretrained="ra2_in1k")) == text
    assert re.match("fbnetv3_a0: no weights", refusal(lambda: create(ARCHS["fbnetv3_a0"], pretrained=True)))


def test_the_name_of_weights_gives_the_network_in_their_form() -> None:
    for name, record in (
        ("fbnetv3_b.ra2_in1k", RECORDS["fbnetv3_b.ra2_in1k"]),
        ("fbnetv3_b", RECORDS["fbnetv3_b.fb_in1k"]),
    ):
        with torch.device("meta"):
            assert create(name).arch == record.arch
