"""Files behind http addresses, from a server of this machine."""

import functools
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import trustme

from ingest.errors import VideoError
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.store.records import RecordSettings
from ingest.video.open import open_source
from ingest.video.pyav_reader import PyAVReader
from ingest.video.remote import look_at, place_of
from ingest.video.sources import expand

SETTINGS = RecordSettings(size=32)


class Whole(SimpleHTTPRequestHandler):
    """Gives whole files only."""

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


class Parts(Whole):
    """Gives parts of files as well."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        start, stop = int(wanted[1]), min(len(data), int(wanted[2] or len(data)) + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])
        return None


@pytest.fixture(params=[Parts, Whole])
def address(
    request: pytest.FixtureRequest, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Where a server gives the folder of `clip`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(request.param, directory=str(clip.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_over_https_only_a_server_whose_certificate_is_trusted_is_read(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    handler = functools.partial(Parts, directory=str(clip.parent))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # the peer that does not trust it hangs up
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/clip.mp4"
        refused = ingest_sources([url], tmp_path / "store", SETTINGS)[0]
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        trusted = ingest_sources([url], tmp_path / "store", SETTINGS)[0]
        server.shutdown()
    assert "its certificate is not trusted" in str(refused.error)
    assert "SSL_CERT_FILE=FILE setcon ingest" in str(refused.error)
    assert trusted.recorded is not None, trusted.error
    assert trusted.recorded.status == "recorded"


def test_a_file_behind_an_address_is_that_file(address, clip, tmp_path, caplog):
    url = f"{address}/clip.mp4"
    ingest_sources([str(clip)], tmp_path / "here", SETTINGS)
    first, again = (
        ingest_sources([f"{url}?token=secret"], tmp_path / "there", SETTINGS)[0] for _ in range(2)
    )
    assert first.recorded is not None, first.error
    assert (first.name, first.recorded.status) == ("clip", "recorded")
    assert again.recorded is not None, again.error
    assert again.recorded.status == "already complete"
    here, there = (open_store(tmp_path / name).reader("clip") for name in ("here", "there"))
    with here, there:
        assert there.commit.source.path == url
        assert there.commit.source.size_bytes == here.commit.source.size_bytes
        assert np.array_equal(here.read(0, 60).images, there.read(0, 60).images)
    assert "secret" not in (tmp_path / "there/recordings/clip/commit.json").read_text()


def test_a_pass_from_the_middle_gives_the_same_frames(address, clip):
    (spec,) = expand(f"{address}/clip.mp4")
    with open_source(spec, SETTINGS) as reader:
        whole = list(reader.frames())
        part = list(reader.frames(from_pts_ns=whole[40].pts_ns))
    assert [frame.pts_ns for frame in part] == [frame.pts_ns for frame in whole[40:]]
    for one, other in zip(part, whole[40:], strict=True):
        assert np.array_equal(one.image, other.image)


def test_what_a_server_does_not_have_is_told_in_a_line(address, tmp_path):
    (outcome,) = ingest_sources([f"{address}/none.mp4"], tmp_path / "store", SETTINGS)
    assert re.fullmatch(r"http://\S+/none\.mp4: cannot be read \(.*404.*\); .*", str(outcome.error))


def test_a_file_that_changed_has_another_digest(tmp_path, clip, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "a").write_bytes(b"a" * 3_000_000)
    handler = functools.partial(Parts, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        before = look_at(f"http://127.0.0.1:{server.server_port}/a")
        (tmp_path / "a").write_bytes(b"a" * 2_999_999 + b"b")
        after = look_at(f"http://127.0.0.1:{server.server_port}/a")
        server.shutdown()
    assert before.size_bytes == after.size_bytes == 3_000_000
    assert before.digest != after.digest


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "rtsp://user:secret@camera/1",
            r"rtsp://user:\*\*\*@camera/1: a live source; record it with",
        ),
        ("ftp://host/a.mp4", "ftp is not read; name a file or an address that begins with"),
    ],
)
def test_other_addresses_say_what_they_are(source, message):
    with pytest.raises(VideoError, match=message):
        expand(source)


def test_a_file_is_at_its_place_whoever_asks_and_how():
    assert place_of("https://me:pass@host:1/a/b.mp4?key=1#x") == "https://host:1/a/b.mp4"


class Failing(Whole):
    """Gives the first half of a file, however often it is asked for the rest."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        data = Path(self.translate_path(self.path)).read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(found[1]) if found else 0
        if begin >= len(data) // 2:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : len(data) // 2])
        self.close_connection = True


def test_a_server_that_fails_from_a_place_on_gives_what_is_before_it_and_an_error(
    media, tmp_path, monkeypatch
):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = media.video(tmp_path / "clip.mkv", 60, gop=10, options={"qp": "10"})
    with PyAVReader(str(path), size=32) as reader:
        whole = [frame.image for frame in reader.frames()]
    handler = functools.partial(Failing, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with PyAVReader(f"http://127.0.0.1:{server.server_port}/clip.mkv", size=32) as reader:
            frames = []
            with pytest.raises(VideoError, match=r"clip\.mkv: cannot be read on after .* packets"):
                frames.extend(reader.frames())
        server.shutdown()
    assert 20 < len(frames) < 50
    assert [frame.gap for frame in frames] == [True] + [False] * (len(frames) - 1)
    for frame, expected in zip(frames, whole, strict=False):
        assert np.array_equal(frame.image, expected)
    assert Failing.asked < 30


class Guarded(Parts):
    """Gives nothing to those who do not say who they are."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == "Basic bWU6cEB3":  # me:p@w
            return super().do_GET()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="clips"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


@pytest.mark.parametrize("address", [Guarded], indirect=True)
def test_user_and_password_of_an_address_are_sent_and_not_kept(
    address: str, clip: Path, tmp_path: Path
) -> None:
    location = address.replace("//", "//me:p%40w@") + f"/{clip.name}"
    (outcome,) = ingest_sources([location], tmp_path / "store", SETTINGS)
    assert outcome.error is None
    store = open_store(tmp_path / "store")
    (name,) = store.recordings()
    assert store.commit(name).complete
    assert "p%40w" not in store.commit(name).source.path
