"""The procedural characters: real files, known truth, variety."""

from __future__ import annotations

import io
import json
import os
import time
from collections import Counter
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mmdgen.cli.samples import command
from mmdgen.errors import ConfigError
from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.samples import library
from mmdgen.samples.assemble import MATERIALS
from mmdgen.samples.character import Character, build_character
from mmdgen.samples.conventions import WINKS, draw_conventions
from mmdgen.samples.traits import ANIMALS, CLOTHES, EYE_STYLES, FRINGES, HAIR_STYLES, HEADWEAR, draw_traits

SEEDS = tuple(range(10))
SLOTS = tuple(f"{shape}_{side}" for shape in ("normal", "smile") for side in ("left", "right", "both"))


@cache
def character(seed: int) -> Character:
    return build_character(seed)


@cache
def model(seed: int) -> pmx.PmxFile:
    made = character(seed)
    return read_pmx(made.files[f"{made.name}.pmx"])


def faces_of(file: pmx.PmxFile, *names: str) -> np.ndarray:
    start, chosen = 0, []
    for material in file.materials:
        stop = start + material.index_count // 3
        if material.name in names:
            chosen.append(file.faces[start:stop])
        start = stop
    return np.concatenate(chosen)


def jp(*keys: str) -> list[str]:
    return [MATERIALS[key][0] for key in keys]


def moved(file: pmx.PmxFile, terms: tuple[tuple[int, float, str], ...]) -> np.ndarray:
    """Displacements f64 [V, 3] of terms (morph, weight, side); vertex and group morphs."""
    total = np.zeros((len(file.vertices), 3))

    def add(number: int, weight: float) -> None:
        morph = file.morphs[number]
        if morph.kind == pmx.MORPH_GROUP:
            for row in morph.offsets:
                add(int(row["morph"]), weight * float(row["weight"]))
        elif morph.kind == pmx.MORPH_VERTEX:
            np.add.at(total, morph.offsets["vertex"], weight * morph.offsets["offset"].astype(float))
        elif morph.kind == pmx.MORPH_BONE:
            for row in morph.offsets:
                share = np.zeros(len(total))
                bone = file.vertices["bone_index"]
                weights = file.vertices["bone_weight"].astype(float)
                two = np.isin(file.vertices["deform"], (pmx.BDEF2, pmx.SDEF))
                weights[two, 1] = 1 - weights[two, 0]
                share = np.where(bone == row["bone"], weights, 0).sum(1)
                total[:] += weight * share[:, None] * row["translation"]

    for number, weight, side in terms:
        before = total.copy()
        add(number, weight)
        x = file.vertices["position"][:, 0]
        outside = {"both": np.zeros(len(x), bool), "left": x < 0, "right": x > 0}[side]
        total[outside] = before[outside]
    return total


def test_the_same_seed_gives_the_same_bytes() -> None:
    for seed in (0, 7):
        assert build_character(seed).files == character(seed).files
        assert build_character(seed).truth == character(seed).truth
    assert character(0).files != character(1).files


