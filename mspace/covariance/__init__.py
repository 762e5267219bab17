"""Four ways to the covariance of a neuron: resampling, curvature, a trajectory of descent, variational Bayes."""

from .curvature import hessian, laplace, sandwich
from .draws import Draw, block_length
from .posterior import Block, GaussianPosterior
from .prediction import Prediction, calibration, predict
from .resampling import Moments, bootstrap, bootstrap_neurons
from .trajectory import online
from .variational import kl_divergence, variational, variational_ensemble

__all__ = [
    "Block",
    "Draw",
    "GaussianPosterior",
    "Moments",
    "Prediction",
    "block_length",
    "bootstrap",
    "bootstrap_neurons",
    "calibration",
    "hessian",
    "kl_divergence",
    "laplace",
    "online",
    "predict",
    "sandwich",
    "variational",
    "variational_ensemble",
]
