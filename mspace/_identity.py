"""What a value is by its content: a digest that changes when what a function, a module or a setting does changes."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Mapping, Set
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["digest"]

PLAIN = (type(None), bool, int, float, complex, str, bytes, slice, range, torch.dtype, torch.device, torch.layout)
LIBRARIES = ("torch", "numpy", "builtins", "scipy", "collections", "functools", "math", "typing", "mspace")


def digest(*values: Any) -> str:
    """Return a digest of values by their content: code, defaults, closures, globals and state, not where they lie.

    Functions of libraries count by their names, as long as the libraries are what they are.

    Raises:
        ValueError: for a value whose content cannot be told
    """
    return hashlib.sha256(repr([_content(v, ()) for v in values]).encode()).hexdigest()


def _content(value: Any, above: tuple[int, ...]) -> Any:
    if id(value) in above:  # a function that calls itself, a module that holds its parent
        return ("above", above.index(id(value)))
    inside = (*above, id(value))
    if isinstance(value, PLAIN) or value is Ellipsis:
        return repr(value)
    if isinstance(value, (Tensor, np.ndarray)):
        return _numbers(value)
    if isinstance(value, Mapping):
        return ("mapping", [(repr(k), _content(v, inside)) for k, v in value.items()])
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, [_content(v, inside) for v in value])
    if isinstance(value, Set):
        return ("set", sorted(repr(_content(v, inside)) for v in value))
    if isinstance(value, partial):
        return ("partial", [_content(v, inside) for v in (value.func, value.args, value.keywords)])
    if isinstance(value, types.MethodType):
        return ("method", [_content(v, inside) for v in (value.__func__, value.__self__)])
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    if isinstance(value, type):
        return _class(value, inside)
    if isinstance(value, (types.ModuleType, types.BuiltinFunctionType, types.MethodDescriptorType, np.ufunc)):
        return _name(value)
    return _object(value, inside)


def _name(value: Any) -> tuple:
    return ("name", getattr(value, "__module__", ""), getattr(value, "__qualname__", getattr(value, "__name__", "")))


def _of_library(value: Any) -> bool:
    return str(getattr(value, "__module__", None)).partition(".")[0] in LIBRARIES


def _numbers(value: Tensor | np.ndarray) -> tuple:
    tensor = torch.as_tensor(value).detach().cpu().contiguous()
    content = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    return (hashlib.sha256(content).hexdigest(), str(tensor.dtype), tuple(tensor.shape))


def _function(value: types.FunctionType, inside: tuple[int, ...]) -> tuple:
    if _of_library(value):
        return _name(value)
    cells = [c.cell_contents for c in value.__closure__ or () if _is_filled(c)]
    named = [value.__globals__[n] for n in _names(value.__code__) if n in value.__globals__]
    held = [value.__defaults__, value.__kwdefaults__, cells, named]
    return ("function", _code(value.__code__), [_content(v, inside) for v in held])


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _code(code: types.CodeType) -> tuple:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return (code.co_code.hex(), code.co_names, constants)


def _names(code: types.CodeType) -> list[str]:
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return [*code.co_names, *(n for c in inner for n in _names(c))]


def _class(value: type, inside: tuple[int, ...]) -> tuple:
    """Return the name of a class of a library, and of others what their attributes are."""
    if _of_library(value):
        return _name(value)
    kinds = (types.FunctionType, staticmethod, classmethod, property, *PLAIN, Tensor)
    skipped = ("__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__")
    own = {k: v for k, v in vars(value).items() if isinstance(v, kinds) and k not in skipped}
    unwrapped = {
        k: [getattr(v, a, None) for a in ("__func__", "fget", "fset")] if _wraps(v) else v for k, v in own.items()
    }
    bases = [_content(b, inside) for b in value.__bases__]
    return ("class", _content(unwrapped, inside), bases)


def _wraps(value: Any) -> bool:
    return isinstance(value, (staticmethod, classmethod, property))


def _object(value: Any, inside: tuple[int, ...]) -> tuple:
    """Return an object's class and state."""
    if isinstance(value, nn.Module):
        hooks = ("_backward_hooks", "_state_dict", "_load_state", "_is_full_backward_hook", "_non_persistent")
        state = {k: v for k, v in vars(value).items() if not k.startswith(hooks)}
    elif hasattr(value, "__dict__"):
        state = vars(value)
    elif hasattr(type(value), "__slots__"):
        state = {k: getattr(value, k) for k in type(value).__slots__ if hasattr(value, k)}
    else:
        raise ValueError(
            f"store cannot tell what {value!r:.80} of type {type(value).__name__} does, and so whether a kept bootstrap is "
            "the same: pass functions, partials and modules, or leave store= out"
        )
    return ("object", _class(type(value), inside), _content(state, inside))
