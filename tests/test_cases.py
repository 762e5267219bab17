"""Networks and data of other people, as public reports tell of them: training and the bootstrap are right or refuse them."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import mspace as ms

X = ms.normal(60, 4, seed=1)
Y = torch.randint(3, (60,), generator=ms.seeded(2))
TARGET = X[:, :1] + 0.1 * ms.normal(60, 1, seed=3)
PLAIN = partial(torch.optim.SGD, lr=0.3)


def net(activation=nn.ReLU, outputs=3):
    model = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, outputs)).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(ms.normal(*p.shape, seed=10 + i) / 2)
    return model


def boot(model=None, data=(X, Y), loss=F.cross_entropy, **options):
    options = {"n_models": 4, "epochs": 2, "generator": ms.seeded(0)} | options
    return ms.bootstrap(net() if model is None else model, data, loss, **options)


def same_bits(a, b):
    return all(torch.equal(a.parameters[k], b.parameters[k]) for k in a.parameters)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_frozen_parameters_stay(activation):
    """A backbone with requires_grad=False is not trained, by hand or by vmap, and has no spread."""
    model = net(activation)
    model[0].requires_grad_(False)
    fitted = ms.fit(model, (X, Y), F.cross_entropy, epochs=2, generator=ms.seeded(0))
    refined = ms.refine(model, (X, Y), F.cross_entropy, weight_decay=0.1)
    for moved in (fitted, refined):
        assert torch.equal(moved[0].weight, model[0].weight) and not torch.equal(moved[2].weight, model[2].weight)
        assert not moved[0].weight.requires_grad
    for epochs in (2, None):
        members = boot(model, loss=lambda o, t: F.cross_entropy(o, t) + 1e-2 * o.square().mean(), epochs=epochs)
        assert (members.parameters["0.weight"] == model[0].weight).all() and members.parameters["2.weight"].std(
            0
        ).min() > 0


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_an_ablation_by_a_hook_is_trained_as_it_computes(activation):
    """Where a hook puts the hidden units to zero, the weights before it get no gradient and the bias after it all."""
    model = net(activation)
    model[1].register_forward_hook(lambda module, args, out: out * 0)
    fitted = ms.fit(model, (X, Y), F.cross_entropy, epochs=3, generator=ms.seeded(0))
    assert torch.equal(fitted[0].weight, model[0].weight) and torch.equal(fitted[2].weight, model[2].weight)
    assert not torch.equal(fitted[2].bias, model[2].bias)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_a_mask_on_the_gradient_is_kept_by_every_member(activation):
    model = net(activation)
    mask = (ms.normal(6, 4, seed=5) > 0).double()
    with torch.no_grad():
        model[0].weight *= mask
    model[0].weight.register_hook(lambda grad: grad * mask)
    members = boot(model)
    assert (members.parameters["0.weight"][:, mask == 0] == 0).all()
    assert (members.parameters["0.weight"].std(0)[mask == 1] > 0).any()


def test_a_pruned_layer_has_the_spread_of_what_it_uses():
    """The weight of a pruned layer is made from another parameter in every pass: its zeros stay, the others vary."""
    model = net()
    prune.l1_unstructured(model[0], "weight", amount=0.3)
    mask = model[0].weight_mask
    variance = boot(model, n_models=8).neurons("0").cov.diagonal(dim1=1, dim2=2)
    assert (variance[mask == 0] < 1e-30).all() and variance[mask == 1].max() > 0
    fitted = ms.fit(model, (X, Y), F.cross_entropy, epochs=2, generator=ms.seeded(0))
    assert torch.equal(ms.weight_of(fitted, "0"), (fitted[0].weight_orig * mask).detach())


class Writes(nn.Module):
    """A network that begins with an operation in place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x):
        x -= 5.0
        return self.layer(x)


@pytest.mark.parametrize("epochs", [2, None])
def test_data_and_model_are_the_same_bits_afterwards(epochs):
    for model in (Writes(), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).double()):
        x, y = X.clone(), Y.clone()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        loss = lambda out, t: F.cross_entropy(out, t) + 0.1 * out.square().mean()  # noqa: E731
        ms.fit(model, (x, y), loss, epochs=1, generator=ms.seeded(0))
        ms.refine(model, (x, y), loss, tolerance=1e-3)
        boot(model, (x, y), loss, epochs=epochs)
        assert torch.equal(x, X) and torch.equal(y, Y)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_of_one_change_nothing_under_class_weights():
    """The mean of single losses would lose the class weights: each example counts by the weight of its class instead."""
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 20.0, 1.0]).double())
    options = {"epochs": 30, "batch_size": 60, "optimizer": PLAIN, "generator": ms.seeded(0)}
    plain = ms.fit(nn.Linear(4, 3).double(), (X, Y), loss, **options)
    start = nn.Linear(4, 3).double()
    a, b = (ms.fit(start, (X, Y), loss, weights=w, **options) for w in (None, torch.ones(60).double()))
    assert (a.weight - b.weight).abs().max() < 1e-9 and torch.isfinite(plain.weight).all()


