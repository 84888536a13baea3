"""What becomes of a trained network when blocks are taken out of it, or change places, without training it again.

Veit, Wilber, Belongie, "Residual networks behave like ensembles of relatively shallow networks", 2016, section 4: one
block deleted (4.1, figure 3), k random blocks deleted (4.2, figure 5 a), k random pairs swapped (4.3, figure 5 b).

What a deleted block leaves behind:
- a residual block its shortcut: F(x) becomes 0, so y = x where the shape stays (x is nowhere below 0 after a ReLU), and
  the projection or the zero padding of option A where it changes;
- a plain block, or a layer of a chain such as VGG, the same as option A would: the middle of each window, in the maps
  there are, zeros in new maps and surplus maps dropped. What the paper did where a layer of VGG changes the shape, it
  leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from layerwise.errors import InputError, nearest
from layerwise.explain.order import executed, mode, replaced, watched
from layerwise.models.inception_resnet import ScaledResidual
from layerwise.models.mobilenet_v2 import InvertedResidual
from layerwise.models.resnet import PlainBlock
from layerwise.models.xception import Sum
from layerwise.randomness import permutation

Measure = Callable[[nn.Module], float]


class Nothing(nn.Module):
    """A residual function that is 0, whatever the maps."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.new_zeros(())


class WindowMiddle(nn.Module):
    """What a deleted convolution leaves: the middle of each of its windows, maps cut off or filled up with zeros.

    (N, C, H, W) to what the convolution would give, (N, C', H', W'). With an odd kernel, half of it as padding and
    stride 1 it passes maps on as they are.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels = convolution.out_channels
        padding = convolution.padding
        assert not isinstance(padding, str), "no network of this library pads by a word"
        self.windows = list(zip(convolution.kernel_size, convolution.stride, padding, convolution.dilation,
                                strict=True))  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        for axis, (kernel, stride, padding, dilation) in enumerate(self.windows, 2):
            reach = dilation * (kernel - 1)
            outputs = (maps.shape[axis] + 2 * padding - reach - 1) // stride + 1
            middles = torch.arange(outputs, device=maps.device) * stride - padding + reach // 2
            maps = maps.index_select(axis, middles.clamp(0, maps.shape[axis] - 1))
        kept = maps[:, : self.out_channels]
        return F.pad(kept, (0, 0, 0, 0, 0, self.out_channels - kept.shape[1]))


@dataclass(frozen=True)
class Block:
    """A part that can be deleted or swapped. `kind`: residual, plain (two layers without a shortcut) or layer.

    `parts` are the modules that it consists of, and `stand_ins` what replaces which module when it is deleted, by their
    paths. `input` and `output` are the shapes of its maps (C, H, W).
    """

    name: str
    kind: str
    parts: tuple[str, ...]
    stand_ins: Mapping[str, nn.Module]
    input: tuple[int, ...]
    output: tuple[int, ...]


def blocks(model: nn.Module, image: Tensor) -> tuple[Block, ...]:
    """The blocks of a network in the order of its computation, found with one picture (1, C, H, W).

    These are its residual blocks; where it has none, its plain blocks; where it has none of them either, each of its
    convolutions with the batch normalisation and the activation that follow it in the same chain. Raises InputError
    where there is nothing to delete.
    """
    found = _residual_blocks(model) or _plain_blocks(model) or _layers(model)
    if not found:
        raise InputError("this network has no blocks that could be deleted", mend="Choose a network with convolutions.")
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def look(name: str, module: nn.Module, entered: Tensor, left: Tensor) -> None:
        shapes.setdefault(name, [tuple(entered.shape[1:]), tuple(left.shape[1:])])[1] = tuple(left.shape[1:])

    edges = {path: model.get_submodule(path) for _, _, parts, _ in found for path in (parts[0], parts[-1])}
    with mode(model, training=False), watched(edges, look), torch.no_grad():
        model(image[:1])
    order = executed(model, image, tuple({type(module) for module in edges.values()}))
    known = [Block(name, kind, parts, stand_ins, shapes[parts[0]][0], shapes[parts[-1]][1])
             for name, kind, parts, stand_ins in found if parts[-1] in shapes]
    return tuple(sorted(known, key=lambda block: order.index(block.parts[-1])))


@contextmanager
def deleted(model: nn.Module, gone: Sequence[Block]) -> Iterator[nn.Module]:
    """The network without these blocks; the network as it was afterwards."""
    stand_ins = {path: module for block in gone for path, module in block.stand_ins.items()}
    with replaced(model, stand_ins):
        yield model


@contextmanager
def rearranged(model: nn.Module, order: Mapping[str, Block], known: Sequence[Block]) -> Iterator[nn.Module]:
    """The network with block `order[name]` in the place of the block called `name`; as it was afterwards."""
    places = {block.name: block for block in known}
    strange = [f"{name!r}{nearest(name, places)}" for name in order if name not in places]
    if strange:
        raise InputError(f"{len(strange)} blocks are not of this network", details=strange)
    modules = {
        path: model.get_submodule(source)
        for name, block in order.items()
        for path, source in zip(places[name].parts, block.parts, strict=True)
    }
    with replaced(model, modules):
        yield model


def error_rate(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """Error in percent on pictures (N, C, H, W), preprocessed, with labels (N), in evaluation mode."""
    wrong = 0
    with mode(model, training=False), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            answers = model(images[start : start + batch_size]).argmax(1)
            wrong += int((answers != labels[start : start + batch_size]).sum())
    return 100.0 * wrong / len(images)


def delete_each(model: nn.Module, known: Sequence[Block], measure: Measure) -> dict[str, float]:
    """What `measure` says of the network without each block in turn (section 4.1)."""
    found = {}
    for block in known:
        with deleted(model, [block]):
            found[block.name] = measure(model)
    return found


def delete_some(
    model: nn.Module, known: Sequence[Block], measure: Measure, counts: Sequence[int], draws: int, seed: int
) -> dict[int, list[float]]:
    """What `measure` says without k random blocks, for each k of `counts`, `draws` times each (section 4.2).

    Raises InputError for a count above the number of blocks.
    """
    most = max(counts, default=0)
    if most > len(known):
        raise InputError(f"{most} blocks to delete, but the network has {len(known)}", mend="Delete fewer.")
    found: dict[int, list[float]] = {}
    for count in counts:
        for draw in range(draws):
            chosen = permutation(seed, draw, len(known), f"delete {count}")[:count]
            with deleted(model, [known[int(index)] for index in chosen]):
                found.setdefault(count, []).append(measure(model))
    return found


@dataclass(frozen=True)
class Shuffled:
    """A network after swaps: what was measured, and Kendall's tau between the new and the old order of its blocks."""

    measured: float
    tau: float


