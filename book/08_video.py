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
# (ch:video)=
# # Periodic video
#
# The abstract and the introduction of the paper {cite}`nasyrov2023` name periodic video as one of its three kinds of data,
# beside the noisy sine and the walk. There is no equation for it, no figure, and no code. So we take its models to
# two videos: a pendulum whose angle we know, and a heart filmed by ultrasound.
#
# **At the end you will know**
#
# - how a video becomes a series of a few numbers, and what is lost on the way;
# - how to find its period, loop it and continue it by SSA, and how sure that is;
# - what an autoencoder finds in it, and a Neural ODE on what the autoencoder found;
# - what the neurons of an autoencoder of frames are, and where that view misleads.

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
import warnings
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

import mspace as ms
from kit import plot
from kit.flipbook import Flipbook
from kit.oscillators import Oscillators
from kit.tables import TextTable, with_error
from mspace import seeded
from mspace.models import NeuralODE, OrthogonalAutoencoder, mlp, rk4
from mspace.ssa import Frames

ms.limit_threads()
plot.book_style()

# %% [markdown]
# ## A video as a series
#
# A frame of $H \times W$ pixels is a vector, so a video of $T$ frames is $m = HW$ series at once. There are far more of
# them than frames. Take off the mean frame, and let
#
# ```{math}
# :label: eq-frames
# \vec x_t - \bar{\vec x} = \sum_{k=1}^{q} s_{tk}\, \vec p_k
# ```
#
# be the singular value decomposition: orthonormal **pictures** $\vec p_k$, and the **scores** $s_{tk}$ of frame $t$. With
# $q = T - 1$ pictures nothing is lost, and the video is a series of $q$ numbers.
#
# Multivariate SSA (MSSA) puts the trajectory matrices of all series side by side, $\mat X = [\mat X^1 \dots \mat X^m]$,
# and decomposes this one matrix. It uses only $\mat X \mat X^\T = \sum_j \mat X^j \mat X^{j\T}$, and a turn of the
# channels leaves that sum as it is. So SSA of the scores **is** SSA of the pixels, with $q$ series in the place of $m$.
#
# **Check** that on a small noisy pendulum: singular values, a reconstruction and a forecast.

# %%
small = ms.datasets.pendulum_video(
    60, size=12, period=17.3, noise_std=0.1, generator=seeded(0)
).frames
basis = Frames.of(small)
pixels = small.flatten(1) - small.flatten(1).mean(0)
of_scores = ms.SSA.of(basis.scores, 25, method="dense")
of_pixels = ms.SSA.of(pixels, 25, method="dense")
mean = basis.mean.flatten()
pairs = {
    "singular values": (of_scores.singular_values, of_pixels.singular_values),
    "reconstruction": (
        basis.frames(of_scores.reconstruct(range(6))).flatten(1),
        mean + of_pixels.reconstruct(range(6)),
    ),
    "forecast of 17 frames": (
        basis.frames(of_scores.forecast(17, range(6))).flatten(1),
        mean + of_pixels.forecast(17, range(6)),
    ),
}
gaps = {name: float((a - b).abs().max()) for name, (a, b) in pairs.items()}
assert max(gaps.values()) < 1e-10
print(f"{pixels.shape[1]} pixels, {len(basis)} pictures; all agree to below 1e-10")

# %% [markdown]
# ## A pendulum whose angle is known
#
# The frames have 20 by 20 pixels. The angle is a cosine with a period of 36.7 frames, so no whole number of frames is a
# period. Every pixel has noise, about as strong as the motion. We know 150 frames, about four periods. What comes
# afterwards is held out.

# %% mystnb={"figure": {"caption": "Above: a noisy frame, the mean, and the first four pictures of 150 noisy frames (blue negative, red positive). Below: scores of the first four pictures over the known frames.\n", "name": "fig-pictures"}, "image": {"alt": "A noisy pendulum; a blurred mean; four pictures with more and more changes of sign along the arc; four scores that oscillate one to four times a period."}}
PERIOD, KNOWN, NOISE = 36.7, 150, 0.1


def filmed(seed, n_frames=520):
    """A pendulum from a moment of its own: noisy frames, clean ones, angles."""
    draw = seeded(seed)
    first = int(torch.randint(37, (1,), generator=draw))
    video = ms.datasets.pendulum_video(first + n_frames, size=20, period=PERIOD)
    clean = video.frames[first:]
    noise = torch.randn(clean.shape, generator=draw, dtype=torch.float64)
    return clean + NOISE * noise, clean, video.angle[first:]


