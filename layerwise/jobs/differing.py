"""What differs between two runs that ought to be the same, to the byte: which file, which tensors, which line."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from layerwise import checkpoint, rundir

MODEL = "model.safetensors"
SHOWN = 3  # names of tensors, keys or lines in a sentence


def compared_files(run: Path) -> dict[str, Path]:
    """The files of a finished run that no kill, quota or lost process may change, by what they are."""
    last = checkpoint.generations(run / rundir.CHECKPOINTS)[-1:]
    files = [run / MODEL, run / rundir.METRICS, run / rundir.RECIPE, *(file for one in last for file in one.iterdir())]
    return {file.relative_to(run).as_posix(): file for file in sorted(files)}


def differing(whole: Path, other: Path) -> list[str]:
    """What is different in `other`, a sentence a file; nothing where the two runs are byte-identical."""
    ours, theirs = compared_files(whole), compared_files(other)
    told = []
    for name in sorted({*ours, *theirs}):
        files = [found[name] for found in (ours, theirs) if name in found and found[name].is_file()]
        if len(files) < 2:
            told.append(f"{name}: only in the {'undisturbed' if name in ours and ours[name].is_file() else 'disturbed'}"
                        " run")
        elif files[0].read_bytes() != files[1].read_bytes():
            told.append(f"{name}: {_how(*files)}")
    return told


def _how(first: Path, second: Path) -> str:
    try:
        if first.suffix == ".safetensors":
            return _tensors(first, second)
        if first.suffix == ".jsonl":
            lines = [rundir.read_lines(file) for file in (first, second)]
            pairs = enumerate(zip_longest(*lines, fillvalue={}), 1)
            number, (a, b) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
            return f"line {number}: {_values(a, b)}"
        return _values(*(json.loads(file.read_text("utf-8")) for file in (first, second)))
    except (ValueError, SafetensorError, StopIteration) as error:
        return f"the bytes differ, and one can't be read ({error or type(error).__name__})"


def _tensors(first: Path, second: Path) -> str:
    with safe_open(first, "pt") as one, safe_open(second, "pt") as two:
        names = sorted({*one.keys(), *two.keys()})
        far: dict[str, float] = {}
        for name in names:
            if name not in one.keys() or name not in two.keys():  # noqa: SIM118 - this is no dict
                far[name] = float("inf")
                continue
            a, b = one.get_tensor(name), two.get_tensor(name)
            if a.shape != b.shape or a.dtype != b.dtype:
                far[name] = float("inf")
            elif a.numel() and not bool((a == b).all()):
                far[name] = float((a.double() - b.double()).abs().max())
        if not far:
            return f"the header differs: {_values(*(_header(file.metadata()) for file in (one, two)))}"
    worst = sorted(far, key=lambda name: -far[name])[:SHOWN]
    shown = ", ".join(f"{name} by up to {far[name]:.3g}" for name in worst)
    return f"{len(far)} of {len(names)} tensors differ: {shown}{', ...' if len(far) > SHOWN else ''}"


def _header(told: dict[str, str] | None) -> dict[str, Any]:
    """A safetensors header, ours as the JSON that it is, so that a single field can be named."""
    return {key: json.loads(text) if text.startswith("{") else text for key, text in (told or {}).items()}


def _values(first: Any, second: Any) -> str:
    """The fields that differ, with both values."""
    found = list(_fields(first, second, ""))
    return "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _fields(first: Any, second: Any, where: str) -> list[str]:
    if first == second:
        return []
    if isinstance(first, dict) and isinstance(second, dict):
        return [text for key in sorted({*first, *second})
                for text in _fields(first.get(key), second.get(key), f"{where}.{key}" if where else str(key))]
    return [f"{where or 'value'} {str(first)[:60]} against {str(second)[:60]}"]
