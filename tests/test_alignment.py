"""Oracles O4.1 to O4.3 of alignment: what was planted is found, and no network computes anything else."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from mspace.alignment import align
from mspace.alignment.matching import gauge, medoid
from mspace.alignment.wiring import hidden_of, read
from mspace.models import OrthogonalAutoencoder, mlp
from mspace.network.symmetry import Symmetry, symmetry_of
from mspace.training.ensemble import Ensemble

N, UNITS = 6, 12


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def net(*sizes, activation=nn.Tanh, seed=0):
    """A network far from linear: weights of unit order."""
    model = mlp(*sizes, activation=activation, generator=seeded(seed)).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(noise(*p.shape, seed=100 * seed + i))
    return model


def noisy(model, n=N, level=0.05):
    """n copies with noise of that share of each weight's size: an ensemble with nothing to align."""
    stacked = {
        k: torch.stack([p + level * p.square().mean().sqrt() * noise(*p.shape, seed=1000 * j + i) for i in range(n)])
        for j, (k, p) in enumerate((k, p.detach()) for k, p in model.named_parameters())
    }
    return Ensemble(copy.deepcopy(model), stacked)


def permutation(m, seed):
    return torch.eye(m, dtype=torch.float64)[torch.randperm(m, generator=seeded(seed))]


def signs(m, seed):
    return torch.where(torch.rand(m, generator=seeded(seed)) < 0.5, -1.0, 1.0).double()


def scales(m, seed):
    return (0.7 * noise(m, seed=seed)).exp()


def rotation(m, seed):
    return torch.linalg.qr(noise(m, m, seed=seed))[0]


def invertible(m, seed):
    return rotation(m, seed) @ torch.diag(torch.linspace(0.5, 2, m).double()) @ rotation(m, seed + 1000)


PLANTED = {  # by hidden activation: the G planted in member i, and the value at 0 that reflections have to make good
    nn.Tanh: (lambda m, i: signs(m, i)[:, None] * permutation(m, i), 0.0, "permutation"),
    nn.Sigmoid: (lambda m, i: signs(m, i)[:, None] * permutation(m, i), 0.5, "permutation"),
    nn.ReLU: (lambda m, i: scales(m, i)[:, None] * permutation(m, i), 0.0, "permutation"),
    nn.GELU: (permutation, 0.0, "permutation"),
    nn.Identity: (rotation, 0.0, "orthogonal"),
    "linear": (invertible, 0.0, "linear"),
}
GROUPS = pytest.mark.parametrize("kind", PLANTED, ids=lambda k: getattr(k, "__name__", k))


def activation_of(kind):
    return nn.Identity if kind == "linear" else kind


def transformed(ensemble, kind):
    """The ensemble with an element of the group planted in each hidden layer of each member, written out by hand."""
    draw, centre, _ = PLANTED[kind]
    parameters = {k: v.clone() for k, v in ensemble.parameters.items()}
    dense = [k.removesuffix(".weight") for k in parameters if k.endswith(".weight")]
    for i in range(len(ensemble)):
        for depth, (a, b) in enumerate(pairwise(dense)):
            g = draw(parameters[f"{a}.weight"].shape[1], 10 * i + depth + 1)
            inverse = torch.linalg.inv(g)
            parameters[f"{a}.weight"][i] = g @ parameters[f"{a}.weight"][i]
            parameters[f"{a}.bias"][i] = g @ parameters[f"{a}.bias"][i]
            parameters[f"{b}.weight"][i] = parameters[f"{b}.weight"][i] @ inverse
            if centre:  # units that were y give 2 * centre - y
                turned = (g.sum(1) < 0).double()
                parameters[f"{b}.bias"][i] += parameters[f"{b}.weight"][i] @ (-2 * centre * turned)
    return replace(ensemble, parameters=parameters)


def apart(ours, theirs):
    """Largest difference of any weight."""
    return max(float((ours.parameters[k] - theirs.parameters[k]).abs().max()) for k in ours.parameters)


def spread(ensemble):
    return sum(float(v.var(0).sum()) for v in ensemble.parameters.values())


@GROUPS
def test_planting_keeps_the_function(kind):
    """The test's own arithmetic: without it the tests below would prove nothing."""
    straight = noisy(net(6, UNITS, UNITS, 14, activation=activation_of(kind)))
    planted = transformed(straight, kind)
    assert apart(straight, planted) > 1 and torch.allclose(straight(noise(9, 6)), planted(noise(9, 6)), atol=1e-9)


