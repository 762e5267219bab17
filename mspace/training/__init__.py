"""Ensembles of networks, trained side by side."""

from .ensemble import Ensemble
from .loop import Data, Loss, failures, fit, member_seeds, train_ensemble

__all__ = ["Data", "Ensemble", "Loss", "failures", "fit", "member_seeds", "train_ensemble"]
