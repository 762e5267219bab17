"""Training side by side is training one after another; every way of batching, and the door."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mspace.models import OrthogonalAutoencoder
from mspace.training import Ensemble, fit, member_seeds, train_ensemble
from mspace.training.dense import DenseStack
from mspace.training.loop import Batches, failures, stack_of
from mspace.training.options import TrainingOptions
from mspace.training.stacks import BatchedStack, LoopedStack


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def dense(*sizes, activation=nn.Tanh, seed=0):
    torch.manual_seed(seed)
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1]).double()


def regression(n=70, inputs=4, outputs=3):
    return noise(n, inputs), noise(n, outputs, seed=1)


class Branching(nn.Module):
    """A module that vmap cannot batch: it looks at its own numbers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3).double()

    def forward(self, x):
        y = self.first(x)
        return y if y.sum() > 0 else 2 * y


def plainly(model, data, loss, seed, *, epochs, batch_size=16, lr=1e-3, index=None):
    """The textbook loop that every ensemble must agree with, in the order that a member of that seed has."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    options = TrainingOptions(batch_size=batch_size)
    batches = Batches(len(data[0]), [seed], options, None if index is None else index[None])
    for _ in range(epochs):
        for i, _ in batches.epoch():
            optimizer.zero_grad()
            loss(model(data[0][i[0]]), data[1][i[0]]).backward()
            optimizer.step()
    return model


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.GELU])
def test_side_by_side_is_one_after_another(activation):
    """O4.0d, by hand (the first four) and by vmap (GELU), with a last batch that is not full."""
    import copy

    net, data = dense(4, 5, 6, 3, activation=activation), regression()
    ensemble = train_ensemble(net, data, F.mse_loss, 3, epochs=4, generator=seeded())
    for i, seed in enumerate(member_seeds(3, seeded())):
        alone = plainly(copy.deepcopy(net), data, F.mse_loss, seed, epochs=4)
        for name, value in alone.named_parameters():
            assert (ensemble.parameters[name][i] - value).abs().max() < 1e-10, name


def test_cross_entropy_by_hand_is_one_after_another():
    import copy

    net, x = dense(4, 8, 3, activation=nn.ReLU), noise(50, 4)
    y = torch.randint(3, (50,), generator=seeded())
    ensemble = train_ensemble(net, (x, y), F.cross_entropy, 2, epochs=5, generator=seeded())
    alone = plainly(copy.deepcopy(net), (x, y), F.cross_entropy, member_seeds(2, seeded())[1], epochs=5)
    assert all((ensemble.parameters[k][1] - v).abs().max() < 1e-10 for k, v in alone.named_parameters())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", ["mse", "cross entropy", "autoencoder"])
def test_three_ways_give_one_gradient(case, weighted):
    x = noise(40, 4)
    y = {"mse": noise(40, 3, seed=1), "cross entropy": torch.arange(40) % 3, "autoencoder": x}[case]
    loss = F.cross_entropy if case == "cross entropy" else F.mse_loss
    net = dense(4, 6, 4 if case == "autoencoder" else 3)
    stacked = {k: torch.stack([v, 2 * v, -v]).detach() for k, v in net.named_parameters()}
    index = torch.randint(40, (3, 7), generator=seeded())
    weight = torch.rand(3, 7, generator=seeded(), dtype=torch.float64) if weighted else None
    found = []
    for kind in (DenseStack, BatchedStack, LoopedStack):
        stack = kind(net, stacked, x, y, loss, **({"seeds": [1, 2, 3]} if kind is LoopedStack else {}))
        stack.gradient(index, weight)
        found.append(stack.named(stack.flat.grad))
        assert torch.allclose(stack.losses(x, y)[1], loss(Ensemble(net, stacked)[1](x), y))
    for other in found[1:]:
        assert all(torch.allclose(found[0][k], other[k], atol=1e-14) for k in other)


@pytest.mark.parametrize("last", [nn.Identity, nn.Tanh, nn.Sigmoid, nn.ReLU])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(5, 2, 6, 6, 3), (3, 7, 2, 4), (4, 4)], ids=str)
@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy])
def test_every_layout_by_hand_is_autograd(sizes, bias, last, loss):
    """Layers that narrow, widen and keep their width, before and after each other, on batches of two sizes."""
    torch.manual_seed(0)
    pairs = itertools.pairwise(sizes)
    layers = [m for a, b in pairs for m in (nn.Linear(a, b, bias=bias), nn.ReLU())]
    net = nn.Sequential(*layers[:-1], last()).double()
    x = noise(30, sizes[0])
    y = noise(30, sizes[-1], seed=1) if loss is F.mse_loss else torch.arange(30) % sizes[-1]
    stacked = {k: noise(3, *v.shape, seed=i) for i, (k, v) in enumerate(net.named_parameters())}
    stack = DenseStack(net, stacked, x, y, loss)
    assert all(torch.equal(v, stacked[k]) and v.is_contiguous() for k, v in stack.parameters().items())
    for batch in (7, 1, 7):
        index = torch.randint(30, (3, batch), generator=seeded(batch))
        stack.flat.grad.fill_(torch.nan)
        stack.gradient(index)
        for i in range(3):
            member = Ensemble(net, stacked)[i]
            loss(member(x[index[i]]), y[index[i]]).backward()
            for k, v in member.named_parameters():
                assert torch.allclose(stack.named(stack.flat.grad)[k][i], v.grad, atol=1e-14), k


def test_the_default_optimizer_is_adam_bit_for_bit():
    net, data = dense(4, 5, 3), regression()
    short, public = (
        train_ensemble(net, data, F.mse_loss, 2, epochs=3, generator=seeded(), optimizer=o)
        for o in (None, partial(torch.optim.Adam, lr=1e-3, fused=True))
    )
    assert all(torch.equal(short.parameters[k], public.parameters[k]) for k in short.parameters)


def test_a_parameter_that_nothing_uses_stays_where_it_was():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(4, 3).double(), nn.Parameter(torch.ones(2).double())

        def forward(self, x):
            return self.used(x)

    ensemble = train_ensemble(Spare(), regression(), F.mse_loss, 2, epochs=1, generator=seeded())
    assert torch.equal(ensemble.parameters["spare"], torch.ones(2, 2).double())
    assert (ensemble.parameters["used.weight"][0] != ensemble.parameters["used.weight"][1]).any()


def test_the_right_way_is_chosen():
    data = regression()
    stacked = lambda net: {k: v.detach()[None] for k, v in net.named_parameters()}  # noqa: E731

    def chosen(net, y=data[1], loss=F.mse_loss):
        return type(stack_of(net, stacked(net), data[0], y, loss, [0]))

    net = dense(4, 5, 3)
    assert chosen(net) is DenseStack
    assert chosen(net, loss=nn.MSELoss()) is DenseStack
    assert chosen(net, loss=F.l1_loss) is chosen(net, loss=nn.MSELoss(reduction="sum")) is BatchedStack
    classes = torch.arange(70) % 3
    assert chosen(net, classes, nn.CrossEntropyLoss()) is DenseStack
    assert chosen(net, classes, nn.CrossEntropyLoss(label_smoothing=0.1)) is BatchedStack
    assert chosen(dense(4, 5, 3, activation=nn.GELU)) is BatchedStack
    assert chosen(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double()) is LoopedStack
    assert chosen(Branching()) is LoopedStack


@pytest.mark.parametrize("kind", [nn.Identity, Branching])
def test_a_parameter_that_forward_does_not_use_stays_as_it_is(kind):
    """Batched and looped: nothing asks a gradient of what is not in the graph."""

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.kind = nn.Linear(4, 4).double(), kind()
            self.idle = nn.Parameter(torch.ones(5, dtype=torch.float64))

        def forward(self, x):
            return self.kind(self.first(x))[:, :3]

    net = fit(Idle(), regression(), F.mse_loss, epochs=2)
    assert torch.equal(net.idle, torch.ones(5, dtype=torch.float64))


def test_what_cannot_be_batched_is_trained_in_a_loop():
    import copy

    torch.manual_seed(0)
    net, data = Branching(), regression()
    ensemble = train_ensemble(net, data, F.mse_loss, 2, epochs=2, generator=seeded())
    alone = plainly(copy.deepcopy(net), data, F.mse_loss, member_seeds(2, seeded())[1], epochs=2)
    assert all((ensemble.parameters[k][1] - v).abs().max() < 1e-10 for k, v in alone.named_parameters())


@pytest.mark.parametrize("init", ["shared", "independent"])
def test_a_member_does_not_depend_on_how_many_follow(init):
    net, data = dense(4, 5, 3), regression()
    few, many = (train_ensemble(net, data, F.mse_loss, n, init=init, epochs=2, generator=seeded(7)) for n in (3, 6))
    for name in few.parameters:
        assert (few.parameters[name] - many.parameters[name][:3]).abs().max() < 1e-12
    assert (many.samples("0")[0] - many.samples("0")[1]).abs().max() > 1e-4, "members must differ"


def test_independent_members_have_starting_frames_of_their_own():
    """An orthonormal weight starts from a buffer, so members need their own; trained, each is as if alone."""
    net, x = OrthogonalAutoencoder(4, 2, generator=seeded()).double(), regression()[0]
    start, end = (
        train_ensemble(net, (x, x), F.mse_loss, 3, init="independent", epochs=e, generator=seeded()) for e in (0, 2)
    )
    assert (start.samples("encoder").std(0) > 0.01).all() and (start.samples("decoder").std(0) > 0.01).all()
    frames = end.samples("encoder")
    assert (frames @ frames.mT - torch.eye(2).double()).abs().max() < 1e-12
    alone = train_ensemble(net, (x, x), F.mse_loss, 1, init="independent", epochs=2, generator=seeded())
    assert (frames[0] - alone.samples("encoder")[0]).abs().max() < 1e-12
    assert (end.report["loss"] - (end(x) - x).square().mean((1, 2))).abs().max() < 1e-12


def test_dropout_too_and_the_global_stream_is_left_alone():
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3)).double()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    few, many = (train_ensemble(net, regression(), F.mse_loss, n, epochs=2, generator=seeded()) for n in (1, 3))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (few.parameters["0.weight"][0] - many.parameters["0.weight"][0]).abs().max() < 1e-12
    alike = train_ensemble(net, regression(), F.mse_loss, 2, epochs=1, order="shared", generator=seeded())
    assert (alike.parameters["0.weight"][0] - alike.parameters["0.weight"][1]).abs().max() > 1e-4, "one dropout for all"


def test_resampled_members_see_their_own_data():
    import copy

    net, data = dense(4, 5, 3), regression()
    drawn = torch.randint(70, (2, 70), generator=seeded())
    ensemble = train_ensemble(net, data, F.mse_loss, 2, epochs=3, resample=drawn, generator=seeded())
    alone = plainly(copy.deepcopy(net), data, F.mse_loss, member_seeds(2, seeded())[1], epochs=3, index=drawn[1])
    assert (ensemble.parameters["0.weight"][1] - alone[0].weight).abs().max() < 1e-10


def test_weights_count_examples():
    """Integer weights do what repeating the examples does, on the full batch."""
    net, (x, y) = dense(4, 5, 3), regression(30)
    count = torch.randint(4, (1, 30), generator=seeded())
    options = {"epochs": 20, "optimizer": partial(torch.optim.SGD, lr=0.1), "order": "shared"}
    weights = count.double() / count.double().mean()
    weighted = train_ensemble(net, (x, y), F.mse_loss, 1, weights=weights, batch_size=30, **options)[0]
    repeated = torch.arange(30).repeat_interleave(count[0])[None]
    copied = train_ensemble(net, (x, y), F.mse_loss, 1, resample=repeated, batch_size=int(count.sum()), **options)[0]
    assert (weighted[0].weight - copied[0].weight).abs().max() < 1e-12


def test_nothing_is_changed_in_place():
    net, data = dense(4, 5, 3).eval(), regression()
    before = {k: v.clone() for k, v in net.state_dict().items()}, [d.clone() for d in data]
    trained = fit(net, data, F.mse_loss, epochs=2, generator=seeded())
    assert all(torch.equal(v, before[0][k]) for k, v in net.state_dict().items()) and not net.training
    assert all(torch.equal(a, b) for a, b in zip(data, before[1])) and not trained.training
    assert (trained[0].weight - net[0].weight).abs().max() > 0


def test_each_member_keeps_its_best_on_held_out_data():
    net, data = dense(4, 30, 3), regression(20)
    held = noise(40, 4, seed=5), noise(40, 3, seed=6)
    options = {"epochs": 60, "validation": held, "optimizer": partial(torch.optim.Adam, lr=0.02)}
    patient = train_ensemble(net, data, F.mse_loss, 3, patience=5, generator=seeded(), **options)
    assert (patient.report["epochs"] < 50).all()
    for i in range(3):
        assert torch.isclose(F.mse_loss(patient[i](held[0]), held[1]), patient.report["validation"][i])
        best = int(patient.report["epochs"][i])
        stopped = options | {"epochs": best, "validation": None}
        short = train_ensemble(net, data, F.mse_loss, 3, generator=seeded(), **stopped)
        assert (short.parameters["0.weight"][i] - patient.parameters["0.weight"][i]).abs().max() < 1e-12
    alone = train_ensemble(net, data, F.mse_loss, 1, patience=5, generator=seeded(), **options)
    assert (alone.parameters["0.weight"][0] - patient.parameters["0.weight"][0]).abs().max() < 1e-12


def test_progress_wraps_the_epochs():
    seen = []
    fit(dense(4, 3), regression(), F.mse_loss, epochs=3, progress=lambda it: (seen.append(i) or i for i in it))
    assert seen == [0, 1, 2]


def test_failures_are_told():
    assert failures(torch.tensor([1.0, 1.1, 0.9, 3.5, float("nan")])).tolist() == [False, False, False, True, True]
    with pytest.raises(ValueError, match="diverged"):
        fit(dense(4, 3), regression(), F.mse_loss, epochs=60, optimizer=partial(torch.optim.SGD, lr=1e6))


def test_windows_are_trained_on_without_a_copy():
    from mspace.series import windows

    x = windows(noise(300), 10)
    net = dense(10, 3, 10, activation=nn.ReLU)
    stack = stack_of(net, {k: v.detach()[None] for k, v in net.named_parameters()}, x, x, F.mse_loss, [0])
    assert stack.x.untyped_storage().nbytes() == 300 * 8
    assert fit(net, (x, x), F.mse_loss, epochs=1)(x).shape == x.shape


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": (noise(5, 4), noise(4, 3))}, "5 inputs and 4 targets"),
        ({"data": (noise(0, 4), noise(0, 3))}, "at least one"),
        ({"data": noise(5, 4)}, "pair .inputs, targets."),
        ({"data": (noise(5, 4) * torch.nan, noise(5, 3))}, "NaN or infinity in the inputs"),
        ({"data": (noise(5, 3), noise(5, 3))}, "does not fit inputs"),
        ({"loss": lambda a, b: (a - b) ** 2}, "scalar"),
        ({"n_models": 0}, "n_models"),
        ({"epochs": -1}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"init": "random"}, "shared, independent"),
        ({"order": "none"}, "own, shared"),
        ({"patience": 3}, "needs validation"),
        ({"resample": torch.full((2, 9), 70)}, "indices of examples from 0 to 69"),
        ({"weights": torch.ones(2, 9)}, r"weights must be \(2, 70\)"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS mixes parameters"),
        ({"seeds": [1]}, "one for each member"),
        ({"model": nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).double()}, "GroupNorm"),
        (
            {"model": nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double(), "batch_size": 23},
            "batch of one example",
        ),
        ({"model": nn.Identity()}, "no parameters"),
    ],
)
def test_bad_input_is_refused_before_training(change, said):
    options = {
        "model": dense(4, 5, 3),
        "data": regression(),
        "loss": F.mse_loss,
        "n_models": 2,
        "epochs": 10**9,
    } | change
    with pytest.raises(ValueError, match=said):
        train_ensemble(
            options.pop("model"), options.pop("data"), options.pop("loss"), options.pop("n_models"), **options
        )


def test_dense_networks_with_batch_normalisation_are_batched():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    state = net.named_parameters(), net.named_buffers()
    parameters, buffers = ({k: v.detach().expand(2, *v.shape).clone() for k, v in named} for named in state)
    assert type(stack_of(net, parameters, *regression(), F.mse_loss, [0, 1], buffers)) is BatchedStack


def test_instance_normalisation_gathers_for_each_member():
    shape = nn.Unflatten(1, (1, 4)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten()
    net, data = nn.Sequential(*shape, *dense(4, 3)).double(), regression()
    found = train_ensemble(net, data, F.mse_loss, 2, epochs=2, seeds=[1, 2])
    assert torch.allclose(found.report["loss"], torch.stack([F.mse_loss(o, data[1]) for o in found(data[0])]))
    assert (found.buffers["1.running_var"] != 1).all()
    assert torch.allclose(train_ensemble(net, data, F.mse_loss, 1, epochs=2, seeds=[2])(data[0])[0], found(data[0])[1])


@pytest.mark.parametrize("twice", ["activation", "layer"])
def test_a_module_used_twice_is_used_twice(twice):
    act, same = nn.ReLU(), nn.Linear(4, 4)
    rest = [nn.Linear(4, 4), act] if twice == "activation" else [same, nn.ReLU()]
    net = nn.Sequential(same, act, *rest, nn.Linear(4, 2)).double()
    plain = nn.Sequential(*[nn.Sequential(m) for m in net])  # never taken for a dense stack
    x, y = torch.randn(32, 4).double(), torch.randn(32, 2).double()
    options = {"epochs": 3, "seeds": [1]}
    ours = train_ensemble(net, (x, y), F.mse_loss, 1, **options)[0]
    theirs = train_ensemble(plain, (x, y), F.mse_loss, 1, **options)[0]
    assert torch.allclose(ours(x), theirs(x), atol=1e-10)


def test_failures_of_losses_that_can_be_negative():
    loss = torch.tensor([-2.0, -2.1, -1.9, -2.05, 40.0, float("nan")])
    assert failures(loss).tolist() == [False] * 4 + [True] * 2
    assert failures(torch.tensor([1.0, 1.1, 3.4, 0.9])).tolist() == [False, False, True, False]
    assert not failures(torch.full((5,), -1.0)).any()
    assert failures(torch.full((3,), float("inf"))).all()


def test_targets_that_would_be_paired_with_every_answer():
    net, x = nn.Linear(4, 1), torch.zeros(6, 4)
    for loss in (F.mse_loss, nn.L1Loss()):
        with pytest.raises(ValueError, match=r"targets must have the shape of the outputs, .*\(6,\)"):
            fit(net, (x, torch.zeros(6)), loss)
        fit(net, (x, torch.zeros(6, 1)), loss, epochs=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generator": 0}, r"generator must be a torch.Generator on the CPU, such as seeded\(0\), or None, got 0"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=0.1)}, "optimizer must be a function .*, got SGD"),
        ({"data": ([[0.0] * 4] * 6, [[0.0]] * 6)}, r"got \(list, list\): see torch.as_tensor"),
        ({"data": (torch.zeros(6, 4).double(), torch.zeros(6, 1))}, r"inputs .*dtype.*float32"),
    ],
)
def test_what_is_near_but_not_right_is_told(options, said):
    options = {"data": (torch.zeros(6, 4), torch.zeros(6, 1)), **options}
    with pytest.raises(ValueError, match=said):
        fit(nn.Linear(4, 1), loss=F.mse_loss, **options)


class Twofold(nn.Module):
    """Takes two inputs, as positions or as keywords, and gives two outputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3).double(), nn.Linear(2, 3).double()

    def forward(self, a, b):
        h = torch.tanh(self.left(a) + self.right(b))
        return h, {"sum": h.sum(1, keepdim=True)}


