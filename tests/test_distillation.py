"""From a teacher's posterior to a student's prior, and the student."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mspace as ms
from mspace import seeded
from mspace.distillation import (
    compose_layers,
    distill,
    drop_layer,
    drop_neurons,
    mean_only,
    temper,
)
from mspace.distillation.students import SoftTargetLoss, teacher_outputs
from mspace.models import mlp
from mspace.network.parameters import flatten, positions, unflatten
from mspace.network.surgery import units_of
from mspace.posterior import Block, GaussianPosterior, laplace, variational
from mspace.posterior.variational.families import kl_divergence


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def full(model, scale=0.1, seed=1, **report):
    """A posterior whose parameters all correlate."""
    size = len(flatten(model))
    root = scale * normal(size, size + 5, seed=seed)
    return GaussianPosterior.of(model, [Block(torch.arange(size)[None], (root @ root.T / size**0.5)[None])], **report)


def by_neuron(model, scale=0.1):
    whole, blocks = full(model, scale), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            place = unflatten(model, torch.arange(len(flatten(model))))
            rows = torch.cat([place[f"{name}.weight"], place[f"{name}.bias"][:, None]], 1)
            blocks.append(Block(rows, torch.stack([whole.cov(r) for r in rows])))
    return GaussianPosterior.of(model, blocks)


def net(*sizes, **options):
    return mlp(*(sizes or (4, 6, 5, 3)), generator=seeded(0), **options).double()


def zeroed(model, feeds, units):
    """The network with the outgoing weights of some units at zero."""
    model = GaussianPosterior.of(model, []).model()
    with torch.no_grad():
        model.get_submodule(feeds).weight[:, units] = 0
    return model


# ---- the exactness lemma (O9.1)


@pytest.mark.parametrize("keep", [[0, 2, 3], [3, 1], [4]])
def test_conditioning_gives_the_exact_posterior_of_the_smaller_model(keep):
    """Features known, readout random: Bayesian linear regression, whose posterior has a formula."""
    model, x, y = net(3, 5, 1, activation=nn.Tanh), normal(30, 3), normal(30, 1, seed=2)
    noise, precision = 0.3, 0.7

    def exact(features):  # with its intercept
        design = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1)
        cov = torch.linalg.inv(design.T @ design / noise + precision * torch.eye(design.shape[1]).double())
        return (cov @ design.T @ y / noise).flatten(), cov

    features = torch.tanh(model[0](x)).detach()
    mean, cov = exact(features)
    at = positions(model, "2")  # weights (1, 5), then the bias
    rows = positions(model, "0")
    start = flatten(model)
    start[at] = mean
    prior = torch.eye(len(rows)).double()[None] / precision  # as where nothing is learned of them
    teacher = GaussianPosterior(model, start, [Block(at[None], cov[None]), Block(rows[None], prior)])
    found = drop_neurons(teacher, "0", "2", keep).marginal("2")
    small_mean, small_cov = exact(features[:, keep])
    assert torch.allclose(found.mean[found.index], small_mean, rtol=0, atol=1e-10)
    assert torch.allclose(found.cov(), small_cov, rtol=0, atol=1e-10)
    plainly = teacher.marginal(torch.cat([at[keep], at[-1:]]))  # what forgetting, in place of conditioning, would give
    assert (plainly.cov() - small_cov).abs().max() > 0.01


def test_the_lemma_through_laplace():
    """The same by the package's own estimator, which is exact for a linear model at its maximum."""
    model, x, y = net(3, 5, 1, activation=nn.Tanh), normal(30, 3), normal(30, 1, seed=2)
    noise, precision = 0.3, 0.7

    def at_maximum(model):
        with torch.no_grad():
            design = torch.cat([torch.tanh(model[0](x)), torch.ones(30, 1).double()], 1)
            gram = design.T @ design / noise + precision * torch.eye(design.shape[1]).double()
            best = torch.linalg.solve(gram, design.T @ y / noise).flatten()
            model[2].weight.copy_(best[None, :-1])
            model[2].bias.copy_(best[-1:])
        return laplace(model, (x, y), F.mse_loss, layers="2", noise=noise, prior_precision=precision)

    found = drop_neurons(at_maximum(model), "0", "2", [4, 0, 2])
    exact = at_maximum(found.model())
    assert torch.allclose(found.mean, exact.mean, rtol=0, atol=1e-10)
    assert torch.allclose(found.cov(), exact.cov(), rtol=0, atol=1e-10)


