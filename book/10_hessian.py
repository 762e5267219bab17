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
# (ch:hessian)=
# # Curvature
#
# The bootstrap of chapter {ref}`ch:bootstrap` trains a hundred networks. This chapter trains one. At a minimum, the
# shape of the loss tells how far the weights would move if the data had been other data. The paper
# {cite}`nasyrov2023` has two algorithms for it in its section 4: one reads the shape off at the end of training
# (algorithm 2), one along the way (algorithm 3).
#
# **At the end you will know**
#
# - the sandwich formula, where it comes from, and the factor $1/n$ that the paper's algorithms leave out;
# - when the cheap Gauss–Newton curvature may stand in for the Hessian, and a case where it is wrong by a factor;
# - how long a path of gradient descent must be before its scatter says something;
# - what overlapping windows do to all of this.

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
import warnings
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from scipy.signal import lfilter
from torch import nn

import mspace as ms
from kit import plot
from kit.principal import at_principal_components
from kit.tables import TextTable, with_error
from mspace import normal, seeded
from mspace.models import mlp
from mspace.posterior import Resampler, block_length, hessian

ms.limit_threads()
plot.book_style()


# %% [markdown]
# ## The sandwich
#
# Let $\ell_t(\vec w)$ be the loss of example $t$, and $\hat{\vec w}$ a minimum of the mean over $n$ examples. With
# infinitely many examples the minimum would lie at $\vec w^*$. Near it the mean gradient is almost linear, and at
# $\hat{\vec w}$ it is zero:
#
# $$
# \begin{gathered}
# \vec 0 \approx \frac1n \sum_t \vec g_t + \mat A\, (\hat{\vec w} - \vec w^*) , \\
# \vec g_t = \nabla \ell_t(\vec w^*) , \qquad \mat A = \E \nabla^2 \ell_t(\vec w^*) .
# \end{gathered}
# $$
#
# So the error of the weights is $-\mat A^{-1}$ times a mean of $n$ random gradients. A mean of independent terms has the
# covariance of one term over $n$, and that gives {cite}`huber1967,white1982`
#
# ```{math}
# :label: eq-hc0
# \Cov(\hat{\vec w}) \approx \frac1n\, \mat A^{-1} \mat B \mat A^{-1} , \qquad \mat B = \E\, \vec g_t \vec g_t^\T .
# ```
#
# Two slices of curvature with the noise of the gradients between them, hence *sandwich*. The paper's algorithm 2 is this
# formula, with two differences. Its middle matrix prints one $\nabla$ where two are needed, a misprint. And it ends
# with $\mat A^{-1} \mat B \mat A^{-1}$, without $1/n$. That is the covariance of $\sqrt n\, \hat{\vec w}$, a number of
# another size: for 10 000 examples a region drawn from it is 100 times too wide.
#
# Laplace's approximation {cite}`mackay1992` keeps one slice: where the loss is a negative log-likelihood and the model
# is right, $\mat A = \mat B$ and $\mat A^{-1} / n$ is left. If the model is wrong, it is not the scatter of anything.
#
# ## A case whose truth is known
#
# We take the layer of chapter {ref}`ch:bootstrap`: 40 neurons with two weights, least squares on 400 fixed inputs, equal
# noise for twenty neurons and noise that grows with $|x_1|$ for the other twenty. The true covariance is the sandwich
# with the true noise in it.

# %%
n, twenty = 400, 20
x = normal(n, 2, seed=0) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]]).double()
noise = torch.ones(n, 2 * twenty).double()
noise[:, twenty:] = x[:, :1].abs()
y = x @ normal(2, 2 * twenty, seed=1) + noise * normal(n, 2 * twenty, seed=2)

layer = nn.Sequential(nn.Linear(2, 2 * twenty, bias=False)).double()
layer[0].weight.data = torch.linalg.lstsq(x, y).solution.mT.contiguous()
inverse = torch.linalg.inv(x.T @ x)
truth = torch.stack(
    [inverse @ (x.T * noise[:, i] ** 2) @ x @ inverse for i in range(2 * twenty)]
)

