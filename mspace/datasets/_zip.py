"""Files out of an official zip: only those that are needed, and nothing outside the cache."""

import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from ._errors import DatasetError
from ._fetch import Source, beside, cache, fetch, local


def fetch_members(source: Source, names: Sequence[str]) -> list[Path]:
    """Files `names` of the zip `source`, wherever they are; only absent ones are unpacked into the cache."""
    found = {name: local(f"{source.folder}/{name}") for name in names}
    absent = [name for name in names if found[name] is None]
    if absent:
        found |= _unpack(source, fetch(source), absent)
    return [found[name] for name in names]


def _unpack(source: Source, archive: Path, names: Sequence[str]) -> dict[str, Path]:
    targets = {name: cache() / source.folder / name for name in names}
    try:
        with zipfile.ZipFile(archive) as zipped:
            inside = _members(zipped.infolist(), names)  # all of them, before anything is written
            for name, target in targets.items():
                with beside(target) as scratch, zipped.open(inside[name]) as data:
                    scratch.write_bytes(data.read())  # reading to the end is what checks its CRC
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        why = f"{archive} cannot be unpacked ({str(error).rstrip('.') or 'it ends too soon'})"
        raise DatasetError(f"{source.name}: {why}, remove it and {source.way_out()}") from error
    return targets


def _members(infos: list[zipfile.ZipInfo], names: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    """The entry of each name, in whatever folder of the zip; one that reaches outside is refused whole."""
    if unsafe := [info.filename for info in infos if _unsafe(info)]:
        raise zipfile.BadZipFile(f"{unsafe[0]!r} in it would land outside its folder")
    infos = [info for info in infos if not info.filename.startswith("__MACOSX/")]
    found = {name: [i for i in infos if f"/{i.filename}".endswith(f"/{name}")] for name in names}
    if missing := [name for name, entries in found.items() if not entries]:
        raise zipfile.BadZipFile(f"it holds no {missing[0]}")
    return {name: entries[0] for name, entries in found.items()}


def _unsafe(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.replace("\\", "/").split("/")
    return parts[0] == "" or ":" in parts[0] or ".." in parts or stat.S_ISLNK(info.external_attr >> 16)
