"""What mspace reads in other people's modules: weights that hooks make, tensors left by a pass, wiring that is not shown."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import mspace as ms
from mspace.network.hooks import seen
from mspace.network.modules import copied, is_parametrized

# networks as they are drawn, which stand at no minimum: what is computed of them is checked, not believed
pytestmark = pytest.mark.filterwarnings("ignore:the network is not at a minimum", "ignore:.*the data do not determine")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# -- weights that hooks make --------------------------------------------------------------------------


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.3)
    prune.random_unstructured(layer, "weight", amount=0.2)  # twice, which torch keeps as a container
    return layer


def weight_normed(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


MAKERS = {"prune": pruned, "weight_norm": weight_normed, "spectral_norm": nn.utils.spectral_norm}


@pytest.fixture(params=MAKERS)
def made(request):
    """A network whose first layer has weights that a hook makes, changed after its last pass."""
    torch.manual_seed(0)
    net = nn.Sequential(MAKERS[request.param](nn.Linear(4, 8)), nn.Tanh(), nn.Linear(8, 3)).double()
    net(noise(5, 4))
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1
    return net


def used(net):
    """The weight that a pass in evaluation mode uses."""
    net = copied(net).eval()
    net(noise(5, 4))
    return net[0].weight.detach()


def test_a_weight_made_by_a_hook_is_that_of_the_next_pass(made):
    before = made[0].weight
    assert not torch.equal(ms.weight_of(made, "0"), before)  # which still holds what the last pass has made
    assert torch.equal(ms.weight_of(made, "0"), used(made))
    assert made[0].weight is before


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch loops over members for the old weight_norm
def test_ensembles_of_networks_with_made_weights_vary(made):
    x, y = noise(60, 4), torch.arange(60) % 3
    ensemble = ms.bootstrap(made, (x, y), F.cross_entropy, n_models=4, epochs=2, generator=seeded())
    assert torch.equal(ensemble.samples("0"), torch.stack([used(m) for m in ensemble]))
    assert ensemble.neurons("0").total_variance.sum() > 0


def test_a_posterior_goes_through_the_hook(made):
    x, y = noise(60, 4), torch.arange(60) % 3
    posterior = ms.sandwich(made, (x, y), F.cross_entropy, damping=0.1)
    assert torch.allclose(posterior.neurons("0").mean, used(made))
    assert posterior.neurons("0").total_variance.sum() > 0


def test_compressed_layers_have_ordinary_weights(made):
    everything = ms.prune(ms.rows_of(made, "0"), range(8))
    small = ms.compress(made, "0", everything, "2")
    x = noise(5, 4, seed=1)
    assert torch.allclose(small(x), copied(made).eval()(x)) and isinstance(small[0].weight, nn.Parameter)
    assert is_parametrized(made[0]) and not is_parametrized(small[0])


def test_a_pruned_bias_and_a_pruned_convolution():
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    prune.l1_unstructured(net[0], "bias", amount=2)
    prune.ln_structured(net[0], "weight", amount=1, n=2, dim=0)
    with torch.no_grad():
        net[0].bias_orig += 1
        net[0].weight_orig += 1
    rows = ms.rows_of(net, "0")
    assert (rows[:, -1] == 0).sum() == 2 and (rows[:, :-1] == 0).all(1).sum() == 1
    x = noise(3, 1, 5)
    assert torch.allclose(ms.compress(net, "0", ms.prune(rows, range(4)), "3", calibration=x)(x), net(x))


def test_a_hook_of_ones_own_that_may_make_a_weight_is_refused():
    net = nn.Sequential(nn.Linear(4, 2))
    w = net[0].weight.detach().clone()
    del net[0].weight
    net[0].raw = nn.Parameter(w)
    net[0].weight = w
    net[0].register_forward_pre_hook(lambda m, _: setattr(m, "weight", m.raw**2))
    with pytest.raises(ValueError, match=r"weight that is no parameter.*parametrize"):
        ms.weight_of(net, "0")


# -- copies -------------------------------------------------------------------------------------------


class Keeps(nn.Module):
    """Keeps what it has computed, as many networks do to be looked at."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(4, 3).double(), nn.Linear(3, 3).double()
        self.tied = [self.layer.weight]

    def forward(self, x):
        self.seen = {"hidden": [self.layer(x)]}
        return self.out(self.seen["hidden"][0].tanh())


def test_networks_that_keep_what_they_compute_can_be_copied():
    net = Keeps()
    net(noise(5, 4))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(net)
    twin = copied(net)
    assert torch.equal(twin.seen["hidden"][0], net.seen["hidden"][0]) and twin.tied[0] is twin.layer.weight
    ensemble = ms.bootstrap(net, (noise(40, 4), torch.arange(40) % 3), F.cross_entropy, n_models=2, epochs=1)
    assert ensemble[0](noise(5, 4)).shape == ensemble(noise(5, 4))[0].shape
    assert copied(ensemble.template) is not None  # whose last pass was a batched one


