"""Training: `train(recipe)` makes a run and goes through the loop; `resume(run)` goes on where its checkpoint is.

There is one loop. Schedule, precision, averaging, evaluation and checkpoints are visible lines of it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerwise import checkpoint, distributed, hardware, modelfile, rundir
from layerwise.data.colour import fit_colour
from layerwise.data.loader import plain_batches, shared_batches
from layerwise.data.order import Place, epoch_batches, epoch_order
from layerwise.data.place import placed
from layerwise.data.preprocess import fit_preprocess
from layerwise.distributed import World
from layerwise.errors import InputError, Interrupted, LayerwiseError, amount
from layerwise.models.shapes import check_input
from layerwise.randomness import derived_seed
from layerwise.recipe import Recipe, check
from layerwise.signals import Signals
from layerwise.training import transfer
from layerwise.training.average import Average
from layerwise.training.failure import AGAIN, LEAVE, TAKE, judged, memory_told, no_memory, pictures_of_all, sound
from layerwise.training.fused import compiled_for
from layerwise.training.graphs import passed
from layerwise.training.lines import show, write_line, write_speed
from layerwise.training.memory import watched
from layerwise.training.optimiser import clip_gradients, keep_frozen_statistics, set_rate, unfreeze
from layerwise.training.pending import count, deferred, settled, totals
from layerwise.training.preparation import RunOptions, banner, handshake, heard, open_split, record_of, say, threaded
from layerwise.training.probe import probe_micro_batch, validation_batch
from layerwise.training.readable import readable
from layerwise.training.resumption import branched, differences, write_branch
from layerwise.training.running_statistics import look_at_running_averages, one_value_told, put_back
from layerwise.training.state import Training, assemble, checkpoint_size, note, read_input, restore, save, write_input
from layerwise.training.synchronised import own_gradients

LINES_PER_EPOCH = 10


def train(recipe: Recipe, options: RunOptions = RunOptions()) -> Path:  # noqa: B008 - frozen
    """Trains as `recipe` says in a new directory; returns it, with the model file in it.

    Raises InputError for what does not fit (before anything is written), MachineError, ToleranceError for a
    non-finite number, Interrupted after Ctrl-C or SIGTERM with everything saved.
    """
    with distributed.joined() as world:
        return _train(recipe, heard(options, world), world)


def _train(recipe: Recipe, options: RunOptions, world: World) -> Path:
    automatic, undecided = recipe.micro_batch == 0 and not recipe.virtual_workers, recipe.compile == "auto"
    with world.together():
        recipe = hardware.resolve(threaded(recipe, world))
        check(recipe)
        if options.out is not None:
            rundir.require_new(options.out)
        data = open_split(recipe, options)
        source = modelfile.read(recipe.start_from) if recipe.start_from else None
        preprocess = source.preprocess if source else fit_preprocess(data.train, recipe)
        recipe = dataclasses.replace(recipe, channels=preprocess.channels, input_size=preprocess.size)
        doubts = check_input(recipe.network, recipe.channels, recipe.input_size, len(data.train.class_names))
        if doubts and not options.confirmed:
            raise InputError(doubts[0], mend="Take that network, or continue with --yes.", details=doubts[1:])
        if undecided:
            recipe = dataclasses.replace(recipe, compile=compiled_for(recipe, len(data.train)))
        colour = fit_colour(data.train, preprocess) if recipe.colour == "pca" else None
    handshake(world, recipe, data)

    run = Path(world.from_first(lambda: str(rundir.create(recipe, options.out))))
    try:
        with world.together():
            training = assemble(run, recipe, data, preprocess, colour)
            say(options, probe_micro_batch(training, automatic))
            checkpoint.require_space(run, 2 * checkpoint_size(training))
            report = transfer.start_from(training.model, data.train.class_names, source) if source else None
    except LayerwiseError:
        if world.first:
            rundir.discard(run)
        raise
    training.position.micro_batch = min(world.exchange(training.position.micro_batch))
    training.recipe = dataclasses.replace(training.recipe, micro_batch=training.position.micro_batch)
    if report:
        if training.average:
            training.average = Average(training.model, recipe.ema)
        for line in report.lines():
            say(options, line)
    with rundir.held(run, world):
        with world.together():
            if world.first:
                if report:
                    rundir.write_json(run / "load-report.json", dataclasses.asdict(report))
                write_input(run, preprocess, colour)
                rundir.write_splits(run, data)
                checkpoint.replace_durably(run / rundir.RECIPE, training.recipe.to_json().encode())
                rundir.write_json(run / rundir.RUN, record_of(training, data, doubts))
        return _finish(training, options)


def resume(run: Path, options: RunOptions = RunOptions()) -> Path:  # noqa: B008 - frozen
    """Goes on from the newest sound checkpoint of `run`; the end is byte-identical to that of an uninterrupted run.

    What differs from the machine and data it started with is refused, or noted as not bit-exact. A run that another
    process is at work on is refused.
    """
    with distributed.joined() as world:
        with world.together():
            rundir.read_recipe(run)  # in what is no run no lock is left
        with rundir.held(run, world):
            return _resume(run, heard(options, world), world)


def _resume(run: Path, options: RunOptions, world: World) -> Path:
    with world.together():
        recipe, record = rundir.read_recipe(run), rundir.read_run(run)
        generation, damaged = checkpoint.newest(run / rundir.CHECKPOINTS)
        for problem in damaged:
            say(options, f"skipped a damaged checkpoint: {problem}")
        if record["state"] == "finished" and not options.settings:
            raise InputError(f"{run}: finished after {amount(recipe.duration, recipe.unit)}",
                             mend=f"To train on: layerwise resume {run} --extend {recipe.duration:g}")
        started = recipe
        if options.settings:
            recipe = branched(run, started, record, options.settings, generation)
        preprocess, colour = read_input(run)
        data = open_split(placed(recipe, record), options)
        changes = differences(run, recipe, record, data, options)
    handshake(world, recipe, data, generation)
    with world.together():
        training = assemble(run, recipe, data, preprocess, colour)
        if generation is not None:
            restore(training, generation)
        else:
            training.metrics.cut(0)
            probe_micro_batch(training, automatic=False)  # for its notes: the run begins again
        if generation is None and recipe.start_from:
            transfer.start_from(training.model, data.train.class_names, modelfile.read(recipe.start_from))
            if training.average:
                training.average = Average(training.model, recipe.ema)
    if options.settings:  # it fits: what does not was refused above, with the recipe as it was
        world.from_first(lambda: write_branch(run, started, recipe, generation))
    for text in [*changes, *(f"skipped a damaged checkpoint: {problem}" for problem in damaged)]:
        note(training, text)
    world.from_first(lambda: rundir.update_run(run, {"state": "running"}))
    say(options, f"resuming {run} at step {training.position.step}, {training.progress:.2f} {recipe.unit}")
    generation = None  # its tensors are in the training now
    return _finish(training, options)


def _finish(training: Training, options: RunOptions) -> Path:
    """Runs the loop to its end, writes the model file and closes the record."""
    run, started = training.run, time.monotonic()
    for line in banner(training):
        say(options, line)
    state = "failed"
    try:
        with (memory_told(training), one_value_told(training), watched(training, lambda line: say(options, line)),
              Signals() as signals):
            signals.received = loop(training, signals, options) or signals.received
        if signals.received is not None and not training.schedule.finished(training.position.samples):
            state = "interrupted"
            raise Interrupted(
                f"{run}: stopped at step {training.position.step} with everything saved",
                f"Continue with: layerwise resume {run}",
                signals.exit_code,
            )
        training.world.from_first(lambda: _write_model(training))
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        again = f"Continue with: layerwise resume {run}"
        raise Interrupted(f"{run}: stopped at once; the last checkpoint is untouched", again) from None
    finally:
        if training.world.first:
            record = rundir.read_run(run)
            seconds = record["seconds"] + time.monotonic() - started
            rundir.update_run(run, {"state": state, "finished": rundir.now(), "seconds": round(seconds, 1)},
                              *training.notes)
    return run


def loop(training: Training, signals: Signals, options: RunOptions) -> int:
    """The training loop: batches, gradients, step; records, evaluations and checkpoints as they fall due.

    Returns the signal that any of the processes received and that ended it early, or 0.
    """
    recipe, position, schedule, world = training.recipe, training.position, training.schedule, training.world
    saved = time.monotonic()
    if recipe.non_finite == "skip" and not position.step:
        world.from_first(lambda: save(training))  # what it may go back to
    while not schedule.finished(position.samples):
        order = epoch_order(training.train, recipe, position.epoch)
        sizes = [len(part) for part in epoch_batches(order, recipe.batch_size)]
        every = max(1, len(sizes) // LINES_PER_EPOCH)
        training.model.train()
        keep_frozen_statistics(training.model, recipe)
        started, images, waited = time.monotonic(), 0, 0.0
        place = Place(position.epoch, position.batch, world.rank, world.size, recipe.virtual_workers)
        for batch, wait in _timed(shared_batches(
                training.train, recipe, training.preprocess, place, training.colour, resident=training.resident)):
            waited += wait
            rate = schedule.rate(position.samples)
            set_rate(training.optimiser, rate)
            own = [world.rank] if world.rank else []
            hardware.seed(training.device, derived_seed(recipe.seed, "step", position.step, *own))  # dropout's masks
            later = deferred(training, every)
            sums = {} if position.step in position.left_out else gradients(training, batch)
            verdict = LEAVE if not sums else TAKE if later else judged(training, batch, sums)
            if verdict == AGAIN:
                break
            if verdict == TAKE:
                training.optimiser.step()
                if training.average:
                    training.average.update(training.model)
            before = training.progress
            position.samples += sizes[position.batch]
            position.batch += 1
            position.step += 1
            if verdict == TAKE:
                position.unread += int(sums["unread"])
                images += int(sums["samples"])
                if not later:
                    count(training, sums)
            ended = schedule.finished(position.samples)
            line = position.batch % every == 0 or position.batch == len(sizes) or ended
            validation = training.val is not None and (ended or schedule.validation_due(before, training.progress))
            if (line or validation) and not settled(training):
                break
            if line:
                error = write_line(training, rate)
                show(training, images / (time.monotonic() - started), error, options)
            if validation:
                aside = time.monotonic()
                _validate(training, options)
                training.model.train()
                keep_frozen_statistics(training.model, recipe)
                started += time.monotonic() - aside  # the rate and the share of waiting are the training's alone
                ended = schedule.finished(position.samples)
            if recipe.unfreeze_at and before < recipe.unfreeze_at <= training.progress:
                say(options, f"{len(unfreeze(training.model, recipe))} entries learn from now on")
                training.model.train()  # their batch normalisations too, as a resumed run has them
            stop, due = world.add(signals.received is not None, time.monotonic() - saved > recipe.checkpoint_seconds)
            if ended or stop or due:
                if not settled(training) or not sound(training):
                    break
                world.from_first(lambda: save(training))
                saved = time.monotonic()
            if ended or stop:
                write_speed(training, started, images, waited)
                return int(max(world.exchange(signals.received or 0)))
        else:
            position.epoch, position.batch = position.epoch + 1, 0
            write_speed(training, started, images, waited)
        position = training.position  # another one, where it went back
    return 0


def gradients(training: Training, batch: dict[str, Any]) -> dict[str, float]:
    """Sums the gradients of a global batch over micro-batches and processes.

    Returns what holds for the global batch: `loss` (summed), `errors`, `samples`, `unread` and the gradient's `norm`;
    `samples` and `unread` alone where the others are read later (pending.py).
    Each picture weighs the same, however the batch is divided. Where memory runs out on any process, on all the
    micro-batch is halved and the same batch begins again, from the same statistics. Where a number is not finite the
    statistics of batch normalisation are put back too; else those of the first process become everyone's.
    """
    if instead := own_gradients(training.recipe):
        return instead(training, batch)
    model, position, world = training.model, training.position, training.world
    buffers, parameters = list(model.buffers()), list(model.parameters())
    kept = [buffer.clone() for buffer in buffers]
    count = len(batch["label"])
    whole = pictures_of_all(training, batch)
    while True:
        training.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {"samples": count, "unread": len(batch["bad"]), "scarce": 0}
        counted, sizes = list[Tensor](), list[int]()  # on the device: read at once, when all has been asked of it
        scarcity: RuntimeError | None = None
        try:
            for part in torch.arange(count).tensor_split(math.ceil(count / position.micro_batch)) if count else ():
                micro = _to_device(training, batch, slice(int(part[0]), int(part[-1]) + 1))
                losses = passed(training, micro, len(part) / whole)
                loss = losses["loss"].detach()
                counted += [loss, losses["errors"].to(loss.dtype) if "errors" in losses else loss.new_zeros(())]
                sizes.append(len(part))
        except RuntimeError as error:
            if not hardware.memory_ran_out(error):
                raise
            scarcity, sums["scarce"] = error, 1
        sums = dict(zip(sums, world.add(*sums.values()), strict=True))
        if not sums["scarce"]:
            world.add_gradients(parameters)
            norm = clip_gradients(parameters, training.recipe.clip_norm)
            numbers = torch.stack([*counted, norm.to(counted[0])] if counted else [norm])
            if training.pending.kept is not None:
                training.pending.steps.append((numbers, sizes, sums))
                return sums
            sums |= totals(numbers.tolist(), sizes)
            sums["loss"], sums["errors"] = world.add(sums["loss"], sums["errors"])
            world.copy_from_first(buffers)
            if not all(math.isfinite(value) for value in sums.values()):
                put_back(buffers, kept)
            return sums
        put_back(buffers, kept)
        if position.micro_batch == 1:
            raise no_memory(training, batch["index"].tolist()) from scarcity
        position.micro_batch = math.ceil(min(position.micro_batch, max(world.exchange(count))) / 2)
        note(training, f"memory ran out: from step {position.step} on micro-batches of {position.micro_batch}; "
                       "batch normalisation takes its statistics over those")


def _to_device(training: Training, batch: dict[str, Any], part: slice) -> dict[str, Tensor]:
    moved = {name: value[part].to(training.device, non_blocking=True)
             for name, value in batch.items() if isinstance(value, Tensor)}
    moved["image"] = moved["image"].contiguous(memory_format=hardware.memory_format(training.recipe))
    return moved


def _timed(batches: Iterator[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], float]]:
    """Each batch with the seconds that were waited for it."""
    while True:
        started = time.monotonic()
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch, time.monotonic() - started


def _validate(training: Training, options: RunOptions) -> None:
    """Evaluates on the validation split, tells the schedule, and keeps the best weights where the recipe asks."""
    assert training.val is not None
    recipe, position = training.recipe, training.position
    model, unread = training.evaluated(), list[str]()
    shown = plain_batches(training.val, training.preprocess, validation_batch(training))
    batches = (_to_device(training, batch, slice(None)) for batch in readable(shown, len(training.val), unread))
    with hardware.autocast(recipe):  # by the first process alone: the schedules must see equal numbers
        found = training.world.from_first(lambda: training.task.evaluate(model, batches))
    training.metrics.write({
        "kind": "val", "step": position.step, "samples": position.samples,
        "epoch": position.samples / len(training.train), "loss": found["loss"], "error": found["error"],
        "macro_f1": found["macro_f1"], "learning_rate": training.schedule.rate(position.samples),
        **({"unreadable": len(unread)} if unread else {}),
    })
    if unread:
        note(training, f"not validated on, no longer readable: {amount(len(unread), 'pictures')}")
    training.schedule.observe_validation_error(position.samples, found["error"])
    score = 1 - found["macro_f1"] if training.imbalanced else found["error"]
    if position.best_score is None or score < position.best_score:
        position.best_score, position.best_step = score, position.step
        if recipe.select == "best":
            training.best = {name: tensor.detach().clone() for name, tensor in training.current().items()}
    say(options, f"{training.progress:8.2f} {recipe.unit}  step {position.step}  "
                  f"validation error {100 * found['error']:.2f} %  loss {found['loss']:.4f}")
    if not math.isfinite(found["loss"]):
        note(training, f"step {position.step}: the validation loss is not a finite number, so the weights are ruined: "
                       "start anew with a lower learning_rate")
    if training.world.first and (doubt := look_at_running_averages(training)):
        say(options, doubt)


def _write_model(training: Training) -> None:
    """Writes the selected weights as the run's model file. It holds no time, so equal runs write equal files."""
    recipe, position = training.recipe, training.position
    training.model.load_state_dict(training.selected())
    if position.unread:
        note(training, f"not trained on, no longer readable: {amount(position.unread, 'pictures')} in all epochs")
    best = recipe.select == "best" and bool(training.best)
    measure = "macro-F1" if training.imbalanced else "error"
    record = rundir.read_run(training.run)
    provenance = {
        "selected": f"best validation {measure}, step {position.best_step}" if best else f"last step, {position.step}",
        "data": {key: record["data"][key] for key in ("name", "fingerprint")},
        "versions": record["versions"],
        "notes": training.notes,
    }
    modelfile.write(training.run / modelfile.NAME, modelfile.ModelFile(
        training.model, training.train.class_names, training.preprocess, recipe, [], provenance))
