"""`mmdgen doctor`: can this machine render, what is it like, and what is missing?"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from mmdgen import __version__
from mmdgen.errors import RenderError
from mmdgen.render import devices, gl_setup, gpu_hints

# What the core imports; the versions that it needs are in the package's own metadata where it was installed.
PACKAGES = ("numpy", "numba", "moderngl", "glcontext", "pyrr", "pillow", "h5py", "isal", "zstandard", "click", "tqdm")
MINIMUM = {
    "moderngl": "5.12",
    "numpy": "2.0",
    "pillow": "12",
    "h5py": "3.12",
    "isal": "1.7",
    "click": "8.1",
    "numba": "0.62",
}
_GIB = 2**30
# A warning each: enough for some work, but a large run may trip over it.
_LOW_DISK, _LOW_MEMORY, _LOW_SHARED, _LOW_FILES = 2 * _GIB, 2 * _GIB, 64 * 2**20, 256


def _version_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def packages() -> dict[str, str | None]:
    """Return the installed version of every package that the core imports, None where one is missing."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def package_problems(found: dict[str, str | None]) -> list[dict[str, str]]:
    """Return what is wrong with the installed packages, each with what to do."""
    problems = []
    for name, version in found.items():
        least = MINIMUM.get(name)
        if version is None:
            problems.append({"what": f"the package {name} is missing", "how": f"pip install {name}"})
        elif least is not None and _version_key(version) < _version_key(least):
            what = f"{name} {version} is too old, {least} or newer is needed"
            problems.append({"what": what, "how": f'pip install "{name}>={least}"'})
    return problems


def _cgroup_memory() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:
            return int(text)
    return None


def _cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def _memory() -> tuple[int, int]:
    """Return memory in bytes, all and available, no more than the container may use."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) >= 2}
    total, available = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    limit = _cgroup_memory()
    return (total, available) if limit is None else (min(total, limit), min(available, limit))


def _free(path: str) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def machine() -> dict[str, Any]:
    """Return the resources that a run meets: cores, memory, disk, open files, shared memory (bytes)."""
    total, available = _memory()
    return {
        "cores": _cores(),
        "memory": total,
        "memory_available": available,
        "disk_free_here": _free("."),
        "disk_free_temporary": _free(tempfile.gettempdir()),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "shared_memory": _free("/dev/shm"),
    }


def machine_hints(found: dict[str, Any]) -> list[str]:
    """Return what may stop a large run later on."""
    hints = []
    if (found["disk_free_here"] or 0) < _LOW_DISK:
        hints.append(f"{_size(found['disk_free_here'])} of disk free here: a dataset takes about 0.1 MB a sample")
    if found["memory_available"] and found["memory_available"] < _LOW_MEMORY:
        hints.append(f"{_size(found['memory_available'])} of memory available: use one worker (--workers 1)")
    if found["shared_memory"] is not None and found["shared_memory"] < _LOW_SHARED:
        hints.append(f"/dev/shm has only {_size(found['shared_memory'])}: start a container with --shm-size=1g")
    if 0 <= found["open_files"] < _LOW_FILES:
        hints.append(f"only {found['open_files']} files may be open at once: ulimit -n 1024")
    return hints


def _draw(device: int | None) -> dict[str, Any]:
    """Draw the test pictures; return context, checks, limits and speed, or the problem."""
    # Not imported above: without the package, or without GL, doctor must still be able to say so.
    from mmdgen.render import context as gl_context
    from mmdgen.render import selftest

    context = gl_context.create_context(device)
    test = selftest.run(context)
    return {
        "context": gl_context.describe(context),
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in test.checks],
        "limits": test.limits,
        "pictures_per_s": round(test.pictures_per_s, 1),
        "ok": test.ok,
    }


def examine(device: int | None = None) -> dict[str, Any]:
    """Return the whole report. ``ok`` is the verdict: a real render came out right and nothing needed is missing."""
    found = packages()
    problems = package_problems(found)
    hints: list[str] = []
    probe = gl_setup.probe(every_device=True)
    gl: dict[str, Any] = {"devices": list(probe.devices), "libraries": list(probe.libraries)}
    if not probe.ok:
        how = f"mmdgen doctor --fix. {gl_setup.advice()}"
        problems.append({"what": f"OpenGL does not work: {probe.problem}", "how": how})
    elif not problems:
        try:
            gl["auto"] = devices.select(devices.AUTO, devices.devices_of(probe))
            gl.update(_draw(gl["auto"][0] if device is None else device))
        except RenderError as error:
            problems.append({"what": str(error), "how": "another device (--device), or a newer driver"})
        for check in gl.get("checks", ()):
            if not check["ok"]:
                what = f"the driver draws wrongly ({check['name']}): {check['detail']}"
                problems.append({"what": what, "how": "another device (--device), or a newer driver"})
    hints += gpu_hints.gpu_hints(probe)
    resources = machine()
    hints += machine_hints(resources)
    return {
        "mmdgen": __version__,
        "ok": not problems,
        "problems": problems,
        "hints": hints,
        "system": f"{gl_setup.system_name()}, {platform.machine()}, Linux {platform.release()}",
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "packages": found,
        "gl": gl,
        "machine": resources,
    }


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the report for people: (heading, text) in order."""
    gl, machine_ = report["gl"], report["machine"]
    rows = [
        ("mmdgen", report["mmdgen"]),
        ("system", report["system"]),
        ("python", f"{report['python']['version']}, {report['python']['executable']}"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in report["packages"].items())),
    ]
    rows += [("GL devices", devices.Device.of(device).line()) for device in gl["devices"]] or [("GL devices", "none")]
    if any(index is not None for index in gl.get("auto", ())):
        rows.append(("auto", f"mmdgen render --device auto takes {', '.join(str(index) for index in gl['auto'])}"))
    rows += [("GL files", path) for path in gl["libraries"]]
    if "context" in gl:
        context = gl["context"]
        kind = "software" if context["software"] else "GPU"
        rows.append(("OpenGL", f"{context['version']}; {context['renderer']}; {context['vendor']}; {kind}"))
        rows.append(("limits", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in gl["limits"].items())))
        right = sum(check["ok"] for check in gl["checks"])
        rows.append(("test render", f"{right} of {len(gl['checks'])} checks right"))
        rows.append(("speed", f"{gl['pictures_per_s']:.0f} small pictures a second in one process"))
    shared = f"/dev/shm {_size(machine_['shared_memory'])}"
    rows.append(
        (
            "machine",
            f"{machine_['cores']} cores, {_size(machine_['memory'])} memory "
            f"({_size(machine_['memory_available'])} available), {_size(machine_['disk_free_here'])} disk free here, "
            f"{machine_['open_files']} open files, {shared}",
        )
    )
    return rows


