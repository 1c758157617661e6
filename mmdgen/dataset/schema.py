"""What a dataset consists of: names, records and the one table of what a shard holds.

Writer, reader, verification and card all go by `fields()`, so they cannot disagree. A shard is an HDF5 file that any
HDF5 reader opens; `docs/dataset.md` describes it for people.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mmdgen.errors import ConfigError
from mmdgen.fsio import json_bytes

SCHEMA = "mmdgen-dataset"
# Version 2 is what readers of version 1 would misunderstand: planes, or another codec. All else stays version 1.
SCHEMA_VERSIONS = (1, 2)
SPLITS = ("train", "validation", "test")

PLAIN, RESIDUAL, PLANES = "plain", "residual", "planes"
EXPRESSION_ENCODINGS = (PLAIN, RESIDUAL)
POSED_ENCODINGS = (PLAIN, PLANES)
DEFLATE, ZSTD = "deflate", "zstd"
CODECS = (DEFLATE, ZSTD)
HDF5_FILTERS = {DEFLATE: 1, ZSTD: 32015}  # the codecs' numbers among HDF5's registered filters
SHUFFLE_FILTER = 2

FLOW_STEP = 1 / 64  # pixels: what one step of the stored integers is worth
FLOW_ENCODING = "steps of 1/64 pixel, each row as differences: undone by a cumulative sum along the row"
PLANES_ENCODING = (
    "planes r-g, g, b-g, a, each row as its difference from the one above, all modulo 256: undone by cumulative sums "
    "down the columns, then by adding plane 1 to planes 0 and 2"
)
# What `visibility` says about the surface in a pixel of the posed image.
NO_SURFACE, HIDDEN, VISIBLE = 0, 1, 2
# Up to this image size a displacement that 16 bits cannot hold leads out of the picture from anywhere in it.
_SMALL_FLOW = 512

COLOR = (
    "sRGB, straight (not premultiplied) alpha, channels red green blue alpha, 8 bits each; row 0 is the top; "
    "red, green and blue are 0 where alpha is 0"
)

MANIFEST_FILE = "manifest.json"
PLAN_FILE = "plan.json"
PROVENANCE_FILE = "provenance.jsonl"
FAILURES_FILE = "failures.jsonl"
CARD_FILE = "README.md"
PREVIEW_FILE = "preview.png"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One column of `pose`: its name, its range `low`..`high`, its value in the rest image, a sentence for people."""

    name: str
    low: float
    high: float
    rest: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The named pose parameters in stored order."""

    name: str
    parameters: tuple[Parameter, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @classmethod
    def of(cls, source: Any) -> Vocabulary:
        """Copy any object with `name` and `parameters` that have these five attributes, such as a PoseVocabulary."""
        columns = (Parameter(p.name, float(p.low), float(p.high), float(p.rest), p.meaning) for p in source.parameters)
        return cls(source.name, tuple(columns))


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """What all shards of a dataset have in common.

    Images are u8 `[image_size, image_size, 4]`. `expression_encoding` is ``plain``, or ``residual``: then the stored
    expression image is its wrap-around difference from the model's rest image. `posed_encoding` is how posed and rest
    images are stored, ``plain`` or ``planes``: r - g, g, b - g and a one after the other, each row less the row above
    it. `codec` is how chunks are compressed. `settings` is any JSON object that says how the pictures were made (seed,
    light, samples, ...): kept, never interpreted. With `flow` every sample also has its displacement from the posed to
    the expression image, and its visibility. Raises `ConfigError`.
    """

    vocabulary: Vocabulary
    image_size: int = 256
    expression_encoding: str = PLAIN
    codec: str = DEFLATE
    settings: Mapping[str, Any] = field(default_factory=dict)
    flow: bool = False
    posed_encoding: str = PLAIN

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= 8192:
            raise ConfigError(f"the image size must be between 1 and 8192 pixels, found {self.image_size}")
        choices = (
            ("expression encoding", self.expression_encoding, EXPRESSION_ENCODINGS),
            ("posed encoding", self.posed_encoding, POSED_ENCODINGS),
            ("codec", self.codec, CODECS),
        )
        for what, found, known in choices:
            if found not in known:
                raise ConfigError(f"the {what} must be one of {', '.join(known)}, found {found!r}")
        if not self.vocabulary.parameters:
            raise ConfigError(f"the pose vocabulary {self.vocabulary.name!r} has no parameters")
        try:
            settings = json.loads(json_bytes(dict(self.settings)))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the settings of a dataset must be JSON: {error}") from error
        object.__setattr__(self, "settings", settings)  # as it comes back from a file, and no longer the caller's

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 4)

    @property
    def residual(self) -> bool:
        return self.expression_encoding == RESIDUAL

    @property
    def planes(self) -> bool:
        return self.posed_encoding == PLANES

    @property
    def schema_version(self) -> int:
        """The version that manifest and shards carry: the lowest whose readers understand them."""
        return 2 if self.planes or self.codec != DEFLATE else 1

    @property
    def flow_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 2)

    @property
    def flow_dtype(self) -> str:
        """The integers that hold displacements: 16 bits, or 32 where a picture is larger than they reach."""
        return "i2" if self.image_size <= _SMALL_FLOW else "i4"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that manifests and shards store."""
        parameters = [
            {"name": p.name, "low": p.low, "high": p.high, "rest": p.rest, "meaning": p.meaning}
            for p in self.vocabulary.parameters
        ]
        value: dict[str, Any] = {
            "vocabulary": {"name": self.vocabulary.name, "parameters": parameters},
            "image_size": self.image_size,
            "expression_encoding": self.expression_encoding,
            "codec": self.codec,
            "settings": dict(self.settings),
        }
        # Only where they are there, so that datasets without them are the bytes that they were before there was any.
        if self.flow:
            value["flow"] = True
        if self.planes:
            value["posed_encoding"] = self.posed_encoding
        return value

    @classmethod
    def from_json(cls, value: Any) -> DatasetConfig:
        """Return the config that `to_json` described. Raises KeyError, TypeError or ValueError, or `ConfigError`."""
        vocabulary = Vocabulary(
            str(value["vocabulary"]["name"]),
            tuple(
                Parameter(str(p["name"]), float(p["low"]), float(p["high"]), float(p["rest"]), str(p["meaning"]))
                for p in value["vocabulary"]["parameters"]
            ),
        )
        return cls(
            vocabulary,
            int(value["image_size"]),
            str(value["expression_encoding"]),
            str(value["codec"]),
            dict(value["settings"]),
            value.get("flow", False) is True,
            str(value.get("posed_encoding", PLAIN)),
        )

    def json_text(self) -> str:
        """Return the canonical JSON text: equal configs have equal texts."""
        return json_bytes(self.to_json()).decode("utf-8")


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """What a shard says about itself: its split and number, and the identity of the plan it was made from.

    `plan` is the SHA-256 of plan.json, or empty when there is none.
    """

    config: DatasetConfig
    split: str
    number: int
    plan: str = ""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"a split is one of {', '.join(SPLITS)}, found {self.split!r}")
        if not 0 <= self.number < 2**31:
            raise ConfigError(f"a shard's number must be between 0 and {2**31 - 1}, found {self.number}")

    @property
    def file(self) -> str:
        """The shard's path below the dataset's folder, such as ``train/shard-00000.h5``."""
        return shard_file(self.split, self.number)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of a shard, apart from its rest image.

    `sha256` is that of the model's file (64 lower-case hexadecimal digits); `name` and `source` (the folder that it
    came from, relative to the models' folder) are for people; `chin_y`, `top_y` and `center_x` are the head bounds in
    MMD units; `ambient` and `directional` the white lights' magnitudes; `terms` a hint at credits and terms of use.
    Raises `ConfigError`.
    """

    sha256: str
    name: str
    source: str
    chin_y: float
    top_y: float
    center_x: float
    ambient: float
    directional: float
    terms: str = ""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ConfigError(f"a model's sha256 must be 64 lower-case hexadecimal digits, found {self.sha256!r}")
        for name in ("chin_y", "top_y", "center_x", "ambient", "directional"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"model {self.sha256[:16]}: {name} must be finite, found {getattr(self, name)}")

    def storable(self) -> ModelEntry:
        """Return the entry with the texts as HDF5 and JSON can hold them (see `storable_text`)."""
        texts = {name: storable_text(getattr(self, name)) for name in ("name", "source", "terms")}
        return replace(self, **texts)


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as the manifest lists it: path below the dataset's folder, SHA-256, size in bytes, sample counts.

    `model_samples` maps each model's sha256 to its number of samples, in the order of the shard's model table.
    """

    file: str
    sha256: str
    bytes: int
    model_samples: Mapping[str, int]

    @property
    def samples(self) -> int:
        return sum(self.model_samples.values())

    @property
    def models(self) -> int:
        return len(self.model_samples)


