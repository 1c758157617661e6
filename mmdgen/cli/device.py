"""The option `--device` of commands that draw with several GPUs."""

from __future__ import annotations

import sys
from typing import Any

import click

from mmdgen.render import devices, gl_setup


class DeviceChoice(click.ParamType):
    """auto, an EGL device's number, several of them, or cuda:N; `list` prints the devices and ends the command."""

    name = "auto|N[,N...]|cuda:N|list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> devices.Choice:
        if not isinstance(value, str):
            return value
        if value.strip().lower() == "list":
            if ctx is not None and ctx.resilient_parsing:
                return devices.AUTO
            click.echo(device_list())
            sys.exit(0)
        try:
            return devices.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def device_list() -> str:
    """Return what `--device list` prints."""
    probe = gl_setup.probe(every_device=True)
    if not probe.devices:
        return f"no device: {probe.problem}"
    return f"{devices.listing(devices.devices_of(probe))}\n* is what --device auto takes"


device_option = click.option(
    "--device",
    type=DeviceChoice(),
    default=devices.AUTO,
    show_default=True,
    help="The GPUs that draw: all that CUDA_VISIBLE_DEVICES leaves, or numbers of `--device list`, or CUDA's.",
)
