"""Histories at their own level."""

import pytest
import torch

import mspace as ms
from mspace.series import normalized_windows, standardize, with_instance_norm


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("channels", [(), (2,)])
def test_windows_have_mean_zero_and_variance_one(channels):
    """Of what is seen; the horizon goes along, and undone both are what they were."""
    s = 3 + noise(30, *channels).cumsum(0)
    x, y = normalized_windows(s, 8, horizon=3, every=2)
    a, b = (v[::2] for v in ms.windows(s, 8, horizon=3))
    assert x.shape == a.shape and y.shape == b.shape
    assert x.mean(1).abs().max() < 1e-12 and (x.std(1) - 1).abs().max() < 1e-12
    centre, scale = a.mean(1, keepdim=True), a.std(1, keepdim=True)
    assert torch.allclose(x * scale + centre, a) and torch.allclose(y * scale + centre, b)


def test_nothing_depends_on_level_and_loudness():
    s = noise(30)
    for ours, theirs in zip(normalized_windows(s, 8, horizon=3), normalized_windows(7 * s - 2, 8, horizon=3)):
        assert torch.allclose(ours, theirs)
    parts = normalized_windows([s, 5 * s], 8, horizon=3)
    assert torch.allclose(parts[0][:20], parts[0][20:]) and len(parts[0]) == 40


@pytest.mark.parametrize("channels", [(), (2,)])
def test_a_forecaster_at_its_own_level(channels):
    """What it sees has mean zero and variance one, and its answer follows the history's units."""
    seen = []

    def last(history, steps):
        seen.append(history)
        return history[-1:].expand(steps, *history.shape[1:]) + 1

    s = 10 + noise(20, *channels)
    answer = with_instance_norm(last, 9)(s, 4)
    assert torch.allclose(answer, (s[-1] + s[-9:].std(0)).expand(4, *channels))
    assert seen[0].shape == (9, *channels)
    assert seen[0].mean(0).abs().max() < 1e-12 and (seen[0].std(0) - 1).abs().max() < 1e-12
    assert torch.allclose(with_instance_norm(last, 9)(5 * s - 3, 4), 5 * answer - 3)


def test_training_and_forecasting_see_the_same():
    s, caught = noise(20).cumsum(0), []
    with_instance_norm(lambda history, steps: caught.append(history) or history[:steps], 6)(s, 2)
    assert torch.allclose(caught[0], normalized_windows(torch.cat([s, s[:1]]), 6, horizon=1)[0][-1])


def test_a_constant_history():
    """Nothing to scale by: shifted only, and nothing is divided by zero."""
    flat = torch.full((12,), 4.0)
    assert standardize(flat) == (torch.tensor([4.0]), torch.tensor([1.0]))
    assert torch.equal(normalized_windows(flat, 5, horizon=2)[1], torch.zeros(6, 2))
    assert normalized_windows(torch.full((40,), 0.1), 30, horizon=2)[0].abs().max() < 1e-6  # a mean is rounded
    assert torch.equal(with_instance_norm(lambda history, steps: history[:steps], 5)(flat, 2), flat[:2])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: normalized_windows(noise(9), 1, horizon=1), r"width must be a whole number of at least 2, got 1"),
        (lambda: normalized_windows(noise(9), 4, horizon=0), r"horizon must be.*got 0"),
        (lambda: normalized_windows(noise(9), 4, horizon=2, every=0), r"every must be.*got 0"),
        (lambda: normalized_windows(noise(9), 8, horizon=2), r"need 10 samples, got a series of 9"),
        (lambda: with_instance_norm(ms.persistence, 1), r"width must be a whole number of at least 2, got 1"),
        (lambda: with_instance_norm(ms.persistence, 10)(noise(9), 2), r"history has 9 samples, and width asks for 10"),
        (lambda: with_instance_norm(ms.persistence, 5)(noise(9) / 0, 2), r"history has 9 non-finite"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_levels_of_whole_numbers():
    centre, scale = standardize(torch.arange(5))
    assert torch.allclose(centre, torch.tensor([2.0]).double()) and torch.allclose(
        scale**2, torch.tensor([2.5]).double()
    )
