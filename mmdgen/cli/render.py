"""mmdgen render: a dataset from a folder of models, or from procedural characters."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

import mmdgen
from mmdgen.cli.device import device_option
from mmdgen.cli.engine import check_engine, chosen_engine, engine_options
from mmdgen.cli.lists import list_options, make_gate
from mmdgen.cli.placing import PlaceType, is_finished, part_options, place_for, show_part, staging_option
from mmdgen.cli.progress import ProgressView, interruptible
from mmdgen.cli.progress import option as progress_option
from mmdgen.cli.renderer import chosen_backend, renderer_option
from mmdgen.dataset.card import size_text
from mmdgen.dataset.codec_streams import require_codec
from mmdgen.dataset.remote import RemotePath
from mmdgen.dataset.schema import CODECS, DEFLATE
from mmdgen.errors import ConfigError, MmdgenError
from mmdgen.generate.catalogue import DEFAULT_EXAMINER, Catalogue, scan
from mmdgen.generate.characters import EXAMINER, foreseen, make_characters
from mmdgen.generate.engine import default_workers
from mmdgen.generate.options import RenderOptions
from mmdgen.generate.parts import PartOf
from mmdgen.generate.plan import ESTIMATED_RATE, Plan, read_plan
from mmdgen.generate.run import LOCAL, PartSummary, Summary, run, run_part
from mmdgen.generate.splits import SPLITS, read_rules
from mmdgen.render.devices import Choice
from mmdgen.render.view import PHONG, SAMPLE_GRIDS, SHADINGS

DEFAULT_OUT = Path("mmdgen-dataset")
INTERRUPTED = 130


shading_option = click.option(
    "--shading",
    type=click.Choice(SHADINGS),
    default=PHONG,
    show_default=True,
    help="phong: the article's; mmd: as MikuMikuDance draws, with toon ramps and sphere maps.",
)


class AmbientRange(click.ParamType):
    """A or A:B: the ambient light, or the range that it is drawn from."""

    name = "A|A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        low, _, high = str(value).partition(":")
        try:
            found = (float(low), float(high or low))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor two of them with a colon, such as 0.5:1.2", param, ctx)
        if not 0 <= found[0] <= found[1] <= 100:
            self.fail(f"{value!r}: 0 <= A <= B <= 100 must hold", param, ctx)
        return found


def default_annotations() -> Path | None:
    """Return the folder of stored annotations beside the package, where it is a checkout that has one."""
    checkout = Path(mmdgen.__file__).resolve().parent.parent
    folder = checkout / "annotations"
    return folder if folder.is_dir() and (checkout / "pyproject.toml").is_file() else None


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder with .pmx and .pmd files, at any depth [procedural characters].",
)
@click.option("--poses", type=click.IntRange(0), default=0, help="Samples of the train split.")
@click.option("--validation-poses", type=click.IntRange(0), default=0, help="Samples of the validation split.")
@click.option("--test-poses", type=click.IntRange(0), default=0, help="Samples of the test split.")
@click.option(
    "--out",
    type=PlaceType(),
    default=DEFAULT_OUT,
    show_default=True,
    help="The dataset's folder, or an URL such as s3://bucket/folder; a run that was begun there goes on.",
)
@staging_option
@click.option("--seed", type=int, default=0, show_default=True, help="Other poses and lights.")
@click.option(
    "--splits",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help='TOML with folder patterns: train = ["*"], validation = ["a/*"], test = [...] [a tenth of the folders each].',
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of stored annotations [annotations/ of the checkout, if there is one].",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    help="Processes [one a core; with a GPU one for two cores, 8 at most]; with Ray, actors.",
)
@engine_options
@renderer_option
@device_option
@click.option("--size", type=click.IntRange(16, 4096), default=256, show_default=True, help="Pixels a side.")
@click.option(
    "--samples",
    type=click.Choice([str(count) for count in SAMPLE_GRIDS]),
    default="4",
    show_default=True,
    help="Samples a pixel.",
)
@shading_option
@click.option(
    "--ambient", type=AmbientRange(), default="0.5", show_default=True, help="Ambient light; A:B is drawn once a model."
)
@click.option(
    "--outline", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Scale of the outlines; 0: none."
)
@click.option(
    "--specular",
    type=click.FloatRange(0, 100),
    default=0.0,
    show_default=True,
    help="Scale of the highlights; 0: none.",
)
@click.option("--compact", is_flag=True, help="Store images as differences: less than half the size.")
@click.option(
    "--codec",
    type=click.Choice(CODECS),
    default=DEFLATE,
    show_default=True,
    help="deflate: any HDF5 reader opens it; zstd: smaller, quicker to read, and needs zstandard or hdf5plugin.",
)
@click.option(
    "--flow", is_flag=True, help="Also store where what the posed picture shows is in the expression picture."
)
@click.option("--shard-size", type=click.IntRange(1), help="Samples a shard [a sixteenth of --poses, 128 to 1024].")
@click.option("--limit", type=click.IntRange(1), help="Use so many models at most.")
@click.option(
    "--characters", type=click.IntRange(1, 100_000), help="How many procedural characters [--poses / 25, 8 to 1000]."
)
@click.option(
    "--include-unsure",
    is_flag=True,
    help="Also use models whose automatic annotation is not sure. Without it they are left out and listed.",
)
@list_options
@part_options
@click.option(
    "--retry-failed", is_flag=True, help="Of a finished dataset, make shards again from which models were left out."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be made; write nothing.")
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary, or the plan of --dry-run, as JSON.")
def command(
    models: Path | None,
    poses: int,
    validation_poses: int,
    test_poses: int,
    out: Path | RemotePath,
    staging: Path | None,
    seed: int,
    splits: Path | None,
    annotations: Path | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    renderer: str,
    device: Choice,
    size: int,
    samples: str,
    shading: str,
    ambient: tuple[float, float],
    outline: float,
    specular: float,
    compact: bool,
    codec: str,
    flow: bool,
    shard_size: int | None,
    limit: int | None,
    characters: int | None,
    include_unsure: bool,
    deny: Path | None,
    allow: Path | None,
    deny_hints: tuple[str, ...],
    part: PartOf | None,
    plan_only: bool,
    retry_failed: bool,
    dry_run: bool,
    progress: str,
    as_json: bool,
) -> None:
    """Render a dataset of posed heads.

    A sample is a pose and three pictures of a model: at rest, with the expression, and with the whole pose. Without
    --models the characters are procedural ones that mmdgen draws itself. Head bounds and eye and mouth morphs are
    people's where somebody has stored them, else automatic where they are sure; other models are left out, with the
    reason in failures.jsonl (mmdgen annotate shows them to you). Ctrl-C, a crash or kill -9 lose nothing that
    is finished: the same command goes on, and the result is the same, byte for byte. Results on stdout, progress on
    stderr. Exits with 0 when the dataset is complete, 1 on errors, 2 on wrong usage and 130 when interrupted.

    \b
    Examples:
      mmdgen render --poses 1000
      mmdgen render --models models --poses 500000 --validation-poses 10000 --test-poses 10000 --out out/d
      mmdgen render --models models --poses 2000 --splits splits.toml --ambient 0.5:1.2 --seed 7
      mmdgen render --models models --poses 2000 --shading mmd --out out/m
      mmdgen render --models models --poses 500000 --dry-run
      mmdgen render --models models --poses 500000 --out out/d --part 3/16
    """
    processes = workers if engine == LOCAL else None  # of this machine
    check_engine(engine, ray_address, device)
    backend = chosen_backend(renderer, device, flow=flow)
    counts: dict[str, int] = dict(zip(SPLITS, (poses, validation_poses, test_poses), strict=True))
    if not any(counts.values()):
        raise click.UsageError("say how many samples: --poses N (or --validation-poses, --test-poses)")
    if plan_only and (part or dry_run):
        raise click.UsageError("--plan-only is a step of its own: leave out --part and --dry-run")
    if part and retry_failed:
        raise click.UsageError("--retry-failed is about a finished dataset: leave out --part")
    place = place_for(out, staging)
    if models is not None and characters is not None:
        raise click.UsageError("--characters is for procedural characters: leave out --models, or --characters")
    if models is None and (deny or allow or deny_hints):
        raise click.UsageError("--deny, --allow and --deny-hints are for a folder of models: add --models")
    if models is None:
        characters = characters or min(max(sum(counts.values()) // 25, 8), 1000)
    gate = make_gate(deny, allow, deny_hints)
    options = RenderOptions(
        poses=counts,
        seed=seed,
        size=size,
        samples=int(samples),
        shading=shading,
        ambient=ambient,
        outline=outline,
        specular=specular,
        compact=compact,
        codec=codec,
        shard_size=shard_size or 0,
        limit=limit,
        splits=read_rules(splits) if splits else None,
        characters=characters,
        include_unsure=include_unsure,
        flow=flow,
        deny=gate.deny.identity if gate.deny else "",
        allow=gate.allow.identity if gate.allow else "",
        deny_hints=gate.deny_hints,
    )
    view = ProgressView(progress)
    plan = None
    try:
        require_codec(codec)
        with interruptible(), view:
            crew = chosen_engine(engine, ray_address)
            source, paths = models, None
            if source is None:
                source = characters_folder()
                if not dry_run:
                    paths = make_characters(
                        source, characters or 0, workers=processes or default_workers(), on_progress=view.prepare
                    )
            folder = annotations or default_annotations()

            def look() -> Catalogue:
                if dry_run and characters:
                    return foreseen(min(characters, limit or characters))
                found = scan(
                    source,
                    folder,
                    workers=min(2, processes or 2),
                    limit=limit,
                    paths=paths,
                    examiner=EXAMINER if characters else DEFAULT_EXAMINER,
                    include_unsure=include_unsure,
                    check=not characters,
                    gate=gate,
                    on_progress=view.scan,
                    on_warning=view.warn,
                )
                for warning in gate.warnings(found) if limit is None else ():
                    view.warn(warning)
                return found

            plan = place.plan_for(options, look, keep=not dry_run)
            for warning in plan.warnings:
                view.warn(f"--splits: {warning}")
            if dry_run or plan_only:
                _show_plan(plan, out, workers, as_json, dry_run)
                return
            settings: dict[str, Any] = {
                "backend": backend,
                "device": device,
                "engine": crew,
                "on_progress": view.render,
            }
            if part is None:
                summary = run(plan, source, place, workers=workers, retry_failed=retry_failed, **settings)
            else:
                summary = run_part(plan, source, place, part, workers=workers, **settings)
    except KeyboardInterrupt:
        kept = "What is finished is kept" if _begun(place.folder) and not dry_run else "Nothing was written"
        click.echo(f"mmdgen: interrupted. {kept}; the same command goes on:\n  {_same_command()}", err=True)
        sys.exit(INTERRUPTED)
    except MmdgenError as error:
        click.echo(f"mmdgen: {error}", err=True)
        refused = plan is None and isinstance(error, ConfigError)  # the same command would be refused again
        if _begun(place.folder) and not (refused or dry_run or is_finished(place)):
            click.echo(
                f"mmdgen: what is finished is kept; the same command goes on with it: {_same_command()}", err=True
            )
        sys.exit(1)
    if isinstance(summary, PartSummary):
        show_part(summary, as_json)
    else:
        show_summary(summary, as_json)


def characters_folder() -> Path:
    """Return where procedural characters are kept: in the user's cache, by version."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "mmdgen" / "samples" / mmdgen.__version__


