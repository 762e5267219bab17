"""Samples that are missing."""

import math

import pytest
import torch

import mspace as ms
from mspace.series import interpolate, mask_features, missing_mask


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=ms.seeded(seed), dtype=torch.float64)


def test_a_share_is_lost():
    keep = missing_mask(20_000, share=0.3, generator=ms.seeded(1))
    assert keep.dtype == torch.bool and abs(float(keep.double().mean()) - 0.7) < 0.02
    assert missing_mask(50, share=0.0).all() and not missing_mask(50, share=1.0).any()
    own = missing_mask(2, 5000, share=torch.tensor([[0.1], [0.8]]), generator=ms.seeded(1)).double().mean(1)
    assert torch.allclose(own, torch.tensor([0.9, 0.2]).double(), atol=0.03)


def test_outages_have_their_length():
    keep = missing_mask(3, 1003, share=0.5, length=8, generator=ms.seeded(2))
    blocks = keep[:, :1000].unflatten(1, (125, 8))
    assert (blocks.all(2) | ~blocks.any(2)).all() and 0.4 < keep.double().mean() < 0.6


def test_what_is_masked_is_never_looked_at():
    """Scaled by what is seen: mean zero, variance one; what is hidden may be anything."""
    x, keep = 3 + 2 * noise(5, 12), missing_mask(5, 12, share=0.4, generator=ms.seeded(3))
    seen, centre, scale = mask_features(x, keep)
    assert seen.shape == (5, 24) and torch.equal(seen[:, 12:], keep.double())
    for row, stays, values, c, s in zip(x, keep, seen[:, :12], centre, scale):
        assert torch.isclose(c, row[stays].mean()) and torch.isclose(s, row[stays].std(correction=0))
        assert torch.allclose(values[stays], (row[stays] - c) / s) and not values[~stays].any()
    other = mask_features(torch.where(keep, x, math.nan), keep)
    assert all(torch.equal(a, b) for a, b in zip(other, (seen, centre, scale)))
    one = mask_features(x[0], keep[0])
    assert torch.allclose(one[0], seen[0]) and one[1].shape == (1,)


def test_windows_without_anything():
    seen, centre, scale = mask_features(noise(2, 4), torch.tensor([[False] * 4, [True, False, False, False]]))
    assert torch.equal(scale, torch.ones(2, 1).double()) and centre[0] == 0 and not seen[:, :4].any()


@pytest.mark.parametrize("n", [3, 6, 7, 11])
def test_windows_in_which_nothing_moves(n):
    """The mean of equal numbers is off by a rounding, which must not be taken for what is seen."""
    seen, centre, scale = mask_features(torch.full((n,), 0.1, dtype=torch.float64), torch.ones(n, dtype=torch.bool))
    assert torch.allclose(centre, centre.new_tensor(0.1)) and scale == 1 and seen[:n].abs().max() < 1e-15


@pytest.mark.parametrize("by", ["line", "spline"])
def test_filling_leaves_what_is_known(by):
    t, s = torch.tensor([0, 1, 4, 5, 9]), noise(5)
    assert torch.allclose(interpolate(t, s, t, by=by), s)
    assert torch.allclose(interpolate(t, s, [-3, 12], by=by), s[[0, -1]]), "beyond the ends it stays"
    assert interpolate(t.float(), s.float(), t, by=by).dtype == torch.float32


def test_lines_and_splines():
    t = torch.tensor([0.0, 1, 2, 4, 5, 7]).double()
    assert torch.allclose(interpolate(t, 3 * t - 1, torch.arange(8)), 3.0 * torch.arange(8).double() - 1)
    assert torch.allclose(interpolate(t, t**3, torch.arange(8), by="spline"), torch.arange(8).double() ** 3)
    assert interpolate(t, t**2, [3.0]) == 10 and not torch.isclose(
        interpolate(t, t**2, [3.0], by="spline"), torch.tensor(10.0).double()
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: missing_mask(9, share=1.2), r"share must lie from 0 to 1, got 1.2 to 1.2"),
        (lambda: missing_mask(9, share=torch.full((3, 1), 0.2)), r"share must be a number, or \(1,\) of them.*got \(3, 1\)"),
        (lambda: missing_mask(9, share=0.2, length=0), r"length must be.*got 0"),
        (lambda: missing_mask(0, share=0.2), r"shape must be.*got 0"),
        (lambda: missing_mask(share=0.2), r"shape must be.*got none"),
        (lambda: mask_features(noise(4), torch.ones(4)), r"keep must be a mask of bools, got torch.float32"),
        (lambda: interpolate([0], [1.0], [1], by="spline"), r"times must be two or more for a spline"),
        (lambda: mask_features(noise(2, 4), torch.ones(4, dtype=torch.bool)), r"keep must be of the windows. shape"),
        (lambda: mask_features(noise(4) / 0, torch.ones(4, dtype=torch.bool)), r"windows must be finite where keep"),
        (lambda: interpolate([0, 2, 1], [1.0, 2, 3], [1]), r"times must increase"),
        (lambda: interpolate([0, 1, 1], [1.0, 2, 3], [1]), r"times must increase"),
        (lambda: interpolate([0, 1], [1.0, 2, 3], [1]), r"one for each of 3 values, got 2"),
        (lambda: interpolate([0, 1], [1.0, math.nan], [1]), r"values has 1 non-finite"),
        (lambda: interpolate([0, 1], [1.0, 2.0], [1], by="hand"), r"by must be 'line' or 'spline', got 'hand'"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ValueError, match=says):
        call()
