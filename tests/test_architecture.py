"""The house's rules, read from the source with `ast`; beside each a planted breach that it must find.

docs/architecture.md says why. A new file of the top level gets a room in ROOMS; nothing else here changes with it.
"""

from __future__ import annotations

import ast
import re
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "layerwise"
LINES = 400
PARAMETERS, COMMAND_PARAMETERS = 7, 10
VAGUE = ("utils", "util", "helpers", "helper", "common", "misc")

# Room: (its files or folders, the rooms whose files it may import besides its own). A room imports only rooms above
# it in this table, so the direction can't turn round; what a room may not know is simply not in its list.
LOW = ("ground", "recipe")
NETWORKS = ("layers", "models")
FILES = ("machine", "files")
MEASURES = ("measures", "tasks")
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ground": (("errors", "processor", "randomness", "signals", "spreadsheet"), ()),
    "console": (("console",), ("ground",)),
    "recipe": (("recipe", "recipes"), ("ground",)),
    "layers": (("layers",), ("ground",)),
    "models": (("models",), ("ground", "layers")),
    "data": (("data",), LOW),
    "measures": (("evaluation",), ("ground",)),
    "tasks": (("tasks",), ("ground", *NETWORKS, "measures")),
    "rules": (("training.schedule", "training.optimiser", "training.average"), (*LOW, "layers")),
    "machine": (("allocator", "checkpoint", "hardware", "distributed", "heartbeat", "running_lock"), LOW),
    "files": (("modelfile", "rundir"), (*LOW, *NETWORKS, "data", "machine")),
    "evaluate": (("evaluate", "evaluation.views", "evaluation.batch_statistics", "evaluation.calibrate"),
                 (*LOW, *NETWORKS, "data", *MEASURES, *FILES)),
    "train": (("train", "training"),
              (*LOW, *NETWORKS, "data", *MEASURES, "rules", *FILES, "console")),
    "importing": (("importing",), (*LOW, *NETWORKS, "data", *FILES)),
    "compress": (("compress",), (*LOW, *NETWORKS, "data", *MEASURES, *FILES, "evaluate")),
    "explain": (("explain",), (*LOW, *NETWORKS, "data", *MEASURES, *FILES)),
    "serve": (("serve",), (*LOW, *NETWORKS, "data", *MEASURES, *FILES)),
    "experiments": (("experiments",), (*LOW, *NETWORKS, "data", *MEASURES, *FILES, "evaluate", "train", "explain")),
    "report": (("report",), (*LOW, *NETWORKS, "data", *MEASURES, *FILES, "experiments", "explain")),
}
EVERYWHERE = tuple(ROOMS)
ROOMS["jobs"] = (("jobs",), EVERYWHERE)
ROOMS["public"] = (("",), (*EVERYWHERE, "jobs"))
ROOMS["command line"] = (("cli", "__main__"), (*EVERYWHERE, "jobs", "public"))

# Packages that only these rooms may import: the core stays small, and a page or a table is made in one place.
GUESTS = {
    "typer": ("command line",), "rich": ("console", "command line"), "jinja2": ("report",),
    "matplotlib": ("report", "experiments", "explain"), "faiss": ("explain",), "torchvision": (), "timm": (),
}
UNSAFE_IMPORTS = ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "imp", "runpy", "code")
PICKLES_READ = "layerwise/importing/weightfile.py"  # the one file that may, through torch's restricted loader
UNSAFE_CALLS = ("eval", "exec", "compile", "__import__", "import_module", "system", "popen")
PRIVATE_PLACE = re.compile(r"(?<![\w./:>-])(?:/(?:home|root|Users|work|mnt|opt|srv|tmp)/\w|[A-Z]:\\\\?Users)")


@cache
def sources() -> dict[str, str]:
    """Every Python file of the project: its path under the root, and its text."""
    folders = (PACKAGE, "tests", "benchmarks", "faults")
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
            for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))}


def package_sources() -> dict[str, str]:
    """The files of the package alone."""
    return {path: text for path, text in sources().items() if path.startswith(PACKAGE + "/")}


