"""What a teacher's posterior is worth to a student: learning curves with and without it, and controls.

    PYTHONPATH=book python benchmarks/distillation.py dense --seeds 10      (a minute of CPU for each seed)
    PYTHONPATH=book python benchmarks/distillation.py ecog --seeds 5         (one and a half)
    PYTHONPATH=book python benchmarks/distillation.py electrodes --seeds 4   (one, for five subjects)

A seed means a new split, teacher, and student. Students see examples that their teacher has not seen, except where double
counting is the subject. Differences are paired by seed, with the 95 % interval of Student's t. One thread.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
import torch.nn.functional as F
from scipy.special import stdtrit

import mspace as ms
from kit.tables import TextTable
from mspace.distillation import distill, drop_neurons, mean_only, temper
from mspace.distillation.carry import carried
from mspace.models import HTNet, mlp, regions, with_projection
from mspace.network.surgery import units_of

ADAM = partial(torch.optim.Adam, lr=1e-2)
SHARES = (0.05, 0.2, 1.0)
SETS = {
    "iris": (12, 4, 60, 45),
    "digits": (24, 8, 600, 600),
}  # units of teacher and student, examples to test and to teach


def digits():
    """Digits of 4 x 4 pixels, standardised."""
    table = ms.datasets.digits()
    return F.avg_pool2d(table.inputs.reshape(-1, 1, 8, 8) / 16, 2).flatten(1), table.targets


def examples(name: str):
    x, y = digits() if name == "digits" else ms.datasets.iris()[:2]
    return (x - x.mean(0)) / x.std(0).clamp(min=0.1), y


def taught(x, y, hidden: int, seed: int):
    """A teacher at the maximum of its posterior, and that posterior."""
    decay = partial(torch.optim.Adam, lr=3e-3, weight_decay=1 / len(x))
    start = mlp(x.shape[1], hidden, int(y.max()) + 1, generator=ms.seeded(seed)).double()
    options = {"epochs": 150, "batch_size": 32, "optimizer": decay, "generator": ms.seeded(seed)}
    teacher = ms.fit(start, (x, y), F.cross_entropy, **options)
    return teacher, ms.laplace(teacher, (x, y), F.cross_entropy)


def priors(post, units: int, seed: int) -> dict:
    """The teacher's posterior in the shape of the student, in several ways."""
    keep = ms.relevance(post.neurons("2", axis=1)).argsort(descending=True)[:units].sort().values
    any_units = torch.randperm(post.template[0].out_features, generator=ms.seeded(seed))[:units].sort().values
    return {
        "": drop_neurons(post, "0", "2", units),
        "units at random": drop_neurons(post, "0", "2", any_units),
        "not conditioned": carried(post, *units_of(post.template, "0", "2").only(keep)),
    }


def recipes(fresh, prior: dict) -> dict:
    """Student to begin at, prior, share of the teacher's answers."""
    own = prior[""]
    return {
        "no teacher": (fresh, None, 0.0),
        "a start, no prior": (own.model(), None, 0.0),
        "answers": (fresh, None, 0.5),
        "answers, no labels": (fresh, None, 1.0),
        "mean as prior": (None, mean_only(own), 0.0),
        "posterior as prior": (None, own, 0.0),
        "posterior, tempered by 0.3": (None, temper(own, 0.3), 0.0),
        "posterior and answers": (None, own, 0.5),
        "posterior and answers, no labels": (None, own, 1.0),
        **{f"posterior, {name}": (None, p, 0.0) for name, p in prior.items() if name},
    }


def student(teacher, start, prior, mix, data, test, seed: int, **options) -> dict:
    """How a student does on examples held out."""
    options = {
        "epochs": 250,
        "batch_size": None,
        "optimizer": partial(torch.optim.Adam, lr=2e-2),
        "generator": ms.seeded(seed),
    } | options
    found = distill(teacher, start, data, F.cross_entropy, prior=prior, mix=mix, **options)
    return ms.calibration(ms.predict(found, test[0], generator=ms.seeded(seed)), test[1])


def learning(name: str, seed: int) -> dict:
    """(share, recipe) to what came out."""
    big, small, n_test, n_teach = SETS[name]
    x, y = examples(name)
    order = torch.randperm(len(x), generator=ms.seeded(seed))
    test, teach, pool = order.split([n_test, n_teach, len(x) - n_test - n_teach])
    teacher, post = taught(x[teach], y[teach], big, seed)
    fresh = mlp(x.shape[1], small, int(y.max()) + 1, generator=ms.seeded(1000 + seed)).double()
    prior = priors(post, small, seed)
    held = x[test], y[test]
    found = {(1.0, "the teacher"): ms.calibration(teacher(held[0]).softmax(1).detach(), held[1])}
    for share in SHARES:
        part = pool[: max(2, round(share * len(pool)))]
        for recipe, (start, p, mix) in recipes(fresh, prior).items():
            found[share, recipe] = student(teacher, start, p, mix, (x[part], y[part]), held, seed)
    again = [("its own examples", teach, rho) for rho in (1.0, 0.5, 0.1)] + [("new examples", pool, 1.0)]
    for what, part, rho in again:
        own = prior[""] if rho == 1 else temper(prior[""], rho)
        found["twice", f"{what}, rho {rho:g}"] = student(teacher, None, own, 0.0, (x[part], y[part]), held, seed)
    return found


