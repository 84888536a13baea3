"""AlexNet on two real processes equals the grouped network on one; what is exchanged is counted as it is sent."""

from __future__ import annotations

import math

import pytest
import torch

from layerwise import models
from layerwise.experiments import find
from layerwise.experiments.alexnet import two_gpus
from layerwise.experiments.experiment import Measured, Results, Subject
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.shapes import cost
from layerwise.training import two_towers
from layerwise.training.two_towers import Comparison, Sent, ShapesLink, Tower, communication, compared, joined


@pytest.fixture(scope="module")
def exchanging() -> Comparison:
    return compared(two_gpus.NETWORK, two_gpus.SMALL, two_gpus.SMALL_SIDE)


def test_two_processes_are_one_network(exchanging: Comparison) -> None:
    """Forward, gradients and three steps with dropout, momentum and weight decay, in float64."""
    assert max(exchanging[:3]) <= two_towers.TOLERANCE


def test_with_the_exchange_before_conv3_left_out_they_are_not() -> None:
    found = compared(two_gpus.NETWORK, two_gpus.SMALL, two_gpus.SMALL_SIDE, silent=("conv3",))
    assert min(found[:3]) > 1e-3
    assert found.sent["conv3"] == Sent(0, 0)


def test_what_two_processes_sent_is_what_is_counted_without_them(exchanging: Comparison) -> None:
    with torch.device("meta"):
        small = models.build(two_gpus.NETWORK, **two_gpus.SMALL)
    assert exchanging.sent == communication(small, two_gpus.SMALL_SIDE)


def test_the_papers_network_exchanges_what_its_layers_read() -> None:
    """A layer that reads both towers is sent each tower's half once: all values of the layer before it, both ways."""
    with torch.device("meta"):
        sent = communication(models.build("alexnet_two_gpus"), 227)
    outputs = {row.name.rpartition(".")[2]: math.prod(row.output) for row in cost("alexnet").rows}
    before = {"conv3": "pool2", "fc6": "pool5", "fc7": "fc6", "fc8": "fc7", "softmax": "fc8"}
    assert {place: one.forward for place, one in sent.items()} == {to: outputs[of] for to, of in before.items()}
    assert {place: one.backward for place, one in sent.items() if place != "softmax"} == {
        place: one.forward for place, one in sent.items() if place != "softmax"}
    assert sent["softmax"].backward == 0


def test_towers_make_the_whole_network_again() -> None:
    network = models.build("alexnet_two_gpus", **two_gpus.SMALL)
    towers = [Tower(network, tower, ShapesLink()).state_dict() for tower in (0, 1)]
    again, whole = joined((towers[0], towers[1]), network), network.state_dict()
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert sum(tensor.numel() for tensor in towers[0].values()) * 2 == sum(one.numel() for one in whole.values())


def test_a_normalisation_across_the_towers_is_refused() -> None:
    """The plain `alexnet` normalises across the towers, so it needs more than the paper's exchanges."""
    with torch.device("meta"), pytest.raises(AssertionError, match=r"norm1 crosses the towers; build alexnet_two_gpus"):
        Tower(models.build("alexnet"), 0, ShapesLink())


def test_normalisation_within_groups() -> None:
    maps = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    apart = torch.cat([ResponseNorm(alpha=0.1)(half) for half in maps.chunk(2, 1)], 1)
    # Not to the bit: how a processor's vectors divide the positions decides between two forms of the power.
    torch.testing.assert_close(ResponseNorm(alpha=0.1, groups=2)(maps), apart, rtol=1e-14, atol=1e-14)
    last = maps.to(memory_format=torch.channels_last)
    torch.testing.assert_close(ResponseNorm(alpha=0.1, groups=2)(last), apart, rtol=1e-14, atol=1e-14)
    assert not torch.allclose(ResponseNorm(alpha=0.1)(maps), apart)


def test_the_claims(exchanging: Comparison) -> None:
    experiment = find("alexnet/two-gpus")
    counted = two_gpus.exchanged(Subject((), "paper", 0, lambda run, split: pytest.fail("opens data")))
    assert counted["bytes"] == 4 * (61_672 + 60_672)
    far = {"logits": exchanging.logits, "gradients": exchanging.gradients, "weights": exchanging.weights}
    rows = {"exchanged": (Measured(0, counted),), "two_processes": (Measured(0, far),),
            "without_conv3": (Measured(0, dict.fromkeys(far, 0.2)),)}
    verdicts = {name: claim.judge(Results("paper", rows)) for name, claim in experiment.claims.items()}
    assert {name: verdict.word for name, verdict in verdicts.items()} == {
        "certain-layers": "holds only if", "same-network": "holds", "tuned": "holds"}
    worse = rows | {"two_processes": rows["without_conv3"]}
    assert experiment.claims["same-network"].judge(Results("paper", worse)).word == "fails"
    more = rows | {"exchanged": (Measured(0, {**counted, "conv4": 1}),)}
    assert experiment.claims["certain-layers"].judge(Results("paper", more)).word == "fails"
