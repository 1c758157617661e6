"""Exports: every sample comes out as it was, for the readers of others too; and interruptions change nothing."""

from __future__ import annotations

import csv
import dataclasses
import errno
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import dataset_fixtures as made
import numpy as np
import pytest
from click.testing import CliRunner, Result
from folders import tree
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmdgen import rng
from mmdgen.cli.main import cli
from mmdgen.dataset import export, export_parquet, export_rows
from mmdgen.dataset.export import ExportOptions, Summary, default_out, export_dataset, plan_export
from mmdgen.dataset.export_card import statement
from mmdgen.dataset.export_estimate import estimated_bytes
from mmdgen.dataset.manifest import make_manifest, sidecar_hashes, write_manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.remote import RemotePath, location
from mmdgen.dataset.schema import ShardHeader
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import sha256_file

TESTS = Path(__file__).parent
FORMATS = ["png", "webdataset", "parquet"]
KINDS = ("rest", "expression", "posed")

needs_pyarrow = pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="needs pyarrow (the extra export)")
needs_datasets = pytest.mark.skipif(not importlib.util.find_spec("datasets"), reason="needs datasets (the extra peers)")
needs_webdataset = pytest.mark.skipif(
    not importlib.util.find_spec("webdataset"), reason="needs webdataset (the extra peers)"
)
EACH_FORMAT = pytest.mark.parametrize(
    "format", [pytest.param(name, marks=needs_pyarrow if name == "parquet" else ()) for name in FORMATS]
)


def mmdgen(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def go(source: Path, out: Path, format: str, workers: int = 2, **options: Any) -> Summary:
    return export_dataset(source, out, ExportOptions(format, **options), workers=workers)


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "RGBA"
        return np.asarray(picture)


@pytest.fixture(name="source", scope="module", params=["plain", "residual"])
def source_fixture(request, tmp_path_factory) -> Path:
    """A dataset of 15 training samples of models 0 to 3 in three shards (model 1 in two), 3 and 6 of others."""
    out = tmp_path_factory.mktemp(request.param) / "d"
    made.build_dataset(out, request.param)
    rows = [
        {"sha256": made.entry(model).sha256, "hints": ["no_ai"] if model == 4 else [], "comment": f"by © {model}"}
        for model in range(7)
    ]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "provenance.jsonl").write_text(content, "utf-8")
    made.edit_manifest(
        out, lambda value: value["files"].update({"provenance.jsonl": sha256_file(out / "provenance.jsonl")})
    )
    return out


