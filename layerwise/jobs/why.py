"""`layerwise why RUN --against EXPERIMENT/ROW|RUN`: why two numbers differ, cause by cause, the largest first.

What can be tested on the run's own weights is tested (protocols, resizing, averaged or raw weights, ...): its effect is
measured. Other differences have the size that a source printed, or our judgement, and say which. What the causes that
were measured leave of the gap is told too, beside the spread over seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from layerwise import modelfile, rundir
from layerwise.data.place import placed
from layerwise.data.source import Samples
from layerwise.errors import InputError, MachineError, nearest
from layerwise.evaluation import result
from layerwise.evaluation.difference import holm, over_seeds
from layerwise.evaluation.result import Result
from layerwise.experiments import EXPERIMENTS, find, measured
from layerwise.experiments.experiment import Experiment, Row
from layerwise.jobs.again import Again, Retest, chosen, retested
from layerwise.jobs.assessment import own_split
from layerwise.jobs.causes import (
    Cause,
    Trained,
    differences,
    of_effect,
    of_records,
    printed_errors,
    training_pictures,
    unused,
)
from layerwise.jobs.compare import LEVEL
from layerwise.jobs.sides import KEPT, Side, read_side, row_named
from layerwise.recipe import Recipe
from layerwise.recipes.effects import FIELDS, Effect, judged

SPLITS = ("val", "test")
PICTURES = 1000
OTHER_PICTURES = Effect(100.0, "numbers on other pictures answer another question", False, False)


@dataclass(frozen=True)
class Number:
    """One side: its name, its error in percent (None where none is known), and what the error is of."""

    name: str
    error: float | None
    protocol: str
    told: str
    seeds: int = 1
    deviation: float | None = None


@dataclass(frozen=True)
class Explanation:
    """Two numbers, their gap (run - against, in points), the causes in order, and what was tested again.

    `explained` sums the measured causes: what the run's error would change by if it were tested as there.
    """

    run: Number
    against: Number
    gap: float | None
    spread: str
    causes: tuple[Cause, ...]
    again: tuple[Again, ...]
    tested: str
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def explained(self) -> float | None:
        """The sum of the measured causes, None where none was measured."""
        found = [cause.points for cause in self.causes if cause.kind == "measured" and cause.points is not None]
        return sum(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return asdict(self) | {"explained": self.explained, "conclusion": self.conclusion}

    @property
    def conclusion(self) -> list[str]:
        """What may be said, in a few lines."""
        other = [cause.name for cause in self.causes if cause.kind == "other question"]
        lines = []
        if other:
            lines.append(f"the two numbers are not of the same thing ({', '.join(other)} differ): "
                         "the gap is not one between two ways to do it")
        if not self.causes:
            lines.append("no difference was found that could be a cause: what is left is chance, or not recorded")
        told = {cause.name for cause in self.causes}
        for one, p in zip(self.again, holm([one.p for one in self.again]), strict=True):
            if one.field not in told and one.difference is not None and p is not None and p < LEVEL:
                lines.append(f"{one.what}: {100 * one.difference:+.2f} points, beyond the noise")
        if self.explained is None or self.gap is None:
            return lines
        lines.append(f"tested as there, this run's error would change by {self.explained:+.2f} points, if the measured "
                     f"effects add up; the gap of {self.gap:+.2f} would be {self.gap + self.explained:+.2f}, left to "
                     "the causes that were not measured")
        return lines


@dataclass(frozen=True)
class _Known:
    """What is known of a run: its side, recipe, records and pictures."""

    side: Side
    place: Path | None  # the run's directory, where its weights are
    recipe: Recipe
    record: Mapping[str, Any]
    result: Result | None

    @property
    def trained(self) -> Trained:
        count = self.record.get("data", {}).get("counts", {}).get("train") if "data" in self.record else None
        return Trained(self.recipe, count or training_pictures(self.recipe))


@dataclass(frozen=True)
class Ask:
    """How the run is tested again: on which split ("" for validation, else test), and on how many pictures (0: not)."""

    on: str = ""
    pictures: int = PICTURES
    data_dir: Path | None = None
    offline: bool = False
    registry: Mapping[str, Experiment] = field(default_factory=dict)  # "" where the real one is meant


def why(run: str | Path, against: str | Path, ask: Ask = Ask()) -> Explanation:
    """Why the error of `run` differs from that of `against`: the row of an experiment, as resnet/table-3/resnet34-b, or
    another run.

    Raises InputError where either is none, or the row has no recipe.
    """
    if ask.on and ask.on not in SPLITS:
        raise InputError(f"--on {ask.on}: no such split{nearest(ask.on, SPLITS)}", mend="It is val or test.")
    row_asked = _row(str(against), ask) if _is_row(str(against), ask) else None
    other = _known(against) if row_asked is None else None
    protocol = row_asked[2].recipes[0].protocol if row_asked else other.recipe.protocol if other else ""
    ours = _known(run, protocol)
    if row_asked is not None:
        experiment, slug, row = row_asked
        recipe, printed = row.recipes[0], printed_errors(experiment, row, _same_paper(experiment.name, ask))
        theirs, there = _printed(experiment, slug, row), Trained(recipe, training_pictures(recipe))
        open_points = (*row.differs, *row.open_points)
        extra, notes = _beside_row(ours, row), [f"the row itself, against the paper: {text}" for text in open_points]
    else:
        assert other is not None
        recipe, printed, theirs, there = other.recipe, {}, _number(other), other.trained
        extra, notes = _beside_run(ours, other), []
    again, tested, failed = _retested(ours, recipe, ask)
    causes = sorted([*differences(ours.trained, there, printed, again), *extra], key=lambda cause: cause.rank,
                    reverse=True)
    number = _number(ours)
    gap = None if number.error is None or theirs.error is None else number.error - theirs.error
    return Explanation(number, theirs, gap, _spread(number, theirs, ours, other), tuple(causes), tuple(again), tested,
                       unused(ours.recipe, recipe), (*_own_notes(ours), *notes, *failed))


def _is_row(text: str, ask: Ask) -> bool:
    return not Path(text).exists() and text.rpartition("/")[0] in (ask.registry or EXPERIMENTS)


def _row(text: str, ask: Ask) -> tuple[Experiment, str, Row]:
    name, _, row = text.rpartition("/")
    experiment = ask.registry[name] if ask.registry else find(name)
    slug = row_named(experiment, row)
    found = experiment.rows[slug]
    if not found.recipes:
        raise InputError(f"{text}: this row has no recipe", found.unmeasured or "Nothing is trained for it.",
                         "Name a row that is trained; `layerwise reproduce --list` shows them.")
    return experiment, slug, found


def _same_paper(name: str, ask: Ask) -> list[Experiment]:
    """The other experiments of a paper."""
    paper = name.partition("/")[0] + "/"
    return [ask.registry[other] if ask.registry else find(other) for other in ask.registry or EXPERIMENTS
            if other.startswith(paper) and other != name]


def _known(given: str | Path, protocol: str = "") -> _Known:
    """What is known of a run, tested under `protocol` where it was; else as its recipe says."""
    text = str(given)
    if "/" in text and not Path(text).exists():
        names = [f"{name}/{slug}" for name in EXPERIMENTS for slug in find(name).rows]
        raise InputError(f"{text}: neither a run nor the row of an experiment{nearest(text, names)}",
                         mend="Name a run's directory, or a row as resnet/table-6/resnet20.")
    side = read_side(given, [protocol] if protocol else [])
    first = side.seeds[0]
    if first.recipe is None:
        raise InputError(f"{first.name}: its recipe is not known", "The causes are differences of recipes.",
                         "Name the directory of a run.")
    place, recipe = Path(first.name), replace(first.recipe, protocol=first.protocol)
    if (place / KEPT).is_file() and not (place / result.RESULT).is_file():
        file = place / measured.ENVIRONMENT
        return _Known(side, None, recipe, measured.read(file) if file.is_file() else {}, None)
    run = place.parent.parent
    return _Known(side, run if (run / modelfile.NAME).is_file() else None, recipe, rundir.read_run(run),
                  result.read(place))


def _number(known: _Known) -> Number:
    values = [100 * value for value in known.side.values("error")]
    told = f"{known.recipe.network} on {known.recipe.data}"
    if known.result is not None:
        told += f", {known.result.samples:,} pictures of its {known.result.split} split"
        bounds = known.result.metrics.get("error_interval")
        if bounds and len(values) == 1:
            told += f", 95 % interval {100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}"
    return Number(known.side.name, statistics.fmean(values), known.side.seeds[0].protocol, told, len(values),
                  statistics.stdev(values) if len(values) > 1 else None)


def _printed(experiment: Experiment, slug: str, row: Row) -> Number:
    numbers, recipe = experiment.paper.get(slug, {}), row.recipes[0]
    error, deviation = (numbers.get(name) for name in ("error", "deviation"))
    return Number(
        f"{experiment.name}/{slug}", float(error) if isinstance(error, int | float) else None, recipe.protocol,
        f"{recipe.network} on {recipe.data}, printed in the paper" if isinstance(error, int | float) else
        f"{recipe.network} on {recipe.data}; the paper prints no error of it", row.seeds,
        float(deviation) if isinstance(deviation, int | float) else None)


def _spread(number: Number, theirs: Number, ours: _Known, other: _Known | None) -> str:
    """The gap beside the spread over seeds, in words."""
    if number.error is None or theirs.error is None:
        return ""
    if other is not None and max(len(ours.side.seeds), len(other.side.seeds)) > 1:
        found = over_seeds("error", other.side.values("error"), ours.side.values("error"), False)
        if found.p is not None:
            noise = "beyond" if found.beyond_noise else "inside"
            return (f"{noise} the spread over seeds (Welch's or Student's t over {number.seeds} and {theirs.seeds} "
                    f"runs, p = {found.p:.2g})")
        return found.note
    known = [(side.deviation, side.name) for side in (number, theirs) if side.deviation]
    if not known:
        return "the spread over seeds is not known: one run on each side"
    deviation, whose = known[0]
    gap = abs(number.error - theirs.error)
    return (f"{gap / deviation:.1f} times the standard deviation over seeds of {whose}, {deviation:.2f} points"
            + ("" if gap > 2 * deviation else ": chance alone could make it"))


def _beside_row(ours: _Known, row: Row) -> list[Cause]:
    """Seeds and the machine, of which a paper's row says little."""
    found = []
    if len(ours.side.seeds) != row.seeds:
        found.append(of_effect("seeds", str(len(ours.side.seeds)), str(row.seeds), judged(
            0.2, "fewer runs leave more to chance")))
    hardware = ours.record.get("hardware", {})
    told = ", ".join(str(hardware[name]) for name in ("device", "cpu", "precision") if name in hardware)
    found.append(of_effect("hardware", told or "not recorded", "the paper's machines", FIELDS["device"]))
    return found


