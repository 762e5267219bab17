"""What a recurrent network does with one input: weights that `torch.func.vmap` batches, a row for a unit."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_int
from .orthogonal import _function

__all__ = ["ElmanCell", "GRUCell"]

Law = Callable[[Tensor, Tensor], Tensor]  # (state, drive) -> next state
RADIUS = 0.95  # of the start's recurrence: a memory of some twenty steps, and none that grows


class ElmanCell(nn.Module):
    """``h_t = activation(W h_{t-1} + V x_t + b)`` (Elman 1990).

    W is (n_hidden, n_hidden), V (n_hidden, n_inputs), b a column (n_hidden, 1), so that ``["W", "V", "b"]`` names
    whole rows for `weight_of`.
    """

    rows = ("W", "V", "b")

    def __init__(
        self,
        n_inputs: int,
        n_hidden: int,
        *,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        n_inputs, n_hidden = check_int(n_inputs, "n_inputs", 1), check_int(n_hidden, "n_hidden", 1)
        self.n_hidden, self.activation = n_hidden, _function("activation", activation)
        self.W, self.V = _empty(n_hidden, n_hidden), _empty(n_hidden, n_inputs)
        self.b = _empty(n_hidden, 1) if bias else None
        self._draw(generator)

    def _draw(self, generator: torch.Generator | None = None) -> None:
        """Uniform as in torch, the recurrence then brought to a spectral radius."""
        for parameter, inputs in ((self.W, self.n_hidden), (self.V, self.V.shape[1]), (self.b, self.n_hidden)):
            _uniform(parameter, inputs, generator)
        with torch.no_grad():
            self.W.mul_(RADIUS / torch.linalg.eigvals(self.W).abs().max())

    def reset_parameters(self) -> None:
        """Begin anew; as in torch, from the global stream."""
        self._draw()

    def drive(self, x: Tensor) -> Tensor:
        """What inputs (..., n_inputs) add to the state, for all of them at once: (..., n_hidden)."""
        return F.linear(x, self.V, None if self.b is None else self.b.squeeze(-1))

    def law(self) -> Law:
        return lambda h, drive: self.activation(F.linear(h, self.W) + drive)


class GRUCell(nn.Module):
    """Gated units as in `torch.nn.GRU` (Cho and others 2014), each gate with weights of its own.

    ``r = sigmoid(W_r h + V_r x + b_r)``, ``z = sigmoid(W_z h + V_z x + b_z)``,
    ``n = tanh(r * (W_n h + c_n) + V_n x + b_n)``, and the next state is ``(1 - z) * n + z * h``. A unit is a row of all
    of these side by side.
    """

    rows = ("W_r", "W_z", "W_n", "V_r", "V_z", "V_n", "b_r", "b_z", "b_n", "c_n")

    def __init__(self, n_inputs: int, n_hidden: int, *, bias: bool = True, generator: torch.Generator | None = None):
        super().__init__()
        n_inputs, n_hidden = check_int(n_inputs, "n_inputs", 1), check_int(n_hidden, "n_hidden", 1)
        self.n_hidden = n_hidden
        columns = {"W": n_hidden, "V": n_inputs, "b": 1 if bias else 0, "c": 1 if bias else 0}
        for name in self.rows:
            setattr(self, name, _empty(n_hidden, columns[name[0]]) if columns[name[0]] else None)
        self._draw(generator)

    def _draw(self, generator: torch.Generator | None = None) -> None:
        for name in self.rows:
            _uniform(getattr(self, name), self.n_hidden, generator)

    def reset_parameters(self) -> None:
        """Begin anew; as in torch, from the global stream."""
        self._draw()

    def drive(self, x: Tensor) -> Tensor:
        """What inputs (..., n_inputs) add to the three gates, (..., 3 n_hidden)."""
        bias = None if self.b_r is None else torch.cat([self.b_r, self.b_z, self.b_n]).squeeze(-1)
        return F.linear(x, torch.cat([self.V_r, self.V_z, self.V_n]), bias)

    def law(self) -> Law:
        weight, d = torch.cat([self.W_r, self.W_z, self.W_n]), self.n_hidden
        inner = 0.0 if self.c_n is None else self.c_n.squeeze(-1)

        def law(h: Tensor, drive: Tensor) -> Tensor:
            own = F.linear(h, weight)
            r, z = torch.sigmoid(own[..., : 2 * d] + drive[..., : 2 * d]).split(d, -1)
            n = torch.tanh(r * (own[..., 2 * d :] + inner) + drive[..., 2 * d :])
            return n + z * (h - n)

        return law


def _empty(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns))


def _uniform(parameter: nn.Parameter | None, inputs: int, generator) -> None:
    if parameter is not None:
        nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
