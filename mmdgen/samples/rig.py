"""The skeleton: standard bones of a semi-standard MMD model, hair chains, and the arrangement of head and eyes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmdgen.formats.pmx.records import (
    BONE_APPEND_ROTATION,
    BONE_ENABLED,
    BONE_MOVABLE,
    BONE_ROTATABLE,
    BONE_TAIL_IS_BONE,
    BONE_VISIBLE,
    PmxBone,
)
from mmdgen.samples.curves import steady


@dataclass(slots=True)
class Joint:
    """A bone to be: `position` in design units; `append` is (source, ratio) of rotation."""

    name: str
    name_en: str
    parent: str
    position: np.ndarray
    movable: bool = False
    layer: int = 0
    append: tuple[str, float] | None = None
    tail: str = ""
    visible: bool = True


@dataclass(slots=True)
class Rig:
    """Joints in file order, each after its parent."""

    joints: list[Joint] = field(default_factory=list)

    def add(
        self, name: str, name_en: str, parent: str, position: np.ndarray | tuple[float, float, float], **more
    ) -> None:
        self.joints.append(Joint(name, name_en, parent, np.asarray(position, float), **more))

    def index(self, name: str) -> int:
        """Return the bone's number. Raises `KeyError` for a name that is not there."""
        for number, joint in enumerate(self.joints):
            if joint.name == name:
                return number
        raise KeyError(name)

    def bones(self, scale: float, offset_y: float, english: bool) -> tuple[PmxBone, ...]:
        """Return the PMX bones in MU. `english`: the main name is the English one."""
        number = {joint.name: k for k, joint in enumerate(self.joints)}
        result = []
        for joint in self.joints:
            flags = BONE_ROTATABLE | BONE_ENABLED
            flags |= BONE_VISIBLE if joint.visible else 0
            flags |= BONE_MOVABLE if joint.movable else 0
            tail: tuple[float, float, float] | int = (0.0, 0.0, 0.0)
            if joint.tail:
                flags |= BONE_TAIL_IS_BONE
                tail = number[joint.tail]
            source, ratio = -1, 0.0
            if joint.append is not None:
                flags |= BONE_APPEND_ROTATION
                source, ratio = number[joint.append[0]], joint.append[1]
            x, y, z = (float(c) for c in steady(joint.position * scale + np.array([0.0, offset_y, 0.0])))
            result.append(
                PmxBone(
                    joint.name_en if english else joint.name,
                    joint.name_en,
                    (x, y, z),
                    number[joint.parent] if joint.parent else -1,
                    joint.layer,
                    flags,
                    tail,
                    source,
                    float(np.float32(ratio)),
                )
            )
        return tuple(result)
