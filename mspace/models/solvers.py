"""Solvers of ordinary differential equations that gradients pass through, and `torch.func.vmap` where steps are fixed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import as_tensor, check_int
from .parts import holds

__all__ = ["Field", "Solution", "dopri5", "finite", "increasing", "rk4", "step"]

MAX_STEPS = 10_000  # of dopri5
Field = Callable[[Tensor, Tensor], Tensor]  # (time, state) -> velocity, the state's shape


class Solution(NamedTuple):
    """States at the times (T, ..., d), and how often the field was evaluated for them."""

    states: Tensor
    evaluations: int


def rk4(field: Field, start: Tensor, times: Tensor, *, n_steps: int | None = None) -> Solution:
    """Solve by Kutta's 3/8 rule, of fourth order, the fixed steps of torchdiffeq's "rk4".

    Args:
        field: (time, state) -> velocity
        start: (..., d), the state at the first time
        times: (T,), increasing, or (B, T) where every example has its own, and start is (B, d). Steps between times of
            float64 keep their length whatever the dtype of the state; the field is given times in that dtype
        n_steps: steps of equal length from the first time to the last, with the cubic through states and velocities at
            their ends in between (the error stays of fourth order, at a fraction of the cost where times are dense);
            default a step from each time to the next

    Raises:
        ValueError: when times do not increase, or the solution leaves the finite numbers, naming where. Inside
            `vmap` no value can be read, and such a solution goes on as infinity or NaN.
    """
    start, times = _start(start, times)
    if n_steps is None:
        states = [start]
        for a, b in pairwise(times.unbind(-1)):
            states.append(step(field, _column(a, start), _column(b, start), states[-1])[0])
        return Solution(finite(torch.stack(states), times), 4 * (len(states) - 1))
    n_steps = check_int(n_steps, "n_steps", 1)
    share = torch.arange(n_steps + 1, dtype=times.dtype, device=times.device) / n_steps
    first, last = times[..., :1], times[..., -1:]
    ends = (first + share * (last - first)).unbind(-1)
    states, slopes = [start], []
    for a, b in pairwise(_column(t, start) for t in ends):
        state, slope = step(field, a, b, states[-1])
        states.append(state)
        slopes.append(slope)
    slopes.append(field(_column(ends[-1], start).to(start.dtype), states[-1]))
    states_at_ends = finite(torch.stack(states), torch.stack(ends, -1))
    return Solution(_between(states_at_ends, torch.stack(slopes), times, n_steps), 4 * n_steps + 1)


def dopri5(field: Field, start: Tensor, times: Tensor, *, rtol: float = 1e-5, atol: float = 1e-6) -> Solution:
    """Solve by Dormand and Prince's pair with steps chosen by the error, from torchdiffeq; arguments as of `rk4`.

    All examples share the times (T,). `vmap` cannot follow: members of an ensemble are trained one after another.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as why:
        raise ImportError("dopri5 needs torchdiffeq: pip install torchdiffeq, or take rk4") from why
    start, times = _start(start, times)
    if times.ndim != 1:
        raise ValueError(
            f"times must be (T,) for dopri5, got {tuple(times.shape)}: take rk4 where examples differ in them"
        )
    counted = _Counted(field)
    options = {"method": "dopri5", "rtol": rtol, "atol": atol, "options": {"max_num_steps": MAX_STEPS}}
    try:
        states = odeint(counted, start, times, **options)
        assert isinstance(states, Tensor)
        return Solution(finite(states, times), counted.calls)
    except AssertionError as why:  # torchdiffeq's way to say that it cannot go on
        raise ValueError(
            f"the solution could not be followed beyond time {counted.reached:.4g} of {float(times.max()):.4g} ({why}), "
            f"after {counted.calls} evaluations: it blows up there, or is stiff: loosen rtol, or bound the field"
        ) from why


class _Counted:
    """A field that counts its evaluations, and keeps the last time reached."""

    def __init__(self, field: Field):
        self.field, self.calls, self.reached = field, 0, float("-inf")

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        self.calls += 1
        self.reached = max(self.reached, float(t.detach().max()))
        return self.field(t, z)


