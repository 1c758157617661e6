"""Annotations as files: what is stored wins, what does not fit is noticed, nothing wrong is written."""

from __future__ import annotations

import json
import pickle
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import heads
import pytest
from heads import bounds_errors, character, code_of, replace

from mmdgen.annotate import store
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.records import EYE_SLOTS, PERSON, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError, DatasetError
from mmdgen.model.records import Model, MorphTerm

SEED = 5
CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture
def head() -> Model:
    return character(SEED)[0]


def stored_pair(model: Model) -> tuple[HeadBounds, EyeMorphs]:
    slots = dict.fromkeys(EYE_SLOTS, ())
    slots |= {"normal_left": (MorphTerm(3, 0.5, "left"), MorphTerm(4)), "normal_right": (MorphTerm(3, 1.0, "right"),)}
    bounds = HeadBounds(16.25, 18.5, 0.125, source=PERSON, confidence=0.875)
    return bounds, EyeMorphs(slots, (MorphTerm(5),), source=PERSON, confidence=1.0)


def test_store_round_trip(head: Model, tmp_path: Path):
    bounds, eyes = stored_pair(head)
    written = store.save(head, tmp_path, annotator="me", bounds=bounds, eyes=eyes, time="2026-01-02")
    assert [p.relative_to(tmp_path).as_posix() for p in written] == [
        f"{kind}/{head.id[:16]}.json" for kind in store.KINDS
    ]
    found = store.load(head, tmp_path)
    assert found.bounds == replace(bounds, reason="stored by me")
    assert found.eyes == replace(eyes, reasons=("stored by me",))
    first = [path.read_bytes() for path in written]
    store.save(head, tmp_path, annotator="me", bounds=found.bounds, eyes=found.eyes, time="2026-01-02")
    assert [path.read_bytes() for path in written] == first
    value = json.loads(first[0])
    assert list(value) == sorted(value)
    assert sorted(p.name for p in (tmp_path / "head_bounds").iterdir()) == [f"{head.id[:16]}.json"]


def test_stored_values_win(head: Model, tmp_path: Path):
    bounds, eyes = stored_pair(head)
    automatic = annotate(head)
    assert store.resolve(head, None) == automatic == store.resolve(head, tmp_path)
    store.save(head, tmp_path, annotator="me", bounds=bounds)
    half = store.resolve(head, tmp_path)
    assert half.bounds.chin_y == bounds.chin_y
    assert half.bounds.source == PERSON
    assert half.eyes == automatic.eyes
    store.save(head, tmp_path, annotator="me", eyes=replace(eyes, slots=automatic.eyes.slots))
    both = store.resolve(head, tmp_path)
    assert both.bounds.chin_y == bounds.chin_y
    assert both.eyes.source == PERSON


def test_stored_values_help_where_the_automatic_ones_fail(head: Model, tmp_path: Path):
    truth = character(SEED)[1]
    automatic = annotate(head)
    # No morph has a name or panel that says eye or mouth: the person's choice serves, also to find the chin.
    blind = heads.with_morphs(head, lambda i, m: replace(m, name=f"m{i}", name_en="", panel=4))
    assert code_of(blind) == "no_eye_morph"
    store.save(blind, tmp_path, annotator="me", eyes=automatic.eyes)
    found = store.resolve(blind, tmp_path)
    assert found.eyes.slots == automatic.eyes.slots
    chin, top = bounds_errors(found, truth.chin_y, truth.top_y)
    assert chin < 0.02
    assert top < 0.04


def test_a_rejected_model_stays_rejected(head: Model, tmp_path: Path):
    bounds, eyes = stored_pair(head)
    store.save(head, tmp_path, annotator="me", bounds=bounds, eyes=eyes)
    store.save(head, tmp_path, annotator="me", rejected="the face is a mask")
    with pytest.raises(AnnotationError, match="the face is a mask") as caught:
        store.resolve(head, tmp_path)
    assert caught.value.code == "rejected"
    assert pickle.loads(pickle.dumps(caught.value)).code == "rejected"


