"""mmdgen scan: every file is ok, repaired or rejected; the table and the JSON say so, stdout holds nothing else."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from in_process import work_here

from mmdgen.cli.main import cli
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.generate import catalogue
from mmdgen.samples.character import build_character

MAIN = "from mmdgen.cli.main import main; main()"
REJECTED = {"copy": "duplicate", "cut": "format_error", "no_bones": "no_bones", "still": "no_eye_morph"}


def scan(*words: object) -> Result:
    quick = ("--no-check", "--include-unsure")  # the policy has tests of its own, and this needs no OpenGL
    return CliRunner().invoke(cli, ["scan", "--progress", "none", *quick, *map(str, words)])


def damaged(file: pmx.PmxFile) -> pmx.PmxFile:
    """Two groups that hold each other, a bone without a parent, weights that do not add up: used all the same."""
    first = len(file.morphs)
    rows = np.zeros(1, pmx.GROUP_OFFSET)
    rows["weight"] = 1
    groups = []
    for number, other in ((0, 1), (1, 0)):
        rows["morph"] = first + other
        groups.append(pmx.PmxMorph(f"輪{number}", "", 4, pmx.MORPH_GROUP, rows.copy()))
    vertices = file.vertices.copy()
    vertices["bone_weight"][vertices["deform"] == pmx.BDEF4] *= 2
    vertices["normal"][5] = 0
    bones = (*file.bones, pmx.PmxBone("迷子", parent_index=99))
    return dataclasses.replace(file, morphs=(*file.morphs, *groups), vertices=vertices, bones=bones)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    files = build_character(4).files
    name = next(name for name in files if name.endswith(".pmx"))
    data = files[name]
    file = read_pmx(data)
    variants = {
        "ok": data,
        "copy": data,
        "repaired": write_pmx(damaged(file)),
        "cut": data[: len(data) // 2],
        "no_bones": write_pmx(dataclasses.replace(file, bones=())),
        "still": write_pmx(dataclasses.replace(file, morphs=())),
    }
    for folder, content in variants.items():
        for other, part in files.items():
            path = root / folder / (f"{folder}.pmx" if other == name else other)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if other == name else part)
    return root


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scan says is the same whoever does it; by real processes: `test_stdout_is_json_and_nothing_else`."""
    work_here(monkeypatch, catalogue)


@pytest.fixture(scope="module")
def found(models) -> dict:
    result = scan("--models", models, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_file_has_a_status(found):
    usable = {row["path"]: row["status"] for row in found["usable"]}
    assert usable == {"copy/copy.pmx": "ok", "repaired/repaired.pmx": "repaired"}
    rejected = {row["path"].split("/")[0]: row["code"] for row in found["rejected"]}
    assert rejected == {"ok": "duplicate", **{key: code for key, code in REJECTED.items() if key != "copy"}}
    assert {row["status"] for row in found["rejected"]} == {"rejected"}
    assert found["statuses"] == {"ok": 1, "repaired": 1, "rejected": 4}
    assert found["reasons"] == dict.fromkeys(sorted(REJECTED.values()), 1)


def test_the_json_has_every_repair(found):
    ok, repaired = found["usable"]
    assert (ok["repairs"], ok["diagnostics"]) == ([], {})
    repairs = repaired["repairs"]
    assert [(item["code"], item["section"]) for item in repairs if item["section"] != "vertices"] == [
        ("bone_parent_out_of_range", "bones"),
        ("morph_group_nested", "morphs"),
        ("morph_group_nested", "morphs"),
    ]
    assert {"code": "normal_invalid", "section": "vertices", "index": 5, "message": "1 vertices"} in repairs
    counts: dict[str, int] = {}
    for item in repairs:
        counts[item["code"]] = counts.get(item["code"], 0) + 1
        assert set(item) == {"code", "section", "index", "message"}
        assert item["message"]
        assert item["index"] >= 0
    assert repaired["diagnostics"] == counts
    assert counts["morph_group_nested"] == 2
    assert found["repairs"] == {code: {"models": 1, "found": number} for code, number in sorted(counts.items())}


def test_the_table_shows_codes_with_counts(models, found):
    result = scan("--models", models)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    statuses = {line.split()[-1]: line.split()[0] for line in lines if line.endswith(".pmx") and line[0] != " "}
    assert statuses["repaired/repaired.pmx"] == "repaired"
    assert statuses["copy/copy.pmx"] == "ok"
    assert sum(status == "rejected" for status in statuses.values()) == 4
    below = lines[next(i for i, line in enumerate(lines) if line.endswith("repaired/repaired.pmx")) + 1]
    expected = found["usable"][1]["diagnostics"]
    assert below.split(", ") == [
        f"{' ' * 32 if i == 0 else ''}{code} {n}" for i, (code, n) in enumerate(expected.items())
    ]
    assert "2 usable (1 of them repaired), 4 rejected" in lines
    assert lines[-2] == "repaired, models by code: " + ", ".join(f"{code} 1" for code in sorted(expected))
    assert lines[-1] == "rejected, models by code: duplicate 1, format_error 1, no_bones 1, no_eye_morph 1"


def test_the_plan_keeps_the_counts_and_not_the_list(models, found):
    from mmdgen.generate.catalogue import UsableModel
    from mmdgen.generate.catalogue import scan as catalogue_scan

    (model,) = catalogue_scan(models, paths=["repaired/repaired.pmx"], workers=1, include_unsure=True).models
    row = json.loads(json.dumps(model.to_json()))
    assert "repairs" not in row
    assert UsableModel.from_json(row).diagnostics == model.diagnostics == found["usable"][1]["diagnostics"]


@pytest.mark.parametrize("progress", ["json", "auto"])
def test_stdout_is_json_and_nothing_else(models, progress):
    words = ["scan", "--models", str(models), "--json", "--progress", progress]
    words += ["--no-check", "--include-unsure"] if progress == "auto" else []  # drivers, too, may print
    done = subprocess.run([sys.executable, "-c", MAIN, *words], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["statuses"]["rejected"] == 4
    assert bool(done.stderr) == (progress == "json")


def test_nothing_usable_is_still_valid_json_and_status_1(tmp_path):
    (tmp_path / "x.pmx").write_bytes(b"PMX ")
    result = scan("--models", tmp_path, "--json")
    assert result.exit_code == 1
    value = json.loads(result.stdout)
    assert value["statuses"] == {"ok": 0, "repaired": 0, "rejected": 1}
    assert value["repairs"] == {}
    assert "no usable model" in result.stderr