def _beside_run(ours: _Known, other: _Known) -> list[Cause]:
    """Pictures, seeds, classes, machines and versions of two runs."""
    found = []
    prints = [side.seeds[0].fingerprint for side in (ours.side, other.side)]
    if ours.recipe.data == other.recipe.data and prints[0] != prints[1]:
        found.append(of_effect("pictures that were tested", f"fingerprint {prints[0][:12]}",
                               f"fingerprint {prints[1][:12]}", OTHER_PICTURES))
    train = [known.record.get("data", {}).get("fingerprint", {}) for known in (ours, other)]
    train = [known.get("train") if isinstance(known, dict) else None for known in train]
    if None not in train and train[0] != train[1] and ours.recipe.data == other.recipe.data:
        found.append(of_effect("training pictures", f"fingerprint {train[0][:12]}", f"fingerprint {train[1][:12]}",
                               judged(1.0, "other pictures were learned from")))
    if ours.result is not None and other.result is not None:
        theirs = other.result.protocol.to_json()
        for name, value in ours.result.protocol.to_json().items():
            told = name in ("name", "description") or getattr(ours.recipe, name, 0) != getattr(other.recipe, name, 0)
            if not told and value != theirs[name] and ours.result.protocol.name == other.result.protocol.name:
                found.append(of_effect(f"protocol: {name}", str(value), str(theirs[name]), judged(
                    0.3, "the pictures were shown in another way")))
    seeds = [", ".join(str(seed.seed) for seed in side.seeds) for side in (ours.side, other.side)]
    if seeds[0] != seeds[1]:
        found.append(of_effect("seeds", seeds[0], seeds[1], judged(
            0.2, "another draw; the spread over seeds tells its size")))
    return [*found, *of_records(ours.record, other.record)]


