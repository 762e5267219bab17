"""Neurons as random vectors: the metric space of a network's parameters, from series to smaller networks."""

from . import datasets
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
from .training import Ensemble

__version__ = "0.1.0"

__all__ = [
    "SSA",
    "Ensemble",
    "NeuronDistribution",
    "Skill",
    "__version__",
    "autocorrelation",
    "average",
    "datasets",
    "dominant_period",
    "forecast",
    "persistence",
    "ridge_ar",
    "rolling_origin",
    "seasonal_naive",
    "skill_table",
    "split",
    "weight_of",
    "windows",
]
