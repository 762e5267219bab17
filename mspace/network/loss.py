"""Which loss it is: the two whose derivatives and likelihoods are known."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

__all__ = ["loss_kind"]


def loss_kind(loss) -> str | None:
    """Return "mse" or "cross_entropy" for these losses of torch with their default options, else None."""
    if loss is F.mse_loss or (type(loss) is nn.MSELoss and loss.reduction == "mean"):
        return "mse"
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.reduction == "mean"
    if loss is F.cross_entropy or (plain and loss.label_smoothing == 0 and loss.ignore_index == -100):
        return "cross_entropy"
    return None
