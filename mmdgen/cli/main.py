"""The `mmdgen` command: finds the command's module only when it is asked for, so that starting stays quick."""

from __future__ import annotations

import importlib
import sys

import click

from mmdgen import __version__
from mmdgen.errors import MmdgenError
from mmdgen.render.gl_setup import restart_with_unpacked

# name -> (module, one line for the list of commands)
COMMANDS = {
    "doctor": ("mmdgen.cli.doctor", "Check this machine: a real render, GL devices, versions, what to install."),
    "samples": ("mmdgen.cli.samples", "Write procedural anime characters as PMX files."),
    "scan": ("mmdgen.cli.scan", "Say which models of a folder are usable, and why not."),
    "annotate": ("mmdgen.cli.annotate", "Check and correct what was found about the models, on a page; or fill it in."),
    "render": ("mmdgen.cli.render", "Render a dataset from a folder of models."),
    "merge": ("mmdgen.cli.merge", "Join the parts that render --part made, and finish the dataset."),
    "draw": ("mmdgen.cli.draw", "Draw one picture of one model in one pose."),
    "pose": ("mmdgen.cli.pose", "Pose a picture with trained networks: one picture, a film, or live on a page."),
    "inspect": ("mmdgen.cli.inspect", "Show what a model or a shard contains."),
    "preview": ("mmdgen.cli.preview", "Make a contact sheet of a dataset."),
    "report": ("mmdgen.cli.report", "Write one HTML page about a dataset: poses, pictures, failures, sizes, timings."),
    "verify": ("mmdgen.cli.verify", "Check a dataset: hashes, shapes, ranges, splits."),
    "export": ("mmdgen.cli.export", "Export a dataset as Parquet (Hugging Face), WebDataset tar files or PNG files."),
    "remove-model": ("mmdgen.cli.remove", "Take models out of a finished dataset, by hash."),
    "evaluate": ("mmdgen.cli.evaluate", "Score trained networks on a dataset, beside simple baselines."),
    "train": ("mmdgen.cli.train", "Train the article's networks on a dataset."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use. Each module has a click command named `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(COMMANDS[cmd_name][0]).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="mmdgen")
def cli() -> None:
    """From MikuMikuDance models to a training dataset of posed anime heads.

    \b
    Examples:
      mmdgen render --poses 1000                    a dataset from procedural characters
      mmdgen render --models DIR --poses 500000     a dataset from your own models
      mmdgen doctor                                 is this machine ready?
    """


def main() -> None:
    """Run the command line: errors of mmdgen become one line and exit status 1, wrong usage exits with 2."""
    restart_with_unpacked()  # where `doctor --fix` unpacked OpenGL, it has to be known before the process starts
    try:
        cli(standalone_mode=True)
    except MmdgenError as error:
        click.echo(f"mmdgen: {error}", err=True)
        sys.exit(1)
