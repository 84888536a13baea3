"""Which pictures changed since a run began: its data/<split>.csv against the data as they are now."""

from __future__ import annotations

from pathlib import Path

from layerwise.data.source import DataSet, Samples
from layerwise.rundir import contents_of, read_split

SHOWN = 5


def changed_pictures(run: Path, data: DataSet) -> list[str]:
    """A line for each split that differs: how many pictures were added, removed, relabelled or changed, and which.

    [] where the run's lists tell no difference, or can't be read.
    """
    lines = []
    for split in ("train", "val", "test"):
        before, now = _listed(run / "data" / f"{split}.csv"), _now(data.splits.get(split))
        if before is None or before == now:
            continue
        both = before.keys() & now.keys()
        kinds = {
            "added": [name for name in now if name not in before],
            "removed": [name for name in before if name not in now],
            "relabelled": [name for name in before if name in both and before[name][0] != now[name][0]],
            "changed": [name for name in before if name in both and before[name][0] == now[name][0]
                        and before[name][1] and before[name][1] != now[name][1]],
        }
        parts = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
        if parts:
            lines.append(f"{split}: {', '.join(parts)}")
    return lines


def _some(names: list[str]) -> str:
    more = [f"and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return ", ".join([*(repr(name) for name in names[:SHOWN]), *more])


def _now(samples: Samples | None) -> dict[str, tuple[str, str]]:
    if samples is None:
        return {}
    labels = [samples.class_names[label] for label in samples.labels]
    return {name: (label, content)
            for name, label, content in zip(samples.ids, labels, contents_of(samples), strict=True)}


def _listed(file: Path) -> dict[str, tuple[str, str]] | None:
    """Label and content of each picture when the run began; content is "" in runs of earlier versions."""
    if not file.is_file():
        return {}
    try:
        return {name: (label, content) for name, label, content in read_split(file)}
    except (OSError, ValueError):
        return None
