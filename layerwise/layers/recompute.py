"""Activations that are computed again in the backward pass instead of being kept.

Chen et al. 2016, "Training deep nets with sublinear memory cost", section 3; for densely connected networks Pleiss et
al. 2017, "Memory-efficient implementation of DenseNets". A block keeps its inputs alone; its backward pass first runs
its forward pass again, with the same random numbers (dropout's masks) and in the same precision.

Running statistics of batch normalisation take in a batch once: what the second pass does to them is thrown away. So a
step gives the same bits as without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from layerwise.errors import InputError

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d)


class RecomputedAlone(nn.Module):
    """A part of a block that is computed again by itself; the rest of the block keeps its activations."""


def recomputable(layers: nn.Module) -> list[nn.Module]:
    """The blocks within `layers`: modules of several layers with a forward of their own, or their parts.

    A sequence is looked through; a block within a block is part of the outer one. Single layers are no blocks.
    """
    found: list[nn.Module] = []
    for child in layers.children():
        alone = [module for module in child.modules() if isinstance(module, RecomputedAlone)]
        if alone:
            found += alone
        elif type(child).forward is nn.Sequential.forward:
            found += recomputable(child)
        elif any(True for _ in child.children()):
            found.append(child)
    return found


def recompute_blocks(layers: nn.Module) -> int:
    """From now on each block within `layers` computes its activations again; returns the number of blocks.

    Names of parameters and buffers stay. Raises InputError where there are no blocks.
    """
    blocks = recomputable(layers)
    if not blocks:
        raise InputError(
            "recompute=blocks: the network has no blocks",
            "It is a chain of single layers: there is nothing whose activations could be computed again.",
            "Set recompute=none; a smaller micro_batch takes less memory.",
        )
    for block in blocks:
        own = block.__dict__.get("forward")  # a training may have given it a call of its own (training/fused.py)
        assert getattr(own, "func", None) is not _forward, "this block computes its activations again already"
        # A partial of bound methods, not a closure: a deep copy of the network must call the copy's own layers.
        block.forward = partial(_forward, block, block.forward)
    return len(blocks)


def _forward(block: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    """The block's forward pass, run a second time by the backward pass where there will be one."""
    if not torch.is_grad_enabled():
        return forward(*inputs)
    if torch.compiler.is_compiling():  # the compiler plans the second pass itself, without the statistics' updates
        return checkpoint(forward, *inputs, use_reentrant=False)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first and the second pass run in."""
    return nullcontext(), statistics_kept(block)


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """Within it, batch normalisation updates copies of its running statistics, which are thrown away at the end.

    Copies, because autograd keeps the statistics in both passes and compares what it kept: none would be an error.
    """
    own = [(norm, name, buffer) for norm in block.modules() if isinstance(norm, NORMALISATIONS)
           for name, buffer in norm.named_buffers(recurse=False)]  # fmt: skip
    for norm, name, buffer in own:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in own:
            setattr(norm, name, buffer)
