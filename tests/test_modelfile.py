"""The model file: what is written is read; anything else is refused with what it is, and nothing is executed."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from layerwise import modelfile, models
from layerwise.data.preprocess import Preprocess
from layerwise.errors import InputError
from layerwise.modelfile import ModelFile
from layerwise.recipes.presets import preset

NAMES = ("cat", "dog", "öko")


def contents(names: tuple[str, ...] = NAMES) -> ModelFile:
    torch.manual_seed(0)
    model = models.build("resnet20", num_classes=len(names), in_channels=1).eval()
    preprocess = Preprocess(1, 8, "none", 0, "bilinear", "apply", np.full((1, 1, 1), 0.25, np.float32),
                            np.full((1, 1, 1), 0.5, np.float32))
    return ModelFile(model, names, preprocess, preset("digits"), [{"error": 0.1}], {"selected": "last step, 3"})


def header(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path: Path, **changes: object) -> None:
    """Writes the file again with fields of its JSON header changed (None: removed)."""
    whole, rest = header(path.read_bytes())
    own = json.loads(whole["__metadata__"]["layerwise"])
    own = {name: value for name, value in (own | changes).items() if value is not None}
    whole["__metadata__"]["layerwise"] = json.dumps(own)
    text = json.dumps(whole).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    modelfile.write(tmp_path / "model.safetensors", contents())
    return tmp_path / "model.safetensors"


def test_what_is_read_is_what_was_written(path: Path) -> None:
    wrote, read = contents(), modelfile.read(path)
    assert (read.class_names, read.recipe, read.results) == (wrote.class_names, wrote.recipe, wrote.results)
    assert read.provenance == wrote.provenance
    assert read.preprocess.sha256 == wrote.preprocess.sha256
    picture = torch.rand(2, 1, 8, 8)
    assert torch.equal(read.model(picture), wrote.model(picture))
    assert not read.model.training


@pytest.mark.parametrize("metadata", [None, {}])
def test_metadata_that_is_null_is_none_of_ours(path: Path, metadata: object) -> None:
    whole, rest = header(path.read_bytes())
    text = json.dumps(whole | {"__metadata__": metadata}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)
    with pytest.raises(InputError, match="but not one of Layerwise"):
        modelfile.read(path)


def test_a_run_directory_means_its_model_file(path: Path) -> None:
    assert modelfile.read(path.parent).path == path
    with pytest.raises(InputError, match=r"no model\.safetensors in this directory"):
        modelfile.read(path.parent.parent)
    (path.parent / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no model\.safetensors yet\nlayerwise resume"):
        modelfile.read(path.parent / "run")
    with pytest.raises(InputError, match=r"did you mean 'model\.safetensors'"):
        modelfile.read(path.parent / "modle.safetensors")


def test_the_digest_is_of_the_tensors_alone(path: Path) -> None:
    read = modelfile.read(path)
    modelfile.write(path, dataclasses.replace(read, results=[]))
    assert modelfile.read(path).sha256 == read.sha256 == modelfile.tensors_sha256(read.model, read.preprocess)
    with torch.no_grad():
        next(read.model.parameters()).view(-1)[0] += 1e-3
    assert modelfile.tensors_sha256(read.model, read.preprocess) != read.sha256


def test_others_may_read_it_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        modelfile.write(tmp_path / "m.safetensors", contents())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o644


@pytest.mark.parametrize(("data", "message"), [
    (b"", "the file is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS pointer"),
    (b"\n<!DOCTYPE html><html></html>", "a web page"),
    (b"PK\x03\x04rest", "can execute code"),
    (b"\x80\x02rest", "can execute code"),
    (b"just some text that is no model", r"not a whole \.safetensors file"),
    (save({"a": torch.zeros(2)}), "its header has no 'layerwise'"),
    (save({"a": torch.zeros(2)}, {"layerwise": "{"}), "its header is not JSON"),
    (save({"a": torch.zeros(2)}, {"layerwise": "[]"}), "not a JSON object"),
    (save({"a": torch.zeros(2)}, {"layerwise": "[" * 9000}), r"its header is not JSON \(maximum recursion depth"),
    ((32).to_bytes(8, "little") + '{"a": 1}'.encode("utf-32-be"), r"not a whole \.safetensors file"),
    ((9000).to_bytes(8, "little") + b"[" * 9000, r"not a whole \.safetensors file"),
])
def test_what_is_no_model_file_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(InputError, match=message):
        modelfile.read(tmp_path / "m")


def test_a_truncated_file_says_where(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(InputError, match=f"truncated at {len(data) - 100} of {len(data)} bytes"):
        modelfile.read(path)


def test_a_file_cut_within_its_header_says_so(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="truncated at 500 bytes, within its header of"):
        modelfile.read(path)


def test_one_flipped_bit_is_found(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged: SHA-256 of its tensors"):
        modelfile.read(path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": 2}, "newer version"),
    ({"provenance": None}, "provenance: missing"),
    ({"surprise": 1}, "surprise: not a field"),
    ({"class_names": ["a", 1, "c"]}, "not all are text"),
    ({"class_names": ["a", "a", "c"]}, "2 distinct class names for a network with 3 outputs"),
    ({"class_names": ["a", "b"]}, "2 distinct class names"),
    ({"architecture": {"name": "resnet21", "arguments": {}}}, "did you mean .*'resnet20'"),
    ({"architecture": {"name": "os.system", "arguments": {"command": "true"}}}, "is not one of Layerwise's"),
    ({"architecture": {"name": "resnet20", "arguments": {"num_classes": 10**12, "in_channels": 1}}}, "whole number"),
    ({"architecture": {"name": "resnet20", "arguments": {"num_classes": 3, "in_channels": True}}}, "whole number"),
    ({"architecture": {"name": "resnet20", "arguments": {"num_classes": 4, "in_channels": 1}}}, "head"),
    ({"architecture": {"name": "resnet32", "arguments": {"num_classes": 3, "in_channels": 1}}}, "missing"),
])
def test_a_wrong_header_is_said(path: Path, changes: dict, message: str) -> None:
    with_header(path, **changes)
    with pytest.raises(InputError, match=message):
        modelfile.read(path)


def test_an_unknown_argument_is_said(path: Path) -> None:
    with_header(path, architecture={"name": "resnet20",
                                    "arguments": {"num_classes": 3, "in_channels": 1, "hook": "os.system"}})
    with pytest.raises(InputError, match="hook"):
        modelfile.read(path)


class Bomb:
    """What a hostile pickle does when it is read: leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.mark),))


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    for number, protocol in enumerate((0, 2, 4, 5)):
        mark, file = tmp_path / f"mark{number}", tmp_path / f"bomb{number}.safetensors"
        file.write_bytes(pickle.dumps(Bomb(mark), protocol=protocol))
        with pytest.raises(InputError):
            modelfile.read(file)
        assert not mark.exists()
        pickle.loads(file.read_bytes())  # the negative control: read as a pickle, it would have
        assert mark.exists()
