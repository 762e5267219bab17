"""Compare the outputs of a cell with the stored ones as results: words exactly, numbers by what they are worth.

A plain cell: equal to one unit of the last printed digit; integers exactly; pictures to anti-aliasing.

A cell whose numbers depend on a training that rounding can steer is declared in its metadata, with the reason in its
first comment:

    # %% varies={"rtol": 0.1}
    # varies: ReLU networks, early stopping

There a number printed as ``a ± s`` or ``a [l, u]`` agrees when it differs by at most 2 combined standard errors and its
uncertainty is of the same size; every other number agrees to the relative tolerance; a picture agrees when all its ink
lies within a few pixels of ink of the same colour.  The words, the number of rows, columns, panels and pixels have to
be the same everywhere.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_ERRORS = 2.0  # combined standard errors by which a number may move in a declared cell
MAX_WIDENING = 1.75  # by which its own uncertainty may change; twice is a fault
FIGURE_RMS = 4.0  # of 255, in a plain cell; a patch release's anti-aliasing stays below, a moved curve does not
SHIFT = 8  # pixels by which a curve may move in a declared cell
INK = 60  # of 255 by which a colour may differ there
STRAY = 4e-4  # share of the pixels that may be further away
PANELS = "Panels"  # the PNG text in which kit.plot writes what the axes of a figure are

NUMBER = r"(?:(?<![\w.)\]])[-+\u2212])?(?<![\w.])(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\d])"
GROUP = re.compile(
    rf"(?P<value>{NUMBER})%?\s*±\s*(?P<error>{NUMBER})"
    rf"|(?:(?P<middle>{NUMBER})%?\s*)?\[\s*(?P<low>{NUMBER})%?\s*,\s*(?P<high>{NUMBER})%?\s*\]"
    rf"|(?P<alone>{NUMBER})(?P<percent>\s?%)?"
)
PICTURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")


@dataclass(frozen=True)
class Number:
    """A number as it was printed: its value and one unit of its last digit."""

    text: str
    exact: bool = False

    @property
    def value(self) -> float:
        return float(self.text.replace("\u2212", "-"))

    @property
    def unit(self) -> float:
        digits, _, exponent = self.text.lower().partition("e")
        return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))

    def is_near(self, other: Number, rtol: float = 0.0) -> bool:
        """Equal to one unit of the coarser print, or to a share of the larger value."""
        apart, size = abs(self.value - other.value), max(abs(self.value), abs(other.value))
        unit = 0.0 if self.exact and other.exact else max(self.unit, other.unit)
        return apart <= max(unit, rtol * size) * (1 + 1e-9)


@dataclass(frozen=True)
class Printed:
    """What stands together in a text: a number alone, with an error, or with an interval."""

    text: str
    numbers: tuple[Number, ...]
    error: float | None = None  # a standard error, where one is printed
    error_unit: float = 0.0
    line: str = ""  # of the text in which it stands

    @classmethod
    def of(cls, match: re.Match) -> Printed:
        part, line = match.groupdict(), _line_of(match)
        if part["alone"]:
            exact = not part["percent"] and re.fullmatch(r"[-+\u2212]?\d+", part["alone"]) is not None
            return cls(match.group(), (Number(part["alone"], exact),), line=line)
        if part["error"]:
            value, error = Number(part["value"]), Number(part["error"])
            return cls(match.group(), (value, error), error.value, error.unit, line)
        ends = low, high = Number(part["low"]), Number(part["high"])
        middle = (Number(part["middle"]),) if part["middle"] else ()
        unit = max(low.unit, high.unit)
        return cls(match.group(), middle + ends, (high.value - low.value) / 3.92, unit / 1.96, line)

    def errors_from(self, other: Printed) -> float | None:
        """The largest difference in combined standard errors; None where none is printed, 0 within one printed unit."""
        if self.error is None or other.error is None:
            return None
        ours, theirs = self.places, other.places
        apart = max(0.0 if a.is_near(b) else abs(a.value - b.value) for a, b in zip(ours, theirs, strict=True))
        return apart / max(math.hypot(self.error, other.error), 1e-300) if apart else 0.0

    @property
    def places(self) -> tuple[Number, ...]:
        """The numbers that say where it is: the value before ±, or the value and both ends of an interval."""
        return self.numbers[:1] if "±" in self.text else self.numbers

    def is_as_wide(self, other: Printed) -> bool:
        unit = max(self.error_unit, other.error_unit) / 2
        narrow, wide = sorted((abs(self.error), abs(other.error)))
        return wide - unit <= MAX_WIDENING * (narrow + unit)

    def fault(self, other: Printed, varies: dict | None) -> str | None:
        """How this differs from what was stored by more than it may, in words."""
        moved = f"in {other.line!r}, {other.text!r} is now {self.text!r}"
        if varies is None:
            near = all(a.is_near(b) for a, b in zip(self.numbers, other.numbers, strict=True))
            return None if near else f"{moved}: more than one unit of its last digit"
        errors = self.errors_from(other)
        if errors is None:
            near = self.numbers[0].is_near(other.numbers[0], varies.get("rtol", 0.0))
            return None if near else f"{moved}: more than the declared rtol={varies.get('rtol', 0.0):g}"
        if errors > MAX_ERRORS:
            return f"{moved}: {errors:.1f} combined standard errors apart"
        return None if self.is_as_wide(other) else f"{moved}: its uncertainty changed by more than {MAX_WIDENING}"


def _line_of(match: re.Match) -> str:
    text = match.string
    return text[text.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0].strip()[:120]


def read(text: str) -> tuple[str, list[Printed]]:
    """The words of a text, and its numbers in reading order; spaces do not count, for they align numbers."""
    found = [Printed.of(m) for m in GROUP.finditer(text)]
    words = GROUP.sub(lambda m: re.sub(NUMBER, "#", m.group()), text)
    return re.sub(r"\s+", "", words), found


def pairs(new: str, stored: str) -> list[tuple[Printed, Printed]] | None:
    """The numbers of two texts side by side; None where the words differ."""
    (words, numbers), (old_words, old_numbers) = read(new), read(stored)
    return list(zip(numbers, old_numbers, strict=True)) if words == old_words else None


def text_faults(new: str, stored: str, varies: dict | None = None) -> Iterator[str]:
    """Where a text is another result than the stored one."""
    together = pairs(new, stored)
    if together is None:
        yield "the words differ" + _first_difference(new, stored)
    else:
        yield from filter(None, (a.fault(b, varies) for a, b in together))


def _first_difference(new: str, stored: str) -> str:
    lines, old = new.splitlines(), stored.splitlines()
    for i in range(max(len(lines), len(old))):
        a, b = (part[i] if i < len(part) else "nothing" for part in (lines, old))
        if read(a)[0] != read(b)[0]:
            return f", first in line {i + 1}: stored {b.strip()[:160]!r}, now {a.strip()[:160]!r}"
    return ""


# -- pictures


def figure_fault(new: str, stored: str, varies: dict | None = None) -> str | None:
    """How a PNG (base64) differs from the stored one by more than it may, in words."""
    a, b = pixels(new), pixels(stored)
    if a.shape != b.shape:
        return f"stored {b.shape[1]}x{b.shape[0]} pixels, drawn {a.shape[1]}x{a.shape[0]}"
    drawn, kept = panels(new), panels(stored)
    if drawn != kept and None not in (drawn, kept):
        return f"stored with the panels {kept}, drawn with {drawn}"
    if varies is None:
        rms = figure_rms(new, stored)
        return f"RMS {rms:.2f} of 255 from the stored one (allowed {FIGURE_RMS})" if rms > FIGURE_RMS else None
    stray = stray_ink(a, b)
    limit = varies.get("stray", STRAY)
    return f"{stray:.2%} of its ink is not where it was (allowed {limit:.2%})" if stray > limit else None


def figure_rms(new: str, stored: str) -> float:
    a, b = pixels(new), pixels(stored)
    return float(((a - b) ** 2).mean() ** 0.5) if a.shape == b.shape else math.inf


def stray_ink(a, b) -> float:
    """The share of pixels of either picture that have no like within SHIFT pixels in the other."""
    return (_uncovered(a, b) + _uncovered(b, a)) / (a.shape[0] * a.shape[1])


def _uncovered(a, b) -> float:
    from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

    a, b = (gaussian_filter(x, (1, 1, 0)) for x in (a, b))
    size = (2 * SHIFT + 1, 2 * SHIFT + 1, 1)
    away = (a < minimum_filter(b, size) - INK) | (a > maximum_filter(b, size) + INK)
    return float(away.any(axis=2).sum())


def pixels(png: str):
    import matplotlib.image

    return matplotlib.image.imread(io.BytesIO(base64.b64decode(png)))[..., :3] * 255.0


def panels(png: str) -> str | None:
    """What kit.plot wrote of the axes into the picture."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return getattr(image, "text", {}).get(PANELS)


