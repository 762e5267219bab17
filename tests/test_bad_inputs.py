"""Bad values of every argument of the public functions: each is refused by our own code, in words that name the argument.

A row of `TABLE` is a function, one of its arguments, and values that it cannot take. To add a function, write how it is
called rightly in `CALLS` and its rows below.
"""

import copy
import traceback
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mspace as ms

PACKAGE = str(Path(ms.__file__).parent)
X = ms.normal(40, 4, seed=1)
Y = torch.randint(3, (40,), generator=ms.seeded(2))
NAN = float("nan")
INF = float("inf")


def net(inputs=4, outputs=3, hidden=5):
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(ms.normal(*p.shape, seed=10 + i) / 2)
    return model


def frozen():
    return net().requires_grad_(False)


def not_finite():
    model = net()
    model[2].weight.data[1, 2] = NAN
    return model


def with_last(x, value):
    x = x.clone()
    x[-1] = value
    return x


NET, DATA = net(), (X, Y)
NEURONS = ms.NeuronDistribution.from_samples(ms.normal(30, 6, 4, seed=3))
ENSEMBLE = ms.Ensemble.of([net() for _ in range(3)])
POSTERIOR = ms.laplace(NET, DATA, F.cross_entropy)
SERIES = torch.sin(torch.arange(60.0)) + 0.1 * ms.normal(60, seed=4).float()
ROWS = ms.rows_of(NET, "0")
LABELS = torch.tensor([0, 0, 1, 1, 2])

HEAD = {"model": NET, "data": DATA, "loss": F.cross_entropy}
CALLS = {  # function -> the arguments of a right call
    "fit": HEAD | {"epochs": 1},
    "train_ensemble": HEAD | {"n_models": 3, "epochs": 1},
    "bootstrap": HEAD | {"n_models": 4, "epochs": 1},
    "bootstrap_neurons": HEAD | {"layer": "0", "n_models": 4, "epochs": 1},
    "refine": HEAD | {"steps": 2, "tolerance": 1.0},
    "sandwich": HEAD | {"damping": 0.1},
    "laplace": HEAD,
    "online": HEAD | {"steps": 1000},
    "variational": HEAD | {"epochs": 1},
    "KMeans": {"n_clusters": 2, "metric": ms.wasserstein2},
    "NeuronDistribution": {"mean": torch.zeros(2, 3), "cov": torch.eye(3).expand(2, 3, 3)},
    "Ensemble.of": {"models": [NET]},
    "align": {"ensemble_or_samples": ENSEMBLE},
    "predict": {"posterior": POSTERIOR, "x": X, "likelihood": "categorical"},
    "weight_of": {"model": NET, "layer": "0"},
    "rows_of": {"model": NET, "layer": "0"},
    "merge": {"rows": ROWS, "labels": LABELS},
    "prune": {"rows": ROWS, "keep": [0, 1]},
    "compress": {"model": NET, "layer": "0", "reduction": ms.merge(ROWS, LABELS), "feeds": "2"},
    "shrink": {"model": NET, "layer": "0", "k": 3, "feeds": "2", "calibration": X, "steps": 2},
    "wasserstein2": {"p": NEURONS},
    "qpfs": {"similarity": torch.eye(4), "relevance": torch.ones(4)},
    "relevance": {"posterior_or_neurons": NEURONS},
    "communities": {"distances": torch.ones(8, 8) - torch.eye(8), "n_null": 2},
    "windows": {"series": SERIES, "width": 5},
    "split": {"series": SERIES, "sizes": (0.5, 0.5)},
    "autocorrelation": {"series": SERIES},
    "persistence": {"history": SERIES, "steps": 3},
    "ridge_ar": {"series": SERIES, "width": 5},
    "normal": {"shape": 3, "seed": 0},
    "seeded": {"seed": 0},
}
POSITIONAL = {"split": ("series", "sizes"), "normal": ("shape",)}
TRAINED = ("fit", "train_ensemble", "bootstrap", "bootstrap_neurons")
METHODS = (*TRAINED, "refine", "sandwich", "laplace", "online", "variational")


def sum_of_losses(output, target):
    return F.cross_entropy(output, target, reduction="sum")


