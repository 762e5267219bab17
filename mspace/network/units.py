"""Which parameters belong to a unit, and networks with other units, kept beside where each of their parameters was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .connections import NORMS, check_alone, modules_between
from .modules import copied, is_parametrized
from .parameters import flatten, unflatten

__all__ = ["Units", "units_of"]

COUNTS = ("out_features", "out_channels", "num_features", "num_parameters")


@dataclass(frozen=True)
class Units:
    """m units of a network: where they are made, what is theirs alone on the way, and what reads them.

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
        """Positions of the outgoing weights of some units."""
        place = _places(self.model)
        read = [place[f"{name}.weight"] for name in self.feeds]
        return torch.cat([p[:, self._spread(units, p.shape[1])].reshape(-1) for p in read])

    def only(self, keep: Tensor) -> tuple[nn.Module, Tensor]:
        """A copy with these units, and the position that each of its parameters had, (q,)."""
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
            if getattr(module, "groups", 1) > 1:
                module.groups = module.groups * len(keep) // self.size
                module.in_channels = module.in_channels * len(keep) // self.size
        for name in self.feeds:
            module, at = model.get_submodule(name), self._spread(keep, _weight(model, name).shape[1])
            _put(module, "weight", module.weight.detach()[:, at])
            place[f"{name}.weight"] = place[f"{name}.weight"][:, at]
            setattr(module, "in_features" if hasattr(module, "in_features") else "in_channels", len(at))
        return model, torch.cat([place[name].reshape(-1) for name, _ in model.named_parameters()])

    def _spread(self, units: Tensor, width: int) -> Tensor:
        """The rows or columns of some units, where `width` of them belong to all."""
        each = width // self.size
        return (units[:, None] * each + torch.arange(each)).reshape(-1)


def units_of(model: nn.Module, layer, feeds, through: str | Sequence[str] | None = None) -> Units:
    """The units between two layers; what stands between is found in an `nn.Sequential`, else it has to be named."""
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
    """What a layer multiplies by."""
    weight = getattr(model.get_submodule(name), "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        kind = type(model.get_submodule(name)).__name__
        raise ValueError(f"{name!r} must have a matrix of weights, as Linear and convolutions have, got {kind}")
    return weight


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    value = value.clone()
    setattr(module, name, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
