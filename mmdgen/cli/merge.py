"""mmdgen merge: one dataset from parts of it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mmdgen.cli.placing import PlaceType, place_for, staging_option
from mmdgen.cli.progress import ProgressView, interruptible
from mmdgen.cli.progress import option as progress_option
from mmdgen.cli.render import INTERRUPTED, show_summary
from mmdgen.dataset.remote import RemotePath
from mmdgen.errors import MmdgenError
from mmdgen.generate.merge import merge


@click.command()
@click.argument("folders", nargs=-1, required=True, type=PlaceType())
@click.option("--out", type=PlaceType(), help="The folder of the dataset [FOLDER, if there is one only].")
@staging_option
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    folders: tuple[Path | RemotePath, ...],
    out: Path | RemotePath | None,
    staging: Path | None,
    progress: str,
    as_json: bool,
) -> None:
    """Join the parts that `mmdgen render --part` made, and finish the dataset.

    With one FOLDER, into which all parts wrote, it is finished in place. With --out the shards of all FOLDERs are
    joined there: as hard links where that is possible, else as copies, checked by their SHA-256. What is joined must
    come from the same plan and be complete; what is in several folders must be the same. The result is byte for byte
    what one `mmdgen render` makes. Inputs are only read. Folders may be URLs (s3://...), too: with --out a local
    folder, a dataset is downloaded.

    Exits with 0 when the dataset is complete, 1 on errors (missing shards are listed, with the parts to run again), 2
    on wrong usage and 130 when interrupted; the same command goes on.

    \b
    Examples:
      mmdgen merge out/d
      mmdgen merge --out out/d parts/1 parts/2 parts/3
      mmdgen merge --out out/d s3://bucket/d
    """
    if out is None:
        if len(folders) > 1:
            raise click.UsageError("say where the dataset goes: --out FOLDER")
        out = next(iter(folders))
    view = ProgressView(progress)
    try:
        with interruptible(), view:
            summary = merge(folders, place_for(out, staging), on_progress=view.merge)
    except KeyboardInterrupt:
        click.echo("mmdgen: interrupted. The inputs are as they were; the same command goes on", err=True)
        sys.exit(INTERRUPTED)
    except MmdgenError as error:
        click.echo(f"mmdgen: {error}", err=True)
        sys.exit(1)
    show_summary(summary, as_json)
