"""Oracles O10.1 to O10.6 of EEGNet and HTNet, their projections to regions, and what they refuse."""

import copy
import math
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import nn

import mspace as ms
from mspace.models import EEGNet, HTNet, regions, with_projection
from mspace.models.eegnet import _Conv2d, _same, analytic

SMALL = {"n_filters": 3, "depth": 2, "temporal": 8, "separable": 4, "dropout": 0.0}


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=dtype)


def small(cls=HTNet, channels=5, samples=64, n_out=2, seed=1, **options):
    return cls(channels, samples, n_out, generator=ms.seeded(seed), **(SMALL | options)).double()


def shares(rows, columns, seed=0):
    """A projection whose rows sum to one."""
    return torch.rand(rows, columns, generator=ms.seeded(seed), dtype=torch.float64).softmax(1)


# O10.1 the analytic signal


@pytest.mark.parametrize("n", [2, 3, 64, 65, 501])
def test_analytic_signal_is_that_of_scipy(n):
    x = noise(3, 2, n)
    assert np.abs(analytic(x).numpy() - scipy.signal.hilbert(x.numpy())).max() < 1e-13


@pytest.mark.parametrize("n", [128, 129])
def test_envelope_of_a_whole_number_of_cycles_is_its_amplitude(n):
    wave = 2.5 * torch.cos(2 * math.pi * 9 * torch.arange(n, dtype=torch.float64) / n + 0.3)
    assert (analytic(wave).abs() - 2.5).abs().max() < 1e-12


def test_silence_has_a_finite_gradient():
    x = torch.zeros(2, 32, dtype=torch.float64, requires_grad=True)
    analytic(x).abs().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_gradients_of_envelopes():
    assert torch.autograd.gradcheck(lambda x: analytic(x).abs(), noise(2, 9).requires_grad_())


# O10.2 shapes and counts


def test_numbers_of_parameters_are_those_of_the_papers_tables():
    assert sum(p.numel() for p in HTNet(64, 501, 2).parameters()) == 2610
    assert sum(p.numel() for p in EEGNet(64, 128, 4).parameters()) == 2388


