"""``fbnetv3 weights``: published weights, converting others, and the cache."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ZooError
from ..utils.paths import check_place, exists, read_lines
from .common import CARD, Json, check_same, command_group, output_file, print_json, written
from .output import say, say_text

if TYPE_CHECKING:
    from ..preprocess import Preprocess
    from ..weights.cache import WeightsCache

app = command_group(
    """Published weights and their cache: list, fetch, verify, convert, describe, prune.

    Example: fbnetv3 weights fetch fbnetv3_e
    """
)

Cache = Annotated[Path | None, typer.Option(help="Folder of the cache (FBNETV3_ZOO_CACHE).")]
Mirror = Annotated[str | None, typer.Option(help="URL or folder to get the published files from (FBNETV3_ZOO_MIRROR).")]
Lock = Annotated[Path | None, typer.Option(help="File of digests that can be shared (FBNETV3_ZOO_LOCK).")]
Names = Annotated[list[str] | None, typer.Argument(help="Weights such as fbnetv3_e or fbnetv3_b.ra2_in1k.")]


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="A name, or a quoted pattern with shell wildcards.")] = "*",
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """List the published weights with size, accuracy, license and whether they are in the cache.

    Example: fbnetv3 weights list "fbnetv3_*"
    """
    from ..weights.registry import RECORDS, list_weights

    names = list_weights(pattern)
    if not names:
        raise ZooError(f"no weights match {pattern!r}; `fbnetv3 weights list` shows all")
    weights_cache = _cache_at(cache)
    paths = {file.name: file.path for file in reversed(weights_cache.kept())}
    rows = [_row(RECORDS[name], paths.get(name)) for name in names]
    if as_json:
        print_json(rows)
        return
    say(f"{'name':24}{'MB':>7}{'top-1 %':>9}{'pixels':>8}  {'license':14}{'commercial':12}cache")
    for row in rows:
        top1 = f"{row['accuracy'][0]['top1']:.2f}" if row["accuracy"] else "-"
        place = "in the package" if row["packaged"] else "kept" if row["kept"] else "-"
        figures = f"{row['megabytes']:>7.1f}{top1:>9}{row['pixels']:>8}"
        use = "yes" if row["commercial"] else "no"
        say(f"{row['name']:24}{figures}  {row['licence'] or 'unknown':14}{use:12}{place}")
    say("", "MB: parameters in float32. top-1: ImageNet, by the publishers' records. commercial: whether the license")
    say(f"allows commercial use. Cache: {weights_cache.folder}")


@app.command()
def fetch(
    names: Names = None,
    all_: Annotated[bool, typer.Option("--all", help="All published weights.")] = False,
    cache: Cache = None,
    mirror: Mirror = None,
    lock: Lock = None,
    as_json: Json = False,
) -> None:
    """Download weights to the cache, so that loading them needs no connection.

    Example: fbnetv3 weights fetch fbnetv3_e
    """
    from ..weights.fetch import fetch as get
    from ..weights.registry import RECORDS, find_record

    if bool(names) == all_:
        raise ZooError("give the names of weights, or --all; `fbnetv3 weights list` shows them")
    weights_cache = _cache_at(cache, mirror=mirror, lock=lock)
    rows = []
    for record in RECORDS.values() if all_ else [find_record(name) for name in names or ()]:
        if record.packaged is not None:
            if not all_ and not as_json:
                say(f"{record.name}: comes with the package")
            continue
        file = get(record, weights_cache)
        rows.append({"name": record.name, "path": file.path, "source_sha256": file.source, "blake3": file.digest})
        if not as_json:
            say(written(file.path))
    if as_json:
        print_json(rows)


@app.command()
def verify(names: Names = None, cache: Cache = None, lock: Lock = None, as_json: Json = False) -> None:
    """Compare every file in the cache with its digest. The exit code is 1 if one is damaged.

    Example: fbnetv3 weights verify
    """
    from ..weights.cache_prune import FileState, survey
    from ..weights.registry import find_record

    wanted = {find_record(name).name for name in names or ()}
    files = [entry for entry in survey(_existing(cache, lock)) if entry.state is not FileState.LEFTOVER]
    shown = [entry for entry in files if not wanted or entry.name in wanted]
    if missing := wanted - {entry.name for entry in shown}:
        raise ZooError(f"{', '.join(sorted(missing))}: not in the cache; `fbnetv3 weights fetch` gets them")
    _show(shown, as_json=as_json, nothing="the cache is empty")
    if any(entry.state is FileState.DAMAGED for entry in shown):
        raise typer.Exit(1)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint (.pth, .pt, .bin, .ckpt) or .safetensors file.")],
    model: Annotated[str, typer.Option(help="The network: a published name or an arch JSON file.")],
    output: Annotated[
        Path | None, output_file("The .safetensors file to write (default: beside FILE).", "fbnetv3_zoo")
    ] = None,
    class_names: Annotated[Path | None, typer.Option(help="Text file of class names, one per line.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Mean for normalizing images in [0, 1], such as 0.5,0.5,0.5.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation for normalizing, likewise.")] = None,
    resize: Annotated[int | None, typer.Option(help="Shorter side of the resized image before the crop.")] = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint trained elsewhere to a file of this project. Its layout is recognized by its names.

    A checkpoint does not describe its preprocessing: ImageNet's statistics are assumed unless others are given.

    Example: fbnetv3 weights convert run7/model_best.pth --model fbnetv3_b --output model.safetensors
    """
    from .. import save
    from ..utils.serialization import to_plain
    from ..weights.pretrained import build
    from ..weights.registry import find_network
    from ..weights.torch_checkpoint import read_any

    target = output or file.with_suffix(".safetensors")
    if target == file:
        raise ZooError(f"{file}: would be overwritten by its conversion; give another --output")
    check_place(target)
    arch = find_network(model)
    source = read_any(file)
    network = build(source, arch, named=True)
    given: dict[str, Any] = {"mean": _numbers("--mean", mean), "std": _numbers("--std", std), "resize": resize}
    network.preprocess = replace(network.preprocess, **{k: v for k, v in given.items() if v is not None})
    if len(network.preprocess.mean) != network.arch.in_channels:
        raise ZooError(f"--mean and --std: give {network.arch.in_channels} numbers, one per channel")
    if class_names is not None:
        network.class_names = tuple(filter(None, read_lines(class_names, "a list of class names")))
    if output is None:
        check_same(target, partial(save, network))
    save(network, target)
    if as_json:
        fields = {"file": target, "model": network.arch.name, "classes": network.arch.num_classes}
        print_json({**fields, "preprocess": to_plain(network.preprocess)})
        return
    say(f"{network.arch.name}, {network.arch.num_classes} classes: {written(target)}")
    known = bool(source.metadata) or (mean is not None and std is not None)
    say(f"images: {_prepared(network.preprocess)}{'' if known else _ASSUMED}")


