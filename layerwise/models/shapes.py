"""What a network does to the size of a picture, and what it costs: on the meta device, so nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerwise.errors import InputError
from layerwise.layers.locally_connected import LocallyConnected2d
from layerwise.layers.partial import PartialConv2d
from layerwise.layers.response_norm import ResponseNorm
from layerwise.models import build, for_small_pictures, published_input
from layerwise.models.network import Network, SupervisedNetwork, own_parameters
from layerwise.models.receptive import Fields

CONVOLUTIONS = (nn.Conv2d, PartialConv2d)
WINDOWS = (*CONVOLUTIONS, nn.MaxPool2d, nn.AvgPool2d)
UNCHANGED = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Dropout, ResponseNorm)
LARGEST = 4096  # pixels a side; no size beyond is tried


@dataclass(frozen=True)
class Row:
    """One layer for one picture: output shape without the batch, learnable parameters, multiply-adds.

    `field` is the receptive field of a unit, (height, width, distance between two units' fields) in pixels, padding
    included; None for what follows global pooling or flattening, and where it was not asked for.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    field: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Cost:
    """What a network costs for one picture, its auxiliary heads left out.

    Multiply-adds are those of convolutions and fully connected layers.
    """

    parameters: int
    multiply_adds: int
    rows: tuple[Row, ...]


class MisfitError(Exception):
    """A layer cannot take the map that reaches it; `shape` is the map without the batch."""

    def __init__(self, layer: str, module: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__(layer)
        self.layer, self.module, self.shape = layer, module, shape


def cost(model: nn.Module | str, input_shape: tuple[int, int, int] | None = None) -> Cost:
    """Parameters and multiply-adds for one picture of `input_shape` (C, H, W); None: the paper's own input.

    The model is left as it is; a name is built on the meta device. Raises InputError for an unknown name.
    """
    network = _on_meta(model) if isinstance(model, str) else model
    shape = input_shape or _own_input(network)
    rows, _ = _walk(network, shape)
    return Cost(own_parameters(network), sum(row.multiply_adds for row in rows), tuple(rows))


def traced(model: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Row, ...]:
    """The rows of `cost` with receptive fields, which take longer."""
    return tuple(_walk(model, input_shape, Fields)[0])


def stage_shapes(model: nn.Module | str, input_shape: tuple[int, int, int] | None = None) -> dict[str, tuple[int, ...]]:
    """The output shape (C, H, W) of each child of `features`, by its name."""
    network = _on_meta(model) if isinstance(model, str) else model
    return _walk(network, input_shape or _own_input(network))[1]


def check_input(name: str, in_channels: int, size: int, num_classes: int, option: str = "") -> list[str]:
    """Whether pictures of size x size pixels fit the network: warnings that need the user's consent, often none.

    Raises InputError where they do not fit, with the layer at which they fail and the sizes that work; it advises the
    recipe's fields, or a command's `option`, such as "--size".
    """
    if size < 1:
        raise InputError(f"input_size={size}: pictures have at least one pixel a side", mend="Set input_size=32 or so.")
    network = _on_meta(name, num_classes, in_channels)
    try:
        _, shapes = _walk(network, (in_channels, size, size))
    except MisfitError as misfit:
        raise _message(network, size, misfit, option) from None
    published = published_input(name)[1]
    layer, (_, side, _) = list(shapes.items())[-1]
    better = for_small_pictures(name)
    if better is None or side > 2:
        return []
    first = next(stage for stage, shape in shapes.items() if shape[1] == side)
    usual = stage_shapes(network, (in_channels, published, published))[layer][1]
    return [
        f"input {size}x{size} is reduced to {side}x{side} by {first} ({usual}x{usual} by {layer} at the paper's "
        f"{published}x{published}); the paper's network for small pictures is {better}"
    ]


def check_auxiliary(network: SupervisedNetwork, input_shape: tuple[int, int, int]) -> None:
    """Raises InputError where an auxiliary head can't take the map that pictures of `input_shape` (C, H, W) give."""
    for stage, (channels, *sides) in stage_shapes(network, input_shape).items():
        if stage not in network.auxiliary:
            continue
        head = network.auxiliary[stage]
        try:
            with _stateless(head, (channels, *sides)) as (state, maps):
                torch.func.functional_call(head, state, (maps,))
        except RuntimeError:
            size, name = input_shape[1], network.architecture["name"]
            raise InputError(
                f"auxiliary_weight: {name}'s auxiliary head after {stage} does not take the {sides[0]}x{sides[1]} map "
                f"that {size}x{size} pictures give it",
                mend=f"Set auxiliary_weight=0, or input_size={published_input(name)[1]}.",
            ) from None


def _message(network: Network, size: int, misfit: MisfitError, option: str) -> InputError:
    name = str(network.architecture["name"])
    side = published_input(name)[1]
    lowest, highest = _fitting(network, side)
    if highest == LARGEST:
        works = f"the minimum is {lowest}"
    elif lowest == highest:
        works = f"{name} takes {lowest}x{lowest} and nothing else"
    else:
        works = f"{name} takes {lowest}x{lowest} to {highest}x{highest}"
    at = "x".join(str(side) for side in misfit.shape[1:]) or str(misfit.shape[0])
    if isinstance(misfit.module, nn.Linear):
        what = f"{size}x{size} pictures give {misfit.layer} {misfit.shape[0]} inputs, not {misfit.module.in_features}"
        why = "A fully connected layer fits one size of map only."
    elif isinstance(misfit.module, WINDOWS):
        what = f"{size}x{size} becomes 0x0 at layer {misfit.layer}"
        kernel = misfit.module.kernel_size
        window = f"{kernel}x{kernel}" if isinstance(kernel, int) else "x".join(map(str, kernel))
        why = f"Its {window} window does not fit into the {at} map that reaches it."
    else:
        what = f"{size}x{size} pictures do not fit layer {misfit.layer}, which a {at} map reaches"
        why = "The layer is made for one size of map."
    fields = f"Resize the pictures: --set resize=short-side --set resize_to={side} --set input_size={side}"
    advice = f"Give {option} {side}" if option else fields
    return InputError(f"{what}; {works}", why,
                      f"{advice}; or choose another network, such as resnet20, which takes any size.")


def _fitting(network: nn.Module, published: int) -> tuple[int, int]:
    """The smallest and largest side that fit, by bisection from the paper's; LARGEST where there is no end."""
    channels = next(module.weight.shape[1] for module in network.modules() if isinstance(module, nn.Conv2d))

    def fits(side: int) -> bool:
        try:
            _walk(network, (channels, side, side))
        except MisfitError:
            return False
        return True

    def edge(good: int, bad: int) -> int:
        while abs(good - bad) > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if fits(middle) else (good, middle)
        return good

    highest = LARGEST if fits(LARGEST) else edge(published, LARGEST)
    return edge(published, 0), highest


def _walk(
    network: nn.Module, input_shape: tuple[int, int, int], trace: type[Fields] | None = None
) -> tuple[list[Row], dict[str, tuple[int, ...]]]:
    """One row for each layer without children, in the order of the computation; the output shape of each stage.

    Raises MisfitError.
    """
    fields: list[Fields] = []
    rows: list[Row] = []
    stages: dict[str, tuple[int, ...]] = {}
    reached: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    handles = []
    for name, module in network.named_modules():
        parent, _, stage = name.rpartition(".")
        if parent == "features":

            def leave(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, stage: str = stage) -> None:
                stages[stage] = tuple(output.shape[1:])

            handles.append(module.register_forward_hook(leave))
        if next(module.children(), None) is not None:
            continue

        def before(layer: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            reached.append((name, layer, tuple(inputs[0].shape[1:])))

        def after(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            rows.append(_row(name, layer, tuple(output.shape[1:]), fields[0].of(output) if fields else None))

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        with _stateless(network, input_shape) as (state, image), ExitStack() as tracing:
            if trace is not None:
                fields.append(tracing.enter_context(trace(image)))
            torch.func.functional_call(network, state, (image,), tie_weights=False)
    except (RuntimeError, InputError) as error:
        if not reached:
            raise
        raise MisfitError(*reached[-1]) from error
    finally:
        for handle in handles:
            handle.remove()
    return rows, stages


def _row(name: str, layer: nn.Module, output: tuple[int, ...], field: tuple[int, int, int] | None) -> Row:
    multiply_adds = 0
    if isinstance(layer, CONVOLUTIONS):
        multiply_adds = layer.weight.numel() * output[1] * output[2]
    elif isinstance(layer, LocallyConnected2d):
        multiply_adds = layer.multiply_adds
    elif isinstance(layer, nn.Linear):
        multiply_adds = layer.weight.numel()
    return Row(name, type(layer).__name__, output, sum(p.numel() for p in layer.parameters()), multiply_adds,
               field)


@contextmanager
def _stateless(network: nn.Module, input_shape: tuple[int, ...]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """The network's parameters and buffers, and one picture, on the meta device; evaluation mode in between.

    Layers of `UNCHANGED`, which change no shape and are slow on the meta device, pass their input on.
    """
    entries = (*network.named_parameters(), *network.named_buffers())
    state = {name: tensor if tensor.is_meta else torch.empty_like(tensor, device="meta") for name, tensor in entries}
    dtype = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    # With a call of their own that a training may have given them (training/fused.py).
    passed = {module: vars(module).get("forward") for module in modes if isinstance(module, UNCHANGED)}
    for layer in passed:
        layer.forward = _unchanged  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            yield state, torch.empty(1, *input_shape, dtype=dtype, device="meta")
    finally:
        for module, mode in modes.items():
            module.training = mode
        for layer, own in passed.items():
            del layer.forward
            if own is not None:
                layer.forward = own  # type: ignore[method-assign]


def _on_meta(name: str, num_classes: int | None = None, in_channels: int | None = None) -> Network:
    with torch.device("meta"):
        return build(name, num_classes, in_channels)


def _unchanged(maps: Tensor) -> Tensor:
    return maps


def _own_input(network: nn.Module) -> tuple[int, int, int]:
    """The paper's input with the network's own number of channels."""
    architecture = network.architecture
    assert isinstance(architecture, dict), "give input_shape for a network that has no architecture"
    channels, height, width = published_input(architecture["name"])
    return architecture["arguments"].get("in_channels", channels), height, width
