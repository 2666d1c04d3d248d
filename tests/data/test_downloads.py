"""Files behind web addresses, from a server in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from falconet.data import downloads
from falconet.data.downloads import fetch_url
from falconet.errors import DataError

CONTENT = b"text\nplum and pear\n"


class Handler(BaseHTTPRequestHandler):
    """SplitLogits as each path says."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        elif path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.csv")
            self.end_headers()
        elif path in {"/a.csv", "/bare", "/%2e%2e%2fx.csv", "/a%2Fb.csv", "/short.csv", "/endless.csv"}:
            self.send_response(200)
            if path == "/bare":
                self.send_header("Content-Type", "text/csv; charset=utf-8")
            if path != "/endless.csv":
                self.send_header("Content-Length", str(len(CONTENT) + (path == "/short.csv")))
            self.end_headers()
            self.wfile.write(CONTENT * (10_000 if path == "/endless.csv" else 1))
        else:
            self.send_error(404)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class calls it so
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask this process itself, whatever leads out of the machine."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a.csv", "a.csv"),
        ("/a.csv?key=value/x.png", "a.csv"),
        ("/moved", "a.csv"),
        ("/bare", "bare.csv"),
        ("/%2e%2e%2fx.csv", "x.csv"),
        ("/a%2Fb.csv", "b.csv"),
    ],
)
def test_files_keep_their_names_and_stay_in_the_folder(server: str, path: str, name: str, tmp_path: Path) -> None:
    found = fetch_url(f"{server}{path}", tmp_path)
    assert found == tmp_path / name
    assert found.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.csv", "the server answers 404 Not Found"),
        ("/away", "302"),
        ("/short.csv", "wanted 20 bytes, found 19: the connection broke off|IncompleteRead"),
        ("/endless.csv", "wanted at most 1,000 bytes, found"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(server: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fetch_url(f"{server}{path}", tmp_path, largest=1000)
    assert str(caught.value).startswith(f"{server}{path}: ")
    assert "\n" not in str(caught.value)


def test_a_declared_length_is_believed_where_it_is_too_much(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wanted at most 10 bytes, found 19"):
        fetch_url(f"{server}/a.csv", tmp_path, largest=10)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.csv"
        with pytest.raises(DataError, match="cannot be fetched: timed out"):
            fetch_url(url, tmp_path, patience=0.2)


def test_a_server_that_takes_for_ever(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_LONGEST", -1.0)
    with pytest.raises(DataError, match=r"a\.csv: wanted all of it in -1 seconds"):
        fetch_url(f"{server}/a.csv", tmp_path)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.csv", "http://", "http://a b/c", "http://[::1/x", "https://127.0.0.1:9/"]
)
def test_no_server(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fetch_url(url, tmp_path)
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)
