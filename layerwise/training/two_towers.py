"""AlexNet on two processes: each has half the kernels of every layer, and they meet in certain layers only.

Krizhevsky, Sutskever, Hinton 2012, section 3.2 and figure 2. A layer that reads both towers (conv3, the fully connected
ones) is preceded by an exchange: forward each process sends its half of the maps, backward what it found for the
other's half. At the end the answers of the classes are exchanged, since the softmax is over all of them; both processes
then have the same loss, so nothing travels back there. What travels is counted where it is sent.

The towers are made from the whole network: a tower's tensors are halves of its (the first axis, the outputs), and two
towers' tensors make it again. The network must keep its response normalisation within a tower (`alexnet_two_gpus`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from layerwise import models
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models.network import Network

SOFTMAX = "softmax"
TIMEOUT = timedelta(minutes=2)
TOLERANCE = 1e-12  # relative, in float64: sums are taken in another order than on one process
# A training step of the check: the paper's momentum and weight decay (section 5), a rate that moves the weights.
RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 0.0005
STEPS, PICTURES = 3, 4


class Sent(NamedTuple):
    """What both processes together sent for one picture at a place: numbers forward and backward."""

    forward: int
    backward: int


class Link(Protocol):
    """The way to the other tower: sends a tensor, returns the one of the same shape that the other sent."""

    def swap(self, mine: Tensor) -> Tensor: ...


class GlooLink:
    """The other of two processes that torch.distributed has joined."""

    def swap(self, mine: Tensor) -> Tensor:
        other = 1 - dist.get_rank()
        theirs = torch.empty_like(mine)
        sending = dist.isend(mine, other)
        dist.recv(theirs, other)
        assert sending is not None
        sending.wait()
        return theirs


class ShapesLink:
    """Nobody: on the meta device there are shapes and no numbers."""

    def swap(self, mine: Tensor) -> Tensor:
        return torch.empty_like(mine)


class Exchange(nn.Module):
    """Makes whole maps (N, C, ...) of both towers' halves (N, C / 2, ...). `sent` counts the numbers that left here.

    Without a link nothing is sent, and zeros stand for the other tower.
    """

    def __init__(self, place: str, tower: int, link: Link | None) -> None:
        super().__init__()
        self.place, self.tower, self.link = place, tower, link
        self.sent: Counter[str] = Counter()

    def forward(self, mine: Tensor) -> Tensor:
        whole: Tensor = _Whole.apply(mine, self)  # type: ignore[no-untyped-call]
        return whole

    def swap(self, mine: Tensor, way: str) -> Tensor:
        """Sends `mine` to the other tower and returns what it sent."""
        if self.link is None:
            return torch.zeros_like(mine)
        self.sent[way] += mine.numel()
        return self.link.swap(mine.contiguous())


class _Whole(torch.autograd.Function):
    """Both halves in the order of the towers; backward the sum of what both towers found for this one's half."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        halves = [mine, exchange.swap(mine, "forward")]
        return torch.cat(halves if exchange.tower == 0 else halves[::-1], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        exchange = ctx.exchange
        halves = gradients[0].chunk(2, dim=1)
        mine, others = halves[exchange.tower], halves[1 - exchange.tower]
        if exchange.place == SOFTMAX:  # both have the whole loss, so the other found the same for this half
            return mine, None
        return mine + exchange.swap(others, "backward"), None


class HalfDropout(nn.Module):
    """Dropout of one tower: its half of the masks that one process would draw for both (section 4.2)."""

    def __init__(self, p: float, tower: int) -> None:
        super().__init__()
        self.p, self.tower = p, tower

    def forward(self, units: Tensor) -> Tensor:
        whole = F.dropout(units.new_ones(len(units), 2 * units.shape[1]), self.p, self.training)
        return units * whole.chunk(2, dim=1)[self.tower]


class Tower(nn.Module):
    """Tower 0 or 1 of a network in two groups. Pictures (N, C, H, W) to the logits of all classes (N, num_classes).

    `silent` names places where nothing is exchanged: zeros stand in for the other tower.
    """

    def __init__(self, network: Network, tower: int, link: Link, silent: tuple[str, ...] = ()) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        whole = True  # both towers are given the picture

        def meet(place: str) -> None:
            layers[f"before_{place}"] = Exchange(place, tower, None if place in silent else link)

        for part in (network.features, network.head):
            for name, layer in part.named_children():
                if not whole and (isinstance(layer, nn.Linear) or getattr(layer, "groups", 2) == 1):
                    assert not isinstance(layer, ResponseNorm), f"{name} crosses the towers; build alexnet_two_gpus"
                    meet(name)
                layers[name] = _half(layer, tower)
                whole = whole and not isinstance(layer, nn.Conv2d | nn.Linear)
        meet(SOFTMAX)
        self.layers = nn.Sequential()
        for name, layer in layers.items():
            self.layers.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits

    def sent(self) -> dict[str, Counter[str]]:
        """What left this tower so far, by the place: the layer that reads both towers, or the softmax."""
        return {layer.place: layer.sent for layer in self.layers if isinstance(layer, Exchange)}


def _half(layer: nn.Module, tower: int) -> nn.Module:
    """A tower's part of a layer, with the same half of its weights."""
    if isinstance(layer, nn.Dropout):
        return HalfDropout(layer.p, tower)
    if isinstance(layer, ResponseNorm):
        return ResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return layer  # it has no weights and works on each map for itself
    half: nn.Conv2d | nn.Linear
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        half = nn.utils.skip_init(nn.Linear, layer.in_features, layer.out_features // 2, **like)
    else:
        assert isinstance(layer.padding, tuple)
        half = nn.utils.skip_init(nn.Conv2d, layer.in_channels // layer.groups, layer.out_channels // 2,
                                  layer.kernel_size, stride=layer.stride, padding=layer.padding, **like)
    assert layer.bias is not None
    assert half.bias is not None
    with torch.no_grad():
        half.weight.copy_(layer.weight.chunk(2)[tower])
        half.bias.copy_(layer.bias.chunk(2)[tower])
    return half


def joined(halves: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], network: Network) -> dict[str, Tensor]:
    """The tensors of the whole network, by its own names, from those of the two towers (weights or gradients)."""
    names = {f"layers.{name.split('.', 1)[1]}": name for name, _ in network.named_parameters()}
    return {names[name]: torch.cat([halves[0][name], halves[1][name]]) for name in halves[0]}


def communication(network: Network, side: int, channels: int = 3) -> dict[str, Sent]:
    """What the two processes send for one picture of `side` pixels, by place; counted without numbers or processes."""
    tower = Tower(network.to("meta"), 0, ShapesLink())
    tower(torch.empty(1, channels, side, side, device="meta")).sum().backward()
    return {place: Sent(2 * sent["forward"], 2 * sent["backward"]) for place, sent in tower.sent().items()}


class Comparison(NamedTuple):
    """The two processes against one: largest relative differences, and what was sent for a picture by place."""

    logits: float
    gradients: float
    weights: float
    sent: dict[str, Sent]


def compared(network: str, arguments: Mapping[str, Any], side: int, silent: tuple[str, ...] = ()) -> Comparison:
    """Trains `STEPS` steps in float64 on two real processes and on this one, from the same weights and pictures.

    Relative differences are those of norms: |a - b| / |b| over all logits, and the largest over gradients and weights.
    """
    with tempfile.TemporaryDirectory(prefix="layerwise-towers-") as folder:
        start_processes(_process, (network, dict(arguments), side, silent, folder), nprocs=2, start_method=_method())
        files = [Path(folder) / str(tower) for tower in (0, 1)]
        halves = [load_file(file.with_suffix(".safetensors")) for file in files]
        counts = [json.loads(file.with_suffix(".json").read_text("utf-8")) for file in files]
    whole = _network(network, arguments)
    logits, gradients = _train(whole, side)
    far = {}
    for kind, expected in (("gradients", gradients), ("weights", whole.state_dict())):
        first, second = ({name.removeprefix(f"{kind}/"): tensor for name, tensor in half.items()
                          if name.startswith(kind)} for half in halves)
        found = joined((first, second), whole)
        far[kind] = max(_apart(found[name], expected[name]) for name in expected)
    sent = {place: Sent(*(sum(one[place].get(way, 0) for one in counts) // (STEPS * PICTURES)
                          for way in ("forward", "backward"))) for place in counts[0]}
    return Comparison(max(_apart(half["logits"], logits) for half in halves), far["gradients"], far["weights"], sent)


def _method() -> str:
    """How processes start: forked from one that has imported torch, once for all comparisons, where that can be."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload([__name__])
    return "forkserver"


def _network(name: str, arguments: Mapping[str, Any]) -> Network:
    torch.manual_seed(0)
    network = models.build(name, **arguments).double()
    with torch.no_grad():  # larger than the paper's start, with which the answers hardly depend on the picture
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return network


def _train(network: nn.Module, side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Trains the steps by the paper's rule (section 5); returns the first one's logits and gradients."""
    weights = dict(network.named_parameters())
    velocities = {name: torch.zeros_like(one) for name, one in weights.items()}
    images = torch.randn(STEPS, PICTURES, 3, side, side, generator=torch.Generator().manual_seed(1)).double()
    first: tuple[Tensor, dict[str, Tensor]] | None = None
    for step, batch in enumerate(images):
        torch.manual_seed(step)  # of the dropout masks
        logits = network(batch)
        loss = F.cross_entropy(logits, torch.arange(PICTURES) % logits.shape[1])
        gradients = dict(zip(weights, torch.autograd.grad(loss, tuple(weights.values())), strict=True))
        first = first or (logits.detach(), gradients)
        with torch.no_grad():
            for name, one in weights.items():
                velocity = velocities[name]
                velocity.mul_(MOMENTUM).sub_(WEIGHT_DECAY * RATE * one + RATE * gradients[name])
                one.add_(velocity)
    assert first is not None
    return first


def _process(tower: int, network: str, arguments: dict[str, Any], side: int, silent: tuple[str, ...],
             folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the other process is on this machine
    dist.init_process_group("gloo", init_method=Path(folder, "store").as_uri(), rank=tower, world_size=2,
                            timeout=TIMEOUT)
    half = Tower(_network(network, arguments), tower, GlooLink(), silent)
    logits, gradients = _train(half, side)
    sent = {place: dict(one) for place, one in half.sent().items()}
    tensors = ({"logits": logits} | {f"gradients/{name}": one for name, one in gradients.items()}
               | {f"weights/{name}": one for name, one in half.state_dict().items()})
    save_file(tensors, Path(folder) / f"{tower}.safetensors")
    (Path(folder) / f"{tower}.json").write_text(json.dumps(sent), "utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(torch.finfo(expected.dtype).tiny))
