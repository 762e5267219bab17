"""The one door: what a network, its data and its loss are together, found out on a few examples before any work."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev
from torch.utils._pytree import tree_leaves, tree_map

from .checks import arguments, check_data, n_examples, take
from .network.facts import adapted, check_module
from .network.loss import loss_kind
from .network.modules import batch_norms

__all__ = ["Checked", "checked"]

PROBED = 8  # examples on which model and loss are tried
WRONG = (RuntimeError, IndexError, TypeError, ValueError, AttributeError, KeyError, NotImplementedError, AssertionError)


@dataclass(frozen=True, eq=False)
class Checked:
    """A network, its data and its loss, which fit each other.

    Attributes:
        model: the network itself, or a copy that hands out one output, is given copies of its inputs, or is in double
            precision and evaluation mode
        data: inputs and targets; whole targets are int64, nothing requires a gradient
        loss: (output, target) -> mean over the batch
        out, target: outputs and targets of a few examples, targets of all classes among them
        mean: whether the loss of a batch is the mean of the losses of its examples; else it is a weighted one
    """

    model: nn.Module
    data: tuple[Any, Any]
    loss: Callable
    out: Any
    target: Any
    mean: bool


def checked(
    model: nn.Module,
    data,
    loss: Callable,
    *,
    output: int | str | Callable | None = None,
    double: bool = False,
    mean: bool = True,
    curved: bool = False,
    one_tensor: bool = True,
    trains: bool = True,
) -> Checked:
    """Return a network, data and a loss that a method can work with, or refuse them with the way out.

    Args:
        output: which output of the network the loss reads: an index, a key, an attribute or a function
        double: whether the method works on a copy in double precision and evaluation mode
        mean: whether the loss must be the mean of the losses of single examples; class weights are refused then
        curved: whether the method needs a second derivative of the loss in the outputs
        one_tensor: whether the network must return one tensor
        trains: whether at least one parameter must be free

    Raises:
        ValueError: naming model, data, inputs, targets or loss, what came, and the way out
    """
    check_module(model, trains=trains)
    if not callable(loss) or isinstance(loss, type):
        came = f"the class {loss.__name__}: create an instance" if isinstance(loss, type) else repr(loss)
        raise ValueError(
            f"loss must be a function (output, target) -> mean over the batch, such as F.mse_loss, got {came}"
        )
    own = next(p.dtype for p in model.parameters())
    data = _like_model(data, own)
    if double:
        model = copy.deepcopy(model).to("cpu", torch.float64).eval()
        loss = _in_double(loss)
    _check_statistics(model)
    x, target = (tree_map(_doubled if double else torch.clone, take(part, _probe(data[1]))) for part in data)
    net = copy.deepcopy(model).eval()
    if output is not None:
        net = adapted(net, output=output)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        out, writes = _outputs(net, x, own)
        if output is not None or writes:
            model = adapted(model, output=output, guard=writes)
        _check_outputs(out, n_examples(target), one_tensor)
        _check_repeatable(net, x, out)
        loss = _usable(loss, out, target, own)
        is_mean = _check_mean(loss, out, target, mean)
    if curved:
        _check_curved(loss, out, target)
    return Checked(model, data, loss, out, target, is_mean)


def _like_model(data, dtype: torch.dtype):
    """Return checked data: arrays of numbers in the type of the network, whole targets as int64, nothing with gradients."""
    arrays = isinstance(data, (tuple, list)) and len(data) == 2
    given = [tree_leaves(part) for part in data] if arrays else []
    x, y = check_data(data)

    def cast(value: Tensor, came, is_target: bool) -> Tensor:
        value = value.detach()
        if value.is_floating_point():
            return value if isinstance(came, Tensor) else value.to(dtype)
        whole = value.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32)
        return value.long() if is_target and whole else value

    def cast_all(part, came, is_target: bool):
        leaves = iter(came)
        return tree_map(lambda t: cast(t, next(leaves), is_target), part)

    inputs = cast_all(x, given[0], False)
    return inputs, inputs if y is x else cast_all(y, given[1], True)


def _probe(targets) -> Tensor:
    """Return the indices of a few examples: of each class one, with the lowest and the highest, else evenly spread."""
    n = n_examples(targets)
    if isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point() and n > PROBED:
        order = targets.argsort(stable=True)
        first = torch.ones(n, dtype=torch.bool)
        first[1:] = targets[order][1:] != targets[order][:-1]
        of_class = order[first]
        chosen = of_class[torch.linspace(0, len(of_class) - 1, min(len(of_class), PROBED)).round().long()]
        rest = torch.ones(n, dtype=torch.bool)
        rest[chosen] = False
        return torch.cat([chosen, rest.nonzero().flatten()[: PROBED - len(chosen)]])
    return torch.linspace(0, n - 1, min(n, PROBED)).round().long()


def _doubled(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64 if values.is_floating_point() else values.dtype, copy=True)


def _in_double(loss: Callable) -> Callable:
    """Return a loss whose own tensors, such as class weights, are in double precision; functions come back as they are."""
    return copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss


def _check_statistics(model: nn.Module) -> None:
    for name, norm in batch_norms(model, instance=False).items():
        if not norm.track_running_stats or norm.running_mean is None:
            raise ValueError(
                f"model has batch normalisation without statistics of its own ({name}), which makes an output depend on the "
                "rest of the batch: use GroupNorm or LayerNorm, or track_running_stats=True"
            )


def _outputs(net: nn.Module, x, dtype: torch.dtype) -> tuple[Any, bool]:
    """Return outputs, and whether the network has written into its inputs."""
    given = tree_map(torch.clone, x)
    args, kwargs = arguments(given)
    versions = [t._version for t in tree_leaves(given)]
    try:
        out = net(*args, **kwargs)
    except WRONG as why:
        raise ValueError(_no_fit("model does not fit the inputs", x, why, dtype, net)) from why
    return tree_map(_detached, out), versions != [t._version for t in tree_leaves(given)]


def _detached(value):
    return value.detach() if isinstance(value, Tensor) else value


def _no_fit(what: str, part, why: Exception, dtype: torch.dtype, net: nn.Module) -> str:
    kinds = sorted({str(t.dtype).removeprefix("torch.") for t in tree_leaves(part)})
    way = ""
    if any(word in str(why) for word in ("dtype", "scalar type", "Double", "Float")):
        own = str(dtype).removeprefix("torch.")
        working = str(next(net.parameters()).dtype).removeprefix("torch.")
        way = f": the parameters are {own}, so take .to(torch.{own})"
        if working != own:
            way = (
                f": the network works here in {working} instead of {own}; tensors of its own that are no parameters must be "
                "buffers to follow, by register_buffer"
            )
    return f"{what}, got shapes {_shapes(part)} of {', '.join(kinds)}, and says: {why}{way}"


def _shapes(part) -> str:
    shapes = [tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in tree_leaves(part)]
    return ", ".join(map(str, shapes))


def _check_outputs(out, n: int, one_tensor: bool) -> None:
    pick = "name the one that the loss reads, output=0, output='logits' or a function, or wrap the network"
    if not isinstance(out, Tensor):
        leaves = tree_leaves(out)
        if one_tensor or not leaves or not all(isinstance(t, Tensor) and t.ndim and len(t) == n for t in leaves):
            came = f"{type(out).__name__} of {_shapes(out)}" if leaves else type(out).__name__
            raise ValueError(
                f"model must return one tensor (N, ...), an output for each of N={n} examples, got {came}: {pick}"
            )
    elif out.ndim == 0 or len(out) != n:
        raise ValueError(
            f"model must return an output for each of N={n} examples on its first axis, got shape {tuple(out.shape)}: "
            "batch_first=True puts it there, output= takes a function of the outputs"
        )
    if not all(torch.isfinite(t).all() for t in tree_leaves(out) if isinstance(t, Tensor)):
        raise ValueError("model must have finite outputs, got NaN or infinity: scale the inputs, or train it again")


def _close(a, b, tolerance: float | None = None) -> bool:
    """Return whether two trees of tensors are equal up to rounding, relative to their largest number."""
    for s, t in zip(tree_leaves(a), tree_leaves(b)):
        if isinstance(s, Tensor) and s.is_floating_point():
            limit = tolerance or 1e4 * torch.finfo(s.dtype).eps
            if s.shape != t.shape or (s - t).abs().amax() > limit * s.abs().amax():
                return False
    return True


def _check_repeatable(net: nn.Module, x, out) -> None:
    """Refuse random outputs in evaluation mode, and outputs that depend on the other examples of a batch."""

    def at(part):
        args, kwargs = arguments(tree_map(torch.clone, part))
        return net(*args, **kwargs)

    if not _close(out, at(x)):
        raise ValueError(
            "model must give the same output twice in evaluation mode, got two that differ: draw random numbers only where "
            "self.training is true, as nn.Dropout does"
        )
    half = slice(0, max(1, n_examples(x) // 2))
    try:
        part = at(take(x, half))
    except WRONG:  # a network that wants batches of one size
        return
    if not _close(take_all(out, half), part):
        raise ValueError(
            "model must give each example an output that does not depend on the rest of the batch, got one that changes with "
            "it: normalise over features (LayerNorm, GroupNorm), not over examples"
        )


def take_all(out, index):
    """Return some examples of outputs, which may hold more than tensors."""
    return tree_map(lambda t: t[index] if isinstance(t, Tensor) else t, out)


def _usable(loss: Callable, out, target, dtype: torch.dtype) -> Callable:
    """Return the loss, with outputs brought to the type of the network where it cannot take double precision."""
    try:
        _value(loss, out, target)
    except _NoFit as why:
        cause = why.__cause__
        tensors = [t for t in tree_leaves((out, target)) if isinstance(t, Tensor) and t.is_floating_point()]
        other = any(t.dtype != dtype for t in tensors)
        if not other or not any(word in str(cause) for word in ("dtype", "scalar type", "Double", "Float")):
            raise ValueError(str(why)) from cause

        def single(out, target):
            return loss(*(tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, p) for p in (out, target)))

        _value(single, out, target)
        return single
    return loss


class _NoFit(ValueError):
    """The loss does not take these outputs and targets."""


def _value(loss: Callable, out, target) -> Tensor:
    """Return the loss of a batch, a scalar tensor."""
    before = [t._version for t in tree_leaves(target)]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # torch goes on, each with every other
            value = loss(tree_map(_copy, out), target)
    except UserWarning as why:
        raise ValueError(
            f"targets must have the shape of the outputs, {_shapes(out)}, got {_shapes(target)}: {why}"
        ) from why
    except WRONG as why:
        kinds = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tree_leaves(target)}))
        raise _NoFit(
            f"loss does not fit outputs of shape {_shapes(out)} and targets of shape {_shapes(target)} and type {kinds}: {why}"
        ) from why
    if not isinstance(value, Tensor) or value.ndim:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return the mean over the batch, a scalar tensor, got {came}: use reduction='mean'")
    if before != [t._version for t in tree_leaves(target)]:
        raise ValueError("loss must leave the targets as they are, got one that writes into them: take a clone first")
    return value.detach()


def _copy(value):
    return value.clone() if isinstance(value, Tensor) else value


def _check_mean(loss: Callable, out, target, mean: bool) -> bool:
    """Return whether the loss of a batch is the mean of those of its examples; a mean with weights of the targets may pass."""
    value = _value(loss, out, target)
    n = n_examples(target)
    if value.isnan():
        raise ValueError("loss must be finite at the parameters of the model, got NaN: check outputs and targets")
    if value.isinf():
        return _warn_infinite()
    if not _equal(value, _value(loss, out, target)):
        raise ValueError("loss must give the same value twice, got two that differ: it must not draw random numbers")
    twice = _value(loss, *(tree_map(lambda t: torch.cat([t, t]), p) for p in (out, target)))
    if not _equal(twice, value):
        raise ValueError(
            f"loss must be a mean over the batch, got {float(value):.6g} for a batch and {float(twice):.6g} for the same examples "
            'twice, as of a sum: take reduction="mean"'
        )
    single = torch.stack([_value(loss, *(take_all(p, slice(i, i + 1)) for p in (out, target))) for i in range(n)])
    if not single.isnan().any() and _equal(single.mean(), value):
        return True
    if _is_weighted_mean(loss, out, target, single, value):
        if mean:
            raise ValueError(
                "loss must be the mean of the losses of single examples, got a mean that weighs them by their targets (class "
                "weights, ignore_index): weigh single losses, (w[t] * F.cross_entropy(o, t, reduction='none')).mean(), and cut "
                "ignored examples out"
            )
        return False
    raise ValueError(
        f"loss must be the mean of the losses of single examples, got {float(value):.6g} for a batch whose examples have the "
        f"mean {float(single.nanmean()):.6g}: are outputs {_shapes(out)} and targets {_shapes(target)} shaped differently, so "
        "that each is paired with every other, or is the mean taken inside a root?"
    )


def _warn_infinite() -> bool:
    warnings.warn("the loss of the model on these data is infinite", RuntimeWarning, stacklevel=4)
    return True


def _equal(a: Tensor, b: Tensor) -> bool:
    limit = 1e3 * torch.finfo(a.dtype).eps if a.is_floating_point() else 0
    return bool((a - b).abs() <= limit * torch.maximum(a.abs(), b.abs()) + torch.finfo(torch.float64).tiny)


def _is_weighted_mean(loss: Callable, out, target, single: Tensor, value: Tensor) -> bool:
    """Return whether weights, found from pairs of examples, give the loss of the batch: not so where examples are mixed."""
    counted = (~single.isnan()).nonzero().flatten()
    if len(counted) < 2:
        return len(counted) == 1 and _equal(single[counted[0]], value)
    first = int(counted[torch.argmin(single[counted])])
    weights = torch.zeros(len(single), dtype=torch.float64)
    weights[first] = 1
    for i in counted.tolist():
        if i != first:
            pair = _value(loss, *(take_all(p, torch.tensor([first, i])) for p in (out, target))).double()
            gap = single[i].double() - pair
            alike = (single[i] - single[first]).abs() <= 1e-6 * single[i].abs()
            weights[i] = 1 if alike else ((pair - single[first].double()) / gap).clamp(min=0)
    mean = (weights * single.nan_to_num().double()).sum() / weights.sum()
    return bool((mean - value).abs() <= 1e-3 * value.abs())


def _check_curved(loss: Callable, out: Tensor, target) -> None:
    """Refuse a loss whose second derivative in the outputs vanishes, as Gauss-Newton matrices would then."""
    if loss_kind(loss) is not None:
        return

    def one(out: Tensor, target) -> Tensor:
        return loss(out[None], tree_map(lambda t: t[None], target))

    for i in range(len(out)):
        row = out[i].detach().flatten()
        second = jacrev(grad(lambda o: one(o.view_as(out[i]), take(target, i))))(row)
        if torch.linalg.eigvalsh((second + second.mT) / 2).amax() > 1e-9 * max(1.0, float(second.abs().amax())):
            return
    raise ValueError(
        "loss must have curvature in the outputs, got a second derivative of 0 on every example tried: give the network's logits "
        "and F.cross_entropy in place of log_softmax and F.nll_loss, a smooth loss (F.huber_loss) in place of an absolute or "
        'quantile one, or curvature="hessian" where the network itself is curved'
    )
