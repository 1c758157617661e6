"""How large are images on disk, and how many does one core write and read at random, by codec and encoding?

    python tools/bench/storage.py [--data DIR | --models DIR] [--poses 63] [--samples 256] [--repeats 5]
        [--only NAME,NAME] [--seconds S] [--json]

The pictures are real ones: of a rendered dataset (--data), or mmdgen renders --poses samples a model at 256 pixels of
the models in --models (without it, of procedural characters, which the result says). --samples of them, evenly spaced,
are stored in every way in a temporary folder: mmdgen's four (deflate or zstd, plain or --compact), and HDF5's own
gzip-4 and lzf through h5py as peers. Sizes are of the files; "a million" is the article's dataset, 1,007,881 images:
500,000 samples of an expression and a posed image and 7,881 rest images, by the mean of each kind.

Speeds are images in a second of processor time of one thread, files in the page cache, every image on its own and in
shuffled order; medians of --repeats rounds in which all ways take turns, with the slowest and the fastest. `encode`:
compress expression and posed images (peers: write them). `sample`: `Dataset[i]`, which decodes an expression and a
posed image, keeps rest images decoded and copies them; it counts as two images. `image`: one image into memory that is
there. `h5py`: the file opened with plain h5py (and hdf5plugin), differences undone with the lines of numpy in
docs/dataset.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE))

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from common import alternate, machine, say, show_json, spread, versions  # noqa: E402

from mmdgen import rng  # noqa: E402
from mmdgen.dataset.codec import Encoder  # noqa: E402
from mmdgen.dataset.manifest import make_manifest, write_manifest  # noqa: E402
from mmdgen.dataset.reader import Dataset, Sample  # noqa: E402
from mmdgen.dataset.schema import DEFLATE, PLAIN, PLANES, RESIDUAL, SPLITS, ZSTD, DatasetConfig, ShardHeader  # noqa: E402
from mmdgen.dataset.writer import ShardBuilder  # noqa: E402

ARTICLE_SAMPLES, ARTICLE_MODELS = 500_000, 7_881
WAYS = {
    "deflate": (DEFLATE, False),
    "zstd": (ZSTD, False),
    "deflate compact": (DEFLATE, True),
    "zstd compact": (ZSTD, True),
}
PEERS = {"h5py gzip-4": {"compression": "gzip", "compression_opts": 4}, "h5py lzf": {"compression": "lzf"}}
SHARD = 64  # samples a file: several files, as in a dataset


@dataclass(slots=True)
class Stored:
    """One way of storing: what the sizes are, and what to time, each a function that returns images per second."""

    sizes: dict[str, float]
    cases: dict[str, Callable[[], float]]


def rendered(models: Path | None, poses: int, out: Path) -> Path:
    """Render a dataset of `poses` samples a model (of 16 procedural characters without models); return its folder."""
    command = [sys.executable, "-c", "from mmdgen.cli.main import main; main()", "render", "--progress", "none"]
    if models is None:
        command += ["--poses", str(16 * poses), "--characters", "16"]
    else:
        count = sum(path.suffix.lower() in (".pmx", ".pmd") for path in models.rglob("*"))
        command += ["--models", str(models), "--poses", str(count * poses)]
    subprocess.run([*command, "--out", str(out)], check=True, stdout=sys.stderr, cwd=HERE.parents[1])
    return out


def chosen(data: Path, count: int) -> tuple[DatasetConfig, list[Sample]]:
    """Return the configuration of a dataset and `count` samples of its first split with any, evenly spaced."""
    datasets = (Dataset(data, split) for split in SPLITS)
    dataset = next(found for found in datasets if len(found))
    places = np.unique(np.arange(count) * len(dataset) // count) if count < len(dataset) else np.arange(len(dataset))
    return dataset.config, [dataset[int(place)] for place in places]


def rate(images: int, work: Callable[[], Any]) -> float:
    """Return images per second of processor time."""
    start = time.process_time()
    work()
    return images / (time.process_time() - start)


def kinds(parts: list[list[int]], overhead: float) -> dict[str, float]:
    """Return KiB an image by kind, and the article's dataset in GB.

    `parts` are the sizes of rest, expression and posed images in bytes; `overhead` bytes a sample are none of them.
    """
    means = [float(np.mean(sizes)) for sizes in parts]
    million = ARTICLE_MODELS * means[0] + ARTICLE_SAMPLES * (means[1] + means[2] + overhead)
    images = ARTICLE_MODELS + 2 * ARTICLE_SAMPLES
    found = {name: mean / 1024 for name, mean in zip(_PICTURES, means, strict=True)}
    return {**found, "mean": million / images / 1024, "gb_a_million": million / 1e9}


def chunk_sizes(files: list[Path], name: str) -> list[int]:
    sizes: list[int] = []
    for path in files:
        with h5py.File(path, "r") as file:
            dataset: Any = file[name]
            dataset.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    return sizes


def ours(out: Path, config: DatasetConfig, samples: list[Sample], order: list[int]) -> Stored:
    """Store the samples as mmdgen does with `config`."""
    infos, names = [], {}
    for number, start in enumerate(range(0, len(samples), SHARD)):
        builder, rows = ShardBuilder(ShardHeader(config, "train", number)), {}
        for sample in samples[start : start + SHARD]:
            names[sample.model.sha256] = (sample.model.name, sample.model.source)
            if sample.model.sha256 not in rows:
                rows[sample.model.sha256] = builder.add_model(sample.model, sample.rest)
            builder.add_sample(rows[sample.model.sha256], sample.pose, sample.expression, sample.posed)
        infos.append(builder.write(out))
    write_manifest(out, make_manifest(config, infos, names))
    files = [out / info.file for info in infos]
    parts = [chunk_sizes(files, name) for name in ("models/rest", "expression", "posed")]
    overhead = (sum(info.bytes for info in infos) - sum(map(sum, parts))) / len(samples)
    dataset, encoder = Dataset(out, "train"), Encoder(config)

    def encode() -> None:
        for sample in samples:
            encoder.expression(sample.expression, sample.rest)
            encoder.posed(sample.posed)

    def read_samples() -> None:
        for index in order:
            _ = dataset[index]

    picture = np.empty(config.image_shape, np.uint8)

    def read_images() -> None:
        for index in order:
            shard, row = dataset.locate(index)
            shard.posed(row, picture)
        for index in order:
            shard, row = dataset.locate(index)
            shard.expression(row, picture)

    def check() -> None:
        for index, sample in enumerate(dataset):
            if not all(np.array_equal(getattr(sample, name), getattr(samples[index], name)) for name in _PICTURES):
                raise SystemExit(f"{config}: sample {index} comes back as another one")

    check()
    cases = {"encode": encode, "sample": read_samples, "image": read_images}
    if config.codec == DEFLATE or "hdf5plugin" in versions(["hdf5plugin"]):
        cases["h5py"] = partial(_plain, config, files, order)
    images = 2 * len(samples)
    return Stored(kinds(parts, overhead), {name: partial(rate, images, work) for name, work in cases.items()})


_PICTURES = ("rest", "expression", "posed")


def _plain(config: DatasetConfig, files: list[Path], order: list[int]) -> None:
    """Read every expression and posed image as docs/dataset.md says, with rest images kept."""
    if config.codec == ZSTD:
        import hdf5plugin  # noqa: F401  (registers the filter)
    opened: list[Any] = [h5py.File(path, "r") for path in files]
    rests: dict[tuple[int, int], np.ndarray] = {}
    for index in order:
        number, place = divmod(index, SHARD)
        file = opened[number]
        posed = joined(file["posed"][place]) if config.planes else file["posed"][place]
        expression = file["expression"][place]
        if config.residual:
            row = int(file["model"][place])
            if (number, row) not in rests:
                stored = file["models/rest"][row]
                rests[number, row] = joined(stored) if config.planes else stored
            expression = expression + rests[number, row]
        if posed.shape != expression.shape:
            raise SystemExit("an image has another shape")
    for file in opened:
        file.close()


def joined(stored: np.ndarray) -> np.ndarray:
    planes = np.cumsum(stored, axis=1, dtype=np.uint8)
    planes[[0, 2]] += planes[1]
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def peer(path: Path, how: dict[str, Any], samples: list[Sample], order: list[int]) -> Stored:
    """Store the images with one of HDF5's own filters, one image a chunk."""
    shape = samples[0].posed.shape
    rests = list({sample.model.sha256: sample.rest for sample in samples}.values())
    columns = {
        "rest": rests,
        "expression": [sample.expression for sample in samples],
        "posed": [sample.posed for sample in samples],
    }

    def write(target: Path, names: tuple[str, ...]) -> None:
        with h5py.File(target, "w") as file:
            for name in names:
                made = file.create_dataset(name, (len(columns[name]), *shape), "u1", chunks=(1, *shape), **how)
                for index, image in enumerate(columns[name]):
                    made[index] = image

    write(path, _PICTURES)
    sizes = [chunk_sizes([path], name) for name in _PICTURES]
    again = path.with_suffix(".again")

    def read() -> None:
        with h5py.File(path, "r") as file:
            posed: Any = file["posed"]
            expression: Any = file["expression"]
            for index in order:
                _ = posed[index], expression[index]

    images = 2 * len(samples)
    cases = {"encode": partial(write, again, ("expression", "posed")), "h5py": read}
    return Stored(kinds(sizes, 0.0), {name: partial(rate, images, work) for name, work in cases.items()})


