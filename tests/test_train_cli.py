"""mmdgen train: what it shows, what it refuses, how it goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from train_data import SIZE, files, lines, write_dataset

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")

from mmdgen.cli.main import COMMANDS  # noqa: E402
from mmdgen.cli.train import command  # noqa: E402
from mmdgen.train import networks  # noqa: E402

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(networks.PRESETS, "tiny", networks.Preset("tiny", 4, 16, 1))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # nobody's VGG16 is found by chance
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cli") / "d")


def call(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def tiny(network: str, data: Path, run: Path, *more: Any) -> list[Any]:
    given = ["--preset", "tiny", "--batch", 4, "--data", data, "--out", run, "--threads", 1, "--accelerator", "cpu"]
    return [network, *given, *more]


@pytest.mark.parametrize(
    ("network", "count"), [("morpher", 33_878_720), ("rotator", 33_884_992), ("combiner", 34_960_704)]
)
def test_describe_needs_neither_data_nor_training(network, count) -> None:
    value = json.loads(call(network, "--describe", "--json").stdout)
    assert value["parameters"] == count == sum(layer["parameters"] for layer in value["layers"])
    assert value["image_size"] == 256
    assert f"{count:,} parameters" in call(network, "--describe").stdout


def test_describe_takes_the_size_of_the_dataset(data) -> None:
    value = json.loads(call("rotator", "--preset", "small", "--describe", "--json", "--data", data).stdout)
    assert value["image_size"] == SIZE


def test_all_three_are_trained_and_summed_up(data, tmp_path) -> None:
    value = {}
    for network in networks.NETWORKS:
        told = call(*tiny(network, data, tmp_path, "--loss", "l1", "--examples", 8, "--json"))
        value[network] = json.loads(told.stdout)
    assert [found["examples"] for found in value.values()] == [8, 8, 8]
    assert value["rotator"]["loss"].keys() == {"total", "l1_direct", "l1_warped"}
    assert value["rotator"]["validation"].keys() == {"identity", "direct", "warped"}
    assert value["combiner"]["reason"] == "examples"
    assert value["combiner"]["rate"] > 0
    weights = json.loads((tmp_path / "combiner/options.json").read_text())["weights"]
    assert list(weights) == ["rotator"]
    # A combiner stands on one rotator: with another it is another run.
    call(*tiny("rotator", data, tmp_path, "--loss", "l1", "--examples", 12))
    told = call(*tiny("combiner", data, tmp_path, "--loss", "l1", "--examples", 12), code=1)
    assert "weights.rotator: the run has" in told.stderr


def test_the_same_command_goes_on_and_another_is_refused(data, tmp_path) -> None:
    first = tiny("morpher", data, tmp_path)
    assert "8 examples seen" in call(*first, "--examples", 8).stdout
    before = files(tmp_path / "morpher")
    assert "nothing was done" in call(*first, "--examples", 8).stdout
    for more, named in (
        (["--lr", "0.01"], "options.lr: the run has 0.0001, this command 0.01"),
        (["--seed", "3"], "options.seed: the run has 0, this command 3"),
        (["--flip"], "options.flip"),
        (["--batch", "5"], "options.batch"),
    ):
        assert named in call(*first, "--examples", 40, *more, code=1).stderr
    other = write_dataset(tmp_path / "other", seed=6)
    assert "dataset: the run has" in call(*tiny("morpher", other, tmp_path, "--examples", 40), code=1).stderr
    assert files(tmp_path / "morpher") == before
    # What only says how long, how often and with how many processes may differ; so may the place of the dataset.
    moved = data.rename(data.with_name("moved"))
    try:
        call(*tiny("morpher", moved, tmp_path, "--examples", 12, "--log-every", 4, "--save-every", 4))
    finally:
        moved.rename(data)
    assert [line["examples"] for line in lines(tmp_path, "morpher", "start")] == [0, 8]


def test_dry_run_writes_nothing(data, tmp_path) -> None:
    run = tmp_path / "run"
    plan = json.loads(call("morpher", "--data", data, "--out", run, "--dry-run", "--json").stdout)
    assert plan["phases"] == [{"end": None, "batch": 25, "perceptual": False}]
    assert plan["schedule"]["examples"] == 3_000_000
    assert plan["parameters"] == 33_878_720
    assert plan["samples"] == {"train": 24, "validation": 6}
    assert "nothing was written" in call("morpher", "--data", data, "--out", run, "--dry-run").stdout
    assert not run.exists()


def test_errors_say_what_to_do(data, tmp_path) -> None:
    told = call("rotator", "--data", data, "--out", tmp_path / "run", code=1).stderr
    assert "--loss l1" in told
    assert "vgg16-397923af.pth" in told
    assert (
        "train it with mmdgen train rotator" in call(*tiny("combiner", data, tmp_path, "--loss", "l1"), code=1).stderr
    )
    assert "--data D --out RUN" in call("morpher", "--data", data, code=2).stderr
    assert "there is no such dataset" in call("morpher", "--data", tmp_path / "no", "--out", tmp_path, code=1).stderr
    assert "no flow" in call(*tiny("rotator", data, tmp_path, "--loss", "l1", "--flow-weight", 1), code=1).stderr
    empty = write_dataset(tmp_path / "empty", train=0)
    assert "no samples in the split 'train'" in call(*tiny("morpher", empty, tmp_path), code=1).stderr
    odd = write_dataset(tmp_path / "odd", size=20)
    assert "steps of 8" in call(*tiny("morpher", odd, tmp_path), code=1).stderr


def test_progress_as_json_lines(data, tmp_path) -> None:
    told = call(*tiny("morpher", data, tmp_path, "--examples", 8, "--progress", "json")).stderr
    last = json.loads(told.splitlines()[-1])
    assert last["stage"] == "train"
    assert (last["done"], last["total"], last["unit"]) == (8, 8, "examples")
    assert last["examples_per_second"] > 0
    assert last["seconds_left"] == 0


def test_the_command_is_listed_and_its_help_needs_no_torch() -> None:
    assert "train" in COMMANDS
    code = "import sys; sys.modules['torch'] = None\nfrom mmdgen.cli.main import cli\ncli(['train', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--examples" in done.stdout
