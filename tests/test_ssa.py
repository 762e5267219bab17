"""Oracles O1.1 to O1.13 of singular spectrum analysis, and its laws."""

import math

import numpy as np
import pytest
import torch

import mspace as ms
from mspace.ssa import SSA, HankelOperator, choose, forecast_interval
from mspace.ssa.continuation import recurrence
from mspace.ssa.hankel import lagged_covariance, weights

T = torch.arange(200, dtype=torch.float64)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rich(n):
    """Rank six: two oscillations and a line."""
    t = torch.arange(n, dtype=torch.float64)
    return torch.sin(0.3 * t) + 0.5 * torch.cos(0.11 * t) + 0.01 * t


@pytest.mark.parametrize(
    ("series", "rank"),
    [
        (torch.ones(200).double(), 1),
        (3 + 2 * T, 2),
        (1 + T + T**2, 3),
        (torch.exp(-0.02 * T), 1),
        (torch.sin(0.3 * T), 2),
        ((-1) ** T, 1),
        (torch.exp(-0.01 * T) * torch.sin(0.3 * T), 2),
        (torch.sin(0.3 * T) + torch.cos(0.7 * T), 4),
    ],
    ids="constant line parabola exponential sine nyquist damped two".split(),
)
def test_ranks_of_simple_series(series, rank):
    """O1.1, by every way to the singular vectors."""
    for method in ("dense", "lanczos", "covariance"):
        values = SSA.of(series, 80, method=method, rank=10).singular_values
        assert (values > 1e-6 * values[0]).sum() == rank, method
    exact = SSA.of(series, 80).singular_values
    assert (exact > 1e-9 * exact[0]).sum() == rank


@pytest.mark.parametrize("window", [2, 40, 100, 170, 199])
def test_all_components_give_the_series_back(window):
    """O1.2, and the components add up to it."""
    s = rich(200) + noise(200)
    ssa = SSA.of(s, window)
    assert (ssa.reconstruct() - s).abs().max() < 1e-12
    assert (ssa.components().sum(0) - s).abs().max() < 1e-11
    halves = ssa.reconstruct(range(0, len(ssa), 2)) + ssa.reconstruct(slice(1, None, 2))
    assert (halves - s).abs().max() < 1e-11


def test_full_rank_error_is_the_noise():
    """O1.2, the dashed line of figure 4: with all components the error against the truth is the noise's power."""
    e = 0.2 * noise(200)
    ssa = SSA.of(torch.sin(0.3 * T) + e, 60)
    assert abs(((ssa.reconstruct() - torch.sin(0.3 * T)) ** 2).mean() - (e**2).mean()) < 1e-15


def test_reconstruction_is_the_textbook_one():
    """sigma_i u_i v_i.T summed, then antidiagonals averaged: slow, beside the fast one."""
    s = rich(120) + noise(120)
    u, v, w = np.linalg.svd(ms.windows(s, 30).T.numpy(), full_matrices=False)
    ssa = SSA.of(s, 30)
    assert np.allclose(ssa.singular_values, v, rtol=1e-12)
    for group in ([0], [1, 4, 2], range(7)):
        slow = ms.average((u[:, list(group)] * v[list(group)]) @ w[list(group)])
        assert torch.allclose(ssa.reconstruct(group), slow, atol=1e-12)
    assert torch.allclose(ssa.reconstruct(3), ssa.components([2, 3])[1], atol=1e-12)
    assert torch.allclose(ssa.scores([1]).norm(), ssa.singular_values[1])


# What ssalib 0.1.3 gives, SingularSpectrumAnalysis(x, window=40, standardize=False), for the series below.
PEER_VALUES = [
    56.27662439426854, 35.51866809617807, 31.324787956287913, 15.833828870921279,
    9.065871902351137, 2.8872119537271725, 2.849769670702337, 2.794014958562075,
]  # fmt: skip
PEER_W_CORRELATION = [
    0.056980153398115116, 0.07229868613427655, 0.12406087886346522, 0.0865945953073931, 0.0002011122679412075,
    0.9776640382557881, 0.08318893543793368, 0.06524920839258641, 0.000611974752488385, 0.018924652617752686,
    0.007582725027844917, 0.003309540995245218, 0.9178302241346967, 0.0014182282776821033, 0.020159893170546284,
]  # fmt: skip


