"""What threads cost where matrices are small: wall and CPU time at 1, 2 and 16 threads, with `mspace.threads` and without.

    .venv/bin/python benchmarks/threads.py                         (minutes where 16 threads are more than the cores)

The numbers of threads of torch and of every BLAS are set as variables or the number of cores would set them. Then each
case runs as the package runs it, on one thread where matrices are small, and with that switched off; both take turns,
and times are medians of the rounds, in milliseconds. "over one" is the time without the limit over that on one thread,
and "with it" the same with the limit, which should be near one. A machine that is busy shows the cost in wall time,
for a thread that waits for a core holds up all others; one that is idle shows it in CPU time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from threadpoolctl import threadpool_limits

import mspace as ms
from mspace import threads

COUNTS = (1, 2, 16)
PATIENCE = 20.0  # seconds after which a case has no further round
REST = 0.1  # seconds in which threads that the other side has left spinning go to sleep


def neurons(m: int, n: int) -> ms.NeuronDistribution:
    draw = torch.Generator().manual_seed(n)
    factor = torch.randn(m, n, n, generator=draw, dtype=torch.float64)
    mean = torch.randn(m, n, generator=draw, dtype=torch.float64)
    return ms.NeuronDistribution(mean, factor @ factor.mT / n)


def cases() -> dict:
    t = torch.arange(400, dtype=torch.float64)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    series = 0.01 * t + 2 * torch.sin(2 * math.pi * t / 40) + torch.sin(2 * math.pi * t / 11.3) + 0.3 * noise
    eight, three = neurons(40, 8), neurons(1000, 3)

    def chapter_03():
        ssa = ms.SSA.of(series, 200)
        ssa.w_correlation(slice(30)), ssa.pairs(), ssa.forecast(50, range(6))

    def clusters():
        ms.KMeans(5, metric=ms.wasserstein2, generator=torch.Generator().manual_seed(0)).fit(eight)

    return {
        "SSA of 400 samples, as in chapter 03": chapter_03,
        "W2 of 40 neurons in R^8": lambda: ms.wasserstein2(eight),
        "ellipsoids of 1000 neurons in R^3": three.ellipsoid,
        "k-means of 40 neurons in R^8": clusters,
    }


def measure(run, rounds: int) -> dict[bool, tuple[float, float]]:
    """Median wall and CPU time, in ms, by whether small matrices are kept on one thread."""
    limit, taken, begun = threads.SMALL, {True: [], False: []}, time.perf_counter()
    while len(taken[False]) < rounds and (not taken[False] or time.perf_counter() - begun < PATIENCE):
        for limited, times in taken.items():
            threads.SMALL = limit if limited else 0
            time.sleep(REST)
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times.append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
    threads.SMALL = limit
    return {k: tuple(map(statistics.median, zip(*v, strict=True))) for k, v in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{'wall / CPU, ms':38}{'threads':>8}{'without':>18}{'over one':>16}{'limited':>18}{'over one':>16}")
    for name, run in cases().items():
        base = None
        for count in COUNTS:
            torch.set_num_threads(count)
            with threadpool_limits(count, user_api="blas"):
                run()
                found = measure(run, rounds)
            base = base or found[False]
            cells = "".join(
                f"{wall:>9.1f} /{cpu:>7.1f}{wall / base[0]:>9.1f} /{cpu / base[1]:>5.1f}"
                for wall, cpu in (found[False], found[True])
            )
            print(f"{name:38}{count:>8}{cells}", flush=True)


if __name__ == "__main__":
    main()
