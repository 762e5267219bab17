"""Four ways to the covariance of a neuron: resampling, curvature, a trajectory of descent, variational Bayes."""

from .bootstrap import bootstrap, bootstrap_neurons
from .gaussian import Block, GaussianPosterior
from .gram import hessian
from .laplace import laplace
from .online import online
from .predict import Prediction, calibration, predict
from .resampling import Resampler, block_length
from .sandwich import sandwich
from .variational import variational, variational_ensemble

__all__ = [
    "Block",
    "GaussianPosterior",
    "Prediction",
    "Resampler",
    "block_length",
    "bootstrap",
    "bootstrap_neurons",
    "calibration",
    "hessian",
    "laplace",
    "online",
    "predict",
    "sandwich",
    "variational",
    "variational_ensemble",
]