def deterministic(n):
    t = np.arange(n)
    return np.sin(2 * t / 7) + 0.5 * np.cos(t / 11) + 0.01 * t + 0.3 * np.sin(t**2 / 5)


def test_agrees_with_another_package():
    """O1.4: singular values and w-correlations."""
    ssa = SSA.of(deterministic(150), 40)
    above = np.triu_indices(6, 1)
    assert np.allclose(ssa.singular_values[:8], PEER_VALUES, rtol=1e-12)
    assert np.allclose(ssa.w_correlation(range(6)).abs()[above], PEER_W_CORRELATION, atol=1e-12)


def test_paper_sine_is_best_at_one_or_two_components():
    """O1.5: the error is least at k = 1 or 2, and falls as the window grows."""
    least = []
    for window in (20, 40, 100, 250):
        errors = []
        for seed in range(10):
            sine = ms.datasets.noisy_sine(generator=torch.Generator().manual_seed(seed))
            sums = SSA.of(sine.series, window).components(range(8)).cumsum(0)
            errors.append(((sums - sine.truth) ** 2).mean(1))
        mean = torch.stack(errors).mean(0)
        assert int(mean.argmin()) + 1 <= 2
        least.append(float(mean.min()))
    assert least == sorted(least, reverse=True)


# -- grouping ---------------------------------------------------------------------------------------


def two_sines(n=150):
    t = torch.arange(n, dtype=torch.float64)
    return torch.sin(2 * math.pi * t / 17), 0.7 * torch.sin(2 * math.pi * t / 5.3)


def test_grouping_finds_two_oscillations():
    """O1.6: far apart between the sines, together within each, and two clusters are the two pairs."""
    slow, fast = two_sines()
    ssa = SSA.of(slow + fast, 60)
    corr = ssa.w_correlation().abs()
    assert corr[:2, 2:].max() < 0.05 and corr[0, 1] > 0.9 and corr[2, 3] > 0.9
    assert ssa.groups(2) == [[0, 1], [2, 3]]
    assert (ssa.reconstruct([0, 1]) - slow).abs().max() < 0.1


def test_exactly_separable_series_are_uncorrelated():
    """O1.7: a constant and a sine whose period divides both the window and its complement."""
    t = torch.arange(119, dtype=torch.float64)
    ssa = SSA.of(2 + torch.sin(2 * math.pi * t / 20), 60)
    assert len(ssa) == 3
    assert ssa.w_correlation()[0, 1:].abs().max() < 1e-12
    assert (ssa.reconstruct(0) - 2).abs().max() < 1e-12


def test_w_correlation_is_the_frobenius_correlation_of_hankel_matrices():
    s = rich(90) + noise(90)
    ssa = SSA.of(s, 25)
    flat = torch.stack([ms.windows(c, 25).flatten() for c in ssa.components(range(6))])
    flat = flat / flat.norm(dim=1, keepdim=True)
    assert torch.allclose(ssa.w_correlation(range(6)), flat @ flat.T, atol=1e-12)


def test_periods_and_pairs():
    slow, fast = two_sines()
    ssa = SSA.of(slow + fast, 60)
    period, growth = ssa.periods()
    assert np.allclose(sorted(period.abs().tolist()), [5.3, 5.3, 17, 17]) and np.allclose(growth, 1)
    assert [(i, j) for i, j, _ in ssa.pairs()] == [(0, 1), (2, 3)]
    assert np.allclose([p for *_, p in ssa.pairs()], [17, 5.3], rtol=0.01)
    faded = SSA.of(torch.exp(-0.01 * T) * torch.sin(0.3 * T), 60)
    assert np.allclose(faded.periods()[1], math.exp(-0.01))


