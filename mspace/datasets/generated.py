"""Generated data, whose truth is known."""

import math
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Generator, Tensor

PIVOT = (0.0, -0.8)  # x to the right, y down, from -1 at the first pixel's centre to 1 at the last one's


class Signal(NamedTuple):
    """A noisy series and what it hides: three tensors (n,)."""

    time: Tensor
    series: Tensor
    truth: Tensor


class Video(NamedTuple):
    """A video (T, H, W) in [0, 1], the angle (T,) in radians that it shows, and its period in frames."""

    frames: Tensor
    angle: Tensor
    period: float


def noisy_sine(
    n: int = 500, *, periods: float = 1.0, noise_std: float = 0.2, generator: Generator | None = None
) -> Signal:
    """Sine on [-pi periods, pi periods] with Gaussian noise of standard deviation `noise_std`, (n,) each.

    `periods=1` is the series of the paper's section 3.1, `periods=4` that of 3.2; its N(0, 0.2) means the
    standard deviation. All randomness is in `generator`.
    """
    _at_least("n", n, 2)
    _positive("periods", periods)
    _not_negative("noise_std", noise_std)
    time = torch.linspace(-math.pi * periods, math.pi * periods, n, dtype=torch.float64)
    truth = time.sin()
    return Signal(time, truth + noise_std * _noise(truth.shape, generator), truth)


def pendulum_video(
    n_frames: int = 240,
    *,
    size: int = 32,
    period: float = 40.0,
    amplitude: float = 0.5,
    noise_std: float = 0.0,
    generator: Generator | None = None,
) -> Video:
    """A pendulum of angle amplitude * cos(2 pi t / period), drawn as smooth functions of the distance to it.

    Frames (n_frames, size, size) float64; `period` in frames, `amplitude` in radians. Noise of standard
    deviation `noise_std` is added to the pixels, which are then cut to [0, 1].
    """
    _at_least("n_frames", n_frames, 1)
    _at_least("size", size, 8)
    _positive("period", period)
    _not_negative("noise_std", noise_std)
    if not 0 < amplitude <= math.pi / 2:
        raise ValueError(f"amplitude must be in (0, pi/2] radians, got {amplitude}: 0.5 is about 29 degrees")
    time = torch.arange(n_frames, dtype=torch.float64)
    angle = amplitude * torch.cos(2 * math.pi * time / period)
    frames = _draw(angle, size, length=min(1.5, 0.8 / math.sin(amplitude)))  # as long as the frame allows
    if noise_std:
        frames = (frames + noise_std * _noise(frames.shape, generator)).clamp(0, 1)
    return Video(frames, angle, period)


def _draw(angle: Tensor, size: int, length: float) -> Tensor:
    """Rod and bob at the angles (T,) as brightness (T, size, size)."""
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    pixel = torch.stack(torch.meshgrid(axis - PIVOT[0], axis - PIVOT[1], indexing="xy"), -1)  # (H, W, 2)
    direction = torch.stack([angle.sin(), angle.cos()], -1)
    along = torch.einsum("hwk,tk->thw", pixel, direction)
    off = (pixel.square().sum(-1) - along.square()).clamp(min=0)  # squared distance to the rod's line
    rod = 0.5 * _inside((off + (along - along.clamp(0, length)).square()).sqrt(), 0.04, size)
    bob = _inside((off + (along - length).square()).sqrt(), 0.15, size)
    return 1 - (1 - rod) * (1 - bob)


def _inside(distance: Tensor, radius: float, size: int) -> Tensor:
    """One inside the radius, zero outside, an edge about one pixel wide."""
    return torch.sigmoid((radius - distance) * size)


def _noise(shape, generator: Generator | None) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be zero (for none) or a positive number, got {value!r}")
