"""Does it work where the buttons of the book lead?  Environments of readers, made from nothing and tried.

    python tools/elsewhere.py colab  [03_ssa ...]   each chapter alone in an empty folder: the wheel, what its first cell
                                                    installs, a kernel; seconds, peak memory, was a recording replaced
    python tools/elsewhere.py binder [03_ssa ...]   .binder/ in an environment like that of Binder's image; notebooks opened
                                                    and run in its JupyterLab by a headless browser (else three)
    python tools/elsewhere.py lowest                the unit tests with the oldest versions that pyproject.toml allows

Environments lie in _build/elsewhere and are made anew, but with --keep.  Nothing is pinned but torch: a release that
breaks a reader's environment is to be noticed here.  Data come from MSPACE_DATA where it is set, else from their sources.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import env
import nb

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "_build" / "elsewhere"
BOOK = ROOT / "book"
IMAGE = ("jupyterlab~=4.4.0", "notebook~=7.4.0")  # what repo2docker puts in its images before .binder/ is asked
IN_BINDER = ("01_neurons", "03_ssa", "08_video")
PEAK = """\
try:
    import resource, sys
    print(max(map(lambda who: resource.getrusage(who).ru_maxrss, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
          // (2**20 if sys.platform == "darwin" else 2**10))
except ImportError:
    print(0)
"""


@dataclass
class Outcome:
    """What became of a chapter in a reader's hands."""

    chapter: str
    seconds: float = 0.0
    megabytes: int = 0
    stderr: str = ""
    error: str = ""

    def faults(self) -> Iterator[str]:
        if self.error:
            yield self.error.strip()[-1500:]
        for line in self.stderr.splitlines():
            if "DataReplaced" in line and (nb.NOWHERE not in line or os.environ.get("MSPACE_DATA")):
                yield f"a recording was replaced: {line.strip()}"

    def show(self) -> None:
        faults = list(self.faults())
        said = " (wrote to stderr)" if self.stderr and not faults else ""
        verdict = "FAIL" if faults else "pass" + said
        print(f"{self.chapter:<28} {self.seconds:>6.0f} s {self.megabytes:>6} MB  {verdict}", flush=True)


def report(outcomes: list[Outcome], others: list[str] = ()) -> int:
    """Print all faults, and return the exit status."""
    faults = [f"{o.chapter}: {fault}" for o in outcomes for fault in o.faults()] + list(others)
    print(*faults or ["no faults"], sep="\n")
    return int(bool(faults))


# -- environments


def fresh(name: str, keep: bool) -> tuple[str, bool]:
    """The Python of an environment of this name, and whether it was made just now."""
    venv = OUT / name
    python = env.python_of(str(venv))
    if keep and Path(python).exists():
        return python, False
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    return python, True


def pip(python: str, *args: str, **options) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *args], check=True, **options)


def checkout(target: Path) -> Path:
    """A copy of the working tree, without what git ignores: to build in, or to open and save notebooks in."""
    shutil.rmtree(target, ignore_errors=True)
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def build_wheels() -> dict[str, Path]:
    """Build the wheels of the working tree: of the package, and of what the chapters import beside it."""
    folder = OUT / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as copy:
        tree = checkout(Path(copy) / "mspace")
        for source in (tree, tree / "book"):
            pip(sys.executable, "wheel", "-q", "--no-deps", "-w", str(folder), str(source))
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


# -- Colab: one notebook and what its first cell installs


def installs(notebook: Path) -> Iterator[tuple[str, ...]]:
    """The arguments of each pip command that a chapter runs where the package is not there."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and 'find_spec("kit")' in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Constant) and str(node.value).startswith("install "):
                    yield tuple(shlex.split(node.value))


def with_wheels(command: tuple[str, ...], wheels: dict[str, Path]) -> list[str]:
    """Return the same command with these wheels in the place of the repository on GitHub."""

    def local(match: re.Match) -> str:
        return f"{match[0].partition(' @ ')[0]} @ {wheels[match['name']].as_uri()}"

    return [re.sub(r"^(?P<name>[\w-]+)(\[\w+\])? @ git\+https\S+$", local, word) for word in command]


def colab(chapters: list[Path], keep: bool) -> int:
    python, new = fresh("colab", keep)
    wheels = build_wheels()
    if new:
        env.install_torch(python)  # Colab has one
        pip(python, "install", "-q", "ipykernel", "nbclient")
    for command in dict.fromkeys(c for chapter in chapters for c in installs(chapter)):
        pip(python, *with_wheels(command, wheels))
    if not new:
        # their versions may be those of older ones
        pip(python, "install", "-q", "--force-reinstall", "--no-deps", *map(str, wheels.values()))
    outcomes = []
    for chapter in chapters:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(chapter, folder)
            outcomes.append(alone(python, Path(folder) / chapter.name))
        outcomes[-1].show()
    return report(outcomes)


def reader(**more: str) -> dict[str, str]:
    """The environment of a reader, who sets no number of threads; chapters gather from this checkout."""
    ours = (*nb.THREADS, "MPLBACKEND", "PYTHONPATH")
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    if kept.get("MSPACE_DATA"):
        kept["MSPACE_DATA"] = os.path.abspath(kept["MSPACE_DATA"])
    return kept | {"MSPACE_BOOK": str(BOOK), "JUPYTER_PREFER_ENV_PATH": "1"} | more


def alone(python: str, notebook: Path) -> Outcome:
    """A notebook executed in its folder by a Python that knows nothing of this repository."""
    start = time.monotonic()
    command = [python, "-c", EXECUTE, notebook.name, PEAK]
    done = subprocess.run(command, cwd=notebook.parent, env=reader(), capture_output=True, text=True)
    outcome = Outcome(notebook.stem, time.monotonic() - start)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        outcome.error = done.stderr or f"exit {done.returncode}"
    else:
        outcome.megabytes, outcome.stderr, outcome.error = found["megabytes"], found["stderr"], found["error"]
    return outcome


EXECUTE = '''
import json, re, sys
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

name, peak = sys.argv[1:]
notebook = nbformat.read(name, as_version=4)
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
notebook.cells.append(nbformat.v4.new_code_cell(peak))
error = ""
quiet = ["--IPKernelApp.log_level=ERROR"]
try:
    NotebookClient(notebook, timeout=1800, kernel_name="python3", extra_arguments=quiet).execute()
except (CellExecutionError, CellTimeoutError, DeadKernelError) as stopped:
    error = re.sub(r"\\x1b\\[[0-9;]*m", "", str(stopped)) or type(stopped).__name__
outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
last = "".join(o.get("text", "") for o in notebook.cells[-1].outputs)
stderr = "".join(o.text for o in outputs if o.get("name") == "stderr")
print(json.dumps({"megabytes": int(last or 0), "stderr": stderr, "error": error}))
'''


# -- Binder: its scripts, then a browser


def binder(chapters: list[Path], keep: bool, browser: str | None) -> int:
    browser = browser or next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if browser is None:
        raise SystemExit("no browser: install chromium, or name one with --browser")
    folder = OUT / "binder-image"
    python, new = fresh("binder", keep)
    own = {
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "JUPYTER_DATA_DIR": str(folder / "data"),  # where the signatures of trusted notebooks are
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    shutil.rmtree(folder, ignore_errors=True)
    if new:
        pip(python, "install", "-q", *IMAGE)
    # as repo2docker: in the folder of the repository, with its environment first on the path
    subprocess.run(["bash", ".binder/postBuild"], cwd=checkout(folder / "repository"), env=reader(**own), check=True)
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # all cells are drawn, not only those in sight
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    driver, new = fresh("browser", keep)
    if new:
        pip(driver, "install", "-q", "playwright")
    outcomes, others = in_lab(folder / "repository", python, driver, browser, reader(**own), [c.stem for c in chapters])
    return report(outcomes, [*pip_check(python), *others])


def pip_check(python: str) -> list[str]:
    """What does not fit together, but for the extra of which only files are read."""
    alone = {re.split(r"[=>]", r)[0] for r in env.extras(env.ALONE)}
    done = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    lines = [] if done.returncode == 0 else done.stdout.splitlines()
    return [f"pip check: {line}" for line in lines if line.split()[0] not in alone]


def in_lab(repository: Path, python: str, driver: str, browser: str, environment, stems) -> tuple[list, list[str]]:
    """Notebooks opened and run in JupyterLab as .binder/start starts it; one of them once more without trust."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    lab = [
        ".binder/start", python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        f"--ServerApp.port={port}", f"--IdentityProvider.token={token}", "--ServerApp.ip=127.0.0.1",
    ]  # fmt: skip
    with open(repository.parent / "lab.log", "w") as log:
        server = subprocess.Popen(lab, cwd=repository, env=environment, stdout=log, stderr=log)
        try:
            wait_for(port, server)
            request = {"url": f"http://127.0.0.1:{port}", "token": token, "browser": browser, "peak": PEAK, "stems": stems}
            command = [driver, str(Path(__file__).with_name("in_browser.py")), json.dumps(request)]
            done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, text=True)
        finally:
            server.terminate()
            server.wait()
    outcomes, others = [], [] if done.returncode == 0 else [f"the browser stopped, exit {done.returncode}"]
    for line in done.stdout.splitlines():
        found = json.loads(line)
        others += found.pop("others")
        outcomes.append(Outcome(**found))
        outcomes[-1].show()
    return outcomes, others


