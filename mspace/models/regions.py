"""Projections from a subject's electrodes to regions that all subjects have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import as_tensor, check_int, check_real
from .histories import holds

__all__ = ["as_projection", "regions", "unpacked", "with_projection"]

REACH = 3.0  # widths beyond which an electrode does not count
OFF = 1e-3  # by which the sum of a row may miss one


def regions(positions, centres, *, width: float, empty: str = "error") -> Tensor:
    """Return how much each electrode counts for each region, P (R, C), by a Gaussian of its distance to the centre.

    Rows sum to one. Electrodes farther than three widths do not count.

    Args:
        positions: of the electrodes (C, 2) or (C, 3); one of NaN is missing, and leaves its share to the others
        centres: of the regions, (R, 2) or (R, 3)
        width: standard deviation of the Gaussian, in the units of the positions
        empty: of a region with no electrode within reach: "error", or "zero" for a row of zeros
    """
    positions, centres = as_tensor(positions, "positions").double(), as_tensor(centres, "centres").double()
    if positions.ndim != 2 or centres.ndim != 2 or positions.shape[1] != centres.shape[1] or 0 in positions.shape:
        shapes = f"{tuple(positions.shape)} and {tuple(centres.shape)}"
        raise ValueError(f"positions must be (C, d) and centres (R, d), got {shapes}")
    if not torch.isfinite(centres).all() or len(centres) == 0:
        raise ValueError("centres must be finite and at least one: leave out the regions that have no place")
    width = check_real(width, "width")
    if empty not in ("error", "zero"):
        raise ValueError(f"empty must be 'error' or 'zero', got {empty!r}")
    missing = ~torch.isfinite(positions).all(1)
    distance = torch.cdist(centres, positions.nan_to_num(0.0, 0.0, 0.0))
    weight = torch.exp(-((distance / width) ** 2) / 2).masked_fill(missing | (distance > REACH * width), 0.0)
    total = weight.sum(1, keepdim=True)
    if empty == "error" and (total == 0).any():
        bare = (total[:, 0] == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"centres {bare} have no electrode within {REACH:g} widths of {width:g}: leave them out, take a larger width, "
            "or empty='zero'"
        )
    return weight / torch.where(total == 0, torch.ones_like(total), total)


def with_projection(x: Tensor, projection: Tensor, n_channels: int | None = None) -> Tensor:
    """Put trials (B, 1, C, T) and their projection (R, C) or (B, R, C) in one tensor (B, 1, n_channels, T + R).

    The weights of each electrode follow its samples; electrodes up to `n_channels` that the subject lacks are zeros.
    So trials of all subjects can be put together by `torch.cat`, and given to `HTNet`.
    """
    x = as_tensor(x, "x")
    if x.ndim != 4 or x.shape[1] != 1:
        raise ValueError(f"x must be trials (B, 1, channels, time), got {tuple(x.shape)}")
    p, c = as_projection(projection).to(x), x.shape[2]
    if p.shape[-1] != c or (p.ndim == 3 and len(p) not in (1, len(x))):
        raise ValueError(f"projection must be (R, {c}) or ({len(x)}, R, {c}) for these trials, got {tuple(p.shape)}")
    more = 0 if n_channels is None else check_int(n_channels, "n_channels", c) - c
    return F.pad(torch.cat([x, p.mT.expand(len(x), -1, -1).unsqueeze(1)], 3), (0, 0, 0, more))


def unpacked(x: Tensor, n_regions: int) -> tuple[Tensor, Tensor]:
    """Return what `with_projection` put together: trials (B, 1, C, T) and projections (B, R, C)."""
    return x[..., :-n_regions], as_projection(x[:, 0, :, -n_regions:].mT, n_regions)


def as_projection(values, n_regions: int | None = None) -> Tensor:
    """Return a projection (R, C) or (B, R, C) whose rows sum to one, or to nothing where a region has no electrode."""
    p = as_tensor(values, "projection")
    if p.ndim not in (2, 3) or 0 in p.shape or (n_regions is not None and p.shape[-2] != n_regions):
        r = "R" if n_regions is None else n_regions
        raise ValueError(f"projection must be ({r}, C) or (B, {r}, C), got {tuple(p.shape)}")
    if holds(torch.isfinite(p).all()) is False:
        raise ValueError("projection must be finite: set the weights of missing electrodes to zero, as `regions` does")
    total = p.sum(-1)
    off = (total - 1).abs().masked_fill((p == 0).all(-1), 0.0)
    if holds((off < OFF).all()) is False:
        worst = float(total.flatten()[off.flatten().argmax()])
        raise ValueError(f"projection must have rows that sum to one (or are zero), got {worst:.3g}: divide by the sum")
    return p
