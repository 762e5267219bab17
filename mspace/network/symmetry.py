"""Which changes of the units of a layer leave the network the same, found from values of the activation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Symmetry", "symmetry_of"]


@dataclass(frozen=True)
class Symmetry:
    """How an activation f commutes with changes of the units; a permutation always passes through.

    Attributes:
        linear: ``f(G x) = G f(x)`` for any matrix, as of the identity
        scales: ``f(a x) = a f(x)`` for a > 0, unit by unit, as of ReLU
        signs: ``f(-x) = 2 f(0) - f(x)``, unit by unit, as of tanh, and of sigmoid where f(0) is one half
        centre: f(0) if `signs`, which the bias after a reflected unit must make good twice
    """

    linear: bool = False
    scales: bool = False
    signs: bool = False
    centre: float = 0.0


def symmetry_of(activation: nn.Module | Callable[[Tensor], Tensor]) -> Symmetry:
    """Return the symmetries of an activation, in evaluation mode, from its values between -9 and 9.

    Nothing is registered, so a function of one's own is as good as torch's. One with a trained number is taken
    to have no symmetry but permutations: members may differ in it.

    Raises:
        ValueError: if units are not treated alike, as by a batch normalisation or a gate.
    """
    own: list[Tensor] = []
    g = activation
    if isinstance(activation, nn.Module):
        g = copy.deepcopy(activation).eval().double()
        own = [*g.parameters(), *g.buffers()]
        if any(t.numel() > 1 for t in own):
            raise ValueError(
                f"activation {_called(activation)} has numbers for each unit, which align does not permute: fold them into "
                "the layers beside it"
            )

    def f(x: Tensor) -> Tensor:
        return g(x.clone())  # it may work in place

    x = torch.linspace(-9, 9, 240, dtype=torch.float64)[torch.arange(240) * 77 % 240].reshape(40, 6)
    x = torch.cat([x, x / 10, x / 100, torch.zeros_like(x[:1])])  # 77 and 240 have no common factor: all are there
    with torch.no_grad():
        y = f(x)
        alike = isinstance(y, Tensor) and y.shape == x.shape and _same(f(x.flip(1)), y.flip(1))
        if not alike or not _same(f(x[:, :3]), y[:, :3]):  # a softmax treats units alike, but not one by one
            raise ValueError(f"activation must treat the units alike and one by one, got {_called(activation)}")
        if own:
            return Symmetry()
        scale, sign = (torch.tensor(v, dtype=y.dtype) for v in ([0.3, 1, 2, 0.7, 5, 1.1], [-1, 1, 1, -1, -1, 1]))
        mixing = torch.eye(6, dtype=y.dtype) + torch.outer(scale, sign) / 5
        centre = y[-1]  # f(0)
        signs = _same(f(x * sign), y * sign + (1 - sign) * centre)
        return Symmetry(
            linear=_same(f(x @ mixing), y @ mixing),
            scales=_same(f(x * scale), y * scale),
            signs=signs,
            centre=float(centre[0]) if signs else 0.0,
        )


def _called(activation) -> str:
    if not isinstance(activation, nn.Module):
        return repr(activation)
    return ", ".join(type(m).__name__ for m in activation.modules() if not isinstance(m, nn.Sequential))


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-9)
