"""Which module may import which (ARCHITECTURE.md), what an import costs, and how large a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

import pytest
from folders import ROOT

import fbnetv3_zoo

HOMES = {"": ROOT / "fbnetv3_zoo", **{room: ROOT / room for room in ("search", "detection", "export")}}

# A part of the core (a file, or a folder) or another room, and what it may import besides itself.
VALUES = {"errors", "utils", "arch"}
NETWORKS = {*VALUES, "zoo", "images", "preprocess", "description", "models", "weights", "factory"}
MAY_IMPORT = {
    "errors": set(),
    "utils": {"errors"},
    "arch": {"errors", "utils"},
    "images": {"errors", "utils"},
    "recipes": {"errors", "utils"},
    "report": {"errors", "utils"},
    "zoo": VALUES,
    "preprocess": {*VALUES, "zoo", "images"},
    "description": {*VALUES, "preprocess"},
    "runtimes": {*VALUES, "preprocess", "description"},
    "models": {*VALUES, "preprocess", "description"},
    "weights": {*VALUES, "zoo", "preprocess", "description", "models"},
    "factory": NETWORKS,
    "timm": NETWORKS,
    "classify": {*NETWORKS, "runtimes"},
    "training": {*NETWORKS, "recipes", "report", "runtimes", "classify"},
    "search": {*NETWORKS, "recipes", "report", "training"},
    "detection": {*NETWORKS, "recipes", "report", "runtimes", "training"},
    "export": {*NETWORKS, "report", "runtimes", "classify"},
    "cli": {*NETWORKS, "recipes", "report", "runtimes", "classify", "training", "search", "detection", "export"},
    "__main__": {"cli"},
}
ROOMS = ("search", "detection", "export")
WITHOUT_TORCH = [
    "errors", "arch.rows", "arch.arch", "arch.cost", "arch.latency", "zoo", "recipes.recipe", "recipes.presets",
    "preprocess.preprocess", "description", "utils.paths", "utils.serialization", "utils.hardware",
    "utils.atomic_write", "weights.registry", "weights.cache",
]  # fmt: skip


def _modules() -> dict[str, Path]:
    """Every library file by its dotted name after ``fbnetv3_zoo``."""
    found = {}
    for room, folder in HOMES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [room, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(part for part in parts if part and part != "__init__")] = path
    return found


MODULES = _modules()


def _public(room: str) -> dict[str, str]:
    """The public names of a room and the modules that they come from, as its stub lists them."""
    stub = ast.parse((HOMES[room] / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {str(alias.asname): str(node.module or alias.name) for node in imports for alias in node.names}


PUBLIC = {room: _public(room) for room in HOMES}


def _statements(module: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, list[str]]]:
    """Every import in ``module``, wherever in its code, with the full names of the modules that it names."""
    parts = ["fbnetv3_zoo", *filter(None, module.split("."))]
    package = parts if MODULES[module].name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield node, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            inside = [f"{base}.{alias.name}" for alias in node.names]
            known = [name for name in inside if name.removeprefix("fbnetv3_zoo.") in MODULES]
            yield node, known + [base] * (len(known) < len(inside) and base != "fbnetv3_zoo")
            if base == "fbnetv3_zoo":
                yield node, [name for name in inside if name not in known]


def _imported(module: str) -> Iterator[str]:
    """What ``module`` imports of this package, by its name after ``fbnetv3_zoo``; public names by their homes."""
    for _, names in _statements(module):
        for name in names:
            if re.match(r"fbnetv3_zoo(\.|$)", name):
                inside = name.removeprefix("fbnetv3_zoo").removeprefix(".")
                yield PUBLIC[""].get(inside, inside)
            elif name.split(".")[0] in ROOMS:
                raise AssertionError(f"fbnetv3_zoo.{module} imports {name} by its folder")


def _room(module: str) -> str:
    first = module.split(".")[0]
    return first if first in ROOMS else "core"


@pytest.mark.parametrize("module", [module for module in MODULES if ".configs" not in module])
def test_imports_are_relative_inside_a_room_and_absolute_between_rooms(module: str) -> None:
    for node, names in _statements(module):
        inside = [name.removeprefix("fbnetv3_zoo.") for name in names if name.startswith("fbnetv3_zoo.")]
        if not inside or MODULES[module].name == "worker.py":  # which is run as a script
            continue
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        assert {_room(name) == _room(module) for name in inside} == {relative}, ast.unparse(node)


def test_no_circle_between_files() -> None:
    """As Python imports them: what is imported when a file is, leaving out functions and TYPE_CHECKING."""
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        tree = ast.parse(MODULES[module].read_text())
        lines = {node.lineno for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
        names = {name for node, names in _statements(module) if node.lineno in lines for name in names}
        known = {name.removeprefix("fbnetv3_zoo.") for name in names if name.startswith("fbnetv3_zoo.")}
        graph[module] = {name for name in known if name in MODULES and name != module}
    tuple(TopologicalSorter(graph).static_order())


def test_folders_are_small() -> None:
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in MODULES.values())
    assert {folder: count for folder, count in counts.items() if count > 20} == {}


def test_every_room_is_known() -> None:
    assert {module.split(".")[0] for module in MODULES if module} <= MAY_IMPORT.keys()
    assert len(MODULES) > 20


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_arrows(module: str) -> None:
    room = module.split(".")[0]
    reached = {name.split(".")[0] for name in _imported(module)} - {room}
    wrong = reached - MAY_IMPORT[room]
    assert not wrong, f"fbnetv3_zoo.{module} must not import {sorted(wrong)}"


def test_arrows_have_no_circle() -> None:
    order = list(TopologicalSorter({room: allowed - {room} for room, allowed in MAY_IMPORT.items()}).static_order())
    assert order[-2:] == ["cli", "__main__"]


@pytest.mark.parametrize(
    ("name", "line"),
    [("weights.state_dict", "from ..factory import create"), ("zoo", "import fbnetv3_zoo.models.fbnet")],
)
def test_a_wrong_arrow_would_be_found(name: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / MODULES[name].name
    file.write_text(f"def late() -> None:\n    {line}\n")
    monkeypatch.setitem(MODULES, name, file)
    with pytest.raises(AssertionError, match=f"fbnetv3_zoo.{name} must not import"):
        test_arrows(name)


def _loaded_after(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_itself_costs_nothing() -> None:
    loaded = _loaded_after("import fbnetv3_zoo; fbnetv3_zoo.__all__, dir(fbnetv3_zoo)")
    assert not loaded & {"torch", "numpy", "PIL", "onnx", "onnxruntime", "fbnetv3_zoo.arch"}


def test_values_work_without_torch() -> None:
    known = [name for name in WITHOUT_TORCH if name in MODULES]
    loaded = _loaded_after("\n".join(f"import fbnetv3_zoo.{name}" for name in known))
    assert {f"fbnetv3_zoo.{name}" for name in known} <= loaded
    assert not loaded & {"torch", "torchvision"}


def test_values_compute_without_torch() -> None:
    loaded = _loaded_after(
        "from PIL import Image\n"
        "from fbnetv3_zoo import Preprocess, cost_of, list_models\n"
        "from fbnetv3_zoo.zoo import ARCHS\n"
        "cost_of(ARCHS[list_models()[0]])\n"
        "Preprocess.for_arch(ARCHS['fbnetv3_a']).array(Image.new('RGB', (300, 300)))"
    )
    assert not loaded & {"torch", "torchvision"}


@pytest.mark.parametrize("name", fbnetv3_zoo.__all__)
def test_public_names_resolve(name: str) -> None:
    value = getattr(fbnetv3_zoo, name)
    other = {"create_model": "create", "list_pretrained": "list_weights"}
    assert value.__name__.removeprefix("fbnetv3_zoo.") == other.get(name, name)
    assert value.__doc__
    assert name in dir(fbnetv3_zoo)


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_of_rooms_resolve_on_first_use(room: str) -> None:
    """They are those that the type checker sees; and importing the room imports no torch."""
    module = import_module(f"fbnetv3_zoo.{room}")
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert PUBLIC[room].keys() == set(module.__all__)
    assert "torch" not in _loaded_after(f"import fbnetv3_zoo.{room}")


def test_rooms_are_attributes_of_the_package() -> None:
    loaded = _loaded_after("import fbnetv3_zoo as zoo; zoo.export.quantize, zoo.search.SPACES, zoo.detection.DETECTORS")
    assert "fbnetv3_zoo.export.quantization.quantize" in loaded


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="No fbnetv3_zoo attribute Arhc"):
        fbnetv3_zoo.Arhc  # noqa: B018


NEED_DETECTRON2 = {
    "detection.detectron2.modules",
    *(module for module in MODULES if module.startswith("detection.configs.")),
}


# Those that need detectron2: tests/detection/test_detectron2.py
@pytest.mark.parametrize("module", [m for m in MODULES if m not in NEED_DETECTRON2])
def test_modules_have_a_docstring_and_can_be_imported(module: str) -> None:
    assert import_module(f"fbnetv3_zoo.{module}".rstrip(".")).__doc__


def test_no_module_bears_the_name_of_another() -> None:
    """Of files alone: a script's folder comes first on the path. Folders may, as ``search/executors/ray`` does."""
    names = {re.split(r"[^\w-]", entry)[0].replace("-", "_") for entry in requires("fbnetv3-zoo") or []}
    assert {"torch", "onnx", "hypothesis"} <= names
    taken = {*names, *sys.stdlib_module_names, "PIL", "sklearn", "skimage", "detectron2"}
    assert not {path.stem for path in MODULES.values()} & taken


def test_files_are_short() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 400} == {}


def test_nothing_else_is_installed_at_top_level() -> None:
    for room in ("search", "detection", "export"):
        spec = import_module(f"fbnetv3_zoo.{room}").__spec__
        assert spec is not None
        assert Path(str(spec.origin)).parent == ROOT / room
    outside = "import importlib.util as u; print([n for n in ('search', 'detection', 'export') if u.find_spec(n)])"
    done = subprocess.run([sys.executable, "-c", outside], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


def test_a_checkout_is_whole_without_being_installed() -> None:
    """As for whoever installs the wheel and then runs Python, or a Ray worker, in the folder of the checkout."""
    bare = (
        "import sys\n"
        "sys.meta_path = [one for one in sys.meta_path if '__editable__' not in getattr(one, '__module__', '')]\n"
        "import fbnetv3_zoo.search.journal, fbnetv3_zoo.detection, fbnetv3_zoo.export\n"
        "print(fbnetv3_zoo.search.journal.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True, cwd=ROOT)
    assert Path(done.stdout.strip()) == ROOT / "search" / "journal.py"
