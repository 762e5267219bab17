"""A posterior in the shape of a network with more units, with merged ones, or with two layers multiplied into one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from ..checks import check_int
from ..covariance.layout import flatten, unflatten
from ..covariance.posterior import Block, GaussianPosterior, _merged
from ..metrics import Metric, wasserstein2
from ..neurons import NeuronDistribution
from ..reduction.surgery import exchange
from ..reduction.wires import _between
from .places import Units, must_be_posterior, units_of
from .priors import _positive

__all__ = ["compose_layers", "merge_neurons", "pad_neurons"]


def pad_neurons(
    posterior: GaussianPosterior, layer: str, feeds: str, size: int, *, prior_precision: float = 1.0
) -> GaussianPosterior:
    """The posterior of a network whose layer has more units: nothing is known of the new ones, N(0, 1 / prior_precision).

    Args:
        posterior: of the network with fewer units
        layer, feeds: names of the layer that makes the units and of the one that reads them
        size: units that it shall have
        prior_precision: of every weight into and out of a new unit
    """
    must_be_posterior(posterior)
    units = _plain(units_of(posterior.template, layer, feeds))
    size, variance = check_int(size, "size", units.size), 1 / _positive(prior_precision)
    more = torch.zeros(size - units.size, dtype=torch.long)
    model, places = units.only(torch.cat([torch.arange(units.size), more]))
    ascending, order = places.sort(stable=True)
    new = torch.zeros(len(places), dtype=torch.bool)
    new[order[1:]] = ascending[1:] == ascending[:-1]  # a copy of unit 0, whose own come first
    at, to = new.nonzero().flatten()[:, None], torch.empty_like(posterior.mean, dtype=torch.long)
    to[places[~new]] = (~new).nonzero().flatten()
    blocks = [Block(to[b.index], b.cov) for b in posterior.blocks]
    blocks += [Block(at, torch.full((len(at), 1, 1), variance, dtype=torch.float64))] if len(at) else []
    return _with(model, torch.where(new, 0.0, posterior.mean[places]), _merged(blocks), posterior.report)


def merge_neurons(
    posterior: GaussianPosterior,
    layer: str,
    feeds: str,
    labels: Sequence[int] | Tensor,
    *,
    metric: Metric = wasserstein2,
) -> GaussianPosterior:
    """The posterior of a network in which clusters of alike units are one unit each.

    Its row and bias are the barycenter of those of the members, independent of all else; its outgoing weights are their
    sum, which is Gaussian exactly, and stays correlated with all other parameters as it was.

    Args:
        posterior: of the network with more units
        layer, feeds: names of the layer that makes the units and of the one that reads them
        labels: (m,) the cluster of each unit, every number from 0 to k - 1
        metric: whose barycenter is taken
    """
    must_be_posterior(posterior)
    units = _plain(units_of(posterior.template, layer, feeds))
    labels = torch.as_tensor(labels)
    rows = _rows(units.model, layer)
    if labels.shape != (units.size,):
        raise ValueError(f"labels must be ({units.size},), a cluster for each unit, got shape {tuple(labels.shape)}")
    center = metric.barycenter(NeuronDistribution(posterior.mean[rows], _covs(posterior, rows)), labels)
    first = torch.stack([(labels == c).nonzero()[0, 0] for c in range(len(center))])
    model, places = units.only(first)
    to = torch.full_like(posterior.mean, -1, dtype=torch.long)  # where a number is added to
    to[places] = torch.arange(len(places))
    for u in range(units.size):
        to[units.columns(torch.tensor([u]))] = to[units.columns(first[labels[u]][None])]
    to[rows] = -1
    mean = torch.zeros(len(places), dtype=torch.float64)
    mean.index_add_(0, to[to >= 0], posterior.mean[to >= 0])
    new = _rows(model, layer)
    mean[new] = center.mean
    random = posterior.index[to[posterior.index] >= 0]
    half = torch.zeros(len(places), len(random), dtype=torch.float64).index_add_(0, to[random], posterior.cov(random))
    cov = torch.zeros(len(places), len(places), dtype=torch.float64).index_add_(1, to[random], half)
    known = center.cov.diagonal(dim1=1, dim2=2).sum(1) == 0
    blocks = [*_components(cov, to[random].unique()), Block(new[~known], center.cov[~known])]
    return _with(model, mean, _merged([b for b in blocks if len(b.index)]), posterior.report)


def compose_layers(posterior: GaussianPosterior, layer: str, feeds: str, inputs: Tensor) -> GaussianPosterior:
    """The posterior of a network without a layer, which is multiplied into the one that reads it.

    The activation between is replaced, unit by unit, by the line ``d a + o`` nearest to it on the inputs, so the product
    is ``B D C``. Its mean and covariance are exact if rows of `layer` are independent of each other and of `feeds`
    (covariances between them are left out); then all else is independent of it.

    Args:
        posterior: of the large network, whose two Linear layers stand in an `nn.Sequential`
        layer, feeds: names of the layer that goes, and of the one behind it
        inputs: of the network, (N, ...), where the activation is measured
    """
    must_be_posterior(posterior)
    model = posterior.template
    units = _plain(units_of(model, layer, feeds))
    made, read = model.get_submodule(layer), model.get_submodule(feeds)
    between = _between(model, layer, feeds)
    if between is None or not all(isinstance(m, nn.Linear) for m in (made, read)) or read.in_features != units.size:
        raise ValueError(
            f"layer and feeds must be Linear in one nn.Sequential to be composed, got {layer!r}, {feeds!r}"
        )
    slope, offset = _lines(posterior, layer, feeds, inputs)
    n, o = made.in_features, read.out_features
    c_mean, c_cov = _moments(posterior, layer)  # (K, n + 1), (K, n + 1, n + 1)
    b_mean, b_cov = _joint(posterior, feeds)  # (o, K + 1), (o, K + 1, o, K + 1)
    c = torch.zeros(units.size + 1, n + 1, dtype=torch.float64)
    c[:-1], c[-1, -1] = slope[:, None] * c_mean, 1.0
    c[:-1, -1] += offset
    mean = b_mean @ c
    both = b_mean[:, None, :-1] * b_mean[None, :, :-1] + torch.einsum("ikjk->ijk", b_cov[:, :-1, :, :-1])
    cov = torch.einsum("ka,ikjl,lb->iajb", c, b_cov, c) + torch.einsum("ijk,k,kab->iajb", both, slope**2, c_cov)
    student = copy.deepcopy(model)
    for name in [layer, *(name for name, _ in between)]:
        exchange(student, name, nn.Identity())
    exchange(student, feeds, nn.utils.skip_init(nn.Linear, n, o, dtype=read.weight.dtype))
    place, old = (unflatten(m, torch.arange(len(flatten(m)))) for m in (student, model))
    to = torch.full_like(posterior.mean, -1, dtype=torch.long)
    found = torch.zeros(len(flatten(student)), dtype=torch.float64)
    for name, at in place.items():
        if name.rpartition(".")[0] != feeds:
            to[old[name].reshape(-1)] = at.reshape(-1)
            found[at] = posterior.mean[old[name]]
    new = _rows(student, feeds)
    found[new] = mean
    kept = posterior.marginal((to >= 0).nonzero().flatten()).blocks
    blocks = [Block(to[b.index], b.cov) for b in kept]
    blocks.append(Block(new.reshape(1, -1), cov.reshape(1, o * (n + 1), o * (n + 1))))
    return _with(student, found, _merged(blocks), posterior.report)


def _plain(units: Units) -> Units:
    if len(units.owners) > 1:
        raise ValueError(
            f"layer {units.owners[0]!r} must be read directly, got {', '.join(units.owners[1:])} between it and "
            f"{units.feeds[0]!r}: fold a normalisation in first"
        )
    return units


def _rows(model: nn.Module, layer: str) -> Tensor:
    """Positions of the weights of each unit and its bias, if there is one, (m, n + 1)."""
    place = unflatten(model, torch.arange(len(flatten(model))))
    parts = [v for k, v in place.items() if k.rpartition(".")[0] == layer]
    return torch.cat([p.reshape(len(p), -1) for p in parts], 1)


def _covs(posterior: GaussianPosterior, rows: Tensor) -> Tensor:
    return torch.stack([posterior.cov(row) for row in rows])


def _moments(posterior: GaussianPosterior, layer: str) -> tuple[Tensor, Tensor]:
    """Mean and covariance of each row with its bias, zero for one that is not there."""
    rows = _rows(posterior.template, layer)
    mean, cov = posterior.mean[rows], _covs(posterior, rows)
    missing = posterior.template.get_submodule(layer).bias is None
    pad = nn.functional.pad
    return (pad(mean, (0, 1)), pad(cov, (0, 1, 0, 1))) if missing else (mean, cov)


def _joint(posterior: GaussianPosterior, layer: str) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all rows together."""
    rows = _rows(posterior.template, layer)
    cov = posterior.cov(rows.reshape(-1)).reshape(*rows.shape, *rows.shape)
    if posterior.template.get_submodule(layer).bias is None:
        return nn.functional.pad(posterior.mean[rows], (0, 1)), nn.functional.pad(cov, (0, 1, 0, 0, 0, 1))
    return posterior.mean[rows], cov