def _begun(out: Path) -> bool:
    try:
        return read_plan(out) is not None
    except MmdgenError:
        return False


def _same_command() -> str:
    return shlex.join(["mmdgen", *sys.argv[1:]])


def _show_plan(plan: Plan, out: Path | RemotePath, workers: int | None, as_json: bool, dry_run: bool) -> None:
    summary = plan.summary()
    count = min(workers or default_workers(), len(plan.shards))
    seconds = plan.images / (ESTIMATED_RATE * count)
    reasons = Catalogue((), plan.rejected).reasons()
    value = {
        **summary,
        "out": str(out),
        "models": len(plan.models),
        "rejected": reasons,
        "estimated_seconds": round(seconds),
        "assumed_images_per_second_and_worker": ESTIMATED_RATE,
        "workers": count,
        "options": plan.options.to_json(),
    }
    if as_json:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    click.echo(f"{'split':<12}{'models':>8}{'samples':>10}{'shards':>8}")
    for split, entry in summary["splits"].items():
        click.echo(f"{split:<12}{entry['models']:>8,}{entry['samples']:>10,}{entry['shards']:>8,}")
    if reasons:
        click.echo(f"not usable: {_reasons(reasons)} (mmdgen scan says why)")
    click.echo(f"images: {plan.images:,}, about {size_text(summary['estimated_bytes'])} in {out}")
    click.echo(
        f"time: about {_duration(seconds)} with {count} workers, if each draws {ESTIMATED_RATE:g} images/s "
        f"(a core with the software renderer; a GPU is faster)"
    )
    if dry_run:
        click.echo("nothing was written (--dry-run)")
    else:
        click.echo(
            f"the plan is frozen in {out}; now the same command with --part i/n (or without) in place of --plan-only"
        )


