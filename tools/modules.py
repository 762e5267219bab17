"""Print the table modules x methods of the reference: what each method does with each kind of module.

    python tools/modules.py           print the table
    python tools/modules.py --write   put it into book/modules.md, between its marks

A cell is "✓", checked against a twin (an ordinary network that computes the same) where there is one, and else by what must
hold; or the words of the refusal up to the way out. Anything else is wrong, and the tests fail.
"""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import mspace as ms

PAGE = Path(__file__).resolve().parent.parent / "book" / "modules.md"
X = ms.normal(80, 4, seed=1)
Y = (X[:, 0] + 0.7 * ms.normal(80, seed=2) > 0).long() + (X[:, 1] + 0.7 * ms.normal(80, seed=3) > 0.8).long()
TOKENS = torch.randint(5, (80, 3), generator=ms.seeded(4))


class Module(nn.Module):
    """A network with a hidden layer `a`, an activation and an output layer `b`, to vary."""

    def __init__(self, activation=nn.Tanh, inputs: int = 4):
        super().__init__()
        self.a, self.act, self.b = nn.Linear(inputs, 6), activation(), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(self.act(self.a(x)))


class Tied(Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Linear(4, 6, bias=False)
        self.c.weight = self.a.weight

    def forward(self, x):
        return self.b(self.act(self.a(x)) * torch.sigmoid(self.c(x)))


class Unused(Module):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Twice(Module):
    def __init__(self):
        super().__init__()
        self.b = nn.Linear(4, 3)
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return self.b(self.act(self.a(self.act(self.a(x)))))


class Writes(Module):
    def forward(self, x):
        x -= 0.5
        return super().forward(x)


class Copies(Module):
    def forward(self, x):
        return super().forward(x - 0.5)


class Branches(Module):
    def forward(self, x):
        return super().forward(x) if float(self.b.bias.sum()) < 1e9 else super().forward(-x)


class Pair(Module):
    def forward(self, x):
        return super().forward(x), x


class Keyed(Module):
    def forward(self, x):
        return {"logits": super().forward(x), "inputs": x}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(self.a(x[:, None].expand(-1, 3, -1))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.stack([x, x.roll(1, 1), x.roll(2, 1)], 1)
        return self.b(self.a(h, h, h, need_weights=False)[0].mean(1))


class Noisy(Module):
    def forward(self, x):
        return super().forward(x) + 0.1 * torch.randn(len(x), 3, dtype=x.dtype)


class Centred(Module):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Counting(Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return super().forward(x - self.mean)


class Bounds(Module):
    def keep_bounds(self, parameters):
        for name, p in parameters.items():
            if name == "a.weight":
                p.clamp_(-0.3, 0.3)


class Table(Module):
    def __init__(self):
        super().__init__()
        self.table = torch.eye(4)

    def forward(self, x):
        return super().forward(x @ self.table)


class Halved(nn.Module):
    def forward(self, h):
        return h * torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=h.dtype)


def drawn(model: nn.Module) -> nn.Module:
    """Return a module in double precision whose parameters are drawn from a stream of their own."""
    model = model.double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(0.5 * ms.normal(*p.shape, seed=50 + i))
    return model


def dense(*between: nn.Module) -> nn.Module:
    return drawn(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *between, nn.Linear(6, 3)))


def changed(model: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    change(model)
    return model


def hooked(model: nn.Module) -> nn.Module:
    model[1].register_forward_hook(lambda _m, _i, out: Halved()(out))
    return model


MASK = (torch.arange(24).view(6, 4) % 2).double()


def masked(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model[0].weight.mul_(MASK)
    model[0].weight.register_hook(lambda grad: grad * MASK)
    return model


@dataclass(frozen=True)
class Kind:
    """A kind of module: how it is made, what computes the same, and what must hold of a trained one beside."""

    make: Callable[[], nn.Module]
    twin: Callable[[], nn.Module] | None = None
    holds: Callable[[nn.Module, nn.Module], bool] | None = None  # (given, trained)
    output: object = None
    inputs: Tensor = X
    layer: str | None = None


def frozen() -> nn.Module:
    return changed(dense(), lambda m: m[0].requires_grad_(False))


def bounds() -> nn.Module:
    return changed(drawn(Bounds()), lambda m: m.a.weight.data.clamp_(-0.3, 0.3))


KINDS = {
    "nn.Sequential of Linear and Tanh": Kind(dense, layer="0"),
    "a module with a forward of its own": Kind(lambda: drawn(Module()), dense, layer="a"),
    "a frozen layer": Kind(frozen, holds=lambda m, f: torch.equal(m[0].weight, f[0].weight), layer="2"),
    "all frozen": Kind(lambda: dense().requires_grad_(False)),
    "tied weights": Kind(lambda: drawn(Tied()), holds=lambda _, f: f.a.weight is f.c.weight, layer="a"),
    "a layer used twice": Kind(lambda: drawn(Twice()), layer="a"),
    "unused parameters": Kind(lambda: drawn(Unused()), layer="a"),
    "a forward hook": Kind(lambda: hooked(dense()), lambda: dense(Halved()), layer="0"),
    "a hook on a gradient": Kind(
        lambda: masked(dense()), holds=lambda _, f: bool((f[0].weight * (1 - MASK) == 0).all()), layer="0"
    ),
    "pruned (torch.nn.utils.prune)": Kind(
        lambda: changed(dense(), lambda m: prune.custom_from_mask(m[0], "weight", MASK)), layer="0"
    ),
    "weight_norm (old)": Kind(lambda: changed(dense(), lambda m: nn.utils.weight_norm(m[0])), layer="0"),
    "weight_norm (parametrization)": Kind(
        lambda: changed(dense(), lambda m: parametrizations.weight_norm(m[0])), layer="0"
    ),
    "orthogonal (parametrization)": Kind(
        lambda: changed(dense(), lambda m: parametrizations.orthogonal(m[0])), layer="0"
    ),
    "dropout": Kind(lambda: dense(nn.Dropout(0.2)), layer="0"),
    "dropout in evaluation mode": Kind(
        lambda: changed(dense(nn.Dropout(0.2)), lambda m: m[2].eval()), dense, layer="0"
    ),
    "batch normalisation": Kind(lambda: dense(nn.BatchNorm1d(6)), layer="0"),
    "batch normalisation in evaluation mode": Kind(lambda: dense(nn.BatchNorm1d(6)).eval(), layer="0"),
    "batch normalisation without statistics": Kind(lambda: dense(nn.BatchNorm1d(6, track_running_stats=False))),
    "layer normalisation": Kind(lambda: dense(nn.LayerNorm(6)), layer="0"),
    "a buffer that training moves": Kind(lambda: drawn(Counting()), layer="a"),
    "bounds (keep_bounds)": Kind(bounds, holds=lambda _, f: bool(f.a.weight.abs().max() <= 0.3), layer="a"),
    "writes into its inputs": Kind(lambda: drawn(Writes()), lambda: drawn(Copies()), layer="a"),
    "begins with ReLU(inplace=True)": Kind(
        lambda: drawn(nn.Sequential(nn.ReLU(inplace=True), *dense())),
        lambda: drawn(nn.Sequential(nn.ReLU(), *dense())),
        layer="1",
    ),
    "branches on numbers": Kind(lambda: drawn(Branches()), dense, layer="a"),
    "an LSTM": Kind(lambda: drawn(Recurrent()), layer="a"),
    "attention": Kind(lambda: drawn(Attention()), layer="b"),
    "an embedding": Kind(
        lambda: drawn(nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 3))), inputs=TOKENS, layer="0"
    ),
    "a convolution": Kind(
        lambda: drawn(
            nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3))
        ),
        layer="1",
    ),
    "weights stored transposed": Kind(
        lambda: changed(dense(), lambda m: setattr(m[0].weight, "data", m[0].weight.data.T.contiguous().T)),
        dense,
        layer="0",
    ),
    "returns a tuple, output=0": Kind(lambda: drawn(Pair()), dense, output=0, layer="a"),
    "returns a dictionary, output='logits'": Kind(lambda: drawn(Keyed()), dense, output="logits", layer="a"),
    "returns a tuple": Kind(lambda: drawn(Pair())),
    "bfloat16": Kind(lambda: dense().bfloat16(), inputs=X.bfloat16(), layer="0"),
    "a tensor that is no buffer": Kind(lambda: drawn(Table()).float(), inputs=X.float(), layer="a"),
    "random outputs in evaluation mode": Kind(lambda: drawn(Noisy())),
    "outputs that depend on the batch": Kind(lambda: drawn(Centred())),
    "lazy": Kind(lambda: nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.LazyLinear(3))),
    "complex": Kind(lambda: nn.ParameterList([nn.Parameter(torch.zeros(3, dtype=torch.complex64))])),
    "scripted": Kind(lambda: torch.jit.trace(dense(), X)),
    "DataParallel": Kind(lambda: nn.DataParallel(dense())),
    "NaN in a parameter": Kind(lambda: changed(dense(), lambda m: m[0].weight.data.fill_(float("nan")))),
}