@pytest.mark.parametrize("cls", [EEGNet, HTNet])
@pytest.mark.parametrize("f1, d, f2", [(8, 2, None), (3, 1, 5)])
def test_shapes_of_layers_and_groups_of_neurons(cls, f1, d, f2):
    c, t, k1, k2, n_out = 6, 101, 20, 7, 3
    net = cls(c, t, n_out, n_filters=f1, depth=d, n_pointwise=f2, temporal=k1, separable=k2)
    f2, left = f2 or f1 * d, t // 4 // 8
    seen = {}
    for name in ("temporal", "spatial", "separable", "pointwise", "dense"):
        net.get_submodule(name).register_forward_hook(lambda m, i, o, n=name: seen.update({n: tuple(o.shape)}))
    assert net(noise(4, 1, c, t, dtype=torch.float32)).shape == (4, n_out)
    assert seen == {
        "temporal": (4, f1, c, t),
        "spatial": (4, f1 * d, 1, t),
        "separable": (4, f1 * d, 1, t // 4),
        "pointwise": (4, f2, 1, t // 4),
        "dense": (4, n_out),
    }
    groups = {name: tuple(ms.weight_of(net, layer).shape) for name, layer in net.neurons.items()}
    assert groups == {
        "temporal": (f1, k1),
        "spatial": (f1 * d, c),
        "separable": (f1 * d, k2),
        "pointwise": (f2, f1 * d),
        "dense": (n_out, f2 * left),
    }
    count = f1 * k1 + f1 * d * (c + k2 + f2) + 2 * (f1 + f1 * d + f2) + n_out * (f2 * left + 1)
    assert sum(p.numel() for p in net.parameters()) == count


def test_start_is_glorots_and_belongs_to_the_generator():
    before = torch.random.get_rng_state()
    net, again, other = (EEGNet(40, 128, 4, generator=ms.seeded(s)) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(net.temporal.weight, again.temporal.weight)
    assert not torch.equal(net.temporal.weight, other.temporal.weight)
    # Keras counts (inputs + outputs of a group) times the kernel
    limits = {"temporal": 6 / (64 * 9), "spatial": 6 / (40 * 10), "separable": 6 / (16 * 17), "dense": 6 / (64 + 4)}
    for name, limit in limits.items():
        weight = net.get_submodule(name).weight.abs().max()
        assert 0.9 * math.sqrt(limit) < weight <= math.sqrt(limit), name
    assert net.norm1.eps == 1e-3 and net.norm1.momentum == 0.01


# O10.4 padding


@pytest.mark.parametrize("k", [1, 4, 5, 64])
def test_impulse_response_of_a_same_kernel(k):
    conv = _Conv2d(1, 1, (1, k))
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, k + 1).reshape(1, 1, 1, k))
    impulse = torch.zeros(1, 1, 1, 201)
    impulse[..., 100] = 1
    response = conv(_same(impulse, k)).detach().flatten()
    assert len(response) == 201
    where = response.nonzero().flatten()
    assert where.tolist() == list(range(100 - (k - 1) + (k - 1) // 2, 100 + (k - 1) // 2 + 1))
    assert response[where].tolist() == list(range(k, 0, -1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that even kernels cost it a copy
        theirs = F.conv1d(impulse[0], conv.weight[0], padding="same")
    assert torch.equal(theirs.flatten(), response)


# O10.6 projections


def test_identity_projection_is_none():
    net, x = small().eval(), noise(7, 1, 5, 64)
    eye = torch.eye(5, dtype=torch.float64)
    for other in (net(x, eye), net(with_projection(x, eye))):
        assert torch.allclose(net(x), other, atol=1e-14)


def test_projection_stands_between_envelopes_and_normalisation():
    net, x, p = small(channels=3).eval(), noise(4, 1, 5, 64), shares(3, 5)
    outputs = net(x, p)
    h = analytic(net.temporal(_same(x, 8))).abs()
    h = torch.einsum("rc,bfct->bfrt", p, h)
    h = F.avg_pool2d(F.elu(net.norm2(net.spatial(net.norm1(h)))), (1, 4))
    h = F.avg_pool2d(F.elu(net.norm3(net.pointwise(net.separable(_same(h, 4))))), (1, 8))
    assert torch.allclose(outputs, net.dense(h.flatten(1)), atol=1e-14)
    early = small(channels=3).eval()(torch.einsum("rc,bict->birt", p, x))
    assert (outputs - early).abs().max() > 1e-3  # envelopes of sums are no sums of envelopes


def test_trials_of_two_subjects_go_together():
    net, one, two = small(channels=3).eval(), noise(4, 1, 5, 64), noise(6, 1, 7, 64, seed=2)
    p, q = shares(3, 5), shares(3, 7, seed=3)
    both = torch.cat([with_projection(one, p, 7), with_projection(two, q)])
    assert both.shape == (10, 1, 7, 67)
    assert torch.allclose(net(both), torch.cat([net(one, p), net(two, q)]), atol=1e-14)
    each = torch.stack([p] * 4)
    assert torch.allclose(net(one, each), net(one, p), atol=1e-14)


def test_filters_in_space_as_weights_of_electrodes():
    net, p = small(channels=3), shares(3, 5)
    filters = ms.weight_of(net, "spatial")
    assert torch.allclose(net.electrode_weights(p), filters @ p)


def test_regions_are_averages_of_electrodes_nearby():
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0], [5.0, 1.0]])
    centers = torch.tensor([[0.5, 0.0], [5.0, 0.2]])
    p = regions(positions, centers, width=1.0)
    w = math.exp(-0.04 / 2), math.exp(-0.64 / 2)
    assert torch.allclose(p[0].float(), torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert p[1, 2:].tolist() == pytest.approx([w[0] / sum(w), w[1] / sum(w)], abs=1e-6)
    assert torch.allclose(p.sum(1), torch.ones(2, dtype=torch.float64))


def test_missing_electrodes_leave_their_share_to_the_others():
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    centers = torch.zeros(1, 2)
    whole = regions(positions, centers, width=1.0)
    positions[1] = math.nan
    p = regions(positions, centers, width=1.0)
    assert p[0, 1] == 0 and torch.allclose(p[0, [0, 2]], whole[0, [0, 2]] / whole[0, [0, 2]].sum())
    net = small(channels=1)
    x = noise(3, 1, 3, 64)
    broken = x.clone()
    broken[:, :, 1] = 1e3
    assert torch.allclose(net.eval()(x, p), net(broken, p), atol=1e-12)


def test_a_region_without_electrodes_is_named_or_zero():
    positions, centers = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.1, 0.0], [9.0, 9.0]])
    with pytest.raises(ValueError, match=r"centers \[1\] have no electrode within 3 widths of 1"):
        regions(positions, centers, width=1.0)
    p = regions(positions, centers, width=1.0, empty="zero")
    assert p.tolist() == [[1.0], [0.0]]
    assert torch.isfinite(small(channels=2).eval()(noise(2, 1, 1, 64), p)).all()