frames, clean, angle = filmed(1)
basis = Frames.of(frames[:KNOWN], 8)
noiseless = Frames.of(clean[:KNOWN])
energy = noiseless.scores.square().sum(0).cumsum(0) / noiseless.scores.square().sum()
mirror = [float((p * p.flip(1)).sum()) for p in noiseless.pictures[:8]]
print("clean frames: share of the motion in 1, 2, 4, 6, 8 pictures")
print("  ", ", ".join(f"{energy[k - 1]:.2f}" for k in (1, 2, 4, 6, 8)))
print("likeness of a picture and its mirror image")
print("  ", ", ".join(f"{m:+.2f}" for m in mirror))
print(f"noisy frames: eight pictures drop {basis.dropped:.2f} of the energy")
assert energy[0] < 0.4 and energy[7] > 0.98
assert all(m * (-1) ** k < -0.95 for k, m in enumerate(mirror)), "odd, even, ..."

fig, axes = plt.subplot_mosaic(
    [["frame", "mean", 0, 1, 2, 3], ["scores"] * 6],
    figsize=(plot.WIDTH, 3.5),
    height_ratios=[1, 2],
)
for name, picture in {"frame": frames[5], "mean": basis.mean}.items():
    axes[name].imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes[name].set_title(name)
for k in range(4):
    axes[k].imshow(basis.pictures[k], cmap="RdBu_r", vmin=-0.2, vmax=0.2)
    axes[k].set_title(f"picture {k + 1}", fontsize=9.5)
    axes["scores"].plot(basis.scores[:, k] - 6 * k, color=plot.COLORS[k], lw=1.1)
for name in ("frame", "mean", *range(4)):
    axes[name].axis("off")
axes["scores"].set_yticks(
    [-6 * k for k in range(4)], [f"score {k + 1}" for k in range(4)]
)
axes["scores"].set_xlabel("frame")
plt.show()

# %% [markdown]
# One angle moves, and yet one picture holds only a third of the motion. A pixel is dark, then bright as the bob passes, then
# dark: far from linear in the angle. A frame is a function of a cosine, so its pixels are sums of
# $\cos(2\pi k t / 36.7)$, $k = 1, 2, \dots$, and the pictures come near to these **harmonics**: odd ones change sign in the
# mirror, even ones do not. A harmonic is a pair of components for SSA. So 8 pictures ask for 16 components, and this is
# the rank we take, with a window of two periods. What eight pictures drop is much, but it is the noise: of the motion they
# hold all but a hundredth or so.
#
# ## The period
#
# The autocorrelation gives a whole number of frames. The roots of SSA (ESPRIT, see {ref}`ch:ssa`) do not; we take the one
# nearest to that number. Twenty videos, each with a noise and a first moment of its own; ± is the standard error over them
# ({ref}`sec:plus-minus`):


# %%
def by_roots(scores, rank, near, window=73):
    """The root of SSA nearest to a period that is roughly known."""
    found = ms.SSA.of(scores, window, rank=rank).periods(range(rank))[0]
    return float(found[(found - near).abs().argmin()])


def periods(seed):
    scores = Frames.of(filmed(seed, KNOWN)[0], 8).scores
    near = ms.dominant_period(scores[:, 0])
    return near, by_roots(scores[:, 0], 2, near), by_roots(scores, 16, near)


draws = torch.tensor([periods(100 + s) for s in range(20)], dtype=torch.float64)
ways = ["autocorrelation of score 1", "SSA of score 1", "MSSA of eight scores"]
rmse = (draws - PERIOD).square().mean(0).sqrt()
pairs = ms.SSA.of(basis.scores, 73, rank=16).pairs(ratio=0.9)
print("pairs of one video:", ", ".join(f"{p:.1f}" for *_, p in pairs))
print("36.7 / k:          ", ", ".join(f"{PERIOD / k:.1f}" for k in range(1, 9)))
assert len(pairs) >= 4
assert all(abs(p - PERIOD / k) < 0.5 for k, (_, _, p) in enumerate(pairs[:4], 1))
assert rmse[2] < 0.2 * rmse[0] and abs(rmse[1] - rmse[2]) < 0.03
assert (draws[:, 2].mean() - PERIOD).abs() < 0.03
TextTable(
    ["period", "mean", "root mean square error"],
    [
        [name, with_error(p), f"{e:.2f}"]
        for name, p, e in zip(ways, draws.T, rmse, strict=True)
    ],
)