def total(result) -> float:
    """Return a number that sums up a result."""
    if isinstance(result, ms.GaussianPosterior):
        return float(sum(v.sum() for v in result.variance().values()))
    if isinstance(result, ms.Ensemble):
        return float(sum(v.double().var(0).sum() for v in result.parameters.values()))
    return float(sum(p.double().square().sum() for p in result.parameters()))


LOSS = F.cross_entropy
TRAINED = {"epochs": 2, "batch_size": 16}
METHODS: dict[str, Callable] = {
    "fit": lambda m, d, **o: ms.fit(m, d, LOSS, generator=ms.seeded(0), **TRAINED, **o),
    "bootstrap": lambda m, d, **o: ms.bootstrap(m, d, LOSS, n_models=3, generator=ms.seeded(0), **TRAINED, **o),
    "refine": lambda m, d, **o: ms.refine(m, d, LOSS, weight_decay=0.1, steps=50, tolerance=10.0, **o),
    "sandwich": lambda m, d, **o: ms.sandwich(m, d, LOSS, damping=0.1, curvature="gauss_newton", **o),
    "laplace": lambda m, d, **o: ms.laplace(m, d, LOSS, **o),
    "online": lambda m, d, **o: ms.online(m, d, LOSS, steps=1000, generator=ms.seeded(0), **o),
    "variational": lambda m, d, **o: ms.variational(m, d, LOSS, epochs=2, generator=ms.seeded(0), **o),
}


