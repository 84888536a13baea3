"""Each family learns: 200 steps on scikit-learn's digits with a network of the family, scaled to the input.

The digits are enlarged to the smallest picture that the network takes. The budget is the same for all, 200 steps; the
batch is as large as the time allows, and the rule is Adam's or momentum's, whichever the paper's start of the weights
suits. The loss of the last 20 steps must be below 1.4, where guessing gives ln 10 = 2.303.

A run of the tests takes the networks marked quick; all of them take half an hour on two cores, and a trial may be
longer than the limit that the project sets for a test:

    LAYERWISE_ALL_FAMILIES=1 python -m pytest tests/test_families_learn.py -o faulthandler_timeout=3600
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from layerwise.layers.initialise import he_normal
from layerwise.models import alexnet, build, preact_resnet, zfnet
from layerwise.models.densenet import DenseNetCifar, _bc
from layerwise.models.network import Network
from layerwise.models.vgg import VGG

STEPS, LAST, BELOW = 200, 20, 1.4


@dataclass(frozen=True)
class Trial:
    """A network of a family, the side of its pictures, the batch, the learning rate (Adam's, or SGD's if momentum)."""

    make: Callable[[], Network]
    side: int
    batch: int = 16
    rate: float = 1e-3
    momentum: float = 0.0
    quick: bool = True


def small(name: str, **arguments: float) -> Callable[[], Network]:
    return lambda: build(name, num_classes=10, in_channels=1, **arguments)


def after_he(make: Callable[[], Network]) -> Callable[[], Network]:
    """The papers' fixed deviations (0.01, 0.05) suit thousands of inputs; with these few the signal would die out."""
    def restarted() -> Network:
        network = make()
        he_normal(network)
        return network

    return restarted


def narrow_alexnet() -> Network:
    design = alexnet.Design((24, 64, 96, 96, 64), 2)
    return alexnet.AlexNet(design, 10, 1, dropout=0.0, map_side=1, hidden_features=128)


def narrow_zfnet() -> Network:
    return zfnet.ZFNet(zfnet.Design((96, 96, 64)), 10, 1, dropout=0.0, map_side=1, hidden_features=128)


def narrow_vgg() -> Network:
    return VGG(((3,),) * 5, num_classes=10, in_channels=1, dropout=0.0, map_side=1, hidden_features=128)


TRIALS = {
    "lenet": Trial(small("lenet5"), 32, 32, 0.05, 0.9),
    "alexnet": Trial(after_he(narrow_alexnet), 67, 8),
    "zfnet": Trial(after_he(narrow_zfnet), 63, 8, quick=False),
    "nin": Trial(after_he(small("nin", dropout=0.0)), 8, 32, 3e-4, quick=False),
    "maxout": Trial(small("maxout", map_side=2, dropout=0.0, input_dropout=0.0), 8, rate=3e-4, quick=False),
    "vgg": Trial(narrow_vgg, 32, 8, quick=False),
    "dsn": Trial(small("dsn"), 8, quick=False),
    "fitnet": Trial(small("fitnet11_250k"), 8),
    "highway": Trial(small("highway32"), 8, quick=False),
    "googlenet": Trial(small("googlenet_3x3"), 32, quick=False),
    "inception_v2": Trial(small("inception_v2"), 32, quick=False),
    "inception_v3": Trial(small("inception_v3"), 75, 32, quick=False),
    "inception_v4": Trial(small("inception_v4"), 75, 32, quick=False),
    "inception_resnet": Trial(small("inception_resnet_v1"), 75, 8, quick=False),
    "xception": Trial(small("xception"), 32, 8, quick=False),
    "resnet": Trial(small("resnet20"), 8, 32, 0.05, 0.9),
    "plain": Trial(small("plain20"), 8, 32, 0.05, 0.9, quick=False),
    "resnet_for_large_pictures": Trial(small("resnet18"), 33, quick=False),
    "preact_resnet": Trial(
        lambda: preact_resnet.PreactivationResNetCifar(3, preact_resnet.BASIC, 1, 10, 1), 8, quick=False),
    "wide_resnet": Trial(small("wrn", depth=10, width=2), 8),
    "resnext": Trial(small("resnext29_32x4d"), 8, quick=False),
    "densenet": Trial(lambda: DenseNetCifar(_bc(12), 4, in_channels=1), 8, quick=False),
    "mobilenet": Trial(small("mobilenet", width_multiplier=0.25), 33, rate=3e-3, quick=False),
    "mobilenet_v2": Trial(small("mobilenet_v2", width_multiplier=0.5), 33, quick=False),
    "efficientnet_lite": Trial(small("efficientnet_lite0"), 33, quick=False),
    "airnet": Trial(small("airnet_narrow"), 16, 32, 0.2, 0.9),
    "nasnet": Trial(small("nasnet_cifar"), 8, quick=False),
}


def digits(side: int) -> tuple[Tensor, Tensor]:
    """All 1,797 digits, enlarged to `side` pixels and normalised: (N, 1, side, side), and their labels."""
    pictures, labels = load_digits(return_X_y=True)
    small_ones = torch.from_numpy(pictures).float().view(-1, 1, 8, 8)
    enlarged = F.interpolate(small_ones, size=(side, side), mode="nearest")
    return (enlarged - enlarged.mean()) / enlarged.std(), torch.from_numpy(labels).long()


def learn(trial: Trial, shuffled_labels: bool = False) -> float:
    """The mean loss of the last steps."""
    torch.manual_seed(0)
    model, (images, labels) = trial.make().train(), digits(trial.side)
    if shuffled_labels:
        labels = labels[torch.randperm(len(labels))]
    weights = [p for name, p in model.named_parameters() if not name.startswith("auxiliary.")]
    rule: torch.optim.Optimizer = torch.optim.Adam(weights, trial.rate)
    if trial.momentum:
        rule = torch.optim.SGD(weights, trial.rate, trial.momentum)
    losses = []
    for _ in range(STEPS):
        chosen = torch.randint(len(labels), (trial.batch,))
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        rule.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        rule.step()
        losses.append(float(loss.detach()))
    return sum(losses[-LAST:]) / LAST


@pytest.mark.parametrize("family", TRIALS)
def test_a_network_of_the_family_learns(family: str) -> None:
    trial = TRIALS[family]
    if not trial.quick and not os.environ.get("LAYERWISE_ALL_FAMILIES"):
        pytest.skip("takes longer than the others; LAYERWISE_ALL_FAMILIES=1 runs it (see the head of this file)")
    assert learn(trial) < BELOW


def test_the_control_without_anything_to_learn() -> None:
    assert learn(TRIALS["lenet"], shuffled_labels=True) > 2.0
