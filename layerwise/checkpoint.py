"""Generations of a run on disk: write, verify, find, resume.

One directory a generation, named by the samples seen. It is complete before it has its name: data, fsync, manifest,
fsync, rename, fsync of the directory. The manifest, written last, holds size and SHA-256 of each file, and its own.
The newest sound generation is found by looking, never stored. Two generations are kept, and an older one is only
removed when two newer ones stand. faults/checkpoints.py tries what a power failure, a rotten disk and a failing call
can do to them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
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
Piece = bytes | memoryview


@dataclass(frozen=True)
class Generation:
    """One complete checkpoint: its directory, tensors by name, and JSON state."""

    directory: Path
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


class LeftOverError(OSError):
    """A generation was written and stands; an older one could not be removed. The next save tries that again."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an OSError of a call that knows no path, such as fsync, the path it was for."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def fsync_directory(directory: Path) -> None:
    """Makes names created or renamed in `directory` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        with naming(directory):
            os.fsync(handle)
    finally:
        os.close(handle)


def make_durably(directory: Path) -> None:
    """Makes a directory, and those above it that are missing; their names survive a power failure."""
    for one in reversed([one for one in (directory, *directory.parents) if not one.exists()]):
        one.mkdir(exist_ok=True)
        fsync_directory(one.parent)


def write_durably(path: Path, data: bytes | Iterable[Piece]) -> None:
    """Writes and fsyncs a new file, whole or piece by piece."""
    with naming(path), open(path, "wb") as file:
        for piece in pieces(data):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def pieces(data: bytes | Iterable[Piece]) -> Iterable[Piece]:
    """What is written one after the other: bytes are one piece."""
    return (data,) if isinstance(data, bytes) else data


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

    A sound generation of the same position is never written over: the last one is kept where it is the same, and else
    the new one stands beside it, behind it in the order. Raises OSError as the system gives it; the generations written
    before are then untouched. Raises LeftOverError where the new one stands and an older one can't be removed.
    """
    _clear(directory)
    make_durably(directory)
    if not generations(directory):
        fsync_directory(directory.parent)
    text = json.dumps(state, allow_nan=False, sort_keys=True).encode()
    files: dict[str, Callable[[], Iterable[Piece]]] = {TENSORS: lambda: serialised(tensors), STATE: lambda: (text,)}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "position": position,
        "files": {name: _measured(content()) for name, content in files.items()},
    }
    final = directory / f"{position:012d}"
    same = [one for one in generations(directory) if re.fullmatch(rf"{final.name}(-\d+)?", one.name)]
    if same:  # after a failure right behind a save; only the last of them is the state that was saved last
        final = same[-1]
        if found := _sound(final):
            if found["files"] == manifest["files"]:
                return final
            number = int(final.name.partition("-")[2] or 1) + 1
            final = directory / f"{position:012d}-{number:02d}"
    temporary = directory / f".writing-{final.name}"
    try:
        temporary.mkdir()
        for name, content in files.items():
            write_durably(temporary / name, content())
        write_durably(temporary / MANIFEST, _sealed(manifest))
        fsync_directory(temporary)
        if final.exists():  # damaged
            _remove(final)
        os.rename(temporary, final)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(directory)
    try:
        _tidy(directory, final)
    except OSError as error:
        raise LeftOverError(error.errno, error.strerror, error.filename) from error
    return final


def serialised(tensors: dict[str, torch.Tensor]) -> Iterator[Piece]:
    """The bytes of safetensors' `save`, tensor by tensor.

    `save` makes all of them at once, and twice: ten times a network's weights where Adam, an average and the best
    weights are kept, in which trainings that fitted were killed at their first checkpoint.
    """
    # Its order and its words for the types are taken from itself.
    empty = save_tensors({name: tensor.new_empty(0, device="cpu") for name, tensor in tensors.items()})
    header, end = json.loads(empty[8:]), 0
    for name, entry in header.items():
        entry |= {"shape": list(tensors[name].shape), "data_offsets": [end, end := end + tensors[name].nbytes]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in header:
        yield tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _measured(content: Iterable[Piece]) -> dict[str, Any]:
    """What the manifest says of a file."""
    size, digest = 0, hashlib.sha256()
    for piece in content:
        size += len(piece)
        digest.update(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _tidy(directory: Path, final: Path) -> None:
    """Keeps `final` and the one before it. What claims to be newer and isn't sound was passed over before."""
    found = generations(directory)
    newer = [one for one in found if one.name > final.name]
    for damaged in newer:
        if not _sound(damaged):
            _remove(damaged)
    for old in found[: len(found) - len(newer)][:-KEPT]:
        _remove(old)


def generations(directory: Path) -> list[Path]:
    """The generations under `directory`, oldest first, whether sound or not."""
    return sorted(entry for entry in directory.glob("[0-9]*") if entry.is_dir()) if directory.is_dir() else []


def read(generation: Path) -> Generation:
    """Reads and verifies one generation. Raises InputError that names the damaged file and how it is damaged."""
    try:
        manifest = _manifest(generation)
        data = {}
        for name in (TENSORS, STATE):
            expected = manifest["files"][name]
            data[name] = (generation / name).read_bytes()
            if len(data[name]) != expected["bytes"]:
                words = "truncated at" if len(data[name]) < expected["bytes"] else "altered,"
                raise InputError(f"{generation / name}: {words} {len(data[name])} of {expected['bytes']} bytes")
            if hashlib.sha256(data[name]).hexdigest() != expected["sha256"]:
                raise InputError(f"{generation / name}: its SHA-256 is not the manifest's, so its content was altered")
        return Generation(generation, load_tensors(data[TENSORS]), json.loads(str(data[STATE], "utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing") from None
    except OSError as error:  # a sector that can't be read, a lost permission
        raise InputError(f"{error.filename or generation}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{generation}: its manifest or content can't be read ({error})") from None


def _sealed(manifest: dict[str, Any]) -> bytes:
    """The manifest's file: canonical JSON with the SHA-256 of the rest of it."""
    whole = manifest | {"sha256": hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()}
    return json.dumps(whole, sort_keys=True).encode()


def _manifest(generation: Path) -> dict[str, Any]:
    """Reads and verifies a manifest. Those of earlier versions have no SHA-256 of their own."""
    path = generation / MANIFEST
    data = path.read_bytes()
    try:
        found = json.loads(str(data, "utf-8"))
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        rest = {name: value for name, value in found.items() if name != "sha256"}
        whole = data == (_sealed(rest) if "sha256" in found else json.dumps(found, sort_keys=True).encode())
        if whole and isinstance(found.get("format"), int) and found["format"] > FORMAT:
            raise InputError(f"{generation}: written by a newer version (format {found['format']}, known: {FORMAT})",
                             mend="Update layerwise.")
        if (whole and rest.keys() == {"format", "position", "files"} and found["format"] == FORMAT
                and generation.name.partition("-")[0] == f"{found['position']:012d}"):
            return rest
    raise InputError(f"{path}: {len(data)} bytes that are not what was written, so its content was altered")


def _sound(generation: Path) -> dict[str, Any]:
    """The manifest of a generation, empty where the generation is damaged."""
    try:
        read(generation)
        return _manifest(generation)
    except InputError:
        return {}


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
    """Removes a generation: renamed first, and that durably, so that no half-removed one ever has its name."""
    doomed = generation.with_name(f".removing-{generation.name}")
    os.rename(generation, doomed)
    fsync_directory(generation.parent)
    shutil.rmtree(doomed)
