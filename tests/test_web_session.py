"""Actions on annotations: stored before they are answered, taken back to the byte, never over somebody else's work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_site import Site, fill_cache, make_models, running

from mmdgen.annotate import store
from mmdgen.annotate.records import EYE_SLOTS
from mmdgen.model.load import load_model
from mmdgen.web.finding import Cache, Finding, code_version

BOUNDS = {"chin_y": 16.5, "top_y": 19.25, "center_x": 0.125}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("session")
    fill_cache(make_models(place / "models"), place / "cache")
    return place


@pytest.fixture
def site(folder, tmp_path):
    with running(folder / "models", folder / "cache", tmp_path / "annotations") as made:
        yield made


def a_model(folder: Path) -> Path:
    return next(path for path in sorted((folder / "models").rglob("*.pmx")) if path.parent.name != "broken")


def files(site: Site) -> dict[str, bytes]:
    return {
        path.relative_to(site.annotations).as_posix(): path.read_bytes() for path in site.annotations.rglob("*.json")
    }


def bounds_file(site: Site, number: int = 0) -> Path:
    return store.path_of(site.annotations, "head_bounds", site.findings[number].sha256)


def other_person(site: Site, **changes) -> bytes:
    """Another person's record of the first model, as it arrives by git."""
    finding = site.findings[0]
    record = {
        **BOUNDS,
        "schema_version": 1,
        "sha256": finding.sha256,
        "name": finding.name,
        "annotator": "Ben",
        "source": "person",
        "confidence": 1.0,
        **changes,
    }
    store.write_record(site.annotations, "head_bounds", record)
    return bounds_file(site).read_bytes()


def test_state_lists_models_least_certain_first(site):
    state = site.client.get("/api/state").json()
    assert state["annotator"] == "Aoi"
    assert state["kinds"] == ["head_bounds", "wink_morphs"]
    usable = [row for row in state["models"] if row["usable"]]
    least = [min(row["confidence"].values()) for row in usable]
    assert least == sorted(least)
    assert {row["id"] for row in usable} == {finding.id for finding in site.findings}
    for row in usable:
        assert set(row["status"].values()) == {"auto"}
        assert "/" not in row["file"]


def test_opened_models_show_the_machines_values(site):
    finding = site.findings[0]
    with site.page() as page:
        model = page.ask("open", model=finding.id)
    assert model["type"] == "model"
    assert model["bounds"]["chin_y"] == finding.bounds.chin_y
    assert model["suggested"]["bounds"]["top_y"] == finding.bounds.top_y
    assert set(model["eyes"]) == set(EYE_SLOTS)
    assert model["eyes"] == model["suggested"]["eyes"]
    used = {term["morph"] for terms in model["eyes"].values() for term in terms}
    rows = {row["number"]: row for row in model["morphs"]}
    assert used
    assert all(rows[number]["candidate"] and "closes" in rows[number]["what"] for number in used)
    left = [term["morph"] for term in model["eyes"]["normal_left"] if term["side"] == "both"]
    assert all(rows[number]["side"] == "left" for number in left)
    head = finding.bounds.top_y - finding.bounds.chin_y
    assert model["eyes_view"]["left"]["center"][0] > finding.bounds.center_x > model["eyes_view"]["right"]["center"][0]
    for view in (model["front"], model["side"]):
        low, high = view["center"][1] - view["height"] / 2, view["center"][1] + view["height"] / 2
        assert low < finding.bounds.chin_y < finding.bounds.top_y < high
        assert view["height"] < 4 * head