@dataclass(frozen=True, slots=True)
class Field:
    """One HDF5 dataset of a shard. `dtype` is the numpy type, or ``text``.

    `rows` is ``N`` (one row a sample) or ``M`` (one a model) and `shape` what follows it. `chunked` datasets are
    images: one row is one chunk, compressed (with `shuffle`, the first bytes of all values, then the second ones);
    the others are stored contiguously and uncompressed. `planes` are images that are stored as planes.
    """

    path: str
    dtype: str
    rows: str
    shape: tuple[int, ...]
    meaning: str
    columns: tuple[str, ...] = ()
    shuffle: bool = False
    planes: bool = False

    @property
    def chunked(self) -> bool:
        return len(self.shape) >= 2

    def filters(self, codec: str) -> tuple[int, ...]:
        """Return the numbers of the HDF5 filters that a row goes through, in this order."""
        shuffle = (SHUFFLE_FILTER,) if self.shuffle else ()
        return (*shuffle, HDF5_FILTERS[codec]) if self.chunked else ()


def fields(config: DatasetConfig) -> tuple[Field, ...]:
    """Return every dataset that a shard of `config` holds, in the order in which it is written."""
    image, size = config.image_shape, config.image_size
    minus = " Stored as its wrap-around difference (mod 256) from models/rest[model]." if config.residual else ""
    turned, split = ((4, size, size), f" Stored as {PLANES_ENCODING}.") if config.planes else (image, "")
    rest = "The model's rest image, the input of a network."
    return (
        Field("expression", "u1", "N", image, f"The face changed, the head unmoved: eyes and mouth as in pose.{minus}"),
        Field("posed", "u1", "N", turned, f"The whole pose: eyes, mouth, head and neck.{split}", planes=config.planes),
        Field("pose", "f4", "N", (len(config.vocabulary.parameters),), "The pose vector.", config.vocabulary.names),
        Field("model", "i4", "N", (), "Row of the sample's model in the datasets of the group models."),
        Field("models/rest", "u1", "M", turned, rest + split, planes=config.planes),
        Field("models/sha256", "text", "M", (), "SHA-256 of the model's file."),
        Field("models/name", "text", "M", (), "The model's name as its file gives it."),
        Field("models/source", "text", "M", (), "The folder that the model came from; splits are made by it."),
        Field("models/head_bounds", "f8", "M", (3,), "Head bounds in MMD units.", ("chin_y", "top_y", "center_x")),
        Field("models/light", "f8", "M", (2,), "Magnitudes of the white lights.", ("ambient", "directional")),
        Field("models/terms", "text", "M", (), "A hint at credits and terms of use; may be empty."),
        *(_flow_fields(config) if config.flow else ()),
    )


