"""Runs that are killed, starved, crashed and interrupted: the dataset comes out the same, or is said not to.

All with a renderer that needs no GL (`fake_backend`); the last tests draw two small characters for real.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_backend as fake
import numpy as np
import pytest
from folders import assert_same, tree
from parts_support import make_models
from processes import alive, children, until

from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError, DatasetError, EngineError, RenderError
from mmdgen.generate import engine
from mmdgen.generate.catalogue import find_models, scan
from mmdgen.generate.plan import read_plan
from mmdgen.generate.pool import STILLBORN
from mmdgen.generate.run import plan_for, run
from mmdgen.pose.sampling import sample_poses
from mmdgen.pose.vocabulary import THA1

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Nine good models in four source folders and three that cannot be used."""
    root = make_models(tmp_path_factory.mktemp("models"))
    fake.write_model(root / "source2" / "odd" / "m.pmd", "odd", "scan-bug")
    return root


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory) -> Path:
    """What one uninterrupted worker makes of `models`."""
    out = tmp_path_factory.mktemp("reference") / "d"
    fake.go(models, out, 1)
    return out


def assert_no_debris(out: Path) -> None:
    assert [path.name for path in out.rglob("*") if ".tmp-" in path.name] == []
    assert not (out / "manifest.json").exists()


