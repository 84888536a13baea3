"""Device, precision, memory format, threads, determinism: chosen from the machine, stated, and fixed for a run."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from layerwise.errors import InputError, MachineError
from layerwise.processor import cores as cores
from layerwise.recipe import Recipe

# Variables that choose other instructions in torch's libraries than the processor's best: other sums, other last bits.
LIMITING = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR",
            "MKL_ENABLE_INSTRUCTIONS")
PACKAGES = ("layerwise", "torch", "numpy", "pillow", "scipy", "safetensors")


def _processor_has(*flags: str) -> bool:
    """Whether Linux names one of these instruction sets for the processor."""
    information = Path("/proc/cpuinfo")
    return information.exists() and any(f" {flag}" in information.read_text() for flag in flags)


def cpu_computes_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX). Others emulate it, slower than fp32."""
    return _processor_has("avx512_bf16", "amx_bf16")


def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16 (AMX)."""
    return _processor_has("amx_bf16")


def computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth computing with: not on a processor that emulates it."""
    return device.type != "cpu" or cpu_computes_bf16()


def cpu_name() -> str:
    """The processor's model name, or the architecture's where the system does not tell it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """This machine in words, as measurements name it: cores and processor."""
    return f"{cores()} cores, {cpu_name()}"


def _device(wanted: str) -> torch.device:
    have = ["cpu"]
    if torch.cuda.is_available():
        have += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        have.append("mps")
    if wanted == "auto":
        return torch.device(have[1] if len(have) > 1 else "cpu")
    name = "cuda:0" if wanted == "cuda" else wanted
    if name not in have:
        reason = f"torch {torch.__version__} sees these devices: {', '.join(have)}"
        if name.startswith("cuda") and torch.version.cuda is None:
            reason += "; this torch is built without CUDA"
        raise MachineError(
            f"device={wanted}: not available", reason + ".", "Choose one of them with --set device=..., or device=auto."
        )
    return torch.device(name)


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every `auto` of the machine's fields replaced by what this machine is best served with.

    CPUs with AVX512-BF16 or AMX: channels-last and bf16 autocast; other CPUs channels-last in fp32. CUDA:
    channels-last, bf16, compiled. MPS: contiguous fp32. Raises MachineError for a device that is not there.
    """
    # Measured on two cores with AVX2, pictures a second of the processor's time with the allocator kept (allocator.py):
    # channels-last is 1.13 (ResNet-50), 1.00 (ResNet-18), 1.12 (ResNet-20) and 1.2 (LeNet-5) times contiguous, so no
    # network needs a rule of its own. The compiler gained 0 to 4 % there and takes a minute; a long
    # training in bf16 has it compile batch normalisation alone (training/fused.py). Micro-batches change what batch
    # normalisation sees, so they are never chosen for speed; `layerwise tune` measures them.
    device = _device(recipe.device)
    bf16 = device.type == "cuda" or (device.type == "cpu" and cpu_computes_bf16())
    chosen: dict[str, Any] = {"device": str(device)}
    if recipe.precision == "auto":
        chosen["precision"] = "bf16" if bf16 else "fp32"
    if recipe.memory_format == "auto":
        chosen["memory_format"] = "contiguous" if device.type == "mps" else "channels-last"
    usual = not recipe.virtual_workers and recipe.batch_norm == "process"
    if recipe.compile == "auto":
        chosen["compile"] = "yes" if device.type == "cuda" and usual else "no"
    if recipe.threads == 0:  # the order of sums depends on it, so with virtual workers it is the same everywhere
        chosen["threads"] = 1 if recipe.virtual_workers else cores()
    if recipe.micro_batch == 0:
        chosen["micro_batch"] = math.ceil(recipe.batch_size / max(1, recipe.virtual_workers))
    return dataclasses.replace(recipe, **chosen)


def prepare(recipe: Recipe) -> torch.device:
    """Pins threads and determinism for the process as the resolved recipe says; returns the device."""
    if "auto" in (recipe.device, recipe.precision, recipe.memory_format, recipe.compile) or recipe.threads == 0:
        raise InputError("recipe: device, precision, memory_format, compile or threads is still 'auto'",
                         "A run states what it ran with.", "Pass it through hardware.resolve(recipe) first.")
    torch.set_num_threads(recipe.threads)
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(recipe.deterministic)
    # Filling fresh memory with NaN would find reads of uninitialised values, at the price of touching every buffer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not recipe.deterministic
    return torch.device(recipe.device)


def seed(device: torch.device, number: int) -> None:
    """Seeds torch's generators for what is drawn on `device`, as `torch.manual_seed` does for every device.

    That one writes down its caller's stack for each kind of device that is not in use: a millisecond a step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Within it torch computes with `count` threads in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def memory_ran_out(error: RuntimeError) -> bool:
    """Whether torch says with `error` that an allocation failed, on a GPU or on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def memory_format(recipe: Recipe) -> torch.memory_format:
    """torch's name of the recipe's memory format."""
    return torch.channels_last if recipe.memory_format == "channels-last" else torch.contiguous_format


def autocast(recipe: Recipe) -> AbstractContextManager[object]:
    """The context in which forward passes run: bf16 autocast, or nothing in fp32."""
    if recipe.precision == "bf16":
        return torch.autocast(torch.device(recipe.device).type, dtype=torch.bfloat16)
    return nullcontext()


def versions() -> dict[str, str]:
    """Python, the packages a number depends on, and the code's revision where it runs from a git checkout."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    found["code"] = revision(Path(__file__).parent.parent)
    return found


def revision(root: Path) -> str:
    """The revision of a git checkout, as "1a2b3c4d5e6f" or, where files differ from it, "1a2b3c4d5e6f-dirty-5d6e7f80".

    The last part is a digest of what differs, so that two states that are not committed have different names. Files
    that git does not know count where they lie in the package.
    """
    if not (root / ".git").exists():
        return "not from a git checkout"

    def git(*words: str) -> bytes:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, timeout=10, check=True).stdout

    try:
        name = git("describe", "--always", "--dirty", "--abbrev=12").decode().strip()
        if not name.endswith("-dirty"):
            return name
        digest = hashlib.sha256(git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color"))
        for file in git("ls-files", "-z", "--others", "--exclude-standard", "layerwise").split(b"\0")[:-1]:
            digest.update(file + b"\0" + (root / os.fsdecode(file)).read_bytes())
    except (OSError, subprocess.SubprocessError):
        return "unknown: git could not tell"
    return f"{name}-{digest.hexdigest()[:8]}"


def _capability() -> str:
    """The instructions that torch computes with, and what limits its libraries to others."""
    limits = [f"{name}={os.environ[name]}" for name in LIMITING if name in os.environ]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *limits])


def describe(recipe: Recipe) -> dict[str, Any]:
    """What a resolved recipe runs on: device, processor, cores, threads, precision, instruction set."""
    device = torch.device(recipe.device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": recipe.threads,
        "precision": recipe.precision,
        "memory_format": recipe.memory_format,
        "compile": recipe.compile,
        "cpu_capability": _capability(),
        "deterministic": recipe.deterministic,
        "system": f"{platform.system()} {platform.machine()}",
    }
