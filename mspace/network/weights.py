"""The neurons of a layer as rows or columns of numbers: weights of dense, convolutional and recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import layer_names
from .modules import tensor_of

__all__ = ["live_weight_of", "weight_of"]


def weight_of(model: nn.Module, layer: str | Sequence[str], *, axis: int = 0, bias: bool = False) -> Tensor:
    """Return the neurons of a layer as vectors, (m, n): rows of its weight (axis=0) or columns (axis=1), a copy.

    A row is what comes into a unit, a column what goes out of one. Kernels of convolutions are flattened: rows
    are (out, in * kernel), columns (in, out * kernel), of its own group only where there are groups. Recurrent
    layers give [W_ih | W_hh] of their first layer, a row per unit and gate.

    Weights that a parametrization or a hook of torch.nn.utils makes (pruned, weight-normed) are what a pass would use.
    A batch normalisation after the layer is not folded in; `rows_of` does that.

    Args:
        layer: name of a module or of a parameter in `model`; several names are put side by side, such as the
            ["W", "V"] of a recurrent network
        bias: append the bias of each unit to its row, (m, n + 1), zero where the layer has none: units that differ in
            their biases alone compute different things. Recurrent layers have two, [W_ih | W_hh | b_ih | b_hh]
    """
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 (rows) or 1 (columns), got {axis}")
    return live_weight_of(model, layer_names(layer), axis, bias).detach().clone()


def live_weight_of(model: nn.Module, names: Sequence[str], axis: int, bias: bool = False) -> Tensor:
    """Return the weights that `weight_of` gives, differentiable in the parameters and not copied."""
    if bias and axis == 1:
        raise ValueError("bias=True needs rows (axis=0): a column is what goes out of a unit, and has no bias")
    parts = [_matrix(model, name, axis, bias) for name in names]
    if not parts or len({len(p) for p in parts}) > 1:
        raise ValueError(f"layer must name matrices of as many rows each, got {[tuple(p.shape) for p in parts]}")
    return torch.cat(parts, 1)


def _matrix(model: nn.Module, name: str, axis: int, bias: bool) -> Tensor:
    modules = dict(model.named_modules(remove_duplicate=False))
    parent, _, last = name.rpartition(".")
    owner, own = (modules[name], "weight") if name in modules else (modules.get(parent), last)
    if own == "weight" and isinstance(owner, (nn.RNNBase, nn.RNNCellBase)):
        return _recurrent(owner, name, axis, bias)
    weight = None if owner is None else tensor_of(owner, own)
    if owner is None or not isinstance(weight, Tensor) or weight.ndim < 2:
        known = [n or "''" for n, m in modules.items() if _has_rows(m)]
        said = "has no rows" if name in modules or isinstance(weight, Tensor) else "is not in the model"
        raise ValueError(f"layer {name!r} {said}; layers that have: {', '.join(known) or 'none'}")
    if bias and (own != "weight" or not hasattr(owner, "bias")):
        raise ValueError(f"bias=True needs a layer with a weight and a bias, and {name!r} is none: leave bias=False")
    weight = weight.unflatten(0, (getattr(owner, "groups", 1), -1))
    if isinstance(owner, nn.modules.conv._ConvTransposeNd):
        weight = weight.transpose(1, 2)
    matrix = (weight if axis == 0 else weight.transpose(1, 2)).flatten(0, 1).flatten(1)
    return _with_biases(matrix, [tensor_of(owner, "bias")]) if bias else matrix


def _with_biases(matrix: Tensor, biases: Sequence[Tensor | None]) -> Tensor:
    columns = [matrix.new_zeros(len(matrix)) if b is None else b for b in biases]
    return torch.cat([matrix, torch.stack(columns, 1)], 1)


def _recurrent(layer: nn.Module, name: str, axis: int, bias: bool) -> Tensor:
    end = "_l0" if isinstance(layer, nn.RNNBase) else ""
    if axis == 1:
        raise ValueError(f"layer {name!r} is recurrent: name its weight_ih{end} or weight_hh{end} to take columns")
    matrix = torch.cat([tensor_of(layer, f"weight_{kind}{end}") for kind in ("ih", "hh")], 1)
    biases = [tensor_of(layer, f"bias_{kind}{end}") for kind in ("ih", "hh")]
    return _with_biases(matrix, biases) if bias else matrix


def _has_rows(module: nn.Module) -> bool:
    recurrent = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
    return recurrent or getattr(getattr(module, "weight", None), "ndim", 0) > 1
