"""The eyes: eyeball, iris, highlights, lashes, the fold above the lid, and the brows, with their movements.

Built for the left side and mirrored. Everything behind the lids lies a little behind the skin, so that a closing lid,
which slides over the skin's surface, covers it from every direction a head can turn to.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmdgen.samples.curves import Spline, lerp, smoothstep, unit
from mmdgen.samples.eyeshape import EyeShape
from mmdgen.samples.mesh import Part, grid_part, merge, mirrored, oriented
from mmdgen.samples.skull import Skull
from mmdgen.samples.traits import Traits

SCLERA_DEPTH, IRIS_DEPTH, HIGHLIGHT_DEPTH = 0.075, 0.058, 0.046
LID_MOVES = ("blink_left", "smile_left", "half_left", "wide_left")
FRONT = np.array([0.0, 0.0, -1.0])

Curve = Callable[[np.ndarray], np.ndarray]


def _soft_normals(part: Part, skull: Skull, amount: float = 0.7) -> Part:
    """Light a flat layer like the skin below it, mostly from the front."""
    theta, v = skull.locate(np.clip(part.position[:, 0], -0.6, 0.6), np.clip(part.position[:, 1], -0.9, 0.6))
    part.normal = unit((1 - amount) * skull.normal(theta, v, 1.0) + amount * FRONT)
    return part


def _sheet(
    material: str, skull: Skull, flat: np.ndarray, ahead: float | np.ndarray, uv: np.ndarray | None = None
) -> Part:
    """Lay a grid of (x, y) f64 [R, C, 2] `ahead` of the skin."""
    part = oriented(grid_part(material, skull.at(flat[..., 0], flat[..., 1], ahead), uv), FRONT)
    return _soft_normals(part, skull)


def _smooth_back(skull: Skull, flat: np.ndarray, depth: float) -> np.ndarray:
    """Return points behind the skin at (x, y): the eyeball follows the smooth face, not its sockets."""
    theta, v = skull.locate(flat[..., 0], flat[..., 1])
    point = skull.base(theta, v)
    point[..., 2] += depth
    return point


def build_sclera(skull: Skull, shape: EyeShape) -> Part:
    """The white of the left eye: the opening's outline, enlarged, behind the lids. u, v run over the opening."""
    t = np.linspace(0, 2, 41)
    flat = np.stack([shape.scaled(t, np.full(41, radius)) for radius in (0.02, 0.45, 0.8, 1.0, 1.22)])
    eye = shape.eye
    uv = np.stack(
        [
            0.5 + (flat[..., 0] - eye.center_x) / (2.6 * eye.half_width),
            0.5 - (flat[..., 1] - shape.center_y) / (2.6 * max(eye.up, eye.low)),
        ],
        -1,
    )
    part = oriented(grid_part("sclera", _smooth_back(skull, flat, SCLERA_DEPTH), uv, wrap=True), FRONT)
    part.edge[:] = 0
    return _soft_normals(part, skull).bound_to("頭")


def iris_center(shape: EyeShape) -> tuple[float, float]:
    """Return the middle of the iris: a little towards the nose, so high that the upper lid covers its top."""
    eye = shape.eye
    low = shape.center_y - 0.02 - eye.low
    return eye.center_x - 0.025 * eye.half_width, max(low + 0.96 * eye.iris_height, shape.center_y - 0.01)


def _disc(shape: EyeShape, radii: tuple[float, float], rings: int, material: str, skull: Skull, depth: float) -> Part:
    x, y = iris_center(shape)
    radius = np.linspace(0.02, 1, rings)[:, None]
    angle = np.linspace(0, 2 * np.pi, 33)[None]
    disc = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    flat = np.array([x, y]) + disc * np.array(radii)
    uv = 0.5 + 0.5 * disc * np.array([1, -1])
    part = oriented(grid_part(material, _smooth_back(skull, flat, depth), uv, wrap=True), FRONT)
    part.edge[:] = 0
    return _soft_normals(part, skull, 0.9)


def build_iris(skull: Skull, shape: EyeShape) -> Part:
    """The iris and pupil of the left eye, an ellipse on the eye bone."""
    eye = shape.eye
    part = _disc(shape, (eye.iris_width, eye.iris_height), 6, "iris", skull, IRIS_DEPTH).bound_to("左目")
    center = np.array([*iris_center(shape), 0.0])
    for name, scale in (("small_left", 0.62), ("wide_left", 0.93)):
        part.moves[name] = (part.position - center) * np.array([scale - 1, scale - 1, 0.0])
    return part


