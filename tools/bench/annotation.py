"""Scores the automatic annotation against people's annotations and the procedural characters' exact truth.

    python tools/bench/annotation.py --models DIR [--procedural N] [--variants N] [--annotations FOLDER] [--json]
        [--checked] [--out HTML]

Prints precision and recall per slot, coverage, errors of chin, top and x centre in % of the head's height, and how
often a confidence is right. --variants N adds N changed copies of every head (hats, tufts, other proportions, names
taken away). --checked checks eyes and mouth in pictures, as a scan does, and names who is not sure.
--out writes a page with pictures of the worst cases. See docs/annotation-quality.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from mmdgen.annotate import auto, store  # noqa: E402
from mmdgen.annotate.bones import find_bones, vertex_share  # noqa: E402
from mmdgen.annotate.check import annotate_checked  # noqa: E402
from mmdgen.annotate.records import SURE, Annotation, EyeMorphs, HeadBounds  # noqa: E402
from mmdgen.annotate.score import SLOTS, Score, Truth, score_model, summarise, worst  # noqa: E402
from mmdgen.annotate.score_page import caption, head_picture, page  # noqa: E402
from mmdgen.annotate.variants import make_variant  # noqa: E402
from mmdgen.errors import MmdgenError  # noqa: E402
from mmdgen.fsio import write_atomic  # noqa: E402
from mmdgen.model.load import load_model  # noqa: E402
from mmdgen.model.records import Model, MorphTerm  # noqa: E402
from mmdgen.render.renderer import Renderer  # noqa: E402
from mmdgen.samples.character import Truth as Built  # noqa: E402
from mmdgen.samples.character import build_character  # noqa: E402
from mmdgen.samples.library import write_character  # noqa: E402

PEOPLE, EXACT, VARIANT = "real, annotated by people", "procedural, exact truth", "changed copies, nameless or worn"
Item = tuple[str, str, Model, Truth]


def real(folder: Path, annotations: Path) -> Iterator[Item]:
    """The models of a folder that people have annotated, each file once."""
    seen: set[str] = set()
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".pmx", ".pmd") and p.is_file()):
        try:
            model = load_model(path)
            if model.id in seen:
                continue
            seen.add(model.id)
            stored = store.load(model, annotations)
        except MmdgenError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        people = {
            "bounds": stored.bounds if stored.bounds and stored.bounds.source == "person" else None,
            "eyes": stored.eyes if stored.eyes and stored.eyes.source == "person" else None,
        }
        if stored.rejected or any(people.values()):
            yield PEOPLE, str(path.relative_to(folder)), model, Truth(rejected=stored.rejected, **people)


def built_truth(built: Built) -> Truth:
    slots = {slot: tuple(MorphTerm(*term) for term in terms) for slot, terms in built.slots.items()}
    mouth = tuple(MorphTerm(*term) for term in built.mouth_open)
    return Truth(HeadBounds(built.chin_y, built.top_y, built.center_x), EyeMorphs(slots, mouth))


def procedural(first: int, count: int, folder: Path) -> Iterator[Item]:
    """Characters with exact truth, written below `folder`: pictures need the textures."""
    for seed in range(first, first + count):
        built = build_character(seed)
        model = load_model(write_character(folder, built))
        yield EXACT, f"procedural {seed}: {built.truth.styles['hair']}", model, built_truth(built.truth)


def with_variants(items: Iterator[Item], count: int, seed: int) -> Iterator[Item]:
    """Each item and `count` changed copies of it, of one file per head."""
    heads: set[tuple[float, float]] = set()
    for kind, name, model, truth in items:
        yield kind, name, model, truth
        if truth.bounds is None or not count:
            continue
        head = (round(truth.bounds.chin_y, 2), round(truth.bounds.top_y, 2))
        if head in heads:
            continue
        heads.add(head)
        try:
            bones = find_bones(model)
        except MmdgenError:
            continue
        share = vertex_share(model, bones.share)
        for number in range(seed, seed + count):
            made = make_variant(model, truth.bounds, bones.head, share, number)
            yield VARIANT, f"{name}, {made.kind}", made.model, Truth(made.bounds, truth.eyes)


def show(name: str, summary: dict) -> None:
    bounds, eyes = summary["bounds"], summary["eyes"]
    print(f"{name}: {summary['models']} models, {summary['heads']} heads; milliseconds {summary['milliseconds']}")
    for code, count in summary["refused"].items():
        print(f"  refused, {code}: {count}")
    for what in ("chin", "top", "center"):
        print(f"  {what} error in % of the head: {bounds[f'{what}_percent']}")
    print(
        f"  bounds right {bounds['right']}, chin within 2 % {bounds['chin_within_2_percent']}, sure "
        f"{bounds['coverage']}, right where sure {bounds['right_where_sure']}, where unsure "
        f"{bounds['right_where_unsure']}"
    )
    if eyes["count"]:
        print(f"  morphs right {eyes['right']}, sure {eyes['coverage']}, right where sure {eyes['right_where_sure']}")
        for slot, row in eyes["slots"].items():
            print(f"    {slot:14s} precision {row['precision']}, recall {row['recall']} of {row['wanted']}")
        print(f"    {'':14s} sure: right  wrong  unsure: right  wrong  refused")
        for slot in ("model", *SLOTS):
            row = eyes["certainty"][slot]
            print(
                f"    {slot:14s} {row['sure_right']:11d} {row['sure_wrong']:6d} {row['unsure_right']:14d} "
                f"{row['unsure_wrong']:6d} {row['refused']:8d}"
            )
    for what in ("bounds", "eyes"):
        rows = [row for row in summary[what]["calibration"] if row["count"]]
        for row in rows:
            print(
                f"  {what} confidence {row['low']:g} to {row['high']:g}: {row['count']} models, share right "
                f"{row['share_right']}"
            )


def pictures(cases: list[tuple[Score, Model]]) -> list[tuple[Score, np.ndarray | None]]:
    """The cases with pictures; without any where nothing can be drawn, which is said."""
    done: list[tuple[Score, np.ndarray | None]] = []
    try:
        with Renderer() as renderer:
            for score, model in cases:
                truth = score.truth.bounds
                image = None
                if truth is not None and score.found is not None:
                    depth = float(model.skeleton.rest[score.found.head, 2])
                    image = head_picture(renderer, model, truth, score.found.bounds, depth=depth)
                done.append((score, image))
    except MmdgenError as error:
        print(f"no pictures: {error}", file=sys.stderr)
        done += [(score, None) for score, _ in cases[len(done) :]]
    return done


@contextlib.contextmanager
def finder(checked: bool) -> Iterator[Callable[[Model], Annotation]]:
    """What annotates: by names and geometry alone, or with pictures of eyes and mouth, drawn by one renderer."""
    if not checked:
        yield auto.annotate
        return
    with Renderer() as renderer:
        yield functools.partial(annotate_checked, renderer=renderer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, metavar="DIR", help="the folder with models, at any depth")
    parser.add_argument("--procedural", type=int, default=0, metavar="N", help="procedural characters to score too")
    parser.add_argument("--first", type=int, default=0, help="the first character's seed [0]")
    parser.add_argument("--variants", type=int, default=0, metavar="N", help="changed copies of each head")
    parser.add_argument("--seed", type=int, default=0, help="of the changes [0]")
    parser.add_argument("--annotations", type=Path, default=CHECKOUT / "annotations", metavar="FOLDER")
    parser.add_argument("--checked", action="store_true", help="check eyes and mouth in pictures (takes longer)")
    parser.add_argument("--worst", type=int, default=12, help="cases to show [12]")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--out", type=Path, metavar="HTML", help="write a page with pictures of the worst cases")
    arguments = parser.parse_args()
    if arguments.models is None and not arguments.procedural:
        parser.error("give --models DIR, --procedural N or both")
    if arguments.models is not None and not arguments.models.is_dir():
        parser.error(f"{arguments.models} is no folder")
    with tempfile.TemporaryDirectory() as folder:
        return run(arguments, Path(folder))


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Score and print what `arguments` ask for; characters are written below `folder`."""

    def items() -> Iterator[Item]:
        if arguments.models is not None:
            yield from real(arguments.models, arguments.annotations)
        yield from procedural(arguments.first, arguments.procedural, folder)

    scores: list[Score] = []
    cases: dict[str, tuple[Score, Model]] = {}
    with finder(arguments.checked) as find:
        for kind, name, model, truth in with_variants(items(), arguments.variants, arguments.seed):
            score = score_model(model, truth, kind=kind, name=name, find=find)
            scores.append(score)
            if score.slots and score.found is not None and score.found.eyes.confidence < SURE:
                why = "; ".join(score.found.eyes.reasons[:2])
                print(f"eyes unsure, {'right' if score.eyes_right else 'WRONG'}: {name}: {why}", file=sys.stderr)
            if arguments.out is not None:
                cases[name] = (score, model)
                cases = {s.name: cases[s.name] for s in worst([s for s, _ in cases.values()], arguments.worst)}
    if not scores:
        print("nothing to score: none of the models is annotated", file=sys.stderr)
        return 1
    kinds = [kind for kind in (PEOPLE, EXACT, VARIANT) if any(s.kind == kind for s in scores)]
    summaries = {kind: summarise([s for s in scores if s.kind == kind]) for kind in kinds}
    if arguments.json:
        told = [{"model": s.name, "kind": s.kind, "what": caption(s)} for s in worst(scores, arguments.worst)]
        print(json.dumps({"summaries": summaries, "worst": told}, ensure_ascii=False, indent=1))
    else:
        for name, summary in summaries.items():
            show(name, summary)
        for score in worst(scores, arguments.worst):
            print(f"  {caption(score)}")
    if arguments.out is not None:
        ordered = worst([s for s, _ in cases.values()], arguments.worst)
        text = page(summaries, pictures([cases[s.name] for s in ordered]))
        write_atomic(arguments.out, text.encode("utf-8"))
        print(f"page: {arguments.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
