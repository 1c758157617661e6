"""Verification finds every kind of damage, and nothing in a good dataset."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dataset_fixtures import (  # noqa: F401  (pytest finds them here)
    LAYOUT,
    SIZE,
    built_fixture,
    config,
    damaged_fixture,
    edit,
    edit_manifest,
    entry,
    fill,
    picture,
    replace_chunk,
    reseal,
    told,
)

from mmdgen.dataset.manifest import (
    read_manifest,
)
from mmdgen.dataset.reader import Shard
from mmdgen.dataset.schema import (
    ShardHeader,
)
from mmdgen.dataset.verify import verify_dataset
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.fsio import TEMPORARY_MARK


def test_verify_accepts_a_good_dataset(built):
    out, truth = built
    seen = []
    report = verify_dataset(out, progress=lambda done, total: seen.append((done, total)))
    assert report.problems == ()
    samples = sum(map(len, truth.values()))
    models_in_shards = sum(len(models) for _, _, models in LAYOUT)
    assert report.images == 2 * samples + models_in_shards
    assert (report.shards, report.models, report.samples["test"]) == (5, 7, 6)
    assert seen[-1] == (samples, samples)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert verify_dataset(out, quick=True).ok
    assert 0 < verify_dataset(out, quick=True).images < report.images
    assert verify_dataset(out, workers=1) == report


def test_verify_can_be_interrupted(built):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_dataset(built[0], progress=interrupt)


@pytest.mark.parametrize("place", [0.001, 0.3, 0.6, 0.999])
def test_verify_finds_one_flipped_bit(damaged, place):
    path = damaged / "train/shard-00001.h5"
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)
    report = verify_dataset(damaged)
    assert [(p.file, "SHA-256 differs" in p.what) for p in report.problems] == [("train/shard-00001.h5", True)]
    assert report.problems[0].found == hashlib.sha256(content).hexdigest()


def test_verify_finds_truncated_deleted_and_extra_shards(damaged):
    path = damaged / "train/shard-00000.h5"
    path.write_bytes(path.read_bytes()[:-1])
    (damaged / "validation/shard-00000.h5").unlink()
    shutil.copy(damaged / "test/shard-00000.h5", damaged / "test/shard-00001.h5")
    shutil.copy(damaged / "test/shard-00000.h5", damaged / "loose.h5")
    (damaged / "train" / f"shard-00003.h5{TEMPORARY_MARK}12").write_bytes(b"half")
    (damaged / f"manifest.json{TEMPORARY_MARK}12").write_bytes(b"half")
    text = told(verify_dataset(damaged))
    assert "train/shard-00000.h5: the shard's size differs" in text
    assert "validation/shard-00000.h5: the shard is missing (3 samples)" in text
    assert "test/shard-00001.h5: is not in the manifest" in text
    assert "loose.h5: is not in the manifest" in text
    assert f"train/shard-00003.h5{TEMPORARY_MARK}12: is a temporary file" in text
    assert f"manifest.json{TEMPORARY_MARK}12: is a temporary file" in text
    assert len(text.splitlines()) == 6


def test_verify_finds_a_model_in_two_splits(damaged):
    """The shard of model 3 is put into the test split, where another model is, and stays in train."""
    with Shard(damaged / "train/shard-00002.h5") as shard:
        header = dataclasses.replace(shard.header, split="test", number=1)
    builder = ShardBuilder(header)
    fill(builder, (3,))
    info = builder.write(damaged)

    def change(value):
        value["splits"]["test"]["shards"].append(
            {
                "file": info.file,
                "sha256": info.sha256,
                "bytes": info.bytes,
                "samples": info.samples,
                "models": info.models,
                "model_samples": [list(pair) for pair in info.model_samples.items()],
            }
        )
        value["splits"]["test"]["samples"] += info.samples

    edit_manifest(damaged, change)
    text = told(verify_dataset(damaged))
    assert f"model {entry(3).sha256[:16]} is in 2 splits (train/shard-00002.h5, test/shard-00001.h5)" in text
    assert "test/shard-00001.h5: is in the manifest but not in plan.json" in text


def test_verify_finds_a_model_in_another_split_than_listed(damaged):
    def change(value):
        for model in value["models"]:
            if model["split"] == "validation":
                model["split"] = "test"
        value["splits"]["validation"]["models"] -= 1
        value["splits"]["test"]["models"] += 1

    edit_manifest(damaged, change)
    assert "is in the wrong split: expected test, found validation" in told(verify_dataset(damaged))


def test_verify_finds_swapped_shards(damaged):
    first, second = damaged / "train/shard-00000.h5", damaged / "train/shard-00001.h5"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    reseal(damaged)
    text = told(verify_dataset(damaged))
    assert "says that it is another one: expected train/shard-00000.h5, found train/shard-00001.h5" in text
    assert "sample counts differ" in text


@pytest.mark.parametrize(("value", "shown"), [(1.5, "1.5"), (np.nan, "nan"), (-np.inf, "-inf")])
def test_verify_finds_poses_out_of_range(damaged, value, shown):
    edit(damaged, "train/shard-00002.h5", "pose", (1, 5), value)
    reseal(damaged)
    text = told(verify_dataset(damaged, quick=True))
    assert (
        text == "train/shard-00002.h5: pose: mouth is out of range or not finite in 1 samples, "
        f"first in sample 1: expected 0..1, found {shown}"
    )


@pytest.mark.parametrize("row", [-1, 1])
def test_verify_finds_model_numbers_out_of_range(damaged, row):
    edit(damaged, "train/shard-00002.h5", "model", 2, row)
    reseal(damaged)
    assert "name no row of models/, first sample 2: expected 0..0" in told(verify_dataset(damaged))


def test_verify_finds_a_sample_of_another_model(damaged):
    edit(damaged, "train/shard-00000.h5", "model", 0, 1)
    reseal(damaged)
    assert "sample counts differ" in told(verify_dataset(damaged))


def test_verify_finds_bad_pictures(damaged):
    stained = picture("x")
    stained[3, 5] = (9, 0, 0, 0)
    replace_chunk(damaged, "train/shard-00000.h5", "posed", 1, stained)
    replace_chunk(damaged, "train/shard-00000.h5", "posed", 2, stained)
    replace_chunk(damaged, "train/shard-00001.h5", "posed", 4, np.zeros((SIZE, SIZE, 4), np.uint8))
    replace_chunk(damaged, "validation/shard-00000.h5", "expression", 1, b"nonsense")
    replace_chunk(damaged, "test/shard-00000.h5", "models/rest", 1, picture("small", size=8))
    reseal(damaged)
    lines = told(verify_dataset(damaged)).splitlines()
    assert (
        "train/shard-00000.h5: posed[1] has color where alpha is 0 in 1 pixels, first at row 3, column 5: [9, 0, 0, 0] "
        "(and 1 more like it)" in lines
    )
    assert "train/shard-00001.h5: posed[4] is empty: alpha is 0 everywhere" in lines
    assert any(line.startswith("validation/shard-00000.h5: expression[1] cannot be decoded") for line in lines)
    assert any(line.startswith("test/shard-00000.h5: models/rest[1] cannot be decoded") for line in lines)


def test_verify_looks_at_decoded_expressions(damaged):
    """Color under alpha 0 is a matter of the picture, not of what is stored: a residual may well have such pixels."""
    residual = read_manifest(damaged).config.residual
    rest, clean = picture("rest", 4), picture("new")
    stained = clean.copy()
    stained[clean[..., 3] == 0] = (0, 0, 7, 0)
    for image, good in ((clean, True), (stained, False)):
        replace_chunk(damaged, "validation/shard-00000.h5", "expression", 1, image - rest if residual else image)
        reseal(damaged)
        assert verify_dataset(damaged).ok is good


def remake(out: Path, name: str, **settings) -> None:
    """Store a dataset of the first shard otherwise; None leaves it out."""
    made = read_manifest(out).config
    if made.codec == "zstd":
        pytest.importorskip("hdf5plugin", reason="this test reads through HDF5's own filter")
    with h5py.File(out / "train/shard-00000.h5", "r+") as file:
        item: Any = file[name]
        data = item[:]
        del file[name]
        if made.planes and "chunks" in settings:
            settings["chunks"] = (settings["chunks"][0], *data.shape[1:])
        if settings:
            file.create_dataset(name, **{"data": data, **settings})


@pytest.mark.parametrize(
    ("name", "stored", "message"),
    [
        ("posed", {}, "posed is missing"),
        ("models/light", {}, "models/light is missing"),
        ("posed", {"chunks": (2, SIZE, SIZE, 4), "compression": "gzip"}, "posed has other chunks"),
        ("posed", {"chunks": (1, SIZE, SIZE, 4)}, "posed has other filters"),
        ("posed", {"chunks": (1, SIZE, SIZE, 4), "compression": "lzf"}, "posed has other filters"),
        ("posed", {"chunks": (1, SIZE, SIZE, 4), "compression": "gzip", "shuffle": True}, "posed has other filters"),
        ("pose", {"dtype": "f8"}, "pose has another type: expected float32, found float64"),
        ("pose", {"dtype": ">f4"}, "pose has another type"),
        ("pose", {"data": np.zeros((5, 6), "f4")}, "pose has another shape: expected (6, 6), found (5, 6)"),
        ("model", {"dtype": "i8"}, "model has another type"),
        ("models/name", {"data": np.zeros(2)}, "models/name has another type"),
        ("models/sha256", {"data": ["x", "y"], "dtype": h5py.string_dtype()}, "sha256 must be 64"),
    ],
)
def test_verify_finds_wrong_structure(damaged, name, stored, message):
    remake(damaged, name, **stored)
    reseal(damaged)
    assert message in told(verify_dataset(damaged))


def test_verify_finds_unknown_datasets_and_foreign_files(damaged):
    with h5py.File(damaged / "train/shard-00000.h5", "r+") as file:
        file["models/extra"] = np.zeros(3)
    (damaged / "test/shard-00000.h5").write_bytes(b"x" * 1000)
    reseal(damaged)
    text = told(verify_dataset(damaged))
    assert "train/shard-00000.h5: has datasets that the schema does not know: expected none, found models/extra" in text
    assert "test/shard-00000.h5: cannot be read as HDF5" in text


def test_verify_finds_wrong_counts_in_the_manifest(damaged):
    def change(value):
        split = value["splits"]["train"]
        split["shards"][0]["samples"] += 1
        split["shards"][0]["model_samples"][0][1] += 1
        split["samples"] += 1

    edit_manifest(damaged, change)
    text = told(verify_dataset(damaged))
    assert "train/shard-00000.h5: pose has another shape: expected (7, 6), found (6, 6)" in text
    assert f"model {entry(0).sha256[:16]} (初音 0) has another number of samples in the shards" in text
    assert "train/shard-00000.h5: has another number of samples than plan.json: expected 6, found 7" in text


def test_verify_compares_the_other_files(damaged):
    (damaged / "provenance.jsonl").write_text('{"a": 1}\n{"b"\n')
    (damaged / "failures.jsonl").unlink()
    plan = json.loads((damaged / "plan.json").read_bytes())
    plan["shards"][0][2][0][2] = 4
    plan["shards"].append(["train", 3, [[0, 0, 2]]])
    (damaged / "plan.json").write_text(json.dumps(plan))
    text = told(verify_dataset(damaged))
    assert "provenance.jsonl: was changed after the manifest was written" in text
    assert "provenance.jsonl: line 2 is not JSON" in text
    assert "failures.jsonl: the file is missing" in text
    assert "plan.json: was changed after the manifest was written" in text
    assert "train/shard-00003.h5: is planned but not in the manifest (2 samples)" in text
    assert "train/shard-00000.h5: has another number of samples than plan.json: expected 7, found 6" in text
    assert len(text.splitlines()) == 6


def test_verify_finds_shards_of_another_plan_or_config(damaged):
    header = Shard(damaged / "train/shard-00002.h5").header
    builder = ShardBuilder(dataclasses.replace(header, plan="0" * 64))
    fill(builder, (3,))
    builder.write(damaged)
    other = dataclasses.replace(header.config, settings={"seed": 8})
    builder = ShardBuilder(ShardHeader(other, "validation", 0, header.plan))
    fill(builder, (4,))
    builder.write(damaged)
    reseal(damaged)
    text = told(verify_dataset(damaged))
    assert "train/shard-00002.h5: was made from another plan.json" in text
    assert "validation/shard-00000.h5: the shard's config differs from the manifest's" in text
