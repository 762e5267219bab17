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
# (ch:bootstrap)=
# # Bootstrap
#
# How far would the weights of a network move if the data had been other data? We have only one data set. The bootstrap
# {cite}`efron1979` draws new ones from it, trains a network on each, and looks at the spread.
# The paper {cite}`nasyrov2023` names it first among its ways to the covariance of a neuron (section 4, figure 8a).
# This chapter checks the method where the truth is known, repeats what was published, and then does what the text says.
#
# **At the end you will know**
#
# - what has to be drawn anew, and what was drawn anew for figure 8a;
# - how to draw from a series, where neighbours are alike, and how long a block should be;
# - what the mean and the covariance of "neuron $i$" mean when hidden units can swap names, and how to mend them;
# - how to train a thousand networks, stop, and go on tomorrow.

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
import tempfile
import warnings
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from scipy.signal import lfilter
from torch import nn

import mspace as ms
from kit import plot
from kit.flipbook import Flipbook
from kit.tables import TextTable, with_error
from mspace import normal, seeded
from mspace.models import mlp
from mspace.posterior import Resampler, block_length

ms.limit_threads()
plot.book_style()


# %% [markdown]
# ## What is drawn anew
#
# A trained network depends on three things that chance decides: the data, the start, and the order of the batches.
# An ensemble spreads by those that differ from member to member. There are three designs.
#
# | design | `ms.bootstrap(...)` | the spread comes from | a bootstrap? |
# |---|---|---|---|
# | resampled data, one start | the default | the data | yes |
# | resampled data, new starts | `init="independent"` | the data and the start | yes, with more in it |
# | one data set, new starts | `resample="fixed", init="independent"` | the start and the order of batches | no |
#
# The paper's text says that its 100 networks were trained on random subsets (section 3.2) and calls the technique
# bootstrap (section 4.3). The authors' [notebooks](https://github.com/intsystems/2023-Project-141) train 100 networks
# on the *same full data*, each from a new start. That is the third design. Its spread says how much the optimiser
# leaves open. It would not shrink to zero with infinitely many data.
#
# ```{prf:definition} Bootstrap covariance of a neuron
# :label: def-bootstrap
#
# Let $\vec w_i^{(s)}$ be neuron $i$ of the network that was trained on resample $s = 1, \dots, N$. Then
#
# $$
# \begin{gathered}
# \vec e_i = \frac1N \sum_s \vec w_i^{(s)} , \\
# \vec v_s = \vec w_i^{(s)} - \vec e_i , \\
# \mat A_i^{-1} = \frac1{N-1} \sum_s \vec v_s \vec v_s^\T .
# \end{gathered}
# $$
# ```
#
# Its rank is at most $N - 1$. And it assumes that neuron $i$ of one network is neuron $i$ of the next.
#
# ## A case whose truth is known
#
# A layer without activation, trained on squared errors, is least squares. With 400 fixed inputs $\mat X$ and noise of
# variance $d_t$ in example $t$, the covariance of each of its neurons is known,
#
# ```{math}
# :label: eq-sandwich
# \begin{gathered}
# \mat A^{-1} = \mat G^{-1} \mat X^\T \diag(\vec d) \mat X \mat G^{-1} , \\
# \mat G = \mat X^\T \mat X ,
# \end{gathered}
# ```
#
# and if all $d_t = \sigma^2$, it is $\sigma^2 \mat G^{-1}$. We build one layer of 40 neurons. Twenty have equal noise,
# for the other twenty the noise grows with $|x_1|$. So one training gives twenty repetitions of each case. There are
# two ways to draw anew: *pairs* takes examples with replacement, *weights* gives each example a random weight (the
# Bayesian bootstrap {cite}`rubin1981`). The textbook formula needs no resampling, but it supposes equal noise.

# %%
n, twenty, n_models = 400, 20, 300
x = normal(n, 2, seed=0) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]]).double()
noise = torch.ones(n, 2 * twenty).double()
noise[:, twenty:] = x[:, :1].abs()
y = x @ normal(2, 2 * twenty, seed=1) + noise * normal(n, 2 * twenty, seed=2)

layer = nn.Sequential(nn.Linear(2, 2 * twenty, bias=False)).double()
layer[0].weight.data = torch.linalg.lstsq(x, y).solution.mT.contiguous()
descent = partial(torch.optim.SGD, lr=0.3 * 2 * twenty)
full_batch = {"batch_size": n, "epochs": 30, "optimizer": descent}

resampled = {
    kind: ms.bootstrap(
        layer,
        (x, y),
        F.mse_loss,
        n_models=n_models,
        resample=kind,
        chunk=100,
        generator=seeded(3),
        **full_batch,
    )
    for kind in ("pairs", "weights")
}

