"""mmdgen draw: one picture of one model in one pose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from mmdgen.annotate.store import resolve
from mmdgen.cli.render import default_annotations, shading_option
from mmdgen.errors import ConfigError
from mmdgen.fsio import write_atomic
from mmdgen.model.load import load_model
from mmdgen.png import encode_png
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import STILL, VOCABULARIES
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import SAMPLE_GRIDS, Camera, View


def parse_pose(text: str, vocabulary: str) -> dict[str, float]:
    """Return the values of ``name=value,name=value``. Raises `ConfigError` saying what may be written."""
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        VOCABULARIES[vocabulary].index(name)
        if name in values:
            raise ConfigError(f"{name} is given twice")
        try:
            values[name] = float(number)
        except ValueError:
            raise ConfigError(f"a pose is written as name=value,name=value; found {part!r}") from None
    VOCABULARIES[vocabulary].pose(**values)
    return values


def parse_color(text: str) -> tuple[int, int, int]:
    """Return the three bytes of ``#rrggbb``. Raises ValueError."""
    digits = text.removeprefix("#")
    if len(digits) != 6:
        raise ValueError(text)
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def over(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Return `image` u8 [H, W, 4] over a colour, u8 [H, W, 3], mixed as browsers do (in sRGB)."""
    alpha = image[..., 3:].astype(np.float32) / 255
    ground = np.array(color, np.float32)
    return np.rint(image[..., :3] * alpha + ground * (1 - alpha)).astype(np.uint8)


def read_camera(path: Path) -> Camera:
    """Return the camera in a JSON file. Raises `ConfigError`."""
    try:
        return Camera.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no camera can be read: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--pose", default="", help="Values by name: head_y=1,left_eye=0.5; what is not named is at rest.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The PNG file.")
@click.option("--size", type=click.IntRange(16, 4096), default=512, show_default=True, help="Pixels a side.")
@click.option(
    "--samples",
    type=click.Choice([str(count) for count in SAMPLE_GRIDS]),
    default="16",
    show_default=True,
    help="Samples a pixel.",
)
@click.option("--background", help="A colour #rrggbb [transparent].")
@shading_option
@click.option(
    "--camera",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON with another camera: position, target, near, far, and fov or height (docs/shading.md).",
)
@click.option("--ambient", type=click.FloatRange(0, 100), default=0.5, show_default=True, help="Ambient light (phong).")
@click.option("--outline", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Scale of the outlines.")
@click.option("--specular", type=click.FloatRange(0, 100), default=0.0, show_default=True, help="Highlights (phong).")
@click.option(
    "--annotations",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of stored annotations [annotations/ of the checkout, if there is one].",
)
@click.option(
    "--vocabulary", type=click.Choice(list(VOCABULARIES)), default="tha1", show_default=True, help="The pose's names."
)
def command(
    model: Path,
    pose: str,
    out: Path,
    size: int,
    samples: str,
    background: str | None,
    shading: str,
    camera: Path | None,
    ambient: float,
    outline: float,
    specular: float,
    annotations: Path | None,
    vocabulary: str,
) -> None:
    """Draw the model in file MODEL in one pose, framed and lit as in a dataset, as a PNG file.

    With --camera and without --pose the model is drawn as its file has it, and need not have a head.

    The names (tha1): head_x (+1 looks up), head_y (+1 turns to image left), neck_z (+1 leans to image left), from
    -1 to 1; left_eye and right_eye (1 is closed; left is the character's), mouth (1 is open, as at rest), from 0 to 1.

    \b
    Examples:
      mmdgen draw models/miku/miku.pmx --out rest.png
      mmdgen draw models/miku/miku.pmx --pose head_y=1,left_eye=0.5 --out x.png
      mmdgen draw models/miku/miku.pmx --pose mouth=0 --size 1024 --background #ffffff --out x.png
      mmdgen draw models/stage.pmx --shading mmd --camera camera.json --out x.png
    """
    try:
        values = parse_pose(pose, vocabulary)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--pose") from None
    try:
        color = None if background is None else parse_color(background)
    except ValueError:
        raise click.BadParameter(
            f"a colour is written as #rrggbb, found {background}", param_hint="--background"
        ) from None
    settings: dict[str, Any] = {"size": size, "samples": int(samples), "shading": shading, "outline": outline}
    settings |= {"ambient": ambient, "specular": specular}
    try:
        View(0, 0, 1, **settings)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    elsewhere = None if camera is None else read_camera(camera)
    loaded = load_model(model)
    if elsewhere is not None and not values:
        names, view = STILL, View.through(elsewhere, **settings)
        binding = PoseBinding(names, 0, 0, {})
    else:
        annotation = resolve(loaded, annotations or default_annotations())
        bounds = annotation.bounds
        names = VOCABULARIES[vocabulary]
        binding = PoseBinding(names, annotation.neck, annotation.head, annotation.parameter_terms(), bounds.center_x)
        if elsewhere is not None:
            view = View.through(elsewhere, **settings)
        else:
            view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, **settings)
    prepared = prepare_model(loaded, binding, view)
    with Renderer() as renderer, renderer.scene(prepared) as scene:
        image = next(iter(scene.posed(names.pose(**values)[None])))
    write_atomic(out, encode_png(np.ascontiguousarray(image) if color is None else over(image, color)))
    for name in prepared.missing:
        click.echo(f"mmdgen: texture not found, drawn white: {name}", err=True)
    click.echo(f"picture: {out}")
