"""Variational Bayes over the parameters of a network."""

from .fitting import variational, variational_ensemble
from .priors import kl_divergence

__all__ = ["kl_divergence", "variational", "variational_ensemble"]
