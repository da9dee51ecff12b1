"""A rank of a small run, to which something happens; torchrun starts it.

torchrun ... ranked_run.py SOURCE RUN OUT FAULT SETTING...     SOURCE: a store, or an address
"""

import json
import os
import signal
import sys
from dataclasses import astuple
from pathlib import Path

import torch
from small_runs import config

from online.errors import OnlineError
from online.queue.feed import Fate
from online.ranks import rank_here
from online.session.start import train
from online.session.status import Status
from online.session.wiring import Start
from online.session.world import World
from online.training import trainer

AT_STEP = 3
"""After which the fault comes, to the last rank."""


def main(source: str, run: Path, out: Path, fault: str, *settings: str) -> int:
    here, ledger, steps = rank_here(), [], []
    killed = out / "killed"

    def note(fate: Fate) -> None:
        ledger.append(astuple(fate.spec))

    def observe(status: Status) -> None:
        if status.activity != "learning":
            return
        steps.append((status.step, status.loss))
        (out / f"step-{here.rank}").write_text(str(status.step))
        if status.step == AT_STEP and here.rank == here.size - 1:
            befall()

    def befall() -> None:
        if fault == "SIGTERM":
            signal.raise_signal(signal.SIGTERM)
        elif fault == "SIGKILL" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "NaN":
            as_floats = trainer.as_floats
            trainer.as_floats = lambda frames: as_floats(frames) * torch.nan

    told: dict[str, object] = {}
    try:
        with World.joined(torch.device("cpu")) as world:
            is_store = Path(source).exists()
            outcome = train(
                Start(
                    run=run,
                    config=config(*settings),
                    store=source if is_store else None,
                    addresses=[] if is_store else [source],
                    minutes=0.03 if fault == "time" else None,
                    observers=[observe],
                    observe_clips=note,
                    world=world,
                )
            )
            told = {"reason": outcome.reason, "step": outcome.step}
            told |= {"inserted": outcome.clips.inserted, "reconnects": outcome.received.reconnects}
    except OnlineError as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    told |= {"ledger": ledger, "steps": steps}
    (out / f"rank-{here.rank}.json").write_text(json.dumps(told))
    return 1 if "error" in told else 0


if __name__ == "__main__":
    source, run, out, fault, *settings = sys.argv[1:]
    sys.exit(main(source, Path(run), Path(out), fault, *settings))
