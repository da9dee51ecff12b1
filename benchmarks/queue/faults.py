"""Runs of a real trainer on a real server while both are killed, stopped and lied to.

    python benchmarks/queue/faults.py [--faults 1000] [--seed 0] [--json FILE]

    trainer ──▶ relay, which cuts, delays and garbles ──▶ server ──▶ store
      │
      └──▶ ledger of clips, metrics.jsonl

Every run goes through the store four times. Whatever happened to it, its ledger must hold each
clip of the plan once, in order, and its losses must be those of a run that was left alone, bit for
bit. A process that ends in any other way than by a fault or with one clear line fails the
benchmark.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ledger import ledger_writer, read_ledger
from points import POINTS, STOPPED_SECONDS, Signal, arm
from relay import Relay

from ingest.errors import IngestError
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.clips.catalog import StoreCatalog
from online.errors import OnlineError
from online.queue.feed import Fate
from online.queue.server import serve

EPOCHS = 4
SETTINGS = (
    "training.steps=1000000",
    "training.batch_clips=4",
    "training.log_every_steps=1",
    "training.precision=float32",
    "training.checkpoint_every_seconds=0.1",
    "training.prequential_candidates=8",
    "training.prequential_gap_seconds=1",
    "training.threads=1",
    "replay.samples_per_insert=2",
    "replay.fifo_bytes=61440",  # 8 clips
    "replay.long_term_bytes=61440",
    "stream.clip_length=8",
    f"stream.max_epochs={EPOCHS}",
    "stream.credit_bytes=200000",
    "stream.order=shuffled",
    "evaluation.every_steps=1000000",
    "evaluation.train_clips=4",
    "evaluation.held_out_clips=2",
    "evaluation.panel_frames=2",
    "probe.steps=2",
)
ENDED, STOPPED_WITH_A_LINE, FAILED = 0, 1, 70
"""Exit codes of a trainer; any other but SIGKILL's is a failure of the program."""
RUN_SECONDS = 300.0
"""Longest that a run may take from its last fault to its end."""

CONTEXT = get_context("forkserver")

Mishap = tuple[str, int, Signal]
"""A point, which passing of it, and what happens there."""


class Failure(Exception):  # noqa: N818 - what the benchmark looks for
    """Something was lost, repeated or torn, or a process failed."""


def train(address: str, run: str, mishap: Mishap | None) -> None:
    """A trainer, and the fault that it will meet."""
    from online.config import load_preset
    from online.session.start import train as learn
    from online.session.wiring import Start

    signal.signal(signal.SIGUSR1, _fill_the_disk)
    if mishap is not None:
        arm(*mishap)
    try:
        learn(
            Start(
                run=Path(run),
                config=load_preset("demo", SETTINGS),
                addresses=[address],
                observe_clips=ledger_writer(ledger_of(Path(run))),
            )
        )
    except (OnlineError, IngestError):
        os._exit(STOPPED_WITH_A_LINE)
    except BaseException:
        traceback.print_exc()
        os._exit(FAILED)
    os._exit(ENDED)


def ledger_of(run: Path) -> Path:
    """Next to the run's folder, which belongs to the trainer."""
    return run.with_name(f"{run.name}.ledger.jsonl")


def keep_serving(store: str, address: str, mishap: Mishap | None) -> None:
    """A server, and the fault that it will meet."""
    if mishap is not None:
        arm(*mishap)
    serve(open_store(Path(store)), address)