def test_stale_annotations_are_noticed(head: Model, tmp_path: Path):
    bounds, eyes = stored_pair(head)
    path = store.save(head, tmp_path, annotator="me", bounds=bounds, eyes=eyes)[1]
    shuffled = heads.renamed(head, {3: "別の名前"})
    with pytest.raises(AnnotationError, match="別の名前") as caught:
        store.resolve(shuffled, tmp_path)
    assert caught.value.code == "stale_annotation"
    with pytest.raises(AnnotationError) as caught:
        store.resolve(replace(head, morphs=head.morphs[:4]), tmp_path)
    assert caught.value.code == "stale_annotation"
    other = replace(head, id=head.id[:16] + "0" * 48)
    with pytest.raises(AnnotationError, match=head.id) as caught:
        store.load(other, tmp_path)
    assert caught.value.code == "stale_annotation"
    assert path.is_file()


def damages(value: dict) -> list[dict | list | str]:
    """Ways in which a head bounds file may be wrong."""
    without = [{k: v for k, v in value.items() if k != key} for key in value]
    changed = [
        value | {key: wrong}
        for key, wrong in (
            ("schema_version", 2), ("sha256", "abc"), ("name", 3), ("source", "guess"), ("annotator", ""),
            ("confidence", 1.5), ("confidence", True), ("chin_y", "low"), ("top_y", value["chin_y"]), ("extra", 1),
            ("rejected", "why"), ("time", 5),
        )
    ]  # fmt: skip
    return [*without, *changed, [], "text"]


def test_damaged_annotations_are_refused(head: Model, tmp_path: Path):
    bounds, eyes = stored_pair(head)
    bounds_path, eyes_path = store.save(head, tmp_path, annotator="me", bounds=bounds, eyes=eyes)
    good = json.loads(bounds_path.read_bytes())
    for bad in damages(good):
        bounds_path.write_text(json.dumps(bad), "utf-8")
        with pytest.raises(AnnotationError) as caught:
            store.resolve(head, tmp_path)
        assert caught.value.code == "bad_annotation", bad
    for text in (b"{", b"\xff\xfe", b""):
        bounds_path.write_bytes(text)
        with pytest.raises(AnnotationError) as caught:
            store.load(head, tmp_path)
        assert caught.value.code == "bad_annotation"
    bounds_path.unlink()
    term = {"morph": 3, "name": head.morphs[3].name, "weight": 1.0, "side": "both"}
    wrong = [term | {"morph": -1}, term | {"morph": True}, term | {"weight": 0}, term | {"side": "up"}, {"morph": 3}, 7]
    value = json.loads(eyes_path.read_bytes())
    for item in wrong:
        eyes_path.write_text(json.dumps(value | {"mouth_open": [item]}), "utf-8")
        with pytest.raises(AnnotationError) as caught:
            store.load(head, tmp_path)
        assert caught.value.code == "bad_annotation", item


def test_nothing_wrong_is_written(head: Model, tmp_path: Path):
    bounds, eyes = stored_pair(head)
    cases: tuple[dict[str, Any], ...] = (
        {"bounds": replace(bounds, top_y=bounds.chin_y - 1)},
        {"bounds": replace(bounds, confidence=float("nan"))},
        {"bounds": bounds, "eyes": replace(eyes, mouth_open=(MorphTerm(10**6),))},
        {"bounds": bounds, "eyes": replace(eyes, mouth_open=(MorphTerm(1, side="up"),))},
    )
    for wrong in cases:
        with pytest.raises(AnnotationError):
            store.save(head, tmp_path, annotator="me", **wrong)
    with pytest.raises(AnnotationError):
        store.save(head, tmp_path, annotator="", bounds=bounds)
    assert list(tmp_path.rglob("*.json")) == []
    (tmp_path / "head_bounds").write_text("a file where a folder must be")
    with pytest.raises((DatasetError, OSError)):
        store.save(head, tmp_path, annotator="me", bounds=bounds)


def test_the_stored_annotations_fit_the_schema():
    schema = json.loads((CHECKOUT / "annotations/schema.json").read_bytes())
    defined = schema["$defs"]
    assert set(defined["wink_morphs"]["properties"]["eyes"]["required"]) == set(EYE_SLOTS)
    common = set(defined["common"]["properties"])
    count = 0
    for kind in store.KINDS:
        for path in sorted((CHECKOUT / "annotations" / kind).glob("*.json")):
            value = store.parse(path.read_bytes(), kind, path)
            assert path.stem == value["sha256"][:16]
            allowed = common | set(defined["rejected" if "rejected" in value else kind]["properties"])
            assert value.keys() <= allowed, path
            assert set(defined["common"]["required"]) <= value.keys()
            count += 1
    assert count > 100


