"""The book's executed notebooks, beside the running chapter or where `MSPACE_BOOK` says: chapters gather from chapters."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path

__all__ = ["read_notebook"]

GITHUB = "https://raw.githubusercontent.com/mspace-book/mspace/main/book"
TIMEOUT = (3, 30)  # seconds to connect, and between bytes
WAY_OUT = "name the folder or the address of the book's executed notebooks in MSPACE_BOOK"


def read_notebook(notebook) -> dict:
    """An executed chapter as it is stored.

    Looked for at the path given, so beside the running chapter; where it is not there, as in Colab, under the same
    name in the folder or at the address that ``MSPACE_BOOK`` names, by default the book's repository on GitHub.
    """
    file = Path(notebook)
    if file.is_file():
        return _parsed(file.read_text(encoding="utf-8"), file)
    book = os.environ.get("MSPACE_BOOK") or GITHUB
    if book.startswith(("http://", "https://")):
        return _parsed(_downloaded(f"{book.rstrip('/')}/{file.name}"), file)
    there = Path(book).expanduser() / file.name
    if not there.is_file():
        raise ValueError(f"notebook must be an executed .ipynb, got {file}, and {there} is not there either: {WAY_OUT}")
    return _parsed(there.read_text(encoding="utf-8"), there)


def _parsed(text: str, file: Path) -> dict:
    try:
        read = json.loads(text)
        if isinstance(read["cells"], list):
            return read
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{file.name} holds no notebook: execute the chapter again, or {WAY_OUT}")


@functools.cache  # for the life of the process: a file kept longer would be that of an older edition
def _downloaded(url: str) -> str:
    import pooch
    from requests import exceptions  # the client behind pooch

    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "notebook"
        try:
            pooch.HTTPDownloader(timeout=TIMEOUT)(url, str(part), None)
        except exceptions.HTTPError as error:
            why = f"{url} answered {error.response.status_code}"
        except exceptions.RequestException:
            why = f"{url} gives no answer"
        else:
            return part.read_text(encoding="utf-8")
    raise ValueError(f"{Path(url).name} is not in this folder, and {why}: {WAY_OUT}")
