"""Allow and deny lists: what a list may look like, which models it keeps out, and that a run keeps to its lists."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import fake_backend as fake
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from in_process import work_here

from mmdgen.cli.main import cli
from mmdgen.dataset.manifest import read_manifest
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError
from mmdgen.generate import catalogue
from mmdgen.generate.catalogue import Catalogue, scan
from mmdgen.generate.lists import LEAST_DIGITS, Gate, HashList, check_hints, read_list
from mmdgen.generate.options import RenderOptions, command_line
from mmdgen.generate.plan import plan_bytes, read_plan
from mmdgen.generate.provenance import HINTS
from mmdgen.generate.run import plan_for, run
from mmdgen.samples.character import build_character

FREE, PAID, MINE, MUTE = "free/a/m.pmx", "paid/b/m.pmx", "mine/c/m.pmx", "mine/mute/m.pmx"


def mmdgen(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def one_process(request, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_processes" not in request.node.name:
        work_here(monkeypatch, catalogue)


@pytest.fixture(name="models", scope="module")
def models_fixture(tmp_path_factory) -> Path:
    """Three models that can be used, one of them with terms against commercial use, and one that cannot."""
    root = tmp_path_factory.mktemp("models")
    for path in (FREE, PAID, MINE):
        fake.write_model(root / path, f"モデル {path}")
    fake.write_model(root / MUTE, "mute", "no-mouth")
    (root / "paid" / "b" / "readme.txt").write_text("商用利用は禁止です。", "utf-8")
    return root


def look(models: Path, **gate) -> Catalogue:
    return scan(models, workers=1, examiner=fake.EXAMINER, gate=Gate(**gate))


def codes(found: Catalogue) -> dict[str, str]:
    return {row.path: row.code for row in found.rejected}


def listed(*hashes: str) -> HashList:
    return HashList(tuple(sorted(hashes)))


class TestFiles:
    def test_what_a_list_may_look_like(self, tmp_path):
        first, second = "a" * 64, "0123456789" + "b" * 54
        path = tmp_path / "list.txt"
        path.write_bytes(
            f"\ufeff# asked to be left out\r\n{first.upper()}  models/a b.pmx\r\n\r\n   {second}\t*x.pmx\n"
            f"{first} # again\ncafecafe# short\n".encode()
        )
        assert read_list(path).entries == tuple(sorted((first, second, "cafecafe")))

    def test_names_as_sha256sum_escapes_them(self, tmp_path):
        first, second = "a" * 64, "b" * 64
        path = tmp_path / "list.txt"
        path.write_text(f"\\{first}  zip\\\\miku.pmx\n{second}  a\u2028b\x0bc\x85d.pmx\r{first}", "utf-8", newline="")
        assert read_list(path, whole=True).entries == (first, second)

    @pytest.mark.parametrize("line", ["abc1234", "a" * 65, "xyzw" * 16, "\\\\" + "a" * 64, "sha256:" + "a" * 64])
    def test_other_lines_are_named(self, tmp_path, line):
        path = tmp_path / "list.txt"
        path.write_text("#\n" + line + "\n", "utf-8")
        with pytest.raises(ConfigError, match=r"list\.txt, line 2: a hash has 8 to 64 hexadecimal digits"):
            read_list(path)

    def test_an_allow_list_has_whole_hashes(self, tmp_path):
        path = tmp_path / "list.txt"
        path.write_text("a" * 63, "utf-8")
        assert len(read_list(path).entries) == 1
        with pytest.raises(ConfigError, match="line 1: a hash has 64 hexadecimal digits"):
            read_list(path, whole=True)

    def test_what_cannot_be_read(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_list(tmp_path)
        (tmp_path / "x").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="UTF-8"):
            read_list(tmp_path / "x")

    def test_the_identity_is_of_the_hashes_alone(self, tmp_path):
        lines = [f"{number:064x}  remark {number}" for number in range(20)]
        identities = set()
        for seed in range(3):
            random.Random(seed).shuffle(lines)
            (tmp_path / "x").write_text("\n".join([*lines, lines[0]]), "utf-8")
            identities.add(read_list(tmp_path / "x").identity)
        assert len(identities) == 1
        assert identities.pop().startswith("20 hashes (")
        assert listed("a" * 8).identity != listed("a" * 9).identity
        assert listed("a" * 8).identity.startswith("1 hash (")

    @given(
        st.lists(st.text("01", min_size=LEAST_DIGITS, max_size=14), max_size=30, unique=True),
        st.text("01", min_size=64, max_size=64),
    )
    def test_matching_is_being_a_beginning(self, entries, sha256):
        oracle = max((entry for entry in entries if sha256.startswith(entry)), key=len, default=None)
        assert listed(*entries).match(sha256) == oracle

    def test_hints(self):
        assert check_hints(["r18", "no_ai", "r18"], HINTS) == ("no_ai", "r18")
        with pytest.raises(ConfigError, match="unknown hint 'no_fun'; there is no_ai"):
            check_hints(["no_fun"], HINTS)


class TestScan:
    def test_without_lists_nothing_is_kept_out(self, models):
        found = look(models)
        assert codes(found) == {MUTE: "no_mouth_morph"}
        assert [model.hints for model in found.models if model.path == PAID] == [("no_commercial",)]

    @pytest.mark.parametrize("digits", [8, 64])
    def test_deny(self, models, digits):
        found = look(models, deny=listed(sha256(models / FREE)[:digits], "f" * 64))
        assert codes(found) == {FREE: "denied", MUTE: "no_mouth_morph"}
        row = next(row for row in found.rejected if row.path == FREE)
        assert row.id == sha256(models / FREE)
        assert str(models) not in row.message

    def test_allow(self, models):
        found = look(models, allow=listed(sha256(models / FREE), "f" * 64))
        assert [model.path for model in found.models] == [FREE]
        assert codes(found) == {PAID: "not_allowed", MINE: "not_allowed", MUTE: "not_allowed"}

    def test_deny_wins_over_allow(self, models):
        every = listed(*(sha256(models / path) for path in (FREE, PAID)))
        found = look(models, allow=every, deny=listed(sha256(models / PAID)[:8]))
        assert [model.path for model in found.models] == [FREE]
        assert codes(found)[PAID] == "denied"

    def test_hints_at_terms(self, models):
        found = look(models, deny_hints=("no_commercial", "r18"))
        assert codes(found) == {PAID: "denied_terms", MUTE: "no_mouth_morph"}
        assert "no_commercial" in next(row.message for row in found.rejected if row.path == PAID)
        assert "r18" not in next(row.message for row in found.rejected if row.path == PAID)
        assert PAID not in codes(look(models, deny_hints=("no_ai",)))

    def test_a_denied_file_is_not_loaded(self, tmp_path):
        """It may even be one that ends the process that reads it."""
        path = fake.write_model(tmp_path / "m.pmx", "x", "scan-exit")
        assert codes(look(tmp_path, deny=listed(sha256(path)))) == {"m.pmx": "denied"}

    def test_by_real_processes(self, models):
        found = scan(
            models,
            workers=2,
            examiner=fake.EXAMINER,
            gate=Gate(listed(sha256(models / FREE)), None, ("no_commercial",)),
        )
        assert codes(found) == {FREE: "denied", PAID: "denied_terms", MUTE: "no_mouth_morph"}

    def test_an_unreadable_file_is_that_and_not_denied(self, tmp_path):
        (tmp_path / "m.pmx").symlink_to(tmp_path / "nowhere")
        assert codes(look(tmp_path, allow=listed("a" * 64)))["m.pmx"] != "not_allowed"

    def test_allowed_hashes_that_fit_nothing_are_told(self, models):
        gate = Gate(allow=listed(sha256(models / FREE), "f" * 64))
        (warning,) = gate.warnings(scan(models, workers=1, examiner=fake.EXAMINER, gate=gate))
        assert warning == "--allow: 1 of 2 hashes fit no model here, first ffffffffffffffff"
        complete = Gate(allow=listed(sha256(models / FREE)), deny=listed("f" * 64))
        assert complete.warnings(look(models)) == []
        (warning,) = Gate(deny=listed()).warnings(look(models))
        assert "no hash on this list" in warning


def options(gate: Gate) -> RenderOptions:
    return fake.options(
        poses={"train": 12},
        deny=gate.deny.identity if gate.deny else "",
        allow=gate.allow.identity if gate.allow else "",
        deny_hints=gate.deny_hints,
    )


class TestRender:
    def test_a_dataset_says_who_was_left_out(self, models, tmp_path):
        gate = Gate(deny=listed(sha256(models / FREE)[:10]), deny_hints=("no_commercial",))
        plan = plan_for(
            tmp_path / "d", options(gate), lambda: scan(models, workers=1, examiner=fake.EXAMINER, gate=gate)
        )
        run(plan, models, tmp_path / "d", workers=1, backend=fake.BACKEND)
        assert verify_dataset(tmp_path / "d").problems == ()
        manifest = read_manifest(tmp_path / "d")
        assert [model.sha256 for model in manifest.models] == [sha256(models / MINE)]
        rows = [json.loads(line) for line in (tmp_path / "d" / "failures.jsonl").read_text("utf-8").splitlines()]
        assert {(row["path"], row["code"], row["stage"]) for row in rows} == {
            (FREE, "denied", "scan"),
            (PAID, "denied_terms", "scan"),
            (MUTE, "no_mouth_morph", "scan"),
        }
        assert "--deny FILE --deny-hints no_commercial" in (tmp_path / "d" / "README.md").read_text("utf-8")

    def test_the_plan_keeps_the_lists_and_a_run_keeps_to_them(self, models, tmp_path):
        gate = Gate(deny=listed("a" * 64), allow=None, deny_hints=("r18",))
        plan_for(tmp_path / "d", options(gate), lambda: look(models))
        frozen = read_plan(tmp_path / "d")
        assert frozen is not None
        assert frozen.options.to_json() == options(gate).to_json()
        assert frozen.options.deny_hints == ("r18",)

        def other(gate: Gate) -> str:
            with pytest.raises(ConfigError) as error:
                plan_for(tmp_path / "d", options(gate), lambda: pytest.fail("nothing is scanned again"))
            return str(error.value)

        assert '--deny was "1 hash (' in other(Gate(deny=listed("a" * 64, "b" * 64), deny_hints=("r18",)))
        assert "mmdgen remove-model OUT --deny FILE takes models out" in other(
            Gate(deny=listed("a" * 64, "b" * 64), deny_hints=("r18",))
        )
        assert "mmdgen remove-model" not in other(Gate(deny=gate.deny))
        assert ')", now "2 hashes (' in other(Gate(deny=listed("a" * 64, "b" * 64), deny_hints=("r18",)))
        assert ')", now not given' in other(Gate(deny_hints=("r18",)))
        assert '--allow was not given, now "1 hash (' in other(Gate(gate.deny, listed("a" * 64), ("r18",)))
        assert '--deny-hints was ["r18"], now not given' in other(Gate(deny=gate.deny))
        assert plan_for(tmp_path / "d", options(gate), lambda: pytest.fail("nothing is scanned again"))

    def test_plans_without_lists_are_the_bytes_that_they_were(self, models, tmp_path):
        plan = plan_for(tmp_path / "d", options(Gate()), lambda: look(models))
        assert b"deny" not in plan_bytes(plan)
        assert b"allow" not in plan_bytes(plan)

    def test_the_command_of_the_card_has_no_path(self):
        given = options(Gate(listed("a" * 64), listed("b" * 64), ("no_ai", "r18")))
        assert "--deny FILE --allow FILE --deny-hints no_ai,r18" in command_line(given)


@pytest.fixture(name="real", scope="module")
def real_fixture(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("real")
    for seed in (1, 2):
        for name, content in build_character(seed).files.items():
            path = root / str(seed) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


class TestCommands:
    def test_scan(self, real, tmp_path):
        first, second = sorted(real.rglob("*.pmx"))
        quick = ["scan", "--models", real, "--no-check", "--include-unsure", "--json"]
        (tmp_path / "list").write_text(f"{sha256(first)}  {first.name}\n", "utf-8")
        denied = json.loads(mmdgen(*quick, "--deny", tmp_path / "list").output)
        assert [row["id"] for row in denied["usable"]] == [sha256(second)]
        assert denied["reasons"] == {"denied": 1}
        allowed = json.loads(mmdgen(*quick, "--allow", tmp_path / "list", "--deny-hints", "no_ai, r18").output)
        assert [row["id"] for row in allowed["usable"]] == [sha256(first)]
        assert allowed["reasons"] == {"not_allowed": 1}

    def test_render_plans_with_them(self, real, tmp_path):
        (tmp_path / "list").write_text(sha256(next(real.rglob("*.pmx")))[:8], "utf-8")
        words = ["render", "--models", real, "--poses", 10, "--include-unsure", "--out", tmp_path / "d"]
        result = mmdgen(*words, "--deny", tmp_path / "list", "--dry-run", "--json")
        assert result.exit_code == 0, result.output
        plan = json.loads(result.output)
        assert plan["rejected"] == {"denied": 1}
        assert plan["models"] == 1
        assert plan["options"]["deny"].startswith("1 hash (")

    def test_a_changed_list_is_refused_in_one_line(self, models, tmp_path):
        (tmp_path / "list").write_text("a" * 64, "utf-8")
        gate = Gate(deny=read_list(tmp_path / "list"))
        given = RenderOptions(poses={"train": 12}, deny=gate.deny.identity if gate.deny else "")
        plan_for(tmp_path / "d", given, lambda: look(models))
        words = ["render", "--models", models, "--poses", 12, "--out", tmp_path / "d"]
        result = mmdgen(*words)
        assert result.exit_code == 1
        assert '--deny was "1 hash (' in result.output
        (tmp_path / "list").write_text("b" * 64, "utf-8")
        assert mmdgen(*words, "--deny", tmp_path / "list").exit_code == 1

    @pytest.mark.parametrize(
        "words",
        [
            ["scan", "--models", ".", "--deny", "/no/such/file"],
            ["scan", "--models", ".", "--deny-hints", "no_fun"],
            ["render", "--poses", "1", "--deny-hints", "no_ai"],
            ["render", "--poses", "1", "--allow", __file__],
        ],
    )
    def test_wrong_usage_exits_with_2(self, words):
        assert mmdgen(*words).exit_code == 2
