"""The part of a model that is drawn and turns with the head, as triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdgen.model.records import Model

VISIBLE = 0.01  # alpha below this is not drawn
FOLLOWS = 0.3  # of the head's rotation: the throat bends, the neck's root does not count


@dataclass(frozen=True, slots=True, eq=False)
class HeadMesh:
    """Triangles that follow the head. N of them.

    `face` i32 [N] indexes `Model.face`, `corners` f64 [N, 3, 3] MU, `material` i32 [N], `share` f32 [N] is the least
    part of the head's rotation that a corner takes over, `low` and `high` f64 [N, 3] are the corners' bounds.
    """

    face: np.ndarray
    corners: np.ndarray
    material: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def select(self, chosen: np.ndarray) -> HeadMesh:
        """Return the triangles of a mask or index array."""
        return HeadMesh(
            self.face[chosen],
            self.corners[chosen],
            self.material[chosen],
            self.share[chosen],
            self.low[chosen],
            self.high[chosen],
        )


def face_materials(model: Model) -> np.ndarray:
    """Return i32 [F], the material of each face; faces past the last material's range are given -1."""
    material = np.full(len(model.face), -1, np.int32)
    for number, item in enumerate(model.materials):
        material[item.first_face : item.first_face + item.face_count] = number
    return material


def head_mesh(model: Model, share: np.ndarray) -> HeadMesh:
    """Return the visible triangles of `model` whose corners all follow the head; `share` f32 [V] is by how much."""
    material = face_materials(model)
    alpha = np.array([m.diffuse[3] for m in model.materials] + [0.0], np.float32)
    least = share[model.face].min(axis=1)
    face = np.flatnonzero((least >= FOLLOWS) & (alpha[material] > VISIBLE)).astype(np.int32)
    corners = model.position[model.face[face]].astype(np.float64)
    return HeadMesh(face, corners, material[face], least[face], corners.min(axis=1), corners.max(axis=1))
