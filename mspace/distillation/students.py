"""A Bayesian student trained on a teacher's outputs, with a prior made of the teacher's posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..checks import check_data, check_int, check_real, n_examples, take
from ..network.hooks import evaluation_mode, output_of
from ..posterior import GaussianPosterior, variational
from ..training import Data, Ensemble, Loss
from ..training.options import Optimizer

__all__ = ["SoftTargetLoss", "distill", "teacher_outputs"]

AT_ONCE = 1 << 22  # numbers that the outputs of all members may hold

Teacher = nn.Module | Ensemble | GaussianPosterior


def distill(
    teacher: Teacher | None,
    student: nn.Module | None,
    data: Data | Tensor,
    loss: Loss,
    *,
    prior: GaussianPosterior | None,
    temperature: float = 2.0,
    mix: float = 0.5,
    n_samples: int = 100,
    noise: float | None = None,
    family: str = "full",
    layers: str | Sequence[str] | None = None,
    prior_precision: float | None = None,
    train_rest: bool = True,
    draws: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = 64,
    optimizer: Optimizer | None = None,
    generator: torch.Generator | None = None,
) -> GaussianPosterior:
    """Fit the Gaussian over a student's parameters nearest to prior times likelihood of labels and a teacher's outputs.

    What a label counts is shared between it and the teacher (Hinton, Vinyals and Dean 2015): for classes an example costs
    ``(1 - mix) CE(y, g) + mix T^2 KL(f_T | g_T)``, outputs softened by the temperature T, which their gradients do not
    shrink with; for numbers ``(1 - mix) (g - y)^2 + mix (g - f)^2`` over twice the noise. The teacher's output is an
    average over draws of its posterior, or over the members of an ensemble. Training is by variational inference.

    Args:
        teacher: whose outputs are learned; None, if only labels are to teach
        student: a network, at whose weights the means begin; the mean of the prior if None
        data: inputs and labels, or inputs alone, to which the teacher's outputs are all there is (as ``mix=1``)
        loss: `F.cross_entropy` or `F.mse_loss`
        prior: over the student's parameters, such as `drop_neurons` and `temper` give; None for
            N(0, 1 / prior_precision). One that has seen the same labels counts them twice.
        temperature: T of at least 1, for classes
        mix: from 0, labels only, to 1, the teacher only
        n_samples: draws of the teacher's posterior
        noise: variance of numbers about the student's outputs; by default that in the teacher's report, else its mean
            squared residual. Without a teacher it is learned.
        family, layers, prior_precision, train_rest, draws, epochs, batch_size, optimizer: as in `variational`

    Returns:
        a posterior of the student; report "mix" and "temperature", and else as `variational` has it
    """
    x, y = _parted(data)
    temperature = check_real(temperature, "temperature", 1, ends="[)")
    mix = _checked_mix(teacher, y, loss, check_real(mix, "mix", 0, 1, "[]"))
    student = _start(student, prior)
    dtype = next(student.parameters()).dtype
    if other := {t.dtype for t in tree_leaves(x) if t.is_floating_point()} - {dtype}:
        raise ValueError(f"data must be {dtype}, as the student is, got inputs of {other.pop()}: convert one of them")
    if loss is F.cross_entropy:
        if noise is not None:
            raise ValueError("noise belongs to a squared error: leave it out for classes")
        target, cost = y, F.cross_entropy
        if mix > 0:
            soft = teacher_outputs(teacher, x, temperature=temperature, n_samples=n_samples, generator=generator)
            target, cost = _soft_targets(y, soft), SoftTargetLoss(temperature, mix)
    else:
        target, cost = y, F.mse_loss
        if mix > 0:
            outputs = teacher_outputs(teacher, x, n_samples=n_samples, generator=generator)
            target, noise = _mixed_targets(teacher, y, outputs, noise, mix)
    target = tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, target)
    posterior = variational(
        student, (x, target), cost, family=family, layers=layers, prior=prior, prior_precision=prior_precision,
        noise=noise, train_rest=train_rest, draws=draws, epochs=epochs, batch_size=batch_size, optimizer=optimizer,
        generator=generator,
    )  # fmt: skip
    kind = "gaussian" if cost is F.mse_loss else "categorical"
    report = {"method": "distill", "likelihood": kind, "mix": mix, "temperature": temperature}
    return replace(posterior, report=dict(posterior.report) | report)


class SoftTargetLoss:
    """The loss of outputs (B, C) against targets: the classes (B,), and the teacher's probabilities (B, C) at T."""

    def __init__(self, temperature: float, mix: float):
        self.temperature, self.mix = temperature, mix

    def __call__(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        t, (labels, soft) = self.temperature, target
        loss = self.mix * t**2 * F.kl_div(F.log_softmax(output / t, 1), soft, reduction="batchmean")
        return loss if self.mix == 1 else (1 - self.mix) * F.cross_entropy(output, labels) + loss


@torch.no_grad()
def teacher_outputs(
    teacher: Teacher,
    x,
    *,
    temperature: float | None = None,
    n_samples: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return a teacher's outputs on B inputs, averaged over its draws or members, in evaluation mode.

    Args:
        temperature: probabilities of classes (B, C), of logits divided by it; None for the outputs themselves
        n_samples: draws of a posterior
    """
    draws = isinstance(teacher, GaussianPosterior)
    members = teacher.sample(check_int(n_samples, "n_samples", 1), generator) if draws else teacher

    def outputs(part) -> Tensor:
        if isinstance(members, Ensemble):
            out = members(part).double()
        else:
            with evaluation_mode(members):
                out = output_of(members, part)[None].double()
        return (out if temperature is None else (out / temperature).softmax(2)).mean(0)

    many = len(members) if isinstance(members, Ensemble) else 1
    step = max(1, AT_ONCE // (many * sum(t[0].numel() for t in tree_leaves(x))))
    return torch.cat([outputs(take(x, slice(i, i + step))) for i in range(0, n_examples(x), step)])


def _soft_targets(y: Tensor | None, soft: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.zeros(len(soft), dtype=torch.long) if y is None else y
    if y.ndim != 1 or y.min() < 0 or y.max() >= soft.shape[1]:
        raise ValueError(
            f"data must have classes (B,) from 0 to {soft.shape[1] - 1}, as the teacher, got {tuple(y.shape)}"
        )
    return y.long(), soft


def _mixed_targets(teacher, y: Tensor | None, outputs: Tensor, noise, mix: float) -> tuple[Tensor, float]:
    """Return one target for both squares, which differ from its own by what no student changes, and the noise."""
    if y is not None and y.shape != outputs.shape:  # the squared error would pair each with every other
        raise ValueError(
            f"data must have targets of the shape of the teacher's outputs {tuple(outputs.shape)}, got {tuple(y.shape)}"
        )
    if noise is None and isinstance(teacher, GaussianPosterior):
        noise = teacher.report.get("noise")
    if noise is None and y is None:
        raise ValueError("noise must be given: there are no labels to take it from, and the teacher does not report it")
    noise = float((outputs - y).square().mean()) if noise is None else noise
    return outputs if y is None else (1 - mix) * y + mix * outputs, noise


def _parted(data) -> tuple[Any, Tensor | None]:
    """Return inputs, and labels or None."""
    if isinstance(data, Tensor):
        return check_data((data, data))[0], None
    if not isinstance(data, (tuple, list)) or len(data) != 2 or isinstance(data[1], (tuple, list, dict)):
        raise ValueError(f"data must be inputs, or a pair (inputs, labels), got {type(data).__name__}")
    return check_data(data)


def _checked_mix(teacher, y, loss, mix: float) -> float:
    if loss not in (F.cross_entropy, F.mse_loss):
        raise ValueError(f"loss must be F.cross_entropy or F.mse_loss, which have softened twins, got {loss!r}")
    if y is None and mix == 0:
        raise ValueError("data must have labels where mix is 0: there would be nothing to learn from")
    mix = 1.0 if y is None else mix
    if teacher is None and mix > 0:
        raise ValueError(f"teacher must be given for mix={mix:g}, got None; with mix=0 labels teach alone")
    if teacher is not None and not isinstance(teacher, Teacher):
        raise ValueError(f"teacher must be a module, an Ensemble or a GaussianPosterior, got {type(teacher).__name__}")
    return mix


def _start(student, prior) -> nn.Module:
    """Return the network where the means begin, with the prior's parameters."""
    if prior is not None and not isinstance(prior, GaussianPosterior):
        raise ValueError(f"prior must be a GaussianPosterior or None, got {type(prior).__name__}")
    if student is None and prior is not None:
        return prior.model()
    if not isinstance(student, nn.Module):
        raise ValueError(f"student must be a network, or None to begin at a prior, got {type(student).__name__}")
    if prior is not None:
        own, other = ({k: tuple(p.shape) for k, p in m.named_parameters()} for m in (student, prior.template))
        if list(own.items()) != list(other.items()):
            raise ValueError(
                f"prior must have the parameters of the student in their order, {own}, got {other}: drop_neurons makes a "
                "prior smaller"
            )
    return student
