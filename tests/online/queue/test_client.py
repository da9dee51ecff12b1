"""The client's end of a real server, over real sockets, with servers that die, hang and lie."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
import zmq
from msgspec.structs import replace
from streaming import clips as clips_of
from streaming import next_clip
from streaming import planned as planned_triplets
from streaming import triplets as triplets_of
from streaming import triplets_of as triplets_of_spec

from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor
from online.clips.request import ClipRequest
from online.errors import AddressError, ServerError, ServerSilent, WireError
from online.queue import messages
from online.queue.client import Client
from online.queue.server import ServerCounters, serve
from online.queue.stream import ServeConfig
from online.stop import StopRequested

CLIP = ClipConfig(clip_length=4, frame_stride=2)
WANT = ClipRequest(clip=CLIP, max_epochs=1)
CLIP_BYTES = CLIP.frames * (8 * 8 * 3 + 32) + 1024
SMALL = 2 * CLIP_BYTES
"""Little credit: the server has to wait for the client."""
BOUND = 20.0


def planned(store) -> list:
    return planned_triplets(store, CLIP)


def triplets(clips) -> list:
    return triplets_of(clips, CLIP)


@contextmanager
def server_process(store, address: str):
    """A server in a process of its own, once it is ready; killed in the end."""
    config = msgspec.json.encode(ServeConfig()).decode()
    process = subprocess.Popen(
        [sys.executable, "-m", "online.queue.server_process", store.location, address, config],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        yield process
    finally:
        process.kill()
        process.wait(BOUND)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def meddling(address: str, tmp_path, meddle):
    """A relay for one client before the server; `meddle(parts)` says what goes on to it."""
    stop = threading.Event()
    relay = f"ipc://{tmp_path}/relay"
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(relay)
    back.connect(address)

    def run() -> None:
        client = b""
        poller = zmq.Poller()
        poller.register(front, zmq.POLLIN)
        poller.register(back, zmq.POLLIN)
        while not stop.is_set():
            for socket, _ in poller.poll(20):
                if socket is front:
                    client, *parts = front.recv_multipart()
                    back.send_multipart(parts)
                else:
                    for parts in meddle(back.recv_multipart()):
                        front.send_multipart([client, *parts])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield relay
    finally:
        stop.set()
        thread.join(BOUND)
        context.destroy(linger=0)


def is_clip(parts: list[bytes]) -> bool:
    return isinstance(messages.decode_reply(parts[0]), messages.ClipHeader)


def until(true, seconds: float = BOUND) -> None:
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("address", ["", "tcp://127.0.0.1:*"])
@pytest.mark.parametrize("credit", [1 << 26, SMALL], ids=["much credit", "two clips of credit"])
def test_an_epoch_holds_every_training_triplet_once_in_time_order(
    store, record, served, address, credit
):
    record("a", 200, gaps=(30, 47))
    record("b", 60)
    with served(address) as where, Client(where) as client:
        client.open(WANT, credit_bytes=credit)
        assert triplets(clips_of(client, BOUND)) == planned(store)
        assert client.next_clip(BOUND) is None
        assert client.counters.reconnects == client.counters.stale == 0


def test_clips_carry_the_pixels_and_times_of_their_frames(record, served):
    record("a", 300, mark=9, live=True)
    with served() as address, Client(address, checksum=True) as client:
        client.open(WANT)
        for clip in clips_of(client, BOUND):
            index = np.arange(clip.spec.start, clip.spec.start + clip.spec.length)
            stamp = np.stack([index % 256, index // 256, np.full_like(index, 9)], axis=1)
            assert np.array_equal(clip.frames.images[:, 3, 5], stamp)
            assert np.array_equal(clip.frames.pts_ns, (index * 1e9 / 30).astype(np.int64))
            assert clip.frames.captured_ns is not None
            assert np.array_equal(clip.frames.captured_ns, clip.frames.pts_ns + 1)


def test_shuffled_epochs_are_the_same_for_everyone_with_the_same_seed(store, record, served):
    record("a", 600)
    request = replace(WANT, order="shuffled", max_epochs=2, seed=5)
    seen = []
    with served() as address:
        for seed in (5, 5, 6):
            with Client(address) as client:
                client.open(replace(request, seed=seed))
                seen.append([clip.spec for clip in clips_of(client, BOUND)])
    first, again, other = seen
    half = len(first) // 2
    assert first == again
    assert first != other
    assert first[:half] != first[half:]
    for epoch in (first[:half], first[half:]):
        assert sorted(
            triplet for spec in epoch for triplet in triplets_of_spec(spec, CLIP)
        ) == planned(store)


def test_a_new_client_continues_at_the_cursor_wherever_the_last_one_stopped(record, served):
    record("a", 90, gaps=(33,))
    request = replace(WANT, order="shuffled", max_epochs=3)
    with served() as address:
        with Client(address) as client:
            client.open(request)
            whole = [clip.spec for clip in clips_of(client, BOUND)]
        for taken in range(0, len(whole) + 1, 7):
            with Client(address) as client:
                client.open(request)
                deliveries = [client.next_clip(BOUND) for _ in range(taken)]
            cursor = deliveries[-1].cursor if deliveries else None
            saved = msgspec.json.encode(cursor)
            with Client(address) as client:
                client.open(request, cursor=msgspec.json.decode(saved, type=Cursor | None))
                rest = list(clips_of(client, BOUND))
            first = [delivery.clip for delivery in deliveries]
            assert [clip.spec for clip in [*first, *rest]] == whole


def test_no_triplet_is_lost_or_repeated_when_servers_die_mid_stream(store, record, tmp_path):
    record("a", 500, gaps=(100, 333))
    address = f"ipc://{tmp_path}/sockets/s"
    clips = []
    with Client(address) as client:
        client.open(WANT, credit_bytes=SMALL)
        for _ in range(2):
            with server_process(store, address) as process:
                clips += [next_clip(client, BOUND) for _ in range(17)]
                process.kill()
        with server_process(store, address):
            clips += clips_of(client, BOUND)
        assert client.counters.reconnects >= 2
    assert triplets(clips) == planned(store)


@contextmanager
def noticed_in_time():
    """A hung peer is one that was silent for 3 s, having spoken once a second."""
    assert (messages.SILENCE_SECONDS, messages.HEARTBEAT_SECONDS) == (3.0, 1.0)
    hung_at = time.monotonic()
    yield
    assert time.monotonic() - hung_at < 3 * messages.SILENCE_SECONDS


def test_a_hung_server_is_noticed_and_continued_with_once_it_runs_again(store, record, tmp_path):
    record("a", 300)
    address = f"ipc://{tmp_path}/sockets/s"
    with Client(address) as client, server_process(store, address) as process:
        client.open(WANT, credit_bytes=SMALL)
        clips = [next_clip(client, BOUND) for _ in range(5)]
        with noticed_in_time():
            os.kill(process.pid, signal.SIGSTOP)
            until(lambda: client.counters.reconnects == 1)
        os.kill(process.pid, signal.SIGCONT)
        clips += clips_of(client, BOUND)
    assert triplets(clips) == planned(store)


def test_a_client_may_wait_for_a_server_that_starts_later(store, record, served, tmp_path):
    record("a", 50)
    address = f"ipc://{tmp_path}/sockets/s"
    with Client(address) as client:
        client.open(WANT)
        with pytest.raises(ServerSilent):
            client.next_clip(0.2)
        with served(address):
            assert triplets(clips_of(client, BOUND)) == planned(store)


def test_a_lost_clip_is_sent_again_and_discarded_when_it_arrives_late(
    store, record, served, tmp_path
):
    record("a", 200)
    clips, late = [], []

    def delay_the_fourth(parts):
        if is_clip(parts):
            clips.append(parts)
            if len(clips) == 4:
                late.append(parts)
                return []
        elif late and isinstance(messages.decode_reply(parts[0]), messages.Epoch):
            return [parts, late.pop()]  # after the first message of the new session
        return [parts]

    with (
        served() as address,
        meddling(address, tmp_path, delay_the_fourth) as relay,
        Client(relay) as client,
    ):
        client.open(WANT)
        assert triplets(clips_of(client, BOUND)) == planned(store)
        assert client.counters.reconnects == 1
        assert client.counters.stale >= 1


def test_a_clip_that_comes_twice_is_taken_once(store, record, served, tmp_path):
    record("a", 200)
    with (
        served() as address,
        meddling(address, tmp_path, lambda parts: [parts, parts][: 1 + is_clip(parts)]) as relay,
        Client(relay) as client,
    ):
        client.open(WANT)
        got = [next_clip(client, BOUND) for _ in range(6)]
    assert triplets(got) == planned(store)[: 4 * 6]


@pytest.mark.parametrize(("part", "place"), [(1, 0), (0, 2)], ids=["pixel", "version"])
def test_a_damaged_clip_is_counted_and_asked_for_again(
    store, record, served, tmp_path, part, place
):
    record("a", 200)
    seen = []

    def damage_the_third(parts):
        seen.extend([None] * is_clip(parts))
        if is_clip(parts) and len(seen) == 3:
            damaged = bytearray(parts[part])
            damaged[place] ^= 1
            return [[*parts[:part], bytes(damaged), *parts[part + 1 :]]]
        return [parts]

    with (
        served() as address,
        meddling(address, tmp_path, damage_the_third) as relay,
        Client(relay, checksum=True) as client,
    ):
        client.open(WANT)
        assert triplets(clips_of(client, BOUND)) == planned(store)
        assert client.counters.damaged == 1


def test_clips_that_are_always_damaged_are_an_error(record, served, tmp_path):
    record("a", 200)
    with (
        served() as address,
        meddling(
            address,
            tmp_path,
            lambda parts: [[*parts[:-1], parts[-1][:-1]] if is_clip(parts) else parts],
        ) as relay,
        Client(relay) as client,
    ):
        client.open(WANT)
        with pytest.raises(WireError, match="need buffers of"):
            client.next_clip(BOUND)
        assert client.counters.damaged == 3


def test_headers_of_clips_that_are_always_damaged_are_an_error(record, served, tmp_path):
    """Each session begins with sound messages, which do not make the damage less."""
    record("a", 200)

    def flip(parts):
        if is_clip(parts):
            parts = [parts[0][:-1] + bytes([parts[0][-1] ^ 1]), *parts[1:]]
        return [parts]

    with (
        served() as address,
        meddling(address, tmp_path, flip) as relay,
        Client(relay) as client,
    ):
        client.open(WANT)
        with pytest.raises(WireError, match="damaged on its way"):
            client.next_clip(BOUND)
        assert client.counters.damaged == messages.MAX_DAMAGED


def test_a_version_that_is_always_damaged_is_an_error(record, served, tmp_path):
    record("a", 200)
    with (
        served() as address,
        meddling(
            address, tmp_path, lambda parts: [[b"SC\x09" + parts[0][3:], *parts[1:]]]
        ) as relay,
        Client(relay) as client,
    ):
        client.open(WANT)
        with pytest.raises(WireError, match="beginning of a message was damaged"):
            client.next_clip(BOUND)
        assert client.counters.damaged == messages.MAX_DAMAGED


def test_another_program_at_the_address_is_an_error(tmp_path):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(f"ipc://{tmp_path}/other")
        with Client(f"ipc://{tmp_path}/other") as client:
            client.open(WANT)
            assert router.poll(1000 * BOUND)
            identity, _ = router.recv_multipart()
            router.send_multipart([identity, b"HTTP/1.1 400 Bad Request"])
            told = f"ipc://{tmp_path}/other: not a message of this program"
            with pytest.raises(WireError, match=re.escape(told)):
                client.next_clip(BOUND)
        router.linger = 0


def test_recordings_and_frames_are_served_while_clips_stream(store, record, served):
    record("a", 300, masks=True)
    with served() as address, Client(address) as client:
        client.open(WANT, credit_bytes=SMALL)
        clips = []
        for clip in clips_of(client, BOUND):
            clips.append(clip)
            frames = client.fetch("a", clip.spec.start, clip.spec.length, masks=True)
            assert np.array_equal(frames.images, clip.frames.images)
            assert np.array_equal(frames.pts_ns, clip.frames.pts_ns)
            assert frames.masks is not None
            assert np.array_equal(frames.masks, frames.images[..., 0])
        assert triplets(clips) == planned(store)
        assert client.recordings() == StoreCatalog(store).recordings()


def test_a_fetch_larger_than_a_message_comes_in_several(record, served, monkeypatch):
    record("a", 300, masks=True)
    monkeypatch.setattr(messages, "MAX_REPLY_BYTES", 5000)  # 19 frames
    with served() as address, Client(address) as client:
        frames = client.fetch("a", 7, 101, masks=True)
    assert len(frames) == 101
    assert frames.images[:, 0, 0, 0].tolist() == list(range(7, 108))


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (("gone", 0, 1), "no recording 'gone'"),
        (("a", 25, 10), r"a has frames 0\.\.30, asked for 25\.\.35"),
        (("a", -1, 2), "do not exist"),
    ],
)
def test_frames_that_are_not_there_are_refused_in_the_servers_words(
    record, served, asked, complaint
):
    record("a", 30)
    with served() as address, Client(address) as client:
        with pytest.raises(ServerError, match=complaint):
            client.fetch(*asked)
        assert len(client.fetch("a", 0, 30)) == 30


def test_a_server_that_is_not_there_is_given_up_after_a_while(tmp_path):
    client = Client(f"ipc://{tmp_path}/none", timeout_seconds=0.3)
    with client, pytest.raises(ServerSilent, match=r"no answer in 0\.3 s"):
        client.recordings()


def test_fetch_survives_a_server_that_is_started_again(store, record, tmp_path):
    record("a", 30)
    address = f"ipc://{tmp_path}/sockets/s"
    with Client(address) as client:
        for _ in range(2):
            with server_process(store, address):
                assert len(client.fetch("a", 3, 4)) == 4


def test_addresses_of_other_machines_are_refused():
    with pytest.raises(AddressError, match="CURVE"):
        Client("tcp://192.168.0.7:5555")


def test_clips_before_open_are_an_error(tmp_path):
    with Client(f"ipc://{tmp_path}/none") as client, pytest.raises(ServerError, match="open"):
        client.next_clip(1.0)


def test_heartbeats_keep_a_waiting_session_alive(record, served):
    record("a", 200, complete=False)
    with served(follow=True) as address, Client(address) as client:
        client.open(WANT, credit_bytes=SMALL)
        assert client.next_clip(BOUND) is not None
        with pytest.raises(ServerSilent):
            list(clips_of(client, messages.SILENCE_SECONDS + 1.5))
        assert client.counters.reconnects == 0
        record("a", 400)
        assert client.next_clip(BOUND) is not None


def test_a_trainer_that_takes_nothing_for_long_keeps_its_session(store, record, served):
    record("a", 300)
    with served() as address, Client(address) as client:
        client.open(WANT, credit_bytes=SMALL)
        clips = [next_clip(client, BOUND)]
        time.sleep(messages.SILENCE_SECONDS + 1.5)  # as in a probe
        clips += clips_of(client, BOUND)
        assert client.counters.reconnects == client.counters.stale == 0
    assert triplets(clips) == planned(store)


def test_what_waits_is_bounded_by_the_credit_however_often_the_server_restarts(
    store, record, tmp_path
):
    record("a", 600)
    address = f"ipc://{tmp_path}/sockets/s"
    credit = 12 * CLIP_BYTES
    with Client(address) as client:
        client.open(WANT, credit_bytes=credit)
        clips = []
        for restart in range(3):
            with server_process(store, address):
                until(lambda n=restart: client.counters.reconnects >= n)
                until(lambda: client.counters.waiting_bytes > 10 * CLIP_BYTES)
                assert client.counters.waiting_bytes <= credit
                clips.append(next_clip(client, BOUND))
        with server_process(store, address):
            clips += clips_of(client, BOUND)
    assert triplets(clips) == planned(store)


TRAINER = """
import sys
from online.queue.client import Client
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
address, credit = sys.argv[1], int(sys.argv[2])
request = ClipRequest(clip=ClipConfig(clip_length=4, frame_stride=2), max_epochs=1)
with Client(address) as client:
    client.open(request, credit_bytes=credit)
    while (delivery := client.next_clip(20.0)) is not None:
        print(delivery.clip.spec.start, flush=True)
        sys.stdin.readline()
    print("end", flush=True)
