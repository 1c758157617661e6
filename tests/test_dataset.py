"""The codec, the shard writer, and that no damaged file ever appears."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
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
from dataset_fixtures import (
    LAYOUT,
    ROOT,
    SAMPLES,
    SIZE,
    built_fixture,  # noqa: F401  (pytest finds them here)
    config,
    entry,
    fill,
    picture,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen import rng
from mmdgen.dataset import codec, writer
from mmdgen.dataset.manifest import (
    make_manifest,
    read_manifest,
    write_manifest,
)
from mmdgen.dataset.reader import Dataset, Shard
from mmdgen.dataset.schema import (
    DatasetConfig,
    Parameter,
    ShardHeader,
    Vocabulary,
    fields,
    storable_text,
)
from mmdgen.dataset.verify import verify_dataset
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import TEMPORARY_MARK
from mmdgen.pose.vocabulary import THA1

# --- codec ---


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.booleans())
def test_codec_round_trip(height: int, width: int, seed: int, residual: bool):
    image, base = rng.generator(seed, "codec").integers(0, 256, (2, height, width, 4), dtype=np.uint8)
    encoded = codec.encode_image(image, base if residual else None)
    assert np.array_equal(codec.decode_image(encoded, image.shape, base if residual else None), image)
    raw = zlib.decompress(encoded)  # the container that HDF5's deflate filter expects
    assert raw == (image - base if residual else image).tobytes()


def test_codec_takes_views_and_returns_writable_arrays():
    image = picture("view", size=32)[::2, ::-2]
    decoded = codec.decode_image(codec.encode_image(image), (16, 16, 4))
    assert np.array_equal(decoded, image)
    assert decoded.flags.writeable


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:40], lambda d: b"", lambda d: d[:60] + bytes([d[60] ^ 1]) + d[61:]]
)
def test_codec_refuses_damaged_streams(damage):
    encoded = codec.encode_image(picture("x"))
    with pytest.raises(DatasetError, match="damaged image"):
        codec.decode_image(damage(encoded), (SIZE, SIZE, 4))


def test_codec_refuses_other_sizes_and_types():
    encoded = codec.encode_image(picture("x"))
    for shape in ((SIZE, SIZE + 1, 4), (SIZE, SIZE - 1, 4)):
        with pytest.raises(DatasetError, match=r"needs"):
            codec.decode_image(encoded, shape)
    with pytest.raises(DatasetError, match="u8"):
        codec.encode_image(np.zeros((4, 4, 4), np.float32))
    with pytest.raises(DatasetError, match="shape"):
        codec.encode_image(picture("x"), picture("y", size=8))


def test_an_image_always_gives_the_same_stream():
    """At any depth of the stack and on any thread: isal's plain compress does not keep to that (see codec.py)."""
    image = np.zeros((64, 64, 4), np.uint8)
    image[10:50, 10:50] = np.arange(40 * 40 * 4).reshape(40, 40, 4) % 251

    def nested(depth: int) -> bytes:
        return codec.encode_image(image) if depth == 0 else nested(depth - 1)

    expected = codec.encode_image(image)
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda number: nested(number % 200), range(2000)))
    assert found == {expected}


def test_find_fault():
    image = picture("fault")
    assert codec.find_fault(image) == ""
    image[3, 4] = (0, 0, 1, 0)
    assert "row 3, column 4: [0, 0, 1, 0]" in codec.find_fault(image)
    assert "empty" in codec.find_fault(np.zeros((4, 4, 4), np.uint8))
    assert codec.find_fault(np.full((4, 4, 4), (0, 0, 0, 1), np.uint8)) == ""


# --- writer ---


def test_shard_opens_with_plain_h5py(built):
    out, truth = built
    if read_manifest(out).config.codec == "zstd":
        pytest.importorskip("hdf5plugin", reason="HDF5's own way to read zstd")
    offset = 0
    for split, number, models in LAYOUT:
        if number == 0:
            offset = 0
        with h5py.File(out / split / f"shard-{number:05d}.h5", "r") as file:
            attributes: dict[str, Any] = dict(file.attrs)
            assert attributes["split"] == split
            assert attributes["shard"] == number
            assert list(attributes["pose_names"]) == list(THA1.names)
            assert attributes["pose_low"].tolist() == [-1, -1, -1, 0, 0, 0]
            assert attributes["pose_rest"].tolist() == THA1.rest.tolist()
            assert json.loads(attributes["config"])["settings"] == {"seed": 7, "ambient": [0.5, 1.2]}
            data: dict[str, Any] = {spec.path: file[spec.path] for spec in fields(config())}
            assert data["models/name"].asstr()[:].tolist() == [entry(m).name for m in models]
            assert data["models/terms"].asstr()[0] == "© somebody"
            assert data["models/head_bounds"][0].tolist() == [16.5, 20.25, 0.125]
            assert data["models/light"][0].tolist() == [0.5, 0.75]
            for index in range(len(models) * SAMPLES):
                expected = truth[split][offset + index]
                row = data["model"][index]
                rest, posed = data["models/rest"][row], data["posed"][index]
                if attributes.get("posed_encoding") == "planes":
                    rest, posed = codec.plain_pixels(rest), codec.plain_pixels(posed)
                expression = data["expression"][index]
                if attributes["expression_encoding"] == "residual":
                    expression = expression + rest
                assert np.array_equal(rest, expected["rest"])
                assert np.array_equal(expression, expected["expression"])
                assert np.array_equal(posed, expected["posed"])
                assert np.array_equal(data["pose"][index], expected["pose"])
                assert data["models/sha256"].asstr()[row] == expected["sha256"]
            offset += len(models) * SAMPLES


