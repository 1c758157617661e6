"""One model file for the corpus report: what a scan says of it, how long each stage takes, and its pictures.

A model that the scan rejects is drawn too, as far as that goes: with its head's sheet where it can be annotated, else
as a whole from the front, so that a person can judge whether the rejection is right.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmdgen.annotate.bones import find_bones, vertex_share
from mmdgen.annotate.records import Annotation
from mmdgen.annotate.store import resolve
from mmdgen.errors import AnnotationError
from mmdgen.formats.pmd import read_pmd
from mmdgen.formats.pmx.reader import read_pmx
from mmdgen.formats.sniff import sniff
from mmdgen.fsio import write_atomic
from mmdgen.generate.catalogue import DEFAULT_EXAMINER, Rejection, ScanWorker, UsableModel, reason
from mmdgen.generate.checking import Checker
from mmdgen.generate.report import PICTURES, Look, Picture
from mmdgen.model.load import MAX_FILE_SIZE, model_from_bytes
from mmdgen.model.records import Model, MorphTerm
from mmdgen.png import encode_png
from mmdgen.pose.binding import PoseBinding
from mmdgen.pose.vocabulary import THA1
from mmdgen.render.prepare import prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.view import View

# slug, caption, pose; the first row shows what the dataset calls expressions, the second the ends of the rotations
EXPRESSIONS = (
    ("rest", "rest", {}),
    ("eyes", "both eyes closed", {"left_eye": 1.0, "right_eye": 1.0}),
    ("left-eye", "left eye closed (image right)", {"left_eye": 1.0}),
    ("right-eye", "right eye closed (image left)", {"right_eye": 1.0}),
    ("mouth", "mouth closed", {"mouth": 0.0}),
)
EXTREMES = tuple(
    (f"{name.replace('_', '-')}-{end}", f"{name} = {value:+g}", {name: value})
    for name in ("head_x", "head_y", "neck_z")
    for end, value in (("plus", 1.0), ("minus", -1.0))
)
_NOTHING: dict[str, tuple[MorphTerm, ...]] = {"left_eye": (), "right_eye": (), "mouth": ()}


class ReportWorker:
    """The pool's handler: a task is (number, relative path), the result a `Look`.

    Notes on the way: ("stage", name) for what is being done, ("judged", `UsableModel` or `Rejection`) once the scan's
    own function has spoken. A task that takes longer than the time limit ends the process, whatever it hangs in.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.root, self.out = Path(config["root"]), Path(config["out"])
        self.annotations = Path(config["annotations"]) if config["annotations"] else None
        self.settings: dict[str, Any] = dict(config["view"])
        self.seconds = float(config["seconds"])
        self.renderer = Renderer()
        self.scan = ScanWorker({**config, "examiner": DEFAULT_EXAMINER, "check": True}, self.renderer)
        self.checker = Checker(renderer=self.renderer)
        self.report: dict[str, Any] = self.renderer.report()

    def handle(self, task: tuple[int, str], note: Callable[[Any], None]) -> Look:
        number, relative = task
        note(("stage", "scan"))
        # The watchdog is a thread of C that needs no interpreter lock: it also ends loops inside libraries.
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=sys.stderr)
        try:
            note(("judged", self.judge(relative)))
            look = Look()
            try:
                self.look(look, number, self.root / relative, note)
            except Exception as error:
                code, message = reason(error, self.root)
                look.problem = f"{code}: {message}"
            return look
        finally:
            faulthandler.cancel_dump_traceback_later()

    def judge(self, relative: str) -> UsableModel | Rejection:
        """Return what `scan` says of the file, by the same function."""
        return self.scan.handle(relative, lambda _: None)

    def look(self, look: Look, number: int, path: Path, note: Callable[[Any], None]) -> None:
        """Fill `look` stage by stage, so that what was found before an error is kept."""
        note(("stage", "load"))
        model = self.load(look, path)
        if model is None:
            return
        _describe(look, model)
        note(("stage", "annotate"))
        try:
            with look.timed("annotate"):
                annotation = resolve(model, self.annotations, self.checker.find)
        except AnnotationError:  # the judgement says it
            note(("stage", "draw"))
            self.draw_overview(look, number, model)
            return
        _describe_annotation(look, model, annotation)
        note(("stage", "draw"))
        self.draw_sheet(look, number, model, annotation)

    def load(self, look: Look, path: Path) -> Model | None:
        """Return the model, or None where the judgement says why there is none.

        Parsing is timed by doing it once more by itself; what loading takes longer is assembling.
        """
        try:
            if path.stat().st_size > MAX_FILE_SIZE:
                return None
            data = path.read_bytes()
            kind = sniff(data)
            start = time.perf_counter()
            if kind in ("pmx", "pmd"):
                _ = read_pmx(data, str(path)) if kind == "pmx" else read_pmd(data, str(path))
            parsed = time.perf_counter()
            model = model_from_bytes(data, path)
            loaded = time.perf_counter()
        except Exception:  # any error of loading is the scan's rejection already
            return None
        look.seconds["parse"] = parsed - start
        look.seconds["assemble"] = max(0.0, loaded - parsed - (parsed - start))
        return model

    def draw_sheet(self, look: Look, number: int, model: Model, annotation: Annotation) -> None:
        """Draw the head at rest, with each expression and at the ends of each rotation."""
        bounds = annotation.bounds
        binding = PoseBinding(THA1, annotation.neck, annotation.head, annotation.parameter_terms(), bounds.center_x)
        view = View.of_head(bounds.chin_y, bounds.top_y, bounds.center_x, **self.settings)
        with look.timed("prepare"):
            prepared = prepare_model(model, binding, view)
        look.white = list(prepared.missing)
        with look.timed("draw"), self.renderer.scene(prepared) as scene:
            images = [scene.rest()]
            images += scene.expressions(np.stack([THA1.pose(**pose) for _, _, pose in EXPRESSIONS[1:]]))
            images += scene.posed(np.stack([THA1.pose(**pose) for _, _, pose in EXTREMES]))
        for (slug, caption, _), image in zip((*EXPRESSIONS, *EXTREMES), images, strict=True):
            self.keep(look, number, slug, caption, image, ruled=slug == "rest")
        look.doubts = doubts(*images[: len(EXPRESSIONS)])
        if prepared.missing:
            look.doubts.append("some of what is seen has lost its texture")

    def draw_overview(self, look: Look, number: int, model: Model) -> None:
        """Draw the whole model from the front and, where a head bone is found, what is around that."""
        used = model.position[np.unique(model.face)]
        if not len(used):
            look.problem = "nothing to draw: the model has no faces"
            return
        low, high = used.min(axis=0).astype(float), used.max(axis=0).astype(float)
        x, y = (low[:2] + high[:2]) / 2
        neck = head = 0
        views = [("whole", "the whole model", View(x, y, 1.05 * max(*(high - low)[:2], 1e-3), **self.settings))]
        try:
            bones = find_bones(model)
        except AnnotationError:
            pass
        else:
            neck, head = bones.neck, bones.head
            carried = model.position[np.intersect1d(np.flatnonzero(vertex_share(model, bones.share) > 0.5), model.face)]
            x, bottom = (float(value) for value in model.skeleton.rest[head][:2])
            if len(carried) and (top := float(carried[:, 1].max())) > bottom:
                views.append(("head", "around the head bone", View.of_head(bottom, top, x, **self.settings)))
        for slug, caption, view in views:
            prepared = prepare_model(model, PoseBinding(THA1, neck, head, _NOTHING, view.center_x), view)
            look.white = sorted({*look.white, *prepared.missing})
            with self.renderer.scene(prepared) as scene:
                image = scene.rest()
            if not image[..., 3].any():
                look.doubts.append(f"{caption}: nothing is seen from the front")
            self.keep(look, number, slug, caption, image)

    def keep(self, look: Look, number: int, slug: str, caption: str, image: np.ndarray, ruled: bool = False) -> None:
        """Write a picture with its transparency: the page puts the ground under it."""
        file = f"{PICTURES}/{number:05d}-{slug}.png"
        write_atomic(self.out / file, encode_png(image))
        look.pictures.append(Picture(file, caption, ruled))


