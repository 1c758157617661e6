"""The commands render, scan, inspect and draw from the outside, with small characters drawn for real."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from folders import assert_same, tree
from PIL import Image
from processes import until

from mmdgen.annotate.store import resolve, save
from mmdgen.cli.draw import over, parse_color, parse_pose
from mmdgen.cli.main import cli
from mmdgen.cli.render import characters_folder
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError
from mmdgen.model.load import load_model
from mmdgen.samples.character import build_character
from mmdgen.samples.library import write_character

MAIN = "import sys; from mmdgen.cli.main import main; main()"
SMALL = ["--size", "32", "--samples", "1", "--shard-size", "6"]


def mmdgen(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def start(*words: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Two procedural characters in two folders, and a file that is no model."""
    root = tmp_path_factory.mktemp("models")
    for seed, folder in ((1, "first/a"), (2, "second/b")):
        for name, content in build_character(seed).files.items():
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (root / "first" / "broken.pmx").write_bytes(b"PMX broken")
    return root


@pytest.fixture(scope="module")
def model(models) -> Path:
    return next((models / "first" / "a").glob("*.pmx"))


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "d"
    result = mmdgen("render", "--models", models, "--poses", 20, "--out", out, *SMALL, "--workers", 1)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.gl
class TestRender:
    def test_a_real_dataset(self, models, reference, tmp_path):
        assert verify_dataset(reference).problems == ()
        samples = list(Dataset(reference, "train"))
        assert len(samples) == 20
        assert {sample.model.source for sample in samples} == {"first", "second"}
        for sample in samples:
            assert (sample.rest[..., 3] > 0).mean() > 0.1
            assert (sample.posed != sample.rest).any()
        assert any((sample.expression != sample.rest).any() for sample in samples)

    def test_two_workers_and_the_report(self, models, reference, tmp_path):
        result = mmdgen("render", "--models", models, "--poses", 20, "--out", tmp_path / "d", *SMALL, "--workers", 2)
        assert result.exit_code == 0
        assert_same(tmp_path / "d", reference)
        assert f"contact sheet:  {tmp_path / 'd' / 'preview.png'}" in result.output
        assert "; 44 images, " in result.output  # each model's rest image is in two shards
        assert "images/s" in result.output
        assert "not usable:     1 model: format_error 1" in result.output
        again = mmdgen("render", "--models", models, "--poses", 20, "--out", tmp_path / "d", *SMALL)
        assert again.exit_code == 0
        assert "the dataset is complete already" in again.output

    def test_interrupted_three_ways_and_gone_on(self, models, reference, tmp_path):
        out = tmp_path / "d"
        words = ["render", "--models", models, "--poses", 20, "--out", out, *SMALL]
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            (out / ".work" / "lock").unlink(missing_ok=True)  # it appears again when drawing begins
            process = start(*words)
            until((out / ".work" / "lock").exists, 60)
            time.sleep(0.6)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            if process.returncode == 0:  # on a very quick machine it may have finished
                break
            if number == signal.SIGKILL:
                assert process.returncode == -number
                continue
            assert process.returncode == 130, errors
            assert "interrupted. What is finished is kept; the same command goes on" in errors
            assert "Traceback" not in errors
            assert not list(out.rglob("*.tmp-*"))
        assert mmdgen(*words).exit_code == 0
        assert_same(out, reference)

    def test_progress_and_summary_as_json(self, models, tmp_path):
        process = start(
            "render", "--models", models, "--poses", 4, "--out", tmp_path / "d", *SMALL, "--progress", "json", "--json"
        )
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        lines = [json.loads(line) for line in errors.splitlines()]
        assert lines[-1]["stage"] == "render"
        assert lines[-1]["done"] == lines[-1]["total"]
        assert {"stage": "scan", "done": 3, "total": 3, "unit": "models"} in lines
        summary = json.loads(output)
        assert summary["samples"] == {"train": 4}
        assert summary["rejected"] == {"format_error": 1}
        assert Path(summary["preview"]).is_file()

    def test_other_options_end_with_one_line(self, models, reference):
        before = tree(reference)
        result = mmdgen("render", "--models", models, "--poses", 20, "--out", reference, *SMALL, "--seed", 9)
        assert result.exit_code == 1
        assert "--seed was 0, now 9" in result.output
        assert tree(reference) == before


