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
# - what the trajectory matrix is, and why each of its columns is a point of a path through $\R^h$;
# - why that path is an ellipse for a sine, and why noise blurs it less in a longer window;
# - what it means to forecast by feeding a model its own answers;
# - four traps in judging a forecast, and a way round each of them.

# %% tags=["remove-cell"]
# Colab has this notebook, but neither the package nor what the book adds to it.
import importlib.util

from IPython import get_ipython

if importlib.util.find_spec("kit") is None:
    get_ipython().run_line_magic(
        "pip",
        "install -q 'mspace[chapters] @ git+https://github.com/mspace-book/mspace'"
        " 'mspace-book @ git+https://github.com/mspace-book/mspace#subdirectory=book'",
    )

# %% tags=["hide-input"]
import math
from functools import partial

import matplotlib.pyplot as plt
import torch

import mspace as ms
from kit import plot
from kit.flipbook import Flipbook
from kit.skill import skill_table
from kit.tables import TextTable, with_error
from mspace import seeded

ms.limit_threads()
plot.book_style()


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
# \begin{gathered}
# \mat X = \begin{pmatrix} s_1 & s_2 & \cdots & s_K \\ s_2 & s_3 & \cdots & s_{K+1} \\
# \vdots & & & \vdots \\ s_h & s_{h+1} & \cdots & s_T \end{pmatrix} \in \R^{h \times K}, \\
# K = T - h + 1 .
# \end{gathered}
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
copied = X.data_ptr() != sine.series.data_ptr()
print("trajectory matrix:", tuple(X.shape), "| copied:", copied)

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
# become a **phase trajectory**. Its shape depends on the series and on the window.
#
# A sine of frequency $\omega$ obeys $s_{t+k} = \cos(\omega k)\, s_t + \sin(\omega k)\, c_t$, where $c_t$ is the
# cosine at the same place. So a window of a sine is a combination of only two fixed vectors, and its path stays in a
# plane of $\R^h$ whatever $h$ is. In that plane it goes round an ellipse, once a period. For a sine of amplitude one the
# half-axes are
#
# ```{math}
# :label: eq-ellipse
# \sqrt{\frac h2 \pm \frac{|\sin \omega h|}{2 \sin \omega}} .
# ```
#
# In a short window neighbouring samples are almost equal, and the ellipse is flat. It is a circle when the
# window holds whole half periods.
#
# Noise lifts the points off the plane. Projected back, they keep of it the standard deviation $\sigma$ in each of the
# plane's two directions, for every $h$. The ellipse meanwhile grows like $\sqrt{h/2}$. So relative to it the noise is $\sigma\sqrt{2/h}$, and a longer window is a cleaner one. The pictures show four noisy periods, of 250 samples
# each, in the plane that fits them best, divided by $\sqrt{h/2}$. With two samples a window the path is a thick flat bar, with
# half a period a thin circle. Turn the pages of the flipbook for the windows between.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The path of a noisy sine (grey) and of the clean one (blue) for windows of 2, 50 and 125 samples; 125 are half a period.\n", "name": "fig-paths"}, "image": {"alt": "Three paths: with two samples a thick flat bar, with 50 an ellipse with a blurred line, with 125 a thin circle; the clean path runs through the middle of each."}}
long_sine = ms.datasets.noisy_sine(1000, periods=4, generator=seeded(1))


def draw_path(width, ax=None):
    """The noisy path and the clean one in the plane that fits the noisy one best."""
    basis = ms.SSA.of(long_sine.series, width, rank=2).left / math.sqrt(width / 2)
    ax = plt.subplots(figsize=(4.2, 3.9))[1] if ax is None else ax
    noisy, clean = (ms.windows(s, width) @ basis for s in long_sine[1:])
    ax.plot(*noisy.T, color="#9a9a9a", linewidth=0.7, label="measured")
    ax.plot(*clean.T, color=plot.COLORS[0], label="truth")
    ax.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
    ax.set(xlabel="first direction", ylabel="second direction")
    return ax


