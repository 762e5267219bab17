"""What comes through the door, and what is refused there by its name."""

import json
import math
from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mspace as ms
from kit.tables import TextTable
from mspace import NeuronDistribution, datasets, metrics, models, rows_of, weight_of
from mspace.checks import (
    arguments,
    as_recordings,
    as_series,
    as_tensor,
    check_callable,
    check_choice,
    check_data,
    check_fraction,
    check_generator,
    check_indices,
    check_int,
    check_labels,
    check_progress,
    check_real,
    layer_names,
    n_examples,
    normal,
    seeded,
    take,
)
from mspace.network.parameters import positions
from mspace.posterior.gaussian import GaussianPosterior
from mspace.series import missing_mask


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_any_type_are_taken(value):
    assert check_int(value, "width", 3, 3) == 3 and type(check_int(value, "width", 1)) is int


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, None, "3", b"3", "", True, np.True_, torch.tensor(True), [20], np.array([20]),
     torch.tensor([20]), np.array([1, 2]), [1, [2]], 2.5, 3j, 0, -1, 21, ...],
    ids=repr,
)  # fmt: skip
def test_what_is_no_whole_number_within_limits_is_refused(value):
    with pytest.raises(ValueError, match=r"width must be a whole number from 1 to 20, got "):
        check_int(value, "width", 1, 20)


def test_the_limits_are_named():
    with pytest.raises(ValueError, match=r"^width must be a whole number of at least 2, got 1$"):
        check_int(1, "width", 2)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1, math.nan, math.inf, None, "0.5", True, [0.5]], ids=repr)
def test_shares_lie_strictly_between_0_and_1(value):
    assert check_fraction(np.float32(0.5), "level") == 0.5
    with pytest.raises(ValueError, match="level must be a number"):
        check_fraction(value, "level")


FLOATS = np.arange(6.0)


def frozen():
    array = FLOATS.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "values",
    [FLOATS.astype(">f8"), FLOATS.astype(np.longdouble), FLOATS[::-1].copy()[::-1], FLOATS.repeat(2)[::2], frozen(),
     FLOATS.tolist(), range(6), FLOATS.astype(np.int32), FLOATS.astype(np.uint8), torch.arange(6)],
    ids="big-endian long-double backwards strided read-only list range int32 uint8 tensor".split(),
)  # fmt: skip
def test_every_kind_of_real_numbers_is_float64(values):
    assert torch.equal(as_tensor(values, "x"), torch.arange(6, dtype=torch.float64))


def test_floats_keep_their_type_and_are_not_copied():
    a, t = FLOATS.astype(np.float32), torch.arange(6.0, requires_grad=True)
    assert as_tensor(a, "x").dtype == torch.float32 and as_tensor(t, "x") is t
    as_tensor(a, "x")[0] = 7
    assert a[0] == 7


def test_whole_numbers_that_float32_lacks_are_kept():
    big = 2**24 + 1
    assert as_series(torch.tensor([big]))[0] == as_series([big])[0] == as_series(np.array([big]))[0] == big


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1.0], [1.0, 2.0]], "got a ragged one"),
        (["a", "b"], "got dtype <U1"),
        ([1j], "got dtype complex128"),
        ([True, False], "got dtype bool"),
        (None, "got NoneType"),
        ([None], "got dtype object"),
        (torch.nn.Linear(1, 1), "got Linear"),
        (NeuronDistribution(torch.zeros(5, 2), torch.eye(2).repeat(5, 1, 1)), "got NeuronDistribution"),
        (torch.zeros(2, dtype=torch.complex64), "got dtype torch.complex64"),
        (torch.zeros(2, dtype=torch.bool), "got dtype torch.bool"),
    ],
)
def test_what_is_not_real_is_refused(values, said):
    with pytest.raises(ValueError, match=f"x must be an array of real numbers, {said}"):
        as_tensor(values, "x")


