"""Datasets with flow from end to end: the fake renderer for the rules, small characters drawn for real."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import fake_backend as fake
import numpy as np
import pytest
from click.testing import CliRunner
from folders import tree
from test_flow import premultiplied, warp

from mmdgen.cli.main import cli
from mmdgen.dataset.reader import Dataset, Shard
from mmdgen.dataset.verify import verify_dataset
from mmdgen.errors import ConfigError
from mmdgen.generate.options import RenderOptions, command_line
from mmdgen.samples.character import build_character


@pytest.fixture(name="models", scope="module")
def models_fixture(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for number in range(3):
        fake.write_model(root / f"folder{number}/{number}.pmx", f"model {number}")
    return root


@pytest.fixture(name="out", scope="module")
def out_fixture(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("flow") / "d"
    fake.go(models, out, 2, flow=True)
    return out


def test_samples_have_the_flow_of_their_own_pose(out):
    assert verify_dataset(out).problems == ()
    moved = 0
    for sample in Dataset(out):
        assert sample.flow is not None
        assert sample.visibility is not None
        scene = fake.FakeScene(sample.model.sha256, "", fake.SIZE, sample.model.ambient)
        ((flow, seen),) = scene.flows(sample.pose[None])
        opaque = sample.posed[..., 3] >= 128
        assert not opaque.all()
        np.testing.assert_array_equal(sample.visibility, np.where(opaque, seen, 0))
        np.testing.assert_array_equal(sample.flow, np.where(opaque[..., None], flow, 0))
        moved += bool(sample.flow.any())
    assert moved > 30


def test_workers_do_not_change_a_byte(models, out, tmp_path):
    fake.go(models, tmp_path / "one", 1, flow=True)
    assert tree(tmp_path / "one") == tree(out)


def test_pictures_are_those_of_a_dataset_without_flow(models, out, tmp_path):
    fake.go(models, tmp_path / "plain", 2)
    for sample, plain in zip(Dataset(out), Dataset(tmp_path / "plain"), strict=True):
        assert plain.flow is None
        for name in ("rest", "expression", "posed", "pose"):
            np.testing.assert_array_equal(getattr(sample, name), getattr(plain, name))
    text = (tmp_path / "plain/plan.json").read_text() + (tmp_path / "plain/manifest.json").read_text()
    assert "flow" not in text
    with pytest.raises(ConfigError, match="--flow was false, now true"):
        fake.go(models, tmp_path / "plain", 2, flow=True)
    with pytest.raises(ConfigError, match="--flow was true, now false"):
        fake.go(models, out, 2)


def test_options_say_it_only_where_it_is_asked_for():
    plain = RenderOptions(poses={"train": 3, "validation": 0, "test": 0})
    asked = dataclasses.replace(plain, flow=True)
    assert "flow" not in plain.to_json()
    assert RenderOptions.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert RenderOptions.from_json(json.loads(json.dumps(plain.to_json()))) == plain
    assert command_line(asked).endswith("--poses 3 --flow")
    assert asked.dataset_config().flow


@pytest.mark.gl
def test_rendered_for_real(tmp_path):
    """One and two workers write the same bytes; what is stored warps the expression picture into the posed one."""
    models = tmp_path / "models"
    for seed, folder in ((1, "first"), (2, "second")):
        for name, content in build_character(seed).files.items():
            path = models / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for workers in (1, 2):
        words = ["render", "--models", models, "--poses", 6, "--size", 64, "--samples", 4, "--shard-size", 3, "--flow"]
        words += ["--ambient", 1.0, "--outline", 0, "--include-unsure", "--workers", workers, "--progress", "none"]
        done = CliRunner().invoke(cli, [*map(str, words), "--out", str(tmp_path / f"d{workers}")])
        assert done.exit_code == 0, done.output
    assert tree(tmp_path / "d1") == tree(tmp_path / "d2")
    assert CliRunner().invoke(cli, ["verify", str(tmp_path / "d1")]).exit_code == 0
    shown = json.loads(CliRunner().invoke(cli, ["inspect", str(tmp_path / "d1"), "--json"]).output)
    assert shown["flow"] is True
    errors = []
    for sample in Dataset(tmp_path / "d1"):
        assert sample.flow is not None
        moved = (sample.visibility == 2) & (np.abs(sample.flow).max(axis=2) > 1)
        target = premultiplied(sample.posed)
        pair = (warp(sample.expression, sample.flow), premultiplied(sample.expression))
        errors.append([np.abs(image - target).max(axis=2)[moved].mean() for image in pair])
    warped, still = np.mean(errors, axis=0)
    assert warped < 0.5 * still
    with Shard(tmp_path / "d1/train/shard-00000.h5") as shard:
        assert shard.visibility(0).shape == (64, 64)
