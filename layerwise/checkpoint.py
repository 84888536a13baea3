"""Generations of a run on disk: write, verify, find, resume.

One directory a generation, named by the samples seen. It is complete before it has its name: data, fsync, manifest,
fsync, rename, fsync of the directory. The manifest, written last, holds size and SHA-256 of each file. The newest
sound generation is found by looking, never stored. Two generations are kept, and an older one is only removed when
two newer ones stand.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from layerwise.errors import InputError, MachineError

FORMAT = 1
KEPT = 2
TENSORS, STATE, MANIFEST = "weights.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Generation:
    """One complete checkpoint: its directory, tensors by name, and JSON state."""

    directory: Path
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def fsync_directory(directory: Path) -> None:
    """Makes names created or renamed in `directory` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes) -> None:
    """Writes and fsyncs a new file."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, data: bytes) -> None:
    """Replaces a file atomically: a temporary name, fsync, rename, fsync of the directory."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        write_durably(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def require_space(directory: Path, size: int) -> None:
    """Raises MachineError where fewer than `size` bytes (and 10 % more) are free under `directory`."""
    free = shutil.disk_usage(directory).free
    if free < size * 1.1:
        raise MachineError(
            f"{directory}: {free / 1e6:.0f} MB free, a checkpoint needs {size * 1.1 / 1e6:.0f} MB",
            "Without room the next checkpoint can't be written; the ones written before are untouched.",
            "Free some space, or choose another disk with --out DIR.",
        )


def write(directory: Path, position: int, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> Path:
    """Writes the generation `position` (samples seen) under `directory`; removes all but the two newest after that.

    Raises OSError as the system gives it; the generations written before are then untouched.
    """
    final = directory / f"{position:012d}"
    temporary = directory / f".writing-{position:012d}"
    _clear(directory)
    directory.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        files = {
            TENSORS: save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}),
            STATE: json.dumps(state, allow_nan=False, sort_keys=True).encode(),
        }
        for name, data in files.items():
            write_durably(temporary / name, data)
        manifest = {
            "format": FORMAT,
            "position": position,
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
            },
        }
        write_durably(temporary / MANIFEST, json.dumps(manifest, sort_keys=True).encode())
        fsync_directory(temporary)
        if final.exists():  # the same position again: after an interrupt right behind a save, or over a damaged one
            _remove(final)
        os.rename(temporary, final)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(directory)
    for old in generations(directory)[:-KEPT]:
        _remove(old)
    return final


def generations(directory: Path) -> list[Path]:
    """The generations under `directory`, oldest first, whether sound or not."""
    return sorted(entry for entry in directory.glob("[0-9]*") if entry.is_dir()) if directory.is_dir() else []


def read(generation: Path) -> Generation:
    """Reads and verifies one generation. Raises InputError that names the damaged file and how it is damaged."""
    try:
        manifest = json.loads((generation / MANIFEST).read_bytes())
        if manifest["format"] > FORMAT:
            raise InputError(f"{generation}: written by a newer version (format {manifest['format']}, known: {FORMAT})",
                             mend="Update layerwise.")
        data = {}
        for name in (TENSORS, STATE):
            expected = manifest["files"][name]
            data[name] = (generation / name).read_bytes()
            if len(data[name]) != expected["bytes"]:
                words = "truncated at" if len(data[name]) < expected["bytes"] else "altered,"
                raise InputError(f"{generation / name}: {words} {len(data[name])} of {expected['bytes']} bytes")
            if hashlib.sha256(data[name]).hexdigest() != expected["sha256"]:
                raise InputError(f"{generation / name}: its SHA-256 is not the manifest's, so its content was altered")
        return Generation(generation, load_tensors(data[TENSORS]), json.loads(data[STATE]))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing") from None
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{generation}: its manifest or content can't be read ({error})") from None


def newest(directory: Path) -> tuple[Generation | None, tuple[str, ...]]:
    """The newest sound generation (None where there is none) and what is wrong with each newer one."""
    problems: list[str] = []
    for generation in reversed(generations(directory)):
        try:
            return read(generation), tuple(problems)
        except InputError as error:
            problems.append(error.what)
    return None, tuple(problems)


def _clear(directory: Path) -> None:
    """Removes what a killed process left half written or half removed."""
    for pattern in (".writing-*", ".removing-*"):
        for entry in directory.glob(pattern):
            shutil.rmtree(entry, ignore_errors=True)


def _remove(generation: Path) -> None:
    """Removes a generation: renamed first, so that no half-removed one ever has a generation's name."""
    doomed = generation.with_name(f".removing-{generation.name}")
    os.rename(generation, doomed)
    shutil.rmtree(doomed)
