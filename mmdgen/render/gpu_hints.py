"""What keeps a GPU that is there from being used for drawing, and what to do: containers above all.

CUDA needs less than drawing does: a container that computes may well have no EGL. NVIDIA's EGL needs the `graphics`
capability (which brings libEGL_nvidia.so.0), a vendor file that names that library, and the GPU's own file in /dev.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmdgen.errors import RenderError
from mmdgen.render import devices
from mmdgen.render.gl_setup import ICD_FOLDERS, GlProbe

NVIDIA_LIBRARY = "libEGL_nvidia.so.0"
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
VENDOR_FILE = json.dumps({"file_format_version": "1.0.0", "ICD": {"library_path": NVIDIA_LIBRARY}})
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv", "/.singularity.d", "/.apptainer.d")


def loadable(library: str) -> bool:
    """Return whether the loader finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the machine is looked at: below `root`, in `environment`, and by `loads` (is a library found?)."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    loads: Callable[[str], bool] = loadable
    usable: Callable[[Path], bool] = lambda path: os.access(path, os.R_OK | os.W_OK)

    def has(self, *paths: str) -> bool:
        return any((self.root / path.lstrip("/")).exists() for path in paths)

    def files(self, folder: str, pattern: str) -> list[Path]:
        return sorted((self.root / folder.lstrip("/")).glob(pattern))

    @property
    def container(self) -> bool:
        return self.has(*_CONTAINER_FILES) or "KUBERNETES_SERVICE_HOST" in self.environment


def gpu_hints(found: GlProbe, around: Surroundings | None = None) -> list[str]:
    """Return what keeps this machine's GPUs from drawing, each with what to do; empty if nothing does.

    `found` is a probe of every device.
    """
    around = around or Surroundings()
    listed = devices.devices_of(found)
    hints = _nvidia(listed, around) or _mesa(listed, around)
    return hints + _assigned(listed, around)


def _nvidia(listed: Sequence[devices.Device], around: Surroundings) -> list[str]:
    nodes = [path for path in around.files("/dev", "nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    if not nodes and not around.has("/dev/nvidiactl", "/proc/driver/nvidia/version"):
        return []
    offered = [device for device in listed if not device.software and "NVIDIA" in device.name.upper()]
    offered += [device for device in listed if device.cuda is not None and device not in offered]
    drawing = [device for device in offered if device.draws]
    if drawing:
        if len(drawing) < len(nodes):
            return [
                f"EGL draws with {len(drawing)} of the {len(nodes)} NVIDIA GPUs in /dev: the others' files in /dev/dri "
                "may be missing here (docker run --device /dev/dri), or they have no graphics"
            ]
        return []
    hints = ["there is an NVIDIA driver, but EGL does not offer its GPU for drawing"]
    capabilities = around.environment.get(CAPABILITIES)
    words = {word.strip() for word in (capabilities or "").split(",")}
    graphics = bool(words & {"all", "graphics", "display"})
    if not around.loads(NVIDIA_LIBRARY):
        why = f"{NVIDIA_LIBRARY} is not visible: "
        if capabilities is not None and not graphics:
            why += f"{CAPABILITIES}={capabilities} lacks graphics; start the container with {CAPABILITIES}=all"
        elif around.container and not graphics:
            why += f"start the container with {CAPABILITIES}=all (docker run --gpus all -e ..., Apptainer --nv)"
        elif around.container:
            why += "the machine's own driver seems to come without it, so that the container cannot get it"
        else:
            why += f"in a container, start it with {CAPABILITIES}=all (or compute,utility,graphics)"
        hints.append(
            f"{why}. On the machine itself, install the driver's GL libraries (Ubuntu: libnvidia-gl-..., Debian: "
            "nvidia-egl-icd); drivers called headless or server often lack them"
        )
        return hints
    if not nodes:
        hints.append(
            "there is no /dev/nvidia0: no GPU was given to this container (docker run --gpus all, Slurm --gres=gpu:1)"
        )
        return hints
    locked = [path for path in nodes if not around.usable(path)]
    if locked:
        hints.append(f"/dev/{locked[0].name} may not be read and written by this user: ask for access to the GPU")
        return hints
    hidden = [name for name in ("__EGL_VENDOR_LIBRARY_FILENAMES", "__EGL_VENDOR_LIBRARY_DIRS") if _hides(name, around)]
    if hidden:
        value = around.environment[hidden[0]]
        hints.append(f"{hidden[0]}={value} leads EGL away from NVIDIA's vendor file: unset it, or add that file")
    elif not [path for folder in ICD_FOLDERS for path in around.files(folder, "*nvidia*.json")]:
        hints.append(
            f"no EGL vendor file names the NVIDIA library: write {VENDOR_FILE} to {ICD_FOLDERS[-1]}/10_nvidia.json, or "
            "to a folder of your own before the usual ones in __EGL_VENDOR_LIBRARY_DIRS"
        )
    else:
        problems = sorted({device.problem for device in offered if device.problem})
        said = f" ({'; '.join(problems)})" if problems else ""
        hints.append(
            f"library and vendor file are there{said}: does the driver's version in the container differ from the "
            "machine's (/proc/driver/nvidia/version)? Some GPUs have no graphics at all, and slices (MIG) have none"
        )
    return hints


def _hides(name: str, around: Surroundings) -> bool:
    """Return whether a variable replaces EGL's vendor files by some without NVIDIA's."""
    value = around.environment.get(name)
    if not value:
        return False
    paths = [Path(part) for part in value.split(":") if part]
    if name.endswith("DIRS"):
        paths = [path for folder in paths for path in around.files(str(folder), "*.json")]
    return not any("nvidia" in path.name for path in paths)


def _mesa(listed: Sequence[devices.Device], around: Surroundings) -> list[str]:
    """Explain an AMD or Intel GPU that is not offered."""
    nodes = around.files("/dev/dri", "renderD*")
    if any(device.draws and not device.software for device in listed):
        return []
    locked = [path for path in nodes if not around.usable(path)]
    if locked:
        return [
            f"/dev/dri/{locked[0].name} may not be read and written by this user: be in the group render or video; in "
            "a container give --device /dev/dri and --group-add with that group's number"
        ]
    if around.files("/dev/dri", "card*") and not nodes:
        return ["/dev/dri has no renderD*: the GPU's kernel driver offers no rendering"]
    return []


def _assigned(listed: Sequence[devices.Device], around: Surroundings) -> list[str]:
    """Explain what CUDA_VISIBLE_DEVICES means for drawing, where it is set."""
    value = around.environment.get(devices.CUDA_VISIBLE)
    if value is None:
        return []
    try:
        taken = devices.select(devices.AUTO, listed, around.environment)
    except RenderError as error:
        return [str(error)]
    by_index = {device.index: device for device in listed}
    if all(index is None or by_index[index].software for index in taken):
        return [f"{devices.CUDA_VISIBLE}={value}, and none of these GPUs draws: --device auto means software"]
    return [f"{devices.CUDA_VISIBLE}={value}: --device auto draws with EGL device {', '.join(map(str, taken))}"]
