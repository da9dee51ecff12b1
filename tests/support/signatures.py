"""Types of the project that the public calls of a package take or return."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator
from types import ModuleType
from typing import Any

PROJECT = ("setcon", "ingest", "online")


def unexported(package: ModuleType, *others: ModuleType, built: Collection[str]) -> list[str]:
    """Types that no package exports, as `call: Type`; of `built` classes the fields count too."""
    exported = {name for module in (package, *others) for name in module.__all__}
    return [
        f"{where}: {kind}"
        for name in package.__all__
        for where, taken_from in _calls(name, getattr(package, name), name in built)
        for kind in _project_types(taken_from)
        if kind not in exported
    ]


def _calls(name: str, value: Any, is_built: bool) -> Iterator[tuple[str, Any]]:
    if inspect.isfunction(value):
        yield name, value
    elif inspect.isclass(value):
        if is_built:
            yield name, value
        for method, raw in vars(value).items():
            function: Callable[..., Any] = getattr(raw, "__func__", raw)
            is_init = method == "__init__" and not dataclasses.is_dataclass(value)
            if inspect.isfunction(function) and (is_init or not method.startswith("_")):
                yield f"{name}.{method}", function


def _project_types(annotated: Any) -> list[str]:
    known = vars(sys.modules[annotated.__module__])
    words = re.findall(r"\w+", " ".join(map(_text, annotated.__annotations__.values())))
    homes = {word: getattr(known.get(word), "__module__", None) or "" for word in words}
    return sorted(word for word, home in homes.items() if home.partition(".")[0] in PROJECT)


def _text(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)