@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid, nn.GELU])
@pytest.mark.parametrize("hidden", [(UNITS,), (UNITS, 10), (UNITS, 10, 8)], ids="one two three".split())
def test_planted_permutations_are_found(kind, hidden):
    """O4.1: permutations, with signs for tanh and reflections for sigmoid; every single one, at any depth."""
    base = net(6, *hidden, 3, activation=kind)
    straight = noisy(base)
    for to in (base, 0):
        found = align(transformed(straight, kind), to)
        expected = straight if to is base else align(straight, transformed(straight, kind)[0])
        assert apart(found, expected) < 1e-12
    assert found.report["aligned"].all() and found.report["residual_after"].max() < 0.1
    assert (found.report["residual_before"][1:] > 0.5).all() and found.report["residual_after"][0] == 0


@pytest.mark.parametrize("hidden", [(UNITS,), (UNITS, 10), (UNITS, 10, 8)], ids="one two three".split())
def test_planted_scales_are_found(hidden):
    """O4.1: permutations and positive scales of ReLU; the scales that remain are those of unit rows [w, b]."""
    base = net(6, *hidden, 3, activation=nn.ReLU)
    straight = noisy(base)
    found = align(transformed(straight, nn.ReLU), base)
    unit = {k: v.clone() for k, v in straight.parameters.items()}
    for a, b in zip(range(0, 2 * len(hidden), 2), range(2, 2 * len(hidden) + 2, 2)):
        norm = torch.cat([unit[f"{a}.weight"], unit[f"{a}.bias"][..., None]], -1).norm(dim=-1)
        unit[f"{a}.weight"] /= norm[..., None]
        unit[f"{a}.bias"] /= norm
        unit[f"{b}.weight"] *= norm[:, None]
    assert apart(found, replace(straight, parameters=unit)) < 1e-12
    assert found.report["aligned"].all()


@pytest.mark.parametrize("hidden", [(UNITS,), (UNITS, UNITS)], ids="one two".split())
def test_planted_rotations_are_found(hidden):
    """O4.1: of linear units; exactly without noise, and with it no further off than the noise itself."""
    base = net(14, *hidden, 14, activation=nn.Identity)
    exact = align(transformed(noisy(base, level=0), nn.Identity), base, group="orthogonal")
    assert apart(exact, noisy(base, level=0)) < 1e-6
    straight = noisy(base)
    found = align(transformed(straight, nn.Identity), base, group="orthogonal")
    best = align(straight, base, group="orthogonal")  # the noise, too, is turned a little
    assert apart(found, best) < 1e-4 and apart(best, straight) < 0.5
    assert spread(found) <= spread(straight) * 1.01 and found.report["residual_after"].max() < 0.06


@pytest.mark.parametrize("hidden", [(UNITS,), (UNITS, UNITS)], ids="one two".split())
def test_planted_linear_changes_are_found(hidden):
    """O4.1: any invertible matrix between linear layers; balanced layers are what they are compared in."""
    base = net(14, *hidden, 14, activation=nn.Identity)
    straight = noisy(base)
    found, best = (align(e, base, group="linear") for e in (transformed(straight, "linear"), straight))
    assert apart(found, best) < 1e-5
    for i in range(N):
        for a, b in zip(range(0, 2 * len(hidden), 2), range(2, 2 * len(hidden) + 2, 2)):
            w, v = found.parameters[f"{a}.weight"][i], found.parameters[f"{b}.weight"][i]
            assert torch.allclose(w @ w.T, v.T @ v, atol=1e-8)
    assert found.report["residual_after"].max() < 0.1 < 0.5 < found.report["residual_before"].min()


