"""The scores of the automatic annotation as one HTML page, with pictures of the worst cases."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmdgen.annotate.records import SURE, HeadBounds
from mmdgen.annotate.score import PERCENTILES, SLOTS, Score
from mmdgen.model.records import Model
from mmdgen.png import encode_png
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import STILL
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import Camera, View

TRUE_COLOR, FOUND_COLOR = (20, 120, 40), (200, 0, 30)
GROUND = (176, 196, 216)
BELOW, ABOVE = 0.35, 0.55  # what is seen around a head, in its heights

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; font: 15px/1.45 system-ui, sans-serif; }
table { border-collapse: collapse; margin: 0 0 1.2rem; } caption { text-align: left; font-weight: 600; }
th, td { border: 1px solid #8888; padding: .2rem .5rem; text-align: right; } th:first-child, td:first-child
{ text-align: left; } figure { display: inline-block; margin: .4rem; } figcaption { max-width: 48rem; }
img { image-rendering: auto; max-width: 100%; }
"""


def head_picture(
    renderer: Renderer, model: Model, truth: HeadBounds, found: HeadBounds | None, *, depth: float, size: int = 360
) -> np.ndarray:
    """Return the head from the front and from its right side, u8 [size, 2 size, 3], with lines for both bounds.

    Green is the truth, red what was found; `depth` is the z (MU) in the middle of the side view.
    """
    height = truth.top_y - truth.chin_y
    low, high = truth.chin_y - BELOW * height, truth.top_y + ABOVE * height
    middle, far = (low + high) / 2, 100 * height
    halves = []
    for position, target, center in (
        ((truth.center_x, middle, -far), (truth.center_x, middle, 0.0), truth.center_x),
        ((-far, middle, depth), (0.0, middle, depth), None),
    ):
        camera = Camera(position, target, 0.1 * height, 3 * far, height=high - low)
        view = View.through(camera, size=size, samples=4)
        with renderer.scene(prepare_model(model, PoseBinding(STILL, 0, 0, {}), view)) as scene:
            image = next(iter(scene.posed(STILL.pose()[None])))
        alpha = image[..., 3:].astype(np.float32) / 255
        half = np.rint(image[..., :3] * alpha + np.array(GROUND) * (1 - alpha)).astype(np.uint8)
        for bounds, color in ((truth, TRUE_COLOR), (found, FOUND_COLOR)):
            if bounds is None:
                continue
            for y in (bounds.chin_y, bounds.top_y):
                row = round((high - y) / (high - low) * size)
                if 0 <= row < size:
                    half[row] = color
            if center is not None:
                column = round(size / 2 + (bounds.center_x - center) / (high - low) * size)
                if 0 <= column < size:
                    half[: size // 12, column] = color
        halves.append(half)
    return np.concatenate(halves, axis=1)


def page(summaries: dict[str, dict[str, Any]], worst: Sequence[tuple[Score, np.ndarray | None]]) -> str:
    """Return the page: tables of each kind of models, then the worst cases with their pictures."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Automatic annotation, scored</title><style>{_STYLE}</style><h1>Automatic annotation, scored</h1>",
        f"<p>Sure is a confidence of at least {SURE:g}. Errors are in % of the true head's height. In the pictures "
        "green is the truth and red the machine.</p>",
    ]
    for name, summary in summaries.items():
        parts.append(f"<h2>{html.escape(name)}</h2>{tables(summary)}")
    parts.append("<h2>Worst cases</h2>")
    for score, picture in worst:
        image = ""
        if picture is not None:
            data = base64.b64encode(encode_png(np.ascontiguousarray(picture))).decode("ascii")
            image = (
                f"<img alt='' width={picture.shape[1]} height={picture.shape[0]} src='data:image/png;base64,{data}'>"
            )
        parts.append(f"<figure>{image}<figcaption>{html.escape(caption(score))}</figcaption></figure>")
    return "\n".join(parts) + "\n"


def caption(score: Score) -> str:
    """Return one line about a score."""
    said = [f"{score.name} ({score.kind})"]
    if score.bounds is not None and score.found is not None:
        b = score.bounds
        said.append(
            f"chin {100 * b.chin:+.1f} %, top {100 * b.top:+.1f} %, x {100 * b.center:+.1f} %, confidence "
            f"{b.confidence:.2f}: {score.found.bounds.reason}"
        )
    elif score.code:
        said.append(f"refused: {score.code}")
    wrong = [slot for slot, item in score.slots.items() if not item.right]
    if wrong and score.found is not None:
        said.append(f"wrong morphs (confidence {score.found.eyes.confidence:.2f}): {', '.join(wrong)}")
    return "; ".join(said)


def tables(summary: dict[str, Any]) -> str:
    """Return the tables of one summary as HTML."""
    bounds, eyes = summary["bounds"], summary["eyes"]
    parts = [
        _table(
            f"Head bounds of {bounds['count']} models with {summary['heads']} different heads",
            ("", *(f"p{p}" for p in PERCENTILES)),
            (
                (name, *(_number(bounds[f"{key}_percent"].get(f"p{p}")) for p in PERCENTILES))
                for name, key in (("chin", "chin"), ("top", "top"), ("x centre", "center"))
            ),
        ),
        _table(
            "",
            ("", "right", "coverage (sure)", "right where sure", "right where unsure", "chin within 2 %"),
            [
                (
                    "bounds",
                    *(_number(bounds[k]) for k in ("right", "coverage", "right_where_sure", "right_where_unsure")),
                    _number(bounds["chin_within_2_percent"]),
                ),
                ("eyes and mouth", *(_number(eyes[k]) for k in ("right", "coverage", "right_where_sure")), "", ""),
            ],
        ),
        _table(
            f"Morphs of {eyes['count']} models",
            ("slot", "wanted", "found", "right", "precision", "recall"),
            ((slot, *(_number(v) for v in eyes["slots"][slot].values())) for slot in SLOTS),
        ),
    ]
    for name, rows in (("bounds", bounds["calibration"]), ("eyes and mouth", eyes["calibration"])):
        parts.append(
            _table(
                f"Calibration, {name}",
                ("confidence", "count", "mean", "share right", "95 % interval"),
                (
                    (
                        f"{r['low']:g} to {r['high']:g}",
                        _number(r["count"]),
                        _number(r["mean_confidence"]),
                        _number(r["share_right"]),
                        f"{r['interval'][0]:.2f} to {r['interval'][1]:.2f}" if r["count"] else "",
                    )
                    for r in rows
                ),
            )
        )
    return "".join(parts)


def _table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{html.escape(item)}</th>" for item in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption><tr>{head}</tr>{body}</table>"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}".rstrip("0").rstrip(".")
