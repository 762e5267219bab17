"""Keep the paired chapters honest: NN_name.py is the source, NN_name.ipynb beside it holds the outputs.

    python tools/nb.py run   [03_ssa ...]   execute on a fresh kernel and store the outputs, two chapters at a time
    python tools/nb.py sync  [03_ssa ...]   .py -> .ipynb without executing; cells that did not change keep outputs
    python tools/nb.py check [03_ssa ...]   do the pairs agree, was every cell run, is any stored output unfit to print
    python tools/nb.py pages                did the build leave a page for every chapter

Running twice gives the same bytes. Nothing is written before a chapter has run to its end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CHAPTER = "[0-9][0-9]_*"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
NOWHERE = "grip force is not here"  # begins the warning of the one recording without an official source


def settle_environment() -> None:
    """One thread, the inline backend, absolute data: a kernel works in book/ and must not depend on the shell."""
    for name in THREADS:
        os.environ[name] = os.environ.get("MSPACE_THREADS", "1")
    os.environ.pop("MPLBACKEND", None)
    if os.environ.get("MSPACE_DATA"):
        os.environ["MSPACE_DATA"] = os.path.abspath(os.environ["MSPACE_DATA"])


# -- pairs


def read_source(py: Path):
    import jupytext

    return jupytext.read(py, fmt="py:percent")


def read_notebook(ipynb: Path):
    import nbformat

    return nbformat.read(ipynb, as_version=4)


def content(nb) -> list:
    """What the reader of either file would call the content."""
    kept = ("tags", "mystnb", "varies")
    return [(c.cell_type, c.source.strip(), {k: c.metadata[k] for k in kept if k in c.metadata}) for c in nb.cells]


def code_cells(nb) -> list:
    """Pairs (number of the cell counted from 1, cell) of the code cells that hold something."""
    return [(i, c) for i, c in enumerate(nb.cells, 1) if c.cell_type == "code" and c.source.strip()]


def digest(nb) -> str:
    source = json.dumps([c.source.strip() for _, c in code_cells(nb)])
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def paired(py: Path):
    """The notebook that the source asks for; cells whose source did not change keep their outputs."""
    import nbformat

    ipynb = py.with_suffix(".ipynb")
    new = read_source(py)
    old = read_notebook(ipynb) if ipynb.exists() else nbformat.v4.new_notebook()
    spare = defaultdict(list)
    for cell in old.cells:
        spare[cell.cell_type, cell.source].append(cell)
    for i, cell in enumerate(new.cells):
        cell["id"] = hashlib.sha256(f"{py.stem}:{i}".encode()).hexdigest()[:8]
        if cell.cell_type == "code" and spare[cell.cell_type, cell.source]:
            was = spare[cell.cell_type, cell.source].pop(0)
            cell.outputs, cell.execution_count = was.outputs, was.execution_count
    new.metadata.kernelspec = KERNEL
    new.metadata.language_info = {"name": "python"}  # the kernel would add its Python version: noise in diffs
    new.metadata.get("jupytext", {}).pop("text_representation", None)
    if "executed" in old.metadata:
        new.metadata["executed"] = old.metadata["executed"]
    return new


def write(ipynb: Path, nb) -> None:
    """Beside it and renamed, so that a killed run leaves the old notebook whole."""
    import nbformat

    part = ipynb.with_name(ipynb.name + ".part")
    part.write_text(nbformat.writes(nb).rstrip("\n") + "\n", encoding="utf-8", newline="\n")
    part.replace(ipynb)


def sync(py: Path) -> None:
    write(py.with_suffix(".ipynb"), paired(py))


# -- executing


def execute(py: Path, timeout: int = 900):
    """The notebook of a source, run from top to bottom on a fresh kernel that works in its folder."""
    from nbclient import NotebookClient

    nb = paired(py)
    info = dict(nb.metadata.language_info)
    NotebookClient(
        nb,
        timeout=timeout,
        kernel_name=KERNEL["name"],
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no word on stderr about sockets
        coalesce_streams=True,  # a flush in another place is no difference
        resources={"metadata": {"path": str(py.parent)}},
    ).execute()
    nb.metadata.language_info = info
    nb.metadata.executed = {"source": digest(nb), "matplotlib": release("matplotlib"), "torch": release("torch")}
    return nb


def release(package: str) -> str:
    """The version without its local part, which says only whether the build has CUDA."""
    return version(package).split("+")[0]


def run(py: Path) -> str | None:
    """Execute one chapter and store it; what went wrong, if anything did."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    start = time.monotonic()
    try:
        nb = execute(py)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
        return f"{shown(py)}: the run stopped and the stored notebook is as it was\n{ANSI.sub('', str(e))}"
    if any("DataReplaced" in text for _, _, text in stderr_of(nb)):
        return f"{shown(py)}: {REPLACED}; the stored notebook is as it was"
    write(py.with_suffix(".ipynb"), nb)
    size = py.with_suffix(".ipynb").stat().st_size / 1e3
    print(f"{py.stem}: {time.monotonic() - start:.1f} s, {size:.0f} kB", flush=True)
    return None