def module_name(path: str) -> str:
    """`layerwise/data/__init__.py` is `layerwise.data`."""
    parts = path.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: str, text: str, modules: set[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of `path`, at any depth and for types too; relative ones resolved."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = path.removesuffix(".py").split("/")[: -node.level]
                base = ".".join([*here, base] if base else here)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules else base


def room(module: str) -> str | None:
    """The room of `layerwise.data.images`: the one that lists `data.images`, else the one that lists `data`."""
    parts = module.split(".")[1:]
    wanted = [".".join(parts[:2]), parts[0] if parts else ""]
    return next((name for part in wanted for name, (files, _) in ROOMS.items() if part in files), None)


def arrows(files: dict[str, str]) -> list[str]:
    """Imports against the direction, files without a room, and packages imported outside their rooms."""
    modules = {module_name(path) for path in files}
    problems = []
    for path, text in files.items():
        mine = room(module_name(path))
        if mine is None:
            problems.append(f"{path}: has no room; give it one in tests/test_architecture.py")
            continue
        for line, target in imports(path, text, modules):
            top = target.split(".")[0]
            if top != PACKAGE:
                if mine not in GUESTS.get(top, (mine,)):
                    problems.append(f"{path}:{line}: {mine} imports {top}; only {GUESTS[top] or 'nobody'} may")
                continue
            other = room(target)
            if other is None:
                problems.append(f"{path}:{line}: {target} has no room")
            elif other != mine and other not in ROOMS[mine][1]:
                problems.append(f"{path}:{line}: {mine} -> {other} ({target}) is against the direction")
    return problems


def cycle(files: dict[str, str]) -> list[str]:
    """The modules of one cycle of imports, [] where there is none."""
    modules = {module_name(path) for path in files}
    graph = {module_name(path): sorted({target for _, target in imports(path, text, modules)} & modules)
             for path, text in files.items()}
    done: set[str] = set()

    def walk(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module):], module]
        if module not in done:
            for target in graph[module]:
                if found := walk(target, [*trail, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in graph if (found := walk(module, []))), [])


def long_files(files: dict[str, str]) -> list[str]:
    """Files with more than LINES lines."""
    return [f"{path}: {count} lines" for path, text in files.items() if (count := len(text.splitlines())) > LINES]


def vague_names(files: dict[str, str]) -> list[str]:
    """Files and folders called after nothing."""
    return [path for path in files if set(path.removesuffix(".py").split("/")) & set(VAGUE)]


def functions(text: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool, bool]]:
    """(function, whether it is a method, whether its name can be reached without an underscore)."""
    def inside(body: list[ast.stmt], method: bool, public: bool) -> Iterator[tuple]:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                named = not node.name.startswith("_") or node.name in ("__init__", "__call__", "__new__")
                yield node, method, public and named
                yield from inside(node.body, False, False)
            elif isinstance(node, ast.ClassDef):
                yield from inside(node.body, True, public and not node.name.startswith("_"))
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from inside(node.body, method, public)
    yield from inside(ast.parse(text).body, False, True)


def is_command(path: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function of the command line is a command: its parameters are typer's arguments and options."""
    notes = [ast.unparse(argument.annotation) for argument in function.args.args if argument.annotation]
    return path.startswith(f"{PACKAGE}/cli") and any("typer." in note for note in notes)


def signatures(files: dict[str, str]) -> list[str]:
    """Functions with too many parameters, and `**kwargs` in public signatures (but `models.build`)."""
    problems = []
    for path, text in files.items():
        for function, method, public in functions(text):
            where = f"{path}:{function.lineno}: {function.name}"
            arguments = function.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            static = any(ast.unparse(mark) == "staticmethod" for mark in function.decorator_list)
            count = len(names) - (method and not static) + (arguments.vararg is not None)
            most = COMMAND_PARAMETERS if is_command(path, function) else PARAMETERS
            if count > most:
                problems.append(f"{where} has {count} parameters, {most} are allowed")
            build = path == f"{PACKAGE}/models/__init__.py" and function.name == "build"
            if arguments.kwarg is not None and public and not build and path.startswith(PACKAGE):
                problems.append(f"{where} takes **{arguments.kwarg.arg}: a misspelt name would pass silently")
    return problems


def star_imports(files: dict[str, str]) -> list[str]:
    """`from x import *`."""
    return [f"{path}:{node.lineno}" for path, text in files.items() for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)]


