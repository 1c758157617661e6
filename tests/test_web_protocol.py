"""Messages of the page: what is right becomes a record, everything else is refused in words."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdgen.annotate.records import EYE_SLOTS
from mmdgen.model.records import MorphTerm
from mmdgen.web import protocol
from mmdgen.web.protocol import ProtocolError, parse

ID = "0123456789abcdef"
VIEW = {"from": "front", "center": [0, 17.5], "height": 3}
TERM = {"morph": 3, "weight": 0.5, "side": "left"}
EYES = {slot: [TERM] for slot in EYE_SLOTS}
BOUNDS = {"chin_y": 16.5, "top_y": 19, "center_x": 0}
GOOD: dict[str, dict[str, Any]] = {
    "open": {"model": ID},
    "draw": {
        "model": ID,
        "view": VIEW,
        "size": 384,
        "pose": {"head_x": 0, "head_y": -1, "neck_z": 0.5},
        "terms": [TERM],
        "slot": "front",
        "quick": True,
    },
    "save": {"model": ID, "kind": "head_bounds", "value": BOUNDS},
    "accept": {"model": ID, "kind": "wink_morphs"},
    "reject": {"model": ID, "reason": "口が開かない"},
    "unreject": {"model": ID},
    "undo": {},
    "redo": {},
    "prefetch": {"models": [ID, ID]},
}


def message(kind: str, request: Any = 7, /, **changes: Any) -> str:
    value = {"type": kind, "request": request, **GOOD[kind], **changes}
    return json.dumps({key: item for key, item in value.items() if item is not ...})


@pytest.mark.parametrize("kind", GOOD)
def test_each_message_becomes_a_record(kind):
    record = parse(message(kind))
    assert type(record).__name__.lower() == kind
    assert record.request == 7


def test_values_arrive_as_sent():
    draw = parse(message("draw"))
    assert isinstance(draw, protocol.Draw)
    assert draw.framing == protocol.Framing("front", 0.0, 17.5, 3.0)
    assert (draw.size, draw.pose, draw.slot) == (384, (0.0, -1.0, 0.5), "front")
    assert draw.quick is True
    assert draw.terms == (MorphTerm(3, 0.5, "left"),)
    plain = parse(message("draw", pose=..., terms=..., slot=..., quick=...))
    assert isinstance(plain, protocol.Draw)
    assert (plain.pose, plain.terms, plain.slot, plain.quick) == ((0, 0, 0), (), "", False)
    save = parse(message("save", kind="wink_morphs", value={"eyes": EYES, "mouth_open": []}))
    assert isinstance(save, protocol.Save)
    assert isinstance(save.value, protocol.MorphsValue)
    assert save.value.eyes["smile_both"] == (MorphTerm(3, 0.5, "left"),)
    reject = parse(message("reject", reason="  no face  "))
    assert isinstance(reject, protocol.Reject)
    assert reject.reason == "no face"


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", ID.upper(), ID + "\n", ID[:-1], ID + "0", "..", ""]
)
def test_models_are_ids_only(kind, path):
    if "model" in GOOD[kind]:
        with pytest.raises(ProtocolError, match="16 hexadecimal"):
            parse(message(kind, model=path))
    if "models" in GOOD[kind]:
        with pytest.raises(ProtocolError, match="16 hexadecimal"):
            parse(message(kind, models=[path]))


@pytest.mark.parametrize("kind", GOOD)
def test_keys_are_exactly_those(kind):
    with pytest.raises(ProtocolError, match="unknown keys") as caught:
        parse(message(kind, path="/etc/passwd"))
    assert "/etc" not in str(caught.value)
    optional = {"pose", "terms", "slot", "quick"} if kind == "draw" else set()
    for key in GOOD[kind].keys() - optional:
        with pytest.raises(ProtocolError, match=f"lacks {key}"):
            parse(message(kind, **{key: ...}))


WRONG = [None, True, "1", [], {}, [[1]], 1e400, -1e9]


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_wrong_types_everywhere(kind, value):
    """Each place of each message, with values of every other type: refused, whatever the place."""
    for key in GOOD[kind]:
        allowed = (key in ("terms", "models") and value == []) or (key == "pose" and value == {})
        allowed |= key in ("slot", "reason") and value == "1"
        allowed |= key == "quick" and value is True
        if allowed:
            continue
        text = message(kind, **{key: value}).replace("-Infinity", "-1e999").replace("Infinity", "1e999")
        with pytest.raises(ProtocolError) as caught:
            parse(text)
        assert caught.value.request == 7


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("draw", {"size": 1025}),
        ("draw", {"size": 15}),
        ("draw", {"size": 64.0}),
        ("draw", {"view": {**VIEW, "height": 0}}),
        ("draw", {"view": {**VIEW, "height": -1}}),
        ("draw", {"view": {**VIEW, "from": "back"}}),
        ("draw", {"view": {**VIEW, "center": [0]}}),
        ("draw", {"view": {**VIEW, "center": [0, 0, 0]}}),
        ("draw", {"view": {**VIEW, "center": [0, 1e6]}}),
        ("draw", {"view": {**VIEW, "fov": 3}}),
        ("draw", {"pose": {"head_x": 1.01}}),
        ("draw", {"pose": {"head_w": 0}}),
        ("draw", {"terms": [TERM] * 33}),
        ("draw", {"terms": [{**TERM, "weight": 11}]}),
        ("draw", {"terms": [{**TERM, "morph": -1}]}),
        ("draw", {"terms": [{**TERM, "morph": 2**40}]}),
        ("draw", {"terms": [{**TERM, "side": "whole"}]}),
        ("draw", {"slot": "s" * 33}),
        ("save", {"kind": "models"}),
        ("save", {"kind": "wink_morphs"}),
        ("save", {"value": {**BOUNDS, "top_y": 16.5}}),
        ("save", {"value": {**BOUNDS, "top_y": 16}}),
        ("save", {"kind": "wink_morphs", "value": {"eyes": {**EYES, "third": []}, "mouth_open": []}}),
        ("save", {"kind": "wink_morphs", "value": {"eyes": {**EYES, "normal_left": [TERM, TERM]}, "mouth_open": []}}),
        ("save", {"kind": "wink_morphs", "value": {"eyes": EYES, "mouth_open": [{**TERM, "weight": 0}]}}),
        ("reject", {"reason": "   "}),
        ("reject", {"reason": "a\nb"}),
        ("reject", {"reason": "\x1b[2J"}),
        ("reject", {"reason": "\ud800"}),
        ("reject", {"reason": "a" * 301}),
        ("prefetch", {"models": [ID] * 17}),
        ("open", {"request": -1}),
        ("open", {"request": 2**32}),
        ("open", {"request": 1.0}),
        ("open", {"request": True}),
        ("open", {"request": None}),
        ("open", {"type": "__class__"}),
        ("open", {"type": ["open"]}),
        ("open", {"type": None}),
    ],
)
def test_out_of_range(kind, changes):
    with pytest.raises(ProtocolError):
        parse(json.dumps({"type": kind, "request": 7, **GOOD[kind], **changes}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"open"',
        "\x00",
        "{'type': 'open'}",
        '{"type":"open","type":"undo","request":1}',
        '{"type":"undo","request":NaN}',
        '{"type":"undo","request":Infinity}',
        '{"type":"undo","request":' + "9" * 5000 + "}",
        "[" * 60000,
        '{"a":' * 10000,
        '{"type":"undo","request":1,"a":' + "[" * 7 + "]" * 7 + "}",
        "{" + " " * 70000 + "}",
        '{"type":"undo","request":1}{}',
    ],
    ids=lambda text: text[:24],
)
def test_malformed(text):
    with pytest.raises(ProtocolError):
        parse(text)


def test_brackets_in_texts_do_not_count_as_nesting():
    record = parse(message("reject", reason='[[[[[[[["\\{{{{{{{'))
    assert isinstance(record, protocol.Reject)


def test_deepest_message_is_allowed():
    parse(message("save", kind="wink_morphs", value={"eyes": EYES, "mouth_open": [TERM]}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_anything_gives_a_record_or_a_refusal(kind, data):
    """Mutated messages never raise anything else, and what is accepted holds finite numbers in range."""
    value = {"type": kind, "request": 1, **GOOD[kind]}
    key = data.draw(st.sampled_from(sorted(value)))
    value[key] = data.draw(json_values)
    try:
        record = parse(json.dumps(value))
    except ProtocolError:
        return
    if isinstance(record, protocol.Draw):
        assert protocol.MIN_SIZE <= record.size <= protocol.MAX_SIZE
        assert all(math.isfinite(term.weight) for term in record.terms)


@given(st.text(max_size=200))
def test_any_text(text):
    with pytest.raises(ProtocolError):
        parse(text)
