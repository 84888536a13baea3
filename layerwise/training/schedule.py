"""The learning rate as a function of the samples seen, so that no split of a batch over ranks, micro-batches or
accumulation can change it.

An iteration is one optimiser step on `batch_size` samples (the last one of an epoch may be smaller). Times of the
recipe are converted once: an epoch is `samples_per_epoch` samples, the k-th iteration ends where the loader's k-th
batch ends, and every time is moved up to the end of a step. Rates are stated at `reference_batch` and scaled by
batch_size / reference_batch; where a whole epoch is smaller than a batch, the batch is the epoch.
"""

from __future__ import annotations

import bisect
import math
from typing import Any

from layerwise.errors import InputError
from layerwise.recipe import Recipe

# Steps over which the training error is averaged before it may end the warm-up. The paper (He et al. 2015, section
# 4.2, "until the training error is below 80%") gives no window; one batch of 128 alone has a deviation of 3.5 %.
ERROR_WINDOW = 20


class Schedule:
    """The learning rate of a run: constant, steps, plateau, cosine or one-cycle, after a warm-up.

    `samples_per_epoch` counts samples, `batches_per_epoch` optimiser steps.

    - steps: times `decay_factor` from each milestone on.
    - plateau: times `decay_factor` once `plateau_patience` has passed without the validation error falling by
      `plateau_threshold`; after `plateau_drops` drops the next plateau ends the training (He et al. 2015, section 3.4;
      Krizhevsky et al. 2012, section 5).
    - cosine: from the end of the warm-up to 0 at the end: rate/2 (1 + cos(pi t)).
    - one-cycle: linear rise over `warmup_length`, then linear fall to 0 at the end.
    - warm-up by steps, and the rise of one-cycle: after the samples s of a step, rate * s / warmup_length (from
      `warmup_rate` up): the first step is not lost, and the last one of the rise has the full rate.
    - warm-up by training error: `warmup_rate` until the mean error of the last 20 steps is below `warmup_error`; its
      steps count in the milestones and in the duration.
    """

    def __init__(self, recipe: Recipe, samples_per_epoch: int, batches_per_epoch: int) -> None:
        assert samples_per_epoch > 0, "an epoch without samples"
        assert 1 <= batches_per_epoch <= math.ceil(samples_per_epoch / recipe.batch_size), "batches of another size"
        self.recipe = recipe
        self.samples_per_epoch = samples_per_epoch
        self.batches_per_epoch = batches_per_epoch
        self.batch = min(recipe.batch_size, samples_per_epoch)
        self.scale = self.batch / recipe.reference_batch
        self.total_samples = self.samples_at(recipe.duration)
        self._milestones = [self.samples_at(time) for time in recipe.milestones]
        rises = recipe.warmup == "steps" or recipe.schedule == "one-cycle"
        self._rise = self.samples_at(recipe.warmup_length) if rises else 0
        self._warm = recipe.warmup != "training-error"
        self._recent: list[float] = []
        self._best: float | None = None
        self._best_step = 0
        self._drops = 0
        self._ended = False

    def samples_at(self, time: float) -> int:
        """Samples seen at the end of the first step that ends at `time` (in the recipe's unit) or later."""
        if self.recipe.unit == "iterations":
            epochs, batches = divmod(math.ceil(time), self.batches_per_epoch)
        else:
            # A product such as 0.1 * 3 * 10 may lie a rounding error above a whole number of samples.
            samples = math.ceil(time * self.samples_per_epoch - 1e-6)
            epochs, rest = divmod(samples, self.samples_per_epoch)
            batches = math.ceil(rest / self.batch)
            if batches >= self.batches_per_epoch:
                epochs, batches = epochs + 1, 0
        return epochs * self.samples_per_epoch + batches * self.batch

    def steps_at(self, samples_seen: int) -> int:
        """Optimiser steps done when `samples_seen` samples were seen."""
        epochs, rest = divmod(samples_seen, self.samples_per_epoch)
        return epochs * self.batches_per_epoch + math.ceil(rest / self.batch)

    def rate(self, samples_seen: int) -> float:
        """The learning rate of the step that starts at `samples_seen`, scaled to the batch size."""
        recipe = self.recipe
        if not self._warm:
            return recipe.warmup_rate * self.scale
        peak = recipe.learning_rate
        if samples_seen < self._rise:
            risen = min(1.0, (samples_seen + self.batch) / self._rise)
            return (recipe.warmup_rate + (peak - recipe.warmup_rate) * risen) * self.scale
        left = self._left(samples_seen)
        if recipe.schedule == "steps":
            peak *= recipe.decay_factor ** bisect.bisect_right(self._milestones, samples_seen)
        elif recipe.schedule == "plateau":
            peak *= recipe.decay_factor**self._drops
        elif recipe.schedule == "cosine":
            peak *= 0.5 * (1 - math.cos(math.pi * left))
        elif recipe.schedule == "one-cycle":
            peak *= left
        return peak * self.scale

    def _left(self, samples_seen: int) -> float:
        """The part, 1 to 0, that is left of the way from the end of the rise to the end of the training."""
        length = max(1, self.total_samples - self._rise)
        return min(1.0, max(0.0, (self.total_samples - samples_seen) / length))

    def observe_training_error(self, samples_seen: int, error: float) -> None:
        """The error (0 to 1) of the step that ended at `samples_seen`; may end the warm-up by training error."""
        if self._warm:
            return
        self._recent = [*self._recent, float(error)][-ERROR_WINDOW:]
        if len(self._recent) == ERROR_WINDOW and sum(self._recent) / ERROR_WINDOW < self.recipe.warmup_error:
            self._warm, self._recent = True, []

    def observe_validation_error(self, samples_seen: int, error: float) -> None:
        """The validation error (0 to 1) at `samples_seen`; may drop the rate of schedule=plateau or end the run."""
        if self.recipe.schedule != "plateau":
            return
        step = self.steps_at(samples_seen)
        if math.isfinite(error) and (self._best is None or error < self._best - self.recipe.plateau_threshold):
            self._best, self._best_step = float(error), step
            return
        length = 1 if self.recipe.unit == "iterations" else self.batches_per_epoch
        # Evaluations lie at ends of steps: less than one step is rounding, not patience.
        if step - self._best_step > self.recipe.plateau_patience * length - 1:
            self._best_step = step
            if self._drops < self.recipe.plateau_drops:
                self._drops += 1
            else:
                self._ended = True

    def finished(self, samples_seen: int) -> bool:
        """Whether the training is over when `samples_seen` samples were seen."""
        return self._ended or samples_seen >= self.total_samples

    def validation_due(self, before: float, now: float) -> bool:
        """Whether a multiple of `evaluate_every` was reached on the way between two times in the recipe's unit."""
        # A quotient such as 0.3 / 0.1 may lie a rounding error below a whole number.
        last, reached = (math.floor(time / self.recipe.evaluate_every + 1e-9) for time in (before, now))
        return reached > last

    def state(self) -> dict[str, Any]:
        """What the schedule has seen, as JSON; `restore` continues from it exactly."""
        return {
            "warm": self._warm,
            "recent": list(self._recent),
            "best": self._best,
            "best_step": self._best_step,
            "drops": self._drops,
            "ended": self._ended,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`. Raises InputError where it has other entries than `state` gives."""
        if state.keys() != self.state().keys():
            raise InputError(
                f"schedule state: has {', '.join(sorted(state)) or 'nothing'}",
                f"Expected {', '.join(sorted(self.state()))}: without all of them the learning rate would differ.",
                "Resume from a checkpoint that this version of Layerwise wrote.",
            )
        self._warm, self._recent = bool(state["warm"]), [float(error) for error in state["recent"]]
        self._best, self._best_step = state["best"], int(state["best_step"])
        self._drops, self._ended = int(state["drops"]), bool(state["ended"])