def test_one_formula_for_the_dense_case():
    """mu = m - S S_cc^-1 m_c, Xi = S - S S_cc^-1 S of what stays, by the letter, with rows and biases left out."""
    model = net(4, 6, 3)
    post, keep = full(model), [5, 0, 2]
    place = unflatten(model, torch.arange(len(flatten(model))))
    gone = place["2.weight"][:, [1, 3, 4]].reshape(-1)
    kept = torch.cat([v.reshape(-1) for v in (place["0.weight"][keep], place["0.bias"][keep])])
    kept = torch.cat([kept, place["2.weight"][:, keep].reshape(-1), place["2.bias"]])
    s = post.cov()
    gain = s[kept][:, gone] @ torch.linalg.inv(s[gone][:, gone])
    found = drop_neurons(post, "0", "2", keep)
    assert torch.allclose(found.mean, post.mean[kept] - gain @ post.mean[gone], rtol=0, atol=1e-10)
    assert torch.allclose(found.cov(), s[kept][:, kept] - gain @ s[gone][:, kept], rtol=0, atol=1e-10)
    far = post.mean[gone] @ torch.linalg.inv(s[gone][:, gone]) @ post.mean[gone]
    assert math.isclose(found.report["distance"], float(far), rel_tol=1e-8) and found.report["dof"] == 9


# ---- order, counts, names (O9.2, O9.3, O9.5)


def test_one_after_another_in_any_order_is_all_at_once():
    post = full(net(4, 6, 3))
    joint = drop_neurons(post, "0", "2", [0, 3, 5])
    turned = drop_neurons(
        drop_neurons(drop_neurons(post, "0", "2", [0, 1, 3, 4, 5]), "0", "2", [0, 1, 2, 4]), "0", "2", [0, 2, 3]
    )
    other = drop_neurons(drop_neurons(post, "0", "2", [0, 2, 3, 5]), "0", "2", [0, 2, 3])
    for found in (turned, other):
        assert torch.allclose(found.mean, joint.mean, rtol=0, atol=1e-10)
        assert torch.allclose(found.cov(), joint.cov(), rtol=0, atol=1e-10)


def test_layers_that_do_not_touch_go_in_either_order():
    post = full(net(4, 6, 3, 5, 2))
    one = drop_neurons(drop_neurons(post, "0", "2", [1, 4, 5]), "4", "6", [0, 3])
    other = drop_neurons(drop_neurons(post, "4", "6", [0, 3]), "0", "2", [1, 4, 5])
    assert torch.allclose(one.mean, other.mean, rtol=0, atol=1e-10)
    assert torch.allclose(one.cov(), other.cov(), rtol=0, atol=1e-10)


def test_of_two_layers_in_a_row_the_later_one_first_asks_for_less():
    """What goes from a unit that is dropped into another that is dropped need not be zero."""
    post = full(net())
    place = unflatten(post.template, torch.arange(len(post.mean)))
    rows, columns = [0, 3], [1, 4, 5]
    inner = place["2.weight"][rows][:, [0, 2, 3]].reshape(-1)
    at = torch.cat([place["4.weight"][:, [1, 2, 4]].reshape(-1), inner])
    want = post.condition(at.sort().values, 0.0)
    kept = torch.cat([place["0.weight"][columns].reshape(-1), place["0.bias"][columns]])
    kept = torch.cat([kept, place["2.weight"][rows][:, columns].reshape(-1), place["2.bias"][rows]])
    kept = torch.cat([kept, place["4.weight"][:, rows].reshape(-1), place["4.bias"]])
    found = drop_neurons(drop_neurons(post, "2", "4", rows), "0", "2", columns)
    assert torch.allclose(found.mean, want.mean[kept], rtol=0, atol=1e-10)
    assert torch.allclose(found.cov(), want.cov(kept), rtol=0, atol=1e-10)
    first = drop_neurons(post, "0", "2", columns)
    assert first.report["dof"] == 15 and found.report["dof"] == 6


@pytest.mark.parametrize("bias", [True, False])
def test_a_unit_takes_its_row_its_bias_and_its_column(bias):
    model = net(4, 6, 5, 3, bias=bias)
    found = drop_neurons(full(model), "2", "4", [0, 1, 2, 3])  # n_before + n_behind + 1 fewer
    assert len(flatten(model)) - len(found.mean) == 6 + 3 + bias
    assert len(found) == len(found.mean)


