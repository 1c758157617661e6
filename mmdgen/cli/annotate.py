"""mmdgen annotate: the pages on which people check head bounds and eye morphs, and the same without a page."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import subprocess
import sys
import webbrowser
from collections import Counter
from pathlib import Path

import click

from mmdgen.annotate.store import KINDS, utc_now
from mmdgen.cli.annotate_files import FILE_COMMANDS
from mmdgen.cli.progress import ProgressView, interruptible
from mmdgen.cli.progress import option as progress_option
from mmdgen.cli.render import INTERRUPTED, default_annotations
from mmdgen.errors import ConfigError, MmdgenError
from mmdgen.formats.text import one_line
from mmdgen.generate.annotating import REJECTED, UNSURE, Found, annotate_folder
from mmdgen.generate.catalogue import OK

WEB_PACKAGES = ("starlette", "uvicorn", "websockets")


@click.group(invoke_without_command=True, commands=FILE_COMMANDS)
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder with .pmx and .pmd files, at any depth.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to store annotations in [annotations/ of the checkout, if there is one].",
)
@click.option("--annotator", help="Your name, stored with what you decide [git's user.name, else the login].")
@click.option("--kind", type=click.Choice(KINDS), help="The page to begin with; with --auto, what to store [both].")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on: another one only with --allow-host.",
)
@click.option(
    "--allow-host", multiple=True, help="A name under which the page may be reached from elsewhere; can be repeated."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0: any that is free.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser, only print the address.")
@click.option("--auto", is_flag=True, help="No page: find everything and store what is sure.")
@click.option("--all", "everything", is_flag=True, help="With --auto: store what is not sure, too.")
@click.option("--write", is_flag=True, help="With --auto --json: store, too, in the checkout's annotations/.")
@click.option("--dry-run", is_flag=True, help="With --auto: only say what would be stored.")
@click.option(
    "--no-check", is_flag=True, help="With --auto: do not check in pictures; needs no OpenGL, and is less sure."
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="With --auto: processes.")
@progress_option
@click.option("--json", "as_json", is_flag=True, help="With --auto: print a list with what was found about each model.")
@click.pass_context
def command(
    context: click.Context,
    models: Path | None,
    annotations: Path | None,
    annotator: str | None,
    kind: str | None,
    host: str,
    allow_host: tuple[str, ...],
    port: int,
    no_browser: bool,
    auto: bool,
    everything: bool,
    write: bool,
    dry_run: bool,
    no_check: bool,
    workers: int,
    progress: str,
    as_json: bool,
) -> None:
    """Check and correct what was found about your models: head bounds, and the morphs of eyes and mouth.

    Serves a page on this machine, filled in already, the least certain models first; the address with its secret is
    printed once. Everything is stored at once as one small JSON file a model and kind. Ctrl-C ends it.

    --auto finds everything without a page and stores what is sure (source auto), never over what a person has stored.
    With --json it prints a list: path, sha256, status (ok, unsure, rejected), reason, head_bounds, eyes and mouth_open
    of every model, as the machine finds them, whatever is stored. --auto --json stores nothing, unless you name the
    folder with --annotations or say --write.

    \b
    Examples:
      mmdgen annotate --models models
      mmdgen annotate --models models --annotations my-annotations --kind wink_morphs
      mmdgen annotate --models models --auto --dry-run
      mmdgen annotate --models models --auto --json > found.json
      mmdgen annotate validate annotations
      mmdgen annotate merge mine theirs --into annotations
      mmdgen annotate export annotations --format csv --out annotations.csv
      mmdgen annotate import annotations.csv --into annotations
    """
    if context.invoked_subcommand is not None:
        return
    if models is None:
        raise click.UsageError("say which models: --models DIR (or use a subcommand: validate, merge, export, import)")
    only_auto = {"--all": everything, "--write": write, "--dry-run": dry_run, "--no-check": no_check, "--json": as_json}
    if not auto and (given := [name for name, value in only_auto.items() if value]):
        raise click.UsageError(f"{', '.join(given)}: only with --auto")
    if write and dry_run:
        raise click.UsageError("--write and --dry-run contradict each other")
    folder = annotations or default_annotations()
    stores = not auto or not as_json or write or dry_run or annotations is not None
    if not stores:
        folder = None
    elif folder is None:
        raise click.UsageError("this is no checkout with a folder annotations/: name one with --annotations DIR")
    try:
        if auto:
            kinds = (kind,) if kind else KINDS
            view = ProgressView(progress)
            with interruptible(), view:
                found = annotate_folder(
                    models,
                    folder,
                    kinds=kinds,
                    everything=everything,
                    dry_run=dry_run,
                    check=not no_check,
                    workers=workers,
                    time=utc_now(),
                    on_progress=view.annotate,
                    on_warning=view.warn,
                )
            _show(found, folder, dry_run, as_json)
            return
        if folder is not None:
            _serve(models, folder, annotator or default_annotator(), kind, host, allow_host, port, not no_browser)
    except KeyboardInterrupt:
        click.echo("mmdgen: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except MmdgenError as error:
        click.echo(f"mmdgen: {error}", err=True)
        sys.exit(1)


def default_annotator() -> str:
    """Return git's user.name, else the login, else a word for nobody in particular."""
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, timeout=10, check=False)
        name = done.stdout.decode("utf-8", "replace").strip()
    except (OSError, subprocess.TimeoutExpired):
        name = ""
    try:
        return name or getpass.getuser()
    except (OSError, KeyError):  # no such user on this system
        return "somebody"


