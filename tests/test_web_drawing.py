"""Live pictures: what the renderer draws from scratch, whatever was shown before; the studio's threads and bounds."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from processes import until
from toy import CHIN, TOP, ToyBuilder
from web_site import fill_cache, make_models, running

from mmdgen.annotate.auto import annotate
from mmdgen.errors import MmdgenError, RenderError
from mmdgen.model.load import load_model
from mmdgen.model.morphs import flatten_terms
from mmdgen.model.records import MorphTerm
from mmdgen.pose.binding import PoseBinding
from mmdgen.render.live import FACE, LIVE, LiveScene, Needs, live_rig
from mmdgen.render.prepare import Prepared, prepare_model
from mmdgen.render.renderer import Renderer
from mmdgen.render.upload import Textures
from mmdgen.render.view import View
from mmdgen.web.drawing import Job, Studio
from mmdgen.web.finding import look_at_model
from mmdgen.web.protocol import Draw, Framing
from mmdgen.web.ready import live_view, prepare, smaller
from mmdgen.web.subject import Subject, make_subject

pytestmark = pytest.mark.gl
SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("drawing")
    fill_cache(make_models(place / "models"), place / "cache")
    return place


@pytest.fixture(scope="module")
def subject(folder) -> Subject:
    path = next(path for path in sorted((folder / "models").rglob("*.pmx")) if path.parent.name != "broken")
    model = load_model(path)
    return make_subject(model, look_at_model(model, annotate))


@pytest.fixture(scope="module")
def renderer():
    with Renderer() as made:
        yield made


@pytest.fixture(scope="module")
def shared_textures(renderer):
    textures = Textures(renderer.context, linear=True)
    yield textures
    textures.release()


def scene_of(renderer, textures, subject, terms=()) -> LiveScene:
    ready = prepare(subject)
    model, finding = subject.model, subject.finding
    rig = live_rig(model, finding.neck, finding.head, terms, 0.0, subject.heights)
    view = live_view(Framing("front", 0.0, 0.0, 1.0), SIZE, ready.depth)
    return LiveScene(renderer, Prepared(rig, view, ready.images, ready.missing), textures)


def view_of(subject: Subject, name: str, size: int = SIZE) -> View:
    named = subject.views[name] if name in ("front", "side", "mouth_view") else subject.views["eyes_view"][name]
    source = "side" if name == "side" else "front"
    low, high = subject.model.position.min(axis=0), subject.model.position.max(axis=0)
    middle, reach = (low + high) / 2, float(np.linalg.norm(high - low)) + 1
    framing = Framing(source, named["center"][0], named["center"][1], named["height"])
    return live_view(framing, size, (float(middle[0]), float(middle[2]), reach))


def test_a_live_picture_is_the_picture(renderer, shared_textures, subject):
    """From the front, at rest: what the dataset's own way of drawing gives (up to where vertices are rounded)."""
    finding = subject.finding
    assert finding.eyes is not None
    terms = finding.eyes.slots["normal_both"]
    front = subject.views["front"]
    view = View(front["center"][0], front["center"][1], front["height"], size=SIZE)
    binding = PoseBinding(LIVE, finding.neck, finding.head, {FACE: terms}, subject.bounds.center_x)
    flat = flatten_terms(subject.model, terms, subject.bounds.center_x)
    with (
        renderer.scene(prepare_model(subject.model, binding, view)) as usual,
        scene_of(renderer, shared_textures, subject) as live,
    ):
        for turn in ((0, 0, 0), (0.5, -1, 1)):
            (expected,) = usual.posed(np.array([[*turn, 1.0]], np.float32))
            found = live.picture(view_of(subject, "front"), flat, turn)
            assert expected[..., 3].any()
            off = np.abs(found.astype(int) - expected.astype(int)).max(axis=2)
            assert (off > 2).mean() < 0.002