def test_keep_is_an_order_and_a_mask_is_one_too():
    post = full(net(4, 6, 3))
    assert (
        torch.equal(drop_neurons(post, "0", "2", [5, 1]).named()["0.weight"][0], post.named()["0.weight"][5] + 0)
        is False
    )
    some = by_neuron(net(4, 6, 3))
    assert torch.equal(drop_neurons(some, "0", "2", [5, 1]).named()["0.weight"], some.named()["0.weight"][[5, 1]])
    mask = torch.tensor([False, True, False, False, False, True])
    assert torch.equal(drop_neurons(post, "0", "2", mask).mean, drop_neurons(post, "0", "2", [1, 5]).mean)
    every = drop_neurons(post, "0", "2", range(6))
    assert torch.equal(every.mean, post.mean) and torch.equal(every.cov(), post.cov())


def test_a_number_of_units_is_a_choice_by_wald():
    post = full(net(4, 6, 3))
    worth = ms.relevance(post.neurons("2", axis=1))
    best = worth.argsort(descending=True)[:4].sort().values
    found = drop_neurons(post, "0", "2", 4)
    assert torch.equal(found.mean, drop_neurons(post, "0", "2", best).mean)
    for bad in (0, 7, True):
        with pytest.raises(ValueError, match="keep must be"):
            drop_neurons(post, "0", "2", bad)


def test_mean_field_is_a_choice_of_entries_in_the_order_of_torch():
    """With a square layer an (in, out) mask would fit as well, and choose the wrong weights."""
    model = net(6, 6, 6)
    variance = torch.rand(len(flatten(model)), generator=seeded(3), dtype=torch.float64)
    post = GaussianPosterior.of(model, [Block(torch.arange(len(variance))[:, None], variance[:, None, None])])
    found, keep = drop_neurons(post, "0", "2", [4, 1]), [4, 1]
    for values, small in ((post.named(), found.named()), (post.variance(), found.variance())):
        assert torch.equal(small["0.weight"], values["0.weight"][keep])
        assert torch.equal(small["0.bias"], values["0.bias"][keep])
        assert torch.equal(small["2.weight"], values["2.weight"][:, keep])
        assert torch.equal(small["2.bias"], values["2.bias"])
    named = dict(found.template.named_parameters())
    assert {k: tuple(v.shape) for k, v in named.items()} == {k: tuple(v.shape) for k, v in found.named().items()}


def test_the_template_at_the_mean_is_the_network_without_the_units():
    model, x = net(), normal(7, 4)
    post = GaussianPosterior.of(model, [])  # nothing random: units are cut, no more
    for layer, feeds, keep in (("0", "2", [1, 2, 5]), ("2", "4", [4, 0])):
        small = drop_neurons(post, layer, feeds, keep).model()
        gone = [i for i in range(model.get_submodule(layer).out_features) if i not in keep]
        assert torch.allclose(small(x), zeroed(model, feeds, gone)(x), atol=1e-12)


# ---- convolutions: what stands between goes along


