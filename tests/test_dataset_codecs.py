"""Every codec with every encoding: round trips, damage, equal bytes, other readers, and the files that they lie in."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zstandard
from click.testing import CliRunner
from dataset_fixtures import (
    ROOT,
    SIZE,
    WAYS,
    build_dataset,
    config,
    entry,
    fill,
    picture,
    replace_chunk,
    reseal,
    same,
    told,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen import rng
from mmdgen.cli.main import cli
from mmdgen.dataset import codec, codec_streams
from mmdgen.dataset.manifest import make_manifest, read_manifest, write_manifest
from mmdgen.dataset.open_shard import KeptImages
from mmdgen.dataset.reader import Dataset, Shard
from mmdgen.dataset.schema import CODECS, FLOW_STEP, DatasetConfig, ShardHeader, fields
from mmdgen.dataset.verify import verify_dataset
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.generate.options import RenderOptions, command_line
from mmdgen.generate.plan import ESTIMATED_BYTES
from mmdgen.pose.vocabulary import THA1

FILE = "train/shard-00000.h5"


@pytest.fixture(name="ways", scope="module")
def ways_fixture(tmp_path_factory) -> dict[str, tuple[Path, dict[str, list[dict[str, Any]]]]]:
    """The same dataset, stored in every way."""
    folder = tmp_path_factory.mktemp("ways")
    return {way: (folder / way, build_dataset(folder / way, way)) for way in WAYS}


@pytest.fixture(name="zipped")
def zipped_fixture(ways, tmp_path) -> Path:
    """A copy of the dataset with zstd and planes that a test may damage."""
    return Path(shutil.copytree(ways["zstd-compact"][0], tmp_path / "d"))


# --- images to bytes and back ---


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from(CODECS), st.booleans(), st.booleans()
)
def test_images_come_back(height: int, width: int, seed: int, name: str, planes: bool, residual: bool):
    image, base = rng.generator(seed, "codecs").integers(0, 256, (2, height, width, 4), dtype=np.uint8)
    how: dict[str, Any] = {"codec": name, "planes": planes}
    encoded = codec.encode_image(image, base if residual else None, **how)
    assert np.array_equal(codec.decode_image(encoded, image.shape, base if residual else None, **how), image)
    place = np.full((3, height, width, 4), 7, np.uint8)
    assert codec.decode_image(encoded, image.shape, base if residual else None, **how, out=place[1]).base is place
    assert np.array_equal(place[1], image)
    assert (place[[0, 2]] == 7).all()
    # what is in the chunk, by other programs and the documented lines
    raw = zlib.decompress(encoded) if name == "deflate" else zstandard.ZstdDecompressor().decompress(encoded)
    stored = np.frombuffer(raw, np.uint8)
    plain = codec.plain_pixels(stored.reshape(4, height, width)) if planes else stored.reshape(image.shape)
    assert np.array_equal(plain + base if residual else plain, image)


def test_planes_are_what_the_documentation_says():
    image = picture("planes").astype(int)
    red, green, blue, alpha = np.moveaxis(image, 2, 0)
    expected = np.stack([red - green, green, blue - green, alpha])
    expected[:, 1:] -= expected[:, :-1].copy()
    stored = np.frombuffer(zlib.decompress(codec.encode_image(image.astype(np.uint8), planes=True)), np.uint8)
    assert np.array_equal(stored.reshape(4, SIZE, SIZE), expected % 256)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 2**32),
    st.sampled_from(CODECS),
    st.sampled_from(["i2", "i4"]),
)
def test_flows_come_back(height: int, width: int, seed: int, name: str, dtype: str):
    limit = np.iinfo(dtype).max if dtype == "i2" else 2**24  # f32 holds integers up to there
    steps = rng.generator(seed, "flows").integers(-limit, limit + 1, (height, width, 2))
    steps[0, 0] = limit, -limit
    flow = (steps * FLOW_STEP).astype(np.float32)
    decoded = codec.decode_flow(codec.encode_flow(flow, dtype, name), flow.shape, dtype, name)
    assert np.array_equal(decoded, flow)
    visibility = (steps[..., 0] % 3).astype(np.uint8)
    encoded = codec.encode_visibility(visibility, name)
    assert np.array_equal(codec.decode_visibility(encoded, visibility.shape, name), visibility)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(CODECS), st.booleans())
def test_a_damaged_stream_never_gives_another_image(data, name: str, planes: bool):
    image = picture("damage", data.draw(st.integers(0, 3)))
    encoded = bytearray(codec.encode_image(image, codec=name, planes=planes))
    if data.draw(st.booleans()):
        del encoded[data.draw(st.integers(0, len(encoded) - 1)) :]
    else:
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = image  # a bit that the format does not use gives the same image
    with contextlib.suppress(DatasetError):
        found = codec.decode_image(bytes(encoded), image.shape, codec=name, planes=planes)
    assert np.array_equal(found, image)


def test_zstd_frames_are_of_the_right_size_and_alone():
    encoded = codec.encode_image(picture("x"), codec="zstd")
    for shape in ((SIZE, SIZE + 1, 4), (SIZE, SIZE - 1, 4)):
        with pytest.raises(DatasetError, match="where it needs"):
            codec.decode_image(encoded, shape, codec="zstd")
    for more in (b"x", encoded):
        with pytest.raises(DatasetError, match="damaged"):
            codec.decode_image(encoded + more, (SIZE, SIZE, 4), codec="zstd")
    huge = zstandard.ZstdCompressor().compress(bytes(1 << 24))
    with pytest.raises(DatasetError, match="a frame of 16777216 bytes"):
        codec.decode_image(huge, (SIZE, SIZE, 4), codec="zstd")
    frame = zstandard.get_frame_parameters(encoded)
    assert frame.has_checksum
    assert frame.content_size == SIZE * SIZE * 4


@pytest.mark.parametrize("planes", [False, True])
def test_zstd_gives_equal_bytes_whatever_was_compressed_before(planes):
    images = [picture("equal", number, size=64) for number in range(4)]
    images.append(np.zeros((64, 64, 4), np.uint8))
    expected = [
        zstandard.ZstdCompressor(level=codec_streams.level_of("zstd", planes), write_checksum=True).compress(
            zlib.decompress(codec.encode_image(image, planes=planes))
        )
        for image in images
    ]
    order = rng.generator(0, "order").integers(0, len(images), 400).tolist()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: codec.encode_image(images[n], codec="zstd", planes=planes), order))
    assert found == [expected[number] for number in order]


# --- shards ---


def test_every_way_holds_the_same_samples(ways):
    for way, (out, truth) in ways.items():
        for split, expected in truth.items():
            found = Dataset(out, split, max_open=1)
            order = rng.generator(1, way, split).permutation(len(expected)).tolist()
            assert all(same(found[index], expected[index]) for index in order), way
        assert verify_dataset(out).problems == ()
        version = 1 if way in ("plain", "residual") else 2
        with h5py.File(out / FILE) as file:
            assert file.attrs["schema_version"] == version
            assert ("posed_encoding" in file.attrs) == ("compact" in way)


def test_datasets_without_new_options_say_nothing_new():
    value = config("residual").to_json()
    assert sorted(value) == ["codec", "expression_encoding", "image_size", "settings", "vocabulary"]
    assert DatasetConfig.from_json(config("zstd-compact").to_json()) == config("zstd-compact")


def test_hdf5plugin_opens_zstd(ways):
    pytest.importorskip("hdf5plugin", reason="HDF5's own way to read zstd")
    out, truth = ways["zstd"]
    with h5py.File(out / FILE) as file:
        data: dict[str, Any] = {name: file[name] for name in ("posed", "expression", "models/rest", "model")}
        assert data["posed"].id.get_create_plist().get_filter(0) == (32015, 1, (3,), b"zstd")
        for index, expected in enumerate(truth["train"][:6]):
            assert np.array_equal(data["posed"][index], expected["posed"])
            assert np.array_equal(data["expression"][index], expected["expression"])
            assert np.array_equal(data["models/rest"][data["model"][index]], expected["rest"])


def test_zstd_shards_have_the_same_bytes_in_any_process():
    """Whether HDF5 knows the filter (and its name) or not, and whatever is in fresh memory."""
    program = textwrap.dedent(
        f"""
        import hashlib, sys
        if "plugin" in sys.argv: import hdf5plugin
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        import dataset_fixtures as t
        header = t.ShardHeader(t.config("zstd-compact"), "train", 0, "p")
        other = t.ShardBuilder(header); t.fill(other, (5, 6)); other.build()
        builder = t.ShardBuilder(header); t.fill(builder, (0, 1)); print(hashlib.sha256(builder.build()).hexdigest())
        """
    )
    builder = ShardBuilder(ShardHeader(config("zstd-compact"), "train", 0, "p"))
    fill(builder, (0, 1))
    expected = hashlib.sha256(builder.build()).hexdigest()
    pytest.importorskip("hdf5plugin", reason="one of the processes imports it")
    for argument, perturbation in (("none", "85"), ("plugin", "170")):
        environment = {**os.environ, "MALLOC_PERTURB_": perturbation, "PYTHONHASHSEED": perturbation}
        command = [sys.executable, "-c", program, argument]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_mmdgen_reads_zstd_without_hdf5plugin(ways):
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        import h5py
        from mmdgen.dataset.reader import Dataset
        from mmdgen.dataset.verify import verify_dataset
        assert verify_dataset(sys.argv[1]).ok and Dataset(sys.argv[1])[0].posed.any()
        assert not h5py.h5z.filter_avail(32015) and "hdf5plugin" not in sys.modules
        """
    )
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PATH"}
    out = ways["zstd-compact"][0]
    done = subprocess.run([sys.executable, "-c", program, out], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_empty_zstd_shard_is_a_valid_one(tmp_path):
    made = config("zstd-compact")
    info = ShardBuilder(ShardHeader(made, "train", 0)).write(tmp_path)
    write_manifest(tmp_path, make_manifest(made, [info], {}))
    assert verify_dataset(tmp_path).ok
    assert len(Dataset(tmp_path)) == 0


@pytest.mark.parametrize("name", CODECS)
def test_flow_with_every_codec(tmp_path, name):
    made = dataclasses.replace(config("compact"), codec=name, flow=True)
    builder = ShardBuilder(ShardHeader(made, "train", 0))
    row = builder.add_model(entry(0), picture("rest"))
    flow = np.zeros((3, SIZE, SIZE, 2), np.float32)
    flow[:, 2:5, 3:9] = rng.generator(2, "flow").integers(-120, 120, (3, 3, 6, 2)) / 64
    visibility = (flow != 0).any(axis=3).astype(np.uint8)
    posed = [picture("posed", index) for index in range(3)]
    for index in range(3):
        posed[index][visibility[index] > 0] = 255
        builder.add_sample(row, THA1.rest, picture("e", index), posed[index], flow[index], visibility[index])
    info = builder.write(tmp_path)
    write_manifest(tmp_path, make_manifest(made, [info], {entry(0).sha256: (entry(0).name, entry(0).source)}))
    assert verify_dataset(tmp_path).problems == ()
    for index, sample in enumerate(Dataset(tmp_path)):
        assert sample.flow is not None
        assert sample.visibility is not None
        assert np.array_equal(sample.flow, flow[index])
        assert np.array_equal(sample.visibility, visibility[index])
        assert np.array_equal(sample.posed, posed[index])
    with (
        Shard(tmp_path / FILE) as shard,
        pytest.raises(DatasetError, match=r"flow\[3\] cannot be read: there is no row"),
    ):
        shard.flow(3)
    with pytest.raises(DatasetError, match="either both"):
        builder.add_sample(row, THA1.rest, picture("e"), posed[0], flow[0], b"encoded")


# --- damage ---


def test_damaged_zstd_chunks_are_errors(zipped):
    good = codec.encode_image(picture("other"), codec="zstd", planes=True)
    for index, data in enumerate((b"?", b"nonsense", good[:-3], good[:40] + bytes([good[40] ^ 16]) + good[41:])):
        replace_chunk(zipped, FILE, "posed", index, data)
    replace_chunk(
        zipped, FILE, "models/rest", 1, codec.encode_image(picture("small", size=8), codec="zstd", planes=True)
    )
    reseal(zipped)
    dataset = Dataset(zipped)
    shard, _ = dataset.locate(0)
    for index in range(4):
        with pytest.raises(DatasetError, match=rf"posed\[{index}\] cannot be read: a damaged image"):
            shard.posed(index)
    with pytest.raises(DatasetError, match=r"models/rest\[1\] cannot be read: .*a frame of 256 bytes"):
        dataset[5]
    text = told(verify_dataset(zipped))
    assert "posed[0] cannot be decoded" in text
    assert "models/rest[1] cannot be decoded" in text


def test_a_chunk_that_was_never_written_is_an_error(zipped):
    with h5py.File(zipped / FILE, "r+") as file:
        posed: Any = file["posed"]
        plist, shape = posed.id.get_create_plist(), posed.shape
        chunks = [posed.id.read_direct_chunk((index, 0, 0, 0))[1] for index in range(len(posed))]
        del file["posed"]
        made = file.create_dataset("posed", shape, "u1", dcpl=plist)
        for index, data in enumerate(chunks[:-2]):
            made.id.write_direct_chunk((index, 0, 0, 0), data)
        made.id.write_direct_chunk((len(chunks) - 2, 0, 0, 0), chunks[-2], filter_mask=1)
    reseal(zipped)
    dataset = Dataset(zipped)
    assert dataset[0].posed.any()
    for index in (len(chunks) - 2, len(chunks) - 1):
        with pytest.raises(DatasetError, match="missing, or stored without its codec"):
            dataset[index]
    assert "cannot be decoded: it is missing" in told(verify_dataset(zipped))


def test_verify_knows_the_filters(zipped):
    """Chunks that are what another codec stores, under its filter."""
    with h5py.File(zipped / FILE, "r+") as file:
        shape = (6, 4, SIZE, SIZE)
        del file["posed"]
        made = file.create_dataset("posed", shape, "u1", chunks=(1, *shape[1:]), compression="gzip")
        made[...] = 1
    reseal(zipped)
    assert "posed has other filters: expected zstd, found deflate" in told(verify_dataset(zipped))


def test_a_file_that_changes_while_it_is_in_use_is_an_error(ways, tmp_path):
    out = Path(shutil.copytree(ways["compact"][0], tmp_path / "d"))
    dataset = Dataset(out, max_open=1)
    assert dataset[0].posed.any()
    assert dataset[7].posed.any()  # closes the first file
    content = bytearray((out / FILE).read_bytes())
    (out / FILE).write_bytes(content)  # the same again, but who knows
    with pytest.raises(DatasetError, match=r"shard-00000\.h5: the file was changed while it was in use"):
        dataset[0]
    dataset = Dataset(out, max_open=1)
    assert dataset[0].posed.any()
    os.truncate(out / FILE, 2000)
    with pytest.raises(DatasetError, match="the file ends after"):
        dataset[0]


# --- ways of reading ---


def test_reading_through_hdf5_where_files_cannot_be_read_directly(ways, monkeypatch):
    monkeypatch.delattr(os, "pread")
    for way in ("residual", "zstd-compact"):
        out, truth = ways[way]
        dataset = Dataset(out, max_open=1)
        assert all(same(dataset[index], truth["train"][index]) for index in (8, 0, 14, 1, -1))
        shard, _ = dataset.locate(0)
        assert shard.keeps_file
        for name in ("rest", "posed"):
            with pytest.raises(DatasetError, match="there is no row 99"):
                getattr(shard, name)(99)
        shard.close()
        with pytest.raises(DatasetError, match="was closed"):
            shard.posed(0)


def test_shards_are_opened_once_and_files_again(ways, monkeypatch):
    out, truth = ways["zstd-compact"]
    opened = []
    original = Shard.__init__
    monkeypatch.setattr(Shard, "__init__", lambda self, path, **how: opened.append(path) or original(self, path, **how))
    dataset = Dataset(out, max_open=1)
    for index in (0, 8, 14, 1, 7, 13, 2):
        assert same(dataset[index], truth["train"][index])
    assert len(opened) == len(set(opened)) == 3


def test_a_shard_that_is_released_can_be_read_and_held_again(ways):
    out, truth = ways["zstd"]
    with Shard(out / FILE) as shard:
        for step in (shard.release, shard.release, shard.hold, shard.hold):
            step()
            assert np.array_equal(shard.posed(2), truth["train"][2]["posed"])
        with pytest.raises(DatasetError, match=r"posed\[-1\] cannot be read: there is no row"):
            shard.posed(-1)
    with pytest.raises(DatasetError, match="was closed"):
        shard.posed(2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 6))
