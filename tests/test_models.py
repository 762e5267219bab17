"""Oracles O3.1 to O3.3 of the orthogonal autoencoder, and what the models promise."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal

from kit.principal import at_principal_components
from mspace import fit
from mspace.models import OrthogonalAutoencoder, mlp
from mspace.models.orthogonal import Cayley, haar
from mspace.series import windows


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def off_orthonormal(model):
    """How far the rows of the encoder and the columns of the decoder are from orthonormal."""
    e, d = model.encoder.weight.detach(), model.decoder.weight.detach()
    return max((g - torch.eye(len(g)).to(g)).abs().max() for g in (e @ e.T, d.T @ d))


def fitted(model, x, *, steps):
    """The model after LBFGS on its reconstruction of x."""
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=steps, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def test_principal_components():
    """O3.1: on windows of a noisy sine the best code of two numbers is PCA's."""
    t = torch.linspace(-4 * math.pi, 4 * math.pi, 500, dtype=torch.float64)
    x = windows(torch.sin(t) + 0.2 * noise(500), 20)
    model = fitted(OrthogonalAutoencoder(20, 2, generator=seeded()).double(), x, steps=300)
    pca = PCA(2).fit(x)
    best = ((x - torch.from_numpy(pca.inverse_transform(pca.transform(x)))) ** 2).mean()
    assert abs((model(x) - x).square().mean() / best - 1) < 1e-6
    projector = torch.from_numpy(pca.components_.T @ pca.components_)
    assert (model.decoder.weight @ model.encoder.weight - projector).norm() < 1e-3


def test_neurons_of_a_sine_lie_on_a_circle():
    """O3.2: decoder rows of a code of two numbers, period 16, windows of 64."""
    x = windows(torch.sin(2 * math.pi * torch.arange(400, dtype=torch.float64) / 16), 64)
    model = fitted(OrthogonalAutoencoder(64, 2, bias=False, generator=seeded()).double(), x, steps=200)
    w = model.decoder.weight.detach()
    assert (w.norm(dim=1) - math.sqrt(2 / 64)).abs().max() < 1e-5
    turn = torch.atan2(w[:-1, 0] * w[1:, 1] - w[:-1, 1] * w[1:, 0], (w[:-1] * w[1:]).sum(1))
    assert (turn * turn[0].sign() - 2 * math.pi / 16).abs().max() < 1e-4
    assert (w[16:] - w[:-16]).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_stay_orthonormal(dtype):
    """O3.3: after 1000 steps of Adam, and after a round trip through a state_dict."""
    model = OrthogonalAutoencoder(20, 3, 30, activation=nn.Tanh, generator=seeded()).to(dtype)
    x, y = noise(32, 20).to(dtype), noise(32, 30, seed=1).to(dtype)
    start, optimizer = model.encoder.weight.detach().clone(), torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(1000):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    assert (model.encoder.weight - start).norm() > 1  # it did move
    assert off_orthonormal(model) < 1e-6
    again = OrthogonalAutoencoder(20, 3, 30, activation=nn.Tanh, generator=seeded(1)).to(dtype)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x)) and off_orthonormal(again) < 1e-6


def test_a_change_of_dtype_costs_no_orthonormality():
    model = OrthogonalAutoencoder(20, 3, generator=seeded())
    assert off_orthonormal(model) < 1e-6
    assert off_orthonormal(model.double()) < 1e-14
    assert off_orthonormal(model.half().float()) < 1e-6


@pytest.mark.parametrize("shape", [(20, 3), (3, 20), (5, 5), (7, 1)])
def test_cayley_is_torchs(shape):
    """Slow beside fast: the n by n solve of torch, started at the same place with the same tangent."""
    base, free = haar(*shape, seeded()).double(), noise(*shape)
    y, w = (base, free) if shape[0] >= shape[1] else (base.T, free.T)
    n = len(y)
    a = w @ y.T - y @ w.T
    slow = torch.linalg.solve(torch.eye(n).double() - a / 2, (torch.eye(n).double() + a / 2) @ y)
    fast = Cayley(base)(free)
    assert torch.allclose(fast, slow if shape[0] >= shape[1] else slow.T, atol=1e-6)
    layer = orthogonal(nn.Linear(shape[1], shape[0]).double(), orthogonal_map="cayley")  # the same set of matrices
    gram = [m.T @ m if shape[0] >= shape[1] else m @ m.T for m in (fast, layer.weight)]
    assert torch.allclose(gram[0], gram[1], atol=1e-6)


