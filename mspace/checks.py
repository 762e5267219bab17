"""Checks of arguments: each names the argument, what came, and where it can the way out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


def check_int(value, name: str, least: int, most: int | None = None) -> int:
    """Return a whole number within limits; floats such as 3.0 are accepted, True and "3" are not."""
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    number = None
    try:
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu":
            number = int(value)
        good = number is not None and number == value and number >= least and (most is None or number <= most)
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good or number is None:
        raise ValueError(f"{name} must be a whole number {limits}, got {value!r}")
    return number


def check_real(value, name: str, low: float = 0.0, high: float = math.inf, ends: str = "()") -> float:
    """Return a finite real number between limits, by default a positive one.

    Args:
        ends: which limits are allowed themselves, as in the notation of intervals: "()", "[)", "(]" or "[]"
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # of an int
        number = math.inf
    above = number >= low if ends[0] == "[" else number > low
    below = number <= high if ends[1] == "]" else number < high
    ok = math.isfinite(number) and above and below
    if not ok:
        sign = {"(0": "positive", "[0": "non-negative"}.get(f"{ends[0]}{low:g}", f"above {low:g}")
        limits = f"{sign} number" if high == math.inf else f"number in {ends[0]}{low:g}, {high:g}{ends[1]}"
        raise ValueError(f"{name} must be a {limits}, got {value!r:.80}")
    return number


def check_fraction(value: float, name: str) -> float:
    """Return a fraction strictly between 0 and 1."""
    return check_real(value, name, 0, 1)


def check_choice(value, name: str, known: Sequence[str]) -> str:
    """Return one of some words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def check_bool(value, name: str) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r:.80}")
    return value


def check_generator(value, name: str = "generator") -> torch.Generator | None:
    """Return a generator of torch for numbers drawn on the CPU, or None."""
    if value is not None and not (isinstance(value, torch.Generator) and value.device.type == "cpu"):
        came = f"one on {value.device}" if isinstance(value, torch.Generator) else f"{value!r:.80}"
        raise ValueError(f"{name} must be a torch.Generator on the CPU, such as seeded(0), or None, got {came}")
    return value


def check_callable(value, name: str, what: str) -> Callable:
    """Return a function; `what` says what it takes and returns, with an example."""
    if not callable(value):
        raise ValueError(f"{name} must be a function {what}, got {value!r:.80}")
    return value


def check_progress(value) -> None:
    """Refuse a `progress` that wraps nothing."""
    check_callable(value, "progress", "that wraps an iterable, such as tqdm")


def check_finite(value, name: str, shape: str) -> Tensor:
    """Return a finite float64 tensor on the CPU, not empty, with as many axes as `shape`, such as "(m, n)", names."""
    tensor = as_tensor(value, name).detach().to("cpu", torch.float64)
    if tensor.ndim != len(shape.strip("()").rstrip(",").split(",")) or tensor.numel() == 0:
        raise ValueError(f"{name} must be {shape} and not empty, got shape {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(tensor)).sum())} values that are not")
    return tensor


def check_indices(value, name: str, count: int) -> Tensor:
    """Return different indices from 0 to count - 1, at least one, given as such or as a mask (count,)."""
    try:
        index = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        index = torch.empty(0)
    if index.dtype == torch.bool and index.shape == (count,):
        index = index.nonzero().flatten()
    whole = index.ndim == 1 and len(index) and not (index.is_floating_point() or index.is_complex())
    whole = whole and index.dtype != torch.bool
    index = index.long() if whole else index
    if not whole or index.min() < 0 or index.max() >= count or len(index.unique()) < len(index):
        raise ValueError(f"{name} must be different whole numbers from 0 to {count - 1}, got {value!r:.80}")
    return index


def check_labels(value, name: str, count: int) -> Tensor:
    """Return the cluster of each of `count` things, (count,), numbered from 0 without gaps in the order of labels."""
    try:
        labels = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as why:
        raise ValueError(f"{name} must be {count} integers, one for each, got {value!r:.80}") from why
    if labels.shape != (count,) or labels.dtype.is_floating_point or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(
            f"{name} must be {count} integers, one for each, got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    return labels.long().unique(return_inverse=True)[1]


def as_tensor(values, name: str) -> Tensor:
    """Return real numbers as a floating point tensor; a tensor or a plain array of floats is not copied."""
    if not isinstance(values, Tensor):
        if np.ma.is_masked(values):
            missing = int(np.ma.getmaskarray(values).sum())
            raise ValueError(
                f"{name} must have no masked values, got {missing}: cut them out, or fill them, x.filled(0.0)"
            )
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
    if values.layout != torch.strided or values.is_meta:
        raise ValueError(f"{name} must be an array of numbers in memory, got a {values.layout} one on {values.device}")
    return values if values.is_floating_point() else values.double()


def as_series(series, name: str = "series", ndim: tuple[int, ...] = (1, 2)) -> Tensor:
    """Return a finite series (T,) or (T, m), time first: floats keep their type, integers and lists become float64."""
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
    """Return one series or several recordings of the same channels as a list of series; whether several came."""
    listed = isinstance(series, Sequence) and not isinstance(series, (str, bytes))
    several = listed and len(series) > 0 and np.ndim(series[0]) > 0
    parts = [as_series(s, f"series[{i}]") for i, s in enumerate(series)] if several else [as_series(series)]
    shapes = {tuple(p.shape[1:]) for p in parts}
    if len(shapes) > 1:
        raise ValueError(f"recordings must have the same channels, got trailing shapes {sorted(shapes)}")
    return parts, several


def check_data(data, name: str = "data") -> tuple[Any, Any]:
    """Return inputs and targets: each a tensor, tuple, list or dictionary of tensors, whose first axis is the example.

    A tuple or list of inputs becomes the arguments of the network, ``model(*inputs)``, a dictionary its keywords,
    ``model(**inputs)``; the loss is given targets as they are. Tensors are handed back as they came, arrays and tables
    of numbers as tensors: floating point numbers keep their type, whole ones become int64.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(f"{name} must be a pair (inputs, targets), got {_kinds(data)}: see torch.as_tensor")
    x, y = (tree_map(lambda leaf: _as_examples(leaf, name), part) for part in data)
    if not all(isinstance(t, Tensor) for t in tree_leaves((x, y))):
        raise ValueError(
            f"{name} must be a pair (inputs, targets) of tensors, or of tuples, lists or dictionaries of tensors, got "
            f"{_kinds(data)}: see torch.as_tensor"
        )
    n, m = ({len(t) if t.ndim else 0 for t in tree_leaves(part)} for part in (x, y))
    if n != m or len(n) != 1 or n == {0}:
        (inputs, first), (targets, second) = ((_counts(size), _shapes(part)) for size, part in ((n, x), (m, y)))
        raise ValueError(
            f"{name} must hold as many targets as inputs, and at least one, got shapes {first} and {second}: "
            f"{inputs} inputs and {targets} targets"
        )
    for part, tree in (("inputs", x), ("targets", y)):
        for t in tree_leaves(tree):
            if t.is_floating_point() and not all(torch.isfinite(piece).all() for piece in t.split(4096)):
                raise ValueError(f"{name} must be finite, got NaN or infinity in the {part}: cut those examples out")
    return x, x if data[1] is data[0] else y


