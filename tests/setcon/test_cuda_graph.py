"""For which shapes graphs are made, and what becomes of gradients; graphs themselves need a GPU."""

import pytest
import torch
from torch import nn

from setcon.cuda_graph import MAX_GRAPHS, MAX_SEEN, CudaGraphed


class Noted:
    """Stands for a graph, which is captured on GPUs only."""

    made: list["Noted"]

    def __init__(self, module, work, inputs, shared):
        self.work, self.shared, self.replays = work, shared, 0
        self.made.append(self)

    def replay(self, inputs):
        self.replays += 1
        return self.work(*inputs)


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.setattr(Noted, "made", [], raising=False)
    return Noted.made


@pytest.fixture
def graphed(graphs):
    work = lambda *inputs: sum(each.sum() for each in inputs)  # noqa: E731
    return CudaGraphed(nn.Linear(2, 1), work, capture=Noted)


def test_no_graph_is_made_on_a_cpu():
    graphed = CudaGraphed(nn.Linear(2, 1), torch.sum)
    for _ in range(3):
        assert graphed(torch.ones(4)) == 4
    assert graphed.num_graphs == 0


def test_none_is_made_where_it_is_not_wanted(graphs):
    graphed = CudaGraphed(nn.Linear(2, 1), torch.sum, enabled=False, capture=Noted)
    for _ in range(3):
        assert graphed(torch.ones(4)) == 4
    assert (graphed.num_graphs, graphs) == (0, [])


def test_shapes_are_captured_when_they_come_again(graphed, graphs):
    assert graphed(torch.ones(3), torch.ones(2)) == 5
    assert graphed.num_graphs == 0
    for more in (1.0, 2.0):
        assert graphed(more * torch.ones(3), torch.ones(2)) == 3 * more + 2
    (made,) = graphs
    assert (made.replays, graphed.num_graphs) == (2, 1)


def test_odd_shapes_that_come_first_do_not_keep_full_ones_from_being_captured(graphed, graphs):
    for odd in range(1, 3000):
        graphed(torch.ones(odd))
    for _ in range(3):
        graphed(torch.ones(5000))
    (made,) = graphs
    assert (made.replays, made.shared) == (2, None)


def test_only_so_many_shapes_are_remembered(graphed):
    graphed(torch.ones(5000))
    for odd in range(1, MAX_SEEN + 1):
        graphed(torch.ones(odd))
    graphed(torch.ones(5000))
    assert graphed.num_graphs == 0
    graphed(torch.ones(5000))
    assert graphed.num_graphs == 1


def test_graphs_are_few_and_share_their_memory(graphed, graphs):
    for size in range(MAX_GRAPHS + 2):
        for _ in range(2):
            assert graphed(torch.ones(size)) == size
    first, *others = graphs
    assert graphed.num_graphs == len(graphs) == MAX_GRAPHS
    assert all(other.shared is first for other in others)


def test_gradients_never_add_to_those_that_were_there():
    module = nn.Linear(2, 1, bias=False)
    graphed = CudaGraphed(module, lambda inputs: module(inputs).sum().backward())
    for value in (1.0, 3.0):
        graphed(torch.full((1, 2), value))
        assert module.weight.grad.tolist() == [[value, value]]


def test_gradients_stay_where_none_are_made():
    module = nn.Linear(2, 1, bias=False)
    module.weight.grad = torch.ones(1, 2)
    with torch.no_grad():
        CudaGraphed(module, module)(torch.ones(1, 2))
    assert module.weight.grad.tolist() == [[1, 1]]
