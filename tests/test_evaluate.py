"""Evaluation: every number against another computation of it, and every way in which it can be asked for in vain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from mmdgen import rng
from mmdgen.cli.main import cli
from mmdgen.dataset.manifest import make_manifest, write_manifest
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.schema import DatasetConfig, ModelEntry, Parameter, ShardHeader, Vocabulary
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import ConfigError, DatasetError, MmdgenError, TrainError
from mmdgen.pose.vocabulary import THA1

torch = pytest.importorskip("torch", reason="needs torch: the extra `train`")

from mmdgen.train import baselines, metrics  # noqa: E402
from mmdgen.train.baselines import NONE, POSED_WEIGHTS, SplitPoses, nearest_pose  # noqa: E402
from mmdgen.train.comparison import chosen_rows, columns, comparison_png  # noqa: E402
from mmdgen.train.evaluate import (  # noqa: E402
    IDENTITY,
    NEAREST,
    TASKS,
    Evaluation,
    Result,
    RunNetworks,
    evaluate,
    neighbour_pictures,
)
from mmdgen.train.images import to_network  # noqa: E402
from mmdgen.train.metrics import ALL, CHANGED, HEAD, LINEAR, SRGB, Judge, make_masks, summarise  # noqa: E402
from mmdgen.train.networks import NETWORKS, Preset, build_network  # noqa: E402
from mmdgen.train.runs import save_network  # noqa: E402
from mmdgen.train.scores import table, to_json  # noqa: E402

pytestmark = pytest.mark.train

SIZE = 16
# (split, shard, {model: samples}): model 1 goes on in the next shard, 3 has one sample, 2 has expressions at rest
LAYOUT = (
    ("test", 0, {0: 4, 1: 2}),
    ("test", 1, {1: 3, 2: 2, 3: 1}),
    ("validation", 0, {4: 1}),
)


TINY = Preset("tiny", 4, 8, 1)


# --- pictures and datasets ------------------------------------------------------------------------------------------


def picture(*key: int | str) -> np.ndarray:
    """A smooth random picture: a quarter or so transparent, and black there."""
    random = rng.generator(11, *key)
    image = gaussian_filter(random.random((SIZE, SIZE, 4)), (2, 2, 0))
    image = (image - image.min()) / (image.max() - image.min()) * 300
    image = np.clip(image, 0, 255).astype(np.uint8)
    image[image[..., 3] < 100] = 0
    return image


def patched(image: np.ndarray, *key: int | str) -> np.ndarray:
    """The picture with a random block of its own."""
    random = rng.generator(12, *key)
    top, left = (int(value) for value in random.integers(0, SIZE - 6, 2))
    changed = image.copy()
    changed[top : top + 6, left : left + 6] = picture(*key)[:6, :6]
    return changed


def entry(model: int) -> ModelEntry:
    return ModelEntry(hashlib.sha256(b"%d" % model).hexdigest(), f"人 {model}", f"f/{model}", 16, 20, 0, 0.5, 0.5)


def build(out: Path, vocabulary: Vocabulary | None = None, size: int = SIZE) -> Path:
    config = DatasetConfig(vocabulary or Vocabulary.of(THA1), size)
    out.mkdir(parents=True)
    infos, width = [], len(config.vocabulary.parameters)
    for split, number, members in LAYOUT:
        builder = ShardBuilder(ShardHeader(config, split, number))
        for model, count in members.items():
            rest = picture("rest", model)[:size, :size]
            row = builder.add_model(entry(model), rest)
            for index in range(count):
                key = (split, number, model, index)
                expression = rest if model == 2 else patched(rest, "e", *key)
                pose = rng.generator(13, *key).random(width, np.float32)
                builder.add_sample(row, pose, expression, patched(expression, "p", *key))
        infos.append(builder.write(out))
    names = {entry(model).sha256: (entry(model).name, entry(model).source) for model in range(5)}
    write_manifest(out, make_manifest(config, infos, names))
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("evaluate") / "d")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three networks, untrained."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    for name in NETWORKS:
        save_network(folder, name, build_network(name, TINY, seed=5), TINY, SIZE, 7, {})
    return folder


class Fake:
    """A predictor made of a function of (true pictures) for each method."""

    left_out: Mapping[str, str] = {}

    def __init__(self, **methods: Any) -> None:
        self._methods = {name.replace("_", " "): function for name, function in methods.items()}

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self._methods)

    def check(self, dataset: Dataset) -> None: ...

    def warnings(self, dataset: Dataset) -> list[str]:
        return []

    def outputs(self, pictures, expression, rotation):
        return {name: function(pictures) for name, function in self._methods.items()}


PERFECT = Fake(
    morpher=lambda p: p["expression"],
    rotator_direct=lambda p: p["posed"],
    rotator_warped=lambda p: p["expression"],
    combiner=lambda p: p["posed"],
    chain=lambda p: p["posed"],
)


# --- the same numbers by numpy and scipy ----------------------------------------------------------------------------


def linear_of(image: np.ndarray) -> np.ndarray:
    """u8 [H, W, 4] -> f64 linear light and alpha in [0, 1]."""
    value = image / 255
    color = value[..., :3]
    color = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return np.concatenate([color, value[..., 3:]], 2)


def seen_of(image: np.ndarray) -> np.ndarray:
    """u8 [H, W, 4] -> f64 sRGB over white in [0, 1]."""
    value = image / 255
    return value[..., :3] * value[..., 3:] + 1 - value[..., 3:]


def ssim_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The SSIM of every pixel and channel (Wang et al., 2004), f64 [H, W, C]."""

    def blur(value: np.ndarray) -> np.ndarray:
        return gaussian_filter(value, (1.5, 1.5, 0), mode="mirror", truncate=3.5)

    mean1, mean2 = blur(first), blur(second)
    variance1, variance2 = blur(first**2) - mean1**2, blur(second**2) - mean2**2
    covariance = blur(first * second) - mean1 * mean2
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean1 * mean2 + c1) * (2 * covariance + c2)) / (
        (mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2)
    )


