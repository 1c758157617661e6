"""Writes a report about a folder of models: a table, times, and pictures of every model, as one HTML page.

    python tools/corpus_report.py DIR --out OUT [--workers N] [--limit N] [--no-annotations] [--json]

OUT/index.html is the page, OUT/report.json the same for programs. See docs/corpus-report.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from mmdgen.cli.render import default_annotations  # noqa: E402
from mmdgen.errors import MmdgenError  # noqa: E402
from mmdgen.generate.report import TIME_LIMIT_S, Report, make_report  # noqa: E402
from mmdgen.render.view import SAMPLE_GRIDS, SHADINGS  # noqa: E402


def positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number


def show(report: Report, out: Path) -> None:
    summary = report.summary()
    print(f"{summary['files']} files: " + ", ".join(f"{count} {name}" for name, count in summary["status"].items()))
    for code, count in summary["reasons"].items():
        print(f"  rejected, {code}: {count}")
    for stage, spread in summary["seconds"].items():
        times = ", ".join(f"{name} {1000 * spread[name]:.0f}" for name in ("median", "p90", "max"))
        print(f"  {stage}: {times} ms")
    print(f"page: {out / 'index.html'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="DIR", help="the folder with .pmx and .pmd files, at any depth")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write the report to")
    parser.add_argument("--workers", type=positive, default=2, help="processes [2]")
    parser.add_argument("--limit", type=positive, help="look at so many files only, mixed from all folders")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT_S, help="seconds a file may take [120]")
    stored = parser.add_mutually_exclusive_group()
    stored.add_argument("--annotations", type=Path, metavar="FOLDER", help="stored ones [annotations/ of the checkout]")
    stored.add_argument("--no-annotations", action="store_true", help="judge the automatic annotation alone")
    parser.add_argument("--size", type=positive, default=256, help="pixels a side of a picture [256]")
    parser.add_argument("--samples", type=int, choices=tuple(SAMPLE_GRIDS), default=4, help="samples a pixel [4]")
    parser.add_argument("--shading", choices=SHADINGS, default=SHADINGS[0], help=f"[{SHADINGS[0]}]")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    if not arguments.models.is_dir():
        parser.error(f"{arguments.models} is no folder")
    annotations = None if arguments.no_annotations else arguments.annotations or default_annotations()

    def progress(done: int, total: int, path: str) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done} of {total} files", end=end, file=sys.stderr, flush=True)

    try:
        report = make_report(
            arguments.models,
            arguments.out,
            annotations,
            workers=arguments.workers,
            limit=arguments.limit,
            time_limit_s=arguments.time_limit,
            view={"size": arguments.size, "samples": arguments.samples, "shading": arguments.shading},
            on_progress=progress,
        )
    except MmdgenError as error:
        print(f"corpus_report: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(report.to_json(), indent=2, sort_keys=True))
    else:
        show(report, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
