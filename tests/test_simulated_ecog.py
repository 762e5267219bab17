"""The simulated cortex keeps its word about noise, bands and places; recordings are cut where they should be."""

import math
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mspace as ms
from mspace.datasets import Ecog, grip_force, simulated_ecog, trials
from mspace.datasets.ecog_simulated import BETA, GAMMA, pink, rhythm
from mspace.models import HTNet, regions, with_projection

EXCERPT = os.environ.get("MSPACE_DATA")
needs_grips = pytest.mark.skipif(
    not EXCERPT or not Path(EXCERPT, "ecog", "gripforce.npz").is_file(), reason="MSPACE_DATA has no grip force"
)


def simulated(n=1, seed=0, **options):
    return simulated_ecog(n, generator=ms.seeded(seed), **({"n_trials": 120} | options))


def hand(one):
    """The movement in each trial, (n, S)."""
    return one.ecog.movement.reshape(len(one.trials), -1)


def power(x, rate, band):
    """Mean power of x (..., T) within a band of frequencies."""
    f = torch.fft.rfftfreq(x.shape[-1], 1 / rate)
    return torch.fft.rfft(x).abs().square()[..., (f >= band[0]) & (f <= band[1])].mean(-1)


# noise


@pytest.mark.parametrize("length", [20000, 20001])
def test_power_of_pink_noise_falls_as_one_over_the_frequency(length):
    x, rate = pink(20, length, generator=ms.seeded(0)), 200.0
    edges = torch.logspace(0.1, math.log10(90), 12)
    levels = torch.stack([power(x, rate, (a, b)).mean() for a, b in pairwise(edges)])
    middle = (edges[:-1] * edges[1:]).sqrt().log().double()
    slope = ((middle - middle.mean()) * levels.log()).sum() / (middle - middle.mean()).square().sum()
    assert slope == pytest.approx(-1, abs=0.05)
    assert x.std() == pytest.approx(1, abs=0.03)
    below = power(x, rate, (0.1, 0.5)).mean() / power(x, rate, (0.5, 1.0)).mean()
    assert below == pytest.approx(1, abs=0.15)  # flat under the corner


@pytest.mark.parametrize("length", [4000, 4001])
def test_a_rhythm_stays_in_its_band(length):
    x = rhythm(10, length, BETA, generator=ms.seeded(0))
    assert power(x, 200.0, (0, 14.9)).max() < 1e-20 and power(x, 200.0, (25.1, 100)).max() < 1e-20
    assert x.std() == pytest.approx(1, abs=0.03)


# the cortex


def test_shapes_and_the_trials_of_the_recording():
    one = simulated(n_trials=11, n_samples=200, n_electrodes=(9, 9))[0]
    assert one.ecog.signal.shape == (2200, 9) and one.ecog.movement.shape == (2200, 1) and one.ecog.rate == 200
    assert one.trials.inputs.shape == (11, 1, 9, 200) and len(one.ecog.movement) == 11 * 200
    assert one.positions.shape == (9, 2) and one.centres.shape == (12, 2) and one.mixing.shape == (9, 12)
    for i, start in enumerate(one.trials.starts):
        piece = slice(int(start), int(start) + 200)
        assert torch.equal(one.trials.inputs[i, 0].T, one.ecog.signal[piece])


def test_labels_are_balanced_and_tell_whether_the_hand_moves():
    one = simulated(n_trials=101)[0]
    assert one.trials.targets.sum() == 50
    assert one.trials.targets.diff().abs().sum() > 20  # not in two halves
    peaks = hand(one).amax(1)
    assert (peaks[one.trials.targets == 0] == 0).all()
    assert ((peaks > 0.55) & (peaks < 1.41))[one.trials.targets == 1].all()


def test_the_hand_is_smooth_and_at_rest_between_trials():
    one = simulated()[0]
    assert one.ecog.movement[:, 0].diff().abs().max() < 1.4 * math.pi / (0.4 * 256) * 1.05
    assert hand(one)[:, 0].abs().max() == 0 and hand(one)[:, -1].abs().max() < 1e-3


