"""The wheel is the repository (C6): two builds are the same bytes, it holds git's files, and imports quietly."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from faults.goal import Control, Goal, Outcome

ROOT = Path(__file__).resolve().parents[1]
KINDS = (".py", ".html", ".css", ".svg", ".json", "py.typed")  # what is installed; see pyproject.toml
OWN = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "LICENSE")
# Imports every module below a folder and prints what the interpreter reported of the network and of processes.
IMPORTS = """
import importlib, json, pathlib, sys
seen = []
def heard(event, arguments):
    if event.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "subprocess",
                         "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "urllib", "webbrowser")):
        seen.append(f"{event} {str(arguments)[:100]}")
sys.path.insert(0, sys.argv[1])
ours = sorted(pathlib.Path(sys.argv[1]).rglob("*.py"))
sys.addaudithook(heard)
names = []
for file in ours:
    parts = file.relative_to(sys.argv[1]).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if not name.endswith("__main__"):
        importlib.import_module(name)
        names.append(name)
print(json.dumps([seen, len(names)]))
"""


def sources() -> dict[str, str]:
    """The package's files as git knows them: name and SHA-256."""
    listed = subprocess.run(["git", "ls-files", "layerwise"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in listed.stdout.splitlines()
            if name.endswith(KINDS)}


def built(folder: Path, extra: str = "") -> Path:
    """The wheel of a copy of the repository, with a file more if asked for."""
    tree = folder / "tree"
    wanted = [*sources(), "pyproject.toml", "README.md", "LICENSE"]
    for name in wanted:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    if extra:
        (tree / extra).write_text("import socket\nsocket.getaddrinfo('localhost', 1)\n")
    program = ("import os, sys, setuptools.build_meta as build; os.chdir(sys.argv[1]);"
               " print(); print(build.build_wheel(sys.argv[2]))")
    done = subprocess.run([sys.executable, "-c", program, str(tree), str(folder)], capture_output=True, text=True,
                          env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return folder / done.stdout.splitlines()[-1]


def the_repository(trials: int, folder: Path, extra: str = "") -> Outcome:
    """C6: `trials` builds, one after the other; with `extra` as the control."""
    problems, digests = [], set()
    for number in range(trials):
        (folder / str(number)).mkdir()
        wheel = built(folder / str(number), extra)
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    if len(digests) != 1:
        problems.append(f"{len(digests)} different wheels of one repository")
    with zipfile.ZipFile(wheel) as file:
        held = {name: hashlib.sha256(file.read(name)).hexdigest() for name in file.namelist()}
        file.extractall(folder / "site")
    ours = {name: digest for name, digest in held.items() if ".dist-info/" not in name}
    wanted = sources()
    problems += [f"{name}: in the wheel alone" for name in ours.keys() - wanted.keys()]
    problems += [f"{name}: not in the wheel" for name in wanted.keys() - ours.keys()]
    problems += [f"{name}: other bytes" for name in wanted.keys() & ours.keys() if wanted[name] != ours[name]]
    problems += [f"{name}: a file that no wheel needs" for name in held.keys() - ours.keys() if not name.endswith(OWN)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", IMPORTS, str(folder / "site")], capture_output=True, text=True,
                          cwd=folder, env=environment, timeout=600)
    if done.returncode:
        return Outcome(trials, (*problems, f"not imported: {done.stderr[-500:]}"))
    seen, modules = json.loads(done.stdout.splitlines()[-1])
    return Outcome(trials, (*problems, *seen), f"{len(ours)} files, {modules} modules imported; same file times in "
                   "each build (SOURCE_DATE_EPOCH)")


GOALS = (
    Goal("C6", "the wheel is the repository",
         "byte-identical, 0 files more or fewer, 0 connections or processes at import", 2, 0, the_repository,
         (Control("a file more, that asks for an address",
                  lambda folder: the_repository(1, folder, "layerwise/stray.py")),),
         needs=lambda: "" if importlib.util.find_spec("setuptools") and (ROOT / ".git").exists() else
         "needs setuptools and git"),
)
