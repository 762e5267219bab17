"""The table of `make portable`: modes do not leak into each other, and outcomes count what they should."""

import shutil
import subprocess
import sys

import nbformat
import portable
import pytest

STORED = """\
# %%
print("seven networks: 0.94 ± 0.02, and 12 of 40")

# %% varies={"rtol": 0.1}
# varies: the seed of the day
print("again 1.30 [1.10, 1.50]; 0.500")
"""


def notebook(*texts):
    nb = nbformat.v4.new_notebook()
    for i, text in enumerate(texts):
        cell = nbformat.v4.new_code_cell("print()", execution_count=i + 1)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        nb.cells.append(cell)
    nb.cells[-1].metadata["varies"] = {"rtol": 0.1}
    return nb


def test_an_outcome_counts_numbers_and_their_moves():
    stored = notebook("0.94 ± 0.02, and 12 of 40", "again 1.30 [1.10, 1.50]; 0.500")
    new = notebook("0.94 ± 0.02, and 12 of 40", "again 1.40 [1.20, 1.60]; 0.510")
    result = portable.Outcome("01_tiny", "plain")
    portable.weigh(result, new, stored)
    assert (result.numbers, result.moved, result.uncertain, result.agreeing) == (5, 2, 2, 2)
    assert result.errors == pytest.approx(0.1 / (0.4 / 3.92 * 2**0.5))
    assert result.faults == []
    far = portable.Outcome("01_tiny", "plain")
    portable.weigh(far, notebook("0.94 ± 0.02, and 12 of 40", "again 1.70 [1.50, 1.90]; 0.510"), stored)
    assert (far.uncertain, far.agreeing) == (2, 1)
    assert len(far.faults) == 1 and "cell 2" in far.faults[0]
    assert "4; within 2 combined standard errors: 3 (75.0%)" in portable.summary([result, far])


def test_a_mode_inherits_no_variable_of_another(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("SOMETHING", "else")
    native, plain = portable.environment("native"), portable.environment("plain")
    assert "MKL_CBWR" not in native and native["SOMETHING"] == "else"
    assert plain["MKL_CBWR"] == "COMPATIBLE"
    assert portable.environment("two threads")["MSPACE_THREADS"] == "2"


def test_every_mode_computes(tmp_path):
    """NumPy refuses to start with a feature it does not know, and OpenBLAS with a core of another family."""
    code = "import numpy, torch; print(numpy.ones((3, 3)).dot(numpy.ones(3))[0] + float(torch.ones(3, 3).sum()))"
    for mode in portable.offered():
        done = subprocess.run(
            [sys.executable, "-c", code], env=portable.environment(mode), capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "12.0"


def git(*args, cwd):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *args], cwd=cwd, check=True, capture_output=True)


def test_chapters_of_the_last_commit_run_in_a_mode_that_the_commit_chooses(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "book").mkdir()
    for name in ("nb.py", "compare.py", "portable.py"):
        shutil.copy(portable.nb.ROOT / "tools" / name, tmp_path / "tools")
    for name in ("01_first", "02_second"):
        (tmp_path / f"book/{name}.py").write_text(STORED, encoding="utf-8")
    run = lambda *args: subprocess.run(  # noqa: E731
        [sys.executable, *args], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run("tools/nb.py", "run").returncode == 0
    git("init", "-q", cwd=tmp_path)
    git("add", "-A", cwd=tmp_path)
    git("commit", "-qm", "first", cwd=tmp_path)
    assert "shallow clone" in run("tools/portable.py", "--changed").stdout
    (tmp_path / "book/02_second.py").write_text(STORED.replace("0.94 ± 0.02", "0.80 ± 0.02"), encoding="utf-8")
    git("commit", "-qam", "second", cwd=tmp_path)
    done = run("tools/portable.py", "--changed")
    assert "that the last commit changed: 02_second\n" in done.stdout
    assert done.returncode == 1
    assert "cell 1: in 'seven networks: 0.94 ± 0.02, and 12 of 40', '0.94 ± 0.02' is now '0.80 ± 0.02'" in done.stdout
    assert "01_first" not in done.stdout
