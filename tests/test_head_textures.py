"""Models whose head would be drawn white: procedural characters that lose one texture after the other."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from heads import character as bodiless
from toy import CHIN, TOP, toy_binding, toy_builder

from mmdgen.annotate import headtextures
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.headtextures import lost_textures, require_head_textures
from mmdgen.annotate.records import EYE_SLOTS, Annotation, EyeMorphs, HeadBounds
from mmdgen.annotate.seen import MOST_POINTS, Fragments, rasterize, visible_share
from mmdgen.errors import ModelError
from mmdgen.generate.catalogue import REPAIRED, Rejection, UsableModel, examine, scan
from mmdgen.model.load import load_model
from mmdgen.samples.character import build_character

SEED = 4
# What seed 4 shows in its head, and what it does not: clothes, the body, the blush that is hidden at rest.
IN_HEAD = {"face", "sclera", "iris", "highlight", "mouth", "lash", "brow", "hair", "hat", "lens"}
ELSEWHERE = {"cloth", "sleeve", "collar", "ribbon", "neck", "skin_plain", "blush"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    for name, data in build_character(SEED).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "models" / "a"))


def pmx(folder: Path) -> Path:
    return next(folder.rglob("*.pmx"))


def scanned(folder: Path) -> UsableModel | Rejection:
    catalogue = scan(folder.parent, workers=1, include_unsure=True)
    return next(iter(catalogue.models or catalogue.rejected))


def test_a_whole_model_has_lost_nothing_and_pays_nothing(folder, monkeypatch):
    def never(*_):
        raise AssertionError("measured although nothing is missing")

    monkeypatch.setattr(headtextures, "_pixels", never)
    model = load_model(pmx(folder))
    assert require_head_textures(model, annotate(model)) == ()


@pytest.mark.parametrize("how", ["deleted", "damaged"])
@pytest.mark.parametrize("name", sorted(IN_HEAD))
def test_what_one_sees_in_the_head_is_needed(folder, name, how):
    path = next(folder.rglob(f"{name}.png"))
    if how == "deleted":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError) as caught:
        examine(pmx(folder), "a/a.pmx", folder.parent, None)
    assert caught.value.code == "head_textures_missing"
    assert f"{name}.png" in str(caught.value)
    assert ("not found" in str(caught.value)) == (how == "deleted")
    assert not any(f"{other}.png" in str(caught.value) for other in IN_HEAD - {name})


@pytest.mark.parametrize("how", ["deleted", "damaged"])
@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_what_one_does_not_see_there_is_only_counted(folder, name, how):
    path = next(folder.rglob(f"{name}.png"))
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"this is no picture at all, whatever its name says")
    usable = examine(pmx(folder), "a/a.pmx", folder.parent, None)
    assert usable.diagnostics["texture_missing"] == 1
    assert usable.status == REPAIRED


def test_spheres_and_toons_are_only_counted(folder):
    for name in ("sphere.spa", "toon.png", "toon_skin.png"):
        next(folder.rglob(name)).unlink()
    found = examine(pmx(folder), "a/a.pmx", folder.parent, None)
    assert found.diagnostics["texture_missing"] >= 2


def test_all_that_is_lost_is_named_and_the_scan_goes_on(folder):
    shutil.copytree(folder, folder.parent / "b" / "whole")
    for name in ("face", "hair", "cloth"):
        next(folder.rglob(f"{name}.png")).unlink()
    catalogue = scan(folder.parent, workers=1, paths=[str(pmx(folder).relative_to(folder.parent))], include_unsure=True)
    (rejection,) = catalogue.rejected
    assert rejection.code == "head_textures_missing"
    assert "2 of its textures" in rejection.message
    assert rejection.message.index("hair.png") < rejection.message.index("face.png")  # the larger comes first
    assert "cloth.png" not in rejection.message
    assert rejection.id


def test_a_material_without_a_texture_is_complete():
    model, _ = bodiless(1)
    plain = dataclasses.replace(
        model, materials=tuple(dataclasses.replace(material, texture=-1) for material in model.materials)
    )
    assert lost_textures(plain, annotate(plain)) == ()
    # The model was made in memory: none of its files is there.
    assert any(item.counts for item in lost_textures(model, annotate(model)))


def test_hidden_parts_count_where_an_expression_shows_them(folder):
    """The blush is transparent at rest; a mouth morph that shows it makes it part of the head."""
    next(folder.rglob("blush.png")).unlink()
    model = load_model(pmx(folder))
    annotation = annotate(model)
    (lost,) = lost_textures(model, annotation)
    assert not lost.counts
    number = next(i for i, m in enumerate(model.materials) if m.texture == lost.index)
    assert model.materials[number].diffuse[3] == 0
    shown = dataclasses.replace(
        model,
        materials=tuple(
            dataclasses.replace(m, diffuse=(*m.diffuse[:3], 1.0)) if i == number else m
            for i, m in enumerate(model.materials)
        ),
    )
    (lost,) = lost_textures(shown, annotation)
    assert lost.counts


@pytest.mark.parametrize(
    ("place", "width", "counts"),
    [
        ((0.45, 18.0), 0.015, False),  # 3 pixels in an eye
        ((0.45, 18.0), 0.05, True),  # 34 pixels there
        ((0.85, 18.6), 0.05, False),  # 34 pixels beside the forehead
        ((0.85, 18.6), 0.14, True),  # 265 pixels there
    ],
)
def test_small_ornaments_count_in_the_face_only(tmp_path, place, width, counts):
    toy = toy_builder()
    toy.textures.append("gone.png")
    toy.quad((*place, -1.5), (width, 0, 0), (0, width, 0))
    toy.material("ornament", texture_index=0)
    model = toy.model(tmp_path / "toy.pmx")
    terms = toy_binding().terms
    slots = {**dict.fromkeys(EYE_SLOTS, ()), "normal_left": terms["left_eye"], "normal_right": terms["right_eye"]}
    annotation = Annotation(1, 2, HeadBounds(CHIN, TOP, 0.0), EyeMorphs(slots, terms["mouth"]))
    (lost,) = lost_textures(model, annotation)
    if width > 0.03:
        assert lost.pixels == pytest.approx((2 * width / (2 * (TOP - CHIN)) * 256) ** 2, rel=0.4)
    assert lost.counts is counts


# -- the measure -------------------------------------------------------------------------------------------------------


def scene(*squares: tuple[float, float, float, float, float]):
    """A model-like object of squares (left, right, bottom, top, z), each of two front faces, and its materials."""
    points, faces, uv = [], [], []
    for left, right, bottom, top, z in squares:
        first = len(points)
        points += [(left, bottom, z), (left, top, z), (right, top, z), (right, bottom, z)]
        uv += [(0, 1), (0, 0), (1, 0), (1, 1)]
        faces += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
    model, _ = bodiless(1)
    return dataclasses.replace(
        model,
        position=np.array(points, np.float32),
        uv=np.array(uv, np.float32),
        face=np.array(faces, np.int32),
    )


def fragments_of(model, size: int = 8, double: bool = False, far=None) -> Fragments:
    faces = np.arange(len(model.face), dtype=np.int32)
    return rasterize(model, model.position, faces, np.full(len(faces), double), (0.0, 8.0, 8.0), size, far)


def test_fragments_are_where_surfaces_are():
    model = scene((1.2, 5.2, 2.2, 7.2, 3.0), (0.1, 8.0, 0.1, 8.0, 5.0))
    found = fragments_of(model)
    front = found.face < 2
    grid = np.zeros((8, 8), int)
    np.add.at(grid, (found.pixel[front] // 8, found.pixel[front] % 8), 1)
    expected = np.zeros((8, 8), int)
    expected[1:6, 1:5] = 1  # columns 1.5 to 4.5; y from 2.2 to 7.2 is rows 0.8 to 5.8 from the top
    assert np.array_equal(grid, expected)
    assert np.count_nonzero(~front) == 64
    assert np.all(np.diff(found.pixel) >= 0)
    same = found.pixel[1:] == found.pixel[:-1]
    assert np.all(np.diff(found.depth)[same] >= 0)
    # Texture coordinates run with the pixels: u to the right, v down.
    row, column = found.pixel[front] // 8, found.pixel[front] % 8
    assert np.allclose(found.uv[front, 0], (column + 0.5 - 1.2) / 4, atol=1e-3)
    assert np.allclose(found.uv[front, 1], (row + 0.5 - 0.8) / 5, atol=1e-3)


def test_backs_are_seen_only_of_double_sided_faces():
    model = scene((1, 5, 2, 7, 3.0))
    turned = dataclasses.replace(model, face=model.face[:, ::-1].copy())
    assert len(fragments_of(turned).pixel) == 0
    assert len(fragments_of(turned, double=True).pixel) == len(fragments_of(model).pixel) == 20


def test_near_surfaces_hide_far_ones_as_far_as_they_are_opaque():
    model = scene((0, 8, 0, 8, 5.0), (0, 8, 0, 8, 1.0), (0, 8, 0, 8, 3.0))
    found = fragments_of(model)
    opacity = np.array([1.0, 0.25, 0.5])[found.face // 2]
    seen = visible_share(found, opacity)
    for number, share in ((1, 0.25), (2, 0.75 * 0.5), (0, 0.75 * 0.5)):
        assert np.allclose(seen[found.face // 2 == number], share)
    assert np.allclose(visible_share(found, np.ones(len(found.pixel)))[found.face // 2 != 1], 0, atol=1e-9)


def test_only_what_is_asked_for_is_looked_at():
    model = scene((1, 3, 5, 7, 2.0), (0, 8, 0, 8, 1.0), (0, 8, 0, 8, 6.0))
    own = rasterize(model, model.position, np.arange(2, dtype=np.int32), np.zeros(2, bool), (0.0, 8.0, 8.0), 8)
    far = own.depths(8)
    found = fragments_of(model, far=far)
    assert set(found.pixel.tolist()) == set(own.pixel.tolist())
    assert set((found.face // 2).tolist()) == {0, 1}  # nothing behind
    assert len(fragments_of(model, far=np.full(64, -np.inf)).pixel) == 0


def test_hostile_meshes_take_bounded_time():
    """A hundred thousand faces over the whole picture: a sample of them is looked at."""
    model = scene((0, 8, 0, 8, 5.0))
    many = dataclasses.replace(model, face=np.tile(model.face, (50_000, 1)))
    assert 0 < len(fragments_of(many, size=256).pixel) <= MOST_POINTS


def test_nothing_in_the_picture():
    assert len(fragments_of(scene((20, 30, 20, 30, 1.0))).pixel) == 0
    assert len(visible_share(fragments_of(scene((20, 30, 20, 30, 1.0))), np.zeros(0))) == 0
