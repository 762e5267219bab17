"""The one noun of the package: a layer as a population of Gaussian random vectors (the paper's section 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import gammaincinv
from torch import Tensor

from ._linalg import clean_psd, eigh_psd, is_full_rank
from .checks import as_tensor, check_fraction, check_generator, check_int
from .network.weights import weight_of
from .threads import small

__all__ = ["NeuronDistribution", "weight_of"]

PROJECT = "project it first, or estimate it with more draws"
LARGE = 1 << 24  # numbers in all covariances, above which those of a low rank are kept as factors: 128 MB
LARGEST = 1 << 30  # numbers in matrices that are made at once on request: 8 GB


@dataclass(frozen=True, eq=False)
class NeuronDistribution:
    """Hold m Gaussian vectors in R^n: the neurons of a layer, float64 on the CPU (the paper's e_i and A_i^-1).

    Attributes:
        mean: (m, n)
        cov: (m, n, n), the covariance of the parameters themselves, symmetric and positive semidefinite;
            singular ones are welcome. Asymmetry and negative eigenvalues of the size of rounding are removed.
    """

    mean: Tensor
    cov: Tensor

    def __post_init__(self):
        given = as_tensor(self.cov, "cov")
        mean, cov = (x.detach().to("cpu", torch.float64) for x in (as_tensor(self.mean, "mean"), given))
        if mean.ndim != 2 or 0 in mean.shape or cov.shape != (*mean.shape, mean.shape[1]):
            raise ValueError(f"mean must be (m, n) and cov (m, n, n), got {tuple(mean.shape)} and {tuple(cov.shape)}")
        for name, value in (("mean", mean), ("cov", cov)):
            if not torch.isfinite(value).all():
                bad = int((~torch.isfinite(value)).sum())
                raise ValueError(f"{name} must be finite, got {bad} values that are not")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", clean_psd(cov, "cov", PROJECT, torch.finfo(given.dtype).eps))

    @classmethod
    def from_samples(cls, samples) -> NeuronDistribution:
        """Return the unbiased moments of N draws of every neuron: (N, m, n), N >= 2; covariances have rank below N.

        Where that rank is low and covariances are large, such as those of kernels, they are kept as factors: means,
        variances, `sample`, `marginal` and `wasserstein2` do without matrices (n, n), and `cov` makes them when asked.
        """
        x = check_samples(samples, 2)
        centered = x - x.mean(0)
        if _is_large(x.shape[1], x.shape[2], len(x)):
            return LowRankNeurons(x.mean(0), centered.movedim(0, 2) / (len(x) - 1) ** 0.5)
        return cls(x.mean(0), torch.einsum("smi,smj->mij", centered, centered) / (len(x) - 1))

    def __repr__(self) -> str:
        return f"NeuronDistribution({len(self)} neurons in R^{self.dim})"

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index) -> NeuronDistribution:
        """Return some of the neurons, by index, slice, list or mask; one of them is a population of one."""
        index = self._index(index)
        return NeuronDistribution(self.mean[index], self.cov[index])

    def _index(self, index):
        """Return an index of tensors, or refuse what chooses no neurons."""
        index = index.item() if getattr(index, "ndim", None) == 0 else index
        if isinstance(index, int):
            if not -len(self) <= index < len(self):  # makes a population a sequence: iteration ends here
                raise IndexError(f"neuron {index} of {len(self)}")
            index = [index]
        try:
            self.mean[index]
        except (IndexError, TypeError, ValueError, RuntimeError) as why:
            raise IndexError(
                f"neurons are chosen by index, slice, list or mask of {len(self)}, got {index!r:.80}"
            ) from why
        return index

    @property
    def dim(self) -> int:
        """Return n, the number of weights of a neuron."""
        return self.mean.shape[1]

    @property
    def variances(self) -> Tensor:
        """Return the variances of the weights of each neuron, (m, n)."""
        return self.cov.diagonal(dim1=1, dim2=2)

    @property
    def total_variance(self) -> Tensor:
        """Return the summed variances of each neuron, the trace of its covariance, (m,)."""
        return self.variances.sum(1)

    @property
    def full_rank(self) -> Tensor:
        """Return which neurons have a covariance that is not singular, and so a density, (m,)."""
        return is_full_rank(self.cov)

    def mean_cov(self, weights: Tensor) -> Tensor:
        """Return sums of the covariances with weights (k, m), (k, n, n)."""
        return torch.einsum("km,mij->kij", weights, self.cov)

    def marginal(self, coords: Sequence[int]) -> NeuronDistribution:
        """Return the distribution of some coordinates of every neuron, in the order given."""
        c = self._coordinates(coords)
        return NeuronDistribution(self.mean[:, c], self.cov[:, c][:, :, c])

    def condition(self, coords: Sequence[int], value) -> NeuronDistribution:
        """Return the distribution of the other coordinates when `coords` have the given value, (k,) or (m, k).

        Raises:
            ValueError: where a singular covariance makes that value impossible.
        """
        c = self._coordinates(coords)
        rest = [i for i in range(self.dim) if i not in c.tolist()]
        if not rest:
            raise ValueError(f"coords must leave a coordinate over, got all {self.dim}: use `marginal` to reorder")
        value = as_tensor(value, "value").detach().to("cpu", torch.float64)
        if value.shape not in {(len(c),), (len(self), len(c))} or not torch.isfinite(value).all():
            raise ValueError(f"value must be finite and ({len(c)},) or ({len(self)}, {len(c)}), got {value.tolist()}")
        known, across = self.cov[:, c][:, :, c], self.cov[:, rest][:, :, c]
        with small(self.dim):
            inverse = torch.linalg.pinv(known, hermitian=True)
        moved = value - self.mean[:, c]
        off = ((known @ inverse - torch.eye(len(c), dtype=torch.float64)) @ moved[..., None]).squeeze(-1)
        if (off.norm(dim=1) > 1e-6 * (moved.norm(dim=1) + self.mean[:, c].norm(dim=1))).any():
            raise ValueError("value is impossible, the covariance has no variance in that direction: use `marginal`")
        gain = across @ inverse
        mean = self.mean[:, rest] + (gain @ moved[..., None]).squeeze(-1)
        before = self.cov[:, rest][:, :, rest]
        with small(self.dim):
            eigenvalues, eigenvectors = torch.linalg.eigh(before - (gain @ across.mT + across @ gain.mT) / 2)
        # What is left may be nothing but rounding of what was there, so it is measured by that.
        rounding = self.dim * torch.finfo(mean.dtype).eps * before.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
        eigenvalues = torch.where(eigenvalues < rounding, 0.0, eigenvalues)
        return NeuronDistribution(mean, eigenvectors @ (eigenvalues[..., None] * eigenvectors.mT))

    def sample(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Return draws of every neuron, (size, m, n); neurons are drawn independently of each other."""
        check_int(size, "size", 0)
        check_generator(generator)
        eigenvalues, eigenvectors = eigh_psd(self.cov)
        # symmetric: signs and turns of eigenvectors do not matter
        root = (eigenvectors * eigenvalues.sqrt()[:, None]) @ eigenvectors.mT
        z = torch.randn(size, *self.mean.shape, generator=generator, dtype=torch.float64)
        return self.mean + torch.einsum("mij,smj->smi", root, z)

    def ellipsoid(self, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
        """Return the regions that hold `level` of each Gaussian: centers, semi-axes, directions.

        Semi-axes are sqrt(chi2) sqrt(eigenvalue), the quantile with as many degrees of freedom as the covariance
        has rank; so sqrt(5.99) in the plane and sqrt(7.81) in space for 95 %.

        Returns:
            centers (m, n), semi-axes (m, n) longest first, directions (m, n, n), unit vectors in columns
        """
        level = check_fraction(level, "level")
        eigenvalues, eigenvectors = (x.flip(-1) for x in eigh_psd(self.cov))
        rank = (eigenvalues > 0).sum(1, keepdim=True)
        quantile = torch.from_numpy(2 * gammaincinv(rank.clamp(min=1).numpy() / 2, level))
        return self.mean, (quantile * eigenvalues).sqrt(), eigenvectors

    def _coordinates(self, coords) -> Tensor:
        """Return coordinates, counted from the end where negative, or given as a mask, as an index."""
        try:
            c = torch.from_numpy(np.arange(self.dim)[np.atleast_1d(coords)])
        except (IndexError, TypeError, ValueError):
            c = torch.empty(0)
        if c.ndim != 1 or len(c) == 0 or len(c.unique()) < len(c):
            raise ValueError(f"coords must name different coordinates of 0 to {self.dim - 1}, got {coords}")
        return c


class LowRankNeurons(NeuronDistribution):
    """Hold m Gaussian vectors in R^n whose covariances F F^T have a low rank by their factors F (m, n, r)."""

    mean: Tensor
    factor: Tensor

    def __init__(self, mean: Tensor, factor: Tensor):
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "factor", factor)

    def __repr__(self) -> str:
        return f"NeuronDistribution({len(self)} neurons in R^{self.dim}, of rank below {self.factor.shape[2] + 1})"

    @cached_property
    def cov(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the covariances, (m, n, n), or refuse those that no memory holds."""
        check_room(len(self), self.dim, "cov", "or distances, which need no matrices")
        return self.factor @ self.factor.mT

    @property
    def variances(self) -> Tensor:
        """Return the variances of the weights of each neuron, (m, n)."""
        return self.factor.square().sum(2)

    @property
    def full_rank(self) -> Tensor:
        """Return that no covariance has full rank, (m,)."""
        return torch.zeros(len(self), dtype=torch.bool)

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Return eigenvalues (m, r), ascending, zero where they are rounding, and their eigenvectors (m, n, r)."""
        vectors, values, _ = torch.linalg.svd(self.factor, full_matrices=False)
        values = values.square().flip(-1)
        rounding = self.dim * torch.finfo(values.dtype).eps * values[:, -1:]
        return torch.where(values > rounding, values, 0.0), vectors.flip(-1)

    def __getitem__(self, index) -> NeuronDistribution:
        """Return some of the neurons, by index, slice, list or mask; one of them is a population of one."""
        index = self._index(index)
        return _of_factor(self.mean[index], self.factor[index])

    def mean_cov(self, weights: Tensor) -> Tensor:
        """Return sums of the covariances with weights (k, m), (k, n, n)."""
        check_room(len(weights), self.dim, "centers", "or fewer clusters")
        side_by_side = self.factor.movedim(1, 0).flatten(1)  # (n, m r)
        each = weights.repeat_interleave(self.factor.shape[2], 1)
        return torch.stack([(side_by_side * w) @ side_by_side.T for w in each])

    def marginal(self, coords: Sequence[int]) -> NeuronDistribution:
        """Return the distribution of some coordinates of every neuron, in the order given."""
        c = self._coordinates(coords)
        return _of_factor(self.mean[:, c], self.factor[:, c])

    def sample(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Return draws of every neuron, (size, m, n); neurons are drawn independently of each other."""
        check_int(size, "size", 0)
        eigenvalues, vectors = self.spectrum()
        z = torch.randn(size, *self.mean.shape, generator=check_generator(generator), dtype=torch.float64)
        along = torch.einsum("mjr,smj->smr", vectors, z) * eigenvalues.sqrt()
        return self.mean + torch.einsum("mir,smr->smi", vectors, along)


def check_room(m: int, n: int, what: str, way_out: str) -> None:
    """Refuse more matrices (n, n) than memory holds."""
    if m * n**2 > LARGEST:
        raise ValueError(
            f"{what} would hold {m} matrices {n} x {n}, {8e-9 * m * n**2:.0f} GB: take fewer neurons, neurons[:8], fewer "
            f"coordinates, `marginal`, {way_out}"
        )


def _of_factor(mean: Tensor, factor: Tensor) -> NeuronDistribution:
    if mean.ndim == 2 and _is_large(mean.shape[0], mean.shape[1], factor.shape[2]):
        return LowRankNeurons(mean, factor)
    return NeuronDistribution(mean, factor @ factor.mT)


def _is_large(m: int, n: int, rank: int) -> bool:
    """Return whether factors are to be kept instead of covariances."""
    return m * n**2 > LARGE and 2 * rank < n


def check_samples(samples, least: int) -> Tensor:
    """Return at least `least` finite draws of neurons, (N, m, n), float64 on the CPU."""
    x = as_tensor(samples, "samples").detach().to("cpu", torch.float64)
    if x.ndim != 3 or len(x) < least or 0 in x.shape:
        raise ValueError(f"samples must be (N, m, n) with N >= {least} draws, got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        bad = sorted({int(i) for i in (~torch.isfinite(x)).nonzero()[:, 0]})
        raise ValueError(f"samples must be finite, draws {bad[:5]} are not: leave those draws out")
    return x


def check_populations(p, q=None, *names: str) -> tuple[NeuronDistribution, NeuronDistribution]:
    """Return two populations of one dimension, by default called p and q; p itself for q where none is given."""
    names = (*names, *("p", "q")[len(names) :])
    q = p if q is None else q
    for value, name in zip((p, q), names):
        if not isinstance(value, NeuronDistribution):
            raise ValueError(
                f"{name} must be a NeuronDistribution, got {type(value).__name__}: make one with "
                "NeuronDistribution(mean, cov), or from_samples(draws)"
            )
    if p.dim != q.dim:
        raise ValueError(
            f"{names[0]} and {names[1]} must have one dimension, got R^{p.dim} and R^{q.dim}: take the common "
            "coordinates with `marginal`"
        )
    return p, q
