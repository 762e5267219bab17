import pytest
import torch
from torch import nn

from mspace import NeuronDistribution, seeded
from mspace.models import OrthogonalAutoencoder, mlp
from mspace.network.parameters import blocks_of, flatten, positions, unflatten
from mspace.posterior import Block, GaussianPosterior


def net():
    return mlp(4, 5, 2, generator=seeded(0)).double()  # 25 parameters in "0", 12 in "2"


def full(model, scale=1.0):
    size = len(flatten(model))
    root = torch.randn(size, size, generator=seeded(1), dtype=torch.float64) * scale
    return GaussianPosterior.of(model, [Block(torch.arange(size)[None], (root @ root.T)[None])], n=10)


def test_neurons_are_rows_and_columns_of_the_matrix():
    post, place = full(net()), torch.arange(20).view(5, 4)
    rows, columns = post.neurons("0"), post.neurons("0", axis=1)
    for i in range(5):
        assert torch.equal(rows.cov[i], post.cov()[place[i]][:, place[i]])
    for j in range(4):
        assert torch.equal(columns.cov[j], post.cov()[place[:, j]][:, place[:, j]])
    assert torch.equal(rows.mean, net()[0].weight.detach())


@pytest.mark.parametrize("structure", ["full", "layer", "neuron", "diagonal"])
def test_blocks_of_any_structure_hold_every_parameter_once(structure):
    model = net()
    blocks = blocks_of(model, structure)
    assert torch.cat([b.reshape(-1) for b in blocks]).sort().values.tolist() == list(range(37))
    shapes = {"full": [(1, 37)], "layer": [(1, 25), (1, 12)], "neuron": [(5, 5), (2, 6)], "diagonal": [(37, 1)]}
    assert [tuple(b.shape) for b in blocks] == shapes[structure]
    whole = full(model)
    parts = tuple(Block(i, torch.stack([whole.cov()[row[:, None], row] for row in i])) for i in blocks)
    post = GaussianPosterior(whole.template, whole.mean, parts)
    if structure != "diagonal":
        assert torch.allclose(post.neurons("2").cov, whole.neurons("2").cov)
    assert all(torch.allclose(a, b) for a, b in zip(post.variance().values(), whole.variance().values()))
    assert torch.allclose(post.cov().diagonal(), whole.cov().diagonal())


def test_a_neuron_of_a_block_is_a_row_with_its_bias():
    model = net()
    place = unflatten(model, torch.arange(37))
    first = blocks_of(model, "neuron", "0")[0]
    assert torch.equal(first, torch.cat([place["0.weight"], place["0.bias"][:, None]], 1))
    recurrent = nn.RNN(3, 4, num_layers=2)
    assert [tuple(b.shape) for b in blocks_of(recurrent, "neuron")] == [(4, 9), (4, 10)]


def test_samples_have_the_posterior_s_moments_and_function():
    post = full(net(), 0.1)
    drawn = post.sample(20_000, seeded(2))
    flat = torch.cat([v.reshape(20_000, -1) for v in drawn.parameters.values()], 1)
    assert (flat.T.cov() - post.cov()).abs().max() < 0.03 * post.cov().abs().max()
    assert (flat.mean(0) - post.mean).abs().max() < 0.03 * post.cov().diagonal().max().sqrt() * 2
    few = post.sample(3, seeded(2))
    x = torch.randn(6, 4, generator=seeded(3), dtype=torch.float64)
    assert torch.allclose(few(x)[1], few[1](x))
    assert torch.equal(post.sample(3, seeded(2)).parameters["0.weight"], few.parameters["0.weight"])


def test_singular_blocks_are_drawn_where_they_have_variance():
    model = nn.Linear(2, 1, bias=False).double()
    line = torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double()
    drawn = GaussianPosterior.of(model, [Block(torch.tensor([[0, 1]]), line[None])]).sample(50, seeded(4))
    moved = drawn.parameters["weight"][:, 0] - model.weight.detach()[0]
    assert torch.allclose(moved[:, 0], moved[:, 1], atol=1e-6) and moved.abs().max() > 0.5


def test_conditioning_and_marginals_are_those_of_a_gaussian():
    post = full(net())
    known = positions(post.template, "2.bias")
    given = post.condition("2.bias", 0.5)
    rest = torch.tensor([i for i in range(37) if i not in known.tolist()])
    cov = post.cov()
    gain = cov[rest][:, known] @ torch.linalg.inv(cov[known][:, known])
    assert torch.allclose(given.cov(), cov[rest][:, rest] - gain @ cov[known][:, rest], atol=1e-8)
    assert torch.allclose(given.mean[rest], post.mean[rest] + gain @ (0.5 - post.mean[known]), atol=1e-9)
    assert given.named()["2.bias"].tolist() == [0.5, 0.5] and len(given) == 35
    part = post.marginal(["0", "2.bias"])
    assert len(part) == 27 and torch.equal(part.cov(), cov[part.index][:, part.index])
    assert part.variance()["2.weight"].abs().max() == 0
    swapped = post.condition(torch.tensor([36, 35]), torch.tensor([1.0, 2.0]))
    assert swapped.named()["2.bias"].tolist() == [2.0, 1.0]


def test_conditioning_keeps_independent_blocks_apart():
    model = net()
    index = blocks_of(model, "neuron")
    post = GaussianPosterior.of(model, [Block(i, torch.eye(i.shape[1]).double().expand(len(i), -1, -1)) for i in index])
    given = post.condition(positions(model, "0.bias"), 3.0)
    assert torch.equal(given.named()["2.weight"], post.named()["2.weight"])
    assert sorted(tuple(b.index.shape) for b in given.blocks) == [(2, 6), (5, 4)]