MODELS = {
    "none": None,
    "a word": "net",
    "a class": nn.Linear,
    "a function": lambda x: x,
    "its parameters": net().state_dict(),
    "nothing to train": nn.Sequential(nn.ReLU()),
    "all frozen": frozen(),
    "not finite": not_finite(),
    "lazy": nn.Sequential(nn.LazyLinear(3)),
    "on meta": nn.Linear(4, 3, device="meta"),
    "complex": nn.Linear(4, 3, dtype=torch.complex64),
    "other inputs": net(inputs=3),
    "a recurrence": nn.LSTM(4, 3, batch_first=True).double(),
}
DATAS = {
    "none": None,
    "inputs alone": X,
    "three things": (X, Y, Y),
    "words": ("inputs", "targets"),
    "no example": (X[:0], Y[:0]),
    "fewer targets": (X, Y[:-1]),
    "a number": (X, torch.tensor(1)),
    "inputs not a number": (with_last(X, NAN), Y),
    "inputs infinite": (with_last(X, INF), Y),
    "no inputs": (None, Y),
    "words of numpy": (np.full((40, 4), "a"), Y),
    "complex": (X.to(torch.complex128), Y),
    "masked": (np.ma.masked_greater(X.numpy(), 0), Y),
    "a class too many": (X, with_last(Y, 3)),
    "a negative class": (X, with_last(Y, -1)),
    "targets of a regression": (X, X[:, 0]),
}
LOSSES = {
    "none": None,
    "a word": "cross_entropy",
    "a class": nn.CrossEntropyLoss,
    "a sum": sum_of_losses,
    "each example": partial(F.cross_entropy, reduction="none"),
    "a number": lambda output, target: 1.0,
    "no gradient": lambda output, target: F.cross_entropy(output.detach(), target),
    "one argument": lambda output: output.sum(),
    "another kind": F.mse_loss,
    "not finite": lambda output, target: F.cross_entropy(output, target) * NAN,
}
COUNTS = {"zero": 0, "negative": -1, "a half": 2.5, "a word": "3", "true": True, "not a number": NAN}
OPTIONAL_COUNT = {k: v for k, v in COUNTS.items() if k != "zero"}
REALS = {"negative": -1.0, "a word": "a", "not a number": NAN, "infinite": INF}
WORDS = {"unknown": "banana", "a number": 3}
CHOICES = WORDS | {"none": None}
GENERATORS = {"a number": 0, "numpy": np.random.default_rng(0), "a word": "seed"}
PROGRESS = {"none": None, "true": True}
LAYERS = {"unknown": "9", "a number": 0, "a module": NET[0], "without weight": "1"}
OPTIMIZERS = {
    "a word": "adam",
    "an instance": torch.optim.Adam(NET.parameters()),
    "mixing": partial(torch.optim.LBFGS, lr=1),
    "no optimiser": lambda parameters: None,
    "other options": partial(torch.optim.SGD, rate=0.1),
}
HELD_OUT = {"inputs alone": X, "other width": (X[:, :3], Y), "fewer targets": (X, Y[:3]), "not finite": (X * NAN, Y)}
SERIESES = {"none": None, "a word": "a", "not finite": SERIES * NAN, "complex": SERIES.to(torch.complex64)}

TABLE = []


def row(names, argument, values, says=None):
    names = (names,) if isinstance(names, str) else names
    TABLE.extend((name, argument, kind, value, says or argument) for name in names for kind, value in values.items())


