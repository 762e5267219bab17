"""The door of NeuronDistribution, its laws against textbook formulas and counting, and where the rows come from."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

import mspace as ms
from mspace import neurons
from mspace.neurons import NeuronDistribution, weight_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def population(m=3, n=4, rank=None, seed=0):
    """m Gaussians in R^n with covariances of a given rank."""
    factor = noise(m, n, rank or n, seed=seed + 1)
    return NeuronDistribution(noise(m, n, seed=seed), factor @ factor.mT)


def close(a, b, atol=1e-12):
    return torch.allclose(a, b, rtol=0, atol=atol)


# -- the door ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "cov"),
    [
        ((5, 3), (5, 3)),
        ((5, 3), (5, 3, 4)),
        ((5, 3), (4, 3, 3)),
        ((3,), (3, 3)),
        ((0, 3), (0, 3, 3)),
        ((3, 0), (3, 0, 0)),
    ],
)
def test_wrong_shapes_are_refused(mean, cov):
    with pytest.raises(ValueError, match=r"mean must be \(m, n\) and cov \(m, n, n\), got \("):
        NeuronDistribution(torch.zeros(mean), torch.zeros(cov))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_values_are_refused(bad):
    mean, cov = torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2).clone()
    with pytest.raises(ValueError, match="mean must be finite, got 1 value"):
        NeuronDistribution(torch.tensor([[bad, 0], [0, 0]]), cov)
    cov[1, 0, 0] = bad
    with pytest.raises(ValueError, match="cov must be finite, got 1 value"):
        NeuronDistribution(mean, cov)


def test_what_is_no_covariance_is_refused():
    mean = torch.zeros(2, 2)
    good = torch.eye(2)
    with pytest.raises(ValueError, match="cov must be symmetric"):
        NeuronDistribution(mean, torch.stack([good, torch.tensor([[1.0, 0.1], [0.0, 1.0]])]))
    with pytest.raises(ValueError, match=r"semidefinite, got the eigenvalue -1 beside 3 of matrix 1: project"):
        NeuronDistribution(mean, torch.stack([good, torch.tensor([[1.0, 2.0], [2.0, 1.0]])]))
    with pytest.raises(ValueError, match="semidefinite"):
        NeuronDistribution(mean[:1], -good[None])
    with pytest.raises(ValueError, match="semidefinite"):
        NeuronDistribution(mean[:1], torch.diag(torch.tensor([1.0, -1.1e-8], dtype=torch.float64))[None])


def test_rounding_is_removed():
    axes = torch.linalg.qr(noise(4, 4)).Q
    power = torch.tensor([2.0, 1.0, 1e-17, -1e-9], dtype=torch.float64)
    cov = axes @ torch.diag(power) @ axes.T
    cov[0, 1] += 1e-9
    neurons = NeuronDistribution(torch.zeros(1, 4), cov[None])
    assert torch.equal(neurons.cov, neurons.cov.mT)
    kept = torch.linalg.eigvalsh(neurons.cov[0])
    assert close(kept, torch.tensor([0.0, 0.0, 1.0, 2.0], dtype=torch.float64), 2e-9) and kept.min() > -1e-15


def test_small_variances_are_kept_and_neurons_do_not_depend_on_their_neighbours():
    thin = torch.diag(torch.tensor([1.0, 1e-12], dtype=torch.float64))
    dirty = torch.diag(torch.tensor([1.0, -1e-17], dtype=torch.float64))
    both = NeuronDistribution(torch.zeros(2, 2), torch.stack([thin, dirty]))
    assert torch.equal(both.cov[0], thin) and both.cov[1, 1, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_everything_is_float64_on_the_cpu(dtype):
    neurons = NeuronDistribution(torch.ones(2, 3, dtype=dtype), torch.eye(3, dtype=dtype).expand(2, 3, 3))
    assert {neurons.mean.dtype, neurons.cov.dtype} == {torch.float64}
    assert neurons.mean.device.type == "cpu" and len(neurons) == 2 and neurons.dim == 3


def test_numpy_lists_and_tensors_with_gradients_come_in():
    mean = torch.ones(1, 2, requires_grad=True)
    assert not NeuronDistribution(mean, torch.eye(2)[None]).mean.requires_grad
    assert torch.equal(NeuronDistribution(np.ones((1, 2)), np.eye(2)[None]).mean, torch.ones(1, 2, dtype=torch.float64))
    assert NeuronDistribution([[1, 2]], [[[1, 0], [0, 1]]]).dim == 2


def test_slight_asymmetry_is_averaged():
    neurons = NeuronDistribution(
        torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.5 + 1e-9, 1.0]]], dtype=torch.float64)
    )
    assert neurons.cov[0, 0, 1] == neurons.cov[0, 1, 0] and abs(neurons.cov[0, 0, 1] - 0.5 - 5e-10) < 1e-15


def test_singular_covariances_of_single_precision_come_in():
    """Rounding is that of the type that comes: a float32 matrix of rank 2 has eigenvalues near -1e-7."""
    factor = noise(50, 20, 2).float()
    cov = factor @ factor.mT
    assert (torch.linalg.eigvalsh(cov.double())[:, 0] < -1e-8).any(), "the case is one"
    _, axes, _ = NeuronDistribution(torch.zeros(50, 20), cov).ellipsoid()
    assert ((axes > 0).sum(1) == 2).double().mean() > 0.9 and ((axes > 1e-3 * axes[:, :1]).sum(1) == 2).all()


def test_small_variances_of_single_precision_are_kept():
    power = torch.logspace(0, -7, 20, dtype=torch.float32)
    assert torch.equal(NeuronDistribution(torch.zeros(1, 20), power.diag()[None]).cov[0].diagonal(), power.double())


# -- moments, pieces ---------------------------------------------------------------------------------


def test_from_samples_is_the_unbiased_covariance():
    draws = noise(7, 3, 4) + 1e3
    neurons = NeuronDistribution.from_samples(draws)
    for i in range(3):
        assert np.allclose(neurons.cov[i], np.cov(draws[:, i].T, ddof=1), rtol=0, atol=1e-10)
    assert close(neurons.mean, draws.mean(0))
    assert NeuronDistribution.from_samples(draws[:2]).cov.shape == (3, 4, 4), "two draws are enough"
    assert np.allclose(NeuronDistribution.from_samples(draws.numpy()).cov, neurons.cov)


@pytest.mark.parametrize("shape", [(1, 3, 4), (7, 4), (7,), (0, 3, 4)])
def test_from_samples_needs_two_draws(shape):
    with pytest.raises(ValueError, match=r"samples must be \(N, m, n\) with N >= 2 draws, got shape"):
        NeuronDistribution.from_samples(torch.zeros(shape))


def test_from_samples_names_the_diverged_draw():
    draws = noise(5, 2, 2)
    draws[3, 1, 0] = math.nan
    with pytest.raises(ValueError, match=r"samples must be finite, draws \[3\] are not"):
        NeuronDistribution.from_samples(draws)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (1, [1]),
        (-1, [4]),
        (-5, [0]),
        (np.int64(2), [2]),
        (torch.tensor(3), [3]),
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, 2), [0, 2, 4]),
        ([3, 0, 3], [3, 0, 3]),
        (torch.tensor([4, 1]), [4, 1]),
        (torch.tensor([True, False, False, True, False]), [0, 3]),
        (np.array([False, True, False, False, False]), [1]),
    ],
)
def test_indexing(index, rows):
    p = population(5)
    chosen = p[index]
    assert torch.equal(chosen.mean, p.mean[rows]) and torch.equal(chosen.cov, p.cov[rows])


def test_a_population_is_a_sequence():
    p = population(3)
    assert [len(one) for one in p] == [1, 1, 1]
    with pytest.raises(IndexError, match="neuron 3 of 3"):
        p[3]
    with pytest.raises(IndexError, match="neuron -4 of 3"):
        p[-4]
    with pytest.raises(ValueError, match=r"got \(0, 4\)"):
        p[torch.zeros(3, dtype=torch.bool)]


def test_marginal_takes_rows_and_columns_in_the_order_given():
    p = population()
    q = p.marginal([3, 1])
    assert torch.equal(q.mean, p.mean[:, [3, 1]])
    assert torch.equal(q.cov[2], torch.tensor([[p.cov[2, 3, 3], p.cov[2, 3, 1]], [p.cov[2, 1, 3], p.cov[2, 1, 1]]]))
    assert torch.equal(p.marginal([-1]).mean, p.mean[:, [3]])
    assert torch.equal(p.marginal(torch.tensor([True, False, True, False])).mean, p.mean[:, [0, 2]])
    assert torch.equal(p.marginal(range(4)).cov, p.cov)


@pytest.mark.parametrize("coords", [[], [0, 0], [1, -3], [4], [-5], ["a"]])
def test_wrong_coordinates_are_refused(coords):
    for call in (population().marginal, lambda c: population().condition(c, [0.0])):
        with pytest.raises(ValueError, match=r"coords must name different coordinates of 0 to 3, got"):
            call(coords)


# -- conditioning -----------------------------------------------------------------------------------


def test_condition_is_the_textbook_formula():
    p, value = population(), [0.5, -1.0]
    q = p.condition([2, 0], value)
    for i in range(3):
        mean, cov = p.mean[i].numpy(), p.cov[i].numpy()
        a, b = [1, 3], [2, 0]
        gain = cov[np.ix_(a, b)] @ np.linalg.inv(cov[np.ix_(b, b)])
        assert np.allclose(q.mean[i], mean[a] + gain @ (np.array(value) - mean[b]), rtol=0, atol=1e-11)
        assert np.allclose(q.cov[i], cov[np.ix_(a, a)] - gain @ cov[np.ix_(b, a)], rtol=0, atol=1e-11)


def test_condition_takes_a_value_for_each_neuron():
    p = population()
    values = noise(3, 2, seed=5)
    q = p.condition([0, 1], values)
    for i in range(3):
        one = p[i].condition([0, 1], values[i])
        assert close(q.mean[i], one.mean[0]) and close(q.cov[i], one.cov[0])


def test_condition_agrees_with_sampling():
    """Among draws whose first coordinate is near the value, mean and covariance of the rest are the conditional ones."""
    p = NeuronDistribution([[1.0, -1.0]], [[[1.0, 0.8], [0.8, 2.0]]])
    draws = p.sample(400_000, seeded(3))[:, 0]
    near = draws[(draws[:, 0] - 1.7).abs() < 0.02, 1]
    q = p.condition([0], [1.7])
    error = float(q.cov.sqrt() / math.sqrt(len(near)))
    assert len(near) > 3000 and abs(float(near.mean() - q.mean)) < 4 * error
    assert abs(float(near.var() / q.cov) - 1) < 4 * math.sqrt(2 / len(near))


def test_law_of_total_covariance():
    """Cov(a) = E Cov(a|b) + Cov E(a|b); the mean of a given b is linear, so its covariance is exact."""
    p = population(m=2, n=5)
    a, b = [0, 2, 4], [1, 3]
    base = p.condition(b, p.mean[:, b])
    assert close(base.mean, p.mean[:, a], 1e-10), "at the mean nothing moves"
    step = torch.eye(2, dtype=torch.float64)
    slope = torch.stack([p.condition(b, p.mean[:, b] + s).mean - base.mean for s in step], -1)  # (m, a, b)
    explained = slope @ p.marginal(b).cov @ slope.mT
    assert close(base.cov + explained, p.marginal(a).cov, 1e-9)
    assert (torch.linalg.eigvalsh(p.marginal(a).cov - base.cov) > -1e-9).all(), "knowing never adds spread"


def test_condition_with_singular_covariance():
    """Twins x0 = x1: a possible value leaves the rest as it would with one of them, an impossible one is refused."""
    factor = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    p = NeuronDistribution(torch.zeros(1, 3), (factor @ factor.T)[None])
    one, both = p.condition([0], [1.5]), p.condition([0, 1], [1.5, 1.5])
    assert close(one.mean, torch.tensor([[1.5, 0.75]], dtype=torch.float64)) and abs(one.cov[0, 0, 0]) < 1e-20
    assert close(both.mean, torch.tensor([[0.75]], dtype=torch.float64)) and close(both.cov, torch.tensor(4.0).double())
    with pytest.raises(ValueError, match="value is impossible"):
        p.condition([0, 1], [1.5, 1.4])


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_condition_on_what_determines_the_rest_leaves_no_spread(rank):
    """As many coordinates as the rank fix all of a draw; what rounding leaves is no negative variance."""
    p = population(m=50, n=6, rank=rank)
    draw = p.sample(1, seeded(7))[0]
    known = list(range(rank))
    q = p.condition(known, draw[:, known])
    condition = torch.linalg.cond(p.marginal(known).cov)
    assert ((q.mean - draw[:, rank:]).norm(dim=1) < 1e-11 * condition).all()
    assert (q.cov.diagonal(dim1=1, dim2=2).sum(1) < 1e-11 * condition).all()
    wrong = draw.clone()
    wrong[:, rank] += 1.0
    if rank < 5:
        with pytest.raises(ValueError, match="value is impossible"):
            p.condition([*known, rank], wrong[:, : rank + 1])


def test_condition_refuses_values_of_the_wrong_kind():
    p = population()
    for value in ([1.0], [1.0, 2.0, 3.0], noise(2, 2), 1.0, [1.0, math.nan]):
        with pytest.raises(ValueError, match=r"value must be finite and \(2,\) or \(3, 2\), got"):
            p.condition([0, 1], value)
    with pytest.raises(ValueError, match="coords must leave a coordinate over, got all 4"):
        p.condition(range(4), torch.zeros(4))


# -- sampling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 2])
def test_samples_have_the_moments(rank):
    p = population(rank=rank)
    size = 100_000
    draws = p.sample(size, seeded(4))
    q = NeuronDistribution.from_samples(draws)
    variance = p.cov.diagonal(dim1=1, dim2=2)
    assert draws.shape == (size, 3, 4)
    assert ((q.mean - p.mean).abs() < 4.5 * (variance / size).sqrt()).all()
    spread = ((variance[:, :, None] * variance[:, None, :] + p.cov**2) / size).sqrt()
    assert ((q.cov - p.cov).abs() < 4.5 * spread).all()
    if rank:
        null = torch.linalg.eigh(p.cov).eigenvectors[..., : 4 - rank]
        assert (torch.einsum("mik,smi->smk", null, draws - p.mean).abs() < 1e-6).all(), "draws stay in the support"


def test_neurons_are_drawn_independently():
    p = NeuronDistribution(torch.zeros(2, 1), torch.ones(2, 1, 1))
    a, b = p.sample(100_000, seeded(5))[:, :, 0].T
    assert abs(float((a * b).mean())) < 4.5 / math.sqrt(100_000)


def test_draws_do_not_depend_on_signs_and_turns_of_eigenvectors(monkeypatch):
    turn = torch.linalg.qr(torch.randn(2, 3, 3, generator=seeded(8), dtype=torch.float64)).Q
    power = torch.tensor([[0.2, 0.8, 0.8], [0.5, 0.5, 0.5]], dtype=torch.float64)
    p = NeuronDistribution(torch.zeros(2, 3), turn @ (power[..., None] * turn.mT))
    draws, eigh = p.sample(20, seeded(9)), torch.linalg.eigh

    def another_processor(matrix):
        power, axes = eigh(matrix)
        last = axes[..., 1:] @ torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64)
        return power, torch.cat([-axes[..., :1], last], -1)

    monkeypatch.setattr(torch.linalg, "eigh", another_processor)
    assert close(p.sample(20, seeded(9)), draws)


def test_sampling_belongs_to_the_generator():
    p = population()
    state = torch.get_rng_state()
    assert torch.equal(p.sample(5, seeded(1)), p.sample(5, seeded(1)))
    assert not torch.equal(p.sample(5, seeded(1)), p.sample(5, seeded(2)))
    assert torch.equal(state, torch.get_rng_state())


def test_total_variance_is_what_a_draw_strays_squared():
    some = population(3, 4)
    by_hand = torch.stack([torch.linalg.eigvalsh(c).sum() for c in some.cov])
    assert some.total_variance.shape == (3,) and close(some.total_variance, by_hand)
    strayed = (some.sample(20_000, seeded()) - some.mean).square().sum(2).mean(0)
    assert ((strayed / some.total_variance - 1).abs() < 0.05).all()


# -- ellipsoids -------------------------------------------------------------------------------------


def held(p, draws, axes, directions, tolerance=1e-6):
    """The share of draws (N, n) inside the ellipsoid; where an axis has no length, only what lies in its plane."""
    along = (draws - p.mean[0]) @ directions[0]
    flat = axes[0] <= tolerance * axes[0].max()
    inside = ((along[:, ~flat] / axes[0, ~flat]) ** 2).sum(1) <= 1
    return float((inside & (along[:, flat].abs() < tolerance).all(1)).double().mean())


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize(("n", "rank"), [(1, 1), (2, 2), (3, 3), (3, 2), (6, 1), (20, 20)])
def test_ellipsoids_hold_their_level(n, rank, level):
    p = population(m=1, n=n, rank=rank, seed=n)
    size = 40_000
    centres, axes, directions = p.ellipsoid(level)
    share = held(p, p.sample(size, seeded(n + rank))[:, 0], axes, directions)
    assert torch.equal(centres, p.mean)
    assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / size)


def test_ellipsoid_of_a_round_neuron_is_the_quantile():
    for n, quantile in ((1, 1.9600), (2, 2.4477), (3, 2.7955)):
        axes = NeuronDistribution(torch.zeros(1, n), torch.eye(n)[None]).ellipsoid()[1]
        assert close(axes, torch.full((1, n), quantile, dtype=torch.float64), 5e-5)


def test_ellipsoid_gives_long_axes_first_as_unit_columns():
    p = population(m=4, n=3)
    _, axes, directions = p.ellipsoid()
    assert (axes.diff(dim=1) <= 0).all()
    assert close(directions.mT @ directions, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    scaled = directions * axes[:, None, :] / 2.7954834829151074
    assert close(scaled @ scaled.mT, p.cov, 1e-10)


def test_ellipsoid_of_a_constant_neuron_is_a_point():
    axes = NeuronDistribution(torch.ones(2, 3), torch.zeros(2, 3, 3)).ellipsoid()[1]
    assert torch.equal(axes, torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("level", [0, 1, -0.5, 95])
def test_ellipsoid_needs_a_probability(level):
    with pytest.raises(ValueError, match="level must be a number"):
        population().ellipsoid(level)


def test_covariance_times_sphere_is_no_region_of_95_per_cent():
    """Methods D12: the paper's figures draw the image of the unit sphere under the covariance itself."""
    variances = torch.tensor([1.0, 0.04, 1e-4], dtype=torch.float64)
    p = NeuronDistribution(torch.zeros(1, 3), torch.diag(variances)[None])
    draws = p.sample(200_000, seeded(6))[:, 0]
    _, axes, directions = p.ellipsoid()
    right, drawn = held(p, draws, axes, directions), float(((draws / variances) ** 2).sum(1).le(1).double().mean())
    assert abs(right - 0.95) < 4 * math.sqrt(0.95 * 0.05 / len(draws))
    assert abs(drawn - 4.82e-4) < 4 * math.sqrt(4.82e-4 / len(draws)), "by quadrature; the methods say 0.0004"


