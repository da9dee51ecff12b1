"""Bad input gives one clear line and exit code 1, and loses nothing."""

import ast
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import zarr
from commands import setcon

from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from terminal.commands.train import command_line, train

PICTURE = "lavfi:testsrc2=size=64x48:rate=30,realtime"
FAST = [
    *("--set", "training.batch_clips=2"),
    *("--set", "stream.credit_bytes=100000"),
    *("--set", "probe.steps=2"),
    *("--set", "evaluation.train_clips=4"),
    *("--set", "evaluation.held_out_clips=2"),
]


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error; progress lines are not errors."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


SIGNALLED = """
import signal, sys
import cli, online.queue.keys

class Kept:
    def __del__(self):
        signal.raise_signal(int(sys.argv[1]))

def make_keys(folder):
    kept = Kept()
    del kept  # an exception raised here would be printed, and forgotten
    while True:
        pass

online.queue.keys.make_keys = make_keys
cli.main(["keygen", "x"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_where_nothing_has_to_be_saved_is_one_line(number: signal.Signals) -> None:
    script = [sys.executable, "-c", SIGNALLED, str(int(number))]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "stopped; run the same command again\n"


def test_a_scene_that_is_ended_leaves_nothing_half_drawn(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "setcon", "scene", "balls", tmp_path / "x.mp4"]
    with subprocess.Popen([*command, "--frames", "1000000"], stderr=subprocess.PIPE) as scene:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".x.mp4.*.partial")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        scene.terminate()
        said = scene.communicate(timeout=60)[1]
    assert scene.returncode == 128 + signal.SIGTERM, said
    assert said.endswith(b"stopped; run the same command again\n"), said
    assert list(tmp_path.iterdir()) == []


SIGNALLED_WITHIN_HDF5 = """
import builtins, signal, sys
import cli, ingest.disk.hdf5

calls = 0

def view(data):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        signal.raise_signal(signal.SIGTERM)
    return builtins.memoryview(data)

