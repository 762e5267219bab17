"""A Bayesian student trained on a teacher's answers, with a prior made of the teacher's posterior."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_data, check_int
from ..covariance import GaussianPosterior, variational
from ..training import Data, Ensemble, Loss

__all__ = ["Dark", "answers", "distill"]

AT_ONCE = 1 << 22  # numbers that the answers of all members may hold


def distill(
    teacher: nn.Module | Ensemble | GaussianPosterior | None,
    student: nn.Module | None,
    data: Data | Tensor,
    loss: Loss,
    *,
    prior: GaussianPosterior | None,
    temperature: float = 2.0,
    mix: float = 0.5,
    size: int = 100,
    noise: float | None = None,
    generator: torch.Generator | None = None,
    **options,
) -> GaussianPosterior:
    """The Gaussian over a student's parameters nearest to prior times likelihood of labels and of a teacher's answers.

    What a label counts is shared between it and the teacher (Hinton, Vinyals and Dean 2015): for classes an example costs
    ``(1 - mix) CE(y, g) + mix T^2 KL(f_T | g_T)``, answers softened by the temperature T, which their gradients do not
    shrink with; for numbers ``(1 - mix) (g - y)^2 + mix (g - f)^2`` over twice the noise. The teacher's answer is an
    average over draws of its posterior, or over the members of an ensemble. Training is by variational inference.

    Args:
        teacher: what answers; None, if only labels are to teach
        student: a network, at whose weights the means begin; the mean of the prior if None
        data: inputs and labels, or inputs alone, to which the teacher's answers are all there is (as ``mix=1``)
        loss: `F.cross_entropy` or `F.mse_loss`
        prior: over the student's parameters, such as `drop_neurons` and `temper` give; None for
            N(0, 1 / prior_precision). One that has seen the same labels counts them twice.
        temperature: T of at least 1, for classes
        mix: from 0, labels only, to 1, the teacher only
        size: draws of the teacher's posterior
        noise: variance of numbers about the student's answers; by default that in the teacher's report, else its mean
            squared residual. Without a teacher it is learned.
        options: of `variational`, such as family, layers, epochs, batch_size, draws, prior_precision

    Returns:
        a posterior of the student; report "mix" and "temperature", and else as `variational` has it
    """
    x, y = _parted(data)
    mix = _check(teacher, y, loss, temperature, mix)
    student = _start(student, prior)
    dtype = next(student.parameters()).dtype
    if x.is_floating_point() and x.dtype != dtype:
        raise ValueError(f"data must be {dtype}, as the student is, got inputs of {x.dtype}: convert one of them")
    if loss is F.cross_entropy:
        if noise is not None:
            raise ValueError("noise belongs to a squared error: leave it out for classes")
        target, cost, kind = _classes(teacher, x, y, temperature, mix, size, generator)
    else:
        target, noise = _numbers(teacher, x, y, noise, mix, size, generator)
        cost, kind = F.mse_loss, "gaussian"
        options["noise"] = noise
    target = target.to(dtype) if target.is_floating_point() else target
    found = variational(student, (x, target), cost, prior=prior, generator=generator, **options)
    told = {"method": "distill", "likelihood": kind, "mix": mix, "temperature": float(temperature)}
    return replace(found, report=dict(found.report) | told)


class Dark:
    """The loss of an answer (B, C) against targets (B, 1 + C): the class, and the teacher's probabilities at T."""

    def __init__(self, temperature: float, mix: float):
        self.temperature, self.mix = temperature, mix

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        t, soft = self.temperature, target[:, 1:]
        cost = 0.0
        if self.mix < 1:
            cost = (1 - self.mix) * F.cross_entropy(out, target[:, 0].long())
        if self.mix > 0:
            cost = cost + self.mix * t**2 * F.kl_div(F.log_softmax(out / t, 1), soft, reduction="batchmean")
        return cost


