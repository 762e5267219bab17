"""Videos in a basis of pictures: nothing is lost, and SSA of the scores is SSA of the pixels."""

import pytest
import torch

from mspace import SSA, seeded
from mspace.datasets import pendulum_video
from mspace.ssa import Frames

close = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(scope="module")
def video():
    return pendulum_video(60, size=12, period=17.3, noise_std=0.1, generator=seeded(0)).frames


@pytest.fixture(scope="module")
def basis(video):
    return Frames.of(video)


def test_every_frame_comes_back(video, basis):
    torch.testing.assert_close(basis.frames(basis.scores), video, **close)
    torch.testing.assert_close(basis.coordinates(video), basis.scores, **close)
    torch.testing.assert_close(basis.mean, video.mean(0), **close)
    assert len(basis) == 59 and basis.dropped == 0


def test_pictures_are_orthonormal_and_scores_principal(basis):
    flat = basis.pictures.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(59, dtype=torch.float64), **close)
    gram = basis.scores.T @ basis.scores
    torch.testing.assert_close(gram, gram.diag().diag(), rtol=0, atol=1e-10)
    assert (gram.diag().diff() <= 0).all() and basis.scores.mean(0).abs().max() < 1e-12
    assert (flat.gather(1, flat.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("window", [7, 25, 40])
def test_ssa_of_scores_is_ssa_of_pixels(video, basis, window):
    """O1.13."""
    few = SSA.of(basis.scores, window, method="dense")
    all_pixels = SSA.of(video.flatten(1) - video.flatten(1).mean(0), window, method="dense")
    torch.testing.assert_close(few.singular_values, all_pixels.singular_values, rtol=1e-12, atol=1e-12)
    mean = basis.mean.flatten()
    for group in ([0, 1], [2], range(6)):
        drawn = basis.frames(few.reconstruct(group)).flatten(1)
        torch.testing.assert_close(drawn, mean + all_pixels.reconstruct(group), **close)
    for method in ("recurrent", "vector"):
        drawn = basis.frames(few.forecast(9, range(4), method)).flatten(1)
        torch.testing.assert_close(drawn, mean + all_pixels.forecast(9, range(4), method), **close)


@pytest.mark.parametrize("rank", [1, 5, 59])
def test_what_a_rank_drops_is_what_is_missing(video, rank):
    basis = Frames.of(video, rank)
    missing = (video - basis.frames(basis.scores)).square().sum() / (video - video.mean(0)).square().sum()
    assert len(basis) == rank and basis.dropped == pytest.approx(float(missing), abs=1e-12)


def test_few_pictures_are_the_first_of_all(video, basis):
    few = Frames.of(video, 4)
    torch.testing.assert_close(few.pictures, basis.pictures[:4], **close)
    torch.testing.assert_close(few.scores, basis.scores[:, :4], **close)


def test_frames_of_few_dimensions_have_few_pictures():
    on, off = torch.eye(8).double(), torch.zeros(8, 8).double()
    blinking = Frames.of(torch.stack([on, off] * 6))
    assert len(blinking) == 1
    torch.testing.assert_close(blinking.frames([3.0]) - blinking.mean, 3 * on / 8**0.5, **close)
    assert len(Frames.of(torch.randn(40, 2, 3, generator=seeded(1)))) == 6  # more frames than pixels


def test_other_frames_are_projected(video):
    past, future = video[:40], video[40:]
    basis = Frames.of(past)
    rest = future - basis.frames(basis.coordinates(future))
    assert rest.abs().max() > 0.05, "noise is not in the basis"
    torch.testing.assert_close(basis.coordinates(rest + basis.mean), torch.zeros(20, 39, dtype=torch.float64), **close)


def test_scores_of_any_leading_shape_become_frames(basis):
    many = torch.randn(2, 3, 59, dtype=torch.float64, generator=seeded(2))
    drawn = basis.frames(many)
    assert drawn.shape == (2, 3, 12, 12)
    torch.testing.assert_close(drawn[1, 2], basis.frames(many[1, 2]), **close)


@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_units_do_not_matter(video, basis, scale):
    scaled = Frames.of(video * scale)
    torch.testing.assert_close(scaled.pictures, basis.pictures, rtol=0, atol=1e-9)
    torch.testing.assert_close(scaled.scores / scale, basis.scores, rtol=0, atol=1e-9)


def test_input_is_left_alone_and_of_any_kind(video):
    before = video.clone()
    basis = Frames.of(video)
    basis.mean.fill_(7.0)
    basis.scores.fill_(7.0)
    assert torch.equal(video, before)
    bytes_ = (video * 255).round().to(torch.uint8)
    again = Frames.of(bytes_.numpy())
    torch.testing.assert_close(again.frames(again.scores), bytes_.double(), rtol=0, atol=1e-9)
    assert Frames.of(video.float()).scores.dtype == torch.float64


def broken(where):
    frames = torch.rand(6, 3, 3, generator=seeded(3))
    frames[where] = float("nan")
    return frames


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (broken(4), "1 frames that are not finite, the first is 4"),
        (torch.full((6, 3, 3), torch.inf), "6 frames that are not finite, the first is 0"),
        (torch.rand(6, 3), r"\(T, H, W\), got shape \(6, 3\)"),
        (torch.rand(6, 3, 3, 3), r"got shape \(6, 3, 3, 3\): of colours take one"),
        (torch.rand(0, 3, 3), "got shape"),
        (torch.rand(1, 3, 3), "at least 2 frames, got 1"),
        (torch.zeros(6, 3, 3), "video must move, got 6 equal frames"),
        (torch.full((7, 3, 3), 0.1), "video must move, got 7 equal frames"),
        (torch.rand(6, 3, 3) > 0.5, "real numbers"),
        ("film", "real numbers"),
    ],
)
def test_bad_videos_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        Frames.of(bad)


@pytest.mark.parametrize("rank", [0, 60, 2.5, "2", True])
def test_bad_ranks_are_refused(video, rank):
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 59"):
        Frames.of(video, rank)


def test_what_does_not_fit_a_basis_is_refused(basis):
    with pytest.raises(ValueError, match=r"\(\.\.\., 59\), one for each picture, got \(5, 58\)"):
        basis.frames(torch.zeros(5, 58))
    with pytest.raises(ValueError, match=r"\(T, 12, 12\), got shape \(5, 12, 13\)"):
        basis.coordinates(torch.zeros(5, 12, 13))
