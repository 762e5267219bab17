"""From a reduction to a network that is smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from .calibration import least_squares, moments_of
from .factors import Reduction, merge
from .layers import put_columns, put_rows, read_columns, read_rows
from .passes import answers, finite, halves, leading, probe, resting, seen, take
from .shared import SharedRows
from .surgery import cut, exchange, plain, with_tail
from .wires import Wire, read, wire_of

__all__ = ["compress", "stand_in"]


def compress(
    model: nn.Module,
    layer: str | Sequence[str],
    reduction: Reduction,
    feeds: str | Sequence[str] | None = None,
    *,
    calibration=None,
    ridge: float | None = None,
    activation=None,
    norm: str | Sequence[str] | None = None,
    rescale: bool = True,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """A copy of the network in which a layer has fewer units, or an output layer fewer rows.

    With `feeds` the units themselves go: the layer keeps the rows `kept`, and the layers that read it get the outgoing
    weights times `expand`, which for a merge adds them up. With `calibration` these outgoing weights and the bias
    after them are then fitted by least squares to what the layer answered before. Without `feeds` the layer keeps its
    shape and stores fewer rows (`SharedRows`).

    Where the network shows its activation (an `nn.Sequential` does), plain averages of clusters are taken anew in the
    scale and sign that it leaves free, weighted by the squared norms of outgoing weights, as `merge` does when told.

    Args:
        model: any trained module; it stays as it is
        layer: the Linear, Conv1d or Conv2d whose units are reduced; a gated block names its two layers
        reduction: of ``rows_of(model, layer)``
        feeds: the layer that reads the units, or all of them where there are several; through pooling, flattening
            and dropout as well
        calibration: inputs of the network, (N, ...), or a tuple or dictionary of arguments; no targets. Places that
            an `attention_mask` in the dictionary leaves out do not count
        ridge: how hard the fit is drawn to the summed weights, per variance of a unit; chosen on a fifth of the
            inputs by default
        activation: what stands between, where the network does not show it
        norm: the batch normalisation after the layer, where the network does not show it; it is folded in
        rescale: whether averages are taken anew; False puts `kept` in as it is
        teacher: the network whose answers are fitted, by default `model`; the original one, when several layers are
            reduced in turn

    Returns:
        a module of the same classes, its training flags those of `model`

    Raises:
        ValueError: for a reduction of another layer, a `feeds` that does not read the layer unit by unit, layers
            used twice, or inputs that the network does not take; all but the first are seen with `calibration` alone
    """
    wire = wire_of(model, layer, feeds, activation=activation, norm=norm)
    _check(model, wire, reduction, calibration, ridge)
    if calibration is not None and wire.feeds:
        probe(model, wire, calibration)
        if teacher in (None, model) and (at := leading(model, wire, calibration)):
            same = {"ridge": ridge, "activation": activation, "norm": norm, "rescale": rescale}
            read_there = answers(model[:at], calibration)
            return with_tail(model, compress(model[at:], layer, reduction, feeds, calibration=read_there, **same))
    student = plain(model, wire)
    if not wire.feeds:
        return _share(student, wire.layers[0], reduction, calibration, ridge, model if teacher is None else teacher)
    if rescale:
        reduction = _rescaled(student, wire, reduction)
    cut(student, wire, reduction)
    if calibration is not None:
        _runs(student, wire, calibration)
        refit(student, wire.feeds, model if teacher is None else teacher, calibration, ridge)
    return student


def refit(student: nn.Module, feeds: Sequence[str], teacher: nn.Module, calibration, ridge: float | None) -> None:
    """Fit what reads the units to the teacher's answers, by least squares."""
    part, rest = halves(calibration) if ridge is None else (calibration, None)
    for name in feeds:
        reader = student.get_submodule(name)
        start = read_columns(reader, reader.weight.shape[1])
        k = len(start)
        fit = moments_of(student, teacher, name, part)
        held = None if rest is None else moments_of(student, teacher, name, rest)
        start = start.flatten(0, 1)
        theta, bias = least_squares(fit, held, start, bias=reader.bias is not None, ridge=ridge)
        put_columns(reader, theta.reshape(k, -1, theta.shape[1]), bias)


