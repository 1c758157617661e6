"""mmdgen verify: check a dataset."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mmdgen.cli.placing import PlaceType
from mmdgen.cli.progress import ProgressView
from mmdgen.cli.progress import option as progress_option
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.verify import VerifyReport, verify_dataset

PROBLEMS_SHOWN = 50


@click.command()
@click.argument("out", type=PlaceType())
@click.option("--quick", is_flag=True, help="Do not hash the shards; decode only the first and last images of each.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Shards checked side by side."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@progress_option
def command(out: Path | RemotePath, quick: bool, workers: int, as_json: bool, progress: str) -> None:
    """Check the dataset in folder OUT, or at an URL: hashes, shapes, counts, ranges, splits, pictures.

    Exits with 0 when all is well, and with 1 and a line for each problem when it is not.

    \b
    Examples:
      mmdgen verify out/d
      mmdgen verify out/d --quick
      mmdgen verify out/d --json > report.json
    """
    with ProgressView(progress) as view:
        report = verify_dataset(out, quick, workers=workers, progress=view.verify)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    elif report.ok:
        click.echo(f"{out}: ok: {_counts(report)}")
    else:
        for problem in report.problems[:PROBLEMS_SHOWN]:
            click.echo(str(problem))
        if len(report.problems) > PROBLEMS_SHOWN:
            click.echo(f"... and {len(report.problems) - PROBLEMS_SHOWN} more (--json lists all)")
        click.echo(f"{out}: {len(report.problems)} problems: {_counts(report)}")
    if not report.ok:
        sys.exit(1)


def _counts(report: VerifyReport) -> str:
    splits = ", ".join(f"{split} {count}" for split, count in report.samples.items() if count)
    depth = "the first and last images of each decoded" if report.quick else f"{report.images} images decoded"
    total = sum(report.samples.values())
    return (
        f"{report.shards} shards, {total} samples ({splits or 'none'}) of {report.models} models, "
        f"{report.bytes / 1e6:.1f} MB, {depth}"
    )