def test_bands_follow_the_hand_at_informative_electrodes_alone():
    one = simulated(n_trials=400)[0]
    x, y = one.trials.inputs[:, 0], one.trials.targets
    for band, ways in ((BETA, 1), (GAMMA, -1)):
        levels = power(x, 200.0, band)
        change = ways * (levels[y == 0].mean(0) / levels[y == 1].mean(0)).log()
        assert change[one.informative].min() > 0.15, band
        assert change[~one.informative].abs().max() < change[one.informative].min(), band
    still = simulated(n_trials=400, fall=0, rise=0)[0]
    levels = power(still.trials.inputs[:, 0], 200.0, GAMMA)
    assert (levels[y == 0].mean(0) / levels[y == 1].mean(0)).log().abs().max() < 0.1


def test_the_cortex_is_ahead_of_the_hand():
    one = simulated(n_trials=400, noise=0.0, fall=0.0, rise=3.0)[0]
    x = one.ecog.signal[:, one.informative][:, 0]
    spectrum, f = torch.fft.rfft(x), torch.fft.rfftfreq(len(x), 1 / 200.0)
    gamma = torch.fft.irfft(spectrum * ((f > GAMMA[0]) & (f < GAMMA[1])), len(x)).square()
    gamma = F.avg_pool1d(gamma.reshape(1, 1, -1), 21, 1, 10).flatten()
    gamma, moved = gamma - gamma.mean(), one.ecog.movement[:, 0] - one.ecog.movement.mean()
    lags = {lag: float((gamma[100 - lag : -100 - lag] * moved[100:-100]).mean()) for lag in range(-60, 61, 2)}
    assert max(lags, key=lags.get) == pytest.approx(20, abs=6)  # a tenth of a second


def test_truth_of_the_places():
    for one in simulated(8, n_electrodes=(4, 30), n_trials=4):
        assert one.active.nonzero().flatten().tolist() == [5, 6]
        assert torch.allclose(one.mixing.square().sum(1), torch.ones(len(one.mixing), dtype=torch.float64))
        nearest = torch.cdist(one.positions, one.centres).argmin(1)
        assert torch.equal(one.mixing.argmax(1), nearest)
        assert one.informative.any()
        assert torch.equal(one.informative, one.active[nearest])
        assert torch.equal(one.centres, simulated()[0].centres)
    first = [bool(one.informative[:2].all()) for one in simulated(8, n_trials=2)]
    assert not any(first)  # the number of an electrode tells nothing
    sizes = {len(one.positions) for one in simulated(8, n_electrodes=(4, 30), n_trials=2)}
    assert len(sizes) > 4 and min(sizes) >= 4 and max(sizes) <= 30


def test_all_regions_have_electrodes_by_default_and_some_have_none_when_they_are_few():
    for one in simulated(5, n_trials=2):
        p = regions(one.positions, one.centres, width=0.5)
        assert torch.equal((p @ one.mixing).argmax(1), torch.arange(12))
    few = simulated(n_electrodes=5, n_trials=2)[0]
    with pytest.raises(ValueError, match="have no electrode within"):
        regions(few.positions, few.centres, width=0.2)


def test_subjects_differ_and_do_not_depend_on_how_many_follow():
    few, many = simulated(2, seed=3, n_trials=4), simulated(4, seed=3, n_trials=4)
    for a, b in zip(few, many):
        assert torch.equal(a.ecog.signal, b.ecog.signal) and torch.equal(a.positions, b.positions)
        assert torch.equal(a.trials.targets, b.trials.targets)
    assert not torch.equal(many[0].ecog.movement, many[1].ecog.movement)
    assert not torch.equal(few[0].ecog.movement, simulated(seed=4, n_trials=4)[0].ecog.movement)


