"""The model file: weights, class names, preprocessing, recipe, results and provenance in one `.safetensors`.

The tensors are the network's (`model.` and its name) and the preprocessing's (`preprocess.mean`, `preprocess.std`);
everything else is checked JSON in the header, under the key `layerwise`. Reading never executes anything: the
architecture is a name looked up in our own table, and there is no pickle.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from layerwise import models
from layerwise.checkpoint import replace_durably
from layerwise.data.preprocess import Preprocess
from layerwise.errors import InputError, nearest
from layerwise.layers.unfilled import Unfilled
from layerwise.models.network import Network
from layerwise.recipe import Recipe

FORMAT = 1
NAME = "model.safetensors"
HEADER = "layerwise"
FIELDS = {
    "format": int, "architecture": dict, "class_names": list, "preprocess": dict,
    "recipe": dict, "results": list, "provenance": dict,
}


@dataclass(frozen=True)
class ModelFile:
    """A network with all that is needed to use it rightly.

    `sha256` is the digest of the tensors alone: the same weights have the same digest, whatever results are added.
    """

    model: Network
    class_names: tuple[str, ...]
    preprocess: Preprocess
    recipe: Recipe | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()
    sha256: str = ""


def write(path: Path, contents: ModelFile) -> None:
    """Writes a model file atomically: a temporary name, fsync, rename. Its mode follows the user's umask."""
    tensors = _tensors(contents.model, contents.preprocess)
    header = {
        "format": FORMAT,
        "architecture": contents.model.architecture,
        "class_names": list(contents.class_names),
        "preprocess": contents.preprocess.to_json(),
        "recipe": json.loads(contents.recipe.to_json()) if contents.recipe else {},
        "results": contents.results,
        "provenance": contents.provenance,
        "sha256": _digest(tensors),
    }
    text = json.dumps(header, allow_nan=False, sort_keys=True)
    replace_durably(path, save_tensors(tensors, metadata={HEADER: text}))


def tensors_sha256(model: nn.Module, preprocess: Preprocess) -> str:
    """The digest that identifies these weights with this preprocessing: SHA-256 over names, types, shapes, bytes."""
    return _digest(_tensors(model, preprocess))


def _tensors(model: nn.Module, preprocess: Preprocess) -> dict[str, torch.Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"preprocess.{name}": tensor for name, tensor in preprocess.tensors().items()}
    # A copy each: safetensors refuses tensors that share memory or are not contiguous (channels-last).
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def locate(path: Path | str) -> Path:
    """The model file that `path` means: itself, or the one in a run's directory. Raises InputError if there is none."""
    path = Path(path)
    if path.is_dir():
        if (path / NAME).is_file():
            return path / NAME
        unfinished = (path / "checkpoints").is_dir()
        mend = f"layerwise resume {path}" if unfinished else "Name a model file, or the directory of a finished run."
        what = f"{path}: this run has no {NAME} yet" if unfinished else f"{path}: no {NAME} in this directory"
        raise InputError(what, mend=mend)
    if not path.exists():
        parent = path.parent
        others = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
        raise InputError(f"{path}: there is no such file or directory{nearest(path.name, others)}")
    return path


def read(path: Path | str, device: str | torch.device = "cpu") -> ModelFile:
    """Reads a model file, or the one of a run's directory, onto `device`, in evaluation mode.

    Raises InputError that says what the file is instead, where it is truncated, or which field is not as it must be.
    """
    path = locate(path)
    return read_bytes(path.read_bytes(), path, device)