def _fill_the_disk(*_: object) -> None:
    """Let no file grow any more: what a full disk is to a process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


@dataclass
class Stage:
    """A server, a relay before it and a trainer, each of which may be gone at any time."""

    store: Path
    run: Path
    relay: Relay
    server_address: str
    rng: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    """Errors that trainers ended with, each one line."""
    server: ForkServerProcess | None = None
    trainer: ForkServerProcess | None = None

    def start_server(self, mishap: Mishap | None = None) -> None:
        """Start a server where the last one was."""
        self.server = CONTEXT.Process(
            target=keep_serving, args=(str(self.store), self.server_address, mishap), daemon=True
        )
        self.server.start()

    def start_trainer(self, mishap: Mishap | None = None) -> None:
        """Start the trainer that continues the run."""
        self.trainer = CONTEXT.Process(
            target=train, args=(self.relay.address, str(self.run), mishap), daemon=True
        )
        self.trainer.start()

    def ended(self) -> bool:
        """Whether the run is complete; starts what has died of a fault or with a line again."""
        assert self.trainer is not None
        assert self.server is not None
        if not self.server.is_alive():
            _check_exit("server", self.server.exitcode, (-signal.SIGKILL,))
            self.start_server()
        if self.trainer.is_alive():
            return False
        code = self.trainer.exitcode
        # SIGUSR1 fills the disk, and ends a trainer that has not come so far as to hear it
        allowed = (ENDED, STOPPED_WITH_A_LINE, -signal.SIGKILL, -signal.SIGUSR1)
        _check_exit("trainer", code, allowed)
        if code == ENDED:
            return True
        self.lines["ended with a line"] += code == STOPPED_WITH_A_LINE
        self.start_trainer()
        return False

    def inject(self) -> None:
        """Inject one fault, at random."""
        name, fault = self.rng.choice(list(self._faults().items()))
        self.faults[name] += 1
        fault()

    def close(self) -> None:
        """Kill both."""
        for process in (self.trainer, self.server):
            if process is not None:
                process.kill()
                process.join()

    def _faults(self) -> dict[str, Callable[[], None]]:
        def stop_for(who: str) -> Callable[[], None]:
            return lambda: self._pause(who, self.rng.choice([0.1, 1.0, 4.5]))

        everything: dict[str, Callable[[], None]] = {
            "trainer: SIGKILL": lambda: _kill(self.trainer),
            "server: SIGKILL": lambda: _kill(self.server),
            "both: SIGKILL": self._kill_both,
            "trainer: SIGSTOP": stop_for("trainer"),
            "server: SIGSTOP": stop_for("server"),
            "trainer: full disk": lambda: _signal(self.trainer, signal.SIGUSR1),
            "wire: reset": self.relay.reset,
            "wire: cut within a message to the trainer": self.relay.cut,
            "wire: cut within a message to the server": lambda: self.relay.cut("server"),
            "wire: flipped bit to the trainer": lambda: self.relay.flip(self.rng.random()),
            "wire: flipped bit to the server": lambda: self.relay.flip(self.rng.random(), "server"),
            "wire: delay": lambda: self.relay.delay(self.rng.choice([0.2, 2.0, 4.0])),
            "wire: reset, and a delay": self._delay_reconnects,
            "wire: older bytes after a newer connection": self._reorder_reconnects,
        }
        for point in POINTS:
            everything[f"{point}: SIGKILL"] = lambda p=point: self._befall(p, "SIGKILL")
            everything[f"{point}: SIGSTOP"] = lambda p=point: self._befall(p, "SIGSTOP")
        return everything

    def _delay_reconnects(self) -> None:
        """Connections are opened again and paused; after 3 s newer ones open alongside them."""
        self.relay.delay(self.rng.choice([0.5, 2.0, 5.0]))
        self.relay.reset()

    def _reorder_reconnects(self) -> None:
        """The server hears a trainer's older Hello after it has reconnected on another socket."""
        self.relay.flip(self.rng.random())  # which the trainer answers with a Hello
        self.relay.overtake(self.rng.choice([0.0, 0.2, 1.0]))
        time.sleep(8.0)  # after 3 s the server is silent, and 3 s later the trainer turns away

    def _kill_both(self) -> None:
        _kill(self.trainer)
        _kill(self.server)

    def _befall(self, point: str, how: Signal) -> None:
        """Restart a process that dies or stops at `point`, unless it never gets there."""
        passing = self.rng.randint(1, 30)
        who = point.partition(":")[0]
        process = self.trainer if who == "trainer" else self.server
        _kill(process)
        start = self.start_trainer if who == "trainer" else self.start_server
        start((point, passing, how))
        process = self.trainer if who == "trainer" else self.server
        assert process is not None
        process.join(4.0 if how == "SIGKILL" else 2.5 + STOPPED_SECONDS)

    def _pause(self, who: str, seconds: float) -> None:
        process = self.trainer if who == "trainer" else self.server
        _signal(process, signal.SIGSTOP)
        time.sleep(seconds)
        _signal(process, signal.SIGCONT)


def _check_exit(who: str, code: int | None, allowed: tuple[int, ...]) -> None:
    if code not in allowed:
        raise Failure(f"the {who} ended with exit code {code}")


def _signal(process: ForkServerProcess | None, number: int) -> None:
    if process is not None and process.is_alive() and process.pid is not None:
        os.kill(process.pid, number)


def _kill(process: ForkServerProcess | None) -> None:
    if process is not None:
        process.kill()
        process.join()


def go_through(stage: Stage, faults: int, progress: Callable[[], None]) -> None:
    """One run to its end, with up to `faults` faults on the way."""
    stage.start_server()
    stage.start_trainer()
    done, quiet_since = 0, time.monotonic()
    while not stage.ended():
        time.sleep(0.02 if done == faults else stage.rng.expovariate(1 / 0.6))
        if done < faults and not stage.ended():
            stage.inject()
            done += 1
            progress()
            quiet_since = time.monotonic()
        if time.monotonic() - quiet_since > RUN_SECONDS:
            raise Failure(f"the run did not end in {RUN_SECONDS:g} s without faults")


