"""Parts of a dataset: which shards they are, what batch systems say, and many of them in one folder at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_backend as fake
import parts_support as support
import pytest
from click.testing import CliRunner
from folders import assert_same, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_support import go, go_part, here, never, plan_in

from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.fsio import create_once, temporary_file, write_atomic
from mmdgen.generate import freeze, parts_locks
from mmdgen.generate.catalogue import Catalogue
from mmdgen.generate.merge import merge
from mmdgen.generate.parts import PartOf, from_environment, parse_part, parts_to_repeat
from mmdgen.generate.parts_locks import one_part, parts_begun, sole_writer
from mmdgen.generate.plan import plan_bytes, read_plan
from mmdgen.generate.remote import Place
from mmdgen.generate.run import run

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return support.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory) -> Path:
    """What one process makes of `models`, without parts."""
    out = tmp_path_factory.mktemp("reference") / "d"
    go(models, out)
    return out


def start(models: Path, out: Path, what: str, **environment: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, str(TESTS / "parts_support.py"), str(models), str(out), what],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def let_go(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Wait until all are ready, let them start in the same moment, and return (exit status, what they said)."""
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [(process.wait(60), process.communicate(timeout=60)[1]) for process in processes]


SLURM = {"ID": 3, "MIN": 1, "MAX": 16, "COUNT": 16, "STEP": 1}


def slurm(**changes: int | str | None) -> dict[str, str]:
    values = {**SLURM, **changes}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items() if value is not None}


def sge(number: int | str, first: int, last: int, step: int) -> dict[str, str]:
    values = {"ID": number, "FIRST": first, "LAST": last, "STEPSIZE": step}
    return {f"SGE_TASK_{name}": str(value) for name, value in values.items()}


NO_ARRAY = {f"SGE_TASK_{name}": "undefined" for name in ("ID", "FIRST", "LAST", "STEPSIZE")}