@pytest.fixture(name="plain", scope="module")
def plain_fixture(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("one") / "d"
    made.build_dataset(out)
    return out


@pytest.fixture(name="flowing", scope="module")
def flowing_fixture(tmp_path_factory) -> Path:
    """Four samples of one model, with flow."""
    out = tmp_path_factory.mktemp("flow") / "d"
    out.mkdir()
    config = dataclasses.replace(made.config(), flow=True)
    builder = ShardBuilder(ShardHeader(config, "train", 0))
    builder.add_model(made.entry(0), made.picture("rest", 0))
    for index in range(4):
        random = rng.generator(5, index)
        visibility = random.integers(0, 3, (made.SIZE, made.SIZE), dtype=np.uint8)
        flow = (random.integers(-900, 900, (made.SIZE, made.SIZE, 2)) / 64).astype(np.float32)
        flow[visibility == 0] = 0
        pose = np.zeros(6, np.float32)
        builder.add_sample(0, pose, made.picture("e", index), made.picture("p", index), flow, visibility)
    entry = made.entry(0)
    manifest = make_manifest(config, [builder.write(out)], {entry.sha256: (entry.name, entry.source)})
    write_manifest(out, dataclasses.replace(manifest, files=sidecar_hashes(out)))
    return out


# --- the formats ------------------------------------------------------------------------------------------------------


def test_png_has_every_picture_once(source, tmp_path):
    summary = go(source, tmp_path / "x", "png")
    assert summary.samples == {"train": 15, "validation": 3, "test": 6}
    listed: set[str] = set()
    for split in summary.samples:
        folder = tmp_path / "x" / split
        samples = Dataset(source, split)
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
        assert [row["index"] for row in rows] == list(range(len(samples)))
        with (folder / "poses.csv").open(encoding="utf-8", newline="") as stream:
            table = list(csv.DictReader(stream))
        assert len(table) == len(samples)
        for row, line, sample in zip(rows, table, samples, strict=True):
            for kind in KINDS:
                name = row[f"{kind}_file_name"]
                assert np.array_equal(pixels((folder / name).read_bytes()), getattr(sample, kind))
                assert line[kind] == name
                assert name.startswith(sample.model.sha256[:16] + "/")
                listed.add(f"{split}/{name}")
            assert np.array_equal(np.float32(row["pose"]), sample.pose)
            named = [np.float32(line[name]) for name in samples.config.vocabulary.names]
            assert np.array_equal(named, sample.pose)
            assert (row["model"], row["name"], row["source"], row["terms"]) == (
                sample.model.sha256,
                sample.model.name,
                sample.model.source,
                sample.model.terms,
            )
    assert {path.relative_to(tmp_path / "x").as_posix() for path in (tmp_path / "x").rglob("*.png")} == listed
    assert len(listed) == 7 + 2 * 24


def test_webdataset_archives_are_plain(source, tmp_path):
    go(source, tmp_path / "x", "webdataset")
    sizes = json.loads((tmp_path / "x" / "sizes.json").read_bytes())
    assert sizes == {
        "train-000000.tar": 6,
        "train-000001.tar": 6,
        "train-000002.tar": 3,
        "validation-000000.tar": 3,
        "test-000000.tar": 6,
    }
    train, index = Dataset(source, "train"), 0
    for name in ("train-000000.tar", "train-000001.tar", "train-000002.tar"):
        with tarfile.open(tmp_path / "x" / name) as archive:
            members = archive.getmembers()
            contents = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
        facts = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members}
        assert facts == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}
        assert all(archive.format == tarfile.USTAR_FORMAT or member.pax_headers == {} for member in members)
        for place in range(sizes[name]):
            key, sample = f"{index:08d}", train[index]
            assert [m.name for m in members[4 * place : 4 * place + 4]] == [
                f"{key}.{end}" for end in ("rest.png", "expression.png", "posed.png", "json")
            ]
            for kind in KINDS:
                assert np.array_equal(pixels(contents[f"{key}.{kind}.png"]), getattr(sample, kind))
            said = json.loads(contents[f"{key}.json"])
            assert np.array_equal(np.float32(said["pose"]), sample.pose)
            assert said["named_pose"]["mouth"] == said["pose"][5]
            assert (said["model"], said["name"], said["index"]) == (sample.model.sha256, sample.model.name, index)
            index += 1
    assert index == len(train)


@needs_webdataset
@pytest.mark.filterwarnings("ignore")  # what another package warns of
def test_webdataset_reads_it(plain, tmp_path):
    import webdataset

    go(plain, tmp_path / "x", "webdataset", shard_size=4)
    files = sorted(str(path) for path in (tmp_path / "x").glob("train-*.tar"))
    assert len(files) == 4
    data = webdataset.WebDataset(files, shardshuffle=False).decode("rgba8")  # pyright: ignore
    found = list(data.to_tuple("__key__", "rest.png", "expression.png", "posed.png", "json"))
    train = Dataset(plain, "train")
    assert len(found) == len(train)
    for (key, rest, expression, posed, said), sample in zip(found, train, strict=True):
        assert key == f"{sample.index:08d}"
        assert np.array_equal(rest, sample.rest)
        assert np.array_equal(expression, sample.expression)
        assert np.array_equal(posed, sample.posed)
        assert said["model"] == sample.model.sha256


