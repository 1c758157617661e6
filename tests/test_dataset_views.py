"""The contact sheet, the card, the documentation and the commands."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from dataset_fixtures import ROOT, SIZE, built_fixture, config, damaged_fixture, entry, picture  # noqa: F401  (pytest finds them here)
from PIL import Image

from mmdgen.cli.main import cli
from mmdgen.dataset import preview
from mmdgen.dataset.card import dataset_card
from mmdgen.dataset.manifest import (
    make_manifest,
    read_manifest,
)
from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.schema import (
    ShardHeader,
    fields,
)
from mmdgen.dataset.verify import verify_dataset
from mmdgen.dataset.writer import ShardBuilder
from mmdgen.errors import ConfigError, DatasetError
from mmdgen.pose.vocabulary import THA1

# --- contact sheet and card ---


def test_contact_sheet_is_a_png_of_the_samples(built):
    out, truth = built
    content = preview.contact_sheet(out, rows=3, columns=2)
    assert content == preview.contact_sheet(out, rows=3, columns=2)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGB"
        sheet = np.array(image)
    width = 3 * SIZE + 2 * preview.GAP
    assert sheet.shape == (
        2 * preview.MARGIN + 3 * SIZE + 2 * preview.TRIPLE_GAP,
        2 * preview.MARGIN + 2 * width + preview.TRIPLE_GAP,
        3,
    )
    dataset = Dataset(out)
    chosen = preview.choose_samples(dataset, 6)
    ground = preview.CHECKS[0]  # the tiles are no larger than one square of the checkerboard
    for place, index in enumerate(chosen):
        row, column = divmod(place, 2)
        top = preview.MARGIN + row * (SIZE + preview.TRIPLE_GAP)
        left = preview.MARGIN + column * (width + preview.TRIPLE_GAP)
        for number, name in enumerate(("rest", "expression", "posed")):
            image = truth["train"][index][name].astype(np.float64)
            alpha = image[..., 3:] / 255
            expected = image[..., :3] * alpha + ground * (1 - alpha)
            start = left + number * (SIZE + preview.GAP)
            found = sheet[top : top + SIZE, start : start + SIZE]
            assert np.abs(found - expected).max() <= 0.51


def test_contact_sheet_shows_all_models_and_far_poses(built):
    dataset = Dataset(built[0])
    chosen = preview.choose_samples(dataset, 4)
    assert len({dataset[index].model.sha256 for index in chosen}) == 4
    assert sorted(preview.choose_samples(dataset, 1000)) == list(range(len(dataset)))
    poses = dataset.poses() / np.array([2, 2, 2, 1, 1, 1])
    rest = THA1.rest / np.array([2, 2, 2, 1, 1, 1])
    first = dataset[chosen[0]].model.sha256
    of_model = [index for index in range(len(dataset)) if dataset[index].model.sha256 == first]
    distances = [np.linalg.norm(poses[index] - rest) for index in of_model]
    assert chosen[0] == of_model[int(np.argmax(distances))]


def test_contact_sheet_of_large_pictures_and_other_splits(built, tmp_path):
    large = dataclasses.replace(config(), image_size=512)
    builder = ShardBuilder(ShardHeader(large, "test", 0))
    row = builder.add_model(entry(0), picture("rest", size=512))
    builder.add_sample(row, THA1.rest, picture("e", size=512), picture("p", size=512))
    manifest = make_manifest(large, [builder.write(tmp_path)], {entry(0).sha256: ("", "")})
    content = preview.contact_sheet(tmp_path, manifest=manifest)  # manifest.json is not written yet
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (2 * preview.MARGIN + 3 * 256 + 2 * preview.GAP, 2 * preview.MARGIN + 256)
    with pytest.raises(DatasetError, match="no sample to show in the split train"):
        preview.contact_sheet(tmp_path, manifest=manifest, split="train")
    with pytest.raises(ConfigError, match="rows"):
        preview.contact_sheet(built[0], rows=0)


def run_python_blocks(text: str, data: Path, folder: Path, monkeypatch) -> dict[str, Any]:
    """Run the Python examples of a document about `data` as written, in `folder`; return their variables."""
    if read_manifest(data).config.codec == "zstd":
        pytest.importorskip("hdf5plugin", reason="the documents say to import it first")
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    variables: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "document", "exec"), variables)
    return variables


def test_card_tells_the_truth(built, monkeypatch):
    out, truth = built
    manifest = read_manifest(out)
    rows = [
        {"sha256": entry(0).sha256, "comment": "x", "hints": ["no_ai"], "texts": []},
        {"sha256": entry(1).sha256, "comment": "", "hints": ["no_ai", "r18"], "texts": [{}]},
        {"sha256": "f" * 64, "comment": "not in the dataset", "hints": ["no_ai"], "texts": []},
    ]
    card = dataset_card(manifest, rows, command="mmdgen render --poses 15")
    assert "| train | 15 | 4 | 3 |" in card
    for parameter in THA1.parameters:
        assert f"| `{parameter.name}` | {parameter.low:g} .. {parameter.high:g} | {parameter.rest:g} |" in card
    assert "2 of 7 came with a comment" in card
    assert "learning or generative AI | 2 |" in card
    assert "could not be used: no_head_bone 1." in card
    assert "    mmdgen render --poses 15" in card
    assert dataset_card(manifest, rows, command="mmdgen render --poses 15") == card
    found = run_python_blocks(card, out, out, monkeypatch)
    for name in ("rest", "expression", "posed", "pose"):
        assert np.array_equal(found[name], truth["train"][0][name])


def test_card_disarms_names(built):
    manifest = read_manifest(built[0])
    models = (dataclasses.replace(manifest.models[0], name="a|b\n# <script>`x`"), *manifest.models[1:])
    card = dataset_card(dataclasses.replace(manifest, models=models))
    assert "| a\\|b # \\<script\\>\\`x\\` |" in card


def test_documentation_examples_run(built, tmp_path, monkeypatch):
    out, truth = built
    shutil.copytree(out, tmp_path / "out/d")
    text = (ROOT / "docs/dataset.md").read_text(encoding="utf-8")
    found = run_python_blocks(text, out, tmp_path, monkeypatch)
    assert np.array_equal(found["expression"], truth["train"][0]["expression"])
    assert found["name"] == "初音 0"
    assert found["pose"]["mouth"] == truth["train"][0]["pose"][5]
    assert found["total"] == len(truth["train"])
    for spec in fields(config()):
        assert f"| `{spec.path}` |" in text
    with h5py.File(out / "train/shard-00000.h5") as file:
        assert [name for name in file.attrs if f"`{name}`" not in text] == []
    for parameter in THA1.parameters:
        assert f"`{parameter.name}` | {parameter.low:g}..{parameter.high:g} | {parameter.rest:g} |" in text


# --- commands ---


def test_verify_command(damaged):
    runner = CliRunner()
    result = runner.invoke(cli, ["verify", str(damaged)])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{damaged}: ok: 5 shards, 24 samples (train 15, validation 3, test 6) of 7 models")
    assert result.stderr == ""  # not a terminal
    result = runner.invoke(cli, ["verify", str(damaged), "--json", "--progress", "json"])
    assert json.loads(result.stdout)["ok"] is True
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert lines[-1]["done"] == lines[-1]["total"] == 24
    for number in range(60):
        (damaged / "train" / f"stray-{number}").touch()
    result = runner.invoke(cli, ["verify", str(damaged), "--quick"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 52
    assert lines[0] == "train/stray-0: is not in the manifest"
    assert lines[50].startswith("... and 10 more")
    assert "60 problems" in lines[51]
    result = runner.invoke(cli, ["verify", str(damaged), "--json"])
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["problems"]) == 60


def test_commands_without_a_dataset_say_one_line(tmp_path):
    for name in ("verify", "preview"):
        program = "import sys; from mmdgen.cli.main import main; sys.argv[0] = 'mmdgen'; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, name, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert re.fullmatch(r"mmdgen: .*manifest\.json is missing: this folder is not a dataset.*\n", done.stderr)
    assert CliRunner().invoke(cli, ["verify"]).exit_code == 2
    assert CliRunner().invoke(cli, ["preview", "x", "--rows", "0"]).exit_code == 2


def test_preview_command(damaged, tmp_path):
    result = CliRunner().invoke(cli, ["preview", str(damaged)])
    assert result.exit_code == 0
    assert result.stdout == f"contact sheet: {damaged / 'preview.png'}\n"
    assert (damaged / "preview.png").read_bytes() == preview.contact_sheet(damaged)
    assert verify_dataset(damaged).ok  # a contact sheet in its place is no stray
    target = tmp_path / "x.png"
    arguments = ["preview", str(damaged), "--out", str(target), "--rows", "2", "--columns", "1", "--split", "test"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0
    with Image.open(target) as image:
        assert image.size[1] == 2 * preview.MARGIN + 2 * SIZE + preview.TRIPLE_GAP
