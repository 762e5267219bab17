"""Networks to begin with: the paper's and their like; everything else in the package takes any `torch.nn.Module`."""

from .eegnet import EEGNet, HTNet, regions, with_projection
from .neural_ode import NeuralODE, irregular_windows
from .orthogonal import OrthogonalAutoencoder
from .parts import mlp
from .recurrent import ElmanRNN
from .solvers import dopri5, rk4
from .vae import WindowVAE, negative_elbo

__all__ = [
    "EEGNet",
    "ElmanRNN",
    "HTNet",
    "NeuralODE",
    "OrthogonalAutoencoder",
    "WindowVAE",
    "dopri5",
    "irregular_windows",
    "mlp",
    "negative_elbo",
    "regions",
    "rk4",
    "with_projection",
]
