"""Section 1: a deeper network with the function of a shallower one, built by hand, beside the one that training finds.

    layerwise reproduce resnet/identity      # networks of figure 6; building and testing take a minute

The argument behind the whole paper: the layers of a shallower network are copied, those added are identities; so a
deeper network need have no higher training error, and plain ones that do have one were not solved. Each row builds the
deeper network from the trained shallower one and compares the two, picture by picture, in float64; then it tests them
and the deeper network that was trained.

Left open in the paper: how layers become identities. Here a plain block's kernels are 1 in the middle, with batch
normalisation at 1 and 0 (in evaluation mode), which is exact behind a ReLU; a residual block's last scale is 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict, every
from layerwise.experiments.looking import at_once, device, drawn, network, within_row
from layerwise.experiments.resnet.protocols import OPEN_CIFAR, cifar
from layerwise.explain.lesions import error_rate
from layerwise.layers.identity import deepen, plain_identity, zero_branch
from layerwise.models import build

TITLE = "ResNet, section 1: a deeper network of equal function by construction"
PICTURES = {"smoke": 8, "small": 2000, "paper": 0}  # of the training and of the test pictures each; 0: all
COMPARED = 64  # pictures whose logits are compared in float64
EXACT = 1e-12  # largest difference of logits over the largest logit: rounding in float64
COLUMNS = ("difference", "shallow_error", "built_error", "trained_error", "shallow_training_error",
           "built_training_error", "trained_training_error")


def zero_residual(block: nn.Module) -> None:
    """Makes a residual block the identity."""
    zero_branch(block.get_submodule("residual"))


def measure(to_identity: Callable[[nn.Module], None], subject: Subject) -> Numbers:
    """Errors of the shallow, the built and the trained deep network, and how far logits of the first two differ."""
    shallow, trained = network(subject, 0), network(subject, 1)
    arguments = dict(trained.architecture["arguments"])
    built = build(trained.architecture["name"], arguments.pop("num_classes"), arguments.pop("in_channels"), **arguments)
    built = built.to(device()).double().eval()
    exact = copy.deepcopy(shallow).double()
    deepen(exact, built, to_identity)
    images, _ = at_once(subject, drawn(subject.samples("test"), COMPARED))
    with torch.no_grad():
        one, other = exact(images.double()), built(images.double())
    numbers: dict[str, Value] = {"difference": float((one - other).abs().max() / one.abs().max())}
    built.float()
    for split, name in (("test", "error"), ("train", "training_error")):
        images, labels = at_once(subject, drawn(subject.samples(split), PICTURES[subject.scale]))
        for who, model in (("shallow", shallow), ("built", built), ("trained", trained)):
            numbers[f"{who}_{name}"] = round(error_rate(model, images, labels), 4)
    return numbers


def _pair(shallow: str, deep: str, to_identity: Callable[[nn.Module], None]) -> Row:
    return Row((cifar(shallow), cifar(deep)), partial(measure, to_identity),
               differs=(*OPEN_CIFAR, "training errors are those of whole training pictures in evaluation mode"))


ROWS = {
    "plain20_to_plain56": _pair("plain20", "plain56", plain_identity),
    "resnet20_to_resnet56": _pair("resnet20", "resnet56", zero_residual),
}
PAPER: dict[str, dict[str, Value]] = {}
DIFFERS = {"small": (f"errors are of {PICTURES['small']:,} training and as many test pictures; at the paper's scale of "
                     "all",)}


def equal_function(row: str) -> Callable[[Results], Verdict]:
    """Judges whether the built network gives the shallow one's logits to the rounding of float64."""
    def judge(results: Results) -> Verdict:
        differences = results.numbers(row, "difference")
        if not differences:
            return Verdict("not measured", f"no result of {row}")
        told = f"{row}: largest difference of logits {max(differences):.1e} of the largest logit, asked {EXACT:g}"
        return Verdict("holds" if max(differences) <= EXACT else "fails", told)

    return judge


CLAIMS = {
    "construction": Claim(
        "The deeper network contains the shallower one's function: added identity layers give the same answers "
        "(sections 1 and 3.1).",
        every(*map(equal_function, ROWS)),
    ),
    "solvers-miss-it": Claim(
        "Training finds no solution as good as the one built, in the training error of a plain network (section 1).",
        within_row("plain20_to_plain56", "built_training_error", "trained_training_error"),
    ),
}
