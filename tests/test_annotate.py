"""Automatic annotation against exact truth.

The heads are procedural characters (`heads.py`), changed in the ways in which real models differ: what is tested is
that names are not trusted where geometry knows better, and that what cannot be found is said so by a code.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import heads
import numpy as np
import pytest
from heads import bounds_errors, character, code_of, replace

from mmdgen.annotate import names, store
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.motion import displacement
from mmdgen.annotate.records import EYE_SLOTS, SURE, Annotation
from mmdgen.annotate.variants import without_faces
from mmdgen.errors import MmdgenError
from mmdgen.model.load import load_model
from mmdgen.model.records import Model, Morph, MorphKind, MorphTerm

SEEDS = tuple(range(20))
SEED = 5  # half-width winks, all six slots, a jaw bone
# Hair that stands off: the truth is the flat hair under it, a person would mark somewhat more.
LOOSE_HAIR = {"curly_short", "spiky_short", "wolf_long"}
SLOTS = tuple(f"{shape}_{side}" for shape in ("normal", "smile") for side in ("left", "right"))
CHECKOUT = Path(__file__).resolve().parent.parent


def assert_slots(model: Model, found: Annotation, truth, *, slots=EYE_SLOTS) -> None:
    """Every slot moves exactly the vertices that the truth's slot moves (several morphs may do the same)."""
    for slot in slots:
        wanted = heads.motion(model, heads.terms(truth.slots[slot]), truth.center_x)
        got = heads.motion(model, found.eyes.slots[slot], truth.center_x)
        np.testing.assert_allclose(got, wanted, atol=1e-4, err_msg=slot)


def moved_sides(model: Model, terms: tuple[MorphTerm, ...], center_x: float) -> set[str]:
    """The sides of the face on which `terms` sink a vertex noticeably."""
    moved = displacement(model, terms, center_x)
    sunk = moved.offset[:, 1] < -0.3 * np.abs(moved.offset[:, 1]).max()
    x = model.position[moved.index[sunk], 0] - center_x
    return {name for name, there in (("left", (x > 0).any()), ("right", (x < 0).any())) if there}


# -- procedural characters: exact truth ----------------------------------------------------------------------------


def test_characters_are_annotated_as_they_were_built(thorough: bool):
    for seed in SEEDS if thorough else SEEDS[:8]:
        model, truth = character(seed)
        found = annotate(model)
        chin, top = bounds_errors(found, truth.chin_y, truth.top_y)
        assert chin < 0.02, (seed, chin)
        assert top < (0.08 if truth.styles["hair"] in LOOSE_HAIR else 0.04), (seed, top, found.bounds.reason)
        assert abs(found.bounds.center_x - truth.center_x) < 0.005 * (truth.top_y - truth.chin_y), seed
        assert (found.neck, found.head) == (truth.neck, truth.head), seed
        assert_slots(model, found, truth)
        wanted = heads.motion(model, heads.terms(truth.mouth_open), truth.center_x)
        np.testing.assert_allclose(heads.motion(model, found.eyes.mouth_open, truth.center_x), wanted, atol=1e-4)
        assert found.eyes.confidence > 0.9
        assert 0.3 < found.bounds.confidence <= 1


def test_the_same_model_gives_the_same_annotation():
    model, _ = character(SEED)
    assert annotate(model) == annotate(model)


# -- eyes: names propose, geometry decides -------------------------------------------------------------------------


def test_sides_come_from_vertices_when_all_names_lie():
    model, truth = character(SEED)
    left, right = truth.slots["normal_left"][0][0], truth.slots["normal_right"][0][0]
    smile_left, smile_right = truth.slots["smile_left"][0][0], truth.slots["smile_right"][0][0]
    # Sides exchanged, and the convention too: ウィンク２ smiles, ウィンク is normal.
    lying = heads.renamed(
        model,
        {left: "ウィンク右", right: "ウィンク左", smile_left: "ウィンク２右", smile_right: "ウィンク２左"},
    )
    found = annotate(lying)
    assert_slots(lying, found, truth)
    assert moved_sides(lying, found.eyes.slots["normal_left"], truth.center_x) == {"left"}


