"""The training loop: it learns, its clock is exact, what it writes is true, and it stops at what is not finite."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from train_data import SIZE, files, lines, write_dataset

from mmdgen.dataset.manifest import read_manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.errors import ConfigError, TrainError

torch = pytest.importorskip("torch", reason="needs torch (tools/run brings it)")

from mmdgen.model.textures import decode_image  # noqa: E402
from mmdgen.train import networks  # noqa: E402
from mmdgen.train.config import ARTICLE, Phase, Schedule, TrainOptions, differences, reached  # noqa: E402
from mmdgen.train.grids import GAP, grid  # noqa: E402
from mmdgen.train.loop import train  # noqa: E402
from mmdgen.train.morpher import MorpherRecipe  # noqa: E402
from mmdgen.train.recipes import make_recipe  # noqa: E402
from mmdgen.train.rotator import RotatorRecipe  # noqa: E402
from mmdgen.train.runs import load_network  # noqa: E402
from mmdgen.train.start import Places, Progress, Summary  # noqa: E402

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """A preset for tests, and one thread: with more the pictures are too small to share, and bits depend on them."""
    monkeypatch.setitem(networks.PRESETS, "tiny", networks.Preset("tiny", 8, 32, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("train") / "d")


def learn(
    data: Path, run: Path, network: str, examples: int, *, schedule: dict[str, Any] | None = None, **options: Any
) -> Summary:
    options = {"preset": "tiny", "batch": 4, "loss": "l1", "lr": 1e-3, **options}
    size = read_manifest(data).config.image_size
    recipe = make_recipe(TrainOptions(network, **options), run, image_size=size)
    return train(recipe, Schedule(examples, **(schedule or {})), Places(data, run, "cpu"))


# --- it learns ---


def test_one_batch_is_overfitted_by_each_network(tmp_path) -> None:
    data = write_dataset(tmp_path / "d", train=2, validation=0, size=16, vivid=True)
    kept = {"morpher": 0.15, "rotator": 0.45, "combiner": 0.2}  # the rotator first has to unlearn a wild warp
    for network, share in kept.items():
        learn(data, tmp_path / "run", network, 2 * 150, batch=2, lr=3e-3, schedule={"log_every": 1, "save_every": 999})
        losses = [line["loss"]["total"] for line in lines(tmp_path / "run", network, "train")]
        assert len(losses) == 150
        assert np.mean(losses[-10:]) < share * losses[0], network


def test_flow_supervision_brings_the_offsets_to_the_flow(tmp_path) -> None:
    data = write_dataset(tmp_path / "d", train=2, validation=0, flow=True)
    run = tmp_path / "run"
    learn(data, run, "rotator", 2 * 60, batch=2, lr=3e-3, flow_weight=2.0, schedule={"log_every": 1})
    flow = [line["loss"]["flow"] for line in lines(run, "rotator", "train")]
    assert np.mean(flow[-5:]) < 0.3 * flow[0]
    with pytest.raises(ConfigError, match="--flow"):
        learn(write_dataset(tmp_path / "e", train=2), tmp_path / "other", "rotator", 4, flow_weight=1.0)


# --- the clock ---


def test_everything_happens_at_its_multiple_of_examples(data, tmp_path) -> None:
    every = {"log_every": 8, "validate_every": 20, "sample_every": 24, "save_every": 16}
    seen: list[Progress] = []
    recipe = make_recipe(TrainOptions("morpher", preset="tiny", batch=4), tmp_path, image_size=SIZE)
    summary = train(recipe, Schedule(50, **every), Places(data, tmp_path, "cpu"), on_progress=seen.append)
    assert (summary.examples, summary.steps, summary.reason) == (52, 13, "examples")  # whole batches only

    def clock(event: str) -> list[int]:
        return [line["examples"] for line in lines(tmp_path, "morpher", event)]

    assert clock("train") == [8, 16, 24, 32, 40, 48, 52]
    assert clock("checkpoint") == [16, 32, 48, 52]
    assert clock("samples") == [0, 24, 48, 52]
    assert clock("validation") == [0, 20, 24, 40, 48, 52]  # with each sample picture comes a validation
    assert sorted(path.stem for path in (tmp_path / "morpher/samples").iterdir()) == [
        f"{examples:09d}" for examples in clock("samples")
    ]
    assert [progress.examples for progress in seen] == list(range(4, 53, 4))
    assert seen[-1].total == 50
    assert len(list((tmp_path / "morpher/checkpoint").glob("[0-9]*"))) == 1  # the older ones are gone
    assert (load_network(tmp_path, "morpher").examples, load_network(tmp_path, "morpher").image_size) == (52, SIZE)


def test_minutes_end_a_run_with_everything_written(data, tmp_path) -> None:
    summary = learn(data, tmp_path, "morpher", 10**6, schedule={"minutes": 1e-9})
    assert (summary.reason, summary.steps) == ("minutes", 1)
    assert summary.validation.keys() == {"identity", "image"}
    again = learn(data, tmp_path, "morpher", 10**6, schedule={"minutes": 1e-9})
    assert (again.first, again.examples) == (4, 8)


def test_the_phases_are_the_articles() -> None:
    assert TrainOptions("morpher").phases == (Phase(None, 25, False),)
    assert TrainOptions("rotator").phases == (Phase(250_000, 25, False), Phase(None, 8, True))
    assert TrainOptions("rotator", loss="l1").phases == (Phase(None, 25, False),)
    assert TrainOptions("combiner").phases == (Phase(None, 12, True),)
    assert TrainOptions("combiner", loss="l1").phases == (Phase(None, 20, False),)
    assert TrainOptions("rotator", batch=5, l1_examples=7).phases == (Phase(7, 5, False), Phase(None, 5, True))
    lengths = {name: TrainOptions(name).article_examples for name in ARTICLE}
    assert lengths == {"morpher": 3_000_000, "rotator": 3_250_000, "combiner": 1_500_000}
    assert tuple(ARTICLE) == networks.NETWORKS
    for name, value in (("loss", "perceptual"), ("flow_weight", 1.0), ("lr", 0.0), ("batch", -1), ("precision", "16")):
        with pytest.raises(ConfigError):
            TrainOptions.from_json({"network": "morpher", name: value})


@pytest.mark.parametrize(
    ("every", "before", "now", "expected"), [(10, 0, 9, 0), (10, 9, 10, 1), (10, 10, 19, 0), (10, 19, 41, 1)]
)
def test_reached(every: int, before: int, now: int, expected: bool) -> None:
    assert reached(every, before, now) == expected


@pytest.fixture(scope="module")
def vgg(tmp_path_factory) -> Path:
    """A file in the form of VGG16's weights. Its values are no trained ones, which the loop cannot know."""
    from mmdgen.train.vgg import Vgg16

    generator = torch.Generator().manual_seed(1)
    state = {
        name: torch.randn(value.shape, generator=generator) / math.sqrt(max(1, value[0].numel()))
        for name, value in Vgg16().state_dict().items()
    }
    path = tmp_path_factory.mktemp("vgg") / "vgg16-test.pth"
    torch.save({name: value.half() for name, value in state.items()}, path)
    return path


