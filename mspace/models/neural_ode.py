"""A series as the output of a state that moves by a learned differential equation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..checks import as_tensor, check_int, check_real
from .parts import checked, checked_forecast, flattened, holds, last_samples, mlp
from .recurrent import GRUCell
from .solvers import Solution, finite, increasing, rk4, step

__all__ = ["NeuralODE", "irregular_windows"]

Layers = nn.Module | Sequence[int]


class NeuralODE(nn.Module):
    """``z(0) = encoder(history)``, ``dz/dt = field(z)``, ``x(t) = decoder(z(t))`` (Chen and others 2018).

    Time counts from the last sample known, in units of `unit` samples. The encoder of a regular history is dense. An
    irregular one is read by an ODE-RNN (Rubanova, Chen and Duvenaud 2019): the state moves by the field from one
    observation to the next, by one step of `rk4`, and a gated cell takes in what was observed, if anything was.

    Args:
        width: samples of the history that the model sees
        n_latent: length of the state z
        horizon: samples that `forward` predicts
        channels: the number of series, None for a plain one
        encoder: units of its hidden layers, or a module (B, width * m) -> (B, n_latent), copied; not with `irregular`
        field: likewise, (B, n_latent) -> (B, n_latent), with a tanh between layers
        decoder: likewise, (..., n_latent) -> (..., m)
        irregular: whether samples come with times and may be missing, see `irregular_windows`
        unit: how many samples (or in `irregular` whatever times are counted in) make one unit of the field's time;
            default `width`
        solver: (field, start, times) -> `Solution`: `rk4`, or a ``partial`` of it with n_steps, or of `dopri5`
        generator: of the initialisation
    """

    def __init__(
        self,
        width: int,
        n_latent: int,
        *,
        horizon: int = 1,
        channels: int | None = None,
        encoder: Layers | None = None,
        field: Layers = (32,),
        decoder: Layers = (),
        irregular: bool = False,
        unit: float | None = None,
        solver: Callable[..., Solution] = rk4,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.width, self.n_latent = check_int(width, "width", 1), check_int(n_latent, "n_latent", 1)
        self.horizon = check_int(horizon, "horizon", 1)
        self.channels = None if channels is None else check_int(channels, "channels", 1)
        self.irregular, self.solver = bool(irregular), solver
        self.unit = check_real(self.width if unit is None else unit, "unit")
        if irregular and encoder is not None:
            raise ValueError("encoder must not be given with irregular, where a gated cell reads the history")
        m = self.channels or 1
        if irregular:
            self.encoder = GRUCell(2 * m, n_latent, generator=generator)
        else:
            self.encoder = _layers((32,) if encoder is None else encoder, self.width * m, n_latent, generator)
        self.field = _layers(field, n_latent, n_latent, generator)
        self.decoder = _layers(decoder, n_latent, m, generator)

    @property
    def neurons(self) -> dict[str, str | list[str]]:
        """Return the names under which `weight_of` and ``ensemble.neurons`` find the layers.

        The first of the encoder and of the field, the last of the field ("velocity", a row for each number of the state)
        and of the decoder. A part that has no dense layers but a list `rows` of parameters has those, side by side.
        """
        encoder = [f"encoder.{name}" for name in GRUCell.rows] if self.irregular else _dense(self, "encoder")[0]
        field = _dense(self, "field")
        velocity = [f"field.{name}" for name in getattr(self.field, "rows", [])] or field[-1]
        return {"encoder": encoder, "field": field[0], "velocity": velocity, "decoder": _dense(self, "decoder")[-1]}

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """Return dz/dt of states (..., n_latent); the field as solvers call it."""
        return self.field(z)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width[, m]) to (B, horizon[, m]); of an irregular model (B, width + horizon, 2 m + 1) to the same."""
        y = self.decode(self._solved(x).states[1:])
        if not self.irregular:
            return y
        wanted = self._parted(x)[2]
        return y * (wanted.squeeze(2) if self.channels is None else wanted)

    def solve(self, x: Tensor) -> Solution:
        """Return the states (horizon + 1, B, n_latent) behind the output of `forward`, the encoder's first, and their cost.

        `evaluations` counts calls of the field, each for the whole batch; those of reading an irregular history too.
        """
        with torch.no_grad():
            return self._solved(x)

    def forecast(self, history, steps: int) -> Tensor:
        """Continue a history: (T[, m]) to (steps[, m]).

        The last `width` samples are encoded once and the state moves on, for `steps` samples; no prediction is fed back.
        An irregular model takes the samples as one unit of time apart.
        """
        steps = check_int(steps, "steps", 1)
        past = last_samples(self, history, self.channels, self.width, self.width)
        with torch.no_grad():
            if self.irregular:
                ticks = torch.arange(self.width + steps, dtype=past.dtype)
                return checked_forecast(self._predict(past, ticks[: self.width], ticks[self.width :]))
            states = self.solve_from(self.encoder(flattened(past)), torch.arange(steps + 1)).states
            return checked_forecast(self.decode(states[1:]))

    def predict(self, history, times, wanted) -> Tensor:
        """Return the series at any times after an irregular history: (k[, m]).

        Args:
            history: (T[, m]), the last `width` rows of it are seen; NaN is a value that is missing
            times: (T,) of its rows, increasing
            wanted: (k,), increasing, after the last of `times`
        """
        if not self.irregular:
            raise ValueError("predict needs irregular=True; a regular model counts in samples: use `forecast`")
        values, times, wanted = as_tensor(history, "history"), as_tensor(times, "times"), as_tensor(wanted, "wanted")
        _check_rows(values, times, self.channels)
        increasing(torch.cat([times[-1:].double(), wanted.double()]), "wanted")
        like, last = next(self.parameters()), times[-1].double()
        values = values[-self.width :].to(like).unsqueeze(0)
        if not torch.isfinite(values).any():
            raise ValueError(f"history has no value among its last {values.shape[1]} rows: give a longer one")
        ahead, past = ((t.double() - last).to(like) for t in (wanted, times[-self.width :]))
        with torch.no_grad():
            return checked_forecast(self._predict(values, past, ahead))

    def _predict(self, values: Tensor, times: Tensor, wanted: Tensor) -> Tensor:
        start = self._read(_packed(values, times.expand(values.shape[:2])))
        return self.decode(self.solve_from(start, torch.cat([times[-1:], wanted]) - times[-1]).states[1:])

    def _solved(self, x: Tensor) -> Solution:
        if not self.irregular:
            start = self.encoder(flattened(checked(x, self.channels, self.width, self.width)))
            return self.solve_from(start, torch.arange(self.horizon + 1))
        known, times, _ = self._parted(x)
        states, evaluations = self.solve_from(self._read(known), times)
        return Solution(states, evaluations + 4 * (known.shape[1] - 1))

    def solve_from(self, start: Tensor, times: Tensor) -> Solution:
        """Solve from states (B, n_latent) over `horizon` times, then the next, so that steps are as in training."""
        times, states, evaluations = times.to(start) / self.unit, [start.unsqueeze(0)], 0
        for i in range(0, times.shape[-1] - 1, self.horizon):
            part = self.solver(self.velocity, states[-1][-1], times[..., i : i + self.horizon + 1])
            states.append(part.states[1:])
            evaluations += part.evaluations
        return Solution(torch.cat(states), evaluations)

    def _read(self, rows: Tensor) -> Tensor:
        """Return the state after rows (B, T, 2 m + 1) of values, masks and times."""
        assert isinstance(self.encoder, GRUCell)
        transition, times = self.encoder.transition(), rows[..., -1] / self.unit
        drives, m = self.encoder.drive(rows[..., :-1]), rows.shape[2] // 2
        seen = (rows[..., m:-1].sum(2, keepdim=True) > 0).to(rows)
        z, states = rows.new_zeros(len(rows), self.n_latent), []
        for i, (drive, t) in enumerate(zip(drives.unbind(1), times.split(1, 1))):
            if i:
                z = step(self.velocity, times[:, i - 1 : i], t, z)[0]
            z = z + seen[:, i] * (transition(z, drive) - z)
            states.append(z)
        return finite(torch.stack(states), times)[-1]

    def decode(self, states: Tensor) -> Tensor:
        """Map states (T, B, n_latent) to (B, T[, m])."""
        y = self.decoder(states).transpose(0, 1)
        return y.squeeze(2) if self.channels is None else y

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the known rows, the times from the last of them on, and the mask of the values to predict."""
        columns = 2 * (self.channels or 1) + 1
        if x.ndim != 3 or x.shape[2] != columns or x.shape[1] <= self.horizon:
            raise ValueError(
                f"an irregular model takes (B, width + {self.horizon}, {columns}), as `irregular_windows` makes them, got "
                f"{tuple(x.shape)}"
            )
        if holds(torch.isfinite(x).all()) is False:
            raise ValueError(
                "windows must be finite, with a zero where a value is missing: make them by `irregular_windows`"
            )
        increasing(x[..., -1])
        n = x.shape[1] - self.horizon
        return x[:, :n], x[:, n - 1 :, -1] - x[:, n - 1 : n, -1], x[:, n:, columns // 2 : -1]


def irregular_windows(series, times, width: int, horizon: int) -> tuple[Tensor, Tensor]:
    """Cut a series that was sampled at any times into histories and their futures: data for an irregular `NeuralODE`.

    Args:
        series: (T,) or (T, m); NaN is a value that is missing. A moment without any value may as well be left out
        times: (T,), increasing
        width: rows of a history
        horizon: rows to predict

    Returns:
        inputs (n, width + horizon, 2 m + 1) and targets (n, horizon[, m]). Columns are values, masks (1 where there is a
        value) and times since the history's last row. In the last `horizon` rows values are hidden. Where a target is
        missing it is 0, and so is the output of the model, which has the mask: its error is zero.
    """
    values, times = as_tensor(series, "series"), as_tensor(times, "times")
    width, horizon = check_int(width, "width", 1), check_int(horizon, "horizon", 1)
    _check_rows(values, times, None if values.ndim == 1 else values.shape[1])
    if len(values) < width + horizon:
        raise ValueError(
            f"width {width} and horizon {horizon} need {width + horizon} rows, got {len(values)}: shorten them"
        )
    stamp = times.double().unfold(0, width + horizon, 1)
    stamp = (stamp - stamp[:, width - 1 : width]).to(values)
    x = _packed(values.unfold(0, width + horizon, 1).movedim(-1, 1), stamp)
    m = x.shape[2] // 2
    blind = (x[:, :width, m:-1].sum((1, 2)) == 0).nonzero()
    if len(blind):
        raise ValueError(
            f"window {int(blind[0])} has no value in its {width} rows of history: leave empty rows out, or widen it"
        )
    y = x[:, width:, :m].clone()
    x[:, width:, :m] = 0
    return x, y if values.ndim == 2 else y.squeeze(2)


def _packed(values: Tensor, times: Tensor) -> Tensor:
    """Return values (B, T[, m]) with NaN and times (B, T) as values, masks and times, (B, T, 2 m + 1)."""
    values = values.unsqueeze(2) if values.ndim == 2 else values
    mask = torch.isfinite(values)
    return torch.cat([torch.where(mask, values, 0.0), mask.to(values), times.unsqueeze(2)], 2)


def _check_rows(values: Tensor, times: Tensor, channels: int | None) -> None:
    if values.ndim != (1 if channels is None else 2) or (channels is not None and values.shape[1] != channels):
        shape = "(T,)" if channels is None else f"(T, {channels})"
        raise ValueError(f"series must be {shape}, got {tuple(values.shape)}")
    if times.shape != values.shape[:1]:
        raise ValueError(f"times must be one for each of the {len(values)} rows, got {tuple(times.shape)}")
    if torch.isinf(values).any():
        raise ValueError("series must be finite, or NaN where a value is missing, got an infinite one")
    increasing(times) if len(times) > 1 else None


def _layers(given: Layers, n_in: int, n_out: int, generator) -> nn.Module:
    if isinstance(given, nn.Module):
        return copy.deepcopy(given)
    return mlp(n_in, *given, n_out, activation=nn.Tanh, generator=generator)


def _dense(model: nn.Module, part: str) -> list[str]:
    """Return the names of the dense layers of a part; of a module of another kind its own name."""
    inside = model.get_submodule(part)
    dense = [f"{part}.{n}".rstrip(".") for n, m in inside.named_modules() if isinstance(m, nn.Linear)]
    return dense or [f"{part}.{n}" for n in getattr(inside, "rows", [])] or [part]