class TestWhichPart:
    @given(st.integers(1, 50), st.integers(0, 300))
    @settings(max_examples=50, deadline=None)
    def test_parts_share_all_shards_and_no_shard(self, count, shards):
        found = [list(PartOf(number, count).indices(shards)) for number in range(1, count + 1)]
        assert sorted(index for part in found for index in part) == list(range(shards))
        assert max(map(len, found)) - min(map(len, found)) <= 1

    @pytest.mark.parametrize(
        ("text", "environment", "expected"),
        [
            ("3/16", {}, "3/16"),
            (" 1/1 ", {}, "1/1"),
            ("auto", slurm(), "3/16"),
            ("auto", slurm(ID=0, MIN=0, MAX=7, COUNT=8), "1/8"),
            ("auto", slurm(ID=6, MIN=2, MAX=10, COUNT=5, STEP=2), "3/5"),
            ("auto", slurm(ID=4, MIN=4, MAX=4, COUNT=1), "1/1"),
            ("auto", {**slurm(), **NO_ARRAY}, "3/16"),
            ("auto/20", slurm(), "3/20"),
            ("auto/16", slurm(ID=7, MIN=3, MAX=7, COUNT=2), "7/16"),  # tasks 3 and 7 submitted again
            ("auto", sge(4, 1, 8, 1), "4/8"),
            ("auto", sge(8, 2, 10, 3), "3/3"),  # the range ends between two tasks
            ("auto/8", sge(4, 1, 8, 1), "4/8"),
            ("auto/8", {"PBS_ARRAY_INDEX": "8"}, "8/8"),
            ("auto/8", {"PBS_ARRAY_INDEX": "0"}, "8/8"),  # an array that counts from 0
            ("auto/8", {"PBS_ARRAYID": "5"}, "5/8"),
        ],
    )
    def test_what_is_understood(self, text, environment, expected):
        assert str(parse_part(text, environment)) == expected

    @pytest.mark.parametrize(
        ("text", "environment", "said"),
        [
            ("3", {}, "is not a part"),
            ("3/", {}, "is not a part"),
            ("-1/3", {}, "is not a part"),
            ("auto/x", {}, "is not a part"),
            ("0/3", {}, "1 <= i <= n"),
            ("4/3", {}, "1 <= i <= n"),
            ("auto", {}, "this is no task of a job array"),
            ("auto/4", {}, "this is no task of a job array"),
            ("auto", NO_ARRAY, "this is no task of a job array"),
            ("auto", slurm(MAX=None), "SLURM_ARRAY_TASK_MAX is not set, though others"),
            ("auto", slurm(COUNT=None), "SLURM_ARRAY_TASK_COUNT is not set, though others"),
            ("auto", slurm(ID=None), "SLURM_ARRAY_TASK_ID is not set, though others"),
            ("auto", slurm(ID="two"), "SLURM_ARRAY_TASK_ID is 'two', not a whole number"),
            ("auto", slurm(ID="-2"), "SLURM_ARRAY_TASK_ID is '-2', not a whole number"),
            ("auto", slurm(ID=3, MIN=1, MAX=7, COUNT=3), "not evenly spaced.*auto/n"),  # --array=1,3,7
            ("auto", slurm(STEP=0), "not evenly spaced"),
            ("auto", slurm(ID=17), "the array goes from 1 to 16 by 1"),
            ("auto", slurm(ID=3, MIN=2, MAX=10, COUNT=5, STEP=2), "the array goes from 2 to 10 by 2"),
            ("auto/16", slurm(ID=17), "must be 1 to 16 or 0 to 15"),
            ("auto", {"PBS_ARRAY_INDEX": "3"}, "PBS does not say how many.*auto/n"),
            ("auto", {"PBS_ARRAYID": "3"}, "PBS does not say how many.*auto/n"),
            ("auto/2", {"PBS_ARRAY_INDEX": "3"}, "must be 1 to 2 or 0 to 1"),
            ("auto/0", {"PBS_ARRAY_INDEX": "0"}, "must be"),
            ("auto", {"SGE_TASK_ID": "3"}, "SGE_TASK_FIRST is not set, though others"),
            ("auto", {**sge(3, 1, 8, 1), "SGE_TASK_ID": "undefined"}, "SGE_TASK_ID is 'undefined'"),
            ("auto", {**slurm(), "PBS_ARRAY_INDEX": "3"}, "Slurm and PBS are all set"),
        ],
    )
    def test_what_is_not(self, text, environment, said):
        with pytest.raises(ConfigError, match=said):
            parse_part(text, environment)

    @given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 40))
    @settings(max_examples=50, deadline=None)
    def test_the_tasks_of_an_array_are_all_parts_once(self, first, step, count):
        last = first + step * (count - 1)
        tasks = range(first, last + 1, step)
        found = [from_environment(slurm(ID=i, MIN=first, MAX=last, COUNT=count, STEP=step)) for i in tasks]
        assert found == [PartOf(number, count) for number in range(1, count + 1)]
        assert found == [from_environment(sge(i, first, last, step)) for i in tasks]

    @given(st.integers(0, 1), st.integers(1, 40))
    @settings(max_examples=40, deadline=None)
    def test_with_a_count_arrays_may_begin_at_0_or_1(self, first, count):
        tasks = range(first, first + count)
        found = [from_environment({"PBS_ARRAY_INDEX": str(i)}, count) for i in tasks]
        assert sorted(found) == [PartOf(number, count) for number in range(1, count + 1)]

    def test_which_parts_to_repeat(self):
        begun = [PartOf(1, 4), PartOf(2, 4)]
        assert parts_to_repeat([2, 6, 7], begun) == [PartOf(3, 4), PartOf(4, 4)]
        assert parts_to_repeat([2], [PartOf(1, 4), PartOf(1, 3)]) == []
        assert parts_to_repeat([2], []) == []


