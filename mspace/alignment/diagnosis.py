"""Was there anything to align, and did it succeed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .procrustes import mean_of, residual
from .wiring import Link, State

__all__ = ["diagnose", "finite", "member"]

CLOSE = 0.5  # of the distance between unrelated networks: a matched one further off is another network


def diagnose(
    before: Sequence[State],
    after: Sequence[State],
    reference: State | None,
    target: State | None,
    links: Sequence[Link],
) -> dict[str, Tensor]:
    """Residuals before (to the reference) and after (to the target, in its gauge); warns if most stay large."""
    left = _residuals(after, target, links)
    aligned = left < CLOSE
    if 2 * int(aligned.sum()) < len(after):
        warnings.warn(
            f"{int((~aligned).sum())} of {len(after)} members are not near the reference in any order or basis of their "
            "units: they are different networks; start them from the same weights, or compare what they compute",
            stacklevel=4,
        )
    return {"residual_before": _residuals(before, reference, links), "residual_after": left, "aligned": aligned}


def _residuals(states: Sequence[State], target: State | None, links: Sequence[Link]) -> Tensor:
    n, targets = len(states), [target or states[0]] * len(states)
    if target is None and n > 1:  # of a mean that it takes part in, a member is never far
        mean = mean_of(states)
        targets = [{k: (n * mean[k] - s[k]) / (n - 1) for k in s} for s in states]
    return torch.tensor([residual(s, t, links) for s, t in zip(states, targets)], dtype=torch.float64)


def member(to, n: int) -> int:
    """The number of a member, checked."""
    if isinstance(to, bool) or not isinstance(to, int) or not -n <= to < n:
        raise ValueError(f"to must be a reference or the number of one of {n} members, got {to!r}")
    return to


def finite(state: State, name: str) -> State:
    """The state as it came; diverged members are refused by name."""
    if not all(torch.isfinite(t).all() for t in state.values()):
        raise ValueError(f"{name} has weights that are not finite: leave it out, as by Ensemble.keep")
    return state
