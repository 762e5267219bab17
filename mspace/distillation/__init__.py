"""From a large network's posterior to the prior of a small one, and a student trained with it (algorithm 1)."""

from .dropping import drop_layer, drop_neurons
from .priors import mean_only, temper
from .reshaping import compose_layers, merge_neurons, pad_neurons
from .students import answers, distill

__all__ = [
    "answers",
    "compose_layers",
    "distill",
    "drop_layer",
    "drop_neurons",
    "mean_only",
    "merge_neurons",
    "pad_neurons",
    "temper",
]
