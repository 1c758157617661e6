"""What a trained network must beat: the picture unchanged, and the same character's picture in the nearest pose.

The *nearest pose* baseline answers with a picture of the very character in question, taken from the same split: that
of its other sample whose pose is nearest. A person who has one drawing does not have those pictures, so this is no
rival but an oracle with a library of true pictures; to beat it means more than to have memorised the character.

Distance is Euclidean with one weight a parameter. A picture of the expression depends on eyes and mouth alone, so only
they count. A posed picture depends on all six, but an eye or a mouth is small and leaning swings the whole hair: the
weights follow what was measured on procedural characters, where they gave a lower error than equal ones.
A sample is never its own neighbour; of equal distances the lowest number in the split wins; who is the only sample of
its character has no neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.schema import ModelEntry
from mmdgen.errors import ConfigError

NONE = -1  # no neighbour
EXPRESSION_WEIGHTS = {"left_eye": 1.0, "right_eye": 1.0, "mouth": 1.0}
POSED_WEIGHTS = {"head_x": 1.0, "head_y": 1.0, "neck_z": 2.0, "left_eye": 0.25, "right_eye": 0.25, "mouth": 0.25}

_BLOCK = 4_000_000  # distances held at a time


@dataclass(frozen=True, slots=True)
class SplitPoses:
    """All samples of a split without their pictures: `pose` f32 [N, K] with columns `names`, `model` i64 [N], a place
    in `models` (one entry a character, in the order of their first sample)."""

    names: tuple[str, ...]
    pose: np.ndarray
    model: np.ndarray
    models: tuple[ModelEntry, ...]

    @classmethod
    def read(cls, dataset: Dataset) -> SplitPoses:
        """Read a whole split (not a slice of one). Raises `DatasetError` for a shard that cannot be read."""
        places: dict[str, int] = {}
        entries: list[ModelEntry] = []
        poses = [np.empty((0, len(dataset.config.vocabulary.names)), np.float32)]
        models = [np.empty(0, np.int64)]
        for _, shard in dataset.shards(max(1, len(dataset))):  # no split has more filled shards than samples
            for entry in shard.models:
                if entry.sha256 not in places:
                    places[entry.sha256] = len(entries)
                    entries.append(entry)
            rows = np.array([places[entry.sha256] for entry in shard.models], np.int64)
            poses.append(shard.pose)
            models.append(rows[shard.model])
        return cls(dataset.config.vocabulary.names, np.concatenate(poses), np.concatenate(models), tuple(entries))

    def __len__(self) -> int:
        return len(self.model)


def nearest_pose(split: SplitPoses, samples: Sequence[int] | np.ndarray, weights: Mapping[str, float]) -> np.ndarray:
    """Return, for each of `samples` (numbers in the split), the number of its neighbour or `NONE`: i64 [n].

    `weights` names the parameters that count. Raises `ConfigError` for a name that is not in the vocabulary.
    """
    missing = [name for name in weights if name not in split.names]
    if missing:
        raise ConfigError(f"the poses have no parameter {', '.join(missing)}; they have {', '.join(split.names)}")
    columns = [split.names.index(name) for name in weights]
    scaled = split.pose[:, columns].astype(np.float64) * np.array(list(weights.values()))
    wanted = np.asarray(samples, np.int64)
    found = np.full(len(wanted), NONE, np.int64)
    order = np.argsort(split.model, kind="stable")
    first = np.searchsorted(split.model[order], np.arange(len(split.models) + 1))
    asked = np.argsort(split.model[wanted], kind="stable")
    ends = np.searchsorted(split.model[wanted][asked], np.arange(len(split.models) + 1))
    for model in range(len(split.models)):
        members = order[first[model] : first[model + 1]]
        places = asked[ends[model] : ends[model + 1]]
        if len(members) < 2:
            continue
        step = max(1, _BLOCK // len(members))
        for start in range(0, len(places), step):
            part = places[start : start + step]
            distance = np.zeros((len(part), len(members)))
            for column in range(len(columns)):  # a column at a time, so that memory is bounded by the block
                distance += (scaled[wanted[part], None, column] - scaled[None, members, column]) ** 2
            distance[wanted[part][:, None] == members[None, :]] = np.inf
            found[part] = members[distance.argmin(1)]
    return found
