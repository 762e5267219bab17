"""Threads of linear algebra: many small factorisations take longer on several threads than on one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

__all__ = ["limit_threads", "one_thread"]


def limit_threads(n: int | None = None) -> None:
    """Let torch, and the BLAS of NumPy and SciPy, run on `n` threads from here on.

    Args:
        n: by default what the environment variable MSPACE_THREADS names, else 1
    """
    n = int(os.environ.get("MSPACE_THREADS", 1)) if n is None else n
    torch.set_num_threads(n)
    _libraries().limit(limits=n)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run what is inside on one thread, and give the threads back; also a decorator."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _libraries().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _libraries():
    import scipy.linalg  # noqa: F401  its OpenBLAS is another than NumPy's, and has to be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
