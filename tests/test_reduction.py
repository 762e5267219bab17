"""Smaller networks: exact where neurons are duplicates, least squares elsewhere, and nothing in place."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mspace import bootstrap, fit, seeded
from mspace.clustering import KMeans
from mspace.metrics import wasserstein2
from mspace.models import OrthogonalAutoencoder, mlp
from mspace.network.hooks import hold_out, seen
from mspace.reduction import (
    Reduction,
    backward_elimination,
    compose,
    compress,
    cost,
    harmonics,
    logits_kl,
    low_rank,
    merge,
    merge_by_test,
    prune,
    rows_of,
    select_units,
    shrink,
    shrink_network,
    tradeoff,
)
from mspace.reduction.compression import site_of
from mspace.reduction.curve import Cost, Point
from mspace.reduction.greedy import forward_selection
from mspace.reduction.init import clusters
from mspace.reduction.least_squares import Moments, moments_of
from mspace.reduction.matching import discrepancy, match
from mspace.reduction.shared import SharedRows

TWICE = [0, 1, 2, 0, 1, 2]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def dense(*sizes, activation=nn.ReLU, seed=0):
    """A perceptron in float64 whose biases are of the size of its weights."""
    net = mlp(*sizes, activation=activation, generator=seeded(seed)).double()
    for i, layer in enumerate(m for m in net if isinstance(m, nn.Linear)):
        layer.weight.data = normal(*layer.weight.shape, seed=seed + 10 * i + 1)
        layer.bias.data = normal(*layer.bias.shape, seed=seed + 10 * i + 2)
    return net


def doubled(net, factor):
    """The second half of the hidden units is the first, times a factor."""
    half = len(net[0].weight) // 2
    net[0].weight.data[half:] = factor * net[0].weight.data[:half]
    net[0].bias.data[half:] = factor * net[0].bias.data[:half]
    return net


def convolutional(seed=0, flat=False):
    """Two convolutions and a head, in float64, at rest, with statistics that are not those of a start."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(seed)
    second = [] if flat else [nn.Conv2d(6, 4, 3, stride=2, padding=1), nn.ReLU()]
    size = 6 * 9 if flat else 4 * 4
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), *second,
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(size, 3),
    ).double()  # fmt: skip
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(net[1], name).data = torch.rand(6, dtype=torch.float64) + 0.5
    torch.set_rng_state(torch_state)
    for tensor in (*net[0].parameters(), net[1].bias.data, net[1].running_mean, net[1].running_var):
        tensor.data[3:] = tensor.data[:3]
    net[1].weight.data[3:] = net[1].weight.data[:3]
    return net.eval()


class Gated(nn.Module):
    """A gated feed-forward block on a sequence, with a residual connection."""

    def __init__(self, width=4, inner=6, seed=0):
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(a, b) for a, b in ((width, inner), (width, inner), (inner, width)))
        self.double()
        for i, p in enumerate(self.parameters()):
            p.data = normal(*p.shape, seed=seed + i)

    def forward(self, x):
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# What is exact


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(
    "activation, factor",
    [(nn.ReLU, 1), (nn.ReLU, 2.5), (nn.LeakyReLU, 0.3), (nn.Tanh, 1), (nn.Tanh, -1), (nn.Sigmoid, -1), (nn.GELU, 1),
     (nn.Identity, -2.0)],
)  # fmt: skip
def test_merging_duplicates_changes_nothing(activation, factor, calibrated):
    net, x = doubled(dense(4, 6, 3, activation=activation), factor), normal(60, 4)
    before = state_of(net)
    small = compress(net, "0", merge(rows_of(net, "0"), TWICE), feeds="2", calibration=x if calibrated else None)
    assert [tuple(p.shape) for p in small.parameters()] == [(3, 4), (3,), (3, 3), (3,)]
    assert (small[0].out_features, small[2].in_features) == (3, 3)
    assert torch.allclose(small(x), net(x), rtol=0, atol=1e-12)
    assert same_state(state_of(net), before)
    assert all(p.requires_grad for p in small.parameters())


def test_merge_given_the_activation_is_the_same_as_compress_finding_it():
    net, x = dense(4, 6, 3), normal(30, 4)
    rows, labels = rows_of(net, "0"), [0, 0, 1, 1, 1, 2]
    told = merge(rows, labels, activation=nn.ReLU(), weights=net[2].weight.square().sum(0))
    found = compress(net, "0", merge(rows, labels), feeds="2")
    assert torch.allclose(compress(net, "0", told, feeds="2")(x), found(x), atol=1e-12)
    raw = compress(net, "0", merge(rows, labels), feeds="2", rescale=False)
    assert torch.allclose(raw[0].weight[0], net[0].weight[:2].mean(0))
    assert torch.allclose(raw[2].weight[:, 1], net[2].weight[:, 2:5].sum(1))
    assert not torch.allclose(raw(x), found(x), atol=1e-2)


def test_the_scale_of_a_relu_unit_does_not_matter():
    net, x = dense(4, 6, 3), normal(50, 4)
    scale = torch.tensor([1, 2, 0.5, 4, 3, 0.1], dtype=torch.float64)
    scaled = copy.deepcopy(net)
    scaled[0].weight.data *= scale[:, None]
    scaled[0].bias.data *= scale
    scaled[2].weight.data /= scale
    assert torch.allclose(net(x), scaled(x))
    labels = [0, 0, 1, 1, 2, 2]
    for calibration in (None, x):
        a, b = (compress(n, "0", merge(rows_of(n, "0"), labels), "2", calibration=calibration) for n in (net, scaled))
        assert torch.allclose(a(x), b(x), atol=1e-10)


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh, nn.Identity()])
def test_a_neuron_alone_stays_as_it_is(activation):
    found = merge(ROWS, torch.arange(6), activation=activation)
    assert torch.allclose(found.kept, ROWS, rtol=1e-14) and torch.allclose(found.expand, torch.eye(6).double())


