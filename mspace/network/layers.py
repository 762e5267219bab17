"""The units of dense layers and convolutions: their rows, what goes out of them, and layers with fewer."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modules import tensor_of
from .weights import weight_of

__all__ = ["Dense", "dense_at", "fold", "patches", "put_columns", "put_rows", "read_columns", "read_rows", "targets"]

Dense = nn.Linear | nn.Conv1d | nn.Conv2d


def dense_at(model: nn.Module, name: str) -> Dense:
    """Return the layer of that name, which `connection_of` has checked to be a dense one or a convolution."""
    return cast(Dense, model.get_submodule(name))


def read_rows(layer: Dense) -> Tensor:
    """Incoming weights of every unit with its bias last, (m, n+1), float64; zeros for a bias that is not there."""
    return weight_of(layer, "", bias=True).to("cpu", torch.float64)


def put_rows(layer: Dense, rows: Tensor) -> None:
    """Give the layer these units (k, n+1); it gets a bias only if it had one, or needs one."""
    old = layer.weight
    layer.weight = _like(rows[:, :-1].reshape(-1, *old.shape[1:]), old)
    if layer.bias is not None or (rows[:, -1] != 0).any():
        layer.bias = _like(rows[:, -1], old if layer.bias is None else layer.bias)
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows))


def read_columns(layer: Dense, m: int) -> Tensor:
    """Outgoing weights of the m units before this layer, (m, s, o), float64: s places or taps of a unit."""
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
    """What the layer multiplies by its weights, (N, n): its inputs, or the patches under its kernel, float64."""
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
    """What the layer answered to each of its `patches`, (N, o), float64."""
    y = y if isinstance(layer, nn.Linear) else y.flatten(2).transpose(1, 2)
    return y.reshape(-1, y.shape[-1]).double()


def fold(rows: Tensor, norm: nn.modules.batchnorm._NormBase) -> Tensor:
    """Rows (m, n+1) of a layer with the batch normalisation after it, as at rest, multiplied in."""
    if norm.running_var is None:
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
