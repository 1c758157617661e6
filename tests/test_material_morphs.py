"""Material morphs by what the pictures show: both formulas, weights, all materials at once, parts shown and hidden."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toy import GREY, toy_binding, toy_builder, toy_view

from mmdgen.formats.pmx import records as pmx
from mmdgen.model.records import MorphTerm
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.prepare import linear_to_srgb, prepare_model
from mmdgen.render.renderer import Renderer

pytestmark = pytest.mark.gl

MULTIPLY, ADD = 0, 1
BASE = np.array([0.5, 0.25, 0.8, 1.0])
SPOT = (50, 64)  # in the middle of the quad, in a picture of 128 pixels
FIRST = 3  # the first morph that a test adds


@pytest.fixture(scope="module")
def renderer():
    with Renderer(tiles=(1, 1)) as one:
        yield one


def change(operation: int, values, material: int | None = None, number: int = 7) -> np.ndarray:
    """One row for diffuse and ambient, the same colour, so that light comes to 1; by default of the quad's material."""
    row = np.zeros(1, pmx.MATERIAL_OFFSET)
    for name in pmx.MATERIAL_OFFSET.names or ():
        if name not in ("material", "operation"):
            row[name] = 1 - operation  # what changes nothing
    row["material"], row["operation"] = number if material is None else material, operation
    row["diffuse"], row["ambient"] = values, values[:3]
    return row


def pictures(renderer: Renderer, morphs, terms, weights=(1.0,), base=BASE) -> list[np.ndarray]:
    """The toy with a quad of colour `base` in front of the skull, under `terms` of the `morphs` at each weight."""
    toy = toy_builder()
    toy.quad((0, 18.2, -2), (0.8, 0, 0), (0, 0.6, 0))
    toy.material("quad", tuple(base[:3]), alpha=float(base[3]))
    for number, rows in enumerate(morphs):
        toy.morphs.append(
            rows if isinstance(rows, pmx.PmxMorph) else pmx.PmxMorph(f"m{number}", "", 4, pmx.MORPH_MATERIAL, rows)
        )
    model = toy.model()
    assert model.diagnostics == ()
    binding = dataclasses.replace(toy_binding(), terms={**toy_binding().terms, "mouth": tuple(terms)})
    with renderer.scene(prepare_model(model, binding, toy_view(size=128))) as scene:
        return list(scene.posed(np.array([THA1.pose(mouth=weight) for weight in weights], np.float32)))


def shown(color) -> np.ndarray:
    """The pixel of a face that looks at the viewer: ambient 0.5 and directional light 0.5 give the colour itself."""
    return linear_to_srgb(np.clip(np.asarray(color, float)[:3], 0, 1)) * 255


CASES = {
    "multiply": ([change(MULTIPLY, (0.5, 2, 0, 1))], 1.0, (0.25, 0.5, 0)),
    "multiply by half": ([change(MULTIPLY, (0.5, 2, 0, 1))], 0.5, (0.375, 0.375, 0.4)),
    "multiply beyond white": ([change(MULTIPLY, (3, 9, 9, 1))], 1.0, (1, 1, 1)),
    "add": ([change(ADD, (0.1, 0.3, -0.3, 0))], 1.0, (0.6, 0.55, 0.5)),
    "add by half": ([change(ADD, (0.1, 0.3, -0.3, 0))], 0.5, (0.55, 0.4, 0.65)),
    "add below black": ([change(ADD, (-1, -0.2, 4, 0))], 1.0, (0, 0.05, 1)),
    "no weight": ([change(ADD, (1, 1, 1, 0))], 0.0, (0.5, 0.25, 0.8)),
    "multiplications come first": (
        [np.concatenate([change(ADD, (0.2, 0.2, 0.2, 0)), change(MULTIPLY, (0.5, 0.5, 0.5, 1))])], 1.0,
        (0.45, 0.325, 0.6),
    ),
    "in whatever morph they are": (
        [change(ADD, (0.2, 0.2, 0.2, 0)), change(MULTIPLY, (0.5, 0.5, 0.5, 1))], 1.0, (0.45, 0.325, 0.6),
    ),
    "several multiply": ([change(MULTIPLY, (0.5, 2, 0.5, 1))] * 2, 1.0, (0.125, 1, 0.2)),
    "several add": ([change(ADD, (0.2, 0, 0, 0)), change(ADD, (-0.1, 0.1, 0, 0))], 1.0, (0.6, 0.35, 0.8)),
    "on another material": ([change(ADD, (0.5, 0.5, 0.5, 0), material=0)], 1.0, (0.5, 0.25, 0.8)),
}  # fmt: skip


