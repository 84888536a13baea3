"""Large buffers that stay: glibc is kept from giving memory back to the kernel between the steps of a training.

By its defaults glibc asks the kernel for each buffer of some megabytes and gives it back when it is freed; the kernel
clears every page of the next one anew. In a training step, whose buffers come and go in the same sizes, that can take
longer than the arithmetic. `kept_buffers` sets three of `mallopt`'s parameters for as long as a training runs.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# mallopt's parameters, from glibc's malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
NEVER = -1  # as a threshold of trimming: the top of the heap is never given back
# After the training: what glibc's own sliding thresholds reach at most. The sliding itself can't be switched on again.
AFTER = ((MMAP_MAX, 65_536), (MMAP_THRESHOLD, 32 << 20), (TRIM_THRESHOLD, 64 << 20))
# Bytes of activations a step below which nothing was gained in walks over whole trainings. Above it steps of LeNet-5,
# ResNet-20 and ResNet-50 took 0.6 to 1.0 of the time, ResNet-18's channels-last 0.86 to 0.93.
WORTH = 2 << 20
SETTINGS = ("MALLOC_ARENA_TEST", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",
            "MALLOC_TOP_PAD_")


def glibc() -> ctypes.CDLL | None:
    """The C library of this process where it is glibc with its own allocator, else None."""
    try:
        known = os.confstr("CS_GNU_LIBC_VERSION") if sys.platform == "linux" else None
    except (ValueError, OSError):
        known = None
    if not known or not known.startswith("glibc"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def left_alone(activations: int | None, environment: Mapping[str, str] = os.environ) -> str:
    """Why the allocator stays as it is for a training with this many bytes of activations a step; "" where it doesn't.

    `activations` is None for one that was asked to take little memory: buffers that stay fit the next ones badly.
    Whoever set the allocator from outside, or loaded another, has chosen already.
    """
    if activations is None:
        return "recompute=blocks is there to take little memory"
    if activations < WORTH:
        return "the network's buffers are small"
    if "malloc" in environment.get("LD_PRELOAD", "") or "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return "chosen by the environment"
    if any(name in environment for name in SETTINGS):
        return "chosen by the environment"
    return "" if glibc() else "this system's C library has no such setting"


@contextmanager
def kept_buffers(activations: int | None = WORTH, device: str = "cpu") -> Iterator[str]:
    """Within it freed buffers stay with the process, where `left_alone` has nothing against it. Yields what was done.

    At the end what is free goes back to the kernel, and large buffers do again.
    """
    reason = "" if device == "cpu" else "the buffers are the device's"
    reason = reason or left_alone(activations)
    library = None if reason else glibc()
    if library is None:
        yield f"allocator as the system has it: {reason}"
        return
    done = library.mallopt(MMAP_MAX, 0) and library.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield "allocator keeps freed buffers (glibc mallopt)" if done else "allocator as the system has it: refused"
    finally:
        for name, value in AFTER:
            library.mallopt(name, value)
        library.malloc_trim(0)
