"""Imports of other libraries' weights: every entry accounted for, heads, sources, preprocessing, the command."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from layerwise import modelfile, models
from layerwise.cli import main
from layerwise.data.preprocess import to_tensor
from layerwise.errors import InputError
from layerwise.importing import catalogue, classes, importer, matching, preprocessing, tables
from layerwise.importing.importer import import_weights
from layerwise.importing.preprocessing import View

DATA = Path(__file__).parent / "data" / "parity"
PARITY = {"torchvision-densenet121": "densenet121", "torchvision-googlenet": "googlenet_3x3",
          "torchvision-inception_v3": "inception_v3", "torchvision-resnet34": "resnet34",
          "torchvision-resnet152": "resnet152_v1_5", "torchvision-alexnet": "alexnet_one_tower",
          "torchvision-vgg11": "vgg11", "torchvision-vgg16_bn": "vgg16_bn",
          "torchvision-mobilenet_v2": "mobilenet_v2_100", "timm-mobilenetv1_100": "mobilenet_100_relu6",
          "timm-mobilenetv2_140": "mobilenet_v2_140", "timm-inception_v4": "inception_v4",
          "timm-inception_resnet_v2": "inception_resnet_v2", "timm-legacy_xception": "xception",
          "timm-nasnetalarge": "nasnet_large"}  # fmt: skip


def layers(name: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """The layers of a network of the parity files: the entries of each and their shapes."""
    found = {}
    for line in json.loads((DATA / f"{name}.json").read_text("utf-8"))["layers"]:
        layer, text = line.split(": ")
        sides, kinds = text.split(" ", 1)
        shape = tuple(int(side) for side in sides.split("x"))
        kinds = "weight, bias, running_mean, running_var, num_batches_tracked" if kinds == "bn" else kinds
        found[layer] = {kind: shape if kind == "weight" else shape[:1] for kind in kinds.split(", ")}
        found[layer] |= {"num_batches_tracked": ()} if "running_mean" in found[layer] else {}
    return found


def entries(name: str, device: str = "meta") -> dict[str, Tensor]:
    """The entries of such a network, all ones."""
    return {f"{layer}.{kind}": torch.ones(shape, dtype=torch.int64 if shape == () else torch.float32, device=device)
            for layer, parts in layers(name).items() for kind, shape in parts.items()}


@pytest.fixture(scope="module")
def densenet() -> dict[str, Tensor]:
    """A weight file of densenet121: small, and known to torchvision and timm under the same names."""
    return entries("torchvision-densenet121", "cpu")


def written(folder: Path, weights: dict[str, Tensor], **changes: Tensor | None) -> Path:
    """A file of these weights; `changes` replace entries (dots as __) or take them away."""
    changed = weights | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


# Tables


def test_a_row_fills_groups_and_counts() -> None:
    table = (*tables.numbered("features.", {3: "conv2"}), (r"^layer(\d)\.(\d+)\.", "stage{1+1}.block_{2-1}_{1}."))
    assert tables.translated("layer1.12.conv.weight", table) == "stage2.block_11_1.conv.weight"
    assert tables.translated("features.3.bias", table) == "conv2.bias"
    assert tables.translated("features.30.bias", table) == "features.30.bias"


@pytest.mark.parametrize("name", PARITY)
def test_no_row_of_a_table_is_dead(name: str) -> None:
    """Each row changes a name of the network; the control: a row for nothing is found."""
    source = name.split("-")[0]
    table = next(origin.table for origin in catalogue.ORIGINS[PARITY[name]] if origin.source == source)
    planted = (r"^nowhere\.", "features.nowhere.")

    def dead(rows: tables.Table) -> list[tables.Row]:
        left = [f"{layer}." for layer in layers(name)]
        idle = []
        for row in rows:
            changed = [tables.translated(layer, (row,)) for layer in left]
            idle += [row] if changed == left else []
            left = changed
        return idle

    assert dead(table) == []
    assert dead((*table, planted)) == [planted]


def test_the_catalogue_names_our_networks() -> None:
    assert [name for name in catalogue.ORIGINS if name not in models.names()] == []
    assert [name for name, (meant, _) in catalogue.OTHERWISE_NAMED.items()
            if name not in models.names() or name in catalogue.ORIGINS or meant not in catalogue.ORIGINS] == []


@pytest.mark.parametrize(("name", "source", "words"), [
    ("resnet50", "auto", "strides in a block's first 1x1 convolution.*\nUse --as resnet50_v1_5"),
    ("alexnet", "torchvision", "two towers(.|\n)*Use --as alexnet_one_tower"),
    ("googlenet", "auto", "5x5 convolution(.|\n)*Use --as googlenet_3x3"),
    ("mobilenet_100", "timm", "has ReLU, the file's of this name ReLU6(.|\n)*Use --as mobilenet_100_relu6"),
    ("resnet20", "auto", "--as resnet20: no network that can be imported, did you mean 'resnet"),
    ("vgg16", "timm", "--as vgg16: timm has no such network\nIt is imported from torchvision"),
    ("vgg16", "keras", "--source keras: no such source"),
])
def test_networks_that_cannot_be_imported(name: str, source: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        catalogue.origins(name, source)


def test_the_documentation_lists_the_catalogue() -> None:
    rows: dict[tuple[str, str], list[str]] = {}
    for ours, found in catalogue.ORIGINS.items():
        for origin in found:
            names = f"`{ours}`" if ours == origin.name else f"`{origin.name}` -> `{ours}`"
            rows.setdefault((origin.source, str(origin.view)), []).append(names)
    page = (Path(__file__).parents[1] / "docs" / "import-weights.md").read_text("utf-8")
    wanted = [f"| {source} | {', '.join(names)} | {view} |" for (source, view), names in rows.items()]
    assert [line for line in page.splitlines() if line.startswith("| ") and "its network" not in line] == wanted


# Every entry


def test_unknown_missing_and_misshapen_entries_are_told_at_once(densenet: dict[str, Tensor], tmp_path: Path) -> None:
    file = written(tmp_path, densenet, features__norm5__weight=None, extra__weight=torch.ones(2),
                   features__conv9__weight=torch.ones(3), features__conv0__weight=torch.ones(64, 3, 3, 3),
                   features__norm0__bias=torch.ones(64, dtype=torch.int64), classifier__bias=torch.ones(999))
    with pytest.raises(InputError, match="densenet121: 6 differ") as caught:
        import_weights(file, "densenet121", "torchvision")
    assert sorted(caught.value.details) == [
        "extra.weight (2,): in the file, of no layer that is known",
        "features.activation.bn.weight (1024,): the network has it, the file doesn't",
        "features.conv0.weight (64, 3, 3, 3): expected (64, 3, 7, 7) for features.convolution.conv.weight",
        "features.conv9.weight (3,): in the file, of no layer that is known",
        "features.norm0.bias: torch.int64, expected torch.float32 for features.convolution.bn.bias",
        "heads for different numbers of classes: 999, 1000",
    ]


def test_an_older_file(densenet: dict[str, Tensor], tmp_path: Path) -> None:
    """torchvision's first files: norm.1 for norm1, and no counter of batches."""
    older = {re.sub(r"(norm|conv)([12])\.(?=\w+$)", r"\1.\2.", name): tensor for name, tensor in densenet.items()
             if not name.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    found = import_weights(written(tmp_path, older), "densenet121", "torchvision")
    assert len(found.report.loaded) == len(older)
    assert set(found.report.new.values()) == {"the file is older than this counter, which evaluation doesn't use"}


def test_auxiliary_heads_are_loaded_new_or_unused() -> None:
    have, network = entries("torchvision-googlenet"), matching.wanted("googlenet_3x3")
    table = catalogue.ORIGINS["googlenet_3x3"][0].table
    whole = matching.match(have, network, table)
    assert (whole.problems, whole.new, whole.unused, len(whole.pairs)) == ((), {}, {}, len(have))
    without = {name: tensor for name, tensor in have.items() if not name.startswith("aux")}
    assert set(matching.match(without, network, table).new.values()) == {"the file has no auxiliary heads"}
    one = {name: tensor for name, tensor in have.items() if not name.startswith("aux2")}
    problems = matching.match(one, network, table).problems
    assert len(problems) == sum(not name.endswith(matching.COUNTER) for name in have.keys() - one.keys())
    plain = matching.Wanted({name: tensor for name, tensor in network.entries.items()
                             if not name.startswith("auxiliary.")}, network.by_class)
    found = matching.match(have, plain, table)
    assert (found.problems, len(found.unused)) == ((), len(have) - len(without))
    assert set(found.unused.values()) == {"the network has no auxiliary heads"}


def test_two_entries_for_one_of_ours_are_told() -> None:
    twice = (*catalogue.ORIGINS["resnet34"][0].table, (r"^bn2\.", "features.conv1.bn."))
    have = entries("torchvision-resnet34") | {"bn2.weight": torch.ones(64)}
    problems = matching.match(have, matching.wanted("resnet34"), twice).problems
    assert problems == ("bn2.weight: in the file, and bn1.weight too, for features.conv1.bn.weight",)


def test_another_network_is_recognised(densenet: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="They fit --as densenet121") as caught:
        import_weights(written(tmp_path, densenet), "densenet169", "torchvision")
    assert len(caught.value.details) > 100


def test_half_precision_is_widened_and_float64_has_bounds(densenet: dict[str, Tensor], tmp_path: Path) -> None:
    half = torch.full((1000,), 0.1, dtype=torch.float16)
    found = import_weights(written(tmp_path, densenet, classifier__bias=half), "densenet121", "torchvision")
    assert found.report.adapted == {"head.fc.bias": "float16 to float32"}
    assert "adapted: head.fc.bias: float16 to float32" in found.report.lines()
    assert torch.equal(found.model_file().model.state_dict()["head.fc.bias"], half.float())
    large = torch.full((1000,), 1e39, dtype=torch.float64)
    with pytest.raises(InputError, match=r"classifier\.bias: beyond the range of float32"):
        import_weights(written(tmp_path, densenet, classifier__bias=large), "densenet121", "torchvision")


# Classes and heads


def head(classes_: int) -> dict[str, Tensor]:
    return {"classifier__weight": torch.ones(classes_, 1024), "classifier__bias": torch.ones(classes_)}


@pytest.mark.parametrize(("count", "first", "last", "words"), [
    (1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue", "ImageNet's"),
    (1001, "background", "toilet tissue, toilet paper, bathroom tissue", "background and ImageNet's"),
    (7, "class 0", "class 6", "class 0 to class 6, as the file has none"),
])
def test_class_names(count: int, first: str, last: str, words: str) -> None:
    names, note = classes.fitting(count, None)
    assert (len(set(names)), names[0], names[-1]) == (count, first, last)
    assert words in note


def test_a_file_with_another_number_of_classes(densenet: dict[str, Tensor], tmp_path: Path) -> None:
    file = written(tmp_path, densenet, **head(3))
    assert import_weights(file, "densenet121", "torchvision").class_names == ("class 0", "class 1", "class 2")
    found = import_weights(file, "densenet121", "torchvision", ("a", "b", "c"))
    assert found.class_names == ("a", "b", "c")
    with pytest.raises(InputError, match=r"2 class names for a file with 3 classes(.|\n)*--new-head"):
        import_weights(file, "densenet121", "torchvision", ("a", "b"))


def test_a_new_head(densenet: dict[str, Tensor], tmp_path: Path) -> None:
    file = written(tmp_path, densenet)
    with pytest.raises(InputError, match="--new-head: for which classes"):
        import_weights(file, "densenet121", "torchvision", new_head=True)
    found = import_weights(file, "densenet121", "torchvision", ("cat", "dog"), new_head=True)
    assert set(found.report.new) == {"head.fc.weight", "head.fc.bias"}
    assert set(found.report.unused) == {"classifier.weight", "classifier.bias"}
    assert "a new head for 2 classes: train it before it is used" in found.notes
    one, two = found.model_file(), found.model_file()
    assert one.model.state_dict()["head.fc.weight"].shape == (2, 1024)
    assert not torch.equal(one.model.state_dict()["head.fc.weight"], torch.ones(2, 1024))
    assert torch.equal(one.model.state_dict()["head.fc.weight"], two.model.state_dict()["head.fc.weight"])
    assert torch.equal(one.model.state_dict()["features.activation.bn.weight"], torch.ones(1024))


def test_a_file_without_a_head(densenet: dict[str, Tensor], tmp_path: Path) -> None:
    file = written(tmp_path, densenet, classifier__weight=None, classifier__bias=None)
    with pytest.raises(InputError, match=r"2 differ(.|\n)*without its head, add --new-head --classes"):
        import_weights(file, "densenet121", "torchvision")
    found = import_weights(file, "densenet121", "torchvision", ("cat", "dog"), new_head=True)
    assert set(found.report.new.values()) == {"the file has no head"}


@pytest.mark.parametrize(("text", "words"), [
    ("cat\n\ndog\n", "line 2: empty"), ("cat\ndog\ncat\n", "line 3: 'cat' is line 1 already"),
    ("cat\n", "1 names: a classifier tells"), ("", "0 names"),
])
def test_lists_of_class_names(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(text, "utf-8")
    with pytest.raises(InputError, match=words):
        classes.from_file(file)
    file.write_text("\ufeffcat\r\ndog \n\n", "utf-8")
    assert classes.from_file(file) == ("cat", "dog")
    file.write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8 text"):
        classes.from_file(file)
    with pytest.raises(InputError, match="there is no such file"):
        classes.from_file(tmp_path / "none.txt")


# Where the file is from


def test_a_source_that_the_file_does_not_tell(densenet: dict[str, Tensor], tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, densenet)
    with pytest.raises(InputError, match=r"the file doesn't tell(.|\n)*Add --source torchvision or --source timm"):
        import_weights(file, "densenet121")
    sha256 = import_weights(file, "densenet121", "timm").weights.sha256
    with monkeypatch.context() as known:
        known.setattr(importer, "FIRST_WEIGHTS", (sha256[:8],))
        assert import_weights(file, "densenet121").view == preprocessing.TORCHVISION
    with monkeypatch.context() as known:
        known.setattr(preprocessing, "SECOND_WEIGHTS", (sha256[:8],))
        found = import_weights(file, "densenet121")
        assert found.view == dataclasses.replace(preprocessing.TORCHVISION, resize_to=232)
        assert "of torchvision's second weights, by the file's SHA-256" in found.notes[-1]
    config = {"input_size": [3, 288, 288], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3],
              "std": [0.2, 0.2, 0.2]}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": config}), "utf-8")
    found = import_weights(file, "densenet121")
    assert (found.origin.source, found.view) == ("timm", View(320, 288, "bicubic", (0.5, 0.4, 0.3), (0.2,) * 3))
    assert found.notes[-1].endswith("; from config.json beside the file")


def test_names_of_entries_tell_the_source(tmp_path: Path) -> None:
    """torchvision and timm have mobilenet_v2 under other names of entries: no --source is needed."""
    file = written(tmp_path, entries("torchvision-mobilenet_v2", "cpu"))
    assert import_weights(file, "mobilenet_v2_100").origin.source == "torchvision"
    with pytest.raises(InputError, match="not those of timm's mobilenetv2_140"):
        import_weights(file, "mobilenet_v2_140")


def test_a_description_beside_the_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{", "utf-8")
    with pytest.raises(InputError, match="not JSON"):
        preprocessing.described_beside(tmp_path / "a.safetensors")
    bad = {"input_size": [3, 224, 200], "crop_pct": 0, "interpolation": "random", "crop_mode": "border",
           "mean": [0.5], "std": [0, 1, 1]}
    file.write_text(json.dumps({"pretrained_cfg": bad}), "utf-8")
    with pytest.raises(InputError, match="can't be used") as caught:
        preprocessing.described_beside(tmp_path / "a.safetensors")
    assert [detail.split(" ")[0] for detail in caught.value.details] == [
        "input_size", "crop_pct", "interpolation", "crop_mode", "mean", "std"]
    file.write_text(json.dumps({"architectures": ["Other"]}), "utf-8")
    assert preprocessing.described_beside(tmp_path / "a.safetensors") is None


# Preprocessing


def normalised(view: View, picture: np.ndarray) -> np.ndarray:
    prepared = dataclasses.replace(view.preprocess(), size=picture.shape[0], resize="none", resize_to=0)
    return prepared.normalise(to_tensor(picture[None]))[0].numpy().astype(np.float64)


def test_the_transformation_within_googlenet_is_folded_in() -> None:
    """torchvision normalises for ImageNet and transforms the input in the network; the control leaves that out."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    mean, std = (np.array(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    plain = (picture.transpose(2, 0, 1) / 255 - mean) / std
    within = plain * (std / 0.5) + (mean - 0.5) / 0.5
    for view in (preprocessing.TORCHVISION_GOOGLENET, preprocessing.TORCHVISION_INCEPTION):
        np.testing.assert_allclose(normalised(view, picture), within, rtol=0, atol=1e-6)
    assert np.abs(normalised(preprocessing.TORCHVISION, picture) - within).max() > 0.1
    np.testing.assert_allclose(normalised(preprocessing.TORCHVISION, picture), plain, rtol=0, atol=1e-6)


def test_the_input_of_efficientnet_lite() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    wanted = (picture.transpose(2, 0, 1).astype(np.float64) - 127) / 128
    np.testing.assert_allclose(normalised(preprocessing.EFFICIENTNET_LITE, picture), wanted, rtol=0, atol=1e-6)


def test_sizes() -> None:
    """Side to resize to, side of the crop: what the libraries compute."""
    sides = {name: (origin.view.resize_to, origin.view.size) for name, found in catalogue.ORIGINS.items()
             for origin in found if origin.source == "timm"}
    assert sides["resnet50_v1_5"] == (235, 224)
    assert sides["xception"] == sides["inception_resnet_v2"] == (333, 299)
    assert (sides["inception_v4"], sides["nasnet_large"], sides["mobilenet_v2_140"]) == (
        (341, 299), (363, 331), (256, 224))
    assert all(models.published_input(name)[1] == origin.view.size for name, found in catalogue.ORIGINS.items()
               for origin in found)


# The command


def test_the_command_writes_a_model_file(densenet: dict[str, Tensor], tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, densenet, **head(3))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n", "utf-8")
    words = ["import", str(file), "--as", "densenet121", "--source", "torchvision", "--classes", "classes.txt"]
    assert main(words) == 0
    seen = capsys.readouterr()
    assert seen.out == "densenet121.safetensors\n"
    assert "727 entries loaded, 0 adapted, 0 new, 0 of the file unused" in seen.err
    found = modelfile.read(tmp_path / "densenet121.safetensors")
    assert found.class_names == ("a", "b", "c")
    assert found.preprocess.to_json() == preprocessing.TORCHVISION.preprocess().to_json()
    assert found.provenance["imported"]["source"] == "torchvision"
    assert found.provenance["imported"]["entries"] == {"loaded": 727, "adapted": 0, "new": 0, "unused": 0}
    assert main([*words, "--out", "b.safetensors", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["model_file"], printed["classes"], len(printed["entries"]["loaded"])) == ("b.safetensors", 3, 727)
    assert Path("b.safetensors").read_bytes() == Path("densenet121.safetensors").read_bytes()
    assert main(words) == 2
    assert "densenet121.safetensors: exists, and nothing is overwritten" in capsys.readouterr().err
    assert main([*words, "--out", "no/b.safetensors"]) == 2
    assert "there is no directory no" in capsys.readouterr().err
