"""A series as a sum of components: decomposition, grouping, reconstruction, forecast."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from typing import Generic, TypeVar, cast, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from ..checks import as_recordings, check_int
from ..threads import small
from . import continuation
from .hankel import HankelOperator, choose_method, leading, weights

__all__ = ["SSA"]

METHODS = ("auto", "dense", "covariance", "lanczos")
Group = Iterable[int] | int | slice | None
Parts = TypeVar("Parts", Tensor, list[Tensor])  # of one series, or of a list of recordings


@dataclass(frozen=True, eq=False)
class SSA(Generic[Parts]):
    """Singular spectrum analysis of a series (Golyandina, Nekrutkin, Zhigljavsky 2001; paper, section 2.1).

    Attributes:
        window: L, the height of the trajectory matrix (the paper's h)
        left: (L, d), its left singular vectors u_i; each is fixed up to a sign, which is chosen so that the
            largest entry is positive, and equal singular values fix only the space they span
        singular_values: (d,), the roots of the paper's eigenvalues
    """

    window: int
    left: Tensor = field(repr=False)
    singular_values: Tensor
    _hankel: HankelOperator = field(repr=False)  # of the series over 2^exponent, so that squares stay in range
    _exponent: int = field(repr=False)
    _shape: tuple[int, ...] | None = field(repr=False)  # of the one series; None for a list of recordings

    @overload
    @classmethod
    def of(
        cls, series: list[Tensor], window: int | None = None, *, rank: int | None = None, method: str = "auto"
    ) -> SSA[list[Tensor]]: ...

    @overload
    @classmethod
    def of(
        cls, series: ArrayLike | Tensor, window: int | None = None, *, rank: int | None = None, method: str = "auto"
    ) -> SSA[Tensor]: ...

    @classmethod
    def of(cls, series, window: int | None = None, *, rank: int | None = None, method: str = "auto"):
        """Decompose a series (T,), m series together (T, m), or a list of recordings of any lengths.

        Args:
            window: 2 ... T - 1, default half of the shortest; long windows separate better. Of one series, a
                window above half gives the same components as its mirror T - window + 1. Several series share
                the left vectors (horizontal MSSA); scale them to one variance if their units differ.
            rank: how many leading components; default all of them for a window of up to 1000, else 30
            method: "dense" SVD; "lanczos" on FFT products, for long windows; "covariance", for short windows of
                long series; "auto" takes the fastest. The last two lose components below 1e-7 of the first, and
                "covariance" some of their digits below 1e-5.
        """
        parts, shape = _channels(series)
        shortest = min(map(len, parts))
        window = shortest // 2 if window is None else check_int(window, "window", 2)
        if not 2 <= window < shortest:
            raise ValueError(f"window must lie between 2 and the length less one, got {window} for {shortest} samples")
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        exponent = int(np.frexp(max(np.abs(s).max() for s in parts))[1])
        hankel = HankelOperator([np.ldexp(s, -exponent) for s in parts], window)  # ldexp copies
        if rank is not None and check_int(rank, "rank", 1) > min(hankel.shape):
            raise ValueError(
                f"rank must be at most {min(hankel.shape)} for a trajectory matrix {hankel.shape}, got {rank}"
            )
        left, values = leading(hankel, rank, choose_method(hankel, rank) if method == "auto" else method)
        values = torch.from_numpy(np.ldexp(values, exponent))
        return cls(window, torch.from_numpy(left.copy()), values, hankel, exponent, shape)

    def __len__(self) -> int:
        return len(self.singular_values)

    def reconstruct(self, group: Group = None) -> Parts:
        """The part of the series that a group of components makes, in the series' own shape.

        Args:
            group: indices from 0, an index, a slice or a range; default every component found. The orthogonal
                projector of the group is applied to the trajectory and its antidiagonals are averaged.
        """
        left = self._basis(group)
        return self._shaped([self._hankel.projection(j, left) for j in range(len(self._hankel.parts))])

    def residual(self, group: Group = None) -> Parts:
        """What the group leaves over: the series less its reconstruction, in the series' own shape."""
        left = self._basis(group)
        return self._shaped([s - self._hankel.projection(j, left) for j, s in enumerate(self._hankel.parts)])

    def components(self, group: Group = None) -> Parts:
        """The components of a group one by one, (r, T[, m]), or a list of such; they add to `reconstruct`."""
        left = self._basis(group)
        return self._shaped([self._hankel.components(j, left).T for j in range(len(self._hankel.parts))], turn=True)

    def scores(self, group: Group = None) -> Tensor:
        """Principal components sigma_i v_i, (sum K_j, r): the coordinates of every point of the trajectory."""
        left = self._basis(group)
        parts = [self._hankel.scores(j, left).T for j in range(len(self._hankel.parts))]
        return torch.from_numpy(np.ldexp(np.concatenate(parts), self._exponent))

    def w_correlation(self, group: Group = None) -> Tensor:
        """Correlations (r, r) of the components, each time weighted by its number of entries in the trajectory.

        It is zero between groups that the window separates exactly, and one inside an oscillation's pair nearly.
        """
        left = self._basis(group)
        gram = np.zeros((left.shape[1], left.shape[1]))
        for j, s in enumerate(self._hankel.parts):
            c = self._hankel.components(j, left)
            with small(len(c)):
                gram += (c * weights(len(s), self.window)) @ c.T
        norm = np.sqrt(gram.diagonal())
        norm[norm == 0] = 1.0
        return torch.from_numpy(gram / np.outer(norm, norm)).clamp(-1, 1)

    def groups(self, n_groups: int, group: Group = None, *, signed: bool = False) -> list[list[int]]:
        """Components in `n_groups` groups, the strongest first, by average linkage on 1 - abs(w-correlation).

        Args:
            signed: use (1 - w-correlation) / 2 instead, as the R package Rssa does
        """
        indices = self._indices(group)
        n_groups = check_int(n_groups, "n_groups", 1)
        if n_groups > len(indices):
            raise ValueError(f"n_groups must be at most the {len(indices)} components, got {n_groups}")
        if len(indices) == 1:
            return [indices]
        corr = self.w_correlation(indices).numpy()
        far = (1 - corr) / 2 if signed else 1 - np.abs(corr)
        tree = linkage(squareform(far, checks=False), "average")
        labels = cut_tree(tree, n_groups).ravel()  # fcluster would give fewer groups where distances tie
        found = [[i for i, k in zip(indices, labels, strict=True) if k == label] for label in np.unique(labels)]
        return sorted(found, key=min)

    def periods(self, group: Group = None) -> tuple[Tensor, Tensor]:
        """Periods in samples and growth a step, (r,) each, of the exponentials that a group spans (ESPRIT).

        A sine has two, of its period and its negative; growth is 1 for a steady one, below 1 for a fading one.
        """
        left = self._basis(group)
        with small(left.shape[1]):
            root = torch.from_numpy(np.linalg.eigvals(continuation.shift(left)))
        return 2 * torch.pi / root.angle(), root.abs()

    def pairs(self, *, ratio: float = 0.95) -> list[tuple[int, int, float]]:
        """Neighbouring components that make one oscillation: (i, i + 1, period in samples).

        Two neighbours are a pair when they have more than half of their power near one frequency, the same
        within 1 / window, and turn there together. Narrow bands of noise do so too: a pair among the small
        components is no evidence of an oscillation.

        Args:
            ratio: least ratio of the smaller singular value to the larger one
        """
        found, i = [], 0
        with small(len(self)):
            peak, share = self._peaks()
        while i + 1 < len(self):
            alike = self.singular_values[i + 1] >= ratio * self.singular_values[i]
            pure = share[i : i + 2].min() > 0.5 and abs(peak[i] - peak[i + 1]) < 1 / self.window
            period = float(self.periods([i, i + 1])[0].abs().max()) if alike and pure else float("inf")
            if abs(1 / period - peak[i]) < 1 / self.window and period < float("inf"):
                found.append((i, i + 1, period))
                i += 1
            i += 1
        return found

    def _peaks(self) -> tuple[Tensor, Tensor]:
        """The frequency, a sample, at which each left vector has most power, and the share of power near it."""
        size = 8 * self.window
        power = torch.fft.rfft(self.left, size, dim=0).abs().square() if len(self) else self.left
        frequency = torch.arange(len(power), dtype=torch.float64) / size
        peak = frequency[power.argmax(0)] if len(self) else self.left.new_empty(0)
        near = (frequency[:, None] - peak).abs() <= 1 / self.window
        return peak, (power * near).sum(0) / power.sum(0)

    def forecast(self, steps: int, group: Group = None, method: str = "recurrent") -> Parts:
        """Continue the part of the series that a group makes: (steps[, m]), or a list for recordings.

        Args:
            method: "recurrent": the linear recurrence of the group's left space on the reconstructed series;
                "vector": the trajectory itself is continued inside that space, then averaged, steadier when
                noisy; "row" (several series): one recurrence of the right space, which may borrow from one
                series for another.
        Raises ValueError when the group holds the last axis (verticality): choose fewer components.
        """
        steps, left = check_int(steps, "steps", 1), self._basis(group)
        if method not in continuation.WAYS:
            raise ValueError(f"method must be one of {', '.join(continuation.WAYS)}, got {method!r}")
        with small(left.shape[1]):
            continuation.warn_if_explosive(left, steps)
            return self._shaped(continuation.WAYS[method](self._hankel, left, steps))

    @cached_property
    def _left(self) -> np.ndarray:
        return self.left.numpy()

    def _indices(self, group: Group) -> list[int]:
        everything = range(len(self))
        if group is None or isinstance(group, slice):
            return list(everything[group or slice(None)])
        try:
            found = [group] if hasattr(group, "__index__") and np.ndim(group) == 0 else list(group)
            asked = [index(i) for i in found if np.asarray(i).dtype != bool]  # True is an index to Python
        except TypeError:
            found, asked = [group], []
        if len(asked) < len(found) or not set(asked) <= set(everything) or len(set(asked)) < len(asked):
            raise ValueError(f"group must hold different indices from 0 to {len(self) - 1}, got {group!r}")
        return asked

    def _basis(self, group: Group) -> np.ndarray:
        return self._left[:, self._indices(group)]

    def _shaped(self, parts: list[np.ndarray], turn: bool = False) -> Parts:
        """Channels (T, ...) back to the shape that came in; `turn` puts the component axis first."""
        tensors = [torch.from_numpy(np.ldexp(p, self._exponent)) for p in parts]
        if self._shape is None:
            return cast(Parts, [t.movedim(1, 0) if turn else t for t in tensors])
        whole = tensors[0] if self._shape == () else torch.stack(tensors, -1)
        return cast(Parts, whole.movedim(1, 0) if turn else whole)


def _channels(series) -> tuple[list[np.ndarray], tuple[int, ...] | None]:
    """Float64 channels, and the trailing shape they came in (None: recordings, each of one channel)."""
    parts, several = as_recordings(series)
    if several and parts[0].ndim > 1:
        raise ValueError("recordings must be (T,) each: decompose the channels of one recording, or one channel")
    parts = [p.detach().cpu().double().numpy() for p in parts]
    if several:
        return parts, None
    return (parts, ()) if parts[0].ndim == 1 else (list(parts[0].T), parts[0].shape[1:])
