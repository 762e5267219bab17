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
# (ch:neurons)=
# # Neurons
#
# A trained network is a number of matrices. Train it again on other data from the same source, and the numbers are
# others. So each row of a matrix, a neuron, is a draw of a random vector.
# This chapter says what that means, draws the two pictures that the paper {cite}`nasyrov2023` opens with (section 1,
# figures 1 and 2), and shows what such pictures cannot tell.
#
# **At the end you will know**
#
# - what the mean and the covariance of a neuron are, and how to check an estimate of them;
# - how to draw the region that holds 95 % of a Gaussian, and how not to;
# - why the same network, trained from another start, can have its neurons in another order, and what that does
#   to a mean and a covariance.

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

import matplotlib.pyplot as plt
import torch
from torch import nn

import mspace as ms
from kit import plot
from kit.flipbook import Flipbook
from kit.tables import TextTable
from mspace import normal

ms.limit_threads()
plot.book_style()


# %% [markdown]
# ## A row of weights is a random vector
#
# One layer of a network computes
#
# ```{math}
# :label: eq-layer
# \vec y = \sigma(\mat W \vec x + \vec b) , \qquad
# \mat W = \begin{pmatrix} \vec w_1^\T \\ \vdots \\ \vec w_m^\T \end{pmatrix} \in \R^{m \times n} ,
# ```
#
# with a function $\sigma$ that acts on each number by itself. Unit $i$ sees its input only through the scalar product
# $\vec w_i^\T \vec x$. Methods that prune a network one number at a time overlook this, the paper argues (section 1). So it
# takes the whole row $\vec w_i \in \R^n$ as the object, and calls it a neuron.
#
# The training data are random. Weights computed from them are random too.
#
# ```{prf:definition} The distribution of a neuron
# :label: def-neuron
#
# Let $\vec w_i$ be row $i$ of a matrix that was trained on random data. Its **mean** and its **covariance** are
# $\vec e_i = \E \vec w_i \in \R^n$ and $\mat A_i^{-1} = \Cov(\vec w_i) \in \R^{n \times n}$.
# The working hypothesis of the paper is that $\vec w_i$ is Gaussian, so that the two say everything about it.
# ```
#
# A layer is then a population of $m$ Gaussians. In code that is `ms.NeuronDistribution`: a `mean` of shape `(m, n)`
# and a `cov` of shape `(m, n, n)`. Everything in this book either makes one or takes one.
#
# "Random" always means: over what? Over new data, over new starting points of the training, or over the order of
# its batches. These are three different distributions, and a covariance should say which it is.
#
# ## A case whose truth is known
#
# Take a layer without $\sigma$: three units, two inputs, no bias. Unit $i$ is asked to predict
# $y_i = \vec w_i^\T \vec x + \varepsilon_i$ with noise of standard deviation $\sigma_i$. Training on squared errors is
# least squares, and textbooks know the result exactly:
#
# ```{math}
# :label: eq-least-squares
# \hat{\vec w}_i \sim \mathcal N \bigl( \vec w_i,\; \sigma_i^2 (\mat X^\T \mat X)^{-1} \bigr) .
# ```
#
# We draw 2000 data sets with the same 60 inputs and fresh noise, and train the layer on each. The 2000
# layers are an `ms.Ensemble`: any member is a module, and `neurons` gives the moments of a layer over the members.

# %%
x = normal(60, 2, seed=0) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]).double()
weights = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.0, -1.0]]).double()
noise = torch.tensor([0.5, 1.0, 1.5]).double()

# data sets (2000, 60, 3), and by least squares the layers (2000, 3, 2)
y = x @ weights.T + noise * normal(2000, 60, 3, seed=1)
trained = (torch.linalg.pinv(x) @ y).mT

