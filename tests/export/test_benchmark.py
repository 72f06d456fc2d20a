"""``fbnetv3 benchmark``: what it computes from times, and that nothing which goes wrong takes the rest along."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import SHORT
from PIL import Image
from refusals import refusal
from shell import run, script, succeed
from waiting import PATIENCE, gone, until

from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.bench import (
    Benchmark,
    BenchmarkConfig,
    BenchProgress,
    ModelOptions,
    Route,
    benchmark,
    measure,
    plots,
)
from fbnetv3_zoo.export.bench.artifacts import find_candidate
from fbnetv3_zoo.export.bench.hardware import instructions, machine_here
from fbnetv3_zoo.export.bench.measure import OnTurn
from fbnetv3_zoo.export.bench.operators import by_kind, operators_of
from fbnetv3_zoo.export.bench.plots import draw_pictures
from fbnetv3_zoo.export.bench.results import (
    Figures,
    LoadCost,
    OperatorKind,
    Operators,
    Peak,
    Row,
    Subject,
    UnavailableRoute,
    figures_of,
    noise,
)
from fbnetv3_zoo.export.timing.turns import rotated
from fbnetv3_zoo.export.timing.worker_process import BenchWorker, OpenRequest, WorkerError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.utils.serialization import to_json
from fbnetv3_zoo.weights.serialization import save
from fbnetv3_zoo.zoo import PUBLISHED

FAST = (Route.ONNXRUNTIME,)
TWO = (Route.EAGER, Route.ONNXRUNTIME)
TIMES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30)


@pytest.fixture
def here(model_files: Path, tmp_path: Path) -> Path:
    """A folder with a small network, and with two ONNX files, which need no export."""
    (tmp_path / "short.json").write_text(SHORT.to_json())
    for name in ("one.onnx", "two.onnx"):
        shutil.copy(model_files / "net.onnx", tmp_path / name)
    return tmp_path


def _plan(routes: tuple[Route, ...], *, batches: tuple[int, ...] = (1,), rounds: int = 3) -> BenchmarkConfig:
    return BenchmarkConfig(routes, batches=batches, rounds=rounds, peak=False)


def _two(here: Path, *, rounds: int, batches: tuple[int, ...] = (1,), on_turn: OnTurn) -> Benchmark:
    """Two models measured on a route whose process is ready in a tenth of a second."""
    models, plan = [str(here / "one.onnx"), str(here / "two.onnx")], _plan(FAST, batches=batches, rounds=rounds)
    return benchmark(models, plan, on_turn=on_turn)


# Arithmetic


@pytest.mark.parametrize(
    ("number", "order"), [(0, "ABC"), (1, "BCA"), (2, "CAB"), (3, "ABC"), (4, "BCA")], ids=lambda value: str(value)
)
def test_every_round_begins_with_another(number: int, order: str) -> None:
    assert rotated("ABC", number) == list(order)


def test_nobody_in_turn() -> None:
    assert rotated([], 3) == []


def test_figures() -> None:
    times, baseline = [4.0, 2.0, 3.0, 6.0, 5.0], [2.0, 2.0, 1.0, 2.0, 10.0]
    found = figures_of(times, batch=8, baseline_ms=baseline, macs=50_000_000, gflops=400.0)
    assert found is not None
    assert (found.p50_ms, found.minimum_ms, found.quartiles_ms) == (4.0, 2.0, (3.0, 5.0))
    assert found.p90_ms == pytest.approx(5.6)
    assert found.images_per_second == 2000
    assert (found.ratio, found.ratio_quartiles) == (2.0, (1.0, 3.0))  # of 2, 1, 3, 3, 0.5: not 4 over 2 by chance alone
    assert found.peak_share == pytest.approx(0.5)  # 2 x 50 MMACs x 8 images in 4 ms, of 400
    assert found.spread == 0.5


def test_ratios_are_taken_round_by_round() -> None:
    """Where the machine grew slow for both, the ratio stays; that of the medians would not."""
    found = figures_of([1.0, 10.0, 30.0], batch=1, baseline_ms=[2.0, 20.0, 60.0])
    assert found is not None
    assert (found.ratio, found.ratio_quartiles) == (0.5, (0.5, 0.5))


@given(times=TIMES, factor=st.floats(0.01, 100), left=st.integers(0, 30))
def test_ratio_to_a_multiple_of_oneself(times: list[float], factor: float, left: int) -> None:
    """However many rounds the baseline had."""
    found = figures_of(times, batch=1, baseline_ms=[one * factor for one in times][:left])
    assert found is not None
    if left == 0:
        assert found.ratio is None
        assert found.ratio_quartiles is None
    else:
        assert found.ratio == pytest.approx(1 / factor)
    assert found.minimum_ms <= found.quartiles_ms[0] <= found.p50_ms <= found.quartiles_ms[1]
    assert found.p50_ms <= found.p90_ms


def test_no_times_no_figures() -> None:
    assert figures_of([], batch=1) is None
    found = figures_of([1.0], batch=1, macs=1000)
    assert found is not None
    assert found.peak_share is None


def test_a_noisy_baseline_is_told_of() -> None:
    def row(route: Route, quartiles: tuple[float, float]) -> Row:
        return Row("net", route, 2, 8, (1.0,), Figures(1.0, 1.0, 1.0, quartiles, 8.0))

    rows = [row(Route.EAGER, (0.5, 1.5)), row(Route.ONNXRUNTIME, (0.9, 1.1)), row(Route.ONNXRUNTIME, (0.925, 1.075))]
    assert noise(rows, Route.ONNXRUNTIME) == (
        "the machine was busy: quartiles of onnxruntime lie over 15 % of the median apart in 1 of 2 rows, "
        "most (20 %) for net, 2 threads, batch 8; measure again",
    )
    assert noise(rows[2:], Route.ONNXRUNTIME) == ()


def test_operators_added_up() -> None:
    times = [("Conv", "a", 30.0), ("Conv", "b", 5.0), ("Conv", "a", 50.0), ("Add", "a", 8.0)] * 2
    assert by_kind(times, calls=4) == (
        OperatorKind("Conv", "a", 1.0, 0.04),
        OperatorKind("Add", "a", 0.5, 0.004),
        OperatorKind("Conv", "b", 0.5, 0.0025),
    )


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ("model\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx\n", ("AVX2", "AVX-512", "AVX-512 VNNI")),
        ("processor : 0\nFeatures\t: fp asimd asimddp sve\n", ("Neon", "Neon dot product", "SVE")),
        ("", ()),
    ],
    ids=["x86", "ARM", "unknown"],
)  # fmt: skip
def test_instruction_sets(info: str, expected: tuple[str, ...]) -> None:
    assert instructions(info) == expected


# Values and pictures


def _some(*, count: int = 6) -> Benchmark:
    """A measurement with everything in it, of our networks and one of another's."""
    names = list(PUBLISHED)[-count:]
    subjects = [Subject(name, PUBLISHED[name].resolution, PUBLISHED[name].macs, PUBLISHED[name].top1) for name in names]
    rng = np.random.default_rng(0)
    rows = []
    for n, name in enumerate(names, start=2):
        for m, route in enumerate((Route.ONNXRUNTIME, Route.EAGER, Route.OPENVINO_INT8), start=1):
            for threads, batch in ((1, 1), (1, 8), (2, 1), (2, 8)):
                times = (n * m * batch / threads * rng.uniform(1, 1.2, 12)).tolist()
                rows.append(Row(name, route, threads, batch, tuple(times), figures_of(times, batch=batch), 9.5, 10**8))
    rival = Subject("mobilenetv3_large_100", 224, None, 76.31, rival=True, source="ra4: timm, 2024")
    rows.append(Row(rival.name, Route.ONNXRUNTIME, 1, 1, (2.0, 3.0), figures_of([2.0, 3.0], batch=1), 3.0, 10**8))
    return Benchmark(
        machine_here(), Route.ONNXRUNTIME, 12, (*subjects, rival), tuple(rows), (Peak(1, 100.5), Peak(2, 180.0)),
        (LoadCost(names[0], Route.EAGER, 1, 0.5, 10**7),),
        (UnavailableRoute(names[0], Route.EXECUTORCH, "no such thing"),),
        (Operators(names[0], Route.ONNXRUNTIME, 1, 1, (OperatorKind("Conv", "float", 20.0, 1.5),)),), ("noise",), True,
    )  # fmt: skip


