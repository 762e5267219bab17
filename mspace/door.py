"""The one door: what a network, its data and its loss are together, found out on a few examples before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .checks import arguments, check_data, n_examples, take
from .network.facts import NoSuchOutput, adapted, check_module
from .network.loss import (
    FAILURES,
    check_curved,
    check_differentiable,
    check_loss,
    check_mean,
    mean_of_weighted,
    shapes_of,
    usable_loss,
)
from .network.modules import batch_norms, copied
from .threads import kept_stream

__all__ = ["Checked", "checked"]

PROBED = 8  # examples on which model and loss are tried
SMALL = (torch.uint8, torch.int8, torch.int16, torch.int32)


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

    def mean_loss(self) -> Callable:
        """Return a loss that is the mean over examples, each weighted by its target where the loss does so."""
        if self.mean:
            return self.loss
        return mean_of_weighted(self.loss, self.data, lambda x: _plain_outputs(self.model, x))


def _plain_outputs(model: nn.Module, x):
    net = copied(model).eval()
    dtype = next(net.parameters()).dtype
    args, kwargs = arguments(tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, x))
    with torch.no_grad():
        return net(*args, **kwargs)


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
    _check_statistics(model)
    loss = check_loss(loss, double=double)
    own = next(p.dtype for p in model.parameters())
    data = _like_model(data, own)
    if double:
        model = copied(model).to("cpu", torch.float64).eval()
    x, target = (tree_map(_doubled if double else torch.clone, take(part, _probe(data[1]))) for part in data)
    net = adapted(model, output=output).eval()
    with torch.no_grad(), kept_stream():
        out, writes = _outputs(net, x, own)
        if output is not None or writes:
            model = adapted(model, output=output, guard=writes)
        _check_outputs(out, n_examples(target), one_tensor)
        _check_repeatable(net, x, out)
        loss = usable_loss(loss, out, target, own)
        is_mean = check_mean(loss, out, target, weighted=not mean)
    check_differentiable(loss, out, target)
    if curved:
        check_curved(loss, out, target)
    return Checked(model, data, loss, out, target, is_mean)


def _like_model(data, dtype: torch.dtype):
    """Return checked data: arrays of numbers in the type of the network, whole targets as int64, nothing with gradients."""
    arrays = isinstance(data, (tuple, list)) and len(data) == 2
    given = [tree_leaves(part) for part in data] if arrays else []
    x, y = check_data(data)

    def cast(value: Tensor, came) -> Tensor:
        converts = value.is_floating_point() and not isinstance(came, Tensor)
        return value.detach().to(dtype) if converts else value.detach()

    def cast_all(part, came):
        leaves = iter(came)
        return tree_map(lambda t: cast(t, next(leaves)), part)

    inputs = cast_all(x, given[0])
    if y is x:
        return inputs, inputs
    return inputs, tree_map(lambda t: t.long() if t.dtype in SMALL else t, cast_all(y, given[1]))


def _probe(targets) -> Tensor:
    """Return the indices of a few examples: one of each class, the lowest and the highest with them, else evenly spread."""
    n = n_examples(targets)
    if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point() or n <= PROBED:
        return torch.linspace(0, n - 1, min(n, PROBED)).round().long()
    order = targets.argsort(stable=True)
    first = torch.ones(n, dtype=torch.bool)
    first[1:] = targets[order][1:] != targets[order][:-1]
    of_class = order[first]
    chosen = of_class[torch.linspace(0, len(of_class) - 1, min(len(of_class), PROBED)).round().long()]
    rest = torch.ones(n, dtype=torch.bool)
    rest[chosen] = False
    return torch.cat([chosen, rest.nonzero().flatten()[: PROBED - len(chosen)]])


def _doubled(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64 if values.is_floating_point() else values.dtype, copy=True)


def _check_statistics(model: nn.Module) -> None:
    for name, norm in batch_norms(model).items():
        if norm.running_mean is None:
            raise ValueError(
                f"model has batch normalisation without statistics of its own ({name}), which makes an output depend on "
                "the rest of the batch: use GroupNorm or LayerNorm, or track_running_stats=True"
            )


def _outputs(net: nn.Module, x, dtype: torch.dtype) -> tuple[Any, bool]:
    """Return outputs, and whether the network has written into its inputs."""
    given = tree_map(torch.clone, x)
    args, kwargs = arguments(given)
    versions = [t._version for t in tree_leaves(given)]
    try:
        out = net(*args, **kwargs)
    except NoSuchOutput:
        raise
    except FAILURES as why:
        raise ValueError(
            f"model does not fit inputs of shape {shapes_of(x)}: {why}{_way_out(why, dtype, net)}"
        ) from why
    out = tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, out)
    return out, versions != [t._version for t in tree_leaves(given)]


def _way_out(why: Exception, dtype: torch.dtype, net: nn.Module) -> str:
    """Return what to do about an error of types: convert the inputs, or register tensors that stayed behind."""
    own, working = (str(d).removeprefix("torch.") for d in (dtype, next(net.parameters()).dtype))
    if "type" not in str(why):
        return ""
    if working == own:
        return f". The parameters are {own}: pass inputs.to(torch.{own})"
    return (
        f". The method works in {working} precision and the network was {own}: tensors of a module that are no parameters "
        "follow if they are buffers, see register_buffer"
    )


def _check_outputs(out, n: int, one_tensor: bool) -> None:
    """Refuse outputs without an example on the first axis, several where one is needed, and those not finite."""
    pick = "name the one that the loss reads, output=0, output='logits' or a function, or wrap the network"
    leaves = tree_leaves(out)
    tensors = [t for t in leaves if isinstance(t, Tensor)]
    if not isinstance(out, Tensor) and (one_tensor or not tensors or len(tensors) < len(leaves)):
        raise ValueError(f"model must return one tensor (N, ...), got {type(out).__name__} of {shapes_of(out)}: {pick}")
    if not all(t.ndim and len(t) == n for t in tensors):
        raise ValueError(
            f"model must return an output for each of N={n} examples, on its first axis, got {type(out).__name__} of "
            f"{shapes_of(out)}: {pick}; recurrent layers need batch_first=True"
        )
    if not all(torch.isfinite(t).all() for t in tensors):
        raise ValueError("model must have finite outputs, got NaN or infinity: scale the inputs, or train it again")


def _close(a, b, tolerance: float = 1e-3) -> bool:
    """Return whether two trees of tensors are equal, relative to their largest number; solvers may adapt their steps."""
    for s, t in zip(tree_leaves(a), tree_leaves(b)):
        if s.shape != t.shape or (s.numel() and (s - t).abs().amax() > tolerance * s.abs().amax()):
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
    except FAILURES:  # a network that wants batches of one size
        return
    if not _close(take(out, half), part):
        raise ValueError(
            "model must give each example an output that does not depend on the rest of the batch, got one that changes "
            "with it: normalise over features (LayerNorm, GroupNorm), not over examples"
        )