def unsafe(files: dict[str, str]) -> list[str]:
    """What could run code that a file names: pickle and its kin, eval, exec, imports by name, torch.load, a shell."""
    problems = []
    for path, text in files.items():
        modules = {module_name(other) for other in files}
        problems += [f"{path}:{line}: import {target}" for line, target in imports(path, text, modules)
                     if target.split(".")[0] in UNSAFE_IMPORTS]
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            name = called.split(".")[-1]
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            # A method of the same name (model.eval(), re.compile) is something else: only builtins and these modules.
            bare = "." not in called or called.split(".")[0] in ("builtins", "os", "importlib")
            weights_only = given.get("weights_only", "False" if called == "torch.load" else "True")
            trusting = weights_only != "True" or any(
                given.get(word, "False") != "False" for word in ("allow_pickle", "shell"))
            elsewhere = called == "torch.load" and path != PICKLES_READ
            if trusting or elsewhere or (bare and name in UNSAFE_CALLS):
                problems.append(f"{path}:{node.lineno}: {ast.unparse(node)[:80]}")
    return problems


def private_places(files: dict[str, str]) -> list[str]:
    """Paths of somebody's own machine."""
    return [f"{path}:{number}: {line.strip()[:100]}" for path, text in files.items()
            for number, line in enumerate(text.splitlines(), 1) if PRIVATE_PLACE.search(line)]


def test_arrows_point_one_way() -> None:
    assert "\n".join(arrows(package_sources())) == ""


def test_the_table_of_rooms_has_a_direction() -> None:
    """Each room may import only rooms above it; each file or folder stands in one room."""
    order = list(ROOMS)
    for index, (name, (_, allowed)) in enumerate(ROOMS.items()):
        assert set(allowed) <= set(order[:index]), name
    files = [file for names, _ in ROOMS.values() for file in names]
    assert len(files) == len(set(files))


@pytest.mark.parametrize(("path", "line", "found"), [
    ("layerwise/layers/norm.py", "from layerwise.models import resnet", "layers -> models"),
    ("layerwise/models/resnet.py", "import layerwise.data.loader", "models -> data"),
    ("layerwise/tasks/classify.py", "from layerwise import hardware", "tasks -> machine"),
    ("layerwise/report/run.py", "from ..train import train", "report -> train"),
    ("layerwise/data/loader.py", "def f():\n    from layerwise import build", "data -> public"),
    ("layerwise/train.py", "from layerwise.cli import main", "train -> command line"),
    ("layerwise/evaluate.py", "import typer", "only ('command line',) may"),
    ("layerwise/data/loader.py", "import torchvision.transforms", "only nobody may"),
    ("layerwise/novelty.py", "", "has no room"),
])
def test_an_arrow_against_the_direction_is_found(path: str, line: str, found: str) -> None:
    names = ("models/resnet", "hardware", "train", "cli/__init__", "data/loader", "__init__")
    rest = {f"layerwise/{name}.py": "" for name in names}
    assert arrows(rest) == []
    assert found in "\n".join(arrows(rest | {path: line}))


def test_no_cycle() -> None:
    assert " -> ".join(cycle(package_sources())) == ""


def test_a_cycle_is_found() -> None:
    files = {"layerwise/data/__init__.py": "from layerwise.data import a", "layerwise/data/c.py": "",
             "layerwise/data/a.py": "from layerwise.data import b",
             "layerwise/data/b.py": "def f():\n    from . import c"}
    assert cycle(files) == []
    files["layerwise/data/c.py"] = "import layerwise.data.a"
    assert cycle(files) == ["layerwise.data.a", "layerwise.data.b", "layerwise.data.c", "layerwise.data.a"]


def test_files_are_short_and_named() -> None:
    assert "\n".join(long_files(sources())) == ""
    assert "\n".join(vague_names(sources())) == ""