def test_the_perceptual_loss_begins_after_its_phase_and_resumes_over_it(data, tmp_path, vgg) -> None:
    def go(run: Path, *examples: int) -> None:
        for until in examples:
            options = TrainOptions("rotator", preset="tiny", l1_examples=20)
            recipe = make_recipe(options, run, image_size=SIZE, vgg=vgg)
            train(recipe, Schedule(until, log_every=1, validation_samples=0), Places(data, run, "cpu"))

    go(tmp_path / "whole", 40)
    found = lines(tmp_path / "whole", "rotator", "train")
    assert [line["examples"] for line in found] == [25, 33, 41]  # batch 25 with L1 alone, then 8
    first, second = ({*line["loss"]} - {"total"} for line in found[:2])
    assert first == {"l1_direct", "l1_warped"}
    assert second == first | {"perceptual_direct", "perceptual_warped"}
    go(tmp_path / "parts", 25, 33, 41)
    assert files(tmp_path / "parts/rotator") == files(tmp_path / "whole/rotator")
    options = TrainOptions("rotator", preset="tiny", l1_examples=20)
    assert json.loads((tmp_path / "whole/rotator/options.json").read_text())["weights"] == {
        "vgg": hashlib.sha256(vgg.read_bytes()).hexdigest()
    }
    with pytest.raises(ConfigError, match="--loss l1"):
        make_recipe(options, tmp_path, image_size=SIZE, vgg=tmp_path / "none.pth")


