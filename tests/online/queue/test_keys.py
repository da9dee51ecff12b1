"""Who is let in: key files, CURVE over real sockets, and what those who are kept out are told."""

import resource
import socket
import threading
import time
from dataclasses import replace
from os import mkfifo
from pathlib import Path

import pytest
import zmq
from streaming import clips as clips_of

from ingest.errors import StorageFullError
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.errors import AddressError, KeyFileError, ServerError
from online.queue import sockets
from online.queue.client import Client
from online.queue.keys import (
    ServerKeys,
    TrainerKeys,
    load_allowed,
    load_keys,
    load_public,
    make_keys,
)
from online.queue.server import serve

WANT = ClipRequest(clip=ClipConfig(clip_length=4, frame_stride=2), max_epochs=1)
LOOPBACK = "tcp://127.0.0.1:*"
BOUND = 20.0


@pytest.fixture
def server_keys(tmp_path: Path) -> ServerKeys:
    """Keys of a server that lets one trainer in."""
    make_keys(tmp_path / "server")
    allow(make_keys(tmp_path / "trainer"), tmp_path)
    return ServerKeys(tmp_path / "server", tmp_path / "allowed")


@pytest.fixture
def trainer_keys(server_keys: ServerKeys, tmp_path: Path) -> TrainerKeys:
    return TrainerKeys.load(tmp_path / "trainer", tmp_path / "server" / "server.public")


