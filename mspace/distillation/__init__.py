"""From a large network's posterior to the prior of a small one, and a student trained with it (algorithm 1)."""

from .dropping import drop_layer, drop_neurons
from .priors import compose_layers, mean_only, temper
from .students import distill

__all__ = [
    "compose_layers",
    "distill",
    "drop_layer",
    "drop_neurons",
    "mean_only",
    "temper",
]