@torch.no_grad()
def answers(
    teacher: nn.Module | Ensemble | GaussianPosterior,
    x: Tensor,
    *,
    temperature: float | None = None,
    size: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What a teacher says of inputs (B, ...), averaged over its draws or members, in evaluation mode.

    Args:
        temperature: probabilities of classes (B, C), of logits divided by it; None for the answers themselves
        size: draws of a posterior
    """
    members = teacher.sample(check_int(size, "size", 1), generator) if isinstance(teacher, GaussianPosterior) else teacher

    def ask(part: Tensor) -> Tensor:
        if isinstance(members, Ensemble):
            out = members(part)
        else:
            flags = [(m, m.training) for m in members.modules()]
            out = members.eval()(part)[None]
            for module, flag in flags:
                module.training = flag
        out = out.double()
        return (out if temperature is None else (out / temperature).softmax(2)).mean(0)

    many = len(members) if isinstance(members, Ensemble) else 1
    step = max(1, AT_ONCE // (many * x[0].numel()))
    return torch.cat([ask(part) for part in x.split(step)])


def _classes(teacher, x, y, temperature, mix, size, generator):
    if mix == 0:
        return y, F.cross_entropy, "categorical"
    soft = answers(teacher, x, temperature=temperature, size=size, generator=generator)
    label = torch.zeros(len(x), dtype=soft.dtype) if y is None else y.to(soft.dtype)
    if y is not None and (y.ndim != 1 or y.min() < 0 or y.max() >= soft.shape[1]):
        raise ValueError(
            f"data must have classes (B,) from 0 to {soft.shape[1] - 1}, as the teacher, got {tuple(y.shape)}"
        )
    return torch.cat([label[:, None], soft], 1), Dark(float(temperature), mix), "categorical"


def _numbers(teacher, x, y, noise, mix, size, generator):
    """One target for both squares, which differ from its own by what no student changes."""
    if mix == 0:
        return y, noise
    said = answers(teacher, x, size=size, generator=generator)
    if y is not None and y.shape != said.shape:  # the squared error would pair each with every other
        raise ValueError(
            f"data must have targets of the shape of the teacher's answers {tuple(said.shape)}, got {tuple(y.shape)}"
        )
    if noise is None:
        noise = getattr(teacher, "report", {}).get("noise") if isinstance(teacher, GaussianPosterior) else None
        if noise is None and y is None:
            raise ValueError(
                "noise must be given: there are no labels to tell it from, and the teacher does not report it"
            )
        noise = float((said - y).square().mean()) if noise is None else noise
    return said if y is None else (1 - mix) * y + mix * said, noise


def _parted(data) -> tuple[Tensor, Tensor | None]:
    """Inputs, and labels or None."""
    alone = isinstance(data, Tensor)
    if not alone and not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise ValueError(f"data must be inputs, or a pair (inputs, labels), got {type(data).__name__}")
    x, y = (data, data) if alone else data
    check_data((x, y))
    return x, None if alone else y


def _check(teacher, y, loss, temperature, mix) -> float:
    if loss not in (F.cross_entropy, F.mse_loss):
        raise ValueError(f"loss must be F.cross_entropy or F.mse_loss, which have softened twins, got {loss!r}")
    if isinstance(temperature, bool) or not isinstance(temperature, Real) or not 1 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number of at least 1, got {temperature!r}")
    if isinstance(mix, bool) or not isinstance(mix, Real) or not 0 <= mix <= 1:
        raise ValueError(f"mix must be a share from 0 (labels only) to 1 (the teacher only), got {mix!r}")
    if y is None and mix == 0:
        raise ValueError("data must have labels where mix is 0: there would be nothing to learn from")
    mix = 1.0 if y is None else float(mix)
    if teacher is None and mix > 0:
        raise ValueError(f"teacher must be given for mix={mix:g}, got None; with mix=0 labels teach alone")
    if teacher is not None and not isinstance(teacher, (nn.Module, Ensemble, GaussianPosterior)):
        raise ValueError(f"teacher must be a module, an Ensemble or a GaussianPosterior, got {type(teacher).__name__}")
    return mix


def _start(student, prior) -> nn.Module:
    """Where the means begin, with the prior's parameters."""
    if prior is not None and not isinstance(prior, GaussianPosterior):
        raise ValueError(f"prior must be a GaussianPosterior or None, got {type(prior).__name__}")
    if student is None:
        if prior is None:
            raise ValueError("student must be a network where there is no prior to begin at, got None")
        return prior.model()
    if not isinstance(student, nn.Module):
        raise ValueError(f"student must be a module, got {type(student).__name__}")
    if prior is not None:
        ours, theirs = ({k: tuple(p.shape) for k, p in m.named_parameters()} for m in (student, prior.template))
        if list(ours) != list(theirs):
            raise ValueError(
                f"prior must have the parameters of the student in their order, {list(ours)}, got {list(theirs)}"
            )
        for name, shape in ours.items():
            if shape != theirs[name]:
                wider = any(a > b for a, b in zip(shape, theirs[name]))
                how = "pad_neurons makes the prior wider" if wider else "drop_neurons makes the prior smaller"
                raise ValueError(f"prior must have the student's shape {shape} in {name!r}, got {theirs[name]}: {how}")
    return student
