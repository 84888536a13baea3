"""The commands that look into a network: explain, watch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerwise.cli.app import Json, data_dir
from layerwise.cli.tables import print_json, print_table
from layerwise.console import SETTINGS, note, out

if TYPE_CHECKING:
    from layerwise.explain.view import View


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (explain, watch):
        app.command(command.__name__)(command)


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run or a model file.", show_default=False)],
    views: Annotated[list[str] | None, typer.Argument(metavar="[VIEW]...", help="Which views; none: all of them.",
                                                      show_default=False)] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Look at these pictures; labelled where each lies "
                                                "in a folder called as its class.", show_default=False)] = None,
    against: Annotated[Path | None, typer.Option(metavar="RUN", help="A second network beside it: gained and lost "
                                                 "pictures, responses, lesions.", show_default=False)] = None,
    page: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The page; none: RUN/explain.html.",
                                              show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Writes one page of what a network learned, why it decides and where it fails; finished views are kept."""
    from layerwise.jobs.explain import Ask
    from layerwise.jobs.explain import explain as explained

    found = explained(run, Ask(tuple(views or ()), images, against, page, data_dir(), SETTINGS.offline))
    if as_json:
        return print_json(found.to_json())
    for view in found.views if views else ():
        _print(view)
    for one in found.missing:
        note(f"not shown: {one.title}: {one.why}")
    out(f"page: {found.page}")
    return None


def _print(view: View) -> None:
    """A view's words and tables; its pictures and charts are on the page."""
    from layerwise.explain.view import Table, Words

    out(f"{view.title}: {view.says}")
    for part in view.parts:
        if isinstance(part, Words):
            out(part.text)
        elif isinstance(part, Table):
            out("")
            print_table(part.columns, part.rows, part.caption)
    for bound in view.bounds:
        note(f"note: {bound}")
    out("")


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, also one that is training.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on this machine; 0: a free one.")] = 0,
) -> None:
    """Shows a run while it trains: its report as a live page on this machine alone (127.0.0.1), until Ctrl-C."""
    from contextlib import suppress

    import torch

    from layerwise.jobs.watch import server

    with server(run, port, data_dir=data_dir(), offline=SETTINGS.offline) as serving:
        torch.set_num_threads(1)  # the cores are the training's
        out(f"http://127.0.0.1:{serving.server_address[1]}/")
        sys.stdout.flush()
        note("Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            serving.serve_forever()
