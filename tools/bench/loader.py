"""How many shuffled batches a second does the loader bring into torch, with how many workers?

    python tools/bench/loader.py [--data DIR | --codec deflate|zstd --compact] [--split train] [--workers 0,1,2]
        [--batch 25] [--batches 40] [--repeats 5] [--fields rest,expression,posed] [--flip] [--flow] [--naive] [--json]

Reads a rendered dataset, or without --data one of drawn pictures (256 pixels, nearly as hard to decode) in a temporary
folder, stored as --codec and --compact say. Each round times --batches batches after the first ones, for every number
of workers in turn, so that other work on the machine slows all alike; prints median, slowest and fastest round, and the
median wait for the first batch (the workers' start; the very first one also starts their server). Without workers it
also tells the processor time an example takes, which says more than the rest on a busy machine. Files are in the page
cache after the first round. --naive also times the loader that one writes first: torch's own shuffling, samples
collated by torch.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

from common import machine, show_json, spread  # noqa: E402

from mmdgen import rng  # noqa: E402
from mmdgen.dataset.manifest import make_manifest, write_manifest  # noqa: E402
from mmdgen.dataset.reader import Dataset  # noqa: E402
from mmdgen.dataset.schema import (  # noqa: E402
    CODECS,
    DEFLATE,
    PLAIN,
    PLANES,
    RESIDUAL,
    DatasetConfig,
    ModelEntry,
    ShardHeader,
    Vocabulary,
)
from mmdgen.dataset.writer import ShardBuilder  # noqa: E402
from mmdgen.pose.vocabulary import THA1  # noqa: E402
from mmdgen.train.loader import PREFETCH, make_loader  # noqa: E402

SHARDS, MODELS, POSES, SIZE = 8, 8, 16, 256


def drawn_picture(*key: int | str) -> np.ndarray:
    """A disc of random shades, u8 [SIZE, SIZE, 4], that takes 40 to 50 KB, as rendered heads do."""
    random = rng.generator(1, "bench", "loader", *key)
    coarse = random.integers(0, 256, (SIZE // 8, SIZE // 8, 4))
    image = np.kron(coarse, np.ones((8, 8, 1))) + random.integers(0, 2, (SIZE, SIZE, 1))
    y, x = np.indices((SIZE, SIZE)) - SIZE / 2
    image[..., 3] = 255 * (np.hypot(x, y) < SIZE * 0.42)
    image[image[..., 3] == 0] = 0
    return np.clip(image, 0, 255).astype(np.uint8)


def drawn_dataset(out: Path, codec: str, compact: bool) -> Path:
    """A training split of SHARDS x MODELS x POSES samples of drawn pictures."""
    encodings = (RESIDUAL, PLANES) if compact else (PLAIN, PLAIN)
    config = DatasetConfig(Vocabulary.of(THA1), SIZE, encodings[0], codec, posed_encoding=encodings[1])
    pictures = [drawn_picture(number) for number in range(32)]
    infos, names = [], {}
    for number in range(SHARDS):
        builder = ShardBuilder(ShardHeader(config, "train", number))
        for model in range(number * MODELS, (number + 1) * MODELS):
            entry = ModelEntry(f"{model:064x}", f"model {model}", "drawn", 0.0, 1.0, 0.0, 0.5, 0.5)
            names[entry.sha256] = (entry.name, entry.source)
            row = builder.add_model(entry, pictures[model % 32])
            for pose in range(POSES):
                builder.add_sample(row, THA1.rest, pictures[(model + pose) % 32], pictures[(model + 5 * pose) % 32])
        infos.append(builder.write(out))
    write_manifest(out, make_manifest(config, infos, names))
    return out


class NaiveSamples:
    """What one hands to torch first: a sample as a dictionary of tensors."""

    def __init__(self, dataset: Dataset, fields: tuple[str, ...]) -> None:
        self.dataset, self.fields = dataset, fields

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = self.dataset[index]
        return {name: torch.from_numpy(getattr(sample, name)) for name in (*self.fields, "pose")}


def naive(data: Path, split: str, batch: int, workers: int, fields: tuple[str, ...]) -> Iterator[Any]:
    context = multiprocessing.get_context("forkserver") if workers else None
    samples: Any = NaiveSamples(Dataset(data, split), fields)
    while True:
        yield from DataLoader(
            samples, batch, shuffle=True, num_workers=workers, multiprocessing_context=context, drop_last=True
        )


class Round(NamedTuple):
    """One round: examples/s, processor time of this process alone for one example in ms, seconds to the first batch."""

    speed: float
    cpu_ms: float
    first: float


def time_round(make: Callable[[], Any], batch: int, batches: int, skipped: int) -> Round:
    """Time one round, from the batch after the first `skipped` ones on."""
    start = time.perf_counter()
    with closing(make()) as source:
        next(source)
        first = time.perf_counter() - start
        for _ in itertools.islice(source, skipped - 1):
            pass  # what was decoded while the workers started
        start, busy = time.perf_counter(), time.process_time()
        for _ in itertools.islice(source, batches):
            pass
        examples = batch * batches
        return Round(examples / (time.perf_counter() - start), 1e3 * (time.process_time() - busy) / examples, first)


def measure(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the JSON object: the machine, the dataset, and a row for each loader and number of workers."""
    fields, batch = tuple(options.fields.split(",")), options.batch
    dataset = Dataset(data, options.split)
    pictures = [info.bytes for info in dataset.manifest.shards[options.split]]

    def own(workers: int, round_: int) -> Callable[[], Any]:
        wanted: dict[str, Any] = {"fields": fields, "flip": options.flip, "flow": options.flow}
        return lambda: make_loader(data, options.split, batch=batch, seed=round_, workers=workers, **wanted)

    rows: dict[tuple[str, int], list[Round]] = {}
    for round_ in range(options.repeats):
        for workers in map(int, options.workers.split(",")):
            skipped = 1 + PREFETCH * workers
            found = time_round(own(workers, round_), batch, options.batches, skipped)
            rows.setdefault(("mmdgen", workers), []).append(found)
            if options.naive:
                other = lambda w=workers: naive(data, options.split, batch, w, fields)  # noqa: E731
                found = time_round(other, batch, options.batches, skipped)
                rows.setdefault(("naive", workers), []).append(found)
    return {
        "machine": machine(gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None),
        "dataset": {
            "samples": len(dataset),
            "image_size": dataset.config.image_size,
            "codec": dataset.config.codec,
            "compact": dataset.config.planes,
            "shards": len(pictures),
            "bytes_per_sample": round(sum(pictures) / max(1, len(dataset))),
        },
        "batch": batch,
        "batches": options.batches,
        "repeats": options.repeats,
        "fields": fields,
        "results": [summary(loader, workers, batch, found) for (loader, workers), found in rows.items()],
    }


