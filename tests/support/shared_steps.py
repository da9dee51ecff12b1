"""One step of a trainer on a batch that processes share, or on all of it at once.

python shared_steps.py RANK SIZE MEETING_POINT OUT     writes OUT/CASE-RANK.safetensors
"""

import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from moving_squares import Square, scene
from safetensors.torch import save_file
from torch import Tensor

from online.training.batch import Batch
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.exchange import Exchange
from online.training.trainer import Trainer
from setcon.config import EncoderConfig, LossConfig, SetConConfig, SlotAttentionConfig
from setcon.model import SetCon
from setcon.supervoxels.supervoxels import Supervoxels, neighbour_distance

STRIDE = 1
SPLITS = {1: [4], 2: [1, 3]}
"""Clips of each process: unlike, as equal ones would hide a wrong scale."""


@dataclass(frozen=True, kw_only=True)
class Case:
    lengths: tuple[int, ...] = (4, 7, 3, 6)
    """Frames of the clips; the first process has the first, which is not the longest."""
    model: SetConConfig = field(default_factory=SetConConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    clip_norm: float = 0.0


def _dilated(**model: object) -> SetConConfig:
    encoder = EncoderConfig(kind="dilated", width=8, **model)  # type: ignore[arg-type]
    return SetConConfig(encoder=encoder)


CASES = {
    "plain": Case(),
    "clipped": Case(clip_norm=1e-3),
    "dot product": Case(loss=LossConfig(similarity="dot", temperature=0.5, standardise=False)),
    "slot by slot": Case(loss=LossConfig(unit="slot", horizon=2)),
    "horizon and exclusivity": Case(loss=LossConfig(horizon=4, exclusivity=0.7)),
    "one triplet each": Case(lengths=(3, 3, 3, 3)),
    "batch statistics": Case(model=_dilated(normalisation="batch")),
    "objects": Case(
        lengths=(6, 8, 5, 7),
        model=SetConConfig(
            encoder=EncoderConfig(kind="dilated", width=8, normalisation="group"),
            slot_attention=SlotAttentionConfig(starts="objects", num_slots=5, slot_size=12),
        ),
        loss=LossConfig(prediction=1.0),
    ),
}


def stepped(name: str, *, rank: int = 0, size: int = 1) -> dict[str, Tensor]:
    """What a step leaves: losses, gradients, feedback and buffers, by name."""
    case = CASES[name]
    torch.manual_seed(3)
    trainer = Trainer(
        SetCon(case.model),
        frame_stride=STRIDE,
        loss=case.loss,
        optimizer=OptimizerConfig(clip_norm=case.clip_norm),
        training=TrainingConfig(precision="float64"),
        device=torch.device("cpu"),
        exchange=Exchange() if size > 1 else None,
    )
    result = trainer.step(_batch(case, rank, size), lengths=_lengths(case, size))
    numbers = (result.loss, result.grad_norm, result.exclusivity, result.foreground or 0.0)
    return {
        "numbers": torch.tensor([*numbers, result.top1, result.chance], dtype=torch.float64),
        "counts": torch.tensor([result.states, result.triplets]),
        "feedback/features": torch.from_numpy(result.feedback.features),
        "feedback/losses": torch.from_numpy(result.feedback.losses),
        **{
            f"gradient/{n}": p.grad
            for n, p in trainer.model.named_parameters()
            if p.grad is not None
        },
        **{f"buffer/{n}": b.clone() for n, b in trainer.model.named_buffers()},
    }


def _gradients(trainer: Trainer) -> list[tuple[str, Tensor]]:
    named = trainer.model.named_parameters()
    return [(name, p.grad) for name, p in named if p.grad is not None]


def _lengths(case: Case, size: int) -> list[tuple[int, ...]]:
    split = SPLITS[size]
    ends = [sum(split[:i]) for i in range(len(split) + 1)]
    return [case.lengths[a:b] for a, b in pairwise(ends)]


def _batch(case: Case, rank: int, size: int) -> Batch:
    clips = [_clip(case, index, length) for index, length in enumerate(case.lengths)]
    first = sum(SPLITS[size][:rank])
    own = clips[first : first + SPLITS[size][rank]]
    return Batch(
        torch.stack([frames for frames, _, _ in own]),
        torch.stack([valid for _, valid, _ in own]),
        tuple(p for *_, p in own if p) if case.model.finds_objects else None,
    )


def _clip(case: Case, index: int, length: int) -> tuple[Tensor, Tensor, Supervoxels | None]:
    longest = max(case.lengths)
    square = Square(side=8, start=(2 + 3 * index, 4), velocity=(1, 2))
    frames, _ = scene([square], num_frames=length, size=(24, 32), seed=index)
    filled = torch.cat([frames, frames[-1:].expand(longest - length, -1, -1, -1)])
    valid = torch.arange(longest - 2 * STRIDE) < length - 2 * STRIDE
    if not case.model.finds_objects:
        return filled[:, 8:16, 8:20], valid, None
    distance = neighbour_distance(0.1, num_frames=length)
    return filled, valid, Supervoxels.of(filled, distance=distance, filled_from=length)


def main(rank: int, size: int, meeting_point: str, out: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=size
    )
    for name in CASES:
        found = stepped(name, rank=rank, size=size)
        save_file({k: v.contiguous() for k, v in found.items()}, out / f"{name}-{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
