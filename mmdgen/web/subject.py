"""A model as the page needs it: where its head, eyes and mouth are, and what each of its morphs does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdgen.annotate.bones import bone_share, vertex_share
from mmdgen.annotate.motion import displacement, moving_morphs
from mmdgen.annotate.records import EYE_SLOTS, HeadBounds
from mmdgen.errors import MmdgenError
from mmdgen.model.morphs import flatten_terms
from mmdgen.model.records import Model, MorphKind, MorphTerm
from mmdgen.pose.materials import dynamic_materials
from mmdgen.web.finding import Finding

FOLLOWS = 0.5  # a vertex that takes over as much of the head's turn is the head's
ONE_SIDED = 0.85  # of a morph's motion lies on one side
_SHAPES = {"normal": "", "smile": ", smiling"}
_SIDES = {"left": "the left eye", "right": "the right eye", "both": "both eyes"}


@dataclass(frozen=True, slots=True)
class Square:
    """A square part of a picture, MU: from the front (x, y), from the side (z, y)."""

    across: float
    y: float
    height: float

    def to_json(self) -> dict[str, Any]:
        return {"center": [round(self.across, 5), round(self.y, 5)], "height": round(self.height, 5)}


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A loaded model. `bounds` are the machine's or its guess; `morphs` the rows of the page; `views` named framings.

    `heights` (y in MU) hold all that the page shows unless somebody looks elsewhere; `size` is about how many bytes it
    takes.
    """

    model: Model
    finding: Finding
    bounds: HeadBounds
    morphs: tuple[dict[str, Any], ...]
    views: dict[str, Any]
    heights: tuple[float, float]
    size: int


def make_subject(model: Model, finding: Finding) -> Subject:
    """Work out what the page shows of `model`. Thread-safe."""
    bounds = finding.bounds or finding.guess
    share = vertex_share(model, bone_share(model.skeleton, finding.head))
    of_head = share > FOLLOWS
    front, side = _framings(model, bounds, of_head)
    views: dict[str, Any] = {"front": front.to_json(), "side": side.to_json()}
    eyes, mouth = _places(model, finding, bounds)
    views["eyes_view"] = {name: square.to_json() for name, square in eyes.items()}
    views["mouth_view"] = mouth.to_json()
    margin = 0.75 * front.height
    return Subject(
        model,
        finding,
        bounds,
        tuple(_morph_rows(model, finding, bounds, of_head, eyes, mouth)),
        views,
        (front.y - margin, front.y + margin),
        _bytes(model),
    )


def _bytes(model: Model) -> int:
    arrays = (model.position, model.normal, model.uv, model.bone_index, model.bone_weight, model.edge_scale, model.face)
    return sum(array.nbytes for array in arrays) + sum(m.index.nbytes + m.offset.nbytes for m in model.morphs)


def _framings(model: Model, bounds: HeadBounds, of_head: np.ndarray) -> tuple[Square, Square]:
    """The whole head with its hair, from the front and from the side; long tails are cut off."""
    head = bounds.top_y - bounds.chin_y
    low, high = bounds.chin_y - 0.35 * head, bounds.top_y + 0.25 * head
    width, depth = 0.75 * head, (-0.75 * head, 0.75 * head)
    around = model.position[of_head & (model.position[:, 1] > low)]
    if len(around):
        high = max(high, min(float(around[:, 1].max()) + 0.05 * head, bounds.top_y + 1.2 * head))
        width = max(width, min(float(np.abs(around[:, 0] - bounds.center_x).max()) + 0.05 * head, 1.3 * head))
        near, far = float(around[:, 2].min()), float(around[:, 2].max())
        middle = (near + far) / 2
        reach = min(max((far - near) / 2 + 0.05 * head, 0.75 * head), 1.3 * head)
        depth = (middle - reach, middle + reach)
    height = max(high - low, 2 * width, depth[1] - depth[0])
    y = (low + high) / 2
    return Square(bounds.center_x, y, height), Square((depth[0] + depth[1]) / 2, y, height)


def _around(model: Model, terms: tuple[MorphTerm, ...], center_x: float, least: float) -> Square | None:
    """The square around what `terms` move most."""
    try:
        moved = displacement(model, terms, center_x)
    except MmdgenError:
        return None
    if moved.empty:
        return None
    length = np.linalg.norm(moved.offset, axis=1)
    most = length > 0.15 * length.max()
    before = model.position[moved.index[most], :2]
    places = np.concatenate([before, before + moved.offset[most, :2]])
    low, high = np.quantile(places, 0.02, axis=0), np.quantile(places, 0.98, axis=0)
    x, y = (low + high) / 2
    size = max(float((high - low).max()), least)
    return Square(float(x), float(y), size) if math.isfinite(size) else None


