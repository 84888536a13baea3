"""Several processes of one machine, started by torchrun or `jobs.launch`: who they are, sums, agreement, first words.

The first (rank 0) alone writes and speaks. What can fail stands in `together`: it fails on all or on none, so that
nobody waits for one that has left. Words travel as JSON and arrays as safetensors: torch's own collectives for objects
would unpickle what they receive. A process that is alone makes no call of torch.distributed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor, nn

from layerwise import heartbeat
from layerwise.errors import InputError, LayerwiseError, MachineError, ToleranceError

TIMEOUT = timedelta(minutes=30)  # the longest that one process waits for another
KINDS: tuple[type[LayerwiseError], ...] = (InputError, MachineError, ToleranceError, LayerwiseError)
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes that work together, this one's `rank` among `size`. Each method is called by all of them."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def device(self, wanted: torch.device | str) -> torch.device:
        """The device of this process: of several on CUDA each has the one of its rank. Raises MachineError."""
        device, count = torch.device(wanted), torch.cuda.device_count()
        if self.size > 1 and device.type != "cpu" and (device.type != "cuda" or count < self.size):
            raise MachineError(f"{self.size} processes on {device.type}: {count} CUDA devices are here",
                               "Each process needs one of its own.", "Start fewer, or set device=cpu.")
        return device if self.size == 1 or device.type == "cpu" else torch.device("cuda", self.rank)

    def exchange(self, value: Any) -> list[Any]:
        """What each process says (JSON), in the order of their ranks."""
        if self.size == 1:
            return [value]
        return [json.loads(data) for data in self._collected(json.dumps(value).encode(), everyone=True)]

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Every process's tensors, on the first process; on the others nothing."""
        if self.size == 1:
            return [dict(tensors)]
        return [load(data) for data in self._collected(save(dict(tensors)), everyone=False)]

    def vectors(self, mine: Tensor | None, device: torch.device) -> list[Tensor | None]:
        """Each process's vector (L,) on `device`, of one length, in the order of the ranks; None where one has none."""
        if self.size == 1:
            return [mine]
        told = self.exchange(None if mine is None else len(mine))
        length = next((one for one in told if one is not None), 0)
        if not length:
            return list(told)
        sent = torch.zeros(length, device=device) if mine is None else mine.contiguous()
        parts = [torch.empty_like(sent) for _ in told]
        with self._reaching():
            dist.all_gather(parts, sent)
        return [None if one is None else part for one, part in zip(told, parts, strict=True)]

    def _collected(self, data: bytes, everyone: bool) -> list[bytes]:
        mine = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        with self._reaching():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(mine)]))
            longest = int(max(lengths))
            padded = torch.cat([mine, mine.new_zeros(longest - len(mine))])
            parts = [mine.new_empty(longest) for _ in lengths] if everyone or self.first else []
            if everyone:
                dist.all_gather(parts, padded)
            else:
                dist.gather(padded, parts or None)
        return [part[:int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=False)]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raises on all where one raises inside: its own error, or the first other's. None waits for others inside."""
        mine: Exception | None = None
        try:
            yield
        except Exception as error:
            mine = error
        told = self.exchange(None if mine is None else _described(mine))
        if mine is not None:
            raise mine
        for rank, words in enumerate(told):
            if words is not None:
                kind, what, *rest = words
                raise KINDS[kind](f"process {rank}: {what}" if rank else what, *rest)

    def from_first(self, work: Callable[[], T]) -> T:
        """The first process does `work`; the others get what it returns, through JSON. Its error is everyone's."""
        found: list[T] = []
        with self.together():
            if self.first:
                found.append(work())
        told = self.exchange(found)
        return (found or told[0])[0]

    def add(self, *numbers: float) -> tuple[float, ...]:
        """The sums of `numbers` over the processes, in float64."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.float64)
        with self._reaching():
            dist.all_reduce(values)
        return tuple(values.tolist())

    def add_tensor(self, tensor: Tensor) -> None:
        """Makes `tensor` its sum over the processes."""
        if self.size > 1:
            with self._reaching():
                dist.all_reduce(tensor)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Makes each gradient its sum over the processes; a missing one counts as 0."""
        for one in (trained := [one for one in parameters if one.requires_grad and self.size > 1]):
            one.grad = torch.zeros_like(one) if one.grad is None else one.grad
        self._flat([one.grad for one in trained if one.grad is not None], dist.all_reduce)

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites `tensors` with the first process's."""
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors if self.size > 1):  # in this order on all
            self._flat([tensor for tensor in tensors if tensor.dtype == kind], lambda flat: dist.broadcast(flat, 0))

    @torch.no_grad()
    def _flat(self, tensors: Sequence[Tensor], act: Callable[[Tensor], object]) -> None:
        """Lets `act` change all tensors as one buffer, so that one message travels."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._reaching():
            act(flat)
        for tensor, part in zip(tensors, flat.split([one.numel() for one in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise MachineError(f"process {self.rank} of {self.size}: lost the others ({str(error).splitlines()[0]})",
                               "One of them ended or is stuck; its own message says why.",
                               "Start all of them again; a run goes on with layerwise resume.") from None


_current = ALONE = World()


def world() -> World:
    """The processes that this one works with: itself alone outside of `joined`."""
    return _current


@contextmanager
def joined() -> Iterator[World]:
    """Joins the processes that were started with this one, and leaves them at the end; inside another it is that.

    At the end each waits for the others, so that none is missed by one that still has something to say.
    Raises InputError for an environment that does not hold together, MachineError where the others don't come.
    """
    global _current
    found = _announced()
    if found.size == 1 or _current.size > 1:
        yield _current
        return
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= found.size
    if cuda:
        torch.cuda.set_device(found.rank)
    with found._reaching():
        store = os.environ.get(heartbeat.STORE)
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", f"file://{store}" if store else "env://",
                                timeout=TIMEOUT, rank=found.rank, world_size=found.size)
    _current = found
    try:
        yield found
        found.exchange(None)
        heartbeat.tell("done")
    finally:
        _current = ALONE
        dist.destroy_process_group()


def first_speaks() -> None:
    """From here on what this process prints as a result leads nowhere, unless it is the first: results come once."""
    if not _announced().first:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _announced() -> World:
    """The world that torchrun's variables describe; alone where there are none."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return ALONE
    rank, local = os.environ.get("RANK", ""), os.environ.get("LOCAL_WORLD_SIZE", size)
    if not (size.isdecimal() and rank.isdecimal() and int(rank) < int(size) == int(local)):
        raise InputError(f"RANK={rank!r}, WORLD_SIZE={size!r}, LOCAL_WORLD_SIZE={local!r}: not those of one machine",
                         "All processes read and write the same folders.",
                         "Start with layerwise ... --processes N or torchrun --nproc-per-node N -m layerwise ...,"
                         " or unset these variables.")
    return World(int(rank), int(size))


def _described(error: Exception) -> list[Any]:
    """The arguments of the same error for another process, after its place in KINDS."""
    known = error if isinstance(error, LayerwiseError) else LayerwiseError(f"{type(error).__name__}: {error}")
    kind = next(place for place, kind in enumerate(KINDS) if isinstance(known, kind))
    return [kind, known.what, known.why, known.mend, list(known.details)]
