"""The allocator: when it is left alone, that freed buffers stay with the process, and that the end gives them back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from layerwise import allocator
from layerwise.allocator import WORTH, kept_buffers, left_alone

needs_glibc = pytest.mark.skipif(allocator.glibc() is None, reason="this C library is not glibc")

# The pages that the kernel hands out in four training steps whose buffers are of 40 MB, more than glibc's own sliding
# threshold ever reaches, before and within; and the resident MiB before and after the end. In a fresh process, whose
# heap no other test has filled.
PAGES = """import resource, torch
from torch import nn
from layerwise.allocator import kept_buffers
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(1, 10, 1), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 1, 1))
images = torch.rand(4, 1, 500, 500)
def faults():
    for step in range(12):
        if step == 8:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        net(images).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
found = [faults()]
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024
with kept_buffers(40 << 20) as said:
    found += [faults(), resident()]
print(*found, resident(), said)"""


@needs_glibc
def test_freed_buffers_stay_and_go_back_at_the_end() -> None:
    """Outside of it the same steps cost a hundred thousand pages: the negative control."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True, env=environment)
    before, within, full, after, said = done.stdout.strip().split(" ", 4)
    assert said == "allocator keeps freed buffers (glibc mallopt)"
    assert int(before) > 100_000
    assert int(after) < int(full) - 40
    assert int(within) < int(before) // 5


@pytest.mark.parametrize(("activations", "environment", "reason"), [
    (WORTH - 1, {}, "the network's buffers are small"),
    (None, {}, "recompute=blocks is there to take little memory"),
    (WORTH, {"MALLOC_TRIM_THRESHOLD_": "0"}, "chosen by the environment"),
    (WORTH, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, "chosen by the environment"),
    (WORTH, {"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, "chosen by the environment"),
])
def test_what_leaves_it_alone(activations: int | None, environment: dict[str, str], reason: str) -> None:
    assert left_alone(activations, environment) == reason


@needs_glibc
def test_nothing_speaks_against_it() -> None:
    assert left_alone(WORTH, {"LD_PRELOAD": "/usr/lib/other.so"}) == ""


def test_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "glibc", lambda: None)
    assert left_alone(WORTH, {}) == "this system's C library has no such setting"
    with kept_buffers(WORTH) as said:
        assert said.startswith("allocator as the system has it: ")


def test_a_gpu_has_its_own() -> None:
    with kept_buffers(1 << 40, "cuda") as said:
        assert said == "allocator as the system has it: the buffers are the device's"
