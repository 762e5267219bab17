"""Trajectory matrices that are never formed: products, averages and leading vectors by FFT.

Sizes: m series of lengths N_j, window L, K_j = N_j - L + 1; the trajectory matrix [X^1 ... X^m] is
(L, sum K_j) with X^j[i, k] = s_j[i + k]. Cost and memory are those of a few FFTs, O(N log N) and O(N).
"""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, svds

__all__ = ["HankelOperator", "leading"]

FORM_UP_TO = 1000  # rows; beyond them a full SVD takes longer than a second
DEFAULT_RANK = 30  # leading components found when the matrix is too large for all of them
SHORT_WINDOW, LONG_SERIES = 2000, 30_000  # where the lagged covariance beats Lanczos (benchmarks/ssa.py)
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
        """The average of left left.T X^j, (N_j,): one inverse FFT for the whole group."""
        return sum((self._averaged(j, block, True) for block in self._blocks(j, left)), np.zeros(len(self.parts[j])))

    def _blocks(self, j: int, left: np.ndarray) -> list[np.ndarray]:
        step = max(1, CHUNK // self.sizes[j])
        return [left[:, i : i + step] for i in range(0, max(1, left.shape[1]), step)]

    def _averaged(self, j: int, left: np.ndarray, together: bool) -> np.ndarray:
        n = self.sizes[j]
        product = fft.rfft(left.T, n)
        product *= fft.rfft(self.scores(j, left), n)
        size = len(self.parts[j])
        return fft.irfft(product.sum(0) if together else product, n)[..., :size] / weights(size, self.window)

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
    if rows <= FORM_UP_TO and rows * columns <= CHUNK and (rank is None or rank > rows // 20 or rows < 100):
        return "dense"
    return "covariance" if x.shape[0] <= SHORT_WINDOW and x.shape[1] > LONG_SERIES else "lanczos"


def leading(x: HankelOperator, rank: int | None, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (L, d) and values (d,), largest first, without the numerically null ones."""
    least = min(x.shape)
    if method == "dense":
        left, values, _ = np.linalg.svd(x.dense(), full_matrices=False)
        floor = max(x.shape) * np.finfo(float).eps
    else:
        rank = min(rank or DEFAULT_RANK, least if method == "covariance" else least - 1)
        left, values = (_by_covariance if method == "covariance" else _by_lanczos)(x, rank)
        floor = 1e-7  # eigenvalues of X X.T carry an error of 1e-16 of the largest, and these are their roots
    keep = values > floor * values.max(initial=0.0)
    left, values = left[:, keep][:, :rank], values[keep][:rank]
    top = np.abs(left).argmax(0)
    return left * np.sign(left[top, np.arange(left.shape[1])]), values


def _by_covariance(x: HankelOperator, rank: int) -> tuple[np.ndarray, np.ndarray]:
    c = sum(lagged_covariance(s, x.window) for s in x.parts)
    power, left = eigh(c, subset_by_index=[x.window - rank, x.window - 1], overwrite_a=True, check_finite=False)
    return left[:, ::-1], np.sqrt(power[::-1].clip(0))


def _by_lanczos(x: HankelOperator, rank: int) -> tuple[np.ndarray, np.ndarray]:
    if not any(s.any() for s in x.parts):
        return np.zeros((x.window, 0)), np.zeros(0)
    start = np.random.default_rng(0).standard_normal(min(x.shape))  # any vector will do, the same one each time
    left, values, _ = svds(x, rank, v0=start, solver="arpack")
    order = values.argsort()[::-1]
    return left[:, order], values[order]
