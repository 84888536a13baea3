"""A weight file of another library as named tensors: safetensors, or a pickle through torch's restricted loader."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from layerwise.errors import InputError, nearest

AGAIN = "Copy or download it again."
# Where a checkpoint keeps its weights, first choice first: averaged weights are what its author measured.
NESTS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "net",
         "network", "weights")  # fmt: skip
# Parts that torch's wrappers put into names: data parallel training, torch.compile.
WRAPPERS = ("module", "_orig_mod")
# What an averaged model counts beside its weights.
COUNTERS = ("n_averaged",)


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file by the source's names, wrappers taken off; `sha256` of the whole file; what to tell."""

    path: Path
    entries: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...]


def read(path: Path | str) -> WeightFile:
    """Reads a weight file. Nothing in it is executed.

    Raises InputError that says what the file is instead, where it is truncated, which classes a pickle wants to
    make, or which entries hold no sound numbers.
    """
    path = Path(path)
    if not path.is_file():
        others = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        what = "is a directory, not a weight file" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {what}{nearest(path.name, others)}")
    with path.open("rb") as file:
        start = file.read(512)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    _refuse_foreign(path, start)
    notes: list[str] = []
    if start[:2] in (b"PK", b"\x80\x02"):
        notes.append("a pickle, read through torch's restricted loader: it makes tensors and nothing else")
        tensors = _from_pickle(path, notes)
    else:
        tensors = _from_safetensors(path)
    entries = _unwrapped(path, tensors, notes)
    _refuse_unsound(path, entries)
    return WeightFile(path, entries, sha256, tuple(notes))


def _refuse_foreign(path: Path, start: bytes) -> None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kinds = {
        "empty": not start,
        "a Git-LFS pointer, not the file itself: run `git lfs pull`": text.startswith(b"version https://git-lfs"),
        "a web page, saved under this name": text.startswith((b"<!doctype html", b"<html")),
    }
    for kind, found in kinds.items():
        if found:
            raise InputError(f"{path}: the file is {kind}", mend=AGAIN)
    archive = start[:2] in (b"PK", b"\x80\x02")
    if not archive and start[8:9] != b"{":
        raise InputError(f"{path}: neither a .safetensors file nor one that torch.save wrote",
                         mend="Weight files of torchvision and timm end in .safetensors, .pth, .pt or .bin.")


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    missing = _missing_bytes(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: not a whole .safetensors file{missing} ({error})", mend=AGAIN) from None
    with path.open("rb") as file:
        header = json.loads(str(file.read(int.from_bytes(file.read(8), "little")), "utf-8"))
    if "layerwise" in (header.get("__metadata__") or {}):  # null is as good as none
        raise InputError(f"{path}: a model file of Layerwise already", mend="Use it as it is: layerwise predict FILE.")
    return tensors


def _missing_bytes(path: Path) -> str:
    """": truncated at n of m bytes" where the header tells how long the file must be."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length:
            return f": truncated at {size} bytes, within its header of {length}"
        try:
            header = json.loads(str(file.read(length), "utf-8"))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return ""
    whole = 8 + length + max(ends, default=0)
    return f": truncated at {size} of {whole} bytes" if size < whole else ""


def _from_pickle(path: Path, notes: list[str]) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own old formats
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged or hostile pickle may end in any of them
            raise _refusal(path, error) from None
    return _weights_within(path, found, notes)


def _refusal(path: Path, error: Exception) -> InputError:
    """Why torch's restricted loader gave a file back: the classes it wanted to make, or that it isn't whole."""
    text = str(error)
    if "TorchScript" in text:
        return InputError(f"{path}: a TorchScript archive, which holds a program",
                          mend="Where it was made: safetensors.torch.save_file(model.state_dict(), FILE).")
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # as above; the older format isn't known to it
        classes = []
    classes = sorted({*classes, *re.findall(r"GLOBAL ([\w.]+)", text)})
    if classes or "Unsupported" in text:
        return InputError(
            f"{path}: a pickle that holds more than tensors",
            "Making such objects runs code that the file names, so it is not read.",
            "Where it was made, save the tensors alone: safetensors.torch.save_file(model.state_dict(), FILE).",
            [f"it would make {name}" for name in classes],
        )
    first = text.strip().split(". ")[0].splitlines()[0][:200] if text.strip() else type(error).__name__
    return InputError(f"{path}: not a whole file of torch.save ({first})", mend=AGAIN)


def _weights_within(path: Path, found: Any, notes: list[str]) -> dict[str, Tensor]:
    """The mapping of names to tensors in what a checkpoint holds; says which, where there were several."""
    way: list[str] = []
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        nests = [name for name in NESTS if isinstance(found.get(name), Mapping)]
        if not nests:
            break
        others = f"; {', '.join(nests[1:])} beside it {'is' if len(nests) == 2 else 'are'} not" if nests[1:] else ""
        way.append(nests[0])
        notes.append(f"the weights under {' / '.join(way)} are used{others}")
        found = found[nests[0]]
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        kind = type(found).__name__
        if isinstance(found, Mapping):
            kind = f"a dict of {', '.join(map(repr, list(found)[:5]))}" if found else "an empty dict"
        raise InputError(f"{path}: no weights in it, but {kind}",
                         mend=f"Expected a dict of names and tensors, or one under {', '.join(NESTS)}.")
    strange = [f"{name}: {type(value).__name__}" for name, value in found.items() if not isinstance(value, Tensor)]
    if strange:
        raise InputError(f"{path}: entries that are no tensors", details=strange)
    return {str(name): value for name, value in found.items()}


def _unwrapped(path: Path, tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """The entries without the wrappers' parts of their names and without an average's counter."""
    entries: dict[str, Tensor] = {}
    called: dict[str, str] = {}
    twice, taken = [], set()
    for name, tensor in tensors.items():
        parts = name.split(".")
        while len(parts) > 1 and parts[0] in WRAPPERS:
            taken.add(parts.pop(0))
        if "_orig_mod" in parts[:-1]:  # torch.compile on a part of the network
            taken.add("_orig_mod")
            parts = [part for part in parts[:-1] if part != "_orig_mod"] + parts[-1:]
        plain = ".".join(parts)
        if plain in COUNTERS:
            notes.append(f"{plain}: how many weights were averaged, unused")
            continue
        if plain in entries:
            twice.append(f"{plain}: as {called[plain]} and as {name}")
        entries[plain], called[plain] = tensor, name
    if twice:
        raise InputError(f"{path}: entries that are there twice, with and without a wrapper's prefix", details=twice)
    if taken:
        notes.append(f"taken off the names: {', '.join(f'{part}.' for part in sorted(taken))}")
    return entries


def _refuse_unsound(path: Path, entries: dict[str, Tensor]) -> None:
    problems = []
    for name, tensor in entries.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            problems.append(f"{name}: sparse or quantised")
        elif tensor.is_complex():
            problems.append(f"{name}: complex numbers")
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name}: holds a number that is not finite")
    if problems:
        raise InputError(f"{path}: weights that can't be used", "A network with them answers nothing of use.",
                         "Take another file.", problems)
