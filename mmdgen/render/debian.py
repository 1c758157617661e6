"""Debian and Ubuntu packages for machines that lack them: installed as root, or unpacked into a folder without root.

Only the standard library is used, so that `tools/run` can do this before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmdgen.errors import EngineError

_TIMEOUT_S = 900.0
# Never unpacked: a C library beside the running one's loader crashes every program that finds it.
_NEVER_UNPACKED = ("libc6_", "libc6-", "libc-bin_", "gcc-", "base-files_", "debconf_")

Log = Callable[[str], None]


class SystemPackageError(EngineError):
    """apt is missing, has no network, or does not know the packages. The message ends with what it said."""


def has_apt() -> bool:
    """Return whether this system has apt and dpkg."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def is_root() -> bool:
    """Return whether this process may install system packages."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def install(packages: Sequence[str], log: Log) -> None:
    """Install packages as root, with what they depend on and without what they recommend.

    The package lists are fetched only if the ones that are there do not do. Raises `SystemPackageError`.
    """
    command = ["install", "-y", "--no-install-recommends", *packages]
    options = ["-o", "DPkg::Lock::Timeout=300"]
    if not _lists_are_there():
        _apt([*options, "update"], log, needed=False)
        _apt([*options, *command], log)
        return
    try:
        _apt([*options, *command], log)
    except SystemPackageError:  # most often: the lists are older than what the mirror still has
        _apt([*options, "update"], log, needed=False)
        _apt([*options, *command], log)


def unpack(packages: Sequence[str], target: Path, log: Log, *, closure: bool = True) -> None:
    """Download packages without root and unpack them below `target`, as if it were the root folder.

    With `closure`, everything they depend on that is not installed comes too. No maintainer script is run. The folder
    appears complete or not at all. Raises `SystemPackageError`.
    """
    if not has_apt():
        raise SystemPackageError("this system has no apt")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=target.name + ".", dir=target.parent) as scratch_name:
        scratch = Path(scratch_name)
        archives = scratch / "cache" / "archives"
        for folder in (archives / "partial", scratch / "lists" / "partial", scratch / "root"):
            folder.mkdir(parents=True)
        _download(packages, scratch, archives, log, closure=closure)
        files = sorted(path for path in archives.glob("*.deb") if not path.name.startswith(_NEVER_UNPACKED))
        if not files:
            raise SystemPackageError(f"apt downloaded nothing for {' '.join(packages)}")
        for path in files:
            _run(["dpkg-deb", "-x", str(path), str(scratch / "root")], log)
        if target.exists():
            shutil.rmtree(target)
        os.replace(scratch / "root", target)


def _download(packages: Sequence[str], scratch: Path, archives: Path, log: Log, *, closure: bool) -> None:
    private = ["-o", f"Dir::Cache={scratch}/cache", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]
    if closure:
        # --reinstall: what is installed but broken is fetched too where asked for by name
        command = ["install", "-y", "--download-only", "--no-install-recommends", "--reinstall", *packages]
    else:
        command = ["download", *packages]
    if _lists_are_there():
        try:
            _apt([*private, *command], log, folder=archives)
            return
        except SystemPackageError:
            log("the machine's package lists do not do; fetching a private copy")
    private += ["-o", f"Dir::State::lists={scratch}/lists"]
    _apt([*private, "update"], log, needed=False)
    _apt([*private, *command], log, folder=archives)


def _lists_are_there() -> bool:
    lists = Path("/var/lib/apt/lists")
    try:
        return any(path.name.endswith(("_Packages", "_Packages.lz4", "_Packages.gz")) for path in lists.iterdir())
    except OSError:
        return False


def _apt(arguments: Iterable[str], log: Log, *, folder: Path | None = None, needed: bool = True) -> None:
    # A failing update is not the end: a hook may have failed, or one source of several. What follows decides.
    _run(["apt-get", "-q", *arguments], log, folder=folder, needed=needed)


def _run(command: list[str], log: Log, *, folder: Path | None = None, needed: bool = True) -> None:
    log("$ " + " ".join(command))
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemPackageError(f"{command[0]}: {error}") from error
    text = done.stdout.decode("utf-8", "replace")
    log(text.rstrip())
    if done.returncode and needed:
        errors = [line for line in text.splitlines() if line.startswith(("E:", "dpkg"))] or text.splitlines()[-3:]
        raise SystemPackageError(f"{command[0]} exited with {done.returncode}: {' '.join(errors)}")