# -- rows of a network ------------------------------------------------------------------------------


def test_rows_and_columns_of_linear():
    layer = nn.Linear(3, 5)
    model = nn.Sequential(layer, nn.ReLU())
    assert torch.equal(weight_of(model, "0"), layer.weight) and weight_of(model, "0").shape == (5, 3)
    assert torch.equal(weight_of(model, "0", axis=1), layer.weight.T)
    assert torch.equal(weight_of(model, "0.weight"), layer.weight)
    assert torch.equal(weight_of(layer, ""), layer.weight) and torch.equal(weight_of(layer, "weight"), layer.weight)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("kind", "kernel"),
    [(nn.Conv1d, (3,)), (nn.Conv2d, (3, 2)), (nn.ConvTranspose1d, (3,)), (nn.ConvTranspose2d, (3, 2))],
)
def test_a_row_comes_into_a_unit_and_a_column_goes_out(kind, kernel, groups):
    """By asking the layer: what a channel does to a unit is the sum of the kernel between them."""
    layer = kind(4, 6, kernel, groups=groups, bias=False)
    rows, columns = weight_of(layer, ""), weight_of(layer, "", axis=1)
    size = math.prod(kernel)
    assert rows.shape == (6, 4 // groups * size) and columns.shape == (4, 6 // groups * size)
    constant = torch.eye(4).view(4, 4, *(1 for _ in kernel)).expand(4, 4, *(9 for _ in kernel))  # one channel at a time
    gain = layer(constant)[(..., *(4 for _ in kernel))]  # (channel, unit), the sum of the kernel between the two
    for unit in range(6):
        group = unit // (6 // groups)
        own = gain[group * (4 // groups) :][: 4 // groups, unit]
        assert torch.allclose(rows[unit].view(-1, size).sum(1), own, atol=1e-6)
        assert torch.equal(own.count_nonzero(), gain[:, unit].count_nonzero())
    for channel in range(4):
        group = channel // (4 // groups)
        own = gain[channel, group * (6 // groups) :][: 6 // groups]
        assert torch.allclose(columns[channel].view(-1, size).sum(1), own, atol=1e-6)


def test_depthwise_convolution():
    layer = nn.Conv1d(5, 5, 3, groups=5)
    for axis in (0, 1):
        assert torch.equal(weight_of(layer, "", axis=axis), layer.weight[:, 0])


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers(kind, gates):
    layer = kind(3, 5, num_layers=2)
    model = nn.ModuleDict({"cell": layer})
    rows = weight_of(model, "cell")
    assert rows.shape == (gates * 5, 8)
    assert torch.equal(rows, torch.cat([layer.weight_ih_l0, layer.weight_hh_l0], 1))
    assert torch.equal(weight_of(model, "cell.weight_hh_l0", axis=1), layer.weight_hh_l0.T)
    with pytest.raises(ValueError, match="'cell' is recurrent: name its weight_ih_l0 or weight_hh_l0"):
        weight_of(model, "cell", axis=1)


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNNCell, 1), (nn.LSTMCell, 4), (nn.GRUCell, 3)])
def test_recurrent_cells(kind, gates):
    cell = kind(3, 5)
    assert torch.equal(weight_of(cell, ""), torch.cat([cell.weight_ih, cell.weight_hh], 1))
    assert weight_of(cell, "").shape == (gates * 5, 8)


def test_embedding_gives_a_row_for_each_word():
    layer = nn.Embedding(7, 2)
    assert torch.equal(weight_of(nn.Sequential(layer), "0"), layer.weight)


def test_parametrized_layers_give_what_the_network_uses():
    model = nn.Sequential(orthogonal(nn.Linear(6, 2)))
    rows = weight_of(model, "0")
    assert torch.equal(rows, model[0].weight) and torch.allclose(rows @ rows.T, torch.eye(2), atol=1e-5)
    assert torch.equal(weight_of(model, "0.weight"), rows)


class Elman(nn.Module):
    """The paper's recurrent network in bare parameters, with one matrix tied to another name."""

    def __init__(self):
        super().__init__()
        self.W, self.V = nn.Parameter(noise(4, 4)), nn.Parameter(noise(4, 2, seed=1))
        self.bias = nn.Parameter(noise(4))
        self.scale = nn.LayerNorm(4)
        self.tied = self.W


def test_a_layer_used_twice_has_both_names():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert torch.equal(weight_of(model, "2"), layer.weight)


def test_parameters_by_name_and_side_by_side():
    model = Elman()
    assert torch.equal(weight_of(model, "V"), model.V) and torch.equal(weight_of(model, "tied"), model.W)
    assert torch.equal(weight_of(model, ["W", "V"]), torch.cat([model.W, model.V], 1))
    assert torch.equal(weight_of(model, ("V", "W")), torch.cat([model.V, model.W], 1))
    with pytest.raises(ValueError, match=r"as many rows each, got \[\(4, 4\), \(2, 4\)\]"):
        weight_of(model, ["W", "V"], axis=1)
    with pytest.raises(ValueError, match=r"layer must name matrices"):
        weight_of(model, [])


def test_rows_are_copies():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    for axis in (0, 1):
        for name in ("0", "1", "1.weight", ["0"]):
            before = weight_of(model, name, axis=axis)
            before += 1
            assert not torch.equal(before, weight_of(model, name, axis=axis)) and not before.requires_grad


def test_errors_list_the_layers_that_have_rows():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.GRU(3, 2))
    for name, said in (
        ("1", "has no rows"),
        ("2", "has no rows"),
        ("0.bias", "has no rows"),
        ("9", "is not in the model"),
    ):
        with pytest.raises(ValueError, match=rf"layer '{name}' {said}; layers that have: 0, 3$"):
            weight_of(model, name)
    with pytest.raises(ValueError, match="layers that have: none"):
        weight_of(nn.ReLU(), "0")
    with pytest.raises(ValueError, match=r"axis must be 0 \(rows\) or 1 \(columns\), got 2"):
        weight_of(model, "0", axis=2)


# -- rows with their biases


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 5), nn.Linear(3, 5, bias=False), nn.Conv2d(2, 4, 3), nn.Conv1d(4, 6, 3, groups=2),
        nn.ConvTranspose1d(4, 6, 3, groups=2),
    ],
)  # fmt: skip
def test_the_bias_stands_last(layer):
    rows, found = weight_of(layer, ""), weight_of(layer, "", bias=True)
    assert torch.equal(found[:, :-1], rows)
    assert torch.equal(found[:, -1], torch.zeros(len(rows)) if layer.bias is None else layer.bias)


