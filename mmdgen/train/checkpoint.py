"""Checkpoints: all that a run needs to go on as if nothing had happened.

One folder a checkpoint, named by the examples seen (``checkpoint/000012000``):

    weights.safetensors    the network's parameters
    state.pt               optimizer, generators, counters (a `torch.save` file of tensors and plain values)
    checkpoint.json        SHA-256 of both, written last

It is written under another name, synced, and renamed; only then the one before is deleted. So at any moment, whatever
is pulled, there is a whole one. Nothing in it is unpickled as code: the state is read with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mmdgen.errors import TrainError
from mmdgen.fsio import TEMPORARY_MARK, json_bytes, sha256_file, sync_directory, write_atomic

FOLDER = "checkpoint"
WEIGHTS, STATE, LIST = "weights.safetensors", "state.pt", "checkpoint.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """`weights` are the network's `state_dict`, `optimizer` and `rng` as their owners gave them; read back, on the CPU.

    `examples` and `step` are counted from the run's very beginning, `seconds` the time spent on training.
    """

    examples: int
    step: int
    seconds: float
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    rng: Mapping[str, Any]


def save_checkpoint(run: Path, state: Checkpoint) -> Path:
    """Write `state` below `run`/checkpoint and then delete older ones. Returns its folder.

    Raises `DatasetError` when it cannot be written; the older one is still there then.
    """
    root = run / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"{state.examples:09d}"
    if (final / LIST).exists():  # the clock stands for the whole state, so this is it
        return final
    temporary = root / f"{final.name}{TEMPORARY_MARK}{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        content = {WEIGHTS: _weight_bytes(state.weights), STATE: _state_bytes(state)}
        for name, data in content.items():
            write_atomic(temporary / name, data)
        hashes = {name: sha256_file(temporary / name) for name in content}
        note = {"format": _FORMAT, "examples": state.examples, "torch": str(torch.__version__), "sha256": hashes}
        write_atomic(temporary / LIST, json_bytes(note))
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync_directory(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for other in root.iterdir():
        if other != final and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
    return final


def last_checkpoint(run: Path) -> Path | None:
    """Return the folder of the newest whole checkpoint of a run, or None."""
    return max(
        (path.parent for path in (run / FOLDER).glob(f"[0-9]*/{LIST}") if path.parent.name.isdigit()), default=None
    )


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint. Raises `TrainError` when a byte of it is not as it was written."""
    remedy = "delete this folder to begin again from an older one or from the start"
    try:
        note = json.loads((folder / LIST).read_bytes())
        if note["format"] != _FORMAT:
            raise TrainError(f"{folder}: has format {note['format']}, and this version of mmdgen reads {_FORMAT}")
        for name in (WEIGHTS, STATE):
            if sha256_file(folder / name) != note["sha256"][name]:
                raise TrainError(f"{folder / name}: is damaged: its SHA-256 is not the one noted beside it; {remedy}")
        weights = load((folder / WEIGHTS).read_bytes())
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        return Checkpoint(
            int(state["examples"]),
            int(state["step"]),
            float(state["seconds"]),
            weights,
            state["optimizer"],
            state["rng"],
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise TrainError(f"{folder}: cannot be read: {type(error).__name__}: {error}; {remedy}") from error


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's generators on the CPU and on `device`."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set torch's generators to `states`; those of devices that are not used now are left alone."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextlib.contextmanager
def sole_writer(run: Path) -> Iterator[None]:
    """Hold the run's lock, which the system lets go when this process ends however it ends.

    Also removes what an interrupted writer left. Raises `TrainError` when another process trains this network there.
    """
    try:
        (run / FOLDER).mkdir(parents=True, exist_ok=True)
        handle = os.open(run / FOLDER / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise TrainError(f"{run}: cannot be written: {error.strerror or error}") from error
    try:
        try:
            import fcntl
        except ImportError:  # no such locks on this system: two runs at once are the user's to avoid
            pass
        else:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TrainError(f"another process is training in {run}; wait for it or give another --out") from error
        for path in (run / FOLDER).glob(f"*{TEMPORARY_MARK}*"):
            shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        os.close(handle)


def _weight_bytes(weights: Mapping[str, Tensor]) -> bytes:
    # A network in channels_last keeps its values in another order of memory; the file has one order.
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def _state_bytes(state: Checkpoint) -> bytes:
    stream = io.BytesIO()
    torch.save(
        {
            "examples": state.examples,
            "step": state.step,
            "seconds": state.seconds,
            "optimizer": dict(state.optimizer),
            "rng": dict(state.rng),
        },
        stream,
    )
    return stream.getvalue()
