"""docs/diagnostics.md lists every code that a model can get, and no other: compared with the source, both ways."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdgen import errors
from mmdgen.model.diagnostics import CODES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "diagnostics.md"
CODE = re.compile(r"[a-z][a-z0-9_]*")
ROW = re.compile(r"\| `([a-z0-9_]+)` \|(.*)\|")
# Which argument of these calls is a code.
RAISED = {"ModelError": 0, "AnnotationError": 0}
RECORDED = {"Rejection": 1, "Failure": 2, "LostTexture": 2}
IN_GENERATE = {"fail": 1}  # elsewhere functions of this name are something else
REPAIRED = {"add": 0}
# Errors without a code of their own are named after their class (`catalogue.reason`), but these end the whole run.
NOT_OF_A_MODEL = {"dataset_error", "devicelost_error", "engine_error", "train_error"}


def documented(text: str) -> dict[str, list[str]]:
    """Return the cells behind each code of the tables."""
    rows = [match for match in map(ROW.fullmatch, text.splitlines()) if match]
    found = {match[1]: [cell.strip() for cell in match[2].split("|")] for match in rows}
    if len(found) != len(rows):
        raise AssertionError("a code stands in two rows")
    return found


def codes_of(node: ast.expr, tree: ast.Module) -> Iterator[str]:
    """Yield what an argument can be as regular expressions: a literal, an f-string, or the variable of a loop over
    literals; nothing for what is handed on."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    elif isinstance(node, ast.IfExp):
        yield from codes_of(node.body, tree)
        yield from codes_of(node.orelse, tree)
    elif isinstance(node, ast.JoinedStr):
        parts = (re.escape(str(v.value)) if isinstance(v, ast.Constant) else "[a-z]+" for v in node.values)
        yield "".join(parts)
    elif isinstance(node, ast.Name):
        for item in ast.walk(tree):
            if isinstance(item, ast.For) and isinstance(item.target, ast.Tuple) and isinstance(item.iter, ast.Tuple):
                names = [name.id if isinstance(name, ast.Name) else "" for name in item.target.elts]
                if node.id in names:
                    for row in item.iter.elts:
                        if isinstance(row, ast.Tuple):
                            yield from codes_of(row.elts[names.index(node.id)], tree)
            elif isinstance(item, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == node.id for target in item.targets
            ):
                yield from codes_of(item.value, tree)


def used(source: str, calls: dict[str, int]) -> set[str]:
    """Return the codes (regular expressions) that the calls of a module are given."""
    tree = ast.parse(source)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in calls:
                keyword = [item.value for item in node.keywords if item.arg == "code"]
                place = node.args[calls[name] : calls[name] + 1]
                if not any(isinstance(argument, ast.Starred) for argument in node.args[: calls[name] + 1]):
                    for argument in (*keyword, *place):
                        found |= {
                            code for code in codes_of(argument, tree) if CODE.fullmatch(code.replace("[a-z]+", "x"))
                        }
        elif isinstance(node, ast.FunctionDef) and node.name == "reason":
            for item in ast.walk(node):
                if isinstance(item, ast.Return) and isinstance(item.value, ast.Tuple):
                    first = item.value.elts[0]
                    if isinstance(first, ast.Constant):
                        found |= set(codes_of(first, tree))
    return found


@functools.cache
def all_used(*tables: tuple[tuple[str, int], ...]) -> frozenset[str]:
    """Return the codes in all modules of mmdgen for tables of calls (as items)."""
    calls = dict(item for table in tables for item in table)
    found: set[str] = set()
    for path in sorted((ROOT / "mmdgen").rglob("*.py")):
        more = IN_GENERATE if "generate" in path.parts and calls != REPAIRED else {}
        found |= used(path.read_text("utf-8"), {**calls, **more})
    return frozenset(found)


def reasons() -> frozenset[str]:
    return all_used(tuple(RAISED.items()), tuple(RECORDED.items()))


def codes_of_classes() -> set[str]:
    """The codes that `catalogue.reason` makes of errors without one, by the name of their class."""
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, errors.MmdgenError)]
    coded = {errors.ModelError, errors.AnnotationError}
    return {f"{item.__name__.removesuffix('Error').lower()}_error" for item in classes if item not in coded}


def test_every_code_in_the_source_is_documented():
    rows = documented(DOCUMENT.read_text("utf-8"))
    wanted = reasons() | set(CODES) | (codes_of_classes() - NOT_OF_A_MODEL)
    missing = sorted(code for code in wanted if not any(re.fullmatch(code, row) for row in rows))
    assert not missing, f"docs/diagnostics.md lacks {missing}"


def test_every_documented_code_is_in_the_source():
    patterns = reasons() | set(CODES) | codes_of_classes()
    rows = documented(DOCUMENT.read_text("utf-8"))
    gone = sorted(row for row in rows if not any(re.fullmatch(code, row) for code in patterns))
    assert not gone, f"docs/diagnostics.md still lists {gone}"


def test_every_row_says_what_why_and_what_to_do():
    text = DOCUMENT.read_text("utf-8")
    rows = documented(text)
    assert len(rows) > 50
    assert all(len(cells) == 3 and all(cells) for cells in rows.values())
    for code in NOT_OF_A_MODEL:
        assert f"`{code}`" in text
        assert code not in rows


def test_every_repair_is_listed_once_in_the_source_and_the_other_way_round():
    assert {code for code in all_used(tuple(REPAIRED.items())) if not code.startswith("[")} >= set(CODES)
    section = DOCUMENT.read_text("utf-8").split("## Repairs")[1].split("## ")[0]
    assert set(documented(section)) == set(CODES)
    assert list(documented(section)) == sorted(CODES), "the table is in alphabetical order"


def test_the_source_has_no_code_that_cannot_be_seen():
    """Codes that a variable brings are found only in loops and assignments: nothing else may be there."""
    unseen = []
    for path in sorted((ROOT / "mmdgen").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED and node.args):
                continue
            if not list(codes_of(node.args[0], tree)):
                unseen.append(f"{path.name}:{node.lineno}")
    assert not unseen


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise ModelError("no_legs", f"{path}")', {"no_legs"}),
        ('raise AnnotationError(f"no_eye_{side}", "x")', {"no_eye_[a-z]+"}),
        ('for code, n in (("a_b", 1), ("c_d", 2)):\n    raise ModelError(code, "x")', {"a_b", "c_d"}),
        ('learn(Rejection(path, "crashed", "x"))', {"crashed"}),
        ('code = "timed_out" if late else "crashed"\nRejection(path, code, "x")', {"timed_out", "crashed"}),
        ('Rejection(path, code="gone", message="x")', {"gone"}),
        ('fail(part, *reason(error))', set()),
        ('def reason(error):\n    return "out_of_x", "y"', {"out_of_x"}),
        ('raise ValueError("no_code")', set()),
    ],
)  # fmt: skip
def test_codes_are_seen_in_source(source, found):
    assert used(source, {**RAISED, **RECORDED}) == found


def test_a_planted_row_and_a_missing_one_are_noticed():
    text = DOCUMENT.read_text("utf-8")
    assert "planted" in documented(text + "| `planted` | a | b | c |\n")
    with pytest.raises(AssertionError, match="two rows"):
        documented(text + "| `duplicate` | a | b | c |\n")
