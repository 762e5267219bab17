"""Moving the kept neurons themselves, so that the small network gives the large one's outputs: no labels are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_int
from ..network.hooks import batches, evaluation_mode, examples, hold_out, output_of, seen
from ..network.modules import copied

__all__ = ["discrepancy", "logits_kl", "match"]

ROUND = 10  # steps between two looks at the held-out inputs
PATIENCE = 2  # looks that bring nothing

Divergence = Callable[[Tensor, Tensor], Tensor]


def logits_kl(output: Tensor, target: Tensor) -> Tensor:
    """Return KL(target || output) of classes from logits (N, ..., classes), the mean over examples."""
    # classes first: few of them in the last place keep log_softmax from using vectors, at six times the cost
    output, target = (F.log_softmax(t.flatten(0, -2).T.contiguous(), 0) for t in (output, target))
    return F.kl_div(output, target, log_target=True, reduction="sum") / output.shape[1]


def match(
    student: nn.Module,
    teacher: nn.Module,
    layers: Sequence[str],
    calibration,
    *,
    feeds: Sequence[str] = (),
    divergence: Divergence | None = None,
    steps: int = 60,
) -> nn.Module:
    """Move weights of some layers until the student's outputs are the teacher's, by L-BFGS (Liu and Nocedal 1989).

    Args:
        student: the small network; a new one is returned
        teacher: the large one
        layers: names of the layers whose weights and biases move
        calibration: inputs
        feeds: layers, of one name in both, whose outputs are to agree, in squares
        divergence: (student's output, teacher's output) -> scalar; where given, the outputs of the whole networks are
            to agree by it, such as `logits_kl` for classes
        steps: at most; a fifth of the inputs shows whether they still help
    """
    student = copied(student)
    steps = check_int(steps, "steps", 0)
    part, rest = hold_out(calibration)
    moving = list({id(p): p for n in layers for p in student.get_submodule(n).parameters()}.values())
    flags = {p: p.requires_grad for p in student.parameters()}
    if steps == 0 or not moving:
        return student
    try:
        for p in flags:
            p.requires_grad_(any(p is q for q in moving))
        fit = _distance(student, teacher, part, feeds, divergence)
        held = fit if rest is None else _distance(student, teacher, rest, feeds, divergence)
        _descend(moving, fit, held, steps)
    finally:
        for p, flag in flags.items():
            p.grad = None
            p.requires_grad_(flag)
    return student


@torch.no_grad()
def discrepancy(
    student: nn.Module, teacher: nn.Module, inputs, *, feeds: Sequence[str] = (), divergence: Divergence | None = None
) -> float:
    """Return how far the student's outputs are from the teacher's, as `match` counts it."""
    return float(_distance(student, teacher, inputs, feeds, divergence)())


def _distance(student, teacher, inputs, feeds, divergence: Divergence | None) -> Callable[[], Tensor]:
    """Return the mean distance of the student's outputs from the teacher's as a function; the latter are computed once."""

    def outputs(model: nn.Module, part) -> list:
        if divergence is None and feeds:
            return [layer.output.flatten(0, -2) for layer in seen(model, feeds, part).values()]
        return [output_of(model, part)]

    def distance() -> Tensor:
        total = torch.zeros(())
        with evaluation_mode(student):
            for part, wanted in parts:
                pairs = zip(outputs(student, part), wanted)
                total = total + examples(part) * sum((divergence or _squared_error)(a, b) for a, b in pairs)
        return total / examples(inputs)

    with evaluation_mode(teacher), torch.no_grad():
        parts = [(part, outputs(teacher, part)) for part in batches(inputs, 4096)]
    return distance


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error as a share of the target's variance over the examples."""
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise ValueError("divergence must be given for a network whose output is anything but a tensor (N, ...)")
    scale = (target - target.mean(0)).square().mean()
    return (output - target).square().mean() / scale.clamp(min=torch.finfo(target.dtype).tiny)


def _descend(moving: list[Tensor], fit: Callable, held: Callable, steps: int) -> None:
    """Move in rounds; the weights of the best look are those that stay."""
    opt = torch.optim.LBFGS(
        moving, max_iter=ROUND, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0
    )

    def closure():
        opt.zero_grad()
        loss = fit()
        loss.backward()
        return loss

    @torch.no_grad()
    def look() -> float:
        value = float(held())
        return value if value == value else float("inf")

    best, kept, waited = look(), [p.detach().clone() for p in moving], 0
    for _ in range((steps + ROUND - 1) // ROUND):
        opt.step(closure)
        if (now := look()) < best:
            best, kept, waited = now, [p.detach().clone() for p in moving], 0
        elif (waited := waited + 1) >= PATIENCE:
            break
    with torch.no_grad():
        for p, value in zip(moving, kept):
            p.copy_(value)
