"""Plant each fault in a copy of a tiny book and see it caught, by `nb.py check` or by re-execution under pytest."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALT = 'mystnb={"image": {"alt": "a rising line"}}'
TINY = f"""\
# %% [markdown]
# # A tiny chapter

# %%
import base64, io, os, warnings
import matplotlib.pyplot as plt
from IPython.display import HTML

class DataReplaced(UserWarning): ...

# %%
if os.environ.get("OFFLINE"):
    warnings.warn("no network, a stand-in is used", DataReplaced)
total = sum(range(40 if os.environ.get("OFFLINE") else 4))

# %%
print("total", total)

# %% {ALT}
plt.plot([0, 1, 2], [0, 1, 2.00])
plt.ylim(0, 3)
plt.show()

# %%
plt.plot([0, 1, 2], [0, 1, 3.00])
page = io.BytesIO()
plt.savefig(page, format="png")
plt.close()
HTML('<img alt="a line" src="data:image/png;base64,' + base64.b64encode(page.getvalue()).decode() + '"/>')
"""
TEXT, PICTURE, PAGE = 3, 4, 5  # where those cells are in the notebook, counted from 0


@pytest.fixture(scope="module")
def nb():
    """tools/nb.py as a module."""
    spec = importlib.util.spec_from_file_location("nb", ROOT / "tools" / "nb.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python(*args, cwd, **env):
    """Run the interpreter as a user would, with nothing of this pytest run in the environment."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "MSPACE_", "COV_"))}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=clean | env, capture_output=True, text=True, timeout=300, check=False
    )


def read(ipynb):
    return json.loads(ipynb.read_text(encoding="utf-8"))


