"""Ctrl-C and the signals of schedulers: the first asks the loop to stop after its step, the second stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

HEARD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK") if hasattr(signal, name))


class Signals:
    """A context in which SIGINT, SIGTERM, SIGUSR1 (and Windows' CTRL_BREAK) are noted instead of obeyed, once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        # Python lets only the main thread handle signals; elsewhere (a notebook's worker) they stay as they are.
        if threading.current_thread() is threading.main_thread():
            for number in HEARD:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 128 and the signal's number after another (143 for SIGTERM)."""
        return 130 if self.received in (None, signal.SIGINT) else 128 + int(self.received)
