"""The bootstrap: the covariance of a neuron from networks fitted to data drawn anew (the paper's section 4.1)."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..alignment import align as aligned
from ..checks import check_choice, check_int, check_progress
from ..door import Checked
from ..network.facts import check_module
from ..neurons import NeuronDistribution, weight_of
from ..training import Data, Ensemble, Loss
from ..training.loop import failures
from ..training.options import Optimizer, TrainingOptions
from ..training.starts import drawn_seed
from .chunks import Design, Work, plan_of
from .store import Store

__all__ = ["Moments", "bootstrap", "bootstrap_neurons"]

GROUPS = ("permutation", "orthogonal", "linear")
FAR = 0.1  # of the step that new data bring about: a member further than that from its minimum is not at it


def bootstrap(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    output: int | str | Callable | None = None,
    n_models: int = 100,
    resample: str = "auto",
    block: int | str | None = None,
    strata: Tensor | None = None,
    groups: Tensor | None = None,
    init: str | Callable[[nn.Module], object] = "shared",
    align: str | None = "auto",
    chunk: int = 25,
    n_jobs: int | None = None,
    store: str | os.PathLike | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    epochs: int | None = None,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    validation: Data | None = None,
    patience: int | None = None,
) -> Ensemble:
    """Fit `n_models` copies of a network to data drawn anew, whose weights vary as the estimate does.

    By default every member starts from the trained `model` and goes to the minimum of the loss on its own data, by L-BFGS on
    all of them; report["gradient"] says how far from it each one is, as a share of the step that drawing the data anew
    brought about. With `epochs` members are trained for that long instead, visit examples in one order, and end where that
    takes them: a spread that is too small if it is not to their minima. ``init="independent"`` adds the spread of the
    optimisation, and ``resample="fixed"`` with it is what the paper's authors ran: the data never change, no bootstrap.
    Fixed data from a shared start leave the noise of the minibatches alone, a control for the others.

    Members are trained in chunks, which go through joblib: a surrounding ``joblib.parallel_config("dask")`` sends
    them to a cluster. Each chunk is the same bits wherever it runs, on one thread of torch, also in this process.

    Args:
        model: a trained network; it stays as it was
        data, loss, output: as in `train_ensemble`
        resample: "pairs" draws examples with replacement, "weights" weighs them (Bayesian bootstrap), "blocks"
            draws runs of neighbours, "fixed" keeps the data; "auto" is blocks where there is a block, else pairs
        block: for windows of a series, how many consecutive windows make a block; "auto" takes the rule of
            Politis and White (2004) on the losses of `model`, and at least the width of overlapping windows. It is the
            default where the inputs overlap, which is said
        strata: labels (n,) whose counts every member keeps; by default none, so that the counts of classes vary as well
        groups: labels (n,), such as people: whole groups are drawn. With blocks, labels of recordings, whose joints no
            block crosses
        init: "shared", "independent" or a function, as in `train_ensemble`
        align: "auto" aligns members that began independently to `model` (see `mspace.alignment.align`); a
            group's name does so always, None never
        chunk: members trained side by side
        n_jobs: chunks at a time, by default as joblib is configured, else one
        store: a folder that keeps finished chunks; the same call resumes there after an interruption, and a call with
            more `n_models` adds to it
        progress: wraps the loop over chunks
        epochs: by default until members are at their minima; of networks with dropout or batch normalisation, of
            independent starts (before the descent) and of fixed data as in `train_ensemble`
        batch_size, optimizer, validation, patience: as in `train_ensemble`

    Returns:
        an `Ensemble` of the members that converged; its report holds "member", their indices, "loss", and "gradient" where
        members were brought to their minima

    Warns:
        RuntimeWarning: when members failed (a loss that is not finite, or above three times the median and a hundredth of
            that of a constant output) and were left out; when more than a tenth are far from their minima; when blocks
            were chosen because windows overlap
    """
    design = Design(n_models, resample, block, strata, groups, chunk)
    training = TrainingOptions(init, _order(resample, init), epochs, batch_size, optimizer, validation, patience)
    given, chunks = _chunks(model, data, loss, output, design, training, align, n_jobs, store, generator, progress)
    ensemble = _converged(Ensemble.cat(_finished(chunks)), _least_loss(given))
    _warn_if_far(ensemble.report.get("gradient"))
    return _align(ensemble, model, init, align)


def bootstrap_neurons(
    model: nn.Module,
    data: Data,
    loss: Loss,
    layer: str | Sequence[str],
    *,
    axis: int = 0,
    output: int | str | Callable | None = None,
    n_models: int = 100,
    resample: str = "auto",
    block: int | str | None = None,
    strata: Tensor | None = None,
    groups: Tensor | None = None,
    init: str | Callable[[nn.Module], object] = "shared",
    align: str | None = "auto",
    chunk: int = 25,
    n_jobs: int | None = None,
    store: str | os.PathLike | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    epochs: int | None = None,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    validation: Data | None = None,
    patience: int | None = None,
) -> NeuronDistribution:
    """Estimate mean and covariance of one layer's neurons by `bootstrap`, keeping moments and not members.

    Memory does not grow with the number of members: chunks are merged as they come. Failures are judged within
    a chunk. Options as in `bootstrap`.
    """
    check_module(model)
    weight_of(model, layer, axis=axis)  # a layer that is not there is named before any training
    design = Design(n_models, resample, block, strata, groups, chunk)
    training = TrainingOptions(init, _order(resample, init), epochs, batch_size, optimizer, validation, patience)
    given, chunks = _chunks(model, data, loss, output, design, training, align, n_jobs, store, generator, progress)
    least = _least_loss(given)
    parts = (_align(_converged(part, least, fewest=1), model, init, align) for part in chunks)
    return reduce(Moments.merge, (Moments.of(part.samples(layer, axis=axis)) for part in parts)).distribution()


@dataclass(frozen=True)
class Moments:
    """Count, mean (m, n) and summed squares about it (m, n, n) of draws; two of them merge exactly (Chan 1979)."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Moments:
        """Return the moments of draws (N, m, n), N >= 1."""
        x = samples.detach().double()
        centred = x - x.mean(0)
        return cls(len(x), x.mean(0), torch.einsum("smi,smj->mij", centred, centred))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both together."""
        count, gap = self.count + other.count, other.mean - self.mean
        outer = torch.einsum("mi,mj->mij", gap, gap) * (self.count * other.count / count)
        return Moments(count, self.mean + gap * (other.count / count), self.scatter + other.scatter + outer)

    def distribution(self) -> NeuronDistribution:
        """Return mean and unbiased covariance, divided by count - 1."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two draws, got {self.count}")
        return NeuronDistribution(self.mean, self.scatter / (self.count - 1))


