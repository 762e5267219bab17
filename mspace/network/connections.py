"""Which layers make some hidden units, which read them, and what stands between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..checks import layer_names
from .facts import has_hooks
from .modules import check_is_module, find_module, leaves_of
from .symmetry import Symmetry, symmetry_of
from .weights import Dense, fold, read_rows

__all__ = ["Connection", "DescribesItself", "HiddenUnits", "connection_of", "is_shown", "read", "rows_of"]

DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
PASSING = (nn.Flatten, nn.Identity, nn.modules.dropout._DropoutNd)
MAXIMUM = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)
AVERAGE = (nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd)


@dataclass(frozen=True)
class Connection:
    """Hidden units from the layers that make them to the layers that read them.

    Attributes:
        layers: one name, or those of a gated block, whose units are products
        feeds: names of the layers that read the units; none for an output layer
        norms: the batch normalisation after each of `layers`, or None
        activation: what stands between, or None where it is not known
        symmetry: the scales and signs that it leaves free
    """

    layers: tuple[str, ...]
    feeds: tuple[str, ...]
    norms: tuple[str | None, ...]
    activation: nn.Module | None = None
    symmetry: Symmetry = field(default_factory=Symmetry)


@dataclass(frozen=True)
class HiddenUnits:
    """Hidden units between two dense layers, as a module describes them and as `align` changes them.

    A module that is no `nn.Sequential` makes them known to `align` by a method ``hidden_units()`` that returns a list of
    these, in order; see `mspace.models.OrthogonalAutoencoder`.

    Attributes:
        layer, feeds: names of the dense layers before and after the units
        activation: between them, or None if it is not known
        gain: name of a parameter that multiplies what the units give, or None
        free: whether the weights may be any; False for orthonormal ones
        kind: which changes of the units `align` uses: "permutation", "signs" or "scales" (both with permutations),
            "orthogonal" or "linear"; a module leaves it as it is
        centre: the value of the activation at 0, if `kind` is "signs"
    """

    layer: str
    feeds: str | None
    activation: nn.Module | Callable[[Tensor], Tensor] | None = None
    gain: str | None = None
    free: bool = True
    kind: str = "permutation"
    centre: float = 0.0


@runtime_checkable
class DescribesItself(Protocol):
    """A module that names its hidden units."""

    def hidden_units(self) -> list[HiddenUnits]: ...


def rows_of(model: nn.Module, layer: str | Sequence[str], *, norm: str | Sequence[str] | None = None) -> Tensor:
    """Return the neurons of a layer with their biases, (m, n+1), float64: what `merge`, `prune` and `compose` reduce.

    Kernels of convolutions are flattened. Several layers whose units belong together, as the two of a gated block,
    stand side by side. A batch normalisation that follows, and is shown or named, is folded in: this is what the network
    computes. ``weight_of(bias=True)`` and ``.neurons(bias=True)`` give the weights without it.

    Args:
        model: any module
        layer: name of a Linear, Conv1d or Conv2d, or names
        norm: name of the batch normalisation after it, where the network is no `nn.Sequential` that shows it
    """
    check_is_module(model)
    layers = _names(layer, "layer")
    return read(model, layers, _norms(model, layers, norm))


def read(model: nn.Module, layers: Sequence[str], norms: Sequence[str | None]) -> Tensor:
    """Return the rows of the layers side by side, each with its normalisation folded in."""
    parts = []
    for name, norm in zip(layers, norms):
        rows = read_rows(_dense(model, name, "layer"))
        parts.append(rows if norm is None else fold(rows, find_module(model, norm, "norm", *NORMS)))
    if len({len(p) for p in parts}) > 1:
        raise ValueError(f"layer must name layers of as many units each, got {[len(p) for p in parts]}")
    return torch.cat(parts, 1)


def is_shown(model: nn.Module, layers: Sequence[str], feeds: Sequence[str]) -> bool:
    """Return whether the network is a sequence of modules that shows what stands between the layers and their readers."""
    sequence = isinstance(model, nn.Sequential)
    return sequence and all(modules_between(model, made, name) is not None for made in layers for name in feeds)


def connection_of(
    model: nn.Module,
    layer: str | Sequence[str],
    feeds: str | Sequence[str] | None = None,
    *,
    activation: nn.Module | Callable[[Tensor], Tensor] | None = None,
    norm: str | Sequence[str] | None = None,
) -> Connection:
    """Return what is known of a layer and its readers before data are seen, or refuse names that do not fit.

    Args:
        model: any module
        layer, feeds: names of the layers that make the units and of those that read them
        activation: what stands between, where the network does not show it
        norm: names of the batch normalisations after the layers, likewise
    """
    check_is_module(model)
    layers = _names(layer, "layer")
    readers = tuple[str, ...]() if feeds is None else _names(feeds, "feeds")
    if any(name in layers for name in readers):
        raise ValueError(
            f"feeds must be a layer that reads {layers[0]!r}, got {readers[0]!r}, which is that layer itself"
        )
    connection = Connection(layers, readers, _norms(model, layers, norm))
    m, dense = len(read(model, layers, connection.norms)), {name: _dense(model, name, "feeds") for name in readers}
    check_alone(model, layers + readers)
    all_between = [modules_between(model, made, name) for made in layers for name in readers]  # refuses a wrong order
    for name, reader in dense.items():
        width = reader.weight.shape[1]
        if width % m or (width != m and not isinstance(reader, nn.Linear)):
            raise ValueError(f"feeds {name!r} reads {width} units, but layer {layers[0]!r} has {m}")
    between = all_between[0] if readers and len(layers) == 1 else None
    if between is None:
        found = _symmetry(activation, []) if activation is not None and len(layers) == 1 else Symmetry()
        return replace(connection, activation=activation, symmetry=_allowed(found, model, connection))
    own = [module for name, module in between if name not in connection.norms]
    known = _activation(own, layers[0], readers[0]) if activation is None else activation
    return replace(connection, activation=known, symmetry=_allowed(_symmetry(known, own), model, connection))


def _names(given, what: str) -> tuple[str, ...]:
    names = layer_names(given, what)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{what} must be the name of a layer, or different names, got {given!r}")
    return names


def _dense(model: nn.Module, name: str, what: str) -> Dense:
    layer = find_module(model, name, what, *DENSE)
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(
            f"{what} {name!r} is a convolution in groups, whose channels are not mixed: name the dense layers around it"
        )
    return layer


def check_alone(model: nn.Module, names: tuple[str, ...]) -> None:
    """Refuse layers that stand in two places, or share weights: one that changes its shape must stand alone."""
    for name in names:
        own = {id(p) for p in model.get_submodule(name).parameters()}
        places = [n.rpartition(".")[0] for n, p in model.named_parameters(remove_duplicate=False) if id(p) in own]
        others = {n for n in places if n != name and not n.startswith(f"{name}.")}  # parts of a parametrization
        if others:
            raise ValueError(
                f"layer {name!r} is used twice, its weights stand in {', '.join(sorted(others))} too: give each place "
                "weights of its own before one of them shrinks"
            )


def _norms(model: nn.Module, layers: tuple[str, ...], norm: str | Sequence[str] | None) -> tuple[str | None, ...]:
    if norm is not None:
        norms = _names(norm, "norm")
        if len(norms) != len(layers):
            raise ValueError(f"norm must name a normalisation for each of {len(layers)} layers, got {norms}")
        return norms
    following = [_after(model, name) for name in layers]
    return tuple(name if isinstance(module, NORMS) else None for name, module in following)


def _after(model: nn.Module, layer: str) -> tuple[str | None, nn.Module | None]:
    """Return what comes next in a sequential network, by name; nothing where its order is not known."""
    for leaves in sequences(model, layer):
        names = [n for n, _ in leaves]
        if layer in names and names.index(layer) + 1 < len(leaves):
            return leaves[names.index(layer) + 1]
    return None, None


def modules_between(model: nn.Module, layer: str, feeds: str) -> list[tuple[str, nn.Module]] | None:
    """Return the modules between two layers of a sequential network, None where its order is not known."""
    for leaves in sequences(model, layer):
        names = [n for n, _ in leaves]
        if layer in names and feeds in names:
            start, end = names.index(layer), names.index(feeds)
            if end < start:
                raise ValueError(f"feeds must be a layer that reads {layer!r}, got {feeds!r}, which comes before it")
            return leaves[start + 1 : end]
    return None


def sequences(model: nn.Module, layer: str):
    """Yield the leaves of every `nn.Sequential` that the layer is in, in order; none where hooks change what they give."""
    parts = layer.split(".")
    for i in range(len(parts)):
        prefix = ".".join(parts[:i])
        module = model.get_submodule(prefix)
        if isinstance(module, nn.Sequential) and not has_hooks(module, makers=False):
            yield list(leaves_of(module, f"{prefix}." if prefix else ""))


def _activation(between: list[nn.Module], layer: str, feeds: str) -> nn.Module:
    own = [m for m in between if not isinstance(m, PASSING + MAXIMUM + AVERAGE)]
    late = [type(m).__name__ for m in own if isinstance(m, NORMS)]
    if late:
        raise ValueError(
            f"layer {layer!r} has a {late[0]} behind its activation, which would have to shrink with it: fold it into "
            f"{feeds!r} first"
        )
    mixing = [type(m).__name__ for m in own if any(p.numel() > 1 for p in m.parameters())]
    if mixing:
        raise ValueError(
            f"feeds {feeds!r} does not read layer {layer!r} unit by unit: {', '.join(mixing)} stands between"
        )
    return nn.Sequential(*own)


def _symmetry(activation, between: list[nn.Module]) -> Symmetry:
    found = symmetry_of(activation)
    if any(isinstance(m, MAXIMUM) for m in between):
        return replace(found, signs=False, linear=False)  # the largest of -x is not minus the largest of x
    return found


def _allowed(found: Symmetry, model: nn.Module, connection: Connection) -> Symmetry:
    """Return the symmetry without signs about a centre where no bias makes them good, the same at every place."""
    readers = [model.get_submodule(name) for name in connection.feeds]
    sound = all(isinstance(r, nn.Linear) and r.bias is not None for r in readers)
    return found if found.centre == 0 or sound else replace(found, signs=False, centre=0.0)
