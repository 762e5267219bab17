"""From a trained network to the minimum it was heading for."""

from __future__ import annotations

import copy
import warnings

import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ..checks import check_data, check_int
from .loop import Data, Loss, _check_model

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
    `laplace`, needs the minimum itself. (A ReLU network may have it at a kink, where no gradient vanishes; this is said.)
    Works in double precision and evaluation mode, and returns the type that came.

    Args:
        weight_decay: adds ``weight_decay / 2 * |parameters|^2`` to the loss
        steps: of the optimiser, at most
        tolerance: the largest entry of the gradient that counts as none

    Warns:
        RuntimeWarning: when the gradient is larger at the end
    """
    check_data(data)
    _check_model(model, data, loss)
    steps = check_int(steps, "steps", 1)
    if not weight_decay >= 0 or not tolerance > 0:
        raise ValueError(f"weight_decay must not be negative, tolerance positive, got {weight_decay} and {tolerance}")
    net = copy.deepcopy(model).double().eval()
    x, y = (t.double() if t.is_floating_point() else t for t in data)
    parameters = list(net.parameters())

    def value_and_gradient(vector):
        vector = torch.from_numpy(vector)
        vector_to_parameters(vector, parameters)
        with torch.enable_grad():
            value = loss(net(x), y)
            slope = torch.autograd.grad(value, parameters, materialize_grads=True)
        slope = parameters_to_vector(slope) + weight_decay * vector
        return float(value.detach() + weight_decay / 2 * vector.square().sum()), slope.numpy()

    start = parameters_to_vector(parameters).detach().numpy().copy()
    options = {"maxiter": steps, "maxfun": 2 * steps, "gtol": tolerance, "ftol": 0.0, "maxcor": 50}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    steepest = float(abs(found.jac).max())
    if not steepest <= tolerance:
        warnings.warn(
            f"no minimum within {found.nit} steps, the gradient is still {steepest:.1e}: take more steps, or a larger "
            "tolerance",
            RuntimeWarning,
            stacklevel=2,
        )
    vector_to_parameters(torch.from_numpy(found.x), parameters)
    like = next(model.parameters()).dtype
    return net.to(like).train(model.training)
