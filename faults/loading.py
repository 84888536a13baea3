"""Hostile model files (C1) and a million mutated ones (C2): read or refused, and nothing else happens.

C1 watches the interpreter's audit events while every reader of files is given payloads that would leave a mark: an
import, `exec`, a process, a socket, a library, a change of the file system, a file opened outside of the folder. What
happens below Python (in torch's or safetensors' compiled parts) raises no such event: the marks are looked for too.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faults.goal import Control, Goal, Outcome
from faults.pictures import called
from layerwise import checkpoint, modelfile, models
from layerwise.data.opening import find_layout
from layerwise.data.preprocess import Preprocess
from layerwise.errors import InputError
from layerwise.evaluation import result
from layerwise.importing import weightfile
from layerwise.modelfile import ModelFile
from layerwise.recipe import Recipe
from layerwise.recipes.presets import preset
from layerwise.report.run import read_run
from tests.unsafe_loader import RefusedError, unsafely

BANNED = ("import", "exec", "compile", "subprocess", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
          "os.startfile", "socket", "ctypes", "pickle", "marshal", "shutil", "os.mkdir", "os.remove", "os.rename",
          "os.link", "os.symlink", "os.chmod", "os.putenv", "os.truncate", "urllib", "webbrowser", "code.__new__",
          "builtins.input", "sys.addaudithook", "os.rmdir", "os.kill", "pty")  # fmt: skip
# What a hostile pickle asks for; each gets the mark's path or a command that makes it.
CALLABLES = (("os", "system"), ("posix", "system"), ("os", "mkdir"), ("os", "popen"), ("subprocess", "Popen"),
             ("subprocess", "check_output"), ("builtins", "exec"), ("builtins", "eval"), ("builtins", "__import__"),
             ("builtins", "open"), ("builtins", "getattr"), ("importlib", "import_module"), ("runpy", "run_path"),
             ("shutil", "rmtree"), ("socket", "create_connection"), ("webbrowser", "open"), ("ctypes", "CDLL"),
             ("pickle", "loads"), ("torch", "load"), ("torch.hub", "load"), ("torch.jit", "load"), ("numpy", "load"),
             ("torch.serialization", "load"), ("torch.storage", "_load_from_bytes"), ("functools", "partial"),
             ("operator", "methodcaller"), ("types", "CodeType"), ("code", "interact"), ("timeit", "timeit"),
             ("pty", "spawn"), ("os", "execv"), ("nt", "system"), ("pathlib", "Path"), ("logging.config", "dictConfig"),
             ("torch._dynamo", "optimize"), ("torch.utils.cpp_extension", "load_inline"), ("pip", "main"))  # fmt: skip
WARM = 250  # files read before the watch, so that what is imported when it is needed is there
RUN_FILES = ("recipe.json", "run.json", "manifest.json", "result.json", "index.json", "SHA256SUMS")
NAMES = ("os.system", "__import__('os').system('touch MARK')", "builtins.exec", "!!python/object/apply:os.system",
         "!!python/name:os.system", "{0.__class__.__mro__[1].__subclasses__}", "{{ ''.__class__ }}", "__reduce__",
         "__globals__", "../../etc/passwd", "/dev/zero", "file:///etc/passwd", "keras.layers.Lambda", "torch.nn.Module",
         "layerwise.cli:main", "%n%n%n", "${jndi:ldap://127.0.0.1/a}", "$(touch MARK)", "`touch MARK`", "; touch MARK",
         "lambda: 0", "models.build", "resnet20; import os", "__init__", "forward", "load_state_dict")  # fmt: skip


def contents() -> ModelFile:
    """A small model file's content: LeNet of 1990, 1,227 parameters."""
    torch.manual_seed(0)
    model = models.build("lenet1990", num_classes=3, in_channels=1).eval()
    ones = np.ones((1, 1, 1), np.float32)
    preprocess = Preprocess(1, 28, "none", 0, "bilinear", "apply", ones / 4, ones / 2)
    return ModelFile(model, ("cat", "dog", "öko"), preprocess, preset("digits"), [{"error": 0.1}], {"selected": "last"})