def test_times_of_zero_are_refused(tmp_path: Path) -> None:
    told = json.loads(to_json(_some()))
    told["rows"][0]["figures"]["p50_ms"] = 0
    (tmp_path / "benchmark.json").write_text(json.dumps(told))
    said = refusal(lambda: Benchmark.read(tmp_path / "benchmark.json"))
    assert "Figures.p50_ms is 0; it must be a number above 0" in said


@pytest.mark.parametrize("count", [0, 6])
def test_written_and_read_again(count: int, tmp_path: Path) -> None:
    found = _some(count=count) if count else Benchmark(machine_here(), Route.EAGER, 3, ())
    path = tmp_path / "benchmark.json"
    path.write_text(to_json(found))
    assert Benchmark.read(path) == found


def test_the_row_with_most_images_a_second() -> None:
    found = _some()
    best = found.best("fbnetv3_g", Route.ONNXRUNTIME)
    assert best is not None
    rows = [row for row in found.rows if (row.model, row.route) == ("fbnetv3_g", Route.ONNXRUNTIME)]
    assert best.figures is not None
    assert best.figures.images_per_second == max(row.figures.images_per_second for row in rows if row.figures)
    assert found.best("fbnetv3_g", Route.COMPILED) is None


def _ink(path: Path) -> float:
    """The share of a picture's pixels that are not white."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return float((np.asarray(image.convert("L")) < 250).mean())


def test_pictures(tmp_path: Path) -> None:
    paths = draw_pictures(_some(), tmp_path)
    assert [path.name for path in paths] == ["latency.png", "throughput.png", "accuracy.png"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for path in paths:
        assert 0.01 < _ink(path) < 0.5


def test_a_route_without_a_look_of_its_own_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_LOOKS", {})
    assert len(draw_pictures(_some(), tmp_path)) == 3


def test_pictures_of_what_there_is(tmp_path: Path) -> None:
    """No accuracy without a published one; nothing at all where nothing was measured."""
    found = _some(count=1)
    assert draw_pictures(replace(found, rows=()), tmp_path) == ()
    unknown = replace(found, subjects=tuple(replace(s, top1=None) for s in found.subjects))
    assert [path.name for path in draw_pictures(unknown, tmp_path)] == ["latency.png", "throughput.png"]


# Measuring


def test_the_command(here: Path) -> None:
    model, folder = here / "short.json", here / "found"
    options = ["--routes", "eager,onnxruntime", "--batches", "3,1", "--threads", 1, "--rounds", 4]
    text = succeed("benchmark", model, *options, "--output", folder, "--profile")
    found = Benchmark.read(folder / "benchmark.json")
    macs = arch_cost(SHORT).macs
    assert found.subjects == (Subject(str(model), 32, macs),)
    assert [(row.route, row.threads, row.batch) for row in found.rows] == [
        (Route.EAGER, 1, 1), (Route.ONNXRUNTIME, 1, 1), (Route.EAGER, 1, 3), (Route.ONNXRUNTIME, 1, 3),
    ]  # fmt: skip
    (peak,) = found.peaks
    assert peak.threads == 1
    assert 0.1 < peak.gflops < 1e5
    for row in found.rows:
        baseline = next(r for r in found.rows if (r.route, r.batch) == (Route.ONNXRUNTIME, row.batch))
        assert len(row.times_ms) == 4
        assert row.figures == figures_of(
            row.times_ms, batch=row.batch, baseline_ms=baseline.times_ms, macs=macs, gflops=peak.gflops
        )
        assert (row.problem, row.first_ms is not None) == ("", True)
    assert (found.absent, found.interrupted) == ((), False)
    assert [(one.route, one.file_size > 1000) for one in found.loaded] == [(route, True) for route in TWO]
    (operators,) = found.operators
    assert {"Conv", "GlobalAveragePool"} <= {one.kind for one in operators.kinds}
    assert sorted(path.name for path in folder.iterdir()) == ["benchmark.json", "latency.png", "throughput.png"]
    assert all(_ink(path) > 0.005 for path in folder.glob("*.png"))
    assert f"{model}, 32 px, {macs / 1e6:.1f} MMACs" in text
    lines = re.findall(r"^(eager|onnxruntime) +1 +([13]) ", text, re.MULTILINE)
    assert lines == [("eager", "1"), ("onnxruntime", "1"), ("eager", "3"), ("onnxruntime", "3")]


def test_for_scripts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peak_of", lambda threads: Peak(threads, 100.0))
    options = ["--routes", "onnxruntime", "--batches", 1, "--threads", 1, "--rounds", 3, "--json"]
    told = json.loads(succeed("benchmark", here / "one.onnx", *options))
    (row,) = told["rows"]
    assert [peak["gflops"] for peak in told["peaks"]] == [100.0]
    assert (row["route"], len(row["times_ms"])) == ("onnxruntime", 3)
    assert row["figures"]["p50_ms"] == sorted(row["times_ms"])[1]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of processes from /proc")
def test_a_route_has_only_its_own_memory(here: Path) -> None:
    """ONNX Runtime's process does not hold PyTorch; and a process does not count what its parent has."""
    found = benchmark([str(here / "short.json")], _plan(TWO))
    eager, onnxruntime = (row.memory for row in found.rows)
    assert eager is not None
    assert onnxruntime is not None
    assert onnxruntime < 0.6 * eager


