"""What a page may send: every message is checked to the last field and becomes a frozen record.

A message is one JSON object in a text frame of the socket. Unknown keys, doubled keys, wrong types, numbers that are no
numbers or out of range, long lists and deep nesting are refused with `ProtocolError`, whose text a page may show.
Models are named by id, the first 16 hexadecimal digits of their file's SHA-256; nothing that comes in is ever a path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from mmdgen.annotate.records import EYE_SLOTS
from mmdgen.model.morphs import SIDES
from mmdgen.model.records import MorphTerm

MAX_MESSAGE_BYTES = 64 * 1024
MAX_DEPTH = 6
MAX_REQUEST = 2**32 - 1  # goes back as an unsigned 32-bit number in front of pictures
MIN_SIZE, MAX_SIZE = 16, 1024  # pixels
MAX_TERMS = 32  # of one slot or one picture
MAX_PREFETCH = 16
MAX_REASON = 300
MAX_WEIGHT = 10.0
MAX_COORDINATE = 1e5  # MU; a model has about 20
MAX_HEIGHT = 1e4
MAX_MORPH = 2**31 - 1
KINDS = ("head_bounds", "wink_morphs")
FRONT, SIDE = "front", "side"

_ID = re.compile(r"[0-9a-f]{16}")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


class ProtocolError(ValueError):
    """A message that is not understood. `request` is its number where that much could be read."""

    def __init__(self, message: str, request: int | None = None) -> None:
        super().__init__(message)
        self.request = request


@dataclass(frozen=True, slots=True)
class Framing:
    """What a picture shows, in MU: `source` is ``front`` or ``side`` (from the character's left: z grows to the right).

    `across` and `y` are its middle (x, or z from the side) and `height` the whole picture's.
    """

    source: str
    across: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Open:
    request: int
    model: str


@dataclass(frozen=True, slots=True)
class Draw:
    """A picture of `model` with `terms` applied and the head turned by `pose` (head_x, head_y, neck_z in [-1, 1]).

    A `quick` one has a single sample a pixel: for what is dragged.
    """

    request: int
    model: str
    framing: Framing
    size: int
    pose: tuple[float, float, float]
    terms: tuple[MorphTerm, ...]
    slot: str
    quick: bool = False


@dataclass(frozen=True, slots=True)
class BoundsValue:
    chin_y: float
    top_y: float
    center_x: float


@dataclass(frozen=True, slots=True)
class MorphsValue:
    """`eyes` has the keys of `EYE_SLOTS`."""

    eyes: dict[str, tuple[MorphTerm, ...]]
    mouth_open: tuple[MorphTerm, ...]


@dataclass(frozen=True, slots=True)
class Save:
    request: int
    model: str
    kind: str
    value: BoundsValue | MorphsValue


@dataclass(frozen=True, slots=True)
class Accept:
    request: int
    model: str
    kind: str


@dataclass(frozen=True, slots=True)
class Reject:
    request: int
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unreject:
    request: int
    model: str


@dataclass(frozen=True, slots=True)
class Undo:
    request: int


@dataclass(frozen=True, slots=True)
class Redo:
    request: int


@dataclass(frozen=True, slots=True)
class Prefetch:
    request: int
    models: tuple[str, ...]


Message = Open | Draw | Save | Accept | Reject | Unreject | Undo | Redo | Prefetch


def parse(text: str) -> Message:
    """Return the record of one message. Raises `ProtocolError` for anything that is not exactly one of them."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise ProtocolError("the message is too long")
    _check_depth(text)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, ProtocolError) else "the message is not JSON"
        raise ProtocolError(what) from None
    if not isinstance(value, dict):
        raise ProtocolError("a message is a JSON object")
    request = value.get("request")
    if isinstance(request, bool) or not isinstance(request, int) or not 0 <= request <= MAX_REQUEST:
        raise ProtocolError(f"request must be a whole number from 0 to {MAX_REQUEST}")
    try:
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in _READERS:
            _refuse(f"type must be one of {', '.join(_READERS)}")
        fields = _READERS[kind][0]
        _keys(value, {"type", "request", *fields}, _READERS[kind][1], "the message")
        return _READERS[kind][2](request, value)
    except ProtocolError as error:
        raise ProtocolError(str(error), request) from None


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the JSON parser sees it."""
    depth = 0
    for found in _BRACKET.finditer(text):
        depth += (found[1] is not None) - (found[2] is not None)
        if depth > MAX_DEPTH:
            raise ProtocolError("the message is nested too deeply")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ProtocolError("a key is given more than once")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ProtocolError(f"{name} is not a number")


def _refuse(message: str) -> NoReturn:
    raise ProtocolError(message)


def _keys(value: Any, wanted: set[str], optional: set[str], where: str) -> None:
    if not isinstance(value, dict):
        _refuse(f"{where} must be an object")
    if missing := sorted(wanted - optional - value.keys()):
        _refuse(f"{where} lacks {', '.join(missing)}")
    if len(value.keys() - wanted):  # not quoted: the sender knows them
        _refuse(f"{where} has unknown keys")


def _number(value: Any, low: float, high: float, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN fails too
        _refuse(f"{where} must be a number from {low:g} to {high:g}")
    return float(value)


def _whole(value: Any, low: int, high: int, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        _refuse(f"{where} must be a whole number from {low} to {high}")
    return value


def _model(value: Any) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        _refuse("model must be 16 hexadecimal digits")
    return value


def _kind(value: Any) -> str:
    if not isinstance(value, str) or value not in KINDS:
        _refuse(f"kind must be one of {', '.join(KINDS)}")
    return value


def _list(value: Any, most: int, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        _refuse(f"{where} must be a list of at most {most}")
    return value


def _terms(value: Any, where: str, *, stored: bool) -> tuple[MorphTerm, ...]:
    """Terms to draw or to store; a stored one has a weight other than 0, and none names a morph's side twice."""
    terms = []
    for item in _list(value, MAX_TERMS, where):
        _keys(item, {"morph", "weight", "side"}, set(), f"a term of {where}")
        morph = _whole(item["morph"], 0, MAX_MORPH, f"the morph of a term of {where}")
        weight = _number(item["weight"], -MAX_WEIGHT, MAX_WEIGHT, f"the weight of a term of {where}")
        if not isinstance(item["side"], str) or item["side"] not in SIDES:
            _refuse(f"the side of a term of {where} must be one of {', '.join(SIDES)}")
        if stored and weight == 0:
            _refuse(f"the weight of a term of {where} must not be 0")
        terms.append(MorphTerm(morph, weight, item["side"]))
    if stored and len({(term.morph, term.side) for term in terms}) != len(terms):
        _refuse(f"{where} has the same morph twice")
    return tuple(terms)


