"""All parameters of a network as one vector, which of its numbers belong together, and how neurons depend on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..checks import layer_names
from .facts import trainable
from .modules import copied
from .weights import live_weight_of

__all__ = ["STRUCTURES", "Reader", "blocks_of", "flatten", "positions", "unflatten"]

STRUCTURES = ("full", "layer", "neuron", "diagonal")


def flatten(model: nn.Module) -> Tensor:
    """Return the parameters in the order of ``named_parameters``, (p,), float64 on the CPU."""
    parts = [p.detach().to("cpu", torch.float64).reshape(-1) for p in model.parameters()]
    if not parts:
        raise ValueError("model has no parameters")
    return torch.cat(parts)


def unflatten(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Return, by name, views of a vector (..., p), each (..., *shape)."""
    named = dict(model.named_parameters())
    parts = vector.split([p.numel() for p in named.values()], dim=-1)
    return {k: v.unflatten(-1, p.shape) if p.ndim else v[..., 0] for (k, p), v in zip(named.items(), parts)}


def positions(model: nn.Module, layers: str | Sequence[str] | None = None, *, frozen: bool = False) -> Tensor:
    """Return where the free parameters of some layers stand in the vector of all, ascending, (q,).

    Args:
        layers: names of modules or of parameters; all parameters if None
        frozen: whether parameters with ``requires_grad=False`` count as well
    """
    place = unflatten(model, torch.arange(sum(p.numel() for p in model.parameters())))
    free = place if frozen else {k: place[k] for k in trainable(model)}
    if layers is None:
        return torch.cat([v.reshape(-1) for v in free.values()])
    names = layer_names(layers, "layers")
    if not names:
        raise ValueError("layers must name at least one layer, or be None for all")
    found = []
    for name in names:
        under = [k for k in place if not name or k == name or k.startswith(f"{name}.")]
        if not under:
            raise ValueError(f"layers: {name!r} is no layer with parameters; parameters are {', '.join(place)}")
        if not any(k in free for k in under):
            raise ValueError(
                f"layers names {name!r}, which is frozen and therefore known: unfreeze it by requires_grad_(True)"
            )
        found += [free[k].reshape(-1) for k in under if k in free]
    return torch.cat(found).unique()


def blocks_of(
    model: nn.Module, structure: str, layers: str | Sequence[str] | None = None, *, frozen: bool = False
) -> list[Tensor]:
    """Return the positions that share a covariance, as batches of blocks of one size, each (k, b).

    Args:
        structure: "full", one block of all; "layer", a block for the parameters of each module; "neuron", one for
            each unit: the rows with its number, and its bias, in the parameters of a module; "diagonal", single numbers
        layers, frozen: as in `positions`
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}, got {structure!r}")
    wanted = positions(model, layers, frozen=frozen)
    if structure == "full":
        return [wanted[None]]
    if structure == "diagonal":
        return [wanted[:, None]]
    groups: dict[tuple, list[Tensor]] = {}
    for name, place in unflatten(model, torch.arange(sum(p.numel() for p in model.parameters()))).items():
        if torch.isin(place, wanted).any():
            module, _, own = name.rpartition(".")
            stack = own.rpartition("_l")[2] if own.rpartition("_l")[1] else ""  # layers of a recurrent stack
            rows = place.reshape(len(place) if place.ndim else 1, -1)
            groups.setdefault((module, stack, len(rows) if structure == "neuron" else None), []).append(rows)
    if structure == "layer":
        return [torch.cat([r.reshape(-1) for r in rows]).sort().values[None] for rows in groups.values()]
    return [torch.cat(rows, 1) for rows in groups.values()]


class Reader(nn.Module):
    """A module whose output is the neurons of a layer, so that other parameters can be put in."""

    def __init__(self, model: nn.Module, layer: str | Sequence[str], axis: int, bias: bool = False):
        super().__init__()
        self.model, self.axis, self.bias = copied(model).double(), axis, bias
        self.layer = [layer] if isinstance(layer, str) else list(layer)

    def forward(self) -> Tensor:
        return live_weight_of(self.model, self.layer, self.axis, self.bias)

    def at(self, vector: Tensor) -> Tensor:
        """Return the neurons (m, n) when the parameters are a vector (p,)."""
        return functional_call(self, {f"model.{k}": v for k, v in unflatten(self.model, vector).items()}, ())

    def places(self) -> Tensor | None:
        """Return which parameter each number of the layer is, (m, n), or None where some are made from several, or constant.

        The positions themselves are put in as parameters: numbers that are parameters then show their positions.
        """
        count = torch.arange(1.0, len(flatten(self.model)) + 1, dtype=torch.float64)
        with torch.no_grad():
            found, opposite = self.at(count), self.at(-count)
        same = torch.equal(found, found.round()) and torch.equal(found, -opposite)
        inside = found.min() >= 1 and found.max() <= len(count) and len(found.unique()) == found.numel()
        return found.long() - 1 if same and inside else None
