"""Whether the set loss makes segments better, and what slots that start at objects foresee.

    python benchmarks/training/set_loss.py STORE RUN [RUN ...] [--ideas NAME ...] [--steps N]

RUN is a run of the preset `things` on STORE, a recording of 10 frames a second with masks. Each
idea goes on from its checkpoint for N steps in float32, on the same clips in the same order, and
segments of held-out clips are scored before and after. What differs is the way by which the
gradient of the set loss, at a tenth of its weight, reaches what finds objects; otherwise it does
not:

    none          the foreground's loss alone, for comparison
    features      the set loss reaches the encoder through what slots read
    objects only  the same, of sets without the background's slot
    by slot       the same, each slot contrasted with its own index in place of whole sets
    horizon       the same, up to four steps ahead
    one clip      the same, frames of the same clip as the only negatives
    soft          slots read each position by how likely it is foreground, so that the set loss also
                  tells the foreground what makes slots predictable
    slot distance the same, and predicted slots are to be near those of the frame: no contrast
    foreseen      positions near the predicted place of an object are foreground, elsewhere not
    judged        nothing is learned: of four segmentations of a clip, by as many thresholds, that
                  one counts which the model predicts best

Then, of the same held-out clips before anything was changed, 0.2 and 0.5 seconds ahead: the error
of predicted centres as a share of that at constant velocity, and the mBO of segments moved to where
the transition predicts them, at constant velocity, and left where they were.
"""

import argparse
import copy
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ingest import open_store
from online import load_run
from setcon.config import LossConfig
from setcon.matching import match
from setcon.measures import metrics
from setcon.model import SetCon, SetConOutput
from setcon.slots.foreground import foreground_targets
from setcon.slots.object_slots import ObjectSlots, prediction_loss
from setcon.slots.slot_attention import Slots
from setcon.supervoxels.supervoxels import Supervoxels

FRAMES = 22
TRAIN_CLIPS, HELD_OUT_CLIPS = 48, 8
CLIPS_PER_STEP = 2
RATE, WARM_UP_STEPS = 3e-4, 10
WEIGHT = 0.1
TRUST = 0.25
THRESHOLDS = (0.25, 0.4, 0.55, 0.7)
AHEAD = {"0.2 s": 2, "0.5 s": 5}


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A run of frames with what is known of it."""

    frames: UInt8[Tensor, "t h w 3"]
    masks: Int64[Tensor, "t h w"]
    pieces: Supervoxels

    @property
    def images(self) -> Float[Tensor, "t 3 h w"]:
        """In 0..1."""
        return self.frames.movedim(-1, 1).float() / 255


@dataclass(frozen=True, slots=True)
class Idea:
    """How the set loss is let in."""

    loss: LossConfig | None = None
    """None leaves the set loss out."""
    soft: bool = False
    objects_only: bool = False
    one_clip: bool = False
    distance: bool = False
    foreseen: bool = False


SET = LossConfig()
IDEAS: dict[str, Idea] = {
    "none": Idea(),
    "features": Idea(SET),
    "objects only": Idea(SET, objects_only=True),
    "by slot": Idea(replace(SET, unit="slot")),
    "horizon": Idea(replace(SET, horizon=4)),
    "one clip": Idea(SET, one_clip=True),
    "soft": Idea(SET, soft=True),
    "slot distance": Idea(soft=True, distance=True),
    "foreseen": Idea(foreseen=True),
}


class SoftSlots(ObjectSlots):
    """Slots that read each position of their segment by how likely it is foreground."""

    def _read(
        self,
        features: Float[Tensor, "n p c"],
        images: Float[Tensor, "n 3 h w"],
        shares: Float[Tensor, "n k p"],
        *,
        grid: torch.Size,
    ) -> Float[Tensor, "n k d"]:
        likely = self.foreground(features).squeeze(-1).sigmoid()[:, None]
        own = shares[:, 1:] * likely
        background = 1 - own.sum(dim=1, keepdim=True)
        return super()._read(features, images, torch.cat([background, own], dim=1), grid=grid)


def encode(model: SetCon, clips: Sequence[Clip], *, outlines: bool) -> SetConOutput:
    """As `SetCon.forward` does, but the gradient reaches the encoder through slots too."""
    images = torch.cat([clip.images for clip in clips])
    pieces = [clip.pieces for clip in clips]
    assert isinstance(model.slot_attention, ObjectSlots)
    slots: Slots = model.slot_attention(model.encoder(images), images, pieces, outlines=outlines)
    return model.of_slots(slots, num_runs=len(clips), frame_stride=1)


def set_loss(model: SetCon, output: SetConOutput, idea: Idea) -> Float[Tensor, ""]:
    """What the idea minimises next to the foreground's loss."""
    if idea.objects_only:
        output = replace(output, slots=output.slots[:, :, 1:], predicted=output.predicted[:, :, 1:])
    if idea.distance:
        held = output.attention.sum(dim=-1) > 0
        valid = torch.ones(output.predicted.shape[:2], dtype=torch.bool)
        return prediction_loss(output.slots, output.predicted, held, valid)
    if idea.loss is None:
        return output.slots.new_zeros(())
    runs = [output]
    if idea.one_clip:
        runs = [
            SetConOutput(
                slots=output.slots[i, None],
                predicted=output.predicted[i, None],
                attention=output.attention[i, None],
            )
            for i in range(len(output.slots))
        ]
    losses = []
    for run in runs:
        valid = torch.ones(run.predicted.shape[:2], dtype=torch.bool)
        matching = match(valid, num_frames=run.slots.shape[1], horizon=idea.loss.horizon)
        losses.append(model.loss(run, idea.loss, matching=matching).loss)
    return torch.stack(losses).mean()


