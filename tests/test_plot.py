"""Pictures: what is drawn is what was given; flipbooks work without a kernel and tell their alternative text."""

import base64
import json
import re

import matplotlib as mpl
import numpy as np
import pytest
import torch

import mspace as ms
from kit import plot
from kit.flipbook import Flipbook

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


def test_one_component_is_one_row_and_given_axes_keep_their_scales():
    import matplotlib.pyplot as plt

    assert len(plot.components(torch.ones(10))) == 1
    axes = plt.subplots(2)[1]
    plot.components(torch.stack([torch.arange(10.0), torch.ones(10)]), axes=axes)
    assert axes[0].get_ylim() != axes[1].get_ylim()


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


def test_a_history_may_be_shorter_than_what_is_asked_for():
    for past in (None, 20):
        ax = plot.forecasts(torch.arange(3.0), torch.ones(5), {"a": torch.ones(5)}, past=past)
        assert list(ax.get_lines()[0].get_xdata()) == [-2, -1, 0]
    assert not len(plot.forecasts(torch.arange(3.0), torch.ones(5), {}, past=0).get_lines()[0].get_xdata())


def test_skills_are_drawn_by_lead_time():
    x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    skill = ms.rolling_origin(ms.persistence, x, 5, start=20)
    ax = plot.skills({"last": skill}, "mse", rate=10.0, shade={"last": skill.interval("mse")})
    line = ax.get_lines()[0]
    assert np.allclose(line.get_ydata(), skill("mse")) and np.isclose(line.get_xdata()[-1], 0.5)
    assert len(ax.collections) == 1 and ax.get_ylabel() == "MSE"


def test_every_forecaster_is_drawn_however_many_they_are():
    x = torch.randn(60, generator=torch.Generator().manual_seed(0)).cumsum(0)
    skill = ms.rolling_origin(ms.persistence, x, 5, start=20)
    many = {f"rival {i}": skill for i in range(9)}
    assert len(plot.skills(many).get_legend().get_texts()) == 9
    answers = dict.fromkeys(many, x[-5:])
    assert len(plot.forecasts(x, x[-5:], answers).get_legend().get_texts()) == 10


def test_a_legend_stays_on_the_canvas_and_off_the_curves():
    x = torch.randn(60, generator=torch.Generator().manual_seed(0)).cumsum(0)
    skill = ms.rolling_origin(ms.persistence, x, 5, start=20)
    ax = plot.skills({f"stride of trial {i}": skill for i in range(5)})
    ax.figure.canvas.draw()
    legend, canvas = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert canvas.x0 <= legend.x0 and legend.x1 <= canvas.x1 and legend.y1 <= canvas.y1
    assert legend.y0 >= ax.get_window_extent().y1


def test_errors_are_read_against_zero_and_gains_may_lie_below():
    x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    skill = ms.rolling_origin(ms.persistence, x, 5, start=20)
    assert plot.skills({"last": skill}, "mae").get_ylim()[0] == 0
    assert skill("r2").max() < 0 and plot.skills({"last": skill}, "r2").get_ylim()[0] < float(skill("r2").min())


def gaussians(n, m=2):
    g = torch.Generator().manual_seed(n)
    factor = torch.randn(m, n, n, generator=g, dtype=torch.float64)
    return ms.NeuronDistribution(torch.randn(m, n, generator=g, dtype=torch.float64), factor @ factor.mT)


def mahalanobis(neurons, i, shell):
    off = torch.as_tensor(np.stack(shell).reshape(neurons.dim, -1)) - neurons.mean[i][:, None]
    return (off * torch.linalg.solve(neurons.cov[i], off)).sum(0).sqrt()


def test_mixture_is_the_mean_of_the_densities():
    from scipy.stats import multivariate_normal

    p, points = gaussians(3), torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1))
    by_hand = sum(multivariate_normal(m, c).pdf(points) for m, c in zip(p.mean, p.cov, strict=True)) / 2
    assert np.allclose(plot.mixture(p, points), by_hand, rtol=1e-10)
    flat = ms.NeuronDistribution(torch.zeros(2, 2), torch.stack([torch.eye(2), torch.ones(2, 2)]))
    with pytest.raises(ValueError, match="full rank, that of neuron 1 is flat"):
        plot.mixture(flat, torch.zeros(2))


def test_density_draws_the_volume_of_one():
    import matplotlib.pyplot as plt

    p = gaussians(2, m=3)
    drawn = plot.density(p).collections[0].get_array()
    assert drawn.min() >= 0 and drawn.max() < 1.2 * plot.mixture(p, p.mean).max()
    seen = {}
    ax = plt.figure().add_subplot(projection="3d")
    ax.plot_surface = lambda x, y, z, **_: seen.update(x=x, y=y, z=z)
    assert plot.density(p, ax=ax) is ax
    cell = (seen["x"][1, 0] - seen["x"][0, 0]) * (seen["y"][0, 1] - seen["y"][0, 0])
    assert abs(seen["z"].sum() * cell - 1) < 2e-3
    with pytest.raises(ValueError, match="plane, got dimension 3"):
        plot.density(gaussians(3))


@pytest.mark.parametrize(("level", "radius"), [(0.95, 2.4477), (0.5, 1.1774)])
def test_ellipses_have_the_radius_of_the_level(level, radius):
    p = gaussians(2)
    lines = plot.ellipsoid(p, level).get_lines()
    assert len(lines) == 2
    for i, line in enumerate(lines):
        assert np.allclose(mahalanobis(p, i, line.get_data()), radius, atol=1e-4)


