"""How many examples a pass may hold at once, by one measured forward pass and the memory that is free."""

from __future__ import annotations

import os
import sys

import torch
from torch import nn

from .checks import arguments, n_examples, take
from .network.facts import activations
from .threads import kept_stream

__all__ = ["examples_at_once", "free_memory"]

BUDGET = 1 << 28  # bytes of one pass, the same on every machine that has four times as many


def free_memory() -> int:
    """Return how many bytes this process may still allocate, by the system and by its own limit."""
    free = BUDGET * 16
    try:
        with open("/proc/meminfo") as lines:
            free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(free, _own_limit())


def _own_limit() -> int:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        with open("/proc/self/statm") as line:
            used = int(line.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return sys.maxsize
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(0, limit - used)


def examples_at_once(model: nn.Module, inputs, copies: int, max_memory: float | None = None) -> int:
    """Return how many examples of the inputs a forward pass of `copies` networks may hold.

    Args:
        inputs: checked inputs, of which two are tried in evaluation mode
        max_memory: bytes, by default 256 MB, or a quarter of what is free if that is less
    """
    limit = min(BUDGET, free_memory() // 4) if max_memory is None else max_memory
    few = take(inputs, slice(0, 2))
    args, kwargs = arguments(few)
    with torch.no_grad(), kept_stream():
        each = activations(model, args, kwargs) / n_examples(few)
    return max(1, int(limit / max(1.0, each * copies)))