def build_highlight(skull: Skull, shape: EyeShape) -> Part:
    """The reflections on the left eye: a transparent layer before the iris."""
    eye = shape.eye
    part = _disc(shape, (eye.iris_width, eye.iris_height), 3, "highlight", skull, HIGHLIGHT_DEPTH)
    return part.bound_to("左目")


def _stroke(
    material: str,
    skull: Skull,
    line: Curve,
    t: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    ahead: float,
    moves: dict[str, tuple[Curve, np.ndarray, np.ndarray]],
    lean: np.ndarray | float = 0.0,
) -> Part:
    """Draw a stroke along a curve: `up` and `down` f64 [n] are its half widths, `lean` shifts the top sideways.

    `moves` gives, for each movement, the curve and the half widths there.
    """

    def lay(curve: Curve, above: np.ndarray, below: np.ndarray) -> np.ndarray:
        inside = np.clip(t, 0, 1)
        mid = curve(inside)
        slope = np.gradient(curve(np.linspace(0, 1, 201)), axis=0) * 200
        ends = np.stack([np.interp(inside, np.linspace(0, 1, 201), slope[:, k]) for k in (0, 1)], -1)
        direction = ends / np.maximum(np.linalg.norm(ends, axis=-1, keepdims=True), 1e-9)
        # corners of an outline are nearly vertical there: let strokes run on sideways
        direction = direction * 0.55 + np.array([0.45, 0.0])
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        mid = mid + direction * ((t - inside) * 0.4)[:, None]
        across = np.stack([-direction[:, 1], direction[:, 0]], -1)
        rows = [
            mid - across * below[:, None],
            mid + across * (0.5 * (above - below))[:, None],
            mid + across * above[:, None],
        ]
        sheet = np.stack(rows)
        sheet[2, :, 0] += lean
        return sheet

    uv = np.stack(np.meshgrid(np.linspace(0, 1, len(t)), [1.0, 0.5, 0.0]), -1)
    rest = lay(line, up, down)
    part = _sheet(material, skull, rest, ahead, uv)
    for name, (curve, above, below) in moves.items():
        goal = lay(curve, above, below)
        part.moves[name] = skull.at(goal[..., 0], goal[..., 1], ahead + 0.012).reshape(-1, 3) - part.position
    part.edge[:] = 0
    return part


def build_lashes(skull: Skull, shape: EyeShape) -> list[Part]:
    """The upper lash line with its wing, the lower lash line and the fold above, of the left eye."""
    eye = shape.eye
    t = np.linspace(-0.02, 1.07, 30)
    thick = 0.062 * eye.lash * (0.42 + 0.58 * smoothstep(0.0, 0.75, t)) * smoothstep(-0.06, 0.10, t)
    thick = thick * (1 - 0.55 * smoothstep(0.95, 1.07, t)) * (1 + 0.25 * (eye.half_width / 0.2 - 1))
    down = np.full_like(t, 0.012)
    closed_up, closed_down = 0.30 * thick, 0.45 * thick + 0.006
    upper = _stroke(
        "lash",
        skull,
        shape.upper,
        t,
        thick,
        down,
        0.016,
        {
            "blink_left": (shape.closed, closed_up, closed_down),
            "smile_left": (shape.smiling, closed_down, closed_up),
            "half_left": (shape.half, thick, down),
            "wide_left": (shape.wide, thick, down),
        },
    )
    upper.uv[:, 1] = 0.02 + 0.46 * upper.uv[:, 1]  # upper half of the texture: the upper lash
    s = np.linspace(0.16, 1.03, 20)
    thin = 0.020 * (0.6 + 0.4 * eye.lower_lash) * np.ones_like(s)
    lower = _stroke(
        "lash",
        skull,
        shape.lower,
        s,
        0.35 * thin,
        thin,
        0.010,
        {"blink_left": (shape.closed, 0.2 * thin, 0.2 * thin), "smile_left": (shape.smiling, 0.2 * thin, 0.2 * thin)},
    )
    lower.uv[:, 1] = 0.52 + 0.16 * lower.uv[:, 1]
    parts = [upper, lower]
    if eye.fold:
        f = np.linspace(0.12, 0.96, 18)
        gap = 0.072 * eye.lash + 0.030

        def raised(curve: Curve, amount: float) -> Curve:
            def line(t: np.ndarray) -> np.ndarray:
                point = curve(t)
                point[..., 1] += amount
                return point

            return line

        width = np.full_like(f, 0.008)
        fold = _stroke(
            "lash",
            skull,
            raised(shape.upper, gap),
            f,
            width,
            width,
            0.007,
            {
                "blink_left": (raised(shape.closed, 0.75 * gap + 0.02), width, width),
                "smile_left": (raised(shape.smiling, 0.80 * gap), width, width),
                "half_left": (raised(shape.half, 1.1 * gap), width, width),
                "wide_left": (raised(shape.wide, 0.9 * gap), width, width),
            },
        )
        fold.uv[:, 1] = 0.74 + 0.22 * fold.uv[:, 1]
        parts.append(fold)
    for name in LID_MOVES:
        for part in parts:
            part.moves.setdefault(name, np.zeros_like(part.position))
    return parts


