"""The manifest and the reader."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_fixtures import (  # noqa: F401  (pytest finds them here)
    LAYOUT,
    ROOT,
    SAMPLES,
    built_fixture,
    config,
    damaged_fixture,
    entry,
    replace_chunk,
    reseal,
    same,
)

from mmdgen import rng
from mmdgen.dataset.manifest import (
    make_manifest,
    read_manifest,
    write_manifest,
)
from mmdgen.dataset.reader import Dataset, Shard
from mmdgen.dataset.schema import (
    ShardInfo,
)
from mmdgen.errors import DatasetError

# --- manifest ---


def test_manifest_round_trip_and_content(built):
    out, truth = built
    manifest = read_manifest(out)
    content = (out / "manifest.json").read_bytes()
    assert write_manifest(out, manifest).read_bytes() == content
    value = json.loads(content)
    for split, samples in truth.items():
        assert value["splits"][split]["samples"] == len(samples) == manifest.samples(split)
        assert value["splits"][split]["models"] == len({sample["sha256"] for sample in samples})
    shard = value["splits"]["train"]["shards"][0]
    assert shard["file"] == "train/shard-00000.h5"
    assert shard["sha256"] == hashlib.sha256((out / shard["file"]).read_bytes()).hexdigest()
    assert shard["bytes"] == (out / shard["file"]).stat().st_size
    assert [m.samples for m in manifest.models if m.sha256 == entry(1).sha256] == [2 * SAMPLES]
    assert str(out.parent).encode() not in content


def test_manifest_refuses_a_model_in_two_splits():
    shards = [ShardInfo(f"{split}/shard-00000.h5", "0" * 64, 1, {"a" * 64: 1}) for split in ("train", "test")]
    with pytest.raises(DatasetError, match="train and test"):
        make_manifest(config(), shards, {"a" * 64: ("a", "a")})


def test_missing_manifest_says_what_to_do(damaged, tmp_path):
    (damaged / "manifest.json").unlink()
    with pytest.raises(DatasetError, match=r"not finished.*same render command again"):
        read_manifest(damaged)
    with pytest.raises(DatasetError, match="not a dataset"):
        read_manifest(tmp_path)
    with pytest.raises(DatasetError, match="no such"):
        Dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("config"), "'config' is missing"),
        (lambda v: v.update(schema_version=3), "schema version 3"),
        (lambda v: v.update(schema="else"), "not part of an mmdgen dataset"),
        (lambda v: v["splits"]["train"].update(samples=99), "99"),
        (lambda v: v["splits"]["train"]["shards"][0].update(samples=99), "99"),
        (lambda v: v["splits"]["train"]["shards"][0].update(file="../../etc/passwd"), "not a file in train"),
        (lambda v: v["splits"]["train"]["shards"][0].update(file="test/shard-00000.h5"), "not a file in train"),
        (lambda v: v["splits"].update(extra={}), "unknown split"),
        (lambda v: v.update(models=3), "damaged"),
        (lambda v: v["config"].update(codec="lz4"), "codec"),
    ],
)
def test_damaged_manifest_is_one_clear_error(damaged, change, message):
    value = json.loads((damaged / "manifest.json").read_bytes())
    change(value)
    (damaged / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(DatasetError, match=message):
        read_manifest(damaged)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe"])
def test_manifest_that_is_no_json_object(damaged, content):
    (damaged / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match="damaged"):
        read_manifest(damaged)


# --- reader ---


def test_reader_gives_back_every_sample(built):
    out, truth = built
    for split, expected in truth.items():
        dataset = Dataset(out, split, max_open=1)
        assert len(dataset) == len(expected)
        assert [sample.index for sample in dataset] == list(range(len(expected)))
        assert all(same(sample, e) for sample, e in zip(dataset, expected, strict=True))
        assert all(same(dataset[i], expected[i]) for i in range(-len(expected), 0))
        assert np.array_equal(dataset.poses(), [e["pose"] for e in expected])
        with pytest.raises(IndexError):
            dataset[len(expected)]
        with pytest.raises(IndexError):
            dataset[-len(expected) - 1]


def test_reader_slices_like_a_list(built):
    out, truth = built
    dataset = Dataset(out)
    numbers = list(range(len(truth["train"])))
    for part in (slice(2, 9), slice(None, None, -4), slice(-3, None), slice(5, 5), slice(1, 100, 3)):
        view = dataset[part]
        assert [sample.index for sample in view] == numbers[part]
        assert [sample.index for sample in view[1:3]] == numbers[part][1:3]
        assert np.array_equal(view.poses(), np.array([truth["train"][n]["pose"] for n in numbers[part]]).reshape(-1, 6))


def test_samples_are_the_callers_own(built):
    out, truth = built
    dataset = Dataset(out)
    for name in ("rest", "expression", "posed", "pose"):
        getattr(dataset[1], name)[...] = 0
    assert same(dataset[1], truth["train"][1])


def test_reader_pickles_without_its_files(built):
    out, truth = built
    dataset = Dataset(out)
    assert same(dataset[0], truth["train"][0])
    copy = pickle.loads(pickle.dumps(dataset[2:]))
    assert same(copy[0], truth["train"][2])
    assert same(dataset[3], truth["train"][3])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_reader_keeps_few_files_open(built):
    def open_shards() -> int:
        links = []
        for link in Path("/proc/self/fd").iterdir():
            try:
                links.append(str(link.readlink()))
            except OSError:  # the folder's own handle is gone by now
                continue
        return sum(str(built[0]) in link and link.endswith(".h5") for link in links)

    before = open_shards()
    dataset = Dataset(built[0], max_open=2)
    assert open_shards() == before  # nothing is opened before it is needed
    for _ in dataset:
        assert open_shards() <= before + 2
    assert open_shards() == before + 2
    del dataset
    assert open_shards() == before


def test_reader_in_threads(built):
    out, truth = built
    dataset = Dataset(out, max_open=1)  # files are dropped while other threads read from them
    order = rng.generator(0, "threads").integers(0, len(dataset), 80).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda index: same(dataset[index], truth["train"][index]), order))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_reader_after_a_fork(built):
    """Children use a dataset that the parent has open files of, while the parent goes on reading."""
    program = textwrap.dedent(
        """
        import hashlib, os, sys
        from mmdgen.dataset.reader import Dataset
        def digest(dataset, times=1):
            found = hashlib.sha256()
            for _ in range(times):
                for sample in dataset:
                    for array in (sample.rest, sample.expression, sample.posed, sample.pose):
                        found.update(array.tobytes())
            return found.digest()
        expected = digest(Dataset(sys.argv[1]), 6)
        dataset = Dataset(sys.argv[1], max_open=2)
        dataset[4], dataset[-1]
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if digest(dataset, 6) == expected else 1)
            children.append(child)
        good = digest(dataset, 6) == expected
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.exit(0 if good and codes == [0, 0, 0] else f"parent {good}, children {codes}")
        """
    )
    done = subprocess.run([sys.executable, "-c", program, built[0]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_shard_is_an_error_and_never_zeros(damaged):
    dataset = Dataset(damaged)
    (damaged / "train/shard-00001.h5").unlink()
    assert dataset[0].posed.any()
    with pytest.raises(DatasetError, match=r"shard-00001\.h5: the shard is missing"):
        dataset[7]
    with pytest.raises(DatasetError, match=r"shard-00001\.h5: the shard is missing"):
        Dataset(damaged)
    assert len(Dataset(damaged, "test")) == 2 * SAMPLES  # other splits do not mind


def test_truncated_shard_is_an_error(damaged):
    dataset = Dataset(damaged)
    path = damaged / "train/shard-00000.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="manifest says"):
        Dataset(damaged)
    with pytest.raises(DatasetError, match="damaged"):
        dataset[0]


def test_exchanged_shard_is_an_error(damaged):
    shutil.copy(damaged / "train/shard-00002.h5", damaged / "copy")
    dataset = Dataset(damaged)
    (damaged / "copy").replace(damaged / "train/shard-00000.h5")
    with pytest.raises(DatasetError, match="other samples"):
        dataset[0]


def test_reader_reports_a_damaged_image(damaged):
    replace_chunk(damaged, "train/shard-00000.h5", "posed", 1, b"not a zlib stream")
    reseal(damaged)
    dataset = Dataset(damaged)
    assert dataset[0].posed.any()
    with pytest.raises(DatasetError, match=r"posed\[1\] cannot be read"):
        dataset[1]


def test_a_file_that_is_no_shard(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["pose"] = np.zeros(3)
    with pytest.raises(DatasetError, match="not part of an mmdgen dataset"):
        Shard(tmp_path / "x.h5")
    (tmp_path / "y.h5").write_bytes(b"PMX " * 100)
    with pytest.raises(DatasetError, match="not HDF5"):
        Shard(tmp_path / "y.h5")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, "Unable to synchronously open file")

    monkeypatch.setattr(h5py, "File", refuse)  # permissions do not stop root
    with pytest.raises(DatasetError, match=rf"x\.h5: cannot be read: {os.strerror(number)}$"):
        Shard(tmp_path / "x.h5")
