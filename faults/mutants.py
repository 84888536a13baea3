"""The tests are tested (E4): of 500 small faults put into the state, the sampler, the checkpoint, the loader and the
limits on files, a hundred into each, the tests of that module find at least nine in ten.

The faults are those of mutmut, which sees to it that docstrings and annotations stay as they are. Left out by kind are
also its faults in texts: strings, f-strings, what an error says, `__all__`, `cast` and the names of types. Unlike
mutmut, whose mutants live inside of functions, constants of a module, defaults of a class and decorated functions are
mutated too. The trial itself is in mutant_runner.py. Some tests were written after the survivors of the sample of seed
0 were seen; the goal is judged by a sample that was not.
"""

from __future__ import annotations

import ast
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper
from mutmut.mutation import mutators
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.pragma_handling import IgnoredCode

from faults.goal import Control, Goal, Outcome

ROOT = Path(__file__).resolve().parents[1]
Fault = tuple[str, cst.CSTNode, cst.CSTNode, slice | None]
SHARE = 0.9
FEW = 10  # so many are no sample, but those of KNOWN
# The modules of each group, and the files of tests that judge them, the quickest first.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "state": (("layerwise/training/state.py",), ("tests/test_state.py",)),
    "sampler": (("layerwise/data/order.py",), ("tests/test_order.py", "tests/test_loader.py")),
    "checkpoint": (("layerwise/checkpoint.py",), ("tests/test_checkpoint.py",)),
    "loader": (("layerwise/data/loader.py", "layerwise/data/workers.py", "layerwise/data/memory.py"),
               ("tests/test_memory_reuse.py", "tests/test_workers.py", "tests/test_loader.py", "tests/test_shares.py")),
    "limits": (("layerwise/data/images.py", "layerwise/data/container.py"),
               ("tests/test_container.py", "tests/test_images.py")),
}
KNOWN = ("KEPT = 2 -> KEPT = 3",)  # of the checkpoint; only an assertion sees it
TEXTS = (m.Raise() | m.FormattedString() | m.Assign(targets=[m.AssignTarget(m.Name("__all__"))])
         | m.Assign(value=m.Subscript(m.Name("NDArray"))) | m.Call(m.Name("cast") | m.Name("TypeVar")))


@dataclass(frozen=True)
class Mutant:
    """A module with one fault in it: the first line that differs, before and after."""

    module: str
    operator: str
    line: int
    before: str
    after: str
    code: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before} -> {self.after}"


class Faults(MutationVisitor):
    """The name of the kind, a node, what mutmut puts in its place, its bytes where they are known; none in texts."""

    METADATA_DEPENDENCIES = (*MutationVisitor.METADATA_DEPENDENCIES, ByteSpanPositionProvider)

    def __init__(self) -> None:
        super().__init__(mutators.mutation_operators, IgnoredCode(set(), set(), set()))
        self.found: list[Fault] = []

    def _create_mutations(self, node: cst.CSTNode) -> None:
        for kind, operator in self._operators:
            if isinstance(node, kind) and operator is not mutators.operator_string:
                name = operator.__name__.removeprefix("operator_")
                span = self.get_metadata(ByteSpanPositionProvider, node, None)
                place = slice(span.start, span.start + span.length) if span else None
                self.found += [(name, node, mutated, place) for mutated in operator(node)]

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):  # mutmut leaves decorated ones, which it can't call by another name
            return False
        return m.matches(node, TEXTS) or super()._skip_node_and_children(node)


@cache
def possible(module: str) -> tuple[cst.Module, tuple[Fault, ...]]:
    """The tree of a module of ours, and every fault that it may have."""
    return faults_in((ROOT / module).read_text("utf-8"))


def faults_in(code: str) -> tuple[cst.Module, tuple[Fault, ...]]:
    """The same for a module's text."""
    wrapper, visitor = MetadataWrapper(cst.parse_module(code)), Faults()
    wrapper.visit(visitor)
    return wrapper.module, tuple(visitor.found)


def made(module: str, fault: Fault) -> Mutant | None:
    """The mutant; None where it is the module as it is, or no Python."""
    tree, _ = possible(module)
    operator, node, mutated, place = fault
    original = (ROOT / module).read_text("utf-8")
    data = original.encode()
    if place is not None and data[place].decode() == tree.code_for_node(node).strip():
        code = (data[: place.start] + tree.code_for_node(mutated).strip().encode() + data[place.stop :]).decode()
    else:  # the library's own way, which takes some hundred times as long
        changed = tree.deep_replace(node, mutated)
        assert isinstance(changed, cst.Module)
        code = changed.code
    try:
        ast.parse(code)
    except SyntaxError:
        return None
    old, new = original.splitlines(), code.splitlines()
    line = next((at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), None)
    if line is None:
        return None
    after = new[line].strip() if len(new) == len(old) else "left out"
    return Mutant(module, operator, line + 1, old[line].strip(), after, code)


