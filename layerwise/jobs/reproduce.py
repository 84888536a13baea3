"""Runs what is missing of an experiment: trains recipes once each, measures rows, keeps the results by recipe hash.

A finished row is not run again; an interrupted one is resumed from its checkpoint; a changed recipe is another row.
Several processes of the same command share the work: each takes what no other holds (`running_lock`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from layerwise import distributed, hardware, modelfile, rundir
from layerwise.console import agreed, note
from layerwise.data import DataOptions, open_data
from layerwise.data.opening import NAMES, find_layout
from layerwise.data.place import placed
from layerwise.data.source import Samples
from layerwise.distributed import World
from layerwise.errors import InputError, Interrupted, MachineError, ToleranceError, nearest
from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.experiments import find, measured
from layerwise.experiments.experiment import Experiment, Subject
from layerwise.experiments.measured import Cell, cell, key
from layerwise.experiments.scales import at_scale, seeds_of
from layerwise.jobs import main_job
from layerwise.jobs.assessment import own_split
from layerwise.jobs.reproduce_cost import Cost, cost
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset
from layerwise.report.paper_figures import save
from layerwise.report.papers import Table, table
from layerwise.running_lock import locked
from layerwise.train import resume as resume_training
from layerwise.train import train as train_only
from layerwise.training.preparation import RunOptions

STAND_IN = "Or let other data stand in for it, which the table then says: --scale paper --data fashion-mnist"
SMOKE_PICTURES = 4  # of the test split: a smoke run shows that a row runs, not how well it does


@dataclass(frozen=True)
class Places:
    """Where runs (with weights) and results lie, and where data sets are looked for; quiet runs say nothing."""

    runs: Path
    results: Path
    data_dir: Path | None = None
    offline: bool = False
    quiet: bool = False

    def run(self, recipe: Recipe) -> Path:
        """The directory of the run of `recipe`."""
        return self.runs / key(recipe)

    def options(self, recipe: Recipe) -> RunOptions:
        """How the run of `recipe` is made; the network's fit to small pictures was the experiment's choice."""
        return RunOptions(out=self.run(recipe), data_dir=self.data_dir, offline=self.offline, quiet=self.quiet,
                          confirmed=True)


@dataclass(frozen=True)
class Ask:
    """What is asked of an experiment: scale, rows (all without), seeds (0: the scale's), data in the paper's stead.

    `confirmed` starts without asking.
    """

    scale: str = "small"
    rows: tuple[str, ...] = ()
    seeds: int = 0
    data: str = ""
    confirmed: bool = False


@dataclass(frozen=True)
class Done:
    """What came of it: the table, its figure's files, what other processes still work on, and the cost before."""

    table: Table
    figures: tuple[Path, ...]
    busy: tuple[str, ...]
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {"table": self.table.to_json(), "figures": [str(path) for path in self.figures],
                "busy": list(self.busy), "cost": self.cost.to_json()}


def reproduce(name: str, ask: Ask, places: Places) -> Done:
    """Runs what is missing of the experiment `name`, then sets what was measured beside what the paper prints.

    Says the cost first. Raises InputError for an unknown experiment, row, scale or data, and where nobody agreed to the
    start; else what `fill` raises.
    """
    experiment = find(name)
    rows = ask.rows or tuple(experiment.rows)
    require_known(experiment, ask)
    distributed.first_speaks()
    with distributed.joined() as world:
        with world.together():
            todo = missing(cells(experiment, ask.scale, rows, ask.seeds, ask.data), places.results)
            recipes = untrained(todo, places)
        told = world.from_first(lambda: _agreed(name, ask, recipes, places))
        busy = fill(todo, places)
        with world.together():
            found = table(experiment, ask.scale, places.results, rows, ask.data)
        drawn = world.from_first(lambda: [str(path) for path in _drawn(experiment, found, ask, places)])
    return Done(found, tuple(Path(path) for path in drawn), tuple(busy), Cost(**told))


def require_known(experiment: Experiment, ask: Ask) -> None:
    """Raises InputError with all that is wrong of what is asked."""
    at_scale(preset("fast"), ask.scale, 0)
    wrong = [f"{row}: {experiment.name} has no such row{nearest(row, experiment.rows)}"
             for row in ask.rows if row not in experiment.rows]
    if wrong:
        raise InputError(wrong[0], mend=f"Its rows are: {', '.join(experiment.rows)}.", details=wrong[1:])
    if ask.data and ask.scale != "paper":
        raise InputError(f"--data {ask.data}: the scale {ask.scale} has data of its own",
                         mend="Leave --data out, or add --scale paper.")


def _agreed(name: str, ask: Ask, recipes: Sequence[Recipe], places: Places) -> dict[str, Any]:
    """Looks for the data, says the cost of the start and asks; returns the cost. Raises InputError without a yes."""
    smoke = ask.scale == "smoke"
    if not smoke:
        require_data(recipes, places)
    found = cost(recipes, probe=not smoke)
    if recipes and not smoke:
        if not places.quiet:
            note(f"{name} at scale {ask.scale}: {found.line()}")
        if not ask.confirmed and not agreed("Start?"):
            raise InputError(f"{name}: not started, which would be {found.line()}",
                             mend="Start it with --yes; fewer with --rows or --seeds.")
    return asdict(found)


def require_data(recipes: Sequence[Recipe], places: Places) -> None:
    """Raises InputError for data that is not there, MachineError for a published set that may not be downloaded.

    A published set that will be downloaded is told before the start.
    """
    for data in dict.fromkeys(recipe.data for recipe in recipes):
        if data not in NAMES:
            find_layout(data, places.data_dir)
            continue
        try:
            open_data(data, DataOptions(places.data_dir, offline=True))
        except MachineError as error:
            if places.offline:
                raise MachineError(error.what, error.why, f"{error.mend} {STAND_IN}") from None
            if not places.quiet:
                note(f"{data} is not on this machine and will be downloaded. {STAND_IN}")


def _drawn(experiment: Experiment, found: Table, ask: Ask, places: Places) -> list[Path]:
    results = measured.results(experiment, ask.scale, places.results, ask.data)
    return save(experiment, results, found, places.runs / "figures")


def cells(experiment: Experiment, scale: str, slugs: Sequence[str], seeds: int, data: str = "") -> list[Cell]:
    """The cells that can be measured of some rows: all first seeds, then all second ones, so that a table fills evenly.

    `seeds` 0 means the scale's own number.
    """
    rows = {slug: experiment.rows[slug] for slug in slugs if not experiment.rows[slug].unmeasured}
    counts = {slug: seeds_of(scale, row) if not (seeds and row.recipes) else seeds for slug, row in rows.items()}
    return [cell(experiment, slug, scale, seed, data) for seed in range(max(counts.values(), default=0))
            for slug in rows if seed < counts[slug]]


def missing(asked: Iterable[Cell], root: Path) -> list[Cell]:
    """Those of the cells that are not measured yet."""
    return [one for one in asked if measured.measured(one, root) is None]


def untrained(asked: Iterable[Cell], places: Places) -> list[Recipe]:
    """The recipes that missing cells need trained, each once: not kept, or without the weights to measure."""
    found: dict[str, Recipe] = {}
    for one in asked:
        for recipe in one.recipes:
            kept = measured.trained(recipe, places.results) is not None
            weights = (places.run(recipe) / modelfile.NAME).is_file()
            if not kept or (one.row.measure is not None and not weights):
                found[recipe.hash] = recipe
    return list(found.values())


def fill(asked: Sequence[Cell], places: Places) -> list[str]:
    """Trains and measures what is missing of the cells; returns a line for each that another process works on.

    Raises Interrupted with everything saved, and what training, testing and measuring raise. A number that is not
    finite ends that recipe's training for good: it is kept as the result.
    """
    busy = []
    with distributed.joined() as world:
        for one in asked:
            for place in range(len(one.recipes)):
                if pid := train_recipe(one, place, places, world):
                    busy.append(f"{one.slug}, seed {one.seed}: process {pid} trains {key(one.recipes[place])}")
                    break
            else:
                try:
                    world.from_first(lambda one=one: measure(one, places))  # type: ignore[misc]
                except KeyboardInterrupt:
                    raise Interrupted("stopped while measuring; the trained networks are saved", again(one)) from None
    return busy


def again(one: Cell) -> str:
    """What goes on with an interrupted cell."""
    return f"Continue with the same command: layerwise reproduce {one.experiment.name} --scale {one.scale} --yes"


def train_recipe(one: Cell, place: int, places: Places, world: World) -> int:
    """Trains a recipe of a cell, or goes on with it, and keeps its numbers; 0, or the process that is at it now."""
    recipe, run = one.recipes[place], places.run(one.recipes[place])
    with _held(run.with_suffix(".lock"), world) as pid:
        if pid:
            return pid
        state = world.from_first(lambda: _state(one, recipe, places))
        if state == "done":
            return 0
        if world.first and not places.quiet:
            note(f"{one.experiment.name}, {one.slug}, seed {one.seed}: {state} {run}")
        try:
            if one.scale == "smoke":
                _smoke(recipe, state, places, world)
            elif state == "train":
                main_job.train(recipe, places.options(recipe))
            elif state in ("resume", "test"):
                main_job.resume(run, replace(places.options(recipe), out=None))
        except ToleranceError as error:
            what = error.what
            world.from_first(lambda: measured.keep_failure(recipe, run, places.results, what))
            return 0
        except Interrupted as stopped:
            raise Interrupted(stopped.what, again(one), stopped.exit_code) from None
        world.from_first(lambda: measured.keep_run(recipe, run, places.results, _tested(run)))
    return 0


class _held:  # noqa: N801 - reads as the context manager that it is
    """The lock of a run, held by the first of the processes that work together; what it found holds for all."""

    def __init__(self, path: Path, world: World) -> None:
        self.lock, self.world = locked(path), world

    def __enter__(self) -> int:
        return self.world.from_first(self.lock.__enter__)

    def __exit__(self, *error: object) -> None:
        if self.world.first:
            self.lock.__exit__(*error)  # type: ignore[arg-type]


def _state(one: Cell, recipe: Recipe, places: Places) -> str:
    """What is left to do of a recipe: train, resume, test, keep (all is in its directory), or done."""
    run = places.run(recipe)
    weights = (run / modelfile.NAME).is_file() or one.row.measure is None
    kept = measured.trained(recipe, places.results)
    if kept is not None and (weights or kept.get("failure")):
        return "done"
    if not (run / rundir.RUN).is_file():
        if run.is_dir():  # killed before its first step: there is nothing to go on with
            shutil.rmtree(run)
        return "train"
    if rundir.read_run(run)["state"] != "finished":
        return "resume"
    return "keep" if list(run.glob("evaluations/*/result.json")) else "test"


def _smoke(recipe: Recipe, state: str, places: Places, world: World) -> None:
    """Two steps and a test on a few pictures that is named as such; no report."""
    run, options = places.run(recipe), places.options(recipe)
    if state == "train":
        train_only(recipe, options)
    elif state == "resume":
        resume_training(run, replace(options, out=None))
    if state == "keep":
        return
    with world.together():
        used = rundir.read_recipe(run)
        model = modelfile.read(run, world.device(used.device))
        few = own_split(used, "", places.data_dir, places.offline)
        few = few.subset(range(min(SMOKE_PICTURES, len(few))), f"{SMOKE_PICTURES} of {few.name}")
    result = evaluate(model, few, EvaluateOptions(recipe.protocol, data=recipe.data))
    world.from_first(lambda: result.save(run / "evaluations" / "smoke"))
    if world.first:  # it is finished; a large network's state of the optimiser is of no more use
        shutil.rmtree(run / rundir.CHECKPOINTS, ignore_errors=True)


def _tested(run: Path) -> measured.Record:
    """The test of a run: its own, made once at its end; not what `layerwise evaluate` may have added since."""
    protocol = rundir.read_recipe(run).protocol
    own = [run / "evaluations" / name / "result.json" for name in (f"test-{protocol}", "smoke", f"val-{protocol}")]
    return measured.read(next(path for path in own if path.is_file()))


def measure(one: Cell, places: Places) -> None:
    """A row's own measurement on its trained networks, kept; nothing where it has none or it is kept already."""
    kept = measured.measured(one, places.results)
    if one.row.measure is None or kept is not None:
        return
    runs = tuple(places.run(recipe) for recipe in one.recipes)
    records = [measured.trained(recipe, places.results) for recipe in one.recipes]
    if any(record is None or record.get("failure") for record in records):
        return
    if not places.quiet:
        note(f"{one.experiment.name}, {one.slug}, seed {one.seed}: measuring")

    splits: list[str] = []

    def load(run: Path, split: str) -> Samples:
        recipe = placed(rundir.read_recipe(run), rundir.read_run(run))
        found = own_split(recipe, split, places.data_dir, places.offline)
        splits.append(found.name)  # "" asks for whichever split stands for the test
        return found

    numbers = one.row.measure(Subject(runs, one.scale, one.seed, load))
    plain = json.loads(json.dumps(dict(numbers), allow_nan=False))
    machine = hardware.resolve(preset("fast"))
    measured.keep_measurement(one, places.results, plain, {
        "versions": hardware.versions(), "hardware": hardware.describe(machine), "read": sorted(set(splits))})

