"""Find OpenGL on this machine, and bring it where it is missing.

Pictures are drawn through EGL without a display, which needs libEGL.so.1, libGL.so.1 and a driver: the GPU's, or Mesa's
software renderer. On Debian and Ubuntu three packages bring the latter. As root they are installed; otherwise they are
unpacked into a folder, and environment variables lead the loader there.

Only the standard library is used and nothing is printed, so that `tools/run` can do this before anything is installed.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdgen.render import debian

PACKAGES = ("libegl1", "libgl1", "libgl1-mesa-dri")
_OTHER_SYSTEMS = {
    "fedora": "dnf install mesa-libEGL mesa-libGL mesa-dri-drivers",
    "rhel": "dnf install mesa-libEGL mesa-libGL mesa-dri-drivers",
    "suse": "zypper install Mesa-libEGL1 Mesa-libGL1 Mesa-dri",
    "arch": "pacman -S --needed libglvnd mesa",
    "alpine": "apk add mesa-egl mesa-gl mesa-dri-gallium",
}
_PROBE_TIMEOUT_S = 60.0
_LIBRARY_PATTERNS = ("usr/lib/*/lib*.so*", "usr/lib/lib*.so*", "lib/*/lib*.so*", "lib/lib*.so*")  # merged /usr or not
ICD_FOLDERS = ("/etc/glvnd/egl_vendor.d", "/usr/share/glvnd/egl_vendor.d")

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GlProbe:
    """What EGL answered. `devices` are dicts as in `egl_probe.query`; `libraries` are the files in use."""

    ok: bool
    problem: str
    devices: tuple[dict[str, Any], ...] = ()
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GlSetup:
    """The outcome of `ensure`.

    `mode` is ``system`` (it works as it is), ``unpacked`` (through `environment`) or ``missing`` (see `problem`).
    """

    mode: str
    probe: GlProbe
    environment: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def probe(environment: Mapping[str, str] | None = None, *, every_device: bool = False) -> GlProbe:
    """Try to bring up OpenGL 4.3 core in a child process, with `environment` on top of this process's own.

    CUDA_VISIBLE_DEVICES is kept from it: drivers differ in whether a device's CUDA number then counts all GPUs or only
    the visible ones, so all are numbered, and `devices` works out which ones are meant. Never raises for a driver's
    failure: a crash or a hang is reported as the problem.
    """
    command = [sys.executable, "-I", str(Path(__file__).with_name("egl_probe.py"))]
    if every_device:
        command.append("--all")
    try:
        done = subprocess.run(
            command,
            env={name: value for name, value in merged(environment or {}).items() if name != "CUDA_VISIBLE_DEVICES"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return GlProbe(False, f"the GL driver did not answer within {_PROBE_TIMEOUT_S:.0f} s")
    try:
        report = json.loads(done.stdout)
    except ValueError:
        tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return GlProbe(False, f"the GL driver ended the process (status {done.returncode}) {' '.join(tail)}".rstrip())
    return GlProbe(report["ok"], report["problem"], tuple(report["devices"]), tuple(report["libraries"]))


def default_folder() -> Path:
    """Return where the libraries are unpacked for an installation without a checkout: below the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "mmdgen" / "gl"


def environment_for(folder: Path) -> dict[str, str]:
    """Return the variables that lead the loader, Mesa and the EGL dispatcher into libraries unpacked below `folder`.

    Set them with `merged`, before a program starts: the loader reads its path only then.
    """
    libraries = {path.parent for pattern in _LIBRARY_PATTERNS for path in folder.glob(pattern)}
    drivers = [path for path in folder.glob("usr/lib/*/dri") if path.is_dir()]
    vendors = [folder / "usr/share/glvnd/egl_vendor.d", *map(Path, ICD_FOLDERS)]  # the machine's own stay in force
    environment = {"LD_LIBRARY_PATH": libraries, "LIBGL_DRIVERS_PATH": drivers}
    joined = {name: ":".join(sorted(map(str, paths))) for name, paths in environment.items() if paths}
    # glcontext would ask ldconfig and gcc for the libraries' names, and they know nothing of this folder.
    names = {"GLCONTEXT_LINUX_LIBGL": "libGL.so.1", "GLCONTEXT_LINUX_LIBEGL": "libEGL.so.1"}
    return {**joined, "__EGL_VENDOR_LIBRARY_DIRS": ":".join(map(str, vendors)), **names}


