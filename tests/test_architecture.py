"""The rules of mmdgen/DESIGN.md that are checked rather than remembered.

Each rule is a function from one parsed module to its violations; beside the check of the real sources stand tests that
the rule catches what was planted, and lets pass what is allowed.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up: a module may import from its own layer and from those before it.
LAYERS = (
    ("mmdgen", "mmdgen.errors", "mmdgen.geometry", "mmdgen.rng", "mmdgen.fsio", "mmdgen.png", "mmdgen.jit"),
    ("mmdgen.formats",),
    ("mmdgen.model",),
    ("mmdgen.samples",),
    ("mmdgen.pose",),
    ("mmdgen.render",),
    ("mmdgen.annotate",),
    ("mmdgen.dataset",),
    ("mmdgen.generate",),
    ("mmdgen.train",),
    ("mmdgen.web",),
    ("mmdgen.cli",),
)
# Packages that stand high in the list, but must not know all that is below them: beside the basics only this.
KNOWS = {
    "mmdgen.formats": (),
    "mmdgen.dataset": (),
    "mmdgen.train": ("mmdgen.dataset", "mmdgen.formats", "mmdgen.pose.vocabulary"),
}
# Third-party packages and the only places that may import them; numpy is allowed everywhere.
HEAVY = {
    "moderngl": ("mmdgen.render",),
    "glcontext": ("mmdgen.render",),
    "h5py": ("mmdgen.dataset",),
    "isal": ("mmdgen.dataset", "mmdgen.model.png_decode"),
    "llvmlite": ("mmdgen.render.cpu_simd",),
    "numba": ("mmdgen.jit", "mmdgen.render"),
    "zstandard": ("mmdgen.dataset",),
    "ray": ("mmdgen.generate.ray_driver",),
    "fsspec": ("mmdgen.dataset.remote",),
    "pyarrow": ("mmdgen.dataset",),
    "PIL": ("mmdgen.model.textures", "mmdgen.samples", "mmdgen.train.movie"),
    "pyrr": ("mmdgen.geometry",),
    "click": ("mmdgen.cli",),
    "tqdm": ("mmdgen.cli",),
    "starlette": ("mmdgen.web",),
    "uvicorn": ("mmdgen.web",),
    "websockets": ("mmdgen.web",),
    "torch": ("mmdgen.train",),  # with torch.utils.tensorboard, which needs the package of that name
    "lightning_fabric": ("mmdgen.train",),
    "torchmetrics": ("mmdgen.train",),
    "safetensors": ("mmdgen.train",),
    "tensorboard": ("mmdgen.train",),
    "onnx": ("mmdgen.train",),
    "onnxruntime": ("mmdgen.train",),
}
# What needs them works with the extras train and onnx; everything else must do without.
TRAINING = ("torch", "lightning_fabric", "torchmetrics", "safetensors", "tensorboard", "onnx", "onnxruntime")
# What guards the page, and a Ray of our own, must be unpredictable, and no sample depends on it.
SECRETS_HOMES = ("mmdgen.web.security", "mmdgen.generate.ray_driver")
RANDOM_MODULES = ("random", "secrets", "uuid", "numpy.random")
RANDOM_FUNCTIONS = ("os.urandom", "os.getrandom")
# torch draws from one state for the whole process unless it is given a generator. Its state may be set (from a seed of
# mmdgen.rng), and initialising a network's weights draws from it; whatever else draws must say which generator it uses.
TORCH_SETS = ("torch.seed", "torch.random.seed", "torch.cuda.seed", "torch.cuda.seed_all")  # ... from the clock
TORCH_DRAWS = re.compile(r"torch\.((rand|randn|randint)(_like)?|randperm|normal|bernoulli|multinomial|poisson)")
TENSOR_DRAWS = re.compile(
    r"(uniform|normal|log_normal|random|bernoulli|exponential|geometric|cauchy)_|bernoulli|multinomial"
)
MAX_LINES = 500


@dataclass(frozen=True)
class Module:
    """A parsed source file: its dotted name and, for messages, its path."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]

    @functools.cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))


def parse(path: str, text: str) -> Module:
    """Return the module of a source file at `path` relative to the checkout."""
    parts = Path(path).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, text, ast.parse(text, path))


@functools.cache
def sources(*folders: str) -> list[Module]:
    """Return all modules below the folders of the checkout."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


def inside(name: str, places: tuple[str, ...]) -> bool:
    """Return whether a dotted name is one of the places or below one."""
    return any(name == place or name.startswith(place + ".") for place in places)


def dotted(node: ast.expr) -> str:
    """Return an expression as it is written; for plain dotted names, which most are, without `ast.unparse`'s work."""
    parts: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    return ".".join([inner.id, *reversed(parts)]) if isinstance(inner, ast.Name) else ast.unparse(node)


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) for everything that a module imports, wherever: `from a import b` gives ``a.b``."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.package.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)


