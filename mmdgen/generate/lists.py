"""Allow and deny lists: which models may be used at all, by the hash of their file or by what their terms hint at.

A list is a text file with one SHA-256 a line; what follows a hash is a remark, so that the output of `sha256sum` is a
list, and so is what follows a ``#``. A deny list may shorten hashes to 8 digits or more: one that fits several models
denies them all, which is the safe side. An allow list has whole hashes, so that nobody is let in by chance.

The plan keeps a list's identity, not its lines: a run goes on only with the same hashes (in any order, with any
remarks), and a dataset does not tell which other models somebody has listed.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdgen.errors import ConfigError
from mmdgen.generate.catalogue import Catalogue, Rejection, UsableModel

DIGITS = 64
LEAST_DIGITS = 8

_HEXADECIMAL = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class HashList:
    """`entries` are hashes or their beginnings in lower case, sorted, each once."""

    entries: tuple[str, ...]

    @property
    def identity(self) -> str:
        """What the plan keeps: the number of hashes, and a hash of them all."""
        digest = hashlib.sha256("".join(entry + "\n" for entry in self.entries).encode("ascii")).hexdigest()
        return f"{len(self.entries)} hash{'' if len(self.entries) == 1 else 'es'} ({digest[:16]})"

    def match(self, sha256: str) -> str | None:
        """Return the longest entry that `sha256` begins with, or None."""
        # Whatever it begins with sorts between its first digits and itself.
        low = bisect_left(self.entries, sha256[:LEAST_DIGITS])
        for entry in reversed(self.entries[low : bisect_right(self.entries, sha256)]):
            if sha256.startswith(entry):
                return entry
        return None


def read_list(path: Path, *, whole: bool = False) -> HashList:
    """Read a list of hashes; with `whole` shortened ones are refused. Raises `ConfigError`, naming file and line."""
    try:
        text = path.read_text("utf-8-sig")  # \r\n and \r have become \n
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file in UTF-8: {error}") from None
    found: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: names of files may hold rarer line ends
        words = line.partition("#")[0].split()
        if not words:
            continue
        entry = words[0].removeprefix("\\").lower()  # so sha256sum marks a line with an escaped name
        least = DIGITS if whole else LEAST_DIGITS
        if not _HEXADECIMAL.fullmatch(entry) or not least <= len(entry) <= DIGITS:
            wanted = "64 hexadecimal digits" if whole else f"{LEAST_DIGITS} to {DIGITS} hexadecimal digits"
            raise ConfigError(f"{path}, line {number}: a hash has {wanted}, found {words[0][:80]!r}")
        found.add(entry)
    return HashList(tuple(sorted(found)))


@dataclass(frozen=True, slots=True)
class Gate:
    """What is let through: `deny` and `allow` go by the file's hash, `deny_hints` by the hints at its terms of use."""

    deny: HashList | None = None
    allow: HashList | None = None
    deny_hints: tuple[str, ...] = ()

    @property
    def needs_hash(self) -> bool:
        return self.deny is not None or self.allow is not None

    def refuse_file(self, path: str, sha256: str) -> Rejection | None:
        """Return why the file of this hash must not even be loaded, or None. Denying wins over allowing."""
        entry = self.deny.match(sha256) if self.deny is not None else None
        if entry is not None:
            return Rejection(path, "denied", f"it is on the list of --deny ({entry[:16]})", sha256)
        if self.allow is not None and self.allow.match(sha256) is None:
            return Rejection(path, "not_allowed", "it is not on the list of --allow", sha256)
        return None

    def refuse_terms(self, model: UsableModel) -> Rejection | None:
        """Return why a model must not be used by what its author wrote, or None."""
        denied = [hint for hint in model.hints if hint in self.deny_hints]
        if not denied:
            return None
        said = f"words in its comment or readme hint at {', '.join(denied)} (--deny-hints); read them in its folder"
        return Rejection(model.path, "denied_terms", said, model.id)

    def warnings(self, found: Catalogue) -> list[str]:
        """Return what somebody who wrote the lists should know after a scan of everything."""
        told = []
        if self.deny is not None and not self.deny.entries:
            told.append("--deny: there is no hash on this list, so it keeps nobody out")
        if self.allow is None:
            return told
        there = {item.id for item in (*found.models, *found.rejected)}
        missing = [entry for entry in self.allow.entries if entry not in there]
        if missing:
            count = len(self.allow.entries)
            told.append(f"--allow: {len(missing)} of {count} hashes fit no model here, first {missing[0][:16]}")
        return told


def check_hints(hints: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return `hints` sorted, each once. Raises `ConfigError` for an unknown one."""
    unknown = sorted(set(hints) - set(known))
    if unknown:
        raise ConfigError(f"unknown hint {unknown[0]!r}; there is {', '.join(known)}")
    return tuple(sorted(set(hints)))
