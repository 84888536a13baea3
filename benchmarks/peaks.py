"""What the machine does at most, measured in a process of its own: products of matrices, convolutions, memory.

The roofline of a network's training step is the longer of two times: its operations (6 for a multiply-add: forwards,
and backwards to the input and to the weights) at the highest rate found here, and the outputs of its convolutions and
fully connected layers, each written or read six times at the memory's rate (forwards written and read; backwards read,
its gradient written, and that read by both products). What stands between them (normalisations, activations, sums) is
taken to be free: perfect fusion.
"""

from __future__ import annotations

import math
import time

import torch

from layerwise import hardware, models
from layerwise.models.shapes import cost

SIDE = 2048  # of the matrices
# (channels in, channels out, kernel, side of the maps): as in ResNet-50 and ResNet-18
CONVOLUTIONS = ((256, 256, 3, 14), (128, 128, 3, 28), (512, 512, 3, 7), (1024, 256, 1, 14))
BYTES = 1 << 28  # of what is copied: larger than any cache
PASSES = 6


def _least(run: object, seconds: float = 0.4) -> tuple[float, float]:
    """The shortest call of `run` by the clock and by the processor's time, after one that is not counted."""
    assert callable(run)
    run()
    clock = processor = math.inf
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        started, used = time.perf_counter(), time.process_time()
        run()
        clock, processor = min(clock, time.perf_counter() - started), min(processor, time.process_time() - used)
        rounds += 1
    return clock, processor


def peaks(threads: int) -> dict[str, dict[str, float]]:
    """Operations a second of the best product of matrices and of the best convolution, bytes a second of a copy.

    By the "clock" and by the "processor"; in bf16 too, where the processor computes with it.
    """
    torch.set_num_threads(threads)
    found: dict[str, dict[str, float]] = {}
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if hardware.cpu_computes_bf16() else {})

    def keep(name: str, work: float, run: object) -> None:
        for which, least in zip(("clock", "processor"), _least(run), strict=True):
            one = found.setdefault(name, {})
            one[which] = max(one.get(which, 0.0), work / least)

    with torch.inference_mode():
        for kind, dtype in kinds.items():
            left = torch.rand(SIDE, SIDE, dtype=dtype)
            keep(f"product {kind}", 2 * SIDE**3, lambda left=left: left @ left)  # type: ignore[misc]
            for into, out, kernel, side in CONVOLUTIONS:
                layer = torch.nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False).to(dtype)
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                maps = torch.rand(16, into, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
                keep(f"convolution {kind}", 2 * 16 * side**2 * into * out * kernel**2,
                     lambda layer=layer, maps=maps: layer(maps))  # type: ignore[misc]
        source, copy = torch.ones(BYTES // 4), torch.empty(BYTES // 4)
        keep("memory", 2 * BYTES, lambda: copy.copy_(source))
    return found


def step_costs(network: str, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Operations and bytes (fp32) of a training step for one picture, as the module's docstring counts them."""
    counted = cost(models.build(network, num_classes=10, in_channels=shape[0]), shape)
    outputs = sum(math.prod(row.output) for row in counted.rows if row.multiply_adds)
    return 6.0 * counted.multiply_adds, 4.0 * PASSES * outputs


def roofline(found: dict[str, dict[str, float]], network: str, shape: tuple[int, int, int], which: str) -> float:
    """Pictures a second that training can't exceed on what `peaks` found, by the "clock" or the "processor".

    In bf16, where the machine has it, an output has two bytes.
    """
    operations, moved = step_costs(network, shape)
    fastest = max(rates[which] for name, rates in found.items() if name != "memory")
    moved /= 2 if any("bf16" in name for name in found) else 1
    return 1 / max(operations / fastest, moved / found["memory"][which])
