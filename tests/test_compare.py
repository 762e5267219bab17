"""Plant faults in outputs and see each caught, in plain cells and in declared ones; and see honest moves let through."""

import base64
import re

import compare
import matplotlib.pyplot as plt
import numpy as np
import pytest

from kit import plot

VARIES = {"rtol": 0.1}
TABLE = """\
| way | 30 % | outages | lead 1 |
| --- | --- | --- | --- |
| ODE-RNN | 1.37 ± 0.07 | 1.78 ± 0.05 | 0.812 |
| Gaussian | 1.12 ± 0.04 | 1.31 [1.12, 1.51] | 0.655 |
| own stride | 2.05 ± 0.11 | -0.40 [-0.52, -0.29] | 0.944 |
"""
PROSE = "best over 53 leads: Gaussian, 1.12 of 137 origins; 84% of the variance\n"
TEXT = PROSE + TABLE


def outputs(text=TEXT, png=None):
    stream = {"output_type": "stream", "name": "stdout", "text": text}
    picture = {"output_type": "display_data", "data": {"image/png": png, "text/plain": "<Figure>"}}
    return [stream] + ([picture] if png else [])


def swapped_columns(table):
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return "\n".join("| " + " | ".join([r[0], r[2], r[1], *r[3:]]) + " |" for r in rows) + "\n"


def swapped_numbers(table):
    """Two columns of numbers trade places and their heads do not."""
    _, rule, *rows = swapped_columns(table).splitlines()
    return "\n".join([table.splitlines()[0], rule, *rows]) + "\n"


def swapped_rows(table):
    head, rule, one, two, three = table.splitlines()
    return "\n".join([head, rule, two, one, three]) + "\n"


def swapped_names(table):
    """Two rows of numbers trade places and their names do not."""
    return table.replace("ODE-RNN", "?").replace("Gaussian", "ODE-RNN").replace("?", "Gaussian")


def of(old, new):
    assert old in TEXT
    return TEXT.replace(old, new)


# fault: (the text with it, what a plain cell says, what a declared one says)
TEXT_FAULTS = {
    "moved by 3 of its standard errors": (of("1.37 ± 0.07", "1.58 ± 0.07"), "1.58 ± 0.07", "combined standard errors"),
    "interval moved by 3 of its standard errors": (
        of("1.31 [1.12, 1.51]", "1.61 [1.42, 1.81]"), "last digit", "combined standard errors",
    ),
    "another digit": (of("0.812", "0.912"), "last digit", "rtol=0.1"),
    "another place of the point": (of("0.655", "6.55"), "last digit", "rtol=0.1"),
    "another place of the point before ±": (of("1.12 ± 0.04", "11.2 ± 0.04"), "last digit", "combined standard errors"),
    "another count": (of("137 origins", "173 origins"), "173", "rtol=0.1"),
    "two rows swapped": (PROSE + swapped_rows(TABLE), "words differ", "words differ"),
    "two rows swapped under their names": (PROSE + swapped_names(TABLE), "words differ", "words differ"),
    "two columns swapped": (PROSE + swapped_columns(TABLE), "words differ", "words differ"),
    "two columns swapped under their heads": (PROSE + swapped_numbers(TABLE), "words differ|last digit", "words|errors"),
    "a row missing": (PROSE + TABLE.replace(TABLE.splitlines()[3] + "\n", ""), "words differ", "words differ"),
    "a row too many": (TEXT + TABLE.splitlines()[-1], "words differ", "words differ"),
    "a sign flipped": (of("0.944", "-0.944"), "last digit", "rtol=0.1"),
    "a sign flipped before ±": (of("2.05 ±", "-2.05 ±"), "last digit", "combined standard errors"),
    "a sign flipped in an interval": (
        of("-0.40 [-0.52, -0.29]", "0.40 [0.29, 0.52]"), "last digit", "combined standard errors",
    ),
    "an interval twice as wide": (of("1.31 [1.12, 1.51]", "1.31 [0.93, 1.71]"), "last digit", "uncertainty changed"),
    "an error twice as large": (of("1.37 ± 0.07", "1.37 ± 0.14"), "last digit", "uncertainty changed"),
    "an error half as large": (of("2.05 ± 0.11", "2.05 ± 0.05"), "last digit", "uncertainty changed"),
    "an error left out": (of("1.37 ± 0.07", "1.37"), "words differ", "words differ"),
    "another word": (of("leads: Gaussian", "leads: ODE-RNN"), "words differ, first in line 1", "words differ"),
    "nothing printed": ("", "words differ", "words differ"),
    "not a number": (of("0.812", "nan"), "words differ", "words differ"),
}  # fmt: skip


@pytest.mark.parametrize("varies", [None, VARIES], ids=["plain", "declared"])
@pytest.mark.parametrize("fault", TEXT_FAULTS)
def test_a_planted_fault_is_caught(fault, varies):
    text, plain, declared = TEXT_FAULTS[fault]
    found = compare.cell_faults(outputs(text), outputs(), varies)
    assert re.search(declared if varies else plain, "\n".join(found)), found


HONEST = {
    "nothing": (TEXT, None),
    "one unit of the last digit": (of("0.812", "0.813").replace("± 0.04", "± 0.05"), None),
    "one per cent": (of("84%", "85%"), None),
    "spaces that align": (of("| ODE-RNN | 1.37", "|  ODE-RNN |  1.37"), None),
    "a number within its error": (of("1.37 ± 0.07", "1.22 ± 0.06"), VARIES),
    "an interval within its error": (of("1.31 [1.12, 1.51]", "1.21 [1.03, 1.40]"), VARIES),
    "a number within the tolerance": (of("0.812", "0.874"), VARIES),
    "an error half again as large": (of("1.37 ± 0.07", "1.37 ± 0.10"), VARIES),
}


