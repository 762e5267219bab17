"""Pictures: what is drawn is what was given; flipbooks work without a kernel and tell their alternative text."""

import re

import matplotlib as mpl
import numpy as np
import pytest
import torch

import mspace as ms
from mspace import plot
from mspace.flipbook import Flipbook

mpl.use("agg")


@pytest.fixture(autouse=True)
def _fresh():
    import matplotlib.pyplot as plt

    with mpl.rc_context():
        plot.book_style()
        yield
    plt.close("all")


def frame(value):
    ax = plot.series(torch.sin(value * torch.linspace(0, 6, 50)))
    return ax


def test_series_and_truth_are_drawn_as_given():
    x = torch.linspace(0, 1, 30)
    ax = plot.series(x**2, time=x, truth=x)
    grey, dashed = ax.get_lines()
    assert np.allclose(grey.get_ydata(), x**2) and np.allclose(dashed.get_ydata(), x)
    assert [t.get_text() for t in ax.legend().get_texts()] == ["measured", "truth"]


def test_band_holds_the_middle_of_the_draws():
    draws = torch.arange(101.0)[:, None].expand(101, 3)
    ax = plot.band([1, 2, 3], draws, level=0.9)
    assert np.allclose(ax.get_lines()[0].get_ydata(), 50)
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(heights.min(), 5) and np.isclose(heights.max(), 95)


def test_components_share_one_scale():
    axes = plot.components(torch.stack([torch.ones(10), 0.1 * torch.ones(10)]), rate=50.0)
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert np.isclose(axes[0].get_lines()[0].get_xdata()[-1], 9 / 50)


def test_correlation_is_numbered_from_one_and_absolute():
    ax = plot.correlation(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
    assert ax.images[0].get_array()[0, 1] == 0.5 and ax.get_xlim() == (0.5, 2.5)


def test_spectrum_peaks_at_the_frequency():
    t = torch.arange(500) / 50
    line = plot.spectrum(torch.sin(2 * torch.pi * 4 * t), rate=50.0).get_lines()[0]
    assert abs(line.get_xdata()[line.get_ydata().argmax()] - 4) < 0.2


def test_forecasts_start_after_the_history():
    ax = plot.forecasts(torch.zeros(100), torch.ones(5), {"a": torch.ones(5), "b": torch.zeros(5)}, past=20)
    past, actual, *answers = ax.get_lines()[:4]
    assert past.get_xdata()[-1] == 0 and actual.get_xdata()[0] == 1 and len(answers) == 2


def test_skills_are_drawn_by_lead_time():
    x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    skill = ms.rolling_origin(ms.persistence, x, 5, start=20)
    ax = plot.skills({"last": skill}, "mse", rate=10.0, shade={"last": skill.interval("mse")})
    line = ax.get_lines()[0]
    assert np.allclose(line.get_ydata(), skill("mse")) and np.isclose(line.get_xdata()[-1], 0.5)
    assert len(ax.collections) == 1 and ax.get_ylabel() == "MSE"


def test_flipbook_shows_one_frame_and_describes_all():
    book = Flipbook(frame, [1, 2.5], label="k = {}", alt="a sine of frequency {}", start=1, dpi=40)
    html = book._repr_html_()
    frames = re.findall(r"<img [^>]*>", html)
    assert [("hidden" in f.replace("base64", "")[-12:]) for f in frames] == [True, False]
    assert re.findall(r'alt="([^"]*)"', html) == ["a sine of frequency 1", "a sine of frequency 2.5"]
    assert '<output for="flipbook-' in html and ">k = 2.5</output>" in html
    assert "http" not in html
    assert repr(book) == "Flipbook(2 frames, k = 1 to k = 2.5)"


def test_flipbook_is_the_same_twice_and_closes_its_figures():
    import matplotlib.pyplot as plt

    first, second = (Flipbook(frame, [1], label="{}", alt="{}", dpi=40)._repr_html_() for _ in range(2))
    assert first == second and not plt.get_fignums()


def test_flipbook_escapes_what_it_is_given():
    html = Flipbook(frame, [1], label="a < {}", alt='"quoted" {}', dpi=40)._repr_html_()
    assert "a &lt; 1" in html and "&quot;quoted&quot; 1" in html


@pytest.mark.parametrize(
    ("change", "said"),
    [({"alt": " "}, "alt"), ({"alt": "no value"}, "alt"), ({"start": 3}, "start"), ({"values": []}, "start")],
)
def test_bad_flipbooks_are_refused(change, said):
    options = {"values": [1, 2], "label": "{}", "alt": "{}", "start": 0} | change
    with pytest.raises(ValueError, match=said):
        Flipbook(frame, options.pop("values"), **options)
