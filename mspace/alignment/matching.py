"""How the units of networks are matched: the order, signs, scales or basis nearest to a reference, and the mean of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..network.connections import HiddenUnits
from ..threads import small
from .wiring import State

__all__ = ["gauge", "match_all", "mean_of", "medoid", "residual"]

SWEEPS = 20  # of taking the mean anew, at most
TURNS = 50  # of coordinate descent over the layers of one network: each lowers the distance, so it ends long before


def match_all(states: list[State], hidden: Sequence[HiddenUnits], reference: State | None) -> list[State]:
    """Return every network aligned to the reference; without one, to the mean of all, reached from the medoid.

    Generalised Procrustes analysis: networks are matched to the mean and the mean is taken anew, in turn.
    """
    if reference is not None:
        return [_match(s, reference, hidden, restart=True) for s in states]
    target, last = states[medoid(states, hidden)], None
    for sweep in range(SWEEPS):
        states = [_match(s, target, hidden, restart=sweep == 0) for s in states]
        target = mean_of(states)
        spread = sum(_distance(s, target, hidden, _lengths(target, hidden)) for s in states)
        if last is not None and spread >= last * (1 - 1e-9):
            break
        last = spread
    return states


def gauge(state: State, hidden: Sequence[HiddenUnits]) -> State:
    """Return a network with the freedom of scale removed: unit rows [w, b] of ReLUs, balanced layers of linear units.

    Balanced layers have ``W.T W = V V.T`` for what comes in, V, and what goes out, W, and diagonal: from the
    singular vectors of their product. In a deep linear network one pair after another, until all are.
    """
    for units in hidden:
        if units.kind == "scales":
            norm = _rows(state, units).norm(dim=1)
            norm = torch.where(norm > torch.finfo(torch.float32).tiny, norm, 1.0)  # a dead unit stays what it is
            state = _move(state, units, torch.diag(1 / norm), torch.diag(norm))
    linear = [units for units in hidden if units.kind == "linear"]
    for _ in range(TURNS):
        turned = 0.0
        for units in linear:
            pair = _balancing(state, units)
            if pair is not None:
                state = _move(state, units, *pair)
                turned = max(turned, float((pair[0] - torch.eye(len(pair[0])).to(pair[0])).abs().max()))
        if turned < 1e-12:
            break
    return state


def medoid(states: Sequence[State], hidden: Sequence[HiddenUnits]) -> int:
    """Return the index of the network in the middle.

    Compared is what no symmetry changes: ``F.T F``, with F the weights of the units in fixed coordinates.

    Fixed are the coordinates of inputs and outputs. Its place among the others does not matter: of equals the one
    with the least weights is taken.
    """
    score = torch.zeros(len(states), dtype=torch.float64)
    for features in _fixed(states, hidden):
        f = features * len(features) ** 0.5
        gram = f.flatten(0, 1).T @ f.flatten(0, 1) / len(f)
        # |F.T F - mean|^2, but for a constant, without the matrices F.T F
        score += ((f @ f.mT) ** 2).sum((1, 2)) - 2 * ((f @ gram) * f).sum((1, 2))
    near = (score <= score.min() + 1e-9).nonzero().flatten().tolist()
    return min(near, key=lambda i: torch.cat([t.flatten() for t in states[i].values()]).tolist())


def mean_of(states: Sequence[State]) -> State:
    """Return the arithmetic mean of networks, weight by weight."""
    return {key: torch.stack([s[key] for s in states]).mean(0) for key in states[0]}


def residual(state: State, reference: State, hidden: Sequence[HiddenUnits]) -> float:
    """Return the distance to a reference over that of two unrelated networks of these norms, 0 if equal."""
    ours, theirs = _blocks(state, hidden), _blocks(reference, hidden)
    lengths = _lengths(reference, hidden)
    apart = sum(float((ours[k] - theirs[k]).square().sum()) * lengths[k] ** 2 for k in ours)
    unrelated = sum(float(ours[k].square().sum() + theirs[k].square().sum()) * lengths[k] ** 2 for k in ours)
    return (apart / unrelated) ** 0.5 if unrelated else 0.0


def _match(state: State, reference: State, hidden: Sequence[HiddenUnits], *, restart: bool) -> State:
    """Descend over the hidden layers, one by one, until nothing changes; where it may be trapped, from three starts."""
    lengths = _lengths(reference, hidden)
    starts = [state]
    if restart and len(hidden) > 1:  # inputs and outputs are common to all: let each side alone settle the labels
        for side, order in (("into", hidden), ("out", reversed(hidden))):
            start = state
            for units in order:
                start = _step(start, reference, units, lengths, (side,))
            starts.append(start)
    ends = [_descend(s, reference, hidden, lengths) for s in starts]
    return min(ends, key=lambda s: _distance(s, reference, hidden, lengths))


def _descend(state: State, reference: State, hidden: Sequence[HiddenUnits], lengths: dict[str, float]) -> State:
    for _ in range(TURNS):
        before = state
        for units in hidden:
            state = _step(state, reference, units, lengths)
        if state is before:
            break
    return state


def _step(state: State, reference: State, units: HiddenUnits, lengths, sides=("into", "out")) -> State:
    """Make the best change of one hidden layer; return the very same state if it is no better than none."""
    ours, theirs = (_features(s, units, lengths, sides) for s in (state, reference))
    inner = theirs @ ours.T
    g = _best(inner, units.kind)
    if float((g * inner).sum() - inner.trace()) <= 1e-12 * float(ours.norm() * theirs.norm()):
        return state
    return _move(state, units, g, g.T)


def _best(inner: Tensor, kind: str) -> Tensor:
    """Return the G of the group with the largest ``tr(G.T inner)``, hence the least ``|G ours - theirs|``."""
    if kind in ("orthogonal", "linear"):
        with small(len(inner)):
            u, _, vt = torch.linalg.svd(inner)
        return u @ vt
    rows, columns = linear_sum_assignment(inner.abs() if kind == "signs" else inner, maximize=True)
    g = torch.zeros_like(inner)
    g[rows, columns] = torch.where(inner[rows, columns] < 0, -1.0, 1.0).to(g) if kind == "signs" else 1.0
    return g


def _move(state: State, units: HiddenUnits, g: Tensor, inverse: Tensor) -> State:
    """Multiply what the units receive by G and what they give by its inverse: the function stays."""
    moved = dict(state)
    for key in (f"{units.layer}.weight", f"{units.layer}.bias"):
        if key in state:
            moved[key] = g @ state[key]
    if units.feeds is not None:
        weight = moved[f"{units.feeds}.weight"] = state[f"{units.feeds}.weight"] @ inverse
        if units.kind == "signs" and units.centre:
            # a reflected unit gives 2 f(0) - y where it gave y; the rows of G sum to the signs
            moved[f"{units.feeds}.bias"] = state[f"{units.feeds}.bias"] - weight @ ((1 - g.sum(1)) * units.centre)
    return moved


def _balancing(state: State, units: HiddenUnits) -> tuple[Tensor, Tensor] | None:
    """Return the G that balances the layers around linear units, symmetric, and its inverse; none if units are dependent."""
    r_in = torch.linalg.qr(state[f"{units.layer}.weight"].T)[1]
    r_out = torch.linalg.qr(state[f"{units.feeds}.weight"])[1]
    _, s, vt = torch.linalg.svd(r_out @ r_in.T)
    if s[-1] <= 1e-10 * s[0]:
        return None
    # r_in.T V s^-1/2 balances; without its turn it moves the units no further than needed
    axes, stretch, _ = torch.linalg.svd(r_in.T @ (vt.T / s.sqrt()))
    return (axes / stretch) @ axes.T, (axes * stretch) @ axes.T


def _rows(state: State, units: HiddenUnits) -> Tensor:
    """Return [w, b] of every unit."""
    bias = state.get(f"{units.layer}.bias")
    weight = state[f"{units.layer}.weight"]
    return weight if bias is None else torch.cat([weight, bias[:, None]], 1)


def _blocks(state: State, hidden: Sequence[HiddenUnits]) -> dict[str, Tensor]:
    """Return what is compared, a matrix for each layer; the last bias is no unit's own, and left out."""
    ends = {units.feeds: state[f"{units.feeds}.weight"] for units in hidden if units.feeds}
    return {**ends, **{units.layer: _rows(state, units) for units in hidden}}


