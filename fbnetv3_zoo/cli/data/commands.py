"""``fbnetv3 data``: datasets in one file, drawn or packed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...errors import ZooError
from ..common import Json, Seed, command_group, output_file, print_json, program, target_of, written
from ..option_groups import DataOptions, grouped
from ..output import in_shell, say
from ..training_options import SubsetFile

if TYPE_CHECKING:
    from ...training.data.rendered import DatasetFile

app = command_group(
    """Make datasets of one file, which every --data takes: drawn ones, and others with their images decoded.

    Example: fbnetv3 data letters --fonts /usr/share/fonts --output letters.safetensors
    """
)

Size = Annotated[int, typer.Option(help="Side of the images in pixels.")]


@app.command()
def letters(
    fonts: Annotated[list[Path], typer.Option(help="Folder of TrueType and OpenType fonts; may be repeated.")],
    output: Annotated[
        Path | None, output_file("File to write (default: letters.safetensors).", "fbnetv3_zoo.images")
    ] = None,
    size: Size = 32,
    seed: Annotated[int, typer.Option(help="Seed of the splits, of the faces and of the distortions.")] = 0,
    faces: Annotated[int, typer.Option(help="Most faces of a family, such as Regular and Bold.")] = 3,
    classes: Annotated[
        str | None, typer.Option(help="Characters, each a class (default: 34 that are not mistaken for one another).")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Font family to leave out, such as one of symbols; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw characters from font files, with whole font families held out for validation and test.

    Example: fbnetv3 data letters --fonts /usr/share/fonts --output letters.safetensors
    """
    from ...training.data.rendered import CHARACTERS
    from ...training.data.rendered import letters as draw_letters

    path = _file(output, "letters")
    characters = CHARACTERS if classes is None else classes
    images = draw_letters(fonts, side=size, seed=seed, faces=faces, characters=characters, without=without or ())
    _write(images, path, ("family", "families"), as_json=as_json)


@app.command()
def emoji(
    drawings: Annotated[
        list[str],
        typer.Option(metavar="VENDOR=FOLDER", help="A vendor's drawings in Iconify's JSON form; repeated, 3 or more."),
    ],
    held_out: Annotated[str, typer.Option(help="The vendor whose drawings are for test.")],
    validation: Annotated[
        str | None, typer.Option(help="The vendor whose drawings are for validation (default: the last other one).")
    ] = None,
    output: Annotated[
        Path | None, output_file("File to write (default: emoji.safetensors).", "fbnetv3_zoo.images")
    ] = None,
    size: Size = 32,
    as_json: Json = False,
) -> None:
    """Draw the emoji of several vendors, by group, with one vendor held out for validation and one for test.

    Example: fbnetv3 data emoji --drawings noto=noto --drawings twemoji=twemoji --drawings openmoji=openmoji --held-out
    openmoji
    """
    from ...training.data.rendered import emoji as draw_emoji
    from ...training.data.rendered import read_vendor

    path = _file(output, "emoji")
    vendors = [read_vendor(name, folder) for name, folder in map(_vendor, drawings)]
    images = draw_emoji(vendors, held_out=held_out, validation=validation, side=size)
    _write(images, path, ("vendor", "vendors"), as_json=as_json)


@app.command()
@grouped
def pack(
    *,
    data: DataOptions,
    output: Annotated[
        Path | None, output_file("File to write (default: NAME-SIZE.safetensors).", "fbnetv3_zoo.images")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the images in pixels: that of the network, or more to crop.")],
    seed: Seed = 0,
    subset: SubsetFile = None,
    on_bad_image: Annotated[
        Literal["raise", "skip"], typer.Option(help="If an image cannot be read, fail, or leave it out and count it.")
    ] = "raise",
    as_json: Json = False,
) -> None:
    """Decode and resize the images of a dataset once, into one file that is trained on from memory.

    The shorter side becomes --size pixels, and the middle is kept.

    Example: fbnetv3 data pack photos --size 96 --output photos-96.safetensors
    """
    from ...training import find_dataset
    from ...training.data.rendered import packed
    from ...training.execution import OnBadImage

    images = find_dataset(data.source, seed=seed, subset=subset, val_split=data.val_split)
    path = _file(output, f"{Path(data.source).name}-{size}")
    _write(packed(images, side=size, on_bad_image=OnBadImage(on_bad_image)), path, None, as_json=as_json)


def _vendor(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise ZooError(f"--drawings is {text!r}; give VENDOR=FOLDER, such as noto=package")
    return name, folder


def _file(output: Path | None, name: str) -> Path:
    path = target_of(output, Path(f"{name}.safetensors"), "fbnetv3_zoo.images")
    if path.suffix != ".safetensors":
        raise ZooError(f"{path}: data sets are written as .safetensors; change the extension")
    return path


def _write(images: DatasetFile, path: Path, groups: tuple[str, str] | None, *, as_json: bool) -> None:
    """Write the file and tell what is in it; ``groups``: the word for what is held out, for one and for several."""
    images.save(path)
    counts = images.counts()
    if as_json:
        print_json({"file": path, "name": images.name, "classes": len(images.class_names), **counts})
        return
    splits = (
        f"{part['images']:,} images{_of(part['groups'], groups) if groups else ''} for {split}"
        for split, part in counts.items()
    )
    say(f"{images.name}, {len(images.class_names)} classes: {', '.join(splits)}")
    say(written(path), f"next: {program()} train {in_shell(path)} --output runs/{path.stem}")


def _of(count: int, words: tuple[str, str]) -> str:
    return f" of {count:,} {words[count != 1]}"
