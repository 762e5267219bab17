"""The bootstrap: the covariance of a neuron from networks fitted to data drawn anew (the paper's section 4.1)."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..alignment import align as aligned
from ..checks import check_int
from ..neurons import NeuronDistribution, weight_of
from ..training import Data, Ensemble, Loss, member_seeds, train_ensemble
from ..training.loop import failures, spawn
from .draws import KINDS, Draw, block_length, overlap

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
    **training,
) -> Ensemble:
    """Fit `n_models` copies of a network to data drawn anew: what their weights scatter is the covariance.

    The default starts every member from the trained `model` and visits examples in one order, so that only the
    data differ: the spread is that of the estimate. ``init="independent"`` adds the spread of the optimisation,
    and ``resample="fixed"`` with it is what the paper's authors ran: the data never change, no bootstrap. Fixed data
    from a shared start leave the noise of the minibatches alone, a control for the others.

    Members are trained in chunks, which go through joblib: a surrounding ``joblib.parallel_config("dask")`` sends
    them to a cluster. Each chunk is the same bits wherever it runs.

    Args:
        model: a trained network; it stays as it is
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
        training: options of `train_ensemble`, such as epochs, batch_size, optimizer

    Returns:
        an `Ensemble` of the members that converged; its report holds "member", their numbers

    Warns:
        RuntimeWarning: when members failed (a loss that is not finite or above three times the median) and
            were left out
    """
    chunks = _chunks(
        model,
        data,
        loss,
        n_models=n_models,
        resample=resample,
        block=block,
        strata=strata,
        groups=groups,
        init=init,
        chunk=chunk,
        n_jobs=n_jobs,
        store=store,
        generator=generator,
        progress=progress,
        **training,
    )
    return _align(_converged(Ensemble.cat(list(chunks))), model, init, align)


def bootstrap_neurons(
    model: nn.Module,
    data: Data,
    loss: Loss,
    layer: str | Sequence[str],
    *,
    axis: int = 0,
    init: str = "shared",
    align: str | None = "auto",
    **options,
) -> NeuronDistribution:
    """Mean and covariance of one layer's neurons by `bootstrap`, keeping moments and not members.

    Memory does not grow with the number of members: chunks are merged as they come. Failures are judged within
    a chunk. Options as in `bootstrap`.
    """
    weight_of(model, layer, axis=axis)  # a layer that is not there is named before any training
    moments = None
    for part in _chunks(model, data, loss, init=init, **options):
        samples = _align(_converged(part, least=1), model, init, align).samples(layer, axis=axis)
        found = Moments.of(samples)
        moments = found if moments is None else moments.merge(found)
    return moments.distribution()


@dataclass(frozen=True)
class Moments:
    """Count, mean (m, n) and summed squares about it (m, n, n) of draws; two of them merge exactly (Chan 1979)."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Moments:
        """Of draws (N, m, n), N >= 1."""
        x = samples.detach().double()
        centred = x - x.mean(0)
        return cls(len(x), x.mean(0), torch.einsum("smi,smj->mij", centred, centred))

    def merge(self, other: Moments) -> Moments:
        """The moments of both together."""
        count, gap = self.count + other.count, other.mean - self.mean
        outer = torch.einsum("mi,mj->mij", gap, gap) * (self.count * other.count / count)
        return Moments(count, self.mean + gap * (other.count / count), self.scatter + other.scatter + outer)

    def distribution(self) -> NeuronDistribution:
        """Unbiased: divided by count - 1."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two draws, got {self.count}")
        return NeuronDistribution(self.mean, self.scatter / (self.count - 1))


def _chunks(
    model,
    data,
    loss,
    *,
    n_models=100,
    resample="auto",
    block=None,
    strata="auto",
    groups=None,
    init="shared",
    chunk=25,
    n_jobs=None,
    store=None,
    generator=None,
    progress=iter,
    **training,
) -> Iterator[Ensemble]:
    """Finished chunks in order, each trained here, elsewhere, or long ago."""
    from joblib import Parallel, delayed

    n_models, chunk = check_int(n_models, "n_models", 2), check_int(chunk, "chunk", 1)
    taken = {"resample", "weights", "seeds", "order", "init"} & training.keys()
    if taken:
        raise ValueError(f"options {sorted(taken)} of train_ensemble are set by bootstrap itself")
    options = {"init": init, "order": "own" if resample == "fixed" or init == "independent" else "shared"} | training
    train_ensemble(model, data, loss, 1, **(options | {"epochs": 0, "seeds": [0]}))  # what is wrong is said now
    draw = _draw(model, data, loss, resample, block, strata, groups)
    seeds = member_seeds(n_models, generator)
    parts = [seeds[i : i + chunk] for i in range(0, n_models, chunk)]
    paths = _paths(store, parts, model, data, loss, draw, options)
    jobs = (delayed(_train)(model, data, loss, part, draw, options, path) for part, path in zip(parts, paths))
    done = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
    for i, (part, path) in zip(progress(range(len(parts))), zip(done, paths)):
        found = part if path is None else Ensemble.load(path, model)
        member = torch.arange(i * chunk, i * chunk + len(found))
        yield Ensemble(found.template, found.parameters, found.buffers, {**found.report, "member": member})


def _train(model, data, loss, seeds, draw: Draw, options, path: Path | None) -> Ensemble | None:
    """One chunk, on one thread, so that its bits depend on nothing around it."""
    if path is not None and path.exists():
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        n, dtype = len(data[0]), next(model.parameters()).dtype
        streams = [torch.Generator().manual_seed(spawn(seed, 3)) for seed in seeds]
        index = None if draw.kind in ("weights", "fixed") else torch.stack([draw.index(n, g) for g in streams])
        weight = torch.stack([draw.weight(n, g) for g in streams]).to(dtype) if draw.kind == "weights" else None
        ensemble = train_ensemble(model, data, loss, len(seeds), resample=index, weights=weight, seeds=seeds, **options)
    finally:
        torch.set_num_threads(threads)
    if path is None:
        return ensemble
    ensemble.save(path)
    return None


def _draw(model, data, loss, resample, block, strata, groups) -> Draw:
    kind = ("pairs" if block is None else "blocks") if resample == "auto" else resample
    if kind not in KINDS:
        raise ValueError(f"resample must be one of auto, {', '.join(KINDS)}, got {resample!r}")
    if (block is None) == (kind == "blocks"):
        raise ValueError(f'block must be given with resample="blocks" and only there, got {block!r} with {resample!r}')
    x, y = data
    for name, labels in (("strata", strata), ("groups", groups)):
        if isinstance(labels, Tensor) and len(labels) != len(x):
            raise ValueError(f"{name} must be a label for each of the {len(x)} examples, got {len(labels)}")
    if isinstance(strata, str):
        strata = y if not y.is_floating_point() and y.ndim == 1 and kind in ("pairs", "weights") else None
    if kind != "blocks":
        return Draw(kind, strata=strata)
    if block == "auto":
        block = max(block_length(_losses(model, data, loss)), overlap(x))
    draw = Draw(kind, check_int(block, "block", 1), groups=groups)
    draw._starts(len(x))  # says so if it does not fit
    return draw


def _losses(model, data, loss) -> Tensor:
    resting = copy.deepcopy(model).eval()  # dropout would draw from the global stream
    with torch.no_grad():
        out = resting(data[0])
        return torch.stack([loss(o, t) for o, t in zip(out.split(1), data[1].split(1))])


def _converged(ensemble: Ensemble, least: int = 2) -> Ensemble:
    failed = ensemble.report["failed"] | failures(ensemble.report["loss"])
    if not failed.any():
        return ensemble
    kept = ~failed
    if kept.sum() < least:
        raise ValueError(f"{int(failed.sum())} of {len(failed)} members failed to converge: train longer, or slower")
    warnings.warn(
        f"{int(failed.sum())} of {len(failed)} members did not converge and are left out", RuntimeWarning, stacklevel=4
    )
    return ensemble.keep(kept)


def _align(ensemble: Ensemble, model, init: str, align: str | None) -> Ensemble:
    group = {"auto": "permutation" if init == "independent" else None}.get(align, align)
    return ensemble if group is None else aligned(ensemble, model, group=group)


def _paths(store, parts, model, data, loss, draw, options) -> list[Path | None]:
    """Where each chunk is kept; a folder that holds another bootstrap is refused, not mixed in."""
    if store is None:
        return [None] * len(parts)
    folder, digest = Path(store), _digest(model, data, loss, draw, options, parts)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "bootstrap.json"
    if note.exists() and json.loads(note.read_text()).get("digest") != digest:
        raise ValueError(
            f"store {str(folder)!r} holds a bootstrap of other data, model, options or seed: name another folder, "
            "or delete it"
        )
    part = note.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"digest": digest, "chunks": len(parts)}))
    os.replace(part, note)
    return [folder / f"chunk-{i:05d}.safetensors" for i in range(len(parts))]


def _digest(model, data, loss, draw: Draw, options, parts) -> str:
    found = hashlib.sha256()
    tensors = [*model.state_dict().values(), *data, draw.strata, draw.groups]
    for t in tensors:
        found.update(b"-" if t is None else t.detach().contiguous().cpu().numpy().tobytes() + str(t.shape).encode())
    settings = [draw.kind, draw.block, _told(loss), parts, {k: _told(v) for k, v in sorted(options.items())}]
    found.update(repr([str(model), settings]).encode())
    return found.hexdigest()


def _told(value) -> object:
    """A setting by what it says and not by where it lies in memory."""
    if isinstance(value, partial):
        return ("partial", _told(value.func), _told(value.args), _told(value.keywords))
    if isinstance(value, Tensor):
        return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {k: _told(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_told(v) for v in value]
    if callable(value):
        code = getattr(value, "__code__", None)
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
        return (name, code.co_code.hex(), repr(code.co_consts)) if code and "<lambda>" in name else name
    return repr(value)
