"""Lists, IDX files, CIFAR archives, digits and downloads, on small files in their exact formats."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import socket
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from layerwise.data import DataOptions, DataSet, cifar, download, fetch, idx, open_data
from layerwise.errors import InputError, MachineError, ToleranceError

OFFLINE = DataOptions(offline=True)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set of this machine is found."""
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path / "user-cache")
    monkeypatch.setattr(download, "SYSTEM", {})


# ---- lists


def listed(tmp_path: Path, text: str, name: str = "list.csv") -> Path:
    for number in range(6):
        Image.new("L", (6, 6), 20 * number).save(tmp_path / f"{number}.png")
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def refused(file: Path, message: str, options: DataOptions = OFFLINE) -> str:
    with pytest.raises(InputError, match=message) as caught:
        open_data(str(file), options)
    return "\n".join([str(caught.value), *caught.value.details])


def test_list_with_splits(tmp_path: Path) -> None:
    text = "\ufeffFile,Class,Split\n0.png,dog,train\n1.png,cat,train\n\n2.png,dog,valid\n3.png,cat,testing\n"
    data = open_data(str(listed(tmp_path, text)), OFFLINE)
    assert data.train.class_names == ("cat", "dog")
    assert [part.labels.tolist() for part in data.splits.values()] == [[1, 0], [1], [0]]
    assert data.train.ids == ("0.png", "1.png")
    assert data.train.read(1)[0, 0, 0] == 20


def test_list_without_splits_and_tabs(tmp_path: Path) -> None:
    text = "path\tlabel\n" + "".join(f"{number}.png\t{10 - number % 2}\n" for number in range(6))
    file = listed(tmp_path, text, "list.tsv")
    refused(file, "has no train, val and test")
    data = open_data(str(file), DataOptions(split="34/33/33"))
    assert data.train.class_names == ("9", "10")  # natural, not alphabetical
    assert sum(len(part) for part in data.splits.values()) == 6


def test_all_problems_of_a_list_at_once_with_lines(tmp_path: Path) -> None:
    rows = ["0.png,-1", "1.png,1.5", "2.png,nan", "3.png,", "4.png,cat", "4.png,cat", "none.png,cat", "5.png,cat;dog",
            ",cat", "5.png,a,b"]  # fmt: skip
    message = refused(listed(tmp_path, "path,label\n" + "\n".join(rows)), "has 9 problems")
    for expected in (
        "line 2: label '-1' is negative",
        "line 3: label '1.5' is not a whole number",
        "line 4: label 'nan' is not a number and not a class name",
        "line 5: the label is blank",
        "line 7: '4.png' is there already, in line 6",
        "line 8: " + repr(str(tmp_path / "none.png")) + " does not exist",
        "line 9: label 'cat;dog' names several classes; multi-label is not supported",
        "line 10: the path is blank",
        "line 11: 3 cells, the header has 2 (multi-label is not supported: one label a picture)",
    ):
        assert expected in message


def test_several_labels_are_refused(tmp_path: Path) -> None:
    refused(listed(tmp_path, "path,label,label\n0.png,a,b\n"), "line 1: multi-label is not supported")
    refused(listed(tmp_path, "path,cat,dog\n0.png,0,1\n"), "line 1: multi-label is not supported")
    message = refused(listed(tmp_path, "path,label\n0.png,a\n0.png,b\n1.png,b\n"), "multi-label is not supported")
    assert "line 3: '0.png' is 'b' here and 'a' in line 2" in message
    refused(listed(tmp_path, "path,label\n0.png,a|b\n1.png,b\n"), "names several classes")


