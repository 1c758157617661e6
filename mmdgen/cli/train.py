"""mmdgen train: the article's networks on a dataset of mmdgen."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmdgen.cli.extras import require_torch
from mmdgen.cli.progress import ProgressView
from mmdgen.cli.progress import option as progress_option
from mmdgen.errors import MmdgenError
from mmdgen.train.config import ARTICLE, LEARNING_RATE, LOSSES, PRECISIONS, Schedule, TrainOptions

if TYPE_CHECKING:
    from mmdgen.train.recipe import Recipe
    from mmdgen.train.start import Places, Summary

INTERRUPTED = 130
DESCRIBED_SIZE = 256
_NEEDED = ("torch", "lightning_fabric", "safetensors", "tensorboard")


@click.command()
@click.argument("name", type=click.Choice(list(ARTICLE)))
@click.option("--data", type=click.Path(path_type=Path), help="The dataset's folder.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The run's folder: all three networks.")
@click.option("--preset", default="article", show_default=True, help="The network's widths: article or small.")
@click.option("--examples", type=click.IntRange(1), help="End after so many examples in all [the article's].")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="End this start after so many minutes.")
@click.option("--batch", type=click.IntRange(1), help="Examples a step and device [the article's of each phase].")
@click.option("--loss", type=click.Choice(LOSSES), help="perceptual is L1 and perceptual [the article's best].")
@click.option("--vgg", type=click.Path(path_type=Path), help="VGG16's weights [torchvision's cache].")
@click.option(
    "--l1-examples", type=click.IntRange(0), help="Perceptual loss only after so many [rotator 250000, combiner 0]."
)
@click.option(
    "--flow-weight",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Rotator: weight of the flow that the dataset was rendered with; 0: none.",
)
@click.option("--flip", is_flag=True, help="Mirror half of the examples, with their poses.")
@click.option("--rotator", type=click.Path(path_type=Path), help="Combiner: the run with its rotator [--out].")
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    default=LEARNING_RATE,
    show_default=True,
    help="Adam's learning rate.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Other first weights, order and flips.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="32", show_default=True, help="bf16: mixed.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the network first (torch.compile).")
@click.option("--channels-last", is_flag=True, help="Channels last in memory: may be faster on a GPU with bf16.")
@click.option(
    "--accelerator", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Compute on."
)
@click.option("--devices", type=click.IntRange(1, 1024), default=1, show_default=True, help="One process each (DDP).")
@click.option("--workers", type=click.IntRange(0, 256), help="Processes that read, a device [0; with a GPU 2 to 8].")
@click.option("--threads", type=click.IntRange(1), help="Threads of a process that computes on the CPU [torch's].")
@click.option("--log-every", type=click.IntRange(1), help="Examples between two lines of log.jsonl.")
@click.option("--validate-every", type=click.IntRange(1), help="Examples between two validations.")
@click.option("--sample-every", type=click.IntRange(1), help="Examples between two sample pictures.")
@click.option("--save-every", type=click.IntRange(1), help="Examples between two checkpoints.")
@click.option(
    "--validation-samples",
    type=click.IntRange(0),
    default=128,
    show_default=True,
    help="Validate on so many samples, evenly spaced in the validation split; 0: not at all.",
)
@click.option("--describe", is_flag=True, help="Only show the network: layers, shapes, parameters. Needs no --data.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; write nothing.")
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary, the description or the plan as JSON.")
def command(
    name: str,
    data: Path | None,
    out: Path | None,
    preset: str,
    examples: int | None,
    minutes: float | None,
    batch: int | None,
    loss: str | None,
    vgg: Path | None,
    l1_examples: int | None,
    flow_weight: float,
    flip: bool,
    rotator: Path | None,
    lr: float,
    seed: int,
    precision: str,
    compiled: bool,
    channels_last: bool,
    accelerator: str,
    devices: int,
    workers: int | None,
    threads: int | None,
    log_every: int | None,
    validate_every: int | None,
    sample_every: int | None,
    save_every: int | None,
    validation_samples: int,
    describe: bool,
    dry_run: bool,
    progress: str,
    as_json: bool,
) -> None:
    """Train the face morpher, the rotator or the combiner.

    The pictures' size is the dataset's. Batch, length and losses are the article's unless you say otherwise; the
    combiner needs a trained rotator. RUN/NAME gets the network (weights.safetensors, network.json), checkpoints,
    log.jsonl, tensorboard and samples (what was given, wanted, and came out). Examples seen are the only clock.

    The same command goes on where the last one stopped; --examples, --minutes, --workers and the intervals may differ,
    all else must be as it was. Ctrl-C ends after the step and keeps everything; kill -9 loses what came after the last
    checkpoint. Exits with 0 at the end, 1 on errors, 2 on wrong usage and 130 when interrupted.

    \b
    Examples:
      mmdgen train morpher --data out/d --out out/run
      mmdgen train morpher --preset small --data out/d --examples 2000 --out out/run
      mmdgen train rotator --loss l1 --data out/d --minutes 30 --out out/run
      mmdgen train combiner --precision bf16 --channels-last --compile --data out/d --out out/run
      mmdgen train rotator --preset small --describe --json
    """
    require_torch(_NEEDED, "training")
    if describe:
        _describe(name, preset, data, as_json)
        return
    if data is None or out is None:
        raise click.UsageError("say what to train on and where to keep it: --data D --out RUN")
    options = TrainOptions(
        name,
        preset=preset,
        seed=seed,
        lr=lr,
        loss=loss or "",
        batch=batch or 0,
        l1_examples=l1_examples,
        flow_weight=flow_weight,
        flip=flip,
        precision=precision,
        compile=compiled,
        channels_last=channels_last,
        devices=devices,
    )
    schedule = Schedule(
        examples or options.article_examples,
        minutes,
        log_every or 0,
        validate_every or 0,
        sample_every or 0,
        save_every or 0,
        validation_samples,
    )
    _train(options, schedule, data, out, vgg, rotator, accelerator, workers, threads, dry_run, progress, as_json)


def _train(
    options: TrainOptions,
    schedule: Schedule,
    data: Path,
    out: Path,
    vgg: Path | None,
    rotator: Path | None,
    accelerator: str,
    workers: int | None,
    threads: int | None,
    dry_run: bool,
    progress: str,
    as_json: bool,
) -> None:
    # Imported here: torch takes seconds, and `--help` must not need it.
    from mmdgen.dataset.manifest import read_manifest
    from mmdgen.train.loop import train
    from mmdgen.train.recipes import make_recipe
    from mmdgen.train.start import Places, default_workers, use_threads

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if threads is not None:
        use_threads(threads)
    if workers is None:
        workers = default_workers(options.devices)
    folder = out / options.network
    places = Places(data, out, accelerator, workers)
    try:
        size = read_manifest(data).config.image_size
        recipe = make_recipe(options, out, image_size=size, vgg=vgg, rotator=rotator)
        if dry_run:
            _show_plan(recipe, schedule, places, as_json)
            return
        # The processes of the other devices run this command as well; only the first one speaks.
        view = ProgressView("none" if os.environ.get("LOCAL_RANK", "0") != "0" else progress)
        with _stopping() as stop, view:
            summary = train(recipe, schedule, places, on_progress=view.train, on_warning=view.warn, stop=stop)
    except KeyboardInterrupt:
        click.echo("mmdgen: interrupted before the first step; nothing was changed", err=True)
        sys.exit(INTERRUPTED)
    except MmdgenError as error:
        click.echo(f"mmdgen: {error}", err=True)
        sys.exit(1)
    if summary.rank:
        return
    if summary.reason == "interrupted":
        click.echo(
            f"mmdgen: interrupted after {summary.examples:,} examples, which are kept in {folder}; "
            f"the same command goes on:\n  {shlex.join(['mmdgen', *sys.argv[1:]])}",
            err=True,
        )
    _show_summary(summary, as_json)
    if summary.reason == "interrupted":
        sys.exit(INTERRUPTED)


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C or SIGTERM came; a second one ends the process at once."""
    asked = False

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(INTERRUPTED)  # the last checkpoint is whole; processes that read notice that their parent has gone
        asked = True
        # Not click.echo: a signal may come while something else is being written.
        os.write(2, b"\nmmdgen: ending after this step; once more ends at once, without a checkpoint\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _describe(name: str, preset: str, data: Path | None, as_json: bool) -> None:
    from mmdgen.dataset.manifest import read_manifest
    from mmdgen.train.networks import describe

    value = describe(name, preset, read_manifest(data).config.image_size if data else DESCRIBED_SIZE)
    if as_json:
        click.echo(json.dumps(value, indent=2))
        return
    click.echo(f"{name}, preset {preset}, {value['image_size']} pixels: {value['parameters']:,} parameters")
    for title in ("inputs", "outputs"):
        click.echo(f"{title}: " + ", ".join(f"{key} {_shape(shape)}" for key, shape in value[title].items()))
    width = max(len(layer["name"]) for layer in value["layers"])
    for layer in value["layers"]:
        shapes = f"{_shape(layer['input']):>14} -> {_shape(layer['output']):<14}"
        click.echo(f"  {layer['name']:<{width}}  {layer['type']:<16} {shapes} {layer['parameters']:>12,}")


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape))


