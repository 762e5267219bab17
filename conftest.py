"""Close nbval's holes, so that a notebook that passes is one that still says what it said.

nbval skips image/png, and compares nothing in a cell that was never run or is marked to be ignored.  Here pictures are
compared by their pixels, a cell never run is a failure, and stderr is a failure everywhere.  The one exception:
where a recording could not be had (DataReplaced), the notebook runs on, its outputs are not compared, and the
summary says so; MSPACE_REQUIRE_DATA=1 makes that a failure too.
"""

import os
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "tools"))
sys.path.insert(0, str(Path(__file__).parent / "book"))  # tests and chapters import the book's own `kit`
import compare
import nb

nb.settle_environment()  # as for the stored outputs; kernels and workers inherit it, and they work in book/
NOTE = "notebook"  # the key under which a cell's remark travels from a worker to the summary

collect_ignore_glob = ["book/*.py", "book/_ext/*", "_build/*"]  # chapters are tested as notebooks


@cache
def minor_matplotlib():
    from importlib.metadata import version

    return version("matplotlib").split(".")[:2]


def pytest_configure(config):
    import matplotlib

    matplotlib.use("agg")  # unit tests open no window; an environment variable would reach the kernels too
    if getattr(config.option, "nbval", False):
        strengthen_nbval()


def strengthen_nbval():
    from nbval.plugin import IPyNbCell

    run = IPyNbCell.runtest

    def note(cell, text):
        cell.user_properties.append((NOTE, f"{cell.parent.path.name}: {text}"))

    def replaced(cell, outputs):
        """Has this cell, or one before it, worked on a stand-in for a recording?"""
        if compare.replaced(outputs) and not getattr(cell.parent, "data_replaced", False):
            cell.parent.data_replaced = True
            note(cell, f"a recording was replaced, outputs not compared from cell {cell.cell_num} on")
        return getattr(cell.parent, "data_replaced", False)

    def runtest(self):
        if self.cell.source.strip() and self.cell.execution_count is None:
            self.raise_cell_error("The stored cell was never run, so there is nothing to compare: `make notebooks`")
        run(self)
        new = compare.stderr(self.test_outputs)
        if replaced(self, self.test_outputs):
            required = nb.NOWHERE not in new and os.environ.get("MSPACE_REQUIRE_DATA")
            if compare.replaced(self.test_outputs) and required:
                self.raise_cell_error("A recording could not be had, and MSPACE_REQUIRE_DATA is set", new)
        elif new:
            self.raise_cell_error("The cell wrote to stderr", new)

    def compare_outputs(self, test, ref, skip_compare=None):
        if replaced(self, test):
            return True
        varies = self.cell.metadata.get("varies")
        faults = compare.cell_faults(test, ref, varies, with_figures=drawn_alike(self, ref))
        self.comparison_traceback = [f"\n{fault}" for fault in faults]
        return not faults

    def drawn_alike(self, ref):
        """3.10 and 3.11 draw 3-D axes 9 to 13 RMS apart: no verdict on pictures of another matplotlib."""
        made_by = self.parent.nb.metadata.get("executed", {}).get("matplotlib", "unknown")
        alike = made_by.split(".")[:2] == minor_matplotlib()
        if not alike and compare.pictures(ref):
            here = ".".join(minor_matplotlib())
            note(self, f"pictures not compared, drawn with matplotlib {made_by} and here is {here}")
        return alike

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