@pytest.mark.parametrize(
    "spelling",
    [
        ("ｳｨﾝｸ２", "ｳｨﾝｸ２右", "ｳｨﾝｸ", "ｳｨﾝｸ右"),
        ("ウインク2", "ウインク2右", "ウインク", "ウインク右"),
        ("blink_L", "Blink.R", "Smile L", "smile_(R)"),
        ("Fcl_EYE_Close_L", "Fcl_EYE_Close_R", "Fcl_EYE_Joy_L", "Fcl_EYE_Joy_R"),
        ("EyeBlinkLeft", "EyeBlinkRight", "eyeSmileLeft", "eyeSmileRight"),
        ("左眨眼", "右眨眼", "左微笑", "右微笑"),
        ("★まばたき左★", "★まばたき右★", "笑い(左)", "笑い(右)"),
    ],
)
@pytest.mark.parametrize("keep_both", [True, False])
def test_spellings(spelling: tuple[str, str, str, str], keep_both: bool):
    model, truth = character(SEED)
    numbers = [truth.slots[slot][0][0] for slot in SLOTS]
    model = heads.renamed(model, dict(zip(numbers, spelling, strict=True)))
    if not keep_both:
        model = heads.without_morphs(model, [truth.slots[f"{shape}_both"][0][0] for shape in ("normal", "smile")])
    found = annotate(model)
    assert_slots(model, found, truth, slots=SLOTS)
    both = heads.motion(model, found.eyes.slots["normal_both"], truth.center_x)
    parts = [heads.motion(model, found.eyes.slots[f"normal_{side}"], truth.center_x) for side in ("left", "right")]
    np.testing.assert_allclose(both, parts[0] + parts[1], atol=1e-4)


def test_a_both_eyed_morph_is_split_where_there_is_no_other():
    model, truth = character(SEED)
    model = heads.without_morphs(model, [truth.slots[slot][0][0] for slot in SLOTS])
    found = annotate(model)
    both = truth.slots["normal_both"][0][0]
    assert found.eyes.slots["normal_left"] == (MorphTerm(both, 1.0, "left"),)
    assert found.eyes.slots["normal_right"] == (MorphTerm(both, 1.0, "right"),)
    for side in ("left", "right"):
        assert moved_sides(model, found.eyes.slots[f"smile_{side}"], truth.center_x) == {side}


def test_a_model_without_smiles_has_empty_smile_slots():
    model, truth = character(SEED)
    model = heads.without_morphs(model, [truth.slots[f"smile_{side}"][0][0] for side in ("left", "right", "both")])
    found = annotate(model)
    assert found.eyes.slots["smile_left"] == found.eyes.slots["smile_both"] == ()
    assert_slots(model, found, truth, slots=("normal_left", "normal_right", "normal_both"))


def test_exchanged_names_of_blink_and_smile_are_noticed():
    model, truth = character(SEED)
    blink, smile = truth.slots["normal_both"][0][0], truth.slots["smile_both"][0][0]
    found = annotate(heads.renamed(model, {blink: "笑い", smile: "まばたき"}))
    assert found.eyes.slots["normal_both"] == (MorphTerm(blink),)
    assert found.eyes.slots["smile_both"] == (MorphTerm(smile),)


def test_half_closed_and_wide_eyes_are_not_taken():
    model, truth = character(SEED)
    blink = truth.slots["normal_both"][0][0]
    half = with_scaled(model, blink, 0.45)  # まばたき that only half closes, beside the winks that close
    found = annotate(half)
    assert MorphTerm(blink) not in found.eyes.slots["normal_both"]
    assert_slots(model, found, truth, slots=("normal_left", "normal_right"))


def with_scaled(model: Model, number: int, factor: float) -> Model:
    return heads.with_morphs(
        model, lambda i, m: replace(m, offset=(m.offset * factor).astype(np.float32)) if i == number else m
    )


def test_dummies_named_like_eyes_are_no_eyes():
    model, truth = character(SEED)
    eyes = {items[0][0] for items in truth.slots.values() if items}
    dead = heads.without_morphs(model, eyes)
    dead = heads.renamed(dead, {min(eyes): "まばたき"})
    assert code_of(dead) == "no_eye_morph"
    tiny = model
    for number in eyes:
        tiny = with_scaled(tiny, number, 0.02)
    assert code_of(tiny) == "no_eye_morph"


def test_one_eye_only_names_the_other():
    model, truth = character(SEED)
    gone = [truth.slots[slot][0][0] for slot in EYE_SLOTS if "right" in slot or "both" in slot]
    assert code_of(heads.without_morphs(model, gone)) == "no_eye_morph_right"
    gone = [truth.slots[slot][0][0] for slot in EYE_SLOTS if "left" in slot or "both" in slot]
    assert code_of(heads.without_morphs(model, gone)) == "no_eye_morph_left"