@needs_pyarrow
def test_parquet_columns_and_row_groups(source, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(export_parquet, "GROUP_PIXELS", 0)  # eight rows a group, the least
    go(source, tmp_path / "x", "parquet", shard_size=10)
    names = sorted(path.name for path in (tmp_path / "x" / "data").iterdir())
    assert names == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "validation-00000-of-00001.parquet",
    ]
    train, index = Dataset(source, "train"), 0
    for name in names[1:3]:
        with pq.ParquetFile(tmp_path / "x" / "data" / name) as file:
            assert max(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)) <= 8
            metadata = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}
            assert json.loads(metadata["pose_names"]) == list(train.config.vocabulary.names)
            assert metadata["terms"] == statement(train.manifest)
            told = json.loads(metadata["huggingface"])["info"]["features"]
            assert list(told) == file.schema_arrow.names
            assert [column for column, feature in told.items() if feature["_type"] == "Image"] == list(KINDS)
            column = next(
                file.metadata.row_group(0).column(number)
                for number in range(file.metadata.num_columns)
                if file.metadata.row_group(0).column(number).path_in_schema == "rest.bytes"
            )
            # three or more samples of a model share one picture
            assert column.total_compressed_size < 0.6 * sum(len(export_rows.picture(train[i].rest)) for i in range(7))
            for row in file.read().to_pylist():
                sample = train[index]
                for kind in KINDS:
                    assert np.array_equal(pixels(row[kind]["bytes"]), getattr(sample, kind))
                assert row[f"{KINDS[2]}"]["path"] == f"{index:08d}-posed.png"
                assert np.array_equal(np.float32(row["pose"]), sample.pose)
                assert (row["index"], row["split"], row["model"]) == (index, "train", sample.model.sha256)
                index += 1
    assert index == len(train)


