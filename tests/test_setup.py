"""`tools/run` and what it is made of: the quick way, the way that makes the environment, and what stands in its way."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import conftest
import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from mmdgen.render import debian, egl_probe, gl_setup

ROOT = Path(__file__).resolve().parent.parent
GPU_LIBRARIES = ("cuda-", "nvidia-", "triton")  # of torch's default build for Linux, which pins them itself
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def pins() -> dict[NormalizedName, str]:
    """Return the exact versions of constraints.txt by canonical name."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()]
    found = {}
    for line in filter(None, lines):
        name, equals, version = line.partition("==")
        assert re.fullmatch("==[0-9][0-9a-z.]*", equals + version), f"not an exact version: {line}"
        found[canonicalize_name(name)] = version
    return found


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


# --- versions ---------------------------------------------------------------------------------------------------------


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    for requirement in requirements():
        assert requirement.specifier.contains(pins().get(canonicalize_name(requirement.name), "")), requirement


def test_what_the_requirements_need_is_pinned_too() -> None:
    """Follow the metadata of what is installed here: nothing may come in with a version of its own."""
    todo = [(requirement, extra) for requirement in requirements() for extra in (*requirement.extras, "")]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add((name, extra))
        if name.startswith(GPU_LIBRARIES):
            continue
        assert name in pins(), f"{name} is needed, but constraints.txt does not pin it"
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for text in needed:
            child = Requirement(text)
            if child.marker is None or child.marker.evaluate({"extra": extra}):
                todo += [(Requirement(text.split(";")[0]), inner) for inner in (*child.extras, "")]
    assert len(seen) >= 12


def test_the_core_needs_no_training_cluster_or_web_packages() -> None:
    core = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert core == {"moderngl", "pyrr", "numpy", "pillow", "click", "h5py", "tqdm", "isal", "numba", "zstandard"}


def test_torch_is_one_release_and_no_particular_build() -> None:
    [torch] = [requirement for requirement in requirements() if requirement.name == "torch"]
    assert str(torch.specifier) == "==2.13.*"
    assert re.fullmatch(r"2\.13\.\d+", pins()[canonicalize_name("torch")])
    assert "torchvision" not in pins()  # another release of it than torch's own breaks torchmetrics
    assert not [name for name in pins() if name.startswith(GPU_LIBRARIES)]


def test_doctor_asks_for_the_versions_that_the_project_declares() -> None:
    from mmdgen.cli import doctor

    declared = {canonicalize_name(Requirement(text).name): Requirement(text) for text in PROJECT["dependencies"]}
    assert set(declared) <= set(doctor.PACKAGES)
    for name, least in doctor.MINIMUM.items():
        assert str(declared[canonicalize_name(name)].specifier) == f">={least}"


