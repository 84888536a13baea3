"""View: variances forward and gradient norms backward by layer, at the start of the training and along it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from layerwise import checkpoint
from layerwise.errors import InputError
from layerwise.explain.signal_health import Health, fresh, signal_health, spread
from layerwise.explain.subject import Subject
from layerwise.explain.view import Chart, Series, Table, View
from layerwise.models.network import Network
from layerwise.randomness import derived_seed
from layerwise.recipe import Recipe
from layerwise.rundir import CHECKPOINTS

PICTURES = 64
WEIGHTS = "model/"  # what a checkpoint calls the network's tensors


def view(subject: Subject) -> View:
    """The health of the network with its first weights, of each checkpoint that is kept, and of the finished one."""
    images, labels = subject.at_once(subject.split("train", PICTURES))
    return told({name: signal_health(network, images, labels) for name, network in _moments(subject)},
                f"one batch of {len(images)} training pictures")


def told(moments: dict[str, tuple[Health, ...]], pictures: str) -> View:
    """The view of the health at several moments by their names; `pictures` says on which it was measured."""
    series = {what: tuple(Series(name, tuple(float(place) for place in range(1, len(found) + 1)),
                                 tuple(getattr(one, what) for one in found)) for name, found in moments.items())
              for what in ("variance", "gradient", "relative")}
    rows = tuple((name, _short(min(one.variance for one in found)), _short(max(one.variance for one in found)),
                  _short(spread([one.gradient for one in found]))) for name, found in moments.items())
    return View(
        "signal-health", "Signal health",
        "Whether signals reach both ends: variances of the layers' responses on the way forward, norms of the "
        "gradients by their weights on the way back, with the first weights, at each checkpoint, and at the end. "
        "Values that fall or grow by factors from layer to layer are signals that vanish or explode.",
        "Whether training went well: healthy signals are needed, and not enough.",
        "He, Zhang, Ren, Sun 2015, section 4.1; Glorot, Bengio 2010", (
            Chart(f"Variance of each layer's response on {pictures}, in training mode.", "layer", "variance",
                  series["variance"], log=True),
            Chart("L2 norm of the loss's gradient by each layer's weights.", "layer", "gradient norm",
                  series["gradient"], log=True),
            Chart("The same over the norm of the weights themselves.", "layer", "gradient / weights",
                  series["relative"], log=True),
            Table("Extremes. The last column is the smallest gradient norm over the largest: near 0 where they vanish "
                  "or explode.", ("when", "smallest variance", "largest variance", "gradients"), rows)),
        (pictures,))


def _short(value: float) -> float:
    """Three digits, also of what has vanished."""
    return float(f"{value:.3g}")


def _moments(subject: Subject) -> Iterator[tuple[str, Network]]:
    """The network with the weights that its seed gives, with those of its kept checkpoints, and as it is."""
    model = subject.file.model
    if subject.file.recipe is not None and from_seed(subject.file.recipe):
        yield "start", fresh(model, derived_seed(subject.file.recipe.seed, "weights"))
    if subject.run is not None:
        for path in checkpoint.generations(subject.run / CHECKPOINTS):
            network = copy.deepcopy(model)
            try:
                tensors = checkpoint.read(path).tensors
                network.load_state_dict({name.removeprefix(WEIGHTS): tensor for name, tensor in tensors.items()
                                         if name.startswith(WEIGHTS)})
            except (InputError, RuntimeError):  # damaged, or of another network: the others are shown
                continue
            if any(not torch.equal(tensor, model.state_dict()[name]) for name, tensor in network.state_dict().items()):
                yield f"after {int(path.name.partition('-')[0]):,} pictures", network
    yield "end", model


def from_seed(recipe: Recipe) -> bool:
    """Whether the first weights are those that the seed gives alone."""
    return not recipe.start_from and not recipe.zero_init_last_scale and recipe.whiten != "first"
