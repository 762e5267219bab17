"""Clusters and communities of neurons, whether they are found again, and what merging them costs.

`KMeans` works in any metric that has a barycenter. For a metric without one, take its distances: `communities` need no more,
nor does `scipy.cluster.hierarchy.linkage(squareform(metric(neurons)), "average")`.
"""

from .communities import Communities, communities, modularity
from .kmeans import KMeans
from .last_layer import loss_curve
from .stability import Stability, resampled

__all__ = [
    "Communities",
    "KMeans",
    "Stability",
    "communities",
    "loss_curve",
    "modularity",
    "resampled",
]
