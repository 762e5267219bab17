"""Do 95 % intervals of the estimators, with their defaults, cover the truth in 93 to 97 % of data sets?

    python benchmarks/coverage.py                      300 data sets for each problem (an hour on two cores)
    python benchmarks/coverage.py --sets 40 --methods bootstrap sandwich

Linear, logistic, Poisson and tanh regression, n = 200, well specified. A network starts at the truth and is brought to its
minimum by `refine`; an interval is its parameter, or the posterior's mean, plus and minus 1.96 standard deviations. Printed
is the share of intervals that hold the truth, over data sets and parameters, with its standard error over data sets.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import mspace as ms

N = 200
NOISE = 0.3


def dense(*sizes: int) -> nn.Sequential:
    """Return dense layers with tanh between them, in double precision."""
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


def poisson(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of counts."""
    return F.poisson_nll_loss(output, target)


# by name: the network, its true parameters, the loss, and how targets are drawn
PROBLEMS: dict[str, tuple[Callable, list[float], Callable, Callable]] = {
    "linear": (
        lambda: dense(3, 1),
        [1.0, -0.5, 0.3, 0.2],
        F.mse_loss,
        lambda out, g: out + NOISE * torch.randn(out.shape, generator=g, dtype=out.dtype),
    ),
    "logistic": (
        lambda: dense(3, 1),
        [1.0, -0.5, 0.3, 0.2],
        F.binary_cross_entropy_with_logits,
        lambda out, g: torch.bernoulli(torch.sigmoid(out), generator=g),
    ),
    "poisson": (
        lambda: dense(3, 1),
        [0.5, -0.3, 0.2, 0.7],
        poisson,
        lambda out, g: torch.poisson(out.exp(), generator=g),
    ),
    "tanh": (
        lambda: dense(1, 2, 1),
        [2.0, 1.5, -2.0, 1.5, 1.5, -1.0, 0.3],
        F.mse_loss,
        lambda out, g: out + NOISE * torch.randn(out.shape, generator=g, dtype=out.dtype),
    ),
}
METHODS: dict[str, Callable] = {
    "bootstrap": lambda net, data, loss, g: ms.bootstrap(net, data, loss, generator=g),
    "sandwich": lambda net, data, loss, g: ms.sandwich(net, data, loss),
    "laplace": lambda net, data, loss, g: ms.laplace(net, data, loss),
    "online": lambda net, data, loss, g: ms.online(net, data, loss, generator=g),
    "variational": lambda net, data, loss, g: ms.variational(net, data, loss, generator=g),
}


def covered(problem: str, method: str, seed: int) -> Tensor:
    """Return for each parameter whether its interval from one data set holds the truth."""
    make, truth, loss, draw = PROBLEMS[problem]
    net, right, g = make(), torch.tensor(truth, dtype=torch.float64), ms.seeded(seed)
    vector_to_parameters(right, net.parameters())
    x = torch.randn(N, net[0].in_features, generator=g, dtype=torch.float64)
    with torch.no_grad():
        data = x, draw(net(x), g)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = ms.refine(copy.deepcopy(net), data, loss)
        result = METHODS[method](net, data, loss, g)
    if isinstance(result, ms.Ensemble):
        centre = parameters_to_vector(net.parameters()).detach()
        spread = torch.cat([v.reshape(len(result), -1).std(0) for v in result.parameters.values()])
    else:
        centre, spread = result.mean, torch.cat([v.reshape(-1) for v in result.variance().values()]).sqrt()
    return (centre - right).abs() <= 1.96 * spread


def coverage(problem: str, method: str, sets: int, n_jobs: int = 2) -> tuple[float, float]:
    """Return the share of intervals that hold the truth, and its standard error over data sets."""
    held = torch.stack(Parallel(n_jobs=n_jobs)(delayed(covered)(problem, method, 1000 + i) for i in range(sets)))
    by_set = held.double().mean(1)
    return float(by_set.mean()), float(by_set.std() / sets**0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=PROBLEMS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':12s}" + "".join(f"{p:>16s}" for p in chosen.problems))
    for method in chosen.methods:
        cells = (coverage(p, method, chosen.sets) for p in chosen.problems)
        print(f"{method:12s}" + "".join(f"   {share:.3f} ± {error:.3f}" for share, error in cells), flush=True)
