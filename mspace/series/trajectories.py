"""Windows of a series and back: the trajectory matrix, its average, splits in time, periods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_recordings", "as_series", "autocorrelation", "average", "dominant_period", "split", "windows"]


def as_series(series, name: str = "series") -> Tensor:
    """The door every series passes: a finite real tensor (T,) or (T, m), time first.

    Floating point tensors and arrays are neither copied nor converted; integers and lists become float64.
    """
    if not isinstance(series, Tensor):
        array = np.asarray(series)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name} must be an array of real numbers, got dtype {array.dtype}")
        series = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if series.is_complex() or series.dtype == torch.bool:
        raise ValueError(f"{name} must be an array of real numbers, got dtype {series.dtype}")
    if series.ndim not in (1, 2) or series.numel() == 0:
        raise ValueError(f"{name} must be (T,) or (T, m) and not empty, got shape {tuple(series.shape)}")
    if not series.is_floating_point():
        series = series.double()
    bad = (~torch.isfinite(series)).reshape(len(series), -1).any(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(f"{name} has {int(bad.sum())} non-finite rows, the first at {first}: fill or cut them out")
    return series


def as_recordings(series) -> list[Tensor]:
    """One series, or a list of recordings of the same channels, as a list of checked series."""
    several = isinstance(series, Sequence) and len(series) > 0 and np.ndim(series[0]) > 0
    parts = [as_series(s, f"series[{i}]") for i, s in enumerate(series)] if several else [as_series(series)]
    shapes = {tuple(p.shape[1:]) for p in parts}
    if len(shapes) > 1:
        raise ValueError(f"recordings must have the same channels, got trailing shapes {sorted(shapes)}")
    return parts


def _whole(value, name: str, least: int) -> int:
    if int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")
    return int(value)


def _unfold(series: Tensor, width: int) -> Tensor:
    view = series.unfold(0, width, 1)  # (n, width) or (n, m, width), no copy
    return view if series.ndim == 1 else view.transpose(1, 2)


def windows(series, width: int, *, horizon: int = 0):
    """Histories of a series, and the horizons that follow them (definitions 2 and 3 of the paper).

    Args:
        series: (T,) or (T, m), or a list of recordings, which no window then straddles

    Returns:
        (n, width[, m]) with n = T - width + 1, the transposed trajectory matrix; with a horizon p > 0 a pair
        (n, width[, m]), (n, p[, m]) with n = T - width - p + 1.
    Both are strided views of a single series; windows of several recordings are copied one after another.
    """
    width, horizon = _whole(width, "width", 1), _whole(horizon, "horizon", 0)
    parts = as_recordings(series)
    short = [len(p) for p in parts if len(p) < width + horizon]
    if short:
        raise ValueError(
            f"width {width} and horizon {horizon} need {width + horizon} samples, got a series of {short[0]}: "
            "shorten them or leave that series out"
        )
    ins = [_unfold(p[: len(p) - horizon], width) for p in parts]
    outs = [_unfold(p[width:], horizon) for p in parts] if horizon else []
    ins, outs = (p[0] if len(p) == 1 else torch.cat(p) if p else None for p in (ins, outs))
    return (ins, outs) if horizon else ins


def average(trajectory) -> Tensor:
    """Average every antidiagonal: the series of the Hankel matrix nearest to `trajectory` (section 2.1).

    Args:
        trajectory: (h, K), or (h, K, m) for m series

    Returns:
        (h + K - 1,) or (h + K - 1, m); ``average(windows(series, h).T)`` is the series.
    """
    y = trajectory if isinstance(trajectory, Tensor) else torch.as_tensor(np.asarray(trajectory))
    if y.ndim not in (2, 3) or y.numel() == 0:
        raise ValueError(f"trajectory must be (h, K) or (h, K, m) and not empty, got shape {tuple(y.shape)}")
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
    gap = _whole(gap, "gap", 0)
    free = len(data) - gap * (len(sizes) - 1)
    if not sizes or any(s <= 0 for s in sizes):
        raise ValueError(f"sizes must be one or more positive fractions or counts, got {sizes}")
    if all(isinstance(s, float) for s in sizes):
        ends = [round(free * c) for c in np.cumsum(sizes)]
        lengths = [b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    else:
        lengths = [_whole(s, "sizes", 1) for s in sizes]
    if sum(lengths) > free or min(lengths) < 1:
        raise ValueError(f"sizes {sizes} and gap {gap} do not fit into {len(data)} entries: take smaller ones")
    starts = np.cumsum([0, *(n + gap for n in lengths[:-1])])
    return [data[a : a + n] for a, n in zip(starts.tolist(), lengths, strict=True)]


def autocorrelation(series, max_lag: int | None = None) -> Tensor:
    """Autocorrelation of a series (T,) at lags 0 ... max_lag (default T // 2), by FFT; (max_lag + 1,).

    Each lag is divided by the series' length, not by the number of pairs, so the sequence stays positive
    semidefinite and the noisy far lags are damped.
    """
    x = as_series(series)
    if x.ndim != 1:
        raise ValueError(f"series must be (T,), got shape {tuple(x.shape)}: take one channel")
    max_lag = len(x) // 2 if max_lag is None else _whole(max_lag, "max_lag", 1)
    if max_lag >= len(x):
        raise ValueError(f"max_lag must be below the length {len(x)}, got {max_lag}")
    x = x.double() - x.double().mean()
    power = torch.fft.rfft(x, 2 * len(x)).abs() ** 2
    acov = torch.fft.irfft(power)[: max_lag + 1]
    if acov[0] <= 0:
        raise ValueError("series is constant: it has no autocorrelation")
    return acov / acov[0]


def dominant_period(series, *, max_period: int | None = None) -> int:
    """The lag, in samples, of the highest peak of the autocorrelation after its first negative value.

    The autocorrelation peaks at the period of the whole pattern even where a harmonic is the strongest line
    of the spectrum, as in walking, whose spectrum is highest at a quarter of a stride.
    """
    acf = autocorrelation(series, max_period and max_period + 1)
    below = (acf < 0).nonzero()
    inner = acf[1:-1]
    peaks = 1 + ((inner > acf[:-2]) & (inner >= acf[2:])).nonzero().flatten()
    peaks = peaks[peaks > below[0]] if len(below) else peaks[:0]
    if not len(peaks):
        raise ValueError(f"series has no period up to {len(acf) - 2} samples: give a longer series or max_period")
    return int(peaks[acf[peaks].argmax()])