@pytest.mark.gl
class TestCharacters:
    def test_they_are_the_default_and_are_kept(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        words = ["render", "--poses", 6, "--characters", 2, *SMALL, "--out"]
        stale = characters_folder() / "00007.tmp-1"
        stale.mkdir(parents=True)
        os.utime(stale, (0, 0))
        result = mmdgen(*words, tmp_path / "d")
        assert result.exit_code == 0, result.output
        assert verify_dataset(tmp_path / "d").problems == ()
        assert "6 of 2 models" in result.output
        assert not stale.exists()
        made = {path: path.stat().st_mtime_ns for path in characters_folder().rglob("*.pmx")}
        assert len(made) == 2
        more = build_character(5)  # what another, larger run left there does not matter
        write_character(characters_folder(), more)
        assert mmdgen(*words, tmp_path / "again").exit_code == 0
        assert_same(tmp_path / "again", tmp_path / "d")
        assert {path: path.stat().st_mtime_ns for path in made} == made

    def test_a_dry_run_makes_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        value = json.loads(mmdgen("render", "--poses", 1000, "--dry-run", "--json", "--out", tmp_path / "d").output)
        assert value["splits"] == {"train": {"models": 40, "samples": 1000, "shards": 8}}
        assert list(tmp_path.iterdir()) == []


class TestDryRun:
    def test_it_prints_the_plan_and_writes_nothing(self, models, tmp_path):
        words = ["render", "--models", models, "--poses", 500, "--validation-poses", 40, "--out", tmp_path / "d"]
        result = mmdgen(*words, "--dry-run")
        assert result.exit_code == 0, result.output
        assert "not usable: 1 model: format_error 1" in result.output
        assert not (tmp_path / "d").exists()
        value = json.loads(mmdgen(*words, "--dry-run", "--json").output)
        assert value["splits"] == {
            "train": {"models": 1, "samples": 500, "shards": 4},
            "validation": {"models": 1, "samples": 40, "shards": 1},
        }
        assert value["images"] == 4 + 1 + 2 * 540
        assert value["estimated_bytes"] > 1e7


@pytest.mark.parametrize(
    "words",
    [
        ["render"],
        ["render", "--poses", "-1"],
        ["render", "--models", "/no/such/folder", "--poses", "1"],
        ["render", "--poses", "1", "--ambient", "2:1"],
        ["render", "--poses", "1", "--ambient", "bright"],
        ["render", "--poses", "1", "--samples", "3"],
        ["render", "--models", ".", "--poses", "1", "--characters", "3"],
        ["scan"],
        ["inspect"],
        ["draw", "none.pmx", "--out", "x.png"],
    ],
)
def test_wrong_usage_exits_with_2(words):
    assert mmdgen(*words).exit_code == 2


@pytest.mark.gl
def test_nothing_of_the_machine_is_in_a_dataset(models, reference):
    for name, content in tree(reference).items():
        assert str(models).encode() not in content, name
        assert str(reference.parent).encode() not in content, name


def test_stored_annotations_win(models, model, tmp_path):
    loaded = load_model(model)
    found = resolve(loaded, None).bounds
    save(loaded, tmp_path / "annotations", annotator="test", bounds=replace(found, top_y=found.top_y + 0.25))
    words = ["scan", "--models", models, "--json", "--annotations"]
    (tmp_path / "none").mkdir()
    rows = {
        kind: next(
            row for row in json.loads(mmdgen(*words, tmp_path / kind).output)["usable"] if row["id"] == loaded.id
        )
        for kind in ("annotations", "none")
    }
    assert rows["none"]["top_y"] == pytest.approx(found.top_y)
    assert rows["annotations"]["top_y"] == pytest.approx(found.top_y + 0.25)


class TestScan:
    def test_table_and_json(self, models):
        result = mmdgen("scan", "--models", models)
        assert result.exit_code == 0, result.output
        assert "2 usable" in result.output
        assert "first/broken.pmx" in result.output
        value = json.loads(mmdgen("scan", "--models", models, "--json").output)
        assert [row["source"] for row in value["usable"]] == ["first", "second"]
        assert value["reasons"] == {"format_error": 1}

    def test_nothing_usable_exits_with_1(self, tmp_path):
        (tmp_path / "x.pmx").write_bytes(b"")
        result = mmdgen("scan", "--models", tmp_path)
        assert result.exit_code == 1
        assert "no usable model" in result.output


class TestInspect:
    def test_a_model(self, model):
        result = mmdgen("inspect", model)
        assert result.exit_code == 0
        value = json.loads(mmdgen("inspect", model, "--json").output)
        assert value["annotation"]["bones"]["head"]["name"] == "頭"
        assert set(value["annotation"]["morphs"]["used"]) == {"left_eye", "right_eye", "mouth"}
        assert all(value["annotation"]["morphs"]["used"].values())
        assert all(texture["found"] for texture in value["textures"])

    def test_a_refused_model_says_why(self, shared):
        value = json.loads(mmdgen("inspect", shared / "fixtures" / "uv_morph_test.pmx", "--json").output)
        assert value["refused"]["code"]
        assert value["counts"]["bones"] >= 1

    def test_a_folder_of_models_leads_to_scan(self, models):
        result = CliRunner().invoke(cli, ["inspect", str(models)])
        assert isinstance(result.exception, ConfigError)
        assert "mmdgen scan" in str(result.exception)

    @pytest.mark.gl
    def test_a_shard_and_a_dataset(self, reference):
        shard = json.loads(mmdgen("inspect", reference / "train" / "shard-00000.h5", "--json").output)
        assert shard["samples"] == sum(entry["samples"] for entry in shard["models"])
        assert set(shard["pose"]) == {"head_x", "head_y", "neck_z", "left_eye", "right_eye", "mouth"}
        assert "samples 20" in mmdgen("inspect", reference).output


class TestDraw:
    @pytest.mark.gl
    def test_the_pose_is_seen(self, model, tmp_path):
        pictures = {}
        for name, pose in (("rest", ""), ("turned", "head_y=1"), ("wink", "left_eye=1")):
            out = tmp_path / f"{name}.png"
            result = mmdgen("draw", model, "--pose", pose, "--out", out, "--size", 128, "--samples", 4)
            assert result.exit_code == 0, result.output
            pictures[name] = np.asarray(Image.open(io.BytesIO(out.read_bytes())).convert("RGBA")).astype(int)
        assert pictures["rest"].shape == (128, 128, 4)
        changed = np.abs(pictures["wink"] - pictures["rest"]).max(axis=2) > 8
        assert changed[:, 64:].sum() > 10 * max(1, changed[:, :64].sum()), "left_eye closes the eye on image right"
        assert (np.abs(pictures["turned"] - pictures["rest"]).max(axis=2) > 8).mean() > 0.05

    @pytest.mark.gl
    def test_a_background(self, model, tmp_path):
        result = mmdgen("draw", model, "--out", tmp_path / "x.png", "--size", 32, "--background", "#102030")
        assert result.exit_code == 0
        picture = np.asarray(Image.open(tmp_path / "x.png"))
        assert picture.shape == (32, 32, 3)
        assert picture[0, 0].tolist() == [16, 32, 48]

    def test_bad_poses_and_colours_are_wrong_usage(self, model, tmp_path):
        for words in (
            ["--pose", "head_w=1"],
            ["--pose", "head_y"],
            ["--pose", "head_y=2"],
            ["--pose", "mouth=nan"],
            ["--pose", "mouth=1,mouth=0"],
            ["--background", "red"],
            ["--size", "0"],
        ):
            assert mmdgen("draw", model, "--out", tmp_path / "x.png", *words).exit_code == 2, words
        assert not (tmp_path / "x.png").exists()

    def test_the_parts(self):
        assert parse_pose(" head_y = 1 ,left_eye=0.5,", "tha1") == {"head_y": 1.0, "left_eye": 0.5}
        assert parse_color("#0a0B0c") == (10, 11, 12)
        image = np.array([[[200, 100, 0, 255], [200, 100, 0, 51], [0, 0, 0, 0]]], np.uint8)
        assert over(image, (0, 100, 255)).tolist() == [[[200, 100, 0], [40, 100, 204], [0, 100, 255]]]
