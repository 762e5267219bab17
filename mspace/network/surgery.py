"""Copies of a network whose layers have other weights, and fewer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm

from .connections import Connection
from .layers import dense_at, fold, put_columns, put_rows, read_columns, read_rows
from .modules import Maker, copied, find_module, makers_of

__all__ = ["cut", "exchange", "plain", "unparametrize", "with_tail"]


def plain(model: nn.Module, wire: Connection) -> nn.Module:
    """A copy whose layers have ordinary weights, with batch normalisations folded into them."""
    model = copied(model)
    for name in wire.layers + wire.feeds:
        unparametrize(model, name)
    for name, norm in zip(wire.layers, wire.norms):
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
    """A copy of the network with other last modules, which go by the names of those that they replace."""
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


def cut(student: nn.Module, wire: Connection, kept: Tensor, expand: Tensor) -> None:
    """Put in the kept rows (k, n+1) and the outgoing weights times `expand` (m, k)."""
    m = len(expand)
    makers = [dense_at(student, name) for name in wire.layers]
    parts = kept.split([maker.weight[0].numel() + 1 for maker in makers], dim=1)
    for maker, rows in zip(makers, parts):
        put_rows(maker, rows)
    for name in wire.feeds:
        reader = dense_at(student, name)
        columns = read_columns(reader, m)
        bias = None
        if reader.bias is not None and wire.symmetry.centre != 0 and (expand < 0).any():  # f(-z) = 2 f(0) - f(z)
            turned = (expand < 0).any(1)
            lost = (1 - expand[turned].sum(1)) * wire.symmetry.centre
            bias = reader.bias.detach().to(columns) + torch.einsum("u,uso->o", lost.to(columns), columns[turned])
        put_columns(reader, torch.einsum("mk,mso->kso", expand, columns), bias)