def parts(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """(the header, our own header within it, the tensors' bytes) of a model file."""
    length = int.from_bytes(data[:8], "little")
    whole = json.loads(data[8 : 8 + length])
    return whole, json.loads(whole["__metadata__"]["layerwise"]), data[8 + length :]


def joined(whole: dict[str, Any], own: object, body: bytes) -> bytes:
    """The model file of these parts."""
    whole["__metadata__"] = {"layerwise": own if isinstance(own, str) else json.dumps(own)}
    text = json.dumps(whole).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + body


def some_tensor(whole: dict[str, Any]) -> dict[str, Any]:
    """The header's entry of one tensor of the network."""
    return dict(next(entry for name, entry in whole.items() if name.startswith("model.")))


# ---- C1: what would run code if it were let


def pickles(module: str, name: str, argument: str) -> Iterator[bytes]:
    """One call in the opcodes of protocols 0 to 5, and as an instance, a persistent id, a state, an extension."""
    text = argument.encode()
    short = lambda word: b"\x8c" + bytes([len(word)]) + word.encode()  # noqa: E731
    call = b"c" + f"{module}\n{name}\n".encode()
    unicode = b"X" + len(text).to_bytes(4, "little") + text
    yield call + b"(V" + text + b"\ntR."
    yield b"(V" + text + b"\ni" + f"{module}\n{name}\n".encode() + b"."
    for protocol in (2, 3):
        yield bytes([0x80, protocol]) + call + unicode + b"\x85R."
        yield bytes([0x80, protocol]) + call + unicode + b"\x85\x81."
        yield bytes([0x80, protocol]) + b"(" + call + unicode + b"o."
        yield bytes([0x80, protocol]) + call + b")\x81}" + unicode + b"Nsb."
        yield bytes([0x80, protocol]) + b"}" + unicode + call + unicode + b"\x85Rs."
    for protocol in (4, 5):
        frame = short(module) + short(name) + b"\x93" + unicode + b"\x85R."
        yield bytes([0x80, protocol, 0x95]) + len(frame).to_bytes(8, "little") + frame
    yield b"\x80\x02" + unicode + b"Q."
    yield b"\x80\x02\x82\x01" + unicode + b"\x85R."


def archive(members: dict[str, bytes]) -> bytes:
    """A zip of these members, as torch writes its files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


def wrapped(pickled: bytes) -> Iterator[tuple[str, bytes]]:
    """A pickle in every container that weights come in: (ending, bytes)."""
    start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00."
    yield ".safetensors", pickled
    yield ".pth", start + pickled
    for folder in ("archive", "m"):
        common = {f"{folder}/version": b"3\n", f"{folder}/byteorder": b"little"}
        yield ".pt", archive({f"{folder}/data.pkl": pickled, **common})
        yield ".pt2", archive({f"{folder}/archive_format": b"pt2", f"{folder}/data/weights/model.pt": pickled,
                               f"{folder}/models/model.json": b"{}", f"{folder}/data.pkl": pickled, **common})
    yield ".pt", archive({"a/constants.pkl": pickled, "a/data.pkl": pickled, "a/version": b"3\n",
                          "a/code/__torch__.py": b"op_version_set = 1\nclass M(Module):\n  pass\n"})
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 10 + b"\n"
    yield ".npy", b"\x93NUMPY\x01\0F\0" + header + pickled


def names_as_code(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Names that other loaders look up, run or format, at every place of a model file and of our JSON files."""
    recipe = json.loads(preset("digits").to_json())
    for name in NAMES:
        whole, own, body = parts(good)
        call = {"module": "builtins", "class_name": name, "config": {"function": name}, "registered_name": name}
        for changed in (
            {"architecture": {"name": name, "arguments": {}}}, {"architecture": call},
            {"class_names": [name, "a", "b"]},
            {"architecture": {"name": "lenet1990", "arguments": {"num_classes": 3, "in_channels": 1, name: name}}},
            {"architecture": own["architecture"] | {"class": name}}, {"provenance": {name: name}}, {"results": [call]},
            {"recipe": own["recipe"] | {name: 1}}, {"recipe": own["recipe"] | {"data": name}}, {name: name},
            {"recipe": own["recipe"] | {"model": name}}, {"preprocess": own["preprocess"] | {"interpolation": name}},
            {"preprocess": own["preprocess"] | {name: name}}, {"preprocess": call}, {"format": name},
            {"sha256": name}, {"recipe": call}, {"results": {"!!python/object/new:os.system": [name]}},
        ):
            yield ".safetensors", joined(dict(whole), own | changed, body)
        for key in (name, f"model.{name}", "model.features.__class__", "preprocess.__dict__"):
            yield ".safetensors", joined({**whole, key: some_tensor(whole)}, own, body)
        for text in (f"!!python/object/apply:os.system ['{name}']", json.dumps(recipe | {"model": name}),
                     json.dumps(recipe | {name: name}), json.dumps({"class_name": name, "module": "os"}),
                     json.dumps(call), json.dumps({"__class__": name, "py/object": name, "$type": name})):
            yield ".json", text.encode()
            yield ".csv", f"path,label\n{text},{name}\n{name},a\n".encode()


def header_tricks(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Lengths, offsets, repeated keys, nesting: what a reader of safetensors may stumble over."""
    whole, own, body = parts(good)
    length = int.from_bytes(good[:8], "little")
    for claimed in (0, 1, 7, length - 1, length + 1, len(good), 100_000_000, 2**32, 2**63 - 1, 2**64 - 1):
        yield ".safetensors", claimed.to_bytes(8, "little") + good[8:]
    for depth in (100, 900, 2_000, 20_000, 200_000):
        for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            yield ".safetensors", joined(dict(whole), nested, body)
            yield ".safetensors", joined(dict(whole), json.dumps(own)[:-1] + ', "results": ' + nested + "}", body)
            yield ".safetensors", len(nested).to_bytes(8, "little") + nested.encode() + body
            yield ".json", nested.encode()
    some = some_tensor(whole)
    for change in ({"data_offsets": [0, 2**62]}, {"data_offsets": [8, 0]}, {"data_offsets": [-1, 4]},
                   {"shape": [2**62]}, {"shape": [2**32, 2**32]}, {"shape": [-1]}, {"dtype": "os.system"},
                   {"dtype": "F4"}, {"shape": "3"},
                   {"data_offsets": [0.5, 4]}, {"extra": 1}, {"data_offsets": []}):
        yield ".safetensors", joined({**whole, "model.x": some | change}, own, body)
    for twice in ('"format": 1', '"architecture": {"name": "os.system", "arguments": {}}', '"class_names": []'):
        yield ".safetensors", joined(dict(whole), json.dumps(own)[:-1] + f", {twice}}}", body)


def hostile(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(ending, bytes) without end: first each kind once, then pickles of every callable in every container."""
    modelfile.write(folder / "good.safetensors", contents())
    good = (folder / "good.safetensors").read_bytes()
    every = [*header_tricks(good), *names_as_code(good)]
    yield from every[:: max(1, len(every) // 200)]
    mark = str(folder / "mark")
    commands = {"mkdir": mark, "exec": f"open({mark!r}, 'w')", "eval": f"open({mark!r}, 'w')", "open": mark}
    calls = [made for module, name in CALLABLES
             for pickled in pickles(module, name, commands.get(name, f"touch {mark}")) for made in wrapped(pickled)]
    random.Random(0).shuffle(calls)
    mixed = itertools.cycle(itertools.chain.from_iterable(itertools.zip_longest(calls, every[1:], fillvalue=calls[0])))
    yield from itertools.islice(mixed, WARM)
    for code in ("utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le", "utf-8-sig"):  # json would import a codec
        text = '{"a": 1}'.encode(code)
        yield ".safetensors", len(text).to_bytes(8, "little") + text
        yield ".json", text
    yield from mixed


def readers(ending: str) -> tuple[Callable[[Path], object], ...]:
    """Every function of ours that opens such a file."""
    if ending == ".json":
        return (lambda file: Recipe.from_json(file.read_text("utf-8", "replace"), str(file)),
                lambda file: result.read(file.parent), lambda file: read_run(file.parent),
                lambda file: checkpoint.read(file.parent), lambda file: find_layout(str(file.parent)))
    return (lambda file: find_layout(str(file)),) if ending == ".csv" else (modelfile.read, weightfile.read)


class Watch:
    """An audit hook that can be switched on; what it saw while it was."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.seen = os.path.realpath(folder), False, set[str]()
        sys.addaudithook(self.heard)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by the interpreter."""
        if not self.on:
            return
        self.on = False  # what this function does itself is no event
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int):
                inside = os.path.realpath(os.fsdecode(path)).startswith(self.folder + os.sep)
                if not inside or flags & (os.O_WRONLY | os.O_RDWR):
                    self.seen.add(f"open {os.fsdecode(path)}")
        elif event.startswith(BANNED):
            self.seen.add(f"{event} {str(arguments)[:80]}")
        self.on = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it is on."""
        self.seen.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False


def watched(trials: int, place: str, loader: str = "ours") -> None:
    """C1's child: prints [violations, counts]. `loader` "unsafe" reads as libraries without such a rule do."""
    folder = Path(place)
    made = hostile(folder)
    files = [next(made) for _ in range(trials)]
    warm = [("", (folder / "good.safetensors").read_bytes()), *files[:WARM]]
    if loader == "unsafe":
        files = [(".bin", pickled) for pickled in pickles("os", "mkdir", str(folder / "mark"))]
    watch = Watch(folder / "in")
    (folder / "in").mkdir()
    violations: list[str] = []
    counts = {"read": 0, "refused": 0}
    for armed, (ending, data) in [(False, one) for one in warm] + [(True, one) for one in files]:
        file = folder / "in" / f"file{ending}"
        for name in (file, *map(file.with_name, RUN_FILES if ending == ".json" else ())):
            name.write_bytes(data)
        for read in (unsafely,) if ending == ".bin" else readers(ending):
            outcome = "read"
            with watch.watching(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read(file)
                except (InputError, RefusedError):
                    outcome = "refused"
                except BaseException as error:
                    outcome = f"{type(error).__name__}: {str(error)[:100]}"
            if not armed:
                continue
            counts[outcome] = counts.get(outcome, 0) + 1
            what = f"{ending}, {getattr(read, '__module__', '')}.{getattr(read, '__name__', '')}, {data[:40]!r}"
            if outcome not in ("read", "refused"):
                violations.append(f"{what}: {outcome}")
            violations += [f"{what}: {event}" for event in sorted(watch.seen)]
            if (folder / "mark").exists():
                violations.append(f"{what}: the mark was left")
                (folder / "mark").rmdir() if (folder / "mark").is_dir() else (folder / "mark").unlink()
    print(json.dumps([violations, counts]))


def cannot_execute(trials: int, folder: Path, loader: str = "ours") -> Outcome:
    """C1."""
    found, failed = called(f"faults.loading:watched({trials}, {str(folder)!r}, {loader!r})", folder, 60 + trials / 10)
    if failed:
        return Outcome(1, (failed,))
    return Outcome(trials, tuple(found[0]), ", ".join(f"{count:,} times {what}" for what, count in found[1].items())
                   + "; watched: Python's audit events and the marks; strace was not used")


GOALS = (
    Goal("C1", "loading can't execute: hostile files for every reader", "0 events of import, exec, process, socket, "
         "library, writing or files outside; no mark", 5_000, 300, cannot_execute,
         (Control("a loader of pickles", lambda folder: cannot_execute(1, folder, "unsafe")),)),
)
