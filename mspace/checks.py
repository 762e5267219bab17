"""The door: what comes in is checked here, once, and named when it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "as_recordings",
    "as_series",
    "as_tensor",
    "between",
    "must_be_examples",
    "names_of",
    "normal",
    "seeded",
    "whole",
]


def whole(value, name: str, least: int, most: int | None = None) -> int:
    """A whole number within limits; floats such as 3.0 are taken, True and "3" are not."""
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    number = None
    try:
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu":
            number = int(value)
        good = number is not None and number == value and number >= least and (most is None or number <= most)
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise ValueError(f"{name} must be a whole number {limits}, got {value!r}")
    return number


def between(value: float, name: str) -> float:
    """A share strictly between 0 and 1."""
    if not isinstance(value, Real) or not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return float(value)


def as_tensor(values, name: str) -> Tensor:
    """Real numbers as a floating point tensor; a tensor or a plain array of floats is not copied."""
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
        except ValueError as why:
            came = "a ragged one" if isinstance(values, Sequence) else type(values).__name__
            raise ValueError(f"{name} must be an array of real numbers, got {came}") from why
        if array.dtype.kind not in "fiu":
            plain = array.dtype != object or isinstance(values, (Sequence, np.ndarray))
            came = f"dtype {array.dtype}" if plain else type(values).__name__
            raise ValueError(f"{name} must be an array of real numbers, got {came}")
        if not array.dtype.isnative or array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        values = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be an array of real numbers, got dtype {values.dtype}")
    return values if values.is_floating_point() else values.double()


def as_series(series, name: str = "series", ndim: tuple[int, ...] = (1, 2)) -> Tensor:
    """A finite series (T,) or (T, m), time first: floats keep their type, integers and lists become float64."""
    series = as_tensor(series, name)
    if series.ndim not in ndim or series.numel() == 0:
        shapes = " or ".join({1: "(T,)", 2: "(T, m)", 3: "(B, T, m)"}[d] for d in ndim)
        raise ValueError(f"{name} must be {shapes} and not empty, got shape {tuple(series.shape)}")
    bad = (~torch.isfinite(series)).reshape(len(series), -1).any(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(f"{name} has {int(bad.sum())} non-finite rows, the first at {first}: fill or cut them out")
    return series


def as_recordings(series) -> tuple[list[Tensor], bool]:
    """One series or several recordings of the same channels as a list of checked series; whether several came."""
    listed = isinstance(series, Sequence) and not isinstance(series, (str, bytes))
    several = listed and len(series) > 0 and np.ndim(series[0]) > 0
    parts = [as_series(s, f"series[{i}]") for i, s in enumerate(series)] if several else [as_series(series)]
    shapes = {tuple(p.shape[1:]) for p in parts}
    if len(shapes) > 1:
        raise ValueError(f"recordings must have the same channels, got trailing shapes {sorted(shapes)}")
    return parts, several


def must_be_examples(data, name: str = "data") -> None:
    """A pair of finite tensors (inputs, targets), as many of the one as of the other."""
    if not isinstance(data, (tuple, list)) or len(data) != 2 or not all(isinstance(t, Tensor) for t in data):
        several = isinstance(data, (tuple, list)) and len(data) < 9
        came = f"({', '.join(type(t).__name__ for t in data)})" if several else type(data).__name__
        raise ValueError(f"{name} must be a pair of tensors (inputs, targets), got {came}: see torch.as_tensor")
    x, y = data
    n, m = (len(t) if t.ndim else 0 for t in (x, y))
    if n != m or n == 0:
        raise ValueError(
            f"{name} must hold as many targets as inputs, and some, got shapes {tuple(x.shape)} and {tuple(y.shape)}: "
            f"{n} inputs and {m} targets"
        )
    for part, t in (("inputs", x), ("targets", y)):
        if t.is_floating_point() and not all(torch.isfinite(piece).all() for piece in t.split(4096)):
            raise ValueError(f"{name} must be finite, got NaN or infinity in the {part}: cut those examples out")


def names_of(given, what: str = "layer") -> tuple[str, ...]:
    """One name of a layer or several; numbers and modules are none, though a Sequential counts its layers."""
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        names = ()
    if not all(isinstance(n, str) for n in names) or not (names or isinstance(given, Sequence)):
        came = type(given).__name__ if isinstance(given, torch.nn.Module) else repr(given)
        raise ValueError(f"{what} must be a name as in named_modules(), such as '0', or several, got {came}")
    return names


def seeded(seed: int) -> torch.Generator:
    """A stream of random numbers of its own, to hand in as ``generator=``; the global one is never touched."""
    return torch.Generator().manual_seed(whole(seed, "seed", 0))


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers in float64 from a stream of their own, for simulations."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)