def allow(public: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir(exist_ok=True)
    (tmp_path / "allowed" / public.name).write_bytes(public.read_bytes())


def other_address() -> str:
    """An address of this machine that is not loopback; the packets stay here all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_keys_are_their_owners_alone_and_are_not_made_twice(tmp_path):
    public = make_keys(tmp_path / "a" / "camera")
    folder = public.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()} == {
        "camera.secret": 0o600,
        "camera.public": 0o600,
    }
    keys = load_keys(folder)
    assert load_public(public) == keys.public == zmq.curve_public(keys.secret)
    assert keys.secret.decode() not in public.read_text() + repr(keys)
    with pytest.raises(KeyFileError, match="already exists; make new keys in another folder"):
        make_keys(folder)
    assert load_keys(folder) == keys


def test_keys_that_cannot_be_written_leave_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="file: is a file; name a directory"):
        make_keys(tmp_path / "file" / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))  # less than one of the files
    try:
        with pytest.raises(StorageFullError, match=r"b: .*; no keys were made: free some space"):
            make_keys(tmp_path / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "b").iterdir())


def test_keys_that_cannot_be_used_are_refused_with_what_to_do(tmp_path):
    public = make_keys(tmp_path / "a")
    secret = tmp_path / "a" / "a.secret"
    with pytest.raises(KeyFileError, match="is a secret key, which should never leave"):
        load_public(secret)
    with pytest.raises(KeyFileError, match=r"no \.public file here"):
        load_allowed(tmp_path)
    with pytest.raises(KeyFileError, match="no keys here; `setcon keygen"):
        load_keys(tmp_path)
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_public(tmp_path / "none")
    secret.chmod(0o640)
    with pytest.raises(KeyFileError, match="mode 0640, so others can use it; chmod 600"):
        load_keys(tmp_path / "a")
    secret.chmod(0o600)
    make_keys(tmp_path / "b")
    ours, theirs = load_keys(tmp_path / "a"), load_keys(tmp_path / "b")
    mixed = secret.read_text().replace(ours.public.decode(), theirs.public.decode())
    secret.write_text(mixed)
    with pytest.raises(KeyFileError, match="do not match; generate new ones"):
        load_keys(tmp_path / "a")
    for noise in ("", "hello", 'public-key = "short"', f'public-key = "{"#" * 40}"', "\xff" * 99):
        public.write_text(noise)
        with pytest.raises(KeyFileError, match="is not a key"):
            load_public(public)


def test_a_file_may_hold_the_keys_of_several_trainers(tmp_path):
    files = [make_keys(tmp_path / name) for name in ("a", "b")]
    together = tmp_path / "together"
    together.write_text("".join(file.read_text() for file in files))
    assert load_allowed(together) == {load_public(file) for file in files}
    with pytest.raises(KeyFileError, match="holds 2 public keys"):
        load_public(together)


@pytest.mark.parametrize("ipc", [False, True])
def test_a_trainer_whose_key_is_allowed_gets_clips_and_frames(
    record, served, server_keys, trainer_keys, tmp_path, ipc
):
    record("a", 100)
    where = f"ipc://{tmp_path}/sockets/s" if ipc else LOOPBACK
    with served(where, keys=server_keys) as address, Client(address, keys=trainer_keys) as client:
        assert len(client.fetch("a", 3, 40)) == 40
        client.open(WANT)
        assert sum(len(clip.frames) - 4 for clip in clips_of(client, BOUND)) == 76


def test_other_machines_are_served_with_keys_and_checksums(
    record, served, server_keys, trainer_keys
):
    record("a", 100)
    host = other_address()
    with served("tcp://0.0.0.0:*", keys=server_keys) as address:
        there = address.replace("0.0.0.0", host)
        with Client(there, keys=trainer_keys) as client:
            assert client.recordings()[0].name == "a"
            client.open(WANT)
            assert len(list(clips_of(client, BOUND))) == 19
            assert client.checksum
        with pytest.raises(
            AddressError, match="`setcon keygen` makes them; serve and capture take"
        ):
            Client(there)


def ask(address: str, keys: TrainerKeys | None) -> None:
    with Client(address, keys=keys) as client:
        client.recordings()


def stream(address: str, keys: TrainerKeys | None) -> None:
    with Client(address, keys=keys) as client:
        client.open(WANT)
        client.next_clip(BOUND)


@pytest.mark.parametrize("how", [ask, stream])
def test_a_trainer_that_is_not_let_in_is_told_why(
    record, served, server_keys, trainer_keys, tmp_path, caplog, monkeypatch, how
):
    record("a", 60)
    make_keys(tmp_path / "stranger")
    stranger = load_keys(tmp_path / "stranger")
    began = time.monotonic()
    with served(LOOPBACK, keys=server_keys) as address:
        with pytest.raises(ServerError, match="does not know this trainer's key") as caught:
            how(address, replace(trainer_keys, own=stranger))
        assert stranger.public.decode() in str(caught.value)
        assert f"its key {stranger.public.decode()} is not in" in caplog.text
        with pytest.raises(ServerError, match="asks for keys; give --keys and --server-key"):
            how(address, None)
        with monkeypatch.context() as patched:
            patched.setattr(sockets, "MAX_FAILED_HANDSHAKES", 3)
            with pytest.raises(ServerError, match="given by --server-key is not this server's"):
                how(address, replace(trainer_keys, server=stranger.public))
        ask(address, trainer_keys)
    with (
        served(LOOPBACK) as address,
        pytest.raises(ServerError, match="the server has no keys; start it with"),
    ):
        how(address, trainer_keys)
    assert time.monotonic() - began < BOUND


def test_trainers_are_added_and_removed_while_it_serves(
    record, served, server_keys, trainer_keys, tmp_path
):
    record("a", 60)
    late = replace(trainer_keys, own=load_keys(make_keys(tmp_path / "late").parent))
    with served(LOOPBACK, keys=server_keys) as address, Client(address, keys=trainer_keys) as first:
        assert first.recordings()
        with pytest.raises(ServerError, match="does not know"):
            ask(address, late)
        allow(tmp_path / "late" / "late.public", tmp_path)
        ask(address, late)
        (tmp_path / "allowed" / "trainer.public").unlink()
        with pytest.raises(ServerError, match="does not know"):
            ask(address, trainer_keys)
        assert first.recordings()  # who is in stays in
        (tmp_path / "allowed" / "late.public").unlink()
        with pytest.raises(ServerError, match="does not know"):
            ask(address, late)


def test_a_server_is_not_bound_without_its_keys_or_with_no_one_allowed(
    store, record, server_keys, tmp_path
):
    record("a", 60)
    (tmp_path / "empty").mkdir()
    for keys, complaint in (
        (replace(server_keys, folder=tmp_path / "empty"), "no keys here"),
        (replace(server_keys, allowed=tmp_path / "empty"), r"no \.public file here"),
        (replace(server_keys, allowed=tmp_path / "none"), "cannot be read"),
    ):
        with pytest.raises(KeyFileError, match=complaint):
            serve(store, LOOPBACK, keys=keys, ready=pytest.fail)


def test_no_one_is_let_in_while_no_one_answers_for_the_keys(server_keys, trainer_keys):
    """As when the authenticator's thread has ended: libzmq's own default is to let all in."""
    with zmq.Context() as context:
        router = sockets.limited_socket(context, zmq.ROUTER, max_bytes=1000, max_messages=10)
        with server_keys.guarding(router):
            pass
        port = router.bind_to_random_port("tcp://127.0.0.1")
        caller = sockets.Dealer(
            context, f"tcp://127.0.0.1:{port}", trainer_keys, max_bytes=1000, max_messages=10
        )
        caller.socket.send(b"hello")
        assert not router.poll(300)
        caller.close()
        router.close()


def test_a_server_leaves_at_once_while_strangers_knock(
    store, record, server_keys, trainer_keys, tmp_path
):
    record("a", 60)
    stranger = replace(trainer_keys, server=load_keys(make_keys(tmp_path / "x").parent).public)
    stop, bound, context = threading.Event(), threading.Event(), zmq.Context()
    found: list[str] = []
    thread = threading.Thread(
        target=serve,
        args=(store, LOOPBACK),
        kwargs={
            "keys": server_keys,
            "stop": stop,
            "ready": lambda at: (found.append(at), bound.set()),
        },
    )
    thread.start()
    assert bound.wait(BOUND)
    callers = [
        sockets.Dealer(context, found[0], keys, max_bytes=1000, max_messages=10)
        for keys in [stranger, replace(trainer_keys, own=load_keys(tmp_path / "x")), None] * 10
    ]
    time.sleep(0.3)
    stop.set()
    thread.join(BOUND)
    assert not thread.is_alive()
    for caller in callers:
        caller.close()
    context.term()


def test_a_file_that_is_no_key_keeps_no_one_else_out(server_keys, tmp_path, caplog):
    allowed = server_keys.allowed
    known = load_allowed(allowed)
    (allowed / "bad.public").write_text("public-key = 'nothing'")
    mkfifo(allowed / "pipe.public")
    (allowed / "gone.public").symlink_to(tmp_path / "nowhere")
    assert load_allowed(allowed) == known
    for name in ("bad", "pipe", "gone"):
        assert f"{name}.public" in caplog.text
    for path in (allowed / "bad.public", allowed / "pipe.public"):
        with pytest.raises(KeyFileError, match=r"is not a (key|file)"):
            load_allowed(path)
