"""Networks that really get smaller: rows of a layer told by fewer rows, and what reads them refitted (section 8)."""

from .compression import compress
from .cost import Cost, cost
from .curve import Point, tradeoff
from .evidence import indistinguishable
from .factors import Reduction, compose, harmonics, low_rank, merge, prune
from .greedy import backward_elimination, forward_selection
from .network import shrink_network
from .refinement import kl_divergence, refine
from .shared import SharedRows
from .shrinking import shrink
from .starts import choose
from .wires import rows_of

__all__ = [  # noqa: RUF022, grouped by stage
    # rows told by fewer rows
    "rows_of",
    "Reduction",
    "merge",
    "prune",
    "compose",
    "low_rank",
    "harmonics",
    # which neurons
    "indistinguishable",
    "choose",
    "forward_selection",
    "backward_elimination",
    # networks
    "compress",
    "SharedRows",
    "shrink",
    "shrink_network",
    "refine",
    "kl_divergence",
    # what it costs
    "Cost",
    "cost",
    "Point",
    "tradeoff",
]
