"""E2: 20 training steps are those of a plain transcription, in float64.

The networks are written down here once more from the papers, as formulas over named tensors: convolutions, batch
normalisation, response normalisation, groups and softmax, and so are the update rules. Nothing of the package is used
on that side but the first weights. Logits, gradients and weights of every step are compared. Forward parity with
torchvision's and timm's own numbers is tests/test_import_parity.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from faults.goal import Control, Goal, Outcome
from layerwise.models import build
from layerwise.recipes.presets import preset
from layerwise.training.optimiser import build_optimiser, parameter_groups, set_rate

BAR = 1e-10
STEPS, PICTURES, RATE, DECAY, MOMENTUM = 20, 4, 0.02, 0.001, 0.9
Weights = Mapping[str, Tensor]
Forward = Callable[[Weights, Tensor], Tensor]


def normalised(maps: Tensor, weights: Weights, name: str) -> Tensor:
    """Batch normalisation (Ioffe, Szegedy 2015, algorithm 1) with the batch's biased variance."""
    mean = maps.mean((0, 2, 3), keepdim=True)
    variance = ((maps - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return ((maps - mean) / (variance + 1e-5).sqrt() * weights[f"{name}.weight"][:, None, None]
            + weights[f"{name}.bias"][:, None, None])


def resnet20(weights: Weights, images: Tensor) -> Tensor:
    """He et al. 2015, section 4.2: three stages of three blocks with option A."""
    maps = F.conv2d(images, weights["features.conv1.conv.weight"], padding=1)
    maps = normalised(maps, weights, "features.conv1.bn").clamp_min(0)
    for stage in (2, 3, 4):
        for block in (1, 2, 3):
            name = f"features.conv{stage}_x.conv{stage}_{block}.residual"
            stride = 2 if block == 1 and stage > 2 else 1
            inner = F.conv2d(maps, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = normalised(inner, weights, f"{name}.bn1").clamp_min(0)
            inner = normalised(F.conv2d(inner, weights[f"{name}.conv2.weight"], padding=1), weights, f"{name}.bn2")
            short = maps[:, :, ::stride, ::stride]
            new = inner.shape[1] - short.shape[1]
            short = torch.cat([short, short.new_zeros(len(short), new, *short.shape[2:])], 1)
            maps = (inner + short).clamp_min(0)
    return maps.mean((2, 3)) @ weights["head.fc.weight"].T + weights["head.fc.bias"]


def alexnet(weights: Weights, images: Tensor) -> Tensor:
    """Krizhevsky et al. 2012, section 3: groups as two convolutions, response normalisation as a sum (3.3)."""
    def convolved(maps: Tensor, layer: int, groups: int, stride: int = 1, padding: int = 0) -> Tensor:
        kernels, biases = weights[f"features.conv{layer}.weight"], weights[f"features.conv{layer}.bias"]
        parts = zip(maps.chunk(groups, 1), kernels.chunk(groups), biases.chunk(groups), strict=True)
        return torch.cat([F.conv2d(*part, stride=stride, padding=padding) for part in parts], 1).clamp_min(0)

    def responses(maps: Tensor) -> Tensor:
        squares = F.pad(maps**2, (0, 0, 0, 0, 2, 2))
        total = torch.stack([squares[:, first:first + maps.shape[1]] for first in range(5)]).sum(0)
        return maps / (2 + 1e-4 * total) ** 0.75

    maps = F.max_pool2d(responses(convolved(images, 1, 1, 4)), 3, 2)
    maps = F.max_pool2d(responses(convolved(maps, 2, 2, padding=2)), 3, 2)
    maps = convolved(convolved(convolved(maps, 3, 1, padding=1), 4, 2, padding=1), 5, 2, padding=1)
    vectors = F.max_pool2d(maps, 3, 2).flatten(1)
    for layer in (6, 7, 8):
        vectors = vectors @ weights[f"head.fc{layer}.weight"].T + weights[f"head.fc{layer}.bias"]
        vectors = vectors.clamp_min(0) if layer < 8 else vectors
    return vectors


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of -log softmax."""
    right = logits.gather(1, labels[:, None])[:, 0]
    return (logits.exp().sum(1).log() - right).mean()


def decay_of(name: str, weight: Tensor) -> float:
    """Weight decay is on kernels and matrices alone."""
    return DECAY if name.endswith("weight") and weight.dim() > 1 else 0.0


def sgd(state: dict[str, Tensor], weight: Tensor, slope: Tensor, step: int, decay: float) -> Tensor:
    """v <- mu v + g + decay w; w <- w - rate v."""
    state["v"] = MOMENTUM * state.get("v", torch.zeros_like(weight)) + slope + decay * weight
    return weight - RATE * state["v"]


def inside(state: dict[str, Tensor], weight: Tensor, slope: Tensor, step: int, decay: float) -> Tensor:
    """v <- mu v - rate decay w - rate g; w <- w + v (Krizhevsky et al. 2012, section 5)."""
    state["v"] = MOMENTUM * state.get("v", torch.zeros_like(weight)) - RATE * decay * weight - RATE * slope
    return weight + state["v"]


def adamw(state: dict[str, Tensor], weight: Tensor, slope: Tensor, step: int, decay: float) -> Tensor:
    """Loshchilov, Hutter 2019, algorithm 2, with beta2 = 0.999 and epsilon = 1e-8."""
    weight = weight - RATE * decay * weight
    state["m"] = MOMENTUM * state.get("m", torch.zeros_like(weight)) + (1 - MOMENTUM) * slope
    state["s"] = 0.999 * state.get("s", torch.zeros_like(weight)) + 0.001 * slope**2
    mean, square = state["m"] / (1 - MOMENTUM ** (step + 1)), state["s"] / (1 - 0.999 ** (step + 1))
    return weight - RATE * mean / (square.sqrt() + 1e-8)


NETWORKS: dict[str, tuple[Forward, int, dict[str, int]]] = {
    "resnet20": (resnet20, 8, {}), "alexnet": (alexnet, 67, {"map_side": 1, "hidden_features": 16})}
RULES = {"sgd": sgd, "inside": inside, "adamw": adamw}
TRIALS = [("resnet20", "sgd"), ("resnet20", "adamw"), ("alexnet", "inside"), ("resnet20", "inside")]


def far(network: str, rule: str, forward: Forward | None = None) -> float:
    """The largest relative difference of logits, gradients and weights in so many steps."""
    plain, side, arguments = NETWORKS[network]
    torch.manual_seed(1)
    ours = build(network, num_classes=4, **arguments).double().train()
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # its masks are a matter of seeds
    recipe = dataclasses.replace(
        preset("fast"), optimiser="adamw" if rule == "adamw" else "sgd", nesterov=False, momentum=MOMENTUM,
        velocity="inside" if rule == "inside" else "outside", weight_decay=DECAY, weight_decay_on="weights",
        beta2=0.999, epsilon=1e-8)
    optimiser = build_optimiser(parameter_groups(ours, recipe), recipe)
    set_rate(optimiser, RATE)
    theirs = {name: one.detach().clone() for name, one in ours.named_parameters()}
    states: dict[str, dict[str, Tensor]] = {name: {} for name in theirs}
    worst = 0.0
    for step in range(STEPS):
        images, labels = torch.randn(PICTURES, 3, side, side, dtype=torch.float64), torch.arange(PICTURES)
        answered = ours(images)
        optimiser.zero_grad()
        F.cross_entropy(answered, labels).backward()
        leaves = {name: one.requires_grad_() for name, one in theirs.items()}
        logits = (forward or plain)(leaves, images)
        slopes = dict(zip(leaves, torch.autograd.grad(loss_of(logits, labels), tuple(leaves.values())), strict=True))
        optimiser.step()
        with torch.no_grad():
            theirs = {name: RULES[rule](states[name], one.detach(), slopes[name], step, decay_of(name, one))
                      for name, one in leaves.items()}
        pairs = [(answered.detach(), logits.detach())]
        for name, one in ours.named_parameters():
            assert one.grad is not None
            pairs += [(one.grad, slopes[name]), (one.detach(), theirs[name])]
        largest = max(float(slope.norm()) for slope in slopes.values())
        worst = max(worst, *(float((a - b).norm()) / max(float(b.norm()), 1e-6 * largest) for a, b in pairs))
    return worst


def parity(trials: int, folder: Path) -> Outcome:
    """So many pairs of a network and a rule."""
    found = {f"{network}, {rule}": far(network, rule) for network, rule in TRIALS[:trials]}
    wrong = tuple(f"{name}: {value:.1e}" for name, value in found.items() if not value <= BAR)
    return Outcome(len(found), wrong, f"{STEPS} steps each; largest relative difference {max(found.values()):.0e}")


def larger(folder: Path) -> Outcome:
    """The transcription with logits that are larger by 1e-8."""
    def other(weights: Weights, images: Tensor) -> Tensor:
        return resnet20(weights, images) * (1 + 1e-8)

    value = far("resnet20", "sgd", other)
    return Outcome(1, (f"{value:.1e}",) if value > BAR else ())


GOALS = (Goal("E2", "20 training steps as a plain transcription", f"relative differences at most {BAR:g}", len(TRIALS),
              1, parity, (Control("logits larger by a hundred millionth", larger),)),)
