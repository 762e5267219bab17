"""Inputs and outputs of the layers of a network on some data, and whether these show the wiring that a user states."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..checks import arguments
from ..threads import kept_stream
from .connections import Connection, is_shown
from .loss import FAILURES

__all__ = [
    "Seen",
    "batches",
    "check_wiring",
    "drawn_inputs",
    "evaluation_mode",
    "examples",
    "finite",
    "hold_out",
    "leading",
    "output_of",
    "outputs_of",
    "probe",
    "recorded",
    "seen",
    "take",
]

BATCH = 512
SIZES = (28, 32, 16, *range(1, 65), 96, 128, 224, 256)  # lengths of series and sides of images that are tried


class _Enough(Exception):
    """Everything asked for has been seen."""


@dataclass
class Seen:
    """What a layer read and gave in one pass: its input and output."""

    input: Tensor
    output: Tensor


@contextmanager
def evaluation_mode(*models: nn.Module):
    """Put networks into evaluation mode for a while, and each module back into its own."""
    flags = [(m, m.training) for model in models for m in model.modules()]
    for m, _ in flags:
        m.training = False
    try:
        yield
    finally:
        for m, flag in flags:
            m.training = flag


def output_of(model: nn.Module, inputs):
    """Return the output for a tensor, a tuple of arguments or a dictionary of them, which the network gets copies of."""
    args, kwargs = arguments(tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, inputs))
    return model(*args, **kwargs)


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield a list to which each call of the module adds its input and its output."""
    calls: list[tuple[Tensor, Tensor]] = []

    def record(_module, given, output):
        calls.append((given[0].clone(), output))  # the output itself, so that the last layer is known

    handle = module.register_forward_hook(record)
    try:
        yield calls
    finally:
        handle.remove()


def seen(model: nn.Module, names: Sequence[str], inputs, *, stop: bool = True) -> dict[str, Seen]:
    """Return inputs and outputs of the named layers in one pass, which ends with the last of them, unless `stop` is False.

    Where the inputs are a dictionary with an `attention_mask`, dense layers, which treat places one by one, are seen
    at the places where it is not 0: what fills up short sentences is no data.
    """
    found: dict[str, Seen] = {}
    there = inputs.get("attention_mask") if isinstance(inputs, dict) else None

    def look(name):
        def hook(module, given, output):
            if name in found:
                raise ValueError(f"layer {name!r} is used twice in one pass: give each place weights of its own first")
            last = stop and len(found) + 1 == len(names)
            x, y = (t if last else t.clone() for t in (given[0], output))  # what comes later may write into them
            found[name] = Seen(x, y) if there is None or not isinstance(module, nn.Linear) else _unfilled(x, y, there)
            if last:
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
    """Keep the rows of places that are there, (P, n), where the layer has places (N, T, n) at all."""
    if given.ndim != 3 or given.shape[:2] != there.shape:
        return Seen(given, output)
    return Seen(given[there != 0], output[there != 0])


def leading(model: nn.Module, connection: Connection, inputs) -> int:
    """Return how many modules of a sequential network stand before the layers, 0 where it is not one."""
    if type(model) is not nn.Sequential or not isinstance(inputs, Tensor):
        return 0
    return min(list(model._modules).index(name.partition(".")[0]) for name in connection.layers)


