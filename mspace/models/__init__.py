"""The networks of the paper and their like; everything else in the package takes any `torch.nn.Module`."""

from .dense import mlp
from .eegnet import EEGNet, HTNet
from .encoder import SentenceEncoder
from .hilbert import Hilbert, analytic
from .ode import NeuralODE, irregular_windows
from .orthogonal import OrthogonalAutoencoder
from .oscillators import Oscillators, oscillator_ode, responses
from .principal import at_principal_components
from .projections import regions, with_projection
from .recurrent import GRU, ElmanRNN
from .solvers import Solution, dopri5, rk4
from .vae import WindowVAE, negative_elbo

__all__ = [
    "GRU",
    "EEGNet",
    "ElmanRNN",
    "HTNet",
    "Hilbert",
    "NeuralODE",
    "OrthogonalAutoencoder",
    "Oscillators",
    "SentenceEncoder",
    "Solution",
    "WindowVAE",
    "analytic",
    "at_principal_components",
    "dopri5",
    "irregular_windows",
    "mlp",
    "negative_elbo",
    "oscillator_ode",
    "regions",
    "responses",
    "rk4",
    "with_projection",
]
