"""A process's side of `jobs.launch`: signs of life to the launcher, and an end when that is gone.

It begins before torch is imported, which takes seconds. A process that no launcher started does nothing here.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
import threading
import time

PIPE, LAUNCHER, RESTARTED = "LAYERWISE_PIPE", "LAYERWISE_LAUNCHER", "LAYERWISE_RESTARTED"
STORE = "LAYERWISE_STORE"  # a file of one attempt, over which the processes find each other
EVERY = 1.0  # seconds between two signs of life
PR_SET_PDEATHSIG = 1


def begin() -> None:
    """Starts the signs of life; from here on this process ends with its launcher, and SIGUSR2 prints its traceback."""
    if PIPE not in os.environ:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[LAUNCHER]):  # it died before the line above
        os._exit(128 + signal.SIGKILL)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    threading.Thread(target=_beat, args=(int(os.environ[PIPE]),), name="layerwise-heartbeat", daemon=True).start()


def _beat(pipe: int) -> None:
    try:
        while True:
            os.write(pipe, b"alive\n")
            time.sleep(EVERY)
    except OSError:  # nobody reads any more: where the system has no PR_SET_PDEATHSIG this is how it is noticed
        os._exit(128 + signal.SIGKILL)


def tell(word: str, text: str = "") -> None:
    """Tells the launcher `word` with `text`; nothing without one.

    run: the run's directory; made: the same, which this process made just now; done: all is written.
    """
    if PIPE in os.environ:
        with contextlib.suppress(OSError):  # the launcher is gone, and so is this process in a moment
            os.write(int(os.environ[PIPE]), f"{word} {json.dumps(text)}\n".encode())


def restarted() -> str:
    """Why the launcher started the processes again, "" at the first start."""
    return os.environ.get(RESTARTED, "")
