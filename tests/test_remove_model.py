"""remove-model: what stays is as it was, what goes is nowhere any more, and interruptions change nothing in that."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dataset_fixtures as made
import fake_backend as fake
import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from folders import tree

from mmdgen import rng
from mmdgen.cli.main import cli
from mmdgen.dataset.export import ExportOptions, export_dataset
from mmdgen.dataset.manifest import Manifest, read_manifest
from mmdgen.dataset.preview import contact_sheet
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.schema import ShardHeader
from mmdgen.dataset.shard_copy import shard_without
from mmdgen.dataset.verify import verify_dataset
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.generate import removal
from mmdgen.generate.lists import HashList
from mmdgen.generate.parts_locks import sole_writer
from mmdgen.generate.plan import parse_plan, plan_bytes, read_plan
from mmdgen.generate.removal import find_removal, models_on_list, remove_models

TESTS = Path(__file__).parent
# The model that is taken out has these words in its name, path, comment and readme, and no other has them.
SECRET = "ひみつの子"
SECRET_FOLDER = "secretfolder"
SECRET_TERMS = "商用利用は禁止です。 by Nobody Else"


def mmdgen(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def samples(out: Path, split: str) -> list[tuple[Any, ...]]:
    return [
        (s.model, s.pose.tobytes(), s.rest.tobytes(), s.expression.tobytes(), s.posed.tobytes())
        for s in Dataset(out, split)
    ]


@pytest.fixture(name="models", scope="module")
def models_fixture(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for index in range(8):
        fake.write_model(root / f"source{index % 4}" / f"m{index}" / "m.pmx", f"モデル {index}")
    secret = fake.write_model(root / "source1" / SECRET_FOLDER / "m.pmx", SECRET)
    (secret.parent / "readme.txt").write_text(SECRET_TERMS, "utf-8")
    fake.write_model(root / "source3" / f"{SECRET_FOLDER}2" / "copy.pmx", SECRET)  # a duplicate, rejected
    fake.write_model(root / "source0" / "mute" / "m.pmx", "mute", "no-mouth")
    fake.write_model(root / "source2" / "broken" / "m.pmx", "breaks", "render-error")
    return root


@pytest.fixture(name="finished", scope="module")
def finished_fixture(models, tmp_path_factory) -> Path:
    """33 training samples in three shards and 8 of validation, each model in one shard of them."""
    out = tmp_path_factory.mktemp("finished") / "d"
    fake.go(models, out, 1, poses={"train": 33, "validation": 8})
    return out


@pytest.fixture(name="out")
def out_fixture(finished, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "d"))


def hash_of(manifest: Manifest, name: str) -> str:
    return next(model.sha256 for model in manifest.models if model.name == name)


def secret_of(out: Path) -> str:
    return hash_of(read_manifest(out), SECRET)


def render(models: Path, out: Path) -> Any:
    return fake.go(models, out, 1, poses={"train": 33, "validation": 8})


def no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "catalogue", lambda *_, **__: pytest.fail("nothing is scanned again"))


# --- what goes and what stays -----------------------------------------------------------------------------------------


def test_the_others_stay_as_they_were(finished, out):
    secret = secret_of(out)
    before = read_manifest(out)
    (split,) = {model.split for model in before.models if model.sha256 == secret}
    removal = remove_models(out, [secret])
    assert removal.models == (secret,)
    assert removal.names == {secret: SECRET}
    assert removal.samples[split] == 4 == sum(removal.samples.values())
    assert verify_dataset(out).problems == ()
    for name in ("train", "validation"):
        kept = [row for row in samples(finished, name) if row[0].sha256 != secret]
        assert samples(out, name) == kept
    after = read_manifest(out)
    assert after.removed == (secret,)
    assert after.shards_plan == before.files["plan.json"] != after.files["plan.json"]
    assert [model for model in before.models if model.sha256 != secret] == list(after.models)
    changed = {name for name, content in tree(out).items() if tree(finished)[name] != content}
    sidecars = {"manifest.json", "plan.json", "provenance.jsonl", "failures.jsonl", "README.md", "preview.png"}
    assert changed == sidecars | set(removal.shards)
    assert len(removal.shards) == 1
    assert (out / "preview.png").read_bytes() == contact_sheet(out)
    assert sorted(tree(out)) == sorted(tree(finished))


def test_nothing_of_the_model_stays(finished, out):
    secret = secret_of(out)
    words = {SECRET, SECRET_FOLDER, SECRET_TERMS}
    traces = {word.encode(code) for word in words for code in ("utf-8", "utf-16-le", "cp932")}
    traces |= {json.dumps(word).strip('"').encode() for word in words}
    for split, infos in read_manifest(out).shards.items():  # and none of its pictures, as they are stored
        for info in infos:
            with h5py.File(out / info.file) as shard:
                table: Any = shard["models/sha256"]
                rows = [row for row, sha256 in enumerate(table.asstr()[:]) if sha256 == secret]
                model: Any = shard["model"]
                for name, places in (
                    ("models/rest", rows),
                    ("expression", np.flatnonzero(np.isin(model[:], rows))),
                    ("posed", np.flatnonzero(np.isin(model[:], rows))),
                ):
                    images: Any = shard[name]
                    traces |= {images.id.read_direct_chunk((int(place), 0, 0, 0))[1] for place in places}
        assert split
    assert len(traces) == 4 + 4 + 2 + 9  # ASCII is the same in two codes and as JSON; then a rest image and 2 x 4 more
    whole = b"".join(tree(finished).values())
    assert sum(trace in whole for trace in traces) == 3 + 9, "the search finds what is there"
    remove_models(out, [secret[:8]])
    for name, content in tree(out).items():
        assert [trace[:40] for trace in traces if trace in content] == [], name
        assert (secret.encode() in content) == (name in ("manifest.json", "plan.json")), name


def test_rendering_again_does_not_bring_it_back(models, out, monkeypatch):
    remove_models(out, [secret_of(out)])
    before = tree(out)
    no_scan(monkeypatch)
    assert render(models, out).complete
    assert tree(out) == before


def test_a_lost_shard_is_made_again_without_it(models, out):
    """A rewritten shard is what drawing the rest gives, byte for byte."""
    removal = remove_models(out, [secret_of(out)])
    before = tree(out)
    (out / removal.shards[0]).unlink()
    with pytest.raises(DatasetError, match="is missing"):
        Dataset(out, removal.shards[0].partition("/")[0])
    summary = render(models, out)
    assert not summary.complete
    assert tree(out) == before


def test_one_after_the_other(finished, out):
    first = read_manifest(finished)
    names = (SECRET, "モデル 2", "モデル 5")
    for name in names:
        remove_models(out, [hash_of(first, name)])
        assert verify_dataset(out).problems == ()
    manifest, plan = read_manifest(out), read_plan(out)
    assert plan is not None
    assert set(manifest.removed) == set(plan.removed) == {hash_of(first, name) for name in names}
    assert manifest.origin == plan.origin == first.files["plan.json"]
    assert plan_bytes(plan) == (out / "plan.json").read_bytes()
    at_once = Path(shutil.copytree(finished, out.with_name("at_once")))
    remove_models(at_once, [hash_of(first, name)[:12] for name in names])
    assert tree(at_once) == tree(out)


def test_models_that_are_in_no_picture(out):
    rows = [json.loads(line) for line in (out / "failures.jsonl").read_text("utf-8").splitlines()]
    failed = next(row["sha256"] for row in rows if row["code"] == "render_error")
    rejected = next(row["sha256"] for row in rows if row["code"] == "no_mouth_morph")
    removal = remove_models(out, [failed, rejected])
    assert removal.samples == {"train": 0, "validation": 0}
    assert removal.rows == 2
    assert verify_dataset(out).problems == ()
    assert not any(word in content for content in tree(out).values() for word in (b"broken/m.pmx", b"mute/m.pmx"))
    plan = read_plan(out)
    assert plan is not None
    assert failed not in {model.id for model in plan.models}


def test_a_split_may_become_empty(models, out):
    first = read_manifest(out)
    gone = [model.sha256 for model in first.models if model.split == "validation"]
    removal = remove_models(out, gone)
    assert removal.left["validation"] == 0
    assert verify_dataset(out).problems == ()
    assert len(Dataset(out, "validation")) == 0
    before = tree(out)
    (out / "validation" / "shard-00000.h5").unlink()
    render(models, out)
    assert tree(out) == before


def test_everything_is_refused(out):
    before = tree(out)
    with pytest.raises(ConfigError, match="no sample would be left"):
        remove_models(out, [model.sha256 for model in read_manifest(out).models])
    assert tree(out) == before


# --- which model is meant ---------------------------------------------------------------------------------------------


def test_hashes_that_are_refused(out, monkeypatch):
    secret, before = secret_of(out), tree(out)
    for text, message in (
        (secret[:7], "8 to 64 hexadecimal digits"),
        (secret + "0", "8 to 64 hexadecimal digits"),
        ("ghijklmn", "8 to 64 hexadecimal digits"),
        ("f" * 64, "no model here has a hash that begins with ffffffffffffffff"),
    ):
        with pytest.raises(ConfigError, match=message):
            remove_models(out, [text])
    assert tree(out) == before
    twin = secret[:10] + "0" * 54

    def with_twin(value):
        value["rejected"].append({"path": "x.pmx", "code": "denied", "message": "", "sha256": twin})

    made.edit_manifest(out, with_twin)
    with pytest.raises(ConfigError, match=r"2 models begin with .*give more digits"):
        find_removal(out, [secret[:9]])
    assert find_removal(out, [f"  {secret[:14].upper()} "]).models == (secret,)


def test_again_is_not_an_error(out):
    secret = secret_of(out)
    remove_models(out, [secret])
    before = tree(out)
    removal = remove_models(out, [secret])
    assert (removal.models, removal.already) == ((), (secret,))
    assert tree(out) == before


def test_datasets_that_are_refused(finished, tmp_path, out):
    with pytest.raises(DatasetError, match="no such dataset"):
        remove_models(tmp_path / "nothing", ["a" * 64])
    assert not (tmp_path / "nothing").exists()
    secret = secret_of(out)
    shard = out / find_removal(out, [secret]).shards[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    before = tree(out)
    with pytest.raises(DatasetError, match="is missing or damaged, so nothing was changed"):
        remove_models(out, [secret])
    assert {name: c for name, c in tree(out).items() if name != ".work/lock"} == before
    shutil.copy(finished / shard.relative_to(out), shard)
    (out / "plan.json").write_bytes((out / "plan.json").read_bytes() + b" ")
    with pytest.raises(DatasetError, match=r"plan\.json: is missing or was changed"):
        remove_models(out, [secret])
    assert read_manifest(out).removed == ()


@pytest.mark.parametrize("name", ["provenance.jsonl", "failures.jsonl"])
def test_what_stands_beside_the_shards_is_looked_at_first(out, name):
    content = (out / name).read_bytes()
    for broken in (content[:-9], None):
        (out / name).unlink() if broken is None else (out / name).write_bytes(broken)
        before = tree(out)
        with pytest.raises(DatasetError, match=rf"{name}: is missing or was changed, so nothing was done"):
            remove_models(out, [secret_of(out)])
        assert {**tree(out), ".work/lock": b""} == {**before, ".work/lock": b""}
    (out / name).write_bytes(content)
    remove_models(out, [secret_of(out)])
    assert verify_dataset(out).problems == ()


def test_where_nothing_may_be_written_nothing_is_begun(out, monkeypatch):
    secret, before = secret_of(out), tree(out)
    folder = (out / find_removal(out, [secret]).shards[0]).parent
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)  # permissions do not stop root
    with pytest.raises(DatasetError, match=f"{folder}: nothing may be written there, so nothing was changed"):
        remove_models(out, [secret])
    assert {file: data for file, data in tree(out).items() if file != ".work/lock"} == before


def test_a_file_that_cannot_be_read_is_an_error(out, monkeypatch):
    secret, before = secret_of(out), tree(out)
    file = find_removal(out, [secret]).shards[0]
    really = removal.sha256_file

    def locked(path: Path) -> str:  # permissions do not stop root
        if path == out / file:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(removal, "sha256_file", locked)
    with pytest.raises(DatasetError, match=f"{file}: cannot be read: Permission denied; nothing was changed"):
        remove_models(out, [secret])
    assert {name: data for name, data in tree(out).items() if name != ".work/lock"} == before


def test_a_model_more_in_a_damaged_shard_does_not_spoil_what_was_begun(out, monkeypatch):
    secret = secret_of(out)
    (mine,) = find_removal(out, [secret]).shards
    other, theirs = next(
        (model.sha256, shard)
        for model in read_manifest(out).models
        for shard in find_removal(out, [model.sha256]).shards
        if shard != mine
    )
    with monkeypatch.context() as patch:
        patch.setattr(removal, "shard_without", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove_models(out, [secret])
    content = (out / theirs).read_bytes()
    (out / theirs).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DatasetError, match="is missing or damaged, so nothing was changed"):
        remove_models(out, [secret, other])
    remove_models(out, [secret])
    assert read_manifest(out).removed == (secret,)
    (out / theirs).write_bytes(content)
    remove_models(out, [other])
    assert verify_dataset(out).problems == ()


def test_pages_that_cannot_be_read_or_are_others_stay(out):
    (out / "folder.html").mkdir()
    (out / "broken.html").symlink_to(out / "nowhere")
    (out / "mine.html").write_text("<h1>Dataset of mine</h1>")
    assert mmdgen("report", out, "--out", out / "page.html").exit_code == 0
    remove_models(out, [secret_of(out)])
    assert sorted(path.name for path in out.glob("*.html")) == ["broken.html", "folder.html", "mine.html"]


def test_not_while_somebody_renders(out):
    with sole_writer(out), pytest.raises(ConfigError, match="another run is working"):
        remove_models(out, [secret_of(out)])
    assert verify_dataset(out).problems == ()


# --- interruptions ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


class Clock:
    """Ends the process, as far as the code can tell, at the n-th step of writing, moving or deleting anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.steps, self.at, self.dead = 0, at, False
        monkeypatch.setattr(os, "fsync", self._counted(os.fsync))
        for name in ("replace", "unlink", "rmdir"):
            monkeypatch.setattr(Path, name, self._counted(getattr(Path, name)))

    def _counted(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            if self.dead or self.steps == self.at:
                self.dead = True  # nothing that tidies up may work either
                raise Killed
            return function(*args, **kwargs)

        return call


def settled(out: Path, finished: Path, reference: dict[str, bytes]) -> bool:
    """Whether the folder is, apart from the work folder, one of the two states in which it may be used."""
    found = {name: content for name, content in tree(out).items() if not name.startswith(".work/")}
    return found in (tree(finished), reference)


def test_wherever_it_is_killed_the_same_command_goes_on(finished, models, tmp_path):
    secret = secret_of(finished)
    other = hash_of(read_manifest(finished), "モデル 2")
    reference_folder = Path(shutil.copytree(finished, tmp_path / "reference"))
    remove_models(reference_folder, [secret, other])
    reference = tree(reference_folder)
    at, unsettled = 0, 0
    while True:
        at += 1
        out = Path(shutil.copytree(finished, tmp_path / "d"))
        with pytest.MonkeyPatch.context() as patch:
            clock = Clock(patch, at)
            try:
                remove_models(out, [secret, other])
                break
            except Killed:
                pass
        if not settled(out, finished, reference):
            unsettled += 1
            for use in (verify_dataset, Dataset):
                with pytest.raises(DatasetError, match=f"mmdgen remove-model .*{secret[:16]}"):
                    use(out)
            with pytest.raises(ConfigError, match="goes on with it"):
                render(models, out)
        elif (out / ".work" / "removal.json").exists():
            with pytest.raises(ConfigError, match="goes on with it"):
                render(models, out)
        # half of it named again, or a third model beside it, finishes what was begun
        remove_models(out, [secret[:8]] if at % 2 else [secret, other])
        if not settled(out, finished, reference) or tree(out) == tree(finished):
            assert at <= 2, at  # the journal was not there yet, so only what was named went
            remove_models(out, [other])
        assert tree(out) == reference, at
        shutil.rmtree(out)
    assert at > 25
    assert unsettled > 15
    assert clock.steps == at - 1


@pytest.mark.parametrize("at", [5, 14])
def test_kill_9(finished, out, at):
    secret = secret_of(out)
    script = f"""
import sys; sys.path.insert(0, {str(TESTS)!r})
import fake_backend; fake_backend.kill_at_write()
from pathlib import Path
from mmdgen.generate.removal import remove_models
remove_models(Path({str(out)!r}), [{secret!r}])
"""
    environment = {**os.environ, "FAKE_KILL_AT": str(at), "PYTHONPATH": str(made.ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(DatasetError, match="mmdgen remove-model"):
        verify_dataset(out)
    remove_models(out, [secret])
    assert verify_dataset(out).problems == ()
    assert not list(out.rglob("*.tmp-*"))
    assert not (out / ".work").exists()


def test_a_restored_shard_is_noticed(finished, out):
    removal = remove_models(out, [secret_of(out)])
    shutil.copy(finished / removal.shards[0], out / removal.shards[0])
    assert "differs from the manifest's" in made.told(verify_dataset(out))


def test_a_removed_model_that_is_there_is_noticed(out):
    secret, plan = secret_of(out), read_manifest(out).files["plan.json"]
    made.edit_manifest(out, lambda value: value.update(removed={"models": [secret], "plan": plan}))
    told = made.told(verify_dataset(out))
    assert f"manifest.json: model {secret[:16]} is listed, and called removed" in told
    assert f"model {secret[:16]} is there, which the manifest calls removed" in told
    made.edit_manifest(out, lambda value: value.update(removed={"models": ["a" * 64], "plan": "b" * 64}))
    assert "was made from another plan.json" in made.told(verify_dataset(out))


# --- every encoding ---------------------------------------------------------------------------------------------------

ENCODINGS = {
    "plain": {},
    "residual": {"expression_encoding": "residual"},
    "planes": {"expression_encoding": "residual", "posed_encoding": "planes"},
    "zstd": {"posed_encoding": "planes", "codec": "zstd"},
    "flow": {"flow": True},
}


@pytest.mark.parametrize("kind", list(ENCODINGS))
def test_chunks_are_copied_as_they_are(kind, tmp_path, monkeypatch):
    """A copy without nobody is the same file; without a model it is the one that was made without it."""
    config = dataclasses.replace(made.config(), **ENCODINGS[kind])

    def build(models: tuple[int, ...]) -> bytes:
        builder = ShardBuilder(ShardHeader(config, "train", 3, "ab" * 32))
        for model in models:
            row = builder.add_model(made.entry(model), made.picture("rest", model))
            for index in range(2):
                flow: Any = ()
                if config.flow:
                    seen = np.full((made.SIZE, made.SIZE), 2, np.uint8)
                    flow = (rng.generator(model, index).random((made.SIZE, made.SIZE, 2), np.float32), seen)
                key = (model, index)
                pose = np.full(6, 0.25 * model, np.float32)
                builder.add_sample(row, pose, made.picture("e", *key), made.picture("p", *key), *flow)
        return builder.build()

    path = tmp_path / "shard.h5"
    path.write_bytes(build((0, 1, 2, 3)))
    monkeypatch.setattr("mmdgen.dataset.codec.decode_image", lambda *_, **__: pytest.fail("nothing is decoded"))
    assert shard_without(path, ()) == path.read_bytes()
    for gone in ((0,), (1,), (3,), (0, 2), (0, 1, 2, 3)):
        left = tuple(model for model in range(4) if model not in gone)
        assert shard_without(path, [made.entry(model).sha256 for model in gone]) == build(left)


def test_a_shard_with_a_sample_of_nobody_is_damaged(tmp_path):
    made.build_dataset(tmp_path / "d")
    made.edit(tmp_path / "d", "train/shard-00000.h5", "model", 2, 7)
    with pytest.raises(DatasetError, match="is damaged"):
        shard_without(tmp_path / "d" / "train" / "shard-00000.h5", ())


# --- the command ------------------------------------------------------------------------------------------------------


class TestCommand:
    def test_a_dry_run_changes_nothing(self, out):
        before = tree(out)
        result = mmdgen("remove-model", out, secret_of(out)[:8], "--dry-run")
        assert result.exit_code == 0, result.output
        assert "would go: 1 model with 4 samples" in result.output
        assert SECRET in result.output
        assert "nothing was changed" in result.output
        assert tree(out) == before

    def test_it_tells_about_deny_lists_exports_and_reports(self, out):
        secret = secret_of(out)
        split = next(model.split for model in read_manifest(out).models if model.sha256 == secret)
        other = "validation" if split == "train" else "train"
        export_dataset(out, out.with_name("with"), ExportOptions("png", (split,)))
        export_dataset(out, out.with_name("without"), ExportOptions("png", (other,)))
        assert mmdgen("report", out).exit_code == 0
        shutil.copy(out.with_name("d-report.html"), out / "report.html")
        (out / "mine.html").write_text("my own page", "utf-8")
        result = mmdgen("remove-model", out, secret)
        assert result.exit_code == 0, result.output
        assert "removed: 1 model with 4 samples" in result.output
        assert secret in result.output
        assert "--deny FILE" in result.output
        assert f"delete it and make it again: {out.with_name('with')}\n" in result.output
        assert f"delete it and make it again: {out.with_name('d-report.html')}\n" in result.output
        assert (out / "mine.html").exists()
        assert str(out.with_name("without")) not in result.output
        assert not (out / "report.html").exists()
        again = mmdgen("remove-model", out, secret)
        assert again.exit_code == 0
        assert f"{secret[:16]} was removed before" in again.output
        shutil.rmtree(out.with_name("with"))
        export_dataset(out, out.with_name("with"), ExportOptions("png", (split,)))
        assert SECRET.encode() not in b"".join(tree(out.with_name("with")).values())

    def test_json_and_progress(self, out):
        secret = secret_of(out)
        result = mmdgen("remove-model", out, secret, "--json", "--progress", "json")
        value = json.loads(result.stdout)
        assert value["removed"] == [secret]
        assert value["dry_run"] is False
        assert json.loads(result.stderr.splitlines()[-1]) == {
            "stage": "remove",
            "done": 1,
            "total": 1,
            "unit": "shards",
        }

    def test_ctrl_c_says_how_to_go_on(self, out, monkeypatch):
        monkeypatch.setattr(
            "mmdgen.generate.removal.contact_sheet", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
        )
        result = mmdgen("remove-model", out, secret_of(out))
        assert result.exit_code == 130
        assert "the same command goes on" in result.output

    def test_a_deny_list(self, out, tmp_path):
        secret, other = secret_of(out), hash_of(read_manifest(out), "モデル 2")
        reference = Path(shutil.copytree(out, tmp_path / "reference"))
        remove_models(reference, [secret, other])
        denied = tmp_path / "denied.txt"
        denied.write_text(f"# asked\r\n{secret.upper()}  a.pmx\r\n{other[:9]}\r\n{'f' * 64}\r\n")
        before = tree(out)
        dry = json.loads(mmdgen("remove-model", out, "--deny", denied, "--dry-run", "--json").stdout)
        assert (dry["removed"], tree(out)) == (sorted((secret, other)), before)
        assert mmdgen("remove-model", out, "--deny", denied).exit_code == 0
        assert tree(out) == tree(reference)
        again = mmdgen("remove-model", out, "--deny", denied)
        assert (again.exit_code, tree(out)) == (0, tree(reference))
        assert "no model on the list" in again.output

    def test_a_deny_list_goes_on_with_what_was_begun(self, out, tmp_path, monkeypatch):
        secret, denied = secret_of(out), tmp_path / "denied.txt"
        denied.write_text(secret)
        with monkeypatch.context() as patch:
            patch.setattr(removal, "_clear_work", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            assert mmdgen("remove-model", out, "--deny", denied).exit_code == 130
        assert (out / ".work" / "removal.json").exists()
        assert mmdgen("remove-model", out, "--deny", denied).exit_code == 0
        assert not (out / ".work").exists()
        assert verify_dataset(out).problems == ()

    def test_who_was_kept_out_by_a_list_is_not_removed(self, out):
        hashes = {model.sha256 for model in read_manifest(out).models}
        made.edit_manifest(
            out,
            lambda value: value["rejected"].append({"path": "x", "code": "denied", "message": "", "sha256": "f" * 64}),
        )
        assert set(models_on_list(out, HashList(tuple(sorted({*hashes, "f" * 64}))))) == hashes

    def test_a_hash_or_a_list_is_needed(self, out):
        result = mmdgen("remove-model", out)
        assert (result.exit_code, "--deny" in result.output) == (2, True)

    def test_an_error_is_one_line(self, out):
        result = mmdgen("remove-model", out, "a" * 64)
        assert isinstance(result.exception, ConfigError)
        assert mmdgen("remove-model", out).exit_code == 2
        assert mmdgen("remove-model", "memory://bucket/d", "a" * 64).exit_code == 2


def test_a_plan_without_removals_is_the_bytes_that_it_was(finished):
    plan = parse_plan(finished)
    assert plan is not None
    assert b"removed" not in plan_bytes(plan)
    assert b'"removed"' not in (finished / "manifest.json").read_bytes()
    assert hashlib.sha256(plan_bytes(plan)).hexdigest() == plan.digest == plan.header(0).plan
