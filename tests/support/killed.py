"""A process that is killed at a certain place, without another process."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Killed(BaseException):
    """What stands for the kill: nothing that a program does about errors is done about it."""


@contextmanager
def killed_in(kind: type, method: str) -> Iterator[None]:
    """Let a method of a class never begin; what is inside ends there."""

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, method, killed)
        with pytest.raises(Killed):
            yield
