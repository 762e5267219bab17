"""Time series: trajectories, decoding, honest evaluation (the paper's section 2)."""

from .baselines import persistence, ridge_ar, seasonal_naive
from .evaluation import Skill, rolling_origin, skill_table
from .forecasting import forecast
from .gaps import drop, fill, masked
from .scaling import at_own_level, own_level, scaled_windows
from .trainings import difference_of_trainings, mean_of_trainings, rolling_origin_of_trainings, trainings_table
from .trajectories import autocorrelation, average, dominant_period, split, windows

__all__ = [
    "Skill",
    "at_own_level",
    "autocorrelation",
    "average",
    "difference_of_trainings",
    "dominant_period",
    "drop",
    "fill",
    "forecast",
    "masked",
    "mean_of_trainings",
    "own_level",
    "persistence",
    "ridge_ar",
    "rolling_origin",
    "rolling_origin_of_trainings",
    "scaled_windows",
    "seasonal_naive",
    "skill_table",
    "split",
    "trainings_table",
    "windows",
]
