"""Recordings cut into trials with something to be answered: a label, or where the hand is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from ..checks import as_series, check_int
from ..series import split, windows
from .ecog import Ecog


@dataclass(frozen=True, eq=False)
class Trials:
    """Pieces of a recording and what is to be told of them.

    Attributes:
        inputs: (n, 1, C, width), what `mspace.models.HTNet` takes
        targets: (n,) classes, or (n, k) numbers
        starts: (n,) the first sample of each in the recording, increasing
        rate: samples a second
        length: samples of the recording
    """

    inputs: Tensor
    targets: Tensor
    starts: Tensor
    rate: float
    length: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index) -> Trials:
        """Some of the trials, by number, slice, list or mask."""
        index = [index] if isinstance(index, Integral) else index
        return Trials(self.inputs[index], self.targets[index], self.starts[index], self.rate, self.length)

    def split(self, *sizes, gap: float = 0.0) -> list[Trials]:
        """Parts in the order of time, that share no sample: trials that reach over an edge are left out.

        Args:
            sizes: fractions of the recording's time, first part first
            gap: seconds that are left out between two parts
        """
        if not isinstance(gap, Real) or not 0 <= gap < math.inf:
            raise ValueError(f"gap must be a number of seconds, zero or more, got {gap!r}")
        last, parts = self.starts + self.inputs.shape[3] - 1, []
        for i, time in enumerate(split(torch.arange(self.length), *sizes, gap=round(gap * self.rate))):
            parts.append(self[(self.starts >= time[0]) & (last <= time[-1])])
            if not len(parts[-1]):
                raise ValueError(f"sizes {sizes} leave no trial in part {i}: give it more time, or cut shorter trials")
        return parts


def as_ecog(signal, movement, rate: float, *, names: Sequence[str] | None = None) -> Ecog:
    """Any recording of electrodes and of a movement as an `Ecog`.

    Args:
        signal: (T, C) or (C, T): the longer side is time
        movement: (T,), (T, k) or (k, T); or the numbers of the channels of `signal` that hold it, which then leave
        rate: samples a second; where nobody knows it, 1 makes a second of a sample
        names: of the channels of `signal`
    """
    rate = _rate(rate)
    signal = _time_first(signal, "signal")
    names = tuple(f"channel_{i}" for i in range(signal.shape[1])) if names is None else tuple(map(str, names))
    if len(names) != signal.shape[1]:
        raise ValueError(f"names must be {signal.shape[1]}, one for each channel, got {len(names)}")
    numbers = isinstance(movement, Sequence) and all(isinstance(i, Integral) for i in movement)
    if numbers and len(movement) < len(signal):
        there = [check_int(i, "movement", 0, signal.shape[1] - 1) for i in movement]
        rest = [i for i in range(signal.shape[1]) if i not in there]
        if not there or not rest:
            raise ValueError(f"movement must name some channels and leave others, got {list(movement)}")
        return Ecog(signal[:, rest], signal[:, there], rate, tuple(names[i] for i in rest))
    movement = as_series(movement, "movement").double()
    movement = movement.unsqueeze(1) if movement.ndim == 1 else _time_first(movement, "movement")
    if len(movement) != len(signal):
        raise ValueError(f"movement must have the {len(signal)} samples of the signal, got {len(movement)}")
    return Ecog(signal, movement, rate, names)


def trials(
    ecog: Ecog,
    seconds: float,
    *,
    every: float | None = None,
    threshold: float | str | None = None,
    channel: int | None = None,
    points: int = 1,
) -> Trials:
    """Cut a recording into trials: with a threshold labelled move or rest, without to follow the movement.

    A trial is a move (1) if the movement is above the threshold in half of it or more, rest (0) if it never is; those
    between are left out. Otherwise its targets are the movement at its end, or at `points` moments evenly spaced up to
    its end: (n, points k) for k channels of movement, the earliest first.

    Args:
        ecog: from `finger_ecog`, `grip_force`, `simulated_ecog`, or by `as_ecog` of arrays of one's own
        seconds: length of a trial
        every: seconds from the start of one to the next, by default their length, so that they do not overlap
        threshold: in units of the movement, or "middle" between its least and largest value
        channel: the one of the movement that is meant, by default all, to be labelled the only one
        points: moments at which the movement is asked, without a threshold
    """
    signal, movement = as_series(ecog.signal, "signal", ndim=(2,)), as_series(ecog.movement, "movement", ndim=(2,))
    rate = _rate(ecog.rate)
    if len(movement) != len(signal):
        raise ValueError(f"movement must have the {len(signal)} samples of the signal, got {len(movement)}")
    width = _samples(seconds, "seconds", rate, len(signal))
    step = width if every is None else _samples(every, "every", rate, len(signal))
    if channel is not None:
        channel = check_int(channel, "channel", 0, movement.shape[1] - 1)
        movement = movement[:, channel : channel + 1]
    starts = torch.arange(0, len(signal) - width + 1, step)
    followed = windows(movement, width)[::step]  # (n, width, k)
    if threshold is not None and points != 1:
        raise ValueError(f"points must be left out with a threshold, where labels are told, got {points!r}")
    if threshold is None:
        points = check_int(points, "points", 1, width)
        at = (torch.arange(1, points + 1) * width).div(points, rounding_mode="floor") - 1
        kept, targets = torch.ones_like(starts, dtype=torch.bool), followed[:, at].flatten(1)
    else:
        kept, targets = _labels(followed, threshold)
    inputs = windows(signal, width)[::step][kept].transpose(1, 2).unsqueeze(1).contiguous()
    return Trials(inputs, targets, starts[kept], rate, len(signal))


def _labels(followed: Tensor, threshold: float | str) -> tuple[Tensor, Tensor]:
    """Which windows (n, width, 1) are of one kind, and the labels of those."""
    if followed.shape[2] != 1:
        raise ValueError(f"channel must name the movement to be labelled, there are {followed.shape[2]}")
    low, high = float(followed.min()), float(followed.max())
    if threshold == "middle":
        threshold = (low + high) / 2
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not low <= threshold < high:
        raise ValueError(f"threshold must be 'middle' or lie from {low:.4g} up to {high:.4g}, got {threshold!r}")
    share = (followed[..., 0] > threshold).double().mean(1)
    kept = (share >= 0.5) | (share == 0)
    labels = (share[kept] > 0).long()
    if len(labels.unique()) < 2:
        gone = "rest" if len(labels) and labels[0] else "a move"
        raise ValueError(f"threshold {threshold:.4g} leaves no trial of {gone}: take another, or shorter trials")
    return kept, labels


def _rate(rate) -> float:
    if not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise ValueError(
            f"rate must be a positive number of samples a second, got {rate!r}: give 1 to count in samples"
        )
    return float(rate)


def _samples(value, name: str, rate: float, length: int) -> int:
    n = round(value * rate) if isinstance(value, Real) and math.isfinite(value) else 0
    if isinstance(value, bool) or not 1 <= n <= length:
        raise ValueError(
            f"{name} must be from one sample to the whole recording, {1 / rate:.4g} to {length / rate:.4g}, got {value!r}"
        )
    return n


def _time_first(values, name: str) -> Tensor:
    series = as_series(values, name, ndim=(2,)).double()
    if series.shape[0] == series.shape[1]:
        raise ValueError(f"{name} is square, {tuple(series.shape)}: which side is time? Cut it, or give an Ecog")
    return series if series.shape[0] > series.shape[1] else series.T.contiguous()