def test_saving_writes_before_it_answers(site):
    finding = site.findings[0]
    with site.page() as page:
        page.ask("open", model=finding.id)
        answer = page.ask("save", model=finding.id, kind="head_bounds", value=BOUNDS)
        record = store.read_record(site.annotations, "head_bounds", finding.sha256)
        assert answer["type"] == "saved"
        assert answer["row"]["status"] == {"head_bounds": "mine", "wink_morphs": "auto"}
        assert record is not None
        assert {key: record[key] for key in BOUNDS} == BOUNDS
        assert (record["annotator"], record["source"]) == ("Aoi", "person")
        assert record["time"].endswith("Z")
        again = page.ask("open", model=finding.id)
        assert again["bounds"]["chin_y"] == BOUNDS["chin_y"]
        assert again["suggested"]["bounds"]["chin_y"] == finding.bounds.chin_y


def test_saved_morphs_are_what_the_store_reads(site):
    finding = site.findings[1]
    with site.page() as page:
        model = page.ask("open", model=finding.id)
        term = {"morph": model["eyes"]["normal_left"][0]["morph"], "weight": 0.75, "side": "left"}
        value = {"eyes": {**model["eyes"], "smile_both": [term]}, "mouth_open": []}
        answer = page.ask("save", model=finding.id, kind="wink_morphs", value=value)
        assert answer["row"]["status"]["wink_morphs"] == "mine"
        wrong = page.ask(
            "save",
            model=finding.id,
            kind="wink_morphs",
            value={"eyes": model["eyes"], "mouth_open": [{**term, "morph": 9999}]},
        )
        assert wrong["type"] == "error"
        assert "9999" in wrong["message"]
    path = next(path for path in site.roster._root.rglob("*.pmx") if site.roster.get(finding.id).path == path)
    stored = store.load(load_model(path), site.annotations)
    assert stored.eyes is not None
    assert [(t.morph, t.weight, t.side) for t in stored.eyes.slots["smile_both"]] == [(term["morph"], 0.75, "left")]
    assert stored.eyes.mouth_open == ()


@pytest.mark.parametrize("kind", ["head_bounds", "wink_morphs"])
def test_accepting_stores_what_is_shown(site, kind):
    finding = site.findings[0]
    with site.page() as page:
        shown = page.ask("open", model=finding.id)
        row = page.ask("accept", model=finding.id, kind=kind)["row"]
        assert row["status"][kind] == "mine"
        assert row["confidence"][kind] == 1.0
        after = page.ask("open", model=finding.id)
        assert after["eyes"] == shown["eyes"]
        assert after["bounds"]["chin_y"] == pytest.approx(shown["bounds"]["chin_y"], abs=1e-5)


def test_rejecting_and_taking_it_back(site):
    finding = site.findings[0]
    with site.page() as page:
        page.ask("open", model=finding.id)
        page.ask("save", model=finding.id, kind="head_bounds", value=BOUNDS)
        before = files(site)
        row = page.ask("reject", model=finding.id, reason="no face")["row"]
        assert row["status"] == {"head_bounds": "rejected", "wink_morphs": "rejected"}
        assert row["reason"]["wink_morphs"] == "no face"
        assert page.ask("open", model=finding.id)["rejected"] == "no face"
        empty = {slot: [] for slot in EYE_SLOTS}
        refused = page.ask("save", model=finding.id, kind="wink_morphs", value={"eyes": empty, "mouth_open": []})
        assert "rejected" in refused["message"]
        row = page.ask("unreject", model=finding.id)["row"]
        assert row["status"]["head_bounds"] == "mine"
        assert files(site) == before
        assert page.ask("unreject", model=finding.id)["type"] == "saved"  # nothing to take back
        assert files(site) == before


def test_models_that_cannot_be_read_can_be_rejected(site):
    site.roster.complete.wait(60)
    broken = next(row for row in site.roster.rows() if not row["usable"])
    assert broken["status"]["head_bounds"] == "error"
    with site.page() as page:
        assert page.ask("reject", model=broken["id"], reason="damaged")["row"]["status"]["head_bounds"] == "rejected"
        assert page.ask("unreject", model=broken["id"])["row"]["status"]["head_bounds"] == "error"
        assert files(site) == {}


