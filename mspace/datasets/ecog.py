"""Movements recorded together with the electrical activity of the cortex (ECoG), and cut into labelled trials."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..checks import as_series, check_int, check_real
from ..series import split, windows
from ._fetch import DatasetError, cache, checked, home, local

# what numpy raises for a file that is cut, of another format, or without the array
BROKEN = (ValueError, LookupError, TypeError, NotImplementedError, OSError, zlib.error, BadZipFile)


class Ecog(NamedTuple):
    """A recording: signal (T, C) and movement (T, k), both at `rate` in Hz, with the names of the channels, if any."""

    signal: Tensor
    movement: Tensor
    rate: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Trials:
    """Pieces of a recording and their labels.

    Attributes:
        inputs: (n, 1, C, width), what `mspace.models.HTNet` takes
        targets: (n,) classes
        starts: (n,) the first sample of each in the recording, increasing
        length: samples of the recording
    """

    inputs: Tensor
    targets: Tensor
    starts: Tensor
    length: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index) -> Trials:
        """Return some of the trials, by slice, indices or mask."""
        return Trials(self.inputs[index], self.targets[index], self.starts[index], self.length)

    def split(self, *fractions: float) -> list[Trials]:
        """Split the recording's time; trials that reach over an edge are left out, so that no two parts share a sample."""
        last, parts = self.starts + self.inputs.shape[3] - 1, []
        for i, time in enumerate(split(torch.arange(self.length), *fractions)):
            parts.append(self[(self.starts >= time[0]) & (last <= time[-1])])
            if not len(parts[-1]):
                raise ValueError(
                    f"sizes {fractions} leave no trial in part {i}: give it more time, or cut shorter trials"
                )
        return parts


def grip_force() -> Ecog:
    """Load three grips in 19 s: 3 LFP and 6 ECoG channels in microvolts and the force (19001, 1), at 1000 Hz.

    An excerpt of the example recording of py_neuromodulation (MIT licence): enough to run a pipeline, far too
    little to claim an accuracy. Nothing is fetched: it is the file `ecog/gripforce.npz` of `MSPACE_DATA`.
    """
    file = local("ecog/gripforce.npz")
    if file is None:
        example = "https://github.com/neuromodulation/py_neuromodulation"
        how = f"save the example recording of {example} with the arrays x, fs and ch_names"
        raise DatasetError(f"grip force is not here: {how} as {(home() or cache()) / 'ecog/gripforce.npz'}")
    x, rate, names = (_read(file, name) for name in ("x", "fs", "ch_names"))
    x = checked(x, "grip force", (len(names), None)).T
    force = np.array([str(name).startswith("MOV") for name in names])
    signal, movement = (x[:, torch.from_numpy(kind)].contiguous() for kind in (~force, force))
    return Ecog(signal, movement, float(rate), tuple(map(str, names[~force])))


def _read(file: Path, name: str) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[name]
    except BROKEN as error:
        raise DatasetError(f"{name} cannot be read from {file}: remove the file and get it again") from error


def trials(ecog: Ecog, seconds: float, *, every: float | None = None, threshold: float) -> Trials:
    """Cut a recording into trials of moving or resting.

    A trial is a move (1) if the movement is above the threshold in half of it or more, rest (0) if it never is; those
    between are left out.

    Args:
        ecog: a recording with one channel of movement
        seconds: length of a trial
        every: seconds from the start of one to the next, by default their length, so that they do not overlap
        threshold: in units of the movement
    """
    signal, movement = as_series(ecog.signal, "signal", ndim=(2,)), as_series(ecog.movement, "movement", ndim=(2,))
    rate = check_real(ecog.rate, "rate")
    if movement.shape != (len(signal), 1):
        raise ValueError(f"movement must be ({len(signal)}, 1), as long as the signal, got {tuple(movement.shape)}")
    width, step = (
        check_int(round(check_real(t, name) * rate), f"{name}, in samples,", 1, len(signal))
        for t, name in ((seconds, "seconds"), (seconds if every is None else every, "every"))
    )
    kept, labels = _labels(windows(movement[:, 0], width)[::step], threshold)
    inputs = windows(signal, width)[::step][kept].transpose(1, 2).unsqueeze(1).contiguous()
    return Trials(inputs, labels, torch.arange(0, len(signal) - width + 1, step)[kept], len(signal))


def _labels(movement: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return which windows (n, width) are of one kind, and the labels of those."""
    low, high = float(movement.min()), float(movement.max())
    share = (movement > check_real(threshold, "threshold", low, high, "[)")).double().mean(1)
    kept = (share >= 0.5) | (share == 0)
    labels = (share[kept] > 0).long()
    if len(labels.unique()) < 2:
        absent = "rest" if len(labels) and labels[0] else "a move"
        raise ValueError(f"threshold {threshold:.4g} leaves no trial of {absent}: take another, or shorter trials")
    return kept, labels
