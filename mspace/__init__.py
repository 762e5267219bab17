"""Neurons as random vectors: the metric space of a network's parameters, from series to smaller networks."""

from . import datasets
from .alignment import align
from .checks import normal, seeded
from .clustering import KMeans, communities
from .diagnose import diagnose
from .distillation import distill, drop_layer, drop_neurons
from .metrics import Metric, euclidean, fisher_rao, functional, hellinger, jeffreys, wasserstein2
from .neurons import NeuronDistribution, weight_of
from .posterior import (
    GaussianPosterior,
    bootstrap,
    bootstrap_neurons,
    calibration,
    laplace,
    online,
    predict,
    sandwich,
    variational,
)
from .reduction import Reduction, compose, compress, merge, prune, rows_of, shrink, tradeoff
from .selection import qpfs, relevance
from .series import (
    Skill,
    autocorrelation,
    average,
    dominant_period,
    forecast,
    persistence,
    ridge_ar,
    rolling_origin,
    seasonal_naive,
    split,
    windows,
)
from .ssa import SSA
from .threads import limit_threads
from .training import Ensemble, fit, refine, train_ensemble

__version__ = "0.1.0"

__all__ = [
    "SSA",
    "Ensemble",
    "GaussianPosterior",
    "KMeans",
    "Metric",
    "NeuronDistribution",
    "Reduction",
    "Skill",
    "__version__",
    "align",
    "autocorrelation",
    "average",
    "bootstrap",
    "bootstrap_neurons",
    "calibration",
    "communities",
    "compose",
    "compress",
    "datasets",
    "diagnose",
    "distill",
    "dominant_period",
    "drop_layer",
    "drop_neurons",
    "euclidean",
    "fisher_rao",
    "fit",
    "forecast",
    "functional",
    "hellinger",
    "jeffreys",
    "laplace",
    "limit_threads",
    "merge",
    "normal",
    "online",
    "persistence",
    "predict",
    "prune",
    "qpfs",
    "refine",
    "relevance",
    "ridge_ar",
    "rolling_origin",
    "rows_of",
    "sandwich",
    "seasonal_naive",
    "seeded",
    "shrink",
    "split",
    "tradeoff",
    "train_ensemble",
    "variational",
    "wasserstein2",
    "weight_of",
    "windows",
]


def __getattr__(name: str):
    """Import the example networks when they are first asked for."""
    if name == "models":
        import importlib

        return importlib.import_module(".models", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
