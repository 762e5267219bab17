"""What it costs to keep a covariance along a path of descent, against updating a matrix at every step.

    .venv/bin/python benchmarks/online.py            (half a minute)

One torch thread, float64. A ratio is the CPU time per step of `torch.outer` in Welford's update over that of the package,
which holds 64 vectors and adds their products in one go; the median of rounds in which the two take turns. Both
must find the same matrix.
"""

from __future__ import annotations

import statistics
import time

import torch

from mspace.posterior.path import _Grams

GOAL = 20


class Welford:
    """One outer product a step."""

    def __init__(self, size: int):
        self.count, self.mean, self.scatter = 0, torch.zeros(size).double(), torch.zeros(size, size).double()

    def add(self, vector):
        self.count += 1
        gap = vector - self.mean
        self.mean = self.mean + gap / self.count
        self.scatter += torch.outer(gap, vector - self.mean)

    def total(self):
        return self.scatter


class Blocked:
    """The package's, with the mean taken out at the end."""

    def __init__(self, size: int):
        self.grams, self.sum, self.count = _Grams([torch.arange(size)[None]]), torch.zeros(size).double(), 0

    def add(self, vector):
        self.grams.add(vector[None])
        self.sum += vector
        self.count += 1

    def total(self):
        return self.grams.total()[0][0] - torch.outer(self.sum, self.sum) / self.count


def cost(kind, path) -> tuple[float, torch.Tensor]:
    """CPU seconds a step, and the matrix."""
    keeper, start = kind(path.shape[1]), time.process_time()
    for vector in path:
        keeper.add(vector)
    found = keeper.total()
    return (time.process_time() - start) / len(path), found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for size, steps in ((703, 512), (2110, 192)):
        path, ratios = torch.randn(steps, size, dtype=torch.float64), []
        for _ in range(7):
            (slow, one), (fast, other) = cost(Welford, path), cost(Blocked, path)
            ratios.append(slow / fast)
        assert torch.allclose(one, other, atol=1e-9)
        told = f"{statistics.median(ratios):.0f} ({min(ratios):.0f}-{max(ratios):.0f})"
        print(f"{size} parameters: an outer product a step over blocks {told}  goal {GOAL}", flush=True)
