"""Windows of a series explained by a few Gaussian numbers: a variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_generator, check_int, check_real
from .parts import checked, checked_forecast, flattened, last_samples, mlp

__all__ = ["WindowVAE", "negative_elbo"]


class WindowOutput(NamedTuple):
    """The terms of the bound for each window, as `negative_elbo` takes them.

    Attributes:
        mean: over the nodes of what is decoded, (B, width + horizon[, m])
        spread: the mean squared distance of what is decoded to that mean, (B,)
        divergence: of the code from its prior, (B,)
        log_noise: the logarithm of the noise's variance, (B,)
    """

    mean: Tensor
    spread: Tensor
    divergence: Tensor
    log_noise: Tensor


class WindowVAE(nn.Module):
    """A window of a series, and what follows it, explained by a code of few numbers (Kingma and Welling 2014).

    ``q(z | x) = N(mean(x), diag exp(log_variance(x)))``, ``p(x | z) = N(decoder(z), noise^2 I)``, ``p(z) = N(0, I)``. The
    noise is one learned number: held at 1 it would decide by itself how much of the data goes into the code.

    The expectation over q is that over fixed nodes, ``z = mean + sd * node`` (the reparametrisation, with
    nodes in place of draws): of low discrepancy, in opposite pairs, of covariance exactly I. So the loss is a function of
    weights and data alone, as Giordano, Ingram and Broderick (2024) propose: members of a stack are batched, L-BFGS and
    the sandwich apply, and nothing depends on a seed. For a linear decoder it is exact; for others `elbo` with draws
    tells how much of the bound holds where no node was.

    Train it with `negative_elbo` on ``(windows(series, width), windows(series, width))``, or, to forecast, with
    `horizon` p > 0, on the first `width` samples against all: ``w = windows(series, width + p)``, ``(w[:, :width], w)``.

    Args:
        width: samples that the encoder sees
        n_latent: length of the code
        horizon: samples after the window that are decoded with it, for `forecast`
        channels: the number of series, None for a plain one
        hidden: units of the encoder's hidden layers, and in reverse of the decoder's; () for linear ones
        activation: of the hidden layers
        noise_std: of the observations, its initial value
        n_nodes: an even number, at least twice `n_latent`; default that, and at least 8
        generator: of the initialisation
    """

    def __init__(
        self,
        width: int,
        n_latent: int,
        *,
        horizon: int = 0,
        channels: int | None = None,
        hidden: Sequence[int] = (32,),
        activation: Callable[[], nn.Module] | nn.Module = nn.Tanh,
        noise_std: float = 1.0,
        n_nodes: int | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.width, self.horizon = check_int(width, "width", 1), check_int(horizon, "horizon", 0)
        self.channels = None if channels is None else check_int(channels, "channels", 1)
        n_latent = check_int(n_latent, "n_latent", 1)
        self.noise_std = check_real(noise_std, "noise_std")
        m, hidden = self.channels or 1, list(hidden)
        self.encoder = mlp(self.width * m, *hidden, 2 * n_latent, activation=activation, generator=generator)
        out = (self.width + self.horizon) * m
        self.decoder = mlp(n_latent, *reversed(hidden), out, activation=activation, generator=generator)
        self.log_noise = nn.Parameter(torch.tensor(2 * math.log(self.noise_std)))
        self.nodes = normal_nodes(max(8, 2 * n_latent) if n_nodes is None else n_nodes, n_latent)

    @property
    def neurons(self) -> dict[str, str]:
        """Return the names under which `weight_of` and ``ensemble.neurons`` find the layers; a decoder row is a time.

        The encoder's last layer, its only one if there are no hidden ones, has a row for every mean, then a row for
        every log-variance.
        """
        return {
            "encoder": "encoder.0",
            "posterior": f"encoder.{len(self.encoder) - 1}",
            "decoder": f"decoder.{len(self.decoder) - 1}",
        }

    def reset_parameters(self) -> None:
        """Give the noise its initial value; the layers reset themselves."""
        with torch.no_grad():
            self.log_noise.fill_(2 * math.log(self.noise_std))

    @property
    def noise(self) -> float:
        """Return the standard deviation of an observation about what was decoded."""
        return float(self.log_noise.detach().exp().sqrt())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior of the code of windows (B, width[, m]): means and standard deviations, (B, n_latent) each."""
        h = self.encoder(flattened(checked(x, self.channels, self.width, self.width)))
        mean, log_variance = h.chunk(2, 1)
        return mean, (log_variance / 2).exp()

    def decode(self, z: Tensor) -> Tensor:
        """Map codes (..., n_latent) to (..., width + horizon[, m])."""
        y = self.decoder(z)
        return y if self.channels is None else y.unflatten(-1, (-1, self.channels))

    def forward(self, x: Tensor) -> WindowOutput:
        """Return what `negative_elbo` needs of windows (B, width[, m])."""
        mean, sd = self.encode(x)
        return self._output(mean, sd, self.nodes.to(device=mean.device, dtype=mean.dtype))

    def _output(self, mean: Tensor, sd: Tensor, nodes: Tensor) -> WindowOutput:
        """Return the output for nodes (K, n_latent), or (B, K, n_latent)."""
        decoded = self.decoder(mean.unsqueeze(1) + sd.unsqueeze(1) * nodes)
        middle = decoded.mean(1)
        spread = (decoded - middle.unsqueeze(1)).square().sum(2).mean(1)
        middle = middle if self.channels is None else middle.unflatten(-1, (-1, self.channels))
        return WindowOutput(middle, spread, divergence_from_prior(mean, sd), self.log_noise.expand_as(spread))

    def elbo(self, x: Tensor, target: Tensor | None = None, *, n_draws: int | None = None, generator=None) -> Tensor:
        """Return the bound on the log density of each window, (B,), in nats.

        Args:
            target: (B, width + horizon[, m]), if there is a horizon; default x
            n_draws: draws from q for each window, in place of the nodes
        """
        with torch.no_grad():
            mean, sd = self.encode(x)
            nodes = self.nodes.to(device=mean.device, dtype=mean.dtype)
            if n_draws is not None:
                shape = (len(x), check_int(n_draws, "n_draws", 1), mean.shape[1])
                nodes = torch.randn(shape, generator=check_generator(generator), dtype=mean.dtype)
            return -_negative_elbos(self._output(mean, sd, nodes), x if target is None else target)

    def active(self, x: Tensor, threshold: float = 1e-2) -> Tensor:
        """Return which numbers of the code are used: those whose mean varies by more than this over windows, (n_latent,)."""
        with torch.no_grad():
            return self.encode(x)[0].var(0) > threshold

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return windows as the code has them, on average over its posterior: (B, width[, m])."""
        with torch.no_grad():
            return self(x).mean[:, : self.width]

    def predictive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a window and what follows it, given its first `width` samples (B, width[, m]).

        The variance is the noise and what the nodes of the posterior leave open: (B, width + horizon[, m]) both.
        Nearly that of a Gaussian where the decoder is nearly linear over the posterior, so that
        ``calibration(model.predictive(x), target)`` judges it.
        """
        with torch.no_grad():
            mean, sd = self.encode(x)
            nodes = self.nodes.to(device=mean.device, dtype=mean.dtype)
            made = self.decode(mean.unsqueeze(1) + sd.unsqueeze(1) * nodes)
            return made.mean(1), made.var(1, correction=0) + self.log_noise.exp()

    def sample(self, n_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw windows from the model, with noise: (n_samples, width + horizon[, m])."""
        shape, dtype = (check_int(n_samples, "n_samples", 1), self.nodes.shape[1]), self.log_noise.dtype
        with torch.no_grad():
            y = self.decode(torch.randn(shape, generator=check_generator(generator), dtype=dtype))
            return y + self.noise * torch.randn(y.shape, generator=generator, dtype=dtype)

    def forecast(self, history, steps: int) -> Tensor:
        """Continue a history: (T[, m]) to (steps[, m]).

        The last `width` samples are encoded and the `horizon` after them decoded; longer forecasts append that to the
        history and begin again.
        """
        steps = check_int(steps, "steps", 1)
        if not self.horizon:
            raise ValueError("horizon is 0, this model decodes the window alone: make it with horizon=p to forecast")
        window, made = last_samples(self, history, self.channels, self.width, self.width), []
        with torch.no_grad():
            for _ in range(-(-steps // self.horizon)):
                made.append(self(window).mean[:, self.width :])
                window = torch.cat([window, made[-1]], 1)[:, -self.width :]
        return checked_forecast(torch.cat(made, 1)[:, :steps])


def negative_elbo(output: WindowOutput, target: Tensor) -> Tensor:
    """Return minus the bound on the log density of a window, in nats, the mean over windows: the loss of a `WindowVAE`.

    ``-E_q log p(x | z) + KL(q(z | x) || p(z))`` with every constant in place, so it can be negative.

    Args:
        output: what ``WindowVAE.forward`` returns
        target: (B, width + horizon[, m])
    """
    return _negative_elbos(output, target).mean()


def _negative_elbos(output: WindowOutput, target: Tensor) -> Tensor:
    middle, spread, divergence, log_noise = output
    middle, target = flattened(middle), flattened(target)
    if target.shape != middle.shape:
        raise ValueError(f"target must hold {middle.shape[1]} numbers a window, got {tuple(target.shape)}")
    n, error = target.shape[1], (target - middle).square().sum(1) + spread
    return (error * (-log_noise).exp() + n * (log_noise + math.log(2 * math.pi))) / 2 + divergence


def divergence_from_prior(mean: Tensor, sd: Tensor) -> Tensor:
    """Return KL(N(mean, diag sd^2) || N(0, I)), (B, n_latent) to (B,)."""
    return (mean.square() + sd.square() - 1 - 2 * sd.log()).sum(1) / 2


def normal_nodes(n_nodes: int, dim: int) -> Tensor:
    """Return points that stand for N(0, I): (n_nodes, dim) float64, of mean zero and covariance exactly I.

    An additive recurrence with the powers of the generalised golden ratio (Roberts 2018), through the normal quantile, with
    every point's opposite, brought to unit covariance: no random numbers, the same in every release of any library.
    """
    half = check_int(n_nodes, "n_nodes", 2 * dim) // 2
    if n_nodes % 2:
        raise ValueError(f"n_nodes must be even, every node has its opposite, got {n_nodes}")
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dim + 1))  # the root of r^(dim + 1) = r + 1
    powers = ratio ** -torch.arange(1, dim + 1, dtype=torch.float64)
    points = torch.special.ndtri((0.5 + torch.arange(1, half + 1, dtype=torch.float64)[:, None] * powers) % 1)
    eigenvalues, eigenvectors = torch.linalg.eigh(points.T @ points / half)
    points = points @ (eigenvectors * eigenvalues.rsqrt()) @ eigenvectors.T
    return torch.cat([points, -points])