# %% [markdown]
# SSA knows the period to a few hundredths of a frame, far better than the whole number. One score is enough: the other seven
# add nothing that can be seen.
#
# ## An autoencoder finds the angle
#
# PCA needs eight numbers a frame because it is linear. An autoencoder with a **code of one number** need not be. Ours reads and
# writes the eight scores, through 24 tanh units on either side. We train from eight starts and keep the one with the
# smallest error in training. It never sees an angle. All of this is done for five videos, each with starts of its own: from
# here to the pixels ± is the standard error over five videos and their trainings.
#
# On top of the code goes a law of motion, a Neural ODE (chapter {ref}`ch:neural-ode`). The last ten codes are encoded into a
# state of two numbers, as a pendulum has an angle and a speed. The field begins as a rotation with the period that SSA found
# (`Oscillators`), and is trained through the solver to continue the code by 37 frames.


# %%
ADAM = {"optimizer": partial(torch.optim.Adam, lr=5e-3)}


def autoencoder(z, n_code, seed):
    """Encoder and decoder of scores (T, q): the best of eight starts."""
    q, tanh = z.shape[1], {"activation": nn.Tanh}
    net = nn.Sequential(*mlp(q, 24, n_code, **tanh), *mlp(n_code, 24, q, **tanh))
    options = {"init": "independent", "epochs": 600, "batch_size": 32, **ADAM}
    starts = ms.train_ensemble(
        net.double(), (z, z), F.mse_loss, 8, generator=seeded(seed), **options
    )
    best = starts[int(starts.report["loss"].argmin())].requires_grad_(False)
    return best[:3], best[3:]


def law(code, turns, horizon, seed):
    """A Neural ODE that continues codes (T, k); `turns` in a horizon at the start."""
    start = NeuralODE(
        10,
        2 * len(turns),
        horizon=horizon,
        channels=code.shape[1],
        encoder=(16,),
        field=Oscillators(
            [2 * math.pi * t for t in turns], 16, generator=seeded(10 + seed)
        ),
        decoder=(16,),
        unit=horizon,
        solver=partial(rk4, n_steps=12),
        generator=seeded(20 + seed),
    ).double()
    data = ms.windows(code / code.std(0), 10, horizon=horizon)
    options = {"epochs": 100, "batch_size": 32, **ADAM}
    return ms.fit(start, data, F.mse_loss, generator=seeded(30 + seed), **options)


def by_ssa(window, rank):
    """Decompose the history anew and continue its leading components."""
    return lambda past, steps: ms.SSA.of(past, window, rank=rank).forecast(
        steps, range(rank), "vector"
    )


def by_ode(node, size):
    return lambda past, steps: node.forecast(past / size, steps) * size


def through(net, forecaster):
    """Encode the history, continue the code, decode."""
    encoder, decoder = net
    return lambda past, steps: decoder(forecaster(encoder(past), steps))


def experiment(seed):
    """One video: scores of which the known ones have mean square one, and its rivals."""
    frames, clean, angle = filmed(seed)
    basis = Frames.of(frames[:KNOWN], 8)
    unit = basis.scores.square().mean().sqrt()
    z, truth = (basis.coordinates(v) / unit for v in (frames, clean))
    net = autoencoder(z[:KNOWN], 1, seed)
    code = net[0](z[:KNOWN])
    node = law(code, [37 / draws[:, 2].mean()], 37, seed)
    ridge = ms.ridge_ar(z[:KNOWN], 10)
    rivals = {
        "mean frame": lambda past, steps: past[:KNOWN].mean(0).expand(steps, -1),
        "last frame": ms.persistence,
        "last 37 frames": ms.seasonal_naive(37),
        "ridge AR(10)": partial(ms.forecast, ridge, width=10),
        "MSSA": by_ssa(73, 16),
        "autoencoder + SSA": through(net, by_ssa(73, 6)),
        "autoencoder + ODE": through(net, by_ode(node, code.std(0))),
        "the truth": lambda past, steps: truth[len(past) :][:steps],
    }
    return basis, unit, z, truth, angle, net, node, rivals


films = [experiment(seed) for seed in range(1, 6)]

# %% [markdown]
# What is the code? On the frames after the first 150, which were in no training, we read the angle off it: a polynomial of
# degree five, fitted on the known frames, turns one into the other. The rivals are the first score, likewise, and a
# linear readout of all eight.