# training


@pytest.fixture(scope="module")
def planted():
    """Pink noise at twelve electrodes, and at two of them a 40 Hz wave of random phase, weak or strong."""
    n, rate, t = 400, 250.0, 256
    white = torch.fft.rfft(noise(n, 12, t, seed=3))
    pink = torch.fft.irfft(white / torch.arange(1.0, white.shape[2] + 1).sqrt(), t)
    pink = pink / pink.std()
    y = torch.arange(n) % 2
    phase = 2 * math.pi * torch.rand(n, 2, 1, generator=ms.seeded(4), dtype=torch.float64)
    time = torch.arange(t, dtype=torch.float64) / rate
    wave = torch.cos(2 * math.pi * 40 * time + phase) * torch.tensor([0.3, 1.2])[y][:, None, None]
    pink[:, [2, 7]] += wave
    return pink.unsqueeze(1).float(), y


def accuracy(net, x, y):
    with torch.no_grad():
        return float((net.eval()(x).argmax(1) == y).double().mean())


@pytest.fixture(scope="module")
def trained(planted):
    x, y = planted
    net = HTNet(12, 256, 2, generator=ms.seeded(0))
    return ms.fit(net, (x[:300], y[:300]), F.cross_entropy, epochs=12, generator=ms.seeded(1))


def test_planted_oscillation_is_found_and_shuffled_labels_are_not(planted, trained):
    """O10.5."""
    x, y = planted
    assert accuracy(trained, x[300:], y[300:]) >= 0.95
    shuffled = y[:300][torch.randperm(300, generator=ms.seeded(5))]
    net = HTNet(12, 256, 2, generator=ms.seeded(0))
    net = ms.fit(net, (x[:300], shuffled), F.cross_entropy, epochs=4, generator=ms.seeded(1))
    assert 0.3 < accuracy(net, x[300:], y[300:]) < 0.7  # 100 trials: 0.5 +- 4 * 0.05


def test_filters_in_space_point_at_the_electrodes(trained):
    power = ms.weight_of(trained, "spatial").square().sum(0)
    assert set(power.topk(2).indices.tolist()) == {2, 7}


def test_constraints_hold_after_50_steps():
    """O10.3, at a rate that would leave the bounds at once."""
    x, y = noise(80, 1, 5, 64), torch.arange(80) % 2
    fast = partial(torch.optim.Adam, lr=0.1)
    options = {"epochs": 10, "batch_size": 16, "optimizer": fast, "generator": ms.seeded(0)}
    net = ms.fit(small(), (x, y), F.cross_entropy, **options)
    norms = ms.weight_of(net, "spatial").norm(dim=1), ms.weight_of(net, "dense").norm(dim=1)
    assert norms[0].max() <= 1 + 1e-12 and norms[1].max() <= 0.25 + 1e-12
    assert norms[0].max() > 0.99 and norms[1].max() > 0.2499  # they do hold it
    free = ms.fit(small(max_norm=(None, 3.0)), (x, y), F.cross_entropy, **options)
    assert ms.weight_of(free, "spatial").norm(dim=1).max() > 1.1
    assert ms.weight_of(free, "dense").norm(dim=1).max() <= 3 + 1e-12


