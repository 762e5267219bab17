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
# (ch:verdict)=
# # The verdict
#
# Every chapter ends with a table: what was claimed, whether it holds, and the numbers that say so. This page gathers the
# tables. Nothing is typed here. The rows are read from the executed chapters that you see, and when a chapter comes to
# another answer, so does this page.
#
# **At the end you will know**
#
# - which sentences of the paper {cite}`nasyrov2023` hold, which hold on a condition, and which do not;
# - what this book adds to them, and how surely;
# - what is left open.

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
import re

import matplotlib.pyplot as plt

from kit import plot
from kit.notebooks import read_notebook
from kit.tables import TextTable

plot.book_style()

# %% [markdown]
# ## How a verdict is reached
#
# A claim **holds** if a check cell asserts it on data that were held out, or on a simulation whose truth is known. It
# **holds if** something is added that the claim leaves out, or with a remark; the verdict says what. It **does not hold** if the check
# asserts the contrary, or if a control does as well: a random partition, a network trained from scratch, repeating the last
# stride. It is **open** if our data cannot tell. One rule comes before all others: each claim was given the best chance that
# we could think of, on its own data, before it was judged.
#
# A claim that names the abstract, a section, a figure, a definition or an algorithm is one of the paper's. The others
# are ours, or what a reader might expect.

# %% tags=["hide-input"]
CHAPTERS = """
01_neurons 02_trajectories 03_ssa 04_orthogonal_autoencoder 05_rnn
06_vae 07_neural_ode 08_video 09_bootstrap 10_hessian
11_variational 12_neuron_space 13_distances 14_relevance 15_communities
16_clustering 17_compression 18_distillation 19_your_network
""".split()
KINDS = ("holds", "holds if", "does not hold", "open")


def kind(verdict):
    """Which of the four a verdict is; a condition may follow in any words."""
    if verdict.startswith("holds"):
        return "holds" if verdict == "holds" else "holds if"
    found = [k for k in KINDS if verdict.startswith(k)]
    assert found, f"no verdict: {verdict!r}"
    return found[0]


def title(chapter):
    """The first heading of a chapter."""
    cells = read_notebook(f"{chapter}.ipynb")["cells"]
    text = "".join("".join(c["source"]) + "\n" for c in cells[:3])
    return re.search(r"^# (.+)$", text, re.MULTILINE)[1]


claims = [
    (chapter, *row)
    for chapter in CHAPTERS
    for row in TextTable.stored(
        f"{chapter}.ipynb", ["claim", "verdict", "what we found"]
    ).rows
]
theirs = re.compile(r"\b(section|figure|algorithm|definition)s? \d|^abstract:")
of_paper = [c for c in claims if theirs.search(c[1])]
ours = [c for c in claims if not theirs.search(c[1])]


def listed(some, *kinds):
    """A table of claims with these verdicts, each with the number of its chapter."""
    chosen = [c for c in some if kind(c[2]) in kinds]
    return TextTable(
        ["claim, chapter", "verdict", "what we found"],
        [
            [f"{claim} · [{int(chapter[:2])}]({chapter}.ipynb)", verdict, found]
            for chapter, claim, verdict, found in chosen
        ],
    )


counts = {
    name: [sum(kind(c[2]) == k for c in some) for k in KINDS]
    for name, some in (("the paper's", of_paper), ("ours", ours))
}
TextTable(
    ["claims", *KINDS, "in all"],
    [[name, *map(str, n), str(sum(n))] for name, n in counts.items()],
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How the claims fared.\n", "name": "fig-verdict"}, "image": {"alt": "Two horizontal bars, the paper's claims and ours, each divided into those that hold, hold on a condition, do not hold, and are open."}}
shades = ("#009E73", "#8fd3bd", "#D55E00", "#b0b0b0")
ax = plt.subplots(figsize=(plot.WIDTH, 1.7))[1]
for row, n in enumerate(counts.values()):
    left = 0
    for k, value, color in zip(KINDS, n, shades, strict=True):
        ax.barh(row, value, left=left, color=color, label=k if row == 0 else None)
        if value:
            ax.text(left + value / 2, row, str(value), ha="center", va="center")
        left += value
ax.set(yticks=range(len(counts)), yticklabels=counts, xlabel="claims")
ax.invert_yaxis()
ax.grid(visible=False)
ax.figure.legend(loc="outside upper center", ncols=4, fontsize=9)
plt.show()

# %% [markdown]
# **Check**: each chapter has its say, and no verdict is of a fifth kind.

# %%
assert {c[0] for c in claims} == set(CHAPTERS)
assert sum(map(sum, counts.values())) == len(claims)
for chapter in CHAPTERS:
    n = sum(c[0] == chapter for c in claims)
    print(f"{chapter[:2]} {title(chapter)}: {n} claims")

# %% [markdown]
# ## The paper: what does not hold

# %% tags=["hide-input"]
listed(of_paper, "does not hold")

# %% [markdown]
# Two mistakes are behind many of these rows. Networks from different starts were averaged before their units were put
# in one order, so that the mean and the covariance of "neuron 7" describe no neuron. And results were not set beside a
# control, so that what chance gives was taken for structure. Neither touches the idea. A row of weights *is* a random
# vector, and where its distribution is estimated with care, it tells things that a single network does not.
#
# ## The paper: what holds on a condition

# %% tags=["hide-input"]
listed(of_paper, "holds if")

# %% [markdown]
# ## The paper: what holds

# %% tags=["hide-input"]
listed(of_paper, "holds", "open")

# %% [markdown]
# ## Beyond the paper

# %% tags=["hide-input"]
listed(ours, *KINDS)

# %% [markdown]
# ## What to take home
#
# - **Ask what is random.** Over new data, over new starts, over new noise: three covariances, three questions. Only the first
#   is the uncertainty of an estimate.
# - **Give neurons names before you average them.** Start all members at one trained network, or align them, and check that the
#   mean network still works.
# - **Draw blocks where data are dependent.** With overlapping windows all other intervals are too narrow.
# - **Put a control beside each figure.** Random partitions, a null model of the modularity, a small network from scratch,
#   repeating the last stride.
# - **Refit what reads the neurons.** Which of them go matters less, once the outgoing weights of those that stay are fitted anew, and least where many stay.
# - **Count what is stored.** A network is smaller when numbers are gone, not when they are equal.
#
# What is left open is in the rows above that say so. To try the methods on a network of your own, go to
# {ref}`the chapter on that <ch:your-network>`.
