"""mmdgen preview: a contact sheet of a dataset."""

from __future__ import annotations

from pathlib import Path

import click

from mmdgen.dataset.preview import contact_sheet
from mmdgen.dataset.schema import PREVIEW_FILE, SPLITS
from mmdgen.fsio import write_atomic


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--out", "picture", type=click.Path(path_type=Path, dir_okay=False), help="The PNG file [OUT/preview.png]."
)
@click.option("--rows", type=click.IntRange(1), default=8, show_default=True, help="Rows of the sheet.")
@click.option("--columns", type=click.IntRange(1), default=2, show_default=True, help="Triples side by side.")
@click.option("--split", type=click.Choice(SPLITS), help="Show this split [the first that has samples].")
def command(out: Path, picture: Path | None, rows: int, columns: int, split: str | None) -> None:
    """Make a contact sheet of the dataset in folder OUT: rest, expression and posed image of varied samples.

    \b
    Examples:
      mmdgen preview out/d
      mmdgen preview out/d --split validation --rows 4 --out validation.png
    """
    target = out / PREVIEW_FILE if picture is None else picture
    write_atomic(target, contact_sheet(out, rows=rows, columns=columns, split=split))
    click.echo(f"contact sheet: {target}")
