"""Files of other programs: what is taken from them, what is refused, and what a hostile one can do (nothing)."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import types
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from folders import HELPERS
from refusals import refusal
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor
from waiting import PATIENCE, gone, until

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights import torch_checkpoint as foreign
from fbnetv3_zoo.weights import unpickle
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.convert import _AVERAGED, _PLAIN, convert, find_layout, find_state_dict, from_own
from fbnetv3_zoo.weights.torch_checkpoint import parse_any, read_any

DENSE = "convert it with dense floating-point tensors"
WHERE = {"import", "importlib", "runpy", "torch_hub"}
LIVE, BOMBS = sorted(hostile.live("")), sorted(hostile.bombs())
RUN_ON = {"laughs_key", "colliding_keys"}  # ended by the limit of processor time
ONE_LINE = re.compile(
    r"(holds more than tensors \([\x1b\x07\w.\];]+\); save model\.state_dict\(\) alone"
    r"|needs more memory than a checkpoint of its size should"
    r"|holds (a \w+, not a state dict|no state dict: [ -~]+); save model\.state_dict\(\)"
    rf"|weight is not a dense tensor; {DENSE}"
    r"|weight is torch\.\w+; weights are floating point"
    r"|is no checkpoint; give a file that torch\.save wrote, or a \.safetensors file"
    r"|its tensors are larger than the file"
    r"|is not written by torch\.save: entries are compressed, of one name, or too many"
    r"|cannot be read as a checkpoint \(\w+: [ -~]{0,120}\))\n"
)


def _state(model: FBNet) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture
def state(tiny_arch: Arch) -> dict[str, Tensor]:
    """A state dict of the tiny network."""
    return _state(FBNet(tiny_arch, generator=torch.Generator().manual_seed(3)))


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# Containers.

PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.module.",
    "model.model.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("place", [None, *_AVERAGED, *_PLAIN])
def test_state_dicts_are_found(state: dict[str, Tensor], prefix: str, place: str | None) -> None:
    prefixed: dict[str, Any] = {prefix + key: value for key, value in state.items()}
    checkpoint = prefixed if place is None else {"epoch": 3, place: prefixed, "args": None}
    assert _same(find_state_dict(checkpoint), state)


@pytest.mark.parametrize("average", ["model_ema", "state_dict_ema"])
@pytest.mark.parametrize("raw", ["state_dict", "model"])
def test_averaged_weights_go_before_raw_ones(state: dict[str, Tensor], average: str, raw: str) -> None:
    other = {key: value + 1 for key, value in state.items()}
    assert _same(find_state_dict({raw: other, average: state}), state)
    for absent in (None, {}, "none"):
        assert _same(find_state_dict({raw: other, average: absent}), other)


def test_the_counter_of_an_averaged_model_is_left_out(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch)
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    assert "n_averaged" in averaged.state_dict()
    assert _same(find_state_dict({"model_ema": averaged.state_dict(), "model": {}}), _state(model))


def test_a_prefix_of_a_few_names_alone_stays() -> None:
    names = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert find_state_dict(names).keys() == names.keys()


def test_a_training_checkpoint_like_torchvisions(tiny_arch: Arch, tmp_path: Path) -> None:
    model = FBNet(tiny_arch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    whole = {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(), "epoch": 4}
    torch.save({"model": model.state_dict(), **whole}, tmp_path / "model_4.pth")
    file = read_any(tmp_path / "model_4.pth")
    assert _same(file.tensors, _state(model))
    assert file.metadata == {}


BESIDE: dict[str, Callable[[], object]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1, output=Path("runs"), betas=(0.9, np.float32(0.99)), inner={"a": 1}),
    "numpy": lambda: [np.float64(71.2), np.int64(3), np.bool_(True), np.arange(5.0), np.dtype("f4"), np.str_("a")],
    "paths": lambda: {"a": Path("runs/7"), "b": PurePosixPath("c"), "d": PureWindowsPath("e")},
    "dates": lambda: [datetime.datetime.now(datetime.UTC), datetime.timedelta(1), datetime.date(2020, 1, 2)],
    "containers": lambda: [defaultdict(list, a=[1]), Counter("abc"), {1, 2}, frozenset("ab"), range(3), slice(2)],
    "numbers": lambda: [1j, 1 << 90, Decimal("1.5"), b"bytes", bytearray(b"more"), torch.float16, torch.Size((1, 2))],
    "namespaces": lambda: types.SimpleNamespace(cfg=argparse.Namespace(device=torch.device("cpu"), none=None)),
}


@pytest.mark.long
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", BESIDE)
def test_what_training_scripts_keep_beside_the_weights(
    state: dict[str, Tensor], tmp_path: Path, kind: str, old: bool
) -> None:
    checkpoint = {"epoch": 1, "args": BESIDE[kind](), "state_dict": state, "metric": 71.2}
    torch.save(checkpoint, tmp_path / "a.pth.tar", _use_new_zipfile_serialization=not old)
    assert _same(read_any(tmp_path / "a.pth.tar").tensors, state)


def test_a_checkpoint_that_timms_saver_wrote(tiny_arch: Arch, tmp_path: Path) -> None:
    model = FBNet(tiny_arch)
    average = ModelEmaV3(model)
    with torch.no_grad():
        average.module.classifier.bias.add_(1)
    args = argparse.Namespace(model="tiny", lr=0.1, output=tmp_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saver = CheckpointSaver(
        model, optimizer, args=args, model_ema=average, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    saver.save_checkpoint(0, metric=np.float64(71.2))
    assert _same(read_any(tmp_path / "model_best.pth.tar").tensors, _state(average.module))


@pytest.mark.long
@pytest.mark.parametrize("file", ["a.pt", "a.bin", "a.CKPT"])
def test_endings_do_not_matter(tiny_arch: Arch, state: dict[str, Tensor], tmp_path: Path, file: str) -> None:
    torch.save(state, tmp_path / file, _use_new_zipfile_serialization=file != "a.bin")
    model = create(tiny_arch, pretrained=tmp_path / file, cache=WeightsCache(tmp_path / "cache"))
    assert _same(_state(model), state)


def test_safetensors_are_unwrapped_too(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "a.safetensors", {"a": "b"})
    file = read_any(tmp_path / "a.safetensors")
    assert _same(file.tensors, state)
    assert file.metadata == {"a": "b"}


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [
        ({}, "holds no state dict: it is empty; save model.state_dict()"),
        ({"model": 3}, "holds no state dict: 'model' is a int, not a tensor; save model.state_dict()"),
        ({"model": {"a": {}}}, "holds no state dict: 'a' is a dict, not a tensor; save model.state_dict()"),
        ({3: torch.zeros(1)}, "holds no state dict: '3' is no tensor's name; save model.state_dict()"),
        ({"a\x1b": torch.zeros(1)}, "holds no state dict: 'a\\x1b' is no tensor's name; save model.state_dict()"),
        ({"b" * 201: torch.ones(1)}, f"holds no state dict: {'b' * 80!r} is no tensor's name; save model.state_dict()"),
        ({"n_averaged": torch.zeros(1)}, "holds no state dict: it is empty; save model.state_dict()"),
    ],
)  # fmt: skip
def test_what_holds_no_state_dict_is_refused(checkpoint: dict[Any, Any], text: str) -> None:
    assert refusal(lambda: find_state_dict(checkpoint)) == text


def test_unknown_layouts_show_some_keys() -> None:
    given = {name: torch.zeros(1) for name in ("d", "c", "b", "a")}
    text = "no known layout: keys such as 'a', 'b', 'c' are neither of FBNet's releases, nor timm's, nor ours"
    assert refusal(lambda: find_layout(given)) == text


def test_all_errors_are_in_one_message(tiny_arch: Arch, state: dict[str, Tensor]) -> None:
    del state["classifier.bias"]
    state |= {f"stages.7.{n}": torch.zeros(1) for n in range(5)}
    state["stages.0.0.conv.weight"] = torch.zeros(8, 3, 5, 5)
    state["stages.0.0.norm.weight"] = torch.zeros(8, dtype=torch.int64)
    text = (
        "state dict does not fit tiny in fbnetv3_zoo layout: 1 missing (classifier.bias); "
        "5 left over (stages.7.0, stages.7.1, stages.7.2 and 2 more); 2 of the wrong kind ("
        "stages.0.0.conv.weight has shape (8, 3, 5, 5), not (8, 3, 3, 3), "
        "stages.0.0.norm.weight is torch.int64, not torch.float32)"
    )
    assert refusal(lambda: from_own(tiny_arch, state)) == text
    assert refusal(lambda: convert(tiny_arch, {"state_dict": state})) == text


def _nested() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are called a prototype
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


def _quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are on their way out
        return torch.quantize_per_tensor(torch.zeros(8, 3, 3, 3), 1.0, 0, torch.qint8)


WRONG: dict[str, tuple[Callable[[], Tensor], str]] = {
    "sparse": (lambda: torch.zeros(8, 3, 3, 3).to_sparse(), "is not a dense tensor"),
    "quantized": (_quantized, "is not a dense tensor"),
    "meta": (lambda: torch.zeros(8, 3, 3, 3, device="meta"), "is not a dense tensor"),
    "nested": (_nested, "is not a dense tensor"),
    "complex": (lambda: torch.zeros(8, 3, 3, 3, dtype=torch.complex64), "is torch.complex64, not torch.float32"),
    "int64": (lambda: torch.zeros(8, 3, 3, 3, dtype=torch.int64), "is torch.int64, not torch.float32"),
    "dimensions": (lambda: torch.zeros((1,) * 1000), f"has shape ({'1, ' * 26}1, not (8, 3, 3, 3)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_tensors_of_other_kinds_do_not_convert(tiny_arch: Arch, state: dict[str, Tensor], kind: str) -> None:
    make, fault = WRONG[kind]
    state["stages.0.0.conv.weight"] = make()
    start = "state dict does not fit tiny in fbnetv3_zoo layout: 1 of the wrong kind (stages.0.0.conv.weight "
    assert refusal(lambda: from_own(tiny_arch, state)).startswith(f"{start}{fault}")


def test_a_complex_counter_does_not_convert(tiny_arch: Arch, state: dict[str, Tensor]) -> None:
    state["stages.0.0.norm.num_batches_tracked"] = torch.tensor(1j)
    fault = "(stages.0.0.norm.num_batches_tracked is torch.complex64, not torch.int64)"
    assert refusal(lambda: from_own(tiny_arch, state)).endswith(fault)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(
    tiny_arch: Arch, state: dict[str, Tensor], dtype: torch.dtype, tmp_path: Path
) -> None:
    cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save_file(cast, tmp_path / "a.safetensors")
    model = create(tiny_arch, pretrained=tmp_path / "a.safetensors")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert _same(_state(model), {key: value.to(state[key].dtype) for key, value in cast.items()})


def test_half_precision_in_a_checkpoint_and_tensors_of_any_memory(
    tiny_arch: Arch, state: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    conv, linear = "stages.0.0.conv.weight", "classifier.weight"
    given = dict(state)
    given[conv] = state[conv].transpose(0, 1).contiguous().transpose(0, 1)
    flat = torch.cat([state[linear].flatten(), state["classifier.bias"]])  # two tensors over one storage
    given[linear], given["classifier.bias"] = flat[:-10].view(state[linear].shape), flat[-10:]
    assert not given[conv].is_contiguous()
    torch.save(OrderedDict(given), tmp_path / "a.pth")
    tensors = read_any(tmp_path / "a.pth").tensors
    assert _same(tensors, state)
    model = create(tiny_arch, pretrained=tmp_path / "a.pth", cache=WeightsCache(tmp_path / "cache"))
    assert _same(
        _state(model), {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checkpoint_cast_as_a_whole(
    tiny_arch: Arch, state: dict[str, Tensor], dtype: torch.dtype, tmp_path: Path
) -> None:
    counter = "stages.0.0.norm.num_batches_tracked"
    long = next(key for key in state if key.endswith("num_batches_tracked") and key != counter)
    cast = {key: value.to(dtype) for key, value in {**state, counter: torch.tensor(96)}.items()}
    cast[long] = torch.tensor(100_000).to(dtype)  # infinite as a half
    torch.save(cast, tmp_path / "a.pth")
    found = _state(create(tiny_arch, pretrained=tmp_path / "a.pth", cache=WeightsCache(tmp_path / "cache")))
    assert (found[counter].dtype, int(found[counter])) == (torch.int64, 96)
    assert 65_000 <= int(found[long]) <= 100_352
    del cast[long]
    assert all(torch.equal(found[key], value.to(found[key].dtype)) for key, value in cast.items())


@pytest.mark.parametrize("value", [0.5, -1.0, float("nan")])
def test_a_counter_that_is_no_count(tiny_arch: Arch, state: dict[str, Tensor], value: float) -> None:
    state["stages.0.0.norm.num_batches_tracked"] = torch.tensor(value)
    fault = "(stages.0.0.norm.num_batches_tracked is torch.float32, not torch.int64)"
    assert refusal(lambda: from_own(tiny_arch, state)).endswith(fault)


# Files that are no checkpoints, given to the real program.


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            (path.parent / name).write_bytes(pickle.dumps(name))
            archive.add(path.parent / name, name)


def _script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit calls itself deprecated
        torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), path)


def _deflated(path: Path) -> None:
    path.write_bytes(hostile.archive(hostile.entries_of(hostile.stop({})), zipfile.ZIP_DEFLATED))


def _truncated(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def _truncated_legacy(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:2000])


def _saved(make: Callable[[], object]) -> Callable[[Path], object]:
    return lambda path: torch.save(make(), path)


TAR = "is a tar file, the format of the first PyTorch releases; save it again with torch.save"
NONE = "is no checkpoint; give a file that torch.save wrote, or a .safetensors file"
NOT_TORCH = "is not written by torch.save: entries are compressed, of one name, or too many"
FLOATING, LARGER = "weights are floating point", "its tensors are larger than the file"
MEMORY = "needs more memory than a checkpoint of its size should"
MODULE = "holds more than tensors (torch.nn.modules.linear.Linear); save model.state_dict() alone"
NOT_READ = r"cannot be read as a checkpoint \(\w+: .+\)"
OTHER_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "pickle": (
        "a.pth",
        lambda path: path.write_bytes(pickle.dumps({"a": 1}, 2)),
        "is a plain pickle; give a file that torch.save wrote, or a .safetensors file",
    ),
    "old_pickle": ("a.pth", lambda path: path.write_bytes(pickle.dumps({"a": 1}, 0)), NONE),
    "tar": ("a.tar", _tar, TAR),
    "tar_as_pth": ("a.pth", _tar, TAR),
    "script": ("a.pt", _script, "is a TorchScript program; save model.state_dict() instead"),
    "deflated": ("a.pth", _deflated, NOT_TORCH),
    "empty": ("a.pth", lambda path: path.touch(), NONE),
    "text": ("a.bin", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), NONE),
    "safetensors_as_pth": ("a.pth", lambda path: save_file({"a": torch.zeros(1)}, path), NONE),
    "truncated": ("a.pth", _truncated, NOT_READ),
    "truncated_legacy": ("a.pth", _truncated_legacy, NOT_READ),
    "network": ("a.pth", _saved(lambda: torch.nn.Linear(1, 1)), MODULE),
    "tensor": ("a.pth", _saved(lambda: torch.zeros(1)), "holds a Tensor, not a state dict; save model.state_dict()"),
    "list": ("a.pth", _saved(lambda: [1]), "holds a list, not a state dict; save model.state_dict()"),
    "sparse": ("a.pth", _saved(lambda: {"a": torch.eye(2).to_sparse()}), f"a is not a dense tensor; {DENSE}"),
    "meta": ("a.pth", _saved(lambda: {"a": torch.zeros(2, device="meta")}), f"a is not a dense tensor; {DENSE}"),
    "quantized": ("a.pth", _saved(lambda: {"a": _quantized()}), f"a is not a dense tensor; {DENSE}"),
    "integers": ("a.pth", _saved(lambda: {"a": torch.zeros(2).int()}), f"a is torch.int32; {FLOATING}"),
    "complex": ("a.pth", _saved(lambda: {"a": torch.zeros(2) * 1j}), f"a is torch.complex64; {FLOATING}"),
    "expanded": ("a.pth", _saved(lambda: {"a": torch.zeros(1).expand(10**12)}), LARGER),
}  # fmt: skip


def _outcomes(folder: Path) -> dict[str, Any]:
    """How the program read each ``.pth`` of ``folder``, see ``hostile.py``."""
    command = [sys.executable, str(HELPERS / "hostile.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, Any] = json.loads(done.stdout)
    return outcomes


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the reading of OTHER_FILES ended."""
    folder = tmp_path_factory.mktemp("others")
    for name, (file, make, _) in OTHER_FILES.items():
        (folder / "one").mkdir()
        make(folder / "one" / file)
        (folder / "one" / file).rename(folder / f"{name}.pth")
        for rest in (folder / "one").iterdir():
            rest.unlink()
        (folder / "one").rmdir()
    return _outcomes(folder)


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_refused(others: dict[str, Any], name: str) -> None:
    outcome, text = others[f"{name}.pth"], OTHER_FILES[name][2]
    said = outcome["said"].splitlines()[-1]
    assert outcome["code"] == unpickle.REFUSED
    assert said == text or re.fullmatch(text, said)
    assert not outcome["wrote"]