def read_bytes(data: bytes, path: Path, device: str | torch.device = "cpu") -> ModelFile:
    """The model file that these bytes are; `path` heads the messages. Raises what `read` raises."""
    tensors, header = _parse(path, data)
    sha256 = _digest(tensors)
    if header.get("sha256", sha256) != sha256:
        raise InputError(f"{path}: damaged: SHA-256 of its tensors {sha256}, {header['sha256']} when it was written",
                         "A network with other weights gives other answers.", "Copy or download it again.")
    names = tuple(header["class_names"])
    preprocess = Preprocess.from_parts(header["preprocess"], _under(tensors, "preprocess."))
    model = _build(path, header["architecture"], _under(tensors, "model."))
    outputs = model.architecture["arguments"]["num_classes"]
    if len(names) != outputs or len(set(names)) != len(names):
        raise InputError(f"{path}: {len(set(names))} distinct class names for a network with {outputs} outputs",
                         "Each output needs one name of its own.")
    recipe = Recipe.from_json(json.dumps(header["recipe"]), str(path)) if header["recipe"] else None
    return ModelFile(
        model.to(device).eval(), names, preprocess, recipe, header["results"], header["provenance"], path,
        sha256,
    )


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _parse(path: Path, data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    _refuse_foreign(path, data)
    try:
        tensors = load_tensors(data)
        start = json.loads(str(data[8:8 + int.from_bytes(data[:8], "little")], "utf-8"))
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not a whole .safetensors file{_missing_bytes(data)} ({error})",
                         mend="Copy or download it again.") from None
    text = (start.get("__metadata__") or {}).get(HEADER)  # null is as good as none
    if text is None:
        raise InputError(f"{path}: a .safetensors file, but not one of Layerwise: its header has no '{HEADER}'",
                         "Class names and preprocessing are missing; without them its answers would be guesses.")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its header is not JSON ({error})", mend="Copy or download it again.") from None
    _check_header(path, header)
    return tensors, header


def _check_header(path: Path, header: object) -> None:
    if not isinstance(header, dict):
        raise InputError(f"{path}: its header is not a JSON object")
    if isinstance(header.get("format"), int) and header["format"] > FORMAT:
        raise InputError(f"{path}: written by a newer version (format {header['format']}, known: {FORMAT})",
                         mend="Update layerwise.")
    problems = [f"{name}: missing or not a {kind.__name__}" for name, kind in FIELDS.items()
                if not isinstance(header.get(name), kind)]
    problems += [f"{name}: not a field of a model file" for name in header if name not in (*FIELDS, "sha256")]
    if not problems and not all(isinstance(name, str) for name in header["class_names"]):
        problems.append("class_names: not all are text")
    if problems:
        raise InputError(f"{path}: its header is not a model file's", mend="Copy or download it again.",
                         details=problems)


def _build(path: Path, architecture: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Network:
    name, arguments = architecture.get("name"), architecture.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict) or name not in models.names():
        raise InputError(f"{path}: architecture {name!r} is not one of Layerwise's{nearest(str(name), models.names())}",
                         mend="layerwise models lists them.")
    for argument, limit in (("num_classes", 1_000_000), ("in_channels", 1024)):
        value = arguments.get(argument)
        if type(value) is not int or not 1 <= value <= limit:
            raise InputError(f"{path}: architecture {name}: {argument}={value!r} is not a whole number in 1..{limit}")
    try:
        # Shapes first: no memory is taken before the file's tensors are known to fit.
        with torch.device("meta"):
            wanted = models.build(name, **arguments).state_dict()
    except TypeError as error:
        raise InputError(f"{path}: architecture {name} does not take these arguments ({error})") from None
    problems = [f"{entry}: missing" for entry in wanted if entry not in tensors]
    problems += [f"{entry}: not in {name}" for entry in tensors if entry not in wanted]
    for entry in wanted.keys() & tensors.keys():
        have, want = tensors[entry], wanted[entry]
        if have.shape != want.shape or have.dtype != want.dtype:
            problems.append(f"{entry}: {have.dtype} {tuple(have.shape)}, expected {want.dtype} {tuple(want.shape)}")
    if problems:
        raise InputError(f"{path}: its tensors are not those of {name}", details=sorted(problems))
    with Unfilled():
        model = models.build(name, **arguments)
    model.load_state_dict(tensors)
    return model


def _missing_bytes(data: bytes) -> str:
    """", truncated at n of m bytes" where the header tells how long the file must be."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 + length and data[8:9] == b"{":
        return f": truncated at {len(data)} bytes, within its header of {length}"
    try:
        header = json.loads(str(data[8:8 + length], "utf-8"))
        whole = 8 + length + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return ""
    return f": truncated at {len(data)} of {whole} bytes" if len(data) < whole else ""


def _refuse_foreign(path: Path, data: bytes) -> None:
    start = data[:64].lstrip().lower()
    kinds = {
        "empty": not data,
        "a Git-LFS pointer, not the file itself: run `git lfs pull`": start.startswith(b"version https://git-lfs"),
        "a web page, saved under this name": start.startswith((b"<!doctype html", b"<html")),
        "a pickle or a PyTorch archive, which can execute code when it is read": data[:2] in (b"PK", b"\x80\x02"),
    }
    for kind, found in kinds.items():
        if found:
            raise InputError(f"{path}: the file is {kind}", mend="Layerwise reads .safetensors model files only.")

