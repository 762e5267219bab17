"""How much of a network is left when neurons go, by this package and by what people would use instead.

    .venv/bin/python benchmarks/compression.py         (about a quarter of an hour; --quick for two or three minutes)

Every method shrinks the same trained networks, and is scored on data that neither trained nor calibrated anything.
Calibration inputs are the training inputs without their labels. A row of a table is the mean over the networks, with
the standard error, of what is lost against the whole network (points of accuracy), or of the mean squared error.
One torch thread. The data sets are those of `mspace.datasets`; MotionSense is read from where MSPACE_DATA points.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mspace import datasets, fit, seeded, train_ensemble, weight_of, windows
from mspace.models import mlp
from mspace.reduction import (
    Reduction,
    backward_elimination,
    compress,
    cost,
    harmonics,
    logits_kl,
    low_rank,
    merge,
    prune,
    rows_of,
    select_units,
    shrink,
)
from mspace.reduction.greedy import forward_selection
from mspace.reduction.least_squares import moments_of


def kmeans(rows, k, seed=0):
    from sklearn.cluster import KMeans

    return torch.from_numpy(KMeans(k, n_init=4, random_state=seed).fit_predict(rows.numpy()).astype(np.int64))


def random_labels(m, k, seed):
    """A random partition into exactly k groups."""
    labels = torch.cat([torch.arange(k), torch.randint(k, (m - k,), generator=seeded(seed))])
    return labels[torch.randperm(m, generator=seeded(seed + 1))]


def averaged_in_place(net, layer, labels):
    """The paper's recipe: rows of a cluster become their mean; biases, outgoing weights and sizes stay."""
    net = copy.deepcopy(net)
    module = net.get_submodule(layer)
    group = F.one_hot(labels).to(module.weight)
    module.weight.data = group @ ((group.T @ module.weight.data) / group.sum(0)[:, None])
    return net


def matching_pursuit(net, layer, feeds, k, x):
    """Simultaneous orthogonal matching pursuit: the unit that correlates most with what is left, then all refitted."""
    gram, cross, *_ = moments_of(net, net, feeds, x).parts()
    spread = gram.diagonal().clamp(min=1e-12).sqrt()
    chosen: list[int] = []
    left = cross
    for _ in range(k):
        score = (left / spread[:, None]).norm(dim=1)
        score[chosen] = -1
        score[gram.diagonal() <= 1e-12 * gram.diagonal().max()] = -0.5
        chosen.append(int(score.argmax()))
        theta = torch.linalg.pinv(gram[chosen][:, chosen], hermitian=True, rtol=1e-12) @ cross[chosen]
        left = cross - gram[:, chosen] @ theta
    return prune(rows_of(net, layer), chosen)