class Little(nn.Module):
    """The wiring of EEGNet: temporal filters, spatial filters of each, separable, pointwise, dense."""

    def __init__(self, f=4, d=2, f2=3):
        super().__init__()
        self.temporal = nn.Conv2d(1, f, (1, 5), padding="same", bias=False)
        self.norm1 = nn.BatchNorm2d(f)
        self.spatial = nn.Conv2d(f, f * d, (3, 1), groups=f, bias=False)
        self.norm2 = nn.BatchNorm2d(f * d)
        self.separable = nn.Conv2d(f * d, f * d, (1, 3), groups=f * d, padding="same", bias=False)
        self.pointwise = nn.Conv2d(f * d, f2, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(f2)
        self.dense = nn.Linear(f2 * 4, 2)

    def forward(self, x):
        h = F.elu(self.norm2(self.spatial(self.norm1(self.temporal(x)))))
        h = F.elu(self.norm3(self.pointwise(self.separable(h))))
        return self.dense(F.avg_pool2d(h, (1, 2)).flatten(1))


THROUGH = ("norm1", "spatial", "norm2", "separable")


@pytest.fixture(scope="module")
def little():
    torch.manual_seed(0)
    model = Little().double()
    model.train()(normal(20, 1, 3, 8))
    with torch.no_grad():
        for norm in (model.norm1, model.norm2, model.norm3):
            norm.weight.copy_(normal(len(norm.weight), seed=5))
            norm.bias.copy_(normal(len(norm.bias), seed=6))
    return model.eval()


def test_a_temporal_filter_takes_all_that_is_its_own(little):
    keep = [2, 0]
    found = drop_neurons(GaussianPosterior.of(little, []), "temporal", "pointwise", keep, through=THROUGH)
    gone = [2 * u + i for u in (1, 3) for i in (0, 1)]
    x = normal(5, 1, 3, 8, seed=9)
    assert torch.allclose(found.model()(x), zeroed(little, "pointwise", gone)(x), atol=1e-12)
    shapes = {k: tuple(v.shape) for k, v in found.named().items()}
    assert shapes["temporal.weight"] == (2, 1, 1, 5) and shapes["spatial.weight"] == (4, 1, 3, 1)
    assert shapes["separable.weight"] == (4, 1, 1, 3) and shapes["pointwise.weight"] == (3, 4, 1, 1)
    one = 5 + 2 + 2 * 3 + 2 * 2 + 2 * 3 + 2 * 3  # temporal, norm1, spatial, norm2, separable, pointwise
    assert len(flatten(little)) - len(found.mean) == 2 * one
    units = units_of(little, "temporal", "pointwise", THROUGH)
    assert len(units.columns(torch.tensor([1]))) == 3 * 2  # F2 D numbers are conditioned on


def test_a_convolution_s_posterior_moves_as_the_formula_says(little):
    post, keep = full(little), [0, 1, 3]
    found = drop_neurons(post, "temporal", "pointwise", keep, through=THROUGH)
    place = unflatten(little, torch.arange(len(flatten(little))))
    gone = place["pointwise.weight"][:, [4, 5]].reshape(-1)
    s, kept = post.cov(), place["spatial.weight"][[0, 1, 2, 3, 6, 7]].reshape(-1)
    gain = s[kept][:, gone] @ torch.linalg.inv(s[gone][:, gone])
    want = (post.mean[kept] - gain @ post.mean[gone]).reshape(6, 1, 3, 1)
    assert torch.allclose(found.named()["spatial.weight"], want, atol=1e-9)


def test_a_number_of_filters_is_a_choice_by_all_that_goes_out(little):
    post = full(little)
    worth = [
        drop_neurons(post, "temporal", "pointwise", [u for u in range(4) if u != out], through=THROUGH)
        for out in range(4)
    ]
    best = torch.tensor([q.report["distance"] for q in worth]).argsort(descending=True)[:2].sort().values
    found = drop_neurons(post, "temporal", "pointwise", 2, through=THROUGH)
    assert torch.equal(found.mean, drop_neurons(post, "temporal", "pointwise", best, through=THROUGH).mean)


def test_a_dense_layer_behind_pooling_loses_all_places_of_a_filter(little):
    found = drop_neurons(GaussianPosterior.of(little, []), "pointwise", "dense", [0, 2], through="norm3")
    x = normal(5, 1, 3, 8, seed=9)
    assert torch.allclose(found.model()(x), zeroed(little, "dense", [4, 5, 6, 7])(x), atol=1e-12)


def test_what_stands_between_is_found_in_a_sequence():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    model = model.double().eval()
    with torch.no_grad():
        model[1].running_mean.copy_(normal(4))
    found = drop_neurons(GaussianPosterior.of(model, []), "0", "5", [3, 1]).model()
    x = normal(6, 1, 6, 6)
    assert torch.allclose(found(x), zeroed(model, "5", [0, 1, 2, 3, 8, 9, 10, 11])(x), atol=1e-12)


# ---- layers (O9.4)


def near_identity(activation=nn.ReLU, away=0.0):
    model = net(4, 5, 5, 3, activation=activation)
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(5) + away)
        model[2].bias.zero_()
    return model


def test_an_identity_layer_goes_without_a_trace_behind_a_relu():
    post, x = full(near_identity(), 0.3), normal(9, 4)
    found = drop_layer(post, "2")
    assert torch.allclose(found.model()(x), post.model()(x), atol=1e-9)
    assert found.report["distance"] < 1e-12 and found.report["dof"] == 30
    assert list(found.named()) == ["0.weight", "0.bias", "4.weight", "4.bias"]


def test_a_layer_near_the_identity_moves_the_others_as_the_formula_says():
    model = near_identity(away=0.02)
    post = full(model, 0.3)
    at, rest = positions(model, "2"), torch.cat([positions(model, "0"), positions(model, "4")])
    goal, s = torch.cat([torch.eye(5).double().reshape(-1), torch.zeros(5).double()]), post.cov()
    gain = s[rest][:, at] @ torch.linalg.inv(s[at][:, at])
    found = drop_layer(post, "2")
    assert torch.allclose(found.mean, post.mean[rest] + gain @ (goal - post.mean[at]), atol=1e-9)
    assert torch.allclose(found.cov(), s[rest][:, rest] - gain @ s[at][:, rest], atol=1e-9)


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.Tanh, nn.ELU])
def test_other_activations_are_refused(activation):
    with pytest.raises(ValueError, match=r"idempotent.*compose_layers"):
        drop_layer(full(near_identity(activation)), "2")
    model, x = near_identity(nn.LeakyReLU), normal(50, 4)
    shorter = nn.Sequential(model[0], model[1], model[4])
    assert (model(x) - shorter(x)).abs().max() > 1e-3  # and rightly so
    shorter = nn.Sequential(near_identity()[0], nn.ReLU(), near_identity()[4])
    assert torch.allclose(near_identity()(x), shorter(x))


