"""Folders of annotations: every fault is found, merging loses nothing, JSON and CSV come back exactly."""

from __future__ import annotations

import csv
import io
import json
import string
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdgen.annotate import exchange, store
from mmdgen.annotate.records import AUTO, EYE_SLOTS, PERSON
from mmdgen.errors import AnnotationError
from mmdgen.fsio import json_bytes

Key = tuple[str, str]
SOME = "0123456789abcdef" * 4
WHERE = Path("somewhere")


def bounds(sha256: str = SOME, **changes: Any) -> dict[str, Any]:
    value = {
        "annotator": "me", "center_x": 0.0, "chin_y": 16.5, "confidence": 1.0, "name": "初音", "schema_version": 1,
        "sha256": sha256, "source": PERSON, "time": "2026-01-02T03:04:05Z", "top_y": 19.0,
    }  # fmt: skip
    return {key: item for key, item in (value | changes).items() if item is not None}


def winks(sha256: str = SOME, **changes: Any) -> dict[str, Any]:
    term = {"morph": 3, "name": "まばたき", "weight": 1.0, "side": "left"}
    value = {key: item for key, item in bounds(sha256).items() if key not in ("center_x", "chin_y", "top_y")}
    eyes = {slot: [] for slot in EYE_SLOTS} | {"normal_left": [term]}
    return value | {"eyes": eyes, "mouth_open": [term | {"morph": 4, "name": "あ", "side": "both"}]} | changes


def folder_of(place: Path, *records: dict[str, Any]) -> Path:
    for record in records:
        kind = "wink_morphs" if "eyes" in record else "head_bounds"
        store.write_record(place, kind, record)
    return place


