"""Does a release install and work on every Python? From the sdist a wheel, a fresh environment, README's first block.

    python benchmarks/fresh_install.py                                       # on the Python that runs it
    python benchmarks/fresh_install.py --python python3.10 --python python3.14
    python benchmarks/fresh_install.py --wheel dist/*.whl                    # one that is built already

The wheel is built once, by the package `build`, which the Python that runs this script must have. For each Python, a
new environment gets PyTorch (from --torch-index, where one is given), the wheel and what it requires; `pip check` must
find nothing, `fbnetv3 --version` and `fbnetv3 list` must work, and README's first block is run with the package's own
network, outside the checkout. For a Python that is in a chroot, run the script there, with --wheel.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path) -> str:
    """What a command prints; ends the program if it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = list(map(str, command))
    ended = subprocess.run(
        words, cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"{' '.join(words)} ended with {ended.returncode}:\n{ended.stdout}")
    return ended.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel, made from the sdist."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def first_block() -> str:
    """README's first block of Python, with the network that needs no download."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return re.sub(r"\bfbnetv3_[a-g]\b", "fbnetv3_nano", blocks[0])


def check(python: str, wheel: Path, folder: Path, torch_index: str | None) -> str:
    """Install the wheel for ``python`` into a new environment in ``folder`` and use it. Returns what was seen."""
    began = time.monotonic()
    run(python, "-m", "venv", folder / "fresh", cwd=folder)
    programs = folder / "fresh" / "bin"
    pip = (programs / "python", "-m", "pip")
    index = ("--index-url", torch_index) if torch_index else ()
    run(*pip, "install", "--quiet", "torch", "torchvision", *index, cwd=folder)
    run(*pip, "install", "--quiet", wheel, cwd=folder)
    run(*pip, "check", cwd=folder)
    version = run(programs / "fbnetv3", "--version", cwd=folder).strip()
    networks = run(programs / "fbnetv3", "list", cwd=folder)
    if "fbnetv3_a" not in networks:
        sys.exit(f"{python}: fbnetv3 list shows\n{networks}")
    picture = "from PIL import Image; Image.new('RGB', (40, 40), 'gray').save('cat.jpg')"
    run(programs / "python", "-c", picture, cwd=folder)
    (folder / "block.py").write_text(first_block())
    label = run(programs / "python", "block.py", cwd=folder).splitlines()[0]
    if not [*folder.glob("*.onnx")]:
        sys.exit(f"{python}: README's first block wrote no ONNX file")
    about = "import platform, torch; print('Python', platform.python_version(), 'PyTorch', torch.__version__)"
    seen = run(programs / "python", "-c", about, cwd=folder).strip()
    return f"{seen}: {version}; README's block says {label!r} and writes ONNX; {time.monotonic() - began:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="a Python (again for others; default: the one running this)")
    parser.add_argument("--wheel", type=Path, help="use this wheel instead of building one")
    parser.add_argument("--torch-index", default=os.environ.get("TORCH_INDEX") or None, help="of small CPU builds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wheel = options.wheel.resolve() if options.wheel else build_wheel(Path(scratch))
        for python in options.python or [sys.executable]:
            with tempfile.TemporaryDirectory() as folder:
                print(check(python, wheel, Path(folder), options.torch_index), flush=True)


if __name__ == "__main__":
    main()