def measure(data: Path, folder: Path, options: argparse.Namespace, about: str) -> dict[str, Any]:
    """Return the JSON object: machine, pictures, and a row for each way."""
    config, samples = chosen(data, options.samples)
    order = rng.generator(1, "bench", "storage").permutation(len(samples)).tolist()
    wanted = options.only.split(",") if options.only else [*WAYS, *PEERS]
    ways: dict[str, Stored] = {}
    for name in wanted:
        say(f"storing {len(samples)} samples as {name}")
        if name in PEERS:
            ways[name] = peer(folder / f"{name}.h5", PEERS[name], samples, order)
            continue
        codec, compact = WAYS[name]
        encodings = {"expression_encoding": RESIDUAL, "posed_encoding": PLANES} if compact else {}
        plain = {"expression_encoding": PLAIN, "posed_encoding": PLAIN}
        made = replace(config, codec=codec, flow=False, **{**plain, **encodings})
        ways[name] = ours(folder / name, made, samples, order)
    cases = {f"{name}: {what}": case for name, way in ways.items() for what, case in way.cases.items()}
    alternate(cases, 1)  # compiles, imports, fills caches
    found = alternate(cases, options.repeats, options.seconds, say)
    return {
        "machine": machine(hdf5=h5py.version.hdf5_version, hdf5plugin=versions(["hdf5plugin"]).get("hdf5plugin")),
        "pictures": {
            "what": about,
            "samples": len(samples),
            "models": len({sample.model.sha256 for sample in samples}),
            "image_size": config.image_size,
        },
        "repeats": options.repeats,
        "unit": "images in a second of processor time, one thread",
        "results": [
            {
                "way": name,
                "kib_an_image": {kind: round(way.sizes[kind], 2) for kind in (*_PICTURES, "mean")},
                "gb_a_million": round(way.sizes["gb_a_million"], 2),
                "images_per_second": {what: spread(found[f"{name}: {what}"], 4) for what in way.cases},
            }
            for name, way in ways.items()
        ],
    }