def test_undo_and_redo_restore_bytes(site):
    a, b = site.findings[0], site.findings[1]
    history = [files(site)]
    with site.page() as page:
        for finding in (a, b):
            page.ask("open", model=finding.id)
        for action in (
            lambda: page.ask("save", model=a.id, kind="head_bounds", value=BOUNDS),
            lambda: page.ask("accept", model=b.id, kind="wink_morphs"),
            lambda: page.ask("save", model=a.id, kind="head_bounds", value={**BOUNDS, "chin_y": 16}),
            lambda: page.ask("reject", model=b.id, reason="hat"),
            lambda: page.ask("unreject", model=b.id),
            lambda: page.ask("reject", model=a.id, reason="no"),
        ):
            assert action()["type"] == "saved"
            history.append(files(site))
        for state in reversed(history[:-1]):
            assert page.ask("undo")["type"] == "undone"
            assert files(site) == state
        assert page.ask("undo")["type"] == "nothing"
        for state in history[1:]:
            answer = page.ask("redo")
            assert answer["type"] == "redone"
            assert files(site) == state
            assert answer["row"] == site.roster.row(answer["model"])
        assert page.ask("redo")["type"] == "nothing"
        page.ask("undo")
        page.ask("save", model=b.id, kind="head_bounds", value=BOUNDS)
        assert page.ask("redo")["type"] == "nothing"  # another way was taken


def test_others_work_is_never_overwritten(site):
    finding = site.findings[0]
    with site.page() as page:
        page.ask("open", model=finding.id)
        theirs = other_person(site)
        answer = page.ask("save", model=finding.id, kind="head_bounds", value=BOUNDS)
        assert answer["type"] == "error"
        assert "somebody else" in answer["message"]
        assert bounds_file(site).read_bytes() == theirs
        shown = page.ask("open", model=finding.id)
        assert shown["row"]["status"]["head_bounds"] == "other"
        assert page.ask("accept", model=finding.id, kind="head_bounds")["row"]["status"]["head_bounds"] == "mine"
        other_person(site, chin_y=15.0)
        undone = page.ask("undo")
        assert undone["type"] == "error"
        assert "somebody else" in undone["message"]
        assert json.loads(bounds_file(site).read_bytes())["chin_y"] == 15.0


def test_undo_does_not_bring_back_what_others_removed(site):
    finding = site.findings[0]
    with site.page() as page:
        page.ask("save", model=finding.id, kind="head_bounds", value=BOUNDS)
        bounds_file(site).unlink()
        assert page.ask("undo")["type"] == "error"
        assert not bounds_file(site).exists()
        assert page.ask("undo")["type"] == "nothing"


def test_conflicts_of_git_are_left_alone(site):
    finding = site.findings[0]
    marks = b"<<<<<<< ours\n{}\n=======\n{}\n>>>>>>> theirs\n"
    bounds_file(site).parent.mkdir(parents=True)
    bounds_file(site).write_bytes(marks)
    with site.page() as page:
        shown = page.ask("open", model=finding.id)
        assert "conflict" in shown["bounds"]["reason"]
        assert shown["row"]["status"]["head_bounds"] == "error"
        for action in ({"type": "save", "value": BOUNDS}, {"type": "accept"}):
            kind = action.pop("type")
            assert page.ask(kind, model=finding.id, kind="head_bounds", **action)["type"] == "error"
        assert page.ask("reject", model=finding.id, reason="x")["type"] == "error"
    assert bounds_file(site).read_bytes() == marks