def test_a_recurrent_row_has_both_its_biases():
    layer = nn.GRU(3, 5)
    rows = weight_of(layer, "", bias=True)
    parts = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0[:, None], layer.bias_hh_l0[:, None]]
    assert torch.equal(rows, torch.cat(parts, 1))
    assert torch.equal(weight_of(nn.RNNCell(3, 5, bias=False), "", bias=True)[:, -2:], torch.zeros(5, 2))


def test_layers_side_by_side_have_each_their_bias():
    gated = nn.ModuleDict({"gate": nn.Linear(3, 5), "up": nn.Linear(3, 5)})
    rows = weight_of(gated, ["gate", "up"], bias=True)
    assert rows.shape == (5, 8)
    assert torch.equal(rows[:, 3], gated["gate"].bias) and torch.equal(rows[:, 7], gated["up"].bias)


@pytest.mark.parametrize(("name", "axis", "why"), [("0", 1, "bias=True.*axis=0"), ("W", 0, "bias=True.*'W'")])
def test_what_has_no_bias_is_refused(name, axis, why):
    model = nn.Sequential(nn.Linear(3, 5))
    model.W = nn.Parameter(torch.ones(5, 3))
    with pytest.raises(ValueError, match=why):
        weight_of(model, name, axis=axis, bias=True)


