"""People walking with a phone in the pocket: MotionSense, and the wrist series that stand in for it."""

from __future__ import annotations

import csv
import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checks import check_int
from ..series import windows
from ._fetch import Archive, DataReplaced, DatasetError, Unavailable, checked, fetch_members, require

MOTION_SENSE = Archive(
    "MotionSense",
    "motion_sense",
    "A_DeviceMotion_data.zip",
    "https://github.com/mmalekzadeh/motion-sense/raw/261cb0d60611a049ab38127738e42cc510ed50f4"
    "/data/A_DeviceMotion_data.zip",
    "78f9957d9f4d0a4b6457461009e1f2e0453a872d",
)
CHANNELS = tuple(f"attitude.{angle}" for angle in ("roll", "pitch", "yaw")) + tuple(
    f"{sensor}.{axis}" for sensor in ("gravity", "rotationRate", "userAcceleration") for axis in "xyz"
)
# series of seglearn: arm abductions of three people, each with a period of about two seconds
WATCH = (128, 127, 111)
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
        """Return all windows (n, width[, m]), none across a joint, and which recording each lies in, (n,)."""
        parts = [windows(series, width) for series in self.series]
        lengths = torch.tensor([len(p) for p in parts])
        return torch.cat(parts), torch.repeat_interleave(torch.arange(len(parts)), lengths)


def walking(subject: int = 1, *, channel: str | Sequence[str] = "userAcceleration.x") -> Recordings:
    """Load three walks of a subject (1 to 24) of MotionSense (Malekzadeh et al. 2018, MIT), at 50 Hz.

    Accelerations and gravity are in g, rotation rates in rad/s, attitudes in rad; one channel gives series
    (T,), a sequence of m channels (T, m). If the set cannot be had, a warning `DataReplaced` says why, and
    sensors at the wrist from seglearn stand in, as many recordings of the same axes.
    """
    subject = check_int(subject, "subject", 1, 24)
    channels = (channel,) if isinstance(channel, str) else tuple(channel)
    if not channels or not set(channels) <= set(CHANNELS):
        raise ValueError(f"channel must be among {', '.join(CHANNELS)}, got {channel!r}")
    try:
        result = _official(subject, channels)
    except Unavailable as why:
        result = _watch(channels)
        warnings.warn(f"{why} (until then, {result.source})", DataReplaced, stacklevel=2)
    if isinstance(channel, str):
        result = dataclasses.replace(result, series=[series[:, 0] for series in result.series])
    return result


def _official(subject: int, channels: tuple[str, ...]) -> Recordings:
    names = ("wlk_7", "wlk_8", "wlk_15")
    files = fetch_members(MOTION_SENSE, [f"A_DeviceMotion_data/{name}/sub_{subject}.csv" for name in names])
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


def _watch(channels: tuple[str, ...]) -> Recordings:
    if missing := [name for name in channels if name not in WATCH_CHANNELS]:
        why = f"MotionSense cannot be had and nothing stands in for its {missing[0]}"
        raise Unavailable(f"{why}: {MOTION_SENSE.way_out()}")
    data = require("seglearn.datasets", "the stand-in for MotionSense", "seglearn").load_watch()
    columns = [list(data["X_labels"]).index(WATCH_CHANNELS[name]) for name in channels]
    series = [checked(data["X"][i][:, columns], f"seglearn series {i}", (None, len(columns))) for i in WATCH]
    what = "wrist sensors of people lifting an arm stand in, from seglearn (Burns et al. 2018, BSD licence)"
    return Recordings(series, tuple(f"watch_{i}" for i in WATCH), 50.0, what, False)
