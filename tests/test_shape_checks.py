"""Shapes and types of arrays are checked while tests run."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from shape_checks import check_shapes, without_shape_checks

from ingest.frame import Frames
from setcon.position import fourier_features

WHOLE = torch.zeros(4, 2, dtype=torch.int64)
MODULE = """
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Row = Float[Tensor, " n"]


@dataclass
class Holder:
    row: Row

    def method(self, row: Row) -> None: ...

    @property
    def doubled(self) -> Float[Tensor, "n n"]:
        return self.row

    @classmethod
    def made(cls, row: Row | None) -> None: ...


class Plain:
    def method(self, *, row: Row) -> None: ...


def function(*rows: Float[Tensor, " n"]) -> None: ...


def unchecked(count: int) -> None: ...
"""


def test_an_array_of_another_type_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        fourier_features(WHOLE, frequencies=1)
    with pytest.raises(TypeCheckError):
        Frames(*[WHOLE.numpy()] * 3)


def test_every_kind_of_function_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "with_shapes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    check_shapes("with_shapes")
    module = importlib.import_module("with_shapes")
    row = torch.zeros(2)
    for call in (
        lambda: module.Holder(WHOLE),
        lambda: module.Holder(row).method(WHOLE),
        lambda: module.Holder(row).doubled,
        lambda: module.Holder.made(WHOLE),
        lambda: module.Plain().method(row=WHOLE),
        lambda: module.function(row, WHOLE),
    ):
        with pytest.raises(TypeCheckError):
            call()
    module.Holder.made(None)
    module.function(row, row)
    module.unchecked("no number")


def test_a_whole_run_goes_without() -> None:
    with without_shape_checks():
        assert fourier_features(WHOLE, frequencies=1).shape == (4, 6)