# -- large covariances of few draws


@pytest.fixture
def low_rank(monkeypatch):
    """The same draws as matrices and, as if they were large, as factors."""
    draws = noise(4, 5, 12) + 3
    dense = NeuronDistribution.from_samples(draws)
    monkeypatch.setattr(neurons, "LARGE", 0)
    return dense, NeuronDistribution.from_samples(draws)


def test_factors_are_the_same_population(low_rank):
    dense, kept = low_rank
    assert "cov" not in vars(kept) and repr(kept).startswith("NeuronDistribution(5 neurons in R^12")
    assert torch.equal(kept.mean, dense.mean) and close(kept.total_variance, dense.total_variance)
    assert close(kept[[3, 1]].variances, dense.variances[[3, 1]]) and kept.dim == 12 and len(kept) == 5
    assert close(kept.sample(50, seeded(1)), dense.sample(50, seeded(1)), 1e-10), "draw by draw"
    assert "cov" not in vars(kept), "nothing of this needs matrices"
    assert close(kept.cov, dense.cov) and close(kept.ellipsoid()[1], dense.ellipsoid()[1], 1e-6)
    assert close(kept.marginal([7, 2]).cov, dense.marginal([7, 2]).cov) and close(kept[2].cov, dense[2].cov)


def test_distances_of_factors(low_rank):
    dense, kept = low_rank
    other = NeuronDistribution(noise(3, 12, seed=5), torch.eye(12).expand(3, 12, 12))
    pairs = ((kept, None), (kept, other), (other, kept[1:]), (kept, kept[:2]))
    far = [ms.wasserstein2(*pair) for pair in pairs]
    assert close(far[0], ms.wasserstein2(dense), 1e-10) and close(far[1], ms.wasserstein2(dense, other), 1e-10)
    assert close(far[2], ms.wasserstein2(other, dense[1:]), 1e-10) and far[3][0, 0] == 0
    assert close(ms.euclidean(kept), ms.euclidean(dense)) and "cov" not in vars(kept)
    with pytest.raises(ValueError, match="jeffreys needs covariances of full rank, got 5 of 5 singular"):
        ms.jeffreys(kept)
    for metric in (ms.euclidean, ms.functional(torch.eye(12))):
        assert close(metric.barycenter(kept, [0, 0, 1, 1, 1]).cov, metric.barycenter(dense, [0, 0, 1, 1, 1]).cov, 1e-8)
    assert close(ms.wasserstein2.barycenter(kept).cov, ms.wasserstein2.barycenter(dense).cov, 1e-8)


