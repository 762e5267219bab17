"""The one door: what it lets through unchanged, and what it refuses before any work, each time with the way out."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mspace as ms
from mspace.door import checked

X = ms.normal(60, 4, seed=1)
Y = torch.randint(3, (60,), generator=ms.seeded(2))


def net(outputs=3, inputs=4):
    model = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs)).double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(ms.normal(*p.shape, seed=10 + i))
    return model


class Writes(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x):
        x -= 5.0
        return self.layer(x)


class Centred(Writes):
    def forward(self, x):
        return self.layer(x - x.mean(0))


class Noisy(Writes):
    def forward(self, x):
        return self.layer(x) + torch.randn(len(x), 3)


class Table(nn.Module):
    """A tensor of float32 that is no buffer stays behind when the network is doubled."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = torch.randn(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x @ self.table)


def weighted(dtype=torch.float64):
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 20.0], dtype=dtype))


def test_what_is_right_passes_as_it_is():
    model = net()
    given = checked(model, (X, Y), F.cross_entropy, curved=True)
    assert given.model is model and given.loss is F.cross_entropy and given.mean
    assert given.data[0].data_ptr() == X.data_ptr() and given.data[1].data_ptr() == Y.data_ptr()
    assert set(given.target.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("net", "Module"),
        (nn.Linear, "instance"),
        (nn.ReLU(), "parameters"),
        (nn.LazyLinear(3), "forward"),
        (nn.DataParallel(nn.Linear(4, 3)), "made of"),
        (nn.ParameterList([nn.Parameter(torch.zeros(3, dtype=torch.complex64))]), "real"),
        (nn.Linear(4, 3, device="meta"), "meta"),
        (nn.Linear(4, 3).double().requires_grad_(False), "requires_grad"),
        (nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double(), "GroupNorm"),
        (Centred(), "batch"),
        (Noisy(), "self.training"),
        (nn.LSTM(4, 3).double(), "output=0"),
    ],
)
def test_models_that_are_refused(model, word):
    x = X[:, None].expand(-1, 5, -1) if isinstance(model, nn.LSTM) else X
    with pytest.raises(ValueError, match="model") as error:
        checked(model, (x, Y), F.cross_entropy)
    assert word in str(error.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_module_is_refused():
    with pytest.raises(ValueError, match="made of"):
        checked(torch.jit.trace(nn.Linear(4, 3).double(), X), (X, Y), F.cross_entropy)


def test_parameters_that_are_not_finite_are_named():
    model = net()
    model[2].bias.data[1] = float("nan")
    with pytest.raises(ValueError, match=r"2\.bias"):
        checked(model, (X, Y), F.cross_entropy)


ROOT = "paired"


@pytest.mark.parametrize(
    ("loss", "word"),
    [
        ("mse", "function"),
        (nn.CrossEntropyLoss, "instance"),
        (nn.CrossEntropyLoss(reduction="none"), "scalar"),
        (lambda o, t: F.cross_entropy(o, t, reduction="sum"), "same examples twice"),
        (lambda o, t: float(F.cross_entropy(o, t)), "float"),
        (lambda o, t: F.cross_entropy(t, o), "outputs"),
        (lambda o, t: F.cross_entropy(o, t) + torch.rand(()), "random"),
        (lambda o, t: F.cross_entropy(o + torch.randn_like(o), t), "random"),
        (lambda o, t: F.cross_entropy(o, t).sqrt(), ROOT),
        (lambda o, t: F.cross_entropy(o - o.mean(0), t), ROOT),
        (lambda o, t: F.cross_entropy(o, t) * float("nan"), "finite"),
        (lambda o, t: F.cross_entropy(o, t.clamp_(max=1)), "clone"),
        (weighted(), "reduction='none'"),
    ],
)
def test_losses_that_are_refused(loss, word):
    with pytest.raises(ValueError, match="loss") as error:
        checked(net(), (X, Y.clone()), loss)
    assert word in str(error.value)


@pytest.mark.parametrize("loss", [F.mse_loss, lambda o, t: (o - t).square().mean(), lambda o, t: (o - t).abs().mean()])
@pytest.mark.parametrize("mean", [True, False])
def test_targets_that_would_be_paired_with_every_output(loss, mean):
    with pytest.raises(ValueError, match="shape"):
        checked(net(1), (X, X[:, 0].clone()), loss, mean=mean)
    assert checked(net(1), (X, X[:, 0].clone()), lambda o, t: loss(o[:, 0], t), mean=mean).mean


def test_class_weights_and_ignored_targets_are_a_weighted_mean():
    ignored = Y.clone()
    ignored[::3] = -100
    assert not checked(net(), (X, Y), weighted(), mean=False).mean
    assert not checked(net(), (X, ignored), F.cross_entropy, mean=False).mean
    with pytest.raises(ValueError, match="ignored examples"):
        checked(net(), (X, ignored), F.cross_entropy)


@pytest.mark.parametrize("loss", [weighted(torch.float32), lambda o, t: weighted(torch.float32)(o, t)])
def test_class_weights_of_float32_where_the_method_is_in_double_precision(loss):
    given = checked(net().float(), (X.float(), Y), loss, double=True, mean=False)
    out = given.model(X)
    assert given.loss(out, Y).item() == pytest.approx(weighted()(out, Y).item(), rel=1e-6)


def test_a_class_that_occurs_once_is_seen():
    once = Y.clone()
    once[37] = 3
    with pytest.raises(ValueError, match="targets"):
        checked(net(), (X, once), F.cross_entropy)


@pytest.mark.parametrize("loss", [F.l1_loss, lambda o, t: torch.maximum(0.9 * (t - o), 0.1 * (o - t)).mean()])
def test_losses_without_curvature_in_the_outputs(loss):
    data = X, X[:, :1] + 0.1
    with pytest.raises(ValueError, match="curvature"):
        checked(net(1), data, loss, curved=True)
    assert checked(net(1), data, loss).mean
    logs = nn.Sequential(*net(), nn.LogSoftmax(1))
    with pytest.raises(ValueError, match="logits"):
        checked(logs, (X, Y), F.nll_loss, curved=True)


@pytest.mark.parametrize("loss", [F.huber_loss, lambda o, t: F.poisson_nll_loss(o, t)])
def test_losses_with_curvature_that_torch_does_not_name(loss):
    assert checked(net(1), (X, X[:, :1].abs()), loss, curved=True).mean


def test_a_network_that_writes_into_its_inputs_gets_copies():
    model, x = Writes(), X.clone()
    given = checked(model, (x, Y), F.cross_entropy)
    out = given.model(x)
    assert torch.equal(x, X) and torch.equal(out, model.layer(X - 5.0))
    assert list(dict(given.model.named_parameters())) == list(dict(model.named_parameters()))
    first = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).double()
    checked(first, (x, Y), F.cross_entropy).model(x)
    assert torch.equal(x, X)


