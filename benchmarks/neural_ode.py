"""What a hundred neural differential equations cost side by side, against torchdiffeq's dopri5 for one.

    .venv/bin/python benchmarks/neural_ode.py            (about two minutes; --quick for one)

One torch thread, float32; a state of two numbers, a field 2-50-2 with a tanh, 50 times, a batch of 32, squared error,
forward and backward. A ratio is the CPU time of dopri5 (rtol = atol = 1e-4) for ONE network over that of ALL members
by `rk4`, divided by their number: 40 means that the hundred cost 2.5 of the others. Median of rounds in which they
take turns. `rk4` takes the fewest equal steps at which it is as near to the truth (dopri5 at 1e-9, float64) as dopri5
at 1e-4 is, or nearer than 1e-4, the cubic doing the rest; the errors are printed beside.

Fields are one as it begins, and some fitted to a rotation by a share of a turn over the 50 times. "stack" has the members
as an axis of the state, "vmap" is the way of `train_ensemble`, gradient and all.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from mspace import seeded
from mspace.models import dopri5, mlp, rk4

MEMBERS, BATCH, TIMES = 100, 32, torch.linspace(0, 1, 50)
TURNS = (0, 1 / 8, 1 / 4, 1 / 2, 1)
GOAL = 40
START = 0.6 * torch.randn(BATCH, 2, generator=seeded(0))
TARGET = torch.randn(len(TIMES), BATCH, 2, generator=seeded(1))


def field_of(turns: float) -> nn.Module:
    """A field that turns its plane by so much in unit time, or one untrained."""
    field = mlp(2, 50, 2, activation=nn.Tanh, generator=seeded(2))
    z = 0.8 * torch.randn(400, 2, generator=seeded(3))
    velocity = 2 * math.pi * turns * torch.stack([z[:, 1], -z[:, 0]], 1)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
    for _ in range(400 if turns else 0):
        optimizer.zero_grad()
        F.mse_loss(field(z), velocity).backward()
        optimizer.step()
    return field


def stacked(field: nn.Module) -> list[torch.Tensor]:
    """Parameters of the members, each a little different, (N, ...)."""
    rng = seeded(4)
    return [
        (p.detach() * (1 + 0.01 * torch.randn(MEMBERS, *p.shape, generator=rng))).requires_grad_()
        for p in field.parameters()
    ]


def one_adaptive(field):
    def step():
        states = dopri5(lambda t, z: field(z), START, TIMES, rtol=1e-4, atol=1e-4).states
        return torch.autograd.grad(F.mse_loss(states, TARGET), list(field.parameters()))

    return step


def one_axis(parameters, n_steps: int):
    w1, b1, w2, b2 = parameters

    def velocity(t, z):
        return torch.baddbmm(b2[:, None], torch.baddbmm(b1[:, None], z, w1.mT).tanh(), w2.mT)

    def step():
        states = rk4(velocity, START.expand(MEMBERS, BATCH, 2), TIMES, n_steps=n_steps).states
        loss = (states - TARGET[:, None]).square().mean((0, 2, 3)).sum()
        return torch.autograd.grad(loss, parameters)

    return step


def by_vmap(field, parameters, n_steps: int):
    names = [name for name, _ in field.named_parameters()]

    def loss(own):
        states = rk4(lambda t, z: functional_call(field, own, (z,)), START, TIMES, n_steps=n_steps).states
        return F.mse_loss(states, TARGET)

    gradients, held = vmap(grad(loss)), {k: p.detach() for k, p in zip(names, parameters)}
    return lambda: tuple(gradients(held).values())


def timed(step, steps: int) -> float:
    """CPU seconds a step."""
    start = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - start) / steps


def errors(field) -> tuple[int, float, float, float]:
    """The steps that `rk4` needs, its error, dopri5's, and how far the two are apart."""
    double = copy.deepcopy(field).double()
    with torch.no_grad():
        truth = dopri5(lambda t, z: double(z), START.double(), TIMES.double(), rtol=1e-9, atol=1e-9).states
        theirs = dopri5(lambda t, z: field(z), START, TIMES, rtol=1e-4, atol=1e-4).states
        bound = max(1e-4, float((theirs - truth).abs().max()))
        for n_steps in range(1, 100):
            ours = rk4(lambda t, z: field(z), START, TIMES, n_steps=n_steps).states
            if (ours - truth).abs().max() <= bound:
                break
    return n_steps, *(float((a - b).abs().max()) for a, b in ((ours, truth), (theirs, truth), (ours, theirs)))


def same_grid() -> float:
    """How far `rk4` is from torchdiffeq's on the same grid, in double precision."""
    from torchdiffeq import odeint

    field = field_of(1).double()
    with torch.no_grad():
        given = (lambda t, z: field(z), START.double(), TIMES.double())
        return float((rk4(*given).states - odeint(*given, method="rk4")).abs().max())


def ratios(rounds: int) -> None:
    print(f"one by dopri5 (1e-4) over each of {MEMBERS} by rk4, forward and backward; goal {GOAL}")
    for turns in TURNS:
        field = field_of(turns)
        n_steps, ours, theirs, apart = errors(field)
        parameters = stacked(field)
        single, stack, mapped = one_adaptive(field), one_axis(parameters, n_steps), by_vmap(field, parameters, n_steps)
        worst = max(float((a - b).abs().max()) for a, b in zip(stack(), mapped()))
        assert worst < 1e-5, f"the two ways differ by {worst}"
        single()
        found = []
        for _ in range(rounds):
            base = timed(single, 6)
            found.append([MEMBERS * base / timed(step, 3) for step in (stack, mapped)])
        axis, general = ([row[i] for row in found] for i in (0, 1))
        print(
            f"  {f'{turns:g} of a turn' if turns else 'untrained':<16} {n_steps:2} steps, error {ours:.0e} (dopri5 "
            f"{theirs:.0e}, apart {apart:.0e})   stack {statistics.median(axis):4.0f} ({min(axis):.0f}-{max(axis):.0f})   "
            f"vmap {statistics.median(general):4.0f} ({min(general):.0f}-{max(general):.0f})",
            flush=True,
        )
    print(f"largest difference to torchdiffeq's rk4 on the same grid: {same_grid():.0e}  goal 1e-10")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    torch.set_num_threads(1)
    ratios(rounds=3 if parser.parse_args().quick else 9)
