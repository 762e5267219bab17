"""Ensembles of networks, trained side by side."""

from .ensemble import Ensemble
from .loop import Data, Loss, failures, fit, member_seeds, train_ensemble
from .minimum import refine

__all__ = ["Data", "Ensemble", "Loss", "failures", "fit", "member_seeds", "refine", "train_ensemble"]
