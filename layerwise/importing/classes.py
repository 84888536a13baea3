"""The names of an imported network's classes: ImageNet's, the user's, or plain numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from layerwise.errors import InputError

IMAGENET = 1000


def imagenet() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC 2012 in the order of their labels."""
    text = resources.files("layerwise.importing").joinpath("imagenet.json").read_text("utf-8")
    return tuple(json.loads(text)["names"])


def from_file(path: Path | str) -> tuple[str, ...]:
    """Class names, one a line, in the order of the network's outputs. Raises InputError with all that is wrong."""
    path = Path(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file", mend="Write the class names, one a line.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error})", mend="Write the class names, one a line.") from None
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    problems = [f"line {number}: empty" for number, name in enumerate(names, 1) if not name]
    first = {name: number for number, name in reversed(list(enumerate(names, 1)))}
    problems += [f"line {number}: {name!r} is line {first[name]} already" for number, name in enumerate(names, 1)
                 if name and first[name] != number]
    if len(names) < 2:
        problems.append(f"{len(names)} names: a classifier tells at least two classes apart")
    if problems:
        raise InputError(f"{path}: no list of class names", "Each output needs one name of its own.",
                         "Write the class names, one a line.", problems)
    return tuple(names)


def fitting(count: int, given: Sequence[str] | None) -> tuple[tuple[str, ...], str]:
    """Names for `count` outputs, and a note of where they are from. Raises InputError where the given don't fit."""
    if given is not None:
        if len(given) != count:
            raise InputError(f"{len(given)} class names for a file with {count} classes",
                             "Its head answers for its own classes only.",
                             "Give a name for each of the file's classes, or add --new-head: a head for your classes, "
                             "newly initialised, to be trained.")
        return tuple(given), "class names: those given"
    if count == IMAGENET:
        return imagenet(), "class names: ImageNet's, as the file has 1,000 classes; --classes gives others"
    if count == IMAGENET + 1:
        return ("background", *imagenet()), ("class names: background and ImageNet's, as the file has 1,001 classes; "
                                             "--classes gives others")
    return (tuple(f"class {number}" for number in range(count)),
            f"class names: class 0 to class {count - 1}, as the file has none; --classes gives them")
