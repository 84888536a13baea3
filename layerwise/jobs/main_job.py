"""The main job: train, test under the recipe's protocol, save the evaluation, write the report, say how it went.

`train` and `resume` are what `layerwise train`, `layerwise resume` and `layerwise.train` do: they return the run's
directory when everything is in it. A run that finished training but was stopped before its test is tested by `resume`.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerwise import distributed, heartbeat, modelfile, rundir
from layerwise.console import interval, note, percent
from layerwise.data.place import placed
from layerwise.distributed import World
from layerwise.errors import InputError, Interrupted
from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.evaluation.result import Result
from layerwise.evaluation.result import read as read_result
from layerwise.jobs.assessment import own_split
from layerwise.recipe import Recipe
from layerwise.report import report, summary
from layerwise.train import resume as resume_training
from layerwise.train import train as train_only
from layerwise.training.preparation import RunOptions, heard, say

NO_TEST = "no test split: tested on the validation pictures, which is not a test on new ones"
NOT_TESTED = "no test and no validation pictures: this network was not tested"


def train(recipe: Recipe, options: RunOptions = RunOptions()) -> Path:  # noqa: B008 - frozen
    """Trains as `recipe` says in a new directory, tests on the test split, reports; returns the run's directory.

    Raises what `layerwise.train.train` and `layerwise.evaluate.evaluate` raise.
    """
    with distributed.joined():
        return finish(train_only(recipe, options), options)


def resume(run: Path, options: RunOptions = RunOptions()) -> Path:  # noqa: B008 - frozen
    """Goes on with an interrupted run to its end, then tests and reports; returns the run's directory.

    Raises InputError where the run is finished and tested and no field is changed.
    """
    run = Path(run)
    distributed.first_speaks()
    with distributed.joined() as world:
        return _resume(run, heard(options, world), world)


def _resume(run: Path, options: RunOptions, world: World) -> Path:
    with world.together():
        record = rundir.read_run(run)  # first: of what is no run nothing is told
        untested = not options.settings and record["state"] == "finished" and _untested(run)
    if not options.settings:
        heartbeat.tell("run", str(run.absolute()))
    if why := heartbeat.restarted():
        with rundir.held(run, world):
            world.from_first(lambda: rundir.add_notes(run, f"started again: {why}"))
    if untested:
        say(options, f"{run}: the training is finished; its test and report follow")
        return finish(run, options)
    return finish(resume_training(run, options), options)


def extended(run: Path, amount: float) -> str:
    """The setting that makes a run longer by `amount` of its unit, as "duration=20"."""
    if amount <= 0:
        raise InputError(f"--extend {amount:g}: must be above 0", mend="Give the epochs or iterations to add.")
    return f"duration={rundir.read_recipe(Path(run)).duration + amount:.15g}"  # unrounded: 1240583 too


def finish(run: Path, options: RunOptions) -> Path:
    """What follows the training of `run`: its test under the recipe's protocol, the saved evaluation, the report.

    Raises Interrupted after Ctrl-C: the trained network is saved, and `resume` tests it. Raises InputError where
    another process is at work on the run.
    """
    try:
        with distributed.joined() as world, rundir.held(run, world):
            _test(run, heard(options, world), world)
            world.from_first(lambda: str(report(run)))
    except KeyboardInterrupt:
        raise Interrupted(f"{run}: stopped in its test; the trained network is saved",
                          f"Continue with: layerwise resume {run}") from None
    return run


def _test(run: Path, options: RunOptions, world: World) -> None:
    with world.together():
        recipe = rundir.read_recipe(run)
        samples = own_split(placed(recipe, rundir.read_run(run)), "", options.data_dir, options.offline)
        untestable = samples.name == "train"
        model = None if untestable else modelfile.read(run, world.device(recipe.device))
    if model is None:
        return world.from_first(lambda: rundir.add_notes(run, NOT_TESTED))
    if samples.name != "test":
        world.from_first(lambda: rundir.add_notes(run, NO_TEST))
    say(options, f"testing on {len(samples):,} pictures of the {samples.name} split, protocol {recipe.protocol}")
    result = evaluate(model, samples, EvaluateOptions(
        recipe.protocol, bad_images=recipe.bad_images, data=recipe.data))  # fmt: skip
    return world.from_first(lambda: _keep(run, model, result, f"{samples.name}-{recipe.protocol}"))


def _keep(run: Path, model: modelfile.ModelFile, result: Result, name: str) -> None:
    """Saves the evaluation of a run under `name`, and its numbers in the model file."""
    result.save(run / "evaluations" / name)
    rundir.add_notes(run, *result.notes, *outdated(run, model.sha256))
    modelfile.write(model.path, dataclasses.replace(model, results=[digest(result)]))  # last: it says `_untested` not


def _untested(run: Path) -> bool:
    """Whether a finished run's weights lack their test; an evaluation may be of those before a branch."""
    return not list(run.glob("evaluations/*/result.json")) or not modelfile.read(run).results


