"""Windows at a scale of their own, and forecasters that see them so."""

import math

import pytest
import torch

import mspace as ms


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 2)])
def test_every_window_has_mean_zero_and_deviation_one(shape):
    x = 3 * noise(*shape) + 5
    y = 3 * noise(shape[0], 4, *shape[2:], seed=1) + 5
    before = x.clone(), y.clone()
    a, b = ms.standardize(x, y)
    assert a.shape == x.shape and b.shape == y.shape
    assert a.mean(1).abs().max() < 1e-12 and (a.std(1) - 1).abs().max() < 1e-12
    first = x[(0, slice(None), *([1] if x.ndim == 3 else []))]
    then = y[(0, slice(None), *([1] if x.ndim == 3 else []))]
    expected = (then - first.mean()) / first.std()
    assert torch.allclose(b[(0, slice(None), *([1] if x.ndim == 3 else []))], expected, atol=1e-12)
    assert torch.equal(ms.standardize(x), a)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_what_does_not_move_keeps_its_scale():
    x = torch.cat([torch.full((1, 7), 0.1), torch.arange(7.0)[None]])
    a, b = ms.standardize(x, x[:, :2] + 1)
    assert torch.allclose(a[0], torch.zeros(7), atol=1e-6) and torch.allclose(b[0], torch.ones(2))
    assert abs(float(a[1].std()) - 1) < 1e-6


@pytest.mark.parametrize("channels", [(), (2,)])
def test_a_forecaster_behind_the_scale(channels):
    """Its own level and scale come back; a forecaster that does not care about them answers as before."""
    s = 4 * noise(30, *channels) - 7

    def repeats(history, steps):
        return history[-8:][torch.arange(steps) % 8]

    seen = []

    def spy(history, steps):
        seen.append(history)
        return history.new_ones(steps, *channels)

    assert torch.allclose(ms.standardized(repeats, 12)(s, 20), repeats(s, 20), atol=1e-12)
    one = ms.standardized(spy, 12)(s, 3)
    assert seen[0].shape == (12, *channels) and torch.allclose(seen[0], ms.standardize(s[None, -12:])[0])
    assert torch.allclose(one, (s[-12:].mean(0) + s[-12:].std(0)).expand(3, *channels))
    assert torch.allclose(ms.standardized(spy, 12)(10 * s + 3, 3), 10 * one + 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ms.standardize(noise(5)), r"windows must be \(B, width\).*got shape \(5,\)"),
        (lambda: ms.standardize(noise(0, 5)), r"not empty, got shape \(0, 5\)"),
        (lambda: ms.standardize(noise(3, 5).index_fill(0, torch.tensor(1), math.nan)), r"1 are not, the first is 1"),
        (lambda: ms.standardize(noise(3, 5), noise(2, 5)), r"others must be of 3 windows.*got \(2, 5\)"),
        (lambda: ms.standardize(noise(3, 5, 2), noise(3, 4, 1)), r"same channels as \(3, 5, 2\), got \(3, 4, 1\)"),
        (lambda: ms.standardized(ms.persistence, 1), r"width must be.*at least 2, got 1"),
        (lambda: ms.standardized(ms.persistence, 9)(noise(8), 2), r"history has 8 samples, fewer than the width 9"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()