layer = nn.Sequential(nn.Linear(2, 3, bias=False)).double()
ensemble = ms.Ensemble(layer, {"0.weight": trained})
neurons = ensemble.neurons("0")
truth = ms.NeuronDistribution(
    weights, noise[:, None, None] ** 2 * torch.linalg.inv(x.T @ x)
)
print(f"{len(ensemble)} layers of {len(neurons)} neurons in R^{neurons.dim}")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One layer, trained on 2000 data sets. Each dot is a row of a trained matrix, each colour a unit. The curves hold 95 % by the textbook formula; they were not fitted to the dots.\n", "name": "fig-clouds"}, "image": {"alt": "Three tilted elliptic clouds of dots in a plane, of different sizes and the same shape, each with an ellipse around most of it."}}
ax = plt.subplots(figsize=(plot.WIDTH, 4.2))[1]
for i, color in enumerate(plot.COLORS[:3]):
    ax.plot(*trained[:, i].T, ".", color=color, markersize=2, alpha=0.35)
    ax.annotate(
        f"unit {i + 1}",
        weights[i],
        color="white",
        ha="center",
        va="center",
        bbox={"facecolor": color, "linewidth": 0, "boxstyle": "round"},
    )
plot.ellipsoid(truth, ax=ax)
ax.set(xlabel="weight of the first input", ylabel="weight of the second")
plt.show()

# %% [markdown]
# All three ellipses have one shape. By {eq}`eq-least-squares` the shape comes from the inputs alone, and the noise only
# sets the size. A flat ellipse here says that the two inputs are correlated. It says nothing about the unit.
#
# **Check**: every entry of the estimated covariances is within four standard errors of the truth. And the clouds are
# Gaussian as far as we can see: for each level, the ellipse holds that share of the dots.

# %%
v = truth.cov.diagonal(dim1=1, dim2=2)
error = (v[:, :, None] * v[:, None, :] + truth.cov**2) / len(ensemble)
z = ((neurons.cov - truth.cov) / error.sqrt()).abs().max()
print(f"largest difference of a covariance: {z:.1f} standard errors")
assert z < 4


def held(points, centre, semi_axes, directions):
    """The share of points (N, n) inside an ellipsoid."""
    along = (points - centre) @ directions / semi_axes
    return float((along.norm(dim=1) <= 1).double().mean())


shares = {}
for level in (0.5, 0.8, 0.95, 0.99):
    shares[level] = [
        held(trained[:, i], *region)
        for i, region in enumerate(zip(*truth.ellipsoid(level), strict=True))
    ]
    print(f"{level:.2f} should be inside, are", [f"{s:.3f}" for s in shares[level]])
    error = math.sqrt(level * (1 - level) / len(ensemble))
    assert all(abs(s - level) < 4 * error for s in shares[level])

# %% [markdown]
# ## Domes: figure 1
#
# The paper's first picture has three Gaussians in the plane. Over each point stands the sum of their densities,
# scaled so that the volume under the surface is one (the text says area). That is the density of a **mixture** with equal shares,
#
# ```{math}
# :label: eq-mixture
# p(\vec w) = \frac{1}{m} \sum_{i=1}^m \frac{1}{2\pi \sqrt{\det \mat A_i^{-1}}}
# \exp \Bigl( -\tfrac12 (\vec w - \vec e_i)^\T \mat A_i (\vec w - \vec e_i) \Bigr) ,
# ```
#
# what you would see if you threw the neurons of many networks into one bag. A dome stands over each mean, and the more
# a neuron spreads, the lower and wider its dome. We draw it as the paper does, and as levels, where nothing hides
# behind a dome.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Figure 1 of the paper, redrawn with Gaussians of our own: the density of a mixture of three. Left the surface, right its levels, with the mean and the 95 % region of each neuron.\n", "name": "fig-domes"}, "image": {"alt": "Left, a surface with one high narrow dome and two lower, wider ones; right, the same as filled levels with three ellipses and their centres."}}
three = ms.NeuronDistribution(
    [[-1.8, 0.2], [1.2, 1.3], [0.9, -1.4]],
    [
        [[0.12, 0.05], [0.05, 0.12]],
        [[0.6, 0.25], [0.25, 0.25]],
        [[0.5, -0.3], [-0.3, 0.4]],
    ],
)
fig = plt.figure(figsize=(plot.WIDTH, 3.1))
left = plot.density(three, ax=fig.add_subplot(121, projection="3d"))
left.view_init(elev=32, azim=-60)
left.set(xlabel="$w_1$", ylabel="$w_2$")
left.set_title("density", fontsize=10)
right = plot.density(three, ax=fig.add_subplot(122))
plot.ellipsoid(three, colors=("white",), ax=right)
right.plot(*three.mean.T, "o", color="white", markersize=4)
right.set(xlabel="$w_1$", ylabel="$w_2$")
plt.show()

