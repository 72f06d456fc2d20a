"""The process that times one model on one route: this file as a script, started by :mod:`.worker_process`.

It reads requests as lines of JSON from standard input, answers each with a line, and exits at the end of input, also
if the process that sent them was killed. It imports only what its route needs, so that the memory it reports is the
route's.

Runtimes keep their default settings: their threads spin between operators and for a while after a call, which would
take the cores from the process whose turn is next. Disabling that would make calls on several threads slower than they
are in use (measured on two threads, FBNetV3-A and B: PyTorch by half, ONNX Runtime by a third). Instead, a worker
answers only when its threads are idle.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import IO, Any

WARM_UP = 2
BRIEF = 0.1
"""In seconds; shorter calls are made twice per turn, and the second is timed, with the caches refilled after the other
processes."""

REST, AWAKE, PATIENCE = 0.001, 0.2, 1.0
"""Threads are idle if they used less than the fraction AWAKE of REST seconds; wait for that for PATIENCE seconds."""

Work = Callable[[int], Callable[[], object]]
"""From a batch size to the call that is timed."""


def main() -> None:
    """Serve until standard input ends. The first argument is a :class:`~.worker_process.OpenRequest` as JSON."""
    request = json.loads(sys.argv[1])
    sys.path[:] = request["modules"]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a runtime prints must not mix with the answers
    try:
        started = time.perf_counter()
        work = _open(request)
    except Exception as error:
        _answer(answers, problem=_summary(error))
        return
    _answer(answers, seconds=time.perf_counter() - started)
    call: Callable[[], object] = _nothing
    twice = False
    for line in sys.stdin:
        try:
            message = json.loads(line)
            if "batch" in message:
                call = work(message["batch"])
                first = _timed(call)
                last = min(_timed(call) for _ in range(WARM_UP))
                twice = last < BRIEF
                _wait_until_idle()
                _answer(answers, seconds=first, memory=_peak_memory())
                continue
            if twice:
                call()
            seconds = _timed(call)
            _wait_until_idle()
            _answer(answers, seconds=seconds, memory=_peak_memory())
        except Exception as error:
            _answer(answers, problem=_summary(error))


def _answer(answers: IO[str], **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")


def _summary(error: Exception) -> str:
    """The first non-empty line, after the name of the class unless the error is this project's own."""
    lines = ("".join(filter(str.isprintable, line)).strip() for line in str(error).splitlines())
    line = next(filter(None, lines), "")[:300]
    return line if type(error).__name__ == "ZooError" else f"{type(error).__name__}: {line}".removesuffix(": ")


def _nothing() -> None:
    """The call before any batch size is given."""


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _wait_until_idle() -> None:
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until:
        before = time.process_time()
        time.sleep(REST)
        if time.process_time() - before < AWAKE * REST:
            return


def _peak_memory() -> int | None:
    """The high-water mark of this process's resident memory, in bytes.

    Linux's getrusage would include the memory of the process that started this one.
    """
    try:
        with open("/proc/self/status") as file:
            match = re.search(r"^VmHWM:\s+(\d+) kB", file.read(), re.MULTILINE)
        return int(match[1]) * 1024 if match else None
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _open(request: dict[str, Any]) -> Work:
    opener = {"product": _product, "compiled": _compiled, "graph": _graph}.get(request["how"], _classifier)
    return opener(request)


def _images(request: dict[str, Any], batch: int) -> Any:
    import numpy as np

    shape = (batch, request["channels"], request["side"], request["side"])
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _classifier(request: dict[str, Any]) -> Work:
    from fbnetv3_zoo.classify import Classifier

    threads, bfloat16 = request["threads"], request["how"] == "bfloat16"
    logits = Classifier.open(request["path"], threads=threads, bfloat16=bfloat16).logits

    def work(batch: int) -> Callable[[], object]:
        images = _images(request, batch)
        return lambda: logits(images)

    return work


def _compiled(request: dict[str, Any]) -> Work:
    """The network compiled for each batch size, as by a user who knows the size."""
    import torch

    from fbnetv3_zoo.weights.serialization import load

    torch.set_num_threads(request["threads"])
    network = load(request["path"]).eval()

    def work(batch: int) -> Callable[[], object]:
        torch.compiler.reset()
        compiled = torch.compile(network, fullgraph=True, dynamic=False)
        images = torch.from_numpy(_images(request, batch))

        def call() -> object:
            with torch.inference_mode():
                return compiled(images).numpy()

        return call

    return work


def _graph(request: dict[str, Any]) -> Work:
    """An ONNX file without a description, opened with the settings of ``Classifier.open``."""
    import onnxruntime

    from fbnetv3_zoo.runtimes.ort import session_options

    options = session_options(request["threads"])
    session = onnxruntime.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def work(batch: int) -> Callable[[], object]:
        images = _images(request, batch)
        return lambda: session.run(None, {name: images})

    return work


def _product(request: dict[str, Any]) -> Work:
    """A product of two square float32 matrices; the batch is their side."""
    import torch

    torch.set_num_threads(request["threads"])

    def work(side: int) -> Callable[[], object]:
        a, b = torch.rand(side, side), torch.rand(side, side)
        out = torch.empty(side, side)
        return lambda: torch.mm(a, b, out=out)

    return work


if __name__ == "__main__":
    main()