# -- forecasts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["recurrent", "vector", "row"])
def test_forecasts_of_an_exact_series_are_exact(method):
    """O1.8: rank six, fifty steps."""
    s = rich(300)
    ssa = SSA.of(s[:250], 100)
    assert len(ssa) == 6
    assert (ssa.forecast(50, method=method) - s[250:]).abs().max() < 1e-11


def test_recurrence_of_a_sine_is_the_textbook_one():
    """O1.9: with a window of three it is [-1, 2 cos w], oldest first (O1.10: reversed, O1.8 breaks)."""
    ssa = SSA.of(torch.sin(0.3 * T), 3)
    assert np.allclose(recurrence([ssa.left.numpy()]), [[-1, 2 * math.cos(0.3)]], atol=1e-12)
    s = rich(300)
    long = SSA.of(s[:250], 100)
    a = recurrence([long.left.numpy()])[0]
    assert abs(a @ s[151:250].numpy() - s[250]) < 1e-11 < 1e-2 < abs(a[::-1] @ s[151:250].numpy() - s[250])


def test_recurrent_and_vector_differ_only_by_noise():
    s = torch.sin(0.3 * torch.arange(400.0)).double() + 0.1 * noise(400)
    ssa = SSA.of(s, 150)
    a, b = (ssa.forecast(30, [0, 1], m) for m in ("recurrent", "vector"))
    assert 0 < (a - b).abs().max() < 0.05


def test_vector_forecast_is_golyandinas_operator():
    """P(Y) = [Pi Y_down; a.T Y_down] with Pi = U_up U_up.T + (1 - nu^2) a a.T, applied again and again."""
    s = rich(120) + 0.05 * noise(120)
    ssa = SSA.of(s, 40)
    u = ssa.left[:, :6]
    up, last = u[:-1], u[-1]
    a, gap = up @ last / (1 - last @ last), 1 - last @ last
    pi = up @ up.T + gap * torch.outer(a, a)
    column = u @ (u.T @ s[-40:])
    new = []
    for _ in range(10 + 39):
        column = torch.cat([pi @ column[1:], (a @ column[1:])[None]])
        new.append(column)
    assert torch.allclose(ssa.forecast(10, range(6), "vector"), ms.average(torch.stack(new, 1))[39:49], atol=1e-11)


def test_vertical_groups_have_no_forecast():
    ssa = SSA.of(noise(60), 10)
    for method in ("recurrent", "vector"):
        with pytest.raises(ValueError, match="name fewer components"):
            ssa.forecast(5, method=method)


def test_explosive_forecasts_warn():
    with pytest.warns(RuntimeWarning, match="grows"):
        SSA.of(torch.exp(0.05 * T), 50).forecast(100, [0])


# -- long series, by FFT ----------------------------------------------------------------------------


def test_products_by_fft_are_the_matrix_products():
    """O1.11, and the adjoint; for one series and for three of different lengths."""
    for sizes in ([200], [90, 70, 111]):
        x = HankelOperator([noise(n, seed=n).numpy() for n in sizes], 50)
        dense = x.dense()
        v, u = noise(x.shape[1]).numpy(), noise(50).numpy()
        assert np.allclose(x @ v, dense @ v, atol=1e-12) and np.allclose(x.T @ u, dense.T @ u, atol=1e-12)
        assert abs(u @ (x @ v) - (x.T @ u) @ v) < 1e-11


def test_every_method_finds_the_same_components():
    """O1.12, on a noisy series, where no component is exactly degenerate."""
    s = rich(1500) + 0.5 * noise(1500)
    dense, *others = (SSA.of(s, 300, rank=12, method=m) for m in ("dense", "lanczos", "covariance"))
    for ssa in others:
        assert np.allclose(ssa.singular_values, dense.singular_values, rtol=1e-10)
        assert (ssa.reconstruct() - dense.reconstruct()).abs().max() < 1e-9
        assert torch.allclose(ssa.left[:, :4], dense.left[:, :4], atol=1e-8)


