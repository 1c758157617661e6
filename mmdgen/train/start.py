"""Starting a run: where it is, what it stands on, on which device it computes, and what it reports."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from mmdgen.dataset.manifest import read_manifest
from mmdgen.dataset.schema import MANIFEST_FILE
from mmdgen.errors import ConfigError, TrainError
from mmdgen.fsio import sha256_file
from mmdgen.train.checkpoint import last_checkpoint
from mmdgen.train.config import Identity, TrainOptions, differences
from mmdgen.train.networks import check_size
from mmdgen.train.recipe import Recipe
from mmdgen.train.runs import WEIGHTS_NAME

OPTIONS_FILE = "options.json"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the dataset and the run are, on what to compute (``auto cpu cuda``), and how many processes read."""

    data: Path
    run: Path
    accelerator: str = "auto"
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run for those who watch it; `seconds_left` is None while nothing is known."""

    examples: int
    total: int
    rate: float
    seconds_left: float | None
    loss: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a start of a run did. `first` examples had been seen before it, `examples` after it.

    `reason` is why it ended; `loss` the parts of the last logged loss; `validation` the last scores by output's name.
    """

    network: str
    folder: str
    first: int
    examples: int
    steps: int
    reason: str
    seconds: float
    rate: float
    loss: Mapping[str, float] = field(default_factory=dict)
    validation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rank: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def identify(recipe: Recipe, data: Path) -> Identity:
    """Return what the run stands on. Raises `DatasetError` or `ConfigError` when the dataset cannot be trained on."""
    manifest = read_manifest(data)
    if not manifest.samples("train"):
        raise ConfigError(f"{data}: there are no samples in the split 'train'")
    weights = {use: sha256_file(path) for use, path in recipe.weights.items()}
    return Identity(recipe.options, check_size(manifest.config.image_size), sha256_file(data / MANIFEST_FILE), weights)


def check_same(folder: Path, identity: Identity) -> None:
    """Raise `ConfigError`, naming the differences, when the run in `folder` was begun with anything else.

    A start that ended before it had kept anything, as with a batch too large for the memory, binds to nothing.
    """
    path = folder / OPTIONS_FILE
    if last_checkpoint(folder) is None and not (folder / WEIGHTS_NAME).is_file():
        return
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        if last_checkpoint(folder) is not None:
            raise TrainError(
                f"{path} is missing, and there are checkpoints: restore it, or give another --out"
            ) from None
        return
    except ValueError as error:
        raise TrainError(f"{path}: is damaged: {error}; restore it, or give another --out") from error
    found = differences(kept, identity.to_json())
    if found:
        raise ConfigError(
            f"{folder}: was begun otherwise: {'; '.join(found)}. Give the same options and dataset, or another --out"
        )


class Bf16(MixedPrecision):
    """Autocast to bfloat16 on ``cuda`` or ``cpu``, and nothing else.

    Lightning's own also rounds what goes into the network. But outputs are blended with and warped from the given
    picture, and a bfloat16 between 1/2 and 1 has steps of 1/256: in the dark several steps of a stored sRGB byte.
    """

    def __init__(self, accelerator: str) -> None:
        super().__init__("bf16-mixed", accelerator)

    def convert_input(self, data: Any) -> Any:
        return data


def make_fabric(options: TrainOptions, accelerator: str) -> Fabric:
    """Return Fabric for ``auto``, ``cpu`` or ``cuda``. Raises `ConfigError` when there are no such devices."""
    if accelerator == "auto":  # not Fabric's, which also takes devices that nobody tried
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return Fabric(
            accelerator=accelerator,
            devices=options.devices,
            strategy="ddp" if options.devices > 1 else "auto",
            plugins=[Bf16(accelerator)] if options.precision == "bf16" else None,
        )
    except (RuntimeError, ValueError) as error:  # Lightning's exception for a missing device is a RuntimeError
        raise ConfigError(f"cannot compute on {options.devices} x {accelerator}: {error}") from error


def end_others(fabric: Fabric) -> None:
    """End the processes that `fabric` started for the other devices, if this one did.

    When this process fails they wait in the next exchange: on GPUs for half an hour, and they hear no milder signal.
    """
    processes = getattr(fabric.strategy.launcher, "procs", [])
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    processes.clear()  # else Lightning's observer takes their end for a failure and kills this process


def default_workers(devices: int) -> int:
    """Return how many processes read for each device: none where the CPU computes, which is busy enough."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(2, cores // devices - 1)) if torch.cuda.is_available() else 0


def use_threads(count: int) -> None:
    """Let this process compute with `count` threads on the CPU; the last bits of sums depend on how many there are."""
    torch.set_num_threads(count)


@contextlib.contextmanager
def numerics(device: torch.device) -> Iterator[None]:
    """On the CPU only deterministic algorithms, so that a run can be repeated bit for bit; on a GPU the fast ones."""
    if device.type != "cpu":
        matmul, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)
            torch.backends.cudnn.benchmark = benchmark
        return
    demanded = torch.are_deterministic_algorithms_enabled()
    debugging: Any = torch.utils.deterministic
    fill = debugging.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    debugging.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(demanded)
        debugging.fill_uninitialized_memory = fill
