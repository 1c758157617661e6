"""What is ahead is bounded by bytes, and a worker over models with textures of 16 megapixels keeps to 1.5 GB."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.generate.ahead import ByteGate, size_of
from mmdgen.model.load import load_model
from mmdgen.render import prepare
from mmdgen.render.prepare import PHONG, decode_images
from mmdgen.samples.character import build_character
from mmdgen.samples.library import write_character

SIDE, TEXTURES, MODELS = 4096, 8, 3
LIMIT = 1500  # MB

# Draws one shard of all models below a folder, as a worker does, and says how much memory that took at most.
CHILD = """
import json, sys
from pathlib import Path
from mmdgen.generate.catalogue import scan
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.plan import make_plan
from mmdgen.generate.shard import ShardTask, render_shard
from mmdgen.generate.worker import resolve

models, out, backend = Path(sys.argv[1]), Path(sys.argv[2]), resolve(sys.argv[3])()
found = scan(models, examiner="mmdgen.generate.characters:examine_character", workers=1)
count = len(found.models)
plan = make_plan(RenderOptions(poses={"train": 2 * count}, shard_size=2 * count, size=64), found)
(out / ".work").mkdir(parents=True)
result = render_shard(plan, ShardTask(0), models, out, backend, lambda message: None)
print(json.dumps({
    "models": len(result.info.model_samples), "failures": [failure.message for failure in result.failures],
    # not getrusage: that begins with what the parent had
    "peak_mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
}))
backend.close()
"""


def big_png(side: int) -> bytes:
    """A PNG of `side` x `side` RGBA texels, some of them transparent, that packs well."""
    y = np.arange(64)[:, None] * 4
    row = (y + np.arange(4 * side)[None] // 4) & 255
    rows = np.concatenate([np.zeros((64, 1), np.uint8), row.astype(np.uint8)], axis=1)
    packed = zlib.compress(np.tile(rows, (side // 64, 1)).tobytes(), 1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", side, side, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def with_big_textures(folder: Path, seed: int, count: int, side: int, picture: bytes) -> Path:
    """A character whose materials use `count` big textures, all of which are needed in full: each texel is large."""
    path = write_character(folder, build_character(seed))
    names = tuple(f"big-{number}.png" for number in range(count))
    for name in names:
        (path.parent / name).write_bytes(picture)
    file = read_pmx(path.read_bytes())
    vertices = file.vertices.copy()
    vertices["uv"] *= np.float32(64 / side)
    materials = tuple(
        dataclasses.replace(material, texture_index=number % count) for number, material in enumerate(file.materials)
    )
    changed = dataclasses.replace(file, vertices=vertices, textures=names, materials=materials)
    path.write_bytes(write_pmx(changed))
    return path


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("mmdgen.generate.gl_backend:GlBackend", marks=pytest.mark.gl, id="gl"),
        pytest.param("mmdgen.generate.cpu_backend:CpuBackend", id="cpu"),
    ],
)
def test_a_worker_over_big_textures_keeps_to_its_memory(tmp_path, checkout, backend):
    models = tmp_path / "models"
    models.mkdir()
    picture = big_png(SIDE)
    for seed in range(MODELS):
        with_big_textures(models, seed, TEXTURES, SIDE, picture)
    command = [sys.executable, "-c", CHILD, str(models), str(tmp_path / "out"), backend]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failures"] == []
    assert found["models"] == MODELS
    one = SIDE * SIDE * 4 * TEXTURES / 2**20
    assert one * MODELS > LIMIT  # all of it at once would not fit
    assert found["peak_mb"] < LIMIT


def test_pictures_beyond_the_budget_lose_levels_the_largest_first(tmp_path, monkeypatch):
    path = with_big_textures(tmp_path, 1, 3, 256, big_png(256))
    (path.parent / "big-1.png").write_bytes(big_png(512))
    model = load_model(path)
    monkeypatch.setattr(prepare, "MAX_TEXELS", 3 * 256 * 256)
    images, missing = decode_images(model, [0, 1, 2], PHONG)
    assert missing == ()
    assert [image.texels.shape[:2] for image in images.values()] == [(256, 256)] * 3
    monkeypatch.setattr(prepare, "MAX_TEXELS", 3 * 256 * 256 - 1)
    images, _ = decode_images(model, [0, 1, 2], PHONG)
    assert sum(image.texels.size // 4 for image in images.values()) < 3 * 256 * 256
    assert max(image.texels.shape[0] for image in images.values()) == 256


class TestGate:
    def test_it_opens_when_enough_was_taken(self):
        gate, order = ByteGate(limit=10), []
        gate.wait()
        gate.prepared(11)
        thread = threading.Thread(target=lambda: (gate.wait(), order.append("through")))
        thread.start()
        thread.join(0.1)
        assert order == []
        gate.taken(11)
        thread.join(10)
        assert order == ["through"]

    def test_a_closed_gate_stops_nobody(self):
        gate = ByteGate(limit=10)
        gate.prepared(11)
        thread = threading.Thread(target=gate.wait)
        thread.start()
        gate.close()
        thread.join(10)
        assert not thread.is_alive()

    def test_what_says_no_size_has_none(self):
        assert size_of(object()) == 0
        assert size_of(np.zeros(8, np.uint8)) == 8
