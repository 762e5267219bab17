import copy
import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mspace import seeded
from mspace.models import mlp
from mspace.posterior import online
from mspace.posterior.path import BatchMeans, OnlineBatchMeans, PlugIn, batch_ends, gauss_newton_trace


@pytest.fixture(scope="module")
def regression():
    """A line fitted to data whose noise grows with the input, and the sandwich of the fit in closed form."""
    draw, d, n = seeded(0), 5, 1000
    mixing = torch.linalg.cholesky(torch.tensor([[0.5 ** abs(i - j) for j in range(d)] for i in range(d)]).double())
    x = torch.randn(n, d, generator=draw, dtype=torch.float64) @ mixing.T
    y = x.sum(1, keepdim=True) + (0.5 + x[:, :1].abs()) * torch.randn(n, 1, generator=draw, dtype=torch.float64)
    weight = torch.linalg.lstsq(x, y).solution
    net = nn.Sequential(nn.Linear(d, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(weight.T)
    inverse, residual = torch.linalg.inv(x.T @ x), y - x @ weight
    return net, (x, y), inverse @ (x.T * residual[:, 0] ** 2 @ x) @ inverse


@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_plug_in_finds_the_sandwich_of_a_line(regression, curvature, batch_size):
    net, data, truth = regression
    found = online(net, data, F.mse_loss, curvature=curvature, batch_size=batch_size, generator=seeded(1), steps=6000)
    assert torch.linalg.matrix_norm(found.cov() - truth, 2) < 0.1 * torch.linalg.matrix_norm(truth, 2)
    assert torch.allclose(found.cov().diagonal(), truth.diagonal(), rtol=0.1)
    assert (found.mean - net[0].weight.detach()[0]).abs().max() < 3 * truth.diagonal().max().sqrt()
    assert found.report["n"] == 1000 and found.report["raised"] == 0


@pytest.mark.parametrize("method", ["batch_means", "online_batch_means"])
def test_batch_means_are_of_the_size_of_the_sandwich_and_rather_below(regression, method):
    net, data, truth = regression
    found = online(net, data, F.mse_loss, method=method, rate=0.25, steps=8000, chains=60, generator=seeded(2))
    ratio = found.cov().diagonal() / truth.diagonal()
    assert 0.6 < ratio.mean() < 1.05
    assert torch.nn.functional.cosine_similarity(found.cov().flatten(), truth.flatten(), dim=0) > 0.97


def test_a_minibatch_counts_for_as_many_examples(regression):
    net, data, truth = regression
    options = {"method": "batch_means", "rate": 0.25, "steps": 4000, "chains": 40}
    one, four = (online(net, data, F.mse_loss, batch_size=b, generator=seeded(3), **options).cov() for b in (1, 4))
    assert 0.75 < four.trace() / one.trace() < 1.33
    assert truth.trace() / 2 < four.trace() < 1.5 * truth.trace()


def test_ends_of_growing_batches():
    ends = batch_ends(100_000, 0.505, 18)
    assert ends[:3] == [261, 1058, 2401] and ends[-2:] == [89652, 100_000] and len(ends) == 19
    assert len(batch_ends(100_000, 0.505)) == 18
    with pytest.raises(ValueError, match="batches must be fewer"):
        batch_ends(1000, 0.6, 500)


def path(steps=700, chains=3, size=4):
    return torch.randn(steps, chains, size, generator=seeded(4), dtype=torch.float64).cumsum(0) / 20


def fed(estimator, iterates):
    for i, where in enumerate(iterates, 1):
        estimator.after(i, where)
    return estimator.covariances(iterates.mean(0))


def test_online_batch_means_equal_their_definition():
    iterates, starts = path(), [int(k**4.0) for k in range(1, 20)]
    direct, total = torch.zeros(4, 4, dtype=torch.float64), 0
    for c in range(3):
        mean = iterates[:, c].mean(0)
        for i in range(1, len(iterates) + 1):
            begin = max(s for s in starts if s <= i)
            gap = (iterates[begin - 1 : i, c] - mean).sum(0)
            direct += torch.outer(gap, gap)
            total += (i - begin + 1) * (c == 0)
    full, pairs = fed(OnlineBatchMeans([torch.arange(4)[None], torch.tensor([[0, 2], [3, 1]])], 0.5), iterates)
    assert torch.allclose(full[0], direct / total, atol=1e-10)
    assert torch.allclose(pairs[1], (direct / total)[[3, 1]][:, [3, 1]], atol=1e-10)


def test_batch_means_equal_their_definition():
    iterates = path()
    ends, direct = batch_ends(700, 0.6, 5), torch.zeros(4, 4, dtype=torch.float64)
    for c in range(3):
        mean = iterates[ends[0] :, c].mean(0)
        for a, b in itertools.pairwise(ends):
            gap = iterates[a:b, c].mean(0) - mean
            direct += (b - a) * torch.outer(gap, gap) / 5
    assert torch.allclose(fed(BatchMeans([torch.arange(4)[None]], 700, 0.6, 5), iterates)[0][0], direct, atol=1e-10)


def test_plug_in_curvature_is_the_mean_second_derivative_along_the_path():
    net = mlp(3, 2, 2, activation=nn.Tanh, generator=seeded(5)).double()
    x, y = torch.randn(9, 3, generator=seeded(6)).double(), torch.randn(9, 2, generator=seeded(7)).double()
    size = sum(p.numel() for p in net.parameters())
    names, shapes = zip(*((k, p.shape) for k, p in net.named_parameters()))
    away = torch.randn(9, 1, size, generator=seeded(8)).double() / 10
    start = torch.cat([p.detach().flatten() for p in net.parameters()])

    def loss_at(vector, i):
        parts = vector.split([s.numel() for s in shapes])
        held = {k: v.view(s) for k, v, s in zip(names, parts, shapes)}
        return F.mse_loss(torch.func.functional_call(net, held, (x[i : i + 1],)), y[i : i + 1])

    direct = sum(torch.autograd.functional.hessian(partial(loss_at, i=i), start + away[i, 0]) for i in range(9))
    found = PlugIn(net, (x, y), F.mse_loss, [torch.arange(size)[None]], "hessian")
    for i in range(9):
        found.before(away[i], torch.zeros(1, size).double(), torch.tensor([[i]]))
    found._bend()
    assert torch.allclose(found.curved, direct, atol=1e-12)
    pairs = PlugIn(net, (x, y), F.mse_loss, [torch.arange(size)[None]], "hessian")
    pairs.before(
        away[:2, 0], torch.zeros(2, size).double(), torch.tensor([[0, 3], [1, 4]])
    )  # two chains, batches of two
    pairs._bend()
    met = [(0, 0), (0, 3), (1, 1), (1, 4)]
    direct = sum(torch.autograd.functional.hessian(partial(loss_at, i=i), start + away[c, 0]) for c, i in met)
    assert torch.allclose(pairs.curved, direct, atol=1e-12)


@pytest.mark.parametrize("rest", [[nn.Dropout(0.5)], []], ids=["dropout at rest", "dense"])
def test_the_mean_is_that_of_a_plain_descent(rest):
    net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), *rest, nn.Linear(6, 3)).double()
    x, y = torch.randn(50, 2, generator=seeded(5)).double(), torch.randn(50, 3, generator=seeded(6)).double()
    found = online(net, (x, y), F.mse_loss, rate=0.1, alpha=0.6, steps=1000, batch_size=2, generator=seeded(7))
    by_hand, draw = copy.deepcopy(net).eval(), seeded(7)
    total = torch.zeros(len(found.mean)).double()
    for i in range(1, 1001):
        some = torch.randint(50, (1, 2), generator=draw)[0]
        by_hand.zero_grad()
        F.mse_loss(by_hand(x[some]), y[some]).backward()
        with torch.no_grad():
            for p in by_hand.parameters():
                p -= 0.1 * i**-0.6 * p.grad
        total += torch.cat([p.detach().flatten() for p in by_hand.parameters()])
    assert torch.allclose(found.mean, total / 1000, atol=1e-10)


