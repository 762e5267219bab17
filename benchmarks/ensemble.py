"""What training a hundred networks side by side costs, against one network in a lean loop.

    .venv/bin/python benchmarks/ensemble.py            (about three minutes; --quick for one)

One torch thread, batch 16, Adam. A ratio is the CPU time of one step of ALL 100 members over one step of ONE
network in a lean loop (tensors ready, default Adam), the median of rounds in which the two take turns. So 2.0
means that the hundred cost as much as two. Last, wall time in two processes against one.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from mspace import bootstrap
from mspace.training.loop import stack_of
from mspace.training.options import FusedAdam
from mspace.training.stacks import BatchedStack

MEMBERS, BATCH = 100, 16
GOALS = {  # layers: ratio in float32, in float64
    (20, 3, 20): (0.45, 0.8),
    (100, 3, 100): (1.4, 2.4),
    (100, 10, 100): (1.9, 3.2),
    (4, 128, 3): (2.0, 3.4),
    (784, 8, 100, 10): (5.0, 8.0),
}


def problem(sizes, dtype):
    """A network, its data and its loss: windows of a series onto themselves, or classes."""
    torch.manual_seed(0)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    net = nn.Sequential(*layers[:-1]).to(dtype)
    if sizes[0] == sizes[-1]:
        x = torch.randn(11_000 + sizes[0], dtype=dtype).unfold(0, sizes[0], 1)
        return net, x, x, F.mse_loss
    x = torch.randn(2000, sizes[0], dtype=dtype)
    return net, x, torch.randint(sizes[-1], (2000,)), F.cross_entropy


def timed(step, steps: int) -> float:
    """CPU seconds a step."""
    start = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - start) / steps


def lean(net, x, y, loss):
    """A step of one network, as short as it can be written."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step():
        index = torch.randint(len(x), (BATCH,))
        optimizer.zero_grad()
        loss(net(x[index]), y[index]).backward()
        optimizer.step()

    return step


def side_by_side(net, x, y, loss, kind=None):
    """A step of all members; `kind` forces a way, else the package chooses."""
    stacked = {k: v.detach().expand(MEMBERS, *v.shape).clone() for k, v in net.named_parameters()}
    stack = stack_of(net, stacked, x, y, loss, [0] * MEMBERS) if kind is None else kind(net, stacked, x, y, loss)
    optimizer = FusedAdam(stack.flat)

    def step():
        stack.gradient(torch.randint(len(x), (MEMBERS, BATCH)))
        optimizer.step()

    return step


def ratios(rounds: int, steps: int) -> None:
    """The table of ratios."""
    print(f"{MEMBERS} members, batch {BATCH}: CPU of a step of all over a step of one, median (range)")
    for sizes, goals in GOALS.items():
        for dtype, goal in zip((torch.float32, torch.float64), goals):
            given = problem(sizes, dtype)
            one, many, general = lean(*given), side_by_side(*given), side_by_side(*given, BatchedStack)
            for step in (one, many, general):
                timed(step, 5)
            rows = []
            for _ in range(rounds):
                base = timed(one, 2 * steps)
                rows.append((timed(many, steps) / base, timed(general, max(5, steps // 8)) / base))
            fast, slow = ([r[i] for r in rows] for i in (0, 1))
            name = "-".join(map(str, sizes)) + (" float32" if dtype is torch.float32 else " float64")
            print(
                f"  {name:<22} {statistics.median(fast):5.2f} ({min(fast):.2f}-{max(fast):.2f})  goal {goal:<4}"
                f"   by vmap {statistics.median(slow):5.1f}"
                f"   over one after another {MEMBERS / statistics.median(fast):4.0f} x",
                flush=True,
            )


def processes(rounds: int) -> None:
    """Wall time of a bootstrap in one process and in two."""
    net, x, _y, loss = problem((100, 10, 100), torch.float32)
    found = []
    for _ in range(rounds + 1):
        wall = []
        for n_jobs in (1, 2):
            start = time.perf_counter()
            bootstrap(net, (x, x), loss, n_models=100, chunk=50, block=100, epochs=3, n_jobs=n_jobs)
            wall.append(time.perf_counter() - start)
        found.append(wall[0] / wall[1])
    found = found[1:]  # the first one started the workers
    print(f"two processes over one: {statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})  goal 1.7")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    ratios(rounds=3 if quick else 7, steps=60 if quick else 150)
    processes(rounds=1 if quick else 3)
