"""Which neurons to keep: how relevant each is, how much they repeat each other, and what makes up for those that go."""

from .collinearity import belsley
from .qpfs import qpfs, qpfs_targets, select
from .relevance import relevance
from .second_order import group_obs, group_obs_update, layer_inputs
from .similarity import contribution, correlation_similarity, neuron_similarity

__all__ = [
    "belsley",
    "contribution",
    "correlation_similarity",
    "group_obs",
    "group_obs_update",
    "layer_inputs",
    "neuron_similarity",
    "qpfs",
    "qpfs_targets",
    "relevance",
    "select",
]
