"""The options of commands that say who works: `--engine` and `--ray-address`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from mmdgen.cli.extras import require
from mmdgen.generate.run import ENGINES, LOCAL, RAY, Engine
from mmdgen.render.devices import AUTO, Choice


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--engine` and `--ray-address` to a command, which gets `engine` and `ray_address`; see `chosen_engine`."""
    command = click.option(
        "--ray-address",
        metavar="HOST:PORT|auto|local",
        help="The Ray cluster to join [RAY_ADDRESS; without it, one of this machine alone].",
    )(command)
    return click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default=LOCAL,
        show_default=True,
        help="Who draws: this machine, or those of a Ray cluster, which must all see --models and --out.",
    )(command)


def check_engine(engine: str, ray_address: str | None, device: Choice) -> None:
    """Raise `click.UsageError` where the options do not go together, before anything is scanned for nothing."""
    if engine != RAY and ray_address is not None:
        raise click.UsageError("--ray-address is for --engine ray")
    if engine == RAY and device not in (None, AUTO):
        raise click.UsageError("with --engine ray it is Ray that gives out the GPUs: leave out --device")


def chosen_engine(engine: str, ray_address: str | None) -> str | Engine:
    """Return the engine for `run`. Raises `ConfigError` where Ray is missing or not there."""
    if engine != RAY:
        return engine
    require(["ray"], "--engine ray", "ray")
    from mmdgen.generate import ray_engine

    return functools.partial(ray_engine.render_shards, address=ray_engine.check_address(ray_address))