def show_summary(summary: Summary, as_json: bool) -> None:
    """Say what a finished dataset consists of, and where it is."""
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
        return
    if summary.complete:
        click.echo("the dataset is complete already; nothing was done")
    splits = ", ".join(
        f"{split} {count:,} of {summary.models[split]:,} models" for split, count in summary.samples.items()
    )
    click.echo(f"dataset:        {summary.out}  ({splits}; {summary.images:,} images, {size_text(summary.bytes)})")
    click.echo(f"contact sheet:  {summary.preview}")
    if summary.drawn:
        click.echo(
            f"speed:          {summary.drawn:,} images in {_duration(summary.seconds)}, {summary.rate:.1f} images/s"
        )
    if summary.rejected:
        click.echo(f"not usable:     {_reasons(summary.rejected)}  (failures.jsonl, mmdgen scan)")
        if any(code.startswith("unsure_") for code in summary.rejected):
            click.echo("                the unsure ones: look at them with mmdgen annotate, or --include-unsure")
    if summary.failed:
        click.echo(f"left out:       {_reasons(summary.failed)}  (failures.jsonl)")


def _reasons(reasons: dict[str, int]) -> str:
    total = sum(reasons.values())
    listed = ", ".join(f"{code} {count}" for code, count in reasons.items())
    return f"{total} model{'s' if total > 1 else ''}: {listed}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
