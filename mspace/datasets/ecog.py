"""Movements recorded together with the electrical activity of the cortex (ECoG)."""

import zlib
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from ._errors import DatasetError, checked
from ._fetch import Source, cache, home, local
from ._zip import fetch_members

FINGERS = Source(
    "BCI Competition IV set 4",
    "ecog",
    "BCI_Competion4_dataset4_data_fingerflexions.zip",  # spelt so
    ("https://stacks.stanford.edu/file/druid:zk881ps0522/BCI_Competion4_dataset4_data_fingerflexions.zip",),
    "md5:b67f5087f0582144b66104aa60387020",
)
# what numpy and scipy raise for a file that is cut, of another format, or without the array
BROKEN = (ValueError, LookupError, TypeError, NotImplementedError, OSError, zlib.error, BadZipFile, MatReadError)


class Ecog(NamedTuple):
    """Signal (T, channels) and movement (T, k), both at `rate` in Hz, with the names of the channels."""

    signal: Tensor
    movement: Tensor
    rate: float
    names: tuple[str, ...]


def finger_ecog(subject: int = 1, *, part: str = "train") -> Ecog:
    """BCI Competition IV set 4 (Miller and Schalk 2008), subject 1 to 3: ECoG and flexion of five fingers.

    Both at 1000 Hz in the units of the amplifier and of the glove, whose own rate is 25 Hz; `part` is "train"
    (400 s) or "test" (200 s). The archive has 233 MB and is fetched once.
    """
    if not isinstance(subject, Integral) or subject not in (1, 2, 3):
        raise ValueError(f"subject must be 1, 2 or 3, got {subject!r}")
    if part not in ("train", "test"):
        raise ValueError(f"part must be 'train' or 'test', got {part!r}")
    labels = "comp" if part == "train" else "testlabels"
    signal, movement = fetch_members(FINGERS, [f"sub{subject:d}_comp.mat", f"sub{subject:d}_{labels}.mat"])
    signal, movement = _read(signal, _mat, f"{part}_data"), _read(movement, _mat, f"{part}_dg")
    names = tuple(f"ECOG_{i}" for i in range(signal.shape[1]))
    return _ecog(signal, movement, 1000.0, names, FINGERS.name)


def grip_force() -> Ecog:
    """Three grips in 19 s: 3 LFP and 6 ECoG channels in microvolts and the force (19001, 1), at 1000 Hz.

    An excerpt of the example recording of py_neuromodulation (MIT licence): enough to run a pipeline, far too
    little to claim an accuracy. Nothing is fetched: it is the file `ecog/gripforce.npz` of `MSPACE_DATA`.
    """
    file = local("ecog/gripforce.npz")
    if file is None:
        example = "https://github.com/neuromodulation/py_neuromodulation"
        how = f"save the example recording of {example} with the arrays x, fs and ch_names"
        raise DatasetError(f"grip force is not here: {how} as {(home() or cache()) / 'ecog/gripforce.npz'}")
    x, rate, names = (_read(file, _npz, name) for name in ("x", "fs", "ch_names"))
    x = checked(x, "grip force", (len(names), None)).numpy()
    force = np.array([str(name).startswith("MOV") for name in names])
    return _ecog(x[~force].T, x[force].T, float(rate), tuple(map(str, names[~force])), "grip force")


def _ecog(signal, movement, rate: float, names: tuple[str, ...], what: str) -> Ecog:
    signal = checked(signal, f"{what} (signal)", (None, len(names)))
    return Ecog(signal, checked(movement, f"{what} (movement)", (len(signal), None)), rate, names)


def _mat(file: Path, name: str) -> np.ndarray:
    return loadmat(file, variable_names=[name])[name]


def _npz(file: Path, name: str) -> np.ndarray:
    with np.load(file, allow_pickle=False) as arrays:
        return arrays[name]


def _read(file: Path, reader: Callable[[Path, str], np.ndarray], name: str) -> np.ndarray:
    try:
        return reader(file, name)
    except BROKEN as error:
        raise DatasetError(f"{name} cannot be read from {file}: remove the file and get it again") from error
