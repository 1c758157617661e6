"""Joining parts: what one process makes comes out, byte for byte, or it is said why not; inputs are never touched."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import fake_backend as fake
import parts_support as support
import pytest
from click.testing import CliRunner
from folders import assert_same, tree
from parts_support import go, go_part, plan_in

from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.generate import merge as merging
from mmdgen.generate.merge import MissingShardsError, merge
from mmdgen.generate.parts import PartOf
from mmdgen.generate.remote import Place
from mmdgen.generate.run import run


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return support.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "d"
    go(models, out)
    return out


@pytest.fixture(scope="module")
def made(models, tmp_path_factory) -> list[Path]:
    """Three parts, each in a folder of its own, each with a scan of its own."""
    root = tmp_path_factory.mktemp("parts")
    folders = [root / str(number) for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        go_part(models, folder, f"{number}/3")
    return folders


@pytest.fixture
def parts(made, tmp_path) -> list[Path]:
    """Copies of them, to be damaged."""
    return [Path(shutil.copytree(folder, tmp_path / "parts" / folder.name)) for folder in made]


def join(folders: list[Path], out: Path, **settings: Any) -> Any:
    return merge(folders, Place(out), **settings)


def shard_of(folder: Path) -> Path:
    return sorted(folder.rglob("*.h5"))[0]


def rewrite(shard: Path, change: bytes = b"x") -> None:
    """Change a shard without changing its size, nor the other names of the same file."""
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= change[0]
    shard.unlink()
    shard.write_bytes(bytes(content))


class TestJoined:
    def test_the_bytes_of_one_run(self, made, reference, tmp_path):
        before = [tree(folder) for folder in made]
        counts = []
        summary = join(made, tmp_path / "d", on_progress=lambda done, total: counts.append((done, total)))
        assert_same(tmp_path / "d", reference)
        assert verify_dataset(tmp_path / "d").problems == ()
        assert summary.samples == {"train": 41, "validation": 7}
        assert not summary.complete
        assert counts[0] == (0, 5)
        assert counts[-1] == (5, 5)
        assert [tree(folder) for folder in made] == before
        again = join(made, tmp_path / "d")
        assert again.complete

    def test_the_order_does_not_matter(self, made, reference, tmp_path):
        join([made[2], made[0], made[1]], tmp_path / "d")
        assert_same(tmp_path / "d", reference)

    def test_shards_are_linked(self, parts, tmp_path):
        join(parts, tmp_path / "d")
        for folder in parts:
            for shard in folder.rglob("*.h5"):
                assert os.path.samefile(shard, tmp_path / "d" / shard.relative_to(folder))

    @pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
    def test_or_copied(self, made, reference, tmp_path, monkeypatch, number):
        link = os.link

        def refuse(source: Path, target: Path) -> None:
            if str(source).endswith(".h5"):
                raise OSError(number, os.strerror(number))
            link(source, target)

        monkeypatch.setattr(os, "link", refuse)
        join(made, tmp_path / "d")
        assert_same(tmp_path / "d", reference)
        shard = shard_of(made[0])
        assert not os.path.samefile(shard, tmp_path / "d" / shard.relative_to(made[0]))

    def test_changing_the_result_leaves_the_inputs(self, parts, tmp_path, models, reference):
        """Linked files are one file: what is made again must be a new one."""
        before = tree(parts[0])
        out = tmp_path / "d"
        join(parts, out)
        shard = out / shard_of(parts[0]).relative_to(parts[0])
        shard.unlink()
        go(models, out)
        assert_same(out, reference)
        assert tree(parts[0]) == before

    def test_overlaps_that_are_the_same(self, models, made, reference, tmp_path):
        go_part(models, tmp_path / "more", "1/2")
        join([*made, tmp_path / "more"], tmp_path / "d")
        assert_same(tmp_path / "d", reference)

    def test_finished_datasets_are_parts_too(self, made, reference, tmp_path):
        join([reference], tmp_path / "copy")
        assert_same(tmp_path / "copy", reference)
        join([made[0], reference], tmp_path / "d")
        assert_same(tmp_path / "d", reference)

    def test_into_one_of_the_parts(self, parts, reference):
        join(parts, parts[1])
        assert_same(parts[1], reference)

    def test_what_lies_there_counts(self, parts, reference):
        """--out is a part that is not named among the others."""
        join(parts[1:], parts[0])
        assert_same(parts[0], reference)

    def test_links_in_the_place_of_folders(self, parts, reference, tmp_path):
        (tmp_path / "link").symlink_to(parts[0])
        join([tmp_path / "link", *parts[1:]], parts[0])
        assert_same(parts[0], reference)

    def test_models_that_failed_stay_listed(self, models, tmp_path):
        root = tmp_path / "models"
        support.make_models(root)
        fake.write_model(root / "source3" / "bad" / "m.pmx", "bad one", "render-error")
        go(root, tmp_path / "one")
        for number in (1, 2):
            go_part(root, tmp_path / str(number), f"{number}/2")
        summary = join([tmp_path / "1", tmp_path / "2"], tmp_path / "d")
        assert summary.failed["render_error"] >= 1
        assert_same(tmp_path / "d", tmp_path / "one")

    def test_several_renderers_are_reported_as_by_one_run(self, models, tmp_path, monkeypatch):
        """A run that was finished on another machine lists both; so do parts of two machines."""
        report = fake.FakeBackend.report

        def other(self: Any) -> dict[str, Any]:
            return {**report(self), "renderer": "another"}

        for name in ("one", "1", "2"):
            plan_in(models, tmp_path / name)
        go_part(models, tmp_path / "one", "1/2")
        go_part(models, tmp_path / "1", "1/2")
        monkeypatch.setattr(fake.FakeBackend, "report", other)
        go(models, tmp_path / "one")
        go_part(models, tmp_path / "2", "2/2")
        join([tmp_path / "2", tmp_path / "1"], tmp_path / "d")
        assert_same(tmp_path / "d", tmp_path / "one")
        assert len(json.loads((tmp_path / "d" / "manifest.json").read_text())["gl"]["several"]) == 2
        (tmp_path / "d" / plan_in(models, tmp_path / "d").file(0)).unlink()
        go(models, tmp_path / "d")  # a finished dataset that has lost a shard: the list is no list of lists
        listed = json.loads((tmp_path / "d" / "manifest.json").read_text())["gl"]["several"]
        assert sorted(report["renderer"] for report in listed) == ["another", "fake"]


class TestRefused:
    def refuse(self, folders: list[Path], out: Path, match: str, kind: type[Exception] = ConfigError) -> None:
        before, there = [tree(folder) for folder in folders], out.exists() and tree(out)
        with pytest.raises(kind, match=match):
            join(folders, out)
        assert [tree(folder) for folder in folders] == before
        assert (out.exists() and tree(out)) == there

    def test_missing_shards(self, made, tmp_path):
        self.refuse(
            [made[0]], tmp_path / "d", r"3 of 5 shards are missing: .*run again part 2/3, 3/3", MissingShardsError
        )
        with pytest.raises(MissingShardsError) as caught:
            join([made[0], made[2]], tmp_path / "d")
        assert caught.value.parts == (PartOf(2, 3),)
        assert len(caught.value.files) == 2

    def test_a_shard_that_was_removed(self, parts, tmp_path):
        shard = shard_of(parts[1])
        shard.unlink()
        name = shard.relative_to(parts[1]).as_posix()
        self.refuse(parts, tmp_path / "d", f"1 of 5 shards are missing: {name}; run again part 2/3", MissingShardsError)

    def test_other_options(self, models, made, tmp_path):
        go_part(models, tmp_path / "other", "3/3", seed=6)
        self.refuse(
            [*made[:2], tmp_path / "other"], tmp_path / "d", r"other does not belong to .*1: --seed was 5, now 6"
        )

    def test_other_models(self, made, tmp_path):
        root = tmp_path / "models"
        support.make_models(root)
        fake.write_model(root / "source3" / "more" / "m.pmx", "one more")
        go_part(root, tmp_path / "other", "3/3")
        self.refuse(
            [*made[:2], tmp_path / "other"], tmp_path / "d", "does not belong to .*models or annotations are not"
        )

    def test_other_texts(self, parts, tmp_path):
        (kept,) = (parts[2] / ".work").glob("provenance-*.jsonl")
        kept.write_bytes(kept.read_bytes().replace("禁止".encode(), "自由".encode()))
        self.refuse(parts, tmp_path / "d", r"provenance\.jsonl differs")

    def test_another_version(self, parts, tmp_path, monkeypatch):
        monkeypatch.setattr(merging, "__version__", "99.0")
        self.refuse(parts, tmp_path / "d", r"was begun with mmdgen .*, this is 99\.0")

    def test_no_part_of_a_dataset(self, made, tmp_path):
        (tmp_path / "x").mkdir()
        self.refuse([*made, tmp_path / "x"], tmp_path / "d", r"x holds no plan\.json")
        with pytest.raises(ConfigError, match=r"nowhere holds no plan\.json"):
            join([tmp_path / "nowhere"], tmp_path / "d")

    def test_somebody_elses_folder(self, made, tmp_path):
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "thesis.tex").write_text("important")
        self.refuse(made, tmp_path / "d", r"not empty and holds no plan\.json")

    def test_another_dataset_is_there(self, models, made, tmp_path):
        plan_in(models, tmp_path / "d", seed=6)
        self.refuse(made, tmp_path / "d", "d does not belong to .*--seed was 5, now 6")

    def test_damaged_shards(self, parts, tmp_path):
        rewrite(shard_of(parts[1]))
        with pytest.raises(DatasetError, match=r"shard-\d+\.h5 is damaged: its SHA-256"):
            join(parts, tmp_path / "d")
        assert not (tmp_path / "d" / "manifest.json").exists()
        assert not list((tmp_path / "d").rglob("*.tmp-*"))

    def test_overlaps_that_differ(self, models, made, tmp_path):
        """The same plan, and one of two machines could not load a model."""
        root = tmp_path / "models"
        support.make_models(root)
        plan = plan_in(root, tmp_path / "other")
        (root / plan.models[plan.shards[0].parts[0].model].path).unlink()
        go_part(root, tmp_path / "other", "1/3")
        self.refuse(
            [*made, tmp_path / "other"],
            tmp_path / "d",
            r"is not the same in .*1 and in .*other \(where 1 models failed\)",
            DatasetError,
        )

    def test_an_overlap_that_is_damaged(self, models, parts, tmp_path):
        go_part(models, tmp_path / "more", "1/3")
        rewrite(shard_of(tmp_path / "more"))
        with pytest.raises(DatasetError, match=r"more/.* is damaged"):
            join([*parts, tmp_path / "more"], tmp_path / "d")

    def test_a_damaged_shard_in_place(self, models, tmp_path, reference):
        out = tmp_path / "d"
        go_part(models, out, "1/1")
        rewrite(shard_of(out))
        with pytest.raises(DatasetError, match="is damaged"):
            join([out], out)
        assert not (out / "manifest.json").exists()
        shard_of(out).unlink()
        run(plan_in(models, out), models, out, engine=support.here)
        assert_same(out, reference)


class TestInterrupted:
    def test_at_every_shard(self, parts, reference, tmp_path):
        out = tmp_path / "d"
        for step in range(5):

            def stop(done: int, total: int, step: int = step) -> None:
                if done == step:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                join(parts, out, on_progress=stop)
            assert not (out / "manifest.json").exists()
        join(parts, out)
        assert_same(out, reference)

    def test_what_has_arrived_is_not_copied_again(self, parts, tmp_path, reference):
        out = tmp_path / "d"

        def stop(done: int, total: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            join(parts, out, on_progress=stop)
        there = {path: path.stat().st_ino for path in out.rglob("*.h5")}
        assert len(there) == 3
        bad = sorted(there)[0]
        rewrite(bad)  # a broken disk: this one is brought again
        join(parts, out)
        assert_same(out, reference)
        assert {path: path.stat().st_ino for path in there} == there

    @pytest.mark.parametrize("write", [1, 2, 5, 9])
    def test_a_full_disk(self, parts, reference, tmp_path, monkeypatch, write):
        sync, calls = os.fsync, 0

        def full(handle: int) -> None:
            nonlocal calls
            calls += 1
            if calls >= write:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DatasetError, match="the disk is full"):
                join(parts, tmp_path / "d")
        assert not list((tmp_path / "d").rglob("*.tmp-*"))
        join(parts, tmp_path / "d")
        assert_same(tmp_path / "d", reference)


class TestCommand:
    def mmdgen(self, *words: object) -> Any:
        from mmdgen.cli.main import cli

        return CliRunner().invoke(cli, [str(word) for word in words])

    def test_join(self, made, reference, tmp_path):
        result = self.mmdgen("merge", "--out", tmp_path / "d", *made, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["samples"] == {"train": 41, "validation": 7}
        assert_same(tmp_path / "d", reference)

    def test_errors_are_one_line(self, made, tmp_path):
        result = self.mmdgen("merge", "--out", tmp_path / "d", made[0])
        assert result.exit_code == 1
        assert len(result.output.splitlines()) == 1
        assert "run again part 2/3, 3/3" in result.output

    @pytest.mark.parametrize("words", [[], ["a", "b"], ["--staging", "s", "a"]])
    def test_wrong_usage(self, words):
        assert self.mmdgen("merge", *words).exit_code == 2