def test_weighted_mean_of_a_cluster():
    rows = torch.tensor([[1.0, 0.0, 2.0], [4.0, 3.0, 2.0], [0.0, 1.0, 0.0]])
    found = merge(rows, torch.tensor([7, 7, -1]), weights=[3.0, 1.0, 5.0])
    assert found.kept.tolist() == [[0.0, 1.0, 0.0], [1.75, 0.75, 2.0]]  # clusters stand in the order of their labels
    assert found.expand.tolist() == [[0, 1], [0, 1], [1, 0]]
    assert found.assignment.tolist() == [1, 1, 0]


def test_relu_rows_are_averaged_on_the_sphere():
    rows = torch.tensor([[2.0, 0.0], [0.0, 8.0]])
    found = merge(rows, [0, 0], activation=torch.relu, weights=[16.0, 1.0])  # both contribute alike: 16 * 4 = 64
    assert torch.allclose(found.kept, 5 * torch.tensor([[0.5, 0.5]], dtype=torch.float64))  # their common norm is 5
    assert torch.allclose(found.expand[:, 0], torch.tensor([0.4, 1.6], dtype=torch.float64))


def test_idle_units_may_go():
    net, x = dense(4, 6, 3), normal(40, 4)
    net[2].weight.data[:, [1, 4]] = 0
    net[0].weight.data[5], net[0].bias.data[5] = 0, -1  # never awake
    small = compress(net, "0", prune(rows_of(net, "0"), [0, 2, 3]), feeds="2")
    assert torch.allclose(small(x), net(x), atol=1e-12)
    mask = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.bool)
    assert torch.equal(prune(rows_of(net, "0"), mask).expand, prune(rows_of(net, "0"), [0, 2, 3]).expand)
    assert sorted(select_units(net, "0", 3, "2", calibration=x).expand.nonzero()[:, 0].tolist()) == [0, 2, 3]


def test_linear_dependence_is_composed_exactly():
    net, x = dense(5, 6, 3, activation=nn.Identity), normal(40, 5)
    mix = normal(3, 3)
    net[0].weight.data[3:] = mix @ net[0].weight.data[:3]
    net[0].bias.data[3:] = mix @ net[0].bias.data[:3]
    found = compose(rows_of(net, "0"), [0, 1, 2])
    assert torch.allclose(found.expand[3:], mix) and torch.allclose(found.rows, rows_of(net, "0"))
    assert torch.allclose(compress(net, "0", found, feeds="2")(x), net(x), atol=1e-10)


def test_composition_is_nearest_in_the_metric_it_is_given():
    rows, x = normal(5, 4), torch.cat([normal(200, 3) @ normal(3, 3, seed=5), torch.ones(200, 1)], 1).double()
    keep, drop = [0, 3], [1, 2, 4]
    found = compose(rows, keep, moment=x.T @ x / 200)
    answers = x @ rows.T
    best = torch.linalg.lstsq(answers[:, keep], answers[:, drop]).solution.T
    assert torch.allclose(found.expand[drop], best)
    assert not torch.allclose(compose(rows, keep).expand[drop], best, atol=1e-2)


@pytest.mark.parametrize("build", [merge, prune, compose])
def test_all_neurons_are_the_same_network(build):
    net, x = dense(4, 6, 3), normal(40, 4)
    for calibration in (None, x):
        found = compress(net, "0", build(rows_of(net, "0"), torch.arange(6)), feeds="2", calibration=calibration)
        assert torch.allclose(found(x), net(x), atol=1e-10)
    assert torch.allclose(shrink(net, "0", 6, "2", calibration=x)(x), net(x), atol=1e-10)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_channels_with_their_normalisation_folded(flat, calibrated):
    net, x = convolutional(flat=flat), normal(30, 2, 6, 6)
    feeds = "6" if flat else "4"
    small = compress(net, "0", merge(rows_of(net, "0"), TWICE), feeds, calibration=x if calibrated else None)
    assert torch.allclose(small(x), net(x), atol=1e-10)
    assert isinstance(small[1], nn.Identity) and small[0].out_channels == 3
    assert cost(net).parameters == 6 * 18 + 6 + 4 * 6 + cost(net[4:]).parameters
    assert small.get_submodule(feeds).weight.shape == ((3, 27) if flat else (4, 3, 3, 3))


def test_a_normalisation_that_the_network_hides_is_named():
    shown, x = convolutional(), normal(5, 2, 6, 6)

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b, self.head = (copy.deepcopy(shown[i]) for i in (0, 1, 4, 8))

        def forward(self, x):
            return self.head(F.relu(self.b(F.max_pool2d(F.relu(self.norm(self.a(x))), 2))).flatten(1))

    net = Hidden().eval()
    assert torch.equal(rows_of(net, "a", norm="norm"), rows_of(shown, "0"))
    with pytest.raises(ValueError, match=r"and norm= the normalisation in between, if one of norm is: .* says"):
        compress(net, "a", merge(rows_of(net, "a"), TWICE), "b", calibration=x)
    small = compress(net, "a", merge(rows_of(net, "a", norm="norm"), TWICE), "b", norm="norm")
    assert torch.allclose(small(x), net(x), atol=1e-10)


def test_one_dimensional_convolution_and_flattening():
    second = nn.Conv1d(4, 4, 2, padding="same", padding_mode="circular")
    net = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AvgPool1d(2), second, nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4, 2)
    )
    for i, p in enumerate(net.parameters()):
        p.data = normal(*p.shape, seed=i)
    net, x = net.double(), normal(50, 2, 10)
    doubled(net, 3.0)
    net[3].weight.data[2:], net[3].bias.data[2:] = -net[3].weight.data[:2], -net[3].bias.data[:2]
    for calibration in (None, x):
        small = compress(net, "0", merge(rows_of(net, "0"), [0, 1, 0, 1]), "3", calibration=calibration)
        small = compress(small, "3", merge(rows_of(small, "3"), [0, 1, 0, 1]), "6", calibration=calibration)
        assert torch.allclose(small(x), net(x), atol=1e-10)
        assert [tuple(p.shape) for p in small.parameters()][::2] == [(2, 2, 3), (2, 2, 2), (2, 8)]