@pytest.mark.long
def test_files_on_the_routes_that_they_have(tmp_path: Path) -> None:
    model = create(SHORT).eval()
    save(model, tmp_path / "model.safetensors")
    export_onnx(model, tmp_path / "model.onnx")
    wanted = ModelOptions()
    weights = find_candidate(str(tmp_path / "model.safetensors"), tmp_path, wanted)
    assert weights.request(Route.EAGER, 3) == OpenRequest(str(tmp_path / "model.safetensors"), "plain", 3, 3, 32)
    plan = _plan(TWO, batches=(2,))
    found = benchmark([str(tmp_path / "model.onnx")], plan)
    (row,) = found.rows
    assert (row.route, len(row.times_ms)) == (Route.ONNXRUNTIME, 3)
    reason = "cannot be converted from a .onnx file; give a .safetensors file"
    assert found.absent == (UnavailableRoute(str(tmp_path / "model.onnx"), Route.EAGER, reason),)


@pytest.mark.long
def test_int8(here: Path) -> None:
    """A file that is int8 already is known for one."""
    candidate = find_candidate(str(here / "short.json"), here, ModelOptions())
    path = candidate.request(Route.ONNXRUNTIME_INT8, 1).path
    found = benchmark(
        [str(here / "short.json"), path], BenchmarkConfig((Route.ONNXRUNTIME, Route.ONNXRUNTIME_INT8), rounds=3)
    )
    rows = [(row.model, row.route, row.batch, len(row.times_ms)) for row in found.rows if row.batch == 1]
    assert rows == [
        (str(here / "short.json"), Route.ONNXRUNTIME, 1, 3),
        (str(here / "short.json"), Route.ONNXRUNTIME_INT8, 1, 3),
        (path, Route.ONNXRUNTIME_INT8, 1, 3),
    ]
    shares = {row.route: row.figures.peak_share for row in found.rows if row.figures}
    assert shares[Route.ONNXRUNTIME] is not None
    assert shares[Route.ONNXRUNTIME_INT8] is None
    reason = "cannot be converted from a .onnx file; give a .safetensors file"
    assert found.absent == (UnavailableRoute(path, Route.ONNXRUNTIME, reason),)


