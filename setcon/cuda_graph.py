"""Work of unchanging shapes, recorded once and replayed as one CUDA graph.

A step of a model of this size is made of some six hundred kernels of a few microseconds each:
launching them one by one takes a CPU ten times as long as a GPU takes to run them.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

MAX_RECORDED = 2
"""Layouts that a recorder keeps; each takes the memory of what is recorded. Nearly all batches of a
run have one layout, full clips, and others are taken as they come."""
_WARM_UP = 3  # runs in which libraries choose and allocate what must not be done while recording


class Recorder(Generic[T]):
    """Does work on a module's device: on a GPU from a recording, once a layout has come twice.

    Work gets tensors on that device and returns others, which the next call may overwrite. It may
    leave gradients in the module's parameters, which never add to those that are there, and may
    not wait for the GPU.
    """

    def __init__(self, module: nn.Module, *, enabled: bool = True) -> None:
        self._module = module
        self._device = next(module.parameters()).device
        self._records = enabled and self._device.type == "cuda"
        self._recorded: dict[Hashable, _Recording[T]] = {}
        self._came: Counter[Hashable] = Counter()

    def __call__(
        self, layout: Hashable, make_work: Callable[[], Callable[..., T]], *inputs: Tensor
    ) -> T:
        """What the work for a layout makes of inputs, whose shapes the layout implies."""
        recording = self._recorded.get(layout)
        if recording is None:
            work = make_work()
            if not self._is_worth_recording(layout):
                self._module.zero_grad(set_to_none=True)
                return work(*(tensor.to(self._device) for tensor in inputs))
            recording = self._recorded[layout] = _Recording(work, inputs, self._module)
        return recording.replay(inputs)

    def _is_worth_recording(self, layout: Hashable) -> bool:
        if not self._records or len(self._recorded) >= MAX_RECORDED:
            return False
        self._came[layout] += 1
        return self._came[layout] > 1


class _Recording(Generic[T]):
    """Recording leaves the module as it was, buffers too, but for its gradients."""

    def __init__(self, work: Callable[..., T], inputs: Sequence[Tensor], module: nn.Module) -> None:
        self._module = module
        self._work = (
            work  # with it live the tensors that it holds, which the graph knows by address
        )
        device = next(module.parameters()).device
        self._inputs = [tensor.to(device, copy=True) for tensor in inputs]
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                module.zero_grad(set_to_none=True)
                work(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(beside)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        module.zero_grad(set_to_none=True)  # so that gradients are written, not added
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = work(*self._inputs)
        self._gradients = [parameter.grad for parameter in module.parameters()]

    def replay(self, inputs: Sequence[Tensor]) -> T:
        for held, new in zip(self._inputs, inputs, strict=True):
            held.copy_(new, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in zip(self._module.parameters(), self._gradients, strict=True):
            parameter.grad = gradient
        return self._outputs