def test_gated_block():
    net, x = Gated(), normal(20, 7, 4)
    for layer in (net.gate, net.up):
        layer.weight.data[3:], layer.bias.data[3:] = layer.weight.data[:3], layer.bias.data[:3]
    rows = rows_of(net, ("gate", "up"))
    assert rows.shape == (6, 10)
    for calibration in (None, x):
        small = compress(net, ("gate", "up"), merge(rows, TWICE), "down", calibration=calibration)
        assert torch.allclose(small(x), net(x), atol=1e-10)
    assert small.gate.weight.shape == small.up.weight.shape == (3, 4) and small.down.weight.shape == (4, 3)
    best = shrink(net, ("gate", "up"), 3, "down", calibration=x, steps=0)
    assert torch.allclose(best(x), net(x), atol=1e-4) and best.up.out_features == 3
    with pytest.raises(ValueError, match="gated block"):
        compress(net, ("gate", "up"), merge(rows, TWICE))


def test_feed_forward_block_of_a_transformer():
    block = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True, activation="gelu").double().eval()
    for i, p in enumerate(block.parameters()):
        p.data = normal(*p.shape, seed=i)
    block.linear1.weight.data[3:], block.linear1.bias.data[3:] = (
        block.linear1.weight[:3].data,
        block.linear1.bias[:3].data,
    )
    x = normal(12, 5, 4)
    for calibration in (None, x):
        small = compress(block, "linear1", merge(rows_of(block, "linear1"), TWICE), "linear2", calibration=calibration)
        assert torch.allclose(small(x), block(x), atol=1e-9) and small.linear2.weight.shape == (4, 3)
    chosen = select_units(block, "linear1", 3, "linear2", calibration=x)
    assert sorted(chosen.expand.nonzero()[:, 0].remainder(3).tolist()) == [0, 1, 2]
    best = shrink(block, "linear1", 3, "linear2", calibration={"src": x}, steps=10)
    assert torch.allclose(best(x), block(x), atol=1e-6)


def test_places_that_fill_up_short_sentences_do_not_count():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 6).double(), nn.Linear(6, 4).double()

        def forward(self, words, attention_mask):
            h = words + self.outer(torch.tanh(self.inner(words)))
            there = attention_mask[..., None].to(h)
            return (h * there).sum(1) / there.sum(1)

    net, x = Words(), normal(40, 5, 4)
    mask = (torch.arange(5) < 1 + torch.arange(40)[:, None] % 5).long()
    filled = {"words": torch.where(mask[..., None] == 1, x, 100 * x), "attention_mask": mask}
    moments = moments_of(net, net, "outer", filled)
    assert int(moments.square[0, 0]) == int(mask.sum())
    kept = select_units(net, "inner", 3, "outer", calibration=filled)
    small = compress(net, "inner", kept, "outer", calibration=filled, ridge=0)
    h = torch.tanh(net.inner(x[mask == 1]))
    columns = torch.cat([h[:, kept.expand.argmax(0)], torch.ones(len(h), 1)], 1)
    best = torch.linalg.lstsq(columns, net.outer(h)).solution
    assert torch.allclose(small.outer.weight.T, best[:-1], atol=1e-6)
    assert torch.allclose(shrink(net, "inner", 6, "outer", calibration=filled)(**filled), net(**filled), atol=1e-5)


def test_a_mask_of_places_is_none_of_channels():
    class Channels(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Conv1d(5, 5, 1), nn.Conv1d(5, 5, 1)

        def forward(self, words, attention_mask):
            return self.outer(torch.relu(self.inner(words)))

    net, x = Channels().double(), normal(40, 5, 5)
    masked = {"words": x, "attention_mask": (torch.arange(5) < 3).expand(40, 5)}
    assert seen(net, ["inner"], masked)["inner"].input.shape == (40, 5, 5)


def test_several_readers_of_one_layer():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.mean, self.scale = (
                dense(4, 6),
                nn.Linear(6, 2).double(),
                nn.Linear(6, 3, bias=False).double(),
            )

        def forward(self, x):
            h = torch.tanh(self.net(x))
            return torch.cat([self.mean(h), self.scale(h)], 1)

    net, x = Two(), normal(60, 4)
    with pytest.raises(ValueError, match=r"feeds must name every layer that reads 'net\.0'"):
        compress(net, "net.0", prune(rows_of(net, "net.0"), [0, 1]), "mean", calibration=x)
    reduction = prune(rows_of(net, "net.0"), [0, 2, 3, 5])
    small = compress(net, "net.0", reduction, ("mean", "scale"), calibration=x, ridge=0)
    h, old = torch.tanh(small.net(x)), torch.tanh(net.net(x))
    best = torch.linalg.lstsq(h, net.scale(old)).solution  # without a bias, as the layer
    assert small.scale.bias is None and torch.allclose(small.scale.weight.T, best)
    assert shrink(net, "net.0", 3, ("mean", "scale"), calibration=x, steps=10).scale.in_features == 3


# Least squares


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_refit_is_least_squares(kind):
    if kind == "dense":
        net, x, name = dense(4, 8, 3), normal(80, 4), "2"
        keep = [1, 2, 6]
        features = torch.cat([net[1](net[0](x))[:, keep], torch.ones(80, 1).double()], 1)
        want = net(x)
    else:
        net, x, name = convolutional(), normal(20, 2, 6, 6), "4"
        keep = [1, 2]
        h = net[:4](x)[:, keep]
        features = F.unfold(h, 3, stride=2, padding=1).transpose(1, 2).flatten(0, 1)
        features = torch.cat([features, torch.ones(len(features), 1).double()], 1)
        want = net[:5](x).flatten(2).transpose(1, 2).flatten(0, 1)
    small = compress(net, "0", prune(rows_of(net, "0"), keep), feeds=name, calibration=x, ridge=0)
    best = torch.linalg.lstsq(features, want).solution
    reader = small.get_submodule(name)
    assert torch.allclose(reader.weight.flatten(1).T, best[:-1], atol=1e-9)
    assert torch.allclose(reader.bias, best[-1], atol=1e-9)


def test_refit_is_to_the_teacher():
    teacher, x = dense(4, 8, 3), normal(80, 4)
    student = copy.deepcopy(teacher)
    student[0].weight.data += 0.3 * normal(8, 4, seed=8)
    options = {"calibration": x, "teacher": teacher, "ridge": 0}
    small = compress(student, "0", prune(rows_of(student, "0"), torch.arange(5)), "2", **options)
    h = torch.cat([student[:2](x)[:, :5], torch.ones(80, 1).double()], 1)
    assert torch.allclose(small(x), h @ torch.linalg.lstsq(h, teacher(x)).solution, atol=1e-9)


def test_signs_are_free_only_where_they_can_be_made_good():
    """The largest of -x is not minus the largest of x, and what a sigmoid is short of takes a bias to give back."""
    pooled = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.MaxPool1d(2), nn.Conv1d(4, 2, 2)).double()
    bare = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 3, bias=False)).double()
    for net, feeds in ((pooled, "3"), (bare, "2")):
        rows = normal(4, rows_of(net, "0").shape[1])
        rows[1], rows[3] = -2 * rows[0], -rows[2]
        net[0].weight.data, net[0].bias.data = rows[:, :-1].reshape(net[0].weight.shape), rows[:, -1].clone()
        weights = (
            net[int(feeds)].weight.flatten(2).square().sum((0, 2)) if feeds == "3" else net[2].weight.square().sum(0)
        )
        small = compress(net, "0", merge(rows, [0, 0, 1, 2]), feeds)
        mean = (weights[:2, None].detach() * rows[:2]).sum(0) / weights[:2].sum()  # turning one would have been wrong
        assert torch.allclose(rows_of(small, "0")[0], mean)


