"""Data of the book: generated, shipped in installed packages, or official files checked by hash.

A loader looks in the folder named by `MSPACE_DATA`, then in the cache (the folder `MSPACE_CACHE`, else the
user's own), then at the official source; what it cannot get it says in one sentence with the way to get it by
hand.
"""

from ._fetch import DataReplaced, DatasetError
from .ecog import Ecog, grip_force, trials
from .ecog_simulated import simulated_ecog
from .iris_digits_mnist import digits, iris, mnist, train_test_split
from .motion_sense import walking
from .sine import noisy_sine
from .video import heart_echo, pendulum_video

__all__ = [
    "DataReplaced",
    "DatasetError",
    "Ecog",
    "digits",
    "grip_force",
    "heart_echo",
    "iris",
    "mnist",
    "noisy_sine",
    "pendulum_video",
    "simulated_ecog",
    "train_test_split",
    "trials",
    "walking",
]
