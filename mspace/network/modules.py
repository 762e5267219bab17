"""Modules of a network by name and kind, copies of them, and weights that are made from other parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import debug_unwrap
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves

Kind = TypeVar("Kind", bound=nn.Module)
Net = TypeVar("Net", bound=nn.Module)
Maker = prune.BasePruningMethod | WeightNorm | SpectralNorm

__all__ = [
    "Maker",
    "batch_norms",
    "check_is_module",
    "copied",
    "find_module",
    "in_order",
    "is_parametrized",
    "leaves_of",
    "makers_of",
    "names_with_parameters",
    "tensor_of",
]

OWN = frozenset(vars(nn.Module()))  # attributes of every module: what else there is, a user has put there


def check_is_module(model: nn.Module) -> None:
    """Refuse what is no network."""
    if not isinstance(model, nn.Module):
        came = f"the class {model.__name__}: create an instance" if isinstance(model, type) else type(model).__name__
        raise ValueError(f"model must be a torch.nn.Module, got {came}")


def find_module(model: nn.Module, name: str, what: str, *kinds: type[Kind]) -> Kind:
    """Return the module of that name, or refuse it where it is none of these kinds; `what` is the argument's name."""
    module = dict(model.named_modules(remove_duplicate=False)).get(name)
    if not isinstance(module, kinds):
        known = [n for n, m in model.named_modules() if isinstance(m, kinds)]
        kind = ", ".join(k.__name__ for k in kinds)
        raise ValueError(
            f"{what} must name a module of the network ({kind}: {', '.join(known) or 'none'}), got {name!r}"
        )
    return module


def names_with_parameters(model: nn.Module) -> list[str]:
    """Return the names of modules that have parameters of their own."""
    return [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]


def batch_norms(model: nn.Module, *, training: bool = False, instance: bool = False) -> dict[str, nn.Module]:
    """Return batch normalisations by name, of instances too, all of them or those in training mode."""
    kind = nn.modules.batchnorm._NormBase if instance else nn.modules.batchnorm._BatchNorm
    return {n: m for n, m in model.named_modules() if isinstance(m, kind) and (m.training or not training)}


def in_order(model: nn.Module) -> dict[str, nn.Module]:
    """Return a module's children by name; unlike ``named_children()`` a child that stands twice is met twice."""
    return {name: child for name, child in model._modules.items() if child is not None}


def leaves_of(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a Sequential in order, with those of Sequentials inside it, by name."""
    for name, module in in_order(model).items():
        if isinstance(module, nn.Sequential):
            yield from leaves_of(module, f"{prefix}{name}.")
        else:
            yield prefix + name, module


def is_parametrized(module: nn.Module, name: str | None = None) -> bool:
    """Return whether a module makes its weights, or the one of this name, from other parameters."""
    made = makers_of(module)
    return parametrize.is_parametrized(module, name) or (bool(made) if name is None else name in made)


def makers_of(module: nn.Module) -> dict[str, Maker]:
    """Return the hooks that make tensors of a module before each pass, by the tensor's name.

    Such are those of `torch.nn.utils.prune`, and of `weight_norm` and `spectral_norm` before they were parametrizations.
    The attribute itself holds what the last pass has made, not what the parameters of now give.
    """
    hooks = (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, Maker))
    return {hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name: hook for hook in hooks}


def tensor_of(module: nn.Module, name: str) -> Any:
    """Return a tensor of a module as a pass in evaluation mode would use it, or what else has this name, or None.

    Raises:
        ValueError: for a plain tensor of a module with hooks of its own, as these may make it
    """
    hook = makers_of(module).get(name)
    if hook is None:
        if isinstance(vars(module).get(name), Tensor) and module._forward_pre_hooks:
            raise ValueError(
                f"layer has a {name} that is no parameter, and a hook that may make it: torch.nn.utils.parametrize does "
                "this so that it can be read"
            )
        return getattr(module, name, None)
    if isinstance(hook, prune.BasePruningMethod):
        return hook.apply_mask(module)
    if isinstance(hook, SpectralNorm):
        return hook.compute_weight(module, do_power_iteration=False)
    return hook.compute_weight(module)


def copied(model: Net) -> Net:
    """Return a deep copy of a network, with tensors that its last pass left behind cut from their graphs.

    Tensors that hooks make are made anew. `copy.deepcopy` refuses both.
    """
    memo: dict[int, Tensor] = {}
    for module in model.modules():
        made = makers_of(module)
        for name, value in vars(module).items():
            if name in made:
                memo[id(value)] = tensor_of(module, name).detach()
            elif name not in OWN:
                memo.update({id(t): _cut(t) for t in tree_leaves(value) if isinstance(t, Tensor) and _is_left(t)})
    return copy.deepcopy(model, memo)


def _is_left(tensor: Tensor) -> bool:
    """Return whether a pass has made this tensor: parameters and constants are leaves."""
    return not tensor.is_leaf or _is_batched(tensor)


def _is_batched(tensor: Tensor) -> bool:
    return debug_unwrap(tensor) is not tensor


def _cut(left: Tensor) -> Tensor:
    """Return a tensor without its graph; nothing of one that a batched pass has left, which is no longer valid."""
    return torch.empty(0) if _is_batched(left) else left.detach().clone()
