"""What all tests share: where real data lies, whether anything can be drawn here, and repeatable property tests."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from mmdgen.render import gl_setup

# Several test processes share the cores: threads of numpy and torch in each of them would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CHECKOUT = Path(__file__).resolve().parent.parent
# By processor time. What is missing here is not: it comes after these.
LONGEST = (
    "web_browser",
    "generate",
    "ray_engine",
    "remote",
    "cli_generate",
    "train_loop",
    "train_resume",
    "fuzz",
    "corpus_report",
    "long_runs",
    "setup_memory",
    "annotate_check",
    "annotate_cli",
    "phong_oracle",
    "train_loader",
    "web_poser",
    "cpu_raster",
    "evaluate",
    "web_session",
    "architecture",
    "generate_flow",
    "pose_cli",
    "flow",
    "setup",
    "annotate_bounds",
    "samples",
    "remove_model",
    "annotation_score",
)

# The same examples every time: a test that fails must fail again, here and elsewhere.
settings.register_profile(
    "mmdgen",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mmdgen")


@functools.cache
def gl_problem() -> str:
    """Return why nothing can be drawn on this machine, or an empty string."""
    return gl_setup.probe().problem


def find_shared() -> Path | None:
    """Return the folder of shared data beside the checkout, if it is there."""
    folder = CHECKOUT.parent / "shared"
    return folder if folder.is_dir() else None


def find_corpus() -> Path | None:
    """Return the folder of real models: what MMDGEN_CORPUS names, else the shared ones."""
    named = os.environ.get("MMDGEN_CORPUS")
    if named:
        return Path(named)
    shared = find_shared()
    return shared / "models" if shared is not None and (shared / "models").is_dir() else None


def real_files(*suffixes: str) -> list[Path]:
    """Return the real files of these kinds in the shared data and the corpus; skips the test where there are none."""
    folders = [folder for folder in (find_shared(), find_corpus()) if folder is not None and folder.is_dir()]
    paths = {path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in suffixes}
    if not paths:
        pytest.skip(f"no {' or '.join(suffixes)} file: neither in {CHECKOUT.parent / 'shared'} nor in MMDGEN_CORPUS")
    return sorted(paths)


@functools.cache
def find_chromium() -> str | None:
    """Return the path of a Chromium: what MMDGEN_CHROMIUM names, else the system's; Playwright downloads none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("MMDGEN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def browser_problem() -> str:
    """Return why no page can be opened in a browser here, or an empty string."""
    needed = ("playwright", "starlette", "uvicorn", "websockets")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        return f"{', '.join(missing)} not installed (tools/run pytest -m browser brings it)"
    return "" if find_chromium() else "there is no Chromium (as an administrator: apt-get install chromium)"


def training_problem() -> str:
    """Return why nothing can be trained here, or an empty string."""
    missing = [name for name in ("torch", "lightning_fabric", "torchmetrics") if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed (tools/run pytest brings it)" if missing else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="more cases where a test tries many, as the fuzzer does (minutes more)"
    )


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether tests that try many cases shall try all that they know: `pytest --thorough`."""
    return bool(pytestconfig.getoption("--thorough"))


def pytest_configure(config: pytest.Config) -> None:
    """Stop before the first test where training is asked for and cannot be: modules that need torch skip as a whole."""
    if os.environ.get("MMDGEN_REQUIRE_TRAIN", "0") not in ("", "0") and (problem := training_problem()):
        raise pytest.UsageError(f"MMDGEN_REQUIRE_TRAIN: {problem}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest in front, so that no process is left alone with one of them at the end."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))  # which keeps the order within a file


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what draws where nothing can be drawn, what needs a browser where there is none, and training without torch.

    MMDGEN_REQUIRE_GL, MMDGEN_REQUIRE_BROWSER and MMDGEN_REQUIRE_TRAIN ask for a failure instead (as CI does).
    """
    if item.get_closest_marker("train") is not None and (problem := training_problem()):
        pytest.skip(f"needs torch: {problem}")
    if item.get_closest_marker("browser") is not None and (problem := browser_problem()):
        if os.environ.get("MMDGEN_REQUIRE_BROWSER", "0") not in ("", "0"):
            pytest.fail(f"needs a browser: {problem}", pytrace=False)
        pytest.skip(f"needs a browser: {problem}")
    if item.get_closest_marker("gl") is None or not gl_problem():
        return
    reason = f"needs OpenGL: {gl_problem()}"
    if os.environ.get("MMDGEN_REQUIRE_GL"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, as Playwright drives it; for tests that are marked `browser`."""
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with shared fixtures and goldens; skips the test where it is missing."""
    folder = find_shared()
    if folder is None:
        pytest.skip(f"needs the shared data in {CHECKOUT.parent / 'shared'}")
    return folder


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder with real models; skips the test where there is none, fails where a missing one is named."""
    folder = find_corpus()
    if folder is None:
        pytest.skip(f"needs real models: MMDGEN_CORPUS, or {CHECKOUT.parent / 'shared/models'}")
    if not folder.is_dir():
        pytest.fail(f"MMDGEN_CORPUS names {folder}, which is not a folder")
    return folder
