"""One process at a time on a piece of work: a lock file that holds the process's number.

The system keeps the lock and drops it when the process ends, however it ends: a file left behind by a killed process
is taken over, and a number that the system gave to another process since misleads nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwise.checkpoint import make_durably, naming


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Holds the lock file at `path` inside; gives 0, or the number of the process that holds it instead.

    The number is -1 where the other did not write it yet. Where the system has no such locks, everyone gets one.
    """
    make_durably(path.parent)
    with open(path, "a+", encoding="ascii") as file:
        if not _take(file.fileno()):
            file.seek(0)
            text = file.read().strip()
            yield int(text) if text.isdecimal() else -1
            return
        with naming(path):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield 0
        file.truncate(0)


def _take(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two processes there from the same work
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, as some of a network's are: no reason not to train on it
        return True
    return True