def test_weights_can_be_assigned():
    model = OrthogonalAutoencoder(6, 2, generator=seeded()).double()
    q = torch.linalg.qr(noise(6, 2))[0]
    model.encoder.weight = q.T
    assert torch.allclose(model.encoder.weight, q.T, atol=1e-14)
    with pytest.raises(ValueError, match=r"orthonormal.*off by.*qr"):
        model.encoder.weight = 2 * q.T


def test_haar_has_no_preferred_direction():
    """The mean over draws vanishes as 1/sqrt(draws), which without the fix of signs it does not."""
    g = seeded()
    draws = torch.stack([haar(4, 2, g) for _ in range(2000)])
    assert draws.mean(0).abs().max() < 4 / math.sqrt(4 * 2000)
    assert ((draws**2).mean(0) - 1 / 4).abs().max() < 0.03


@pytest.mark.parametrize("gain", [False, True])
def test_batches_with_vmap(gain, recwarn):
    """Members side by side are members one by one, and nothing falls back to a loop."""
    nets = [
        OrthogonalAutoencoder(7, 2, activation=torch.tanh, gain=gain, generator=seeded(i)).double() for i in range(3)
    ]
    parameters, buffers = stack_module_state(nets)
    x = noise(11, 7)

    def loss(p, b):
        return (functional_call(nets[0], (p, b), (x,)) - x).square().mean()

    together = vmap(grad(loss))(parameters, buffers)
    for i, net in enumerate(nets):
        (net(x) - x).square().mean().backward()
        for name, p in net.named_parameters():
            assert torch.allclose(together[name][i], p.grad, atol=1e-13), name
    assert not len(recwarn)


def test_the_formula():
    """Every part is where the docstring says."""
    model = OrthogonalAutoencoder(5, 2, 4, activation=torch.sigmoid, output=nn.Tanh(), gain=True, generator=seeded())
    with torch.no_grad():
        model.gain.copy_(torch.tensor([2.0, -3.0]))
    x = noise(6, 5).float()
    e, b, d, c = model.encoder.weight, model.encoder.bias, model.decoder.weight, model.decoder.bias
    code = model.gain * torch.sigmoid(x @ e.T + b)
    assert torch.allclose(model.hidden(x), code, atol=1e-6)
    assert torch.allclose(model(x), torch.tanh(code @ d.T + c), atol=1e-6)
    assert dict(OrthogonalAutoencoder(5, 2, bias=False).named_parameters()).keys().isdisjoint({"encoder.bias"})


@pytest.mark.parametrize(
    ("constrain", "encoder", "decoder"), [("both", 1, 1), ("encoder", 1, 0), ("decoder", 0, 1), ("none", 0, 0)]
)
def test_constrain(constrain, encoder, decoder):
    model = OrthogonalAutoencoder(6, 3, constrain=constrain, generator=seeded())
    e, d = model.encoder.weight, model.decoder.weight
    assert torch.allclose(e @ e.T, torch.eye(3), atol=1e-6) == bool(encoder)
    assert torch.allclose(d.T @ d, torch.eye(3), atol=1e-6) == bool(decoder)
    if not encoder:  # what is not constrained may be as wide as it likes
        assert OrthogonalAutoencoder(3, 5, 8, constrain=constrain)(torch.ones(2, 3)).shape == (2, 8)


def test_copies_and_pickles():
    """Worker processes get models by pickle, which torch refuses for parametrized layers."""
    model = OrthogonalAutoencoder(5, 2, activation=nn.ReLU(), gain=True, generator=seeded()).double().eval()
    x = noise(4, 5)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x)) and not any(m.training for m in twin.modules())
        with torch.no_grad():
            twin.encoder.bias.add_(1)
        assert not torch.equal(twin(x), model(x))
        weight = twin.encoder.weight.detach().clone()
        parametrize.remove_parametrizations(twin.encoder, "weight")  # leaves the original as it was
        assert torch.equal(twin.encoder.weight, weight) and torch.equal(model.encoder.weight, weight)
        assert parametrize.is_parametrized(twin.decoder) and not isinstance(twin.encoder.weight, property)
        again = pickle.loads(pickle.dumps(twin))
        assert torch.equal(copy.deepcopy(twin)(x), twin(x)) and torch.allclose(again(x), twin(x), atol=1e-14)
        assert again.constrain == "both"