fig, axes = plt.subplots(1, 3, sharey=True, figsize=(plot.WIDTH, 2.7))
for ax, width in zip(axes, (2, 50, 125), strict=True):
    draw_path(width, ax).set(title=f"window of {width}", xlabel="")
axes[1].set_xlabel("first direction")
for ax in axes[1:]:
    ax.set_ylabel("")
plt.show()

# %% tags=["hide-input"]
Flipbook(
    lambda width: draw_path(width).legend(loc="upper right"),
    [5, 10, 20, 35, 70, 100],
    label="window of {} samples",
    start=2,
    alt="Path of a noisy sine in the best plane of windows of {} samples, beside the path of the clean sine.",
)

# %% [markdown]
# **Check**: the clean sine has trajectory rank two at every window, its half-axes are those of {eq}`eq-ellipse`, and noise
# has the standard deviation 0.2 in each direction of the plane.

# %%
omega = float(long_sine.time[1] - long_sine.time[0])
noise = long_sine.series - long_sine.truth
rows = []
for w in (2, 20, 50, 125):
    plane = ms.SSA.of(long_sine.truth, w)
    assert len(plane) == 2, "a sine has trajectory rank two"
    path = ms.windows(long_sine.truth, w) @ plane.left
    half = path.abs().amax(0)
    turn = abs(math.sin(w * omega)) / (2 * math.sin(omega))
    law = torch.tensor([w / 2 + turn, w / 2 - turn]).sqrt()
    blur = float((ms.windows(noise, w) @ plane.left).std())
    assert torch.allclose(half, law.double(), rtol=0.01)
    assert abs(blur / 0.2 - 1) < 0.2
    pairs = (f"{a:.2f} and {b:.2f}" for a, b in (half, law))
    relative = (s * math.sqrt(2 / w) for s in (blur, 0.2))
    rows.append([w, *pairs, *(f"{r:.3f}" for r in relative)])
TextTable(
    ["h", "half-axes", "by the law", "relative noise", "by the law"],
    rows,
)

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
anything = torch.randn(X.shape, generator=seeded(2), dtype=X.dtype)
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
# - **Recursive**: train for one step ($p = 1$), append the answer to the history, ask again. From the first
#   answer on the model runs on what it said itself: a **free run**.
#
# The paper takes the second way and calls its task *autoregressive decoding*. Three of its details need a word. Its
# model sees all of the past; with a fixed $h$ only the last $h$ samples matter. Its error is a sum of squares over the
# free run that it calls MSE; we take the mean, as its code does. And that code never forecasts: its networks
# rebuild windows that they are shown. In this book the two are different tasks.
#
# `ms.forecast(model, history, steps)` asks the model again only when its horizon is too short.
#
# A clean sine obeys $s_{t+1} = 2\cos\omega\, s_t - s_{t-1}$. Two weights forecast it for ever. Least squares finds
# them, and the free run stays on the sine.

# %%
known, future = long_sine.truth[:700], long_sine.truth[700:]
exact = ms.ridge_ar(known, 2, penalty=0.0)
free = ms.forecast(exact, known, len(future), width=2)
print("weights:", [f"{w:.4f}" for w in exact.weight[0].tolist()])
print(f"2 cos w = {2 * math.cos(omega):.4f}")
assert (free - future).abs().max() < 1e-6

# %% [markdown]
# Now add the noise. Least squares on noisy histories of two samples no longer finds $(-1, 2\cos\omega)$. Neighbours on the
# sine are nearly equal, so the best guess of the next sample from two noisy ones is nearly their mean: the weights are
# about $(\tfrac12, \tfrac12)$, a little less in sum. As a one-step forecast that is good. But an average knows of
# no turning, and the free run fades within about 100 samples, less than half a period.
# A longer window averages the noise and keeps the turning.
#
# **Check**: over 50 noise draws (± is the {ref}`standard error <sec:plus-minus>` over them) both weights are near one
# half and their sum is below one; the short run fades, but not at once; the long window has less than a tenth of its
# error.

# %%
pasts = [
    ms.datasets.noisy_sine(1000, periods=4, generator=seeded(100 + i))
    for i in range(50)
]
models = {}
for w in (2, 200):
    models[w] = [ms.ridge_ar(past.series[:700], w) for past in pasts]