# --- what it writes is true ---


def test_validation_scores_are_those_of_the_pictures(data, tmp_path) -> None:
    learn(data, tmp_path, "morpher", 4, schedule={"validation_samples": 4})
    line = lines(tmp_path, "morpher", "validation")[-1]
    assert line["samples"] == 4
    chosen = [Dataset(data, "validation")[index] for index in (0, 1, 3, 4)]  # evenly spaced among six
    rest, wanted = (
        networks_image(np.stack([getattr(sample, name) for sample in chosen])) for name in ("rest", "expression")
    )
    errors = np.abs(rest - wanted).reshape(4, -1) / 2
    assert line["scores"]["identity"]["mae"] == pytest.approx(errors.mean(), rel=1e-5)
    assert line["scores"]["identity"]["rmse"] == pytest.approx(np.sqrt((errors**2).mean(1)).mean(), rel=1e-5)
    # The saved network gives the score that was logged.
    network = load_network(tmp_path, "morpher").network
    pose = torch.tensor(np.stack([sample.pose for sample in chosen])[:, 3:6])
    with torch.no_grad():
        made = network(torch.tensor(rest), pose).image.numpy()
    assert line["scores"]["image"]["mae"] == pytest.approx((np.abs(made - wanted) / 2).mean(), rel=1e-4)


def networks_image(pictures: np.ndarray) -> np.ndarray:
    from mmdgen.train.images import to_network

    return to_network(torch.from_numpy(pictures)).numpy()


def test_the_sample_grid_shows_given_wanted_and_both_outputs(data, tmp_path) -> None:
    learn(data, tmp_path, "rotator", 4)
    image = decode_image((tmp_path / "rotator/samples/000000004.png").read_bytes())
    assert image.shape[:2] == (GAP + 6 * (SIZE + GAP), GAP + 4 * (SIZE + GAP))
    samples = list(Dataset(data, "validation"))
    for row, sample in enumerate(samples):
        for column, picture in enumerate((sample.expression, sample.posed)):
            top, left = GAP + row * (SIZE + GAP), GAP + column * (SIZE + GAP)
            assert np.array_equal(
                image[top : top + SIZE, left : left + SIZE, :3], grid([picture[None]])[GAP:-GAP, GAP:-GAP]
            )


def test_tensorboard_gets_the_same_numbers(data, tmp_path) -> None:
    learn(data, tmp_path, "morpher", 16, schedule={"log_every": 4})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "morpher/tensorboard"))
    board.Reload()
    logged = lines(tmp_path, "morpher", "train")
    for name, value in (
        ("train/loss/l1", lambda line: line["loss"]["l1"]),
        ("train/gradient", lambda line: line["gradient"]),
    ):
        scalars = [(scalar.step, scalar.value) for scalar in board.Scalars(name)]
        assert scalars == [(line["examples"], pytest.approx(value(line))) for line in logged]


