"""Pose vocabularies: the named parameters of a pose vector, in stored order.

`tha1` is the vector of *Talking Head Anime from a Single Image*: order and ranges as in the released code
(github.com/pkhungurn/talking-head-anime-demo, poser/morph_rotate_combine_poser.py), joints and degrees from section 4
of the article.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mmdgen.errors import ConfigError

HEAD_ROTATION_LIMIT_DEG = 15.0


@dataclass(frozen=True, slots=True)
class PoseParameter:
    """`low`..`high` is the range; `rest` the value in the rest image; `meaning` one sentence for people.

    `kind` is ``rotation`` (then `bone` is ``head`` or ``neck`` and `axis` 0, 1 or 2: a positive rotation about that
    axis of MMD's frame, `limit` radians at the value 1) or ``morph`` (then the value is a weight).
    """

    name: str
    low: float
    high: float
    rest: float
    meaning: str
    kind: str
    bone: str = ""
    axis: int = 0
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class PoseVocabulary:
    """Named parameters in stored order: a pose is f32 [K]."""

    name: str
    parameters: tuple[PoseParameter, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def rest(self) -> np.ndarray:
        """The pose of the rest image, f32 [K]."""
        return np.array([parameter.rest for parameter in self.parameters], np.float32)

    def index(self, name: str) -> int:
        """Return the column of a parameter. Raises `ConfigError` with the known names."""
        try:
            return self.names.index(name)
        except ValueError:
            raise ConfigError(f"unknown pose parameter {name!r}; {self.name} has {', '.join(self.names)}") from None

    def pose(self, **values: float) -> np.ndarray:
        """Return the rest pose with `values` changed, f32 [K]. Raises `ConfigError` outside a parameter's range."""
        result = self.rest
        for name, value in values.items():
            column = self.index(name)
            parameter = self.parameters[column]
            if not parameter.low <= value <= parameter.high:
                raise ConfigError(f"{name}={value:g} is outside [{parameter.low:g}, {parameter.high:g}]")
            result[column] = value
        return result


_LIMIT = math.radians(HEAD_ROTATION_LIMIT_DEG)

THA1 = PoseVocabulary(
    "tha1",
    (
        PoseParameter("head_x", -1, 1, 0, "+1: the head looks up by 15 degrees", "rotation", "head", 0, _LIMIT),
        PoseParameter(
            "head_y", -1, 1, 0, "+1: the face turns to image left by 15 degrees", "rotation", "head", 1, _LIMIT
        ),
        PoseParameter(
            "neck_z",
            -1,
            1,
            0,
            "+1: the top of the head leans to image left by 15 degrees",
            "rotation",
            "neck",
            2,
            _LIMIT,
        ),
        PoseParameter("left_eye", 0, 1, 0, "1: the character's left eye (image right) is closed", "morph"),
        PoseParameter("right_eye", 0, 1, 0, "1: the character's right eye (image left) is closed", "morph"),
        PoseParameter("mouth", 0, 1, 1, "1: the mouth is open", "morph"),
    ),
)

# Nothing moves: the model as its file has it.
STILL = PoseVocabulary("still", ())

VOCABULARIES = {THA1.name: THA1}