# %% tags=["hide-input"]
inverse = torch.linalg.inv(x.T @ x)
cases = {"equal": slice(0, twenty), "grows with x": slice(twenty, None)}
truth = {
    name: inverse @ (x.T * noise[:, part][:, 0] ** 2) @ x @ inverse
    for name, part in cases.items()
}
residual = (y - layer(x).detach()).square().sum(0) / (n - 2)
estimates = {kind: e.neurons("0").cov for kind, e in resampled.items()}
estimates["textbook"] = residual[:, None, None] * inverse

ratios, rows = {}, []
for name, part in cases.items():
    row = [name]
    for kind, cov in estimates.items():
        trace = cov[part].diagonal(dim1=1, dim2=2).sum(1) / truth[name].trace()
        ratios[name, kind] = float(trace.mean())
        row.append(f"{trace.mean():.2f}, sd {trace.std():.2f}")
    rows.append(row)
TextTable(["noise", *(f"{k} / truth" for k in estimates)], rows)

# %% [markdown]
# The numbers are estimated over true variance, mean and standard deviation (sd) of twenty neurons. Both ways of drawing
# are right to a tenth in both cases. The textbook formula is right in one and gives about six tenths in the other. A single
# estimate is rough: from 400 examples with uneven noise it is often off by a fifth.
#
# **Check**: averaged over neurons, the whole matrix is within a fifth of the truth; the textbook formula is not.

# %%
for name, part in cases.items():
    for kind in ("pairs", "weights"):
        error = estimates[kind][part].mean(0) - truth[name]
        assert error.norm() < 0.2 * truth[name].norm(), (name, kind)
assert abs(ratios["equal", "textbook"] - 1) < 0.1
assert ratios["grows with x", "textbook"] < 0.8

# %% [markdown]
# How many networks? The relative error of a variance from $N$ of them is about $\sqrt{2/N}$, 14 % for the paper's 100.
# Turn the pages: the dots are the trained neurons, the solid curve is their 95 % region, the dashed one that of
# {eq}`eq-sandwich`.


# %% tags=["hide-input"]
def settle(size):
    """The region of one neuron from the first networks, beside the true one."""
    some = resampled["pairs"].samples("0")[:size, :1]
    known = ms.NeuronDistribution(layer[0].weight[:1], truth["equal"][None])
    ax = plt.subplots(figsize=(4.4, 3.7))[1]
    ax.plot(*some[:, 0].T, ".", color="#9a9a9a", markersize=4)
    plot.ellipsoid(known, colors=("#333333",), ax=ax)
    ax.lines[-1].set(linestyle="--", label="truth")
    plot.ellipsoid(ms.NeuronDistribution.from_samples(some), ax=ax)
    ax.lines[-1].set_label("estimate")
    (a, b), reach = known.mean[0], 4 * truth["equal"].diagonal().max().sqrt()
    ax.set(xlim=(a - reach, a + reach), ylim=(b - reach, b + reach))
    ax.set(xlabel="weight of the first input", ylabel="weight of the second")
    ax.legend(loc="upper right")
    return ax


Flipbook(
    settle,
    [3, 5, 10, 20, 50, 100, 300],
    label="{} networks",
    start=2,
    alt="Weights of one neuron in {} networks, the ellipse fitted to them, and the true ellipse.",
)

# %% [markdown]
# ## Why blocks
#
# Drawing examples one by one pretends that they are independent. Samples of a series are not. We take $s_t = 0.8\,
# s_{t-1} + \varepsilon_t$ with $T = 2000$ and ask for the simplest number with a variance, the mean. Its true variance
# is $\frac{\sigma_s^2}{T} \bigl(1 + 2 \sum_k (1 - \frac kT)\, 0.8^k\bigr)$, nine times $\sigma_s^2 / T$. Samples drawn
# one by one can only find $\sigma_s^2 / T$.
#
# The remedy is to draw **blocks** of $B$ consecutive samples {cite}`kunsch1989`. Inside a block the dependence is kept,
# only the joints break it. Short blocks have too many joints. Long blocks are few, and the estimate becomes rough.

# %%
phi, T = 0.8, 2000
lags = torch.arange(1, T)
of_mean = (1 + 2 * ((1 - lags / T) * phi**lags).sum()) / (1 - phi**2) / T


def walks(size, seed):
    """Stationary series (size, T) that remember 0.8 of their last value."""
    shocks = normal(size, T + 200, seed=seed).numpy()
    return torch.from_numpy(lfilter([1], [1, -phi], shocks))[:, 200:]


def block_variance(series, block):
    """What infinitely many draws of blocks give for the variance of the mean."""
    means = series.unfold(-1, block, 1).mean(-1)
    return means.var(-1, correction=0) * block / T


