"""tr (S_i^1/2 S_j S_i^1/2)^1/2 without eigenvalues of pairs, in two to four dimensions.

The symmetric functions e1, e2, ... of the eigenvalues of S_i S_j are inner products of what belongs to one neuron
(Cauchy and Binet), so matrix products give them for all pairs. Those of the roots of the eigenvalues, s1, s2, ..., of
which s1 is wanted, follow from s1^2 = e1 + 2 s2, s2^2 = e2 + 2 s1 s3 - 2 s4, s3^2 = e3 + 2 s2 s4, s4^2 = e4. As nested
roots these have a slope that never vanishes, whatever the ranks, where the polynomial for s1 has multiple zeros; from
above, Newton's steps fall to the solution and double their digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FORMS", "LARGEST"]

EPS, TINY = torch.finfo(torch.float64).eps, 1e-300
LOST = 1e-6  # of the product of norms: an inner product below has lost too many digits


def _plane(a, b, rows, cols):
    """(x + y)^2 = x^2 + y^2 + 2 x y, and x^2, y^2 are the eigenvalues of S_i S_j."""
    e1, size = _inner(a.flat[rows], b.flat[cols])
    return (e1 + 2 * a.root_det[rows, None] * b.root_det[cols]).sqrt(), e1 < LOST * size


def _space(a, b, rows, cols):
    e1, size1 = _inner(a.flat[rows], b.flat[cols])
    e2, size2 = _inner(a.adjugate[rows], b.adjugate[cols])
    s3 = a.root_det[rows, None] * b.root_det[cols]
    s = (3 * e1).sqrt_()
    s = torch.sqrt_(e1 + 2 * torch.addcmul(e2, s, s3, value=2).sqrt_())  # a contraction by nine: a good start
    for _ in range(20):
        s2 = torch.addcmul(e2, s, s3, value=2).sqrt_()
        slope = s - s3 / s2.clamp(min=TINY)
        step = (s * s - e1).sub_(s2, alpha=2).div_(slope.mul_(2).clamp_(min=TINY))
        s = s - step
        if (step.abs_() <= 4 * EPS * s).all():
            break
    return s, (e1 < LOST * size1) | (s2.square_() < LOST * size2)


def _four(a, b, rows, cols):
    e1, size1 = _inner(a.flat[rows], b.flat[cols])
    e2, size2 = _inner(a.minors[rows], b.minors[cols])
    e3, size3 = _inner(a.adjugate[rows], b.adjugate[cols])
    s4 = a.root_det[rows, None] * b.root_det[cols]
    s = (4 * e1).sqrt_()
    for count in range(30):
        s3 = torch.addcmul(e3, s * s - e1, s4).clamp_(min=0).sqrt_()
        s2 = torch.addcmul(e2, s, s3, value=2).sub_(s4, alpha=2).clamp_(min=0).sqrt_()
        if count < 2:  # a contraction: a good start
            s = torch.sqrt_(e1 + 2 * s2)
            continue
        slope = s - (s3 + s * s * s4 / s3.clamp(min=TINY)) / s2.clamp(min=TINY)
        step = (s * s - e1).sub_(s2, alpha=2).div_(slope.mul_(2).clamp_(min=TINY))
        s = s - step
        if (step.abs_() <= 4 * EPS * s).all():
            break
    doubtful = (e1 < LOST * size1) | (s2.square_() < LOST * size2) | (s3.square_() < LOST * size3)
    return s, doubtful | (step > 1e-12 * s)


def _inner(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products of positive semidefinite matrices, and the products of their norms, which rounding is part of."""
    return (a @ b.T).clamp_(min=0), a.norm(dim=1)[:, None] * b.norm(dim=1)


FORMS = {2: _plane, 3: _space, 4: _four}  # on the line covariances are diagonal, and are not paired
LARGEST = max(FORMS)