def layer(name: str) -> int | None:
    """Return the number of the layer that a dotted name is in, by its longest known prefix; None if it is in none."""
    parts = name.split(".")
    if len(parts) == 2 and parts[1].startswith("__"):  # mmdgen.__version__
        return 0
    if parts == ["mmdgen"]:
        return 0
    for number, places in enumerate(LAYERS):
        if inside(name, tuple(place for place in places if place != "mmdgen")):
            return number
    return None


# --- the rules --------------------------------------------------------------------------------------------------------


def imports_point_down(module: Module) -> Iterator[str]:
    own = layer(module.name)
    if own is None:
        yield f"{module.path}: {module.name} is in no layer of DESIGN.md"
        return
    home = next((place for place in KNOWS if inside(module.name, (place,))), None)
    for line, name in imports(module):
        if name.split(".")[0] == "tools":
            yield f"{module.path}:{line}: imports {name}: nobody sees the tools"
        if name.split(".")[0] != "mmdgen":
            continue
        other = layer(name)
        if other is None:
            yield f"{module.path}:{line}: {name} is in no layer of DESIGN.md"
        elif other > own:
            yield f"{module.path}:{line}: {module.name} imports {name}, which stands above it"
        elif home is not None and other > 0 and not inside(name, (home, *KNOWS[home])):
            known = ", ".join(("the basics", *KNOWS[home]))
            yield f"{module.path}:{line}: {home} knows nothing but {known}, found {name}"


def heavy_libraries_stay_home(module: Module) -> Iterator[str]:
    for line, name in imports(module):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in ("numpy", "mmdgen"):
            continue
        if top not in HEAVY:
            yield f"{module.path}:{line}: imports {top}, which the table of DESIGN.md does not list"
        elif not inside(module.name, HEAVY[top]):
            yield f"{module.path}:{line}: imports {top}, which is only for {', '.join(HEAVY[top])}"


def local_names(module: Module) -> dict[str, str]:
    """Return what each name that an import binds stands for: {local name: dotted name}."""
    names: dict[str, str] = {}
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def randomness_is_keyed(module: Module) -> Iterator[str]:
    if module.name == "mmdgen.rng":
        return
    names = local_names(module)
    for line, name in imports(module):
        if inside(name, ("secrets",)) and module.name in SECRETS_HOMES:
            continue
        if inside(name, RANDOM_MODULES) or name in RANDOM_FUNCTIONS:
            yield f"{module.path}:{line}: imports {name}: randomness comes only through mmdgen.rng"
    for node in module.nodes:
        if not isinstance(node, ast.Attribute):
            continue
        top, _, rest = dotted(node).partition(".")
        full = f"{names.get(top, top)}.{rest}"
        # The type of a stream may be named in an annotation; making one takes a bit generator from the same module.
        if (full.startswith("numpy.random.") and full != "numpy.random.Generator") or full in RANDOM_FUNCTIONS:
            yield f"{module.path}:{node.lineno}: uses {full}: randomness comes only through mmdgen.rng"


def torch_draws_from_a_generator(module: Module) -> Iterator[str]:
    names = local_names(module)
    for node in module.nodes:
        if not isinstance(node, ast.Call):
            continue
        top, _, rest = dotted(node.func).partition(".")
        full = ".".join(filter(None, (names.get(top, top), rest)))
        if full in TORCH_SETS or full.endswith("seed_everything"):
            yield f"{module.path}:{node.lineno}: {full}() takes a seed from elsewhere: use one of mmdgen.rng"
            continue
        drawing = TORCH_DRAWS.fullmatch(full) or (
            isinstance(node.func, ast.Attribute)
            and TENSOR_DRAWS.fullmatch(node.func.attr)
            and "init" not in full.split(".")  # torch.nn.init
            and top not in ("rng", "random", "generator")  # a stream of numpy
        )
        if drawing and not any(keyword.arg == "generator" for keyword in node.keywords):
            yield f"{module.path}:{node.lineno}: {full}() draws from torch's own state: give it a generator"


def nothing_is_printed(module: Module) -> Iterator[str]:
    if inside(module.name, ("mmdgen.cli", "tools")):
        return
    for node in module.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "pprint"):
            yield f"{module.path}:{node.lineno}: prints; only cli and tools do"


