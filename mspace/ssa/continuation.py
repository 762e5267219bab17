"""Continuing a series inside the space of its components (Golyandina and Zhigljavsky 2013, section 3).

A basis P (n, r) of columns of a trajectory matrix is closed under a shift in time: with P_up without its last
row(s) and P_down without its first, P_down = P_up Z. Everything here follows from that.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy import fft

from .hankel import HankelOperator, weights

__all__ = ["WAYS", "Vertical", "recurrence", "shift", "warn_if_explosive"]

VERTICAL = np.sqrt(np.finfo(float).eps)


class Vertical(ValueError):
    """The group holds the last axis of the trajectory space, so its past does not determine its future."""


def shift(basis: np.ndarray) -> np.ndarray:
    """Z (r, r), whose eigenvalues are the roots of the series; least squares on basis[:-1] Z = basis[1:]."""
    if basis.shape[1] == 0:
        raise ValueError("group is empty: name at least one component; a series of zeros has none")
    _gap(basis[-1:])
    return np.linalg.lstsq(basis[:-1], basis[1:], rcond=None)[0]


def _gap(last: np.ndarray) -> np.ndarray:
    """I - W W.T for the last rows W of an orthonormal basis; singular where the recurrence does not exist."""
    gap = np.eye(len(last)) - last @ last.T
    if np.linalg.eigvalsh(gap)[0] < VERTICAL:
        raise Vertical("group has no recurrence, it holds the last axis of the trajectory space: name fewer components")
    return gap


def recurrence(blocks: list[np.ndarray]) -> np.ndarray:
    """Coefficients (b, sum (n_j - 1)) of the next values of b series from their last n_j - 1 ones, oldest first.

    Args:
        blocks: the rows (n_j, r) of an orthonormal basis that belong to each series; with W their last rows and
            Q the others, the next values are (I - W W.T)^-1 W Q.T z.
    """
    last = np.stack([b[-1] for b in blocks])
    return np.linalg.solve(_gap(last), last @ np.concatenate([b[:-1] for b in blocks]).T)


def _recurrent(x: HankelOperator, left: np.ndarray, steps: int) -> list[np.ndarray]:
    a = recurrence([left])[0]
    return [_run(a[None], [x.projection(j, left)], [len(a)], steps)[0] for j in range(len(x.parts))]


def _row(x: HankelOperator, left: np.ndarray, steps: int) -> list[np.ndarray]:
    scores = [x.scores(j, left) for j in range(len(x.parts))]
    norm = np.sqrt(sum((s**2).sum(1) for s in scores))
    a = recurrence([(s / norm[:, None]).T for s in scores])
    past = [x.projection(j, left) for j in range(len(x.parts))]
    return _run(a, past, [k - 1 for k in x.columns], steps)


def _run(a: np.ndarray, past: list[np.ndarray], lags: list[int], steps: int) -> list[np.ndarray]:
    """Feed the recurrence with its own answers; past is extended in place of one buffer a series."""
    buffers = [np.concatenate([p[len(p) - n :], np.empty(steps)]) for p, n in zip(past, lags, strict=True)]
    for t in range(steps):
        z = np.concatenate([b[t : t + n] for b, n in zip(buffers, lags, strict=True)])
        for b, n, value in zip(buffers, lags, a @ z, strict=True):
            b[n + t] = value
    return [b[n:] for b, n in zip(buffers, lags, strict=True)]


def _vector(x: HankelOperator, left: np.ndarray, steps: int) -> list[np.ndarray]:
    z, rows = shift(left), x.window
    columns = steps + rows - 1  # so many new columns meet the antidiagonals of the new samples
    size = columns + rows - 1
    n = fft.next_fast_len(size, real=True)
    basis, out = fft.rfft(left.T, n), []
    for j in range(len(x.parts)):
        c = np.empty((columns, left.shape[1]))
        now = left.T @ x.parts[j][-rows:]
        for t in range(columns):
            c[t] = now = z @ now
        total = fft.irfft((basis * fft.rfft(c.T, n)).sum(0), n)[:size] / weights(size, rows)
        out.append(total[rows - 1 : rows - 1 + steps])
    return out


def warn_if_explosive(left: np.ndarray, steps: int) -> None:
    """Say so when the recurrence of a group would grow more than tenfold over a forecast."""
    try:
        root = np.abs(np.linalg.eigvals(shift(left))).max()
    except Vertical:  # "row" may still have a recurrence; the other methods refuse by themselves
        return
    if root > 10 ** (1 / steps):
        warnings.warn(
            f"the group grows {root:.4f} times a step: a forecast of {steps} steps grows more than tenfold; "
            "name fewer components or a longer window",
            RuntimeWarning,
            stacklevel=3,
        )


WAYS = {"recurrent": _recurrent, "vector": _vector, "row": _row}
