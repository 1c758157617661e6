"""mmdgen scan: which models of a folder are usable, and why not the others."""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import asdict
from pathlib import Path

import click

from mmdgen.cli.lists import list_options, make_gate
from mmdgen.cli.progress import ProgressView, interruptible
from mmdgen.cli.progress import option as progress_option
from mmdgen.cli.render import INTERRUPTED, default_annotations
from mmdgen.formats.text import one_line
from mmdgen.generate.catalogue import OK, REPAIRED, Catalogue, Rejection, UsableModel, scan
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
@click.option("--include-unsure", is_flag=True, help="Count models whose automatic annotation is not sure as usable.")
@list_options
@click.option("--no-check", is_flag=True, help="Do not check eye and mouth morphs in pictures: needs no OpenGL.")
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known as JSON.")
def command(
    models: Path,
    annotations: Path | None,
    workers: int,
    limit: int | None,
    include_unsure: bool,
    deny: Path | None,
    allow: Path | None,
    deny_hints: tuple[str, ...],
    no_check: bool,
    progress: str,
    as_json: bool,
) -> None:
    """Say which models of a folder can be used, and why not the others.

    Every file is ok, repaired (below it stands what was found, and how often) or rejected (with the one reason). What
    the codes mean, and what can be done, is in docs/diagnostics.md; --json has every single repair.

    Head bounds and eye and mouth morphs are people's where somebody has stored them, else automatic where they are
    sure. Models about which the machine is not sure are rejected as unsure_head_bounds or unsure_eyes, with the
    confidence and the reason: mmdgen annotate shows them to you.

    Exits with 0 when at least one can be used, however many cannot, and with 1 when none can.

    \b
    Examples:
      mmdgen scan --models models
      mmdgen scan --models models --json > models.json
      mmdgen scan --models models --deny denied.txt --deny-hints no_ai,r18
    """
    view = ProgressView(progress)
    gate = make_gate(deny, allow, deny_hints)
    try:
        with interruptible(), view:
            found = scan(
                models,
                annotations or default_annotations(),
                workers=workers,
                limit=limit,
                include_unsure=include_unsure,
                check=not no_check,
                gate=gate,
                on_progress=view.scan,
                on_warning=view.warn,
            )
            for warning in gate.warnings(found) if limit is None else ():
                view.warn(warning)
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


def repair_counts(found: Catalogue) -> dict[str, dict[str, int]]:
    """Return for each code of a repair how many usable models have it and how often it was found, most models first."""
    counts: dict[str, dict[str, int]] = {}
    for model in found.models:
        for code, number in model.diagnostics.items():
            row = counts.setdefault(code, {"models": 0, "found": 0})
            row["models"] += 1
            row["found"] += number
    return dict(sorted(counts.items(), key=lambda item: (-item[1]["models"], item[0])))


def _json(found: Catalogue) -> str:
    rows = [
        {
            **model.to_json(),
            "comment": model.provenance.get("comment", ""),
            "reasons": model.reasons,
            "repairs": [asdict(repair) for repair in model.repairs],
        }
        for model in found.models
    ]
    statuses = {
        "ok": sum(model.status == OK for model in found.models),
        "repaired": sum(model.status == REPAIRED for model in found.models),
        "rejected": len(found.rejected),
    }
    value = {
        "usable": rows,
        "rejected": [{"status": "rejected", **asdict(rejection)} for rejection in found.rejected],
        "statuses": statuses,
        "repairs": repair_counts(found),
        "reasons": found.reasons(),
    }
    return json.dumps(json.loads(json_line(value)), indent=2, ensure_ascii=True)


def _table(found: Catalogue) -> None:
    rows: list[UsableModel | Rejection] = [*found.models, *found.rejected]
    click.echo(f"{'status':<9}{'confidence':>10} {'vertices':>9}  {_fit('name', NAME_WIDTH)}  path")
    for row in sorted(rows, key=lambda row: row.path):
        path = one_line(row.path)
        if isinstance(row, UsableModel):
            name = _fit(one_line(row.name), NAME_WIDTH)
            click.echo(f"{row.status:<9}{row.confidence:>10.2f} {row.vertices:>9,}  {name}  {path}")
            if row.diagnostics:
                click.echo(f"{'':<30}  {_counts(row.diagnostics)}")
        else:
            click.echo(f"{'rejected':<9}{'':>10} {'':>9}  {_fit(row.code, NAME_WIDTH)}  {path}")
            click.echo(f"{'':<30}  {one_line(row.message)}")
    repaired = sum(model.status == REPAIRED for model in found.models)
    click.echo(f"{len(found.models)} usable ({repaired} of them repaired), {len(found.rejected)} rejected")
    repairs = {code: row["models"] for code, row in repair_counts(found).items()}
    for title, counts in (("repaired", repairs), ("rejected", found.reasons())):
        if counts:
            click.echo(f"{title}, models by code: {_counts(counts)}")


def _counts(counts: dict[str, int]) -> str:
    """Return such as ``bone_cycle 1, weight_zero 3``."""
    return ", ".join(f"{code} {count}" for code, count in counts.items())


def _fit(text: str, width: int) -> str:
    """Pad or cut to `width` columns; East Asian characters take two."""
    result, used = "", 0
    for character in text:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used + columns > width:
            break
        result, used = result + character, used + columns
    return result + " " * (width - used)