def test_eyes_are_found_without_names():
    model, truth = character(SEED)
    found = annotate(heads.renamed(model, {i: f"m{i}" for i in range(len(model.morphs))}))
    for side in ("left", "right"):
        assert moved_sides(model, found.eyes.slots[f"normal_{side}"], truth.center_x) == {side}
        got = heads.motion(model, found.eyes.slots[f"normal_{side}"], truth.center_x)
        wanted = heads.motion(model, heads.terms(truth.slots[f"normal_{side}"]), truth.center_x)
        assert (got * wanted).sum() > 0.9 * np.linalg.norm(got) * np.linalg.norm(wanted)
    assert found.eyes.confidence < 0.75


def test_a_blink_made_of_group_and_bones():
    """Two lid bones carry the lids: まばたき is a group of bone morphs, as in models converted from games."""
    model, truth = character(SEED)
    blink, center = truth.slots["normal_both"][0][0], truth.center_x
    moved = displacement(model, (MorphTerm(blink),), center)
    lids = moved.offset[:, 1] < 0.5 * moved.offset[:, 1].min()
    skeleton, index, weight = model.skeleton, model.bone_index.copy(), model.bone_weight.copy()
    morphs, added = list(model.morphs), []
    for sign, name in ((1, "lid_a"), (-1, "lid_b")):
        bone = len(skeleton.name)
        mine = moved.index[lids & ((model.position[moved.index, 0] - center) * sign > 0)]
        index[mine], weight[mine] = (bone, 0, 0, 0), (1, 0, 0, 0)
        skeleton = heads.with_bone(skeleton, name, model.position[mine].mean(axis=0), truth.head)
        offset = np.zeros((1, 7), np.float32)
        offset[0, 1], offset[0, 6] = moved.offset[lids, 1].mean(), 1
        added.append(len(morphs))
        morphs.append(Morph(f"x{sign}", "", 4, MorphKind.BONE, np.array([bone], np.int32), offset))
    gone = {items[0][0] for items in truth.slots.values() if items}
    model = heads.without_morphs(replace(model, skeleton=skeleton, bone_index=index, bone_weight=weight), gone)
    group = Morph("まばたき", "", 2, MorphKind.GROUP, np.array(added, np.int32), np.ones(2, np.float32))
    model = replace(model, morphs=(*model.morphs, *morphs[len(model.morphs) :], group))
    found = annotate(model)
    assert found.eyes.slots["normal_both"] == (MorphTerm(len(model.morphs) - 1),)
    for side in ("left", "right"):
        assert moved_sides(model, found.eyes.slots[f"normal_{side}"], center) == {side}
    chin, top = bounds_errors(found, truth.chin_y, truth.top_y)
    assert chin < 0.02
    assert top < 0.04


def test_a_closed_eye_that_is_pushed_forward():
    """Flat models have closed eyes as another layer, hidden in the head: nothing sinks."""
    model, truth = character(SEED)
    blink = truth.slots["normal_both"][0][0]
    keep = model.morphs[blink]
    forward = np.zeros_like(keep.offset)
    forward[:, 2] = -0.1
    gone = {items[0][0] for items in truth.slots.values() if items} - {blink}
    flat = heads.without_morphs(
        heads.with_morphs(model, lambda i, m: replace(m, offset=forward) if i == blink else m), gone
    )
    found = annotate(heads.renamed(flat, {blink: "まばたき"}))
    assert found.eyes.slots["normal_left"] == (MorphTerm(blink, 1.0, "left"),)


# -- mouth ---------------------------------------------------------------------------------------------------------


def test_mouth_by_name_then_by_opening():
    model, truth = character(SEED)
    mouth = truth.mouth_open[0][0]
    renamed = annotate(heads.renamed(model, {mouth: "発音「あ」"}))
    assert renamed.eyes.mouth_open == (MorphTerm(mouth),)
    others = {i: f"q{i}" for i, morph in enumerate(model.morphs) if morph.panel == 3}
    nameless = annotate(heads.renamed(model, others))
    assert model.morphs[nameless.eyes.mouth_open[0].morph].panel == 3
    assert nameless.eyes.confidence < 0.7
    sunk = displacement(model, nameless.eyes.mouth_open, truth.center_x)
    assert sunk.offset[:, 1].min() < -0.05


