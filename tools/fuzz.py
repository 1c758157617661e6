"""Reads mutated models, motions, poses and textures, and shows what must not happen: crashes, hangs, floods of memory.

    python tools/fuzz.py --mutations 200000 [--seed 0] [--workers 2] [--kinds pmx,png] [--out out/fuzz] [--json FILE]
    python tools/fuzz.py --costly | --draw
    python tools/fuzz.py --replay out/fuzz/pmx-seed0-case123-allocation.bin

Every finding is saved below --out under a name with its seed and number; the exit status is 1 if there was one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))
sys.path.insert(0, str(CHECKOUT / "tests"))

from fuzz_bombs import costly_jobs  # noqa: E402
from fuzz_seed import KINDS  # noqa: E402
from fuzzing import Settings, drawing, replay, run, run_jobs, shared_folder, table  # noqa: E402


def kinds_of(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(KINDS)}")
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=200_000, help="cases, spread evenly over the kinds [200000]")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations [0]")
    parser.add_argument("--workers", type=int, default=2, help="processes [2]")
    parser.add_argument("--kinds", type=kinds_of, help=f"some of {','.join(KINDS)} [all]")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "out" / "fuzz", help="where findings go [out/fuzz]")
    parser.add_argument("--json", type=Path, help="write the counts to this file, too")
    parser.add_argument("--only-made", action="store_true", help="no seeds from ../shared: the same cases everywhere")
    parser.add_argument("--costly", action="store_true", help="instead: some large files that are made to take long")
    parser.add_argument("--draw", action="store_true", help="instead: draw small pictures of the models that load")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="check one saved case again")
    arguments = parser.parse_args()
    settings = Settings(arguments.seed, None if arguments.only_made else shared_folder())
    if arguments.mutations < 1 or arguments.workers < 1:
        parser.error("--mutations and --workers must be at least 1")

    if arguments.replay is not None:
        try:
            report = replay(arguments.replay, settings, arguments.kinds[0] if arguments.kinds else None)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        for finding in report.findings:
            print(f"{finding.code} {finding.where}\n{finding.detail}")
        if not report.findings:
            print(*(outcome for tally in report.tallies.values() for outcome in tally.outcomes))
        return int(bool(report.findings))

    shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            print(f"{done} of {total}", file=sys.stderr, flush=True)

    kinds = arguments.kinds or KINDS
    if arguments.draw:
        settings = drawing(settings)
        kinds = tuple(kind for kind in kinds if kind in ("pmx", "pmd")) or parser.error("only models can be drawn")
    how: Any = {"workers": arguments.workers, "out": arguments.out, "progress": progress}
    if arguments.costly:
        report = run_jobs(costly_jobs(), settings, **how)
    else:
        report = run(arguments.mutations, settings, kinds, **how)
    print(table(report))
    summary = report.to_json()
    print(f"{summary['wall_s']} s, at most {summary['peak_mib']} MiB a worker, {len(report.findings)} findings")
    for row in summary["findings"]:
        print(f"  {row['count']} x {row['kind']}: {row['code']} {row['where']}")
    for path in report.files:
        print(f"  {path}")
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return int(bool(report.findings))


if __name__ == "__main__":
    sys.exit(main())