def n_examples(part) -> int:
    """Return the number of examples in checked inputs or targets."""
    return len(part if isinstance(part, Tensor) else tree_leaves(part)[0])


def take(part, index):
    """Return some examples of inputs or targets, by an index, slice or mask of the first axis of each tensor."""
    return part[index] if isinstance(part, Tensor) else tree_map(lambda t: t[index], part)


def arguments(inputs) -> tuple[tuple, dict]:
    """Return the positional and the keyword arguments of a network that inputs are, as `check_data` says."""
    if isinstance(inputs, dict):
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def _as_examples(leaf, name: str):
    """Return a tensor, also of an array or a table; what is none comes back as it is."""
    if isinstance(leaf, Tensor) or not hasattr(leaf, "__array__"):
        return leaf
    tensor = as_tensor(leaf, name)
    return tensor.long() if np.asarray(leaf).dtype.kind in "iu" else tensor


def _kinds(data) -> str:
    several = isinstance(data, (tuple, list)) and len(data) < 9
    return f"({', '.join(type(t).__name__ for t in data)})" if several else type(data).__name__


def _counts(sizes: set[int]) -> str:
    return " or ".join(str(n) for n in sorted(sizes)) or "0"


def _shapes(part) -> str:
    shapes = [tuple(t.shape) for t in tree_leaves(part)]
    return str(shapes[0] if isinstance(part, Tensor) else shapes)


def layer_names(given, what: str = "layer") -> tuple[str, ...]:
    """Return one name of a layer or several; numbers and modules are none, though a Sequential counts its layers."""
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        names = ()
    if not all(isinstance(n, str) for n in names) or not (names or isinstance(given, Sequence)):
        came = type(given).__name__ if isinstance(given, torch.nn.Module) else repr(given)
        raise ValueError(f"{what} must be a name as in named_modules(), such as '0', or several, got {came}")
    return names


def seeded(seed: int) -> torch.Generator:
    """Return a stream of random numbers of its own, to hand in as ``generator=``; the global one is never touched."""
    return torch.Generator().manual_seed(check_int(seed, "seed", 0, 2**64 - 1))


def normal(*shape: int, seed: int) -> Tensor:
    """Return standard normal numbers in float64 from a stream of their own, for simulations."""
    return torch.randn([check_int(k, "shape", 0) for k in shape], generator=seeded(seed), dtype=torch.float64)
