"""What `layerwise watch` shows beside the report: the layers' health and answers to held-out pictures, while it trains.

Both are of the newest checkpoint and computed here, once for each, so that nothing is added to the training: it saves a
checkpoint each `checkpoint_seconds` of the recipe. The health at earlier checkpoints is remembered while one watches.
"""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

from markupsafe import Markup

from layerwise import checkpoint, models, rundir
from layerwise.data.place import placed
from layerwise.data.source import Samples
from layerwise.errors import InputError, LayerwiseError
from layerwise.explain.signal_health import Health, fresh, signal_health
from layerwise.explain.subject import Subject
from layerwise.explain.view import Gallery, View
from layerwise.explain.views.predictions import panel
from layerwise.explain.views.signal_health import PICTURES, from_seed, told
from layerwise.jobs.assessment import own_split
from layerwise.modelfile import ModelFile
from layerwise.randomness import derived_seed
from layerwise.recipe import Recipe
from layerwise.report.explain import section_of
from layerwise.training.state import read_input

PANELS = 16
FIRST, LAST = 2, 3  # moments of the training whose health is drawn
WORDS = "layer health and sample predictions"


class Live:
    """The layer health and sample predictions of the newest checkpoint of `run`."""

    def __init__(self, run: Path, data_dir: Path | None = None, offline: bool = False) -> None:
        self._run, self._data_dir, self._offline = run, data_dir, offline
        self._lock = threading.Lock()  # pages are asked for in threads
        self._seen, self._found = "", (Markup(""), f"{WORDS}: they come with the first checkpoint")
        self._held: Samples | None = None
        self._moments: dict[str, tuple[Health, ...]] = {}

    def look(self) -> tuple[Markup, str]:
        """The page's sections, and why there are none; one of the two is empty. Computed once for each checkpoint."""
        with self._lock:
            newest = [path.name for path in checkpoint.generations(self._run / rundir.CHECKPOINTS)][-1:]
            if newest and newest[0] != self._seen:
                try:
                    self._found = self._sections(), ""
                except LayerwiseError as error:
                    self._found = Markup(""), f"{WORDS}: {error.what} {error.why}".strip()
                except (KeyError, TypeError, RuntimeError):  # of another version, or tampered with
                    self._found = Markup(""), f"{WORDS}: {newest[0]} does not fit the run's records"
                self._seen = newest[0]
            return self._found

    def _sections(self) -> Markup:
        """Raises InputError where no checkpoint is sound or the pictures can't be opened."""
        generation, problems = checkpoint.newest(self._run / rundir.CHECKPOINTS)
        if generation is None:
            raise InputError(f"no sound checkpoint: {'; '.join(problems)}")
        record, recipe = rundir.read_run(self._run), rundir.read_recipe(self._run)
        names, (preprocess, _) = tuple(record["data"]["class_names"]), read_input(self._run)
        network = models.build(recipe.network, num_classes=len(names), in_channels=preprocess.channels)
        kind = "average/" if recipe.ema > 0 else "model/"
        network.load_state_dict({name.removeprefix(kind): tensor for name, tensor in generation.tensors.items()
                                 if name.startswith(kind)})
        held = self._held = self._held or self._opened(placed(recipe, record))
        subject = Subject(ModelFile(network.eval(), names, preprocess, recipe), lambda on: held, self._run)
        when = f"after {generation.state['position']['samples']:,} pictures"
        return Markup("").join(section_of(view) for view in (self._health(subject, recipe, when),
                                                             _answers(subject, when)))

    def _opened(self, recipe: Recipe) -> Samples:
        """Pictures held out for validation; where there are none, the test's, and else those that are trained on."""
        try:
            return own_split(recipe, "val", self._data_dir, self._offline)
        except InputError:
            return own_split(recipe, "", self._data_dir, self._offline)

    def _health(self, subject: Subject, recipe: Recipe, when: str) -> View:
        samples = subject.split("", PICTURES)
        images, labels = subject.at_once(samples)
        if not self._moments and from_seed(recipe):
            first = fresh(subject.file.model, derived_seed(recipe.seed, "weights"))
            self._moments["start"] = signal_health(first, images, labels)
        self._moments[when] = signal_health(subject.file.model, images, labels)
        for name in list(self._moments)[FIRST:-LAST]:
            del self._moments[name]
        return dataclasses.replace(told(self._moments, f"one batch of {len(images)} {samples.name} pictures"),
                                   title="Layer health")


def _answers(subject: Subject, when: str) -> View:
    """The same held-out pictures each time, with their five most probable labels."""
    found = subject.answers(subject.split("", PANELS))
    right = int((found.predicted == found.samples.labels).sum())
    tiles = tuple(panel(subject, found, place) for place in range(len(found.samples)))
    return View(
        "predictions", "Sample predictions",
        f"What the network says of some pictures of the {found.samples.name} split, always the same ones, {when}.",
        f"How good it is: {right} of these {len(tiles)} are right, and the curves are of all.",
        "Krizhevsky, Sutskever, Hinton 2012, figure 4, left", (
            Gallery("The five most probable labels of each; the true one's bar stands out.", tiles, "large"),))
