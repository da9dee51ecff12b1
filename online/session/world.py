"""The processes that learn one run together, started by torchrun: who they are, and how they talk.

    torchrun ─▶ rank 0: locks the run, writes log, checkpoints, probes, report     n ranks take the
            ─▶ rank 1 ... n-1: learn                                               same steps

Small numbers and saved states go over gloo, from the memory of CPUs; rows and gradients over NCCL
where the ranks have GPUs (see `online.training.exchange`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from online.errors import RankLost
from online.ranks import rank_here
from online.training.exchange import Exchange

_STOP = "stop"
_LOOK_SECONDS = 0.5
"""How often a rank that waits looks whether another one was asked to stop."""


class World:
    """Which of how many ranks this process is; alone unless it was `joined`."""

    def __init__(self, rank: int = 0, size: int = 1, *, store: Store | None = None) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank must lie in 0..size-1, got {rank} of {size}")
        self.rank = rank
        self.size = size
        self.exchange = None if store is None else Exchange()
        self._store = store
        self._parent = os.getppid()
        self._looked_at = 0.0
        self._is_stopping = False
        self._turns = 0

    @classmethod
    @contextmanager
    def joined(cls, device: torch.device) -> Iterator[World]:
        """The world that torchrun has started this process in; one of a single process otherwise.

        Raises RankLost, also from inside: another rank has ended before the run has.
        """
        here = rank_here()
        if here.size == 1:
            yield cls()
            return
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            store, rank, size = next(rendezvous("env://"))
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
            yield cls(rank, size, store=PrefixStore("setcon", store))
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise RankLost(
                f"rank {here.rank}: another rank has ended or cannot be reached "
                f"({str(error).splitlines()[0][:120]}); the same command continues the run"
            ) from error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    @property
    def writes(self) -> bool:
        """Whether this process writes what is written once for all of them."""
        return self.rank == 0

    def share_of(self, shards: int) -> range:
        """The shards of this rank; their number is a multiple of that of ranks."""
        each = shards // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def gathered(
        self, numbers: Sequence[int], *, meanwhile: Callable[[], None] = lambda: None
    ) -> list[list[int]]:
        """The numbers of each rank, equally many; `meanwhile` is called while others take long."""
        own = torch.tensor(list(numbers), dtype=torch.int64)
        if self.exchange is None:
            return [own.tolist()]
        received = [torch.empty_like(own) for _ in range(self.size)]
        work = dist.all_gather(received, own, async_op=True)
        assert work is not None
        pause = 2e-5
        while not work.is_completed():  # no signal reaches a process that waits in a collective
            time.sleep(pause)
            pause = min(1.5 * pause, 0.02)
            if pause == 0.02:
                meanwhile()
        work.wait()
        return [each.tolist() for each in received]

    def gathered_bytes(self, data: bytes) -> list[bytes]:
        """The bytes of each rank."""
        if self.exchange is None:
            return [data]
        sizes = [size for (size,) in self.gathered([len(data)])]
        padded = torch.zeros(max(1, *sizes), dtype=torch.uint8)
        padded[: len(data)] = torch.frombuffer(bytearray(data or b"0"), dtype=torch.uint8)[
            : len(data)
        ]
        received = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(received, padded)
        return [each[:size].numpy().tobytes() for each, size in zip(received, sizes, strict=True)]

    def first_says(self, flag: bool) -> bool:
        """What rank 0 says."""
        return bool(self.gathered([flag])[0][0])

    def announce_stop(self) -> None:
        """Let ranks that wait know that this one was asked to stop."""
        if self._store is not None and not self._is_stopping:
            self._is_stopping = True
            self._store.set(_STOP, str(self.rank))

    def is_stopping(self) -> bool:
        """Whether a rank was asked to stop, as of half a second ago, or torchrun is gone."""
        if self._store is None:
            return False
        now = time.monotonic()
        if not self._is_stopping and now >= self._looked_at + _LOOK_SECONDS:
            self._looked_at = now
            self._is_stopping = self._store.check([_STOP]) or os.getppid() != self._parent
        return self._is_stopping

    @contextmanager
    def turn_of_first(self, meanwhile: Callable[[], None]) -> Iterator[None]:
        """Rank 0 does what is inside; the others wait for it, however long it takes.

        They call `meanwhile` again and again.
        """
        if self._store is None:
            yield
            return
        self._turns += 1
        key = f"turn {self._turns}"
        try:
            yield
        finally:
            if self.writes:
                self._store.set(key, "done")
            else:
                while not self._store.check([key]):
                    time.sleep(_LOOK_SECONDS / 5)
                    meanwhile()
