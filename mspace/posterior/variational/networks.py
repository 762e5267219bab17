"""A network whose parameters are random, N posteriors at once, and the likelihood of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from ...checks import arguments, check_real, n_examples, take
from ...network.facts import has_hooks
from ...network.loss import loss_kind
from ...network.modules import in_order
from ...network.parameters import positions, unflatten
from .families import Diagonal, squares

__all__ = ["Group", "LocalNetwork", "SampledNetwork", "examples_width", "likelihood_of", "network_of"]

ELEMENTWISE = (
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.LeakyReLU),
    nn.Dropout,  # in evaluation mode it does nothing
)


@dataclass
class Group:
    """Blocks of parameters of one size: index (k, b), mean (N, k, b), and how they scatter, None where they are known."""

    index: Tensor
    mean: Tensor
    family: Diagonal | None


class LocalNetwork:
    """Linear layers one after another, by local reparametrisation (Kingma, Salimans and Welling 2015).

    The sum in a unit is Gaussian with variance ``x^T Sigma x``, so it is drawn for every example by itself; that
    is exact where neurons are independent. Under a squared error the last layer needs no draw at all.
    """

    local = True

    def __init__(
        self, steps: Sequence[tuple[nn.Module, int | None]], groups: Sequence[Group], closed: bool, draws: int
    ):
        self.steps, self.groups, self.draws = steps, groups, draws
        drawn = [g for _, g in (steps[:-1] if closed else steps) if g is not None and groups[g].family is not None]
        self.closed, self.units = closed, sum(groups[g].index.shape[0] for g in drawn)
        most = max(groups[g].index.numel() for _, g in steps if g is not None)
        self.memory = most  # numbers that an example may take

    def normals(self, batch: int) -> int:
        """Return how many standard normals a posterior needs for a batch."""
        return batch * self.units

    def __call__(self, x: Tensor, roots: Sequence, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return outputs (N, B, out) for inputs (N, B, in), and the sum of their variances, (N,), if in closed form."""
        used, (last, _) = 0, self.steps[-1]
        for module, at in self.steps:
            if at is None:
                x = module(x)
                continue
            group, root = self.groups[at], roots[at]
            x = x if module.bias is None else F.pad(x, (0, 1), value=1.0)
            mean = torch.bmm(x, group.mean.mT)
            if root is None:
                x = mean
                continue
            if self.closed and module is last:
                return mean, group.family.total(root, x)
            variance = group.family.variance(root, x)
            here, used = slice(used, used + mean[0].numel()), used + mean[0].numel()
            spread = torch.sqrt(variance + torch.finfo(variance.dtype).tiny)  # at zero it has a gradient still
            x = torch.addcmul(mean, spread, z[:, here].view_as(mean))
        return x, None


