"""Oracles O2.1 to O2.4 and the laws of windows, averages, splits, forecasts and their evaluation."""

import math
from collections import deque
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import mspace as ms
from kit.skill import skill_table
from mspace.series.evaluation import deal_blocks


def close(a, b, atol):
    """Equal shapes, and nowhere further apart than atol."""
    a, b = (v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (a, b))
    return a.shape == b.shape and np.abs(a - b).max(initial=0.0) <= atol


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


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_windows_never_straddle_recordings(kind):
    x, y = ms.windows(kind([torch.arange(10.0), torch.arange(100.0, 108.0)]), 4, horizon=2)
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
        ([torch.zeros(9), torch.zeros(3)], 4, 0, "got a series of 3"),
    ],
)
def test_windows_that_do_not_fit_are_refused(series, width, horizon, said):
    with pytest.raises(ValueError, match=said):
        ms.windows(series, width, horizon=horizon)


# -- average ----------------------------------------------------------------------------------------


def antidiagonal_means(y):
    h, k = y.shape
    return torch.stack(
        [torch.stack([y[i, n - i] for i in range(h) if 0 <= n - i < k]).mean() for n in range(h + k - 1)]
    )


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (4, 9), (9, 4), (6, 6)])
def test_average_is_the_mean_of_antidiagonals(shape):
    y = noise(*shape)
    assert close(ms.average(y), antidiagonal_means(y), 1e-15)


@pytest.mark.parametrize("shape", [(60,), (60, 2)])
def test_average_inverts_windows(shape):
    s = noise(*shape)
    for h in (1, 7, 30, 50, 60):
        assert close(ms.average(ms.windows(s, h).transpose(0, 1)), s, 1e-14)


def test_average_is_the_orthogonal_projector_on_hankel_matrices():
    """O1.3: the residual is orthogonal to every Hankel matrix, and averaging twice changes nothing."""
    y, g = noise(12, 20), ms.windows(noise(31, seed=1), 12).T
    hankel = ms.windows(ms.average(y), 12).T
    assert abs(((y - hankel) * g).sum()) < 1e-12
    assert close(ms.average(hankel), ms.average(y), 1e-14)


def test_average_of_many_series_is_each_ones_average_and_has_gradients():
    y = noise(5, 8, 3).requires_grad_()
    assert close(ms.average(y)[:, 1], ms.average(y[..., 1]), 1e-15)
    assert torch.autograd.gradcheck(ms.average, (y,))