def _finished(chunks: Iterator[Ensemble]) -> list[Ensemble]:
    """Return all chunks; after an interruption those that are finished, which is said."""
    found: list[Ensemble] = []
    try:
        for part in chunks:
            found.append(part)
    except KeyboardInterrupt:
        if sum(map(len, found)) < 2:
            raise
        warnings.warn(
            f"interrupted: {sum(map(len, found))} finished members are returned", RuntimeWarning, stacklevel=3
        )
    return found


def _order(resample: str, init) -> str:
    """Examples come in one order for all where the data are to be the only difference."""
    return "own" if resample == "fixed" or init != "shared" else "shared"


def _chunks(
    model, data, loss, output, design: Design, training: TrainingOptions, align, n_jobs, store, generator, progress
) -> tuple[Checked, Iterator[Ensemble]]:
    """Return what passed the door, and an iterator over finished chunks in order; everything is checked before."""
    n_models, chunk = check_int(design.n_models, "n_models", 2), check_int(design.chunk, "chunk", 1)
    check_progress(progress)
    if n_jobs is not None and (not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0):
        raise ValueError(f"n_jobs must be a whole number other than 0, or None, got {n_jobs!r}")
    given, filled = training.checked(model, data, loss, output=output)
    plan = plan_of(given, design, training, filled)
    _check_align(model, training.init, align)
    seed = drawn_seed(generator)
    work = Work(model, given, plan, n_models, chunk, seed, n_jobs)
    if store is not None:
        work = work.kept_in(Store(store, model, given.data, given.loss, plan, output, seed))
    return given, work.run(progress)


def _check_align(model: nn.Module, init, align) -> None:
    """Refuse networks that cannot be aligned before their training."""
    if align is not None and align != "auto":
        check_choice(align, "align", GROUPS)
    if _group(init, align) is None:
        return
    try:
        _align(Ensemble.of([model, model]), model, init, align)
    except ValueError as why:
        reason = str(why).partition(": ")[0]
        raise ValueError(f"align=None is needed for this network, whose members cannot be aligned ({reason})") from why


def _least_loss(given: Checked) -> float:
    """Return a hundredth of the loss of a constant output, by the examples that were tried at the door."""
    target = given.target
    same = isinstance(target, Tensor) and isinstance(given.out, Tensor) and target.shape == given.out.shape
    constant = target.to(given.out.dtype).mean(0).expand_as(target) if same else tree_map(torch.zeros_like, given.out)
    with torch.no_grad():
        loss = abs(float(given.loss(constant, target)))
    return 0.01 * loss if math.isfinite(loss) else 0.0


def _converged(ensemble: Ensemble, least: float, fewest: int = 2) -> Ensemble:
    failed = ensemble.report["failed"] | failures(ensemble.report["loss"], least)
    if not failed.any():
        return ensemble
    kept = ~failed
    if kept.sum() < fewest:
        raise ValueError(
            f"optimizer must bring members to a finite loss, got {int(failed.sum())} of {len(failed)} that failed to "
            "converge: train longer, or more slowly"
        )
    warnings.warn(
        f"{int(failed.sum())} of {len(failed)} members did not converge and are left out", RuntimeWarning, stacklevel=3
    )
    return ensemble.keep(kept)


def _warn_if_far(gradient: Tensor | None) -> None:
    """Say that members are not at their minima, which their spread is about."""
    if gradient is None or (gradient > FAR).double().mean() <= 0.1:
        return
    warnings.warn(
        f"{int((gradient > FAR).sum())} of {len(gradient)} members have not reached a minimum, half of them are further "
        f"from it than {float(gradient.median()):.2g} of the step that new data bring about: the data do not determine all "
        "parameters. Fewer parameters or a weight decay in the loss would, or name epochs= to take the spread of a training "
        "of that length",
        RuntimeWarning,
        stacklevel=3,
    )


def _group(init, align: str | None) -> str | None:
    return {"auto": None if init == "shared" else "permutation"}.get(align, align) if align is not None else None


def _align(ensemble: Ensemble, model, init, align: str | None) -> Ensemble:
    group = _group(init, align)
    return ensemble if group is None else aligned(ensemble, model, group=group)