@pytest.mark.long
def test_another_resolution(here: Path) -> None:
    found = find_candidate(str(here / "short.json"), here, ModelOptions(resolution=48))
    assert found.subject == Subject(str(here / "short.json"), 48, arch_cost(SHORT, resolution=48).macs)
    order = found.request(Route.ONNXRUNTIME, 1)
    assert (order.side, order.channels) == (48, 3)


def test_published_accuracy_belongs_to_a_resolution(tmp_path: Path) -> None:
    own = find_candidate("fbnetv2_f1", tmp_path, ModelOptions())
    assert own.subject.top1 == PUBLISHED["fbnetv2_f1"].top1
    assert find_candidate("fbnetv2_f1", tmp_path, ModelOptions(resolution=160)).subject.top1 is None


@pytest.mark.long
def test_another_network_beside(here: Path) -> None:
    plan = _plan(FAST)
    found = benchmark([str(here / "short.json")], plan, against=["mobilenetv3_small_050"])
    assert [(row.model, row.route, len(row.times_ms)) for row in found.rows] == [
        (str(here / "short.json"), Route.ONNXRUNTIME, 3),
        ("mobilenetv3_small_050", Route.ONNXRUNTIME, 3),
    ]
    assert found.subjects[1] == Subject("mobilenetv3_small_050", 224, rival=True)


def test_operators_of_a_graph(model_files: Path) -> None:
    kinds = operators_of(OpenRequest(str(model_files / "net.onnx"), "plain", 1, side=32), 2)
    assert {"Conv", "GlobalAveragePool"} <= {one.kind for one in kinds}
    assert kinds == tuple(sorted(kinds, key=lambda one: -one.milliseconds))
    assert all(one.count == int(one.count) for one in kinds if one.kind == "Conv")


def test_operators_of_what_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no network")
    assert "Protobuf parsing failed" in refusal(
        lambda: operators_of(OpenRequest(str(tmp_path / "model.onnx"), "plain", 1), 1)
    )


