"""From a reduction to a network that is smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_real
from ..network.connections import Connection, connection_of, is_shown, read
from ..network.hooks import check_wiring, evaluation_mode, finite, leading, outputs_of, probe, seen, take
from ..network.modules import batch_norms
from ..network.surgery import cut, exchange, plain, with_tail
from ..network.weights import dense_at, put_columns, put_rows, read_columns, read_rows
from .least_squares import fit_layer
from .reductions import Reduction, merge
from .shared import SharedRows

__all__ = ["Site", "compress", "free_like", "reduced", "site_of"]


@dataclass(frozen=True)
class Site:
    """A layer that is to be reduced, the teacher whose outputs are fitted, and inputs to fit them by.

    Attributes:
        model: the network
        tail: of a sequential network what stands from the layer on, else the network itself. What the modules before
            give does not change when the layer shrinks, and often is most of a pass
        connection: the layer and what reads it
        teacher: the network, or its tail, whose outputs are fitted
        inputs: of the tail
        trial: random inputs that the wiring was seen with, where there are no others
    """

    model: nn.Module
    tail: nn.Module
    connection: Connection
    teacher: nn.Module
    inputs: Any
    trial: Any = None

    @property
    def rows(self) -> Tensor:
        """The neurons with their biases, (m, n+1)."""
        return read(self.tail, self.connection.layers, self.connection.norms)

    def joined(self, student: nn.Module) -> nn.Module:
        """Return the network with another tail."""
        return student if self.model is self.tail else with_tail(self.model, student)


def site_of(model: nn.Module, layer, feeds, inputs, *, activation=None, norm=None, teacher=None) -> Site:
    """Check the wiring, with inputs by a pass through the network, and split off what stands before the layer."""
    connection = connection_of(model, layer, feeds, activation=activation, norm=norm)
    teacher = model if teacher is None else teacher
    if inputs is None:
        return Site(model, model, connection, teacher, None, _tried(model, connection))
    finite(inputs)
    probe(model, connection.layers, connection.feeds, inputs)
    at = leading(model, connection, inputs) if teacher is model else 0
    if not at:
        return Site(model, model, connection, teacher, inputs)
    return Site(model, model[at:], connection, model[at:], outputs_of(model[:at], inputs))


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
    """Return a copy of the network in which a layer has fewer units, or an output layer fewer rows.

    With `feeds` the units themselves go: the layer keeps the rows `kept`, and the layers that read it get the outgoing
    weights times `expand`, which for a merge adds them up. With `calibration` these outgoing weights and the bias
    after them are then fitted by least squares to the outputs of before. Without `feeds` the layer keeps its shape
    and stores fewer rows (`SharedRows`).

    Where the network shows its activation (an `nn.Sequential` does), plain averages of clusters are taken anew in the
    scale and sign that it leaves free, weighted by the squared norms of outgoing weights, as by `merge` with both.

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
        teacher: the network whose outputs are fitted, by default `model`; the original one, when several layers are
            reduced in turn

    Returns:
        a module of the same classes, its training flags those of `model`

    Raises:
        ValueError: for a reduction of another layer, a `feeds` that does not read the layer unit by unit, layers
            used twice, or inputs that the network does not take. The wiring is seen in a pass, without `calibration`
            one with random inputs, where it is not an `nn.Sequential` that shows it
    """
    if not isinstance(reduction, Reduction):
        raise ValueError(f"reduction must be a Reduction, got {type(reduction).__name__}: see merge, prune and compose")
    ridge = None if ridge is None else check_real(ridge, "ridge", 0, ends="[)")
    site = site_of(model, layer, feeds, calibration, activation=activation, norm=norm, teacher=teacher)
    m, n = site.rows.shape
    if len(reduction.expand) != m or reduction.kept.shape[1] != n:
        raise ValueError(
            f"reduction must be of the {m} rows of {n} numbers of {site.connection.layers[0]!r}, got one of "
            f"{len(reduction.expand)} rows of {reduction.kept.shape[1]}: pass rows_of(model, layer)"
        )
    return site.joined(reduced(site, reduction, site.inputs, ridge=ridge, rescale=rescale))


def reduced(site: Site, reduction: Reduction, inputs, *, ridge: float | None = None, rescale: bool = True) -> nn.Module:
    """Return the site's network with the reduction made, fitted to its teacher on these inputs, if any."""
    student, connection = plain(site.tail, site.connection), site.connection
    if not connection.feeds:
        return _share(student, site, reduction, inputs, ridge)
    reduction = _rescaled(student, connection, reduction) if rescale else reduction
    cut(student, connection, reduction.kept, reduction.expand)
    if inputs is None:
        _check_pass(student, connection, site.trial)
    else:
        _check_pass(student, connection, inputs)
        for name in connection.feeds:
            reader = dense_at(student, name)
            start = read_columns(reader, len(reduction))
            theta, bias = fit_layer(student, site.teacher, name, inputs, start.flatten(0, 1), ridge)
            put_columns(reader, theta.reshape(start.shape), bias)
    return student


