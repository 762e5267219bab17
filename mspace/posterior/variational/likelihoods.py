"""What the data say: the expected negative log-likelihood of an example for N posteriors side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .families import squares

__all__ = ["Gaussian", "Other", "likelihood_of"]


class Gaussian:
    """Targets N(output, noise I). A noise that is learned is the mean square of what remains, its best value.

    Args:
        noise: (N,), the variance given or to begin with
        learned: whether it follows the residuals
        size: numbers in a target
    """

    name = "gaussian"

    def __init__(self, noise: Tensor, learned: bool, size: int, floor: float):
        self.noise, self.learned, self.size, self.floor = noise, learned, size, floor

    def energy(self, out: Tensor, variance: Tensor | None, y: Tensor) -> Tensor:
        """The expected squared error of answers (N, B, ...), a mean over all numbers, (N,); `variance` is their sum."""
        found = squares(out - y)
        return (found if variance is None else found + variance) / out[0].numel()

    def nll(self, energy: Tensor, whole: bool = False) -> Tensor:
        """Of an example, (N,); where the energy is of the whole data a learned noise follows at once."""
        noise = energy.clamp(min=self.floor) if whole and self.learned else self.noise
        level = self.size / 2 * torch.log(2 * math.pi * noise)  # no gradient passes here where the noise stands
        return torch.addcmul(level, energy, self.size / 2 / noise)

    def update(self, energy: Tensor) -> None:
        """The noise at its best for the energy of the whole data."""
        if self.learned:
            self.noise = energy.detach().clamp(min=self.floor)

    def report(self, i: int) -> dict[str, float]:
        """What there is to say of posterior i."""
        return {"noise": float(self.noise[i])}


class Other:
    """A loss that is a negative log-likelihood, such as a cross-entropy."""

    def __init__(self, loss: Callable, name: str):
        self.loss, self.name = loss, name

    def energy(self, out: Tensor, variance: None, y: Tensor) -> Tensor:
        """The mean loss, (N,)."""
        if self.name == "categorical" and len(out) > 1:
            each = F.cross_entropy(out.flatten(0, 1), y.flatten(0, 1), reduction="none")
            return each.view(len(out), -1).mean(1)
        return torch.stack([self.loss(o, t) for o, t in zip(out, y)])

    def nll(self, energy: Tensor, whole: bool = False) -> Tensor:
        """Of an example, (N,)."""
        return energy

    def update(self, energy: Tensor) -> None:
        """Nothing to learn here."""

    def report(self, i: int) -> dict[str, float]:
        """What there is to say of posterior i."""
        return {}


def likelihood_of(loss, noise: float | None, out: Tensor, y: Tensor) -> Gaussian | Other:
    """The likelihood that a loss stands for, with the residuals of the start, out (N, n, ...) and y alike."""
    if getattr(loss, "reduction", "mean") != "mean":
        raise ValueError(f"loss must be a mean over the batch, got reduction={loss.reduction!r}")
    if loss is F.mse_loss or type(loss) is nn.MSELoss:
        if out.shape != y.shape:
            raise ValueError(
                f"targets must have the shape of the answers, {tuple(out.shape[2:])}, got {tuple(y.shape[2:])}: "
                "the squared error would pair each answer with every target"
            )
        if noise is not None and (not isinstance(noise, Real) or not 0 < noise < math.inf):
            raise ValueError(f"noise must be a positive variance, or None to learn it, got {noise!r}")
        floor = 1e-8 * float(y.square().mean()) + torch.finfo(y.dtype).tiny
        square = (squares(out - y) / out[0].numel()).clamp(min=floor)
        start = square if noise is None else torch.full_like(square, noise)
        return Gaussian(start, noise is None, y[0, 0].numel(), floor)
    if noise is not None:
        raise ValueError("noise belongs to a squared error, F.mse_loss or nn.MSELoss; this loss has none: leave it out")
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None
    plain = plain and loss.label_smoothing == 0 and loss.ignore_index == -100
    return Other(loss, "categorical" if plain or loss is F.cross_entropy else "loss")
