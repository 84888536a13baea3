"""What `layerwise predict` asks: rows for files, folders and the standard input, from a run or a model file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

from layerwise import hardware, modelfile
from layerwise.data.images import ImageRules
from layerwise.errors import InputError
from layerwise.recipes.presets import preset
from layerwise.serve.predictor import Predictor, Row


def answers(path: str, pictures: Sequence[str], top: int, calibrated: bool,
            standard_input: BinaryIO) -> tuple[int, Iterator[Row]]:
    """How many classes the model at `path` knows, and a row for each picture in the order they are named.

    "-" is one picture in the bytes of `standard_input`. Raises InputError for a model that can't be used.
    """
    found = modelfile.read(path, hardware.resolve(preset("fast")).device)
    predictor = Predictor(found, temperature=_kept(found) if calibrated else 1.0)
    return len(found.class_names), _rows(predictor, pictures, top, standard_input)


def _kept(found: modelfile.ModelFile) -> float:
    from layerwise.jobs.calibration import kept_temperature  # statistics and figures, which an answer seldom needs

    return kept_temperature(found)


def _rows(predictor: Predictor, pictures: Sequence[str], top: int, standard_input: BinaryIO) -> Iterator[Row]:
    names: list[str] = []
    # For one picture the threads of the arithmetic wait for each other longer than they compute: on a busy machine 0.3
    # to 0.7 s of the processor's time for a picture of 32x32, against 0.007 s in one thread.
    alone = len(pictures) == 1 and not Path(pictures[0]).is_dir()
    with hardware.with_threads(1) if alone else nullcontext():
        for name in [*pictures, None]:
            if name is not None and name != "-":
                names.append(name)
                continue
            yield from predictor.rows(names, top)
            names.clear()
            if name == "-":
                yield _standard_row(predictor, top, standard_input)


def _standard_row(predictor: Predictor, top: int, standard_input: BinaryIO) -> Row:
    try:
        # One byte more than is allowed: a longer stream is refused by its size, without reading all of it.
        data = standard_input.read(ImageRules().max_bytes + 1)
        return Row("-", predictor.predict([data], top)[0])
    except InputError as error:
        return Row("-", None, error.what)
