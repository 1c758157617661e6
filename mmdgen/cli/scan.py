"""mmdgen scan: which models of a folder are usable, and why not the others."""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import asdict
from pathlib import Path

import click

from mmdgen.cli.progress import ProgressView, interruptible
from mmdgen.cli.progress import option as progress_option
from mmdgen.cli.render import INTERRUPTED, default_annotations
from mmdgen.generate.catalogue import Catalogue, Rejection, UsableModel, scan
from mmdgen.generate.provenance import json_line

NAME_WIDTH = 24


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The folder with .pmx and .pmd files, at any depth.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of stored annotations [annotations/ of the checkout, if there is one].",
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many usable models.")
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known as JSON.")
def command(
    models: Path, annotations: Path | None, workers: int, limit: int | None, progress: str, as_json: bool
) -> None:
    """Say which models of a folder can be used, and why not the others.

    Exits with 0 when at least one can be used, however many cannot, and with 1 when none can.

    \b
    Examples:
      mmdgen scan --models models
      mmdgen scan --models models --json > models.json
    """
    view = ProgressView(progress)
    try:
        with interruptible(), view:
            found = scan(
                models, annotations or default_annotations(), workers=workers, limit=limit, on_progress=view.scan
            )
    except KeyboardInterrupt:
        click.echo("mmdgen: interrupted", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(_json(found))
    else:
        _table(found)
    if not found.models:
        click.echo(f"mmdgen: no usable model in {models}", err=True)
        sys.exit(1)


def _json(found: Catalogue) -> str:
    rows = [{**model.to_json(), "comment": model.provenance.get("comment", "")} for model in found.models]
    value = {
        "usable": rows,
        "rejected": [asdict(rejection) for rejection in found.rejected],
        "reasons": found.reasons(),
    }
    return json.dumps(json.loads(json_line(value)), indent=2, ensure_ascii=True)


def _table(found: Catalogue) -> None:
    rows: list[UsableModel | Rejection] = [*found.models, *found.rejected]
    click.echo(f"{'status':<9}{'confidence':>10} {'vertices':>9}  {_fit('name', NAME_WIDTH)}  path")
    for row in sorted(rows, key=lambda row: row.path):
        path = printable(row.path)
        if isinstance(row, UsableModel):
            name = _fit(printable(row.name), NAME_WIDTH)
            click.echo(f"{row.status:<9}{row.confidence:>10.2f} {row.vertices:>9,}  {name}  {path}")
        else:
            click.echo(f"{'rejected':<9}{'':>10} {'':>9}  {_fit(row.code, NAME_WIDTH)}  {path}")
            click.echo(f"{'':<30}  {printable(row.message)}")
    repaired = sum(model.status == "repaired" for model in found.models)
    reasons = ", ".join(f"{code} {count}" for code, count in found.reasons().items())
    click.echo(
        f"{len(found.models)} usable ({repaired} of them repaired), {len(found.rejected)} rejected"
        + (f": {reasons}" if reasons else "")
    )


def printable(text: str) -> str:
    """Return text that any terminal takes: one line, no control characters, no lone surrogates of odd file names."""
    plain = "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)
    return plain.encode("utf-8", "backslashreplace").decode("utf-8")


def _fit(text: str, width: int) -> str:
    """Pad or cut to `width` columns; East Asian characters take two."""
    result, used = "", 0
    for character in text:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used + columns > width:
            break
        result, used = result + character, used + columns
    return result + " " * (width - used)
