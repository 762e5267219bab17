"""A field that is initialised as pendulums of known frequencies, and bends where that does not do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mspace.checks import as_tensor, check_int, check_real
from mspace.models import NeuralODE, rk4
from mspace.models.parts import linear


class Oscillators(nn.Module):
    """``dz/dt = A z + V tanh(U z + b)``, in which A is initialised as rotations of planes and V as zero.

    A plane of frequency w, in radians per unit of the field's time, goes round once in ``2 pi / w``. All of it is
    trained: frequencies move, planes mix, decay and bend. Where V is zero its own gradient is not, so it can
    leave. Without a bend the flow is the matrix exponential.

    Args:
        frequencies: (k,), of the planes; the state has 2 k numbers
        n_hidden: units of the bend, 0 for a linear field
        generator: of U and b
    """

    def __init__(self, frequencies: Sequence[float], n_hidden: int = 0, *, generator: torch.Generator | None = None):
        super().__init__()
        start = as_tensor(frequencies, "frequencies")
        if start.ndim != 1 or not len(start) or not (torch.isfinite(start) & (start >= 0)).all():
            raise ValueError(f"frequencies must be (k,), finite and not negative, got {frequencies}")
        self.frequencies, self.n_hidden = tuple(start.tolist()), check_int(n_hidden, "n_hidden", 0)
        size = 2 * len(start)
        self.A = nn.Parameter(torch.empty(size, size))
        if self.n_hidden:
            self.hidden = linear(size, self.n_hidden, generator=generator)
            self.V = nn.Parameter(torch.empty(size, self.n_hidden))
        self.reset_parameters()

    @property
    def rows(self) -> list[str]:
        """Return the names of the parameters that make one number of the velocity, its row of A and that of V."""
        return ["A", "V"] if self.n_hidden else ["A"]

    def reset_parameters(self) -> None:
        """Initialise A and V; U and b are those of a dense layer, which resets itself."""
        turns = [torch.tensor([[0.0, w], [-w, 0.0]]) for w in self.frequencies]
        with torch.no_grad():
            self.A.copy_(torch.block_diag(*turns))
            if self.n_hidden:
                self.V.zero_()

    def forward(self, z: Tensor) -> Tensor:
        """Map states (..., 2 k) to their velocities."""
        velocity = z @ self.A.mT
        return velocity + self.hidden(z).tanh() @ self.V.mT if self.n_hidden else velocity


def oscillator_ode(
    data: tuple[Tensor, Tensor], frequencies: Sequence[float], *, penalty: float = 1.0, solver: Callable = rk4
) -> NeuralODE:
    """Return a `NeuralODE` with a linear encoder and oscillators of these frequencies, by least squares.

    The decoder sums the first number of every plane. First the states that reproduce the horizons best are computed, then
    the encoder that gives them from the histories, by a ridge regression. Without a penalty no other encoder has a smaller
    squared error; nothing is trained. Time is in radians of the first frequency.

    Args:
        data: (n, width) and (n, horizon), as of `windows`
        frequencies: (k,), in radians per sample, the first not zero
        penalty: of the encoder's squared weights, against the summed squared error of the states
        solver: as of `NeuralODE`
    """
    x, y = (as_tensor(part, "data") for part in data)
    penalty = check_real(penalty, "penalty", ends="[)")
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(f"data must be (n, width) and (n, horizon), got {tuple(x.shape)} and {tuple(y.shape)}")
    if not torch.isfinite(x).all() or not torch.isfinite(y).all():
        raise ValueError("data must be finite, got numbers that are not: leave such windows out")
    if not len(frequencies) or not frequencies[0] > 0:
        raise ValueError(f"the first of frequencies is the unit of time and must be positive, got {frequencies}")
    field = Oscillators([w / frequencies[0] for w in frequencies])
    size, unit = 2 * len(field.frequencies), 1 / float(frequencies[0])
    parts = {"encoder": linear(x.shape[1], size), "field": field, "decoder": linear(size, 1), "unit": unit}
    model = NeuralODE(x.shape[1], size, horizon=y.shape[1], solver=solver, **parts).to(x)
    with torch.no_grad():
        model.decoder.weight.copy_(torch.tensor([[1.0, 0.0]]).repeat(1, size // 2))
        model.decoder.bias.zero_()
        states = y @ torch.linalg.pinv(responses(model))
        centre, level = x.mean(0), states.mean(0)
        lifted = torch.cat([x - centre, penalty**0.5 * torch.eye(x.shape[1]).to(x)])
        weight = torch.linalg.lstsq(lifted, torch.cat([states - level, states.new_zeros(x.shape[1], size)])).solution.T
        model.encoder.weight.copy_(weight)
        model.encoder.bias.copy_(level - weight @ centre)
    return model


def responses(model: NeuralODE) -> Tensor:
    """Return what each number of the state adds to the output of a linear field and decoder, (n_latent, horizon[, m]).

    The work of the solver, done once: the model's output is then ``encoder(x) @ responses(model)``, plus its output from a
    state of zeros if layers have biases, and least squares or a network for the states alone can be fitted without
    solving anything.
    """
    units = torch.eye(model.n_latent).to(next(model.parameters()))
    states = model.solve_from(torch.cat([units, 0 * units[:1]]), torch.arange(model.horizon + 1)).states
    outputs = model.decode(states[1:])
    return outputs[:-1] - outputs[-1]