def _places(model: Model, finding: Finding, bounds: HeadBounds) -> tuple[dict[str, Square], Square]:
    """Close-ups of the eyes and the mouth: around what their morphs move, or where a face has them."""
    head, x = bounds.top_y - bounds.chin_y, bounds.center_x
    eyes = {
        "left": Square(x + 0.22 * head, bounds.chin_y + 0.42 * head, 0.5 * head),
        "right": Square(x - 0.22 * head, bounds.chin_y + 0.42 * head, 0.5 * head),
    }
    mouth = Square(x, bounds.chin_y + 0.16 * head, 0.45 * head)
    if finding.eyes is not None:
        for side in ("left", "right"):
            terms = finding.eyes.slots[f"normal_{side}"] or finding.eyes.slots[f"smile_{side}"]
            found = _around(model, terms, x, 0.1 * head)
            if found and found.height < 0.8 * head:
                eyes[side] = Square(found.across, found.y, max(1.6 * found.height, 0.3 * head))
        found = _around(model, finding.eyes.mouth_open, x, 0.1 * head)
        if found and found.height < 0.8 * head:
            mouth = Square(found.across, found.y, max(1.7 * found.height, 0.4 * head))
    a, b = eyes["left"], eyes["right"]
    both = Square((a.across + b.across) / 2, (a.y + b.y) / 2, abs(a.across - b.across) + (a.height + b.height) / 2)
    return {**eyes, "both": both}, mouth


def _morph_rows(
    model: Model,
    finding: Finding,
    bounds: HeadBounds,
    of_head: np.ndarray,
    eyes: dict[str, Square],
    mouth: Square,
):
    """Yield a row per morph; `candidate` are those that change the head's picture."""
    uses = _uses(finding)
    moving = dict(moving_morphs(model))
    head_materials = _materials_of(model, of_head)
    for number, morph in enumerate(model.morphs):
        side, what, candidate = "none", "", False
        if number in moving or morph.kind in (MorphKind.UV, MorphKind.MATERIAL):
            candidate, side, what = _effect(model, number, bounds.center_x, of_head, head_materials, eyes, mouth)
        yield {
            "number": number,
            "name": morph.name,
            "name_en": morph.name_en,
            "panel": morph.panel,
            "kind": str(morph.kind),
            "candidate": candidate,
            "side": side,
            "what": uses.get(number, what),
        }


def _uses(finding: Finding) -> dict[int, str]:
    """What the machine takes morphs for."""
    uses: dict[int, str] = {}
    if finding.eyes is None:
        return uses
    for slot in EYE_SLOTS:
        shape, _, side = slot.partition("_")
        terms = finding.eyes.slots[slot]
        for term in terms:
            if term.side != "both":
                text = f"closes both eyes{_SHAPES[shape]}"
            elif side == "both" and len(terms) > 1:
                continue  # the left one and the right one, which say so themselves
            else:
                text = f"closes {_SIDES[side]}{_SHAPES[shape]}"
            uses.setdefault(term.morph, text)
    for term in finding.eyes.mouth_open:
        uses.setdefault(term.morph, "opens the mouth")
    return uses


def _materials_of(model: Model, of_head: np.ndarray) -> frozenset[int]:
    touched = np.any(of_head[model.face], axis=1)
    return frozenset(
        number
        for number, material in enumerate(model.materials)
        if touched[material.first_face : material.first_face + material.face_count].any()
    )


def _effect(
    model: Model,
    number: int,
    center_x: float,
    of_head: np.ndarray,
    head_materials: frozenset[int],
    eyes: dict[str, Square],
    mouth: Square,
) -> tuple[bool, str, str]:
    """Return whether a morph changes the head, on which side, and what it does in words."""
    term = (MorphTerm(number),)
    try:
        moved = displacement(model, term, center_x)
        flat = flatten_terms(model, term, center_x)
    except MmdgenError:
        return False, "none", ""
    length = np.linalg.norm(moved.offset, axis=1) * of_head[moved.index]
    total = float(length.sum())
    if total > 0:
        place = model.position[moved.index]
        left = float(length[place[:, 0] > center_x].sum()) / total
        side = "left" if left > ONE_SIDED else "right" if left < 1 - ONE_SIDED else "both"
        return True, side, _region(place, length / total, side, eyes, mouth)
    if len(flat.uv_index) and of_head[flat.uv_index].any():
        return True, "both", "shifts a texture"
    if head_materials & set(dynamic_materials(model, {"": flat})):
        return True, "both", "changes materials"
    return False, "none", ""


def _region(place: np.ndarray, weight: np.ndarray, side: str, eyes: dict[str, Square], mouth: Square) -> str:
    """Say where most of a motion lies; `weight` [n] sums to 1."""

    def inside(square: Square, part: float) -> np.ndarray:
        half = part * square.height / 2
        return np.asarray((np.abs(place[:, 0] - square.across) < half) & (np.abs(place[:, 1] - square.y) < half))

    in_eyes = inside(eyes["left"], 0.9) | inside(eyes["right"], 0.9)
    of = "" if side == "both" else f" on the {side}"
    if weight[in_eyes].sum() > 0.6:
        return "moves the eyes" if side == "both" else f"moves the {side} eye"
    if weight[inside(mouth, 1.0)].sum() > 0.6:
        return f"moves the mouth{of}"
    above = (place[:, 1] > eyes["both"].y) & (np.abs(place[:, 1] - eyes["both"].y) < eyes["left"].height)
    if weight[above].sum() > 0.6:
        return f"moves brows or lashes{of}"
    return f"moves the face{of}"