def test_ridge_draws_to_the_summed_weights():
    net, x = dense(4, 8, 3), normal(80, 4)
    reduction = merge(rows_of(net, "0"), [0, 0, 1, 1, 2, 2, 3, 3])
    plain, free = compress(net, "0", reduction, "2"), compress(net, "0", reduction, "2", calibration=x, ridge=0)
    h, y = free[:2](x), net(x)
    for ridge in (0.1, 3.0, 1e9):
        found = compress(net, "0", reduction, "2", calibration=x, ridge=ridge)
        z, t = h - h.mean(0), y - y.mean(0)
        gram, spread = z.T @ z / 80, z.square().mean(0)
        start = plain[2].weight.T
        theta = torch.linalg.solve(gram + ridge * spread.diag(), z.T @ t / 80 + ridge * spread[:, None] * start)
        assert torch.allclose(found[2].weight.T, theta, atol=1e-8)
        assert torch.allclose(found(x).mean(0), y.mean(0), atol=1e-8)
    errors = [(m(x) - y).square().mean() for m in (plain, found, free)]
    assert errors[0] > errors[1] > errors[2]


def test_the_ridge_is_chosen_where_nothing_was_fitted():
    net = dense(30, 60, 2, activation=nn.Tanh)
    few, many = normal(40, 30), normal(2000, 30, seed=3)
    reduction = prune(rows_of(net, "0"), torch.arange(35))
    loss = [
        (compress(net, "0", reduction, "2", calibration=few, ridge=r)(many) - net(many)).square().mean()
        for r in (None, 0.0)
    ]
    assert loss[0] < 0.5 * loss[1]


def test_forward_selection_is_least_squares_one_at_a_time():
    net, x = dense(3, 7, 2), normal(60, 3)
    moments = moments_of(net, net, "2", x)
    order, left = forward_selection(moments, 7, 4)
    h, y = net[:2](x), net(x)
    chosen = []
    for j, share in zip(order.tolist(), left):
        errors = {i: residual(h[:, [*chosen, i]], y) for i in range(7) if i not in chosen}
        assert j == min(errors, key=errors.get)
        chosen.append(j)
        assert share == pytest.approx(float(errors[j] / (y - y.mean(0)).square().sum().detach()), abs=1e-9)


def test_forward_selection_takes_the_first_of_units_that_rounding_alone_tells_apart():
    # ten examples about their mean: any ninth unit completes the space, all others then tell nothing
    z, y = normal(10, 64), normal(10, 3, seed=1)
    picked = []
    for i in range(6):
        rows = torch.cat([torch.ones(10, 1), z, y], 1)[torch.randperm(10, generator=seeded(i))].double()
        picked.append(forward_selection(Moments(rows.T @ rows, 64), 64, 12)[0].tolist())
    assert all(p == picked[0] for p in picked)
    assert picked[0][8:] == [i for i in range(64) if i not in picked[0][:8]][:4]


def test_backward_elimination_is_least_squares_one_at_a_time():
    net, x = dense(3, 7, 2), normal(60, 3)
    kept, left = backward_elimination(moments_of(net, net, "2", x), 7, 3)
    h, y = net[:2](x), net(x)
    alive = list(range(7))
    while len(alive) > 3:
        errors = {i: residual(h[:, [a for a in alive if a != i]], y) for i in alive}
        alive.remove(min(errors, key=errors.get))
    assert kept.tolist() == alive
    share = residual(h[:, alive], y) / (y - y.mean(0)).square().sum().detach()
    assert float(left[0]) == pytest.approx(float(share), abs=1e-6)


def test_backward_elimination_of_dependent_units_does_not_depend_on_their_order():
    net, x = dense(4, 128, 3), normal(105, 4)
    moments = moments_of(net, net, "2", x).square
    order = torch.randperm(128, generator=seeded(1))
    place = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order, torch.arange(129, 132)])
    kept, left = backward_elimination(Moments(moments, 128), 128, 3)
    again, same = backward_elimination(Moments(moments[place][:, place], 128), 128, 3)
    assert sorted(order[again].tolist()) == kept.tolist()
    assert torch.allclose(left, same, rtol=1e-3, atol=1e-7)


def test_selection_of_channels_counts_all_their_places():
    net, x = convolutional(flat=True), normal(60, 2, 6, 6)
    order, _ = forward_selection(moments_of(net, net, "6", x), 6, 2)
    h, y = net[:5](x).unflatten(1, (6, 9)), net(x)
    first = min(range(6), key=lambda i: residual(h[:, i], y))
    assert order[0] % 3 == first % 3  # each has a twin
    second = min((i for i in range(6) if i % 3 != first % 3), key=lambda i: residual(h[:, [first, i]].flatten(1), y))
    assert order[1] % 3 == second % 3


