"""Write constraints.txt anew: the newest versions that pyproject.toml allows, the same ones on every supported Python.

    tools/run python tools/constraints.py [--check]

pip resolves the core and all extras for each Python version, for wheels only, without installing anything. Where the
newest release of a package has left the oldest Python behind, the newest that still serves it is pinned everywhere.
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
# and tests do not depend on the interpreter. numpy and scipy are the newest that still support 3.11.
# Made anew by: tools/run python tools/constraints.py
"""


def resolve(requirements: list[str], python: str) -> dict[str, str]:
    """Return {name: version} of what pip would install for a Python version. Exits with pip's message on failure."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--target", folder]
        command += ["--only-binary=:all:", "--python-version", python, "--platform", PLATFORM, "--report", str(report)]
        # Also older manylinux tags: not every package is built for the newest.
        command += [f"--platform={tag}_x86_64" for tag in ("manylinux_2_27", "manylinux_2_17", "manylinux2014")]
        done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"pip cannot resolve the requirements for Python {python}:\n{done.stderr.strip()}")
        items = [item["metadata"] for item in json.loads(report.read_text("utf-8"))["install"]]
    return {item["name"].lower().replace("_", "-"): item["version"] for item in items}


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    pins = resolve(requirements, PYTHONS[0])
    for python in PYTHONS[1:]:
        exact = [f"{name}=={version}" for name, version in pins.items()]
        for name, version in resolve([*requirements, *exact], python).items():
            pins.setdefault(name, version)
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
