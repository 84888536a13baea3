"""A picture that is a part of a larger file, such as a member of a tar archive: read by its offset, here or remotely.

A remote file is named by an address with "://" and read through fsspec (the extra `remote`), only the bytes asked for.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from layerwise.data.images import ImageFacts
from layerwise.errors import InputError, MachineError


@dataclass(frozen=True)
class Scanned:
    """What is known of one picture: either `facts` or `error` is set."""

    sha256: str  # of the file's bytes, "" where it can't be read
    error: str  # why it can't be opened, with its path
    facts: ImageFacts | None
    pixels_sha256: str  # of the decoded pixels and their shape
    perceptual: int  # 64 bits, see `scan.perceptual_hash`


@dataclass(frozen=True, slots=True)
class Slice:
    """`size` bytes of `file` (a path or an address) from `offset` on, which are the picture called `name`.

    `known` is what was found in it when it was written there, under the rules of `ImageRules()` but for its largest
    number of pixels; its bytes must then have that SHA-256.
    """

    file: str
    offset: int
    size: int
    name: str
    known: Scanned | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    @property
    def suffix(self) -> str:
        """The extension of the picture's name, with its dot."""
        return PurePosixPath(self.name).suffix

    def read_bytes(self) -> bytes:
        """The picture's bytes. InputError where they can't be read or are not those that were written there."""
        data = read_range(self.file, self.offset, self.size)
        if len(data) != self.size:
            raise InputError(f"{str(self)!r} is truncated at {len(data):,} of {self.size:,} bytes")
        if self.known is not None and hashlib.sha256(data).hexdigest() != self.known.sha256:
            raise InputError(f"{str(self)!r} is damaged: its SHA-256 is not the one in the index")
        return data


Source = Path | Slice  # where a picture lies


def is_remote(place: str) -> bool:
    """Whether `place` is an address, such as s3://bucket/folder, and no path."""
    return "://" in place


def read_range(file: str, offset: int, size: int) -> bytes:
    """At most `size` bytes of a file from `offset` on; fewer where it ends.

    Raises InputError where there is none or it can't be read, MachineError where a remote one does not answer, or
    with more than was asked for.
    """
    if is_remote(file):
        found = bytes(_asked(file, lambda system, path: system.cat_file(path, start=offset, end=offset + size)))
        if len(found) > size:
            raise MachineError(f"{file!r}: {len(found):,} bytes came where {size:,} were asked for",
                               "Its server ignores ranges, so that each picture would cost the whole file.",
                               "Put the shards on a server that serves ranges, or copy them to this machine.")
        return found
    try:
        opened = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # half of what `open` takes
        try:
            os.lseek(opened, offset, os.SEEK_SET)
            data = os.read(opened, size)
            while len(data) < size and (more := os.read(opened, size - len(data))):
                data += more
            return data
        finally:
            os.close(opened)
    except OSError as problem:
        raise InputError(f"{file!r} can't be read: {problem.strerror or problem}") from None


def read_whole(file: str) -> bytes:
    """All bytes of a file; raises what `read_range` raises."""
    return read_range(file, 0, size_of(file))


def size_of(file: str) -> int:
    """The length of a file in bytes; raises what `read_range` raises."""
    if is_remote(file):
        size = _asked(file, lambda system, path: system.size(path))
        if size is None:
            raise MachineError(f"{file!r}: its server does not tell its length",
                               "Shards are compared with their lengths before a picture is read.",
                               "Put the shards on a server that tells it, or copy them to this machine.")
        return int(size)
    try:
        return Path(file).stat().st_size
    except OSError as problem:
        raise InputError(f"{file!r} can't be read: {problem.strerror or problem}") from None


def _asked(address: str, question: Any) -> Any:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MachineError(f"{address!r}: remote data need the package fsspec",
                           mend="In the checkout of Layerwise: pip install -c constraints.txt '.[remote]'") from None
    try:
        system, path = url_to_fs(address)
        return question(system, path)
    except FileNotFoundError:
        raise InputError(f"{address!r} does not exist",
                         "What lies at an address is read as shards; folders of pictures are read here alone.",
                         "Check the address. `layerwise pack FOLDER --to DIR` makes shards; put DIR there.") from None
    except (ImportError, ValueError) as problem:  # an unknown protocol, or one whose package is not installed
        raise MachineError(f"{address!r} can't be asked: {problem}") from None
    except Exception as problem:  # each file system has errors of its own; a picture must not be left out for any
        raise MachineError(f"{address!r} can't be read: {type(problem).__name__}: {problem}",
                           "Left out, its pictures would change the training without a trace.",
                           "Try again; `layerwise resume` goes on where a run stopped.") from None
