"""Which layers stand before and after the hidden units of a network, and their weights as plain matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..network.connections import DescribesItself, HiddenUnits
from ..network.facts import has_hooks
from ..network.modules import copied, find_module, is_parametrized, leaves_of
from ..network.surgery import unparametrize
from ..network.symmetry import symmetry_of

__all__ = ["State", "hidden_of", "plain", "read", "write"]

State = dict[str, Tensor]  # "layer.weight" and "layer.bias" of the layers of one network, float64


def hidden_of(model: nn.Module, group: str, layer=None, feeds=None, activation=None) -> list[HiddenUnits]:
    """Return the hidden layers of a network, in order, each with what `group` means for its activation."""
    if has_hooks(model, makers=False):
        raise ValueError(
            f"layer names units of a {type(model).__name__} that calls hooks, which may treat them unlike: remove them"
        )
    named = layer is not None or feeds is not None
    units = _hidden_units(model, strict=not named)
    if named:
        known = {(u.layer, u.feeds): u for u in units}
        units = [known.get(pair, HiddenUnits(*pair)) for pair in _pairs(layer, feeds)]
    if activation is not None:
        units = [replace(u, activation=activation) for u in units]
    if not units:
        raise ValueError(
            f"layer and feeds must name the hidden layer and the one it feeds: the {type(model).__name__} does not "
            "show one between two dense layers"
        )
    if len({u.layer for u in units}) < len(units) or len({u.feeds for u in units}) < len(units):
        raise ValueError(f"layer and feeds must name every layer once, got {[(u.layer, u.feeds) for u in units]}")
    return [_with_kind(model, group, u) for u in units]


def plain(model: nn.Module, hidden: Sequence[HiddenUnits]) -> nn.Module:
    """Return a copy whose layers around hidden units have ordinary weights, with the values that were made from others."""
    model = copied(model)
    for name in _layers(hidden):
        unparametrize(model, name)
    return model


def read(model: nn.Module, hidden: Sequence[HiddenUnits]) -> State:
    """Return the weights of the layers around hidden units; a gain is multiplied into the weights after it."""
    own, state = dict(model.named_parameters()), {}
    for name in _layers(hidden):
        for kind in ("weight", "bias"):
            tensor = getattr(model.get_submodule(name), kind)
            if tensor is not None and f"{name}.{kind}" not in own:
                raise ValueError(f"layer {name!r} shares its {kind} with another, and cannot be changed alone")
            if tensor is not None:
                state[f"{name}.{kind}"] = tensor.detach().to("cpu", torch.float64)
    for units in hidden:
        if units.gain:
            gain = own[units.gain].detach().to("cpu", torch.float64)
            state[f"{units.feeds}.weight"] = state[f"{units.feeds}.weight"] * gain
    return state


def write(parameters: dict[str, Tensor], states: Sequence[State], hidden: Sequence[HiddenUnits]) -> dict[str, Tensor]:
    """Return stacked parameters with the states' values in place of their own, in their own dtype; gains become 1."""
    new = {key: torch.stack([s[key] for s in states]).to(parameters[key]) for key in states[0]}
    new |= {units.gain: torch.ones_like(parameters[units.gain]) for units in hidden if units.gain}
    return {**parameters, **new}


def _layers(hidden: Sequence[HiddenUnits]) -> list[str]:
    return list(dict.fromkeys(name for units in hidden for name in (units.layer, units.feeds) if name is not None))


def _pairs(layer, feeds) -> list[tuple[str, str]]:
    layers, outs = ([names] if isinstance(names, str) else list(names or []) for names in (layer, feeds))
    if len(layers) != len(outs):
        raise ValueError(f"layer and feeds must be given together, one for one, got {layer!r} and {feeds!r}")
    return list(zip(layers, outs))


def _hidden_units(model: nn.Module, *, strict: bool) -> list[HiddenUnits]:
    """Return the hidden units of networks whose order is known; none for other modules."""
    if isinstance(model, DescribesItself):
        return model.hidden_units()
    if not isinstance(model, nn.Sequential):
        return []
    units, before, between = [], None, []
    for name, module in leaves_of(model):
        if not isinstance(module, nn.Linear):
            if strict and any(p.ndim > 1 for p in module.parameters()):
                raise ValueError(
                    f"module {name!r} is a {type(module).__name__}: align knows dense layers; name `layer`"
                )
            between.append(module)
            continue
        if before is not None:
            units.append(HiddenUnits(before, name, nn.Sequential(*between)))
        before, between = name, []
    return units


def _with_kind(model: nn.Module, group: str, units: HiddenUnits) -> HiddenUnits:
    """Return the units with the changes that a group and their activation allow, or refuse the group."""
    before, after = (
        find_module(model, name or "", what, nn.Linear)
        for what, name in (("layer", units.layer), ("feeds", units.feeds))
    )
    if before.out_features != after.in_features:
        raise ValueError(
            f"feeds {units.feeds!r} reads {after.in_features} units, but layer {units.layer!r} has {before.out_features}"
        )
    if units.activation is None:
        raise ValueError(
            f"activation must be given: what stands between {units.layer!r} and {units.feeds!r} is not known"
        )
    symmetry = symmetry_of(units.activation)
    free = units.free and not any(is_parametrized(m, "weight") for m in (before, after))
    tall = before.out_features <= min(before.in_features, after.out_features)
    allowed = ["permutation", *(["orthogonal"] if symmetry.linear else [])]
    allowed += ["linear"] if symmetry.linear and free and tall else []
    if group not in allowed:
        why = "orthonormal weights" if symmetry.linear and not free else "more units than inputs or outputs"
        why = why if symmetry.linear else "its activation"
        raise ValueError(
            f"group must be one of {', '.join(allowed)} for layer {units.layer!r} with {why}, got {group!r}"
        )
    if group != "permutation":
        return replace(units, kind=group)
    if symmetry.scales and free and not symmetry.linear:
        return replace(units, kind="scales")
    if symmetry.signs and (symmetry.centre == 0 or after.bias is not None):
        return replace(units, kind="signs", centre=symmetry.centre)
    return replace(units, kind="permutation")
