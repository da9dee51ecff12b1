import json
import math

import numpy as np
import pytest
from replay_feedback import made_of

from online.training.alarms import Alarms, CollapseAlarm, GradientAlarm
from online.training.trainer import StepResult


def result(*, loss: float = 1.0, top1: float = 0.5, grad_norm: float = 1.0) -> StepResult:
    return StepResult(
        loss=loss,
        exclusivity=0.5,
        top1=top1,
        chance=math.log(263),
        states=144,
        triplets=120,
        grad_norm=grad_norm,
        foreground=None,
        feedback=made_of(np.zeros((12, 4), np.float32)),
    )


def test_a_loss_at_chance_sets_off_the_alarm_once() -> None:
    alarm = CollapseAlarm()
    stuck = result(loss=math.log(144), top1=0.01)
    messages = [alarm.update(stuck) for _ in range(400)]
    assert [i for i, m in enumerate(messages) if m] == [CollapseAlarm.patience_steps - 1]
    assert alarm.update(result(loss=math.log(144), top1=0.5)) is None
    assert alarm.steps_at_chance == 0


def test_a_gradient_that_explodes_sets_off_the_alarm_once_each_time() -> None:
    norms = [2.0] * 30 + [201.0] * 10 + [2.0] * 5 + [1e6] * 4
    alarm = GradientAlarm()
    messages = {step: alarm.update(result(grad_norm=norm)) for step, norm in enumerate(norms)}
    assert [step for step, message in messages.items() if message] == [32, 47]
    assert messages[32] is not None
    assert messages[32].startswith("exploding gradient: norm 201 against a median of 2, for 3")


@pytest.mark.parametrize(
    "norms",
    [
        [1.0] * 30 + [99.0] * 20,  # large, but not out of all proportion
        ([1.0] * 30 + [1000.0] * 2) * 3,  # soon over
        [1e-3] * 10 + [1.0] * 30,  # too early to tell
        [0.01 * 1.02**step for step in range(400)],  # grows with the model
    ],
)
def test_gradients_that_are_merely_large_do_not(norms: list[float]) -> None:
    alarm = GradientAlarm()
    assert not any(alarm.update(result(grad_norm=norm)) for norm in norms)


def test_alarms_go_on_where_they_were_saved() -> None:
    results = [
        *[result(loss=math.log(144), top1=0.01)] * 199,
        *[result(loss=math.log(144), top1=0.01, grad_norm=500.0)] * 3,
    ]
    whole = Alarms()
    expected = [whole.update(one) for one in results]
    assert sum(map(len, expected)) == 2
    for cut in (100, 199, 200, 201):
        first, second = Alarms(), Alarms()
        found = [first.update(one) for one in results[:cut]]
        second.restore(json.loads(json.dumps(first.state())))
        assert found + [second.update(one) for one in results[cut:]] == expected