def test_headers_and_empty_lists(tmp_path: Path) -> None:
    refused(listed(tmp_path, ""), "is empty")
    assert "there is no column 'label'" in refused(listed(tmp_path, "path\n0.png\n"), "line 1 is not the header")
    assert "did you mean 'label'" in refused(listed(tmp_path, "path,lable\n0.png,a\n"), "is not the header")
    refused(listed(tmp_path, "path,label\n"), "names no picture")
    refused(listed(tmp_path, "path,label\n0.png,a\n"), "has one class only: 'a'")
    refused(listed(tmp_path, "path,path,label\n0.png,1.png,a\n"), "is not the header")
    message = refused(listed(tmp_path, "path,label,split\n0.png,a,trian\n1.png,b,train\n"), "1 problem:|1 problem")
    assert "line 2: split 'trian' is unknown, did you mean 'train'" in message
    message = refused(listed(tmp_path, "path,label,split\n0.png,a,train\n1.png,b,train\n2.png,aa,val\n"), "1 problem")
    assert "val: class 'aa' is not in train" in message
    assert "no line of the split train" in refused(listed(tmp_path, "path,label,split\n0.png,a,val\n"), "1 problem")
    file = tmp_path / "latin.csv"
    file.write_bytes(b"path,label\n\xe9.png,a\n")
    refused(file, "is not UTF-8 text")
    refused(listed(tmp_path, 'path,label\n"0.png,a\n'), "is not a CSV list")


# ---- digits


def test_digits_have_a_fixed_split() -> None:
    data = open_data("digits", OFFLINE)
    assert data.test is not None
    assert data.train.images is not None
    assert data.test.images is not None
    assert (len(data.train), len(data.test), data.val) == (1438, 359, None)
    assert data.train.class_counts == (151, 161, 143, 131, 147, 154, 150, 136, 127, 138)
    source = load_digits()
    assert data.test.ids[1] == "digits/9"
    np.testing.assert_array_equal(data.test.images[1, ..., 0], np.rint(source.images[9] / 16 * 255))
    np.testing.assert_array_equal(data.test.labels, source.target[4::5])
    with pytest.raises(InputError, match="can't be given for digits"):
        open_data("digits", DataOptions(split="80/10/10"))


