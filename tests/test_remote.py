"""Datasets in object stores: against a real S3 server on this machine, which is also made to fail."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_backend as fake
import numpy as np
import object_store
import parts_support as support
import pytest
from click.testing import CliRunner
from folders import assert_same, tree
from object_store import BUCKET, Proxy
from parts_support import go, go_part, here, never, plan_in

from mmdgen import fsio
from mmdgen.dataset.manifest import read_manifest
from mmdgen.dataset.preview import contact_sheet
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.remote import PATIENCE, RemotePath, is_url, location
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.generate.catalogue import Catalogue
from mmdgen.generate.engine import render_shards, worker_config
from mmdgen.generate.merge import MissingShardsError, merge
from mmdgen.generate.remote import Place, RemotePlace
from mmdgen.generate.shard import LOCK_FILE, WORK_FOLDER, ShardTask, ShardWorker

MISSING = [name for name in ("fsspec", "s3fs", "moto", "flask") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install 'mmdgen[remote,peers]'")


SMALL: dict[str, Any] = {"poses": {"train": 17, "validation": 5}, "shard_size": 12}  # three shards


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return support.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory) -> Path:
    """The dataset that all of them must be, made in a local folder."""
    out = tmp_path_factory.mktemp("reference") / "d"
    go(models, out, **SMALL)
    return out


@pytest.fixture(scope="module")
def store() -> Iterator[Proxy]:
    with object_store.running() as proxy:
        yield proxy


@pytest.fixture
def root(store, request) -> RemotePath:
    """A folder of the store that no other test uses."""
    return RemotePath(f"s3://{BUCKET}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}/my data")


@pytest.fixture(scope="module")
def uploaded(store, models, tmp_path_factory) -> RemotePath:
    """A finished dataset, for those who only read."""
    root = RemotePath(f"s3://{BUCKET}/finished/d")
    go(models, RemotePlace(root, tmp_path_factory.mktemp("staging") / "s"), **SMALL)
    return root


def content(root: RemotePath) -> dict[str, bytes]:
    return root.read_many(root.sizes())


def assert_there(root: RemotePath, reference: Path) -> None:
    found, expected = content(root), tree(reference)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


class Counted:
    """An engine that counts what it makes, and is interrupted before it makes shard number `stop`."""

    def __init__(self, stop: int | None = None, error: BaseException | None = None) -> None:
        self.made: list[int] = []
        self.stop, self.error = stop, error or KeyboardInterrupt()

    def __call__(self, plan: Any, indices: Any, models: Path, out: Path, **settings: Any) -> list[Any]:
        results = []
        for index in indices:
            if len(self.made) == self.stop:
                raise self.error
            results += here(plan, [index], models, out)
            self.made.append(index)
        return results


class TestRun:
    def test_the_same_bytes_as_in_a_folder(self, models, reference, root, tmp_path):
        place = RemotePlace(root, tmp_path / "staging")
        summary = go(models, place, **SMALL)
        assert_there(root, reference)
        assert not (tmp_path / "staging").exists(), "nothing stays here"
        assert str(summary.out) == root.url
        assert json.loads(json.dumps(summary.to_json()))["preview"] == f"{root.url}/preview.png"
        again = go(models, place, never, **SMALL)
        assert again.complete
        assert_there(root, reference)

    def test_real_worker_processes_upload(self, models, reference, root, tmp_path):
        def engine(*words: Any, **settings: Any) -> Any:
            return render_shards(*words, **{**settings, "backend": fake.BACKEND, "workers": 2})

        go(models, RemotePlace(root, tmp_path / "staging"), engine, **SMALL)
        assert_there(root, reference)

    @pytest.mark.slow
    def test_a_ray_cluster_uploads(self, models, reference, root, tmp_path):
        pytest.importorskip("ray", reason="needs ray: pip install 'mmdgen[ray]'")
        from mmdgen.generate.ray_engine import render_shards as on_ray

        def engine(*words: Any, **settings: Any) -> Any:
            return on_ray(*words, **{**settings, "backend": fake.BACKEND, "workers": 2}, address="local")

        go(models, RemotePlace(root, tmp_path / "staging"), engine, **SMALL)
        assert_there(root, reference)

    def test_a_lock_that_another_run_has_left_on_a_worker_machine(self, models, reference, root, tmp_path):
        """The command ran there once and was killed; now it runs elsewhere, and workers run there."""
        left = tmp_path / "left"
        with pytest.raises(KeyboardInterrupt):
            go(models, RemotePlace(root, left), Counted(1), **SMALL)
        (left / WORK_FOLDER / LOCK_FILE).write_text("elsewhere 1 2", "ascii")

        def engine(plan: Any, indices: Any, models: Path, out: Path, **settings: Any) -> list[Any]:
            config = worker_config(plan, models, out, fake.BACKEND)
            assert config["lock"] not in ("", "elsewhere 1 2")
            worker = ShardWorker({**config, "out": str(left)})
            return [worker.handle(ShardTask(index), lambda note: None) for index in indices]

        go(models, RemotePlace(root, tmp_path / "new"), engine, **SMALL)
        assert_there(root, reference)

    def test_interrupted_and_gone_on_elsewhere(self, models, reference, root, tmp_path):
        """Nothing of the first machine is left: another one has plan and shards from the store, and makes the rest.

        To the rest belongs a shard of which the first machine could not load a model.
        """
        models = support.make_models(tmp_path / "models")
        plan = plan_in(models, RemotePlace(root, tmp_path / "one"), **SMALL)
        lost = models / plan.models[plan.shards[0].parts[0].model].path
        kept = lost.read_bytes()
        lost.unlink()
        with pytest.raises(KeyboardInterrupt):
            go(models, RemotePlace(root, tmp_path / "one"), Counted(2), **SMALL)
        assert not (root / "manifest.json").exists()
        assert not list((tmp_path / "one").rglob("*.h5")), "shards do not pile up"
        lost.write_bytes(kept)
        rest = Counted()
        go(models, RemotePlace(root, tmp_path / "two"), rest, **SMALL)
        assert rest.made == [0, 2]
        assert_there(root, reference)

    def test_lost_and_damaged_shards(self, models, reference, root, tmp_path):
        place, rest = RemotePlace(root, tmp_path / "s"), Counted()
        go(models, place, **SMALL)
        (root / "validation/shard-00000.h5").unlink()
        with pytest.raises(MissingShardsError, match="1 of 3 shards are missing: validation/"):
            merge([root], Place(tmp_path / "d"))
        go(models, place, rest, **SMALL)
        assert rest.made == [2]
        shard = root / "train/shard-00000.h5"
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(bytes(data))
        assert [problem.file for problem in verify_dataset(root).problems] == ["train/shard-00000.h5"]
        with pytest.raises(DatasetError, match=r"s3://.*/train/shard-00000\.h5 is damaged"):
            merge([root], Place(tmp_path / "d"))
        assert not (tmp_path / "d" / "train" / "shard-00000.h5").exists()
        shard.unlink()
        go(models, place, rest, **SMALL)
        assert rest.made == [2, 0]
        assert_there(root, reference)

    def test_the_other_machine_needs_no_scan(self, models, root, tmp_path):
        plan = plan_in(models, RemotePlace(root, tmp_path / "one"), **SMALL)
        assert (
            RemotePlace(root, tmp_path / "two").plan_for(fake.options(**SMALL), support.no_scan).digest == plan.digest
        )

    def test_other_options_are_refused(self, models, root, tmp_path):
        plan_in(models, RemotePlace(root, tmp_path / "one"), **SMALL)
        with pytest.raises(ConfigError, match=r"^s3://.* was begun with other options: --seed was 5, now 6"):
            plan_in(models, RemotePlace(root, tmp_path / "two"), **SMALL, seed=6)


class TestStartsAtOnce:
    def test_the_first_plan_wins(self, models, reference, root, tmp_path):
        def scan_while_another_freezes() -> Catalogue:
            plan_in(models, RemotePlace(root, tmp_path / "one"), **SMALL)
            return fake.catalogue(models)

        RemotePlace(root, tmp_path / "two").plan_for(fake.options(**SMALL), scan_while_another_freezes)
        for name in ("plan.json", "provenance.jsonl"):
            for machine in ("one", "two"):
                assert (tmp_path / machine / name).read_bytes() == (reference / name).read_bytes()

    def test_another_plan_is_refused(self, models, root, tmp_path):
        fewer = fake.catalogue(models)
        fewer = Catalogue(fewer.models[:-1], fewer.rejected)

        def scan_while_another_freezes() -> Catalogue:
            plan_in(models, RemotePlace(root, tmp_path / "one"), **SMALL)
            return fewer

        with pytest.raises(ConfigError, match="has just frozen a plan with 9 models"):
            RemotePlace(root, tmp_path / "two").plan_for(fake.options(**SMALL), scan_while_another_freezes)

    def test_only_one_of_many_creates(self, root):
        made: list[bool] = []
        barrier = threading.Barrier(4)

        def create(number: int) -> None:
            barrier.wait()
            made.append((root / "plan.json").create_once(f"{number}".encode()))

        threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == [False, False, False, True]


class TestPartsAndMerging:
    def test_parts_of_three_machines(self, models, reference, root, tmp_path):
        for number in (3, 1):
            summary = go_part(models, RemotePlace(root, tmp_path / f"machine{number}"), f"{number}/3", **SMALL)
        assert (summary.done, summary.shards) == (2, 3)
        with pytest.raises(MissingShardsError, match=r"1 of 3 shards are missing: .*run again part 2/3"):
            merge([root], RemotePlace(root, tmp_path / "end"))
        assert go_part(models, RemotePlace(root, tmp_path / "x"), "1/3", never, **SMALL).complete
        assert go_part(models, RemotePlace(root, tmp_path / "machine2"), "2/3", **SMALL).done == 3
        merge([root], RemotePlace(root, tmp_path / "end"))
        assert_there(root, reference)
        assert go_part(models, RemotePlace(root, tmp_path / "x"), "1/3", never, **SMALL).dataset_complete

    def test_download(self, uploaded, reference, tmp_path):
        merge([uploaded], Place(tmp_path / "d"))
        assert_same(tmp_path / "d", reference)

    def test_upload_of_local_parts(self, models, reference, root, tmp_path):
        for number in (1, 2):
            go_part(models, tmp_path / str(number), f"{number}/2", **SMALL)
        before = tree(tmp_path / "1")
        merge([tmp_path / "1", tmp_path / "2"], RemotePlace(root, tmp_path / "staging"))
        assert_there(root, reference)
        assert tree(tmp_path / "1") == before

    def test_local_and_remote_parts(self, models, reference, root, tmp_path):
        go_part(models, tmp_path / "1", "1/2", **SMALL)
        go_part(models, RemotePlace(root, tmp_path / "s"), "2/2", **SMALL)
        merge([tmp_path / "1", root], Place(tmp_path / "d"))
        assert_same(tmp_path / "d", reference)


class TestReading:
    def test_samples(self, uploaded, reference):
        remote, local = Dataset(uploaded.url, "train"), Dataset(reference, "train")
        assert len(remote) == len(local) == 17
        np.testing.assert_array_equal(remote.poses(), local.poses())
        for index in (0, 7, 16):
            one, other = remote[index], local[index]
            assert one.model == other.model
            for name in ("rest", "expression", "posed", "pose"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        copy = pickle.loads(pickle.dumps(remote))
        np.testing.assert_array_equal(copy[3].posed, local[3].posed)

    def test_verify(self, uploaded):
        report = verify_dataset(uploaded.url)
        assert report.problems == ()
        assert report.samples == {"train": 17, "validation": 5, "test": 0}

    def test_the_sheet(self, uploaded, reference):
        assert contact_sheet(uploaded.url) == (reference / "preview.png").read_bytes()

    def test_who_takes_an_url_for_a_path_is_told_what_to_do(self):
        with pytest.raises(DatasetError, match=r"Copy it here first: mmdgen merge --out FOLDER s3://b/d"):
            read_manifest(Path("s3://b/d"))

    def test_what_is_missing(self, root):
        with pytest.raises(DatasetError, match="there is no such dataset folder"):
            Dataset(root)


class TestFailures:
    def test_a_server_that_is_away_for_a_while(self, store, models, reference, root, tmp_path, monkeypatch):
        monkeypatch.setenv(PATIENCE, "60")
        back = threading.Timer(1.5, lambda: setattr(store, "down", False))

        def engine(plan: Any, indices: Any, *words: Any, **settings: Any) -> Any:
            result = here(plan, indices[:2], *words)
            store.stop()
            back.start()
            return result + here(plan, indices[2:], *words)

        try:
            started = time.monotonic()
            go(models, RemotePlace(root, tmp_path / "s"), engine, **SMALL)
            assert time.monotonic() - started > 1.5
        finally:
            back.cancel()
            store.down = False
        assert_there(root, reference)

    def test_a_server_that_stays_away(self, store, models, reference, root, tmp_path, monkeypatch):
        """One error; what was uploaded stays, what was made is kept here, and is not made again."""
        monkeypatch.setenv(PATIENCE, "1")
        counted = Counted()

        def engine(plan: Any, indices: Any, *words: Any, **settings: Any) -> Any:
            counted(plan, indices[:2], *words)
            store.stop()
            return counted(plan, indices[2:], *words)

        try:
            with pytest.raises(DatasetError, match=r"cannot be written \(\d+ tries in \d+ s\): .*kept in") as caught:
                go(models, RemotePlace(root, tmp_path / "s"), engine, **SMALL)
        finally:
            store.down = False
        assert len(str(caught.value).splitlines()) == 1
        assert len(list((tmp_path / "s").rglob("*.h5"))) == 1
        monkeypatch.setenv(PATIENCE, "30")
        rest = Counted()
        go(models, RemotePlace(root, tmp_path / "s"), rest, **SMALL)
        assert rest.made == []
        assert_there(root, reference)

    def test_a_wrong_bucket_is_said_before_the_scan(self, store, tmp_path):
        place = RemotePlace(RemotePath("s3://no-such-bucket/d"), tmp_path / "s")
        with pytest.raises(DatasetError, match=r"s3://no-such-bucket/d/.* cannot be written: .*bucket does not exist"):
            place.plan_for(fake.options(**SMALL), support.no_scan)
        assert not (tmp_path / "s").exists()
        with pytest.raises(DatasetError, match="bucket"):
            Dataset("s3://no-such-bucket/d")

    def test_no_credentials(self, store, root, tmp_path, monkeypatch):
        import s3fs

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            with pytest.raises(DatasetError, match="redential"):
                RemotePlace(root, tmp_path / "s").plan_for(fake.options(**SMALL), support.no_scan)
        finally:
            s3fs.S3FileSystem.clear_instance_cache()

    def test_somebody_elses_folder(self, models, root, tmp_path):
        (root / "thesis.tex").write_bytes(b"important")
        with pytest.raises(ConfigError, match=r"not empty and holds no plan\.json .*thesis\.tex"):
            plan_in(models, RemotePlace(root, tmp_path / "s"))
        assert content(root) == {"thesis.tex": b"important"}

    def test_staging_folders_are_not_mixed_up(self, models, reference, root, tmp_path):
        before = tree(reference)
        with pytest.raises(ConfigError, match="--staging names a folder of its own"):
            plan_in(models, RemotePlace(root, reference))
        assert tree(reference) == before
        plan_in(models, RemotePlace(root, tmp_path / "s"))
        with pytest.raises(ConfigError, match=f"is the staging folder of {root.url}"):
            plan_in(models, RemotePlace(RemotePath(f"{root.url}2"), tmp_path / "s"))

    def test_tasks_that_share_a_staging_folder(self, models, root, tmp_path, monkeypatch):
        """All tasks of an array have the same user's cache: another one may claim it in the same moment."""
        looked = Path.iterdir

        def while_another_claims(path: Path) -> Any:
            monkeypatch.setattr(Path, "iterdir", looked)
            plan_in(models, RemotePlace(root, tmp_path / "s"), **SMALL)
            return looked(path)

        monkeypatch.setattr(Path, "iterdir", while_another_claims)
        RemotePlace(root, tmp_path / "s").plan_for(fake.options(**SMALL), support.no_scan)


