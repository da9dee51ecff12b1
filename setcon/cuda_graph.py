"""Work on tensors of unchanging shapes, recorded once and replayed as one CUDA graph.

A step of a small model is hundreds of kernels of a few microseconds each: launching them one by one
takes a CPU many times as long as a GPU takes to run them.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

MAX_RECORDED = 4
"""Layouts that a recorder keeps, the first that come again; others are worked on as they come."""
_MAX_SEEN = 1000  # layouts of which it is known that they have come
_WARM_UP = 3  # runs in which libraries choose and allocate what must not be done while recording


class Recorder(Generic[T]):
    """Does work with a module, on its device: on a GPU from a recording, where shapes come again.

    The work gets its tensors there and returns others, which the next call may overwrite. It may
    not wait for the GPU. Where gradients are enabled it may leave some in the module's parameters:
    each call begins without those that were there.
    """

    def __init__(self, module: nn.Module, work: Callable[..., T], *, enabled: bool = True) -> None:
        self._module, self._work = module, work
        self._device = next(module.parameters()).device
        self._enabled = enabled and self._device.type == "cuda"
        self._recorded: dict[Hashable, _Recording[T]] = {}
        self._seen: set[Hashable] = set()

    def __call__(self, *inputs: Tensor) -> T:
        """What the work makes of inputs."""
        layout = tuple(tensor.shape for tensor in inputs)
        recording = self._recorded.get(layout)
        if recording is None and self._is_worth_recording(layout):
            recording = self._recorded[layout] = self._record(inputs)
        if recording is not None:
            return recording.replay(inputs)
        _forget_gradients(self._module)
        return self._work(*(tensor.to(self._device) for tensor in inputs))

    def _is_worth_recording(self, layout: Hashable) -> bool:
        if not self._enabled or len(self._recorded) >= MAX_RECORDED:
            return False
        if layout in self._seen:
            return True
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen.add(layout)
        return False

    def _record(self, inputs: Sequence[Tensor]) -> "_Recording[T]":
        # they replay by turns, so that one may work in the memory that another works in
        beside = next(iter(self._recorded.values()), None)
        return _Recording(self._module, self._work, inputs, beside=beside)


class _Recording(Generic[T]):
    """Recording leaves the module as it was, buffers too, but for its gradients."""

    def __init__(
        self,
        module: nn.Module,
        work: Callable[..., T],
        inputs: Sequence[Tensor],
        *,
        beside: "_Recording[T] | None",
    ) -> None:
        device = next(module.parameters()).device
        self._inputs = [tensor.to(device, copy=True) for tensor in inputs]
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        # memory is shared by recordings of one pool and one stream
        self._stream = beside._stream if beside else torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                _forget_gradients(module)
                work(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(self._stream)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        _forget_gradients(module)  # so that they are written, not added
        self._graph = torch.cuda.CUDAGraph()
        pool = beside._graph.pool() if beside else None
        with torch.cuda.graph(self._graph, pool=pool, stream=self._stream):
            self._outputs = work(*self._inputs)
        with_gradients = module.parameters() if torch.is_grad_enabled() else ()
        self._gradients = [(parameter, parameter.grad) for parameter in with_gradients]

    def replay(self, inputs: Sequence[Tensor]) -> T:
        for held, new in zip(self._inputs, inputs, strict=True):
            held.copy_(new, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._outputs


def _forget_gradients(module: nn.Module) -> None:
    if torch.is_grad_enabled():
        module.zero_grad(set_to_none=True)
