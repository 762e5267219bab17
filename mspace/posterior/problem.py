"""A checked network in double precision, its data in pieces, the blocks to find, and the loss as a function of outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap

from ..checks import check_bool, check_int
from ..door import checked
from ..network.loss import loss_kind
from ..network.parameters import blocks_of, positions, unflatten
from .gaussian import Block

__all__ = [
    "LARGEST",
    "OutputLoss",
    "Plan",
    "Problem",
    "distance_of",
    "each",
    "likelihood_of_kind",
    "warn_if_far",
]


class OutputLoss:
    """The loss of single examples by their answers.

    Attributes:
        kind: "mse" or "cross_entropy", whose derivatives are known, or None
        count: numbers of an answer
    """

    def __init__(self, loss: Callable, out: Tensor, targets: Tensor):
        """By a few answers, and all targets."""
        self.loss, self.count, self.kind = loss, out[0].numel(), _kind(loss, out, targets)

    def slope(self, out: Tensor, target: Tensor) -> Tensor:
        """The gradient of each example's loss, (c, ...) as the answers."""
        if self.kind == "mse":
            return (out - target).mul_(2 / self.count)
        if self.kind == "cross_entropy":
            return torch.softmax(out, 1).scatter_add_(1, target[:, None], -out.new_ones(len(out), 1))
        return each(grad(self._one), out, target)

    def roots(self, out: Tensor, target: Tensor) -> Iterator[Tensor]:
        """Tensors (c, ...) as the answers, whose outer products sum up to each example's second derivative.

        Where a loss is not convex in the answer, only the part of it that is.
        """
        count = self.count
        if self.kind == "mse":
            for i in range(count):
                root = torch.zeros_like(out)
                root.view(len(out), -1)[:, i] = math.sqrt(2 / count)
                yield root
        elif self.kind == "cross_entropy":
            share = torch.softmax(out, 1)  # diag(s) - s s.T is the square of (e_i - s) sqrt(s_i), summed
            for i in range(count):
                root = -share.clone()
                root[:, i] += 1
                yield root.mul_(share[:, i : i + 1].sqrt())
        else:
            curved = each(jacrev(grad(self._one)), out, target).reshape(len(out), count, count)
            power, axes = torch.linalg.eigh((curved + curved.mT) / 2)
            for i in range(count):
                yield (axes[:, :, i] * power[:, i : i + 1].clamp(min=0).sqrt()).view_as(out)

    def _one(self, out: Tensor, target: Tensor) -> Tensor:
        return self.loss(out[None], target[None])


def each(function: Callable, *batches: Tensor) -> Tensor:
    """A function of one example for all of them; one after another where torch has no rule to batch it."""
    try:
        return vmap(function)(*batches)
    except RuntimeError:
        return torch.stack([function(*one) for one in zip(*batches)])


def _kind(loss: Callable, out: Tensor, target: Tensor) -> str | None:
    """Return the kind of the loss, where outputs and targets have the shapes of which its derivatives are known."""
    kind = loss_kind(loss)
    if kind == "mse":
        return kind if out.shape[1:] == target.shape[1:] else None
    if kind is None or out.ndim != 2 or target.ndim != 1 or target.is_floating_point():
        return None
    if target.min() < 0:
        raise ValueError(f"targets must be classes from 0 on, got {int(target.min())}: cut those examples out")
    return kind


FAR = 3.0  # standard errors between a network and the minimum beside it: another network, as the data see it
LARGEST = 5000  # parameters of a matrix: 200 MB, and several are held


@dataclass(frozen=True, eq=False)
class Problem:
    """A network at rest, in double precision on the CPU, with its data; the model that was given is not touched.

    Attributes:
        free: names of the parameters that are random, in order; p is how many numbers they have
        outputs: the loss by the answer to one example
    """

    net: nn.Module
    x: Tensor
    y: Tensor
    loss: Callable
    free: tuple[str, ...]
    outputs: OutputLoss

    @classmethod
    def of(cls, model: nn.Module, data, loss: Callable, layers, *, output=None, curved: bool = True) -> Problem:
        """Check everything, the loss on a few examples too."""
        given = checked(model, data, loss, output=output, double=True, curved=curved)
        wanted, net = positions(model, layers), given.model
        place = unflatten(net, torch.arange(sum(p.numel() for p in net.parameters())))
        free = tuple(name for name, at in place.items() if torch.isin(at, wanted).all())
        return cls(net, *given.data, given.loss, free, OutputLoss(given.loss, given.out, given.data[1]))

    def __len__(self) -> int:
        """n, the number of examples."""
        return len(self.x)

    @property
    def size(self) -> int:
        """p, the number of random parameters."""
        named = dict(self.net.named_parameters())
        return sum(named[k].numel() for k in self.free)

    def pieces(self, size: int, runs: Sequence[tuple[int, int]] | None = None) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """Inputs and targets in double precision, `size` examples at a time, and whether a run ends with them."""
        for start, stop in [(0, len(self))] if runs is None else runs:
            for i in range(start, stop, size):
                end = min(stop, i + size)
                yield _double(self.x[i:end]), _double(self.y[i:end]), end == stop


