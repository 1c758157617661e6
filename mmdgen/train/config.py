"""What a training run is: the options that decide its result, the article's values for them, and the plan of its clock.

Examples seen are the only clock. `TrainOptions` decide every weight of the result and are kept with the run; `Schedule`
only says how long to train and when to write something down, and may differ from start to start. Nothing here needs
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mmdgen.errors import ConfigError

L1, PERCEPTUAL = "l1", "perceptual"
LOSSES = (L1, PERCEPTUAL)
PRECISIONS = ("32", "bf16")
# The article's Adam (appendix A: betas; the learning rate is printed as "1^-4").
LEARNING_RATE = 1e-4
BETAS = (0.5, 0.999)


@dataclass(frozen=True, slots=True)
class Article:
    """How the article trained one network: its best loss, then batch size and length in examples by loss.

    `l1_examples` is the beginning of a perceptual run that does without the perceptual loss, at the batch of L1.
    """

    loss: str
    batch: Mapping[str, int]
    examples: Mapping[str, int]
    l1_examples: int = 0


# An epoch is 500,000 examples. The rotator's perceptual run: half an epoch of L1, then six more of both.
ARTICLE: Mapping[str, Article] = {
    "morpher": Article(L1, {L1: 25}, {L1: 3_000_000}),
    "rotator": Article(PERCEPTUAL, {L1: 25, PERCEPTUAL: 8}, {L1: 3_000_000, PERCEPTUAL: 3_250_000}, 250_000),
    "combiner": Article(PERCEPTUAL, {L1: 20, PERCEPTUAL: 12}, {L1: 1_500_000, PERCEPTUAL: 1_500_000}),
}


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with one batch size (of each device) and one loss, up to `end` examples (None: open)."""

    end: int | None
    batch: int
    perceptual: bool


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything that decides the weights, apart from the dataset and other weights that the losses use.

    `loss` "" is the article's for the network. `batch` is that of each device; 0 is the article's, which may change
    with the phase. `l1_examples` None is the article's. `flow_weight` 0 means no flow supervision (rotator only).
    `precision` is ``32`` or ``bf16`` (autocast; the weights stay f32). Raises `ConfigError`.
    """

    network: str
    preset: str = "article"
    seed: int = 0
    lr: float = LEARNING_RATE
    loss: str = ""
    batch: int = 0
    l1_examples: int | None = None
    flow_weight: float = 0.0
    flip: bool = False
    precision: str = "32"
    compile: bool = False
    channels_last: bool = False
    devices: int = 1

    def __post_init__(self) -> None:
        if self.network not in ARTICLE:
            raise ConfigError(f"unknown network {self.network!r}; there are {', '.join(ARTICLE)}")
        article = ARTICLE[self.network]
        if not self.loss:
            object.__setattr__(self, "loss", article.loss)
        if self.loss not in article.batch:
            raise ConfigError(
                f"the loss of the {self.network} is one of {', '.join(article.batch)}, found {self.loss!r}"
            )
        if self.l1_examples is None:
            object.__setattr__(self, "l1_examples", article.l1_examples if self.loss == PERCEPTUAL else 0)
        elif self.l1_examples and self.loss != PERCEPTUAL:
            raise ConfigError("l1_examples is the beginning of a run with the perceptual loss; this one has L1 alone")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"the precision is one of {', '.join(PRECISIONS)}, found {self.precision!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"the learning rate must be a positive number, found {self.lr}")
        if not (math.isfinite(self.flow_weight) and self.flow_weight >= 0):
            raise ConfigError(f"the weight of the flow must be 0 or a positive number, found {self.flow_weight}")
        if self.flow_weight and self.network != "rotator":
            raise ConfigError(f"flow supervision is for the rotator; the {self.network} moves no pixels")
        for name, least in (("batch", 0), ("l1_examples", 0), ("devices", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, found {getattr(self, name)}")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in order; the last one has no end."""
        batch = ARTICLE[self.network].batch
        if self.loss == L1:
            return (Phase(None, self.batch or batch[L1], False),)
        last = Phase(None, self.batch or batch[PERCEPTUAL], True)
        return (Phase(self.l1_examples, self.batch or batch[L1], False), last) if self.l1_examples else (last,)

    @property
    def article_examples(self) -> int:
        """The length of the article's run with this loss."""
        return ARTICLE[self.network].examples[self.loss]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainOptions:
        """Return the options that `to_json` described. Raises TypeError for unknown names, or `ConfigError`."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When things happen, in examples seen, and how long to go on. None of it changes a weight.

    Training ends with the first step at which `examples` have been seen in all (earlier starts included) or this start
    has lasted `minutes`. Intervals 0 become a share of `examples`; something is done at the first step that reaches or
    passes a multiple of its interval, and everything once more at the end.
    """

    examples: int
    minutes: float | None = None
    log_every: int = 0
    validate_every: int = 0
    sample_every: int = 0
    save_every: int = 0
    validation_samples: int = 128

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and (value < 0 or not math.isfinite(value)):
                raise ConfigError(f"{entry.name} must not be negative, found {value}")
        # Often enough to watch a short run, seldom enough not to slow down a long one.
        for name, share, most in (
            ("log_every", 100, 1_000),
            ("validate_every", 10, 20_000),
            ("sample_every", 10, 20_000),
            ("save_every", 10, 20_000),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, max(1, min(self.examples // share, most)))


def reached(every: int, before: int, now: int) -> bool:
    """Return whether a multiple of `every` lies in (before, now]: both are counts of examples."""
    return now // every > before // every


@dataclass(frozen=True, slots=True)
class Identity:
    """What must not change between the starts of one run: options, and the hashes of all data that they stand on.

    `dataset` is the SHA-256 of the dataset's manifest; `weights` those of weight files by use (``vgg``, ``rotator``).
    """

    options: TrainOptions
    image_size: int
    dataset: str
    weights: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "options": self.options.to_json(),
            "image_size": self.image_size,
            "dataset": self.dataset,
            "weights": dict(self.weights),
        }


def differences(kept: Mapping[str, Any], asked: Mapping[str, Any], path: str = "") -> list[str]:
    """Return where two JSON objects differ, one line each: ``options.lr: 0.0001 is kept, 0.001 was asked for``."""
    found = []
    for name in sorted({*kept, *asked}):
        old, new = kept.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{path}{name}.")
        elif old != new:
            found.append(f"{path}{name}: the run has {_shown(old)}, this command {_shown(new)}")
    return found


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # hashes are only to be told apart
