"""Imports point down one written order, and importing the package loads little."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "mspace"
ORDER = [
    "threads",
    "checks",
    "_files",
    "_linalg",
    "series",
    "ssa",
    "network",
    "neurons",
    "door",
    "_memory",
    "_identity",
    "training",
    "alignment",
    "models",
    "posterior",
    "diagnose",
    "metrics",
    "clustering",
    "selection",
    "reduction",
    "distillation",
    "datasets",
]  # a module may import those before it


def imported(path):
    """Modules of this package that a source file imports, as paths from the package."""
    inside = path.relative_to(PACKAGE).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = inside[: len(inside) - node.level]
            names = [node.module] if node.module else [a.name for a in node.names]
            yield from (".".join([*base, n]) for n in names)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            yield from (n.partition(".")[2] for n in names if n.split(".")[0] == "mspace")


def test_imports_point_down():
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if own == "__init__":
            continue
        assert own in ORDER, f"mspace/{own}: give it a place in the order"
        for name in imported(path):
            other = name.split(".")[0]
            assert other in ORDER, f"mspace/{other}: give it a place in the order"
            assert ORDER.index(other) <= ORDER.index(own), f"{path.name} imports {other}, which stands above {own}"


def test_modules_import_in_no_circle():
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set(imported(path))
    assert "ssa.hankel" in graph["ssa.decomposition"]
    TopologicalSorter(graph).prepare()  # a circle is a CycleError, which names its modules


def test_import_is_light():
    heavy = "matplotlib sklearn pandas networkx joblib pooch PIL seglearn mlxtend pydicom torchdiffeq IPython".split()
    code = f"import sys, mspace; print(*[m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_every_public_name_exists():
    import mspace

    assert all(hasattr(mspace, name) for name in mspace.__all__)


def test_what_only_the_book_needs_is_in_no_wheel_of_the_package():
    import setuptools

    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = setuptools.find_packages(str(PACKAGE.parent), **declared["packages"]["find"])
    assert "mspace" in found and all(name.split(".")[0] == "mspace" for name in found)
    assert not [path for path in PACKAGE.rglob("*.py") if "kit" in {n.split(".")[0] for n in all_imported(path)}]


def all_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


LOOKS_INSIDE = re.compile(r"named_modules\(|named_children\(|\._modules\b|register_\w*hook\(|\bparametrize\.")


def test_only_network_looks_into_modules():
    """What a network is made of is asked in one place; models, which are examples, may look into themselves."""
    allowed = ("network", "models")
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in allowed:
            found = [line for line in path.read_text().splitlines() if LOOKS_INSIDE.search(line) and '"' not in line]
            assert not found, f"{path.name} looks into modules: {found}"


def test_the_core_knows_no_model():
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        used = {name.split(".")[0] for name in imported(path)}
        assert own in ("models", "datasets") or "models" not in used, f"{path.name} imports a model"


def test_no_private_name_crosses_files():
    sys.path.insert(0, str(PACKAGE.parent / "tools"))
    import measure

    assert measure.private_imports(measure.modules(PACKAGE)) == []


def test_the_tree_in_the_guide_is_that_of_the_package():
    """`python tools/measure.py --tree` prints it."""
    sys.path.insert(0, str(PACKAGE.parent / "tools"))
    import measure

    assert measure.tree() in (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