# ---- IDX


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_idx(
    folder: Path, zipped: bool = True, train: int = 12, labels: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": random.integers(0, 256, (train, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(train) % 10 if labels is None else labels,
        "t10k-images-idx3-ubyte": random.integers(0, 256, (5, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(5),
    }
    for name, array in arrays.items():
        data = idx_bytes(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["data_dir", "data_dir/mnist", "variable", "cache", "system"])
def test_idx_is_found_and_read(tmp_path: Path, zipped: bool, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = {"data_dir/mnist": tmp_path / "d" / "mnist", "cache": tmp_path / "user-cache" / "data" / "mnist"}
    arrays = write_idx(folder.get(place, tmp_path / "d"), zipped)
    if place == "variable":
        monkeypatch.setenv("LAYERWISE_DATA", str(tmp_path / "d"))
    if place == "system":
        monkeypatch.setattr(download, "SYSTEM", {"mnist": tmp_path / "d"})
    data_dir = tmp_path / "d" if place.startswith("data_dir") else None
    data = open_data("mnist", DataOptions(data_dir=data_dir, offline=True))
    assert data.train.images is not None
    np.testing.assert_array_equal(data.train.images[..., 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.train.labels, arrays["train-labels-idx1-ubyte"])
    assert data.train.ids[3] == "mnist/train/3"
    assert "train has 12 pictures; the published set has 60,000" in "\n".join(data.notes)
    if place != "system":
        monkeypatch.delenv("LAYERWISE_DATA", raising=False)
        if place != "cache":
            with pytest.raises(MachineError, match="is not on this machine"):
                open_data("mnist", OFFLINE)


def test_damaged_idx_is_refused(tmp_path: Path) -> None:
    good = idx_bytes(np.arange(24).reshape(2, 3, 4))
    file = tmp_path / "x"
    for zipped in (False, True):
        pack = gzip.compress if zipped else bytes
        file.write_bytes(pack(good))
        assert idx.read_idx(file, 3).shape == (2, 3, 4)
        for bad, message in ((good[:-1], "states 24 values and holds 23"), (good + b"x", "holds more"),
                             (good[:9], "not an IDX"),
                             (b"\0\0\x0d\3" + good[4:], "not an IDX file of unsigned bytes with 3"),
                             (b"", "not an IDX"),
                             (good[:4] + struct.pack(">3I", 1 << 20, 1 << 20, 9), "empty or too large")):  # fmt: skip
            file.write_bytes(pack(bad))
            with pytest.raises(InputError, match=message):
                idx.read_idx(file, 3)
    packed = gzip.compress(good)
    for cut in range(2, len(packed)):
        file.write_bytes(packed[:cut])
        with pytest.raises(InputError):
            idx.read_idx(file, 3)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # the checksum
    file.write_bytes(flipped)
    with pytest.raises(InputError, match="can't be read"):
        idx.read_idx(file, 3)


def test_idx_files_must_agree(tmp_path: Path) -> None:
    options = DataOptions(data_dir=tmp_path, offline=True)
    write_idx(tmp_path, labels=np.arange(11) % 10)
    with pytest.raises(InputError, match=r"has 12 pictures, .* 11 labels"):
        open_data("mnist", options)
    write_idx(tmp_path, labels=np.array([0] * 5 + [10] + [1] * 6))
    with pytest.raises(InputError, match="label 10 at position 5"):
        open_data("mnist", options)


def test_the_other_set_under_the_same_file_names_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "PUBLISHED", {"train": 12, "test": 5})
    write_idx(tmp_path, labels=np.array([*idx.FIRST_LABELS["fashion-mnist"], 0, 0]))
    options = DataOptions(data_dir=tmp_path, offline=True)
    with pytest.raises(InputError, match="holds fashion-mnist, not mnist"):
        open_data("mnist", options)
    data = open_data("fashion-mnist", options)
    assert data.train.class_names[9] == "Ankle boot"


REAL = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not REAL.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SYSTEM", {"fashion-mnist": REAL})
    data = open_data("fashion-mnist", OFFLINE)
    assert data.test is not None
    assert data.train.class_counts == (6000,) * 10
    assert data.test.class_counts == (1000,) * 10
    assert tuple(data.train.labels[:10]) == idx.FIRST_LABELS["fashion-mnist"]
    with pytest.raises(InputError, match="holds fashion-mnist, not mnist"):
        open_data("mnist", DataOptions(data_dir=REAL, offline=True))


# ---- CIFAR


def cifar_files(name: str, each: int = 4) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    classes = len(cifar.CLASS_NAMES[name])
    head = 2 if name == "cifar100" else 1
    files = {}
    for part in (file for split in cifar.FILES[name].values() for file in split):
        rows = random.integers(0, 256, (each, head + 3072))
        rows[:, 0] = random.integers(0, 10, each)
        rows[:, head - 1] = random.integers(0, classes, each)
        files[part] = rows.astype(np.uint8).tobytes()
    return files


def tar(file: Path, members: dict[str, bytes], folder: str = "../../evil/") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def check_cifar(data: DataSet, name: str, files: dict[str, bytes]) -> None:
    head = 2 if name == "cifar100" else 1
    assert data.train.images is not None
    rows = np.frombuffer(b"".join(files[part] for part in cifar.FILES[name]["train"]), dtype=np.uint8).reshape(
        -1, head + 3072
    )
    np.testing.assert_array_equal(data.train.labels, rows[:, head - 1])
    for channel, at in ((0, head), (1, head + 1024), (2, head + 2048)):
        np.testing.assert_array_equal(data.train.images[..., channel].reshape(-1, 1024), rows[:, at : at + 1024])
    assert data.train.class_names == cifar.CLASS_NAMES[name]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_archive_and_unpacked(tmp_path: Path, name: str) -> None:
    files = cifar_files(name)
    tar(tmp_path / "a" / download.REMOTES[name][0].file, {**files, "batches.meta.txt": b"x"})
    check_cifar(open_data(name, DataOptions(data_dir=tmp_path / "a", offline=True)), name, files)
    assert not (tmp_path.parent / "evil").exists()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [download.REMOTES[name][0].file]
    unpacked = tmp_path / "b" / cifar.FOLDERS[name]
    unpacked.mkdir(parents=True)
    for part, data in files.items():
        (unpacked / part).write_bytes(data)
    check_cifar(open_data(name, DataOptions(data_dir=tmp_path / "b", offline=True)), name, files)


def test_damaged_cifar_is_refused(tmp_path: Path) -> None:
    options = DataOptions(data_dir=tmp_path, offline=True)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    files = cifar_files("cifar10")
    tar(archive, {name: data for name, data in files.items() if name != "test_batch.bin"})
    with pytest.raises(InputError, match=r"lacks test_batch.bin"):
        open_data("cifar10", options)
    tar(archive, {**files, "test_batch.bin": files["test_batch.bin"][:-1]})
    with pytest.raises(InputError, match=r"test_batch.bin has 12,291 bytes"):
        open_data("cifar10", options)
    tar(archive, {**files, "test_batch.bin": b"\x0a" + files["test_batch.bin"][1:]})
    with pytest.raises(InputError, match="label 10 in record 0"):
        open_data("cifar10", options)
    tar(archive, files)
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(InputError, match="can't be read"):
        open_data("cifar10", options)


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in cifar_files("cifar10"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    with pytest.raises(InputError, match="lacks data_batch_1"):
        open_data("cifar10", DataOptions(data_dir=tmp_path, offline=True))


# ---- downloads


class Quiet(http.server.BaseHTTPRequestHandler):
    """Serves what the test put into `content`."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/file.bin"
        httpd.shutdown()


def test_download_is_checked_then_renamed(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = b"the published bytes" * 100
    remote = download.Remote("file.bin", server, hashlib.sha256(good).hexdigest(), len(good))
    monkeypatch.setattr(download, "REMOTES", {"small": (remote,)})
    monkeypatch.setattr(Quiet, "content", good[:-1] + b"X")
    with pytest.raises(ToleranceError, match="is not the published file") as caught:
        fetch("small", tmp_path)
    assert remote.sha256 in str(caught.value)
    assert server in str(caught.value)
    assert list((tmp_path / "small").iterdir()) == []  # nothing of it is left
    monkeypatch.setattr(Quiet, "content", good)
    assert fetch("small", tmp_path) == tmp_path / "small"
    assert [path.read_bytes() for path in (tmp_path / "small").iterdir()] == [good]
    monkeypatch.setattr(Quiet, "content", b"")
    fetch("small", tmp_path)  # already there: not asked for again


def test_offline_opens_no_socket_and_names_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(socket, "socket", lambda *arguments, **_: opened.append(arguments))
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **_: opened.append(arguments))
    for name in ("mnist", "fashion-mnist", "cifar10", "cifar100"):
        with pytest.raises(MachineError, match="--offline forbids") as caught:
            open_data(name, DataOptions(data_dir=tmp_path, offline=True))
        remote = download.REMOTES[name][0]
        assert f"Fetch {remote.url} by hand and put it at {tmp_path / name / remote.file}" in str(caught.value)
        assert "LAYERWISE_DATA" in str(caught.value)
    assert opened == []


def test_without_a_network_the_message_names_the_file(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(MachineError, match="can't download") as caught:
        download.download(download.Remote("x", url, "0" * 64, 1), tmp_path, "x", False)
    assert f"Fetch {url} by hand and put it at {tmp_path / 'x'}" in str(caught.value)
    with pytest.raises(InputError, match="'cifar' is not a data set that can be fetched, did you mean 'cifar10'"):
        fetch("cifar", tmp_path)