series = walks(200, seed=4)
lengths = [1, 2, 5, 10, 20, 50, 100, 200, 400]
found = torch.stack([block_variance(series, b) for b in lengths], 1) / of_mean
ruled = torch.tensor([block_length(s) for s in series])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Variance of the mean as estimated by blocks, over its true value, for 200 series. The line is the median, the band the middle 90 %. The grey stripe holds the middle 90 % of the lengths that the rule of Politis and White chooses for these series.\n", "name": "fig-blocks"}, "image": {"alt": "Estimated over true variance against block length on a logarithmic axis: about 0.1 for single samples, rising to 0.9 near 50, then falling slowly while the band grows wide; the stripe of chosen lengths lies between 29 and 49."}}
ax = plot.band(lengths, found.T.mT, label="blocks")
ax.axhline(1, color="#333333", linestyle="--", label="truth")
low, high = ruled.double().quantile(torch.tensor([0.05, 0.95]).double()).tolist()
ax.axvspan(low, high, color="#9a9a9a", alpha=0.35, linewidth=0, label="the rule")
ax.set(xscale="log", xticks=lengths, xticklabels=lengths, ylim=(0, 1.8))
ax.minorticks_off()
ax.set(xlabel="block length", ylabel="estimated / true variance")
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# Nobody tells us the true variance of a real series. The rule of Politis and White {cite}`politis2004,patton2009` finds
# a length from the correlations alone; `block_length` is that rule. **Check**: single samples find a ninth, blocks of
# 50 most; the error of the rule's blocks is not much above that of the best length on the grid; and `Resampler`, which makes
# the draws for `ms.bootstrap`, agrees with the formula above.

# %%
by_rule = torch.stack(
    [block_variance(s, b) for s, b in zip(series, ruled.tolist(), strict=True)]
)
error = (found - 1).square().mean(0).sqrt()
of_rule = (by_rule / of_mean - 1).square().mean().sqrt()
print(f"single samples {found[:, 0].mean():.2f} of the variance")
print(f"blocks of 50   {found[:, 5].mean():.2f}")
print(f"rule: {ruled.median()} in the median, error {of_rule:.2f},", end=" ")
print(f"best on the grid {error.min():.2f}")
assert abs(found[:, 0].mean() - 1 / 9) < 0.01
assert 0.75 < found[:, 5].mean() < 1
assert of_rule < 1.25 * error.min()

draw, stream = Resampler("blocks", 50), seeded(5)
drawn = torch.stack([series[0][draw.indices(T, stream)].mean() for _ in range(1000)])
assert abs(drawn.var() / block_variance(series[0], 50) - 1) < 0.2

# %% [markdown]
# For a network the examples are windows, and those overlap as well. A block is then a run of *consecutive windows*, cut
# inside one recording. Windows are never cut across the joints of blocks, which would make movements that never
# happened. With `block="auto"` the rule is applied to the losses of the trained network, and a block is at least as
# long as a window.
#
# Here is a neuron for which it matters: one weight and a bias that forecast $s_{t+10}$ from $s_t$. Errors ten steps
# ahead overlap. The true spread of the weight comes from 2000 fresh series.


# %%
def least_squares(s, lead=10):
    """The forecaster of one weight and a bias, and its data."""
    x, y = ms.windows(s, 1, horizon=lead)
    y = y[:, -1:]
    model = nn.Sequential(nn.Linear(1, 1)).double()
    slope = ((x - x.mean()) * y).sum() / (x - x.mean()).square().sum()
    model[0].weight.data = slope.reshape(1, 1)
    model[0].bias.data = (y.mean() - slope * x.mean()).reshape(1)
    return model, (x, y)


def deviation(s, seed, **draw):
    """The standard deviation of its weight by a bootstrap."""
    model, data = least_squares(s)
    options = {"batch_size": T, "epochs": 15}
    options["optimizer"] = partial(torch.optim.SGD, lr=0.15)
    options |= {"chunk": 100, "generator": seeded(seed)}
    found = ms.bootstrap(model, data, F.mse_loss, n_models=100, **draw, **options)
    return float(found.neurons("0").cov) ** 0.5


many = torch.stack([least_squares(s)[0][0].weight for s in walks(2000, seed=6)])
of_slope = float(many.detach().std())
slopes = torch.tensor(
    [
        [deviation(s, i, resample="pairs"), deviation(s, i, block="auto")]
        for i, s in enumerate(series[:10])
    ]
)
print(f"standard deviation of the weight: {of_slope:.4f}")
print("by the bootstrap, ± standard error over ten series:")
for name, one in zip(("window by window", "blocks"), slopes.T, strict=True):
    print(f"   {name:17} {with_error(one, 4)}")
alone, together = (slopes.mean(0) / of_slope).tolist()
assert alone < 0.6 and 0.75 < together < 1.1