def nothing_is_asserted(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if isinstance(node, ast.Assert):
            yield f"{module.path}:{node.lineno}: assert vanishes under python -O; raise an error of mmdgen.errors"


def nothing_happens_on_import(module: Module) -> Iterator[str]:
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
    )
    for node in module.tree.body:
        constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guarded = isinstance(node, ast.If) and any(
            word in ast.unparse(node.test) for word in ("__name__", "TYPE_CHECKING", "sys.version_info", "sys.platform")
        )
        alias = isinstance(node, getattr(ast, "TypeAlias", ()))
        if not (isinstance(node, allowed) or constant or guarded or alias):
            yield f"{module.path}:{node.lineno}: runs at import time: {ast.unparse(node).splitlines()[0][:60]}"


def modules_are_short(module: Module) -> Iterator[str]:
    count = module.text.count("\n")
    if count > MAX_LINES:
        yield f"{module.path}: {count} lines, more than {MAX_LINES}: split it"


Rule = Callable[[Module], Iterator[str]]
RULES: tuple[Rule, ...] = (
    imports_point_down,
    heavy_libraries_stay_home,
    randomness_is_keyed,
    torch_draws_from_a_generator,
    nothing_is_printed,
    nothing_is_asserted,
    nothing_happens_on_import,
    modules_are_short,
)


def names_of(rules: tuple[Rule, ...]) -> list[str]:
    return [rule.__name__ for rule in rules]


# --- the sources keep them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=names_of(RULES))
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    modules = sources("mmdgen")
    assert len(modules) > 20
    assert not [violation for module in modules for violation in rule(module)]


@pytest.mark.parametrize("rule", [modules_are_short, randomness_is_keyed], ids=lambda rule: rule.__name__)
def test_the_tools_keep_the_rule(rule: Rule) -> None:
    assert not [violation for module in sources("tools") for violation in rule(module)]


def test_every_layer_exists() -> None:
    """A renamed package would otherwise be checked against nothing."""
    found = {module.name for module in sources("mmdgen")}
    known = [name for layer_ in LAYERS for name in layer_ if name not in ("mmdgen.geometry", "mmdgen.png")]
    assert [name for name in known if name not in found] == []


def test_starting_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, mmdgen.cli.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "click" in loaded
    assert loaded.isdisjoint({"moderngl", "h5py", "PIL", "numpy", "pyrr", "isal", "ray", *TRAINING})
    assert loaded.isdisjoint({"starlette", "uvicorn", "websockets"})


# A finder before all others that knows the training packages and refuses them, as if they were not installed.
WITHOUT_TORCH = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {TRAINING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}, asked for by the test", name=name)

sys.meta_path.insert(0, Refuse())
"""


def run_without_torch(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )


def test_everything_but_training_is_imported_without_torch() -> None:
    names = [module.name for module in sources("mmdgen") if not inside(module.name, ("mmdgen.train",))]
    code = f"""
import importlib
for name in {names!r}:
    importlib.import_module(name)
for name in {TRAINING!r}:  # else nothing was shown
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error.name)
"""
    done = run_without_torch(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(TRAINING)


@pytest.mark.gl
def test_everything_but_training_runs_without_torch(tmp_path: Path) -> None:
    """Every command's help, and a dataset from the characters to its check, in one process."""
    out = str(tmp_path / "d")
    code = f"""
from click.testing import CliRunner
from mmdgen.cli.main import COMMANDS, cli
calls = [["--help"], *([name, "--help"] for name in COMMANDS)]
calls += [["render", "--poses", "2", "--size", "32", "--workers", "1", "--out", {out!r}], ["verify", {out!r}, "--json"]]
calls += [["inspect", {out!r}], ["preview", {out!r}]]
for call in calls:
    result = CliRunner().invoke(cli, call)
    if result.exit_code:
        sys.exit(f"{{call}}: {{result.output}} {{result.exception!r}}")
print(*sorted(COMMANDS))
"""
    done = run_without_torch(code)
    assert done.returncode == 0, done.stderr
    assert {"render", "verify", "annotate"} <= set(done.stdout.split())
    assert (tmp_path / "d/manifest.json").exists()


# --- the rules catch what they are for --------------------------------------------------------------------------------

