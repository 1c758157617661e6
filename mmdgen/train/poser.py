"""The three trained networks behind one another: a picture and pose values in, pictures out.

rest picture -> face morpher (eyes, mouth) -> rotator (two turned pictures) -> combiner (one picture), as published.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmdgen.errors import ConfigError, TrainError
from mmdgen.pose.vocabulary import THA1
from mmdgen.train.images import from_network, to_network
from mmdgen.train.networks import EXPRESSION, NETWORKS, ROTATION
from mmdgen.train.runs import load_network, networks_of

BATCH = 8
MOST_KEPT = 32  # results of the morpher; one takes 1 MB at 256 x 256


class Poser:
    """Poses pictures with the networks of a run.

    `size` is the side of its pictures. Results of the morpher are kept while the picture is the same, so that changing
    only the rotation costs two networks instead of three. Not for several threads at once. A run without rotator or
    combiner (`missing` names them) makes expressions, as the morpher leaves them, and turns no head.

    Raises `TrainError` when the morpher is missing or a network was trained for another size than the others,
    `ConfigError` for an unknown device.
    """

    def __init__(self, run: str | Path, device: str = "cpu") -> None:
        run = Path(run)
        there = networks_of(run)
        self.run = run
        self.missing = tuple(name for name in NETWORKS if name not in there)
        if "morpher" in self.missing:
            raise self._lacking()
        self.device = find_device(device)
        used = ("morpher",) if self.missing else NETWORKS
        self.loaded = {name: load_network(run, name, self.device) for name in used}
        sizes = {name: loaded.image_size for name, loaded in self.loaded.items()}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise TrainError(f"{run}: the networks were trained for pictures of different sizes: {found}")
        self.size = sizes["morpher"]
        self._network = {name: loaded.network for name, loaded in self.loaded.items()}
        self._picture = b""  # digest of the picture that `_kept` and `_rest` belong to
        self._rest: Tensor | None = None
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def pose(self, image: np.ndarray, values: Mapping[str, ArrayLike] | ArrayLike, batch: int = BATCH) -> np.ndarray:
        """Return the pictures u8 [N, S, S, 4] of the head in `image` u8 [S, S, 4] (transparent background) posed.

        `values` as in `pose_rows`. Raises `TrainError` for a picture of another size or kind, and for a turned head
        where networks for that are missing; `ConfigError` for values.
        """
        return np.stack(list(self.frames(image, values, batch)))

    def frames(
        self, image: np.ndarray, values: Mapping[str, ArrayLike] | ArrayLike, batch: int = BATCH
    ) -> Iterator[np.ndarray]:
        """Yield what `pose` returns picture by picture, computing `batch` at once: memory does not grow with N."""
        rows = pose_rows(values)
        side = self.size
        if image.dtype != np.uint8 or image.shape != (side, side, 4):
            raise TrainError(
                f"the networks take pictures uint8 [{side}, {side}, 4], found {image.dtype} {list(image.shape)}"
            )
        if rows[:, [THA1.index(name) for name in ROTATION]].any():
            self.require_all()
        return self._frames(image, rows, max(1, batch))

    def require_all(self) -> None:
        """Raise `TrainError` where a network is missing."""
        if self.missing:
            raise self._lacking()

    def _lacking(self) -> TrainError:
        what = "posing" if "morpher" in self.missing else "turning a head"
        return TrainError(
            f"{self.run}: {what} takes {', '.join(NETWORKS)}; "
            f"missing: {', '.join(self.missing)} (mmdgen train {self.missing[0]} --data DATASET --out {self.run})"
        )

    def _frames(self, image: np.ndarray, rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            try:
                made = self._batch(image, part)
            except torch.OutOfMemoryError as error:
                raise TrainError(
                    f"the memory of {self.device} is too small for a batch of {len(part)} pictures of {self.size} x "
                    f"{self.size}" + (": a smaller --batch needs less" if len(part) > 1 else "")
                ) from error
            yield from made

    @torch.inference_mode()
    def _batch(self, image: np.ndarray, rows: np.ndarray) -> np.ndarray:
        morphed = self._expressions(image, rows[:, [THA1.index(name) for name in EXPRESSION]])
        if self.missing:
            return from_network(morphed).cpu().numpy()
        rotation = self._tensor(rows[:, [THA1.index(name) for name in ROTATION]])
        turned = self._network["rotator"](morphed, rotation)
        made = self._network["combiner"](turned.direct, turned.warped, rotation)
        return from_network(made.image).cpu().numpy()

    def _expressions(self, image: np.ndarray, poses: np.ndarray) -> Tensor:
        """The morpher's pictures [N, 4, S, S] for expression poses f32 [N, 3]: each different one computed once."""
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        if digest != self._picture or self._rest is None:
            self._kept.clear()
            self._rest = to_network(torch.from_numpy(np.array(image))[None].to(self.device))
            self._picture = digest
        wanted = {pose.tobytes(): pose for pose in poses + np.float32(0)}  # -0.0 becomes 0.0
        found = {key: self._kept[key] for key in wanted if key in self._kept}
        new = [key for key in wanted if key not in found]
        if new:
            rest = self._rest.expand(len(new), -1, -1, -1)
            made = self._network["morpher"](rest, self._tensor(np.stack([wanted[key] for key in new]))).image
            found.update(zip(new, made, strict=True))
        for key, picture in found.items():
            self._kept[key] = picture.clone() if key in new else picture  # a row must not keep its whole batch alive
            self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return torch.stack([found[pose.tobytes()] for pose in poses + np.float32(0)])

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device)


def pose_rows(values: Mapping[str, ArrayLike] | ArrayLike) -> np.ndarray:
    """Return poses f32 [N, 6] in the order of `THA1` from rows [N, 6], one row [6], or values by name.

    A name's value is a number or [N] of them; what is not named is at rest. Raises `ConfigError` for unknown names,
    lengths that differ, and values outside their range.
    """
    if isinstance(values, Mapping):
        columns = {name: np.atleast_1d(np.asarray(column, np.float32)) for name, column in values.items()}
        counts = {len(column) for column in columns.values()} - {1} or {1}
        if len(counts) > 1 or any(column.ndim != 1 for column in columns.values()):
            raise ConfigError("the values of a pose's names must be numbers or equally many of them")
        rows = np.tile(THA1.rest, (counts.pop(), 1))
        for name, column in columns.items():
            rows[:, THA1.index(name)] = column
    else:
        rows = np.array(values, np.float32, ndmin=2)
    if rows.ndim != 2 or rows.shape[1] != len(THA1.names):
        raise ConfigError(f"poses are [N, {len(THA1.names)}]: {', '.join(THA1.names)}; found {list(rows.shape)}")
    for column, parameter in enumerate(THA1.parameters):
        wrong = np.flatnonzero(~((rows[:, column] >= parameter.low) & (rows[:, column] <= parameter.high)))
        if len(wrong):
            raise ConfigError(
                f"pose {wrong[0]}: {parameter.name}={rows[wrong[0], column]:g} is outside "
                f"[{parameter.low:g}, {parameter.high:g}]"
            )
    return rows


def find_device(name: str) -> str:
    """Return the device of a name as torch has it; ``auto`` is a GPU where there is one. Raises `ConfigError`."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()  # pictures come back from it
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return name
