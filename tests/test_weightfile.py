"""Reading other libraries' weight files: what is in them, what they are instead, and that nothing is executed."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.importing import weightfile

TENSORS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}
RESTRICTED = "a pickle, read through torch's restricted loader: it makes tensors and nothing else"


def saved(path: Path, what: object, old: bool = False) -> Path:
    """`what` as torch.save writes it, in its present or its older format."""
    torch.save(what, path, _use_new_zipfile_serialization=not old)
    return path


def same(entries: dict[str, Tensor]) -> bool:
    return list(entries) == list(TENSORS) and all(torch.equal(entries[name], TENSORS[name]) for name in TENSORS)


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    found = weightfile.read(tmp_path / "a.safetensors")
    assert sorted(found.entries) == sorted(TENSORS)
    assert torch.equal(found.entries["conv.weight"], TENSORS["conv.weight"])
    assert found.notes == ()
    assert len(found.sha256) == 64


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_of_tensors_and_its_note(tmp_path: Path, old: bool) -> None:
    found = weightfile.read(saved(tmp_path / "a.pth", TENSORS, old))
    assert same(found.entries)
    assert found.notes == (RESTRICTED,)


@pytest.mark.parametrize(("wrap", "notes"), [
    (lambda weights: {"state_dict": weights, "epoch": 3}, ["the weights under state_dict are used"]),
    (lambda weights: {"model": weights, "state_dict_ema": weights},
     ["the weights under state_dict_ema are used; model beside it is not"]),
    (lambda weights: {"model": weights, "state_dict": weights, "ema": weights},
     ["the weights under ema are used; state_dict, model beside it are not"]),
    (lambda weights: {"state_dict": {"model": weights}},
     ["the weights under state_dict are used", "the weights under state_dict / model are used"]),
    (lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()}, ["taken off the names: module."]),
    (lambda weights: {f"_orig_mod.module._orig_mod.{name}": tensor for name, tensor in weights.items()},
     ["taken off the names: _orig_mod., module."]),
    (lambda weights: {name.replace("conv.", "conv._orig_mod."): tensor for name, tensor in weights.items()},
     ["taken off the names: _orig_mod."]),
    (lambda weights: {"model_ema": weights | {"n_averaged": torch.tensor(3)}},
     ["the weights under model_ema are used", "n_averaged: how many weights were averaged, unused"]),
])
def test_nests_and_wrappers(tmp_path: Path, wrap, notes: list[str]) -> None:
    found = weightfile.read(saved(tmp_path / "a.pth", wrap(TENSORS)))
    assert same(found.entries)
    assert list(found.notes) == [RESTRICTED, *notes]


class Bomb:
    """What a hostile pickle does when it is read: leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_is_never_executed(tmp_path: Path, old: bool) -> None:
    mark, file = tmp_path / "mark", tmp_path / "a.pth"
    saved(file, {"model": TENSORS, "other": Bomb(mark)}, old)
    with pytest.raises(InputError, match="a pickle that holds more than tensors") as caught:
        weightfile.read(file)
    assert caught.value.details == (f"it would make {os.mkdir.__module__}.mkdir",)
    assert not mark.exists()
    torch.load(file, weights_only=False)  # the negative control: without the restriction it would have
    assert mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_bare_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    mark, file = tmp_path / "mark", tmp_path / "a.pth"
    file.write_bytes(pickle.dumps(Bomb(mark), protocol=protocol))
    with pytest.raises(InputError, match=r"holds more than tensors|neither a \.safetensors file nor one that torch"):
        weightfile.read(file)
    assert not mark.exists()


@pytest.mark.parametrize(("what", "named"), [
    ({"model": TENSORS, "args": argparse.Namespace(lr=0.1)}, "it would make argparse.Namespace"),
    (nn.Linear(2, 2), "it would make torch.nn.modules.linear.Linear"),
])
def test_the_classes_of_a_pickle_are_named(tmp_path: Path, what: object, named: str) -> None:
    with pytest.raises(InputError, match="save the tensors alone") as caught:
        weightfile.read(saved(tmp_path / "a.pth", what))
    assert named in caught.value.details


def cut(path: Path, left: int) -> Path:
    path.write_bytes(path.read_bytes()[:left])
    return path


def test_truncated_files(tmp_path: Path) -> None:
    for left, words in ((-5, r": truncated at \d+ of \d+ bytes"), (40, "truncated at 40 bytes, within its header")):
        file = tmp_path / "a.safetensors"
        save_file(TENSORS, file)
        with pytest.raises(InputError, match=words):
            weightfile.read(cut(file, left))
    for old in (False, True):
        with pytest.raises(InputError, match=r"not a whole file of torch\.save"):
            weightfile.read(cut(saved(tmp_path / "a.pth", TENSORS, old), -10))


@pytest.mark.parametrize(("data", "words"), [
    (b"", "the file is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git-LFS pointer.*git lfs pull"),
    (b"\n<!DOCTYPE html><html>404</html>", "a web page, saved under this name"),
    (b"<html>", "a web page"),
    (b"weights of a network", r"neither a \.safetensors file nor one that torch\.save wrote"),
    (b"\x10\0\0\0\0\0\0\0{not json so far}", r"not a whole \.safetensors file"),
])
def test_what_a_file_is_instead(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(data)
    with pytest.raises(InputError, match=words):
        weightfile.read(file)


def test_a_path_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    with pytest.raises(InputError, match=r"there is no such file, did you mean 'weights\.pth'"):
        weightfile.read(tmp_path / "weight.pth")
    with pytest.raises(InputError, match="is a directory"):
        weightfile.read(tmp_path)


def test_our_own_model_file_needs_no_import(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors", {"layerwise": json.dumps({})})
    with pytest.raises(InputError, match="a model file of Layerwise already"):
        weightfile.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_metadata_that_is_null_is_none_of_ours(tmp_path: Path, metadata: object) -> None:
    file = tmp_path / "a.safetensors"
    save_file(TENSORS, file)
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps({"__metadata__": metadata} | json.loads(data[8:start])).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])
    assert sorted(weightfile.read(file).entries) == sorted(TENSORS)


def test_a_program_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, that its format is old
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(InputError, match="a TorchScript archive, which holds a program"):
        weightfile.read(tmp_path / "a.pt")


@pytest.mark.parametrize(("what", "words"), [
    ([1, 2], "no weights in it, but list"),
    ({"epoch": 3}, "no weights in it, but a dict of 'epoch'"),
    ({}, "no weights in it, but an empty dict"),
    (TENSORS | {"lr": 0.1}, "entries that are no tensors\n  - lr: float"),
    ({"a": TENSORS["conv.bias"], "module.a": TENSORS["conv.bias"]}, "there twice.*\n  - a: as a and as module.a"),
    ({"a.weight": torch.ones(2).to_sparse()}, "a.weight: sparse or quantised"),
    ({"a.weight": torch.ones(2, dtype=torch.complex64)}, "a.weight: complex numbers"),
    ({"a.weight": torch.tensor([1.0, float("nan")]), "b.weight": torch.tensor([float("inf")])},
     "weights that can't be used\n  - a.weight: .*not finite\n  - b.weight: .*not finite"),
])
def test_what_holds_no_sound_weights(tmp_path: Path, what: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        weightfile.read(saved(tmp_path / "a.pth", what))
