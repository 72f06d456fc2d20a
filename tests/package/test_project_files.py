"""The metadata in pyproject.toml agrees with the repository."""

from folders import ROOT
from setuptools.config.pyprojecttoml import load_file

SETTINGS = load_file(ROOT / "pyproject.toml")


def test_every_folder_of_modules_is_installed() -> None:
    homes = SETTINGS["tool"]["setuptools"]["package-dir"]
    folders = {base.replace(".", "/"): ROOT / folder for base, folder in homes.items()}
    found = {
        f"{base}/{file.parent.relative_to(folder)}".removesuffix("/.").replace("/", ".")
        for base, folder in folders.items()
        for file in folder.rglob("__init__.py")
    }
    assert {*SETTINGS["tool"]["setuptools"]["packages"]} == found
