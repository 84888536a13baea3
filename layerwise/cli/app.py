"""The application and its global options. Each command parses, then calls one function."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from layerwise.console import SETTINGS, out
from layerwise.errors import InputError

EPILOG = (
    "The global options (--data-dir, --offline, --yes, --exact, --no-colour, --debug) may stand anywhere. Results go "
    "to standard output, messages to standard error. Exit status: 0 done, 1 internal error, 2 bad input or "
    "configuration, 3 the machine can't, 4 a result outside its tolerance, 130 or 143 interrupted."
)


# The interpreter ends with two searches for garbage among a million objects, most of them torch's: 0.7 of the 3.1 s of
# `import torch`. The system takes the memory back all the same; what must be closed at the end is closed by name.
atexit.register(gc.freeze)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For a command's large imports: Python looks for no garbage among what is there to stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Commands(TyperGroup):
    """The commands, each with its whole line in the help, wrapped; typer's own plain help cuts it off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join((self.commands[name].help or "").split()))
                                for name in self.list_commands(ctx)])


app = typer.Typer(
    name="layerwise",
    cls=Commands,
    rich_markup_mode=None,  # rich's parser of Markdown took half of the time that --help takes
    help="Trains, tests and uses the convolutional networks of the papers.",
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FLAGS = ("--debug", "--no-colour", "--no-color", "--offline", "--yes", "--exact")
VALUED = ("--data-dir",)


def globals_first(words: Sequence[str]) -> list[str]:
    """`words` with the global options moved before the command, so that they may stand anywhere before `--`."""
    front: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return front + rest + list(words[index:])
        if word in FLAGS or (word.split("=")[0] in VALUED and "=" in word):
            front.append(word)
        elif word in VALUED and index + 1 < len(words):
            front += words[index:index + 2]
            index += 1
        else:
            rest.append(word)
        index += 1
    return front + rest


def _print_version(wanted: bool) -> None:
    if wanted:
        from layerwise.console import version

        out(f"layerwise {version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    data_dir: Annotated[str, typer.Option(metavar="DIR", help="Where named data sets are looked for first.",
                                          show_default=False)] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Make no network call.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Go on without asking, where a network does not suit the input "
                                      "or a cost is to be agreed to.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="With train: the same bits on 1, 2, 4 or 8 processes (a small "
                                        "batch: fewer), at a price that is said.")] = False,
    no_colour: Annotated[bool, typer.Option("--no-colour", "--no-color",
                                            help="No colour and no moving line (also: NO_COLOR).")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True,
                                          callback=_print_version)] = False,
) -> None:
    """Trains, tests and uses the convolutional networks of the papers."""
    SETTINGS.data_dir, SETTINGS.offline, SETTINGS.confirmed = data_dir, offline, yes
    SETTINGS.no_colour, SETTINGS.debug, SETTINGS.exact = no_colour, debug, exact
    if exact and context.invoked_subcommand not in (None, "train"):
        raise InputError("--exact: only layerwise train takes it", "A run keeps to what it began with.",
                         "Leave it out; a run that began so is resumed so.")
    if context.invoked_subcommand is None:
        names = ", ".join(command.name or "" for command in app.registered_commands)
        raise InputError("layerwise: no command given", f"The commands are: {names}.",
                         "`layerwise --help` describes them.")


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON; an error too.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; may be repeated."),
]


def global_words() -> list[str]:
    """The global options of this call as words, for a process that runs the same command."""
    flags = {"--offline": SETTINGS.offline, "--yes": SETTINGS.confirmed, "--no-colour": SETTINGS.no_colour,
             "--debug": SETTINGS.debug}
    return [*(["--data-dir", SETTINGS.data_dir] if SETTINGS.data_dir else []),
            *(name for name, given in flags.items() if given)]


def data_dir() -> Path | None:
    """The directory of --data-dir, or None."""
    return Path(SETTINGS.data_dir) if SETTINGS.data_dir else None
