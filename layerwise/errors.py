"""Typed errors with exit codes, and the one place that formats them.

Every message has three parts: what is wrong (with the file, field or value first), why it matters, and the one
command or edit that mends it. Several problems of one kind are reported together: the first five are shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SHOWN = 5


class LayerwiseError(Exception):
    """An error that a user can act on.

    `what` is the first line, `why` says why it matters, `mend` is the command or edit that mends it, `details` are
    further problems of the same kind, of which the first five are shown. `exit_code` is the command's exit status.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", mend: str = "", details: Sequence[str] = ()) -> None:
        self.what, self.why, self.mend, self.details = what, why, mend, tuple(details)
        shown = [f"  - {detail}" for detail in self.details[:SHOWN]]
        if len(self.details) > SHOWN:
            shown.append(f"  - and {len(self.details) - SHOWN} more")
        super().__init__("\n".join(line for line in (what, *shown, why, mend) if line))


class InputError(LayerwiseError, ValueError):
    """Bad input or configuration: a path, picture, recipe field, model file or checkpoint."""

    exit_code = 2


class MachineError(LayerwiseError, RuntimeError):
    """The environment can't do it: a device, memory, disk space, the network, a missing package."""

    exit_code = 3


class ToleranceError(LayerwiseError, ArithmeticError):
    """A result lies outside its tolerance: a non-finite number, a digest or parity that does not agree."""

    exit_code = 4


class Interrupted(LayerwiseError):
    """Stopped by Ctrl-C (130) or SIGTERM (143) after the state was saved."""

    def __init__(self, what: str, mend: str = "", exit_code: int = 130) -> None:
        super().__init__(what, mend=mend)
        self.exit_code = exit_code


def noun(number: object, things: str) -> str:
    """`things`, which are in the plural, or one of them where there is 1."""
    return things.removesuffix("s") if number == 1 else things


def amount(number: float, things: str) -> str:
    """`1 epoch`, `2 epochs`, `0.5 epochs`, `1,200 iterations`: a number of `things`, which are in the plural."""
    return f"{number:,.10g} {noun(number, things)}"


def nearest(name: str, names: Iterable[str]) -> str:
    """The clause ", did you mean ...?" with up to three names like `name`, or "" where none is alike."""
    alike = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f", did you mean {' or '.join(repr(other) for other in alike)}?" if alike else ""
