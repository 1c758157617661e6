"""Draws the golden pictures of tests/goldens anew. Look at them before you commit them.

    python tools/regen_goldens.py [--check]

Those of the CPU rasteriser (goldens/cpu) are compared byte for byte: when they change, its VERSION must, too.

With --check nothing is written; the exit status is 1 where a picture differs at all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))
sys.path.insert(0, str(CHECKOUT / "tests"))

import cpu_cases  # noqa: E402
from golden_cases import FOLDER, draw_cases  # noqa: E402

from mmdgen.png import encode_png  # noqa: E402
from mmdgen.render.renderer import Renderer  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which pictures would change")
    arguments = parser.parse_args()
    changed = []

    def keep(name: str, picture: np.ndarray) -> None:
        path, content = FOLDER / f"{name}.png", encode_png(picture)
        if not path.exists() or path.read_bytes() != content:
            changed.append(name)
            if not arguments.check:
                path.write_bytes(content)

    with Renderer(tiles=(1, 1)) as renderer:
        if not renderer.report()["software"]:
            parser.error("goldens are drawn on the software renderer; this machine draws on a GPU")
        FOLDER.mkdir(exist_ok=True)
        for name, picture in draw_cases(renderer):
            keep(name, picture)
    (FOLDER / "cpu").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in cpu_cases.draw_cases(Path(folder)):
            keep(f"cpu/{name}", picture)
    print(f"{len(changed)} pictures {'would change' if arguments.check else 'changed'}: {', '.join(changed) or 'none'}")
    return int(arguments.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