def constant(value):
    model = nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(model.weight, float(value))
    return model


def test_counts_vary_by_default_and_stay_by_strata():
    """The rate of Poisson counts has the variance 1 / (n rate) in its logarithm; strata of the counts hold it fixed."""
    counts = torch.poisson(torch.full((200,), 3.0), generator=ms.seeded(1)).long()
    data, model = (torch.ones(200, 1).double(), counts), constant(counts.double().mean().log())
    loss = lambda out, t: F.poisson_nll_loss(out[:, 0], t.double())  # noqa: E731
    free, held = (boot(model, data, loss, n_models=100, epochs=None, strata=s).neurons("").cov for s in (None, counts))
    right = counts.double().var() / (200 * counts.double().mean() ** 2)
    assert 0.6 < float(free / right) < 1.6  # within 3 standard errors of a variance of 100 draws
    assert held < 1e-3 * right


def test_whole_groups_are_drawn():
    """The mean of 20 groups of ten equal values varies as the mean of 20 values, ten times more than of 200."""
    z = ms.normal(20, 1, seed=5)
    y, of_group = z.repeat_interleave(10, 0), torch.arange(200) // 10
    mixed = torch.randperm(200, generator=ms.seeded(6))
    data, model = (torch.ones(200, 1).double(), y[mixed]), constant(y.mean())
    found = boot(model, data, F.mse_loss, n_models=100, epochs=None, groups=of_group[mixed]).neurons("").cov
    assert 0.6 < float(found / (z.var(correction=0) / 20)) < 1.6


def huber(delta):
    return lambda out, t: F.huber_loss(out, t, delta=delta)


class Power(nn.Module):
    """A module whose attribute is in neither its parameters nor what it prints."""

    def __init__(self, power):
        super().__init__()
        self.layer, self.power = net(outputs=1), power

    def forward(self, x):
        return self.layer(x**self.power)


def squared(out, t):
    return (out - t).square().mean()


def squared_more(out, t):
    return 2 * (out - t).square().mean()