@pytest.mark.parametrize(
    ("series", "ndim", "said"),
    [
        (torch.tensor(1.0), (1, 2), r"history must be \(T,\) or \(T, m\) and not empty, got shape \(\)"),
        (torch.zeros(2, 3, 4), (1, 2), r"got shape \(2, 3, 4\)"),
        (torch.zeros(2), (2, 3), r"history must be \(T, m\) or \(B, T, m\)"),
        (torch.zeros(0), (1,), r"history must be \(T,\) and not empty"),
        (torch.zeros(3, 0), (1, 2), "not empty"),
        ([0.0, math.nan, 1.0, math.inf], (1,), "history has 2 non-finite rows, the first at 1: fill or cut them out"),
        ([[0.0, 1.0], [math.nan, -math.inf]], (2,), "history has 1 non-finite rows, the first at 1"),
    ],
)
def test_bad_series_are_refused_by_name(series, ndim, said):
    with pytest.raises(ValueError, match=said):
        as_series(series, "history", ndim)


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_several_recordings_come_in_any_sequence(kind):
    parts, several = as_recordings(kind([torch.zeros(3), np.ones(5), [1, 2]]))
    assert several and [len(p) for p in parts] == [3, 5, 2]


def test_one_series_is_one_recording():
    for series in (torch.zeros(3), np.zeros((3, 2)), [1.0, 2.0, 3.0], deque([1.0, 2.0, 3.0])):
        parts, several = as_recordings(series)
        assert not several and [len(p) for p in parts] == [3]


@pytest.mark.parametrize(
    ("series", "said"),
    [
        ([torch.zeros(9), torch.zeros(9, 2)], r"same channels, got trailing shapes \[\(\), \(2,\)\]"),
        ([torch.zeros(9), torch.full((2,), math.nan)], r"series\[1\] has 2 non-finite rows"),
        ([], "not empty"),
        ("123", "real numbers"),
    ],
)
def test_bad_recordings_are_refused_by_their_number(series, said):
    with pytest.raises(ValueError, match=said):
        as_recordings(series)


def test_tables_for_terminals_and_pages():
    table = TextTable(["name", "a|b"], [["one", "1"], ["three", "22"]])
    assert str(table) == repr(table) == "name   a|b\none    1\nthree  22"
    assert table._repr_markdown_() == "| name | a\\|b |\n| --- | --- |\n| one | 1 |\n| three | 22 |"
    with pytest.raises(ValueError, match="rows must have 2 cells, as the header, got one of 3"):
        TextTable(["a", "b"], [["1", "2"], ["1", "2", "3"]])


def test_numbers_in_a_table_do_not_wrap_and_words_do():
    text = TextTable(["claim", "value"], [["two words", "0.5 ± 0.1"]])._repr_markdown_()
    assert "| two words | 0.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1 |" in text


def test_seeded_streams_are_their_own():
    before = torch.random.get_rng_state()
    first, second = (torch.randn(3, generator=seeded(s)) for s in (4, 4))
    assert torch.equal(first, second) and not torch.equal(first, torch.randn(3, generator=seeded(5)))
    assert torch.equal(torch.random.get_rng_state(), before)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=f"seed must be a whole number from 0 .*got {seed}"):
            seeded(seed)


def test_normal_numbers_come_from_their_own_stream():
    before = torch.get_rng_state()
    drawn = normal(2000, 3, seed=1)
    assert drawn.dtype == torch.float64 and drawn.shape == (2000, 3)
    assert torch.equal(drawn, normal(2000, 3, seed=1)) and not torch.equal(drawn, normal(2000, 3, seed=2))
    assert abs(drawn.mean()) < 0.06 and abs(drawn.std() - 1) < 0.04
    assert torch.equal(before, torch.get_rng_state())
    for shape in ("3", -1, None, 2.5, 10**400):
        with pytest.raises(ValueError, match="shape must be a whole number"):
            normal(3, shape, seed=1)


def test_a_stored_table_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("MSPACE_BOOK", str(tmp_path))
    table = TextTable(["MASE", "a|b"], [["two words", "0.5 ± 0.1"], ["x | y", "1.38 [1.2, 1.5]"], ["", "|"]])
    other = TextTable(["claim"], [["another"]])
    outputs = [
        [{"output_type": "stream", "text": "| not a table"}],
        [{"data": {"text/markdown": ["| MASE | a\\|b |\n", "| --- | --- |\n", "| an | earlier one |"]}}],
        [{"data": {"text/markdown": table._repr_markdown_()}}, {"data": {"text/markdown": other._repr_markdown_()}}],
    ]
    file = tmp_path / "a.ipynb"
    file.write_text(json.dumps({"cells": [{"source": "# text"}, *({"outputs": o} for o in outputs)]}), encoding="utf-8")
    assert TextTable.stored(file, ["MASE"]) == table == TextTable.stored(file, table.header)
    with pytest.raises(ValueError, match=r"header .* no table stored in a\.ipynb"):
        TextTable.stored(file, ["verdict"])
    with pytest.raises(ValueError, match="notebook must be an executed"):
        TextTable.stored(tmp_path / "b.ipynb", ["MASE"])


