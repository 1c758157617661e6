"""mmdgen annotate: without a page, its files, and what render and scan then use."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from heads import character, replace
from in_process import work_here

from mmdgen.annotate import exchange, store
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.records import AUTO, EYE_SLOTS, PERSON, SURE, Annotation, HeadBounds
from mmdgen.cli import annotate as cli_annotate
from mmdgen.cli import annotate_files
from mmdgen.cli import render as cli_render
from mmdgen.cli.main import cli
from mmdgen.errors import DatasetError, RenderError
from mmdgen.generate import annotating, catalogue, characters, checking
from mmdgen.generate.annotating import AutoWorker, Found, doubts
from mmdgen.generate.catalogue import Rejection, UsableModel, examine, scan, unsure
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.pool import Event
from mmdgen.samples.library import write_characters

MAIN = "from mmdgen.cli.main import main; main()"
SEED = 5
ROW = ["path", "sha256", "status", "reason", "head_bounds", "eyes", "mouth_open"]


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["annotate", *map(str, words)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two characters, and a file that is no model."""
    root = tmp_path_factory.mktemp("models")
    write_characters(root, 2, SEED)
    (root / "broken.pmx").write_bytes(b"PMX broken")
    return root


def worker(models: Path, out: Path | None, **changes: Any) -> AutoWorker:
    config = {"root": str(models), "out": str(out or ""), "kinds": store.KINDS, "all": False, "dry_run": False}
    return AutoWorker({**config, "check": False, "time": "2026-01-01T00:00:00Z", **changes})


def ignore(_: object) -> None:
    pass


