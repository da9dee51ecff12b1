import numpy as np
import pytest
import torch

from ingest.frame import Frames
from online.clips.clip import Clip, ClipConfig, ClipSpec
from online.replay.mixing import Replay, ReplayConfig
from online.scores.evaluation import LEAST_CLIPS
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.prequential import Prequential
from online.training.trainer import Trainer
from setcon.config import LossConfig, SetConConfig
from setcon.model import SetCon

CLIP = ClipConfig(clip_length=8)


def scorer() -> Prequential:
    torch.manual_seed(0)
    training = TrainingConfig(
        precision="float32", prequential_candidates=16, prequential_gap_seconds=1.0
    )
    trainer = Trainer(
        SetCon(SetConConfig()),
        frame_stride=1,
        loss=LossConfig(),
        optimizer=OptimizerConfig(),
        training=training,
        device=torch.device("cpu"),
    )
    return Prequential(trainer, training, CLIP)


def clip_at(start: int) -> Clip:
    """Ten frames at ten a second."""
    images = np.random.default_rng(start).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    pts_ns = (np.arange(10) + start) * 100_000_000
    return Clip(ClipSpec("r", start, 10), Frames(images, pts_ns, np.zeros(10, np.bool_)))


def replay_of(*starts: int) -> Replay:
    replay = Replay(ReplayConfig(min_clips=100), seed=0, batch_clips=4)
    for start in starts:
        replay.insert(clip_at(start))
    return replay


def test_a_state_that_is_exactly_predicted_is_chosen_among_far_ones() -> None:
    clip = torch.rand(1, 3, 8, 8).expand(6, -1, -1, -1)  # nothing moves: copying is exact
    score = scorer().score_against(clip, torch.rand(4, 10, 3, 8, 8))
    assert score.top1_copy == 1.0
    assert score.candidates == 32


def test_scoring_new_clips_draws_nothing_and_changes_nothing() -> None:
    prequential = scorer()
    before = torch.get_rng_state()
    model = prequential.trainer.model
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    prequential.score_against(
        torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.zeros(2, 10, 3, 8, 8),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[n], v) for n, v in model.state_dict().items())


def test_only_clips_far_away_in_time_are_compared_with() -> None:
    prequential = scorer()
    assert prequential.score(clip_at(0), replay_of(8, 16, 100)) is None  # 16 begins 0.7 s after
    assert prequential.recent_top1 is None
    score = prequential.score(clip_at(0), replay_of(8, 16, 100, 200))
    assert score is not None
    assert score.candidates == 16


def test_the_score_of_new_footage_is_shown_once_enough_clips_were_scored() -> None:
    prequential, replay = scorer(), replay_of(100, 200)
    scores = [prequential.score(clip_at(0), replay) for _ in range(LEAST_CLIPS - 1)]
    assert prequential.recent_top1 is None
    scores.append(prequential.score(clip_at(0), replay))
    known = [score.top1 for score in scores if score is not None]
    assert len(known) == LEAST_CLIPS
    assert prequential.recent_top1 == pytest.approx(np.mean(known))
