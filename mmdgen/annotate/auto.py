"""Everything that a model must be annotated with, found without a person."""

from __future__ import annotations

import numpy as np

from mmdgen.annotate.bones import find_bones, vertex_share
from mmdgen.annotate.confidence import bounds_confidence
from mmdgen.annotate.eyes import EyeFinding, find_eyes, given_eyes
from mmdgen.annotate.head import find_chin
from mmdgen.annotate.mesh import HeadMesh, head_mesh
from mmdgen.annotate.motion import displacement
from mmdgen.annotate.mouth import MouthFinding, find_mouth, given_mouth
from mmdgen.annotate.records import Annotation, EyeMorphs, HeadBounds
from mmdgen.annotate.skull import find_top
from mmdgen.errors import AnnotationError
from mmdgen.model.records import Model


def annotate(model: Model, *, bounds: HeadBounds | None = None, eyes: EyeMorphs | None = None) -> Annotation:
    """Return bones, head bounds and eye and mouth morphs of `model`, each with its confidence and reasons.

    What is given (`bounds`, `eyes`: a person's) is kept and only the rest is found.

    Raises `AnnotationError` with a code that says why the model cannot be used: ``no_vertices``, ``no_head_bone``,
    ``not_a_character``, ``no_eye_morph``, ``no_eye_morph_left``, ``no_eye_morph_right``, ``no_mouth_morph``,
    ``no_face_geometry``, ``not_facing_front``.
    """
    bones = find_bones(model)
    if bounds is not None and eyes is not None:
        return Annotation(bones.neck, bones.head, bounds, eyes, bones.notes)
    share = vertex_share(model, bones.share)
    if eyes is None:
        lids = find_eyes(model, bones, share)
        mouth = find_mouth(model, lids, share)
        eyes = EyeMorphs(
            lids.slots,
            mouth.terms,
            confidence=round(min(lids.confidence, mouth.confidence), 3),
            reasons=lids.reasons + mouth.reasons,
        )
    else:
        lids = given_eyes(model, bones, eyes.slots)
        mouth = given_mouth(model, lids, share, eyes.mouth_open)
    if bounds is None:
        mesh = head_mesh(model, share)
        _check_front(model, mesh, lids)
        skin = _skin(model, mesh, lids, mouth)
        chin = find_chin(model, mesh, lids, mouth, skin)
        top = find_top(model, mesh, lids, chin, skin)
        confidence, doubts = bounds_confidence(chin, top)
        bounds = HeadBounds(
            chin.y,
            top.y,
            lids.center_x,
            confidence=confidence,
            reason="; ".join((*doubts, f"chin: {chin.reason}", f"top: {top.reason}")),
        )
    return Annotation(bones.neck, bones.head, bounds, eyes, bones.notes)


def _check_front(model: Model, mesh: HeadMesh, eyes: EyeFinding) -> None:
    """Raise `AnnotationError` ``not_facing_front`` if the lids do not lie before the middle of the head."""
    moved = displacement(model, eyes.slots["normal_both"] or eyes.slots["smile_both"], eyes.center_x)
    box = eyes.boxes["left"]
    near = np.abs(mesh.corners[:, 0, 1] - box.y) < 2 * box.half_width
    if len(moved.index) and near.any():
        lids = np.quantile(model.position[moved.index, 2], 0.1)
        middle = np.quantile(mesh.corners[near, 0, 2], (0.02, 0.98)).mean()
        if lids > middle:
            raise AnnotationError(
                "not_facing_front", f"{model.path}: the eyes (z = {lids:.2f}) lie behind the head's middle"
            )


def _skin(model: Model, mesh: HeadMesh, eyes: EyeFinding, mouth: MouthFinding) -> frozenset[int]:
    """The materials that lips and lids belong to: what mouth and eyes both move, or else what the mouth moves."""
    touched = []
    eye_terms = eyes.slots["normal_both"] or eyes.slots["smile_both"]
    for terms in (mouth.terms, eye_terms):
        moved = np.zeros(len(model.position), bool)
        moved[displacement(model, terms, eyes.center_x).index] = True
        touched.append(frozenset(mesh.material[moved[model.face[mesh.face]].any(axis=1)].tolist()))
    return (touched[0] & touched[1]) or touched[0]
