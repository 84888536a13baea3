"""A2, A3, A4: what a power failure, a rotten disk and a failing call leave of a run's checkpoints and records."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from faults.crashes import Disk, build, recorded
from faults.goal import Control, Goal, Outcome
from layerwise import checkpoint, rundir
from layerwise.errors import LayerwiseError

SAVES = 20
BLOCK = 512
Tensors = dict[str, torch.Tensor]


def tensors_of(number: int) -> Tensors:
    """What save `number` holds: three pages and a little, so that a cut at a page is inside."""
    generator = torch.Generator().manual_seed(number)
    return {"model/a": torch.randn(3000, generator=generator), "model/b": torch.randn(7, generator=generator),
            "optimiser/a": torch.full((5,), float(number))}


@dataclass(frozen=True)
class Protocol:
    """A way to keep checkpoints: `save(run, number, lines)` writes save `number` when the record has so many bytes.

    `load(run)` returns the number of the save that is found (0 for none) and the bytes of the record it knows of, or
    raises LayerwiseError, ValueError or OSError for what is not whole.
    """

    save: Callable[[Path, int, int], None]
    load: Callable[[Path], tuple[int, int]]


def _save(run: Path, number: int, lines: int) -> None:
    position = 10 * number - (10 if number % 7 == 0 else 0)  # each seventh at the position of the one before
    checkpoint.write(run / rundir.CHECKPOINTS, position, tensors_of(number), {"save": number, "lines": lines})


def _load(run: Path) -> tuple[int, int]:
    """As a resumption does. Stricter: no generation may be damaged, not even one that would not be taken."""
    found, problems = checkpoint.newest(run / rundir.CHECKPOINTS)
    problems += tuple(_damage(run))
    if problems:
        raise ValueError("; ".join(problems))
    if found is None:
        return 0, 0
    _require_same(found.tensors, found.state["save"])
    return found.state["save"], found.state["lines"]


def _damage(run: Path) -> Iterator[str]:
    for generation in checkpoint.generations(run / rundir.CHECKPOINTS):
        try:
            checkpoint.read(generation)
        except LayerwiseError as error:
            yield error.what


def _require_same(tensors: Tensors, number: int) -> None:
    whole = tensors_of(number)
    if tensors.keys() != whole.keys() or not all(torch.equal(tensors[name], whole[name]) for name in whole):
        raise ValueError(f"save {number} does not have its own tensors")


OURS = Protocol(_save, _load)


def _save_in_place(run: Path, number: int, lines: int) -> None:
    """As many trainers save: the final path, no fsync."""
    data = save_tensors(tensors_of(number), metadata={"save": str(number), "lines": str(lines)})
    with open(run / "checkpoint.safetensors", "wb") as file:
        file.write(data)


def _save_renamed(run: Path, number: int, lines: int) -> None:
    """A temporary name and a rename, and no fsync."""
    data = save_tensors(tensors_of(number), metadata={"save": str(number), "lines": str(lines)})
    with open(run / "checkpoint.writing", "wb") as file:
        file.write(data)
    os.replace(run / "checkpoint.writing", run / "checkpoint.safetensors")


def _load_one(run: Path) -> tuple[int, int]:
    file = run / "checkpoint.safetensors"
    if not file.exists():
        return 0, 0
    data = file.read_bytes()
    tensors = load_tensors(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    _require_same(tensors, int(header["save"]))
    return int(header["save"]), int(header["lines"])


def _save_manifest_first(run: Path, number: int, lines: int) -> None:
    """Our files and fsyncs, in the final directory, the manifest first: its presence says nothing."""
    final = run / rundir.CHECKPOINTS / f"{10 * number:012d}"
    checkpoint.make_durably(final)
    files = {checkpoint.TENSORS: save_tensors(tensors_of(number)),
             checkpoint.STATE: json.dumps({"save": number, "lines": lines}, sort_keys=True).encode()}
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest = {"format": checkpoint.FORMAT, "position": 10 * number, "files": listed}
    for name, data in ({checkpoint.MANIFEST: json.dumps(manifest, sort_keys=True).encode()} | files).items():
        checkpoint.write_durably(final / name, data)
    checkpoint.fsync_directory(final)


def _records(run: Path, number: int) -> dict[str, bytes]:
    """The other files as save `number` leaves them: written as train, update_run and the model file's writer do."""
    note = json.dumps({"format": rundir.FORMAT, "state": f"save {number}", "filler": "x" * 5000}).encode()
    found = {rundir.RUN: note, rundir.RECIPE: b'{"recipe": "' + b"y" * 5000 + b'"}'}
    if number >= SAVES:
        found["model.safetensors"] = save_tensors(tensors_of(number))
    return found


