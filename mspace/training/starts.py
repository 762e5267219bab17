"""Where members begin: the weights of a trained network, or weights drawn anew, each from a seed of its own."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import check_generator
from ..network.facts import reset_parameters
from ..network.modules import copied
from ..threads import kept_stream

__all__ = ["drawn_seed", "member_seeds", "seeds_from", "spawn", "start_of"]


def member_seeds(n_models: int, generator: torch.Generator | None = None) -> list[int]:
    """Return a seed for each member, (n_models,), so that member i is the same however many there are.

    Reads one number from the generator, or from the global stream of torch if there is none.
    """
    return seeds_from(drawn_seed(generator), n_models)


def drawn_seed(generator: torch.Generator | None) -> int:
    """Return a number from a generator, from which the seeds of all members are made."""
    return int(torch.randint(2**62, (1,), generator=check_generator(generator)))


def seeds_from(seed: int, n_models: int) -> list[int]:
    """Return the seeds of members that are made from one number."""
    return [spawn(seed, i) for i in range(n_models)]


def spawn(*keys: int) -> int:
    """Return a seed that depends on all the keys: streams with different keys share nothing."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 2)


def start_of(template: nn.Module, init, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return parameters and buffers; a parametrized weight may start from a buffer, as an orthonormal one does."""
    fresh = template if init == "shared" else _drawn_anew(template, init, spawn(seed, 1))
    parameters, buffers = (
        {k: v.detach().clone() for k, v in named} for named in (fresh.named_parameters(), fresh.named_buffers())
    )
    return parameters, buffers


def _drawn_anew(template: nn.Module, init, seed: int) -> nn.Module:
    """Return a copy whose free parameters are drawn anew.

    Frozen parameters, those set to a constant, and the statistics of normalisations, which come from data, are kept.
    """
    fresh, known, unknown = copied(template), set(), []
    with kept_stream():
        torch.manual_seed(seed)
        if callable(init):
            init(fresh)
        else:
            known = reset_parameters(fresh)
    kept = dict(template.named_parameters())
    with torch.no_grad():
        for name, p in fresh.named_parameters():
            if not p.requires_grad:
                p.copy_(kept[name])
            elif name not in known and torch.equal(p, kept[name]) and not _is_constant(p):
                p.normal_(float(p.mean()), float(p.std()) if p.numel() > 1 else abs(float(p)))
                unknown.append(name)
            elif name in known and p.ndim < 2 and p.numel() > 1 and _is_constant(kept[name]):
                p.copy_(kept[name])  # a bias that was set to a constant
    if unknown:
        warnings.warn(
            f"init draws {', '.join(unknown)} from normal distributions of the mean and spread that they have, as no module "
            "knows how to reset them: pass a function of the network that draws them, such as lambda m: m.apply(draw)",
            RuntimeWarning,
            stacklevel=5,
        )
    for ours, theirs in zip(fresh.modules(), template.modules()):
        if isinstance(theirs, nn.modules.batchnorm._NormBase):
            for name, held in theirs.named_buffers(recurse=False):
                getattr(ours, name).copy_(held)
    return fresh


def _is_constant(p: Tensor) -> bool:
    """Return whether all numbers of a parameter are equal: it was set to a constant, and not drawn or trained."""
    return bool((p == p.flatten()[0]).all())