def _framing(value: Any) -> Framing:
    _keys(value, {"from", "center", "height"}, set(), "view")
    if not isinstance(value["from"], str) or value["from"] not in (FRONT, SIDE):
        _refuse(f"view.from must be {FRONT} or {SIDE}")
    center = _list(value["center"], 2, "view.center")
    if len(center) != 2:
        _refuse("view.center must be two numbers")
    across, y = (_number(part, -MAX_COORDINATE, MAX_COORDINATE, "view.center") for part in center)
    return Framing(value["from"], across, y, _number(value["height"], 1e-3, MAX_HEIGHT, "view.height"))


def _pose(value: Any) -> tuple[float, float, float]:
    names = ("head_x", "head_y", "neck_z")
    _keys(value, set(names), set(names), "pose")
    x, y, z = (_number(value.get(name, 0), -1, 1, f"pose.{name}") for name in names)
    return (x, y, z)


def _draw(request: int, value: dict[str, Any]) -> Draw:
    slot = value.get("slot", "")
    if not isinstance(slot, str) or len(slot) > 32:
        _refuse("slot must be a text of at most 32 characters")
    quick = value.get("quick", False)
    if not isinstance(quick, bool):
        _refuse("quick must be true or false")
    return Draw(
        request,
        _model(value["model"]),
        _framing(value["view"]),
        _whole(value["size"], MIN_SIZE, MAX_SIZE, "size"),
        _pose(value.get("pose", {})),
        _terms(value.get("terms", []), "terms", stored=False),
        slot,
        quick,
    )


def _save(request: int, value: dict[str, Any]) -> Save:
    kind, given = _kind(value["kind"]), value["value"]
    if kind == "head_bounds":
        names = ("chin_y", "top_y", "center_x")
        _keys(given, set(names), set(), "value")
        chin, top, center = (_number(given[name], -MAX_COORDINATE, MAX_COORDINATE, name) for name in names)
        if not top > chin or math.isclose(top, chin, abs_tol=1e-4):
            _refuse("top_y must be above chin_y")
        return Save(request, _model(value["model"]), kind, BoundsValue(chin, top, center))
    _keys(given, {"eyes", "mouth_open"}, set(), "value")
    _keys(given["eyes"], set(EYE_SLOTS), set(), "eyes")
    eyes = {slot: _terms(given["eyes"][slot], slot, stored=True) for slot in EYE_SLOTS}
    return Save(
        request,
        _model(value["model"]),
        kind,
        MorphsValue(eyes, _terms(given["mouth_open"], "mouth_open", stored=True)),
    )


def _reject(request: int, value: dict[str, Any]) -> Reject:
    reason = value["reason"]
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        _refuse(f"reason must be one line of 1 to {MAX_REASON} printable characters")
    return Reject(request, _model(value["model"]), reason.strip())


def _prefetch(request: int, value: dict[str, Any]) -> Prefetch:
    return Prefetch(request, tuple(_model(item) for item in _list(value["models"], MAX_PREFETCH, "models")))


_Reader = tuple[set[str], set[str], Callable[[int, dict[str, Any]], Message]]
# type -> its keys, which of them may be left out, what makes the record
_READERS: dict[str, _Reader] = {
    "open": ({"model"}, set(), lambda request, value: Open(request, _model(value["model"]))),
    "draw": ({"model", "view", "size", "pose", "terms", "slot", "quick"}, {"pose", "terms", "slot", "quick"}, _draw),
    "save": ({"model", "kind", "value"}, set(), _save),
    "accept": (
        {"model", "kind"},
        set(),
        lambda request, value: Accept(request, _model(value["model"]), _kind(value["kind"])),
    ),
    "reject": ({"model", "reason"}, set(), _reject),
    "unreject": ({"model"}, set(), lambda request, value: Unreject(request, _model(value["model"]))),
    "undo": (set(), set(), lambda request, value: Undo(request)),
    "redo": (set(), set(), lambda request, value: Redo(request)),
    "prefetch": ({"models"}, set(), _prefetch),
}
