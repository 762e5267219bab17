"""Copies of a network with other weights, other modules, or fewer units, and where each of their parameters was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm

from .connections import NORMS, Connection, check_alone, modules_between
from .hooks import check_wiring
from .modules import Maker, copied, find_module, is_parametrized, makers_of
from .parameters import flatten, unflatten
from .weights import dense_at, fold, put_columns, put_rows, read_columns, read_rows

__all__ = ["Units", "cut", "exchange", "plain", "units_of", "unparametrize", "with_tail"]

COUNTS = ("out_features", "out_channels", "num_features", "num_parameters")


def plain(model: nn.Module, connection: Connection) -> nn.Module:
    """Return a copy whose layers have ordinary weights, with batch normalisations folded into them."""
    model = copied(model)
    for name in connection.layers + connection.feeds:
        unparametrize(model, name)
    for name, norm in zip(connection.layers, connection.norms):
        if norm is not None:
            layer = dense_at(model, name)
            put_rows(layer, fold(read_rows(layer), find_module(model, norm, "norm", nn.modules.batchnorm._NormBase)))
            exchange(model, norm, nn.Identity())
    return model


def exchange(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module.train(model.get_submodule(name).training))


def with_tail(model: nn.Sequential, tail: nn.Sequential) -> nn.Sequential:
    """Return a copy of the network with other last modules, which go by the names of those that they replace."""
    whole = copied(model)
    for name, module in tail.named_children():
        whole._modules[name] = module
    return whole


def unparametrize(model: nn.Module, name: str) -> None:
    """Give a layer of the model ordinary weights, with the values that its parametrization, or a hook, makes of others."""
    old = model.get_submodule(name)
    for tensor, hook in makers_of(old).items():
        _remove_maker(old, tensor, hook)
    if not parametrize.is_parametrized(old):
        return
    # not remove_parametrizations: it deletes `weight` from a class that the copy shares with its original
    if type(old).__mro__[1] is not nn.Linear:
        raise ValueError(
            f"layer {name!r} is parametrized: call torch.nn.utils.parametrize.remove_parametrizations first"
        )
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, old.out_features, old.bias is not None, device="meta")
    for kind in ("weight", "bias"):
        if getattr(old, kind) is not None:
            setattr(new, kind, nn.Parameter(getattr(old, kind).detach().clone()))
    exchange(model, name, new)


def _remove_maker(module: nn.Module, tensor: str, hook: Maker) -> None:
    if isinstance(hook, prune.BasePruningMethod):
        prune.remove(module, tensor)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(module, tensor)
    else:
        remove_weight_norm(module, tensor)


def cut(student: nn.Module, connection: Connection, kept: Tensor, expand: Tensor) -> None:
    """Give the layers the kept rows (k, n+1), and their readers the outgoing weights times `expand` (m, k), in place."""
    m = len(expand)
    makers = [dense_at(student, name) for name in connection.layers]
    parts = kept.split([maker.weight[0].numel() + 1 for maker in makers], dim=1)
    for maker, rows in zip(makers, parts):
        put_rows(maker, rows)
    for name in connection.feeds:
        reader = dense_at(student, name)
        columns = read_columns(reader, m)
        bias = None
        if reader.bias is not None and connection.symmetry.centre != 0 and (expand < 0).any():  # f(-z) = 2 f(0) - f(z)
            turned = (expand < 0).any(1)
            lost = (1 - expand[turned].sum(1)) * connection.symmetry.centre
            bias = reader.bias.detach().to(columns) + torch.einsum("u,uso->o", lost.to(columns), columns[turned])
        put_columns(reader, torch.einsum("mk,mso->kso", expand, columns), bias)


@dataclass(frozen=True)
class Units:
    """The m hidden units of a layer: which modules make them, belong to them alone on the way, and read them.

    Attributes:
        model: the network
        owners: names of modules whose parameters have a row, or several, for each unit
        feeds: names of the layers that read the units, some neighbouring columns for each
        size: m
    """

    model: nn.Module
    owners: tuple[str, ...]
    feeds: tuple[str, ...]
    size: int

    def columns(self, units: Tensor) -> Tensor:
        """Return the positions of the outgoing weights of some units in the vector of parameters."""
        place = _places(self.model)
        read = [place[f"{name}.weight"] for name in self.feeds]
        return torch.cat([p[:, self._spread(units, p.shape[1])].reshape(-1) for p in read])

    def only(self, keep: Tensor) -> tuple[nn.Module, Tensor]:
        """Return a copy with these units alone, and the position that each of its parameters had, (q,)."""
        model, place = copied(self.model), _places(self.model)
        for name in self.owners:
            module = model.get_submodule(name)
            for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if tensor.ndim:
                    at = self._spread(keep, len(tensor))
                    _put(module, own, tensor.detach()[at])
                    if f"{name}.{own}" in place:
                        place[f"{name}.{own}"] = place[f"{name}.{own}"][at]
            for count in COUNTS:
                if hasattr(module, count):
                    setattr(module, count, getattr(module, count) * len(keep) // self.size)
            if isinstance(module, _ConvNd) and module.groups > 1:
                module.groups = module.groups * len(keep) // self.size
                module.in_channels = module.in_channels * len(keep) // self.size
        for name in self.feeds:
            module, at = model.get_submodule(name), self._spread(keep, _weight(model, name).shape[1])
            _put(module, "weight", _weight(model, name).detach()[:, at])
            place[f"{name}.weight"] = place[f"{name}.weight"][:, at]
            setattr(module, "in_features" if hasattr(module, "in_features") else "in_channels", len(at))
        return model, torch.cat([place[name].reshape(-1) for name, _ in model.named_parameters()])

    def _spread(self, units: Tensor, width: int) -> Tensor:
        """Return the rows or columns of some units, where `width` of them belong to all."""
        each = width // self.size
        return (units[:, None] * each + torch.arange(each)).reshape(-1)


def units_of(model: nn.Module, layer, feeds, through: str | Sequence[str] | None = None) -> Units:
    """Return the units between two layers; what stands between is found in an `nn.Sequential`, else `through` names it.

    Raises:
        ValueError: for layers that are not as said, where names or, in a network that does not show its order, a pass with
            random inputs tells
    """
    layers, feeds = _named(layer, "layer"), _named(feeds, "feeds")
    if through is None:
        between = modules_between(model, layers[0], feeds[0]) or []
        through = tuple(name for name, module in between if any(p.numel() > 1 for p in module.parameters()))
    else:
        through = _named(through, "through") if len(through) else ()
    modules = dict(model.named_modules())
    for what, names in (("layer", layers), ("through", through), ("feeds", feeds)):
        for name in names:
            if name not in modules or not list(modules[name].parameters(recurse=False)):
                known = [n for n, m in modules.items() if list(m.parameters(recurse=False))]
                raise ValueError(f"{what} must name layers with parameters ({', '.join(known)}), got {name!r}")
            if is_parametrized(modules[name]):
                raise ValueError(
                    f"{what} {name!r} is made from other parameters: call remove_parametrizations, prune.remove or "
                    "remove_weight_norm first"
                )
    check_alone(model, layers + feeds + through)
    units = Units(model, layers + through, feeds, len(_weight(model, layers[0])))
    _check(units, modules, layers, through)
    check_wiring(model, layers, feeds)
    return units


def _check(units: Units, modules, layers, through) -> None:
    m = units.size
    for name in units.owners:
        module = modules[name]
        rows = {len(t) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)) if t.ndim}
        groups = getattr(module, "groups", 1)
        if name in layers and (groups != 1 or rows != {m}):
            raise ValueError(
                f"layer {name!r} must make {m} units, each by a row of its own, got {rows}, {groups} groups"
            )
        mixing = name in through and not isinstance(module, NORMS) and any(p.ndim > 1 for p in module.parameters())
        if any(r % m for r in rows) or (mixing and groups % m):
            raise ValueError(
                f"{name!r} stands between {layers[0]!r} and {units.feeds[0]!r} and mixes their units: name it as feeds"
            )
    for name in units.feeds:
        width = _weight(units.model, name).shape[1]
        if width % m or getattr(modules[name], "groups", 1) != 1:
            raise ValueError(
                f"feeds must read the {m} units of {layers[0]!r} and mix them, got {name!r}, which reads {width} in "
                f"{getattr(modules[name], 'groups', 1)} groups; what passes units by belongs in through="
            )


def _named(given, what: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
        raise ValueError(f"{what} must be the name of a layer, or different names, got {given!r}")
    return names


def _places(model: nn.Module) -> dict[str, Tensor]:
    return unflatten(model, torch.arange(len(flatten(model))))


def _weight(model: nn.Module, name: str) -> Tensor:
    """Return the matrix of weights of a layer."""
    weight = getattr(model.get_submodule(name), "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        kind = type(model.get_submodule(name)).__name__
        raise ValueError(f"{name!r} must have a matrix of weights, as Linear and convolutions have, got {kind}")
    return weight


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    value = value.clone()
    setattr(module, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
