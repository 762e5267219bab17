"""Members brought to the minimum of the loss on their own data, side by side, until they are where their data put them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import n_examples
from .stacks import Stack

__all__ = ["descend", "finish"]

Draw = tuple[Tensor | None, Tensor | None]  # indices, weights

PIECE = 512  # examples of a member in one pass
MEMORY = 20  # pairs of steps and changes of the gradient that stand for the curvature, fewer where these are large
NUMBERS = 1 << 25  # that they may hold for all members
ACCEPTED = (
    0.9  # a step is too long where the slope along it has risen above this share of what it was, with the other sign
)
REFRESHED = 8  # evaluations, for all members at once, so that none depends on the others
ROUNDING = 100  # steps of so many rounding errors of the parameters are none
DONE = 0.03  # of the sampling error: what is left changes a standard error by a per cent or two


def finish(base: Stack, stack: Stack, index: Tensor | None, weight: Tensor | None, *, bounded=None) -> Tensor:
    """Move each member to a minimum of its own loss, and return how far it still is, (N,); see `descend`.

    The network that all began with is brought to its minimum first. Members go on from there with the curvature that was
    met on the way, which is nearly their own: some ten evaluations do where a hundred are needed without.

    Args:
        base: the network in a stack of one, on the same data
        index, weight: (N, k) examples of each member, or (N, n) how often each counts
    """
    n = n_examples(stack.x)
    drawn = torch.randint(
        n, (1, n), generator=torch.Generator().manual_seed(0)
    )  # only for the size of a sampling error
    evaluations = min(1000, max(100, 1_000_000 // n))
    _, pairs = descend(base, (None, None), (drawn, None), evaluations=evaluations, bounded=bounded)
    with torch.no_grad():
        own = Full(stack, None, None)
        own.put(Full(base, None, None).point().expand(stack.size, -1))
    return descend(
        stack, (index, weight), (None, None), evaluations=min(200, evaluations), bounded=bounded, pairs=pairs
    )[0]


def descend(
    stack: Stack, own: Draw, other: Draw, *, evaluations: int = 200, bounded=None, pairs: Pairs | None = None
) -> tuple[Tensor, Pairs]:
    """Move each member of a stack to a minimum of its own loss; return how far it still is, (N,), and the curvature met.

    L-BFGS on all examples of a member, whose line search asks for gradients alone (Nocedal and Wright 2006, chapters 3
    and 7). The distance is sqrt(g.T H^-1 g / e.T H^-1 e), with the gradient g at the end, the curvature H that L-BFGS has
    gathered, and the difference e between the gradients on the member's own data and on others: the Newton step that is
    left, in units of the step that drawing the data anew brings about. No member looks at another.

    Args:
        own: (N, k) examples of each member or (N, n) how often each example counts; all of them once if both are None
        other: likewise, data that differ from these as data that are drawn anew do
        evaluations: of the gradient, at most
        bounded: a module with `keep_bounds`
        pairs: a curvature of one member to begin with
    """
    with torch.no_grad():
        full, others = Full(stack, *own), Full(stack, *other)
        point = full.point()
        slope = full.gradient(point)
        drawn = slope - others.gradient(point)
        step, length = -slope, _first_length(point, slope)
        if pairs is None:
            pairs = Pairs(point)
        else:
            pairs = pairs.repeated(stack.size)
            step, length = -pairs.solve(slope), torch.ones_like(length)
        moving = torch.ones(stack.size, dtype=torch.bool)
        for i in range(1, evaluations + 1):
            trial = torch.where(moving[:, None], point + length[:, None] * step, point)
            if bounded is not None:
                trial = full.bound(trial, bounded)
            ahead = full.gradient(trial)
            before, after = (slope * step).sum(1), (ahead * step).sum(1)
            taken = moving & (after <= ACCEPTED * before.abs()) & torch.isfinite(ahead).all(1)
            pairs.add(trial - point, ahead - slope, taken)
            point = torch.where(taken[:, None], trial, point)
            slope = torch.where(taken[:, None], ahead, slope)
            shorter = length * (before / (before - after)).nan_to_num(0.1).clamp(0.1, 0.5)
            direction = -pairs.solve(slope)
            step = torch.where(taken[:, None], direction, step)
            length = torch.where(taken, torch.ones_like(length), shorter)
            if i % REFRESHED == 0:
                drawn = slope - others.gradient(point)  # far from a minimum it was another
            moving = ~(_distance(pairs, point, slope, drawn) <= DONE) & (slope.abs().amax(1) > 0)
            if i % REFRESHED == 0 and not moving.any():
                break
        drawn = slope - others.gradient(point)
        full.put(point)
        return _distance(pairs, point, slope, drawn), pairs


def _first_length(point: Tensor, slope: Tensor) -> Tensor:
    """Return the length of a first step, which is short beside the parameters: it only feels the curvature."""
    return 1e-3 * (1 + point.norm(dim=1)) / slope.norm(dim=1).clamp(min=torch.finfo(slope.dtype).tiny)


def _distance(pairs: Pairs, point: Tensor, slope: Tensor, drawn: Tensor) -> Tensor:
    """Return the distance to the minimum, 0 where the Newton step is rounding: new data may bring about no step at all."""
    newton = pairs.solve(slope)
    left, sampling = (slope * newton).sum(1), (drawn * pairs.solve(drawn)).sum(1)
    distance = (left / sampling).clamp(min=0).sqrt().nan_to_num(0.0)
    rounding = ROUNDING * torch.finfo(point.dtype).eps * point.norm(dim=1)
    return distance.masked_fill(newton.norm(dim=1) <= rounding, 0.0)


class Full:
    """The gradient of each member on all its examples as a function of the parameters of all, (N, p)."""

    def __init__(self, stack: Stack, index: Tensor | None, weight: Tensor | None):
        n = n_examples(stack.x)
        self.stack, self.weight = stack, weight
        self.index = torch.arange(n).expand(stack.size, n) if index is None else index

    def point(self) -> Tensor:
        """Return the parameters of the stack, (N, p)."""
        return torch.cat([v.reshape(self.stack.size, -1) for v in self.stack.named(self.stack.flat).values()], 1)

    def put(self, point: Tensor) -> None:
        """Overwrite the parameters of the stack."""
        views = self.stack.named(self.stack.flat)
        for view, part in zip(views.values(), point.split([v[0].numel() for v in views.values()], 1)):
            view.copy_(part.view(view.shape))

    def bound(self, point: Tensor, bounded) -> Tensor:
        """Return parameters within the bounds of a module."""
        self.put(point)
        bounded.keep_bounds(self.stack.named(self.stack.flat))
        return self.point()

    def gradient(self, point: Tensor) -> Tensor:
        """Return the gradients at these parameters, (N, p)."""
        self.put(point)
        total, count = torch.zeros_like(point), self.index.shape[1]
        for at in torch.arange(count).split(PIECE):
            weight = None if self.weight is None else self.weight[:, at]
            self.stack.gradient(self.index[:, at], weight)
            slopes = self.stack.named(self.stack.grad).values()
            total += torch.cat([g.reshape(len(point), -1) for g in slopes], 1) * (len(at) / count)
        return total


class Pairs:
    """The last steps and changes of the gradient of each member, and the inverse curvature that they stand for.

    Args:
        point: parameters (N, p), for the size
    """

    def __init__(self, point: Tensor):
        memory = max(3, min(MEMORY, NUMBERS // (2 * point.numel())))
        self.steps, self.changes = (point.new_zeros(memory, *point.shape) for _ in range(2))
        self.inverse = point.new_zeros(memory, len(point))  # 1 / (change . step), 0 where there is no pair yet
        self.scale = point.new_ones(len(point))

    def repeated(self, n: int) -> Pairs:
        """Return the same for `n` members as for one."""
        pairs = Pairs(self.steps.new_empty(n, self.steps.shape[2]))
        kept = len(pairs.steps)
        pairs.steps, pairs.changes = (t[-kept:].repeat(1, n, 1) for t in (self.steps, self.changes))
        pairs.inverse, pairs.scale = self.inverse[-kept:].repeat(1, n), self.scale.repeat(n)
        return pairs

    def add(self, step: Tensor, change: Tensor, taken: Tensor) -> None:
        """Keep a pair for the members that took the step and found the loss curved upwards along it."""
        curved = (step * change).sum(1)
        eps = torch.finfo(step.dtype).eps
        good = taken & (curved > eps * step.norm(dim=1) * change.norm(dim=1))
        for kept, new in ((self.steps, step), (self.changes, change), (self.inverse, 1 / curved)):
            kept[:, good] = torch.cat([kept[1:, good], new[None, good]])
        self.scale[good] = (curved / change.square().sum(1))[good]

    def solve(self, vector: Tensor) -> Tensor:
        """Return the inverse curvature times a vector of each member, (N, p)."""
        q, weights = vector.clone(), []
        for step, change, inverse in zip(self.steps.flip(0), self.changes.flip(0), self.inverse.flip(0)):
            weights.append(inverse * (step * q).sum(1))
            q -= weights[-1][:, None] * change
        q *= self.scale[:, None]
        for step, change, inverse in zip(self.steps, self.changes, self.inverse):
            q += (weights.pop() - inverse * (change * q).sum(1))[:, None] * step
        return q
