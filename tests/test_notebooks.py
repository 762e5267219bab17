"""Notebooks of other chapters: beside this one, else where MSPACE_BOOK says, else one sentence with the way out."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kit import notebooks
from kit.notebooks import read_notebook
from kit.tables import TextTable


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def store(folder, cell, name="05_rnn.ipynb"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"cells": [{"source": cell}]}), encoding="utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to run a chapter in; beside it `book`, where others are stored."""
    store(tmp_path / "book", "theirs")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MSPACE_BOOK", str(tmp_path / "book"))
    return tmp_path / "here"


@pytest.fixture
def served(tmp_path):
    """The folder `book` at an address of this machine."""
    store(tmp_path / "book", "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "book")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def first(name="05_rnn.ipynb"):
    return read_notebook(name)["cells"][0]["source"]


def test_a_notebook_beside_the_chapter_comes_before_one_elsewhere(here):
    assert first() == "theirs"
    store(here, "ours")
    assert first() == "ours"


def test_a_notebook_comes_from_an_address_and_is_asked_for_once(here, served, monkeypatch, tmp_path):
    monkeypatch.setenv("MSPACE_BOOK", served + "/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert first() == "served"
    (tmp_path / "book" / "05_rnn.ipynb").unlink()
    assert first() == "served"
    with pytest.raises(ValueError, match=r"answered 404: name the folder or the address .* in MSPACE_BOOK"):
        first("06_vae.ipynb")


def test_by_default_it_comes_from_the_repository(here, monkeypatch):
    asked = []
    monkeypatch.setenv("MSPACE_BOOK", "")
    monkeypatch.setattr(notebooks, "_downloaded", lambda url: asked.append(url) or '{"cells": []}')
    assert read_notebook("05_rnn.ipynb") == {"cells": []}
    assert asked == ["https://raw.githubusercontent.com/mspace-book/mspace/main/book/05_rnn.ipynb"]


@pytest.mark.parametrize("book", ["", "http://127.0.0.1:9"])  # the discard port: nobody listens
def test_what_cannot_be_had_says_the_way_out(here, monkeypatch, book):
    monkeypatch.setenv("MSPACE_BOOK", book or str(here))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ValueError, match=r"05_rnn.*(not there either|gives no answer).* in MSPACE_BOOK$"):
        TextTable.stored("05_rnn.ipynb", ["MASE"])


@pytest.mark.parametrize("text", ["404: Not Found", '{"cells"', "[]", '{"cells": 1}'])
def test_what_is_no_notebook_is_named(here, text):
    (here / "05_rnn.ipynb").write_text(text)
    with pytest.raises(ValueError, match=r"05_rnn\.ipynb holds no notebook"):
        read_notebook("05_rnn.ipynb")
