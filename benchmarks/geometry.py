"""What Wasserstein geometry costs: all distances, and barycenters, against the usual ways to them.

    .venv/bin/python benchmarks/geometry.py            (about three minutes; --quick for one)

One thread. Distances are those of the full m x m matrix inside one population, CPU time a pair; a ratio is the median
of rounds in which all take turns. The loops are slow, so they run on some of the pairs, drawn anew each round, and are
scaled by their number: the paper's authors took `scipy.linalg.sqrtm` twice a pair in a double loop; POT has a function
to call in a loop, and to give all pairs at once. Needs POT, which is installed with the tests.

The goals against `sqrtm` were set with SciPy 1.15. That of 1.17 is compiled, and some five times as fast in R^3, so
that now POT's loop is the slowest; the ratio to each is what counts where it runs. On one machine, R^3, R^4 and R^10:
3267, 515 and 46 times with SciPy 1.15.3, and 649, 100 and 17 times with 1.17.1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits

from mspace.metrics import wasserstein2
from mspace.neurons import NeuronDistribution

# n, m, rank, pairs of the loops, neurons for POT's batch, goals against: authors, POT's loop, POT's batch
DISTANCES = [
    (3, 1000, None, 300, 150, (1000, None, 20)),
    (4, 128, None, 300, 128, (100, None, None)),
    (10, 300, None, 200, 60, (45, None, 9)),
    (100, 60, None, 12, None, (25, 10, None)),
    (100, 60, 24, 12, None, (None, None, None)),
]
BARYCENTERS = [(3, 100, 10, 2.3), (10, 100, 10, 2.3), (10, 1000, 10, 2.3)]  # n, m, clusters, goal


def population(m: int, n: int, rank: int | None = None) -> NeuronDistribution:
    """Covariances of as many draws as make them well conditioned, or of few."""
    generator = torch.Generator().manual_seed(n)
    draws = (rank or 2 * n) + 1
    x = torch.randn(draws, m, n, generator=generator, dtype=torch.float64)
    return NeuronDistribution.from_samples(x + torch.randn(m, n, generator=generator))


def seconds(call: Callable[[], object]) -> float:
    """CPU time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def by_sqrtm(p: NeuronDistribution, pairs: np.ndarray) -> list[float]:
    """The distance as it is defined, a pair at a time."""
    mean, cov = p.mean.numpy(), p.cov.numpy()
    found = []
    for i, j in pairs:
        root = sqrtm(cov[i])
        cross = np.real(np.trace(sqrtm(root @ cov[j] @ root)))
        squared = np.sum((mean[i] - mean[j]) ** 2) + np.trace(cov[i]) + np.trace(cov[j]) - 2 * cross
        found.append(np.sqrt(max(squared, 0)))
    return found


def by_pot(p: NeuronDistribution, pairs: np.ndarray) -> list[float]:
    """POT's function in a loop."""
    from ot.gaussian import bures_wasserstein_distance as distance

    mean, cov = p.mean.numpy(), p.cov.numpy()
    return [float(distance(mean[i], mean[j], cov[i], cov[j])) for i, j in pairs]


def by_pot_at_once(p: NeuronDistribution) -> np.ndarray:
    """POT's function on all pairs."""
    from ot.gaussian import bures_wasserstein_distance as distance

    return distance(p.mean.numpy(), p.mean.numpy(), p.cov.numpy(), p.cov.numpy())


def summary(ratios: list[float], goal: float | None) -> str:
    """The median, its range and the goal; blank where nothing was measured."""
    if not ratios:
        return "-"
    known = f"{statistics.median(ratios):.0f}" if min(ratios) > 10 else f"{statistics.median(ratios):.1f}"
    return f"{known} x" + (f" (goal {goal:g})" if goal else "")


def distances(rounds: int) -> None:
    """The table of all pairs."""
    print("All Wasserstein distances: CPU a pair over ours")
    heads = ("", "ours, us", "sqrtm loop", "POT loop", "POT at once", "largest difference")
    row = "  {:<26}{:>10}{:>20}{:>18}{:>18}{:>20}"
    print(row.format(*heads))
    for n, m, rank, some, few, goals in DISTANCES:
        p = population(m, n, rank)
        wasserstein2(p), by_sqrtm(p, [(0, 1)]), by_pot(p, [(0, 1)])
        ours, ratios, apart = [], ([], [], []), 0.0
        for k in range(rounds):
            rng = np.random.default_rng(k)
            pairs = np.stack([rng.integers(m, size=some), rng.integers(m, size=some)], 1)
            pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            found: list = []
            each = seconds(lambda: found.append(wasserstein2(p))) / m**2  # noqa: B023
            ours.append(each)
            for ratio, loop in zip(ratios, (by_sqrtm, by_pot)):
                ratio.append(seconds(lambda: found.append(loop(p, pairs))) / len(pairs) / each)  # noqa: B023
            if few:
                ratios[2].append(seconds(lambda: by_pot_at_once(p[:few])) / few**2 / each)  # noqa: B023
            here = found[0].numpy()[pairs[:, 0], pairs[:, 1]]
            apart = max(apart, float(np.abs(here - found[2]).max()))
        name = f"R^{n}, m = {m}" + (f", rank {rank}" if rank else "")
        cells = [summary(r, g) for r, g in zip(ratios, goals)]
        print(row.format(name, f"{1e6 * statistics.median(ours):.3g}", *cells, f"{apart:.0e}"), flush=True)


def pot_barycenters(p: NeuronDistribution, labels: torch.Tensor, k: int) -> list[np.ndarray]:
    """POT's fixed point, a cluster at a time, to the same tolerance."""
    from ot.gaussian import bures_wasserstein_barycenter as barycenter

    chosen = [labels == c for c in range(k)]
    return [barycenter(p.mean[c].numpy(), p.cov[c].numpy(), eps=1e-10)[1] for c in chosen]


def barycenters(rounds: int) -> None:
    """The table of barycenters of all clusters."""
    print("Barycenters of all clusters: CPU over ours")
    for n, m, k, goal in BARYCENTERS:
        p, labels = population(m, n), torch.arange(m) % k
        ratios, apart = [], 0.0
        for _ in range(rounds + 1):
            found: list = []
            ours = seconds(lambda: found.append(wasserstein2.barycenter(p, labels)))  # noqa: B023
            pot = seconds(lambda: found.append(pot_barycenters(p, labels, k)))  # noqa: B023
            ratios.append(pot / ours)
            apart = float(np.abs(found[0].cov.numpy() - np.stack(found[1])).max())
        name = f"R^{n}, m = {m}, k = {k}"
        print(f"  {name:<26} POT, a loop over k: {summary(ratios[1:], goal):<20} difference {apart:.0e}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for part in (distances, barycenters):
            part(rounds=3 if quick else 7)
