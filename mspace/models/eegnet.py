"""Two compact networks for recordings of many electrodes: EEGNet, and HTNet with its envelopes and regions."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import whole
from .bounded import BoundedConv2d, BoundedLinear, Conv2d, Linear, released, same
from .hilbert import Hilbert
from .histories import asked
from .regions import as_projection, unpacked

__all__ = ["EEGNet", "HTNet"]

AT_ONCE = 64  # trials that are answered at a time when no gradient is wanted: activations are large


class EEGNet(nn.Module):
    """A network for trials of many electrodes, (B, 1, C, T) to (B, n_out) (Lawhern and others 2018).

    Filters in time, filters in space for each of them, averages over 4 samples, a separable filter in time, averages
    over 8, a dense layer. Answers are logits for `F.cross_entropy`, or numbers for `F.mse_loss`, such as a trace of the
    hand. Normalisation, start and padding are those of Keras, in which it was written.

    Batch normalisation makes an answer in training depend on the rest of the batch, so `fit` and `bootstrap` refuse it:
    ``net.at_rest(x)`` takes its statistics from data once and keeps them, factors and shifts are trained on. Every
    other training loop can do as the authors did.

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
        max_norm: bounds of the norms of a filter in space and of a row of the dense layer, or None
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
        max_norm: tuple[float, float] | None = (1.0, 0.25),
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        sizes = {"n_channels": n_channels, "n_out": n_out, "n_filters": n_filters, "depth": depth}
        c, n_out, f1, d = (whole(v, name, 1) for name, v in sizes.items())
        t = self.n_samples = whole(n_samples, "n_samples", 32)
        k1, k2 = whole(temporal, "temporal", 1, t), whole(separable, "separable", 1, t)
        f2 = f1 * d if n_pointwise is None else whole(n_pointwise, "n_pointwise", 1)
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
        self.n_channels, drop = c, nn.Dropout2d if spatial_dropout else nn.Dropout
        self.temporal = Conv2d(1, f1, (1, k1), generator=generator)
        self.feature = nn.Identity()
        self.norm1 = _norm(f1)
        self.spatial = Conv2d(f1, f1 * d, (c, 1), groups=f1, generator=generator)
        self.norm2, self.drop1 = _norm(f1 * d), drop(dropout)
        self.separable = Conv2d(f1 * d, f1 * d, (1, k2), groups=f1 * d, generator=generator)
        self.pointwise = Conv2d(f1 * d, f2, (1, 1), generator=generator)
        self.norm3, self.drop2 = _norm(f2), drop(dropout)
        self.dense = Linear(f2 * (t // 4 // 8), n_out, generator=generator)
        if max_norm is not None:
            if not isinstance(max_norm, (tuple, list)) or len(max_norm) != 2:
                raise ValueError(f"max_norm must be a pair (filters in space, dense rows) or None, got {max_norm!r}")
            self.spatial, self.dense = BoundedConv2d(self.spatial, max_norm[0]), BoundedLinear(self.dense, max_norm[1])

    @property
    def neurons(self) -> dict[str, str]:
        """The names under which `weight_of` and ``ensemble.neurons`` find the filters.

        temporal (F1, k1), spatial (F1 D, C), separable (F1 D, k2), pointwise (F2, F1 D) and dense (n_out, F2 T'), with
        T' the samples that are left.
        """
        return {name: name for name in ("temporal", "spatial", "separable", "pointwise", "dense")}

    def at_rest(self, x: Tensor) -> EEGNet:
        """A copy in evaluation mode whose normalisations have the statistics of these trials, and keep them."""
        resting = copy.deepcopy(self).eval()
        norms = [m for m in resting.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.train().momentum = 1.0  # one batch is all there is
        with torch.no_grad():
            resting._answer(*resting._parted(x))
        for norm in norms:
            norm.eval().momentum = KERAS["momentum"]
        return resting

    def released(self) -> EEGNet:
        """A copy with ordinary layers of the same weights, which nothing bounds: to be taken apart, or compressed."""
        copied = copy.deepcopy(self)
        released(copied)
        return copied

    def forward(self, x: Tensor) -> Tensor:
        parts = self._parted(x)
        dependent = any(m.training for m in (self.norm1, self.norm2, self.norm3))
        if dependent or torch.is_grad_enabled() or len(x) <= AT_ONCE:
            return self._answer(*parts)
        return torch.cat([self._answer(*part) for part in zip(*(_pieces(p, len(x)) for p in parts))])

    def _parted(self, x: Tensor) -> tuple[Tensor | None, ...]:
        """Trials, and what they are projected by."""
        _check(x, self.temporal.weight.dtype)
        if x.shape[2:] != (self.n_channels, self.n_samples):
            raise ValueError(f"x must be (B, 1, {self.n_channels}, {self.n_samples}), got {tuple(x.shape)}")
        return x, None

    def _answer(self, x: Tensor, projection: Tensor | None) -> Tensor:
        h = self.feature(self.temporal(same(x, self.temporal.kernel_size[1])))
        h = h if projection is None else projection.unsqueeze(-3) @ h
        h = F.elu(self.norm2(self.spatial(self.norm1(h))))
        h = self.drop1(F.avg_pool2d(h, (1, 4)))
        h = self.pointwise(self.separable(same(h, self.separable.kernel_size[1])))
        h = self.drop2(F.avg_pool2d(F.elu(self.norm3(h)), (1, 8)))
        return self.dense(h.flatten(1))


class HTNet(EEGNet):
    """EEGNet on the envelopes of its filtered signals, in regions that subjects share (Peterson and others 2021).

    Electrodes lie elsewhere in each subject. A projection P (R, C) whose rows sum to one takes the envelopes to R
    regions. Give it with ``projection=``, or with the trials: `with_projection` makes one tensor (B, 1, C, T + R) of
    both, so that trials of several subjects can be mixed (see `mspace.models.with_projection`). Without any, R = C.

    Args:
        n_channels: R, the regions, or the electrodes where nothing is projected
        feature: of the analytic signal, as in `Hilbert`; "power" is the envelope
        rate: samples a second, for the feature "frequency"
        padding: as in `Hilbert`
        projection: (R, C) for trials that come without
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
        self.feature = Hilbert(feature, rate=rate, padding=padding)
        if projection is not None:
            projection = as_projection(projection, self.n_channels).to(self.temporal.weight.dtype)
        self.register_buffer("projection", projection)

    def for_subject(self, projection: Tensor | None) -> HTNet:
        """A copy for a subject with this projection (R, C)."""
        other = copy.deepcopy(self)
        if projection is not None:
            projection = as_projection(projection, self.n_channels).to(self.temporal.weight)
        other.projection = projection
        return other

    def electrode_weights(self, projection: Tensor | None = None) -> Tensor:
        """The filters in space as weights of a subject's electrodes, (F1 D, C): ``weight @ P``."""
        w = self.spatial.weight.detach().flatten(1)
        given = self.projection if projection is None else as_projection(projection, self.n_channels).to(w)
        return w.clone() if given is None else w @ given

    def forward(self, x: Tensor, projection: Tensor | None = None) -> Tensor:
        """Trials (B, 1, C, T), and their projection (R, C) or (B, R, C) where it is neither in x nor in the model."""
        if projection is None:
            return super().forward(x)
        p = as_projection(projection, self.n_channels).to(x)
        return super().forward(torch.cat([x, p.mT.expand(len(x), -1, -1).unsqueeze(1)], 3))

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        _check(x, self.temporal.weight.dtype)
        if x.shape[3] == self.n_samples + self.n_channels:
            return unpacked(x, self.n_channels)
        columns = self.n_channels if self.projection is None else self.projection.shape[1]
        if x.shape[2:] != (columns, self.n_samples):
            raise ValueError(
                f"x must be (B, 1, {columns}, {self.n_samples}), or (B, 1, C, {self.n_samples + self.n_channels}) with its "
                f"projection, as `with_projection` makes it, got {tuple(x.shape)}"
            )
        return x, self.projection


KERAS = {"eps": 1e-3, "momentum": 0.01}


def _norm(features: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(features, **KERAS)


def _pieces(part: Tensor | None, n: int) -> list:
    whole_for_all = part is None or part.ndim == 2
    return [part] * -(-n // AT_ONCE) if whole_for_all else list(part.split(AT_ONCE))


def _check(x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype or dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64, as the model is ({dtype}), got {x.dtype}: convert one of them")
    if x.ndim != 4 or x.shape[1] != 1 or len(x) == 0:
        raise ValueError(f"x must be trials (B, 1, channels, time), got {tuple(x.shape)}: x.unsqueeze(1) adds the axis")
    if asked(torch.isfinite(x).all()) is False:
        raise ValueError("x must be finite, got NaN or infinity: cut those trials out")
