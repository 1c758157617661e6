"""Where a model came from and what its author wrote about using it.

Author's texts are kept word for word with their hash; the keyword hints beside them are what a search found, and no
verdict: only a person who reads the text can say what it allows.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

MAX_TEXT_BYTES = 256 << 10  # a longer file is kept by name and hash only
MAX_TEXTS = 16

_NAME = re.compile(
    r"read[ _-]?me|りどみ|りーどみー|リードミー|お読み|読んで|よんで|はじめに|規約|ライセンス|クレジット|使用条件|説明|"
    r"说明|說明|使用规|必读|terms|licen[cs]e|copyright|credit|copying|usage|rules"
)
_TEXT_SUFFIXES = {"", ".txt", ".md", ".htm", ".html", ".rst", ".text", ".1st"}
_OTHER_SUFFIXES = {".pdf", ".rtf", ".doc", ".docx"}

# A topic and a refusal in one sentence, at most 30 characters apart, in NFKC lower case. Hints, never verdicts.
_DENY = (
    r"禁|不可|お断り|ご遠慮|できません|しないで|やめて|請勿|请勿|不得|不允许|不能|×|"
    r"(?<![a-z])(?:ng|no|not|never|don'?t)(?![a-z])|prohibit|forbid|without permission"
)
_TOPICS = {
    "no_ai": (
        r"(?<![a-z])ai(?![a-z])|ai学習|生成ai|ai生成|人工知能|機械学習|人工智能|机器学习|"
        r"machine.?learning|deep.?learning|generative|training data"
    ),
    "no_commercial": r"商用|商業|商业|営利|commercial|for.?profit|有償|盈利",
    "no_redistribution": r"再配布|二次配布|配布禁止|redistribut|re-distribut|re-?upload|二次配|再分发|转载|転載",
    "r18": r"r-?18|18禁|成人向け|アダルト|性的|エロ|adult|erotic|sexual|nsfw|色情",
}
HINTS = tuple(_TOPICS)
_HINTS = {
    hint: re.compile(rf"(?:{topic})[^\n。]{{0,30}}(?:{_DENY})|(?:{_DENY})[^\n。]{{0,30}}(?:{topic})")
    for hint, topic in _TOPICS.items()
}

# Control characters that no text has; \x1a ended files in DOS.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class TermsText:
    """A text beside a model: `file` relative to the models' folder, `text` None where it is not plain text."""

    file: str
    sha256: str
    encoding: str | None
    text: str | None

    def to_json(self) -> dict:
        return {"file": self.file, "sha256": self.sha256, "encoding": self.encoding, "text": self.text}


def decode_text(data: bytes) -> tuple[str, str] | None:
    """Return (text, encoding) of a text file in UTF-8, UTF-16, Shift_JIS (cp932) or GBK; None for anything else.

    Decoding is strict. Bytes that are valid in both East Asian encodings go to the reading that looks like language:
    kana speaks for Japanese; half-width katakana, private and unassigned characters against a reading.
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return _strict(data, encoding)
    if b"\0" in data:
        pairs = max(1, len(data) // 2)
        for encoding, zeros in (("utf-16-le", data[1::2].count(0)), ("utf-16-be", data[0::2].count(0))):
            if len(data) % 2 == 0 and zeros > 0.2 * pairs:
                return _strict(data, encoding)
        return None
    found = _strict(data, "utf-8")
    if found is None:
        readings = [reading for reading in (_strict(data, "cp932"), _strict(data, "gb18030")) if reading]
        found = max(readings, key=lambda reading: _plausibility(reading[0]), default=None)
    return found


def _strict(data: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else (text, encoding)


def _plausibility(text: str) -> float:
    score = 0
    for character in text:
        point = ord(character)
        if 0x3041 <= point <= 0x30FE:  # kana
            score += 2
        elif 0x4E00 <= point <= 0x9FFF or 0x3000 <= point <= 0x303F:  # common ideographs, punctuation
            score += 1
        elif 0xFF61 <= point <= 0xFF9F or unicodedata.category(character) in ("Co", "Cn", "Cc"):
            score -= 0 if character in "\r\n\t" else 2
    return score / max(1, sum(ord(character) > 0x7F for character in text))


def hints(*texts: str) -> list[str]:
    """Return which of no_ai, no_commercial, no_redistribution, r18 the words of `texts` hint at, sorted."""
    found = set()
    for text in texts:
        plain = unicodedata.normalize("NFKC", text).lower()
        found.update(hint for hint, pattern in _HINTS.items() if pattern.search(plain))
    return sorted(found)


def terms_beside(model: Path, root: Path) -> tuple[TermsText, ...]:
    """Return the readme, terms and licence files in the model's folder and the folders above it, below `root`.

    Sorted by path; a file that cannot be read is left out, for a readme must not stop a render.
    """
    folders = [model.parent, *(parent for parent in model.parent.parents if root in parent.parents)]
    if root == model.parent:
        folders = [root]
    found: dict[str, TermsText] = {}
    for folder in folders:
        try:
            names = sorted(path for path in folder.iterdir() if _is_terms(path.name) and path.is_file())
        except OSError:
            continue
        for path in names[:MAX_TEXTS]:
            relative = path.relative_to(root).as_posix()
            try:
                data = path.read_bytes()
            except OSError:
                continue
            reading = None
            if path.suffix.lower() not in _OTHER_SUFFIXES and len(data) <= MAX_TEXT_BYTES:
                reading = decode_text(data)
            text, encoding = reading or (None, None)
            found[relative] = TermsText(relative, hashlib.sha256(data).hexdigest(), encoding, text)
    return tuple(found[relative] for relative in sorted(found))


def _is_terms(name: str) -> bool:
    plain = unicodedata.normalize("NFKC", name).lower()
    suffix = Path(plain).suffix
    return (suffix in _TEXT_SUFFIXES or suffix in _OTHER_SUFFIXES) and _NAME.search(plain) is not None


def provenance_row(model_id: str, path: str, name: str, comment: str, texts: tuple[TermsText, ...]) -> dict:
    """Return a model's row of provenance.jsonl."""
    folder, _, _ = path.rpartition("/")
    words = [comment, *(text.text for text in texts if text.text)]
    return {
        "sha256": model_id,
        "name": name,
        "path": path,
        "folder": folder,
        "comment": comment,
        "hints": hints(*words),
        "texts": [text.to_json() for text in texts],
    }


def json_line(value: object) -> str:
    """Return one line of JSON with sorted keys; readable, except that lone surrogates (odd file names) are escaped."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    return text


def jsonl_bytes(rows: list[dict]) -> bytes:
    """Return `rows` as JSON lines in UTF-8."""
    return "".join(json_line(row) + "\n" for row in rows).encode("utf-8")
