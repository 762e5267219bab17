"""An ensemble answers as its members do, its template stays as it was, and its file holds all or nothing."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

from mspace.neurons import NeuronDistribution, weight_of
from mspace.training import Ensemble


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def filled(model, seed):
    """The same architecture with other numbers, in parameters and in buffers that are not counters."""
    model, g = copy.deepcopy(model), seeded(seed)
    with torch.no_grad():
        for p in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            p.copy_(torch.rand(p.shape, generator=g) + 0.1)
    return model


class Last(nn.Module):
    """A recurrent network that answers with its last output."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x):
        return self.out(self.cell(x)[0][:, -1])


LIMIT = 16.0  # between the answers of the members below


class Branching(nn.Module):
    """Looks at its own numbers, which vmap cannot follow."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        y = self.layer(x)
        return y if y.sum() > LIMIT else -y


NETS = {
    "dense": (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (5, 4)),
    "dropout": (nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)), (5, 4)),
    "norm": (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (5, 4)),
    "conv": (nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9, 1)), (5, 2, 5)),
    "orthogonal": (nn.Sequential(orthogonal(nn.Linear(4, 2)), nn.Linear(2, 4)), (5, 4)),
    "recurrent": (Last(), (5, 6, 2)),
    "branching": (Branching(), (5, 4)),
}


@pytest.fixture(params=NETS)
def case(request):
    template, shape = NETS[request.param]
    members = [filled(template, seed) for seed in range(4)]
    return members, noise(*shape, seed=9)


def dense(n=4, dtype=torch.float32):
    return Ensemble.of([filled(NETS["dense"][0], seed).to(dtype) for seed in range(n)])


def state(model):
    return {k: v.clone() for k, v in (*model.named_parameters(), *model.named_buffers())}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


# -- members ----------------------------------------------------------------------------------------


def test_members_come_back_as_they_were(case):
    members, _ = case
    ensemble = Ensemble.of(members)
    assert len(ensemble) == 4 and len(list(ensemble)) == 4
    for i, member in enumerate(members):
        assert same(state(ensemble[i]), state(member)) and same(state(ensemble[i - 4]), state(member))


@pytest.mark.parametrize("training", [True, False])
def test_the_ensemble_answers_as_its_members_do(case, training):
    members, x = case
    members = [m.train(training) for m in members]
    ensemble = Ensemble.of(members)
    alone = torch.stack([copy.deepcopy(m).eval()(x) for m in members])
    answers = ensemble(x)
    assert answers.shape == (4, *alone.shape[1:]) and not answers.requires_grad
    assert torch.allclose(answers, alone, atol=1e-6)
    assert torch.equal(answers, ensemble(x)), "in evaluation mode nothing is drawn"


def test_answers_carry_no_gradient():
    learning = Ensemble(NETS["dense"][0], {k: v.requires_grad_() for k, v in dense().parameters.items()})
    assert not learning(noise(5, 4)).requires_grad and not learning.samples("0").requires_grad


def test_the_fallback_is_needed_and_right():
    members = [filled(Branching(), seed) for seed in range(4)]
    x = noise(5, 4, seed=3)
    with pytest.raises(RuntimeError):
        torch.func.vmap(lambda p: torch.func.functional_call(members[0], p, (x,)))(
            dict(Ensemble.of(members).parameters)
        )
    signs = {bool(m.layer(x).sum() > LIMIT) for m in members}
    assert signs == {True, False}, "members take both branches"
    assert torch.allclose(Ensemble.of(members)(x), torch.stack([m(x) for m in members]))


def test_wrong_inputs_keep_their_own_error():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        dense()(noise(5, 7))


def test_the_template_and_the_members_are_never_changed(case, tmp_path):
    members, x = case
    own, given = state(members[0]), [state(m) for m in members]
    ensemble = Ensemble.of(members)
    before, stacked = state(ensemble.template), {k: v.clone() for k, v in ensemble.parameters.items()}
    layer = next(n for n, m in ensemble.template.named_modules() if isinstance(m, (nn.Linear, nn.Conv1d)))
    ensemble(x), ensemble.samples(layer), ensemble.neurons(layer), ensemble.keep([0])
    ensemble.save(tmp_path / "e")
    assert Ensemble.load(tmp_path / "e", members[1]).template is not members[1]
    one = ensemble[2]
    with torch.no_grad():
        next(one.parameters()).add_(1.0)
        next(ensemble.template.parameters()).add_(0.0)
    assert same(state(ensemble.template), before) and same(dict(ensemble.parameters), stacked)
    assert all(same(state(m), s) for m, s in zip(members, given, strict=True)) and same(state(members[0]), own)
    assert ensemble.template is not members[0] and ensemble.template.training == members[0].training


def test_a_member_is_a_module_of_its_own():
    ensemble = dense()
    first, again = ensemble[1], ensemble[1]
    first(noise(5, 4)).sum().backward()
    assert first[0].weight.grad is not None and again[0].weight.grad is None
    for i in (4, -5):
        with pytest.raises(IndexError, match=f"member {i} of 4"):
            ensemble[i]


# -- neurons ----------------------------------------------------------------------------------------


def test_samples_are_the_rows_of_every_member(case):
    members, _ = case
    ensemble = Ensemble.of(members)
    for name, module in members[0].named_modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.GRU)):
            for axis in (0,) if isinstance(module, nn.GRU) else (0, 1):
                samples = ensemble.samples(name, axis=axis)
                assert torch.equal(samples, torch.stack([weight_of(m, name, axis=axis) for m in members]))
                assert not samples.requires_grad


def test_neurons_are_the_moments_over_the_members():
    ensemble = dense(7)
    neurons = ensemble.neurons("0")
    by_hand = NeuronDistribution.from_samples(ensemble.parameters["0.weight"].double())
    assert torch.equal(neurons.mean, by_hand.mean) and torch.equal(neurons.cov, by_hand.cov)
    assert ensemble.neurons("2", axis=1).mean.shape == (3, 2)
    assert ensemble.neurons(["0", "0.weight"]).mean.shape == (3, 8)
    with pytest.raises(ValueError, match="layers that have: 0, 2"):
        ensemble.neurons("1")


def test_no_covariance_from_one_member():
    with pytest.raises(ValueError, match="N >= 2"):
        dense(1).neurons("0")


# -- parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "kept"),
    [(slice(1, 3), [1, 2]), ([3, 0], [3, 0]), (torch.tensor([True, False, False, True]), [0, 3]), (2, [2]), (-1, [3])],
)
def test_keep_takes_parameters_buffers_and_report(members, kept):
    nets = [filled(NETS["norm"][0], seed) for seed in range(4)]
    whole = Ensemble.of(nets)
    whole = Ensemble(whole.template, whole.parameters, whole.buffers, {"loss": torch.arange(4.0)})
    part = whole.keep(members)
    assert [float(x) for x in part.report["loss"]] == kept
    assert all(same(state(part[i]), state(nets[k])) for i, k in enumerate(kept)) and len(part) == len(kept)


def test_cat_puts_parts_back_in_order():
    whole = dense()
    whole = Ensemble(whole.template, whole.parameters, report={"loss": torch.arange(4.0)})
    again = Ensemble.cat([whole.keep([0]), whole.keep(slice(1, 3)), whole.keep(3)])
    assert same(dict(again.parameters), dict(whole.parameters)) and same(dict(again.report), dict(whole.report))
    with pytest.raises(ValueError, match="parts must hold at least one ensemble"):
        Ensemble.cat([])
    with pytest.raises(ValueError, match=r"parts must have the same report, got \[\['loss'\], \[\]\]"):
        Ensemble.cat([whole, dense()])
    with pytest.raises(ValueError, match="parts must have the same parameters"):
        Ensemble.cat([dense(), Ensemble.of([nn.Linear(2, 2)])])


def test_what_does_not_belong_together_is_refused():
    net = NETS["dense"][0]
    good = dict(dense().parameters)
    with pytest.raises(ValueError, match="models must hold at least one"):
        Ensemble.of([])
    with pytest.raises(ValueError, match=r"models must have one architecture, models\[1\]"):
        Ensemble.of([nn.Linear(2, 3), nn.Linear(3, 2)])
    with pytest.raises(ValueError, match=r"models\[2\] is not like"):
        Ensemble.of([nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(2, 3, bias=False)])
    with pytest.raises(ValueError, match=r"parameters must be those of the template: \['0.bias'"):
        Ensemble(net, {"0.weight": good["0.weight"]})
    with pytest.raises(ValueError, match=r"parameters\['0.bias'\] must be \(N, \*\(3,\)\), got \(4, 2\)"):
        Ensemble(net, good | {"0.bias": torch.zeros(4, 2)})
    with pytest.raises(ValueError, match="buffers must be those of the template"):
        Ensemble(net, good, {"mean": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"must all have one length.*'0.bias': 3"):
        Ensemble(net, good | {"0.bias": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match=r"must all have one length.*'loss': 2"):
        Ensemble(net, good, report={"loss": torch.zeros(2)})


# -- files ------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_bit_for_bit(case, tmp_path):
    members, _ = case
    ensemble = Ensemble.of(members)
    report = {"loss": torch.tensor([0.1, float("nan"), 3.0, 4.0]), "failed": torch.tensor([False, True, False, False])}
    ensemble = Ensemble(ensemble.template, ensemble.parameters, ensemble.buffers, report)
    ensemble.save(tmp_path / "members.safetensors")
    again = Ensemble.load(tmp_path / "members.safetensors", members[3])
    for kind in ("parameters", "buffers"):
        assert same(dict(getattr(again, kind)), dict(getattr(ensemble, kind)))
    assert torch.equal(again.report["failed"], report["failed"]) and again.report["loss"].isnan().tolist() == [
        0,
        1,
        0,
        0,
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["members.safetensors"], "nothing is left beside it"


def test_views_of_one_tensor_can_be_saved(tmp_path):
    flat = noise(4, 3 * 4 + 3 + 2 * 3 + 2)
    shapes = {k: v.shape for k, v in NETS["dense"][0].named_parameters()}
    parts = flat.split([s.numel() for s in shapes.values()], 1)
    views = {k: p.unflatten(1, s) for (k, s), p in zip(shapes.items(), parts, strict=True)}
    ensemble = Ensemble(NETS["dense"][0], views, report={"a": flat[:, 0], "b": flat[:, 0]})
    ensemble.keep(slice(1, 3)).save(tmp_path / "e")
    again = Ensemble.load(tmp_path / "e", NETS["dense"][0])
    assert all(torch.equal(again.parameters[k], views[k][1:3]) for k in views)
    one = Ensemble(nn.Linear(1, 1), {"weight": (v := noise(3, 1, 1)), "bias": v[:, 0]})
    one.save(tmp_path / "one")
    assert torch.equal(Ensemble.load(tmp_path / "one", nn.Linear(1, 1)).parameters["bias"], v[:, 0])


def test_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    net, path = NETS["dense"][0], tmp_path / "e"
    dense().save(path)
    whole = path.read_bytes()
    for content in (b"", b"not a tensor in sight", whole[:-1], whole[: len(whole) // 2], whole[:20], b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"path '.*e' holds no ensemble .*was it written by Ensemble.save"):
            Ensemble.load(path, net)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="holds no ensemble: unknown entry 'weight'"):
        Ensemble.load(path, net)
    with pytest.raises(FileNotFoundError):
        Ensemble.load(tmp_path / "nowhere", net)


def test_the_template_must_be_the_architecture_that_was_saved(tmp_path):
    dense(dtype=torch.float64).save(tmp_path / "e")
    with pytest.raises(ValueError, match="parameters must be those of the template"):
        Ensemble.load(tmp_path / "e", nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"must be \(N, \*\(3, 5\)\), got \(4, 3, 4\)"):
        Ensemble.load(tmp_path / "e", nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"template\['0.weight'\] is torch.float32, the file has torch.float64"):
        Ensemble.load(tmp_path / "e", NETS["dense"][0])
    assert Ensemble.load(tmp_path / "e", copy.deepcopy(NETS["dense"][0]).double())[0][0].weight.dtype == torch.float64


@pytest.mark.parametrize("when", ["while writing", "before the renaming"])
def test_a_killed_save_leaves_no_half_file(when, tmp_path, monkeypatch):
    """The old file stays whole under its name; what was written of the new one is taken away where that can be done."""
    import safetensors.torch

    path = tmp_path / "e"
    old = dense(2)
    old.save(path)
    before = path.read_bytes()

    def half(tensors, filename, **_):
        assert filename != path and filename.parent == path.parent, "written beside it, on the same disk"
        filename.write_bytes(before[:100])
        raise KeyboardInterrupt

    def never(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        *((safetensors.torch, "save_file", half) if when == "while writing" else (os, "replace", never))
    )
    for target in (path, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            dense(4).save(target)
    assert path.read_bytes() == before and len(Ensemble.load(path, NETS["dense"][0])) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e"]
