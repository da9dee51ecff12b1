"""What a policy for the long-term buffer must do, and the feedback that it gets on its clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from online.clips.clip import Clip


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """What a training step found out about the clips of its batch, one row for each."""

    features: Float[np.ndarray, "b e"]
    """What the model makes of them: the mean of a clip's states in the form that the loss compared
    (by default standardised set encodings of unit length), which costs no encoding of its own."""
    losses: Float[np.ndarray, " b"]
    """How hard they are: the mean loss of a clip's predictions one step ahead."""


class LongTerm(Protocol):
    """A buffer that decides which clips of the whole past are worth their bytes."""

    nbytes: int
    """Bytes of the images in it."""

    def __init__(self, max_bytes: int, *, rng: np.random.Generator) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Clip]: ...

    def insert(self, clip: Clip) -> None:
        """Take in `clip`, or not, and drop others until the rest fits."""
        ...

    def update(self, clips: Sequence[Clip], feedback: Feedback) -> None:
        """Note the feedback on a batch, whose clips may be in the buffer or not."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """All that decides what happens next, besides which clips are held and the generator."""
        ...

    def restore(
        self, clips: Sequence[Clip | None], *, inserts: int, arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Hold exactly `clips`, in this order, out of `inserts`, with their `arrays()`.

        None is in the place of one that can no longer be had.
        """
        ...