def targets_of(
    model: SetCon, output: SetConOutput, clips: Sequence[Clip], idea: Idea
) -> Float[Tensor, "b t p"]:
    """Labels of the foreground by motion; or where predicted slots say that objects will be."""
    assert output.foreground is not None
    found = [
        foreground_targets(
            clip.pieces, logits.detach().view(clip.pieces.labels.shape), trust=TRUST
        ).flatten(1)
        for clip, logits in zip(clips, output.foreground, strict=True)
    ]
    targets = torch.stack(found)
    if not idea.foreseen:
        return targets
    rows, columns = clips[0].pieces.labels.shape[1:]
    places = torch.stack(
        torch.meshgrid(
            torch.arange(rows) / (rows - 1), torch.arange(columns) / (columns - 1), indexing="ij"
        ),
        dim=-1,
    ).flatten(0, 1)
    predicted = output.predicted.detach()[:, :, 1:]
    centre, spread = predicted[..., None, :2], predicted[..., None, 2:4].clamp_min(0.02)
    near = (((places - centre) / spread).square().sum(dim=-1) < 4).any(dim=2)
    held = output.attention[:, 2:, 1:].sum(dim=(2, 3)) > 0
    later = targets[:, 2:]
    unknown = (later < 0) & held[..., None]
    later[unknown] = near[unknown].float()
    return targets


def learn(model: SetCon, clips: Sequence[Clip], idea: Idea, *, steps: int) -> None:
    """Go on from where the model is."""
    if idea.soft:
        soft = SoftSlots(model.config.slot_attention, feature_size=model.encoder.feature_size)
        soft.load_state_dict(model.slot_attention.state_dict())
        model.slot_attention = soft
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    order = np.random.default_rng(0)
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARM_UP_STEPS)
        chosen = [clips[i] for i in order.choice(len(clips), CLIPS_PER_STEP, replace=False)]
        with torch.set_grad_enabled(True):
            output = encode(model, chosen, outlines=False)
            assert output.foreground is not None
            targets = targets_of(model, output, chosen, idea)
            known = targets >= 0
            loss = F.binary_cross_entropy_with_logits(output.foreground[known], targets[known])
            loss = loss + WEIGHT * set_loss(model, output, idea)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def scores(model: SetCon, clips: Sequence[Clip]) -> tuple[float, float, float]:
    """FG-ARI, ARI and mBO of held-out segments, means over frames with two objects or more."""
    model.eval()
    return _means(clips, [_segments(model, clip) for clip in clips])


def judged(model: SetCon, clips: Sequence[Clip]) -> tuple[float, float, float]:
    """The same, of the segmentation of each clip whose slots are predicted best."""
    chosen = []
    for clip in clips:
        tried = []
        for threshold in THRESHOLDS:
            other = with_threshold(model, threshold)
            with torch.no_grad():
                output = encode(other, [clip], outlines=True)
                loss = set_loss(other, output, Idea(SET, one_clip=True))
            assert output.segments is not None
            tried.append((float(loss), threshold, output.segments[0]))
        chosen.append(min(tried, key=lambda each: each[:2])[2])
    return _means(clips, chosen)


def with_threshold(model: SetCon, threshold: float) -> SetCon:
    other = copy.deepcopy(model).eval()
    assert isinstance(other.slot_attention, ObjectSlots)
    other.slot_attention.config = replace(
        other.slot_attention.config, foreground_threshold=threshold
    )
    return other


