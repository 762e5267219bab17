# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (ch:trajectories)=
# # Trajectories
#
# A network does not see a time series. It sees windows cut out of it.
# This chapter turns a series into windows and windows back into a series, and says what a forecast is and how
# to judge one. It follows section 2 of the paper {cite}`nasyrov2023`, definitions 1 to 4.
#
# **At the end you will know**
#
# - what the trajectory matrix is, and why a point of it is a point of a path through $\R^h$;
# - why that path is a circle for a sine, and why noise blurs it less in a longer window;
# - what it means to forecast by feeding a model its own answers;
# - three ways in which an evaluation of a forecast lies, and how to stop each of them.

# %% tags=["remove-cell"]
# Colab has this notebook but not the package.
import importlib.util

from IPython import get_ipython

if importlib.util.find_spec("mspace") is None:
    get_ipython().run_line_magic(
        "pip", "install -q git+https://github.com/mspace-book/mspace"
    )

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch

import mspace as ms
from mspace import plot
from mspace.flipbook import Flipbook

torch.set_num_threads(1)
plot.book_style()


def seeded(seed):
    """A stream of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## From a series to windows
#
# ```{prf:definition} Time point, history, horizon
# :label: def-history
#
# Let $m$ series be measured together, $\vec x_t = [s_1^t, \dots, s_m^t]^\T \in \R^m$ at time $t$ (definition 1).
# The **history** of length $h$ at time $t$ is $\mat X_{t,h} = [\vec x_{t-h+1}, \dots, \vec x_t]^\T \in \R^{h\times m}$,
# oldest first (definition 2).
# The **horizon** of length $p$ is what follows, $\mat Y_{t,p} = [\vec x_{t+1}, \dots, \vec x_{t+p}]^\T \in \R^{p\times m}$
# (definition 3).
# ```
#
# From here on, as in the paper, $m = 1$. A series of $T$ samples has $T - h + 1$ histories. Put side by side they
# make the **trajectory matrix**
#
# ```{math}
# :label: eq-trajectory
# \mat X = \begin{pmatrix} s_1 & s_2 & \cdots & s_{T-h+1} \\ s_2 & s_3 & \cdots & s_{T-h+2} \\
# \vdots & & & \vdots \\ s_h & s_{h+1} & \cdots & s_T \end{pmatrix} \in \R^{h \times (T-h+1)} .
# ```
#
# Its antidiagonals are constant, so it is a Hankel matrix. Nothing is copied to make it: `ms.windows` returns a view
# of the series, and its transpose is {eq}`eq-trajectory`.
#
# We take the paper's own example: one period of a sine at 500 points, with Gaussian noise of standard
# deviation 0.2. The truth is known, so every claim can be checked.

# %%
sine = ms.datasets.noisy_sine(generator=seeded(0))
h = 120
X = ms.windows(sine.series, h).T
print(
    "trajectory matrix:",
    tuple(X.shape),
    "| copied:",
    X.untyped_storage().nbytes() > 500 * 8,
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One period of a noisy sine, and its trajectory matrix for a window of 120. The orange window of the series is the orange column of the matrix. Every antidiagonal of the matrix has one colour.\n", "name": "fig-trajectory"}, "image": {"alt": "Left, a noisy sine with one window of 120 samples marked; right, its trajectory matrix as an image with constant antidiagonals and the matching column marked."}}
fig, (left, right) = plt.subplots(1, 2, gridspec_kw={"width_ratios": [1.2, 1]})
plot.series(sine.series, truth=sine.truth, ax=left)
left.axvspan(200, 200 + h - 1, color=plot.COLORS[1], alpha=0.25, linewidth=0)
left.set(title="series, and one window", xlabel="t", ylabel="$s_t$")
left.legend(loc="upper left")
right.imshow(X, aspect="auto", interpolation="nearest")
right.axvline(200, color=plot.COLORS[1], linewidth=2)
right.grid(visible=False)
right.set(title="trajectory matrix", xlabel="window", ylabel="sample of the window")
plt.show()

# %% [markdown]
# ## A path through $\R^h$
#
# Each column of {eq}`eq-trajectory` is a point in $\R^h$. As the window slides, the point moves: the series has
# become a **phase trajectory**. Its shape belongs to the series.
#
# A sine of frequency $\omega$ obeys $s_{t+k} = \cos(\omega k)\, s_t + \sin(\omega k)\, c_t$, where $c_t$ is the
# cosine at the same place. So a window of a sine is a combination of only two fixed vectors, and its path stays in a
# plane of $\R^h$ whatever $h$ is. In that plane it goes round an ellipse, once a period.
#
# Noise lifts the points off the plane. Projecting them back onto it averages the noise over the window, and the more
# samples there are in the window the less is left. Turn the pages of the flipbook: it shows
# four noisy periods, projected on the plane that fits the trajectory best, with axes scaled to the same size.

# %% tags=["hide-input"]
long_sine = ms.datasets.noisy_sine(1000, periods=4, generator=seeded(1))


def draw_path(width):
    """One frame: the noisy path and the clean one in the noisy one's plane."""
    basis = ms.SSA.of(long_sine.series, width, rank=2).left[:, :2]
    ax = plt.subplots(figsize=(4.2, 3.9))[1]
    for series, style in (
        (long_sine.series, {"color": "#9a9a9a", "linewidth": 0.7}),
        (long_sine.truth, {"color": plot.COLORS[0]}),
    ):
        path = ms.windows(series, width) @ basis / math.sqrt(width / 2)
        ax.plot(
            path[:, 0],
            path[:, 1],
            **style,
            label="measured" if series is long_sine.series else "truth",
        )
    ax.set(
        xlim=(-1.7, 1.7),
        ylim=(-1.7, 1.7),
        aspect="equal",
        xlabel="first direction",
        ylabel="second direction",
    )
    ax.legend(loc="upper right")
    return ax


