"""Long runs: a lost driver or process costs one shard, progress is true after a resume, memory and plans stay small."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import breaking_backend
import fake_backend as fake
import pytest
from conftest import gl_problem
from folders import tree
from test_plan import catalogue

from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import DeviceLostError, EngineError, RenderError
from mmdgen.generate import plan as plan_module
from mmdgen.generate import shard as shard_module
from mmdgen.generate.catalogue import UsableModel, scan
from mmdgen.generate.engine import Progress, Retries
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.plan import make_plan, read_plan, write_plan
from mmdgen.generate.pool import DEVICE_LOST, Death, describe_exit
from mmdgen.generate.run import plan_for, run
from mmdgen.generate.shard import ShardTask
from mmdgen.generate.timings import STAGES, append_timing, read_timings, timings_file
from mmdgen.model import resolve

ROOT = Path(__file__).resolve().parents[1]
MODELS = 12
PER_SHARD = 3  # models


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for index in range(MODELS):
        fake.write_model(root / f"source{index % 3}" / f"m{index}" / "m.pmx", f"model {index}")
    return root


def make(models: Path, out: Path, backend: str = fake.BACKEND, workers: int = 1) -> list[Progress]:
    """Make four shards of three models, four samples each; return what was told on the way."""
    told: list[Progress] = []
    options = fake.options(poses={"train": 4 * MODELS}, shard_size=4 * PER_SHARD)
    plan = plan_for(out, options, lambda: scan(models, workers=1, examiner=fake.EXAMINER))
    assert [len(shard.parts) for shard in plan.shards] == [PER_SHARD] * 4
    run(plan, models, out, workers=workers, backend=backend, on_progress=told.append)
    return told


@pytest.fixture(scope="module")
def undisturbed(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "d"
    make(models, out)
    return out


class TestWhatBreaks:
    def broken(self, models, tmp_path, monkeypatch, how: str, at: int, workers: int = 1, times: int = 1):
        for name, value in {"HOW": how, "AT": str(at), "TIMES": str(times), "FOLDER": str(tmp_path)}.items():
            monkeypatch.setenv(f"BREAK_{name}", value)
        told = make(models, tmp_path / "d", breaking_backend.BACKEND, workers)
        assert len(list(tmp_path.glob("broken-*"))) == times, "the fault was not met"
        drawn = Counter(line.split()[1] for line in (tmp_path / "drawn").read_text().splitlines())
        return told, drawn

    @pytest.mark.parametrize("how", ["error", "silent", "kill"])
    def test_one_reset_costs_one_shard(self, models, undisturbed, tmp_path, monkeypatch, how):
        """The fifth model is the second one of the second shard."""
        told, drawn = self.broken(models, tmp_path, monkeypatch, how, at=5)
        assert tree(tmp_path / "d") == tree(undisturbed)
        assert told[-1].images == told[-1].drawn == told[-1].total, "a repeated shard counts once"
        assert max(progress.images for progress in told) == told[-1].total
        retries = [progress for progress in told if progress.event == "retry"]
        assert len(retries) == 1
        assert "train shard 1" in retries[0].message
        assert ("lost its OpenGL context" in retries[0].message) == (how != "kill")
        assert len(drawn) == MODELS
        assert sorted(drawn.values()) == [1] * (MODELS - 2) + [2, 2], "of the shard, what was drawn is drawn again"
        assert not [progress for progress in told if progress.event == "failure"]
        assert [row["shard"] for row in read_timings(tmp_path / "d")] == [f"train/shard-0000{n}.h5" for n in range(4)]

    def test_a_reset_takes_the_context_of_every_worker_and_a_shard_each(
        self, models, undisturbed, tmp_path, monkeypatch
    ):
        told, drawn = self.broken(models, tmp_path, monkeypatch, "error", at=2, workers=2, times=2)
        assert tree(tmp_path / "d") == tree(undisturbed)
        assert len({p.message.split(":")[0] for p in told if p.event == "retry"}) == 2
        assert sum(drawn.values()) == MODELS + 4

    def test_a_model_that_always_takes_the_driver_down_is_left_out(self, models, tmp_path, monkeypatch):
        """The first model that a process draws. Once may be an accident, in the repeats it is the only suspect."""
        told, _ = self.broken(models, tmp_path, monkeypatch, "silent", at=1, times=3)
        rows = [json.loads(line) for line in (tmp_path / "d" / "failures.jsonl").read_text().splitlines()]
        assert [row["code"] for row in rows] == ["crashed"]
        assert "drawing it ends the process: it lost its OpenGL context" in rows[0]["message"]
        assert len(list(Dataset(tmp_path / "d", "train"))) == 4 * (MODELS - 1)
        assert told[-1].images == told[-1].total

    def test_a_driver_that_never_comes_back_ends_the_run(self, models, tmp_path):
        """Not model after model is to be blamed; a shard that is finished between shows that it can draw."""
        options = fake.options(poses={"train": 4 * MODELS}, shard_size=48)
        plan = plan_for(tmp_path / "d", options, lambda: scan(models, workers=1, examiner=fake.EXAMINER))
        gone = Death(DEVICE_LOST, describe_exit(DEVICE_LOST), "the OpenGL context was lost: all is black")
        retries = Retries(plan)

        def blame(model: int, task: ShardTask) -> ShardTask:
            for _ in range(2):
                task, _ = retries.after_death(task, gone, ("draw", model))
            return task

        task, _ = retries.after_death(ShardTask(0), gone, ("draw", 0))
        for model in range(3):
            task = blame(model, task)
        assert [model for model, _ in task.crashed] == [0, 1, 2]
        retries.finished()
        for model in range(3, 6):
            task = blame(model, task)
        with pytest.raises(EngineError, match=r"the driver or the GPU is at fault.*all is black"):
            blame(6, task)


@pytest.mark.skipif(bool(gl_problem()), reason=gl_problem() or "can draw")
class TestPulse:
    def test_it_beats_and_notices(self):
        from mmdgen.render.pulse import Pulse
        from mmdgen.render.renderer import Renderer

        with Renderer() as renderer:
            pulse = Pulse(renderer.context)
            for _ in range(300):  # over the end of a byte
                pulse.check()
            renderer.context.enable_direct(0xFFFF)  # somebody's error from before is not the context's fault
            pulse.check()
            pulse._picture.release()  # what a lost context does: nothing
            with pytest.raises(DeviceLostError, match="256 of 256 pixels of a known picture are wrong"):
                pulse.check()


class TestProgress:
    def test_after_a_resume(self, models, tmp_path):
        """Images count from where the first start stopped; the rate and the time left are this start's alone."""
        out, told = tmp_path / "d", []
        options = fake.options(poses={"train": 4 * MODELS}, shard_size=4 * PER_SHARD)
        plan = plan_for(out, options, lambda: scan(models, workers=1, examiner=fake.EXAMINER))

        def stop(progress: Progress) -> None:
            if progress.event == "shard" and progress.images >= plan.images // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(plan, models, out, workers=1, backend=fake.BACKEND, on_progress=stop)
        kept = sum(shard_module.read_sidecar(plan, index, out) is not None for index in range(4))
        assert 2 <= kept <= 3  # the worker may have been one ahead
        summary = run(plan, models, out, workers=1, backend=fake.BACKEND, on_progress=told.append)
        each = PER_SHARD + 2 * 4 * PER_SHARD
        assert plan.images == 4 * each
        assert (told[0].event, told[0].images, told[0].drawn, told[0].rate) == ("start", kept * each, 0, 0.0)
        assert all(progress.images - progress.drawn == kept * each for progress in told)
        assert (told[-1].images, told[-1].drawn) == (plan.images, (4 - kept) * each)
        assert told[-1].rate == pytest.approx(told[-1].drawn / told[-1].seconds)
        assert [p.images for p in told] == sorted(p.images for p in told)
        assert summary.drawn == (4 - kept) * each
        assert summary.images == plan.images


