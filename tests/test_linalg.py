"""Roots, ranks and divergences of positive semidefinite matrices, against definitions and scipy."""

import math

import pytest
import scipy.linalg
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from mspace import normal
from mspace._files import replacing
from mspace._linalg import check_psd, eigh_psd, factor_psd, gaussian_kl, is_full_rank, root_psd


def semidefinite(*shape, rank, seed=0):
    half = normal(*shape, rank, seed=seed)
    return half @ half.mT


def test_the_root_is_symmetric_and_scipys():
    matrix = semidefinite(3, 5, rank=5)
    root = root_psd(matrix)
    torch.testing.assert_close(root @ root, matrix)
    torch.testing.assert_close(root, root.mT)
    torch.testing.assert_close(root[0], torch.from_numpy(scipy.linalg.sqrtm(matrix[0].numpy())).real)


def test_singular_matrices_have_roots_factors_and_a_rank():
    matrix = semidefinite(2, 5, rank=3)
    eigenvalues, eigenvectors = eigh_psd(matrix)
    assert (eigenvalues > 0).sum(1).tolist() == [3, 3] and not is_full_rank(matrix).any()
    torch.testing.assert_close(eigenvectors @ (eigenvalues[..., None] * eigenvectors.mT), matrix)
    torch.testing.assert_close(factor_psd(matrix) @ factor_psd(matrix).mT, matrix)
    assert is_full_rank(semidefinite(2, 5, rank=5)).all()


def test_the_divergence_is_torchs():
    mean, cov = normal(4, 3, seed=1), semidefinite(4, 3, rank=6, seed=2)
    prior_mean, prior_cov = normal(3, seed=3), semidefinite(3, rank=6, seed=4)
    found = gaussian_kl(mean, cov, prior_mean, prior_cov)
    torch.testing.assert_close(
        found, kl_divergence(MultivariateNormal(mean, cov), MultivariateNormal(prior_mean, prior_cov))
    )
    assert gaussian_kl(mean, cov, mean, cov).abs().max() < 1e-12


@pytest.mark.parametrize("matrix", [[[1.0, 2.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [[math.nan]], [1.0], [[1.0, 0.0]]])
def test_what_is_no_covariance_is_refused_by_name(matrix):
    with pytest.raises(ValueError, match=r"^similarity must be"):
        check_psd(matrix, "similarity", "use another")


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(IsADirectoryError), replacing(path) as part:
        part.write_text("half") and tmp_path.write_text("fails, and the block is left")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    with replacing(path) as part:
        part.write_text("new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]
