"""TensorBoard as an extra: a run's metrics as event files. The run's own record stays the JSON lines."""

from __future__ import annotations

import shutil
from pathlib import Path

from layerwise import rundir
from layerwise.errors import MachineError

SHOWN = ("loss", "error", "macro_f1", "learning_rate")


def write_events(run: Path) -> Path:
    """Writes RUN/tensorboard anew from RUN/metrics.jsonl; returns that directory. May be called while a run trains.

    Raises InputError where `run` is not a run, MachineError where the extra `tensorboard` is not installed.
    """
    rundir.read_run(run)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MachineError("the package tensorboard is not installed", "Event files are written with it.",
                           "In the checkout of Layerwise: pip install -c constraints.txt '.[tensorboard]'") from None
    events = run / "tensorboard"
    shutil.rmtree(events, ignore_errors=True)  # only ever what this function wrote: it has no other source
    with SummaryWriter(str(events)) as writer:
        for line in rundir.read_lines(run / rundir.METRICS):
            for name in SHOWN:
                if line.get(name) is not None:
                    writer.add_scalar(f"{name}/{line['kind']}", line[name], line["step"])
    return events
