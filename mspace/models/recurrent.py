"""Recurrent networks that continue a series: the paper's (its section 2.3), and one with gates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import check_int
from .cells import ElmanCell, GRUCell
from .dense import linear
from .histories import checked, last_samples, settled
from .orthogonal import _function

__all__ = ["GRU", "ElmanRNN"]

Function = Callable[[Tensor], Tensor]


class _Recurrent:
    """Around a cell: which samples it reads, and what is read off its state."""

    lags: int
    horizon: int
    steps: int
    channels: int | None
    every: bool
    output: Function

    def _read(self, *, lags, horizon, steps, channels, every, output, bias, generator) -> None:
        if every and steps is not None:
            raise ValueError(
                f"every answers after true samples and steps after the model's own, got both, steps={steps}"
            )
        self.horizon, self.lags = check_int(horizon, "horizon", 1), lags
        self.steps = self.horizon if steps is None else check_int(steps, "steps", 1)
        self.channels, self.every, self.output = channels, bool(every), _function("output", output)
        self.readout = linear(self.n_hidden, self.horizon * (channels or 1), bias=bias, generator=generator)

    @property
    def neurons(self) -> dict[str, list[str]]:
        """The names under which `weight_of` and ``ensemble.neurons`` find the units, and what is read off them."""
        return {"hidden": [n for n in self.rows if getattr(self, n) is not None], "readout": ["readout"]}

    def reset_parameters(self) -> None:
        """Begin anew; as in torch, from the global stream."""
        self._draw()
        self.readout.reset_parameters()

    def states(self, x: Tensor) -> Tensor:
        """The state after every sample but the first ``lags - 1``: (B, width[, m]) to (B, width - lags + 1, n_hidden)."""
        return torch.stack(self._follow(None, checked(x, self.channels, self.lags)), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width[, m]) to (B, steps[, m]); with `every` to (B, width - lags + 1, horizon[, m])."""
        if self.every:
            return self._answer(self.states(x))
        return self._continue(checked(x, self.channels, self.lags), self.steps)

    def targets(self, x: Tensor, y: Tensor) -> Tensor:
        """What `every` is to answer on windows (B, width[, m]) and their horizons (B, horizon[, m])."""
        both = torch.cat([checked(x, self.channels, self.lags), checked(y, self.channels, self.horizon)], 1)
        both = both[:, self.lags : x.shape[1] + self.horizon].unfold(1, self.horizon, 1)
        return both if self.channels is None else both.transpose(2, 3)

    def forecast(self, history, steps: int, *, width: int | None = None, batched: bool = False) -> Tensor:
        """Continue a history: its samples are read once, then the state rolls on, fed with its own answers.

        Args:
            history: (T[, m]), or (B, T[, m]) if `batched`
            width: how many last samples are read; default all

        Returns:
            (steps[, m]), or (B, steps[, m])
        """
        steps = check_int(steps, "steps", 1)
        past = last_samples(self, history, self.channels, self.lags, width, batched)
        with torch.no_grad():
            return settled(self._continue(past, steps), batched)

    def _follow(self, h: Tensor | None, x: Tensor, *, given: bool = True) -> list[Tensor]:
        """The states after each window of `lags` samples in x, which are given, or the network's own answers."""
        n = x.shape[1] - self.lags + 1
        if n == 1:
            views = x.reshape(len(x), 1, -1)
        elif given:
            views = x.reshape(len(x), x.shape[1], -1).unfold(1, self.lags, 1).transpose(2, 3).flatten(2)
        else:  # slices and not `unfold`, whose gradient vmap takes member by member
            views = torch.cat([x[:, i : i + n].reshape(len(x), n, -1) for i in range(self.lags)], 2)
        drives, law, states = self.drive(views), self.law(), []
        h = x.new_zeros(len(x), self.n_hidden) if h is None else h
        for drive in drives.unbind(1):
            h = law(h, drive)
            states.append(h)
        return states

    def _continue(self, x: Tensor, steps: int) -> Tensor:
        h, recent, made, answers = self._follow(None, x)[-1], x, 0, []
        while True:
            y = self._answer(h)[:, : steps - made]
            answers.append(y)
            made += y.shape[1]
            if made >= steps:
                return torch.cat(answers, 1)
            recent = torch.cat([recent[:, recent.shape[1] - self.lags + 1 :], y], 1)
            h = self._follow(h, recent, given=False)[-1]

    def _answer(self, h: Tensor) -> Tensor:
        """States (..., n_hidden) to (..., horizon[, m])."""
        y = self.output(self.readout(h))
        return y if self.channels is None else y.unflatten(-1, (self.horizon, self.channels))

    def extra_repr(self) -> str:
        names = ("lags", "horizon", "steps", "channels", "every")
        return f"n_hidden={self.n_hidden}, " + ", ".join(f"{name}={getattr(self, name)}" for name in names)


class ElmanRNN(_Recurrent, ElmanCell):
    """The paper's recurrent network, ``h_t = tanh(W h_{t-1} + V x_t + b)`` from ``h_0 = 0``, then ``w_o h_t + c``.

    As the paper has it, x_t is the last `lags` samples, there are no biases and the output is a tanh, which only
    reaches series within (-1, 1): ``ElmanRNN(d, lags=h, bias=False, output=torch.tanh)``.

    Args:
        n_hidden: length of the state, the number of neurons
        lags: how many samples the network sees at a time, the length of x_t
        horizon: how many samples the state is read out into
        steps: how many samples `forward` answers; beyond `horizon` they continue from its own answers. So
            ``horizon=1, steps=p`` trains on the free run, and the default directly
        channels: the number of series that are forecast together, None for a plain one
        every: `forward` answers after every sample rather than after the last (teacher forcing); see `targets`
        activation: any function of a tensor, a module (it is copied) or its class
        output: likewise, of what is read out, None for none
        bias: whether there are any
        generator: where the start is drawn from; the recurrence starts with a spectral radius of 0.95
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
        n_inputs = _inputs(lags, channels)
        super().__init__(n_inputs, n_hidden, activation=activation, bias=bias, generator=generator)
        around = {"lags": lags, "horizon": horizon, "steps": steps, "channels": channels, "every": every}
        self._read(**around, output=output, bias=bias, generator=generator)


class GRU(_Recurrent, GRUCell):
    """A recurrent network of gated units, which hold on to what they have seen; arguments as of `ElmanRNN`."""

    def __init__(
        self,
        n_hidden: int,
        *,
        lags: int = 1,
        horizon: int = 1,
        steps: int | None = None,
        channels: int | None = None,
        every: bool = False,
        output: Function | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__(_inputs(lags, channels), n_hidden, bias=bias, generator=generator)
        around = {"lags": lags, "horizon": horizon, "steps": steps, "channels": channels, "every": every}
        self._read(**around, output=output, bias=bias, generator=generator)


def _inputs(lags: int, channels: int | None) -> int:
    return check_int(lags, "lags", 1) * (1 if channels is None else check_int(channels, "channels", 1))