@needs_datasets
@needs_pyarrow
def test_hugging_face_datasets_reads_all_three(plain, tmp_path):
    """In another process, because the package looks at its environment when it is imported, and never goes online."""
    for format in FORMATS:
        go(plain, tmp_path / format, format)
    script = f"""
import json, sys
import numpy as np, datasets
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.remote import RemotePath, location
for format in {FORMATS!r}:
    found = datasets.load_dataset({str(tmp_path)!r} + "/" + format)
    assert {{split: len(rows) for split, rows in found.items()}} == {{"train": 15, "validation": 3, "test": 6}}
    suffix = ".png" if format == "webdataset" else ""
    for split, rows in found.items():
        for kind in {KINDS!r}:
            assert type(rows.features[kind + suffix]).__name__ == "Image", rows.features
        for row, sample in zip(rows, Dataset({str(plain)!r}, split), strict=True):
            for kind in {KINDS!r}:
                assert np.array_equal(np.asarray(row[kind + suffix]), getattr(sample, kind))
            said = row["json"] if suffix else row
            assert np.array_equal(np.float32(said["pose"]), sample.pose)
            assert said["model"] == sample.model.sha256
        if format == "parquet":
            assert rows.features["pose"].length == 6
    print(format, "is read")
"""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join([str(made.ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:-1] == [f"{format} is read" for format in FORMATS]


@needs_pyarrow
def test_flow_goes_with_every_format(flowing, tmp_path):
    import pyarrow.parquet as pq

    for format in FORMATS:
        go(flowing, tmp_path / format, format)
    table = pq.read_table(tmp_path / "parquet" / "data" / "train-00000-of-00001.parquet").to_pylist()
    with tarfile.open(tmp_path / "webdataset" / "train-000000.tar") as archive:
        packed = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]
    rows = [json.loads(line) for line in (tmp_path / "png" / "train" / "metadata.jsonl").read_text().splitlines()]
    for index, sample in enumerate(Dataset(flowing, "train")):
        assert sample.flow is not None
        assert sample.visibility is not None
        for name, expected in (("flow", sample.flow), ("visibility", sample.visibility)):
            contents = {
                "parquet": table[index][name],
                "webdataset": packed[f"{index:08d}.{name}.npy"],
                "png": (tmp_path / "png" / "train" / rows[index][f"{name}_array"]).read_bytes(),
            }
            for content in contents.values():
                array = np.load(io.BytesIO(content))
                assert array.dtype == (np.int16 if name == "flow" else np.uint8)
                assert np.array_equal(array / np.float32(64) if name == "flow" else array, expected)
    assert json.loads(packed["00000000.json"])["flow_step"] == 1 / 64
    for format in FORMATS:
        assert "flow / 64" in (tmp_path / format / "README.md").read_text("utf-8")


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]), st.integers(0, 99))
def test_quick_png_files_hold_the_pixels(height, width, channels, seed):
    image = rng.generator(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    with Image.open(io.BytesIO(export_rows.picture(image))) as picture:
        picture.load()  # checks the stream's end and the checksums
        assert np.array_equal(np.asarray(picture), image)


# --- what goes with an export -----------------------------------------------------------------------------------------


@EACH_FORMAT
def test_terms_and_credits_go_with_it(source, tmp_path, format):
    go(source, tmp_path / "x", format, splits=("validation",))
    lines = (tmp_path / "x" / "provenance.jsonl").read_text("utf-8").splitlines()
    whole = (source / "provenance.jsonl").read_text("utf-8").splitlines()
    assert lines == [line for line in whole if json.loads(line)["sha256"] == made.entry(4).sha256]
    card = (tmp_path / "x" / "README.md").read_text("utf-8")
    told = statement(plan_export(source, ExportOptions(format)).manifest)
    assert "belong to their authors" in told
    assert told in card
    assert "words against machine learning" in card
    assert "by © 4" in card
    assert "by © 5" not in card
    assert json.loads((tmp_path / "x" / "export.json").read_bytes())["terms"] == told
    (model,) = map(json.loads, (tmp_path / "x" / "models.jsonl").read_text("utf-8").splitlines())
    assert (model["sha256"], model["samples"], model["split"]) == (made.entry(4).sha256, 3, "validation")
    assert model["top_y"] == made.entry(4).top_y
    assert str(tmp_path).encode() not in b"".join(tree(tmp_path / "x").values())


def test_procedural_characters_are_free(plain, tmp_path):
    free = Path(shutil.copytree(plain, tmp_path / "d"))
    made.edit_manifest(free, lambda value: value["config"]["settings"].update(characters=7))
    for split in ("train", "validation", "test"):  # the settings stand in every shard, too; nobody compares them here
        assert len(Dataset(free, split))
    go(free, tmp_path / "x", "webdataset")
    card = (tmp_path / "x" / "README.md").read_text("utf-8")
    assert "license: cc0-1.0" in card
    assert "nobody has to be asked" in card
    assert "belong to their authors" not in card
    assert "nobody has to be asked" in json.loads((tmp_path / "x" / "export.json").read_bytes())["terms"]


@EACH_FORMAT
def test_the_files_are_listed_with_their_hashes(source, tmp_path, format):
    summary = go(source, tmp_path / "x", format)
    value = json.loads((tmp_path / "x" / "export.json").read_bytes())
    for row in value["files"]:
        assert (tmp_path / "x" / row["file"]).stat().st_size == row["bytes"]
        assert sha256_file(tmp_path / "x" / row["file"]) == row["sha256"]
    listed = {row["file"] for row in value["files"]}
    assert listed == {n for n in tree(tmp_path / "x") if n.endswith((".tar", ".parquet", "metadata.jsonl", ".csv"))}
    assert len(listed) == summary.files
    assert {row["samples"] for row in value["files"] if "validation" in row["file"]} == {3}
    ends = (".png", ".npy", ".tar", ".parquet")
    assert sum(len(data) for name, data in tree(tmp_path / "x").items() if name.endswith(ends)) == summary.bytes
    assert value["models"] == 7
    assert not (tmp_path / "x" / ".work").exists()


@EACH_FORMAT
def test_the_bytes_do_not_depend_on_the_threads(source, tmp_path, format):
    go(source, tmp_path / "one", format, 1)
    go(source, tmp_path / "five", format, 5)
    assert tree(tmp_path / "one") == tree(tmp_path / "five")


@EACH_FORMAT
def test_parts_of_a_dataset(source, tmp_path, format):
    assert go(source, tmp_path / "x", format, splits=("test", "train"), limit=7).samples == {"train": 7, "test": 6}
    whole = go(source, tmp_path / "y", format, limit=100).samples
    assert whole == {"train": 15, "validation": 3, "test": 6}
    if format == "png":  # of models beyond the limit there is nothing
        cut = {path.parent.name for path in (tmp_path / "x" / "train").rglob("*.png")}
        assert cut == {made.entry(model).sha256[:16] for model in (0, 1)}


@pytest.mark.parametrize("size", [1, 4, 7, 15, 99])
def test_any_shard_size_covers_the_split(plain, size):
    jobs = [job for job in plan_export(plain, ExportOptions("parquet", shard_size=size)).jobs if job.split == "train"]
    assert [job.start for job in jobs] == [0, *(job.stop for job in jobs[:-1])]
    assert jobs[-1].stop == 15
    assert max(job.samples for job in jobs) <= size
    assert {job.count for job in jobs} == {len(jobs)}


# --- interruptions and places -----------------------------------------------------------------------------------------


class Interruption:
    """Raises an error when the n-th picture is encoded, as Ctrl-C or a broken disk would; counts all of them."""

    def __init__(self, monkeypatch, at: int, error: BaseException) -> None:
        self.count, self.at, self.error = 0, at, error
        self._picture = export_rows.picture
        monkeypatch.setattr(export_rows, "picture", self)

    def __call__(self, image: np.ndarray) -> bytes:
        self.count += 1
        if self.count == self.at:
            raise self.error
        return self._picture(image)


@EACH_FORMAT
@pytest.mark.parametrize("at", [1, 15, 31, 50])
def test_an_interrupted_export_goes_on(plain, tmp_path, monkeypatch, format, at):
    go(plain, tmp_path / "reference", format)
    with monkeypatch.context() as patch:
        interruption = Interruption(patch, at, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            go(plain, tmp_path / "x", format, 1)
        assert not (tmp_path / "x" / "export.json").exists()
        assert not list((tmp_path / "x").rglob("*.tmp-*"))
        interruption.count, interruption.at = 0, -1
        seen: list[tuple[int, int]] = []
        export_dataset(
            plain, tmp_path / "x", ExportOptions(format), workers=2, progress=lambda done, all: seen.append((done, all))
        )
    assert tree(tmp_path / "x") == tree(tmp_path / "reference")
    finished = {1: 0, 15: 6, 31: 12, 50: 18}[at]  # samples of jobs that were complete
    assert seen[0] == (finished, 24)
    assert seen[-1] == (24, 24)
    assert 2 * (24 - finished) < interruption.count <= 2 * (24 - finished) + 8


@pytest.mark.parametrize("at", [3, 9, 24])
def test_a_killed_export_goes_on(plain, tmp_path, at):
    """kill -9 before some step of a write; the steps of a whole export are 33 (webdataset)."""
    script = f"""
import sys; sys.path.insert(0, {str(TESTS)!r})
import fake_backend; fake_backend.kill_at_write()
from pathlib import Path
from mmdgen.dataset.export import ExportOptions, export_dataset
export_dataset(Path({str(plain)!r}), Path({str(tmp_path / "x")!r}), ExportOptions("webdataset"), workers=1)
"""
    environment = {**os.environ, "FAKE_KILL_AT": str(at), "PYTHONPATH": str(made.ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "x" / "export.json").exists()
    go(plain, tmp_path / "x", "webdataset")
    go(plain, tmp_path / "reference", "webdataset")
    assert tree(tmp_path / "x") == tree(tmp_path / "reference")


@EACH_FORMAT
def test_a_full_disk_is_one_error_and_goes_on(plain, tmp_path, monkeypatch, format):
    with monkeypatch.context() as patch:
        Interruption(patch, 20, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(DatasetError, match="the disk is full"):
            go(plain, tmp_path / "x", format)
    assert not list((tmp_path / "x").rglob("*.tmp-*"))
    go(plain, tmp_path / "x", format)
    go(plain, tmp_path / "reference", format)
    assert tree(tmp_path / "x") == tree(tmp_path / "reference")


@EACH_FORMAT
def test_a_damaged_dataset_is_an_error(plain, tmp_path, format):
    broken = Path(shutil.copytree(plain, tmp_path / "d"))
    made.replace_chunk(broken, "train/shard-00001.h5", "posed", 2, b"none")
    made.reseal(broken)
    with pytest.raises(DatasetError, match=r"shard-00001\.h5: posed\[2\] cannot be read"):
        go(broken, tmp_path / "x", format)
    assert not (tmp_path / "x" / "export.json").exists()


def test_damaged_provenance_is_noticed_first(source, tmp_path):
    broken = Path(shutil.copytree(source, tmp_path / "d"))
    (broken / "provenance.jsonl").write_bytes(b"\xff{}\n")
    with pytest.raises(DatasetError, match=r"provenance\.jsonl: is damaged"):
        go(broken, tmp_path / "x", "png")
    assert not (tmp_path / "x").exists()


def test_places_that_are_refused(plain, tmp_path):
    with pytest.raises(ConfigError, match="lies in the dataset"):
        go(plain, plain / "export", "png")
    (tmp_path / "link").symlink_to(plain)
    with pytest.raises(ConfigError, match="lies in the dataset"):
        go(plain, tmp_path / "link", "png")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        go(plain, tmp_path / "file", "png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"is not empty and holds no export .*mine\.txt"):
        go(plain, tmp_path / "full", "png")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert not (plain / "export").exists()


def test_another_export_is_not_touched(plain, tmp_path):
    go(plain, tmp_path / "x", "webdataset", limit=5)
    before = tree(tmp_path / "x")
    with pytest.raises(ConfigError, match='the format was "webdataset", now "png"; --limit was 5, now null'):
        go(plain, tmp_path / "x", "png")
    other = Path(shutil.copytree(plain, tmp_path / "d"))
    made.edit_manifest(other, lambda value: value["gl"].update(renderer="another"))
    with pytest.raises(ConfigError, match="the dataset has changed since"):
        go(other, tmp_path / "x", "webdataset", limit=5)
    assert tree(tmp_path / "x") == before
    assert go(plain, tmp_path / "x", "webdataset", limit=5).complete
    (tmp_path / "x" / "train-000000.tar").unlink()
    with pytest.raises(DatasetError, match="missing or changed"):
        go(plain, tmp_path / "x", "webdataset", limit=5)


def test_a_table_that_was_changed_is_noticed(plain, tmp_path):
    go(plain, tmp_path / "x", "png", limit=3)
    assert go(plain, tmp_path / "x", "png", limit=3).complete
    with (tmp_path / "x" / "validation" / "poses.csv").open("a") as table:
        table.write("1")
    with pytest.raises(DatasetError, match="missing or changed"):
        go(plain, tmp_path / "x", "png", limit=3)


def test_two_exports_at_once_are_refused(plain, tmp_path, monkeypatch):
    def meanwhile(*_: Any) -> None:
        with pytest.raises(ConfigError, match="another export is working on"):
            go(plain, tmp_path / "x", "webdataset")
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_sweep", lambda out: None)
    with pytest.raises(KeyboardInterrupt):
        export_dataset(plain, tmp_path / "x", ExportOptions("webdataset"), workers=1, progress=meanwhile)


@pytest.mark.skipif(not importlib.util.find_spec("fsspec"), reason="needs fsspec (the extra remote)")
def test_a_dataset_in_an_object_store(plain, tmp_path):
    store = location("memory://bucket/exported")
    assert isinstance(store, RemotePath)
    for name, content in tree(plain).items():
        (store / name).write_bytes(content)
    export_dataset(store, tmp_path / "x", ExportOptions("webdataset"))
    go(plain, tmp_path / "reference", "webdataset")
    assert tree(tmp_path / "x") == tree(tmp_path / "reference")
    assert default_out(store, "png") == Path("exported-png")
    result = mmdgen("export", "webdataset", "memory://bucket/exported", "--out", tmp_path / "x")
    assert "complete already" in result.output


def test_nothing_to_export(plain, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="is not a dataset"):
        go(tmp_path / "empty", tmp_path / "x", "png")
    unfinished = Path(shutil.copytree(plain, tmp_path / "d"))
    (unfinished / "manifest.json").unlink()
    with pytest.raises(DatasetError, match="not finished"):
        go(unfinished, tmp_path / "x", "png")
    assert not (tmp_path / "x").exists()


def test_the_place_beside_the_dataset(tmp_path, monkeypatch):
    assert default_out(Path("out/d"), "png") == Path("out/d-png")
    assert default_out(Path("d/"), "parquet") == Path("d-parquet")
    monkeypatch.chdir(tmp_path)
    assert default_out(Path("."), "png").resolve() == tmp_path.with_name(f"{tmp_path.name}-png")
    with pytest.raises(ConfigError, match="--out"):
        default_out(Path("/"), "png")


def smallest(dataset: Path) -> int:
    """What the two pictures of a sample take at least."""
    samples = Dataset(dataset, "train")
    return min(len(export_rows.picture(s.expression)) + len(export_rows.picture(s.posed)) for s in samples)


@EACH_FORMAT
@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("kind", ["plain", "flowing"])
def test_the_size_is_known_beforehand(request, tmp_path, kind, format, limit):
    dataset = request.getfixturevalue(kind)
    summary = go(dataset, tmp_path / "x", format, limit=limit)
    plan = plan_export(dataset, ExportOptions(format, limit=limit))
    size = estimated_bytes(dataset, plan.manifest, format, plan.samples, len(plan.jobs))
    # small pictures here: what the texts of a sample and the head or the end of a file take is told apart
    around = 1024 * sum(plan.samples.values()) + 10240 * summary.files
    assert abs(size - summary.bytes) < 0.1 * summary.bytes + around
    assert size > 0.9 * sum(summary.samples.values()) * smallest(dataset)


# --- the command ------------------------------------------------------------------------------------------------------


class TestCommand:
    def test_from_the_outside(self, plain, tmp_path):
        dataset = Path(shutil.copytree(plain, tmp_path / "d"))
        dry = mmdgen("export", "webdataset", dataset, "--dry-run", "--json")
        assert json.loads(dry.output)["samples"] == {"train": 15, "validation": 3, "test": 6}
        assert not (tmp_path / "d-webdataset").exists()
        result = mmdgen("export", "webdataset", dataset, "--split", "train", "--json", "--workers", 2)
        assert result.exit_code == 0, result.output
        summary = json.loads(result.output)
        assert summary["out"] == str(tmp_path / "d-webdataset")
        assert (summary["samples"], summary["files"], summary["made"]) == ({"train": 15}, 3, 15)
        again = mmdgen("export", "webdataset", dataset, "--split", "train")
        assert "the export is complete already" in again.output

    def test_progress_as_json(self, plain, tmp_path):
        result = mmdgen("export", "png", plain, "--out", tmp_path / "x", "--progress", "json")
        lines = [json.loads(line) for line in result.stderr.splitlines()]
        assert lines[-1] == {"stage": "export", "done": 24, "total": 24, "unit": "samples"}
        assert "15" in result.stdout

    def test_ctrl_c_says_how_to_go_on(self, plain, tmp_path, monkeypatch):
        Interruption(monkeypatch, 20, KeyboardInterrupt())
        result = mmdgen("export", "png", plain, "--out", tmp_path / "x", "--workers", 1)
        assert result.exit_code == 130
        assert "the same command goes on" in result.output

    def test_without_pyarrow(self, plain, tmp_path, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
        result = mmdgen("export", "parquet", plain, "--out", tmp_path / "x")
        assert isinstance(result.exception, ConfigError)
        assert "pip install 'mmdgen[export]'" in str(result.exception)
        assert not (tmp_path / "x").exists()

    def test_a_dry_run_tells_what_would_be_refused(self, plain, tmp_path):
        go(plain, tmp_path / "x", "webdataset")
        assert "complete already" in mmdgen("export", "webdataset", plain, "--out", tmp_path / "x", "--dry-run").output
        refused = mmdgen("export", "png", plain, "--out", tmp_path / "x", "--dry-run")
        assert "holds another export" in str(refused.exception)
        inside = mmdgen("export", "png", plain, "--out", plain / "x", "--dry-run")
        assert "lies in the dataset" in str(inside.exception)

    def test_an_export_goes_to_no_url(self, plain, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = mmdgen("export", "webdataset", plain, "--out", "memory://bucket/x")
        assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
        here = mmdgen("export", "webdataset", plain, "--out", f"file://{tmp_path}/y")
        assert here.exit_code == 0, here.output
        assert (tmp_path / "y" / "export.json").exists()

    @pytest.mark.parametrize(
        "words", [["zip", "."], ["png"], ["png", ".", "--shard-size", "3"], ["png", ".", "--limit", "0"]]
    )
    def test_wrong_usage_exits_with_2(self, words):
        assert mmdgen("export", *words).exit_code == 2
