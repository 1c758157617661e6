"""The options of commands that say who works: `--engine` and `--ray-address`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from mmdgen.cli.extras import require
from mmdgen.generate.run import ENGINES, LOCAL, RAY, Engine


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


def chosen_engine(engine: str, ray_address: str | None) -> str | Engine:
    """Return the engine for `run`. Raises `click.UsageError`, and `ConfigError` where Ray is missing or not there."""
    if engine != RAY:
        if ray_address is not None:
            raise click.UsageError("--ray-address is for --engine ray")
        return engine
    require(["ray"], "--engine ray", "ray")
    from mmdgen.generate import ray_engine

    return functools.partial(ray_engine.render_shards, address=ray_engine.check_address(ray_address))
