"""Ensembles of networks, trained side by side."""

from .ensemble import Ensemble
from .loop import fit, train_ensemble
from .minimum import refine
from .options import Bounded, Data, Loss
from .starts import member_seeds

__all__ = ["Bounded", "Data", "Ensemble", "Loss", "fit", "member_seeds", "refine", "train_ensemble"]