# %% mystnb={"figure": {"caption": "First video, held-out frames. Left: the code against the angle. Right: the state of the Neural ODE over 37 frames from several moments (lines), and where they begin (dots).\n", "name": "fig-code"}, "image": {"alt": "Left, a narrow monotone curve; right, closed loops that lie on each other."}}
def degrees(feature, angle, degree):
    """Root mean square error of the angle on held-out frames, read off features (T, k)."""
    powers = torch.cat([feature**d for d in range(1, degree + 1)], 1)
    design = torch.cat([powers, torch.ones(len(feature), 1)], 1)
    weight = torch.linalg.lstsq(design[:KNOWN], angle[:KNOWN, None]).solution
    gap = (design @ weight)[KNOWN:, 0] - angle[KNOWN:]
    return math.degrees(gap.square().mean().sqrt())


read, monotone, lost = {"code": [], "first score": [], "eight scores": []}, [], []
for _, _, z, _, angle, (encoder, decoder), _, _ in films:
    code = encoder(z)
    read["code"].append(degrees(code, angle, 5))
    read["first score"].append(degrees(z[:, :1], angle, 5))
    read["eight scores"].append(degrees(z, angle, 1))
    order = torch.stack([v.argsort().argsort() for v in (code[:, 0], angle)]).double()
    monotone.append(abs(float(torch.corrcoef(order)[0, 1])))
    lost.append(float(F.mse_loss(decoder(code), z) / z.square().mean()))
read = {name: torch.tensor(v) for name, v in read.items()}
for name, v in read.items():
    print(f"{name:13} {with_error(v)} degrees, of a swing of 57")
print(f"rank correlation of code and angle: at least {min(monotone):.3f}")
print(f"lost by a code of one number, noise included: at most {max(lost):.3f}")
assert min(monotone) > 0.99 and max(lost) < 0.06
assert read["code"].max() < 0.8 * read["eight scores"].min()

basis, unit, z, truth, angle, net, node, rivals = films[0]
code = net[0](z)
states = node.solve(ms.windows(code[KNOWN:] / code[:KNOWN].std(0), 10)[::11]).states
fig, (left, right) = plt.subplots(1, 2, figsize=(plot.WIDTH, 2.9))
left.plot(angle[KNOWN:].rad2deg(), code[KNOWN:], ".", markersize=3)
left.set(xlabel="angle, degrees", ylabel="code")
right.plot(*states.permute(2, 0, 1), color=plot.COLORS[1], linewidth=0.8)
right.plot(*states[0].T, ".", color="#333333")
right.set(xlabel="first number of the state", ylabel="second")
plt.show()

# %% [markdown]
# The code **is** the angle, bent a little. Nobody asked for it: it is the one number that a frame of a pendulum needs. From
# one frame nobody can tell which way the bob swings. The state of the Neural ODE can, since it is read off ten frames, and it
# goes round a closed curve.
#
# ## Forecasts
#
# From every ninth frame after the first 150 we ask for 37 frames. Nothing is trained again; SSA decomposes the whole
# past. Errors are mean squares of the scores, in units of the motion that was known: the mean frame has about one.
# Pictures are orthonormal, so this is the error of the frames inside the span of the eight pictures. What lies outside
# is nearly all noise, and the same for everyone. The bound is the error of one who knows the clean video ("the truth").
# The last column is the difference from MSSA on the same origins.

# %%
skill = [
    {
        name: ms.rolling_origin(f, film[2][:300], 37, start=KNOWN, every=9, period=37)
        for name, f in film[-1].items()
    }
    for film in films
]
over = {name: torch.stack([s[name]("mse") for s in skill]) for name in films[0][-1]}
less = {name: e.mean(1) - over["MSSA"].mean(1) for name, e in over.items()}
total = {name: float(e.mean()) for name, e in over.items()}
bound = NOISE**2 / torch.stack([film[1] for film in films]).square().mean()
assert abs(total["the truth"] / bound - 1) < 0.1, "the noise in eight scores"
assert all((e.mean(1) >= over["the truth"].mean(1)).all() for e in over.values())
for name in ("MSSA", "autoencoder + SSA", "autoencoder + ODE"):
    assert total[name] < 0.85 * min(total["last 37 frames"], total["ridge AR(10)"])