def test_a_network_reads_it_across_subjects():
    """Trained on two, asked of a third with other electrodes; the null case stays at chance."""
    scores = {}
    for effect in (1.0, 0.0):
        people = simulated(3, seed=1, n_trials=160, fall=0.8 * effect, rise=2.0 * effect, noise=0.2, n_samples=128)
        most = max(len(one.positions) for one in people)
        packed = [
            with_projection(one.trials.inputs.float(), regions(one.positions, one.centres, width=0.5), most)
            for one in people
        ]
        x, y = torch.cat(packed[:2]), torch.cat([one.trials.targets for one in people[:2]])
        net = HTNet(12, 128, 2, n_filters=4, temporal=24, dropout=0.0, generator=ms.seeded(0))
        rate = {"optimizer": lambda p: torch.optim.Adam(p, lr=3e-3), "epochs": 12 if effect else 3}
        net = ms.fit(net, (x, y), F.cross_entropy, generator=ms.seeded(2), **rate).eval()
        with torch.no_grad():
            scores[effect] = (net(packed[2]).argmax(1) == people[2].trials.targets).double().mean()
    assert scores[1.0] > 0.85 and 0.34 < scores[0.0] < 0.66


@pytest.mark.parametrize(
    "options, words",
    [
        ({"n_subjects": 0}, "n_subjects must be"),
        ({"n_trials": 1}, "n_trials must be"),
        ({"n_samples": 90}, "n_samples must be a whole number of at least 100, got 90"),
        ({"n_electrodes": 1}, "n_electrodes must be a whole number of at least 2"),
        ({"n_electrodes": (8, 6)}, "n_electrodes must be a whole number of at least 8"),
        ({"n_electrodes": (8, 9, 10)}, "n_electrodes must be a whole number"),
        ({"fall": -1}, "fall must be"),
        ({"noise": math.nan}, "noise must be"),
    ],
    ids=str,
)
def test_bad_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        simulated_ecog(**options)


# cutting


