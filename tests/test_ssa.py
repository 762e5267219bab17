"""Oracles O1.1 to O1.13 of singular spectrum analysis, and its laws."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import mspace as ms
from mspace.ssa import SSA, hankel, select_window
from mspace.ssa.continuation import Vertical, recurrence, shift
from mspace.ssa.hankel import HankelOperator, lagged_covariance, weights

T = torch.arange(200, dtype=torch.float64)
METHODS = ("dense", "lanczos", "covariance")
WAYS = ("recurrent", "vector", "row")


def close(a, b, atol):
    """Equal shapes, and nowhere further apart than atol."""
    a, b = (v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (a, b))
    return a.shape == b.shape and np.abs(a - b).max(initial=0.0) <= atol


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
    for method in METHODS:
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
    assert close(ssa.residual([0, 1]), s - ssa.reconstruct([0, 1]), 1e-13)


def test_windows_are_half_of_the_shortest_unless_told():
    assert SSA.of(noise(31)).window == 15 and SSA.of([noise(50), noise(21)]).window == 10


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
    assert close(ssa.singular_values / torch.from_numpy(v), np.ones(30), 1e-12)
    for group in ([0], [1, 4, 2], range(7)):
        slow = ms.average((u[:, list(group)] * v[list(group)]) @ w[list(group)])
        assert close(ssa.reconstruct(group), slow, 1e-12)
    assert close(ssa.reconstruct(3), ssa.components([2, 3])[1], 1e-13)


def test_left_vectors_have_a_sign_and_scores_the_order_of_time():
    for series, method in [(noise(90), "dense"), (noise(900), "lanczos"), (noise(900), "covariance")]:
        ssa = SSA.of(series, 40, rank=9, method=method)
        assert (ssa.left.gather(0, ssa.left.abs().argmax(0)[None]) > 0).all()
        assert close(ssa.scores([1, 5]), ms.windows(series, 40) @ ssa.left[:, [1, 5]], 1e-11)
    parts = [noise(70), noise(50, seed=1)]
    ssa = SSA.of(parts, 20)
    assert close(ssa.scores([0, 3]), ms.windows(parts, 20) @ ssa.left[:, [0, 3]], 1e-12)


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
    assert close(ssa.singular_values[:8], PEER_VALUES, 1e-11)
    assert close(ssa.w_correlation(range(6)).abs()[above], PEER_W_CORRELATION, 1e-12)


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
    assert close(ssa.w_correlation(range(6)), flat @ flat.T, 1e-12)


@pytest.mark.parametrize("signed", [False, True])
def test_groups_are_those_of_average_linkage(signed):
    """As scikit-learn cuts the same distances, for every number of groups; signs matter only where asked."""
    from sklearn.cluster import AgglomerativeClustering

    ssa = SSA.of(rich(150) + noise(150), 40, rank=14)
    corr = ssa.w_correlation().numpy()
    far = (1 - corr) / 2 if signed else 1 - abs(corr)
    for n in range(2, 14):
        labels = AgglomerativeClustering(n, metric="precomputed", linkage="average").fit(far).labels_
        expected = sorted([np.flatnonzero(labels == k).tolist() for k in range(n)])
        assert ssa.groups(n, signed=signed) == expected
    assert ssa.groups(3, [9, 2, 4]) == [[2], [4], [9]] and ssa.groups(1, 5) == [[5]]


def test_opposed_components_belong_together_unless_signs_are_asked_for(monkeypatch):
    corr = torch.tensor([[1, -0.9, 0.2], [-0.9, 1, 0.2], [0.2, 0.2, 1]], dtype=torch.float64)
    monkeypatch.setattr(SSA, "w_correlation", lambda *_: corr)
    ssa = SSA.of(noise(60), 20, rank=3)
    assert ssa.groups(2) == [[0, 1], [2]] and ssa.groups(2, signed=True) == [[0, 2], [1]]


def test_ties_give_as_many_groups_as_asked():
    t = torch.arange(119, dtype=torch.float64)
    ssa = SSA.of(2 + torch.sin(2 * math.pi * t / 20) + torch.cos(math.pi * t), 60)
    assert [len(ssa.groups(n)) for n in range(1, 5)] == [1, 2, 3, 4] == [*range(1, len(ssa) + 1)]


def test_periods_and_pairs():
    slow, fast = two_sines()
    ssa = SSA.of(slow + fast, 60)
    period, growth = ssa.periods()
    assert close(sorted(period.abs().tolist()), [5.3, 5.3, 17, 17], 1e-10) and close(growth, np.ones(4), 1e-12)
    assert [(i, j) for i, j, _ in ssa.pairs()] == [(0, 1), (2, 3)]
    assert close([p for *_, p in ssa.pairs()], [17, 5.3], 0.06)
    faded = SSA.of(torch.exp(-0.01 * T) * torch.sin(0.3 * T), 60)
    assert close(faded.periods()[1], [math.exp(-0.01)] * 2, 1e-12)


def test_pairs_are_what_they_say():
    """Alike in size, pure, of one frequency and turning at it, each component in one pair; periods are finite."""
    found = 0
    for seed in range(8):
        for wave in (0.0, torch.sin(0.5 * T) * (1 + 0.05 * T.sin()), 3 * torch.sin(0.5 * T) + 0.02 * T):
            ssa = SSA.of(wave + 0.3 * noise(200, seed=seed), 60, rank=30)
            power = np.abs(np.fft.rfft(ssa.left.numpy(), 4800, axis=0)) ** 2
            frequency = np.arange(len(power)) / 4800
            for i, j, period in ssa.pairs():
                assert j == i + 1 and ssa.singular_values[j] >= 0.95 * ssa.singular_values[i] and period < math.inf
                peaks = frequency[power[:, [i, j]].argmax(0)]
                assert abs(peaks[0] - peaks[1]) < 1.05 / 60 and abs(1 / period - peaks[0]) < 1.05 / 60
                for k, peak in zip((i, j), peaks, strict=True):
                    assert power[abs(frequency - peak) < 1.1 / 60, k].sum() > 0.5 * power[:, k].sum()
                found += 1
    assert found > 40
    assert SSA.of(torch.zeros(60), 20).pairs() == []


def test_pairs_by_their_ratio_and_once_each():
    three = SSA.of(torch.sin(0.3 * T), 60)
    left, size = three.left[:, [0, 1, 0]], torch.ones(3).double()
    assert [(i, j) for i, j, _ in replace(three, left=left, singular_values=size).pairs()] == [(0, 1)]
    uneven = replace(three, singular_values=torch.tensor([1.0, 0.9]).double())
    assert uneven.pairs() == [] and uneven.pairs(ratio=0.85)[0][:2] == (0, 1)


# -- forecasts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", WAYS)
def test_forecasts_of_an_exact_series_are_exact(method):
    """O1.8: rank six, fifty steps."""
    s = rich(300)
    ssa = SSA.of(s[:250], 100)
    assert len(ssa) == 6
    assert (ssa.forecast(50, method=method) - s[250:]).abs().max() < 1e-11


def test_recurrence_of_a_sine_is_the_textbook_one():
    """O1.9: with a window of three it is [-1, 2 cos w], oldest first (O1.10: reversed, O1.8 breaks)."""
    ssa = SSA.of(torch.sin(0.3 * T), 3)
    assert close(recurrence([ssa.left.numpy()]), [[-1, 2 * math.cos(0.3)]], 1e-12)
    s = rich(300)
    long = SSA.of(s[:250], 100)
    a = recurrence([long.left.numpy()])[0]
    assert abs(a @ s[151:250].numpy() - s[250]) < 1e-11 < 1e-2 < abs(a[::-1] @ s[151:250].numpy() - s[250])


def test_recurrent_and_vector_differ_only_by_noise():
    s = torch.sin(0.3 * torch.arange(400.0)).double() + 0.1 * noise(400)
    ssa = SSA.of(s, 150)
    a, b = (ssa.forecast(30, [0, 1], m) for m in ("recurrent", "vector"))
    assert 0 < (a - b).abs().max() < 0.05


def of_channels(lengths):
    """Noisy waves of unlike frequencies as `SSA.of` takes them, and as a list of channels."""
    parts = [rich(n) + torch.sin((0.5 + i) * torch.arange(n)) + 0.2 * noise(n, seed=i) for i, n in enumerate(lengths)]
    if len(parts) == 1:
        return parts[0], parts
    return torch.stack(parts, 1) if len(set(lengths)) == 1 else parts, parts


def textbook_recurrent(ssa, parts, group, steps):
    """x_n = a.T of the last L - 1 values, on the reconstructed series, a = U_up pi / (1 - pi.T pi)."""
    u = ssa.left[:, group]
    a = u[:-1] @ u[-1] / (1 - u[-1] @ u[-1])
    for s in parts:
        x = ms.average(u @ (u.T @ ms.windows(s, ssa.window).T))
        for _ in range(steps):
            x = torch.cat([x, (a @ x[1 - ssa.window :])[None]])
        yield x[-steps:]


def textbook_vector(ssa, parts, group, steps):
    """P(Y) = [Pi Y_down; a.T Y_down], Pi = U_up U_up.T + (1 - nu^2) a a.T, again and again behind the projection."""
    u, rows = ssa.left[:, group], ssa.window
    gap = 1 - u[-1] @ u[-1]
    a = u[:-1] @ u[-1] / gap
    pi = u[:-1] @ u[:-1].T + gap * torch.outer(a, a)
    for s in parts:
        columns = list(u @ (u.T @ ms.windows(s, rows).T))  # rows of the projected trajectory
        columns = list(torch.stack(columns).T)
        for _ in range(steps + rows - 1):
            y = columns[-1][1:]
            columns.append(torch.cat([pi @ y, (a @ y)[None]]))
        yield ms.average(torch.stack(columns, 1))[len(s) : len(s) + steps]


def textbook_row(ssa, parts, group, steps):
    """z -> (I - W W.T)^-1 W Q.T z with W the last rows of the right vectors of each series, Q the others."""
    u = ssa.left[:, group]
    right = [ms.windows(s, ssa.window) @ u / ssa.singular_values[group] for s in parts]
    last, rest = torch.stack([v[-1] for v in right]), torch.cat([v[:-1] for v in right])
    r = torch.linalg.inv(torch.eye(len(parts)) - last @ last.T) @ last @ rest.T
    past = [ms.average(u @ (u.T @ ms.windows(s, ssa.window).T)) for s in parts]
    for _ in range(steps):
        z = torch.cat([p[1 - len(v) :] for p, v in zip(past, right, strict=True)])
        past = [torch.cat([p, new[None]]) for p, new in zip(past, r @ z, strict=True)]
    return [p[-steps:] for p in past]


@pytest.mark.parametrize("lengths", [(120,), (120, 120), (120, 90)], ids="one equal unequal".split())
@pytest.mark.parametrize("textbook", [textbook_recurrent, textbook_vector, textbook_row])
def test_forecasts_are_the_textbooks(textbook, lengths):
    """On noisy series, where it matters what the recurrence is fed with; of the first or any other components."""
    series, parts = of_channels(lengths)
    ssa = SSA.of(series, 40)
    for group in ([*range(6)], [1, 4, 2]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # some of these groups grow
            answer = ssa.forecast(10, group, textbook.__name__.removeprefix("textbook_"))
        answer = answer if isinstance(answer, list) else answer.reshape(10, -1).T
        for found, expected in zip(answer, textbook(ssa, parts, group, 10), strict=True):
            assert close(found, expected, 1e-11 * (1 + expected.abs().max()))


@pytest.mark.parametrize("method", ["recurrent", "vector"])
def test_vertical_groups_have_no_forecast(method):
    with pytest.raises(Vertical, match="name fewer components"):
        SSA.of(noise(60), 10).forecast(5, method=method)


@pytest.mark.parametrize("how", [shift, lambda basis: recurrence([basis])])
def test_nearly_vertical_is_vertical_up_to_the_root_of_rounding(how):
    near = lambda gap: np.sqrt([[gap], [1 - gap]])  # noqa: E731
    assert how(near(1e-3)).shape == how(near(1e-6)).shape == (1, 1)
    with pytest.raises(Vertical):
        how(near(1e-10))


@pytest.mark.parametrize("method", WAYS)
def test_explosive_forecasts_warn(method):
    """Tenfold is e^2.3: a growth of e^0.01 a step may run for 230 steps."""
    ssa = SSA.of(torch.exp(0.01 * T), 50)
    assert close(ssa.forecast(220, [0], method), torch.exp(0.01 * torch.arange(200, 420).double()), 1e-8)
    with pytest.warns(RuntimeWarning, match="grows 1.0101 times a step: a forecast of 240 steps"):
        ssa.forecast(240, [0], method)


# -- long series, by FFT ----------------------------------------------------------------------------


def test_products_by_fft_are_the_matrix_products():
    """O1.11, and the adjoint; for one series and for three of different lengths."""
    for sizes in ([200], [90, 70, 111]):
        x = HankelOperator([noise(n, seed=n).numpy() for n in sizes], 50)
        dense = x.dense()
        v, u = noise(x.shape[1]).numpy(), noise(50).numpy()
        assert close(x @ v, dense @ v, 1e-11) and close(x.T @ u, dense.T @ u, 1e-11)
        assert abs(u @ (x @ v) - (x.T @ u) @ v) < 1e-11


@pytest.mark.parametrize("lengths", [(1500,), (700, 900), (900, 400, 700)])
def test_every_method_finds_the_same_components(lengths):
    """O1.12, on noisy series, where no component is exactly degenerate; each series has waves of its own."""
    series, _ = of_channels(lengths)
    dense, *others = (SSA.of(series, 300, rank=12, method=m) for m in METHODS)
    for ssa in others:
        assert close(ssa.singular_values / dense.singular_values, np.ones(12), 1e-10)
        assert close(ssa.left[:, :4], dense.left[:, :4], 1e-7)
        for found, expected in zip(ssa.reconstruct(), dense.reconstruct(), strict=True):
            assert close(found, expected, 1e-8)


def test_lanczos_gives_the_same_digits_twice():
    first, second = (SSA.of(noise(600), 200, rank=5, method="lanczos") for _ in range(2))
    assert torch.equal(first.left, second.left)


def test_faint_components_are_lost_only_where_it_is_said():
    """Dense keeps a wave of 1e-9 beside one of 1, the others one of 1e-5."""
    for method, amplitude, rank in (
        ("dense", 1e-9, 4),
        *((m, a, r) for m in METHODS[1:] for a, r in ((1e-5, 4), (1e-9, 2))),
    ):
        s = torch.sin(0.3 * T) + amplitude * torch.sin(1.1 * T)
        assert len(SSA.of(s, 60, rank=6, method=method)) == rank, (method, amplitude)


@pytest.mark.parametrize(
    ("size", "window", "found"),
    [(100_000, 100, 100), (6000, 1000, 1000), (5000, 1001, 30), (40, 39, 2)],
)
def test_all_components_are_found_where_the_window_is_short(size, window, found, monkeypatch):
    """Up to a window of 1000, else thirty; the long matrix is never formed."""
    if size == 100_000:
        monkeypatch.setattr(HankelOperator, "dense", None)
    assert len(SSA.of(noise(size), window)) == found


def test_covariance_finds_many_components_without_the_matrix(monkeypatch):
    s = rich(3000) + noise(3000)
    dense = SSA.of(s, 60, rank=50, method="dense")
    monkeypatch.setattr(HankelOperator, "dense", None)
    ssa = SSA.of(s, 60, rank=50, method="covariance")
    assert close(ssa.singular_values / dense.singular_values, np.ones(50), 1e-9)
    assert close(ssa.reconstruct(), dense.reconstruct(), 1e-8)


@pytest.mark.parametrize("size", [100, 300])
def test_components_in_several_buffers(size, monkeypatch):
    """Three a buffer: nothing is lost between them, in the middle of a long series or a short one."""
    ssa = SSA.of(noise(size), 40)
    whole, each = ssa.reconstruct(range(8)), ssa.components(range(8))
    monkeypatch.setattr(hankel, "CHUNK", 3 * size)
    assert close(ssa.reconstruct(range(8)), whole, 1e-13) and close(ssa.components(range(8)), each, 1e-13)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scales_change_nothing(scale):
    s = rich(400) + 0.3 * noise(400)
    for method in METHODS:
        one, other = (SSA.of(v, 60, rank=8, method=method) for v in (s, s * scale))
        assert close(other.singular_values / scale / one.singular_values, np.ones(8), 1e-12)
        assert close(other.w_correlation(), one.w_correlation(), 1e-8)
        for f in (SSA.reconstruct, SSA.residual, SSA.components, SSA.scores, lambda a, g: a.forecast(9, g, "row")):
            assert close(f(other, range(6)) / scale, f(one, range(6)), 1e-8)


@pytest.mark.parametrize("size", [200, 240, 1000])
def test_filtering_a_long_series_is_projecting_its_windows(size):
    """Long series are filtered inside and projected at the ends; both must be the textbook average."""
    s = rich(size) + noise(size)
    ssa = SSA.of(s, 60)
    for group in ([0], [2, 3, 7]):
        u = ssa.left[:, group]
        slow = ms.average(u @ (u.T @ ms.windows(s, 60).T))
        assert close(ssa.reconstruct(group), slow, 1e-12)
        assert close(ssa.components(group).sum(0), slow, 1e-12)


def test_lagged_covariance_is_the_gram_matrix():
    s = noise(400).numpy()
    x = HankelOperator([s], 60).dense()
    assert close(lagged_covariance(s, 60), x @ x.T, 1e-11)


def test_long_series_stay_out_of_memory():
    """The trajectory matrix would take 40 GB; a sine is found in it, and what is asked is what comes."""
    t = torch.arange(100_000, dtype=torch.float64)
    s = torch.sin(2 * math.pi * t / 77) + 0.5 * noise(100_000)
    ssa = SSA.of(s, 50_000, rank=2)
    assert len(ssa) == 2 and abs(ssa.periods()[0].abs() - 77).max() < 1e-3
    assert ((ssa.reconstruct() - torch.sin(2 * math.pi * t / 77)) ** 2).mean() < 1e-4


def test_constant_and_zero_series():
    for method in METHODS:
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
    assert close(ssa.reconstruct(), s[:250], 1e-12)
    assert close(ssa.components().sum(0), s[:250], 1e-11)
    for method in WAYS:
        assert (ssa.forecast(50, method=method) - s[250:]).abs().max() < 1e-11


def test_recordings_of_different_lengths():
    t = torch.arange(300, dtype=torch.float64)
    parts = [torch.sin(0.3 * t), torch.cos(0.3 * t[:170])]
    ssa = SSA.of([p[:-20] for p in parts], 60)
    for method in WAYS:
        for out, part in zip(ssa.forecast(20, method=method), parts, strict=True):
            assert (out - part[-20:]).abs().max() < 1e-11
    assert [len(p) for p in ssa.reconstruct()] == [280, 150]
    assert [p.shape for p in ssa.components()] == [(2, 280), (2, 150)]


def test_an_orthogonal_change_of_channels_changes_nothing():
    """O1.13: singular values stay, and reconstructions turn with the channels. Video goes through PCA by this."""
    s, q = noise(120, 6), torch.linalg.qr(noise(6, 6, seed=1))[0]
    plain, turned = SSA.of(s, 30), SSA.of(s @ q, 30)
    assert close(plain.singular_values, turned.singular_values, 1e-11)
    assert (plain.reconstruct(range(5)) @ q - turned.reconstruct(range(5))).abs().max() < 1e-11


# -- the choice, and the door -----------------------------------------------------------------------


def test_choice_of_rank_and_window():
    t = torch.arange(400, dtype=torch.float64)
    s = torch.sin(2 * math.pi * t / 23) + 0.2 * noise(400)
    choice = select_window(s, [20, 60], [1, 2, 4, 12], horizon=15, start=200, every=15)
    assert choice.rank == 2 and choice.mse.shape == (2, 4)
    assert choice.mse[1, 1] < choice.mse[1, 3] and choice.mse[1, 1] < 0.06


def slow_choice(parts, windows, ranks, spots, horizon, past, method):
    """Mean squared errors and their standard errors, each candidate decomposed for itself."""
    tables = {}
    for window in windows:
        for rank in ranks:
            losses = []
            for i, t in spots:
                ssa = SSA.of(parts[i][:t][-past:], window)
                answer = ssa.forecast(horizon, range(rank), method)
                losses.append(float((answer - parts[i][t : t + horizon]).square().mean()))
            tables[window, rank] = np.mean(losses), np.std(losses, ddof=1) / len(losses) ** 0.5
    return tables


@pytest.mark.filterwarnings("ignore:the group grows")
@pytest.mark.parametrize("method", ["recurrent", "vector"])
@pytest.mark.parametrize("past", [220, 90])
def test_the_choice_is_the_simplest_within_one_standard_error(method, past):
    """Candidates come unsorted. On this series each part of the rule decides: two errors more, none at all, the
    longest window and the window before the rank would all choose otherwise."""
    t = torch.arange(220, dtype=torch.float64)
    s = torch.sin(2 * math.pi * t / 23) + 0.3 * torch.sin(2 * math.pi * t / 9) + 0.5 * noise(220, seed=20)
    windows, ranks = [60, 24, 40], [9, 1, 4, 2, 6]
    choice = select_window(s, windows, ranks, horizon=8, start=120, past=None if past == 220 else past, method=method)
    assert choice.windows == [24, 40, 60] and choice.ranks == [1, 2, 4, 6, 9]
    tables = slow_choice([s], windows, ranks, [(0, o) for o in range(120, 213, 8)], 8, past, method)
    for i, window in enumerate(choice.windows):
        for j, rank in enumerate(choice.ranks):
            assert close([choice.mse[i, j], choice.error[i, j]], tables[window, rank], 1e-9)
    best = min(tables, key=tables.get)
    good = [c for c, (mse, _) in tables.items() if mse <= sum(tables[best])]
    assert (choice.rank, choice.window) == min((r, w) for w, r in good)
    if past == 220 and method == "recurrent":
        assert best == (60, 4) and (choice.window, choice.rank) == (40, 2) and {(24, 4), (60, 2)} < set(good)


def test_the_choice_among_recordings_and_after_silence():
    """Origins of all recordings count; a history of zeros goes on with zeros."""
    parts = [torch.cat([torch.zeros(50), noise(40)]).double(), rich(80) + 0.1 * noise(80)]
    choice = select_window(parts, [10], [2], horizon=5, start=40, every=7)
    spots = [(0, t) for t in range(40, 86, 7)] + [(1, t) for t in range(40, 76, 7)]
    silent = [(i, t) for i, t in spots if i == 0 and t <= 50]
    losses = [float(parts[i][t : t + 5].square().mean()) for i, t in silent]
    for i, t in spots[len(silent) :]:
        answer = SSA.of(parts[i][:t], 10).forecast(5, range(2))
        losses.append(float((answer - parts[i][t : t + 5]).square().mean()))
    assert close(choice.mse, [[np.mean(losses)]], 1e-12)


@pytest.mark.filterwarnings("ignore:the group grows")
def test_candidates_without_a_recurrence_are_out():
    s = torch.sin(0.3 * T[:90]) + 0.1 * noise(90)
    choice = select_window(s, [4, 20], [2, 4], horizon=5, start=60)
    assert torch.isinf(choice.mse).tolist() == [[False, True], [False, False]] and choice.rank == 2
    with pytest.raises(ValueError, match="no recurrence in any of the windows"):
        select_window(s, [4], [4], horizon=5, start=60)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"windows": []}, "windows must hold at least one candidate"),
        ({"ranks": []}, "ranks must hold at least one candidate"),
        ({"windows": [1, 9]}, "windows must be a whole number of at least 2, got 1"),
        ({"ranks": [0, 2]}, "ranks must be a whole number of at least 1, got 0"),
        ({"ranks": [10]}, "at least the largest rank"),
        ({"windows": [9, 60]}, "windows must be below the 60 samples decomposed"),
        ({"past": 9}, "windows must be below the 9 samples decomposed"),
        ({"past": 0}, "past must be a whole number of at least 1, got 0"),
        ({"horizon": 1.5}, "horizon"),
        ({"every": 0}, "every"),
        ({"start": 95}, "start 95 leaves one origin"),
        ({"start": 96}, "no origin"),
        ({"method": "linear"}, "method must be one of"),
        ({"series": noise(100, 2)}, "select the window of one channel"),
    ],
)
def test_bad_choices_are_refused_by_name(change, said):
    options = {"series": noise(100), "windows": [9], "ranks": [2], "horizon": 5, "start": 60} | change
    with pytest.raises(ValueError, match=said):
        select_window(options.pop("series"), **options)


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
        (lambda s: SSA.of(s, 20).forecast(0, [0]), "steps"),
        (lambda s: SSA.of(s, 20).forecast(5, []), "group is empty"),
        (lambda s: SSA.of(s, 20).forecast(5, [0], "linear"), "method must be one of recurrent, vector, row"),
        (lambda s: SSA.of(s, 20).groups(30), "n_groups must be at most the 20"),
    ],
)
def test_bad_input_is_refused_by_name(call, said):
    with pytest.raises(ValueError, match=said):
        call(noise(60))


def test_every_kind_of_numbers_is_taken():
    a = noise(50).numpy()
    plain = SSA.of(a, 10)
    backwards = a[::-1].copy()[::-1]
    frozen = a.copy()
    frozen.flags.writeable = False
    for kind in (
        a.astype(">f8"),
        a.astype(np.longdouble),
        backwards,
        frozen,
        a.tolist(),
        torch.tensor(a).requires_grad_(),
    ):
        ssa = SSA.of(kind, 10)
        assert torch.equal(ssa.reconstruct([0]), plain.reconstruct([0])) and not ssa.left.requires_grad
    assert SSA.of([1, 2, 3, 4, 5, 6, 7, 8], 3).left.dtype == torch.float64
    assert SSA.of(noise(50).float(), 10).reconstruct().dtype == torch.float64


@pytest.mark.parametrize("take", [lambda a: a, lambda a: a[:, 0], lambda a: [a[:, 0], a[:70, 1]]])
def test_what_becomes_of_the_callers_array_is_no_matter(take):
    array = noise(90, 2).numpy()
    ssa = SSA.of(take(array), 20)
    before = [*ssa.residual([0]), *ssa.forecast(5, [0])]
    array[:] = 0
    assert all(torch.equal(a, b) for a, b in zip(before, [*ssa.residual([0]), *ssa.forecast(5, [0])], strict=True))


@pytest.mark.parametrize(
    "group",
    [[1, 2], (1, 2), range(1, 3), slice(1, 3), {1, 2}, torch.tensor([1, 2]), np.array([1, 2]), [np.int64(1), 2],
     (i for i in (1, 2)), [torch.tensor(1), 2]],
    ids="list tuple range slice set tensor array mixed generator tensors".split(),
)  # fmt: skip
def test_groups_are_named_in_many_ways(group):
    ssa = SSA.of(noise(60), 20)
    assert torch.equal(ssa.reconstruct(group), ssa.reconstruct([1, 2]))


@pytest.mark.parametrize("group", [3, np.int64(3), np.array(3), torch.tensor(3)])
def test_one_index_is_a_group(group):
    ssa = SSA.of(noise(60), 20)
    assert torch.equal(ssa.reconstruct(group), ssa.reconstruct([3])) and ssa.components(group).shape == (1, 60)


@pytest.mark.parametrize("group", [[], (), range(0), slice(0), np.array([], int), torch.tensor([], dtype=torch.long)])
def test_the_empty_group_makes_nothing(group):
    ssa = SSA.of(noise(60), 20)
    assert torch.equal(ssa.reconstruct(group), torch.zeros(60).double())
    assert ssa.components(group).shape == (0, 60) and ssa.w_correlation(group).shape == (0, 0)
    with pytest.raises(ValueError, match="group is empty"):
        ssa.forecast(5, group)


@pytest.mark.parametrize(
    "group",
    [1.7, [1.0], "12", True, [True, False], np.arange(20) > 17, torch.arange(20) > 17, [0, 20], [-1], [1, 1], [[0, 1]],
     [0, [1, 2]], ...],
    ids=repr,
)  # fmt: skip
def test_bad_groups_are_refused(group):
    ssa = SSA.of(noise(60), 20)
    for f in (ssa.reconstruct, ssa.components, ssa.w_correlation, ssa.periods):
        with pytest.raises(ValueError, match="group must hold different indices from 0 to 19, got"):
            f(group)


def test_a_motion_far_below_the_level_is_lost_with_a_word():
    t = torch.arange(4000, dtype=torch.float64)
    far = 6.4e6 + 0.005 * torch.sin(2 * math.pi * t / 100)
    with pytest.warns(RuntimeWarning, match="take the mean off"):
        ms.SSA.of(far, 200, rank=5, method="lanczos")
    assert abs(ms.SSA.of(far - far.mean(), 200, rank=5).pairs()[0][2] - 100) < 0.1
