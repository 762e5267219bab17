"""Many networks of one architecture, their parameters stacked."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from .._files import replacing
from .._identity import digest
from .._memory import examples_at_once
from ..checks import arguments, n_examples, take
from ..network.modules import copied
from ..neurons import NeuronDistribution, weight_of
from .stacks import SLOW

__all__ = ["Ensemble", "read_ensemble", "write_ensemble"]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """N networks of one architecture; `ensemble[i]` is an ordinary module, `ensemble(x)` evaluates all of them.

    Attributes:
        template: a module of the architecture; its own weights do not matter and are never changed
        parameters: by name as in ``template.named_parameters()``, each (N, ...)
        buffers: likewise
        report: results of the training for each member, by name, each (N,): such as "loss" and "failed"
    """

    template: nn.Module
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    report: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        _must_match("parameters", self.parameters, dict(self.template.named_parameters()))
        _must_match("buffers", self.buffers, dict(self.template.named_buffers()))
        kinds = (self.parameters, self.buffers, self.report)
        sizes = {name: len(tensor) for kind in kinds for name, tensor in kind.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"parameters, buffers and report must all have one length, that of members, got {sizes}")

    @classmethod
    def of(cls, models: Sequence[nn.Module]) -> Ensemble:
        """Stack networks that were trained elsewhere."""
        models = list(models)
        if not models or not all(isinstance(m, nn.Module) for m in models):
            came = ", ".join(type(m).__name__ for m in models[:3]) or "none"
            raise ValueError(f"models must hold at least one network, and nothing but torch.nn.Module, got {came}")
        states = [(dict(m.named_parameters()), dict(m.named_buffers())) for m in models]
        for i, state in enumerate(states):
            shapes, first = ([{k: v.shape for k, v in kind.items()} for kind in s] for s in (state, states[0]))
            if shapes != first:
                raise ValueError(f"models must have one architecture, models[{i}] is not like models[0]")
        stacked = ({k: torch.stack([s[i][k].detach() for s in states]) for k in states[0][i]} for i in (0, 1))
        return cls(copied(models[0]), *stacked)

    @classmethod
    def cat(cls, parts: Sequence[Ensemble]) -> Ensemble:
        """Join the members of several ensembles, in order."""
        if not parts:
            raise ValueError("parts must hold at least one ensemble")
        kinds = ("parameters", "buffers", "report")
        for kind in kinds:
            names = [sorted(getattr(p, kind)) for p in parts]
            if any(n != names[0] for n in names):
                raise ValueError(f"parts must have the same {kind}, got {names}")
        joined = (
            {k: torch.cat([getattr(p, kind)[k] for p in parts]) for k in getattr(parts[0], kind)} for kind in kinds
        )
        return cls(parts[0].template, *joined)

    def __repr__(self) -> str:
        size = sum(p[0].numel() for p in self.parameters.values())
        return f"Ensemble({len(self)} members, each a {type(self.template).__name__} of {size} parameters)"

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def __getitem__(self, i: int) -> nn.Module:
        """Return member i as a module of its own."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"member {i} of {len(self)}")
        model = copied(self.template)
        with torch.no_grad():
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.copy_({**self.parameters, **self.buffers}[name][i])
        return model

    def __iter__(self) -> Iterator[nn.Module]:
        """Yield the members, each a module of its own."""
        return (self[i] for i in range(len(self)))

    def __call__(self, x, *, max_memory: float | None = None) -> Tensor:
        """Return every member's output (N, B, ...) for the same inputs, in evaluation mode.

        Inputs are a tensor (B, ...), a tuple of the network's arguments or a dictionary of its keywords. They are taken in
        parts, whose passes hold at most `max_memory` bytes, by default 256 MB or a quarter of what is free.
        """
        at_once = examples_at_once(self.template, x, len(self), max_memory)
        parts = [self._outputs(take(x, slice(i, i + at_once))) for i in range(0, n_examples(x), at_once)]
        return parts[0] if len(parts) == 1 else tree_map(lambda *t: torch.cat(t, 1), *parts)

    def _outputs(self, x):
        model = copied(self.template).eval()
        state = {**self.parameters, **self.buffers}

        def member(own):
            return functional_call(model, own, *arguments(tree_map(torch.clone, x)))

        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=SLOW)
            try:
                return vmap(member)(state)
            except RuntimeError:  # an operation that vmap does not know: the same, one by one
                each = [member({k: v[i] for k, v in state.items()}) for i in range(len(self))]
                return tree_map(lambda *t: torch.stack(t), *each)

    def samples(self, layer: str | Sequence[str], *, axis: int = 0, bias: bool = False) -> Tensor:
        """Return the neurons of a layer in every member, (N, m, n), as `weight_of` gives them for one."""
        model = copied(self.template)
        tensors = dict((*model.named_parameters(), *model.named_buffers()))
        state, samples = {**self.parameters, **self.buffers}, []
        with torch.no_grad():
            for i in range(len(self)):
                for name, tensor in tensors.items():
                    tensor.copy_(state[name][i])
                samples.append(weight_of(model, layer, axis=axis, bias=bias))
        return torch.stack(samples)

    def neurons(self, layer: str | Sequence[str], *, axis: int = 0, bias: bool = False) -> NeuronDistribution:
        """Estimate mean and covariance of every neuron of a layer over the members (divided by N - 1).

        With ``bias=True`` a neuron is its row with the bias last, what `merge` and `prune` take out of a network that has
        no batch normalisation after the layer; where it has one, `rows_of` folds it in and this does not.
        """
        return NeuronDistribution.from_samples(self.samples(layer, axis=axis, bias=bias))

    def keep(self, members) -> Ensemble:
        """Return some of the members as an ensemble, by index, slice, list or mask."""
        members = [members] if isinstance(members, int) else members
        kept = ({k: v[members] for k, v in kind.items()} for kind in (self.parameters, self.buffers, self.report))
        return Ensemble(self.template, *kept)

    def save(self, path: str | os.PathLike) -> None:
        """Write to a safetensors file, which is whole or absent also where the process is killed."""
        write_ensemble(self, path, {"members": len(self)})

    @classmethod
    def load(cls, path: str | os.PathLike, template: nn.Module) -> Ensemble:
        """Read what `save` wrote; the template must have the architecture that was saved."""
        return read_ensemble(path, template)[0]


