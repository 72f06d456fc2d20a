"""Make the two drawn datasets from packages, which are fetched and unpacked, not installed.

    python benchmarks/make_letters.py --output data
    python benchmarks/make_letters.py --output data --only emoji

``letters_fonts.json`` lists the font packages of Debian 12 (281 MB) with versions and digests, and the families that
were left out by eye: pictures in place of letters, runes, capitals for small letters. ``apt-get`` must know the
packages (``apt-get update``). Drawings come from npm. With the versions of Pillow, FreeType and resvg named below, the
files are the same, byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

LIST = Path(__file__).with_name("letters_fonts.json")
DRAWINGS = (
    ("noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    ("twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    ("fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    ("openmoji", "1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"),
)
"""Packages @iconify-json/NAME: name, version and SHA-256 of the archive; the last but one is for validation."""

MADE = {
    "letters.safetensors": "f65d63b2878f57f36213f9728151520c7c555ea9786c11dd77eade80bbb62de7",
    "emoji.safetensors": "727ff4bf3e8d58110c11d869d2f3707c773c1546628b9ef554a442ae0b19a2f7",
}
"""SHA-256 of the files made with Pillow 13.0.0 (FreeType 2.14.3) and resvg-py 0.5.0."""

_AT_ONCE = 40
_QUIET = ("--quiet=2", "-o", "APT::Sandbox::User=root")  # no warning that it writes as who calls it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("data"), help="folder for the two files")
    parser.add_argument("--only", choices=("letters", "emoji"), help="make one of them")
    parser.add_argument("--packages", type=Path, help="keep the fetched packages in this folder, and use those there")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="letters-") as name:
        fetched = (options.packages or Path(name, "packages")).absolute()
        fetched.mkdir(parents=True, exist_ok=True)
        if options.only != "emoji":
            make_letters(fetched, Path(name, "fonts"), options.output / "letters.safetensors")
        if options.only != "letters":
            make_emoji(fetched, Path(name, "drawings"), options.output / "emoji.safetensors")


def make_letters(fetched: Path, unpacked: Path, output: Path) -> None:
    """Fetch and unpack the fonts, and draw them."""
    told = json.loads(LIST.read_text())
    packages = {f"{name}={version}": digest for name, version, digest in told["packages"]}
    missing = [package for package in packages if not _archive(fetched, package)]
    for start in range(0, len(missing), _AT_ONCE):
        _run("apt-get", *_QUIET, "download", *missing[start : start + _AT_ONCE], cwd=fetched)
    for package, digest in packages.items():
        archive = _archive(fetched, package)
        if archive is None:
            sys.exit(f"{package}: was not fetched")
        _check(archive, digest)
        (unpacked / package).mkdir(parents=True)
        _run("dpkg", "-x", str(archive), str(unpacked / package))
    without = [word for family in told["without"] for word in ("--without", family)]
    _draw("letters", "--fonts", str(unpacked), *without, output=output)


def make_emoji(fetched: Path, unpacked: Path, output: Path) -> None:
    """Fetch and unpack the drawings, and draw them; the last vendor is held out for test."""
    options = []
    for name, version, digest in DRAWINGS:
        archive = fetched / f"iconify-json-{name}-{version}.tgz"
        if not archive.exists():
            _run("npm", "pack", "--silent", f"@iconify-json/{name}@{version}", cwd=fetched)
        _check(archive, digest)
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked / name, filter="data")
        options += ["--drawings", f"{name}={unpacked / name / 'package'}"]
    _draw("emoji", *options, "--held-out", DRAWINGS[-1][0], output=output)


def _archive(folder: Path, package: str) -> Path | None:
    """The fetched package ``NAME=VERSION``, whose file escapes the colon of an epoch."""
    name, _, version = package.partition("=")
    return next(folder.glob(f"{name}_{version.replace(':', '%3a')}_*.deb"), None)


def _check(archive: Path, digest: str) -> None:
    if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != digest:
        sys.exit(f"{archive.name}: has the SHA-256 {found}, not {digest}")


def _draw(kind: str, *options: str, output: Path) -> None:
    _run(sys.executable, "-m", "fbnetv3_zoo", "data", kind, *options, "--output", str(output))
    found = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {'as recorded' if found == MADE[output.name] else f'{found}, not as recorded'}")


def _run(*command: str, cwd: Path | None = None) -> None:
    if shutil.which(command[0]) is None:
        sys.exit(f"no {command[0]} here")
    if code := subprocess.run(command, cwd=cwd, check=False).returncode:
        sys.exit(f"{command[0]} ended with exit code {code}")


if __name__ == "__main__":
    main()
