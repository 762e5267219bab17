"""Resampling for the bootstrap: examples drawn with replacement, weights of examples, or blocks of neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import as_series, check_int
from ..series.trajectories import autocorrelation

__all__ = ["KINDS", "Resampler", "block_length", "differ_in_size", "overlap"]

KINDS = ("pairs", "weights", "blocks", "fixed")


@dataclass(frozen=True)
class Resampler:
    """Draws n examples, or their weights, anew.

    Attributes:
        kind: "pairs", examples with replacement (Efron 1979); "weights", Dirichlet weights, the Bayesian
            bootstrap (Rubin 1981); "blocks", runs of neighbours (Kuensch 1989); "fixed", the data themselves
        block: neighbours a block
        strata: (n,) labels whose counts every draw keeps, or None
        groups: (n,) labels, of which whole ones are drawn or weighted; of recordings for blocks, which lie one after another
            and whose joints no block crosses; or None
    """

    kind: str
    block: int = 1
    strata: Tensor | None = None
    groups: Tensor | None = None

    @property
    def weighs(self) -> bool:
        """Whether examples are weighted: also where groups of different sizes are drawn, so that all see n examples."""
        return self.kind == "weights" or (self.kind == "pairs" and differ_in_size(self.groups))

    def indices(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Return which examples are drawn, (n,), or None where they are weighted or all kept."""
        if self.kind == "blocks":
            starts = self.starts(n)
            chosen = starts[torch.randint(len(starts), (-(-n // self.block),), generator=generator)]
            return (chosen[:, None] + torch.arange(self.block)).flatten()[:n]
        if self.kind != "pairs":
            return None
        if self.weighs:
            return None
        if self.groups is not None:
            members = self.groups.argsort(stable=True).view(int(self.groups.max()) + 1, -1)
            return members[torch.randint(len(members), (len(members),), generator=generator)].flatten()
        drawn = torch.empty(n, dtype=torch.long)
        for members in self._strata(n):
            drawn[members] = members[torch.randint(len(members), (len(members),), generator=generator)]
        return drawn

    def weights(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Return how often each example counts, (n,) with mean one, or None where examples are drawn."""
        if not self.weighs:
            return None
        if self.groups is not None:
            count = int(self.groups.max()) + 1
            if self.kind == "pairs":
                of_group = torch.randint(count, (count,), generator=generator).bincount(minlength=count).double()
            else:
                of_group = torch.rand(count, generator=generator, dtype=torch.float64).log().neg()
            weight = of_group[self.groups]
            return weight / weight.mean()
        weight = torch.rand(n, generator=generator, dtype=torch.float64).log().neg()
        for members in self._strata(n):
            weight[members] *= len(members) / weight[members].sum()
        return weight

    def _strata(self, n: int) -> list[Tensor]:
        labels = torch.zeros(n, dtype=torch.long) if self.strata is None else self.strata
        return [(labels == k).nonzero().flatten() for k in labels.unique()]

    def starts(self, n: int) -> Tensor:
        """Return the indices at which a block may begin: it lies inside one recording.

        Raises:
            ValueError: where none fits
        """
        first = torch.arange(max(0, n - self.block + 1))
        if self.groups is not None:
            recording = torch.zeros(n, dtype=torch.long)
            recording[1:] = (self.groups[1:] != self.groups[:-1]).cumsum(0)
            first = first[recording[first] == recording[first + self.block - 1]]
        if not len(first):
            raise ValueError(f"block must fit into the data, got {self.block} for {n} examples: take a shorter one")
        return first


def differ_in_size(groups) -> bool:
    """Return whether groups, labels or None, hold different numbers of examples."""
    return groups is not None and len(torch.as_tensor(groups).unique(return_counts=True)[1].unique()) > 1


def overlap(x: Tensor) -> int:
    """Return the width of inputs (n, width, ...) that are consecutive windows of one series, 1 for anything else."""
    if x.ndim < 2 or len(x) < 2 or x.shape[1] < 2:
        return 1
    some = slice(0, 50)
    return x.shape[1] if torch.equal(x[1:][some, :-1], x[:-1][some, 1:]) else 1


def block_length(series) -> int:
    """Return the length of blocks that estimates the variance of the mean of a series (T,) best.

    The rule of Politis and White (2004) with the correction of Patton, Politis and White (2009), for circular
    blocks: a flat-top estimate of the spectrum at zero and of its curvature, cut where correlations vanish.
    """
    x = as_series(series, ndim=(1,)).double()
    n = len(x)
    if n < 10:
        raise ValueError(f"series must have at least 10 samples to choose a block from, got {n}: name the block")
    runs = max(5, round(math.sqrt(math.log10(n))))
    most = math.ceil(math.sqrt(n)) + runs
    rho = autocorrelation(x, min(2 * most, n - 1))
    small = rho[1:].abs() < 2 * math.sqrt(math.log10(n) / n)
    quiet = [m for m in range(min(most, len(small) - runs)) if small[m : m + runs].all()]
    cut = min(2 * max(1, quiet[0] if quiet else most), len(rho) - 1)
    k = torch.arange(1, cut + 1, dtype=x.dtype)
    top = (2 * (1 - k / cut)).clamp(max=1.0) * rho[1 : cut + 1]
    curvature, spectrum = 2 * (k * top).sum(), 1 + 2 * top.sum()
    if spectrum <= 0:
        return 1
    best = (1.5 * (curvature / spectrum) ** 2 * n) ** (1 / 3)
    return check_int(max(1, min(math.ceil(best), math.ceil(min(3 * math.sqrt(n), n / 3)))), "block", 1)