def _show_plan(recipe: Recipe, schedule: Schedule, places: Places, as_json: bool) -> None:
    from dataclasses import asdict

    from mmdgen.dataset.manifest import read_manifest
    from mmdgen.train.checkpoint import last_checkpoint
    from mmdgen.train.networks import empty_network, parameter_count
    from mmdgen.train.start import check_same, identify

    options = recipe.options
    folder = places.run / options.network
    identity = identify(recipe, places.data)
    check_same(folder, identity)
    manifest = read_manifest(places.data)
    kept = last_checkpoint(folder)
    plan: dict[str, Any] = {
        "folder": str(folder),
        "parameters": parameter_count(empty_network(options.network, options.preset)),
        "samples": {split: manifest.samples(split) for split in ("train", "validation")},
        "seen": int(kept.name) if kept else 0,
        "phases": [asdict(phase) for phase in options.phases],
        "schedule": asdict(schedule),
        **identity.to_json(),
    }
    if as_json:
        click.echo(json.dumps(plan, indent=2))
        return
    click.echo(
        f"{options.network}, preset {options.preset}: {plan['parameters']:,} parameters, {identity.image_size} pixels"
    )
    click.echo(f"dataset: {plan['samples']['train']:,} samples, {plan['samples']['validation']:,} for validation")
    for phase in options.phases:
        until = schedule.examples if phase.end is None else min(phase.end, schedule.examples)
        loss = "L1 and perceptual" if phase.perceptual else "L1"
        click.echo(f"to {until:,} examples: {loss}, batch {phase.batch} on {options.devices} device(s)")
    click.echo(f"seen already: {plan['seen']:,}" if kept else f"a new run in {folder}")
    click.echo("nothing was written (--dry-run)")


def _show_summary(summary: Summary, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2))
        return
    if not summary.steps:
        click.echo(f"{summary.examples:,} examples have been seen already; nothing was done")
    else:
        seen = summary.examples - summary.first
        click.echo(
            f"{summary.network}:  {summary.examples:,} examples seen, {seen:,} of them now in {summary.seconds:.0f} s, "
            f"{summary.rate:.1f} examples/s"
        )
    if summary.loss:
        click.echo("loss:  " + ", ".join(f"{name} {value:.5f}" for name, value in summary.loss.items()))
    for name, scores in summary.validation.items():
        click.echo(f"validation, {name}:  " + ", ".join(f"{key} {value:.5f}" for key, value in scores.items()))
    click.echo(f"run:  {summary.folder}")
