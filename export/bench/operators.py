"""The time of a call by kind of operator, from the profiles of ONNX Runtime and OpenVINO."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3_zoo.errors import ZooError, in_short
from fbnetv3_zoo.runtimes.openvino_ir import cpu_settings
from fbnetv3_zoo.runtimes.ort import session_options
from fbnetv3_zoo.utils.atomic_write import scratch

from ..timing.worker_process import OpenRequest
from .results import OperatorKind

WARM_UP, CALLS = 5, 20
Times = Iterable[tuple[str, str, float]]
"""Kind, implementation and microseconds of every operator of all calls."""


def operators_of(request: OpenRequest, batch: int) -> tuple[OperatorKind, ...]:
    """The kinds of operators in a call with ``batch`` images, slowest first; measured in a separate process.

    Raises :class:`ZooError` if the runtime fails or crashes.
    """
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "from fbnetv3_zoo.export.bench import operators; operators.main()"
    )
    command = [sys.executable, "-c", code, json.dumps(sys.path), json.dumps(asdict(request)), str(batch)]
    with scratch() as folder:
        path = folder / "operators.json"
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, start_new_session=True)
        if not path.exists():
            raise ZooError(f"its process ended (exit code {done.returncode})")
        result = json.loads(path.read_text())
    if isinstance(result, str):
        raise ZooError(result)
    return tuple(OperatorKind(**kind) for kind in result)


def main() -> None:
    """Measure as the arguments say, and write the result, or an error as text, to a file."""
    _, request, batch, path = sys.argv[1:]
    try:
        result: Any = [asdict(kind) for kind in _measured(OpenRequest(**json.loads(request)), int(batch))]
    except Exception as error:  # runtimes raise many kinds
        result = in_short(error)
    Path(path).write_text(json.dumps(result))


def _measured(request: OpenRequest, batch: int) -> tuple[OperatorKind, ...]:
    shape = (batch, request.channels, request.side, request.side)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    times = _intermediate(request, images) if request.path.endswith(".xml") else _graph(request, images)
    return by_kind(times, calls=CALLS)


def by_kind(times: Times, *, calls: int) -> tuple[OperatorKind, ...]:
    """``times`` of ``calls`` calls, summed by kind and implementation, per call."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    count: dict[tuple[str, str], int] = defaultdict(int)
    for kind, how, microseconds in times:
        spent[kind, how] += microseconds
        count[kind, how] += 1
    order = sorted(spent, key=lambda key: (-spent[key], key))
    return tuple(OperatorKind(*key, count[key] / calls, spent[key] / calls / 1e3) for key in order)


def _graph(request: OpenRequest, images: Any) -> Times:
    import onnxruntime

    options = session_options(request.threads)
    options.enable_profiling = True
    with scratch() as folder:
        options.profile_file_prefix = str(folder / "operators")
        session = onnxruntime.InferenceSession(request.path, options, providers=["CPUExecutionProvider"])
        for _ in range(WARM_UP + CALLS):
            session.run(None, {session.get_inputs()[0].name: images})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return _kernels(events)


def _kernels(events: list[dict[str, Any]]) -> Times:
    """The operators of all calls after the warm-up, from the events of ONNX Runtime's profile."""
    calls = sorted(event["ts"] for event in events if event["name"] == "model_run")
    if len(calls) < WARM_UP + CALLS:
        raise ZooError("ONNX Runtime's profile lacks calls; it has at most a million events")
    for event in events:
        if event["name"].endswith("_kernel_time") and event["ts"] >= calls[WARM_UP]:
            yield event["args"]["op_name"], _first_type(event["args"]), float(event["dur"])


def _first_type(arguments: dict[str, Any]) -> str:
    """The type of an operator's first input, such as ``float`` or ``uint8``."""
    types = arguments.get("input_type_shape") or [{}]
    return next(iter(types[0]), "")


def _intermediate(request: OpenRequest, images: Any) -> Times:
    import openvino

    settings = {**cpu_settings(request.threads, bfloat16=request.how == "bfloat16"), "PERF_COUNT": True}
    core = openvino.Core()
    inference = core.compile_model(core.read_model(request.path), "CPU", settings).create_infer_request()
    times = []
    for number in range(WARM_UP + CALLS):
        inference.infer([images])
        if number >= WARM_UP:
            times += [
                (one.node_type, one.exec_type, one.real_time.total_seconds() * 1e6) for one in inference.profiling_info
            ]
    return [(kind, how, spent) for kind, how, spent in times if spent]
