"""Feedback on clips for policies that look at features alone."""

import numpy as np

from online.replay.long_term import Feedback


def made_of(features: np.ndarray) -> Feedback:
    return Feedback(features=features, losses=np.zeros(len(features), np.float32))
