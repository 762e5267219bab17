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
# (ch:relevance)=
# # Relevance
#
# Which neurons does a network need? The introduction of the paper {cite}`nasyrov2023` plans three things for the rows of
# a weight matrix, seen as random vectors. Keep the relevant ones, which are those of small variance. Replace rows that
# correlate by their linear composition, with a generalisation of quadratic programming feature selection (QPFS). And
# look for communities. It names its forerunners: optimal brain damage and surgeon {cite}`lecun1990,hassibi1993,dong2017`,
# and the covariance of gradients and of parameters {cite}`grabovoy2019,grabovoy2020`. They judge weights one by one, the
# paper says, and miss that inputs are met by vectors. Its sections 4 and 5 then only cluster. So this chapter does what
# was announced, for neurons, and asks what it is worth.
#
# **At the end you will know**
#
# - why optimal brain surgeon and Wald's test are one quantity, and when it is the exact price of a neuron;
# - what each measure of relevance sees and misses, in a network whose truth is known;
# - what QPFS does with neurons, and with duplicates;
# - how good smaller networks are under each order of neurons, on flowers and digits that were held out.

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

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import mspace as ms
from kit import plot
from kit.tables import TextTable, with_error
from mspace import normal, seeded
from mspace.datasets import train_test_split
from mspace.models import mlp
from mspace.reduction import select_units
from mspace.selection import (
    belsley,
    contribution,
    correlation_similarity,
    group_obs,
    group_obs_update,
    layer_inputs,
    neuron_similarity,
    qpfs_targets,
    select,
)

ms.limit_threads()
plot.book_style()