@pytest.mark.parametrize("name", ["front", "side", "both", "left", "mouth_view"])
def test_redrawn_boxes_are_exact(renderer, shared_textures, subject, name):
    """A drag of a weight, with jumps and with the mouth: bit for bit what a scene draws that has seen nothing."""
    finding = subject.finding
    assert finding.eyes is not None
    eyes, mouth = finding.eyes.slots["smile_both"] or finding.eyes.slots["normal_both"], finding.eyes.mouth_open
    view = view_of(subject, name)
    boxes = 0
    with (
        scene_of(renderer, shared_textures, subject) as dragged,
        scene_of(renderer, shared_textures, subject) as fresh,
    ):
        rest = fresh.picture(view, flatten_terms(subject.model, (), 0.0), (0, 0, 0))
        for weight, open_ in [(0, 0), (0.1, 0), (0.2, 0), (1, 0), (0.5, 1), (0.5, 1), (0, 0.3), (1, 1), (0, 0)]:
            terms = [dataclasses.replace(term, weight=weight) for term in eyes]
            terms += [dataclasses.replace(term, weight=open_) for term in mouth]
            flat = flatten_terms(subject.model, terms, subject.bounds.center_x)
            fresh._shown.clear()
            expected = fresh.picture(view, flat, (0, 0, 0))
            found = dragged.picture(view, flat, (0, 0, 0))
            boxes += dragged._inside is not None
            assert np.array_equal(found, expected), (weight, open_)
        assert np.array_equal(found, rest)
    assert boxes or name in ("left", "mouth_view")  # there, most of the picture changes


def test_turned_heads_between_do_not_spoil_boxes(renderer, shared_textures, subject):
    view = view_of(subject, "front")
    assert subject.finding.eyes is not None
    terms = subject.finding.eyes.slots["normal_both"]
    closed, still = (flatten_terms(subject.model, some, 0.0) for some in (terms, ()))
    with scene_of(renderer, shared_textures, subject) as scene:
        first = scene.picture(view, still, (0, 0, 0))
        turned = scene.picture(view, closed, (0, 1, 0))
        assert (turned != first).any()
        shut = scene.picture(view, closed, (0, 0, 0))
        assert (shut != first).any()
        assert np.array_equal(scene.picture(view, still, (0, 0, 0)), first)
        assert np.array_equal(scene.picture(view, closed, (0, 1, 0)), turned)


def toy_with_morphs():
    """A toy head whose morphs move vertices, turn a bone, change a material and shift a texture."""
    from mmdgen.formats.pmx import records as pmx

    toy = ToyBuilder()
    box = toy.box((-1, CHIN, -1), (1, TOP, 1))
    toy.material("head")
    toy.vertex_morph("wide", {int(vertex): (0.3, 0, 0) for vertex in box[16:20]})
    bone = np.zeros(1, pmx.BONE_OFFSET)
    bone["bone"], bone["translation"], bone["rotation"] = 2, (0.4, 0, 0), (0, 0, 0, 1)
    toy.morphs.append(pmx.PmxMorph("slide", "", 1, pmx.MORPH_BONE, bone))
    row = np.zeros(1, pmx.MATERIAL_OFFSET)
    row["material"], row["operation"] = 0, 1
    row["diffuse"], row["ambient"] = (0.4, 0, 0, 0), (0.4, 0, 0)
    toy.morphs.append(pmx.PmxMorph("blush", "", 4, pmx.MORPH_MATERIAL, row))
    return toy.model()


def test_bones_and_materials_need_a_scene_of_their_own(renderer, shared_textures):
    model = toy_with_morphs()
    view = live_view(Framing("front", 0, 18, 5), SIZE, (0, 0, 10))

    def scene(*numbers: int) -> LiveScene:
        rig = live_rig(model, 1, 2, [MorphTerm(number) for number in numbers], 0.0, None)
        return LiveScene(renderer, Prepared(rig, view, {}, ()), shared_textures)

    with scene() as plain, scene(1, 2) as able:
        pictures = []
        for number in range(3):
            flat = flatten_terms(model, [MorphTerm(number)], 0.0)
            needs = Needs.of(model, flat)
            assert able.fits(needs)
            assert plain.fits(needs) == (number == 0)
            if number:
                with pytest.raises(RenderError):
                    plain.picture(view, flat, (0, 0, 0))
            pictures.append(able.picture(view, flat, (0, 0, 0)))
        still = able.picture(view, flatten_terms(model, (), 0.0), (0, 0, 0))
        assert np.array_equal(still, plain.picture(view, flatten_terms(model, (), 0.0), (0, 0, 0)))
        wide, slid, red = pictures
        assert wide[..., 3].sum() > still[..., 3].sum()
        move = round(0.4 / 5 * SIZE)
        assert np.abs(np.roll(still[..., 3], move, axis=1).astype(int) - slid[..., 3]).mean() < 2
        assert np.array_equal(red[..., 3], still[..., 3])
        assert red[..., 0].sum() > still[..., 0].sum()
        assert np.array_equal(red[..., 1], still[..., 1])