def show(result: dict[str, Any]) -> None:
    about, pictures = result["machine"], result["pictures"]
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load']}; {pictures['what']}")
    print(f"{pictures['samples']} samples of {pictures['models']} models, {pictures['image_size']} pixels")
    print(f"median (lowest .. highest) of {result['repeats']} rounds; {result['unit']}")
    for row in result["results"]:
        print(
            f"{row['way']:16} {row['kib_an_image']['mean']:6.1f} KiB an image, {row['gb_a_million']:6.1f} GB a million"
        )
        for what, speed in row["images_per_second"].items():
            print(f"    {what:8} {speed['median']:8.0f} ({speed['min']:.0f} .. {speed['max']:.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="a rendered dataset whose pictures are taken")
    source.add_argument("--models", type=Path, help="models to render; without it and --data, procedural characters")
    parser.add_argument("--poses", type=int, default=63, help="samples a model, where pictures are rendered")
    parser.add_argument("--samples", type=int, default=256, help="so many samples are stored and read")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so long")
    parser.add_argument("--only", default="", help=f"some of {', '.join([*WAYS, *PEERS])}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, about = options.data, "a rendered dataset"
        if data is None:
            about = "procedural characters" if options.models is None else "models rendered for this"
            data = rendered(options.models, options.poses, Path(folder) / "rendered")
        result = measure(data, Path(folder), options, about)
    show_json(result) if options.json else show(result)


if __name__ == "__main__":
    main()