def crash_states(trials: int, folder: Path, protocol: Protocol = OURS) -> Outcome:
    """A2: 20 saves are recorded, then `trials` different states after a crash are built and loaded.

    A state must hold the last save that was done, or the one under way; each generation whole; the record's lines up
    to there; and run.json, recipe.json and the model file as they were before or after a change. One in fifty is gone
    on with: the next save must succeed and stand.
    """
    root, place = folder / "recorded", folder / "crashed"
    root.mkdir()
    text = b"".join(b'{"line": %0500d}\n' % line for line in range(9 * SAVES))  # a page and a little a save
    with recorded(root) as record:
        run = root / "run"
        checkpoint.make_durably(run)
        lines = rundir.Lines(run / rundir.METRICS)
        for name, content in _records(run, 0).items():
            checkpoint.replace_durably(run / name, content)
        record.mark(0)
        for number in range(1, SAVES + 1):
            for line in range(9 * (number - 1), 9 * number):
                _append(run, b'{"line": %0500d}\n' % line)
            protocol.save(run, number, lines.sync())
            record.mark(number)
            for name, content in _records(run, number).items():
                if name != rundir.RECIPE:
                    checkpoint.replace_durably(run / name, content)
            if number % 6 == 0:  # a resumption cuts the record back to the last save
                _append(run, b"{}\n")
                lines.cut((run / rundir.METRICS).stat().st_size - 3)
    disk, seen, problems = Disk(record), set[int](), list[str]()
    first = record.marks[0][0]
    prefixes = range(first, len(record.steps) + 1)
    tries = 0
    while len(seen) < trials and tries < 20 * trials:
        for done in prefixes if trials >= len(prefixes) else random.Random(tries).sample(prefixes, trials):
            for _ in range(max(1, trials // len(prefixes) + 1)):
                tries += 1
                state = disk.crash(done, random.Random(tries))
                key = hash((done, *sorted(state.items())))
                if key in seen or len(seen) == trials:
                    continue
                seen.add(key)
                build(state, place)
                said = max(mark for at, mark in record.marks if at <= done)
                problem = _problem(place / "run", said, text, protocol)
                if not problem and len(seen) % 50 == 1:
                    problem = _gone_on(place / "run", protocol)
                if problem:
                    problems.append(f"crash after operation {done} (save {said} done): {problem}")
    shutil.rmtree(place, ignore_errors=True)
    return Outcome(len(seen), tuple(problems), f"{len(record.steps)} operations of {SAVES} saves, each a crash point")


def _append(run: Path, line: bytes) -> None:
    with open(run / rundir.METRICS, "ab") as file:
        file.write(line)


def _problem(run: Path, said: int, text: bytes, protocol: Protocol) -> str:
    """What is wrong with a state in which save `said` was done and perhaps the next one was under way."""
    try:
        number, known = protocol.load(run)
    except (LayerwiseError, ValueError, OSError) as error:
        return str(error)
    except Exception as error:  # what safetensors raises
        return repr(error)
    if number not in (said, said + 1):
        return f"save {number} was loaded"
    metrics = (run / rundir.METRICS).read_bytes() if (run / rundir.METRICS).exists() else b""
    if metrics[:known] != text[:known] or len(metrics) < known:
        return f"{rundir.METRICS} lost lines that save {number} knows of"
    for name, allowed in {name: [_records(run, one).get(name) for one in (said - 1, said, said + 1) if one >= 0]
                          for name in (rundir.RUN, rundir.RECIPE, "model.safetensors")}.items():
        content = (run / name).read_bytes() if (run / name).exists() else None
        if content not in allowed:
            return f"{name} is neither as before nor as after"
    return ""


def _gone_on(run: Path, protocol: Protocol) -> str:
    try:
        lines = rundir.Lines(run / rundir.METRICS)
        lines.cut(protocol.load(run)[1])
        protocol.save(run, SAVES + 2, lines.sync())
        found = protocol.load(run)[0]
    except (LayerwiseError, ValueError, OSError) as error:
        return f"could not be gone on with: {error}"
    return "" if found == SAVES + 2 else f"gone on with, save {found} was loaded"


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    """checkpoint.py without some of its functions."""
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(checkpoint, name))
        yield


def _quick_write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        for piece in checkpoint.pieces(data):
            file.write(piece)


def _without_file_fsync(folder: Path) -> Outcome:
    with mock.patch.object(checkpoint, "write_durably", _quick_write):
        return crash_states(300, folder)


def _without_directory_fsync(folder: Path) -> Outcome:
    with _without("fsync_directory"):
        return crash_states(300, folder)


def bit_rot(trials: int, folder: Path) -> Outcome:
    """A3: the newest of two generations is damaged in `trials` + the truncations + trials / 20 places, one at a time.

    A single bit flipped (of all, drawn without repetition while they last), each file cut at every 512 bytes, two
    blocks of 512 bytes swapped. Each must be found, the generation before taken, and the damaged file named.
    """
    directory = folder / rundir.CHECKPOINTS
    for number in (1, 2):
        checkpoint.write(directory, 10 * number, tensors_of(number), {"save": number, "lines": 0, "notes": ["n"] * 99})
    newest = checkpoint.generations(directory)[-1]
    whole = {file: file.read_bytes() for file in sorted(newest.iterdir())}
    draw, problems, tried = random.Random(3), list[str](), 0
    for file, data, what in _damaged(whole, trials, draw):
        file.write_bytes(data)
        tried += 1
        try:
            found, said = checkpoint.newest(directory)
            number = 0 if found is None else found.state["save"]
            if number != 1 or found is None or any(not torch.equal(found.tensors[name], tensor)
                                                   for name, tensor in tensors_of(1).items()):
                problems.append(f"{file.name}, {what}: save {number} was taken")
            elif len(said) != 1 or not said[0].startswith(f"{file}:"):
                problems.append(f"{file.name}, {what}: said {said}")
        except Exception as error:
            problems.append(f"{file.name}, {what}: {error!r}")
        file.write_bytes(whole[file])
    if (found := checkpoint.newest(directory)[0]) is None or found.state["save"] != 2:
        problems.append("the undamaged generation was not taken")
    sizes = ", ".join(f"{file.name} {len(data)}" for file, data in whole.items())
    return Outcome(tried, tuple(problems), f"bytes: {sizes}")


def _damaged(whole: dict[Path, bytes], trials: int, draw: random.Random) -> Iterator[tuple[Path, bytes, str]]:
    bits = [(file, bit) for file, data in whole.items() for bit in range(8 * len(data))]
    small = [one for one in bits if one[0].name != checkpoint.TENSORS]  # all of these first: a few thousand
    chosen = draw.sample(small, min(len(small), trials // 2))
    rest = trials - len(chosen)
    for file, bit in [*chosen, *draw.choices([one for one in bits if one[0].name == checkpoint.TENSORS], k=rest)]:
        altered = bytearray(whole[file])
        altered[bit // 8] ^= 1 << bit % 8
        yield file, bytes(altered), f"bit {bit} flipped"
    for file, data in whole.items():
        for size in range(0, len(data), BLOCK):
            yield file, data[:size], f"cut at {size}"
    for _ in range(trials // 20):
        file = draw.choice([file for file, data in whole.items() if len(data) >= 3 * BLOCK])
        blocks = [whole[file][at : at + BLOCK] for at in range(0, len(whole[file]), BLOCK)]
        one, other = draw.sample(range(len(blocks)), 2)
        if blocks[one] != blocks[other]:
            blocks[one], blocks[other] = blocks[other], blocks[one]
            yield file, b"".join(blocks), f"blocks {one} and {other} swapped"


def _unverified(generation: Path) -> checkpoint.Generation:
    """As checkpoint.read was without digests and sizes."""
    return checkpoint.Generation(generation, load_tensors((generation / checkpoint.TENSORS).read_bytes()),
                                 json.loads((generation / checkpoint.STATE).read_bytes()))


def _without_verification(folder: Path) -> Outcome:
    with mock.patch.object(checkpoint, "read", _unverified):
        return bit_rot(200, folder)


def _without_the_manifests_own_digest(folder: Path) -> Outcome:
    def believed(generation: Path) -> object:
        return json.loads((generation / checkpoint.MANIFEST).read_bytes())

    with mock.patch.object(checkpoint, "_manifest", believed):
        return bit_rot(400, folder)


A2 = Goal(
    "A2", "every crash point of a checkpoint is safe", "0 violations", 10_000, 400, crash_states,
    (Control("plain save to the final path", lambda folder: crash_states(
        100, folder, Protocol(_save_in_place, _load_one))),
     Control("rename without fsync", lambda folder: crash_states(100, folder, Protocol(_save_renamed, _load_one))),
     Control("files not synced", _without_file_fsync),
     Control("directories not synced", _without_directory_fsync),
     Control("manifest first", lambda folder: crash_states(100, folder, Protocol(_save_manifest_first, _load)))),
)
A3 = Goal(
    "A3", "bit rot is caught", "100 % found, the last good one taken, the file named", 20_000, 400, bit_rot,
    (Control("verification off", _without_verification),
     Control("the manifest believed", _without_the_manifests_own_digest)),
)
GOALS = (A2, A3)
