"""Make the environment that `tools/run` runs commands in. Not meant to be called by hand.

    python3 tools/environment.py PYTHON_GROUPS [--gl] [--chromium]

PYTHON_GROUPS is a comma-separated list: core (what mmdgen itself needs) and extras of pyproject.toml. Everything is
kept in the checkout: the virtual environment in .venv, the rest (log, lock, GL libraries, certificates) in .mmdgen. A
group's stamp, with the text of pyproject.toml and constraints.txt in it, is written last, so that whatever was
interrupted is done again, and `tools/run` only has to compare texts. Only the standard library is used; nothing but
Python 3.11 is expected.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True  # a read-only or foreign checkout stays as it is

from mmdgen.render import debian, gl_setup  # noqa: E402

# Not sys.executable: with .venv activated that is the very environment that may have to be made anew.
PYTHON = getattr(sys, "_base_executable", None) or sys.executable
VENV = ROOT / ".venv"
STAMPS = VENV / "mmdgen-stamps"
STATE = ROOT / ".mmdgen"
LOG = STATE / "setup.log"
GL_STAMP = STATE / "gl.stamp"
GL_FOLDER = STATE / "gl"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")  # as tools/run looks for it
_CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",
)
_SCRIPT = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
# A path with spaces, or a very long one, cannot stand in a #! line: the shell above hands over to Python.
import sys

from {module} import {function}

if __name__ == "__main__":
    sys.exit({function}())
"""


_worked = False  # whether anything had to be done


class SetupError(Exception):
    """Setting up cannot go on; the message says what a person must do."""


def say(text: str) -> None:
    print(f"tools/run: {text}", file=sys.stderr, flush=True)


def log(text: str) -> None:
    with LOG.open("a", encoding="utf-8", errors="replace") as file:
        file.write(text + "\n")


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done now, and log how long it took."""
    global _worked
    _worked = True
    began = time.monotonic()
    say(f"{text} ...")
    log(f"== {text}")
    yield
    log(f"== done in {time.monotonic() - began:.1f} s")


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of this checkout's environment; the kernel lets go of it if this process is killed."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another tools/run that is setting up ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """Return what an installation depends on. `tools/run` builds the same text; keep the two alike."""
    return f"{ROOT}\n{(ROOT / 'pyproject.toml').read_text('utf-8')}\n{(ROOT / 'constraints.txt').read_text('utf-8')}"


def run(command: list[str], *, environment: Mapping[str, str] | None = None, failure: str) -> None:
    """Run a program with its output in the log. Raises `SetupError` with the end of the output."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode("utf-8", "replace").rstrip()
    log(f"$ {' '.join(command)}\n{output}")
    if done.returncode:
        tail = "\n".join("    " + line for line in output.splitlines()[-12:])
        raise SetupError(f"{failure} (exit status {done.returncode}):\n{tail}\nThe whole log: {LOG}")


# --- the virtual environment ------------------------------------------------------------------------------------------


def ensure_packages(groups: list[str]) -> None:
    """Install the groups that are missing or outdated in the virtual environment."""
    text = fingerprint()
    todo = [group for group in groups if not _is_current(STAMPS / group, text)]
    if not todo:
        return
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = settings["project"]
    wanted = {"core": project["dependencies"], **project["optional-dependencies"]}
    requirements = sorted({requirement for group in todo for requirement in wanted[group]})
    marker = STAMPS / "installing"
    marker.touch()
    with step(f"installing {len(requirements)} packages and what they need ({', '.join(todo)})"):
        if requirements:
            _renew_pip()
            _pip_install("-c", str(ROOT / "constraints.txt"), *requirements)
        if "core" in todo:
            _link_checkout(project["scripts"])
    for group in todo:
        _write(STAMPS / group, text)
    marker.unlink()


def _pip_install(*arguments: str) -> None:
    pip = [str(VENV / "bin/python"), "-I", "-m", "pip", "install", "--no-input", "--prefer-binary"]
    pip += ["--no-compile", "--no-warn-script-location", "--disable-pip-version-check", "-q"]
    run([*pip, *arguments], environment=_pip_environment(), failure="pip could not install the packages")


