"""Workflows, issue forms, citation, conda recipe, manifest and metadata agree with one another; torch.hub's list."""

from __future__ import annotations

import re
import runpy
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from folders import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from setuptools.command.egg_info import FileList
from setuptools.config.pyprojecttoml import load_file

import fbnetv3_zoo

SETTINGS = load_file(ROOT / "pyproject.toml")
PROJECT: dict[str, Any] = SETTINGS["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
PYTHONS = [f"3.{minor}" for minor in range(30) if SpecifierSet(PROJECT["requires-python"]).contains(f"3.{minor}.0")]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PERMISSIONS = {"package": {"id-token": "write"}, "docs": {"id-token": "write", "pages": "write"}}
"""Of the jobs that publish, by workflow."""
CONDA_NAMES = {"lazy_loader": "lazy-loader", "matplotlib": "matplotlib-base", "torch": "pytorch"}


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _steps(workflow: Any) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def _pythons(value: Any) -> Iterator[object]:
    """The Python versions anywhere in a workflow, leaving out expressions."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in ("python", "python-version"):
                yield from (one for one in (below if isinstance(below, list) else [below]) if "${{" not in str(one))
            else:
                yield from _pythons(below)
    elif isinstance(value, list):
        for below in value:
            yield from _pythons(below)


def test_classifiers_agree_with_the_required_python() -> None:
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert named == PYTHONS
    assert not [name for name in PROJECT["classifiers"] if name.startswith("License ::")]  # `license` says it


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(path: Path) -> None:
    workflow = _yaml(path)
    assert {True, "name", "permissions", "concurrency", "jobs"} <= workflow.keys()  # YAML reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job, name
        assert job.get("permissions", {}) == (PERMISSIONS[path.stem] if name == "publish" else {}), name
    for step in _steps(workflow):
        assert re.fullmatch(r"[\w./-]+@(v\d+|release/v1)", step.get("uses", "a/b@v1")), step
    assert {*_pythons(workflow)} <= {*PYTHONS}


def test_every_python_is_tested() -> None:
    matrix = _yaml(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    ends = {PYTHONS[0], PYTHONS[-1]}
    for system in ("ubuntu-24.04-arm", "macos-15"):
        assert {entry["python"] for entry in matrix["include"] if entry["os"] == system} == ends
    assert {*_pythons(_yaml(ROOT / ".github" / "workflows" / "package.yml")["jobs"]["install"])} == ends


def test_makefile_has_what_workflows_make() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {
        target
        for path in WORKFLOWS
        for step in _steps(_yaml(path))
        for target in re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.MULTILINE)
    }
    assert made == {"lint", "test", "test-long", "docs"} <= targets


def test_badges_are_of_workflows() -> None:
    text = (ROOT / "README.md").read_text()
    addresses = dict(re.findall(r"^\[(.+)\]: (.+)$", text, re.MULTILINE))
    badges = re.findall(r"\[!\[([^]]+)\]\[([^]]+)\]\]\[([^]]+)\]", text)
    assert len(badges) == len(addresses) / 2 == len(WORKFLOWS)
    for name, badge, target in badges:
        file = addresses[target].removeprefix(f"{REPOSITORY}/actions/workflows/")
        assert addresses[badge] == f"{addresses[target]}/badge.svg"
        assert name == _yaml(ROOT / ".github" / "workflows" / file)["name"]


def test_only_a_tag_is_published() -> None:
    publish = _yaml(ROOT / ".github" / "workflows" / "package.yml")["jobs"]["publish"]
    assert "github.ref_type == 'tag'" in publish["if"]
    assert not [step for step in publish["steps"] if "run" in step or "password" in step.get("with", {})]


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_issue_form(path: Path) -> None:
    form = _yaml(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [entry for entry in form["body"] if entry["type"] != "markdown"]
    assert len({entry["id"] for entry in fields}) == len(fields)
    assert all(entry["attributes"]["label"] for entry in fields)


def test_bugs_are_reported_with_the_version() -> None:
    fields = {entry["id"]: entry for entry in _yaml(FORMS[0])["body"] if "id" in entry}
    assert "`fbnetv3 --version`" in fields["version"]["attributes"]["description"]
    assert all(fields[name]["validations"]["required"] for name in ("version", "command", "output"))


def test_the_version_is_the_same_everywhere() -> None:
    assert fbnetv3_zoo.__version__ == PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = [name for name in re.findall(r"^## (.+)$", changelog, re.MULTILINE) if name != "Unreleased"]
    assert released[0] == PROJECT["version"]


def test_citation() -> None:
    citation = _yaml(ROOT / "CITATION.cff")
    assert (citation["version"], citation["title"]) == (PROJECT["version"], PROJECT["name"])
    assert (citation["license"], citation["repository-code"]) == (PROJECT["license"], REPOSITORY)
    cited = [reference["identifiers"][0]["value"] for reference in citation["references"]]
    assert cited == ["arXiv:2006.02049", "arXiv:2004.05565", "arXiv:1812.03443"]


def test_conda_recipe_requires_what_the_package_does() -> None:
    recipe = _yaml(ROOT / "conda" / "recipe.yaml")
    context = recipe["context"]
    assert context["version"] == PROJECT["version"]
    assert PROJECT["requires-python"] == f">={context['python_min']},<{context['python_end']}"
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    lines = [f"{CONDA_NAMES.get(one.name, one.name)} {one.specifier}".strip() for one in wanted]
    assert sorted(recipe["requirements"]["run"][1:]) == sorted(lines)
    entry_points = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == entry_points


def test_all_name_the_same_repository() -> None:
    _, _, owner, name = REPOSITORY.rsplit("/", 3)
    urls = {**PROJECT["urls"]}
    assert urls.pop("Documentation") == f"https://{owner}.github.io/{name}/"
    assert all(url.startswith(REPOSITORY) for url in urls.values())
    files = [*ROOT.glob("*.md"), ROOT / "CITATION.cff", ROOT / "Dockerfile", *(ROOT / "conda").iterdir(), *FORMS]
    for path in files:
        for url in re.findall(rf"https://github\.com/[\w.-]+/{PROJECT['name']}", path.read_text(encoding="utf-8")):
            assert url == REPOSITORY, path


def test_links_on_the_package_page_are_absolute() -> None:
    absolute = runpy.run_path(str(ROOT / "setup.py"))["absolute"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = set(re.findall(r"\]\((?!https?:)([^)]+)\)", readme))
    assert {"docs/training.md", "CONTRIBUTING.md", "LICENSE"} <= relative
    assert [link for link in relative if not (ROOT / link).exists()] == []
    assert re.findall(r"^\[\w+\]: (?!https:)", readme, re.MULTILINE) == []
    page = absolute(readme, "1.2", "https://example.org/zoo")
    assert re.findall(r"\]\((?!https?:)", page) == []
    assert "(https://example.org/zoo/blob/v1.2/docs/training.md)" in page
    assert "](https://example.org/zoo/raw/v1.2/docs/networks.png)" in page
    assert absolute("[a](#b) [c](https://d.e/f)", "1.2", "https://g.h") == "[a](#b) [c](https://d.e/f)"


def _manifest(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files that MANIFEST.in selects."""
    monkeypatch.chdir(ROOT)
    files = FileList()
    files.allfiles = []  # `global-exclude` looks at the selected files only
    for line in Path("MANIFEST.in").read_text().splitlines():
        if line and not line.startswith("#"):
            files.process_template_line(line)
    return {Path(name).as_posix() for name in files.files}


def _packaged(name: str) -> bool:
    """Whether setuptools takes the file as part of a package."""
    folders = SETTINGS["tool"]["setuptools"]["package-dir"]
    for package in SETTINGS["tool"]["setuptools"]["packages"]:
        base = next(base for base in sorted(folders, key=len, reverse=True) if f"{package}.".startswith(f"{base}."))
        folder = folders[base] + package.removeprefix(base).replace(".", "/")
        if fnmatch(name, f"{folder}/*.py") and name.count("/") == folder.count("/") + 1:
            return True
    data = SETTINGS["tool"]["setuptools"]["package-data"]
    return any(fnmatch(name, f"{folders[package]}/{glob}") for package, globs in data.items() for glob in globs)


def test_every_folder_of_modules_is_installed() -> None:
    homes = SETTINGS["tool"]["setuptools"]["package-dir"]
    folders = {base.replace(".", "/"): ROOT / folder for base, folder in homes.items()}
    found = {
        f"{base}/{file.parent.relative_to(folder)}".removesuffix("/.").replace("/", ".")
        for base, folder in folders.items()
        for file in folder.rglob("__init__.py")
    }
    assert {*SETTINGS["tool"]["setuptools"]["packages"]} == found


def test_what_the_manifest_names_exists() -> None:
    lines = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines() if line[:1] not in ("", "#")]
    named = [name for command, *names in lines if command in ("include", "graft") for name in names]
    assert [name for name in named if "*" not in name and not (ROOT / name).exists()] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_the_source_distribution_has_all_that_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]
    selected = {*_manifest(monkeypatch), "MANIFEST.in", "pyproject.toml"}
    assert [name for name in tracked if name not in selected and not _packaged(name)] == []


def test_the_image_is_built_from_files_that_exist() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    assert [name for name in kept if not (ROOT / name).exists()] == []
    assert {*SETTINGS["tool"]["setuptools"]["package-dir"].values(), "pyproject.toml", "setup.py"} <= {*kept}


def test_torch_hub_lists_the_networks_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_, **__: str(ROOT))
    names = torch.hub.list("owner/name", skip_validation=True, trust_repo=True)
    assert sorted(names) == sorted(fbnetv3_zoo.list_models())
    assert "pretrained=" in torch.hub.help("owner/name", "fbnetv3_a", skip_validation=True, trust_repo=True)
