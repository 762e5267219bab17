"""What the analytic signal tells of an oscillation: its envelope, its phase, how fast it turns."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_int

__all__ = ["Hilbert", "analytic"]

FEATURES = ("power", "log_power", "relative_power", "phase", "frequency")


def analytic(x: Tensor) -> Tensor:
    """The analytic signal along the last axis: twice the positive frequencies of real numbers, (..., T) complex.

    As `scipy.signal.hilbert`. The transform is circular: unless the signal closes, its first and last moments know
    of each other. Takes float32 and float64.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64, got {x.dtype}: convert it, x.float()")
    n = x.shape[-1]
    spectrum = torch.fft.rfft(x)
    turned = x.new_ones(spectrum.shape[-1])
    turned[0] = 0
    if n % 2 == 0:
        turned[-1] = 0  # the fastest oscillation is its own mirror
    return torch.complex(x, torch.fft.irfft(spectrum * torch.complex(torch.zeros_like(turned), -turned), n))


class Hilbert(nn.Module):
    """A feature of the analytic signal z along time, (..., T) to (..., T), without parameters.

    "power" is the envelope ``|z|``, called so by the authors of HTNet (Peterson and others 2021); "log_power" is
    ``log(1 + |z|)``; "relative_power" is the same less its mean over the first quarter of the time; "phase" is
    unwrapped, in radians; "frequency", in Hz, is how fast it turns, with a zero in the end.

    Args:
        feature: one of these
        rate: samples a second, for "frequency"
        padding: samples by which the signal is mirrored at both ends before the transform, which is circular, and by
            which the answer is cut again
    """

    def __init__(self, feature: str = "power", *, rate: float | None = None, padding: int = 0):
        super().__init__()
        if feature not in FEATURES:
            raise ValueError(f"feature must be one of {', '.join(FEATURES)}, got {feature!r}")
        if feature == "frequency" and not (isinstance(rate, (int, float)) and 0 < rate < math.inf):
            raise ValueError(f"rate must be a positive number of Hz for the feature 'frequency', got {rate!r}")
        self.feature, self.rate, self.padding = feature, rate, check_int(padding, "padding", 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding:
            n = x.shape[-1]
            if self.padding >= n:
                raise ValueError(f"padding must be below the {n} samples of a trial, got {self.padding}")
            mirrored = F.pad(x.reshape(1, -1, n), (self.padding, self.padding), mode="reflect")
            x = mirrored.reshape(*x.shape[:-1], -1)
        z = analytic(x)[..., self.padding : x.shape[-1] - self.padding]
        if self.feature == "power":
            return z.abs()
        if self.feature == "log_power":
            return z.abs().log1p()
        if self.feature == "relative_power":
            power = z.abs().log1p()
            return power - power[..., : max(1, z.shape[-1] // 4)].mean(-1, keepdim=True)
        phase = _unwrapped(z)
        if self.feature == "phase":
            return phase
        return F.pad(phase.diff() * (self.rate / (2 * math.pi)), (0, 1))

    def extra_repr(self) -> str:
        return f"{self.feature!r}, rate={self.rate}, padding={self.padding}"


def _unwrapped(z: Tensor) -> Tensor:
    """The phase without jumps; where there is no signal it is zero, and so is its gradient."""
    silent = z.abs() < torch.finfo(z.real.dtype).tiny
    phase = torch.atan2(z.imag, torch.where(silent, torch.ones_like(z.real), z.real))
    turns = torch.round(phase.detach().diff() / (2 * math.pi)).cumsum(-1)
    return phase - 2 * math.pi * F.pad(turns, (1, 0))