# %% [markdown]
# Window by window, the bootstrap claims half the true standard deviation. Blocks find about nine tenths
# (± as in {ref}`sec:plus-minus`).
#
# ## What a hidden layer does
#
# So far every weight had a name. In a hidden layer it has not: swap two units with all their wires, and the network
# computes the same (chapter {ref}`ch:neurons`). Members that start apart end with their units in different orders.
#
# ```{prf:property} Units without names
# :label: prop-exchange
#
# Let $m$ hidden units start as independent draws from one law, and let training treat them alike. Then all rows of
# $\mat W_1$ have one mean and one covariance. A column $\vec c \in \R^m$ of $\mat W_1$, one number for each unit, has
#
# $$
# \begin{gathered}
# \E \vec c = e\, \vec 1 , \\
# \Cov(\vec c) = a\, \mat I + b\, \vec 1 \vec 1^\T ,
# \end{gathered}
# $$
#
# since nothing changes when its coordinates are permuted. One eigenvector is $\vec 1$, with the eigenvalue $a + mb$; all
# others have the eigenvalue $a$.
# ```
#
# So the moments of an unaligned ensemble say nothing about single units. They are moments of a mixture over all units.
# One can see it in accuracy: the **mean network**, each weight the mean over members, should be about as good as a
# member, if the members scatter around something. We train 50 networks 4-16-3 with ReLU on Iris from 50 starts, and
# repeat with five splits of the data into 105 flowers to train and 45 to test.
#
# `ms.align` renames. It brings each ReLU to unit length, which its scale allows, and finds the order of units that is
# nearest to the mean of all. What a member computes does not change.


# %%
def irises(seed):
    """Standardised irises, 105 to train and 45 to test."""
    flowers = ms.datasets.iris()
    test, train = torch.randperm(150, generator=seeded(seed)).split([45, 105])
    known = flowers.inputs[train]
    scaled = (flowers.inputs - known.mean(0)) / known.std(0)
    return [(scaled[part], flowers.targets[part]) for part in (train, test)]


def accuracy(ensemble, data):
    """The share of right answers of each member."""
    return (ensemble(data[0]).argmax(-1) == data[1]).double().mean(-1)


def mean_network(ensemble):
    """An ensemble of one: the mean of every weight."""
    means = {k: v.mean(0, keepdim=True) for k, v in ensemble.parameters.items()}
    return ms.Ensemble(ensemble.template, means)


same_data = {"resample": "fixed", "init": "independent", "align": None}
trained, renamed, score = [], [], []
for seed in range(5):
    train, test = irises(seed)
    net = mlp(4, 16, 3, generator=seeded(seed)).double()
    members = ms.bootstrap(
        net,
        train,
        F.cross_entropy,
        n_models=50,
        **same_data,
        epochs=100,
        chunk=50,
        generator=seeded(10 + seed),
    )
    aligned = ms.align(members)
    assert (aligned(test[0]) - members(test[0])).abs().max() < 1e-9
    trained.append(members)
    renamed.append(aligned)
    networks = (members, mean_network(members), mean_network(aligned))
    score.append([accuracy(e, test) for e in networks])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left and middle: two hidden units in 50 networks, seen in the weights of the two petal measurements, with 95 % regions. Right: test accuracy on five splits, grey for each of 50 networks, orange for their mean as trained, blue for their mean after alignment.\n", "name": "fig-collapse"}, "image": {"alt": "Left, dots of two units all mixed with two almost equal ellipses; middle, two separate clouds with smaller ellipses; right, accuracies of single networks near 0.95, of the mean network near 0.35, of the aligned mean network near 0.95."}}
fig, (left, middle, right) = plt.subplots(
    1, 3, figsize=(plot.WIDTH, 2.7), gridspec_kw={"width_ratios": [1, 1, 1.1]}
)
petals = renamed[0].samples("0")[..., 2:]
spread = torch.cdist(petals.mean(0), petals.mean(0))
units = divmod(int(spread.triu().argmax()), 16)
for ax, ensemble in ((left, trained[0]), (middle, renamed[0])):
    drawn = ensemble.samples("0")[:, units, 2:]
    for i in range(2):
        ax.plot(*drawn[:, i].T, ".", color=plot.COLORS[i], markersize=3)
    plot.ellipsoid(ms.NeuronDistribution.from_samples(drawn), ax=ax)
    ax.set_xlabel("petal length")
    ax.set_aspect("equal", adjustable="datalim")
left.set(title="as trained", ylabel="petal width")
middle.set_title("aligned")
for i, (single, mean, mended) in enumerate(score):
    right.plot([i - 0.2] * 50, single, ".", color="#9a9a9a", markersize=4)
    right.plot(i + 0.1, mean, "o", color=plot.COLORS[1], markersize=5)
    right.plot(i + 0.1, mended, "o", color=plot.COLORS[0], markersize=5)
right.set(title="accuracy", xlabel="split", ylim=(0, 1.03), xticks=range(5))
plt.show()


# %% [markdown]
# A second witness: if all units have one mean, the sixteen estimated means differ only by chance, and the variance between
# them is $1/N$ of the variance within. The ratio $F$ of the two, with that factor taken out, should be one. (After
# alignment it must be larger, because sorting alone makes the means differ. So it is the accuracy that counts.)


# %% tags=["hide-input"]
def between(ensemble):
    """Variance between the means of units, over what chance gives if there is none."""
    neurons = ensemble.neurons("0")
    within = neurons.total_variance.mean()
    return float(len(ensemble) * neurons.mean.var(0).sum() / within)


