"""Going on: after limits, Ctrl-C, kill -9 at any moment and damage; byte for byte as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from train_data import SIZE, files, lines, write_dataset

from mmdgen.errors import DatasetError, TrainError

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")

from mmdgen.train import checkpoint, networks  # noqa: E402
from mmdgen.train.checkpoint import last_checkpoint, load_checkpoint, sole_writer  # noqa: E402
from mmdgen.train.config import Schedule, TrainOptions  # noqa: E402
from mmdgen.train.log import keep_until  # noqa: E402
from mmdgen.train.loop import train  # noqa: E402
from mmdgen.train.recipes import make_recipe  # noqa: E402
from mmdgen.train.start import Places, Summary  # noqa: E402

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = 80
EVERY = {"save_every": 12, "log_every": 8, "validate_every": 20, "sample_every": 40}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(networks.PRESETS, "tiny", networks.Preset("tiny", 8, 32, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("resume") / "d")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """Runs that nothing interrupted: morpher and rotator, 80 examples."""
    run = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.PRESETS, "tiny", networks.Preset("tiny", 8, 32, 1))
        torch.set_num_threads(1)
        for network in ("morpher", "rotator"):
            go_on(data, run, network)
    return run


def go_on(data: Path, run: Path, network: str = "morpher", until: int = EXAMPLES, workers: int = 0) -> Summary:
    options = TrainOptions(network, preset="tiny", batch=4, lr=1e-3, loss="l1", flip=True)
    places = Places(data, run, "cpu", workers)
    return train(make_recipe(options, run, image_size=SIZE), Schedule(until, **EVERY), places)


def same(run: Path, whole: Path, network: str = "morpher") -> None:
    assert files(run / network) == files(whole / network)
    stories = [[line for line in lines(folder, network) if line["event"] == "validation"] for folder in (run, whole)]
    assert {line["examples"]: line["scores"] for line in stories[1]}.items() <= {
        line["examples"]: line["scores"] for line in stories[0]
    }.items()
    clock = [line["examples"] for line in lines(run, network)]
    assert clock == sorted(clock)


@pytest.mark.parametrize("network", ["morpher", "rotator"])
def test_stopping_by_limits_leaves_no_trace_in_the_weights(data, whole, tmp_path, network) -> None:
    for until in (4, 32, 33, EXAMPLES):  # within an epoch of 24, and over its end
        go_on(data, tmp_path, network, until)
    same(tmp_path, whole, network)
    again = go_on(data, tmp_path, network)
    assert (again.steps, again.reason) == (0, "examples")
    same(tmp_path, whole, network)


def test_the_generators_of_others_do_not_matter(data, whole, tmp_path) -> None:
    torch.manual_seed(77)
    go_on(data, tmp_path, until=24)
    torch.manual_seed(78)
    go_on(data, tmp_path)
    same(tmp_path, whole)


# Each scenario runs in a process of its own, forked after the slow imports: it is really killed, really interrupted.
SCENARIOS = r"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
import torch
torch.set_num_threads(1)
from mmdgen.cli import train as cli
from mmdgen.train import checkpoint, loop, networks, runs
networks.PRESETS["tiny"] = networks.Preset("tiny", 8, 32, 1)
data, root = sys.argv[2], Path(sys.argv[3])

def at(owner, name, count, number, before=True):
    # send ourselves a signal in the `count`th call of a function, before or after its work
    plain, calls = getattr(owner, name), []
    def counted(*arguments, **named):
        calls.append(1)
        if before and len(calls) == count:
            os.kill(os.getpid(), number)
        result = plain(*arguments, **named)
        if not before and len(calls) == count:
            os.kill(os.getpid(), number)
        return result
    setattr(owner, name, counted)

SCENARIOS = {
    "killed in a step": lambda: at(loop._Run, "_look", 11, signal.SIGKILL),
    "killed between weights and state": lambda: at(checkpoint, "write_atomic", 5, signal.SIGKILL),
    "killed before the rename": lambda: at(checkpoint, "write_atomic", 6, signal.SIGKILL, before=False),
    "killed before the old one is deleted": lambda: at(checkpoint, "sync_directory", 2, signal.SIGKILL, before=False),
    "killed between network and checkpoint": lambda: at(loop, "save_checkpoint", 2, signal.SIGKILL),
    "interrupted": lambda: at(loop._Run, "_step", 9, signal.SIGINT),
    "terminated": lambda: at(loop._Run, "_validate", 2, signal.SIGTERM),
    "interrupted twice": lambda: (at(loop._Run, "_step", 9, signal.SIGINT), at(loop._Run, "_look", 9, signal.SIGINT)),
}
for name, prepare in SCENARIOS.items():
    run = root / name.replace(" ", "-")
    run.mkdir()
    child = os.fork()
    if not child:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(run / name, os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["mmdgen", "train", "morpher", "--preset", "tiny", "--data", data, "--out", str(run), "--batch", "4",
            "--lr", "1e-3", "--flip", "--examples", "80", "--save-every", "12", "--log-every", "8", "--validate-every",
            "20", "--sample-every", "40", "--accelerator", "cpu", "--threads", "1"]
        prepare()
        try:
            cli.command.main(sys.argv[2:], standalone_mode=False)
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(0)
    print(run.name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KILLED, LEFT = -signal.SIGKILL, 130
# scenario -> how the process must end, and the examples of the checkpoint that must be there
ENDS = {
    "killed-in-a-step": (KILLED, 36),
    "killed-between-weights-and-state": (KILLED, 12),
    "killed-before-the-rename": (KILLED, 12),
    "killed-before-the-old-one-is-deleted": (KILLED, 24),
    "killed-between-network-and-checkpoint": (KILLED, 12),
    "interrupted": (LEFT, 36),
    "terminated": (LEFT, 24),
    "interrupted-twice": (LEFT, 24),
}


@pytest.fixture(scope="module")
def ends(data, tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """The folder of the interrupted runs, and how the process of each ended."""
    root = tmp_path_factory.mktemp("ends")
    script = root / "scenarios.py"
    script.write_text(SCENARIOS)
    command = [sys.executable, str(script), str(ROOT), str(data), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    codes = {name: int(code) for name, code in (line.split() for line in done.stdout.splitlines())}
    return root, codes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
@pytest.mark.parametrize("name", list(ENDS))
def test_interrupted_in_the_middle(data, whole, ends, name) -> None:
    root, codes = ends
    run = root / name
    code, kept = ENDS[name]
    told = (run / "stderr").read_text()
    assert codes[name] == code, told
    newest = last_checkpoint(run / "morpher")
    assert newest is not None
    assert load_checkpoint(newest).examples == kept  # a whole one, whatever happened
    if name in ("interrupted", "terminated"):
        assert "the same command goes on:\n  mmdgen train morpher" in told
        assert f"interrupted after {kept} examples" in told
    assert go_on(data, run).first == kept
    same(run, whole)
    assert not list((run / "morpher").rglob("*.tmp-*"))


def test_worker_processes_and_a_resume_give_the_same(data, whole, tmp_path) -> None:
    go_on(data, tmp_path, until=40, workers=1)
    go_on(data, tmp_path)
    same(tmp_path, whole)


# --- damage ---


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.LIST])
def test_a_damaged_checkpoint_is_named_and_not_used(data, tmp_path, name) -> None:
    go_on(data, tmp_path, until=8)
    newest = last_checkpoint(tmp_path / "morpher")
    assert newest is not None
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 0x20
    (newest / name).write_bytes(content)
    with pytest.raises(TrainError, match=r"000000008.*delete this folder"):
        go_on(data, tmp_path)


def test_a_full_disk_keeps_the_checkpoint_before(data, whole, tmp_path, monkeypatch) -> None:
    plain, written = checkpoint.write_atomic, []

    def full(path, content):
        written.append(path)
        if len(written) == 5:
            raise DatasetError(f"{path}: the disk is full")
        plain(path, content)

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    with pytest.raises(DatasetError, match="disk is full"):
        go_on(data, tmp_path)
    assert [path.name for path in (tmp_path / "morpher/checkpoint").iterdir() if path.is_dir()] == ["000000012"]
    monkeypatch.setattr(checkpoint, "write_atomic", plain)
    go_on(data, tmp_path)
    same(tmp_path, whole)


def test_state_is_never_read_as_code(data, tmp_path) -> None:
    go_on(data, tmp_path, until=4)
    newest = last_checkpoint(tmp_path / "morpher")
    assert newest is not None
    note = json.loads((newest / checkpoint.LIST).read_text())

    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"examples": Trap()}, newest / checkpoint.STATE)
    note["sha256"][checkpoint.STATE] = checkpoint.sha256_file(newest / checkpoint.STATE)
    (newest / checkpoint.LIST).write_text(json.dumps(note))
    with pytest.raises(TrainError, match="cannot be read"):
        go_on(data, tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_two_trainers_in_one_folder_are_refused(data, tmp_path) -> None:
    pytest.importorskip("fcntl", reason="needs file locks")
    with sole_writer(tmp_path / "morpher"), pytest.raises(TrainError, match="another process"):
        go_on(data, tmp_path, until=4)


def test_the_log_forgets_what_is_ahead_of_the_checkpoint(tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    keep_until(log, 5)
    assert not log.exists()
    kept = b'{"examples": 4}\n{"examples": 8}\n'
    log.write_bytes(kept + b'{"examples": 9}\nnot json\n{"event": 1}\n{"examples": 8')
    keep_until(log, 8)
    assert log.read_bytes() == kept
