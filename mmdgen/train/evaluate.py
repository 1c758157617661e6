"""How good the networks of a run are on pictures of a split, beside doing nothing and beside the nearest true picture.

Three tasks, each with one input and one wanted picture for all that answer it (`TASKS`): the expression from the rest
picture (morpher), the posed picture from the true expression picture (both outputs of the rotator, and the combiner on
them), and the posed picture from the rest picture (all three in a chain). Samples are streamed: memory holds some
batches and the scores, whatever the split's size. What the scores mean is said in `mmdgen.train.metrics`, what the
baselines are in `mmdgen.train.baselines`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmdgen.dataset.reader import Dataset
from mmdgen.dataset.remote import file_sha256
from mmdgen.dataset.schema import MANIFEST_FILE
from mmdgen.errors import ConfigError, DatasetError, TrainError
from mmdgen.train import baselines
from mmdgen.train.baselines import EXPRESSION_WEIGHTS, POSED_WEIGHTS, SplitPoses, nearest_pose
from mmdgen.train.images import to_network
from mmdgen.train.loader import make_loader
from mmdgen.train.metrics import ALL, CHANGED, LINEAR, SRGB, Judge, Key, Scores, make_masks
from mmdgen.train.networks import EXPRESSION, NETWORKS, ROTATION
from mmdgen.train.order import choose
from mmdgen.train.runs import Loaded, load_network, networks_of

IDENTITY, NEAREST = "identity", "nearest pose"
BASELINES = (IDENTITY, NEAREST)
CHAIN = "chain"
PICTURES = ("rest", "expression", "posed")
_AHEAD = 2  # batches of neighbours' pictures that are read ahead


@dataclass(frozen=True, slots=True)
class Task:
    """`given` and `wanted` are pictures of a sample; `methods` answer; `weights` say which neighbour is nearest."""

    name: str
    given: str
    wanted: str
    methods: tuple[str, ...]
    weights: Mapping[str, float]


TASKS = (
    Task("expression", "rest", "expression", ("morpher",), EXPRESSION_WEIGHTS),
    Task("rotation", "expression", "posed", ("rotator direct", "rotator warped", "combiner"), POSED_WEIGHTS),
    Task("whole", "rest", "posed", (CHAIN,), POSED_WEIGHTS),
)


class Predictor(Protocol):
    """What is evaluated: `methods` are some of those in `TASKS`."""

    @property
    def methods(self) -> tuple[str, ...]: ...

    def warnings(self, dataset: Dataset) -> list[str]:
        """Return what a reader of the scores must know, one sentence each."""
        ...

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why methods are missing, by name."""
        ...

    def check(self, dataset: Dataset) -> None:
        """Raise `TrainError` when the dataset is not what the methods were made for."""
        ...

    def outputs(self, pictures: Mapping[str, Tensor], expression: Tensor, rotation: Tensor) -> dict[str, Tensor]:
        """Return each method's pictures f32 [N, 4, H, W] in [-1, 1].

        `pictures` are the true ones in the same form by name (`PICTURES`, as far as a task needs them), `expression`
        and `rotation` f32 [N, 3] in the order of `EXPRESSION` and `ROTATION`.
        """
        ...