def scores_of(given: np.ndarray, wanted: np.ndarray, output: np.ndarray) -> dict[tuple[str, str, str], float]:
    """All scores of one stored picture."""
    head = np.zeros((SIZE, SIZE), bool)
    head[SIZE // 4 : SIZE * 3 // 4, SIZE // 4 : SIZE * 3 // 4] = True
    masks = {ALL: np.ones_like(head), HEAD: head, CHANGED: (given != wanted).any(2)}
    scores = {}
    for space, convert in ((LINEAR, linear_of), (SRGB, seen_of)):
        difference = convert(output) - convert(wanted)
        similar = ssim_of(convert(output), convert(wanted))
        for mask, where in masks.items():
            if not where.any():
                scores |= {(space, mask, measure): np.nan for measure in metrics.MEASURES}
                continue
            scores[space, mask, "mae"] = np.abs(difference[where]).mean()
            scores[space, mask, "mse"] = (difference[where] ** 2).mean()
            scores[space, mask, "rmse"] = np.sqrt((difference[where] ** 2).mean())
            scores[space, mask, "ssim"] = similar[where].mean()
    return scores


def network(*images: np.ndarray) -> Any:
    return to_network(torch.from_numpy(np.stack(images)))


def stored(*images: np.ndarray) -> Any:
    return torch.from_numpy(np.stack(images))


# --- metrics --------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_numpy_and_scipy() -> None:
    given = [picture("g", i) for i in range(4)]
    wanted = [patched(given[i], "w", i) for i in range(3)] + [given[3]]
    output = [picture("o", i) for i in range(4)]
    judge = Judge(network(*wanted), make_masks(stored(*given), stored(*wanted)))
    scores = judge(network(*output))
    assert len(scores) == 2 * 3 * 4
    for number in range(4):
        for key, value in scores_of(given[number], wanted[number], output[number]).items():
            np.testing.assert_allclose(scores[key][number], value, rtol=2e-4, atol=2e-5, err_msg=str(key))
    assert np.isnan(scores[LINEAR, CHANGED, "mse"][3])
    assert not np.isnan(scores[LINEAR, HEAD, "ssim"]).any()


def test_scores_by_hand() -> None:
    """One pixel in the corner of 16 x 16 goes from opaque black to opaque white."""
    black = np.zeros((SIZE, SIZE, 4), np.uint8)
    black[..., 3] = 255
    white = black.copy()
    white[0, 0] = 255
    scores = Judge(network(white), make_masks(stored(black), stored(white)))(network(black))
    pixels = SIZE * SIZE
    # linear: three of four channels differ by 1
    assert scores[LINEAR, ALL, "mae"][0] == pytest.approx(3 / 4 / pixels)
    assert scores[LINEAR, ALL, "rmse"][0] == pytest.approx(np.sqrt(3 / 4 / pixels))
    assert scores[LINEAR, CHANGED, "mse"][0] == pytest.approx(3 / 4)
    assert scores[LINEAR, HEAD, "mse"][0] == 0
    assert scores[SRGB, CHANGED, "rmse"][0] == pytest.approx(1)
    assert scores[SRGB, ALL, "mse"][0] == pytest.approx(1 / pixels)


def test_hidden_color_counts_in_linear_and_is_not_seen() -> None:
    wanted = network(np.zeros((SIZE, SIZE, 4), np.uint8))
    output = wanted.clone()
    output[:, 0] = 1  # red where nothing is
    scores = Judge(wanted, make_masks(*[torch.zeros((1, SIZE, SIZE, 4), dtype=torch.uint8)] * 2))(output)
    assert scores[LINEAR, ALL, "mse"][0] == pytest.approx(1 / 4)
    assert scores[SRGB, ALL, "mse"][0] == 0


def test_the_networks_own_range_doubles_the_error() -> None:
    wanted, output = network(picture("w")), network(picture("o"))
    scores = Judge(wanted, make_masks(stored(picture("w")), stored(picture("o"))))(output)
    own = (output - wanted).double()
    assert 2 * scores[LINEAR, ALL, "rmse"][0] == pytest.approx(float(own.square().mean().sqrt()), rel=1e-6)
    assert 4 * scores[LINEAR, ALL, "mse"][0] == pytest.approx(float(own.square().mean()), rel=1e-6)
    assert 2 * scores[LINEAR, ALL, "mae"][0] == pytest.approx(float(own.abs().mean()), rel=1e-6)


def test_values_outside_the_range_are_clipped() -> None:
    wanted = network(np.full((SIZE, SIZE, 4), 255, np.uint8))
    scores = Judge(wanted, make_masks(*[torch.zeros((1, SIZE, SIZE, 4), dtype=torch.uint8)] * 2))(wanted + 5)
    assert scores[LINEAR, ALL, "mae"][0] == 0
    assert scores[SRGB, ALL, "ssim"][0] == pytest.approx(1)


def test_means_of_pictures_and_of_squares_are_told_apart() -> None:
    values = np.array([0.01, 0.09, np.nan])
    scores = {
        (space, mask, measure): np.sqrt(values) if measure == "rmse" else values
        for space in metrics.SPACES
        for mask in metrics.MASKS
        for measure in metrics.MEASURES
    }
    summary: Any = summarise(scores)
    assert summary[LINEAR][HEAD]["pictures"] == 2
    assert summary[LINEAR][HEAD]["mse"] == pytest.approx(0.05)
    assert summary[LINEAR][HEAD]["rmse"] == pytest.approx(0.2)  # (0.1 + 0.3) / 2
    assert summary[LINEAR][HEAD]["root_mse"] == pytest.approx(np.sqrt(0.05))
    assert summary["lpips"] is None
    nothing: Any = summarise({key: np.full(2, np.nan) for key in scores})
    assert nothing[SRGB][ALL] == {"pictures": 0, "mae": None, "mse": None, "rmse": None, "ssim": None, "root_mse": None}


def test_pictures_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ConfigError, match="one shape"):
        make_masks(torch.zeros((1, 8, 8, 4)), torch.zeros((1, 16, 16, 4)))
    small = torch.zeros((1, 4, 5, 5))
    with pytest.raises(ConfigError, match="SSIM needs pictures of at least 6"):
        Judge(small, {})


