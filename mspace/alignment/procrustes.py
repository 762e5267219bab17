"""Networks turned towards one reference: the group element for each hidden layer, and the mean they agree on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..threads import small
from .wiring import Link, State

__all__ = ["gauge", "mean_of", "medoid", "procrustes", "residual"]

TURNS = 50  # of coordinate descent over the layers of one network: each lowers the distance, so it ends long before


def procrustes(states: list[State], links: Sequence[Link], reference: State | None, sweeps: int) -> list[State]:
    """Every network aligned to the reference; without one, to the mean of all, reached from the medoid."""
    if reference is not None:
        return [_match(s, reference, links, restart=True) for s in states]
    target, last = states[medoid(states, links)], None
    for sweep in range(sweeps):
        states = [_match(s, target, links, restart=sweep == 0) for s in states]
        target = mean_of(states)
        spread = sum(_distance(s, target, links, _units(target, links)) for s in states)
        if last is not None and spread >= last * (1 - 1e-9):
            break
        last = spread
    return states


def gauge(state: State, links: Sequence[Link]) -> State:
    """One network with the freedom of scale removed: unit rows [w, b] of ReLUs, balanced layers of linear units.

    Balanced layers have ``W.T W = V V.T`` for what comes in, V, and what goes out, W, and diagonal: from the
    singular vectors of their product. In a deep linear network one pair after another, until all are.
    """
    for link in links:
        if link.kind == "scales":
            norm = _rows(state, link).norm(dim=1)
            norm = torch.where(norm > torch.finfo(torch.float32).tiny, norm, 1.0)  # a dead unit stays what it is
            state = _move(state, link, torch.diag(1 / norm), torch.diag(norm))
    linear = [link for link in links if link.kind == "linear"]
    for _ in range(TURNS):
        turned = 0.0
        for link in linear:
            pair = _balancing(state, link)
            if pair is not None:
                state = _move(state, link, *pair)
                turned = max(turned, float((pair[0] - torch.eye(len(pair[0])).to(pair[0])).abs().max()))
        if turned < 1e-12:
            break
    return state


def medoid(states: Sequence[State], links: Sequence[Link]) -> int:
    """The network in the middle, by what no symmetry changes: ``F.T F``, F the units' weights in fixed coordinates.

    Fixed are the coordinates of inputs and outputs. Its place among the others does not matter: of equals the one
    with the least weights is taken.
    """
    score = torch.zeros(len(states), dtype=torch.float64)
    for features in _fixed(states, links):
        f = features * len(features) ** 0.5
        gram = f.flatten(0, 1).T @ f.flatten(0, 1) / len(f)
        # |F.T F - mean|^2, but for a constant, without the matrices F.T F
        score += ((f @ f.mT) ** 2).sum((1, 2)) - 2 * ((f @ gram) * f).sum((1, 2))
    near = (score <= score.min() + 1e-9).nonzero().flatten().tolist()
    return min(near, key=lambda i: torch.cat([t.flatten() for t in states[i].values()]).tolist())


def mean_of(states: Sequence[State]) -> State:
    """The arithmetic mean, weight by weight."""
    return {key: torch.stack([s[key] for s in states]).mean(0) for key in states[0]}


def residual(state: State, reference: State, links: Sequence[Link]) -> float:
    """Distance over that of two unrelated networks of these norms: 0 if equal, about 1 if unrelated."""
    ours, theirs = _blocks(state, links), _blocks(reference, links)
    units = _units(reference, links)
    apart = sum(float((ours[k] - theirs[k]).square().sum()) * units[k] ** 2 for k in ours)
    unrelated = sum(float(ours[k].square().sum() + theirs[k].square().sum()) * units[k] ** 2 for k in ours)
    return (apart / unrelated) ** 0.5 if unrelated else 0.0


def _match(state: State, reference: State, links: Sequence[Link], *, restart: bool) -> State:
    """Coordinate descent over the hidden layers until nothing changes; where it may be trapped, from three starts."""
    units = _units(reference, links)
    starts = [state]
    if restart and len(links) > 1:  # inputs and outputs are common to all: let each side alone settle the labels
        for side, order in (("into", links), ("out", reversed(links))):
            start = state
            for link in order:
                start = _step(start, reference, link, units, (side,))
            starts.append(start)
    ends = [_descend(s, reference, links, units) for s in starts]
    return min(ends, key=lambda s: _distance(s, reference, links, units))


def _descend(state: State, reference: State, links: Sequence[Link], units: dict[str, float]) -> State:
    for _ in range(TURNS):
        before = state
        for link in links:
            state = _step(state, reference, link, units)
        if state is before:
            break
    return state


def _step(state: State, reference: State, link: Link, units, sides=("into", "out")) -> State:
    """The best element for one hidden layer; the very same state if it is no better than none."""
    ours, theirs = (_features(s, link, units, sides) for s in (state, reference))
    inner = theirs @ ours.T
    g = _best(inner, link.kind)
    if float((g * inner).sum() - inner.trace()) <= 1e-12 * float(ours.norm() * theirs.norm()):
        return state
    return _move(state, link, g, g.T)


def _best(inner: Tensor, kind: str) -> Tensor:
    """The G of the group with the largest ``tr(G.T inner)``, hence the least ``|G ours - theirs|``."""
    if kind in ("orthogonal", "linear"):
        with small(len(inner)):
            u, _, vt = torch.linalg.svd(inner)
        return u @ vt
    rows, columns = linear_sum_assignment(inner.abs() if kind == "signs" else inner, maximize=True)
    g = torch.zeros_like(inner)
    g[rows, columns] = torch.where(inner[rows, columns] < 0, -1.0, 1.0).to(g) if kind == "signs" else 1.0
    return g


def _move(state: State, link: Link, g: Tensor, inverse: Tensor) -> State:
    """What the units receive is multiplied by G, what they give by its inverse: the function stays."""
    moved = dict(state)
    for key in (f"{link.into}.weight", f"{link.into}.bias"):
        if key in state:
            moved[key] = g @ state[key]
    if link.out is not None:
        weight = moved[f"{link.out}.weight"] = state[f"{link.out}.weight"] @ inverse
        if link.kind == "signs" and link.centre:
            # a reflected unit gives 2 f(0) - y where it gave y; the rows of G sum to the signs
            moved[f"{link.out}.bias"] = state[f"{link.out}.bias"] - weight @ ((1 - g.sum(1)) * link.centre)
    return moved


def _balancing(state: State, link: Link) -> tuple[Tensor, Tensor] | None:
    """The G that balances the layers around linear units, symmetric, and its inverse; none if units are dependent."""
    r_in = torch.linalg.qr(state[f"{link.into}.weight"].T)[1]
    r_out = torch.linalg.qr(state[f"{link.out}.weight"])[1]
    _, s, vt = torch.linalg.svd(r_out @ r_in.T)
    if s[-1] <= 1e-10 * s[0]:
        return None
    # r_in.T V s^-1/2 balances; without its turn it moves the units no further than needed
    axes, stretch, _ = torch.linalg.svd(r_in.T @ (vt.T / s.sqrt()))
    return (axes / stretch) @ axes.T, (axes * stretch) @ axes.T


def _rows(state: State, link: Link) -> Tensor:
    """[w, b] of every unit."""
    bias = state.get(f"{link.into}.bias")
    weight = state[f"{link.into}.weight"]
    return weight if bias is None else torch.cat([weight, bias[:, None]], 1)


def _blocks(state: State, links: Sequence[Link]) -> dict[str, Tensor]:
    """What is compared, a matrix for each layer; the last bias is no unit's own, and left out."""
    ends = {link.out: state[f"{link.out}.weight"] for link in links if link.out}
    return {**ends, **{link.into: _rows(state, link) for link in links}}