# -- wiring that is seen in a pass --------------------------------------------------------------------


class Wired(nn.Module):
    """Four units `a` between inputs and the readers `b` and `c`, joined by a function."""

    def __init__(self, join, readers=4, first=None):
        super().__init__()
        self.a, self.join = first or nn.Linear(4, 4), join
        self.b, self.c = nn.Linear(readers, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.join(self, x, self.a(x).relu())


WRONG = {
    "concatenated": Wired(lambda s, x, h: s.b(torch.cat([h, h], 1)), 8),
    "residual": Wired(lambda s, x, h: s.b(x + h)),
    "two readers": Wired(lambda s, x, h: s.b(h) + s.c(h)),
    "read without a layer": Wired(lambda s, x, h: s.b(h) + h.sum(1, keepdim=True)),
    "in another order": Wired(lambda s, x, h: s.b(h.mT.flatten(1)), 20, nn.Conv1d(1, 4, 3, padding=1)),
}


@pytest.mark.parametrize("keep", [[0, 1], [1]])  # one unit would be spread over four
@pytest.mark.parametrize("case", WRONG)
def test_wiring_that_does_not_fit_is_refused_without_data(case, keep):
    net = WRONG[case]
    with pytest.raises(ValueError, match=r"^feeds .*reads? "):
        ms.compress(net, "a", ms.prune(ms.rows_of(net, "a"), keep), "b")


@pytest.mark.parametrize(
    "net",
    [
        Wired(lambda s, x, h: s.b(h)),
        Wired(lambda s, x, h: s.b(h) + s.c(x)),  # the residual passes by
        Wired(lambda s, x, h: s.b(h.flatten(1)), 4 * 28 * 28, nn.Conv2d(1, 4, 3, padding=1)),
        Wired(lambda s, x, h: s.b(h.mean(1)), 4, nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 4))),
    ],
)
def test_wiring_that_fits_is_reduced_without_data(net):
    layer = "a" if not isinstance(net.a, nn.Sequential) else "a.1"
    small = ms.compress(net, layer, ms.prune(ms.rows_of(net, layer), [0, 2]), "b")
    assert small.b.in_features == net.b.in_features // 2


def test_wiring_that_cannot_be_seen_needs_calibration():
    net = Wired(lambda s, x, h: s.b(h["key"]))
    with pytest.raises(ValueError, match="calibration must be given"):
        ms.compress(net, "a", ms.prune(ms.rows_of(net, "a"), [0, 1]), "b")


def test_hooks_hide_what_a_sequence_computes():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    net[1].register_forward_hook(lambda m, i, out: out * torch.arange(4))
    with pytest.raises(ValueError, match="feeds must"):
        ms.compress(net, "0", ms.prune(ms.rows_of(net, "0"), [0, 1]), "2")
    with pytest.raises(ValueError, match="hooks"):
        ms.align(ms.Ensemble.of([net, net]))


def test_what_was_seen_is_not_written_over():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = x + 0
            h += self.a(h)
            return self.b(h)

    x = torch.randn(5, 4, generator=seeded())
    assert torch.equal(seen(Adds(), ["a", "b"], x)["a"].input, x)


@pytest.mark.parametrize("case", ["residual", "two readers"])
def test_neurons_that_others_read_cannot_be_dropped(case):
    net = WRONG[case]
    x = torch.randn(30, 4, generator=seeded())
    posterior = ms.laplace(net, (x, torch.arange(30) % 2), F.cross_entropy)
    with pytest.raises(ValueError, match=r"^feeds .*reads? "):
        ms.drop_neurons(posterior, "a", "b", [0, 1])


def test_calibration_is_left_as_it_is():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    x = torch.randn(40, 4, generator=seeded())
    before = x.clone()
    ms.compress(net, "1", ms.prune(ms.rows_of(net, "1"), range(4)), "3", calibration=x)
    ms.compress(net, "1", ms.prune(ms.rows_of(net, "1"), range(4)), "3", calibration=x[:1].expand(20, 4))
    assert torch.equal(x, before)


def test_units_that_depend_on_each_other_are_not_reduced_alone():
    net = nn.Sequential(nn.Linear(4, 6), nn.Softmax(-1), nn.Linear(6, 2))
    with pytest.raises(ValueError, match="one by one, got Softmax"):
        ms.compress(net, "0", ms.prune(ms.rows_of(net, "0"), range(4)), "2")


@pytest.mark.parametrize("wrong", [None, 3, "net", nn.Linear])
@pytest.mark.parametrize("call", [lambda m: ms.weight_of(m, "0"), lambda m: ms.rows_of(m, "0")])
def test_what_is_no_network_is_refused(call, wrong):
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module, got"):
        call(wrong)


@pytest.mark.parametrize("wrong", [None, "net", nn.Linear(2, 2), [nn.Linear(2, 2)] * 2])
def test_what_cannot_be_aligned_is_refused(wrong):
    with pytest.raises(ValueError, match="samples must be an array of real numbers, got"):
        ms.align(wrong)
