"""People walking with a phone in the pocket: MotionSense, and the wrist series that stand in for it."""

from __future__ import annotations

import csv
import warnings
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
CHANNEL = "userAcceleration.x"  # in g
WATCH = (128, 127, 111)  # series of seglearn: arm abductions of three people, each with a period of about two seconds


@dataclass(frozen=True)
class Recordings:
    """Series (T,), one per recording and never joined, since a join is not a movement.

    `rate` is in Hz, `source` says in a line what they are, and `official` is False for a stand-in.
    """

    series: list[Tensor]
    names: tuple[str, ...]
    rate: float
    source: str
    official: bool

    def windows(self, width: int) -> tuple[Tensor, Tensor]:
        """Return all windows (n, width), none across a joint, and which recording each lies in, (n,)."""
        parts = [windows(series, width) for series in self.series]
        lengths = torch.tensor([len(p) for p in parts])
        return torch.cat(parts), torch.repeat_interleave(torch.arange(len(parts)), lengths)


def walking(subject: int = 1) -> Recordings:
    """Load three walks of a subject (1 to 24) of MotionSense (Malekzadeh et al. 2018, MIT): acceleration in g, at 50 Hz.

    If the set cannot be had, a warning `DataReplaced` says why, and sensors at the wrist from seglearn stand in.
    """
    try:
        return _official(check_int(subject, "subject", 1, 24))
    except Unavailable as why:
        result = _watch()
        warnings.warn(f"{why} (until then, {result.source})", DataReplaced, stacklevel=2)
        return result


def _official(subject: int) -> Recordings:
    names = ("wlk_7", "wlk_8", "wlk_15")
    files = fetch_members(MOTION_SENSE, [f"A_DeviceMotion_data/{name}/sub_{subject}.csv" for name in names])
    what = f"MotionSense, subject {subject} walking: {CHANNEL} (Malekzadeh et al. 2018, MIT)"
    return Recordings([_read(file) for file in files], names, 50.0, what, True)


def _read(file: Path) -> Tensor:
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            values = [row[CHANNEL] for row in csv.DictReader(lines)]
    except (ValueError, KeyError, OSError, csv.Error) as error:
        why = f"{file} is broken" if not isinstance(error, KeyError) else f"{file} has no column {CHANNEL}"
        raise DatasetError(f"MotionSense: {why}, remove it and {MOTION_SENSE.way_out()}") from error
    return checked(values, f"MotionSense: {file}", (None,))


def _watch() -> Recordings:
    data = require("seglearn.datasets", "the stand-in for MotionSense", "seglearn").load_watch()
    column = list(data["X_labels"]).index("ax")
    series = [checked(data["X"][i][:, column], f"seglearn series {i}", (None,)) for i in WATCH]
    what = "wrist sensors of people lifting an arm stand in, from seglearn (Burns et al. 2018, BSD licence)"
    return Recordings(series, tuple(f"watch_{i}" for i in WATCH), 50.0, what, False)