@torch.no_grad()
def residual(h, y):
    a = torch.cat([h, torch.ones(len(h), 1).double()], 1)
    return (y - a @ torch.linalg.lstsq(a, y).solution).square().sum()


# Output layers


def test_output_rows_of_a_period_are_stored_once():
    net, x = dense(5, 3, 100), normal(40, 5)
    net[2].weight.data, net[2].bias.data = normal(20, 3).repeat(5, 1), normal(20, seed=1).repeat(5)
    small = compress(net, "2", merge(rows_of(net, "2"), torch.arange(100) % 20))
    assert torch.allclose(small(x), net(x), atol=1e-12)
    assert isinstance(small[2], SharedRows) and small[2].scale is None
    assert cost(small[2]) == Cost(parameters=80, indices=100)
    assert torch.allclose(small[2].weight, net[2].weight) and torch.allclose(small[2].bias, net[2].bias)
    assert rows_of(net, "2").shape == (100, 4)
    other = copy.deepcopy(small)
    other.load_state_dict(small.state_dict())
    assert torch.equal(other(x), small(x))


@pytest.mark.parametrize("build", [low_rank, harmonics])
def test_bases_of_an_output_layer(build):
    net, x = dense(5, 3, 12), normal(40, 5)
    rows = rows_of(net, "2")
    found = [build(rows, k) for k in (1, 3, 4)]
    gap = [(f.rows - rows).norm() for f in found]
    assert gap[0] > gap[1] > gap[2] and (build is harmonics or gap[2] < 1e-12)
    small = compress(net, "2", found[1])
    assert torch.allclose(small(x), net[:2](x) @ found[1].rows[:, :-1].T + found[1].rows[:, -1], atol=1e-12)
    stored = 3 * 4 if build is harmonics else 3 * 4 + 12 * 3
    assert cost(small[2]) == Cost(stored, 0)
    assert sum(t.numel() for t in small[2].state_dict().values()) == stored


def test_one_row_for_all_needs_no_index():
    net, x = dense(5, 3, 12), normal(40, 5)
    rows = rows_of(net, "2")
    for found, stored in ((merge(rows, [0] * 12), 4), (low_rank(rows, 1), 4 + 12)):
        small = compress(net, "2", found)
        assert cost(small[2]) == Cost(stored, 0)
        assert sum(t.numel() for t in small[2].state_dict().values()) == stored
        assert torch.allclose(small(x), net[:2](x) @ found.rows[:, :-1].T + found.rows[:, -1], atol=1e-12)


def test_low_rank_is_eckart_young():
    rows, x = normal(9, 4), torch.cat([normal(50, 3) * torch.tensor([1.0, 5.0, 0.1]), torch.ones(50, 1)], 1).double()
    y = x @ rows.T
    found = low_rank(rows, 2, moment=x.T @ x / 50)
    left, power, right = torch.linalg.svd(y, full_matrices=False)
    assert torch.allclose(x @ found.rows.T, left[:, :2] * power[:2] @ right[:2], atol=1e-9)


def test_all_cosines_are_a_basis():
    rows = normal(12, 4)
    found = harmonics(rows, 12)
    assert torch.allclose(found.expand.T @ found.expand, torch.eye(12).double()) and torch.allclose(found.rows, rows)
    assert torch.allclose(harmonics(rows, 1).rows, rows.mean(0).expand(12, 4))
    smooth = torch.sin(torch.linspace(0, 6, 100, dtype=torch.float64))[:, None] * torch.ones(1, 3)
    assert (harmonics(smooth, 12).rows - smooth).norm() < 0.03 * smooth.norm()


def test_shared_rows_with_scales_and_of_channels():
    net, x = doubled(dense(4, 6, activation=nn.Identity), -2.0), normal(10, 4)
    small = compress(net, "0", merge(rows_of(net, "0"), TWICE, activation=nn.Identity()))
    assert torch.allclose(small(x), net(x), atol=1e-12) and small[0].scale.shape == (6,)
    assert cost(small).parameters == 15 + 6
    conv = convolutional()
    conv[0].weight.data[3:] = conv[0].weight.data[:3]
    bare = nn.Sequential(conv[0])
    shared = compress(bare, "0", merge(rows_of(bare, "0"), TWICE))
    image = normal(3, 2, 6, 6)
    assert torch.allclose(shared(image), bare(image), atol=1e-12)
    dropped = compress(bare, "0", low_rank(rows_of(bare, "0"), 3))
    assert torch.allclose(dropped(image), bare(image), atol=1e-10)


def test_shared_rows_are_fitted_to_the_teacher():
    teacher, x = dense(4, 5, 8), normal(70, 4)
    student = copy.deepcopy(teacher)
    student[0].weight.data += 0.3 * normal(5, 4, seed=8)
    labels = torch.arange(8) // 2
    small = compress(student, "2", merge(rows_of(student, "2"), labels), calibration=x, teacher=teacher, ridge=0)
    h = torch.cat([student[:2](x), torch.ones(70, 1).double()], 1)
    means = teacher(x).unflatten(1, (4, 2)).mean(2)
    best = torch.linalg.lstsq(h, means).solution
    assert torch.allclose(torch.cat([small[2].rows.weight.T, small[2].rows.bias[None]]), best, atol=1e-9)


# Whole compressors


def test_refinement_finds_the_network_that_is_there():
    truth = dense(3, 4, 2, activation=nn.Tanh)
    start, x = copy.deepcopy(truth), normal(200, 3)
    for i, p in enumerate(start.parameters()):
        p.data += 0.1 * normal(*p.shape, seed=40 + i)
    start[2].bias.requires_grad_(False)
    kept = state_of(start)
    found = match(start, truth, ("0", "2"), x, feeds=("2",), steps=200)
    assert discrepancy(found, truth, x, feeds=("2",)) < 1e-8 < discrepancy(start, truth, x, feeds=("2",))
    assert same_state(state_of(start), kept)
    assert [p.requires_grad for p in found.parameters()] == [True, True, True, False]
    fixed = match(start, truth, ("2",), x, feeds=("2",), steps=30)
    assert torch.equal(fixed[0].weight, start[0].weight) and not torch.equal(fixed[2].weight, start[2].weight)