def test_the_side_view_looks_at_the_left(renderer, shared_textures):
    """z grows to the right: the face (at -z) looks to the left of the picture."""
    toy = ToyBuilder()
    toy.box((-1, CHIN, -1), (1, TOP, 1))
    toy.material("head")
    toy.box((0.9, 17, -3), (1.2, 17.5, -2))
    toy.material("nose", (1.0, 0.0, 0.0))
    model = toy.model()
    view = live_view(Framing("side", 0, 18, 8), SIZE, (0, 0, 10))
    rig = live_rig(model, 1, 2, (), 0.0, None)
    with LiveScene(renderer, Prepared(rig, view, {}, ()), shared_textures) as scene:
        picture = scene.picture(view, flatten_terms(model, (), 0.0), (0, 0, 0))
    red = (picture[..., 0] > 0) & (picture[..., 1] == 0) & (picture[..., 3] == 255)
    columns = np.flatnonzero(red.any(axis=0))
    assert (columns.min(), columns.max()) == (round((4 - 3) / 8 * SIZE), round((4 - 2) / 8 * SIZE) - 1)


def test_smaller_textures():
    texels = np.zeros((6, 4, 4), np.uint8)
    texels[:2, :2] = [[[10, 0, 0, 255], [20, 0, 0, 255]], [[30, 0, 0, 255], [40, 0, 0, 255]]]
    assert smaller(texels, 6) is texels
    half = smaller(texels, 4)
    assert half.shape == (3, 2, 4)
    assert half[0, 0].tolist() == [25, 0, 0, 255]
    assert smaller(np.full((1, 4096, 4), 7, np.uint8), 16).shape == (1, 16, 4)
    assert (smaller(np.full((33, 65, 4), 255, np.uint8), 8) == 255).all()


# -- the studio ----------------------------------------------------------------------------------------------------


def draw_of(subject: Subject, request: int = 1, **changes) -> Draw:
    front = subject.views["front"]
    framing = Framing("front", front["center"][0], front["center"][1], front["height"])
    values = {"framing": framing, "size": 64, "pose": (0.0, 0.0, 0.0), "terms": (), "slot": "", **changes}
    return Draw(request, subject.finding.id, **values)


class Loads:
    """A loader that counts, waits and fails as it is told."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.count = subject, 0
        self.go = threading.Event()
        self.go.set()
        self.errors: list[BaseException] = []

    def __call__(self, model: str) -> Subject:
        self.count += 1
        assert self.go.wait(30)
        if self.errors:
            raise self.errors.pop()
        return self.subject


def finish(future: Future):
    return future.result(timeout=60)


def test_sockets_draw(folder, tmp_path):
    """The whole way, in a process of its own, for a process has one renderer at a time."""
    import subprocess
    import sys

    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_web_drawing as t
t.check_sockets(Path({str(folder)!r}), Path({str(tmp_path)!r}))
t.check_studio(Path({str(folder)!r}))
"""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_sockets(folder: Path, tmp_path: Path) -> None:
    with (
        running(folder / "models", folder / "cache", tmp_path / "annotations", make=Renderer) as site,
        site.page() as page,
    ):
        finding = site.findings[0]
        assert finding.eyes is not None
        model = page.ask("open", model=finding.id)
        view = {"from": "front", **model["front"]}
        plain = page.ask("draw", model=finding.id, view=view, size=65)
        assert plain.shape == (65, 65, 4)
        assert plain[..., 3].max() == 255
        closed = page.ask("draw", model=finding.id, view=view, size=65, terms=model["eyes"]["normal_both"], slot="a")
        assert (closed != plain).any()
        left = page.ask("draw", model=finding.id, view=view, size=65, terms=model["eyes"]["normal_left"])
        changed = np.flatnonzero((left != plain).any(axis=2).any(axis=0))
        assert changed.min() > 30  # the character's left is on the right
        side = page.ask("draw", model=finding.id, view={"from": "side", **model["side"]}, size=65)
        assert (side != plain).any()
        subject = site.roster.subject(finding.id)
        low, high = (float(subject.model.position[:, 1].min()), subject.heights[1])
        whole = {"from": "front", "center": [0, (low + high) / 2], "height": 1.25 * (high - low)}
        assert low < subject.heights[0]  # of what is drawn as a rule
        assert page.ask("draw", model=finding.id, view=whole, size=64)[54:57, :, 3].any()
        wrong = page.ask(
            "draw", model=finding.id, view=view, size=64, terms=[{"morph": 9999, "weight": 1, "side": "both"}]
        )
        assert wrong["type"] == "error"
        assert str(folder) not in wrong["message"]

        # Of many pictures for one slot only few are drawn, in order, and every request is answered once.
        sent = [
            page.send("draw", model=finding.id, view=view, size=256, pose={"head_y": i / 50}, slot="s")
            for i in range(40)
        ]
        answers = []
        while len(answers) < len(sent):
            message = page.socket.receive()
            if message.get("bytes"):
                answers.append((int.from_bytes(message["bytes"][:4], "little"), True))
            else:
                import json

                answer = json.loads(message["text"])
                if answer["type"] == "superseded":
                    answers.append((answer["request"], False))
        assert sorted(number for number, _ in answers) == sent
        drawn = [number for number, picture in answers if picture]
        assert drawn == sorted(drawn)
        assert drawn[-1] == sent[-1]
        assert len(drawn) < len(sent)


