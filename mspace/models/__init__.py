"""Networks to begin with: the paper's and their like; everything else in the package takes any `torch.nn.Module`."""

from .eegnet import EEGNet, HTNet
from .encoder import SentenceEncoder
from .mlp import mlp
from .neural_ode import NeuralODE, irregular_windows
from .orthogonal import OrthogonalAutoencoder
from .oscillators import Oscillators, oscillator_ode, responses
from .principal import at_principal_components
from .recurrent import ElmanRNN
from .regions import regions, with_projection
from .solvers import dopri5, rk4
from .vae import WindowVAE, negative_elbo

__all__ = [
    "EEGNet",
    "ElmanRNN",
    "HTNet",
    "NeuralODE",
    "OrthogonalAutoencoder",
    "Oscillators",
    "SentenceEncoder",
    "WindowVAE",
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