def _own_notes(ours: _Known) -> list[str]:
    """What the run's record says of itself and that no recipe shows."""
    record, notes = ours.record, []
    if record.get("state", "finished") != "finished":
        notes.append(f"the run is {record['state']}: it did not reach its end")
    notes += [f"noted by the run: {text}" for text in record.get("notes", [])]
    if ours.result is not None and ours.result.unreadable:
        notes.append(f"{ours.result.unreadable} pictures could not be read and are not counted")
    return notes


def _retested(ours: _Known, there: Recipe, ask: Ask) -> tuple[list[Again], str, list[str]]:
    """What the run's weights give in other ways, on which pictures, and why not where not."""
    if ask.pictures == 0:
        return [], "", ["nothing was tested again: --pictures 0"]
    if ours.place is None:
        return [], "", ["nothing was tested again: the weights are not kept beside this result"]
    recipe = placed(ours.recipe, rundir.read_run(ours.place))
    try:
        samples = _pictures(recipe, ask)
        training = lambda: own_split(recipe, "train", ask.data_dir, ask.offline)  # noqa: E731
        asked = Retest(ours.place, modelfile.read(ours.place), ours.recipe, chosen(samples, ask.pictures), there,
                       training)
        error, found = retested(asked)
    except (InputError, MachineError) as problem:
        return [], "", [f"nothing was tested again: {problem.what}"]
    told = (f"{len(asked.samples):,} pictures of the {samples.name} split, of which the run's own way answers "
            f"{100 * error:.2f} % wrongly")
    notes = ["tested again on test pictures: these numbers explain, they are none to report"
             ] if samples.name == "test" else []
    return found, told, notes


def _pictures(recipe: Recipe, ask: Ask) -> Samples:
    if ask.on:
        return own_split(recipe, ask.on, ask.data_dir, ask.offline)
    try:
        return own_split(recipe, "val", ask.data_dir, ask.offline)
    except InputError:
        return own_split(recipe, "", ask.data_dir, ask.offline)
