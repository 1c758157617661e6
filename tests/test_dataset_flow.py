"""Flow and visibility in a dataset: their encoding, the shards that hold them, what verification finds."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dataset_fixtures import SIZE, config, entry, fill, picture, reseal, told
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen import rng
from mmdgen.dataset import codec
from mmdgen.dataset.card import dataset_card
from mmdgen.dataset.manifest import make_manifest, read_manifest, write_manifest
from mmdgen.dataset.preview import contact_sheet
from mmdgen.dataset.reader import Dataset, Shard
from mmdgen.dataset.schema import FLOW_STEP, DatasetConfig, ShardHeader, Vocabulary, fields
from mmdgen.dataset.verify import verify_dataset
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import DatasetError
from mmdgen.pose.vocabulary import THA1

FILE = "train/shard-00000.h5"


def flow_config(size: int = SIZE) -> DatasetConfig:
    return DatasetConfig(Vocabulary.of(THA1), size, settings={"seed": 7}, flow=True)


def sample_of(*key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A posed image, and a flow and visibility that may stand beside it."""
    random = rng.generator(9, "flow", *key)
    posed = picture("posed", *key)
    posed[:4, :4] = 255  # at least some surface
    visibility = random.integers(0, 3, (SIZE, SIZE), np.uint8)
    visibility[posed[..., 3] < 128] = 0
    flow = random.uniform(-3, 3, (SIZE, SIZE, 2)).astype(np.float32)
    rows, columns = np.indices((SIZE, SIZE))
    inside = np.stack([columns, rows], axis=2) + flow
    visibility[((inside < 0) | (inside > SIZE - 1)).any(axis=2) & (visibility == 2)] = 1
    flow[visibility == 0] = 0
    return posed, flow, visibility


