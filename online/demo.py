"""The whole system on one recording: render or take a video, ingest, serve, train, probe, report.

    quilt.mp4 + masks ──ingest──▶ store ──serve──▶ train ──▶ probe on held-out footage ──▶ report
                                    └──look──▶ which camera, how long, does anything move

Everything goes through the same doors as by hand; a second call continues the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.disk.durable import write_whole
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.recorder import RecordProgress
from ingest.scenes.tabletop import QuiltConfig
from ingest.scenes.video import render_scene
from ingest.store.output import writing
from ingest.store.records import RecordSettings
from online.config import RunConfig
from online.errors import RunError
from online.look import Look, look_at
from online.made_for import MADE_FOR
from online.reports.figures import hero_figure
from online.reports.verdict import so_far
from online.runs.log import latest_panels
from online.session.outcome import Outcome
from online.session.start import train_on_store
from online.session.status import Observer

log = logging.getLogger(__name__)

SCENE = QuiltConfig(num_frames=1800)
"""The recording that is made where none is given; its seed is the demo's."""
PRESET = "things"
SCENE_SETTINGS = ("training.steps=250", "probe.steps=400", "evaluation.train_clips=12")
"""What is set for that recording, so that the demo takes some minutes of a CPU."""
STORE, RUN = "store", "run"
"""Where the recording and what is learned go."""
PICTURE = "demo.png"
"""Held-out frames with what the probe reads from their slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoProgress:
    """Called back during the stages before training."""

    rendering: Callable[[int], None]
    """Frames drawn so far, of `SCENE.num_frames`."""
    ingesting: Callable[[RecordProgress], None]
    looked: Callable[[Look], None]
    """What the video that is learned from looks like."""


def run_demo(
    out: Path,
    config: RunConfig,
    *,
    video: Path | None = None,
    minutes: float | None = None,
    progress: DemoProgress,
    observe: Observer,
    command: Sequence[str] = (),
) -> Outcome:
    """Run the demo in the directory `out`; without `video` a procedural recording is made.

    Raises IngestError, OnlineError: in one line; what was made stays.
    """
    store, wanted = out / STORE, MADE_FOR[PRESET]
    settings = RecordSettings(size=wanted.size, fps=wanted.fps)
    if store.exists():
        settings = _held(store, video or _made(out, config.training.seed)) or settings
    source = video or _rendered(out, config.training.seed, progress.rendering)
    outcomes = ingest_sources([str(source)], store, settings, progress=progress.ingesting)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    recordings = open_store(store).recordings()
    if len(recordings) != 1:
        raise RunError(
            f"{source}: the demo learns from one video, {store} holds {len(recordings)}; name one "
            "video, and a new --out"
        )
    progress.looked(look_at(open_store(store), recordings[0]))
    run = out / RUN
    learned = train_on_store(store, run, config, minutes=minutes, observe=observe, command=command)
    if learned.evaluation is not None:
        panels, unreadable = latest_panels(run)
        for damage in unreadable:
            log.warning("%s: %s", run, damage)
        if panels is not None:
            said = so_far(learned.step, config.training.steps, learned.evaluation)
            with writing(out / PICTURE):
                write_whole(out / PICTURE, hero_figure(panels, said=said))
    return learned


def _held(store: Path, video: Path) -> RecordSettings | None:
    """How the store's video was ingested; refuses another before anything of it is written."""
    held, settings = open_store(store), None
    for name in held.recordings():
        commit = held.commit(name)
        source, settings = Path(commit.source.path), commit.settings
        if source.name != video.name:  # it may have been moved
            raise RunError(
                f"{store.parent}: holds the demo of {source}; give that of {video} another --out"
            )
    return settings


def _made(out: Path, seed: int) -> Path:
    return out / f"quilt-{seed}.mp4"


def _rendered(out: Path, seed: int, progress: Callable[[int], None]) -> Path:
    path = _made(out, seed)
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        render_scene(replace(SCENE, seed=seed), path, progress=progress)
    return path