def wait_for(port: int, server: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise SystemExit(f"JupyterLab does not start, see {OUT / 'binder-image' / 'lab.log'}")


# -- lowest: what pyproject.toml promises of old versions


def oldest(requirements: list[str]) -> list[str]:
    """Each requirement at its lower bound; what has none stays as it is."""
    return [re.sub(r">=", "==", r, count=1) for r in requirements]


def lowest(keep: bool) -> int:
    python, new = fresh("lowest", keep)
    if new:
        first, *rest = oldest(env.requirements(("chapters", "distributed")))
        cpu = sys.platform == "linux" and not env.user_has_index(python)
        where = ["--no-deps", "--index-url", env.CPU_INDEX] if cpu else []
        pip(python, "install", "-q", *where, first)
        named = {re.split(r"[\[=]", r)[0] for r in rest}
        tools = [r for r in env.extras(("test",)) if re.split(r"[\[=>]", r)[0] not in named]
        pip(python, "install", "-q", first, "setuptools", *rest, *tools)
    # tools/portable.py knows which tests are arithmetic; it imports numpy, so it is asked in that environment
    ask = [python, "-c", "import sys; sys.path.append('tools'); import portable; print(*portable.UNIT_TESTS)"]
    tests = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    # old packages deprecate what newer ones beside them no longer have, which is no fault of ours
    options = ["-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    options += ["--deselect", "tests/test_readme.py::test_the_package_has_few_errors_of_types"]  # old stubs have others
    return subprocess.run([python, "-m", "pytest", *options, *tests], cwd=ROOT).returncode


# -- the command line


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=["colab", "binder", "lowest"])
    parser.add_argument("chapter", nargs="*", help="03_ssa or book/03_ssa.ipynb; all when left out")
    parser.add_argument("--keep", action="store_true", help="use the environment that is there")
    parser.add_argument("--browser", help="the Chromium to use, else the first on the path")
    args = parser.parse_intermixed_args(argv)  # chapters may follow an option
    if args.where == "lowest":
        return lowest(args.keep)
    names = args.chapter or (IN_BINDER if args.where == "binder" else sorted(p.stem for p in BOOK.glob("[0-9]*_*.ipynb")))
    chapters = [BOOK / f"{Path(name).stem}.ipynb" for name in names]
    if missing := [c.stem for c in chapters if not c.is_file()]:
        raise SystemExit(f"no chapter {', '.join(missing)} in {BOOK.name}/")
    return colab(chapters, args.keep) if args.where == "colab" else binder(chapters, args.keep, args.browser)


if __name__ == "__main__":
    sys.exit(main())
