"""`with` for any object that has to be closed."""

from typing import Protocol, TypeVar

Opened = TypeVar("Opened")


class Closing(Protocol):
    """An object that is closed where its `with` is left."""

    def close(self) -> None:
        """Release what it holds; closing twice is allowed."""
        ...

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