# --- the nearest pose -----------------------------------------------------------------------------------------------


def poses(pose: np.ndarray, model: np.ndarray) -> SplitPoses:
    return SplitPoses(THA1.names, pose, model, tuple(entry(int(m)) for m in range(int(model.max()) + 1)))


def slow_neighbour(split: SplitPoses, sample: int, weights: Mapping[str, float]) -> int:
    best, least = NONE, np.inf
    for other in range(len(split)):
        if other == sample or split.model[other] != split.model[sample]:
            continue
        distance = sum(
            (weight * (float(split.pose[sample, c]) - float(split.pose[other, c]))) ** 2
            for name, weight in weights.items()
            for c in [split.names.index(name)]
        )
        if distance < least:
            best, least = other, distance
    return best


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 5), st.sampled_from([1, 7, 4_000_000]))
def test_the_nearest_pose_is_the_nearest(seed: int, count: int, models: int, block: int) -> None:
    random = rng.generator(seed, "poses")
    # Few different values, so that distances are equal and poses repeat.
    split = poses(random.integers(-1, 2, (count, 6)).astype(np.float32), random.integers(0, models, count))
    asked = random.permutation(count)[: max(1, count // 2)]
    before, baselines._BLOCK = baselines._BLOCK, block
    try:
        found = nearest_pose(split, asked, POSED_WEIGHTS)
    finally:
        baselines._BLOCK = before
    for place, sample in enumerate(asked):
        assert found[place] == slow_neighbour(split, int(sample), POSED_WEIGHTS)


def test_only_the_weighed_parameters_count() -> None:
    pose = np.zeros((3, 6), np.float32)
    pose[1, THA1.index("head_x")] = 1  # the same expression
    pose[2, THA1.index("mouth")] = 0.1
    split = poses(pose, np.zeros(3, int))
    assert nearest_pose(split, [0], baselines.EXPRESSION_WEIGHTS).tolist() == [1]
    assert nearest_pose(split, [0], POSED_WEIGHTS).tolist() == [2]
    with pytest.raises(ConfigError, match="no parameter tail"):
        nearest_pose(split, [0], {"tail": 1.0})


def test_a_split_is_read_without_pictures(data: Path) -> None:
    dataset = Dataset(data, "test")
    split = SplitPoses.read(dataset)
    assert len(split) == len(dataset) == 12
    assert np.array_equal(split.pose, dataset.poses())
    assert [split.models[m].sha256 for m in split.model] == [sample.model.sha256 for sample in dataset]
    assert len(split.models) == 4  # a model in two shards is one


def test_neighbours_are_read_only_some_batches_ahead() -> None:
    read: list[int] = []

    def locate(number: int):
        read.append(number)
        shown = np.full((2, 2, 4), number, np.uint8)
        return SimpleNamespace(posed=lambda row: shown, expression=None), 0

    dataset: Any = SimpleNamespace(locate=locate, config=SimpleNamespace(image_shape=(2, 2, 4)))
    numbers = [*range(20), NONE]
    with ThreadPoolExecutor(1) as pool:
        batches = neighbour_pictures(dataset, "posed", numbers, 2, pool)
        known, first = next(batches)
        assert known.all()
        assert first[:, 0, 0, 0].tolist() == [0, 1]
        pool.submit(int).result()
        assert len(read) <= 6
        parts = [(known, first), *batches]
    assert np.concatenate([known for known, _ in parts]).tolist() == [True] * 20 + [False]
    assert torch.cat([found for _, found in parts])[:, 0, 0, 0].tolist() == [*range(20), 0]


# --- the whole evaluation -------------------------------------------------------------------------------------------


def test_a_perfect_network_has_no_error_and_the_baselines_are_numpys(data: Path) -> None:
    evaluation = evaluate(PERFECT, data, "test", batch=5)
    assert [result.task.name for result in evaluation.results] == ["expression", "rotation", "whole"]
    samples = list(Dataset(data, "test"))
    split = SplitPoses.read(Dataset(data, "test"))
    for result in evaluation.results:
        task = result.task
        for name in result.methods:
            if name == "rotator warped":  # answers with what it was given: the identity
                for key, value in result.scores[name].items():
                    np.testing.assert_array_equal(value, result.scores[IDENTITY][key])
                continue
            for (_, _, measure), value in result.scores[name].items():
                known = value[~np.isnan(value)]
                np.testing.assert_allclose(known, 1.0 if measure == "ssim" else 0.0, atol=1e-6)
                assert measure == "ssim" or (known == 0).all()
        for place, sample in enumerate(samples):
            given, wanted = getattr(sample, task.given), getattr(sample, task.wanted)
            for key, value in scores_of(given, wanted, given).items():
                np.testing.assert_allclose(result.scores[IDENTITY][key][place], value, rtol=2e-4, atol=2e-5)
            neighbour = slow_neighbour(split, place, task.weights)
            assert result.neighbour[place] == neighbour
            found = result.scores[NEAREST][LINEAR, ALL, "rmse"][place]
            if neighbour == NONE:
                assert np.isnan(found)
            else:
                answer = getattr(samples[neighbour], task.wanted)
                expected = scores_of(given, wanted, answer)[LINEAR, ALL, "rmse"]
                np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
    summary: Any = summarise(evaluation.results[0].scores[IDENTITY])
    mine = [scores_of(s.rest, s.expression, s.rest)[LINEAR, ALL, "rmse"] for s in samples]
    assert summary[LINEAR][ALL]["rmse"] == pytest.approx(np.mean(mine), rel=1e-5)
    assert evaluation.results[0].changed == 10  # model 2 has its rest picture twice


def test_the_networks_are_given_what_they_are_made_for(data: Path, run: Path) -> None:
    sample = Dataset(data, "test")[3]
    names = THA1.names
    expression, rotation = (
        torch.from_numpy(sample.pose[[names.index(name) for name in wanted]][None])
        for wanted in (("left_eye", "right_eye", "mouth"), ("head_x", "head_y", "neck_z"))
    )
    pictures = {name: network(getattr(sample, name)) for name in ("rest", "expression", "posed")}
    morpher, rotator, combiner = (build_network(name, TINY, seed=5).eval() for name in NETWORKS)
    with torch.inference_mode():
        outputs = RunNetworks(run).outputs(pictures, expression, rotation)
        morphed = morpher(pictures["rest"], expression).image
        turned, chained = rotator(pictures["expression"], rotation), rotator(morphed, rotation)
        expected = {
            "morpher": morphed,
            "rotator direct": turned.direct,
            "rotator warped": turned.warped,
            "combiner": combiner(turned.direct, turned.warped, rotation).image,
            "chain": combiner(chained.direct, chained.warped, rotation).image,
        }
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(outputs[name], value)
        evaluation = evaluate(RunNetworks(run), data, "test")
        for result in evaluation.results:
            for name in result.methods:
                judge = Judge(
                    pictures[result.task.wanted],
                    make_masks(*(stored(getattr(sample, n)) for n in (result.task.given, result.task.wanted))),
                )
                for key, value in judge(expected[name]).items():
                    np.testing.assert_allclose(result.scores[name][key][3], value[0], rtol=1e-3, atol=2e-4)


def numbers(evaluation: Evaluation) -> dict[tuple[str, ...], np.ndarray]:
    return {
        (result.task.name, name, *key): value
        for result in evaluation.results
        for name, scores in result.scores.items()
        for key, value in scores.items()
    }


def test_scores_depend_on_neither_batch_nor_workers(data: Path, run: Path) -> None:
    """Not on order, masks or means; and networks only by the rounding of float32, which an untrained one magnifies."""
    for predictor, tolerance, batch, workers in ((PERFECT, 1e-6, 1, 1), (RunNetworks(run), 2e-4, 5, 0)):
        whole = numbers(evaluate(predictor, data, "test", batch=100))
        other = numbers(evaluate(predictor, data, "test", batch=batch, workers=workers))
        assert other.keys() == whole.keys()
        for key, value in whole.items():
            np.testing.assert_allclose(other[key], value, rtol=tolerance, atol=tolerance, err_msg=str(key))


def test_a_limit_takes_samples_from_all_over_the_split(data: Path) -> None:
    told: list[tuple[int, int]] = []
    whole = evaluate(PERFECT, data, "test")
    part = evaluate(PERFECT, data, "test", limit=4, batch=3, progress=lambda done, total: told.append((done, total)))
    assert part.samples.tolist() == [0, 3, 6, 9]
    assert told == [(3, 4), (4, 4)]
    for all_of, some in zip(whole.results, part.results, strict=True):
        assert np.array_equal(some.neighbour, all_of.neighbour[part.samples])
        for name, scores in some.scores.items():
            for key, value in scores.items():
                np.testing.assert_allclose(value, all_of.scores[name][key][part.samples], rtol=1e-5, atol=1e-6)


def test_json_agrees_with_itself(data: Path) -> None:
    evaluation = evaluate(Fake(morpher=lambda p: p["rest"] * 0.9, chain=lambda p: p["rest"]), data, "test")
    value = json.loads(json.dumps(to_json(evaluation), allow_nan=False))
    assert value["samples"] == value["samples_in_split"] == 12
    assert value["characters"] == 4
    assert set(value["tasks"]) == {"expression", "whole"}
    expression = value["tasks"]["expression"]
    assert expression["without_neighbour"] == 1
    assert expression["changed"] == 10
    assert expression["scores"][NEAREST]["linear"]["all"]["pictures"] == 11
    assert expression["scores"][IDENTITY]["linear"]["changed"]["pictures"] == 10
    # The mean over models, weighed by their samples, is the mean over samples.
    weighed = sum(m["samples"] * m["scores"]["expression"]["morpher"]["rmse"] for m in value["models"]) / 12
    assert weighed == pytest.approx(expression["scores"]["morpher"]["linear"]["all"]["rmse"])
    alone = next(m for m in value["models"] if m["samples"] == 1)
    assert alone["scores"]["expression"][NEAREST]["rmse"] is None
    worst = expression["worst"]["morpher"]
    errors = [row["rmse"] for row in worst]
    assert errors == sorted(errors, reverse=True)
    assert len(worst) == 10
    scores = evaluation.results[0].scores["morpher"][LINEAR, ALL, "rmse"]
    assert errors[0] == scores.max()
    assert Dataset(data, "test")[worst[0]["sample"]].model.sha256 == worst[0]["sha256"]
    assert worst[0]["pose"].keys() == set(THA1.names)


def test_the_table_says_it_all_within_100_columns(data: Path, run: Path) -> None:
    text = table(evaluate(RunNetworks(run), data, "test", limit=10**6))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("  x identity") or "  x identity" in line for line in lines) >= 5
    for phrase in ("12 of 12 samples", "4 characters", "nearest pose: without 1 samples", "no LPIPS", "[-1, 1]"):
        assert phrase in text
    scores = next(line for line in lines if line.startswith("  identity")).split()
    own: Any = summarise(evaluate(PERFECT, data, "test").results[0].scores[IDENTITY])
    assert float(scores[1]) == pytest.approx(own[LINEAR][ALL]["rmse"], abs=6e-5)
    assert float(scores[4]) == pytest.approx(own[LINEAR][ALL]["ssim"], abs=6e-5)
    assert float(scores[9]) == pytest.approx(own[SRGB][CHANGED]["rmse"], abs=6e-5)


# --- what cannot be evaluated ---------------------------------------------------------------------------------------


def test_networks_that_are_not_there_are_left_out(data: Path, tmp_path: Path, run: Path) -> None:
    for name in ("morpher", "combiner"):
        save_network(tmp_path / "part", name, build_network(name, TINY), TINY, SIZE, 0, {"dataset": "another"})
    networks = RunNetworks(tmp_path / "part")
    assert networks.methods == ("morpher",)
    assert networks.left_out.keys() == {"rotator", "combiner", "chain"}
    evaluation = evaluate(networks, data, "test")
    text = table(evaluation)
    assert [result.task.name for result in evaluation.results] == ["expression"]
    assert "left out: rotator: the run has no rotator" in text
    assert "left out: chain: the run has no rotator" in text
    assert "careful: trained on another dataset" in text
    whole = RunNetworks(tmp_path / "part", rotator=run)
    assert whole.left_out == {}
    assert whole.methods[-1] == "chain"


def test_what_cannot_be_evaluated_is_one_error(data: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"nowhere has no trained network \(morpher, rotator, combiner\)"):
        RunNetworks(tmp_path / "nowhere")
    save_network(tmp_path / "large", "morpher", build_network("morpher", TINY), TINY, 32, 0, {})
    with pytest.raises(TrainError, match=r"trained on pictures of 32 pixels, those of .* have 16: .*--size 32"):
        evaluate(RunNetworks(tmp_path / "large"), data, "test")
    with pytest.raises(DatasetError, match=r"the split train has no sample .*test 12"):
        evaluate(PERFECT, data, "train")
    with pytest.raises(DatasetError, match="no-data"):
        evaluate(PERFECT, tmp_path / "no-data", "test")
    strange = Vocabulary("tails", (Parameter("tail", 0, 1, 0, "wags"), *Vocabulary.of(THA1).parameters[:4]))
    other = build(tmp_path / "other", strange)
    with pytest.raises(ConfigError, match=r"'tails' .* lacks right_eye, mouth"):
        evaluate(RunNetworks(run), other, "test")
    broken = Fake(morpher=lambda p: torch.where(p["rest"] > 0.9, torch.nan, p["rest"]))
    with pytest.raises(TrainError, match="the morpher gives values that are not finite for sample"):
        evaluate(broken, data, "test")


def test_the_order_of_columns_is_the_datasets(tmp_path: Path, data: Path) -> None:
    """Columns are found by name: a vocabulary in another order gives the networks the same poses."""
    seen: list[Any] = []

    def remember(pictures: Any, expression: Any, rotation: Any) -> dict[str, Any]:
        seen.append((expression.clone(), rotation.clone()))
        return {"chain": pictures["rest"]}

    turned = Vocabulary("turned", Vocabulary.of(THA1).parameters[::-1])
    fake = Fake(chain=None)
    fake.outputs = remember  # pyright: ignore[reportAttributeAccessIssue]
    for folder in (data, build(tmp_path / "turned", turned)):
        evaluate(fake, folder, "test", batch=100)
    pose, reversed_pose = Dataset(data, "test").poses(), Dataset(tmp_path / "turned", "test").poses()
    np.testing.assert_array_equal(pose, reversed_pose)  # the same numbers under other names
    assert np.array_equal(seen[0][0].numpy(), pose[:, [3, 4, 5]])
    assert np.array_equal(seen[1][0].numpy(), pose[:, [2, 1, 0]])
    assert np.array_equal(seen[1][1].numpy(), pose[:, [5, 4, 3]])


# --- pictures and the command ---------------------------------------------------------------------------------------


def test_the_grid_shows_given_wanted_and_answers(data: Path) -> None:
    half = Fake(morpher=lambda p: p["expression"] * 0.5 - 0.5)
    evaluation = evaluate(half, data, "test", batch=4)
    result: Result = evaluation.results[0]
    assert columns(result)[:4] == ("given", "wanted", "morpher", "morpher - wanted")
    lot, worst = chosen_rows(evaluation, result)
    assert len(set(lot.tolist())) == len(lot) == 6
    errors = result.scores["morpher"][LINEAR, ALL, "rmse"]
    assert errors[worst[0]] == errors.max()
    sheet = np.asarray(Image.open(BytesIO(comparison_png(half, data, evaluation, result))))
    step = 128 + 2
    assert sheet.shape == (12 * step + 3 * 12, 8 + 7 * step, 3)
    factor = 128 // SIZE
    for row, place in ((0, lot[0]), (6, worst[0])):
        sample = Dataset(data, "test")[int(evaluation.samples[place])]
        top = 12 + row * step + (12 if row >= 6 else 0)
        for column, image in enumerate((sample.rest, sample.expression)):
            tile = sheet[top : top + 128 : factor, 8 + column * step : 8 + column * step + 128 : factor].astype(int)
            assert np.abs(tile - np.round(seen_of(image) * 255)).max() <= 1
        difference = sheet[top : top + 128 : factor, 8 + 4 * step : 8 + 4 * step + 128 : factor, 0] / 255
        expected = 1 - np.clip(2 * np.abs(seen_of(sample.rest) - seen_of(sample.expression)).mean(2), 0, 1)
        assert np.abs(difference - expected).max() <= 1.01 / 255
    if NONE in result.neighbour[worst]:
        row = int(np.flatnonzero(result.neighbour[worst] == NONE)[0])
        top, left = 24 + (6 + row) * step, 8 + 5 * step
        assert (sheet[top : top + 128, left : left + 128] == (250, 249, 247)).all()


def invoke(*arguments: str | Path | int, env: Mapping[str, str] | None = None):
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)], env=env)