def _describe(look: Look, model: Model) -> None:
    look.sha256, look.name = model.id, model.name or model.name_en
    look.vertices, look.materials = len(model.position), len(model.materials)
    look.bones, look.morphs = len(model.skeleton.name), len(model.morphs)
    # A toon texture that MMD itself brings is in the file's list, but no material refers to it once assembled.
    used = {index for item in model.materials for index in (item.texture, item.sphere_texture, item.toon_texture)}
    used.discard(-1)
    look.textures = len(used)
    look.missing = [model.textures[number].name for number in sorted(used) if model.textures[number].path is None]
    counts: dict[str, tuple[int, str]] = {}
    for item in model.diagnostics:
        where = f"{item.section} {item.index}" if item.index >= 0 else item.section
        count, first = counts.get(item.code, (0, f"{where}: {item.message}"))
        counts[item.code] = count + 1, first
    look.diagnostics = [(code, *found) for code, found in sorted(counts.items())]


def _describe_annotation(look: Look, model: Model, annotation: Annotation) -> None:
    bounds, eyes = annotation.bounds, annotation.eyes
    look.confidence = {"head bounds": bounds.confidence, "morphs": eyes.confidence}
    look.sources = {"head bounds": bounds.source, "morphs": eyes.source}
    look.reasons = [bounds.reason, *eyes.reasons, *annotation.notes]
    for name, terms in annotation.parameter_terms().items():
        look.terms[name] = [
            f"{model.morphs[term.morph].name} x {term.weight:g}" + ("" if term.side == "both" else f" ({term.side})")
            for term in terms
        ]