def test_kept_images_are_those_used_last(keys: list[int], room: int):
    kept = KeptImages(room * 16)
    order: list[int] = []
    for key in keys:
        made = []
        image = kept.get(("x", key), lambda key=key, made=made: made.append(1) or np.full((2, 2, 4), key, np.uint8))
        assert (image == key).all()
        assert bool(made) == (key not in order)
        order = [*[other for other in order if other != key], key][-max(1, room) :]


# --- options ---


def test_codec_and_compact_in_the_plan():
    before = RenderOptions(poses={"train": 5})
    assert "codec" not in before.to_json()
    after = dataclasses.replace(before, codec="zstd", compact=True)
    assert after.to_json()["codec"] == "zstd"
    for options in (before, after):
        assert RenderOptions.from_json(options.to_json()).to_json() == options.to_json()
        assert RenderOptions.from_json(options.to_json()).codec == options.codec
    assert [words for words in before.differences(after) if words.startswith("--codec")]
    assert command_line(after) == "mmdgen render --models DIR --poses 5 --compact --codec zstd"
    made = after.dataset_config()
    assert (made.codec, made.expression_encoding, made.posed_encoding) == ("zstd", "residual", "planes")
    assert before.dataset_config().schema_version == 1
    assert set(ESTIMATED_BYTES) == {(name, compact) for name in CODECS for compact in (False, True)}
    with pytest.raises(ConfigError, match="codec must be one of deflate, zstd"):
        dataclasses.replace(before, codec="lz4")


