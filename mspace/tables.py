"""Tables for readers: Markdown on a page, plain text in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TextTable"]


@dataclass(frozen=True)
class TextTable:
    """Rows of text under a header; a notebook shows it as a table, `print` as aligned columns."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self):
        wrong = [len(r) for r in self.rows if len(r) != len(self.header)]
        if wrong:
            raise ValueError(f"rows must have {len(self.header)} cells, as the header, got one of {wrong[0]}")

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
