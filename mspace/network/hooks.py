"""What the layers of a network read and give on some inputs, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .connections import Connection

__all__ = [
    "Seen",
    "batches",
    "evaluation_mode",
    "examples",
    "finite",
    "halves",
    "leading",
    "output_of",
    "outputs_of",
    "probe",
    "recorded",
    "seen",
    "take",
]

BATCH = 512


class _Enough(Exception):
    """Everything asked for has been seen."""


@dataclass
class Seen:
    """The input and the output of a layer in one pass."""

    input: Tensor
    output: Tensor


@contextmanager
def evaluation_mode(*models: nn.Module):
    """Evaluation mode for a while, each module then as it was."""
    flags = [(m, m.training) for model in models for m in model.modules()]
    for m, _ in flags:
        m.training = False
    try:
        yield
    finally:
        for m, flag in flags:
            m.training = flag


def output_of(model: nn.Module, inputs):
    """The model's answer to a tensor, a tuple of arguments or a dictionary of them."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield a list to which each call of the module adds its input and its output."""
    calls: list[tuple[Tensor, Tensor]] = []
    handle = module.register_forward_hook(lambda _, given, output: calls.append((given[0], output)))
    try:
        yield calls
    finally:
        handle.remove()


def seen(model: nn.Module, names: Sequence[str], inputs, *, stop: bool = True) -> dict[str, Seen]:
    """What the named layers read and answer; the pass ends when all have, unless `stop` is False.

    Where the inputs are a dictionary with an `attention_mask`, dense layers, which treat places one by one, are seen
    at the places where it is not 0: what fills up short sentences is no data.
    """
    found: dict[str, Seen] = {}
    there = inputs.get("attention_mask") if isinstance(inputs, dict) else None

    def look(name):
        def hook(module, given, output):
            if name in found:
                raise ValueError(f"layer {name!r} is used twice in one pass: give each place weights of its own first")
            found[name] = Seen(given[0], output)
            if there is not None and isinstance(module, nn.Linear):
                found[name] = _unfilled(given[0], output, there)
            if stop and len(found) == len(names):
                raise _Enough

        return hook

    handles = [model.get_submodule(name).register_forward_hook(look(name)) for name in names]
    try:
        output_of(model, inputs)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if missing := [n for n in names if n not in found]:
        raise ValueError(f"layer {missing[0]!r} is never called in a pass through the network: nothing to calibrate")
    return found


def _unfilled(given: Tensor, output: Tensor, there: Tensor) -> Seen:
    """Rows of places that are there, (P, n), where the layer has places (N, T, n) at all."""
    if given.ndim != 3 or given.shape[:2] != there.shape:
        return Seen(given, output)
    return Seen(given[there != 0], output[there != 0])


def leading(model: nn.Module, wire: Connection, inputs) -> int:
    """How many modules of a sequential network stand before the layers, none where it is not one.

    What they answer does not change when the layers shrink, and is asked once: often it is most of a pass.
    """
    if type(model) is not nn.Sequential or not isinstance(inputs, Tensor):
        return 0
    return min(list(model._modules).index(name.partition(".")[0]) for name in wire.layers)


def outputs_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's answers to all inputs, at rest."""
    with evaluation_mode(model), torch.no_grad():
        return torch.cat([model(part) for part in batches(inputs)])


def examples(inputs) -> int:
    """How many there are."""
    tensors = [t for t in _parts(inputs) if isinstance(t, Tensor) and t.ndim > 0]
    if not tensors or len({len(t) for t in tensors}) > 1 or len(tensors[0]) == 0:
        raise ValueError(
            "calibration must be inputs of the network, a tensor (N, ...) or a tuple or dictionary of tensors of one "
            f"length, got {type(inputs).__name__} of {[tuple(t.shape) for t in tensors]}"
        )
    return len(tensors[0])


def finite(inputs) -> None:
    """Refuses inputs that are not."""
    examples(inputs)
    for t in _parts(inputs):
        if not isinstance(t, Tensor) or not t.is_floating_point() or torch.isfinite(t.sum()):
            continue  # a sum is quicker than a mask; where it overflows the mask decides
        if not torch.isfinite(t).all():
            raise ValueError("calibration must be finite, got NaN or infinity: cut those examples out")


def take(inputs, index):
    """Some of the examples."""
    if isinstance(inputs, dict):
        return {k: v[index] if isinstance(v, Tensor) and v.ndim else v for k, v in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(v[index] if isinstance(v, Tensor) and v.ndim else v for v in inputs)
    return inputs[index]


def _parts(inputs) -> list:
    if isinstance(inputs, dict):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]


def batches(inputs, size: int = BATCH) -> Iterator:
    """The examples in order, `size` at a time."""
    for start in range(0, examples(inputs), size):
        yield take(inputs, slice(start, start + size))


def halves(inputs):
    """Four fifths to fit and one to choose by, in runs, as neighbours may overlap; none to choose by below ten."""
    n = examples(inputs)
    if n < 10:
        return inputs, None
    run = torch.arange(n) * min(n, 50) // n % 5
    return take(inputs, (run != 2).nonzero().flatten()), take(inputs, (run == 2).nonzero().flatten())


def probe(model: nn.Module, wire: Connection, inputs) -> None:
    """Does each of `feeds` read the units of `layers`, each unit in its own place? Asked by disturbing some units.

    Raises:
        ValueError: if it does not, if a layer works twice in a pass, or if the network does not take these inputs.
    """
    few = take(inputs, slice(0, 4))
    names = wire.layers + wire.feeds
    with evaluation_mode(model), torch.no_grad():
        try:
            before = seen(model, names, few, stop=False)
        except (RuntimeError, TypeError, IndexError) as why:
            raise ValueError(f"calibration must be inputs of the network, which says: {why}") from why
        maker = model.get_submodule(wire.layers[-1])
        axis = -1 if isinstance(maker, nn.Linear) else 1
        m = len(maker.weight)
        if not wire.feeds:
            return
        for chosen in {0, m // 2, m - 1}:
            after = _disturbed(model, names, wire.layers, few, axis, chosen)
            for name in wire.feeds:
                reader = model.get_submodule(name)
                moved = (before[name].input - after[name].input).abs()
                moved = moved.movedim(-1 if isinstance(reader, nn.Linear) else 1, 0).flatten(1).amax(1)
                where = moved.reshape(m, -1).amax(1)
                other = torch.arange(m, device=where.device) != chosen
                if (where[other] > 1e-6 * where.amax()).any():
                    raise ValueError(
                        f"feeds {name!r} does not read layer {wire.layers[0]!r} unit by unit: what stands between mixes "
                        "its units, or adds another layer's"
                    )
        if not _reaches(model, names, wire, few, axis, before):
            raise ValueError(
                f"feeds {wire.feeds[0]!r} does not read layer {wire.layers[0]!r}: its inputs do not change"
            )


def _disturbed(model, names, layers, few, axis: int, chosen: int | None) -> dict[str, Seen]:
    def shift(_module, _given, output):
        output = output.clone()
        place = output.movedim(axis, 0)
        (place if chosen is None else place[chosen : chosen + 1]).add_(1 + 10 * output.abs().max())
        return output

    handles = [model.get_submodule(name).register_forward_hook(shift) for name in layers]
    try:
        return seen(model, names, few)
    finally:
        for handle in handles:
            handle.remove()


def _reaches(model, names, wire: Connection, few, axis: int, before) -> bool:
    after = _disturbed(model, names, wire.layers, few, axis, None)
    return all(not torch.equal(before[n].input, after[n].input) for n in wire.feeds)