@pytest.mark.parametrize(("name", "sure"), [("あ２", True), ("ああ", True), ("わ", False), ("お", False)])
def test_a_weak_mouth_shows_beside_other_shapes_but_not_beside_its_own_stronger_version(name: str, sure: bool):
    model, truth = character(SEED)
    mouth = truth.mouth_open[0][0]
    weak = model.morphs[mouth]
    spare = next(i for i, morph in enumerate(model.morphs) if morph.panel == 3 and i != mouth)
    others = [i for i, morph in enumerate(model.morphs) if morph.panel == 3 and i not in (mouth, spare)]
    wide = replace(weak, name=name, name_en="", offset=4 * weak.offset)
    changed = heads.with_morphs(heads.without_morphs(model, others), lambda i, m: wide if i == spare else m)
    found = annotate(heads.renamed(changed, {mouth: "あ"}))
    assert found.eyes.mouth_open == (MorphTerm(mouth),)
    assert (found.eyes.confidence >= SURE) is sure


def test_no_mouth_is_a_code():
    model, _ = character(SEED)
    mouths = [
        i
        for i, morph in enumerate(model.morphs)
        if morph.panel == 3 or names.mouth_rank(names.parse(morph.name)) is not None
    ]
    assert code_of(heads.without_morphs(model, mouths)) == "no_mouth_morph"
    shut = heads.renamed(heads.without_morphs(model, mouths), {mouths[0]: "あ"})
    assert code_of(shut) == "no_mouth_morph"


# -- head bounds ---------------------------------------------------------------------------------------------------


@functools.cache
def common_head():
    """A character with the proportions of common models, by which hats are judged: the lids at 0.41 of the head."""
    seed = next(s for s in range(20) if character(s)[1].styles["hair"] not in LOOSE_HAIR)
    model, truth = character(seed)
    moved = displacement(model, heads.terms(truth.slots["normal_both"]), truth.center_x)
    sunk = moved.offset[:, 1] < 0.5 * moved.offset[:, 1].min()
    lids = float(model.position[moved.index[sunk], 1].mean())
    top = truth.chin_y + (lids - truth.chin_y) / 0.41
    above = lids + 0.08 * (truth.top_y - truth.chin_y)
    factor = (top - above) / (truth.top_y - above)
    position = model.position.copy()
    position[:, 1] = np.where(position[:, 1] > above, above + factor * (position[:, 1] - above), position[:, 1])
    return replace(model, position=position), replace(truth, top_y=top)


def test_the_head_with_common_proportions_is_measured():
    model, truth = common_head()
    chin, top = bounds_errors(annotate(model), truth.chin_y, truth.top_y)
    assert chin < 0.02
    assert top < 0.03


@pytest.mark.parametrize("thing", ["tuft", "ears", "horns", "tall hat", "cap", "low cap", "ribbon"])
def test_what_stands_or_is_worn_on_top_does_not_count(thing: str):
    model, truth = common_head()
    height, z = truth.top_y - truth.chin_y, float(model.skeleton.rest[truth.head, 2])
    before = annotate(model).bounds
    if thing == "cap":
        worn = heads.capped(model, truth, 0.20)
    elif thing == "low cap":
        worn = heads.capped(model, truth, 0.12)
    else:
        radius, tall, places = {
            "tuft": (0.03, 0.45, (0.0,)),
            "ears": (0.14, 0.35, (-0.3, 0.3)),
            "horns": (0.05, 0.6, (-0.2, 0.2)),
            "tall hat": (0.3, 0.5, (0.0,)),
            "ribbon": (0.12, 0.3, (-0.12, 0.12)),
        }[thing]
        worn = model
        for x in places:
            points, faces = heads.revolved(
                lambda part, radius=radius, tall=tall: (
                    radius * height * min(1.0, 3 * (1 - part)),
                    truth.top_y - 0.1 * height + part * (tall + 0.1) * height,
                ),
                (truth.center_x + x * height, z),
            )
            worn = heads.with_mesh(worn, truth.head, points, faces, "zz")
    after = annotate(worn).bounds
    assert after.chin_y == before.chin_y
    assert abs(after.top_y - before.top_y) < 0.03 * height, after


def test_the_skull_is_guessed_where_a_hat_has_replaced_the_hair():
    model, truth = common_head()
    height = truth.top_y - truth.chin_y
    rim = truth.chin_y + 0.62 * height
    bald = without_faces(model, model.position[model.face][:, :, 1].min(axis=1) > rim)
    found = annotate(heads.capped(bald, truth, 0.12)).bounds
    assert abs(found.top_y - truth.top_y) < 0.08 * height
    assert found.confidence < 0.6
    assert "hat" in found.reason
    nothing = annotate(bald).bounds
    assert abs(nothing.top_y - truth.top_y) < 0.12 * height
    assert nothing.confidence < 0.6