def _rescaled(student: nn.Module, wire: Wire, reduction: Reduction) -> Reduction:
    """Averages of clusters in the scale that the activation leaves free; other reductions are what they are."""
    labels = reduction.assignment
    rows = read(student, wire.layers, [None] * len(wire.layers))
    group = reduction.expand
    plain_mean = labels is not None and (group.sum(1) == 1).all() and (group.sum(0) > 0).all()
    if not plain_mean or not torch.allclose(
        group.T @ rows / group.sum(0)[:, None], reduction.kept, rtol=1e-6, atol=1e-9
    ):
        return reduction
    columns = torch.cat([read_columns(student.get_submodule(name), len(rows)).flatten(1) for name in wire.feeds], 1)
    return merge(rows, labels, activation=stand_in(wire), weights=columns.square().sum(1))


def stand_in(wire: Wire) -> nn.Module | None:
    """Something with the scales and signs that are free between the layers, pooling counted."""
    stand = {(False, False): None, (True, True): nn.Identity(), (True, False): nn.ReLU(), (False, True): nn.Tanh()}
    return stand[wire.symmetry.scales, wire.symmetry.signs]


def _share(student: nn.Module, name: str, reduction: Reduction, calibration, ridge, teacher: nn.Module) -> nn.Module:
    """An output layer: the same shape, fewer rows."""
    layer = student.get_submodule(name)
    if calibration is not None:
        part, rest = halves(calibration) if ridge is None else (calibration, None)
        fit = moments_of(student, teacher, name, part)
        held = None if rest is None else moments_of(student, teacher, name, rest)
        own, bias = read_rows(layer), layer.bias is not None
        theta, offset = least_squares(fit, held, own[:, :-1].T.contiguous(), bias=bias, ridge=ridge)
        rows = torch.cat([theta.T, own[:, -1:] if offset is None else offset[:, None]], 1)
        kept = torch.linalg.pinv(reduction.expand) @ rows
        reduction = replace(reduction, kept=kept)
    put_rows(layer, reduction.kept)
    exchange(student, name, SharedRows(layer, reduction))
    return student


def _runs(student: nn.Module, wire: Wire, calibration) -> None:
    few = take(calibration, slice(0, 2))
    with resting(student), torch.no_grad():
        try:
            seen(student, wire.layers + wire.feeds, few, stop=False)
        except RuntimeError as why:
            norms = [n for n, m in student.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            named = f", and norm= the normalisation in between, if one of {', '.join(norms)} is" if norms else ""
            raise ValueError(
                f"feeds must name every layer that reads {wire.layers[0]!r}{named}: without its units the network says {why}"
            ) from why


def _check(model: nn.Module, wire: Wire, reduction, calibration, ridge) -> None:
    if not isinstance(reduction, Reduction):
        raise ValueError(f"reduction must be a Reduction, got {type(reduction).__name__}: see merge, prune and compose")
    rows = read(model, wire.layers, wire.norms)
    if reduction.expand.shape[0] != len(rows) or reduction.kept.shape[1] != rows.shape[1]:
        raise ValueError(
            f"reduction must be of the {len(rows)} rows of {rows.shape[1]} numbers of {wire.layers[0]!r}, got one of "
            f"{len(reduction.expand)} rows of {reduction.kept.shape[1]}: pass rows_of(model, layer)"
        )
    if not wire.feeds and len(wire.layers) > 1:
        raise ValueError("feeds must name what reads the units of a gated block: without it one layer shares its rows")
    if ridge is not None and not (isinstance(ridge, (int, float)) and 0 <= ridge < torch.inf):
        raise ValueError(f"ridge must be a number of at least 0, got {ridge!r}")
    if calibration is not None:
        finite(calibration)
        if not wire.feeds:
            probe(model, wire, calibration)
