"""Write constraints.txt anew: the newest versions that pyproject.toml allows, the same ones on every supported Python.

    tools/run python tools/constraints.py [--check]

pip resolves the core and all extras for the oldest Python, for wheels only, without installing anything, and then makes
sure that every other Python has wheels of the very same versions. Where the newest release of a package has left the
oldest Python behind, the newest that still serves it is pinned everywhere. The CUDA libraries that torch's default
build for Linux brings are left out: torch itself names their versions, and its build for the CPU has none.
With --check nothing is written: exits with 1 if the file would change.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "constraints.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORM = "manylinux_2_28_x86_64"
HEAD = """\
# The exact version of everything that tools/run installs, on every Python from 3.11 to 3.14: one set, so that pictures
# and tests do not depend on the interpreter. numpy and scipy are the newest that still support 3.11. What torch's
# builds for CUDA need beside these is pinned by torch itself.
# Made anew by: tools/run python tools/constraints.py
"""
GPU_LIBRARIES = ("cuda-", "nvidia-", "triton")


def resolve(requirements: list[str], python: str, *options: str) -> dict[str, str]:
    """Return {name: version} of what pip would install for a Python version. Exits with pip's message on failure.

    A build's own tag, as in 2.13.0+cpu, is left out of the version: one pin serves with and without a GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--target", folder]
        command += ["--only-binary=:all:", "--python-version", python, "--platform", PLATFORM, "--report", str(report)]
        # Also older manylinux tags: not every package is built for the newest.
        command += [f"--platform={tag}_x86_64" for tag in ("manylinux_2_27", "manylinux_2_17", "manylinux2014")]
        done = subprocess.run([*command, *options, *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"pip cannot resolve the requirements for Python {python}:\n{done.stderr.strip()}")
        items = [item["metadata"] for item in json.loads(report.read_text("utf-8"))["install"]]
    versions = {item["name"].lower().replace("_", "-"): item["version"].partition("+")[0] for item in items}
    return {name: version for name, version in versions.items() if not name.startswith(GPU_LIBRARIES)}


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = ["pip", *project["dependencies"]]  # pip: tools/environment.py brings it, too
    for extra in project["optional-dependencies"].values():
        requirements += extra
    pins = resolve(requirements, PYTHONS[0])
    exact = [f"{name}=={version}" for name, version in pins.items()]
    for python in PYTHONS[1:]:
        resolve(exact, python, "--no-deps")
    text = HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
    if "--check" in sys.argv[1:]:
        if text != FILE.read_text("utf-8"):
            sys.exit("constraints.txt is not what the requirements resolve to now")
        print("constraints.txt is current")
        return
    FILE.write_text(text, "utf-8")
    print(f"{len(pins)} versions written to {FILE}")


if __name__ == "__main__":
    main()
