"""Modules of a network by name and kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

Kind = TypeVar("Kind", bound=nn.Module)

__all__ = ["batch_norms", "find_module", "in_order", "is_parametrized", "leaves_of", "names_with_parameters"]


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
    return parametrize.is_parametrized(module, name)
