"""Head bounds of changed heads: what is worn without a name, other proportions, and how sure the machine is."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import heads
import numpy as np
import pytest

from mmdgen.annotate import confidence, skull, variants
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.bones import find_bones, vertex_share
from mmdgen.annotate.head import Chin
from mmdgen.annotate.records import SURE, HeadBounds
from mmdgen.annotate.score import score_bounds
from mmdgen.annotate.skull import SkullTop
from mmdgen.samples.traits import draw_traits

LOOSE_HAIR = {"curly_short", "spiky_short", "wolf_long"}  # it stands off the skull: the truth is the flat hair under it
SEEDS = tuple(seed for seed in range(12) if draw_traits(seed).hair not in LOOSE_HAIR)[:6]
GOOD_CHIN = Chin(10.0, 0.0, agree=True, uneven=False, weak=False, odd=False, reason="")
GOOD_TOP = SkullTop(12.0, "dome", cover=0.95, rival=0.4, off=0.0, lean=0.05, reason="")


@functools.cache
def known(seed: int):
    model, truth = heads.character(seed)
    bones = find_bones(model)
    return model, HeadBounds(truth.chin_y, truth.top_y, truth.center_x), bones.head, vertex_share(model, bones.share)


def changed(kind: str, seed: int, number: int = 0) -> variants.Variant:
    """The first variant of a kind, from a number on."""
    model, bounds, head, share = known(seed)
    for candidate in range(number, number + 400):
        made = variants.make_variant(model, bounds, head, share, candidate)
        if made.kind.removesuffix(", nameless") == kind:
            return made
    raise AssertionError(f"no variant is called {kind}")


# -- what the variants promise ---------------------------------------------------------------------------------------


def test_variants_are_repeatable_and_of_every_kind():
    model, bounds, head, share = known(SEEDS[0])
    made = [variants.make_variant(model, bounds, head, share, number) for number in range(120)]
    again = variants.make_variant(model, bounds, head, share, 7)
    assert again.kind == made[7].kind
    assert again.bounds == made[7].bounds
    np.testing.assert_array_equal(again.model.position, made[7].model.position)
    assert {item.kind.split(",")[0] for item in made} == set(variants.KINDS)


def test_variants_are_sound_models_and_leave_the_original_alone():
    model, bounds, head, share = known(SEEDS[0])
    before = model.position.copy()
    for number in range(40):
        made = variants.make_variant(model, bounds, head, share, number)
        item = made.model
        assert item.face.max() < len(item.position) == len(item.bone_index) == len(item.normal) == len(item.uv)
        assert sum(m.face_count for m in item.materials) == len(item.face)
        assert np.isfinite(item.position).all()
        assert made.bounds.top_y > made.bounds.chin_y
        if "nameless" in made.kind:
            assert not any(m.name == "帽子" or "髪" in m.name for m in item.materials)
    np.testing.assert_array_equal(model.position, before)


def test_a_stretched_cranium_moves_the_top_by_what_is_told():
    made = changed("cranium", SEEDS[0])
    model, bounds, _, _ = known(SEEDS[0])
    assert made.bounds.chin_y == bounds.chin_y
    assert made.bounds.top_y != bounds.top_y
    at = np.abs(model.position[:, 1] - bounds.top_y).argmin()
    moved = made.model.position[at, 1] - model.position[at, 1]
    assert moved == pytest.approx(made.bounds.top_y - bounds.top_y, abs=0.02)


# -- what the machine makes of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["cap", "tall hat", "beret", "ears", "tufts", "bun", "band", "muffler", "mask", "stretched", "moved", "cranium"],
)
def test_what_is_done_to_a_head_is_seen_through(kind: str):
    """Things worn have a look of their own here and no names; each kind on several heads."""
    for k, seed in enumerate(SEEDS[:3]):
        made = changed(kind, seed, 500 * k)
        found = annotate(made.model).bounds
        error = score_bounds(found, made.bounds)
        assert abs(error.chin) < 0.02, (seed, error)
        assert error.right, (seed, made.kind, error, found.reason)


def test_a_cap_instead_of_hair_is_never_sure():
    """Nothing shows how high the skull is: it must be left to a person, with the reason."""
    for k, seed in enumerate(SEEDS[:4]):
        made = changed("cap instead of hair", seed, 500 * k)
        found = annotate(made.model).bounds
        assert found.confidence < SURE, (seed, found)
        assert "hat" in found.reason.split(";")[0]
        assert score_bounds(found, made.bounds).worst < 0.15


def test_names_are_not_needed():
    for seed in SEEDS[:4]:
        model, bounds, head, _ = known(seed)
        error = score_bounds(annotate(variants.nameless(model, head)).bounds, bounds)
        assert error.right, (seed, error)
        assert abs(error.chin) < 0.02


def test_where_it_is_sure_it_is_right():
    """Changed copies of characters that nothing was fitted to."""
    sure = right = count = 0
    for seed in range(300, 308):
        if heads.character(seed)[1].styles["hair"] in LOOSE_HAIR:
            continue
        model, bounds, head, share = known(seed)
        for number in range(1000, 1006):
            made = variants.make_variant(model, bounds, head, share, number)
            if "hair's texture" in made.kind:
                continue  # a hat in the hair's own texture cannot be told from hair: docs/annotation-quality.md
            found = annotate(made.model).bounds
            count += 1
            if found.confidence >= SURE:
                sure += 1
                right += score_bounds(found, made.bounds).right
    assert count >= 16
    assert sure >= 0.75 * count
    assert right >= 0.95 * sure


# -- confidence --------------------------------------------------------------------------------------------------------


def test_nothing_against_it_is_sure_and_without_doubt():
    value, doubts = confidence.bounds_confidence(GOOD_CHIN, dataclasses.replace(GOOD_TOP, rival=0.3))
    assert (value, doubts) == (confidence.MOST, ())


@pytest.mark.parametrize(
    ("field", "values"),
    [("rival", (0.3, 0.6, 0.9, 1.2)), ("off", (0.0, 0.06, 0.12, 0.18)), ("off", (-0.1, -0.15, -0.2, -0.28)),
     ("lean", (0.2, 0.5, 0.8, 1.0))],
)  # fmt: skip
def test_each_doubt_lowers_the_confidence(field: str, values: tuple[float, ...]):
    worse = [dataclasses.replace(GOOD_TOP, rival=0.9, **({field: v} if field != "rival" else {})) for v in values]
    if field == "rival":
        worse = [dataclasses.replace(GOOD_TOP, rival=v, off=0.1) for v in values]
    found = [confidence.bounds_confidence(GOOD_CHIN, top)[0] for top in worse]
    assert all(0 < b <= a <= confidence.MOST for a, b in itertools.pairwise(found))
    assert found[-1] < found[0]


@pytest.mark.parametrize("kind", skull.KINDS)
def test_whoever_is_not_sure_says_why(kind: str):
    for rival in (0.2, 0.7, 1.3):
        for off in (-0.25, 0.0, 0.25):
            for agree in (True, False):
                top = dataclasses.replace(GOOD_TOP, kind=kind, rival=rival, off=off)
                value, doubts = confidence.bounds_confidence(dataclasses.replace(GOOD_CHIN, agree=agree), top)
                assert 0 <= value <= 1
                assert value >= SURE or doubts
                assert all(doubts)


def test_the_weightiest_doubt_comes_first():
    top = dataclasses.replace(GOOD_TOP, off=0.2, lean=0.5)
    _, doubts = confidence.bounds_confidence(dataclasses.replace(GOOD_CHIN, agree=False), top)
    assert "higher" in doubts[0]
    assert len(doubts) == 3
    value, doubts = confidence.bounds_confidence(GOOD_CHIN, dataclasses.replace(GOOD_TOP, kind="guess"))
    assert value == confidence.UNSEEN["guess"]
    assert "guessed under a hat" in doubts[0]


@pytest.mark.parametrize("flag", ["uneven", "weak", "odd"])
def test_doubts_about_the_chin_count(flag: str):
    value, doubts = confidence.bounds_confidence(dataclasses.replace(GOOD_CHIN, **{flag: True}), GOOD_TOP)
    assert value < confidence.bounds_confidence(GOOD_CHIN, GOOD_TOP)[0]
    assert "chin" in doubts[0]


def test_the_tip_of_a_round_chin_is_its_lowest_point():
    for seed in SEEDS:
        model, bounds, _, _ = known(seed)
        assert abs(score_bounds(annotate(model).bounds, bounds).chin) < 0.003, seed
