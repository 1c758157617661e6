"""A toy head of coloured boxes as a real PMX file: each part has a colour of its own, so pictures can be measured.

Frame: MMD's. The head is a grey box of x, z in [-1, 1] and y in [16.8, 19]; chin 16.8, skull top 19.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmdgen.formats.pmx import records as pmx
from mmdgen.formats.pmx.writer import write_pmx
from mmdgen.model.load import model_from_bytes
from mmdgen.model.records import Model, MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.view import View

CHIN, TOP = 16.8, 19.0
GREY, RED, GREEN, BLUE, YELLOW, CYAN = (
    (0.5, 0.5, 0.5),
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
    (1.0, 1.0, 0.0),
    (0.0, 1.0, 1.0),
)
Color = tuple[float, float, float]


@dataclass
class ToyBuilder:
    """Collects parts; `bones` start with センター 0, 首 1, 頭 2."""

    positions: list = field(default_factory=list)
    normals: list = field(default_factory=list)
    uvs: list = field(default_factory=list)
    weights: list = field(default_factory=list)  # (deform, bones, weights, sdef)
    faces: list = field(default_factory=list)
    materials: list = field(default_factory=list)
    morphs: list = field(default_factory=list)
    textures: list = field(default_factory=list)
    bones: list = field(
        default_factory=lambda: [
            pmx.PmxBone("センター", position=(0, 10, 0)),
            pmx.PmxBone("首", position=(0, 16, 0.2), parent_index=0),
            pmx.PmxBone("頭", position=(0, 16.8, 0.1), parent_index=1),
        ]
    )

    def quad(self, center, u, v, weight=(pmx.BDEF1, (2,), (1.0,), None)) -> np.ndarray:
        """Add a rectangle center +- u +- v, seen from the side of cross(v, u); return its 4 vertex indices."""
        center, u, v = (np.asarray(value, float) for value in (center, u, v))
        normal = np.cross(v, u)
        normal = normal / np.linalg.norm(normal)
        first = len(self.positions)
        for a, b in ((-1, 1), (1, 1), (1, -1), (-1, -1)):
            self.positions.append(center + a * u + b * v)
            self.normals.append(normal)
            self.uvs.append(((a + 1) / 2, (1 - b) / 2))
            self.weights.append(weight)
        self.faces += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
        return np.arange(first, first + 4)

    def box(self, low, high, weight=(pmx.BDEF1, (2,), (1.0,), None)) -> np.ndarray:
        """Add an axis-aligned box with outward faces; return its vertex indices."""
        low, high = np.asarray(low, float), np.asarray(high, float)
        center, half = (low + high) / 2, (high - low) / 2
        indices = []
        for axis in range(3):
            a, b = np.eye(3)[(axis + 1) % 3] * half, np.eye(3)[(axis + 2) % 3] * half
            for sign in (-1, 1):
                offset = np.eye(3)[axis] * half * sign
                indices.append(self.quad(center + offset, b if sign > 0 else a, a if sign > 0 else b, weight))
        return np.concatenate(indices)

    def material(self, name: str, color: Color = GREY, alpha: float = 1.0, **changes) -> None:
        """End a material: it gets the faces added since the last one. Diffuse and ambient are `color`."""
        done = sum(item.index_count for item in self.materials)
        values = {"diffuse": (*color, alpha), "ambient": color, "index_count": len(self.faces) * 3 - done, **changes}
        self.materials.append(pmx.PmxMaterial(name, **values))

    def vertex_morph(self, name: str, offsets: dict[int, tuple], panel: int = 2) -> None:
        """Add a vertex morph from {vertex: offset}."""
        rows = np.array(list(offsets.items()), dtype=object)
        table = np.zeros(len(rows), pmx.VERTEX_OFFSET)
        table["vertex"] = [vertex for vertex, _ in offsets.items()]
        table["offset"] = [offset for _, offset in offsets.items()]
        self.morphs.append(pmx.PmxMorph(name, "", panel, pmx.MORPH_VERTEX, table))

    def file(self) -> pmx.PmxFile:
        vertices = np.zeros(len(self.positions), pmx.VERTEX)
        vertices["position"], vertices["normal"], vertices["uv"] = self.positions, self.normals, self.uvs
        vertices["bone_index"], vertices["edge_scale"] = -1, 1.0
        for row, (deform, bones, weights, sdef) in zip(vertices, self.weights, strict=True):
            row["deform"] = deform
            row["bone_index"][: len(bones)] = bones
            if deform != pmx.BDEF1:
                row["bone_weight"][: len(weights)] = weights
            if sdef is not None:
                row["sdef_c"], row["sdef_r0"], row["sdef_r1"] = sdef
        return pmx.PmxFile(
            header=pmx.PmxHeader(),
            name="toy",
            name_en="toy",
            comment="",
            comment_en="",
            vertices=vertices,
            faces=np.array(self.faces, np.int32).reshape(-1, 3),
            textures=tuple(self.textures),
            materials=tuple(self.materials),
            bones=tuple(self.bones),
            morphs=tuple(self.morphs),
        )

    def model(self, path: Path = Path("toy.pmx")) -> Model:
        return model_from_bytes(write_pmx(self.file()), path)


def toy_builder(face_bone: int = 2) -> ToyBuilder:
    """Return the head: grey skull, red nose, green left eye (+x), blue right eye, yellow mouth, cyan crown, neck.

    Morphs: 0 closes the left eye, 1 the right eye (the quads' tops come down), 2 opens the mouth (bottom goes down).
    """
    toy = ToyBuilder()
    face = (pmx.BDEF1, (face_bone,), (1.0,), None)
    toy.box((-0.3, 15, -0.3), (0.3, 16.9, 0.3), (pmx.BDEF2, (0, 1), (0.5,), None))
    toy.material("neck", (0.8, 0.4, 0.8))
    toy.box((-1, CHIN, -1), (1, TOP, 1), face)
    toy.material("skull", GREY)
    toy.box((-0.1, 17.5, -1.4), (0.1, 17.7, -1), face)
    toy.material("nose", RED)
    left = toy.quad((0.45, 18, -1.01), (0.25, 0, 0), (0, 0.2, 0), face)
    toy.material("left eye", GREEN)
    right = toy.quad((-0.45, 18, -1.01), (0.25, 0, 0), (0, 0.2, 0), face)
    toy.material("right eye", BLUE)
    mouth = toy.quad((0, 17.2, -1.01), (0.3, 0, 0), (0, 0.03, 0), face)
    toy.material("mouth", YELLOW)
    toy.box((-0.5, TOP - 0.15, -1.02), (0.5, TOP, 1.02), face)
    toy.material("crown", CYAN)
    drop = (0.0, -0.38, 0.0)
    toy.vertex_morph("まばたき左", {int(left[0]): drop, int(left[1]): drop})
    toy.vertex_morph("まばたき右", {int(right[0]): drop, int(right[1]): drop})
    toy.vertex_morph("あ", {int(mouth[2]): (0, -0.2, 0), int(mouth[3]): (0, -0.2, 0)}, panel=3)
    return toy


def toy_binding(neck: int = 1, head: int = 2) -> PoseBinding:
    terms = {"left_eye": (MorphTerm(0),), "right_eye": (MorphTerm(1),), "mouth": (MorphTerm(2),)}
    return PoseBinding(THA1, neck, head, terms)


def toy_view(**settings) -> View:
    return View.of_head(CHIN, TOP, 0.0, **{"outline": 0.0, **settings})


def mask_of(image: np.ndarray, color: Color) -> np.ndarray:
    """Return where an image u8 [H, W, 4] shows a pure part's colour (channels 0 or 1; brightness is the light's)."""
    bright, dark = image[..., :3] > 90, image[..., :3] < 60
    hit = image[..., 3] > 200
    for channel, value in enumerate(color):
        hit = hit & (bright[..., channel] if value else dark[..., channel])
    return hit


def centroid(mask: np.ndarray) -> tuple[float, float]:
    """Return the mean (row, column) of a mask that must not be empty."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise AssertionError("the part is not in the picture")
    return float(rows.mean()), float(columns.mean())
