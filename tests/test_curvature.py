"""The sandwich and Laplace's approximation against statsmodels, autograd and closed forms: oracles O4.4 to O4.7, O4.16."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import orthogonal
from torch.utils._python_dispatch import TorchDispatchMode

import mspace as ms
from mspace.models import OrthogonalAutoencoder, mlp
from mspace.network.parameters import blocks_of, flatten, positions, unflatten
from mspace.posterior import gradients, gram, laplace, relu_exact, sandwich
from mspace.posterior.gradients import Dense, Grams, LongRun, Traced, between, rows_of
from mspace.posterior.gram import Curvature
from mspace.posterior.inverse import invert, negatives
from mspace.posterior.problem import Problem

# networks as they are drawn, which stand at no minimum: what is computed of them is checked, not believed
pytestmark = pytest.mark.filterwarnings("ignore:the network is not at a minimum", "ignore:.*the data do not determine")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


def dense(*sizes, activation=nn.ReLU, bias=True, seed=0):
    return mlp(*sizes, activation=activation, bias=bias, generator=ms.seeded(seed)).double()


def set_to(model, vector):
    """A copy with the parameters of a vector."""
    with torch.no_grad():
        for name, value in unflatten(model, torch.as_tensor(vector, dtype=torch.float64)).items():
            model.get_parameter(name).copy_(value)
    return model


def regression(n=200, seed=0, unequal=True):
    """Least squares with noise that grows with the inputs: the fitted layer, the data, and the design matrix."""
    x = noise(n, 3, seed=seed)
    sd = 0.3 + x[:, :1].abs() if unequal else 0.5
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + 2 + sd * noise(n, 1, seed=seed + 1)
    design = torch.cat([x, torch.ones(n, 1)], 1)
    net = set_to(nn.Sequential(nn.Linear(3, 1)).double(), torch.linalg.lstsq(design, y).solution[:, 0])
    return net, (x, y), design


def ar1(n, phi=0.8, seed=0):
    e = noise(n, seed=seed)
    for i in range(1, n):
        e[i] += phi * e[i - 1]
    return e


def far(a, b):
    """The largest difference, as a share of the largest number."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def per_example(model, data, loss):
    """Gradients of single examples (n, p) by autograd, one by one."""
    found = []
    for x, y in zip(*data):
        grads = torch.autograd.grad(loss(model(x[None]), y[None]), list(model.parameters()))
        found.append(torch.cat([g.reshape(-1) for g in grads]))
    return torch.stack(found)


def second_derivative(model, data, loss):
    """Of the mean loss, by torch."""

    def value(vector):
        return loss(torch.func.functional_call(model, unflatten(model, vector), (data[0],)), data[1])

    return torch.autograd.functional.hessian(value, flatten(model))


def squares(model, data, loss):
    """The Gauss-Newton matrix from explicit Jacobians, J.T H J."""
    total = 0.0
    for x, y in zip(*data):
        out = model(x[None])

        def answer(vector, x=x):
            return torch.func.functional_call(model, unflatten(model, vector), (x[None],)).reshape(-1)

        def after(o, y=y, shape=out.shape):
            return loss(o.reshape(shape), y[None])

        j = torch.autograd.functional.jacobian(answer, flatten(model))
        total = total + j.T @ torch.autograd.functional.hessian(after, out.detach().reshape(-1)) @ j
    return total / len(data[0])


def reference(a, g):
    """The sandwich by its definition."""
    inverse = torch.linalg.inv(a)
    return inverse @ (g.T @ g / len(g)) @ inverse / len(g)


# -- against statsmodels ---------------------------------------------------------------------------------


def ols(data, design, **options):
    sm = pytest.importorskip("statsmodels.api")
    return sm.OLS(data[1][:, 0].numpy(), design.numpy()).fit().get_robustcov_results(**options).cov_params()


@pytest.mark.parametrize("curvature", ["auto", "hessian", "gauss_newton"])
def test_unequal_noise_has_the_covariance_hc0(curvature):
    """O4.4."""
    net, data, design = regression()
    posterior = sandwich(net, data, F.mse_loss, curvature=curvature)
    assert far(posterior.cov(), ols(data, design, cov_type="HC0")) < 1e-12
    assert posterior.report["n"] == 200 and posterior.report["rank"] == 4 and posterior.report["gradient"] < 1e-12


@pytest.mark.parametrize("lags", [1, 7, 40, 199])
@pytest.mark.parametrize("held", [1 << 25, 700])
def test_dependent_noise_has_the_covariance_of_newey_and_west(lags, held, monkeypatch):
    """O4.5, in one piece and in pieces shorter than the lags."""
    monkeypatch.setattr(gradients, "HELD", held)
    x = torch.stack([ar1(200, seed=s) for s in range(3)], 1)
    y = x.sum(1, keepdim=True) + ar1(200, seed=9)[:, None]
    design = torch.cat([x, torch.ones(200, 1)], 1)
    net = set_to(nn.Sequential(nn.Linear(3, 1)).double(), torch.linalg.lstsq(design, y).solution[:, 0])
    found = sandwich(net, (x, y), F.mse_loss, dependence=lags).cov()
    assert far(found, ols((x, y), design, cov_type="HAC", maxlags=lags, use_correction=False)) < 1e-12
    assert torch.linalg.eigvalsh(found)[0] > -1e-15


def test_logistic_regression_has_the_covariance_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    x = noise(300, 3)
    y = (x.sum(1) + noise(300, seed=1) > 0.3).double()
    design = torch.cat([x, torch.ones(300, 1)], 1).numpy()
    fit = sm.Logit(y.numpy(), design).fit(disp=0, tol=1e-14, cov_type="HC0")
    net = set_to(nn.Sequential(nn.Linear(3, 1)).double(), fit.params)
    for curvature in ("hessian", "gauss_newton"):
        found = sandwich(net, (x, y[:, None]), F.binary_cross_entropy_with_logits, curvature=curvature)
        assert far(found.cov(), fit.cov_params()) < 1e-12


