"""View: pictures reconstructed from a layer's code alone, layer by layer (Mahendran and Vedaldi, figure 6)."""

from __future__ import annotations

from layerwise.explain.inversion import inversion
from layerwise.explain.pictures import from_input, uri
from layerwise.explain.stages import stages
from layerwise.explain.subject import Subject, drawn
from layerwise.explain.view import Strips, Table, Tile, View
from layerwise.explain.views.activations import even

PICTURES, LAYERS, STEPS, LEAST = 3, 5, 150, 60
FEW = 1, 3  # pictures and layers where the steps would be too few for more
BUDGET = 150_000_000_000  # multiply-adds of all steps together
SIDE = 112


def view(subject: Subject) -> View:
    """Up to three pictures, each beside what can be made again of it from the codes of stages at even steps."""
    model, preprocess = subject.file.model, subject.file.preprocess
    enough = 3 * subject.multiply_adds * PICTURES * LAYERS * LEAST <= BUDGET
    pictures, most = (PICTURES, LAYERS) if enough else FEW
    samples = subject.asked if subject.asked is not None else subject.split("", 200)
    chosen = samples.subset(range(pictures), "first") if subject.asked is not None and len(
        samples) > pictures else drawn(samples, pictures, 3)
    images, _ = subject.at_once(chosen)
    layers = even(stages(model, images[:1]), most)
    cost = 3 * subject.multiply_adds * len(images) * len(layers)
    steps = int(max(LEAST, min(STEPS, BUDGET // cost)))
    found = []
    for number, layer in enumerate(layers):
        subject.progress(number, len(layers))
        found.append(inversion(model, images, layer, steps=steps))
    subject.progress(len(layers), len(layers))
    names = [layer.removeprefix("features.") for layer in layers]
    rows = tuple((Tile(uri(from_input(images[row].numpy(), preprocess), SIDE)),
                  *(Tile(uri(from_input(one.pictures[row], preprocess), SIDE)) for one in found))
                 for row in range(len(images)))  # fmt: skip
    return View(
        "inversion", "Inversion",
        "What a layer still knows of a picture: a picture is sought whose code at the layer is the same. Early layers "
        "give the picture back; later ones keep what matters to the answer and forget place, colour and detail.",
        "That what is missing is unknown to the layer: the search starts from noise, prefers smooth pictures and may "
        "stop too soon. The remaining error says how well it went.",
        "Mahendran, Vedaldi 2015", (
            Strips("Left the picture, then what is reconstructed from each layer's code.", ("picture", *names),
                   (1,) * (1 + len(names)), rows),
            Table("Squared error of the code that is left, relative to the code (0: the same code).",
                  ("layer", "error"), tuple((name, round(float(one.errors.mean()), 4))
                                            for name, one in zip(names, found, strict=True)))),
        (f"{len(images)} of the pictures", f"{steps} steps of the search"
         + (": few for a network of this size, so that noise is left" if steps < STEPS else "")))  # fmt: skip