def test_bounds_touch_only_what_is_too_long():
    net = small()
    with torch.no_grad():
        net.spatial.weight[0].mul_(100)
    before = copy.deepcopy(net)
    net.keep_bounds()
    w, was = ms.weight_of(net, "spatial"), ms.weight_of(before, "spatial")
    assert torch.allclose(w[0], was[0] / was[0].norm()) and torch.equal(w[1:], was[1:])
    assert torch.equal(ms.weight_of(net, "temporal"), ms.weight_of(before, "temporal"))


def longest(net):
    return [float(ms.weight_of(net, name).norm(dim=1).max()) for name in ("spatial", "dense")]


@pytest.mark.parametrize("estimate", ["online", "variational"])
def test_posteriors_hold_the_bounds(estimate):
    """The gradient wants long weights: without bounds they grow, with them the mean stays inside."""
    x = noise(40, 1, 5, 64)
    y = (x[:, 0, 0, 8:].mean(1) > 0).long()
    adam = partial(torch.optim.Adam, lr=0.05)
    own = {"structure": "diagonal"}
    calls = {
        "online": {
            "steps": 1000,
            "rate": 0.5,
            "batch_size": 8,
            "layers": "dense",
            "method": "online_batch_means",
            **own,
        },
        "variational": {"family": "diagonal", "epochs": 40, "batch_size": None, "optimizer": adam},
    }
    run = partial(getattr(ms, estimate), loss=F.cross_entropy, **calls[estimate])
    bound, free = (small(max_norm=m).eval_mode(x) for m in ((0.5, 0.1), None))
    spatial, dense = longest(run(bound, (x, y), generator=ms.seeded(1)).model())
    assert spatial <= 0.5 + 1e-9 and dense <= 0.1 + 1e-9
    assert longest(run(free, (x, y), generator=ms.seeded(1)).model())[1] > 0.2


def test_a_frozen_layer_needs_no_bounds():
    x, y, net = noise(24, 1, 5, 64), torch.arange(24) % 2, small()
    net.dense.weight.requires_grad_(False)
    found = ms.fit(net, (x, y), F.cross_entropy, epochs=2, generator=ms.seeded(1))
    assert torch.equal(found.dense.weight, net.dense.weight) and longest(found)[0] <= 1 + 1e-9


def test_training_is_that_of_a_plain_loop():
    """Adam, batch statistics, Keras' projection after each step."""
    x, y = noise(48, 1, 5, 64), torch.arange(48) % 2
    start = small()
    found = ms.fit(start, (x, y), F.cross_entropy, epochs=3, generator=ms.seeded(4), batch_size=48)
    net = copy.deepcopy(start).train()
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        net.keep_bounds()
    for name, value in net.state_dict().items():
        assert torch.allclose(found.state_dict()[name], value, atol=1e-9), name
    assert not torch.allclose(net.norm1.running_mean, start.norm1.running_mean)
    assert start.norm1.num_batches_tracked == 0


@pytest.mark.parametrize("dropout", [0.0, 0.4], ids=["batched", "looped"])
def test_members_train_as_if_alone(dropout):
    x, y = noise(40, 1, 5, 64), torch.arange(40) % 2
    net = small(dropout=dropout)
    three, two = (ms.train_ensemble(net, (x, y), F.cross_entropy, n, epochs=2, generator=ms.seeded(3)) for n in (3, 2))
    for i in range(2):
        for name, value in two[i].state_dict().items():
            assert torch.allclose(three[i].state_dict()[name], value, atol=1e-10), name
    means = [three[i].norm1.running_mean for i in range(3)]
    assert not torch.allclose(means[0], means[1])  # each has gathered its own
    assert torch.allclose(three(x)[1], three[1].eval()(x), atol=1e-12)