rate = 0.25 * 2 * twenty  # the loss is a mean over outputs, which share nothing
posteriors = {
    "sandwich": ms.sandwich(layer, (x, y), F.mse_loss),
    "Laplace": ms.laplace(layer, (x, y), F.mse_loss, prior_precision=0.0),
    "online, plug-in": ms.online(
        layer, (x, y), F.mse_loss, rate=rate, generator=seeded(3)
    ),
}
cases = {"equal": slice(0, twenty), "grows with x": slice(twenty, None)}


def trace(cov):
    """The summed variances of each neuron, (m,)."""
    return cov.diagonal(dim1=-2, dim2=-1).sum(-1)


ratios, rows = {}, []
for name, part in cases.items():
    row = [name]
    for kind, posterior in posteriors.items():
        ratio = (trace(posterior.neurons("0").cov) / trace(truth))[part]
        ratios[name, kind] = float(ratio.mean())
        row.append(f"{ratio.mean():.2f}, sd {ratio.std():.2f}")
    rows.append(row)
TextTable(["noise", *(f"{k} / truth" for k in posteriors)], rows)

# %% [markdown]
# Estimated over true variance, mean and standard deviation (sd) of twenty neurons. The sandwich is right to a tenth in
# both cases, as the bootstrap was, and without a second network. Laplace believes in one noise for all and is wrong where
# that is.
#
# **Check**: the sandwich is what one gets by hand, to the last digits; on average it is right in both cases, and
# Laplace is not.

# %%
residual = (y - layer(x)).detach()
by_hand = torch.stack([inverse @ (x.T * r**2) @ x @ inverse for r in residual.T])
assert torch.allclose(posteriors["sandwich"].neurons("0").cov, by_hand, rtol=1e-9)
for kind in ("sandwich", "online, plug-in"):
    assert all(abs(ratios[name, kind] - 1) < 0.15 for name in cases), kind
assert ratios["grows with x", "Laplace"] < 0.85

# %% [markdown]
# ## Along the way
#
# Algorithm 3 of the paper does not store the data. It estimates while stochastic gradient descent runs. The theory
# behind it is about *averaged* descent {cite}`polyak1992`: with a rate that falls like $i^{-\alpha}$, $\frac12 < \alpha
# < 1$, the mean of $n$ iterates has just the covariance {eq}`eq-hc0`. Adam, momentum, or a constant rate have another
# limit, and `ms.online` refuses them. (The authors train with Adam throughout.) Three estimators are known:
#
# - **plug-in** {cite}`chen2020`: $\mat A$ and $\mat B$ averaged over the iterates. This is algorithm 3.
# - **batch means** {cite}`chen2020`: the scatter of the means of batches of iterates. No curvature is needed. Iterates
#   remember longer and longer, so batches must grow.
# - **online batch means** {cite}`zhu2023`: the same, with an answer at any time.
#
# How long must the path be? One layer of 40 neurons is 40 repetitions.

# %%
lengths = [1000, 3000, 10_000, 30_000]
methods = ("plugin", "batch_means", "online_batch_means")
along = {}
for method in methods:
    found = []
    for steps in lengths:
        posterior = ms.online(
            layer,
            (x, y),
            F.mse_loss,
            method=method,
            structure="neuron",
            steps=steps,
            rate=rate,
            generator=seeded(4),
        )
        found.append(trace(posterior.neurons("0").cov) / trace(by_hand))
    along[method] = torch.stack(found, 1)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Estimated trace over that of the sandwich, for 40 neurons, against the number of steps. Lines are medians, bands the middle 90 %.\n", "name": "fig-online"}, "image": {"alt": "Three bands against steps on a logarithmic axis: the plug-in band narrows around one, the two bands of batch means stay wide and below one."}}
ax = None
for method, color in zip(methods, plot.COLORS, strict=False):
    label = method.replace("_", " ").replace("plugin", "plug-in")
    ax = plot.band(lengths, along[method], color=color, label=label, ax=ax)
ax.axhline(1, color="#333333", linestyle="--")
ax.set(xscale="log", xticks=lengths, xticklabels=[f"{k:,}" for k in lengths])
ax.minorticks_off()
ax.set(xlabel="steps", ylabel="estimated / sandwich", ylim=(0, 2.2))
ax.legend(loc="upper right")
plt.show()

# %% [markdown]
# The plug-in is usable after some thousand steps. Batch means are free of curvature, but they are biased low and settle
# slowly, like $n^{-(1-\alpha)/4}$. There is another limit: $M$ batches give a matrix of rank below $M$, here 7 to 12, so
# they cannot fill the covariance of a neuron with a hundred inputs. **Check**: both statements.

