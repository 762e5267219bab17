"""What may go wrong with data, and the one door that everything read from a file passes."""

import importlib

import numpy as np
import torch
from torch import Tensor


class DatasetError(ValueError):
    """A set that cannot be given: one sentence with its name, what went wrong and the way out."""


class Unavailable(DatasetError):
    """The set is not here and its sources do not answer: the only failure that a stand-in may answer."""


class DataReplaced(UserWarning):
    """Another set stands in for the one asked for."""


def optional(module: str, what: str, install: str):
    """The module `module`, or the sentence that says what to install for the set `what`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        why = f"{what} needs {missing.name}, which is not installed"
        raise DatasetError(f"{why}: run `pip install {install}`") from missing


def checked(values, what: str, shape: tuple[int | None, ...]) -> Tensor:
    """`values` as a float64 tensor of `shape` (None is any length from 1), every value finite."""
    try:
        array = np.array(values, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{what} holds something that is not a number: get the file again") from error
    fits = array.ndim == len(shape) and all(
        have == want if want is not None else have > 0 for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise DatasetError(f"{what} has the shape {array.shape} instead of ({wanted}): get the file again")
    if bad := int((~np.isfinite(array)).sum()):
        raise DatasetError(f"{what} has {bad} missing or infinite values: get the file again")
    return torch.from_numpy(array)
