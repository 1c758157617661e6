"""The corpus report: it agrees with the scan, survives any file, its page is sound HTML whatever files are called."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import fake_backend as fake
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_faults import WORKER
from toy import toy_builder

from mmdgen.annotate.store import save
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.formats.text import one_line
from mmdgen.generate.catalogue import scan
from mmdgen.generate.report import STAGES, Entry, Report, make_report
from mmdgen.generate.report_page import page
from mmdgen.generate.report_worker import EXPRESSIONS, EXTREMES, doubts
from mmdgen.model.load import load_model
from mmdgen.model.textures import decode_image
from mmdgen.samples.library import write_characters

CHECKOUT = Path(__file__).resolve().parent.parent
TOOL = CHECKOUT / "tools" / "corpus_report.py"
NASTY = "<img src=x onerror=alert(1)> & 漢字 \"quotes\" 'n' #%41?.pmx"
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Checks that elements are properly nested and collects what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict] = []
        self.rows: list[dict] = []
        self.cells: list[list[str]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute twice in <{tag}>"
        assert not [name for name in values if name.startswith("on")], f"<{tag}> has a handler: {values}"
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "a":
            self.links.append(values["href"] or "")
        if tag == "img":
            self.images.append(values)
        if tag == "tr" and "data-card" in values:
            self.rows.append(values)
            self.cells.append([])
        if tag == "td" and self.rows and any(name == "tr" and "data-card" in seen for name, seen in self.open):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append((tag, values))

    def handle_endtag(self, tag):
        assert [name for name, _ in self.open[-1:]] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        inside = [name for name, _ in self.open]
        if "script" in inside or "style" in inside:
            return
        timed = any("time" in seen.get("class", "").split() for _, seen in self.open)
        if not timed:
            self.texts.append(data)
        if "td" in inside and self.cells and any("data-card" in seen for _, seen in self.open):
            self.cells[-1][-1] += data
        if inside and inside[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


def read(out: Path) -> tuple[Page, dict]:
    """The parsed page and the JSON of a finished report."""
    return Page((out / "index.html").read_text("utf-8")), json.loads((out / "report.json").read_bytes())


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(item) for key, item in value.items() if key != "seconds"}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def check_links(out: Path, found: Page, report: dict) -> None:
    """Every link leads somewhere, every picture is linked, and each id is there once."""
    assert len(set(found.ids)) == len(found.ids)
    for link in found.links:
        assert link.startswith("#")
        assert link[1:] in found.ids
    sources = [urllib.parse.unquote(image["src"]) for image in found.images]
    assert sorted(sources) == sorted(path.relative_to(out).as_posix() for path in (out / "pictures").iterdir())
    assert len(sources) == sum(len(entry["look"]["pictures"]) for entry in report["entries"])
    assert all(image["alt"].strip() and image["loading"] == "lazy" for image in found.images)


# --- with real pictures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A character, the same one under a nasty name, a toy without eyes to close, damaged and empty files."""
    root = tmp_path_factory.mktemp("models")
    (path,) = write_characters(root / "a", 1, 3)
    copy = root / "b <b>&amp;" / NASTY if os.name != "nt" else root / "b" / "漢字 & x.pmx"
    shutil.copytree(path.parent, copy.parent)
    (copy.parent / path.name).rename(copy)
    toy = toy_builder()
    toy.morphs.clear()
    content = write_pmx(toy.file())
    (root / "toy.pmx").write_bytes(content)
    (root / "half.pmx").write_bytes(content[: len(content) // 2])
    (root / "empty.PMD").write_bytes(b"")
    (root / "notes.txt").write_text("not a model")
    return root


@pytest.fixture(scope="module")
def out(models, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "r"
    make_report(models, folder, view={"size": 96, "samples": 1})
    return folder


@pytest.mark.gl
def test_the_counts_are_those_of_a_scan(models, out):
    found = scan(models, workers=1, check=True)
    _, report = read(out)
    status = {entry["path"]: (entry["status"], entry["code"], entry["message"]) for entry in report["entries"]}
    expected = {model.path: (model.status, "", "") for model in found.models}
    expected |= {item.path: ("rejected", item.code, item.message) for item in found.rejected}
    assert status == expected
    assert report["summary"]["reasons"] == found.reasons()
    assert report["summary"]["files"] == len(status) == 5
    assert set(found.reasons()) == {"duplicate", "format_error", "no_eye_morph"}
    assert len(found.models) == 1
    hashes = {entry["path"]: entry["look"]["sha256"] for entry in report["entries"]}
    assert all(hashes[item.path] == item.id for item in (*found.models, *found.rejected))


@pytest.mark.gl
def test_the_page_is_sound_and_complete(models, out):
    found, report = read(out)
    check_links(out, found, report)
    assert len(found.rows) == 5
    assert [row["data-status"] for row in found.rows] == [entry["status"] for entry in report["entries"]]
    assert {"Summary", "Files", "Pictures"} <= set(found.headings)
    nasty = next(path for path in models.rglob("*.pmx") if path.parent.name.startswith("b"))
    assert nasty.relative_to(models).as_posix() in found.texts
    columns = [cells[1] for cells in found.cells]
    assert columns == sorted(columns) == [entry["path"] for entry in report["entries"]]
    assert len({len(cells) for cells in found.cells}) == 1


@pytest.mark.gl
def test_a_character_gets_the_whole_sheet_and_a_rejected_model_what_can_be_drawn(out):
    _, report = read(out)
    slugs = {entry["path"]: [p["file"][15:-4] for p in entry["look"]["pictures"]] for entry in report["entries"]}
    sheet = [slug for slug, _, _ in (*EXPRESSIONS, *EXTREMES)]
    assert len(sheet) == 11
    assert [slugs[path] for path in slugs if path.startswith(("a/", "b"))] == [sheet, sheet]
    assert slugs["toy.pmx"] == ["whole", "head"]
    assert slugs["half.pmx"] == slugs["empty.PMD"] == []
    for entry in report["entries"]:
        assert [p["ruled"] for p in entry["look"]["pictures"]].count(True) == (len(slugs[entry["path"]]) == 11)
        assert set(entry["look"]["seconds"]) <= set(STAGES)
        assert entry["look"]["problem"] == ""


@pytest.mark.gl
def test_pictures_show_what_their_captions_say(out):
    _, report = read(out)
    entry = next(entry for entry in report["entries"] if entry["path"].startswith("a/"))
    images = {p["file"][15:-4]: decode_image((out / p["file"]).read_bytes()) for p in entry["look"]["pictures"]}
    assert all(image.shape == (96, 96, 4) for image in images.values())
    rest = images["rest"].astype(int)
    moved = {slug: np.abs(image - rest).sum(axis=2) > 30 for slug, image in images.items()}
    for slug, mine, other in (("left-eye", slice(48, 96), slice(0, 48)), ("right-eye", slice(0, 48), slice(48, 96))):
        assert moved[slug][:, mine].sum() > 10 * max(1, moved[slug][:, other].sum())
    rows = np.nonzero(moved["mouth"])[0]
    assert rows.min() > np.nonzero(moved["eyes"])[0].mean()
    center = {
        slug: np.nonzero(image[:60, :, 3] > 128)[1].mean() for slug, image in images.items() if slug.startswith("neck")
    }
    assert center["neck-z-plus"] < center["neck-z-minus"] - 3  # +1 leans to image left
    assert entry["look"]["doubts"] == []
    assert set(entry["look"]["terms"]) == {"left_eye", "right_eye", "mouth"}


@pytest.mark.gl
def test_a_second_run_gives_the_same_but_for_times_and_sweeps_old_pictures(models, out, tmp_path):
    again = tmp_path / "again"
    (again / "pictures").mkdir(parents=True)
    (again / "pictures" / "00099-rest.png").write_bytes(b"of an earlier report")
    make_report(models, again, workers=2, view={"size": 96, "samples": 1})
    first, second = read(out), read(again)
    assert without_seconds(first[1]) == without_seconds(second[1])
    assert first[0].texts == second[0].texts
    names = sorted(path.name for path in (out / "pictures").iterdir())
    assert names == sorted(path.name for path in (again / "pictures").iterdir())
    assert all((out / "pictures" / name).read_bytes() == (again / "pictures" / name).read_bytes() for name in names)


@pytest.mark.gl
def test_stored_annotations_are_used(models, tmp_path):
    stored = tmp_path / "annotations"
    model = load_model(next(models.glob("a/*/*.pmx")))
    save(model, stored, annotator="a test", rejected="the hat hides the eyes")
    report = make_report(models / "a", tmp_path / "r", stored, view={"size": 32, "samples": 1})
    (entry,) = report.entries
    assert (entry.status, entry.code) == ("rejected", "rejected")
    assert "the hat hides" in entry.message
    assert [picture["caption"] for picture in entry.look["pictures"]] == ["the whole model", "around the head bone"]


@pytest.mark.gl
def test_the_tool_prints_json_and_a_summary(models, tmp_path):
    command = [sys.executable, str(TOOL), str(models / "a"), "--out", str(tmp_path / "r"), "--size", "32"]
    done = subprocess.run(
        [*command, "--samples", "1", "--no-annotations", "--json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "r" / "report.json").read_bytes())
    assert read(tmp_path / "r")[1]["view"] == {"samples": 1, "shading": "phong", "size": 32}
    command += ["--workers", "1", "--shading", "mmd"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert re.search(r"1 files: \d ok, \d repaired, 0 rejected", done.stdout)
    assert str(tmp_path / "r" / "index.html") in done.stdout
    assert read(tmp_path / "r")[1]["view"]["shading"] == "mmd"


@pytest.mark.parametrize("arguments", [[], ["no-such-folder", "--out", "x"], [".", "--out", "x", "--workers", "0"]])
def test_the_tool_refuses_wrong_usage(arguments, tmp_path):
    done = subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert not list(tmp_path.iterdir())


# --- with files that fail (no GL) -------------------------------------------------------------------------------------


def faulty(root: Path, out: Path, seconds: float = 60.0, **files: str) -> Report:
    for name, do in files.items():
        fake.write_model(root / f"{name}.pmx", f"name of {name}", do)
    return make_report(root, out, time_limit_s=seconds, worker=WORKER)


def test_what_crashes_costs_its_own_row_only(tmp_path):
    report = faulty(
        tmp_path / "m",
        tmp_path / "r",
        a="",
        b="scan-kill",
        c="draw-segfault",
        d="draw-bug",
        e="draw-once",
        f="no-mouth",
        g="",
    )
    rows = {entry.path[0]: entry for entry in report.entries}
    assert [entry.path[0] for entry in report.entries] == list("abcdefg")
    assert {name: (row.status, row.code) for name, row in rows.items()} == {
        "a": ("ok", ""),
        "b": ("rejected", "crashed"),
        "c": ("ok", ""),
        "d": ("ok", ""),
        "e": ("ok", ""),
        "f": ("rejected", "no_mouth_morph"),
        "g": ("ok", ""),
    }
    assert "SIGKILL" in rows["b"].message
    assert rows["c"].look["problem"].startswith("crashed: draw:")
    assert "SIGSEGV" in rows["c"].look["problem"]
    assert rows["c"].look["name"] == "name of c"  # what the judgement knew is kept
    assert "ZeroDivisionError: nobody foresaw d.pmx" in rows["d"].look["problem"]  # without the models' place
    assert rows["d"].look["pictures"]
    assert rows["e"].look["problem"] == rows["a"].look["problem"] == ""
    summary = report.summary()
    assert summary["status"] == {"ok": 5, "repaired": 0, "rejected": 2}
    assert summary["problems"] == 2
    found, content = read(tmp_path / "r")
    check_links(tmp_path / "r", found, content)


def test_what_takes_too_long_is_given_up(tmp_path):
    report = faulty(tmp_path / "m", tmp_path / "r", seconds=2.0, a="scan-hang", b="draw-hang", c="")
    a, b, c = report.entries
    assert (a.status, a.code) == ("rejected", "timed_out")
    assert "more than 2 s" in a.message
    assert b.status == "ok"
    assert b.look["problem"] == "timed_out: draw: it took more than 2 s"
    assert c.status == "ok"
    assert c.look["pictures"]


def test_a_process_that_exits_by_itself_has_crashed(tmp_path):
    report = faulty(tmp_path / "m", tmp_path / "r", a="draw-exit")
    assert report.entries[0].look["problem"].startswith("crashed: draw: the process ended: it ended with exit status 3")


def test_a_limit_takes_the_same_files_whatever_the_workers(tmp_path):
    for number in range(9):
        fake.write_model(tmp_path / "m" / f"f{number % 3}" / f"{number}.pmx", str(number))
    one, two = (
        make_report(tmp_path / "m", tmp_path / f"r{n}", limit=4, workers=n, worker=WORKER).to_json() for n in (1, 2)
    )
    assert without_seconds(one) == without_seconds(two)
    assert len(one["entries"]) == 4
    paths = [entry["path"] for entry in one["entries"]]
    assert paths == sorted(paths)
    assert len({path[:2] for path in paths}) > 1


def test_what_cannot_be_done_is_said(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        make_report(tmp_path / "none", tmp_path / "r", worker=WORKER)
    with pytest.raises(ConfigError, match="at least 1"):
        make_report(tmp_path, tmp_path / "r", limit=0, worker=WORKER)
    with pytest.raises(ConfigError, match="positive"):
        make_report(tmp_path, tmp_path / "r", time_limit_s=0, worker=WORKER)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be made"):
        make_report(tmp_path, tmp_path / "file", worker=WORKER)


def test_an_empty_folder_gives_an_empty_report(tmp_path):
    (tmp_path / "m").mkdir()
    report = make_report(tmp_path / "m", tmp_path / "r", worker=WORKER)
    assert report.entries == ()
    assert report.summary()["seconds"]["draw"]["count"] == 0
    found, content = read(tmp_path / "r")
    check_links(tmp_path / "r", found, content)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="this system has no undecodable file names")
def test_a_file_name_that_is_no_text_is_shown(tmp_path):
    fake.write_model(tmp_path / "m" / os.fsdecode(b"\xff\x01<b>.pmx"), "x")
    report = make_report(tmp_path / "m", tmp_path / "r", worker=WORKER, limit=1)
    assert report.entries[0].path == "\\udcff <b>.pmx"
    assert "\\udcff <b>.pmx" in read(tmp_path / "r")[0].texts


# --- the page and its parts -------------------------------------------------------------------------------------------


def entry_of(text: str, number: int = 1) -> dict:
    look = {
        "sha256": text,
        "name": text,
        "vertices": 3,
        "materials": 1,
        "bones": 1,
        "morphs": 0,
        "diagnostics": [[text, 2, text]],
        "confidence": {"head bounds": 0.5, "morphs": 0.25},
        "sources": {"head bounds": text, "morphs": "auto"},
        "reasons": [text],
        "terms": {"mouth": [text]},
        "textures": 1,
        "missing": [text],
        "white": [text],
        "seconds": {"parse": 0.001},
        "pictures": [{"file": "pictures/00001-rest.png", "caption": text, "ruled": True}],
        "doubts": [text],
        "problem": text,
    }
    return {"number": number, "path": text, "status": "rejected", "code": text, "message": text, "look": look}


@given(st.text() | st.sampled_from([NASTY, "</script><script>", "]]>", "<!--", "&lt;", "\"'><svg onload=x>", "</td>"]))
def test_any_text_comes_out_as_it_went_in(text):
    text = one_line(text)
    report = Report(text, text, {"size": 64}, {"renderer": text}, ()).to_json()
    report["entries"] = [entry_of(text)]
    report["summary"]["reasons"] = {text: 1}
    report["summary"]["diagnostics"] = {text: {"files": 1, "found": 2}}
    found = Page(page(report))
    assert found.images[0]["alt"] == f"{text}: {text}"
    if text.strip() and "\r" not in text:
        assert text in found.cells[0][1]
        assert text in found.rows[0]["data-doubts"]
        assert sum(text in piece for piece in found.texts) >= 10


@given(st.text(st.characters()))
def test_one_line_text_can_be_written_and_has_no_controls(text):
    clean = one_line(text)
    assert clean.encode("utf-8") and not re.search(r"[\x00-\x1f\x7f-\x9f]", clean) if text else clean == ""
    assert one_line(clean) == clean


def test_the_summary_counts_and_times():
    entries = []
    for number in range(1, 11):
        entry = entry_of("x", number)
        entry["look"]["seconds"] = {"draw": number / 10}
        entries.append(entry)
    summary = Report("", "", {}, {}, tuple(Entry(**entry) for entry in entries)).summary()
    assert summary["seconds"]["draw"] == {"count": 10, "median": 0.55, "p90": 0.9, "max": 1.0}
    assert summary["diagnostics"] == {"x": {"files": 10, "found": 20}}
    assert summary["reasons"] == {"x": 10}


def head(left: bool = True, right: bool = True, mouth: bool = True, shift: int = 0) -> np.ndarray:
    """A flat face 64 x 64 with open eyes and mouth; left is image right."""
    image = np.full((64, 64, 4), (230, 200, 180, 255), np.uint8)
    for there, column in ((right, 18), (left, 40)):
        if there:
            image[28:33, column + shift : column + shift + 6, :3] = 20
    if mouth:
        image[42:46, 28:36, :3] = (150, 20, 30)
    return image


def test_sound_pictures_raise_no_doubts():
    rest = head()
    assert doubts(rest, head(False, False), head(left=False), head(right=False), head(mouth=False)) == []


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ("left eye's change is on the other side", {"left": head(right=False)}),
        ("right eye's change is on the other side", {"right": head(left=False)}),
        ("the left eye changes next to nothing", {"left": head()}),
        ("the mouth changes next to nothing", {"mouth": head()}),
        ("both eyes together change more", {"eyes": head(False, False, False)}),
        ("one eye changes more than four times", {"left": np.where(np.arange(64)[:, None, None] < 20, 0, head(False))}),
    ],
)
def test_pictures_that_are_wrong_raise_doubts(expected, changed):
    pictures = {
        "rest": head(),
        "eyes": head(False, False),
        "left": head(left=False),
        "right": head(right=False),
        "mouth": head(mouth=False),
    }
    found = doubts(**{**pictures, **changed})
    assert any(expected in doubt for doubt in found), found


def test_holes_in_the_face_raise_doubts():
    pictures = [head(), head(False, False), head(False), head(True, False), head(mouth=False)]
    for image in pictures:
        image[30:40, 28:36] = 0
    assert any("transparent" in doubt for doubt in doubts(*pictures))