@dataclass(frozen=True, eq=False)
class Plan:
    """Within which parameters matrices are inverted, and which blocks of the inverses are handed out.

    Attributes:
        within: "model", all parameters that were asked for; "layer"; or "block", each block by itself
        scopes: numbers of the random parameters, each (k, b): those that share an inverted matrix
        blocks: their positions in the vector of all parameters, each (k', b')
        wanted: positions of the random parameters, (p,)
    """

    within: str
    scopes: list[Tensor]
    blocks: list[Tensor]
    wanted: Tensor

    @classmethod
    def of(cls, model: nn.Module, structure: str, layers, conditional: bool, largest: int) -> Plan:
        """The largest scopes that fit; see `sandwich`."""
        largest = check_int(largest, "largest", 1)
        check_bool(conditional, "conditional")
        blocks, wanted = blocks_of(model, structure, layers), positions(model, layers)
        by_layer = blocks_of(model, "layer", layers)
        if conditional:
            within, scopes = "block", blocks
        elif len(wanted) <= largest:
            within, scopes = "model", [wanted[None]]
        elif structure != "full" and max(s.shape[1] for s in by_layer) <= largest:
            within, scopes = "layer", by_layer
        else:
            within, scopes = "block", blocks
        widest = max(s.shape[1] for s in scopes)
        if widest > largest:
            smaller = {"full": '"layer", "neuron" or "diagonal"', "layer": '"neuron" or "diagonal"'}
            raise ValueError(
                f'structure="{structure}" needs matrices of {widest} parameters, several of {8e-9 * widest**2:.2g} GB each, '
                f"and largest={largest}: take structure={smaller.get(structure, chr(34) + 'diagonal' + chr(34))}, name "
                "fewer layers=, or raise largest="
            )
        return cls(within, [torch.searchsorted(wanted, s) for s in scopes], blocks, wanted)

    def carve(self, covs: list[Tensor]) -> list[Block]:
        """The blocks out of the covariances of the scopes, each (k, b, b)."""
        if self.within == "block" or (len(self.blocks) == 1 and len(self.blocks[0]) == 1):
            return [Block(index, cov) for index, cov in zip(self.blocks, covs)]
        found = []
        for scope, cov in zip(self.scopes, covs):
            at = self.wanted[scope[0]]
            for block in self.blocks:
                if len(own := block[torch.isin(block, at).all(1)]):
                    place = torch.searchsorted(at, own)
                    found.append(Block(own, cov[0][place[:, :, None], place[:, None, :]]))
        return found


def _double(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64 if values.is_floating_point() else values.dtype)


def likelihood_of_kind(kind: str | None) -> dict[str, str]:
    """Return the likelihood that a known loss stands for, as an entry of a report."""
    known = {"mse": "gaussian", "cross_entropy": "categorical"}
    return {"likelihood": known[kind]} if kind in known else {}


def distance_of(step: Tensor, cov: Tensor) -> float:
    """Return the largest of Newton steps (k, b) in units of the standard errors of covariances (k, b, b)."""
    spread = cov.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    moves = step.abs() > 1e-9 * step.abs().amax()
    ratio = torch.where(moves & (spread > 0), step.abs() / spread.clamp(min=torch.finfo(spread.dtype).tiny), 0.0)
    return float(ratio.amax())


def warn_if_far(distance: float, n: int, size: int, regular: bool) -> None:
    """Say that a network is not where its covariance is asked for, or that the data cannot determine it.

    Args:
        distance: of `distance_of`
        regular: whether a prior or a damping makes up for data that are too few
    """
    if distance > FAR:
        warnings.warn(
            f"the network is not at a minimum of the loss: a Newton step from it is {distance:.2g} standard errors long. "
            "Take it there first, ms.refine(model, data, loss), with the same weight decay or prior",
            RuntimeWarning,
            stacklevel=3,
        )
    if n < size and not regular:
        warnings.warn(
            f"{size} parameters and {n} examples: the data do not determine them all. Name damping=, fewer layers=, or take "
            "laplace with a prior",
            RuntimeWarning,
            stacklevel=3,
        )
