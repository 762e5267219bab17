"""Tables for readers: Markdown on a page, plain text in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .notebooks import read_notebook

__all__ = ["TextTable", "with_error", "with_interval"]


def with_error(values, digits: int = 2) -> str:
    """Write a mean and its standard error over the first axis, such as ``0.94 ± 0.02``.

    The standard error is the standard deviation over the root of the number of values, which have to be independent:
    trainings, splits, or people.  Say which in the caption.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values must be two or more finite numbers, got an array {values.shape} with {values!r}")
    mean = round(values.mean(), digits) + 0.0  # no minus before a zero
    return f"{mean:.{digits}f} ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}"


def with_interval(mean_low_high, digits: int = 2) -> str:
    """Write a difference with its sign and its interval, such as ``-0.03 [-0.08, +0.01]``."""
    return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*map(float, mean_low_high), d=digits)


@dataclass(frozen=True)
class TextTable:
    """Rows of text under a header; a notebook shows it as a table, `print` as aligned columns."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self):
        wrong = [len(r) for r in self.rows if len(r) != len(self.header)]
        if wrong:
            raise ValueError(f"rows must have {len(self.header)} cells, as the header, got one of {wrong[0]}")

    @classmethod
    def stored(cls, notebook, header: Sequence[str]) -> TextTable:
        """The last table with this header among the outputs stored in an executed notebook.

        So a chapter can gather what others computed, and nobody copies a number by hand.

        Args:
            notebook: path of the .ipynb; where it is not there, `kit.notebooks.read_notebook` says where it looks
            header: its first cells, or all of them
        """
        tables = [t for t in _tables(read_notebook(notebook)) if t[0][: len(header)] == list(header)]
        if not tables:
            name = Path(notebook).name
            raise ValueError(f"header {list(header)} is that of no table stored in {name}: execute the notebook")
        head, _, *rows = tables[-1]
        return cls(head, rows)

    def __str__(self) -> str:
        everything = [list(map(str, r)) for r in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
        lines = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in everything)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(_cell(str(c)) for c in r) + " |" for r in lines)


def _cell(text: str) -> str:
    """Bars escaped; numbers with their errors and intervals stay on one line, words may wrap."""
    escaped = text.replace("|", "\\|")
    return escaped if any(c.isalpha() for c in text) else escaped.replace(" ", "\N{NO-BREAK SPACE}")


def _tables(notebook: dict):
    """Every Markdown table among the stored outputs of a notebook, as rows of cells."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = "".join(output.get("data", {}).get("text/markdown", []))
            if text.startswith("| "):
                yield [_cells(line) for line in text.splitlines()]


def _cells(line: str) -> list[str]:
    """What `_cell` wrote, read back."""
    inner = line.strip().removeprefix("| ").removesuffix(" |").split(" | ")  # a bar within a cell is escaped
    return [c.replace("\\|", "|").replace("\N{NO-BREAK SPACE}", " ") for c in inner]
