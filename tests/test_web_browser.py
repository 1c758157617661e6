"""The annotators' pages in headless Chromium: what people do, and whether the files say it afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import (
    ANNOTATOR,
    EVIL_NAME,
    LARGE,
    SMALL,
    WAIT_MS,
    Server,
    Tab,
    annotating,
    make_models,
)

from mmdgen.annotate import store
from mmdgen.annotate.records import EYE_SLOTS, PERSON
from mmdgen.model.load import load_model

pytestmark = [pytest.mark.browser, pytest.mark.gl]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of characters, and the loaded ones by id."""
    folder = tmp_path_factory.mktemp("characters")
    loaded = [load_model(path) for path in make_models(folder)]
    return folder, {model.id[:16]: model for model in loaded}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def stored_in(tmp_path):
    return tmp_path / "annotations"


@pytest.fixture
def server(models, stored_in, cache):
    with annotating(models[0], stored_in, cache) as running:
        yield running


@pytest.fixture(scope="module")
def untouched(models, cache, tmp_path_factory):
    """A folder for annotations in which nothing is ever stored."""
    return tmp_path_factory.mktemp("untouched")


@pytest.fixture(scope="module")
def reading(models, cache, untouched):
    """One server for the tests that store nothing."""
    with annotating(models[0], untouched, cache) as running:
        yield running
    assert not list(untouched.rglob("*.json"))


@pytest.fixture
def tabs(browser, tmp_path):
    """Makes pages. None of them may have had an error at the end; their pictures are kept."""
    made: list[Tab] = []
    shots = tmp_path / "shots"
    shots.mkdir()

    def make(**settings) -> Tab:
        made.append(Tab(browser, shots, **settings))
        return made[-1]

    yield make
    for number, tab in enumerate(made):
        tab.shoot(f"end-{number}")
        tab.close()
    print(f"pictures of the pages: {shots}")  # noqa: T201 shown by pytest where the test fails
    assert [error for tab in made for error in tab.errors] == []


def _wait_rows(tab: Tab, models) -> None:
    tab.page.wait_for_function(
        "(n) => document.querySelectorAll('.model:not([hidden])').length >= n", arg=len(models[1])
    )
    # the machine has looked at all of them, so that the order stays
    tab.page.wait_for_function(
        "() => ![...document.querySelectorAll('.model-note')].some(n => /not looked/.test(n.textContent))"
    )


def _value(tab: Tab, line: str) -> float:
    return float(tab.page.locator(f"#front-stage [data-line={line}]").get_attribute("aria-valuenow") or "nan")


def _middle(tab: Tab, line: str) -> tuple[float, float]:
    box = tab.page.locator(f"#front-stage [data-line={line}]").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _scale(tab: Tab) -> float:
    """Pixels per MU, from where the two lines are and what they say."""
    pixels = _middle(tab, "chin_y")[1] - _middle(tab, "top_y")[1]
    return pixels / (_value(tab, "top_y") - _value(tab, "chin_y"))


def _stored(models, stored_in: Path, model: str) -> store.Stored:
    return store.load(models[1][model], stored_in)


