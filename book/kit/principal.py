"""The minimum of an autoencoder with one hidden layer, written down."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mspace.checks import as_tensor


def at_principal_components(net: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Return the network that projects on the principal components, near to one that was trained.

    While all its units are active, a ReLU autoencoder under the squared error is linear, and its minimum the projection
    on as many components as it has units (Baldi and Hornik 1989), in any basis. Descent ends somewhere in that
    valley, and where depends on the last bits of the processor. Here the basis is the one in which the components are
    nearest to the given decoder, and biases keep every unit at 0.1 or more on all of x.

    Args:
        net: ``Sequential(Linear(n, d), ReLU(), Linear(d, n))`` with biases, trained; it stays as it is
        x: what it was trained on, (N, n)
    """
    x = as_tensor(x, "x")
    kinds = [type(m) for m in net] if isinstance(net, nn.Sequential) else []
    if kinds != [nn.Linear, nn.ReLU, nn.Linear] or net[0].bias is None or net[2].bias is None:
        raise ValueError("net must be Sequential(Linear, ReLU, Linear) with biases, as `mlp(n, d, n)` makes it")
    if x.ndim != 2 or not x.shape[1] == net[0].in_features == net[2].out_features or len(x) <= net[0].out_features:
        raise ValueError(f"x must be (N, {net[0].in_features}) and reconstruct itself, got shape {tuple(x.shape)}")
    mean, n_hidden = x.double().mean(0), net[0].out_features
    axes = torch.linalg.eigh(x.double().T.cov()).eigenvectors[:, -n_hidden:]
    turn = axes.T @ net[2].weight.detach().double()
    decoder, encoder = axes @ turn, torch.linalg.solve(turn, axes.T)
    bias = 0.1 - (x.double() @ encoder.T).amin(0)
    result = copy.deepcopy(net)
    with torch.no_grad():
        values = (encoder, bias, decoder, mean - decoder @ (encoder @ mean + bias))
        for parameter, value in zip((result[0].weight, result[0].bias, result[2].weight, result[2].bias), values):
            parameter.copy_(value)
    return result