def by_key(*records: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    return {("wink_morphs" if "eyes" in record else "head_bounds", record["sha256"]): record for record in records}


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_sound_folder_has_no_fault_and_is_read_whole(tmp_path: Path):
    folder_of(tmp_path, bounds(), winks(), bounds("f" * 64, name=""))
    (tmp_path / "README.md").write_text("what lies here", "utf-8")
    (tmp_path / "head_bounds/.gitkeep").touch()
    records, faults = exchange.read_folder(tmp_path)
    assert faults == []
    assert records == by_key(bounds(), winks(), bounds("f" * 64, name=""))
    assert exchange.read_folder(tmp_path / "nothing")[1] == [
        exchange.Fault(".", f"{tmp_path / 'nothing'} is no folder")
    ]


FAULTS = {
    "schema": (lambda p: (p / f"head_bounds/{SOME[:16]}.json").write_text('{"chin_y": 1}'), "schema_version must be 1"),
    "not json": (lambda p: (p / f"head_bounds/{SOME[:16]}.json").write_text("{"), "is not JSON"),
    "deep": (lambda p: (p / f"head_bounds/{SOME[:16]}.json").write_text("[" * 100_000), "nested too deeply"),
    "twice a key": (lambda p: (p / f"head_bounds/{SOME[:16]}.json").write_text('{"a": 1, "a": 2}'), "a stands twice"),
    "git conflict": (
        lambda p: (p / f"head_bounds/{SOME[:16]}.json").write_text("{\n<<<<<<< HEAD\n1\n=======\n2\n>>>>>>> b\n}"),
        "conflict of git",
    ),
    "wrong name": (
        lambda p: (p / f"head_bounds/{SOME[:16]}.json").rename(p / "head_bounds/0000000000000000.json"),
        f"its name must be {SOME[:16]}.json",
    ),
    "duplicate": (
        lambda p: (p / "head_bounds/copy.json").write_bytes((p / f"head_bounds/{SOME[:16]}.json").read_bytes()),
        "another file of head_bounds is for the same model",
    ),
    "half written": (lambda p: (p / "head_bounds/x.json.tmp-5").touch(), "interrupted"),
    "foreign": (lambda p: (p / "wink_morphs/notes.txt").touch(), "does not belong here"),
    "folder": (lambda p: (p / "wink_morphs/more.json").mkdir(), "does not belong here"),
    "names differ": (lambda p: folder_of(p, winks(name="ルカ")), "calls the model ルカ, the head_bounds 初音"),
    "morphs differ": (
        lambda p: folder_of(p, winks(mouth_open=[{"morph": 3, "name": "い", "weight": 1, "side": "both"}])),
        "calls morph 3 まばたき and い",
    ),
    "half a hash": (lambda p: folder_of(p, winks(SOME[:16] + "0" * 48)), f"the head_bounds of this name for {SOME}"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_the_rest_is_still_read(name: str, tmp_path: Path):
    damage, message = FAULTS[name]
    folder_of(tmp_path, bounds(), bounds("f" * 64))
    (tmp_path / "wink_morphs").mkdir()
    damage(tmp_path)
    records, faults = exchange.read_folder(tmp_path)
    assert any(message in fault.message for fault in faults), faults
    assert all(not fault.message.startswith("/") for fault in faults)
    assert ("head_bounds", "f" * 64) in records


def test_all_faults_are_listed_not_only_the_first(tmp_path: Path):
    for index in range(5):
        (tmp_path / "head_bounds").mkdir(exist_ok=True)
        (tmp_path / f"head_bounds/{index}.json").write_text("{", "utf-8")
    assert [fault.path for fault in exchange.read_folder(tmp_path)[1]] == [f"head_bounds/{i}.json" for i in range(5)]


def test_names_are_compared_with_the_model():
    records = by_key(winks())
    names = ["a", "b", "c", "まばたき", "あ"]
    assert exchange.check_names(records, SOME, names) == []
    assert exchange.check_names(records, "f" * 64, []) == []
    (fault,) = exchange.check_names(records, SOME, [*names[:4], "い"])
    assert "mouth_open: morph 4 (あ) is called い" in fault.message
    (fault,) = exchange.check_names(records, SOME, names[:4])
    assert "does not exist" in fault.message


@pytest.mark.parametrize(
    "record",
    [
        bounds(chin_y=float("nan")), bounds(chin_y=10**400), bounds(top_y=float("inf")), bounds(time="yesterday"),
        bounds(time="2026-01-02T03:04:05+09:00"), bounds(name="\ud800"), bounds(annotator="a\udc80"),
        winks(mouth_open=[{"morph": 1, "name": "\udfff", "weight": 1, "side": "both"}]),
        winks(mouth_open=[{"morph": 1, "name": "x", "weight": 1, "side": "whole"}]),
        bounds() | {"sha256": 5}, bounds(rejected="\ud800", chin_y=None, top_y=None, center_x=None),
    ],
)  # fmt: skip
def test_what_could_not_be_written_again_is_refused(record: dict[str, Any]):
    kind = "wink_morphs" if "eyes" in record else "head_bounds"
    with pytest.raises(AnnotationError) as caught:
        store.check(record, kind, WHERE)
    assert caught.value.code == "bad_annotation"


# --- merging ----------------------------------------------------------------------------------------------------------


def merged(*sides: dict[str, Any], prefer: str = "") -> exchange.Merged:
    return exchange.merge([(f"side {i}", by_key(record)) for i, record in enumerate(sides)], prefer)


KEY = ("head_bounds", SOME)


def test_people_beat_the_machine_however_new_and_sure_it_is():
    person = bounds(time=None, confidence=0.1)
    machine = bounds(source=AUTO, annotator="mmdgen", chin_y=16.0, time="2030-01-01")
    for sides in ((person, machine), (machine, person)):
        result = merged(*sides)
        assert result.records == {KEY: person}
        (choice,) = result.choices
        assert choice.why == "a person's"
        assert result.conflicts == ()


def test_the_newer_beats_the_older_among_equals():
    old, new = bounds(time="2026-01-02"), bounds(chin_y=16.0, time="2026-01-02T00:00:01Z", annotator="you")
    for sides in ((old, new), (new, old)):
        assert merged(*sides).records == {KEY: new}
        assert merged(*sides, prefer="first").records == {KEY: new}  # which decides only what is undecided
    none = bounds(chin_y=15.0, time=None)
    assert merged(none, old).records == {KEY: old}


def test_what_nothing_decides_is_a_conflict_and_is_left_out():
    mine, yours = bounds(), bounds(chin_y=16.0, annotator="you")
    other = bounds("f" * 64)
    result = exchange.merge([("mine", by_key(mine, other)), ("yours", by_key(yours))])
    assert result.records == by_key(other)
    (choice,) = result.conflicts
    assert choice.sides == (("mine", mine), ("yours", yours))
    assert merged(mine, yours, prefer="first").records == {KEY: mine}
    assert merged(mine, yours, prefer="last").records == {KEY: yours}
    assert merged(mine, yours, prefer="last").conflicts == ()
    rejected = bounds(rejected="a mask", chin_y=None, top_y=None, center_x=None)
    assert merged(mine, rejected).conflicts


def test_equal_values_are_no_conflict_whoever_said_them():
    mine, yours = bounds(annotator="b"), bounds(annotator="a", confidence=0.5)
    found = {json_bytes(list(merged(*sides).records.values())) for sides in permutations((mine, yours))}
    assert len(found) == 1
    assert merged(mine, yours).choices == ()


@given(
    st.lists(
        st.tuples(st.sampled_from([AUTO, PERSON]), st.sampled_from([1.0, 2.0]), st.sampled_from([None, "2026-01-01"])),
        min_size=1,
        max_size=5,
    )
)
def test_the_order_of_the_sides_does_not_matter_and_nothing_is_lost(rows):
    sides = [bounds(source=source, chin_y=chin, time=time) for source, chin, time in rows]
    forth, back = merged(*sides), merged(*reversed(sides))
    assert forth.records == back.records
    assert len(forth.conflicts) == len(back.conflicts)
    assert set(forth.records) | {choice.key for choice in forth.conflicts} == {KEY}
    if any(side["source"] == PERSON for side in sides) and forth.records:
        assert forth.records[KEY]["source"] == PERSON
    if len({side["chin_y"] for side in sides}) > 1:  # every difference is told, with all that was said
        (choice,) = forth.choices
        assert [record for _, record in choice.sides] == sides


def test_only_what_differs_is_written(tmp_path: Path):
    records = by_key(bounds(), winks())
    assert exchange.write_folder(tmp_path, records, dry_run=True) == 2
    assert not list(tmp_path.iterdir())
    assert exchange.write_folder(tmp_path, records) == 2
    assert exchange.write_folder(tmp_path, records) == 0
    assert exchange.write_folder(tmp_path, by_key(bounds(chin_y=1.0))) == 1
    assert exchange.read_folder(tmp_path) == (by_key(bounds(chin_y=1.0), winks()), [])


# --- JSON and CSV -----------------------------------------------------------------------------------------------------

hostile = st.one_of(
    st.sampled_from(["", "'", "''", "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n", "＝1", '"', ",", ";", "0", "[]"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)  # fmt: skip
number = st.one_of(st.floats(-1e6, 1e6), st.integers(-100, 100))
terms = st.lists(
    st.fixed_dictionaries(
        {
            "morph": st.integers(0, 10_000),
            "name": hostile,
            "weight": st.floats(0.01, 2),
            "side": st.sampled_from(["both", "left", "right"]),
        }
    ),
    max_size=2,
)


@st.composite
def records_of_any_kind(draw) -> dict[Key, dict[str, Any]]:
    found: dict[Key, dict[str, Any]] = {}
    for _ in range(draw(st.integers(0, 3))):
        sha256 = draw(st.text("0123456789abcdef", min_size=64, max_size=64))
        record = bounds(
            sha256,
            name=draw(hostile),
            annotator=draw(hostile) or "x",
            source=draw(st.sampled_from([AUTO, PERSON])),
            confidence=draw(st.floats(0, 1)),
            time=draw(st.sampled_from([None, "2026-01-01", "2026-01-01T00:00:00Z"])),
            note=draw(st.none() | hostile),
        )
        what = draw(st.sampled_from(["bounds", "winks", "rejected"]))
        if what == "bounds":
            chin = draw(number)
            record |= {"chin_y": chin, "top_y": chin + 1, "center_x": draw(number)}
        else:
            record = {key: value for key, value in record.items() if key not in ("chin_y", "top_y", "center_x")}
            if what == "winks":
                record |= {"eyes": {slot: draw(terms) for slot in EYE_SLOTS}, "mouth_open": draw(terms)}
            else:
                record |= {"rejected": draw(hostile) or "why"}
        found["wink_morphs" if what == "winks" else "head_bounds", sha256] = record
    return found


@given(records_of_any_kind())
def test_both_formats_come_back_exactly(records):
    for key, record in records.items():
        store.check(record, key[0], WHERE)
    for again in (
        exchange.from_json(exchange.to_json(records), WHERE),
        exchange.from_csv(exchange.to_csv(records), WHERE),
        exchange.from_csv("\ufeff" + exchange.to_csv(records), WHERE),
    ):
        assert {key: json_bytes(again[key]) for key in again} == {key: json_bytes(records[key]) for key in records}


@given(records_of_any_kind())
def test_no_cell_of_a_text_can_run_as_a_formula(records):
    table = list(csv.reader(io.StringIO(exchange.to_csv(records), newline="")))
    for row in table[1:]:
        assert len(row) == len(exchange.COLUMNS)
        for column, cell in zip(exchange.COLUMNS, row, strict=True):
            if column in ("chin_y", "top_y", "center_x"):
                assert not cell or isinstance(json.loads(cell), int | float)  # a number, with its sign
            else:
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))


def test_columns_may_be_moved_and_what_does_not_fit_is_named():
    text = exchange.to_csv(by_key(bounds(), winks("f" * 64)))
    table = list(csv.reader(io.StringIO(text, newline="")))
    stream = io.StringIO()
    csv.writer(stream).writerows([row[::-1] for row in table])
    assert exchange.from_csv(stream.getvalue(), WHERE) == by_key(bounds(), winks("f" * 64))
    chin = exchange.COLUMNS.index("chin_y")
    for damage, message in (
        (lambda rows: rows[1].__setitem__(chin, "low"), "row 2: is not JSON"),
        (lambda rows: rows[1].__setitem__(chin, '"16"'), "row 2: chin_y must be a finite number"),
        (lambda rows: rows[1].__setitem__(0, "hats"), "row 2: the kind must be"),
        (lambda rows: rows[1].pop(), "row 2 has 18 cells, not 19"),
        (lambda rows: rows.append(rows[1]), "stands twice"),
        (lambda rows: rows[0].__setitem__(0, "sort"), "its columns must be"),
        (lambda rows: rows.clear(), "its columns must be"),
    ):
        rows = [list(row) for row in table]
        damage(rows)
        stream = io.StringIO()
        csv.writer(stream).writerows(rows)
        with pytest.raises(AnnotationError) as caught:
            exchange.from_csv(stream.getvalue(), WHERE)
        assert message in str(caught.value)
        assert str(caught.value).count("somewhere") == 1
    with pytest.raises(AnnotationError, match="is not CSV"):
        exchange.from_csv('"open', WHERE)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"annotations": [], "schema_version": 1}', '{"annotations": {"hats": []}, "schema_version": 1}',
     '{"annotations": {"head_bounds": [7]}, "schema_version": 1}', '{"annotations": {}, "schema_version": 2}',
     '{"annotations": {}, "schema_version": 1, "more": 1}', "1" * 5000],
)  # fmt: skip
def test_a_json_file_of_another_kind_is_refused(text: str):
    with pytest.raises(AnnotationError) as caught:
        exchange.from_json(text.encode(), WHERE)
    assert caught.value.code == "bad_annotation"


def test_every_column_is_a_field_of_the_schema():
    schema = json.loads((Path(__file__).resolve().parent.parent / "annotations/schema.json").read_bytes())["$defs"]
    fields = set(schema["common"]["properties"]) | set(schema["head_bounds"]["properties"])
    fields |= set(schema["rejected"]["properties"]) | set(schema["wink_morphs"]["properties"])
    fields |= set(schema["wink_morphs"]["properties"]["eyes"]["properties"])
    assert set(exchange.COLUMNS) == (fields - {"schema_version", "eyes"}) | {"kind"}
    assert set(string.ascii_letters + "_0123456789") >= set("".join(exchange.COLUMNS))
