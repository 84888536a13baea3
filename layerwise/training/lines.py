"""What the loop tells while it goes: lines of the run's record, its speed, and the line on the screen."""

from __future__ import annotations

import math
import time

from layerwise import console
from layerwise.training.preparation import RunOptions
from layerwise.training.state import Training, note


def write_line(training: Training, rate: float) -> float | None:
    """Writes and returns the training error since the line before; with mixed pictures it is undefined."""
    position = training.position
    count = max(1, position.window_samples)
    error = None if training.recipe.mixup > 0 else position.window_errors / count
    loss = position.window_loss / count
    training.metrics.write({
        "kind": "train", "step": position.step, "samples": position.samples,
        "epoch": position.samples / len(training.train), "loss": loss, "error": error, "learning_rate": rate,
    })
    chance = math.log(len(training.train.class_names))
    if position.samples > len(training.train) and abs(loss - chance) < 0.002 * chance:
        note(training, f"the loss stays at {loss:.3f}, that of guessing: look at learning_rate and at the labels")
    position.window_loss, position.window_errors, position.window_samples = 0.0, 0, 0
    return error


def write_speed(training: Training, started: float, images: int, waited: float) -> None:
    """What an epoch took, or its last part, without validation; `waited` are the seconds without data."""
    seconds = max(time.monotonic() - started, 1e-9)
    training.speed.write({"step": training.position.step, "seconds": round(seconds, 3),
                          "images_per_second": round(images / seconds, 1), "data_wait": round(waited / seconds, 4)})


def show(training: Training, speed: float, error: float | None, options: RunOptions) -> None:
    """Shows on the screen how far the training is, its error and speed, and the time that is left."""
    left = (training.schedule.total_samples - training.position.samples) / max(speed, 1e-9)
    if not options.quiet:
        console.Progress.line(f"{training.progress:.2f} of {training.recipe.duration:g} {training.recipe.unit}  "
                              f"{'' if error is None else f'training error {100 * error:.2f} %  '}"
                              f"{speed:.0f} images/s  {console.duration(left)} left")
