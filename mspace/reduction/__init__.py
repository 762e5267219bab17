"""Networks that really get smaller: rows of a layer written with fewer rows, and what reads them refitted."""

from ..network.connections import rows_of
from .compression import compress
from .curve import cost, tradeoff
from .greedy import backward_elimination
from .init import merge_by_test, select_units
from .matching import logits_kl
from .reductions import Reduction, compose, harmonics, low_rank, merge, prune
from .shrinking import shrink, shrink_network

__all__ = [  # noqa: RUF022, grouped by stage
    # rows written with fewer rows
    "rows_of",
    "Reduction",
    "merge",
    "prune",
    "compose",
    "low_rank",
    "harmonics",
    # which neurons
    "merge_by_test",
    "select_units",
    "backward_elimination",
    # networks
    "compress",
    "shrink",
    "shrink_network",
    "logits_kl",
    # quality against size
    "cost",
    "tradeoff",
]