@torch.no_grad()
def _lines(posterior: GaussianPosterior, layer: str, feeds: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of what stands between, by least squares over the inputs, each (K,)."""
    model, seen = posterior.model().double().eval(), {}
    model.get_submodule(layer).register_forward_hook(lambda m, i, out: seen.update(a=out))
    model.get_submodule(feeds).register_forward_hook(lambda m, i, out: seen.update(h=i[0]))
    model(inputs.double())
    a, h = (seen[k].reshape(-1, seen[k].shape[-1]) for k in "ah")
    away = a - a.mean(0)
    spread = away.square().mean(0)
    slope = torch.where(spread > 0, (away * h).mean(0) / torch.where(spread > 0, spread, 1.0), 0.0)
    return slope, h.mean(0) - slope * a.mean(0)


def _components(cov: Tensor, random: Tensor) -> list[Block]:
    """A covariance cut into what is correlated."""
    part = cov[random][:, random]
    _, label = connected_components(csr_array(part.numpy() != 0), directed=False)
    groups = [torch.from_numpy(label == i).nonzero().flatten() for i in range(label.max() + 1)] if len(part) else []
    return [Block(random[g][None], part[g][:, g][None]) for g in groups]


def _with(model: nn.Module, mean: Tensor, blocks, report) -> GaussianPosterior:
    found = GaussianPosterior(model, mean, tuple(blocks), dict(report))
    return GaussianPosterior(found.model(), mean, tuple(blocks), dict(report))
