"""What is recorded, and what becomes of gradients; recordings themselves need a GPU."""

import pytest
import torch
from torch import nn

from setcon import cuda_graph
from setcon.cuda_graph import MAX_RECORDED, Recorder


class Noted:
    """Stands for a recording, which is made on GPUs only."""

    def __init__(self, module, work, inputs, *, beside):
        self.work, self.beside, self.replays = work, beside, 0

    def replay(self, inputs):
        self.replays += 1
        return self.work(*inputs)


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_Recording", Noted)
    made = Recorder(nn.Linear(2, 1), lambda *inputs: sum(each.sum() for each in inputs))
    made._enabled = True
    return made


def test_nothing_is_recorded_on_a_cpu():
    recorder = Recorder(nn.Linear(2, 1), torch.sum)
    for _ in range(3):
        assert recorder(torch.ones(4)) == 4
    assert not recorder._recorded


def test_shapes_are_recorded_when_they_come_again(recorder):
    assert recorder(torch.ones(3), torch.ones(2)) == 5
    assert not recorder._recorded
    for more in (1.0, 2.0):
        assert recorder(more * torch.ones(3), torch.ones(2)) == 3 * more + 2
    (made,) = recorder._recorded.values()
    assert made.replays == 2


def test_odd_shapes_that_come_first_do_not_keep_full_ones_from_being_recorded(recorder):
    for odd in range(1, 3000):
        recorder(torch.ones(odd))
    for _ in range(3):
        recorder(torch.ones(5000))
    (made,) = recorder._recorded.values()
    assert (made.replays, made.beside) == (2, None)
    assert len(recorder._seen) <= 1000


def test_recordings_are_few_and_share_their_memory(recorder):
    for size in range(MAX_RECORDED + 2):
        for _ in range(2):
            assert recorder(torch.ones(size)) == size
    first, *others = recorder._recorded.values()
    assert len(others) == MAX_RECORDED - 1
    assert all(other.beside is first for other in others)


def test_gradients_never_add_to_those_that_were_there():
    module = nn.Linear(2, 1, bias=False)
    recorder = Recorder(module, lambda inputs: module(inputs).sum().backward())
    for value in (1.0, 3.0):
        recorder(torch.full((1, 2), value))
        assert module.weight.grad.tolist() == [[value, value]]


def test_gradients_stay_where_none_are_made():
    module = nn.Linear(2, 1, bias=False)
    module.weight.grad = torch.ones(1, 2)
    with torch.no_grad():
        Recorder(module, module)(torch.ones(1, 2))
    assert module.weight.grad.tolist() == [[1, 1]]
