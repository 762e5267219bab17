"""Which neurons to keep: how relevant each is, how much they repeat each other, and what makes up for those that go."""

from .belsley import Collinearity, belsley, removal_order
from .composition import compose_activations, compose_neurons
from .gradients import freeze_masks, gradient_covariance
from .layerwise import layer_inputs, layerwise_obs, layerwise_obs_update, layerwise_relevance
from .qpfs import qpfs, qpfs_targets, select
from .relevance import relevance
from .second_order import group_obs, group_obs_update, obd, obs
from .similarity import contribution, correlation_relevance, correlation_similarity, neuron_similarity
from .variance import kl, significance, wald

__all__ = [
    "Collinearity",
    "belsley",
    "compose_activations",
    "compose_neurons",
    "contribution",
    "correlation_relevance",
    "correlation_similarity",
    "freeze_masks",
    "gradient_covariance",
    "group_obs",
    "group_obs_update",
    "kl",
    "layer_inputs",
    "layerwise_obs",
    "layerwise_obs_update",
    "layerwise_relevance",
    "neuron_similarity",
    "obd",
    "obs",
    "qpfs",
    "qpfs_targets",
    "relevance",
    "removal_order",
    "select",
    "significance",
    "wald",
]
