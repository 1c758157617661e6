"""What the training of any of the networks consists of: a `Recipe` fills in what differs.

The recipes are in `morpher`, `rotator` and `combiner`, one module each; what they share is in `loop`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmdgen.errors import ConfigError
from mmdgen.train.config import TrainOptions
from mmdgen.train.images import to_network
from mmdgen.train.loader import Batch
from mmdgen.train.networks import POSES


class Example(NamedTuple):
    """N examples on the device: the network's arguments, the picture that it changes and the one it should make.

    Pictures are f32 [N, 4, H, W] in [-1, 1]. `given` is what the identity would answer. `batch` is what was read.
    """

    inputs: tuple[Tensor, ...]
    given: Tensor
    target: Tensor
    batch: Batch


class Recipe(ABC):
    """One network's training.

    `given` and `target` name the pictures of the dataset that go in and should come out; `weights` are the files of
    other weights that the result depends on, by use.
    """

    name: ClassVar[str]
    given: ClassVar[str]
    target: ClassVar[str]

    def __init__(self, options: TrainOptions, weights: Mapping[str, Path] | None = None) -> None:
        self.options = options
        self.weights = dict(weights or {})

    @property
    def fields(self) -> tuple[str, ...]:
        """The pictures to read."""
        return (self.given, self.target)

    @property
    def flow(self) -> bool:
        """Whether the flow is to be read."""
        return False

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Networks that the recipe itself uses; they are moved to the device and never trained."""
        return ()

    def place(self, device: torch.device) -> None:
        """Move the frozen networks to `device`, in the order of memory that the trained one has."""
        for network in self.frozen:
            network.to(device)
            if self.options.channels_last:
                network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def example(self, batch: Batch) -> Example:
        """Return the example of a batch that is on the device already."""
        given, target = (picture(batch, name) for name in self.fields)
        if self.options.channels_last:
            given = given.contiguous(memory_format=torch.channels_last)
        return Example((given, batch.columns(POSES[self.name])), given, target, batch)

    @abstractmethod
    def losses(self, output: Any, example: Example, perceptual: bool) -> dict[str, Tensor]:
        """Return the parts of the loss by name: scalars, already weighted, whose sum is the loss."""

    @abstractmethod
    def pictures(self, output: Any) -> dict[str, Tensor]:
        """Return the pictures of the network's output by name, f32 [N, 4, H, W]: what is validated and shown."""


def picture(batch: Batch, name: str) -> Tensor:
    """Return a picture of the batch as networks see it. Raises `ConfigError` when it was not read."""
    stored = getattr(batch, name)
    if stored is None:
        raise ConfigError(f"the batch was read without the picture {name!r}")
    return to_network(stored)