def outdated(run: Path, sha256: str) -> list[str]:
    """A note for each saved evaluation of `run` that was made with other weights than those of digest `sha256`."""
    notes = []
    for path in sorted(run.glob("evaluations/*/result.json")):
        if all(model.get("sha256") != sha256 for model in read_result(path).models):
            notes.append(f"evaluations/{path.parent.name} is of earlier weights of this run")
    return notes


def digest(result: Result) -> dict[str, Any]:
    """What the model file keeps of a result: numbers, protocol, data, and nothing that changes with time or place."""
    whole = result.to_json()
    return {key: whole[key] for key in ("split", "protocol", "samples", "unreadable", "metrics", "data")}


def closing_lines(run: Path) -> list[str]:
    """The closing summary: error with interval and protocol, what was odd, the files, the next commands."""
    found = summary(run)
    lines = [f"{found['network']} on {found['data']}: {found['steps']} steps, seed {found['seed']}, recipe "
             f"{found['recipe']} ({str(found['recipe_hash'])[:12]})"]
    for one in found["evaluations"]:
        metrics = one["metrics"]
        lines.append(f"{one['split']} error {percent(metrics.get('error'))} (95 % interval "
                     f"{interval(metrics.get('error_interval'))}), {one['samples']} pictures, protocol "
                     f"{one['protocol']['name']}"
                     + ("" if one["own"] else f", of {one['data']}"))
        if one.get("unreadable"):
            lines.append(f"unreadable: {one['unreadable']} pictures, counted apart")
    if not found["evaluations"]:
        lines.append("not tested")
    if found["data_wait"] is not None:
        lines.append(f"waited for data: {percent(found['data_wait'])} of the training's time")
    lines += [f"note: {text}" for text in found["notes"]]
    for name, file in (("model", "model.safetensors"), ("report", "report.html")):
        if (run / file).is_file():
            lines.append(f"{name}: {run / file}")
    return [*lines, f"use it: layerwise predict {run} PICTURES"]


def train_seeds(recipe: Recipe, options: RunOptions, seeds: int) -> dict[str, Any]:
    """Trains with the seeds seed, seed + 1, ... in a directory each; returns the spread of the test error."""
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    runs = []
    distributed.first_speaks()
    with distributed.joined() as world:
        options = heard(options, world)
        outs = [options.out / f"seed{seed}" if options.out is not None and seeds > 1 else options.out
                for seed in range(recipe.seed, recipe.seed + seeds)]
        with world.together():  # before the first of them trains for hours
            rundir.require_new(*(out for out in outs if out is not None))
        for seed, out in enumerate(outs, recipe.seed):
            runs.append(train(dataclasses.replace(recipe, seed=seed), dataclasses.replace(options, out=out)))
            if not options.quiet and seeds > 1:
                for line in closing_lines(runs[-1]):
                    note(line)
    return spread(runs)


def spread(runs: Sequence[Path]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1), median, least and largest error of runs, with what kind of number it is."""
    found = [summary(run) for run in runs]
    tested = [(one, one["evaluations"][0]) for one in found if one["evaluations"]]
    errors = [evaluation["metrics"]["error"] for _, evaluation in tested]
    label = "best validation epoch" if found[0]["select"] == "best" else "last epoch"
    numbers: dict[str, Any] = {
        "mean": statistics.fmean(errors) if errors else None,
        "sd": statistics.stdev(errors) if len(errors) > 1 else None,
        "median": statistics.median(errors) if errors else None,
        "min": min(errors, default=None),
        "max": max(errors, default=None),
    }
    first: dict[str, Any] = tested[0][1] if tested else {"split": None, "protocol": {"name": None}}
    return {"seeds": [one["seed"] for one in found], "weights": label, "split": first["split"],
            "protocol": first["protocol"]["name"], "error": numbers,
            "drawn": bool(rundir.read_recipe(Path(runs[0])).split), "runs": found}  # fmt: skip


def spread_lines(found: dict[str, Any]) -> list[str]:
    """The spread over seeds for people."""
    numbers = found["error"]
    if numbers["mean"] is None:
        return ["not tested"]
    deviation = "" if numbers["sd"] is None else f" ± {percent(numbers['sd'])}"
    lines = [f"{len(found['seeds'])} seeds, {found['split']} error {percent(numbers['mean'])}{deviation} (mean ± "
            f"standard deviation), median {percent(numbers['median'])}, {percent(numbers['min'])} to "
            f"{percent(numbers['max'])}; {found['weights']}, protocol {found['protocol']}"]
    if found["drawn"]:
        lines.append("each seed drew its own test pictures too, so the spread is of the split as well")
    return lines