class Packed(Twofold):
    """The same with everything in one tensor."""

    def forward(self, x):
        h, other = super().forward(*x.split([4, 2], 1))
        return torch.cat([h, other["sum"]], 1)


def two_losses(out, target):
    return F.mse_loss(out[0], target[0]) + F.l1_loss(out[1]["sum"], target[1])


def packed_losses(out, target):
    return F.mse_loss(out[:, :3], target[:, :3]) + F.l1_loss(out[:, 3:], target[:, 3:])


def several(n=50):
    """A module with several inputs, its data as positions and as keywords, and both packed."""
    torch.manual_seed(0)
    net, packed = Twofold(), Packed()
    packed.load_state_dict(net.state_dict())
    a, b, targets = noise(n, 4), noise(n, 2, seed=1), (noise(n, 3, seed=2), noise(n, 1, seed=3))
    data = ((a, b), targets), ({"b": b, "a": a}, targets)
    return net, data, packed, (torch.cat([a, b], 1), torch.cat(targets, 1))


@pytest.mark.parametrize("kind", ["positions", "keywords"])
@pytest.mark.parametrize("options", [{}, {"weights": True}, {"validation": True, "patience": 2}], ids=str)
def test_several_inputs_and_targets_train_as_if_packed(kind, options):
    net, data, packed, one = several()
    data = data[kind == "keywords"]
    counted = torch.rand(2, 50, generator=seeded(4), dtype=torch.float64)
    weights = {"weights": counted / counted.mean(1, keepdim=True)} if "weights" in options else {}
    ours, theirs = (
        train_ensemble(
            *call,
            2,
            epochs=3,
            generator=seeded(),
            **options | weights | ({"validation": call[1]} if "patience" in options else {}),
        )
        for call in ((net, data, two_losses), (packed, one, packed_losses))
    )
    for name, value in theirs.parameters.items():
        assert (ours.parameters[name] - value).abs().max() < 1e-12, name
    assert torch.allclose(ours.report["loss"], theirs.report["loss"])
    assert torch.allclose(torch.cat([ours(data[0])[0], ours(data[0])[1]["sum"]], 2), theirs(one[0]))


