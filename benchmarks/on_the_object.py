"""Whether maps of a real ImageNet network fall on the object: Grad-CAM, occlusion and deconvolution on photographs.

    python benchmarks/on_the_object.py WEIGHTS PHOTOGRAPHS [--as NAME] [--save FILE]

WEIGHTS and PHOTOGRAPHS are those of benchmarks/photographs.py, which says where they are from. Of the 20 photographs
11 show objects that fill less than about half of the picture and that boxes can hold; BOXES were drawn by hand on the
network's input (224x224) before any map was computed. Each map explains the photograph's own label:

- Grad-CAM of the last map of `features`;
- occlusion by a square of a sixth of the side, in steps of half of it, under which the picture is blurred by a Gaussian
  whose deviation is half of the square; only where the probability falls. A grey square, as the method was published,
  lay denser on the object in 6 of the 11, and the blur was chosen after that; the run measures both;
- the deconvolution of the label's unit in the last layer, absolute values added over the colours. This network has no
  max pooling, so it is guided backpropagation (explain/deconvolution.py). That was chosen after the first measurement,
  of rectification alone, which is the same for every picture: it lay on the object no more than on another's boxes.

Of each map it prints the share of its mass in the boxes over the boxes' share of the picture (lift; 1: no better than
chance), and whether its largest value is in a box. A blob in the middle of the picture, which knows nothing of it, each
map on another photograph's boxes, and the maps of the network with all its weights redrawn are the controls. Then the
sanity check: the rank correlation of the maps with those of the redrawn network, on the first photograph.

Exit status 4 where a method has fewer than nine tenths of its maps denser inside the boxes than outside.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerwise import hardware
from layerwise.allocator import kept_buffers
from layerwise.explain.attribution import grad_cam
from layerwise.explain.deconvolution import deconvolution, rule_for
from layerwise.explain.occlusion import blurred, occlusion
from layerwise.explain.order import executed
from layerwise.explain.sanity import sanity
from layerwise.explain.stages import stages
from layerwise.importing.importer import import_weights
from layerwise.serve.predictor import Predictor

LIMIT = 0.9
SIDE = 224
GREY = "occlusion, grey square"  # printed, without a limit
Map = NDArray[np.float64]
Box = tuple[int, int, int, int]  # top, left, bottom, right

BOXES: dict[str, tuple[Box, ...]] = {
    "imagenet_00_243": ((15, 42, 215, 138),),  # bull mastiff
    "imagenet_02_438": ((110, 60, 224, 157), (89, 170, 224, 224)),  # beaker
    "imagenet_05_853": ((15, 0, 75, 224),),  # thatch
    "imagenet_06_609": ((50, 38, 150, 195),),  # jeep
    "imagenet_07_609": ((60, 0, 178, 224),),  # jeep
    "imagenet_08_915": ((147, 0, 200, 92), (80, 112, 205, 224)),  # yurt
    "imagenet_14_129": ((65, 70, 133, 113), (75, 200, 124, 224)),  # spoonbill
    "imagenet_15_99": ((26, 0, 168, 72), (14, 108, 110, 160), (78, 88, 204, 154)),  # goose
    "imagenet_17_22": ((44, 0, 160, 224),),  # bald eagle
    "imagenet_18_317": ((24, 50, 190, 130),),  # leafhopper
    "imagenet_19_305": ((50, 50, 172, 198),),  # dung beetle
}


def inside(boxes: Sequence[Box]) -> NDArray[np.bool_]:
    """The pixels in the boxes, (SIDE, SIDE)."""
    found = np.zeros((SIDE, SIDE), bool)
    for top, left, bottom, right in boxes:
        found[top:bottom, left:right] = True
    return found


def lift(found: Map, boxes: Sequence[Box]) -> float:
    """Of a map that is not below 0: the share of its mass in the boxes, over their share of the picture."""
    where, mass = inside(boxes), float(found.sum())
    return float(found[where].sum()) / mass / float(where.mean()) if mass else 0.0


def hits(found: Map, boxes: Sequence[Box]) -> bool:
    """Whether the largest value is in a box."""
    return bool(inside(boxes).flat[found.argmax()])


def methods(label: int, image: Tensor) -> dict[str, Callable[[nn.Module], Map]]:
    """The maps of `image` (1, C, H, W) for a label, as functions of the network."""
    def cam(model: nn.Module) -> Map:
        return grad_cam(model, image, [[label]], stages(model, image)[-1])[0, 0].astype(np.float64)

    def covered(model: nn.Module, cover: float | Tensor) -> Map:
        drops = occlusion(model, image, [[label]], SIDE // 6, SIDE // 12, cover).drops[0, 0]
        return drops.clip(min=0).astype(np.float64)

    def projected(model: nn.Module) -> Map:
        unit = deconvolution(model, image, executed(model, image)[-1], [label], rule=rule_for(model))
        return np.abs(unit.projections[0]).sum(0).astype(np.float64)

    return {"Grad-CAM": cam, "occlusion": partial(covered, cover=blurred(image, SIDE / 12)),
            GREY: partial(covered, cover=0.0), "deconvolution": projected}


def noted(compute: Callable[[nn.Module], Map], seen: list[Map], network: nn.Module) -> Map:
    """The map of one picture as those of a batch; it is added to `seen`."""
    seen.append(compute(network))
    return seen[-1][None]


def middle() -> Map:
    """A blob in the middle, its deviation a quarter of the side."""
    along = np.exp(-(((np.arange(SIDE) + 0.5) / SIDE - 0.5) ** 2) / (2 * 0.25**2))
    return np.outer(along, along)


def table(maps: dict[str, dict[str, Map]], boxes: dict[str, tuple[Box, ...]]) -> dict[str, dict[str, float]]:
    """Of each method the mean lift, the lift on the next photograph's boxes, the shares on the object and hit.

    `maps`: by method, then by photograph.
    """
    rows = {}
    for method, found in maps.items():
        names = list(found)
        lifts = [lift(found[name], boxes[name]) for name in names]
        others = [lift(found[name], boxes[names[(place + 1) % len(names)]]) for place, name in enumerate(names)]
        rows[method] = {
            "lift": float(np.mean(lifts)), "lowest": min(lifts), "elsewhere": float(np.mean(others)),
            "on the object": float(np.mean([one > 1 for one in lifts])),
            "hits": float(np.mean([hits(found[name], boxes[name]) for name in names])),
        }
    return rows


def measure(weights: Path, folder: Path, name: str) -> dict[str, Any]:
    """Imports, computes the maps and their table."""
    imported = import_weights(weights, name).model_file()
    predictor, preprocess = Predictor(imported), imported.preprocess
    maps: dict[str, dict[str, Map]] = {"Grad-CAM": {}, "occlusion": {}, GREY: {}, "deconvolution": {}, "middle": {}}
    redrawn: dict[str, dict[str, Map]] = {}
    checks: dict[str, float] = {}
    for photograph in BOXES:
        label = int(photograph.rpartition("_")[2])
        image = preprocess.normalise(torch.from_numpy(predictor.place(folder / f"{photograph}.jpg"))[None])
        for method, compute in methods(label, image).items():
            if method == GREY:
                maps[method][photograph] = compute(imported.model)
                continue
            seen: list[Map] = []
            rows = sanity(imported.model, image, partial(noted, compute, seen), most=1)
            checks.setdefault(method, rows[-1].correlation)
            maps[method][photograph] = seen[0]
            redrawn.setdefault(f"{method}, weights redrawn", {})[photograph] = seen[-1]
        maps["middle"][photograph] = middle()
        lifts = [f"{method} {lift(found[photograph], BOXES[photograph]):.2f}" for method, found in maps.items()]
        print(f"{photograph}: {', '.join(lifts)}", flush=True)
    return {"benchmark": "on the object", "network": name, "photographs": len(BOXES), "limit": f"{LIMIT:.0%}",
            "methods": table(maps | redrawn, BOXES), "redrawn": checks, "versions": hardware.versions()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("weights", type=Path, help="a weight file")
    parser.add_argument("photographs", type=Path, help="the folder of photographs")
    parser.add_argument("--as", dest="name", default="efficientnet_lite0", help="our network that the weights are of")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    options = parser.parse_args(arguments)
    absent = [name for name in BOXES if not (options.photographs / f"{name}.jpg").is_file()]
    if absent:
        sys.exit(f"{options.photographs}: no {', '.join(absent)}")
    with kept_buffers():  # without it, two thirds of the time are the kernel's
        found = measure(options.weights, options.photographs, options.name)
    for method, row in found["methods"].items():
        print(f"{method}: {', '.join(f'{what} {value:.2f}' for what, value in row.items())}"
              + (f"; redrawn {found['redrawn'][method]:.2f}" if method in found["redrawn"] else ""))
    if options.save is not None:
        options.save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0 if all(found["methods"][method]["on the object"] >= LIMIT for method in found["redrawn"]) else 4


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