def build(out: Path, samples: int = 4) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Write a dataset of one shard with flow; return posed images, flows and visibilities."""
    builder = ShardBuilder(ShardHeader(flow_config(), "train", 0))
    row = builder.add_model(entry(0), picture("rest"))
    truth = [sample_of(index) for index in range(samples)]
    for index, (posed, flow, visibility) in enumerate(truth):
        builder.add_sample(row, THA1.rest, picture("expression", index), posed, flow, visibility)
    out.mkdir(parents=True)
    info = builder.write(out)
    write_manifest(out, make_manifest(flow_config(), [info], {entry(0).sha256: (entry(0).name, entry(0).source)}))
    return truth


@pytest.fixture(name="out")
def out_fixture(tmp_path) -> Path:
    build(tmp_path / "d")
    return tmp_path / "d"


# --- encoding ---


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32), st.sampled_from(["i2", "i4"]))
def test_a_flow_comes_back_within_half_a_step(height: int, width: int, seed: int, dtype: str):
    most = 511.9 if dtype == "i2" else 4000
    flow = rng.generator(seed, "codec").uniform(-most, most, (height, width, 2)).astype(np.float32)
    decoded = codec.decode_flow(codec.encode_flow(flow, dtype), flow.shape, dtype)
    assert decoded.dtype == np.float32
    assert np.abs(decoded - flow).max() <= FLOW_STEP / 2 + 1e-4 * (dtype == "i4")
    # What lies on a step is exact, and encoding it again gives the same bytes.
    again = codec.encode_flow(decoded, dtype)
    assert np.array_equal(codec.decode_flow(again, flow.shape, dtype), decoded)
    assert again == codec.encode_flow(decoded, dtype)


def test_an_affine_flow_costs_little():
    rows, columns = np.indices((256, 256))
    flow = np.stack([0.11 * columns - 0.2 * rows, 0.2 * columns + 7], axis=2).astype(np.float32)
    assert len(codec.encode_flow(flow, "i2")) < 256 * 256 * 4 / 8


def test_a_flow_that_cannot_be_stored_is_refused():
    flow = np.zeros((4, 4, 2), np.float32)
    for value in (np.nan, np.inf, 600.0, -600.0):
        flow[2, 1, 0] = value
        with pytest.raises(DatasetError, match=r"finite and within 511\.984 pixels"):
            codec.encode_flow(flow, "i2")
    with pytest.raises(DatasetError, match="must be f32"):
        codec.encode_flow(np.zeros((4, 4, 2)), "i2")
    with pytest.raises(DatasetError, match="must be u8"):
        codec.encode_visibility(np.zeros((4, 4, 1), np.uint8))


def test_a_damaged_flow_is_an_error():
    data = codec.encode_flow(np.zeros((4, 4, 2), np.float32), "i2")
    with pytest.raises(DatasetError, match="damaged"):
        codec.decode_flow(data[:-1], (4, 4, 2), "i2")
    with pytest.raises(DatasetError, match="64 bytes where"):
        codec.decode_flow(data, (4, 5, 2), "i2")


# --- shards ---


def test_reading_gives_back_what_was_written(out, tmp_path):
    truth = build(tmp_path / "again")
    data = Dataset(out)
    assert data.config.flow
    for sample, (posed, flow, visibility) in zip(data, truth, strict=True):
        assert sample.flow is not None
        assert sample.visibility is not None
        assert sample.flow.flags.writeable
        assert sample.visibility.flags.writeable
        assert np.array_equal(sample.flow, np.rint(flow / FLOW_STEP) * FLOW_STEP)
        assert np.array_equal(sample.visibility, visibility)
        assert np.array_equal(sample.posed, posed)


def test_plain_h5py_reads_it(out):
    samples: list[Any] = list(Dataset(out))
    with h5py.File(out / FILE) as shard:
        content: Any = shard
        assert content["flow"].dtype == np.int16
        assert content["flow"].attrs["columns"].tolist() == ["dx", "dy"]
        assert content.attrs["flow_step"] == 1 / 64
        for index, sample in enumerate(samples):
            flow = np.cumsum(content["flow"][index], axis=1, dtype=np.int16) * content.attrs["flow_step"]
            assert np.array_equal(flow, sample.flow)
            assert np.array_equal(content["visibility"][index], sample.visibility)


def test_without_flow_nothing_changes():
    plain = config()
    assert "flow" not in plain.to_json()
    assert DatasetConfig.from_json(plain.to_json()) == plain
    assert DatasetConfig.from_json(flow_config().to_json()) == flow_config()
    assert {spec.path for spec in fields(flow_config())} - {spec.path for spec in fields(plain)} == {
        "flow",
        "visibility",
    }
    builder = ShardBuilder(ShardHeader(plain, "train", 0))
    fill(builder, (0,))
    assert b"flow" not in builder.build()


def test_large_pictures_take_wider_integers():
    assert [flow_config(size).flow_dtype for size in (256, 512, 513, 4096)] == ["i2", "i2", "i4", "i4"]


def test_a_dataset_without_flow_has_none(tmp_path):
    builder = ShardBuilder(ShardHeader(config(), "train", 0))
    fill(builder, (0,))
    info = builder.write(tmp_path)
    with Shard(tmp_path / info.file) as shard:
        sample = shard.sample(0, 0)
        assert sample.flow is None
        assert sample.visibility is None
        with pytest.raises(DatasetError, match=r"has no flow; `mmdgen render --flow`"):
            shard.flow(0)


def test_a_sample_with_half_a_flow_is_refused():
    posed, flow, visibility = sample_of(0)
    for dataset, given_flow, given_visibility in (
        (flow_config(), None, None),
        (flow_config(), flow, None),
        (config(), flow, visibility),
    ):
        builder = ShardBuilder(ShardHeader(dataset, "train", 0))
        row = builder.add_model(entry(0), picture("rest"))
        with pytest.raises(DatasetError, match="flow and visibility are"):
            builder.add_sample(row, THA1.rest, posed, posed, given_flow, given_visibility)
        assert builder.samples == 0
    builder = ShardBuilder(ShardHeader(flow_config(), "train", 0))
    row = builder.add_model(entry(0), picture("rest"))
    with pytest.raises(DatasetError, match="a flow must be"):
        builder.add_sample(row, THA1.rest, posed, posed, flow[:-1], visibility)


# --- verification ---


def replace(out: Path, name: str, index: int, data: bytes) -> None:
    with h5py.File(out / FILE, "r+") as shard:
        dataset: Any = shard[name]
        dataset.id.write_direct_chunk((index, *[0] * (dataset.ndim - 1)), data)
    reseal(out)


def test_verify_passes_a_sound_dataset(out):
    report = verify_dataset(out)
    assert report.ok, told(report)
    assert report.images == 1 + 4 * 3
    assert verify_dataset(out, quick=True).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("above", "has a visibility above 2 in 1 pixels, first at row 0, column 1"),
        ("ghost", "moves where there is no surface in"),
        ("transparent", "has a surface where the posed image is mostly transparent in"),
        ("away", "leads out of the frame where it says visible in"),
    ],
)
def test_verify_finds_a_flow_that_contradicts_itself(out, change, message):
    posed, flow, visibility = sample_of(2)
    if change == "above":
        visibility[0, 1] = 3
    elif change == "ghost":
        visibility[0, 1], flow[0, 1] = 0, 1
    elif change == "transparent":
        visibility[posed[..., 3] < 128] = 1
    else:
        visibility[0, 1], flow[0, 1] = 2, (0, -2)
    replace(out, "flow", 2, codec.encode_flow(flow, "i2"))
    replace(out, "visibility", 2, codec.encode_visibility(visibility))
    assert f"flow[2] {message}" in told(verify_dataset(out))


@pytest.mark.parametrize("name", ["flow", "visibility"])
def test_verify_finds_what_cannot_be_decoded(out, name):
    replace(out, name, 3, zlib.compress(b"too short"))
    assert "flow[3] cannot be decoded" in told(verify_dataset(out, quick=True))


@pytest.mark.parametrize("name", ["flow", "visibility"])
def test_verify_finds_a_missing_table(out, name):
    with h5py.File(out / FILE, "r+") as shard:
        del shard[name]
    reseal(out)
    assert f"{name} is missing" in told(verify_dataset(out))


def test_verify_finds_flow_without_its_filter(out):
    with h5py.File(out / FILE, "r+") as shard:
        content: Any = shard
        values = content["flow"][:]
        del content["flow"]
        content.create_dataset("flow", data=values, chunks=(1, SIZE, SIZE, 2), compression="gzip")
    reseal(out)
    assert "flow has other filters" in told(verify_dataset(out))


# --- views ---


def test_card_and_sheet_show_flow(out):
    text = dataset_card(read_manifest(out))
    assert "| `flow` | i16 | [N, 16, 16, 2] |" in text
    assert "cumsum" in text
    assert "| `visibility` | u8 | [N, 16, 16] |" in text
    assert contact_sheet(out).startswith(b"\x89PNG")
