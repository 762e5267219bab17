"""What clusters of neurons cost: k-means in the Wasserstein metric, and the loss against the number of clusters.

    python -m venv peer && peer/bin/pip install "numpy<1.24" "scipy<1.12" "matplotlib<3.9" pillow
    peer/bin/pip install --no-deps pyclustering==0.10.1.2
    .venv/bin/python benchmarks/clusters.py --peer peer/bin/python        (some minutes; seconds without --peer)

One thread, CPU time; both sides take turns, and a ratio is the median of the rounds.

k-means: the paper's authors gave pyclustering the vectors [mean, covariance, flattened] and the distance between two of
them, by `scipy.linalg.sqrtm`; its centers are then arithmetic means. Both begin at the same neurons: once at
random ones, and ten times at those that our seeding finds (which only our time holds), where the best counts. Ours runs
with such centers, which is the same algorithm, and with barycenters, which is more work. From
random neurons a cluster may lose all of its own: pyclustering drops it, ours fills it, and the clusters differ. The old
numpy is one that pyclustering can run with.

Loss: the authors averaged rows and validated with a DataLoader, once for each number of clusters.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time

M, K = 100, 10
GOALS = {3: 100, 10: 25}
GOAL_CURVE = 150


def recipe(job: dict) -> dict:
    """The authors' k-means, in the peer's process."""
    import numpy as np
    from pyclustering.cluster.kmeans import kmeans
    from pyclustering.utils.metric import distance_metric, type_metric
    from scipy.linalg import sqrtm

    n = job["n"]

    def distance(a, b):
        first, second = a[n:].reshape(n, n), b[n:].reshape(n, n)
        root = sqrtm(first)
        cross = np.real(np.trace(sqrtm(root @ second @ root)))
        squared = np.sum((a[:n] - b[:n]) ** 2) + np.trace(first) + np.trace(second) - 2 * cross
        return np.sqrt(max(squared, 0))

    vectors = np.array(job["vectors"])
    metric = distance_metric(type_metric.USER_DEFINED, func=distance)
    distance(vectors[0], vectors[1])
    cpu, best = [], (np.inf, None)
    for first in job["starts"]:
        start = time.process_time()
        found = kmeans(vectors, [vectors[i] for i in first], tolerance=0.001, metric=metric, ccore=False).process()
        cpu.append(time.process_time() - start)
        labels, inertia = [0] * len(vectors), 0.0
        for label, members in enumerate(found.get_clusters()):
            for i in members:
                labels[i], inertia = label, inertia + distance(vectors[i], np.array(found.get_centers()[label])) ** 2
        best = min(best, (inertia, labels))
    return {"cpu": cpu, "labels": best[1]}


def population(n: int, seed: int):
    """Neurons in K groups with a mean and a covariance each."""
    import torch

    from mspace.neurons import NeuronDistribution

    g = torch.Generator().manual_seed(seed)
    label = torch.arange(M) % K
    center = 2 * torch.randn(K, n, generator=g, dtype=torch.float64)
    factor = torch.randn(K, n, n, generator=g, dtype=torch.float64)[label]
    own = center[label] + 0.4 * torch.randn(M, n, generator=g)
    draws = torch.einsum("mij,smj->smi", factor, torch.randn(100, M, n, generator=g).double()) + own
    return NeuronDistribution.from_samples(draws)


def run_peer(python: str, job: dict) -> dict:
    """A fresh process with one thread."""
    env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [python, __file__, "--worker"]
    out = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=env)
    if out.returncode:
        raise SystemExit(f"the peer failed:\n{out.stderr}")
    return json.loads(out.stdout.splitlines()[-1])


def clusters(python: str, rounds: int) -> None:
    """The table of k-means."""
    import torch
    from sklearn.metrics import adjusted_rand_score

    from mspace.clustering import KMeans
    from mspace.clustering.kmeans import seeds
    from mspace.metrics import Metric, euclidean, wasserstein2
    from mspace.training import member_seeds

    arithmetic = Metric(wasserstein2.distance, euclidean.center, name="arithmetic centers")
    print(f"k-means with the Wasserstein distance, {M} neurons, {K} clusters: CPU of pyclustering over ours")
    for n, goal in GOALS.items():
        for starts in (1, 10):
            ratios, same = ({m.name: [] for m in (arithmetic, wasserstein2)} for _ in range(2))
            for r in range(rounds):
                p = population(n, r)
                first = torch.randperm(M, generator=torch.Generator().manual_seed(r))[:K]
                if starts > 1:
                    first = seeds(p, wasserstein2, K, member_seeds(starts, torch.Generator().manual_seed(r)))[1]
                vectors = torch.cat([p.mean, p.cov.flatten(1)], 1).tolist()
                peer = run_peer(python, {"n": n, "vectors": vectors, "starts": first.view(starts, K).tolist()})
                for metric in (arithmetic, wasserstein2):
                    for _ in range(2):  # the first to warm up
                        generator, before = torch.Generator().manual_seed(r), time.process_time()
                        given = {"start": p[first]} if starts == 1 else {"n_init": starts, "generator": generator}
                        labels = KMeans(K, metric=metric, **given).fit_predict(p)
                        cpu = time.process_time() - before
                    ratios[metric.name].append(sum(peer["cpu"]) / cpu)
                    same[metric.name].append(adjusted_rand_score(peer["labels"], labels) == 1)
            for name, r in ratios.items():
                print(
                    f"  R^{n:<3} {starts:>2} start{'s' * (starts > 1):<1} {name:<20} {statistics.median(r):6.0f} x "
                    f"({min(r):.0f} to {max(r):.0f}, goal {goal})   the same clusters in {sum(same[name])} of {rounds}",
                    flush=True,
                )


def curve(rounds: int) -> None:
    """The loss after merging output units of 100-10-100, for 20 numbers of clusters."""
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    from mspace.clustering import loss_curve

    g = torch.Generator().manual_seed(0)
    x = torch.randn(11_000, 100, generator=g)
    y = torch.randn(11_000, 100, generator=g)
    net = nn.Sequential(nn.Linear(100, 10), nn.ReLU(), nn.Linear(10, 100))
    partitions = [torch.randint(k, (100,), generator=g) for k in range(1, 101, 5)]

    def merged(labels):
        changed = copy.deepcopy(net)
        with torch.no_grad():
            for p in changed[2].parameters():
                for label in labels.unique():
                    p[labels == label] = p[labels == label].mean(0)
        return changed

    @torch.no_grad()
    def validate(network):
        total = 0.0
        for inputs, targets in DataLoader(TensorDataset(x, y), batch_size=16):
            total += float(functional.mse_loss(network(inputs), targets)) * len(inputs)
        return total / len(x)

    @torch.no_grad()
    def at_once(network):
        return float(functional.mse_loss(network(x), y))

    ratios: tuple[list, list] = ([], [])
    loss_curve(net, "2", (x, y), partitions)
    for _ in range(rounds):
        times, found = [], []
        for way in (
            lambda: loss_curve(net, "2", (x, y), partitions).tolist(),
            lambda: [validate(merged(p)) for p in partitions],
            lambda: [at_once(merged(p)) for p in partitions],
        ):
            start = time.process_time()
            found.append(way())
            times.append(time.process_time() - start)
        for ratio, other in zip(ratios, times[1:]):
            ratio.append(other / times[0])
        apart = max(abs(a - b) for a, b in zip(found[0], found[1]))
    loader, whole = (statistics.median(r) for r in ratios)
    print("Loss against clusters, 100-10-100, 11 000 examples, 20 numbers of clusters: CPU over ours")
    print(
        f"  DataLoader, batches of 16: {loader:.0f} x (goal {GOAL_CURVE})   one batch: {whole:.1f} x   apart {apart:.0e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has pyclustering")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(recipe(json.loads(sys.stdin.read()))))
    else:
        import torch

        torch.set_num_threads(1)
        if options.peer:
            clusters(options.peer, options.rounds)
        curve(max(3, options.rounds // 2))
