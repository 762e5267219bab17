"""The paper's recurrent network (its section 2.3), which continues a series, and a gated cell for ODE-RNNs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_generator, check_int
from .parts import as_function, checked, checked_forecast, last_samples, linear

__all__ = ["ElmanRNN", "GRUCell"]

Function = Callable[[Tensor], Tensor]
RADIUS = 0.95  # of the initial recurrence: a memory of some twenty steps, and none that grows


class ElmanRNN(nn.Module):
    """``h_t = activation(W h_{t-1} + V x_t + b)`` from ``h_0 = 0``, then ``output(w_o h_t + c)`` (Elman 1990).

    As the paper has it, x_t is the last `lags` samples, there are no biases and the output is a tanh, which only
    reaches series within (-1, 1): ``ElmanRNN(d, lags=h, bias=False, output=torch.tanh)``. W is (n_hidden, n_hidden),
    V (n_hidden, lags * m), b a column (n_hidden, 1), so that ``["W", "V", "b"]`` names whole rows for `weight_of`.

    Args:
        n_hidden: length of the state, the number of neurons
        lags: how many samples the network sees at a time, the length of x_t
        horizon: how many samples the state is read out into
        steps: how many samples `forward` predicts; beyond `horizon` they continue from its own predictions. So
            ``horizon=1, steps=p`` trains on the free run, and the default directly
        channels: the number of series that are forecast together, None for a plain one
        every: `forward` predicts after every sample rather than after the last (teacher forcing); see `targets`
        activation: any function of a tensor, a module (it is copied) or its class
        output: likewise, of what is read out, None for none
        bias: whether there are any
        generator: of the initialisation; the recurrence has a spectral radius of 0.95
    """

    def __init__(
        self,
        n_hidden: int,
        *,
        lags: int = 1,
        horizon: int = 1,
        steps: int | None = None,
        channels: int | None = None,
        every: bool = False,
        activation: Function = torch.tanh,
        output: Function | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if every and steps is not None:
            raise ValueError(f"every predicts after true samples and steps after its own, got both, steps={steps}")
        self.lags, self.horizon = check_int(lags, "lags", 1), check_int(horizon, "horizon", 1)
        self.n_hidden = check_int(n_hidden, "n_hidden", 1)
        self.channels, self.every = None if channels is None else check_int(channels, "channels", 1), bool(every)
        self.steps = self.horizon if steps is None else check_int(steps, "steps", 1)
        self.activation, self.output = as_function("activation", activation), as_function("output", output)
        m = self.channels or 1
        self.W, self.V = _empty(self.n_hidden, self.n_hidden), _empty(self.n_hidden, self.lags * m)
        self.b = _empty(self.n_hidden, 1) if bias else None
        self._reset_cell(generator)
        self.readout = linear(self.n_hidden, self.horizon * m, bias=bias, generator=generator)

    def _reset_cell(self, generator: torch.Generator | None = None) -> None:
        """Draw uniform weights as torch does, and scale the recurrence to a spectral radius."""
        for parameter, inputs in ((self.W, self.n_hidden), (self.V, self.V.shape[1]), (self.b, self.n_hidden)):
            _uniform(parameter, inputs, generator)
        with torch.no_grad():
            self.W.mul_(RADIUS / torch.linalg.eigvals(self.W).abs().max())

    def reset_parameters(self) -> None:
        """Initialise again; as in torch, from the global stream."""
        self._reset_cell()
        self.readout.reset_parameters()

    @property
    def neurons(self) -> dict[str, list[str]]:
        """Return the names under which `weight_of` and ``ensemble.neurons`` find the units, and the rows of the readout."""
        return {"hidden": ["W", "V"] if self.b is None else ["W", "V", "b"], "readout": ["readout"]}

    def states(self, x: Tensor) -> Tensor:
        """Return states after every sample from the ``lags``-th on: (B, width[, m]) to (B, width - lags + 1, n_hidden)."""
        return torch.stack(self._follow(None, checked(x, self.channels, self.lags)), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width[, m]) to (B, steps[, m]); with `every` to (B, width - lags + 1, horizon[, m])."""
        if self.every:
            return self._predict(self.states(x))
        return self._continue(checked(x, self.channels, self.lags), self.steps)

    def targets(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the targets of `every` for windows (B, width[, m]) and their horizons (B, horizon[, m])."""
        both = torch.cat([checked(x, self.channels, self.lags), checked(y, self.channels, self.horizon)], 1)
        both = both[:, self.lags : x.shape[1] + self.horizon].unfold(1, self.horizon, 1)
        return both if self.channels is None else both.transpose(2, 3)

    def forecast(self, history, steps: int, *, width: int | None = None) -> Tensor:
        """Continue a history: its samples are read once, then the state rolls on, fed with its own predictions.

        Args:
            history: (T[, m])
            width: how many last samples are read; default all

        Returns:
            (steps[, m])
        """
        steps = check_int(steps, "steps", 1)
        past = last_samples(self, history, self.channels, self.lags, width)
        with torch.no_grad():
            return checked_forecast(self._continue(past, steps))

    def _follow(self, h: Tensor | None, x: Tensor, *, observed: bool = True) -> list[Tensor]:
        """Return the states after each window of `lags` samples in x, observed or the network's own predictions."""
        n = x.shape[1] - self.lags + 1
        if n == 1:
            views = x.reshape(len(x), 1, -1)
        elif observed:
            views = x.reshape(len(x), x.shape[1], -1).unfold(1, self.lags, 1).transpose(2, 3).flatten(2)
        else:  # slices and not `unfold`, whose gradient vmap takes member by member
            views = torch.cat([x[:, i : i + n].reshape(len(x), n, -1) for i in range(self.lags)], 2)
        drives, states = F.linear(views, self.V, None if self.b is None else self.b.squeeze(-1)), []
        h = x.new_zeros(len(x), self.n_hidden) if h is None else h
        for drive in drives.unbind(1):
            h = self.activation(F.linear(h, self.W) + drive)
            states.append(h)
        return states

    def _continue(self, x: Tensor, steps: int) -> Tensor:
        h, recent, made, outputs = self._follow(None, x)[-1], x, 0, []
        while True:
            y = self._predict(h)[:, : steps - made]
            outputs.append(y)
            made += y.shape[1]
            if made >= steps:
                return torch.cat(outputs, 1)
            recent = torch.cat([recent[:, recent.shape[1] - self.lags + 1 :], y], 1)
            h = self._follow(h, recent, observed=False)[-1]

    def _predict(self, h: Tensor) -> Tensor:
        """Map states (..., n_hidden) to (..., horizon[, m])."""
        y = self.output(self.readout(h))
        return y if self.channels is None else y.unflatten(-1, (self.horizon, self.channels))


class GRUCell(nn.Module):
    """Gated units as in `torch.nn.GRU` (Cho and others 2014), each gate with weights of its own.

    ``r = sigmoid(W_r h + V_r x + b_r)``, ``z = sigmoid(W_z h + V_z x + b_z)``,
    ``n = tanh(r * (W_n h + c_n) + V_n x + b_n)``, and the next state is ``(1 - z) * n + z * h``. A unit is a row of all
    of these side by side.
    """

    c_n: Tensor
    rows = ("W_r", "W_z", "W_n", "V_r", "V_z", "V_n", "b_r", "b_z", "b_n", "c_n")

    def __init__(self, n_inputs: int, n_hidden: int, *, generator: torch.Generator | None = None):
        super().__init__()
        self.n_hidden = n_hidden
        for name in self.rows:
            setattr(self, name, _empty(n_hidden, {"W": n_hidden, "V": n_inputs}.get(name[0], 1)))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw uniform weights as torch does."""
        for name in self.rows:
            _uniform(getattr(self, name), self.n_hidden, generator)

    def drive(self, x: Tensor) -> Tensor:
        """Return what inputs (..., n_inputs) add to the three gates, (..., 3 n_hidden)."""
        return F.linear(x, self._gates("V"), self._gates("b").squeeze(-1))

    def _gates(self, kind: str) -> Tensor:
        return torch.cat([getattr(self, f"{kind}_{gate}") for gate in "rzn"])

    def transition(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the map from a state and a drive to the next state."""
        weight, d, inner = self._gates("W"), self.n_hidden, self.c_n.squeeze(-1)

        def transition(h: Tensor, drive: Tensor) -> Tensor:
            own = F.linear(h, weight)
            r, z = torch.sigmoid(own[..., : 2 * d] + drive[..., : 2 * d]).split(d, -1)
            n = torch.tanh(r * (own[..., 2 * d :] + inner) + drive[..., 2 * d :])
            return n + z * (h - n)

        return transition


def _empty(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns))


def _uniform(parameter: nn.Parameter | None, inputs: int, generator) -> None:
    check_generator(generator)
    if parameter is not None:
        nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