def _show(report: dict[str, Any]) -> None:
    earlier = ""
    for heading, text in _lines(report):
        click.echo(f"{'' if heading == earlier else heading:12}{text}")
        earlier = heading
    for hint in report["hints"]:
        click.echo(f"{'note':12}{hint}")
    for problem in report["problems"]:
        click.echo(f"{'PROBLEM':12}{problem['what']}")
        click.echo(f"{'  to do':12}{problem['how']}")
    click.echo(f"{'verdict':12}{'ready to render' if report['ok'] else 'NOT ready: see the problems above'}")


def _fix() -> None:
    """Bring OpenGL where it is missing. Libraries that were only unpacked take effect after a restart, made here."""

    def log(text: str) -> None:
        click.echo("\n".join(f"    {line}" for line in text.splitlines()), err=True)

    folder = gl_setup.default_folder()
    setup = gl_setup.ensure(folder, log)
    if setup.mode == "missing":
        click.echo(f"could not be fixed: {setup.problem}", err=True)
        return
    if setup.mode == "unpacked":
        click.echo(f"OpenGL libraries are in {folder}", err=True)
        gl_setup.restart_with_unpacked(folder)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option("--fix", is_flag=True, help="Bring the OpenGL libraries if they are missing (apt; with or without root).")
@click.option("--device", type=click.IntRange(min=0), help="Draw with this EGL device (as listed under GL devices).")
def command(as_json: bool, fix: bool, device: int | None) -> None:
    """Check this machine: a real render, GL devices, versions, what is missing and how to get it.

    Exits with 0 if rendering works, with 1 if something that is needed is missing.

    \b
    Examples:
      mmdgen doctor
      mmdgen doctor --fix
      mmdgen doctor --json > report.json
    """
    if fix:
        _fix()
    report = examine(device)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(report)
    sys.exit(0 if report["ok"] else 1)
