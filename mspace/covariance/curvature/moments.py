"""Sums of outer products of rows, and their long-run version for rows that follow one another in time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Grams", "LongRun", "between", "runs_of"]


class Grams:
    """Sums over rows r of r r.T, only between the columns that stand together in a block.

    Args:
        blocks: numbers of columns, each (k, b)
    """

    def __init__(self, blocks: Sequence[Tensor]):
        self.blocks = blocks
        self.sums = [torch.zeros(*b.shape, b.shape[1], dtype=torch.float64) for b in blocks]

    def add(self, rows: Tensor) -> None:
        """Take rows (c, p)."""
        for block, total in zip(self.blocks, self.sums):
            if len(block) == 1:
                _add_triangle(total[0], _columns(rows, block[0]))
            elif block.shape[1] == 1:
                total[:, 0, 0] += _columns(rows, block[:, 0]).square().sum(0)
            else:
                own = rows[:, block].transpose(0, 1)
                total.baddbmm_(own.mT, own)

    def finish(self) -> list[Tensor]:
        """The sums, (k, b, b) each."""
        for block, total in zip(self.blocks, self.sums):
            if len(block) == 1:
                _mirror(total[0])
        return self.sums


class LongRun:
    """The same with the products of rows up to `lags` apart, by the weights of Bartlett: Newey and West (1987).

    Weighted so, the products are those of sums of lags + 1 neighbours, of which all there are, the incomplete ones at
    both ends too, are taken. So a lag costs nothing, and the result has no negative eigenvalue.
    """

    def __init__(self, grams: Grams, lags: int):
        self.grams, self.lags, self.before = grams, lags, None

    def add(self, rows: Tensor, last: bool) -> None:
        """Take rows (c, p) that follow the ones before, and whether a recording ends with them."""
        if not self.lags:
            self.grams.add(rows)
            return
        if self.before is None:
            self.before = rows.new_zeros(self.lags, rows.shape[1])
        self._slide(rows)
        if last:
            self._slide(rows.new_zeros(self.lags, rows.shape[1]))  # and so the next recording begins after nothing

    def _slide(self, rows: Tensor) -> None:
        joined = torch.cat([self.before, rows])
        self.before = joined[len(rows) :].clone()
        reach = joined.cumsum(0)
        sums = reach[self.lags :].clone()
        sums[1:] -= reach[: len(rows) - 1]
        self.grams.add(sums)

    def finish(self) -> list[Tensor]:
        """The sums, (k, b, b) each."""
        return [total.div_(self.lags + 1) for total in self.grams.finish()]


def between(outer: Tensor, inner: Tensor) -> Tensor:
    """``outer @ inner @ outer`` of symmetric matrices (k, b, b), in place of the inner one."""
    half = outer @ inner
    if len(outer) > 1:
        found = half @ outer
        return (found + found.mT) / 2
    step = _step(inner.shape[1])
    for i in range(0, inner.shape[1], step):
        inner[0, i : i + step, i:] = half[0, i : i + step] @ outer[0, :, i:]
    _mirror(inner[0])
    return inner


def runs_of(n: int, groups: Tensor | None) -> list[tuple[int, int]]:
    """Where recordings begin and end, by labels (n,) that change at their joints."""
    if groups is None:
        return [(0, n)]
    joints = ((groups[1:] != groups[:-1]).nonzero().flatten() + 1).tolist()
    return list(zip([0, *joints], [*joints, n]))


def _columns(rows: Tensor, columns: Tensor) -> Tensor:
    """Without a copy where they are neighbours."""
    first, last = int(columns[0]), int(columns[-1])
    if last - first + 1 == len(columns) and (columns.diff() == 1).all():
        return rows[:, first : last + 1]
    return rows[:, columns]


def _step(size: int) -> int:
    return max(128, -(-size // 8))


def _add_triangle(total: Tensor, rows: Tensor) -> None:
    """Only the blocks on and above the diagonal."""
    step = _step(len(total))
    for i in range(0, len(total), step):
        total[i : i + step, i:].addmm_(rows[:, i : i + step].T, rows[:, i:])


def _mirror(total: Tensor) -> None:
    step = _step(len(total))
    for i in range(0, len(total), step):
        corner = total[i : i + step, i : i + step]
        corner.copy_(corner.triu() + corner.triu(1).T)
        total[i + step :, i : i + step] = total[i : i + step, i + step :].T
