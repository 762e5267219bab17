"""The window and the number of components, by what they are worth out of sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..series.evaluation import origins
from ..series.trajectories import _whole, as_recordings
from .decomposition import SSA

__all__ = ["Choice", "choose"]


class Choice(NamedTuple):
    """The chosen window and rank, and every candidate's forecast error with its standard error, (w, r) each."""

    window: int
    rank: int
    mse: Tensor
    error: Tensor


def choose(
    series,
    windows: Sequence[int],
    ranks: Sequence[int],
    *,
    horizon: int,
    start: int,
    every: int | None = None,
    method: str = "recurrent",
    progress: Callable[[Iterable], Iterable] = iter,
) -> Choice:
    """Pick window and rank by forecasting `horizon` samples from origins `start`, `start + every`, ...

    The choice is the smallest rank, then the shortest window, within one standard error of the best: the
    differences inside that band are noise. At each origin and window the history is decomposed once.
    """
    ranks = sorted(_whole(r, "ranks", 1) for r in ranks)
    windows = sorted(_whole(w, "windows", 2) for w in windows)
    parts = as_recordings(series)
    spots = origins(parts, _whole(horizon, "horizon", 1), start, horizon if every is None else every)
    loss = torch.empty(len(spots), len(windows), len(ranks), dtype=torch.float64)
    for o, (i, t) in enumerate(progress(spots)):
        history, actual = parts[i][:t], parts[i][t : t + horizon]
        for j, window in enumerate(windows):
            ssa = SSA.of(history, window, rank=min(ranks[-1], window, t - window + 1))
            for k, rank in enumerate(ranks):
                answer = ssa.forecast(horizon, range(min(rank, len(ssa))), method)
                loss[o, j, k] = (answer - actual).square().mean()
    mse, error = loss.mean(0), loss.std(0) / len(spots) ** 0.5
    best = mse.flatten().argmin()
    good = mse <= mse.flatten()[best] + error.flatten()[best]
    rank = int(good.any(0).nonzero()[0])
    window = int(good[:, rank].nonzero()[0])
    return Choice(windows[window], ranks[rank], mse, error)
