"""Where the files in a tar archive begin, so that they are read in place: nothing is unpacked, nothing written there.

Tars inside of the tar are looked into too, as ImageNet's training pictures lie: a tar of a tar for each class. What
was found is remembered in the user's cache until the archive's size or a time of change differs.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from layerwise.data.scan import cache_folder, file_stamp
from layerwise.data.shards import recall, remember
from layerwise.errors import InputError

DEPTH = 2
UNPACKED = 1 << 30  # bytes in a compressed archive of ours; to pass over a member is to unpack it


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive; `name` of one in an inner tar is "inner.tar/name"."""

    name: str
    offset: int
    size: int


def members(file: Path) -> list[Member]:
    """The regular files of an uncompressed tar, in its order. InputError where it is none, damaged, or cut short."""
    try:
        stamp = file_stamp(file)
    except OSError as problem:
        raise InputError(f"{str(file)!r} can't be read: {problem.strerror or problem}") from None
    key = hashlib.sha256(os.path.abspath(file).encode("utf-8", "surrogateescape")).hexdigest()
    memory = cache_folder() / "members" / f"{key[:32]}.json"
    known = recall(memory, stamp)
    if isinstance(known, list) and len(known) == 3:
        return [Member(*row) for row in zip(*known, strict=True)]
    found: list[Member] = []
    try:
        with open(file, "rb") as stream:
            _walk(stream, 0, stamp[0], "", found)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as problem:
        raise InputError(f"{str(file)!r} is not a whole, uncompressed tar: {problem}",
                         "Pictures are read in place, by their offsets.",
                         "Fetch it again; unpack it first where it is compressed.") from None
    remember(memory, stamp, [[one.name for one in found], [one.offset for one in found], [one.size for one in found]])
    return found


def regular(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files of a compressed archive, one after the other; EOFError where it holds more than 1 GiB."""
    total = 0
    for member in archive:
        total += max(0, member.size)
        if total > UNPACKED:
            raise EOFError(f"it unpacks to more than {UNPACKED:,} bytes")
        if member.isreg() and not member.issparse():
            yield member


def _walk(stream: IO[bytes], start: int, size: int, prefix: str, found: list[Member]) -> None:
    """Adds the files of the tar that takes `size` bytes of the archive from `start` on."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            if not member.isreg() or member.issparse():
                continue
            if member.offset_data + member.size > size:
                raise EOFError(f"{prefix}{member.name} ends behind its end")
            if member.name.endswith(".tar") and prefix.count("/") < DEPTH - 1:
                inner = archive.extractfile(member)
                assert inner is not None
                _walk(inner, start + member.offset_data, member.size, f"{prefix}{member.name}/", found)
            else:
                found.append(Member(prefix + member.name, start + member.offset_data, member.size))
        # tarfile takes a header that is damaged or not there for the end, and is silent about what lies behind it.
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError(f"at byte {start + archive.offset:,} there is neither a header nor the archive's end")