def missing_packages() -> list[str]:
    """Return which of the packages that serve the page are not installed."""
    return [name for name in WEB_PACKAGES if importlib.util.find_spec(name) is None]


def has_display() -> bool:
    """Return whether opening a browser makes sense: a screen, and no remote shell."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _serve(
    models: Path,
    folder: Path,
    annotator: str,
    kind: str | None,
    host: str,
    allow_host: tuple[str, ...],
    port: int,
    browser: bool,
) -> None:
    missing = missing_packages()
    if missing:
        raise ConfigError(f"the page needs {', '.join(missing)}: pip install 'mmdgen[web]'")
    from mmdgen.web.server import serve

    def ready(address: str) -> None:
        click.echo(f"annotating {models} as {annotator}; stored in {folder}")
        click.echo(f"open this address (it holds a secret): {address}")
        click.echo("Ctrl-C ends; everything is saved as you go")
        if browser and has_display():
            webbrowser.open(address)

    serve(
        models,
        folder,
        annotator=annotator,
        kind=kind or KINDS[0],
        host=host,
        port=port,
        allowed=allow_host,
        on_ready=ready,
    )
    click.echo("ended")


def _show(found: list[Found], folder: Path | None, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([item.to_json() for item in found], indent=2, ensure_ascii=False))
        return
    click.echo(f"{'status':<9}{'bounds':>7}{'eyes':>6}  path")
    for item in found:
        shown = f"{'':>7}{'':>6}"
        if item.annotation is not None:
            shown = f"{item.annotation.bounds.confidence:>7.2f}{item.annotation.eyes.confidence:>6.2f}"
        click.echo(f"{item.status:<9}{shown}  {one_line(item.path)}")
        if item.reason:
            click.echo(f"{'':<22}  {item.reason}")
    counts = Counter(item.status for item in found)
    click.echo(f"{len(found)} models: " + ", ".join(f"{counts[status]} {status}" for status in (OK, UNSURE, REJECTED)))
    stored = Counter(kind for item in found for kind in item.stored)
    what = ", ".join(f"{stored[kind]} {kind}" for kind in KINDS)
    click.echo(f"{'would be stored' if dry_run else 'stored'} in {folder}: {what}")
