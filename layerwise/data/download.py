"""Where published data sets are looked for, and how they are fetched: checked by SHA-256, whole or not at all.

An interrupted download goes on where it stopped (`resumable.py`).

The digests of Fashion-MNIST, MNIST and CIFAR are those of the authors' files, as also published by TensorFlow Datasets
and several other projects; `size` is the number of bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from layerwise.data.scan import cache_folder
from layerwise.errors import InputError, MachineError, ToleranceError, nearest

VARIABLE = "LAYERWISE_DATA"
SYSTEM = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}  # Debian's package dataset-fashion-mnist


@dataclass(frozen=True)
class Remote:
    """One file to fetch."""

    file: str
    url: str
    sha256: str
    size: int


_FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _remotes(base: str, rows: Sequence[tuple[str, str, int]]) -> tuple[Remote, ...]:
    return tuple(Remote(file, base + file, sha256, size) for file, sha256, size in rows)


REMOTES: dict[str, tuple[Remote, ...]] = {
    "mnist": _remotes(_MNIST, (
        (_IDX[0], "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
        (_IDX[1], "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
        (_IDX[2], "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
        (_IDX[3], "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
    )),
    "fashion-mnist": _remotes(_FASHION, (
        (_IDX[0], "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
        (_IDX[1], "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
        (_IDX[2], "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
        (_IDX[3], "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
    )),
    "cifar10": _remotes(_CIFAR, (
        ("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170_052_171),
    )),
    "cifar100": _remotes(_CIFAR, (
        ("cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", 168_513_733),
    )),
}  # fmt: skip


def search_folders(name: str, data_dir: Path | None) -> list[Path]:
    """Where the files of `name` may lie, first choice first: each root's own folder for it, then the root itself."""
    roots = [data_dir] if data_dir is not None else []
    if os.environ.get(VARIABLE):
        roots.append(Path(os.environ[VARIABLE]))
    folders = [folder for root in roots for folder in (root / name, root)]
    return [*folders, cache_folder() / "data" / name, *([SYSTEM[name]] if name in SYSTEM else [])]


def fetch(name: str, data_dir: Path | None = None, offline: bool = False) -> Path:
    """The folder that holds all files of `name`, downloaded into `data_dir`/`name` (or the user's cache) if need be.

    Raises InputError for a name that isn't a published data set, MachineError where the files are missing and can't be
    downloaded, ToleranceError where what was downloaded has another SHA-256.
    """
    if name not in REMOTES:
        raise InputError(
            f"{name!r} is not a data set that can be fetched{nearest(name, REMOTES)}",
            f"These can: {', '.join(REMOTES)}.",
        )
    target = (data_dir if data_dir is not None else cache_folder() / "data") / name
    for remote in REMOTES[name]:
        if not (target / remote.file).is_file():
            download(remote, target, name, offline)
    return target


def download(remote: Remote, folder: Path, name: str, offline: bool) -> Path:
    """One file, fetched to a temporary name in `folder`, checked, then renamed. No socket is opened with `offline`."""
    by_hand = f"Fetch {remote.url} by hand and put it at {folder / remote.file}"
    looked = f", or name the folder that holds it with --data-dir or {VARIABLE}."
    if offline:
        raise MachineError(
            f"{name}: {remote.file} is not on this machine", "--offline forbids to download it.", by_hand + looked
        )
    from layerwise.data.resumable import WrongFileError, fetch_file  # nothing of the network is loaded without need

    target = folder / remote.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch_file(remote.url, target, remote.sha256, remote.size)
    except WrongFileError as sent:  # its part is deleted
        raise ToleranceError(
            f"{name}: what {remote.url} sent is not the published file",
            f"Expected {remote.size:,} bytes with SHA-256 {remote.sha256}, got "
            f"{'more' if sent.size > remote.size else f'{sent.size:,}'} with {sent.sha256}.",
            by_hand + looked,
        ) from None
    except OSError as problem:
        raise MachineError(
            f"{name}: can't download {remote.url}",
            f"{type(problem).__name__}: {problem}. What came so far is kept; the next call goes on there.",
            by_hand + looked,
        ) from None
    return target
