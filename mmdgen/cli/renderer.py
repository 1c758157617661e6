"""The option `--renderer`: what draws."""

from __future__ import annotations

import click

from mmdgen.generate.backend import CPU, RENDERERS, backend_named
from mmdgen.render.devices import AUTO, Choice

renderer_option = click.option(
    "--renderer",
    type=click.Choice(list(RENDERERS)),
    default=AUTO,
    show_default=True,
    help="gl: OpenGL, in software too; cpu: mmdgen's own rasteriser; auto: OpenGL on a GPU, else cpu (flow needs gl).",
)


def chosen_backend(renderer: str, device: Choice, *, flow: bool) -> str:
    """Return the backend for `run`. Raises `click.UsageError` where the options do not go together."""
    if renderer == CPU and flow:
        raise click.UsageError("--flow is drawn with OpenGL only: use --renderer gl or auto")
    if renderer == CPU and device not in (None, AUTO):
        raise click.UsageError("--device is for OpenGL; --renderer cpu draws on the processor")
    return backend_named(renderer, flow=flow)