def start(models: Path, out: Path, **environment: str) -> subprocess.Popen:
    """Start a run in a process of its own that can be killed."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, str(TESTS / "fake_backend.py"), str(models), str(out), "2"],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stderr=subprocess.PIPE,
    )


def wait(process: subprocess.Popen, timeout: float = 60) -> tuple[int, str]:
    _, errors = process.communicate(timeout=timeout)
    return process.returncode, errors.decode()


class TestResult:
    def test_the_dataset_is_whole(self, models, reference):
        report = verify_dataset(reference)
        assert report.problems == ()
        assert report.samples == {"train": 41, "validation": 7, "test": 0}
        assert sorted(path.name for path in reference.iterdir()) == [
            "README.md", "failures.jsonl", "manifest.json", "plan.json", "preview.png", "provenance.jsonl",
            "train", "validation",
        ]  # fmt: skip

    def test_samples_are_what_the_plan_says(self, reference):
        """Every stored image is the one that this model and this pose give, drawn again here."""
        plan = read_plan(reference)
        assert plan is not None
        by_id = {model.id: model for model in plan.models}
        seen: dict[str, int] = {}
        for sample in Dataset(reference, "train"):
            sha256 = sample.model.sha256
            index = seen.get(sha256, 0)
            seen[sha256] = index + 1
            pose = sample_poses(THA1, 5, sha256, index, 1)[0]
            np.testing.assert_array_equal(sample.pose, pose)
            scene = fake.FakeScene(sha256, "", fake.SIZE, sample.model.ambient)
            np.testing.assert_array_equal(sample.rest, scene.rest())
            np.testing.assert_array_equal(sample.expression, next(scene.expressions(pose[None])))
            np.testing.assert_array_equal(sample.posed, next(scene.posed(pose[None])))
            assert 0.5 <= sample.model.ambient <= 1.2
            assert sample.model.name == by_id[sha256].name
        assert max(seen.values()) - min(seen.values()) <= 1

    def test_nothing_of_the_machine_is_in_it(self, models, reference):
        for name, content in tree(reference).items():
            assert str(models).encode() not in content, name
            assert str(reference).encode() not in content, name

    def test_provenance_and_failures(self, reference):
        provenance = (reference / "provenance.jsonl").read_text("utf-8")
        assert "商用利用は禁止です。" in provenance
        assert '"hints": ["no_commercial"]' in provenance
        assert len(provenance.splitlines()) == 9
        failures = (reference / "failures.jsonl").read_text("utf-8")
        for code in ("no_mouth_morph", "duplicate", "internal_error"):
            assert f'"code": "{code}"' in failures
        terms = {sample.model.terms for sample in Dataset(reference, "train")}
        assert terms <= {"", "no_commercial"}

    @pytest.mark.parametrize("codec", ["deflate", "zstd"])
    def test_compact_decodes_to_the_same_images(self, models, reference, tmp_path, codec):
        fake.go(models, tmp_path / "d", 2, compact=True, codec=codec)
        assert verify_dataset(tmp_path / "d").problems == ()
        pairs = zip(Dataset(tmp_path / "d", "train"), Dataset(reference, "train"), strict=True)
        for compact, plain in pairs:
            np.testing.assert_array_equal(compact.expression, plain.expression)
            np.testing.assert_array_equal(compact.posed, plain.posed)
            np.testing.assert_array_equal(compact.rest, plain.rest)


class TestSameBytes:
    def test_two_workers(self, models, reference, tmp_path):
        fake.go(models, tmp_path / "d", 2)
        assert_same(tmp_path / "d", reference)

    def test_another_place_for_the_models(self, models, reference, tmp_path):
        shutil.copytree(models, tmp_path / "elsewhere")
        fake.go(tmp_path / "elsewhere", tmp_path / "d", 2)
        assert_same(tmp_path / "d", reference)

    def test_kill_9_at_random_moments(self, models, reference, tmp_path):
        """The parent is killed again and again; its workers go with it, and the last start finishes."""
        out, chance = tmp_path / "d", random.Random(20)
        for _ in range(4):
            process = start(models, out, FAKE_DELAY="0.02")
            time.sleep(chance.uniform(0.5, 2.5))
            workers = children(process.pid)
            process.kill()
            wait(process)
            until(lambda workers=workers: not any(map(alive, workers)), 60)  # they do not outlive their parent
            if (out / "manifest.json").exists():
                break
        fake.go(models, out, 2)
        assert_same(out, reference)

    def test_kill_9_at_every_write_of_the_parent(self, models, reference, tmp_path):
        """Step by step through all that the parent writes: provenance, plan, failures, card, preview, manifest."""
        out, deaths = tmp_path / "d", 0
        for step in range(1, 60):
            process = start(models, out, FAKE_KILL_AT=str(step))
            code, errors = wait(process)
            if code == 0:
                break
            assert code == -signal.SIGKILL, errors
            deaths += 1
        assert deaths >= 10
        fake.go(models, out, 2)
        assert_same(out, reference)

    def test_a_shard_that_was_lost_or_cut_is_made_again(self, models, reference, tmp_path):
        out = tmp_path / "d"
        shutil.copytree(reference, out)
        (out / "train" / "shard-00001.h5").unlink()
        with (out / "validation" / "shard-00000.h5").open("r+b") as file:
            file.truncate(100)
        kept = (out / "train" / "shard-00000.h5").stat().st_mtime_ns
        summary = fake.go(models, out, 2)
        assert not summary.complete
        assert (out / "train" / "shard-00000.h5").stat().st_mtime_ns == kept
        assert_same(out, reference)

    def test_finished_means_finished(self, models, reference, tmp_path):
        out = tmp_path / "d"
        shutil.copytree(reference, out)
        (out / ".work").mkdir()  # the kill came between the manifest and the tidying up
        summary = fake.go(models, out, 2)
        assert summary.complete
        assert summary.drawn == 0
        assert_same(out, reference)


class TestModelsThatFail:
    def run_with(self, models: Path, tmp_path: Path, do: str, **options):
        root = tmp_path / "models"
        shutil.copytree(models, root)
        fake.write_model(root / "source3" / "bad" / "m.pmx", "bad one", do)
        events = []
        out = tmp_path / "d"
        summary = fake.go(root, out, 2, events.append, **options)
        assert verify_dataset(out).problems == ()
        names = {sample.model.name for sample in Dataset(out, "train")}
        assert "bad one" not in names
        assert len(names) >= 6
        rows = [line for line in (out / "failures.jsonl").read_text("utf-8").splitlines() if '"render"' in line]
        assert rows
        assert all('"path": "source3/bad/m.pmx"' in row for row in rows)
        return summary, events, rows

    @pytest.mark.parametrize(
        ("do", "code", "message"),
        [
            ("render-error", "render_error", "the driver refused"),
            ("bug", "internal_error", "IndexError: list index out of range"),
        ],
    )
    def test_errors_leave_the_model_out(self, models, tmp_path, do, code, message):
        summary, events, rows = self.run_with(models, tmp_path, do)
        assert summary.failed == {code: len(rows)}
        assert all(message in row for row in rows)
        assert any(event.event == "failure" and "source3/bad/m.pmx" in event.message for event in events)

    @pytest.mark.parametrize("do", ["draw-exit", "draw-kill", "draw-segfault", "load-exit"])
    def test_a_crashing_model_is_found_and_left_out(self, models, tmp_path, do):
        summary, events, rows = self.run_with(models, tmp_path, do)
        assert summary.failed == {"crashed": len(rows)}
        told = [event.message for event in events if event.event == "retry"]
        assert len(told) >= 2
        assert "the shard is tried again" in told[0]
        assert any("source3/bad/m.pmx" in line and "goes on without it" in line for line in told)
        if do == "draw-segfault":
            assert "SIGSEGV" in rows[0]

    def test_two_crashing_models_in_one_shard(self, models, tmp_path):
        root = tmp_path / "models"
        shutil.copytree(models, root)
        for number in range(2):
            fake.write_model(root / "source3" / f"bad{number}" / "m.pmx", f"bad {number}", "draw-exit")
        summary = fake.go(root, tmp_path / "d", 1, poses={"train": 33}, shard_size=1000)
        assert summary.failed == {"crashed": 2}
        assert summary.models == {"train": 9}
        assert verify_dataset(tmp_path / "d").problems == ()

    def test_a_model_that_vanishes_and_comes_back(self, models, reference, tmp_path):
        root, out = tmp_path / "models", tmp_path / "d"
        shutil.copytree(models, root)
        plan = plan_for(out, fake.options(), lambda: scan(root, examiner=fake.EXAMINER))
        lost = root / plan.models[2].path
        content = lost.read_bytes()
        lost.unlink()
        changed = root / plan.models[3].path
        other = changed.read_bytes()
        changed.write_text('{"name": "somebody else", "do": ""}')
        interrupted = False

        def stop(progress):
            nonlocal interrupted
            if progress.event == "failure":
                interrupted = True
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(plan, root, out, workers=1, backend=fake.BACKEND, on_progress=stop)
        assert interrupted
        summary = run(plan, root, out, workers=1, backend=fake.BACKEND)
        assert set(summary.failed) == {"model_missing", "model_changed"}
        assert verify_dataset(out).problems == ()
        # it is back: another run into a fresh folder with the same plan finds everything
        lost.write_bytes(content)
        changed.write_bytes(other)
        fresh = tmp_path / "fresh"
        fake.go(root, fresh, 2)
        assert_same(fresh, reference)

    def test_shards_with_failures_are_made_again_while_the_run_is_unfinished(self, models, reference, tmp_path):
        root, out = tmp_path / "models", tmp_path / "d"
        shutil.copytree(models, root)
        plan = plan_for(out, fake.options(), lambda: scan(root, examiner=fake.EXAMINER))
        lost = root / plan.models[2].path
        content = lost.read_bytes()
        lost.unlink()
        (out / "preview.png").mkdir()  # the end of the run fails, after all shards
        with pytest.raises(DatasetError, match=r"preview\.png"):
            run(plan, root, out, workers=2, backend=fake.BACKEND)
        lost.write_bytes(content)
        (out / "preview.png").rmdir()
        summary = run(plan, root, out, workers=2, backend=fake.BACKEND)
        assert summary.failed == {}
        assert_same(out, reference)

    def test_no_model_left(self, models, tmp_path):
        root, out = tmp_path / "models", tmp_path / "d"
        shutil.copytree(models, root)
        plan = plan_for(out, fake.options(), lambda: scan(root, examiner=fake.EXAMINER))
        shutil.rmtree(root)
        with pytest.raises(EngineError, match=r"no model of the train split could be drawn.*no longer there"):
            run(plan, root, out, workers=2, backend=fake.BACKEND)
        assert_no_debris(out)


class TestRunsThatEnd:
    def test_a_full_disk(self, models, reference, tmp_path, monkeypatch):
        out = tmp_path / "d"
        for writes in ("1", "3", "5"):  # a shard, a sidecar, a later shard
            monkeypatch.setenv("FAKE_ENOSPC", writes)
            with pytest.raises(DatasetError, match="the disk is full"):
                fake.go(models, out, 2)
            assert_no_debris(out)
        monkeypatch.delenv("FAKE_ENOSPC")
        fake.go(models, out, 2)
        assert_same(out, reference)

    def test_no_context(self, models, tmp_path, monkeypatch):
        monkeypatch.setenv("FAKE_NO_GL", "1")
        with pytest.raises(RenderError, match="no OpenGL context could be made"):
            fake.go(models, tmp_path / "d", 2)
        assert_no_debris(tmp_path / "d")

    def test_a_worker_that_cannot_even_start(self, models, tmp_path, monkeypatch):
        monkeypatch.setenv("FAKE_DEAD_START", "1")
        with pytest.raises(EngineError, match=r"could not start: it ended with exit status 7.*the driver says goodbye"):
            fake.go(models, tmp_path / "d", 2)

    def test_workers_that_are_killed_while_they_start(self, models, reference, tmp_path, monkeypatch):
        """Once is an accident (no memory for a moment), again and again is not."""
        (tmp_path / "few").mkdir()
        monkeypatch.setenv("FAKE_KILLED_STARTS", f"2:{tmp_path / 'few'}")
        told = []
        fake.go(models, tmp_path / "d", 1, on_progress=lambda progress: told.append(progress.message))
        assert_same(tmp_path / "d", reference)
        again = [line for line in told if "could not start: it was ended by SIGKILL" in line]
        assert len(again) == 2
        assert all("another one is started" in line for line in again)
        (tmp_path / "all").mkdir()
        monkeypatch.setenv("FAKE_KILLED_STARTS", f"99:{tmp_path / 'all'}")
        with pytest.raises(EngineError, match="could not start: it was ended by SIGKILL"):
            fake.go(models, tmp_path / "e", 1)
        assert len(list((tmp_path / "all").iterdir())) == STILLBORN

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals_end_everything(self, models, reference, tmp_path, number):
        out = tmp_path / "d"
        process = start(models, out, FAKE_DELAY="0.1")  # slow enough to be far from its end
        until(lambda: list(out.glob("train/*.h5")), 60)
        workers = children(process.pid)
        assert workers
        process.send_signal(number)
        code, _ = wait(process)
        assert code != 0
        until(lambda: not any(map(alive, workers)), 2)
        assert not (out / "manifest.json").exists()
        fake.go(models, out, 2)
        assert_same(out, reference)

    @pytest.mark.parametrize(("gpu", "expected"), [("", 6), ("1", 3)])
    def test_the_number_of_workers_suits_the_renderer(self, models, tmp_path, monkeypatch, gpu, expected):
        """A software renderer gets a worker a core, a GPU one for two cores."""
        monkeypatch.setattr("mmdgen.generate.engine.default_workers", lambda: 6)
        monkeypatch.setenv("FAKE_GPU", gpu)
        monkeypatch.setenv("FAKE_DELAY", "0.05")
        most = 0

        def count(progress):
            nonlocal most
            most = max(most, len(list((tmp_path / "d" / ".work").glob("worker-*.log"))))

        fake.go(models, tmp_path / "d", None, count, poses={"train": 80}, shard_size=8)
        assert most == expected

    @pytest.mark.parametrize(
        ("text", "expected"), [("max 100000\n", 64), ("200000 100000\n", 2), ("5000 100000\n", 1), ("odd", 64)]
    )
    def test_a_container_s_share_of_the_cores_is_respected(self, tmp_path, monkeypatch, text, expected):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(engine, "CPU_QUOTA", tmp_path / "cpu.max")
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
        assert engine.default_workers() == expected

    def test_only_one_run_a_folder(self, models, tmp_path):
        out = tmp_path / "d"
        process = start(models, out, FAKE_DELAY="1")
        until(lambda: list(out.glob(".work/worker-*.log")), 60)  # those come after the lock
        try:
            with pytest.raises(ConfigError, match="another run is working on"):
                fake.go(models, out, 2)
        finally:
            process.kill()
            wait(process)

    def test_other_options_are_refused_by_name(self, models, reference):
        before = tree(reference)
        with pytest.raises(ConfigError, match="--poses was 41, now 42; --seed was 5, now 6"):
            fake.go(models, reference, 2, poses={"train": 42, "validation": 7}, seed=6)
        assert tree(reference) == before

    def test_somebody_elses_folder_is_left_alone(self, models, tmp_path):
        (tmp_path / "thesis.tex").write_text("important")
        with pytest.raises(ConfigError, match=r"not empty and holds no plan\.json .*thesis\.tex"):
            fake.go(models, tmp_path, 2)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
        with pytest.raises(ConfigError, match="is a file"):
            fake.go(models, tmp_path / "thesis.tex", 2)


class TestScan:
    def test_one_bad_model_never_stops_it(self, models, tmp_path):
        root = tmp_path / "models"
        shutil.copytree(models, root)
        for how in ("exit", "kill", "segfault"):
            fake.write_model(root / "bad" / how / "m.pmx", how, f"scan-{how}")
        (root / "bad" / "no.pmx").write_bytes(b"not JSON")
        seen = []
        found = scan(root, workers=2, examiner=fake.EXAMINER, on_progress=lambda *progress: seen.append(progress[:2]))
        assert len(found.models) == 9
        assert found.reasons() == {"crashed": 3, "internal_error": 2, "duplicate": 1, "no_mouth_morph": 1}
        assert sorted(seen) == [(number, 16) for number in range(1, 17)]
        assert found == scan(root, workers=1, examiner=fake.EXAMINER)
        twin = next(rejection for rejection in found.rejected if rejection.code == "duplicate")
        assert (twin.path, twin.message) == ("source3/m3/m.pmx", "the same file as source1/twin/m.pmx")
        assert all(str(tmp_path) not in rejection.message for rejection in found.rejected)

    def test_the_limit_is_a_fixed_choice_over_the_folders(self, models):
        few = scan(models, workers=1, limit=4, examiner=fake.EXAMINER)
        assert len(few.models) == 4
        assert few == scan(models, workers=2, limit=4, examiner=fake.EXAMINER)
        assert len({model.source for model in few.models}) > 1

    def test_what_is_a_model(self, tmp_path):
        for name in (
            "a.pmx",
            "B.PMX",
            "sub/c.Pmd",
            "sub/d.pmx.bak",
            "._e.pmx",
            ".git/f.pmx",
            "__MACOSX/g.pmx",
            "sub/i.tmp-12/j.pmx",
            "h.txt",
        ):
            fake.write_model(tmp_path / name, name)
        (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
        assert find_models(tmp_path) == ["B.PMX", "a.pmx", "sub/c.Pmd"]
        with pytest.raises(ConfigError, match="does not exist"):
            find_models(tmp_path / "nowhere")
