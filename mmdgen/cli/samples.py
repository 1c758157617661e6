"""`mmdgen samples`: write procedural characters."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from tqdm import tqdm

from mmdgen.samples.library import write_characters


@click.command(
    "samples",
    epilog="""\b
Examples:
  mmdgen samples out/characters                     64 characters, seeds 0 to 63
  mmdgen samples out/more --count 8 --seed 1000     seeds 1000 to 1007
  mmdgen samples out/characters --json              one JSON object on stdout
  mmdgen render --models out/characters --poses 500 --out out/d
""",
)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", default=64, show_default=True, type=click.IntRange(min=0), help="How many characters.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of the first one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: the folder and the PMX files.")
def command(out: Path, count: int, seed: int, as_json: bool) -> None:
    """Write procedural anime characters as PMX models with textures below OUT.

    A character is a function of its seed. Those that are there already are kept, so the same command can be run again
    after an interruption. Each folder holds the model, its textures, a readme (CC0) and truth.json: what is exactly
    known about it (chin, skull top, eye and mouth morphs). Nobody's work is inside: use them for anything.
    """
    with tqdm(total=count, unit="character", disable=not sys.stderr.isatty(), file=sys.stderr) as progress:

        def advance(_: Path) -> None:
            progress.update()

        paths = write_characters(out, count, seed, on_done=advance)
    if as_json:
        click.echo(json.dumps({"folder": str(out), "models": [str(path) for path in paths]}, ensure_ascii=False))
    elif paths:
        click.echo(f"{len(paths)} characters in {out}: {paths[0].relative_to(out)} ... {paths[-1].relative_to(out)}")
    else:
        click.echo(f"nothing to write: --count {count}")
