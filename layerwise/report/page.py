"""The report of a run: one self-contained HTML page, made from the saved files alone."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from layerwise.errors import InputError, MachineError
from layerwise.report import figures, text
from layerwise.report.run import Evaluation, Record, RunFiles, bins, curve, last_step, listing, read_run, section
from layerwise.report.tables import (
    OUTDATED,
    SPLIT_WORDS,
    class_counts,
    class_rows,
    data_rows,
    evaluation_row,
    machine_parts,
    recipe_parts,
)

NOTHING = Markup("")
MOST_MISTAKES = 24
MOST_CONFUSIONS = 20
SELECT_WORDS = {
    "last": "the model after the last step (no choice among epochs)",
    "best": "the model with the lowest validation error",
}
STATE_WORDS = {
    "running": "This run has not finished: it is still training, or it was killed. What follows is what it has saved "
               "so far.",
    "interrupted": "This run was interrupted and has not finished. What follows is what it saved.",
    "failed": "This run failed. What follows is what it saved before it did.",
    "unknown": "The run's record of its state can't be read: it may not have finished.",
}


def report(run: Path, out: Path | None = None) -> Path:
    """Write the report of the run in the directory `run` to `out` (default: report.html in it); returns its path.

    Raises InputError where `run` is not a run's directory or `out` can't be a file, MachineError where it can't be
    written. An existing report is replaced whole or not at all.
    """
    files = read_run(run)
    target = files.path / "report.html" if out is None else Path(out)
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"{str(target)!r} can't be the report's file", "It is a directory, or its directory does not "
                         "exist.", "Give a file name in a directory that exists.")
    page = render(files).encode("utf-8")
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(page)
        scratch.replace(target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise MachineError(f"{str(target)!r} can't be written: {error.strerror}", "The report was not saved.",
                           "Free some space, or make the directory writable.") from error
    return target


def render(files: RunFiles, live: Markup = NOTHING) -> str:
    """The page as text: every part of the run that is there, and a line for every part that is not.

    `live` are sections, as `report.explain.section_of` makes them, that stand behind the curves.
    """
    context = _context(files) | {"live": live}
    if live:
        context["style"] += Markup(template_file("explain.css"))
    return environment().from_string(template_file("page.html")).render(context | {"body": body(files, context)})


def body(files: RunFiles, context: Record | None = None) -> Markup:
    """The parts of the page below its title, as another page can take them in."""
    return Markup(environment().from_string(template_file("page_body.html")).render(context or _context(files)))


def _context(files: RunFiles) -> Record:
    found = files.headline
    model, data = section(files.info, "model"), section(files.info, "data")
    missing = list(files.missing)
    kernels = _kernels(files, missing)
    return {
        "style": Markup(template_file("style.css")),
        "live": NOTHING,
        "network": str(model.get("name", files.recipe.get("network", "unknown network"))),
        "data_name": str(data.get("name", files.recipe.get("data", "unknown data"))),
        "run_name": files.path.resolve().name,
        "state": files.state,
        "state_words": STATE_WORDS.get(files.state, "" if files.state == "finished" else STATE_WORDS["unknown"]),
        "facts": _facts(files, model, data),
        "headline": _headline(files, found) if found else None,
        "validation": _validation(files),
        "notes": _notes(files),
        "curves": _curves(files, found),
        "confusion": _confusion(found) if found else None,
        "classes": class_rows(found) if found else [],
        "worst": _worst(found) if found else [],
        "kernels": kernels,
        "evaluations": [evaluation_row(files, each) for each in files.evaluations],
        "recipe_name": str(files.recipe.get("name", "")),
        "recipe_hash": files.recipe_hash,
        "recipe": recipe_parts(files.recipe),
        "data": data_rows(data),
        "data_notes": [note for note in listing(data, "notes") if isinstance(note, str)],
        "class_counts": class_counts(files, found),
        "calibration": _calibration(files, missing),
        "machine": machine_parts(files),
        "missing": missing,
    }


@cache
def template_file(name: str) -> str:
    """The text of a template or style sheet of this folder."""
    return resources.files("layerwise.report").joinpath(name).read_text("utf-8")


@cache
def environment() -> jinja2.Environment:
    """Every value shown is first cleaned of invisible characters and then escaped; only our own SVG and CSS are not."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True, finalize=_shown)
    environment.filters.update(percent=text.percent, decimal=text.decimal, count=text.count)
    return environment


