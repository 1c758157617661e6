"""mmdgen export: a dataset in the formats of other tools."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from mmdgen.cli.placing import PlaceType
from mmdgen.cli.progress import ProgressView, interruptible
from mmdgen.cli.progress import option as progress_option
from mmdgen.dataset.export import (
    FORMATS,
    PNG,
    ExportOptions,
    Summary,
    default_out,
    export_dataset,
    look_at,
    plan_export,
)
from mmdgen.dataset.export_estimate import estimated_bytes
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.schema import SPLITS
from mmdgen.generate.engine import default_workers

INTERRUPTED = 130


@click.command()
@click.argument("format", type=click.Choice(FORMATS))
@click.argument("dataset", type=PlaceType())
@click.option(
    "--out", type=PlaceType(), metavar="FOLDER", help="The export's folder [DATASET-FORMAT, beside the dataset]."
)
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Only this split; may be repeated.")
@click.option("--limit", type=click.IntRange(1), help="Only so many samples of each split, the first ones.")
@click.option("--shard-size", type=click.IntRange(1), help="Samples a file [as the dataset's shards; not for png].")
@click.option("--workers", type=click.IntRange(1, 512), help="Threads [one a core].")
@click.option("--dry-run", is_flag=True, help="Only say what would be exported; write nothing.")
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    format: str,
    dataset: Path | RemotePath,
    out: Path | RemotePath | None,
    splits: tuple[str, ...],
    limit: int | None,
    shard_size: int | None,
    workers: int | None,
    dry_run: bool,
    progress: str,
    as_json: bool,
) -> None:
    """Export the finished dataset in the folder DATASET, or at an URL, for other tools.

    \b
    parquet     Hugging Face: `datasets.load_dataset(FOLDER)` gives pictures; needs pip install 'mmdgen[export]'
    webdataset  tar files for the webdataset package
    png         plain PNG files and a table; loads as Hugging Face image folder, too

    The authors' words about their models (provenance.jsonl) and a card go with every export. Ctrl-C, a crash or a full
    disk lose only what was being written: the same command goes on.

    \b
    Examples:
      mmdgen export parquet out/d
      mmdgen export webdataset out/d --shard-size 5000 --out out/tars
      mmdgen export png out/d --split validation --limit 100
    """
    if shard_size and format == "png":
        raise click.UsageError("--shard-size is for parquet and webdataset: png has one file a picture")
    if isinstance(out, RemotePath):
        raise click.UsageError("an export goes into a folder here, not to an URL: copy it to the object store later")
    options = ExportOptions(format, splits, limit, shard_size or 0)
    target = default_out(dataset, format) if out is None else out
    if dry_run:
        _show_plan(dataset, target, options, as_json)
        return
    view = ProgressView(progress)
    try:
        with interruptible(), view:
            summary = export_dataset(
                dataset, target, options, workers=workers or default_workers(), progress=view.export
            )
    except KeyboardInterrupt:
        again = shlex.join(["mmdgen", *sys.argv[1:]])
        click.echo(f"mmdgen: interrupted. What is finished is kept; the same command goes on:\n  {again}", err=True)
        sys.exit(INTERRUPTED)
    _show(summary, as_json)


def _show_plan(dataset: Path | RemotePath, out: Path, options: ExportOptions, as_json: bool) -> None:
    plan = plan_export(dataset, options)
    finished = look_at(dataset, out, plan)
    if finished is not None:
        _show(finished, as_json)
        return
    listed = 2 * len(plan.samples) if options.format == PNG else len(plan.jobs)
    size = estimated_bytes(dataset, plan.manifest, options.format, plan.samples, listed)
    if as_json:
        value = {"out": str(out), "samples": plan.samples, "files": listed, "estimated_bytes": size, "complete": False}
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    told = ", ".join(f"{split} {count:,}" for split, count in plan.samples.items())
    click.echo(f"{options.format}: {told} samples in {out}, about {size / 1e6:,.1f} MB")
    click.echo("nothing was written (--dry-run)")


def _show(summary: Summary, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
        return
    if summary.complete:
        click.echo("the export is complete already; nothing was done")
    told = ", ".join(f"{split} {count:,}" for split, count in summary.samples.items())
    click.echo(
        f"{summary.format}: {summary.out}  ({told} samples of {summary.models:,} models, {summary.bytes / 1e6:,.1f} MB)"
    )
    if summary.made and summary.seconds > 0:
        rate = summary.made / summary.seconds
        click.echo(f"speed: {summary.made:,} samples in {summary.seconds:.1f} s, {rate:,.1f} samples/s")