assert less["last 37 frames"].min() > 0 < less["ridge AR(10)"].min()
assert 0.7 < total["autoencoder + ODE"] / total["MSSA"] < 1
assert (less["autoencoder + ODE"] < 0).all()
assert over["ridge AR(10)"][:, 0].mean() < over["MSSA"][:, 0].mean()
assert over["ridge AR(10)"][:, -1].mean() > over["last 37 frames"][:, -1].mean()
TextTable(
    ["squared error", "lead 1", "lead 37", "mean of 37", "less MSSA"],
    [
        [
            name,
            *(with_error(v, 3) for v in (e[:, 0], e[:, 36], e.mean(1), less[name])),
        ]
        for name, e in over.items()
    ],
)

# %% tags=["hide-input"]
now = KNOWN + 27
drawn = dict(zip(("filmed", "clean"), (v[now : now + 37] for v in (frames, clean))))
for name in ("MSSA", "autoencoder + ODE", "last 37 frames"):
    drawn[name] = basis.frames(rivals[name](z[:now], 37) * unit)


def side_by_side(videos, high):
    """What draws frame `lead` of all videos."""

    def draw(lead):
        fig, axes = plt.subplots(1, len(videos), figsize=(plot.WIDTH, 1.7))
        for ax, (name, video) in zip(axes, videos.items(), strict=True):
            ax.imshow(video[lead - 1], cmap="gray", vmin=0, vmax=high)
            ax.set_title(name.replace(" + ", "\n+ "), fontsize=9, loc="center")
            ax.axis("off")
        return fig

    return draw


Flipbook(
    side_by_side(drawn, 1.0),
    range(1, 38, 3),
    label="{} frames ahead",
    start=6,
    alt="A pendulum {} frames after the last one known: as filmed, without noise, and as three forecasters saw it coming.",
)

# %% [markdown]
# To repeat the last 37 frames repeats their noise too. The autoregression is better than MSSA at the first lead, and worse than
# a repeat at the last. MSSA and both roads through the code are near to each other, at about twice the bound. The Neural ODE has
# the smallest mean, by little, but on every video. It was trained on just this task, and on its
# road all the past is one curve, while MSSA has 16 components, each with a share of noise. SSA of the code is no better
# than MSSA on the mean, and differs more from video to video.
#
# ## Looped
#
# A loop of the last 37 frames goes on for ever, and is 0.3 frames too long each time. MSSA is asked for ten periods at once.
# The pendulum goes on too, so we can see who is where.

# %%
played = {}
for name in ("MSSA", "autoencoder + ODE", "last 37 frames"):
    gaps = [film[-1][name](film[2][:KNOWN], 370) - film[3][KNOWN:] for film in films]
    played[name] = torch.stack(gaps).square().mean(2).unflatten(1, (10, 37)).mean(2)
assert played["last 37 frames"][:, 6].min() > 0.7
assert max(played[n][:, 9].max() for n in ("MSSA", "autoencoder + ODE")) < 0.2
TextTable(
    ["error against the clean video", *(f"period {k}" for k in (1, 4, 7, 10))],
    [
        [name, *(with_error(e[:, k]) for k in (0, 3, 6, 9))]
        for name, e in played.items()
    ],
)

# %% [markdown]
# The repeated frames are as wrong as the mean frame after seven periods. MSSA and the Neural ODE have lost little after ten:
# their periods are right to a few hundredths of a frame, and they neither fade nor grow.
#
# ## The neurons are pixels
#
# The paper's own autoencoder has orthonormal layers ({ref}`ch:orthogonal`). On frames it reads 400 pixels and writes 400
# pixels, and a row of its decoder belongs to **one pixel**: 400 neurons in $\R^3$. We fit it with identity activations, and refit
# it to 20 resampled videos, in blocks of one period. Its minimum is PCA, so neuron $i$ is what the three leading pictures show at
# pixel $i$, up to a rotation. We turn all members to the pictures.


# %% mystnb={"figure": {"caption": "Left: the length of the neuron of each pixel. Middle: first two numbers of the neurons of pixels that the pendulum touches, coloured by the angle at which the pixel is brightest. Right: 95 % regions of every fourth of them over the bootstrap.\n", "name": "fig-pixels"}, "image": {"alt": "Left, the fan that the pendulum sweeps. Middle, points that fan out from the origin, colours in the order of the angle. Right, small ellipses at some of the points."}}
def pixel_neurons(frames, block):
    """The decoder's rows as a population in R^3, turned to the leading pictures."""
    x = frames.flatten(1) - frames.flatten(1).mean(0)
    x = x / x.std(0).square().mean().sqrt()
    net = OrthogonalAutoencoder(x.shape[1], 3, generator=seeded(5)).double()
    task, options = ((x, x), F.mse_loss), {"batch_size": len(x), **ADAM}
    net = ms.fit(net, *task, epochs=200, generator=seeded(6), **options)
    options |= {"n_models": 20, "block": block, "epochs": 60}
    members = ms.bootstrap(net, *task, generator=seeded(7), **options)
    pictures = Frames.of(frames, 3).pictures.flatten(1).T
    turned = ms.align(members.samples("decoder"), pictures, group="orthogonal")
    return ms.NeuronDistribution.from_samples(turned)


