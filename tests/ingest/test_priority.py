"""That making media leaves the test process scheduled as it was."""

import os

import pytest


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="scheduling is Linux's")
def test_an_encoder_that_takes_priority_does_not_keep_it(media, tmp_path):
    before = os.sched_getscheduler(0)
    media.video(tmp_path / "av1.mp4", 3, codec="libsvtav1", options={"svtav1-params": "lp=1"})
    assert os.sched_getscheduler(0) == before