def edit(ipynb, change):
    stored = read(ipynb)
    change(stored)
    ipynb.write_text(json.dumps(stored), encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A book of the tiny chapter and two with a curve moved a little, executed through the command line."""
    book = tmp_path_factory.mktemp("a book")  # a path with a space
    for name in ("tools/nb.py", "tools/compare.py", "conftest.py"):
        (book / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, book / name)
    (book / "book").mkdir()
    for name, source in {
        "01_tiny": TINY,
        "02_moved": TINY.replace("2.00", "2.05"),
        "03_moved_in_html": TINY.replace("3.00", "3.05"),
    }.items():
        (book / "book" / f"{name}.py").write_text(source, encoding="utf-8")
    done = python("tools/nb.py", "run", cwd=book)
    assert done.returncode == 0, done.stderr
    return book


@pytest.fixture
def pair(made, tmp_path):
    """A copy of the executed tiny chapter to spoil: its .py and .ipynb."""
    for ext in ("py", "ipynb"):
        shutil.copy(made / "book" / f"01_tiny.{ext}", tmp_path)
    return tmp_path / "01_tiny.py", tmp_path / "01_tiny.ipynb"


# -- the real book


def test_chapters_are_pairs_fit_to_print():
    done = python("tools/nb.py", "check", cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_verdict_gathers_from_every_chapter():
    verdict = (ROOT / "book" / "20_verdict.py").read_text(encoding="utf-8")
    listed = verdict.partition('CHAPTERS = """')[2].partition('"""')[0].split()
    assert listed == sorted(p.stem for p in (ROOT / "book").glob("[01][0-9]_*.py"))


def test_lint():
    done = python("-m", "ruff", "check", "--output-format=concise", cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]


# -- nb.py


def faults(nb, pair):
    return "\n".join(nb.check(pair[0]))


def test_a_clean_pair_has_no_faults(nb, pair):
    assert faults(nb, pair) == ""


def test_running_twice_gives_the_same_bytes(made):
    ipynb = made / "book" / "01_tiny.ipynb"
    before = ipynb.read_bytes()
    ipynb.unlink()
    assert python("tools/nb.py", "run", "01_tiny", cwd=made).returncode == 0
    assert ipynb.read_bytes() == before


def output_of(stored, cell):
    return stored["cells"][cell]["outputs"]


def stderr(text):
    return {"output_type": "stream", "name": "stderr", "text": [text]}


def shown_as(mime, text):
    return {"output_type": "display_data", "metadata": {}, "data": {mime: text}}


def swap(s):
    s["cells"][TEXT]["execution_count"], s["cells"][PICTURE]["execution_count"] = (
        s["cells"][PICTURE]["execution_count"], s["cells"][TEXT]["execution_count"],
    )  # fmt: skip


ERROR = {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "", "traceback": []}
SPOILED = {
    "order": (swap, "top to bottom"),
    "never run": (lambda s: s["cells"][TEXT].update(execution_count=None, outputs=[]), "top to bottom"),
    "traceback": (lambda s: output_of(s, TEXT).append(ERROR), "cell 4 .*stored traceback, ZeroDivisionError"),
    "stderr": (lambda s: output_of(s, TEXT).append(stderr("careful!")), "cell 4 .*stored stderr, 'careful!'"),
    "stand-in": (
        lambda s: output_of(s, TEXT).append(stderr("x.py:1: DataReplaced: no network")),
        "cell 4 .*stand-in was used .*MSPACE_DATA",
    ),
    "path in text": (
        lambda s: output_of(s, TEXT)[0].update(text=["in /home/ada/book\n"]), "cell 4 .*local path, '/home/ada'",
    ),
    "path in html": (
        lambda s: output_of(s, PAGE).append(shown_as("text/html", "<b>/Users/ada/x</b>")), "local path, '/Users/ada'",
    ),
    "path in json": (
        lambda s: output_of(s, PAGE).append(shown_as("application/json", {"a": ["/tmp/x"]})), "local path, '/tmp/x'",
    ),
    "path of the checkout": (
        lambda s: output_of(s, PAGE).append(shown_as("text/plain", f"{ROOT}/x")), "cell 6 .*local path",
    ),
    "address": (
        lambda s: output_of(s, PAGE).append(shown_as("text/plain", "<Axes at 0x7f11aa22bb33>")), "memory address",
    ),
    "no alt": (lambda s: s["cells"][PICTURE]["metadata"].clear(), "cell 5 .*figure without alt text"),
    "blank alt": (
        lambda s: s["cells"][PICTURE]["metadata"]["mystnb"]["image"].update(alt=" "), "figure without alt text",
    ),
    "no alt in html": (
        lambda s: output_of(s, PAGE).append(shown_as("text/html", "<img src='x.png'>")), "1 <img> without alt",
    ),
    "shared id": (lambda s: s["cells"][1].update(id=s["cells"][2]["id"]), "share an id"),
    "skipped": (lambda s: s["cells"][TEXT]["metadata"].update(tags=["nbval-skip"]), "skipped by the tests"),
}  # fmt: skip


DECLARATIONS = {
    "no reason": ('# %% varies={"rtol": 0.1}\nprint("total", total)', "has to be explained"),
    "no declaration": ('# %%\n# varies: by luck\nprint("total", total)', "no varies="),
    "another key": ('# %% varies={"tol": 1}\n# varies: by luck\nprint("total", total)', "must hold \"rtol\""),
    "whole": ('# %% varies={"rtol": 0.1}\n# varies: by luck\nprint("total", total)', None),
}


@pytest.mark.parametrize("case", DECLARATIONS)
def test_a_declaration_has_its_reason(nb, pair, case):
    cell, message = DECLARATIONS[case]
    pair[0].write_text(TINY.replace('# %%\nprint("total", total)', cell), encoding="utf-8")
    nb.sync(pair[0])
    found = [f for f in nb.check(pair[0]) if "made from other code" not in f and "top to bottom" not in f]
    if message is None:
        assert not found
        assert read(pair[1])["cells"][TEXT]["metadata"]["varies"] == {"rtol": 0.1}
    else:
        with pytest.raises(AssertionError, match=message):
            assert not found


@pytest.mark.parametrize("fault", SPOILED)
def test_a_spoiled_notebook_is_refused(nb, pair, fault):
    spoil, message = SPOILED[fault]
    edit(pair[1], spoil)
    with pytest.raises(AssertionError, match=r"01_tiny\.ipynb(.|\n)*" + message):
        assert faults(nb, pair) == ""


def test_an_allowed_exception_may_be_stored(nb, pair):
    py, _ = pair
    py.write_text(TINY + '\n# %% tags=["raises-exception"]\n1 / 0\n', encoding="utf-8")
    nb.sync(py)
    edit(pair[1], lambda s: s["cells"][-1].update(outputs=[ERROR], execution_count=6))
    assert "traceback" not in faults(nb, pair)


def test_a_url_and_a_picture_are_no_local_path(nb, pair):
    harmless = "https://example.org/home/ada and <img alt='x' src='data:image/png;base64,+/tmp/aaa='>"
    edit(pair[1], lambda s: output_of(s, PAGE).append(shown_as("text/html", harmless)))
    assert faults(nb, pair) == ""


def test_edited_source_is_noticed(nb, pair):
    py, _ = pair
    py.write_text(TINY.replace('"total"', '"the total"'), encoding="utf-8")
    assert "differs from 01_tiny.py, first at cell 4" in faults(nb, pair)
    nb.sync(py)  # now the pair is equal, but the outputs are those of the old code
    assert "differs" not in faults(nb, pair)
    assert "made from other code" in faults(nb, pair)


def test_prose_needs_no_execution(nb, pair):
    py, _ = pair
    py.write_text(TINY.replace("A tiny", "A small"), encoding="utf-8")
    assert "make sync" in faults(nb, pair)
    nb.sync(py)
    assert faults(nb, pair) == ""


def test_half_a_pair_is_noticed(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    book = tmp_path / "copy" / "book"
    (book / "01_tiny.ipynb").unlink()
    (book / "02_moved.py").unlink()
    done = python("tools/nb.py", "check", cwd=tmp_path / "copy")
    assert done.returncode == 1
    assert "01_tiny.ipynb is missing: `make notebooks`" in done.stderr
    assert "02_moved.ipynb has no 02_moved.py" in done.stderr
    assert "03_moved" not in done.stderr


def test_a_chapter_outside_the_contents_is_noticed(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    (tmp_path / "copy" / "_toc.yml").write_text("chapters: [{file: book/01_tiny}, {file: book/02_moved}]")
    done = python("tools/nb.py", "check", cwd=tmp_path / "copy")
    assert "03_moved_in_html.py is not in _toc.yml" in done.stderr
    assert "01_tiny" not in done.stderr


def test_a_chapter_that_gathers_runs_after_the_others(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "tools/nb.py", tmp_path / "tools")
    shutil.copytree(ROOT / "book" / "kit", tmp_path / "book" / "kit")
    table = "# %%\nfrom kit.tables import TextTable\n"
    (tmp_path / "book/01_gathers.py").write_text(f'{table}print(TextTable.stored("02_made.ipynb", ["a"]))\n')
    (tmp_path / "book/02_made.py").write_text(f'{table}TextTable(["a"], [["1"]])\n')
    done = python("tools/nb.py", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "book/01_gathers.ipynb")["cells"][0]["outputs"][0]["text"] == ["a\n", "1\n"]


def test_a_failed_or_stand_in_run_stores_nothing(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    book = tmp_path / "copy" / "book"
    (book / "02_moved.py").write_text(TINY.replace("sum(range", "summ(range"), encoding="utf-8")
    before = {p: p.read_bytes() for p in book.glob("*.ipynb")}
    done = python("tools/nb.py", "run", "01_tiny", "02_moved", cwd=tmp_path / "copy", OFFLINE="1")
    assert done.returncode == 1
    assert "02_moved.py: the run stopped" in done.stderr
    assert "NameError" in done.stderr
    assert "01_tiny.py: a recording could not be had" in done.stderr
    assert {p: p.read_bytes() for p in book.glob("*.ipynb*")} == before


# -- re-execution


def as_tiny(stored):
    """Give a chapter whose curve was moved the tiny chapter's code: its outputs are then wrong by a little."""
    for cell in stored["cells"]:
        cell["source"] = "".join(cell["source"]).replace("2.05", "2.00").replace("3.05", "3.00")


def complain(stored):
    stored["cells"][TEXT]["source"] = "import sys; print('oops', file=sys.stderr)\nprint('total', total)"


def complain_unheard(stored):
    complain(stored)
    stored["cells"][TEXT]["metadata"]["tags"] = ["nbval-ignore-output"]


def older_matplotlib(stored):
    as_tiny(stored)
    stored["metadata"]["executed"]["matplotlib"] = "3.1.0"


def older_and_cleared(stored):
    older_matplotlib(stored)
    stored["cells"][PICTURE]["outputs"] = []


def declared(stored, text, cell=TEXT):
    """A cell that says its numbers vary, and another number stored."""
    output_of(stored, TEXT)[0].update(text=[text])
    stored["cells"][cell]["metadata"]["varies"] = {"rtol": 0.1}


# variant: (made from, what is done to it, the code cell that must fail, what it must say)
RERUN = {
    "01_clean": ("01_tiny", lambda s: None, None, None),
    "02_picture": ("02_moved", as_tiny, 3, "figure 1: RMS"),
    "03_html_picture": ("03_moved_in_html", as_tiny, 4, "figure 1: RMS"),
    "04_text": ("01_tiny", lambda s: output_of(s, TEXT)[0].update(text=["total 7\n"]), 2, "in 'total 7', '7' is now '6'"),
    "05_cleared_text": ("01_tiny", lambda s: output_of(s, TEXT).clear(), 2, "the words differ"),
    "06_cleared_picture": ("01_tiny", lambda s: output_of(s, PICTURE)[0]["data"].pop("image/png"), 3, "0 figures"),
    "07_never_run": ("01_tiny", lambda s: s["cells"][TEXT].update(execution_count=None, outputs=[]), 2, "never run"),
    "08_stderr": ("01_tiny", complain, 2, "stderr"),
    "09_stderr_unheard": ("01_tiny", complain_unheard, 2, "stderr"),
    "10_older": ("02_moved", older_matplotlib, None, None),
    "11_older_cleared": ("02_moved", older_and_cleared, 3, "0 figures"),
    "12_declared": ("01_tiny", lambda s: declared(s, "total 6.2\n"), None, None),
    "13_declared_too_far": ("01_tiny", lambda s: declared(s, "total 8.2\n"), 2, "rtol=0.1"),
    "14_declared_picture": ("02_moved", lambda s: (as_tiny(s), declared(s, "total 6\n", PICTURE)), None, None),
}


def rerun(book, *args, **env):
    """Re-execute a book's notebooks as `make test` does: {(notebook, cell): failure or None}, and what was printed."""
    done = python(
        "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "--color=no",
        "--junit-xml=report.xml", *args, "book",
        cwd=book, **env,
    )  # fmt: skip
    verdicts = {}
    for case in ET.parse(book / "report.xml").iter("testcase"):
        bad = [e for e in case if e.tag in ("failure", "error")]
        name = case.get("classname").replace(".ipynb", "").split(".")[-1]
        verdicts[name, int(case.get("name").split()[-1])] = bad[0].text if bad else None
    return verdicts, done.stdout


@pytest.fixture(scope="module")
def reruns(made, tmp_path_factory):
    """All variants in one book, re-executed once, by two workers as `make test` does."""
    book = tmp_path_factory.mktemp("spoiled") / "book"
    shutil.copytree(made, book)
    for old in (book / "book").iterdir():
        old.unlink()
    for name, (origin, spoil, _, _) in RERUN.items():
        ipynb = book / "book" / f"{name}.ipynb"
        shutil.copy(made / "book" / f"{origin}.ipynb", ipynb)
        edit(ipynb, spoil)
    return rerun(book, "-n", "2", "--dist", "loadfile")


@pytest.mark.parametrize("variant", RERUN)
def test_re_execution_sees(reruns, variant):
    _, _, cell, message = RERUN[variant]
    found = {number: text for (name, number), text in reruns[0].items() if name == variant}
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert [n for n, text in found.items() if text] == ([] if cell is None else [cell])
    if cell is not None:
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(found[cell])


def test_pictures_not_compared_are_named(reruns):
    assert "10_older.ipynb: pictures not compared, drawn with matplotlib 3.1.0" in reruns[1]


@pytest.mark.parametrize("required", [False, True])
def test_a_replaced_recording_runs_without_comparison(made, tmp_path, required):
    book = tmp_path / "book"
    shutil.copytree(made, book)
    for old in (book / "book").glob("0[23]*"):
        old.unlink()
    verdicts, printed = rerun(book, OFFLINE="1", **({"MSPACE_REQUIRE_DATA": "1"} if required else {}))
    assert len(verdicts) == 5
    assert [cell for (_, cell), bad in verdicts.items() if bad] == ([1] if required else [])
    assert "01_tiny.ipynb: a recording was replaced, outputs not compared from cell 1 on" in printed
    assert printed.strip().splitlines()[-1].startswith("=")  # pytest's own line comes last
