"""Variational Bayes over the parameters of a network."""

from .fitting import variational, variational_ensemble

__all__ = ["variational", "variational_ensemble"]
