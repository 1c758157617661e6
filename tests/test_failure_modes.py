"""The failure modes that other loaders of MMD models had (reference, section 5), each as a file made by code.

A case `fmNN_...` is number NN of that list. Each asserts the status (ok, repaired, rejected), all diagnostics or the
code of the rejection, and that what remains is right: posed geometry and pictures equal to a sound model's.

Left out: 18's wrong IK target beyond being read (IK is not evaluated: nothing above the chest needs it), 28's eye
multipliers and waist cancel bones (no pose of ours turns eyes or waists), 48 (glTF-like block models of another
program). The list of the reference ends with what nobody reported and everybody needs: those are `fm99_...`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from failure_cases import CASES, OK, REJECTED, REPAIRED, Case
from failure_textures import TEXTURES, TextureCase
from heads import character, with_bones
from toy import toy_binding, toy_view

from mmdgen.annotate.auto import annotate
from mmdgen.errors import FormatError, MmdgenError
from mmdgen.generate.catalogue import reason
from mmdgen.model.load import load_model, model_from_bytes
from mmdgen.model.records import Model
from mmdgen.pose.skinning import skin
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer

POSES = np.array([THA1.rest, THA1.pose(head_x=0.8, head_y=-1, neck_z=0.6, left_eye=1, right_eye=0.5, mouth=0.4)])
ROOT = Path("/models")


@pytest.fixture(scope="module")
def renderer():
    with Renderer(tiles=(1, 1)) as one:
        yield one


def outcome(data: bytes, path: Path = ROOT / "x.pmx") -> tuple[str, tuple[str, ...], Model | str]:
    """Return status, codes, and the model or the message: as `mmdgen scan` judges a file."""
    try:
        model = model_from_bytes(data, path)
    except MmdgenError as error:
        place = error.offset if isinstance(error, FormatError) else 0
        code, message = reason(error, ROOT)
        return REJECTED, (code,), message if 0 <= place <= len(data) else f"byte {place} lies outside of the file"
    codes = tuple(diagnostic.code for diagnostic in model.diagnostics)
    return REPAIRED if codes else OK, codes, model


def pictures(renderer: Renderer, model: Model) -> list[np.ndarray]:
    with renderer.scene(prepare_model(model, toy_binding(), toy_view(size=96, outline=1.0))) as scene:
        return list(scene.posed(POSES))


def posed_faces(model: Model, pose: np.ndarray) -> np.ndarray:
    """f64 [F, 3, 3]: the corners of the faces that are not hidden."""
    seen = np.repeat([m.diffuse[3] > 0 for m in model.materials], [m.face_count for m in model.materials])
    return skin(model, toy_binding(), pose)[model.face[seen]]


def same_normals(model: Model, sound: Model) -> bool:
    seen = np.repeat([m.diffuse[3] > 0 for m in model.materials], [m.face_count for m in model.materials])
    return np.allclose(model.normal[model.face[seen]], sound.normal[sound.face], atol=1e-6)


@pytest.mark.parametrize("item", [item for item in CASES.values() if item.status == REJECTED],
                         ids=[name for name, item in CASES.items() if item.status == REJECTED])  # fmt: skip
def test_what_must_be_rejected(item: Case):
    status, codes, message = outcome(item.build())
    assert (status, codes) == (REJECTED, item.codes)
    assert isinstance(message, str)
    assert item.message in message
    assert "\n" not in message
    assert str(ROOT) not in message


USABLE = {name: item for name, item in CASES.items() if item.status != REJECTED}


@pytest.mark.parametrize("item", USABLE.values(), ids=USABLE)
def test_what_is_ok_or_repaired(item: Case):
    status, codes, model = outcome(item.build())
    assert (status, codes) == (item.status, item.codes), model
    assert isinstance(model, Model)
    item.check(model)
    if item.sound is None:
        return
    sound = model_from_bytes(item.sound(), ROOT / "sound.pmx")
    assert {d.code for d in sound.diagnostics} <= set(codes)
    assert same_normals(model, sound)
    for pose in POSES:
        np.testing.assert_allclose(posed_faces(model, pose), posed_faces(sound, pose), atol=2e-6)


DRAWN = {name: item for name, item in USABLE.items() if item.sound and "pmd" not in name}


@pytest.mark.gl
@pytest.mark.parametrize("item", DRAWN.values(), ids=DRAWN)
def test_the_picture_is_the_sound_model_s(renderer, item: Case):
    assert item.sound is not None
    model, sound = (model_from_bytes(build(), ROOT / "x.pmx") for build in (item.build, item.sound))
    for ours, expected in zip(pictures(renderer, model), pictures(renderer, sound), strict=True):
        assert (expected[..., 3] > 0).any()
        apart = np.abs(ours.astype(int) - expected).max(axis=2)
        assert (apart > 1).mean() < 2e-3
        assert not item.exact or not apart.any()


@pytest.mark.gl
@pytest.mark.parametrize("item", TEXTURES.values(), ids=TEXTURES)
def test_textures(renderer, tmp_path, item: TextureCase):
    (tmp_path / "case").mkdir()
    (tmp_path / "reference").mkdir()
    path = item.build(tmp_path / "case")
    model = load_model(path)
    assert tuple(diagnostic.code for diagnostic in model.diagnostics) == item.codes
    prepared = prepare_model(model, toy_binding(), toy_view(size=96))
    assert prepared.missing == item.missing
    reference = load_model(item.reference(tmp_path / "reference"))
    for ours, expected in zip(pictures(renderer, model), pictures(renderer, reference), strict=True):
        np.testing.assert_allclose(ours.astype(int), expected.astype(int), atol=item.tolerance)
    if item.check:
        item.check(pictures(renderer, model)[0])


@pytest.mark.parametrize("name", ["ボーン17", "", "\ufffd"])
def test_fm28_renamed_neck(name):
    """Without 首 the bone between chest and head stands in: the same head, the same pictures."""
    model, truth = character(1)
    found = annotate(with_bones(model, {"首": name}))
    assert (found.neck, found.head) == (truth.neck, truth.head)
    assert found.parameter_terms() == annotate(model).parameter_terms()
    assert any("stands in" in note for note in found.notes)


def test_fm28_renamed_head():
    """No bone is called a head any more: the one that carries the eyelids is."""
    model, truth = character(1)
    found = annotate(with_bones(model, {"頭": "ボーン18"}))
    assert (found.neck, found.head) == (truth.neck, truth.head)


def test_every_mode_that_must_have_a_fixture_has_one():
    """The modes marked in the reference, and the others that concern a head."""
    have = {int(name[2:4]) for name in (*CASES, *TEXTURES)}
    assert have >= set(range(1, 28)) | set(range(29, 48)) | {49, 50, 51, 99}