def test_refinement_stops_where_it_no_longer_helps_held_out_inputs():
    teacher, start, few = dense(20, 12, 2), dense(20, 6, 2, seed=5), normal(30, 20)
    found = match(start, teacher, ("0", "2"), few, feeds=("2",), steps=200)
    _, held = hold_out(few)
    errors = [discrepancy(m, teacher, held, feeds=("2",)) for m in (start, found)]
    assert errors[1] < errors[0]
    for steps in range(10, 90, 10):
        shorter = match(start, teacher, ("0", "2"), few, feeds=("2",), steps=steps)
        assert errors[1] <= discrepancy(shorter, teacher, held, feeds=("2",))


def test_alike_units_are_found_whatever_their_scale():
    net, x = dense(4, 6, 3), normal(100, 4)
    order, factor = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1.0, 1, 1, 7, 0.1, 3]).double()
    net[0].weight.data = factor[:, None] * net[0].weight.data[order]
    net[0].bias.data = factor * net[0].bias.data[order]
    found = clusters(site_of(net, "0", "2", x), 3, x, seeded(0))
    assert torch.allclose(compress(net, "0", found, "2")(x), net(x), atol=1e-10)
    turned = doubled(dense(4, 6, 3, activation=nn.Tanh), -1)
    found = clusters(site_of(turned, "0", "2", x), 3, x, seeded(0))
    assert torch.allclose(compress(turned, "0", found, "2")(x), turned(x), atol=1e-10)


def test_an_output_layer_gets_the_better_of_two_forms():
    net, x = dense(5, 3, 40), normal(60, 5)
    net[2].weight.data, net[2].bias.data = normal(8, 3).repeat(5, 1), normal(8, seed=1).repeat(5)
    repeated = shrink(net, "2", 8, calibration=x)
    assert repeated[2].index is not None and torch.allclose(repeated(x), net(x), atol=1e-6)
    wave = torch.cos(torch.pi * (torch.arange(40) + 0.5)[:, None] / 40 * torch.arange(3)).double()
    net[2].weight.data, net[2].bias.data = wave @ normal(3, 3), wave[:, 1].clone()
    smooth = shrink(net, "2", 3, calibration=x)
    assert smooth[2].index is None and torch.allclose(smooth(x), net(x), atol=1e-6)


def test_kl_divergence_of_logits():
    a, b = normal(20, 3), normal(20, 3, seed=1)
    p, q = a.softmax(1), b.softmax(1)
    assert torch.allclose(logits_kl(a, b), (q * (q / p).log()).sum(1).mean())


@pytest.fixture(scope="module")
def classes():
    x = normal(400, 6)
    y = (x[:, :3] * x[:, 3:]).argmax(1)
    x, y = x.float(), y
    net = fit(mlp(6, 40, 3, generator=seeded(0)), (x, y), F.cross_entropy, epochs=40, generator=seeded(1))
    return net, x, y


def test_each_stage_of_shrinking_brings_the_answers_nearer(classes):
    net, x, _ = classes
    k, fresh = 8, normal(400, 6, seed=9).float()
    rows = rows_of(net, "0")
    plain = compress(net, "0", prune(rows, rows.norm(dim=1).topk(k).indices), "2", calibration=x)
    chosen = compress(net, "0", select_units(net, "0", k, "2", calibration=x), "2", calibration=x)
    moved = shrink(net, "0", k, "2", calibration=x)
    by_class = shrink(net, "0", k, "2", calibration=x, divergence=logits_kl)
    errors = [discrepancy(m, net, fresh, feeds=("2",)) for m in (plain, chosen, moved)]
    assert errors[1] < 0.9 * errors[0] and errors[2] < 0.8 * errors[1]
    spread = [discrepancy(m, net, fresh, divergence=logits_kl) for m in (moved, by_class)]
    assert spread[1] < spread[0]
    assert by_class[0].weight.dtype == torch.float32


def test_shrinking_repeats_itself_and_leaves_all_alone(classes):
    net, x, _ = classes
    before, stream = state_of(net), torch.get_rng_state()
    a, b = (shrink(net, "0", 5, "2", calibration=x, steps=10) for _ in range(2))
    assert same_state(state_of(a), state_of(b)) and same_state(state_of(net), before)
    assert torch.equal(stream, torch.get_rng_state())
    assert net.training and all(m.training for m in net.modules()) and all(m.training for m in a.modules())


def test_what_stands_before_the_layer_is_asked_once():
    front = [nn.Linear(9, 5), nn.Tanh(), nn.Dropout(0.5)]
    net, x = nn.Sequential(*front, *dense(5, 8, 3)).double(), normal(200, 9)
    asked = []
    net[0].register_forward_hook(lambda module, given, output: asked.append(len(output)))
    reduction = prune(rows_of(net, "3"), [0, 2, 5])
    small = compress(net, "3", reduction, "5", calibration=x)
    assert sum(asked) < 300
    moved = shrink(net, "3", 3, "5", calibration=x, steps=20)
    assert sum(asked) < 600
    again = compress(net, "3", reduction, "5", calibration=x, teacher=copy.deepcopy(net))  # the long way
    assert torch.allclose(small.eval()(x), again.eval()(x), atol=1e-12)
    assert torch.equal(moved[0].weight, net[0].weight) and moved[0].weight is not net[0].weight
    assert [m.training for m in moved] == [True] * 6 and moved[3].out_features == 3
    assert discrepancy(moved, net, x) < discrepancy(small, net, x)


def test_a_budget_goes_where_the_loss_is_small():
    net, x = dense(6, 16, 16, 3), normal(400, 6)
    net[2].weight.data[4:] *= 1e-3  # the second layer has four units that matter
    net[2].bias.data[4:] *= 1e-3
    before = cost(net).parameters
    small = shrink_network(net, {"0": "2", "2": "4"}, 0.6, calibration=x, steps=0)
    assert cost(small).parameters <= 0.6 * before
    assert small[2].out_features < 8 <= small[0].out_features
    assert discrepancy(small, net, x) < 0.05
    with pytest.raises(ValueError, match=r"share 0.01 cannot be met: with one unit in each layer 0\.\d+ stays"):
        shrink_network(net, {"0": "2", "2": "4"}, 0.01, calibration=x)


