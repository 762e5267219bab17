"""What a module says of itself, which methods honour or refuse: frozen parameters, hooks, kinds that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from .modules import Maker, check_is_module, copied

__all__ = [
    "NoSuchOutput",
    "activations",
    "adapted",
    "check_module",
    "check_no_signs",
    "gradient_hooks",
    "has_hooks",
    "reset_parameters",
    "trainable",
]


def check_module(model: nn.Module, *, trains: bool = True) -> nn.Module:
    """Return a network that every method can copy, run and differentiate, or refuse it.

    Args:
        trains: whether at least one parameter has to be free, with ``requires_grad=True``

    Raises:
        ValueError: for what is no module, has no parameters, or has some that are lazy, complex, on "meta" or not finite;
            for scripted, compiled and parallel modules, which hide the module that they were made of
    """
    check_is_module(model)
    hidden = {
        "scripted": isinstance(model, torch.jit.ScriptModule),
        "compiled": hasattr(model, "_orig_mod"),
        "parallel": isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)),
    }
    for kind, found in hidden.items():
        if found:
            raise ValueError(
                f"model must be an ordinary module, got a {kind} one ({type(model).__name__}): pass the module that it was "
                "made of"
            )
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ValueError("model has no parameters to train or to estimate")
    for name, p in (*parameters.items(), *model.named_buffers()):
        _check_tensor(name, p)
    if trains and not trainable(model):
        raise ValueError(
            "model has no free parameter, all have requires_grad=False: unfreeze some by requires_grad_(True)"
        )
    return model


def _check_tensor(name: str, p: Tensor) -> None:
    if is_lazy(p):
        raise ValueError(
            f"model has the lazy parameter {name!r}, whose shape is unknown: run a forward pass, model(inputs[:2])"
        )
    if p.is_complex():
        raise ValueError(f"model must have real parameters, got {p.dtype} in {name!r}: view_as_real makes two of each")
    if p.is_meta:
        raise ValueError(f"model must hold numbers, got {name!r} on the device meta: load its weights first")
    if isinstance(p, nn.Parameter) and not torch.isfinite(p).all():
        raise ValueError(f"model must have finite parameters, got NaN or infinity in {name!r}: train it again")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are free, with ``requires_grad=True``, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def reset_parameters(model: nn.Module) -> set[str]:
    """Let all modules that can draw their parameters anew, and return the names of the parameters that these hold."""
    known: set[str] = set()
    for name, module in model.named_modules():
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if reset is not None:
            reset()
            known.update(f"{name}.{k}".lstrip(".") for k, _ in module.named_parameters())
    return known


def has_hooks(model: nn.Module, *, makers: bool = True) -> bool:
    """Return whether a module or one inside it calls hooks, so that its layers alone do not say what it computes.

    Args:
        makers: whether hooks of torch.nn.utils that make weights, as of a pruned layer, count
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found = (hook for m in model.modules() for kind in kinds for hook in getattr(m, kind, {}).values())
    return any(makers or not isinstance(hook, Maker) for hook in found)


def check_no_signs(model: nn.Module, what: str) -> None:
    """Refuse orthogonal weights whose signs torch reads off a parameter, as the whole part of 1 or -1.

    Args:
        what: what would draw these numbers towards zero
    """
    for name, module in model.named_modules():
        maps = getattr(module, "orthogonal_map", None)
        if maps is not None and getattr(maps, "name", "") == "householder":
            raise ValueError(
                f"model has orthogonal weights made by Householder reflections ({name.split('.')[0]!r}), whose signs are "
                f"parameters that {what} would move to zero: take orthogonal(..., orthogonal_map='matrix_exp') or 'cayley'"
            )


def gradient_hooks(model: nn.Module) -> dict[str, list[Callable[[Tensor], Tensor | None]]]:
    """Return the hooks on the gradients of parameters by name, such as one that holds a mask; copies lose them."""
    return {name: list(hooks.values()) for name, p in model.named_parameters() if (hooks := p._backward_hooks)}


def adapted(model: nn.Module, *, output: int | str | Callable | None = None, guard: bool = False) -> nn.Module:
    """Return a copy of a network that hands out one of its outputs, and that may write into what it is given.

    Args:
        output: index, key or attribute of the output that is taken, or a function of all of them
        guard: whether the network is given copies of its inputs
    """
    model = copied(model)
    if output is not None:
        model.register_forward_hook(lambda _module, _inputs, outputs: pick(outputs, output))
    if guard:
        model.register_forward_pre_hook(
            lambda _module, args, kwargs: tree_map(_copied, (args, kwargs)), with_kwargs=True
        )
    return model


def pick(outputs: Any, output: int | str | Callable) -> Any:
    """Return one of the outputs of a network by index, key, attribute or function."""
    if callable(output):
        return output(outputs)
    try:
        by_attribute = isinstance(output, str) and not isinstance(outputs, dict)
        return getattr(outputs, output) if by_attribute else outputs[output]
    except (IndexError, KeyError, AttributeError, TypeError) as why:
        kind = f"a {type(outputs).__name__}" + (f" with {sorted(outputs)}" if isinstance(outputs, dict) else "")
        raise NoSuchOutput(f"output must name one of the outputs of the model, {kind}, got {output!r}: {why}") from why


class NoSuchOutput(ValueError):
    """The network has no output of this index, key or name."""


def activations(model: nn.Module, args: tuple, kwargs: dict) -> int:
    """Return how many bytes of inputs and outputs of modules one forward pass makes, in evaluation mode."""
    model, total = copied(model).eval(), 0

    def count(_module, _inputs, output):
        nonlocal total
        total += sum(t.numel() * t.element_size() for t in tree_leaves(output) if isinstance(t, Tensor))

    for module in model.modules():
        module.register_forward_hook(count)
    given = tree_map(_copied, (args, kwargs))
    model(*given[0], **given[1])
    return total + sum(t.numel() * t.element_size() for t in tree_leaves(given) if isinstance(t, Tensor))


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
