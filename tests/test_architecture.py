"""Imports point down one written order, and importing the package loads little."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "mspace"
ORDER = [
    "threads",
    "checks",
    "_files",
    "_linalg",
    "notebooks",
    "tables",
    "series",
    "ssa",
    "neurons",
    "training",
    "models",
    "alignment",
    "covariance",
    "metrics",
    "clustering",
    "communities",
    "selection",
    "reduction",
    "distillation",
    "datasets",
    "plot",
    "flipbook",
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
