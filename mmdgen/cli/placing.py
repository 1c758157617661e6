"""Where a dataset goes and which part of it is made: options of `render` and `merge`, and what they say at the end."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mmdgen.dataset.remote import RemotePath, is_url, location
from mmdgen.errors import MmdgenError
from mmdgen.generate.parts import PartOf, parse_part
from mmdgen.generate.remote import Place, RemotePlace
from mmdgen.generate.run import PartSummary

F = TypeVar("F", bound=Callable[..., Any])


class PlaceType(click.ParamType):
    """A folder, or the URL of one in an object store."""

    name = "FOLDER|URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | RemotePath:
        try:
            place = location(value)
            if isinstance(place, RemotePath):
                place.check()
            return place
        except MmdgenError as error:
            self.fail(str(error), param, ctx)


class PartType(click.ParamType):
    """i/n, auto or auto/n."""

    name = "i/n|auto[/n]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PartOf:
        if isinstance(value, PartOf):
            return value
        try:
            return parse_part(str(value), os.environ)
        except MmdgenError as error:
            self.fail(str(error), param, ctx)


staging_option = click.option(
    "--staging",
    type=click.Path(path_type=Path, file_okay=False),
    help="For an URL: the local folder in which shards are made before they are uploaded [in the user's cache].",
)


def part_options(command: F) -> F:
    """Add --part and --plan-only to a command."""
    for option in (
        click.option(
            "--plan-only",
            is_flag=True,
            help="Freeze the plan in --out and stop: once, before the tasks of a job array start.",
        ),
        click.option(
            "--part",
            type=PartType(),
            help="Render only the shards i, i+n, ... (i from 1). auto: as Slurm or Grid Engine say; auto/n: PBS, too. "
            "Then: mmdgen merge.",
        ),
    ):
        command = option(command)
    return command


def place_for(out: Path | RemotePath, staging: Path | None) -> Place:
    """Return the place that `--out` and `--staging` name. Raises `click.UsageError`."""
    if isinstance(out, RemotePath):
        return RemotePlace(out, staging or default_staging(out.url))
    if staging is not None:
        raise click.UsageError(f"--staging is for an URL, and {out} is a folder")
    return Place(out)


def default_staging(url: str) -> Path:
    """Return the staging folder of an URL: in the user's cache, another one for each URL."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    name = re.sub(r"[^A-Za-z0-9]+", "-", url.rpartition("/")[2])[:40]
    return Path(cache) / "mmdgen" / "staging" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def show_part(summary: PartSummary, as_json: bool) -> None:
    """Say what a part has left, and what finishes the dataset."""
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
        return
    if summary.dataset_complete:
        click.echo(f"part {summary.part}: the dataset in {summary.out} is complete already; nothing was done")
        return
    if not summary.own:
        click.echo(f"part {summary.part}: the plan has {summary.shards} shards, and none of them is this part's")
    elif summary.complete:
        click.echo(f"part {summary.part}: all its shards were there already; nothing was done")
    else:
        click.echo(
            f"part {summary.part}:  {summary.own} shard{'s' if summary.own > 1 else ''}, {summary.images:,} images, "
            f"{summary.bytes / 1e6:,.1f} MB in {summary.out}"
        )
    if summary.drawn:
        click.echo(f"speed:     {summary.drawn:,} images in {summary.seconds:.1f} s, {summary.rate:.1f} images/s")
    if summary.failed:
        reasons = ", ".join(f"{code} {count}" for code, count in summary.failed.items())
        click.echo(f"left out:  {reasons}  (a later start tries them again)")
    if summary.done < summary.shards:
        click.echo(f"dataset:   {summary.done} of {summary.shards} shards are in {summary.out}; it is not finished")
        click.echo("           when all parts are done: mmdgen merge OUT, or mmdgen merge --out OUT FOLDER...")
    else:
        click.echo(f"dataset:   all {summary.shards} shards are there; it is not finished yet. To finish it:")
        click.echo(f"           mmdgen merge {summary.out}    (or this command without --part)")


def is_finished(place: Place) -> bool:
    """Return whether a local dataset has been finished; an object store is not asked, for it may not answer."""
    return not is_url(place.root) and (place.folder / "manifest.json").exists()
