"""From a trained network to the minimum it was heading for."""

from __future__ import annotations

import copy
import warnings

import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils._pytree import tree_map

from ..checks import arguments, check_data, check_int, check_real
from .options import Data, Loss, check_model

__all__ = ["refine"]


def refine(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    weight_decay: float = 0.0,
    steps: int = 1000,
    tolerance: float = 1e-6,
) -> nn.Module:
    """Descend to a minimum of the loss over all data, by L-BFGS; a new module, `model` stays as it was.

    Minibatches stop in a neighbourhood of a minimum. What reads the covariance off the curvature there, `sandwich` and
    `laplace`, needs the minimum itself. (A ReLU network may have it at a kink, where no gradient vanishes: then it warns.)
    Works in double precision and evaluation mode, and returns the type that came.

    Args:
        weight_decay: adds ``weight_decay / 2 * |parameters|^2`` to the loss
        steps: of the optimiser, at most
        tolerance: the largest entry of the gradient that counts as none

    Warns:
        RuntimeWarning: when the gradient is larger at the end
    """
    data = check_data(data)
    check_model(model, data, loss, level=3)
    steps = check_int(steps, "steps", 1)
    check_real(weight_decay, "weight_decay", ends="[)"), check_real(tolerance, "tolerance")
    net = copy.deepcopy(model).double().eval()
    x, y = tree_map(lambda t: t.double() if t.is_floating_point() else t, data)
    args, kwargs = arguments(x)
    parameters = list(net.parameters())

    def value_and_gradient(vector):
        vector = torch.from_numpy(vector)
        vector_to_parameters(vector, parameters)
        with torch.enable_grad():
            value = loss(net(*args, **kwargs), y)
            slope = torch.autograd.grad(value, parameters, materialize_grads=True)
        slope = parameters_to_vector(slope) + weight_decay * vector
        return float(value.detach() + weight_decay / 2 * vector.square().sum()), slope.numpy()

    start = parameters_to_vector(parameters).detach().numpy().copy()
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
    vector_to_parameters(torch.from_numpy(result.x), parameters)
    like = next(model.parameters()).dtype
    return net.to(like).train(model.training)