@cache
def curvature(net, layer, feeds, x):
    """Weights (p,) of both layers, and the inverse of their Gauss-Newton matrix of the cross-entropy, (p, p)."""
    names = [f"{n}.{p}" for n in (layer, feeds) for p in ("weight", "bias")]
    net = copy.deepcopy(net).double()
    own = {n: net.get_parameter(n).detach() for n in names}

    def answer(params, one):
        return torch.func.functional_call(net, params, (one[None],))[0]

    jacobian = torch.func.vmap(torch.func.jacrev(answer), in_dims=(None, 0))
    w = torch.cat([own[n].flatten() for n in names])
    hessian = torch.zeros(len(w), len(w), dtype=torch.float64)
    x = x[:: max(1, len(x) // 1000)].double()
    for part in x.split(100):
        found = jacobian(own, part)
        j = torch.cat([found[n].flatten(2) for n in names], 2).detach()
        p = net(part).softmax(1).detach()
        root = torch.diag_embed(p.sqrt()) - p.sqrt()[:, :, None] * p[:, None, :]
        j = (root @ j).reshape(-1, len(w))
        hessian += j.T @ j / len(x)
    hessian += 1e-4 * hessian.diagonal().mean() * torch.eye(len(w), dtype=torch.float64)
    return w, torch.linalg.inv(hessian)


def surgeon(net, layer, feeds, k, x):
    """Optimal brain surgeon on whole units: deleted one by one, all other weights of both layers corrected each time."""
    w, inverse = curvature(net, layer, feeds, x)
    net = copy.deepcopy(net)
    m, n_out = len(net.get_submodule(layer).weight), len(net.get_submodule(feeds).weight)
    start = net.get_submodule(layer).weight.numel() + m
    alive = list(range(m))
    out = {i: start + i + m * torch.arange(n_out) for i in alive}  # outgoing weights: without them a unit is gone
    while len(alive) > k:
        index = torch.stack([out[i] for i in alive])
        blocks = inverse[index[:, :, None], index[:, None, :]]
        price = (w[index] * torch.linalg.solve(blocks, w[index][..., None])[..., 0]).sum(1)
        index = out[alive.pop(int(price.argmin()))]
        gain = torch.linalg.solve(inverse[index][:, index], inverse[index]).T
        w = w - gain @ w[index]
        inverse = inverse - gain @ inverse[index]
        w[index] = 0
        inverse[index] = inverse[:, index] = 0
    parts = [net.get_parameter(f"{n}.{p}") for n in (layer, feeds) for p in ("weight", "bias")]
    for parameter, value in zip(parts, w.split([p.numel() for p in parts])):
        parameter.data = value.reshape(parameter.shape).to(parameter)
    return compress(net, layer, prune(rows_of(net, layer), alive), feeds)


def factorised(net, layer, feeds, budget, x, score):
    """Both layers as products of two thinner ones, in the metric of what they read, within a budget of numbers."""
    best, seen = None, {name: moments_of(net, net, name, x) for name in (layer, feeds)}
    for ranks in ((r, s) for r in range(1, 9) for s in range(1, 10)):
        small = copy.deepcopy(net)
        for name, rank in zip((layer, feeds), ranks):
            module = net.get_submodule(name)
            if rank * sum(module.weight.shape) < module.weight.numel():
                small.set_submodule(name, thin(module, rank, seen[name]))
        if cost(small[2:]).parameters <= budget and (best is None or score(small) > best[0]):
            best = score(small), small
    return None if best is None else best[1]


def thin(module, rank, moments):
    """W = left @ right of a rank, the best for the variance of the answers, with the bias as it makes means right."""
    gram, _, _, z, _ = moments.parts()
    power, axes = torch.linalg.eigh(gram)
    weight = module.weight.detach().double()
    left = torch.linalg.svd(weight @ (axes * power.clamp(min=0).sqrt()))[0][:, :rank]
    right = left.T @ weight
    first, second = nn.Linear(weight.shape[1], rank, bias=False), nn.Linear(rank, len(weight))
    first.weight.data, second.weight.data = right.to(module.weight), left.to(module.weight)
    second.bias.data = (module.bias.detach().double() + (weight - left @ right) @ z).to(module.weight)
    return nn.Sequential(first, second)


def accuracy(test):
    @torch.no_grad()
    def score(net):
        return 100 * float((net(test[0]).argmax(1) == test[1]).double().mean())

    return score


def hidden_methods(net, layer, feeds, k, x, seed, mean_labels, score, full_budget):
    """Name -> network with k units, or None where a method has no answer of that size."""
    rows = rows_of(net, layer)
    norm = rows.norm(dim=1) * net.get_submodule(feeds).weight.detach().double().norm(dim=0)
    plain = partial(compress, net, layer, feeds=feeds, rescale=False)
    fitted = partial(compress, net, layer, feeds=feeds, calibration=x)
    pick = torch.randperm(len(rows), generator=seeded(seed))[:k]
    return {
        "random merging": lambda: plain(merge(rows, random_labels(len(rows), k, seed))),
        "random pruning": lambda: plain(prune(rows, pick)),
        "random pruning + least squares": lambda: fitted(prune(rows, pick)),
        "the paper's recipe": lambda: averaged_in_place(net, layer, mean_labels),
        "magnitude": lambda: plain(prune(rows, norm.topk(k).indices)),
        "OBS": lambda: surgeon(net, layer, feeds, k, x),
        "k-means folding": lambda: plain(merge(rows, kmeans(rows, k))),
        "SVD, as many numbers": lambda: factorised(net, layer, feeds, full_budget, x, score),
        "layer-wise OBS": lambda: fitted(
            select_units(net, layer, k, feeds, calibration=x, search=backward_elimination), ridge=0
        ),
        "OMP + least squares": lambda: fitted(matching_pursuit(net, layer, feeds, k, x), ridge=0),
        "choose + compress": lambda: fitted(
            select_units(net, layer, k, feeds, calibration=x, search=forward_selection)
        ),
        "shrink, next layer's squares": lambda: shrink(net, layer, k, feeds, calibration=x),
        "shrink": lambda: shrink(net, layer, k, feeds, calibration=x, divergence=logits_kl),
    }


def hidden(title, sizes, layer, feeds, ks, cases, options, scratch_epochs):
    """Tables for a hidden layer; `cases` are (networks, train, test)."""
    table, spent = {}, {}
    epoch = []
    for nets, train, test in cases:
        score, x = accuracy(test), train[0]
        means = torch.stack([weight_of(n, layer) for n in nets]).mean(0).double()
        for i, net in enumerate(nets):
            start = time.process_time()
            fit(net, train, F.cross_entropy, **{**options, "epochs": 1}, generator=seeded(i))
            epoch.append(time.process_time() - start)
            full = score(net)
            table.setdefault(("the whole network, accuracy", 0), []).append(full)
            for k in ks:
                reader = net.get_submodule(feeds).weight.shape[0]
                budget = k * (net.get_submodule(layer).weight.shape[1] + 1 + reader) + reader
                made = hidden_methods(net, layer, feeds, k, x, 100 * i + k, kmeans(means, k), score, budget)
                for name, make in made.items():
                    start = time.process_time()
                    small = make()
                    spent.setdefault((name, k), []).append(time.process_time() - start)
                    if small is not None:
                        table.setdefault((name, k), []).append(full - score(small))
                small = fit(small, train, F.cross_entropy, **{**options, "epochs": 1}, generator=seeded(i))
                table.setdefault(("shrink + one epoch", k), []).append(full - score(small))
        dense = [name for name, m in nets[0].named_modules() if isinstance(m, nn.Linear)]
        at = 1 + dense.index(layer)
        for k in ks:
            thinner = [*sizes[:at], k, *sizes[at + 1 :]]
            given = {**options, "epochs": scratch_epochs, "init": "independent", "generator": seeded(k)}
            fresh = train_ensemble(mlp(*thinner, generator=seeded(k)), train, F.cross_entropy, len(nets), **given)
            for net, small in zip(nets, fresh):
                table.setdefault((f"from scratch, {scratch_epochs} epochs", k), []).append(score(net) - score(small))
    show(title, table, ks, "points of accuracy lost")
    whole = statistics.median(epoch)
    print(
        f"  CPU time of one training epoch {whole:.3f} s, of the compression in epochs, median over networks and sizes:"
    )
    for name in ("layer-wise OBS", "OMP + least squares", "choose + compress", "shrink"):
        print(f"    {name:<32}{statistics.median(v for k in ks for v in spent[name, k]) / whole:.2f}")


def show(title, table, ks, unit):
    print(f"\n{title}: {unit}, mean (standard error)")
    print(f"  {'neurons':<34}" + "".join(f"{k:>16}" for k in ks))
    for name in dict.fromkeys(name for name, _ in table):
        cells = [table.get((name, k)) or table.get((name, 0) if k == ks[0] else (None, 0)) for k in ks]
        print(f"  {name:<34}" + "".join(f"{_cell(c):>16}" for c in cells), flush=True)


def _cell(values):
    if not values:
        return "-"
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    digits = 4 if isinstance(values[0], Small) else 2
    return f"{statistics.mean(values):.{digits}f} ({error:.{digits}f})"


class Small(float):
    """A number shown with four digits."""


def iris(n):
    """4-128-3: n stratified splits, standardised by the training part, two networks on each."""
    table = datasets.iris()
    cases = []
    for i in range(n):
        order = torch.randperm(50, generator=seeded(i))
        held = torch.cat([50 * c + order[:15] for c in range(3)])
        seen = torch.cat([50 * c + order[15:] for c in range(3)])
        x = (table.inputs - table.inputs[seen].mean(0)) / table.inputs[seen].std(0)
        train, test = ((x[j].float(), table.targets[j]) for j in (seen, held))
        ens = train_ensemble(mlp(4, 128, 3, generator=seeded(i)), train, F.cross_entropy, 3, init="independent", epochs=100,
                             generator=seeded(i))  # fmt: skip
        cases.append((list(ens), train, test))
    hidden("Iris 4-128-3", (4, 128, 3), "0", "2", (12, 8, 6, 4, 3), cases, {"batch_size": 16}, 100)


def digits(n):
    """784-8-100-10 and 784-300-100-10 on 5000 digits, a fifth of them held out."""
    table = datasets.mnist()
    order = torch.randperm(5000, generator=seeded(1))
    x, y = table.inputs[order].float(), table.targets[order]
    train, test = (x[:4000], y[:4000]), (x[4000:], y[4000:])
    options = {"batch_size": 32}
    shared = {**options, "init": "independent", "epochs": 20, "generator": seeded(0)}
    nets = list(train_ensemble(mlp(784, 8, 100, 10, generator=seeded(0)), train, F.cross_entropy, n, **shared))
    sizes = (784, 8, 100, 10)
    hidden("MNIST 784-8-100-10", sizes, "2", "4", (40, 20, 10, 8, 5), [(nets, train, test)], options, 20)
    wide(list(train_ensemble(mlp(784, 300, 100, 10, generator=seeded(0)), train, F.cross_entropy, n,
                             **{**shared, "epochs": 8})), train[0], accuracy(test))  # fmt: skip


def wide(nets, x, score):
    """Both hidden layers halved, no labels used."""
    table = {}
    halves = {"0": (150, "2"), "2": (50, "4")}

    def chain(net, make):
        for layer, (k, feeds) in halves.items():
            net = make(net, layer, k, feeds)
        return net

    def magnitude(net, layer, k, feeds):
        rows = rows_of(net, layer)
        worth = rows.norm(dim=1) * net.get_submodule(feeds).weight.detach().double().norm(dim=0)
        return compress(net, layer, prune(rows, worth.topk(k).indices), feeds)

    def folding(net, layer, k, feeds):
        rows = rows_of(net, layer)
        return compress(net, layer, merge(rows, kmeans(rows, k)), feeds, rescale=False)

    for net in nets:

        def chosen(small, layer, k, feeds, net=net):
            found = select_units(small, layer, k, feeds, calibration=x)
            return compress(small, layer, found, feeds, calibration=x, teacher=net)

        def shrunk(small, layer, k, feeds, net=net):
            options = {"calibration": x, "teacher": net, "divergence": logits_kl}
            return shrink(small, layer, k, feeds, steps=0 if layer == "0" else 30, **options)

        table.setdefault(("the whole network, accuracy", 0), []).append(score(net))
        methods = {"magnitude": magnitude, "k-means folding": folding, "choose + compress": chosen, "shrink": shrunk}
        for name, make in methods.items():
            table.setdefault((name, 200), []).append(score(net) - score(chain(net, make)))
    show("MNIST 784-300-100-10 to 784-150-50-10", table, (200,), "points of accuracy lost")


def motion(n):
    """100-10-100 on walking: the rows of the output layer; two walks to train, the third held out."""
    parts = [windows(s.float(), 100) for s in datasets.walking().series]
    x, test = torch.cat(parts[:2]), parts[2]
    ens = list(train_ensemble(mlp(100, 10, 100, generator=seeded(0)), (x, x), F.mse_loss, n, init="independent", epochs=5,
                              generator=seeded(1)))  # fmt: skip
    means = torch.stack([weight_of(net, "2") for net in ens]).mean(0).double()
    ks, table, numbers = (4, 10, 20, 30, 40, 60, 80), {}, {}

    @torch.no_grad()
    def score(net):
        return Small((net(test) - test).square().mean())

    for i, net in enumerate(ens):
        rows = rows_of(net, "2")
        gram, _, _, z, _ = moments_of(net, net, "2", x).parts()
        moment = torch.block_diag(gram + torch.outer(z, z), torch.ones(1, 1, dtype=gram.dtype))
        moment[:-1, -1] = moment[-1, :-1] = z
        table.setdefault(("the whole network", 0), []).append(score(net))
        for k in ks:
            own = partial(compress, net, "2")
            rank = (11 * k) // (100 + 11)
            made = {
                "random merging": own(merge(rows, random_labels(100, k, 10 * i + k))),
                "the paper's recipe": averaged_in_place(net, "2", kmeans(means, k)),
                "k-means of its own rows": averaged_in_place(net, "2", kmeans(rows[:, :-1], k)),
                "SVD, as many numbers": own(low_rank(rows, rank, moment=moment)) if rank else None,
                "shared rows by their answers": own(_by_answers(rows, moment, k)),
                "harmonics": own(harmonics(rows, k)),
                "shrink": shrink(net, "2", k, calibration=x),
            }
            for name, small in made.items():
                if small is not None:
                    table.setdefault((name, k), []).append(score(small))
                    counted = cost(small[2])
                    extra = (10 * k + 100, 100) if "recipe" in name or "own rows" in name else (0, 0)
                    numbers[name, k] = f"{extra[0] or counted.parameters}+{extra[1] or counted.indices}"
    show("MotionSense 100-10-100, output layer", table, ks, "mean squared error, held out")
    print("  numbers stored in the output layer (1100 at first), + indices")
    for name in dict.fromkeys(name for name, _ in numbers):
        print(f"  {name:<34}" + "".join(f"{numbers.get((name, k), '-'):>16}" for k in ks))


def _by_answers(rows, moment, k) -> Reduction:
    power, axes = torch.linalg.eigh(moment)
    return merge(rows, kmeans(rows @ (axes * power.clamp(min=0).sqrt()), k))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two networks of each kind")
    parser.add_argument("--only", choices=("iris", "digits", "motion"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, run in (("iris", iris), ("motion", motion), ("digits", digits)):
        if given.only in (None, name):
            run(2 if given.quick else 5)