@pytest.mark.parametrize("size", [200, 240, 1000])
def test_filtering_a_long_series_is_projecting_its_windows(size):
    """Long series are filtered inside and projected at the ends; both must be the textbook average."""
    s = rich(size) + noise(size)
    ssa = SSA.of(s, 60)
    for group in ([0], [2, 3, 7]):
        u = ssa.left[:, group]
        slow = ms.average(u @ (u.T @ ms.windows(s, 60).T))
        assert torch.allclose(ssa.reconstruct(group), slow, atol=1e-12)
        assert torch.allclose(ssa.components(group).sum(0), slow, atol=1e-12)


def test_lagged_covariance_is_the_gram_matrix():
    s = noise(400).numpy()
    x = HankelOperator([s], 60).dense()
    assert np.allclose(lagged_covariance(s, 60), x @ x.T, atol=1e-11)


def test_long_series_stay_out_of_memory():
    """The trajectory matrix would take 40 GB; a sine is found in it, and what is asked is what comes."""
    t = torch.arange(100_000, dtype=torch.float64)
    s = torch.sin(2 * math.pi * t / 77) + 0.5 * noise(100_000)
    ssa = SSA.of(s, 50_000, rank=2)
    assert len(ssa) == 2 and abs(ssa.periods()[0].abs() - 77).max() < 1e-3
    assert ((ssa.reconstruct() - torch.sin(2 * math.pi * t / 77)) ** 2).mean() < 1e-4


def test_constant_and_zero_series():
    for method in ("dense", "lanczos", "covariance"):
        ssa = SSA.of(torch.full((500,), 3.0), 100, rank=5, method=method)
        assert len(ssa) == 1 and (ssa.reconstruct() - 3).abs().max() < 1e-10
        nothing = SSA.of(torch.zeros(500), 100, rank=5, method=method)
        assert len(nothing) == 0 and not nothing.reconstruct().any()


def test_weights_count_the_antidiagonals():
    for window in (3, 10, 17):
        counts = [sum(0 <= n - i < 20 - window for i in range(window)) for n in range(19)]
        assert weights(19, window).tolist() == counts


# -- several series ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("frequencies", "rank"), [((0.3, 0.3), 2), ((0.3, 0.11), 4)])
def test_several_series_share_their_components(frequencies, rank):
    """Equal frequencies need two components together, different ones four; all three forecasts are exact."""
    t = torch.arange(300, dtype=torch.float64)
    s = torch.stack([torch.sin(f * t + i) for i, f in enumerate(frequencies)], 1)
    ssa = SSA.of(s[:250], 60)
    assert len(ssa) == rank
    assert torch.allclose(ssa.reconstruct(), s[:250], atol=1e-12)
    assert torch.allclose(ssa.components().sum(0), s[:250], atol=1e-11)
    for method in ("recurrent", "vector", "row"):
        assert (ssa.forecast(50, method=method) - s[250:]).abs().max() < 1e-11


def test_recordings_of_different_lengths():
    t = torch.arange(300, dtype=torch.float64)
    parts = [torch.sin(0.3 * t), torch.cos(0.3 * t[:170])]
    ssa = SSA.of([p[:-20] for p in parts], 60)
    for method in ("recurrent", "vector", "row"):
        for out, part in zip(ssa.forecast(20, method=method), parts, strict=True):
            assert (out - part[-20:]).abs().max() < 1e-11
    assert [len(p) for p in ssa.reconstruct()] == [280, 150]
    assert [p.shape for p in ssa.components()] == [(2, 280), (2, 150)]