def spread(away: torch.Tensor) -> str:
    """A mean over seeds with its 95 % interval."""
    half = float(stdtrit(len(away) - 1, 0.975)) * float(away.std()) / len(away) ** 0.5
    return f"{away.mean():+.3f} [{away.mean() - half:+.3f}, {away.mean() + half:+.3f}]"


def table(runs: list[dict], share, against: str, keys=("nll", "accuracy", "ece")) -> TextTable:
    """Means over seeds, and the paired difference in negative log-likelihood to one recipe."""
    rows = []
    for recipe in dict.fromkeys(r for s, r in runs[0] if s == share):
        value = {k: torch.tensor([run[share, recipe][k] for run in runs]) for k in keys}
        away = value["nll"] - torch.tensor([run[share, against]["nll"] for run in runs])
        rows.append([recipe, *(f"{v.mean():.3f}" for v in value.values()), "" if recipe == against else spread(away)])
    return TextTable(["student", *keys, f"nll less that of {against!r}"], rows)


def dense(seeds: int) -> None:
    for name in SETS:
        start = time.process_time()
        runs = [learning(name, seed) for seed in range(seeds)]
        print(f"\n## {name}, {seeds} seeds, {time.process_time() - start:.0f} s of CPU")
        for share in SHARES:
            print(f"\n{share:.0%} of the student's examples")
            print(table(runs, share, "no teacher"))
        print("\nall examples, the posterior as prior: those that the teacher has seen, again, or new ones")
        print(table(runs, "twice", "its own examples, rho 1"))


TRIALS, T = 300, 128  # of a subject; samples of a trial
LAYERS = ("temporal", "spatial", "separable", "pointwise", "dense")
HTNET = {"depth": 2, "temporal": 32, "separable": 8, "dropout": 0.0, "max_norm": None}
PRECISION = 5.0
BAYES = {"family": "diagonal", "layers": LAYERS, "train_rest": False, "draws": 2, "optimizer": ADAM}


def people(n: int, seed: int, **options):
    """Subjects, and their trials with the projection to common regions: (B, 1, 12, T + 12), labels."""
    options = {"rise": 2.0, "fall": 0.9, "noise": 0.3, "n_electrodes": 12} | options
    made = ms.datasets.simulated_ecog(n, n_trials=TRIALS, n_samples=T, generator=ms.seeded(seed), **options)
    packed = []
    for person in made:
        x = person.trials.inputs / person.trials.inputs.std((0, 3), keepdim=True)
        packed.append((with_projection(x, projection_of(person)), person.trials.targets))
    return made, packed


def projection_of(person):
    return regions(person.positions, person.centres, width=0.5, empty="zero")


def trained(data, seed: int):
    """An HTNet of several subjects, and its posterior by variational inference."""
    start = HTNet(12, T, 2, n_filters=4, n_pointwise=6, generator=ms.seeded(seed), **HTNET).double()
    options = {"batch_size": 16, "optimizer": partial(torch.optim.Adam, lr=5e-3), "generator": ms.seeded(seed)}
    teacher = ms.fit(start, data, F.cross_entropy, epochs=10, **options).eval_mode(data[0])
    teacher = ms.fit(teacher, data, F.cross_entropy, epochs=5, **options).eval()  # the statistics at rest
    options = BAYES | {"epochs": 20, "batch_size": 50, "prior_precision": PRECISION, "generator": ms.seeded(seed)}
    return teacher, ms.variational(teacher, data, F.cross_entropy, **options)


def smaller(post, filters: int, pointwise: int):
    """The posterior in the shape of a student with the most relevant filters, the later ones chosen first."""
    post = drop_neurons(post, "pointwise", "dense", pointwise, through="norm3")
    return drop_neurons(post, "temporal", "pointwise", filters, through=["norm1", "spatial", "norm2", "separable"])


def rival(data, held) -> dict:
    """Logistic regression of what an expert would look at: the logarithm of beta and high gamma in each region."""
    from sklearn.linear_model import LogisticRegression

    def features(x):
        power, f = torch.fft.rfft(x[:, 0, :, :T]).abs().square(), torch.fft.rfftfreq(T, 1 / 200)
        bands = [
            power[..., (f >= low) & (f <= high)].mean(-1).clamp(min=1e-9).log() for low, high in ((15, 25), (65, 95))
        ]
        return torch.cat([(x[:, 0, :, T:].mT @ b[..., None])[..., 0] for b in bands], 1)

    model = LogisticRegression(C=1.0, max_iter=1000).fit(features(data[0]), data[1])
    return ms.calibration(torch.from_numpy(model.predict_proba(features(held[0]))), held[1])


