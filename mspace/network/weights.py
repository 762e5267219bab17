"""Weights of a layer as neurons: rows and columns read from dense, convolutional and recurrent layers, and put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import layer_names
from .modules import check_is_module, tensor_of

__all__ = [
    "Dense",
    "dense_at",
    "fold",
    "live_weight_of",
    "patches",
    "put_columns",
    "put_rows",
    "read_columns",
    "read_rows",
    "targets",
    "weight_of",
]

Dense = nn.Linear | nn.Conv1d | nn.Conv2d


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
    if not isinstance(bias, bool):
        raise ValueError(f"bias must be True or False, got {bias!r}")
    return live_weight_of(model, layer_names(layer), axis, bias).detach().clone()


def live_weight_of(model: nn.Module, names: Sequence[str], axis: int, bias: bool = False) -> Tensor:
    """Return the weights that `weight_of` gives, differentiable in the parameters and not copied."""
    check_is_module(model)
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


def dense_at(model: nn.Module, name: str) -> Dense:
    """Return the layer of that name, which `connection_of` has checked to be a dense one or a convolution."""
    return cast(Dense, model.get_submodule(name))


def read_rows(layer: Dense) -> Tensor:
    """Return the incoming weights of every unit with its bias last, (m, n+1), float64; zeros where there is no bias."""
    return weight_of(layer, "", bias=True).to("cpu", torch.float64)


def put_rows(layer: Dense, rows: Tensor) -> None:
    """Give the layer these units (k, n+1), in place; it gets a bias only if it had one, or needs one."""
    old = layer.weight
    layer.weight = _like(rows[:, :-1].reshape(-1, *old.shape[1:]), old)
    if layer.bias is not None or (rows[:, -1] != 0).any():
        layer.bias = _like(rows[:, -1], old if layer.bias is None else layer.bias)
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows))


def read_columns(layer: Dense, m: int) -> Tensor:
    """Return the outgoing weights of the m units before this layer, (m, s, o), float64: s places or taps of a unit."""
    weight = tensor_of(layer, "weight").detach().to("cpu", torch.float64).flatten(1)
    return weight.reshape(len(weight), m, -1).permute(1, 2, 0)


def put_columns(layer: Dense, columns: Tensor, bias: Tensor | None) -> None:
    """Let the layer read these units (k, s, o), and change its bias (o,) where one is given."""
    old, k = layer.weight, len(columns)
    kernel = old.shape[2:]
    flat = columns.permute(2, 0, 1)
    layer.weight = _like(flat.reshape(len(flat), k, *kernel) if kernel else flat.flatten(1), old)
    if bias is not None:
        layer.bias = _like(bias, old if layer.bias is None else layer.bias)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", layer.weight.shape[1])


def patches(layer: Dense, x: Tensor) -> Tensor:
    """Return what the layer multiplies by its weights, (N, n): its inputs, or the patches under its kernel, float64."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).double()
    x = x[:, :, None] if isinstance(layer, nn.Conv1d) else x
    kernel, stride, dilation = (_pair(v, layer) for v in (layer.kernel_size, layer.stride, layer.dilation))
    sides = layer._reversed_padding_repeated_twice
    sides = [*sides, 0, 0] if isinstance(layer, nn.Conv1d) else sides
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    cut = F.unfold(F.pad(x, sides, mode=mode), kernel, dilation=dilation, stride=stride)
    return cut.transpose(1, 2).flatten(0, 1).double()


def targets(layer: Dense, y: Tensor) -> Tensor:
    """Return the output of the layer for each of its `patches`, (N, o), float64."""
    y = y if isinstance(layer, nn.Linear) else y.flatten(2).transpose(1, 2)
    return y.reshape(-1, y.shape[-1]).double()


def fold(rows: Tensor, norm: nn.modules.batchnorm._NormBase) -> Tensor:
    """Return the rows (m, n+1) of a layer with the batch normalisation after it, in evaluation mode, multiplied in."""
    if norm.running_var is None or norm.running_mean is None:
        raise ValueError("norm must keep running statistics to be folded into the layer, got one without")
    mean, var = (t.detach().to(rows) for t in (norm.running_mean, norm.running_var))
    gain = (var + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight.detach().to(rows))
    rows = gain[:, None] * rows
    rows[:, -1] += (0.0 if norm.bias is None else norm.bias.detach().to(rows)) - gain * mean
    return rows


def _pair(value, layer) -> tuple[int, int]:
    return (1, value[0]) if isinstance(layer, nn.Conv1d) else tuple(value)


def _like(values: Tensor, old: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(old).contiguous(), requires_grad=old.requires_grad)