def test_units_of_the_inputs_do_not_matter():
    """Columns of 1e6 and 1e-6 are no singular matrix."""
    net, (x, y), design = regression()
    unit = torch.tensor([1e6, 1.0, 1e-6, 1.0]).double()
    moved = set_to(nn.Sequential(nn.Linear(3, 1)).double(), flatten(net) / unit)
    posterior = sandwich(moved, (x * unit[:3], y), F.mse_loss)
    truth = torch.as_tensor(ols((x, y), design, cov_type="HC0")) / unit[:, None] / unit
    assert ((posterior.cov() - truth).abs() <= 1e-9 * truth.diagonal().outer(truth.diagonal()).sqrt()).all()
    assert posterior.report["raised"] == 0


# -- laws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["full", "neuron", "diagonal"])
def test_every_example_twice_halves_the_covariance(structure):
    """O4.7: the division by n is there."""
    net = dense(4, 5, 2, activation=nn.Tanh)
    x, y = noise(60, 4), noise(60, 2, seed=1)
    one = sandwich(net, (x, y), F.mse_loss, structure=structure, damping=0.05, curvature="gauss_newton")
    two = sandwich(net, (x.repeat(2, 1), y.repeat(2, 1)), F.mse_loss, structure=structure, damping=0.05,
                   curvature="gauss_newton")  # fmt: skip
    assert far(2 * two.cov(), one.cov()) < 1e-12


def test_equal_noise_is_the_classical_covariance():
    """O4.6: of 2000 examples within five per cent of sigma^2 (X.T X)^-1, over twenty data sets on average."""
    found = []
    for seed in range(20):
        net, data, design = regression(2000, 10 * seed, unequal=False)
        truth = 0.25 * torch.linalg.inv(design.T @ design)
        found.append(sandwich(net, data, F.mse_loss).cov() / truth.diagonal().outer(truth.diagonal()).sqrt())
        shape = truth / truth.diagonal().outer(truth.diagonal()).sqrt()
    assert (torch.stack(found).mean(0) - shape).abs().max() < 0.05


def test_lags_correct_what_single_examples_hide():
    """The mean of AR(1): its variance is (1 + phi) / (1 - phi) times that of independent numbers."""
    ratio = []
    for seed in range(10):
        s = ar1(2000, seed=seed)
        net = set_to(nn.Sequential(nn.Linear(1, 1)).double(), [0.0, float(s.mean())])
        data = torch.zeros(2000, 1).double(), s[:, None]
        bias = [float(sandwich(net, data, F.mse_loss, layers="0.bias", dependence=lags).cov()) for lags in (0, 60)]
        ratio.append([b / (25 / 2000) for b in bias])
    short, long = np.mean(ratio, 0)
    assert short < 0.15 and 0.75 < long < 1.05


# -- matrices --------------------------------------------------------------------------------------------


def fast_and_torch(net, data, exact=True, layers=None):
    problem = Problem.of(net, data, F.mse_loss, layers)
    curvature = Curvature(problem, [torch.arange(problem.size)[None]], 5000)
    assert curvature.fast is not None, "the case is one"
    found = (curvature.hessian if exact else curvature.gauss_newton)()[0][0]
    at = positions(net, layers)
    return found, (second_derivative if exact else squares)(net, data, F.mse_loss)[at[:, None], at]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Identity])
@pytest.mark.parametrize("hidden", [3, 9])
def test_the_closed_form_is_the_second_derivative(hidden, activation, bias, exact):
    """Few patterns of awake units and, of 9 units and 60 examples, nearly as many as examples."""
    net = dense(4, hidden, 5, activation=activation, bias=bias)
    found, truth = fast_and_torch(net, (noise(60, 4), noise(60, 5, seed=1)), exact)
    assert far(found, truth) < 1e-12


def test_patterns_are_summed_in_pieces(monkeypatch):
    monkeypatch.setattr(relu_exact, "AT_A_TIME", 3)
    monkeypatch.setattr(relu_exact, "EXAMPLES", 7)
    for n in (300, 40):
        assert far(*fast_and_torch(dense(4, 5, 2), (noise(n, 4), noise(n, 2, seed=1)))) < 1e-12


@pytest.mark.parametrize("layers", ["0", "2", "0.weight", ["0.bias", "2.weight"], "2.bias"])
def test_the_closed_form_of_some_layers(layers):
    net = dense(4, 5, 2)
    assert far(*fast_and_torch(net, (noise(80, 4), noise(80, 2, seed=1)), layers=layers)) < 1e-12


def test_one_bias_may_be_absent():
    for which in (0, 2):
        net = dense(4, 3, 2)
        net[which].bias = None
        assert far(*fast_and_torch(net, (noise(80, 4), noise(80, 2, seed=1)))) < 1e-12