@pytest.mark.parametrize("move", HONEST)
def test_an_honest_move_is_let_through(move):
    text, varies = HONEST[move]
    assert compare.cell_faults(outputs(text), outputs(), varies) == []


@pytest.mark.parametrize("move", [m for m, (_, varies) in HONEST.items() if varies])
def test_a_plain_cell_lets_none_of_them_through(move):
    assert compare.cell_faults(outputs(HONEST[move][0]), outputs())


def test_numbers_are_read_as_they_are_printed():
    words, found = compare.read("100-3-100: W2 is 1e-05, -0.5 ± 0.25 or [ -1, 2.50]; 3.")
    assert words == "#-#-#:W2is#,#±#or[#,#];#"
    assert [[n.value for n in p.numbers] for p in found] == [[100], [3], [100], [1e-5], [-0.5, 0.25], [-1, 2.5], [3]]
    assert found[3].numbers[0].unit == pytest.approx(1e-5)
    assert found[4].error == 0.25
    assert found[5].error == pytest.approx(3.5 / 3.92)


def test_a_stream_may_come_in_pieces():
    pieces = [{"output_type": "stream", "name": "stdout", "text": part} for part in ("total 1", "2.5\n")]
    assert compare.cell_faults(pieces, outputs("total 12.5\n")) == []


# -- pictures

X = np.linspace(0, 10, 200)
CURVES = {"a": (0, np.sin(X)), "b": (1, np.cos(X) * 0.7 + 0.6)}


def drawn(curves=CURVES, *, panels=2, size=(6.2, 3.1), scale="linear", limits=(-1.5, 1.5), colors=plot.COLORS):
    """Two panels: two curves, and bars."""
    fig, axes = plt.subplots(1, panels, figsize=size, squeeze=False)
    for color, y in curves.values():
        axes[0, 0].plot(X, y, color=colors[color])
    axes[0, 0].set(ylim=limits, yscale=scale)
    if panels > 1:
        axes[0, 1].bar(range(4), [1, 3, 2, 4], color=colors[2])
        axes[0, 1].set_ylim(0, 5)
    png = base64.b64encode(plot.png(fig)).decode()
    plt.close(fig)
    return png


def moved(by):
    return CURVES | {"a": (0, np.sin(X) + by)}


FIGURE_FAULTS = {
    "a curve shifted by a tenth of its axis": lambda: drawn(moved(0.3)),
    "a curve shifted along a tenth of its axis": lambda: drawn(CURVES | {"a": (0, np.sin(X - 1))}),
    "two curves' colours swapped": lambda: drawn(colors=(plot.COLORS[1], plot.COLORS[0], plot.COLORS[2])),
    "a curve missing": lambda: drawn({"a": CURVES["a"]}),
    "a panel missing": lambda: drawn(panels=1),
    "a panel too many": lambda: drawn(panels=3),
    "an axis on another scale": lambda: drawn(scale="symlog"),
    "an axis with other limits": lambda: drawn(limits=(-3, 3)),
    "an empty picture": lambda: drawn({}),
    "a picture of another size": lambda: drawn(size=(6.2, 3.3)),
}


@pytest.fixture(scope="module")
def style():
    """The book's style while this module draws; other tests have matplotlib's own."""
    with plt.rc_context():
        plot.book_style()
        yield


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("varies", [None, VARIES], ids=["plain", "declared"])
@pytest.mark.parametrize("fault", FIGURE_FAULTS)
def test_a_planted_fault_in_a_picture_is_caught(fault, varies):
    found = compare.cell_faults(outputs(png=FIGURE_FAULTS[fault]()), outputs(png=drawn()), varies)
    assert len(found) == 1 and found[0].startswith("figure 1: ")


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("varies", [None, VARIES], ids=["plain", "declared"])
def test_a_panel_is_missed_even_where_it_leaves_no_ink(varies):
    def with_blank(blank):
        fig, ax = plt.subplots()
        ax.plot(X, X)
        if blank:
            fig.add_axes([0.4, 0.4, 0.1, 0.1]).set_axis_off()
        png = base64.b64encode(plot.png(fig)).decode()
        plt.close(fig)
        return outputs(png=png)

    assert compare.figure_rms(*(o[1]["data"]["image/png"] for o in (with_blank(True), with_blank(False)))) < 1
    (fault,) = compare.cell_faults(with_blank(False), with_blank(True), varies)
    assert "stored with the panels rectilinear linear linear; rectilinear linear linear, drawn with" in fault


@pytest.mark.usefixtures("style")
def test_a_curve_that_moves_a_little_is_let_through_where_that_is_declared():
    new, stored = outputs(png=drawn(moved(0.08))), outputs(png=drawn())
    assert compare.cell_faults(new, stored, VARIES) == []
    assert "RMS" in compare.cell_faults(new, stored)[0]
    assert compare.cell_faults(outputs(png=drawn()), stored) == []


@pytest.mark.usefixtures("style")
def test_panels_are_counted_even_where_they_are_empty():
    blank = [drawn({}, panels=1, limits=(0, 1))]
    assert compare.panels(blank[0]) == "rectilinear linear linear"
    assert compare.panels(drawn(scale="symlog")) == "rectilinear linear symlog; rectilinear linear linear"


def test_a_picture_that_is_not_drawn_is_missed():
    assert compare.cell_faults(outputs(), outputs(png=drawn()), VARIES)