def increasing(times: Tensor, name: str = "times") -> Tensor:
    """Return times (..., T) that increase, T >= 2."""
    if times.ndim not in (1, 2) or times.shape[-1] < 2:
        raise ValueError(f"{name} must be (T,), or (B, T), with T >= 2, got {tuple(times.shape)}")
    if holds(torch.isfinite(times).all()) is False:
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(times)).sum())} that are not")
    back = times.diff(dim=-1) <= 0
    if holds(back.any()):
        *row, at = back.nonzero()[0].tolist()
        a, b = times[(*row, at)].item(), times[(*row, at + 1)].item()
        way = "take the mean of what was measured at one time" if a == b else "sort them, and the values with them"
        where = f"{at + 1}" + (f" of example {row[0]}" if row else "")
        raise ValueError(f"{name} must increase, got {b:.6g} after {a:.6g} at position {where}: {way}")
    return times


def _start(start: Tensor, times) -> tuple[Tensor, Tensor]:
    times = increasing(as_tensor(times, "times"))
    if start.ndim < 1 or (times.ndim == 2 and start.shape[:-1] != times.shape[:1]):
        raise ValueError(
            f"start must be (..., d), (B, d) for times (B, T), got {tuple(start.shape)}, {tuple(times.shape)}"
        )
    if holds(torch.isfinite(start).all()) is False:
        raise ValueError(f"start must be finite, got {int((~torch.isfinite(start)).sum())} numbers that are not")
    exact = torch.promote_types(start.dtype, times.dtype if times.is_floating_point() else torch.float64)
    return start, times.to(start.device, exact)


def _column(t: Tensor, state: Tensor) -> Tensor:
    """Return a time (), or (B,) as a column beside states (B, d)."""
    return t.unsqueeze(-1) if t.ndim else t


def _number(h: Tensor) -> Tensor | float:
    """Return a length as a plain number where it can be: cheaper by a tenth than a tensor of no dimension."""
    if h.ndim or h.requires_grad:
        return h
    try:
        return h.item()
    except RuntimeError:  # vmap's
        return h


def step(field: Field, a: Tensor, b: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state at b, and the velocity at a; the length of the step is taken before times are rounded."""
    h, dtype = _number((b - a).to(z.dtype)), z.dtype
    k1 = field(a.to(dtype), z)
    k2 = field((a + h / 3).to(dtype), z + h / 3 * k1)
    k3 = field((a + 2 * h / 3).to(dtype), z + h * (k2 - k1 / 3))
    k4 = field(b.to(dtype), z + h * (k1 - k2 + k3))
    return z + h / 8 * (k1 + 3 * (k2 + k3) + k4), k1


def _between(states: Tensor, slopes: Tensor, times: Tensor, n_steps: int) -> Tensor:
    """Interpolate by Hermite's cubic through the ends of the steps (n_steps + 1, ..., d), at the times: (T, ..., d)."""
    first, last = times[..., :1], times[..., -1:]
    at = (times - first) / (last - first) * n_steps
    step = at.detach().floor().clamp(max=n_steps - 1)
    s = (at - step).unsqueeze(-1)
    hit = (step.unsqueeze(-1) == torch.arange(n_steps, device=times.device)).to(states)  # (..., T, n_steps)
    h = ((last - first) / n_steps).unsqueeze(-1)
    value = F.pad(hit * (1 + 2 * s) * (1 - s) ** 2, (0, 1)) + F.pad(hit * s**2 * (3 - 2 * s), (1, 0))
    slope = F.pad(hit * h * s * (1 - s) ** 2, (0, 1)) + F.pad(hit * h * s**2 * (s - 1), (1, 0))
    value, slope = value.to(states), slope.to(states)
    if times.ndim == 2:
        return torch.einsum("btn,nbd->tbd", value, states) + torch.einsum("btn,nbd->tbd", slope, slopes)
    return torch.tensordot(value, states, 1) + torch.tensordot(slope, slopes, 1)


def finite(states: Tensor, times: Tensor) -> Tensor:
    """Return states (T, ..., d) at times (T,) or (B, T), all of them finite."""
    good = torch.isfinite(states)
    if holds(good.all()) is not False:
        return states
    bad = (~good).flatten(1).any(1)
    at = int(bad.nonzero()[0])
    row = times if times.ndim == 1 else times[int((~good[at]).flatten(1).any(1).nonzero()[0])]
    where = "" if states.ndim == 2 else f" in {int((~good[at]).any(-1).sum())} of {good[at, ..., 0].numel()} examples"
    raise ValueError(
        f"the solution blew up{where} between times {row[max(at - 1, 0)]:.4g} and {row[at]:.4g}, where it had reached "
        f"{states[: max(at, 1)].detach().abs().max():.3g}: take more steps, or a field that is bounded, such as a tanh's"
    )
