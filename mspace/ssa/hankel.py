"""Trajectory matrices that are never formed: products, averages and leading vectors by FFT.

Sizes: m series of lengths N_j, window L, K_j = N_j - L + 1; the trajectory matrix [X^1 ... X^m] is
(L, sum K_j) with X^j[i, k] = s_j[i + k]. Cost and memory are those of a few FFTs, O(N log N) and O(N).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import fft as scipy_fft
from scipy.sparse.linalg import LinearOperator, eigsh

from ..threads import small

__all__ = ["HankelOperator", "leading"]

fft: Any = scipy_fft  # its decorators hide from a type checker that it returns arrays

FORM_UP_TO = 1000  # rows; beyond them a full SVD takes longer than a second
DEFAULT_RANK = 30  # leading components found where the window is too long for all of them
SHORT_WINDOW = 3000  # the lagged covariance of a longer window would take more memory than it saves time
CHUNK = 1 << 22  # numbers an FFT buffer may hold


class HankelOperator(LinearOperator):
    """The trajectory matrix of m series (Korobeynikov 2010), as a scipy linear operator."""

    def __init__(self, parts: list[np.ndarray], window: int):
        self.parts, self.window = parts, window
        self.columns = [len(s) - window + 1 for s in parts]
        # A circular product as long as the series is enough: i + k never exceeds N - 1.
        self.sizes = [fft.next_fast_len(len(s), real=True) for s in parts]
        self.spectra = [fft.rfft(s, n) for s, n in zip(parts, self.sizes, strict=True)]
        super().__init__(np.float64, (window, sum(self.columns)))

    def _correlate(self, j: int, vectors: np.ndarray, keep: int) -> np.ndarray:
        """sum_i vectors[:, i] s_j[i + k] for k < keep: (r, len) -> (r, keep)."""
        n = self.sizes[j]
        return fft.irfft(self.spectra[j] * fft.rfft(vectors, n).conj(), n)[..., :keep]

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        blocks = np.split(v.ravel(), np.cumsum(self.columns)[:-1])
        return sum(self._correlate(j, b, self.window) for j, b in enumerate(blocks))

    def _rmatvec(self, u: np.ndarray) -> np.ndarray:
        return np.concatenate([self._correlate(j, u.ravel(), k) for j, k in enumerate(self.columns)])

    def scores(self, j: int, left: np.ndarray) -> np.ndarray:
        """Coordinates of the trajectory of series j in the basis left (L, r): its rows are left.T @ X^j."""
        return self._correlate(j, left.T, self.columns[j])

    def components(self, j: int, left: np.ndarray) -> np.ndarray:
        """The averaged elementary matrices u (u.T X^j), one series a row: (r, N_j)."""
        return np.concatenate([self._averaged(j, block, False) for block in self._blocks(j, left)])

    def projection(self, j: int, left: np.ndarray) -> np.ndarray:
        """The average of left left.T X^j, (N_j,): the whole group in the price of one component."""
        return sum((self._averaged(j, block, True) for block in self._blocks(j, left)), np.zeros(len(self.parts[j])))

    def _blocks(self, j: int, left: np.ndarray) -> list[np.ndarray]:
        step = max(1, CHUNK // self.sizes[j])
        return [left[:, i : i + step] for i in range(0, max(1, left.shape[1]), step)]

    def _averaged(self, j: int, left: np.ndarray, together: bool) -> np.ndarray:
        way = self._filtered if len(self.parts[j]) >= 4 * self.window else self._convolved
        return way(j, left, together)

    def _convolved(self, j: int, left: np.ndarray, together: bool) -> np.ndarray:
        """Antidiagonals of u (u.T X) sum to the convolution of u with its scores."""
        n, size = self.sizes[j], len(self.parts[j])
        product = fft.rfft(left.T, n)
        product *= fft.rfft(self.scores(j, left), n)
        return fft.irfft(product.sum(0) if together else product, n)[..., :size] / weights(size, self.window)

    def _filtered(self, j: int, left: np.ndarray, together: bool) -> np.ndarray:
        """A window away from the ends, projecting and averaging is the symmetric filter u * reversed u / L."""
        s, n, rows = self.parts[j], self.sizes[j], self.window
        small = fft.next_fast_len(2 * rows, real=True)
        power = np.abs(fft.rfft(left.T, small)) ** 2
        kernel = fft.irfft(power.sum(0) if together else power, small)[..., :rows] / rows
        wide = np.zeros((*kernel.shape[:-1], n))
        wide[..., :rows], wide[..., n - rows + 1 :] = kernel, kernel[..., :0:-1]
        out = fft.irfft(self.spectra[j] * fft.rfft(wide), n)[..., : len(s)]
        for inside, ends in ((slice(rows - 1), s[: 2 * rows]), (slice(1 - rows, None), s[-2 * rows :])):
            out[..., inside] = HankelOperator([ends], rows)._convolved(0, left, together)[..., inside]
        return out

    def dense(self) -> np.ndarray:
        """The matrix itself, (L, sum K_j): for short series and for tests."""
        view = np.lib.stride_tricks.sliding_window_view
        return np.concatenate([view(s, self.window).T for s in self.parts], 1)


def weights(size: int, window: int) -> np.ndarray:
    """How many entries each antidiagonal of an L x K matrix has: (N,)."""
    n = np.arange(size)
    return np.minimum(np.minimum(n + 1, size - n), min(window, size - window + 1)).astype(float)


def lagged_covariance(s: np.ndarray, window: int) -> np.ndarray:
    """X X.T of one series, (L, L): its first row by FFT, each next row from the one before in O(L)."""
    columns = len(s) - window + 1
    n = fft.next_fast_len(len(s), real=True)
    head = np.concatenate([s[:columns], np.zeros(window - 1)])
    row = fft.irfft(fft.rfft(s, n) * fft.rfft(head, n).conj(), n)[:window]
    c = np.empty((window, window))
    c[0] = c[:, 0] = row
    for i in range(1, window):
        row = row[:-1] + s[columns + i - 1] * s[columns + i - 1 :] - s[i - 1] * s[i - 1 : window - 1]
        c[i, i:] = c[i:, i] = row
    return c


def choose_method(x: HankelOperator, rank: int | None) -> str:
    """The cheapest exact way to the leading vectors of a trajectory matrix of this size."""
    rows, columns = sorted(x.shape)
    few = rank is not None and rows >= 100 and rank <= rows // 20
    if rows <= FORM_UP_TO and rows * columns <= CHUNK and not few:
        return "dense"
    # A step of Lanczos costs four FFTs of N on the operator, L^2 products on the covariance; where they cross
    # is measured by `benchmarks/ssa.py --crossover`.
    short = x.window <= FORM_UP_TO if rank is None else x.window**2 <= 150 * x.shape[1]
    return "covariance" if short and x.window <= SHORT_WINDOW else "lanczos"


def leading(x: HankelOperator, rank: int | None, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (L, d) and values (d,), largest first, without the numerically null ones."""
    floor = 1e-7  # eigenvalues of X X.T carry an error of 1e-16 of the largest, and these are their roots
    if method == "covariance":
        gram = sum(lagged_covariance(s, x.window) for s in x.parts)
        few = rank is not None and 2 * rank <= x.window
        with small(x.window):
            left, values = _lanczos(gram, rank) if few and gram.any() else _rooted(*np.linalg.eigh(gram))
    elif method == "lanczos" and 2 * (rank or DEFAULT_RANK) <= x.window:
        moving = any(s.any() for s in x.parts)
        left, values = _lanczos(_gram(x), rank or DEFAULT_RANK) if moving else (np.zeros((x.window, 0)), np.zeros(0))
    else:  # asked for, or Lanczos would have to find nearly all of them
        with small(min(x.shape)):
            left, values, _ = np.linalg.svd(x.dense(), full_matrices=False)
        floor = max(x.shape) * np.finfo(float).eps
    keep = values > floor * values.max(initial=0.0)
    if floor == 1e-7 and any(_is_far(part) for part in x.parts):
        warnings.warn(
            "the mean of the series is more than a million times its spread, and components below 1e-7 of the first are not "
            "seen: take the mean off the series, or method='dense'",
            RuntimeWarning,
            stacklevel=4,
        )
    left, values = left[:, keep][:, :rank], values[keep][:rank]
    top = np.abs(left).argmax(0)
    return left * np.sign(left[top, np.arange(left.shape[1])]), values


def _is_far(part: np.ndarray) -> bool:
    """Return whether a series moves little beside its level, and by more than rounding."""
    return bool(
        (1e-13 * np.abs(part.mean(0)) < part.std(0)).any() and (part.std(0) < 1e-6 * np.abs(part.mean(0))).any()
    )


def _rooted(power: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = power.argsort()[::-1]
    return left[:, order], np.sqrt(power[order].clip(0))


def _gram(x: HankelOperator) -> LinearOperator:
    def product(u: np.ndarray) -> np.ndarray:
        return sum(x._correlate(j, x._correlate(j, u.ravel(), k), x.window) for j, k in enumerate(x.columns))

    return LinearOperator((x.window, x.window), matvec=product, dtype=float)


def _lanczos(gram, rank: int) -> tuple[np.ndarray, np.ndarray]:
    # Any start will do, and the same one each time gives the same digits.
    start = np.random.default_rng(0).standard_normal(gram.shape[0])
    with small(rank):  # a step is a product of matrix and vector, and an orthogonalisation to so many
        return _rooted(*eigsh(gram, rank, v0=start))
