"""The one noun of the package: a layer as a population of Gaussian random vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaincinv
from torch import Tensor

from .checks import check_fraction
from .network.weights import weight_of
from .threads import small

__all__ = ["NeuronDistribution", "weight_of"]

NEGATIVE = 1e-8  # of the largest eigenvalue: below minus that a matrix is no covariance, above it rounding


@dataclass(frozen=True, eq=False)
class NeuronDistribution:
    """m Gaussian vectors in R^n: the neurons of a layer, float64 on the CPU (the paper's e_i and A_i^-1).

    Attributes:
        mean: (m, n)
        cov: (m, n, n), the covariance of the parameters themselves, symmetric and positive semidefinite;
            singular ones are welcome. Asymmetry and negative eigenvalues of the size of rounding are removed.
    """

    mean: Tensor
    cov: Tensor

    def __post_init__(self):
        given = torch.as_tensor(self.cov)
        mean, cov = (torch.as_tensor(x).detach().to("cpu", torch.float64) for x in (self.mean, given))
        if mean.ndim != 2 or 0 in mean.shape or cov.shape != (*mean.shape, mean.shape[1]):
            raise ValueError(f"mean must be (m, n) and cov (m, n, n), got {tuple(mean.shape)} and {tuple(cov.shape)}")
        for name, value in (("mean", mean), ("cov", cov)):
            if not torch.isfinite(value).all():
                raise ValueError(
                    f"{name} must be finite, got {int((~torch.isfinite(value)).sum())} values that are not"
                )
        object.__setattr__(self, "mean", mean)
        coarse = given.dtype if given.dtype.is_floating_point else torch.float64
        object.__setattr__(self, "cov", _semidefinite(cov, torch.finfo(coarse).eps))

    @classmethod
    def from_samples(cls, samples) -> NeuronDistribution:
        """Unbiased moments of N draws of every neuron: (N, m, n), N >= 2; the covariances have rank below N."""
        x = torch.as_tensor(samples).detach().to("cpu", torch.float64)
        if x.ndim != 3 or len(x) < 2:
            raise ValueError(f"samples must be (N, m, n) with N >= 2 draws, got shape {tuple(x.shape)}")
        if not torch.isfinite(x).all():
            gone = sorted({int(i) for i in (~torch.isfinite(x)).nonzero()[:, 0]})
            raise ValueError(f"samples must be finite, draws {gone[:5]} are not: leave those draws out")
        centred = x - x.mean(0)
        return cls(x.mean(0), torch.einsum("smi,smj->mij", centred, centred) / (len(x) - 1))

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index) -> NeuronDistribution:
        """Some of the neurons, by index, slice, list or mask; one of them is a population of one."""
        index = index.item() if getattr(index, "ndim", None) == 0 else index
        if isinstance(index, int):
            if not -len(self) <= index < len(self):  # makes a population a sequence: iteration ends here
                raise IndexError(f"neuron {index} of {len(self)}")
            index = [index]
        return NeuronDistribution(self.mean[index], self.cov[index])

    @property
    def dim(self) -> int:
        """n, the number of weights of a neuron."""
        return self.mean.shape[1]

    @property
    def total_variance(self) -> Tensor:
        """The summed variances of each neuron, the trace of its covariance, (m,)."""
        return self.cov.diagonal(dim1=1, dim2=2).sum(1)

    def marginal(self, coords: Sequence[int]) -> NeuronDistribution:
        """The distribution of some coordinates of every neuron, in the order given."""
        c = self._coordinates(coords)
        return NeuronDistribution(self.mean[:, c], self.cov[:, c][:, :, c])

    def condition(self, coords: Sequence[int], value) -> NeuronDistribution:
        """The distribution of the other coordinates when `coords` have the given value, (k,) or (m, k).

        Raises:
            ValueError: where a singular covariance makes that value impossible.
        """
        c = self._coordinates(coords)
        rest = [i for i in range(self.dim) if i not in c.tolist()]
        if not rest:
            raise ValueError(f"coords must leave a coordinate over, got all {self.dim}: use `marginal` to reorder")
        value = torch.as_tensor(value, dtype=torch.float64)
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
            power, axes = torch.linalg.eigh(before - (gain @ across.mT + across @ gain.mT) / 2)
        # What is left may be nothing but rounding of what was there, so it is measured by that.
        rounding = self.dim * torch.finfo(power.dtype).eps * before.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
        power = torch.where(power < rounding, 0.0, power)
        return NeuronDistribution(mean, axes @ (power[..., None] * axes.mT))

    def sample(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of every neuron, (size, m, n); neurons are drawn independently of each other."""
        power, axes = self._spectrum()
        root = (axes * power.sqrt()[:, None]) @ axes.mT  # symmetric: signs and turns of eigenvectors do not matter
        z = torch.randn(size, *self.mean.shape, generator=generator, dtype=torch.float64)
        return self.mean + torch.einsum("mij,smj->smi", root, z)

    def ellipsoid(self, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
        """The regions that hold `level` of each Gaussian: centres, semi-axes, directions.

        Semi-axes are sqrt(chi2) sqrt(eigenvalue), the quantile with as many degrees of freedom as the covariance
        has rank; so sqrt(5.99) in the plane and sqrt(7.81) in space for 95 %.

        Returns:
            centres (m, n), semi-axes (m, n) longest first, directions (m, n, n), unit vectors in columns
        """
        level = check_fraction(level, "level")
        power, axes = (x.flip(-1) for x in self._spectrum())
        rank = (power > 0).sum(1, keepdim=True)
        quantile = torch.from_numpy(2 * gammaincinv(rank.clamp(min=1).numpy() / 2, level))
        return self.mean, (quantile * power).sqrt(), axes

    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (m, n), shortest first, nothing but zero where they are rounding, and eigenvectors."""
        with small(self.dim):
            power, axes = torch.linalg.eigh(self.cov)
        noise = self.dim * torch.finfo(power.dtype).eps * power[:, -1:]
        return torch.where(power > noise, power, 0.0), axes

    def _coordinates(self, coords) -> Tensor:
        """Numbers of coordinates, counted from the end where negative, or a mask, as an index."""
        try:
            c = torch.from_numpy(np.arange(self.dim)[np.atleast_1d(coords)])
        except IndexError:
            c = torch.empty(0)
        if len(c) == 0 or len(c.unique()) < len(c):
            raise ValueError(f"coords must name different coordinates of 0 to {self.dim - 1}, got {coords}")
        return c


def _semidefinite(cov: Tensor, eps: float) -> Tensor:
    """Symmetrise, set eigenvalues to zero that are rounding (of the precision `eps`), refuse the truly negative."""
    size = cov.abs().amax((1, 2))
    if ((cov - cov.mT).abs().amax((1, 2)) > 1e-6 * size).any():
        raise ValueError("cov must be symmetric: is it a factor of the covariance, or one transposed?")
    cov = (cov + cov.mT) / 2
    with small(cov.shape[1]):
        power, axes = torch.linalg.eigh(cov)
    largest = power[:, -1:].clamp(min=0)
    if (power < -max(NEGATIVE, cov.shape[1] * eps) * largest - torch.finfo(power.dtype).tiny).any():
        worst = int((power[:, 0] / largest[:, 0].clamp(min=1e-300)).argmin())
        raise ValueError(
            f"cov must be positive semidefinite, got the eigenvalue {power[worst, 0]:.3g} beside {power[worst, -1]:.3g} "
            f"for neuron {worst}: project it first, or estimate it with more draws"
        )
    # A negative eigenvalue shows how large the rounding is: positive ones of that size are nothing else.
    floor = torch.maximum(cov.shape[1] * torch.finfo(power.dtype).eps * largest, -2 * power[:, :1])
    rounding = power < floor
    rebuilt = axes @ (torch.where(rounding, 0.0, power)[..., None] * axes.mT)
    return torch.where(rounding.any(1)[:, None, None], (rebuilt + rebuilt.mT) / 2, cov)  # others keep their bits
