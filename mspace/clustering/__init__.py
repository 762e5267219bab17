"""Clusters of neurons, how many there are, and what merging them costs.

`KMeans` works in any metric that has a barycenter; `k_medoids` and `agglomerative` need distances alone. `choose_k`
reports what speaks for each number of clusters, `Stability` whether an ensemble finds the same ones again, and
`loss_curve` what merging does to the loss of a last layer.
"""

from .choice import Choice, choose_k
from .distances import agglomerative, as_distances, k_medoids
from .kmeans import KMeans
from .last_layer import QuadraticLoss, loss_curve
from .null import structureless
from .stability import Stability, resampled

__all__ = [
    "Choice",
    "KMeans",
    "QuadraticLoss",
    "Stability",
    "agglomerative",
    "as_distances",
    "choose_k",
    "k_medoids",
    "loss_curve",
    "resampled",
    "structureless",
]