class Recurrent(nn.Module):
    """torch has no rule to batch its layer."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.RNN(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def pseudo_huber(out, target):
    return ((1 + (out - target) ** 2).sqrt() - 1).mean()


def cases():
    torch.manual_seed(0)
    x, y, classes = noise(24, 4), noise(24, 3, seed=1), torch.arange(24) % 3
    conv = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3)).double()
    deep = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 3), nn.ReLU()).double()
    made = nn.Sequential(orthogonal(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 3)).double()
    return {
        "relu mse": (dense(4, 5, 3), (x, y), F.mse_loss, Dense),
        "deep mse": (deep, (x, y), nn.MSELoss(), Dense),
        "deep entropy": (dense(4, 5, 4, 3, activation=nn.Tanh), (x, classes), F.cross_entropy, Dense),
        "no bias huber": (dense(4, 5, 3, activation=nn.Sigmoid, bias=False), (x, y), pseudo_huber, Dense),
        "smoothed": (dense(4, 3, activation=nn.Tanh), (x, classes), nn.CrossEntropyLoss(label_smoothing=0.1), Dense),
        "conv": (conv, (x[:, None], y), F.mse_loss, Traced),
        "orthogonal": (made, (x, y), F.mse_loss, Traced),
        "recurrent": (Recurrent().double(), (noise(24, 5, 2), y[:, :2]), F.mse_loss, Traced),
        "orthogonal autoencoder": (
            OrthogonalAutoencoder(4, 2, generator=ms.seeded(0)).double(),
            (x, x),
            F.mse_loss,
            Traced,
        ),
    }


@pytest.mark.parametrize("case", list(cases()))
def test_rows_and_matrices_are_those_of_autograd(case, monkeypatch):
    monkeypatch.setattr(gradients, "HELD", 4000)  # in pieces of a few examples
    monkeypatch.setattr(gram, "SEEN", 70)
    net, data, loss, kind = cases()[case]
    problem = Problem.of(net, data, loss, None)
    assert isinstance(rows_of(problem), kind)
    way = rows_of(problem)
    scores = torch.cat([way.rows(problem.outputs.slope(way.at(x), y)).clone() for x, y, _ in problem.pieces(5)])
    assert far(scores, per_example(net, data, loss)) < 1e-12
    curvature = Curvature(problem, [torch.arange(problem.size)[None]], 0)
    assert curvature.fast is None
    assert far(curvature.gauss_newton()[0][0], squares(net, data, loss)) < 1e-12
    assert far(curvature.hessian()[0][0], second_derivative(net, data, loss)) < 1e-12


@pytest.mark.parametrize("case", ["relu mse", "deep mse", "deep entropy", "no bias huber", "smoothed"])
@pytest.mark.parametrize("layers", [None, "0", ["0.bias", "2"]])
def test_the_way_by_units_is_that_by_outputs(case, layers, monkeypatch):
    net, data, loss, _ = cases()[case]
    if case == "smoothed" or (case == "no bias huber" and layers):
        layers = "0"
    monkeypatch.setattr(gram, "WRITTEN", 0)
    monkeypatch.setattr(gram, "HELD", 17 * 20)  # in pieces
    at = positions(net, layers)
    found = gram.by_units(Problem.of(net, data, loss, layers))
    assert far(found, squares(net, data, loss)[at[:, None], at]) < 1e-12
    monkeypatch.undo()
    assert gram.by_units(Problem.of(dense(4, 2), (data[0], data[0][:, :2]), F.mse_loss, None)) is None


def test_only_some_layers_have_rows():
    net, data, loss, _ = cases()["deep entropy"]
    whole = per_example(net, data, loss)
    for layers in ("0", "2", "4.bias", ["0.bias", "4"]):
        for way in (Dense, Traced):
            problem = Problem.of(net, data, loss, layers)
            made = way(problem)
            found = made.rows(problem.outputs.slope(made.at(data[0]), data[1]))
            assert far(found, whole[:, positions(net, layers)]) < 1e-12


@pytest.mark.parametrize("size", [3, 128, 300, 1100])
def test_halves_of_products_are_whole_products(size):
    r, m = noise(50, size), noise(size, size, seed=1)
    grams = Grams([torch.arange(size)[None], torch.tensor([[0, 2], [1, 0]]), torch.tensor([[2], [1]])])
    grams.add(r[:20])
    grams.add(r[20:])
    total = r.T @ r
    whole, pairs, single = grams.finish()
    assert far(whole[0], total) < 1e-13 and torch.equal(whole[0], whole[0].T)
    assert far(pairs, torch.stack([total[[0, 2]][:, [0, 2]], total[[1, 0]][:, [1, 0]]])) < 1e-13
    assert far(single[:, 0, 0], total.diagonal()[[2, 1]]) < 1e-13
    outer = m + m.T
    made = between(outer[None], total[None].clone())[0]
    assert far(made, outer @ total @ outer) < 1e-12 and torch.equal(made, made.T)


def test_no_lag_crosses_a_recording():
    r, lengths, lags = noise(60, 3), [10, 3, 47], 5
    sums, truth = LongRun(Grams([torch.arange(3)[None]]), lags), 0.0
    for part in r.split(lengths):
        for i, piece in enumerate(part.split(4)):
            sums.add(piece, last=4 * i + 4 >= len(part))
        for s, t in itertools.product(range(len(part)), repeat=2):
            truth = truth + max(0, 1 - abs(s - t) / (lags + 1)) * part[s].outer(part[t])
    assert far(sums.finish()[0][0], truth) < 1e-13


def test_recordings_are_those_of_their_labels():
    net, (x, y), _ = regression(90)
    labels = torch.tensor([3] * 30 + [1] * 40 + [3] * 20)
    found = sandwich(net, (x, y), F.mse_loss, dependence=6, groups=labels).cov()
    g, middle = per_example(net, (x, y), F.mse_loss), 0.0
    for part in g.split([30, 40, 20]):
        near = (torch.arange(len(part))[:, None] - torch.arange(len(part))).abs()
        middle = middle + part.T @ (1 - near.double() / 7).clamp(min=0) @ part
    inverse = torch.linalg.inv(second_derivative(net, (x, y), F.mse_loss))
    assert far(found, inverse @ middle @ inverse / 90**2) < 1e-12


# -- structures ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tanh():
    """A network at a minimum, where nothing is singular: its data, its matrices."""
    x, net = noise(400, 3), dense(3, 2, 2, activation=nn.Tanh)
    set_to(net, [1.0, 0.5, -0.5, -0.5, 1.0, 1.0, 0.3, -0.3, 1.0, -1.0, 1.0, 1.0, 0.0, 0.5])
    y = net(x).detach() + 0.3 * noise(400, 2, seed=1)
    move = torch.optim.LBFGS(net.parameters(), max_iter=400, tolerance_grad=1e-12, tolerance_change=0)

    def closure():
        move.zero_grad()
        value = F.mse_loss(net(x), y)
        value.backward()
        return value

    move.step(closure)
    data = x, y
    return net, data, second_derivative(net, data, F.mse_loss), per_example(net, data, F.mse_loss)


def test_the_full_sandwich_of_a_network(tanh):
    net, data, a, g = tanh
    posterior = sandwich(net, data, F.mse_loss)
    assert far(posterior.cov(), reference(a, g)) < 1e-10
    report = posterior.report
    assert report["curvature"] == "hessian" and report["within"] == "model" and report["negative"] == 0
    assert report["rank"] == 14 and report["null"] == report["gauge"] == report["raised"] == 0
    power = torch.linalg.eigvalsh(a)
    assert power[-1] / power[0] / 14 < report["condition"] < 14 * power[-1] / power[0]
    assert torch.equal(posterior.mean, flatten(net)) and report["gradient"] < 1e-8


@pytest.mark.parametrize("structure", ["layer", "neuron", "diagonal"])
def test_blocks_are_of_the_whole_or_conditional(tanh, structure):
    net, data, a, g = tanh
    whole = reference(a, g)
    marginal = sandwich(net, data, F.mse_loss, structure=structure)
    alone = sandwich(net, data, F.mse_loss, structure=structure, conditional=True)
    assert marginal.report["within"] == "model" and alone.report["within"] == "block"
    blocks = [b for batch in blocks_of(net, structure) for b in batch]
    truths = (lambda b: whole[b[:, None], b]), (lambda b: reference(a[b[:, None], b], g[:, b]))
    for posterior, truth in zip((marginal, alone), truths):
        full = torch.zeros(14, 14, dtype=torch.float64)
        for b in blocks:
            full[b[:, None], b] = truth(b)
        assert far(posterior.cov(), full) < 1e-10
    at = posterior.neurons("0")
    assert far(alone.neurons("0").cov, at.cov) == 0 and at.cov.shape == (2, 3, 3)


def test_a_neuron_is_a_block_of_the_inverse(tanh):
    net, data, a, g = tanh
    row = torch.tensor([3, 4, 5])  # the second unit's weights
    neurons = sandwich(net, data, F.mse_loss, structure="neuron").neurons("0")
    assert far(neurons.cov[1], reference(a, g)[row[:, None], row]) < 1e-10


@pytest.mark.parametrize("structure", ["layer", "neuron", "diagonal"])
def test_a_large_network_is_inverted_by_layers(tanh, structure):
    """As many parameters as a layer has are allowed, and not more: marginal inside a layer, the others known."""
    net, data, a, g = tanh
    posterior = sandwich(net, data, F.mse_loss, structure=structure, largest=8)
    assert posterior.report["within"] == "layer"
    truth = torch.zeros(14, 14, dtype=torch.float64)
    for layer in ("0", "2"):
        at = positions(net, layer)
        truth[at[:, None], at] = reference(a[at[:, None], at], g[:, at])
    mask = torch.zeros(14, 14)
    for b in (b for batch in blocks_of(net, structure) for b in batch):
        mask[b[:, None], b] = 1
    assert far(posterior.cov(), truth * mask) < 1e-10


def test_a_larger_one_by_blocks_or_not_at_all(tanh):
    net, data, a, g = tanh
    posterior = sandwich(net, data, F.mse_loss, structure="neuron", largest=4)
    assert posterior.report["within"] == "block"
    row = torch.tensor([0, 1, 2, 6])
    assert far(posterior.cov(row), reference(a[row[:, None], row], g[:, row])) < 1e-10
    too_small = (
        ("full", 13, '"layer", "neuron" or "diagonal"'),
        ("layer", 7, '"neuron" or'),
        ("neuron", 3, '"diagonal"'),
    )
    for structure, largest, other in too_small:
        for method in (sandwich, laplace):
            with pytest.raises(ValueError, match=f'structure="{structure}" needs matrices of .*take structure={other}'):
                method(net, data, F.mse_loss, structure=structure, largest=largest)


def test_matrices_that_do_not_fit_are_refused_before_memory_runs_out():
    net = nn.Sequential(nn.Linear(1000, 300), nn.ReLU(), nn.Linear(300, 3))
    with pytest.raises(ValueError, match=r"needs matrices of 301203 parameters, several of 7.3e\+02 GB"):
        sandwich(net, (torch.zeros(4, 1000), torch.zeros(4, 3)), F.mse_loss)


def test_other_layers_are_known(tanh):
    net, data, a, g = tanh
    at = positions(net, "2")
    posterior = sandwich(net, data, F.mse_loss, layers="2")
    assert torch.equal(posterior.index, at) and far(posterior.cov(), reference(a[at[:, None], at], g[:, at])) < 1e-10


# -- what is not positive definite -------------------------------------------------------------------------


def turned(power, seed=0):
    axes = torch.linalg.qr(noise(len(power), len(power), seed=seed)).Q
    return (axes * torch.tensor(power, dtype=torch.float64)) @ axes.T, axes


def test_definite_matrices_are_inverted_as_they_are():
    a, _ = turned([1e-7, 1.0, 2.0, 3.0])
    inverse, report = invert(torch.stack([a, 2 * a]), None)
    assert far(inverse[0] @ a, torch.eye(4).double()) < 1e-7 and report["raised"] == 0 and report["rank"] == 8
    assert far(inverse[1], inverse[0] / 2) < 1e-7 and 3e7 <= report["condition"] < 4 * 3e7


def test_small_eigenvalues_are_raised():
    a, axes = turned([-1.0, -1e-20, 1e-5, 2.0, 4.0, 8.0, 16.0])
    inverse, report = invert(a[None], None)
    floor = 1e-4 * 4
    power = torch.tensor([floor, floor, floor, 2, 4, 8, 16], dtype=torch.float64)
    assert far(inverse[0], (axes / power) @ axes.T) < 1e-10
    assert report == pytest.approx(
        {"negative": 1, "rank": 5, "null": 1, "raised": 3, "floor": floor, "condition": 16 / floor}
    )


def test_damping_is_all_that_is_done():
    a, axes = turned([-1.0, 0.0, 2.0, 4.0])
    inverse, report = invert(a[None], 1.5)
    assert far(inverse[0], (axes / torch.tensor([0.5, 1.5, 3.5, 5.5]).double()) @ axes.T) < 1e-12
    assert report["negative"] == 0 and report["raised"] == 0
    with pytest.raises(ValueError, match=r"damping 0.3 leaves .*smallest eigenvalue is -0.7: add at least 0.7 more"):
        invert(a[None], 0.3)
    singular, axes = turned([0.0, 0.0, 2.0, 4.0])
    inverse, report = invert(singular[None], 0.0)
    assert far(inverse[0], torch.linalg.pinv(singular, hermitian=True, rtol=1e-8)) < 1e-12
    assert report["null"] == 2 and report["rank"] == 2 and report["raised"] == 0 and report["floor"] == 0


def test_what_is_definite_by_rounding_only_is_singular():
    a = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 4 * torch.finfo(torch.float64).eps]], dtype=torch.float64)
    assert not torch.linalg.cholesky_ex(a).info
    inverse, report = invert(a[None], 0.0)
    assert report["null"] == 1 and far(inverse[0], torch.full((2, 2), 0.25).double()) < 1e-12


def test_a_matrix_of_zeros_has_no_inverse():
    inverse, report = invert(torch.zeros(2, 3, 3).double(), None)
    assert inverse.abs().max() == 0 and report["null"] == 6 and report["rank"] == 0


@pytest.mark.parametrize(
    "power", [[1.0, 2.0, 3.0], [-1.0, 0.0, 2.0, -5.0, 1e-3, -1e-3], [0.0, 0.0, -1e-18, 1.0], [-1.0] * 4]
)
def test_negative_eigenvalues_are_counted(power):
    a = torch.stack([turned(power, seed)[0] for seed in range(3)])
    assert negatives(a, 0.0) == 3 * sum(p < -1e-12 for p in power)
    assert negatives(a, 0.5) == 3 * sum(p < -0.5 for p in power)


def test_an_indefinite_second_derivative_gives_way():
    net, data = dense(4, 6, 3, activation=nn.Tanh), (noise(200, 4), noise(200, 3, seed=1))
    a = second_derivative(net, data, F.mse_loss)
    below = int((torch.linalg.eigvalsh(a) < 0).sum())
    assert below > 0, "the case is one"
    g, b = squares(net, data, F.mse_loss), per_example(net, data, F.mse_loss)
    posterior = sandwich(net, data, F.mse_loss)
    assert posterior.report["curvature"] == "gauss_newton" and posterior.report["negative"] == below
    assert far(posterior.cov(), reference(g, b)) < 1e-8
    kept = sandwich(net, data, F.mse_loss, curvature="hessian")
    assert kept.report["curvature"] == "hessian" and kept.report["negative"] == below <= kept.report["raised"]
    assert torch.linalg.eigvalsh(kept.cov())[0] > -1e-9 * torch.linalg.eigvalsh(kept.cov())[-1]
    shift = float(-torch.linalg.eigvalsh(a)[0]) + 0.1
    damped = sandwich(net, data, F.mse_loss, damping=shift)
    assert damped.report["curvature"] == "hessian" and damped.report["damping"] == shift
    assert far(damped.cov(), reference(a + shift * torch.eye(len(a)).double(), b)) < 1e-10
    with pytest.raises(ValueError, match=r'leaves the curvature indefinite.*curvature="gauss_newton"'):
        sandwich(net, data, F.mse_loss, curvature="hessian", damping=1e-6)


def pseudo_sandwich(g, b):
    inverse = torch.linalg.pinv(g, hermitian=True, rtol=1e-10)
    return inverse @ (b.T @ b / len(b)) @ inverse / len(b)


@pytest.mark.parametrize(
    ("sizes", "activation", "loss", "bias", "count"),
    [
        ((4, 3, 5), nn.ReLU, F.mse_loss, True, 3),
        ((4, 3, 5), nn.Identity, F.mse_loss, True, 3 * 3 + 3),
        ((4, 3, 5), nn.Identity, F.mse_loss, False, 3 * 3),
        ((4, 3), nn.Identity, F.cross_entropy, True, 4 + 1),
        ((4, 3, 3), nn.ReLU, F.cross_entropy, True, 3 + 3 + 1),
        ((4, 3, 3, 2), nn.ReLU, F.mse_loss, True, 6),
        ((4, 3, 5), nn.Tanh, F.mse_loss, True, 0),
    ],
)
def test_symmetries_are_held_fixed(sizes, activation, loss, bias, count):
    """Gradients vanish along them, so the pseudo-inverse says the same; and there are no others."""
    net = dense(*sizes, activation=activation, bias=bias, seed=2)
    x = noise(300, 4)
    y = torch.arange(300) % 3 if loss is F.cross_entropy else noise(300, sizes[-1], seed=1)
    posterior = sandwich(net, (x, y), loss, curvature="gauss_newton")
    assert posterior.report["gauge"] == count == posterior.report["null"] and posterior.report["raised"] == 0
    assert posterior.report["rank"] == len(posterior) - count
    truth = pseudo_sandwich(squares(net, (x, y), loss), per_example(net, (x, y), loss))
    assert far(posterior.cov(), truth) < 1e-6


def test_symmetries_that_move_known_parameters_do_not_count():
    net, data = dense(4, 3, 5), (noise(100, 4), noise(100, 5, seed=1))
    assert sandwich(net, data, F.mse_loss, layers="2", curvature="gauss_newton").report["gauge"] == 0
    assert sandwich(net, data, F.mse_loss, layers=["0", "2.weight"]).report["gauge"] == 3
    assert sandwich(net, data, F.mse_loss, layers=["0.weight", "2"]).report["gauge"] == 0


def test_units_that_are_dead_have_no_variance():
    net, data = dense(4, 3, 2), (noise(100, 4), noise(100, 2, seed=1))
    with torch.no_grad():
        net[0].bias[1] = -100.0
    posterior = sandwich(net, data, F.mse_loss)
    assert posterior.report["null"] >= 5 + 2
    assert posterior.neurons("0").cov[1].abs().max() < 1e-12 * posterior.neurons("0").cov[0].trace()
    alone = sandwich(net, data, F.mse_loss, structure="neuron", conditional=True)
    assert torch.equal(alone.neurons("0").cov[1], torch.zeros(4, 4).double()) and alone.neurons("0").cov[0].trace() > 0


@pytest.mark.parametrize("method", [sandwich, laplace])
def test_orthonormal_layers_have_neurons_too(method):
    """The code turns without a change, which the report counts; the neurons move along the orthonormal matrices."""
    x = noise(300, 2) @ noise(2, 6, seed=1) + 0.1 * noise(300, 6, seed=2)
    net = ms.fit(OrthogonalAutoencoder(6, 2, generator=ms.seeded(0)).double(), (x, x), F.mse_loss, epochs=10,
                 batch_size=50, generator=ms.seeded(1))  # fmt: skip
    posterior = method(net, (x, x), F.mse_loss)
    if method is sandwich:
        assert posterior.report["null"] + posterior.report["raised"] > 0
    neurons = posterior.neurons("decoder")
    assert len(neurons) == 6 and torch.isfinite(neurons.cov).all() and neurons.cov.diagonal(dim1=1, dim2=2).sum() > 0
    rows = neurons.mean  # (6, 2) with orthonormal columns: a first order move keeps the squared norm, 2
    moves = posterior.sample(200, generator=ms.seeded(2)).samples("decoder") - rows
    assert (moves * rows).sum((1, 2)).std() < 0.5 * moves.flatten(1).norm(dim=1).mean()


def test_fewer_examples_than_parameters():
    net, data = dense(6, 5, 3, activation=nn.Tanh), (noise(10, 6), noise(10, 3, seed=1))
    posterior = sandwich(net, data, F.mse_loss)
    assert posterior.report["middle_rank"] == 10 < len(posterior)
    power = torch.linalg.eigvalsh(posterior.cov())
    assert (power > 1e-8 * power[-1]).sum() <= 10 and power[0] > -1e-10 * power[-1]


# -- Laplace -----------------------------------------------------------------------------------------------


def bayes(n=80, prior=(3.0, 3.0, 3.0, 3.0), variance=0.4):
    """Linear regression at the maximum of its posterior, with its exact covariance and log evidence."""
    stats = pytest.importorskip("scipy.stats")
    _, (x, y), design = regression(n, unequal=False)
    prior = torch.tensor(prior, dtype=torch.float64)
    cov = torch.linalg.inv(design.T @ design / variance + prior.diag())
    net = set_to(nn.Sequential(nn.Linear(3, 1)).double(), (cov @ design.T @ y / variance)[:, 0])
    spread = variance * torch.eye(n).double() + design / prior @ design.T
    return net, (x, y), cov, stats.multivariate_normal(np.zeros(n), spread.numpy()).logpdf(y[:, 0].numpy())


def test_linear_regression_has_its_exact_posterior():
    """O4.16."""
    net, data, cov, evidence = bayes()
    posterior = laplace(net, data, F.mse_loss, prior_precision=3.0, noise=0.4)
    assert far(posterior.cov(), cov) < 1e-12 and posterior.report["log_evidence"] == pytest.approx(evidence, abs=1e-9)
    assert posterior.report["gradient"] < 1e-9 and posterior.report["noise"] == 0.4


def test_a_prior_for_each_layer():
    net, data, cov, evidence = bayes(prior=(2.0, 2.0, 2.0, 0.1))
    posterior = laplace(net, data, F.mse_loss, prior_precision={"0.weight": 2.0, "0.bias": 0.1}, noise=0.4)
    assert far(posterior.cov(), cov) < 1e-12 and posterior.report["log_evidence"] == pytest.approx(evidence, abs=1e-9)


def test_several_outputs_have_independent_noise():
    """The loss is a mean over outputs, too: its scale is undone."""
    _, (x, _), design = regression(80)
    y = noise(80, 2, seed=5)
    cov = torch.linalg.inv(design.T @ design / 0.4 + 3 * torch.eye(4).double())
    w = cov @ design.T @ y / 0.4
    net = set_to(nn.Sequential(nn.Linear(3, 2)).double(), torch.cat([w[:3].T.reshape(-1), w[3]]))
    posterior = laplace(net, (x, y), F.mse_loss, prior_precision=3.0, noise=0.4)
    for k in range(2):
        at = torch.tensor([3 * k, 3 * k + 1, 3 * k + 2, 6 + k])
        assert far(posterior.cov(at), cov) < 1e-12
    assert posterior.cov(torch.tensor([0, 3]))[0, 1] == 0
    spread = 0.4 * torch.eye(80).double() + design @ design.T / 3
    evidence = torch.distributions.MultivariateNormal(torch.zeros(80).double(), spread).log_prob(y.T).sum()
    assert posterior.report["log_evidence"] == pytest.approx(float(evidence), abs=1e-9)


def test_without_a_prior_it_is_the_classical_covariance():
    net, data, design = regression(unequal=False)
    posterior = laplace(net, data, F.mse_loss, prior_precision=0.0)
    variance = (data[1] - net(data[0])).square().mean().detach()
    assert posterior.report["noise"] == pytest.approx(float(variance), rel=1e-12)
    assert far(posterior.cov(), variance * torch.linalg.inv(design.T @ design)) < 1e-10
    assert posterior.report["log_evidence"] == -math.inf


def test_any_other_loss_is_a_negative_log_likelihood():
    net, data, cov, evidence = bayes()

    def nll(out, target):
        return ((out - target) ** 2 / 0.8).mean() + math.log(2 * math.pi * 0.4) / 2

    posterior = laplace(net, data, nll, prior_precision=3.0)
    assert far(posterior.cov(), cov) < 1e-12 and posterior.report["log_evidence"] == pytest.approx(evidence, abs=1e-9)


def test_classification_by_laplace_is_the_curvature_of_the_log_posterior():
    x, y = noise(60, 4), torch.arange(60) % 3
    net = dense(4, 3)  # one layer: Gauss and Newton are exact
    posterior = laplace(net, (x, y), F.cross_entropy, prior_precision=0.5)
    precision = 60 * second_derivative(net, (x, y), F.cross_entropy) + 0.5 * torch.eye(15).double()
    assert far(posterior.cov(), torch.linalg.inv(precision)) < 1e-12
    at, value = flatten(net), float(F.cross_entropy(net(x), y, reduction="sum").detach())
    evidence = -value - 0.25 * float(at @ at) + 7.5 * math.log(0.5) - float(torch.logdet(precision)) / 2
    assert posterior.report["log_likelihood"] == pytest.approx(-value, abs=1e-10)
    assert posterior.report["log_evidence"] == pytest.approx(evidence, abs=1e-9)
    slope = per_example(net, (x, y), F.cross_entropy).sum(0) + 0.5 * at
    assert posterior.report["gradient"] == pytest.approx(float(slope.norm()), rel=1e-10)


@pytest.mark.parametrize("structure", ["layer", "neuron", "diagonal"])
def test_laplace_in_blocks(tanh, structure):
    net, data, _, _ = tanh
    precision = 400 * squares(net, data, F.mse_loss) * 2 / (2 * 0.3) + 1.5 * torch.eye(14).double()
    cov = torch.linalg.inv(precision)
    options = {"structure": structure, "prior_precision": 1.5, "noise": 0.3}
    whole, alone = (
        laplace(net, data, F.mse_loss, **options),
        laplace(net, data, F.mse_loss, conditional=True, **options),
    )
    logdet = 0.0
    for b in (b for batch in blocks_of(net, structure) for b in batch):
        assert far(whole.cov(b), cov[b[:, None], b]) < 1e-10
        assert far(alone.cov(b), torch.linalg.inv(precision[b[:, None], b])) < 1e-10
        logdet += float(torch.logdet(precision[b[:, None], b]))
    gap = whole.report["log_evidence"] - alone.report["log_evidence"]
    assert gap == pytest.approx((logdet - float(torch.logdet(precision))) / 2, abs=1e-8)


def test_the_last_layer_alone(tanh):
    net, data, _, _ = tanh
    at = positions(net, "2")
    precision = 400 / 0.3 * squares(net, data, F.mse_loss)[at[:, None], at] + torch.eye(6).double()
    posterior = laplace(net, data, F.mse_loss, layers="2", noise=0.3)
    assert torch.equal(posterior.index, at) and far(posterior.cov(), torch.linalg.inv(precision)) < 1e-10


# -- data and models as they come ----------------------------------------------------------------------------


class Sizes(TorchDispatchMode):
    """The most numbers that a new tensor has held."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for t in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(t, torch.Tensor):
                self.most = max(self.most, t.untyped_storage().size())
        return found


