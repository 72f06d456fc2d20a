"""Several processes over gloo: the same gradients as one, exact resume, signals, restarts, one voice.

Most groups are forked by the server of :mod:`forks`, which says to them what torchrun would; torchrun itself starts the
others.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import forks
import pytest
import torch
import torch.nn.functional as F
from forks import ENVIRONMENT, Job, Server
from jobs import REFUSED
from runs import PLAIN, RECIPE, assert_same, checkpoints, few_digits, metadata, metrics, tensors, train
from safetensors.torch import load_file
from waiting import PATIENCE

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.preprocess import stack
from fbnetv3_zoo.recipes import SGD, Optimizer, RMSProp
from fbnetv3_zoo.training import Execution
from fbnetv3_zoo.utils.serialization import to_json
from fbnetv3_zoo.weights.serialization import load

TWO = [-signal.SIGKILL] * 2
EXECUTION = Execution(workers=1, checkpoint_steps=2)


@pytest.fixture(scope="module")
def straight(server: Server, tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """The folder of an uninterrupted run of two processes, and what they told. Only read."""
    folder = tmp_path_factory.mktemp("straight")
    told = server("train", size=2, **_job(tiny_arch, folder))
    assert told["codes"] == [0, 0], told
    return folder, told


def _job(arch: Arch, folder: Path, execution: Execution = EXECUTION) -> Job:
    recipe, plan = RECIPE.to_json(), to_json(execution)
    return {"arch": arch.to_json(), "recipe": recipe, "folder": str(folder), "execution": plan}


@contextmanager
def _torchrun(job: Job, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Torchrun with two processes that do ``job``; what is left of them is killed when the block ends."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]
    script = [forks.__file__, json.dumps({"name": "train", **job})]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command + script, env=ENVIRONMENT, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                _kill(process)


@contextmanager
def _agents(job: Job) -> Iterator[list[subprocess.Popen[str]]]:
    """Two torchruns, as on two machines, with one process each, that do ``job`` together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=2"]
    script = [forks.__file__, json.dumps({"name": "train", **job})]
    agents = [
        subprocess.Popen(
            [*command, *meeting, *script], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        yield agents
    finally:
        for agent in agents:
            if agent.poll() is None:
                _kill(agent)
            agent.communicate()


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill ``process`` and all that came of it, none of which has ended."""
    for pid in [process.pid, *_children(process.pid)]:
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in _children(child))]


def _until(process: subprocess.Popen[str], text: str) -> list[str]:
    """What ``process`` says up to the line ``text``."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        if said[-1] == text:
            return said
    raise AssertionError("\n".join(said))


# --- the same as one process ---


def _after_six_steps(server: Server, arch: Arch, optimizer: Optimizer, file: Path, *, size: int, parts: int) -> Job:
    recipe = replace(PLAIN, optimizer=optimizer, learning_rate=0.02 if isinstance(optimizer, SGD) else 0.002)
    execution = to_json(Execution(accumulation=parts))
    job = {"arch": arch.to_json(), "recipe": recipe.to_json(), "execution": execution, "file": str(file)}
    told = server("steps", size=size, **job)
    assert told["codes"] == [0] * size, told
    losses = [float(line.split()[1]) for line in told["lines"][0]]
    return {"losses": losses, "weights": load_file(file)}


@pytest.mark.parametrize("optimizer", [SGD(), RMSProp()], ids=["sgd", "rmsprop"])
def test_however_a_batch_is_divided_the_steps_are_the_same(
    optimizer: Optimizer, server: Server, tiny_arch: Arch, tmp_path: Path
) -> None:
    """Norms as in evaluation, where no image depends on the others of its batch."""
    one = _after_six_steps(server, tiny_arch, optimizer, tmp_path / "one", size=1, parts=1)
    assert len(one["losses"]) == 6
    for size, parts in ((2, 1), (1, 2), (2, 2)):
        other = _after_six_steps(server, tiny_arch, optimizer, tmp_path / f"{size}{parts}", size=size, parts=parts)
        assert other["losses"] == pytest.approx(one["losses"], abs=1e-6)
        for name, weights in one["weights"].items():
            torch.testing.assert_close(other["weights"][name], weights, rtol=0, atol=1e-6, msg=f"{name} {size} {parts}")


# --- exact resume ---


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.long)])
def test_killed_often_is_as_never_killed(
    kills: int, server: Server, straight: tuple[Path, Job], tiny_arch: Arch, tmp_path: Path
) -> None:
    folder, told = straight
    job, chance, step = _job(tiny_arch, tmp_path), random.Random(1), (told["last"] - told["first"]) / 14
    moments = [
        {"steps": 4, "delay": chance.uniform(0, step)},
        {"steps": 0, "writing": str(tmp_path / "checkpoints")},
        {"delay": chance.uniform(0, told["first"])},
        *({"steps": chance.randint(1, 2), "delay": chance.uniform(0, step)} for _ in range(2)),
    ]
    assert [server("train", size=2, kill=moment, **job)["codes"] for moment in moments[:kills]] == [TWO] * kills
    assert not (tmp_path / "model.safetensors").exists()
    last = server("train", size=2, **job)
    assert last["codes"] == [0, 0], last
    assert sum(line.startswith("step") for line in last["lines"][0]) < 14
    assert_same(tmp_path, folder)


