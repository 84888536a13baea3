"""Threads for the loader's work, which may hang on a file: neither the run nor the end of its process does.

An executor of the standard library would keep the process from ending until its last thread does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

Made = TypeVar("Made")
TICK = 0.5  # seconds between two looks at whether the work goes on


class Workers:
    """A number of threads that do what is submitted, in its order."""

    def __init__(self, count: int, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads = [Thread(target=self._work, name=f"{name}_{number}", daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[..., Made], *arguments: Any) -> Future[Made]:
        """Has `work` done; what it raises is raised by the future's result."""
        future: Future[Made] = Future()
        self._jobs.put((future, work, arguments))
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work, arguments = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*arguments))
                except BaseException as error:  # the thread lives on, whatever it was
                    future.set_exception(error)
            del job, future, work, arguments  # a waiting thread holds no batch

    def cancel(self) -> None:
        """Takes back what no thread has begun, and lets the threads end."""
        try:
            while (job := self._jobs.get_nowait()) is not None:
                job[0].cancel()
        except Empty:
            pass
        for _ in self._threads:
            self._jobs.put(None)

    def close(self, patience: float) -> None:
        """`cancel`, and waits at most so many seconds for the threads."""
        self.cancel()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


class Progress:
    """What the threads have in hand, and how often one was done with something."""

    def __init__(self) -> None:
        self._lock, self._done, self._begun = Lock(), 0, dict[object, str]()

    def begin(self, key: object, name: str) -> None:
        """A thread takes something called `name` in hand."""
        with self._lock:
            self._begun[key] = name

    def end(self, key: object) -> None:
        """It is done with it, well or not."""
        with self._lock:
            self._begun.pop(key, None)
            self._done += 1

    def begun(self) -> list[str]:
        """The names of what is in hand."""
        with self._lock:
            return list(self._begun.values())

    def stalls(self, future: Future[Any], patience: float) -> bool:
        """Waits for a future; True where for so many seconds nothing is done.

        Seconds are counted in ticks that this thread waited, so that a stopped process has not waited.
        """
        quiet, seen = 0.0, self._done
        while not wait([future], TICK).done:
            quiet, seen = (quiet + TICK, seen) if seen == self._done else (0.0, self._done)
            if quiet >= patience:
                return True
        return False
