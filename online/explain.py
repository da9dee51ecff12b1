"""A configuration for people: TOML in which a comment above every setting explains it.

The explanations are the docstrings below the fields of the configuration's dataclasses.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

import tomli_w

from online.config import RunConfig

COLUMNS = 80


def explained(config: RunConfig) -> str:
    """`config` as TOML with comments; `load_config` reads it back equal."""
    return "\n".join(_section(config, "")).lstrip("\n") + "\n"


def field_docs(kind: type) -> dict[str, str]:
    """The docstring below each field of a dataclass, on one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ):
                found[name] = " ".join(doc.split())
    return found


def _section(config: Any, path: str) -> Iterator[str]:
    """Lines of one dataclass: its own settings first, as TOML requires, then its sections."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    within = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    if own := {name: value for name, value in values.items() if name not in within}:
        yield from ("", f"[{path}]")
        docs, types = field_docs(type(config)), typing.get_type_hints(type(config))
        for name, value in own.items():
            yield from _comment(f"{docs[name]}{_choices(types[name])}")
            # TOML has no null
            yield f"# {name} is not set" if value is None else tomli_w.dumps({name: value}).rstrip()
    for name, value in within.items():
        yield from _section(value, f"{path}.{name}" if path else name)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent="# ", subsequent_indent="# ")


def _choices(kind: Any) -> str:
    """The values that a setting may have, where they are few."""
    options = typing.get_args(kind)
    if type(None) in options:
        (kind,) = (option for option in options if option is not type(None))
    if typing.get_origin(kind) is not typing.Literal:
        return ""
    return f" One of {', '.join(typing.get_args(kind))}."
