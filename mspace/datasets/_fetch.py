"""One file: from the folder in `MSPACE_DATA`, else from the cache, else from its official source by hash."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from ._errors import DatasetError, Unavailable, optional

TIMEOUT = (3, 30)  # seconds to connect and between bytes, so that nobody waits long for a dead network
QUIET = 60  # seconds a host that gave no answer is not asked again, so that offline loops stay fast
_silent: dict[str, float] = {}  # host -> when it gave no answer


@dataclass(frozen=True)
class Source:
    """An official file: `file` in `folder` of the data and of the cache, the same bytes at each of `urls`."""

    name: str
    folder: str
    file: str
    urls: tuple[str, ...]
    check: str  # "sha256:...", "md5:..." or "git-blob:..."

    def way_out(self) -> str:
        return f"download {self.urls[0]} by hand and put it in {(home() or cache()) / self.folder}"


def home() -> Path | None:
    """The folder named by `MSPACE_DATA`, if any."""
    named = os.environ.get("MSPACE_DATA")
    if named and not Path(named).expanduser().is_dir():
        raise DatasetError(f"MSPACE_DATA names {named}, which is not a folder: correct it or unset it")
    return Path(named).expanduser() if named else None


def cache() -> Path:
    """The folder where downloads are kept: `MSPACE_CACHE`, else the user's own."""
    named = os.environ.get("MSPACE_CACHE")
    return Path(named).expanduser() if named else Path(optional("pooch", "data", "pooch").os_cache("mspace"))


def local(relative: str) -> Path | None:
    """The file `relative` of `MSPACE_DATA`, else of the cache, else None."""
    for root in (home, cache):
        if (folder := root()) and (folder / relative).is_file():
            return folder / relative
    return None


def fetch(source: Source) -> Path:
    """The whole file of `source`, its hash checked, wherever it comes from."""
    found = local(f"{source.folder}/{source.file}")
    if found is None:
        return _download(source)
    if wrong := _mismatch(found, source):
        raise DatasetError(f"{source.name}: {found} {wrong}, remove it or {source.way_out()}")
    return found


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A scratch path next to `target`, renamed to it if the block ends well and removed if it does not."""
    scratch = target.with_name(f".{target.name}.{uuid4().hex}.part")  # two processes never share one
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch()
    except OSError as error:
        why = f"nothing can be written in {target.parent}"
        raise DatasetError(f"{why}: name a writable folder in MSPACE_CACHE") from error
    try:
        yield scratch
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file; "git-blob" is the id git gives it, the sha1 of its length and its bytes."""
    blob = partial(hashlib.sha1, b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, blob if algorithm == "git-blob" else algorithm).hexdigest()


def _mismatch(path: Path, source: Source) -> str:
    algorithm, _, known = source.check.partition(":")
    actual = digest(path, algorithm)
    return "" if actual == known else f"has the {algorithm} {actual} and not the official {known}"


def _download(source: Source) -> Path:
    target, failures = cache() / source.folder / source.file, []
    for url in source.urls:
        try:
            with beside(target) as scratch:
                _transfer(url, scratch)
                if wrong := _mismatch(scratch, source):
                    raise DatasetError(f"what {urlsplit(url).netloc} sent {wrong}")
            return target
        except DatasetError as failure:
            failures.append(failure)
    # one mirror with a bad file is an error even if the others are silent: a bad file is never replaced
    kind = Unavailable if all(isinstance(failure, Unavailable) for failure in failures) else DatasetError
    why = ", ".join(map(str, failures))
    raise kind(f"{source.name} cannot be had ({why}): {source.way_out()}") from failures[-1]


def _transfer(url: str, path: Path) -> None:
    pooch = optional("pooch", "downloads", "pooch")
    from requests import exceptions  # the client behind pooch

    host = urlsplit(url).netloc
    if time.monotonic() - _silent.get(host, -QUIET) < QUIET:
        raise Unavailable(f"{host} gave no answer a moment ago")
    try:
        pooch.HTTPDownloader(timeout=TIMEOUT)(url, str(path), None)
    except exceptions.HTTPError as error:
        raise Unavailable(f"{host} answered {error.response.status_code}") from error
    except exceptions.ChunkedEncodingError as error:
        raise DatasetError(f"{host} broke off in the middle") from error
    except exceptions.RequestException as error:
        _silent[host] = time.monotonic()
        raise Unavailable(f"{host} gives no answer") from error
