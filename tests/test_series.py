"""Oracles O2.1 to O2.4 and the laws of windows, averages, splits, forecasts and their evaluation."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import mspace as ms


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def sine(n, omega=0.3):
    return torch.sin(omega * torch.arange(n, dtype=torch.float64))


# -- windows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50,), (50, 3)])
def test_windows_count_and_alignment(shape):
    """O2.3: n = T - h - p + 1 pairs, and the first target is the newest value of the next history."""
    s = noise(*shape)
    x, y = ms.windows(s, 7, horizon=4)
    assert x.shape == (40, 7, *shape[1:]) and y.shape == (40, 4, *shape[1:])
    assert torch.equal(y[:-1, 0], x[1:, -1])
    assert torch.equal(x[5], s[5:12]) and torch.equal(y[5], s[12:16])
    assert torch.equal(ms.windows(s, 7), torch.stack([s[i : i + 7] for i in range(44)]))


def test_windows_are_views():
    s = noise(1000)
    x, y = ms.windows(s, 100, horizon=1)
    assert x.untyped_storage().data_ptr() == s.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def test_windows_never_straddle_recordings():
    parts = [torch.arange(10.0), torch.arange(100.0, 108.0)]
    x, y = ms.windows(parts, 4, horizon=2)
    assert len(x) == (10 - 6 + 1) + (8 - 6 + 1)
    steps = torch.cat([x, y], 1).diff(dim=1)
    assert torch.equal(steps, torch.ones_like(steps))


def test_windows_of_one_sample_and_of_the_whole_series():
    s = noise(9)
    assert torch.equal(ms.windows(s, 1), s[:, None]) and torch.equal(ms.windows(s, 9), s[None])


@pytest.mark.parametrize(
    ("series", "width", "horizon", "said"),
    [
        (torch.arange(5.0), 6, 0, "width 6"),
        (torch.arange(5.0), 4, 2, "need 6 samples, got a series of 5"),
        (torch.arange(5.0), 0, 0, "width must be a whole number of at least 1, got 0"),
        (torch.arange(5.0), 2.5, 0, "got 2.5"),
        (torch.arange(5.0), 2, -1, "horizon"),
        (torch.tensor([0.0, math.nan, 1.0]), 2, 0, "1 non-finite rows, the first at 1"),
        (torch.zeros(0), 1, 0, "not empty"),
        (torch.zeros(2, 3, 4), 1, 0, r"\(T,\) or \(T, m\)"),
        (np.array(["a", "b"]), 1, 0, "real numbers"),
        (torch.zeros(4, dtype=torch.complex64), 1, 0, "real numbers"),
        ([torch.zeros(9), torch.zeros(9, 2)], 2, 0, "same channels"),
        ([torch.zeros(9), torch.zeros(3)], 4, 0, "got a series of 3"),
    ],
)
def test_bad_series_are_refused_by_name(series, width, horizon, said):
    with pytest.raises(ValueError, match=said):
        ms.windows(series, width, horizon=horizon)


def test_numpy_lists_and_read_only_arrays_are_taken():
    a = np.arange(6.0)
    a.flags.writeable = False
    assert torch.equal(ms.windows(a, 3), ms.windows([0, 1, 2, 3, 4, 5], 3))
    assert ms.windows(np.arange(6, dtype=np.float32), 3).dtype == torch.float32


# -- average ----------------------------------------------------------------------------------------


def antidiagonal_means(y):
    h, k = y.shape
    return torch.stack(
        [torch.stack([y[i, n - i] for i in range(h) if 0 <= n - i < k]).mean() for n in range(h + k - 1)]
    )


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (4, 9), (9, 4), (6, 6)])
def test_average_is_the_mean_of_antidiagonals(shape):
    y = noise(*shape)
    assert torch.allclose(ms.average(y), antidiagonal_means(y), atol=1e-15)


@pytest.mark.parametrize("shape", [(60,), (60, 2)])
def test_average_inverts_windows(shape):
    s = noise(*shape)
    for h in (1, 7, 30, 50, 60):
        assert torch.allclose(ms.average(ms.windows(s, h).transpose(0, 1)), s, atol=1e-14)


def test_average_is_the_orthogonal_projector_on_hankel_matrices():
    """O1.3: the residual is orthogonal to every Hankel matrix, and averaging twice changes nothing."""
    y, g = noise(12, 20), ms.windows(noise(31, seed=1), 12).T
    hankel = ms.windows(ms.average(y), 12).T
    assert abs(((y - hankel) * g).sum()) < 1e-12
    assert torch.allclose(ms.average(hankel), ms.average(y), atol=1e-14)


def test_average_of_many_series_is_each_ones_average_and_has_gradients():
    y = noise(5, 8, 3).requires_grad_()
    assert torch.allclose(ms.average(y)[:, 1], ms.average(y[..., 1]))
    assert torch.autograd.gradcheck(ms.average, (y,))


# -- split, periods ---------------------------------------------------------------------------------


def test_split_keeps_order_and_leaves_the_gap():
    train, val, test = ms.split(torch.arange(100.0), 0.6, 0.2, 0.2, gap=5)
    assert [len(p) for p in (train, val, test)] == [54, 18, 18]
    assert val[0] - train[-1] == 6 and test[0] - val[-1] == 6


def test_windows_of_different_parts_share_no_sample():
    h, p = 8, 3
    x, y = ms.windows(torch.arange(60.0), h, horizon=p)
    both = torch.cat([x, y], 1)
    first, second = ms.split(both, 0.5, 0.5, gap=h + p - 1)
    assert not np.intersect1d(first, second).size
    close, far = ms.split(both, 0.5, 0.5, gap=h + p - 2)
    assert np.intersect1d(close, far).size == 1, "a gap smaller by one leaks exactly one sample"


def test_split_by_counts_and_bad_sizes():
    a, b = ms.split(torch.arange(10.0), 3, 4)
    assert a.tolist() == [0, 1, 2] and b.tolist() == [3, 4, 5, 6]
    for sizes in [(), (0.5, -0.1), (8, 3), (0.7, 0.5)]:
        with pytest.raises(ValueError, match="sizes"):
            ms.split(torch.arange(10.0), *sizes)


def test_autocorrelation_is_the_direct_sum():
    s = noise(200) + sine(200)
    x = s - s.mean()
    direct = torch.tensor([(x[: 200 - k] * x[k:]).sum() / (x * x).sum() for k in range(30)])
    assert torch.allclose(ms.autocorrelation(s, 29), direct, atol=1e-12)


@pytest.mark.parametrize("period", [7, 20, 53])
def test_dominant_period_is_the_whole_pattern_not_its_strongest_harmonic(period):
    t = torch.arange(2000, dtype=torch.float64)
    s = torch.sin(2 * math.pi * t / period) + 2 * torch.sin(2 * math.pi * 3 * t / period) + 0.3 * noise(2000)
    assert ms.dominant_period(s) % period == 0
    assert ms.dominant_period(s, max_period=2 * period - 2) == period


def test_series_without_a_period_says_so():
    with pytest.raises(ValueError, match="no period"):
        ms.dominant_period(torch.linspace(0, 1, 30))
    with pytest.raises(ValueError, match="constant"):
        ms.dominant_period(torch.ones(30))


# -- forecast ---------------------------------------------------------------------------------------


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    layer.weight.data = weight
    return layer


def test_a_sine_is_autoregressive_of_order_two():
    """O2.1: coefficients [-1, 2 cos w], and a free run of 100 steps that stays on the sine."""
    s = sine(400)
    model = ms.ridge_ar(s[:200], 2, penalty=0.0)
    assert torch.allclose(model.weight, torch.tensor([[-1, 2 * math.cos(0.3)]]).double(), atol=1e-11)
    assert (ms.forecast(model, s[:200], 100, width=2) - s[200:300]).abs().max() < 1e-9


@pytest.mark.parametrize("q", [1, 2, 3, 5])
def test_recursive_equals_direct_for_a_linear_model(q):
    """O2.2: q steps at a time is the power of the companion matrix, to rounding."""
    a, p, x = noise(4, seed=3) / 3, 7, noise(4)
    step = torch.cat([torch.eye(4).double()[1:], a[None]])
    powers = [torch.linalg.matrix_power(step, k) for k in range(1, p + 1)]
    direct = torch.stack([m[-1] for m in powers]) @ x
    rows = torch.stack([m[-1] for m in powers[:q]])
    assert torch.allclose(ms.forecast(linear(rows), x, p), direct, atol=1e-12)


def test_direct_answer_is_cut_not_repeated():
    assert torch.equal(ms.forecast(lambda w: w[:, :5] * 0 + 2, torch.arange(6.0), 3), torch.full((3,), 2.0))


def test_history_order_matters():
    """The model sees the oldest sample first; a reversed history would return the first value."""
    assert ms.forecast(lambda w: w[:, -1:] + 1, torch.arange(4.0), 3).tolist() == [4, 5, 6]


def test_many_series_and_many_origins():
    s = torch.stack([sine(50), sine(50, 0.7)], 1)
    last_plus_step = lambda w: 2 * w[:, -1:] - w[:, -2:-1]  # noqa: E731
    one = ms.forecast(last_plus_step, s, 4)
    assert one.shape == (4, 2)
    both = ms.forecast(last_plus_step, torch.stack([s, s + 1]), 4, batched=True)
    assert torch.allclose(both[0], one) and torch.allclose(both[1], one + 1)


def test_models_rest_while_they_forecast_and_gradients_are_asked_for():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    h = torch.randn(3, generator=seeded())
    assert torch.equal(ms.forecast(model, h, 5), ms.forecast(model, h, 5)) and model.training
    assert not ms.forecast(model, h, 5).requires_grad
    ms.forecast(model, h, 5, differentiable=True).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("model", "steps", "width", "said"),
    [
        (lambda w: w[0], 2, None, "must map a batch"),
        (lambda w: 3.0, 2, None, "got float"),
        (lambda w: w[:, :0], 2, None, "must answer"),
        (lambda w: w[:, -1:] * 1e100, 5, None, "at step 2 of 5: it diverged"),
        (lambda w: w[:, -1:], 0, None, "steps"),
        (lambda w: w[:, -1:], 2, 9, "width is 9"),
    ],
)
def test_bad_models_are_refused(model, steps, width, said):
    with pytest.raises(ValueError, match=said):
        ms.forecast(model, torch.full((4,), 1e200, dtype=torch.float64), steps, width=width)


# -- baselines and evaluation -----------------------------------------------------------------------


def test_seasonal_naive_repeats_the_last_period():
    assert ms.seasonal_naive(3)(torch.arange(10.0), 7).tolist() == [7, 8, 9, 7, 8, 9, 7]
    wave = sine(300, 2 * math.pi / 25) + 0.1 * noise(300)
    assert torch.equal(ms.seasonal_naive()(wave, 30), ms.seasonal_naive(ms.dominant_period(wave))(wave, 30))
    with pytest.raises(ValueError, match="fewer than the period 4"):
        ms.seasonal_naive(4)(torch.arange(3.0), 2)


def test_ridge_shrinks_and_several_series_keep_their_shape():
    s = noise(300, 2).cumsum(0) / 10
    model = ms.ridge_ar(s, 5, horizon=3)
    x, y = ms.windows(s, 5, horizon=3)
    assert model(x).shape == y.shape
    assert ms.forecast(model, s, 10, width=5).shape == (10, 2)
    norms = [ms.ridge_ar(s[:, 0], 5, penalty=p).weight.norm() for p in (0.0, 1.0, 100.0)]
    assert norms[0] > norms[1] > norms[2]


def test_ridge_minimises_what_it_says():
    s, penalty = noise(120).cumsum(0), 3.0
    model = ms.ridge_ar(s, 4, penalty=penalty)
    x, y = ms.windows(s, 4, horizon=1)
    weight, bias = model.weight.detach().clone().requires_grad_(), model.bias.detach().clone().requires_grad_()
    loss = ((x @ weight.T + bias - y) ** 2).sum() + penalty * (weight**2).sum()
    for g in torch.autograd.grad(loss, (weight, bias)):
        assert g.abs().max() < 1e-6 * loss


def test_persistence_on_a_random_walk_loses_k_sigma_squared():
    """O2.4, within four standard errors over 2000 origins that share no step."""
    walk = noise(40_000).cumsum(0)
    skill = ms.rolling_origin(ms.persistence, walk, 10, start=20, every=19)
    loss = skill("mse")
    k = torch.arange(1, 11)
    assert ((loss - k).abs() < 4 * k * (2 / len(skill.origin)) ** 0.5).all()


def test_skill_agrees_with_its_definitions():
    s = noise(500) + 3 * sine(500)
    skill = ms.rolling_origin(ms.seasonal_naive(21), s, 6, start=200, every=10, period=21)
    error = torch.stack([ms.seasonal_naive(21)(s[:t], 6) - s[t : t + 6] for t in range(200, 495, 10)])
    actual = torch.stack([s[t : t + 6] for t in range(200, 495, 10)])
    scale = (s[21:200] - s[: 200 - 21]).abs().mean()
    assert torch.allclose(skill("mse"), (error**2).mean(0)) and torch.allclose(skill("mae"), error.abs().mean(0))
    assert torch.allclose(skill("mase"), error.abs().mean(0) / scale)
    assert torch.allclose(skill("r2"), 1 - (error**2).mean(0) / ((actual - s[:200].mean()) ** 2).mean(0))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    hits = []
    for seed in range(60):
        skill = ms.rolling_origin(lambda h, k: torch.zeros(k).double(), noise(400, seed=seed), 1, start=2)
        low, high = skill.interval("mse", generator=seeded(seed), n_resamples=400)
        hits.append(float(low[0] <= 1 <= high[0]))
    assert 0.85 <= np.mean(hits) <= 1.0


def test_a_paired_difference_is_narrower_than_the_errors():
    s = noise(600) + 3 * sine(600)
    a, b = (
        ms.rolling_origin(
            lambda h, k, c=c: c * 3 * torch.sin(0.3 * (len(h) + torch.arange(k).double())), s, 5, start=50
        )
        for c in (1.0, 0.9)
    )
    gap, low, high = a.difference(b, generator=seeded())
    assert torch.isclose(gap, a("mse").mean() - b("mse").mean()) and low < gap < high < 0
    wide = (lambda i: (i[1] - i[0]).mean())(a.interval("mse", generator=seeded()))
    assert high - low < wide
    assert a.difference(b, "mae", steps=1, generator=seeded())[0] == (a("mae") - b("mae"))[0]
    with pytest.raises(ValueError, match="same series, origins"):
        a.difference(ms.rolling_origin(ms.persistence, s, 5, start=60))


def test_an_origin_sees_only_its_own_past():
    parts = [torch.arange(30.0), torch.arange(100.0, 130.0)]
    seen = []

    def spy(history, steps):
        seen.append((history[0].item(), history[-1].item()))
        return history[-1] + 1 + torch.arange(steps)

    skill = ms.rolling_origin(spy, parts, 5, start=10, every=10)
    assert skill("mse").max() == 0 and seen == [(0, 9), (0, 19), (100, 109), (100, 119)]
    assert skill.recording.tolist() == [0, 0, 1, 1] and skill.origin.tolist() == [10, 20, 10, 20]


def test_networks_enter_by_partial_and_runaways_are_flagged():
    s = sine(200)
    skill = ms.rolling_origin(partial(ms.forecast, ms.ridge_ar(s[:100], 2, penalty=0.0), width=2), s, 20, start=100)
    assert skill("mse").max() < 1e-18 and not skill.runaway.any()
    wild = ms.rolling_origin(lambda h, k: 100 * h[-1] ** torch.zeros(k), s, 20, start=100)
    assert wild.runaway.all()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"start": 99}, "no origin"), ({"every": 0}, "every"), ({"period": 60}, "must exceed the period 60, got 50")],
)
def test_bad_evaluations_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        ms.rolling_origin(ms.persistence, sine(100), 5, **({"start": 50} | change))


def test_the_table_shows_what_was_measured():
    skill = ms.rolling_origin(ms.persistence, noise(300), 4, start=50)
    table = ms.skill_table({"last": skill, "again": skill}, [1, 3], metric="mae", generator=seeded())
    low, high = skill.interval("mae", generator=seeded())
    assert table.header == ["MAE", "lead 1", "lead 3"]
    assert table.rows[0] == ["last", *(f"{skill('mae')[k]:.2f} [{low[k]:.2f}, {high[k]:.2f}]" for k in (0, 2))]
    assert str(table).splitlines()[0].split("  ")[0] == "MAE" and table._repr_markdown_().count("\n| ") == 3
    with pytest.raises(ValueError, match=r"leads must be a whole number from 1 to 4, got 5"):
        ms.skill_table({"last": skill}, [5])


def test_a_forecaster_of_the_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"must return \(5,\) for 5 steps, got shape \(4,\)"):
        ms.rolling_origin(lambda h, k: torch.zeros(4), sine(100), 5, start=50)
    with pytest.raises(ValueError, match="metric must be one of"):
        ms.rolling_origin(ms.persistence, sine(100), 5, start=50)("mape")