def test_an_installed_package_has_every_file_that_it_reads() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"][
        "mmdgen"
    ]
    packed = {path for pattern in patterns for path in (ROOT / "mmdgen").glob(pattern)}
    there = {
        path
        for path in (ROOT / "mmdgen").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".md") and path.parent.name != "__pycache__"
    }
    assert there == packed
    folders = {path.parent for path in (ROOT / "mmdgen").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []  # setuptools would skip it


def test_no_file_names_a_package_index() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    options = "index" + "-url|find" + "-links|trusted" + "-host"  # not spelt out: this file is one of those searched
    suspicious = re.compile(
        rf"--({options})|https?://[^\s\"')]*(/simple\b|pypi\.|pythonhosted|registry\.npm|/debian\b)"
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.suffix in (".png", ".jpg", ".pmx", ".gz", ".npz") or not path.is_file():
            continue
        found = suspicious.search(path.read_text("utf-8", "replace"))
        assert found is None, f"{name}: {found}"


def test_set_up_needs_only_the_standard_library() -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tools')!r}]; sys.dont_write_bytecode = True\n"
        "import environment, mmdgen.render.egl_probe, sysconfig\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(*sorted(loaded - sys.stdlib_module_names - {'mmdgen', 'environment', '__main__'}))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- tools/run: the quick way -----------------------------------------------------------------------------------------


class Checkout:
    """A small checkout with the real tools/run, whose environment looks finished."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools/run", root / "tools/run")
        self.slow_way("import sys; print('COLD', *sys.argv[1:], file=sys.stderr); sys.exit(7)")
        (root / "pyproject.toml").write_text("[project]\nname = 'x'\ndependencies = []\n", "utf-8")
        (root / "constraints.txt").write_text("# none\n", "utf-8")
        (root / ".venv/bin").mkdir(parents=True)
        (root / ".venv/bin/python").symlink_to(sys.executable)
        self.stamps.mkdir()
        text = f"{root}\n{os.path.realpath(sys.executable)}\n"
        (self.stamps / "base").write_text(text, "utf-8")
        for group in ("core", "web", "train", "onnx", "test", "browser", "lint"):
            self.stamp(group)
        (root / ".mmdgen").mkdir()
        self.gl("system\n")

    @property
    def stamps(self) -> Path:
        return self.root / ".venv/mmdgen-stamps"

    def stamp(self, group: str) -> None:
        parts = (
            str(self.root),
            *((self.root / name).read_text("utf-8") for name in ("pyproject.toml", "constraints.txt")),
        )
        (self.stamps / group).write_text("\n".join(parts), "utf-8")

    def slow_way(self, code: str) -> None:
        (self.root / "tools/environment.py").write_text(code + "\n", "utf-8")

    def gl(self, text: str) -> None:
        (self.root / ".mmdgen/gl.stamp").write_text(text, "utf-8")

    def run(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "tools/run"), *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def is_cold(self, *arguments: str) -> bool:
        done = self.run(*arguments)
        assert done.returncode == (7 if "COLD" in done.stderr else 0), done.stderr
        return "COLD" in done.stderr


@pytest.fixture
def ready(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path.resolve() / "a check out")  # with spaces


def test_a_finished_environment_is_used_as_it_is(ready: Checkout, tmp_path: Path) -> None:
    program = 'printf "%s|" "$PWD" "$VIRTUAL_ENV" "${PATH%%:*}" "$@"; exit 3'
    done = ready.run("bash", "-c", program, "-", "two words", "*", "", cwd=tmp_path)
    venv = f"{ready.root}/.venv"
    assert done.stdout.split("|")[:-1] == [str(tmp_path), venv, f"{venv}/bin", "two words", "*", ""]
    assert (done.returncode, done.stderr) == (3, "")


def test_the_help_says_how_to_use_it(ready: Checkout) -> None:
    assert "tools/run COMMAND" in ready.run("--help").stdout
    assert ready.run("--help").returncode == 0
    assert ready.run().returncode == 2


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_is_installed(ready: Checkout, name: str) -> None:
    assert not ready.is_cold("true")
    with (ready.root / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert ready.is_cold("true")
    ready.stamp("core")
    assert not ready.is_cold("true")


@pytest.mark.parametrize(
    ("command", "groups", "gl"),
    [
        (["mmdgen"], "core", True),
        (["mmdgen", "render", "--poses", "8"], "core", True),
        (["mmdgen", "annotate", "--models", "x"], "core,web", True),
        (["mmdgen", "annotate", "--kind", "head_bounds", "--models", "x"], "core,web", True),
        (["mmdgen", "annotate", "--models", "x", "--auto", "--json"], "core", True),
        (["mmdgen", "annotate", "validate", "x"], "core", True),
        (["mmdgen", "annotate", "--help"], "core", True),
        (["mmdgen", "annotate"], "core", True),
        (["mmdgen", "annotate", "validate", "--help"], "core", True),
        (["mmdgen", "train", "morpher", "--data", "d", "--out", "r"], "core,train", False),
        (["mmdgen", "train", "morpher", "--preset", "small", "--describe"], "core,train", False),
        (["mmdgen", "train", "morpher", "--help"], "core", True),
        (["mmdgen", "train", "-h"], "core", True),
        (["mmdgen", "evaluate", "--run", "r", "--data", "d"], "core,train", False),
        (["mmdgen", "pose", "--run", "r", "--image", "x.png"], "core,train", False),
        (["mmdgen", "pose", "--run", "r", "--serve"], "core,train,web", False),
        (["mmdgen", "pose", "--run", "r", "--serve", "--models", "m"], "core,train,web", True),
        (["mmdgen", "pose", "--run", "r", "--serve", "--models=m"], "core,train,web", True),
        (["mmdgen", "pose", "--run", "r", "--onnx", "o"], "core,train,onnx", False),
        (["mmdgen", "render", "--out", "train"], "core", True),
        (["mmdgen", "render", "--poses", "8", "--engine", "ray"], "core,ray", True),
        (["mmdgen", "render", "--poses", "8", "--engine=ray", "--out", "s3://b/d"], "core,ray,remote", True),
        (["mmdgen", "verify", "s3://b/d"], "core,remote", True),
        (["mmdgen", "export", "parquet", "out/d"], "core,export", True),
        (["mmdgen", "export", "png", "out/d"], "core", True),
        (["pytest", "-q"], "core,web,test,train,onnx", True),
        (["python", "-m", "pytest"], "core,web,test,train,onnx", True),
        (["python", "x.py"], "core", True),
        (["python", "browser.py"], "core", True),
        (["python", "tools/bench/loader.py"], "core,train", True),
        (["ruff", "check"], "lint", False),
        (["pyright"], "core,web,test,browser,train,onnx,ray,remote,export,peers,lint", False),
    ],
)
def test_a_command_brings_only_what_it_needs(ready: Checkout, command: list[str], groups: str, gl: bool) -> None:
    shutil.rmtree(ready.stamps)
    done = ready.run(*command)
    assert done.stderr.split() == ["COLD", groups, *(["--gl"] if gl else [])]
    assert done.stdout == ""


def test_bytecode_is_kept_also_where_none_may_lie_beside_sources(ready: Checkout) -> None:
    show = ["sh", "-c", 'echo "${PYTHONDONTWRITEBYTECODE-none} ${PYTHONPYCACHEPREFIX-none}"']
    kept = f"none {ready.root}/.mmdgen/bytecode\n"
    assert ready.run(*show, PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX="").stdout == kept
    assert ready.run(*show, PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX="/own").stdout == "1 /own\n"


def test_torch_can_be_left_out_of_the_tests(ready: Checkout) -> None:
    shutil.rmtree(ready.stamps)
    assert ready.run("pytest", MMDGEN_TRAIN="0").stderr.split() == ["COLD", "core,web,test", "--gl"]
    browser = ready.run("pytest", "-m", "browser", MMDGEN_TRAIN="0").stderr.split()
    assert browser[1] == "core,web,test,browser"
    assert ready.run("mmdgen", "train", "morpher", MMDGEN_TRAIN="0").stderr.split() == ["COLD", "core,train"]


def test_tests_of_training_skip_or_fail_without_torch(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.setattr(conftest.importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    assert conftest.training_problem().startswith("torch not installed")
    monkeypatch.setenv("MMDGEN_REQUIRE_TRAIN", "0")
    conftest.pytest_configure(pytestconfig)
    monkeypatch.setenv("MMDGEN_REQUIRE_TRAIN", "1")
    with pytest.raises(pytest.UsageError, match="torch not installed"):
        conftest.pytest_configure(pytestconfig)
    monkeypatch.setattr(conftest.importlib.util, "find_spec", lambda name: name)
    conftest.pytest_configure(pytestconfig)


@pytest.mark.parametrize(
    ("command", "environment", "asked"),
    [
        (["pytest"], {}, False),
        (["pytest", "-m", "browser"], {}, True),
        (["python", "-m", "pytest", "tests/test_browser.py"], {}, True),
        (["pytest", "-m", "browser"], {"MMDGEN_BROWSER": "0"}, False),
        (["pytest", "-m", "not browser"], {}, False),
        (["pytest"], {"MMDGEN_BROWSER": "1"}, True),
        (["mmdgen", "scan"], {"MMDGEN_BROWSER": "1"}, False),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_a_browser_comes_only_where_it_is_asked_for(
    ready: Checkout, tmp_path: Path, command: list[str], environment: dict[str, str], asked: bool, there: bool
) -> None:
    shutil.rmtree(ready.stamps)
    # of the system only what tools/run itself needs, so that the machine's own Chromium is not seen
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").symlink_to(sys.executable)
    if there:
        (programs / "chromium").symlink_to("/bin/true")
    done = ready.run(*command, cwd=None, **{"PATH": str(programs), **environment})
    _, groups, *options = done.stderr.split()
    assert ("browser" in groups.split(",")) == asked
    assert options == ["--gl", *(["--chromium"] if asked and not there else [])]


@pytest.mark.parametrize("name", ["head_bounds", "wink_morphs"])
def test_the_annotators_have_programs_of_their_own(ready: Checkout, name: str) -> None:
    shutil.copy(ROOT / "tools" / name, ready.root / "tools" / name)
    (ready.root / ".venv/bin/mmdgen").symlink_to("/bin/echo")
    program = ready.root / "tools" / name
    for command, cwd in (([str(program)], None), ([f"./{name}"], program.parent), (["bash", name], program.parent)):
        done = subprocess.run(
            [*command, "--models", "two words"], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.stdout, done.stderr) == (f"annotate --kind {name} --models two words\n", "")


def test_other_groups_do_not_matter(ready: Checkout) -> None:
    (ready.stamps / "test").unlink()
    assert not ready.is_cold("true")
    (ready.root / ".venv/bin/pytest").symlink_to("/bin/true")
    assert ready.is_cold("pytest")


def test_what_was_left_half_way_is_not_used(ready: Checkout) -> None:
    (ready.stamps / "installing").touch()
    assert ready.is_cold("true")


def test_a_moved_checkout_is_made_anew(ready: Checkout) -> None:
    elsewhere = ready.root.with_name("moved")
    ready.root.rename(elsewhere)
    ready.root = elsewhere
    assert ready.is_cold("true")


def test_another_or_vanished_interpreter_is_noticed(ready: Checkout) -> None:
    link = ready.root / ".venv/bin/python"
    for target in ("/bin/sh", "/nonexistent/python"):
        link.unlink()
        link.symlink_to(target)
        assert ready.is_cold("true")


def test_vanished_gl_libraries_are_noticed(ready: Checkout) -> None:
    library = ready.root / "libEGL.so.1"
    library.touch()
    ready.gl(f"system\nneed {library}\n")
    assert not ready.is_cold("true")
    library.unlink()
    assert ready.is_cold("true")
    (ready.root / ".venv/bin/ruff").symlink_to("/bin/true")
    assert not ready.is_cold("ruff")  # which draws nothing


def test_unpacked_gl_libraries_are_set_before_the_command_starts(ready: Checkout) -> None:
    ready.gl("unpacked\nenv LD_LIBRARY_PATH=/a b/lib:/c\nenv LIBGL_DRIVERS_PATH=/a b/dri\n")
    program = 'echo "$LD_LIBRARY_PATH|$LIBGL_DRIVERS_PATH"'
    assert ready.run("bash", "-c", program).stdout == "/a b/lib:/c|/a b/dri\n"
    assert ready.run("bash", "-c", program, LD_LIBRARY_PATH="/mine").stdout == "/a b/lib:/c:/mine|/a b/dri\n"
    # a tools/run inside a tools/run does not add them twice
    inner = ready.run("bash", "-c", program, LD_LIBRARY_PATH="/a b/lib:/c:/mine").stdout
    assert inner == "/a b/lib:/c:/mine|/a b/dri\n"


def test_a_failed_set_up_does_not_run_the_command(ready: Checkout) -> None:
    (ready.stamps / "core").unlink()
    done = ready.run("echo", "ran")
    assert (done.returncode, done.stdout) == (7, "")


def test_missing_gl_does_not_stop_a_command_and_fix_tries_again(ready: Checkout) -> None:
    ready.gl("missing\n")
    ready.slow_way("import os, sys; print('tried' if os.path.exists('.mmdgen/gl.stamp') else 'first', file=sys.stderr)")
    (ready.root / ".venv/bin/mmdgen").symlink_to("/bin/echo")
    done = ready.run("mmdgen", "doctor", cwd=ready.root)
    assert (done.stdout, done.stderr, done.returncode) == ("doctor\n", "tried\n", 0)
    done = ready.run("mmdgen", "doctor", "--fix", cwd=ready.root)
    assert (done.stdout, done.stderr) == ("doctor --fix\n", "first\n")


def test_no_usable_python_is_said_clearly(ready: Checkout) -> None:
    (ready.stamps / "core").unlink()
    done = ready.run("true", MMDGEN_PYTHON="/bin/false")
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr


# --- tools/environment.py: making it ----------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout without requirements, so that an environment can be made without a network."""
    root = tmp_path.resolve() / "bare"
    (root / "tools").mkdir(parents=True)
    for name in ("run", "environment.py"):
        shutil.copy(ROOT / "tools" / name, root / "tools" / name)
    (root / "mmdgen").symlink_to(ROOT / "mmdgen")
    text = '[project]\nname = "mmdgen"\ndependencies = []\n[project.optional-dependencies]\ntest = []\nlint = []\n'
    (root / "pyproject.toml").write_text(text + '[project.scripts]\nhello = "hello:main"\n', "utf-8")
    (root / "hello.py").write_text("def main():\n    print('hello')\n    return 4\n", "utf-8")
    (root / "constraints.txt").write_text("", "utf-8")
    return root


def make(root: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", str(root / "tools/environment.py"), *(arguments or ("core",))]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_an_environment_is_made_once_used_quickly_and_repaired(bare: Path) -> None:
    def hello() -> subprocess.CompletedProcess[str]:
        return subprocess.run([bare / "tools/run", "hello"], capture_output=True, text=True, check=False, timeout=120)

    (bare / ".mmdgen").mkdir()
    (bare / ".mmdgen/gl.stamp").write_text("system\n", "utf-8")
    first = hello()
    assert (first.stdout, first.returncode) == ("hello\n", 4), first.stderr
    assert "making the environment (once)" in first.stderr
    assert hello().stderr == ""  # the stamps of Python's side are the texts that bash compares with
    pip = subprocess.run(
        [bare / ".venv/bin/python", "-m", "pip", "--version"], capture_output=True, text=True, check=True
    )
    assert str(bare / ".venv") in pip.stdout

    (bare / ".venv/mmdgen-stamps/installing").touch()  # killed while installing
    (bare / ".mmdgen/gl.x1y2z3").mkdir()  # and while unpacking
    assert "incomplete" in hello().stderr
    assert not (bare / ".mmdgen/gl.x1y2z3").exists()
    (bare / ".venv/mmdgen-stamps/base").unlink()  # killed while making it
    assert "incomplete" in hello().stderr
    assert hello().stderr == ""


def test_two_at_once_make_one_environment(bare: Path) -> None:
    outputs = [process.communicate(timeout=120)[1] for process in [make(bare), make(bare)]]
    assert sum("making the environment" in text for text in outputs) == 1, outputs
    assert (bare / ".venv/mmdgen-stamps/core").exists()


def test_a_failing_installation_shows_the_end_of_the_log_and_leaves_no_stamp(bare: Path) -> None:
    settings = (bare / "pyproject.toml").read_text("utf-8")
    broken = settings.replace(
        "dependencies = []", 'dependencies = ["no-such-thing @ file:///no/such/no_such_thing-1.0-py3-none-any.whl"]', 1
    )
    (bare / "pyproject.toml").write_text(broken, "utf-8")
    process = make(bare)
    text = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "pip could not install the packages" in text
    assert "no_such_thing-1.0" in text
    assert str(bare / ".mmdgen/setup.log") in text
    assert not (bare / ".venv/mmdgen-stamps/core").exists()


def environment_module():
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools/environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pinned_pip_is_brought_once_and_can_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = environment_module()
    commands: list[list[str]] = []

    def run(command: list[str], **more: Any) -> None:
        commands.append(command)
        raise environment.SetupError("there is no such version here")

    monkeypatch.setattr(environment, "run", run)
    for name, path in (("ROOT", tmp_path), ("VENV", tmp_path / "v"), ("STATE", tmp_path)):
        monkeypatch.setattr(environment, name, path)
    pins_there = tmp_path / "constraints.txt"
    pins_there.write_text("numpy==2\n", "utf-8")
    environment._renew_pip()
    assert commands == []
    pins_there.write_text("numpy==2\npip==99.5\npluggy==1\n", "utf-8")
    environment._renew_pip()
    assert [command[-1] for command in commands] == ["pip==99.5"]
    assert "pip==99.5 cannot be had" in capsys.readouterr().err
    (tmp_path / "v/lib/python3.11/site-packages/pip-99.5.dist-info").mkdir(parents=True)
    environment._renew_pip()
    assert len(commands) == 1


def test_settings_that_rule_out_the_environment_are_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_TARGET", "PIP_PREFIX", "PYTHONPATH"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_RETRIES", "9")
    result = environment_module()._pip_environment()
    assert "/elsewhere" not in result.values()
    assert (result["PIP_USER"], result["PIP_RETRIES"]) == ("0", "9")


def test_a_missing_certificate_bundle_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = environment_module()
    there = tmp_path / "there.pem"
    there.write_text("x", "ascii")
    monkeypatch.setattr(environment, "_BUNDLES", (str(there),))
    for name in environment._CERTIFICATE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert environment._certificates() is None
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "missing.pem"))
    assert environment._certificates() == there


