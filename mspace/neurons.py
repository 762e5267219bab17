"""The one noun of the package: a layer as a population of Gaussian random vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor, nn

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
        mean, cov = (torch.as_tensor(x).detach().to("cpu", torch.float64) for x in (self.mean, self.cov))
        if mean.ndim != 2 or 0 in mean.shape or cov.shape != (*mean.shape, mean.shape[1]):
            raise ValueError(
                f"mean must be (m, n) and cov (m, n, n), got {tuple(mean.shape)} and {tuple(cov.shape)}"
            )
        for name, value in (("mean", mean), ("cov", cov)):
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(value)).sum())} values that are not")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", _semidefinite(cov))

    @classmethod
    def from_samples(cls, samples) -> NeuronDistribution:
        """Unbiased moments of N draws of every neuron: (N, m, n), N >= 2; the covariances have rank below N."""
        x = torch.as_tensor(samples).detach().to("cpu", torch.float64)
        if x.ndim != 3 or len(x) < 2:
            raise ValueError(f"samples must be (N, m, n) with N >= 2 draws, got shape {tuple(x.shape)}")
        centred = x - x.mean(0)
        return cls(x.mean(0), torch.einsum("smi,smj->mij", centred, centred) / (len(x) - 1))

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index) -> NeuronDistribution:
        """Some of the neurons, by index, slice, list or mask; one of them is a population of one."""
        index = slice(index, index + 1 or None) if isinstance(index, int) else index
        return NeuronDistribution(self.mean[index], self.cov[index])

    @property
    def dim(self) -> int:
        """n, the number of weights of a neuron."""
        return self.mean.shape[1]

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
        value = torch.as_tensor(value, dtype=torch.float64).expand(len(self), len(c))
        known, across = self.cov[:, c][:, :, c], self.cov[:, rest][:, :, c]
        inverse = torch.linalg.pinv(known, hermitian=True)
        moved = value - self.mean[:, c]
        off = ((known @ inverse - torch.eye(len(c), dtype=torch.float64)) @ moved[..., None]).squeeze(-1)
        if (off.norm(dim=1) > 1e-6 * (moved.norm(dim=1) + self.mean[:, c].norm(dim=1))).any():
            raise ValueError("value is impossible, the covariance has no variance in that direction: use `marginal`")
        gain = across @ inverse
        mean = self.mean[:, rest] + (gain @ moved[..., None]).squeeze(-1)
        return NeuronDistribution(mean, self.cov[:, rest][:, :, rest] - gain @ across.mT)

    def sample(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of every neuron, (size, m, n); neurons are drawn independently of each other."""
        power, axes = torch.linalg.eigh(self.cov)
        z = torch.randn(size, *self.mean.shape, generator=generator, dtype=torch.float64)
        return self.mean + torch.einsum("mij,mj,smj->smi", axes, power.clamp(min=0).sqrt(), z)

    def ellipsoid(self, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
        """The regions that hold `level` of each Gaussian: centres, semi-axes, directions.

        Semi-axes are sqrt(chi2) sqrt(eigenvalue), the quantile with as many degrees of freedom as the covariance
        has rank; so sqrt(5.99) in the plane and sqrt(7.81) in space for 95 %.

        Returns:
            centres (m, n), semi-axes (m, n) longest first, directions (m, n, n), unit vectors in columns
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        power, axes = torch.linalg.eigh(self.cov)
        power, axes = power.flip(-1).clamp(min=0), axes.flip(-1)
        rank = (power > self.dim * torch.finfo(power.dtype).eps * power[:, :1]).sum(1, keepdim=True)
        quantile = torch.from_numpy(2 * gammaincinv(rank.clamp(min=1).numpy() / 2, level))
        return self.mean, (quantile * power).sqrt(), axes

    def _coordinates(self, coords) -> Tensor:
        c = torch.arange(self.dim)[torch.as_tensor(coords)] if len(coords) else torch.empty(0, dtype=torch.long)
        if len(c) == 0 or len(c.unique()) < len(c):
            raise ValueError(f"coords must name different coordinates of 0 to {self.dim - 1}, got {list(coords)}")
        return c


def _semidefinite(cov: Tensor) -> Tensor:
    """Symmetrise, set eigenvalues within rounding of zero to zero, refuse the truly negative."""
    size = cov.abs().amax((1, 2))
    if ((cov - cov.mT).abs().amax((1, 2)) > 1e-6 * size).any():
        raise ValueError("cov must be symmetric: is it a factor of the covariance, or one transposed?")
    cov = (cov + cov.mT) / 2
    power, axes = torch.linalg.eigh(cov)
    largest = power[:, -1:].clamp(min=0)
    if (power < -NEGATIVE * largest - torch.finfo(power.dtype).tiny).any():
        worst = int((power[:, 0] / largest[:, 0].clamp(min=1e-300)).argmin())
        raise ValueError(
            f"cov must be positive semidefinite, got the eigenvalue {power[worst, 0]:.3g} beside {power[worst, -1]:.3g} "
            f"for neuron {worst}: project it first, or estimate it with more draws"
        )
    small = power < cov.shape[1] * torch.finfo(power.dtype).eps * largest
    if not (power < 0).any():
        return cov
    power = torch.where(small, 0.0, power)
    return axes @ (power[..., None] * axes.mT)


def weight_of(model: nn.Module, layer: str | Sequence[str], *, axis: int = 0) -> Tensor:
    """The neurons of a layer as vectors, (m, n): rows of its weight (axis=0) or columns (axis=1), a copy.

    A row is what comes into a unit, a column what goes out of one. Kernels of convolutions are flattened: rows
    are (out, in * kernel), columns (in, out * kernel). Recurrent layers give [W_ih | W_hh] of their first
    layer, a row per unit and gate.

    Args:
        layer: name of a module or of a parameter in `model`; several names are put side by side, such as the
            ["W", "V"] of a recurrent network
    """
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 (rows) or 1 (columns), got {axis}")
    names = [layer] if isinstance(layer, str) else list(layer)
    parts = [_matrix(model, name, axis) for name in names]
    if not parts or len({len(p) for p in parts}) > 1:
        raise ValueError(f"layer must name matrices of as many rows each, got {[tuple(p.shape) for p in parts]}")
    return torch.cat(parts, 1).clone()


def _matrix(model: nn.Module, name: str, axis: int) -> Tensor:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    found = modules[name] if name in modules else parameters.get(name)
    if isinstance(found, nn.RNNBase):
        if axis == 1:
            raise ValueError(f"layer {name!r} is recurrent: name its weight_ih_l0 or weight_hh_l0 to take columns")
        return torch.cat([found.weight_ih_l0.detach(), found.weight_hh_l0.detach()], 1)
    weight = found if isinstance(found, Tensor) else getattr(found, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        known = [n for n, m in modules.items() if getattr(getattr(m, "weight", None), "ndim", 0) > 1]
        said = "is not in the model" if found is None else "has no rows"
        raise ValueError(f"layer {name!r} {said}; layers that have: {', '.join(known) or 'none'}")
    weight = weight.detach()
    if isinstance(found, nn.modules.conv._ConvTransposeNd):
        weight = weight.transpose(0, 1)
    return (weight if axis == 0 else weight.transpose(0, 1)).flatten(1)
