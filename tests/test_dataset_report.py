"""The report on a dataset and its card: true numbers, what is wrong is seen, nothing hostile gets through."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import dataset_fixtures as fixtures
import fake_backend as fake
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mmdgen.cli.main import cli
from mmdgen.dataset.card import dataset_card
from mmdgen.dataset.credits import LINE_LIMIT, by_source, credit_line, is_silent
from mmdgen.dataset.manifest import ModelSummary, read_manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.schema import Vocabulary
from mmdgen.dataset.sizes import stored_sizes
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.generate.catalogue import scan
from mmdgen.generate.dataset_report import default_page, gather, write_report
from mmdgen.generate.dataset_report_page import page
from mmdgen.generate.dataset_statistics import (
    BINS,
    PictureStatistics,
    density,
    distribution,
    kolmogorov,
    pose_statistics,
    smaller,
)
from mmdgen.generate.reasons import REASONS, explain
from mmdgen.generate.run import plan_for, run
from mmdgen.model.textures import decode_image
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.vocabulary import THA1

DOCS = Path(__file__).resolve().parents[1] / "docs"
HOSTILE = '"><script>alert(1)</script><img src=x onerror=y>\x1b[31m\u202e'
VOID = {"meta", "img", "input", "br", "rect", "line", "polyline"}


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed, in order. `elements` are (name, attributes)."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check_page(content: str) -> Reader:
    """Read a page and make sure that it is one file without scripts and without anything from elsewhere."""
    found = Reader(content)
    names = {name for name, _ in found.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "style src"}
    for name, attributes in found.elements:
        assert not [key for key in attributes if key.startswith("on")]
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/png;base64,"), name
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#"), name
    assert not re.search(r"url\(|@import|https?://", content)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for _, attributes in found.elements if "href" in attributes}
    assert links <= set(ids)
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report") / "d"
    fixtures.build_dataset(out)
    return out


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """A dataset made by the engine, with models that are rejected and one that fails."""
    root = tmp_path_factory.mktemp("models")
    for index in range(6):
        fake.write_model(root / f"source{index % 2}" / f"m{index}" / "m.pmx", f"モデル {index}")
    fake.write_model(root / "source0" / "mute" / "m.pmx", "mute", "no-mouth")
    fake.write_model(root / "source1" / "bad" / "m.pmx", "bad", "render-error")
    (root / "source0" / "m0" / "readme.txt").write_text("作者: 誰か\n再配布禁止", "utf-8")
    out = tmp_path_factory.mktemp("rendered") / "r"
    fake.go(root, out, 1, poses={"train": 70}, shard_size=20)
    return out


class TestPage:
    def test_it_is_one_file_and_tells_the_truth(self, rendered, tmp_path):
        facts = write_report(rendered, tmp_path / "page.html")
        found = check_page((tmp_path / "page.html").read_text("utf-8"))
        manifest = read_manifest(rendered)
        assert facts["finished"]
        assert facts["splits"]["train"]["samples"] == manifest.samples("train") == 60
        assert facts["splits"]["train"]["bytes"] == manifest.bytes
        assert facts["splits"]["train"]["samples_per_model"] == [10, 10, 10]
        assert facts["poses"]["train"]["samples"] == 60
        poses = Dataset(rendered, "train").poses()
        for column, row in enumerate(facts["poses"]["train"]["parameters"]):
            assert row["name"] == THA1.parameters[column].name
            assert sum(row["bins"]) == 60
            assert row["bins"] == np.histogram(poses[:, column], BINS, (row["low"], row["high"]))[0].tolist()
        codes = {(row["stage"], row["code"]): row for row in facts["failures"]}
        assert set(codes) == {("scan", "no_mouth_morph"), ("render", "render_error")}
        assert codes["render", "render_error"]["samples"] == 10
        for row in facts["failures"]:
            assert row["meaning"] in html.unescape(found.text)
            assert all(example in found.text for example in row["examples"])
        assert "60 samples" in found.text
        assert "Unfinished" not in found.text
        assert facts["models"]["hints"] == {"no_redistribution": 1}
        assert "作者: 誰か 再配布禁止" in found.text

    def test_the_samples_are_the_dataset_s(self, rendered):
        facts = gather(rendered)
        sheet = facts["sheets"]["train"]
        dataset = Dataset(rendered, "train")
        assert [sample["number"] for sample in sheet] == np.linspace(0, 59, 12).round().astype(int).tolist()
        for sample in sheet:
            truth = dataset[sample["number"]]
            assert sample["model"] == truth.model.name
            images = (truth.rest, truth.expression, truth.posed)
            for data, image in zip(sample["pictures"], images, strict=True):
                np.testing.assert_array_equal(decode_image(base64.b64decode(data)), image)

    def test_the_dataset_is_left_alone_and_the_page_lies_beside_it(self, rendered):
        before = {path: path.read_bytes() for path in rendered.rglob("*") if path.is_file()}
        result = CliRunner().invoke(cli, ["report", str(rendered)])
        assert result.exit_code == 0, result.output
        target = rendered.parent / "r-report.html"
        assert f"report: {target}" in result.output
        assert default_page(rendered) == target
        check_page(target.read_text("utf-8"))
        assert {path: path.read_bytes() for path in rendered.rglob("*") if path.is_file()} == before
        assert verify_dataset(rendered).problems == ()
        with pytest.raises(ConfigError, match="--out"):
            default_page(Path("/"))

    def test_what_cannot_be_reported(self, tmp_path):
        """One line each, and no page: an URL, a folder that is not there."""
        for name, code, words in (("s3://bucket/d", 2, "copy s3://bucket/d into one"), (str(tmp_path / "x"), 1, "")):
            result = CliRunner().invoke(cli, ["report", name, "--out", str(tmp_path / "page.html")])
            assert result.exit_code == code
            assert words in result.output
            assert not (tmp_path / "page.html").exists()

    def test_json_is_without_pictures(self, rendered, tmp_path):
        result = CliRunner().invoke(cli, ["report", str(rendered), "--out", str(tmp_path / "p.html"), "--json"])
        facts = json.loads(result.stdout)
        assert facts["pictures"]["posed"]["looked_at"] == 60
        assert "base64" not in result.stdout
        assert all("pictures" not in sample for sample in facts["sheets"]["train"])

    def test_timings_are_told_by_stage_start_and_worker(self, rendered, tmp_path):
        facts = gather(rendered)
        found = facts["timings"]
        assert found["shards"] == len(read_manifest(rendered).shards["train"])
        assert found["images"] == sum(row["images"] for row in found["starts"][0]["workers"])
        assert len(found["starts"]) == 1
        assert found["stages"]["draw"] > 0
        assert "ms a picture" in check_page(page(facts)).text
        moved = shutil.copytree(rendered, tmp_path / "elsewhere")
        assert gather(moved)["timings"] is None
        assert "Nobody noted them" in check_page(page(gather(moved))).text
        # timings of an earlier dataset in a folder of this name are not this one's
        rows = (rendered.parent / "r-timings.jsonl").read_text().replace('"plan": "', '"plan": "0')
        (tmp_path / "elsewhere-timings.jsonl").write_text(rows)
        assert gather(moved)["timings"] is None

    def test_names_are_disarmed(self, rendered):
        facts = gather(rendered)
        facts["name"] = HOSTILE
        for sample in facts["sheets"]["train"]:
            sample["model"] = HOSTILE
        facts["failures"][0] |= {"code": HOSTILE, "examples": [HOSTILE]}
        facts["models"]["listed"][0] |= {"name": HOSTILE, "source": HOSTILE, "credit": HOSTILE, "hints": [HOSTILE]}
        facts["models"]["by_source"][0] |= {"source": HOSTILE, "credits": [HOSTILE]}
        facts["models"]["hints"] = {HOSTILE: 1}
        facts["config"]["settings"]["x"] = HOSTILE
        facts["renderer"]["renderer"] = HOSTILE
        facts["problems"] = [HOSTILE]
        facts["pictures"]["rest"]["faults"] = {"empty": {"count": 1, "cases": [HOSTILE]}}
        content = page(facts)
        found = check_page(content)
        assert content.count("&lt;script&gt;") >= 10
        assert {name for name, _ in found.elements} & {"script"} == set()
        assert sum(name == "img" for name, _ in found.elements) == 36

    def test_every_encoding_and_split(self, tmp_path):
        out = tmp_path / "d"
        fixtures.build_dataset(out, "residual")
        facts = gather(out)
        assert set(facts["sheets"]) == {"train", "validation", "test"}
        assert facts["timings"] is None
        assert facts["splits"]["test"]["samples"] == 6
        check_page(page(facts))


class TestUnfinished:
    def test_it_says_so_and_tells_of_what_is_there(self, tmp_path):
        root, out = tmp_path / "models", tmp_path / "d"
        for index in range(4):
            fake.write_model(root / "source" / f"m{index}" / "m.pmx", f"model {index}")
        options = fake.options(poses={"train": 40}, shard_size=10)
        plan = plan_for(out, options, lambda: scan(root, workers=1, examiner=fake.EXAMINER))
        nothing = gather(out)
        assert nothing["splits"]["train"] | {"samples": 0, "planned_samples": 40} == nothing["splits"]["train"]
        assert "Unfinished. 0 of 40 planned samples" in check_page(page(nothing)).text

        def stop(progress):
            if progress.event == "shard":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(plan, root, out, workers=1, backend=fake.BACKEND, on_progress=stop)
        facts = gather(out)
        assert not facts["finished"]
        there = facts["splits"]["train"]["samples"]
        assert there in (10, 20)
        assert f"Unfinished. {there} of 40 planned samples" in check_page(page(facts)).text
        assert facts["poses"]["train"]["samples"] == there
        assert facts["timings"]["images"] == facts["splits"]["train"]["images"]
        assert len(facts["sheets"]["train"]) == min(12, there)

    def test_what_is_no_dataset_is_refused(self, tmp_path):
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(DatasetError):
                gather(folder)


class TestFaults:
    def test_a_damaged_shard_is_told_and_the_others_are_reported(self, built, tmp_path):
        out = Path(shutil.copytree(built, tmp_path / "d"))
        (out / "train" / "shard-00000.h5").write_bytes(b"no HDF5")
        (out / "test" / "shard-00000.h5").unlink()
        facts = gather(out)
        assert len(facts["problems"]) == 2
        assert facts["poses"]["train"]["samples"] == 9
        assert facts["poses"]["test"]["samples"] == 0
        assert "2 shards cannot be read" in check_page(page(facts)).text

    def test_pictures_that_cannot_be_right_are_found(self, built, tmp_path):
        out = Path(shutil.copytree(built, tmp_path / "d"))
        empty = np.zeros((16, 16, 4), np.uint8)
        dataset = Dataset(out, "train")
        fixtures.replace_chunk(out, "train/shard-00000.h5", "posed", 0, empty)
        fixtures.replace_chunk(out, "train/shard-00000.h5", "posed", 1, empty)
        fixtures.replace_chunk(out, "train/shard-00001.h5", "expression", 2, dataset[8].rest)
        fixtures.replace_chunk(out, "train/shard-00001.h5", "posed", 3, dataset[9].expression)
        moved = np.array([1, 1, 1, 1, 1, 0], np.float32)
        fixtures.edit(out, "train/shard-00001.h5", "pose", 2, moved)
        fixtures.edit(out, "train/shard-00001.h5", "pose", 3, moved)
        pictures = gather(out)["pictures"]
        assert pictures["posed"]["faults"]["empty"]["count"] == 2
        assert pictures["posed"]["faults"]["the same as another one"]["count"] == 1
        assert pictures["posed"]["faults"]["as the expression although the head turns"]["count"] == 1
        assert pictures["expression"]["faults"]["as at rest although eyes or mouth move"]["count"] == 1
        assert "(train 8)" in pictures["expression"]["faults"]["as at rest although eyes or mouth move"]["cases"][0]
        assert "empty" not in pictures["rest"]["faults"]

    def test_coverage_and_color(self):
        look = PictureStatistics()
        image = np.zeros((10, 10, 4), np.uint8)
        image[5:, :] = (200, 100, 0, 255)
        image[9, 9] = (0, 0, 0, 0)
        look.add(image, "a")
        thin = np.zeros_like(image)
        thin[3, 3] = (9, 9, 9, 255)
        look.add(thin, "b")
        full = np.full_like(image, 255)
        look.add(full, "c")
        found = look.to_json()
        assert found["coverage"]["mean"] == pytest.approx((0.49 + 0.01 + 1) / 3)
        assert found["mean_color"] == [round((49 * v + 9 + 100 * 255) / 150) for v in (200, 100, 0)]
        assert {what: fault["count"] for what, fault in found["faults"].items()} == {
            "nearly empty": 1,
            "nearly full": 1,
        }
        assert found["cut_at_the_top"] == 1

    def test_smaller_pictures_keep_color_at_silhouettes(self):
        image = np.zeros((64, 64, 4), np.uint8)
        image[:, 1::2] = (255, 0, 0, 255)
        small = smaller(image, 16)
        assert small.shape == (16, 16, 4)
        assert (small == (255, 0, 0, 128)).all()
        assert smaller(image, 64) is image


class TestPoses:
    def poses(self, count: int) -> np.ndarray:
        return np.concatenate([sample_poses(THA1, 3, f"{number}", 0, 50) for number in range(count // 50)])

    def test_the_sampler_follows_the_densities(self):
        for row in pose_statistics(self.poses(10_000), Vocabulary.of(THA1)):
            assert row["probability"] > 0.01, row["name"]
            assert not row["suspect"]
            assert abs(row["chi_square"] - 19) < 20
            expected = np.array(row["density"]) * 10_000 * (row["high"] - row["low"]) / BINS
            assert expected.sum() == pytest.approx(10_000, rel=1e-3)
            assert np.abs(np.array(row["bins"]) - expected).max() < 6 * math.sqrt(expected.max())

    @pytest.mark.parametrize("column", range(6))
    def test_wrong_ones_are_seen(self, column):
        poses = self.poses(2_000)
        low = THA1.parameters[column].low
        poses[:, column] = np.linspace(low, 1, len(poses)) if low < 0 else np.linspace(0, 1, len(poses)) ** 1.2
        rows = pose_statistics(poses, Vocabulary.of(THA1))
        assert [row["suspect"] for row in rows] == [place == column for place in range(6)]

    def test_distribution_is_the_integral_of_the_density(self):
        for rotation, low, high in ((True, -1.0, 1.0), (False, 0.0, 1.0), (True, -3.0, 5.0)):
            places = np.linspace(low, high, 20_001)
            middles = (places[1:] + places[:-1]) / 2
            steps = density(middles, low, high, rotation) * np.diff(places)
            np.testing.assert_allclose(np.cumsum(steps), distribution(places, low, high, rotation)[1:], atol=1e-7)

    def test_kolmogorov(self):
        """Against a plain search for the distance, and the tabled limits of the distribution."""
        values = np.random.default_rng(1).random(500)
        distance, _ = kolmogorov(values)
        plain = max(abs((values <= v).mean() - v) for v in values)
        plain = max(plain, *(abs((values < v).mean() - v) for v in values))
        assert distance == pytest.approx(plain)
        for limit, probability in ((1.3581, 0.05), (1.6276, 0.01), (0.8276, 0.5)):
            count = 1_000_000
            even = (np.arange(count) + 0.5) / count
            shifted = np.clip(even - (limit / math.sqrt(count) - 0.5 / count), 0, 1)
            assert kolmogorov(shifted)[1] == pytest.approx(probability, rel=0.01)
        assert kolmogorov(np.empty(0)) == (0.0, 1.0)
        assert kolmogorov((np.arange(100) + 0.5) / 100)[1] == 1.0

    def test_an_unknown_vocabulary_has_histograms_only(self):
        vocabulary = dataclasses.replace(Vocabulary.of(THA1), name="tha9")
        rows = pose_statistics(self.poses(100), vocabulary)
        assert all("density" not in row and sum(row["bins"]) == 100 for row in rows)


def test_sizes_are_those_of_the_file(built):
    path = built / "train" / "shard-00000.h5"
    found = stored_sizes(path)
    with h5py.File(path) as shard:
        posed = shard["posed"]
        assert isinstance(posed, h5py.Dataset)
        chunks = sum(posed.id.get_chunk_info(number).size for number in range(6))
    assert found["posed"] == (6, chunks)
    assert found["models/rest"][0] == 2
    assert sum(size for _, size in found.values()) <= path.stat().st_size
    with pytest.raises(DatasetError, match="cannot be read"):
        stored_sizes(built / "plan.json")


def test_every_code_in_the_documentation_is_explained():
    """The codes of rejections in docs/diagnostics.md and of failures in docs/render.md, and no others."""
    codes: set[str] = set()
    for file, title in (("diagnostics.md", "## Rejections"), ("render.md", "## When a model")):
        inside = False
        for line in (DOCS / file).read_text("utf-8").splitlines():
            inside = line.startswith(title) if line.startswith("## ") else inside
            if inside and line.startswith("| `"):
                codes.update(re.findall(r"`(\w+)`", line.split("|")[1]))
    assert len(codes) > 25
    assert codes == set(REASONS)
    assert explain("something_new")[0].startswith("A code that this version does not know")


class TestCredits:
    @pytest.mark.parametrize(
        ("comment", "texts", "expected"),
        [
            ("Miku\r\nモデリング：誰か\r\n", [], "モデリング:誰か"),
            ("hello\nCopyright (c) 2009-2013\nSome Institute\nall", [], "Copyright (c) 2009-2013 Some Institute"),
            ("一行目\n二行目", [], "一行目"),
            ("", ["-----\nMade by Somebody & Co."], "Made by Somebody & Co."),
            ("first", ["作者 A"], "作者 A"),
            ("...\n---", [], ""),
            ("evil \x1b[31m author \u202e x", [], None),
        ],
    )
    def test_who_made_it(self, comment, texts, expected):
        row = {"comment": comment, "texts": [{"text": text} for text in texts]}
        found = credit_line(row)
        if expected is not None:
            assert found.replace("：", ":") == expected
        assert not re.search(r"[\x00-\x1f]", found)

    def test_lines_are_short_whatever_they_are(self):
        for words in ("author " + "x" * 100_000, "author\n" + "あ" * 500, "author \ud800", None, 7):
            found = credit_line({"comment": words, "texts": [None, {"text": None}]})
            assert len(found) <= LINE_LIMIT
            found.encode("utf-8")

    def test_sources_add_up(self):
        models = [ModelSummary(f"{n:064x}", f"m{n}", f"s{n % 2}", "train", n) for n in range(5)]
        rows = {f"{n:064x}": {"comment": "作者 甲" if n < 4 else "", "hints": ["no_ai"] * (n == 2)} for n in range(5)}
        first, second = by_source(models, rows)
        assert (first.source, first.models, first.samples, first.silent) == ("s0", 3, 6, 1)
        assert dict(first.hints) == {"no_ai": 1}
        assert (second.source, second.models, second.silent) == ("s1", 2, 0)
        assert second.lines["作者 甲"] == 2
        assert is_silent(rows[f"{4:064x}"])


class TestCard:
    def test_head_terms_and_sources(self, rendered):
        card = (rendered / "README.md").read_text("utf-8")
        head, _, rest = card.removeprefix("---\n").partition("\n---\n")
        assert "license: other" in head
        assert "- image-to-image" in head
        assert "size_categories:\n- n<1K" in head
        assert "  - name: train\n    num_examples: 60\n" in head
        assert "| words against redistribution | 1 | ask before the dataset leaves your hands" in rest
        assert "| source0 | train | 3 | 30 | no\\_redistribution 1 |" in rest
        assert "作者: 誰か 再配布禁止" in rest
        assert "mmdgen remove-model" in rest

    def test_procedural_characters_need_nobody_s_leave(self, built):
        manifest = read_manifest(built)
        config = dataclasses.replace(manifest.config, settings={"characters": 7})
        card = dataset_card(dataclasses.replace(manifest, config=config), [{"sha256": fixtures.entry(0).sha256}])
        assert "license: cc0-1.0" in card
        assert "nobody has to be asked" in card
        facts = gather(built)
        facts["config"]["settings"]["characters"] = 7
        assert "nobody has to be asked" in check_page(page(facts)).text

    def test_thousands_of_models_make_a_short_card(self, built):
        manifest = read_manifest(built)
        models = tuple(ModelSummary(f"{n:064x}", f"m|{n}", f"<b>{n}", "train", 1) for n in range(8000))
        rows = [
            {"sha256": f"{n:064x}", "comment": f"作者 {n} `x` <script>" * 50, "hints": ["no_ai"]} for n in range(8000)
        ]
        card = dataset_card(dataclasses.replace(manifest, models=models), rows)
        assert len(card) < 40_000
        assert "<script>" not in card
        assert "<b>" not in card
        assert "... and 7,960 more folders" in card
        card.encode("utf-8")