# What goes wrong


def test_a_process_that_is_killed(here: Path) -> None:
    """It is told of in its row, with the rounds until then; the other goes on, at this batch and the next."""

    def kill(turn: BenchProgress) -> None:
        if (Path(turn.model).name, turn.batch, turn.number) == ("one.onnx", 1, 2):
            os.kill(turn.pid, signal.SIGKILL)

    found = _two(here, rounds=5, batches=(1, 2), on_turn=kill)
    killed, other, other_next = found.rows
    assert killed.problem == "its process was killed (SIGKILL, perhaps out of memory)"
    assert len(killed.times_ms) == 2
    assert killed.figures is not None
    assert killed.figures.ratio == 1.0
    assert (other.batch, len(other.times_ms), other.problem) == (1, 5, "")
    assert (other_next.model, other_next.batch, len(other_next.times_ms)) == (other.model, 2, 5)
    assert found.interrupted is False


@pytest.mark.long
def test_a_baseline_that_is_killed_at_once(here: Path) -> None:
    def kill(turn: BenchProgress) -> None:
        if (turn.route, turn.batch, turn.number) == (Route.ONNXRUNTIME, 1, 0):
            os.kill(turn.pid, signal.SIGKILL)

    found = benchmark([str(here / "short.json")], _plan(TWO), on_turn=kill)
    eager, baseline = found.rows
    assert (baseline.times_ms, baseline.figures) == ((), None)
    assert baseline.problem.startswith("its process was killed")
    assert eager.figures is not None
    assert (eager.figures.ratio, len(eager.times_ms)) == (None, 3)


def test_interrupted(here: Path) -> None:
    """What was measured stays."""

    def interrupt(turn: BenchProgress) -> None:
        if turn.number == 3:
            signal.raise_signal(signal.SIGINT)  # to this thread, at once

    found = _two(here, rounds=1000, batches=(1, 2), on_turn=interrupt)
    assert found.interrupted
    assert [row.batch for row in found.rows] == [1, 1]
    assert [len(row.times_ms) for row in found.rows] == [3, 2]


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of its own")
def test_interrupted_at_the_terminal(here: Path) -> None:
    """The file is written, the table printed."""
    ours, theirs = pty.openpty()
    options = ["--routes", "onnxruntime", "--batches", 1, "--threads", 1, "--rounds", 10**6, "--output", here / "found"]
    process = script("benchmark", here / "short.json", *options, cwd=here, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while not re.search(rb"rounds.* [1-9]\d*/1000000", seen):
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        os.close(ours)
    assert process.returncode == 130
    assert "interrupted: not everything was measured" in out
    found = Benchmark.read(here / "found" / "benchmark.json")
    assert found.interrupted
    assert all(row.times_ms for row in found.rows)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_processes_end_with_the_one_that_started_them(here: Path) -> None:
    code = (
        "import sys\n"
        "from fbnetv3_zoo.export.bench import BenchmarkConfig, Route, benchmark\n"
        "def tell(turn):\n"
        "    if turn.number == 1: print(turn.pid, flush=True)\n"
        "benchmark(sys.argv[1:], BenchmarkConfig((Route.ONNXRUNTIME,), rounds=10**6, peak=False), on_turn=tell)\n"
    )
    command = [sys.executable, "-c", code, str(here / "one.onnx"), str(here / "two.onnx")]
    kept_here = {**os.environ, "TMPDIR": str(here)}  # it has no time to tidy up
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kept_here) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in TWO]
        assert not any(map(gone, pids))
        process.kill()
    until(lambda: all(map(gone, pids)))


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(WorkerError, match=r"model\.onnx: cannot be read as ONNX") as caught:
        BenchWorker(OpenRequest(str(tmp_path / "model.onnx"), "plain", 1))
    assert not caught.value.dead


@pytest.mark.long
def test_a_call_that_fails_ends_nothing(here: Path) -> None:
    """An order of the wrong size: the process says so, and waits for the next."""
    export = find_candidate(str(here / "short.json"), here, ModelOptions()).request(Route.ONNXRUNTIME, 1)
    worker = BenchWorker(replace(export, channels=2))
    try:
        for _ in range(2):
            with pytest.raises(WorkerError, match="images are float32 of shape") as caught:
                worker.begin(1)
            assert not caught.value.dead
    finally:
        worker.end()