@pytest.mark.long
def test_sigterm_to_torchrun(server: Server, straight: tuple[Path, Job], tiny_arch: Arch, tmp_path: Path) -> None:
    job = _job(tiny_arch, tmp_path, replace(EXECUTION, checkpoint_steps=0))
    with _torchrun(job) as process:
        _until(process, "step 2 2")
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(PATIENCE) != 0
    (step,) = set(re.findall(r"interrupted: ended by SIGTERM after step (\d) of epoch 2; continue with --resume", said))
    progress = metadata(checkpoints(tmp_path)[0])["progress"]
    assert (progress["epoch"], progress["step"]) == (1, int(step))
    again = server("train", size=2, **job)
    assert again["codes"] == [0, 0], again
    assert_same(tmp_path, straight[0])


@pytest.mark.long
def test_killed_under_torchrun_and_resumed(
    server: Server, straight: tuple[Path, Job], tiny_arch: Arch, tmp_path: Path
) -> None:
    job = _job(tiny_arch, tmp_path)
    with _torchrun(job) as process:
        said = _until(process, "step 1 3")
        assert process.poll() is None
        _kill(process)
    assert "".join(said).count("pid ") == 2  # two processes may share a line
    last = server("train", size=2, **job)
    assert last["codes"] == [0, 0], last
    assert_same(tmp_path, straight[0])


@pytest.mark.long
def test_restarted_by_torchrun(straight: tuple[Path, Job], tiny_arch: Arch, tmp_path: Path) -> None:
    with _torchrun({**_job(tiny_arch, tmp_path), "dies": [2, 3]}, "--max-restarts=1") as process:
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as late:
            pytest.fail(f"hangs:\n{(late.output or b'').decode()}")
    assert process.returncode == 0, said
    assert [line for line in said.splitlines() if line == "step 2 3"] == ["step 2 3"] * 2
    assert_same(tmp_path, straight[0])


@pytest.mark.long
def test_one_of_two_agents_restarts(straight: tuple[Path, Job], tiny_arch: Arch, tmp_path: Path) -> None:
    """Of two machines, one process is killed. Its agent counts a restart and the other none; they meet again.

    They load images themselves: CPython 3.11 now and then hangs in a process forked while gloo's threads come and go.
    """
    with _agents({**_job(tiny_arch, tmp_path, replace(EXECUTION, workers=0)), "dies": [2, 3]}) as agents:
        try:
            said = [agent.communicate(timeout=PATIENCE)[0] for agent in agents]
        except subprocess.TimeoutExpired as late:
            pytest.fail(f"hangs:\n{(late.output or b'').decode()}")
        assert [agent.returncode for agent in agents] == [0, 0], said
    assert "".join(said).splitlines().count("step 2 3") == 2
    assert_same(tmp_path, straight[0])


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
def test_several_runs_one_after_the_other(times: int, server: Server, tiny_arch: Arch, tmp_path: Path) -> None:
    """A teacher and two students in the same two processes, one of which is late by chance."""
    archs = [replace(tiny_arch, name=name).to_json() for name in ("one", "two")]
    job = {"archs": archs, "recipe": replace(RECIPE, epochs=1, warmup_epochs=0).to_json(), "late": 0.5}
    results = []
    for number in range(times):
        told = server("distil", size=2, folder=str(tmp_path / str(number)), **job)
        assert told["codes"] == [0, 0], told
        results += [lines[-1] for lines in told["lines"]]
    assert len(set(results)) == 1


