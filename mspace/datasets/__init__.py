"""Data of the book: generated, shipped in installed packages, or official files checked by hash.

A loader looks in the folder named by `MSPACE_DATA`, then in the cache (the folder `MSPACE_CACHE`, else the
user's own), then at the official source; what it cannot get it says in one sentence with the way to get it by
hand.
"""

from ._errors import DataReplaced, DatasetError
from .cutting import Trials, as_ecog, trials
from .ecog import Ecog, finger_ecog, grip_force
from .generated import Signal, Video, noisy_sine, pendulum_video
from .heart import Echo, heart_echo
from .learning import learn_and_test
from .motion import Recordings, walking
from .sentences import MiniLM, Pairs, minilm, remarks, sentence_pairs
from .simulated import SimulatedEcog, simulated_ecog
from .tables import Table, digits, iris, mnist, wine

__all__ = [  # noqa: RUF022, grouped by kind
    # generated, with a known truth
    "noisy_sine",
    "pendulum_video",
    "simulated_ecog",
    "Signal",
    "Video",
    "SimulatedEcog",
    # recordings
    "walking",
    "heart_echo",
    "finger_ecog",
    "grip_force",
    "Recordings",
    "Echo",
    "Ecog",
    # recordings cut into trials
    "as_ecog",
    "trials",
    "Trials",
    # tables
    "iris",
    "wine",
    "digits",
    "mnist",
    "Table",
    "learn_and_test",
    # sentences, and a network that reads them
    "minilm",
    "remarks",
    "sentence_pairs",
    "MiniLM",
    "Pairs",
    # what may go wrong
    "DatasetError",
    "DataReplaced",
]
