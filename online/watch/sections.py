"""The parts of the live page as markup; all text is escaped by `text`."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from online.reports.curves import curve_cards
from online.reports.figures import draw_hero, hero_caption
from online.reports.glimpses import GlimpseTiles
from online.reports.page import text
from online.reports.report import SHOWN_RECORDINGS, recordings_of, tiles
from online.reports.verdict import verdict
from online.runs.glimpse import MOST_PIXELS, Glimpse, subsampling
from online.runs.log import RunLog
from online.scores.numbers import clock, duration
from online.watch.live import Live

if TYPE_CHECKING:
    from ingest.store.records import CommitRecord
    from online.watch.footage import Recording

SHOWN_EVENTS = 30
CRISP_PIXELS = 80
"""Frames up to this size are shown pixel by pixel."""
HERO_FRAMES = 3
_JPEG_QUALITY = 88
_ABSENT = "There is no run here yet. The page fills when it begins."


def state(live: Live, run: RunLog | None) -> str:
    """What the run does, how far it is and how long it will take."""
    if live.activity == "absent":
        return _line("absent", _ABSENT)
    if live.activity == "ended":
        step = "" if run is None or run.reached is None else f" at step {run.reached.step:,}"
        return _line("ended", f"Not at work{step}. What it left is shown.")
    status = live.status
    if not status:
        return _line("work", "Starting.")
    share = status.get("share")
    done = "" if share is None else f" {share:.0%}"
    waits = status.get("activity") == "waiting for data"
    said = [f"<b>{text(str(status.get('activity', '')).capitalize())}{done}</b>"]
    said.append(f"step {status.get('step', 0):,} of {status.get('steps', 0):,}")
    if (budget := status.get("budget_seconds")) is not None:
        said[-1] += f", or as many as {duration(budget)} allow"
    if (eta := status.get("eta_seconds")) is not None and not waits:
        said.append(f"{clock(eta)} left")
    if status.get("beside"):
        said.append(text(status["beside"]))
    bar = ""
    if share is not None:
        bar = (
            f'<progress max="1" value="{share:.4f}" aria-label="Share that is done">'
            f"{share:.0%}</progress>"
        )
    return f'<p class="state work">{" · ".join(said)}</p>{bar}'


def missing(name: str | None) -> str:
    """That there is no run of that name."""
    return _line("absent", "No run is shown." if name is None else f"{name}: no such run.")


def glimpse(found: Glimpse, shown: GlimpseTiles) -> str:
    """The newest frame, its segments by attention, and each slot's part."""
    crisp = max(found.frame.shape[:2]) <= CRISP_PIXELS
    whole = "".join(
        _tile(picture, crisp, f"<b>{name}</b>", name)
        for name, picture in (
            ("Newest frame", shown.frame),
            ("Segments by attention", shown.segments),
            ("Both", shown.mixed),
        )
    )
    slots = "".join(
        _tile(
            slot.picture,
            crisp,
            f'<i style="--tone: rgb{slot.colour}"></i>slot {slot.number + 1} '
            f"<small>{slot.share:.0%}</small>",
            f"What slot {slot.number + 1} reads",
        )
        for slot in shown.slots
    )
    found_none = ""
    if found.segments is not None and not found.segments.any():
        found_none = " No object was found in it."
    where = f"{found.recording}, {found.frame_seconds:.1f} s, as the model of step {found.step:,}"
    return (
        f'<h2>What it sees</h2><p class="quiet">{text(where)} sees it, without a probe.'
        f"{found_none}</p>"
        f'<div class="shots whole">{whole}</div><div class="shots">{slots}</div>'
    )


def counters(live: Live, run: RunLog | None) -> str:
    """Queue, camera and replay."""
    status: Mapping[str, Any] = live.status
    last = run.steps[-1] if run is not None and run.steps else None
    if not status and last is None:
        return ""
    received = status.get("clips_received", last and last.clips_received)
    inserted = status.get("clips_inserted", last and last.clips_inserted)
    skipped = status.get("skipped", last and last.clips_skipped)
    delay = status.get("delay_seconds", last and last.delay_seconds)
    groups = {
        "Queue": [
            ("clips received", _whole(received)),
            ("waiting to be used", _megabytes(status.get("queued_bytes"))),
            ("connected again", _whole(status.get("reconnects", last and last.reconnects))),
            ("damaged", _whole(status.get("damaged", last and last.damaged_clips))),
            ("came too late", _whole(status.get("discarded", last and last.discarded_messages))),
            ("time spent waiting", _share(last and last.wait_share)),
        ],
        "Camera": [
            ("delay to the trainer", None if delay is None else f"{delay:.1f} s"),
            ("clips skipped", _whole(skipped)),
        ],
        "Replay": [
            ("clips inserted", _whole(inserted)),
            ("newest clips held", _whole(status.get("fifo_clips"))),
            ("older clips held", _whole(status.get("long_term_clips"))),
            (
                "each clip seen",
                _times(status.get("samples_per_insert", last and last.samples_per_insert)),
            ),
        ],
        "Time": [
            ("of the run", None if run is None or run.reached is None else _lasted(run)),
            ("paused for probes", _share(last and last.probe_share)),
            ("paused for checkpoints", _share(last and last.checkpoint_share)),
        ],
    }
    if delay is None and not skipped:
        del groups["Camera"]  # it learns from files
    cards = "".join(_card(name, rows) for name, rows in groups.items())
    return f'<h2>Data and time</h2><div class="counters">{cards}</div>'


