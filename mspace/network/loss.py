"""What a loss is: the two whose derivatives are known, whether a batch has the mean of its examples' losses, curvature."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, jacrev
from torch.utils._pytree import tree_leaves, tree_map

from ..checks import n_examples, take

__all__ = [
    "FAILURES",
    "check_curved",
    "check_differentiable",
    "check_loss",
    "check_mean",
    "loss_kind",
    "mean_of_weighted",
    "shapes_of",
    "usable_loss",
]

# what a network or a loss raises on data that do not fit it
FAILURES = (
    RuntimeError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    KeyError,
    NotImplementedError,
    AssertionError,
)


def loss_kind(loss) -> str | None:
    """Return "mse" or "cross_entropy" for these losses of torch with their default options, else None."""
    if loss is F.mse_loss or (type(loss) is nn.MSELoss and loss.reduction == "mean"):
        return "mse"
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.reduction == "mean"
    if loss is F.cross_entropy or (plain and loss.label_smoothing == 0 and loss.ignore_index == -100):
        return "cross_entropy"
    return None


def check_loss(loss: Callable, *, double: bool = False) -> Callable:
    """Return a loss, with its own tensors, such as class weights, in double precision on request."""
    if not callable(loss) or isinstance(loss, type):
        came = f"the class {loss.__name__}: create an instance" if isinstance(loss, type) else repr(loss)
        raise ValueError(
            f"loss must be a function (output, target) -> mean over the batch, such as F.mse_loss, got {came}"
        )
    return copy.deepcopy(loss).double() if double and isinstance(loss, nn.Module) else loss


def usable_loss(loss: Callable, out, target, dtype: torch.dtype) -> Callable:
    """Return the loss, fed in the type of the network where it cannot take the double precision of these outputs."""
    try:
        _value(loss, out, target)
    except _NoFit as why:
        floats = [t for t in tree_leaves((out, target)) if isinstance(t, Tensor) and t.is_floating_point()]
        if all(t.dtype == dtype for t in floats) or "type" not in str(why.__cause__):
            raise ValueError(str(why)) from why.__cause__

        def single(out, target):
            return loss(*tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, (out, target)))

        _value(single, out, target)
        return single
    return loss


class _NoFit(ValueError):
    """The loss does not take these outputs and targets."""


def _value(loss: Callable, out, target) -> Tensor:
    """Return the loss of a batch, a scalar tensor; outputs are copied, and targets must be left as they are."""
    versions = [t._version for t in tree_leaves(target)]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # torch goes on, each with every other
            value = loss(tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, out), target)
    except UserWarning as why:
        raise ValueError(
            f"targets must have the shape of the outputs, {shapes_of(out)}, got {shapes_of(target)}: {why}"
            + (
                ""
                if isinstance(out, Tensor)
                else ". Of several outputs output= takes one, by an index, a key or a function"
            )
        ) from why
    except FAILURES as why:
        raise _NoFit(
            f"loss does not fit outputs of shape {shapes_of(out)} and targets of shape {shapes_of(target)}: {why}"
            + (
                ""
                if isinstance(out, Tensor)
                else ". Of several outputs output= takes one, by an index, a key or a function"
            )
        ) from why
    if not isinstance(value, Tensor) or value.ndim:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return the mean over the batch, a scalar tensor, got {came}: use reduction='mean'")
    if versions != [t._version for t in tree_leaves(target)]:
        raise ValueError(
            "loss must leave the targets as they are, got one that writes into them: let it clone them first"
        )
    return value.detach()


def shapes_of(part: Any) -> str:
    """Return the shapes of the tensors in a tree, in words for an error."""
    return ", ".join(str(tuple(t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in tree_leaves(part))


def check_mean(loss: Callable, out, target, *, weighted: bool) -> bool:
    """Return whether the loss of a batch is the mean of the losses of its examples.

    Args:
        out, target: outputs and targets of a few examples
        weighted: whether it may be a mean weighed by the targets instead, as by class weights or an ignored index
    """
    value = _value(loss, out, target)
    if not torch.isfinite(value):
        raise ValueError(
            f"loss must be finite at the parameters of the model, got {float(value)}: check outputs and targets"
        )
    if not _equal(value, _value(loss, out, target)):
        raise ValueError("loss must give the same value twice, got two that differ: it must not draw random numbers")
    twice = _value(loss, *(tree_map(lambda t: torch.cat([t, t]), part) for part in (out, target)))
    if not _equal(twice, value):
        raise ValueError(
            f"loss must be a mean over the batch, got {float(value):.6g} for a batch and {float(twice):.6g} for the same "
            'examples twice, as of a sum: take reduction="mean"'
        )
    examples = (slice(i, i + 1) for i in range(n_examples(target)))
    single = torch.stack([_value(loss, take(out, i), take(target, i)) for i in examples])
    if not single.isnan().any() and _equal(single.mean(), value):
        return True
    if not _is_weighted_mean(loss, out, target, single, value):
        raise ValueError(
            f"loss must be the mean of the losses of single examples, got {float(value):.6g} for a batch whose examples "
            f"have the mean {float(single.nanmean()):.6g}: are outputs {shapes_of(out)} and targets {shapes_of(target)} "
            "shaped differently, so that each is paired with every other, or is the mean taken inside a root?"
        )
    if not weighted:
        raise ValueError(
            "loss must be the mean of the losses of single examples, got a mean that weighs them by their targets (class "
            "weights, ignore_index): weigh single losses, (w[t] * F.cross_entropy(o, t, reduction='none')).mean(), and "
            "cut ignored examples out"
        )
    return False


def _equal(a: Tensor, b: Tensor) -> bool:
    limit = 1e3 * torch.finfo(a.dtype).eps if a.is_floating_point() else 0
    return bool((a - b).abs() <= limit * torch.maximum(a.abs(), b.abs()) + torch.finfo(torch.float64).tiny)


def _is_weighted_mean(loss: Callable, out, target, single: Tensor, value: Tensor) -> bool:
    """Return whether weights found from pairs of examples give the loss of the batch; not so where examples are mixed."""
    counted = (~single.isnan()).nonzero().flatten()
    if len(counted) < 2:
        return len(counted) == 1 and _equal(single[counted[0]], value)
    first = int(counted[torch.argmin(single[counted])])
    single, weights = single.double(), torch.zeros(len(single), dtype=torch.float64)
    for i in counted.tolist():
        pair = _value(loss, *(take(part, torch.tensor([first, i])) for part in (out, target))).double()
        alike = (single[i] - single[first]).abs() <= 1e-6 * single[i].abs()
        weights[i] = 1 if alike else ((pair - single[first]) / (single[i] - pair)).clamp(min=0)
    mean = (weights * single.nan_to_num()).sum() / weights.sum()
    return bool((mean - value).abs() <= 1e-3 * value.abs())


def mean_of_weighted(loss: Callable, data: tuple, outputs: Callable[[Any], Any]) -> Callable:
    """Return the mean of weighted losses of examples that a loss with class weights stands for.

    A batch's loss sum(w l) / sum(w) is made sum(w l) / (n w'), with the mean w' of the weights over all data: one gradient
    per example, which the first form does not have. The weight of a class is found from pairs with another class.

    Args:
        data: inputs and targets, classes from 0 on
        outputs: gives the outputs of some inputs
    """
    x, y = data
    if not isinstance(y, Tensor) or y.ndim != 1 or y.is_floating_point() or int(y.min()) < 0:
        raise ValueError(
            "loss must be the mean of the losses of single examples where these are taken one by one, got one that weighs "
            "them by targets that are no classes: weigh single losses, with reduction='none', and cut ignored ones out"
        )
    some = torch.cat([(y == c).nonzero().flatten()[:4] for c in y.unique()])
    out, target = outputs(take(x, some)), y[some]
    weights = torch.ones(int(y.max()) + 1, dtype=torch.float64)
    first = target == target[0]
    for c in target.unique()[1:]:
        weights[c] = _class_weight(loss, out, target, first.nonzero().flatten(), (target == c).nonzero().flatten())
    weights /= weights[y].mean()

    def mean(output, targets):
        value = loss(output, targets)
        return value * weights.to(value.dtype)[targets].mean()

    return mean


def _class_weight(loss: Callable, out, target, ones: Tensor, others: Tensor) -> Tensor:
    """Return the weight of some examples beside that of others, by the pair whose losses differ most."""
    single = {int(i): _value(loss, take(out, i[None]), target[i[None]]).double() for i in (*ones, *others)}
    _, i, j = max((float((single[int(i)] - single[int(j)]).abs()), int(i), int(j)) for i in ones for j in others)
    both = torch.tensor([i, j])
    pair = _value(loss, take(out, both), target[both]).double()
    return (pair - single[i]) / (single[j] - pair)


def check_differentiable(loss: Callable, out, target) -> None:
    """Refuse a loss through which no gradient passes to the outputs."""
    if loss_kind(loss) == "mse" and not target.is_floating_point():
        raise ValueError(
            f"targets must be floating point for a squared error, got {target.dtype}: take targets.float()"
        )
    free = tree_map(lambda t: t.clone().requires_grad_() if t.is_floating_point() else t, out)
    try:
        with torch.enable_grad():
            value = loss(free, target)
            torch.autograd.grad(value, [t for t in tree_leaves(free) if t.requires_grad], allow_unused=True)
    except FAILURES as why:
        raise ValueError(f"loss must be differentiable in the outputs, and says: {why}") from why


def check_curved(loss: Callable, out: Tensor, target) -> None:
    """Refuse a loss whose second derivative in the outputs vanishes, as Gauss-Newton matrices would then."""
    if loss_kind(loss) is None and not any(_is_curved(loss, out[i], take(target, i)) for i in range(len(out))):
        raise ValueError(
            "loss must have curvature in the outputs, got a second derivative of 0 on every example tried: give logits and "
            "F.cross_entropy in place of log_softmax and F.nll_loss, a smooth loss such as F.huber_loss in place of an "
            'absolute or quantile one, or curvature="hessian" where the network itself is curved'
        )


def _is_curved(loss: Callable, out: Tensor, target) -> bool:
    def one(row: Tensor) -> Tensor:
        return loss(row.view_as(out)[None], tree_map(lambda t: t[None], target))

    second = jacrev(grad(one))(out.detach().flatten())
    return bool(torch.linalg.eigvalsh((second + second.mT) / 2).amax() > 1e-9 * max(1.0, float(second.abs().amax())))