def test_images_encoded_on_threads_give_the_same_shard():
    header = ShardHeader(config("residual"), "train", 0)
    inline = ShardBuilder(header)
    fill(inline, (0,))
    threaded = ShardBuilder(header)
    rest = picture("rest", 0)
    row = threaded.add_model(entry(0), codec.encode_image(rest))
    keys = [("train", 0, 0, index) for index in range(SAMPLES)]
    with ThreadPoolExecutor(2) as pool:
        expressions = list(pool.map(lambda key: codec.encode_image(picture("expression", *key), rest), keys))
        posed = list(pool.map(lambda key: codec.encode_image(picture("posed", *key)), keys))
    low, high = np.array([(p.low, p.high) for p in THA1.parameters], np.float32).T
    for key, first, second in zip(keys, expressions, posed, strict=True):
        pose = (low + (high - low) * rng.generator(4, *key).random(6, np.float32)).astype(np.float32)
        threaded.add_sample(row, pose, first, second)
    assert threaded.build() == inline.build()


def test_builders_in_threads_do_not_disturb_each_other():
    def one(number: int) -> bytes:
        builder = ShardBuilder(ShardHeader(config(), "train", number))
        fill(builder, (number,))
        return builder.build()

    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(one, range(12)))
    assert parallel == [one(number) for number in range(12)]


def test_shard_bytes_are_the_same_in_another_process_at_another_time():
    program = textwrap.dedent(
        f"""
        import hashlib, sys, time
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        import dataset_fixtures as t
        time.sleep(1.1)  # HDF5 stores times in whole seconds
        header = t.ShardHeader(t.config("residual"), "train", 0, "p")
        other = t.ShardBuilder(header); t.fill(other, (5, 6)); other.build()
        builder = t.ShardBuilder(header); t.fill(builder, (0, 1)); print(hashlib.sha256(builder.build()).hexdigest())
        """
    )
    builder = ShardBuilder(ShardHeader(config("residual"), "train", 0, "p"))
    fill(builder, (0, 1))
    expected = hashlib.sha256(builder.build()).hexdigest()
    for perturbation in ("85", "170"):  # glibc fills fresh memory with it: nothing uninitialised may reach the file
        environment = {
            **os.environ,
            "MALLOC_PERTURB_": perturbation,
            "PYTHONHASHSEED": perturbation,
            "TZ": "Asia/Tokyo",
        }
        found = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == expected


def test_writer_refuses_what_would_be_a_broken_shard(monkeypatch):
    builder = ShardBuilder(ShardHeader(config(), "train", 0))
    row = builder.add_model(entry(0), picture("rest"))
    image = picture("x")
    with pytest.raises(DatasetError, match="twice"):
        builder.add_model(entry(0), picture("rest"))
    with pytest.raises(DatasetError, match="no model 1"):
        builder.add_sample(1, THA1.rest, image, image)
    for name, value in (("head_x", 1.01), ("mouth", -0.01), ("neck_z", np.nan), ("left_eye", np.inf)):
        pose = THA1.rest
        pose[THA1.index(name)] = value
        with pytest.raises(DatasetError, match=name):
            builder.add_sample(row, pose, image, image)
    with pytest.raises(DatasetError, match="6 values"):
        builder.add_sample(row, np.zeros(5, np.float32), image, image)
    with pytest.raises(DatasetError, match=r"\[16, 16, 4\]"):
        builder.add_sample(row, THA1.rest, image[:8], image)
    assert builder.samples == 0
    monkeypatch.setattr(writer, "MAX_ENCODED_BYTES", 5000)
    while builder.encoded_bytes < 4000:
        builder.add_sample(row, THA1.rest, image, image)
    with pytest.raises(DatasetError, match="fewer samples"):
        builder.add_sample(row, THA1.rest, image, image)


