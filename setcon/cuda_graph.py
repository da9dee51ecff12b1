"""Work on tensors of unchanging shapes, captured once and replayed as one CUDA graph.

A step of a small model is hundreds of kernels of a few microseconds each: launching them one by one
takes a CPU many times as long as a GPU takes to run them.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_GRAPHS = 4
"""Shapes of which a graph is kept: the first that come again. Others run without one."""
MAX_SEEN = 1000
"""Shapes that are remembered as seen."""
_WARM_UP = 3  # runs in which libraries choose and allocate what must not be done while capturing


@runtime_checkable
class Graph(Protocol[T_co]):
    """Work on inputs of one shape."""

    def replay(self, inputs: Sequence[Tensor]) -> T_co:
        """The outputs of the work; the next replay may overwrite them."""
        ...


Capture = Callable[[nn.Module, Callable[..., T], Sequence[Tensor], Graph[T] | None], Graph[T]]
"""Makes a graph of a module's work on inputs; it may share the memory of another graph."""


class CudaGraphed(Generic[T]):
    """Does work with a module, on its device: on a GPU by a CUDA graph, where shapes come again.

    The work gets its tensors there and returns others, which the next call may overwrite. It may
    not wait for the GPU. Where gradients are enabled it may leave some in the module's parameters:
    each call begins without those that were there.
    """

    def __init__(
        self,
        module: nn.Module,
        work: Callable[..., T],
        *,
        enabled: bool = True,
        capture: Capture[T] | None = None,
    ) -> None:
        """`capture` replaces how graphs are made, where there is no GPU to make them."""
        self._module, self._work = module, work
        self._device = next(module.parameters()).device
        if capture is None and self._device.type == "cuda":
            capture = CapturedGraph
        self._capture = capture if enabled else None
        self._graphs: dict[Hashable, Graph[T]] = {}
        self._seen: set[Hashable] = set()

    @property
    def num_graphs(self) -> int:
        """Shapes for which there is a graph."""
        return len(self._graphs)

    def __call__(self, *inputs: Tensor) -> T:
        """What the work makes of inputs."""
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._graphs and self._capture and self._is_worth_capturing(shapes):
            # they replay by turns, so that one may work in the memory that another works in
            first = next(iter(self._graphs.values()), None)
            self._graphs[shapes] = self._capture(self._module, self._work, inputs, first)
        if graph := self._graphs.get(shapes):
            return graph.replay(inputs)
        _drop_gradients(self._module)
        return self._work(*(tensor.to(self._device) for tensor in inputs))

    def _is_worth_capturing(self, shapes: Hashable) -> bool:
        if len(self._graphs) >= MAX_GRAPHS:
            return False
        if shapes in self._seen:
            return True
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(shapes)
        return False


class CapturedGraph(Generic[T]):
    """A CUDA graph; capturing it leaves the module as it was, buffers too, except its gradients."""

    def __init__(
        self,
        module: nn.Module,
        work: Callable[..., T],
        inputs: Sequence[Tensor],
        shared: "Graph[T] | None",
    ) -> None:
        device = next(module.parameters()).device
        self._inputs = [tensor.to(device, copy=True) for tensor in inputs]
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        other = shared if isinstance(shared, CapturedGraph) else None
        # memory is shared by graphs of one pool and one stream
        self._stream = other._stream if other else torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                _drop_gradients(module)
                work(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(self._stream)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        _drop_gradients(module)  # so that they are written, not added
        self._graph = torch.cuda.CUDAGraph()
        pool = other._graph.pool() if other else None
        with torch.cuda.graph(self._graph, pool=pool, stream=self._stream):
            self._outputs = work(*self._inputs)
        with_gradients = module.parameters() if torch.is_grad_enabled() else ()
        self._gradients = [(parameter, parameter.grad) for parameter in with_gradients]

    def replay(self, inputs: Sequence[Tensor]) -> T:
        """What the work makes of inputs."""
        for held, new in zip(self._inputs, inputs, strict=True):
            held.copy_(new, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._outputs


def _drop_gradients(module: nn.Module) -> None:
    if torch.is_grad_enabled():
        module.zero_grad(set_to_none=True)
