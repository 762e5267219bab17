"""Close nbval's holes, so that a notebook that passes is one that still says what it said.

nbval skips image/png, and compares nothing in a cell that was never run or is marked to be ignored.  Here pictures are
compared by their pixels, a cell never run is a failure, and stderr is a failure everywhere.  The one exception:
where a recording could not be had (DataReplaced), the notebook runs on, its outputs are not compared, and the
summary says so; MSPACE_REQUIRE_DATA=1 makes that a failure too.
"""

import base64
import io
import os
import re
from functools import cache

import pytest

# as tools/nb.py does for the stored outputs; kernels and workers inherit it, and they work in book/
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.pop("MPLBACKEND", None)
if os.environ.get("MSPACE_DATA"):
    os.environ["MSPACE_DATA"] = os.path.abspath(os.environ["MSPACE_DATA"])

FIGURE_RMS = 4.0  # of 255; a patch release's anti-aliasing stays below, a moved curve does not
NOTE = "notebook"  # the key under which a cell's remark travels from a worker to the summary

collect_ignore_glob = ["book/*.py", "book/_ext/*", "_build/*"]  # chapters are tested as notebooks


def pictures(outputs):
    """Every PNG of a cell's outputs as base64, those inside HTML too, in reading order."""
    found = []
    for o in outputs:
        data = o.get("data", {})
        found += [data["image/png"]] if "image/png" in data else []
        found += re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", data.get("text/html", ""))
    return found


def pixels(png):
    import matplotlib.image

    return matplotlib.image.imread(io.BytesIO(base64.b64decode(png)))[..., :3] * 255


def figure_difference(drawn, stored):
    """How two lists of pictures differ beyond anti-aliasing, in words, or None."""
    for i, (a, b) in enumerate(zip(map(pixels, drawn), map(pixels, stored), strict=True), 1):
        if a.shape != b.shape:
            return f"figure {i}: stored {b.shape[1]}x{b.shape[0]} pixels, drawn {a.shape[1]}x{a.shape[0]}"
        rms = float(((a - b) ** 2).mean() ** 0.5)
        if rms > FIGURE_RMS:
            return f"figure {i}: RMS {rms:.2f} of 255 from the stored one (allowed {FIGURE_RMS})"
    return None


@cache
def minor_matplotlib():
    from importlib.metadata import version

    return version("matplotlib").split(".")[:2]


def stderr(outputs):
    return "".join(o.text for o in outputs or [] if o.get("name") == "stderr")


def pytest_configure(config):
    import matplotlib

    matplotlib.use("agg")  # unit tests open no window; an environment variable would reach the kernels too
    if getattr(config.option, "nbval", False):
        strengthen_nbval()


def strengthen_nbval():
    from nbval.plugin import IPyNbCell

    run, compare_text = IPyNbCell.runtest, IPyNbCell.compare_outputs

    def note(cell, text):
        cell.user_properties.append((NOTE, f"{cell.parent.path.name}: {text}"))

    def replaced(cell, outputs):
        """Has this cell, or one before it, worked on a stand-in for a recording?"""
        if "DataReplaced" in stderr(outputs) and not getattr(cell.parent, "data_replaced", False):
            cell.parent.data_replaced = True
            note(cell, f"a recording was replaced, outputs not compared from cell {cell.cell_num} on")
        return getattr(cell.parent, "data_replaced", False)

    def runtest(self):
        if self.cell.source.strip() and self.cell.execution_count is None:
            self.raise_cell_error("The stored cell was never run, so there is nothing to compare: `make notebooks`")
        run(self)
        new = stderr(self.test_outputs)
        if replaced(self, self.test_outputs):
            if "DataReplaced" in new and os.environ.get("MSPACE_REQUIRE_DATA"):
                self.raise_cell_error("A recording could not be had, and MSPACE_REQUIRE_DATA is set", new)
        elif new:
            self.raise_cell_error("The cell wrote to stderr", new)

    def compare_outputs(self, test, ref, skip_compare=None):
        if replaced(self, test):
            return True
        if not compare_text(self, test, ref, skip_compare):
            return False
        why = compare_figures(self, pictures(test), pictures(ref))
        if why:
            self.comparison_traceback.append(why)
        return why is None

    def compare_figures(self, drawn, stored):
        if len(drawn) != len(stored):
            return f"{len(stored)} figures stored, {len(drawn)} drawn"
        made_by = self.parent.nb.metadata.get("executed", {}).get("matplotlib", "unknown")
        if made_by.split(".")[:2] != minor_matplotlib():
            # 3.10 and 3.11 draw 3-D axes 9 to 13 RMS apart: no verdict on pictures
            if stored:
                here = ".".join(minor_matplotlib())
                note(self, f"pictures not compared, drawn with matplotlib {made_by} and here is {here}")
            return None
        return figure_difference(drawn, stored)

    IPyNbCell.runtest, IPyNbCell.compare_outputs = runtest, compare_outputs


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """What was not compared, once each, above pytest's closing line."""
    reports = (r for rs in terminalreporter.stats.values() for r in rs)
    notes = {text for r in reports for key, text in getattr(r, "user_properties", ()) if key == NOTE}
    if notes:
        terminalreporter.section("notebooks not compared in full")
        for text in sorted(notes):
            terminalreporter.line(text)
