"""From shards to batches of torch tensors: chosen by `order`, decoded in worker processes, in a sequence known before.

Pictures stay as they are stored, u8 sRGB with straight alpha: a quarter of the bytes to move, and `images.to_network`
converts them on the device. A worker decodes whole batches, each picture straight into the shared memory in which the
batch travels, and only the pictures that are asked for.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from mmdgen.dataset.reader import Dataset, Shard
from mmdgen.errors import ConfigError, EngineError, MmdgenError
from mmdgen.train.flip import flip_flow, flip_picture, flip_pose, is_flipped, mirror_of
from mmdgen.train.order import DEFAULT_BUFFER, Piece, Sequencer, choose

PICTURES = ("rest", "expression", "posed")
PREFETCH = 2  # batches that each worker has ready


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """N examples. Pictures are u8 [N, H, W, 4] (sRGB, straight alpha) or None where they were not asked for.

    `pose` is f32 [N, K] with the columns `names`; `index` i64 [N] are the examples' numbers in the split. `flow` is
    f32 [N, H, W, 2]: posed(x, y) shows the same point as expression(x + dx, y + dy), in pixels, x right, y down;
    `visibility` u8 [N, H, W] is 0 without a surface, 1 where that point is hidden in the expression picture, else 2.
    A flipped example is flipped in all of these.
    """

    rest: torch.Tensor | None
    expression: torch.Tensor | None
    posed: torch.Tensor | None
    pose: torch.Tensor
    index: torch.Tensor
    names: tuple[str, ...]
    flow: torch.Tensor | None = None
    visibility: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def columns(self, wanted: Sequence[str]) -> torch.Tensor:
        """Return these columns of the pose in this order, f32 [N, len(wanted)]. Raises `ConfigError` for an unknown."""
        missing = [name for name in wanted if name not in self.names]
        if missing:
            raise ConfigError(f"the dataset's poses have no {', '.join(missing)}; they have {', '.join(self.names)}")
        # Not pose[:, [...]]: a list of numbers would be copied to the GPU, which makes the caller wait for it.
        columns = [self.pose[:, self.names.index(name), None] for name in wanted]
        return torch.cat((self.pose[:, :0], *columns), dim=1)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`; from pinned memory the copy runs beside what the caller does next."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in memory from which a GPU copies by itself; torch's loader calls this."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Any) -> Batch:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Batch(**{k: change(v) if isinstance(v, torch.Tensor) else v for k, v in values.items()})


def make_loader(
    data: str | Path,
    split: str,
    *,
    batch: int,
    seed: int,
    workers: int,
    fields: Sequence[str] = PICTURES,
    flip: bool = False,
    flow: bool = False,
    rank: int = 0,
    world: int = 1,
    start: int = 0,
    shuffle: bool = True,
    buffer: int = DEFAULT_BUFFER,
    limit: int | None = None,
    spread: bool = False,
) -> Loader:
    """Return the batches of a split of the dataset in folder `data`: endless with `shuffle`, else one ordered pass.

    `batch` is the number of examples for this rank; a global batch is `batch * world` consecutive examples of the
    sequence (`order.Sequencer`), of which rank r takes the r-th part, so that the sequence does not depend on `world`.
    `start` is where to go on: the number of examples that all ranks together have seen. Without `shuffle` the last
    batch may be smaller (of several ranks, some may get none). `fields` are the pictures to read, `flow` asks for flow
    and visibility, `flip` mirrors every other example (by `seed`, epoch and index). `limit` takes only the first
    samples, with `spread` evenly spaced ones (see `order.choose`). `workers` processes decode; 0 means this one.

    Close it, or use it as a context manager, to end the workers before it is exhausted.
    Raises `ConfigError` for options that do not fit, `DatasetError` for what is missing or, while it is read, damaged.
    """
    if batch < 1 or workers < 0 or start < 0 or not 0 <= rank < world:
        raise ConfigError(
            f"a loader needs batch >= 1, workers >= 0, start >= 0 and 0 <= rank < world, found batch {batch}, "
            f"workers {workers}, start {start}, rank {rank} of {world}"
        )
    dataset = Dataset(data, split)
    if not len(dataset):
        raise ConfigError(f"{data}: there are no samples in the split {split!r}")
    decoder = Decoder(dataset, tuple(fields), flow=flow, flip_seed=seed if flip else None)
    sizes = tuple(info.samples for info in dataset.manifest.shards[split])
    sequencer = Sequencer(sizes, choose(len(dataset), limit, spread), seed, shuffle, buffer)
    return Loader(decoder, _Route(sequencer, start, batch, rank, world), workers)


class Decoder:
    """Examples of a dataset by number, as a `Batch`; can be pickled, and used in any process.

    `pictures` are those of ``rest expression posed`` that are wanted; `flip_seed` is the seed of the flips, None for
    none. Raises `ConfigError` when the dataset has not what is asked for.
    """

    def __init__(
        self,
        dataset: Dataset,
        pictures: tuple[str, ...] = PICTURES,
        *,
        flow: bool = False,
        flip_seed: int | None = None,
    ) -> None:
        unknown = [name for name in pictures if name not in PICTURES]
        if unknown:
            raise ConfigError(f"pictures are {', '.join(PICTURES)}, found {', '.join(unknown)}")
        if flow and not dataset.config.flow:
            raise ConfigError(f"{dataset.path}: has no flow; make the dataset with `mmdgen render --flow`")
        self.dataset, self.pictures, self.flow, self.flip_seed = dataset, pictures, flow, flip_seed
        self.names = dataset.config.vocabulary.names
        self._mirror = mirror_of(self.names) if flip_seed is not None else None

    def read(self, piece: Piece) -> Batch:
        """Return the examples of `piece` in its order. Raises `DatasetError` when one cannot be read."""
        count, size = len(piece), self.dataset.config.image_size
        pictures = {name: _empty((count, size, size, 4), torch.uint8) for name in self.pictures}
        pose = _empty((count, len(self.names)), torch.float32)
        flow = _empty((count, size, size, 2), torch.float32) if self.flow else None
        visibility = _empty((count, size, size), torch.uint8) if self.flow else None
        places = {name: tensor.numpy() for name, tensor in pictures.items()}
        spare = np.empty((size, size, 4), np.uint8)
        poses = pose.numpy()
        for place in np.argsort(piece.index, kind="stable").tolist():  # side by side in a file, of one model
            index = int(piece.index[place])
            shard, row = self.dataset.locate(index)
            flipped = self.flip_seed is not None and is_flipped(self.flip_seed, int(piece.epoch[place]), index)
            for name, target in places.items():
                if flipped:  # one u32 a pixel: numpy mirrors rows of single words faster than rows of four bytes
                    _picture(shard, name, row, spare)
                    target[place].view(np.uint32)[..., 0] = flip_picture(spare.view(np.uint32)[..., 0])
                else:
                    _picture(shard, name, row, target[place])
            poses[place] = flip_pose(shard.pose[row], self._mirror) if flipped and self._mirror else shard.pose[row]
            if flow is not None and visibility is not None:
                moved, seen = flow.numpy()[place], visibility.numpy()[place]
                shard.flow(row, moved)
                shard.visibility(row, seen)
                if flipped:
                    moved[...] = flip_flow(moved)
                    seen[...] = flip_picture(seen).copy()
        return Batch(
            rest=pictures.get("rest"),
            expression=pictures.get("expression"),
            posed=pictures.get("posed"),
            pose=pose,
            index=torch.from_numpy(piece.index.copy()),
            names=self.names,
            flow=flow,
            visibility=visibility,
        )

    def __getitem__(self, piece: Piece) -> Batch | _Failure:
        """`read` for torch's loader: an error of ours travels as a value, which spares it a traceback in its text."""
        try:
            return self.read(piece)
        except MmdgenError as error:
            return _Failure(error)