def test_names_of_layers():
    assert layer_names("0") == ("0",) and layer_names(["gate", "up"]) == layer_names(("gate", "up")) == ("gate", "up")
    for given, said in (
        (0, "got 0"),
        (torch.nn.Linear(1, 1), "got Linear"),
        ([0, 2], r"got \[0, 2\]"),
        (None, "got None"),
    ):
        with pytest.raises(ValueError, match=f"feeds must be a name as in .*, {said}"):
            layer_names(given, "feeds")


def test_a_number_is_no_name_of_a_layer():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    for asked in (weight_of, rows_of, positions):
        with pytest.raises(ValueError, match="must be a name as in"):
            asked(net, 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (torch.ones(3, 2), r"pair \(inputs, targets\), got Tensor"),
        ((torch.ones(3), [1.0]), r"got \(Tensor, list\): see torch\.as_tensor"),
        ((torch.ones(3, 2), torch.ones(2)), r"shapes \(3, 2\) and \(2,\): 3 inputs and 2 targets"),
        ((torch.ones(0), torch.ones(0)), "at least one"),
        ((torch.tensor(1.0), torch.ones(1)), "0 inputs and 1 targets"),
        ((torch.ones(2), torch.tensor([1.0, math.inf])), "infinity in the targets"),
        (({"a": torch.ones(2), "b": torch.ones(3)}, torch.ones(3)), r"\[\(2,\), \(3,\)\] and \(3,\): 2 or 3 inputs and 3"),
        (((), torch.ones(3)), "0 inputs"),
        (({"a": None}, torch.ones(3)), "or of tuples, lists or dictionaries of tensors"),
        (((torch.ones(2), torch.tensor([1.0, math.nan])), torch.ones(2)), "infinity in the inputs"),
        ((np.array(["a", "b"]), torch.ones(2)), "real numbers"),
    ],
)
def test_examples_are_pairs(data, said):
    check_data((torch.ones(3, 2), torch.arange(3)))
    with pytest.raises(ValueError, match=f"^known .*{said}"):
        check_data(data, "known")


def test_examples_come_back_as_tensors():
    x, y = torch.ones(3, 2), torch.arange(3)
    assert all(a is b for a, b in zip(check_data([x, y]), (x, y)))
    inputs, targets = check_data(({"a": x.numpy(), "b": (x, y)}, np.arange(3, dtype=np.int32)))
    assert inputs["a"].dtype == torch.float32 and inputs["b"][0] is x and targets.dtype == torch.int64
    array = np.zeros((3, 2))
    same = check_data((array, array))
    assert same[0] is same[1] and n_examples(inputs) == 3
    part = take(inputs, slice(1, 3))
    assert torch.equal(part["b"][1], y[1:]) and torch.equal(take(x, [0]), x[:1])
    assert arguments(x)[0][0] is x and arguments((x, y)) == ((x, y), {}) and arguments({"a": x}) == ((), {"a": x})


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 10**400, None, "1", True, [1.0]], ids=lambda v: f"{v!r:.9}")
def test_a_positive_number_is_finite_and_above_0(value):
    assert check_real(np.float32(2), "noise") == 2
    with pytest.raises(ValueError, match=r"^noise must be a positive number, got"):
        check_real(value, "noise")


def test_ends_of_an_interval_are_allowed_where_they_belong_to_it():
    assert check_real(0, "mix", 0, 1, "[]") == 0 and check_real(1, "mix", 0, 1, "[]") == 1
    for ends, value in (("[)", 1), ("(]", 0), ("()", 0)):
        with pytest.raises(ValueError, match="mix must be a number in"):
            check_real(value, "mix", 0, 1, ends)
    with pytest.raises(ValueError, match="ridge must be a non-negative number"):
        check_real(-1e-9, "ridge", ends="[)")


def test_indices_are_different_and_inside():
    assert check_indices([2, 0], "keep", 3).tolist() == [2, 0]
    assert check_indices(torch.tensor([True, False, True]), "keep", 3).tolist() == [0, 2]
    for bad in ([], [0, 0], [3], [-1], [0.0], torch.tensor([True, False]), 1):
        with pytest.raises(ValueError, match="keep must be different whole numbers from 0 to 2"):
            check_indices(bad, "keep", 3)