def test_the_last_layer_has_no_activation_that_could_matter():
    model = net(4, 3, 3, activation=nn.Tanh)
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(3)), model[2].bias.zero_()
    x = normal(5, 4)
    assert torch.allclose(drop_layer(full(model), "2").model()(x), model(x))
    with pytest.raises(ValueError, match="cannot be the identity unseen"):  # nothing before, ReLU behind
        drop_layer(full(net(4, 4, 2)), "0")


def test_a_convolution_can_be_the_identity():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 1)
    )
    model = model.double()
    with torch.no_grad():
        nn.init.dirac_(model[2].weight), model[2].bias.zero_()
    x = normal(2, 1, 6, 6)
    assert torch.allclose(drop_layer(full(model), "2").model()(x), model(x))
    model[2] = nn.Conv2d(3, 3, 3).double()  # cuts the edges off
    with pytest.raises(ValueError, match="cannot be the identity"):
        drop_layer(full(model), "2")


def test_a_layer_far_from_the_identity_is_refused_and_may_be_insisted_on():
    post = full(net(4, 5, 5, 3), 0.02)
    with pytest.raises(ValueError, match=r"far from the identity.*30 degrees.*compose_layers"):
        drop_layer(post, "2")
    found = drop_layer(post, "2", farthest=math.inf)
    assert found.report["distance"] > 10 * 30


def test_composition_of_linear_layers_is_their_product():
    model, x = net(4, 5, 5, 3, activation=nn.Identity), normal(20, 4)
    found = compose_layers(GaussianPosterior.of(model, []), "2", "4", x)
    assert torch.allclose(found.model()(x), model(x), atol=1e-12)
    assert list(found.named()) == ["0.weight", "0.bias", "4.weight", "4.bias"]


@pytest.mark.parametrize("bias", [True, False])
def test_composition_has_the_moments_of_the_product(bias):
    """Independent rows, the activation a line: mean and covariance of the product against draws."""
    model, x = net(4, 3, 2, activation=nn.Identity, bias=bias), normal(50, 4)
    place, whole, blocks = unflatten(model, torch.arange(len(flatten(model)))), full(model, 0.8), []
    for name in ("0", "2"):
        parts = [place[f"{name}.weight"]] + ([place[f"{name}.bias"][:, None]] if bias else [])
        rows = torch.cat(parts, 1)
        blocks.append(Block(rows, torch.stack([whole.cov(r) for r in rows])))
    post = GaussianPosterior.of(model, blocks)
    found = compose_layers(post, "0", "2", x)
    drawn = post.sample(100_000, seeded(3)).parameters
    w = drawn["2.weight"] @ drawn["0.weight"]
    b = (drawn["2.weight"] @ drawn["0.bias"][..., None])[..., 0] + drawn["2.bias"] if bias else w.new_zeros(len(w), 2)
    flat = torch.cat([w.flatten(1), b], 1)
    assert ((found.mean - flat.mean(0)).abs() <= 5 * flat.std(0) / len(flat) ** 0.5 + 1e-12).all()
    want = flat.T.cov()
    assert (found.cov(torch.arange(len(flat.T))) - want).abs().max() < 0.04 * want.abs().max()


def test_composition_is_the_nearest_line_for_a_relu():
    model, x = net(4, 5, 5, 3), normal(400, 4)
    found = compose_layers(by_neuron(model), "2", "4", x).model()
    behind = model[:2](x)
    line = torch.linalg.lstsq(torch.cat([behind, torch.ones(400, 1).double()], 1), model(x)).solution
    best = torch.cat([behind, torch.ones(400, 1).double()], 1) @ line
    away, least = (found(x) - model(x)).square().mean(), (best - model(x)).square().mean()
    assert least <= away < 1.5 * least + 1e-3


# ---- priors


