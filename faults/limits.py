"""A6: honest limits: a run resumed with something else than it began with is refused, or says that it is not bit-exact.

Something else is: threads, versions of what computes, the code's revision, the processor's instructions (also by a real
variable of torch), any change of the data. A run resumed with nothing changed must say nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from faults.forked import Server, server, serving
from faults.goal import Control, Goal, Outcome
from faults.jobs import Job, write_pictures
from faults.loader_threads import SETTINGS

REFUSED = 2


def repaint(data: Path) -> None:
    """One pixel by one level."""
    path = data / "train" / "class-1" / "004.png"
    picture = np.array(Image.open(path))
    picture[3, 3] ^= 1
    Image.fromarray(picture).save(path)


def relabel(data: Path) -> None:
    """A picture moves to another class."""
    (data / "train" / "class-1" / "004.png").rename(data / "train" / "class-2" / "004.png")


DATA: dict[str, Callable[[Path], object]] = {
    "a pixel changed": repaint,
    "a picture relabelled": relabel,
    "a picture added": lambda data: shutil.copy(data / "train" / "class-0" / "000.png",
                                                data / "train" / "class-0" / "100.png"),
    "a picture removed": lambda data: (data / "train" / "class-0" / "000.png").unlink(),
    "a picture renamed": lambda data: (data / "val" / "class-0" / "000.png").rename(data / "val/class-0/9.png"),
}


def variations() -> Iterator[tuple[str, str, dict[str, object]]]:
    """Name, the word that the run's label must have ("" where nothing differs), and what of the job is another."""
    yield "nothing", "", {}
    yield "two threads", "threads", {"settings": ("threads=2",)}
    for package in ("torch", "numpy", "pillow", "scipy", "code"):
        yield f"another {package}", package, {"versions": {package: "another"}}
    yield "other instructions", "cpu_capability", {"capability": "another"}


def limits(trials: int, folder: Path, guard: str = "") -> Outcome:
    """Resumes copies of a run that was killed in its second epoch, each with one thing changed; the first `trials`."""
    violations, tried = [], 0
    data = write_pictures(folder / "data", equal=False)
    job = Job("train", str(folder / "killed"), (f"data={data}", *SETTINGS, "checkpoint_seconds=1e-9"),
              kill=("saved", "after", 7))
    server().do(job)
    resumed = replace(job, action="resume", run=str(folder / "resumed"), settings=(), kill=None, guard=guard,
                      log=str(folder / "log"))

    def tried_with(name: str, word: str, job: Job, one: Server, may_refuse: bool = False) -> None:
        nonlocal tried
        tried += 1
        shutil.rmtree(folder / "resumed", ignore_errors=True)
        shutil.copytree(folder / "killed", folder / "resumed")
        code = one.do(job)
        notes = json.loads((folder / "resumed" / "run.json").read_text("utf-8"))["notes"]
        told = [note for note in notes if note.startswith("not bit-exact")]
        fine = code == REFUSED if may_refuse else code == 0 and (
            any(word in note for note in told) if word else not told)
        if not fine:
            violations.append(f"{name}: exit code {code}, labels {told}")

    for name, word, changes in list(variations())[:trials]:
        tried_with(name, word, replace(resumed, **changes), server())  # type: ignore[arg-type]
    for name, change in list(DATA.items())[: max(0, trials - tried)]:
        shutil.copytree(data, folder / "kept")
        change(data)
        tried_with(name, "", resumed, server(), may_refuse=True)
        if tried < trials:
            tried_with(f"{name}, accepted", "data changed", replace(resumed, accept_data_change=True), server())
        shutil.rmtree(data)
        (folder / "kept").rename(data)
    for variable, value in (("ATEN_CPU_CAPABILITY", "default"), ("ONEDNN_MAX_CPU_ISA", "SSE41"))[: trials - tried]:
        with serving({variable: value}) as other:
            tried_with(f"{variable}={value}", "cpu_capability", resumed, other)
    return Outcome(tried, tuple(violations))


GOALS = (
    Goal("A6", "honest limits", "refused, or labelled not bit-exact with the reason; no label where nothing changed",
         20, 10, limits, (Control("differences not looked for", lambda folder: limits(3, folder, "differences")),)),
)
