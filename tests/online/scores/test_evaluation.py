"""A model that has collapsed raises an alarm, whatever else it scores."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from ingest.open import open_store
from online.clips.catalog import StoreCatalog
from online.probing.config import EvaluationConfig
from online.probing.evaluator import Evaluator
from online.scores.collapse import collapse_alarm, early_note
from online.scores.evaluation import Evaluation
from online.training.models import untrained_model
from setcon.config import ProbeConfig, SetConConfig
from setcon.measures.baselines import block_labels
from setcon.measures.metrics import mbo
from setcon.model import SetCon

CONFIG = EvaluationConfig(train_clips=8, held_out_clips=6, panel_frames=1)


@pytest.fixture
def evaluate(balls) -> Iterator[Callable[[SetCon], Evaluation]]:
    with closing(StoreCatalog(open_store(balls))) as catalog:

        def run(model: SetCon) -> Evaluation:
            untrained = untrained_model(SetConConfig(), seed=0)
            probe, device = ProbeConfig(steps=2), torch.device("cpu")
            evaluator = Evaluator(catalog, untrained, CONFIG, probe, frame_stride=1, device=device)
            return evaluator.evaluate(model, step=1).evaluation

        yield run


def test_a_sound_model_raises_no_alarm(evaluate):
    assert (
        collapse_alarm(evaluate(untrained_model(SetConConfig(), seed=1)), planned_steps=1) is None
    )


@torch.no_grad()
def test_a_model_to_which_all_frames_look_alike_raises_one(evaluate):
    model = untrained_model(SetConConfig(), seed=1)
    for parameter in model.encoder.parameters():
        parameter.zero_()
    evaluation = evaluate(model)
    assert evaluation.trained.effective_rank < 1.5
    assert "effective rank" in collapse_alarm(evaluation, planned_steps=1)
    assert collapse_alarm(evaluation, planned_steps=2) is None  # it may still learn
    assert early_note(evaluation, planned_steps=2) is None
    found = replace(evaluation, has_segments=True)  # whose segments may be good all the same
    assert collapse_alarm(found, planned_steps=1) is None


def test_what_needs_no_model_is_scored_on_the_held_out_frames(evaluate, balls):
    found = evaluate(untrained_model(SetConConfig(), seed=1)).without_model
    with open_store(balls).reader("balls") as reader:
        frames = reader.read(0, reader.commit.length, masks=True)
    held_out = torch.from_numpy(frames.masks[192:]).long()
    count, height, width = held_out.shape
    labels = block_labels(count, num_segments=4, height=height, width=width)
    blocks = float(mbo(held_out, labels).mean())
    assert found.blocks.mbo == pytest.approx(blocks, abs=0.1)  # 24 frames of 48
    assert found.colours.mbo > 0.7 > found.blocks.mbo  # balls of a colour each, over black
    assert found.colours.fg_ari > 0.85
    assert 0 < found.blocks.miou <= found.blocks.mbo
    assert found.colours.miou > 0.7
    for of_frames in (found.frame_k_means, found.frame_ward):
        assert of_frames.fg_ari > 0.85
        assert of_frames.mbo > found.blocks.mbo
        assert of_frames.fg_ari_video is None  # a label means something else in each frame


def test_each_thing_is_placed_by_the_slot_that_tells_it_best(evaluate):
    found = evaluate(untrained_model(SetConConfig(), seed=1)).untrained.places
    assert [place.label for place in found] == [1, 2, 3]
    assert all(1 <= place.slot <= 4 and place.r2 < 1 for place in found)


@torch.no_grad()
def test_a_transition_that_changes_nothing_scores_as_the_copy_it_has_to_beat(evaluate):
    model = untrained_model(SetConConfig(), seed=1)
    before = evaluate(model)
    assert before.copied != before.trained.predicted
    for parameter in model.transition.parameters():
        parameter.zero_()
    after = evaluate(model)
    assert after.copied == after.trained.predicted
    assert after.copied.mse_share is not None


@torch.no_grad()
def test_a_model_of_which_one_slot_takes_everything_raises_one(evaluate):
    model = untrained_model(SetConConfig(), seed=1)
    attention = model.slot_attention
    asks_for_it = torch.zeros(attention.starts.shape[1])
    asks_for_it[0] = 1
    attention.starts.copy_(-asks_for_it.expand_as(attention.starts))
    attention.starts[0] = asks_for_it
    attention.to_queries.weight.copy_(torch.eye(len(asks_for_it)))
    attention.to_queries.bias.zero_()
    attention.to_keys.weight.zero_()
    attention.to_keys.bias.copy_(10 * asks_for_it)
    evaluation = evaluate(model)
    assert evaluation.trained.slot_entropy < 0.2
    told = collapse_alarm(evaluation, planned_steps=1)
    assert told.startswith("collapse: slot entropy 0.")
    assert told.endswith("loss.exclusivity=1 and loss.horizon=4 may separate them")


def test_a_long_run_is_blamed_before_its_end(evaluate):
    found = evaluate(untrained_model(SetConConfig(), seed=1))
    none = replace(found, has_segments=True, trained=replace(found.trained, slot_entropy=0.0))
    assert collapse_alarm(replace(none, step=999), planned_steps=100_000) is None
    assert "no object" in collapse_alarm(replace(none, step=1_000), planned_steps=100_000)
