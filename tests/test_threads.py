"""Small factorisations run on one thread, whatever was set before, and what was set comes back."""

import threading

import numpy as np
import pytest
import torch

import mspace as ms
from mspace import threads

N = 3  # of threads, on a machine with one core too


def blas():
    return {i["num_threads"] for i in threads._libraries().info() if i["user_api"] == "blas"}


def numbers():
    return torch.get_num_threads(), blas()


@pytest.fixture(autouse=True)
def _several():
    torch_before = torch.get_num_threads()
    with threads._libraries().limit(limits=N, user_api="blas"):
        torch.set_num_threads(N)
        yield
    torch.set_num_threads(torch_before)


def test_one_inside_and_what_was_afterwards():
    assert numbers() == (N, {N})
    with threads.one_thread():
        assert numbers() == (1, {1})
        with threads.one_thread():
            assert numbers() == (1, {1})
        assert numbers() == (1, {1}), "the inner one has taken nothing back"
    assert numbers() == (N, {N})


def test_given_back_after_an_error():
    @threads.one_thread()
    def fail():
        assert numbers() == (1, {1})
        raise RuntimeError("planted")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="planted"):
            fail()
        assert numbers() == (N, {N})


def test_large_matrices_keep_their_threads():
    with threads.small(threads.SMALL + 1):
        assert numbers() == (N, {N})
    with threads.small(threads.SMALL):
        assert numbers() == (1, {1})


@pytest.mark.parametrize("first_out", ["main", "other"])
def test_two_threads_of_python_leave_in_any_order(first_out):
    """The second begins while the first is inside, and knows no other number of torch's threads than one."""
    seen, entered, leave = [], threading.Event(), threading.Event()

    def other():
        with threads.one_thread():
            seen.append(numbers())
            entered.set()
            assert leave.wait(60)
        seen.append(torch.get_num_threads())

    second = threading.Thread(target=other)
    with threads.one_thread():
        second.start()
        assert entered.wait(60)
        if first_out == "other":
            leave.set()
            second.join(60)
            assert blas() == {1}, "the first is still inside"
    if first_out == "main":
        assert numbers() == (N, {N}), "the first gives back what it has taken"
        leave.set()
        second.join(60)
    assert seen == [(1, {1}), N]
    assert numbers() == (N, {N})


def neurons(n=3, m=6):
    x = torch.randn(20, m, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ms.NeuronDistribution.from_samples(x)


WAVE = torch.sin(torch.arange(300, dtype=torch.float64) / 7)
CALLS = {
    "distances": (torch.linalg, "eigh", lambda: ms.wasserstein2(neurons(8))),
    "barycenter": (torch.linalg, "eigh", lambda: ms.wasserstein2.barycenter(neurons(8))),
    "clusters": (torch.linalg, "eigh", lambda: ms.KMeans(2, metric=ms.wasserstein2).fit(neurons())),
    "neurons": (torch.linalg, "eigh", lambda: neurons().ellipsoid()),
    "draws": (torch.linalg, "eigh", lambda: neurons().sample(5)),
    "dense SSA": (np.linalg, "svd", lambda: ms.SSA.of(WAVE, 50, method="dense")),
    "covariance SSA": (np.linalg, "eigh", lambda: ms.SSA.of(WAVE, 50, method="covariance")),
    "periods": (np.linalg, "eigvals", lambda: ms.SSA.of(WAVE, 50, rank=2).periods()),
    "forecast": (np.linalg, "solve", lambda: ms.SSA.of(WAVE, 50, rank=2).forecast(3)),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_package_factorises_on_one_thread(call, monkeypatch):
    module, name, run = CALLS[call]
    real, seen = getattr(module, name), []

    def spy(*args, **kwargs):
        seen.append(numbers())
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, spy)
    run()
    assert seen and set(map(str, seen)) == {str((1, {1}))}
    assert numbers() == (N, {N})


def test_lanczos_on_one_thread(monkeypatch):
    from mspace.ssa import hankel

    seen, real = [], hankel.eigsh

    def spy(*args, **kwargs):
        seen.append(numbers())
        return real(*args, **kwargs)

    monkeypatch.setattr(hankel, "eigsh", spy)
    ms.SSA.of(WAVE, 50, rank=2, method="lanczos")
    assert seen == [(1, {1})] and numbers() == (N, {N})


def test_results_do_not_depend_on_it(monkeypatch):
    limited = ms.wasserstein2(neurons(8)), ms.SSA.of(WAVE, 50, rank=2).singular_values
    monkeypatch.setattr(threads, "SMALL", 0)
    for one, other in zip(limited, (ms.wasserstein2(neurons(8)), ms.SSA.of(WAVE, 50, rank=2).singular_values)):
        assert torch.allclose(one, other, rtol=1e-12)
