"""`layerwise models`: the list, its filters and orders; a network's stages as its paper prints them; the chart."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from layerwise.cli import main
from layerwise.errors import InputError
from layerwise.jobs.layer_table import SORTS, layer_table, network_list
from layerwise.models import names


def test_the_list_has_every_network_with_its_paper_and_cost() -> None:
    rows = network_list((), "")
    assert tuple(row["name"] for row in rows) == names()
    assert all(row["paper"] and row["year"] and row["parameters"] and row["multiply_adds"] for row in rows)


def test_filters_must_all_match() -> None:
    assert {row["year"] for row in network_list(["he et al", "2015"], "")} == {2015}
    small = [row["name"] for row in network_list(["2015", "32x32", "chain", "plain"], "")]
    assert {"plain20", "plain110"} <= set(small)
    assert "resnet20" not in small
    with pytest.raises(InputError, match="--filter quantum: no network has that"):
        network_list(["quantum"], "")


@pytest.mark.parametrize("column", SORTS)
def test_sorting_by_a_column_both_ways(column: str) -> None:
    rows = network_list(["lecun"], column)
    assert [SORTS[column](row) for row in rows] == sorted(SORTS[column](row) for row in rows)
    backwards = network_list(["lecun"], f"-{column}")
    assert [SORTS[column](row) for row in backwards] == sorted((SORTS[column](row) for row in rows), reverse=True)


def test_an_unknown_column() -> None:
    with pytest.raises(InputError, match="--sort 'yaer': is not a column, did you mean 'year'"):
        network_list(["lecun"], "yaer")


def test_the_stages_of_table_1_as_the_paper_prints_them() -> None:
    stages = {row["name"]: (row["layers"], row["output"]) for row in layer_table("resnet50", 0, 0, 0)["stages"]}
    assert stages == {
        "conv1": ("7x7, 64, stride 2", [64, 112, 112]),
        "conv2_x": ("3x3 max pool, stride 2, [1x1, 64; 3x3, 64; 1x1, 256] x 3", [256, 56, 56]),
        "conv3_x": ("[1x1, 128; 3x3, 128; 1x1, 512] x 4", [512, 28, 28]),
        "conv4_x": ("[1x1, 256; 3x3, 256; 1x1, 1024] x 6", [1024, 14, 14]),
        "conv5_x": ("[1x1, 512; 3x3, 512; 1x1, 2048] x 3", [2048, 7, 7]),
        "head": ("global average pool, 1000-d fc", [1000]),
    }


def test_the_layers_add_up_and_carry_activations_and_fields() -> None:
    table = layer_table("alexnet", 0, 0, 0)
    for column in ("parameters", "multiply_adds", "activations"):
        assert sum(row[column] for row in table["layers"]) == table[column]
    assert sum(row["parameters"] for row in table["stages"]) == table["parameters"]
    by_name = {row["name"]: row for row in table["layers"]}
    assert by_name["features.conv1"]["activations"] == 96 * 55 * 55
    assert by_name["features.pool5"]["field"] == [195, 195, 32]
    assert by_name["head.fc6"]["field"] is None


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--filter", "lecun", "--sort", "-year"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("lenet5 ")
    assert lines[-1].startswith("lenet1989 ")
    assert main(["models", "resnet34_a"]) == 0
    printed = capsys.readouterr().out
    assert "reported: 25.03 % top-1, 10 crops, ImageNet val (table 3)" in printed
    assert "[3x3, 128; 3x3, 128] x 4" in printed
    chart = tmp_path / "chart.svg"
    assert main(["models", "--filter", "he et al", "--chart", str(chart), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chart"] == str(chart)
    words = {element.text for element in ElementTree.parse(chart).iter() if element.text}
    assert {"resnet50", "plain20", "multiply-adds"} <= words
    assert "alexnet" not in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20", "--sort", "year"], "--filter, --sort and --chart are for the list of networks"),
        (["--size", "32"], "--size, --channels and --classes are for one network"),
        (["vgg16", "--size", "100"], "Give --size 224; or choose another network"),
        (["--filter", "lecun", "--chart", "/no/such/place/chart.svg"], "can't be written"),
    ],
)
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *arguments]) in (2, 3)
    assert message in capsys.readouterr().err


def test_a_stage_of_branches_shows_the_concatenated_map() -> None:
    stages = {row["name"]: row["output"] for row in layer_table("inception_v3", 0, 0, 0)["stages"]}
    assert stages["mixed_5b"] == [256, 35, 35]
