"""Shapes and types of arrays are checked while tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError
from shape_checks import without_shape_checks

from ingest.frame import Frames
from setcon.position import fourier_features

WHOLE = torch.zeros(4, 2, dtype=torch.int64)


def test_an_array_of_another_type_is_refused_by_functions_and_dataclasses() -> None:
    with pytest.raises(TypeCheckError):
        fourier_features(WHOLE, frequencies=1)
    with pytest.raises(TypeCheckError):
        Frames(*[WHOLE.numpy()] * 3)


def test_a_whole_run_goes_without() -> None:
    with without_shape_checks():
        assert fourier_features(WHOLE, frequencies=1).shape == (4, 6)
