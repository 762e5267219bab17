"""Windows of a series and back: the trajectory matrix, its average, splits in time, periods."""

from __future__ import annotations

import math
from numbers import Integral, Real
from statistics import NormalDist
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor

from ..checks import as_recordings, as_series, as_tensor, check_int

__all__ = ["autocorrelation", "average", "dominant_period", "split", "windows"]


@overload
def windows(series, width: int, *, horizon: Literal[0] = 0) -> Tensor: ...


@overload
def windows(series, width: int, *, horizon: int) -> tuple[Tensor, Tensor]: ...


def windows(series, width: int, *, horizon: int = 0):
    """Histories of a series, and the horizons that follow them (definitions 2 and 3 of the paper).

    Args:
        series: (T,) or (T, m), or a list of recordings, which no window then straddles

    Returns:
        (n, width[, m]) with n = T - width + 1, the transposed trajectory matrix; with a horizon p > 0 a pair
        (n, width[, m]), (n, p[, m]) with n = T - width - p + 1.

    Both are strided views of a single series; windows of several recordings are copied one after another.
    """
    width, horizon = check_int(width, "width", 1), check_int(horizon, "horizon", 0)
    parts, _ = as_recordings(series)
    short = [len(p) for p in parts if len(p) < width + horizon]
    if short:
        raise ValueError(
            f"width {width} and horizon {horizon} need {width + horizon} samples, got a series of {short[0]}: "
            "shorten them or leave that series out"
        )
    inputs = _joined([_unfold(p[: len(p) - horizon], width) for p in parts])
    return (inputs, _joined([_unfold(p[width:], horizon) for p in parts])) if horizon else inputs


def _unfold(series: Tensor, width: int) -> Tensor:
    view = series.unfold(0, width, 1)  # (n, width) or (n, m, width), no copy
    return view if series.ndim == 1 else view.transpose(1, 2)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def average(trajectory) -> Tensor:
    """Average every antidiagonal: the series of the Hankel matrix nearest to `trajectory` (section 2.1).

    Args:
        trajectory: (h, K), or (h, K, m) for m series

    Returns:
        (h + K - 1,) or (h + K - 1, m); ``average(windows(series, h).T)`` is the series.
    """
    y = as_tensor(trajectory, "trajectory")
    if y.ndim not in (2, 3) or y.numel() == 0:
        raise ValueError(f"trajectory must be (h, K) or (h, K, m) and not empty, got shape {tuple(y.shape)}")
    if not torch.isfinite(y).all():
        raise ValueError(f"trajectory has {int((~torch.isfinite(y)).sum())} non-finite entries: one spoils an average")
    if y.shape[0] > y.shape[1]:
        y = y.transpose(0, 1)  # the same antidiagonals, and the padding below is the smaller
    (h, k), m = y.shape[:2], y.shape[2:]
    size = h + k - 1
    # Padding each row with h zeros and cutting the rows one element shorter moves row i to the right by i.
    padded = torch.cat([y, y.new_zeros(h, h, *m)], dim=1).reshape(h * (size + 1), *m)
    total = padded[: h * size].reshape(h, size, *m).sum(0)
    count = torch.arange(1, size + 1).minimum(torch.arange(size, 0, -1)).clamp(max=h).to(total)
    return total / count.reshape(-1, *(1 for _ in m))


def split(series, *sizes, gap: int = 0) -> list[Tensor]:
    """Consecutive parts of a series (or of its windows) in time order, `gap` entries apart.

    Args:
        sizes: fractions of what the gaps leave, or whole numbers of entries, first part first
        gap: entries dropped between parts; windows of a width and a horizon that start in different parts share
            no sample when gap = width + horizon - 1
    """
    data = series if isinstance(series, Tensor) else as_series(series)
    gap = check_int(gap, "gap", 0)
    free = len(data) - gap * (len(sizes) - 1)
    if not sizes or not all(isinstance(s, Real) and 0 < s <= len(data) for s in sizes):
        raise ValueError(f"sizes must be positive fractions, or counts of up to {len(data)} entries, got {sizes}")
    if all(isinstance(s, Integral) for s in sizes):
        lengths = [int(s) for s in sizes]
    else:
        ends = [0, *(round(free * float(c)) for c in np.cumsum(sizes))]
        lengths = np.diff(ends).tolist()
    if sum(lengths) > free or min(lengths) < 1:
        raise ValueError(f"sizes {sizes} and gap {gap} do not fit into {len(data)} entries: take smaller ones")
    starts = np.cumsum([0, *(n + gap for n in lengths[:-1])])
    return [data[a : a + n] for a, n in zip(starts.tolist(), lengths, strict=True)]


def autocorrelation(series, max_lag: int | None = None) -> Tensor:
    """Autocorrelation of a series (T,) at lags 0 ... max_lag (default T // 2), by FFT; (max_lag + 1,).

    Each lag is divided by the series' length, not by the number of pairs, so the sequence stays positive
    semidefinite and the noisy far lags are damped.
    """
    x = as_series(series, ndim=(1,)).double()
    if x.min() == x.max():  # before the mean is taken off, which may leave rounding
        raise ValueError("series is constant: it has no autocorrelation")
    max_lag = len(x) // 2 if max_lag is None else check_int(max_lag, "max_lag", 1, len(x) - 1)
    x = x / x.abs().max()
    x = x - x.mean()
    power = torch.fft.rfft(x, 2 * len(x)).abs() ** 2
    acov = torch.fft.irfft(power)[: max_lag + 1]
    return acov / acov[0]


def dominant_period(series, *, max_period: int | None = None) -> int:
    """Return the period of a series in samples: the first of the highest peaks of its autocorrelation.

    Peaks are sought after the first negative value. The autocorrelation peaks at the period of the whole pattern even where
    a harmonic is the strongest line of the spectrum, as in walking, whose strongest lines are a half and a quarter of a
    stride. In noise the peaks at multiples of the period are as high as the first but for chance, so the first is taken that
    is within two standard errors of the highest, 2 (1 - r^2) / sqrt(T). A trend hides it: take the trend off first.

    Raises:
        ValueError: where there is no peak, or none above what white noise has in 95 of 100 series
    """
    x = as_series(series, ndim=(1,))
    most = len(x) // 2 - 1 if max_period is None else check_int(max_period, "max_period", 2, max(2, len(x) - 2))
    acf = autocorrelation(x, max(1, len(x) - 1))[: most + 2]
    below = (acf < 0).nonzero()
    inner = acf[1:-1]
    peaks = 1 + ((inner > acf[:-2]) & (inner >= acf[2:])).nonzero().flatten()
    peaks = peaks[peaks > below[0]] if len(below) else peaks[:0]
    if not len(peaks):
        raise ValueError(f"series has no period of up to {most} samples: remove a trend, or give a longer series")
    at = int(peaks[acf[peaks].argmax()])
    highest = float(acf[at])
    chance = NormalDist().inv_cdf(1 - 0.025 / max(2, most)) * math.sqrt(len(x) - at) / len(x)
    around = at // 10  # a long period shows in the lags beside it too
    level = float(acf[at - around : at + around + 1].mean()) * math.sqrt(2 * around + 1)
    if max(highest, level) < chance:
        raise ValueError(
            f"series has no period of up to {most} samples: its autocorrelation peaks at {highest:.2g}, and white noise "
            f"of this length at up to {chance:.2g}; name the period where it is known"
        )
    near = peaks[acf[peaks] >= highest - 2 * (1 - highest**2) / math.sqrt(len(x))]
    near = near[near < 1.5 * near[0]]  # a quick ripple has peaks on both sides of the first
    return int(near[acf[near].argmax()])
