"""Series of which samples are missing: to lose them on purpose, to read round them, to fill them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..checks import as_series, check_generator, check_int

__all__ = ["interpolate", "mask_features", "missing_mask"]


def missing_mask(
    *shape: int, share: float | Tensor, length: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Which samples of (..., n) stay when a share of them is lost at random, in outages of `length`: booleans.

    Args:
        share: from 0 to 1, or one for each series (..., 1)
    """
    length = check_int(length, "length", 1)
    if not shape:
        raise ValueError("shape must be that of the samples, such as missing_mask(n, share=0.5), got none")
    loss = torch.as_tensor(share, dtype=torch.float64)
    if not ((loss >= 0) & (loss <= 1)).all():
        raise ValueError(f"share must lie from 0 to 1, got {loss.min():.3g} to {loss.max():.3g}")
    *rows, n = (check_int(k, "shape", 1) for k in shape)
    if loss.ndim and loss.shape != (*rows, 1):
        raise ValueError(f"share must be a number, or {(*rows, 1)} of them for these series, got {tuple(loss.shape)}")
    stay = torch.rand(*rows, -(-n // length), generator=check_generator(generator), dtype=torch.float64) >= loss
    return stay.repeat_interleave(length, -1)[..., :n]


def mask_features(windows: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a dense network can read of windows with gaps: values and mask side by side, at the level of what is seen.

    Args:
        windows: (..., width); values where `keep` is False are never looked at, and may be NaN
        keep: (..., width), where there is a value

    Returns:
        (..., 2 width), the scaled values with zero where one is missing, then the mask; and mean and standard deviation of
        what is seen, (..., 1) each. Where nothing is seen they are zero and one; where nothing moves the latter is one.
    """
    if windows.shape != keep.shape:
        raise ValueError(f"keep must be of the windows' shape {tuple(windows.shape)}, got {tuple(keep.shape)}")
    if keep.dtype != torch.bool:
        raise ValueError(f"keep must be a mask of bools, got {keep.dtype}: keep.bool() makes one")
    known = torch.where(keep, windows, 0.0)
    if not torch.isfinite(known).all():
        raise ValueError("windows must be finite where keep is True: set keep to False where a value is missing")
    count = keep.sum(-1, keepdim=True).clamp(min=1)
    centre = known.sum(-1, keepdim=True) / count
    scaled = torch.where(keep, windows - centre, 0.0)
    scale = (scaled.square().sum(-1, keepdim=True) / count).sqrt()
    rounding = 10 * torch.finfo(scale.dtype).eps * known.abs().amax(-1, keepdim=True)  # of a mean of equal numbers
    scale = torch.where(scale > rounding, scale, torch.ones_like(scale))
    return torch.cat([scaled / scale, keep.to(scaled)], -1), centre, scale


def interpolate(times, values, grid, *, by: str = "line") -> Tensor:
    """A series (k,) known at increasing times, at the times of a grid, (T,); beyond the known ones it stays as it is.

    Args:
        by: "line" joins neighbours, "spline" is the cubic with two derivatives through all of them
    """
    if by not in ("line", "spline"):
        raise ValueError(f"by must be 'line' or 'spline', got {by!r}")
    t, s, at = (as_series(v, name, ndim=(1,)) for v, name in ((times, "times"), (values, "values"), (grid, "grid")))
    t, at = t.double(), at.double()
    if len(t) != len(s) or (t.diff() <= 0).any():
        raise ValueError(
            f"times must increase, one for each of {len(s)} values, got {len(t)}: sort them with the values"
        )
    if by == "spline" and len(t) < 2:
        raise ValueError("times must be two or more for a spline, got one: take by='line'")
    inside = at.clamp(t[0], t[-1]).numpy()
    if by == "line":
        found = np.interp(inside, t.numpy(), s.double().numpy())
    else:
        from scipy.interpolate import CubicSpline

        found = CubicSpline(t.numpy(), s.double().numpy())(inside)
    return torch.from_numpy(found).to(s.dtype)
