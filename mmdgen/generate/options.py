"""What a user asks for: everything that decides what a dataset contains, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmdgen.dataset.schema import DEFLATE, PLAIN, PLANES, RESIDUAL, DatasetConfig, Vocabulary
from mmdgen.errors import ConfigError
from mmdgen.generate.splits import SPLITS, TRAIN, SplitRules
from mmdgen.pose.sampling import sample_ambient
from mmdgen.pose.vocabulary import THA1, VOCABULARIES
from mmdgen.render.view import PHONG, View

MIN_SHARD, MAX_SHARD = 128, 1024

# option -> the command's flag, where it is not the option's own name
_FLAGS = {"train_poses": "--poses", "validation_poses": "--validation-poses", "test_poses": "--test-poses"}


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Options of a dataset. `poses` maps each requested split to its number of samples.

    `size` pixels square and `samples` a pixel; `shading` is ``phong`` or ``mmd``. For `phong`, the ambient light is
    drawn once a model from `ambient`, and `specular` scales the highlights. `outline` scales the edges. `compact`
    stores images as differences: expression images from the rest image, the others from row to row, in planes of
    colour. `codec` compresses them. `flow` adds every sample's displacement from the posed to the expression image.
    `shard_size` 0 chooses it. `limit` models at most. `include_unsure` also uses models about whose automatic
    annotation mmdgen is not sure. `splits` are the splits file's patterns. `characters` is how many procedural
    characters were made for it, None for a folder of models. `deny` and `allow` are the identities of the lists of
    hashes (see `lists`), empty where there is none; models with one of `deny_hints` at their terms of use are left out.
    """

    poses: Mapping[str, int]
    seed: int = 0
    size: int = 256
    samples: int = 4
    ambient: tuple[float, float] = (0.5, 0.5)
    directional: float = 0.5
    outline: float = 1.0
    specular: float = 0.0
    shading: str = PHONG
    compact: bool = False
    shard_size: int = 0
    limit: int | None = None
    splits: SplitRules | None = None
    characters: int | None = None
    include_unsure: bool = False
    vocabulary: str = THA1.name
    flow: bool = False
    deny: str = ""
    allow: str = ""
    deny_hints: tuple[str, ...] = ()
    codec: str = DEFLATE

    def __post_init__(self) -> None:
        if not any(self.poses.values()) or any(count < 0 for count in self.poses.values()):
            raise ConfigError(f"at least one split needs poses, and none fewer than 0; found {dict(self.poses)}")
        if self.vocabulary not in VOCABULARIES:
            raise ConfigError(f"unknown vocabulary {self.vocabulary!r}; there is {', '.join(VOCABULARIES)}")
        if self.shard_size < 0:
            raise ConfigError(f"the shard size must be 0 (automatic) or more, found {self.shard_size}")
        sample_ambient(*self.ambient, 0, "")  # raises ConfigError for a range that is none
        numbers = {"outline": self.outline, "specular": self.specular, "ambient": self.ambient[1]}
        for name, value in {**numbers, "directional": self.directional}.items():
            if not 0 <= value <= 100:
                raise ConfigError(f"{name} must be between 0 and 100, found {value:g}")
        for ambient in self.ambient:
            View(0, 0, 1, ambient=ambient, **self.view_settings())
        self.dataset_config()

    def requested(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if self.poses.get(split))

    def view_settings(self) -> dict[str, Any]:
        """Return the arguments of `View` that all models share."""
        return {
            "size": self.size,
            "samples": self.samples,
            "directional": self.directional,
            "specular": self.specular,
            "outline": self.outline,
            "shading": self.shading,
        }

    def samples_per_shard(self) -> int:
        """Return the shard size: as given, or about 16 shards of 128 to 1,024 samples, fewer for larger pictures."""
        if self.shard_size:
            return self.shard_size
        most = max(16, int(MAX_SHARD * min(1.0, (256 / self.size) ** 2)))
        poses = self.poses.get(TRAIN, 0) or max(self.poses.values())
        least = min(MIN_SHARD, max(16, poses // 4))  # even a small dataset keeps several workers busy
        return min(max(poses // 16, least), most)

    def to_json(self) -> dict[str, Any]:
        """Return the plan's options: what must be the same for a run to go on."""
        value = {
            **{f"{split}_poses": self.poses.get(split, 0) for split in SPLITS},
            "seed": self.seed,
            "size": self.size,
            "samples": self.samples,
            "ambient": list(self.ambient),
            "directional": self.directional,
            "outline": self.outline,
            "specular": self.specular,
            "shading": self.shading,
            "compact": self.compact,
            "shard_size": self.shard_size,
            "limit": self.limit,
            "splits": self.splits.to_json() if self.splits else None,
            "characters": self.characters,
            "include_unsure": self.include_unsure,
            "vocabulary": self.vocabulary,
        }
        # Only where it is asked for, so that plans without it are the bytes that they were before it existed.
        later = {
            "flow": self.flow,
            "deny": self.deny,
            "allow": self.allow,
            "deny_hints": list(self.deny_hints),
            "codec": "" if self.codec == DEFLATE else self.codec,
        }
        return {**value, **{key: item for key, item in later.items() if item}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RenderOptions:
        """Return the options of a plan. Raises KeyError, TypeError or ValueError, or `ConfigError`."""
        rest = {key: item for key, item in value.items() if not key.endswith("_poses")}
        rest["ambient"] = (float(value["ambient"][0]), float(value["ambient"][1]))
        rest["deny_hints"] = tuple(value.get("deny_hints", ()))
        if value["splits"] is not None:
            rest["splits"] = SplitRules({split: tuple(found) for split, found in value["splits"].items()})
        return cls(poses={split: int(value[f"{split}_poses"]) for split in SPLITS}, **rest)

    def differences(self, now: RenderOptions) -> list[str]:
        """Return in words which options `now` has otherwise."""
        before, after = self.to_json(), now.to_json()
        return [
            f"{_flag(key)} was {_shown(before.get(key), after.get(key))}, now {_shown(after.get(key), before.get(key))}"
            for key in {**after, **before}
            if before.get(key) != after.get(key)
        ]

    def dataset_config(self) -> DatasetConfig:
        """Return what the shards say about how they were made."""
        given = self.to_json()
        settings = {
            key: given[key]
            for key in ("seed", "samples", "shading", "ambient", "directional", "outline", "specular", "characters")
        }
        return DatasetConfig(
            Vocabulary.of(VOCABULARIES[self.vocabulary]),
            image_size=self.size,
            expression_encoding=RESIDUAL if self.compact else PLAIN,
            posed_encoding=PLANES if self.compact else PLAIN,
            codec=self.codec,
            settings=settings,
            flow=self.flow,
        )


def command_line(options: RenderOptions) -> str:
    """Return the command that makes this dataset, without the paths of the machine, for its card."""
    given = options.to_json()
    defaults = RenderOptions(poses={TRAIN: 1}).to_json()
    words = ["mmdgen render"] + (["--models DIR"] if options.characters is None else [])
    for key, value in given.items():
        if key == "ambient":
            low, high = value
            text = f"{low:g}" if low == high else f"{low:g}:{high:g}"
        else:
            text = "FILE" if key in ("splits", "deny", "allow") else str(value)
            text = ",".join(value) if key == "deny_hints" else text
        if value is True:
            words.append(_flag(key))
        elif (value != defaults.get(key) or key == "train_poses") and key not in ("vocabulary", "directional"):
            words.append(f"{_flag(key)} {text}")
    return " ".join(words)


def _flag(option: str) -> str:
    return _FLAGS.get(option, "--" + option.replace("_", "-"))


def _shown(value: Any, other: Any) -> str:
    if value is None:  # not given, or an option that JSON leaves out at its default
        return "false" if isinstance(other, bool) else "not given"
    return json.dumps(value, ensure_ascii=False)
