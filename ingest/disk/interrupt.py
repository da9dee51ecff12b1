"""Where a signal may raise an exception, and where it has to wait.

HDF5 takes the program down with it where an exception comes out of what it calls back, and a file
that is being put in the place of another is for a moment neither there nor here. What Python calls
when an object goes prints an exception, and the program runs on as if there had been none.
"""

import inspect
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TypeVar

_HELD: set[CodeType] = set()
_LOST = {(weakref.__file__, "remove"), ("<frozen importlib._bootstrap>", "cb")}
"""Callbacks of weak references, in the library's own code, out of which no exception comes."""
F = TypeVar("F", bound=Callable[..., object])


def held(function: F) -> F:
    """Signals wait until this function returns, where handlers ask `may_interrupt`."""
    _HELD.add(inspect.unwrap(function).__code__)
    return function


def may_interrupt(frame: FrameType | None) -> bool:
    """Whether no `held` function is running, called by whatever this frame is."""
    while frame is not None:
        code = frame.f_code
        if code in _HELD or code.co_name == "__del__" or (code.co_filename, code.co_name) in _LOST:
            return False
        frame = frame.f_back
    return True
