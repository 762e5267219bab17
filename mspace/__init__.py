"""Neurons as random vectors: the metric space of a network's parameters, from series to smaller networks."""

from . import datasets
from .alignment import align
from .checks import seeded
from .covariance import bootstrap, bootstrap_neurons
from .neurons import NeuronDistribution, weight_of
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
    skill_table,
    split,
    windows,
)
from .ssa import SSA
from .training import Ensemble, fit, train_ensemble

__version__ = "0.1.0"

__all__ = [
    "SSA",
    "Ensemble",
    "NeuronDistribution",
    "Skill",
    "__version__",
    "align",
    "autocorrelation",
    "average",
    "bootstrap",
    "bootstrap_neurons",
    "datasets",
    "dominant_period",
    "fit",
    "forecast",
    "persistence",
    "ridge_ar",
    "rolling_origin",
    "seasonal_naive",
    "seeded",
    "skill_table",
    "split",
    "train_ensemble",
    "weight_of",
    "windows",
]