@pytest.mark.parametrize("method", [sandwich, laplace])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_windows_are_never_copied_as_a_whole(method, activation):
    x, y = ms.windows(noise(20_000), 400, horizon=3)
    net = dense(400, 2, 3, activation=activation)
    options = {"dependence": 400} if method is sandwich else {}
    with Sizes() as seen:
        method(net, (x, y), F.mse_loss, layers=["0.bias", "2.bias"], structure="diagonal", **options)
    assert 8 * 20_000 < seen.most < 8 * x.numel() / 4


def test_overlapping_windows_want_lags():
    x = ms.windows(noise(300), 5)
    net = dense(5, 2, 5, activation=nn.Tanh)
    with pytest.warns(RuntimeWarning, match="overlapping windows of 5, .* take dependence=5 or more"):
        sandwich(net, (x, x), F.mse_loss)
    sandwich(net, (x, x), F.mse_loss, dependence=5)
    sandwich(net, (x[torch.randperm(296, generator=ms.seeded(0))],) * 2, F.mse_loss)


def test_networks_are_taken_at_rest_and_left_alone():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 2))
    data = noise(50, 4).float(), noise(50, 2, seed=1).float()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    for method in (sandwich, laplace):
        posterior = method(net, data, F.mse_loss)
        resting = method(net.eval(), data, F.mse_loss)
        net.train()
        assert torch.equal(posterior.cov(), resting.cov()) and posterior.cov().dtype == torch.float64
        assert posterior.template.training
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None and p.dtype == torch.float32 for p in net.parameters())