@pytest.fixture
def sure(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Makes the machine as sure of bounds and eyes as the last entry says, without drawing."""
    wanted = [(0.9, 0.9)]

    def find(self: object, model: Any, *, bounds: Any = None, eyes: Any = None) -> Annotation:
        found = annotate(model, bounds=bounds, eyes=eyes)
        first, second = wanted[-1]
        return replace(
            found,
            bounds=found.bounds if bounds else replace(found.bounds, confidence=first, reason="a hat"),
            eyes=found.eyes if eyes else replace(found.eyes, confidence=second, reasons=("a veil", "and dark")),
        )

    monkeypatch.setattr(checking.Checker, "find", find)
    return wanted


# --- --auto -----------------------------------------------------------------------------------------------------------


def check_terms(terms: Any) -> None:
    if terms is None:
        return
    assert terms, "no morph is null, never an empty list"
    for term in terms:
        assert list(term) == ["morph", "side", "weight"]
        assert type(term["morph"]) is int
        assert term["side"] in ("whole", "left", "right")
        assert type(term["weight"]) is float


def check_row(row: dict[str, Any]) -> None:
    """The shape that issue and help describe, to the letter."""
    assert list(row) == ROW
    assert row["status"] in ("ok", "unsure", "rejected")
    assert all(type(row[key]) is str for key in ROW[:4])
    assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
    assert (row["reason"] == "") == (row["status"] == "ok")
    if row["status"] == "rejected":
        assert row["head_bounds"] is row["eyes"] is row["mouth_open"] is None
        return
    assert list(row["head_bounds"]) == ["chin_y", "top_y", "center_x", "confidence"]
    assert all(type(value) is float for value in row["head_bounds"].values())
    assert list(row["eyes"]) == ["normal", "smile"]
    for shape in row["eyes"].values():
        assert list(shape) == ["left", "right", "both", "confidence"]
        assert 0 <= shape["confidence"] <= 1
        for side in ("left", "right", "both"):
            check_terms(shape[side])
    check_terms(row["mouth_open"])


@pytest.mark.gl
def test_the_list_has_every_model_in_the_shape_that_is_promised(models: Path, monkeypatch: pytest.MonkeyPatch):
    annotations = models.parent / "untouched"
    annotations.mkdir(exist_ok=True)
    monkeypatch.setattr(cli_annotate, "default_annotations", lambda: annotations)
    result = run("--models", models, "--auto", "--json", "--progress", "none")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["path"] for row in rows] == sorted(catalogue.find_models(models))
    for row in rows:
        check_row(row)
    *whole, broken = rows
    assert broken["status"] == "rejected"
    assert broken["reason"].startswith("format_error: ")
    for row, seed in zip(whole, (SEED, SEED + 1), strict=True):
        model, truth = character(seed)
        assert row["sha256"] == model.id
        height = truth.top_y - truth.chin_y
        assert abs(row["head_bounds"]["chin_y"] - truth.chin_y) < 0.04 * height
        assert abs(row["head_bounds"]["top_y"] - truth.top_y) < 0.08 * height
        if truth.slots["normal_both"]:
            expected = [{"morph": m, "side": "whole", "weight": w} for m, w, side in truth.slots["normal_both"]]
            assert row["eyes"]["normal"]["both"] == expected
        assert row["mouth_open"][0]["morph"] == truth.mouth_open[0][0]
    assert list(annotations.iterdir()) == [], "--auto --json alone writes nothing"


def test_sides_are_written_as_whole_left_and_right():
    annotation = annotate(character(SEED)[0])
    term = replace(annotation.eyes.mouth_open[0], weight=0.5)
    slots = dict.fromkeys(EYE_SLOTS, ())
    slots |= {"normal_left": (replace(term, side="left"),), "smile_both": (term, replace(term, side="right"))}
    row = Found("a.pmx", "0" * 64, "ok", "", replace(annotation, eyes=replace(annotation.eyes, slots=slots))).to_json()
    check_row(row)
    assert row["eyes"]["normal"]["left"] == [{"morph": term.morph, "side": "left", "weight": 0.5}]
    assert row["eyes"]["normal"]["both"] is row["eyes"]["smile"]["left"] is None
    assert [item["side"] for item in row["eyes"]["smile"]["both"]] == ["whole", "right"]


def test_what_is_sure_is_stored_and_what_is_not_is_told(models: Path, tmp_path: Path, sure: list):
    task = catalogue.find_models(models)[0]
    for confidences, status, kinds in (
        ((SURE, SURE), "ok", store.KINDS),
        ((SURE - 0.01, 0.9), "unsure", ("wink_morphs",)),
        ((0.9, SURE - 0.01), "unsure", ("head_bounds",)),
        ((0.1, 0.1), "unsure", ()),
    ):
        sure.append(confidences)
        out = tmp_path / f"{confidences}"
        found = worker(models, out).handle(task, ignore)
        assert (found.status, found.stored) == (status, kinds)
        assert sorted(key[0] for key in exchange.read_folder(out)[0]) == sorted(kinds) if kinds else not out.exists()
        assert ("a hat" in found.reason) == (confidences[0] < SURE)
        assert ("a veil; and dark" in found.reason) == (confidences[1] < SURE)
        assert found.annotation is not None
        assert set(doubts(found.annotation)) == set(store.KINDS) - set(kinds)
    assert worker(models, tmp_path / "all", all=True).handle(task, ignore).stored == store.KINDS
    assert worker(models, tmp_path / "dry", dry_run=True, all=True).handle(task, ignore).stored == store.KINDS
    assert not (tmp_path / "dry").exists()
    record = store.read_record(tmp_path / "all", "head_bounds", found.sha256)
    assert record is not None
    assert (record["source"], record["annotator"], record["confidence"]) == (AUTO, "mmdgen", 0.1)
    assert record["time"] == "2026-01-01T00:00:00Z"


def test_people_are_never_overwritten_and_nothing_is_written_twice(models: Path, tmp_path: Path, sure: list):
    task = catalogue.find_models(models)[0]
    model = character(SEED)[0]
    (path,) = store.save(model, tmp_path, annotator="me", bounds=HeadBounds(1.0, 2.0, 0.0, source=PERSON))
    mine = path.read_bytes()
    assert worker(models, tmp_path, all=True).handle(task, ignore).stored == ("wink_morphs",)
    other = store.path_of(tmp_path, "wink_morphs", model.id)
    first = other.read_bytes()
    assert worker(models, tmp_path, time="2027-01-01T00:00:00Z").handle(task, ignore).stored == ()
    assert (path.read_bytes(), other.read_bytes()) == (mine, first)
    sure.append((0.9, 0.99))  # better code: the machine's own is written again
    assert worker(models, tmp_path, time="2027-01-01T00:00:00Z").handle(task, ignore).stored == ("wink_morphs",)
    assert path.read_bytes() == mine
    store.remove_record(tmp_path, "wink_morphs", model.id)
    store.save(model, tmp_path, annotator="me", rejected="no face")
    assert worker(models, tmp_path, all=True).handle(task, ignore).stored == ()
    assert not other.exists()


def test_a_full_disk_ends_the_run_and_is_no_models_fault(models: Path, tmp_path: Path, sure: list, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise DatasetError("the disk is full")

    monkeypatch.setattr(annotating, "save_automatic", full)
    with pytest.raises(DatasetError, match="full"):
        worker(models, tmp_path).handle(catalogue.find_models(models)[0], ignore)


@pytest.mark.gl
def test_auto_stores_where_it_is_told(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the real processes, as a person types it; --kind and --dry-run hold."""
    words = ["--models", models, "--auto", "--annotations", tmp_path / "a", "--progress", "none"]
    with monkeypatch.context() as here:
        work_here(here, annotating)
        dry = run(*words, "--dry-run", "--all", "--no-check")
    assert dry.exit_code == 0
    assert "would be stored" in dry.stdout
    assert not (tmp_path / "a").exists()
    result = run(*words, "--kind", "head_bounds", "--all", "--json")
    assert result.exit_code == 0, result.output
    assert [row["status"] for row in json.loads(result.stdout)][-1] == "rejected"
    records, faults = exchange.read_folder(tmp_path / "a")
    assert faults == []
    assert {kind for kind, _ in records} == {"head_bounds"}
    assert len(records) == 2
    work_here(monkeypatch, annotating)
    table = run(*words, "--no-check")
    assert "broken.pmx" in table.stdout
    assert re.search(r"^3 models: \d ok, \d unsure, 1 rejected$", table.stdout, re.MULTILINE)
    assert run("validate", tmp_path / "a", "--models", models).exit_code == 0


# --- the check in pictures --------------------------------------------------------------------------------------------


def test_without_pictures_no_eyes_are_sure_and_the_reason_is_told_once(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        made.append(1)
        raise RenderError("no EGL here")

    made: list[int] = []
    monkeypatch.setattr("mmdgen.render.renderer.Renderer", broken)
    model = character(SEED)[0]
    checker = checking.Checker()
    for _ in range(2):
        found = checker.find(model)
        assert found.eyes.confidence < SURE
        assert "no EGL here" in found.eyes.reasons[0]
    assert checker.problem == "no EGL here"
    assert made == [1]
    unasked = checking.Checker(check=False)
    assert unasked.find(model).eyes.confidence < SURE
    assert unasked.problem == ""
    assert made == [1]
    mine = replace(found.eyes, source=PERSON, confidence=1.0)
    assert unasked.find(model, eyes=mine).eyes == mine  # a person's need no check


def test_a_scan_tells_where_nothing_can_be_drawn(models: Path, monkeypatch: pytest.MonkeyPatch):
    notes: list[Any] = []
    monkeypatch.setattr(checking.Checker, "find", lambda self, model, **given: annotate(model, **given))
    config = {"root": str(models), "annotations": "", "examiner": catalogue.DEFAULT_EXAMINER, "check": True}
    scanner = catalogue.ScanWorker(config)
    assert scanner.checker is not None
    scanner.checker.problem = "no EGL"
    for task in catalogue.find_models(models)[:2]:
        scanner.handle(task, notes.append)
    assert notes == [("unchecked", "no EGL")] * 2

    class Processes:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> Processes:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self, tasks: Any) -> Any:
            while tasks:
                task = tasks.popleft()
                yield Event("note", 0, task, ("unchecked", "no EGL"))
                yield Event("done", 0, task, Rejection(task, "unsure_eyes", "not checked"))

    monkeypatch.setattr(catalogue, "Pool", Processes)
    warnings: list[str] = []
    assert len(scan(models, check=True, on_warning=warnings.append).rejected) == 3
    assert warnings == ["eye and mouth morphs are not checked in pictures: no EGL"]


# --- what render and scan use -----------------------------------------------------------------------------------------


def usable(**changes: Any) -> UsableModel:
    values: dict[str, Any] = {
        "sources": {"head_bounds": AUTO, "wink_morphs": AUTO},
        "confidences": {"head_bounds": 0.9, "wink_morphs": 0.9},
        "reasons": {"head_bounds": "a hat", "wink_morphs": "a veil"},
    }
    return replace(characters.foreseen(1).models[0], **{**values, **changes})


def left_out(**changes: Any) -> tuple[str, str] | None:
    rejection = unsure(usable(**changes))
    if rejection is None:
        return None
    assert (rejection.path, rejection.id) == (usable().path, usable().id)
    return rejection.code, rejection.message


def test_the_rule_that_leaves_models_out():
    def found(bounds: float, eyes: float) -> dict[str, float]:
        return {"head_bounds": bounds, "wink_morphs": eyes}

    assert left_out() is None
    assert left_out(confidences=found(SURE, SURE)) is None
    assert left_out(confidences=found(0.5, 0.9)) == ("unsure_head_bounds", "the head bounds are sure to 0.50: a hat")
    eyes = ("unsure_eyes", "the eye and mouth morphs are sure to 0.55: a veil")
    assert left_out(confidences=found(0.9, 0.55)) == eyes
    both = "the head bounds are sure to 0.50: a hat; the eye and mouth morphs are sure to 0.55: a veil"
    assert left_out(confidences=found(0.5, 0.55)) == ("unsure_head_bounds", both)
    for source in (PERSON, characters.TRUTH):
        people = {"head_bounds": source, "wink_morphs": source}
        assert left_out(sources=people, confidences=found(0.1, 0.1)) is None
    assert left_out(sources={"head_bounds": PERSON, "wink_morphs": AUTO}, confidences=found(0.1, 0.55)) == eyes
    assert unsure(characters.foreseen(1).models[0]) is None  # which says nothing about it


def test_people_make_an_unsure_model_usable(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """First by a real process; without pictures no automatic eyes are sure, which stands for any doubt."""
    path = catalogue.find_models(models)[0]
    (missing,) = scan(models, tmp_path, workers=1, paths=[path]).rejected
    assert missing.code == "unsure_eyes"
    assert "not checked in pictures" in missing.message
    assert missing.id == character(SEED)[0].id
    work_here(monkeypatch, catalogue)
    assert scan(models, tmp_path, workers=1, paths=[path]).rejected == (missing,)
    (taken,) = scan(models, tmp_path, workers=1, paths=[path], include_unsure=True).models
    assert taken.confidences["wink_morphs"] < SURE
    model = character(SEED)[0]
    mine = replace(annotate(model).eyes, source=PERSON, confidence=1.0)
    store.save(model, tmp_path, annotator="me", eyes=mine)
    (found,) = scan(models, tmp_path, workers=1, paths=[path]).models
    assert found.sources == {"head_bounds": AUTO, "wink_morphs": PERSON}
    store.save(model, tmp_path, annotator="mmdgen", eyes=replace(mine, source=AUTO, confidence=0.5))
    assert scan(models, tmp_path, workers=1, paths=[path]).reasons() == {"unsure_eyes": 1}
    store.save(model, tmp_path, annotator="mmdgen", eyes=replace(mine, source=AUTO, confidence=0.9))
    (found,) = scan(models, tmp_path, workers=1, paths=[path]).models
    assert found.confidences["wink_morphs"] == 0.9


def test_the_table_and_the_json_of_a_scan_show_why(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    work_here(monkeypatch, catalogue)
    words = ["scan", "--models", str(models), "--annotations", str(tmp_path), "--no-check", "--progress", "none"]
    table = CliRunner().invoke(cli, words)
    assert table.exit_code == 1  # nothing is usable
    assert "unsure_eyes" in table.stdout
    assert "not checked in pictures: that was not asked for" in table.stdout
    value = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert value["reasons"] == {"unsure_eyes": 2, "format_error": 1}
    value = json.loads(CliRunner().invoke(cli, [*words, "--json", "--include-unsure"]).stdout)
    assert [row["confidences"]["wink_morphs"] < SURE for row in value["usable"]] == [True, True]
    assert all(row["reasons"]["wink_morphs"] for row in value["usable"])


def test_include_unsure_is_part_of_the_plan():
    plain = RenderOptions(poses={"train": 8})
    other = RenderOptions(poses={"train": 8}, include_unsure=True)
    assert plain.differences(other) == ["--include-unsure was false, now true"]
    old = plain.to_json()
    del old["include_unsure"]  # a plan of before
    assert RenderOptions.from_json(old).to_json() == plain.to_json()
    assert RenderOptions.from_json(other.to_json()).include_unsure


@pytest.mark.parametrize("seed", range(4))
def test_procedural_characters_are_known_exactly(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    work_here(monkeypatch, catalogue)
    (path,) = write_characters(tmp_path, 1, seed)
    relative = path.relative_to(tmp_path).as_posix()
    found = characters.examine_character(path, relative, tmp_path, None)
    truth = character(seed)[1]
    assert (found.chin_y, found.top_y, found.center_x) == (truth.chin_y, truth.top_y, truth.center_x)
    assert (found.neck, found.head, found.confidence) == (truth.neck, truth.head, 1.0)
    assert unsure(found) is None
    by_machine = examine(path, relative, tmp_path, None)
    assert {name: [(t.morph, t.side) for t in terms] for name, terms in found.terms.items()} == {
        name: [(t.morph, t.side) for t in terms] for name, terms in by_machine.terms.items()
    }
    (path.parent / "truth.json").write_text("{}", "utf-8")
    (rejected,) = scan(tmp_path, workers=1, paths=[relative], examiner=characters.EXAMINER).rejected
    assert rejected.code == "bad_annotation"


# --- files ------------------------------------------------------------------------------------------------------------


def stored(folder: Path, *seeds: int, annotator: str = "me", time: str = "2026-01-01", chin: float = 16.0) -> Path:
    for seed in seeds:
        model = character(seed)[0]
        given = HeadBounds(chin, chin + 2, 0.0, source=PERSON)
        store.save(model, folder, annotator=annotator, bounds=given, eyes=annotate(model).eyes, time=time)
    return folder


def test_validate_lists_every_fault_and_exits_with_1(models: Path, tmp_path: Path):
    folder = stored(tmp_path / "a", SEED, SEED + 1)
    good = run("validate", folder, "--models", models)
    assert (good.exit_code, good.stdout) == (
        0,
        f"{folder}: 2 head_bounds, 2 wink_morphs, 2 compared with their models; 0 faults\n",
    )
    paths = sorted((folder / "head_bounds").iterdir())
    paths[0].write_text("{", "utf-8")
    paths[1].rename(paths[1].with_name("other.json"))
    path = store.path_of(folder, "wink_morphs", character(SEED)[0].id)
    record = json.loads(path.read_bytes())
    record["mouth_open"][0]["name"] = "renamed"
    path.write_text(json.dumps(record), "utf-8")
    bad = run("validate", folder, "--models", models)
    assert bad.exit_code == 1
    assert "3 faults" in bad.stdout
    for text in (f"head_bounds/{paths[0].name}: ", "head_bounds/other.json: ", f"wink_morphs/{path.name}: "):
        assert text in bad.stdout
    value = json.loads(run("validate", folder, "--json").stdout)
    assert [fault["path"] for fault in value["faults"]] == [f"head_bounds/{paths[0].name}", "head_bounds/other.json"]


def test_the_checkouts_own_annotations_are_sound():
    result = run("validate")
    assert result.exit_code == 0, result.stdout


def test_merge_lists_conflicts_writes_the_rest_and_exits_with_1(tmp_path: Path):
    mine, yours = stored(tmp_path / "mine", SEED), stored(tmp_path / "yours", SEED, annotator="you", chin=15.0)
    stored(yours, SEED + 1)
    into = tmp_path / "into"
    before = {path: path.read_bytes() for folder in (mine, yours) for path in folder.rglob("*.json")}
    dry = run("merge", mine, yours, "--into", into, "--dry-run")
    assert dry.exit_code == 1
    assert not into.exists()
    result = run("merge", mine, yours, "--into", into)
    assert result.exit_code == 1
    assert "CONFLICT" in result.stdout
    assert '"chin_y": 16.0' in result.stdout
    assert '"chin_y": 15.0' in result.stdout
    conflict = store.path_of(into, "head_bounds", character(SEED)[0].id)
    assert not conflict.exists()
    assert len(list(into.rglob("*.json"))) == 3
    decided = run("merge", mine, yours, "--into", into, "--prefer", "last", "--json")
    assert decided.exit_code == 0
    assert json.loads(decided.stdout)["conflicts"] == 0
    assert json.loads(conflict.read_bytes())["chin_y"] == 15.0
    again = run("merge", mine, "--into", into)  # what is there takes part, and stays where nothing decides
    assert again.exit_code == 1
    assert json.loads(conflict.read_bytes())["chin_y"] == 15.0
    newer = stored(tmp_path / "newer", SEED, time="2026-02-01", chin=14.0)
    assert run("merge", newer, "--into", into).exit_code == 0
    assert json.loads(conflict.read_bytes())["chin_y"] == 14.0
    assert {path: path.read_bytes() for path in before} == before
    (newer / "head_bounds/x.json").write_text("{", "utf-8")
    bad = run("merge", newer, "--into", tmp_path / "nothing")
    assert bad.exit_code == 1
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_export_and_import_give_the_same_files(format_: str, tmp_path: Path):
    folder = stored(tmp_path / "a", SEED)
    store.save(character(SEED + 1)[0], folder, annotator="=cmd|'/c calc'!A0", rejected="@evil\r\n-1")
    file = tmp_path / f"all.{format_}"
    assert run("export", folder, "--out", file).exit_code == 0
    printed = CliRunner().invoke(cli, ["annotate", "export", str(folder), "--format", format_]).stdout_bytes
    assert printed == file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    assert run("import", file, "--into", tmp_path / "b").exit_code == 0
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.json"))
    assert names == sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.json"))
    assert all((folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert run("import", file, "--into", folder, "--json").exit_code == 0  # nothing differs


def test_import_says_what_is_wrong_and_writes_nothing(tmp_path: Path):
    for name, data, message in (
        ("a.csv", b"kind,sha256\n", "its columns must be"),
        ("a.csv", "あ".encode("cp932"), "is not UTF-8"),
        ("a.json", b"[]", "must be an object"),
        ("a.txt", b"", "ends neither in .json nor in .csv"),
    ):
        (tmp_path / name).write_bytes(data)
        result = run("import", tmp_path / name, "--into", tmp_path / "b")
        assert result.exit_code != 0
        assert message in (result.output + str(result.exception))
        assert not (tmp_path / "b").exists()


# --- serving ----------------------------------------------------------------------------------------------------------


def test_wrong_usage_is_told(models: Path, monkeypatch: pytest.MonkeyPatch):
    for words, message in (
        ([], "say which models"),
        (["--models", models, "--json"], "--json: only with --auto"),
        (["--models", models, "--auto", "--write", "--dry-run"], "contradict"),
        (["--models", models / "nothing"], "does not exist"),
    ):
        result = run(*words)
        assert result.exit_code == 2
        assert message in result.output
    monkeypatch.setattr(cli_annotate, "default_annotations", lambda: None)
    for words in (["--models", models], ["--models", models, "--auto"]):
        result = run(*words)
        assert result.exit_code == 2
        assert "--annotations" in result.output
    monkeypatch.setattr(annotate_files, "default_annotations", lambda: None)
    assert run("validate").exit_code == 2


def test_the_missing_extra_is_named(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli_annotate, "missing_packages", lambda: ["starlette", "uvicorn"])
    result = run("--models", models, "--annotations", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == "mmdgen: the page needs starlette, uvicorn: pip install 'mmdgen[web]'\n"
    assert cli_annotate.WEB_PACKAGES == ("starlette", "uvicorn", "websockets")


@pytest.mark.parametrize(("display", "flag", "opened"), [(True, [], 1), (True, ["--no-browser"], 0), (False, [], 0)])
def test_the_address_is_printed_once_and_opened_where_there_is_a_display(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, display: bool, flag: list[str], opened: int
):
    server = pytest.importorskip("mmdgen.web.server")
    calls: list[Any] = []
    pages: list[str] = []

    def serve(models: Path, annotations: Path, *, on_ready: Any, **options: Any) -> None:
        calls.append((models, annotations, options))
        on_ready("http://127.0.0.1:5/?token=abc#wink_morphs")

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(cli_annotate, "has_display", lambda: display)
    monkeypatch.setattr(cli_annotate.webbrowser, "open", pages.append)
    words = ["--models", models, "--annotations", tmp_path, "--annotator", "me", "--kind", "wink_morphs"]
    result = run(*words, "--port", 5, "--allow-host", "lab.example", "--host", "0.0.0.0", *flag)
    assert result.exit_code == 0, result.output
    assert result.output.count("token=abc") == 1
    assert len(pages) == opened
    options = {"annotator": "me", "kind": "wink_morphs", "host": "0.0.0.0", "port": 5, "allowed": ("lab.example",)}
    assert calls == [(models, tmp_path, options)]


def test_the_annotator_is_gits_user_or_the_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gitconfig").write_text("[user]\n\tname = 初音 ミク\n", "utf-8")
    assert cli_annotate.default_annotator() == "初音 ミク"
    (tmp_path / "gitconfig").write_text("", "utf-8")
    monkeypatch.setenv("LOGNAME", "someone")
    assert cli_annotate.default_annotator() == "someone"
    monkeypatch.setenv("PATH", "")  # no git at all
    assert cli_annotate.default_annotator() == "someone"


@pytest.mark.gl
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_ends_cleanly(models: Path, tmp_path: Path, number: signal.Signals):
    pytest.importorskip("mmdgen.web.server")
    words = ["annotate", "--models", str(models), "--annotations", str(tmp_path), "--no-browser", "--annotator", "me"]
    # a shell's background job ignores Ctrl-C, and a test may run in one
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + MAIN
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        address = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", "".join(lines))
        assert address, (lines, process.poll())
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address[0].split("?")[0], timeout=20)
        assert refused.value.code == 401
        refused.value.close()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors
    assert address[0] not in rest + errors
    assert process.returncode in ((0,) if number == signal.SIGINT else (0, -number, 128 + number))


def test_default_annotations_are_the_checkouts():
    assert cli_render.default_annotations() == Path(__file__).resolve().parent.parent / "annotations"