def swap_some(
    model: nn.Module, known: Sequence[Block], measure: Measure, counts: Sequence[int], draws: int, seed: int
) -> dict[int, list[Shuffled]]:
    """What `measure` says after k random pairs of blocks have changed places, one after the other (section 4.3).

    Pairs are drawn anew each time among all that take and give maps of equal shape, so that a block may move twice.
    Raises InputError where there is no such pair.
    """
    pairs = exchangeable(known)
    if not pairs:
        raise InputError("no two blocks of this network take and give maps of equal shape",
                         "Only such blocks can change places.", "Choose a deeper network.")
    found: dict[int, list[Shuffled]] = {}
    for count in counts:
        for draw in range(draws):
            order = list(range(len(known)))
            for number in range(count):
                first, second = pairs[int(permutation(seed, draw, len(pairs), f"swap {count} {number}")[0])]
                order[first], order[second] = order[second], order[first]
            moved = {known[place].name: known[block] for place, block in enumerate(order) if place != block}
            with rearranged(model, moved, known):
                found.setdefault(count, []).append(Shuffled(measure(model), kendall_tau(order)))
    return found


def exchangeable(known: Sequence[Block]) -> tuple[tuple[int, int], ...]:
    """The pairs of blocks, by their places, that take maps of one shape and give maps of one shape."""
    kinds = [(block.input, block.output, len(block.parts)) for block in known]
    return tuple((i, j) for j in range(len(known)) for i in range(j) if kinds[i] == kinds[j])


def kendall_tau(order: Sequence[int]) -> float:
    """Kendall's rank correlation of a permutation with 0, 1, 2 ...: 1 for the same order, -1 for the reverse."""
    pairs = [(i, j) for j in range(len(order)) for i in range(j)]
    agreeing = sum(1 if order[i] < order[j] else -1 for i, j in pairs)
    return agreeing / len(pairs) if pairs else 1.0


Found = tuple[str, str, tuple[str, ...], Mapping[str, nn.Module]]  # name, kind, parts, stand_ins


def _residual_blocks(model: nn.Module) -> list[Found]:
    found: list[Found] = []
    for name, module in model.named_modules():
        children = dict(module.named_children())
        if isinstance(module, InvertedResidual):
            found.append((name, "residual", (name,), {name: nn.Identity()}))
        elif isinstance(module, ScaledResidual):
            found.append((name, "residual", (name,), {f"{name}.linear": Nothing()}))
        elif "residual" in children or isinstance(module, Sum):
            function = "residual" if "residual" in children else "branch"
            found.append((name, "residual", (name,), {f"{name}.{function}": Nothing()}))
    return found


def _plain_blocks(model: nn.Module) -> list[Found]:
    return [(name, "plain", (name,), _bypass(model, [f"{name}.{path}" for path, _ in module.named_modules() if path]))
            for name, module in model.named_modules() if isinstance(module, PlainBlock)]


def _layers(model: nn.Module) -> list[Found]:
    """Convolutions in chains, each with what follows it up to the next layer that is neither BN nor an activation."""
    found: list[Found] = []
    for chain, module in model.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        group: list[str] = []
        for child, layer in [*module.named_children(), ("", nn.Identity())]:
            path = f"{chain}.{child}" if chain else child
            if group and isinstance(layer, _BatchNorm | nn.ReLU | nn.Tanh | nn.Sigmoid):
                group.append(path)
                continue
            if group:
                found.append((group[0], "layer", tuple(group), _bypass(model, group)))
            group = [path] if isinstance(layer, nn.Conv2d) else []
    return found


def _bypass(model: nn.Module, paths: Sequence[str]) -> dict[str, nn.Module]:
    """Stand-ins for convolutions and batch normalisations; activations stay, and do nothing to maps of at least 0."""
    stand_ins: dict[str, nn.Module] = {}
    for path in paths:
        layer = model.get_submodule(path)
        if isinstance(layer, nn.Conv2d):
            stand_ins[path] = WindowMiddle(layer)
        elif isinstance(layer, _BatchNorm):
            stand_ins[path] = nn.Identity()
    return stand_ins