Flipbook(
    draw_path,
    [2, 5, 10, 20, 50, 100, 125],
    label="window of {} samples",
    start=3,
    alt="Path of a noisy sine in the best plane of windows of {} samples, beside the path of the clean sine.",
)

# %% [markdown]
# With two samples a window the path is a thick diagonal bar, because neighbouring samples are almost equal. With
# half a period (125 samples) it is a thin circle. **Check**: the clean sine's path fits into a plane to
# rounding; and in that plane noise of standard deviation $\sigma$ moves a point by $\sigma\sqrt{2/h}$ in each
# direction, when the circle has radius one.

# %%
basis = {w: ms.SSA.of(long_sine.truth, w, rank=2).left for w in (20, 50, 125)}
assert all(b.shape[1] == 2 for b in basis.values()), "a sine has trajectory rank two"
noise = long_sine.series - long_sine.truth
moved = {
    w: float((ms.windows(noise, w) @ b / math.sqrt(w / 2)).std())
    for w, b in basis.items()
}
print("noise in the plane:", {w: f"{m:.3f}" for w, m in moved.items()})
assert all(abs(m / (0.2 * math.sqrt(2 / w)) - 1) < 0.3 for w, m in moved.items())

# %% [markdown]
# ## And back
#
# A model that works on windows answers with windows, and they overlap: sample $t$ is in up to $h$ of them. The
# natural single answer is their mean. Averaging the antidiagonals of any matrix, $\hank$ in the paper, does just that.
#
# ```{prf:property} Averaging is a projection
# :label: prop-average
#
# $\hank(\mat Y)$ is the Hankel matrix nearest to $\mat Y$ in the Frobenius norm. So it changes nothing on a
# trajectory matrix, and $\mat Y - \hank(\mat Y)$ is orthogonal to every Hankel matrix.
# ```
#
# `ms.average` returns the series that this Hankel matrix belongs to. **Check** both halves of {prf:ref}`prop-average`:

# %%
anything = torch.randn(h, X.shape[1], generator=seeded(2), dtype=torch.float64)
nearest = ms.windows(ms.average(anything), h).T
assert torch.allclose(ms.average(X), sine.series, atol=1e-14)
assert abs(((anything - nearest) * X).sum()) < 1e-9

# %% [markdown]
# ## Forecasting: a model fed with its own answers
#
# An autoregressive model maps a history to a horizon, $\vec f: \R^{h \times m} \to \R^{p \times m}$ (definition 4).
# There are two ways to look further ahead than one step.
#
# - **Direct**: train a model whose horizon is as long as you need.
# - **Recursive**: train for one step ($p = 1$), append the answer to the history, ask again. The paper calls
#   this *autoregressive decoding* and sums its squared errors over the whole free run.
#
# `ms.forecast(model, history, steps)` does both: it asks again only when the model's horizon is too short.
# (The paper lets the model see all of the past; with a fixed $h$ only the last $h$ samples matter.)
#
# A clean sine obeys $s_{t+1} = 2\cos\omega\, s_t - s_{t-1}$. Two weights forecast it for ever. Least squares finds
# them, and the free run stays on the sine.

# %%
step = float(long_sine.time[1] - long_sine.time[0])
known, future = long_sine.truth[:700], long_sine.truth[700:]
exact = ms.ridge_ar(known, 2, penalty=0.0)
print(
    "weights:",
    [f"{w:.4f}" for w in exact.weight[0].tolist()],
    f"| 2 cos w = {2 * math.cos(step):.4f}",
)
assert (ms.forecast(exact, known, len(future), width=2) - future).abs().max() < 1e-6