def test_tempering_is_a_power_of_the_likelihood():
    """Linear regression: the posterior to the power rho is the posterior in which each example counts rho times."""
    x, y, noise, precision, rho = normal(20, 4), normal(20, 1, seed=2), 0.4, 0.8, 0.3
    model = nn.Linear(4, 1, bias=False).double()

    def posterior(weight):
        cov = torch.linalg.inv(weight * x.T @ x / noise + precision * torch.eye(4).double())
        return GaussianPosterior(
            model, (cov @ x.T @ y * weight / noise).flatten(), [Block(torch.arange(4)[None], cov[None])]
        )

    found, want = temper(posterior(1.0), rho, prior_precision=precision), posterior(rho)
    assert torch.allclose(found.mean, want.mean, atol=1e-12) and torch.allclose(found.cov(), want.cov(), atol=1e-12)
    ends = temper(posterior(1.0), 0.0, prior_precision=precision), temper(posterior(1.0), 1.0)
    assert torch.allclose(ends[0].cov(), torch.eye(4).double() / precision) and (ends[0].mean == 0).all()
    assert torch.allclose(ends[1].cov(), posterior(1.0).cov()) and torch.allclose(ends[1].mean, posterior(1.0).mean)


def test_the_same_examples_twice_halve_the_variance():
    x, noise = normal(200, 4), 0.4
    once = torch.linalg.inv(x.T @ x / noise + torch.eye(4).double())
    twice = torch.linalg.inv(torch.linalg.inv(once) + x.T @ x / noise)
    assert 1.9 < float((once.diagonal() / twice.diagonal()).mean()) < 2.0


def test_the_mean_alone():
    post = full(net(4, 3, 2))
    found = mean_only(post, prior_precision=5.0)
    assert torch.equal(found.mean, post.mean) and torch.allclose(found.cov(), torch.eye(len(post)).double() / 5)


# ---- the student


def test_the_gradient_of_the_softened_loss():
    out, labels = normal(6, 4).requires_grad_(), torch.tensor([0, 1, 2, 3, 0, 1])
    soft = normal(6, 4, seed=3).softmax(1)
    target = labels, soft
    loss = SoftTargetLoss(3.0, 0.7)
    (slope,) = torch.autograd.grad(loss(out, target), out)
    step, numeric = 1e-6, torch.zeros_like(slope)
    with torch.no_grad():
        for i in range(6):
            for j in range(4):
                away = torch.zeros(6, 4).double()
                away[i, j] = step
                numeric[i, j] = (loss(out + away, target) - loss(out - away, target)) / (2 * step)
    assert torch.allclose(slope, numeric, atol=1e-8)
    want = 0.3 * (out.softmax(1) - F.one_hot(labels, 4)) + 0.7 * 3 * ((out / 3).softmax(1) - soft)
    assert torch.allclose(slope, want.detach() / 6, atol=1e-12)


def test_at_a_high_temperature_logits_are_matched():
    """T^2 keeps the gradient of one size: it goes to the difference of centred logits over the classes."""
    out, teacher = normal(5, 4).requires_grad_(), normal(5, 4, seed=3)
    t = 1e4
    target = torch.zeros(5, dtype=torch.long), (teacher / t).softmax(1)
    (slope,) = torch.autograd.grad(SoftTargetLoss(t, 1.0)(out, target), out)
    away = (out - teacher).detach()
    assert torch.allclose(slope * 5, (away - away.mean(1, keepdim=True)) / 4, atol=1e-3)


def test_without_information_the_posterior_is_the_prior():
    """Answers so noisy that they say nothing: KL(q | prior) is nothing, whatever the start."""
    model, x = net(3, 4, 1), normal(10, 3)
    prior = by_neuron(model, 0.5)
    quick = partial(torch.optim.LBFGS, lr=1, max_iter=200, line_search_fn="strong_wolfe")
    found = distill(
        net(3, 4, 1),
        mlp(3, 4, 1, generator=seeded(9)).double(),
        (x, normal(10, 1)),
        F.mse_loss,
        prior=prior,
        noise=1e12,
        epochs=3,
        batch_size=None,
        optimizer=quick,
        generator=seeded(0),
    )
    assert kl_divergence(found, prior) < 1e-6
    assert torch.allclose(found.mean, prior.mean, atol=1e-3)


def test_a_linear_student_of_labels_and_answers_is_exact():
    """Mixed targets in closed form: prior times likelihood, by Bayesian linear regression."""
    x, y = normal(40, 3), normal(40, 1, seed=2)
    teacher, student = nn.Linear(3, 1).double(), nn.Sequential(nn.Linear(3, 1)).double()
    prior = full(student, 0.5)
    quick = partial(torch.optim.LBFGS, lr=1, max_iter=200, line_search_fn="strong_wolfe")
    options = {"epochs": 3, "batch_size": None, "optimizer": quick, "noise": 0.5, "generator": seeded(0)}
    for mix in (0.0, 0.3, 1.0):
        found = distill(teacher, student, (x, y), F.mse_loss, prior=prior, mix=mix, **options)
        target = (1 - mix) * y + mix * teacher(x).detach()
        design, inverse = torch.cat([x, torch.ones(40, 1).double()], 1), torch.linalg.inv(prior.cov())
        cov = torch.linalg.inv(design.T @ design / 0.5 + inverse)
        mean = cov @ (design.T @ target.flatten() / 0.5 + inverse @ prior.mean)
        assert torch.allclose(found.mean, mean, atol=1e-5) and torch.allclose(found.cov(), cov, atol=2e-5)
        assert found.report["mix"] == mix and found.report["likelihood"] == "gaussian"


