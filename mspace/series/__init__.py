"""Time series: trajectories, decoding, honest evaluation (the paper's section 2)."""

from .baselines import persistence, ridge_ar, seasonal_naive
from .evaluation import Skill, rolling_origin, skill_table
from .forecasting import forecast
from .trajectories import autocorrelation, average, dominant_period, split, windows

__all__ = [
    "Skill",
    "autocorrelation",
    "average",
    "dominant_period",
    "forecast",
    "persistence",
    "ridge_ar",
    "rolling_origin",
    "seasonal_naive",
    "skill_table",
    "split",
    "windows",
]