def sizes(labels):
    return sorted(labels.bincount().tolist())


def test_neurons_that_the_data_cannot_tell_apart_are_one():
    truth = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 2, 1], [0, 2, 1], [3, 3, 3]]).double()
    noise = 0.1 * normal(80, 6, 3)
    assert sizes(merge_by_test(truth + noise, level=0.01)) == [1, 2, 3]
    factor = torch.tensor([1.0, 2, 3, 1, 5, 1]).double()[:, None]
    wide = factor * (truth + noise)
    assert sizes(merge_by_test(wide)) == [1] * 6
    grouped = merge_by_test(wide, activation=nn.ReLU(), level=0.01)
    assert sizes(grouped) == [1, 2, 3] and grouped[3] == grouped[4]
    turned = truth * torch.tensor([1.0, -1, 1, 1, -1, 1]).double()[:, None] + noise
    assert sizes(merge_by_test(turned, activation=nn.Tanh(), level=0.01)) == [1, 2, 3]
    chain = torch.tensor([[0.0, 0], [1, 0], [2, 0]]).double() + 9 * normal(400, 3, 2)
    linked = merge_by_test(chain)  # neighbours are alike, the ends are not: never all in one
    assert len(linked.unique()) == 2


def test_tradeoff_counts_and_scores(classes):
    net, x, y = classes

    def accuracy(model):
        return (model(x).argmax(1) == y).double().mean()

    def largest(rows, k):
        return prune(rows, rows.norm(dim=1).topk(k).indices)

    def trained(model):
        return fit(model, (x, y), F.cross_entropy, epochs=3, generator=seeded(0))

    curve = tradeoff(net, "0", largest, [40, 10, 1], accuracy, feeds="2", calibration=x)
    assert [p[:2] for p in curve] == [(40, 40 * 10 + 3), (10, 103), (1, 13)]
    assert curve[0].score == pytest.approx(float(accuracy(net)), abs=0.01) and curve[0].score > curve[2].score
    assert isinstance(curve[0], Point) and isinstance(curve[0].score, float)
    tuned = tradeoff(net, "0", largest, [4], accuracy, feeds="2", calibration=x, finetune=trained)
    assert tuned[0].score > tradeoff(net, "0", largest, [4], accuracy, feeds="2", calibration=x)[0].score
    best = tradeoff(net, "0", lambda rows, k: shrink(net, "0", k, "2", calibration=x), [4], accuracy)
    assert best[0].n_parameters == 43
    shared = tradeoff(net, "2", lambda rows, k: merge(rows, torch.arange(3) % k), [2], accuracy)
    assert shared[0] == Point(2, 40 * 7 + 82, shared[0].score, 3)
    with pytest.raises(ValueError, match="finetune a network, got NoneType"):
        tradeoff(net, "0", largest, [4], accuracy, feeds="2", finetune=lambda model: None)


def test_ten_lines_for_a_stranger(classes):
    _, x, y = classes
    rng = seeded(0)
    net = fit(nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)), (x, y), F.cross_entropy, generator=rng)
    ensemble = bootstrap(net, (x, y), F.cross_entropy, n_models=8, epochs=2, generator=rng)
    labels = KMeans(4, metric=wasserstein2, generator=rng).fit_predict(ensemble.neurons("0"))
    small = compress(net, "0", merge(rows_of(net, "0"), labels), feeds="2", calibration=x)
    assert [m.weight.shape for m in (small[0], small[2])] == [(4, 6), (3, 4)]


def test_a_parametrized_layer_becomes_an_ordinary_one():
    net, x = OrthogonalAutoencoder(8, 3, generator=seeded(0)).double(), normal(40, 8)
    small = compress(net, "encoder", prune(rows_of(net, "encoder"), [0, 2]), "decoder", calibration=x)
    assert small.encoder.weight.shape == (2, 8) and small.decoder.weight.shape == (8, 2)
    assert torch.equal(small.encoder.weight, net.encoder.weight[[0, 2]])
    assert net.encoder.weight.shape == (3, 8)


def test_one_neuron_is_left():
    net, x = dense(4, 6, 3), normal(40, 4)
    for found in (merge(rows_of(net, "0"), [0] * 6), prune(rows_of(net, "0"), [3])):
        small = compress(net, "0", found, "2", calibration=x)
        assert small[0].weight.shape == (1, 4) and torch.isfinite(small(x)).all()
        assert (small(x) - net(x)).square().mean() <= net(x).var(0, correction=0).mean() + 1e-9
    assert shrink(net, "0", 1, "2", calibration=x)[2].in_features == 1


# What is refused