def test_one_output_of_several():
    lstm = nn.LSTM(4, 3, batch_first=True).double()
    x = X[:, None].expand(-1, 5, -1)
    with pytest.raises(ValueError, match="output="):
        checked(lstm, (x, Y), F.cross_entropy)
    for output in (lambda o: o[0][:, -1], lambda o: o[1][0][0]):
        given = checked(lstm, (x, Y), F.cross_entropy, output=output)
        assert torch.allclose(given.model(x), lstm(x)[0][:, -1]) and given.out.shape == (8, 3)
    with pytest.raises(ValueError, match="model"):
        checked(lstm, (x, Y), F.cross_entropy, output="logits")


def test_arrays_take_the_type_of_the_network_and_targets_are_whole():
    given = checked(net().float(), (X.numpy(), Y.numpy().astype(np.uint8)), F.cross_entropy)
    assert given.data[0].dtype == torch.float32 and given.data[1].dtype == torch.int64
    assert checked(net(), (X, Y.byte()), F.cross_entropy).data[1].dtype == torch.int64
    with pytest.raises(ValueError, match=r"inputs.*float32"):
        checked(net().float(), (X, Y), F.cross_entropy)


def test_tensors_that_stay_behind_in_double_precision_are_explained():
    assert checked(Table(), (X.float(), Y), F.cross_entropy)
    with pytest.raises(ValueError, match="register_buffer"):
        checked(Table(), (X.float(), Y), F.cross_entropy, double=True)


def test_nothing_is_changed():
    model, x, y, state = net(), X.clone(), Y.clone(), torch.get_rng_state()
    model.train()
    before = copy.deepcopy(model.state_dict())
    checked(model, (x, y), F.cross_entropy, double=True, curved=True)
    assert torch.equal(x, X) and torch.equal(y, Y) and model.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
