"""A network whose parameters are random: N posteriors at once, by their outputs or by draws of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...network.parameters import positions, unflatten
from .families import Diagonal

__all__ = ["Group", "LocalNetwork", "SampledNetwork", "network_of"]

ELEMENTWISE = (
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.LeakyReLU),
    nn.Dropout,  # at rest it does nothing
)


@dataclass
class Group:
    """Blocks of parameters of one size: index (k, b), mean (N, k, b), and how they scatter, None where they are known."""

    index: Tensor
    mean: Tensor
    family: Diagonal | None


class LocalNetwork:
    """Linear layers one after another, by local reparametrisation (Kingma, Salimans and Welling 2015).

    What a unit adds up is Gaussian with variance ``x^T Sigma x``, so it is drawn for every example by itself; that
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
        """How many standard normals a posterior needs for a batch."""
        return batch * self.units

    def __call__(self, x: Tensor, roots: Sequence, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Answers (N, B, out) to inputs (N, B, in), and where they are in closed form the sum of their variances, (N,)."""
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
    """Attention in plain operations: the fast way at rest has no gradient, and `vmap` does not batch the fused one."""
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

    def __init__(self, template: nn.Module, groups: Sequence[Group], draws: int, x: Tensor):
        self.template, self.groups, self.draws = template, groups, draws
        self.place = torch.cat([g.index.reshape(-1) for g in groups]).argsort()
        self.widths = [g.index.shape[0] * g.family.normals if g.family else 0 for g in groups]
        self.memory, self.batched = 1 + x[0].numel() * draws, True
        try:
            with torch.no_grad():
                self(x[None, :1].expand(len(groups[0].mean), -1, *x.shape[1:]), *self._probe())
        except (RuntimeError, ValueError, NotImplementedError):  # no batching rule, or a data-dependent branch
            self.batched = False

    def _probe(self):
        like = self.groups[0].mean
        return [g.family.root() if g.family else None for g in self.groups], like.new_zeros(len(like), self.normals(1))

    def normals(self, batch: int) -> int:
        """How many standard normals a posterior needs, whatever the batch."""
        return self.draws * sum(self.widths)

    def weights(self, roots: Sequence, z: Tensor) -> dict[str, Tensor]:
        """Draws of all parameters by name, (N, S, ...)."""
        parts, used = [], 0
        for group, root, width in zip(self.groups, roots, self.widths):
            mean = group.mean[:, None].expand(-1, self.draws, -1, -1)
            if root is not None:
                here, used = slice(used, used + self.draws * width), used + self.draws * width
                normal = z[:, here].reshape(len(z), self.draws, group.index.shape[0], -1)
                mean = mean + group.family.shift(root, normal)
            parts.append(mean.flatten(2))
        return unflatten(self.template, torch.cat(parts, 2).index_select(2, self.place))

    def __call__(self, x: Tensor, roots: Sequence, z: Tensor) -> tuple[Tensor, None]:
        """Answers (N, S B, ...) to inputs (N, B, ...), one draw's after another's."""
        values = self.weights(roots, z)

        def answer(own, x):
            return functional_call(self.template, own, (x,))

        with _differentiable_attention():
            if self.batched:
                out = vmap(vmap(answer, in_dims=(0, None)))(values, x)
            else:
                out = torch.stack(
                    [
                        torch.stack([answer({k: v[i, s] for k, v in values.items()}, x[i]) for s in range(self.draws)])
                        for i in range(len(x))
                    ]
                )
        return out.flatten(1, 2), None


def network_of(template: nn.Module, groups: Sequence[Group], x: Tensor, closed: bool, draws: int | None):
    """By local reparametrisation where that is exact, else by draws of the weights."""
    steps = _steps(template, groups) if x.ndim == 2 and x.dtype == groups[0].mean.dtype else None
    if steps is None:
        return SampledNetwork(template, groups, draws or 8, x)
    return LocalNetwork(steps, groups, closed and steps[-1][1] is not None, draws or 1)


def _steps(template: nn.Module, groups: Sequence[Group]) -> list[tuple[nn.Module, int | None]] | None:
    """Modules with the number of their group, or None if it is more than independent neurons in a row."""
    if type(template) not in (nn.Sequential, nn.Linear):
        return None
    steps, found = [], {}
    for i, group in enumerate(groups):
        found[group.index.numpy().tobytes()] = i
    modules = {"": template} if type(template) is nn.Linear else template._modules
    for name, module in modules.items():  # a module that stands twice is to be met twice
        if type(module) is nn.Linear:
            place = _rows(template, name, module)
            at = None if place is None else found.pop(place.numpy().tobytes(), None)
            if at is None:
                return None
            steps.append((module, at))
        elif type(module) in ELEMENTWISE:
            steps.append((module, None))
        else:
            return None
    return None if found or not steps else steps


def _rows(template: nn.Module, name: str, module: nn.Linear) -> Tensor | None:
    """Positions of the rows of a layer with their biases, as its neurons have them."""
    own = [f"{name}.{k}".lstrip(".") for k, _ in module.named_parameters()]
    if not set(own) <= {k for k, _ in template.named_parameters()}:
        return None  # shared with a layer before
    parts = [positions(template, k).reshape(module.out_features, -1) for k in own]
    return torch.cat(parts, 1)
