"""The options of `render` and `scan` that say which models may be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mmdgen.errors import ConfigError
from mmdgen.generate.lists import Gate, check_hints, read_list
from mmdgen.generate.provenance import HINTS


class Hints(click.ParamType):
    """Names of hints with commas between them."""

    name = "HINT,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return check_hints([name for name in (part.strip() for part in str(value).split(",")) if name], HINTS)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --deny, --allow and --deny-hints to a command."""
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for option in (
        click.option(
            "--deny-hints",
            type=Hints(),
            default=(),
            help=f"Leave out models whose terms of use hint at one of these: {', '.join(HINTS)}.",
        ),
        click.option("--allow", type=file, help="Use only the models whose SHA-256 this text file lists, one a line."),
        click.option("--deny", type=file, help="Leave out the models whose SHA-256 this text file lists, one a line."),
    ):
        command = option(command)
    return command


def make_gate(deny: Path | None, allow: Path | None, deny_hints: tuple[str, ...]) -> Gate:
    """Return what the options let through. Raises `ConfigError` for a list that cannot be read."""
    return Gate(read_list(deny) if deny else None, read_list(allow, whole=True) if allow else None, deny_hints)