# -- cells


def stderr(outputs) -> str:
    """What a cell wrote to the standard error stream."""
    return "".join(o.text for o in outputs or [] if o.get("name") == "stderr")


def replaced(outputs) -> bool:
    """Whether a cell says that a recording could not be had and a stand-in is used: from there on nothing compares."""
    return "DataReplaced" in stderr(outputs)


def text_of(outputs) -> str:
    """Everything a cell printed, then what it displayed; pictures inside HTML are compared as pictures."""
    return "\n".join(_texts(outputs))


def _texts(outputs) -> Iterator[str]:
    # a kernel sends what is printed in pieces that may end within a number
    yield "".join(_joined(o["text"]) for o in outputs if o.get("name") == "stdout")
    for o in outputs:
        if o["output_type"] == "error":
            yield f"{o['ename']}: {o['evalue']}"
        for kind, data in sorted(o.get("data", {}).items()):
            if not kind.startswith("image/"):
                yield PICTURE.sub("PNG", _joined(data) if isinstance(data, str | list) else json.dumps(data))


def pictures(outputs) -> list[str]:
    """Every PNG of a cell's outputs as base64, those inside HTML too, in reading order."""
    found: list[str] = []
    for o in outputs:
        data = o.get("data", {})
        found += [_joined(data["image/png"])] if "image/png" in data else []
        found += PICTURE.findall(_joined(data.get("text/html", "")))
    return found


def _joined(text) -> str:
    return text if isinstance(text, str) else "".join(text)


def cell_faults(new, stored, varies: dict | None = None, *, with_figures: bool = True) -> list[str]:
    """Every way in which the outputs of a cell are another result than those stored."""
    faults = list(text_faults(text_of(new), text_of(stored), varies))
    drawn, kept = pictures(new), pictures(stored)
    if len(drawn) != len(kept):
        return [*faults, f"{len(kept)} figures stored, {len(drawn)} drawn"]
    if with_figures:
        for i, (a, b) in enumerate(zip(drawn, kept, strict=True), 1):
            if why := figure_fault(a, b, varies):
                faults.append(f"figure {i}: {why}")
    return faults
