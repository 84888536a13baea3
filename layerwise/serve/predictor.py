"""Names what is on pictures: arrays, files, folders or bytes, through the model file's own preprocessing.

A picture's probabilities do not depend on the pictures it is batched with by anything we do; the matrix kernels of a
device may round differently for another batch size, which the tests bound by 1e-6.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layerwise.data.container import EXTENSIONS
from layerwise.data.images import ImageRules, open_image
from layerwise.data.pieces import Slice
from layerwise.errors import InputError, LayerwiseError, ToleranceError
from layerwise.hardware import cores
from layerwise.modelfile import ModelFile, read

Picture = NDArray[np.uint8]
Source = Picture | Path | Slice | str | bytes


@dataclass(frozen=True)
class Prediction:
    """The most probable classes, best first, and their probabilities."""

    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def name(self) -> str:
        """The most probable class."""
        return self.class_names[0]

    def to_json(self) -> list[dict[str, Any]]:
        """[{"class", "probability"}, ...], best first."""
        return [{"class": name, "probability": p} for name, p in zip(self.class_names, self.probabilities, strict=True)]


@dataclass(frozen=True)
class Row:
    """One picture's line: a prediction, or the `error` that tells why there is none."""

    path: str
    prediction: Prediction | None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """{"path", "predictions", "error"}; no predictions where there is an error, null where there is none."""
        return {"path": self.path, "predictions": self.prediction.to_json() if self.prediction else [],
                "error": self.error or None}


class Predictor:
    """A model file ready to answer. `batch_size` pictures go through the network together.

    `temperature` divides the logits before the softmax (`calibrate` fits it); it is 1 unless it is asked for.
    """

    def __init__(self, model_file: ModelFile, batch_size: int = 64, temperature: float = 1.0) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        if not 0 < temperature < float("inf"):
            raise InputError(f"temperature={temperature:g}: must be above 0 and finite",
                             mend="1 leaves the probabilities as they are.")
        self.model_file = model_file
        self.batch_size = batch_size
        self.temperature = temperature
        self.rules = ImageRules(exif=model_file.preprocess.exif)
        self._model = model_file.model.eval()
        self._device = next(self._model.parameters()).device

    def place(self, source: Source) -> Picture:
        """The picture as the network sees it, before normalisation: (size, size, C) uint8. Raises InputError."""
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] not in (1, 3) or not source.size:
                raise InputError(f"an array {source.dtype} {source.shape} is not a picture",
                                 "Pictures are uint8 arrays (H, W, C) with C 1 (grey) or 3 (RGB).")
            image = source
        else:
            image = open_image(Path(source) if isinstance(source, str) else source, self.rules)[0]
        return self.model_file.preprocess.place(image)

    def probabilities(self, sources: Sequence[Source]) -> NDArray[np.float64]:
        """The probabilities (N, C) in the order of the model's class names. Raises InputError for a bad picture."""
        placed = [self.place(source) for source in sources]
        blocks = [self._answer(placed[i:i + self.batch_size]) for i in range(0, len(placed), self.batch_size)]
        return np.concatenate(blocks) if blocks else np.zeros((0, len(self.model_file.class_names)))

    def predict(self, sources: Sequence[Source], top: int = 5) -> list[Prediction]:
        """The `top` classes of each picture. Raises InputError for the first bad picture."""
        return [self._best(row, top) for row in self.probabilities(sources)]

    def rows(self, paths: Iterable[Path | str], top: int = 5) -> Iterator[Row]:
        """A row for each file, and for each picture below a folder or in a folder of shards, in order.

        A picture that can't be opened has an error in its row, and the rest goes on.
        """
        if top < 1:
            raise InputError(f"top={top}: must be at least 1")
        files = _pictures_of(paths)
        with ThreadPoolExecutor(cores(), "layerwise-predict") as pool:
            ahead = [(file, pool.submit(self._try, file)) for file in islice(files, self.batch_size)]
            while ahead:
                current = ahead
                ahead = [(file, pool.submit(self._try, file)) for file in islice(files, self.batch_size)]
                found = [(file, future.result()) for file, future in current]
                yield from self._answered(found, top)

    def predict_paths(self, paths: Iterable[Path | str], top: int = 5) -> Iterator[Row]:
        """The same as `rows`."""
        return self.rows(paths, top)

    def _answered(self, found: Sequence[tuple[Path | Slice, Picture | str]], top: int) -> Iterator[Row]:
        good = [picture for _, picture in found if not isinstance(picture, str)]
        try:
            answers = iter(self._answer(good)) if good else iter(())
        except ToleranceError as error:
            answers, failed = iter(()), error.what
        else:
            failed = ""
        for file, picture in found:
            if isinstance(picture, str) or failed:
                yield Row(str(file), None, picture if isinstance(picture, str) else failed)
            else:
                yield Row(str(file), self._best(next(answers), top))

    def _try(self, file: Path | Slice) -> Picture | str:
        try:
            if isinstance(file, Path) and file.is_dir():
                os.scandir(file).close()  # raises where it may not be read
                return f"{str(file)!r} holds no pictures ({', '.join(sorted(EXTENSIONS))})"
            return self.place(file)
        except LayerwiseError as error:
            return error.what
        except OSError as error:
            return f"{str(file)!r} can't be read: {error.strerror or error}"

    def _answer(self, placed: Sequence[Picture]) -> NDArray[np.float64]:
        batch = torch.from_numpy(np.stack(placed)).to(self._device)
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            logits = self._model(self.model_file.preprocess.normalise(batch)).cpu().double()
        if not bool(torch.isfinite(logits).all()):
            raise ToleranceError("the network's answer is not finite",
                                 "Its weights or the preprocessing hold a number that does not exist.",
                                 "Read the model file again, or train it again.")
        return np.asarray((logits / self.temperature).softmax(dim=1).numpy())

    def _best(self, row: NDArray[np.float64], top: int) -> Prediction:
        best = np.argsort(-row, kind="stable")[:top]
        names = self.model_file.class_names
        return Prediction(tuple(names[i] for i in best), tuple(float(row[i]) for i in best))


def predict(model: ModelFile | Path | str, pictures: Iterable[Path | str], top: int = 5) -> list[Row]:
    """A row for each of the files and for each picture in the folders, by a model file, a run, or what `load` gave."""
    model_file = model if isinstance(model, ModelFile) else read(model)
    return list(Predictor(model_file).rows(pictures, top))


def _pictures_of(paths: Iterable[Path | str]) -> Iterator[Path | Slice]:
    """`pictures_below`, and those in folders of shards, split by split; InputError where such a folder is not sound."""
    for path in paths:
        if Path(path).is_dir():
            from layerwise.data.shards import is_shards, read_shards  # a picture alone shall not wait for it

            if is_shards(str(path)):
                for rows in read_shards(str(path)).rows.values():
                    yield from (row.path for row in rows)
                continue
        yield from pictures_below([path])


def pictures_below(paths: Iterable[Path | str]) -> Iterator[Path]:
    """Each file as it is named; of a folder every file with a picture's extension, recursively and sorted.

    Hidden files and folders are left out, and links to folders are not followed. A folder without pictures, or
    one that can't be read, comes itself: it needs a row that says so.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        empty = True
        refused: list[OSError] = []
        for folder, folders, files in os.walk(path, onerror=refused.append):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                    empty = False
                    yield Path(folder, name)
        yield from (Path(error.filename) for error in refused)
        if empty and not refused:
            yield path
