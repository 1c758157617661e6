"""A run on disk: RUN/NAME/weights.safetensors and RUN/NAME/network.json for each trained network.

The weights file is replaced in one step and carries in its header all that is needed to use it: network, preset,
picture size, examples seen, the data it learned from and a checksum. network.json says the same for people and other
programs; it is written second. Loading never runs code from the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from mmdgen import fsio
from mmdgen.errors import ConfigError, TrainError
from mmdgen.train.networks import NETWORKS, Preset, check_size, empty_network, find_preset, parameter_count

SCHEMA_VERSION = 1
WEIGHTS_NAME = "weights.safetensors"
DESCRIPTION_NAME = "network.json"
_HEADER_KEY = "mmdgen"
# Fields in which network.json may lag behind the weights: an interruption between the two writes.
_MOVING = ("examples", "sha256", "data")


@dataclass(frozen=True)
class Loaded:
    """A trained network in evaluation mode, and what its file says about it.

    `examples` were seen in training; `data` is what the trainer stored about the dataset.
    """

    network: nn.Module
    name: str
    preset: Preset
    image_size: int
    examples: int
    data: dict[str, Any]


def networks_of(run: Path) -> tuple[str, ...]:
    """Return which of `NETWORKS` a run's folder holds weights of, in that order; none where there is no folder."""
    return tuple(name for name in NETWORKS if (Path(run) / name / WEIGHTS_NAME).is_file())


def save_network(
    run: Path,
    name: str,
    network: nn.Module,
    preset: Preset | str,
    image_size: int,
    examples: int,
    data: Mapping[str, Any],
) -> None:
    """Write a network into its run, atomically: a reader finds the old weights or the whole new ones.

    `data` is JSON-able. Raises `TrainError` when the network is not the one that name and preset say or holds values
    that are not finite (nothing is written then) or the folder cannot be made, `ConfigError` for unknown names and
    `DatasetError` when the disk refuses.
    """
    preset = find_preset(preset)
    folder = Path(run) / name
    tensors = _plain_tensors(network, name, preset)
    description = {
        "schema_version": SCHEMA_VERSION,
        "network": name,
        "preset": asdict(preset),
        "image_size": check_size(image_size),
        "parameters": parameter_count(empty_network(name, preset)),
        "examples": examples,
        "data": dict(data),
    }
    description["sha256"] = _checksum(tensors, description)
    header = {_HEADER_KEY: json.dumps(description, sort_keys=True, allow_nan=False)}
    _make_folder(folder)
    fsio.write_atomic(folder / WEIGHTS_NAME, save(tensors, header))
    fsio.write_json(folder / DESCRIPTION_NAME, description)