row(METHODS, "model", MODELS)
row(METHODS, "data", DATAS, "data|inputs|targets|loss")
row(METHODS, "loss", LOSSES, "loss|targets")
row(TRAINED, "model", {"other precision": net().float()})
row(METHODS, "output", {"out of range": 7, "a key": "logits"})
row(TRAINED, "epochs", OPTIONAL_COUNT)
row(TRAINED, "batch_size", COUNTS | {"none": None})
row(TRAINED, "optimizer", OPTIMIZERS)
row(TRAINED, "init", CHOICES)
row(TRAINED, "validation", HELD_OUT, "validation|data|inputs|model")
row(TRAINED, "patience", {"without validation": 3} | COUNTS)
row((*TRAINED, "online", "variational", "KMeans", "shrink", "predict", "communities"), "generator", GENERATORS)
row((*TRAINED, "online", "variational"), "progress", PROGRESS)
row(("train_ensemble", "bootstrap", "bootstrap_neurons"), "n_models", COUNTS | {"none": None})
row("train_ensemble", "order", CHOICES)
row(
    "train_ensemble",
    "resample",
    {
        "too few": torch.zeros(2, 40, dtype=torch.long),
        "no axis": torch.zeros(40, dtype=torch.long),
        "beyond": torch.full((3, 40), 40),
        "negative": torch.full((3, 40), -1),
        "real": torch.zeros(3, 40),
        "a word": "pairs",
        "empty": torch.zeros(3, 0, dtype=torch.long),
    },
)
row(
    "train_ensemble",
    "weights",
    {
        "too few": torch.ones(3, 39),
        "negative": -torch.ones(3, 40),
        "not a number": torch.full((3, 40), NAN),
        "mean five": 5 * torch.ones(3, 40),
        "whole": torch.ones(3, 40, dtype=torch.long),
        "a list": [1.0] * 40,
    },
)
row("fit", "weights", {"too few": torch.ones(39), "a list": [1.0] * 40, "negative": -torch.ones(40)})
row(
    "train_ensemble",
    "seeds",
    {
        "too few": [1, 2],
        "real": torch.rand(3),
        "negative": [-1, 2, 3],
        "a word": "abc",
        "one": 3,
        "none of it": [None] * 3,
    },
)
BOOTSTRAPS = ("bootstrap", "bootstrap_neurons")
row(BOOTSTRAPS, "resample", CHOICES | {"blocks without block": "blocks"}, "resample|block")
row(BOOTSTRAPS, "block", {"too long": 41, "a word": "x", "a half": 2.5, "zero": 0, "negative": -1})
row(
    BOOTSTRAPS,
    "strata",
    {"too few": torch.zeros(5).long(), "a word": "banana", "two axes": torch.zeros(40, 2).long(), "real": X[:, 0]},
)
row(
    BOOTSTRAPS,
    "groups",
    {"too few": torch.zeros(5).long(), "a word": "banana", "two axes": torch.zeros(40, 2).long(), "real": X[:, 0]},
)
row(BOOTSTRAPS, "chunk", COUNTS | {"none": None})
row(BOOTSTRAPS, "n_jobs", {"zero": 0, "a word": "a", "a half": 1.5, "true": True})
row(BOOTSTRAPS, "align", WORDS)
row(BOOTSTRAPS, "store", {"a number": 3, "a file": __file__})
row("bootstrap_neurons", "layer", LAYERS)
row("bootstrap_neurons", "axis", {"beyond": 2, "a word": "a", "none": None})
row("refine", "steps", COUNTS)
row("refine", "tolerance", REALS | {"zero": 0.0})
row("refine", "weight_decay", REALS)
row(("sandwich", "laplace", "online", "variational"), "layers", LAYERS, "layer")
row(("sandwich", "laplace", "online"), "structure", CHOICES)
row("sandwich", "dependence", {"negative": -1, "too long": 40, "a half": 2.5, "a word": "a", "none": None})
row("sandwich", "groups", {"too few": torch.zeros(5).long(), "a word": "a"})
row("sandwich", "curvature", CHOICES)
row("sandwich", "damping", REALS)
row("laplace", "prior_precision", REALS | {"unknown layer": {"9": 1.0}, "a list": [1.0, 2.0]}, "prior_precision|layers")
row("online", "method", CHOICES)
row("online", "steps", OPTIONAL_COUNT)
row("online", "rate", {"zero": 0.0} | REALS)
row("online", "alpha", {"a half": 0.5, "one": 1.0, "a word": "a"})
row("online", "batch_size", COUNTS)
row("variational", "family", CHOICES)
row("variational", "prior_precision", {"zero": 0.0} | REALS)
row("variational", "init_scale", {"zero": 0.0} | REALS)
row("variational", "draws", COUNTS)
row("variational", "optimizer", {k: v for k, v in OPTIMIZERS.items() if k != "mixing"})
row("variational", "prior", {"a word": "x", "a number": 3, "a network": NET})
row("KMeans", "n_clusters", COUNTS | {"none": None})
row("KMeans", "n_init", COUNTS)
row("KMeans", "metric", {"a word": "euclidean", "none": None})
row("NeuronDistribution", "mean", {"not finite": torch.full((2, 3), NAN), "one axis": torch.zeros(3), "a word": "a"})
row(
    "NeuronDistribution",
    "cov",
    {
        "indefinite": -torch.eye(3).expand(2, 3, 3),
        "asymmetric": torch.ones(2, 3, 3).triu(),
        "another size": torch.eye(2).expand(2, 2, 2),
        "not finite": torch.full((2, 3, 3), NAN),
    },
)
row("Ensemble.of", "models", {"none": [], "a word": "a", "numbers": [1, 2], "different": [net(), net(hidden=6)]})
row("align", "ensemble_or_samples", {"a network": NET, "none": None, "a word": "a"}, "ensemble|samples")
row("align", "group", CHOICES)
row("predict", "posterior", {"a network": NET, "none": None})
row("predict", "x", {"other width": X[:, :3], "not finite": X * NAN, "none": None, "a word": "a"}, "x|inputs|model")
row("predict", "size", COUNTS)
row(("weight_of", "rows_of"), "model", {"none": None, "a word": "a", "a class": nn.Linear})
row(("weight_of", "rows_of"), "layer", LAYERS | {"none": None})
row(("merge", "prune"), "rows", {"one axis": torch.ones(3), "not finite": ROWS * NAN, "a word": "a", "none": None})
row("merge", "labels", {"too few": LABELS[:2], "real": LABELS.double(), "a word": "a", "none": None})
row("prune", "keep", {"beyond": [0, 9], "twice": [0, 0], "none": [], "negative": [-1], "real": [0.5], "a word": "a"})
row("compress", "model", {"none": None, "a word": "a", "a class": nn.Linear})
row("compress", "layer", LAYERS)
row("compress", "feeds", {"unknown": "9", "a number": 2, "without weight": "1", "itself": "0"}, "feeds|layer")
row("compress", "reduction", {"none": None, "labels": LABELS, "of other rows": ms.merge(ROWS[:4], LABELS[:4])})
row(
    "compress",
    "calibration",
    {"a word": "a", "other width": X[:, :3], "not finite": X * NAN},
    "calibration|inputs|model",
)
row("shrink", "k", COUNTS | {"too many": 6})
row("shrink", "calibration", {"none": None, "other width": X[:, :3], "not finite": X * NAN}, "calibration|inputs|model")
row("wasserstein2", "p", {"none": None, "a tensor": torch.eye(3), "a word": "a"})
row(
    "wasserstein2",
    "q",
    {"a tensor": torch.eye(3), "another size": ms.NeuronDistribution.from_samples(X[:, None, :3])},
    "q|dim",
)
row(
    "qpfs",
    "similarity",
    {"not square": torch.ones(4, 3), "not finite": torch.eye(4) * NAN, "a word": "a", "none": None},
)
row("qpfs", "relevance", {"too few": torch.ones(3), "not finite": torch.ones(4) * NAN, "a word": "a", "none": None})
row("qpfs", "alpha", {"negative": -0.1, "above one": 1.1, "a word": "a", "not a number": NAN})
row("relevance", "by", CHOICES)
row(
    "relevance",
    "posterior_or_neurons",
    {"none": None, "a word": "a", "a tensor": torch.eye(3)},
    "posterior|neurons|got",
)
row(
    "communities",
    "distances",
    {"not square": torch.ones(4, 3), "not finite": torch.eye(8) * NAN, "a word": "a", "none": None},
)
row("communities", "neighbors", {"zero": 0, "too many": 8, "a half": 2.5, "a word": "a"})
row("windows", "width", COUNTS | {"too long": 61, "none": None})
row("windows", "horizon", {"negative": -1, "a half": 2.5, "a word": "a", "none": None})
row(("windows", "autocorrelation", "ridge_ar"), "series", SERIESES)
row("split", "series", {"none": None, "a word": "a"})
row(
    "split",
    "sizes",
    {"too long": (50, 20), "negative": (-1, 10), "a word": ("a", "b"), "not a number": (NAN, 0.5)},
    "sizes|split",
)
row("split", "gap", {"negative": -1, "a half": 2.5, "a word": "a"})
row("variational", "batch_size", OPTIONAL_COUNT)
row("variational", "kl_weight", REALS)
row("variational", "noise", {"of classes": 0.1})
row("laplace", "noise", {"of classes": 0.1, "negative": -1.0})
row("laplace", "largest", {"too small": 5})
row("online", "chains", COUNTS)
row("persistence", "history", SERIESES)
row("persistence", "steps", COUNTS | {"none": None})
row("ridge_ar", "width", COUNTS | {"none": None})
row("ridge_ar", "penalty", REALS)
row("normal", "shape", {"negative": -1, "a half": 2.5, "a word": "a", "none": None})
row(("normal", "seeded"), "seed", {"negative": -1, "a half": 2.5, "a word": "a", "none": None, "true": True})


def called(name, arguments):
    function = ms
    for part in name.split("."):
        function = getattr(function, part)
    given = dict(arguments)
    first = []
    for k in POSITIONAL.get(name, ()):
        value = given.pop(k)
        first += value if isinstance(value, tuple) else [value]
    return function(*first, **given)


def test_the_table_is_large_and_its_right_calls_are_right():
    assert len(TABLE) >= 300
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, arguments in CALLS.items():
            called(name, arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "argument", "value", "says"),
    [pytest.param(n, a, v, says, id=f"{n}-{a}-{kind}") for n, a, kind, v, says in TABLE],
)
def test_refused_by_name(name, argument, value, says):
    value = copy.copy(value)
    with pytest.raises((ValueError, TypeError)) as caught:
        called(name, CALLS[name] | {argument: value})
    assert any(word in str(caught.value) for word in says.split("|")), f"{argument} is not named: {caught.value}"
    source = traceback.extract_tb(caught.value.__traceback__)[-1].filename
    assert source.startswith(PACKAGE), f"raised in {source}: {caught.value}"
