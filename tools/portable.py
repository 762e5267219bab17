"""Does the book say the same on every machine?  Its chapters and unit tests under other numerics than this machine's own.

    python tools/portable.py                         all modes, all chapters, all unit tests; one table
    python tools/portable.py --modes plain avx2      some modes
    python tools/portable.py --no-tests 07_neural_ode   some chapters, without the unit tests
    python tools/portable.py --changed               in one mode, chosen by the commit: chapters that it changed

A mode is a set of environment variables that make torch, MKL, OpenBLAS and NumPy round otherwise, as another processor
would.  Executed notebooks are left in _build/portable/MODE, and compared with the stored ones by tools/compare.py.
Columns of the table: numbers compared, how many of them moved at all, the largest difference in combined standard
errors of those that carry an uncertainty, the largest root mean square distance of a picture (of 255), seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import compare
import nb

OUT = nb.ROOT / "_build" / "portable"
OLDEST = "Nehalem" if platform.machine().lower() in ("x86_64", "amd64") else "ARMV8"
MODES = {
    "native": {},
    "plain": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": OLDEST},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "AVX512",  # in the words of the NumPy that is here
    },
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "MKL_CBWR": "AVX512", "OPENBLAS_CORETYPE": "SkylakeX"},
    "two threads": {"MSPACE_THREADS": "2", "OMP_WAIT_POLICY": "passive"},  # two kernels share two cores
}
NO_ARITHMETIC = ("architecture", "book", "compare", "env", "portable")  # tests of files and processes
UNIT_TESTS = ("tests", "mspace", *(f"--ignore=tests/test_{name}.py" for name in NO_ARITHMETIC))


def numpy_features() -> dict[str, bool]:
    """Sets of instructions by NumPy's names, and whether this processor has them."""
    from numpy._core._multiarray_umath import __cpu_features__ as features

    return features


def disabled() -> str:
    """What NumPy may be asked to leave unused of AVX-512: it refuses to start on a name that it has no code for."""
    from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatched

    own = [f for f in dispatched if f == "X86_V4" or f.startswith("AVX512")]
    return " ".join(f for f in own if numpy_features().get(f))


def offered() -> list[str]:
    """The modes that this machine can run: AVX is x86-64's."""
    has = numpy_features().get
    lacking = {"avx2": not has("AVX2"), "avx512": not (has("AVX512F") or has("X86_V4"))}
    return [mode for mode in MODES if not lacking.get(mode)]


def environment(mode: str) -> dict[str, str]:
    """The variables of a process that computes in a mode, and in no other."""
    others = {name for settings in MODES.values() for name in settings}
    inherited = {k: v for k, v in os.environ.items() if k not in others}
    settings = dict(MODES[mode])
    if "NPY_DISABLE_CPU_FEATURES" in settings:
        settings["NPY_DISABLE_CPU_FEATURES"] = disabled()
    return inherited | {k: v for k, v in settings.items() if v}


# -- one chapter in one mode


@dataclass
class Outcome:
    """What became of a chapter: how its numbers and pictures compare with the stored ones."""

    stem: str
    mode: str
    numbers: int = 0
    moved: int = 0
    uncertain: int = 0  # numbers that carry an uncertainty
    agreeing: int = 0  # of these, within 2 combined standard errors
    errors: float = 0.0  # the largest difference in combined standard errors
    picture: float = 0.0  # the largest RMS distance of a picture, of 255
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def execute(stem: str, mode: str) -> Outcome:
    """One stored notebook executed in this process's mode, kept, and compared."""
    import nbformat

    start, result = time.monotonic(), Outcome(stem, mode)
    stored = nb.read_notebook(nb.BOOK / f"{stem}.ipynb")
    try:
        new = nb.execute(nb.BOOK / f"{stem}.py", timeout=300)  # a killed kernel is reported, not waited for
    except Exception as e:  # a chapter that stops is the finding, and its traceback the report
        result.faults.append(nb.ANSI.sub("", str(e)).strip()[-1500:])
        return result
    result.seconds = time.monotonic() - start
    (OUT / mode).mkdir(parents=True, exist_ok=True)
    nbformat.write(new, OUT / mode / f"{stem}.ipynb")
    weigh(result, new, stored)
    return result


def weigh(result: Outcome, new, stored) -> None:
    """Fill an outcome with the comparison of two notebooks, cell by cell."""
    for number, ((_, a), (_, b)) in enumerate(zip(nb.code_cells(new), nb.code_cells(stored), strict=True), 1):
        if compare.replaced(a.outputs):
            print(f"{result.stem}: a recording was replaced, outputs not compared from cell {number} on", flush=True)
            return
        faults = compare.cell_faults(a.outputs, b.outputs, b.metadata.get("varies"))
        result.faults += [f"cell {number}: {fault}" for fault in faults]
        together = compare.pairs(compare.text_of(a.outputs), compare.text_of(b.outputs))
        for one, other in together or ():
            count(result, one, other)
        for drawn, kept in zip(compare.pictures(a.outputs), compare.pictures(b.outputs), strict=False):
            result.picture = max(result.picture, compare.figure_rms(drawn, kept))


