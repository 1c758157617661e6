"""The rendered check: it confirms what is right, refutes planted errors for the right reason, and repairs what it can.

The heads are procedural characters with their painted textures, whose truth is exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import heads
import numpy as np
import pytest

from mmdgen.annotate import check
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.check import MOUTH, annotate_checked, check_rendered
from mmdgen.annotate.eyeconfidence import SlotEvidence, eyes_confidence
from mmdgen.annotate.motion import effect, swapped_materials
from mmdgen.annotate.records import EYE_SLOTS, SURE, Annotation
from mmdgen.errors import AnnotationError
from mmdgen.formats.pmx.records import MATERIAL_OFFSET
from mmdgen.model.load import load_model
from mmdgen.model.records import Model, Morph, MorphKind, MorphTerm
from mmdgen.render.renderer import Renderer
from mmdgen.samples.character import Truth, build_character

replace = dataclasses.replace
SEEDS = (5, 11)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer() as made:
        yield made


@pytest.fixture(scope="module")
def character(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Model, Truth]]:
    """The painted character of a seed, loaded from its files."""
    root = tmp_path_factory.mktemp("characters")
    made: dict[int, tuple[Model, Truth]] = {}

    def get(seed: int) -> tuple[Model, Truth]:
        if seed not in made:
            built = build_character(seed)
            for name, content in built.files.items():
                path: Path = root / str(seed) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            made[seed] = load_model(next((root / str(seed)).glob("*.pmx"))), built.truth
        return made[seed]

    return get


def with_slots(annotation: Annotation, mouth: tuple[MorphTerm, ...] | None = None, **slots) -> Annotation:
    eyes = annotation.eyes
    found = replace(eyes, slots={**eyes.slots, **slots}, mouth_open=eyes.mouth_open if mouth is None else mouth)
    return replace(annotation, eyes=found)


def numbered(model: Model, name: str) -> int:
    return next(i for i, morph in enumerate(model.morphs) if name in (morph.name, morph.name_en))


def all_right(model: Model, found: Annotation, truth: Truth, slots=EYE_SLOTS, center_x: float = 0.0) -> None:
    for slot in slots:
        wanted = heads.motion(model, heads.terms(truth.slots[slot]), center_x)
        got = heads.motion(model, found.eyes.slots[slot], center_x)
        np.testing.assert_allclose(got, wanted, atol=1e-4, err_msg=slot)


# -- what is right is confirmed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_truth_is_confirmed(seed: int, character, renderer: Renderer):
    model, truth = character(seed)
    images: dict = {}
    checked = check_rendered(model, annotate(model), renderer, images)
    assert {name: item.verdict for name, item in checked.slots.items()} == dict.fromkeys(
        [*(slot for slot in EYE_SLOTS if truth.slots[slot]), MOUTH], "right"
    )
    assert not checked.wrong
    assert not checked.reasons
    assert checked.told_apart is (True if truth.slots["smile_both"] else None)
    assert images  # decoded textures are there for the next call, which says the same
    again = check_rendered(model, annotate(model), renderer, dict(images))
    assert again == checked
    found = annotate_checked(model, renderer)
    assert found.eyes.confidence >= SURE
    all_right(model, found, truth)


def test_closing_one_eye_is_measured_on_that_side(character, renderer: Renderer):
    model, _ = character(5)
    slots = check_rendered(model, annotate(model), renderer).slots
    for shape in ("normal", "smile"):
        for side, other in (("left", "right"), ("right", "left")):
            eyes = slots[f"{shape}_{side}"].measure.eyes
            closed, opened = eyes[side], eyes[other]
            assert closed is not None
            assert opened is not None
            assert closed.change > 0.9 > 0.1 > opened.change
            assert closed.visible < 0.03
            assert opened.visible > 0.97
    normal, smile = (slots[f"{shape}_both"].measure.eyes["left"] for shape in ("normal", "smile"))
    bends = [eye.bend for eye in (normal, smile) if eye is not None and eye.bend is not None]
    assert len(bends) == 2
    assert bends[0] > bends[1] + 0.1
    assert slots[MOUTH].measure.opened > check.MOUTH_OPEN


# -- planted errors -------------------------------------------------------------------------------------------------


def refuted(model: Model, annotation: Annotation, renderer: Renderer, slot: str) -> str:
    """The code for which the check refutes `slot`, once it is asserted to do so, in words too."""
    checked = check_rendered(model, annotation, renderer)
    assert slot in checked.wrong, checked.slots[slot]
    assert any(reason.startswith(f"{slot}: ") for reason in checked.reasons)
    return checked.slots[slot].code


def test_planted_errors_are_refuted_for_the_right_reason(character, renderer: Renderer):
    model, truth = character(5)
    right = annotate(model)
    slots = right.eyes.slots

    def term(*names: str) -> tuple[MorphTerm, ...]:
        return (MorphTerm(next(i for i, m in enumerate(model.morphs) if {m.name, m.name_en} & set(names))),)

    swapped = with_slots(right, normal_left=slots["normal_right"], normal_right=slots["normal_left"])
    checked = check_rendered(model, swapped, renderer)
    assert [checked.slots[slot].code for slot in ("normal_left", "normal_right")] == ["wrong_side"] * 2
    both = with_slots(right, normal_left=slots["normal_both"])
    assert refuted(model, both, renderer, "normal_left") == "both_sides"
    half = with_slots(right, normal_both=term("じと目", "jitome"))
    assert refuted(model, half, renderer, "normal_both") in ("half_closed", "not_covered")
    scaled = with_slots(right, normal_left=tuple(replace(t, weight=0.5) for t in slots["normal_left"]))
    assert refuted(model, scaled, renderer, "normal_left") in ("half_closed", "not_covered")
    brow = with_slots(right, normal_both=term("怒り", "angry"))
    assert refuted(model, brow, renderer, "normal_both") in ("not_covered", "no_change")
    mouth_in_eye = with_slots(right, normal_both=right.eyes.mouth_open)
    assert refuted(model, mouth_in_eye, renderer, "normal_both") in ("not_covered", "no_change")
    eye_in_mouth = with_slots(right, mouth=slots["normal_both"])
    assert refuted(model, eye_in_mouth, renderer, MOUTH) == "not_the_mouth"
    little = with_slots(right, mouth=tuple(replace(t, weight=0.05) for t in right.eyes.mouth_open))
    assert refuted(model, little, renderer, MOUTH) in ("shut", "not_the_mouth")
    if truth.slots["smile_both"]:
        exchanged = with_slots(
            right,
            **{f"normal_{side}": slots[f"smile_{side}"] for side in ("left", "right", "both")},
            **{f"smile_{side}": slots[f"normal_{side}"] for side in ("left", "right", "both")},
        )
        checked = check_rendered(model, exchanged, renderer)
        assert {checked.slots[slot].code for slot in EYE_SLOTS} == {"exchanged"}
        assert checked.told_apart is False


@pytest.mark.parametrize("weight", [0.5, 0.6, 0.7])
def test_eyes_that_stop_half_way_are_refuted(weight: float, character, renderer: Renderer):
    """Every slot in turn, the others being right: undershooting lids leave the iris visible."""
    model, truth = character(11)
    right = annotate(model)
    for slot in (name for name in EYE_SLOTS if truth.slots[name]):
        weak = with_slots(right, **{slot: tuple(replace(t, weight=weight) for t in right.eyes.slots[slot])})
        assert refuted(model, weak, renderer, slot) in ("half_closed", "not_covered")


def test_lids_that_all_stop_half_way_are_never_sure(character, renderer: Renderer):
    """No morph of the model closes an eye, so none tells geometry what closing would be; pictures do."""
    model, truth = character(11)
    lids = {term[0] for terms in truth.slots.values() for term in terms}
    weak = heads.with_morphs(model, lambda i, m: replace(m, offset=m.offset * np.float32(0.6)) if i in lids else m)
    assert all(morph.kind is MorphKind.VERTEX for i, morph in enumerate(model.morphs) if i in lids)
    try:
        found = annotate_checked(weak, renderer)
    except AnnotationError:
        return
    assert found.eyes.confidence < SURE


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mouth_that_opens_far_less_than_others_is_not_sure(seed: int, character, renderer: Renderer):
    """A weak あ still opens the mouth in the picture; that お opens it three times as far tells."""
    model, truth = character(seed)
    mouth = truth.mouth_open[0][0]
    weak = heads.with_morphs(model, lambda i, m: replace(m, offset=m.offset * np.float32(0.2)) if i == mouth else m)
    found = annotate_checked(weak, renderer)
    assert found.eyes.mouth_open != (MorphTerm(mouth),) or found.eyes.confidence < SURE


def test_missing_textures_are_the_first_doubt(character, renderer: Renderer):
    model, _ = character(5)
    white = replace(model, textures=tuple(replace(item, path=None) for item in model.textures))
    found = annotate_checked(white, renderer)
    assert found.eyes.confidence < SURE
    assert "textures are missing" in found.eyes.reasons[0]


def test_a_smile_of_the_mouth_is_no_open_mouth(character, renderer: Renderer):
    seen = 0
    for seed in SEEDS:
        model, truth = character(seed)
        if truth.habits.extra_morphs:
            grin = with_slots(annotate(model), mouth=(MorphTerm(numbered(model, "にやり")),))
            assert refuted(model, grin, renderer, MOUTH) == "shut"
            seen += 1
    assert seen


def test_an_eye_that_is_left_open_beneath_a_highlight_is_told(character, renderer: Renderer):
    """The lid of a one-eyed morph that is robbed of half its vertices does not cover the iris."""
    model, _ = character(5)
    right = annotate(model)
    number = right.eyes.slots["normal_left"][0].morph
    morph = model.morphs[number]
    assert morph.kind is MorphKind.VERTEX
    x = model.position[morph.index, 0]
    kept = x > np.median(x)
    torn = heads.with_morphs(
        model, lambda i, m: replace(m, index=m.index[kept], offset=m.offset[kept]) if i == number else m
    )
    checked = check_rendered(torn, right, renderer)
    assert checked.slots["normal_left"].verdict != "right"


# -- what is refuted is tried again ----------------------------------------------------------------------------------


def test_a_dark_line_that_is_no_lids_line_does_not_exchange_the_shapes(character, renderer: Renderer) -> None:
    """Seed 60249: below its closed lids another line is darker, and bends a little more under the smiling ones."""
    model, truth = character(60249)
    found = annotate_checked(model, renderer)
    all_right(model, found, truth)
    assert check_rendered(model, found, renderer).told_apart is None


def test_a_wink_that_only_half_closes_gives_way_to_the_split_blink(character, renderer: Renderer):
    """0.7 of the way closes far enough for geometry; the picture shows the iris."""
    model, truth = character(11)
    gone = {slot: truth.slots[slot][0][0] for slot in ("normal_left", "normal_right")}
    assert truth.slots["normal_both"][0][0] not in gone.values()
    assert not truth.habits.group_blink
    weak = heads.with_morphs(
        model, lambda i, m: replace(m, offset=m.offset * np.float32(0.7)) if i in gone.values() else m
    )
    blind = annotate(weak)
    assert blind.eyes.slots["normal_left"] == (MorphTerm(gone["normal_left"]),)
    found = annotate_checked(weak, renderer)
    both = truth.slots["normal_both"][0][0]
    assert found.eyes.slots["normal_left"] == (MorphTerm(both, 1.0, "left"),)
    assert found.eyes.slots["normal_right"] == (MorphTerm(both, 1.0, "right"),)
    assert not check_rendered(weak, found, renderer).wrong


def test_a_refuted_mouth_gives_way_to_the_next(character, renderer: Renderer):
    """あ that only moves the jaw's vertices behind the face opens nothing; わ does."""
    model, truth = character(5)
    mouth = truth.mouth_open[0][0]
    hidden = Morph("あ", "a", 3, MorphKind.VERTEX, *_behind(model, truth))
    other = heads.with_morphs(
        model, lambda i, m: hidden if i == mouth else replace(m, name="口開け", name_en="") if m.name == "お" else m
    )
    assert annotate(other).eyes.mouth_open == (MorphTerm(mouth),)
    found = annotate_checked(other, renderer)
    assert found.eyes.mouth_open != (MorphTerm(mouth),)
    assert check_rendered(other, found, renderer).slots[MOUTH].verdict == "right"


