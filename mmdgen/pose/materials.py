"""Materials that a pose changes: material morphs among the terms of the vocabulary."""

from __future__ import annotations

import numpy as np

from mmdgen.model.morphs import FlatMorph
from mmdgen.model.records import Model
from mmdgen.pose.binding import PoseBinding


def dynamic_materials(model: Model, flat: dict[str, FlatMorph]) -> tuple[int, ...]:
    """Return the indices of the materials that some parameter changes, ascending."""
    found: set[int] = set()
    for item in flat.values():
        for number in item.material["material"].tolist():
            found.update(range(len(model.materials)) if number < 0 else [number])
    return tuple(sorted(found))


def material_colors(
    model: Model, binding: PoseBinding, flat: dict[str, FlatMorph], materials: tuple[int, ...], poses: np.ndarray
) -> np.ndarray:
    """Return diffuse (with alpha) and ambient of `materials` under poses f32 [N, K]: f32 [N, materials, 7] in [0, 1].

    At weight w a multiplying morph scales by 1 + w (factor - 1), an adding one adds w times its value; all
    multiplications come before all additions, and the sum is clamped (as in saba and babylon-mmd, MIT).
    """
    poses = np.asarray(poses, np.float64)
    base = np.array([[*model.materials[number].diffuse, *model.materials[number].ambient] for number in materials])
    result = np.tile(base.reshape(1, len(materials), 7), (len(poses), 1, 1))
    for operation in (0, 1):
        for column, parameter in enumerate(binding.vocabulary.parameters):
            if parameter.kind != "morph":
                continue
            item = flat[parameter.name]
            for row, share in zip(item.material, item.material_weight, strict=True):
                if row["operation"] != operation:
                    continue
                weight = (poses[:, column] * share)[:, None, None]
                value = np.concatenate([row["diffuse"], row["ambient"]]).astype(np.float64)
                number = int(row["material"])
                where = slice(None) if number < 0 else [materials.index(number)]
                if operation == 0:
                    result[:, where] *= 1 + weight * (value - 1)
                else:
                    result[:, where] += weight * value
    return np.clip(result, 0, 1).astype(np.float32)
