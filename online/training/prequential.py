"""Each new clip is scored before it is learned from: is p_i nearer to s_i than to far states?

new clip      p_i ── own state s_i ──────────────┐
replay        clips seconds away ── their states ┴──▶ top-1, loss
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy

from online.clips.clip import Clip, ClipConfig
from online.replay.mixing import Replay
from online.scores.evaluation import LEAST_CLIPS, RECENT_CLIPS
from online.training.batch import to_images
from online.training.config import TrainingConfig
from online.training.trainer import Trainer
from setcon.config import LossConfig
from setcon.cuda_graph import CudaGraphed
from setcon.loss import compared
from setcon.model import SetCon
from setcon.slots.object_slots import as_bytes
from setcon.supervoxels.supervoxels import Supervoxels

FAR_CLIP_STATES = 8
"""Most states taken from each far clip."""


@dataclass(frozen=True, slots=True)
class PrequentialScore:
    """A clip's predictions against their own states and far ones, before it is learned from."""

    loss: float
    """Cross-entropy of the own state among the candidates."""
    loss_untrained: float
    top1: float
    top1_copy: float
    """The same with the last seen state in place of the prediction."""
    top1_untrained: float
    """The same for the model as it was at step 0."""
    candidates: int
    """Far states that each prediction is compared with."""


class Prequential:
    """Scores new clips with a trainer's model, and remembers the latest scores."""

    def __init__(self, trainer: Trainer, config: TrainingConfig, clip: ClipConfig) -> None:
        self.trainer = trainer
        self.config = config
        self.clip = clip
        self._choices = CudaGraphed(trainer.evaluated, self._choose_all, enabled=config.cuda_graphs)
        self._latest: deque[float] = deque(maxlen=RECENT_CLIPS)
        self.latest_step = 0
        """After which a clip was scored last."""

    @property
    def num_graphs(self) -> int:
        """Shapes of clips that are scored by a CUDA graph."""
        return self._choices.num_graphs

    @property
    def recent_top1(self) -> float | None:
        """Mean top-1 of the latest new clips; None while they are too few to say anything."""
        return float(np.mean(self._latest)) if len(self._latest) >= LEAST_CLIPS else None

    def score(self, clip: Clip, replay: Replay) -> PrequentialScore | None:
        """Score a clip that was never inserted; None while the replay holds too few far clips."""
        far = self._far_clips(clip, replay)
        if not far:
            return None
        score = self.score_against(
            to_images(clip.frames.images), torch.stack([to_images(images) for images in far])
        )
        self._latest.append(score.top1)
        self.latest_step = self.trainer.step_count
        return score

    @torch.no_grad()
    def score_against(
        self, clip: Float[Tensor, "t c h w"], far: Float[Tensor, "m t_far c h w"]
    ) -> PrequentialScore:
        """Does each p_i of `clip` lie nearer to its s_i than to every state of the far clips?"""
        if self.trainer.model.config.finds_objects:  # which no graph can do
            pieces = [_pieces(clip[None]), _pieces(far)]
            choices = self._choose_all(clip, far, pieces).tolist()
        else:
            choices = self._choices(clip, far).tolist()
        (loss, top1), (_, top1_copy), (loss_untrained, top1_untrained) = choices
        return PrequentialScore(
            loss=loss,
            loss_untrained=loss_untrained,
            top1=top1,
            top1_copy=top1_copy,
            top1_untrained=top1_untrained,
            candidates=far.shape[0] * (far.shape[1] - 2 * self.trainer.frame_stride),
        )

    def _choose_all(
        self,
        clip: Float[Tensor, "t c h w"],
        far: Float[Tensor, "m t_far c h w"],
        pieces: Sequence[Sequence[Supervoxels] | None] = (None, None),
    ) -> Float[Tensor, "3 2"]:
        """Loss and top-1 of predictions, of copies, and of the untrained model's predictions.

        In one tensor, as each transfer waits for a GPU. `pieces` are those of the clip and of the
        far ones, where slots start at objects.
        """
        predicted, copied = self._choose(self.trainer.evaluated, clip, far, pieces)
        untrained, _ = self._choose(self.trainer.untrained, clip, far, pieces)
        return torch.stack([predicted, copied, untrained])

    def _far_clips(self, clip: Clip, replay: Replay) -> Sequence[UInt8[np.ndarray, "t h w 3"]]:
        """Images of clips drawn from the replay that lie far from `clip` in time, or none."""
        states = min(FAR_CLIP_STATES, self.clip.frames - self.clip.overlap)
        frames = self.clip.overlap + states
        gap_ns = self.config.prequential_gap_seconds * 1e9
        far = [
            other
            for other in replay.clips()
            if len(other.frames) >= frames and _distance_ns(other, clip) >= gap_ns
        ]
        wanted = -(-self.config.prequential_candidates // states)
        if len(far) < wanted:
            return []
        rng = np.random.default_rng([self.config.seed, 0xFA5, replay.inserts])
        return [far[i].frames.images[:frames] for i in rng.choice(len(far), wanted, replace=False)]

    def _choose(
        self,
        model: SetCon,
        clip: Float[Tensor, "t c h w"],
        far: Float[Tensor, "m t_far c h w"],
        pieces: Sequence[Sequence[Supervoxels] | None],
    ) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]:
        """How the transition's predictions choose, and how copies of the last seen state do."""
        s, was_training = self.trainer.frame_stride, model.training
        model.eval()
        summaries = []
        for frames, known in zip((clip.unsqueeze(0), far), pieces, strict=True):
            output = self.trainer.encode(model, frames, pieces=known)
            kinds = (output.predicted, output.slots[:, s:-s], output.slots[:, 2 * s :])
            summaries.append([model.summarise(kind).flatten(0, 1) for kind in kinds])
        model.train(was_training)
        (predicted, copied, states), (far_predicted, far_copied, far_states) = summaries
        everything, config = torch.cat([states, far_states]), self.trainer.loss_config
        new = len(states)
        return (
            _choose_against_far(torch.cat([predicted, far_predicted]), everything, new, config),
            _choose_against_far(torch.cat([copied, far_copied]), everything, new, config),
        )


def _choose_against_far(
    predictions: Float[Tensor, "n e"],
    states: Float[Tensor, "n e"],
    new: int,
    config: LossConfig,
) -> Float[Tensor, " 2"]:
    """Whether the first `new` predictions lie nearer to their own state than to any far one: loss
    and top-1.

    Far predictions take part only in `compared`, whose statistics are those of the batch.
    """
    predictions, states = compared(predictions, states, config)
    similarity = predictions[:new] @ states.T / config.temperature
    own = similarity[:, :new].diagonal()[:, None]
    logits = torch.cat([own, similarity[:, new:]], dim=1)
    first = torch.zeros(new, dtype=torch.long, device=logits.device)
    top1 = (logits[:, 0] > logits[:, 1:].amax(dim=1)).float().mean()
    return torch.stack([cross_entropy(logits, first), top1])


def _pieces(frames: Float[Tensor, "m t c h w"]) -> list[Supervoxels]:
    return [Supervoxels.of(as_bytes(run), distance=None) for run in frames]


def _distance_ns(one: Clip, other: Clip) -> float:
    """Time between the nearest frames of two clips; infinite between recordings."""
    if one.spec.recording != other.spec.recording or one.spec.server != other.spec.server:
        return math.inf
    times, others = one.frames.pts_ns, other.frames.pts_ns
    between = max(times[0] - others[-1], others[0] - times[-1])
    return max(0.0, float(between))