_ASSUMED = " (assumed; if it was trained with others, give --mean, --std and --resize)"


def _prepared(preprocess: Preprocess) -> str:
    numbers = (", ".join(f"{value:g}" for value in values) for values in (preprocess.mean, preprocess.std))
    return (
        f"resized to {preprocess.resize}, cropped to {preprocess.resolution}, mean {next(numbers)}, std {next(numbers)}"
    )


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ZooError(f"{option} is {text!r}; give comma-separated numbers, such as 0.5,0.5,0.5") from None


@app.command()
def card(
    weights: Annotated[str, typer.Argument(help="Published weights, or a .safetensors file of this project.")],
    output: Annotated[Path | None, output_file("File to write (default: standard output).", CARD)] = None,
    license: Annotated[str | None, typer.Option(help="SPDX identifier, for a file of your own.")] = None,
) -> None:
    """Write the model card of published weights or of a file.

    Example: fbnetv3 weights card fbnetv3_b.ra2_in1k
    """
    from ..utils.atomic_write import replacing
    from ..weights.card import model_card, record_card
    from ..weights.registry import find_record

    if Path(weights).suffix == ".safetensors":
        from .. import load

        text = model_card(load(weights), license=license)
    elif license is not None:
        raise ZooError(f"{weights}: the license of published weights is its publisher's; leave --license out")
    else:
        text = record_card(find_record(weights))
    if output is None:
        say_text(text)
        return
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(written(output))


@app.command()
def prune(
    everything: Annotated[bool, typer.Option("--all", help="Also remove intact files.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    cache: Cache = None,
    lock: Lock = None,
    as_json: Json = False,
) -> None:
    """Remove damaged, outdated and incomplete files from the cache.

    Example: fbnetv3 weights prune --dry-run
    """
    from ..weights.cache_prune import prune as remove

    removed = remove(_existing(cache, lock), everything=everything, dry_run=dry_run)
    _show(removed, as_json=as_json, nothing="nothing to remove")


def _existing(cache: Path | None, lock: Path | None) -> WeightsCache:
    """The cache in the folder ``cache``, which must be there; without one the usual cache, there or not."""
    if cache is not None and not exists(cache):
        raise ZooError(f"--cache {cache}: no such folder")
    return _cache_at(cache, lock=lock)


def _cache_at(folder: Path | None, *, mirror: str | None = None, lock: Path | None = None) -> WeightsCache:
    from ..weights.cache import WeightsCache

    given: dict[str, Any] = {"folder": folder, "mirror": mirror, "lock": lock}
    return WeightsCache(**{name: value for name, value in given.items() if value is not None})


def _row(record: Any, path: Path | None) -> dict[str, Any]:
    from ..arch.cost import arch_cost
    from ..utils.serialization import to_plain

    return {
        "name": record.name,
        "megabytes": round(4 * arch_cost(record.arch).parameters / 1e6, 1),
        "licence": record.license.value if record.license else None,
        "commercial": record.commercial,
        "accuracy": [{**to_plain(a), "evidence": a.evidence.value} for a in record.accuracy],
        "addresses": [source.address for source in record.sources],
        "sha256": [source.sha256 for source in record.sources],
        "pixels": record.preprocess.resolution,
        "packaged": record.packaged is not None,
        "kept": path,
    }


def _show(files: list[Any], *, as_json: bool, nothing: str) -> None:
    if as_json:
        print_json([{"path": e.path, "name": e.name, "state": e.state.value, "size": e.size} for e in files])
        return
    for entry in files:
        say(f"{entry.state.value:13}{entry.size / 1e6:>7.1f} MB  {os.fspath(entry.path)}")
    if not files:
        say(nothing)