chance = [[between(e) for e in pair] for pair in zip(trained, renamed, strict=True)]
iris = torch.tensor([[float(s.mean()) for s in row] for row in score])
member, as_trained, mended = iris.T
f, f_aligned = torch.tensor(chance).T
TextTable(
    ["± standard error over five splits", "accuracy", "F"],
    [
        ["a network", with_error(member), ""],
        ["mean network", with_error(as_trained), with_error(f, 1)],
        ["mean network, aligned", with_error(mended), with_error(f_aligned, 1)],
    ],
)

# %% [markdown]
# **Check**: on every split the mean network is far below its members and alignment restores it; as trained, the units
# cannot be told apart.

# %%
assert (member - as_trained > 0.2).all()
assert ((mended - member).abs() < 0.05).all()
assert ((f > 0.5) & (f < 2) & (f_aligned > 10 * f)).all()

# %% [markdown]
# ## Walking: what was published
#
# Now the paper's case: windows of 100 samples of one person's walk, put through three ReLU units and back. A neuron of
# figure 8a is a *column* of $\mat W_1 \in \R^{3 \times 100}$, what one sample of the window sends to the three units.
# We train the authors' ensemble as their notebook does: 100 starts, the same data, 10 epochs (the text says 50),
# batches of 16, Adam with rate $10^{-3}$. One thing we do not repeat: 198 of their windows straddle two recordings.

# %%
walk = ms.datasets.walking()
print(walk.source.split(": ")[0])
windows, recording = walk.windows(100)
data = windows, windows
centred = windows - windows.mean(0)
components = torch.linalg.eigh(centred.T @ centred / len(windows))
floor = float(components.eigenvalues[:-3].sum()) / 100

published = ms.bootstrap(
    mlp(100, 3, 100, generator=seeded(20)).double(),
    data,
    F.mse_loss,
    n_models=100,
    **same_data,
    epochs=10,
    chunk=50,
    generator=seeded(21),
)
loss = published.report["loss"]
active = torch.stack([(net[0](windows) > 0).double().mean() for net in published])
print(f"{len(windows)} windows")
print(f"loss {loss.mean():.4f}, sd {loss.std():.4f}; three components {floor:.4f}")
print(f"a unit is active in {active.mean():.3f} of the windows")

# %% [markdown]
# The loss is within one percent of that of three principal components. And the units are active in 99 % of the windows,
# where a ReLU is linear. So this network *is* a principal component analysis. (On joined recordings, as the authors
# have them, the floor is 0.1421, and they print 0.1424.)
#
# Now their covariances. The notebook prints that of the first neuron. {prf:ref}`prop-exchange` says what to expect: equal
# variances, equal covariances, means near the line of $(1,1,1)$ and the longest axis along it.

# %% tags=["hide-input"]
neurons = published.neurons("0", axis=1)
one = torch.ones(3).double() / 3**0.5
longest = torch.linalg.eigh(neurons.cov).eigenvectors[..., -1]
cosine = (longest[:16] @ one).abs()
aside = (neurons.mean - (neurons.mean @ one)[:, None] * one).norm(dim=1)
standard = neurons.total_variance.div(len(published)).sqrt()
theirs = torch.tensor([[7.93, 2.41, 2.84], [2.41, 5.44, 1.59], [2.84, 1.59, 6.16]])
pairs = ([0, 0, 1], [1, 2, 2])


def written(values):
    return ", ".join(f"{1e4 * v:.1f}" for v in values)


comparison = [
    [who, written(cov.diagonal()), written(cov[pairs])]
    for who, cov in (("printed", 1e-4 * theirs), ("ours", neurons.cov[0]))
]
print("of the first sixteen neurons")
print(f"   cosine of the longest axis to (1,1,1): {cosine.min():.3f} or more")
print(f"   distance of means to that line: {aside[:16].max():.4f} or less,")
print(f"   standard error of a mean: {standard[:16].mean():.4f}")
TextTable(
    ["first neuron, in 1e-4", "variances of the 3 weights", "covariances"], comparison
)

# %% [markdown]
# **Check**: the first neuron's variances and covariances have the published size. The loss is within 1 % of the floor.
# The longest axis is along $(1,1,1)$; in the authors' figure $|\cos|$ is above 0.97. Off that line no mean is
# significant.

# %%
if walk.official:
    assert abs(floor - 0.1427) < 1e-4
    assert 0 < loss.mean() / floor - 1 < 0.01
    assert active.mean() > 0.95
    trace = neurons.cov[0].trace()
    assert 0.6 < trace / (1e-4 * theirs.trace()) < 1.7
    assert (neurons.cov[0][pairs] > 1e-4).all()
    assert (neurons.cov[0][pairs] < 6e-4).all()
    assert cosine.min() > 0.95
    assert aside[:16].max() < 3 * standard[:16].mean()