def test_lines_are_moved_by_mouse_and_keys_and_accepted(server: Server, models, stored_in, tabs):
    tab = tabs().open(server.url)
    _wait_rows(tab, models)
    first = tab.ready()
    assert tab.text("#model-title") in {model.name for model in models[1].values()}
    assert not _stored(models, stored_in, first).bounds
    tab.shoot("bounds")
    chin, top, pixel = _value(tab, "chin_y"), _value(tab, "top_y"), 1 / _scale(tab)
    assert 0.001 < pixel < 0.1

    x, y = _middle(tab, "chin_y")
    before = tab.saved
    tab.page.mouse.move(x + 60, y + 2)
    tab.page.mouse.down()
    for step in range(1, 11):
        tab.page.mouse.move(x + 60, y + 2 + 3 * step)
    tab.shoot("dragging")
    assert tab.saved == before  # stored when it is let go, not while it moves
    tab.page.mouse.up()
    tab.wait_saved(before)
    bounds = _stored(models, stored_in, first).bounds
    assert bounds is not None
    assert bounds.source == PERSON
    assert bounds.chin_y == pytest.approx(chin - 30 * pixel, abs=pixel)
    assert bounds.top_y == pytest.approx(top, abs=1e-3)

    tab.act("ArrowUp")
    moved = _stored(models, stored_in, first).bounds
    assert moved is not None
    assert moved.chin_y - bounds.chin_y == pytest.approx(pixel, rel=0.02)
    tab.act("Shift+ArrowDown")
    again = _stored(models, stored_in, first).bounds
    assert again is not None
    assert again.chin_y - moved.chin_y == pytest.approx(-10 * pixel, rel=0.02)
    tab.press("t")
    tab.act("Shift+ArrowUp", "ArrowRight")
    last = _stored(models, stored_in, first).bounds
    assert last is not None
    assert last.top_y - again.top_y == pytest.approx(10 * pixel, rel=0.02)
    assert last.center_x - again.center_x == pytest.approx(pixel, rel=0.02)

    tab.act("Enter")
    second = tab.ready()
    assert second != first
    tab.page.wait_for_selector(f"#models-{first} .mark.mine")
    assert _stored(models, stored_in, first).bounds == last
    tab.act("Enter")  # as it is: what the machine found becomes the person's
    accepted = _stored(models, stored_in, second).bounds
    assert accepted is not None
    assert accepted.source == PERSON
    tab.page.wait_for_function("() => document.querySelector('header').textContent.includes('2 of 4 checked')")


def test_undo_and_redo(server: Server, models, stored_in, tabs):
    tab = tabs().open(server.url)
    _wait_rows(tab, models)
    first = tab.ready()
    chin = _value(tab, "chin_y")
    tab.act("Shift+ArrowUp")
    moved = _value(tab, "chin_y")
    assert moved > chin
    tab.act("Enter")
    tab.ready()
    assert tab.model != first
    tab.act("u")  # goes back to where something was undone
    if tab.ready() != first or _stored(models, stored_in, first).bounds is not None:
        tab.act("Control+z")  # where accepting what is stored already was a step of its own
    tab.ready(first)
    assert _stored(models, stored_in, first).bounds is None
    assert _value(tab, "chin_y") == pytest.approx(chin, abs=2e-3)
    tab.act("Control+Shift+z")
    tab.ready(first)
    stored = _stored(models, stored_in, first).bounds
    assert stored is not None
    assert stored.chin_y == pytest.approx(moved, abs=2e-3)
    assert _value(tab, "chin_y") == pytest.approx(moved, abs=2e-3)


def test_eyes_are_labelled_by_keys_and_found_after_a_reload(server: Server, models, stored_in, tabs):
    tab = tabs().open(server.url, "wink_morphs")
    _wait_rows(tab, models)
    first = tab.ready()
    model = models[1][first]
    tab.shoot("winks")
    tab.press("ArrowDown")
    assert tab.text("#shown-name") == "Trying a morph"
    tried = tab.text(".term:not([hidden]) .term-name")
    number = next(i for i, morph in enumerate(model.morphs) if morph.name == tried)
    tab.press("v")  # the left half
    tab.press("ArrowLeft")
    tab.press("ArrowLeft")
    assert tab.text(".term:not([hidden]) output") == "90 %"
    assert store.load(model, stored_in).eyes is None  # trying stores nothing
    tab.act("4")
    eyes = store.load(model, stored_in).eyes
    assert eyes is not None
    assert [(t.morph, t.side) for t in eyes.slots["smile_left"]] == [(number, "left")]
    assert eyes.slots["smile_left"][0].weight == pytest.approx(0.9)
    assert set(eyes.slots) == set(EYE_SLOTS)
    assert eyes.source == PERSON
    tab.shoot("labelled")

    tab.act("u")
    tab.ready(first)
    assert store.load(model, stored_in).eyes is None
    tab.act("Shift+u")
    tab.ready(first)
    assert store.load(model, stored_in).eyes == eyes
    tab.page.reload()
    tab.ready(first)
    assert f"{tried}, 90 %, left half" in tab.text("[data-slot=smile_left]")
    tab.page.wait_for_selector(f"#models-{first} .mark.mine")

    # a second term beside it, then the slot is cleared
    tab.press("ArrowUp")
    tab.act("Shift+4")
    both = store.load(model, stored_in).eyes
    assert both is not None
    assert len(both.slots["smile_left"]) == 2
    tab.page.locator("[data-slot=smile_left] .slot-pick").click()
    tab.act("Delete")
    cleared = store.load(model, stored_in).eyes
    assert cleared is not None
    assert cleared.slots["smile_left"] == ()
    assert "nothing" in tab.text("[data-slot=smile_left]")
    tab.act("a")  # the machine's, all of it
    taken = store.load(model, stored_in).eyes
    assert taken is not None
    assert taken.slots["smile_left"] != ()