def test_a_dataset_without_validation_is_trained_on_with_a_warning(tmp_path) -> None:
    data, told = write_dataset(tmp_path / "d", validation=0), []
    recipe = make_recipe(TrainOptions("morpher", preset="tiny", batch=4), tmp_path / "run", image_size=SIZE)
    summary = train(recipe, Schedule(4), Places(data, tmp_path / "run", "cpu"), on_warning=told.append)
    assert summary.examples == 4
    assert not summary.validation
    assert "no validation samples" in told[0]


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}, {"flip": True}, {"compile": True}])
def test_options_train_and_resume(data, tmp_path, monkeypatch, options) -> None:
    if "compile" in options:  # the compiler itself takes half a minute; what wraps the network is the same without it
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain = learn(data, tmp_path / "plain", "morpher", 8, schedule={"validation_samples": 0})
    whole = learn(data, tmp_path / "whole", "morpher", 8, schedule={"validation_samples": 0}, **options)
    learn(data, tmp_path / "parts", "morpher", 4, schedule={"validation_samples": 0}, **options)
    learn(data, tmp_path / "parts", "morpher", 8, schedule={"validation_samples": 0}, **options)
    assert files(tmp_path / "parts/morpher") == files(tmp_path / "whole/morpher")
    assert whole.loss["l1"] == pytest.approx(plain.loss["l1"], rel=0.2)
    if "precision" in options or "flip" in options:
        assert whole.loss["l1"] != plain.loss["l1"]


def test_bf16_rounds_neither_pictures_nor_poses_on_their_way_in(data, tmp_path, monkeypatch) -> None:
    """Outputs are blended with the given picture: rounded before, what does not change would lose its last bits."""
    kinds, given = [], networks.FaceMorpher.forward

    def forward(self, image, pose):
        kinds.append((image.dtype, pose.dtype, torch.is_autocast_enabled("cpu")))
        return given(self, image, pose)

    monkeypatch.setattr(networks.FaceMorpher, "forward", forward)
    learn(data, tmp_path, "morpher", 8, schedule={"validation_samples": 0}, precision="bf16")
    assert kinds == [(torch.float32, torch.float32, True)] * 2


