"""The process that times one model on one route: this file, run by an interpreter of its own (:mod:`.crew` starts it).

It takes orders as lines of JSON from its standard input, answers each with a line, and ends when there are no more:
also where the process that gave them was killed. It imports only what its route needs, so that the memory
it tells of is the route's.

Runtimes keep the settings that they have alone in a program: their threads spin between operators, and for a while
after a call, which would take the cores from the process whose turn is next. Forbidding it would make calls on several
threads slower than they are in use (measured on two threads, FBNetV3-A and B: PyTorch by half, ONNX Runtime by a
third). Instead a worker answers only when its threads have come to rest.
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
"""Seconds; a shorter call is made twice a turn, and the second one counts: what the other processes left in the caches
is not part of it."""

REST, AWAKE, PATIENCE = 0.001, 0.2, 1.0
"""Seconds, a part, seconds: threads rest when they were busy for less than AWAKE of REST; PATIENCE is the limit."""

Work = Callable[[int], Callable[[], object]]
"""From the size of a batch to the call that is timed."""


def main() -> None:
    """Serve until standard input ends. The first argument is the :class:`~.crew.Order` as JSON."""
    order = json.loads(sys.argv[1])
    sys.path[:] = order["modules"]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a runtime prints must not come between the answers
    try:
        started = time.perf_counter()
        work = _open(order)
    except Exception as error:
        _answer(answers, problem=_told(error))
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
                _come_to_rest()
                _answer(answers, seconds=first, memory=_most_resident())
                continue
            if twice:
                call()
            seconds = _timed(call)
            _come_to_rest()
            _answer(answers, seconds=seconds, memory=_most_resident())
        except Exception as error:
            _answer(answers, problem=_told(error))


def _answer(answers: IO[str], **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")


def _told(error: Exception) -> str:
    """The first line that says something; the class, too, where the error is not one that this project raises."""
    lines = ("".join(filter(str.isprintable, line)).strip() for line in str(error).splitlines())
    line = next(filter(None, lines), "")[:300]
    return line if type(error).__name__ == "ZooError" else f"{type(error).__name__}: {line}".removesuffix(": ")


def _nothing() -> None:
    """What is called before a batch was named."""


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _come_to_rest() -> None:
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until:
        before = time.process_time()
        time.sleep(REST)
        if time.process_time() - before < AWAKE * REST:
            return


def _most_resident() -> int | None:
    """The high-water mark of this process's resident memory, in bytes.

    Linux's getrusage would count what the process that started this one had.
    """
    try:
        with open("/proc/self/status") as file:
            found = re.search(r"^VmHWM:\s+(\d+) kB", file.read(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _open(order: dict[str, Any]) -> Work:
    opener = {"product": _product, "compiled": _compiled, "graph": _graph}.get(order["how"], _classifier)
    return opener(order)


def _images(order: dict[str, Any], batch: int) -> Any:
    import numpy as np

    shape = (batch, order["channels"], order["side"], order["side"])
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _classifier(order: dict[str, Any]) -> Work:
    from fbnetv3_zoo.classify import Classifier

    threads, bfloat16 = order["threads"], order["how"] == "bfloat16"
    logits = Classifier.open(order["path"], threads=threads, bfloat16=bfloat16).logits

    def work(batch: int) -> Callable[[], object]:
        images = _images(order, batch)
        return lambda: logits(images)

    return work


def _compiled(order: dict[str, Any]) -> Work:
    """The network compiled anew for each size of batch, as for whoever knows the size."""
    import torch

    from fbnetv3_zoo.weights.serialization import load

    torch.set_num_threads(order["threads"])
    network = load(order["path"]).eval()

    def work(batch: int) -> Callable[[], object]:
        torch.compiler.reset()
        compiled = torch.compile(network, fullgraph=True, dynamic=False)
        images = torch.from_numpy(_images(order, batch))

        def call() -> object:
            with torch.inference_mode():
                return compiled(images).numpy()

        return call

    return work


def _graph(order: dict[str, Any]) -> Work:
    """An ONNX file of others, which says nothing of itself: opened as ``Classifier.open`` opens ours."""
    import onnxruntime

    from fbnetv3_zoo.runtimes.ort import session_options

    options = session_options(order["threads"])
    session = onnxruntime.InferenceSession(order["path"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def work(batch: int) -> Callable[[], object]:
        images = _images(order, batch)
        return lambda: session.run(None, {name: images})

    return work


def _product(order: dict[str, Any]) -> Work:
    """A product of two square float32 matrices; the batch is their side."""
    import torch

    torch.set_num_threads(order["threads"])

    def work(side: int) -> Callable[[], object]:
        a, b = torch.rand(side, side), torch.rand(side, side)
        out = torch.empty(side, side)
        return lambda: torch.mm(a, b, out=out)

    return work


if __name__ == "__main__":
    main()