def planned(store: Path) -> list[tuple[str, int, int]]:
    """Recording, start and length of every clip of one epoch, sorted."""
    from online.config import load_preset

    config = load_preset("demo", SETTINGS).stream.clip
    with closing(StoreCatalog(open_store(store))) as catalog:
        clips = [
            clip
            for name in catalog.names()
            for clip in catalog.clips(name, config, length=catalog.commit(name).length, closed=True)
        ]
    return sorted((clip.recording, clip.start, clip.length) for clip in clips)


def check_ledger(fates: list[Fate], plan: list[tuple[str, int, int]]) -> None:
    """Each clip of each epoch once, in the order of the plan."""
    places = [(fate.epoch, fate.index) for fate in fates]
    if places != [(epoch, index) for epoch in range(EPOCHS) for index in range(len(plan))]:
        raise Failure("the ledger does not go through the plan in order, each place once")
    for epoch in range(EPOCHS):
        specs = [fate.spec for fate in fates if fate.epoch == epoch]
        clips = sorted((spec.recording, spec.start, spec.length) for spec in specs)
        if clips != plan:
            raise Failure(f"epoch {epoch} of the ledger is not the plan")
    if any(fate.kind != "inserted" for fate in fates):
        raise Failure("a clip was skipped that is not live")


def learned(run: Path) -> list[tuple[Any, ...]]:
    """Every logged step's numbers."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(e["step"], e["loss"], e["top1"], e["grad_norm"]) for e in lines if e["kind"] == "step"]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_store(folder: Path) -> Path:
    """Two recordings of 700 and 500 frames at 16x16."""
    for name, frames, seed in (("a", 700, 1), ("b", 500, 2)):
        render_scene(
            BallsConfig(num_frames=frames, fps=15, size=32, seed=seed), folder / f"{name}.mp4"
        )
    videos = [str(folder / f"{name}.mp4") for name in "ab"]
    for outcome in ingest_sources(videos, folder / "store", RecordSettings(size=16)):
        if outcome.error is not None:
            raise outcome.error
    return folder / "store"


@dataclass
class Result:
    """What was done so far, and that nothing was lost by it."""

    wanted: int
    faults: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    losses: list[tuple[Any, ...]] = field(default_factory=list)
    """Those of the run left alone."""
    runs: int = 0
    """Runs besides that one."""

    def check(self, run: Path, plan: list[tuple[str, int, int]]) -> None:
        """Raise Failure if this run differs from the one left alone, which is the first."""
        try:
            check_ledger(read_ledger(ledger_of(run)), plan)
        except ValueError as error:
            raise Failure(str(error)) from error
        losses = learned(run)
        if self.losses and losses != self.losses:
            raise Failure(f"{run}: losses differ from those of the run left alone")
        self.runs += bool(self.losses)
        self.losses = losses

    def text(self, clips: int) -> str:
        """For people."""
        counts = [f"{name:52} {count:5}" for name, count in sorted(self.faults.items())]
        return "\n".join(
            [
                *counts,
                f"{'together':52} {self.faults.total():5}",
                f"{self.runs} runs of {len(self.losses)} steps and {clips} clips besides the one "
                "left alone: every clip inserted once, every loss equal; "
                f"{self.lines.total()} times the trainer ended with one line of its own",
            ]
        )


def measure(store: Path, folder: Path, relay: Relay, result: Result, rng: random.Random) -> None:
    """Runs with faults, after one without, until there were as many as wanted."""
    plan, started = planned(store), time.monotonic()
    address = f"tcp://127.0.0.1:{relay.server_port}"
    before = 0

    def progress() -> None:
        where = f"{before + stage.faults.total()} of {result.wanted} faults, run {result.runs + 1}"
        seconds = time.monotonic() - started
        print(f"\r{where}, {seconds:.0f} s", end="", file=sys.stderr, flush=True)

    while before < result.wanted or not result.losses:
        stage = Stage(store, folder / f"run-{result.runs}", relay, address, rng)
        try:
            go_through(stage, result.wanted - before if result.losses else 0, progress)
        finally:
            stage.close()
        result.check(stage.run, plan)
        result.faults += stage.faults
        result.lines += stage.lines
        before = result.faults.total()
        shutil.rmtree(stage.run)
        ledger_of(stage.run).unlink()
    print(file=sys.stderr)


def main() -> None:
    options = _options()
    CONTEXT.set_forkserver_preload(["online.session.start", "online.queue.server", "faults"])
    result = Result(options.faults)
    with scratch() as folder, Relay() as relay:
        store = make_store(folder)
        measure(store, folder, relay, result, random.Random(options.seed))
        print(result.text(clips=EPOCHS * len(planned(store))))
    if options.json is not None:
        found = {"faults": result.faults, "runs": result.runs, "lines": result.lines}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Faults that must lose nothing.")
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
