"""Forecasts of several trainings: the same numbers as each training alone gives, and intervals that hold."""

import pytest
import torch

from kit.skill import (
    difference_of_trainings,
    mean_of_trainings,
    rolling_origin_of_trainings,
    trainings_table,
)
from kit.tables import with_error, with_interval
from mspace import rolling_origin, seeded

WHERE = {"start": 40, "every": 5, "period": 7}


@pytest.fixture(scope="module")
def series():
    return torch.sin(torch.arange(200.0).double()) + 0.3 * torch.randn(200, generator=seeded(0), dtype=torch.float64)


def trained(offsets):
    """Networks that repeat the last sample, each with a bias of its own."""
    return lambda history, steps: history[-1] + torch.tensor(offsets).double().expand(steps, -1)


def test_each_training_has_a_channel(series):
    offsets = (0.0, 0.5, 1.0)
    together = rolling_origin_of_trainings(trained(offsets), series, 4, 3, **WHERE)
    for i, offset in enumerate(offsets):
        alone = rolling_origin(lambda h, s, by=offset: (h[-1] + by).expand(s), series, 4, **WHERE)
        assert torch.allclose(together.losses("mase")[..., i].mean(0), alone("mase"))
        assert torch.allclose(together.losses("mse")[..., i].mean(0), alone("mse"))
    assert torch.allclose(together("mase"), together.losses("mase").mean((0, 2)))


def test_what_is_not_trained_is_the_same_in_every_channel(series):
    once = rolling_origin_of_trainings(lambda h, s: h[-1].expand(s), series, 4, 3, **WHERE)
    assert (once.predicted == once.predicted[..., :1]).all()
    assert mean_of_trainings(once.losses("mase")[:, 0].mean(0)) == f"{once('mase')[0]:.2f}"


def test_a_table_has_errors_over_trainings_and_intervals_over_origins(series):
    skill = rolling_origin_of_trainings(trained((0.0, 0.5, 1.0)), series, 4, 3, **WHERE)
    rows = trainings_table({"a": skill, "b": skill}, [1, 4], block=3, generator=seeded(1)).rows
    assert rows[0][1:] == rows[1][1:]  # the same blocks are dealt to all
    low, high = skill.interval("mase", block=3, generator=seeded(1))
    assert rows[0][2] == f"{with_error(skill.losses('mase')[:, 3].mean(0))} [{low[3]:.2f}, {high[3]:.2f}]"


def test_a_difference_holds_origins_and_trainings(series):
    good, bad = (rolling_origin_of_trainings(trained(o), series, 4, 3, **WHERE) for o in ((0, 0.1, 0.2), (1, 1.2, 2)))

    def less(one, other, seed=1):
        return difference_of_trainings(one, other, 4, block=3, origins=seeded(seed), trainings=seeded(seed + 1))

    mean, low, high = less(good, bad)
    assert low < mean < high < 0
    assert torch.isclose(mean, good("mase").mean() - bad("mase").mean())
    assert torch.allclose(less(bad, good).flip(0)[[2, 1, 0]], torch.stack([-mean, -high, -low]), atol=1e-12)
    narrow = good.difference(bad, "mase", block=3, generator=seeded(1))
    assert high - low > narrow[2] - narrow[1], "trainings are drawn as well"


def test_a_mean_is_written_with_its_standard_error():
    assert with_error([1.0, 2.0, 3.0, 4.0]) == "2.50 ± 0.65"  # sd 1.291 over the root of four
    assert with_error([-0.001, 0.001], 1) == "0.0 ± 0.0"
    for values in ([1.0], [], [1.0, float("nan")], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="values must be two or more finite numbers"):
            with_error(values)
    assert with_interval(torch.tensor([-0.031, -0.08, 0.012])) == "-0.03 [-0.08, +0.01]"
    assert with_interval((0.5, 0.1, 0.9), 1) == "+0.5 [+0.1, +0.9]"


def test_one_training_is_refused(series):
    with pytest.raises(ValueError, match="n_trainings"):
        rolling_origin_of_trainings(trained((0.0,)), series, 4, 1, **WHERE)