def test_a_new_start():
    model = OrthogonalAutoencoder(6, 2, gain=True, generator=seeded()).double()
    before = copy.deepcopy(model)
    with torch.no_grad():
        model.gain.fill_(3)
        model.encoder.parametrizations.weight.original.fill_(1)
    with torch.random.fork_rng(devices=[]):
        model.reset_parameters()
    assert off_orthonormal(model) < 1e-12 and (model.gain == 1).all()
    assert not torch.allclose(model.encoder.weight, before.encoder.weight, atol=0.01)


def test_draws_come_from_the_generator_alone():
    def weights(make, seed=0):
        return torch.cat([t.flatten() for t in make(generator=seeded(seed)).state_dict().values()])

    for make in (partial(mlp, 3, 4, 2), partial(OrthogonalAutoencoder, 6, 2)):
        before = torch.get_rng_state()
        assert torch.equal(weights(make), weights(make)) and not torch.equal(weights(make), weights(make, 1))
        assert torch.equal(torch.get_rng_state(), before)


def test_mlp():
    net = mlp(3, 64, 5, 2, activation=nn.Tanh, generator=seeded())
    assert [type(m).__name__ for m in net] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    assert net.get_submodule("4").weight.shape == (2, 5) and net.get_submodule("2").bias.shape == (5,)
    for layer in (net[0], net[2]):  # torch's rule: uniform within 1 / sqrt(inputs), weight and bias
        bound = layer.in_features**-0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound
    assert mlp(3, 2, bias=False)[0].bias is None
    own = nn.PReLU()
    assert mlp(3, 4, 2, activation=own)[1] is not own
    assert OrthogonalAutoencoder(3, 2, activation=own, output=own).activation is not own
    assert mlp(3, 4, 2, activation=lambda: nn.LeakyReLU(0.3))[1].negative_slope == 0.3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mlp(3), r"sizes must be at least"),
        (lambda: mlp(3, 0), r"outputs.*at least 1, got 0"),
        (lambda: mlp(3, 2.5, 1), r"outputs.*got 2\.5"),
        (lambda: mlp(3, 2, 1, activation=torch.tanh), r"activation must be a module or make one.*nn\.ReLU"),
        (lambda: OrthogonalAutoencoder(5, 6), r"n_hidden must be at most 5.*encoder.*got 6"),
        (lambda: OrthogonalAutoencoder(5, 3, 2), r"n_hidden must be at most 2.*decoder.*got 3"),
        (lambda: OrthogonalAutoencoder(5, 3, constrain="enc"), r"constrain must be one of both, encoder.*'enc'"),
        (lambda: OrthogonalAutoencoder(5, 3, activation="relu"), r"activation must be.*'relu'"),
        (lambda: OrthogonalAutoencoder(5, 0), r"at least 1, got 0"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_the_minimum_of_an_autoencoder_is_the_projection_on_principal_components():
    x = (
        torch.randn(80, 6, generator=seeded(0)).double()
        @ torch.diag(torch.tensor([3.0, 2, 1.5, 0.3, 0.2, 0.1])).double()
        + 1
    )
    trained = fit(mlp(6, 3, 6, generator=seeded(1)).double(), (x, x), F.mse_loss, epochs=50, generator=seeded(2))
    before = [p.detach().clone() for p in trained.parameters()]
    net = at_principal_components(trained, x)
    loss = F.mse_loss(net(x), x)
    slopes = torch.autograd.grad(loss, list(net.parameters()))
    assert max(s.abs().max() for s in slopes) < 1e-12
    power = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))
    assert torch.allclose(loss, power[:3].sum() / 6, rtol=1e-12)
    assert torch.allclose(net[0](x).amin(0), torch.full((3,), 0.1).double())
    assert all(torch.equal(a, b) for a, b in zip(before, trained.parameters()))
    turned = torch.linalg.lstsq(net[2].weight.detach(), trained[2].weight.detach()).solution
    assert torch.allclose(turned, torch.eye(3).double(), atol=1e-10)  # no other basis comes nearer
    with pytest.raises(ValueError, match="net must be"):
        at_principal_components(mlp(6, 3, 6, activation=nn.Tanh), x)
    with pytest.raises(ValueError, match="x must be"):
        at_principal_components(trained, x[:, :5])