# %%
last = {method: along[method][:, -1] for method in methods}
assert abs(last["plugin"].mean() - 1) < 0.1
assert last["plugin"].std() < 0.5 * last["batch_means"].std()
for method in methods[1:]:
    assert 0.5 < last[method].mean() < 1.05, method

# %% [markdown]
# ## Windows that overlap
#
# {eq}`eq-hc0` divides by $n$, and that is right for independent examples. Windows of a series are not. The noise of a
# mean of dependent gradients is their **long-run covariance**, which adds the correlations between examples $k$ steps
# apart. Newey and West {cite}`newey1987` estimate it with weights that fall to zero at a lag $L$,
#
# ```{math}
# :label: eq-hac
# \begin{gathered}
# \mat B_L = \mat \Gamma_0 + \sum_{k=1}^{L} \Bigl(1 - \frac{k}{L+1}\Bigr) (\mat \Gamma_k + \mat \Gamma_k^\T) , \\
# \mat \Gamma_k = \frac1n \sum_t \vec g_t \vec g_{t+k}^\T .
# \end{gathered}
# ```
#
# `ms.sandwich(..., dependence=L)` does. The case is that of chapter {ref}`ch:bootstrap`: one weight and a bias forecast
# ten steps ahead, on series that remember $0.8$ of their last value. The true spread comes from 2000 fresh series.


# %%
phi, T, lead = 0.8, 2000, 10


def walks(size, seed):
    """Stationary series (size, T) that remember 0.8 of their last value."""
    shocks = normal(size, T + 200, seed=seed).numpy()
    return torch.from_numpy(lfilter([1], [1, -phi], shocks))[:, 200:]


def least_squares(s):
    """The forecaster of one weight and a bias, and its data."""
    x, y = ms.windows(s, 1, horizon=lead)
    y = y[:, -1:]
    model = nn.Linear(1, 1).double()
    slope = ((x - x.mean()) * y).sum() / (x - x.mean()).square().sum()
    model.weight.data = slope.reshape(1, 1)
    model.bias.data = (y.mean() - slope * x.mean()).reshape(1)
    return model, (x, y)


many = torch.stack([least_squares(s)[0].weight for s in walks(2000, seed=6)])
of_slope = float(many.detach().std())
lags = [0, 5, 10, 20, 50, 100, 200, 400]
deviations = []
for s in walks(60, seed=7):
    model, data = least_squares(s)
    found = [ms.sandwich(model, data, F.mse_loss, dependence=k) for k in lags]
    deviations.append([float(p.variance()["weight"]) ** 0.5 for p in found])
deviations = torch.tensor(deviations) / of_slope
at = dict(zip(lags, deviations.T, strict=True))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Standard deviation of the weight by the sandwich over its true value, against the lag $L$, for 60 series. The line is the median, the band the middle 90 %.\n", "name": "fig-hac"}, "image": {"alt": "The ratio starts near 0.49 at lag zero, rises to about 0.95 at lag 20 to 50, then falls slowly while the band widens."}}
places = range(len(lags))
ax = plot.band(places, deviations, label="sandwich")
ax.axhline(1, color="#333333", linestyle="--", label="truth")
ax.set(xticks=places, xticklabels=lags, ylim=(0, 1.5))
ax.set(xlabel="lag L", ylabel="estimated / true deviation")
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# Without lags the sandwich claims half of the true spread, as the bootstrap did that drew windows one by one. With a lag
# a few times the horizon it finds 96 % on average. Very long lags leave few independent terms and become rough. The paper's
# algorithms have no such correction, and its windows overlap by 99 of 100 samples.
#
# **Check**: the two numbers, ± {ref}`standard error <sec:plus-minus>` over the series.

# %%
for k in (0, 20, 50):
    print(f"lag {k:2}: {with_error(at[k], 3)} of the truth")
assert at[0].mean() < 0.6
assert all(0.8 < at[k].mean() < 1.05 for k in (20, 50))

