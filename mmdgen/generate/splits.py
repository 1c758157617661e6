"""Which models train, which validate, which test: decided by the folders they came from, never by the sample.

Without a splits file the unit is the *source folder*: the first path component below the folder that all models share,
so ``anime/miku/miku.pmx`` beside ``games/...`` belongs to ``anime``, and when everything lies in one source folder each
model's own folder is a unit (a model directly in the shared folder is a unit by itself).
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmdgen import rng
from mmdgen.errors import ConfigError

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
# A catch-all belongs to the last one asked, so the small splits go first.
MATCH_ORDER = (TEST, VALIDATION, TRAIN)
HELD_OUT = 0.1  # of the folders, for validation and for test each


@dataclass(frozen=True, slots=True)
class SplitRules:
    """The patterns of a splits file, by split; `file` names it in messages."""

    patterns: Mapping[str, tuple[str, ...]]
    file: str = "the splits file"

    def to_json(self) -> dict[str, list[str]]:
        """Return what the plan keeps: the patterns, not the file's name."""
        return {split: list(self.patterns.get(split, ())) for split in SPLITS}


@dataclass(frozen=True, slots=True)
class Assignment:
    """`split_of` maps each model's path to its split; models of splits that nobody asked for are not in it."""

    split_of: dict[str, str]
    warnings: tuple[str, ...] = ()


def read_rules(path: Path) -> SplitRules:
    """Read a TOML file with the lists ``train``, ``validation`` and ``test``. Raises `ConfigError`."""
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file in UTF-8: {error}") from None
    for key, value in table.items():
        if key not in SPLITS:
            raise ConfigError(f"{path}: unknown key {key!r}; it may have {', '.join(SPLITS)}")
        if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
            raise ConfigError(f'{path}: {key} must be a list of folder patterns such as ["anime/*"], found {value!r}')
    return SplitRules({split: tuple(table.get(split, ())) for split in SPLITS}, str(path))


def source_folder(path: str) -> str:
    """Return the first component of a model's relative path, or "" for a model that lies in no folder."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 else ""


def units(paths: Iterable[str]) -> dict[str, str]:
    """Map each path to its unit: its first component below the folder that all paths share, as a path from the top."""
    parts = {path: PurePosixPath(path).parts for path in paths}
    shared = 0
    if parts:
        folders = [p[:-1] for p in parts.values()]
        while all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
            shared += 1
    return {path: "/".join(p[: shared + 1]) for path, p in parts.items()}


def assign(paths: Sequence[str], requested: Sequence[str], rules: SplitRules | None = None) -> Assignment:
    """Give every model of `paths` (relative, with /) one of the `requested` splits.

    With `rules` the first pattern that matches wins, asked in the order test, validation, train; a pattern is matched
    (as the shell does, but `*` also crosses /) with the model's source folder, its relative folder and its path.
    Without rules each unit goes where its hash says: a tenth to test, a tenth to validation, the rest to train; it
    stays there when other folders come, and the seed does not move it. A requested split that stays empty then takes
    the smallest unit of the largest split. Raises `ConfigError` when a folder has no split or a split no model.
    """
    unknown = [split for split in requested if split not in SPLITS]
    if unknown or not requested:
        raise ConfigError(f"splits are {', '.join(SPLITS)}, found {unknown or 'none'}")
    if rules is not None:
        return _assign_by_rules(paths, requested, rules)
    if len(requested) == 1:
        return Assignment(dict.fromkeys(paths, requested[0]))
    return _assign_by_hash(paths, [split for split in SPLITS if split in requested])


def _assign_by_rules(paths: Sequence[str], requested: Sequence[str], rules: SplitRules) -> Assignment:
    split_of: dict[str, str] = {}
    used: set[tuple[str, str]] = set()
    missing: dict[str, int] = {}
    for path in paths:
        folder = str(PurePosixPath(path).parent)
        names = {source_folder(path), "" if folder == "." else folder, path} - {""}
        for split in MATCH_ORDER:
            hits = [p for p in rules.patterns.get(split, ()) if any(fnmatch.fnmatchcase(n, p) for n in names)]
            if hits:
                used.update((split, pattern) for pattern in hits)
                split_of[path] = split
                break
        else:
            where = source_folder(path) or path
            missing[where] = missing.get(where, 0) + 1
    if missing:
        names = ", ".join(f"{name} ({count} models)" for name, count in sorted(missing.items())[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConfigError(
            f'{rules.file}: no pattern matches {names}{more}. Add a pattern, or "*" to a split that takes all the rest.'
        )
    for split in requested:
        if split not in split_of.values():
            raise ConfigError(
                f"{rules.file}: no usable model is left for {split}, whose patterns are "
                f"{list(rules.patterns.get(split, ()))}; add a pattern or ask for no {split} poses"
            )
    warnings = [
        f"the {split} pattern {pattern!r} decides nothing: no model matches it, or an earlier split has taken them"
        for split in SPLITS
        for pattern in rules.patterns.get(split, ())
        if (split, pattern) not in used
    ]
    return Assignment({path: split for path, split in split_of.items() if split in requested}, tuple(warnings))


def _assign_by_hash(paths: Sequence[str], requested: Sequence[str]) -> Assignment:
    unit_of = units(paths)
    size: dict[str, int] = {}
    for unit in unit_of.values():
        size[unit] = size.get(unit, 0) + 1
    if len(size) < len(requested):
        raise ConfigError(
            f"{', '.join(requested)} need models from {len(requested)} folders, found {len(size)} "
            f"({', '.join(sorted(size)) or 'no usable model'}): add models or ask for fewer splits"
        )
    split_of_unit = {unit: _split_by_hash(unit, requested) for unit in size}
    for split in requested:
        if split in split_of_unit.values():
            continue
        members = {s: [u for u in size if split_of_unit[u] == s] for s in requested}
        # The largest split that can spare a unit gives; it exists because there are at least as many units as splits.
        giver = max((s for s in requested if len(members[s]) > 1), key=lambda s: (sum(size[u] for u in members[s]), s))
        choose = max if split == TRAIN else min  # the train split should not be the smallest
        moved = choose(members[giver], key=lambda u: (size[u], rng.fraction(0, "split", u), u))
        split_of_unit[moved] = split
    return Assignment({path: split_of_unit[unit_of[path]] for path in paths})


def _split_by_hash(unit: str, requested: Sequence[str]) -> str:
    """Return where a unit belongs: the places of test and validation do not depend on each other's being requested."""
    place = rng.fraction(0, "split", unit)
    if TRAIN not in requested:
        return TEST if place < 0.5 else VALIDATION
    if place < HELD_OUT and TEST in requested:
        return TEST
    if HELD_OUT <= place < 2 * HELD_OUT and VALIDATION in requested:
        return VALIDATION
    return TRAIN