class Flaky:
    """A file system of one file whose operations fail as the test says."""

    def __init__(self, errors: list[Exception], change: bytes = b"") -> None:
        self.errors, self.change, self.content, self.calls = errors, change, None, 0

    def _fail(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)

    def invalidate_cache(self) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool) -> None:
        pass

    def pipe_file(self, path: str, content: bytes) -> None:
        self._fail()
        self.content = content + self.change
        self.change = b""

    def exists(self, path: str) -> bool:
        return self.content is not None

    def info(self, path: str) -> dict[str, Any]:
        if self.content is None:
            raise FileNotFoundError(path)
        return {"type": "file", "size": len(self.content)}

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        self._fail()
        assert self.content is not None
        return self.content[start:end]


class TestPaths:
    @pytest.fixture
    def flaky(self, monkeypatch) -> Any:
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setenv(PATIENCE, "30")

        def make(*errors: Exception, change: bytes = b"") -> tuple[RemotePath, Flaky]:
            system = Flaky(list(errors), change)
            monkeypatch.setattr(RemotePath, "_filesystem", lambda self: (system, "b/x"))
            return RemotePath("s3://b/x"), system

        return make

    def test_it_is_tried_again(self, flaky):
        path, system = flaky(OSError("reset"), TimeoutError("slow"), ConnectionError("gone"))
        path.write_bytes(b"abc")
        assert path.read_bytes() == b"abc"
        assert system.calls == 6

    def test_what_arrives_is_compared(self, flaky):
        path, system = flaky(change=b"!")
        path.write_bytes(b"abc")
        assert system.content == b"abc"
        assert system.calls == 4, "it was written and read twice"

    @pytest.mark.parametrize(
        "error", [PermissionError("Access Denied"), type("NoCredentialsError", (Exception,), {})("none")]
    )
    def test_what_another_try_cannot_mend(self, flaky, error):
        path, system = flaky(error)
        with pytest.raises(DatasetError, match=f"s3://b/x cannot be written: {type(error).__name__}"):
            path.write_bytes(b"abc")
        assert system.calls == 1

    def test_a_plug_in_that_cannot_create_is_asked_first(self, flaky):
        path, system = flaky()
        assert path.create_once(b"first")
        assert not path.create_once(b"second")
        assert system.content == b"first"

    def test_a_patience_that_is_no_number(self, flaky, monkeypatch):
        path, _ = flaky()
        monkeypatch.setenv(PATIENCE, "long")
        with pytest.raises(ConfigError, match=f"{PATIENCE} is 'long'"):
            path.read_bytes()

    def test_it_ends(self, flaky, monkeypatch):
        clock = iter(range(1000))
        monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
        path, system = flaky(*[OSError("reset")] * 1000)
        with pytest.raises(DatasetError, match=r"\(\d+ tries in \d+ s\): OSError: reset"):
            path.write_bytes(b"abc")
        assert 3 < system.calls < 40

    def test_like_other_paths(self):
        root = RemotePath("memory://tests/like-other-paths/")
        file = root / "train/x.h5"
        assert (str(root), file.name, file.suffix, file.protocol) == (root.url, "x.h5", ".h5", "memory")
        assert not root.exists()
        assert root.sizes() == {}
        with pytest.raises(FileNotFoundError):
            file.read_bytes()
        with pytest.raises(FileNotFoundError):
            file.stat()
        data = bytes(range(256)) * 100
        file.write_bytes(data)
        (root / "a b.json").write_bytes(b"{}")
        assert root.sizes() == {"train/x.h5": len(data), "a b.json": 2}
        assert [path.name for path in root.iterdir()] == ["a b.json", "train"]
        assert (file.is_file(), file.is_dir(), (root / "train").is_dir(), (root / "train").is_file()) == (
            True, False, True, False,
        )  # fmt: skip
        assert file.stat().st_size == len(data)
        assert file.sha256() == hashlib.sha256(data).hexdigest()
        assert file.read_range(3, 5) == data[3:8]
        assert root.read_many(["a b.json", "none", "train/x.h5"]) == {"a b.json": b"{}", "train/x.h5": data}
        assert root.read_many(["none"]) == {}
        with file.open() as stream:
            stream.seek(1000)
            assert stream.read(10) == data[1000:1010]
            assert fsio.sha256_file(file) == file.sha256()  # type: ignore[arg-type]
        assert (root / "once").create_once(b"1")
        assert not (root / "once").create_once(b"2")
        file.unlink()
        file.unlink(missing_ok=True)
        assert not file.exists()

    def test_download_is_whole_or_nothing(self, tmp_path, flaky):
        path, system = flaky()
        system.content = b"x" * 10
        assert path.download(tmp_path / "x") == hashlib.sha256(b"x" * 10).hexdigest()
        system.errors = [PermissionError("no")]
        with pytest.raises(DatasetError, match="cannot be read"):
            path.download(tmp_path / "y")
        assert [member.name for member in tmp_path.iterdir()] == ["x"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("out/d", Path("out/d")),
            ("file:///out/d", Path("/out/d")),
            ("C:/out", Path("C:/out")),
            ("s3://b/d/", RemotePath("s3://b/d")),
            ("gs://b/d", RemotePath("gs://b/d")),
        ],
    )
    def test_what_names_what(self, text, expected):
        assert location(text) == expected
        assert is_url(text) == isinstance(expected, RemotePath)
        assert location(location(text)) == expected

    def test_urls_of_nothing(self, tmp_path):
        for url in ("s3://", "s3:///"):
            with pytest.raises(ConfigError, match="is not the URL of a folder"):
                location(url)
        with pytest.raises(ConfigError, match="Protocol not known"):
            RemotePath("nonsense://b/d").read_bytes()
        with pytest.raises(ConfigError, match="lives in one process only"):
            RemotePlace(RemotePath("memory://b/d"), tmp_path / "s").plan_for(fake.options(**SMALL), support.no_scan)

    def test_urls_that_nothing_opens_are_said_before_anything_is_made(self, tmp_path, monkeypatch):
        from mmdgen.cli.main import cli

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        result = CliRunner().invoke(cli, ["render", "--poses", "1", "--out", "nonsense://b/d"])
        assert result.exit_code == 2
        assert "nonsense://b/d: Protocol not known: nonsense" in result.output
        assert not (tmp_path / "cache").exists()
        RemotePath("s3://b/d").check()

    def test_a_missing_plug_in(self, monkeypatch):
        def missing(url: str) -> Any:
            raise ImportError("Install s3fs to access S3")

        monkeypatch.setattr("fsspec.core.url_to_fs", missing)
        with pytest.raises(ConfigError, match=r"Install s3fs.*pip install 'mmdgen\[remote\]'"):
            RemotePath("s3://b/d").read_bytes()
        with pytest.raises(ConfigError, match="pip install gcsfs"):
            RemotePath("gs://b/d").read_bytes()