def test_answers_average_probabilities_over_draws():
    model, x = net(4, 5, 3), normal(7, 4)
    post = full(model, 0.5)
    found = teacher_outputs(post, x, temperature=2.0, n_samples=50, generator=seeded(1))
    drawn = post.sample(50, seeded(1))
    assert torch.allclose(found, (drawn(x) / 2).softmax(2).mean(0))
    assert torch.allclose(teacher_outputs(model, x), model(x)) and torch.allclose(
        teacher_outputs(model, x, temperature=1.0), model(x).softmax(1)
    )
    awake = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double().train()
    assert torch.allclose(teacher_outputs(awake, x), awake[0](x)) and awake.training and awake[1].training


def test_a_student_learns_from_answers_alone():
    x, teacher, start = normal(200, 2), nn.Linear(2, 2).double(), mlp(2, 6, 2, generator=seeded(4)).double()
    with torch.no_grad():
        teacher.weight.copy_(torch.tensor([[3.0, 3.0], [-3.0, -3.0]])), teacher.bias.zero_()
    quick = {"epochs": 100, "batch_size": 50, "optimizer": partial(torch.optim.Adam, lr=1e-2), "generator": seeded(0)}
    found = distill(teacher, start, x, F.cross_entropy, prior=None, prior_precision=0.1, **quick)
    assert found.report["mix"] == 1.0 and found.report["likelihood"] == "categorical"
    agree = (ms.predict(found, x, generator=seeded(1)).argmax(1) == teacher(x).argmax(1)).double().mean()
    before = (start(x).argmax(1) == teacher(x).argmax(1)).double().mean()
    assert agree > 0.9 > before


def test_labels_alone_are_plain_variational_bayes():
    x, y = normal(30, 4), torch.arange(30) % 3
    model = net(4, 5, 3)
    found = distill(None, model, (x, y), F.cross_entropy, prior=None, mix=0.0, epochs=3, generator=seeded(0))
    want = variational(model, (x, y), F.cross_entropy, epochs=3, generator=seeded(0))
    assert torch.equal(found.mean, want.mean)


def test_a_convolutional_student(little):
    prior = drop_neurons(full(little, 0.3), "temporal", "pointwise", [0, 3], through=THROUGH)
    x, y = normal(12, 1, 3, 8, seed=3), torch.arange(12) % 2
    found = distill(
        little, None, (x, y), F.cross_entropy, prior=prior, epochs=2, batch_size=6, draws=2, generator=seeded(0)
    )
    assert len(found.mean) == len(prior.mean) and ms.predict(found, x, size=5, generator=seeded(1)).shape == (12, 2)


def test_nothing_is_changed_in_place():
    model = net()
    post = full(model)
    before, cov = flatten(post.template).clone(), post.cov().clone()
    drop_neurons(post, "0", "2", [0, 1]), temper(post, 0.5), compose_layers(by_neuron(model), "2", "4", normal(9, 4))
    drop_layer(full(near_identity()), "2")
    assert torch.equal(flatten(post.template), before) and torch.equal(post.cov(), cov)
    assert post.template[0].out_features == 6


# ---- bad input


@pytest.mark.parametrize(
    "keep", [[], [0, 0], [6], [-1], [0.5, 1.0], [True] * 5, "01", torch.zeros(6, dtype=torch.bool)]
)
def test_units_to_keep_must_be_units(keep):
    with pytest.raises(ValueError, match="keep must be"):
        drop_neurons(full(net(4, 6, 3)), "0", "2", keep)


@pytest.mark.parametrize(
    "layer, feeds, through, said",
    [
        ("1", "2", None, "layer must name layers with parameters"),
        ("0", "7", None, "feeds must name layers with parameters"),
        ("0", "4", None, "mixes their units"),
        ("2", "0", None, "comes before it"),
        ("0", "0", None, "comes before|different|reads"),
    ],
)
def test_the_wiring_must_be_there(layer, feeds, through, said):
    with pytest.raises(ValueError, match=said):
        drop_neurons(full(net()), layer, feeds, [0], through=through)