neurons = pixel_neurons(frames[:KNOWN], 37)
touched = clean[:KNOWN].var(0).flatten() > 1e-3  # the truth, which nobody is told
when = angle[clean[:KNOWN].flatten(1).argmax(0)].rad2deg()[touched]
found = {
    "length of the neuron": ms.relevance(neurons, by="magnitude"),
    "Wald": ms.relevance(neurons),
    "variance of the pixel": frames[:KNOWN].var(0).flatten(),
}
auc = {name: roc_auc_score(touched, v) for name, v in found.items()}
near = ms.wasserstein2(neurons[touched]).fill_diagonal_(math.inf).argmin(1)
apart = (when - when[near]).abs().median()
chance = (when[:, None] - when).abs().median()
print(
    f"{int(touched.sum())} of 400 pixels are touched; told from the others, area under ROC:"
)
print("  ", ", ".join(f"{name} {a:.3f}" for name, a in auc.items()))
print(f"angles of a pixel and of its nearest neuron: {apart:.1f} degrees apart")
print(f"   of two pixels by chance: {chance:.0f}")
assert auc["length of the neuron"] > max(0.98, auc["Wald"])
assert auc["variance of the pixel"] > 0.97 and apart < 0.2 * chance

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(plot.WIDTH, 2.6))
left.imshow(found["length of the neuron"].unflatten(0, (20, 20)), cmap="cividis")
left.axis("off")
seen = neurons[touched]
points = middle.scatter(*seen.mean[:, :2].T, c=when, s=7, cmap="coolwarm")
fig.colorbar(points, ax=middle, location="top", label="angle, degrees", aspect=12)
plot.ellipsoid(seen[::4].marginal([0, 1]), ax=right)
for ax in (middle, right):
    ax.set(xlabel="picture 1", ylabel="picture 2")
plt.show()

# %% [markdown]
# The population is a map of the scene. Pixels that the pendulum never touches sit near the origin. The others fan out
# from it: how far tells how strongly a pixel lights up, and **the direction is the angle** at which it does. So neurons
# that are neighbours look at one place of the swing. That is what a distance between neurons can mean, when there is
# something to mean.
#
# Which pixels matter is told by the length of the neuron, and a little worse by the plain variance of the pixel. The
# Wald statistic of {ref}`ch:relevance`, which divides by the covariance, is not better: all pixels have one noise, so
# there is nothing to weigh.
#
# ## A heart
#
# Four beats and a half of a heart, filmed by ultrasound at 30 frames a second (it comes with pydicom-data). We average
# blocks of ten by ten pixels and know the first 66 frames, in six pictures. Rules are those of the pendulum: two components
# for each picture; a window of half the past, for two periods do not fit. An autoencoder with a code of three numbers, and a
# Neural ODE that starts from the beat and its double. Both are trained five times, and ± is the standard error over these
# trainings. Ten origins, 27 frames ahead. The last row of the table shows what other windows and ranks would have given.

# %%
try:
    echo = ms.datasets.heart_echo()
    film = F.avg_pool2d(echo.frames[:, None], 10)[:, 0]
except ms.datasets.DatasetError as why:
    echo = None
    warnings.warn(f"{why} (until then, a pendulum)", ms.datasets.DataReplaced)
    film = ms.datasets.pendulum_video(120, size=40, period=27.3).frames
FIRST = 66
heart = Frames.of(film[:FIRST], 6)
size = heart.scores.square().mean().sqrt()
beat = heart.coordinates(film) / size
missed = (film - heart.frames(beat * size))[FIRST:].square().sum()
missed = float(missed / (film - heart.mean)[FIRST:].square().sum())
scores = Frames.of(film, 6).scores
alike = [float((scores[k:] * scores[:-k]).sum(1).mean()) for k in range(15, 45)]
lag = 15 + int(torch.tensor(alike).argmax())
choices = [(w, r) for w in (27, 33, 40) for r in (6, 8, 10, 12)]
roots = [by_roots(beat[:FIRST], r, lag, w) for w, r in choices]
roots += [by_roots(scores, r, lag, w) for w in (54, 60) for r in (6, 8, 10, 12)]
print(
    f"most alike are frames {lag} apart; roots: {min(roots):.1f} to {max(roots):.1f}"
)
print(
    f"six pictures miss {heart.dropped:.2f} of the known motion, {missed:.2f} of what comes"
)

