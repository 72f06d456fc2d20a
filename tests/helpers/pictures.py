"""Small data sets: folders and tar files of pictures."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

_COUNT = itertools.count()
KINDS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "ppm": "PPM", "webp": "WEBP"}


def picture(seed: int, extension: str = "png", side: int = 12) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, KINDS[extension])
    return file.getvalue()


def tar(path: Path, files: Mapping[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file of these files, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def samples(start: int, count: int, classes: int = 3) -> dict[str, bytes]:
    """Files of samples with a class each."""
    files = {}
    for n in range(start, start + count):
        files[f"{n:04d}.png"] = picture(n)
        files[f"{n:04d}.cls"] = f"{n % classes}\n".encode()
    return files


def images(root: Path, *places: str, count: int = 5) -> Path:
    """Different small images in each of these folders of ``root``."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            Image.fromarray(np.full((4, 4, 3), next(_COUNT) % 251, np.uint8)).resize((4, 4 + n)).save(
                root / place / f"{n}.png"
            )
    return root


def labeled(root: Path, *splits: str) -> Path:
    return images(root, *(f"{split}/{name}" for split in splits for name in ("cat", "dog")))