@pytest.mark.parametrize("seed", SEEDS)
def test_files_are_read_and_written_alike(seed: int) -> None:
    made = character(seed)
    content = made.files[f"{made.name}.pmx"]
    assert write_pmx(read_pmx(content)) == content
    assert "CC0" in made.files["readme.txt"].decode()


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_refers_to_something(seed: int) -> None:
    file = model(seed)
    count = len(file.vertices)
    assert 8_000 <= count <= 30_000
    assert 10 <= len(file.materials) <= 26
    assert file.faces.min() >= 0
    assert file.faces.max() < count
    assert sum(material.index_count for material in file.materials) == 3 * len(file.faces)
    assert len(np.unique(file.faces)) > 0.99 * count  # nearly every vertex is drawn
    names = [bone.name for bone in file.bones]
    assert {"センター", "上半身", "上半身2", "首", "頭", "両目", "左目", "右目", "左腕", "右腕"} <= set(names)
    assert len(set(names)) == len(names)
    for number, bone in enumerate(file.bones):
        assert -1 <= bone.parent_index < number
        assert -1 <= bone.append_index < len(names)
    deform = file.vertices["deform"]
    slots = np.select([deform == pmx.BDEF1, np.isin(deform, (pmx.BDEF2, pmx.SDEF))], [1, 2], 4)
    used = np.arange(4)[None] < slots[:, None]
    assert (file.vertices["bone_index"][used] >= 0).all()
    assert (file.vertices["bone_index"][used] < len(names)).all()
    weight = file.vertices["bone_weight"]
    assert np.allclose(weight[deform == pmx.BDEF4].sum(1), 1, atol=1e-5)
    assert ((weight >= 0) & (weight <= 1)).all()
    limits = {pmx.MORPH_VERTEX: ("vertex", count), pmx.MORPH_GROUP: ("morph", len(file.morphs)),
              pmx.MORPH_BONE: ("bone", len(names)), pmx.MORPH_MATERIAL: ("material", len(file.materials))}  # fmt: skip
    for morph in file.morphs:
        field, limit = limits[morph.kind]
        assert ((morph.offsets[field] >= 0) & (morph.offsets[field] < limit)).all()
    for material in file.materials:
        for index in (material.texture_index, material.sphere_index):
            assert -1 <= index < len(file.textures)
        if not material.toon_shared:
            assert -1 <= material.toon_index < len(file.textures)
    for array in (file.vertices["position"], file.vertices["normal"], file.vertices["uv"]):
        assert np.isfinite(array).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_faces_are_wound_like_their_normals(seed: int) -> None:
    file = model(seed)
    normal = file.vertices["normal"].astype(float)
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-3)
    start = 0
    for material in file.materials:
        stop = start + material.index_count // 3
        face = file.faces[start:stop]
        start = stop
        a, b, c = (file.vertices["position"][face[:, k]].astype(float) for k in range(3))
        cross = np.cross(b - a, c - a)
        facing = np.einsum("ij,ij->i", cross, normal[face].sum(1))
        area = np.linalg.norm(cross, axis=1)
        if material.name in jp("mouth", "lips"):
            continue  # shut to a line at rest
        assert area[facing > 0].sum() > 0.97 * area.sum(), material.name


@pytest.mark.parametrize("seed", SEEDS)
def test_textures_are_pictures_that_are_there(seed: int) -> None:
    made, file = character(seed), model(seed)
    named = {name.replace("\\", "/") for name in file.textures}
    assert named == {name for name in made.files if name.startswith("tex/")}
    for name in named:
        with Image.open(io.BytesIO(made.files[name])) as picture:
            picture.load()
            assert picture.format == ("PNG" if name.endswith(".png") else "BMP")
            assert picture.mode in ("RGB", "RGBA")
            assert max(picture.size) <= 1024
    for key in ("lash", "brow", "highlight"):
        assert Image.open(io.BytesIO(made.files[f"tex/{key}.png"])).mode == "RGBA"


@pytest.mark.parametrize("seed", SEEDS)
def test_chin_and_top_are_those_of_the_mesh(seed: int) -> None:
    made, file = character(seed), model(seed)
    truth = made.truth
    position = file.vertices["position"]
    skin = position[np.unique(faces_of(file, *jp("face")))]
    assert truth.chin_y == pytest.approx(float(skin[:, 1].min()), abs=1e-5)
    assert abs(skin[skin[:, 1].argmin(), 0]) < 0.05
    cap = position[np.unique(faces_of(file, *jp("hair_cap")))]
    assert truth.top_y == pytest.approx(float(cap[:, 1].max()), abs=1e-5)
    assert skin[:, 1].max() < truth.top_y
    assert 1.9 < truth.top_y - truth.chin_y < 2.8
    assert 15.5 < truth.chin_y < truth.top_y < 20.5
    assert (file.bones[truth.neck].name, file.bones[truth.head].name) == ("首", "頭")
    assert file.bones[truth.neck].position[1] < truth.chin_y < file.bones[truth.head].position[1] < truth.top_y


