"""Moving the kept neurons themselves, so that the small network answers as the large one: no labels are used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_int
from .passes import answer, batches, examples, halves, resting, seen

__all__ = ["discrepancy", "kl_divergence", "refine", "squared_error"]

ROUND = 10  # steps between two looks at the held-out inputs
PATIENCE = 2  # looks that bring nothing


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error as a share of the target's variance over the examples."""
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise ValueError("divergence must be given for a network that answers with anything but a tensor (N, ...)")
    scale = (target - target.mean(0)).square().mean()
    return (output - target).square().mean() / scale.clamp(min=torch.finfo(target.dtype).tiny)


def kl_divergence(output: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the small network's classes from the large one's, from logits (N, ..., classes)."""
    # classes first: few of them in the last place keep log_softmax from using vectors, at six times the cost
    output, target = (F.log_softmax(t.flatten(0, -2).T.contiguous(), 0) for t in (output, target))
    return F.kl_div(output, target, log_target=True, reduction="sum") / output.shape[1]


def refine(
    student: nn.Module,
    teacher: nn.Module,
    layers: Sequence[str],
    calibration,
    *,
    feeds: Sequence[str] = (),
    divergence: Callable[[Tensor, Tensor], Tensor] | None = None,
    steps: int = 60,
) -> nn.Module:
    """Move weights of some layers until the student answers as the teacher does, by L-BFGS (Liu and Nocedal 1989).

    Args:
        student: the small network; a new one comes back
        teacher: the large one
        layers: names of the layers whose weights and biases move
        calibration: inputs
        feeds: layers, called alike in both, whose answers are to agree, in squares
        divergence: (student's output, teacher's output) -> scalar; where given, the answers of the whole networks are
            to agree by it, such as `kl_divergence` for classes
        steps: at most; on a fifth of the inputs it is watched whether they still help
    """
    student = copy.deepcopy(student)
    steps = check_int(steps, "steps", 0)
    part, rest = halves(calibration)
    moving = list({id(p): p for n in layers for p in student.get_submodule(n).parameters()}.values())
    flags = {p: p.requires_grad for p in student.parameters()}
    if steps == 0 or not moving:
        return student
    try:
        for p in flags:
            p.requires_grad_(any(p is q for q in moving))
        fit = Match(student, teacher, part, feeds, divergence)
        held = fit if rest is None else Match(student, teacher, rest, feeds, divergence)
        _descend(student, moving, fit, held, steps)
    finally:
        for p, flag in flags.items():
            p.grad = None
            p.requires_grad_(flag)
    return student


def discrepancy(student, teacher, calibration, *, feeds=(), divergence=None) -> float:
    """How far the student's answers are from the teacher's, as `refine` counts it."""
    with torch.no_grad():
        return float(Match(student, teacher, calibration, feeds, divergence)())


class Match:
    """The student's distance from what the teacher said, which is asked once."""

    def __init__(self, student, teacher, inputs, feeds, divergence):
        self.student, self.feeds, self.divergence = student, list(feeds), divergence
        with resting(teacher), torch.no_grad():
            self.parts = [(part, self._asked(teacher, part)) for part in batches(inputs, 4096)]
        if divergence is None and not self.feeds:
            self.divergence = squared_error

    def __call__(self) -> Tensor:
        """Mean over the inputs."""
        total, count = 0.0, 0
        with resting(self.student):
            for part, said in self.parts:
                n = examples(part)
                total, count = total + n * self._distance(self._asked(self.student, part), said), count + n
        return total / count

    def _asked(self, model, part):
        if self.divergence is None and self.feeds:
            return [found.output for found in seen(model, self.feeds, part).values()]
        return answer(model, part)

    def _distance(self, own, said):
        if isinstance(said, list) and self.divergence is None:
            return sum(squared_error(a.flatten(0, -2), b.flatten(0, -2)) for a, b in zip(own, said))
        return self.divergence(own, said)


def _descend(student, moving, fit: Match, held: Match, steps: int) -> None:
    """In rounds; the weights of the best look are those that stay."""
    opt = torch.optim.LBFGS(
        moving, max_iter=ROUND, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0
    )

    def closure():
        opt.zero_grad()
        loss = fit()
        loss.backward()
        return loss

    def look() -> float:
        with torch.no_grad():
            value = float(held())
        return value if value == value else float("inf")

    best, kept, waited = look(), [p.detach().clone() for p in moving], 0
    for _ in range((steps + ROUND - 1) // ROUND):
        opt.step(closure)
        now = look()
        waited = 0 if now < best else waited + 1
        if now < best:
            best, kept = now, [p.detach().clone() for p in moving]
        if waited >= PATIENCE:
            break
    with torch.no_grad():
        for p, value in zip(moving, kept):
            p.copy_(value)
