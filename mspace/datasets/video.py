"""Two videos that repeat: a drawn pendulum, whose angle is known, and an ultrasound of a heart."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..checks import check_generator, check_int, check_real
from ._fetch import DatasetError, checked, require

PIVOT = (0.0, -0.8)  # x to the right, y down, from -1 at the first pixel's centre to 1 at the last one's


class Video(NamedTuple):
    """A video (T, H, W) in [0, 1], the angle (T,) in radians that it shows, and its period in frames."""

    frames: Tensor
    angle: Tensor
    period: float


class Echo(NamedTuple):
    """Frames (T, H, W) in [0, 1], `rate` of them in a second."""

    frames: Tensor
    rate: float


def pendulum_video(
    n_frames: int = 240,
    *,
    size: int = 32,
    period: float = 40.0,
    amplitude: float = 0.5,
    noise_std: float = 0.0,
    generator: Generator | None = None,
) -> Video:
    """Draw a pendulum of angle amplitude * cos(2 pi t / period) as smooth functions of the distance to it.

    Frames (n_frames, size, size) float64; `period` in frames, `amplitude` in radians. Noise of standard
    deviation `noise_std` is added to the pixels, which are then cut to [0, 1].
    """
    n_frames, size = check_int(n_frames, "n_frames", 1), check_int(size, "size", 8)
    period, noise_std = check_real(period, "period"), check_real(noise_std, "noise_std", ends="[)")
    amplitude = check_real(amplitude, "amplitude", 0, math.pi / 2, "(]")
    time = torch.arange(n_frames, dtype=torch.float64)
    angle = amplitude * torch.cos(2 * math.pi * time / period)
    frames = _draw(angle, size, length=min(1.5, 0.8 / math.sin(amplitude)))  # as long as the frame allows
    if noise_std:
        noise = torch.randn(frames.shape, dtype=torch.float64, generator=check_generator(generator))
        frames = (frames + noise_std * noise).clamp(0, 1)
    return Video(frames, angle, period)


def _draw(angle: Tensor, size: int, length: float) -> Tensor:
    """Return rod and bob at the angles (T,) as brightness (T, size, size)."""
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    pixel = torch.stack(torch.meshgrid(axis - PIVOT[0], axis - PIVOT[1], indexing="xy"), -1)  # (H, W, 2)
    direction = torch.stack([angle.sin(), angle.cos()], -1)
    along = torch.einsum("hwk,tk->thw", pixel, direction)
    off = (pixel.square().sum(-1) - along.square()).clamp(min=0)  # squared distance to the rod's line
    rod = 0.5 * _inside((off + (along - along.clamp(0, length)).square()).sqrt(), 0.04, size)
    bob = _inside((off + (along - length).square()).sqrt(), 0.15, size)
    return 1 - (1 - rod) * (1 - bob)


def _inside(distance: Tensor, radius: float, size: int) -> Tensor:
    """Return one inside the radius and zero outside, with an edge about one pixel wide."""
    return torch.sigmoid((radius - distance) * size)


def heart_echo() -> Echo:
    """Load the ultrasound of a heart: brightness (120, 400, 400) in [0, 1], 30 Hz, a beat in about 27 frames.

    From pydicom-data; the luma of the stored colours, cut to the sector where the heart is.
    """
    require("data_store", "the heart echo", "pydicom-data")  # without it pydicom would ask the network
    require("PIL", "the heart echo", "pillow")
    find = require("pydicom.data", "the heart echo", "pydicom").get_testdata_file
    file = find("color3d_jpeg_baseline.dcm", download=False)
    if file is None:
        why = "the heart echo is not in the pydicom-data installed here"
        raise DatasetError(f"{why}: run `pip install pydicom-data==1.0.0`")
    pixels = require("pydicom.pixels", "the heart echo", "'pydicom>=3'")
    # luma and colour are stored apart: the raw first plane is the picture, without a way through RGB
    luma = pixels.pixel_array(file, raw=True, decoding_plugin="pillow")[:, 40:440, 120:520, 0]
    return Echo(checked(luma, "the heart echo", (120, 400, 400)).div_(255), 30.0)