runs = {
    w: torch.stack(
        [
            ms.forecast(model, past.series[:700], 300, width=w)
            for model, past in zip(models[w], pasts, strict=True)
        ]
    )
    for w in models
}
weights = torch.stack([m.weight[0].detach() for m in models[2]])
print("weights of two noisy samples:")
for weight in weights.T:
    print(f"   {with_error(weight, 3)}")
print("MSE of the free run:")
error = {w: (run - future).square().mean(1) for w, run in runs.items()}
for w, e in error.items():
    print(f"   window of {w}: {with_error(e, 4)}")
print(f"   always zero: {future.square().mean():.4f}")

assert ((weights.mean(0) - 0.5).abs() < 0.05).all()
assert 0.9 < weights.sum(1).mean() < 1
size = runs[2].abs().mean(0)
assert size[10] > 0.5 and size[99] < 0.15
assert error[200].mean() < 0.1 * error[2].mean()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Free runs of linear autoregressions learned from 700 noisy samples, windows of 2 and of 200. Lines are the median and bands the middle 90 % of 50 noise draws.\n", "name": "fig-freerun"}, "image": {"alt": "Forecasts over 300 samples: the model with a window of two fades to zero within about 100 samples, the model with a window of 200 follows the sine within a narrow band."}}
ahead, levels = range(700, 1000), torch.tensor([0.05, 0.5, 0.95]).double()
ax = plt.subplots()[1]
ax.plot(ahead, future, color="#333333", linestyle="--", label="truth")
for (w, run), color in zip(runs.items(), plot.COLORS[1::-1], strict=True):
    low, median, high = run.quantile(levels, dim=0)
    ax.fill_between(ahead, low, high, color=color, alpha=0.2, linewidth=0)
    ax.plot(ahead, median, color=color, label=f"window of {w}")
ax.set(xlabel="t", ylabel="$s_t$", ylim=(-1.5, 1.6))
ax.legend(ncols=3, loc="upper center")
plt.show()

# %% [markdown]
# ## Real walking, and four traps
#
# The paper's real series comes from a phone in a trouser pocket: subject 1 of MotionSense {cite}`malekzadeh2018` walks,
# the sensor gives the acceleration along its x axis, in units of $g$, 50 times a second. There are three trials. Four
# traps wait for whoever wants to forecast them. The authors are caught in the first; the other three are
# common, and not the paper's.
#
# **First trap: windows that straddle recordings.** The authors join the three trials into one series and slide a window
# of 100 over it. At each joint, 99 windows hold the end of one walk and the beginning of another, a movement that
# nobody made. `ms.windows` takes a list of recordings and never crosses their boundaries.

# %%
walk = ms.datasets.walking()
print(walk.source)
for name, recording in zip(walk.names, walk.series, strict=True):
    print(f"   {name:6} {len(recording)} samples at {walk.rate:g} Hz")