def test_a_step_takes_no_numbers_from_the_host(tmp_path, vgg) -> None:
    """On a GPU each tensor made of Python's numbers, each index list and each item() waits for all work before it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from mmdgen.train.loader import make_loader

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.name())
            return func(*args, **(kwargs or {}))

    waiting = {"aten::lift_fresh", "aten::index.Tensor", "aten::_local_scalar_dense", "aten::nonzero"}
    called: set[str] = set()
    with Seen():
        torch.zeros(2, 2)[:, [0]].sum().item()
    assert called & waiting == waiting - {"aten::nonzero"}  # it does see them

    data = write_dataset(tmp_path / "d", train=2, validation=0, flow=True)
    for name, weight in (("morpher", 0.0), ("rotator", 1.0), ("combiner", 0.0)):
        settings = TrainOptions(name, preset="tiny", batch=2, flow_weight=weight)
        recipe = make_recipe(settings, tmp_path / "run", image_size=SIZE, vgg=vgg)
        with make_loader(data, "train", batch=2, seed=0, workers=0, fields=recipe.fields, flow=recipe.flow) as loader:
            batch = next(loader)
        network = networks.build_network(name, "tiny")
        called = set()
        with Seen():
            example = recipe.example(batch.to("cpu"))
            parts = recipe.losses(network(*example.inputs), example, True)
            torch.stack(tuple(parts.values())).sum().backward()
        assert "aten::convolution" in called
        assert not called & waiting, name
        learn(data, tmp_path / "run", name, 2, batch=2, schedule={"validation_samples": 0})


# --- what is not finite ---


def test_a_validation_that_is_not_finite_is_said_and_not_kept(data, tmp_path) -> None:
    every = {"validate_every": 4, "save_every": 4}
    with pytest.raises(TrainError, match=r"validation score image mae, image rmse is not finite at step 1 \(4 ex"):
        learn(data, tmp_path, "morpher", 8, lr=1e30, schedule=every)
    assert not list((tmp_path / "morpher/checkpoint").glob("[0-9]*"))


def test_a_start_that_kept_nothing_binds_to_nothing(data, tmp_path, monkeypatch) -> None:
    """As when the memory is too small for the batch: the same folder takes a smaller one."""
    whole = MorpherRecipe.losses

    def losses(self, output, example, perceptual):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(MorpherRecipe, "losses", losses)
    with pytest.raises(TrainError, match=r"memory of cpu is too small: tried to allocate 20 GiB .*--batch"):
        learn(data, tmp_path, "morpher", 8, batch=8)
    monkeypatch.setattr(MorpherRecipe, "losses", whole)
    assert learn(data, tmp_path, "morpher", 8, batch=2).steps == 4
    with pytest.raises(ConfigError, match=r"options\.batch: the run has 2, this command 4"):
        learn(data, tmp_path, "morpher", 16, batch=4)


def test_the_network_of_the_last_checkpoint_is_always_there(data, tmp_path, monkeypatch) -> None:
    """Whoever is killed between the two writes of the end would find nothing left to do."""
    from mmdgen.train import loop

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("save_network", "save_checkpoint"):
        every = {"save_every": 8}
        with monkeypatch.context() as patch:
            patch.setattr(loop, name, killed)
            with pytest.raises(KeyboardInterrupt):
                learn(data, tmp_path / name, "morpher", 8, schedule=every)
        assert learn(data, tmp_path / name, "morpher", 8, schedule=every).examples == 8
        assert load_network(tmp_path / name, "morpher").examples == 8


class Breaking(torch.autograd.Function):
    """The identity with an infinite slope."""

    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * math.inf


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda part: part * math.nan, "the loss l1_warped"),
        (lambda part: part + math.inf, "the loss l1_warped"),
        (Breaking.apply, "the gradient"),
    ],
    ids=["nan", "inf", "gradient"],
)
def test_what_is_not_finite_stops_and_the_last_checkpoint_stays(data, tmp_path, monkeypatch, spoil, named) -> None:
    every = {"save_every": 8, "log_every": 4, "validation_samples": 0}
    learn(data, tmp_path / "good", "rotator", 8, schedule=every)
    whole, calls = RotatorRecipe.losses, []

    def losses(self, output, example, perceptual):
        calls.append(1)
        parts = whole(self, output, example, perceptual)
        return {**parts, "l1_warped": spoil(parts["l1_warped"])} if len(calls) == 3 else parts

    monkeypatch.setattr(RotatorRecipe, "losses", losses)
    with pytest.raises(TrainError, match=f"{named} is not finite at step 3 .*12 examples.*000000008"):
        learn(data, tmp_path / "bad", "rotator", 40, schedule=every)
    assert files(tmp_path / "bad/rotator") == files(tmp_path / "good/rotator")
    assert lines(tmp_path / "bad", "rotator")[-1]["event"] == "checkpoint"
    monkeypatch.setattr(RotatorRecipe, "losses", whole)
    assert learn(data, tmp_path / "bad", "rotator", 12, schedule=every).first == 8  # and it goes on from there


def test_losses_that_a_gpu_leaves_unseen_are_looked_at_before_anything_is_written(data, tmp_path, monkeypatch) -> None:
    """On the CPU, with the window of a GPU: the same weights, and no checkpoint after the bad step."""
    learn(data, tmp_path / "seen", "morpher", 40)
    from mmdgen.train import loop

    whole = loop._Run.__init__

    def wide(self, *arguments):
        whole(self, *arguments)
        self._window = 5

    monkeypatch.setattr(loop._Run, "__init__", wide)
    learn(data, tmp_path / "unseen", "morpher", 40)
    assert files(tmp_path / "unseen/morpher") == files(tmp_path / "seen/morpher")
    good, calls = MorpherRecipe.losses, []

    def losses(self, output, example, perceptual):
        calls.append(1)
        return {
            name: part * (math.nan if len(calls) == 6 else 1)
            for name, part in good(self, output, example, perceptual).items()
        }

    monkeypatch.setattr(MorpherRecipe, "losses", losses)
    with pytest.raises(TrainError, match=r"l1 is not finite at step 6 \(24 examples.*000000016"):
        learn(
            data,
            tmp_path / "bad",
            "morpher",
            400,
            schedule={"save_every": 16, "log_every": 100, "validation_samples": 0},
        )


# --- several processes ---

RANKS = """
import hashlib, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from mmdgen.train import networks
from mmdgen.train.config import Schedule, TrainOptions
from mmdgen.train.loop import train
from mmdgen.train.recipes import make_recipe
from mmdgen.train.start import Places
networks.PRESETS["tiny"] = networks.Preset("tiny", 8, 32, 1)
data, run = Path(sys.argv[2]), Path(sys.argv[3])
options = TrainOptions("morpher", preset="tiny", batch=2, lr=1e-3, devices=2)
recipe = make_recipe(options, run, image_size=32)
kept = []
example = recipe.example
recipe.example = lambda batch: (kept.append(batch.index.tolist()), example(batch))[1]
import mmdgen.train.loop as loop
summary_of = loop._Run._summary
def summary(self, reason):
    weights = b"".join(value.numpy().tobytes() for value in self._network.state_dict().values())
    (run / f"rank-{self._fabric.global_rank}").write_text(f"{hashlib.sha256(weights).hexdigest()} {kept}")
    return summary_of(self, reason)