def _rescaled(student: nn.Module, connection: Connection, reduction: Reduction) -> Reduction:
    """Return averages of clusters in the scale that the activation leaves free; other reductions as they are."""
    labels = reduction.assignment
    rows = read(student, connection.layers, [None] * len(connection.layers))
    group = reduction.expand
    plain_mean = labels is not None and (group.sum(1) == 1).all() and (group.sum(0) > 0).all()
    if not plain_mean or not torch.allclose(
        group.T @ rows / group.sum(0)[:, None], reduction.kept, rtol=1e-6, atol=1e-9
    ):
        return reduction
    columns = torch.cat([read_columns(dense_at(student, name), len(rows)).flatten(1) for name in connection.feeds], 1)
    return merge(rows, labels, activation=free_like(connection), weights=columns.square().sum(1))


def free_like(connection: Connection) -> nn.Module | None:
    """Return an activation with the scales and signs that are free between the layers, pooling counted."""
    like = {(False, False): None, (True, True): nn.Identity(), (True, False): nn.ReLU(), (False, True): nn.Tanh()}
    return like[connection.symmetry.scales, connection.symmetry.signs]


def _share(student: nn.Module, site: Site, reduction: Reduction, inputs, ridge: float | None) -> nn.Module:
    """Give an output layer the same shape with fewer rows."""
    if len(site.connection.layers) > 1:
        raise ValueError("feeds must name what reads the units of a gated block: without it one layer shares its rows")
    (name,) = site.connection.layers
    layer = dense_at(student, name)
    if inputs is not None:
        own = read_rows(layer)
        theta, bias = fit_layer(student, site.teacher, name, inputs, own[:, :-1].T.contiguous(), ridge)
        rows = torch.cat([theta.T, own[:, -1:] if bias is None else bias[:, None]], 1)
        reduction = replace(reduction, kept=torch.linalg.pinv(reduction.expand) @ rows)
    put_rows(layer, reduction.kept)
    exchange(student, name, SharedRows(layer, reduction))
    return student


def _tried(model: nn.Module, connection: Connection):
    """Return drawn inputs by which the wiring was checked; None where the network shows it, or nothing shrinks."""
    inputs = check_wiring(model, connection.layers, connection.feeds)
    if inputs is None and connection.feeds and not is_shown(model, connection.layers, connection.feeds):
        raise ValueError(
            f"calibration must be given: whether {connection.feeds[0]!r} alone reads {connection.layers[0]!r}, and unit by "
            f"unit, is seen in a pass, and no random inputs that were tried fit the {type(model).__name__}"
        )
    return inputs


def _check_pass(student: nn.Module, connection: Connection, inputs) -> None:
    if inputs is None:
        return
    with evaluation_mode(student), torch.no_grad():
        try:
            seen(student, connection.layers + connection.feeds, take(inputs, slice(0, 2)), stop=False)
        except RuntimeError as why:
            norms = batch_norms(student)
            named = f", and norm= the normalisation in between, if one of {', '.join(norms)} is" if norms else ""
            raise ValueError(
                f"feeds must name every layer that reads {connection.layers[0]!r}{named}: without its units the network "
                f"says {why}"
            ) from why
