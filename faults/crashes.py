"""What a power failure may leave: file operations are recorded, and every state that POSIX allows is built from them.

Data that no fsync of its file made durable may be lost, zeroed, or cut at any page; a name that no fsync of its
directory made durable may be there or not, in any order that keeps the operations on one name in theirs. So a rename
may be on the disk before the data of what it renames, or not at all. The idea is ALICE's (Pillai et al. 2014).
"""

from __future__ import annotations

import builtins
import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest import mock

PAGE = 4096
ROOT = 0  # the number of the recorded folder itself, which is there


@dataclass(frozen=True)
class Data:
    """`content` written at `at` of the file `node`; `at` None cuts the file to `size`."""

    node: int
    at: int | None = None
    content: bytes = b""
    size: int = 0


@dataclass(frozen=True)
class Names:
    """Entries of directories that one operation sets together: (directory, name) -> node, or None for no entry."""

    entries: tuple[tuple[tuple[int, str], int | None], ...]


@dataclass(frozen=True)
class Sync:
    """An fsync of the file or directory `node`."""

    node: int


Step = Data | Names | Sync


@dataclass
class Record:
    """The operations below `root`, in order, and `marks`: how many there were when something was said."""

    root: Path
    steps: list[Step] = field(default_factory=list)
    marks: list[tuple[int, Any]] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    names: dict[Path, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    handles: dict[int, tuple[int, Path]] = field(default_factory=dict)

    def mark(self, what: Any) -> None:
        """Says that `what` is done: it must survive every crash from here on."""
        self.marks.append((len(self.steps), what))

    def node(self, path: Path) -> int | None:
        return ROOT if path == self.root else self.names.get(path)

    def key(self, path: Path) -> tuple[int, str]:
        parent = self.node(path.parent)
        assert parent is not None, f"{path.parent} was not recorded"
        return parent, path.name

    def add(self, path: Path, folder: bool = False) -> int:
        number = len(self.sizes) + 1
        self.sizes[number] = 0
        if folder:
            self.folders.add(number)
        self.steps.append(Names(((self.key(path), number),)))
        self.names[path] = number
        return number

    def remove(self, path: Path) -> None:
        self.steps.append(Names(((self.key(path), None),)))
        del self.names[path]

    def move(self, source: Path, target: Path) -> None:
        number = self.names[source]
        self.steps.append(Names(((self.key(source), None), (self.key(target), number))))
        moved = {path: one for path, one in self.names.items() if path == source or source in path.parents}
        for path in moved:
            del self.names[path]
        self.names |= {target / path.relative_to(source): one for path, one in moved.items()}

    def opened(self, path: Path, mode: str) -> int:
        found = self.node(path)
        if found is None:
            return self.add(path)
        if "w" in mode and self.sizes[found]:
            self.cut(found, 0)
        return found

    def write(self, node: int, content: bytes) -> None:
        self.steps.append(Data(node, self.sizes[node], content))
        self.sizes[node] += len(content)

    def cut(self, node: int, size: int) -> None:
        self.steps.append(Data(node, None, size=size))
        self.sizes[node] = size


class _File:
    """A file open for writing, whose writes are recorded as they are made."""

    def __init__(self, record: Record, file: Any, node: int) -> None:
        self.record, self.file, self.number = record, file, node

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if not self.file.closed:
            self.record.handles.pop(self.file.fileno(), None)
        self.file.close()

    def write(self, content: bytes) -> int:
        self.record.write(self.number, bytes(content))
        return cast(int, self.file.write(content))


@contextlib.contextmanager
def recorded(root: Path) -> Iterator[Record]:
    """Records what this process does below `root`: open for writing, write, truncate, fsync, mkdir, rename, unlink."""
    record = Record(root)
    real = {name: getattr(os, name) for name in ("open", "close", "fsync", "mkdir", "rename", "replace", "unlink",
                                                 "rmdir", "truncate", "utime")}
    real_open = builtins.open

    def place(path: Any, folder: int | None = None) -> Path | None:
        if isinstance(path, int):
            return record.handles[path][1] if path in record.handles else None
        whole = (record.handles[folder][1] if folder in record.handles else Path()) / os.fsdecode(path)
        return whole if whole == root or root in whole.parents else None

    def open_(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        path = place(file)
        stream = real_open(file, mode, *arguments, **named)
        if path is None or not set(mode) & set("wax+"):
            return stream
        assert "b" in mode, "text files are not recorded"
        node = record.opened(path, mode)
        record.handles[stream.fileno()] = (node, path)
        return _File(record, stream, node)

    def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        found = place(path, dir_fd)
        handle = cast(int, real["open"](path, flags, mode, dir_fd=dir_fd))
        if found is not None:
            node = record.node(found)
            if node is None:
                node = record.add(found)
            record.handles[handle] = (node, found)
        return handle

    def close(handle: int) -> None:
        record.handles.pop(handle, None)
        real["close"](handle)

    def fsync(handle: int) -> None:
        real["fsync"](handle)
        if handle in record.handles:
            record.steps.append(Sync(record.handles[handle][0]))

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real["mkdir"](path, mode, dir_fd=dir_fd)
        if (found := place(path, dir_fd)) is not None:
            record.add(found, folder=True)

    def moving(name: str) -> Callable[..., None]:
        def move(source: Any, target: Any) -> None:
            real[name](source, target)
            found, there = place(source), place(target)
            if found is not None and there is not None:
                record.move(found, there)
        return move

    def removing(name: str) -> Callable[..., None]:
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            real[name](path, dir_fd=dir_fd)
            if (found := place(path, dir_fd)) is not None:
                record.remove(found)
        return remove

    def truncate(path: Any, size: int) -> None:
        real["truncate"](path, size)
        if (found := place(path)) is not None:
            node = record.node(found)
            assert node is not None
            record.cut(node, size)

    with contextlib.ExitStack() as stack:
        patches: dict[str, Any] = {
            "open": os_open, "close": close, "fsync": fsync, "mkdir": mkdir, "rename": moving("rename"),
            "replace": moving("replace"), "unlink": removing("unlink"), "rmdir": removing("rmdir"),
            "truncate": truncate,
        }
        for name, function in patches.items():
            stack.enter_context(mock.patch.object(os, name, function))
        stack.enter_context(mock.patch.object(builtins, "open", open_))
        # rmtree asks whether these very functions take a directory's handle.
        stack.enter_context(mock.patch.object(shutil, "_use_fd_functions", False))
        yield record


class Disk:
    """The operations of a record, and the states that a crash among them may leave."""

    def __init__(self, record: Record) -> None:
        self.steps, self.folders = record.steps, record.folders
        self.writes: dict[int, list[tuple[int, Data]]] = {}
        for at, step in enumerate(self.steps):
            if isinstance(step, Data):
                self.writes.setdefault(step.node, []).append((at, step))
        self._known: tuple[int, set[int]] = (-1, set())
        self._bytes: dict[int, tuple[bytes, bytes]] = {}  # of files, after as many operations

    def crash(self, done: int, draw: random.Random) -> dict[str, bytes | None]:
        """One legal state after `done` operations: the files below the root by path (None: a directory)."""
        durable = self._durable(done)
        style = draw.choice(("all", "none", "one missing", "one alone", "any"))
        pending = [at for at in range(done) if at not in durable and isinstance(self.steps[at], Names)]
        chosen = draw.choice(pending) if pending else -1
        keep: dict[str, Callable[[int], bool]] = {
            "all": lambda at: True, "none": lambda at: False, "one missing": lambda at: at != chosen,
            "one alone": lambda at: at == chosen, "any": lambda at: draw.random() < 0.5,
        }
        entries: dict[tuple[int, str], int | None] = {}
        blocked: set[tuple[int, str]] = set()
        needed = self._before(chosen, pending) if style == "one alone" else set()
        for at in range(done):
            step = self.steps[at]
            if not isinstance(step, Names):
                continue
            keys = {key for key, _ in step.entries}
            # What comes later on a name that an operation did not reach did not reach it either.
            if at not in durable and (blocked & keys or not (keep[style](at) or at in needed)):
                blocked |= keys
                continue
            entries.update(step.entries)
        contents = {node: self._content(node, done, durable, draw) for node in entries.values() if node is not None
                    and node not in self.folders}
        return self._tree(entries, contents)

    def _durable(self, done: int) -> set[int]:
        """The operations that an fsync among the first `done` made durable."""
        if self._known[0] == done:
            return self._known[1]
        found: set[int] = set()
        waiting: dict[int, list[int]] = {}
        for at, step in enumerate(self.steps[:done]):
            if isinstance(step, Sync):
                found.update(waiting.pop(step.node, []))
            elif isinstance(step, Data):
                waiting.setdefault(step.node, []).append(at)
            else:
                for (folder, _), _ in step.entries[:1]:  # all renames here stay in their directory
                    waiting.setdefault(folder, []).append(at)
        self._known, self._bytes = (done, found), {}
        return found

    def _before(self, chosen: int, pending: list[int]) -> set[int]:
        """The pending operations that `chosen` can't be without: those before it on the same names."""
        found, step = {chosen}, self.steps[chosen] if chosen >= 0 else None
        keys = {key for key, _ in step.entries} if isinstance(step, Names) else set()
        for at in reversed([one for one in pending if one < chosen]):
            before = self.steps[at]
            if isinstance(before, Names) and keys & {key for key, _ in before.entries}:
                found.add(at)
                keys |= {key for key, _ in before.entries}
        return found

    def _content(self, node: int, done: int, durable: set[int], draw: random.Random) -> bytes:
        if node not in self._bytes:
            steps = [(at, step) for at, step in self.writes.get(node, []) if at < done]
            self._bytes[node] = (_played([step for at, step in steps if at in durable]),
                                 _played([step for _, step in steps]))
        safe, whole = self._bytes[node]
        if safe == whole:
            return whole
        if not whole.startswith(safe):  # it was cut
            return draw.choice((safe, whole))
        same = len(safe)
        fate = draw.choice(("whole", "lost", "zeroed", "cut", "page zeroed"))
        if fate == "whole":
            return whole
        if fate == "lost":
            return safe
        if fate == "zeroed":
            return whole[:same] + bytes(len(whole) - same)
        pages = range(same // PAGE, len(whole) // PAGE + 1)
        page = draw.choice(pages) * PAGE
        if fate == "cut":
            return whole[: max(same, page)]
        first, last = max(same, page), min(len(whole), page + PAGE)
        return whole[:first] + bytes(max(0, last - first)) + whole[max(first, last):]

    def _tree(self, entries: dict[tuple[int, str], int | None], contents: dict[int, bytes]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        below: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), node in entries.items():
            if node is not None:
                below.setdefault(folder, []).append((name, node))
        todo = [(ROOT, "")]
        while todo:
            folder, path = todo.pop()
            for name, node in below.get(folder, []):
                found[path + name] = contents.get(node)
                if node in self.folders:
                    todo.append((node, f"{path}{name}/"))
        return found


def _played(steps: list[Data]) -> bytes:
    content = bytearray()
    for step in steps:
        content[step.size if step.at is None else step.at :] = step.content
    return bytes(content)


def build(state: dict[str, bytes | None], folder: Path) -> None:
    """Writes a state of the disk below `folder`, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
