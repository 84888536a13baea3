"""Batches for training and evaluation.

Pictures in memory are augmented as whole batches when they are asked for, in the calling thread: it takes about half
a millisecond, in which threads would mostly wait for the interpreter. Files (and pictures that are resampled one by
one) are done by a pool of threads, a few batches ahead: decoding and resampling release the interpreter's lock. How
many threads there are changes nothing but speed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerwise.data.augment import (
    Colour,
    Draws,
    augment_picture,
    check_augmentation,
    colour_shift,
    crop_needs,
    draw,
    mix,
    of_batches,
    whole_batches,
)
from layerwise.data.decoding import Needs, Opened, open_scaled
from layerwise.data.memory import Batches, Scratch
from layerwise.data.order import Place, class_weights, draw_rates, epoch_batches, epoch_order, repeats
from layerwise.data.preprocess import Preprocess, to_tensor
from layerwise.data.source import Samples
from layerwise.data.workers import Progress, Workers
from layerwise.errors import InputError, LayerwiseError, MachineError
from layerwise.processor import cores
from layerwise.recipe import Recipe

__all__ = [
    "class_weights",
    "draw_rates",
    "epoch_batches",
    "epoch_order",
    "plain_batches",
    "shared_batches",
    "training_batches",
]

AHEAD = 3  # batches in work before they are asked for
TOGETHER = 8  # pictures that a thread makes before it asks for more; a hand-over is about 30 microseconds
STALLED = 3.0  # seconds without a picture after which other threads begin again
LONGEST = 60.0  # and after which, with these too, the training ends: a sleeping disk needs ten
MOST_BAD = 0.01  # part of an epoch's files that may turn unreadable

Picture = NDArray[np.uint8]
Indices = NDArray[np.int64]


def training_batches(
    samples: Samples,
    recipe: Recipe,
    preprocess: Preprocess,
    epoch: int,
    start: int,
    colour: Colour | None = None,
    workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """The batches of an epoch from number `start` on, augmented: what a resumed run sees is what an unbroken one saw.

    Each is {"image": float32 (N, C, H, W) in channels-last order, "label": int64 (N,), "index": int64 (N,), "bad":
    list of ids}, and with mixup "label_b" and "weight" (see `augment.mix`). `colour` is `fit_colour`'s, for
    colour=pca. `workers` is the number of threads for files, 0: one a core; closing the iterator stops them.

    A file that turned unreadable is left out and its id listed under "bad". Raises InputError where more than 1 % of
    the epoch's files are, or a whole batch.
    """
    return shared_batches(samples, recipe, preprocess, Place(epoch, start), colour, workers)


def shared_batches(
    samples: Samples,
    recipe: Recipe,
    preprocess: Preprocess,
    place: Place,
    colour: Colour | None = None,
    workers: int = 0,
    resident: Callable[[Indices, Draws], Tensor] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """As `training_batches`, the share of one process of several: the same pictures, whatever their number.

    A share may be without pictures, where the batch has fewer than there are processes; it then has N = 0. Each
    process counts its own unreadable files against the limit. With `resident` (`augment.on_device`) the pictures are
    cut out, and "image" lies, where the whole set does.
    """
    epoch = place.epoch
    check_augmentation(recipe, preprocess, colour)
    order = epoch_order(samples, recipe, epoch)
    # A repetition of a sample within the epoch gets a key beyond all samples, so that it is augmented differently.
    order_keys = order + len(samples) * repeats(order)
    whole = epoch_batches(order, recipe.batch_size)[place.start:]
    batches = [_own(batch, place, recipe) for batch in whole]
    all_keys = [_own(keys, place, recipe) for keys in epoch_batches(order_keys, recipe.batch_size)[place.start:]]

    def finished(number: int, good: list[int], image: Tensor, bad: list[str]) -> dict[str, Any]:
        keys = all_keys[number][good]
        batch = _labelled(image, batches[number][good], samples, bad)
        if recipe.colour == "pca" and colour is not None:
            shift = torch.from_numpy(colour_shift(colour, recipe, preprocess.std, epoch, keys))
            batch["image"] += shift.to(batch["image"].device)
        if recipe.mixup > 0 and good:
            batch |= mix(batch["image"], batch["label"], recipe, epoch, keys)
        if place.size > 1:  # without the neighbour's picture, which was only there to be mixed with
            asked = len(place.share(whole[number]))
            own = sum(at < asked for at in good)
            batch = {name: part[:own] if isinstance(part, Tensor) else part for name, part in batch.items()}
            batch["bad"] = bad[: asked - own]
        if place.workers:
            batch["worker"] = torch.from_numpy(place.worker(whole[number])[good[: len(batch["label"])]])
        return batch

    if samples.images is not None and whole_batches(recipe, preprocess):
        memory, first = Batches(pinned=torch.cuda.is_available()), 0
        augmented = of_batches(samples.images, max([1, *map(len, batches)]), recipe, preprocess)
        draws = draw(recipe, epoch, np.concatenate([*all_keys, order[:0]]))  # each call costs as much
        for number, indices in enumerate(batches):
            part = draws.part(first, len(indices))
            if resident is not None:
                image = preprocess.normalise(resident(indices, part))
            else:
                stack = memory.empty((len(indices), preprocess.size, preprocess.size, preprocess.channels))
                image = preprocess.normalise(to_tensor(augmented(indices, part)), stack)
                del stack
            first += len(indices)
            yield finished(number, list(range(len(indices))), image, [])
            del image  # so that its memory is free for the next batch, where whoever took it let it go
        return

    def prepare(batch: int) -> Callable[[int, Scratch], Picture]:
        draws, indices = draw(recipe, epoch, all_keys[batch]), batches[batch]

        def make(at: int, scratch: Scratch) -> Picture:
            needs = crop_needs(recipe, preprocess, draws.crop[at])
            picture = _for_crop(samples, indices[at], needs, scratch)
            return augment_picture(picture, draws, at, recipe, preprocess, scratch)

        return make

    def assemble(number: int, good: list[int], image: Tensor, bad: list[str]) -> dict[str, Any]:
        # A batch that lost all its pictures ends the epoch below; another process may have some of a share that did.
        return finished(number, good, image, bad) if good or place.size > 1 else {"bad": bad}

    unread: list[str] = []
    for batch in _streamed(samples, batches, prepare, assemble, preprocess, workers):
        unread += batch["bad"]
        if "image" not in batch or len(unread) > MOST_BAD * len(order):
            raise InputError(
                f"{len(unread)} of the {len(order)} pictures of epoch {epoch} cannot be read any more",
                "More than 1 % of an epoch, or a whole batch, would be left out of the training.",
                "check that the files are still there, then resume the run",
                unread,
            )
        yield batch


def _own(batch: Indices, place: Place, recipe: Recipe) -> Indices:
    """A process's share of a global batch; with mixup also the picture behind it, as its last one is mixed with that.

    Behind the last picture of the batch comes the first.
    """
    share = place.share(batch)
    if recipe.mixup == 0 or place.size == 1 or not len(share):
        return share
    behind = int(place.share(np.arange(len(batch)))[-1]) + 1
    return np.append(share, batch[behind % len(batch)])


def plain_batches(
    samples: Samples, preprocess: Preprocess, batch_size: int, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """All samples in their order, preprocessed and nothing else, for evaluation.

    Each batch is as `training_batches` says. A batch of unreadable files alone has N = 0 pictures and names them.
    """
    batches = [
        np.arange(first, min(first + batch_size, len(samples)), dtype=np.int64)
        for first in range(0, len(samples), batch_size)
    ]
    if samples.images is not None and preprocess.resize == "none":
        for indices in batches:
            stack = preprocess.place_batch(samples.images[indices[0] : indices[-1] + 1])
            yield _batch(stack, indices, samples, preprocess, [])
        return

    def prepare(batch: int) -> Callable[[int, Scratch], Picture]:
        return lambda at, scratch: preprocess.place(_opened(samples, batches[batch][at]))

    def assemble(number: int, good: list[int], image: Tensor, bad: list[str]) -> dict[str, Any]:
        return _labelled(image, batches[number][good], samples, bad)

    yield from _streamed(samples, batches, prepare, assemble, preprocess, workers)


class UnreadableError(Exception):
    """A file that cannot be opened; a picture that opens and does not fit the recipe is another matter."""


def _opened(samples: Samples, index: np.int64) -> Picture:
    try:
        return samples.read(int(index))
    except (InputError, OSError) as error:
        raise UnreadableError from error


def _for_crop(
    samples: Samples, index: np.int64, needs: Callable[[int, int], Needs] | None, scratch: Scratch
) -> Opened:
    """A picture for a training crop, no larger than that needs; see `decoding`."""
    if needs is not None and samples.paths is not None:
        found = open_scaled(samples.paths[int(index)], samples.rules, needs, scratch)
        if found is not None:
            return found
    return Opened.whole(_opened(samples, index))


def _batch(
    stack: Picture, indices: Indices, samples: Samples, preprocess: Preprocess, bad: list[str]
) -> dict[str, Any]:
    """The batch of placed pictures (N, size, size, C); `stack` may be a view of the data set and is not written to."""
    return _labelled(preprocess.normalise(to_tensor(stack)), indices, samples, bad)


def _labelled(image: Tensor, indices: Indices, samples: Samples, bad: list[str]) -> dict[str, Any]:
    return {
        "image": image,
        "label": torch.from_numpy(samples.labels[indices]),
        "index": torch.from_numpy(indices.copy()),
        "bad": bad,
    }


class Normaliser:
    """`Preprocess.normalise` for one picture in a thread of a pool: the same bits, without torch's own threads."""

    def __init__(self, preprocess: Preprocess) -> None:
        size = preprocess.size
        # A row of pixels at a time: (H or 1, W * C), so that the constants stay in the cache too.
        self.mean, self.std = (
            np.broadcast_to(values, (*values.shape[:2], size)).transpose(1, 2, 0).reshape(values.shape[1], -1)
            for values in (preprocess.mean, preprocess.std)
        )

    def __call__(self, picture: Picture, out: NDArray[np.float32]) -> None:
        """(x / 255 - mean) / std of placed pictures (..., size, size, C), into `out` of that shape, C-contiguous."""
        rows = out.reshape(*out.shape[:-2], -1)
        rows[...] = picture.reshape(rows.shape)  # apart, because numpy divides and converts in small pieces
        np.divide(rows, np.float32(255), out=rows)
        np.subtract(rows, self.mean, out=rows)
        np.divide(rows, self.std, out=rows)