def test_labels_are_numbered_without_gaps():
    assert check_labels([7, -1, 7], "labels", 3).tolist() == [1, 0, 1]
    for bad in ([0, 1], [0.0, 1.0, 2.0], torch.tensor([True, False, True]), [[0], [1], [2]]):
        with pytest.raises(ValueError, match="labels must be 3 integers"):
            check_labels(bad, "labels", 3)


def test_masked_values_are_not_read_as_numbers():
    """NumPy hands out what lies under a mask, an unmeasured value, as if it had been measured."""
    half = np.ma.masked_array([1.0, 999.0, 3.0], [False, True, False])
    with pytest.raises(ValueError, match="x must have no masked values, got 1: cut them out"):
        as_tensor(half, "x")
    with pytest.raises(ValueError, match="series must have no masked values"):
        as_series(half)
    assert as_tensor(np.ma.masked_array([1.0, 2.0], False), "x").tolist() == [1.0, 2.0]


NET = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
DRAWS = normal(8, 5, 2, seed=0)
DRAWING = {
    "sample": lambda g: NeuronDistribution(torch.zeros(1, 1), torch.ones(1, 1, 1)).sample(2, g),
    "debiased": lambda g: metrics.debiased(DRAWS, generator=g),
    "kmeans": lambda g: ms.KMeans(2, metric=ms.euclidean, generator=g),
    "communities": lambda g: ms.communities(ms.euclidean(NeuronDistribution.from_samples(DRAWS)), generator=g),
    "online": lambda g: ms.online(NET, (DRAWS[:, 0].float(), DRAWS[:, 0, :1].float()), F.mse_loss, generator=g),
    "variational": lambda g: ms.variational(NET, (DRAWS[:, 0].float(), DRAWS[:, 0, :1].float()), F.mse_loss, generator=g),
    "posterior": lambda g: GaussianPosterior.of(NET, []).sample(2, g),
    "shrink": lambda g: ms.shrink(NET, "0", 2, "2", calibration=DRAWS[:, 0].float(), generator=g),
    "mlp": lambda g: models.mlp(2, 3, 1, generator=g),
    "recurrent": lambda g: models.ElmanRNN(4, generator=g),
    "haar": lambda g: models.OrthogonalAutoencoder(3, 2, generator=g),
    "eegnet": lambda g: models.EEGNet(4, 128, 2, generator=g),
    "mask": lambda g: missing_mask(5, share=0.5, generator=g),
    "sine": lambda g: datasets.noisy_sine(generator=g),
    "ecog": lambda g: datasets.simulated_ecog(generator=g),
}


@pytest.mark.parametrize("generator", [5, np.random.default_rng(0), "0"], ids=["int", "numpy", "str"])
@pytest.mark.parametrize("call", DRAWING.values(), ids=DRAWING)
def test_a_generator_is_torchs(call, generator):
    with pytest.raises(ValueError, match=r"generator must be a torch\.Generator.*such as seeded\(0\)"):
        call(generator)


def test_a_generator_is_handed_back():
    one = seeded(0)
    assert check_generator(one) is one and check_generator(None) is None


def test_functions_and_choices_are_checked_by_name():
    assert check_callable(len, "score", "of a network") is len and check_choice("a", "mode", ("a", "b")) == "a"
    for check, said in (
        (lambda: check_callable(0.5, "score", "of a network"), "score must be a function of a network, got 0.5"),
        (lambda: check_choice("c", "mode", ("a", "b")), "mode must be one of a, b, got 'c'"),
        (lambda: check_choice(["a"], "mode", ("a", "b")), "mode must be one of a, b"),
        (lambda: check_progress(True), "progress must be a function that wraps an iterable"),
        (lambda: ms.tradeoff(NET, "0", None, [2], len), "reduce must be a function"),
        (lambda: ms.tradeoff(NET, "0", len, [2], "accuracy"), "score must be a function"),
        (lambda: ms.rolling_origin("naive", DRAWS[:, 0, 0], 1, start=3), "forecaster must be a function"),
        (lambda: ms.shrink(NET, "0", 2, "2", calibration=DRAWS[:, 0], divergence="mse"), "divergence must be a function"),
    ):
        with pytest.raises(ValueError, match=said):
            check()