# %% [markdown]
# **Check**: the volume is one, by summing over a fine grid, and the height of each dome is what {eq}`eq-mixture` says.
# The paper reads the means off the tops of the domes. That works only for neurons far apart: two equal Gaussians nearer than two
# standard deviations make a single dome, with its top between the means {cite}`ray2005`.

# %%
side = torch.linspace(-8, 8, 401, dtype=torch.float64)
volume = plot.mixture(three, torch.cartesian_prod(side, side)).sum() * 0.04**2
tops = plot.mixture(three, three.mean)
alone = 1 / (3 * 2 * math.pi * torch.linalg.det(three.cov).sqrt())
print(f"volume {volume:.6f}, heights", [f"{t:.3f}" for t in tops])
print("           by the formula", [f"{t:.3f}" for t in alone])
assert abs(volume - 1) < 1e-6 and ((tops / alone - 1).abs() < 0.02).all()

line = torch.stack([torch.linspace(-4, 4, 801), torch.zeros(801)], 1)
for apart in (1.9, 2.1):
    pair = ms.NeuronDistribution(
        [[-apart / 2, 0], [apart / 2, 0]], torch.eye(2).repeat(2, 1, 1)
    )
    slope = plot.mixture(pair, line).diff().sign()
    domes = int((slope.diff() < 0).sum())
    print(f"{apart} standard deviations apart: domes {domes}")
    assert domes == 1 + (apart > 2)

# %% [markdown]
# ## Regions that hold 95 %: figure 2
#
# In space a density cannot be drawn any more. The paper's second picture draws for each neuron the ellipsoid that holds it with
# a probability of 95 %. Let $\mat A^{-1} = \mat U \diag(\lambda_1, \dots, \lambda_n) \mat U^\T$ be
# a covariance. A Gaussian vector has squared Mahalanobis distance
# $(\vec w - \vec e)^\T \mat A (\vec w - \vec e) \sim \chi^2_n$ from its mean. The 95 % quantile of that sets the size.
#
# ```{prf:property} The region of a Gaussian
# :label: prop-ellipsoid
#
# The ellipsoid with centre $\vec e$, directions $\vec u_j$ and semi-axes $\sqrt{\chi^2_{n,\,0.95}} \sqrt{\lambda_j}$
# holds 95 % of $\mathcal N(\vec e, \mat A^{-1})$. The first root is 2.448 in the plane and 2.795 in space. Where the covariance is singular, $n$ becomes its rank.
# ```
#
# A semi-axis is a multiple of a *standard deviation*. The function that draws such figures in the authors'
# [notebooks](https://github.com/intsystems/2023-Project-141), `plot_3d_gaussians`, maps the unit sphere by $\mat A^{-1}$ itself. Its
# semi-axes are *variances*, and there is no quantile. We could not trace figure 2 to its code. For the bootstrap panel
# of figure 8 it is certain: the surface stored in the notebook, taken apart, gives back the printed covariance and not its root.
#
# Here are both, for the same three neurons and the same draws.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Figure 2 of the paper with three Gaussians of our own and 150 draws of each. Left: regions that hold 95 %. Right: the same neurons drawn as the authors draw them, the covariance times the unit sphere.\n", "name": "fig-regions"}, "image": {"alt": "Two views of three clouds of points in space; on the left transparent ellipsoids enclose the clouds, on the right ellipsoids a fraction of that size sit in the middle of each cloud."}}
frame = torch.linalg.qr(normal(3, 3, 3, seed=2)).Q
spread = torch.tensor([[0.9, 0.5, 0.2], [0.8, 0.8, 0.25], [0.5, 0.5, 0.5]]).double()
space = ms.NeuronDistribution(
    [[-1.8, -1.2, 0.4], [1.8, -1.0, -0.6], [0.2, 2.2, 0.6]],
    frame @ (spread[..., None] ** 2 * frame.mT),
)
draws = space.sample(100_000, torch.Generator().manual_seed(3))
variances = torch.linalg.eigvalsh(space.cov).flip(-1)  # the authors' semi-axes


