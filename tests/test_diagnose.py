"""What is said of results: that good ones hold, what fails of bad ones, and which to believe where they disagree."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mspace as ms

X = ms.normal(200, 3, seed=1)
Y = (torch.rand(200, 1, generator=ms.seeded(3), dtype=torch.float64) < torch.sigmoid(X[:, :1] + 0.5)).double()
LOSS = F.binary_cross_entropy_with_logits


@pytest.fixture(scope="module")
def net():
    return ms.refine(nn.Sequential(nn.Linear(3, 1)).double(), (X, Y), LOSS)


def quiet(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return call()


def failing(diagnosis):
    return [f.what for part in diagnosis.findings for f in part if not f.holds]


def test_good_results_hold_and_agree(net):
    results = (
        ms.bootstrap(net, (X, Y), LOSS, generator=ms.seeded(0)),
        ms.sandwich(net, (X, Y), LOSS),
        ms.laplace(net, (X, Y), LOSS, prior_precision=0.01),
        ms.online(net, (X, Y), LOSS, generator=ms.seeded(0)),
    )
    diagnosis = ms.diagnose(*results)
    assert diagnosis.holds, repr(diagnosis)
    assert diagnosis.titles == ("ensemble", "sandwich", "laplace", "online") and len(diagnosis.together) == 6
    assert ms.diagnose(results[0].neurons("0", bias=True)).holds


def test_away_from_a_minimum(net):
    away = nn.Sequential(nn.Linear(3, 1)).double()
    with torch.no_grad():
        for p in away.parameters():
            p.fill_(2.0)
    with pytest.warns(RuntimeWarning, match="not at a minimum.*refine"):
        sandwich = ms.sandwich(away, (X, Y), LOSS)
    with pytest.warns(RuntimeWarning, match="not at a minimum.*refine"):
        laplace = ms.laplace(away, (X, Y), LOSS)
    assert "Newton step" in failing(ms.diagnose(sandwich))[0] and "Newton step" in failing(ms.diagnose(laplace))[0]


def test_fewer_examples_than_parameters():
    wide = nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    with pytest.warns(RuntimeWarning, match="parameters and 50 examples"):
        posterior = ms.sandwich(wide, (X[:50], Y[:50]), LOSS)
    assert any("50 examples" in what for what in failing(ms.diagnose(posterior)))


def test_members_that_were_stopped_and_those_that_are_few(net):
    stopped = ms.bootstrap(net, (X, Y), LOSS, n_models=40, epochs=1, generator=ms.seeded(0))
    assert failing(ms.diagnose(stopped)) == ["members were trained for a number of epochs that was given"]
    few = quiet(lambda: ms.bootstrap(net, (X, Y), LOSS, n_models=4, generator=ms.seeded(0)))
    assert any(what.startswith("4 members") for what in failing(ms.diagnose(few)))
    assert not ms.diagnose(few.neurons("0", bias=True)).holds


def test_which_to_believe(net):
    """Stopped members have a variance that is far too small, and the one that holds is named."""
    stopped = ms.bootstrap(net, (X, Y), LOSS, n_models=40, epochs=1, generator=ms.seeded(0))
    diagnosis = ms.diagnose(stopped, ms.sandwich(net, (X, Y), LOSS))
    (finding,) = diagnosis.together
    assert not finding.holds and "Believe sandwich" in finding.advice and "FAILS" in repr(diagnosis)


def test_a_variational_fit_that_has_not_converged(net):
    options = {"optimizer": partial(torch.optim.Adam, lr=1e-3), "batch_size": None, "generator": ms.seeded(0)}
    start = nn.Sequential(nn.Linear(3, 1)).double()
    assert any(
        "objective fell" in what
        for what in failing(ms.diagnose(ms.variational(start, (X, Y), LOSS, epochs=60, **options)))
    )
    assert ms.diagnose(ms.variational(net, (X, Y), LOSS, generator=ms.seeded(0))).holds


@pytest.mark.parametrize("results", [(), ("sandwich",), (nn.Linear(3, 1),)])
def test_other_things_are_refused(results):
    with pytest.raises(ValueError, match="results must be"):
        ms.diagnose(*results)
