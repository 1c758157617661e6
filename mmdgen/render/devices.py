"""Which GPU draws: EGL's devices, CUDA's numbers for them, and what CUDA_VISIBLE_DEVICES leaves to this process.

EGL numbers its devices in another order than CUDA, lists Mesa's software renderer among them, and never looks at
CUDA_VISIBLE_DEVICES, by which Slurm, Ray and people share out the GPUs of a machine. So the device that draws is found
by its CUDA number (EGL_NV_device_cuda) or, where the variable has UUIDs, by its UUID (EGL_EXT_device_persistent_id).

EGL is asked in a child process (`gl_setup.probe`): nothing here loads GL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdgen.errors import RenderError
from mmdgen.render.gl_setup import GlProbe, probe

AUTO = "auto"
CUDA_VISIBLE = "CUDA_VISIBLE_DEVICES"
CHOICES = "auto, N or N,M (as `--device list` numbers them) or cuda:N (as CUDA numbers them here)"

# What is chosen: an EGL index, several, ``auto``, ``cuda:N``, or None for the first device that EGL has.
Choice = int | tuple[int, ...] | str | None

_DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")
_RENDER_NODES = ("/dev/dri", "renderD*")


@dataclass(frozen=True, slots=True)
class Device:
    """An EGL device: its `index` there, its `cuda` number among all GPUs (None for others' GPUs), `uuid` or "".

    `name` is what OpenGL calls it and `version` its OpenGL and driver; both "" where no context came up, and
    `problem` says why. `node` is its file in /dev.
    """

    index: int
    name: str
    version: str
    software: bool
    cuda: int | None
    uuid: str
    node: str
    problem: str

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Device:
        """Return a device as `egl_probe.query` describes it."""
        return cls(
            index=report["index"],
            name=report.get("renderer", ""),
            version=report.get("version", ""),
            software=report["software"],
            cuda=report["cuda"],
            uuid=report.get("uuid", ""),
            node=report["render_node"] or report["drm"],
            problem=report.get("problem", ""),
        )

    @property
    def draws(self) -> bool:
        return bool(self.version)

    def line(self) -> str:
        """Return the device in words, after its number."""
        parts = [f"{self.index}:", self.name or f"unusable ({self.problem or 'not tried'})"]
        parts.append("(software)" if self.software else "")
        parts.append(f"CUDA {self.cuda}" if self.cuda is not None else "")
        parts.append(f"GPU-{self.uuid}" if self.uuid and self.cuda is not None else "")
        parts.append(self.node)
        parts.append(f"OpenGL {self.version}" if self.version else "")
        return " ".join(part for part in parts if part)


def devices_of(found: GlProbe) -> tuple[Device, ...]:
    """Return the devices of a probe of every device."""
    return tuple(Device.of(report) for report in found.devices)


def parse(text: str) -> Choice:
    """Return the choice that an option's text means. Raises ValueError."""
    text = text.strip().lower()
    if text == AUTO or re.fullmatch(r"cuda:\d+", text):
        return text
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"{text!r} is no device: {CHOICES}")
    numbers = tuple(dict.fromkeys(int(number) for number in text.split(",")))
    return numbers[0] if len(numbers) == 1 else numbers


def gpu_files(exists: Callable[[str], bool] = os.path.exists, folder: Path = Path(_RENDER_NODES[0])) -> bool:
    """Return whether any file of a GPU's driver is there, without asking the driver."""
    return any(map(exists, _DRIVER_FILES)) or any(folder.glob(_RENDER_NODES[1]))


