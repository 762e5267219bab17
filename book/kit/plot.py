"""Figures of the book: one style, and the pictures that several chapters draw.

Every function draws on the axes it is given (or on new ones) and returns them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch

__all__ = [
    "COLORS",
    "band",
    "book_style",
    "components",
    "correlation",
    "density",
    "ellipsoid",
    "forecasts",
    "mixture",
    "png",
    "series",
    "skills",
    "spectrum",
]

# Okabe and Ito's colours in an order that also falls in lightness, so a grey print keeps the curves apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
WIDTH, HEIGHT = 6.2, 3.1  # inches; the text column at 125 dpi, and on a phone letters of eight pixels


def book_style() -> None:
    """Set matplotlib's defaults for a chapter: a fixed canvas on a white card, so every machine draws the same.

    The card stays white on a dark page: colours were chosen against white, and one picture serves both.
    """
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, HEIGHT),
            "figure.dpi": 125,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",
            "font.size": 10.5,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": mpl.cycler(color=COLORS),
            "grid.color": "#e6e6e6",
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "image.cmap": "cividis",
        }
    )
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
        from matplotlib.figure import Figure
        from matplotlib_inline.config import InlineBackend

        InlineBackend.instance().figure_formats = set()  # the backend would draw its own picture beside ours
        shell.display_formatter.mimebundle_formatter.for_type(Figure, _bundle)


def _bundle(figure, include=None, exclude=None) -> dict:
    return {"image/png": png(figure)}


def png(figure, dpi: float | None = None) -> bytes:
    """The figure as a PNG on its whole canvas, with a word on its panels that the tests compare.

    The inline backend would crop it tightly, which depends on the font metrics of the machine.
    """
    buffer = io.BytesIO()
    axes = [f"{ax.name} {ax.get_xscale()} {ax.get_yscale()}" for ax in figure.axes if ax.get_visible()]
    figure.savefig(buffer, format="png", dpi=dpi or figure.dpi, metadata={"Software": None, "Panels": "; ".join(axes)})
    return buffer.getvalue()


def _axes(ax=None, **figure):
    import matplotlib.pyplot as plt

    return plt.subplots(**figure)[1] if ax is None else ax


def _array(x) -> np.ndarray:
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def series(values, *, time=None, truth=None, label="measured", ax=None):
    """A measured series (T,) as a thin grey line, its truth, if known, as a dark one."""
    ax = _axes(ax)
    time = np.arange(len(values)) if time is None else _array(time)
    ax.plot(time, _array(values), color="#9a9a9a", linewidth=0.9, label=label, zorder=1)
    if truth is not None:
        ax.plot(time, _array(truth), color="#333333", linewidth=1.2, linestyle="--", label="truth", zorder=3)
    return ax


def band(x, draws, *, color=COLORS[0], label=None, level=0.9, ax=None):
    """The median of draws (n_draws, len(x)) as a line, the middle `level` of them as a band."""
    ax = _axes(ax)
    draws = _array(draws)
    low, middle, high = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    ax.fill_between(_array(x), low, high, color=color, alpha=0.2, linewidth=0)
    ax.plot(_array(x), middle, color=color, label=label, marker="o", markersize=3.5)
    return ax


def components(parts, *, rate=1.0, names: Sequence[str] | None = None, unit="", axes=None):
    """Components (r, T) one above another on one scale of time and of value, so that small ones look small.

    A series (T,) is one row; axes that are given keep their own scales.
    """
    parts = np.atleast_2d(_array(parts))
    names = [f"component {i + 1}" for i in range(len(parts))] if names is None else names
    if axes is None:
        size = (WIDTH, 1.1 * len(parts) + 0.6)
        axes = _axes(nrows=len(parts), sharex=True, sharey=True, squeeze=False, figsize=size)[:, 0]
    for i, (ax, part, name) in enumerate(zip(axes, parts, names, strict=True)):
        ax.plot(np.arange(len(part)) / rate, part, color=COLORS[i % len(COLORS)], linewidth=1.1)
        ax.set_title(name, pad=2)
        ax.set_ylabel(unit)
    axes[-1].set_xlabel("time, s" if rate != 1.0 else "sample")
    return axes


def correlation(matrix, *, ax=None):
    """Absolute correlations (r, r) of components, numbered from 1 as in the text."""
    ax = _axes(ax, figsize=(4.4, 3.8))
    matrix = np.abs(_array(matrix))
    edge = len(matrix) + 0.5
    image = ax.imshow(matrix, vmin=0, vmax=1, cmap="Greys", extent=(0.5, edge, edge, 0.5))
    ax.set(xlabel="component", ylabel="component")
    ax.locator_params(integer=True)
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label="|w-correlation|", shrink=0.85)
    return ax


def spectrum(values, *, rate=1.0, ax=None, **line):
    """The periodogram of a series (T,), linear in frequency, with the mean removed and a Hann window."""
    from scipy.signal import periodogram

    ax = _axes(ax)
    frequency, power = periodogram(_array(values), rate, window="hann")
    ax.plot(frequency[1:], power[1:], **({"linewidth": 1.1} | line))
    ax.set(xlabel="frequency, Hz" if rate != 1.0 else "frequency, per sample", ylabel="power density")
    return ax


def forecasts(history, actual, answers: dict, *, rate=1.0, past=None, ax=None):
    """The end of a history, what came after it, and what each of the named answers said would come."""
    ax = _axes(ax)
    past = min(len(actual) if past is None else past, len(history))
    lead = np.arange(1, len(actual) + 1) / rate
    ax.plot(np.arange(1 - past, 1) / rate, _array(history)[len(history) - past :], color="#9a9a9a", linewidth=1.1)
    ax.plot(lead, _array(actual), color="#333333", linewidth=1.6, label="what came")
    for (name, answer), color in zip(answers.items(), cycle(COLORS), strict=False):
        ax.plot(lead, _array(answer), color=color, linewidth=1.4, label=name)
    ax.axvline(0, color="#333333", linewidth=0.8, linestyle=":")
    ax.set_xlabel("time from the origin, s" if rate != 1.0 else "samples from the origin")
    return _legend_above(ax)


def skills(answers: dict, metric="mase", *, rate=1.0, shade: dict | None = None, ax=None):
    """The error of several forecasters by lead time; `shade` holds intervals (2, steps) by their names."""
    ax = _axes(ax)
    lead = np.arange(1, len(next(iter(answers.values()))(metric)) + 1) / rate
    for (name, skill), color in zip(answers.items(), cycle(COLORS), strict=False):
        ax.plot(lead, _array(skill(metric)), color=color, label=name)
        if shade and name in shade:
            ax.fill_between(lead, *_array(shade[name]), color=color, alpha=0.15, linewidth=0)
    ax.set(xlabel="lead time, s" if rate != 1.0 else "lead time, samples", ylabel=metric.upper())
    if metric != "r2":  # an error is read against zero, a gain may lie below it
        ax.set_ylim(0, None)
    return _legend_above(ax)


def _legend_above(ax):
    """A legend over the axes, in rows of three, so that it covers no curve and fits the canvas."""
    ax.legend(
        ncols=min(3, len(ax.get_legend_handles_labels()[1])),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        columnspacing=1.2,
        handlelength=1.4,
        handletextpad=0.5,
    )
    return ax


def mixture(neurons, points) -> torch.Tensor:
    """The density at points (..., n) of a mixture in which every neuron has the same share, (...)."""
    factor, failed = torch.linalg.cholesky_ex(neurons.cov)
    if failed.any():
        raise ValueError(
            f"neurons must have covariances of full rank, that of neuron {int(failed.argmax())} is flat and has no "
            "density: draw `ellipsoid`, or a `marginal` that spreads"
        )
    points = torch.as_tensor(points, dtype=torch.float64)
    gaussians = torch.distributions.MultivariateNormal(neurons.mean, scale_tril=factor)
    return gaussians.log_prob(points[..., None, :]).exp().mean(-1)


def density(neurons, *, size=121, ax=None):
    """The `mixture` of neurons in the plane: levels of equal density, or a surface on axes in space."""
    if neurons.dim != 2:
        raise ValueError(
            f"neurons must lie in the plane, got dimension {neurons.dim}: take a `marginal` of two coordinates"
        )
    ax = _axes(ax)
    reach = 3.5 * neurons.cov.diagonal(dim1=1, dim2=2).sqrt()
    low, high = (neurons.mean - reach).amin(0), (neurons.mean + reach).amax(0)
    x, y = (torch.linspace(float(a), float(b), size, dtype=torch.float64) for a, b in zip(low, high, strict=True))
    grid = torch.cartesian_prod(x, y).unflatten(0, (size, size))
    values = mixture(neurons, grid)
    if hasattr(ax, "plot_surface"):
        count = (size - 1) // 2  # facets that a figure of this size can show
        ax.plot_surface(*_array(grid).transpose(2, 0, 1), _array(values), cmap="cividis", rcount=count, ccount=count)
    else:
        from matplotlib.colors import PowerNorm

        # Levels at equal steps of the root, or low and wide neurons do not show beside a high one.
        levels, norm = float(values.max()) * np.linspace(0, 1, 11) ** 2, PowerNorm(0.5)
        ax.contourf(*_array(grid).transpose(2, 0, 1), _array(values), levels=levels, norm=norm)
        ax.set_aspect("equal")
    return ax


def ellipsoid(neurons, level=0.95, *, semi_axes=None, colors: Sequence = COLORS, alpha=0.3, detail=60, ax=None):
    """The regions that hold `level` of each neuron, curves in the plane or surfaces on axes in space.

    Args:
        semi_axes: (m, n), longest first; drawn in place of those that hold `level`
        alpha: opacity of surfaces
        detail: facets round a surface, fewer for small or many ones
    """
    centres, half, directions = neurons.ellipsoid(level)
    half = half if semi_axes is None else torch.as_tensor(semi_axes, dtype=torch.float64)
    # A symmetric map of the sphere: the picture does not depend on the signs of eigenvectors.
    maps = _array(directions @ (half[..., None] * directions.mT))
    sphere = _sphere(neurons.dim)
    ax = _axes(ax, **({"subplot_kw": {"projection": "3d"}} if neurons.dim == 3 else {}))
    for i, (centre, shape) in enumerate(zip(_array(centres), maps, strict=True)):
        color = colors[i % len(colors)]
        shell = np.tensordot(shape, sphere, 1) + centre.reshape(-1, *[1] * (sphere.ndim - 1))
        if neurons.dim == 3:
            ax.plot_surface(*shell, color=color, alpha=alpha, linewidth=0, rcount=detail, ccount=detail)
        else:
            ax.plot(*shell, color=color)
    ax.set_aspect("equal")
    return ax


def _sphere(dim: int) -> np.ndarray:
    """Points of the unit circle (2, 181) or the unit sphere (3, 31, 61)."""
    turn = np.linspace(0, 2 * np.pi, 181 if dim == 2 else 61)
    if dim == 2:
        return np.stack([np.cos(turn), np.sin(turn)])
    if dim != 3:
        raise ValueError(f"neurons must lie in the plane or in space, got dimension {dim}: take a `marginal`")
    height = np.linspace(0, np.pi, 31)[:, None]
    return np.stack([np.sin(height) * np.cos(turn), np.sin(height) * np.sin(turn), np.cos(height) + 0 * turn])