def test_long_and_vague_files_are_found() -> None:
    planted = {"layerwise/data/utils.py": "x = 1\n" * LINES, "layerwise/common/a.py": "x = 1\n" * (LINES + 1)}
    assert long_files(planted) == [f"layerwise/common/a.py: {LINES + 1} lines"]
    assert vague_names(planted) == list(planted)


def test_signatures_are_short_and_named() -> None:
    assert "\n".join(signatures(sources())) == ""


def test_long_and_nameless_signatures_are_found() -> None:
    seven = ", ".join("abcdefg")
    ten = ", ".join("abcdefghij")
    good = {
        "layerwise/train.py": f"def f({seven}): ...\nclass A:\n    def g(self, {seven}): ...\ndef _h(**kwargs): ...",
        "layerwise/cli/running.py": f"def train({ten}: Annotated[str, typer.Option()]): ...",
        "layerwise/models/__init__.py": "def build(name, **arguments): ...",
    }
    assert signatures(good) == []
    bad = {
        "layerwise/train.py": f"def f({seven}, *, h): ...\nclass A:\n    def __init__(self, **kwargs): ...",
        "layerwise/cli/running.py": f"def train({ten}): ...\ndef test({ten}, k: Annotated[str, typer.Option()]): ...",
        "layerwise/models/resnet.py": "class R:\n    @staticmethod\n    def build(name, **arguments): ...",
    }
    found = signatures(bad)
    assert [problem.split(": ")[1].split(" ")[0] for problem in found] == ["f", "__init__", "train", "test", "build"]


def test_nothing_is_imported_by_a_star() -> None:
    assert "\n".join(star_imports(sources())) == ""
    assert star_imports({"layerwise/a.py": "from torch.nn import *"}) == ["layerwise/a.py:1"]


def test_nothing_runs_what_a_file_names() -> None:
    assert "\n".join(unsafe({path: text for path, text in sources().items() if not path.startswith("tests/")})) == ""


@pytest.mark.parametrize("line", [
    "import pickle", "from joblib import load", "import yaml", "eval('1')", "exec(text)", "__import__(name)",
    "import importlib\nimportlib.import_module(name)", "torch.load(path)", "torch.load(path, weights_only=False)",
    "torch.load(path, weights_only=True)", "numpy.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)",
    "import os\nos.system(text)",
])
def test_what_could_run_code_is_found(line: str) -> None:
    assert len(unsafe({"layerwise/a.py": line})) == 1


def test_what_only_looks_unsafe_passes() -> None:
    text = "model.eval()\nre.compile('x')\ntorch.compile(model)\njson.load(file)"
    assert unsafe({"layerwise/a.py": text}) == []


def test_one_file_reads_pickles_and_only_restricted() -> None:
    assert unsafe({PICKLES_READ: "torch.load(path, weights_only=True)"}) == []
    for breach in ("torch.load(path, weights_only=False)", "torch.load(path)", "torch.load(path, weights_only=trust)"):
        assert len(unsafe({PICKLES_READ: breach})) == 1


def test_no_path_of_a_private_machine() -> None:
    pages = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
             for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "*.toml", "*.txt", "Makefile", ".ci/run")
             for path in sorted(ROOT.glob(pattern))}
    assert len(pages) > 5
    texts = {path: text for path, text in sources().items() if path != "tests/test_architecture.py"}
    assert "\n".join(private_places(texts | pages)) == ""


def test_a_path_of_a_private_machine_is_found() -> None:
    planted = {"a.py": "DATA = '/home/anna/data'", "b.py": "X = 'C:\\\\Users\\\\anna'", "c.md": "in /opt/thing/x",
               "fine.py": "'/usr/share/dataset', 'https://example.org/home/page', './work/x', '/tmp'"}
    assert [problem.split(":")[0] for problem in private_places(planted)] == ["a.py", "b.py", "c.md"]


def test_tests_reach_no_stranger() -> None:
    """The guard of conftest.py: a name or an address outside this machine is refused before a packet leaves."""
    with socket.socket() as outside, pytest.raises(RuntimeError, match="no test needs the network"):
        outside.connect(("192.0.2.1", 80))
    with socket.socket() as listener, socket.socket() as inside:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        inside.connect(listener.getsockname())
        assert inside.getpeername() == listener.getsockname()