# -- checking

REPLACED = (
    "a recording could not be had and a stand-in was used (DataReplaced): "
    "connect to the network, or name a folder that has the recording in MSPACE_DATA, then `make notebooks`"
)
AGAIN = "fix the .py and `make notebooks`"


def shown(path: Path) -> str:
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def stderr_of(nb):
    """Triples (cell number, cell, text) of what was stored of the standard error stream."""
    return [(i, c, o.text) for i, c in code_cells(nb) for o in c.outputs if o.get("name") == "stderr"]


def check(py: Path) -> list[str]:
    """Every fault of one chapter in words: where it is, what it is, the way out."""
    import nbformat

    ipynb = py.with_suffix(".ipynb")
    if not py.exists():
        return [f"{shown(ipynb)} has no {py.name} beside it: restore the source, or delete the notebook"]
    if not ipynb.exists():
        return [f"{shown(ipynb)} is missing: `make notebooks`"]
    try:
        # before nbformat reads it, for that renames a second cell of the same id
        ids = [c.get("id") for c in json.loads(ipynb.read_text(encoding="utf-8"))["cells"]]
        if len(set(ids)) < len(ids):
            return [f"{shown(ipynb)}: two cells share an id, or have none: `make notebooks`"]
        source, stored = read_source(py), read_notebook(ipynb)
        nbformat.validate(stored)
    except Exception as e:  # whatever a half-written or hand-merged file raises
        return [f"{shown(ipynb)} cannot be read ({type(e).__name__}: {str(e)[:100]}): `make notebooks`"]
    faults = [*pair_faults(source, stored, py), *cell_faults(stored)]
    return [f"{shown(ipynb)}{fault}" for fault in faults]


def pair_faults(source, stored, py: Path):
    a, b = content(source), content(stored)
    if a != b:
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False), 1) if x != y), min(len(a), len(b)) + 1)
        prose = [x for x in a if x[0] == "code"] == [x for x in b if x[0] == "code"]
        way = "`make sync`" if prose else "`make notebooks`"
        yield f": differs from {py.name}, first at cell {at} (the .py is the source: {way})"
    counts = [c.execution_count for _, c in code_cells(stored)]
    if counts != list(range(1, len(counts) + 1)):
        yield f": cells were not run once each from top to bottom, but as {counts}: `make notebooks`"
    if stored.metadata.get("executed", {}).get("source") != digest(source):
        yield ": the outputs were made from other code: `make notebooks`"


def cell_faults(nb):
    """What no stored output may hold; each fault begins with the cell."""
    for i, cell in code_cells(nb):
        first = cell.source.strip().splitlines()[0][:40]
        for fault in output_faults(cell):
            yield f", cell {i} ({first!r}): {fault}"


def declaration_fault(cell):
    """A cell that is compared by its standard errors says so in its metadata, and why in a comment."""
    varies, reason = cell.metadata.get("varies"), re.search(r"^# varies: \S", cell.source, re.M)
    if varies is None:
        return 'has a comment "# varies:" and no varies={...} on the line of its `# %%`' if reason else None
    if not isinstance(varies, dict) or not set(varies) <= {"rtol", "stray"}:
        return f'varies must hold "rtol" and "stray" or nothing, got {varies}'
    return None if reason else 'varies={...} has to be explained: begin a comment of the cell with "# varies: "'


def output_faults(cell):
    if fault := declaration_fault(cell):
        yield fault
    tags = cell.metadata.get("tags", [])
    if "nbval-skip" in tags or re.search(r"^\s*#\s*NBVAL_SKIP", cell.source, re.M):
        yield "is skipped by the tests: drop the mark (nbval-ignore-output still runs the cell)"
    for o in cell.outputs:
        if o.output_type == "error" and "raises-exception" not in tags:
            yield f"a stored traceback, {o.ename}: {AGAIN}"
        if o.get("name") == "stderr":
            yield REPLACED if "DataReplaced" in o.text else f"stored stderr, {o.text.strip()[:80]!r}: {AGAIN}"
        text = printed(o)
        if found := LOCAL_PATH.search(text):
            yield f"a local path, {found.group()!r}: print what does not depend on the machine, {AGAIN}"
        if found := re.search(r"\bat 0x[0-9a-fA-F]{6,}", text):
            yield f"a memory address, {found.group()!r}: it changes with each run; end the line with a semicolon"
        yield from alt_faults(o, cell)