def outputs_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs for all inputs, in evaluation mode."""
    with evaluation_mode(model), torch.no_grad():
        return torch.cat([output_of(model, part) for part in batches(inputs)])


def examples(inputs) -> int:
    """Return how many examples the inputs hold."""
    tensors = [t for t in tree_leaves(inputs) if isinstance(t, Tensor) and t.ndim > 0]
    if not tensors or len({len(t) for t in tensors}) > 1 or len(tensors[0]) == 0:
        raise ValueError(
            "calibration must be inputs of the network, a tensor (N, ...) or a tuple or dictionary of tensors of one "
            f"length, got {type(inputs).__name__} of {[tuple(t.shape) for t in tensors]}"
        )
    return len(tensors[0])


def finite(inputs) -> None:
    """Refuse inputs with NaN or infinity."""
    examples(inputs)
    for t in tree_leaves(inputs):
        if not isinstance(t, Tensor) or not t.is_floating_point() or torch.isfinite(t.sum()):
            continue  # a sum is quicker than a mask; where it overflows the mask decides
        if not torch.isfinite(t).all():
            raise ValueError("calibration must be finite, got NaN or infinity: cut those examples out")


def take(inputs, index):
    """Return the examples of an index or a slice."""
    return tree_map(lambda v: v[index] if isinstance(v, Tensor) and v.ndim else v, inputs)


def batches(inputs, size: int = BATCH) -> Iterator:
    """Yield the examples in order, `size` at a time."""
    for start in range(0, examples(inputs), size):
        yield take(inputs, slice(start, start + size))


def hold_out(inputs):
    """Return four fifths of the inputs to fit, and the rest to choose by, which is None for fewer than ten examples.

    Both are made of up to ten runs, as neighbours may overlap.
    """
    n = examples(inputs)
    if n < 10:
        return inputs, None
    run = torch.arange(n) * min(n, 50) // n % 5
    return take(inputs, (run != 2).nonzero().flatten()), take(inputs, (run == 2).nonzero().flatten())


def drawn_inputs(model: nn.Module) -> Tensor | dict[str, Tensor] | None:
    """Return a few random inputs that the network takes, found from its first layers, or None if none of these fit."""
    names = [k for k, p in inspect.signature(model.forward).parameters.items() if p.default is p.empty]
    generator, parameter = torch.Generator().manual_seed(0), next(model.parameters())
    first = [m for m in model.modules() if list(m.parameters(recurse=False))][:3]
    with evaluation_mode(model), torch.no_grad(), kept_stream():
        for layer in first:
            for shape in _shapes(layer):
                if isinstance(layer, nn.Embedding):
                    x = torch.randint(layer.num_embeddings, shape, generator=generator).to(parameter.device)
                else:
                    x = torch.randn(shape, generator=generator).to(parameter)
                inputs = x if len(names) == 1 else {k: _mask(x) if "mask" in k else x for k in names}
                try:
                    output_of(model, inputs)
                except FAILURES:
                    continue
                return inputs
    return None


def _mask(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.int64, device=x.device)


def _shapes(layer: nn.Module) -> Iterator[tuple[int, ...]]:
    """Yield shapes of two examples that a layer may take as the first one of a network."""
    if isinstance(layer, nn.Linear):
        yield from ((2, layer.in_features), (2, 5, layer.in_features))
    for size in (8, *SIZES):
        if isinstance(layer, nn.RNNBase):
            yield (2, size, layer.input_size)
        elif isinstance(layer, nn.Embedding):
            yield (2, size)
    for size in SIZES:
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            yield (2, layer.in_channels, *[size] * len(layer.kernel_size))


def check_wiring(model: nn.Module, layers: Sequence[str], feeds: Sequence[str]) -> Tensor | dict[str, Tensor] | None:
    """Return random inputs with which the readers of a layer were seen to be those named; None where these need no pass.

    No pass is needed in an `nn.Sequential`, which shows what stands between. Where no random inputs fit, nothing is seen.

    Raises:
        ValueError: for readers that are not as said, see `probe`
    """
    if not feeds or is_shown(model, layers, feeds):
        return None
    inputs = drawn_inputs(model)
    if inputs is not None:
        probe(model, layers, feeds, inputs)
    return inputs


def probe(model: nn.Module, layers: Sequence[str], feeds: Sequence[str], inputs) -> None:
    """Check that `feeds` read the units of `layers` and nothing else does, each unit in its own place.

    Asked by disturbing some units, and by holding what the layers, or their readers, give.

    Raises:
        ValueError: if it is not so, if a layer works twice in a pass, or if the network does not take these inputs.
    """
    few = take(inputs, slice(0, 4))
    names = (*layers, *feeds)
    with evaluation_mode(model), torch.no_grad():
        try:
            before = seen(model, names, few, stop=False)
        except (RuntimeError, TypeError, IndexError) as why:
            raise ValueError(f"calibration must be inputs of the network, which says: {why}") from why
        if feeds:
            _check_readers(model, layers, feeds, few, before)


def _check_readers(model, layers, feeds, few, before: dict[str, Seen]) -> None:
    names, axis = (*layers, *feeds), _axis(model, layers[-1])
    m = before[layers[-1]].output.shape[axis]
    mixes = (
        f"does not read layer {layers[0]!r} unit by unit: what stands between mixes its units, or adds another layer's"
    )
    for unit in {0, m // 2, m - 1}:
        after = _overridden(model, names, dict.fromkeys(layers, _shifted(axis, unit)), few)
        for name in feeds:
            moved = (before[name].input - after[name].input).abs().movedim(_axis(model, name), 0).flatten(1).amax(1)
            moved = moved.reshape(m, -1).amax(1)
            if (moved[torch.arange(m, device=moved.device) != unit] > 1e-6 * moved.amax()).any():
                raise ValueError(f"feeds {name!r} {mixes}")
    after = _overridden(model, names, dict.fromkeys(layers, _shifted(axis, None)), few)
    for name in feeds:
        if torch.equal(before[name].input, after[name].input):
            raise ValueError(f"feeds {name!r} does not read layer {layers[0]!r}: its inputs do not change")
    if isinstance(few, dict):  # of which examples rows are is not known where a mask leaves some out
        return
    alike = _overridden(model, names, dict.fromkeys(layers, lambda out: out[:1].expand_as(out).clone()), few)
    for name in feeds:
        x = alike[name].input
        if len(x) == examples(few) and not torch.allclose(x, x[:1].expand_as(x), rtol=1e-4, atol=1e-6):
            raise ValueError(f"feeds {name!r} {mixes}")
    _check_no_other(model, layers, feeds, few, before)


def _check_no_other(model, layers, feeds, few, before: dict[str, Seen]) -> None:
    """Refuse outputs that change with the units while what their readers give is held."""
    held: dict[str, Callable] = {name: lambda _, name=name: before[name].output.clone() for name in feeds}
    for name in layers:
        held[name] = _shifted(_axis(model, name), None)
    pairs = zip(tree_leaves(output_of(model, few)), tree_leaves(_with_outputs(model, held, few)), strict=True)
    if any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in pairs):
        raise ValueError(
            f"feeds must name every layer that reads {layers[0]!r}: outputs change with its units while those of "
            f"{', '.join(feeds)} are held; what reads them without a layer cannot follow"
        )


def _axis(model: nn.Module, name: str) -> int:
    """Return the axis of a layer's inputs and outputs on which units stand."""
    return -1 if isinstance(model.get_submodule(name), nn.Linear) else 1


def _shifted(axis: int, unit: int | None) -> Callable[[Tensor], Tensor]:
    """Return a function that raises one unit of an output far above all, or every unit."""

    def shift(output: Tensor) -> Tensor:
        output = output.clone()
        place = output.movedim(axis, 0)
        (place if unit is None else place[unit : unit + 1]).add_(1 + 10 * output.abs().max())
        return output

    return shift


@contextmanager
def _overriding(model: nn.Module, changes: dict[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let named layers give what these functions make of their outputs."""
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _module, _given, output, change=change: change(output))
        for name, change in changes.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _overridden(model, names, changes: dict[str, Callable[[Tensor], Tensor]], few) -> dict[str, Seen]:
    with _overriding(model, changes):
        return seen(model, names, few)


def _with_outputs(model, changes: dict[str, Callable[[Tensor], Tensor]], few):
    with _overriding(model, changes):
        return output_of(model, few)
