"""Threads of linear algebra: many small factorisations take longer on several threads than on one.

A batch of small matrices is factorised one after another, and every library starts and awaits its threads for each of
them, or for the few numbers in between. On a busy machine that wait is longer than the work. So matrices of up to
`SMALL` rows are factorised on one thread (`small`) in neurons and their metrics, clusters, alignments, SSA and
curvatures. Larger ones, and training, keep all the threads there are. Results do not depend on it but for rounding.
`benchmarks/threads.py` measures both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

__all__ = ["kept_stream", "limit_threads", "one_thread", "small"]

SMALL = 512  # rows: threads shorten LAPACK's work on such a matrix by less than they cost


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
    """Run what is inside on one thread, and give the threads back; also a decorator.

    Entries inside each other count as one, which takes 20 microseconds. If several threads of Python are inside, each
    limits its own torch, and the first the BLAS of NumPy and SciPy, which is the process's, until it leaves.
    """
    if _inside.here:
        yield
        return
    before = _inside.enter()
    try:
        yield
    finally:
        _inside.leave(before)


@contextmanager
def kept_stream() -> Iterator[None]:
    """Let modules draw from torch's global stream and give it back as it was, one thread of Python at a time.

    The stream is the process's: a thread that seeded or restored it while another draws would change what that one gets.
    """
    with _drawing, torch.random.fork_rng(devices=[]):
        yield


_drawing = threading.RLock()


def small(rows: int) -> AbstractContextManager[None]:
    """Return a context of one thread for matrices of up to `SMALL` rows, of as many as there are for larger ones."""
    return one_thread() if rows <= SMALL else nullcontext()


class _Inside(threading.local):
    """Who is inside `one_thread`. Torch's number of threads is a thread's own, that of a BLAS the process's."""

    here, blas = False, None  # of this thread
    lock, count, before, owned = threading.Lock(), 0, 1, False  # of all, set on the class

    def enter(self) -> int:
        """Return how many threads torch has to be given back."""
        own = torch.get_num_threads()
        with self.lock:
            if not _Inside.count:
                _Inside.before = own
            own = max(own, _Inside.before)  # a thread that is new to torch reads what another has set for a moment
            _Inside.count += 1
            if not _Inside.owned:
                self.blas, _Inside.owned = _libraries().limit(limits=1, user_api="blas"), True
                self.blas.__enter__()
            torch.set_num_threads(1)
        self.here = True
        return own

    def leave(self, before: int) -> None:
        self.here = False
        with self.lock:
            torch.set_num_threads(before)
            _Inside.count -= 1
            if self.blas is not None:  # only who has set it may give it back
                self.blas.__exit__(None, None, None)
                self.blas, _Inside.owned = None, False


_inside = _Inside()


@cache
def _libraries():
    import scipy.linalg  # noqa: F401  its OpenBLAS is another than NumPy's, and has to be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