@torch.no_grad()
def foresight(model: SetCon, clips: Sequence[Clip], ahead: int) -> tuple[float, ...]:
    """Errors of predicted centres over those at constant velocity; mBO moved as predicted, moved at
    constant velocity, and left."""
    model.eval()
    errors: list[tuple[float, float]] = []
    moved: list[tuple[float, float, float]] = []
    for clip in clips:
        output = encode(model, [clip], outlines=True)
        assert output.segments is not None
        slots, segments = output.slots[0], output.segments[0]
        held = output.attention[0].sum(dim=-1) > 0
        earlier, later = slots[: -1 - ahead], slots[1:-ahead]
        for _ in range(ahead):
            earlier, later = later, model.transition.step(earlier, later)
        now, before, truth = slots[1:-ahead, :, :2], slots[: -1 - ahead, :, :2], slots[1 + ahead :]
        straight = now + ahead * (now - before)
        both = held[: -1 - ahead] & held[1:-ahead] & held[1 + ahead :]
        both[:, 0] = False
        for i, k in both.nonzero().tolist():
            true = truth[i, k, :2]
            errors.append(
                (float((later[i, k, :2] - true).norm()), float((straight[i, k] - true).norm()))
            )
        mask = clip.masks[1 + ahead :]
        last = segments[1:-ahead]
        ways = (later[..., :2] - now, straight - now, torch.zeros_like(now))
        each = [metrics.mbo(mask, _shifted(last, way)) for way in ways]
        counted = metrics.visible_objects(mask) >= 2
        moved += torch.stack(each, dim=1)[counted].tolist()
    by_model, at_constant = (statistics.mean(error[i] for error in errors) for i in (0, 1))
    return by_model / at_constant, *(statistics.mean(row[i] for row in moved) for i in range(3))


def _shifted(
    segments: Int64[Tensor, "n h w"], by: Float[Tensor, "n k 2"]
) -> Int64[Tensor, "n h w"]:
    """Each object's segment moved, in shares of the picture."""
    out = torch.zeros_like(segments)
    height, width = segments.shape[1:]
    for n, k in torch.nonzero(by.new_ones(by.shape[:2])).tolist():
        if not k:
            continue
        rows, columns = torch.nonzero(segments[n] == k, as_tuple=True)
        rows = rows + round(float(by[n, k, 0]) * height)
        columns = columns + round(float(by[n, k, 1]) * width)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        out[n, rows[inside], columns[inside]] = k
    return out


def _segments(model: SetCon, clip: Clip) -> Int64[Tensor, "t h w"]:
    segments = encode(model, [clip], outlines=True).segments
    assert segments is not None
    return segments[0]


def _means(
    clips: Sequence[Clip], segments: Sequence[Int64[Tensor, "t h w"]]
) -> tuple[float, float, float]:
    measures: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        metrics.fg_ari,
        metrics.ari,
        metrics.mbo,
    )
    rows = []
    for clip, found in zip(clips, segments, strict=True):
        counted = metrics.visible_objects(clip.masks) >= 2
        rows.append(torch.stack([f(clip.masks, found) for f in measures], dim=1)[counted])
    fg_ari, ari, mbo = torch.cat(rows).mean(dim=0).tolist()
    return fg_ari, ari, mbo


def read_clips(store: str) -> tuple[list[Clip], list[Clip]]:
    """To learn from, of the first four fifths of the recording, and held-out ones of the rest."""
    opened = open_store(store)
    (name,) = opened.recordings()
    with opened.reader(name) as reader:
        gap = reader.gap()
        border = len(gap) * 4 // 5
        starts = [s for s in range(len(gap) - FRAMES + 1) if not gap[s + 1 : s + FRAMES].any()]

        def clips(starts: Sequence[int]) -> Iterator[Clip]:
            for start in starts:
                read = reader.read(start, start + FRAMES, masks=True)
                frames = torch.from_numpy(read.images.copy())
                assert read.masks is not None
                masks = torch.from_numpy(read.masks.astype(np.int64))
                yield Clip(frames, masks, Supervoxels.of(frames))

        early = [s for s in starts if s + FRAMES <= border]
        late = [s for s in starts if s >= border]
        return list(clips(_spread(early, TRAIN_CLIPS))), list(clips(_spread(late, HELD_OUT_CLIPS)))


def _spread(values: Sequence[int], count: int) -> list[int]:
    return [values[int(i)] for i in np.linspace(0, len(values) - 1, count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--ideas", nargs="+", default=[*IDEAS, "judged"])
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    train, held_out = read_clips(options.store)
    for run in options.runs:
        model = load_run(run).model.float()
        before = scores(model, held_out)
        print(f"{run.name}\n{'before':16}" + "".join(f"{x:9.3f}" for x in before), flush=True)
        for name in options.ideas:
            if name == "judged":
                after = judged(model, held_out)
            else:
                changed = copy.deepcopy(model)
                learn(changed, train, IDEAS[name], steps=options.steps)
                after = scores(changed, held_out)
            gains = [f"{y - x:+9.3f}" for x, y in zip(before, after, strict=True)]
            print(f"{name:16}" + "".join(gains), flush=True)
        for name, steps in AHEAD.items():
            numbers = foresight(model, held_out, steps)
            print(f"{name:16}" + "".join(f"{x:9.3f}" for x in numbers), flush=True)


if __name__ == "__main__":
    main()