PLANTED = [
    (imports_point_down, "mmdgen/pose/x.py", "from mmdgen.render.view import View"),
    (imports_point_down, "mmdgen/pose/x.py", "from mmdgen import render"),
    (imports_point_down, "mmdgen/pose/x.py", "from .. import render"),
    (imports_point_down, "mmdgen/pose/x.py", "from ..render import view"),
    (imports_point_down, "mmdgen/pose/__init__.py", "from ..render import view"),
    (imports_point_down, "mmdgen/model/x.py", "def f():\n    import mmdgen.samples.character"),
    (imports_point_down, "mmdgen/model/x.py", "if TYPE_CHECKING:\n    from mmdgen.pose.rig import Rig"),
    (imports_point_down, "mmdgen/model/x.py", "import importlib\nimportlib.import_module('mmdgen.pose.rig')"),
    (imports_point_down, "mmdgen/rng.py", "from mmdgen.formats import pmx"),
    (imports_point_down, "mmdgen/generate/x.py", "from mmdgen.cli.main import main"),
    (imports_point_down, "mmdgen/generate/x.py", "from tools import environment"),
    (imports_point_down, "mmdgen/dataset/x.py", "from mmdgen.pose.vocabulary import THA1"),
    (imports_point_down, "mmdgen/generate/x.py", "from mmdgen.unheard_of import thing"),
    (imports_point_down, "mmdgen/unheard_of/x.py", ""),
    (heavy_libraries_stay_home, "mmdgen/pose/x.py", "import moderngl"),
    (heavy_libraries_stay_home, "mmdgen/cli/x.py", "import moderngl"),
    (heavy_libraries_stay_home, "mmdgen/generate/x.py", "from h5py import File"),
    (heavy_libraries_stay_home, "mmdgen/model/x.py", "def f():\n    from PIL import Image"),
    (heavy_libraries_stay_home, "mmdgen/samplesx/x.py", "from PIL import Image"),
    (heavy_libraries_stay_home, "mmdgen/render/x.py", "import pyrr.matrix44"),
    (heavy_libraries_stay_home, "mmdgen/generate/x.py", "import tqdm"),
    (heavy_libraries_stay_home, "mmdgen/generate/x.py", "import scipy"),
    (heavy_libraries_stay_home, "mmdgen/cli/x.py", "import uvicorn"),
    (heavy_libraries_stay_home, "mmdgen/annotate/x.py", "from starlette.applications import Starlette"),
    (imports_point_down, "mmdgen/annotate/x.py", "from mmdgen.web import session"),
    (imports_point_down, "mmdgen/web/x.py", "def f():\n    from mmdgen.cli import annotate"),
    (imports_point_down, "mmdgen/train/x.py", "from mmdgen.web import session"),
    (imports_point_down, "mmdgen/train/x.py", "from mmdgen.pose.rig import Rig"),
    (imports_point_down, "mmdgen/train/x.py", "def f():\n    from mmdgen.render import view"),
    (imports_point_down, "mmdgen/train/x.py", "from ..generate import run"),
    (imports_point_down, "mmdgen/generate/x.py", "from mmdgen.train import networks"),
    (imports_point_down, "mmdgen/dataset/x.py", "from mmdgen import train"),
    *(
        (heavy_libraries_stay_home, path, f"def f():\n    import {name}")
        for path in ("mmdgen/cli/train.py", "mmdgen/web/x.py", "mmdgen/dataset/x.py")
        for name in TRAINING
    ),
    (heavy_libraries_stay_home, "mmdgen/cli/x.py", "from torch.utils.tensorboard import SummaryWriter"),
    (heavy_libraries_stay_home, "mmdgen/train/x.py", "import torchvision"),
    (heavy_libraries_stay_home, "mmdgen/train/x.py", "from PIL import Image"),
    (torch_draws_from_a_generator, "mmdgen/train/x.py", "import torch\nx = torch.rand(3)"),
    (torch_draws_from_a_generator, "mmdgen/train/x.py", "import torch as t\nx = t.randn_like(y)"),
    (torch_draws_from_a_generator, "mmdgen/train/x.py", "from torch import randperm\nx = randperm(3)"),
    (torch_draws_from_a_generator, "mmdgen/train/x.py", "import torch\ntorch.empty(3).uniform_(0, 1)"),
    (torch_draws_from_a_generator, "mmdgen/train/x.py", "import torch\ntorch.seed()"),
    (
        torch_draws_from_a_generator,
        "mmdgen/train/x.py",
        "import lightning_fabric\nlightning_fabric.seed_everything(1)",
    ),
    (randomness_is_keyed, "mmdgen/train/x.py", "import random"),
    (randomness_is_keyed, "mmdgen/train/x.py", "import numpy as np\nx = np.random.rand()"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import random"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "from random import shuffle"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import numpy as np\nx = np.random.rand()"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import numpy\nx = numpy.random.default_rng(1)"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import numpy as n\nx = n.random.Generator(n.random.PCG64(1))"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "from numpy import random"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "from numpy.random import default_rng"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import os\nx = os.urandom(4)"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "from os import urandom"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import secrets"),
    (randomness_is_keyed, "mmdgen/web/app.py", "import secrets"),
    (randomness_is_keyed, "mmdgen/web/security.py", "import random"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import uuid"),
    (nothing_is_printed, "mmdgen/render/x.py", "def f():\n    print(1)"),
    (nothing_is_asserted, "mmdgen/cli/x.py", "def f(x):\n    assert x"),
    (nothing_happens_on_import, "mmdgen/cli/x.py", "import os\nos.environ.update(A='b')"),
    (nothing_happens_on_import, "mmdgen/pose/x.py", "for x in range(3):\n    y = x"),
    (nothing_happens_on_import, "mmdgen/pose/x.py", "with open('x') as f:\n    pass"),
    (modules_are_short, "mmdgen/pose/x.py", "x = 1\n" * (MAX_LINES + 1)),
]
ALLOWED = [
    (
        imports_point_down,
        "mmdgen/render/x.py",
        "from mmdgen.pose.rig import Rig\nfrom mmdgen import rng, __version__",
    ),
    (imports_point_down, "mmdgen/cli/x.py", "from mmdgen.generate import run\nfrom . import main"),
    (imports_point_down, "mmdgen/dataset/x.py", "from mmdgen.dataset import schema\nfrom mmdgen import fsio"),
    (imports_point_down, "mmdgen/formats/pmx/__init__.py", "from .records import PmxFile\nfrom ..cursor import Cursor"),
    (heavy_libraries_stay_home, "mmdgen/model/textures.py", "from PIL import Image"),
    (heavy_libraries_stay_home, "mmdgen/web/app.py", "from starlette.applications import Starlette"),
    (imports_point_down, "mmdgen/web/x.py", "from mmdgen.generate.catalogue import find_models"),
    (imports_point_down, "mmdgen/cli/x.py", "def f():\n    from mmdgen.web.server import serve"),
    (
        heavy_libraries_stay_home,
        "mmdgen/pose/x.py",
        "import numpy as np\nimport json\nfrom mmdgen import rng",
    ),
    (randomness_is_keyed, "mmdgen/rng.py", "import numpy as np\nx = np.random.Philox(key=1)"),
    (randomness_is_keyed, "mmdgen/web/security.py", "import secrets\nx = secrets.token_urlsafe"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "import numpy as np\ndef f(r: np.random.Generator): r.random()"),
    (randomness_is_keyed, "mmdgen/pose/x.py", "from mmdgen.rng import generator\nimport os\nx = os.environ"),
    (
        imports_point_down,
        "mmdgen/train/x.py",
        "from mmdgen.dataset.reader import Dataset\nfrom mmdgen.pose.vocabulary import THA1\nfrom . import runs",
    ),
    (imports_point_down, "mmdgen/web/x.py", "def f():\n    from mmdgen.train.poser import Poser"),
    (heavy_libraries_stay_home, "mmdgen/train/x.py", "import torch\nfrom torch.utils import data\nimport onnx"),
    (
        torch_draws_from_a_generator,
        "mmdgen/train/x.py",
        "import torch\nfrom torch import nn\ntorch.manual_seed(seed)\ng = torch.Generator().manual_seed(seed)\n"
        "x = torch.rand(3, generator=g)\nnn.init.normal_(w)\ntorch.nn.init.uniform_(w)\ny.uniform_(0, 1, generator=g)",
    ),
    (nothing_is_printed, "mmdgen/cli/x.py", "print(1)"),
    (nothing_is_printed, "mmdgen/pose/x.py", "def blueprint(print_size): return print_size"),
    (
        nothing_happens_on_import,
        "mmdgen/pose/x.py",
        "'''Doc.'''\nX = list(Y)\nif __name__ == '__main__':\n    f()",
    ),
    (modules_are_short, "mmdgen/pose/x.py", "x = 1\n" * MAX_LINES),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_caught(rule: Rule, path: str, text: str) -> None:
    assert list(rule(parse(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_what_is_allowed_passes(rule: Rule, path: str, text: str) -> None:
    assert list(rule(parse(path, text))) == []


def test_every_rule_has_a_planted_violation_and_an_allowed_case() -> None:
    planted, allowed = {rule for rule, _, _ in PLANTED}, {rule for rule, _, _ in ALLOWED}
    assert planted == set(RULES)
    assert allowed >= set(RULES) - {nothing_is_asserted}
