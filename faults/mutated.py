"""A million mutated model files (C2): each is refused with a reason or gives the weights that were written.

The mutations know the file: its length prefix, its table of tensors, its JSON in JSON. A million files in one process
also show a leak; the interpreter's garbage is part of what is counted.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

from faults.goal import Control, Goal, Outcome
from faults.loading import NAMES, contents, joined, parts
from faults.pictures import called
from layerwise import modelfile
from layerwise.errors import InputError

SLOWEST = 0.1  # seconds of processor time a file
EXTRA = 64 << 20  # bytes of memory above the file's own
TOKENS = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"NaN", b"1e999", b"-", b"\\u0000", b"\\ud800", b"\0",
          b"\xff", b'"__metadata__"', b'"layerwise"', b'"dtype":"F64"', b'"data_offsets":[0,0]', b"9" * 40)  # fmt: skip
ODD: tuple[Any, ...] = (None, True, False, -1, 0, 1, 2, 3, 1e308, 10**30, 0.5, "", "a" * 10_000, [], {}, [[]],
                        [0] * 500, float("nan"), float("inf"), {"name": {}}, "\ud800", "\0", *NAMES)  # fmt: skip
# The last two cost the building of a network, some milliseconds.
WEIGHTS = {"bytes": 180, "header": 8, "tokens": 8, "fields": 3, "network": 1}


def mutated(good: bytes, split: tuple[str, str, bytes], how: str, chance: random.Random) -> bytes:
    """The file after one mutation of a kind; `split` are its two headers as JSON and the tensors' bytes."""
    if how == "bytes":
        return _bytes(bytearray(good), chance)
    whole, own, body = json.loads(split[0]), json.loads(split[1]), split[2]
    if how == "tokens":
        text = split[1].encode() if chance.random() < 0.5 else split[0].encode()
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(TOKENS) + text[at + chance.randrange(4) :]
        if text[:2] == b'{"' and b"data_offsets" in text:
            return len(text).to_bytes(8, "little") + text + body
        return joined(whole, text.decode("utf-8", "surrogateescape"), body)
    if how == "header":
        _change(whole, chance)
        if chance.random() < 0.5:
            text = json.dumps(whole).encode("utf-8", "surrogatepass")
            return len(text).to_bytes(8, "little") + text + body
    elif how == "network":
        _change(own["architecture"], chance)
    else:
        target = {key: value for key, value in own.items() if key != "architecture"}
        _change(target, chance)
        own = target | {"architecture": own["architecture"]}
    return joined(whole, own, body)


def _bytes(data: bytearray, chance: random.Random) -> bytes:
    kind, at = chance.randrange(6), chance.randrange(len(data))
    if kind == 0:
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + chance.randint(1, 64)]
    elif kind == 3:
        data[at:at] = data[at : at + chance.randint(1, 64)] or b"\0"
    elif kind == 4:
        length = max(0, int.from_bytes(data[:8], "little") + chance.choice((-8, -1, 1, 8, 2**31, 2**62)))
        data[:8] = length.to_bytes(8, "little")
    else:
        data += bytes(chance.randint(1, 64))
    return bytes(data)


def _change(record: dict[str, Any], chance: random.Random) -> None:
    """One change somewhere below: a value replaced, left out, doubled under another name, or put elsewhere."""
    places: list[tuple[Any, Any]] = []

    def gather(value: Any) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(inner, (dict, list)):
                gather(inner)

    gather(record)
    holder, key = chance.choice(places)
    kind = chance.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[chance.choice(NAMES)] = holder[key]
    elif kind == 2:
        other, place = chance.choice(places)
        with contextlib.suppress(KeyError, IndexError):  # a place that the first change took away
            holder[key] = json.loads(json.dumps(other[place]))
    else:
        holder[key] = chance.choice(ODD)


def child(first: int, last: int, place: str, checked: bool) -> None:
    """C2's process: prints [violations, counts]."""
    folder = Path(place)
    file = folder / "model.safetensors"
    modelfile.write(file, contents())
    good, right = file.read_bytes(), modelfile.read(file)
    whole, own, body = parts(good)
    split = (json.dumps(whole), json.dumps(own), body)
    assert joined(json.loads(split[0]), json.loads(split[1]), body)
    if not checked:
        modelfile._digest = lambda tensors: right.sha256  # the control: no digest
    violations: list[str] = []
    counts: Counter[str] = Counter()
    kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
    reference = modelfile._digest
    expected = {name: tensor.clone() for name, tensor in right.model.state_dict().items()}
    slowest, before, chance = 0.0, 0, random.Random()
    for number in range(first, last):
        if number == first + min(1000, (last - first) // 2):
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        chance.seed(number)
        how = chance.choice(kinds)
        data = mutated(good, split, how, chance)
        seconds = SLOWEST * 2
        for _ in range(3):  # a busy machine's processor is slow now and then: the least of three counts
            started, outcome = time.process_time(), "read"
            try:
                found = modelfile.read_bytes(data, file)
            except InputError as refusal:
                outcome = "refused" if str(refusal).strip() else "refused without a reason"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {str(error)[:200]}"
            seconds = min(seconds, time.process_time() - started)
            if seconds <= SLOWEST:
                break
        slowest = max(slowest, seconds)
        counts[outcome] += 1
        if outcome == "read":
            state = found.model.state_dict()
            if any(not state[name].equal(tensor) for name, tensor in expected.items()):
                violations.append(f"{number}, {how}: read, with other weights")
        elif outcome != "refused":
            violations.append(f"{number}, {how}: {outcome}")
        if seconds > SLOWEST:
            violations.append(f"{number}, {how}: {1000 * seconds:.0f} ms")
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > EXTRA + 2 * len(good):
        violations.append(f"the peak of memory grew by {grown >> 20} MiB")
    assert reference is modelfile._digest
    print(json.dumps([violations, {**counts, "slowest, ms": round(1000 * slowest), "grown, MiB": grown >> 20}]))


def survives(trials: int, folder: Path, checked: bool = True) -> Outcome:
    """C2."""
    found, failed = called(f"faults.mutated:child(0, {trials}, {str(folder)!r}, {checked})", folder, 120 + trials / 50)
    if failed:
        return Outcome(1, (failed,))
    violations, counts = found
    return Outcome(trials, tuple(violations), "; ".join(f"{what}: {count:,}" for what, count in counts.items())
                   + "; by a seeded, structure-aware mutator of our own; not with atheris")


GOALS = (
    Goal("C2", "a million mutated model files", "0 crashes, 0 other weights; 100 ms of processor time and 64 MiB each",
         1_000_000, 6_000, survives, (Control("digest off", lambda folder: survives(400, folder, checked=False)),)),
)
