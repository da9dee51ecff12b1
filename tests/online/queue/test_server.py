"""The server as a socket sees it: what it sends, what it refuses, and how it leaves."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import zmq
from msgspec.structs import replace
from streaming import clips as clips_of
from streaming import next_clip
from streaming import planned as planned_triplets
from streaming import triplets as triplets_of

from ingest.disk.checksum import crc32c
from online.clips.catalog import StoreCatalog
from online.clips.clip import Clip, ClipConfig
from online.clips.cursor import Extent
from online.clips.request import ClipRequest
from online.errors import AddressInUse, ServerError, ServerSilent
from online.queue import messages
from online.queue.client import Client
from online.queue.receiver import Delivery
from online.queue.server import Server, ServerCounters, serve, server_socket
from online.queue.stream import ServeConfig

CLIP = ClipConfig(clip_length=4, frame_stride=2)
WANT = ClipRequest(clip=CLIP, max_epochs=1)
CLIP_BYTES = CLIP.frames * (8 * 8 * 3 + 32) + 1024
HELLO = messages.Hello(session="0123456789", credit=2 * CLIP_BYTES, request=WANT)
EXTENT = Extent(200, True)
BOUND = 20.0


class Peer:
    """A trainer that sends exactly the given messages."""

    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(address)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_) -> None:
        self.context.destroy(linger=0)

    def say(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def hear(self, kind: type, *, seconds: float = BOUND) -> tuple:
        """The next message of a kind, and the size of its parts; others are passed over."""
        while self.socket.poll(round(seconds * 1000)):
            parts = self.socket.recv_multipart()
            message = messages.decode_reply(parts[0])
            if isinstance(message, kind):
                return message, sum(map(len, parts))
        raise AssertionError(f"no {kind.__name__} came in {seconds} s")

    def hear_no(self, kind: type, *, seconds: float = 0.4) -> None:
        with pytest.raises(AssertionError, match="no "):
            self.hear(kind, seconds=seconds)


def planned(store) -> list:
    return planned_triplets(store, CLIP)


def of_another_version(part: bytes) -> bytes:
    checksum = crc32c(b"SC\x09" + part[7:]).to_bytes(4, "little")
    return b"SC\x09" + checksum + part[7:]


def deliveries_until_silent(client: Client, seconds: float = 1.0) -> list[Delivery]:
    """What comes before nothing comes for so long."""
    found = []
    with contextlib.suppress(ServerSilent):
        while (delivery := client.next_clip(seconds)) is not None:
            found.append(delivery)
        raise AssertionError("the stream of a followed store has no end")
    return found


def until_silent(client: Client) -> list[Clip]:
    return [delivery.clip for delivery in deliveries_until_silent(client)]


def triplets(clips) -> list:
    return triplets_of(clips, CLIP)


@pytest.mark.parametrize("credit", [2 * CLIP_BYTES, 5 * CLIP_BYTES + 17])
def test_the_server_sends_all_that_the_credit_covers_and_never_more(record, served, credit):
    record("a", 400)
    with served() as address, Peer(address) as peer:
        peer.say(messages.encode(replace(HELLO, credit=credit)))
        sent, size = 0, 0
        for more in (0, 1, size, 4000):
            credit += more
            peer.say(messages.encode(messages.Credit(HELLO.session, credit)))
            while sent + size <= credit:
                _, size = peer.hear(messages.ClipHeader)
                sent += size
                assert sent <= credit
            peer.hear_no(messages.ClipHeader)


def test_credit_that_was_granted_before_is_not_taken_back(record, served):
    record("a", 400)
    with served() as address, Peer(address) as peer:
        peer.say(messages.encode(HELLO))
        peer.say(messages.encode(messages.Credit(HELLO.session, 50 * CLIP_BYTES)))
        peer.say(messages.encode(messages.Credit(HELLO.session, 0)))
        for index in range(20):
            message, _ = peer.hear(messages.ClipHeader)
            assert message.index == index


def test_credit_below_two_clips_is_refused_with_what_it_takes(record, served):
    record("a", 100)
    with served() as address, Client(address) as client:
        client.open(WANT, credit_bytes=2 * CLIP_BYTES - 1)
        with pytest.raises(ServerError, match=f"raise credit_bytes to {2 * CLIP_BYTES}"):
            client.next_clip(BOUND)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (replace(WANT, recordings="none*"), "no recording matches 'none\\*'; there are: a"),
        (replace(WANT, clip=ClipConfig(frame_stride=90)), "no triplet to train on: one spans 181"),
        (replace(WANT, shard=500, shards=1000), "shard 500 of 1000 gets none of"),
    ],
)
def test_what_would_send_nothing_for_ever_is_refused_with_the_reason(
    record, served, request_, complaint
):
    record("a", 100)
    with served() as address, Client(address) as client:
        client.open(request_)
        with pytest.raises(ServerError, match=complaint):
            client.next_clip(BOUND)


def test_a_cursor_of_another_split_is_refused(record, served):
    record("a", 200)
    with served() as address, Client(address) as client:
        client.open(WANT)
        cursor = client.next_clip(BOUND).cursor
    with served(holdout=0.4) as address, Client(address) as client:
        client.open(WANT, cursor=cursor)
        with pytest.raises(ServerError, match="same --holdout"):
            client.next_clip(BOUND)


def test_what_is_not_offered_any_more_is_neither_sent_nor_named(record, served):
    record("a", 200)
    record("secret", 200)
    with served() as address, Client(address) as client:
        client.open(WANT)
        deliveries = [client.next_clip(BOUND) for _ in range(3)]
        cursor = deliveries[-1].cursor
    assert set(cursor.extents) == {"a", "secret"}
    with served(recordings="a") as address, Client(address) as client:
        for extents in (cursor.extents, {"secret": cursor.extents["secret"]}, {"nothing": EXTENT}):
            client.open(WANT, cursor=replace(cursor, extents=extents))
            with pytest.raises(ServerError, match="has 0 frames and the trainer has seen 200"):
                client.next_clip(BOUND)
        with pytest.raises(ServerError, match="no recording 'secret' is offered"):
            client.fetch("secret", 0, 5)
        with pytest.raises(ServerError, match="no recording 'nothing' is offered"):
            client.fetch("nothing", 0, 5)
        client.open(replace(WANT, recordings="sec*"))
        with pytest.raises(ServerError, match=r"no recording matches 'sec\*'; there are: a$"):
            client.next_clip(BOUND)
        assert [summary.name for summary in client.recordings()] == ["a"]


def test_held_out_frames_are_never_sent_for_training(store, record, served):
    record("a", 333)
    (summary,) = StoreCatalog(store, holdout=0.3).recordings()
    with served(holdout=0.3) as address, Client(address) as client:
        client.open(replace(WANT, max_epochs=2))
        last = max(clip.spec.start + clip.spec.length for clip in clips_of(client, BOUND))
    assert last == summary.held_out[0].start


def test_trainers_that_share_a_server_get_disjoint_parts_at_the_same_time(store, record, served):
    record("a", 300)
    record("b", 100)
    got: dict[int, list] = {}

    def train(address: str, shard: int) -> None:
        with Client(address) as client:
            client.open(replace(WANT, shard=shard, shards=3), credit_bytes=2 * CLIP_BYTES)
            got[shard] = triplets(clips_of(client, BOUND))

    with served() as address:
        threads = [threading.Thread(target=train, args=(address, shard)) for shard in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
    assert sorted(got[0] + got[1] + got[2]) == planned(store)


def test_a_trainer_that_does_not_read_holds_no_one_up(store, record, served):
    record("a", 300)
    with served() as address, Peer(address) as stuck, Client(address) as client:
        stuck.say(
            messages.encode(replace(HELLO, credit=1 << 30, request=replace(WANT, max_epochs=0)))
        )
        client.open(WANT)
        assert triplets(clips_of(client, BOUND)) == planned(store)


def test_a_followed_store_is_sent_as_it_grows_each_triplet_once(store, record, served):
    record("a", 200, complete=False)
    with served(follow=True) as address, Client(address) as client:
        client.open(replace(WANT, max_epochs=0))
        got = [next_clip(client, BOUND)]
        record("b", 60)
        record("a", 420, complete=False)
        got.append(next_clip(client, BOUND))
        record("a", 450)
        got += until_silent(client)
    assert sorted(triplets(got)) == planned(store)


def test_a_followed_store_is_continued_with_after_both_sides_were_restarted(store, record, served):
    got, cursor = [], None
    for length in (150, 400, 600):
        record("a", length, complete=False)
        with served(follow=True, order="shuffled") as address, Client(address) as client:
            client.open(replace(WANT, max_epochs=0), cursor=cursor)
            came = deliveries_until_silent(client)
        got += [delivery.clip for delivery in came]
        cursor = came[-1].cursor
    record("a", 601)
    with served(follow=True) as address, Client(address) as client:
        client.open(replace(WANT, max_epochs=0, order="shuffled"), cursor=cursor)
        got += until_silent(client)
    assert sorted(triplets(got)) == planned(store)


def test_shards_of_a_growing_store_share_it_whenever_they_look(store, record, served):
    """Two trainers, one of which begins its rounds at other times than the other."""
    record("a", 100, complete=False)
    shared = replace(WANT, max_epochs=0, shards=2)
    finish = threading.Event()
    serving = served(follow=True, finish=finish)
    with serving as address, Client(address) as quick, Client(address) as slow:
        quick.open(shared)
        got = until_silent(quick)
        for length in (180, 260, 420):
            record("a", length, complete=False)
            got += until_silent(quick)
        slow.open(replace(shared, shard=1))
        got += until_silent(slow)
        record("a", 500)
        record("b", 90)
        finish.set()
        for client in (slow, quick):
            got += clips_of(client, BOUND)
    assert sorted(triplets(got)) == planned(store)


def test_a_followed_stream_ends_when_nothing_more_will_come(store, record, served):
    record("a", 200, complete=False)
    finish = threading.Event()
    with served(follow=True, finish=finish) as address, Client(address) as client:
        client.open(replace(WANT, max_epochs=0))
        got = [next_clip(client, BOUND)]
        record("a", 250)
        finish.set()
        got += list(clips_of(client, BOUND))
        assert sorted(triplets(got)) == planned(store)
        assert (
            len(client.fetch("a", 0, 3)) == 3
        )  # it stays until the trainer has probed, and leaves


def test_clips_that_have_come_are_kept_when_the_server_leaves_behind_the_end(store, record, served):
    record("a", 200)
    finish = threading.Event()
    with Client(f"ipc://{Path(store.location).parent}/own/s") as client:
        with served(client.address, follow=True, finish=finish):
            client.open(replace(WANT, max_epochs=0))
            got = [next_clip(client, BOUND)]
            finish.set()
            deadline = time.monotonic() + BOUND
            while not client.has_ended:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        time.sleep(messages.SILENCE_SECONDS + 1.0)  # the server is gone, and the trainer slow
        got += list(clips_of(client, BOUND))
    assert sorted(triplets(got)) == planned(store)


def test_a_finishing_server_waits_for_a_trainer_that_it_has_lost(store, record, tmp_path):
    record("a", 200)
    address, context = f"ipc://{tmp_path}/s", zmq.Context()
    damaged = bytearray(messages.encode(messages.Alive(HELLO.session)))
    damaged[-1] ^= 1
    with contextlib.closing(StoreCatalog(store)) as catalog, Peer(address) as peer:
        socket = server_socket(context)
        server = Server(catalog, socket, ServeConfig(follow=True))
        try:
            server.finish()
            assert server.has_finished  # no one has come
            socket.bind(address)
            peer.say(messages.encode(HELLO))
            while not server.counters.connected:
                server.step(0.02)
            peer.say(bytes(damaged))  # which ends the session, until the trainer begins another
            while server.counters.connected:
                server.step(0.02)
            assert not server.has_finished
        finally:
            server.close()
            socket.close()
            context.term()


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"GET / HTTP/1.1"],
        [messages.seal(b"\x93\xff")],
        [messages.encode(HELLO), b"and more"],
        [of_another_version(messages.encode(HELLO))],
    ],
)
def test_messages_that_are_none_are_answered_and_change_nothing(store, record, served, parts):
    record("a", 60)
    with served() as address, Peer(address) as peer, Client(address) as client:
        peer.say(*parts)
        message, _ = peer.hear(messages.Refused)
        assert message.message
        client.open(WANT)
        assert triplets(clips_of(client, BOUND)) == planned(store)


@pytest.mark.parametrize("place", [-1, 2], ids=["within", "version"])
def test_a_request_that_was_damaged_on_its_way_begins_the_session_anew(record, served, place):
    record("a", 60)
    with served() as address, Peer(address) as peer:
        peer.say(messages.encode(HELLO))
        peer.hear(messages.Epoch)
        damaged = bytearray(messages.encode(messages.Credit(HELLO.session, 1 << 20)))
        damaged[place] ^= 1
        peer.say(bytes(damaged))
        lost, _ = peer.hear(messages.Lost)
        assert lost.session == HELLO.session
        peer.say(bytes(damaged))  # of no session: whoever it was will ask again
        peer.hear_no(messages.Refused)


def test_a_message_larger_than_any_request_costs_its_sender_the_connection(store, record, served):
    record("a", 60)
    with served() as address, Peer(address) as peer, Client(address) as client:
        peer.say(bytes(8 << 20))
        peer.hear_no(messages.Refused)
        client.open(WANT)
        assert triplets(clips_of(client, BOUND)) == planned(store)


def test_unknown_sessions_are_told_so(record, served):
    record("a", 60)
    with served() as address, Peer(address) as peer:
        peer.say(messages.encode(messages.Alive("9876543210")))
        message, _ = peer.hear(messages.Lost)
        assert message.session == "9876543210"


def test_an_idle_session_goes_on_hearing_heartbeats(record, served):
    record("a", 400)
    with served() as address, Peer(address) as peer:
        peer.say(messages.encode(HELLO))
        for _ in range(2):
            peer.hear(messages.ClipHeader)
        for _ in range(2):
            peer.hear(messages.Alive)


def test_a_damaged_store_ends_the_session_with_its_message(store, record, served):
    record("a", 400)
    chunks = sorted(
        (Path(store.location) / "recordings" / "a" / "frames").rglob("*"),
        key=lambda p: p.stat().st_size,
    )
    chunks[-1].write_bytes(b"damage")
    with served() as address, Client(address) as client:
        client.open(WANT)
        with pytest.raises(ServerError, match="a"):
            list(clips_of(client, BOUND))
        assert client.recordings()[0].length == 400


def test_damaged_metadata_ends_the_sessions_that_need_it_and_no_others(
    store, record, served, caplog
):
    for name in ("a", "b"):
        record(name, 200)
    (Path(store.location) / "recordings" / "a" / "frames" / "zarr.json").write_text("[]")
    with served() as address, Client(address) as client, Client(address) as other:
        client.open(WANT)
        other.open(replace(WANT, recordings="b"))
        with pytest.raises(ServerError, match=r"recording 'a': chunk 0 of `frames` is damaged"):
            client.next_clip(BOUND)
        with pytest.raises(ServerError, match="recording 'a'"):
            client.fetch("a", 0, 5)
        assert len(client.fetch("b", 0, 5)) == 5
        assert {clip.spec.recording for clip in clips_of(other, BOUND)} == {"b"}
    assert "refused: " in caplog.text


def test_a_glob_that_matches_nothing_is_refused_unless_it_is_waited_for(store, record, served):
    record("a", 100)
    with pytest.raises(ServerError, match=r"no recording matches 'x\*'; there are: a$"):
        serve(store, "inproc://never", config=ServeConfig(recordings="x*"))
    with served(recordings="x*", follow=True) as address, Client(address) as client:
        assert client.recordings() == []


def test_a_recording_without_a_readable_commit_record_is_not_offered(store, record, served, caplog):
    for name in ("a", "b"):
        record(name, 100)
    (Path(store.location) / "recordings" / "a" / "commit.json").write_text("garbage")
    with served() as address, Client(address) as client:
        assert "a/commit.json: damaged commit record" in caplog.text
        assert [summary.name for summary in client.recordings()] == ["b"]
        client.open(WANT)
        assert {clip.spec.recording for clip in clips_of(client, BOUND)} == {"b"}
    (Path(store.location) / "recordings" / "b" / "commit.json").write_text("garbage")
    with pytest.raises(ServerError, match=r"nothing to serve: .* none can be read \("):
        serve(store, "ipc:///nowhere/s")


def test_a_recording_replaced_while_it_is_served_ends_the_stream(
    store, record, served, monkeypatch
):
    monkeypatch.setattr(messages, "SILENCE_SECONDS", BOUND)  # replacing may take longer than 3 s
    record("a", 400, gaps=(100,))
    record("b", 60)
    with served() as address, Peer(address) as peer, Client(address) as client:
        peer.say(messages.encode(HELLO))
        epoch, _ = peer.hear(messages.Epoch)
        peer.hear(messages.ClipHeader)
        peer.hear(messages.Alive)  # the credit is used up
        store.remove("a")
        record("a", 400, gaps=(100,), size=9)
        peer.say(messages.encode(messages.Credit(HELLO.session, 1 << 30)))
        refused, _ = peer.hear(messages.Refused)
        assert "recording 'a' was replaced by another one" in refused.message
        client.open(replace(WANT, recordings="b"))
        assert {clip.spec.recording for clip in clips_of(client, BOUND)} == {"b"}
    with served() as address, Client(address) as client:
        client.open(WANT, cursor=replace(epoch.cursor, index=1))
        with pytest.raises(ServerError, match="cannot be made again"):
            client.next_clip(BOUND)


@pytest.mark.parametrize("address", ["", "tcp"])
def test_an_address_in_use_is_refused_and_the_first_server_goes_on(store, record, served, address):
    record("a", 30)
    with served("tcp://127.0.0.1:*" if address else "") as endpoint:
        with pytest.raises(AddressInUse, match="bound here"):
            serve(store, endpoint)
        with Client(endpoint) as client:
            assert len(client.recordings()) == 1


def test_counters_say_what_was_done(store, record, tmp_path):
    record("a", 200)
    stop, bound = threading.Event(), threading.Event()
    seen: list[ServerCounters] = []
    address = f"ipc://{tmp_path}/sockets/s"

    def run() -> None:
        seen.append(
            serve(store, address, ready=lambda _: bound.set(), stop=stop, report=seen.append)
        )

    thread = threading.Thread(target=run)
    thread.start()
    assert bound.wait(BOUND)
    with Client(address) as client, Peer(address) as peer:
        client.open(WANT)
        clips = len(list(clips_of(client, BOUND)))
        client.fetch("a", 0, 5)
        peer.say(b"noise")
        peer.hear(messages.Refused)
        with pytest.raises(ServerError):
            client.fetch("a", 500, 5)
    stop.set()
    thread.join(BOUND)
    last = seen[-1]
    assert (last.sessions, last.clips, last.fetches) == (1, clips, 1)
    assert (last.rejected, last.refused) == (1, 1)
    assert last.clip_bytes > clips * 8 * 8 * 3 * 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_cleanly(store, record, tmp_path, number):
    record("a", 60)
    address = f"ipc://{tmp_path}/sockets/s"
    program = f"""
        import threading
        from ingest.open import open_store
        from online.queue.server import serve
        counters = serve(open_store({store.location!r}), {address!r},
                         ready=lambda endpoint: print(endpoint, flush=True))
        print(counters.clips, threading.active_count())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == address
        with Client(address) as client:
            client.open(WANT)
            assert client.next_clip(BOUND) is not None
            os.kill(process.pid, number)
            rest, _ = process.communicate(timeout=BOUND)
        assert process.returncode == 0
        assert int(rest.split()[0]) > 0
        assert not (tmp_path / "sockets" / "s").exists()
    finally:
        process.kill()
        process.communicate()


def test_serving_does_not_import_torch():
    program = "import online.queue.server_process, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
