"""Run directories made by hand: a log and two probes, with numbers that are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from online.config import dump_config, load_preset
from online.runs.glimpse import Glimpse
from online.scores.evaluation import (
    EncoderScores,
    Evaluation,
    MaskScores,
    Panels,
    Placed,
    ReconstructionScores,
    WithoutModel,
    save_evaluation,
)


def scored(step: int, fg_ari: float) -> Evaluation:
    masks = MaskScores(fg_ari=fg_ari, fg_ari_video=fg_ari, ari=0.5, mbo=0.4, miou=0.3)
    blocks = MaskScores(fg_ari=0.35, fg_ari_video=0.35, ari=0.1, mbo=0.2, miou=0.1)
    part = ReconstructionScores(mse=0.01, mse_share=0.25, psnr=20.0, alphas=masks)
    encoder = EncoderScores(
        current=part,
        predicted=part,
        attention=None,
        probe_train_mse=0.01,
        slot_entropy=0.9,
        effective_rank=5.0,
        places=places(0.99, 0.96, 0.9),
    )
    return Evaluation(
        step=step,
        trained=encoder,
        untrained=replace(encoder, places=places(0.99, 0.2, 0.9)),
        mean_frame_mse=0.04,
        mean_frame_psnr=14.0,
        frames_train=100,
        frames_held_out=20,
        frames_without_two_objects=0,
        seconds=1.0,
        copied=replace(part, mse_share=0.75),
        without_model=WithoutModel(
            blocks=blocks, colours=masks, frame_k_means=masks, frame_ward=blocks
        ),
    )


def places(*r2: float) -> list[Placed]:
    return [Placed(label=i + 1, slot=1, r2=each) for i, each in enumerate(r2)]


def panels() -> Panels:
    image = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    shares = np.full((2, 3, 8, 8), 1 / 3, dtype=np.float32)
    return Panels(
        names=["a 0.0 s", "a 1.0 s"],
        frames=image,
        truth=None,
        reconstruction=image,
        predicted=image,
        untrained=image,
        slots=np.zeros((2, 3, 8, 8, 3), dtype=np.uint8),
        alphas=shares,
        attention=shares,
    )


def make_run(path: Path, *settings: str, seed: int = 0, fg_ari: float = 0.5) -> Path:
    """A run of 200 steps; its probes at 100 and 200 come to half of `fg_ari` and to all of it."""
    path.mkdir()
    config = load_preset("demo", [f"training.seed={seed}", *settings])
    (path / "config.toml").write_text(dump_config(config))
    lines = [
        {"kind": "step", "step": step, "seconds": 1.0, "loss": 5.0 - seed, "top1": 0.1 * seed}
        for step in range(10, 210, 10)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, share in ((100, 0.5), (200, 1.0)):
        save_evaluation(path / f"probes/step-{step:08}", scored(step, share * fg_ari), panels())
    return path


def glimpse(*, step: int, has_segments: bool = False, side: int = 16, slots: int = 3) -> Glimpse:
    """A grey frame; at each step another slot has the whole of the attention."""
    attention = np.zeros((slots, side // 2, side // 2), np.uint8)
    attention[step % slots] = 255
    segments = np.full((side, side), step % slots, np.uint8) if has_segments else None
    return Glimpse(
        step=step,
        recording="balls é",
        frame_seconds=1.5,
        frame=np.full((side, side, 3), 90, np.uint8),
        attention=attention,
        segments=segments,
    )
