"""Words to the user: lines, percentages, durations and the moving line of progress.

Results go to standard output, messages and progress to standard error. Colour and the moving line are for terminals
only: not with --no-colour, NO_COLOR, TERM=dumb, or when the stream is a file or a pipe.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO


@dataclass
class Settings:
    """The global options of one call of the command line."""

    debug: bool = False
    no_colour: bool = False
    offline: bool = False
    data_dir: str = ""
    confirmed: bool = False
    exact: bool = False


SETTINGS = Settings()


def version() -> str:
    """The version of the installed package, or of the source tree it runs from."""
    from importlib import metadata

    try:
        return metadata.version("layerwise")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"


def colour_wanted(stream: TextIO, no_colour: bool = False) -> bool:
    """Whether `stream` may get colour and a moving line."""
    plain = no_colour or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return not plain and stream.isatty()


def safe(text: str) -> str:
    """`text` with control characters written as escapes, so that a file's name can't move the cursor.

    Spaces that do not break are a space: no terminal obeys them, and tables for the page have them before a unit.
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t"
                   else " " if letter in "\u00a0\u202f" else repr(letter)[1:-1] for letter in text)


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage, `-` where it is undefined."""
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.{digits}f} %"


def number(value: float | None) -> str:
    """A number with four decimals, `-` where it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def interval(bounds: Sequence[float] | None, digits: int = 2) -> str:
    """A 95 % interval of a fraction, as percentages: `1.20 to 2.31 %`."""
    return "-" if bounds is None else f"{100 * bounds[0]:.{digits}f} to {100 * bounds[1]:.{digits}f} %"


def duration(seconds: float) -> str:
    """Seconds as `12 s`, `3 min 5 s` or `2 h 10 min`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def out(text: str = "") -> None:
    """Prints a line of a result on standard output."""
    sys.stdout.write(safe(text) + "\n")


def note(text: str) -> None:
    """Prints a line for the reader, not for a program, on standard error."""
    Progress.clear()
    sys.stderr.write(safe(text) + "\n")
    sys.stderr.flush()


def agreed(question: str) -> bool:
    """Whether the person at the terminal answers yes; False where there is none."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    Progress.clear()
    sys.stderr.write(f"{safe(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Progress:
    """One moving line on a terminal, drawn at most ten times a second; nothing where there is no terminal."""

    _shown = False
    _last = 0.0

    @classmethod
    def line(cls, text: str) -> None:
        """Draws `text` over the line before."""
        now = time.monotonic()
        if now - cls._last < 0.1 or not colour_wanted(sys.stderr, SETTINGS.no_colour):
            return
        cls._last, cls._shown = now, True
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
        sys.stderr.write("\r\x1b[2K" + safe(text)[:width])
        sys.stderr.flush()

    @classmethod
    def clear(cls) -> None:
        """Takes the moving line away before something else is printed."""
        if cls._shown:
            sys.stderr.write("\r\x1b[2K")
            cls._shown = False


def progress_of(what: str) -> Callable[[int, int], None]:
    """A function of (done, all) that draws `what` and how far it is as the moving line."""
    def draw(done: int, total: int) -> None:
        if done >= total:
            Progress.clear()
        else:
            Progress.line(f"{what}: {done:,} of {total:,}")

    return draw