def _units(reference: State, links: Sequence[Link]) -> dict[str, float]:
    """For every layer the unit of distance that makes its part of the reference one long."""
    return {k: 1 / float(b.norm()) if b.any() else 1.0 for k, b in _blocks(reference, links).items()}


def _distance(state: State, reference: State, links: Sequence[Link], units: dict[str, float]) -> float:
    ours, theirs = _blocks(state, links), _blocks(reference, links)
    return sum(float((ours[k] - theirs[k]).square().sum()) * units[k] ** 2 for k in ours)


def _features(state: State, link: Link, units: dict[str, float], sides) -> Tensor:
    """A row for every unit: what comes in, its bias, what goes out."""
    parts = [_rows(state, link) * units[link.into]] if "into" in sides else []
    if link.out and "out" in sides:
        parts.append(state[f"{link.out}.weight"].T * units[link.out])
    return torch.cat(parts, 1)


def _fixed(states: Sequence[State], links: Sequence[Link]):
    """(N, m, k) for every hidden layer at an end: its weights from the inputs, to the outputs."""
    first, last = {link.into for link in links}, {link.out for link in links}
    for link in links:
        parts = [[_rows(s, link) for s in states]] if link.into not in last else []
        if link.out and link.out not in first:
            parts.append([s[f"{link.out}.weight"].T for s in states])
        stacks = [torch.stack(p) for p in parts]
        if stacks:
            yield torch.cat([p / p.norm().clamp(min=torch.finfo(p.dtype).tiny) for p in stacks], -1)
