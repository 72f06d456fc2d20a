"""detectron2's Python tree for tests: downloaded by pip, its digest checked, unpacked in the environment's folder.

The index has no detectron2, but an sdist of its 0.6 tree without the C++ sources. What that misses is filled here: an
extension module that only tells versions, Caffe2, which torch no longer has, a name that Pillow has dropped. Python
takes ``sitecustomize`` from the folder when it is on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from filelock import FileLock

SDIST, SHA256 = "pb1-detectron2==0.6", "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
FOLDER = Path(sys.prefix) / "detectron2-0.6"

EXTENSION = """
def get_compiler_version():
    return "none"


def get_cuda_version():
    return "none"
"""
HOLES = """
import sys
from types import ModuleType

import PIL.Image

PIL.Image.LINEAR = PIL.Image.BILINEAR


class Hole(ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


for name in ("", ".proto", ".proto.caffe2_pb2", ".python", ".python.core", ".python.utils", ".python.net_drawer",
             ".python.workspace"):
    hole = sys.modules["caffe2" + name] = Hole("caffe2" + name)
    above, _, last = hole.__name__.rpartition(".")
    if above:
        setattr(sys.modules[above], last, hole)
"""


def installed() -> Path:
    """The folder with ``detectron2/`` and its ``tools/``, made where it is not there."""
    with FileLock(f"{FOLDER}.lock"):
        if not FOLDER.exists():
            _install(FOLDER.with_suffix(".part"))
    return FOLDER


def _install(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, "--no-build-isolation", "--dest", part, SDIST], check=True)
    (archive,) = part.glob("*.tar.gz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert found == SHA256, f"{archive.name} has SHA-256 {found}, not {SHA256}"
    with tarfile.open(archive) as tar:
        tar.extractall(part, filter="data")
    (inner,) = (path for path in part.iterdir() if path.is_dir())
    for name in ("detectron2", "tools"):
        (inner / name).rename(part / name)
    shutil.rmtree(inner)
    (part / "detectron2" / "_C.py").write_text(EXTENSION)
    (part / "sitecustomize.py").write_text(HOLES)
    part.rename(FOLDER)


def environment(data: Path) -> dict[str, str]:
    """Variables under which Python finds detectron2, it finds our parts, and data sets lie in ``data``."""
    return {
        **os.environ,
        "PYTHONPATH": str(installed()),
        "PYTHONWARNINGS": "ignore",  # its own, of 2021
        "DETECTRON2_ENV_MODULE": "fbnetv3_zoo.detection.detectron2.environment",
        "DETECTRON2_DATASETS": str(data),
        "OMP_NUM_THREADS": "1",
    }


if __name__ == "__main__":
    print(installed())
