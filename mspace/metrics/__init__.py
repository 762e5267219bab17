"""Distances between Gaussian neurons, each with the barycenter that belongs to it.

`wasserstein2` takes any covariance; `jeffreys`, `hellinger` and `fisher_rao` need full rank and no unit;
`euclidean` sees means alone; `functional` compares what neurons compute. A `Metric` of one's own is two functions.
"""

from .fisher_rao import fisher_rao
from .information import hellinger, jeffreys
from .metric import Metric, euclidean, functional, wasserstein2
from .tests import debiased, merge_test, split_half
from .wasserstein import geodesic

__all__ = [
    "Metric",
    "debiased",
    "euclidean",
    "fisher_rao",
    "functional",
    "geodesic",
    "hellinger",
    "jeffreys",
    "merge_test",
    "split_half",
    "wasserstein2",
]
