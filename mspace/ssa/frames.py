"""A video as a series of few numbers, from which every frame can be drawn again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..checks import as_tensor, check_int

__all__ = ["Frames"]


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames in an orthonormal basis of pictures: frame t is ``mean + sum_k scores[t, k] pictures[k]``.

    The thin SVD of the frames as vectors of pixels, less their mean. With all q <= T - 1 pictures nothing is lost: a turn
    of the channels changes no lagged covariance, so `SSA` of the scores has the singular values, the components and the
    forecasts of SSA of all the pixels (less their mean), in the price of q series instead of H W.

    Attributes:
        mean: (H, W)
        pictures: (q, H, W), orthonormal, by the energy they carry; of each the largest entry is positive
        scores: (T, q), the coordinates of the frames, in the units of the pixels
        dropped: the share of the energy about the mean that the pictures left out carry; 0 if none was
    """

    mean: Tensor = field(repr=False)
    pictures: Tensor = field(repr=False)
    scores: Tensor = field(repr=False)
    dropped: float

    @classmethod
    def of(cls, video, rank: int | None = None) -> Frames:
        """Decompose a video (T, H, W), in float64.

        Args:
            rank: how many leading pictures; default all that are not numerically null
        """
        frames = _checked(video, 2).double()
        count, shape = len(frames), frames.shape[1:]
        if rank is not None:
            rank = check_int(rank, "rank", 1, min(count - 1, shape.numel()))
        mean = frames.mean(0)
        turned = (frames - mean).flatten(1)
        peak = turned.abs().amax()
        # what a mean leaves of equal frames is rounding
        if not peak > 4 * np.finfo(float).eps * frames.abs().amax():
            raise ValueError(f"video must move, got {count} equal frames: it has no basis but its mean")
        exponent = int(np.frexp(float(peak))[1])  # squares stay in range
        left, values, right = torch.linalg.svd(torch.ldexp(turned, torch.tensor(-exponent)), full_matrices=False)
        kept = int((values > max(turned.shape) * np.finfo(float).eps * values[0]).sum())
        energy, kept = values.square(), min(kept, rank or kept)
        right = right[:kept]
        top = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
        scores = torch.ldexp(left[:, :kept] * values[:kept] * top.T, torch.tensor(exponent))
        dropped = float(energy[kept:].sum() / energy.sum()) if rank else 0.0
        return cls(mean, (right * top).unflatten(1, shape), scores, dropped)

    def __len__(self) -> int:
        return len(self.pictures)

    def coordinates(self, video) -> Tensor:
        """Scores (T, q) of other frames (T, H, W) in this basis; what they show beyond it is lost."""
        frames = _checked(video, 1, self.mean.shape).double()
        return (frames - self.mean).flatten(1) @ self.pictures.flatten(1).T

    def frames(self, scores) -> Tensor:
        """Frames (..., H, W) of scores (..., q), such as those of a reconstruction or a forecast."""
        scores = as_tensor(scores, "scores").to(self.mean)
        if scores.ndim == 0 or scores.shape[-1] != len(self):
            raise ValueError(f"scores must be (..., {len(self)}), one for each picture, got {tuple(scores.shape)}")
        return self.mean + torch.tensordot(scores, self.pictures, 1)


def _checked(video, least: int, shape: tuple[int, ...] | None = None) -> Tensor:
    """A finite video of at least so many frames."""
    video = as_tensor(video, "video")
    if video.ndim != 3 or video.numel() == 0 or (shape is not None and video.shape[1:] != shape):
        wanted = "H, W" if shape is None else ", ".join(map(str, shape))
        raise ValueError(f"video must be frames (T, {wanted}), got shape {tuple(video.shape)}: of colours take one")
    if len(video) < least:
        raise ValueError(f"video must have at least {least} frames, got {len(video)}")
    bad = (~torch.isfinite(video)).flatten(1).any(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(f"video has {int(bad.sum())} frames that are not finite, the first is {first}: cut them out")
    return video
