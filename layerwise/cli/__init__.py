"""The command line: `main` runs a command and turns every error into a message and an exit status."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from layerwise import heartbeat
from layerwise.cli import (
    comparing,
    drilling,
    explaining,
    importing,
    looking,
    measuring,
    packing,
    predicting,
    reproducing,
    training,
    tuning,
)
from layerwise.cli.app import app, globals_first
from layerwise.cli.tables import flush_json
from layerwise.console import SETTINGS, Progress, Settings, note
from layerwise.errors import InputError, Interrupted, LayerwiseError, MachineError, nearest

__all__ = ["app", "main"]

KINDS = {1: "internal", 2: "input", 3: "machine", 4: "tolerance"}  # others: interrupted by a signal

for group in (training, measuring, comparing, explaining, predicting, importing, packing, looking, tuning, reproducing,
              drilling):
    group.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command in `arguments` (sys.argv where None) and returns the exit status; never raises."""
    heartbeat.begin()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end a command
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name, value in vars(Settings()).items():
        setattr(SETTINGS, name, value)
    try:
        status = typer.main.get_command(app).main(globals_first(words), prog_name="layerwise", standalone_mode=False)
        flush_json()
        sys.stdout.flush()  # here, where a full disk or a reader that went away can still be told
        if status == 130:  # typer turns KeyboardInterrupt into this status
            raise Interrupted("interrupted: stopped by Ctrl-C before there was anything to save")
    except (BrokenPipeError, SystemExit):  # typer turns the first into the second
        return _reader_gone()
    except Exception as error:
        return _report(error, words)
    return status if isinstance(status, int) else 0


def _reader_gone() -> int:
    """The reader of our output, such as `head`, has seen enough: that is no error, and nothing more is written."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _report(error: Exception, words: Sequence[str]) -> int:
    Progress.clear()
    known = as_known(error, words)
    if "--debug" in words or (known.exit_code == 1 and heartbeat.PIPE in os.environ):  # one of several: it counts
        traceback.print_exception(error, file=sys.stderr)
    note(f"{'' if isinstance(known, Interrupted) else 'error: '}{known}")
    if "--json" in words or "--format=json" in words or ("--format", "json") in itertools.pairwise(words):
        parts = {"what": known.what, "why": known.why, "mend": known.mend, "details": list(known.details)}
        flush_json({"kind": KINDS.get(known.exit_code, "interrupted"), "exit_code": known.exit_code, **parts})
    return known.exit_code


def as_known(error: Exception, words: Sequence[str]) -> LayerwiseError:
    """`error` as one of ours: usage errors with the nearest name, errors of the system, and the unexpected ones."""
    if isinstance(error, LayerwiseError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage_error(error, words)
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return InputError(f"{error.filename}: {error.strerror}")
    if isinstance(error, OSError) and error.strerror and (error.filename is not None or error.errno == errno.ENOSPC):
        where = "" if error.filename is None else f"{error.filename}: "
        return MachineError(f"{where}{error.strerror}", mend="Check its permissions and the free space.")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _torch_ran_out(error)):
        return MachineError("out of memory", mend="Lower the batch with --set micro_batch=..., of bench with "
                            "--batches.")
    debug = "" if "--debug" in words else "Run the command again with --debug for the traceback, and report it."
    message = " ".join(str(error).split())
    return LayerwiseError(f"internal error: {type(error).__name__}: {message}", mend=debug)


def _torch_ran_out(error: RuntimeError) -> bool:
    from layerwise.hardware import memory_ran_out  # torch is imported by now, or costs a second once

    return memory_ran_out(error)


def _usage_error(error: typer.TyperException, words: Sequence[str]) -> InputError:
    context = getattr(error, "ctx", None)
    names = [item.name or "" for item in app.registered_commands]
    named = next((f"layerwise {word}" for word in words if word in names), "layerwise")
    command = context.command_path if context is not None else named
    text = getattr(error, "message", "") or error.format_message()
    option = getattr(error, "option_name", None)
    if context is not None and option is not None and text.startswith("No such option"):
        options = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        text = f"{option}: {command} has no such option{nearest(option, options)}"
    elif text.startswith("No such command"):
        wanted = next((word for word in globals_first(words) if not word.startswith("-") and word in text), "")
        text = f"{wanted}: there is no such command{nearest(wanted, names)}"
    else:
        text = f"{command}: {error.format_message()}"
    return InputError(text.rstrip("."), mend=f"`{command} --help` lists what it takes.")