# --- records, for undoing, and for several writers at once -----------------------------------------------------------


def test_a_record_is_read_put_back_and_removed(head: Model, tmp_path: Path):
    bounds, eyes = stored_pair(head)
    assert store.read_record(tmp_path, "head_bounds", head.id) is None
    assert not store.remove_record(tmp_path, "head_bounds", head.id)
    first = [path.read_bytes() for path in store.save(head, tmp_path, annotator="me", bounds=bounds, eyes=eyes)]
    before = {kind: store.read_record(tmp_path, kind, head.id) for kind in store.KINDS}
    store.save(head, tmp_path, annotator="me", rejected="a mask")
    assert store.load(head, tmp_path).rejected == "a mask"
    for kind, record in before.items():
        assert record is not None
        store.write_record(tmp_path, kind, record)
        with pytest.raises(AnnotationError):
            store.write_record(tmp_path, "wink_morphs" if kind == "head_bounds" else "head_bounds", record)
    assert [store.path_of(tmp_path, kind, head.id).read_bytes() for kind in store.KINDS] == first
    assert store.remove_record(tmp_path, "head_bounds", head.id)
    assert store.load(head, tmp_path).bounds is None
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{head.id[:16]}.json"]


def test_times_are_utc_to_the_second_and_sort_as_texts(head: Model, tmp_path: Path):
    now = store.utc_now()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", now)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(now)).total_seconds()) < 60
    (path,) = store.save(head, tmp_path, annotator="me", bounds=stored_pair(head)[0], time=now)
    assert json.loads(path.read_bytes())["time"] == now
    with pytest.raises(AnnotationError, match="time must be"):
        store.save(head, tmp_path, annotator="me", bounds=stored_pair(head)[0], time="2026-01-02 03:04")


def test_damaged_names_are_stored_readably_and_still_recognised(head: Model, tmp_path: Path):
    _, eyes = stored_pair(head)
    damaged = heads.renamed(replace(head, name="\ud83d初音"), {3: "まば\udc81", 4: "\ud800"})
    path = store.save(damaged, tmp_path, annotator="me", eyes=eyes)[0]
    assert json.loads(path.read_bytes())["name"] == "�初音"
    assert store.load(damaged, tmp_path).eyes == replace(eyes, reasons=("stored by me",))
    with pytest.raises(AnnotationError, match="morph 3"):
        store.load(head, tmp_path)


def test_bytes_do_not_depend_on_the_sign_of_zero(head: Model, tmp_path: Path):
    first, second = (
        store.save(head, tmp_path / name, annotator="me", bounds=HeadBounds(-zero, 1.0, zero))[0].read_bytes()
        for name, zero in (("a", 0.0), ("b", -0.0))
    )
    assert first == second
    assert b"-0.0" not in first


@pytest.mark.parametrize("late", range(3))
def test_the_machine_and_a_person_may_write_at_once(head: Model, tmp_path: Path, late: int):
    """Whoever comes first, the person's value is what stays, and every file is whole."""
    person, machine = HeadBounds(1.0, 2.0, 0.0, source=PERSON), HeadBounds(3.0, 4.0, 0.0, confidence=0.9)
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def write(number: int) -> None:
        try:
            start.wait(timeout=20)
            for turn in range(15):
                if number == 0:
                    if turn == 5 * late:
                        store.save(head, tmp_path, annotator="me", bounds=person)
                    store.load(head, tmp_path)
                else:
                    found = replace(machine, chin_y=-float(turn + 20 * number))
                    store.save_automatic(head, tmp_path, bounds=found)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    stored = store.load(head, tmp_path).bounds
    assert stored is not None
    assert (stored.source, stored.chin_y) == (PERSON, 1.0)
    assert [path.name for path in (tmp_path / "head_bounds").iterdir()] == [f"{head.id[:16]}.json"]