@pytest.mark.parametrize(("morphs", "weight", "expected"), CASES.values(), ids=CASES)
def test_colours_follow_the_formulas(renderer, morphs, weight, expected):
    terms = [MorphTerm(FIRST + number) for number in range(len(morphs))]
    (image,) = pictures(renderer, morphs, terms, (weight,))
    np.testing.assert_allclose(image[SPOT][:3], shown(expected), atol=1.01)


def test_minus_one_is_every_material(renderer):
    (image,) = pictures(renderer, [change(MULTIPLY, (0.5, 0.5, 0.5, 1), material=-1)], [MorphTerm(FIRST)])
    skull = (75, 80)
    np.testing.assert_allclose(image[SPOT][:3], shown(BASE * 0.5), atol=1.01)
    np.testing.assert_allclose(image[skull][:3], shown(np.array(GREY) * 0.5), atol=1.01)


def test_groups_scale_the_weight(renderer):
    table = np.zeros(1, pmx.GROUP_OFFSET)
    table["morph"], table["weight"] = FIRST, 0.5
    morphs = [change(MULTIPLY, (0.5, 2, 0, 1)), pmx.PmxMorph("組", "", 4, pmx.MORPH_GROUP, table)]
    (image,) = pictures(renderer, morphs, [MorphTerm(FIRST + 1)])
    np.testing.assert_allclose(image[SPOT][:3], shown((0.375, 0.375, 0.4)), atol=1.01)


HIDDEN, SKULL = (0.5, 0.25, 0.8, 0.0), (*GREY, 1.0)
PARTS = {
    # base, change, what is seen at weights 0, 0.5 and 1: how much of the quad's colour over the skull's
    "added to 1": (HIDDEN, change(ADD, (0, 0, 0, 1)), (0, 0.5, 1)),
    "added beyond 1": (HIDDEN, change(ADD, (0, 0, 0, 3)), (0, 1, 1)),
    "added for every material": (HIDDEN, change(ADD, (0, 0, 0, 1), material=-1), (0, 0.5, 1)),
    "0 times anything is hidden": (HIDDEN, change(MULTIPLY, (1, 1, 1, 100)), (0, 0, 0)),
    "multiplied by 0": (BASE, change(MULTIPLY, (1, 1, 1, 0)), (1, 0.5, 0)),
    "taken away": (BASE, change(ADD, (0, 0, 0, -1)), (1, 0.5, 0)),
    "multiplied up": ((0.5, 0.25, 0.8, 0.25), change(MULTIPLY, (1, 1, 1, 4)), (0.25, 0.625, 1)),
}


@pytest.mark.parametrize(("base", "row", "shares"), PARTS.values(), ids=PARTS)
def test_parts_appear_and_vanish(renderer, base, row, shares):
    images = pictures(renderer, [row], [MorphTerm(FIRST)], (0.0, 0.5, 1.0), np.array(base))
    for image, share in zip(images, shares, strict=True):
        mixed = share * np.array(base[:3]) + (1 - share) * np.array(GREY)  # over the skull, in linear light
        np.testing.assert_allclose(image[SPOT][:3], shown(mixed), atol=1.01)
        assert image[SPOT][3] == 255


def test_operations_that_do_not_exist_are_dropped_and_told():
    row = change(ADD, (0.5, 0.5, 0.5, 0), material=1)
    row["operation"] = 7
    toy = toy_builder()
    toy.morphs.append(pmx.PmxMorph("m", "", 4, pmx.MORPH_MATERIAL, np.concatenate([row, change(ADD, (0, 0, 0, 1), 0)])))
    model = toy.model()
    assert [(item.code, item.index, item.message) for item in model.diagnostics] == [
        ("morph_value_invalid", FIRST, "m: 1 of 2 entries")
    ]
    assert model.morphs[FIRST].index.tolist() == [0]
