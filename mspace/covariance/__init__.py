"""Four ways to the covariance of a neuron; here the first, resampling."""

from .draws import Draw, block_length
from .resampling import Moments, bootstrap, bootstrap_neurons

__all__ = ["Draw", "Moments", "block_length", "bootstrap", "bootstrap_neurons"]