def test_a_weight_is_dragged_live(server: Server, models, stored_in, tabs):
    tab = tabs().open(server.url, "wink_morphs")
    _wait_rows(tab, models)
    first = tab.ready()
    tab.press("3")
    slider = tab.page.locator(".term:not([hidden]) input").first
    box = slider.bounding_box()
    assert box is not None
    drawn = int(tab.page.locator("#close").get_attribute("data-drawn") or 0)
    before = tab.saved
    right, y = box["x"] + box["width"] - 8, box["y"] + box["height"] / 2
    tab.page.mouse.move(right, y)
    tab.page.mouse.down()
    for step in range(40):
        tab.page.mouse.move(right - (box["width"] - 16) * step / 80, y)
        tab.page.wait_for_timeout(25)
    live = int(tab.page.locator("#close").get_attribute("data-drawn") or 0) - drawn
    assert tab.saved == before
    tab.page.mouse.up()
    tab.wait_saved(before)
    eyes = _stored(models, stored_in, first).eyes
    assert eyes is not None
    assert eyes.slots["normal_both"][0].weight == pytest.approx(0.5, abs=0.05)
    assert live >= 4  # a loose bound: machines in CI are slow
    tab.page.keyboard.down("b")
    assert tab.text("#shown-name") == "Before: face at rest"
    tab.page.keyboard.up("b")
    assert tab.text("#shown-name") == "Closed: Both eyes"


def test_models_are_rejected_with_a_reason_and_filtered(server: Server, models, stored_in, tabs):
    tab = tabs().open(server.url)
    _wait_rows(tab, models)
    first = tab.ready()
    tab.press("r")
    tab.shoot("reject")
    tab.act("4")
    second = tab.ready()
    assert second != first
    assert _stored(models, stored_in, first).rejected == "textures are missing or wrong"
    tab.press("r")
    tab.page.locator("#reject-text").fill("4 keys: s, r and u are typed, not pressed")
    tab.act("Enter")
    assert _stored(models, stored_in, second).rejected == "4 keys: s, r and u are typed, not pressed"
    third = tab.ready()
    assert third not in (first, second)

    tab.press("f")  # unsure
    tab.press("f")  # rejected
    tab.page.wait_for_function("() => document.querySelectorAll('.model:not([hidden])').length === 2")
    tab.shoot("filter-rejected")
    tab.page.locator(f"#models-{first}").click()
    tab.ready(first)
    assert "textures are missing or wrong" in tab.text("#rejected")
    before = tab.saved
    tab.page.locator("#unreject").click()
    tab.wait_saved(before)
    tab.ready(first)
    assert not _stored(models, stored_in, first).rejected
    tab.page.wait_for_selector("#rejected", state="hidden")
    tab.press("f")  # mine
    tab.page.wait_for_selector("#models-empty")
    tab.shoot("filter-empty")
    assert tab.text("#models-empty") == "You have not checked any model yet."


def test_keys_help_neighbours_and_search(reading: Server, models, tabs):
    tab = tabs().open(reading.url)
    _wait_rows(tab, models)
    first = tab.ready()
    tab.press("?")
    assert tab.page.locator("#help-dialog").is_visible()
    help_text = tab.text("#help-dialog")
    assert "accept what is shown and go on" in help_text
    assert "put what is shown into a slot" in help_text
    tab.shoot("help")
    tab.press("Enter")  # closes it: the close button has the focus; nothing behind a dialog hears keys
    assert not tab.page.locator("#help-dialog").is_visible()
    assert tab.model == first

    tab.press("PageDown")
    second = tab.ready(tab.page.locator(".model").nth(1).get_attribute("id")[len("models-") :])
    tab.press("<")
    tab.ready(first)
    tab.press("s")
    tab.ready(second)
    tab.press("/")
    tab.page.keyboard.type("srukm")  # would skip, reject, undo and change the view
    assert not tab.page.locator("#reject-dialog").is_visible()
    assert tab.model == second
    tab.page.wait_for_selector("#models-empty")
    tab.press("Escape")
    tab.page.wait_for_selector("#models-empty", state="hidden")
    tab.press("k")
    assert tab.page.locator("#view-wink_morphs").is_visible()
    tab.ready(second)