def test_several_inputs_in_a_loop_and_in_fit():
    """Dropout goes one by one; without a share dropped it is what the batched way gives."""

    class Dropped(Twofold):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(1e-300)

        def forward(self, a, b):
            return super().forward(self.drop(a), b)

    net, data, *_ = several()
    other = Dropped()
    other.load_state_dict(net.state_dict())
    ours, theirs = (fit(m, data[0], two_losses, epochs=2, generator=seeded()) for m in (other, net))
    assert all(torch.allclose(p, q, atol=1e-12) for p, q in zip(ours.parameters(), theirs.parameters()))


def test_arrays_are_data():
    net, (x, y) = dense(4, 5, 3), regression()
    ours, theirs = (fit(net, d, F.mse_loss, epochs=2, generator=seeded()) for d in ((x.numpy(), y.numpy()), (x, y)))
    assert torch.equal(ours[0].weight, theirs[0].weight)
    classes = np.arange(70, dtype=np.int32) % 3
    fit(net, (x.numpy(), classes), F.cross_entropy, epochs=1)


@pytest.mark.parametrize("call", [fit, train_ensemble])
def test_a_misspelt_option_is_named_with_the_function_called(call):
    with pytest.raises(TypeError, match=rf"^{call.__name__}\(\) got an unexpected keyword argument 'epohcs'"):
        call(dense(4, 3), regression(), F.mse_loss, *([2] if call is train_ensemble else []), epohcs=3)


def test_bounds_are_kept_after_each_step():
    """Against a plain loop."""

    class Bound(nn.Linear):
        def keep_bounds(self, parameters):
            parameters["weight"].clamp_(-0.1, 0.1)

    torch.manual_seed(0)
    net, (x, y) = Bound(4, 3).double(), regression(20)
    found = fit(net, (x, y), F.mse_loss, epochs=30, batch_size=20)
    alone = Bound(4, 3).double()
    alone.load_state_dict(net.state_dict())
    optimizer = torch.optim.Adam(alone.parameters())
    for _ in range(30):
        optimizer.zero_grad()
        F.mse_loss(alone(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            alone.keep_bounds(dict(alone.named_parameters()))
    assert torch.allclose(found.weight, alone.weight, atol=1e-12) and found.weight.abs().max() == 0.1