ridge = ms.ridge_ar(beat[:FIRST], 3)
of_heart = {
    "mean frame": [lambda past, steps: past[:FIRST].mean(0).expand(steps, -1)],
    "last frame": [ms.persistence],
    "last 27 frames": [ms.seasonal_naive(27)],
    "ridge AR(3)": [partial(ms.forecast, ridge, width=3)],
    "MSSA": [by_ssa(33, 12)],
    "autoencoder + SSA": [],
    "autoencoder + ODE": [],
}
for seed in range(5):
    net3 = autoencoder(beat[:FIRST], 3, seed)
    code = net3[0](beat[:FIRST])
    node3 = by_ode(law(code, [1, 2], 27, seed), code.std(0))
    of_heart["autoencoder + SSA"].append(through(net3, by_ssa(33, 6)))
    of_heart["autoencoder + ODE"].append(through(net3, node3))


def judged(rival):
    return ms.rolling_origin(rival, beat, 27, start=FIRST, every=3, period=27)


pulse = {
    name: torch.stack([judged(rival)("mse") for rival in rivals])
    for name, rivals in of_heart.items()
}  # (trainings, leads)
others = torch.stack([judged(by_ssa(w, r))("mse") for w, r in choices])
others = torch.cat([others, others.mean(1, keepdim=True)], 1)
leads = [0, 4, 13, 26]


def told(values):
    """A mean over trainings and its standard error, where anything was trained."""
    return with_error(values) if len(values) > 1 else f"{values.mean():.2f}"


rows = [
    [name, *(told(e[:, k]) for k in leads), told(e.mean(1))]
    for name, e in pulse.items()
]
low, high = others.amin(0), others.amax(0)
rows.append(
    ["MSSA, 12 choices", *(f"{low[k]:.2f} to {high[k]:.2f}" for k in (*leads, 27))]
)
TextTable(["squared error", "lead 1", "lead 5", "lead 14", "lead 27", "mean"], rows)

# %% tags=["hide-input"]
seen = film[FIRST : FIRST + 27]
drawn = {"filmed": seen, "six pictures": heart.frames(heart.coordinates(seen))}
for name in ("MSSA", "autoencoder + ODE", "last 27 frames"):
    drawn[name] = heart.frames(of_heart[name][0](beat[:FIRST], 27) * size)