# %% [markdown]
# ## A network has flat directions
#
# In a network $\mat A$ is rarely positive definite. Training stops before the minimum, where some directions still
# curve down. And some directions do not curve at all: a ReLU unit passes on the scale of what it gets, so its incoming
# weights may grow while the outgoing ones shrink. The paper's algorithm inverts $\mat A$ all the same.
#
# We look at the paper's case, windows of 100 samples of walking through three ReLU units and back. First a network
# trained by Adam as the authors do, then its minimum. Here it can be written down, because the network is a principal
# component analysis (chapter {ref}`ch:bootstrap`): we take the components in the basis nearest to the trained
# decoder. For a network of which nothing is known, `ms.refine` goes on with L-BFGS until the gradient vanishes.

# %%
walk = ms.datasets.walking()
print(walk.source.split(": ")[0])
windows, recording = walk.windows(100)
data = windows, windows

start = mlp(100, 3, 100, generator=seeded(20)).double()
starts = ms.train_ensemble(
    start,
    data,
    F.mse_loss,
    10,
    init="independent",
    epochs=10,
    generator=seeded(21),
)
trained = starts[int(starts.report["loss"].argmin())]
minimum = at_principal_components(trained, windows)
refined = ms.refine(trained, data, F.mse_loss, steps=3000)

with torch.no_grad():
    for name, net in (
        ("trained", trained),
        ("written", minimum),
        ("refined", refined),
    ):
        print(f"{name}: loss {F.mse_loss(net(windows), windows):.5f}")


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The fifty smallest eigenvalues of the Hessian, on a scale that is linear near zero. Left: after ten epochs of Adam. Right: at the minimum.\n", "name": "fig-flat"}, "image": {"alt": "Left, some negative eigenvalues, then a smooth rise; right, twelve eigenvalues at zero and a jump to positive ones."}}
def eigenvalues(net):
    """Of the exact second derivative of the loss, ascending."""
    return torch.linalg.eigvalsh(hessian(net, data, F.mse_loss))


fig, axes = plt.subplots(1, 2, figsize=(plot.WIDTH, 2.7), sharey=True)
curved = {"after Adam": eigenvalues(trained), "at the minimum": eigenvalues(minimum)}
negative = torch.stack([(eigenvalues(net) < -1e-6).sum() for net in starts])
for ax, (name, values) in zip(axes, curved.items(), strict=True):
    ax.plot(range(1, 51), values[:50], ".")
    ax.set_yscale("symlog", linthresh=1e-6)
    ax.axhline(0, color="#333333", linewidth=0.8)
    ax.set(title=name, xlabel="number")
axes[0].set_ylabel("eigenvalue")
plt.show()

# %% [markdown]
# After ten epochs some curvatures are negative, in each of ten networks: {eq}`eq-hc0` is not defined there. At the
# minimum none is beyond rounding, and twelve are zero. We can name them. All three units are active in nearly every window, so the network is linear. Then the
# units can be multiplied by any invertible $3 \times 3$ matrix if the next layer undoes it, nine directions, and their
# three biases can move into the next layer.
#
# What should be done about them? Along an exact symmetry the gradients of all examples vanish. So data do not move
# the weights there, and the sandwich is zero along them if only the inverse is kept finite. `ms.sandwich` does
# that, and its report tells how many eigenvalues it found below zero and at zero.
#
# ## The cheap curvature
#
# For networks the Hessian is often replaced by the Gauss–Newton matrix $\E \mat J^\T \mat H \mat J$, where $\mat J$ is
# the derivative of the network's answer and $\mat H$ that of the loss by the answer. It is never indefinite and needs
# no second derivative of the network. It leaves out what the residuals multiply.
#
# Here that is a mistake. The network is a principal component analysis. Its subspace moves when the third component
# turns towards the fourth, and that turn costs $\lambda_3 - \lambda_4$, the difference of two variances. Gauss and
# Newton see only $\lambda_3$.
#
# We can measure it without a word about flat directions. What the network does to a window is $\mat P = \mat W_2 \mat
# W_1$, which no change of basis touches. Its spread, the sum of variances of its entries, is known in two more ways: by
# the block bootstrap of chapter {ref}`ch:bootstrap`, and by exact refits of the components to resampled blocks.


# %%
def passed(ensemble):
    """What each network does with a window while its units are active."""
    first, second = (ensemble.parameters[f"{k}.weight"] for k in (0, 2))
    return second @ first


def distances(ensemble, centre):
    """Squared distances of what the networks do from a centre."""
    return (passed(ensemble) - centre).square().sum((1, 2))


