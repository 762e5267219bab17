"""The bootstrap: the covariance of a neuron from networks fitted to data drawn anew (the paper's section 4.1)."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .._memory import examples_at_once
from ..alignment import align as aligned
from ..checks import arguments, check_choice, check_int, check_labels, check_progress, n_examples, take
from ..door import Checked
from ..network.facts import check_module
from ..network.modules import batch_norms, copied
from ..neurons import NeuronDistribution, weight_of
from ..training import Data, Ensemble, Loss
from ..training.loop import drawn_seed, failures, seeds_from, spawn, train_members
from ..training.options import Optimizer, TrainingOptions, training_copy
from .resampling import KINDS, Resampler, block_length, overlap
from .store import Store, load_chunk, save_chunk

__all__ = ["Moments", "bootstrap", "bootstrap_neurons"]

ATTEMPTS = 3  # at chunks of a worker process that is killed
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


@dataclass(frozen=True)
class Design:
    """How many members there are and what they see: the options of `bootstrap` of these names."""

    n_models: int
    resample: str
    block: int | str | None
    strata: Tensor | str | None
    groups: Tensor | None
    chunk: int

    def resampler(self, given: Checked) -> Resampler:
        """Return what draws the examples, or refuse options that do not fit each other."""
        check_choice(self.resample, "resample", ("auto", *KINDS))
        n, block = n_examples(given.data[0]), self.block
        if block is None and self.resample == "auto" and self.groups is None and self.strata is None:
            block = _block_of_windows(given.data[0])
        kind = ("pairs" if block is None else "blocks") if self.resample == "auto" else self.resample
        if (block is None) == (kind == "blocks"):
            with_what = f"{block!r} with {self.resample!r}"
            raise ValueError(f'block must be given with resample="blocks" and only there, got {with_what}')
        strata, groups = (_labels(v, name, n) for v, name in ((self.strata, "strata"), (self.groups, "groups")))
        if strata is not None and (kind not in ("pairs", "weights") or groups is not None):
            raise ValueError(
                f'strata need resample="pairs" or "weights" without groups, got them with {kind!r}: leave them out'
            )
        if groups is not None and kind == "fixed":
            raise ValueError('groups need data that are drawn anew, got them with resample="fixed": leave them out')
        if kind != "blocks":
            return Resampler(kind, strata=strata, groups=groups)
        if block == "auto":
            block = max(block_length(_losses(given)), *map(overlap, tree_leaves(given.data[0])))
        resampler = Resampler(kind, check_int(block, 'block (a number or "auto")', 1), groups=groups)
        resampler.starts(n)  # raises if the block does not fit
        return resampler


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


def _labels(value, name: str, n: int) -> Tensor | None:
    return None if value is None else check_labels(value, name, n)


def _block_of_windows(inputs) -> str | None:
    """Return "auto" where the inputs are overlapping windows, and say so."""
    if max(map(overlap, tree_leaves(inputs))) == 1:
        return None
    warnings.warn(
        'the inputs are overlapping windows of a series, which are not independent: blocks are drawn, as by block="auto"; '
        'resample="pairs" would draw single windows',
        RuntimeWarning,
        stacklevel=5,
    )
    return "auto"


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
    plan = _plan(given, design, training, filled)
    _check_align(model, training.init, align)
    seed = drawn_seed(generator)
    work = Work(model, given, plan, n_models, chunk, seed, n_jobs)
    if store is not None:
        work = work.kept_in(Store(store, model, given.data, given.loss, plan, output, seed))
    return given, work.run(progress)


@dataclass(frozen=True)
class Plan:
    """How the data of members are drawn, how members are trained, and whether they are brought to their minima."""

    resampler: Resampler
    training: TrainingOptions
    finish: bool


def _plan(given: Checked, design: Design, asked: TrainingOptions, filled: TrainingOptions) -> Plan:
    """Return the plan: without `epochs` members descend to their minima, where these are minima of one function."""
    resampler = design.resampler(given)
    template = training_copy(given.model)
    finish = (
        asked.epochs is None and resampler.kind != "fixed" and asked.validation is None and not _is_random(template)
    )
    if finish and asked.init == "shared":
        filled = replace(filled, epochs=0)
    return Plan(resampler, filled, finish)


def _is_random(template: nn.Module) -> bool:
    """Return whether a pass in training mode draws numbers, or depends on the batch."""
    drops = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 and m.training for m in template.modules())
    return drops or bool(batch_norms(template, training=True, instance=True))


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


@dataclass(frozen=True)
class Work:
    """The chunks of a bootstrap: their sizes, which may reach beyond `n_models`, and where each is kept, if anywhere."""

    model: nn.Module
    given: Checked
    plan: Plan
    n_models: int
    chunk: int
    seed: int
    n_jobs: int | None
    sizes: tuple[int, ...] = ()
    paths: tuple[Path, ...] = ()
    digest: str = ""

    def kept_in(self, store: Store) -> Work:
        """Return the same work with chunks in a folder, of which some may be there."""
        sizes = store.layout(self.n_models, self.chunk)
        return replace(self, sizes=tuple(sizes), paths=tuple(store.paths(sizes, self.model)), digest=store.digest)

    def chunks(self) -> list[tuple[int, int]]:
        """Return the first and the last member but one of each chunk that is needed."""
        n, c = self.n_models, self.chunk
        sizes = self.sizes or [min(c, n - i) for i in range(0, n, c)]
        ends = list(accumulate(sizes))
        return [(end - size, end) for size, end in zip(sizes, ends) if end - size < n]

    def run(self, progress: Callable[[Iterable], Iterable]) -> Iterator[Ensemble]:
        """Yield finished chunks in order, each trained here, elsewhere, or long ago."""
        chunks, seeds = self.chunks(), seeds_from(self.seed, max(self.n_models, sum(self.sizes)))
        jobs = [(seeds[a:b], a, self.paths[i] if self.paths else None) for i, (a, b) in enumerate(chunks)]
        results = self._results(jobs)
        for i in progress(range(len(jobs))):
            (first, last), part = chunks[i], next(results)
            ensemble = part if part is not None else load_chunk(self.paths[i], self.model)
            member = torch.arange(first, last)
            ensemble = replace(ensemble, report={**ensemble.report, "member": member})
            yield ensemble if last <= self.n_models else ensemble.keep(slice(self.n_models - first))

    def _results(self, jobs: list) -> Iterator[Ensemble | None]:
        """Yield what each job gives; those of a worker that was killed are run again."""
        from joblib import Parallel, delayed
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        done = 0
        for attempt in range(ATTEMPTS):
            left = (delayed(_train)(self.model, self.given, self.plan, *job, self.digest) for job in jobs[done:])
            try:
                for result in Parallel(n_jobs=self.n_jobs, return_as="generator")(left):
                    yield result
                    done += 1
                return
            except TerminatedWorkerError:
                if attempt == ATTEMPTS - 1:
                    raise ValueError(
                        f"n_jobs must leave memory for each process, one was killed {ATTEMPTS} times: take fewer, or a "
                        "smaller chunk"
                    ) from None
                warnings.warn("a worker process was killed: its chunks are trained again", RuntimeWarning, stacklevel=5)


def _train(model, given: Checked, plan: Plan, seeds, first: int, path: Path | None, digest: str) -> Ensemble | None:
    """Train one chunk, on one thread, so that its bits depend on nothing around it."""
    if path is not None and path.exists():
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        n, dtype = n_examples(given.data[0]), next(model.parameters()).dtype
        streams = [torch.Generator().manual_seed(spawn(seed, 3)) for seed in seeds]
        index = weight = None
        if plan.resampler.weighs:
            weight = torch.stack([plan.resampler.weights(n, g) for g in streams]).to(dtype)
        elif plan.resampler.kind != "fixed":
            index = torch.stack([plan.resampler.indices(n, g) for g in streams])
        ensemble = train_members(model, given, seeds, plan.training, index, weight, finish=plan.finish)
    finally:
        torch.set_num_threads(threads)
    if path is None:
        return ensemble
    save_chunk(ensemble, path, digest, first)
    return None


def _losses(given: Checked) -> Tensor:
    """Return the loss of each example, (n,), in evaluation mode: dropout would draw from the global stream."""
    model, n = copied(given.model).eval(), n_examples(given.data[0])
    each = []
    at_once = examples_at_once(model, given.data[0], 1)
    with torch.no_grad():
        for start in range(0, n, at_once):
            x, y = (take(part, slice(start, start + at_once)) for part in given.data)
            args, kwargs = arguments(x)
            out = model(*args, **kwargs)
            examples = (slice(i, i + 1) for i in range(n_examples(x)))
            each += [given.loss(take(out, i), take(y, i)) for i in examples]
    return torch.stack(each)


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