def show(ax, *, azimuth=-60, zoom=0.87, **surface):
    """Ellipsoids and the first draws of each neuron, seen from a side."""
    for i, color in enumerate(plot.COLORS[:3]):
        ax.plot(*draws[:150, i].T, ".", color=color, markersize=1.5)
    plot.ellipsoid(space, ax=ax, **surface)
    ax.view_init(elev=22, azim=azimuth)
    ax.set(xlim=(-4.5, 4.5), ylim=(-4, 4), zlim=(-3, 3))
    ax.set_box_aspect((9, 8, 6), zoom=zoom)  # true proportions
    ax.locator_params(nbins=4)
    return ax


fig, (left, right) = plt.subplots(
    1, 2, figsize=(plot.WIDTH, 2.9), subplot_kw={"projection": "3d"}
)
right.computed_zorder = False  # small and solid, so drawn over the dots
show(left, zoom=1.15).set_title("regions of 95 %", y=1)
show(right, zoom=1.15, semi_axes=variances, alpha=0.9)
right.set_title("covariance × sphere", y=1)
plt.show()

# %% [markdown]
# The picture on the right looks like a picture of regions. **Check** what each holds, by counting draws. We add the
# covariance of a nearly flat neuron, $\diag(1,\, 0.04,\, 0.0001)$, and the one that the authors' notebook prints for
# the first of the bootstrapped neurons of figure 8. That one we count twice: as printed, and with the same weights measured in thousandths.

# %%
printed = torch.tensor(
    [[7.93, 2.41, 2.84], [2.41, 5.44, 1.59], [2.84, 1.59, 6.16]]
).double()
cases = {f"neuron {i + 1} above": cov for i, cov in enumerate(space.cov)} | {
    "nearly flat": torch.tensor([1, 0.04, 1e-4]).double().diag(),
    "figure 8, first": 1e-4 * printed,
    "in thousandths": 1e2 * printed,
}
size, right, drawn = 100_000, {}, {}
print(f"{'':16} region  cov x sphere")
for name, cov in cases.items():
    one = ms.NeuronDistribution(torch.zeros(1, 3), cov[None])
    points = one.sample(size, torch.Generator().manual_seed(4))[:, 0]
    centre, half, directions = (part[0] for part in one.ellipsoid())
    authors = torch.linalg.eigvalsh(one.cov[0]).flip(-1)
    right[name] = held(points, centre, half, directions)
    drawn[name] = held(points, centre, authors, directions)
    print(f"{name:16} {right[name]:.3f}   {drawn[name]:.4f}")

error = math.sqrt(0.95 * 0.05 / size)
assert all(abs(share - 0.95) < 4 * error for share in right.values())
assert drawn["nearly flat"] < 0.001 and drawn["figure 8, first"] < 0.001
assert drawn["in thousandths"] > 0.999

# %% [markdown]
# The true region holds 95 % of all of them. Covariance times sphere holds fewer than one draw in 1000 where weights are small, and
# all of them once the same weights are written in other units. It also squares the proportions: standard deviations of 1, 0.2 and 0.01
# become axes of 1, 0.04 and 0.0001, and a flat neuron looks even flatter.
#
# One view of a scene in space is half of it. Turn it:


# %% tags=["hide-input"]
def turned(azimuth):
    """The regions of 95 % from one side."""
    ax = plt.subplots(figsize=(4.4, 3.6), subplot_kw={"projection": "3d"})[1]
    ax.set(xlabel="$w_1$", ylabel="$w_2$", zlabel="$w_3$")
    return show(ax, azimuth=azimuth)


Flipbook(
    turned,
    range(-60, 120, 20),
    label="seen from {} degrees",
    alt="Three transparent ellipsoids with their draws, one of them a flat disc, one a ball, seen from {} degrees.",
)

# %% [markdown]
# ## What a mean and a covariance cannot tell
#
# Now a network with a hidden layer: two inputs, two units, and
# $f(\vec x) = \tanh(\vec w_1^\T \vec x) + \tanh(\vec w_2^\T \vec x)$. Swap the two units, and
# $f$ is the same function: the hidden layer has a **permutation symmetry** {cite}`hechtnielsen1990`. The data cannot say
# which of the two neurons should come first. The starting point decides that.
#
# We train 200 such networks. Each has its own data set of 60 examples, made by $\vec w_1 = (1, -0.3)$ and $\vec w_2 = (-0.3, 1)$ with
# noise of 0.2, and its own random start. Watch the first unit.

# %%
teacher = torch.tensor([[1.0, -0.3], [-0.3, 1.0]]).double()
x = normal(200, 60, 2, seed=5)
y = torch.tanh(x @ teacher.T).sum(2) + 0.2 * normal(200, 60, seed=6)

pairs = (0.5 * normal(200, 2, 2, seed=7)).requires_grad_()  # (N, unit, input)
adam = torch.optim.Adam([pairs], lr=1e-2)
for _ in range(1500):
    loss = (torch.tanh(x @ pairs.mT).sum(2) - y).square().mean(1)
    adam.zero_grad()
    loss.sum().backward()  # a sum over networks does not mix them
    adam.step()
pairs = pairs.detach()
print(f"loss: mean {loss.mean():.4f}, worst {loss.max():.4f}, noise alone 0.04")

swap = (pairs[:, 0] @ teacher[0] < pairs[:, 0] @ teacher[1]).nonzero().squeeze()
sorted_pairs = pairs.clone()
sorted_pairs[swap] = pairs[swap].flip(1)
as_trained = ms.NeuronDistribution.from_samples(pairs)
in_order = ms.NeuronDistribution.from_samples(sorted_pairs)
print(f"units in the other order: {len(swap)} of {len(pairs)} networks")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Both neurons of 200 networks, with their 95 % regions from mean and covariance. Left as trained: each unit has two clouds, and both units have the same region. Right after the units were put in one order.\n", "name": "fig-swap"}, "image": {"alt": "Left, two clouds of dots in a plane, each of both colours mixed, with two almost equal long ellipses over both; right, each cloud has one colour and a small ellipse of its own."}}
fig, axes = plt.subplots(1, 2, sharex=True, sharey=True, figsize=(plot.WIDTH, 3.6))
for ax, samples, fitted in zip(
    axes, (pairs, sorted_pairs), (as_trained, in_order), strict=True
):
    for i, color in enumerate(plot.COLORS[:2]):
        ax.plot(
            *samples[:, i].T,
            ".",
            color=color,
            markersize=3,
            label=f"unit {i + 1}",
        )
    plot.ellipsoid(fitted, ax=ax)
    ax.set_xlabel("weight of the first input")
axes[0].set(title="as trained", ylabel="weight of the second")
axes[1].set_title("units in one order")
axes[1].legend(loc="lower left", markerscale=2)
plt.show()

# %% [markdown]
# **Check**: swapped networks answer the same; as trained, the two units have nearly the same mean and covariance; the region that
# should hold 30 % of unit 1 holds 2 of its 200 draws; and most of the spread goes when the units are put in order.