@pytest.mark.unforked
def test_a_sound_file_is_read_by_the_same_process(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert [(o["code"], o["said"], o["wrote"]) for o in _outcomes(tmp_path).values()] == [(0, "", True)] * 2


def test_refusals_name_the_file(tmp_path: Path) -> None:
    _tar(tmp_path / "old.tar")
    assert refusal(lambda: read_any(tmp_path / "old.tar")) == f"{tmp_path}/old.tar: {TAR}"
    data = (tmp_path / "old.tar").read_bytes()
    assert refusal(lambda: parse_any(data, "https://a/b.pth")) == f"https://a/b.pth: {TAR}"
    _script(tmp_path / "program.pt")
    text = "is a TorchScript program; save model.state_dict() instead"
    assert refusal(lambda: read_any(tmp_path / "program.pt")) == f"{tmp_path}/program.pt: {text}"


@pytest.mark.parametrize("file", ["a.pkl", "a.pickle", "a.h5", "a.zip", "a"])
def test_other_endings_are_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(pickle.dumps({}))
    text = f"{tmp_path / file}: weights are read from .safetensors, .pth, .pt, .bin and .ckpt files only"
    assert refusal(lambda: read_any(tmp_path / file)) == text


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    folder, gone = tmp_path / "folder.pth", tmp_path / "gone.pth"
    assert refusal(lambda: read_any(folder)) == f"{folder}: is a folder, not a weight file"
    assert refusal(lambda: read_any(gone)) == f"{gone}: no such file"
    folder = tmp_path / "folder.safetensors"
    assert refusal(lambda: read_any(folder)) == f"{folder}: is a folder, not a weight file"


# Hostile files.


@pytest.fixture(scope="module")
def harm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the reading of every hostile file ended; under "marks" what they have made."""
    folder = tmp_path_factory.mktemp("harm")
    marks = folder / "marks"
    marks.mkdir()
    for name in WHERE:
        (folder / f"{hostile.MODULE}_{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()")
    for name, data in {**hostile.live(str(marks)), **hostile.bombs()}.items():
        (folder / f"{name}.zip.pth").write_bytes(hostile.zipped(data))
        (folder / f"{name}.old.pth").write_bytes(hostile.legacy(data))
    for name, data in _archives(hostile.live(str(marks))["system"]).items():
        (folder / f"{name}.archive.pth").write_bytes(data)
    return _outcomes(folder) | {"marks": sorted(path.name for path in marks.iterdir())}


def _archives(evil: bytes = b"") -> dict[str, bytes]:
    """Archives that are harmful as such."""
    good = hostile.stop({})
    parts = hostile.entries_of(hostile.stop(hostile.in_dict(hostile.tensor((4,), (1,)))))
    bomb = hostile.Ops(b"}" + b"".join(
        hostile.push(str(n)) + hostile.tensor((1 << 18,), (1,), held=hostile.storage(1 << 18, key=str(n))) + b"s"
        for n in range(1000)
    ))  # fmt: skip
    return {
        "pickle_twice": hostile.archive([("archive/data.pkl", good), ("archive/data.pkl", evil), *parts[1:]]),
        "storage_twice": hostile.archive([*parts, ("archive/data/0", bytes(1 << 20))]),
        "deflated_bomb": hostile.archive([*parts, ("archive/data/1", bytes(1 << 26))], zipfile.ZIP_DEFLATED),
        "deflated_pickle": hostile.archive([("archive/data.pkl", b"N0" * 10_000_000)], zipfile.ZIP_DEFLATED),
        "bzip2": hostile.archive(parts, zipfile.ZIP_BZIP2),
        "lzma": hostile.archive(parts, zipfile.ZIP_LZMA),
        "many_entries": hostile.archive([*parts, *((f"archive/{n}", b"") for n in range(20_000))]),
        "path": hostile.archive([("../../x/data.pkl", evil), ("../../x/version", b"3\n")]),
        "absolute_path": hostile.archive([("/tmp/x/data.pkl", evil), ("/tmp/x/version", b"3\n")]),
        "no_pickle": hostile.archive(parts[1:]),
        "no_entries": hostile.archive([]),
        "evil_program": hostile.archive([("archive/code/__torch__.py", b"x"), ("archive/data.pkl", evil)]),
        "one_storage": hostile.of_one_storage(hostile.stop(bomb), 1000),
    }  # fmt: skip


def test_payloads_are_live(tmp_path: Path) -> None:
    """Without care, each of them does what it is made to do: that they do nothing below says something."""
    marks = tmp_path / "marks"
    marks.mkdir()
    for name in WHERE:
        (tmp_path / f"{hostile.MODULE}_{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()")
    for name, data in hostile.live(str(marks)).items():
        (tmp_path / f"{name}.pkl").write_bytes(data)
    _outcomes(tmp_path)
    until(lambda: set(LIVE) <= set(os.listdir(marks)))  # a few of them leave a process behind that does it
    assert len(LIVE) > 30


@pytest.mark.long
def test_no_hostile_file_has_any_effect(harm: dict[str, Any]) -> None:
    assert harm["marks"] == []
    assert sum(outcome["wrote"] for name, outcome in harm.items() if name != "marks") == 0
    assert len(harm) > 200


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("name", LIVE + BOMBS)
def test_hostile_pickles_are_refused(harm: dict[str, Any], name: str, form: str) -> None:
    outcome = harm[f"{name}.{form}.pth"]
    if name == "laughs_key" and sys.version_info >= (3, 14):  # tuples remember their hash, so it may be over at once
        assert outcome["code"] in (-signal.SIGKILL, unpickle.REFUSED)
    elif name in RUN_ON:
        assert outcome["code"] == -signal.SIGKILL  # by the limit of processor time
    else:
        assert outcome["code"] == unpickle.REFUSED
        assert ONE_LINE.fullmatch(outcome["said"].splitlines(keepends=True)[-1])
        assert outcome["seconds"] < 20
    if name in LIVE:
        assert re.search(r"holds more than tensors|Unsupported operand", outcome["said"])


@pytest.mark.parametrize("name", _archives())
def test_hostile_archives_are_refused(harm: dict[str, Any], name: str) -> None:
    outcome = harm[f"{name}.archive.pth"]
    assert outcome["code"] == unpickle.REFUSED
    assert ONE_LINE.fullmatch(outcome["said"])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("getattr.zip", "holds more than tensors (getattr); save model.state_dict() alone"),
        ("posix.old", "holds more than tensors (posix.system); save model.state_dict() alone"),
        ("inst.zip", "cannot be read as a checkpoint (UnpicklingError: Unsupported operand 105)"),
        ("unknown_memo.zip", "cannot be read as a checkpoint (KeyError: 7)"),
        ("bytearray.zip", MEMORY),
        ("codec.old", MEMORY),
        ("size_of_storage.old", MEMORY),
        ("one_storage.archive", MEMORY),
        ("expanded.zip", LARGER),
        ("set_state.old", LARGER),
        ("sparse.zip", f"weight is not a dense tensor; {DENSE}"),
        ("meta.zip", f"weight is not a dense tensor; {DENSE}"),
        ("quantized.zip", f"weight is not a dense tensor; {DENSE}"),
        ("integers.zip", "weight is torch.int32; weights are floating point"),
        ("shadowed_items.zip", "holds no state dict: it is empty; save model.state_dict()"),
        ("pickle_twice.archive", NOT_TORCH),
        ("storage_twice.archive", NOT_TORCH),
        ("deflated_bomb.archive", NOT_TORCH),
        ("lzma.archive", NOT_TORCH),
        ("many_entries.archive", NOT_TORCH),
    ],
)
def test_reasons_are_told(harm: dict[str, Any], file: str, text: str) -> None:
    assert harm[f"{file}.pth"]["said"].splitlines()[-1] == text


def test_memory_stays_within_the_limit(harm: dict[str, Any]) -> None:
    kilobytes = {name: outcome["kilobytes"] for name, outcome in harm.items() if name != "marks"}
    least, most = min(kilobytes.values()), max(kilobytes.values())
    assert most - least < (unpickle._MEMORY >> 10) + 100_000, max(kilobytes, key=lambda name: kilobytes[name])
    assert most - least > 100_000  # the bombs do try


# The real path, whole.


def _child_of(parent: int) -> int | None:
    """The process of a reader that ``parent`` has started."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may have ended
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and unpickle.__name__.encode() in (process / "cmdline").read_bytes():
                return int(process.name)
    return None


def _hostile(tmp_path: Path, name: str, *, old: bool = False) -> Path:
    (tmp_path / "marks").mkdir(exist_ok=True)
    data = {**hostile.live(str(tmp_path / "marks")), **hostile.bombs()}[name]
    path = tmp_path / f"{name}.pth"
    path.write_bytes(hostile.legacy(data) if old else hostile.zipped(data))
    return path


@pytest.mark.unforked
def test_hostile_files_are_refused_for_real(tmp_path: Path) -> None:
    said = {
        ("system", True): "holds more than tensors (os.system); save model.state_dict() alone",
        ("escape_in_global", False): "holds more than tensors (]0;harm.system); save model.state_dict() alone",
        ("codec", True): "needs more memory than a checkpoint of its size should",
    }
    for (name, old), text in said.items():
        path = _hostile(tmp_path, name, old=old)
        assert refusal(lambda path=path: read_any(path)) == f"{path}: {text}"
    assert list((tmp_path / "marks").iterdir()) == []


@pytest.mark.unforked
def test_no_variable_of_the_environment_opens_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = _hostile(tmp_path, "open")
    assert refusal(lambda: read_any(path)) == f"{path}: holds more than tensors (open); save model.state_dict() alone"
    assert list((tmp_path / "marks").iterdir()) == []


@pytest.mark.unforked
def test_a_reader_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _hostile(tmp_path, "laughs_key")
    monkeypatch.setattr(foreign, "_SECONDS", 1)
    assert refusal(lambda: read_any(path)) == f"{path}: takes too long to read for a checkpoint; refused"
    assert _child_of(os.getpid()) is None


@pytest.mark.unforked
def test_a_reader_that_is_killed_is_told_of(tmp_path: Path) -> None:
    path = _hostile(tmp_path, "laughs_key")
    killer = threading.Thread(target=lambda: os.kill(until(lambda: _child_of(os.getpid())), signal.SIGKILL))
    killer.start()
    text = f"{path}: cannot be read; the process that tried ended with signal 9"
    assert refusal(lambda: read_any(path)) == text
    killer.join()


@pytest.mark.long
@pytest.mark.unforked
def test_memory_of_the_real_reader_is_bounded(tmp_path: Path) -> None:
    path = _hostile(tmp_path, "bytearrays")
    script = (
        "import resource, sys\nfrom fbnetv3_zoo.weights.torch_checkpoint import read_any\n"
        "try: read_any(sys.argv[1])\nexcept ValueError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    said, kilobytes = done.stdout.splitlines()
    assert said == f"{path}: needs more memory than a checkpoint of its size should"
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 300_000 < int(kilobytes) < own + (unpickle._MEMORY >> 10)


@pytest.mark.unforked
def test_a_reader_ends_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "slow.pth"
    path.write_bytes(hostile.legacy(b"\x80\x02}" + b"q\x00" * 30_000_000 + b"."))  # half a minute of opcodes
    script = f"from fbnetv3_zoo.weights.torch_checkpoint import read_any; read_any({str(path)!r})"
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        reader = until(lambda: _child_of(parent.pid))
    finally:
        parent.kill()
        parent.wait()
    until(lambda: gone(reader))


def test_damaged_safetensors_headers_are_refused_or_harmless() -> None:
    command = [sys.executable, "-W", "error", str(HELPERS / "fuzz_headers.py"), "20000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["read"] + counts["refused"] == 20_000
    assert min(counts["read"], counts["refused"]) > 1_000
    assert counts["kilobytes"] < 1_000_000