class TestRetryFailed:
    def test_what_failed_is_tried_again_and_nothing_else(self, models, undisturbed, tmp_path):
        root, out = Path(shutil.copytree(models, tmp_path / "models")), tmp_path / "d"
        options = fake.options(poses={"train": 4 * MODELS}, shard_size=4 * PER_SHARD)
        plan = plan_for(out, options, lambda: scan(root, workers=1, examiner=fake.EXAMINER))
        lost = root / plan.models[5].path
        kept = lost.read_bytes()
        lost.unlink()
        first = run(plan, root, out, workers=1, backend=fake.BACKEND)
        assert first.failed == {"model_missing": 1}
        before = {path.name: path.stat().st_mtime_ns for path in (out / "train").iterdir()}
        assert run(plan, root, out, workers=1, backend=fake.BACKEND).complete
        lost.write_bytes(kept)
        told: list[Progress] = []
        again = run(plan, root, out, workers=1, backend=fake.BACKEND, retry_failed=True, on_progress=told.append)
        assert (again.failed, again.complete) == ({}, False)
        assert again.drawn == PER_SHARD + 2 * 4 * PER_SHARD
        assert told[0].images == 3 * again.drawn
        after = {path.name: path.stat().st_mtime_ns for path in (out / "train").iterdir()}
        assert sum(after[name] != before[name] for name in after) == 1
        assert tree(out) == tree(undisturbed)
        assert run(plan, root, out, workers=1, backend=fake.BACKEND, retry_failed=True).complete


