"""The bootstrap against theory, and against kill -9: oracles O4.0a to O4.0d."""

import itertools
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mspace as ms
from mspace.door import checked
from mspace.posterior import Resampler, block_length
from mspace.posterior.bootstrap import Moments
from mspace.posterior.chunks import Design

descend = partial(torch.optim.SGD, lr=0.4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def ar1(n, phi=0.8, seed=0):
    e = noise(n + 200, seed=seed)
    for i in range(1, len(e)):
        e[i] += phi * e[i - 1]
    return e[200:]


def dense(*sizes, seed=0):
    torch.manual_seed(seed)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("resample", ["pairs", "weights"])
def test_linear_regression_has_the_sandwich_covariance(resample):
    """O4.0a: with noise that grows with the inputs, both bootstraps find HC0 within ten per cent, N = 2000."""
    n, x = 400, noise(400, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + noise(n, 1, seed=1) * (0.3 + x[:, :1].abs())
    a = torch.cat([x, torch.ones(n, 1)], 1)
    w = torch.linalg.lstsq(a, y).solution
    bread, residual = torch.linalg.inv(a.T @ a), y - a @ w
    hc0 = (bread @ (a * residual).T @ (a * residual) @ bread)[:3, :3]
    net = nn.Sequential(nn.Linear(3, 1)).double()
    net[0].weight.data, net[0].bias.data = w[:3].T.clone(), w[3].clone()
    neurons = ms.bootstrap(
        net,
        (x, y),
        F.mse_loss,
        n_models=2000,
        resample=resample,
        chunk=1000,
        epochs=40,
        batch_size=n,
        optimizer=descend,
        generator=seeded(),
    ).neurons("0")
    assert (neurons.cov[0] - hc0).norm() < 0.1 * hc0.norm()
    assert (neurons.mean[0] - w[:3, 0]).abs().max() < 0.01


def variance_of_the_mean(series, **options):
    """By bootstrap of a network that is only a bias, and so learns the mean."""
    net = nn.Sequential(nn.Linear(1, 1)).double()
    net[0].bias.data[:] = series.mean()
    data = torch.zeros(len(series), 1).double(), series[:, None]
    ensemble = ms.bootstrap(
        net,
        data,
        F.mse_loss,
        n_models=400,
        chunk=400,
        epochs=3,
        batch_size=len(series),
        optimizer=descend,
        generator=seeded(),
        **options,
    )
    return float(ensemble.parameters["0.bias"].var())


def test_blocks_see_dependence_and_single_examples_do_not():
    """O4.0b: the mean of an AR(1) of 2000 samples; its variance is that of white noise times (1 + phi) / (1 - phi)."""
    truth = (1 / 0.2) ** 2 / 2000
    blocks, single, auto = [], [], []
    for seed in range(6):
        s = ar1(2000, seed=seed)
        blocks.append(variance_of_the_mean(s, block=50) / truth)
        auto.append(variance_of_the_mean(s, block="auto") / truth)
        single.append(variance_of_the_mean(s) / truth)
    assert 0.7 < np.mean(blocks) < 1.1 and 0.65 < np.mean(auto) < 1.1
    assert np.mean(single) < 0.2


def test_block_length_is_the_theoretical_one_for_ar1():
    """For AR(1) the optimum is (1.5 (2 phi / (1 - phi^2))^2 n)^(1/3): 39 for phi = 0.8, n = 2000."""
    found = [block_length(ar1(2000, seed=s)) for s in range(10)]
    assert 25 < np.median(found) < 60
    assert np.median([block_length(noise(2000, seed=s)) for s in range(10)]) < 8


def test_windows_of_a_series_get_blocks_of_at_least_a_window():
    x = ms.windows(noise(300), 30)
    net = dense(30, 2, 30)
    design, mixed = Design(2, "auto", "auto", None, None, 1), x.clone()[torch.randperm(271)]

    def block(model, data):
        return design.resampler(checked(model, data, F.mse_loss)).block

    assert block(net, (x, x)) >= 30
    assert block(net, (mixed, mixed)) < 30
    assert block(Sum(net), ((mixed, x), x)) >= 30
    with pytest.warns(RuntimeWarning, match="overlapping windows"):
        assert Design(2, "auto", None, None, None, 1).resampler(checked(net, (x, x), F.mse_loss)).block >= 30


@pytest.mark.parametrize("block", [1, 7, 40])
def test_blocks_are_runs_and_stay_inside_recordings(block):
    groups = torch.cat([torch.zeros(50), torch.ones(63)]).long()
    index = Resampler("blocks", block, groups=groups).indices(113, seeded())
    assert len(index) == 113
    for run in index.split(block):
        assert (run.diff() == 1).all() and len(groups[run].unique()) == 1


def test_every_start_is_as_likely():
    index = torch.cat([Resampler("blocks", 10).indices(100, seeded(s))[::10] for s in range(400)])
    count = torch.bincount(index, minlength=91)
    assert len(count) == 91 and ((count - 4000 / 91).abs() < 5 * (4000 / 91) ** 0.5).all()


def test_strata_keep_their_counts():
    labels = torch.tensor([0] * 30 + [1] * 3 + [2] * 7)
    for seed in range(20):
        drawn = labels[Resampler("pairs", strata=labels).indices(40, seeded(seed))]
        assert torch.equal(torch.bincount(drawn), torch.bincount(labels))
        weight = Resampler("weights", strata=labels).weights(40, seeded(seed))
        assert torch.isclose(weight[labels == 1].sum(), torch.tensor(3.0).double()) and torch.isclose(
            weight.mean(), torch.tensor(1.0).double()
        )


def test_moments_merge_exactly():
    """O4.0c: numpy's covariance, whatever the cut."""
    x = noise(50, 3, 4)
    merged = Moments.of(x[:7]).merge(Moments.of(x[7:8])).merge(Moments.of(x[8:])).distribution()
    for i in range(3):
        assert np.allclose(merged.cov[i], np.cov(x[:, i].numpy().T), rtol=0, atol=1e-14)
    assert torch.allclose(merged.mean, x.mean(0), rtol=0, atol=1e-15)


@pytest.fixture(scope="module")
def small():
    x = noise(60, 4)
    return dense(4, 5, 3), (x, noise(60, 3, seed=1))


def boot(small, **options):
    net, data = small
    return ms.bootstrap(
        net, data, F.mse_loss, **({"n_models": 6, "epochs": 2, "generator": seeded(), "chunk": 2} | options)
    )


class Sum(nn.Module):
    """Takes two inputs, whose sum another network reads."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, a, b):
        return self.net(a + b)


@pytest.mark.parametrize("options", [{}, {"resample": "weights"}, {"block": "auto"}, {"init": "independent"}], ids=str)
@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_inputs_are_resampled_together(small, options, kind):
    net, (x, y) = small
    half = noise(60, 4, seed=8)
    inputs = {"b": half, "a": x - half} if kind is dict else (x - half, half)
    alike = {"align": None, "chunk": 3}
    ours, theirs = (boot((m, (z, y)), **options | alike) for m, z in ((Sum(net), inputs), (net, x)))
    for name, value in theirs.parameters.items():
        assert (ours.parameters[f"net.{name}"] - value).abs().max() < 1e-10


@pytest.mark.parametrize("call", [ms.bootstrap, ms.bootstrap_neurons])
def test_a_misspelt_option_is_named_with_the_function_called(small, call):
    with pytest.raises(TypeError, match=rf"^{call.__name__}\(\) got an unexpected keyword argument 'epohcs'"):
        call(*small, F.mse_loss, *(["0"] if call is ms.bootstrap_neurons else []), epohcs=3)


def same_bits(a, b):
    return len(a) == len(b) and all(torch.equal(a.parameters[k], b.parameters[k]) for k in a.parameters)


def test_bits_do_not_depend_on_workers(small):
    one, two = boot(small), boot(small, n_jobs=2)
    assert same_bits(one, two) and one.report["member"].tolist() == list(range(6))


@pytest.mark.parametrize("options", [{}, {"resample": "weights"}, {"init": "independent", "align": None}])
def test_numbers_do_not_depend_on_chunks(small, options):
    one, two, three = (boot(small, chunk=c, **options) for c in (6, 2, 1))
    for name in one.parameters:
        assert (one.parameters[name] - two.parameters[name]).abs().max() < 1e-10
        assert (one.parameters[name] - three.parameters[name]).abs().max() < 1e-10
    few = boot(small, n_models=3, chunk=3, **options)
    assert all((few.parameters[k] - one.parameters[k][:3]).abs().max() < 1e-10 for k in few.parameters)


def test_streamed_moments_are_those_of_the_members(small):
    net, data = small
    streamed = ms.bootstrap_neurons(net, data, F.mse_loss, "0", n_models=6, epochs=2, generator=seeded(), chunk=2)
    assert torch.allclose(streamed.cov, boot(small).neurons("0").cov, rtol=0, atol=1e-14)


def test_shared_members_differ_by_their_data_only(small):
    """With the same data for all, a shared start and a shared order, nothing would be left to differ."""
    net, data = small
    same = ms.train_ensemble(net, data, F.mse_loss, 3, order="shared", epochs=2, generator=seeded())
    assert same.neurons("0").cov.abs().max() < 1e-20
    data, batches = (
        boot(small, resample=r).neurons("0").cov.diagonal(dim1=1, dim2=2).mean() for r in ("pairs", "fixed")
    )
    assert data > batches > 0, "fixed data leave the noise of the batches, which the bootstrap does not have"


def test_independent_members_are_aligned():
    """Twenty networks learn one teacher from twenty starts, and agree once their units have common names."""
    x, teacher = noise(200, 4), dense(4, 3, 2, seed=5)
    for p in teacher.parameters():
        p.data *= 3
    data = x, teacher(x).detach() + 0.5 * noise(200, 2, seed=1)
    options = {"epochs": 300, "batch_size": 200, "optimizer": partial(torch.optim.Adam, lr=0.05)}
    loose, tight = (
        ms.bootstrap(teacher, data, F.mse_loss, n_models=20, init="independent", align=a, generator=seeded(), **options)
        for a in (None, "auto")
    )
    close = tight.report["aligned"]
    assert close.sum() >= 8
    spread = lambda e: float(e.keep(close).neurons("0").cov.diagonal(dim1=1, dim2=2).sum())  # noqa: E731
    assert spread(tight) < 0.3 * spread(loose)
    assert torch.allclose(tight(x), loose(x), rtol=0, atol=1e-10)


def test_a_store_resumes_and_refuses_another_run(small, tmp_path):
    first = boot(small, store=tmp_path / "run")
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.safetensors")}
    (tmp_path / "run" / "chunk-00001.safetensors").unlink()
    again = boot(small, store=tmp_path / "run")
    assert same_bits(first, again) and same_bits(first, boot(small))
    now = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.safetensors")}
    assert [n for n in kept if now[n] != kept[n]] == ["chunk-00001.safetensors"]
    for change in ({"generator": seeded(1)}, {"epochs": 3}, {"resample": "weights"}, {"optimizer": descend}):
        with pytest.raises(ValueError, match="holds a bootstrap of other data"):
            boot(small, store=tmp_path / "run", **change)


KILLED = """
import sys, time, torch, torch.nn.functional as F
from torch import nn
import joblib
import mspace as ms

def slow(out, target):
    time.sleep(0.002)
    return F.l1_loss(out, target)

def run(store):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 4, generator=g).double(), torch.randn(40, 2, generator=g).double()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return ms.bootstrap(net, (x, y), slow, n_models=10, chunk=1, epochs=20, generator=g, store=store)

if __name__ == "__main__":
    backend, store = sys.argv[1], sys.argv[2]
    if backend == "dask":
        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
            with joblib.parallel_config("dask"):
                ensemble = run(store)
    else:
        with joblib.parallel_config(backend, n_jobs=2):
            ensemble = run(store)
    ensemble.save(sys.argv[3])
"""


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_a_killed_run_resumes_to_the_same_bits(backend, tmp_path):
    """Kill -9 in the middle, then run again: finished chunks are kept, and the whole is what one run gives."""
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    env = os.environ | {"PYTHONPATH": str(Path(ms.__file__).parent.parent)}
    call = [sys.executable, str(script), backend, str(tmp_path / "store"), str(tmp_path / "all.safetensors")]
    process = subprocess.Popen(
        call, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    done = lambda: len(list((tmp_path / "store").glob("chunk-*.safetensors")))  # noqa: E731
    deadline = time.monotonic() + 120
    while done() < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = done()
    assert 2 <= before < 10, "killed in the middle"
    subprocess.run(call, env=env, check=True, timeout=240, capture_output=True)
    fresh = tmp_path / "fresh.safetensors"
    subprocess.run([*call[:2], "sequential", str(tmp_path / "other"), str(fresh)], env=env, check=True, timeout=240)
    assert fresh.read_bytes() == (tmp_path / "all.safetensors").read_bytes()


class Fragile(nn.Linear):
    """Half of its starts are no numbers."""

    def reset_parameters(self):
        super().reset_parameters()
        if self.weight[0, 0] > 0:
            nn.init.constant_(self.weight, torch.nan)


def test_failed_members_are_counted_and_left_out(small):
    net = nn.Sequential(Fragile(4, 3)).double()
    nn.init.zeros_(net[0].weight)
    with pytest.warns(RuntimeWarning, match=r"of 8 members did not converge and are left out"):
        kept = boot((net, small[1]), n_models=8, chunk=3, init="independent", align=None)
    assert 2 <= len(kept) < 8 and len(kept.report["member"]) == len(kept)
    assert torch.isfinite(kept.parameters["0.weight"]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_models": 1}, "n_models"),
        ({"chunk": 0}, "chunk"),
        ({"resample": "jackknife"}, "auto, pairs, weights, blocks, fixed"),
        ({"resample": "blocks"}, "block must be given"),
        ({"resample": "pairs", "block": 3}, "only there"),
        ({"block": 61}, "block must fit into the data, got 61 for 60 examples"),
        ({"block": 0}, "block"),
        ({"strata": torch.zeros(5)}, "strata must be 60"),
        ({"groups": torch.arange(60), "block": 2}, "take a shorter one"),
        ({"optimizer": torch.optim.LBFGS, "store": "nowhere"}, "LBFGS mixes parameters"),
        ({"epochs": -1}, "epochs"),
        ({"align": "rotation", "init": "independent"}, "align must be one of"),
    ],
)
def test_bad_input_is_refused(small, change, said):
    with pytest.raises(ValueError, match=said):
        boot(small, **change)


def test_a_block_is_chosen_at_rest_and_after_the_data_were_checked():
    x = ms.windows(noise(200), 20)
    net = nn.Sequential(nn.Linear(20, 8), nn.Dropout(0.5), nn.Linear(8, 20)).double()
    before = torch.random.get_rng_state()
    ms.bootstrap(net, (x, x), F.mse_loss, n_models=2, block="auto", epochs=0, generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), before) and net.training
    with pytest.raises(ValueError, match="data must be finite"):
        ms.bootstrap(net, (x * torch.nan, x), F.mse_loss, n_models=2, block="auto")


def test_what_is_wrong_with_the_data_is_said_before_training(small):
    net, (x, y) = small
    for data, said in (
        ((x * torch.nan, y), "NaN"),
        ((x, y[:5]), "60 inputs and 5 targets"),
        ((x[:0], y[:0]), "at least one"),
    ):
        with pytest.raises(ValueError, match=said):
            ms.bootstrap(net, data, F.mse_loss, epochs=10**9)
    with pytest.raises(ValueError, match="not in the model; layers that have: 0, 2"):
        ms.bootstrap_neurons(net, (x, y), F.mse_loss, "encoder", epochs=10**9)
