"""Identity construction: a deeper network with the function of a shallower one (He et al. 2015, section 1).

The layers of the shallower one are copied, those added pass their input on. As such a solution exists, a deeper network
need not have the higher training error that plain ones show.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from layerwise.errors import InputError


def deepen(shallow: nn.Module, deep: nn.Module, to_identity: Callable[[nn.Module], None]) -> tuple[str, ...]:
    """Copy `shallow` into `deep` and make identities of what is new there; the names of the added modules.

    Modules belong together by their names; the outermost ones that `shallow` has not are handed to `to_identity`:
    `plain_identity`, or a function that calls `zero_branch` on a block's residual branch. Raises InputError, with all
    names at once, where an entry of `shallow` is missing or has another shape in `deep`.
    """
    old, new = shallow.state_dict(), deep.state_dict()
    problems = [f"{name} is missing" for name in old if name not in new]
    problems += [
        f"{name} is {tuple(new[name].shape)}, not {tuple(entry.shape)}"
        for name, entry in old.items()
        if name in new and new[name].shape != entry.shape
    ]
    if problems:
        raise InputError(
            f"the deeper network does not contain the shallower one: {len(problems)} entries",
            "Copied layers must have the same names and shapes in both.",
            "Deepen within one family of blocks and widths, such as resnet20 to resnet32.",
            problems,
        )
    deep.load_state_dict(new | old)
    known = {name for name, _ in shallow.named_modules()}
    added = [name for name, _ in deep.named_modules() if name not in known and name.rpartition(".")[0] in known]
    for name in added:
        to_identity(deep.get_submodule(name))
    return tuple(added)


def plain_identity(block: nn.Module) -> None:
    """Make a block of convolutions, batch normalisations and ReLUs the identity on maps that are nowhere below 0.

    That is what a ReLU before the block leaves. Batch normalisation is the identity in evaluation mode only: in
    training it normalises by the batch. Raises InputError for a layer that cannot be one: another kind, or a
    convolution that changes the map's size or number.
    """
    leaves = [(name, layer) for name, layer in block.named_modules() if not list(layer.children())]
    problems = [f"{name or 'the block'}: {why}" for name, layer in leaves if (why := _obstacle(layer))]
    if problems:
        raise InputError(
            "the block cannot be the identity",
            "Each of its layers must be able to pass maps on as they are.",
            "Add blocks of stride 1 that keep the number of maps.",
            problems,
        )
    for _, layer in leaves:
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight, layer.groups)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            _identity_norm(layer)


def zero_branch(branch: nn.Module) -> None:
    """Set the last layer with parameters to 0, so that a residual branch F gives 0 and y = F(x) + x = x.

    He et al. 2015, section 3.1: where the identity is best, zero is what the solver must find. With batch
    normalisation last it holds in training mode too. Raises InputError for a branch without parameters.
    """
    layers = [layer for layer in branch.modules() if next(layer.parameters(recurse=False), None) is not None]
    if not layers:
        raise InputError(
            "the branch has no parameters that could be zero",
            mend="Give the residual branch, not its shortcut.",
        )
    for parameter in layers[-1].parameters(recurse=False):
        nn.init.zeros_(parameter)


def _obstacle(layer: nn.Module) -> str | None:
    """Why a layer cannot be the identity on maps of at least 0, or None."""
    if isinstance(layer, nn.Conv2d):
        halves = tuple(size // 2 for size in layer.kernel_size)
        odd = all(size % 2 for size in layer.kernel_size)
        same = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.padding == halves and odd
        if not same or layer.padding_mode != "zeros":
            return "the convolution changes the map's size"
        return None if layer.in_channels == layer.out_channels else "the convolution changes the number of maps"
    if isinstance(layer, nn.BatchNorm2d):
        keeps = layer.running_mean is not None and layer.affine
        return None if keeps else "without scale, shift or running statistics it always normalises"
    return None if isinstance(layer, nn.ReLU | nn.Identity | nn.Dropout) else f"{type(layer).__name__} is no identity"


def _identity_norm(layer: nn.BatchNorm2d) -> None:
    assert layer.running_mean is not None and layer.running_var is not None  # noqa: PT018
    nn.init.zeros_(layer.running_mean)
    nn.init.ones_(layer.running_var)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():  # gamma / sqrt(var + epsilon) = 1
        layer.weight.copy_((layer.running_var + layer.eps).sqrt())
