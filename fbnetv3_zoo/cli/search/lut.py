"""``fbnetv3 search lut``."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import ZooError, check_whole
from ...utils.paths import exists
from ..common import Json, output_file, print_json, written
from ..output import console, say
from .spaces import find_any_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fbnetv3_zoo.search.space import SearchSpace

    from ...arch import Activation
    from ...arch.cost import Table
    from ...arch.latency import BlockKey, LatencyTable


def lut(
    space: Annotated[str, typer.Option(help="The space: a name or a JSON file.")] = "paper",
    output: Annotated[
        Path,
        output_file("JSON file to write; missing blocks are added to an existing one.", "fbnetv3_zoo.latency_table"),
    ] = Path("latency.json"),
    networks: Annotated[
        int | None, typer.Option(help="Measure only the blocks of this many random networks, not of the whole space.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.")] = 1,
    resolution: Annotated[int | None, typer.Option(help="Measure only this resolution, in pixels.")] = None,
    check: Annotated[int, typer.Option(help="Number of whole networks to check against; 0: none.")] = 10,
    rounds: Annotated[int, typer.Option(help="Runs of each block; the lower quartile counts.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the random networks.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure the latency of every block of a search space on this machine, with ONNX Runtime.

    An interrupted measurement continues when called again. Run nothing else meanwhile.

    Example: fbnetv3 search lut --space paper --resolution 224 --output phone.latency.json
    """
    from fbnetv3_zoo.export.onnx.latency import check_latency

    searched = find_any_space(space)
    if resolution is not None:
        searched = searched.at_resolution(resolution)
    wanted, whole = _what(searched, networks=networks, check=check, seed=seed)
    started = time.monotonic()
    table, measured = _measure(wanted, searched.activation, output, threads=threads, rounds=rounds)
    if whole is not None:
        table = check_latency(table, whole, path=output)
    seconds = time.monotonic() - started
    if as_json:
        found = asdict(table.check) if table.check else None
        counts = {"blocks": len(wanted), "measured": measured, "seconds": seconds, "scale": table.scale}
        print_json({"file": output, "space": searched.name, **counts, "check": found})
        return
    say(f"space {searched.name}: {len(wanted):,} blocks, of which {measured:,} were measured now, in {seconds:.0f} s")
    say(f"on {table.conditions}")
    if table.check:
        say(f"{table.check}; estimates are multiplied by {table.scale:.3f}")
    say(written(output))


def _what(
    space: SearchSpace, *, networks: int | None, check: int, seed: int
) -> tuple[tuple[BlockKey, ...], Table | None]:
    """The blocks to measure, and the networks to measure whole."""
    import numpy as np

    from ...arch.latency import distinct_blocks

    check_whole("--seed", seed, at_least=0)
    check_whole("--check", check, at_least=0)
    if 0 < check < 3:
        raise ZooError(f"--check is {check}; give at least 3 networks, or 0")
    if networks is not None:
        check_whole("--networks", networks, at_least=max(1, check))
    count, rng = max(networks or 0, check, 1), np.random.default_rng(seed)
    codes = space.sample(count, rng, method="uniform")
    blocks = space.blocks() if networks is None else distinct_blocks(space.tabulate(codes))
    return blocks, space.tabulate(codes[:check]) if check else None


def _measure(
    wanted: Sequence[BlockKey], activation: Activation, output: Path, *, threads: int, rounds: int
) -> tuple[LatencyTable, int]:
    """The table with all blocks ``wanted``, also written to ``output``, and the number of blocks measured."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from fbnetv3_zoo.export.onnx.latency import measure_blocks

    from ...arch.latency import LatencyTable

    known = LatencyTable.load(output) if exists(output) else None
    missing = len(wanted) if known is None else len(known.lacks(wanted))
    screen = console()
    columns = (TextColumn("blocks"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *times, console=screen, disable=not screen.is_terminal) as progress:
        task = progress.add_task("", total=missing)
        table = measure_blocks(
            wanted, activation, threads=threads, rounds=rounds, table=known, path=output,
            on_progress=lambda done: progress.update(task, completed=done),
        )  # fmt: skip
    return table, missing
