"""What variational Bayes costs: training a network, and a hundred side by side, against bayesian-torch.

    python -m venv peer && peer/bin/pip install torch==2.13.0 numpy && peer/bin/pip install --no-deps bayesian-torch==0.5.0
    .venv/bin/python benchmarks/variational.py --peer peer/bin/python        (about two minutes)

100-3-100 and 100-10-100 networks on windows of a series, float32, batch 16, one thread. Every figure is the CPU time of
a fresh process for a step, its first steps left out; ours and the peer take turns, and ratios are the median over rounds.
Ours pays for shuffling, and for looking at all data in the end; the peer's loop is as short as it can be written: tensors
ready, mean-field layers, their divergence, and Adam, as it comes and fused.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES, BATCH, N = ((100, 3, 100), (100, 10, 100)), 16, 11_000
GOALS = {1: 1.5, 100: 30}
FAMILIES = ("diagonal", "full", "low_rank")


def problem(sizes):
    """A network and windows of a noisy sine to be reproduced."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    a, b, c = sizes
    t = torch.arange(N + a - 1)
    x = (torch.sin(t / 5) + 0.3 * torch.randn(len(t))).unfold(0, a, 1)
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c)), x


def ours(sizes, family: str, n_models: int) -> float:
    """CPU seconds of a step of all networks, everything included."""
    import torch.nn.functional as F

    from mspace.checks import seeded
    from mspace.posterior.variational import variational_ensemble

    net, x = problem(sizes)

    def run(data, epochs):
        start = time.process_time()
        options = {"family": family, "batch_size": BATCH, "epochs": epochs, "generator": seeded(0)}
        variational_ensemble(net, (data, data), F.mse_loss, n_models, **options)
        return time.process_time() - start

    run(x[: 20 * BATCH], 1)
    epochs = 2 if n_models == 1 else 1
    return run(x, epochs) / (epochs * -(-N // BATCH))


def peer(sizes, fused: str, steps: int) -> float:
    """CPU seconds of a step of one network by bayesian-torch, mean field."""
    import torch
    import torch.nn.functional as F
    from bayesian_torch.layers import LinearReparameterization
    from bayesian_torch.models.dnn_to_bnn import get_kl_loss
    from torch import nn

    _, x = problem(sizes)
    a, b, c = sizes

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = LinearReparameterization(a, b), LinearReparameterization(b, c)

        def forward(self, x):
            hidden, _ = self.first(x)
            out, _ = self.last(torch.relu(hidden))
            return out

    net = Net()
    move = torch.optim.Adam(net.parameters(), lr=1e-3, **({"fused": True} if fused == "fused" else {}))
    order = torch.randperm(N).split(BATCH)

    def step(index):
        rows = x.index_select(0, index)
        move.zero_grad()
        (F.mse_loss(net(rows), rows) + get_kl_loss(net) / N).backward()
        move.step()

    for index in order[:20]:
        step(index)
    start = time.process_time()
    for i in range(steps):
        step(order[i % len(order)])
    return (time.process_time() - start) / steps


def measure(python: str, *args) -> float:
    """One fresh process with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    root = str(Path(__file__).resolve().parent.parent)
    env = os.environ | one | ({"PYTHONPATH": root} if args[0] == "ours" else {})
    out = subprocess.run([python, __file__, "--worker", *map(str, args)], capture_output=True, text=True, env=env)
    if out.returncode:
        raise SystemExit(f"{args} failed:\n{out.stderr}")
    return json.loads(out.stdout.splitlines()[-1])


def main(python: str | None, rounds: int) -> None:
    """The table; without a peer, our families against the diagonal one."""
    for at, sizes in enumerate(SIZES):
        runs = []
        for _ in range(rounds):
            own = {(f, n): measure(sys.executable, "ours", at, f, n) for f in FAMILIES for n in GOALS}
            theirs = {k: measure(python, "peer", at, k, 1000) for k in ("plain", "fused")} if python else {}
            runs.append((own, theirs))
        print(f"{'-'.join(map(str, sizes))}, a step of all networks, microseconds of CPU")
        for (family, n), _ in runs[0][0].items():
            own = statistics.median(r[0][family, n] for r in runs)
            line = f"  {family:<9} {n:>3} networks {1e6 * own:9.0f}"
            for kind in runs[0][1]:
                ratio = [n * r[1][kind] / r[0][family, n] for r in runs]
                line += f"   {kind} peer/ours {statistics.median(ratio):6.1f} ({min(ratio):.1f}-{max(ratio):.1f})"
            goal = f"   goal >= {GOALS[n]}" if family == "diagonal" and python else ""
            print(line + goal, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has torch and bayesian-torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        who, at, kind, count = options.worker
        print(json.dumps({"ours": ours, "peer": peer}[who](SIZES[int(at)], kind, int(count))))
    else:
        main(options.peer, options.rounds)
