"""A slider for a static page: frames drawn in advance, and a few lines of script to show one of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from html import escape

from .plot import png

__all__ = ["Flipbook"]

# Found by position, not by id, so a page may hold the same flipbook twice.
_SCRIPT = """
(function (book) {
  var frames = book.querySelectorAll("img"), slider = book.querySelector("input"), shown = book.querySelector("output");
  slider.oninput = function () {
    frames.forEach(function (frame, i) { frame.hidden = i != slider.value; });
    shown.textContent = slider.ariaValueText = frames[slider.value].dataset.value;
  };
  slider.oninput();
})(document.currentScript.parentNode)
"""


class Flipbook:
    """Frames of ``draw(value)`` behind a slider; no kernel, no library and no network to turn them.

    Args:
        draw: draws one frame and returns its figure, or an axes of it; the figure is closed once it is a
            picture
        values: the slider's stops; show how a stop reads in `label`, such as ``"k = {}"``
        alt: what the reader who cannot see the frame is told; ``{}`` stands for the value
        start: index of the stop shown first, and the only one seen where scripts are off
    """

    def __init__(
        self, draw: Callable, values: Iterable, *, label: str, alt: str, start: int = 0, dpi: int | None = None
    ):
        self.values, self.label, self.alt = list(values), label, alt
        if not self.values or not 0 <= start < len(self.values):
            raise ValueError(f"start must be the index of one of the {len(self.values)} values, got {start}")
        for name, text in (("label", label), ("alt", alt)):
            if "{}" not in text:
                raise ValueError(f"{name} must describe a frame and hold {{}} for its value, got {text!r}")
        self.start = start
        self.frames = [_png(draw(v), dpi) for v in self.values]

    def __repr__(self) -> str:
        first, last = (_filled(self.label, v) for v in (self.values[0], self.values[-1]))
        return f"Flipbook({len(self.values)} frames, {first} to {last})"

    def _repr_html_(self) -> str:
        frames = "".join(
            f'<img alt="{escape(_filled(self.alt, v))}" data-value="{escape(_filled(self.label, v))}" '
            f'src="data:image/png;base64,{base64.b64encode(png).decode()}"{"" if i == self.start else " hidden"}/>'
            for i, (v, png) in enumerate(zip(self.values, self.frames, strict=True))
        )
        told = repr((self.label, self.alt, self.values))  # not the pixels, which differ a little between machines
        name = "flipbook-" + hashlib.sha256(told.encode()).hexdigest()[:8]
        shown = escape(_filled(self.label, self.values[self.start]))
        return (
            f'<div class="flipbook"><label for="{name}">turn the pages</label> '
            f'<input id="{name}" type="range" min="0" max="{len(self.values) - 1}" value="{self.start}" step="1" '
            f'autocomplete="off"/> <output for="{name}">{shown}</output>{frames}<script>{_SCRIPT}</script></div>'
        )


def _filled(template: str, value) -> str:
    """The template with its value; other braces, such as those of LaTeX, stay as they are."""
    return template.replace("{}", f"{value:g}" if isinstance(value, float) else str(value))


def _png(drawn, dpi: int | None) -> bytes:
    import matplotlib.pyplot as plt

    figure = getattr(drawn, "figure", drawn)
    if not hasattr(figure, "savefig"):
        raise ValueError(f"draw must return a figure or an axes of it, got {type(drawn).__name__}")
    picture = png(figure, dpi)
    plt.close(figure)
    return picture