ACCURACY = {"variational": 0.02}  # a dense network draws outputs, any other weights


def trained(result) -> nn.Module:
    """Return a network of a result: a member, or the network at a posterior's mean."""
    if isinstance(result, ms.GaussianPosterior):
        return result.model()
    return result[0] if isinstance(result, ms.Ensemble) else result


def cell(kind: Kind, name: str) -> str:
    """Return what a method does with a kind of module; an error of any other kind than a refusal passes through."""
    method, model, inputs, targets = METHODS[name], kind.make(), kind.inputs.clone(), Y.clone()
    lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters())
    before = None if lazy else {k: v.clone() for k, v in copy.copy(model).state_dict().items()}
    options = {} if kind.output is None else {"output": kind.output}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = method(model, (inputs, targets), **options)
        except ValueError as refusal:
            return f"refused: {refusal}"
        same = torch.equal(inputs, kind.inputs) and torch.equal(targets, Y)
        after = model.state_dict()
        if not same or before is None or not all(torch.equal(v, after[k]) for k, v in before.items()):
            return "wrong: data or module have changed"
        value = total(result)
        if not math.isfinite(value):
            return f"wrong: {value}"
        if kind.holds is not None and not kind.holds(kind.make(), trained(result)):
            return "wrong: what the module says of itself does not hold"
        if kind.twin is not None:
            right = total(method(kind.twin(), (kind.inputs.clone(), targets)))
            if abs(value - right) > ACCURACY.get(name, 1e-6) * abs(right):
                return f"wrong: {value:.6g}, and {right:.6g} of the same network in other words"
        if kind.layer is not None and hasattr(result, "neurons"):
            spread = result.neurons(kind.layer).cov.diagonal(dim1=1, dim2=2)
            if not torch.isfinite(spread).all() or not (spread > 0).any():
                return "wrong: the neurons have no covariance"
    return "✓"


def table() -> dict[str, dict[str, str]]:
    """Return every cell by kind and method."""
    return {name: {m: cell(kind, m) for m in METHODS} for name, kind in KINDS.items()}


def page(cells: dict[str, dict[str, str]]) -> str:
    """Return the table in Markdown, with a note for each refusal."""
    notes: list[str] = []

    def short(text: str) -> str:
        if text == "✓":
            return text
        if text not in notes:
            notes.append(text)
        return f"refused ({notes.index(text) + 1})"

    head = ["| module | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    rows = [f"| {name} | " + " | ".join(short(c) for c in row.values()) + " |" for name, row in cells.items()]
    return "\n".join([*head, *rows, "", *(f"{i + 1}. {n.removeprefix('refused: ')}" for i, n in enumerate(notes)), ""])


if __name__ == "__main__":
    text = page(table())
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- table -->\n")
        after = rest.partition("<!-- end -->")[2]
        PAGE.write_text(f"{before}<!-- table -->\n{text}<!-- end -->{after}", encoding="utf-8")
    else:
        print(text)
