"""Ensembles of networks, trained side by side."""

from .ensemble import Ensemble
from .loop import fit, member_seeds, train_ensemble
from .minimum import refine
from .options import Bounded, Data, Loss

__all__ = ["Bounded", "Data", "Ensemble", "Loss", "fit", "member_seeds", "refine", "train_ensemble"]
