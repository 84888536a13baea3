"""The command that takes in other libraries' weights: import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Json
from layerwise.cli.tables import print_json
from layerwise.console import note, out
from layerwise.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("import")(import_weights)


def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A weight file: .safetensors, .pth, .pt or .bin.",
                                         show_default=False)],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Our network that it is of; `layerwise models` "
                                      "lists them.", show_default=False)],
    source: Annotated[str, typer.Option(metavar="LIBRARY", help="The library that the file is from: torchvision, timm, "
                                        "efficientnet-pytorch or auto.")] = "auto",
    to: Annotated[Path | None, typer.Option("--out", metavar="MODEL.safetensors", show_default=False,
                                            help="The model file to write; NAME.safetensors where none.")] = None,
    classes: Annotated[Path | None, typer.Option(metavar="FILE", show_default=False,
                                                 help="Class names, one a line, in the order of the outputs.")] = None,
    new_head: Annotated[bool, typer.Option("--new-head", help="Leave the file's head and start a new one for the names "
                                           "of --classes.")] = False,
    as_json: Json = False,
) -> None:
    """Turns a weight file of torchvision or timm into a model file, and says what became of every entry."""
    path = to if to is not None else Path(f"{name}.safetensors")
    if path.exists():
        raise InputError(f"{path}: exists, and nothing is overwritten", mend="Name another file with --out.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no directory {path.parent}", mend=f"mkdir {path.parent}")
    from layerwise.importing import classes as class_names
    from layerwise.importing.importer import import_weights as matched
    from layerwise.modelfile import write

    names = class_names.from_file(classes) if classes is not None else None
    imported = matched(file, name, source, names, new_head)
    write(path, imported.model_file())
    if as_json:
        entries = vars(imported.report)
        return print_json({
            "model_file": str(path), "network": name, "source": imported.origin.source,
            "source_network": imported.origin.name, "sha256": imported.weights.sha256,
            "classes": len(imported.class_names), "entries": entries, "notes": list(imported.notes)})
    for line in (*imported.report.lines(), *imported.notes):
        note(line)
    out(str(path))
    return None