# %% [markdown]
# We have their numbers, and what they are numbers of. The three units have no names, so this covariance is $a\,\mat I +
# b\,\vec 1 \vec 1^\T$ whatever the person does. The means are small because 100 different networks cancel.
#
# ## Walking: the bootstrap
#
# Now the data are drawn anew. The reference is the best of the hundred networks, trained a little further. All members
# start from it and see blocks of windows, which never cross two recordings. They need few epochs, since they start near
# their goal. We use gradient descent with momentum and batches of 128: with the authors' setting the noise of small
# batches would be nearly half of what we measure. A control shows what is left of it, an ensemble with the same start
# and the *same data* in other orders.

# %%
rate = 0.075 / float(windows.square().mean())  # here about 0.3
descent = partial(torch.optim.SGD, momentum=0.9, lr=rate / 3)
best = published[int(loss.argmin())]
options = {"batch_size": 128, "optimizer": descent, "generator": seeded(22)}
reference = ms.fit(best, data, F.mse_loss, epochs=20, **options)
with torch.no_grad():
    each = (reference(windows) - windows).square().mean(1)
block = max(block_length(each), 100)  # what block="auto" comes to

faster = partial(torch.optim.SGD, momentum=0.9, lr=rate)
refit = {"batch_size": 128, "epochs": 5, "optimizer": faster}
real = ms.bootstrap(
    reference,
    data,
    F.mse_loss,
    n_models=100,
    block="auto",
    groups=recording,
    **refit,
    chunk=50,
    generator=seeded(23),
)
print(f"{len(real)} networks, blocks of {block} windows")

control = ms.train_ensemble(
    reference, data, F.mse_loss, 30, generator=seeded(24), **refit
)

# %% [markdown]
# Two comparisons, ± standard error over the networks of an ensemble. First the neurons: the mean trace of $\mat
# A_i^{-1}$, and its share of the mean squared length $\E |\vec w_i|^2$, which does not depend on the scale of the weights. We also align the published ensemble, in two ways.
# Renaming and rescaling units is all that a ReLU allows. But here the units are linear, and a linear layer of three
# units may be multiplied by any invertible $3 \times 3$ matrix if the next one undoes it. `ms.align(samples,
# group="linear")` takes that out as well.
#
# Second, what the networks do: the spread of the matrix $\mat P = \mat W_2 \mat W_1$, the sum of variances of its
# entries. No renaming and no change of basis touches it.

# %% tags=["hide-input"]
with warnings.catch_warnings(record=True):
    warnings.simplefilter("always")  # most networks may be near no common order
    ordered = ms.align(published)
    same_basis = ms.align(published.samples("0", axis=1), group="linear")
near = int(ordered.report["aligned"].sum())
print(f"near the mean in some order of units: {near} of {len(ordered)} networks")
columns = {
    "published: new starts, same data": published.samples("0", axis=1),
    "same, renamed and rescaled": ordered.samples("0", axis=1),
    "same, up to a linear map": same_basis,
    "bootstrap: one start, blocks": real.samples("0", axis=1),
    "control: one start, same data": control.samples("0", axis=1),
}


def passed(ensemble):
    """What each network does with a window while its units are active."""
    first, second = (ensemble.parameters[f"{k}.weight"] for k in (0, 2))
    return second @ first


def strayed(draws):
    """Squared distances of matrices from their mean; on average the sum of variances."""
    away = (draws - draws.mean(0)).square().sum((1, 2))
    return away * len(away) / (len(away) - 1)


squared = {n: strayed(draws) for n, draws in columns.items()}
length = {n: draws.square().sum((1, 2)).mean() for n, draws in columns.items()}
share = {n: float(v.mean() / length[n]) for n, v in squared.items()}
spread = {n: v / columns[n].shape[1] for n, v in squared.items()}  # of one neuron
everything = (published, published, published, real, control)
does = {n: strayed(passed(e)) for n, e in zip(columns, everything, strict=True)}
TextTable(
    ["ensemble", "trace, in 1e-6", "share", "spread of P"],
    [
        [n, with_error(1e6 * spread[n], 1), f"{share[n]:.4f}", with_error(does[n], 4)]
        for n in columns
    ],
)