def _behind(model: Model, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Vertices at the back of the head at the mouth's height, which sink."""
    lips = effect(model, heads.terms(truth.mouth_open), 0.0).index
    y = float(np.median(model.position[lips, 1]))
    x = np.abs(model.position[:, 0])
    on_head = (model.bone_index[:, 0] == truth.head) & (model.bone_weight[:, 0] > 0.9)
    near = np.flatnonzero(on_head & (np.abs(model.position[:, 1] - y) < 0.3) & (x < 0.3) & (model.position[:, 2] > 0.5))
    assert len(near) >= 3
    return near.astype(np.int32), np.tile(np.array([0, -0.2, 0], np.float32), (len(near), 1))


def test_without_a_normal_blink_nothing_is_sure(character, renderer: Renderer):
    """A まばたき that half closes: the winks close, but which shape they have is a guess."""
    model, truth = character(11)
    blink = truth.slots["normal_both"][0][0]
    half = heads.with_morphs(model, lambda i, m: replace(m, offset=m.offset * np.float32(0.4)) if i == blink else m)
    gone = {truth.slots[slot][0][0] for slot in ("normal_left", "normal_right")} - {blink}
    only_smiles = heads.without_morphs(half, gone)
    found = annotate_checked(only_smiles, renderer)
    assert found.eyes.slots["normal_left"] == ()
    assert found.eyes.confidence < SURE
    assert "only smiling" in found.eyes.reasons[0]


# -- eyes that are exchanged for closed ones ---------------------------------------------------------------------------


def flat_eyes(model: Model, truth: Truth, sides: tuple[str, ...] = ("left", "right")) -> Model:
    """Closed eyes as hidden layers before the open ones, shown by material morphs, one a side or one for both."""
    center = effect(model, heads.terms(truth.slots["normal_both"]), 0.0).index
    eyes = model.position[center]
    gone = {items[0][0] for items in truth.slots.values() if items}
    layers: dict[str, list[int]] = {side: [] for side in ("left", "right")}
    for side, sign in (("left", 1), ("right", -1)):
        own = eyes[eyes[:, 0] * sign > 0]
        low, high = own.min(axis=0), own.max(axis=0)
        front = low[2] - 0.02
        for name, bottom, top, z, colour in (
            ("skin", low[1] - 0.02, high[1] + 0.02, front, (0.95, 0.8, 0.7)),
            (
                "line",
                low[1] + 0.3 * (high[1] - low[1]),
                low[1] + 0.36 * (high[1] - low[1]),
                front - 0.01,
                (0.1, 0.05, 0.05),
            ),
        ):
            points = np.array(
                [[x, y, z] for x, y in ((low[0], top), (high[0], top), (high[0], bottom), (low[0], bottom))]
            )
            model = heads.with_mesh(
                model, truth.head, points, np.array([[0, 1, 2], [0, 2, 3]], np.int32), f"{name} {side}"
            )
            shown = replace(model.materials[-1], diffuse=(*colour, 0.0), ambient=colour, edge=False, double_sided=True)
            model = replace(model, materials=(*model.materials[:-1], shown))
            layers[side].append(len(model.materials) - 1)
    model = heads.without_morphs(model, gone)
    rows = {side: np.zeros(2, MATERIAL_OFFSET) for side in layers}
    for side, numbers in layers.items():
        rows[side]["material"], rows[side]["operation"] = numbers, 1
        rows[side]["diffuse"][:, 3] = 1
    if len(sides) == 2:
        found = [("まばたき左", rows["left"]), ("まばたき右", rows["right"])]
    else:
        found = [("まばたき", np.concatenate([rows["left"], rows["right"]]))]
    morphs = [
        Morph(name, "", 2, MorphKind.MATERIAL, table["material"].astype(np.int32), table) for name, table in found
    ]
    return replace(model, morphs=(*model.morphs, *morphs))


def test_eyes_closed_by_exchanging_materials(character, renderer: Renderer):
    model, truth = character(5)
    flat = flat_eyes(model, truth)
    count = len(flat.morphs)
    assert len(swapped_materials(flat, (MorphTerm(count - 2),))) == 2
    found = annotate_checked(flat, renderer)
    assert found.eyes.slots["normal_left"] == (MorphTerm(count - 2),)
    assert found.eyes.slots["normal_right"] == (MorphTerm(count - 1),)
    checked = check_rendered(flat, found, renderer)
    assert checked.slots["normal_left"].verdict == checked.slots["normal_right"].verdict == "right"
    turned = with_slots(
        found, normal_left=found.eyes.slots["normal_right"], normal_right=found.eyes.slots["normal_left"]
    )
    assert refuted(flat, turned, renderer, "normal_left") == "wrong_side"


def test_a_material_morph_of_both_eyes_cannot_be_split(character):
    model, truth = character(5)
    with pytest.raises(AnnotationError) as caught:
        annotate(flat_eyes(model, truth, ("both",)))
    assert caught.value.code == "no_eye_morph_left"


# -- confidence ----------------------------------------------------------------------------------------------------


def test_without_names_nothing_is_sure_and_the_doubt_comes_first(character, renderer: Renderer):
    model, _ = character(5)
    nameless = heads.renamed(model, {i: f"m{i}" for i in range(len(model.morphs))})
    found = annotate_checked(nameless, renderer)
    assert found.eyes.confidence < SURE
    assert "names" in found.eyes.reasons[0]


def test_what_people_chose_is_not_checked(character, renderer: Renderer):
    model, _ = character(5)
    given = annotate(model).eyes
    assert annotate_checked(model, renderer, eyes=given).eyes is given


def test_more_doubt_is_never_more_confidence():
    plain = SlotEvidence(0.97, told_apart=True)
    best, doubt = eyes_confidence(plain)
    assert best >= SURE
    assert doubt == ""
    for worse in (
        replace(plain, wrong=("normal_left",)),
        replace(plain, unclear=(MOUTH,)),
        replace(plain, told_apart=None),
        replace(plain, told_apart=False),
        replace(plain, geometry=0.6),
        replace(plain, has_normal=False),
    ):
        assert eyes_confidence(worse)[0] < best
    for refuting in (
        replace(plain, wrong=("normal_left",)),
        replace(plain, unclear=(MOUTH,)),
        replace(plain, geometry=0.7),
    ):
        confidence, doubt = eyes_confidence(refuting)
        assert confidence < SURE
        assert doubt
