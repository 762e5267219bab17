"""A folder that keeps finished chunks of an ensemble: whole or absent, of one content, and growing with the ensemble."""

from __future__ import annotations

import json
import os
from pathlib import Path

from torch import nn

from .._files import replacing
from .._identity import digest
from ..training.ensemble import Ensemble, read_ensemble, write_ensemble

__all__ = ["Store", "load_chunk", "save_chunk"]


class Store:
    """A folder for the chunks of one bootstrap, told by the content of everything that it depends on.

    Args:
        folder: where it is, made if it is not there
        settings: model, data, loss, options and the seed; a folder of others is refused, not mixed in
    """

    def __init__(self, folder: str | os.PathLike, *settings):
        if not isinstance(folder, (str, os.PathLike)):
            raise ValueError(f"store must be the name of a folder, got {folder!r:.80}")
        self.folder, self.digest = Path(folder), digest(*settings)
        self.note = self.folder / "bootstrap.json"
        try:
            self.is_new = not self.note.exists()
        except (OSError, ValueError) as why:
            raise ValueError(f"store must be the name of a folder, and {str(folder)!r:.80} is none: {why}") from why

    def layout(self, n_models: int, chunk: int) -> list[int]:
        """Return the sizes of all chunks: those of before, and more of the size that is wanted now."""
        sizes = self._sizes_before()
        missing = n_models - sum(sizes)
        sizes += [min(chunk, missing - i) for i in range(0, missing, chunk)]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.note) as part:
                part.write_text(json.dumps({"digest": self.digest, "sizes": sizes}))
        except OSError as why:
            raise ValueError(f"store {str(self.folder)!r} cannot be written: {why}") from why
        return sizes

    def _sizes_before(self) -> list[int]:
        if not self.note.exists():
            return []
        try:
            before = json.loads(self.note.read_text())
            told, sizes = before["digest"], [int(s) for s in before["sizes"]]
        except (OSError, ValueError, TypeError, KeyError) as why:
            raise ValueError(
                f"store {str(self.folder)!r} has a damaged bootstrap.json: delete the folder, or name another"
            ) from why
        if told != self.digest:
            raise ValueError(
                f"store {str(self.folder)!r} holds a bootstrap of other data, model, loss, options or seed: name another "
                "folder, or delete it"
            )
        return sizes

    def paths(self, sizes: list[int], template: nn.Module) -> list[Path]:
        """Return where each chunk is kept, once the chunks that are there are what they should be."""
        paths = [self.folder / f"chunk-{i:05d}.safetensors" for i in range(len(sizes))]
        for i, (path, size) in enumerate(zip(paths, sizes)):
            if not path.exists():
                continue
            try:
                note = read_ensemble(path, template)[1]
                if note != {"digest": self.digest, "first": sum(sizes[:i]), "members": size}:
                    raise ValueError(f"store holds {str(path)!r}, which is another chunk than belongs there: delete it")
            except ValueError:
                if not self.is_new or not path.is_file():
                    raise
                path.unlink()  # left of a bootstrap whose note was deleted, as the refusal above proposes
        return paths


def save_chunk(ensemble: Ensemble, path: Path, told: str, first: int) -> None:
    """Write a chunk, or say why it cannot be written."""
    try:
        write_ensemble(ensemble, path, {"digest": told, "first": first, "members": len(ensemble)})
    except OSError as why:
        raise ValueError(
            f"store cannot be written at {str(path)!r}: {why}. Finished chunks are kept: make room and call again"
        ) from why


def load_chunk(path: Path, template: nn.Module) -> Ensemble:
    """Return a chunk that was just verified or written."""
    return read_ensemble(path, template)[0]