def test_average_takes_integers_and_refuses_what_would_spoil_it():
    big = 2**24 + 1  # the first whole number that float32 lacks
    assert ms.average(np.full((2, 3), big)).tolist() == [big] * 4
    with pytest.raises(ValueError, match="1 non-finite entries"):
        ms.average([[1.0, math.nan], [2.0, 3.0]])
    for shape in ((4,), (2, 0), (2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r"\(h, K\) or \(h, K, m\)"):
            ms.average(torch.zeros(shape))


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
    first, second = ms.split(both, 0.5, 0.5, gap=h + p - 2)
    assert np.intersect1d(first, second).size == 1, "a gap smaller by one leaks exactly one sample"


def test_split_by_counts_and_bad_sizes():
    a, b = ms.split(torch.arange(10.0), 3, 4)
    assert a.tolist() == [0, 1, 2] and b.tolist() == [3, 4, 5, 6]
    for sizes in [
        (),
        (0.5, -0.1),
        (8, 3),
        (0.7, 0.5),
        (math.nan,),
        (0.5, math.inf),
        ("a",),
        (None,),
        (1, 20),
        (1e308,),
    ]:
        with pytest.raises(ValueError, match="sizes"):
            ms.split(torch.arange(10.0), *sizes)


def test_autocorrelation_is_the_direct_sum():
    s = noise(200) + sine(200)
    x = s - s.mean()
    direct = [float((x[: 200 - k] * x[k:]).sum() / (x * x).sum()) for k in range(200)]
    assert close(ms.autocorrelation(s, 199), direct, 1e-14) and close(ms.autocorrelation(s), direct[:101], 1e-14)
    for scale in (1e-200, 1e200):
        assert close(ms.autocorrelation(scale * s, 199), direct, 1e-13)
    with pytest.raises(ValueError, match="max_lag must be a whole number from 1 to 199, got 200"):
        ms.autocorrelation(s, 200)


def test_constant_series_have_no_autocorrelation_whatever_rounding_leaves():
    for n in range(1, 400):
        with pytest.raises(ValueError, match="constant"):
            ms.autocorrelation(torch.full((n,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("period", [7, 20, 53])
def test_dominant_period_is_the_whole_pattern_not_its_strongest_harmonic(period):
    t = torch.arange(2000, dtype=torch.float64)
    s = torch.sin(2 * math.pi * t / period) + 2 * torch.sin(2 * math.pi * 3 * t / period) + 0.3 * noise(2000)
    assert ms.dominant_period(s) % period == 0
    assert ms.dominant_period(s, max_period=2 * period - 2) == period


def test_a_period_is_found_up_to_the_limit_and_not_beyond():
    s = sine(400, 2 * math.pi / 40)
    assert ms.dominant_period(s, max_period=40) == 40
    with pytest.raises(ValueError, match="no period of up to 39 samples"):
        ms.dominant_period(s, max_period=39)
    tenth = 2 * math.pi / 10
    assert ms.dominant_period(sine(22, tenth)) == 10
    with pytest.raises(ValueError, match="no period of up to 9 samples"):
        ms.dominant_period(sine(21, tenth))


def test_a_quick_ripple_on_a_slow_wave_is_not_the_period():
    """The autocorrelation is highest of all at the ripple's first peak, before it was ever negative."""
    s = sine(400, 2 * math.pi / 100) + 0.3 * sine(400, 2 * math.pi / 5)
    assert ms.autocorrelation(s)[5] > ms.autocorrelation(s)[100] and ms.dominant_period(s) == 100


def test_series_without_a_period_says_so():
    for n in (2, 3, 4, 30):
        with pytest.raises(ValueError, match=r"no period of up to .* remove a trend"):
            ms.dominant_period(torch.linspace(0, 1, n))
    with pytest.raises(ValueError, match="max_period must be a whole number from 2 to 28, got 29"):
        ms.dominant_period(torch.linspace(0, 1, 30), max_period=29)
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
    assert close(model.weight, [[-1, 2 * math.cos(0.3)]], 1e-11)
    assert (ms.forecast(model, s[:200], 100, width=2) - s[200:300]).abs().max() < 1e-9


@pytest.mark.parametrize("q", [1, 2, 3, 5])
def test_recursive_equals_direct_for_a_linear_model(q):
    """O2.2: q steps at a time is the power of the companion matrix, to rounding."""
    a, p, x = noise(4, seed=3) / 3, 7, noise(4)
    step = torch.cat([torch.eye(4).double()[1:], a[None]])
    powers = [torch.linalg.matrix_power(step, k) for k in range(1, p + 1)]
    direct = torch.stack([m[-1] for m in powers]) @ x
    rows = torch.stack([m[-1] for m in powers[:q]])
    assert close(ms.forecast(linear(rows), x, p), direct, 1e-12)


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
    assert close(both[0], one, 1e-13) and close(both[1], one + 1, 1e-13)
    assert torch.equal(ms.forecast(last_plus_step, torch.stack([s, s + 1]).numpy(), 4, batched=True), both)


def test_one_step_may_come_without_its_axis():
    s = noise(20, 2)
    assert close(ms.forecast(lambda w: w[:, -1] + 1, s, 3), s[-1] + torch.arange(1, 4)[:, None], 1e-14)
    assert close(ms.forecast(lambda w: w[:, -1] + 1, s[:, 0], 3), s[-1, 0] + torch.arange(1, 4), 1e-14)


@pytest.mark.parametrize(("of", "given"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_histories_come_in_the_models_own_type(of, given):
    model = nn.Linear(4, 1).to(of)
    for history in (sine(30).to(given), sine(30).to(given).numpy()):
        answer = ms.forecast(model, history, 3, width=4)
        assert answer.dtype == of and torch.equal(answer, ms.forecast(model, sine(30).to(given).to(of), 3, width=4))
    assert ms.forecast(lambda w: w[:, -1:], sine(30).to(given), 3).dtype == given


def test_models_rest_while_they_forecast_and_gradients_are_asked_for():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    h = torch.randn(3, generator=seeded())
    assert torch.equal(ms.forecast(model, h, 5), ms.forecast(model, h, 5)) and model.training
    assert not ms.forecast(model, h.clone().requires_grad_(), 5).requires_grad
    ms.forecast(model, h, 5, differentiable=True).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_models_wake_as_they_were_even_after_an_error():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).eval(), nn.Linear(3, 2))
    before = [m.training for m in model.modules()]
    ms.forecast(model, torch.ones(3), 5)
    with pytest.raises(ValueError, match="diverged"):
        ms.forecast(nn.Sequential(model, nn.Threshold(math.inf, math.inf)), torch.ones(3), 5)
    assert [m.training for m in model.modules()] == before == [True, True, False, True]


@pytest.mark.parametrize(
    ("model", "steps", "width", "said"),
    [
        (lambda w: w[0], 2, None, "must map a batch"),
        (lambda w: 3.0, 2, None, "got float"),
        (lambda w: w[:, :0], 2, None, "must answer"),
        (lambda w: w[:, -1:] * 1j, 2, None, "must map a batch .* got .*complex"),
        (lambda w: w[:, -1:] * 1e100, 5, None, "at step 2 of 5: it diverged"),
        (
            lambda w: w[:, -3:] * torch.tensor([1.0, 1e60, 1.0], dtype=torch.float64),
            9,
            None,
            "at step 5 of 9: it diverged",
        ),
        (lambda w: w[:, -1:], 0, None, "steps"),
        (lambda w: w[:, -1:], 2, 9, "width is 9"),
    ],
)
def test_bad_models_are_refused(model, steps, width, said):
    with pytest.raises(ValueError, match=said):
        ms.forecast(model, torch.full((4,), 1e200, dtype=torch.float64), steps, width=width)


def test_what_diverges_after_the_last_step_is_not_seen():
    model = lambda w: torch.cat([w[:, -1:] + 1, w[:, -1:] / 0], 1)  # noqa: E731
    assert ms.forecast(model, torch.arange(3.0), 1).tolist() == [3]


def test_a_hole_in_the_history_is_not_the_models_fault():
    history = torch.ones(2, 9)
    history[1, 4] = math.nan
    for given, batched in ((history[1], False), (history, True)):
        with pytest.raises(ValueError, match="history has 1 non-finite rows"):
            ms.forecast(lambda w: w[:, -1:], given, 3, batched=batched)
    with pytest.raises(ValueError, match=r"history must be \(T, m\) or \(B, T, m\)"):
        ms.forecast(lambda w: w[:, -1:], torch.ones(9), 3, batched=True)


# -- baselines and evaluation -----------------------------------------------------------------------


def test_seasonal_naive_repeats_the_last_period():
    assert ms.seasonal_naive(3)(torch.arange(10.0), 7).tolist() == [7, 8, 9, 7, 8, 9, 7]
    wave = sine(300, 2 * math.pi / 25) + 0.1 * noise(300)
    assert torch.equal(ms.seasonal_naive()(wave, 30), ms.seasonal_naive(ms.dominant_period(wave))(wave, 30))
    s = noise(9, 2)
    assert torch.equal(ms.seasonal_naive(3)(s, 4), s[[6, 7, 8, 6]]) and torch.equal(ms.persistence(s, 2), s[[8, 8]])
    with pytest.raises(ValueError, match="fewer than the period 4"):
        ms.seasonal_naive(4)(torch.arange(3.0), 2)
    for steps in (-1, 0, 1.5):
        with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
            ms.seasonal_naive(3)(s, steps)


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


UNITS = torch.tensor([1.0, 1e3, 1e-4], dtype=torch.float64)


@pytest.mark.parametrize(
    ("series", "penalty"),
    [(noise(200, 3, seed=7), 1e4), (torch.stack([sine(60, w) for w in (0.3, 0.4, 0.5)], 1), 1e-4), (None, 10**1.5)],
    ids="noise sines ar".split(),
)
def test_the_default_penalty_is_chosen_by_leaving_one_out_in_standard_units(series, penalty):
    """As scikit-learn on standardised windows, at both ends of its grid and at a half power of ten between."""
    from sklearn.linear_model import RidgeCV

    if series is None:
        series = noise(300, 3, seed=5)
        for t in range(1, 300):
            series[t] += 0.55 * series[t - 1]
    s = series * UNITS + 7 * UNITS
    x, y = ms.windows(s, 4, horizon=2)
    unit = x.std((0, 1))
    peer = RidgeCV(10.0 ** np.arange(-4, 4.1, 0.5)).fit((x / unit).flatten(1).numpy(), (y / unit).flatten(1).numpy())
    assert math.isclose(peer.alpha_, penalty)
    with torch.no_grad():
        answer = ms.ridge_ar(s, 4, horizon=2)(x) / unit
    # noise-free sines leave nothing but the penalty on some directions: 1e6 times the rounding of an answer near 10
    assert close(answer.flatten(1), peer.predict((x / unit).flatten(1).numpy()), 1e-8)


def test_the_unit_of_a_channel_changes_no_forecast():
    s = noise(200, 3).cumsum(0)
    s[:, 2] = s[:, 0].roll(1, 0) + s[:, 2] / 9
    plain = ms.forecast(ms.ridge_ar(s, 4), s, 10, width=4)
    for units in (UNITS, 1e200 * UNITS, 1e-200 * UNITS):
        assert close(ms.forecast(ms.ridge_ar(s * units, 4), s * units, 10, width=4) / units, plain, 1e-9)


def test_ridge_keeps_the_type_and_refuses_what_it_cannot_fit():
    flat = torch.stack([noise(60).float(), torch.ones(60)], 1)  # one channel never moves
    model = ms.ridge_ar(flat.requires_grad_(), 3)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert close(ms.forecast(model, flat, 5, width=3)[:, 1], [1.0] * 5, 1e-5)
    with pytest.raises(ValueError, match="series gives 1 window of 8 and 2 samples"):
        ms.ridge_ar(noise(10), 8, horizon=2)
    for penalty in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="penalty must be"):
            ms.ridge_ar(noise(50), 3, penalty=penalty)


def test_persistence_on_a_random_walk_loses_k_sigma_squared():
    """O2.4, within four standard errors over 2000 origins that share no step."""
    walk = noise(40_000).cumsum(0)
    skill = ms.rolling_origin(ms.persistence, walk, 10, start=20, every=19)
    loss = skill("mse")
    k = torch.arange(1, 11)
    assert ((loss - k).abs() < 4 * k * (2 / len(skill.origin)) ** 0.5).all()


def two_recordings():
    """Two recordings of two channels, each of a level and loudness of its own."""
    return [noise(n, 2, seed=n) * torch.tensor([1.0, 50.0]) + 30 * (n % 7) for n in (120, 150)]


def trend_of_two(history, steps):
    return history[-1] + 0.1 * (history[-1] - history[-2]) * torch.arange(1, steps + 1)[:, None]


def test_skill_agrees_with_its_definitions():
    """Errors over origins, scaled for each channel of each recording, and only then averaged over channels."""
    skill = ms.rolling_origin(trend_of_two, two_recordings(), 6, start=40, every=10, period=7)
    found = {m: [] for m in ("mse", "mae", "mase", "r2")}
    for c in range(2):
        error, scaled, spread = [], [], []
        for s in two_recordings():
            scale = (s[7:40, c] - s[:33, c]).abs().mean()
            for t in range(40, len(s) - 5, 10):
                error.append(trend_of_two(s[:t], 6)[:, c] - s[t : t + 6, c])
                scaled.append(error[-1].abs() / scale)
                spread.append((s[t : t + 6, c] - s[:40, c].mean()) ** 2)
        error, scaled, spread = map(torch.stack, (error, scaled, spread))
        found["mse"].append((error**2).mean(0))
        found["mae"].append(error.abs().mean(0))
        found["mase"].append(scaled.mean(0))
        found["r2"].append(1 - (error**2).mean(0) / spread.mean(0))
    for metric, channels in found.items():
        assert close(skill(metric) / torch.stack(channels).mean(0), [1.0] * 6, 1e-12), metric


def test_white_noise_is_not_explained_by_its_offset():
    """What knows only the mean has an R2 of zero, whatever the levels of channels and recordings."""
    mean = lambda h, k: h[:20].mean(0).expand(k, *h.shape[1:])  # noqa: E731
    for series in (noise(2000, 2) + torch.tensor([0.0, 100.0]), [noise(1000), noise(1000, seed=1) + 100]):
        assert ms.rolling_origin(mean, series, 1, start=20)("r2").abs() < 1e-12
        assert abs(ms.rolling_origin(lambda h, k: h[-1:], series, 1, start=20)("r2") + 1) < 0.2


def test_a_loud_channel_does_not_rule_mase():
    s = noise(300, 2)
    quiet, loud = (ms.rolling_origin(ms.persistence, s * torch.tensor([1.0, c]), 3, start=50) for c in (1.0, 1e6))
    assert close(quiet("mase"), loud("mase"), 1e-12)


def test_metrics_without_a_scale_say_so():
    late = torch.cat([torch.zeros(50), noise(50)])
    skill = ms.rolling_origin(ms.persistence, late, 5, start=20)
    with pytest.raises(ValueError, match="mase has no scale"):
        skill("mase")
    with pytest.raises(ValueError, match="r2 has no scale"):
        ms.rolling_origin(ms.persistence, torch.zeros(60), 5, start=20)("r2")


def test_skill_is_compared_by_identity():
    one, two = (ms.rolling_origin(ms.persistence, sine(100), 5, start=50) for _ in range(2))
    assert one == one and one != two and len({one, two}) == 2


@pytest.mark.parametrize("metric", ["mse", "mae", "mase", "r2"])
def test_intervals_are_percentiles_over_blocks_of_origins(metric):
    """Circular blocks of three origins for 27, the last one cut, and the whole metric anew for each resample."""
    skill = ms.rolling_origin(trend_of_two, two_recordings(), 4, start=30, every=8)
    skill = replace(skill, **{k: getattr(skill, k)[:26] for k in ("predicted", "actual", "scale", "centre")})
    starts = torch.randint(26, (40, 9), generator=seeded(3))
    draws = []
    for row in starts.tolist():
        chosen = [(i + k) % 26 for i in row for k in range(3)][:26]
        draws.append(
            replace(skill, **{k: getattr(skill, k)[chosen] for k in ("predicted", "actual", "scale", "centre")})(metric)
        )
    expected = torch.stack(draws).quantile(torch.tensor([0.1, 0.9], dtype=torch.float64), 0)
    found = skill.interval(metric, level=0.8, n_resamples=40, generator=seeded(3))
    assert close(found / expected, np.ones((2, 4)), 1e-12)


def test_blocks_are_circular_and_as_long_as_the_cube_root():
    blocks = deal_blocks(10, 10, 500, 4, seeded())
    assert blocks.shape == (500, 10) and set(blocks.flatten().tolist()) == set(range(10))
    inside = blocks.diff(dim=1)[:, [0, 1, 2, 4, 5, 6, 8]]
    assert set(inside.flatten().tolist()) == {1, -9} and set(blocks.diff(dim=1)[:, 3].tolist()) > {1, -9}
    for n, block in ((1, 1), (8, 2), (9, 3), (27, 3), (28, 4), (64, 4), (1000, 10)):
        assert torch.equal(deal_blocks(n, 50, 9, None, seeded()), deal_blocks(n, 50, 9, block, seeded()))


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
    assert close(gap, a("mse").mean() - b("mse").mean(), 1e-15) and low < gap < high < 0
    wide = (lambda i: (i[1] - i[0]).mean())(a.interval("mse", generator=seeded()))
    assert high - low < wide
    assert a.difference(b, "mae", steps=1, generator=seeded())[0] == (a("mae") - b("mae"))[0]
    for change in ({"start": 60}, {"start": 50, "every": 4}):
        with pytest.raises(ValueError, match="same series, origins"):
            a.difference(ms.rolling_origin(ms.persistence, s, 5, **change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 5, got 0"),
        ({"steps": 6}, "steps must be a whole number from 1 to 5, got 6"),
        ({"steps": 1.5}, "steps"),
        ({"level": 0}, "level must be a number"),
        ({"level": 1.0}, "level"),
        ({"block": 0}, "block must be a whole number of at least 1, got 0"),
        ({"n_resamples": 1}, "n_resamples must be a whole number of at least 2, got 1"),
        ({"metric": "rmse"}, "metric must be one of mse, mae, mase, r2, got 'rmse'"),
    ],
)
def test_bad_intervals_are_refused(change, said):
    skill = ms.rolling_origin(ms.persistence, noise(100), 5, start=50)
    with pytest.raises(ValueError, match=said):
        skill.difference(skill, **change)
    if "steps" not in change:
        with pytest.raises(ValueError, match=said):
            skill.interval(**({"metric": "mse"} | change))


def test_an_origin_sees_only_its_own_past():
    parts = [torch.arange(30.0), torch.arange(100.0, 130.0)]
    seen = []

    def spy(history, steps):
        seen.append((history[0].item(), history[-1].item()))
        return history[-1] + 1 + torch.arange(steps)

    skill = ms.rolling_origin(spy, parts, 5, start=10, every=10)
    assert skill("mse").max() == 0 and seen == [(0, 9), (0, 19), (100, 109), (100, 119)]
    assert skill.recording.tolist() == [0, 0, 1, 1] and skill.origin.tolist() == [10, 20, 10, 20]


def test_origins_do_not_overlap_and_reach_the_end():
    skill = ms.rolling_origin(ms.persistence, [noise(100), noise(99)], 5, start=50)
    assert skill.origin.tolist() == [*range(50, 96, 5), *range(50, 95, 5)]


def test_a_forecaster_may_spoil_its_own_history_only():
    def spoiler(history, steps):
        answer = history[-1].expand(steps).clone()
        history.zero_()
        return answer

    s = noise(100)
    kept = s.clone()
    skill, plain = (ms.rolling_origin(f, s, 5, start=50) for f in (spoiler, ms.persistence))
    assert torch.equal(s, kept) and torch.equal(skill.predicted, plain.predicted)


def test_series_with_gradients_are_evaluated_without():
    s = noise(100).requires_grad_()
    skill = ms.rolling_origin(partial(ms.forecast, ms.ridge_ar(s, 3), width=3, differentiable=True), s, 5, start=50)
    assert not skill("r2").requires_grad


def test_networks_enter_by_partial():
    s = sine(200)
    skill = ms.rolling_origin(partial(ms.forecast, ms.ridge_ar(s[:100], 2, penalty=0.0), width=2), s, 20, start=100)
    assert skill("mse").max() < 1e-18 and not skill.runaway.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_runaways_are_ten_ranges_from_the_middle_of_their_own_channel(sign):
    s = torch.arange(40.0) % 2  # between 0 and 1
    both = torch.stack([s, 1000 * s], 1)
    for distance, far in ((9.9, False), (10.1, True)):
        answer = torch.full((2,), 0.5 + sign * distance)
        assert (ms.rolling_origin(lambda h, k: answer, s, 2, start=20).runaway == far).all()  # noqa: B023
        beside = torch.stack([answer, torch.full((2,), 500.0)], 1)
        assert (ms.rolling_origin(lambda h, k: beside, both, 2, start=20).runaway == far).all()  # noqa: B023


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": 96}, "start 96 and steps 5 leave no origin in series of up to 100 samples"),
        ({"every": 0}, "every"),
        ({"period": 60}, "must exceed the period 60, got 50"),
        ({"period": 50}, "must exceed the period 50, got 50"),
    ],
)
def test_bad_evaluations_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        ms.rolling_origin(ms.persistence, sine(100), 5, **({"start": 50} | change))


def test_the_table_shows_what_was_measured():
    skill = ms.rolling_origin(ms.persistence, noise(300), 4, start=50)
    table = skill_table({"last": skill, "again": skill}, [1, 3], metric="mae", generator=seeded())
    low, high = skill.interval("mae", generator=seeded())
    assert table.header == ["MAE", "lead 1", "lead 3"]
    assert table.rows[0] == ["last", *(f"{skill('mae')[k]:.2f} [{low[k]:.2f}, {high[k]:.2f}]" for k in (0, 2))]
    assert str(table).splitlines()[0].split("  ")[0] == "MAE" and table._repr_markdown_().count("\n| ") == 3
    with pytest.raises(ValueError, match=r"leads must be a whole number from 1 to 4, got 5"):
        skill_table({"last": skill}, [5])
    short = ms.rolling_origin(ms.persistence, noise(300), 2, start=50)
    for skills, leads, said in (
        ({"a": skill, "b": short}, [3], "1 to 2, got 3"),
        ({"a": skill}, [1.5], "1 to 4, got 1.5"),
    ):
        with pytest.raises(ValueError, match=f"leads must be a whole number from {said}"):
            skill_table(skills, leads)
    with pytest.raises(ValueError, match="at least one forecaster"):
        skill_table({}, [1])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda k: torch.zeros(4), r"must return \(5,\) for 5 steps, got shape \(4,\)"),
        (lambda k: None, "forecast must be an array of real numbers"),
        (lambda k: torch.zeros(5) * 1j, "forecast must be an array of real numbers"),
        (lambda k: torch.full((5,), math.nan), "non-finite value at the origin after 60 samples of recording 1"),
        (
            lambda k: torch.full((5,), 1e300, dtype=torch.float64),
            "non-finite value at the origin after 60 samples of recording 1",
        ),
    ],
    ids="short none complex nan overflow".split(),
)
def test_bad_forecasters_are_named(answer, said):
    """The last one is finite until it is put into the type of the series."""
    bad = lambda h, k: answer(k) if len(h) == 60 else h[-k:]  # noqa: E731
    with pytest.raises(ValueError, match=said):
        ms.rolling_origin(bad, [torch.ones(58), torch.ones(70)], 5, start=50)