def _renew_pip() -> None:
    """Bring the pip that constraints.txt pins: Python 3.11's own takes twice as long for the rest.

    Where it cannot be had, the old one goes on: it installs the same.
    """
    pin = re.search(r"^pip==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    if pin is None or list((VENV / "lib").glob(f"python3*/site-packages/pip-{pin[1]}.dist-info")):
        return
    try:
        _pip_install(pin[0])
    except SetupError:
        say(f"{pin[0]} cannot be had (the log says why), going on with the pip that is there: {LOG}")


def _venv_is_sound() -> bool:
    """Return whether .venv was made to the end, here, by an interpreter that is still there, and not left half-way."""
    try:
        place, base = (STAMPS / "base").read_text("utf-8").splitlines()
        same = os.path.samefile(base, VENV / "bin/python")
    except (OSError, ValueError):
        return False
    return place == str(ROOT) and same and not (STAMPS / "installing").exists()


def ensure_venv() -> None:
    """Make the virtual environment, with pip in it, if it is missing, was moved or was left half-way."""
    if _venv_is_sound():
        return
    if VENV.is_symlink():
        raise SetupError(f"{VENV} is a symbolic link; remove it and run the same command again")
    if VENV.exists():
        say("the environment in .venv is incomplete or was moved: making it anew")
        shutil.rmtree(VENV)
    version = ".".join(map(str, sys.version_info[:3]))
    with step(f"making the environment (once) in .venv with Python {version}"):
        run(
            [PYTHON, "-I", "-m", "venv", "--without-pip", str(VENV)],
            failure="Python could not make a virtual environment (is its venv module there?)",
        )
        _bring_pip()
    STAMPS.mkdir()
    _write(STAMPS / "base", f"{ROOT}\n{os.path.realpath(VENV / 'bin/python')}\n")


def _bring_pip() -> None:
    """Put pip into the virtual environment: Python's own or the distribution's, or else one fetched through apt."""
    site = next((VENV / "lib").glob("python3*")) / "site-packages"
    wheels = _pip_wheels()
    own = find_spec("pip")
    if not wheels and own is not None and own.submodule_search_locations:
        shutil.copytree(own.submodule_search_locations[0], site / "pip", ignore=shutil.ignore_patterns("__pycache__"))
        return
    if not wheels and debian.has_apt():
        folder = STATE / "pip"
        try:
            debian.unpack(["python3-pip-whl"], folder, log, closure=False)
        except debian.SystemPackageError as error:
            log(str(error))
        wheels = sorted(folder.glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise SetupError(
            f"this Python ({PYTHON}) has neither pip nor ensurepip, and none could be fetched. As an administrator: "
            f"apt-get update && apt-get install python3-venv (Fedora: dnf install python3-pip). The log: {LOG}"
        )
    # Unzipping is all that installing a pure wheel takes here, and a tenth of the time that ensurepip takes.
    with zipfile.ZipFile(wheels[-1]) as wheel:
        wheel.extractall(site)


def _pip_wheels() -> list[Path]:
    folders = [Path("/usr/share/python-wheels")]
    ensurepip = find_spec("ensurepip")
    if ensurepip is not None and ensurepip.origin is not None:
        folders.append(Path(ensurepip.origin).parent / "_bundled")
    return [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]


def _link_checkout(scripts: Mapping[str, str]) -> None:
    """Make the checkout importable in .venv and its commands callable, without building anything."""
    site = next((VENV / "lib").glob("python3*")) / "site-packages"
    (site / "mmdgen-checkout.pth").write_text(f"{ROOT}\n", "utf-8")
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        script = VENV / "bin" / name
        script.write_text(_SCRIPT.format(python=VENV / "bin/python", module=module, function=function), "utf-8")
        script.chmod(0o755)


def _pip_environment() -> dict[str, str]:
    """Return this process's environment for pip: the machine's settings hold, but for those that rule out .venv."""
    environment = dict(os.environ)
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    environment.update(PIP_USER="0", PIP_NO_INPUT="1", VIRTUAL_ENV=str(VENV))
    bundle = _certificates()
    if bundle is not None:
        environment.update(dict.fromkeys(_CERTIFICATE_VARIABLES, str(bundle)))
    return environment


def _certificates() -> Path | None:
    """Return a bundle of certificate authorities where the machine has none (or names a missing one), else None."""
    named = [os.environ[name] for name in _CERTIFICATE_VARIABLES if os.environ.get(name)]
    defaults = ssl.get_default_verify_paths()
    there = [path for path in (*_BUNDLES, defaults.cafile) if path and os.path.isfile(path)]
    if there and all(os.path.exists(path) for path in named):
        return None
    bundle = STATE / "certificates.pem"
    if there:
        return Path(there[0])
    if bundle.is_file():
        return bundle
    if not debian.has_apt():
        return None
    folder = STATE / "ca-certificates"
    try:
        with step("fetching the certificate authorities that this machine lacks"):
            debian.unpack(["ca-certificates"], folder, log, closure=False)
    except debian.SystemPackageError as error:  # pip will say what it misses; it may well do without
        log(str(error))
        return None
    local = Path("/usr/local/share/ca-certificates")  # where administrators put their own
    files = sorted(folder.glob("usr/share/ca-certificates/**/*.crt")) + sorted(local.glob("**/*.crt"))
    _write(bundle, "\n".join(path.read_text("ascii", "replace") for path in files))
    return bundle


# --- OpenGL -----------------------------------------------------------------------------------------------------------


def ensure_gl() -> None:
    """Leave in `GL_STAMP` how OpenGL is found, for `tools/run`: lines of ``env NAME=VALUE`` and ``need FILE``.

    Where it cannot be had, say so and go on: `mmdgen doctor` and commands that do not draw still work. What failed
    once is not tried again at every start; `mmdgen doctor --fix` tries again.
    """
    tried = GL_STAMP.exists() and GL_STAMP.read_text("utf-8").startswith("missing")
    setup = gl_setup.find(GL_FOLDER)
    if setup.mode == "missing" and not tried:
        with step("OpenGL is missing: bringing Mesa's software renderer (once)"):
            setup = gl_setup.ensure(GL_FOLDER, log)
    if setup.mode == "missing":
        say(f"nothing can be drawn without OpenGL. {setup.problem}")
    lines = [setup.mode]
    lines += [f"env {name}={value}" for name, value in setup.environment.items()]
    lines += [f"need {path}" for path in setup.probe.libraries]
    _write(GL_STAMP, "\n".join(lines) + "\n")


# --- Chromium ---------------------------------------------------------------------------------------------------------


def ensure_chromium() -> None:
    """Install the distribution's Chromium for the tests in a browser, as root; else say what a person can do.

    The tests themselves notice where it is missing, and skip.
    """
    if any(shutil.which(name) for name in CHROMIUM):
        return
    if not (debian.is_root() and debian.has_apt()):
        say("Chromium is missing, so tests in a browser are skipped. As an administrator: apt-get install chromium")
        return
    try:
        with step("Chromium is missing: installing it for the tests in a browser (once)"):
            debian.install(["chromium"], log)
    except debian.SystemPackageError as error:
        say(f"Chromium could not be installed, so tests in a browser are skipped. {error}")


# --- files ------------------------------------------------------------------------------------------------------------


def _is_current(stamp: Path, text: str) -> bool:
    try:
        return stamp.read_text("utf-8") == text
    except OSError:
        return False


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the environment of this checkout.")
    parser.add_argument("groups", help="comma-separated: core, web, train, onnx, test, browser, lint")
    parser.add_argument("--gl", action="store_true", help="also see to OpenGL")
    parser.add_argument("--chromium", action="store_true", help="also see to Chromium")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        with locked():
            if LOG.exists() and LOG.stat().st_size > 2_000_000:
                LOG.unlink()
            for path in STATE.glob("*.*"):  # half-unpacked packages of a run that was killed
                if path.is_dir():
                    shutil.rmtree(path)
            log(f"==== {time.strftime('%Y-%m-%d %H:%M:%S')} {arguments.groups} {'gl' if arguments.gl else ''}")
            ensure_venv()
            with ThreadPoolExecutor(1) as beside:  # apt and pip share nothing, and each waits for the network
                wanted = [(ensure_gl, arguments.gl), (ensure_chromium, arguments.chromium)]
                under_way = [beside.submit(function) for function, asked in wanted if asked]
                ensure_packages(arguments.groups.split(","))
            for future in under_way:
                future.result()
    except (SetupError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    if _worked:
        say(f"the environment is ready ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
