"""mmdgen report: one HTML page about a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mmdgen.cli.placing import PlaceType
from mmdgen.cli.progress import ProgressView
from mmdgen.cli.progress import option as progress_option
from mmdgen.dataset.remote import RemotePath
from mmdgen.generate.dataset_report import default_page, write_report


@click.command()
@click.argument("dataset", type=PlaceType())
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page [DATASET-report.html, beside the folder].",
)
@click.option("--json", "as_json", is_flag=True, help="Print what the page says, but for its pictures, as JSON.")
@progress_option
def command(dataset: Path | RemotePath, target: Path | None, as_json: bool, progress: str) -> None:
    """Write one HTML page about the dataset in the folder DATASET.

    It shows poses against their densities, samples, what pictures look wrong, models that are missing and why, sizes,
    timings, credits and terms. The page needs no other file and no script. An unfinished dataset is reported as far as
    it is there. The dataset itself is not touched.

    \b
    Examples:
      mmdgen report out/d
      mmdgen report out/d --out d.html
      mmdgen report out/d --json > d.json
    """
    if isinstance(dataset, RemotePath):
        raise click.UsageError(f"a report is made of a folder on this machine: copy {dataset} into one first")
    with ProgressView(progress) as view:
        page = target or default_page(dataset)
        facts = write_report(dataset, page, on_progress=view.report)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    if not facts["finished"]:
        click.echo("the dataset is not finished: the page tells of what is there")
    click.echo(f"report: {page}")
