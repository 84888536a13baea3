"""The command that writes shards: pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Json, data_dir
from layerwise.cli.tables import print_json
from layerwise.console import note, out, progress_of
from layerwise.errors import InputError, amount


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("pack")(pack)


def pack(
    data: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder, a list (.csv, .tsv), imagenet, or shards.",
                                        show_default=False)],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The new directory of the shards.",
                                     show_default=False)],
    shard_size: Annotated[str, typer.Option(metavar="SIZE", show_default=False,
                                            help="Most bytes of a shard's pictures; 256MB where none.")] = "",
    per_shard: Annotated[int, typer.Option(min=0, metavar="N", help="Most pictures of a shard; 0: by size.",
                                           show_default=False)] = 0,
    resize: Annotated[int, typer.Option(min=0, metavar="SIDE", show_default=False, help="Make larger pictures smaller: "
                                        "their short side in pixels; 0: every file byte for byte.")] = 0,
    max_pixels: Annotated[int, typer.Option(min=0, metavar="N", show_default=False, help="Largest picture that is "
                                            "opened, in pixels; 0: 89,478,485, as in a recipe.")] = 0,
    as_json: Json = False,
) -> None:
    """Writes pictures as WebDataset tar shards with an index and SHA-256 sums, which train and check read in place."""
    from layerwise.data.images import MAX_PIXELS
    from layerwise.data.opening import find_layout
    from layerwise.data.shards_write import PackOptions, parse_size
    from layerwise.data.shards_write import pack as write

    if shard_size and per_shard:
        raise InputError("--shard-size and --per-shard: only one of them can be given", mend="Leave one out.")
    most = parse_size(shard_size or ("1000000GB" if per_shard else "256MB"))
    packed = write(find_layout(data, data_dir()), to, PackOptions(most, per_shard, resize, max_pixels or MAX_PIXELS),
                   progress_of("looking at pictures"))
    if as_json:
        return print_json({"directory": str(packed.directory), "pictures": packed.pictures, "shards": packed.shards,
                           "bytes": packed.bytes, "resumed_shards": packed.resumed})
    counts = ", ".join(f"{count:,}" if split == "all" else f"{count:,} {split}"
                       for split, count in packed.pictures.items())
    note(f"{counts} pictures in {amount(packed.shards, 'shards')},"
         f" {packed.bytes / 1e6:,.1f} MB"
         + (f"; {packed.resumed} were there from an interrupted pack" if packed.resumed else ""))
    out(str(packed.directory))
    return None
