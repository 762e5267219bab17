"""A slider for a static page: frames drawn in advance, and a few lines of script to show one of them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from html import escape

from .plot import png

__all__ = ["Flipbook"]

# Found by position, not by id, so a page may hold the same flipbook twice. What a viewer does not trust it takes away
# with the script: a picture and its caption stay, and no slider that does nothing.
_SCRIPT = """
(function (book, data) {
  if (book.querySelector("input")) return;
  var start = book.querySelector("img"), shown = book.querySelector("output");
  var slider = document.createElement("input"), words = document.createElement("label");
  var frames = data.frames.map(function (frame, i) {
    if (i == data.start) return start;
    var image = document.createElement("img");
    image.alt = frame[1];
    image.src = frame[2];
    return book.insertBefore(image, i < data.start ? start : null);
  });
  Object.assign(slider, {id: data.name, type: "range", min: 0, max: frames.length - 1, step: 1, value: data.start});
  slider.autocomplete = "off";
  words.htmlFor = data.name;
  words.textContent = "turn the pages";
  shown.setAttribute("for", data.name);
  book.replaceChild(words, book.querySelector("span"));
  shown.before(slider, " ");
  slider.dataset.lmSuppressShortcuts = "";  // in JupyterLab arrows move the slider, not the cell
  slider.oninput = function () {
    frames.forEach(function (frame, i) { frame.hidden = i != slider.value; });
    shown.textContent = slider.ariaValueText = data.frames[slider.value][0];
  };
  slider.oninput();
})(document.currentScript.parentNode, """


class Flipbook:
    """Frames of ``draw(value)`` behind a slider; no kernel, no library and no network to turn them.

    Where scripts are off, as in a notebook that is not trusted, the frame `start` is a plain picture.

    Args:
        draw: draws one frame and returns its figure, or an axes of it; the figure is closed once it is a
            picture
        values: the slider's stops; show how a stop reads in `label`, such as ``"k = {}"``
        alt: what the reader who cannot see the frame is told; ``{}`` stands for the value
        start: index of the stop shown first
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
        frames = [
            (_filled(self.label, v), _filled(self.alt, v), f"data:image/png;base64,{base64.b64encode(png).decode()}")
            for v, png in zip(self.values, self.frames, strict=True)
        ]
        shown, alt, picture = frames[self.start]
        told = repr((self.label, self.alt, self.values))  # not the pixels, which differ a little between machines
        name = "flipbook-" + hashlib.sha256(told.encode()).hexdigest()[:8]
        others = [f if i != self.start else f[:2] for i, f in enumerate(frames)]
        data = json.dumps({"name": name, "start": self.start, "frames": others}, ensure_ascii=False)
        data = data.replace("<", "\\u003c")  # or a "</script>" in a label would end the script
        return (
            f'<div class="flipbook"><span>frame {self.start + 1} of {len(frames)}:</span> <output>{escape(shown)}</output>'
            f'<img alt="{escape(alt)}" src="{picture}"/><script>{_SCRIPT}{data});</script></div>'
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