class RunNetworks:
    """The trained networks of a run: a `Predictor`. `left_out` says why methods are missing.

    The rotator is that of the run `rotator` if one is named, as for a combiner that was trained with it. Raises
    `TrainError` when the run has no network, one is damaged, or the named run has no rotator.
    """

    def __init__(self, run: Path, device: str | torch.device = "cpu", rotator: Path | None = None) -> None:
        self.run = run
        found = networks_of(run)
        if not found:
            raise TrainError(f"{run} has no trained network ({', '.join(NETWORKS)}): mmdgen train NAME --out {run}")
        homes = dict.fromkeys(found, run) | ({"rotator": rotator} if rotator is not None else {})
        found = tuple(name for name in NETWORKS if name in homes)
        self.loaded: dict[str, Loaded] = {name: load_network(homes[name], name, device) for name in found}
        missing = [name for name in NETWORKS if name not in found]
        self.left_out = {name: f"the run has no {name}" for name in missing}
        if "combiner" in found and "rotator" not in found:
            self.left_out["combiner"] = "it works on a rotator's pictures, and the run has no rotator"
        if missing:
            self.left_out[CHAIN] = f"the run has no {' and no '.join(missing)}"
        methods = {
            "morpher": ("morpher" in found,),
            "rotator direct": ("rotator" in found,),
            "rotator warped": ("rotator" in found,),
            "combiner": ("rotator" in found, "combiner" in found),
            CHAIN: tuple(name in found for name in NETWORKS),
        }
        self.methods = tuple(name for name, needs in methods.items() if all(needs))

    def outputs(self, pictures: Mapping[str, Tensor], expression: Tensor, rotation: Tensor) -> dict[str, Tensor]:
        networks = {name: loaded.network for name, loaded in self.loaded.items()}
        outputs: dict[str, Tensor] = {}
        if "morpher" in self.methods:
            outputs["morpher"] = networks["morpher"](pictures["rest"], expression).image
        if "rotator direct" in self.methods:
            turned = networks["rotator"](pictures["expression"], rotation)
            outputs |= {"rotator direct": turned.direct, "rotator warped": turned.warped}
            if "combiner" in self.methods:
                outputs["combiner"] = networks["combiner"](turned.direct, turned.warped, rotation).image
        if CHAIN in self.methods:
            turned = networks["rotator"](outputs["morpher"], rotation)
            outputs[CHAIN] = networks["combiner"](turned.direct, turned.warped, rotation).image
        return outputs

    def check(self, dataset: Dataset) -> None:
        """Raise `TrainError` unless every network was trained on pictures of this size."""
        size = dataset.config.image_size
        for name, loaded in self.loaded.items():
            if loaded.image_size != size:
                raise TrainError(
                    f"{self.run}: the {name} was trained on pictures of {loaded.image_size} pixels, those of "
                    f"{dataset.path} have {size}: render a dataset with --size {loaded.image_size}"
                )

    def warnings(self, dataset: Dataset) -> list[str]:
        """Return what makes the scores say less about unknown characters than they seem to, one sentence each."""
        if dataset.split == "train":
            return ["the networks learned from these very pictures, if they were trained on this dataset"]
        own = file_sha256(dataset.path / MANIFEST_FILE)
        others = [name for name, loaded in self.loaded.items() if loaded.data.get("dataset", own) != own]
        if not others:
            return []
        return [f"trained on another dataset, which may have had characters of this split: {', '.join(others)}"]

    def describe(self) -> dict[str, Any]:
        """Return {network: {preset, image_size, examples}}."""
        return {
            name: {"preset": loaded.preset.name, "image_size": loaded.image_size, "examples": loaded.examples}
            for name, loaded in self.loaded.items()
        }


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One task: every method's and baseline's scores (f64 [n] by space, mask and measure), `neighbour` i64 [n] (split
    numbers or `baselines.NONE`) and `changed`, in how many samples given and wanted picture differ."""

    task: Task
    scores: Mapping[str, Scores]
    neighbour: np.ndarray
    changed: int

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(name for name in self.scores if name not in BASELINES)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The scores of `samples` (i64 [n], numbers in the split), task by task, and what the split holds."""

    split_name: str
    image_size: int
    samples: np.ndarray
    split: SplitPoses
    results: tuple[Result, ...]
    lpips_note: str = ""  # why there is no LPIPS; empty when there is
    left_out: Mapping[str, str] = field(default_factory=dict)  # why a method is missing
    warnings: tuple[str, ...] = ()

    def worst(self, result: Result, method: str, count: int) -> np.ndarray:
        """Return the places in `samples` with the largest RMSE (linear, all pixels), the worst first; ties in order."""
        return np.argsort(-result.scores[method][LINEAR, ALL, "rmse"], kind="stable")[:count]


