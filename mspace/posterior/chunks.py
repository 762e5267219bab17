"""The members of a bootstrap in chunks: what each sees, how it is trained, and where it is kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .._memory import examples_at_once
from ..checks import arguments, check_choice, check_int, check_labels, n_examples, take
from ..door import Checked
from ..network.modules import batch_norms, copied
from ..training import Ensemble
from ..training.loop import train_members
from ..training.options import TrainingOptions, training_copy
from ..training.starts import seeds_from, spawn
from .resampling import KINDS, Resampler, block_length, overlap
from .store import Store, load_chunk, save_chunk

__all__ = ["Design", "Plan", "Work", "plan_of"]

ATTEMPTS = 3  # at chunks of a worker process that is killed


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


@dataclass(frozen=True)
class Plan:
    """How the data of members are drawn, how members are trained, and whether they are brought to their minima."""

    resampler: Resampler
    training: TrainingOptions
    finish: bool


def plan_of(given: Checked, design: Design, asked: TrainingOptions, filled: TrainingOptions) -> Plan:
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
