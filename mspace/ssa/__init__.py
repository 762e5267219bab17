"""Singular spectrum analysis: a series as a sum of components (the paper's section 2.1)."""

from .decomposition import SSA
from .frames import Frames
from .selection import select_window

__all__ = ["SSA", "Frames", "select_window"]
