"""The package's description for the index: README.md with its links made absolute; all else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup
from setuptools.config.pyprojecttoml import load_file

ROOT = Path(__file__).parent


def absolute(text: str, version: str, repository: str) -> str:
    """``text`` with links to files of the repository replaced by links to them at the tag of ``version``.

    Pictures are linked as the file alone, other files as the page that shows them.
    """
    relative = r"\((?!https?:|#|mailto:)([^)\s]+)\)"
    text = re.sub(rf"(!\[[^\]]*\]){relative}", rf"\1({repository}/raw/v{version}/\2)", text)
    return re.sub(rf"\]{relative}", rf"]({repository}/blob/v{version}/\1)", text)


if __name__ == "__main__":
    project = load_file(ROOT / "pyproject.toml")["project"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=absolute(readme, project["version"], project["urls"]["Repository"]),
        long_description_content_type="text/markdown",
    )