loop._Run._summary = summary
train(recipe, Schedule(16, validation_samples=0), Places(data, run, "cpu"))
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_with_twice_the_batch_does(data, tmp_path) -> None:
    script, run = tmp_path / "ranks.py", tmp_path / "run"
    script.write_text(RANKS)
    run.mkdir()
    command = [sys.executable, str(script), str(ROOT), str(data), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (first, first_seen), (second, second_seen) = ((run / f"rank-{rank}").read_text().split(" ", 1) for rank in (0, 1))
    assert first == second
    seen = [[*one, *other] for one, other in zip(json.loads(first_seen), json.loads(second_seen), strict=True)]
    assert [len(batch) for batch in seen] == [4] * 4
    one = []
    options = TrainOptions("morpher", preset="tiny", batch=4, lr=1e-3)
    recipe = make_recipe(options, tmp_path / "one", image_size=SIZE)
    example = recipe.example
    recipe.example = lambda batch: (one.append(batch.index.tolist()), example(batch))[1]
    train(recipe, Schedule(16, validation_samples=0), Places(data, tmp_path / "one", "cpu"))
    assert seen == one
    ours, theirs = (load_network(place, "morpher") for place in (run, tmp_path / "one"))
    assert ours.examples == theirs.examples == 16
    first = networks.build_network("morpher", "tiny", 0).state_dict()
    ends = [network.state_dict() for network in (ours.network, theirs.network)]
    moved = sum(float((ends[1][name] - value).abs().sum()) for name, value in first.items())
    apart = sum(float((ends[0][name] - value).abs().sum()) for name, value in ends[1].items())
    # Not equal: sums have another order, and Adam makes whole steps of gradients that are nearly nothing.
    assert apart < 0.02 * moved


def test_a_failure_ends_the_processes_of_the_other_devices(data, tmp_path, monkeypatch) -> None:
    """They would wait in an exchange, and Lightning's observer must not take their end for a failure of theirs."""
    from mmdgen.train import loop
    from mmdgen.train.start import end_others

    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    processes = [sleeper]
    end_others(SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=processes))))  # pyright: ignore[reportArgumentType]
    assert sleeper.returncode == -9
    assert processes == []
    ended = []
    monkeypatch.setattr(loop, "end_others", ended.append)
    learn(data, tmp_path, "morpher", 4)
    assert not ended
    with pytest.raises(TrainError, match="validation score"):
        learn(data, tmp_path / "bad", "morpher", 4, lr=1e30)
    assert len(ended) == 1


def test_differences_name_what_differs() -> None:
    kept = {"options": {"lr": 1e-4, "seed": 0}, "dataset": "a" * 64}
    found = differences(kept, {"options": {"lr": 1e-3, "seed": 0}, "dataset": "b" * 64})
    assert found == [
        "dataset: the run has aaaaaaaaaaaa..., this command bbbbbbbbbbbb...",
        "options.lr: the run has 0.0001, this command 0.001",
    ]
    assert differences(kept, kept) == []