"""


def test_a_hung_trainer_is_noticed_and_loses_nothing_when_it_wakes(store, record, tmp_path):
    record("a", 200)
    address, stop = f"ipc://{tmp_path}/sockets/s", threading.Event()
    seen: list[ServerCounters] = []
    server = threading.Thread(
        target=serve, args=(store, address), kwargs={"stop": stop, "report": seen.append}
    )
    server.start()
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, address, str(SMALL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as trainer:
        assert trainer.stdin is not None
        assert trainer.stdout is not None
        try:
            starts = [trainer.stdout.readline() for _ in range(1)]
            with noticed_in_time():
                os.kill(trainer.pid, signal.SIGSTOP)
                until(lambda: seen and seen[-1].silent == 1)
            assert seen[-1].connected == 0
            os.kill(trainer.pid, signal.SIGCONT)
            while starts[-1] != "end\n":
                print(file=trainer.stdin, flush=True)
                starts.append(trainer.stdout.readline())
        finally:
            trainer.kill()
            stop.set()
            server.join(BOUND)
    assert list(map(int, starts[:-1])) == sorted({t.last_frame - 4 for t in planned(store)})[::4]


def test_a_signal_while_a_connection_is_made_does_not_keep_the_client_from_closing(
    store, record, served, monkeypatch
):
    record("a", 100)

    def interrupted(*_: object) -> None:
        raise StopRequested

    with served() as address:
        client = Client(address)
        with monkeypatch.context() as patched:
            patched.setattr("zmq.Socket.get_monitor_socket", interrupted)
            with pytest.raises(StopRequested):
                client.recordings()
        closing = threading.Thread(target=client.close, daemon=True)
        closing.start()
        closing.join(BOUND)
        assert not closing.is_alive()