class TestOneFolder:
    @pytest.mark.parametrize("order", [("1/3", "2/3", "3/3"), ("3/3", "1/3", "2/3"), ("1/1",), ("2/2", "1/2")])
    @pytest.mark.parametrize("finish", ["merge", "render"])
    def test_parts_then_the_end(self, models, reference, tmp_path, order, finish):
        out = tmp_path / "d"
        for part in order:
            summary = go_part(models, out, part)
            assert not summary.dataset_complete
            assert not (out / "manifest.json").exists()
        assert summary.done == summary.shards == len(plan_in(models, out).shards)
        if finish == "merge":
            merge([out], Place(out))
        else:
            run(plan_in(models, out), models, out, engine=never)
        assert_same(out, reference)
        assert verify_dataset(out).problems == ()

    def test_what_a_part_says(self, models, tmp_path):
        out, seen = tmp_path / "d", []
        plan = plan_in(models, out)
        mine = [plan.shards[index] for index in PartOf(2, 3).indices(len(plan.shards))]
        images = sum(shard.images for shard in mine)
        summary = go_part(models, out, "2/3", on_progress=seen.append)
        assert seen[0].images == 0
        assert {event.total for event in seen} == {images}
        assert seen[-1].images == images
        value = json.loads(json.dumps(summary.to_json()))
        assert value["part"] == "2/3"
        assert value["shards"] == len(mine)
        assert value["dataset_shards"] == len(plan.shards)
        assert value["dataset_shards_done"] == len(mine)
        assert value["images"] == value["drawn"] == images
        assert value["samples"]["train"] == sum(shard.samples for shard in mine if shard.split == "train")
        assert not value["complete"]

    def test_a_part_that_is_done_does_nothing(self, models, tmp_path):
        out = tmp_path / "d"
        first = go_part(models, out, "1/2")
        before = tree(out)
        again = go_part(models, out, "1/2", never)
        assert again.complete
        assert again.drawn == 0
        assert again.images == first.images
        assert tree(out) == before

    def test_a_finished_dataset_is_left_alone(self, models, reference, tmp_path):
        out = tmp_path / "d"
        go(models, out)
        summary = go_part(models, out, "1/2", never)
        assert summary.complete
        assert summary.dataset_complete
        assert_same(out, reference)
        (out / "train" / "shard-00001.h5").unlink()
        with pytest.raises(ConfigError, match=r"has lost 1 shards since.*without --part makes them again"):
            go_part(models, out, "1/2", never)
        go(models, out)
        assert_same(out, reference)

    def test_more_parts_than_shards(self, models, tmp_path):
        summary = go_part(models, tmp_path / "d", "50/60", never)
        assert summary.own == 0
        assert summary.complete

    def test_failures_are_tried_again_as_in_a_run(self, models, reference, tmp_path):
        root, out = tmp_path / "models", tmp_path / "d"
        support.make_models(root)
        plan = plan_in(root, out)
        lost = root / plan.models[plan.shards[0].parts[0].model].path
        content = lost.read_bytes()
        lost.unlink()
        assert go_part(root, out, "1/2").failed == {"model_missing": 1}
        lost.write_bytes(content)
        assert go_part(root, out, "1/2").failed == {}
        go_part(root, out, "2/2")
        merge([out], Place(out))
        assert_same(out, reference)

    def test_other_options_are_refused(self, models, tmp_path):
        go_part(models, tmp_path / "d", "1/2")
        with pytest.raises(ConfigError, match="--seed was 5, now 6"):
            go_part(models, tmp_path / "d", "2/2", seed=6)

    def test_temporary_files_of_others_stay(self, models, tmp_path):
        out = tmp_path / "d"
        plan = plan_in(models, out)
        (out / "train").mkdir()
        mine = out / f"{plan.file(0)}.tmp-elsewhere-7-0"
        others = [out / f"{plan.file(1)}.tmp-elsewhere-8-0", out / ".work" / "train-00001.json.tmp-elsewhere-8-0"]
        others += [out / "plan.json.tmp-elsewhere-8-0", out / "provenance.jsonl.tmp-elsewhere-8-0"]
        for path in (mine, *others):
            path.write_bytes(b"half")
        go_part(models, out, "1/2")
        assert not mine.exists()
        assert all(path.exists() for path in others)

        def fails(*args: Any, **settings: Any) -> Any:
            raise DatasetError("the disk is full")

        with pytest.raises(DatasetError, match="full"):
            go_part(models, out, "2/4", fails)
        assert others[2].exists()
        assert not others[0].exists(), "these are now its own"
        go_part(models, out, "2/2")
        merge([out], Place(out))
        assert not list(out.rglob("*.tmp-*")), "the last one tidies up"


