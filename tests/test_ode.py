"""Oracles O3.9 to O3.11 of the differential equations, and what the forecaster on them promises."""

import copy
import math
import pickle
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

import mspace as ms
from mspace.models import NeuralODE, dopri5, irregular_windows, mlp, rk4


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


def sine(n, omega=0.3):
    return torch.sin(omega * torch.arange(n, dtype=torch.float64))


def made(*sizes, seed=0, **options):
    return NeuralODE(*sizes, generator=ms.seeded(seed), **options).double()


IRREGULAR = torch.tensor([0.0, 0.1, 0.37, 0.4, 1.0, 1.3], dtype=torch.float64)
START = noise(4, 3)
MATRIX = torch.tensor([[-0.3, 2.0, 0.1], [-2.0, -0.3, 0.0], [0.2, 0.0, -0.7]], dtype=torch.float64)
CURVED = mlp(3, 8, 3, activation=nn.Tanh, generator=ms.seeded(3)).double()


def linear_field(t, z):
    return z @ MATRIX.T


def curved(t, z):
    return 2 * CURVED(z)


def clocked(t, z):
    return torch.cos(3 * t) * z + t


def exact(times, matrix=MATRIX, start=START):
    return torch.stack([start @ torch.linalg.matrix_exp(matrix * t).T for t in times - times[0]])


# -- solvers ----------------------------------------------------------------------------------------


def test_a_linear_field_is_the_matrix_exponential():
    """O3.9 at irregular times: states, and the gradient with respect to the matrix."""
    a, b = (MATRIX.clone().requires_grad_() for _ in range(2))
    found = rk4(lambda t, z: z @ a.T, START, IRREGULAR, n_steps=400)
    truth = exact(IRREGULAR, b)
    assert (found.states - truth).abs().max() < 1e-9 and found.evaluations == 1601
    weight = noise(*truth.shape, seed=5)
    slopes = (torch.autograd.grad((v * weight).sum(), m)[0] for v, m in ((found.states, a), (truth, b)))
    assert torch.allclose(*slopes, atol=1e-8)


def test_adaptive_steps_on_a_linear_field():
    pytest.importorskip("torchdiffeq")
    a, b = (MATRIX.clone().requires_grad_() for _ in range(2))
    found = dopri5(lambda t, z: z @ a.T, START, IRREGULAR, rtol=1e-10, atol=1e-12)
    truth = exact(IRREGULAR, b)
    assert (found.states - truth).abs().max() < 1e-8
    slopes = (torch.autograd.grad(v[-1].sum(), m)[0] for v, m in ((found.states, a), (truth, b)))
    assert torch.allclose(*slopes, atol=1e-7)


@pytest.mark.parametrize("between", [False, True])
def test_fourth_order(between):
    """Half the step is a sixteenth of the error, at the steps' ends and by the cubic between them."""
    times = torch.linspace(0, 2, 2 if between is False else 38, dtype=torch.float64)
    errors = []
    for n_steps in (10, 20, 40):
        found = rk4(linear_field, START, times, n_steps=n_steps)
        assert found.evaluations == 4 * n_steps + 1
        errors.append((found.states - exact(times)).abs().max())
    ratios = [float(a / b) for a, b in pairwise(errors)]
    assert all(13 < r < 19 for r in ratios), ratios