def test_validation_keeps_the_statistics_of_the_best_epoch():
    x, y = noise(40, 1, 5, 64), torch.arange(40) % 2
    held = noise(30, 1, 5, 64, seed=9), torch.arange(30) % 2
    options = {"generator": ms.seeded(3), "optimizer": partial(torch.optim.Adam, lr=0.01)}
    best = ms.train_ensemble(small(), (x, y), F.cross_entropy, 2, epochs=8, validation=held, **options)
    assert (best.report["epochs"] < 8).any()
    for i, net in enumerate(best):
        steps = 3 * int(best.report["epochs"][i])
        assert net.norm1.num_batches_tracked == steps
        with torch.no_grad():
            loss = F.cross_entropy(net.eval()(held[0]), held[1])
        assert float(loss) == pytest.approx(float(best.report["validation"][i]), abs=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_bootstrap_gives_the_distribution_of_every_group(training):
    x, y = noise(40, 1, 5, 64), torch.arange(40) % 2
    net = ms.fit(small(), (x, y), F.cross_entropy, epochs=1, generator=ms.seeded(0)).train(training)
    ensemble = ms.bootstrap(net, (x, y), F.cross_entropy, n_models=4, epochs=1, generator=ms.seeded(1))
    for layer in net.neurons.values():
        neurons = ensemble.neurons(layer)
        assert neurons.mean.shape == ms.weight_of(net, layer).shape
        assert (neurons.cov.diagonal(dim1=1, dim2=2).sum(1) > 0).all()
    kept = all(torch.equal(member.norm1.running_mean, net.norm1.running_mean) for member in ensemble)
    assert kept != training  # in evaluation mode the statistics stay


@pytest.mark.parametrize("cls", [EEGNet, HTNet])
def test_eval_mode_normalises_by_the_trials_given(cls):
    net, x = small(cls, dropout=0.5), noise(100, 1, 5, 64)
    before = copy.deepcopy(net.state_dict())
    still = net.eval_mode(x)
    assert not any(m.training for m in still.modules()) and net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    steady = small(cls).train()  # without dropout: the outputs of a whole batch, but for an unbiased variance
    assert torch.allclose(still(x), steady(x), atol=1e-3)
    assert not torch.allclose(net.eval()(x), steady(x), atol=1e-2)
    assert torch.allclose(still(x[:3]), still(x)[:3], atol=1e-12)
    assert still.norm1.momentum == 0.01


def test_posteriors_of_a_network_in_evaluation_mode():
    x, y = noise(60, 1, 5, 64), torch.arange(60) % 2
    net = ms.fit(small(), (x, y), F.cross_entropy, epochs=1, generator=ms.seeded(0))
    ms.variational(net, (x, y), F.cross_entropy, layers="spatial", family="diagonal", epochs=1)
    for estimate in (ms.laplace, ms.sandwich):
        posterior = estimate(net.eval(), (x, y), F.cross_entropy, layers=["spatial", "dense"])
        assert posterior.neurons("spatial").mean.shape == (6, 5)


def test_a_trace_is_regressed():
    """Two numbers read off an envelope at one electrode, against their variance."""
    n = 240
    size = torch.rand(n, generator=ms.seeded(2), dtype=torch.float64)
    x = 0.3 * noise(n, 1, 4, 64)
    x[:, 0, 1] += size[:, None] * torch.cos(1.3 * torch.arange(64.0) + 6 * torch.rand(n, 1, generator=ms.seeded(3)))
    y = torch.stack([size, -size], 1)
    net = small(channels=4, n_out=2, max_norm=(1.0, None))
    net = ms.fit(net, (x[:200], y[:200]), F.mse_loss, epochs=40, generator=ms.seeded(1)).eval()
    with torch.no_grad():
        error = (net(x[200:]) - y[200:]).square().mean()
    assert error < 0.4 * y[200:].var(0).mean()


def test_outputs_in_pieces_are_the_same():
    net, x = small().eval(), noise(150, 1, 5, 64)
    with torch.no_grad():
        pieces = net(with_projection(x, torch.eye(5, dtype=torch.float64)))
    assert torch.allclose(pieces, net(x), atol=1e-13)


def test_a_copy_by_pickle():
    net, x = small(channels=3).eval(), noise(2, 1, 3, 64)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))


# bad input