@pytest.mark.parametrize("root", [True, False])
def test_chromium_is_installed_by_root_alone_and_failing_stops_nothing(
    root: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = environment_module()
    asked: list[list[str]] = []

    def install(packages: list[str], log: object) -> None:
        asked.append(list(packages))
        raise debian.SystemPackageError("no network")

    monkeypatch.setattr(environment, "LOG", tmp_path / "log")
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    monkeypatch.setattr(environment.debian, "is_root", lambda: root)
    monkeypatch.setattr(environment.debian, "has_apt", lambda: True)
    monkeypatch.setattr(environment.debian, "install", install)
    environment.ensure_chromium()
    said = capsys.readouterr().err
    assert asked == ([["chromium"]] if root else [])
    assert "are skipped" in said
    assert ("no network" if root else "As an administrator: apt-get install chromium") in said
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/chromium" if name == "chromium" else None)
    environment.ensure_chromium()
    assert capsys.readouterr().err == ""
    assert len(asked) == int(root)


# --- packages of the system -------------------------------------------------------------------------------------------

FAKE_APT = """#!/bin/sh
unset archives
echo "apt-get $*" >>"$FAKE/calls"
for word; do case $word in update) echo fresh >"$FAKE/lists"; exit 1;; esac; done
[ "$(cat "$FAKE/lists")" = fresh ] || { echo "E: Unable to locate package" >&2; exit 100; }
for word; do case $word in Dir::Cache=*) archives=${word#Dir::Cache=}/archives;; esac; done
for word; do case $word in download) archives=.;; esac; done
[ -n "$archives" ] && [ ! -e "$FAKE/nothing" ] || exit 0
for name in libegl1_1 libc6_2; do echo "$name" >"$archives/${name}_amd64.deb"; done
"""
FAKE_DPKG = """#!/bin/sh
echo "dpkg-deb $*" >>"$FAKE/calls"
[ ! -e "$FAKE/corrupt" ] || { echo "dpkg-deb: error: corrupt" >&2; exit 2; }
mkdir -p "$3/usr/lib/x86_64-linux-gnu" && cp "$2" "$3/usr/lib/x86_64-linux-gnu/"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an apt that writes down how it was called; its lists are old until they are updated."""
    folder = tmp_path / "fake"
    (folder / "bin").mkdir(parents=True)
    for name, text in (("apt-get", FAKE_APT), ("dpkg-deb", FAKE_DPKG)):
        (folder / "bin" / name).write_text(text, "utf-8")
        (folder / "bin" / name).chmod(0o755)
    (folder / "lists").write_text("old\n", "utf-8")
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize("closure", [True, False])
@pytest.mark.parametrize("lists", [True, False])
def test_packages_are_unpacked_without_root(
    fake: Path, tmp_path: Path, closure: bool, lists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "_lists_are_there", lambda: lists)
    log: list[str] = []
    target = tmp_path / "state" / "gl"
    debian.unpack(["libegl1"], target, log.append, closure=closure)
    assert [path.name for path in target.rglob("*.deb")] == ["libegl1_1_amd64.deb"]  # and never a C library
    assert list(target.parent.iterdir()) == [target]
    calls = (fake / "calls").read_text("utf-8")
    assert "update" in calls
    assert "/lists" in calls  # a private copy of the lists: the machine's cannot be written


def test_a_failed_unpacking_leaves_what_was_there(fake: Path, tmp_path: Path) -> None:
    target = tmp_path / "gl"
    target.mkdir()
    (target / "old").touch()
    for cause, message in (("nothing", "downloaded nothing"), ("corrupt", "corrupt")):
        (fake / cause).touch()
        with pytest.raises(debian.SystemPackageError, match=message):
            debian.unpack(["libegl1"], target, lambda text: None)
        (fake / cause).unlink()
        assert [path.name for path in target.iterdir()] == ["old"]
    assert {path.name for path in tmp_path.iterdir()} == {"fake", "gl"}


@pytest.mark.parametrize("lists", [True, False])
def test_installing_updates_old_lists_and_says_what_apt_said(
    fake: Path, lists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "_lists_are_there", lambda: lists)
    debian.install(["libegl1"], lambda text: None)
    calls = (fake / "calls").read_text("utf-8").splitlines()
    assert "--no-install-recommends libegl1" in calls[-1]
    assert any("update" in call for call in calls)
    (fake / "bin/apt-get").write_text("#!/bin/sh\necho 'E: the disk is full'; exit 100\n", "utf-8")
    with pytest.raises(debian.SystemPackageError, match="the disk is full"):
        debian.install(["libegl1"], lambda text: None)


# --- OpenGL -----------------------------------------------------------------------------------------------------------


def test_unpacked_libraries_are_found_wherever_the_packages_put_them(tmp_path: Path) -> None:
    for name in (
        "usr/lib/x86_64-linux-gnu/libEGL.so.1",
        "lib/x86_64-linux-gnu/libexpat.so.1",
        "usr/lib/x/dri/swrast_dri.so",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = gl_setup.environment_for(tmp_path)
    assert found["LD_LIBRARY_PATH"].split(":") == [
        f"{tmp_path}/lib/x86_64-linux-gnu",
        f"{tmp_path}/usr/lib/x86_64-linux-gnu",
    ]
    assert found["LIBGL_DRIVERS_PATH"] == f"{tmp_path}/usr/lib/x/dri"
    vendors = found["__EGL_VENDOR_LIBRARY_DIRS"].split(":")
    assert vendors == [f"{tmp_path}/usr/share/glvnd/egl_vendor.d", *gl_setup.ICD_FOLDERS]


def test_an_own_library_path_stays_behind_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    assert gl_setup.merged({"LD_LIBRARY_PATH": "/ours"})["LD_LIBRARY_PATH"] == "/ours:/mine"
    monkeypatch.setenv("LD_LIBRARY_PATH", "/ours:/mine")
    assert gl_setup.merged({"LD_LIBRARY_PATH": "/ours"})["LD_LIBRARY_PATH"] == "/ours:/mine"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert gl_setup.merged({"LD_LIBRARY_PATH": "/ours"})["LD_LIBRARY_PATH"] == "/ours"


@pytest.mark.parametrize(
    ("program", "problem"), [("kill -SEGV $$", "status -11"), ("echo nonsense; echo why >&2; exit 1", "status 1. why")]
)
def test_a_crashing_driver_is_a_problem_and_not_an_error(
    program: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{program}\n", "utf-8")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    found = gl_setup.probe()
    assert not found.ok
    assert re.search(problem, found.problem)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(egl_probe.ctypes, "CDLL", missing)
    report = egl_probe.query()
    assert not report["ok"]
    assert "libGL.so.1" in report["problem"]


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ({"ID": "debian"}, "apt-get install --no-install-recommends libegl1 libgl1 libgl1-mesa-dri"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt-get install"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install"),
        ({"ID": "arch"}, "pacman"),
        ({}, "apt-get"),
    ],
)
def test_the_advice_fits_the_system(system: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl_setup, "_os_release", lambda: system)
    assert words in gl_setup.advice()


def scripted_probe(monkeypatch: pytest.MonkeyPatch, works: list[bool]) -> None:
    """Make `gl_setup.probe` answer as listed, one after the other."""
    answers = iter(works)

    def probe(environment: object = None, *, every_device: bool = False) -> gl_setup.GlProbe:
        ok = next(answers)
        return gl_setup.GlProbe(ok, "" if ok else "no driver")

    monkeypatch.setattr(gl_setup, "probe", probe)


def test_what_works_is_never_touched(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_probe(monkeypatch, [True])
    assert gl_setup.ensure(tmp_path / "gl", lambda text: None).mode == "system"
    assert not (fake / "calls").exists()


@pytest.mark.parametrize(
    ("root", "works", "mode"),
    [
        (True, [False, True], "system"),
        (True, [False, False, True], "unpacked"),  # installed, but of no use: then beside the system
        (False, [False, True], "unpacked"),
        (False, [False, False], "missing"),
    ],
)
def test_gl_is_brought_as_root_or_without(
    root: bool, works: list[bool], mode: str, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_probe(monkeypatch, works)
    monkeypatch.setattr(debian, "is_root", lambda: root)
    setup = gl_setup.ensure(tmp_path / "gl", lambda text: None)
    assert setup.mode == mode
    assert bool(setup.environment) == (mode == "unpacked")
    assert ("administrator" in setup.problem) == (mode == "missing")
    assert (tmp_path / "gl").exists() == (not root or mode == "unpacked")


def test_without_apt_a_person_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_probe(monkeypatch, [False])
    monkeypatch.setattr(debian, "has_apt", lambda: False)
    setup = gl_setup.ensure(tmp_path / "gl", lambda text: None)
    assert setup.mode == "missing"
    assert "no driver" in setup.problem


def test_a_restart_happens_only_where_it_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(gl_setup.os, "execve", lambda program, arguments, environment: calls.append(arguments))

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(gl_setup.ctypes, "CDLL", missing)
    gl_setup.restart_with_unpacked(tmp_path)  # nothing unpacked
    assert calls == []
    (tmp_path / "usr/lib").mkdir(parents=True)
    gl_setup.restart_with_unpacked(tmp_path)
    assert calls == [[sys.executable, *sys.orig_argv[1:]]]
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}/usr/lib")
    gl_setup.restart_with_unpacked(tmp_path)  # already restarted
    assert len(calls) == 1
    monkeypatch.delenv("LD_LIBRARY_PATH")
    monkeypatch.setattr(gl_setup.ctypes, "CDLL", lambda name: None)
    gl_setup.restart_with_unpacked(tmp_path)  # the machine has its own by now
    assert len(calls) == 1


@pytest.mark.gl
def test_the_probe_reports_devices_and_the_files_in_use() -> None:
    found = gl_setup.probe(every_device=True)
    assert found.ok
    assert found.devices[0]["index"] == 0
    working = [device for device in found.devices if device.get("version")]
    assert working
    major, minor = map(int, re.findall(r"\d+", working[0]["version"])[:2])
    assert (major, minor) >= egl_probe.GL_VERSION_NEEDED
    assert all(Path(path).exists() for path in found.libraries)
    assert any("libEGL" in path for path in found.libraries)
    json.dumps(found.devices)