each = (minimum(windows) - windows).detach().square().mean(1)
block = max(block_length(each), 100)
print(f"blocks of {block} windows")
here = minimum[2].weight.detach() @ minimum[0].weight.detach()
quarter = float(windows.square().mean())
refitted = ms.bootstrap(
    minimum,
    data,
    F.mse_loss,
    n_models=100,
    block=block,
    groups=recording,
    batch_size=128,
    epochs=5,
    optimizer=partial(torch.optim.SGD, momentum=0.9, lr=0.075 / quarter),
    chunk=50,
    generator=seeded(23),
)
moved = {"bootstrap": distances(refitted, here)}

top = torch.linalg.eigh(windows.T.cov()).eigenvectors[:, -3:]
draw, stream = Resampler("blocks", block, groups=recording), seeded(25)
exact = []
for _ in range(100):
    some = windows[draw.indices(len(windows), stream)]
    three = torch.linalg.eigh(some.T.cov()).eigenvectors[:, -3:]
    exact.append((three @ three.T - top @ top.T).square().sum())
moved["exact refits"] = torch.stack(exact)

choices = {}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # lag 0 for windows that overlap, on purpose
    for curvature in ("gauss_newton", "hessian"):
        for lag in (0, 100, block):
            choices[f"{curvature.replace('_', '-')}, lag {lag}"] = ms.sandwich(
                minimum,
                data,
                F.mse_loss,
                curvature=curvature,
                dependence=lag,
                groups=recording if lag else None,
            )
for name, posterior in choices.items():
    moved[name] = distances(posterior.sample(400, seeded(22)), here)

# %% tags=["hide-input"]
quantiles = torch.tensor([0.25, 0.5, 0.75]).double()
TextTable(
    ["what", "lower quartile", "median", "upper quartile", "mean"],
    [
        [name, *(f"{q:.4f}" for q in d.quantile(quantiles)), with_error(d, 4)]
        for name, d in moved.items()
    ],
)

# %% [markdown]
# Each row has the squared distances $|\mat P - \hat{\mat P}|^2$ of draws, the mean ± standard error over these draws. The
# sandwich with the exact Hessian and a lag of one block agrees with the bootstrap, which it never saw, within two standard
# errors. (Exact refits have a longer tail: in a few resamples the third and fourth component change places, and nothing
# local can follow.) Gauss–Newton gives a quarter of the spread.
#
# The Hessian costs next to nothing here. One hidden layer of ReLUs is piecewise linear, so it can be summed over the
# patterns of active units, some hundred times faster than row by row (`benchmarks/posteriors.py`).
#
# **Check**: the agreement and the quarter.

# %%
mean = {name: float(d.mean()) for name, d in moved.items()}
local = mean[f"hessian, lag {block}"]
cheap = mean[f"gauss-newton, lag {block}"]
print(f"Hessian over bootstrap: {local / mean['bootstrap']:.2f}")
print(f"Gauss-Newton over Hessian: {cheap / local:.2f}")
report = choices[f"hessian, lag {block}"].report
print({k: report[k] for k in ("n", "curvature", "raised", "gauge")})
if walk.official:
    assert 0.6 < local / mean["bootstrap"] < 1.6
    assert cheap < 0.45 * local
    assert (curved["at the minimum"][:12].abs() < 1e-5).all()
    assert curved["at the minimum"][12] > 1e-4 > -1e-5 > curved["after Adam"][0]
    assert (negative > 0).all()