def staircase():
    """Ten samples a second for 10 s; the movement rises in the seconds 2, 5 and 8."""
    time = torch.arange(100, dtype=torch.float64)
    up = ((time // 10) % 3 == 2).double()
    return Ecog(torch.stack([time, -time], 1), up[:, None], 10.0)


def test_trials_are_the_pieces_they_say():
    cut = trials(staircase(), 1.0, every=0.5, threshold=0.5)
    assert cut.inputs.shape == (len(cut), 1, 2, 10) and set(cut.starts.tolist()) <= set(range(0, 95, 5))
    for start, x in zip(cut.starts, cut.inputs):
        assert torch.equal(x[0, 0], torch.arange(10.0, dtype=torch.float64) + start)
        assert torch.equal(x[0, 1], -x[0, 0])


def test_labels_by_threshold_leave_out_what_is_between():
    cut = trials(staircase(), 1.0, threshold=0.5)
    assert cut.starts.tolist() == list(range(0, 100, 10))
    assert cut.targets.tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    often = trials(staircase(), 1.0, every=0.1, threshold=0.5)
    moves = often.starts[often.targets == 1].tolist()
    assert moves[:11] == list(range(15, 26))  # half of it or more
    rests = often.starts[often.targets == 0].tolist()
    assert not set(rests) & set(range(11, 30)) and 10 in rests and 30 in rests


def test_parts_share_no_sample_and_keep_the_order_of_time():
    cut = trials(staircase(), 1.0, every=0.3, threshold=0.5)
    first, second, third = cut.split(0.5, 0.3, 0.2)
    for before, after in ((first, second), (second, third)):
        assert before.starts[-1] + 10 <= after.starts[0]
    assert len(first) > len(second) > len(third) > 0
    assert torch.equal(first.inputs, cut.inputs[: len(first)])
    assert first.starts[-1] + 10 <= 50 and len(first) + len(second) + len(third) < len(cut)


def test_parts_hold_every_trial_that_fits():
    cut = trials(staircase(), 1.0, every=0.1, threshold=0.5)
    first, second = cut.split(0.5, 0.5)
    assert torch.equal(first.starts, cut.starts[cut.starts <= 40])
    assert torch.equal(second.starts, cut.starts[cut.starts >= 50])


@needs_grips
def test_the_grip_force_recording_runs_through():
    """Nineteen seconds: that it runs, not what it scores."""
    ecog = grip_force()
    calm = Ecog(F.avg_pool1d(ecog.signal.T, 4).T, F.avg_pool1d(ecog.movement.T, 4).T, 250.0, ecog.names)
    middle = float(calm.movement.min() + calm.movement.max()) / 2
    labelled = trials(calm, 0.5, every=0.1, threshold=middle)
    assert labelled.inputs.shape[1:] == (1, 9, 125) and labelled.targets.unique().tolist() == [0, 1]
    train, test = labelled.split(0.7, 0.3)
    scale = train.inputs.std((0, 3), keepdim=True)
    net = HTNet(9, 125, 1, n_filters=2, temporal=16, max_norm=(1.0, None), generator=ms.seeded(0)).double()
    data = train.inputs / scale, train.targets[:, None].double()
    net = ms.fit(net, data, F.mse_loss, epochs=2, generator=ms.seeded(1)).eval()
    assert torch.isfinite(net(test.inputs / scale)).all()
    classifier = HTNet(9, 125, 2, n_filters=2, temporal=16, generator=ms.seeded(0)).double()
    ms.fit(classifier, (labelled.inputs, labelled.targets), F.cross_entropy, epochs=1, generator=ms.seeded(1))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"rate": None}, "rate must be a positive number, got None"),
        ({"rate": 0}, "rate must be a positive number"),
        ({"rate": math.nan}, "rate must be a positive number"),
        ({"signal": torch.full((30, 2), math.nan)}, "signal has 30 non-finite rows"),
        ({"movement": torch.zeros(20, 1)}, r"movement must be \(30, 1\), .*got \(20, 1\)"),
        ({"movement": torch.zeros(30, 2)}, r"movement must be \(30, 1\), .*got \(30, 2\)"),
    ],
    ids=str,
)
def test_bad_recordings_are_named(change, words):
    good = Ecog(torch.zeros(30, 2), torch.zeros(30, 1), 10.0)
    with pytest.raises(ValueError, match=words):
        trials(good._replace(**change), 1.0, threshold=0.0)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seconds": 11.0}, "seconds, in samples, must be a whole number from 1 to 100, got 110"),
        ({"seconds": 0.01}, "seconds, in samples, must be"),
        ({"seconds": math.nan}, "seconds must be"),
        ({"every": 0}, "every must be"),
        ({"threshold": 2.0}, "threshold must be"),
        ({"threshold": "half"}, "threshold must be"),
        ({"threshold": 0.5, "seconds": 2.5}, "threshold 0.5 leaves no trial of a move"),
        ({"threshold": 0.0, "seconds": 3.5}, "leaves no trial of"),
        ({"threshold": 0.5, "seconds": 9.0}, "threshold 0.5 leaves no trial"),
    ],
    ids=str,
)
def test_bad_cuts_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        trials(staircase(), **({"seconds": 1.0, "threshold": 0.5} | options))


@pytest.mark.parametrize("length", [6, 8])
def test_an_ecog_has_its_time_first_however_short(length):
    short = Ecog(torch.arange(length * 8.0).reshape(length, 8), torch.arange(length * 1.0)[:, None], 1.0)
    cut = trials(short, 2.0, threshold=1.0)
    assert cut.inputs.shape == (length // 2, 1, 8, 2) and torch.equal(cut.inputs[0, 0], short.signal[:2].T)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert simulated_ecog(n_electrodes=np.int64(12), n_trials=2)[0].ecog.signal.shape[1] == 12


def test_a_part_without_a_trial_is_named():
    with pytest.raises(ValueError, match="leave no trial in part 1"):
        trials(staircase(), 1.0, threshold=0.5).split(0.95, 0.05)
