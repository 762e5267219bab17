"""Fields that begin as pendulums, and the model that needs no training."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import mspace as ms
from kit.oscillators import Oscillators, oscillator_ode, responses
from mspace.models import NeuralODE, rk4


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


def exactly(matrix, start, times):
    return torch.stack([start @ torch.linalg.matrix_exp(matrix * t).T for t in times])


def test_planes_turn_at_their_frequencies():
    """Once round in 2 pi / w, each plane for itself; the flow is the matrix exponential."""
    field, z = Oscillators([1.0, 3.0]).double(), noise(5, 4)
    times = torch.linspace(0, 2 * math.pi, 7).double()
    found = rk4(lambda t, z: field(z), z, times, n_steps=600).states
    assert torch.allclose(found[-1], z, atol=1e-6)
    assert torch.allclose(found[2, :, 2:], z[:, 2:], atol=1e-6) and not torch.allclose(found[2, :, :2], z[:, :2])
    assert torch.allclose(found, exactly(field.A.detach(), z, times), atol=1e-6)
    turn = torch.tensor([[0.0, 3.0], [-3.0, 0.0]]).double()
    assert torch.equal(field.A[2:, 2:], turn) and not field.A[:2, 2:].any()


def test_the_field_written_out():
    field, z = Oscillators([1.0, 2.0], 6, generator=ms.seeded(1)).double(), noise(5, 4)
    assert torch.equal(field(z), Oscillators([1.0, 2.0]).double()(z)), "it begins without a bend"
    field(z).sum().backward()
    assert field.V.grad.abs().max() > 0.1, "and can leave"
    with torch.no_grad():
        field.V.copy_(noise(4, 6, seed=2))
        U, b = field.hidden.weight, field.hidden.bias
        expected = torch.stack([field.A @ row + field.V @ torch.tanh(U @ row + b) for row in z])
        assert torch.allclose(field(z), expected)


def test_independent_starts_keep_the_frequencies():
    """And draw everything else; the neurons of the field have names."""
    model = NeuralODE(6, 4, horizon=2, field=Oscillators([1.0, 2.0], 5), generator=ms.seeded(0)).double()
    data = ms.windows(noise(20), 6, horizon=2)
    starts = ms.train_ensemble(model, data, F.mse_loss, 3, init="independent", epochs=0, generator=ms.seeded(1))
    turns = torch.block_diag(*(torch.tensor([[0.0, w], [-w, 0.0]]) for w in (1.0, 2.0))).double()
    assert torch.equal(starts.parameters["field.A"], turns.expand(3, 4, 4)) and not starts.parameters["field.V"].any()
    for name in ("field.hidden.weight", "encoder.0.weight"):
        assert not torch.equal(starts.parameters[name][0], starts.parameters[name][1])
    names = model.neurons
    assert names["field"] == "field.hidden" and names["velocity"] == ["field.A", "field.V"]
    assert starts.neurons(names["velocity"]).mean.shape == (4, 9)
    assert starts.neurons(names["field"]).mean.shape == (5, 4)
    plain = NeuralODE(6, 4, field=Oscillators([1.0, 2.0])).neurons
    assert plain["field"] == "field.A" and plain["velocity"] == ["field.A"]


def waves(n, *omegas):
    t = torch.arange(n).double()
    return sum(torch.sin(w * t + w) / (1 + i) for i, w in enumerate(omegas))


def test_it_continues_sums_of_sines():
    s = waves(300, 0.3, 0.75)
    data = ms.windows(s[:200], 20, horizon=30)
    model = oscillator_ode(data, [0.3, 0.75], penalty=1e-9, solver=partial(rk4, n_steps=240))
    assert (model.forecast(s[:200], 100) - s[200:]).abs().max() < 1e-4
    assert F.mse_loss(oscillator_ode(data, [0.3, 0.6])(data[0]), data[1]) > 1e-3, "with a wrong frequency it cannot"


def test_no_encoder_does_better():
    """Without a penalty the gradient of the mean squared error is zero; with one, weights are smaller."""
    data = ms.windows(waves(120, 0.3) + noise(120), 8, horizon=12)
    model = oscillator_ode(data, [0.3, 0.9], penalty=0)
    F.mse_loss(model(data[0]), data[1]).backward()
    assert model.encoder.weight.grad.abs().max() < 1e-10 and model.encoder.bias.grad.abs().max() < 1e-10
    assert oscillator_ode(data, [0.3, 0.9], penalty=100).encoder.weight.norm() < 0.9 * model.encoder.weight.norm()


def test_its_weights_are_what_a_ridge_gives():
    from sklearn.linear_model import Ridge

    data = ms.windows(2 + waves(90, 0.3) + noise(90), 8, horizon=12)
    model = oscillator_ode(data, [0.3], penalty=3.0, solver=partial(rk4, n_steps=100))
    angle = 0.3 * torch.arange(1, 13).double()
    states = data[1] @ torch.linalg.pinv(torch.stack([angle.cos(), angle.sin()]))
    fit = Ridge(3.0).fit(data[0].numpy(), states.numpy())
    assert torch.allclose(model.encoder.weight, torch.from_numpy(fit.coef_), atol=1e-6)
    assert torch.allclose(model.encoder.bias, torch.from_numpy(fit.intercept_), atol=1e-6)


def test_the_solver_works_once():
    """The answer is the encoder's times the responses; a decoder's bias adds to it, and is no response."""
    x, y = ms.windows(waves(60, 0.3) + noise(60), 8, horizon=12)
    model = oscillator_ode((x, y), [0.3, 0.6])
    found = responses(model)
    assert found.shape == (4, 12) and torch.allclose(model.encoder(x) @ found, model(x), atol=1e-12)
    with torch.no_grad():
        model.decoder.bias.fill_(5.0)
    assert torch.allclose(responses(model), found, atol=1e-12)
    assert torch.allclose(model.encoder(x) @ found + 5, model(x), atol=1e-12)
    # any encoder, and several series
    parts = {"field": Oscillators([1.0]), "channels": 3, "horizon": 5, "generator": ms.seeded(1)}
    model, x = NeuralODE(8, 2, **parts).double(), noise(6, 8, 3)
    assert responses(model).shape == (2, 5, 3)
    told = torch.tensordot(model.encoder(x.flatten(1)), responses(model), 1) + model.decoder[0].bias
    assert torch.allclose(told, model(x), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Oscillators([]), r"frequencies must be \(k,\).*got \[\]"),
        (lambda: Oscillators([1.0, math.nan]), r"finite and not negative, got \[1.0, nan\]"),
        (lambda: Oscillators([-1.0]), r"finite and not negative, got \[-1.0\]"),
        (lambda: Oscillators([1.0], -1), r"n_hidden must be.*got -1"),
        (lambda: oscillator_ode(ms.windows(noise(20), 4, horizon=2), [1.0], penalty=-1), r"penalty must be.*got -1"),
        (
            lambda: oscillator_ode(ms.windows(noise(20), 4, horizon=2), [0.0, 1.0]),
            r"first of frequencies.*got .0.0, 1.0",
        ),
        (lambda: oscillator_ode((noise(9, 4), noise(8, 2)), [1.0]), r"data must be.*\(9, 4\) and \(8, 2\)"),
        (lambda: oscillator_ode((noise(9, 4) / 0, noise(9, 2)), [1.0]), r"data must be finite"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()
