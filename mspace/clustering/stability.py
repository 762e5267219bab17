"""Does an ensemble drawn anew find the same clusters?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..checks import check_int
from ..neurons import NeuronDistribution, check_samples
from ..training import member_seeds

__all__ = ["Stability", "as_labels", "resampled"]


def resampled(
    samples, n_resamples: int = 50, *, generator: torch.Generator | None = None
) -> Iterator[NeuronDistribution]:
    """Yield populations as other ensembles of the same size might have given them: networks drawn with replacement.

    Args:
        samples: (N, m, n) draws, such as ``ensemble.samples(layer)``, the networks on axis 0
    """
    x = check_samples(samples, 2)
    seeds = member_seeds(check_int(n_resamples, "n_resamples", 1), generator)
    return (NeuronDistribution.from_samples(x[_drawn(len(x), seed)]) for seed in seeds)


def _drawn(count: int, seed: int) -> Tensor:
    return torch.randint(count, (count,), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, eq=False)
class Stability:
    """Partitions of resampled ensembles against the one of reference.

    Attributes:
        reference: (m,), labels
        partitions: (B, m), labels found again, B times
    """

    reference: Tensor
    partitions: Tensor

    @classmethod
    def of(cls, reference, partitions: Iterable) -> Stability:
        """From labels (m,) and any number of them, such as ``map(cluster, resampled(samples))``."""
        reference = as_labels(reference, "reference")
        if not isinstance(partitions, Iterable):
            raise ValueError(f"partitions must be labels one after another, got {partitions!r}: put one in a list")
        found = [as_labels(p, f"partitions[{i}]", len(reference)) for i, p in enumerate(partitions)]
        if not found:
            raise ValueError("partitions must be at least one, got none")
        return cls(reference, torch.stack(found))

    @cached_property
    def together(self) -> Tensor:
        """(m, m), the share of partitions that put two neurons together."""
        m = len(self.reference)
        pairs = torch.zeros(m, m, dtype=torch.float64)
        for p in self.partitions:
            pairs += p[:, None] == p
        return pairs / len(self.partitions)

    @cached_property
    def ari(self) -> Tensor:
        """(B,), adjusted Rand indices to the reference: 1 the same, 0 as by chance (Hubert and Arabie 1985)."""
        return _scores("adjusted_rand_score", ((self.reference, p) for p in self.partitions))

    @cached_property
    def ami(self) -> Tensor:
        """(B,), adjusted mutual information with the reference (Vinh et al. 2010)."""
        return _scores("adjusted_mutual_info_score", ((self.reference, p) for p in self.partitions))

    @cached_property
    def pairwise(self) -> float:
        """Mean adjusted Rand index between the partitions, which owes nothing to the reference; nan for one."""
        return float(_scores("adjusted_rand_score", combinations(self.partitions, 2)).mean())

    @property
    def ambiguous(self) -> float:
        """Share of pairs together in more than 10 and less than 90 % of the partitions (Senbabaoglu et al. 2014)."""
        m = len(self.reference)
        i, j = torch.triu_indices(m, m, 1)
        share = self.together[i, j]
        return float(((share > 0.1) & (share < 0.9)).double().mean()) if len(share) else 0.0

    @property
    def within(self) -> Tensor:
        """(k,), how often pairs of each reference cluster are together; nan for a neuron by itself."""
        labels = self.reference.unique()
        chosen = [self.together[self.reference == label][:, self.reference == label] for label in labels]
        return torch.stack([(t.sum() - len(t)) / (len(t) * (len(t) - 1)) for t in chosen])


def as_labels(labels, name: str, m: int | None = None) -> Tensor:
    """Return labels (m,) as whole numbers of at least zero."""
    try:
        given = np.asarray(labels)
    except (TypeError, ValueError, RuntimeError):  # ragged, or of a kind that is no array
        given = np.empty((), dtype=object)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu" or m not in (None, len(given)):
        size = "m" if m is None else m
        raise ValueError(
            f"{name} must be whole numbers ({size},), one for each neuron, got {given.dtype} {given.shape}: "
            "np.unique(names, return_inverse=True)[1] makes numbers of names"
        )
    if given.min() < 0:
        raise ValueError(
            f"{name} must be at least 0, got {int((given < 0).sum())} below: neurons that belong to no cluster are no "
            "cluster, leave them out, or give each a label of its own"
        )
    return torch.from_numpy(given.astype(np.int64))


def _scores(name: str, pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    import sklearn.metrics

    score = getattr(sklearn.metrics, name)
    return torch.tensor([score(a.numpy(), b.numpy()) for a, b in pairs], dtype=torch.float64)
