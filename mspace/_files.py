"""Files that are either whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path) -> Iterator[Path]:
    """Yield the name of a temporary file beside `path` that takes its place when the block ends without an error.

    A process that is killed leaves the old file as it was, and two that write at once do not mix.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid4().hex}")  # tempfile's own could not be read by others
    try:
        part.touch()
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