# %% [markdown]
# ## Figure 8b
#
# The notebook that drew figure 8b is lost. Its axes run from $-0.6$ to $0.8$, and its ellipsoids are the largest of the
# three methods. The paper's algorithm, followed to the letter, draws the covariance of $\sqrt n\, \vec w$. We draw both,
# for the first sixteen neurons of the decoder, in the two leading directions of their means.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The first 16 rows of the decoder, 95 % regions by the sandwich with the exact Hessian and a lag of one block, in the plane of the two leading directions of the means; dark to light from sample 1 to 16. Left: as algorithm 2 is written. Right: divided by $n$. Each panel has its own scale.\n", "name": "fig-divided"}, "image": {"alt": "Left, sixteen huge ellipses on top of each other; right, sixteen small ones apart along a ring."}}
decoder = choices[f"hessian, lag {block}"].neurons("2")
basis = torch.linalg.eigh(decoder.mean.T @ decoder.mean).eigenvectors[:, [2, 1]]
basis = basis * basis[basis.abs().argmax(0), [0, 1]].sign()
turned = ms.NeuronDistribution(decoder.mean @ basis, basis.T @ decoder.cov @ basis)[
    :16
]
written = ms.NeuronDistribution(turned.mean, len(windows) * turned.cov)
colors = [plt.get_cmap("cividis")(i / 15) for i in range(16)]
fig, axes = plt.subplots(1, 2, figsize=(plot.WIDTH, 3.1))
titles = ("as algorithm 2 is written", "divided by n")
for ax, some, title in zip(axes, (written, turned), titles, strict=True):
    plot.ellipsoid(some, colors=colors, ax=ax)
    ax.set_title(title)
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=4)
plt.show()
for name, some in (("as written", written), ("divided", turned)):
    gaps = some.mean[:, None] - some.mean
    far = torch.einsum("ijk,ikl,ijl->ij", gaps, torch.linalg.inv(some.cov), gaps)
    print(f"{name}: two neurons are at most {far.max().sqrt():.1f} deviations apart")

# %% [markdown]
# On the left no two neurons can be told apart, on the right they can. "The Hessian gives the largest variance", as the
# paper says of figure 8, is then a statement about $n$.
#
# ## What we saw

# %% tags=["hide-input"]
verdicts = [
    [
        "algorithm 2 estimates the covariance of a neuron",
        "holds if divided by n",
        f"least squares: {ratios['equal', 'sandwich']:.2f} of the truth, with uneven "
        f"noise {ratios['grows with x', 'sandwich']:.2f}",
    ],
    [
        "algorithm 3 estimates it online",
        "holds for averaged descent",
        f"plug-in {with_error(last['plugin'], 3)} of the sandwich after 30,000 steps, "
        f"batch means {with_error(last['batch_means'])}; not for Adam",
    ],
    [
        "algorithm 2 may be used on windows of a series (section 4.3)",
        "holds if the middle is a long-run one",
        f"deviation {with_error(at[0], 3)} of the truth without lags, "
        f"{with_error(at[50], 3)} with 50",
    ],
    [
        "the curvature of a network can be inverted (algorithm 2)",
        "does not hold",
        f"{with_error(negative, 1)} negative eigenvalues after Adam (ten networks), "
        f"{int((curved['at the minimum'].abs() < 1e-5).sum())} zero at the minimum",
    ],
    [
        "Gauss and Newton's matrix will do",
        "does not hold",
        f"spread {with_error(moved[f'gauss-newton, lag {block}'], 4)}, by the Hessian "
        f"{with_error(moved[f'hessian, lag {block}'], 4)}, by the bootstrap "
        f"{with_error(moved['bootstrap'], 4)}",
    ],
]
TextTable(["claim", "verdict", "what we found"], verdicts)

# %% [markdown]
# For your own network: go to the minimum (`ms.refine`), take `ms.sandwich` with `dependence=` a few times the reach of a
# window, and read its report. If eigenvalues were raised, ask which directions they belong to. The sandwich costs
# seconds where the bootstrap costs trainings, but it sees one basin only, and only its quadratic part.
#
# ```{exercise} Half the data
# :label: ex-half
#
# By how much do the regions grow if you use every second window only, with half the lag? And if you use each window
# twice? Which of the two is a mistake that `ms.sandwich` cannot notice?
# ```
#
# ````{solution} ex-half
# :class: dropdown
#
# Neighbouring windows are nearly equal, so leaving out every second one loses nothing: $n$ halves, the long-run middle
# matrix halves as well, and the regions stay. Using each twice doubles $n$ and leaves $\mat A$ and $\mat B_0$ as they
# are: without lags all variances halve, for no new information. The function cannot know that examples are copies.
#
# ```python
# half = ms.sandwich(
#     minimum,
#     (windows[::2], windows[::2]),
#     F.mse_loss,
#     curvature="hessian",
#     dependence=block // 2,
# )
# whole = ms.sandwich(
#     minimum, data, F.mse_loss, curvature="hessian", dependence=block
# )
# print(trace(half.neurons("2").cov).mean() / trace(whole.neurons("2").cov).mean())
# ```
# ````
#
# **Next**: {ref}`ch:variational`, where the covariance is trained with the weights.
