"""The tables of a run's page: evaluations, classes, recipe, data and machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerwise.recipe import Recipe
from layerwise.report import text
from layerwise.report.run import Evaluation, Record, RunFiles, listing, section

OUTDATED = "of other weights than model.safetensors holds now"
SPLIT_WORDS = {"test": "test", "val": "validation", "train": "training"}
RECIPE_PARTS = {
    "What is trained": "name network data seed start_from freeze slow unfreeze_at zero_init_last_scale "
                       "whiten",
    "Data": "split validation balance bad_images exif max_pixels",
    "Preprocessing": "channels input_size resize resize_to interpolation mean std",
    "Augmentation": "crop pad pad_with flip flip_turns crop_area_min scale_range colour colour_sigma mixup",
    "Duration": "unit duration evaluate_every",
    "Schedule": "schedule milestones decay_factor plateau_patience plateau_threshold plateau_drops warmup "
                "warmup_length warmup_rate warmup_error",
    "Optimiser": "optimiser learning_rate reference_batch batch_size micro_batch virtual_workers batch_norm momentum "
                 "nesterov velocity beta2 epsilon weight_decay weight_decay_on loss auxiliary_weight label_smoothing "
                 "ema clip_norm non_finite",
    "Selection and test": "select protocol",
    "Machine": "device precision memory_format recompute compile threads deterministic checkpoint_seconds",
}


def class_rows(found: Evaluation) -> list[Record]:
    """The rows of the per-class table; an undefined number comes with its reason."""
    return [{"name": str(item["name"]), "reason": str(item["reason"]),
             **{key: text.number(item[key]) for key in ("support", "precision", "recall", "f1")}}
            for item in found.result.classes]


def evaluation_row(files: RunFiles, found: Evaluation) -> Record:
    """One evaluation for the table of all, with its whole protocol."""
    low, high = found.interval
    outcome = found.result
    best = outcome.split == "val" and files.recipe.get("select") == "best"
    return {
        "folder": found.name, "split": SPLIT_WORDS.get(outcome.split, outcome.split),
        "protocol": outcome.protocol.name,
        "samples": outcome.samples, "unreadable": outcome.unreadable, "models": len(outcome.models),
        "error": outcome.error, "low": low, "high": high,
        "top_k": ", ".join(f"top-{key} {text.percent(value)}" for key, value in
                           section(outcome.metrics, "top_k_error").items()),
        "loss": outcome.metrics["loss"], "calibration": outcome.metrics.get("calibration_error"),
        "unfair": "not a fair number: the model was chosen by this split" if best else "",
        "outdated": OUTDATED if files.outdated(outcome.models) else "",
        "rows": [(key, text.exact(value)) for key, value in outcome.protocol.to_json().items()],
        "words": outcome.protocol.description,
    }


def recipe_parts(recipe: Record) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """All fields of the recipe in parts, as (field, exact value, what it means)."""
    docs = {each.name: str(each.metadata.get("doc", "")) for each in dataclasses.fields(Recipe)}
    left = dict(recipe)
    parts = [(title, [(name, text.exact(left.pop(name)), docs.get(name, "")) for name in names.split() if name in left])
             for title, names in RECIPE_PARTS.items()]
    parts.append(("Other", [(name, text.exact(value), docs.get(name, "")) for name, value in left.items()]))
    return [(title, fields) for title, fields in parts if fields]


def data_rows(data: Record) -> list[tuple[str, str]]:
    """The run's record of its data: name, counts of each split, number of classes, then whatever else it holds."""
    counts = section(data, "counts")
    known = [("name", text.plain(data.get("name")))]
    known += [(f"{SPLIT_WORDS.get(split, split)} pictures", text.count(number)) for split, number in counts.items()]
    known += [("classes", text.count(len(listing(data, "class_names"))))] if listing(data, "class_names") else []
    rest = {key: value for key, value in data.items()
            if key not in ("name", "counts", "class_names", "class_counts", "notes", "place")}
    return known + text.rows(rest) if data else []


def class_counts(files: RunFiles, found: Evaluation | None) -> Record | None:
    """Numbers of pictures for each class (rows) and split (columns), as far as the run recorded them."""
    data = section(files.info, "data")
    names = [str(name) for name in listing(data, "class_names")]
    saved = data.get("class_counts")
    columns: dict[str, Sequence[Any]] = {"train": saved} if isinstance(saved, list) and len(saved) == len(names) else {}
    columns |= {split: [counts.get(name, 0) for name in names] for split, counts in files.class_counts.items()}
    if found and found.result.split not in columns and names:
        supports = {str(item["name"]): item["support"] for item in found.result.classes}
        columns[found.result.split] = [supports.get(name) for name in names]
    if not names or not columns:
        return None
    return {"splits": [SPLIT_WORDS.get(split, split) for split in columns],
            "rows": [(name, [counts[index] for counts in columns.values()]) for index, name in enumerate(names)]}


def machine_parts(files: RunFiles) -> list[tuple[str, list[tuple[str, str]]]]:
    """Hardware, speed, versions and code of the run."""
    speeds = [each for line in files.speed if (each := text.number(line.get("images_per_second"))) is not None]
    waits = [each for line in files.speed if (each := text.number(line.get("data_wait"))) is not None]
    speed = [("images a second (median)", text.count(np.median(speeds)))] if speeds else []
    speed += [("waiting for data (median)", text.percent(np.median(waits), 1))] if waits else []
    code = files.info.get("code")
    parts = [
        ("Hardware", text.rows(section(files.info, "hardware"))),
        ("Speed", speed),
        ("Versions", text.rows(section(files.info, "versions"))),
        ("Code", text.rows(code) if isinstance(code, dict) else [("code", text.plain(code))] if code else []),
    ]
    return [(title, found) for title, found in parts if found]