def test_rows_follow_what_others_write(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mmdgen.web.session.WATCH_S", 0.05)
    with running(folder / "models", folder / "cache", tmp_path / "annotations") as site:
        site.session.start()
        try:
            with site.page() as page:
                other_person(site)
                page.request += 1
                answer = page.socket.receive_json()
                while answer["type"] != "row" or answer["row"]["status"].get("head_bounds") != "other":
                    answer = page.socket.receive_json()
                assert answer["row"]["id"] == site.findings[0].id
        finally:
            site.session.close()


def test_a_disk_that_refuses_is_told(site, monkeypatch):
    from mmdgen import fsio
    from mmdgen.errors import DatasetError

    def full(path, content):
        raise DatasetError(f"{path}: the disk is full")

    finding = site.findings[0]
    with site.page() as page:
        page.ask("save", model=finding.id, kind="head_bounds", value=BOUNDS)
        before = files(site)
        monkeypatch.setattr(fsio, "write_atomic", full)
        answer = page.ask("save", model=finding.id, kind="head_bounds", value={**BOUNDS, "chin_y": 15})
        assert "disk is full" in answer["message"]
        assert str(site.annotations) not in answer["message"]
        monkeypatch.undo()
        assert files(site) == before
        assert page.ask("undo")["type"] == "undone"
        assert files(site) == {}


@settings(max_examples=8)
@given(st.lists(st.sampled_from(["save", "save2", "accept", "reject", "unreject", "undo", "redo"]), max_size=14))
def test_any_order_of_actions(folder, tmp_path_factory, actions):
    """Whatever is done, undoing all of it leaves the files as they were, and every file passes its schema."""
    with running(folder / "models", folder / "cache", tmp_path_factory.mktemp("order") / "annotations") as site:
        finding = site.findings[0]
        start = other_person(site)
        with site.page() as page:
            page.ask("open", model=finding.id)
            for action in actions:
                fields = {
                    "save": {"kind": "head_bounds", "value": BOUNDS},
                    "save2": {"kind": "head_bounds", "value": {**BOUNDS, "top_y": 20}},
                    "accept": {"kind": "wink_morphs"},
                    "reject": {"reason": "no"},
                }.get(action, {})
                if action not in ("undo", "redo"):
                    fields["model"] = finding.id
                page.ask(action.rstrip("2"), **fields)
                for kind in store.KINDS:
                    store.read_record(site.annotations, kind, finding.sha256)
            while page.ask("undo")["type"] == "undone":
                pass
        assert list(files(site).values()) == [start]


# -- the cache -----------------------------------------------------------------------------------------------------


def test_cache_knows_files_and_code(folder, tmp_path):
    path = a_model(folder)
    finding = Cache(folder / "cache").get(path)
    assert finding is not None
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding
    assert Cache(folder / "cache", "other code").get(path) is None
    copy = tmp_path / "character.pmx"
    copy.write_bytes(path.read_bytes())
    kept = Cache(tmp_path / "cache")
    kept.put(copy, finding)
    assert kept.get(copy) == finding
    kept.flush()
    assert Cache(tmp_path / "cache").get(copy) == finding
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert Cache(tmp_path / "cache").get(copy) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b'{"a":1}'])
def test_damaged_caches_are_as_none(folder, tmp_path, damage):
    path = a_model(folder)
    finding = Cache(folder / "cache").get(path)
    assert finding is not None
    cache = Cache(tmp_path)
    cache.put(path, finding)
    cache.flush()
    (tmp_path / code_version() / f"{finding.sha256}.json").write_bytes(damage)
    assert Cache(tmp_path).get(path) is None
    (tmp_path / "files.json").write_bytes(damage)
    assert Cache(tmp_path).get(path) is None


def test_a_first_start_finds_by_itself(folder, tmp_path):
    """Without a cache: rows are there at once, then worker processes fill them, and the next start has them."""
    with running(folder / "models", tmp_path / "cache", tmp_path / "annotations") as site:
        assert site.roster.complete.wait(120)
        rows = {row["id"]: row for row in site.roster.rows()}
        assert len(rows) == 3
        assert sum(row["usable"] for row in rows.values()) == 2
        assert all(row["confidence"]["head_bounds"] > 0 for row in rows.values() if row["usable"])
    with running(folder / "models", tmp_path / "cache", tmp_path / "annotations") as site:
        assert len(site.findings) == 2