def test_single_precision_is_computed_in_double():
    net, (x, y) = dense(4, 3, 2).float(), (noise(60, 4).float(), noise(60, 2, seed=1).float())
    twin = set_to(dense(4, 3, 2), flatten(net))
    assert far(sandwich(net, (x, y), F.mse_loss).cov(), sandwich(twin, (x.double(), y.double()), F.mse_loss).cov()) == 0


def weighted(out, target):
    return F.cross_entropy(out, target, weight=torch.tensor([1.0, 5.0, 1.0], dtype=out.dtype))


LINEAR = nn.Sequential(nn.Linear(3, 2)).double()
X, Y = noise(20, 3), noise(20, 2, seed=1)


@pytest.mark.parametrize("method", [sandwich, laplace])
@pytest.mark.parametrize(
    ("data", "loss", "options", "said"),
    [
        ((X * math.nan, Y), F.mse_loss, {}, "data must be finite, got NaN or infinity in the inputs"),
        ((X, Y / 0), F.mse_loss, {}, "infinity in the targets"),
        ((X, Y[:7]), F.mse_loss, {}, r"as many targets as inputs, and at least one, got shapes \(20, 3\) and \(7, 2\)"),
        ((X[:0], Y[:0]), F.mse_loss, {}, "at least one"),
        (X, F.mse_loss, {}, r"data must be a pair \(inputs, targets\), got Tensor"),
        ((X, "y" * 20), F.mse_loss, {}, r"data must be a pair \(inputs, targets\) of tensors"),
        ((X[:, :2], Y), F.mse_loss, {}, "model does not fit inputs"),
        ((X, Y), lambda o, t: F.mse_loss(o, t, reduction="none"), {}, r"a scalar tensor, got shape \(8, 2\)"),
        ((X, Y), lambda o, t: 1.0, {}, "a scalar tensor, got float"),
        ((X, Y), lambda o, t: F.mse_loss(o, t, reduction="sum"), {}, "same examples twice, as of a sum"),
        ((X, torch.arange(20) % 2), weighted_two := lambda o, t: weighted(torch.cat([o, o[:, :1]], 1), t), {},
         "mean of the losses of single examples"),
        ((X, Y), lambda o, t: (o - t).log().mean(), {}, "loss must be finite at the parameters"),
        ((X, Y), F.mse_loss, {"layers": "3"}, "'3' is no layer with parameters"),
        ((X, Y), F.mse_loss, {"structure": "rows"}, "structure must be one of full, layer, neuron, diagonal"),
        ((X, Y), F.mse_loss, {"largest": 0}, "largest must be a whole number"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(method, data, loss, options, said):
    with pytest.raises(ValueError, match=said):
        method(LINEAR, data, loss, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dependence": 20}, "dependence must be a whole number from 0 to 19, got 20"),
        ({"dependence": -1}, "dependence must be a whole number"),
        ({"dependence": "auto"}, "dependence must be a whole number"),
        ({"damping": -0.1}, "damping must be None or a number of at least 0, got -0.1"),
        ({"damping": "auto"}, "damping must be"),
        ({"damping": math.nan}, "damping must be"),
        ({"curvature": "fisher"}, "curvature must be one of auto, hessian, gauss_newton"),
        ({"dependence": 2, "groups": torch.zeros(5)}, "groups must be 20"),
        ({"groups": torch.zeros(20).long()}, "need dependence above 0"),
    ],
)
def test_bad_options_of_the_sandwich_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        sandwich(LINEAR, (X, Y), F.mse_loss, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": 0.0}, "noise must be None or a positive variance"),
        ({"noise": math.nan}, "noise must be"),
        ({"prior_precision": -1.0}, "prior_precision must be a number of at least 0"),
        ({"prior_precision": {"0.weight": -1.0, "0.bias": 1.0}}, r"prior_precision\['0.weight'\] must be a number"),
        ({"prior_precision": {"0.weight": 1.0}}, "must name all that is random"),
        ({"prior_precision": {"0": 1.0, "0.bias": 2.0}}, "names some parameters of '0.bias' twice"),
        ({"prior_precision": {"7": 1.0}}, "'7' is no layer"),
    ],
)
def test_bad_options_of_laplace_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        laplace(LINEAR, (X, Y), F.mse_loss, **options)


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match="model has no parameters"):
        sandwich(nn.Sequential(nn.ReLU()), (X, X), F.mse_loss)
    broken = set_to(nn.Sequential(nn.Linear(3, 2)).double(), [math.nan] * 8)
    with pytest.raises(ValueError, match=r"finite parameters, got NaN or infinity in '0\.weight'"):
        laplace(broken, (X, Y), F.mse_loss)
    with pytest.raises(ValueError, match="residuals that are all zero"):
        laplace(LINEAR, (X, LINEAR(X).detach()), F.mse_loss)
    with pytest.raises(ValueError, match="with another loss"):
        laplace(LINEAR, (X, Y), pseudo_huber, noise=1.0)
    with pytest.raises(ValueError, match="prior_precision must be larger"):
        laplace(dense(3, 4, 2), (X[:5], Y[:5]), F.mse_loss, prior_precision=0.0)
    gone = torch.arange(20) % 2
    gone[15] = -100
    with pytest.raises(ValueError, match="cut ignored examples out"):
        sandwich(LINEAR, (X, gone), F.cross_entropy)
    roots = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    rising = torch.arange(20.0).double()[:, None].flip(0)
    with pytest.raises(ValueError, match="finite gradient for some examples"):
        sandwich(
            roots,
            (rising, rising),
            lambda o, t: (o.abs() / t.abs().clamp(min=1)).sqrt().mean(),
            curvature="hessian",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of the shapes, too
        with pytest.raises(ValueError, match="shape"):
            sandwich(nn.Sequential(nn.Linear(3, 1)).double(), (X, Y[:, 0]), F.mse_loss)


@pytest.mark.parametrize("twice", ["activation", "layer"])
def test_a_module_used_twice_is_used_twice(twice):
    act, same = nn.ReLU(), nn.Linear(3, 3)
    net = nn.Sequential(
        same, act, *((nn.Linear(3, 3), act) if twice == "activation" else (same, nn.ReLU())), nn.Linear(3, 2)
    )
    net, data = net.double(), (torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64))
    plain = nn.Sequential(*[nn.Sequential(m) for m in net])  # never taken for a stack of dense layers
    found = [sandwich(m, data, F.mse_loss, curvature="gauss_newton", damping=0.1).cov() for m in (net, plain)]
    assert torch.allclose(*found, rtol=1e-8)


def test_integer_targets_of_a_squared_error():
    for method in (sandwich, laplace):
        with pytest.raises(ValueError, match=r"targets must be floating point for a squared error, got torch.int64"):
            method(nn.Sequential(nn.Linear(3, 2)).double(), (X, Y.long()), F.mse_loss)


def test_second_derivative_of_attention():
    torch.manual_seed(0)
    block = nn.Sequential(nn.TransformerEncoderLayer(2, 1, 2, batch_first=True), nn.Flatten(), nn.Linear(6, 1)).double()
    x, y = noise(10, 3, 2), noise(10, 1, seed=1)
    block.eval()
    params = dict(block.named_parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        exact = torch.autograd.functional.hessian(
            lambda w: F.mse_loss(torch.func.functional_call(block, unflatten(block, w), (x,)), y), flatten(block)
        )
    assert len(exact) == sum(p.numel() for p in params.values())
    assert torch.allclose(gram.hessian(block, (x, y), F.mse_loss), exact, atol=1e-10)