ingest.disk.hdf5.memoryview = view  # what each write that HDF5 asks for begins with
cli.main(["scene", "balls", sys.argv[2], "--frames", "200"])
"""


@pytest.mark.parametrize("call", [1, 7, 12])
def test_a_signal_waits_until_hdf5_has_been_answered(tmp_path: Path, call: int) -> None:
    script = [sys.executable, "-c", SIGNALLED_WITHIN_HDF5, str(call), tmp_path / "x.mp4"]
    done = subprocess.run(script, capture_output=True, timeout=60, check=False)
    made = sorted(path.name for path in tmp_path.iterdir())
    if done.returncode == 0:  # by then there was nothing left to do
        assert made == ["x.masks.h5", "x.mp4"]
    else:
        assert done.returncode == 128 + signal.SIGTERM, done.stderr
        assert done.stderr.endswith(b"stopped; run the same command again\n"), done.stderr
        assert made == []


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "balls.mp4"
    render_scene(BallsConfig(num_frames=120, fps=15, size=32), path)
    return path


@pytest.fixture(scope="module")
def store(video: Path) -> Path:
    (outcome,) = ingest_sources([str(video)], video.parent / "store", RecordSettings(size=16))
    assert outcome.error is None
    return video.parent / "store"


@pytest.fixture(scope="module")
def run(store: Path) -> Path:
    path = store.parent / "run"
    done = setcon("train", store, "--run", path, "--steps", "2", *FAST)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def segments_run(store: Path) -> Path:
    path = store.parent / "segments-run"
    ordered = ["--set", "training.keep_segments=true", "--set", "stream.order=stream"]
    done = setcon("train", store, "--run", path, "--steps", "2", *FAST, *ordered)
    assert done.returncode == 0, done.stderr
    return path


def test_a_missing_file(tmp_path: Path) -> None:
    error = error_of(setcon("ingest", tmp_path / "no.mp4", tmp_path / "store"))
    assert "no.mp4" in error


def test_a_text_file_named_mp4_and_the_others_are_stored(video: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video\n" * 100)
    done = setcon("ingest", tmp_path / "notes.mp4", video, tmp_path / "store", "--size", "16")
    assert "notes.mp4" in error_of(done)
    assert "balls: recorded, 120 frames of 16x16" in done.stdout


def test_an_mp4_cut_before_its_index(video: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert "cut.mp4" in error_of(setcon("ingest", tmp_path / "cut.mp4", tmp_path / "store"))


def test_a_store_that_is_not_one_is_left_alone(video: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for arguments in (
        ["ingest", video, tmp_path],
        ["ingest", "--overwrite", video, tmp_path / "notes.txt"],
        ["info", tmp_path],
        ["serve", tmp_path],
        ["train", tmp_path, "--run", tmp_path / "run"],
    ):
        assert str(tmp_path) in error_of(setcon(*arguments))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        "ingest VIDEO STORE",
        "ingest VIDEO STORE --format h5",
        "info STORE",
        "verify STORE",
        "serve STORE",
        "train STORE --run new",
        "export STORE balls out.mp4",
        "eval RUN STORE",
        "continual RUN STORE",
        "render RUN STORE out.mp4",
        "embed RUN STORE out.h5",
    ],
)
def test_a_store_at_another_address_is_refused_and_nothing_is_written(
    words: str, video: Path, segments_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"VIDEO": video, "STORE": "ftp://host/store", "RUN": segments_run}
    assert error_of(setcon(*(named.get(word, word) for word in words.split()))) == (
        "error: ftp://host/store: stores are kept in folders of this machine and in object "
        "storage; name a folder, or an address that begins with s3://, gs:// or az://"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_address_already_in_use(store: Path, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s/socket"
    server = subprocess.Popen(
        [sys.executable, "-m", "setcon", "serve", str(store), "--bind", address],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("serving")
        assert "use" in error_of(setcon("serve", store, "--bind", address))
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5557", "http://localhost", "tcp://127.0.0.1"])
def test_an_address_that_is_not_for_this(store: Path, address: str) -> None:
    assert address.split("//")[1] in error_of(setcon("serve", store, "--bind", address))


def test_a_checkpoint_of_other_sizes(store: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("num_slots = 4", "num_slots = 5"))
    error = error_of(setcon("eval", tmp_path / "run", store))
    assert "slot_attention.starts is (4, 16)" in error
    error = error_of(
        setcon("train", store, "--run", run, *FAST, "--set", "model.slot_attention.num_slots=5")
    )
    assert "model.slot_attention.num_slots 5 (was 4)" in error


def test_an_unknown_configuration_key(store: Path, tmp_path: Path) -> None:
    for words in (["train", store, "--run"], ["demo", "--out"]):
        done = setcon(*words, tmp_path / "new", "--set", "optimizer.lr=1")
        assert "unknown key optimizer.lr" in error_of(done)
        assert not (tmp_path / "new").exists()


def test_a_full_disk_while_ingesting_keeps_what_was_committed(video: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.mp4"
    shutil.copy(video, big)
    done = setcon("ingest", big, tmp_path / "store", "--size", "128", file_bytes=40_000)
    error_of(done)
    again = setcon("ingest", big, tmp_path / "store", "--size", "128")
    assert again.returncode == 0, again.stderr
    assert "120 frames" in again.stdout


def test_a_full_disk_while_training_keeps_the_last_checkpoint(
    store: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    longer = ["train", store, "--run", tmp_path / "run", "--steps", "4", *FAST]
    assert "could not be written" in error_of(setcon(*longer, file_bytes=20_000))
    done = setcon(*longer)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"complete at step 4; \d+ clips received \(\d+\.\d MB\), 0 reconnects, 0 damaged, "
        r"0 discarded; in all \d+ inserted, 0 skip",
        done.stdout,
    )
    again = setcon(*longer)
    assert "complete at step 4 already: nothing was left to do; raise --steps" in again.stdout
    assert "The slots " in again.stdout
    assert "0 clips" not in again.stdout


def test_a_full_disk_while_drawing_a_scene_leaves_nothing(tmp_path: Path) -> None:
    video = tmp_path / "balls.mp4"
    assert "balls" in error_of(setcon("scene", "balls", video, "--frames", "300", file_bytes=4_000))
    assert not list(tmp_path.iterdir())
    lost = setcon("scene", "balls", tmp_path / "none" / "balls.mp4")
    assert error_of(lost).endswith("no such folder; make it, or name a file in another")


def test_eval_names_the_command_that_its_older_option_has_become() -> None:
    done = setcon("eval", "RUN", "STORE", "--continual")
    assert "use `setcon continual RUN STORE`" in error_of(done)


def test_eval_ends_with_what_the_scores_say(store: Path, run: Path) -> None:
    done = setcon("eval", run, store)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("The slots ")
    assert "Held-out FG-ARI" in last


def test_a_folder_that_cannot_be_a_recording_hides_no_other(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    (tmp_path / "store" / "recordings" / "a\x1b[31mb").mkdir()
    for command in ("info", "verify"):
        done = setcon(command, tmp_path / "store")
        assert "balls: " in done.stdout
        assert "120 frames" in done.stdout
        assert done.returncode == 0


def test_a_directory_in_the_way_costs_no_video(store: Path, tmp_path: Path) -> None:
    video = tmp_path / "old.mp4"
    video.write_bytes(b"frames")
    (tmp_path / "old.masks.h5").mkdir()
    for command in (["scene", "balls"], ["export", store, "balls"]):
        done = setcon(*command, video, "--overwrite")
        assert "old.masks.h5: is a directory; name a file" in error_of(done)
    assert video.read_bytes() == b"frames"


def test_info_and_eval_speak_json(store: Path, run: Path) -> None:
    held = json.loads(setcon("info", store, "--json").stdout)
    (recording,) = held["recordings"]
    assert (recording["name"], recording["length"], recording["complete"]) == ("balls", 120, True)
    assert recording["counters"]["stored"] == 120
    scores = json.loads(setcon("eval", run, store, "--json").stdout)
    assert scores["step"] == 2
    assert 0 < scores["trained"]["current"]["mse"] < 1


def test_info_lists_what_is_whole_and_names_what_is_damaged(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    shutil.copytree(store / "recordings" / "balls", tmp_path / "store" / "recordings" / "bad")
    (tmp_path / "store" / "recordings" / "bad" / "commit.json").write_text("garbage")
    done = setcon("info", tmp_path / "store")
    assert "bad/commit.json: damaged commit record" in error_of(done)
    assert "2 recordings" in done.stdout
    assert "balls: 120 frames of 16x16, masks, 7.9 s, complete" in done.stdout
    done = setcon("info", tmp_path / "store", "--json")
    error_of(done)
    bad, balls = json.loads(done.stdout)["recordings"]
    assert bad["name"] == "bad"
    assert "damaged commit record" in bad["error"]
    assert balls["counters"]["gaps"] == 1


def test_verify_says_what_is_whole_and_fails_for_what_is_damaged(
    store: Path, tmp_path: Path
) -> None:
    done = setcon("verify", store)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"balls: ok, 120 frames, \d+ MB/s\n", done.stdout)
    shutil.copytree(store, tmp_path / "store")
    shutil.copytree(store / "recordings" / "balls", tmp_path / "store" / "recordings" / "bad")
    (tmp_path / "store" / "recordings" / "bad" / "masks" / "c.0.0.0").write_bytes(b"spoilt")
    done = setcon("verify", tmp_path / "store")
    assert error_of(done).endswith("store: 1 recording damaged; restore or ingest again")
    bad, balls = done.stdout.splitlines()
    assert bad.startswith("bad: 1 damaged chunk; ")
    assert "chunk 0 of `masks` is damaged" in bad
    assert balls.startswith("balls: ok, ")
    done = setcon("verify", tmp_path / "store", "--json", "--recordings", "b*d")
    error_of(done)
    (found,) = json.loads(done.stdout)["recordings"]
    assert (found["ok"], found["frames"], found["damaged_chunks"]) == (False, 120, 1)
    assert setcon("verify", tmp_path / "store", "--recordings", "balls").returncode == 0


def test_export_writes_a_video_and_its_masks_once(store: Path, tmp_path: Path) -> None:
    export = ["export", store, "balls", tmp_path / "out.mp4", "--start", "1", "--seconds", "2"]
    done = setcon(*export)
    assert done.returncode == 0, done.stderr
    assert "out.mp4: 30 frames, 1.9 s; masks in" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.masks.h5", "out.mp4"]
    assert "out.mp4: exists; name another file, or use --overwrite" in error_of(setcon(*export))
    assert setcon(*export, "--overwrite").returncode == 0


def test_a_recording_without_its_commit_record_is_named(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    shutil.copytree(store / "recordings/balls", tmp_path / "store/recordings/other")
    (tmp_path / "store/recordings/balls/commit.json").unlink()
    for command in ("info", "verify"):
        done = setcon(command, tmp_path / "store")
        assert done.returncode == 0, done.stderr
        assert "balls: no committed frames; ingest its source again" in done.stdout
        told = json.loads(setcon(command, tmp_path / "store", "--json").stdout)
        assert told["uncommitted"] == ["balls"]
    assert (
        setcon("ingest", store.parent / "balls.mp4", tmp_path / "store", "--size", "16").returncode
        == 0
    )
    assert "nothing is committed" not in setcon("verify", tmp_path / "store").stdout


def test_a_scene_replaces_nothing_unasked(tmp_path: Path) -> None:
    scene = ["scene", "balls", tmp_path / "a.mp4", "--frames", "2"]
    assert setcon(*scene).returncode == 0
    before = (tmp_path / "a.mp4").read_bytes()
    assert "a.mp4: exists; name another file" in error_of(setcon(*scene, "--seed", "1"))
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert setcon(*scene, "--seed", "1", "--overwrite").returncode == 0
    assert (tmp_path / "a.mp4").read_bytes() != before


def test_a_demo_of_another_video_is_refused_before_anything_is_written(
    video: Path, tmp_path: Path
) -> None:
    assert setcon("ingest", video, tmp_path / "demo/store", "--size", "32").returncode == 0
    (tmp_path / "other.mp4").touch()
    before = sorted(tmp_path.rglob("*"))
    for words in ([tmp_path / "other.mp4"], []):
        line = error_of(setcon("demo", *words, "--out", tmp_path / "demo"))
        assert f"holds the demo of {video}; give that of" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unbroken_recording_reads_as_unbroken(video: Path, store: Path, tmp_path: Path) -> None:
    assert "corrupt packets 0, no breaks" in setcon("info", store).stdout
    assert ", no breaks, " in setcon("ingest", video, store, "--size", "16").stdout
    shutil.copytree(store, tmp_path / "store")
    commit = tmp_path / "store" / "recordings" / "balls" / "commit.json"
    for gaps, text in ((2, "1 break\n"), (3, "2 breaks\n")):
        commit.write_text(re.sub(r'"gaps":\d+', f'"gaps":{gaps}', commit.read_text()))
        assert text in setcon("info", tmp_path / "store").stdout


def test_a_second_frame_size_in_a_store_is_told_at_once(
    video: Path, store: Path, tmp_path: Path
) -> None:
    shutil.copytree(store, tmp_path / "store")
    shutil.copy(video, tmp_path / "other.mp4")
    ingest = ["ingest", tmp_path / "other.mp4", tmp_path / "store", "--size"]
    done = setcon(*ingest, "24")
    assert done.returncode == 0
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "(16x16: balls; 24x24: other)" in warning
    assert "another --size and --overwrite, or use `setcon train --recordings GLOB`" in warning
    done = setcon(*ingest, "16", "--overwrite")
    assert done.returncode == 0
    assert "warning" not in done.stderr


def test_a_camera_is_recorded_and_listed(tmp_path: Path) -> None:
    done = setcon("capture", PICTURE, tmp_path / "store", "--size", "16", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    captured = re.fullmatch(
        r"(lavfi-\S+): captured, (\d+) frames of 16x16, \d\.\d s, no breaks, 0 dropped, "
        r"0 reconnects\n",
        done.stdout,
    )
    assert captured, done.stdout
    held = json.loads(setcon("info", tmp_path / "store", "--json").stdout)
    (recording,) = held["recordings"]
    assert (recording["name"], recording["length"]) == (captured[1], int(captured[2]))
    assert recording["length"] >= 50
    assert (recording["live"], recording["complete"]) == (True, True)


ONE_REQUEST = """
import cli, ingest.disk.signals
ingest.disk.signals.REPEAT_SECONDS = 600.0  # however slow the machine is
cli.main()
"""


def test_a_capture_is_finished_by_ctrl_c_and_readable_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE_REQUEST]
    command += ["capture", PICTURE, "store", "--size", "16", "--name"]
    for name, number, code in (("a", signal.SIGINT, 0), ("b", signal.SIGKILL, -signal.SIGKILL)):
        capture = subprocess.Popen(
            [*command, name], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        while not (tmp_path / "store" / "recordings" / name / "commit.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        store = open_store(tmp_path / "store")
        while not store.commit(name).length:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        capture.send_signal(number)
        while number == signal.SIGINT and capture.poll() is None:  # as often as it can come
            assert time.monotonic() < deadline
            capture.send_signal(number)
            time.sleep(0.005)
        out, _ = capture.communicate(timeout=30)
        assert capture.returncode == code
        assert out.startswith(b"a: captured, ") or number == signal.SIGKILL
        assert store.commit(name).complete == (number == signal.SIGINT)
        with store.reader(name) as reader:
            assert len(reader.read(0, reader.commit.length)) >= 12
    killed = store.commit("b")
    assert f"b: {killed.length} frames" in setcon("info", tmp_path / "store").stdout
    frames = zarr.open_array(tmp_path / "store/recordings/b/frames", mode="r")
    assert frames.shape == (killed.length, 16, 16, 3)  # no black frames after the last
    again, other = (
        setcon("capture", PICTURE, tmp_path / "store", *options, "--seconds", "1")
        for options in (["--name", "b", "--size", "16"], ["--name", "a", "--size", "16"])
    )
    assert again.stdout.startswith("b: captured, ")
    with store.reader("b") as reader:
        assert reader.commit.complete
        assert reader.commit.length > killed.length
        assert reader.gap().nonzero()[0].tolist() == [0, killed.length]
    assert setcon("verify", tmp_path / "store").returncode == 0
    assert "there is a recording 'a' already; give another name" in error_of(other)


def test_what_another_program_writes_is_captured_and_ends_with_it(tmp_path: Path) -> None:
    """All at once, as where the reader starts late: each frame still has its place in time."""
    frames = [b"FRAME\n" + bytes([16 + 2 * index]) * (16 * 16 * 3 // 2) for index in range(60)]
    y4m = b"YUV4MPEG2 W16 H16 F25:1 Ip A1:1 C420jpeg\n" + b"".join(frames)
    options = [tmp_path / "store", "--name", "a", "--size", "16"]
    done = setcon("capture", "-", *options, stdin=y4m)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a: captured, 60 frames of 16x16, 2.")
    assert "WARNING" not in done.stderr
    with open_store(tmp_path / "store").reader("a") as reader:
        assert reader.commit.complete
        assert (np.diff(reader.pts_ns()) >= 40_000_000).all()
        assert reader.gap().sum() == 1
    refused = setcon("capture", "-", *options)
    assert "-: standard input is not a pipe; pipe MPEG-TS" in error_of(refused)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tape:0"], "tape:0: not a device; use /dev/video0 or 0, rtsp://"),
        (["v4l2:/dev/video99"], "v4l2:/dev/video99: No such file or directory; th"),
        (["lavfi:testsrc2", "--option", "fast"], "--option fast: not KEY=VALUE"),
    ],
)
def test_a_device_that_cannot_be_captured_leaves_no_store(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    device, *options = arguments
    assert message in error_of(setcon("capture", device, tmp_path / "store", *options))
    assert not (tmp_path / "store").exists()


def test_an_address_that_cannot_be_served_at_is_refused(tmp_path: Path) -> None:
    done = setcon("capture", PICTURE, tmp_path / "store", "--serve", "tcp://0.0.0.0:5557")
    assert "other machines need CURVE keys: `setcon keygen` makes them" in error_of(done)
    assert not (tmp_path / "store").exists()


def test_keys_are_made_once_and_let_a_trainer_in(store: Path, tmp_path: Path) -> None:
    for name in ("server", "trainer"):
        done = setcon("keygen", tmp_path / name)
        assert done.stdout.strip().endswith(f"{tmp_path}/{name}/{name}.public")
    assert "already exists" in error_of(setcon("keygen", tmp_path / "server"))
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "setcon", "serve", str(store), "--bind", "tcp://0.0.0.0:*"),
            *("--keys", tmp_path / "server", "--allow", tmp_path / "trainer" / "trainer.public"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip().rpartition(":")[2]
        arguments = [
            *("train", "--connect", f"tcp://127.0.0.1:{port}", "--run", tmp_path / "run", *FAST),
            *("--steps", "1", "--server-key", tmp_path / "server" / "server.public"),
        ]
        done = setcon(*arguments, "--keys", tmp_path / "trainer")
        assert "complete at step 1" in done.stdout, done.stderr
    finally:
        server.terminate()
        server.communicate(timeout=20)
    assert server.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "store", "--keys", "k"], "--keys DIR and --allow PATH must be given together"),
        (["capture", "v4l2:/dev/video0", "store", "--keys", "k"], "are for --serve ADDR"),
        (
            ["train", "--connect", "ipc:///s", "--run", "r", "--keys", "k"],
            "--server-key FILE go together",
        ),
        (["train", "store", "--run", "r", "--keys", "k", "--server-key", "s"], "need --connect"),
    ],
)
def test_half_of_what_security_needs_is_refused(arguments: list[str], message: str) -> None:
    done = setcon(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "a.mp4", "store", "--fps", "inf"],
        ["serve", "store", "--holdout", "nan"],
        ["train", "store", "--run", "run", "--minutes", "nan"],
    ],
)
def test_an_option_that_is_no_finite_number_is_refused(arguments: list[str]) -> None:
    done = setcon(*arguments)
    assert done.returncode == 2
    assert "is not a finite number" in done.stderr.splitlines()[-1]


def test_a_rate_beyond_all_cameras_is_refused(video: Path, tmp_path: Path) -> None:
    done = setcon("ingest", video, tmp_path / "store", "--fps", "1e300")
    assert done.returncode == 2
    assert "fps must lie in 0.001..1000000, got 1e+300" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["s", "--run", "r", "--minutes", "1"], ["s", "--run", "r"]),
        (["--steps=9", "s", "--minutes=1", "--run", "r"], ["s", "--run", "r"]),
        (
            ["s", "--run=r", "--steps", "9", "--set", "training.steps=3", "--set", "a.b=c d"],
            ["s", "--run", "r", "--set", "training.steps=3", "--set", "a.b=c d"],
        ),
        (["--connect", "a", "--run", "r"], ["--connect", "a", "--run", "r"]),
    ],
)
def test_the_command_that_is_written_down_has_no_limits(typed: list[str], kept: list[str]) -> None:
    context = train.make_context("train", list(typed))
    assert command_line(context) == ["setcon", "train", *kept]


def test_ingesting_again_is_free_and_says_so(video: Path, store: Path) -> None:
    done = setcon("ingest", video, store, "--size", "16")
    assert done.returncode == 0
    assert "already complete" in done.stdout


def loaded_by(*arguments: object, names: Sequence[str]) -> list[str]:
    """Which of these modules a command has loaded by its end."""
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "import cli\n"
        f"CliRunner().invoke(cli.main, {list(map(str, arguments))!r})\n"
        f"print([name for name in {list(names)!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return ast.literal_eval(done.stdout)


@pytest.mark.parametrize("command", ["ingest", "capture", "serve"])
def test_commands_that_need_no_torch_do_not_load_it(command: str) -> None:
    places = ["/nowhere"] if command == "serve" else ["/nowhere", "/nowhere"]
    needs = "zmq" if command == "serve" else "av"
    assert loaded_by(command, *places, names=["torch", needs]) == [needs]


def test_what_a_store_holds_is_shown_without_the_libraries_that_decode(store: Path) -> None:
    heavy = ["torch", "av", "zarr", "h5py", "PIL", "matplotlib", "numpy", "jaxtyping"]
    assert loaded_by("info", store, names=[*heavy, "ingest.open"]) == ["ingest.open"]


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        (["ingest", "/nowhere", "/nowhere"], "opening the sources\n"),
        (["eval", "/nowhere", "/nowhere"], "loading PyTorch\n"),
    ],
)
def test_something_is_shown_before_what_takes_long_to_import(command, begins):
    done = setcon(*command)
    assert done.returncode == 1
    assert done.stderr.startswith(begins)


def test_what_ffmpeg_says_is_printed_only_when_it_is_asked_for(video, tmp_path):
    data = bytearray(video.read_bytes())
    damaged = tmp_path / "damaged.mp4"
    start = data.index(b"mdat") + 2000
    data[start : start + 400] = bytes(400)
    damaged.write_bytes(data)
    quiet = setcon("ingest", damaged, tmp_path / "quiet")
    loud = setcon("-v", "ingest", damaged, tmp_path / "loud")
    assert quiet.returncode == loud.returncode == 0
    assert "[h264 @" in loud.stderr
    assert "[h264 @" not in quiet.stderr


def test_a_video_that_was_cut_off_is_ingested_with_a_warning(tmp_path):
    whole = tmp_path / "whole.mkv"
    render_scene(BallsConfig(num_frames=200, fps=20, size=32), tmp_path / "scene.mp4")
    with av.open(str(tmp_path / "scene.mp4")) as source, av.open(str(whole), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = setcon("ingest", cut, tmp_path / "store")
    assert done.returncode == 0
    assert f"warning: {cut}: ends after " in done.stderr
    assert "its header promises 10.0 s" in done.stderr
    assert "cut: recorded" in done.stdout