def rank(found, person) -> dict:
    """Whether what is most relevant is where the signal is: regions by Wald, electrodes by the size of their weights."""
    at = found.named(torch.arange(len(found.mean)))["spatial.weight"].flatten(1).T  # (regions, filters)
    neurons = ms.NeuronDistribution(found.mean[at], torch.stack([found.cov(row) for row in at]))
    first = ms.relevance(neurons).argsort(descending=True)
    net = found.model()
    out = net.pointwise.weight.detach().flatten(1).square().sum(0)  # how much each filter in space is listened to
    weights = (net.electrode_weights(projection_of(person)).square() * out[:, None]).sum(0)
    order, k = weights.argsort(descending=True), int(person.informative.sum())
    return {
        "regions": float(person.active[first[:2]].all()),
        "region": float(person.active[first[0]]),
        "electrodes": float(person.informative[order[:k]].double().mean()),
        "electrode": float(person.informative[order[0]]),
    }


def heard(seed: int) -> dict:
    """(trials, recipe) to what came out for a subject of the teacher's (within) and for a new one (across)."""
    made, packed = people(4, seed)
    teacher, post = trained(tuple(torch.cat([p[i][:100] for p in packed[:3]]) for i in (0, 1)), seed)
    prior, found = smaller(post, 2, 3), {}
    for where, who in (("within", 0), ("across", 3)):
        x, y = packed[who]
        held = x[200:], y[200:]
        for n in (10, 40):
            data = x[100 : 100 + n], y[100 : 100 + n]
            start = HTNet(12, T, 2, n_filters=2, n_pointwise=3, generator=ms.seeded(1000 + seed), **HTNET).double()
            quick = {"batch_size": 10, "optimizer": partial(torch.optim.Adam, lr=3e-3), "generator": ms.seeded(seed)}
            plain = ms.fit(start.eval_mode(data[0]).train(), data, F.cross_entropy, epochs=100, **quick).eval_mode(data[0])
            for name, net in (("the teacher", teacher), ("no teacher, not Bayesian", plain)):
                found[f"{where}, {n} trials", name] = ms.calibration(net(held[0]).softmax(1).detach(), held[1])
            found[f"{where}, {n} trials", "band power, logistic"] = rival(data, held)
            for name, (begin, p, mix) in {
                "no teacher": (plain, None, 0.0),
                "answers": (plain, None, 0.5),
                "mean as prior": (None, mean_only(prior, prior_precision=PRECISION), 0.0),
                "posterior as prior": (None, prior, 0.0),
                "posterior and answers": (None, prior, 0.5),
            }.items():
                more = {"prior_precision": PRECISION} if p is None else {}
                options = BAYES | {"epochs": 80, "batch_size": None, "generator": ms.seeded(seed)} | more
                q = distill(teacher, begin, data, F.cross_entropy, prior=p, mix=mix, **options)
                scores = ms.calibration(ms.predict(q, held[0], size=30, generator=ms.seeded(seed)), held[1])
                found[f"{where}, {n} trials", name] = scores | rank(q, made[who])
    return found


def ecog(seeds: int) -> None:
    start = time.process_time()
    runs = [heard(seed) for seed in range(seeds)]
    print(f"\n## HTNet on simulated ECoG, {seeds} seeds, {time.process_time() - start:.0f} s of CPU")
    for share in dict.fromkeys(s for s, _ in runs[0]):
        print(f"\n{share}")
        print(table(runs, share, "no teacher"))


def electrodes(seeds: int) -> None:
    """Five new subjects for each teacher, forty trials of each."""
    found = []
    for seed in range(seeds):
        made, packed = people(8, 100 + seed, n_electrodes=(12, 16))
        packed = [(torch.nn.functional.pad(x, (0, 0, 0, 16 - x.shape[2])), y) for x, y in packed]
        teacher, post = trained(tuple(torch.cat([p[i][:100] for p in packed[:3]]) for i in (0, 1)), seed)
        prior = smaller(post, 2, 3)
        for person, (x, y) in zip(made[3:], packed[3:]):
            options = BAYES | {"epochs": 80, "batch_size": None, "generator": ms.seeded(seed)}
            q = distill(teacher, None, (x[:40], y[:40]), F.cross_entropy, prior=prior, mix=0.5, **options)
            found.append(
                rank(q, person) | ms.calibration(ms.predict(q, x[200:], size=30, generator=ms.seeded(0)), y[200:])
            )
    print(f"\n## relevance, {len(found)} new subjects")
    for key in found[0]:
        value = torch.tensor([f[key] for f in found])
        print(f"{key:12} {value.mean():.3f}, {int((value == 1).sum())} of {len(value)} subjects at one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["dense", "ecog", "electrodes"])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    globals()[args.part](args.seeds)


if __name__ == "__main__":
    main()