Flipbook(
    side_by_side(drawn, 0.6),
    range(1, 28, 3),
    label="{} frames ahead",
    start=4,
    alt="A heart by ultrasound {} frames after the last one known: as filmed, as six pictures can show it, and as three forecasters saw it coming.",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The heart: the mean frame, the standard deviation of each pixel, and the length of its neuron in an autoencoder with three numbers, over 20 resampled videos.\n", "name": "fig-heart"}, "image": {"alt": "A sector of grey walls; two maps that are bright at the same places, the walls and valves that move."}}
walls = ms.relevance(pixel_neurons(film, 27), by="magnitude").unflatten(0, (40, 40))
variance = film.var(0)
order = torch.stack([v.flatten().argsort().argsort() for v in (walls, variance)])
same = float(torch.corrcoef(order.double())[0, 1])
fig, axes = plt.subplots(1, 3, figsize=(plot.WIDTH, 2.3))
maps = {"mean": film.mean(0), "sd of the pixel": variance.sqrt(), "neuron": walls}
for ax, (name, picture) in zip(axes, maps.items(), strict=True):
    ax.imshow(picture, cmap="gray" if name == "mean" else "cividis")
    ax.set_title(name)
    ax.axis("off")
plt.show()

# %% [markdown]
# A heart is not a pendulum. Beats differ, the probe drifts, and more than a third of what comes is in no picture of
# what was known. Even the period is a range. A repeated beat is worse than the mean frame. MSSA is the best at the
# fifth frame and on the mean, and all twelve choices of window and rank are better than the mean frame; at the first
# frame standing still is as good. Through the autoencoder SSA is on the mean no better than the mean frame. The
# Neural ODE, which did so well on the pendulum, is the worst here: 66 frames hold two beats and a half, probably too
# few to learn a law from.
#
# Only two beats were forecast, so no interval would mean much.
#
# ## What we saw

# %% tags=["hide-input"]
mean_of = {name: e.mean(1) for name, e in pulse.items()}
beats = {name: float(m.mean()) for name, m in mean_of.items()}
first, fifth = ({n: float(e[:, k].mean()) for n, e in pulse.items()} for k in (0, 4))
if echo is not None:
    assert lag == 27 and 25 < min(roots) < 27 and 28 < max(roots) < 31
    assert missed > 0.33 and same > 0.9
    assert beats["MSSA"] == min(beats.values())
    assert beats["last 27 frames"] > beats["mean frame"] > high[27]
    assert first["last frame"] < first["MSSA"]
    assert beats["autoencoder + ODE"] == max(beats.values())
    assert fifth["MSSA"] == min(fifth.values())
by_node, by_mssa = (
    less["autoencoder + ODE"],
    mean_of["autoencoder + ODE"] - mean_of["MSSA"],
)
three = ("MSSA", "autoencoder + SSA", "autoencoder + ODE")
rows = [
    [
        "abstract: SSA, nonlinear PCA and Neural ODE restore periodic video",
        "holds if it is periodic",
        "pendulum: "
        + ", ".join(with_error(over[name].mean(1), 3) for name in three)
        + f" of the motion missed, bound {bound:.3f}; heart: "
        + ", ".join(told(mean_of[name]) for name in three)
        + f", the mean frame {beats['mean frame']:.2f}",
    ],
    [
        "section 1: data of high dimension are redundant",
        "holds",
        f"400 pixels: one number misses {max(lost):.3f} of eight scores, and is the angle "
        f"to {with_error(read['code'])} degrees",
    ],
    [
        "SSA of the scores of frames is SSA of their pixels",
        "holds",
        "singular values, reconstruction and forecast agree to below 1e-10",
    ],
    [
        "SSA finds the period",
        "holds",
        f"pendulum: {with_error(draws[:, 2])} of {PERIOD} frames; "
        f"heart: {min(roots):.1f} to {max(roots):.1f}",
    ],
    [
        "networks forecast frames better than MSSA",
        "holds if it is periodic",
        f"for the Neural ODE; its error less that of MSSA: pendulum {with_error(by_node, 3)}, "
        f"heart {with_error(by_mssa)}",
    ],
    [
        "MSSA loops",
        "holds",
        f"error in the tenth period {with_error(played['MSSA'][:, 9])}, of repeated "
        f"frames {with_error(played['last 37 frames'][:, 9])}",
    ],
    [
        "pixel neurons that are near look at one place",
        "holds",
        f"{apart:.1f} degrees apart, by chance {chance:.0f}",
    ],
    [
        "the covariance of a pixel's neuron helps to find pixels that matter",
        "does not hold",
        f"area under ROC {auc['Wald']:.3f}, by length alone "
        f"{auc['length of the neuron']:.3f}, by variance of the pixel "
        f"{auc['variance of the pixel']:.3f}; heart: length and variance correlate by {same:.2f}",
    ],
]
TextTable(["claim", "verdict", "what we found"], rows)

# %% [markdown]
# For a video of your own: look at the scores of the first pictures. If they repeat, MSSA with two components a picture
# is a good first answer, and costs little. If one thing moves, try a code of one number.
#
# ```{exercise} Nothing lost, nothing gained
# :label: ex-lossless
#
# SSA of all 149 scores is SSA of the pixels, exactly. We kept eight. Rebuild the known frames of the noisy pendulum by 16
# components of all scores, and of eight, and compare both with the clean frames. Which is better, and why?
# ```
#
# ````{solution} ex-lossless
# :class: dropdown
#
# Eight. SSA averages in time, within a window, and each of the 149 series keeps its own share of noise in 16
# components. To drop a picture drops its noise altogether, and there is hardly any motion in it.
#
# ```python
# for q in (8, 149):
#     some = Frames.of(frames[:KNOWN], q)
#     rebuilt = some.frames(ms.SSA.of(some.scores, 73, rank=16).reconstruct())
#     print(q, F.mse_loss(rebuilt, clean[:KNOWN]) / NOISE**2)
# ```
# ````
#
# **Next**: how sure is a network of its weights? See {ref}`ch:bootstrap`.