@pytest.mark.long
def test_a_route_without_its_package(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of, and the others are measured."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = benchmark([str(here / "short.json")], _plan((Route.OPENVINO, Route.ONNXRUNTIME)))
    reason = 'needs OpenVINO, which is not installed; pip install "fbnetv3-zoo[openvino]"'
    assert found.absent == (UnavailableRoute(str(here / "short.json"), Route.OPENVINO, reason),)
    assert [row.route for row in found.rows] == [Route.ONNXRUNTIME]


def test_nothing_possible(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    ended = run("benchmark", here / "short.json", "--routes", "openvino")
    reason = 'needs OpenVINO, which is not installed; pip install "fbnetv3-zoo[openvino]"'
    assert (ended.code, ended.err) == (2, f"error: nothing could be measured (openvino: {reason})\n")


def test_no_compiler(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(here / "no-compiler"))
    expected = "torch.compile needs a C++ compiler; install g++ or clang, or set CXX"
    candidate = find_candidate(str(here / "short.json"), here, ModelOptions())
    assert refusal(lambda: candidate.request(Route.COMPILED, 1)) == expected


def test_without_timm(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    ended = run("benchmark", here / "short.json", "--against", "resnet50")
    expected = '--against resnet50: needs timm, which is not installed; pip install "fbnetv3-zoo[timm]"'
    assert (ended.code, ended.err) == (2, f"error: {expected}\n")


ROUTES = (
    "eager, compiled, onnxruntime, onnxruntime-int8, openvino, openvino-bf16, openvino-int8, executorch, ncnn, litert, "
    "litert-int8"
)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--routes", "onnx"], f"unknown route 'onnx' (did you mean 'onnxruntime'?); choose from {ROUTES}"),
        (["--routes", "eager,eager"], "--routes has eager twice; give it once"),
        (["--baseline", "eager", "--routes", "onnxruntime"],
         "the baseline eager is not measured; choose from onnxruntime"),
        (["--batches", "1,0"], "--batches has '0'; give whole numbers from 1 to 1024, separated by commas"),
        (["--batches", "1,,2"], "--batches has ''; give whole numbers from 1 to 1024, separated by commas"),
        (["--batches", "2,2"], "--batches has 2 twice; give it once"),
        (["--threads", "many"], "--threads has 'many'; give whole numbers from 1 to 1024, separated by commas"),
        (["--rounds", "2"], "--rounds is 2; it must be a whole number of at least 3"),
        (["--resolution", "0"], "resolution is 0; it must be a whole number of at least 1"),
        (["--against", "mobilenetv9"],
         "--against mobilenetv9: timm has no network of that name (did you mean 'mobilenetv3_rw'?)"),
        (["--against", "resnet50", "--routes", "eager"],
         "--against: timm networks are measured on onnxruntime; add it to --routes"),
        (["--images", "{here}/absent"], "{here}/absent: no such folder; give a folder of images"),
        (["{here}/absent.onnx"], "{here}/absent.onnx: no such file"),
        (["{here}/short.json"], "{here}/short.json: is given twice; name each model once"),
        (["fbnetv3_h"],
         "unknown model 'fbnetv3_h' (did you mean 'fbnetv3_g'?); `fbnetv3 list` shows all"),
        (["--output", "{here}/short.json"], "{here}/short.json: is a file; give the path of a folder"),
    ],
)  # fmt: skip
def test_what_it_refuses(options: list[str], complaint: str, here: Path) -> None:
    given = [option.replace("{here}", str(here)) for option in options]
    ended = run("benchmark", here / "short.json", *given)
    assert (ended.code, ended.err) == (2, f"error: {complaint.replace('{here}', str(here))}\n")


def test_files_have_weights_and_a_size(model_files: Path, tmp_path: Path) -> None:
    path = str(model_files / "net.onnx")
    expected = f"{path}: is a file with its own weights; leave out --pretrained"
    assert refusal(lambda: find_candidate(path, tmp_path, ModelOptions(pretrained=True))) == expected
    expected = f"{path}: is for 32 pixels; leave out --resolution, or give a .safetensors file"
    assert refusal(lambda: find_candidate(path, tmp_path, ModelOptions(resolution=48))) == expected


def test_plans_that_cannot_be() -> None:
    assert refusal(lambda: BenchmarkConfig(())) == "BenchmarkConfig.routes is empty; give at least one"
    assert (
        refusal(lambda: BenchmarkConfig(batches=(0,)))
        == "BenchmarkConfig.batches is 0; it must be a whole number of at least 1"
    )
    assert refusal(lambda: BenchmarkConfig(peak=1)) == "BenchmarkConfig.peak is 1; it must be True or False"  # type: ignore[arg-type]
