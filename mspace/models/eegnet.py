"""Two compact networks for recordings of many electrodes: EEGNet, and HTNet on envelopes in regions subjects share."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import as_tensor, check_generator, check_int, check_real
from .parts import holds

__all__ = ["EEGNet", "HTNet", "analytic", "regions", "with_projection"]

REACH = 3.0  # widths beyond which an electrode does not count
OFF = 1e-3  # by which the sum of a row may miss one
CHUNK = 64  # trials at a time when no gradient is wanted: activations are large


class EEGNet(nn.Module):
    """A network for trials of many electrodes, (B, 1, C, T) to (B, n_out) (Lawhern and others 2018).

    Filters in time, filters in space for each of them, averages over 4 samples, a separable filter in time, averages
    over 8, a dense layer. Outputs are logits for `F.cross_entropy`, or numbers for `F.mse_loss`, such as a trace of the
    hand. Normalisation, initialisation and padding are those of Keras, in which it was written.

    In training mode `fit` and `bootstrap` train it as its authors did, normalised by the batch; after ``net.eval()``
    they keep its statistics, which makes a trial's output independent of the others, as `sandwich`, `laplace` and
    `variational` need. The running statistics take a few hundred steps to forget the initial ones: after fewer take
    `eval_mode`.

    Args:
        n_channels: C, the electrodes
        n_samples: T, at least 32
        n_out: classes, or numbers to predict
        n_filters: F1, filters in time
        depth: D, filters in space for each of those
        n_pointwise: F2, F1 D if not given
        temporal: length k1 of the filters in time; half a second, or as long as the slowest oscillation
        separable: length k2 of the later ones, which see a quarter of the rate
        dropout: share of the activations dropped in training
        max_norm: bounds of the norms of a filter in space and of a row of the dense layer, None for none: see
            `keep_bounds`. To predict a trace in its own units leave the dense rows free, ``(1.0, None)``
        generator: of the initialisation
    """

    def __init__(
        self,
        n_channels: int,
        n_samples: int,
        n_out: int,
        *,
        n_filters: int = 8,
        depth: int = 2,
        n_pointwise: int | None = None,
        temporal: int = 64,
        separable: int = 16,
        dropout: float = 0.25,
        max_norm: tuple[float | None, float | None] | None = (1.0, 0.25),
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        sizes = {"n_channels": n_channels, "n_out": n_out, "n_filters": n_filters, "depth": depth}
        c, n_out, f1, d = (check_int(v, name, 1) for name, v in sizes.items())
        t = check_int(n_samples, "n_samples", 32)
        k1, k2 = check_int(temporal, "temporal", 1, t), check_int(separable, "separable", 1, t)
        f2 = f1 * d if n_pointwise is None else check_int(n_pointwise, "n_pointwise", 1)
        dropout = check_real(dropout, "dropout", 0, 1, "[)")
        self.n_channels, self.n_samples, self.bounds = c, t, _bounds(max_norm)
        self.temporal = _Conv2d(1, f1, (1, k1), generator=generator)
        self.norm1 = _norm(f1)
        self.spatial = _Conv2d(f1, f1 * d, (c, 1), groups=f1, generator=generator)
        self.norm2, self.drop1 = _norm(f1 * d), nn.Dropout(dropout)
        self.separable = _Conv2d(f1 * d, f1 * d, (1, k2), groups=f1 * d, generator=generator)
        self.pointwise = _Conv2d(f1 * d, f2, (1, 1), generator=generator)
        self.norm3, self.drop2 = _norm(f2), nn.Dropout(dropout)
        self.dense = _Linear(f2 * (t // 4 // 8), n_out, generator=generator)

    @property
    def neurons(self) -> dict[str, str]:
        """Return the names under which `weight_of` and ``ensemble.neurons`` find the filters.

        temporal (F1, k1), spatial (F1 D, C), separable (F1 D, k2), pointwise (F2, F1 D) and dense (n_out, F2 T'), with
        T' = T // 4 // 8 samples that are left.
        """
        return {name: name for name in ("temporal", "spatial", "separable", "pointwise", "dense")}

    def keep_bounds(self, parameters: Mapping[str, Tensor] | None = None) -> None:
        """Bring what is longer than `max_norm` back to it, in place, as Keras does after each step.

        `fit` and `bootstrap` call it with the parameters of all members, (N, ...) by name; a loop of one's own calls
        it without, after ``optimizer.step()``.
        """
        own = dict(self.named_parameters())
        given = own if parameters is None else parameters  # frozen ones may be left out
        with torch.no_grad():
            for name, bound in ((k, b) for k, b in self.bounds.items() if k in given):
                weight = given[name]
                rows = weight.flatten(weight.ndim - own[name].ndim + 1)
                length = rows.norm(dim=-1).clamp(min=bound)
                weight.mul_((bound / length).reshape(*length.shape, *[1] * (own[name].ndim - 1)))

    def eval_mode(self, x: Tensor) -> EEGNet:
        """Return a copy in evaluation mode whose normalisations have the statistics of these trials, taken at once."""
        model = copy.deepcopy(self).eval()
        layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.train().momentum = 1.0  # one batch is all there is
        with torch.no_grad():
            model(x)
        for layer, momentum in zip(layers, momenta):
            layer.eval().momentum = momentum
        return model

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        dependent = any(m.training for m in (self.norm1, self.norm2, self.norm3))
        if dependent or torch.is_grad_enabled() or len(x) <= CHUNK:
            return self._output(x)
        return torch.cat([self._output(part) for part in x.split(CHUNK)])

    def _check(self, x: Tensor) -> None:
        _check_trials(x, self.temporal.weight.dtype)
        if x.shape[2:] != (self.n_channels, self.n_samples):
            raise ValueError(f"x must be (B, 1, {self.n_channels}, {self.n_samples}), got {tuple(x.shape)}")

    def _output(self, x: Tensor) -> Tensor:
        h = F.elu(self.norm2(self.spatial(self.norm1(self._features(x)))))
        h = self.drop1(F.avg_pool2d(h, (1, 4)))
        h = self.pointwise(self.separable(_same(h, self.separable.kernel_size[1])))
        h = self.drop2(F.avg_pool2d(F.elu(self.norm3(h)), (1, 8)))
        return self.dense(h.flatten(1))

    def _features(self, x: Tensor) -> Tensor:
        """Return the filtered signals, (B, F1, C, T)."""
        return self.temporal(_same(x, self.temporal.kernel_size[1]))


class HTNet(EEGNet):
    """EEGNet on the envelopes of its filtered signals, in regions that subjects share (Peterson and others 2021).

    Electrodes lie elsewhere in each subject. A projection P (R, C) whose rows sum to one (see `regions`) takes the
    envelopes to R regions. It comes with the trials: `with_projection` makes one tensor (B, 1, C, T + R) of both, so
    that trials of several subjects can be mixed. Without any, R = C. Options are those of `EEGNet`, with n_channels = R.
    """

    def electrode_weights(self, projection: Tensor) -> Tensor:
        """Return the filters in space as weights of a subject's electrodes, (F1 D, C): ``weight @ P``."""
        w = self.spatial.weight.detach().flatten(1)
        return w @ as_projection(projection, self.n_channels).to(w)

    def forward(self, x: Tensor, projection: Tensor | None = None) -> Tensor:
        """Map trials (B, 1, C, T) to (B, n_out), with their projection (R, C) or (B, R, C) where it is not in x."""
        return super().forward(x if projection is None else with_projection(x, projection))

    def _packed(self, x: Tensor) -> bool:
        return x.shape[3] == self.n_samples + self.n_channels

    def _check(self, x: Tensor) -> None:
        _check_trials(x, self.temporal.weight.dtype)
        if not self._packed(x) and x.shape[2:] != (self.n_channels, self.n_samples):
            r, t = self.n_channels, self.n_samples
            raise ValueError(
                f"x must be (B, 1, {r}, {t}), or (B, 1, C, {t + r}) with its projection, as `with_projection` makes it, "
                f"got {tuple(x.shape)}"
            )

    def _features(self, x: Tensor) -> Tensor:
        """Return the envelopes of the filtered signals in each region, (B, F1, R, T)."""
        x, p = unpacked(x, self.n_channels) if self._packed(x) else (x, None)
        envelopes = analytic(super()._features(x)).abs()
        return envelopes if p is None else p.unsqueeze(-3) @ envelopes


def regions(positions, centers, *, width: float, empty: str = "error") -> Tensor:
    """Return how much each electrode counts for each region, P (R, C), by a Gaussian of its distance to the center.

    Rows sum to one. Electrodes farther than three widths do not count.

    Args:
        positions: of the electrodes (C, 2) or (C, 3); one of NaN is missing, and leaves its share to the others
        centers: of the regions, (R, 2) or (R, 3)
        width: standard deviation of the Gaussian, in the units of the positions
        empty: of a region with no electrode within reach: "error", or "zero" for a row of zeros
    """
    positions, centers = as_tensor(positions, "positions").double(), as_tensor(centers, "centers").double()
    if positions.ndim != 2 or centers.ndim != 2 or positions.shape[1] != centers.shape[1] or 0 in positions.shape:
        shapes = f"{tuple(positions.shape)} and {tuple(centers.shape)}"
        raise ValueError(f"positions must be (C, d) and centers (R, d), got {shapes}")
    if not torch.isfinite(centers).all() or len(centers) == 0:
        raise ValueError("centers must be finite and at least one: leave out the regions that have no place")
    width = check_real(width, "width")
    if empty not in ("error", "zero"):
        raise ValueError(f"empty must be 'error' or 'zero', got {empty!r}")
    missing = ~torch.isfinite(positions).all(1)
    distance = torch.cdist(centers, positions.nan_to_num(0.0, 0.0, 0.0))
    weight = torch.exp(-((distance / width) ** 2) / 2).masked_fill(missing | (distance > REACH * width), 0.0)
    total = weight.sum(1, keepdim=True)
    if empty == "error" and (total == 0).any():
        bare = (total[:, 0] == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"centers {bare} have no electrode within {REACH:g} widths of {width:g}: leave them out, take a larger width, "
            "or empty='zero'"
        )
    return weight / torch.where(total == 0, torch.ones_like(total), total)


def with_projection(x: Tensor, projection: Tensor, n_channels: int | None = None) -> Tensor:
    """Put trials (B, 1, C, T) and their projection (R, C) or (B, R, C) in one tensor (B, 1, n_channels, T + R).

    The weights of each electrode follow its samples; electrodes up to `n_channels` that the subject lacks are zeros.
    So trials of all subjects can be put together by `torch.cat`, and given to `HTNet`.
    """
    x = as_tensor(x, "x")
    if x.ndim != 4 or x.shape[1] != 1:
        raise ValueError(f"x must be trials (B, 1, channels, time), got {tuple(x.shape)}")
    p, c = as_projection(projection).to(x), x.shape[2]
    if p.shape[-1] != c or (p.ndim == 3 and len(p) not in (1, len(x))):
        raise ValueError(f"projection must be (R, {c}) or ({len(x)}, R, {c}) for these trials, got {tuple(p.shape)}")
    more = 0 if n_channels is None else check_int(n_channels, "n_channels", c) - c
    return F.pad(torch.cat([x, p.mT.expand(len(x), -1, -1).unsqueeze(1)], 3), (0, 0, 0, more))


def unpacked(x: Tensor, n_regions: int) -> tuple[Tensor, Tensor]:
    """Return what `with_projection` put together: trials (B, 1, C, T) and projections (B, R, C)."""
    return x[..., :-n_regions], as_projection(x[:, 0, :, -n_regions:].mT, n_regions)


def as_projection(values, n_regions: int | None = None) -> Tensor:
    """Return a projection (R, C) or (B, R, C) whose rows sum to one, or to nothing where a region has no electrode."""
    p = as_tensor(values, "projection")
    if p.ndim not in (2, 3) or 0 in p.shape or (n_regions is not None and p.shape[-2] != n_regions):
        r = "R" if n_regions is None else n_regions
        raise ValueError(f"projection must be ({r}, C) or (B, {r}, C), got {tuple(p.shape)}")
    if holds(torch.isfinite(p).all()) is False:
        raise ValueError("projection must be finite: set the weights of missing electrodes to zero, as `regions` does")
    total = p.sum(-1)
    off = (total - 1).abs().masked_fill((p == 0).all(-1), 0.0)
    if holds((off < OFF).all()) is False:
        worst = float(total.flatten()[off.flatten().argmax()])
        raise ValueError(f"projection must have rows that sum to one (or are zero), got {worst:.3g}: divide by the sum")
    return p


def analytic(x: Tensor) -> Tensor:
    """Return the analytic signal along the last axis: twice the positive frequencies of real numbers, (..., T) complex.

    As `scipy.signal.hilbert`. The transform is circular: unless the signal closes, its first and last moments know
    of each other.
    """
    n = x.shape[-1]
    spectrum = torch.fft.rfft(x)
    turned = x.new_ones(spectrum.shape[-1])
    turned[0] = 0
    if n % 2 == 0:
        turned[-1] = 0  # the fastest oscillation is its own mirror
    return torch.complex(x, torch.fft.irfft(spectrum * torch.complex(torch.zeros_like(turned), -turned), n))


def _bounds(max_norm) -> dict[str, float]:
    if max_norm is None:
        return {}
    if not isinstance(max_norm, (tuple, list)) or len(max_norm) != 2:
        raise ValueError(f"max_norm must be a pair (filters in space, dense rows) or None, got {max_norm!r}")
    layers = zip(("spatial.weight", "dense.weight"), max_norm)
    return {name: check_real(b, "max_norm, where it is not None,") for name, b in layers if b is not None}


def _check_trials(x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype or dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64, as the model is ({dtype}), got {x.dtype}: convert one of them")
    if x.ndim != 4 or x.shape[1] != 1 or len(x) == 0:
        raise ValueError(f"x must be trials (B, 1, channels, time), got {tuple(x.shape)}: x.unsqueeze(1) adds the axis")
    if holds(torch.isfinite(x).all()) is False:
        raise ValueError("x must be finite, got NaN or infinity: cut those trials out")


class _Conv2d(nn.Conv2d):
    """A convolution without bias initialised by Glorot's rule, uniform, with Keras' count of inputs and outputs."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, groups: int = 1, generator=None):
        self._generator = generator
        super().__init__(inputs, outputs, kernel, groups=groups, bias=False)
        self._generator = None  # an initialisation drawn later, as in torch, comes from the global stream

    def reset_parameters(self) -> None:
        _glorot(self.weight, self.in_channels, self.out_channels // self.groups, self._generator)


class _Linear(nn.Linear):
    """A dense layer initialised by Glorot's rule, uniform, its bias at zero."""

    def __init__(self, inputs: int, outputs: int, *, generator=None):
        self._generator = generator
        super().__init__(inputs, outputs)
        self._generator = None

    def reset_parameters(self) -> None:
        _glorot(self.weight, self.in_features, self.out_features, self._generator)
        nn.init.zeros_(self.bias)


def _norm(features: int) -> nn.BatchNorm2d:
    """Return batch normalisation with Keras' constants: its momentum of 0.99 is one of 0.01 in torch."""
    return nn.BatchNorm2d(features, eps=1e-3, momentum=0.01)


def _same(x: Tensor, kernel: int) -> Tensor:
    """Pad the last axis with zeros, so that a convolution keeps its length: (kernel - 1) // 2 of them before."""
    before = (kernel - 1) // 2
    return F.pad(x, (before, kernel - 1 - before))


def _glorot(weight: Tensor, inputs: int, outputs: int, generator) -> None:
    bound = math.sqrt(6 / (math.prod(weight.shape[2:]) * (inputs + outputs)))
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=check_generator(generator))
