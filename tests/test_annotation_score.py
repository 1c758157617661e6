"""The mathematics of the scores, against values worked out by hand and planted mistakes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import heads
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdgen.annotate import score, score_page
from mmdgen.annotate.auto import annotate
from mmdgen.annotate.records import EYE_SLOTS, Annotation, EyeMorphs, HeadBounds
from mmdgen.errors import AnnotationError
from mmdgen.model.records import MorphTerm

SEED = 5
CHECKOUT = Path(__file__).resolve().parent.parent
finite = st.floats(-1e3, 1e3)


def truth_of(seed: int = SEED) -> score.Truth:
    built = heads.character(seed)[1]
    eyes = EyeMorphs({slot: heads.terms(built.slots[slot]) for slot in EYE_SLOTS}, heads.terms(built.mouth_open))
    return score.Truth(HeadBounds(built.chin_y, built.top_y, built.center_x), eyes)


def answer(bounds: HeadBounds, eyes: EyeMorphs) -> Annotation:
    return Annotation(0, 1, bounds, eyes)


def scored(confidence: float, error: float, *, eyes_confidence: float = 0.9) -> score.Score:
    """A score of a made-up model whose top is off by `error` head heights."""
    found = HeadBounds(10.0, 12.0 + 2 * error, 0.0, confidence=confidence)
    empty = EyeMorphs(dict.fromkeys(EYE_SLOTS, ()), (), confidence=eyes_confidence)
    truth = HeadBounds(10.0, 12.0, 0.0)
    return score.Score(
        f"{confidence} {error}", "k", (1,), score.Truth(truth), answer(found, empty), "", 0.1,
        score.score_bounds(found, truth), {},
    )  # fmt: skip


# -- bounds --------------------------------------------------------------------------------------------------------


def test_errors_are_parts_of_the_true_height():
    found = score.score_bounds(HeadBounds(9.9, 12.1, 0.02, confidence=0.7), HeadBounds(10.0, 12.0, 0.0))
    assert (found.chin, found.top, found.center) == pytest.approx((-0.05, 0.05, 0.01))
    assert found.confidence == 0.7
    assert not found.right
    assert found.worst == pytest.approx(0.05)


@pytest.mark.parametrize("field", ["chin_y", "top_y", "center_x"])
@pytest.mark.parametrize(("error", "right"), [(0.0399, True), (-0.0399, True), (0.0401, False), (-0.0401, False)])
def test_four_percent_of_the_head_is_the_limit(field: str, error: float, right: bool):
    truth = HeadBounds(10.0, 12.5, 0.3)
    found = dataclasses.replace(truth, **{field: getattr(truth, field) + error * 2.5})
    assert score.score_bounds(found, truth).right is right


@given(st.floats(0.01, 100), finite, finite, st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_errors_do_not_depend_on_units_and_place(size: float, shift: float, x: float, chin: float, top: float):
    truth = HeadBounds(shift, shift + size, x)
    found = HeadBounds(shift + chin * size, shift + size + top * size, x)
    result = score.score_bounds(found, truth)
    assert result.chin == pytest.approx(chin, abs=1e-6 * (1 + abs(shift) / size))
    assert result.top == pytest.approx(top, abs=1e-6 * (1 + abs(shift) / size))


def test_a_head_without_height_is_no_truth():
    with pytest.raises(ValueError, match="needs a height"):
        score.score_bounds(HeadBounds(1, 2, 0), HeadBounds(2, 2, 0))


# -- morphs --------------------------------------------------------------------------------------------------------


def test_two_displacements_are_compared_by_direction_and_length():
    base = np.array([1.0, 0.0, 2.0])
    assert score.same_vectors(base, base)
    assert score.same_vectors(1.09 * base, base)
    assert not score.same_vectors(1.11 * base, base)
    assert not score.same_vectors(0.89 * base, base)
    assert not score.same_vectors(-base, base)
    turned = np.array([np.cos(0.25), np.sin(0.25)])  # cosine 0.969
    assert not score.same_vectors(turned, np.array([1.0, 0.0]))
    assert score.same_vectors(np.array([np.cos(0.15), np.sin(0.15)]), np.array([1.0, 0.0]))
    assert score.same_vectors(0 * base, 0 * base)
    assert not score.same_vectors(0 * base, base)
    assert not score.same_vectors(base, 0 * base)


def test_another_list_that_does_the_same_is_right():
    model, _ = heads.character(SEED)
    truth = truth_of()
    assert truth.eyes is not None
    slots = truth.eyes.slots
    center = truth.bounds.center_x if truth.bounds else 0.0
    halves = slots["normal_left"] + slots["normal_right"]
    assert halves != slots["normal_both"]
    assert score.same_motion(model, halves, slots["normal_both"], center)
    assert not score.same_motion(model, slots["normal_left"], slots["normal_both"], center)
    assert not score.same_motion(model, slots["normal_left"], slots["normal_right"], center)
    assert not score.same_motion(model, slots["smile_both"], slots["normal_both"], center)
    weaker = tuple(dataclasses.replace(term, weight=0.8) for term in slots["normal_both"])
    assert not score.same_motion(model, weaker, slots["normal_both"], center)
    half = (dataclasses.replace(slots["normal_both"][0], side="left"),)
    assert score.same_motion(model, half, slots["normal_left"], center)


def test_planted_mistakes_are_found_in_their_slots():
    model, _ = heads.character(SEED)
    truth = truth_of()
    assert truth.eyes is not None
    assert truth.bounds is not None
    right, bounds = truth.eyes, truth.bounds
    wrong = dict(right.slots)
    wrong["normal_left"], wrong["normal_right"] = right.slots["normal_right"], right.slots["normal_left"]
    wrong["smile_both"] = ()
    result = score.score_model(
        model, truth, kind="k", find=lambda _: answer(bounds, EyeMorphs(wrong, right.mouth_open))
    )
    assert {slot for slot, item in result.slots.items() if not item.right} == {
        "normal_left", "normal_right", "smile_both",
    }  # fmt: skip
    assert not result.eyes_right
    assert result.slots["smile_both"] == score.SlotScore(True, False, False)
    assert result.bounds is not None
    assert result.bounds.worst == 0
    nothing = dataclasses.replace(truth, eyes=EyeMorphs({**right.slots, "smile_left": ()}, right.mouth_open))
    invented = score.score_model(model, nothing, kind="k", find=lambda _: answer(bounds, right))
    assert invented.slots["smile_left"] == score.SlotScore(False, True, False)


def test_a_refused_model_counts_as_nothing_found():
    model, _ = heads.character(SEED)

    def refuse(_):
        raise AnnotationError("no_eye_morph", "planted")

    result = score.score_model(model, truth_of(), kind="k", find=refuse)
    assert (result.found, result.bounds, result.code) == (None, None, "no_eye_morph")
    summary = score.summarise([result])
    assert summary["refused"] == {"no_eye_morph": 1}
    assert summary["bounds"]["right"] == 0
    assert summary["bounds"]["coverage"] == 0
    assert summary["bounds"]["right_where_sure"] is None
    assert summary["eyes"]["slots"]["normal_left"] == {
        "wanted": 1, "found": 0, "right": 0, "precision": None, "recall": 0.0,
    }  # fmt: skip


# -- sums ----------------------------------------------------------------------------------------------------------


def test_precision_and_recall_of_a_slot():
    rows = [
        score.SlotScore(True, True, True),
        score.SlotScore(True, True, True),
        score.SlotScore(True, True, False),  # another motion
        score.SlotScore(True, False, False),  # missed
        score.SlotScore(False, True, False),  # invented
        score.SlotScore(False, False, True),  # rightly empty
    ]
    assert score.slot_summary(rows) == {"wanted": 4, "found": 4, "right": 2, "precision": 0.5, "recall": 0.5}


def test_sums_of_known_scores():
    scores = [scored(0.95, 0.01), scored(0.9, 0.05), scored(0.85, -0.02), scored(0.5, 0.2), scored(0.6, 0.0)]
    bounds = score.summarise(scores)["bounds"]
    assert bounds["count"] == 5
    assert bounds["right"] == 0.6
    assert bounds["coverage"] == 0.6
    assert bounds["right_where_sure"] == pytest.approx(2 / 3, abs=1e-4)
    assert bounds["right_where_unsure"] == 0.5
    assert bounds["top_percent"]["p50"] == pytest.approx(2.0)
    assert bounds["top_percent"]["p100"] == pytest.approx(20.0)
    assert bounds["chin_percent"]["p100"] == 0
    assert bounds["chin_within_2_percent"] == 1


def test_models_that_people_reject_are_kept_apart():
    rejected = dataclasses.replace(scored(0.9, 0.3), truth=score.Truth(rejected="no face"), bounds=None)
    summary = score.summarise([scored(0.9, 0.0), rejected])
    assert summary["bounds"]["count"] == 1
    assert summary["rejected_by_people"] == {"count": 1, "refused_too": 0}


def test_a_calibration_table_by_hand():
    pairs = [(0.1, False), (0.8, True), (0.85, False), (0.9, True), (1.0, True), (0.5, True)]
    rows = {row["low"]: row for row in score.calibration(pairs)}
    assert [rows[low]["count"] for low in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)] == [1, 1, 0, 0, 2, 1, 1]
    assert rows[0.8]["share_right"] == 0.5
    assert rows[0.8]["mean_confidence"] == pytest.approx(0.825)
    assert rows[0.6]["share_right"] is None
    assert rows[0.95]["high"] == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40))
def test_every_pair_falls_into_one_bin(pairs: list[tuple[float, bool]]):
    rows = score.calibration(pairs)
    assert sum(row["count"] for row in rows) == len(pairs)
    right = sum(row["count"] * (row["share_right"] or 0) for row in rows)
    assert right == pytest.approx(sum(r for _, r in pairs), abs=1e-2)


def test_wilsons_interval():
    low, high = score.wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert score.wilson(0, 0) == (0.0, 1.0)
    assert score.wilson(10, 10)[1] == pytest.approx(1.0)
    assert score.wilson(300, 300)[0] > 0.98


def test_the_worst_are_those_that_were_sure():
    scores = [scored(0.9, 0.06), scored(0.3, 0.4), scored(0.95, 0.01), scored(0.99, 0.09)]
    assert [s.name for s in score.worst(scores, 3)] == ["0.99 0.09", "0.9 0.06", "0.3 0.4"]


# -- what is shown -------------------------------------------------------------------------------------------------


def test_the_page_escapes_names_and_shows_pictures():
    item = dataclasses.replace(scored(0.9, 0.06), name="<script>alert(1)</script>")
    picture = np.zeros((4, 8, 3), np.uint8)
    text = score_page.page({"<b>": score.summarise([item])}, [(item, picture), (item, None)])
    assert "<script>" not in text
    assert "<b>" not in text
    assert text.count("data:image/png;base64,") == 1
    assert "top +6.0 %" in text


@pytest.mark.gl
def test_lines_lie_where_the_bounds_are():
    from mmdgen.render.renderer import Renderer

    model, _ = heads.character(SEED)
    truth = truth_of().bounds
    assert truth is not None
    found = dataclasses.replace(truth, top_y=truth.top_y + 0.2 * (truth.top_y - truth.chin_y))
    with Renderer() as renderer:
        picture = score_page.head_picture(renderer, model, truth, found, depth=0.0, size=190)
    assert picture.shape == (190, 380, 3)
    # The picture spans 1.9 head heights, 0.55 of them above the true top.
    green = np.flatnonzero((picture == score_page.TRUE_COLOR).all(axis=2).all(axis=1))
    red = np.flatnonzero((picture == score_page.FOUND_COLOR).all(axis=2).all(axis=1))
    assert green.tolist() == [55]
    assert red.tolist() == [35, 155]  # the chin is the same: red is drawn over green


def test_the_tool_scores_procedural_characters(tmp_path: Path):
    command = [sys.executable, str(CHECKOUT / "tools/bench/annotation.py"), "--procedural", "2", "--variants", "1"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert [s["models"] for s in told["summaries"].values()] == [2, 2]
    exact = told["summaries"]["procedural, exact truth"]
    assert exact["bounds"]["right"] == 1
    assert exact["eyes"]["slots"]["normal_both"]["recall"] == 1
    none = subprocess.run(command[:2], capture_output=True, text=True, cwd=tmp_path)
    assert none.returncode == 2


def test_the_machine_itself_is_scored():
    model, _ = heads.character(SEED)
    result = score.score_model(model, truth_of(), kind="k")
    assert result.found is not None
    assert result.found == annotate(model)
    assert result.eyes_right
    assert result.bounds is not None
    assert result.bounds.right
    assert result.seconds > 0
    assert MorphTerm(*heads.character(SEED)[1].mouth_open[0]) in result.found.eyes.mouth_open
