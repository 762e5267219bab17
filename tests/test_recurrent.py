"""Oracles O3.4 to O3.6 of the recurrent networks, and what they promise."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

import mspace as ms
from mspace.models import ElmanRNN
from mspace.models.recurrent import GRUCell


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


def sine(n, omega=0.3):
    return torch.sin(omega * torch.arange(n, dtype=torch.float64))


def made(n_hidden=5, seed=0, **options):
    return ElmanRNN(n_hidden, generator=ms.seeded(seed), **options).double()


@pytest.mark.parametrize(("lags", "channels"), [(1, None), (3, None), (2, 2)])
def test_torchs_own_network(lags, channels):
    """O3.4: the states are those of nn.RNN on the lagged samples, gradients too."""
    model = made(lags=lags, channels=channels, horizon=2)
    twin = nn.RNN(model.V.shape[1], model.n_hidden, batch_first=True).double()
    with torch.no_grad():
        own = [model.V, model.W, model.b[:, 0], torch.zeros_like(model.b[:, 0])]
        for theirs, ours in zip(twin.parameters(), own, strict=True):
            theirs.copy_(ours)
    x = noise(4, 9, *([] if channels is None else [channels]))
    lagged = torch.stack([x[:, i : i + lags].reshape(4, -1) for i in range(9 - lags + 1)], 1)
    states = twin(lagged)[0]
    assert (model.states(x) - states).abs().max() < 1e-14
    assert (model(x) - model.readout(states[:, -1]).reshape(4, 2, *x.shape[2:])).abs().max() < 1e-14
    model.states(x).square().sum().backward()
    states.square().sum().backward()
    for ours, theirs in zip([model.V, model.W], (twin.weight_ih_l0, twin.weight_hh_l0)):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)


def test_torchs_own_gates():
    cell, x = GRUCell(3, 5, generator=ms.seeded(0)).double(), noise(4, 7, 3)
    twin, zero = nn.GRU(3, 5, batch_first=True).double(), torch.zeros_like(cell.c_n)
    own = [[cell.V_r, cell.V_z, cell.V_n], [cell.W_r, cell.W_z, cell.W_n]]
    own = [torch.cat(part) for part in own]
    own += [torch.cat(part)[:, 0] for part in ([cell.b_r, cell.b_z, cell.b_n], [zero, zero, cell.c_n])]
    with torch.no_grad():
        for theirs, ours in zip(twin.parameters(), own, strict=True):
            theirs.copy_(ours)
    transition, h = cell.transition(), torch.zeros(4, 5, dtype=torch.float64)
    for i in range(7):
        h = transition(h, cell.drive(x[:, i]))
        assert (h - twin(x)[0][:, i]).abs().max() < 1e-14
    assert 0.4 < GRUCell(100, 5).V_r.abs().max() <= 5**-0.5  # as torch: by the units, whatever the inputs


def test_the_papers_equations():
    """h_0 = 0, h_t = tanh(W h + V x_t), s_{t+1} = tanh(w_o h_t), written out."""
    model = made(lags=4, bias=False, output=torch.tanh)
    assert set(dict(model.named_parameters())) == {"W", "V", "readout.weight"}
    s, h = noise(7), torch.zeros(5, dtype=torch.float64)
    for t in range(4, 8):
        h = torch.tanh(model.W @ h + model.V @ s[t - 4 : t])
    assert torch.allclose(model(s[None])[0, 0], torch.tanh(model.readout.weight[0] @ h), atol=1e-14)


def test_impulse_response():
    """O3.5: of a linear recurrence, w_o W^k V."""
    model = made(activation=lambda h: h, bias=False, every=True)
    impulse = torch.zeros(1, 9, dtype=torch.float64)
    impulse[0, 0] = 1.0
    expected = [(model.readout.weight @ torch.linalg.matrix_power(model.W, k) @ model.V).item() for k in range(9)]
    assert torch.allclose(model(impulse)[0, :, 0], torch.tensor(expected, dtype=torch.float64), atol=1e-14)


def test_signed_permutations_change_nothing():
    """O3.6: rows and columns of W, rows of V, columns of w_o move together, since tanh is odd."""
    model, x = made(lags=2, bias=False), noise(3, 10)
    twin = copy.deepcopy(model)
    p = torch.eye(5, dtype=torch.float64)[torch.tensor([2, 0, 4, 1, 3])] * torch.tensor([1, -1, -1, 1, -1.0])[:, None]
    with torch.no_grad():
        twin.W.copy_(p @ model.W @ p.T)
        twin.V.copy_(p @ model.V)
        twin.readout.weight.copy_(model.readout.weight @ p.T)
    assert torch.allclose(twin(x), model(x), atol=1e-14)
    assert not torch.allclose(ms.weight_of(twin, "V"), ms.weight_of(model, "V"))


def test_gradients():
    model, x = made(3, lags=2, horizon=2, steps=3), noise(2, 5)
    names = [n for n, _ in model.named_parameters()]
    leaves = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(lambda *p: functional_call(model, dict(zip(names, p)), (x,)), leaves)


@pytest.mark.parametrize("options", [{}, {"horizon": 2, "steps": 5, "lags": 3}, {"every": True, "channels": 2}])
def test_batches_with_vmap(options, recwarn):
    """Members side by side are members one by one, and nothing falls back to a loop."""
    nets = [made(seed=i, **options) for i in range(3)]
    x = noise(4, 7, *([2] if "channels" in options else []))

    def loss(p):
        return functional_call(nets[0], p, (x,)).square().mean()

    together = vmap(grad(loss))(stack_module_state(nets)[0])
    for i, net in enumerate(nets):
        net(x).square().mean().backward()
        for name, p in net.named_parameters():
            assert torch.allclose(together[name][i], p.grad, atol=1e-13), name
    assert not len(recwarn)


@pytest.mark.parametrize("channels", [None, 2])
def test_a_forecast_reads_its_own_predictions(channels):
    """The state rolls on; asking the network again about the longer history says the same."""
    model = made(lags=3, horizon=2, channels=channels)
    s = noise(12, *([] if channels is None else [channels]))
    long = s
    for _ in range(4):
        long = torch.cat([long, model(long[None])[0].detach()])
    y = model.forecast(s, 7)
    assert y.shape == (7, *s.shape[1:]) and torch.allclose(y, long[12:19], atol=1e-13) and not y.requires_grad
    assert torch.allclose(model.forecast(s, 2), ms.forecast(model, s, 2), atol=1e-14)  # a direct one
    assert torch.allclose(model.forecast(s, 5, width=6), model.forecast(s[-6:], 5), atol=1e-14)


def test_free_run():
    """With steps beyond the horizon, `forward` is the forecast, with its gradient."""
    model = made(lags=2, horizon=1, steps=6)
    x = noise(3, 8)
    y = model(x)
    assert y.shape == (3, 6) and torch.allclose(y, torch.stack([model.forecast(row, 6) for row in x]), atol=1e-14)
    y[:, 5].sum().backward()
    one = made(lags=2)
    assert torch.allclose(one(x), y[:, :1], atol=1e-14) and one.forecast(x[0], 6).shape == (6,)
    assert torch.allclose(one.forecast(x[0], 6), y[0], atol=1e-13)


@pytest.mark.parametrize("channels", [None, 2])
def test_every_sample_is_a_target(channels):
    """Teacher forcing: the prediction after sample i is compared with the samples that followed it."""
    s = noise(40, *([] if channels is None else [channels]))
    model = made(lags=3, horizon=4, channels=channels, every=True)
    x, y = ms.windows(s, 9, horizon=4)
    t = model.targets(x, y)
    assert t.shape == model(x).shape == (28, 7, 4, *s.shape[1:])
    assert torch.equal(t[5, 0], s[8:12]) and torch.equal(t[5, 6], s[14:18]) and torch.equal(t[:, -1], y)
    plain = made(lags=3, horizon=4, channels=channels)
    assert torch.allclose(model(x)[:, -1], plain(x), atol=1e-14)
    assert torch.allclose(model(x)[:, 2], plain(x[:, :5]), atol=1e-14)


def test_the_start():
    for seed in range(3):
        model = made(16, seed)
        assert float(torch.linalg.eigvals(model.W.detach()).abs().max()) == pytest.approx(0.95, abs=1e-4)  # of float32
    gate = ElmanRNN(16, lags=100).V
    assert 0.09 < gate.abs().max() <= 0.1
    before = torch.get_rng_state()
    a, b, c = (made(seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) and not torch.equal(a[k], c[k]) for k in a)
    assert torch.equal(torch.get_rng_state(), before)
    model = made()
    with torch.random.fork_rng(devices=[]):
        model.reset_parameters()
    assert not any(torch.equal(v, a[k]) for k, v in model.state_dict().items())
    assert all((p != 0).all() and p.isfinite().all() for p in model.parameters())


def test_copies_and_pickles():
    model, x = made(lags=2), noise(2, 6)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))


def test_a_bootstrap_of_its_neurons(recwarn):
    """Twenty members; a neuron is the row [W | V | b] of a unit."""
    model = made(lags=3)
    data = ms.windows(sine(80) + 0.1 * noise(80), 10, horizon=1)
    ensemble = ms.bootstrap(model, data, F.mse_loss, n_models=20, block=20, epochs=1, generator=ms.seeded(1))
    neurons = ensemble.neurons(model.neurons["hidden"])
    assert neurons.mean.shape == (5, 5 + 3 + 1) and (neurons.cov.diagonal(dim1=1, dim2=2).sum(1) > 0).all()
    assert ensemble.neurons(model.neurons["readout"]).mean.shape == (1, 5)
    first = torch.cat([getattr(ensemble[0], n) for n in model.neurons["hidden"]], 1)
    assert torch.equal(ensemble.samples(model.neurons["hidden"])[0], first)
    assert torch.allclose(ensemble(data[0][:4])[3], ensemble[3](data[0][:4]), atol=1e-13)
    assert not len(recwarn)
    assert made(bias=False, lags=3).neurons["hidden"] == ["W", "V"]


def test_it_learns_a_sine():
    """Free-running over two periods after a short training, at many origins."""
    s = sine(160, 0.4)
    x, y = ms.windows(s, 24, horizon=1)
    model = made(8, every=True)
    adam = partial(torch.optim.Adam, lr=2e-2)
    net = ms.fit(model, (x, model.targets(x, y)), F.mse_loss, epochs=12, optimizer=adam, generator=ms.seeded(1))
    skill = ms.rolling_origin(net.forecast, s, 16, start=60, every=7, period=16)
    assert skill("r2")[0] > 0.9 and skill("mae")[15] < 0.5
    assert ms.rolling_origin(model.forecast, s, 16, start=60, every=7, period=16)("mse")[0] > 5 * skill("mse")[0]


HISTORY = sine(10)
BAD = sine(10).index_fill(0, torch.tensor(3), math.nan)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ElmanRNN(0), r"n_hidden must be.*at least 1, got 0"),
        (lambda: ElmanRNN(2, lags=0), r"lags must be.*at least 1, got 0"),
        (lambda: ElmanRNN(2, horizon=1.5), r"horizon must be.*got 1\.5"),
        (lambda: ElmanRNN(2, channels=0), r"channels must be.*got 0"),
        (lambda: ElmanRNN(2, every=True, steps=3), r"every predicts after true samples.*steps=3"),
        (lambda: made()(noise(2, 5, 3)), r"windows must be \(B, width\), got \(2, 5, 3\).*channels"),
        (lambda: made(channels=2)(noise(2, 5, 3)), r"windows must be \(B, width, 2\), got \(2, 5, 3\)"),
        (lambda: made(lags=6)(noise(2, 5)), r"windows must hold at least 6 samples, got 5"),
        (lambda: made(lags=6).forecast(HISTORY[:5], 3), r"history has 5 samples, and the model needs 6"),
        (lambda: made().forecast(HISTORY, 3, width=11), r"history has 10 samples, and the model needs 11"),
        (lambda: made(lags=6).forecast(HISTORY, 3, width=5), r"width must be.*at least 6, got 5"),
        (lambda: made().forecast(HISTORY, 0), r"steps must be.*at least 1, got 0"),
        (lambda: made().forecast(HISTORY[:, None], 1), r"history must be \(T,\)"),
        (lambda: made().forecast(BAD, 3), r"history has 1 non-finite rows, the first at 3"),
        (lambda: made()(torch.stack([HISTORY, BAD])), r"windows must be finite, 1 are not, the first is 1: cut"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_a_runaway_is_named():
    model = made(activation=lambda h: h, bias=False)
    with torch.no_grad():
        model.W.mul_(1e200)
    with pytest.raises(ValueError, match=r"non-finite value at step 3 of 5: it diverged"):
        model.forecast(torch.tensor([1e-100, 1.0], dtype=torch.float64), 5)
