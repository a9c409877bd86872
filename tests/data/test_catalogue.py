"""The catalogue: what is known, where it is, and downloads that can only succeed whole."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kontrast.data import catalogue
from kontrast.data.catalogue import Entry, RemoteFile
from kontrast.errors import DataError

CONTENT = b"real bytes" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KONTRAST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.bin").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            if self.path == "/short.bin":
                self.send_response(200)
                self.send_header("Content-Length", str(len(CONTENT)))
                self.end_headers()
                self.wfile.write(CONTENT[:100])
            else:
                super().do_GET()

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def known(monkeypatch: pytest.MonkeyPatch, *files: RemoteFile) -> None:
    entry = Entry(name="toy", title="t", about="a", source="download", files=files, licence="l", citation="c")
    monkeypatch.setattr(catalogue, "_catalogue", lambda: {"toy": entry})


def test_every_entry_is_complete() -> None:
    entries = catalogue.entries()
    assert len(entries) >= 40
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    for entry in entries:
        assert entry.title
        assert entry.licence
        assert entry.citation
        assert entry.systems
        assert bool(entry.files) == (entry.source == "download")
        assert entry.homepage is None or entry.homepage.startswith("https://")


def test_names_are_suggested() -> None:
    with pytest.raises(DataError, match=r"unknown data set 'sib20'; did you mean 'sib200'\?"):
        catalogue.path("sib20")


def test_a_local_folder_comes_before_the_cache(tmp_path: Path) -> None:
    assert not catalogue.is_here("sib200")
    with pytest.raises(DataError, match=r"'sib200' is not on this machine; put the folder 'sib200'.*KONTRAST_DATA"):
        catalogue.path("sib200")
    (tmp_path / "cache" / "data" / "sib200").mkdir(parents=True)
    assert catalogue.path("sib200") == tmp_path / "cache" / "data" / "sib200"
    (tmp_path / "data" / "sib200").mkdir(parents=True)
    assert catalogue.path("sib200") == tmp_path / "data" / "sib200"
    assert catalogue.is_here("sib200")


def test_what_can_be_fetched_says_so() -> None:
    with pytest.raises(DataError, match="run: kontrast data fetch pydocs"):
        catalogue.path("pydocs")
    with pytest.raises(DataError, match=r"'sib200' cannot be downloaded; put the folder"):
        catalogue.fetch("sib200")


def test_download_over_http(monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path) -> None:
    known(monkeypatch, RemoteFile(name="a.bin", url=f"{server}/file.bin", sha256=SHA))
    folder = catalogue.fetch("toy")
    assert folder == tmp_path / "cache" / "data" / "toy"
    assert (folder / "a.bin").read_bytes() == CONTENT
    (folder / "a.bin").write_bytes(b"mine")
    assert (catalogue.fetch("toy") / "a.bin").read_bytes() == b"mine"


def test_download_from_a_file_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    known(monkeypatch, RemoteFile(name="a.bin", url=source.as_uri(), sha256=SHA))
    assert (catalogue.fetch("toy") / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "sha", "expected"),
    [
        ("/file.bin", "0" * 64, rf"sha256 {SHA}, not 0+; fetch it again"),
        ("/none.bin", SHA, r"answers 404"),
        ("/short.bin", SHA, r"stopped after 100 of 10000 bytes|cannot be reached"),
    ],
)
def test_a_failed_download_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path, path: str, sha: str, expected: str
) -> None:
    good = RemoteFile(name="good.bin", url=f"{server}/file.bin", sha256=SHA)
    known(monkeypatch, good, RemoteFile(name="a.bin", url=f"{server}{path}", sha256=sha))
    with pytest.raises(DataError, match=expected):
        catalogue.fetch("toy")
    assert not catalogue.is_here("toy")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, RemoteFile(name="a.bin", url="http://127.0.0.1:9/a.bin", sha256=SHA))
    with pytest.raises(DataError, match=r"cannot be reached .*put the file 'a\.bin' under \$KONTRAST_DATA yourself"):
        catalogue.fetch("toy")


def test_pydocs_is_built_into_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontrast.data.pydocs.PACKAGES", ("kontrast",))
    folder = catalogue.fetch("pydocs")
    assert [file.name for file in folder.iterdir()] == ["pydocs.parquet"]
    assert catalogue.path("pydocs") == folder
