"""Trained networks as ONNX files, for programs without torch, checked against torch by running them.

One file a network, with any batch size and the picture size it was trained at. Inputs are named as the arguments of
the network's `forward`, outputs as the fields of its result, except that the finished ``image`` is called ``result``.
Values are those of `mmdgen.train.images`. The file's metadata, key ``mmdgen``, says the same in JSON.
"""

from __future__ import annotations

import importlib
import io
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmdgen import fsio, rng
from mmdgen.errors import ConfigError, TrainError
from mmdgen.train.networks import POSES, empty_network, example_inputs
from mmdgen.train.runs import Loaded, load_network, networks_of

OPSET = 17  # the first with GridSample is 16; every runtime of the last years reads 17
# Largest difference allowed between torch and onnxruntime, of values in [-1, 1]: an eighth of a picture's step.
TOLERANCE = 1e-3
_METADATA_KEY = "mmdgen"
_VALUES = "[-1, 1]: 2 v - 1 of linear red, green and blue (0 where alpha is 0) and straight alpha"


def export(run: Path, out: Path) -> dict[str, Path]:
    """Write OUT/NAME.onnx for each trained network of a run; return the files by network.

    Raises `TrainError` when the run holds no network, `ConfigError` without the package onnx and `DatasetError` when
    the disk refuses. `check` shows that the files compute the same as torch.
    """
    onnx = _package("onnx")
    names = _names(run)
    Path(out).mkdir(parents=True, exist_ok=True)
    written = {}
    for name in names:
        loaded = load_network(run, name)
        model = onnx.load_from_string(_graph(loaded))
        entry = model.metadata_props.add()
        entry.key, entry.value = _METADATA_KEY, json.dumps(_description(loaded), sort_keys=True)
        onnx.checker.check_model(model, full_check=True)
        path = Path(out) / f"{name}.onnx"
        fsio.write_atomic(path, model.SerializeToString())
        written[name] = path
    return written


def check(run: Path, out: Path, *, batches: tuple[int, ...] = (1, 3), tolerance: float = TOLERANCE) -> dict[str, float]:
    """Run the exported files of a run beside torch; return the largest absolute difference by network.

    Inputs are smooth made-up pictures and poses in the whole of [-1, 1], one batch of each size in `batches`; every
    output is compared. Raises `TrainError` for a file that is missing, is of other names, or differs by more than
    `tolerance`, and `ConfigError` without the package onnxruntime.
    """
    runtime = _package("onnxruntime")
    worst = {}
    for name in _names(run):
        path = Path(out) / f"{name}.onnx"
        if not path.is_file():
            raise TrainError(f"{path}: is missing: export the run first")
        loaded = load_network(run, name)
        try:
            session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own classes derive from nothing narrower
            raise TrainError(f"{path}: onnxruntime does not load it: {error}") from error
        given = tuple(value.name for value in session.get_inputs())
        expected = tuple(example_inputs(name, loaded.image_size))
        if given != expected:
            raise TrainError(f"{path}: takes {given}, expected {expected}: not written by this mmdgen")
        worst[name] = max(_difference(session, loaded, batch) for batch in batches)
        if not worst[name] <= tolerance:  # also when it is not a number
            raise TrainError(
                f"{path}: differs from torch by {worst[name]:.3g}, allowed are {tolerance:g}: export it again"
            )
    return worst


class _Outputs(nn.Module):
    """A network whose result is a plain tuple, as the exporter wants it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(*inputs))


def _graph(loaded: Loaded) -> bytes:
    """Return the ONNX bytes of a network, traced once at its picture size."""
    # More than one example, or a batch of 1 could end up as a constant.
    inputs = example_inputs(loaded.name, loaded.image_size, batch=2)
    names = _output_names(loaded)
    stream = io.BytesIO()
    # The exporter that traces: the one over torch.export needs another package and takes ten times as long. It warns
    # that it is the older one, and of shapes that become constants; both are as intended here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Outputs(loaded.network).eval(),
            tuple(inputs.values()),
            stream,  # pyright: ignore[reportArgumentType]: this exporter takes streams
            input_names=list(inputs),
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *names)},
            opset_version=OPSET,
            dynamo=False,
        )
    return stream.getvalue()


def _output_names(loaded: Loaded) -> list[str]:
    fields = empty_network(loaded.name, loaded.preset)(**example_inputs(loaded.name, loaded.image_size, "meta"))._fields
    # In a graph an output cannot have the name of an input.
    return ["result" if field == "image" else field for field in fields]


def _description(loaded: Loaded) -> dict[str, Any]:
    return {
        "network": loaded.name,
        "preset": asdict(loaded.preset),
        "image_size": loaded.image_size,
        "examples": loaded.examples,
        "pose": list(POSES[loaded.name]),
        "values": _VALUES,
    }


def _difference(session: Any, loaded: Loaded, batch: int) -> float:
    """Return the largest absolute difference between both sides on one made-up batch."""
    inputs = _made_up(loaded, batch)
    with torch.no_grad():
        expected = loaded.network(**inputs)
    found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    if len(found) != len(expected) or any(a.shape != tuple(b.shape) for a, b in zip(found, expected, strict=False)):
        raise TrainError(f"the exported {loaded.name} returns other shapes than torch: {[a.shape for a in found]}")
    return max(float((torch.from_numpy(a) - b).abs().max()) for a, b in zip(found, expected, strict=True))


def _made_up(loaded: Loaded, batch: int) -> dict[str, Tensor]:
    """Return inputs of random values in [-1, 1]; pictures vary over an eighth of their side, as real ones do.

    In white noise the smallest difference of an offset reads another colour.
    """
    result = {}
    for key, zeros in example_inputs(loaded.name, loaded.image_size, batch=batch).items():
        shape = (*zeros.shape[:2], 8, 8) if zeros.ndim == 4 else tuple(zeros.shape)
        stream = rng.generator(0, "train", "export", loaded.name, key, batch)
        value = torch.from_numpy(stream.uniform(-1, 1, shape).astype("f4"))
        if zeros.ndim == 4:
            value = functional.interpolate(value, zeros.shape[2:], mode="bilinear", align_corners=True)
        result[key] = value
    return result


def _names(run: Path) -> tuple[str, ...]:
    names = networks_of(run)
    if not names:
        raise TrainError(f"{run}: holds no trained network: train one with mmdgen train")
    return names


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name} is not installed: pip install 'mmdgen[onnx]'") from error