NET = dense(4, 6, 3)
ROWS = rows_of(NET, "0")


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: merge(ROWS, [0, 1]), "labels must be 6 integers"),
        (lambda: merge(ROWS, [0.5] * 6), "labels must be 6 integers"),
        (lambda: merge(ROWS, TWICE, weights=[1.0, -1, 1, 1, 1, 1]), "weights must be 6 numbers"),
        (lambda: merge(ROWS * torch.nan, TWICE), "rows must be finite"),
        (lambda: prune(ROWS, []), "keep must be"),
        (lambda: prune(ROWS, torch.zeros(6, dtype=torch.bool)), "keep must be"),
        (lambda: prune(ROWS, [0, 6]), "keep must be different whole numbers from 0 to 5"),
        (lambda: prune(ROWS, [0, 0]), "keep must be different"),
        (lambda: compose(ROWS, [0], moment=torch.eye(4)), r"moment must be \(5, 5\)"),
        (lambda: low_rank(ROWS, 6), "k must be a whole number from 1 to 5, got 6"),
        (lambda: harmonics(ROWS, 0), "k must be a whole number from 1 to 6, got 0"),
        (lambda: Reduction(ROWS, torch.eye(4)), r"kept must be \(k, n\+1\) and expand \(m, k\)"),
        (lambda: rows_of(NET, "1"), "layer must name a module of the network .*: 0, 2"),
        (lambda: rows_of(NET, ("0", "2")), r"as many units each, got \[6, 3\]"),
        (lambda: merge_by_test(normal(4, 6, 5)), "samples must hold more draws than weights"),
        (lambda: merge_by_test(normal(6, 5)), r"samples must be \(N, m, n\+1\)"),
        (lambda: shrink(NET, "0", 7, "2", calibration=normal(20, 4)), "k must be a whole number from 1 to 6, got 7"),
        (lambda: tradeoff(NET, "0", prune, [7], float, feeds="2"), "sizes must be a whole number from 1 to 6"),
        (lambda: shrink_network(NET, {}, 0.5, calibration=normal(20, 4)), "wires must be a dictionary"),
        (lambda: shrink_network(NET, {"0": "2"}, 2, calibration=normal(20, 4)), "share must be a number"),
    ],
)  # fmt: skip
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    "options, says",
    [
        ({"layer": "2", "feeds": "0"}, "got '0', which comes before it"),
        ({"feeds": "0"}, "which is that layer itself"),
        ({"feeds": "9"}, "feeds must name a module"),
        ({"feeds": "4"}, "feeds '4' reads 3 units, but layer '0' has 6"),
        ({"feeds": "6"}, "does not read layer '0' unit by unit: Linear, Linear stands between"),
        ({"calibration": normal(20, 5)}, "calibration must be inputs of the network, which says"),
        ({"calibration": normal(20, 4) * torch.nan}, "calibration must be finite"),
        ({"calibration": (normal(20, 4), torch.zeros(20))}, "calibration must be inputs of the network"),
        ({"calibration": (normal(20, 4), torch.zeros(7))}, "of one length"),
        ({"calibration": "x"}, "calibration must be inputs of the network"),
        ({"calibration": normal(20, 4), "ridge": -1}, "ridge must be"),
        ({"reduction": prune(normal(7, 5), [0])}, r"reduction must be of the 6 rows of 5 numbers of '0'"),
        ({"reduction": prune(normal(6, 4), [0])}, r"reduction must be of the 6 rows of 5 numbers of '0'"),
        ({"reduction": TWICE}, "reduction must be a Reduction, got list"),
        ({"activation": nn.LayerNorm(6)}, "numbers for each unit"),
    ],
)  # fmt: skip
def test_bad_compression(options, says):
    net = dense(4, 6, 3, 6, 2)
    given = {"layer": "0", "reduction": prune(ROWS, [0]), "feeds": "2"} | options
    if options.get("layer"):
        given["reduction"] = prune(rows_of(net, options["layer"]), [0])
    with pytest.raises(ValueError, match=says):
        compress(net, **given)


def test_layers_used_twice_are_refused():
    shared = nn.Linear(5, 5).double()
    net = nn.Sequential(shared, nn.ReLU(), shared)
    with pytest.raises(ValueError, match="layer '0' is used twice"):
        compress(net, "0", prune(rows_of(net, "0"), [0]), "2")
    tied = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="layer '0' is used twice, its weights stand in 2 too"):
        compress(tied, "0", prune(rows_of(tied, "0"), [0]), "2")

    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4).double(), nn.Linear(4, 2).double()

        def forward(self, x):
            return self.b(self.a(self.a(x)))

    net = Again()
    with pytest.raises(ValueError, match="layer 'a' is used twice in one pass"):
        compress(net, "a", prune(rows_of(net, "a"), [0]), "b", calibration=normal(20, 4))


def test_a_reader_that_reads_another_layer_is_found_out():
    class Branches(nn.Module):
        def __init__(self, mixed):
            super().__init__()
            self.a, self.b, self.c, self.norm = *(nn.Linear(4, 4).double() for _ in range(3)), nn.LayerNorm(4).double()
            self.mixed = mixed

        def forward(self, x):
            own = self.a(x)
            return self.c(self.norm(own) if self.mixed else torch.relu(self.b(x))) + own.sum()

    for mixed, says in ((True, "unit by unit: what stands between mixes"), (False, "its inputs do not change")):
        net = Branches(mixed)
        with pytest.raises(ValueError, match=says):
            compress(net, "a", prune(rows_of(net, "a"), [0]), "c", calibration=normal(20, 4))


def test_norm_between_is_refused_when_seen():
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(ValueError, match="unit by unit: LayerNorm stands between"):
        compress(net, "0", prune(rows_of(net, "0"), [0]), "3")
    late = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 2))
    with pytest.raises(ValueError, match=r"'0' has a BatchNorm1d behind its activation.*: fold it into '3' first"):
        compress(late, "0", prune(rows_of(late, "0"), [0]), "3")
    grouped = nn.Sequential(nn.Conv1d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv1d(4, 2, 3))
    with pytest.raises(ValueError, match="convolution in groups"):
        rows_of(grouped, "0")


def test_units_that_differ_in_bias_alone_are_not_merged():
    """The way of the README: bootstrap, neurons, k-means, merge, compress; two of six units are nearly twins."""
    rows = torch.tensor([[1, 0, -1], [1, 0, 1], [0, 1, -1], [0, 1, 1], [0.6, 0.8, 0], [0.66, 0.75, 0]]).double()
    net = mlp(2, 6, 1, generator=seeded(0)).double()
    with torch.no_grad():
        net[0].weight.copy_(rows[:, :2])
        net[0].bias.copy_(rows[:, 2])
        net[2].weight.copy_(torch.tensor([[1.0, -1.0, 1.5, -0.5, 1.0, 1.0]]))
    x = torch.randn(400, 2, generator=seeded(1), dtype=torch.float64)
    y = net(x).detach() + 0.05 * torch.randn(400, 1, generator=seeded(2), dtype=torch.float64)
    ensemble = bootstrap(net, (x, y), F.mse_loss, n_models=50, generator=seeded(3))
    errors = {}
    for bias in (False, True):
        neurons = ensemble.neurons("0", bias=bias)
        labels = KMeans(5, metric=wasserstein2, generator=seeded(4)).fit_predict(neurons)
        small = compress(net, "0", merge(rows_of(net, "0"), labels), feeds="2")
        with torch.no_grad():
            errors[bias] = float((small(x) - net(x)).square().mean() / net(x).var())
    assert errors[True] < 1e-2 < 0.1 < errors[False]
