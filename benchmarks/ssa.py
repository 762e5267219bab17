"""What SSA costs: CPU time and memory against ssalib, growth with the length of the series.

    python -m venv peer && peer/bin/pip install ssalib==0.1.3
    .venv/bin/python benchmarks/ssa.py --peer peer/bin/python        (about four minutes)

Every figure is of a fresh process with one thread that decomposes to rank 20 and reconstructs; ours and each
mode of the peer take turns. Ratios are the median over rounds of the peer's best mode over ours.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

RANK = 20
CASES = [(10_000, 1000), (10_000, 5000), (100_000, 1000)]
GOALS = {(10_000, 1000): 25, (10_000, 5000): 50, (100_000, 1000): 60}
PEER_MODES = ["bk_trajectory:scipy_sparse", "bk_covariance:numpy_standard", "bk_covariance:scipy_sparse"]
CROSSOVER = [(5000, 500), (10_000, 1000), (30_000, 1000), (30_000, 2000), (100_000, 2000), (100_000, 3000)]
LONG = [10_000, 30_000, 100_000, 300_000, 1_000_000]


def series(n: int):
    """Trend, three oscillations, and noise: twenty components are signal and noise together."""
    import numpy as np

    t = np.arange(n)
    noise = np.random.default_rng(0).standard_normal(n)
    return 1e-3 * t**0.5 + np.sin(t / 7) + np.sin(t / 30) + 0.5 * np.sin(t / 211) + noise


def ours(x, window: int, mode: str):
    """Decompose and reconstruct with mspace."""
    from mspace.ssa import SSA

    return SSA.of(x, window, rank=RANK, method=mode).reconstruct().numpy()


def peer(x, window: int, mode: str):
    """The same with ssalib."""
    from ssalib import SingularSpectrumAnalysis

    kind, solver = mode.split(":")
    ssa = SingularSpectrumAnalysis(x, window=window, svd_matrix_kind=kind, svd_solver=solver, standardize=False)
    return ssa.decompose(n_components=RANK).reconstruct({"all": list(range(RANK))})["all"]


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    return int(re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3


def worker(who: str, mode: str, n: int, window: int) -> None:
    """Measure one run in this process and print it as json."""
    run = {"ours": ours, "peer": peer}[who]
    x = series(n)
    run(series(400), 60, mode)  # imports, plans, allocators
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = resident("VmRSS"), time.process_time()
    y = run(x, window, mode)
    cpu = time.process_time() - start
    print(json.dumps({"cpu": cpu, "mb": resident("VmHWM") - before, "sum": float(abs(y).sum()), "last": float(y[-1])}))


def measure(python: str, *args) -> dict:
    """One fresh process with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    root = str(Path(__file__).resolve().parent.parent)
    env = os.environ | one | ({"PYTHONPATH": root} if args[0] == "ours" else {})
    out = subprocess.run([python, __file__, "--worker", *map(str, args)], capture_output=True, text=True, env=env)
    if out.returncode:
        raise SystemExit(f"{args} failed:\n{out.stderr}")
    return json.loads(out.stdout.splitlines()[-1])


def against_peer(python: str, rounds: int) -> None:
    """The table of ratios; the peer's best mode is the one with the least median CPU time."""
    print(
        "rank 20, decomposition and reconstruction\n  N, L            peer's best mode               "
        "CPU peer/ours     memory peer/ours   peer, ours MB   agree to   goal"
    )
    for n, window in CASES:
        runs, modes = [], PEER_MODES
        for _ in range(rounds):
            own = measure(sys.executable, "ours", "auto", n, window)
            runs.append((own, {m: measure(python, "peer", m, n, window) for m in modes}))
            fastest = min(r["cpu"] for r in runs[0][1].values())
            modes = [m for m in modes if runs[0][1][m]["cpu"] < 2 * fastest]  # the others cannot win
        best = min(modes, key=lambda m: statistics.median(r[1][m]["cpu"] for r in runs))
        cpu = [p[best]["cpu"] / o["cpu"] for o, p in runs]
        mb = statistics.median(p[best]["mb"] for _, p in runs), statistics.median(o["mb"] for o, _ in runs)
        gap = abs(runs[0][0]["sum"] / runs[0][1][best]["sum"] - 1)
        print(
            f"  {n:>6}, {window:<6}  {best:<29} {statistics.median(cpu):6.1f} ({min(cpu):.1f}-{max(cpu):.1f})"
            f"   {mb[0] / mb[1]:8.1f}          {mb[0]:7.0f}, {mb[1]:<6.1f} {gap:.0e}   >= {GOALS[n, window]}",
            flush=True,
        )


def exponent(times: list[float]) -> float:
    """Slope of log time against log N, by least squares over LONG."""
    x, y = [math.log(n) for n in LONG], [math.log(t) for t in times]
    mx, my = statistics.mean(x), statistics.mean(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)


def growth(rounds: int) -> None:
    """CPU time and memory of long series, and how they grow with N."""
    for name, window in [("L = 1000", lambda n: 1000), ("L = N / 2", lambda n: n // 2)]:
        runs = [[measure(sys.executable, "ours", "auto", n, window(n)) for n in LONG] for _ in range(rounds)]
        cpu = [statistics.median(r[i]["cpu"] for r in runs) for i in range(len(LONG))]
        mb = [statistics.median(r[i]["mb"] for r in runs) for i in range(len(LONG))]
        print(f"{name}: growth exponent in N {exponent(cpu):.2f} (goal: at most 1.4)")
        for n, c, m in zip(LONG, cpu, mb):
            print(f"  N = {n:>9,}   {c / cpu[0]:8.1f} x the CPU time of N = 10,000   {m:6.0f} MB")


def crossover(rounds: int) -> None:
    """Lanczos over lagged covariance: the thresholds in mspace/ssa/hankel.py come from here."""
    for n, window in CROSSOVER:
        ratio = [
            measure(sys.executable, "ours", "lanczos", n, window)["cpu"]
            / measure(sys.executable, "ours", "covariance", n, window)["cpu"]
            for _ in range(rounds)
        ]
        print(f"  N = {n:>7,}, L = {window:<5}  CPU lanczos/covariance {statistics.median(ratio):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has ssalib")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crossover", action="store_true", help="only compare our two ways to the leading vectors")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        who, mode, n, window = options.worker
        worker(who, mode, int(n), int(window))
    elif options.crossover:
        crossover(options.rounds)
    else:
        if options.peer:
            against_peer(options.peer, options.rounds)
        growth(max(1, options.rounds // 2))