def restart_with_unpacked(folder: Path | None = None) -> None:
    """Start this program again with the unpacked libraries in `folder` (default: `default_folder`), if it needs them.

    For installations without `tools/run`, which would have set the variables. Does nothing where nothing was unpacked,
    where the machine has its own libraries by now, or after one restart; costs a look into a folder then.
    """
    folder = folder or default_folder()
    if not (folder / "usr").is_dir() or str(folder) in os.environ.get("LD_LIBRARY_PATH", ""):
        return
    try:
        for name in ("libGL.so.1", "libEGL.so.1"):
            ctypes.CDLL(name)
    except OSError:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], merged(environment_for(folder)))


def merged(environment: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `environment` on top; a library path goes before the one there is."""
    result = {**os.environ, **environment}
    earlier = os.environ.get("LD_LIBRARY_PATH")
    added = environment.get("LD_LIBRARY_PATH")
    if added and earlier:
        result["LD_LIBRARY_PATH"] = earlier if f":{added}:" in f":{earlier}:" else f"{added}:{earlier}"
    return result


def find(folder: Path, *, every_device: bool = False) -> GlSetup:
    """Return the GL set-up that is there: the machine's own if it works, else what was unpacked below `folder`."""
    first = probe(every_device=every_device)
    if first.ok:
        return GlSetup("system", first)
    if (folder / "usr").is_dir():
        environment = environment_for(folder)
        again = probe(environment, every_device=every_device)
        if again.ok:
            return GlSetup("unpacked", again, environment)
    return GlSetup("missing", first, problem=f"{first.problem}. {advice()}")


def ensure(folder: Path, log: Log, *, every_device: bool = False) -> GlSetup:
    """Return a working GL set-up, making one if there is none.

    What works is never touched. Otherwise the packages are installed (root on Debian or Ubuntu) or unpacked below
    `folder` (without root). Does not raise: `GlSetup.problem` says what a person must do.
    """
    setup = find(folder, every_device=every_device)
    if setup.mode != "missing" or not sys.platform.startswith("linux"):
        return setup
    problems = [setup.probe.problem]
    log(f"OpenGL does not work yet: {setup.probe.problem}")
    if debian.has_apt():
        ways = (_install, _unpack) if debian.is_root() else (_unpack,)
        for way in ways:
            try:
                environment = way(folder, log)
            except (debian.SystemPackageError, OSError) as error:
                problems.append(str(error))
                continue
            after = probe(environment, every_device=every_device)
            if after.ok:
                return GlSetup("unpacked" if environment else "system", after, environment)
            problems.append(after.problem)
    return GlSetup("missing", setup.probe, problem=f"{'; then: '.join(problems)}. {advice()}")


def _install(folder: Path, log: Log) -> dict[str, str]:
    debian.install(PACKAGES, log)
    return {}


def _unpack(folder: Path, log: Log) -> dict[str, str]:
    debian.unpack(PACKAGES, folder, log)
    return environment_for(folder)


def advice() -> str:
    """Return the one command with which an administrator brings the libraries to this system."""
    if not sys.platform.startswith("linux"):
        return "mmdgen draws through EGL, which it finds on Linux only (a container or a virtual machine will do)"
    system = _os_release()
    for name in (system.get("ID", ""), *system.get("ID_LIKE", "").split()):
        if name in _OTHER_SYSTEMS:
            return f"As an administrator: {_OTHER_SYSTEMS[name]}"
    return "As an administrator: apt-get update && apt-get install --no-install-recommends " + " ".join(PACKAGES)


def system_name() -> str:
    """Return the name of this distribution, such as ``Debian GNU/Linux 12 (bookworm)``."""
    return _os_release().get("PRETTY_NAME") or sys.platform


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text("utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}
