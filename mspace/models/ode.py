"""A series as what is seen of a state that moves by a learned differential equation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..checks import as_tensor, check_int
from .cells import GRUCell
from .dense import mlp
from .histories import asked, checked, flattened, last_samples, settled
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
        horizon: samples that `forward` answers
        channels: the number of series, None for a plain one
        encoder: units of its hidden layers, or a module (B, width * m) -> (B, n_latent), copied; not with `irregular`
        field: likewise, (B, n_latent) -> (B, n_latent), with a tanh between layers; with `clock` its input has the time as
            a last column
        decoder: likewise, (..., n_latent) -> (..., m)
        clock: whether the field knows the time since the history ended
        irregular: whether samples come with times and may be missing, see `irregular_windows`
        unit: how many samples (or in `irregular` whatever times are counted in) make one unit of the field's time;
            default `width`
        solver: (field, start, times) -> `Solution`: `rk4`, or a ``partial`` of it with n_steps, or of `dopri5`
        generator: where the start is drawn from
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
        clock: bool = False,
        irregular: bool = False,
        unit: float | None = None,
        solver: Callable[..., Solution] = rk4,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.width, self.n_latent = check_int(width, "width", 1), check_int(n_latent, "n_latent", 1)
        self.horizon = check_int(horizon, "horizon", 1)
        self.channels = None if channels is None else check_int(channels, "channels", 1)
        self.clock, self.irregular, self.solver = bool(clock), bool(irregular), solver
        self.unit = float(width if unit is None else unit)
        if not 0 < self.unit < math.inf:
            raise ValueError(f"unit must be a positive number of samples, got {unit}")
        if irregular and encoder is not None:
            raise ValueError("encoder must not be given with irregular, where a gated cell reads the history")
        m = self.channels or 1
        if irregular:
            self.encoder = GRUCell(2 * m, n_latent, generator=generator)
        else:
            self.encoder = _layers((32,) if encoder is None else encoder, self.width * m, n_latent, generator)
        self.field = _layers(field, n_latent + self.clock, n_latent, generator)
        self.decoder = _layers(decoder, n_latent, m, generator)

    @property
    def neurons(self) -> dict[str, str | list[str]]:
        """The names under which `weight_of` and ``ensemble.neurons`` find the layers: the first of the encoder and of
        the field, and the last of the field ("velocity", a row for each number of the state; of a field with `rows` those
        parameters side by side) and of the decoder."""
        if self.irregular:
            encoder = [f"encoder.{name}" for name in GRUCell.rows]
        else:
            encoder = _dense(self, "encoder")[0]
        field = _dense(self, "field")
        velocity = [f"field.{name}" for name in getattr(self.field, "rows", [])] or field[-1]
        return {"encoder": encoder, "field": field[0], "velocity": velocity, "decoder": _dense(self, "decoder")[-1]}

    def velocity(self, t: Tensor, z: Tensor) -> Tensor:
        """dz/dt of states (..., n_latent); the field as solvers call it."""
        if self.clock:
            z = torch.cat([z, t.to(z).expand(*z.shape[:-1], 1)], -1)
        return self.field(z)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width[, m]) to (B, horizon[, m]); of an irregular model (B, width + horizon, 2 m + 1) to the same."""
        y = self._decode(self._solved(x).states[1:])
        if not self.irregular:
            return y
        wanted = self._parted(x)[2]
        return y * (wanted.squeeze(2) if self.channels is None else wanted)

    def solve(self, x: Tensor) -> Solution:
        """The states (horizon + 1, B, n_latent) behind the answers of `forward`, the encoder's first, and their cost.

        `evaluations` counts calls of the field, each for the whole batch; those of reading an irregular history too.
        """
        with torch.no_grad():
            return self._solved(x)

    def forecast(self, history, steps: int, *, batched: bool = False) -> Tensor:
        """Continue a history: (T[, m]) to (steps[, m]), or (B, T[, m]) to (B, steps[, m]) if `batched`.

        The last `width` samples are encoded once and the state moves on, as far as is asked; no answer is fed back.
        An irregular model takes the samples as one unit of time apart.
        """
        steps = check_int(steps, "steps", 1)
        past = last_samples(self, history, self.channels, self.width, self.width, batched)
        with torch.no_grad():
            if self.irregular:
                ticks = torch.arange(self.width + steps, dtype=past.dtype)
                return settled(self._predict(past, ticks[: self.width], ticks[self.width :]), batched)
            found = self._along(self.encoder(flattened(past)), torch.arange(steps + 1))
            return settled(self._decode(found.states[1:]), batched)

    def predict(self, history, times, wanted) -> Tensor:
        """The series at any times after an irregular history: (k[, m]).

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
            return settled(self._predict(values, past, ahead), batched=False)

    def _predict(self, values: Tensor, times: Tensor, wanted: Tensor) -> Tensor:
        start = self._read(_packed(values, times.expand(values.shape[:2])))
        return self._decode(self._along(start, torch.cat([times[-1:], wanted]) - times[-1]).states[1:])

    def _solved(self, x: Tensor) -> Solution:
        if not self.irregular:
            start = self.encoder(flattened(checked(x, self.channels, self.width, self.width)))
            return self._along(start, torch.arange(self.horizon + 1))
        known, times, _ = self._parted(x)
        states, evaluations = self._along(self._read(known), times)
        return Solution(states, evaluations + 4 * (known.shape[1] - 1))

    def _along(self, start: Tensor, times: Tensor) -> Solution:
        """The solver over `horizon` times, and over the next, so that its steps are those of the training."""
        times, states, evaluations = times.to(start) / self.unit, [start.unsqueeze(0)], 0
        for i in range(0, times.shape[-1] - 1, self.horizon):
            found = self.solver(self.velocity, states[-1][-1], times[..., i : i + self.horizon + 1])
            states.append(found.states[1:])
            evaluations += found.evaluations
        return Solution(torch.cat(states), evaluations)

    def _read(self, rows: Tensor) -> Tensor:
        """The state after rows (B, T, 2 m + 1) of values, masks and times."""
        law, times = self.encoder.law(), rows[..., -1] / self.unit
        drives, m = self.encoder.drive(rows[..., :-1]), rows.shape[2] // 2
        seen = (rows[..., m:-1].sum(2, keepdim=True) > 0).to(rows)
        z, states = rows.new_zeros(len(rows), self.n_latent), []
        for i, (drive, t) in enumerate(zip(drives.unbind(1), times.split(1, 1))):
            if i:
                z = step(self.velocity, times[:, i - 1 : i], t, z)[0]
            z = z + seen[:, i] * (law(z, drive) - z)
            states.append(z)
        return finite(torch.stack(states), times)[-1]

    def _decode(self, states: Tensor) -> Tensor:
        """(T, B, n_latent) to (B, T[, m])."""
        y = self.decoder(states).transpose(0, 1)
        return y.squeeze(2) if self.channels is None else y

    def _parted(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows known; the time of the last of them and those wanted, from it on; and which values are wanted."""
        columns = 2 * (self.channels or 1) + 1
        if x.ndim != 3 or x.shape[2] != columns or x.shape[1] <= self.horizon:
            raise ValueError(
                f"an irregular model takes (B, width + {self.horizon}, {columns}), as `irregular_windows` makes them, got "
                f"{tuple(x.shape)}"
            )
        if asked(torch.isfinite(x).all()) is False:
            raise ValueError(
                "windows must be finite, with a zero where a value is missing: make them by `irregular_windows`"
            )
        increasing(x[..., -1])
        n = x.shape[1] - self.horizon
        return x[:, :n], x[:, n - 1 :, -1] - x[:, n - 1 : n, -1], x[:, n:, columns // 2 : -1]

    def extra_repr(self) -> str:
        solver = getattr(self.solver, "func", self.solver)
        options = ", ".join(f"{k}={v}" for k, v in sorted(getattr(self.solver, "keywords", {}).items()))
        return (
            f"width={self.width}, horizon={self.horizon}, channels={self.channels}, clock={self.clock}, "
            f"irregular={self.irregular}, unit={self.unit:g}, solver={getattr(solver, '__name__', type(solver).__name__)}"
            f"({options})"
        )


def irregular_windows(series, times, width: int, horizon: int) -> tuple[Tensor, Tensor]:
    """Histories of a series that was sampled at any times, and what follows: data for an irregular `NeuralODE`.

    Args:
        series: (T,) or (T, m); NaN is a value that is missing. A moment without any value may as well be left out
        times: (T,), increasing
        width: rows of a history
        horizon: rows to be answered

    Returns:
        inputs (n, width + horizon, 2 m + 1) and targets (n, horizon[, m]). Columns are values, masks (1 where there is a
        value) and times since the history's last row. In the last `horizon` rows values are hidden. Where a target is
        missing it is 0, and the model, which knows from the mask, answers 0: it counts as an error of none.
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
    """(B, T[, m]) with NaN and (B, T) as values, masks and times, (B, T, 2 m + 1)."""
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
    """The dense layers of a part, by name; of a module of another kind its own name."""
    inside = model.get_submodule(part)
    dense = [f"{part}.{n}".rstrip(".") for n, m in inside.named_modules() if isinstance(m, nn.Linear)]
    return dense or [f"{part}.{n}" for n in getattr(inside, "rows", [])] or [part]