class Loader(Iterator[Batch]):
    """The batches of a `Decoder` in the order of a route; see `make_loader`. Workers start with the first batch.

    `position` is where another loader has to `start` to go on after the last batch given; `samples` how many different
    ones there are.
    """

    def __init__(self, decoder: Decoder, route: _Route, workers: int) -> None:
        self.samples = len(route.sequencer.chosen)
        self.position = route.start
        self._step = route.batch * route.world
        self._decoder, self._route, self._workers = decoder, route, workers
        self._iterator: Any = None
        self._closed = False

    def __next__(self) -> Batch:
        if self._closed:
            raise StopIteration
        try:
            if self._iterator is None:
                self._iterator = _iterator(self._decoder, self._route, self._workers)
            result = next(self._iterator)
        except StopIteration:
            self.close()
            raise
        except (RuntimeError, OSError, EOFError) as error:
            self.close()
            if not _lost_a_process(error):
                raise
            raise EngineError(
                f"a process that reads the dataset ended: {error}. Often there is too little memory, or too little "
                "shared memory (/dev/shm; in a container --shm-size): fewer --workers or a smaller batch need less."
            ) from error
        except BaseException:
            self.close()
            raise
        if isinstance(result, _Failure):
            self.close()
            raise result.error
        end = self.position + self._step
        self.position = end if self._route.sequencer.shuffle else min(end, self.samples)
        return result

    def close(self) -> None:
        """End the workers; nothing comes after it. May be called again."""
        self._closed = True
        iterator, self._iterator = self._iterator, None
        if self._workers and iterator is not None:
            iterator._shutdown_workers()  # what its __del__ does, but now and not when the last traceback lets go

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) is False:
            self.close()


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error on its way from a worker."""

    error: MmdgenError


@dataclass(frozen=True, slots=True, eq=False)
class _Route:
    """What torch's loader calls a sampler: one rank's batches of the sequence."""

    sequencer: Sequencer
    start: int
    batch: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[Piece]:
        return self.sequencer.batches(self.start, self.batch, self.rank, self.world)


def _iterator(decoder: Decoder, route: _Route, workers: int) -> Any:
    options: dict[str, Any] = {}
    if workers:
        # Not fork: the caller may have threads and a GPU. The server imports torch once for all workers to come.
        context = multiprocessing.get_context("forkserver")
        compiled = ["mmdgen.dataset.codec_kernels"] if decoder.dataset.config.planes or decoder.flow else []
        context.set_forkserver_preload(["torch", "h5py", __name__, *compiled])
        options = {"multiprocessing_context": context, "prefetch_factor": PREFETCH, "worker_init_fn": _start_worker}
    with warnings.catch_warnings():
        # The number of workers is the caller's choice.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader: Any = DataLoader(
            decoder,  # pyright: ignore[reportArgumentType]  (anything with __getitem__ is a dataset)
            batch_size=None,
            sampler=route,  # pyright: ignore[reportArgumentType]
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: torch draws a seed for the workers, which must not move the training's generator.
            generator=torch.Generator().manual_seed(0),
            **options,
        )
        return iter(loader)


def _lost_a_process(error: Exception) -> bool:
    """Whether this is how torch's loader shows that a worker is no more.

    Either it noticed, or a batch arrived whose memory the worker can no longer hand over.
    """
    if isinstance(error, RuntimeError):
        return str(error).startswith(("DataLoader worker (pid", "Pin memory thread"))
    gone = (ConnectionError, FileNotFoundError, EOFError)
    return isinstance(error, gone) and not str(error).startswith("Caught ")  # raised inside of a worker


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    # Torch's workers watch their parent, which here is the server that forked them; and the server lives as long as
    # they do. So without this they would stay for ever when the process that wants the batches is killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _as_it_is(value: Any) -> Any:
    return value


def _empty(shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
    """A new tensor; in a worker in shared memory, so that sending it to the parent copies nothing."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=kind)
    bytes_needed = int(np.prod(shape)) * kind.itemsize
    storage = torch.UntypedStorage._new_shared(bytes_needed)
    return torch.empty(0, dtype=kind).set_(storage, 0, shape)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _picture(shard: Shard, name: str, row: int, out: np.ndarray) -> None:
    if name == "rest":
        shard.rest(int(shard.model[row]), out)
    elif name == "expression":
        shard.expression(row, out)
    else:
        shard.posed(row, out)
