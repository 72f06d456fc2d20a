"""Files that datasets are drawn from, and the file of a drawn one, for :mod:`fuzz`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fuzz_data import _sealed
from fuzz_formats import Form, Kind, form


@form("drawn images")
def drawn_images(folder: Path) -> Form:
    import numpy as np

    from fbnetv3_zoo.training.data.find import find_dataset
    from fbnetv3_zoo.training.data.rendered import DatasetFile

    keys = tuple(f"group {n}/{n}" for n in range(12))
    images = np.random.default_rng(0).integers(256, size=(12, 6, 5, 3), dtype=np.uint8)
    DatasetFile(
        "drawn", ("a", "b"), ("x", "y", "z"), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), images, np.arange(12) % 2,
        np.arange(12) // 4, (4, 4, 4), keys, "{}",
    ).save(folder / "sound.safetensors")  # fmt: skip

    def load(path: Path) -> None:
        data = find_dataset(path)
        str((data, data.fingerprint, [example.read() for example in data["train"]]))

    return _sealed((folder / "sound.safetensors").read_bytes(), load, folder)


@form("font")
def font(folder: Path) -> Form:
    """As the process that draws reads it, which may crash without harm."""
    from matplotlib import get_data_path

    from fbnetv3_zoo.errors import ZooError
    from fbnetv3_zoo.training.data.rendered.drawing_process import draw_font

    def read(path: Path) -> None:
        told, _ = draw_font({"file": path.name, "characters": "ABab12", "side": 32, "seed": 0}, path.read_bytes())
        if isinstance(told[0], str):
            raise ZooError(told[0])

    return Form(Path(get_data_path(), "fonts", "ttf", "cmb10.ttf").read_bytes(), read, ".ttf", Kind.BINARY)


@form("drawings")
def drawings(folder: Path) -> Form:
    """All files of a vendor in one, and what its first drawings look like."""
    from fbnetv3_zoo.errors import ZooError
    from fbnetv3_zoo.training.data.rendered.vector import draw_vector
    from fbnetv3_zoo.training.data.rendered.vendors import read_vendor

    path = '<g fill="#f00"><path d="M2 2h28v28H2z"/><circle cx="9" cy="9" r="4" fill="url(#a)"/></g>'
    body = f'<defs><radialGradient id="a"><stop stop-color="#fff"/></radialGradient></defs>{path}'
    seed = {
        "icons": {"icons": {"grin": {"body": body, "width": 40}}, "width": 32, "height": 32},
        "chars": {"1f600": "grin", "1f44b-1f3fb": "grin"},
        "metadata": {"categories": {"Smileys & Emotion": ["grin"]}},
        "info": {"author": {"name": "someone"}, "license": {"spdx": "MIT"}},
    }
    place = folder / "vendor"
    place.mkdir()

    def read(path: Path) -> None:
        try:
            told = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            told = None
        for name in seed:
            part = told.get(name) if isinstance(told, dict) else None
            place.joinpath(f"{name}.json").write_text(json.dumps(part))
            if not isinstance(told, dict):
                shutil.copyfile(path, place / f"{name}.json")
        for drawing in read_vendor("vendor", place).drawings.values():
            try:
                draw_vector(drawing.body, (drawing.width, drawing.height), 32)
            except ZooError as error:
                if not str(error).isprintable():
                    raise

    return Form(json.dumps(seed).encode(), read)