def test_covariances_that_no_memory_holds_are_refused_with_a_way_out(low_rank, monkeypatch):
    monkeypatch.setattr(neurons, "LARGEST", 5)
    with pytest.raises(ValueError, match=r"cov would hold 5 matrices 12 x 12, 0 GB: take fewer neurons"):
        low_rank[1].cov  # noqa: B018
    with pytest.raises(ValueError, match=r"barycenters would hold 5 matrices 12 x 12, 0 GB: .* euclidean"):
        ms.wasserstein2.barycenter(low_rank[0])


def test_memory_of_the_neurons_of_a_large_kernel():
    """Rows of 128 x 128 x 3 x 3 from ten members: 1.4 GB of matrices of rank 9, which nobody needs."""
    code = """
import resource, sys, torch, mspace as ms
rows = torch.randn(10, 128, 1152, generator=ms.seeded(0))
neurons = ms.NeuronDistribution.from_samples(rows)
assert ms.wasserstein2(neurons).shape == (128, 128) and neurons.sample(2, ms.seeded(1)).shape == (2, 128, 1152)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0


# -- what else may come in


NO_NUMBERS = [
    [["a"]], [[1j]], None, [[1.0], [1.0, 2.0]], np.ma.masked_array([[1.0]], [[True]]), [[True]], torch.eye(1).to_sparse(),
    torch.ones(1, 1, device="meta"),
]  # fmt: skip


@pytest.mark.parametrize("bad", NO_NUMBERS, ids=lambda bad: f"{bad!s:.20}")
def test_what_is_no_array_of_numbers_is_refused(bad):
    with pytest.raises(ValueError, match="mean must"):
        NeuronDistribution(bad, torch.ones(1, 1, 1))
    with pytest.raises(ValueError, match="cov must"):
        NeuronDistribution([[1.0]], bad)
    with pytest.raises(ValueError, match="samples must"):
        NeuronDistribution.from_samples(bad)
    with pytest.raises(ValueError, match="value must"):
        population().condition([0], bad)


@pytest.mark.parametrize("size", [-1, 2.5, "3", None])
def test_a_number_of_draws_is_a_whole_number(size):
    with pytest.raises(ValueError, match="size must be a whole number"):
        population().sample(size)


@pytest.mark.parametrize("index", ["a", 2.5, [7], None, {}, torch.tensor([True]), slice(None, None, -1), [1j]], ids=str)
def test_what_chooses_no_neurons_is_refused(index):
    with pytest.raises((IndexError, ValueError), match=r"chosen by index|mean must be"):
        population()[index]


@pytest.mark.parametrize("coords", [None, "a", [1.5], [[0, 1]], [[0], [1, 2]], [1j], {}], ids=str)
def test_what_names_no_coordinates_is_refused(coords):
    for call in (population().marginal, lambda c: population().condition(c, [0.0])):
        with pytest.raises(ValueError, match="coords must name different coordinates"):
            call(coords)