def load_network(run: Path, name: str, device: str | torch.device = "cpu") -> Loaded:
    """Read a trained network, checked against its own checksum and description, ready to be used on `device`.

    Raises `ConfigError` for an unknown network, `TrainError` when the run has none of that name or its files are
    damaged, contradict each other or come from a newer mmdgen.
    """
    if name not in NETWORKS:
        raise ConfigError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    path = Path(run) / name / WEIGHTS_NAME
    if not path.is_file():
        found = ", ".join(networks_of(run)) or "none"
        raise TrainError(
            f"{Path(run)} has no trained {name} ({path} is missing; trained networks there: {found}): "
            f"train it with mmdgen train {name} --out {Path(run)}"
        )
    tensors, description = _read(path)
    preset = _check_description(path, description, name)
    # Before anything is built from them: a damaged number could ask for any amount of memory.
    if _checksum(tensors, description) != description["sha256"]:
        raise _damaged(path, "its checksum is wrong")
    _check_copy(path.with_name(DESCRIPTION_NAME), description)
    network = empty_network(name, preset)
    _check_tensors(str(path), tensors, network)
    # The tensors become the parameters: nothing is allocated twice.
    network.load_state_dict(tensors, assign=True)
    network.requires_grad_(True)
    return Loaded(
        network.to(device).eval(),
        name,
        preset,
        description["image_size"],
        description["examples"],
        description["data"],
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{folder}: the run's folder cannot be made: {error.strerror or error}") from error


def _plain_tensors(network: nn.Module, name: str, preset: Preset) -> dict[str, Tensor]:
    """Return the checked f32 CPU tensors of a network, which may be a compiled one."""
    network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    tensors = {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in network.state_dict().items()}
    what = f"the {name} to be saved"
    _check_tensors(what, tensors, empty_network(name, preset))
    return tensors


def _check_tensors(what: str, tensors: dict[str, Tensor], expected: nn.Module) -> None:
    """Raise `TrainError` unless the tensors are finite f32 and exactly those of the network `expected`."""
    shapes = {key: list(value.shape) for key, value in expected.state_dict().items()}
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing or extra:
        raise TrainError(
            f"{what}: not the weights of this network and preset: {len(missing)} missing (such as "
            f"{missing[:1]}), {len(extra)} unknown (such as {extra[:1]})"
        )
    for key, value in tensors.items():
        if list(value.shape) != shapes[key] or value.dtype != torch.float32:
            raise TrainError(
                f"{what}: {key} is {value.dtype} {list(value.shape)}, expected torch.float32 {shapes[key]}: "
                "another preset?"
            )
        if not torch.isfinite(value).all():
            raise TrainError(f"{what}: {key} holds values that are not finite")


def _checksum(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the description (but for ``sha256``) and all values by name (little-endian f32), in hex."""
    rest = {key: value for key, value in description.items() if key != "sha256"}
    digest = hashlib.sha256(fsio.json_bytes(rest))
    for key in sorted(tensors):
        digest.update(b"\0" + key.encode("utf-8") + b"\0")
        digest.update(tensors[key].numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        content = path.read_bytes()  # once: the trainer may replace the file at any time
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # the format's own first part
        description = json.loads(header["__metadata__"][_HEADER_KEY])
    except KeyError:
        raise TrainError(f"{path}: weights without mmdgen's description: not written by mmdgen train") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(description, dict):
        raise _damaged(path, "its description is not an object")
    other = sorted(key for key, value in tensors.items() if value.dtype != torch.float32)
    if other:
        raise _damaged(path, f"{other[0]} is {tensors[other[0]].dtype}, expected torch.float32")
    return tensors, description


def _check_description(path: Path, description: dict[str, Any], name: str) -> Preset:
    """Return the preset of a description that is complete and of the network `name`. Raises `TrainError`."""
    if description.get("schema_version") != SCHEMA_VERSION:
        raise TrainError(
            f"{path}: has schema version {description.get('schema_version')!r}, this mmdgen reads {SCHEMA_VERSION}: "
            "use the mmdgen that wrote it"
        )
    if description.get("network") != name:
        raise TrainError(f"{path}: is a {description.get('network')!r}, expected a {name!r}: the folders were mixed up")
    types = {"preset": dict, "image_size": int, "examples": int, "data": dict, "sha256": str}
    for key, kind in types.items():
        if not isinstance(description.get(key), kind):
            raise _damaged(path, f"its description lacks {key}")
    try:
        check_size(description["image_size"])
        return Preset(**description["preset"])
    except (TypeError, ConfigError) as error:
        raise _damaged(path, str(error)) from error


def _check_copy(path: Path, description: dict[str, Any]) -> None:
    """Raise `TrainError` when network.json describes another network than the weights beside it."""
    if not path.is_file():
        return  # interrupted before the second write: the weights file is whole without it
    try:
        copy = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(copy, dict):
        raise _damaged(path, "it is not an object")
    for key in sorted((copy.keys() | description.keys()) - set(_MOVING)):
        if copy.get(key) != description.get(key):
            raise TrainError(
                f"{path}: says {key} {copy.get(key)!r}, but the weights beside it {description.get(key)!r}: the files "
                "are of different runs"
            )


def _damaged(path: Path, why: str) -> TrainError:
    return TrainError(f"{path}: damaged: {why}. Copy it again, or train on from a checkpoint to write it again.")