# %% [markdown]
# What the networks *do* spreads a few times more over new starts than over new data, since ten epochs do not finish the
# training; two of the hundred, whose third component is another one, make almost half of it. Both are little: the squared
# length of $\mat P$ is about 3. But the *neurons* of the published ensemble spread hundreds of times more. Nearly all of that is renaming and mixing of units: it goes when the linear map is taken out.
# Renaming alone is not enough, because about half of the networks are in another basis.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The first 16 neurons of 100-3-100 networks, the weights of units 1 and 2; dark to light from sample 1 to 16 of the window. Left: the published kind of ensemble, drawn as published, the covariance times the circle. Middle: its 95 % regions. Right: 95 % regions by the bootstrap. Each panel has its own scale.\n", "name": "fig-walking-neurons"}, "image": {"alt": "Left, 16 tiny ellipses around an arc of means; middle, 16 large ellipses along the diagonal that all overlap; right, small ellipses well apart along a loop."}}
colors = [plt.get_cmap("cividis")(i / 15) for i in range(16)]
fig, axes = plt.subplots(1, 3, figsize=(plot.WIDTH, 2.75))
plane = neurons[:16].marginal([0, 1])
axes_of = torch.linalg.eigvalsh(plane.cov).flip(-1)
plot.ellipsoid(plane, semi_axes=axes_of, colors=colors, ax=axes[0])
plot.ellipsoid(plane, colors=colors, ax=axes[1])
exact_plane = real.neurons("0", axis=1)[:16].marginal([0, 1])
plot.ellipsoid(exact_plane, colors=colors, ax=axes[2])
widths = {}
for name, some in (
    ("published", neurons[:16]),
    ("bootstrap", real.neurons("0", axis=1)[:16]),
):
    gaps = some.mean[:, None] - some.mean
    near_by = torch.linalg.pinv(some.cov, hermitian=True)[:, None]
    far = (gaps[..., None, :] @ near_by @ gaps[..., None]).flatten(2)[..., 0].sqrt()
    widths[name] = (float(some.mean.var(0).sum().sqrt()), float(far.max()))
titles = ("as published", "its 95 % regions", "bootstrap, 95 %")
for ax, title in zip(axes, titles, strict=True):
    ax.set_title(title)
    ax.set_xlabel("to unit 1")
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=3)
axes[0].set_ylabel("to unit 2")
plt.show()
for name, (size, far) in widths.items():
    print(f"{name}: means scatter by {size:.4f}, at most {far:.1f} deviations apart")

# %% [markdown]
# The means go round in every panel, as the paper remarks. That is no matter of the method: a pair of components with
# one period of about 13 samples does it, as in {ref}`ch:ssa`. What differs is the scale. On the left the means of a
# hundred different networks have nearly cancelled, so the ring is small, and the true regions in the middle are much
# larger than the ring. By the bootstrap the ring is large and its neurons are apart.
#
# Is the bootstrap itself right? Here we can tell, for a principal component analysis can be refitted exactly. We draw
# blocks as before, take the three components of each resample, and compare how far $\mat P$ moves from that of the full
# data, $|\mat P^{(s)} - \mat P|^2$.

# %% tags=["hide-input"]
draw, stream = Resampler("blocks", block, groups=recording), seeded(25)
top = components.eigenvectors[:, -3:]
exact = []
for _ in range(200):
    index = draw.indices(len(windows), stream)
    count = index.bincount(minlength=len(windows))[:, None] / len(windows)
    mean = (count * windows).sum(0)
    cov = windows.T @ (count * windows) - torch.outer(mean, mean)
    three = torch.linalg.eigh(cov).eigenvectors[:, -3:]
    exact.append((three @ three.T - top @ top.T).square().sum())
exact = torch.stack(exact)
start = reference[2].weight.detach() @ reference[0].weight.detach()
moved = (passed(real) - start).square().sum((1, 2))
quantiles = torch.tensor([0.25, 0.5, 0.75]).double()
TextTable(
    ["refit", "lower quartile", "median", "upper quartile", "mean"],
    [
        [name, *(f"{q:.4f}" for q in d.quantile(quantiles)), with_error(d, 4)]
        for name, d in (("networks", moved), ("exact", exact))
    ],
)

# %% [markdown]
# In the middle they agree, as far as medians of a hundred can. The exact refits have a longer tail, and a larger mean,
# though not by two standard errors. In a few resamples the third and the fourth component change places, and networks
# that start from the old solution do not follow in five epochs. So the bootstrap from one start measures the spread *within one basin*, and a short refit cuts
# its tail.
#
# **Check** these statements, with room for chance: five other seeds gave ratios of the first two traces from 306 to 451.

# %%
by_starts, _, _, by_data, by_order = (float(v.mean()) for v in spread.values())
starts_do, _, _, data_do, _ = (float(v.mean()) for v in does.values())
ratio = by_starts / by_data
linear = share["same, up to a linear map"]
print(f"trace, published over bootstrap: {ratio:.1f}")
print(f"of the bootstrap, noise of batches: {by_order / by_data:.2f}")
if walk.official:
    assert ratio > 100
    assert 1.5 < starts_do / data_do < 15
    assert (does["published: new starts, same data"] > 1).sum() == 2
    assert linear < 0.05 < 0.6 < share["published: new starts, same data"]
    assert by_order < 0.5 * by_data
    assert 0.4 < moved.median() / exact.median() < 2.5
    assert moved.mean() < 1.1 * exact.mean() and moved.max() < 0.2 * exact.max()
    assert near < 80
    assert widths["published"][1] < 1 < 10 < widths["bootstrap"][1]
    assert widths["published"][0] < 0.5 * widths["bootstrap"][0]

