"""People walking with a phone in the pocket: MotionSense, and the wrist series that stand in for it."""

import csv
import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from ..series import windows
from ._errors import DataReplaced, DatasetError, Unavailable, checked, optional
from ._fetch import Source
from ._zip import fetch_members

MOTION_SENSE = Source(
    "MotionSense",
    "motion_sense",
    "A_DeviceMotion_data.zip",
    (
        "https://github.com/mmalekzadeh/motion-sense/raw/261cb0d60611a049ab38127738e42cc510ed50f4"
        "/data/A_DeviceMotion_data.zip",
    ),
    "git-blob:78f9957d9f4d0a4b6457461009e1f2e0453a872d",
)
TRIALS = (7, 8, 15)
CHANNELS = tuple(f"attitude.{angle}" for angle in ("roll", "pitch", "yaw")) + tuple(
    f"{sensor}.{axis}" for sensor in ("gravity", "rotationRate", "userAcceleration") for axis in "xyz"
)
# series of seglearn by trial: arm abductions of three people, each with a period of about two seconds
WATCH = {7: 128, 8: 127, 15: 111}
WATCH_CHANNELS = {f"userAcceleration.{axis}": f"a{axis}" for axis in "xyz"}
WATCH_CHANNELS |= {f"rotationRate.{axis}": f"w{axis}" for axis in "xyz"}


@dataclass(frozen=True)
class Recordings:
    """Series (T,) or (T, m), one per recording and never joined, since a join is not a movement.

    `rate` is in Hz, `source` says in a line what they are, and `official` is False for a stand-in.
    """

    series: list[Tensor]
    names: tuple[str, ...]
    rate: float
    source: str
    official: bool

    def windows(self, width: int) -> tuple[Tensor, Tensor]:
        """All windows (n, width[, m]), none across a joint, and which recording each lies in, (n,)."""
        parts = [windows(series, width) for series in self.series]
        lengths = torch.tensor([len(p) for p in parts])
        return torch.cat(parts), torch.repeat_interleave(torch.arange(len(parts)), lengths)


def walking(
    subject: int = 1,
    *,
    trials: Sequence[int] = TRIALS,
    channel: str | Sequence[str] = "userAcceleration.x",
    replace: bool = True,
) -> Recordings:
    """One subject (1 to 24) of MotionSense walking (Malekzadeh et al. 2018, MIT): 50 Hz, a series per trial.

    Accelerations and gravity are in g, rotation rates in rad/s, attitudes in rad; one channel gives series
    (T,), a sequence of m channels (T, m). If the set cannot be had, a warning `DataReplaced` says why, and
    sensors at the wrist from seglearn stand in, as many recordings of the same axes; `replace=False` makes it
    an error.
    """
    trials, channels = _asked(subject, trials, channel)
    try:
        found = _official(subject, trials, channels)
    except Unavailable as why:
        if not replace:
            raise
        found = _watch(trials, channels)
        warnings.warn(f"{why} (until then, {found.source})", DataReplaced, stacklevel=2)
    if isinstance(channel, str):
        found = dataclasses.replace(found, series=[series[:, 0] for series in found.series])
    return found


def _asked(subject, trials, channel) -> tuple[tuple[int, ...], tuple[str, ...]]:
    channels = (channel,) if isinstance(channel, str) else tuple(channel)
    trials = (trials,) if isinstance(trials, Integral) else tuple(trials)
    if not isinstance(subject, Integral) or subject not in range(1, 25):
        raise ValueError(f"subject must be a whole number from 1 to 24, got {subject!r}")
    if not trials or not set(trials) <= set(TRIALS):
        raise ValueError(f"trials must be some of the walks {TRIALS}, got {trials}")
    if not channels or not set(channels) <= set(CHANNELS):
        raise ValueError(f"channel must be among {', '.join(CHANNELS)}, got {channel!r}")
    return trials, channels


def _official(subject: int, trials: tuple[int, ...], channels: tuple[str, ...]) -> Recordings:
    names = tuple(f"wlk_{trial}" for trial in trials)
    files = fetch_members(MOTION_SENSE, [f"A_DeviceMotion_data/{name}/sub_{subject:d}.csv" for name in names])
    what = f"MotionSense, subject {subject} walking: {', '.join(channels)} (Malekzadeh et al. 2018, MIT)"
    return Recordings([_read(file, channels) for file in files], names, 50.0, what, True)


def _read(file: Path, channels: tuple[str, ...]) -> Tensor:
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            header, *rows = csv.reader(lines)
        missing = [name for name in channels if name not in header]
        columns = [header.index(name) for name in channels if name in header]
        values = [[row[column] for column in columns] for row in rows]
    except (ValueError, IndexError, OSError, csv.Error) as error:
        why = f"MotionSense: {file} is broken"
        raise DatasetError(f"{why}, remove it and {MOTION_SENSE.way_out()}") from error
    if missing:
        why = f"{file} has no {' and no '.join(missing)}, only {', '.join(filter(None, header))}"
        raise DatasetError(f"MotionSense: {why}; ask for these, or remove it and {MOTION_SENSE.way_out()}")
    return checked(values, f"MotionSense: {file}", (None, len(channels)))


def _watch(trials: tuple[int, ...], channels: tuple[str, ...]) -> Recordings:
    if missing := [name for name in channels if name not in WATCH_CHANNELS]:
        why = f"MotionSense cannot be had and nothing stands in for its {missing[0]}"
        raise Unavailable(f"{why}: {MOTION_SENSE.way_out()}")
    data = optional("seglearn.datasets", "the stand-in for MotionSense", "seglearn").load_watch()
    columns = [list(data["X_labels"]).index(WATCH_CHANNELS[name]) for name in channels]
    numbers, shape = [WATCH[trial] for trial in trials], (None, len(columns))
    series = [checked(data["X"][i][:, columns], f"seglearn series {i}", shape) for i in numbers]
    what = "wrist sensors of people lifting an arm stand in, from seglearn (Burns et al. 2018, BSD licence)"
    return Recordings(series, tuple(f"watch_{i}" for i in numbers), 50.0, what, False)
