"""Time series: trajectories, decoding, honest evaluation (the paper's section 2)."""

from .baselines import persistence, ridge_ar, seasonal_naive
from .evaluation import Skill, rolling_origin
from .forecasting import forecast
from .gaps import drop, fill, masked
from .scaling import at_own_level, own_level, scaled_windows
from .trajectories import autocorrelation, average, dominant_period, split, windows

__all__ = [
    "Skill",
    "at_own_level",
    "autocorrelation",
    "average",
    "dominant_period",
    "drop",
    "fill",
    "forecast",
    "masked",
    "own_level",
    "persistence",
    "ridge_ar",
    "rolling_origin",
    "scaled_windows",
    "seasonal_naive",
    "split",
    "windows",
]
