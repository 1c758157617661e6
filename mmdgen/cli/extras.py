"""What commands that need more than the core do before they import it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from mmdgen.errors import ConfigError


def require(packages: Sequence[str], what: str, extra: str) -> None:
    """Raise `ConfigError` where a package is missing: `what` needs it, and the extra `extra` brings it."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}: pip install 'mmdgen[{extra}]'")


def require_torch(packages: Sequence[str], what: str) -> None:
    """`require` for what computes with torch, whose threads are also kept from spinning while they wait for each other.

    That costs several times what it gains where other programs run, too; OMP_WAIT_POLICY says otherwise.
    """
    require(packages, what, "train")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