def _lengths(reference: State, hidden: Sequence[HiddenUnits]) -> dict[str, float]:
    """Return for every layer the factor that makes its part of the reference of length one."""
    return {k: 1 / float(b.norm()) if b.any() else 1.0 for k, b in _blocks(reference, hidden).items()}


def _distance(state: State, reference: State, hidden: Sequence[HiddenUnits], lengths: dict[str, float]) -> float:
    ours, theirs = _blocks(state, hidden), _blocks(reference, hidden)
    return sum(float((ours[k] - theirs[k]).square().sum()) * lengths[k] ** 2 for k in ours)


def _features(state: State, units: HiddenUnits, lengths: dict[str, float], sides) -> Tensor:
    """Return a row for every unit: what comes in, its bias, what goes out."""
    parts = [_rows(state, units) * lengths[units.layer]] if "into" in sides else []
    if units.feeds and "out" in sides:
        parts.append(state[f"{units.feeds}.weight"].T * lengths[units.feeds])
    return torch.cat(parts, 1)


def _fixed(states: Sequence[State], hidden: Sequence[HiddenUnits]):
    """Yield (N, m, k) for every hidden layer at an end: its weights from the inputs, to the outputs."""
    first, last = {units.layer for units in hidden}, {units.feeds for units in hidden}
    for units in hidden:
        parts = [[_rows(s, units) for s in states]] if units.layer not in last else []
        if units.feeds and units.feeds not in first:
            parts.append([s[f"{units.feeds}.weight"].T for s in states])
        stacks = [torch.stack(p) for p in parts]
        if stacks:
            yield torch.cat([p / p.norm().clamp(min=torch.finfo(p.dtype).tiny) for p in stacks], -1)
