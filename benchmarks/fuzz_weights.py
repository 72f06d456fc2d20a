"""Files of weights for :mod:`fuzz`: networks, detectors, checkpoints of a run, pickles of other programs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from fuzz_formats import Form, Kind, form


def _small() -> object:
    from fbnetv3_zoo.zoo import ARCHS

    return ARCHS["fbnetv3_a"].for_small_images().scaled(width=0.25, depth=0.25)


def _saved(folder: Path) -> bytes:
    from fbnetv3_zoo import create, save

    save(create(_small(), num_classes=4), folder / "sound.safetensors")
    return (folder / "sound.safetensors").read_bytes()


def _by_header(data: bytes, read: Callable[[bytes], object]) -> Form:
    """A format whose mutations are those of the header of ``data``, a safetensors file; JSON in it is unfolded."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    told = header["__metadata__"]
    header["__metadata__"] = {key: json.loads(text) if text[:1] in "{[" else text for key, text in told.items()}

    def put_together(path: Path) -> None:
        text = path.read_bytes()
        with contextlib.suppress(ValueError, RecursionError):  # what is no JSON stays as it is
            found = json.loads(text)
            if isinstance(found, dict) and isinstance(entries := found.get("__metadata__"), dict):
                found["__metadata__"] = {k: v if isinstance(v, str) else json.dumps(v) for k, v in entries.items()}
            text = json.dumps(found).encode()
        read(len(text).to_bytes(8, "little") + text + body)

    return Form(json.dumps(header).encode(), put_together)


def _read_weights(data: bytes) -> None:
    import torch

    from fbnetv3_zoo.weights.serialization import parse
    from fbnetv3_zoo.weights.state_dict import assemble, skeleton

    file = parse(data, "file")
    if (description := file.description) is not None:
        model = assemble(skeleton(description.arch), description, file.tensors, "file").eval()
        with torch.inference_mode():
            model(torch.zeros(1, description.arch.in_channels, 32, 32)) if description.arch.resolution <= 32 else None


@form("weights, header")
def weights_header(folder: Path) -> Form:
    return _by_header(_saved(folder), _read_weights)


@form("weights")
def weights(folder: Path) -> Form:
    return Form(_saved(folder), lambda path: _read_weights(path.read_bytes()), ".safetensors", Kind.BINARY)


def _checkpoint(folder: Path) -> tuple[bytes, Callable[[bytes], object]]:
    import torch

    from fbnetv3_zoo import create
    from fbnetv3_zoo.recipes import RECIPES
    from fbnetv3_zoo.training.callbacks import Epoch
    from fbnetv3_zoo.training.checkpoint import Checkpoints, Progress, restore
    from fbnetv3_zoo.training.learner import Learner

    learner = Learner(create(_small(), num_classes=4), RECIPES["digits"])
    for parameter in learner.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in learner.optimizers.values():
        optimizer.step()
    progress = Progress(epoch=1, step=2, loss=0.5, seconds=1.0, history=(Epoch(1, 0.1, 2.0, 1.0, 0.5, 0, 9.0, 1.0),))
    identity = {"network": "a"}
    data = Checkpoints(folder, keep=1).write(learner, progress, identity=identity).read_bytes()

    def read(content: bytes) -> None:
        restore(content, learner, identity=identity, place=Path("folder"))
        for optimizer in learner.optimizers.values():
            optimizer.step()

    return data, read


@form("checkpoint, header")
def checkpoint_header(folder: Path) -> Form:
    return _by_header(*_checkpoint(folder))


@form("checkpoint")
def checkpoint(folder: Path) -> Form:
    data, read = _checkpoint(folder)
    return Form(data, lambda path: read(path.read_bytes()), ".safetensors", Kind.BINARY)


def _detector(folder: Path) -> tuple[bytes, Callable[[bytes], object]]:
    from fbnetv3_zoo.detection.models.serialization import DetectorSpec, load_detector, save_detector
    from fbnetv3_zoo.zoo import ARCHS

    spec = DetectorSpec(("box",), ARCHS["fbnetv3_a"].scaled(width=0.25, depth=0.25))
    save_detector(spec.build(), spec, folder / "sound.safetensors")

    def read(content: bytes) -> None:
        (folder / "tried.safetensors").write_bytes(content)
        load_detector(folder / "tried.safetensors")

    return (folder / "sound.safetensors").read_bytes(), read


@form("detector, header")
def detector_header(folder: Path) -> Form:
    return _by_header(*_detector(folder))


@form("detector")
def detector(folder: Path) -> Form:
    data, read = _detector(folder)
    return Form(data, lambda path: read(path.read_bytes()), ".safetensors", Kind.BINARY)


def _pickled(*, old: bool) -> Callable[[Path], Form]:
    def made(folder: Path) -> Form:
        import argparse

        import torch

        from fbnetv3_zoo import create

        state = create(_small(), num_classes=4).state_dict()
        told = {"epoch": 1, "args": argparse.Namespace(lr=0.1, output=Path("a")), "state_dict": state}
        torch.save(told, folder / "sound.pth", _use_new_zipfile_serialization=not old)
        return Form((folder / "sound.pth").read_bytes(), lambda path: _unpickle(path, folder), ".pth", Kind.BINARY)

    return made


def _unpickle(path: Path, folder: Path) -> None:
    """Read a checkpoint as the program that unpickles does, in a fork of this process instead of an interpreter."""
    from fbnetv3_zoo.errors import ZooError
    from fbnetv3_zoo.weights import unpickle
    from fbnetv3_zoo.weights.serialization import parse

    answer = folder / "answer.safetensors"
    if not (child := os.fork()):
        code = 1
        try:
            with path.open("rb") as source, answer.open("wb") as target:
                code = unpickle.main(source, target, os.getppid())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == unpickle.REFUSED:
        raise ZooError("refused")
    assert code == 0, f"the process ended with {code}"
    parse(answer.read_bytes(), "answer")


form("pickle")(_pickled(old=False))
form("pickle of old")(_pickled(old=True))