@GROUPS
@pytest.mark.parametrize("hidden", [(UNITS,), (UNITS, 10), (10, UNITS, 10)], ids="one two three".split())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_are_kept(kind, hidden, dtype):
    """O4.2: every group, at every depth; and the arguments are left alone."""
    if kind == "linear":  # layers that can be balanced
        hidden = [UNITS] * len(hidden)
    ensemble = transformed(noisy(net(14, *hidden, 13, activation=activation_of(kind))), kind)
    ensemble = Ensemble(
        ensemble.template.to(dtype),
        {k: v.to(dtype) for k, v in ensemble.parameters.items()},
        {},
        {"loss": torch.arange(N)},
    )
    before = {k: v.clone() for k, v in ensemble.parameters.items()}
    x = noise(20, 14).to(dtype)
    found = align(ensemble, group=PLANTED[kind][2])
    y = ensemble(x)
    assert (found(x) - y).abs().max() < (1e-6 if dtype == torch.float32 else 1e-12) * max(1, y.abs().max())
    assert all(torch.equal(v, before[k]) for k, v in ensemble.parameters.items()) and ensemble.report.keys() == {"loss"}
    assert all(v.dtype == dtype for v in found.parameters.values()) and apart(found, ensemble) > 0.1
    assert torch.equal(found.report["loss"], ensemble.report["loss"]) and found.report["aligned"].all()
    assert torch.allclose(found[1](x), found(x)[1], atol=1e-4 if dtype == torch.float32 else 1e-10)


@GROUPS
def test_order_does_not_matter(kind):
    """Which member comes first decides nothing, not even the common labels; the mean is a fixed point."""
    group = PLANTED[kind][2]
    ensemble = transformed(noisy(net(14, UNITS, UNITS, 13, activation=activation_of(kind))), kind)
    order = torch.randperm(N, generator=seeded(3))
    found, other = align(ensemble, group=group), align(ensemble.keep(order), group=group)
    assert apart(found.keep(order), other) < 1e-6
    assert apart(align(found, group=group), found) < (1e-12 if group == "permutation" else 1e-3)


def test_linear_autoencoders():
    """O4.3: 20-2-20 at its optimum, in the basis each run happened to end in."""
    t = torch.arange(300, dtype=torch.float64)
    x = torch.sin(2 * math.pi * t / 16).unfold(0, 20, 1) + 0.1 * noise(281, 20)
    u = torch.linalg.svd(x, full_matrices=False)[2][:2].T
    models = []
    for i in range(30):
        model = OrthogonalAutoencoder(20, 2, constrain="none", bias=False, generator=seeded(i)).double()
        g = invertible(2, i)
        with torch.no_grad():
            model.encoder.weight.copy_(g @ u.T + 1e-3 * noise(2, 20, seed=i))
            model.decoder.weight.copy_(u @ torch.linalg.inv(g) + 1e-3 * noise(20, 2, seed=i + 50))
        models.append(model)
    ensemble = Ensemble.of(models)
    trace = {}
    for group in ("linear", "orthogonal", "permutation"):
        found = align(ensemble, group=group) if group != "permutation" else ensemble
        trace[group] = float(found.neurons("decoder").cov.diagonal(dim1=1, dim2=2).sum())
    assert trace["permutation"] / trace["linear"] > 1e3
    assert trace["orthogonal"] > 10 * trace["linear"]  # a rotation is not enough


@pytest.mark.parametrize("gain", [False, True])
def test_orthonormal_layers_stay_orthonormal(gain):
    """Rotations of a constrained network: same function, plain weights, still orthonormal."""
    models = []
    base = OrthogonalAutoencoder(9, 3, gain=gain, generator=seeded()).double()
    for i in range(5):
        model, r = copy.deepcopy(base), rotation(3, i + 1)
        with torch.no_grad():
            model.encoder.weight, model.decoder.weight = r @ base.encoder.weight, base.decoder.weight @ r.T
            model.encoder.bias.copy_(r @ base.encoder.bias)
            if gain:
                model.gain.fill_(0.5 + i / 100)
        models.append(model)
    ensemble, x = Ensemble.of(models), noise(8, 9)
    found = align(ensemble, group="orthogonal")
    assert (found(x) - ensemble(x)).abs().max() < 1e-12
    e, d = (found.samples(name) for name in ("encoder", "decoder"))
    assert (e @ e.mT - torch.eye(3)).abs().max() < 1e-12
    size = ensemble.parameters["gain"][:, :1, None] if gain else 1
    assert (d.mT @ d - size**2 * torch.eye(3)).abs().max() < 1e-12
    assert (
        "encoder.weight" in found.parameters
        and e.var(0).max() < 1e-20 < 1e-2 < ensemble.samples("encoder").var(0).max()
    )
    with pytest.raises(ValueError, match=r"permutation, orthogonal for layer 'encoder' with orthonormal.*'linear'"):
        align(ensemble, group="linear")