def test_the_face_may_be_off_centre_and_of_any_size():
    model, truth = character(SEED)
    for factor, shift in ((1.0, (0.4, -3.0, 0.7)), (10.0, (0.0, 0.0, 0.0)), (0.08, (1.0, 0.5, 0.0))):
        moved = heads.mapped(model, np.eye(3) * factor, shift)
        found = annotate(moved)
        assert_slots(moved, found, dataclasses.replace(truth, center_x=truth.center_x * factor + shift[0]))
        chin, top = bounds_errors(found, truth.chin_y * factor + shift[1], truth.top_y * factor + shift[1])
        assert chin < 0.02
        assert top < 0.04
        assert found.bounds.center_x == pytest.approx(truth.center_x * factor + shift[0], abs=0.02 * factor)


@pytest.mark.parametrize("stretch", [(1.25, 0.85, 1.1), (0.9, 1.12, 1.0), (1.4, 0.8, 1.3)])
def test_other_proportions(stretch: tuple[float, float, float]):
    """Chibi and long heads: scaled about the head bone."""
    model, truth = character(SEED)
    pivot = model.skeleton.rest[truth.head].astype(float)
    scale = np.diag(stretch)
    odd = heads.mapped(model, scale, tuple(pivot - scale @ pivot))
    found = annotate(odd)
    chin, top = bounds_errors(found, *(pivot[1] + stretch[1] * (y - pivot[1]) for y in (truth.chin_y, truth.top_y)))
    assert chin < 0.02
    assert top < 0.04


def test_a_microphone_before_the_chin_is_no_chin():
    model, truth = character(SEED)
    height = truth.top_y - truth.chin_y
    front = float(model.position[model.bone_index[:, 0] == truth.head, 2].min())
    points, faces = heads.revolved(
        lambda part: (0.05 * height * np.sin(np.pi * part), truth.chin_y + (0.1 - 0.25 * part) * height),
        (truth.center_x, front - 0.1 * height),
    )
    found = annotate(heads.with_mesh(model, truth.head, points, faces, "zz")).bounds
    assert abs(found.chin_y - truth.chin_y) < 0.02 * height
    assert found.confidence < annotate(model).bounds.confidence


def test_a_model_that_faces_away_is_rejected():
    model, _ = character(SEED)
    assert code_of(heads.mapped(model, np.diag((-1.0, 1.0, -1.0)))) == "not_facing_front"


# -- real models, as people have annotated them --------------------------------------------------------------


@pytest.mark.corpus
def test_real_models_agree_with_people(corpus: Path):
    """Every model of the corpus that people have annotated: bounds, sides and morphs."""
    errors, checked = [], 0
    for path in sorted(p for p in corpus.rglob("*") if p.suffix.lower() in (".pmx", ".pmd") and p.stat().st_size):
        try:
            model = load_model(path)
        except MmdgenError:  # what cannot be loaded is another test's matter
            continue
        stored = store.load(model, CHECKOUT / "annotations")
        if stored.bounds is None or stored.eyes is None:
            continue
        found = annotate(model)
        checked += 1
        errors.append((*bounds_errors(found, stored.bounds.chin_y, stored.bounds.top_y), path.name))
        assert abs(found.bounds.center_x - stored.bounds.center_x) < 0.05
        for slot in EYE_SLOTS:
            got = heads.motion(model, found.eyes.slots[slot], stored.bounds.center_x)
            wanted = heads.motion(model, stored.eyes.slots[slot], stored.bounds.center_x)
            np.testing.assert_allclose(got, wanted, atol=1e-3, err_msg=f"{path.name} {slot}")
        got, wanted = (
            heads.motion(model, terms, stored.bounds.center_x)
            for terms in (found.eyes.mouth_open, stored.eyes.mouth_open)
        )
        np.testing.assert_allclose(got, wanted, atol=1e-3, err_msg=path.name)
    if not checked:
        pytest.skip(f"no annotated model in {corpus}")
    assert max(errors)[0] < 0.02, max(errors)
    assert max(error[1] for error in errors) < 0.04, sorted(errors, key=lambda e: -e[1])[:3]


@pytest.mark.corpus
def test_real_models_that_cannot_be_used_say_why(corpus: Path):
    path = corpus / "synthetic/yw-test-model/yw_test_model.pmx"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    assert code_of(load_model(path)) == "no_eye_morph"  # a bare body without morphs