def summary(loader: str, workers: int, batch: int, rounds: list[Round]) -> dict[str, Any]:
    speeds = [one.speed for one in rounds]
    return {
        "loader": loader,
        "workers": workers,
        "examples_per_second": spread(speeds),
        "batches_per_second": spread([speed / batch for speed in speeds]),
        "cpu_ms_per_example": None if workers else spread([one.cpu_ms for one in rounds]),
        "first_batch_seconds": spread([one.first for one in rounds], 3),
    }


def show(result: dict[str, Any]) -> None:
    about, data = result["machine"], result["dataset"]
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load']}, GPU {about['gpu']}, {about['packages']}")
    print(
        f"{data['samples']} samples of {data['image_size']} pixels, {data['bytes_per_sample']} bytes each, "
        f"{data['codec']}{', compact' if data['compact'] else ''}"
    )
    print(
        f"{result['repeats']} rounds of {result['batches']} batches of {result['batch']}: {', '.join(result['fields'])}"
    )
    for row in result["results"]:
        speed, busy = row["examples_per_second"], row["cpu_ms_per_example"]
        print(
            f"{row['loader']:6} {row['workers']:2} workers: {speed['median']:8.1f} examples/s "
            f"({speed['min']:.1f} to {speed['max']:.1f}), {row['batches_per_second']['median']:.2f} batches/s, "
            f"first batch after {row['first_batch_seconds']['median']:.2f} s"
            + (
                f", {busy['median']:.2f} ms of processor an example ({busy['min']:.2f} to {busy['max']:.2f})"
                if busy
                else ""
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a dataset's folder; without it one is drawn")
    parser.add_argument("--codec", choices=CODECS, default=DEFLATE, help="of the drawn dataset")
    parser.add_argument("--compact", action="store_true", help="of the drawn dataset")
    parser.add_argument("--split", default="train")
    parser.add_argument("--workers", default="0,1,2", help="numbers of worker processes, with commas")
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fields", default="rest,expression,posed")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--flow", action="store_true")
    parser.add_argument("--naive", action="store_true", help="also time torch's own shuffling and collating")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.data or drawn_dataset(Path(folder) / "drawn", options.codec, options.compact), options)
    if options.json:
        show_json(result)
    else:
        show(result)


if __name__ == "__main__":
    main()