def test_orthonormal_layers_are_not_rescaled():
    """A ReLU's scales are not free where the rows have unit length already."""
    ensemble = Ensemble.of([OrthogonalAutoencoder(9, 3, activation=nn.ReLU(), generator=seeded()).double()] * 3)
    found = align(ensemble)
    assert torch.allclose(found.samples("encoder"), ensemble.samples("encoder"), atol=1e-12)
    again = align(found)  # nor later, when the weights are plain
    assert torch.allclose(again.samples("encoder"), ensemble.samples("encoder"), atol=1e-12)


class Own(nn.Module):
    """A network whose order cannot be read off its parts."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(5, 2), nn.Linear(4, 5)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def test_layers_by_name():
    models = [Own().double() for _ in range(3)]
    base = net(4, 5, 2)
    straight = noisy(base, n=3)
    planted = transformed(straight, nn.Tanh)
    for i, model in enumerate(models):
        model.first.load_state_dict(planted[i][0].state_dict())
        model.second.load_state_dict(planted[i][2].state_dict())
    ensemble = Ensemble.of(models)
    found = align(ensemble, layer="first", feeds="second", activation=torch.tanh)
    expected = align(planted)
    assert torch.allclose(found.samples("first"), expected.samples("0"), atol=1e-12)
    assert torch.allclose(found.samples("second"), expected.samples("2"), atol=1e-12)
    with pytest.raises(ValueError, match=r"activation must be given.*'first'"):
        align(ensemble, layer="first", feeds="second")
    with pytest.raises(ValueError, match=r"layer and feeds must name.*Own"):
        align(ensemble)


def test_one_layer_of_several():
    """Only the named hidden layer moves."""
    ensemble = transformed(noisy(net(6, 8, 7, 3)), nn.Tanh)
    with pytest.warns(UserWarning, match="5 of 6"):  # what comes into it has not been aligned
        found = align(ensemble, ensemble[0], layer="2", feeds="4")
    assert torch.equal(found.parameters["0.weight"], ensemble.parameters["0.weight"])
    assert torch.allclose(found(noise(5, 6)), ensemble(noise(5, 6)), atol=1e-12)
    assert not torch.equal(found.parameters["4.weight"], ensemble.parameters["4.weight"])


def test_unrelated_networks_are_said_to_be():
    members = [net(20, UNITS, 5, seed=i + 1) for i in range(5)]
    with pytest.warns(UserWarning, match=r"5 of 5 members are not near.*start them from the same weights"):
        found = align(Ensemble.of(members))
    assert (
        not found.report["aligned"].any() and (found.report["residual_after"] < found.report["residual_before"]).all()
    )
    planted = transformed(noisy(net(20, UNITS, 5)), nn.Tanh)
    one = align(Ensemble.cat([planted, Ensemble.of(members[:1])]))  # a single stranger is reported, not warned of
    assert one.report["aligned"].tolist() == [True] * N + [False]
    with pytest.warns(UserWarning, match="2 of 2"):  # the mean of two is near both, whatever they are
        align(Ensemble.of(members[:2]))


def test_the_medoid_is_no_stranger():
    states = [read(m, hidden_of(m, "permutation")) for m in transformed(noisy(net(6, UNITS, 5)), nn.Tanh)]
    strange = net(6, UNITS, 5, seed=7)
    links = hidden_of(strange, "permutation")
    states.insert(0, read(strange, links))
    center = medoid(states, links)
    assert center != 0 and medoid(states[::-1], links) == N - center


def test_the_medoid_is_nearest_to_the_mean():
    """Slow beside fast: the matrices F.T F written out, and the mean of them."""
    for seed in range(5):
        models = list(Ensemble.cat([noisy(net(6, UNITS, 5, seed=seed), level=v, n=3) for v in (0.4, 0.6, 0.5)]))
        links = hidden_of(models[0], "permutation")
        blocks = [
            torch.stack(b)
            for b in zip(*((torch.cat([m[0].weight, m[0].bias[:, None]], 1), m[2].weight.T) for m in models))
        ]
        f = torch.cat([b / b.norm() for b in blocks], -1).detach()
        gram = f.mT @ f
        assert medoid([read(m, links) for m in models], links) == int((gram - gram.mean(0)).norm(dim=(1, 2)).argmin())


def test_members_agree_on_their_mean():
    """With None the reference is the mean of what came out: aligned to that once more, nothing moves."""
    ensemble = transformed(noisy(net(14, UNITS, 10, 13, activation=nn.Identity), level=0.4), nn.Identity)
    found = align(ensemble, group="orthogonal")
    mean = net(14, UNITS, 10, 13, activation=nn.Identity)
    mean.load_state_dict({k: v.mean(0) for k, v in found.parameters.items()})
    assert apart(align(found, mean, group="orthogonal"), found) < 1e-3
    assert spread(found) < spread(align(ensemble, 0, group="orthogonal"))


def test_equal_members_in_any_order():
    """All are equally in the middle; which one names the units is decided by its weights, not by its place."""
    ensemble = transformed(noisy(net(6, UNITS, 3), level=0), nn.Tanh)
    found, other = align(ensemble), align(ensemble.keep(torch.arange(N - 1, -1, -1)))
    assert apart(found, other) < 1e-12 and spread(found) < 1e-24


@pytest.mark.filterwarnings("ignore:.*are not near the reference")  # no wonder: what a dead unit feeds is arbitrary
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU])
def test_edges(activation):
    """A single unit, a single member, dead units, and units that are equal."""
    x = noise(7, 4)
    for sizes, n in (((4, 1, 2), 3), ((4, 5, 2), 1), ((4, 5, 2), 3)):
        ensemble = transformed(noisy(net(*sizes, activation=activation), n=n), activation)
        if sizes[1] == 5:
            for name in ("0.weight", "0.bias"):
                ensemble.parameters[name][:, 2] = 0
            for name in ("0.weight", "0.bias"):
                ensemble.parameters[name][:, 3] = ensemble.parameters[name][:, 1]
        found = align(ensemble)
        assert all(torch.isfinite(v).all() for v in found.parameters.values())
        assert torch.allclose(found(x), ensemble(x), atol=1e-12)
    same = Ensemble.of([net(4, 5, 2, activation=activation)] * 3)
    assert align(same).report["residual_after"].max() < 1e-12
    zero = replace(same, parameters={k: torch.zeros_like(v) for k, v in same.parameters.items()})
    assert align(zero).report["residual_after"].max() == 0


def test_balancing_a_singular_code_gives_up():
    """Dependent linear units cannot be balanced; they are left with what a rotation can do."""
    model = net(6, 3, 6, activation=nn.Identity)
    with torch.no_grad():
        model[0].weight[2] = model[0].weight[1]
    found = align(noisy(model, n=2, level=0), group="linear")
    assert max(v.abs().max() for v in found.parameters.values()) < 10
    assert torch.allclose(found(noise(5, 6)), noisy(model, n=2, level=0)(noise(5, 6)), atol=1e-12)


def test_reflections_need_a_bias():
    """Without one after them, units of a sigmoid cannot be reflected."""
    models = [mlp(4, 5, 2, activation=nn.Sigmoid, bias=False, generator=seeded()).double() for _ in range(3)]
    with torch.no_grad():
        models[1][0].weight[2] *= -1
        models[1][2].weight[:, 2] *= -1
    ensemble = Ensemble.of(models)
    found = align(ensemble, 0)
    assert torch.allclose(found(noise(3, 4)), ensemble(noise(3, 4)), atol=1e-12)


def test_networks_in_one_gauge_stay_there():
    links = hidden_of(net(6, 5, 4, 6, activation=nn.ReLU), "permutation")
    once = gauge(read(net(6, 5, 4, 6, activation=nn.ReLU), links), links)
    assert all(torch.allclose(v, once[k], atol=1e-14) for k, v in gauge(once, links).items())


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (nn.Identity(), Symmetry(True, True, True)),
        (nn.ReLU(inplace=True), Symmetry(scales=True)),
        (nn.LeakyReLU(0.2, inplace=True), Symmetry(scales=True)),
        (nn.Tanh(), Symmetry(signs=True)),
        (torch.sin, Symmetry(signs=True)),
        (nn.Sigmoid(), Symmetry(signs=True, centre=0.5)),
        (nn.GELU(), Symmetry()),
        (nn.ELU(), Symmetry()),
        (nn.Softplus(), Symmetry()),
        (nn.ReLU6(), Symmetry()),
        (nn.PReLU(), Symmetry()),
        (nn.Sequential(nn.ReLU(), nn.Dropout()), Symmetry(scales=True)),
    ],
    ids=lambda v: getattr(v, "__name__", type(v).__name__),
)
def test_symmetries(activation, expected):
    """The table of the methods, found by asking."""
    assert symmetry_of(activation) == expected


# draws


def test_draws_permuted():
    base = noise(UNITS, 5)
    straight = base + 0.05 * noise(N, UNITS, 5, seed=1)
    for flips in (False, True):
        g = [(signs(UNITS, i) if flips else 1) * permutation(UNITS, i).T for i in range(N)]
        planted = torch.stack([a.T @ x for a, x in zip(g, straight)])
        assert torch.allclose(align(planted, base, signs=flips), straight, atol=1e-12)
        found = align(planted, signs=flips)
        assert found.var(0).max() < 0.05 and torch.allclose(align(planted.flip(0), signs=flips), found.flip(0))
        assert align(planted.float(), 2, signs=flips).dtype == torch.float32
        assert torch.equal(align(planted, 2, signs=flips)[2], planted[2])


@pytest.mark.parametrize("draw, group", [(rotation, "orthogonal"), (invertible, "linear")])
def test_draws_in_other_coordinates(draw, group):
    base = noise(20, 3)
    straight = base + 0.001 * noise(N, 20, 3, seed=1)
    planted = torch.stack([x @ draw(3, i + 1) for i, x in enumerate(straight)])
    before = planted.clone()
    found = align(planted, base, group=group)
    assert torch.equal(planted, before) and (found - straight).abs().max() < 0.01
    for x, y in zip(planted, found):  # one matrix for all rows of a draw
        g = torch.linalg.lstsq(x, y).solution
        assert torch.allclose(x @ g, y, atol=1e-12)
        assert (torch.linalg.svdvals(g) - 1).abs().max() < 1e-12 or group == "linear"
    mean = align(planted, group=group)
    assert planted.var(0).sum() > 1e3 * mean.var(0).sum()
    assert torch.allclose(align(planted.flip(0), group=group), mean.flip(0), atol=1e-6)
    assert torch.allclose(align(planted[:1], group=group), planted[:1], atol=1e-12)


E1 = Ensemble.of([net(4, 5, 2), net(4, 5, 2)])
BAD = replace(
    E1, parameters={k: v / (torch.arange(2.0).reshape(2, *[1] * (v.ndim - 1))) for k, v in E1.parameters.items()}
)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: align(E1, group="rotation"), r"group must be one of permutation, orthogonal, linear, got 'rotation'"),
        (
            lambda: align(E1, group="orthogonal"),
            r"one of permutation for layer '0' with its activation, got 'orthogonal'",
        ),
        (
            lambda: align(Ensemble.of([net(4, 5, 2, activation=nn.Identity)]), group="linear"),
            r"permutation, orthogonal for layer '0' with more units than inputs or outputs",
        ),
        (lambda: align(E1, 2), r"to must be .* one of 2 members, got 2"),
        (lambda: align(E1, net(4, 6, 2)), r"to must have the architecture"),
        (lambda: align(E1, nn.Linear(4, 2)), r"to must have the architecture"),
        (lambda: align(E1, layer="0"), r"layer and feeds must be given together"),
        (lambda: align(E1, layer="0", feeds="1"), r"feeds must name a module of the network \(Linear: 0, 2\), got '1'"),
        (lambda: align(E1, layer="2", feeds="0", activation=torch.tanh), r"feeds '0' reads 4 units.*has 2"),
        (lambda: align(E1, signs=True), r"signs is for draws"),
        (lambda: align(BAD), r"member 0 has weights that are not finite"),
        (lambda: align(Ensemble.of([nn.Sequential(nn.Linear(4, 2))])), r"layer and feeds must name.*Sequential"),
        (
            lambda: align(Ensemble.of([nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))])),
            r"activation BatchNorm1d has numbers.*fold",
        ),
        (lambda: align(Ensemble.of([nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 2))])), r"'0' is a Conv1d"),
        (lambda: align(torch.ones(3, 2)), r"samples must be real and \(N, m, n\).*\(3, 2\)"),
        (lambda: align(torch.full((3, 2, 2), math.nan)), r"draw 0 has weights that are not finite"),
        (lambda: align(noise(3, 2, 2), noise(3, 2)), r"to must be \(2, 2\).*\(3, 2\)"),
        (lambda: align(noise(3, 2, 2), 3), r"to must be .*, got 3"),
        (lambda: align(noise(3, 2, 4), group="linear"), r"independent neurons as coordinates.*\(2, 4\).*orthogonal"),
        (lambda: align(noise(3, 2, 2), layer="0"), r"layer, feeds and activation are for an Ensemble"),
        (lambda: align(noise(3, 2, 2), group="orthogonal", signs=True), r"signs goes with the group permutation"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()