# %% [markdown]
# Now add the noise. The same two weights, learned from noisy histories, are useless: the noise in the *inputs* pulls
# them toward zero, and the free run dies within a few steps.
# A longer window lets the model average the noise out. The band is the middle 90 % of 50 noise draws.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Free runs of linear autoregressions learned from 700 noisy samples, windows of 2 and of 200. Bands hold 90 % of 50 noise draws.\n", "name": "fig-freerun"}, "image": {"alt": "Forecasts over 300 samples: the model with a window of two decays to zero at once, the model with a window of 200 follows the sine with a band around it."}}
def free_run(width, seed):
    """Learn from a noisy past, run freely over the future."""
    noisy = ms.datasets.noisy_sine(1000, periods=4, generator=seeded(seed)).series[
        :700
    ]
    return ms.forecast(ms.ridge_ar(noisy, width), noisy, 300, width=width)


runs = {
    width: torch.stack([free_run(width, 100 + seed) for seed in range(50)])
    for width in (2, 200)
}
ax = plt.subplots()[1]
ax.plot(range(700, 1000), future, color="#333333", linestyle="--", label="truth")
for (width, draws), color in zip(
    runs.items(), (plot.COLORS[1], plot.COLORS[0]), strict=True
):
    low, middle, high = draws.quantile(
        torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64), dim=0
    )
    ax.fill_between(range(700, 1000), low, high, color=color, alpha=0.2, linewidth=0)
    ax.plot(range(700, 1000), middle, color=color, label=f"window of {width}")
ax.set(xlabel="t", ylabel="$s_t$", ylim=(-1.5, 1.6))
ax.legend(ncols=3, loc="upper center")
plt.show()

# %%
error = {width: ((draws - future) ** 2).mean(1) for width, draws in runs.items()}
print(
    "free-run MSE:",
    {w: f"{e.mean():.3f} +- {e.std():.3f}" for w, e in error.items()},
    "| silence:",
    f"{(future**2).mean():.3f}",
)
assert error[200].mean() < 0.1 * error[2].mean()

# %% [markdown]
# ## Real walking, and three ways to lie
#
# The paper's real series is a phone in a trouser pocket: subject 1 of MotionSense {cite}`malekzadeh2018` walks,
# the sensor gives the acceleration along its x axis, in units of $g$, 50 times a second. There are three trials.