def test_begun_by_two_and_ended_by_one(server: Server, tiny_arch: Arch, tmp_path: Path) -> None:
    told = server("train", size=2, kill={"steps": 9}, **_job(tiny_arch, tmp_path))
    assert told["codes"] == TWO, told
    progress = metadata(checkpoints(tmp_path)[0])["progress"]
    run = train(tiny_arch, few_digits(), RECIPE, tmp_path, resume=True)
    assert progress["epoch"] == 1
    assert progress["step"] >= 1
    assert len(run.epochs) == 3
    assert run.epochs[-1].train_loss < 2.4
    assert metadata(checkpoints(tmp_path)[0])["progress"]["epoch"] == 3


# --- together ---


def test_the_leading_process_speaks_for_all(straight: tuple[Path, Job]) -> None:
    folder, told = straight
    leader, other = told["lines"]
    steps = [f"step {epoch} {step}" for epoch in (1, 2, 3) for step in range(1, 6)]
    assert [line for line in leader if line.startswith("step")] == steps
    assert [line for line in leader if line.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]
    assert len(other) == 2  # its number and its result
    assert other[1] == leader[-1]
    assert len(metrics(folder)) == 3


def test_no_image_is_evaluated_twice_and_all_by_the_same_network(straight: tuple[Path, Job]) -> None:
    """31 images, an odd number, for two processes, whose norms have seen different images."""
    total, loss, accuracies = json.loads(straight[1]["lines"][1][-1].removeprefix("result "))
    model, data = load(straight[0] / "model.safetensors"), few_digits()
    images = torch.from_numpy(stack(model.preprocess, [example.read() for example in data["test"]]))
    with torch.inference_mode():
        expected = F.cross_entropy(model(images), torch.tensor([example.label for example in data["test"]]))
    assert total == 31
    assert loss == pytest.approx(float(expected), abs=1e-6)
    assert all(accuracy * 31 == pytest.approx(round(accuracy * 31)) for accuracy in accuracies)


def test_what_two_processes_give_is_a_network_of_its_own(straight: tuple[Path, Job]) -> None:
    found = tensors(straight[0])
    assert not any("module" in name for name in found if name.startswith(("model.", "best.", "now.student")))
    assert torch.equal(found["model.classifier.weight"], found["now.average.module.classifier.weight"])


def test_both_end_where_the_loss_explodes(server: Server, tiny_arch: Arch, tmp_path: Path) -> None:
    recipe = replace(PLAIN, warmup_epochs=0, learning_rate=9e5)
    told = server("train", size=2, **{**_job(tiny_arch, tmp_path), "recipe": recipe.to_json()})
    assert told["codes"] == [REFUSED, REFUSED], told
    for rank, lines in enumerate(told["lines"]):
        file = tmp_path / f"failed-batch-{rank}.safetensors"
        said = r"refused: loss is \S+ in epoch 1, step (\d), at learning rate 9e\+05; "
        assert re.fullmatch(
            said + rf"lower learning_rate \(900000\); the batch is in {re.escape(str(file))}", lines[-1]
        )
        assert load_file(file)["images.0"].shape == (8, 1, 32, 32)


def test_batches_that_cannot_be_divided(server: Server, tiny_arch: Arch, tmp_path: Path) -> None:
    recipe = replace(PLAIN, batch_size=15)
    told = server("train", size=2, **{**_job(tiny_arch, tmp_path), "recipe": recipe.to_json()})
    said = (
        "refused: batches of 15 images cannot be divided into 2 processes x 1 parts of at least 2 images; "
        "use a multiple of 2, such as 14"
    )
    assert [lines[-1] for lines in told["lines"]] == [said] * 2