def write_ensemble(ensemble: Ensemble, path: str | os.PathLike, note: dict) -> None:
    """Write an ensemble with a note and a checksum of its tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    kinds = {"parameters": ensemble.parameters, "buffers": ensemble.buffers, "report": ensemble.report}
    tensors = {  # clones: the format refuses tensors that share memory, as slices of one stack do
        f"{kind}/{k}": v.detach().clone(memory_format=torch.contiguous_format)
        for kind, held in kinds.items()
        for k, v in held.items()
    }
    try:
        with replacing(path) as part:
            checksum = digest(dict(sorted(tensors.items())))
            save_file(tensors, part, metadata={"mspace": json.dumps({**note, "checksum": checksum})})
    except SafetensorError as why:
        raise OSError(f"{path}: {why}") from why


def read_ensemble(path: str | os.PathLike, template: nn.Module) -> tuple[Ensemble, dict]:
    """Read an ensemble and its note, or refuse a file that is none, was changed, or is of another architecture."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            tensors = {k: file.get_tensor(k) for k in names}
            note = json.loads((file.metadata() or {}).get("mspace", "{}"))
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as why:
        raise ValueError(f"path {str(path)!r} holds no ensemble ({why}): was it written by Ensemble.save?") from why
    kinds: dict[str, dict[str, Tensor]] = {"parameters": {}, "buffers": {}, "report": {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind not in kinds:
            raise ValueError(f"path {str(path)!r} holds no ensemble: unknown entry {key!r}")
        kinds[kind][name] = tensor
    checksum = note.pop("checksum", None)
    if checksum is not None and checksum != digest(dict(sorted(tensors.items()))):
        raise ValueError(f"path {str(path)!r} is damaged, its checksum is another than when it was written: delete it")
    ensemble = Ensemble(copied(template), **kinds)
    for name, own in (*template.named_parameters(), *template.named_buffers()):
        if (held := {**ensemble.parameters, **ensemble.buffers}[name].dtype) != own.dtype:
            raise ValueError(f"template[{name!r}] is {own.dtype}, the file has {held}: convert it, template.to({held})")
    return ensemble, note


def _must_match(what: str, stacked: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    if stacked.keys() != own.keys():
        raise ValueError(f"{what} must be those of the template: {sorted(own)}, got {sorted(stacked)}")
    for name, tensor in stacked.items():
        if tensor.shape[1:] != own[name].shape:
            raise ValueError(f"{what}[{name!r}] must be (N, *{tuple(own[name].shape)}), got {tuple(tensor.shape)}")