def check_studio(folder: Path) -> None:
    path = next(path for path in sorted((folder / "models").rglob("*.pmx")) if path.parent.name != "broken")
    model = load_model(path)
    subject = make_subject(model, look_at_model(model, annotate))

    # One load for all who wait; a failure is told to them, and the next one tries again.
    loads = Loads(subject)
    studio = Studio(loads)
    loads.go.clear()
    waiting = [studio.subject("a") for _ in range(3)]
    jobs = [Job(dataclasses.replace(draw_of(subject, i), model="a"), 0.0) for i in range(3)]
    for job in jobs:
        studio.draw(job)
    loads.errors.append(LookupError("damaged"))
    loads.go.set()
    for future in [*waiting, *(job.result for job in jobs)]:
        with pytest.raises(LookupError, match="damaged"):
            finish(future)
    assert finish(studio.subject("a")) is subject
    assert loads.count == 2

    # A cancelled picture is not drawn, the others are.
    loads.go.clear()
    jobs = [Job(dataclasses.replace(draw_of(subject, i), model="b"), 0.0) for i in range(3)]
    for job in jobs:
        studio.draw(job)
    assert jobs[1].result.cancel()
    loads.go.set()
    assert finish(jobs[0].result)[:4] == (0).to_bytes(4, "little")
    assert finish(jobs[2].result)[:4] == (2).to_bytes(4, "little")

    # An error in drawing is that picture's alone.
    bad = Job(dataclasses.replace(draw_of(subject, terms=(MorphTerm(9999),)), model="b"), 0.0)
    good = Job(dataclasses.replace(draw_of(subject, 5), model="b"), 0.0)
    studio.draw(bad)
    studio.draw(good)
    with pytest.raises(MmdgenError):
        finish(bad.result)
    assert finish(good.result)
    studio.forget("b")
    before = loads.count
    assert finish(studio.subject("b")) is subject
    assert loads.count == before + 1
    studio.close()
    late = Job(draw_of(subject), 0.0)
    studio.draw(late)
    assert late.result.cancelled()

    # What does not fit into the budget goes, the one used for longest first, and comes again when it is wanted.
    loads = Loads(subject)
    studio = Studio(loads, budget=1)
    for name in "abcd":
        job = Job(dataclasses.replace(draw_of(subject), model=name), 0.0)
        studio.draw(job)
        finish(job.result)
    until(lambda: len(studio._entries) <= 2, 20)
    assert set(studio._entries) == {"c", "d"}
    job = Job(dataclasses.replace(draw_of(subject), model="a"), 0.0)
    studio.draw(job)
    assert finish(job.result)
    assert loads.count == 5
    studio.prefetch(("e",))
    studio.close()