@pytest.mark.parametrize("seed", SEEDS)
def test_eye_morphs_close_the_side_that_the_truth_says(seed: int) -> None:
    file, truth = model(seed), character(seed).truth
    assert tuple(sorted(truth.slots)) == tuple(sorted(SLOTS))
    x = file.vertices["position"][:, 0]
    for slot, terms in truth.slots.items():
        if not terms:
            assert slot.startswith("smile")
            assert not truth.habits.has_smile
            continue
        move = np.linalg.norm(moved(file, terms), axis=1)
        left, right = move[x > 0].sum(), move[x < 0].sum()
        if slot.endswith("left"):
            assert right == 0 < left
        elif slot.endswith("right"):
            assert left == 0 < right
        else:
            assert left == pytest.approx(right, rel=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_sides_together_are_the_blink(seed: int) -> None:
    file, truth = model(seed), character(seed).truth
    for shape in ("normal", "smile"):
        both = moved(file, truth.slots[f"{shape}_both"])
        apart = moved(file, truth.slots[f"{shape}_left"]) + moved(file, truth.slots[f"{shape}_right"])
        assert np.allclose(both, apart, atol=1e-5)


def covered(file: pmx.PmxFile, move: np.ndarray, inside: str) -> float:
    """Share of the vertices of the material `inside` (seen from the front) that lie behind skin or lashes."""
    position = file.vertices["position"].astype(float) + move
    face = faces_of(file, *jp("face"))
    a, b, c = (position[face[:, k]] for k in range(3))
    front = np.cross(b - a, c - a)[:, 2] < 0
    a, b, c = a[front], b[front], c[front]
    hidden = []
    for point in position[np.unique(faces_of(file, *jp(inside)))][::7]:
        near = (np.abs(a[:, :2] - point[:2]).max(1) < 0.6) & (np.minimum.reduce([a[:, 2], b[:, 2], c[:, 2]]) < point[2])
        p, q, r = a[near], b[near], c[near]
        double = (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])
        s = ((point[0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (point[1] - p[:, 1]) * (r[:, 0] - p[:, 0])) / double
        t = ((q[:, 0] - p[:, 0]) * (point[1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (point[0] - p[:, 0])) / double
        depth = p[:, 2] + s * (q[:, 2] - p[:, 2]) + t * (r[:, 2] - p[:, 2])
        hidden.append(bool(((s >= -1e-6) & (t >= -1e-6) & (s + t <= 1 + 1e-6) & (depth < point[2])).any()))
    return float(np.mean(hidden))


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_closing_covers_iris_and_eyeball(seed: int) -> None:
    file, truth = model(seed), character(seed).truth
    still = np.zeros((len(file.vertices), 3))
    for shape in ("normal", "smile"):
        if not truth.slots[f"{shape}_both"]:
            continue
        shut = moved(file, truth.slots[f"{shape}_both"])
        for inside in ("iris", "sclera"):
            assert covered(file, shut, inside) == 1.0, (shape, inside)
    assert covered(file, still, "iris") < 0.45


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mouth_opens(seed: int) -> None:
    file, truth = model(seed), character(seed).truth
    lips = np.unique(faces_of(file, *jp("lips")))
    rest = file.vertices["position"].astype(float)
    head = truth.top_y - truth.chin_y
    opened = rest + moved(file, truth.mouth_open)
    assert np.ptp(rest[lips, 1]) < 0.04 * head
    assert np.ptp(opened[lips, 1]) > 0.06 * head
    assert opened[lips, 1].min() > truth.chin_y - 0.05 * head


def test_first_seeds_hold_every_convention() -> None:
    habits = [draw_conventions(seed) for seed in range(150)]
    assert {habit.winks for habit in habits} == set(WINKS)
    assert {habit.mouth for habit in habits} == {"vertex", "group", "jaw"}
    assert {habit.toon for habit in habits} == {"shared", "own", "none"}
    assert {habit.extra_uvs for habit in habits} == {0, 1, 2}
    assert {(habit.sphere, habit.legacy_sphere) for habit in habits} == {
        (k, old) for k in range(3) for old in (False, True)
    }
    assert 0.10 < np.mean([habit.reversed_side for habit in habits]) < 0.32
    for name in ("group_blink", "head_d", "separators", "repeated_names", "utf8", "wide_indices", "sdef_neck"):
        share = np.mean([getattr(habit, name) for habit in habits])
        assert 0.02 < share < 0.5, name


def test_first_seeds_hold_every_style_and_no_two_alike() -> None:
    traits = [draw_traits(seed) for seed in range(400)]
    assert {trait.hair.style for trait in traits} == set(HAIR_STYLES)
    assert {trait.hair.fringe for trait in traits} == set(FRINGES)
    assert {trait.eyes.style for trait in traits} == set(EYE_STYLES)
    assert {trait.clothes.kind for trait in traits} == set(CLOTHES)
    assert {trait.extras.headwear for trait in traits} == {"", *HEADWEAR}
    assert {trait.extras.animal for trait in traits} == {"", *ANIMALS}
    assert max(Counter(trait.hair.style for trait in traits).values()) < 0.2 * len(traits)
    looks = {(t.hair.style, t.hair.fringe, t.eyes.style, t.clothes.kind, t.build, t.extras.animal) for t in traits}
    assert len(looks) > 0.9 * len(traits)
    colours = np.array([(*trait.hair.root, *trait.eyes.left_color) for trait in traits])
    gap = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + np.eye(len(traits))
    assert gap.min() > 1e-3


def test_kinds_of_deform_and_morph_occur() -> None:
    kinds = {morph.kind for seed in range(18) for morph in model(seed).morphs}
    assert kinds == {pmx.MORPH_VERTEX, pmx.MORPH_GROUP, pmx.MORPH_BONE, pmx.MORPH_MATERIAL}
    deforms = {kind for seed in range(18) for kind in np.unique(model(seed).vertices["deform"]).tolist()}
    assert deforms == {pmx.BDEF1, pmx.BDEF2, pmx.BDEF4, pmx.SDEF}
    assert {model(seed).header.encoding for seed in range(18)} == {"utf-8", "utf-16-le"}


def test_writing_is_whole_and_resumes(tmp_path, monkeypatch) -> None:
    paths = library.write_characters(tmp_path, 2, first_seed=3)
    assert [path.parent.name for path in paths] == ["00003", "00004"]
    for path in paths:
        truth = json.loads((path.parent / "truth.json").read_text(encoding="utf-8"))
        assert path.name == f"{truth['name']}.pmx"
        assert set(truth["slots"]) == set(SLOTS)
    before = {path: path.stat().st_mtime_ns for path in paths}
    (paths[1].parent / "tex" / "face.png").write_bytes(b"half")
    seen = []
    assert library.write_characters(tmp_path, 2, first_seed=3, on_done=seen.append) == paths == seen
    assert paths[0].stat().st_mtime_ns == before[paths[0]]  # complete: kept
    assert (paths[1].parent / "tex" / "face.png").read_bytes() == character(4).files["tex/face.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"00003", "00004"}

    def broken(seed: int) -> Character:
        made = character(seed)
        return Character(made.name, {**made.files, "tex/face.png": None}, made.truth)  # type: ignore[dict-item]

    monkeypatch.setattr(library, "build_character", broken)
    with pytest.raises(TypeError):
        library.write_characters(tmp_path, 1, first_seed=9)
    assert {path.name for path in tmp_path.iterdir()} == {"00003", "00004"}  # nothing half written
    with pytest.raises(ConfigError):
        library.write_characters(tmp_path, -1)
    for name, age in (("00009.tmp-1", 7200), ("00010.tmp-2", 0)):  # left by a killed process; in use by another one
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    library.write_characters(tmp_path, 1, first_seed=3)
    assert {path.name for path in tmp_path.iterdir()} == {"00003", "00004", "00010.tmp-2"}


def test_command(tmp_path) -> None:
    out = tmp_path / "characters"
    result = CliRunner().invoke(command, [str(out), "--count", "2", "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer["folder"] == str(out)
    assert len(answer["models"]) == 2
    assert read_pmx((out / "00000").joinpath(answer["models"][0].split("/")[-1]).read_bytes()).name
    again = CliRunner().invoke(command, [str(out), "--count", "2"])
    assert again.exit_code == 0
    assert str(out) in again.output
    assert "Examples" in CliRunner().invoke(command, ["--help"]).output
    assert CliRunner().invoke(command, [str(out), "--count", "-1"]).exit_code == 2