squared_more.__name__ = squared_more.__qualname__ = "squared"
CHANGES = {  # of a bootstrap in a store -> two settings that print alike
    "loss's number": ({"loss": nn.HuberLoss(delta=1.0)}, {"loss": nn.HuberLoss(delta=0.01)}),
    "closure": ({"loss": huber(1.0)}, {"loss": huber(0.01)}),
    "code of a function": ({"loss": squared}, {"loss": squared_more}),
    "rate": ({"optimizer": partial(torch.optim.SGD, lr=0.1)}, {"optimizer": partial(torch.optim.SGD, lr=0.2)}),
    "rate of a lambda": (
        {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)},
        {"optimizer": lambda p: torch.optim.SGD(p, lr=0.2)},
    ),
    "attribute of the network": ({"model": Power(1)}, {"model": Power(3)}),
    "a target": ({"data": (X, TARGET)}, {"data": (X, TARGET + 1e-9)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_store_is_told_by_content(change, tmp_path):
    first, second = ({"model": net(outputs=1), "data": (X, TARGET), "loss": F.mse_loss} | c for c in CHANGES[change])
    kept = boot(**first, store=tmp_path)
    assert same_bits(kept, boot(**first, store=tmp_path))
    with pytest.raises(ValueError, match="another folder"):
        boot(**second, store=tmp_path)


@pytest.mark.parametrize("kind", [{"weight": torch.tensor([1.0, 5.0, 1.0]).double()}, {"label_smoothing": 0.2}])
def test_a_store_tells_losses_of_one_class_apart(kind, tmp_path):
    boot(loss=nn.CrossEntropyLoss(), store=tmp_path)
    with pytest.raises(ValueError, match="another folder"):
        boot(loss=nn.CrossEntropyLoss(**kind), store=tmp_path)


def test_a_store_grows(tmp_path):
    few = boot(store=tmp_path, n_models=4, chunk=2)
    times = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.safetensors")}
    many = boot(store=tmp_path, n_models=7, chunk=2)
    assert same_bits(few, many.keep(slice(4))) and same_bits(many, boot(n_models=7, chunk=2))
    assert all((tmp_path / name).stat().st_mtime_ns == at for name, at in times.items())


def damage(kind, first, second):
    whole = first.read_bytes()
    if kind == "short":
        first.write_bytes(whole[:-9])
    elif kind == "empty":
        first.write_bytes(b"")
    elif kind == "flipped":
        first.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    else:
        first.write_bytes(second.read_bytes())


@pytest.mark.parametrize("kind", ["short", "empty", "flipped", "copied"])
def test_damaged_chunks_are_refused(kind, tmp_path):
    boot(store=tmp_path, n_models=4, chunk=2)
    damage(kind, *sorted(tmp_path.glob("*.safetensors")))
    with pytest.raises(ValueError, match="chunk-00000"):
        boot(store=tmp_path, n_models=4, chunk=2)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"digest": 1}'])
def test_a_damaged_note_of_a_store_is_refused(content, tmp_path):
    boot(store=tmp_path)
    (tmp_path / "bootstrap.json").write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        boot(store=tmp_path)


def test_a_store_keeps_half_precision(tmp_path):
    model, data = net().bfloat16(), (X.bfloat16(), Y)
    assert same_bits(boot(model, data, store=tmp_path), boot(model, data, store=tmp_path))


def test_threads_of_python_give_the_same_bits():
    """Dropout draws from the stream of torch, which all threads share: chunks take it in turns and give it back."""
    import joblib

    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    before = torch.random.get_rng_state()
    alone = boot(model, n_models=12, chunk=1, epochs=4)
    with joblib.parallel_config("threading", n_jobs=4):
        for _ in range(3):  # a race is not lost every time
            assert same_bits(alone, boot(model, n_models=12, chunk=1, epochs=4))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_members_near_a_loss_of_zero_all_count():
    """Where the data are met exactly, losses are rounding errors of any ratio, and none is a failure."""
    exact = X @ ms.normal(4, 1, seed=7)
    model = nn.Linear(4, 1).double()
    with torch.no_grad():
        model.weight.copy_(ms.normal(4, 1, seed=7).T), model.bias.zero_()
    members = boot(model, (X, exact), F.mse_loss, n_models=30, epochs=30)
    assert len(members) == 30


class Attends(nn.Module):
    """Projections that torch draws in `_reset_parameters`, and a parameter that only its constructor draws."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.free = nn.Parameter(ms.normal(4, seed=8).float())
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        x = x[:, None] * self.free
        return self.last(self.attention(x, x, x)[0][:, 0])


@pytest.mark.filterwarnings("ignore:.*free.*:RuntimeWarning")
def test_independent_starts_differ_in_every_parameter():
    starts = ms.train_ensemble(
        Attends(), (X.float(), Y), F.cross_entropy, 3, init="independent", epochs=0, generator=ms.seeded(0)
    )
    for name in ("attention.in_proj_weight", "free", "last.weight"):
        assert starts.parameters[name].std(0).min() > 0, name

    def drawn(model):
        nn.init.uniform_(model.last.bias, 5, 6)

    own = ms.train_ensemble(Attends(), (X.float(), Y), F.cross_entropy, 3, init=drawn, epochs=0, generator=ms.seeded(0))
    assert own.parameters["last.bias"].min() >= 5 and own.parameters["last.bias"].std(0).min() > 0


def test_a_network_that_cannot_be_aligned_is_refused_before_training():
    with pytest.raises(ValueError, match="align=None"):
        boot(Attends(), (X.float(), Y), init="independent", epochs=10**9)


@pytest.mark.parametrize("inner", ["lstm", "dropout"])
def test_a_parameter_that_nothing_reads_is_no_trouble(inner):
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.never = nn.Linear(2, 2)
            self.inner = nn.LSTM(1, 4, batch_first=True) if inner == "lstm" else nn.Sequential(nn.Dropout(0.2))
            self.last = nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.inner(x[..., None])[0][:, -1] if inner == "lstm" else self.inner(x))

    model = Unused().double()
    members = boot(model)
    assert (members.parameters["never.weight"] == model.never.weight).all()
    assert members.parameters["last.weight"].std(0).min() > 0


def test_images_whose_channels_lie_last_in_memory():
    images = ms.normal(20, 2, 5, 5, seed=9).to(memory_format=torch.channels_last)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)).double()
    model = model.to(memory_format=torch.channels_last)
    loss = lambda out, t: F.cross_entropy(out, t) + 0.1 * out.square().mean()  # noqa: E731
    plain = model.to(memory_format=torch.contiguous_format)
    for method in (partial(ms.refine, tolerance=1e-4), partial(ms.fit, epochs=2)):
        a, b = (method(m, (x, Y[:20]), loss) for m, x in ((model, images), (plain, images.contiguous())))
        assert torch.isfinite(a[0].weight).all() and a[0].weight.shape == b[0].weight.shape


def test_arrays_and_whole_targets_of_numpy():
    fitted = ms.fit(net(), (X.numpy(), Y.numpy().astype(np.int32)), F.cross_entropy, epochs=1, generator=ms.seeded(0))
    same = ms.fit(net(), (X, Y), F.cross_entropy, epochs=1, generator=ms.seeded(0))
    assert torch.equal(fitted[0].weight, same[0].weight)
