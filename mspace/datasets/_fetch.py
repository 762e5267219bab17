"""What all loaders share: their errors, the check of what was read, and official archives fetched by hash."""

from __future__ import annotations

import hashlib
import importlib
import os
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

from .._files import replacing

TIMEOUT = (3, 30)  # seconds to connect and between bytes, so that nobody waits long for a dead network
QUIET = 60  # seconds a host that gave no answer is not asked again, so that offline loops stay fast
_silent: dict[str, float] = {}  # host -> when it gave no answer


class DatasetError(ValueError):
    """A set that cannot be given: one sentence with its name, what went wrong and the way out."""


class Unavailable(DatasetError):
    """The set is not here and its source does not answer: the only failure that a stand-in may answer."""


class DataReplaced(UserWarning):
    """Another set stands in for the one asked for."""


def require(module: str, what: str, install: str) -> Any:
    """Import a module that only the set `what` needs, or name the package to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        why = f"{what} needs {missing.name}, which is not installed"
        raise DatasetError(f"{why}: run `pip install {install}`") from missing


def checked(values, what: str, shape: tuple[int | None, ...]) -> Tensor:
    """Return finite `values` as a float64 tensor of `shape`, in which None is any length from 1."""
    try:
        array = np.array(values, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{what} holds something that is not a number: get the file again") from error
    lengths = zip(array.shape, shape, strict=False)
    if array.ndim != len(shape) or not all(n > 0 if want is None else n == want for n, want in lengths):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise DatasetError(f"{what} has the shape {array.shape} instead of ({wanted}): get the file again")
    if bad := int((~np.isfinite(array)).sum()):
        raise DatasetError(f"{what} has {bad} missing or infinite values: get the file again")
    return torch.from_numpy(array)


@dataclass(frozen=True)
class Archive:
    """An official zip at `url`, kept as `file` in `folder` of the data or of the cache; `blob` is its id in git."""

    name: str
    folder: str
    file: str
    url: str
    blob: str

    def way_out(self) -> str:
        return f"download {self.url} by hand and put it in {(home() or cache()) / self.folder}"


def home() -> Path | None:
    """Return the folder named by `MSPACE_DATA`, if any."""
    named = os.environ.get("MSPACE_DATA")
    if named and not Path(named).expanduser().is_dir():
        raise DatasetError(f"MSPACE_DATA names {named}, which is not a folder: correct it or unset it")
    return Path(named).expanduser() if named else None


def cache() -> Path:
    """Return the folder where downloads are kept: `MSPACE_CACHE`, else the user's own."""
    named = os.environ.get("MSPACE_CACHE")
    return Path(named).expanduser() if named else Path(require("pooch", "data", "pooch").os_cache("mspace"))


def local(relative: str) -> Path | None:
    """Return the file `relative` of `MSPACE_DATA`, else of the cache, else None."""
    for root in (home, cache):
        if (folder := root()) and (folder / relative).is_file():
            return folder / relative
    return None


def fetch_members(archive: Archive, names: Sequence[str]) -> list[Path]:
    """Return files of an archive, wherever they are; only absent ones are unpacked, into the cache."""
    here = {name: path for name in names if (path := local(f"{archive.folder}/{name}"))}
    if absent := [name for name in names if name not in here]:
        here |= _unpack(archive, fetch(archive), absent)
    return [here[name] for name in names]


def fetch(archive: Archive) -> Path:
    """Return the archive itself, its hash checked, from the data, the cache or its source."""
    path = local(f"{archive.folder}/{archive.file}")
    if path is None:
        return _download(archive)
    if wrong := _mismatch(path, archive):
        raise DatasetError(f"{archive.name}: {path} {wrong}, remove it or {archive.way_out()}")
    return path


def git_blob(path: Path) -> str:
    """Return the id that git gives a file, the sha1 of its length and its bytes."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _mismatch(path: Path, archive: Archive) -> str:
    actual = git_blob(path)
    return "" if actual == archive.blob else f"has the git-blob {actual} and not the official {archive.blob}"


def _download(archive: Archive) -> Path:
    target = cache() / archive.folder / archive.file
    try:
        with _written(target) as part:
            _transfer(archive.url, part)
            if wrong := _mismatch(part, archive):
                raise DatasetError(f"what {urlsplit(archive.url).netloc} sent {wrong}")
    except DatasetError as failure:
        raise type(failure)(f"{archive.name} cannot be had ({failure}): {archive.way_out()}") from failure
    return target


def _transfer(url: str, path: Path) -> None:
    pooch = require("pooch", "downloads", "pooch")
    from requests import exceptions  # the client behind pooch

    host = urlsplit(url).netloc
    if time.monotonic() - _silent.get(host, -QUIET) < QUIET:
        raise Unavailable(f"{host} gave no answer a moment ago")
    try:
        pooch.HTTPDownloader(timeout=TIMEOUT)(url, str(path), None)
    except exceptions.HTTPError as error:
        status = None if error.response is None else error.response.status_code
        raise Unavailable(f"{host} answered {status}") from error
    except exceptions.ChunkedEncodingError as error:
        raise DatasetError(f"{host} broke off in the middle") from error
    except exceptions.RequestException as error:
        _silent[host] = time.monotonic()
        raise Unavailable(f"{host} gives no answer") from error


def _unpack(archive: Archive, path: Path, names: Sequence[str]) -> dict[str, Path]:
    targets = {name: cache() / archive.folder / name for name in names}
    try:
        with zipfile.ZipFile(path) as zipped:
            _check_members(zipped.infolist(), names)  # before anything is written
            for name, target in targets.items():
                with _written(target) as part:
                    part.write_bytes(zipped.read(name))  # which checks its CRC
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        why = f"{path} cannot be unpacked ({str(error).rstrip('.') or 'it ends too soon'})"
        raise DatasetError(f"{archive.name}: {why}, remove it and {archive.way_out()}") from error
    return targets


def _check_members(infos: list[zipfile.ZipInfo], names: Sequence[str]) -> None:
    for info in infos:
        parts = info.filename.replace("\\", "/").split("/")
        if parts[0] == "" or ":" in parts[0] or ".." in parts or stat.S_ISLNK(info.external_attr >> 16):
            raise zipfile.BadZipFile(f"{info.filename!r} in it would land outside its folder")
    inside = {info.filename for info in infos}
    if missing := [name for name in names if name not in inside]:
        raise zipfile.BadZipFile(f"it holds no {missing[0]}")


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes `target`, or an error if nothing can be written there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            yield part
    except OSError as error:
        raise DatasetError(
            f"nothing can be written in {target.parent}: name a writable folder in MSPACE_CACHE"
        ) from error
