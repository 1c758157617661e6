"""The loader: what it gives is what the reader reads, in the order that was promised, however many processes decode."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import alive, until

from mmdgen import rng
from mmdgen.dataset.manifest import make_manifest, write_manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.schema import DatasetConfig, ShardHeader, Vocabulary
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import ConfigError, DatasetError, EngineError
from mmdgen.pose.vocabulary import THA1

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")

from dataset_fixtures import config, entry, picture  # noqa: E402

from mmdgen.train.flip import flip_flow, flip_pose, is_flipped, mirror_of  # noqa: E402
from mmdgen.train.loader import PICTURES, Batch, Decoder, Loader, make_loader  # noqa: E402
from mmdgen.train.order import epoch_order  # noqa: E402

pytestmark = pytest.mark.train

SHARDS, MODELS, SAMPLES = 5, 2, 4  # a training split of 40 samples
COUNT = SHARDS * MODELS * SAMPLES
ROOT = Path(__file__).resolve().parents[1]


def write_dataset(out: Path, made: DatasetConfig, shards: int = SHARDS) -> Path:
    """A training split of random pictures; with flow where the config says so. Two validation samples."""
    out.mkdir(parents=True)
    infos, names = [], {}
    for split, number in [*(("train", n) for n in range(shards)), ("validation", 0)]:
        builder = ShardBuilder(ShardHeader(made, split, number, ""))
        for place in range(MODELS if split == "train" else 1):
            model = entry(MODELS * number + place if split == "train" else 1000)
            names[model.sha256] = (model.name, model.source)
            row = builder.add_model(model, picture("rest", model.sha256))
            for index in range(SAMPLES if split == "train" else 2):
                key = (model.sha256, index)
                values = rng.generator(5, *key).random(len(made.vocabulary.names), np.float32)
                extra: dict[str, Any] = {}
                if made.flow:
                    extra = flow_of(key)
                posed = picture("posed", *key)
                if extra:
                    posed[extra["visibility"] > 0, 3] = 255
                builder.add_sample(row, values, picture("expression", *key), posed, **extra)
        infos.append(builder.write(out))
    write_manifest(out, make_manifest(made, infos, names))
    return out


def flow_of(key: tuple[str, int]) -> dict[str, np.ndarray]:
    """A flow in whole 64ths of a pixel that stays in the frame, and a visibility that goes with it."""
    random, size = rng.generator(6, *key), 16
    y, x = np.indices((size, size))
    flow = np.stack([random.integers(0, size, (size, size)) - x, random.integers(0, size, (size, size)) - y], axis=2)
    visibility = random.integers(0, 3, (size, size), dtype=np.uint8)
    flow[visibility == 0] = 0
    return {"flow": flow.astype(np.float32), "visibility": visibility}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("loader") / "d", config())


def load(
    data: Path, split: str = "train", *, batch: int = 7, seed: int = 3, workers: int = 0, **options: Any
) -> Loader:
    return make_loader(data, split, batch=batch, seed=seed, workers=workers, **options)


def take(loader: Loader, count: int) -> list[Batch]:
    with loader:
        return list(itertools.islice(loader, count))


def joined(batches: list[Batch]) -> dict[str, np.ndarray]:
    """The examples of some batches, each array with all of them; nothing where there is nothing."""
    names = [*PICTURES, "pose", "index", "flow", "visibility"]
    columns = {name: [getattr(batch, name) for batch in batches] for name in names}
    return {
        name: torch.cat(parts).numpy() for name, parts in columns.items() if parts and all(p is not None for p in parts)
    }


def equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


# --- what a batch holds ---


@pytest.mark.parametrize("encoding", ["plain", "residual", "zstd-compact"])
def test_one_pass_gives_every_sample_in_order(tmp_path, encoding):
    data = write_dataset(tmp_path / "d", config(encoding), shards=2)
    dataset = Dataset(data, "train")
    batches = list(load(data, shuffle=False, batch=7))
    assert [len(batch) for batch in batches] == [7, 7, 2]
    found = joined(batches)
    assert found["index"].tolist() == list(range(len(dataset)))
    for number, sample in enumerate(dataset):
        for name in (*PICTURES, "pose"):
            assert np.array_equal(found[name][number], getattr(sample, name))
    assert found["posed"].dtype == np.uint8
    assert found["pose"].dtype == np.float32
    assert batches[0].names == THA1.names


def test_only_what_is_asked_for_is_read(data, monkeypatch):
    from mmdgen.dataset import open_shard

    decoded = []
    original = open_shard.decode_image
    monkeypatch.setattr(open_shard, "decode_image", lambda *args, **how: decoded.append(1) or original(*args, **how))
    (batch,) = take(load(data, fields=("posed",), batch=5), 1)
    assert batch.rest is None
    assert batch.expression is None
    assert batch.flow is None
    assert batch.posed is not None
    assert len(decoded) == 5


def test_a_rest_image_is_decoded_once(data, monkeypatch):
    from mmdgen.dataset import open_shard

    decoded = []
    original = open_shard.decode_image
    monkeypatch.setattr(open_shard, "decode_image", lambda *args, **how: decoded.append(1) or original(*args, **how))
    take(load(data, fields=("rest",), batch=8), 3 * COUNT // 8)
    assert len(decoded) == SHARDS * MODELS


def test_columns_by_name(data):
    (batch,) = take(load(data), 1)
    assert torch.equal(batch.columns(("mouth", "head_x")), batch.pose[:, [5, 0]])
    assert batch.columns(()).shape == (7, 0)
    with pytest.raises(ConfigError, match=r"no brow, tail; they have head_x"):
        batch.columns(("brow", "mouth", "tail"))
    moved = batch.to("cpu")
    assert equal(joined([moved]), joined([batch]))
    assert moved.names == batch.names
    assert batch.to("meta").pose.device.type == "meta"


def test_limits(data):
    assert joined(list(load(data, shuffle=False, limit=9)))["index"].tolist() == list(range(9))
    assert joined(list(load(data, shuffle=False, limit=5, spread=True)))["index"].tolist() == [0, 8, 16, 24, 32]
    seen = joined(take(load(data, limit=6, batch=3), 8))["index"]
    assert [sorted(part.tolist()) for part in np.array_split(seen, 4)] == [list(range(6))] * 4


# --- the order ---


def test_training_runs_through_epochs(data):
    found = joined(take(load(data, batch=8, buffer=16), 3 * COUNT // 8))["index"]
    for epoch, part in enumerate(np.array_split(found, 3)):
        assert part.tolist() == epoch_order([MODELS * SAMPLES] * SHARDS, 3, epoch, 16).tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(start=st.integers(0, 3 * COUNT), batch=st.integers(1, 9), shuffle=st.booleans())
def test_going_on_is_the_tail_of_the_run(data, start, batch, shuffle):
    options: dict[str, Any] = {"flip": True, "shuffle": shuffle, "buffer": 12}
    whole = joined(take(load(data, batch=8, **options), 4 * COUNT // 8))
    with load(data, batch=batch, start=start, **options) as loader:
        assert loader.position == start
        tail = joined(list(itertools.islice(loader, 3)))
        if not tail:
            assert not shuffle
            assert start >= COUNT
            return
        assert loader.position == (start + 3 * batch if shuffle else min(start + 3 * batch, COUNT))
    size = len(tail["index"])
    assert size == (3 * batch if shuffle else min(3 * batch, COUNT - start))
    if start + size <= len(whole["index"]):
        assert equal(tail, {name: values[start : start + size] for name, values in whole.items()})


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_partition_each_global_batch(data, shuffle):
    world, batch = 3, 4
    whole = take(load(data, batch=world * batch, flip=True, shuffle=shuffle), 8)
    ranks = [take(load(data, batch=batch, flip=True, shuffle=shuffle, rank=r, world=world), 8) for r in range(world)]
    for number, expected in enumerate(whole):
        parts = [own[number] for own in ranks if number < len(own)]
        assert equal(joined(parts), joined([expected]))


def test_flips_are_those_of_the_key(data):
    dataset, mirror = Dataset(data, "train"), mirror_of(THA1.names)
    plain = joined(take(load(data, batch=8, seed=11), 10))
    found = joined(take(load(data, batch=8, seed=11, flip=True), 10))
    assert np.array_equal(plain["index"], found["index"])
    flips = 0
    for place, index in enumerate(found["index"].tolist()):
        sample = dataset[index]
        flipped = is_flipped(11, place // COUNT, index)
        flips += flipped
        for name in PICTURES:
            expected = np.fliplr(getattr(sample, name)) if flipped else getattr(sample, name)
            assert np.array_equal(found[name][place], expected)
        assert np.array_equal(found["pose"][place], flip_pose(sample.pose, mirror) if flipped else sample.pose)
        assert np.array_equal(plain["posed"][place], sample.posed)
    assert 20 <= flips <= 60


# --- flow ---


@pytest.fixture(scope="module")
def flowing(tmp_path_factory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("flow") / "d", DatasetConfig(Vocabulary.of(THA1), 16, flow=True), shards=2
    )


def test_flow_and_visibility_come_with_the_pictures(flowing):
    dataset = Dataset(flowing, "train")
    batches = take(load(flowing, flow=True, flip=True, batch=8), 4)
    found = joined(batches)
    assert found["flow"].dtype == np.float32
    for place, index in enumerate(found["index"].tolist()):
        sample: Any = dataset[index]
        flow, visibility = sample.flow, sample.visibility
        assert flow.any()
        if is_flipped(3, place // len(dataset), index):
            flow, visibility = flip_flow(flow), np.fliplr(visibility)
        assert np.array_equal(found["flow"][place], flow)
        assert np.array_equal(found["visibility"][place], visibility)
    (batch,) = take(load(flowing, batch=2), 1)
    assert batch.flow is None
    assert batch.visibility is None


def test_a_dataset_without_flow_says_how_to_get_it(data):
    with pytest.raises(ConfigError, match=r"no flow.*render --flow"):
        load(data, flow=True)


# --- processes ---


def test_workers_change_nothing(data, flowing):
    for folder, options in ((data, {}), (flowing, {"flow": True, "start": 5})):
        here = joined(take(load(folder, flip=True, **options), 9))
        assert equal(here, joined(take(load(folder, flip=True, workers=2, **options), 9)))
    passes = [joined(list(load(data, shuffle=False, workers=workers))) for workers in (0, 1)]
    assert equal(*passes)


def test_torchs_generator_is_left_alone(data):
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    for workers in (0, 1):
        take(load(data, workers=workers), 2)
        assert torch.equal(torch.random.get_rng_state(), before)


def test_more_workers_than_cores_are_the_users_choice(data, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(take(load(data, workers=2), 1)) == 1


def worker_pids(loader: Loader) -> list[int]:
    return [worker.pid for worker in loader._iterator._workers]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("how", ["close", "with", "forget"])
def test_closing_early_ends_the_workers(data, how):
    loader = load(data, workers=2)
    next(loader)
    pids = worker_pids(loader)
    assert all(map(alive, pids))
    if how == "close":
        loader.close()
        loader.close()
        assert list(loader) == []
    elif how == "with":
        with pytest.raises(KeyError), loader:
            raise KeyError
    else:
        del loader
    until(lambda: not any(map(alive, pids)), 30)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("rested", [False, True])
def test_a_killed_worker_is_an_error_and_no_wait_for_ever(data, rested):
    loader = load(data, workers=2)
    next(loader)
    pids = worker_pids(loader)
    if rested:  # until batches are on their way whose memory goes with their worker
        time.sleep(1)
        os.kill(pids[1], signal.SIGKILL)
    os.kill(pids[0], signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"process that reads the dataset ended.*workers"):
        list(itertools.islice(loader, 200))
    assert time.monotonic() - started < 40
    until(lambda: not any(map(alive, pids)), 30)


PARENT = """
import sys, time
from mmdgen.train.loader import make_loader
if __name__ == "__main__":
    loader = make_loader(sys.argv[1], "train", batch=4, seed=1, workers=2)
    next(loader)
    print(*[worker.pid for worker in loader._iterator._workers], flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_workers_end_with_a_killed_parent(data, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        parent.kill()
    try:
        until(lambda: not any(map(alive, pids)), 30)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


# --- what can go wrong ---


@pytest.fixture
def broken(tmp_path) -> Path:
    return write_dataset(tmp_path / "d", config(), shards=2)


def test_a_missing_shard_is_said_at_once(broken):
    (broken / "train" / "shard-00001.h5").unlink()
    with pytest.raises(DatasetError, match=r"shard-00001.h5: the shard is missing"):
        load(broken)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_goes_missing_is_the_readers_error(broken, workers):
    loader = load(broken, workers=workers)
    (broken / "train" / "shard-00001.h5").unlink()
    with pytest.raises(DatasetError, match=r"shard-00001.h5: the shard is missing") as caught:
        take(loader, 10)
    assert type(caught.value) is DatasetError
    assert "Traceback" not in str(caught.value)
    with pytest.raises(StopIteration):
        next(loader)


def test_a_damaged_picture_is_the_readers_error(broken):
    with h5py.File(broken / "train" / "shard-00000.h5", "r+") as shard:
        dataset: Any = shard["posed"]
        dataset.id.write_direct_chunk((2, 0, 0, 0), b"\x78\x9c no zlib stream")
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["bytes"] = (broken / "train" / "shard-00000.h5").stat().st_size
    (broken / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=r"shard-00000.h5: posed\[2\] cannot be read"):
        take(load(broken), 10)
    assert len(take(load(broken, fields=("expression",)), 10)) == 10  # nobody looks at the damaged one


@pytest.mark.parametrize("row", [-1, MODELS])
def test_a_sample_of_no_model_is_the_readers_error(broken, row):
    with h5py.File(broken / "train" / "shard-00001.h5", "r+") as shard:
        dataset: Any = shard["model"]
        dataset[2] = row
    with pytest.raises(DatasetError, match=r"shard-00001.h5: holds other samples than the manifest says"):
        take(load(broken, fields=("posed",)), 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch >= 1"),
        ({"workers": -1}, "workers >= 0"),
        ({"start": -1}, "start >= 0"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"fields": ("posed", "depth")}, "found depth"),
        ({"limit": 0}, "at least one"),
        ({"split": "test"}, "no samples in the split 'test'"),
        ({"split": "holdout"}, "a split is one of"),
    ],
)
def test_options_that_do_not_fit(data, options, message):
    with pytest.raises(ConfigError, match=message):
        load(data, **options)


def test_a_vocabulary_without_a_mirror_cannot_be_flipped(tmp_path):
    names = Vocabulary("other", tuple(Vocabulary.of(THA1).parameters[:4]))  # a left eye and no right one
    data = write_dataset(tmp_path / "d", DatasetConfig(names, 16), shards=1)
    assert take(load(data), 1)[0].pose.shape == (7, 4)
    with pytest.raises(ConfigError, match=r"'left_eye' cannot be mirrored"):
        load(data, flip=True)


def test_a_decoder_and_a_batch_can_be_pickled(data):
    decoder = Decoder(Dataset(data, "train"), flip_seed=1)
    (piece, *_) = itertools.islice(load(data)._route, 1)
    first = decoder.read(piece)  # files are open now
    second = pickle.loads(pickle.dumps(decoder)).read(piece)
    assert equal(joined([first]), joined([second]))
    assert equal(joined([pickle.loads(pickle.dumps(first))]), joined([second]))
