"""What rows of provenance.jsonl say about authors and terms, in short: for the dataset's card and its report.

A search for words, no reading: what is found is a place to look first.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from mmdgen.errors import one_line

HINT_MEANINGS = {
    "no_ai": "words against machine learning or generative AI",
    "no_commercial": "words against commercial use",
    "no_redistribution": "words against redistribution",
    "r18": "words about adult use",
}
# What has to be asked for before a dataset with such models is used or passed on.
HINT_TASKS = {
    "no_ai": "ask the authors before anything is trained on their models, or leave them out",
    "no_commercial": "use the dataset, and what is trained on it, for nothing commercial",
    "no_redistribution": "ask before the dataset leaves your hands: it holds pictures of the models",
    "r18": "read what the authors say about adult content",
}
LINE_LIMIT = 120
_TEXT_LIMIT = 20_000  # characters of a text that are looked at

_CREDIT = re.compile(
    r"(?<![a-z])(?:author|creators?|credits?|copyright|modell?(?:ing|ed|er)? ?(?:by|:)|(?:made|created|edited) by)"
    r"(?![a-z])|\(c\)|©|"
    r"製作|制作|作者|作成|モデリング|モデラー|著作|版権|改変|モデル ?[:by]|模型|建模|原作|権利",
)
_LETTERS = re.compile(r"\w\w")


@dataclass(slots=True)
class SourceCredits:
    """The models of one source folder and split, with the credit lines found, most frequent first."""

    source: str
    split: str
    models: int = 0
    samples: int = 0
    silent: int = 0
    hints: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)


def credit_line(row: Mapping[str, Any]) -> str:
    """Return what of a model's comment or texts names its makers (a line and the next), else the first words, else "".

    At most `LINE_LIMIT` characters, printable, on one line.
    """
    comment = str(row.get("comment") or "")
    texts = row.get("texts")
    found = [str(text.get("text") or "") for text in texts if isinstance(text, Mapping)] if texts else []
    for words in (comment, *found):
        lines = [line for line in words[:_TEXT_LIMIT].splitlines() if _LETTERS.search(line)]
        for line, after in zip_longest(lines, lines[1:], fillvalue=""):
            if _CREDIT.search(unicodedata.normalize("NFKC", line).lower()):
                return _short(f"{line} {after}")
    return next((_short(line) for line in comment[:_TEXT_LIMIT].splitlines() if _LETTERS.search(line)), "")


def _short(line: str) -> str:
    words = " ".join(one_line(line, None).split()).strip("-=*#~_/|・■□◆◇●○★☆ ")
    return words if len(words) <= LINE_LIMIT else words[: LINE_LIMIT - 3] + "..."


def is_silent(row: Mapping[str, Any]) -> bool:
    """Return whether a model came with no word about its maker or its terms."""
    return not str(row.get("comment") or "").strip() and not row.get("texts")


def hint_counts(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return how many models have each hint."""
    return Counter(str(hint) for row in rows for hint in row.get("hints") or ())


def by_source(models: Sequence[Any], rows: Mapping[str, Mapping[str, Any]]) -> list[SourceCredits]:
    """Return the credits by source folder and split, those with most models first.

    `models` have sha256, source, split and samples (as `manifest.ModelSummary`); `rows` are provenance rows by sha256.
    """
    found: dict[tuple[str, str], SourceCredits] = {}
    for model in models:
        entry = found.setdefault((model.source, model.split), SourceCredits(model.source, model.split))
        entry.models += 1
        entry.samples += model.samples
        row = rows.get(model.sha256)
        if row is None or is_silent(row):
            entry.silent += 1
        if row is not None:
            entry.hints.update(str(hint) for hint in row.get("hints") or ())
            line = credit_line(row)
            if line:
                entry.lines[line] += 1
    return sorted(found.values(), key=lambda entry: (-entry.models, entry.source, entry.split))