def sampled(group: str, count: int, seed: int) -> Iterator[Mutant]:
    """So many different mutants of a group's modules, each as likely as any other."""
    every = [(module, one) for module in GROUPS[group][0] for one in possible(module)[1]]
    random.Random(f"{group} {seed}").shuffle(every)
    codes: set[str] = set()
    for one in every:
        if len(codes) == count:
            return
        mutant = made(*one)
        if mutant is not None and mutant.code not in codes:
            codes.add(mutant.code)
            yield mutant


def known() -> list[Mutant]:
    """A few mutants of the checkpoint, whose tests are quick, that these must find."""
    ((module,), _) = GROUPS["checkpoint"]
    drawn = (made(module, one) for one in possible(module)[1] if one[0] == "number")
    found = [one for one in drawn if one is not None and f"{one.before} -> {one.after}" in KNOWN]
    assert len(found) == len(KNOWN)
    return found


def statement(code: str, line: int) -> tuple[int, int]:
    """The lines of the smallest statement that a line belongs to, without the statements within that."""
    spans = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            if node.lineno <= line <= max(last, node.lineno):
                spans.append((node.lineno, max(last, node.lineno)))
    return max(spans, default=(line, line))


def tree(folder: Path) -> None:
    """Copies the package, its tests, and what these take from here."""
    for name in ("layerwise", "tests", "faults"):
        shutil.copytree(ROOT / name, folder / "tree" / name)
    shutil.copy2(ROOT / "pyproject.toml", folder / "tree")


def unchanged(module: str) -> Mutant:
    """A module with no fault, but a comment."""
    return Mutant(module, "comment", 1, "", "# no fault", (ROOT / module).read_text("utf-8") + "# no fault\n")


def tried(mutants: list[Mutant], folder: Path) -> list[bool]:
    """Whether each mutant is killed, in the tree that stands in the folder.

    Raises RuntimeError where tests fail, run as for a mutant, without a fault: they would kill for another reason.
    """
    groups = {name: one for name, one in GROUPS.items() if {mutant.module for mutant in mutants} & set(one[0])}
    every = [*(unchanged(modules[0]) for modules, _ in groups.values()), *mutants]
    jobs = []
    for number, one in enumerate(every):
        first, last = statement((ROOT / one.module).read_text("utf-8"), one.line)
        jobs.append({"number": number, "module": one.module, "code": one.code, "first": first, "last": last})
    (folder / "jobs.json").write_text(json.dumps({"groups": groups, "mutants": jobs}), "utf-8")
    runner = [sys.executable, str(ROOT / "faults" / "mutant_runner.py"), str(folder)]
    subprocess.run(runner, check=True, stdin=subprocess.DEVNULL)
    results = sorted(json.loads((folder / "results.json").read_text("utf-8")), key=lambda one: one["number"])
    if killed := [str(one["by"]) for one in results[: len(groups)] if one["killed"]]:
        raise RuntimeError(f"tests that fail without a fault: {', '.join(killed)}")
    return [one["killed"] for one in results[len(groups) :]]


def outcome(mutants: list[Mutant], killed: list[bool]) -> Outcome:
    """The survivors are violations where they are too many; they are listed in any case."""
    survivors = tuple(str(one) for one, dead in zip(mutants, killed, strict=True) if not dead)
    missed = sum(killed) < SHARE * len(mutants)
    of = {module: group for group, (modules, _) in GROUPS.items() for module in modules}
    parts = []
    for keys in ([of[one.module] for one in mutants], [one.operator.replace("_", " ") for one in mutants]):
        dead = Counter(key for key, found in zip(keys, killed, strict=True) if found)
        parts.append(", ".join(f"{key} {dead[key]} of {count}" for key, count in Counter(keys).items()))
    notes = f"killed: {sum(killed)} of {len(mutants)} ({parts[0]}; by kind: {parts[1]})"
    if survivors and not missed:
        notes += "; survivors: " + "; ".join(survivors)
    return Outcome(len(mutants), survivors if missed else (), notes)


def mutated(trials: int, folder: Path, seed: int = 1) -> Outcome:
    """A sample of mutants, equally many of each group, and whether the tests kill them."""
    mutants = known()
    if trials >= FEW:
        mutants = [one for group in GROUPS for one in sampled(group, trials // len(GROUPS), seed)]
    tree(folder)
    return outcome(mutants, tried(mutants, folder))


def without_assertions(folder: Path) -> Outcome:
    """The same tests, which run all that they ran and look at nothing of it."""
    tree(folder)
    for path in (folder / "tree" / "tests").glob("test_*.py"):
        path.write_text(ast.unparse(_Silenced().visit(ast.parse(path.read_text("utf-8")))), "utf-8")
    return outcome(known(), tried(known(), folder))


class _Silenced(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_With(self, node: ast.With) -> ast.AST:
        if any("raises" in ast.unparse(item) for item in node.items):
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def nothing_changed(folder: Path) -> Outcome:
    """Mutants without a fault, which no test may kill."""
    mutants = [unchanged(module) for module in GROUPS["checkpoint"][0]]
    tree(folder)
    return outcome(mutants, tried(mutants, folder))


GOALS = (
    Goal("E4", "small faults in the code are found by its tests", f"at least {SHARE:.0%} killed", 500, len(KNOWN),
         mutated, (Control("tests without assertions", without_assertions),
                   Control("nothing is changed", nothing_changed))),
)
