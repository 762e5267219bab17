"""From a trained network to the minimum it was heading for."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .._memory import examples_at_once
from ..checks import arguments, check_int, check_real, n_examples, take
from ..door import checked
from ..network.facts import check_no_signs, gradient_hooks, trainable
from ..network.modules import copied
from .options import Bounded, Data, Loss

__all__ = ["refine"]


def refine(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    output: int | str | Callable | None = None,
    weight_decay: float = 0.0,
    steps: int = 1000,
    tolerance: float = 1e-6,
) -> nn.Module:
    """Descend to a minimum of the loss over all data, by L-BFGS; a new module, `model` stays as it was.

    Minibatches stop in a neighbourhood of a minimum. What reads the covariance off the curvature there, `sandwich` and
    `laplace`, needs the minimum itself. (A ReLU network may have it at a kink, where no gradient vanishes: then it warns.)
    Works in double precision and evaluation mode, and returns the type that came. Frozen parameters stay, and those of a
    `Bounded` module are brought back to their bounds.

    Args:
        output: which output of the network the loss reads, as in `train_ensemble`
        weight_decay: adds ``weight_decay / 2 * |parameters|^2`` to the loss
        steps: of the optimiser, at most
        tolerance: the largest entry of the gradient that counts as none

    Warns:
        RuntimeWarning: when the gradient is larger at the end, or the minimum lies outside the bounds
    """
    steps = check_int(steps, "steps", 1)
    check_real(weight_decay, "weight_decay", ends="[)"), check_real(tolerance, "tolerance")
    given = checked(model, data, loss, output=output, double=True, mean=False, one_tensor=False)
    if weight_decay:
        check_no_signs(model, "a weight decay")
    if hooks := gradient_hooks(model):
        raise ValueError(
            f"model has a hook on the gradient of {next(iter(hooks))!r}, which refine cannot follow: remove it"
        )
    net, n = given.model, n_examples(given.data[0])
    parameters = list(trainable(net).values())
    few = tree_map(_doubled, take(given.data[0], slice(0, 2)))
    at_once = examples_at_once(net, few, 4) if given.mean else n  # a weighted mean is one of all examples

    def value_and_gradient(vector):
        vector = torch.from_numpy(vector)
        _put(vector, parameters)
        value, slope = 0.0, torch.zeros_like(vector)
        for i in range(0, n, at_once):
            x, y = (tree_map(_doubled, take(part, slice(i, i + at_once))) for part in given.data)
            args, kwargs = arguments(x)
            with torch.enable_grad():
                part = given.loss(net(*args, **kwargs), y) * (n_examples(y) / n)
                slopes = torch.autograd.grad(part, parameters, materialize_grads=True)
            value, slope = value + float(part.detach()), slope + torch.cat([g.reshape(-1) for g in slopes])
        return value + float(weight_decay / 2 * vector.square().sum()), (slope + weight_decay * vector).numpy()

    start = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy().copy()
    options = {"maxiter": steps, "maxfun": 2 * steps, "gtol": tolerance, "ftol": 0.0, "maxcor": 50}
    result = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    steepest = float(abs(result.jac).max())
    if not steepest <= tolerance:
        warnings.warn(
            f"no minimum within {result.nit} steps, the gradient is still {steepest:.1e}: take more steps, or a larger "
            "tolerance",
            RuntimeWarning,
            stacklevel=2,
        )
    _put(torch.from_numpy(result.x), parameters)
    if isinstance(net, Bounded):
        _keep_bounds(net)
    found, refined = dict(net.named_parameters()), copied(model)
    with torch.no_grad():
        for name, p in refined.named_parameters():
            p.copy_(found[name])
    return refined


def _put(vector: Tensor, parameters: list[nn.Parameter]) -> None:
    """Overwrite parameters, whose memory may lie in another order than their numbers."""
    with torch.no_grad():
        for p, part in zip(parameters, vector.split([p.numel() for p in parameters])):
            p.copy_(part.view(p.shape))


def _doubled(values: Tensor) -> Tensor:
    return values.to("cpu", torch.float64 if values.is_floating_point() else values.dtype, copy=True)


def _keep_bounds(net: nn.Module) -> None:
    """Bring parameters back to where they may be, and say so where they were elsewhere."""
    with torch.no_grad():
        views = {k: p[None] for k, p in net.named_parameters()}
        before = {k: v.clone() for k, v in views.items()}
        net.keep_bounds(views)
    moved = [k for k, v in views.items() if not torch.equal(v, before[k])]
    if moved:
        warnings.warn(
            f"the minimum lies outside the bounds of {', '.join(moved)}: the parameters were brought back to them, where "
            "the gradient is not zero",
            RuntimeWarning,
            stacklevel=3,
        )