class TestTimings:
    def test_they_lie_beside_the_dataset_and_change_nothing(self, models, undisturbed, tmp_path):
        make(models, tmp_path / "d", workers=2)
        assert tree(tmp_path / "d") == tree(undisturbed)
        assert verify_dataset(tmp_path / "d").problems == ()
        assert timings_file(tmp_path / "d") == tmp_path / "d-timings.jsonl"
        rows = read_timings(tmp_path / "d")
        assert sorted(row["shard"] for row in rows) == [f"train/shard-0000{number}.h5" for number in range(4)]
        for row in rows:
            assert row["images"] == PER_SHARD + 2 * row["samples"]
            assert set(row["seconds"]) == set(STAGES)
            assert 0 < row["seconds"]["draw"] <= row["total"]
            assert 0 < row["seconds"]["write"] <= row["total"]
            assert row["memory"] > 10e6
        assert len({row["start"] for row in rows}) == 1

    def test_a_file_that_cannot_be_written_stops_nothing(self, models, undisturbed, tmp_path):
        (tmp_path / "d-timings.jsonl").mkdir()
        make(models, tmp_path / "d")
        assert tree(tmp_path / "d") == tree(undisturbed)
        assert read_timings(tmp_path / "d") == []

    def test_damaged_lines_are_passed_over(self, tmp_path):
        row: dict[str, Any] = dict.fromkeys(("at", "total", "cpu", "images", "memory", "bytes", "samples"), 1)
        row |= {"start": "a", "worker": 1, "shard": "x", "seconds": dict.fromkeys(STAGES, 1)}
        append_timing(tmp_path / "d", row)
        with (tmp_path / "d-timings.jsonl").open("ab") as file:
            file.write(b'{"at": 1}\n\xff\n[]\n{"at": "1')
        append_timing(tmp_path / "d", row)  # after half a line: lost with it
        append_timing(tmp_path / "d", row)
        assert len(read_timings(tmp_path / "d")) == 2
        assert timings_file(Path("/")) is None