def overlap(net, x):
    """Squared correlations of what hidden neurons answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # silent neurons are constant
        return correlation_similarity(layer_inputs(net, x, "2"))


def best_first(scores):
    """Neurons by falling score; those that only rounding tells apart, by number."""
    shares = (scores / scores.abs().max()).round(decimals=9)
    return shares.argsort(descending=True, stable=True)


# %% [markdown]
# ## One thing under two names
#
# Near a minimum $\vec w$ a loss with second derivative $\mat H$ rises by $\frac 12 \vec\delta^\T \mat H \vec\delta$. A
# neuron is a group $I$ of weights. Set them to zero and let all other weights move to make up for it. What is left is
#
# ```{math}
# :label: eq-group-obs
# L_I = \tfrac 12 \, \vec w_I^\T \bigl( [\mat H^{-1}]_{II} \bigr)^{-1} \vec w_I ,
# ```
#
# optimal brain surgeon for a group. Wald's statistic asks something else: is $\vec w_I$ zero, given how uncertain it is?
#
# $$
# W_I = \vec w_I^\T \mat S_I^{-1} \vec w_I .
# $$
#
# For least squares with $n$ examples and half the mean square as the loss, $\mat H = \mat X^\T \mat X / n$, and the
# covariance of the fit is $\mat S = \frac{s^2}{n} \mat H^{-1}$. So the two are one number in two units,
#
# ```{math}
# :label: eq-wald-obs
# L_I = \frac{s^2}{2n} W_I .
# ```
#
# A variance tells how relevant a neuron is *if* it is compared with the neuron's mean. **Check** this, and that both are
# what least squares really loses: three neurons in $\R^3$, whose inputs correlate, are taken out in turn and the rest is
# fitted again. The lines are about twenty draws of the data, the table is the first of them.

# %%
groups = torch.arange(9).view(3, 3)
rest = [[i for i in range(9) if i not in g] for g in groups.tolist()]


def prices(seed):
    """What each neuron costs, by refit, group OBS, Wald and OBS of single weights."""
    x = normal(200, 9, seed=seed) @ normal(9, 9, seed=seed + 1)
    y = x @ normal(9, seed=seed + 2) + normal(200, seed=seed + 3)

    def fit(columns):
        w = torch.linalg.lstsq(x[:, columns], y[:, None]).solution[:, 0]
        return w, (y - x[:, columns] @ w).square().mean() / 2

    (w, least), hessian = fit(list(range(9))), x.T @ x / 200
    s2 = 2 * least * 200 / (200 - 9)
    cov = s2 / 200 * torch.linalg.inv(hessian)
    neurons = ms.NeuronDistribution(
        w[groups], cov[groups[:, :, None], groups[:, None]]
    )
    moved = group_obs_update(w, hessian, groups[0])[3:]
    assert torch.allclose(moved, fit(rest[0])[0], rtol=1e-6, atol=1e-8)
    return {
        "refit": torch.stack([fit(columns)[1] - least for columns in rest]),
        "group OBS": group_obs(w, hessian, groups),
        "Wald s²/2n": ms.relevance(neurons, by="wald") * s2 / 400,
        "OBS of its weights, summed": group_obs(w, hessian)[groups].sum(1),
    }


draws = [prices(10 * seed) for seed in range(20)]
for found in draws:
    refit, surgeon, wald, _ = found.values()
    assert torch.allclose(surgeon, refit, rtol=1e-6)
    assert torch.allclose(surgeon, wald, rtol=1e-8)
summed = torch.cat([list(f.values())[3] / f["refit"] for f in draws])
print(f"sum over refit: median {summed.median():.2f}, from {summed.min():.2f}")
print(
    f"to {summed.max():.2f}; too low for {(summed < 1).double().mean():.0%} of neurons"
)
assert summed.median() < 0.75
TextTable(
    ["neuron", *draws[0]],
    [[str(i + 1), *(f"{v[i]:.3g}" for v in draws[0].values())] for i in range(3)],
)

# %% [markdown]
# The last column supports the paper's point. The prices of single weights do not add up to the price of their neuron.
# Mostly they are too low, since the weights of a neuron are the first to make up for each other. Rows must be judged as
# rows.
#
# ## A network whose truth is known
#
# For a network {eq}`eq-group-obs` holds near the minimum only, and someone must say which weights may move. We plant a
# network 3-8-2 with ReLU. Its hidden neurons are
#
# - three useful ones, weaker from one to the next, and a fourth that is *scaled*: incoming weights times ten, outgoing
#   weights divided by ten, which ReLU does not notice;
# - two *twins*, the same row twice, each with half the outgoing weight;
# - a *silent* one, whose bias keeps it at zero on all inputs;
# - an *unheard* one, with long weights, whose outgoing weights are zero.
#
# The targets are the network's own answers with noise. We put the noise at right angles to the hidden units, so that the
# outgoing weights are a least-squares fit. What does the loss really rise by, if one neuron goes? That has two answers:
# as it is, or with the outgoing weights of the others fitted again.
#
# Six measures, each as a share of its largest value. `ms.relevance` has them all. Optimal brain damage (OBD) keeps only
# the diagonal of $\mat H$ and moves nothing; optimal brain surgeon (OBS) is {eq}`eq-group-obs`. The gradient's measure
# is the trace of its covariance over the examples. All three are about the rows of the first layer. Layer-wise OBS
# {cite}`dong2017` is about the columns of the second: its loss is the error of that layer's own answers, so the
# outgoing weights of the others make up. "Small variance" is what the paper proposes, here by the bootstrap; its order
# is printed above the table.

# %%
names = ["useful 1", "useful 2", "useful 3", "scaled"]
names += ["twin 1", "twin 2", "silent", "unheard"]
w, b, v = normal(8, 3, seed=10), 0.5 * normal(8, seed=11), normal(2, 8, seed=12)
strength = torch.tensor([1, 0.7, 0.4, 0.7, 0.5, 0.5, 1, 0], dtype=torch.float64)
w, v = w / w.norm(dim=1, keepdim=True), v / v.norm(dim=0) * strength
w[5], b[5], v[:, 5] = w[4], b[4], v[:, 4]
w[3], b[3], v[:, 3] = 10 * w[3], 10 * b[3], v[:, 3] / 10
b[6], w[7] = -10, 3 * w[7]
net = mlp(3, 8, 2).double()
with torch.no_grad():
    for there, value in ((net[0].weight, w), (net[0].bias, b), (net[2].weight, v)):
        there.copy_(value)
x = normal(500, 3, seed=13)
hidden = layer_inputs(net, x, "2")
span = torch.cat([hidden[:, :6], hidden[:, 7:], torch.ones(500, 1)], 1)
basis = torch.linalg.svd(span, full_matrices=False)[0][:, :7]  # its rank: twins
noise = 0.3 * normal(500, 2, seed=14)
data = x, net(x).detach() + noise - basis @ (basis.T @ noise)


def rise(keep, **fit):
    """What the loss of the planted network rises by when only these stay."""
    rows = ms.prune(ms.rows_of(net, "0"), keep)
    small = ms.compress(net, "0", rows, "2", **fit)
    with torch.no_grad():
        return F.mse_loss(small(x), data[1]) - F.mse_loss(net(x), data[1])


others = [[j for j in range(8) if j != i] for i in range(8)]
cut = torch.stack([rise(keep) for keep in others])
refit = torch.stack([rise(keep, calibration=x, ridge=0.0) for keep in others])
kind = {"layer": "0", "data": data, "loss": F.mse_loss}
planted = {
    "magnitude": ms.relevance(net, by="magnitude", layer="0"),
    "OBD": ms.relevance(net, by="obd", **kind),
    "OBS": ms.relevance(net, by="obs", **kind),
    "layer-wise OBS": ms.relevance(net, by="layerwise", layer="2", axis=1, data=x),
    "gradient": ms.relevance(net, by="gradient", **kind),
}
posterior = ms.laplace(net, data, F.mse_loss, layers="0", prior_precision=1e-6)
planted["Wald"] = ms.relevance(posterior, by="wald", layer="0")
resampled = ms.bootstrap(
    net, data, F.mse_loss, n_models=50, epochs=5, generator=seeded(15)
)
spread = resampled.neurons("0").total_variance
columns = {"truth, cut": cut, "truth, refitted": refit} | planted
shares = {name: v / v.max() for name, v in columns.items()}
rows = [
    [name, *(f"{max(0.0, v[i].item()):.2f}" for v in shares.values())]
    for i, name in enumerate(names)
]
order = [names[i] for i in best_first(-spread)]
print("smallest variance first:", ", ".join(order))
TextTable(["neuron", *columns], rows)

# %% [markdown]
# - **Magnitude** takes the scaled neuron for the largest and sees no difference between the others that work. It
#   cannot tell that nobody listens to the unheard one.
# - **OBD** finds the silent and the unheard neuron. It gives each twin a price, as a plain cut does, and it puts all
#   neurons in the order of the cut, if not at its prices.
# - **OBS** finds the twins too, as either can do the work of the other. And Wald's statistic is the same column again.
# - **Layer-wise OBS** is not near the truth of the refit, it is the truth. That is {eq}`eq-group-obs` for the second layer.
# - **The gradient** calls the scaled neuron irrelevant. In fact it was made to decide what may stop training, not what
#   may go {cite}`grabovoy2020`.
# - **Small variance** puts the silent neuron first: what no input reaches, no data move. By curvature the same neuron
#   has the largest variance, that of the prior. A variance alone has no sign of relevance.
#
# **Check** each of these. Belsley's diagnostics {cite}`belsley1980`, which {cite}`grabovoy2019` uses, are blind the other
# way round: they read the second moment of the hidden units, find the component in which twins cannot be told apart, and
# know nothing of how much a unit matters.

# %%
useful, twins, idle = slice(0, 4), slice(4, 6), slice(6, 8)
worth = [0, 1, 2, 4, 5]  # all that work, but the scaled one
assert shares["magnitude"].argmax() == 3 and planted["magnitude"][7] > 2
assert shares["OBD"][idle].max() < 1e-10 < 0.05 < shares["OBD"][twins].min()
assert shares["OBS"][4:].abs().max() < 1e-6 < shares["OBS"][useful].min()
assert torch.allclose(shares["Wald"][useful], shares["OBS"][useful], rtol=1e-3)
assert torch.allclose(planted["layer-wise OBS"], refit, rtol=1e-6, atol=1e-8)
scaled_seen = float(shares["gradient"][3] / shares["gradient"][worth].min())
assert scaled_seen < 0.2
assert order[0] == "silent"
by_curvature = posterior.neurons("0").total_variance
assert by_curvature[6] > 1000 * by_curvature[useful].max()
awake = hidden[:, [0, 1, 2, 3, 4, 5, 7]]  # Belsley refuses what is always zero
entangled = belsley(torch.cov(awake.T))
print("index of the worst component:", f"{float(entangled.condition_index[0]):.2g}")
print("shares in it:", [round(float(s), 2) for s in entangled.shares[0]])
assert entangled.shares[0][4:6].min() > 0.99 and entangled.shares[0].sum() < 2.01

# %% [markdown]
# ## QPFS
#
# Prices for one neuron at a time do not tell what happens when two go. Each twin is worth nothing, and without both the
# network is worse. QPFS {cite}`rodriguez2010` looks at all of them together. Take a similarity $\mat Q$ between neurons
# and a relevance $\vec b$ for each, and find weights on the simplex that minimise
#
# ```{math}
# :label: eq-qpfs
# \begin{gathered}
# (1 - \alpha) \, \vec z^\T \mat Q \vec z - \alpha \, \vec b^\T \vec z, \\
# \vec z \ge 0, \quad \vec 1^\T \vec z = 1, \quad \alpha = \frac{\bar Q}{\bar Q + \bar b} .
# \end{gathered}
# ```
#
# Here $\bar Q$ and $\bar b$ are the means of all entries. For several targets one may add up their relevances, or let
# the targets have weights too {cite}`isachenko2022`. The classical example has three features, of which the last two
# are alike. Of its two targets, the first comes once or four times, the second once. With four copies of one target the
# sum forgets the feature that the other target needs; the min-max program, in which targets are weighed against us,
# gives it back. **Check** against the numbers printed with it.

# %%
similar = torch.tensor([[1, 0, 0], [0, 1, 0.8], [0, 0.8, 1]], dtype=torch.float64)
first, second = torch.tensor([[0.4, 0.5, 0.8], [0, 0.8, 0.1]], dtype=torch.float64)


def example(copies, ridge=0.0):
    """Relevance and similarity of targets when the first one comes several times."""
    targets = torch.stack([first] * copies + [second], 1)
    alike = torch.ones(copies + 1, copies + 1, dtype=torch.float64)
    alike[-1, :-1] = alike[:-1, -1] = 0.2
    return targets, alike + ridge * torch.eye(copies + 1)


once, often = (ms.qpfs(similar, example(n)[0].sum(1)) for n in (1, 4))
worst = qpfs_targets(similar, *example(4, ridge=1e-3))[0]
golden = {
    "once, summed": (once, (0.365, 0.612, 0.023)),
    "four times, summed": (often, (0.398, 0.177, 0.426)),
    "four times, min-max": (worst, (0.382, 0.568, 0.051)),
}
for name, (found, known) in golden.items():
    print(f"{name:20}", "  ".join(f"{z:.3f}" for z in found))
    assert torch.allclose(found, torch.tensor(known).double(), atol=1e-3)

# %% [markdown]
# For neurons we take as similarity the squared correlation of what they answer, and as relevance how well one neuron
# alone tells what the layer sends on. Where only means and covariances are known, `neuron_similarity` is the same for
# random vectors: the RV coefficient {cite}`robert1976`, the mean square of what two neurons answer together. Now the
# planted network again, once with both twins and once with one of them, whose outgoing weight is doubled. **Check** what
# the twins get, and what puts them aside.

# %%
similarity = overlap(net, x)
relevant = contribution(hidden, net[2].weight)
single = [0, 1, 2, 3, 4, 6, 7]
doubled = v * torch.tensor([1, 1, 1, 1, 2, 0, 1, 1])
merged = contribution(hidden[:, single], doubled[:, single])
both = ms.qpfs(similarity, relevant)
alone = ms.qpfs(similarity[single][:, single], merged)
assert torch.allclose(both[4], both[5], atol=1e-8)
assert both[4] < 0.75 * alone[4]
threshold = (both[4] + alone[4]) / 2
assert (both[twins] < threshold).all() and alone[4] > threshold
lost = {"both twins": [0, 1, 2, 3, 6, 7], "one twin": others[5]}
price = {k: float(rise(keep, calibration=x, ridge=0.0)) for k, keep in lost.items()}
print(f"refitted loss rises without both twins by {price['both twins']:.4f}")
assert price["both twins"] > 1e-4 and abs(price["one twin"]) < 1e-10
speaking = [0, 1, 2, 3, 4, 5, 7]
chosen = select(similarity[speaking][:, speaking], relevant[speaking], 5)
kept = sorted(names[speaking[i]].replace("twin 1", "twin 2") for i in chosen)
print("kept:", ", ".join(kept).replace("twin 2", "one of the twins"))
assert kept == sorted([*names[:4], "twin 2"])
idle_weight = float(both[idle].sum())
assert idle_weight > float(both[twins].sum())
as_vectors = neuron_similarity(resampled.neurons("0"), x.T @ x / 500)[4, 5]
print(f"similarity of the twins as random vectors: {as_vectors:.3f}")
assert as_vectors > 0.99
one_twin = [f"{alone[single.index(i)]:.3f}" if i in single else "" for i in range(8)]
table = [
    [names[i], f"{relevant[i]:.2f}", f"{both[i]:.3f}", one_twin[i]] for i in range(8)
]
TextTable(["neuron", "relevance", "weight", "weight, twins merged"], table)

# %% [markdown]
# Twins **share** their weight. A threshold between the half and the whole drops both of them, and a lower one keeps
# both. So duplicates must be merged first, or one of them put aside, which `select` does.
#
# There is a second trap. The silent and the unheard neuron have no relevance, but they are similar to little or nothing,
# and {eq}`eq-qpfs` pays for that too: together they have more weight than the twins. What tells nothing should be taken
# out before.
#
# ## Replaced by a composition
#
# The paper's second plan, a linear composition in place of rows that correlate, works on answers rather than on weights,
# as a ReLU stands between. Fit $h_j \approx \sum_i c_{ji} h_i + c_j$ for every neuron $j$ that goes. Then
# $\mat V_\text{kept} + \mat V_\text{gone} \mat C$ are the new outgoing weights. Since least squares is linear in its
# target, that is the same as fitting the outgoing weights to the old answers: a third name for layer-wise OBS. **Check.**

# %%
stay = [0, 1, 3, 4]
design = torch.cat([hidden[:, stay], torch.ones(500, 1)], 1)
coefficients = torch.linalg.lstsq(design, hidden).solution
expand, shift = coefficients[:-1].T, coefficients[-1]
composed = v @ expand, net[2].bias.detach() + v @ shift
fitted = ms.compress(
    net, "0", ms.prune(ms.rows_of(net, "0"), stay), "2", calibration=x, ridge=0.0
)
assert torch.allclose(fitted[2].weight, composed[0], atol=1e-8)
assert torch.allclose(fitted[2].bias, composed[1], atol=1e-8)
bare = float(rise(stay))
made_up = float(rise(stay, calibration=x, ridge=0.0))
print(f"four of eight stay: loss + {bare:.3f} as cut, + {made_up:.4f} composed")
assert made_up < 0.5 * bare

# %% [markdown]
# ## Trained networks
#
# Now what counts. We train networks on two sets, eight each, every one on its own split and from its own start:
#
# - **Iris**, 4-128-3 as in the paper, 105 flowers to learn and 45 held out;
# - **digits** of 8 × 8 pixels, told by 16 principal components, 16-40-10, with 1000 to learn and 797 held out.
#
# Every measure puts the hidden neurons in order. We keep the first $k$ and measure accuracy on what was held out, twice:
# as they are, and with the outgoing weights fitted to the old answers on the learning inputs, no labels used. Two
# controls: ten random orders, and **forward selection**, which is not a relevance of single neurons. It adds the neuron
# that helps least squares most, given those it has. Layer-wise OBS needs a ridge here: with 105 flowers, the others can
# make up for any of 128 neurons exactly, and every price would be zero.

# %% tags=["hide-input"]
loss = F.cross_entropy


def flowers(seed):
    """Learning and held-out data."""
    draw = seeded(seed)
    return train_test_split(ms.datasets.iris(), 105, generator=draw)


def digits(seed):
    """Learning and held-out data."""
    draw = seeded(seed)
    return train_test_split(ms.datasets.digits(), 1000, n_components=16, generator=draw)


def orders(net, data, seed):
    """The hidden neurons from most to least relevant, by every measure."""
    boot = {"n_models": 60, "epochs": 5, "batch_size": 32, "generator": seeded(seed)}
    drawn = ms.bootstrap(net, data, loss, **boot).neurons("0")
    posterior, kind = ms.laplace(net, data, loss, layers="0"), {"layer": "0"}
    ridge = 1.0 / len(data[0])  # what a prior of precision one amounts to
    scores = {
        "small variance": -drawn.total_variance,
        "magnitude": ms.relevance(net, by="magnitude", **kind),
        "gradient": ms.relevance(net, by="gradient", data=data, loss=loss, **kind),
        "OBD": ms.relevance(net, by="obd", data=data, loss=loss, **kind),
        "OBS, Wald": ms.relevance(posterior, by="wald", **kind),
        "layer-wise OBS": ms.relevance(
            net, by="layerwise", layer="2", axis=1, data=data[0], damping=ridge
        ),
    }
    found = {k: best_first(s) for k, s in scores.items()}
    m, told = len(drawn), contribution(layer_inputs(net, data[0], "2"), net[2].weight)
    found["QPFS"] = select(overlap(net, data[0]), told, m)
    forward = select_units(net, "0", m // 2, "2", calibration=data[0])
    found["forward selection"] = forward.expand.argmax(0)
    draws = [torch.randperm(m, generator=seeded(seed + i)) for i in range(10)]
    return found | {f"random {i}": draw for i, draw in enumerate(draws)}


def curves(net, order, data, test, sizes):
    """Held-out accuracy of networks with the first k, as cut and refitted, (2, K)."""

    def accuracy(small):
        with torch.no_grad():
            return (small(test[0]).argmax(1) == test[1]).double().mean()

    found = [
        ms.tradeoff(
            net,
            "0",
            lambda rows, k: ms.prune(rows, order[:k]),
            sizes,
            accuracy,
            feeds="2",
            calibration=fitted,
        )
        for fitted in (None, data[0])
    ]
    return [[point.score for point in curve] for curve in found]


studies = {
    "Iris": (flowers, (4, 128, 3), 60, [2, 4, 8, 16, 32, 64]),
    "digits": (digits, (16, 40, 10), 30, [4, 8, 12, 16, 20]),
}
scores, whole, silent, alike = {}, {}, {}, {}
for study, (load, shape, epochs, sizes) in studies.items():
    found, whole[study], silent[study] = {}, [], []
    for seed in range(8):
        data, test = load(seed)
        start = mlp(*shape, generator=seeded(seed)).double()
        net = ms.fit(start, data, loss, epochs=epochs, generator=seeded(seed))
        silent[study].append(int((layer_inputs(net, data[0], "2") == 0).all(0).sum()))
        with torch.no_grad():
            right = net(test[0]).argmax(1) == test[1]
        whole[study].append(float(right.double().mean()))
        similarity = overlap(net, data[0])
        for name, order in orders(net, data, 100 * seed).items():
            curve = curves(net, order, data, test, sizes)
            found.setdefault(name, []).append(curve)
            first = similarity[order[:8]][:, order[:8]]
            alike.setdefault((study, name), []).append((first.sum() - 8) / 56)
    found = {name: torch.tensor(v, dtype=torch.float64) for name, v in found.items()}
    chance = torch.stack([v for k, v in found.items() if k.startswith("random")])
    found = {k: v for k, v in found.items() if not k.startswith("random")}
    scores[study] = found | {"random": chance.mean(0)}  # (8, 2, K) each
precision = 1.0 / len(data[0])  # the last network: OBS and Wald are one here too
posterior = ms.laplace(net, data, loss, layers="0")
surgeon = ms.relevance(
    net, by="obs", layer="0", data=data, loss=loss, damping=precision
)
wald = ms.relevance(posterior, by="wald", layer="0")
assert torch.allclose(wald, 2 * len(data[0]) * surgeon, rtol=1e-6)
for study, values in whole.items():
    print(f"{study}: accuracy of whole networks {torch.tensor(values).mean():.3f}")
    print("   silent neurons of each:", *silent[study])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Accuracy on held-out data with the first $k$ hidden neurons of each order, all but the gradient's, which the table below has; means over eight networks, bands of one standard error over networks for three of them. Dotted: whole networks.\n", "name": "fig-relevance"}, "image": {"alt": "Four panels. As cut, the orders spread around the random one, for Iris widely. With outgoing weights refitted, all orders of digits lie near the random one but forward selection, which is above; for Iris small variance is far below and the others meet at 16 neurons."}}
STYLE = {
    "random": "#333333",
    "small variance": plot.COLORS[1],
    "magnitude": plot.COLORS[5],
    "OBD": plot.COLORS[3],
    "OBS, Wald": plot.COLORS[4],
    "layer-wise OBS": "#8a6d3b",
    "QPFS": plot.COLORS[2],
    "forward selection": plot.COLORS[0],
}
fig, axes = plt.subplots(2, 2, sharey=True, figsize=(plot.WIDTH, 5.2))
for row, (study, (_, _, _, sizes)) in zip(axes, studies.items(), strict=True):
    for i, (ax, how) in enumerate(zip(row, ("as cut", "refitted"), strict=True)):
        for name, color in STYLE.items():
            y = scores[study][name][:, i]
            dashes = "--" if name == "random" else "-"
            ax.plot(sizes, y.mean(0), dashes, color=color, lw=1.3, label=name)
            if name in ("random", "small variance", "forward selection"):
                middle, error = y.mean(0), y.std(0) / 8**0.5
                low, high = middle - error, middle + error
                ax.fill_between(sizes, low, high, color=color, alpha=0.13, lw=0)
        ax.axhline(sum(whole[study]) / 8, color="#333333", lw=0.8, ls=":")
        ax.set_title(f"{study}, {how}")
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, map(str, sizes))
        ax.minorticks_off()
    row[0].set_ylabel("accuracy")
for ax in axes[1]:
    ax.set_xlabel("neurons kept")
fig.legend(
    *axes[0, 0].get_legend_handles_labels(),
    ncols=4,
    loc="outside upper center",
    fontsize=9,
)
plt.show()


# %% tags=["hide-input"]
def gain(study, name, fitted):
    """Accuracy above random orders, averaged over sizes, for each network."""
    return (scores[study][name] - scores[study]["random"])[:, fitted].mean(1)


measures = [name for name in scores["Iris"] if name != "random"]
cases = [(study, fitted) for fitted in (1, 0) for study in studies]
TextTable(
    ["gain over random", *(f"{s}, {('as cut', 'refitted')[f]}" for s, f in cases)],
    [[m, *(with_error(gain(s, m, f), 3) for s, f in cases)] for m in measures],
)

# %% [markdown]
# The table averages over $k$ what each order gains over random orders of the same network: means ± standard errors
# ({ref}`sec:plus-minus`) over eight networks, every one with its own split.
#
# Once outgoing weights are fitted, the question "which neuron is relevant" has nearly lost its object. On digits no
# measure of single neurons is worth more than two or three percent over chance. On Iris differences are left at eight
# neurons and fewer, and at sixteen of 128 all orders but one are level. What helps is to choose neurons *for each
# other*: forward selection, on both sets. A neuron has no relevance by itself. It has one beside those that are kept.
#
# Small variance, as the bootstrap gives it, is worse than chance on Iris, by much. A few of the 128 neurons are silent.
# They do not vary at all, and by the paper's rule they are the first to be kept. That explains the worst of it, if not
# all.
#
# As cut, the orders do differ. By OBD and the gradient the first neurons on Iris are strong and alike. They answer to
# the same flowers, and do worse than chance. QPFS, which avoids what is alike, gains much there, and has no such merit
# on digits, where neurons are little alike.
#
# **Check.**

# %%
singles = [m for m in measures if m != "forward selection"]
for study in studies:
    best = gain(study, "forward selection", 1)
    assert best.mean() > 0.02 and (best > 0).sum() >= 7, study
small = torch.stack([gain("digits", m, 1).mean() for m in singles])
assert small.abs().max() < 0.025 < gain("digits", "forward selection", 1).mean() / 2
assert gain("Iris", "small variance", 1).max() < 0
assert sum(silent["Iris"]) > 8 and sum(silent["digits"]) == 0
level = [m for m in (*measures, "random") if m != "small variance"]
sixteen = torch.stack([scores["Iris"][m][:, 1, 3].mean() for m in level])
assert sixteen.max() - sixteen.min() < 0.04
as_cut = {m: gain("Iris", m, 0) for m in ("QPFS", "OBD", "gradient")}
t = {m: float(x.mean() / x.std() * 8**0.5) for m, x in as_cut.items()}
assert t["QPFS"] > 3 and max(t["OBD"], t["gradient"]) < -3
assert gain("digits", "QPFS", 0).mean() < 0.3 * as_cut["QPFS"].mean()
shared = {key: torch.stack(v).mean() for key, v in alike.items()}
for study in studies:
    some = ("OBD", "gradient", "random 0", "QPFS")
    said = ", ".join(f"{m} {shared[study, m]:.2f}" for m in some)
    print(f"{study}, squared correlation of the first eight: {said}")
near = min(shared["Iris", "OBD"], shared["Iris", "gradient"])
assert near > 1.5 * shared["Iris", "random 0"] > 3 * shared["Iris", "QPFS"]
assert shared["digits", "random 0"] < 0.5 * shared["Iris", "random 0"]

# %% [markdown]
# ## What we saw

# %% tags=["hide-input"]
halves = {s: scores[s]["random"][:, 1, -1] for s in studies}
lost = {s: halves[s] - torch.tensor(whole[s], dtype=torch.float64) for s in studies}
best = [
    max((gain(s, m, 1) for m in singles), key=torch.mean) for s in ("digits", "Iris")
]
assert best[1].mean() < 0.03


def verdict(claimed, otherwise="does not hold"):
    return "holds" if claimed else otherwise


def both_sets(name, fitted=1):
    """The gain of an order on both sets."""
    return ", ".join(f"{s} {with_error(gain(s, name, fitted), 3)}" for s in studies)


claims = [
    [
        "section 1: relevant rows are those of small variance",
        verdict(min(gain(s, "small variance", 1).mean() for s in studies) > 0),
        f"over random, refitted: {both_sets('small variance')}; silent ones come first",
    ],
    [
        "section 1: rows must be judged as vectors, not weight by weight",
        verdict(summed.median() < 0.75),
        "prices of single weights add up to "
        f"{summed.median():.2f} ({summed.min():.2f} to {summed.max():.2f}) of their neuron's",
    ],
    [
        "section 1: the covariance of gradients finds what can go",
        verdict(scaled_seen > 0.5 and gain("digits", "gradient", 1).mean() > 0.025),
        f"a rescaled neuron looks {1 / scaled_seen:.0f} times less relevant than the "
        f"weakest other; over random, refitted: {both_sets('gradient')}",
    ],
    [
        "section 1: rows that correlate can be replaced by a linear composition",
        verdict(made_up < 0, "holds if answers are composed, not weights"),
        f"loss + {made_up:.4f} in place of + {bare:.3f}, what a refit gives",
    ],
    [
        "section 1: a generalised QPFS finds what to keep",
        verdict(min(gain(s, "QPFS", 1).mean() for s in studies) > 0.025),
        f"over random, refitted: {both_sets('QPFS')}; as cut: {both_sets('QPFS', 0)}; "
        f"useless neurons get {idle_weight:.2f} of the weight",
    ],
    [
        "section 5: on Iris up to half can go with accuracy above 90 %",
        verdict(halves["Iris"].min() > 0.9, "holds if the split is kind"),
        f"half at random, refitted: {with_error(halves['Iris'], 3)}; so it says nothing "
        "about which",
    ],
    [
        "section 5: on other sets less can go",
        verdict(lost["digits"].mean() < lost["Iris"].mean() - 0.01),
        "half at random, refitted, less the whole: "
        + ", ".join(f"{s} {with_error(lost[s], 3)}" for s in studies),
    ],
    [
        "group OBS, Wald's statistic and the refit are one quantity",
        verdict(True),
        "exactly so for least squares and outgoing weights; else to second order",
    ],
    [
        "a relevance of single neurons beats chance, refitted",
        verdict(small.max() > 0.025, "does not hold beyond 3 %"),
        f"the best of seven orders: digits {with_error(best[0], 3)}, "
        f"Iris {with_error(best[1], 3)}",
    ],
    [
        "neurons chosen for each other beat chance, refitted",
        verdict(min(gain(s, "forward selection", 1).mean() for s in studies) > 0.02),
        f"forward selection: {both_sets('forward selection')}",
    ],
]
TextTable(["claim", "verdict", "what we found"], claims)

# %% [markdown]
# For your own network: always refit what reads the layer, it costs one least squares. Choose by forward selection.
# Use Wald or OBS for what they are good at, to say of *one* neuron whether it can go. Do not sum them up for several.
#
# ```{exercise} Three twins
# :label: ex-twins
#
# In the planted network, give the useful neuron 1 two exact copies, and a third of its outgoing weight to each. What are
# the layer-wise prices of the three, and of all three together? What does QPFS give them? Which of the two would you
# threshold?
# ```
#
# ````{solution} ex-twins
# :class: dropdown
#
# Each alone costs nothing, since the other two make up. All together cost what neuron 1 cost. QPFS gives each a third of
# one weight. Neither should be thresholded: put copies aside first, or remove one neuron and measure again, which is
# backward elimination, `select_units(..., search=backward_elimination)`. Forward selection does the same from the other end.
#
# ```python
# copies = hidden[:, [0, 0, 0, 1, 2, 3]]
# outgoing = torch.cat([v[:, :1] / 3] * 3 + [v[:, 1:4]], 1)
# ones = torch.cat([copies, torch.ones(500, 1)], 1)
# moment = ones.T @ ones / 500
# rows = torch.cat([outgoing, torch.zeros(2, 1)], 1)
# sum(group_obs(row, moment) for row in rows)
# ms.qpfs(correlation_similarity(copies), contribution(copies, outgoing))
# ```
# ````
#
# **Next**: do neurons form communities? Chapter {ref}`ch:communities`.