def _streamed(
    samples: Samples,
    batches: Sequence[Indices],
    prepare: Callable[[int], Callable[[int, Scratch], Picture]],
    assemble: Callable[[int, list[int], Tensor, list[str]], dict[str, Any]],
    preprocess: Preprocess,
    workers: int,
) -> Iterator[dict[str, Any]]:
    """The batches in order, each made a few ahead of its turn.

    `prepare(batch)` gives the function that makes the picture at a position of the batch, for the pool, with what a
    thread keeps for its pictures. The pool also normalises it, into its place in the batch, while it lies in the
    core's cache. `assemble(batch, positions that were read, their pictures (N, C, H, W), ids that were not)` makes the
    batch of them, in one more thread. Where there is a GPU the batch lies in pinned memory.

    A picture is a function of its place, so where a thread hangs others make the same batches again. Raises
    MachineError where these hang too, or where a thread fails in a way that no file explains.
    """
    normalise, memory, own = Normaliser(preprocess), Batches(pinned=torch.cuda.is_available()), threading.local()
    shape, threads = (preprocess.size, preprocess.size, preprocess.channels), workers or cores()
    decoders, assembler, progress = Workers(threads, "layerwise-decode"), Workers(1, "layerwise-assemble"), Progress()

    def collect(batch: int, stack: Tensor, futures: list[Future[list[int]]]) -> dict[str, Any]:
        bad = [at for future in futures for at in future.result()]
        good = [at for at in range(len(stack)) if at not in bad]
        names = [samples.ids[int(batches[batch][at])] for at in bad]
        return assemble(batch, good, (stack[good] if bad else stack).permute(0, 3, 1, 2), names)

    def submit(batch: int) -> Future[dict[str, Any]]:
        make, count = prepare(batch), len(batches[batch])
        stack = memory.empty((count, *shape))
        rows = stack.numpy()

        def fill(first: int) -> list[int]:
            """Makes some of the pictures; returns the positions of those that can't be read."""
            bad = []
            if not hasattr(own, "scratch"):
                own.scratch = Scratch()
            for at in range(first, min(first + TOGETHER, count)):
                name, key = samples.ids[int(batches[batch][at])], object()
                progress.begin(key, name)
                try:
                    normalise(make(at, own.scratch), rows[at])
                except UnreadableError:
                    bad.append(at)
                except LayerwiseError:
                    raise
                except BaseException as error:
                    raise _failed(name, error) from error
                finally:
                    progress.end(key)
            return bad

        return assembler.submit(collect, batch, stack, [decoders.submit(fill, at) for at in range(0, count, TOGETHER)])

    try:
        waiting = deque(submit(batch) for batch in range(min(AHEAD, len(batches))))
        for batch in range(len(batches)):
            if progress.stalls(waiting[0], STALLED):
                decoders.cancel()
                assembler.cancel()
                decoders, assembler = Workers(threads, "layerwise-decode"), Workers(1, "layerwise-assemble")
                waiting = deque(submit(batch + ahead) for ahead in range(len(waiting)))
                if progress.stalls(waiting[0], LONGEST):
                    raise MachineError(
                        f"{LONGEST:g} seconds without a picture", "Each of these is read and does not come to an end.",
                        "Look at the disk or the network that they lie on, then resume the run.", progress.begun())
            made = waiting.popleft().result()
            if batch + AHEAD < len(batches):
                waiting.append(submit(batch + AHEAD))
            yield made
            del made
    finally:
        # Decoders first: the assembler may wait for a picture, and a cancelled one ends that wait.
        assembler.cancel()
        decoders.close(STALLED)
        assembler.close(STALLED)


def _failed(name: str, error: BaseException) -> MachineError:
    return MachineError(f"{name}: a thread failed while it made this picture ({type(error).__name__}: {error})",
                        "Nothing of its batch was trained on.", "Resume the run; if it fails again, look at that file.")