def test_a_made_weight_by_linearisation():
    model = OrthogonalAutoencoder(6, 2, generator=seeded(5))
    size = len(flatten(model))
    post = GaussianPosterior.of(model, [Block(torch.arange(size)[None], 1e-6 * torch.eye(size)[None])])
    found, drawn = post.neurons("decoder"), post.sample(4000, seeded(6)).neurons("decoder")
    assert (found.cov - drawn.cov).abs().max() < 0.08 * found.cov.abs().max()
    assert torch.equal(found.mean, model.decoder.weight.detach().double())
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    post = GaussianPosterior.of(normed, [Block(torch.arange(8)[None], torch.eye(8)[None])])
    assert post.neurons("").cov.shape == (2, 3, 3)


def test_saved_and_loaded(tmp_path):
    post = full(net()).marginal("0")
    post.save(tmp_path / "p.safetensors")
    again = GaussianPosterior.load(tmp_path / "p.safetensors", net())
    assert torch.equal(again.cov(), post.cov()) and torch.equal(again.mean, post.mean)
    assert again.report == {"n": 10} and [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]
    with pytest.raises(ValueError, match="parameters that were saved"):
        GaussianPosterior.load(tmp_path / "p.safetensors", mlp(3, 2))
    (tmp_path / "bad").write_bytes(b"0" * 100)
    with pytest.raises(ValueError, match="holds no posterior"):
        GaussianPosterior.load(tmp_path / "bad", net())


def test_model_is_the_mean_and_arguments_stay():
    post = full(net())
    moved = GaussianPosterior(post.template, post.mean + 1, post.blocks)
    assert torch.allclose(moved.model()[0].weight, net()[0].weight + 1)
    assert torch.equal(post.template[0].weight, net()[0].weight)
    assert isinstance(moved.neurons("0"), NeuronDistribution)
    assert torch.allclose(moved.neurons("0").mean, net()[0].weight.detach() + 1)


def test_bad_posteriors():
    model, eye = net(), torch.eye(2)[None]
    with pytest.raises(ValueError, match="different positions below 37"):
        GaussianPosterior.of(model, [Block(torch.tensor([[3, 3]]), eye)])
    with pytest.raises(ValueError, match="different positions below 37"):
        GaussianPosterior.of(model, [Block(torch.tensor([[3, 37]]), eye)])
    with pytest.raises(ValueError, match="a block needs index"):
        Block(torch.tensor([[0, 1, 2]]), eye)
    with pytest.raises(ValueError, match="must be finite"):
        Block(torch.tensor([[0, 1]]), eye / 0)
    with pytest.raises(ValueError, match="mean must be"):
        GaussianPosterior(model, torch.zeros(3), ())
    with pytest.raises(ValueError, match="'9' is no layer"):
        full(model).marginal("9")
    with pytest.raises(ValueError, match="size must be"):
        full(model).sample(0)


def test_the_root_of_a_covariance_is_the_symmetric_one():
    post = full(net())
    root = post.blocks[0].root()[0]
    assert torch.allclose(root, root.T, atol=1e-10) and torch.linalg.eigvalsh(root).min() > -1e-9
    assert torch.allclose(root @ root, post.cov(), atol=1e-8)


@pytest.mark.parametrize("size", [2, 600])
def test_blocks_are_covariances(size):
    """Of more rows than eigenvalues are asked for, too."""
    index, good = torch.arange(size)[None], torch.eye(size, dtype=torch.float64)[None]
    assert repr(Block(index, good)) == f"Block(index (1, {size}), cov (1, {size}, {size}))"
    for entries, said in (
        ({(0, 1): 0.5}, "symmetric"),
        ({(0, 1): 2.0, (1, 0): 2.0}, "semidefinite"),
        ({(1, 1): -1.0}, "semidefinite"),
    ):
        bad = good.clone()
        for at, value in entries.items():
            bad[0][at] = value
        with pytest.raises(ValueError, match=f"cov of a block must be .*{said}"):
            Block(index, bad)
    if size == 2:
        apart = 1.9 * torch.eye(3, dtype=torch.float64) - 0.9  # each pair of rows could be one, the three cannot
        with pytest.raises(ValueError, match=r"semidefinite, got the eigenvalue -0\.8 beside 1\.9"):
            Block(torch.arange(3)[None], apart[None])
    with pytest.raises(ValueError, match="index must be positions of parameters, int64"):
        Block(index.float(), good)


def test_what_is_printed_fits_a_line():
    model = net()
    post = GaussianPosterior.of(model, [Block(torch.arange(4)[:, None], torch.ones(4, 1, 1))])
    size = len(flatten(model))
    assert repr(post) == f"GaussianPosterior(Sequential of {size} parameters, 4 random, in blocks (4, 1, 1))"
    assert repr(post.sample(3)) == f"Ensemble(3 members, each a Sequential of {size} parameters)"
    assert repr(post.neurons("0")).startswith("NeuronDistribution(")


def test_conditioning_what_is_semidefinite_no_more():
    model = net()
    cov = torch.eye(len(flatten(model)), dtype=torch.float64)
    cov[0, 0] = -1e-4
    post = GaussianPosterior.of(model, [Block(torch.arange(len(cov))[None], cov[None])])
    with pytest.raises(ValueError, match=r"posterior is too ill-conditioned .* damping= .* eigenvalue -0.0001"):
        post.condition("2.bias", 0.0)