@contextmanager
def _differentiable_attention():
    """Attention in plain operations: the fast path has no gradient, and `vmap` does not batch the fused one."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class SampledNetwork:
    """Any module, with weights drawn once for a batch; what vmap cannot batch runs draw after draw."""

    local = False

    def __init__(self, template: nn.Module, groups: Sequence[Group], draws: int, x):
        self.template, self.groups, self.draws = template, groups, draws
        self.place = torch.cat([g.index.reshape(-1) for g in groups]).argsort()
        self.widths = [g.index.shape[0] * g.family.normals if g.family else 0 for g in groups]
        self.memory, self.batched = 1 + examples_width(x) * draws, True
        try:
            with torch.no_grad():
                one = tree_map(lambda t: t[None, :1].expand(len(groups[0].mean), -1, *t.shape[1:]), x)
                self(one, *self._probe())
        except (RuntimeError, ValueError, NotImplementedError):  # no batching rule, or a data-dependent branch
            self.batched = False

    def _probe(self):
        like = self.groups[0].mean
        return [g.family.root() if g.family else None for g in self.groups], like.new_zeros(len(like), self.normals(1))

    def normals(self, batch: int) -> int:
        """Return how many standard normals a posterior needs, whatever the batch."""
        return self.draws * sum(self.widths)

    def weights(self, roots: Sequence, z: Tensor) -> dict[str, Tensor]:
        """Return draws of all parameters by name, (N, S, ...)."""
        parts, used = [], 0
        for group, root, width in zip(self.groups, roots, self.widths):
            mean = group.mean[:, None].expand(-1, self.draws, -1, -1)
            if root is not None:
                here, used = slice(used, used + self.draws * width), used + self.draws * width
                normal = z[:, here].reshape(len(z), self.draws, group.index.shape[0], -1)
                mean = mean + group.family.shift(root, normal)
            parts.append(mean.flatten(2))
        return unflatten(self.template, torch.cat(parts, 2).index_select(2, self.place))

    def __call__(self, x, roots: Sequence, z: Tensor) -> tuple[Any, None]:
        """Return outputs (N, S B, ...) for inputs (N, B, ...), one draw's after another's."""
        values = self.weights(roots, z)

        def output(own, x):
            return functional_call(self.template, own, *arguments(x))

        with _differentiable_attention():
            if self.batched:
                out = vmap(vmap(output, in_dims=(0, None)))(values, x)
            else:
                out = _stacked([self._draw_by_draw(output, values, x, i) for i in range(len(z))])
        return tree_map(lambda t: t.flatten(1, 2), out), None

    def _draw_by_draw(self, output: Callable, values: dict[str, Tensor], x, i: int):
        """Return the outputs of posterior i, (S, B, ...)."""
        each = ({k: v[i, s] for k, v in values.items()} for s in range(self.draws))
        return _stacked([output(own, take(x, i)) for own in each])


def _stacked(trees: list):
    return tree_map(lambda *t: torch.stack(t), *trees)


def examples_width(x) -> int:
    """Return how many numbers the inputs of one example are."""
    return sum(t[0].numel() for t in tree_leaves(x))


def network_of(template: nn.Module, groups: Sequence[Group], x, closed: bool, draws: int | None):
    """Return a network by local reparametrisation where that is exact, else by draws of the weights."""
    steps = (
        _steps(template, groups) if isinstance(x, Tensor) and x.ndim == 2 and x.dtype == groups[0].mean.dtype else None
    )
    if steps is None:
        return SampledNetwork(template, groups, draws or 8, x)
    return LocalNetwork(steps, groups, closed and steps[-1][1] is not None, draws or 1)


def _steps(template: nn.Module, groups: Sequence[Group]) -> list[tuple[nn.Module, int | None]] | None:
    """Return modules with the number of their group, or None if it is more than independent neurons in a row."""
    if type(template) not in (nn.Sequential, nn.Linear) or has_hooks(template):
        return None
    steps: list[tuple[nn.Module, int | None]] = []
    left = {group.index.numpy().tobytes(): i for i, group in enumerate(groups)}
    modules = {"": template} if type(template) is nn.Linear else in_order(template)
    for name, module in modules.items():  # a module that stands twice is to be met twice
        if type(module) is nn.Linear:
            place = _rows(template, name, module)
            at = None if place is None else left.pop(place.numpy().tobytes(), None)
            if at is None:
                return None
            steps.append((module, at))
        elif type(module) in ELEMENTWISE:
            steps.append((module, None))
        else:
            return None
    return None if left or not steps else steps


def _rows(template: nn.Module, name: str, module: nn.Linear) -> Tensor | None:
    """Return the indices of the rows of a layer with their biases, as its neurons have them."""
    own = [f"{name}.{k}".lstrip(".") for k, _ in module.named_parameters()]
    if not set(own) <= {k for k, _ in template.named_parameters()}:
        return None  # shared with a layer before
    parts = [positions(template, k, frozen=True).reshape(module.out_features, -1) for k in own]
    return torch.cat(parts, 1)


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
        """Return the expected squared error, a mean over all numbers, (N,); `variance` is the sum of variances."""
        square = squares(out - y)
        return (square if variance is None else square + variance) / out[0].numel()

    def nll(self, energy: Tensor, whole: bool = False) -> Tensor:
        """Return that of an example, (N,); where the energy is of all data a learned noise follows at once."""
        noise = energy.clamp(min=self.floor) if whole and self.learned else self.noise
        level = self.size / 2 * torch.log(2 * math.pi * noise)  # no gradient passes here where the noise stands
        return torch.addcmul(level, energy, self.size / 2 / noise)

    def update(self, energy: Tensor) -> None:
        """Set the noise to its best for the energy of all data."""
        if self.learned:
            self.noise = energy.detach().clamp(min=self.floor)

    def report(self, i: int) -> dict[str, float]:
        """Return the noise of posterior i."""
        return {"noise": float(self.noise[i])}


class Other:
    """A loss that is a negative log-likelihood, such as a cross-entropy."""

    def __init__(self, loss: Callable, name: str):
        self.loss, self.name = loss, name

    def energy(self, out, variance: None, y) -> Tensor:
        """Return the mean loss, (N,)."""
        if self.name == "categorical" and len(out) > 1:
            each = F.cross_entropy(out.flatten(0, 1), y.flatten(0, 1), reduction="none")
            return each.view(len(out), -1).mean(1)
        return torch.stack([self.loss(take(out, i), take(y, i)) for i in range(n_examples(y))])

    def nll(self, energy: Tensor, whole: bool = False) -> Tensor:
        """Return that of an example, (N,)."""
        return energy

    def update(self, energy: Tensor) -> None:
        """Do nothing: there is no noise."""

    def report(self, i: int) -> dict[str, float]:
        """Return nothing."""
        return {}


def likelihood_of(loss, noise: float | None, out, y) -> Gaussian | Other:
    """Return the likelihood that a loss stands for, with the residuals of the start, out (N, n, ...) and y alike."""
    if getattr(loss, "reduction", "mean") != "mean":
        raise ValueError(f"loss must be a mean over the batch, got reduction={loss.reduction!r}")
    if loss_kind(loss) == "mse":
        if out.shape != y.shape:
            raise ValueError(
                f"targets must have the shape of the outputs, {tuple(out.shape[2:])}, got {tuple(y.shape[2:])}: "
                "the squared error would pair each output with every target"
            )
        if noise is not None:
            check_real(noise, "noise")
        floor = 1e-8 * float(y.square().mean()) + torch.finfo(y.dtype).tiny
        square = (squares(out - y) / out[0].numel()).clamp(min=floor)
        start = square if noise is None else torch.full_like(square, noise)
        return Gaussian(start, noise is None, y[0, 0].numel(), floor)
    if noise is not None:
        raise ValueError("noise belongs to a squared error, F.mse_loss or nn.MSELoss; this loss has none: leave it out")
    return Other(loss, "categorical" if loss_kind(loss) == "cross_entropy" else "loss")
