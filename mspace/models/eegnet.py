"""Two compact networks for recordings of many electrodes: EEGNet, and HTNet with its envelopes and regions."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_int
from .hilbert import Hilbert
from .histories import asked
from .keras import Conv2d, Linear, norm, same
from .projections import as_projection, unpacked, with_projection

__all__ = ["EEGNet", "HTNet"]

AT_ONCE = 64  # trials that are answered at a time when no gradient is wanted: activations are large


class EEGNet(nn.Module):
    """A network for trials of many electrodes, (B, 1, C, T) to (B, n_out) (Lawhern and others 2018).

    Filters in time, filters in space for each of them, averages over 4 samples, a separable filter in time, averages
    over 8, a dense layer. Answers are logits for `F.cross_entropy`, or numbers for `F.mse_loss`, such as a trace of the
    hand. Normalisation, start and padding are those of Keras, in which it was written.

    In training mode `fit` and `bootstrap` train it as its authors did, normalised by the batch; after ``net.eval()``
    they keep its statistics, which makes every trial's answer its own, as `sandwich`, `laplace` and `variational` need.
    A few hundred steps pass until those gathered on the way have forgotten the start: after fewer take `at_rest`.

    Args:
        n_channels: C, the electrodes
        n_samples: T, at least 32
        n_out: classes, or numbers to be answered
        n_filters: F1, filters in time
        depth: D, filters in space for each of those
        n_pointwise: F2, F1 D if not given
        temporal: length k1 of the filters in time; half a second, or as long as the slowest oscillation
        separable: length k2 of the later ones, which see a quarter of the rate
        dropout: share of the answers dropped in training
        spatial_dropout: whether whole feature maps are dropped, in place of single numbers
        max_norm: bounds of the norms of a filter in space and of a row of the dense layer, None for none: see
            `keep_bounds`. To answer a trace in its own units leave the dense rows free, ``(1.0, None)``
        generator: where the start is drawn from
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
        spatial_dropout: bool = False,
        max_norm: tuple[float | None, float | None] | None = (1.0, 0.25),
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        sizes = {"n_channels": n_channels, "n_out": n_out, "n_filters": n_filters, "depth": depth}
        c, n_out, f1, d = (check_int(v, name, 1) for name, v in sizes.items())
        t = check_int(n_samples, "n_samples", 32)
        k1, k2 = check_int(temporal, "temporal", 1, t), check_int(separable, "separable", 1, t)
        f2 = f1 * d if n_pointwise is None else check_int(n_pointwise, "n_pointwise", 1)
        if isinstance(dropout, bool) or not isinstance(dropout, Real) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
        self.n_channels, self.n_samples, self.bounds = c, t, _bounds(max_norm)
        drop = nn.Dropout2d if spatial_dropout else nn.Dropout
        self.temporal = Conv2d(1, f1, (1, k1), generator=generator)
        self.feature = nn.Identity()
        self.norm1 = norm(f1)
        self.spatial = Conv2d(f1, f1 * d, (c, 1), groups=f1, generator=generator)
        self.norm2, self.drop1 = norm(f1 * d), drop(dropout)
        self.separable = Conv2d(f1 * d, f1 * d, (1, k2), groups=f1 * d, generator=generator)
        self.pointwise = Conv2d(f1 * d, f2, (1, 1), generator=generator)
        self.norm3, self.drop2 = norm(f2), drop(dropout)
        self.dense = Linear(f2 * (t // 4 // 8), n_out, generator=generator)

    @property
    def neurons(self) -> dict[str, str]:
        """The names under which `weight_of` and ``ensemble.neurons`` find the filters.

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
        with torch.no_grad():
            for name, bound in self.bounds.items():
                weight = own[name] if parameters is None else parameters[name]
                rows = weight.flatten(weight.ndim - own[name].ndim + 1)
                length = rows.norm(dim=-1).clamp(min=bound)
                weight.mul_((bound / length).reshape(*length.shape, *[1] * (own[name].ndim - 1)))

    def at_rest(self, x: Tensor) -> EEGNet:
        """A copy in evaluation mode whose normalisations have the statistics of these trials, all taken at once."""
        resting = copy.deepcopy(self).eval()
        layers = [m for m in resting.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.train().momentum = 1.0  # one batch is all there is
        with torch.no_grad():
            resting(x)
        for layer, momentum in zip(layers, momenta):
            layer.eval().momentum = momentum
        return resting

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        dependent = any(m.training for m in (self.norm1, self.norm2, self.norm3))
        if dependent or torch.is_grad_enabled() or len(x) <= AT_ONCE:
            return self._answer(x)
        return torch.cat([self._answer(part) for part in x.split(AT_ONCE)])

    def _check(self, x: Tensor) -> None:
        _check_trials(x, self.temporal.weight.dtype)
        if x.shape[2:] != (self.n_channels, self.n_samples):
            raise ValueError(f"x must be (B, 1, {self.n_channels}, {self.n_samples}), got {tuple(x.shape)}")

    def _answer(self, x: Tensor) -> Tensor:
        h = F.elu(self.norm2(self.spatial(self.norm1(self._filtered(x)))))
        h = self.drop1(F.avg_pool2d(h, (1, 4)))
        h = self.pointwise(self.separable(same(h, self.separable.kernel_size[1])))
        h = self.drop2(F.avg_pool2d(F.elu(self.norm3(h)), (1, 8)))
        return self.dense(h.flatten(1))

    def _filtered(self, x: Tensor) -> Tensor:
        """A feature of the filtered signals, (B, F1, C, T)."""
        return self.feature(self.temporal(same(x, self.temporal.kernel_size[1])))


class HTNet(EEGNet):
    """EEGNet on the envelopes of its filtered signals, in regions that subjects share (Peterson and others 2021).

    Electrodes lie elsewhere in each subject. A projection P (R, C) whose rows sum to one (see `regions`) takes the
    envelopes to R regions. It belongs to the network, ``projection=``, or comes with the trials: `with_projection`
    makes one tensor (B, 1, C, T + R) of both, so that trials of several subjects can be mixed. Without any, R = C.

    Args:
        n_channels: R, the regions, or the electrodes where nothing is projected
        n_samples: T, of a trial without its projection
        feature: of the analytic signal, as in `Hilbert`; "power" is the envelope
        rate: samples a second, for the feature "frequency"
        padding: as in `Hilbert`
        projection: (R, C), for trials that come without
        options: as of `EEGNet`
    """

    def __init__(
        self,
        n_channels: int,
        n_samples: int,
        n_out: int,
        *,
        feature: str = "power",
        rate: float | None = None,
        padding: int = 0,
        projection: Tensor | None = None,
        **options,
    ):
        super().__init__(n_channels, n_samples, n_out, **options)
        self.feature = Hilbert(feature, rate=rate, padding=check_int(padding, "padding", 0, self.n_samples - 1))
        self.register_buffer("projection", None)
        self._take(projection)

    def _take(self, projection: Tensor | None) -> None:
        given = None if projection is None else as_projection(projection, self.n_channels).to(self.temporal.weight)
        if given is not None and given.ndim != 2:
            raise ValueError(
                f"projection must be one for all trials, ({self.n_channels}, C), got {tuple(given.shape)}: those of "
                "several subjects come with the trials, see `with_projection`"
            )
        self.projection = given

    def for_subject(self, projection: Tensor | None) -> HTNet:
        """A copy for a subject with this projection (R, C)."""
        other = copy.deepcopy(self)
        other._take(projection)
        return other

    def electrode_weights(self, projection: Tensor | None = None) -> Tensor:
        """The filters in space as weights of a subject's electrodes, (F1 D, C): ``weight @ P``."""
        w = self.spatial.weight.detach().flatten(1)
        given = self.projection if projection is None else as_projection(projection, self.n_channels).to(w)
        return w.clone() if given is None else w @ given

    def forward(self, x: Tensor, projection: Tensor | None = None) -> Tensor:
        """Trials (B, 1, C, T), and their projection (R, C) or (B, R, C) where it is neither in x nor in the model."""
        return super().forward(x if projection is None else with_projection(x, projection))

    def _packed(self, x: Tensor) -> bool:
        return x.shape[3] == self.n_samples + self.n_channels

    def _check(self, x: Tensor) -> None:
        _check_trials(x, self.temporal.weight.dtype)
        columns = self.n_channels if self.projection is None else self.projection.shape[-1]
        if not self._packed(x) and x.shape[2:] != (columns, self.n_samples):
            raise ValueError(
                f"x must be (B, 1, {columns}, {self.n_samples}), or (B, 1, C, {self.n_samples + self.n_channels}) with its "
                f"projection, as `with_projection` makes it, got {tuple(x.shape)}"
            )

    def _filtered(self, x: Tensor) -> Tensor:
        x, p = unpacked(x, self.n_channels) if self._packed(x) else (x, self.projection)
        envelopes = super()._filtered(x)
        return envelopes if p is None else p.unsqueeze(-3) @ envelopes


def _bounds(max_norm) -> dict[str, float]:
    if max_norm is None:
        return {}
    if not isinstance(max_norm, (tuple, list)) or len(max_norm) != 2:
        raise ValueError(f"max_norm must be a pair (filters in space, dense rows) or None, got {max_norm!r}")
    bounds = {name: b for name, b in zip(("spatial.weight", "dense.weight"), max_norm) if b is not None}
    if not all(isinstance(b, Real) and 0 < b < math.inf for b in bounds.values()):
        raise ValueError(f"max_norm must hold positive numbers, or None for no bound, got {max_norm!r}")
    return bounds


def _check_trials(x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype or dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64, as the model is ({dtype}), got {x.dtype}: convert one of them")
    if x.ndim != 4 or x.shape[1] != 1 or len(x) == 0:
        raise ValueError(f"x must be trials (B, 1, channels, time), got {tuple(x.shape)}: x.unsqueeze(1) adds the axis")
    if asked(torch.isfinite(x).all()) is False:
        raise ValueError("x must be finite, got NaN or infinity: cut those trials out")