def store_state(found: Sequence[Recording]) -> str:
    """Whether a recording grows."""
    if not found:
        return _line("absent", "There are no recordings yet.")
    newest = found[0]
    if newest.commit.complete:
        return _line("ended", f"{newest.name} is complete.")
    return _line("work", f"{newest.name}: {newest.commit.length:,} frames so far.")


def newest_frame(name: str, image: UInt8[np.ndarray, "h w 3"], commit: CommitRecord) -> str:
    """The frame that was written last."""
    every = subsampling(image, MOST_PIXELS)
    crisp = max(image.shape[:2]) <= CRISP_PIXELS
    shown = _tile(image[::every, ::every], crisp, f"<b>{text(name)}</b>", "The newest frame")
    return (
        f'<h2>Newest frame</h2><p class="quiet">{commit.duration_seconds:,.1f} s into the '
        f'recording, {commit.width}x{commit.height}.</p><div class="shots whole">{shown}</div>'
    )


def recordings(found: Sequence[Recording]) -> str:
    """What was counted in each recording."""
    cards = ""
    for each in found:
        commit, delay = each.commit, each.delay_seconds
        rows = [
            ("frames", _whole(commit.length)),
            ("length", duration(commit.duration_seconds)),
            ("dropped", _whole(commit.counters.dropped)),
            ("breaks", _whole(max(0, commit.counters.gaps - 1))),
            ("damaged packets", _whole(commit.counters.corrupt_packets)),
            ("deleted", _whole(commit.released) if commit.released else None),
            ("delay to the disk", None if delay is None else f"{delay:.1f} s"),
        ]
        cards += _card(each.name, rows)
    return f'<h2>Recordings</h2><div class="counters">{cards}</div>' if cards else ""


def words(run: RunLog) -> str:
    """What it learns from, and what it has learned as far as is known."""
    names = recordings_of(run)
    shown = ", ".join(names[:SHOWN_RECORDINGS])
    if len(names) > SHOWN_RECORDINGS:
        shown += f" and {len(names) - SHOWN_RECORDINGS:,} more"
    alarms = [event for event in run.events if event.is_alarm]
    alarm = ""
    if alarms:
        alarm = f'<p class="alarm">Step {alarms[-1].step:,}: {text(alarms[-1].message)}</p>'
    on = f'<p class="names">On {text(shown)}</p>' if shown else ""
    return f'{on}<p class="verdict">{text(verdict(run))}</p>{alarm}'


def numbers(run: RunLog) -> str:
    """The headline numbers, each with its baseline."""
    return tiles(run)


def probe(run: RunLog) -> str:
    """What the latest probe drew from held-out frames."""
    if run.panels is None or run.evaluation is None:
        return (
            '<h2>By the probe</h2><p class="quiet">No probe has been made yet. One is made every '
            "<code>evaluation.every_steps</code> steps and at the end.</p>"
        )
    image = draw_hero(run.panels, most=HERO_FRAMES)
    label = "Held-out frames, their reconstructions, segments and slots"
    return (
        f'<h2>By the probe</h2><p class="quiet">Step {run.evaluation.step:,}. '
        f"{text(hero_caption(run.panels))}</p>"
        f'<div class="wide" tabindex="0" role="group" aria-label="{label}; scrolls sideways">'
        f'<img src="{_source(image, crisp=True)}" width="{image.width}" height="{image.height}" '
        f'alt="{label}"></div>'
    )


def curves(run: RunLog) -> str:
    """Loss over chance, top-1, exclusivity, new footage and the like, over steps."""
    cards = curve_cards(run)
    if not cards:
        return ""
    return f'<h2>Curves</h2><div class="charts">{"".join(cards)}</div>'


def events(run: RunLog) -> str:
    """The latest events, newest first."""
    if not run.events:
        return ""
    items = "".join(
        f'<li class="{"hot" if event.is_alarm else "calm"}"><span>step {event.step:,}, after '
        f"{duration(event.seconds)}</span><span>{text(event.message)}</span></li>"
        for event in reversed(run.events[-SHOWN_EVENTS:])
    )
    return f'<h2>Events</h2><ol class="events">{items}</ol>'


def notes(problems: Iterable[str]) -> str:
    """What could not be read."""
    return "".join(f'<p class="quiet">{text(problem)}.</p>' for problem in problems)


def _line(kind: str, said: str) -> str:
    return f'<p class="state {kind}">{text(said)}</p>'


def _tile(picture: UInt8[np.ndarray, "h w 3"], crisp: bool, caption: str, label: str) -> str:
    source = _source(Image.fromarray(np.ascontiguousarray(picture)), crisp=crisp)
    kind = ' class="crisp"' if crisp else ""
    return (
        f'<figure{kind}><img src="{source}" alt="{text(label)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _source(image: Image.Image, *, crisp: bool) -> str:
    data, kind = io.BytesIO(), "png" if crisp else "jpeg"
    if crisp:
        image.save(data, format="PNG")
    else:
        image.save(data, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"


def _card(name: str, rows: Iterable[tuple[str, str | None]]) -> str:
    cells = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows if value is not None)
    return f'<div class="card"><h3>{text(name)}</h3><dl>{cells}</dl></div>' if cells else ""


def _lasted(run: RunLog) -> str:
    assert run.reached is not None
    return duration(run.reached.seconds)


def _whole(value: int | float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _share(value: int | float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _times(value: int | float | None) -> str | None:
    return None if value is None else f"{value:.1f} times"


def _megabytes(value: int | float | None) -> str | None:
    return None if value is None else f"{value / 1e6:.1f} MB"