def test_an_orthogonal_change_of_channels_changes_nothing():
    """O1.13: singular values stay, and reconstructions turn with the channels. Video goes through PCA by this."""
    s, q = noise(120, 6), torch.linalg.qr(noise(6, 6, seed=1))[0]
    plain, turned = SSA.of(s, 30), SSA.of(s @ q, 30)
    assert torch.allclose(plain.singular_values, turned.singular_values, rtol=1e-12)
    assert (plain.reconstruct(range(5)) @ q - turned.reconstruct(range(5))).abs().max() < 1e-11


# -- the choice, and the door -----------------------------------------------------------------------


def test_choice_of_rank_and_window():
    t = torch.arange(400, dtype=torch.float64)
    s = torch.sin(2 * math.pi * t / 23) + 0.2 * noise(400)
    choice = choose(s, [20, 60], [1, 2, 4, 12], horizon=15, start=200, every=15)
    assert choice.rank == 2 and choice.mse.shape == (2, 4)
    assert choice.mse[1, 1] < choice.mse[1, 3] and choice.mse[1, 1] < 0.06


@pytest.mark.parametrize(("colour", "least"), [(0.0, 0.82), (0.7, 0.7)])
def test_intervals_hold_the_future_about_as_often_as_they_say(colour, least):
    """Ninety per cent, over 30 series of 10 steps; less for noise so correlated that SSA takes some as signal."""
    t, hits = torch.arange(330, dtype=torch.float64), []
    for seed in range(30):
        e = noise(330, seed=seed)
        for i in range(1, 330):
            e[i] += colour * e[i - 1]
        s = torch.sin(2 * math.pi * t / 25) + 0.2 * e
        generator = torch.Generator().manual_seed(seed)
        ssa = SSA.of(s[:300], 120, rank=2)
        low, high = forecast_interval(ssa, 10, level=0.9, n_resamples=60, block=15, generator=generator)
        hits.append(((s[300:310] > low) & (s[300:310] < high)).double().mean())
    assert least < torch.stack(hits).mean() < 0.96


def test_intervals_need_leading_components_of_one_series():
    ssa = SSA.of(noise(60), 20)
    with pytest.raises(ValueError, match=r"leading components, such as range\(2\)"):
        forecast_interval(ssa, 5, [0, 2])
    with pytest.raises(ValueError, match="one series"):
        forecast_interval(SSA.of(noise(60, 2), 20), 5, [0, 1])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: SSA.of(s, 1), "window must be a whole number of at least 2, got 1"),
        (lambda s: SSA.of(s, 60), "window must lie between 2 and the length less one, got 60 for 60 samples"),
        (lambda s: SSA.of(s, 20, rank=21), "rank must be at most 20"),
        (lambda s: SSA.of(s, 20, rank=0), "rank"),
        (lambda s: SSA.of(s, 20, method="fast"), "method must be one of auto, dense"),
        (lambda s: SSA.of(s * math.nan, 20), "60 non-finite rows"),
        (lambda s: SSA.of([s[:, None]], 20), r"recordings must be \(T,\)"),
        (lambda s: SSA.of(s, 20).reconstruct([0, 20]), "indices from 0 to 19, got"),
        (lambda s: SSA.of(s, 20).reconstruct([1, 1]), "different indices"),
        (lambda s: SSA.of(s, 20).forecast(0, [0]), "steps"),
        (lambda s: SSA.of(s, 20).forecast(5, []), "group is empty"),
        (lambda s: SSA.of(s, 20).forecast(5, [0], "linear"), "method must be one of recurrent, vector, row"),
        (lambda s: SSA.of(s, 20).groups(30), "n_groups must be at most the 20"),
    ],
)
def test_bad_input_is_refused_by_name(call, said):
    with pytest.raises(ValueError, match=said):
        call(noise(60))


def test_integers_lists_and_float32_are_taken():
    assert SSA.of([1, 2, 3, 4, 5, 6, 7, 8], 3).left.dtype == torch.float64
    assert SSA.of(noise(50).float(), 10).reconstruct().dtype == torch.float64
