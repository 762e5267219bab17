"""The window and the number of components, by what they are worth out of sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import as_recordings, check_int, check_progress
from ..series.evaluation import origins
from ..threads import small
from .continuation import Vertical
from .decomposition import SSA

__all__ = ["WindowChoice", "select_window"]


class WindowChoice(NamedTuple):
    """The chosen window and rank, and what every candidate lost: mse and its standard error, (w, r) each.

    Rows and columns of the tables are `windows` and `ranks`, in rising order.
    """

    window: int
    rank: int
    mse: Tensor
    error: Tensor
    windows: list[int]
    ranks: list[int]


def select_window(
    series,
    windows: Sequence[int],
    ranks: Sequence[int],
    *,
    horizon: int,
    start: int,
    every: int | None = None,
    past: int | None = None,
    method: str = "recurrent",
    progress: Callable[[Iterable], Iterable] = iter,
) -> WindowChoice:
    """Pick window and rank by forecasting `horizon` samples from origins `start`, `start + every`, ...

    The choice is the smallest rank, then the shortest window, within one standard error of the best: the
    differences inside that band are noise. At each origin and window the history is decomposed once. A
    candidate that has no recurrence at some origin is out.

    Args:
        series: (T,), or a list of recordings
        past: how many last samples of the history are decomposed; default all of them
    """
    check_progress(progress)
    parts, _ = as_recordings(series)
    if parts[0].ndim > 1:
        raise ValueError("series must be (T,) or a list of such: select the window of one channel")
    windows, ranks = _sorted(windows, "windows", 2), _sorted(ranks, "ranks", 1)
    horizon, start = check_int(horizon, "horizon", 1), check_int(start, "start", 1)
    shortest = start if past is None else min(start, check_int(past, "past", 1))
    if windows[-1] >= shortest or ranks[-1] > windows[0]:
        raise ValueError(
            f"windows must be below the {shortest} samples decomposed and at least the largest rank, got windows "
            f"{windows} and ranks {ranks}"
        )
    spots = origins(parts, horizon, start, horizon if every is None else check_int(every, "every", 1))
    if len(spots) < 2:
        raise ValueError(f"start {start} leaves one origin, and a standard error needs two: start earlier")
    loss = torch.empty(len(spots), len(windows), len(ranks), dtype=torch.float64)
    for o, (i, t) in enumerate(progress(spots)):
        history, actual = parts[i][max(0, t - (past or t)) : t], parts[i][t : t + horizon]
        with small(windows[-1]):
            for j, window in enumerate(windows):
                ssa = SSA.of(history, window, rank=min(ranks[-1], len(history) - window + 1))
                for k, rank in enumerate(ranks):
                    loss[o, j, k] = _loss(ssa, rank, actual, method)
    mse, error = loss.mean(0), loss.std(0) / len(spots) ** 0.5
    if not torch.isfinite(mse).any():
        raise ValueError("ranks have no recurrence in any of the windows: try smaller ranks, or longer windows")
    best = mse.flatten().argmin()
    good = mse <= mse.flatten()[best] + error.flatten()[best]
    rank = int(good.any(0).nonzero()[0])
    window = int(good[:, rank].nonzero()[0])
    return WindowChoice(windows[window], ranks[rank], mse, error, windows, ranks)


def _sorted(values: Sequence[int], name: str, least: int) -> list[int]:
    found = sorted(check_int(v, name, least) for v in values)
    if not found:
        raise ValueError(f"{name} must hold at least one candidate")
    return found


def _loss(ssa: SSA, rank: int, actual: Tensor, method: str) -> float:
    try:
        answer = ssa.forecast(len(actual), range(min(rank, len(ssa))), method) if len(ssa) else 0.0  # of a zero history
    except Vertical:
        return float("inf")
    return float((answer - actual).square().mean())