LOCAL_PATH = re.compile(
    r"(?<![\w.-])/(?:home|Users|tmp|root|work|private|var/folders)/[\w.-]+|[A-Za-z]:\\+Users\\+\w+|"
    + re.escape(str(ROOT))
)


def printed(output) -> str:
    """Everything textual in an output, whatever its mime type; pictures in base64 left out."""
    data = {k: v for k, v in output.get("data", {}).items() if not re.match(r"image/(png|jpeg|gif)|video/", k)}
    # ensure_ascii=False and no json for plain strings: an escaped backslash would hide a Windows path
    parts = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in data.values()]
    parts += [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
    return re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", "\n".join(parts))


def alt_faults(output, cell):
    data = output.get("data", {})
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    if any(k.startswith("image/") for k in data) and not str(alt).strip():
        yield 'a figure without alt text: put mystnb={"image": {"alt": "what it shows"}} on the line of its `# %%`'
    if bare := Images.without_alt(data.get("text/html", "")):
        yield f"{bare} <img> without alt text: give alt= to what drew it, {AGAIN}"


class Images(HTMLParser):
    """Counts the pictures of an HTML output that say nothing to who cannot see them."""

    bare = 0

    def handle_starttag(self, tag, attrs):
        self.bare += tag == "img" and not (dict(attrs).get("alt") or "").strip()

    @classmethod
    def without_alt(cls, html: str) -> int:
        parser = cls()
        parser.feed(html)
        return parser.bare


def in_contents(chapters: list[Path]) -> list[str]:
    """A chapter that _toc.yml does not name is left out of the book without a word."""
    import yaml

    toc = ROOT / "_toc.yml"
    named = json.dumps(yaml.safe_load(toc.read_text(encoding="utf-8"))) if toc.exists() else ""
    return [
        f"{shown(py)} is not in _toc.yml, so it would be left out of the book: add `- file: book/{py.stem}`"
        for py in chapters
        if toc.exists() and f'"book/{py.stem}"' not in named
    ]


def missing_pages() -> list[str]:
    html = ROOT / "_build" / "html" / "book"
    stems = sorted({p.stem for p in BOOK.glob(f"{CHAPTER}.py")} | {"index"})
    return [f"{s}: the build left no page {shown(html / s)}.html" for s in stems if not (html / f"{s}.html").exists()]


# -- the command line


def worked(work, files: list[Path]) -> list[str]:
    """Two chapters at a time; those that gather what others stored come after them, in order."""
    gather = [py for py in files if "TextTable.stored(" in py.read_text(encoding="utf-8")]
    with ProcessPoolExecutor(min(2, len(files) or 1)) as pool:
        faults = list(pool.map(work, [py for py in files if py not in gather]))
    return [f for f in [*faults, *map(work, gather)] if f]


def chapters(names: list[str]) -> list[Path]:
    """Sources by name (03_ssa), by path, or all; with all, notebooks that lost their source too."""
    if not names:
        found = {p.with_suffix(".py") for ext in ("py", "ipynb") for p in BOOK.glob(f"{CHAPTER}.{ext}")}
        return sorted(found)
    paths = [Path(n).resolve() if os.sep in n or "/" in n else BOOK / n for n in names]
    paths = [p.with_name(p.name.removesuffix(".py").removesuffix(".ipynb") + ".py") for p in paths]
    known = ", ".join(sorted(p.stem for p in BOOK.glob(f"{CHAPTER}.py")))
    for p in paths:
        if not p.exists() and not p.with_suffix(".ipynb").exists():
            raise SystemExit(f"no chapter {shown(p)}; there are {known or 'none'}")
    return paths


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "sync", "check", "pages"])
    parser.add_argument("chapter", nargs="*", help="03_ssa or book/03_ssa.py; all when left out")
    args = parser.parse_args(argv)
    settle_environment()
    files = chapters(args.chapter)
    if args.verb == "pages":
        faults = missing_pages()
    elif args.verb == "check":
        faults = [f for py in files for f in check(py)] + in_contents([py for py in files if py.exists()])
    else:
        faults = worked({"run": run, "sync": sync}[args.verb], [py for py in files if py.exists()])
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
