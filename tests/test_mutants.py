"""Which faults the mutants have, and by which tests they are judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import mutant_runner, mutants

CODE = '''"""A docstring with 1 number."""
Picture = NDArray[np.uint8]
__all__ = ["Picture"]
MOST = 3


class Kept:
    size: int = 1

    @property
    def doubled(self) -> int:
        """Twice 2."""
        return self.size * 2


def checked(size: int, name: str = "x") -> int:
    if size > MOST:
        raise ValueError(f"{size + 1} is more than {MOST}", 7)
    note(f"{size + 2}")
    return cast(int, size - 1)
'''


def faults() -> set[str]:
    tree, found = mutants.faults_in(CODE)
    return {f"{tree.code_for_node(one).strip()} -> {tree.code_for_node(other).strip()}" for _, one, other, _ in found}


def test_texts_names_of_types_and_annotations_are_left_out_and_the_rest_is_not() -> None:
    assert faults() == {
        "MOST = 3 -> MOST = None", "3 -> 4",
        "size: int = 1 -> size: int = None", "1 -> 2",
        "self.size * 2 -> self.size / 2", "2 -> 3",  # of a decorated function
        "> MOST -> >= MOST",
        'note(f"{size + 2}") -> note(None)',
    }


def test_a_fault_is_told_by_the_line_that_differs() -> None:
    (one,) = mutants.known()
    assert str(one).startswith("layerwise/checkpoint.py:")
    assert str(one).endswith(": KEPT = 2 -> KEPT = 3")
    assert "KEPT = 3\n" in one.code


def test_the_same_mutants_are_drawn_again_and_others_with_another_seed() -> None:
    drawn = [[str(one) for one in mutants.sampled("checkpoint", 5, seed)] for seed in (0, 0, 1)]
    assert len(set(drawn[0])) == 5
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(("line", "span"), [(4, (4, 4)), (8, (8, 8)), (16, (16, 16)), (17, (17, 17)), (13, (13, 13)),
                                            (7, (7, 7)), (15, (15, 15))])
def test_a_line_belongs_to_its_smallest_statement(line: int, span: tuple[int, int]) -> None:
    assert mutants.statement(CODE, line) == span


def test_a_line_of_a_longer_statement_has_all_its_lines() -> None:
    code = "x = f(\n    1,\n    2)\nif (x and\n        y):\n    z = 1\n"
    assert [mutants.statement(code, line) for line in (1, 3, 5, 6)] == [(1, 3), (1, 3), (4, 5), (6, 6)]


def test_a_mutant_is_judged_by_the_tests_that_reach_it_the_quickest_of_a_file_first() -> None:
    seconds = {"b.py::slow": 2.0, "b.py::quick": 1.0, "a.py::other": 9.0, "a.py::far": 0.1}
    lines = {"1": [""], "5": ["b.py::slow"], "6": ["b.py::quick", "a.py::other"]}
    found = {"files": ["a.py", "b.py"], "seconds": seconds, "lines": {"m.py": lines}}
    assert mutant_runner.judges(found, "m.py", 5, 6) == ["a.py::other", "b.py::quick", "b.py::slow"]
    assert mutant_runner.judges(found, "m.py", 5, 5) == ["b.py::slow"]
    assert mutant_runner.judges(found, "m.py", 7, 9) == []
    assert mutant_runner.judges(found, "m.py", 1, 1) == ["a.py::far", "a.py::other", "b.py::quick", "b.py::slow"]


def test_survivors_are_violations_where_they_are_too_many_and_listed_in_any_case(tmp_path: Path) -> None:
    (one,) = mutants.known()
    nine = mutants.outcome([one] * 10, [True] * 9 + [False])
    assert nine.violations == ()
    assert f"survivors: {one}" in nine.notes
    assert "killed: 9 of 10 (checkpoint 9 of 10; by kind: number 9 of 10)" in nine.notes
    assert mutants.outcome([one] * 10, [True] * 8 + [False] * 2).violations == (str(one),) * 2


def test_a_fault_put_in_by_its_bytes_is_the_librarys() -> None:
    _, every = mutants.possible("layerwise/data/order.py")
    quick = [one for one in every if one[3] is not None]
    assert len(quick) > 0.9 * len(every)
    for one in quick[::20]:
        assert mutants.made("layerwise/data/order.py", one) == mutants.made("layerwise/data/order.py", (*one[:3], None))
