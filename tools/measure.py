"""Measure how thin the package is: size, public surface, files that a call enters, types.

    python tools/measure.py                this checkout
    python tools/measure.py PATH ...       other checkouts beside it, such as an older commit in a worktree
    python tools/measure.py --tree         the files of the package, each with the first line of its docstring

Counted: lines of Python with docstrings and blanks; names in ``__all__`` of the package, its subpackages and top-level
modules, each once; parameters with a default value in functions and public methods that these names reach; files of the
package that a call enters, by tracing it; errors of pyright in its standard mode, if it is installed.
"""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

CALLS = """
import json, os, sys, torch, torch.nn.functional as F
from torch import nn
import mspace as ms
root = os.path.dirname(ms.__file__)
x = torch.randn(60, 4, generator=ms.seeded(0))
y = (x[:, 0] > 0).long()
net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
tanh = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
data, double = (x, y), (x.double(), y)
prior = ms.drop_neurons(ms.laplace(tanh, double, F.cross_entropy), "0", "2", 3)
calls = {
    "fit": lambda: ms.fit(net, data, F.cross_entropy, epochs=1),
    "bootstrap": lambda: ms.bootstrap(net, data, F.cross_entropy, n_models=3, epochs=1),
    "sandwich": lambda: ms.sandwich(tanh, double, F.cross_entropy, damping=1e-3),
    "laplace": lambda: ms.laplace(tanh, double, F.cross_entropy),
    "distill": lambda: ms.distill(tanh, None, double, F.cross_entropy, prior=prior, epochs=1),
}
entered = {}
for name, call in calls.items():
    files = set()
    def note(frame, event, _):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(root) and not frame.f_code.co_name.startswith("<"):
            files.add(os.path.relpath(path, root))
    call()  # once before, so that what is imported late is not counted
    sys.setprofile(note)
    call()
    sys.setprofile(None)
    entered[name] = sorted(files)
print(json.dumps(entered))
"""


def modules(package: Path) -> dict[str, ast.Module]:
    """Return the syntax trees of a package by dotted name, "" for its face."""
    trees = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        trees[".".join(p for p in parts if p != "__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def listed(tree: ast.Module) -> set[str]:
    """Return the names in a module's ``__all__``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", None) == "__all__" for t in node.targets):
            return {name for name in ast.literal_eval(node.value) if not name.startswith("__")}
    return set()


def public(package: Path, trees: dict[str, ast.Module]) -> set[str]:
    """Return the names that users may import: of the package, its subpackages and its top-level modules."""
    faces = [n for n in trees if n == "" or (package / n.replace(".", "/")).is_dir() or "." not in n]
    return set().union(*(listed(trees[n]) for n in faces if not n.rpartition(".")[2].startswith("_")))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))


def optional(trees: dict[str, ast.Module], names: set[str]) -> int:
    """Count the parameters with a default of public functions, constructors and public methods."""
    count, seen = 0, set()
    for tree in trees.values():
        for node in tree.body:
            if node.__class__ in (*FUNCTIONS, ast.ClassDef) and node.name in names - seen:
                seen.add(node.name)
                own = [node] if not isinstance(node, ast.ClassDef) else _methods(node)
                for function in own:
                    arguments = function.args
                    count += len(arguments.defaults) + sum(d is not None for d in arguments.kw_defaults)
    return count


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [f for f in node.body if isinstance(f, FUNCTIONS) and (f.name == "__init__" or not f.name.startswith("_"))]


def private_imports(trees: dict[str, ast.Module]) -> list[str]:
    """Return names with an underscore that one file imports from another."""
    return [
        f"{name}: {alias.name}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("mspace"))
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__") and (node.module or "") != ""
    ]


def docstring_lines(tree: ast.Module) -> int:
    owners = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, *FUNCTIONS))]
    first = [n.body[0] for n in owners if n.body and ast.get_docstring(n, clean=False) is not None]
    return sum(node.end_lineno - node.lineno + 1 for node in first)


def body_length(function: ast.FunctionDef) -> int:
    """Return the lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def entered(checkout: Path) -> dict[str, list[str]]:
    """Return the files of the package that some calls enter."""
    done = subprocess.run([sys.executable, "-c", CALLS], cwd=checkout, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": [done.stderr.strip()[-300:]]}


def pyright(checkout: Path) -> str:
    """Return the number of errors of pyright in its standard mode over the package."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error", "mspace"],
            cwd=checkout, capture_output=True, text=True,
        )  # fmt: skip
        return str(json.loads(done.stdout)["summary"]["errorCount"])
    except (OSError, ValueError, KeyError):
        return "not installed"


def measured(checkout: Path) -> dict[str, object]:
    """Return the table's column of a checkout."""
    package = checkout / "mspace"
    trees = modules(package)
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in package.rglob("*.py")}
    total, longest = sum(sizes.values()), max(sizes, key=sizes.__getitem__)
    names = public(package, trees)
    bodies = [body_length(f) for tree in trees.values() for f in functions(tree)]
    calls = entered(checkout)
    return {
        "lines of Python": total,
        "files": len(sizes),
        "public names": len(names),
        "optional parameters": optional(trees, names),
        "median function, lines": statistics.median(bodies),
        "longest function, lines": max(bodies),
        "longest module, lines": f"{sizes[longest]} {longest.relative_to(package)}",
        "share of docstrings": f"{sum(map(docstring_lines, trees.values())) / total:.1%}",
        "private names imported": len(private_imports(trees)),
        **{f"files entered by {name}": len(files) for name, files in calls.items() if name != "failed"},
        **({"calls failed": calls["failed"][0]} if "failed" in calls else {}),
        "errors of pyright": pyright(checkout),
    }


def tree(package: Path = ROOT / "mspace") -> str:
    """Return the files of the package, indented by folder, each with the first sentence of its docstring."""
    lines = ["mspace/"]
    for path in sorted(package.rglob("*.py"), key=lambda p: (p.relative_to(package).parts[:-1], p.name)):
        depth = len(path.relative_to(package).parts)
        if depth > 1 and path.name == "__init__.py":
            lines.append(f"{'    ' * (depth - 1)}{path.parent.name}/")
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"{'    ' * depth}{path.name:<{24 - 4 * depth}} {doc.partition(chr(10))[0]}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    if argv == ["--tree"]:
        print(tree())
        return 0
    columns = [measured(Path(path).resolve()) for path in [ROOT, *argv]]
    for key in dict.fromkeys(key for column in columns for key in column):
        print(f"{key:<28}", *(f"{column.get(key, '')!s:<28}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
