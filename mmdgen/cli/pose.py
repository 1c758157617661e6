"""mmdgen pose: a picture of a head, posed by the trained networks; one picture, many, a film, or live on a page."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from mmdgen.cli.extras import require, require_torch
from mmdgen.cli.pose_inputs import merged, poses_of_csv, poses_of_vmd, read_picture, told
from mmdgen.errors import ConfigError
from mmdgen.fsio import write_atomic
from mmdgen.png import encode_png
from mmdgen.pose.vocabulary import THA1

INTERRUPTED = 130
_TRAIN_PACKAGES = ("torch", "safetensors")
_ONNX_PACKAGES = ("onnx", "onnxruntime")
_WHITE = "#ffffff"


@click.command()
@click.option(
    "--run",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The folder of the trained networks (mmdgen train --out).",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The head: mouth open, eyes open, looking ahead, on a transparent background.",
)
@click.option("--pose", multiple=True, help="Values by name: head_y=1,left_eye=0.5; can be repeated.")
@click.option("--csv", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A table: a pose a row.")
@click.option("--vmd", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A motion of MikuMikuDance.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A PNG file; of --csv, --vmd: a folder of PNGs, or a film."
)
@click.option("--fps", type=click.FloatRange(1, 1000), default=30.0, show_default=True, help="Frames a second.")
@click.option("--first", type=click.IntRange(0), help="The first row of --csv, or frame of --vmd (30 a second).")
@click.option("--last", type=click.IntRange(0), help="The last one, included.")
@click.option("--swap-winks", is_flag=True, help="Of --vmd: ウィンク is the right eye, ウィンク右 the left one.")
@click.option("--background", help=f"A colour #rrggbb behind the pictures [transparent; .mp4: {_WHITE}].")
@click.option("--fit", is_flag=True, help="Resize the picture to the networks' size.")
@click.option("--background-transparent", help="The colour #rrggbb of the picture's own background, to be cut out.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto: a GPU where there is one.")
@click.option("--batch", type=click.IntRange(1, 1024), default=8, show_default=True, help="Pictures computed at once.")
@click.option("--serve", is_flag=True, help="Pose live, on a page of this machine.")
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --serve: a folder of 3D models to compare with.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --models: the folder of stored annotations [annotations/ of the checkout, if there is one].",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="With --serve: the address to listen on: another one only with --allow-host.",
)
@click.option("--allow-host", multiple=True, help="A name under which the page may be reached; can be repeated.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0: any that is free.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser, only print the address.")
@click.option(
    "--export-onnx",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the networks as ONNX files into this folder, and check them against torch.",
)
@click.pass_context
def command(
    context: click.Context,
    run: Path,
    image: Path | None,
    pose: tuple[str, ...],
    csv: Path | None,
    vmd: Path | None,
    out: Path | None,
    fps: float,
    first: int | None,
    last: int | None,
    swap_winks: bool,
    background: str | None,
    fit: bool,
    background_transparent: str | None,
    device: str,
    batch: int,
    serve: bool,
    models: Path | None,
    annotations: Path | None,
    host: str,
    allow_host: tuple[str, ...],
    port: int,
    no_browser: bool,
    export_onnx: Path | None,
) -> None:
    """Pose the head in a picture with the networks that were trained.

    The picture has the networks' size (--fit resizes it) and a transparent background.

    The names: head_x (+1 looks up), head_y (+1 turns to image left), neck_z (+1 leans to image left), from -1 to 1;
    left_eye and right_eye (1 is closed; left is the character's), mouth (1 is open, as at rest), from 0 to 1.

    --csv and --vmd make a picture a frame: a folder of PNGs, or a film where --out ends with .apng, .gif, .mp4 or .webm
    (the last two by an installed ffmpeg). What --pose names stays so in every frame.

    \b
    Examples:
      mmdgen pose --run out/run --image face.png --pose left_eye=1,head_y=0.5 --out x.png
      mmdgen pose --run out/run --image face.jpg --fit --background-transparent '#ffffff' --out x.png
      mmdgen pose --run out/run --image face.png --csv poses.csv --out frames
      mmdgen pose --run out/run --image face.png --vmd dance.vmd --last 900 --out dance.mp4
      mmdgen pose --run out/run --serve
      mmdgen pose --run out/run --export-onnx out/onnx
    """
    _check_usage(context, serve, export_onnx)
    values = _values(pose)
    cut = _color(background_transparent, "--background-transparent")
    ground = _color(background, "--background")
    require_torch(_TRAIN_PACKAGES, "posing")
    try:
        if export_onnx is not None:
            _export(run, export_onnx)
            return
        if serve:
            _serve(run, device, image, cut, models, annotations, host, allow_host, port, not no_browser)
            return
        if image is None or out is None:
            raise click.UsageError("say which picture and where to: --image FILE --out FILE (or --serve)")
        if csv is not None and vmd is not None:
            raise click.UsageError("--csv and --vmd: one of them")
        many = csv is not None or vmd is not None
        film = many and bool(out.suffix)
        if film:
            from mmdgen.train.movie import check_movie

            check_movie(out, fps)
        elif not many and out.suffix.lower() != ".png":
            raise click.UsageError(f"--out {out}: one picture is a .png file; films and folders take --csv or --vmd")
        rows = _rows(csv, vmd, fps, first, last, swap_winks, values)
        from mmdgen.train.picture import prepare
        from mmdgen.train.poser import Poser

        poser = Poser(run, device)
        if poser.missing:
            click.echo(
                f"mmdgen: {run} has no {' and no '.join(poser.missing)}: only expressions, the head cannot turn",
                err=True,
            )
        ready = prepare(read_picture(image), poser.size, fit=fit, background=cut, name=str(image))
        if film and ground is None and out.suffix.lower() == ".mp4":
            ground = _color(_WHITE, "--background")
        # Asked for here, so that what cannot be posed is said before a folder is made.
        frames = _shown(poser.frames(ready, rows, batch), len(rows), ground)
        if not many:
            write_atomic(out, encode_png(next(frames)))
            click.echo(f"picture: {out}")
        elif film:
            from mmdgen.train.movie import write_movie

            write_movie(out, frames, len(rows), fps)
            click.echo(f"film: {out} ({len(rows)} frames, {len(rows) / fps:.1f} s)")
        else:
            from mmdgen.train.movie import write_frames

            click.echo(f"frames: {write_frames(out, frames)} in {out}")
    except KeyboardInterrupt:
        click.echo("mmdgen: interrupted", err=True)
        sys.exit(INTERRUPTED)


def _check_usage(context: click.Context, serve: bool, export_onnx: Path | None) -> None:
    """Raise `click.UsageError` for options that would have no effect."""
    of_page = ("models", "annotations", "host", "allow_host", "port", "no_browser")
    of_pictures = ("csv", "vmd", "out", "fps", "first", "last", "swap_winks", "background", "batch", "pose")
    of_picture = ("image", "background_transparent", "fit")
    given = {
        name
        for name in (*of_page, *of_pictures, *of_picture, "serve", "device")
        if (source := context.get_parameter_source(name)) is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")
    }

    def names(wrong: set[str]) -> str:
        return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(wrong))

    if export_onnx is not None:
        if given:
            raise click.UsageError(f"--export-onnx writes files and nothing else; not with {names(given)}")
    elif serve and (wrong := given & {*of_pictures, "fit"}):
        raise click.UsageError(f"{names(wrong)}: not with --serve (the page resizes pictures by itself)")
    elif not serve and (wrong := given & set(of_page)):
        raise click.UsageError(f"{names(wrong)}: only with --serve")
    elif "annotations" in given and "models" not in given:
        raise click.UsageError("--annotations: only with --models")
    elif serve and "background_transparent" in given and "image" not in given:
        raise click.UsageError("--background-transparent: only with --image (the page offers it for what it refuses)")
    elif not given & {"csv", "vmd"} and (wrong := given & {"fps", "first", "last", "swap_winks"}):
        raise click.UsageError(f"{names(wrong)}: only with --csv or --vmd")
    elif "csv" in given and "swap_winks" in given:
        raise click.UsageError("--swap-winks: only with --vmd")


def _values(pose: tuple[str, ...]) -> dict[str, float]:
    from mmdgen.cli.draw import parse_pose

    try:
        return parse_pose(merged(pose), THA1.name)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--pose") from None


def _color(text: str | None, option: str) -> tuple[int, int, int] | None:
    from mmdgen.cli.draw import parse_color

    try:
        return None if text is None else parse_color(text)
    except ValueError:
        raise click.BadParameter(f"a colour is written as #rrggbb, found {text}", param_hint=option) from None


def _rows(
    csv: Path | None,
    vmd: Path | None,
    fps: float,
    first: int | None,
    last: int | None,
    swap_winks: bool,
    values: dict[str, float],
) -> np.ndarray:
    """Return the poses f32 [N, 6] that were asked for, and say what a motion gave."""
    if csv is not None:
        rows = poses_of_csv(csv, first, last)
    elif vmd is not None:
        found = poses_of_vmd(vmd, fps, first, last, swap_winks=swap_winks)
        for line in told(found):
            click.echo(line)
        rows = found.values
    else:
        rows = THA1.rest[None]
    rows = rows.copy()
    for name, value in values.items():
        rows[:, THA1.index(name)] = value
    return rows


def _shown(frames: Iterator[np.ndarray], count: int, ground: tuple[int, int, int] | None) -> Iterator[np.ndarray]:
    """Yield the posed pictures, over a colour if there is one; on a terminal, a bar shows how far it is."""
    from mmdgen.cli.draw import over

    with click.progressbar(
        frames, length=count, label="frames", file=sys.stderr, hidden=count == 1 or not sys.stderr.isatty()
    ) as shown:
        for frame in shown:
            yield frame if ground is None else over(frame, ground)


def _export(run: Path, folder: Path) -> None:
    require(_ONNX_PACKAGES, "exporting", "onnx")
    from mmdgen.train.export_onnx import check, export

    written = export(run, folder)
    for name, difference in check(run, folder).items():
        click.echo(f"{name}: {written[name]} (differs from torch by {difference:.1g} of [-1, 1] at most)")


def _serve(
    run: Path,
    device: str,
    image: Path | None,
    cut: tuple[int, int, int] | None,
    models: Path | None,
    annotations: Path | None,
    host: str,
    allow_host: tuple[str, ...],
    port: int,
    browser: bool,
) -> None:
    from mmdgen.cli.annotate import has_display, missing_packages

    missing = missing_packages()
    if missing:
        raise ConfigError(f"the page needs {', '.join(missing)}: pip install 'mmdgen[web]'")
    from mmdgen.cli.render import default_annotations
    from mmdgen.train.picture import prepare
    from mmdgen.train.poser import Poser
    from mmdgen.web.poser_server import serve_poser

    poser = Poser(run, device)
    poser.require_all()
    start = (
        None if image is None else prepare(read_picture(image), poser.size, fit=True, background=cut, name=str(image))
    )

    def ready(address: str) -> None:
        click.echo(f"posing with the networks in {run}, on {poser.device}")
        click.echo(f"open this address (it holds a secret): {address}")
        click.echo("Ctrl-C ends")
        if browser and has_display():
            webbrowser.open(address)

    serve_poser(
        poser,
        title=run.resolve().name,
        image=start,
        models=models,
        annotations=annotations or default_annotations(),
        host=host,
        port=port,
        allowed=allow_host,
        on_ready=ready,
    )
    click.echo("ended")