def test_odd_names_are_stored_visibly(tmp_path):
    builder = ShardBuilder(ShardHeader(config(), "train", 0))
    odd = dataclasses.replace(entry(0), name="a\0b", source="dir\udc81", terms="ü" * 70000)
    builder.add_sample(builder.add_model(odd, picture("rest")), THA1.rest, picture("e"), picture("p"))
    info = builder.write(tmp_path)
    with Shard(tmp_path / info.file) as shard:
        assert shard.models[0].name == "a\\x00b"
        assert shard.models[0].source == "dir\\udc81"
        assert shard.models[0].terms == "ü" * 70000
    write_manifest(tmp_path, make_manifest(config(), [info], {odd.sha256: (odd.name, odd.source)}))
    assert verify_dataset(tmp_path).ok


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec=None), max_size=20))
def test_storable_text_can_be_stored_and_keeps_ordinary_text(text: str):
    stored = storable_text(text)
    stored.encode("utf-8")
    assert "\0" not in stored
    assert stored == text or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)


def test_an_empty_shard_is_a_valid_one(tmp_path):
    info = ShardBuilder(ShardHeader(config(), "train", 0)).write(tmp_path)
    assert (info.samples, info.models) == (0, 0)
    write_manifest(tmp_path, make_manifest(config(), [info], {}))
    assert verify_dataset(tmp_path).ok
    assert len(Dataset(tmp_path)) == 0
    with pytest.raises(IndexError):
        Dataset(tmp_path)[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"expression_encoding": "delta"},
        {"codec": "lz4"},
        {"settings": {"x": float("nan")}},
        {"settings": {"x": object()}},
        {"vocabulary": Vocabulary("none", ())},
    ],
)
def test_config_refuses_nonsense(wrong):
    with pytest.raises(ConfigError):
        dataclasses.replace(config(), **wrong)


def test_config_survives_json():
    other = DatasetConfig(Vocabulary("v", (Parameter("a", -0.1, 0.3, 0.2, "ü"),)), 64, settings={"k": [1, None, "x"]})
    assert DatasetConfig.from_json(json.loads(other.json_text())) == other


# --- no damaged file appears ---


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    builder = ShardBuilder(ShardHeader(config(), "train", 0))
    fill(builder, (0,))
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DatasetError, match="disk is full"):
        builder.write(tmp_path)
    assert list((tmp_path / "train").iterdir()) == []
    monkeypatch.undo()
    assert builder.write(tmp_path).samples == SAMPLES  # the same builder goes on once there is space


def test_full_disk_keeps_the_old_file(built, tmp_path, monkeypatch):
    out = Path(shutil.copytree(built[0], tmp_path / "d"))
    before = (out / "manifest.json").read_bytes()
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DatasetError, match="disk is full"):
        write_manifest(out, read_manifest(out))
    monkeypatch.undo()
    assert (out / "manifest.json").read_bytes() == before
    assert verify_dataset(out).ok


def test_a_disk_that_is_really_full(tmp_path):
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if os.name == "nt" or os.geteuid() != 0 or mount is None or unmount is None:
        pytest.skip("mounting a small file system needs root and mount")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        builder = ShardBuilder(ShardHeader(config(), "train", 0))
        rest = builder.add_model(entry(0), picture("rest"))
        for index in range(60):  # about 90 kB
            builder.add_sample(rest, THA1.rest, picture("e", index), picture("p", index))
        with pytest.raises(DatasetError, match="disk is full"):
            builder.write(small)
        assert list((small / "train").iterdir()) == []
    finally:
        subprocess.run([unmount, small], check=True)


def test_a_killed_writer_leaves_whole_shards_only(tmp_path):
    """SIGKILL between the bytes and the rename: the temporary file is there, the shard is not, and verify says so."""
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
        from pathlib import Path
        import dataset_fixtures as t
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        builder = t.ShardBuilder(t.ShardHeader(t.config(), "train", 0)); t.fill(builder, (0, 1))
        builder.write(Path(sys.argv[1]))
        """
    )
    out = tmp_path / "d"
    killed = subprocess.run([sys.executable, "-c", program, out], capture_output=True)
    assert killed.returncode == -9
    assert [path.name.partition(TEMPORARY_MARK)[0] for path in (out / "train").iterdir()] == ["shard-00000.h5"]
    assert not (out / "train/shard-00000.h5").exists()
    builder = ShardBuilder(ShardHeader(config(), "train", 0))
    fill(builder, (0, 1))
    info = builder.write(out)
    names = {entry(m).sha256: (entry(m).name, entry(m).source) for m in (0, 1)}
    write_manifest(out, make_manifest(config(), [info], names))
    report = verify_dataset(out)
    assert ["temporary" in problem.what for problem in report.problems] == [True]