def test_the_command_prints_a_table_and_writes_json_and_grids(data: Path, run: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "a" / "scores", {"TORCH_HOME": str(tmp_path)}
    done = invoke("--run", run, "--data", data, "--limit", 6, "--batch", 4, "--out", out, env=cache)
    assert done.exit_code == 0, done.output
    assert "6 of 12 samples" in done.stdout
    assert "no LPIPS: the weights of VGG16 are missing" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(out) not in line) <= 100
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.json",
        "expression.png",
        "rotation.png",
        "whole.png",
    ]
    written = json.loads((out / "evaluation.json").read_text("utf-8"))
    again = invoke("--run", run, "--data", data, "--limit", 6, "--batch", 4, "--json", "--lpips", "off")
    printed = json.loads(again.stdout)
    assert printed["tasks"] == written["tasks"]
    assert printed["networks"]["morpher"] == {"preset": "tiny", "image_size": SIZE, "examples": 7}
    assert printed["lpips"] == "switched off"
    for task in TASKS:
        image = np.asarray(Image.open(out / f"{task.name}.png"))
        assert image.ndim == 3
        assert image.std() > 10


def test_the_command_refuses_what_is_not_there(data: Path, run: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--run", run, "--data", data, "--lpips", tmp_path / "no.pth"), "no.pth: there is no file"),
        (("--run", tmp_path, "--data", data), "has no trained network"),
        (("--run", run, "--data", tmp_path), "manifest.json"),
        (("--run", run, "--data", data, "--device", "abacus"), "'abacus' cannot be used"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 1
        assert isinstance(done.exception, MmdgenError)
        assert message in str(done.exception)
    assert invoke("--run", run).exit_code == 2
    assert invoke("--run", run, "--data", data, "--split", "tomorrow").exit_code == 2