def _flow_fields(config: DatasetConfig) -> tuple[Field, ...]:
    return (
        Field(
            "flow",
            config.flow_dtype,
            "N",
            config.flow_shape,
            "posed(x, y) shows the surface point that expression(x + dx, y + dy) shows; x right, y down, at pixels' "
            "centres; 0 where visibility is 0. Stored in steps of 1/64 pixel, each row as differences: "
            "cumsum(flow, axis of x, same type) / 64 is in pixels.",
            ("dx", "dy"),
            shuffle=True,
        ),
        Field(
            "visibility",
            "u1",
            "N",
            config.flow_shape[:2],
            "What posed shows: 0 no surface, 1 a surface that the expression image hides or has outside its frame, "
            "2 a surface that both show.",
        ),
    )


def pose_limits(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest value of each parameter, two f32 [K]."""
    low = np.array([parameter.low for parameter in vocabulary.parameters], np.float32)
    high = np.array([parameter.high for parameter in vocabulary.parameters], np.float32)
    return low, high


def shard_file(split: str, number: int) -> str:
    """Return a shard's path below the dataset's folder: ``train/shard-00000.h5``."""
    return f"{split}/shard-{number:05d}.h5"


def storable_text(text: str) -> str:
    """Return `text` with what HDF5 and UTF-8 cannot hold written out, as in ``\\x00`` or ``\\udc81``.

    That is NUL, and the lone surrogates of file names that are not UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
