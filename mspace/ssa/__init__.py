"""Singular spectrum analysis: a series as a sum of components (the paper's section 2.1)."""

from .choice import Choice, choose
from .decomposition import SSA
from .frames import Frames
from .hankel import HankelOperator
from .uncertainty import forecast_interval

__all__ = ["SSA", "Choice", "Frames", "HankelOperator", "choose", "forecast_interval"]