class TestPlanning:
    """What is counted is work, which no busy machine changes; `test_plan` and `tools/bench/planning.py` take times."""

    def test_the_work_is_linear(self, tmp_path, monkeypatch):
        calls: Counter[str] = Counter()

        def count(owner, name):
            original = getattr(owner, name)

            def counted(*args, **kwargs):
                calls[name] += 1
                return original(*args, **kwargs)

            monkeypatch.setattr(owner, name, counted)

        count(plan_module.rng, "fraction")
        count(plan_module, "json_line")
        count(UsableModel, "to_json")
        count(RenderOptions, "dataset_config")
        found = []
        for size in (200, 400):
            calls.clear()
            plan = make_plan(RenderOptions(poses={"train": 125 * size}, size=256), catalogue(size))
            out = tmp_path / str(size)
            out.mkdir()
            write_plan(plan, out)
            again = read_plan(out)
            assert again is not None
            for index in range(len(plan.shards)):
                assert shard_module.read_sidecar(again, index, out) is None
            assert calls["dataset_config"] <= 2, "looking at a sidecar must not make the configuration"
            found.append((len(plan.shards), dict(calls)))
        (shards, few), (more_shards, many) = found
        assert few["fraction"] <= 2 * 200
        assert few["json_line"] <= 2 * (200 + shards) + 60
        for name in few:
            assert many[name] <= 2 * few[name] + 2 * (more_shards - shards)


@pytest.mark.skipif(bool(gl_problem()), reason=gl_problem() or "can draw")
def test_memory_stays_flat_over_many_models():
    """After a warm-up: as many objects of every kind in GL, as many in Python, and nearly as many bytes as before.

    In a process of its own (`tools/bench/long_run.py memory`), in which nothing else comes and goes.
    """
    command = [sys.executable, str(ROOT / "tools/bench/long_run.py"), "memory", "--models", "3", "--rounds", "3"]
    done = subprocess.run([*command, "--size", "32", "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["models"] == 9
    assert found["gl_before"]["Texture"] >= 3, "nothing was counted"
    assert found["gl_before"]["Program"] >= 3
    assert set(found["gl_growth"].values()) == {0}
    assert found["python_growth"] < 10 * 6, "objects are kept for each model"
    assert found["memory_growth_mb"] < 150


def test_a_model_that_does_not_fit_leaves_nothing_behind(monkeypatch):
    """Where uploading a model fails, its buffers are freed: the next models need the room."""
    from mmdgen.render import scene

    released = []

    class Upload:
        def __init__(self, *_: Any) -> None:
            pass

        def release(self) -> None:
            released.append(self)

    def refuse(context: Any, doing: str) -> None:
        raise RenderError(f"OpenGL reports GL_OUT_OF_MEMORY after {doing}")

    monkeypatch.setattr(scene, "Upload", Upload)
    monkeypatch.setattr(scene, "check_errors", refuse)
    with pytest.raises(RenderError, match="GL_OUT_OF_MEMORY after uploading"):
        scene.Scene(SimpleNamespace(context=None), SimpleNamespace(rig=None, view=None))  # type: ignore[arg-type]
    assert len(released) == 1


class TestFolders:
    def test_few_are_kept(self, tmp_path, monkeypatch):
        """However many folders are looked into, names are kept up to the limit; what is found stays the same."""
        monkeypatch.setattr(resolve, "_CACHED_NAMES", 40)
        resolve.forget_folders()
        for number in range(30):
            folder = tmp_path / f"m{number}"
            folder.mkdir()
            for name in ("Face.PNG", "hair.png", "b.bmp"):
                (folder / name).touch()
            assert resolve.resolve(folder, "face.png") == folder / "Face.PNG"
            kept = resolve._cache.listings
            assert sum(len(listing.by_name) + 1 for listing in kept.values()) <= 40
        assert len(kept) > 1
        resolve.forget_folders()
        assert resolve.resolve(tmp_path / "m3", "HAIR.png") == tmp_path / "m3" / "hair.png"