class TestAtOnce:
    def test_all_tasks_of_an_array_start_in_the_same_second(self, models, reference, tmp_path):
        """Three processes freeze the plan, make their shards and write into one folder, side by side."""
        out = tmp_path / "d"
        ended = let_go([start(models, out, f"{number}/3") for number in (1, 2, 3)])
        assert [code for code, _ in ended] == [0, 0, 0], ended
        assert len({said for _, said in ended}) == 1, "all have the same plan"
        assert parts_begun(out) == [PartOf(number, 3) for number in (1, 2, 3)]
        merge([out], Place(out))
        assert_same(out, reference)

    def test_a_part_that_is_killed_and_given_again(self, models, reference, tmp_path):
        """At every write that a part does: plan, provenance, shards and sidecars."""
        out, deaths = tmp_path / "d", 0
        for step in (2, 4, 7, 9):
            ((code, said),) = let_go([start(models, out, "1/2", FAKE_KILL_AT=str(step))])
            assert code in (0, -signal.SIGKILL), said
            deaths += code != 0
        assert deaths >= 3
        assert not (out / "manifest.json").exists()
        go_part(models, out, "2/2")
        go_part(models, out, "1/2")
        merge([out], Place(out))
        assert_same(out, reference)

    def test_the_first_plan_wins_and_the_same_one_is_taken(self, models, reference, tmp_path):
        """Two that have scanned before either has frozen: as if in the same instant."""
        out = tmp_path / "d"

        def scan_while_another_freezes() -> Catalogue:
            plan_in(models, out)
            return fake.catalogue(models)

        plan = Place(out).plan_for(fake.options(), scan_while_another_freezes)
        assert plan.digest == read_plan(out).digest  # type: ignore[union-attr]
        run(plan, models, out, engine=here)
        assert_same(out, reference)

    def test_another_plan_at_the_same_time_is_refused(self, models, reference, tmp_path):
        out = tmp_path / "d"
        fewer = fake.catalogue(models)
        fewer = Catalogue(fewer.models[:-1], fewer.rejected)

        def scan_while_another_freezes() -> Catalogue:
            plan_in(models, out)
            return fewer

        with pytest.raises(ConfigError, match=r"has just frozen a plan with 9 models .* this one found 8"):
            Place(out).plan_for(fake.options(), scan_while_another_freezes)
        go(models, out)
        assert_same(out, reference)  # its provenance, too, is that of the plan which won

    def test_other_options_at_the_same_time_are_refused(self, models, tmp_path):
        out = tmp_path / "d"

        def scan_while_another_freezes() -> Catalogue:
            plan_in(models, out, seed=9)
            return fake.catalogue(models)

        with pytest.raises(ConfigError, match="--seed was 9, now 5"):
            Place(out).plan_for(fake.options(), scan_while_another_freezes)

    def test_the_provenance_is_that_of_the_plan(self, models, reference, tmp_path):
        """A process that lost the race, or died in it, may have left another provenance in place."""
        out = tmp_path / "d"
        plan = plan_in(models, out)
        kept = freeze.kept_provenance(plan, out)
        assert kept.read_bytes() == (reference / "provenance.jsonl").read_bytes()
        (out / "provenance.jsonl").write_bytes(b"somebody else's")
        go(models, out)
        assert_same(out, reference)


