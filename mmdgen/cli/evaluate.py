"""mmdgen evaluate: how good trained networks are."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from mmdgen.cli.extras import require_torch
from mmdgen.cli.progress import ProgressView
from mmdgen.cli.progress import option as progress_option
from mmdgen.dataset.schema import SPLITS
from mmdgen.errors import DatasetError
from mmdgen.fsio import write_atomic, write_json

JSON_FILE = "evaluation.json"
_NEEDED = ("torch", "torchmetrics", "safetensors")


@click.command()
@click.option("--run", type=click.Path(path_type=Path), required=True, help="The folder of the trained networks.")
@click.option("--rotator", type=click.Path(path_type=Path), help="Take the rotator from this run [--run].")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The dataset's folder.")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Score on this split.")
@click.option("--limit", type=click.IntRange(1), help="Use so many samples, evenly spaced in the split [all].")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Samples computed at a time.")
@click.option(
    "--workers", type=click.IntRange(0, 64), default=0, show_default=True, help="Processes that read; 0: none."
)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto: a GPU if there is one."
)
@click.option(
    "--lpips",
    default="auto",
    show_default=True,
    help="The file of VGG16's weights for LPIPS; auto: torchvision's cache, if they are there; off: no LPIPS.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write evaluation.json and grids here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@progress_option
def command(
    run: Path,
    rotator: Path | None,
    data: Path,
    split: str,
    limit: int | None,
    batch: int,
    workers: int,
    device: str,
    lpips: str,
    out: Path | None,
    as_json: bool,
    progress: str,
) -> None:
    """Score the networks of a run on pictures of a dataset.

    RMSE, MSE, SSIM and (if VGG16's weights are there) LPIPS, of each network on true inputs and of all three in a
    chain, beside two baselines: the given picture unchanged, and the true picture of the same character in the
    nearest pose. What is not in the run is left out, and said so. docs/evaluation.md explains every number.

    With --out also a grid of pictures for each task: samples drawn by lot (grey bar) and the worst ones (red bar).

    \b
    Examples:
      mmdgen evaluate --run out/run --data out/d --split validation
      mmdgen evaluate --run out/run --data out/d --limit 1000 --out out/scores
      mmdgen evaluate --run out/run --data out/d --json > scores.json
    """
    require_torch(_NEEDED, "evaluating")
    # Imported here: torch takes seconds, and `--help` must not need it.
    from mmdgen.train.comparison import columns, comparison_png
    from mmdgen.train.evaluate import RunNetworks, evaluate
    from mmdgen.train.lpips import find_lpips
    from mmdgen.train.poser import find_device
    from mmdgen.train.scores import table, to_json

    place = find_device(device)
    networks = RunNetworks(run, place, rotator)
    measure, note = find_lpips(lpips, place)
    with ProgressView(progress) as shown:
        evaluation = evaluate(
            networks,
            data,
            split,
            limit=limit,
            batch=batch,
            workers=workers,
            device=place,
            lpips=measure,
            lpips_note=note,
            progress=shown.evaluate,
        )
    value = to_json(evaluation) | {"run": str(run), "data": str(data), "networks": networks.describe()}
    written = []
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"{out}: cannot be made: {error.strerror or error}") from error
        write_json(out / JSON_FILE, value)
        for result in evaluation.results:
            path = out / f"{result.task.name}.png"
            write_atomic(path, comparison_png(networks, data, evaluation, result, place))
            legend = textwrap.wrap(" | ".join(columns(result)), 90, initial_indent="  ", subsequent_indent="  ")
            written += [f"grid: {path}", *legend]
    if as_json:
        click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False))
        return
    click.echo(table(evaluation))
    if out is not None:
        click.echo(f"\nscores: {out / JSON_FILE}")
        click.echo("\n".join([*written, "grey bar: samples drawn by lot; red bar: the worst of the last network"]))