# %%
walk = ms.datasets.walking()
print(walk.source)
print(
    {name: len(s) for name, s in zip(walk.names, walk.series, strict=True)},
    f"samples at {walk.rate:g} Hz",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Four seconds from the middle of each trial. The pattern repeats about once a second, the time of two steps.\n", "name": "fig-walk"}, "image": {"alt": "Three stacked plots of four seconds of walking acceleration, each with a pattern that repeats about once a second."}}
middle = [s[len(s) // 2 :][:200] for s in walk.series]
plot.components(torch.stack(middle), rate=walk.rate, names=walk.names, unit="g")
plt.show()

# %% [markdown]
# **First lie: windows that straddle recordings.** The authors join the three trials into one series and slide a window
# of 100 over it. At each joint, 99 windows hold the end of one walk and the beginning of another, a movement that
# nobody made. `ms.windows` takes a list of recordings and never crosses their boundaries.

# %%
joined, apart = (
    len(ms.windows(torch.cat(walk.series), 100)),
    len(ms.windows(walk.series, 100)),
)
print(
    f"{joined} windows of the joined series, {apart} of the recordings: {joined - apart} never happened"
)
assert joined - apart == 99 * (len(walk.series) - 1)

# %% [markdown]
# **Second lie: test windows that the model has seen.** Windows overlap. If they are shuffled before they are split,
# nearly every test window has a neighbour in the training set that is shifted by one sample. A model that only
# remembers then looks clairvoyant. Here is such a model: it finds the most similar window it knows and repeats what
# followed. We try it where nothing can be learned, on a random walk with steps of variance one. Nobody can forecast it $k$
# steps ahead with an error below $k$, which over $k = 1, \dots, 10$ averages to 5.5.
# `ms.split` cuts in time and leaves a gap of $h + p - 1$ windows, so that no sample is shared.


# %%
def memory_error(train, test):
    """MSE of repeating what followed the nearest known window."""
    (x, y), (u, v) = train, test
    return ((y[torch.cdist(u, x).argmin(1)] - v) ** 2).mean()


def both_splits(seed, h=20, p=10):
    """Errors of pure memory on a random walk: shuffled windows, windows split in time."""
    walker = torch.randn(1500, generator=seeded(seed), dtype=torch.float64).cumsum(0)
    x, y = ms.windows(walker, h, horizon=p)
    test, train = torch.randperm(len(x), generator=seeded(seed)).tensor_split(
        [len(x) // 3]
    )
    in_time = (ms.split(part, 0.7, 0.3, gap=h + p - 1) for part in (x, y))
    return memory_error((x[train], y[train]), (x[test], y[test])), memory_error(
        *zip(*in_time, strict=True)
    )


shuffled, honest = torch.tensor([both_splits(seed) for seed in range(20)]).T
print(
    f"MSE of pure memory over 20 walks: shuffled {shuffled.mean():.2f} +- {shuffled.std():.2f}, "
    f"in time {honest.mean():.0f} (median {honest.median():.0f}), the best possible 5.5"
)
assert shuffled.max() < 5.5 < honest.min()

# %% [markdown]
# **Third lie: one origin, no rival.** A forecast from a single origin may be luck, and an error means nothing by itself.
# `ms.rolling_origin` asks for a forecast from many origins of the series that was held out, at every lead time.
# We hold out trial 15, learn from the others, and let three simple rivals show what is easy:
#
# - *persistence* repeats the last sample;
# - *seasonal naive* repeats the last period, found from the autocorrelation of the training trials;
# - *ridge AR* is a linear autoregression whose penalty is chosen by cross-validation, run recursively.
#
# The error is given as MASE {cite}`hyndman2006`: the mean absolute error divided by that of the one-period naive
# forecast on the samples before the first origin. Below 1 is better than naive.

# %%
*train, test = walk.series
periods = {
    name: ms.dominant_period(s, max_period=100)
    for name, s in zip(walk.names, walk.series, strict=True)
}
period = periods[walk.names[0]]
print(
    "periods in samples:", periods, f"| {walk.names[0]}: {period / walk.rate:.2f} s"
)
rivals = {
    "persistence": ms.persistence,
    "seasonal naive": ms.seasonal_naive(period),
    "ridge AR(53)": partial(ms.forecast, ms.ridge_ar(train, 53), width=53),
    "ridge AR(106)": partial(ms.forecast, ms.ridge_ar(train, 106), width=106),
}
# Every fifth sample is an origin, so that all phases of a stride come up; 21 of them span a horizon.
skill = {
    name: ms.rolling_origin(rival, test, 106, start=500, every=5, period=period)
    for name, rival in rivals.items()
}
print(ms.skill_table(skill, [1, 10, 40, 106], block=21, generator=seeded(4)))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Error of the four rivals on the held-out trial by lead time, with 95 % intervals from resampled blocks of origins for two of them.\n", "name": "fig-rivals"}, "image": {"alt": "MASE against lead time for persistence, seasonal naive and two ridge autoregressions; the autoregression with a window of 106 is lowest at almost all leads."}}
shade = {
    name: skill[name].interval("mase", block=21, generator=seeded(4))
    for name in ("seasonal naive", "ridge AR(106)")
}
ax = plot.skills(skill, rate=walk.rate, shade=shade)
ax.axhline(1, color="#333333", linewidth=0.8, linestyle=":")
plt.show()

# %% [markdown]
# **Check** what the table says. The asserts hold for the real recordings only, so they are skipped where a stand-in had
# to be used.

# %%
if walk.official:
    assert joined - apart == 198, "the authors' 198 straddling windows"
    best = skill["ridge AR(106)"]("mase")
    assert (
        best[0] < skill["persistence"]("mase")[0]
        and best[39] < skill["seasonal naive"]("mase")[39]
    )
    assert abs(period / walk.rate - 1.06) < 0.03

# %% [markdown]
# ## What we saw
#
# - A sine's trajectory lies in a plane of any $\R^h$ and goes round once a period. Noise blurs it, less in longer windows.
# - Averaging antidiagonals is the exact way back from windows to a series.
# - Noise in the inputs ruins a short autoregression. A longer window is the cure.
# - Joined recordings, shuffled windows and single origins each make a model look better than it is.
# - On held-out walking, a plain linear autoregression over two strides beats repeating the last stride at every
#   lead. Repeating does badly because this person walked trial 15 at another pace. Any network of the later
#   chapters has to beat that line, not zero.
#
# ```{exercise} Two sines
# :label: ex-two-sines
#
# How many weights does the sum of two sines of different frequencies need to be forecast for ever? Find them for
# $\omega_1 = 0.3$ and $\omega_2 = 0.7$ and check a free run of 500 steps.
# ```
#
# ````{solution} ex-two-sines
# :class: dropdown
#
# Four. Each sine is killed by $1 - 2\cos\omega\, z + z^2$, and their sum by the product of the two polynomials.
#
# ```python
# t = torch.arange(700, dtype=torch.float64)
# s = torch.sin(0.3 * t) + torch.sin(0.7 * t)
# model = ms.ridge_ar(s[:200], 4, penalty=0.0)
# print(model.weight)
# print((ms.forecast(model, s[:200], 500, width=4) - s[200:]).abs().max())
# ```
# ````
#
# **Next**: the plane that fits a trajectory best is the first thing that {ref}`singular spectrum analysis <ch:ssa>` finds.