# %%
answer, swapped = (torch.tanh(x @ p.mT).sum(2) for p in (pairs, pairs.flip(1)))
assert (answer - swapped).abs().max() < 1e-12
between = (as_trained.mean[0] - as_trained.mean[1]).norm()
spread = as_trained.total_variance.sqrt()
middle = held(pairs[:, 0], *(part[0] for part in as_trained.ellipsoid(0.3)))
less = as_trained.total_variance / in_order.total_variance
apart = (teacher[0] - teacher[1]).norm()
print(f"the two means are {between:.2f} apart, the two teachers {apart:.2f}")
ordered = held(sorted_pairs[:, 0], *(part[0] for part in in_order.ellipsoid(0.3)))
print(f"in the 30 % region: {middle:.3f} as trained, {ordered:.3f} in order")
print("variance as trained over variance in order:", [f"{v:.0f}" for v in less])
assert between < 4 * spread.max() * math.sqrt(2 / 200)
assert middle < 0.02 and less.min() > 10

# %% [markdown]
# So two questions come before any picture of neurons. Were the networks trained from one start or from many? If from many, were their
# units put in one order? Without that, all units of a hidden layer have the *same* mean and the *same* covariance,
# and every metric between them must say: no difference. Later chapters align networks before they average.
#
# ## What we saw
#
# The asserts above guard the verdicts; the numbers come from the same cells.

# %% tags=["hide-input"]
inside = shares[0.95]
verdicts = [
    [
        "a neuron is a random vector (section 1)",
        "holds",
        f"least squares: covariances within {z:.1f} standard errors of the formula",
    ],
    [
        "a neuron is Gaussian (section 1)",
        "holds if units are in one order",
        f"least squares: {min(inside):.3f} to {max(inside):.3f} in regions of 0.95; "
        f"two units that swap: {middle:.2f} in regions of 0.3",
    ],
    [
        "domes show the means as tops (figure 1)",
        "holds if neurons are far apart",
        "nearer than two standard deviations, two neurons have one dome",
    ],
    [
        "ellipsoids show regions of 95 % (figures 2 and 8)",
        "holds if drawn with roots and a quantile",
        f"so they hold {min(right.values()):.3f} to {max(right.values()):.3f}; "
        f"covariance times sphere {min(drawn.values()):.3f} to "
        f"{max(drawn.values()):.3f}, by the units",
    ],
]
TextTable(["claim", "verdict", "what we found"], verdicts)

# %% [markdown]
# ```{exercise} Ten networks
# :label: ex-ten
#
# In practice the covariance is estimated too. Estimate the distribution of a Gaussian neuron in $\R^3$ from 10 networks and draw
# its 95 % region by {prf:ref}`prop-ellipsoid`. What share of further networks does it hold? How many networks
# do you need for 94 %?
# ```
#
# ````{solution} ex-ten
# :class: dropdown
#
# About 77 %: the region of an estimate is too small. A new vector has
# $\frac{N - n}{n (N - 1) (1 + 1/N)}\, d^2 \sim F_{n, N-n}$ for its squared estimated Mahalanobis distance $d^2$, so the share
# is a value of that distribution. It passes 94 % at about 120 networks.
#
# ```python
# from scipy.stats import f
#
# for N in (10, 30, 100, 120):
#     samples = normal(N, 2000, 3, seed=8)  # N networks of 2000 neurons, all standard normal
#     fitted = ms.NeuronDistribution.from_samples(samples)
#     new = normal(2000, 3, seed=9)
#     centre, half, directions = fitted.ellipsoid()
#     along = torch.einsum("mi,mij->mj", new - centre, directions) / half
#     share = (along**2).sum(1).le(1).double().mean()
#     print(N, f"{share:.3f}", f"{f.cdf(7.815 * (N - 3) / (3 * (N - 1) * (1 + 1 / N)), 3, N - 3):.3f}")
# ```
# ````
#
# **Next**: the data of this book are series, and a network sees a series through windows. That makes
# {ref}`trajectories <ch:trajectories>`.
