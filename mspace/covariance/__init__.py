"""Four ways to the covariance of a neuron: resampling, curvature, a trajectory of descent, variational Bayes."""

from .draws import Draw, block_length
from .posterior import Block, GaussianPosterior
from .resampling import Moments, bootstrap, bootstrap_neurons
from .trajectory import online

__all__ = ["Block", "Draw", "GaussianPosterior", "Moments", "block_length", "bootstrap", "bootstrap_neurons", "online"]