def doubts(rest: np.ndarray, eyes: np.ndarray, left: np.ndarray, right: np.ndarray, mouth: np.ndarray) -> list[str]:
    """Return what five pictures u8 [H, W, 4] of one head make doubtful, in words: for a person to look at first.

    Changes are measured over grey, in whole pixels that turn from black to white. The character's left is image right.
    """
    size = rest.shape[0]
    little = 1e-4 * size * size  # an eye of the smallest heads changes ten times that
    one, other, both = (_change(rest, image) for image in (left, right, eyes))
    found = []
    for name, change, side in (("left eye", one, 1), ("right eye", other, 0)):
        halves = float(change[:, : size // 2].sum()), float(change[:, size // 2 :].sum())
        if sum(halves) < little:
            found.append(f"the {name} changes next to nothing")
        elif halves[side] < 0.85 * sum(halves):
            found.append(f"{100 - 100 * halves[side] / sum(halves):.0f} % of the {name}'s change is on the other side")
    small, large = sorted((float(one.sum()), float(other.sum())))
    if small >= little and large > 4 * small:
        found.append("one eye changes more than four times as much as the other")
    if np.maximum(both - np.maximum(one, other), 0).sum() > max(little, 0.15 * both.sum()):
        found.append("both eyes together change more than each alone")
    if _change(rest, mouth).sum() < little:
        found.append("the mouth changes next to nothing")
    face = rest[size * 3 // 8 : size * 11 // 16, size * 7 // 16 : size * 9 // 16, 3]
    if (clear := float((face < 250).mean())) > 0.02:
        found.append(f"{100 * clear:.0f} % of the middle of the face is transparent")
    return found


def _change(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return f64 [H, W] in [0, 1]: the largest difference of a channel of two pictures over mid-grey."""

    def over(image: np.ndarray) -> np.ndarray:
        alpha = image[..., 3:] / 255
        return image[..., :3] / 255 * alpha + 0.5 * (1 - alpha)

    return np.max(np.abs(over(one) - over(other)), axis=-1)
