"""Small datasets of random pictures, and ways to damage them, for the tests of mmdgen/dataset."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmdgen import rng
from mmdgen.dataset import codec
from mmdgen.dataset.manifest import (
    make_manifest,
    read_manifest,
    sidecar_hashes,
    write_manifest,
)
from mmdgen.dataset.schema import (
    DatasetConfig,
    ModelEntry,
    ShardHeader,
    Vocabulary,
)
from mmdgen.dataset.verify import VerifyReport
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.fsio import write_atomic
from mmdgen.pose.vocabulary import THA1

ROOT = Path(__file__).resolve().parents[1]
SIZE = 16
# (split, shard, models in it): models are numbers; 3 samples each
LAYOUT = (
    ("train", 0, (0, 1)),
    ("train", 1, (1, 2)),
    ("train", 2, (3,)),
    ("validation", 0, (4,)),
    ("test", 0, (5, 6)),
)
SAMPLES = 3


def picture(*key: int | str, size: int = SIZE) -> np.ndarray:
    """A random valid image: a quarter of the pixels or so transparent, and black there."""
    image = rng.generator(3, *key).integers(0, 256, (size, size, 4), dtype=np.uint8)
    image[image[..., 3] < 64] = 0
    return image


def entry(model: int) -> ModelEntry:
    sha256 = hashlib.sha256(b"model %d" % model).hexdigest()
    return ModelEntry(sha256, f"初音 {model}", f"folder/{model}", 16.5, 20.25, 0.125, 0.5, 0.75, "© somebody")


# How images may be stored, by the names that the tests' parameters have.
WAYS: dict[str, dict[str, str]] = {
    "plain": {},
    "residual": {"expression_encoding": "residual"},
    "compact": {"expression_encoding": "residual", "posed_encoding": "planes"},
    "zstd": {"codec": "zstd"},
    "zstd-compact": {"expression_encoding": "residual", "posed_encoding": "planes", "codec": "zstd"},
}


def config(way: str = "plain") -> DatasetConfig:
    settings: dict[str, Any] = {"seed": 7, "ambient": (0.5, 1.2)}
    ways: dict[str, Any] = WAYS[way]
    return DatasetConfig(Vocabulary.of(THA1), SIZE, settings=settings, **ways)


def fill(builder: ShardBuilder, models: tuple[int, ...]) -> list[dict[str, Any]]:
    """Add SAMPLES samples of each model; return what the reader must give back."""
    added = []
    split, number = builder.header.split, builder.header.number
    for model in models:
        rest = picture("rest", model)
        row = builder.add_model(entry(model), rest)
        for index in range(SAMPLES):
            key = (split, number, model, index)
            low, high = np.array([(p.low, p.high) for p in THA1.parameters], np.float32).T
            pose = (low + (high - low) * rng.generator(4, *key).random(6, np.float32)).astype(np.float32)
            expression, posed = picture("expression", *key), picture("posed", *key)
            builder.add_sample(row, pose, expression, posed)
            added.append(
                {"rest": rest, "expression": expression, "posed": posed, "pose": pose, "sha256": entry(model).sha256}
            )
    return added


def build_dataset(out: Path, encoding: str = "plain") -> dict[str, list[dict[str, Any]]]:
    """Write a whole dataset as a render run does; return its samples by split."""
    out.mkdir(parents=True)
    plan = json.dumps(
        {"shards": [[s, n, [[m, 0, SAMPLES] for m in models]] for s, n, models in LAYOUT]}, sort_keys=True
    ).encode()
    write_atomic(out / "plan.json", plan)
    write_atomic(out / "provenance.jsonl", b'{"sha256": "x"}\n{"sha256": "y"}\n')
    write_atomic(out / "failures.jsonl", b"")
    truth: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    infos = []
    for split, number, models in LAYOUT:
        builder = ShardBuilder(ShardHeader(config(encoding), split, number, hashlib.sha256(plan).hexdigest()))
        truth[split] += fill(builder, models)
        infos.append(builder.write(out))
    names = {entry(model).sha256: (entry(model).name, entry(model).source) for model in range(7)}
    rejected = [{"path": "a.pmx", "code": "no_head_bone", "message": "no bone named 頭"}]
    manifest = make_manifest(
        config(encoding), infos[::-1], names, rejected=rejected, gl={"renderer": "none"}, files=sidecar_hashes(out)
    )
    write_manifest(out, manifest)
    return truth


def same(sample, expected: dict[str, Any]) -> bool:
    images = all(np.array_equal(getattr(sample, name), expected[name]) for name in ("rest", "expression", "posed"))
    return images and np.array_equal(sample.pose, expected["pose"]) and sample.model.sha256 == expected["sha256"]


def replace_chunk(out: Path, file: str, name: str, index: int, data: bytes | np.ndarray) -> None:
    """Store other bytes, or another image as it would be stored (an expression image as the difference it is)."""
    if not isinstance(data, bytes):
        made = read_manifest(out).config
        data = codec.encode_image(data, codec=made.codec, planes=made.planes and name != "expression")
    with h5py.File(out / file, "r+") as shard:
        dataset: Any = shard[name]
        dataset.id.write_direct_chunk((index, *[0] * (dataset.ndim - 1)), data)


def edit(out: Path, file: str, name: str, index: Any, value: Any) -> None:
    with h5py.File(out / file, "r+") as shard:
        dataset: Any = shard[name]
        dataset[index] = value


def edit_manifest(out: Path, change) -> None:
    value = json.loads((out / "manifest.json").read_bytes())
    change(value)
    (out / "manifest.json").write_text(json.dumps(value))


def reseal(out: Path) -> None:
    """Make the manifest agree with the shards' bytes again, so that what is inside them is looked at."""

    def change(value):
        for split in value["splits"].values():
            for shard in split["shards"]:
                content = (out / shard["file"]).read_bytes()
                shard.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))

    edit_manifest(out, change)


def told(report: VerifyReport) -> str:
    assert not report.ok
    return "\n".join(map(str, report.problems))


@pytest.fixture(name="built", scope="module", params=["plain", "residual", "zstd-compact"])
def built_fixture(request, tmp_path_factory) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    out = tmp_path_factory.mktemp(request.param) / "d"
    return out, build_dataset(out, request.param)


@pytest.fixture(name="damaged")
def damaged_fixture(built, tmp_path) -> Path:
    """A copy of the dataset that a test may damage."""
    return Path(shutil.copytree(built[0], tmp_path / "d"))
