"""mmdgen remove-model: take models out of a finished dataset."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from mmdgen.cli.placing import PlaceType
from mmdgen.cli.progress import ProgressView, interruptible
from mmdgen.cli.progress import option as progress_option
from mmdgen.dataset.remote import RemotePath
from mmdgen.formats.text import one_line
from mmdgen.generate.lists import read_list
from mmdgen.generate.removal import Removal, find_removal, models_on_list, remove_models

INTERRUPTED = 130


@click.command()
@click.argument("dataset", type=PlaceType())
@click.argument("hashes", metavar="[HASH]...", nargs=-1)
@click.option(
    "--deny",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take out every model whose SHA-256 this text file lists, one a line, as for mmdgen render.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go; change nothing.")
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print what went as JSON.")
def command(
    dataset: Path | RemotePath,
    hashes: tuple[str, ...],
    deny: Path | None,
    dry_run: bool,
    progress: str,
    as_json: bool,
) -> None:
    """Take models out of the finished dataset in the folder DATASET: because their authors ask for it, for example.

    A HASH is the SHA-256 of the model's file, or its first 8 digits or more: manifest.json and README.md list them.
    The shards with the model are written anew without it, its pictures, name, path and texts leave every file, and only
    the hash stays, as removed. The other samples are the same bytes as before, under new numbers. Rendering into the
    folder again does not bring it back. Ctrl-C or a crash in between: the same command goes on.

    \b
    Examples:
      mmdgen remove-model out/d 1f2e3d4c5b6a7988
      mmdgen remove-model out/d 1f2e3d4c 99aabbcc --dry-run
      mmdgen remove-model out/d --deny denied.txt
    """
    if isinstance(dataset, RemotePath):
        raise click.UsageError("models are taken out of local folders only: copy the dataset to a disk and back")
    if not hashes and deny is None:
        raise click.UsageError("which model? Give the hash of its file, or a list of hashes with --deny")
    if deny is not None:
        hashes += models_on_list(dataset, read_list(deny))
    if dry_run:
        _show(find_removal(dataset, hashes), as_json, dry_run)
        return
    view = ProgressView(progress)
    try:
        with interruptible(), view:
            removal = remove_models(dataset, hashes, progress=view.remove)
    except KeyboardInterrupt:
        again = shlex.join(["mmdgen", *sys.argv[1:]])
        click.echo(f"mmdgen: interrupted; the same command goes on:\n  {again}", err=True)
        sys.exit(INTERRUPTED)
    _show(removal, as_json, dry_run)


def _show(removal: Removal, as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(json.dumps({**removal.to_json(), "dry_run": dry_run}, indent=2, ensure_ascii=False))
        return
    for sha256 in removal.already:
        click.echo(f"{sha256[:16]} was removed before")
    if removal.models:
        told = ", ".join(f"{split} {count:,}" for split, count in removal.samples.items() if count) or "no sample"
        verb = "would go" if dry_run else "removed"
        count = len(removal.models)
        click.echo(
            f"{verb}: {count} model{'s' if count > 1 else ''} with {sum(removal.samples.values()):,} samples ({told}) "
            f"in {len(removal.shards)} shard{'' if len(removal.shards) == 1 else 's'} of {removal.out}"
        )
        for sha256 in removal.models:
            click.echo(f"  {sha256}  {one_line(removal.names.get(sha256, '(not in any picture)'))}")
        for split, left in removal.left.items():
            if not left:
                click.echo(f"the {split} split {'would have' if dry_run else 'has'} no sample left")
        click.echo("so that no later dataset has them, put these hashes on a list for mmdgen render --deny FILE")
    elif not removal.already:
        click.echo(f"no model on the list is in {removal.out}: nothing had to be done")
    for path in removal.copies:
        click.echo(f"this still has them: delete it and make it again: {path}")
    if dry_run:
        click.echo("nothing was changed (--dry-run)")