class TestCommand:
    def mmdgen(self, *words: object) -> Any:
        from mmdgen.cli.main import cli

        return CliRunner().invoke(cli, [str(word) for word in words])

    def test_render_part_merge_verify(self, models, reference, root, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr("mmdgen.generate.run.render_shards", here)
        monkeypatch.setattr("mmdgen.cli.render.scan", lambda models, *words, **settings: fake.catalogue(models))
        words = ["render", "--models", models, "--out", root.url, "--poses", 17, "--validation-poses", 5, "--seed", 5]
        words += ["--shard-size", 12, "--size", 16, "--ambient", "0.5:1.2"]
        for part in ("1/2", "2/2"):
            result = self.mmdgen(*words, "--part", part)
            assert result.exit_code == 0, result.output
        assert f"mmdgen merge {root.url}" in result.output
        result = self.mmdgen("merge", root.url, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["out"] == root.url
        assert_there(root, reference)
        left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert [path for path in left if not path.name.endswith("-timings.jsonl")] == []
        assert "is complete already" in self.mmdgen(*words).output
        assert self.mmdgen("verify", root.url).exit_code == 0

    def test_errors(self, store, models, tmp_path):
        words = ["render", "--models", models, "--poses", 1, "--staging", tmp_path / "s", "--out"]
        result = self.mmdgen(*words, "s3://no-such-bucket/d")
        assert result.exit_code == 1
        assert len(result.output.splitlines()) == 1
        assert "bucket does not exist" in result.output
        assert self.mmdgen(*words, "s3://").exit_code == 2