def test_rate_by_default_is_one_over_the_trace_of_the_curvature(regression):
    net, (x, y), _ = regression
    trace = 2 * (x[torch.linspace(0, 999, 256).long()] ** 2).sum(1).mean()
    assert gauss_newton_trace(net, (x, y), F.mse_loss) == pytest.approx(float(trace), rel=1e-12)
    report = online(net, (x, y), F.mse_loss, steps=1000, generator=seeded(0)).report
    assert report["rate"] == pytest.approx(float(1 / trace))


def test_classes_layers_structures_and_the_stream():
    x, y = torch.randn(300, 4, generator=seeded(9)), torch.randint(3, (300,), generator=seeded(10))
    net = mlp(4, 6, 3, generator=seeded(11))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    runs = [online(net, (x, y), F.cross_entropy, layers="2", steps=1000, generator=seeded(1)) for _ in range(2)]
    assert torch.equal(runs[0].cov(), runs[1].cov()) and len(runs[0]) == 21
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert runs[0].neurons("2").cov.shape == (3, 6, 6) and runs[0].neurons("0").cov.abs().max() == 0
    parts = online(net, (x, y), F.cross_entropy, structure="neuron", steps=1000, generator=seeded(1))
    assert torch.allclose(parts.neurons("2").cov, runs[0].neurons("2").cov, atol=1e-12)
    assert parts.report["raised"] > 0  # the softmax does not see what all logits share


def test_few_batches_are_said(regression):
    net, data, _ = regression
    with pytest.warns(RuntimeWarning, match="3 batches of 1000 steps cannot fill a covariance of 5"):
        found = online(net, data, F.mse_loss, method="batch_means", batches=3, steps=1000, generator=seeded(1))
    assert torch.linalg.matrix_rank(found.cov()) <= 2
    online(net, data, F.mse_loss, method="batch_means", batches=3, steps=1000, structure="diagonal")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"method": "welford"}, "method must be one of plugin"),
        ({"curvature": "fisher"}, "curvature must be one of"),
        ({"structure": "row"}, "structure must be one of"),
        ({"alpha": 0.5}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"steps": 10}, "steps must be a whole number"),
        ({"chains": 0}, "chains must be"),
        ({"rate": -1.0}, "rate must be a positive"),
        ({"rate": 1e3}, "rate 1e\\+03 is too large"),
        ({"layers": "7"}, "'7' is no layer"),
        ({"layers": []}, "layers must name"),
        ({"optimizer": torch.optim.Adam}, "must be plain SGD .* got Adam"),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}, "must be plain SGD"),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1), "rate": 0.1}, "must be plain SGD and name the rate alone"),
    ],
)
def test_bad_options(regression, options, said):
    net, data, _ = regression
    with pytest.raises(ValueError, match=said):
        online(net, data, F.mse_loss, **{"steps": 1000, **options})


def test_bad_data(regression):
    net, (x, y), _ = regression
    with pytest.raises(ValueError, match="as many targets"):
        online(net, (x, y[:5]), F.mse_loss)
    with pytest.raises(ValueError, match="finite"):
        online(net, (x / 0, y), F.mse_loss)


def test_sgd_gives_its_rate(regression):
    net, data, _ = regression
    found = online(net, data, F.mse_loss, optimizer=partial(torch.optim.SGD, lr=0.03), steps=1000)
    assert found.report["rate"] == 0.03
