"""Measuring blocks and whole networks on ONNX Runtime, for a :class:`~fbnetv3_zoo.arch.latency.LatencyTable`.

A block alone is not timed as it is in a network: its weights stay in the caches from run to run, and the runtime
brings its maps into the layout that it computes in, and back. Therefore many blocks are run in turn, as many as a
network has or more, and every block stands between an entry and an exit that leave its maps in that layout; what these
cost, measured with nothing between, is taken off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from fbnetv3_zoo.arch import Activation
from fbnetv3_zoo.arch.cost import Table
from fbnetv3_zoo.arch.latency import BlockKey, Conditions, LatencyCheck, LatencyTable, network_blocks
from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.utils.hardware import processor_name
from fbnetv3_zoo.utils.temporary_folder import clear

from .block_graphs import INPUT, empty_graph, enters, frame_graph, framed_graph, leaves, network_graph

Doubles = npt.NDArray[np.float64]
T = TypeVar("T")
Frame = tuple[int, int]  # channels and side of a map
NOTHING: Frame = (0, 0)
TOGETHER = 48
WARM_UP = 2
SAVE_EVERY = 5.0  # seconds


def conditions_here(*, threads: int = 1, rounds: int = 12) -> Conditions:
    """What a measurement on this machine is made under."""
    return Conditions(processor_name(), f"onnxruntime {onnxruntime.__version__}", threads, rounds)


def measure_blocks(
    blocks: Sequence[BlockKey], activation: Activation, *, threads: int = 1, rounds: int = 12,
    table: LatencyTable | None = None, path: Path | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> LatencyTable:  # fmt: skip
    """A table with the latency of ``blocks``, one image at a time: those of ``table``, and what it lacks measured.

    With one thread, the processor time of that thread counts, so that other programs disturb less; with more, the time
    that passes.

    Args:
        blocks: see :func:`fbnetv3_zoo.arch.latency.distinct_blocks` and
            :meth:`fbnetv3_zoo.search.space.SearchSpace.blocks`.
        activation: of all blocks.
        threads: threads of ONNX Runtime.
        rounds: runs of each block, of which the lower quartile counts.
        table: an earlier table, of the same conditions and activation, else :class:`ZooError`.
        path: file that the table is written to every few seconds, so that an interrupted measurement can go on.
        on_progress: is told how many of the missing blocks have been measured.
    """
    here = conditions_here(threads=threads, rounds=rounds)
    if table is None:
        table = LatencyTable(here, activation, {})
    check_same(table, here, activation)
    wanted, found = table.lacks(blocks), dict(table.blocks)
    if not wanted:
        if path is not None:
            clear(path.parent)  # of a writer that was killed once the table was in place
        return table
    timer = Timer(threads, rounds)
    frames = _measured_frames(wanted, activation, timer)
    saved = time.monotonic()
    try:
        for measured in _measured(wanted, activation, timer, frames):
            found |= measured
            on_progress(len(found) - len(table.blocks))
            if path is not None and time.monotonic() - saved > SAVE_EVERY:
                replace(table, blocks=found, call=frames[NOTHING]).save(path)
                saved = time.monotonic()
    finally:
        table = replace(table, blocks=found, call=frames[NOTHING])
        if path is not None:
            table.save(path)
    return table


def check_latency(table: LatencyTable, networks: Table, *, path: Path | None = None) -> LatencyTable:
    """``table`` with its ``check`` and ``scale``, found by measuring ``networks`` (at least 3) whole."""
    blocks = network_blocks(networks)
    if len(blocks) < 3:
        raise ZooError(f"check of a latency table: {len(blocks)} networks given; give at least 3")
    check_same(table, conditions_here(threads=table.conditions.threads), table.activation)
    sums = replace(table, scale=1.0)(networks)
    timer = Timer(table.conditions.threads, table.conditions.rounds)
    whole = timer([network_graph(keys, table.activation) for keys in blocks])
    checked = replace(table, check=compare(sums, whole), scale=_scale(sums, whole))
    if path is not None:
        checked.save(path)
    return checked


def compare(sums: Doubles, whole: Doubles) -> LatencyCheck:
    """Sums over blocks against whole networks, milliseconds, each of shape (networks,)."""
    from scipy.stats import kendalltau

    errors = sums / whole - 1
    others = [np.delete(np.arange(len(sums)), n) for n in range(len(sums))]
    scaled = [sums[n] * _scale(sums[rest], whole[rest]) / whole[n] - 1 for n, rest in enumerate(others)]
    return LatencyCheck(
        networks=len(sums),
        error=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
        scaled_error=float(np.abs(scaled).mean()),
        kendall=float(kendalltau(sums, whole).statistic),
        shortest=float(whole.min()),
        longest=float(whole.max()),
    )


def _scale(sums: Doubles, whole: Doubles) -> float:
    """The factor on ``sums`` after which their relative errors are 0 in the middle."""
    return float(np.median(whole / sums))


def check_same(table: LatencyTable, here: Conditions, activation: Activation) -> None:
    """Raise where ``table`` was measured elsewhere, otherwise, or for another activation."""
    there = replace(table.conditions, rounds=here.rounds)
    if there != here:
        raise ZooError(f"latency table of {there}: this is {here}; measure into another file")
    if table.activation is not activation:
        raise ZooError(
            f"latency table of {there}: its blocks have {table.activation.value}, not {activation.value}; "
            "measure into another file"
        )


class Timer:
    """Times graphs of :mod:`fbnetv3_zoo.export.onnx.block_graphs`, several in turn, on sessions of their own."""

    def __init__(self, threads: int, rounds: int) -> None:
        check_whole("threads", threads)
        check_whole("rounds", rounds, at_least=3)
        self._rounds = rounds
        self._clock = time.thread_time if threads == 1 and sys.platform != "win32" else time.perf_counter
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        if threads > 1:  # the threads of a waiting session must not take the cores of the one that is timed
            self._options.add_session_config_entry("session.force_spinning_stop", "1")

    def __call__(self, graphs: Sequence[onnx.ModelProto]) -> Doubles:
        """Milliseconds of one run of each: the lower quartile over the rounds."""
        opened = [self._open(graph) for graph in graphs]
        times = np.zeros((WARM_UP + self._rounds, len(opened)))
        for row in times:
            for n, (session, images) in enumerate(opened):
                started = self._clock()
                session.run(None, {INPUT: images})
                row[n] = self._clock() - started
        quartiles: Doubles = np.quantile(times[WARM_UP:], 0.25, axis=0) * 1e3
        return quartiles

    def _open(self, graph: onnx.ModelProto) -> tuple[onnxruntime.InferenceSession, npt.NDArray[np.float32]]:
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
        )
        shape = [axis.dim_value for axis in graph.graph.input[0].type.tensor_type.shape.dim]
        return session, np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _measured(
    wanted: Sequence[BlockKey], activation: Activation, timer: Timer, frames: Mapping[Frame, float]
) -> Iterator[dict[BlockKey, float]]:
    """The latencies of ``wanted``, some blocks at a time, mixed so that each time they are as different as may be."""
    for keys in _parts(wanted, TOGETHER):
        times = timer([framed_graph(key, activation) for key in keys])
        yield {
            key: round(max(0.0, ms - _framing(key, frames)), 6) for key, ms in zip(keys, times.tolist(), strict=True)
        }


def _measured_frames(wanted: Sequence[BlockKey], activation: Activation, timer: Timer) -> dict[Frame, float]:
    """What all frames of ``wanted`` cost, among some of these blocks: with the caches as they find them later."""
    frames = {frame for key in wanted for frame in _frames(key)} | {NOTHING}
    others = [framed_graph(key, activation) for key in next(_parts(wanted, TOGETHER // 2), [])]
    found: dict[Frame, float] = {}
    for part in _parts(sorted(frames), TOGETHER // 2):
        graphs = [empty_graph() if frame == NOTHING else frame_graph(*frame, activation) for frame in part]
        alternating = [graph for pair in zip_longest(graphs, others) for graph in pair if graph is not None]
        times = dict(zip(map(id, alternating), timer(alternating).tolist(), strict=True))
        found |= {frame: round(times[id(graph)], 6) for frame, graph in zip(part, graphs, strict=True)}
    return found


def _parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    order = np.random.default_rng(0).permutation(len(items)).tolist()
    for start in range(0, len(order), size):
        yield [items[n] for n in order[start : start + size]]


def _frames(key: BlockKey) -> tuple[Frame, Frame]:
    """The maps through which the block is entered and left."""
    entered = (key.in_channels, key.side) if enters(key) else NOTHING
    return entered, (key.out, key.side_out) if leaves(key) else NOTHING


def _framing(key: BlockKey, frames: Mapping[Frame, float]) -> float:
    """Half of both frames, as each also holds half a call: over blocks in a row, all frames and all calls are off."""
    entered, left = _frames(key)
    return (frames[entered] + frames[left]) / 2