@pytest.mark.parametrize(
    "options, words",
    [
        ({"n_channels": 0}, "n_channels must be a whole number of at least 1"),
        ({"n_samples": 31}, "n_samples must be a whole number of at least 32, got 31"),
        ({"n_out": 2.5}, "n_out must be"),
        ({"temporal": 65}, "temporal must be a whole number from 1 to 64, got 65"),
        ({"separable": 0}, "separable must be"),
        ({"n_pointwise": 0}, "n_pointwise must be"),
        ({"dropout": 1.0}, r"dropout must be .* \[0, 1\)"),
        ({"max_norm": 1.0}, "max_norm must be a pair"),
        ({"max_norm": (1.0, -1.0)}, "max_norm.* must be a positive number"),
    ],
    ids=str,
)
def test_bad_options_are_named(options, words):
    good = {"n_channels": 5, "n_samples": 64, "n_out": 2} | SMALL
    with pytest.raises(ValueError, match=words):
        HTNet(**(good | options))


@pytest.mark.parametrize(
    "x, words",
    [
        (noise(2, 1, 5, 64).float(), "x must be float32 or float64, as the model is"),
        (noise(2, 1, 5, 64).long(), "got torch.int64: convert"),
        (torch.complex(noise(2, 1, 5, 64), noise(2, 1, 5, 64)), "complex"),
        (noise(2, 5, 64), r"unsqueeze\(1\) adds the axis"),
        (noise(2, 2, 5, 64), r"trials \(B, 1, channels, time\)"),
        (noise(0, 1, 5, 64), r"trials \(B, 1, channels, time\)"),
        (noise(2, 1, 4, 64), r"x must be \(B, 1, 5, 64\)"),  # an electrode is missing in this subject
        (noise(2, 1, 5, 60), r"x must be \(B, 1, 5, 64\)"),  # too short a trial
        (noise(2, 1, 5, 64) * math.nan, "x must be finite"),
    ],
)
@pytest.mark.parametrize("cls", [EEGNet, HTNet])
def test_bad_trials_are_named(cls, x, words):
    with pytest.raises(ValueError, match=words):
        small(cls)(x)


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match="float32 or float64"):
        small().half()(noise(2, 1, 5, 64).half())


@pytest.mark.parametrize(
    "projection, words",
    [
        (torch.ones(3, 4) / 4, r"projection must be \(R, 5\)"),
        (torch.ones(2, 3, 5) / 5, r"or \(4, R, 5\)"),
        (torch.full((3, 5), math.nan), "finite: set the weights of missing electrodes to zero"),
        (torch.ones(3, 5), "rows that sum to one"),
        (torch.tensor([[0.0], [0.2], [0.3]]).expand(3, 5), "are zero.*, got 1.5"),  # zeros are not the worst
        (torch.ones(2, 5) / 5, r"x must be"),  # of other regions than the network has
    ],
)
def test_bad_projections_are_named(projection, words):
    with pytest.raises(ValueError, match=words):
        small(channels=3)(noise(4, 1, 5, 64), projection)


def test_bad_regions_are_named():
    good = {"positions": torch.rand(4, 2), "centers": torch.rand(2, 2), "width": 1.0}
    for change, words in [
        ({"positions": torch.rand(4, 3)}, r"positions must be \(C, d\)"),
        ({"centers": torch.full((2, 2), math.nan)}, "centers must be finite"),
        ({"width": 0}, "width must be a positive number"),
        ({"empty": "none"}, "empty must be 'error' or 'zero'"),
        ({"positions": torch.full((4, 2), math.nan)}, r"centers \[0, 1\] have no electrode"),
    ]:
        with pytest.raises(ValueError, match=words):
            regions(**(good | change))
    for few in (4, 5.5):
        with pytest.raises(ValueError, match=f"n_channels must be a whole number of at least 5, got {few}"):
            with_projection(noise(2, 1, 5, 64), shares(3, 5), few)


def test_counts_as_trials_do_not_make_counts_of_the_weights():
    whole = torch.arange(2 * 5 * 64).reshape(2, 1, 5, 64)
    packed = with_projection(whole, shares(3, 5))
    assert torch.equal(packed, with_projection(whole.double(), shares(3, 5)))


def test_layers_are_ordinary_ones():
    net = small()
    assert all(isinstance(net.get_submodule(n), (nn.Conv2d, nn.Linear)) for n in net.neurons)