class TestLocks:
    def test_who_may_work_beside_whom(self, tmp_path):
        with one_part(tmp_path, PartOf(1, 2), 9):
            with one_part(tmp_path, PartOf(2, 2), 9), one_part(tmp_path, PartOf(10, 10), 9):
                pass
            with (
                pytest.raises(ConfigError, match="another run is working on part 1/2"),
                one_part(tmp_path, PartOf(1, 2), 9),
            ):
                pass
            with (
                pytest.raises(ConfigError, match=r"part 1/2 of .* shards in common with part 2/3"),
                one_part(tmp_path, PartOf(2, 3), 9),
            ):
                pass
            with one_part(tmp_path, PartOf(2, 4), 9):  # shards 1 and 5, of which 1/2 has none
                pass
            with pytest.raises(ConfigError, match="another run is working on"), sole_writer(tmp_path):
                pass
        with sole_writer(tmp_path), pytest.raises(ConfigError, match="on all of"), one_part(tmp_path, PartOf(1, 2), 9):
            pass
        with one_part(tmp_path, PartOf(2, 3), 9):  # the lock of 1/2 lies there, and nobody holds it
            pass

    def test_merging_waits_for_parts(self, models, tmp_path):
        out = tmp_path / "d"
        go_part(models, out, "1/1")
        with one_part(out, PartOf(1, 1), 5), pytest.raises(ConfigError, match="another run is working on"):
            merge([out], Place(out))

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
    def test_file_systems_without_locks(self, models, reference, tmp_path, monkeypatch, number):
        import fcntl

        def missing(handle: int, how: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", missing)
        for part in ("1/2", "2/2"):
            go_part(models, tmp_path / "d", part)
        merge([tmp_path / "d"], Place(tmp_path / "d"))
        assert_same(tmp_path / "d", reference)

    def test_locks_say_whose_they_are(self, tmp_path):
        with sole_writer(tmp_path):
            first = (tmp_path / ".work" / "lock").read_text()
        with sole_writer(tmp_path):
            assert (tmp_path / ".work" / "lock").read_text() != first


class TestFiles:
    def test_only_the_first_creates(self, tmp_path):
        path = tmp_path / "plan.json"
        assert create_once(path, b"first")
        assert not create_once(path, b"second")
        assert path.read_bytes() == b"first"
        assert [member.name for member in tmp_path.iterdir()] == ["plan.json"]

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
    def test_without_hard_links(self, tmp_path, monkeypatch, number):
        def refuse(source: object, target: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", refuse)
        path = tmp_path / "plan.json"
        assert create_once(path, b"first")
        assert not create_once(path, b"second")
        assert path.read_bytes() == b"first"
        assert [member.name for member in tmp_path.iterdir()] == ["plan.json"]

    def test_a_link_whose_answer_was_lost(self, tmp_path, monkeypatch):
        """Over NFS a request may be done, repeated, and answered with: it exists."""
        link = os.link

        def twice(source: Path, target: Path) -> None:
            link(source, target)
            link(source, target)

        monkeypatch.setattr(os, "link", twice)
        assert create_once(tmp_path / "plan.json", b"first")

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DatasetError, match="the disk is full"):
            create_once(tmp_path / "plan.json", b"first")
        assert list(tmp_path.iterdir()) == []

    def test_temporary_names_are_nobody_elses(self, tmp_path, monkeypatch):
        """Two machines may have a process of the same number; two threads are of one process."""
        path = tmp_path / "x"
        first, stream = temporary_file(path)
        second, other = temporary_file(path)
        stream.close()
        other.close()
        assert first != second
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere.example/..")
        third, stream = temporary_file(path)
        stream.close()
        assert third.parent == tmp_path
        assert "elsewhere_example" in third.name
        write_atomic(path, b"content")
        assert path.read_bytes() == b"content"


class TestCommand:
    @pytest.fixture(autouse=True)
    def fakes(self, monkeypatch):
        for name in os.environ:
            if name.startswith(("SLURM_ARRAY", "PBS_ARRAY", "SGE_TASK")):
                monkeypatch.delenv(name)
        monkeypatch.setattr("mmdgen.generate.run.render_shards", here)
        monkeypatch.setattr("mmdgen.cli.render.scan", lambda models, *args, **settings: fake.catalogue(models))

    def mmdgen(self, *words: object) -> Any:
        from mmdgen.cli.main import cli

        return CliRunner().invoke(cli, [str(word) for word in words])

    def words(self, models: Path, out: Path) -> list[object]:
        poses = ["--poses", 41, "--validation-poses", 7, "--seed", 5, "--shard-size", 12]
        return ["render", "--models", models, "--out", out, *poses, "--size", 16, "--ambient", "0.5:1.2"]

    def test_what_is_refused_is_not_recommended(self, models, tmp_path, monkeypatch):
        words = self.words(models, tmp_path / "d")
        assert self.mmdgen(*words, "--plan-only").exit_code == 0
        refused = self.mmdgen(*words, "--seed", 6, "--part", "1/2")
        assert refused.exit_code == 1
        assert "was begun with other options: --seed was 5, now 6" in refused.output
        assert "the same command goes on" not in refused.output

        def fails(*words: Any, **settings: Any) -> Any:
            raise DatasetError("the disk is full")

        monkeypatch.setattr("mmdgen.generate.run.render_shards", fails)
        failed = self.mmdgen(*words, "--part", "1/2")
        assert failed.exit_code == 1
        assert "the disk is full" in failed.output
        assert "what is finished is kept; the same command goes on with it" in failed.output

    def test_from_the_plan_to_the_end(self, models, reference, tmp_path, monkeypatch):
        out = tmp_path / "d"
        words = self.words(models, out)
        planned = self.mmdgen(*words, "--plan-only")
        assert planned.exit_code == 0, planned.output
        assert f"the plan is frozen in {out}" in planned.output
        assert read_plan(out) is not None
        monkeypatch.setattr("mmdgen.cli.render.scan", never)  # every task uses the frozen plan
        for task in (1, 2):
            for name, value in slurm(ID=task, MIN=1, MAX=2, COUNT=2, STEP=1).items():
                monkeypatch.setenv(name, value)
            result = self.mmdgen(*words, "--part", "auto")
            assert result.exit_code == 0, result.output
            assert f"part {task}/2:" in result.output
        assert f"To finish it:\n           mmdgen merge {out}" in result.output
        again = self.mmdgen(*words, "--part", "2/2", "--json")
        assert json.loads(again.output)["complete"]
        merged = self.mmdgen("merge", out)
        assert merged.exit_code == 0, merged.output
        assert f"dataset:        {out}" in merged.output
        assert_same(out, reference)
        assert "is complete already" in self.mmdgen(*words, "--part", "1/2").output

    def test_unfinished_is_said(self, models, tmp_path):
        out = tmp_path / "d"
        result = self.mmdgen(*self.words(models, out), "--part", "1/2")
        assert "of 5 shards are in" in result.output
        assert "it is not finished" in result.output
        merged = self.mmdgen("merge", out)
        assert merged.exit_code == 1
        assert "run again part 2/2" in merged.output

    @pytest.mark.parametrize(
        "extra",
        [
            ["--part", "3/2"],
            ["--part", "x"],
            ["--part", "auto"],
            ["--plan-only", "--part", "1/2"],
            ["--plan-only", "--dry-run"],
            ["--part", "1/2", "--retry-failed"],
            ["--staging", "somewhere"],
        ],
    )
    def test_wrong_usage(self, models, tmp_path, extra):
        result = self.mmdgen(*self.words(models, tmp_path / "d"), *extra)
        assert result.exit_code == 2
        assert not (tmp_path / "d").exists()

    def test_a_dry_run_writes_nothing(self, models, tmp_path):
        assert self.mmdgen(*self.words(models, tmp_path / "d"), "--dry-run").exit_code == 0
        assert list(tmp_path.iterdir()) == []


def test_the_plan_does_not_know_of_parts(models, reference, tmp_path):
    go_part(models, tmp_path / "d", "1/2")
    assert (tmp_path / "d" / "plan.json").read_bytes() == (reference / "plan.json").read_bytes()
    plan = read_plan(tmp_path / "d")
    assert plan is not None
    assert plan_bytes(plan) == (reference / "plan.json").read_bytes()
    assert parts_locks.parts_begun(tmp_path / "nowhere") == []
