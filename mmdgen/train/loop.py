"""Training: what the three networks share, on Lightning Fabric.

A run is a folder RUN with one folder a network: options.json (what must not change), checkpoint/ (to go on from),
network.json and weights.safetensors (the trained network), log.jsonl, tensorboard/, samples/ (pictures named by the
examples seen). Calling `train` again with the same arguments goes on; on a CPU with the same number of threads the
weights come out bit for bit as without the interruption.

The losses of a step are looked at only every few steps on a GPU, so that it never waits; always before anything is
written, so that no file ever holds what came after a loss that was not finite.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from mmdgen.dataset.manifest import read_manifest
from mmdgen.errors import TrainError, one_line
from mmdgen.fsio import write_atomic, write_json
from mmdgen.train.checkpoint import (
    Checkpoint,
    generator_states,
    last_checkpoint,
    load_checkpoint,
    restore_generators,
    save_checkpoint,
    sole_writer,
)
from mmdgen.train.config import BETAS, Identity, Phase, Schedule, reached
from mmdgen.train.loader import Batch, Loader, make_loader
from mmdgen.train.log import RunLog
from mmdgen.train.networks import build_network
from mmdgen.train.recipe import Recipe
from mmdgen.train.runs import save_network
from mmdgen.train.start import (
    OPTIONS_FILE,
    Places,
    Progress,
    Summary,
    check_same,
    end_others,
    identify,
    make_fabric,
    numerics,
)
from mmdgen.train.validation import SPLIT, Validation

SAMPLES_FOLDER = "samples"
GRADIENT = "gradient"
# Steps whose losses may be unseen on a GPU. On a CPU nothing is gained by waiting.
_UNSEEN = 8

# Why a start of a run came to its end.
EXAMPLES, MINUTES, INTERRUPTED = "examples", "minutes", "interrupted"


def train(
    recipe: Recipe,
    schedule: Schedule,
    places: Places,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Summary:
    """Train a network, or go on with it, until the schedule ends or `stop()` is true after a step.

    With `options.devices` above 1 this process starts the others (they run the same command again) and each of them
    returns a summary; only rank 0 writes. Raises `ConfigError`, `DatasetError`, or `TrainError` when a loss or gradient
    is not finite; the last checkpoint is then as it was.
    """
    started = time.monotonic()
    options = recipe.options
    folder = places.run / options.network
    identity = identify(recipe, places.data)
    check_same(folder, identity)
    fabric = make_fabric(options, places.accelerator)
    fabric.launch()
    writer = fabric.is_global_zero
    try:
        with sole_writer(folder) if writer else nullcontext(), numerics(fabric.device):
            if writer:
                write_json(folder / OPTIONS_FILE, identity.to_json())
            run = _Run(fabric, recipe, identity, schedule, places, folder, started, stop or (lambda: False))
            return run.go(on_progress or (lambda _: None), on_warning or (lambda _: None))
    except torch.OutOfMemoryError as error:
        end_others(fabric)
        raise TrainError(
            f"{folder}: the memory of {fabric.device} is too small: {one_line(str(error), 300)} A smaller --batch or "
            "--precision bf16 needs less (with another --out if there is a checkpoint already)"
        ) from error
    except BaseException:
        end_others(fabric)
        raise


class _Run:
    """One start of a run in one process."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        identity: Identity,
        schedule: Schedule,
        places: Places,
        folder: Path,
        started: float,
        stop: Callable[[], bool],
    ) -> None:
        options = recipe.options
        self._fabric, self._recipe, self._schedule = fabric, recipe, schedule
        self._places, self._folder = places, folder
        self._options, self._identity = options, identity
        self._stop, self._started = stop, started
        self._writer = fabric.is_global_zero
        self._window = 1 if fabric.device.type == "cpu" else _UNSEEN

        self._network = build_network(options.network, options.preset, options.seed)
        self.examples = self.step = 0
        self._seconds = 0.0
        # Every rank reads it for itself; nobody deletes it before all have taken a step together.
        path = last_checkpoint(folder)
        state = None if path is None else load_checkpoint(path)
        if state is not None:
            self._network.load_state_dict(state.weights)
            self.examples, self.step, self._seconds = state.examples, state.step, state.seconds
        self.first, self._first_step = self.examples, self.step
        self._saved = self.examples if state is not None else -1
        if options.channels_last:
            self._network = self._network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        recipe.place(fabric.device)
        wrapped = torch.compile(self._network) if options.compile else self._network
        fused = fabric.device.type == "cuda"
        optimizer = torch.optim.Adam(self._network.parameters(), lr=options.lr, betas=BETAS, fused=fused)
        self._module, self._optimizer = fabric.setup(wrapped, optimizer)  # pyright: ignore[reportArgumentType]
        self._adam = optimizer  # without Fabric's wrapper: what is kept in a checkpoint
        if state is not None:
            optimizer.load_state_dict(dict(state.optimizer))
            restore_generators(state.rng, fabric.device)

        # Of each step not yet looked at: its number, the clock after it, the parts of the loss and then the gradient.
        self._pending: list[tuple[int, int, Tensor]] = []
        self._parts: tuple[str, ...] = ()
        self._sums: dict[str, float] = {}
        self._sum_steps = self._sum_examples = 0
        self._mark = time.monotonic()  # since when steps are timed; what else is done lies between two marks
        self._timed = 0.0
        self._trained = 0.0
        self._wish = ""
        self._loss: dict[str, float] = {}
        self._scores: dict[str, dict[str, float]] = {}
        self._validated = -1

    def go(self, on_progress: Callable[[Progress], None], on_warning: Callable[[str], None]) -> Summary:
        """Train until there is a reason to end."""
        schedule = self._schedule
        if self.examples >= schedule.examples:
            return self._summary(EXAMPLES)
        validation = None
        if self._writer and schedule.validation_samples:
            if read_manifest(self._places.data).samples(SPLIT):
                validation = Validation(self._places.data, self._recipe, schedule.validation_samples)
            else:
                on_warning(
                    f"the dataset has no {SPLIT} samples (render --validation-poses): no scores, no pictures on the way"
                )
        with RunLog(self._folder, self.examples) if self._writer else nullcontext() as log:
            self._note(log, "start", {**self._identity.to_json(), "device": str(self._fabric.device)})
            if not self.examples:
                self._validate(validation, log, pictures=True)
            self._mark = time.monotonic()
            reason = self._steps(validation, log, on_progress)
            self._note_losses(log)
            if reason != INTERRUPTED and self._validated != self.examples:
                self._validate(validation, log, pictures=True)
            self._save(log)
            self._note(log, "stop", {"reason": reason})
        self._fabric.barrier()
        return self._summary(reason)

    def _steps(self, validation: Validation | None, log: RunLog | None, on_progress: Callable[[Progress], None]) -> str:
        schedule = self._schedule
        while True:
            phase = self._phase()
            with closing(self._loader(phase)) as loader:
                for batch in loader:
                    before = self.examples
                    self._step(batch, phase)
                    done = self.examples >= schedule.examples
                    due = {
                        name: reached(getattr(schedule, name), before, self.examples)
                        for name in ("log_every", "validate_every", "sample_every", "save_every")
                    }
                    if done or any(due.values()) or len(self._pending) >= self._window:
                        self._look()
                        on_progress(self._progress())
                    if done:
                        return EXAMPLES
                    if self._wish:
                        return self._wish
                    if due["log_every"]:
                        self._note_losses(log)
                    if due["validate_every"] or due["sample_every"]:
                        self._validate(validation, log, pictures=due["sample_every"])
                    if due["save_every"]:
                        self._save(log)
                    if phase.end is not None and self.examples >= phase.end:
                        if self._pending:
                            self._look()
                        self._note_losses(log)  # the next phase has other parts
                        break

    def _phase(self) -> Phase:
        return next(phase for phase in self._options.phases if phase.end is None or self.examples < phase.end)

    def _loader(self, phase: Phase) -> Loader:
        return make_loader(
            self._places.data,
            "train",
            batch=phase.batch,
            seed=self._options.seed,
            workers=self._places.workers,
            fields=self._recipe.fields,
            flip=self._options.flip,
            flow=self._recipe.flow,
            rank=self._fabric.global_rank,
            world=self._fabric.world_size,
            start=self.examples,
        )

    def _step(self, batch: Batch, phase: Phase) -> None:
        """Take one step; its losses wait in `_pending`."""
        with torch.no_grad(), self._fabric.autocast():
            example = self._recipe.example(batch.to(self._fabric.device))
        output = self._module(*example.inputs)
        with self._fabric.autocast():  # for VGG16; the differences themselves are taken in 32 bits
            losses = self._recipe.losses(output, example, phase.perceptual)
        self._optimizer.zero_grad()
        self._fabric.backward(torch.stack(tuple(losses.values())).sum())
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self._optimizer.step()
        self.step += 1
        seen = len(batch) * self._fabric.world_size
        self.examples += seen
        self._sum_examples += seen
        self._parts = (*losses, GRADIENT)  # the same within a phase, and phases do not mix in `_pending`
        values = torch.stack([*(value.detach().float() for value in losses.values()), norm.float()])
        self._pending.append((self.step, self.examples, values))

    def _look(self) -> None:
        """Bring the losses of pending steps here, means over all ranks, and what any rank wishes.

        Raises `TrainError` at the first one that is not finite.
        """
        overtime = self._schedule.minutes is not None and time.monotonic() - self._started > 60 * self._schedule.minutes
        wishes = torch.tensor([float(self._stop()), float(overtime)], device=self._fabric.device)
        values = torch.stack([row for _, _, row in self._pending])
        if self._fabric.world_size > 1:
            together = self._fabric.all_reduce(torch.cat((wishes, values.flatten())), reduce_op="mean")
            if not isinstance(together, Tensor):
                raise TrainError("the processes could not exchange their losses")
            wishes, values = together[:2], together[2:].reshape(values.shape)
        steps = [(step, examples) for step, examples, _ in self._pending]
        self._pending = []
        for (step, examples), row in zip(steps, values.tolist(), strict=True):
            named = dict(zip(self._parts, row, strict=True))
            if not all(map(math.isfinite, row)):
                bad = [name for name, value in named.items() if name != GRADIENT and not math.isfinite(value)]
                what = f"the loss {', '.join(bad)}" if bad else "the gradient"
                raise TrainError(self._not_finite(what, named, step, examples))
            for name, value in named.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            self._sum_steps += 1
        interrupted, late = wishes.tolist()
        if interrupted:
            self._wish = INTERRUPTED
        elif late:
            self._wish = MINUTES

    def _not_finite(self, what: str, values: Mapping[str, float], step: int, examples: int) -> str:
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        kept = last_checkpoint(self._folder)
        return (
            f"{self._folder}: {what} is not finite at step {step} ({examples} examples seen; {shown}). "
            + (f"The last good checkpoint is {kept}. " if kept else "There is no checkpoint yet. ")
            + "A smaller --lr, --precision 32 or another --seed may help, with another --out"
        )

    def _save(self, log: RunLog | None) -> None:
        """Write checkpoint and network at this point, once."""
        if not self._writer or self._saved == self.examples:
            return
        with self._untimed():
            seconds = self._seconds + self._trained
            weights, optimizer = self._network.state_dict(), self._adam.state_dict()
            rng = generator_states(self._fabric.device)
            # The network first: it refuses values that are not finite, and a start that finds the last checkpoint may
            # have nothing left to do, so the network that belongs to it must be there.
            save_network(
                self._places.run,
                self._options.network,
                self._network,
                self._options.preset,
                self._identity.image_size,
                self.examples,
                {"dataset": self._identity.dataset, **self._options.to_json()},
            )
            save_checkpoint(self._folder, Checkpoint(self.examples, self.step, seconds, weights, optimizer, rng))
            self._saved = self.examples
            self._note(log, "checkpoint", {"seconds": round(seconds, 3)})

    def _validate(self, validation: Validation | None, log: RunLog | None, *, pictures: bool) -> None:
        if validation is None:
            return
        with self._untimed():
            scores, png = validation.run(self._network, self._fabric.device, self._fabric.autocast(), pictures=pictures)
            found = {f"{name} {score}": value for name, parts in scores.items() for score, value in parts.items()}
            bad = [name for name, value in found.items() if not math.isfinite(value)]
            if bad:
                what = f"the validation score {', '.join(bad)}"
                raise TrainError(self._not_finite(what, found, self.step, self.examples))
            self._scores, self._validated = scores, self.examples
            self._note(log, "validation", {"samples": validation.samples, "scores": scores})
            if png:
                path = self._folder / SAMPLES_FOLDER / f"{self.examples:09d}.png"
                path.parent.mkdir(exist_ok=True)
                write_atomic(path, png)
                self._note(log, "samples", {"file": f"{SAMPLES_FOLDER}/{path.name}"})

    def _note_losses(self, log: RunLog | None) -> None:
        """Log the means since the last time."""
        if not self._sum_steps:
            return
        with self._untimed():
            means = {name: value / self._sum_steps for name, value in self._sums.items()}
            gradient = means.pop(GRADIENT, 0.0)
            self._loss = {"total": sum(means.values()), **means}
            self._note(
                log,
                "train",
                {
                    "step": self.step,
                    "loss": self._loss,
                    "gradient": gradient,
                    "lr": self._options.lr,
                    "examples_per_second": round(self._sum_examples / max(self._timed, 1e-9), 3),
                    "seconds": round(self._seconds + self._trained, 3),
                },
            )
            self._sums, self._sum_steps, self._sum_examples, self._timed = {}, 0, 0, 0.0

    def _note(self, log: RunLog | None, event: str, values: Mapping[str, Any]) -> None:
        if log is not None:
            log.write(event, self.examples, values)

    @contextlib.contextmanager
    def _untimed(self) -> Iterator[None]:
        """Time spent inside is not training."""
        self._tick()
        yield
        self._mark = time.monotonic()

    def _tick(self) -> None:
        now = time.monotonic()
        self._timed += now - self._mark
        self._trained += now - self._mark
        self._mark = now

    def _progress(self) -> Progress:
        self._tick()
        seen = self.examples - self.first
        rate = seen / max(self._trained, 1e-9)
        left = (self._schedule.examples - self.examples) / rate
        if self._schedule.minutes is not None:
            left = min(left, max(0.0, 60 * self._schedule.minutes - (time.monotonic() - self._started)))
        steps = max(1, self._sum_steps)
        loss = sum(value for name, value in self._sums.items() if name != GRADIENT) / steps if self._sums else None
        return Progress(self.examples, self._schedule.examples, rate, left, loss)

    def _summary(self, reason: str) -> Summary:
        seen = self.examples - self.first
        return Summary(
            self._options.network,
            str(self._folder),
            self.first,
            self.examples,
            self.step - self._first_step,
            reason,
            round(time.monotonic() - self._started, 3),
            round(seen / self._trained, 3) if seen and self._trained else 0.0,
            self._loss,
            self._scores,
            self._fabric.global_rank,
        )
