"""Files that are either whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

__all__ = ["replacing"]


@contextmanager
def replacing(path) -> Iterator[Path]:
    """Yield the name of a temporary file beside `path` that takes its place when the block ends without an error.

    A process that is killed leaves the old file as it was, and two that write at once do not mix.
    """
    path = Path(path)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        part = Path(file.name)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