# %% [markdown]
# ## A thousand networks
#
# Members are trained side by side, `chunk` of them in one batched model. Chunks go through joblib, so `n_jobs=8` runs
# eight at a time, and a surrounding `joblib.parallel_config("dask")` sends them to a cluster:
#
# ```python
# from dask.distributed import Client
#
# Client("scheduler:8786")
# with joblib.parallel_config("dask"):
#     ensemble = ms.bootstrap(net, data, loss, n_models=1000, store="walking")
# ```
#
# `store` names a folder that keeps each finished chunk. The same call goes on from there after an interruption; another
# call is refused. Where 1000 networks do not fit into memory, `ms.bootstrap_neurons` keeps only moments. **Check**: a
# run that lost a chunk gives the same bits as one that was never interrupted, and the moments are those of the
# ensemble.

# %%
small = {"n_models": 8, "chunk": 4, "block": "auto", "groups": recording}
small |= {"batch_size": 128, "epochs": 1}


def run(folder=None):
    stream = seeded(26)
    return ms.bootstrap(
        reference, data, F.mse_loss, store=folder, generator=stream, **small
    )


with tempfile.TemporaryDirectory() as folder:
    first = run(folder)
    for file in sorted(Path(folder).iterdir()):
        print(file.name)
    (Path(folder) / "chunk-00001.safetensors").unlink()
    again = run(folder)

for other in (again, run()):
    for key, weights in first.parameters.items():
        assert torch.equal(weights, other.parameters[key])
moments = ms.bootstrap_neurons(
    reference, data, F.mse_loss, "0", axis=1, generator=seeded(26), **small
)
assert torch.allclose(moments.cov, first.neurons("0", axis=1).cov, atol=1e-15)

# %% [markdown]
# ## What we saw

# %% tags=["hide-input"]
published_share = share["published: new starts, same data"]


def says(condition, condition_text=""):
    """The verdict that a condition stands for."""
    return f"holds{condition_text}" if condition else "does not hold"


verdicts = [
    [
        "the bootstrap finds the covariance of a neuron (section 4)",
        says(abs(ratios["grows with x", "pairs"] - 1) < 0.2),
        f"least squares: {ratios['equal', 'pairs']:.2f} of the truth, with uneven "
        f"noise {ratios['grows with x', 'pairs']:.2f}",
    ],
    [
        "the bootstrap does so for series (section 1)",
        says(alone < 0.6 < together, " if blocks are drawn"),
        f"standard deviation {with_error(slopes[:, 0] / of_slope)} of the truth one "
        f"by one, {with_error(slopes[:, 1] / of_slope)} by blocks",
    ],
    [
        "100 networks on random subsets (section 3.2)",
        "does not hold",
        "the authors' notebooks use the same data and new starts",
    ],
    [
        "moments of neuron i over new starts describe it (figures 6 to 9)",
        says(as_trained.mean() > member.mean() - 0.1),
        f"Iris: mean network {with_error(as_trained)}, aligned {with_error(mended)}, "
        f"a member {with_error(member)}",
    ],
    [
        "covariances come out again as published (figure 8a)",
        says(cosine.min() > 0.95),
        f"and they are a I + b 11ᵀ: |cos| to (1,1,1) {cosine.min():.3f} or more",
    ],
    [
        "published covariances are the spread of the estimate (section 4.3)",
        says(ratio < 2),
        f"trace {with_error(1e6 * spread['published: new starts, same data'], 0)}, by "
        f"the bootstrap {with_error(1e6 * spread['bootstrap: one start, blocks'], 0)} "
        f"(in 1e-6); {published_share:.0%} of the squared length, {linear:.1%} up to a "
        "linear map",
    ],
]
TextTable(["claim", "verdict", "what we found"], verdicts)

# %% [markdown]
# For your own network: start all members from one trained network, draw blocks if the examples come from a series,
# train the control with the same data, and look at the ratio. Where members must start apart, align them, and believe
# the alignment only if the mean network still works. One person's three walks are one sample: blocks of that length are
# about 35, so these spreads are themselves uncertain by a quarter.
#
# ```{exercise} Another activation
# :label: ex-tanh
#
# Replace ReLU by tanh in the Iris networks. What, besides renaming, leaves the network as it is? Does the
# aligned mean network recover?
# ```
#
# ````{solution} ex-tanh
# :class: dropdown
#
# Tanh is odd, so a unit may change the sign of what comes in and of what goes out. `ms.align` asks the activation and does
# both. The mean network goes from about a half to that of its members.
#
# ```python
# for seed in range(5):
#     train, test = irises(seed)
#     net = mlp(4, 16, 3, activation=nn.Tanh, generator=seeded(seed)).double()
#     options = {"n_models": 50, "epochs": 100, "generator": seeded(10 + seed)}
#     members = ms.bootstrap(net, train, F.cross_entropy, **same_data, **options)
#     for e in (members, mean_network(members), mean_network(ms.align(members))):
#         print(f"{accuracy(e, test).mean():.2f}", end="  ")
#     print()
# ```
# ````
#
# **Next**: {ref}`ch:hessian`, a covariance without resampling.
