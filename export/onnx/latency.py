"""Measuring blocks and whole networks on ONNX Runtime, for a :class:`~fbnetv3_zoo.arch.latency.LatencyTable`.

A block run alone is not as fast as in a network: its weights stay in the caches between runs, and the runtime converts
its maps to its own layout and back. Therefore at least as many blocks as in a network are run in turn, and every block
is framed by an entry and an exit layer that keep its maps in that layout; their own cost, measured without a block, is
subtracted.
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
    """The conditions of a measurement on this machine."""
    return Conditions(processor_name(), f"onnxruntime {onnxruntime.__version__}", threads, rounds)


def measure_blocks(
    blocks: Sequence[BlockKey], activation: Activation, *, threads: int = 1, rounds: int = 12,
    table: LatencyTable | None = None, path: Path | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> LatencyTable:  # fmt: skip
    """``table`` extended by the latencies of all ``blocks`` that it lacks, measured with one image at a time.

    With one thread, that thread's CPU time is measured, which other programs disturb less; with more, wall-clock time.

    Args:
        blocks: see :func:`fbnetv3_zoo.arch.latency.distinct_blocks` and
            :meth:`fbnetv3_zoo.search.space.SearchSpace.blocks`.
        activation: activation of all blocks.
        threads: threads of ONNX Runtime.
        rounds: runs of each block; the lower quartile counts.
        table: an earlier table. Raises :class:`ZooError` if its conditions or activation differ.
        path: file to which the table is saved every few seconds, so that an interrupted measurement can continue.
        on_progress: called with the number of missing blocks measured so far.
    """
    here = conditions_here(threads=threads, rounds=rounds)
    if table is None:
        table = LatencyTable(here, activation, {})
    check_same(table, here, activation)
    missing, latencies = table.lacks(blocks), dict(table.blocks)
    if not missing:
        if path is not None:
            clear(path.parent)  # what a writer left that was killed after saving the table
        return table
    timer = Timer(threads, rounds)
    frames = _measured_frames(missing, activation, timer)
    saved = time.monotonic()
    try:
        for measured in _measured(missing, activation, timer, frames):
            latencies |= measured
            on_progress(len(latencies) - len(table.blocks))
            if path is not None and time.monotonic() - saved > SAVE_EVERY:
                replace(table, blocks=latencies, call=frames[NOTHING]).save(path)
                saved = time.monotonic()
    finally:
        table = replace(table, blocks=latencies, call=frames[NOTHING])
        if path is not None:
            table.save(path)
    return table


def check_latency(table: LatencyTable, networks: Table, *, path: Path | None = None) -> LatencyTable:
    """``table`` with ``check`` and ``scale`` from measuring at least 3 whole ``networks``."""
    blocks = network_blocks(networks)
    if len(blocks) < 3:
        raise ZooError(f"checking a latency table needs at least 3 networks; {len(blocks)} were given")
    check_same(table, conditions_here(threads=table.conditions.threads), table.activation)
    sums = replace(table, scale=1.0)(networks)
    timer = Timer(table.conditions.threads, table.conditions.rounds)
    whole = timer([network_graph(keys, table.activation) for keys in blocks])
    checked = replace(table, check=compare(sums, whole), scale=_scale(sums, whole))
    if path is not None:
        checked.save(path)
    return checked


def compare(sums: Doubles, whole: Doubles) -> LatencyCheck:
    """Compare sums over blocks with whole networks, both in milliseconds and of shape (networks,)."""
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
    """The factor for ``sums`` that makes the median of their relative errors 0."""
    return float(np.median(whole / sums))


def check_same(table: LatencyTable, here: Conditions, activation: Activation) -> None:
    """Raise :class:`ZooError` if ``table`` was measured under other conditions, or for another activation."""
    there = replace(table.conditions, rounds=here.rounds)
    if there != here:
        raise ZooError(f"latency table of {there}: this is {here}; measure into another file")
    if table.activation is not activation:
        raise ZooError(
            f"latency table of {there}: its blocks have {table.activation.value}, not {activation.value}; "
            "measure into another file"
        )


class Timer:
    """Times graphs of :mod:`fbnetv3_zoo.export.onnx.block_graphs` in turn, each in a session of its own."""

    def __init__(self, threads: int, rounds: int) -> None:
        check_whole("threads", threads)
        check_whole("rounds", rounds, at_least=3)
        self._rounds = rounds
        self._clock = time.thread_time if threads == 1 and sys.platform != "win32" else time.perf_counter
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        if threads > 1:  # waiting sessions must not spin on the cores of the one that is timed
            self._options.add_session_config_entry("session.force_spinning_stop", "1")

    def __call__(self, graphs: Sequence[onnx.ModelProto]) -> Doubles:
        """Milliseconds per run of each graph: the lower quartile over the rounds."""
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
    """The latencies of ``wanted``, measured in shuffled groups, so that the blocks of a group differ."""
    for keys in _parts(wanted, TOGETHER):
        times = timer([framed_graph(key, activation) for key in keys])
        yield {
            key: round(max(0.0, ms - _framing(key, frames)), 6) for key, ms in zip(keys, times.tolist(), strict=True)
        }


def _measured_frames(wanted: Sequence[BlockKey], activation: Activation, timer: Timer) -> dict[Frame, float]:
    """The latency of all frames of ``wanted``, interleaved with some of these blocks to fill the caches as usual."""
    frames = {frame for key in wanted for frame in _frames(key)} | {NOTHING}
    others = [framed_graph(key, activation) for key in next(_parts(wanted, TOGETHER // 2), [])]
    latencies: dict[Frame, float] = {}
    for part in _parts(sorted(frames), TOGETHER // 2):
        graphs = [empty_graph() if frame == NOTHING else frame_graph(*frame, activation) for frame in part]
        alternating = [graph for pair in zip_longest(graphs, others) for graph in pair if graph is not None]
        times = dict(zip(map(id, alternating), timer(alternating).tolist(), strict=True))
        latencies |= {frame: round(times[id(graph)], 6) for frame, graph in zip(part, graphs, strict=True)}
    return latencies


def _parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    order = np.random.default_rng(0).permutation(len(items)).tolist()
    for start in range(0, len(order), size):
        yield [items[n] for n in order[start : start + size]]


def _frames(key: BlockKey) -> tuple[Frame, Frame]:
    """The frames before and after the block."""
    entered = (key.in_channels, key.side) if enters(key) else NOTHING
    return entered, (key.out, key.side_out) if leaves(key) else NOTHING


def _framing(key: BlockKey, frames: Mapping[Frame, float]) -> float:
    """Half the latency of both frames: each includes half a call, so that frames and calls cancel over a network."""
    entered, left = _frames(key)
    return (frames[entered] + frames[left]) / 2
