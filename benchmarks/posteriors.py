"""What the covariance of a network's parameters costs, method by method.

    .venv/bin/python benchmarks/posteriors.py            (about three minutes; --quick for one; parts by name)

One torch thread, float64. Ratios are of CPU time, the median of rounds in which both sides take turns.

sandwich: 10,000 windows of a noisy series onto themselves, through one hidden layer of ReLUs. The yardstick is one
product G.T @ G of as many gradients. A double backward is timed on a few of its rows and counted for all; they cost the
same. Memory is that of a fresh process above what it held before, the covariance included.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

import mspace as ms
from mspace.posterior import sandwich
from mspace.posterior.gradients import Grams, rows_of
from mspace.posterior.gram import Curvature
from mspace.posterior.problem import Problem

WINDOWS, WIDTH, ROWS = 10_000, 100, 4
MEMORY = {3: 60, 10: 160}  # hidden units: megabytes


def problem(hidden: int):
    """A network trained on windows of a series, and the windows."""
    t = torch.arange(WINDOWS + WIDTH - 1.0, dtype=torch.float64)
    waves = torch.sin(t / 2.1) + 0.7 * torch.sin(t / 4.3 + 1) + 0.5 * torch.sin(t / 8.7)
    x = ms.windows(waves + 0.5 * torch.randn(len(t), generator=ms.seeded(0), dtype=torch.float64), WIDTH)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, WIDTH)).double()
    return ms.fit(net, (x, x), F.mse_loss, epochs=3, generator=ms.seeded(1)), x


def timed(step) -> tuple[float, object]:
    """CPU seconds, and what it gave."""
    start = time.process_time()
    found = step()
    return time.process_time() - start, found


def double_backward(net, x) -> tuple[float, torch.Tensor]:
    """CPU seconds of the whole matrix, from a few rows; and those rows."""
    parameters = list(net.parameters())
    count = sum(p.numel() for p in parameters)

    def rows(start):
        slopes = torch.autograd.grad(F.mse_loss(net(x), x), parameters, create_graph=True)
        slope, found = torch.cat([s.reshape(-1) for s in slopes]), []
        for i in range(start, start + ROWS):
            row = torch.autograd.grad(slope[i], parameters, retain_graph=True)
            found.append(torch.cat([r.reshape(-1) for r in row]))
        return torch.stack(found)

    first, second = timed(lambda: rows(0)), timed(lambda: rows(count - 30))
    return (first[0] + second[0]) / 2 / ROWS * count, torch.cat([first[1], second[1]])


def by_vmap(net, x):
    """The mean outer product of gradients in three lines of torch."""
    held = {k: p.detach() for k, p in net.named_parameters()}
    one = vmap(grad(lambda p, a: F.mse_loss(functional_call(net, p, (a[None],)), a[None])), in_dims=(None, 0))
    total = 0.0
    for part in x.split(2000):
        rows = torch.cat([g.flatten(1) for g in one(held, part).values()], 1)
        total = total + rows.T @ rows
    return total / len(x)


def by_rows(made: Problem):
    """Ours."""
    net, grams = rows_of(made), Grams([torch.arange(made.size)[None]])
    for x, y, _ in made.pieces(net.chunk):
        grams.add(net.rows(made.outputs.slope(net.at(x), y)))
    return grams.finish()[0][0] / len(made)


def memory(hidden: int) -> float:
    """Megabytes that a sandwich takes at its height, in this process."""
    net, x = problem(hidden)
    run = lambda windows, **options: sandwich(net, (windows, windows), F.mse_loss, dependence=0, **options)  # noqa: E731
    run(x[:200], structure="diagonal", conditional=True)
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1])
    posterior = run(x)
    after = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return (after - before) / 1e3 if len(posterior) else 0.0


def one_round(made: Problem, g: torch.Tensor) -> tuple[dict[str, float], dict[str, float], dict]:
    """Ratios, differences from the peers, and what the sandwich says of itself."""
    net, x = made.net, made.x
    scopes = [torch.arange(made.size)[None]]
    product = timed(lambda: g.T @ g)[0]
    a_time, a = timed(lambda: Curvature(made, scopes, 5000).hessian()[0][0])
    s_time, s = timed(lambda: by_rows(made))
    slow, rows = double_backward(net, x)
    peer, s_peer = timed(lambda: by_vmap(net, x))
    whole, posterior = timed(lambda: sandwich(net, (x, x), F.mse_loss))
    damped = timed(lambda: sandwich(net, (x, x), F.mse_loss, damping=1e-3, curvature="gauss_newton"))[0]
    some = [*range(ROWS), *range(made.size - 30, made.size - 30 + ROWS)]
    gaps = {"second": (a[some] - rows).abs().max() / a.abs().max(), "outer": (s - s_peer).abs().max() / s.abs().max()}
    ratios = {"second": slow / a_time, "outer": peer / s_time, "both": (a_time + s_time) / product}
    return ratios | {"whole": whole / product, "damped": damped / product}, gaps, posterior.report


def sandwich_part(quick: bool) -> None:
    """The table of the sandwich."""
    for hidden, most in MEMORY.items():
        net, x = problem(hidden)
        made = Problem.of(net, (x, x), F.mse_loss, None)
        g = torch.randn(WINDOWS, made.size, generator=ms.seeded(2), dtype=torch.float64)
        rounds = [one_round(made, g) for _ in range(3 if quick else 7)]
        call = [sys.executable, __file__, "--memory", str(hidden)]
        held = float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        print(f"sandwich 100-{hidden}-100, {made.size} parameters, {WINDOWS} windows")
        for key, what, goal in (
            ("second", "second derivative: row-by-row double backward over ours", ">= 500"),
            ("outer", "outer products: vmap and a product over ours", ">= 1.5"),
            ("both", "both over one product G.T @ G", "<= 1.5"),
            ("whole", "the whole sandwich over that product", "<= 1.5"),
            ("damped", "the same by a damped Gauss-Newton matrix", ""),
        ):
            v = [r[0][key] for r in rounds]
            off = f", differ by {max(float(r[1][key]) for r in rounds):.0e}" if key in rounds[0][1] else ""
            told = f"{statistics.median(v):.3g} ({min(v):.3g}-{max(v):.3g})"
            print(f"  {what:<56} {told:>20}   {f'goal {goal}' if goal else ''}{off}")
        report = rounds[0][2]
        print(f"  memory of the whole sandwich {held:.0f} MB   goal <= {most}")
        print(
            f"  {report['negative']} negative eigenvalues, {report['gauge']} symmetries: by {report['curvature']}",
            flush=True,
        )


PARTS = {"sandwich": sandwich_part}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="inputs are overlapping windows")
    if options.memory:
        print(memory(options.memory))
    else:
        for part in options.parts or PARTS:
            PARTS[part](options.quick)