def test_names_of_models_are_text(reading: Server, models, tabs):
    tab = tabs().open(reading.url)
    _wait_rows(tab, models)
    evil = next(number for number, model in models[1].items() if model.name == EVIL_NAME)
    tab.page.locator(f"#models-{evil}").click()
    tab.ready(evil)
    assert tab.text("#model-title") == EVIL_NAME
    assert EVIL_NAME in tab.text(f"#models-{evil}")
    tab.shoot("evil-name")
    assert tab.page.locator("img").count() == 1  # the page's own
    assert tab.page.locator("main b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_everything_fits_the_window(reading: Server, models, tabs, size, scheme):
    tab = tabs(size=size, scheme=scheme).open(reading.url)
    _wait_rows(tab, models)
    tab.page.wait_for_timeout(400)  # for the sharp picture
    tab.shoot(f"bounds-{scheme}-{size[0]}")
    assert tab.overflow() == []
    background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background[4:-1].split(",")) / 3
    assert (brightness < 60) == (scheme == "dark")
    tab.press("k")
    tab.ready()
    tab.page.wait_for_function(
        "() => [...document.querySelectorAll('.thumb')].every((t) => t.dataset.model === document.body.dataset.model)"
    )
    tab.page.wait_for_timeout(400)
    tab.shoot(f"winks-{scheme}-{size[0]}")
    assert tab.overflow() == []


def test_pages_tell_when_the_server_is_gone_and_come_back(models, stored_in, cache, tabs):
    tab = tabs()
    tab.expected = (
        "ERR_CONNECTION_REFUSED",
        "WebSocket",
        "401",
        "403",
    )  # the browser's own words for what is done here
    with annotating(models[0], stored_in, cache) as server:
        tab.open(server.url)
        _wait_rows(tab, models)
        first = tab.ready()
    tab.page.wait_for_selector("#banner")
    assert "No connection" in tab.text("#banner")
    tab.press("ArrowUp")  # kept until there is a server again
    tab.page.wait_for_function("() => document.querySelector('#saved').dataset.waiting === '1'")
    tab.shoot("lost")
    with annotating(models[0], stored_in, cache, port=server.port) as server:
        tab.page.wait_for_function(
            "() => document.querySelector('#banner').textContent.includes('open the address')", timeout=WAIT_MS
        )
        tab.shoot("other-secret")
        assert _stored(models, stored_in, first).bounds is None
        # the address opened in another tab of the same browser brings the secret: the first one goes on by itself
        page = tab.context.new_page()
        page.goto(server.url)
        tab.page.wait_for_selector("#banner", state="hidden")
        tab.page.wait_for_function("() => document.querySelector('#saved').dataset.waiting === '0'")
    bounds = _stored(models, stored_in, first).bounds
    assert bounds is not None
    assert bounds.source == PERSON


def test_a_key_is_answered_soon(reading: Server, models, tabs):
    tab = tabs().open(reading.url)
    _wait_rows(tab, models)
    tab.page.wait_for_timeout(1000)  # the next ones are loaded ahead
    took = tab.page.evaluate(
        """async () => {
          const title = document.querySelector('#model-title');
          const began = performance.now();
          const changed = new Promise((resolve) => new MutationObserver(resolve).observe(title, {childList: true}));
          document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 's', code: 'KeyS', bubbles: true}));
          await changed;
          return performance.now() - began;
        }"""
    )
    assert took < 500  # it is under 20 where nothing else runs


def test_annotations_say_who(server: Server, models, stored_in, tabs):
    tab = tabs().open(server.url)
    first = tab.ready()
    tab.act("ArrowUp")
    record = store.read_record(stored_in, store.HEAD_BOUNDS, models[1][first].id)
    assert record is not None
    assert record["annotator"] == ANNOTATOR
    assert tab.text("#annotator") == ANNOTATOR