def count(result: Outcome, one: compare.Printed, other: compare.Printed) -> None:
    result.numbers += 1
    result.moved += any(a.value != b.value for a, b in zip(one.numbers, other.numbers, strict=True))
    errors = one.errors_from(other)
    if errors is not None:
        result.uncertain += 1
        result.agreeing += errors <= compare.MAX_ERRORS
        result.errors = max(result.errors, errors)


def chapters_in(mode: str, stems: list[str]) -> Iterator[Outcome]:
    """Chapters in a mode, two at a time, each in a kernel that has the mode's environment."""
    os.environ.clear()
    os.environ.update(ENVIRONMENTS[mode])
    nb.settle_environment()
    with ProcessPoolExecutor(min(2, len(stems))) as pool:
        yield from pool.map(execute, stems, [mode] * len(stems))


def unit_tests_in(mode: str) -> tuple[str, list[str]]:
    """pytest's closing line in a mode, and the tests that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *UNIT_TESTS], cwd=nb.ROOT, env=ENVIRONMENTS[mode], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["pytest printed nothing"]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return lines[-1].strip("= "), failed or ([] if done.returncode == 0 else lines[-20:])


ENVIRONMENTS = {mode: environment(mode) for mode in MODES}


# -- the table


ROW = "{:<24} {:<12} {:>7} {:>6} {:>8} {:>8} {:>6}  {}"


def show(result: Outcome) -> None:
    verdict = "pass" if not result.faults else f"FAIL ({len(result.faults)})"
    print(
        ROW.format(
            result.stem, result.mode, result.numbers, result.moved, f"{result.errors:.2f}",
            f"{result.picture:.1f}", f"{result.seconds:.0f}", verdict,
        ),
        flush=True,
    )  # fmt: skip


def summary(results: list[Outcome]) -> str:
    uncertain, agreeing = sum(r.uncertain for r in results), sum(r.agreeing for r in results)
    share = f"{agreeing / uncertain:.1%}" if uncertain else "none"
    return f"numbers with an uncertainty: {uncertain}; within 2 combined standard errors: {agreeing} ({share})"


def changed() -> list[str]:
    """Chapters whose source or outputs differ between this commit and the one before."""
    git = ["git", "-C", str(nb.ROOT), "diff", "--name-only", "HEAD^", "HEAD", "--", "book"]
    done = subprocess.run(git, capture_output=True, text=True)
    if done.returncode:
        print("the commit before this one is not here (a shallow clone), so no chapter is known to have changed")
    stems = {Path(name).stem for name in done.stdout.split() if re.match(r"book/\d\d_\w+\.(py|ipynb)$", name)}
    return sorted(stem for stem in stems if (nb.BOOK / f"{stem}.ipynb").exists())


def mode_of_commit() -> str:
    done = subprocess.run(["git", "-C", str(nb.ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    others = [mode for mode in offered() if mode != "native"]
    return others[int(done.stdout.strip()[:8] or "0", 16) % len(others)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapter", nargs="*", help="03_ssa or book/03_ssa.py; all when left out")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=offered(), help="all that this machine can run")
    parser.add_argument("--no-tests", action="store_true", help="chapters only")
    parser.add_argument("--changed", action="store_true", help="chapters of the last commit, in a mode chosen by it")
    args = parser.parse_args(argv)
    stems = [py.stem for py in nb.chapters(args.chapter)]
    if args.changed:
        args.modes, args.no_tests, stems = [mode_of_commit()], True, changed()
        print(f"mode {args.modes[0]}; chapters that the last commit changed: {', '.join(stems) or 'none'}", flush=True)
    results, tests = [], {}
    print(ROW.format("chapter", "mode", "numbers", "moved", "max se", "RMS", "s", "verdict"), flush=True)
    for mode in args.modes if stems else ():
        for result in chapters_in(mode, stems):
            results.append(result)
            show(result)
        if not args.no_tests:
            tests[mode] = unit_tests_in(mode)
            print(f"{'unit tests':<24} {mode:<12} {tests[mode][0]}", flush=True)
    faults = [f"{r.stem}, {r.mode}: {fault}" for r in results for fault in r.faults]
    faults += [f"unit tests, {mode}: {line}" for mode, (_, failed) in tests.items() for line in failed]
    print(summary(results), *faults, sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