@pytest.mark.parametrize("field", [curved, clocked])
def test_torchdiffeqs_rk4(field):
    """Equal to 1e-10 on the same grid, and with its cubic between the steps of a coarser one."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    found = rk4(field, START, IRREGULAR)
    assert (found.states - torchdiffeq.odeint(field, START, IRREGULAR, method="rk4")).abs().max() < 1e-10
    assert found.evaluations == 20
    times = torch.arange(29, dtype=torch.float64) / 16
    options = {"step_size": 0.25, "interp": "cubic"}
    theirs = torchdiffeq.odeint(field, START, times, method="rk4", options=options)
    assert (rk4(field, START, times, n_steps=7).states - theirs).abs().max() < 1e-10


def test_dopri5():
    """Fixed steps and adaptive ones agree to 1e-4, in gradients too, and both say what they cost."""
    pytest.importorskip("torchdiffeq")
    found, calls = {}, []

    def field(t, z):
        calls.append(t)
        return curved(t, z)

    for name, solver in (("ours", partial(rk4, n_steps=8)), ("theirs", partial(dopri5, rtol=1e-5, atol=1e-5))):
        calls.clear()
        states, evaluations = solver(field, START, torch.linspace(0, 1, 50, dtype=torch.float64))
        assert evaluations == len(calls)
        found[name] = states, torch.autograd.grad(states.square().mean(), CURVED[0].weight)[0]
    assert all((a - b).abs().max() < 1e-4 for a, b in zip(found["ours"], found["theirs"]))


@pytest.mark.parametrize("solver", [rk4, partial(rk4, n_steps=40)])
@pytest.mark.parametrize("field", [curved, clocked])
def test_every_example_at_its_own_times(solver, field):
    """Each row of (B, T) times is a problem of its own."""
    times = IRREGULAR * torch.tensor([[1.0], [0.4], [1.7], [0.9]], dtype=torch.float64) + noise(4, 1, seed=4)
    together = solver(field, START, times).states
    for i in range(4):
        alone = solver(field, START[i : i + 1], times[i]).states
        assert torch.allclose(together[:, i : i + 1], alone, atol=1e-12)


@pytest.mark.parametrize("solver", [partial(rk4, n_steps=60), partial(dopri5, rtol=1e-8, atol=1e-9)])
def test_fewer_times_and_shifted_ones(solver):
    """O3.10: some of the times give some of the states; O3.11: nothing depends on when an autonomous field starts."""
    pytest.importorskip("torchdiffeq")
    full = solver(curved, START, IRREGULAR).states
    some = [0, 2, 5]
    assert torch.allclose(solver(curved, START, IRREGULAR[some]).states, full[some], atol=1e-6)
    assert torch.allclose(solver(curved, START, IRREGULAR + 3.0).states, full, atol=1e-6)
    assert not torch.allclose(
        solver(clocked, START, IRREGULAR + 3.0).states, solver(clocked, START, IRREGULAR).states, atol=1e-2
    )


@pytest.mark.parametrize("n_steps", [None, 5])
def test_solver_gradients(n_steps):
    def last(a, start, times):
        return rk4(lambda t, z: torch.tanh(z @ a.T) + t, start, times, n_steps=n_steps).states

    leaves = [v.clone().requires_grad_() for v in (MATRIX, START, IRREGULAR)]
    assert torch.autograd.gradcheck(last, leaves)


def test_any_shape_of_state(recwarn):
    """A stack of networks as one more axis of the state, by hand and by vmap."""
    weights = noise(5, 3, 3)

    def one(a):
        return rk4(lambda t, z: torch.tanh(z @ a.T), START, IRREGULAR, n_steps=6).states

    stacked = rk4(lambda t, z: torch.tanh(z @ weights.mT), START.expand(5, 4, 3), IRREGULAR, n_steps=6).states
    assert torch.allclose(vmap(one)(weights), stacked.transpose(0, 1), atol=1e-14)
    assert torch.allclose(one(weights[2]), stacked[:, 2], atol=1e-14)
    assert not len(recwarn)


def explode(t, z):
    return z**2


@pytest.mark.parametrize(
    ("solver", "says"),
    [
        (rk4, r"blew up in 3 of 4 examples between times 1\.\d+ and 1\.\d+, where it had reached .*bounded"),
        (partial(rk4, n_steps=50), r"blew up in 3 of 4 examples between times 1\.\d+ and 1\.\d+"),
        (dopri5, r"could not be followed beyond time 1(\.0\d*)? of 2 .*after \d+ evaluations: it blows up there"),
    ],
)
def test_a_blow_up_says_where(solver, says):
    """dz/dt = z^2 from 1 is 1 / (1 - t), over at time 1; from -1 it lives for ever."""
    pytest.importorskip("torchdiffeq")
    start = torch.tensor([[1.0], [-1.0], [1.0], [1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=says):
        solver(explode, start, torch.linspace(0, 2, 51, dtype=torch.float64))


@pytest.mark.parametrize("solver", [rk4, partial(rk4, n_steps=4), dopri5])
@pytest.mark.parametrize("shape", [(1,), (2, 1)])
def test_steps_keep_their_length_beside_a_state_of_single_precision(solver, shape):
    """Seconds since 1970 are no numbers of float32: one step there would have length zero."""
    pytest.importorskip("torchdiffeq")
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    far = solver(lambda t, z: -z, torch.ones(shape), times + 1.7e9).states
    near = solver(lambda t, z: -z, torch.ones(shape), times).states
    assert far.dtype == torch.float32 and torch.allclose(far, near, atol=1e-6)
    if len(shape) == 2 and solver is not dopri5:
        own = solver(lambda t, z: -z + 0 * t, torch.ones(shape), (times + 1.7e9).expand(2, 3)).states
        assert own.dtype == torch.float32 and torch.allclose(own, near, atol=1e-6)


def test_a_blow_up_inside_vmap_is_not_finite():
    def one(a):
        return rk4(lambda t, z: a * z**2, torch.ones(1, 1), torch.linspace(0, 2, 51)).states[-1, 0, 0]

    found = vmap(one)(torch.tensor([1.0, -1.0]))
    assert not found[0].isfinite() and found[1] == pytest.approx(1 / 3, abs=1e-3)


def test_without_torchdiffeq(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match="pip install torchdiffeq, or take rk4"):
        dopri5(curved, START, IRREGULAR)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ([0.0, 0.5, 0.4], r"times must increase, got 0\.4 after 0\.5 at position 2: sort them"),
        ([0.0, 0.5, 0.5], r"got 0\.5 after 0\.5 at position 2: take the mean of what was measured at one time"),
        ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], r"got 0 after 1 at position 1 of example 1: sort"),
        ([0.0, math.nan], r"times must be finite, got 1"),
        ([0.0], r"times must be \(T,\), or \(B, T\), with T >= 2, got \(1,\)"),
        ([[0.0, 1.0]], r"start must be.*\(B, d\) for times \(B, T\), got \(4, 3\), \(1, 2\)"),
    ],
)
def test_times_are_checked(times, says):
    for solver in (rk4, partial(rk4, n_steps=3), dopri5):
        with pytest.raises(ValueError, match=says):
            solver(curved, START, torch.tensor(times))


# -- the forecaster -----------------------------------------------------------------------------------


def test_the_model_written_out():
    """Encoder, field in units of the width, decoder; for a linear field the matrix exponential."""
    model = made(6, 3, horizon=4, encoder=(), field=nn.Linear(3, 3, bias=False), solver=partial(rk4, n_steps=30))
    x = noise(5, 6)
    start = x @ model.encoder[0].weight.T + model.encoder[0].bias
    z = exact(torch.arange(5, dtype=torch.float64) / 6, model.field.weight, start)
    y = (z @ model.decoder[0].weight.T + model.decoder[0].bias)[1:, :, 0].T
    assert torch.allclose(model(x), y, atol=1e-8)
    twice = made(6, 3, horizon=4, encoder=(), field=nn.Linear(3, 3, bias=False), unit=12.0)
    with torch.no_grad():
        twice.load_state_dict(model.state_dict())
        twice.field.weight.mul_(2)
    assert torch.allclose(twice(x), y, atol=1e-4)


def test_the_irregular_model_written_out():
    """An ODE-RNN: the field moves the state from one observation to the next, a gated cell takes each in."""
    model, cell = made(4, 3, irregular=True, unit=2.0), nn.GRUCell(2, 3).double()
    gates = model.encoder
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([gates.V_r, gates.V_z, gates.V_n]))
        cell.weight_hh.copy_(torch.cat([gates.W_r, gates.W_z, gates.W_n]))
        cell.bias_ih.copy_(torch.cat([gates.b_r, gates.b_z, gates.b_n])[:, 0])
        cell.bias_hh.copy_(torch.cat([0 * gates.c_n, 0 * gates.c_n, gates.c_n])[:, 0])
        model.field[2].weight.mul_(5)
    s, t = noise(5), torch.tensor([0.0, 0.5, 2.0, 3.0, 3.7], dtype=torch.float64)
    s[1] = math.nan
    z = torch.zeros(1, 3, dtype=torch.float64)
    for i in range(4):
        z = z if i == 0 else rk4(model.velocity, z, t[i - 1 : i + 1] / 2).states[1]
        z = z if i == 1 else cell(torch.stack([s[i], torch.ones(()).double()])[None], z)
    z = rk4(model.velocity, z, t[3:] / 2).states[1]
    assert torch.allclose(model(irregular_windows(s, t, 4, 1)[0]), model.decoder(z), atol=1e-13)


@pytest.mark.parametrize("channels", [None, 2])
def test_a_forecast_moves_on(channels):
    """The state is encoded once, and goes as far as the forecast."""
    model = made(6, 3, horizon=4, channels=channels)
    s = noise(10, *([] if channels is None else [channels]))
    y = model.forecast(s, 9)
    assert y.shape == (9, *s.shape[1:]) and not y.requires_grad
    assert torch.allclose(y[:4], model(s[None, -6:])[0], atol=1e-14)
    assert torch.allclose(y[:4], ms.forecast(model, s, 4, width=6), atol=1e-14)
    states, evaluations = model.solve(s[None, -6:])
    assert states.shape == (5, 1, 3) and evaluations == 16
    assert torch.allclose(model.decoder(states)[1:, 0].reshape(4, *s.shape[1:]), y[:4], atol=1e-14)


def test_long_forecasts_take_steps_as_in_training():
    """Two steps for every four samples, not two in all."""
    options = {"horizon": 4, "field": (8,)}
    coarse, fine = (made(6, 3, solver=partial(rk4, n_steps=n), **options) for n in (2, 40))
    with torch.no_grad():
        coarse.field[-1].weight.mul_(4)
    fine.load_state_dict(coarse.state_dict())
    s = noise(6)
    gap = (coarse.forecast(s, 23) - fine.forecast(s, 23)).abs()
    assert 1e-6 < gap.max() < 2e-3
    whole = made(6, 3, **{**options, "horizon": 23}, solver=partial(rk4, n_steps=230))
    whole.load_state_dict(coarse.state_dict())
    assert (fine.forecast(s, 23) - whole.forecast(s, 23)).abs().max() < 1e-6


def test_a_cost_is_counted():
    s, t = noise(30), torch.arange(30)
    for solver, cost in ((rk4, 4 * 5), (partial(rk4, n_steps=2), 9)):
        assert made(6, 3, horizon=5, solver=solver).solve(s[None, :6]).evaluations == cost
        model = made(6, 3, horizon=5, solver=solver, irregular=True)
        found = model.solve(irregular_windows(s, t, 6, 5)[0])
        assert found.states.shape == (6, 20, 3) and found.evaluations == cost + 4 * 5


@pytest.mark.parametrize("options", [{}, {"solver": partial(rk4, n_steps=2)}, {"irregular": True}])
def test_batches_with_vmap(options, recwarn):
    nets = [made(5, 2, horizon=3, seed=i, **options) for i in range(3)]
    s = noise(12)
    if "irregular" in options:
        x = irregular_windows(s, torch.arange(12) ** 1.1, 5, 3)[0]
    else:
        x = ms.windows(s, 5)

    def loss(p, x):
        return functional_call(nets[0], p, (x,)).square().mean()

    together = vmap(grad(loss), in_dims=(0, 0))(stack_module_state(nets)[0], torch.stack([x] * 3))
    for i, net in enumerate(nets):
        net(x).square().mean().backward()
        for name, p in net.named_parameters():
            assert torch.allclose(together[name][i], p.grad, atol=1e-12), name
    assert not len(recwarn)


@pytest.mark.parametrize("irregular", [False, True])
def test_gradients(irregular):
    model = made(3, 2, horizon=2, field=(3,), **({"irregular": True} if irregular else {"encoder": ()}))
    s = noise(7)
    x = irregular_windows(s, torch.arange(7) ** 1.2, 3, 2)[0] if irregular else ms.windows(s, 3)
    names = [n for n, _ in model.named_parameters()]
    leaves = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(lambda *p: functional_call(model, dict(zip(names, p)), (x,)), leaves)


def test_irregular_windows():
    s, t = noise(20, 2), torch.rand(20, generator=ms.seeded(1), dtype=torch.float64).cumsum(0) + 1e6
    s[3, 0] = s[12, 1] = math.nan
    x, y = irregular_windows(s, t, 6, 4)
    assert x.shape == (11, 10, 5) and y.shape == (11, 4, 2)
    assert torch.equal(x[8, :6, :2], s[8:14].nan_to_num()) and (x[:, 6:, :2] == 0).all()
    assert torch.equal(x[..., 2:4], torch.stack([s[i : i + 10].isfinite().double() for i in range(11)]))
    assert torch.allclose(x[4, :, 4], t[4:14] - t[9], atol=1e-12)
    assert torch.equal(y[5], s[11:15].nan_to_num()) and y[5, 1, 1] == 0
    x, y = irregular_windows(s[:, 1].float()[13:], t[13:], 2, 1)
    assert x.shape == (5, 3, 3) and y.shape == (5, 1) and x.dtype == y.dtype == torch.float32
    assert torch.allclose(x[:, 2, 2].double(), t[15:] - t[14:-1], atol=1e-6)


def test_what_is_missing_has_no_say():
    """A masked value may be anything; a row without values only lets time pass; a target not there costs nothing."""
    model = made(6, 3, horizon=2, channels=2, irregular=True)
    s, t = noise(8, 2), torch.arange(8) ** 1.3
    s[2] = s[4, 1] = s[7, 0] = math.nan
    x, y = irregular_windows(s, t, 6, 2)
    output = model(x)
    assert output[0, 1, 0] == 0 == y[0, 1, 0] and (output[0, 1, 1] != 0) and (output[0, 0] != 0).all()
    other = x.clone()
    other[0, 6:, :2] = 7.0  # hidden: the output may not depend on it
    assert torch.equal(model(other), output)
    without = torch.tensor([0, 1, 3, 4, 5, 6, 7])
    finer = made(6, 3, horizon=2, channels=2, irregular=True)
    finer.load_state_dict(model.state_dict())
    gap = finer(x[:, without]) - output
    assert gap.abs().max() < 1e-4  # one step of rk4 where there were two
    s[4, 0] = 5.0  # a value that is there does matter
    assert (model(irregular_windows(s, t, 6, 2)[0]) - output).abs().max() > 1e-3


def test_predict_at_any_time():
    """At the times of a window as `forward`; in any unit and from any origin of time, whatever is asked besides."""
    model = made(6, 3, horizon=3, irregular=True)
    s, t = noise(9), torch.arange(9, dtype=torch.float64) ** 1.2
    x, _ = irregular_windows(s, t, 6, 3)
    expected = model(x)[0].detach()
    assert torch.allclose(model.predict(s[:6], t[:6], t[6:]), expected, atol=1e-13)
    assert torch.allclose(model.predict(s[:6], t[:6] + 1e6, t[6:] + 1e6), expected, atol=1e-8)
    single = copy.deepcopy(model).float()  # whose numbers cannot tell such times apart
    assert torch.allclose(single.predict(s[:6], t[:6] + 1e9, t[6:] + 1e9).double(), expected, atol=1e-5)
    assert torch.allclose(model.predict(s[:6], t[:6], t[7:8]), expected[1:2], atol=1e-4)
    longer = torch.cat([torch.tensor([9.0, math.nan]).double(), s[:6]])
    assert torch.allclose(model.predict(longer, torch.cat([t[:2] - 5, t[:6]]), t[6:]), expected, atol=1e-13)
    even = torch.arange(9)
    assert torch.allclose(model.forecast(s[:6], 3), model.predict(s[:6], even[:6], even[6:]), atol=1e-13)
    two = made(6, 3, channels=2, irregular=True)
    assert two.predict(noise(6, 2), even[:6], torch.tensor([6.5, 7.0, 30.0])).shape == (3, 2)


def test_it_learns_an_irregular_sine():
    """With a third of the samples dropped at random, at times nobody trained for."""
    t = torch.rand(180, generator=ms.seeded(2), dtype=torch.float64).mul(0.8).add(0.2).cumsum(0)
    s = torch.sin(t)
    adam = partial(torch.optim.Adam, lr=2e-2)
    start = made(8, 4, horizon=4, irregular=True, field=(16,), unit=3.0)
    data = irregular_windows(s[:140], t[:140], 8, 4)
    net = ms.fit(start, data, F.mse_loss, epochs=10, optimizer=adam, generator=ms.seeded(1))
    wanted = torch.arange(1, 6).double() * 0.5
    errors = [
        (net.predict(s[:i], t[:i], t[i - 1] + wanted) - torch.sin(t[i - 1] + wanted)).square().mean()
        for i in range(145, 180, 3)
    ]
    assert torch.stack(errors).mean() < 0.1


def test_it_learns_a_sine():
    s = sine(260)
    adam = partial(torch.optim.Adam, lr=1e-2)
    start = made(20, 3, horizon=10, field=(16,), solver=partial(rk4, n_steps=3))
    data, rng = ms.windows(s[:200], 20, horizon=10), ms.seeded(1)
    net = ms.fit(start, data, F.mse_loss, epochs=15, optimizer=adam, generator=rng)
    assert (ms.rolling_origin(net.forecast, s, 10, start=200, every=5, period=21)("r2") > 0.8).all()


@pytest.mark.parametrize("irregular", [False, True])
def test_a_bootstrap_of_its_neurons(irregular, recwarn):
    s = sine(60) + 0.1 * noise(60)
    model = made(8, 3, horizon=2, field=(6,), irregular=irregular, solver=partial(rk4, n_steps=2))
    data = irregular_windows(s, torch.arange(60), 8, 2) if irregular else ms.windows(s, 8, horizon=2)
    ensemble = ms.bootstrap(model, data, F.mse_loss, n_models=20, block=10, epochs=1, generator=ms.seeded(1))
    shapes = {name: tuple(ensemble.neurons(layer).mean.shape) for name, layer in model.neurons.items()}
    encoder = (3, 3 * (3 + 2) + 4) if irregular else (32, 8)
    assert shapes == {"encoder": encoder, "field": (6, 3), "velocity": (3, 6), "decoder": (1, 3)}
    assert torch.allclose(ensemble(data[0][:4])[3], ensemble[3](data[0][:4]), atol=1e-12)
    assert not len(recwarn)


def test_adaptive_steps_train_one_by_one():
    pytest.importorskip("torchdiffeq")
    data = ms.windows(sine(20), 6, horizon=3)
    options = {"n_models": 2, "block": 4, "epochs": 1, "batch_size": 8, "generator": None}
    found = []
    for solver in (partial(dopri5, rtol=1e-9, atol=1e-9), partial(rk4, n_steps=8)):
        options["generator"] = ms.seeded(1)
        found.append(ms.bootstrap(made(6, 2, horizon=3, solver=solver), data, F.mse_loss, **options))
    for name, tensor in found[0].parameters.items():
        assert torch.allclose(tensor, found[1].parameters[name], atol=1e-5), name


def test_copies_and_starts():
    model, x = made(6, 3, solver=partial(rk4, n_steps=2)), noise(2, 6)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
    before = torch.get_rng_state()
    a, b, c = (made(6, 3, irregular=True, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) and not torch.equal(a[k], c[k]) for k in a)
    assert torch.equal(torch.get_rng_state(), before)
    data = irregular_windows(noise(12), torch.arange(12), 6, 1)
    options = {"init": "independent", "epochs": 0, "generator": ms.seeded(0)}
    ensemble = ms.train_ensemble(made(6, 3, irregular=True), data, F.mse_loss, 2, **options)
    assert all((v[0] != v[1]).any() for v in ensemble.parameters.values())


GOOD, TIMES = noise(10), torch.arange(10)
BAD = GOOD.index_fill(0, torch.tensor(3), math.nan)
UNSORTED, REPEATED = torch.tensor([0, 1, 3, 2, 4, 5, 6, 7, 8, 9]), torch.tensor([0, 1, 2, 3, 3, 5, 6, 7, 8, 9])
ROWS = irregular_windows(GOOD, TIMES, 6, 2)[0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: made(0, 2), r"width must be.*got 0"),
        (lambda: made(6, 0), r"n_latent must be.*got 0"),
        (lambda: made(6, 2, horizon=0), r"horizon must be.*got 0"),
        (lambda: made(6, 2, channels=0), r"channels must be.*got 0"),
        (lambda: made(6, 2, unit=0.0), r"unit must be a positive number, got 0"),
        (lambda: made(6, 2, irregular=True, encoder=(3,)), r"encoder must not be given with irregular"),
        (lambda: made(6, 2)(noise(2, 5)), r"windows must hold exactly 6 samples, got 5"),
        (lambda: made(6, 2)(BAD[None, :6]), r"windows must be finite, 1 are not.*irregular NeuralODE"),
        (lambda: made(6, 2).forecast(GOOD[:5], 2), r"history has 5 samples, and the model needs 6"),
        (lambda: made(6, 2).forecast(BAD, 2), r"history has 1 non-finite rows, the first at 3"),
        (lambda: made(6, 2).predict(GOOD, TIMES, [10.0]), r"predict needs irregular=True.*forecast"),
        (lambda: made(6, 2, irregular=True)(noise(2, 8)), r"takes \(B, width \+ 1, 3\), as `irregular_windows`"),
        (lambda: made(6, 2, irregular=True)(BAD[:9].reshape(1, 3, 3)), r"windows must be finite, with a zero"),
        (lambda: made(6, 2, irregular=True)(ROWS.flip(1)), r"times must increase.*of example 0: sort"),
        (lambda: made(6, 2, irregular=True).predict(GOOD, UNSORTED, [10.0]), r"times must increase, got 2 after 3"),
        (lambda: made(6, 2, irregular=True).predict(GOOD, TIMES, [9.0]), r"wanted must increase, got 9 after 9"),
        (lambda: made(6, 2, irregular=True).predict(GOOD, TIMES, [11.0, 10.5]), r"wanted must increase, got 10.5"),
        (lambda: made(6, 2, irregular=True).predict(GOOD, TIMES[:9], [11.0]), r"times must be one for each of the 10"),
        (lambda: made(6, 2, irregular=True).predict(GOOD * math.nan, TIMES, [11.0]), r"no value among its last 6"),
        (lambda: irregular_windows(GOOD, UNSORTED, 6, 2), r"got 2 after 3 at position 3: sort them"),
        (lambda: irregular_windows(GOOD, REPEATED, 6, 2), r"got 3 after 3 at position 4: take the mean"),
        (lambda: irregular_windows(GOOD, TIMES, 9, 2), r"width 9 and horizon 2 need 11 rows, got 10"),
        (lambda: irregular_windows(GOOD / 0, TIMES, 6, 2), r"series must be finite, or NaN"),
        (lambda: irregular_windows(BAD, TIMES, 1, 2), r"window 3 has no value in its 1 rows of history"),
        (lambda: irregular_windows(noise(3, 2, 2), TIMES[:3], 1, 1), r"series must be \(T, 2\), got \(3, 2, 2\)"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_a_field_that_explodes():
    class Square(nn.Module):
        def forward(self, z):
            return z**2 * 1e4

    for model in (made(6, 2, field=Square()), made(6, 2, horizon=1, field=Square(), irregular=True)):
        with pytest.raises(ValueError, match=r"the solution blew up in .* between times"):
            model.forecast(100 * GOOD, 40)


@pytest.mark.parametrize("solver", [rk4, partial(rk4, n_steps=4)])
def test_times_that_the_state_cannot_tell_apart_are_counted_from_the_first(solver):
    """Seconds since 1970 in float64, a state in float32: exp(-1) after one of them, also where the field reads the time."""
    times = torch.tensor([1.7e9, 1.7e9 + 1], dtype=torch.float64)
    decay = solver(lambda t, z: -z, torch.ones(1), times).states[-1]
    assert abs(float(decay) - math.exp(-1)) < 0.02
    late = solver(lambda t, z: -z * (t > 1e9), torch.ones(1), times).states[-1]
    assert torch.equal(late, decay)