def test_ellipsoids_in_space():
    p, seen = gaussians(3), []
    ax = plot.ellipsoid(p)
    assert hasattr(ax, "plot_surface") and len(ax.collections) == 2
    ax.plot_surface = lambda *shell, **_: seen.append(shell)
    assert plot.ellipsoid(p, ax=ax) is ax
    assert all(np.allclose(mahalanobis(p, i, shell), 2.7955, atol=1e-4) for i, shell in enumerate(seen))
    plot.ellipsoid(p, semi_axes=torch.ones(2, 3), ax=ax)
    fine, coarse = (plot.ellipsoid(p, **kw).collections[0].get_facecolor() for kw in ({}, {"detail": 12}))
    assert 0 < len(coarse) < len(fine) / 4
    radius = (torch.as_tensor(np.stack(seen[2])) - p.mean[0][:, None, None]).norm(dim=0)
    assert np.allclose(radius, 1), "other axes are drawn where they are given"
    with pytest.raises(ValueError, match="plane or in space, got dimension 4"):
        plot.ellipsoid(gaussians(4))


def parts(book):
    """The markup that is there without its script, and the data of the script."""
    html, script = book._repr_html_().split("<script>")
    assert script.endswith(");</script></div>"), "nothing ends the script before its end"
    return html, json.loads(script[script.rindex('{"name"') :].removesuffix(");</script></div>"))


def test_flipbook_shows_one_frame_and_describes_all():
    book = Flipbook(frame, [1, 2.5, 4], label="k = {}", alt="a sine of frequency {}", start=1, dpi=40)
    html, data = parts(book)
    assert re.findall(r'<img alt="([^"]*)"', html) == ["a sine of frequency 2.5"]
    assert "<span>frame 2 of 3:</span> <output>k = 2.5</output>" in html
    assert "<input" not in html and "hidden" not in html, "without its script it is a plain picture"
    assert data["name"].startswith("flipbook-") and data["start"] == 1
    assert [f[:2] for f in data["frames"]] == [[f"k = {k}", f"a sine of frequency {k}"] for k in ("1", "2.5", "4")]
    assert [len(f) for f in data["frames"]] == [3, 2, 3], "the picture shown is not stored twice"
    assert all(f[2].startswith("data:image/png;base64,") for f in data["frames"] if len(f) == 3)
    assert "http" not in book._repr_html_()
    assert repr(book) == "Flipbook(3 frames, k = 1 to k = 4)"


def test_flipbook_pictures_are_compared_each_once():
    import compare

    book = Flipbook(frame, [1, 2, 3], label="{}", alt="{}", start=1, dpi=40)
    shown = [{"output_type": "display_data", "data": {"text/html": book._repr_html_()}}]
    own = [base64.b64encode(f).decode() for f in book.frames]
    assert compare.pictures(shown) == [own[1], own[0], own[2]]


def test_flipbook_is_the_same_twice_and_closes_its_figures():
    import matplotlib.pyplot as plt

    first, second = (Flipbook(frame, [1], label="{}", alt="{}", dpi=40)._repr_html_() for _ in range(2))
    assert first == second and not plt.get_fignums()


def test_flipbook_frames_have_the_resolution_asked_for():
    import matplotlib.pyplot as plt

    def width(dpi):
        picture = Flipbook(lambda _: plt.subplots(figsize=(3.0, 2.0))[1], [1], label="{}", alt="{}", dpi=dpi).frames[0]
        return int.from_bytes(picture[16:20], "big")  # of the PNG's header

    assert (width(40), width(None)) == (120, 375), "by default the figure's own"


def test_flipbook_escapes_what_it_is_given():
    html, data = parts(Flipbook(frame, [1], label="a < {}</script>", alt='"quoted" {}', dpi=40))
    assert "a &lt; 1&lt;/script&gt;" in html and "&quot;quoted&quot; 1" in html
    assert data["frames"] == [["a < 1</script>", '"quoted" 1']]


def test_flipbook_leaves_the_braces_of_formulas_alone():
    book = Flipbook(frame, [1], label=r"$x_{max} = {}$", alt=r"$\frac{a}{b}$, {}", dpi=40)
    assert "$x_{max} = 1$</output>" in book._repr_html_() and r'alt="$\frac{a}{b}$, 1"' in book._repr_html_()
    assert repr(book) == "Flipbook(1 frames, $x_{max} = 1$ to $x_{max} = 1$)"


def test_flipbook_names_a_draw_that_returns_nothing():
    drawn = []
    with pytest.raises(ValueError, match="draw must return a figure or an axes of it, got NoneType"):
        Flipbook(drawn.append, [1, 2, 3], label="{}", alt="{}")
    assert drawn == [1], "at the first frame, not after the last"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alt": " "}, "alt must"),
        ({"alt": "no value"}, "alt must"),
        ({"label": "no value"}, "label must"),
        ({"start": 3}, "start"),
        ({"values": []}, "start"),
    ],
)
def test_bad_flipbooks_are_refused(change, said):
    options = {"values": [1, 2], "label": "{}", "alt": "{}", "start": 0} | change
    with pytest.raises(ValueError, match=said):
        Flipbook(frame, options.pop("values"), **options)
