"""The benchmarks' own arithmetic, and that their clocks sit on functions that mmdgen still has."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "tools" / "bench"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def bench(name: str) -> Any:
    return importlib.import_module(name)


def test_nested_clocks_count_for_themselves_only() -> None:
    clock = bench("common").Clock()

    def work() -> None:
        with clock.of("outer"):
            time.sleep(0.02)
            with clock.of("inner"):
                time.sleep(0.06)

    thread = threading.Thread(target=work)
    with clock.of("other thread"):
        thread.start()
        thread.join()
    assert 0.015 < clock.wall["outer"] < clock.wall["inner"]
    assert clock.wall["other thread"] > 0.075, "another thread's clocks are not nested in this one's"
    assert clock.cpu["inner"] < 0.05, "sleeping takes no processor time"
    assert clock.calls == {"outer": 1, "inner": 1, "other thread": 1}
    with pytest.raises(ZeroDivisionError), clock.of("outer"):
        raise ZeroDivisionError
    assert clock.calls["outer"] == 2


def test_rounds_alternate_and_end_in_time() -> None:
    common = bench("common")
    order: list[str] = []

    def case(name: str, value: float) -> Any:
        return lambda: order.append(name) or time.sleep(0.02) or value

    found = common.alternate({"a": case("a", 10.0), "b": case("b", 2.0)}, repeats=3)
    assert found == {"a": [10.0] * 3, "b": [2.0] * 3}
    assert order == ["a", "b"] * 3
    short = common.alternate({"a": case("a", 1.0)}, repeats=50, seconds=0.1)
    assert 1 <= len(short["a"]) < 10
    assert len(common.alternate({"a": case("a", 1.0)}, repeats=2, seconds=0.0)["a"]) == 1


def test_ratios_are_taken_round_by_round() -> None:
    common = bench("common")
    assert common.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    # A round on a busy machine slows both.
    found = common.ratios({"ours": [100.0, 50.0], "theirs": [10.0, 5.0]}, "ours")
    assert found == {"theirs": {"median": 10.0, "min": 10.0, "max": 10.0}}


def test_the_machine_is_described() -> None:
    about = bench("common").machine(extra=1)
    assert about["cores"] >= 1
    assert about["packages"]["numpy"]
    assert about["extra"] == 1
    json.dumps(about)


@pytest.mark.gl
@pytest.mark.parametrize("renderer", ["gl", "cpu"])
def test_the_stages_are_there(renderer: str) -> None:
    """Every function that a stage names exists, is replaced wherever it was imported, and is put back."""
    stages, common = bench("stages"), bench("common")
    shard, target = importlib.import_module("mmdgen.generate.shard"), importlib.import_module("mmdgen.render.target")
    codec, backend = (
        importlib.import_module("mmdgen.dataset.codec"),
        importlib.import_module("mmdgen.generate.gl_backend"),
    )
    before = (codec.encode_image, backend.load_model, shard.write_sidecar, target.Target.read, target.Target.resolve)

    def now() -> tuple[Any, ...]:
        return (codec.encode_image, backend.load_model, shard.write_sidecar, target.Target.read, target.Target.resolve)

    with stages.clocks(common.Clock(), renderer):
        changed = [new is not old for new, old in zip(now(), before, strict=True)]
        assert changed == [True, True, True, renderer == "gl", renderer == "gl"]
    assert now() == before


def test_a_peer_that_is_not_there_says_so(tmp_path: Path) -> None:
    peers = bench("peers")
    missing = peers.find("bpy Workbench", str(tmp_path / "python"))
    assert "No such file" in missing.problem
    peers.MODULES["nothing"] = "no_such_module"
    try:
        assert "no_such_module" in peers.find("nothing").problem
        assert "No module named" in peers.find("nothing", sys.executable).problem
    finally:
        del peers.MODULES["nothing"]


@pytest.mark.parametrize("name", ["render", "stages", "peers"])
def test_the_commands_explain_themselves(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--help"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"python tools/bench/{name}.py" in done.stdout