def test_groups_that_are_not_named_are_refused(little):
    post = GaussianPosterior.of(little, [])
    with pytest.raises(ValueError, match="through="):
        drop_neurons(post, "temporal", "spatial", [0])
    with pytest.raises(ValueError, match="row of its own"):
        drop_neurons(post, "spatial", "pointwise", [0])


def test_only_a_posterior_is_transformed():
    for call in (
        lambda p: drop_neurons(p, "0", "2", [0]),
        lambda p: drop_layer(p, "2"),
        lambda p: temper(p, 0.5),
    ):
        with pytest.raises(ValueError, match="posterior must be a GaussianPosterior"):
            call(net())


def test_layers_that_cannot_go():
    with pytest.raises(ValueError, match="square"):
        drop_layer(full(net()), "2")
    with pytest.raises(ValueError, match=r"nn\.Sequential"):
        drop_layer(full(net()), "nowhere")
    with pytest.raises(ValueError, match="without variance"):
        drop_layer(full(near_identity()).marginal("0"), "2")
    normalised = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with pytest.raises(ValueError, match="fold what stands between"):
        compose_layers(GaussianPosterior.of(normalised, []), "0", "2", torch.randn(5, 2))


@pytest.mark.parametrize("rho", [-0.1, 1.1, True, "1", math.nan])
def test_rho_is_a_share(rho):
    with pytest.raises(ValueError, match="rho must be"):
        temper(full(net()), rho)


BAD = [
    ({"temperature": 0.5}, "temperature"),
    ({"temperature": math.nan}, "temperature"),
    ({"mix": 1.5}, "mix must be"),
    ({"mix": -0.1}, "mix must be"),
    ({"loss": F.l1_loss}, "loss must be"),
    ({"teacher": None}, "teacher must be given"),
    ({"teacher": "net"}, "teacher must be a module"),
    ({"data": None}, "data must be inputs"),
    ({"data": (normal(9, 4), torch.arange(8) % 3)}, "as many targets as inputs"),
    ({"data": normal(0, 4)}, "data must hold"),
    ({"data": normal(9, 4) / 0}, "data must be finite"),
    ({"data": normal(9, 4).half()}, "data must be torch.float64, as the student is"),
    ({"noise": 1.0}, "noise belongs"),
    ({"student": None}, "student must be a network"),
    ({"prior": "p"}, "prior must be a GaussianPosterior"),
]


@pytest.mark.parametrize("changed, said", BAD)
def test_a_student_s_arguments(changed, said):
    args = {"teacher": net(4, 5, 3), "student": net(4, 5, 3), "data": (normal(9, 4), torch.arange(9) % 3)}
    args |= {"loss": F.cross_entropy, "prior": None, "epochs": 1} | changed
    with pytest.raises(ValueError, match=said):
        distill(**args)


def test_labels_and_targets_must_suit_the_teacher():
    x = normal(9, 4)
    with pytest.raises(ValueError, match="classes"):
        distill(net(4, 5, 3), net(4, 5, 3), (x, torch.arange(9)), F.cross_entropy, prior=None)
    with pytest.raises(ValueError, match="labels where mix is 0"):
        distill(net(4, 5, 3), net(4, 5, 3), x, F.cross_entropy, prior=None, mix=0.0)
    with pytest.raises(ValueError, match="of the shape of the teacher's outputs"):
        distill(net(4, 5, 1), net(4, 5, 1), (x, normal(9)), F.mse_loss, prior=None)
    with pytest.raises(ValueError, match="noise must be given"):
        distill(net(4, 5, 1), net(4, 5, 1), x, F.mse_loss, prior=None)


@pytest.mark.parametrize(
    "student, said",
    [
        ((4, 8, 3), "in their order"),
        ((4, 5, 3), "drop_neurons"),
        ((4, 6, 6, 3), "parameters of the student in their order"),
    ],
)
def test_a_prior_of_another_shape_or_order_is_refused(student, said):
    data = (normal(9, 4), torch.arange(9) % 3)
    with pytest.raises(ValueError, match=said):
        distill(net(4, 6, 3), net(*student), data, F.cross_entropy, prior=full(net(4, 6, 3)))


def test_a_prior_whose_parameters_come_in_another_order_is_refused():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a = nn.Linear(5, 3), nn.Linear(4, 5)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    class Straight(Turned):
        def __init__(self):
            nn.Module.__init__(self)
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    data = (normal(9, 4), torch.arange(9) % 3)
    with pytest.raises(ValueError, match="in their order"):
        distill(net(4, 6, 3), Straight().double(), data, F.cross_entropy, prior=full(Turned().double()))
