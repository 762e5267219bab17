"""A sine with noise, the series of the paper's first examples."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..checks import check_generator, check_int, check_real


class Signal(NamedTuple):
    """A noisy series and what it hides: three tensors (n,)."""

    time: Tensor
    series: Tensor
    truth: Tensor


def noisy_sine(
    n: int = 500, *, periods: float = 1.0, noise_std: float = 0.2, generator: Generator | None = None
) -> Signal:
    """Return a sine on [-pi periods, pi periods] with Gaussian noise of standard deviation `noise_std`, (n,) each.

    `periods=1` is the series of the paper's section 3.1, `periods=4` that of 3.2; its N(0, 0.2) means the
    standard deviation.
    """
    n, periods = check_int(n, "n", 2), check_real(periods, "periods")
    noise_std = check_real(noise_std, "noise_std", ends="[)")
    time = torch.linspace(-math.pi * periods, math.pi * periods, n, dtype=torch.float64)
    truth = time.sin()
    noise = torch.randn(n, dtype=torch.float64, generator=check_generator(generator))
    return Signal(time, truth + noise_std * noise, truth)