def evaluate(
    predictor: Predictor,
    data: str | Path,
    split: str,
    *,
    limit: int | None = None,
    batch: int = 16,
    workers: int = 0,
    device: str | torch.device = "cpu",
    lpips: torch.nn.Module | None = None,
    lpips_note: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a predictor on a split, or on `limit` samples evenly spaced in it.

    `workers` processes read and decode; `lpips_note` says why there is no `lpips`; `progress` is told (done, total).
    In float32, without TF32. Scores depend on
    neither `batch` nor `workers`, apart from the rounding of float32. Raises `ConfigError` for another pose
    vocabulary, `DatasetError` for a split without samples or a damaged shard and `TrainError` for outputs that are not
    finite.
    """
    dataset = Dataset(data, split)
    check_vocabulary(dataset)
    predictor.check(dataset)
    if len(dataset) == 0:
        counts = ", ".join(f"{name} {dataset.manifest.samples(name)}" for name in dataset.manifest.shards)
        raise DatasetError(f"{data}: the split {split} has no sample (samples: {counts}): render some, or take another")
    tasks = [task for task in TASKS if any(method in predictor.methods for method in task.methods)]
    index = SplitPoses.read(dataset)
    samples = choose(len(dataset), limit, spread=True)
    neighbours = {task.name: nearest_pose(index, samples, task.weights) for task in tasks}
    fields = tuple(name for name in PICTURES if any(name in (task.given, task.wanted) for task in tasks))
    collected: dict[str, dict[str, list[Scores]]] = {task.name: {} for task in tasks}
    done = 0
    with contextlib.ExitStack() as stack:
        loader = stack.enter_context(
            make_loader(
                data,
                split,
                batch=batch,
                seed=0,
                workers=workers,
                fields=fields,
                shuffle=False,
                limit=limit,
                spread=True,
            )
        )
        stack.enter_context(torch.inference_mode())
        stack.enter_context(exact_convolutions())
        pool = stack.enter_context(ThreadPoolExecutor(max(1, workers), "neighbours"))
        library = {
            task.name: neighbour_pictures(dataset, task.wanted, neighbours[task.name], batch, pool) for task in tasks
        }
        for loaded in loader:
            numbers = samples[done : done + batch]
            if not np.array_equal(loaded.index.numpy(), numbers):
                raise DatasetError(f"{data}: the samples come in another order than they should")
            loaded = loaded.to(device)
            stored = {name: getattr(loaded, name) for name in fields}
            pictures = {name: to_network(value) for name, value in stored.items()}
            outputs = predictor.outputs(pictures, loaded.columns(EXPRESSION), loaded.columns(ROTATION))
            _check_finite(outputs, numbers)
            for task in tasks:
                answers = {name: outputs[name] for name in task.methods if name in outputs}
                answers[IDENTITY] = pictures[task.given]
                masks = make_masks(stored[task.given], stored[task.wanted])
                judge = Judge(pictures[task.wanted], masks, lpips)
                known, found = next(library[task.name])
                scores = {name: judge(answer) for name, answer in answers.items()}
                nearest = judge(to_network(found.to(device)))
                scores[NEAREST] = {key: np.where(known, value, np.nan) for key, value in nearest.items()}
                for name, part in scores.items():
                    collected[task.name].setdefault(name, []).append(part)
            done += len(numbers)
            if progress is not None:
                progress(done, len(samples))
    results = []
    for task in tasks:
        joined = {name: _join(parts) for name, parts in collected[task.name].items()}
        changed = int((~np.isnan(joined[IDENTITY][LINEAR, CHANGED, "mse"])).sum())
        results.append(Result(task, joined, neighbours[task.name], changed))
    return Evaluation(
        split,
        dataset.config.image_size,
        samples,
        index,
        tuple(results),
        "" if lpips is not None else lpips_note or "not asked for",
        dict(predictor.left_out),
        tuple(predictor.warnings(dataset)),
    )


def check_vocabulary(dataset: Dataset) -> None:
    """Raise `ConfigError` unless the dataset has the six parameters that the networks take."""
    names = dataset.config.vocabulary.names
    missing = [name for name in (*EXPRESSION, *ROTATION) if name not in names]
    if missing:
        raise ConfigError(
            f"{dataset.path}: its pose vocabulary {dataset.config.vocabulary.name!r} ({', '.join(names)}) lacks "
            f"{', '.join(missing)}, which the networks take: render it with the vocabulary tha1"
        )


@contextlib.contextmanager
def exact_convolutions() -> Iterator[None]:
    """Within it cuDNN multiplies in float32: TF32 keeps 10 bits, too few for SSIM's differences of squares."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def neighbour_pictures(
    dataset: Dataset, name: str, numbers: Sequence[int] | np.ndarray, batch: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield batches of the pictures `name` of samples: (which exist bool [n], u8 [n, H, W, 4]; zeros for `NONE`).

    Read by the pool's threads, some batches ahead. Raises `DatasetError` for a picture that cannot be read.
    """
    empty = np.zeros(dataset.config.image_shape, np.uint8)

    def read(number: int) -> np.ndarray:
        if number == baselines.NONE:
            return empty
        shard, row = dataset.locate(number)
        return shard.expression(row) if name == "expression" else shard.posed(row)

    parts = [[int(number) for number in numbers[start : start + batch]] for start in range(0, len(numbers), batch)]
    waiting = deque()
    for part in [*parts, *[None] * _AHEAD]:
        if part is not None:
            waiting.append((part, [pool.submit(read, number) for number in part]))
        if waiting and (part is None or len(waiting) > _AHEAD):
            first, futures = waiting.popleft()
            known = np.array([number != baselines.NONE for number in first])
            yield known, torch.from_numpy(np.stack([future.result() for future in futures]))


def _check_finite(outputs: Mapping[str, Tensor], numbers: np.ndarray) -> None:
    for name, output in outputs.items():
        finite = torch.isfinite(output).flatten(1).all(1).cpu().numpy()
        if not finite.all():
            raise TrainError(f"the {name} gives values that are not finite for sample {numbers[~finite][0]}")


def _join(parts: Sequence[Scores]) -> Scores:
    keys: list[Key] = list(parts[0])
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def measured(scores: Scores, mask: str = ALL) -> dict[str, np.ndarray]:
    """Return the three numbers of a picture that reports list: ``rmse`` and ``ssim`` (linear) and ``srgb_rmse``."""
    return {
        "rmse": scores[LINEAR, mask, "rmse"],
        "ssim": scores[LINEAR, mask, "ssim"],
        "srgb_rmse": scores[SRGB, mask, "rmse"],
    }