def test_without_zstandard_there_is_one_clear_error(ways, tmp_path, monkeypatch):
    monkeypatch.setattr(codec_streams, "find_spec", lambda name: None)
    out = ways["zstd"][0]
    message = "need the package zstandard: pip install zstandard"
    for use in (
        lambda: Dataset(out),
        lambda: Shard(out / FILE),
        lambda: ShardBuilder(ShardHeader(config("zstd"), "train", 0)),
    ):
        with pytest.raises(ConfigError, match=message):
            use()
    assert len(Dataset(ways["compact"][0])) > 0
    for command in (
        ["render", "--poses", "4", "--codec", "zstd", "--out", str(tmp_path / "new")],
        ["preview", str(out), "--out", str(tmp_path / "x.png")],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 1
        assert message in result.stderr + str(result.exception)  # which main() says in one line
        assert isinstance(result.exception, SystemExit | ConfigError)
    assert not (tmp_path / "new").exists()


def test_help_and_plain_reading_do_without_numba(ways):
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        import mmdgen.cli.main
        from mmdgen.dataset.reader import Dataset
        assert all(Dataset(path)[0].posed.any() for path in sys.argv[1:])
        assert "numba" not in sys.modules
        """
    )
    command = [sys.executable, "-c", program, ways["residual"][0], ways["zstd"][0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_read_manifest_of_every_way(ways):
    assert {way: read_manifest(out).config for way, (out, _) in ways.items()} == {way: config(way) for way in WAYS}
    for way in WAYS:
        shapes = {spec.path: spec.shape for spec in fields(config(way))}
        assert shapes["posed"] == shapes["models/rest"]
        assert shapes["posed"] == ((4, SIZE, SIZE) if "compact" in way else (SIZE, SIZE, 4))
        assert shapes["expression"] == (SIZE, SIZE, 4)


# --- the benchmark ---


def test_the_storage_benchmark_measures_every_way(ways, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    storage: Any = importlib.import_module("storage")
    options = argparse.Namespace(samples=5, repeats=2, seconds=60.0, only="")
    result = storage.measure(ways["plain"][0], tmp_path, options, "random pictures")
    rows = {row["way"]: row for row in result["results"]}
    assert list(rows) == [*storage.WAYS, *storage.PEERS]
    assert all(row["images_per_second"]["encode"]["median"] > 0 for row in rows.values())
    assert all({"sample", "image"} <= set(rows[way]["images_per_second"]) for way in storage.WAYS)
    assert result["machine"]["packages"]["h5py"] == h5py.__version__
    found = storage.kinds([[1024], [2048, 4096], [1024]], 10.0)
    assert (found["rest"], found["expression"], found["posed"]) == (1, 3, 1)
    assert found["gb_a_million"] == pytest.approx((7_881 * 1024 + 500_000 * (4 * 1024 + 10)) / 1e9)
    assert found["mean"] * 1024 * 1_007_881 / 1e9 == pytest.approx(found["gb_a_million"])
