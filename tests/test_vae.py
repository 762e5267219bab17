"""Oracles O3.7 and O3.8 of the variational autoencoder, and what it promises."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import functional_call, grad, stack_module_state, vmap

import mspace as ms
from mspace.models import WindowVAE, negative_elbo
from mspace.models.vae import divergence_from_prior, normal_nodes
from mspace.training.minimum import refine


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


def sine(n, omega=0.3, sd=0.0):
    return torch.sin(omega * torch.arange(n, dtype=torch.float64)) + sd * noise(n, seed=9)


def made(*sizes, seed=0, **options):
    return WindowVAE(*sizes, generator=ms.seeded(seed), **options).double()


def population():
    """Windows of five numbers, with two strong directions, and the maximum of likelihood by Tipping and Bishop."""
    x = noise(400, 2) @ (noise(2, 5, seed=1) * torch.tensor([[2.0], [1.2]])) + 0.4 * noise(400, 5, seed=2) + 0.7
    power, axes = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    variance = power[:3].mean()
    weight = axes[:, 3:] * (power[3:] - variance).sqrt()
    return x, weight, variance, power[3:]


def at_the_optimum():
    """A linear VAE with the weights of probabilistic PCA."""
    x, weight, variance, power = population()
    model = made(5, 2, hidden=())
    encode = weight.T / power[:, None]
    with torch.no_grad():
        model.decoder[0].weight.copy_(weight)
        model.decoder[0].bias.copy_(x.mean(0))
        model.log_noise.fill_(variance.log())
        model.encoder[0].weight.copy_(torch.cat([encode, torch.zeros(2, 5, dtype=torch.float64)]))
        model.encoder[0].bias.copy_(torch.cat([-encode @ x.mean(0), (variance / power).log()]))
    return model, x, MultivariateNormal(x.mean(0), weight @ weight.T + variance * torch.eye(5, dtype=torch.float64))


def test_probabilistic_pca_is_its_optimum():
    """O3.7: there the bound is the log evidence itself, and no direction is downhill."""
    model, x, evidence = at_the_optimum()
    assert torch.allclose(model.elbo(x), evidence.log_prob(x), atol=1e-10)
    loss = negative_elbo(model(x), x)
    assert abs(float(loss.detach() + evidence.log_prob(x).mean())) < 1e-11
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    assert max(float(s.abs().max()) for s in slopes) < 1e-10
    with torch.no_grad():
        model.encoder[0].bias[3] += 0.1
    assert (model.elbo(x) < evidence.log_prob(x) - 1e-4).all()  # any other posterior is a lower bound


def test_training_finds_probabilistic_pca():
    """O3.7 from a random start: noise, covariance, and a diagonal posterior."""
    x, weight, variance, _ = population()
    net = refine(made(5, 2, hidden=(), seed=3), (x, x), negative_elbo, tolerance=1e-6, steps=2000)
    w = net.decoder[0].weight.detach()
    assert net.noise**2 == pytest.approx(float(variance), rel=1e-5)
    assert (w @ w.T - weight @ weight.T).abs().max() < 1e-4
    inner = w.T @ w
    assert abs(float(inner[0, 1])) < 1e-4 * float(inner.trace())


def test_every_term_of_the_bound():
    """The loss against its definition by torch.distributions, node by node (O3.8)."""
    model, x = made(6, 2, horizon=3, channels=2, hidden=(4,), noise_std=0.7), noise(5, 9, 2)
    mean, sd = model.encode(x[:, :6])
    likelihood = torch.zeros(5, dtype=torch.float64)
    for node in model.nodes:
        y = model.decoder(mean + sd * node).reshape(5, 9, 2)
        likelihood += Normal(y, 0.7).log_prob(x).sum((1, 2)) / len(model.nodes)
    divergence = kl_divergence(Normal(mean, sd), Normal(torch.zeros(2).double(), torch.ones(2).double())).sum(1)
    assert torch.allclose(divergence_from_prior(mean, sd), divergence, atol=1e-12)
    assert torch.allclose(
        model.elbo(x[:, :6], x), (likelihood - divergence).detach(), atol=1e-6
    )  # noise_std is float32
    assert torch.allclose(negative_elbo(model(x[:, :6]), x), (divergence - likelihood).mean(), atol=1e-6)
    out = model(x[:, :6])
    assert torch.allclose(model.elbo(x[:, :6], x).mean(), -negative_elbo(out, x).detach(), atol=1e-13)
    first = type(out)(*(t[:2] for t in out))
    assert out.mean.shape == x.shape and torch.allclose(
        negative_elbo(first, x[:2]), -model.elbo(x[:2, :6], x[:2]).mean(), atol=1e-12
    )


def test_gradients_pass_through_the_nodes():
    """O3.8: the reparametrisation against finite differences, for every parameter."""
    model, x = made(4, 1, hidden=(3,), n_nodes=4), noise(3, 4)
    names = [n for n, _ in model.named_parameters()]
    leaves = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert {"log_noise", "encoder.0.weight", "encoder.2.weight", "decoder.2.weight"} <= set(names)
    assert torch.autograd.gradcheck(
        lambda *p: negative_elbo(functional_call(model, dict(zip(names, p)), (x,)), x), leaves
    )


@pytest.mark.parametrize(("n_nodes", "dim"), [(2, 1), (16, 2), (8, 4), (64, 3)])
def test_nodes(n_nodes, dim):
    z = normal_nodes(n_nodes, dim)
    assert z.shape == (n_nodes, dim) and len(z.unique(dim=0)) == n_nodes
    assert z.sum(0).abs().max() < 1e-13 and (z**3).sum(0).abs().max() < 1e-12
    assert (z.T @ z / n_nodes - torch.eye(dim)).abs().max() < 1e-13
    if n_nodes == 64:
        assert 2.3 < (z**4).mean() < 3.3  # the tails, that of a Gaussian being 3


def test_nodes_stand_for_the_whole_posterior():
    """What was learned at the nodes holds for draws from q that no training saw."""
    x = ms.windows(sine(300, sd=0.2), 12)
    adam = partial(torch.optim.Adam, lr=1e-2)
    start = made(12, 2, hidden=(16,), noise_std=0.5)
    net = ms.fit(start, (x, x), negative_elbo, epochs=30, batch_size=16, optimizer=adam, generator=ms.seeded(1))
    nodes, draws = net.elbo(x).mean(), net.elbo(x, n_draws=400, generator=ms.seeded(2)).mean()
    assert nodes > start.elbo(x).mean() + 4 and abs(nodes - draws) < 0.02
    assert 0.17 < net.noise < 0.24 and net.active(x).all()
    assert (net.reconstruct(x) - x).square().mean() < 0.05
    again = ms.fit(start, (x, x), negative_elbo, epochs=1, generator=ms.seeded(1))
    twin = ms.fit(start, (x, x), negative_elbo, epochs=1, generator=ms.seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), twin.parameters()))


def test_draws():
    """With draws the bound is estimated without bias, and from the generator alone."""
    model, x, evidence = at_the_optimum()
    before = torch.get_rng_state()
    draws = torch.stack([model.elbo(x, n_draws=5, generator=ms.seeded(i)) for i in range(200)])
    assert torch.equal(torch.get_rng_state(), before)
    gap = draws.mean(0) - evidence.log_prob(x)
    assert (gap.abs() < 5 * draws.std(0) / math.sqrt(200)).all() and draws.std(0).min() > 1e-3
    made = model.sample(20_000, ms.seeded(1))
    assert (made.T.cov() - evidence.covariance_matrix).abs().max() < 0.2
    assert (made.mean(0) - x.mean(0)).abs().max() < 0.1
    smallest = float(torch.linalg.eigvalsh(made.T.cov())[0])
    assert smallest == pytest.approx(float(torch.linalg.eigvalsh(evidence.covariance_matrix)[0]), rel=0.05)
    assert torch.equal(made, model.sample(20_000, ms.seeded(1))) and torch.equal(torch.get_rng_state(), before)


def test_what_is_predicted_has_the_moments_of_its_draws():
    """Linear: in closed form, (W S W' + noise) with S the posterior's variance. Else: those of many draws."""
    model, x, _ = at_the_optimum()
    mean, variance = model.predictive(x)
    sd, weight = model.encode(x)[1].detach(), model.decoder[0].weight.detach()
    assert torch.allclose(mean, model.reconstruct(x), atol=1e-12)
    assert torch.allclose(variance, sd.square() @ weight.square().T + model.noise**2, atol=1e-12)
    model = made(6, 2, horizon=3, channels=2, hidden=(4,), noise_std=0.3, n_nodes=128)
    x = noise(2, 6, 2)
    mean, variance = model.predictive(x)
    centre, sd = (v.detach() for v in model.encode(x))
    draws = model.decode(centre + sd * noise(100_000, 2, 2, seed=1)).detach()
    assert mean.shape == variance.shape == (2, 9, 2)
    assert torch.allclose(mean[:, 6:], torch.stack([model.forecast(h, 3) for h in x]), atol=1e-12)
    assert (mean - draws.mean(0)).abs().max() < 0.02 * draws.std(0).max()
    assert ((variance - 0.3**2) / draws.var(0) - 1).abs().max() < 0.15


def test_active_units():
    model, x, _ = at_the_optimum()
    assert model.active(x).tolist() == [True, True]
    with torch.no_grad():
        model.encoder[0].weight[0] = 0
    assert model.active(x).tolist() == [False, True]
    assert model.active(x, threshold=10.0).tolist() == [False, False]


@pytest.mark.parametrize("channels", [None, 2])
def test_batches_with_vmap(channels, recwarn):
    nets = [made(5, 2, horizon=2, channels=channels, seed=i) for i in range(3)]
    x = noise(4, 7, *([] if channels is None else [channels]))

    def loss(p):
        return negative_elbo(functional_call(nets[0], p, (x[:, :5],)), x)

    together = vmap(grad(loss))(stack_module_state(nets)[0])
    for i, net in enumerate(nets):
        negative_elbo(net(x[:, :5]), x).backward()
        for name, p in net.named_parameters():
            assert torch.allclose(together[name][i], p.grad, atol=1e-12), name
    assert not len(recwarn)


@pytest.mark.parametrize("channels", [None, 2])
def test_forecast(channels):
    """The mean of what is decoded, over the nodes; long forecasts begin again from their own end."""
    model = made(5, 2, horizon=3, channels=channels)
    s = noise(11, *([] if channels is None else [channels]))
    mean, sd = model.encode(s[None, -5:])
    expected = torch.stack([model.decode(mean + sd * z)[0] for z in model.nodes]).mean(0).detach()
    y = model.forecast(s, 8)
    assert y.shape == (8, *s.shape[1:]) and torch.allclose(y[:3], expected[5:], atol=1e-12)
    assert torch.allclose(model.reconstruct(s[None, -5:])[0], expected[:5], atol=1e-12)
    assert torch.allclose(y[3:6], model.forecast(torch.cat([s, y[:3]]), 3), atol=1e-12)


def test_a_forecast_worth_its_name():
    s = sine(300)
    w = ms.windows(s, 18 + 6)
    adam = partial(torch.optim.Adam, lr=1e-2)
    start = made(18, 2, horizon=6, noise_std=0.3)
    net = ms.fit(start, (w[:200, :18], w[:200]), negative_elbo, epochs=25, optimizer=adam, generator=ms.seeded(1))
    skill = ms.rolling_origin(net.forecast, s, 6, start=230, every=5, period=21)
    assert (skill("r2") > 0.95).all()


def test_a_bootstrap_of_its_neurons(recwarn):
    """Twenty members; a row of the decoder is a time of the window."""
    x = ms.windows(sine(80, sd=0.3), 12)
    model = made(12, 2, hidden=(6,))
    ensemble = ms.bootstrap(model, (x, x), negative_elbo, n_models=20, block=12, epochs=1, generator=ms.seeded(1))
    assert len(ensemble) == 20
    shapes = {name: tuple(ensemble.neurons(layer).mean.shape) for name, layer in model.neurons.items()}
    assert shapes == {"encoder": (6, 12), "posterior": (4, 6), "decoder": (12, 6)}
    assert (ensemble.neurons(model.neurons["decoder"]).cov.diagonal(dim1=1, dim2=2) > 0).all()
    assert ensemble.parameters["log_noise"].unique().shape == (20,)
    assert not len(recwarn)
    assert made(12, 2, hidden=()).neurons == {"encoder": "encoder.0", "posterior": "encoder.0", "decoder": "decoder.0"}


def test_a_new_start_and_copies():
    model, x = made(5, 2, noise_std=0.5), noise(3, 5)
    assert model.noise == pytest.approx(0.5)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(map(torch.equal, twin(x), model(x))) and len(twin.state_dict()) == len(model.state_dict())
    with torch.no_grad():
        model.log_noise.fill_(3.0)
    model.reset_parameters()
    assert model.noise == pytest.approx(0.5)
    before = torch.get_rng_state()
    a, b, c = (made(5, 2, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a) and not torch.equal(a["decoder.0.weight"], c["decoder.0.weight"])
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(made(5, 2, activation=nn.ReLU).encoder[1], nn.ReLU)


GOOD = noise(4, 5)
BAD = GOOD.clone().index_fill(0, torch.tensor(2), math.nan)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: made(0, 2), r"width must be.*at least 1, got 0"),
        (lambda: made(5, 0), r"n_latent must be.*at least 1, got 0"),
        (lambda: made(5, 2, horizon=-1), r"horizon must be.*at least 0, got -1"),
        (lambda: made(5, 2, noise_std=0.0), r"noise_std must be a positive number, got 0"),
        (lambda: made(5, 2, n_nodes=2), r"n_nodes must be.*at least 4, got 2"),
        (lambda: made(5, 2, n_nodes=7), r"n_nodes must be even.*got 7"),
        (lambda: made(5, 2)(noise(4, 6)), r"windows must hold exactly 5 samples, got 6"),
        (lambda: made(5, 2)(BAD), r"windows must be finite, 1 are not, the first is 2: cut them out"),
        (lambda: made(5, 2)(noise(4, 5, 2)), r"windows must be \(B, width\), got \(4, 5, 2\)"),
        (
            lambda: negative_elbo(made(5, 2, horizon=1)(GOOD), GOOD),
            r"target must hold 6 numbers a window, got \(4, 5\)",
        ),
        (lambda: made(5, 2).forecast(GOOD[0], 2), r"horizon is 0.*horizon=p"),
        (lambda: made(5, 2, horizon=2).forecast(GOOD[0, :4], 2), r"history has 4 samples, and the model needs 5"),
        (lambda: made(5, 2, horizon=2).forecast(BAD[2], 2), r"history has 5 non-finite rows"),
        (lambda: made(5, 2, horizon=2).forecast(GOOD[0], 0), r"steps must be.*at least 1"),
        (lambda: made(5, 2).sample(0), r"n_samples must be.*at least 1"),
        (lambda: made(5, 2).elbo(GOOD, n_draws=0), r"n_draws must be.*at least 1"),
        (lambda: ms.fit(made(5, 2), (BAD, BAD), negative_elbo), r"data must be finite"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()
