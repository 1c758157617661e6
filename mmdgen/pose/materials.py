"""Materials that a pose changes: material morphs among the terms of the vocabulary."""

from __future__ import annotations

import numpy as np

from mmdgen.model.morphs import FlatMorph
from mmdgen.model.records import Material, Model
from mmdgen.pose.binding import PoseBinding

# Rows of `material_states`. `phong` needs the first SOLID_ROWS of them, `mmd` all.
DIFFUSE, AMBIENT, EDGE, SPECULAR, TEXTURE, SPHERE, TOON = 0, 1, 2, 3, 4, 6, 8
SOLID_ROWS, STATE_ROWS = 3, 10
_VALUES = ("diffuse", "ambient", "edge_size", "edge_color", "specular", "specular_power")
_FACTORS = ("texture", "sphere", "toon")
_LARGE = 1e6


def dynamic_materials(model: Model, flat: dict[str, FlatMorph]) -> tuple[int, ...]:
    """Return the indices of the materials that some parameter changes, ascending."""
    found: set[int] = set()
    for item in flat.values():
        for number in item.material["material"].tolist():
            found.update(range(len(model.materials)) if number < 0 else [number])
    return tuple(sorted(found))


def base_state(material: Material) -> np.ndarray:
    """Return the state of a material that no morph changes, f32 [10, 4], as `material_states` does."""
    return _clamped(np.array(_base(material), np.float64).reshape(1, 1, STATE_ROWS, 4))[0, 0]


def material_states(
    model: Model, binding: PoseBinding, flat: dict[str, FlatMorph], materials: tuple[int, ...], poses: np.ndarray
) -> np.ndarray:
    """Return what `materials` look like under poses f32 [N, K]: f32 [N, materials, 10, 4].

    Rows: DIFFUSE (with alpha) and AMBIENT (its last column the edge size), EDGE (colour with alpha), SPECULAR (its last
    column the power); then for TEXTURE, SPHERE and TOON the factor that multiplies their texels and the one that is
    added, (1, 1, 1, 1) and 0 where no morph has any.

    At weight w a multiplying morph scales by 1 + w (value - 1), an adding one adds w times its value; all
    multiplications come before all additions, and colours are clamped to [0, 1] (as in saba and babylon-mmd, MIT).
    """
    poses = np.asarray(poses, np.float64)
    base = np.array([_base(model.materials[number]) for number in materials], np.float64)
    states = np.tile(base.reshape(1, len(materials), STATE_ROWS * 4), (len(poses), 1, 1))
    for operation in (0, 1):
        for column, parameter in enumerate(binding.vocabulary.parameters):
            if parameter.kind != "morph":
                continue
            item = flat[parameter.name]
            for row, share in zip(item.material, item.material_weight, strict=True):
                if row["operation"] != operation:
                    continue
                weight = (poses[:, column] * share)[:, None, None]
                values = np.hstack([row[name] for name in _VALUES]).astype(np.float64)
                factors = np.array([row[name] for name in _FACTORS], np.float64)
                number = int(row["material"])
                where = slice(None) if number < 0 else slice(materials.index(number), materials.index(number) + 1)
                solid = states[:, where, : 4 * TEXTURE]
                texels = states[:, where, 4 * TEXTURE :].reshape(len(poses), -1, len(_FACTORS), 2, 4)
                if operation == 0:
                    solid *= 1 + weight * (values - 1)
                    texels[..., 0, :] *= 1 + weight[..., None] * (factors - 1)
                else:
                    solid += weight * values
                    texels[..., 1, :] += weight[..., None] * factors
                states[:, where, 4 * TEXTURE :] = texels.reshape(len(poses), -1, 4 * (STATE_ROWS - TEXTURE))
    return _clamped(states.reshape(len(poses), len(materials), STATE_ROWS, 4))


def _base(material: Material) -> tuple[float, ...]:
    solid = (*material.diffuse, *material.ambient, material.edge_size, *material.edge_color, *material.specular)
    return (*solid, material.specular_power, *(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0) * len(_FACTORS))


def _clamped(states: np.ndarray) -> np.ndarray:
    """Clamp colours to [0, 1], edge size and power from below; factors only to what a float holds with ease."""
    states = np.clip(states, -_LARGE, _LARGE)
    states[:, :, : SPECULAR + 1] = np.maximum(states[:, :, : SPECULAR + 1], 0)
    for row, width in ((DIFFUSE, 4), (AMBIENT, 3), (EDGE, 4), (SPECULAR, 3)):
        states[:, :, row, :width] = np.minimum(states[:, :, row, :width], 1)
    return states.astype(np.float32)