joined = len(ms.windows(torch.cat(walk.series), 100))
apart = len(ms.windows(walk.series, 100))
print(f"windows: {joined} joined, {apart} apart")
print(f"   {joined - apart} of movements that nobody made")
assert joined - apart == 99 * (len(walk.series) - 1)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Four seconds from the middle of each trial. The pattern repeats about once a second, the time of two steps.\n", "name": "fig-walk"}, "image": {"alt": "Three stacked plots of four seconds of walking acceleration, each with a pattern that repeats about once a second."}}
middle = [s[len(s) // 2 :][:200] for s in walk.series]
plot.components(torch.stack(middle), rate=walk.rate, names=walk.names, unit="g")
plt.show()

# %% [markdown]
# **Second trap: test windows that the model has seen.** Windows overlap. If they are shuffled before they are split,
# nine test windows in ten have a neighbour in the training set that is shifted by one sample. A model that only
# remembers then looks clairvoyant. Here is such a model: it finds the most similar window it knows and repeats what
# followed.
#
# We try it where nothing can be learned, on a random walk with steps of variance one. Nobody can forecast it $k$
# steps ahead with a mean squared error below $k$, which over $k = 1, \dots, 10$ averages to 5.5. `ms.split` cuts in time
# and leaves a gap of $h + p - 1$ windows, so that no sample is shared. Then memory is much worse than 5.5: a random walk
# soon moves to levels where no window is known.


# %%
def memory_error(train, test):
    """MSE of repeating what followed the nearest known window."""
    (x, y), (u, v) = train, test
    nearest = torch.cdist(u, x).argmin(1)
    return (y[nearest] - v).square().mean()


def both_splits(seed, h=20, p=10):
    """Errors of memory: windows shuffled, and windows split in time."""
    steps = torch.randn(1500, generator=seeded(seed), dtype=torch.float64)
    x, y = ms.windows(steps.cumsum(0), h, horizon=p)
    order = torch.randperm(len(x), generator=seeded(seed))
    test, train = order.tensor_split([len(x) // 3])
    shuffled = memory_error((x[train], y[train]), (x[test], y[test]))
    parts = [ms.split(v, 0.7, 0.3, gap=h + p - 1) for v in (x, y)]
    return shuffled, memory_error(*zip(*parts, strict=True))


shuffled, honest = torch.tensor([both_splits(s) for s in range(20)]).T
print("MSE of memory over 20 walks, ± standard error (the best possible is 5.5)")
print(f"   shuffled  {with_error(shuffled)}")
print(f"   in time   median {honest.median():.0f}, least {honest.min():.0f}")
assert shuffled.max() < 5.5 < honest.min()

# %% [markdown]
# **Third trap: one origin, no rival.** The **origin** of a forecast is where the history ends, its **lead** how far
# ahead of the origin it looks. A forecast from a single origin may be luck, and an error means nothing by itself.
# `ms.rolling_origin` asks for a forecast from many origins of the series that was held out, at every lead.
#
# **Fourth trap: a rival handicapped by the training trials.** The easiest forecast of walking is to repeat the last
# stride. How long is it? This person walks trial 15 at another pace than trial 7. A rival with the stride of trial 7
# falls out of step at once, and whatever model we favour will beat it. The stride of trial 15 is no secret: the
# samples before the first origin show it. Choose the baseline as carefully as the model.
#
# We hold out trial 15 and compare
#
# - *persistence*, which repeats the last sample;
# - *stride of trial 7*, which repeats as many samples as that stride has;
# - *own stride*, `ms.seasonal_naive()`, which finds the stride in the history of each forecast;
# - *ridge AR(106)*, a linear autoregression over two strides that learned from trials 7 and 8, run recursively.
#
# (The penalty of the ridge is chosen by leave-one-out on training windows that overlap. That is a mild case of
# the second trap, inside the training trials.)
#
# The error is given as MASE {cite}`hyndman2006`: the mean absolute error divided by that of repeating the own
# stride, one stride ahead, on the samples before the first origin. The divisor is one number for the whole series.
# Intervals hold 95 % of resamples of **blocks of origins**: neighbouring forecasts share most of their samples, so
# origins are drawn by the run, 21 of them, which span a horizon.

# %%
*train, test = walk.series
strides = {
    "trial 7": ms.dominant_period(train[0]),
    "trial 15": ms.dominant_period(test[:600]),
}
print("stride in samples:", strides)

ridge = ms.ridge_ar(train, 106)
rivals = {
    "persistence": ms.persistence,
    "stride of trial 7": ms.seasonal_naive(strides["trial 7"]),
    "own stride": ms.seasonal_naive(),
    "ridge AR(106)": partial(ms.forecast, ridge, width=106),
}
skill = {
    name: ms.rolling_origin(
        rival, test, 106, start=600, every=5, period=strides["trial 15"]
    )
    for name, rival in rivals.items()
}
skill_table(skill, [1, 10, 53], block=21, generator=seeded(4))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Error of the four rivals on the held-out trial by lead time, with 95 % intervals for two of them.\n", "name": "fig-rivals"}, "image": {"alt": "MASE against lead time for four forecasters; the stride of trial 7 is far above the own stride at every lead, and the bands of the own stride and of the ridge autoregression overlap."}}
shade = {
    name: skill[name].interval("mase", block=21, generator=seeded(4))
    for name in ("own stride", "ridge AR(106)")
}
ax = plot.skills(skill, rate=walk.rate, shade=shade)
ax.axhline(1, color="#333333", linewidth=0.8, linestyle=":")
plt.show()

# %% [markdown]
# Whether one is better than another is a question about *differences* on the same origins. We average the error over the
# first leads, 53 of them for about a stride, and give the difference its own interval. Below zero the first is
# better. MSE punishes large errors more than MASE does: where they disagree, the answer is open.

# %%
questions = [
    ("stride of trial 7", "own stride", 53),
    ("ridge AR(106)", "stride of trial 7", 53),
    ("ridge AR(106)", "own stride", 53),
    ("ridge AR(106)", "own stride", 1),
]
gaps = [
    [
        skill[one]
        .difference(skill[other], m, steps=k, block=21, generator=seeded(2))
        .tolist()
        for m in ("mse", "mase")
    ]
    for one, other, k in questions
]
TextTable(
    ["the error of", "less that of", "leads", "MSE", "MASE"],
    [
        [*question, *("{:+.2f} [{:+.2f}, {:+.2f}]".format(*g) for g in gap)]
        for question, gap in zip(questions, gaps, strict=True)
    ],
)

# %% [markdown]
# Against the stride of trial 7 the autoregression looks like a clear success. Against the person's own stride little is
# left of it: it is better in the first step, since it knows where the curve is now, and not distinguishable over a stride.
#
# **Check** what the tables say. The asserts hold for the real recordings only, so they are skipped where a stand-in had
# to be used.

# %%
if walk.official:
    assert joined - apart == 198, "the authors' 198 straddling windows"
    assert abs(strides["trial 7"] / walk.rate - 1.06) < 0.03
    assert strides["trial 15"] - strides["trial 7"] >= 2, "another pace"
    handicap, versus_seven, versus_own, first_step = torch.tensor(gaps)
    assert (handicap[:, 1] > 0).all(), "the stride of trial 7 is worse"
    assert (versus_seven[:, 2] < 0).all(), "which makes ridge look good"
    assert (versus_own[:, 1] < 0).all() and (versus_own[:, 2] > 0).all()
    assert (first_step[:, 2] < 0).all(), "ridge is better for one step"

# %% [markdown]
# ## What we saw
#
# This is one person and 27 seconds, of which 15 were forecast, about six horizons that do not overlap: the intervals on
# walking are rough.

# %% tags=["hide-input"]
by_stride = {"another": gaps[1][0], "own": gaps[2][0]}
by_stride = {
    name: "{:+.2f} [{:+.2f}, {:+.2f}]".format(*gap) for name, gap in by_stride.items()
}
verdicts = [
    [
        "a series is a path in a space of histories (section 2)",
        "holds",
        "a sine goes round an ellipse in a plane, by the law to 1 % at four windows",
    ],
    [
        "averaging antidiagonals leads back (section 2.1)",
        "holds",
        "exactly, and it is the nearest Hankel matrix",
    ],
    [
        "a model of one step is decoded for many (definition 4)",
        "holds if the window is long enough",
        f"two noisy samples: MSE {with_error(error[2], 3)}, and "
        f"{future.square().mean():.3f} by always saying zero; "
        f"200 samples: {with_error(error[200], 4)}",
    ],
    [
        "the trials of walking are one series (section 4.3)",
        "does not hold",
        f"{joined - apart} windows are of movements that nobody made",
    ],
    [
        "a network of one layer forecasts walking",
        "holds if the rival is weak",
        f"ridge AR: MSE {by_stride['another']} against the stride of another trial, "
        f"{by_stride['own']} against the own stride",
    ],
]
TextTable(["claim", "verdict", "what we found"], verdicts)

# %% [markdown]
# A network of the later chapters has to beat repeating the own stride and a linear autoregression, and the better of
# them, not zero.
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
