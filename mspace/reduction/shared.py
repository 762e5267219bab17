"""A layer that keeps its shape and stores fewer rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .reductions import Reduction

__all__ = ["SharedRows"]


class SharedRows(nn.Module):
    """m outputs from k rows: ``y = expand @ (W x + b)``, with W (k, n); stands in for a Linear or a convolution.

    Stored are the k rows, and of `expand` what it takes: an index for each output where outputs are shared, with a
    scale where scales differ, the matrix where outputs are combinations, nothing where a formula gives it.

    Attributes:
        rows: the layer with k outputs
        index: (m,) the row of each output, or None
        scale: (m,) parameter, or None
        expand: (m, k) parameter or, for a formula, a buffer that no state holds; None where there is an index
    """

    def __init__(self, rows: nn.Module, reduction: Reduction):
        super().__init__()
        like = rows.weight
        index, expand = reduction.assignment, reduction.expand.to(like)
        self.rows, self.axis = rows, 1 if isinstance(rows, nn.modules.conv._ConvNd) else -1
        scale = None if index is None else expand.gather(1, index[:, None].to(like.device))[:, 0]
        # with one row there is nothing to look up
        self.register_buffer("index", None if index is None else index.to(like.device), persistent=len(reduction) > 1)
        self.scale = None if scale is None or (scale == 1).all() else nn.Parameter(scale)
        if reduction.formula:
            self.index = self.scale = None
            self.register_buffer("expand", expand, persistent=False)
        else:
            self.expand = nn.Parameter(expand) if index is None else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.rows(x)
        if self.index is None:
            return torch.tensordot(y.movedim(self.axis, -1), self.expand.T, 1).movedim(-1, self.axis)
        y = y.index_select(self.axis, self.index)
        return y if self.scale is None else (y.movedim(self.axis, -1) * self.scale).movedim(-1, self.axis)

    @property
    def weight(self) -> Tensor:
        """The weight that the layer acts as, (m, ...)."""
        return self._spread(self.rows.weight)

    @property
    def bias(self) -> Tensor | None:
        """The bias that the layer acts as, (m,)."""
        return None if self.rows.bias is None else self._spread(self.rows.bias)

    def _spread(self, rows: Tensor) -> Tensor:
        if self.index is None:
            return torch.tensordot(self.expand, rows, 1)
        rows = rows[self.index]
        return rows if self.scale is None else rows * self.scale.reshape(-1, *(1 for _ in rows.shape[1:]))