def brow_line(traits: Traits, shape: EyeShape) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle line f64 [n, 2] of the left brow from the inner end outwards, and its half width f64 [n]."""
    eye = traits.eyes
    t = np.linspace(0, 1, 15)
    y = shape.center_y + 0.06 + 0.62 * eye.up + 0.10 + traits.brow_gap
    inner, outer = eye.center_x - 0.85 * eye.half_width, eye.center_x + 1.05 * eye.half_width
    line = np.stack(
        [
            lerp(inner, outer, t),
            y + traits.brow_tilt * (2 * t - 1) + traits.brow_arch * (1 - (2 * t - 0.95) ** 2) * 1.2,
        ],
        -1,
    )
    width = 0.020 * traits.brow_weight * (0.35 + 0.65 * smoothstep(0, 0.22, t)) * (1 - 0.78 * smoothstep(0.35, 1.0, t))
    if traits.brow_maro:  # short round brows
        line = line[2:9] * [1, 1] + [0.03, 0.03]
        n = np.linspace(0, 1, 7)
        return np.stack([Spline(n, line[:, k])(np.linspace(0, 1, 15))[:, 0] for k in (0, 1)], -1), 0.036 * np.sin(
            np.pi * np.linspace(0.1, 0.9, 15)
        )
    return line, width


def build_brow(traits: Traits, skull: Skull, shape: EyeShape) -> Part:
    """The left brow, floating slightly before the skin, with its movements."""
    line, width = brow_line(traits, shape)
    t = np.linspace(0, 1, len(line))

    def lay(mid: np.ndarray) -> np.ndarray:
        along = np.gradient(mid, axis=0)
        along /= np.linalg.norm(along, axis=-1, keepdims=True)
        across = np.stack([-along[:, 1], along[:, 0]], -1) * width[:, None]
        return np.stack([mid - across, mid, mid + across])

    uv = np.stack(np.meshgrid(t, [1.0, 0.5, 0.0]), -1)
    part = _sheet("brow", skull, lay(line), 0.024, uv)
    middle = t - 0.5
    changes = {
        "brow_trouble": (0.020 * (1 - t), 0.075 * (0.5 - t) + 0.012 * np.sin(np.pi * t)),
        "brow_angry": (-0.030 * (1 - t), 0.105 * middle - 0.020),
        "brow_happy": (0 * t, 0.030 + 0.035 * np.sin(np.pi * t)),
        "brow_serious": (-0.012 * (1 - t), 0.050 * middle - 0.034 + 0 * t),
        "brow_up": (0 * t, 0.065 + 0 * t),
        "brow_down": (0 * t, -0.055 + 0 * t),
    }
    for name, (dx, dy) in changes.items():
        goal = lay(line + np.stack([dx, dy], -1))
        part.moves[f"{name}_left"] = skull.at(goal[..., 0], goal[..., 1], 0.024).reshape(-1, 3) - part.position
    part.edge[:] = 0
    return part


def build_eyes(traits: Traits, skull: Skull, shape: EyeShape) -> list[Part]:
    """Return all parts of both eyes and brows, in drawing order of their materials."""
    left = [build_sclera(skull, shape), build_iris(skull, shape), build_highlight(skull, shape)]
    left += [merge(build_lashes(skull, shape)), build_brow(traits, skull, shape)]
    result = []
    for part in left:
        twin = mirrored(part)
        if part.material == "iris" and traits.eyes.left_color != traits.eyes.right_color:
            twin.uv[:, 0] = 0.5 + 0.5 * twin.uv[:, 0]  # the right half of a wider texture
            part.uv[:, 0] = 0.5 * part.uv[:, 0]
        if part.material == "highlight":
            twin.uv[:, 0] = 1 - twin.uv[:, 0]  # light falls from one side on both eyes
        result.append(merge([part, twin]))
    return result
