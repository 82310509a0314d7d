"""The house: what may import what, and what an import costs."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / "fastnn"

FLOORS = [
    {
        "checks",
        "compilations",
        "guards",
        "habits",
        "extras",
        "interrupts",
        "locks",
        "markdown",
        "processors",
        "registry",
        "scores",
        "unpacking",
    },
    {"augmentation", "memory", "backends", "datasets", "initializers", "schedules"},
    {"loss_functions", "losses", "optimizers"},
    {"parameters"},
    {"layers"},
    {"activations", "dropout", "normalization", "propagation"},
    {"paths", "samples", "saving"},
    {"blocks", "hints", "sequential"},
    {"callbacks", "interchange", "plotting", "progress"},
    {"divergence"},
    {"training"},
    {"checkpoints"},
    {"fitting"},
    {"network"},
    {"functional", "gradcheck", "loading", "many", "settings"},
    {"bench", "images", "page", "prediction", "sheet", "sklearn", "sweep", "tables"},
    {"cli"},
    {"__main__"},
]
"""From the cellar up. A module imports from lower floors, or its own floor."""

NUMBA_FLOORS = [
    {"machine", "system"},
    {"language"},
    {"checked"},
    {"microkernel"},
    {"compiling"},
    {"jit"},
    {"kernels"},
    {"layerwise", "epoch"},
    {"info", "__init__"},
]
"""The same inside the Numba backend, whose two wings don't know each other."""


def floor(module: str, floors=FLOORS) -> int:
    return next(i for i, names in enumerate(floors) if module in names)


def imports(path) -> set[str]:
    """Return the names that a file imports, as absolute ones, outside `if TYPE_CHECKING`."""
    package = ("fastnn", *path.relative_to(PACKAGE).parent.parts)
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, node.module) if node.module else above)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_a_floor():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules == set().union(*FLOORS)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_imports_point_down(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        pytest.skip("the public names")
    for name in imports(path):
        target = name.split(".")
        if target[0] == "fastnn" and len(target) > 1 and target[1] in set().union(*FLOORS):
            assert floor(target[1]) <= floor(parts[0]), f"{path.name} imports {name}"


def test_imports_go_in_no_circle():
    names = {path: path.relative_to(ROOT).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    modules = {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}

    def module(name: str) -> str:
        """Return the module that `name` is, or is in; nothing where it is not in fastnn."""
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    # Python runs a package before the modules in it. They don't import its names, so it counts not.
    graph = {name: {module(of) for of in imports(path)} for name, path in modules.items()}
    assert len(graph["fastnn"]) > 10
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_rooms_of_the_numba_backend():
    inside = PACKAGE / "backends" / "numba_backend"
    names = {path.stem for path in inside.glob("*.py")}
    names |= {path.parent.name for path in inside.glob("*/__init__.py")}
    assert names == set().union(*NUMBA_FLOORS)
    assert len(list(inside.glob("*.py"))) <= 8
    for folder in inside.glob("*/__init__.py"):
        assert ast.get_docstring(ast.parse(folder.read_text())), f"{folder} says what is in it"


@pytest.mark.parametrize(
    "path",
    sorted((PACKAGE / "backends" / "numba_backend").rglob("*.py")),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_imports_point_down_in_the_numba_backend(path):
    inside = ("fastnn", "backends", "numba_backend")
    room = path.relative_to(PACKAGE).with_suffix("").parts[2]
    for name in imports(path):
        target = name.split(".")
        elsewhere = tuple(target[:3]) == inside and len(target) > 3 and target[3] != room
        if elsewhere and target[3] in set().union(*NUMBA_FLOORS):
            assert floor(target[3], NUMBA_FLOORS) < floor(room, NUMBA_FLOORS), name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_numba_has_one_room(path):
    """It is imported when something is compiled, or asked for what it is told."""
    libraries = {n.split(".")[0] for n in imports(path)} & {"numba", "llvmlite"}
    if "numba_backend" not in path.parts:
        assert not libraries
    if "numba" in libraries:
        assert path.name in (
            "frontend.py", "intrinsics.py", "lean.py", "machine.py", "presence.py",
        )  # fmt: skip


def test_import_is_light():
    code = (
        "import sys, numpy\n"
        "known = set(sys.modules)\n"  # in some releases its random numbers too
        "import fastnn\n"
        "heavy = {'numba', 'sklearn', 'matplotlib', 'torch', 'jax', 'scipy', 'safetensors', 'tqdm',"
        " 'IPython', 'onnx',"
        " 'numpy.random'} & (set(sys.modules) - known)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)
