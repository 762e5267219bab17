"""Time series: trajectories, decoding, honest evaluation (the paper's section 2)."""

from .evaluation import Skill, rolling_origin
from .forecasting import forecast, persistence, ridge_ar, seasonal_naive
from .gaps import interpolate, mask_features, missing_mask
from .scaling import normalized_windows, standardize, with_instance_norm
from .trajectories import autocorrelation, average, dominant_period, split, windows

__all__ = [
    "Skill",
    "autocorrelation",
    "average",
    "dominant_period",
    "forecast",
    "interpolate",
    "mask_features",
    "missing_mask",
    "normalized_windows",
    "persistence",
    "ridge_ar",
    "rolling_origin",
    "seasonal_naive",
    "split",
    "standardize",
    "windows",
    "with_instance_norm",
]
