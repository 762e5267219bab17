"""The bootstrap: the covariance of a neuron from networks fitted to data drawn anew (the paper's section 4.1)."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .._files import replacing
from ..alignment import align as aligned
from ..checks import arguments, check_int, n_examples, take
from ..neurons import NeuronDistribution, weight_of
from ..training import Data, Ensemble, Loss, member_seeds
from ..training.loop import failures, spawn, train_members
from ..training.options import Optimizer, TrainingOptions
from .resampling import KINDS, Resampler, block_length, overlap

__all__ = ["Moments", "bootstrap", "bootstrap_neurons"]


def bootstrap(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    n_models: int = 100,
    resample: str = "auto",
    block: int | str | None = None,
    strata: Tensor | str | None = "auto",
    groups: Tensor | None = None,
    init: str = "shared",
    align: str | None = "auto",
    chunk: int = 25,
    n_jobs: int | None = None,
    store: str | os.PathLike | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    epochs: int = 20,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    validation: Data | None = None,
    patience: int | None = None,
) -> Ensemble:
    """Fit `n_models` copies of a network to data drawn anew, whose weights vary as the estimate does.

    The default starts every member from the trained `model` and visits examples in one order, so that only the
    data differ: the spread is that of the estimate. ``init="independent"`` adds the spread of the optimisation,
    and ``resample="fixed"`` with it is what the paper's authors ran: the data never change, no bootstrap. Fixed data
    from a shared start leave the noise of the minibatches alone, a control for the others.

    Members are trained in chunks, which go through joblib: a surrounding ``joblib.parallel_config("dask")`` sends
    them to a cluster. Each chunk is the same bits wherever it runs.

    Args:
        model: a trained network; it stays as it was
        data, loss: as in `train_ensemble`
        resample: "pairs" draws examples with replacement, "weights" weighs them (Bayesian bootstrap), "blocks"
            draws runs of neighbours, "fixed" keeps the data; "auto" is blocks if `block` is given, else pairs
        block: for windows of a series, how many consecutive windows make a block; "auto" takes the rule of
            Politis and White (2004) on the losses of `model`, and at least the width of overlapping windows
        strata: labels (n,) whose counts every member keeps; "auto" takes the classes, if targets are integers
        groups: labels (n,) of recordings, whose joints no block crosses
        init: "shared" or "independent"
        align: "auto" aligns members that began independently to `model` (see `mspace.alignment.align`); a
            group's name does so always, None never
        chunk: members trained side by side
        n_jobs: chunks at a time, by default as joblib is configured, else one
        store: a folder that keeps finished chunks; the same call resumes there after an interruption
        progress: wraps the loop over chunks
        epochs, batch_size, optimizer, validation, patience: as in `train_ensemble`

    Returns:
        an `Ensemble` of the members that converged; its report holds "member", their indices

    Warns:
        RuntimeWarning: when members failed (a loss that is not finite or above three times the median) and
            were left out
    """
    design = Design(n_models, resample, block, strata, groups, chunk)
    training = TrainingOptions(init, _order(resample, init), epochs, batch_size, optimizer, validation, patience)
    chunks = _chunks(model, data, loss, design, training, n_jobs, store, generator, progress)
    return _align(_converged(Ensemble.cat(list(chunks))), model, init, align)


def bootstrap_neurons(
    model: nn.Module,
    data: Data,
    loss: Loss,
    layer: str | Sequence[str],
    *,
    axis: int = 0,
    n_models: int = 100,
    resample: str = "auto",
    block: int | str | None = None,
    strata: Tensor | str | None = "auto",
    groups: Tensor | None = None,
    init: str = "shared",
    align: str | None = "auto",
    chunk: int = 25,
    n_jobs: int | None = None,
    store: str | os.PathLike | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    epochs: int = 20,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    validation: Data | None = None,
    patience: int | None = None,
) -> NeuronDistribution:
    """Estimate mean and covariance of one layer's neurons by `bootstrap`, keeping moments and not members.

    Memory does not grow with the number of members: chunks are merged as they come. Failures are judged within
    a chunk. Options as in `bootstrap`.
    """
    weight_of(model, layer, axis=axis)  # a layer that is not there is named before any training
    design = Design(n_models, resample, block, strata, groups, chunk)
    training = TrainingOptions(init, _order(resample, init), epochs, batch_size, optimizer, validation, patience)
    chunks = _chunks(model, data, loss, design, training, n_jobs, store, generator, progress)
    parts = (_align(_converged(part, least=1), model, init, align) for part in chunks)
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

    def resampler(self, model: nn.Module, data: Data, loss: Loss) -> Resampler:
        """Return what draws the examples, or refuse options that do not fit each other."""
        block, strata = self.block, self.strata
        kind = ("pairs" if block is None else "blocks") if self.resample == "auto" else self.resample
        if kind not in KINDS:
            raise ValueError(f"resample must be one of auto, {', '.join(KINDS)}, got {self.resample!r}")
        if (block is None) == (kind == "blocks"):
            with_what = f"{block!r} with {self.resample!r}"
            raise ValueError(f'block must be given with resample="blocks" and only there, got {with_what}')
        x, y = data
        n = n_examples(x)
        for name, labels in (("strata", strata), ("groups", self.groups)):
            if isinstance(labels, Tensor) and len(labels) != n:
                raise ValueError(f"{name} must be a label for each of the {n} examples, got {len(labels)}")
        if isinstance(strata, str):
            classes = isinstance(y, Tensor) and not y.is_floating_point() and y.ndim == 1
            strata = y if classes and kind in ("pairs", "weights") else None
        if kind != "blocks":
            return Resampler(kind, strata=strata)
        if block == "auto":
            block = max(block_length(_losses(model, data, loss)), *map(overlap, tree_leaves(x)))
        resampler = Resampler(kind, check_int(block, "block", 1), groups=self.groups)
        resampler.starts(n)  # raises if the block does not fit
        return resampler


def _order(resample: str, init: str) -> str:
    """Examples come in one order for all where the data are to be the only difference."""
    return "own" if resample == "fixed" or init == "independent" else "shared"


def _chunks(
    model, data, loss, design: Design, training: TrainingOptions, n_jobs, store, generator, progress
) -> Iterator[Ensemble]:
    """Yield finished chunks in order, each trained here, elsewhere, or long ago."""
    from joblib import Parallel, delayed

    n_models, chunk = check_int(design.n_models, "n_models", 2), check_int(design.chunk, "chunk", 1)
    data, training = training.checked(model, data, loss)
    resampler = design.resampler(model, data, loss)
    seeds = member_seeds(n_models, generator)
    parts = [seeds[i : i + chunk] for i in range(0, n_models, chunk)]
    paths = _paths(store, parts, model, data, loss, resampler, training)
    train = delayed(_train)
    jobs = (train(model, data, loss, part, resampler, training, path) for part, path in zip(parts, paths))
    done = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
    for i, (part, path) in zip(progress(range(len(parts))), zip(done, paths)):
        ensemble = part if path is None else Ensemble.load(path, model)
        member = torch.arange(i * chunk, i * chunk + len(ensemble))
        yield replace(ensemble, report={**ensemble.report, "member": member})


def _train(
    model, data, loss, seeds, resampler: Resampler, training: TrainingOptions, path: Path | None
) -> Ensemble | None:
    """Train one chunk, on one thread, so that its bits depend on nothing around it."""
    if path is not None and path.exists():
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        n, dtype = n_examples(data[0]), next(model.parameters()).dtype
        streams = [torch.Generator().manual_seed(spawn(seed, 3)) for seed in seeds]
        index = weight = None
        if resampler.kind == "weights":
            weight = torch.stack([resampler.weights(n, g) for g in streams]).to(dtype)
        elif resampler.kind != "fixed":
            index = torch.stack([resampler.indices(n, g) for g in streams])
        ensemble = train_members(model, data, loss, seeds, training, index, weight)
    finally:
        torch.set_num_threads(threads)
    if path is None:
        return ensemble
    ensemble.save(path)
    return None


def _losses(model: nn.Module, data: Data, loss: Loss) -> Tensor:
    """Return the loss of each example, (n,), in evaluation mode: dropout would draw from the global stream."""
    args, kwargs = arguments(data[0])
    with torch.no_grad():
        out = copy.deepcopy(model).eval()(*args, **kwargs)
        each = (slice(i, i + 1) for i in range(n_examples(data[0])))
        return torch.stack([loss(take(out, i), take(data[1], i)) for i in each])


def _converged(ensemble: Ensemble, least: int = 2) -> Ensemble:
    failed = ensemble.report["failed"] | failures(ensemble.report["loss"])
    if not failed.any():
        return ensemble
    kept = ~failed
    if kept.sum() < least:
        raise ValueError(f"{int(failed.sum())} of {len(failed)} members failed to converge: train longer, or slower")
    warnings.warn(
        f"{int(failed.sum())} of {len(failed)} members did not converge and are left out", RuntimeWarning, stacklevel=3
    )
    return ensemble.keep(kept)


def _align(ensemble: Ensemble, model, init: str, align: str | None) -> Ensemble:
    group = {"auto": "permutation" if init == "independent" else None}.get(align, align)
    return ensemble if group is None else aligned(ensemble, model, group=group)


def _paths(store, parts, model, data, loss, resampler, training) -> list[Path | None]:
    """Return where each chunk is kept; a folder that holds another bootstrap is refused, not mixed in."""
    if store is None:
        return [None] * len(parts)
    folder, digest = Path(store), _digest(model, data, loss, resampler, training, parts)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "bootstrap.json"
    if note.exists() and json.loads(note.read_text()).get("digest") != digest:
        raise ValueError(
            f"store {str(folder)!r} holds a bootstrap of other data, model, options or seed: name another folder, "
            "or delete it"
        )
    with replacing(note) as part:
        part.write_text(json.dumps({"digest": digest, "chunks": len(parts)}))
    return [folder / f"chunk-{i:05d}.safetensors" for i in range(len(parts))]


def _digest(model, data, loss, resampler: Resampler, training: TrainingOptions, parts) -> str:
    tensors = [*model.state_dict().values(), *tree_leaves(data), resampler.strata, resampler.groups]
    settings = [str(model), resampler.kind, resampler.block, loss, parts, vars(training)]
    return hashlib.sha256(repr([_written(v) for v in (*tensors, *settings)]).encode()).hexdigest()


def _written(value) -> object:
    """Return a setting by its content and not by where it lies in memory."""
    if isinstance(value, partial):
        return ("partial", _written(value.func), _written(value.args), _written(value.keywords))
    if isinstance(value, Tensor):
        content = value.detach().contiguous().cpu().numpy().tobytes()
        return (hashlib.sha256(content).hexdigest(), str(value.dtype), tuple(value.shape))
    if isinstance(value, dict):
        return {k: _written(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_written(v) for v in value]
    if callable(value):
        code = getattr(value, "__code__", None)
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
        return (name, code.co_code.hex(), repr(code.co_consts)) if code and "<lambda>" in name else name
    return repr(value)
