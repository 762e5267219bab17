"""A Gaussian over the parameters of one network: what the sandwich, Laplace and variational Bayes give."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .._linalg import check_semidefinite, root_psd
from ..checks import as_tensor, check_generator, check_indices, check_int
from ..network.modules import copied
from ..network.parameters import Reader, flatten, positions, unflatten
from ..neurons import NeuronDistribution, weight_of
from ..training import Ensemble

__all__ = ["Block", "GaussianPosterior"]


@dataclass(frozen=True, eq=False)
class Block:
    """k groups of b parameters each, correlated inside a group and independent between groups.

    Attributes:
        index: (k, b), positions in the vector of all parameters
        cov: (k, b, b), symmetric and positive semidefinite, float64
    """

    index: Tensor
    cov: Tensor

    def __post_init__(self):
        cov = as_tensor(self.cov, "cov of a block").detach().to("cpu", torch.float64)
        index = self.index.detach().cpu() if isinstance(self.index, Tensor) else torch.empty(0)
        if index.ndim != 2 or cov.shape != (*index.shape, index.shape[1]):
            raise ValueError(
                f"a block needs index (k, b) and cov (k, b, b), got {tuple(index.shape)} and {tuple(cov.shape)}"
            )
        if index.dtype != torch.int64:
            raise ValueError(f"index must be positions of parameters, int64, got {index.dtype}")
        if not torch.isfinite(cov).all():
            raise ValueError("cov of a block must be finite, got NaN or infinity")
        check_semidefinite(cov, "cov of a block")
        object.__setattr__(self, "cov", cov)
        object.__setattr__(self, "index", index)

    def __repr__(self) -> str:
        return f"Block(index {tuple(self.index.shape)}, cov {tuple(self.cov.shape)})"

    def root(self) -> Tensor:
        """Return the symmetric square roots of the covariances, (k, b, b); singular ones have one."""
        return root_psd(self.cov)


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """The parameters of a network as one Gaussian vector, its covariance made of independent blocks.

    Attributes:
        template: the network; its own weights do not matter and are never changed
        mean: (p,), all parameters in the order of ``template.named_parameters()``, float64
        blocks: covariances; a parameter in none of them is known, its variance is zero
        report: what the method has to say, by name: such as "rank", "condition", "n"
    """

    template: nn.Module
    mean: Tensor
    blocks: Sequence[Block]
    report: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self):
        size = sum(p.numel() for p in self.template.parameters())
        if self.mean.shape != (size,) or not torch.isfinite(self.mean).all():
            raise ValueError(f"mean must be ({size},) and finite, got shape {tuple(self.mean.shape)}")
        object.__setattr__(self, "mean", self.mean.detach().to("cpu", torch.float64))
        used = torch.cat([b.index.reshape(-1) for b in self.blocks] or [torch.empty(0, dtype=torch.long)])
        if len(used) and (used.min() < 0 or used.max() >= size or len(used.unique()) < len(used)):
            raise ValueError(
                f"blocks must hold different positions below {size}, got {len(used)}, some twice or beyond"
            )

    @classmethod
    def of(cls, model: nn.Module, blocks: Sequence[Block], **report) -> GaussianPosterior:
        """About the weights that `model` has."""
        return cls(copied(model), flatten(model), tuple(blocks), report)

    def __repr__(self) -> str:
        blocks = ", ".join(str(tuple(b.cov.shape)) for b in self.blocks[:4]) + (", ..." if len(self.blocks) > 4 else "")
        return (
            f"GaussianPosterior({type(self.template).__name__} of {len(self.mean)} parameters, {len(self)} random, "
            f"in blocks {blocks or 'none'})"
        )

    def __len__(self) -> int:
        """How many parameters are random."""
        return sum(b.index.numel() for b in self.blocks)

    @property
    def index(self) -> Tensor:
        """Positions of the random parameters, ascending, (q,)."""
        parts = [b.index.reshape(-1) for b in self.blocks]
        return torch.cat(parts or [torch.empty(0, dtype=torch.long)]).sort().values

    def named(self, vector: Tensor | None = None) -> dict[str, Tensor]:
        """A vector over all parameters, by default the mean, as parameters by name."""
        return unflatten(self.template, self.mean if vector is None else vector)

    def model(self) -> nn.Module:
        """The network at the mean."""
        model = copied(self.template)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.named()[name])
        return model

    def variance(self) -> dict[str, Tensor]:
        """The variance of each parameter, by name; zero for those that are known."""
        found = torch.zeros_like(self.mean)
        for block in self.blocks:
            found[block.index] = block.cov.diagonal(dim1=1, dim2=2)
        return self.named(found)

    def cov(self, index: Tensor | None = None) -> Tensor:
        """The covariance of some positions as one matrix, (q, q); by default those of `index`.

        Needs memory for q squared numbers, and nothing larger.
        """
        index = self.index if index is None else check_indices(index, "index", len(self.mean))
        place = torch.full_like(self.mean, -1, dtype=torch.long)
        place[index] = torch.arange(len(index))
        found = torch.zeros(len(index), len(index), dtype=torch.float64)
        for block in self.blocks:
            at, touched = place[block.index], (place[block.index] >= 0).any(1)
            if touched.sum() == 1:  # a large block, of which little may be asked
                row, cov = at[touched][0], block.cov[touched][0]
                inside = (row >= 0).nonzero().flatten()
                found[row[inside][:, None], row[inside]] = cov[inside[:, None], inside]
            elif touched.any():
                at, cov = at[touched], block.cov[touched]
                pairs = (at >= 0)[:, :, None] & (at >= 0)[:, None, :]
                rows, columns = at[:, :, None].expand_as(pairs)[pairs], at[:, None, :].expand_as(pairs)[pairs]
                found[rows, columns] = cov[pairs]
        return found

    def neurons(self, layer: str | Sequence[str], *, axis: int = 0, bias: bool = False) -> NeuronDistribution:
        """Return mean and covariance of every neuron of a layer, in the units of the weights squared.

        With ``bias=True`` a neuron is its row with the bias last, what `merge` and `prune` take out of a network.
        Where a parametrization makes the weight, such as an orthonormal one, by its linearisation at the mean (the
        delta method).
        """
        mean = weight_of(self.model(), layer, axis=axis, bias=bias)
        read = Reader(self.template, layer, axis, bias)
        index = read.places()
        if index is not None:
            covs = torch.empty(*index.shape, index.shape[1], dtype=torch.float64)
            for cov, row in zip(covs, index):
                cov.copy_(self.cov(row))
            return NeuronDistribution(mean, covs)
        slope = torch.autograd.functional.jacobian(read.at, self.mean)[..., self.index]
        return NeuronDistribution(mean, slope @ self.cov() @ slope.mT)

    def sample(self, size: int, generator: torch.Generator | None = None) -> Ensemble:
        """Networks drawn from the posterior, as an `Ensemble` of `size` members."""
        check_generator(generator)
        drawn = self.mean.repeat(check_int(size, "size", 1), 1)
        for block in self.blocks:
            z = torch.randn(size, *block.index.shape, generator=generator, dtype=torch.float64)
            drawn[:, block.index] += torch.einsum("kij,skj->ski", block.root(), z)
        like = dict(self.template.named_parameters())
        parameters = {k: v.to(like[k].dtype) for k, v in self.named(drawn).items()}
        buffers = {k: v.expand(size, *v.shape).clone() for k, v in self.template.named_buffers()}
        return Ensemble(copied(self.template), parameters, buffers)

    def marginal(self, layers: str | Sequence[str] | Tensor) -> GaussianPosterior:
        """Only some parameters stay random, the others are known to be at their mean.

        Args:
            layers: names of layers or parameters, or positions (q,)
        """
        kept = layers if isinstance(layers, Tensor) else positions(self.template, layers)
        return GaussianPosterior(self.template, self.mean, _restricted(self.blocks, kept), dict(self.report))

    def condition(self, layers: str | Sequence[str] | Tensor, value: Tensor | float) -> GaussianPosterior:
        """The posterior when some parameters have a given value: they become known, the others move with them.

        Args:
            layers: names of layers or parameters, or positions (q,)
            value: their value, (q,) in ascending order of positions for names, in the order given for positions; one
                number for all

        Raises:
            ValueError: where a singular covariance makes that value impossible
        """
        at = layers if isinstance(layers, Tensor) else positions(self.template, layers)
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.ndim > 1 or (value.ndim and len(value) != len(at)) or not torch.isfinite(value).all():
            raise ValueError(f"value must be one finite number, or {len(at)}, got shape {tuple(value.shape)}")
        value = value.expand(at.shape)
        mean, blocks = self.mean.clone(), []
        mean[at] = value
        for block in self.blocks:
            for index, cov in zip(block.index, block.cov):
                known = torch.isin(index, at)
                if not known.any():
                    blocks.append(Block(index[None], cov[None]))
                elif not known.all():
                    try:
                        one = NeuronDistribution(self.mean[index][None], cov[None])
                    except ValueError as why:
                        raise ValueError(
                            "posterior is too ill-conditioned to be conditioned on some of its parameters: make it with "
                            f"more damping= or prior_precision=, or less correlated, structure='layer' ({why})"
                        ) from why
                    given = one.condition(known.nonzero().flatten().tolist(), mean[index[known]])
                    mean[index[~known]] = given.mean[0]
                    blocks.append(Block(index[~known][None], given.cov))
        return GaussianPosterior(self.template, mean, merged(blocks), dict(self.report))

    def save(self, path: str | os.PathLike) -> None:
        """Write to a safetensors file; beside it first, then renamed, so a killed run leaves no half a file."""
        from safetensors.torch import save_file

        path, tensors = Path(path), {"mean": self.mean.clone()}
        for i, block in enumerate(self.blocks):
            tensors |= {f"index/{i}": block.index.contiguous().clone(), f"cov/{i}": block.cov.contiguous().clone()}
        tensors |= {f"buffer/{k}": v.detach().contiguous().clone() for k, v in self.template.named_buffers()}
        told = {k: v for k, v in self.report.items() if isinstance(v, (bool, int, float, str))}
        shapes = {k: list(v.shape) for k, v in self.template.named_parameters()}
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            save_file(tensors, part, metadata={"mspace": json.dumps({"report": told, "shapes": shapes})})
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike, template: nn.Module) -> GaussianPosterior:
        """Read what `save` wrote; the template must have the architecture that was saved."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                told = json.loads((file.metadata() or {}).get("mspace", "{}"))
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as why:
            raise ValueError(f"path {str(path)!r} holds no posterior ({why}): was it written by `save`?") from why
        if "mean" not in tensors or "shapes" not in told:
            raise ValueError(f"path {str(path)!r} holds no posterior: was it written by GaussianPosterior.save?")
        own = {k: list(v.shape) for k, v in template.named_parameters()}
        if told["shapes"] != own:
            raise ValueError(f"template must have the parameters that were saved, {told['shapes']}, got {own}")
        template = copied(template)
        with torch.no_grad():
            for name, buffer in template.named_buffers():
                buffer.copy_(tensors[f"buffer/{name}"])
        count = sum(k.startswith("cov/") for k in tensors)
        blocks = tuple(Block(tensors[f"index/{i}"], tensors[f"cov/{i}"]) for i in range(count))
        return cls(template, tensors["mean"], blocks, told["report"])


def _restricted(blocks: Sequence[Block], kept: Tensor) -> tuple[Block, ...]:
    found = []
    for block in blocks:
        inside = torch.isin(block.index, kept)
        if inside.all():
            found.append(block)
            continue
        for index, cov, keep in zip(block.index, block.cov, inside):
            if keep.any():
                found.append(Block(index[keep][None], cov[keep][:, keep][None]))
    return merged(found)


def merged(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks of one size together."""
    sizes: dict[int, list[Block]] = {}
    for block in blocks:
        sizes.setdefault(block.index.shape[1], []).append(block)
    return tuple(Block(torch.cat([b.index for b in g]), torch.cat([b.cov for b in g])) for g in sizes.values())