def _shown(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else text.clean(value)


def _headline(files: RunFiles, found: Evaluation) -> Record:
    """The number at the top of the page, with all that is needed to read it rightly."""
    outcome = found.result
    low, high = found.interval
    select, seed = files.recipe.get("select"), files.recipe.get("seed")
    return {
        "split": SPLIT_WORDS.get(outcome.split, outcome.split),
        "error": outcome.error, "low": low, "high": high, "samples": outcome.samples,
        "mistakes": outcome.samples - int(np.trace(found.confusion)),
        "protocol": outcome.protocol.name,
        "protocol_words": outcome.protocol.description,
        "selection": SELECT_WORDS.get(str(select), text.plain(select)),
        "spread": f"One run with seed {text.plain(seed)}. The interval is for the draw of the pictures; it says "
                  "nothing of the spread over seeds.",
        "cautions": _cautions(files, found),
        "top_k": list(section(outcome.metrics, "top_k_error").items()),
        "others": [(label, outcome.metrics.get(key), digits) for label, key, digits in (
            ("mean loss", "loss", 4), ("calibration error", "calibration_error", 4), ("macro F1", "macro_f1", 4),
        ) if key in outcome.metrics],
    }


def _cautions(files: RunFiles, found: Evaluation) -> list[str]:
    """What keeps the number at the top of the page from being this run's test error."""
    outcome = found.result
    cautions = [f"This evaluation is {OUTDATED}."] if files.outdated(outcome.models) else []
    if not found.own:
        cautions.append(f"The run was not tested on its own data: this is the evaluation {found.name}, of "
                        f"{text.plain(outcome.data.get('name'))}.")
    if outcome.split != "test":
        cautions.append("There is no evaluation on the test split: this is not a test error.")
        if outcome.split == "val" and files.recipe.get("select") == "best":
            cautions.append("The model was chosen by this very error, so it is not a fair number.")
    known = section(section(files.info, "data"), "fingerprint").get(outcome.split)
    if known is not None and outcome.data.get("fingerprint") not in (None, known):
        cautions.append(f"These are not the {SPLIT_WORDS.get(outcome.split, outcome.split)} pictures that the run "
                        "knew: their fingerprints differ.")
    if len(outcome.models) > 1:
        cautions.append(f"An ensemble of {len(outcome.models)} models, not this run's alone.")
    if outcome.unreadable:
        cautions.append(f"Pictures that could not be read and are not counted: {outcome.unreadable:,}.")
    if outcome.ignored:
        cautions.append(f"Pictures of classes unknown to the model that are not counted: {outcome.ignored:,}.")
    return cautions


def _validation(files: RunFiles) -> Record | None:
    """The validation errors of the run: the last and the lowest, each with its iteration."""
    points = curve(files, "val", "error", most=10**9)
    if not len(points):
        return None
    best = points[points[:, 1].argmin()]
    return {"last": points[-1, 1], "last_step": points[-1, 0], "best": best[1], "best_step": best[0]}


def _facts(files: RunFiles, model: Record, data: Record) -> list[tuple[str, str]]:
    shape = [text.plain(part) for part in listing(model, "input")]
    started = str(files.info.get("started", "")).replace("T", " ").replace("+00:00", " UTC")
    return [
        ("parameters", text.count(model.get("parameters"))),
        ("multiply-adds", text.count(model.get("multiply_adds"))),
        ("input (C × H × W)", " × ".join(shape) if shape else text.UNDEFINED),
        ("iterations", text.count(last_step(files)) if files.metrics else text.UNDEFINED),
        ("training time", text.duration(files.info.get("seconds"))),
        ("started", started or text.UNDEFINED),
    ]


def _notes(files: RunFiles) -> list[str]:
    """Everything a reader must know before believing the numbers: the run's notes, then the evaluations'."""
    notes = [note for note in listing(files.info, "notes") if isinstance(note, str)]
    for found in files.evaluations:
        notes += [f"{found.name}: {note}" for note in found.result.notes if isinstance(note, str)]
    return list(dict.fromkeys(notes))


def _curves(files: RunFiles, found: Evaluation | None) -> Record | None:
    """The drawn curves, wide for a screen and narrow for a phone, with the words that go with them."""
    training, validation = curve(files, "train", "error"), curve(files, "val", "error")
    rate = curve(files, "train", "learning_rate")
    if not len(training) and not len(validation):
        return None
    for points in (training, validation):
        points[:, 1] *= 100
    test: tuple[float | None, ...] = ()
    if found and found.result.split == "test" and found.result.error is not None:
        test = tuple(None if part is None else 100 * part for part in (found.result.error, *found.interval))
    top = figures.error_limit(training, validation, test)
    above = max(float(points[:, 1].max()) for points in (training, validation) if len(points)) > top
    label = "Error in percent against iterations: training and validation"
    drawn_rate = figures.learning_rate(rate, (330, 290), "Learning rate against iterations") if len(rate) else None
    return {
        "wide": Markup(figures.error_curves(training, validation, test, (640, 350), label)),
        "narrow": Markup(figures.error_curves(training, validation, test, (330, 290), f"Narrow: {label}")),
        "rate": drawn_rate and Markup(drawn_rate),
        "cut": above, "top": top, "test": bool(test), "validated": len(validation) > 0,
        "unmeasured": bool(files.metrics) and not len(training),
        "grouped": sum(line.get("kind") == "train" for line in files.metrics) > len(training),
    }


def _confusion(found: Evaluation) -> Record | None:
    names = [str(item["name"]) for item in found.result.classes]
    if not names:
        return None
    drawn = len(names) <= figures.MOST_CLASSES
    supports = np.maximum(found.confusion.sum(axis=1), 1)
    top = figures.top_confusions(found.confusion, 8 if drawn else MOST_CONFUSIONS)
    label = f"Confusion matrix of {len(names)} classes; the table beside it lists the most frequent confusions"
    return {
        "drawing": Markup(figures.confusion_matrix(found.confusion, names, label)) if drawn else None,
        "classes": len(names),
        "top": [(names[true], names[predicted], pictures, pictures / supports[true])
                for true, predicted, pictures in top],
    }


def reliability_figure(made: Record, size: tuple[int, int], label: str) -> str | None:
    """The reliability diagrams before and after a calibration, as `calibrate` saves it; None where it has no bins."""
    panels = []
    for when in ("before", "after"):
        held = section(made, when)
        found = bins(held)
        if found is None:
            return None
        panels.append((f"{when}: ECE {text.percent(held.get('calibration_error'))}", found))
    return figures.reliability(panels, size, label)


def standalone_reliability(made: Record) -> str:
    """The same as a file of its own. Raises InputError where `made` has no bins."""
    drawn = reliability_figure(made, (640, 380), "Reliability before and after the temperature")
    if drawn is None:
        raise InputError("this calibration holds no bins, so there is nothing to draw")
    return figures.standalone(drawn, template_file("style.css"))


def standalone_rejection(curve: Record, targets: Sequence[float]) -> str:
    """Error against rejection as a file of its own; `curve` is `RejectionCurve.figure()`, targets are fractions."""
    drawn = figures.rejection(curve, targets, (640, 380), "Error against rejection")
    return figures.standalone(drawn, template_file("style.css"))


def require_new_svg(figure: Path) -> None:
    """Raise InputError where a figure can't be written to `figure`: no SVG, there already, or no such directory."""
    if figure.suffix.lower() != ".svg":
        raise InputError(f"--figure {figure}: the figure is an SVG file", mend="Give a name that ends in .svg.")
    if figure.exists():
        raise InputError(f"{figure}: exists", "Nothing is written over.", "Choose another name.")
    if not figure.parent.is_dir():
        raise InputError(f"{figure}: its directory does not exist", mend="Make it first, or choose another name.")


def _calibration(files: RunFiles, missing: list[str]) -> Record | None:
    """The saved calibration of the run: its figure, wide and narrow, and the numbers of its caption."""
    made = files.calibration
    if not made:
        return None
    label = "Accuracy against confidence, before and after the temperature"
    wide = reliability_figure(made, (640, 380), label)
    narrow = reliability_figure(made, (330, 700), f"Narrow: {label}")
    if wide is None or narrow is None:
        missing.append("calibration/result.json: its bins are not those that a calibration writes; not shown.")
        return None
    fitted, reported = section(made, "fitted_on"), section(made, "reported_on")
    return {
        "wide": Markup(wide), "narrow": Markup(narrow), "bins": made.get("bins"),
        "temperature": made.get("temperature"), "protocol": str(section(made, "protocol").get("name", "?")),
        "fitted": str(fitted.get("split", "?")), "fitted_samples": fitted.get("samples"),
        "reported": str(reported.get("split", "?")), "reported_samples": reported.get("samples"),
        "rows": [(words, *(section(made, when).get(key) for when in ("before", "after"))) for words, key in (
            ("expected calibration error (ECE)", "calibration_error"),
            ("largest calibration error", "max_calibration_error"), ("loss", "loss"), ("Brier score", "brier"))],
        "cautions": [*([f"This calibration is {OUTDATED}."] if files.outdated([made]) else []),
                     *(note for note in listing(made, "notes") if isinstance(note, str))],
    }


def _worst(found: Evaluation) -> list[Record]:
    """The worst mistakes with their pictures. A picture is read from the evaluation's own folder and nowhere else."""
    mistakes = []
    for item in found.result.worst[:MOST_MISTAKES]:
        if isinstance(item, dict):
            mistakes.append({"id": str(item.get("id", "?")), "true": str(item.get("true", "?")),
                             "predicted": str(item.get("predicted", "?")),
                             "probability": text.number(item.get("probability")),
                             "uri": _picture(found.folder, item.get("picture"))})
    return mistakes


def _picture(folder: Path, name: object) -> Markup | None:
    """The picture as a data URI (base64, so nothing of it is read as markup), or None where it can't be shown."""
    if not isinstance(name, str) or not re.fullmatch(r"worst/[\w-]{1,64}\.(png|jpg)", name):
        return None
    file = folder / name
    try:
        if folder.resolve() not in file.resolve().parents:
            return None
        return Markup(figures.picture(file))
    except (OSError, ValueError):
        return None


def _kernels(files: RunFiles, missing: list[str]) -> Record | None:
    """The first convolution's kernels as a picture, read from the model file without building the network."""
    path = files.path / "model.safetensors"
    if not path.is_file():
        return None
    try:
        name, weight = _first_convolution(path)
        if weight.shape[1] not in (1, 3):
            raise ValueError(f"they have {weight.shape[1]} input channels and are no pictures")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        missing.append(f"First-layer kernels: not shown ({text.clean(str(error), 120)}).")
        return None
    number, channels, height, width = weight.shape
    return {"name": name, "uri": Markup(figures.kernel_grid(weight)), "number": number, "height": height,
            "width": width, "colour": channels == 3, "cut": number > figures.MOST_KERNELS, "most": figures.MOST_KERNELS}


def _first_convolution(path: Path) -> tuple[str, NDArray[np.float64]]:
    """The name and weight (out, in, H, W) of the first convolution: conv1 where there is one, else by name.

    Raises ValueError where there is none or its numbers are not finite.
    """
    with safe_open(path, framework="pt") as tensors:  # numpy knows no bfloat16
        names = [name for name in tensors.keys() if name.endswith("weight")  # noqa: SIM118 - not a dict
                 and len(tensors.get_slice(name).get_shape()) == 4]
        if not names:
            raise ValueError("the model has no convolution")
        first = min(names, key=lambda name: (not re.match(r"(model\.)?features\.conv1\b", name), "head." in name,
                                             _natural(name)))
        weight: NDArray[Any] = tensors.get_tensor(first).double().numpy()
    if weight.size == 0 or not np.isfinite(weight).all():
        raise ValueError("the weights are not all finite numbers")
    return first.removeprefix("model."), weight


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