def visible(devices: Sequence[Device], environment: Mapping[str, str] | None = None) -> tuple[Device, ...] | None:
    """Return the devices that CUDA_VISIBLE_DEVICES names, in its order; None where it is not set.

    As CUDA does, what comes after the first entry that names none is left out, and "" or -1 names none at all. Raises
    `RenderError` for a GPU that EGL does not offer while it offers others, and for slices of a GPU (MIG), which cannot
    draw.
    """
    text = (os.environ if environment is None else environment).get(CUDA_VISIBLE)
    if text is None:
        return None
    gpus = [device for device in devices if device.cuda is not None or (device.uuid and not device.software)]
    found: list[Device] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry.upper().startswith("MIG-"):
            raise RenderError(f"{CUDA_VISIBLE}={text}: {entry} is a slice of a GPU (MIG), and slices have no graphics")
        if not re.fullmatch(r"\d+|(?i:GPU)-[0-9a-fA-F-]+", entry):
            break
        if entry.isdigit():
            matches = [device for device in gpus if device.cuda == int(entry)]
        else:  # CUDA takes any beginning that means one GPU only
            matches = [device for device in gpus if device.uuid.startswith(entry[4:].lower())]
        if len(matches) != 1 and gpus:
            known = ", ".join(f"{device.cuda} (EGL {device.index})" for device in gpus if device.cuda is not None)
            raise RenderError(
                f"{CUDA_VISIBLE}={text}: EGL offers {'no device' if not matches else 'several devices'} for {entry}; "
                f"it has CUDA devices {known or 'none'}. `mmdgen doctor` says more, --device N chooses one all the same"
            )
        found += [device for device in matches if device not in found]
    return tuple(found)


def select(
    choice: Choice, devices: Sequence[Device], environment: Mapping[str, str] | None = None
) -> tuple[int | None, ...]:
    """Return the EGL indices that draw for `choice`; (None,) is the first device that EGL has.

    ``auto``: the GPUs that CUDA_VISIBLE_DEVICES names, where it is set; else all GPUs; else the software renderer.
    ``cuda:N`` counts as CUDA does in this environment. Raises `RenderError` for a device that is not there or does not
    draw.
    """
    if choice is None:
        return (None,)
    if isinstance(choice, str):
        shown = visible(devices, environment)
        if choice != AUTO:
            number = int(choice.removeprefix("cuda:"))
            counted = [device for device in devices if device.cuda == number]
            picked = counted if shown is None else list(shown[number : number + 1])
            if not picked:
                raise RenderError(f"--device {choice}: EGL offers no such device.\n{listing(devices, environment)}")
            return _drawing(picked)
        hardware = [device for device in devices if device.draws and not device.software]
        if shown is not None:
            # The variable speaks of CUDA's GPUs only.
            hardware = list(shown) or [device for device in hardware if device.cuda is None]
        if hardware:
            return _drawing(hardware)
        software = [device.index for device in devices if device.draws and device.software]
        return (software[0],) if software else (None,)
    wanted = (choice,) if isinstance(choice, int) else choice
    by_index = {device.index: device for device in devices}
    for index in wanted:
        if index not in by_index:
            raise RenderError(f"--device {index}: EGL offers no such device.\n{listing(devices, environment)}")
    return _drawing([by_index[index] for index in wanted])


def _drawing(devices: Sequence[Device]) -> tuple[int, ...]:
    for device in devices:
        if not device.draws:
            raise RenderError(f"device {device.line()} cannot draw; `mmdgen doctor` says more")
    return tuple(device.index for device in devices)


def resolve(choice: Choice, say: Callable[[str], None] = lambda line: None) -> tuple[int | None, ...]:
    """Ask EGL and return the indices of the devices that draw for `choice`; see `select`.

    Quick where ``auto`` can only mean the software renderer: without any GPU's files nothing is asked. `say` is told
    when ``auto`` ends in software although there are such files.
    """
    if choice is None or (choice == AUTO and not gpu_files()):
        return (None,)
    found = probe(every_device=True)
    if not found.devices:
        raise RenderError(f"OpenGL does not work: {found.problem}. `mmdgen doctor` says what is missing")
    devices = devices_of(found)
    chosen = select(choice, devices)
    if choice == AUTO and not any(device.draws and not device.software for device in devices):
        say("this machine has a GPU, but it cannot draw: drawing in software. mmdgen doctor says why")
    return chosen


def listing(devices: Sequence[Device], environment: Mapping[str, str] | None = None) -> str:
    """Return a line for each device; a star marks those that ``auto`` takes."""
    try:
        taken = select(AUTO, devices, environment)
    except RenderError:
        taken = ()
    return "\n".join(f"{'*' if device.index in taken else ' '} {device.line()}" for device in devices)
