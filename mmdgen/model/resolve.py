"""Finding the files that a model names: on any system, whatever archivers and editors did to the names.

Models are made on Windows, where case does not matter and ``\\`` separates folders, are packed by tools that damage
Japanese and Chinese names, and name textures by paths of their author's disk. Names from a file never reach the
operating system: they are only compared with directory listings, so nothing outside the model's folder can be named.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

# Endings that people convert textures between without changing the model.
EXTENSIONS = (".png", ".tga", ".bmp", ".jpg", ".jpeg", ".dds", ".spa", ".sph", ".gif", ".tif", ".tiff", ".webp")
# What names are written in, and what archivers take them for. Each pair of different ones is tried in both directions.
_ENCODINGS = ("cp932", "gbk", "utf-8", "cp437", "cp850", "big5", "euc_kr", "latin-1", "cp1252")
_LONGEST_NAME = 255  # of one part, on any file system
MODEL_ENDINGS = (".pmx", ".pmd")
MAX_DEPTH = 6
MAX_PARTS = 12  # of a path: in a longer one, made to walk in circles through links, only the last part counts
MAX_FOLDERS = 2000  # of a tree searched by base name; a model's folder has a few dozen
# What is kept of folders: enough for any model's, about 20 MB. A run over thousands of models needs each only once.
_CACHED_NAMES = 20_000
_HASH_ESCAPE = re.compile(r"#U([0-9a-fA-F]{4})")  # Info-ZIP's unzip writes these in a locale without Unicode


class _Listing:
    """One directory: names by several keys, as they were when its time stamp was `stamp`."""

    __slots__ = ("by_key", "by_name", "by_stem", "folders", "has_model", "stamp")

    def __init__(self, folder: str, stamp: int) -> None:
        self.stamp = stamp
        self.by_name: dict[str, bool] = {}  # name: is it a folder
        self.by_key: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        self.has_model = False
        self.folders: list[str] = []  # real ones, no links: a walk must end
        with os.scandir(folder) as entries:
            rows = sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries)
        for name, is_folder, is_link in rows:
            self.by_name[name] = is_folder
            self.has_model |= not is_folder and name.lower().endswith(MODEL_ENDINGS)
            for key in dict.fromkeys((_key(name), _key(_HASH_ESCAPE.sub(lambda m: chr(int(m[1], 16)), name)))):
                self.by_key.setdefault(key, []).append(name)
                if not is_folder:
                    self.by_stem.setdefault(_stem(key), []).append(name)
            if is_folder and not is_link:
                self.folders.append(name)

    def find(self, name: str, *, folder: bool) -> Iterator[str]:
        """The entries that `name` may mean, best first: as it is, by key, by the keys of damaged spellings."""
        if self.by_name.get(name) is folder:
            yield name
        for key in (_key(name), *_damaged_keys(name)):
            for entry in self.by_key.get(key, ()):
                if entry != name and self.by_name[entry] is folder:
                    yield entry

    def find_other_ending(self, name: str) -> Iterator[str]:
        """The image files that have the stem of `name`, in the order of `EXTENSIONS`."""
        for key in (_key(name), *_damaged_keys(name)):
            found = []
            for entry in self.by_stem.get(_stem(key), ()):
                ending = os.path.splitext(entry)[1].lower()
                if ending in EXTENSIONS:
                    found.append((EXTENSIONS.index(ending), entry))
            yield from (entry for _, entry in sorted(found))


class _Cache:
    """Listings by folder, with `_CACHED_NAMES` names or the last one that came; for use under `_lock`."""

    def __init__(self) -> None:
        self.listings: dict[str, _Listing] = {}
        self._names = 0

    def put(self, folder: str, listing: _Listing) -> None:
        if self._names + len(listing.by_name) + 1 > _CACHED_NAMES:
            self.clear()
        self.listings[folder] = listing
        self._names += len(listing.by_name) + 1  # a listing costs something by itself

    def clear(self) -> None:
        self.listings.clear()
        self._names = 0


_cache = _Cache()
_lock = threading.Lock()


def resolve(folder: Path, name: str) -> Path | None:
    """Return the regular file inside `folder` (or its subfolders) that `name` means, or None.

    Tried in this order: the path as it is written (either separator; ``.`` and ``..`` inside the folder; absolute paths
    by their last part only), each part by exact name, then without regard to case and Unicode form (NFKC), then as
    text that was decoded with a wrong code page; the same path with another image ending; with the last part cut where
    a byte of it was taken for a backslash; a file of that base name, then of that base name with another ending,
    anywhere below `folder`, nearest first, but not in folders of other models.

    Nothing outside `folder` is ever returned, not even through links. Listings are cached per directory and time stamp;
    any thread may call.
    """
    root = os.path.abspath(folder)
    parts = _parts(name)
    if not parts:
        return None
    *folders, base = parts
    for exact in (True, False):
        for place in _descend(root, folders):
            if found := _file_in(place, base, root, exact=exact):
                return found
    # Half of 表, ソ and others is a backslash in cp932; some archivers make a folder end there.
    for key in _damaged_keys(base):
        *halves, end = key.split("\\")
        if halves and end:
            for place in _descend(root, [*folders, *halves]):
                if found := _file_in(place, end, root, exact=True):
                    return found
    for exact in (True, False):
        for place in _tree(root):
            if found := _file_in(place, base, root, exact=exact):
                return found
    return None


def _parts(name: str) -> list[str]:
    """The path's parts without ``.`` and ``..``; of a path that leaves the folder the last part only."""
    name = name.partition("\0")[0].strip()
    parts: list[str] = []
    outside = bool(re.match(r"[\\/]|[A-Za-z]:", name))
    for part in re.split(r"[\\/]+", name):
        part = part.strip()
        if part in ("", "."):
            continue
        if part == "..":
            outside |= not parts
            if parts:
                parts.pop()
            continue
        parts.append(part)
    return parts[-1:] if outside or len(parts) > MAX_PARTS else parts


def _listing(folder: str) -> _Listing | None:
    """The listing of a directory, from the cache where its time stamp has not changed; None where it cannot be read."""
    try:
        stamp = os.stat(folder).st_mtime_ns
        with _lock:
            cached = _cache.listings.get(folder)
        if cached is None or cached.stamp != stamp:
            cached = _Listing(folder, stamp)
            with _lock:
                _cache.put(folder, cached)
    except OSError:
        return None
    return cached


def forget_folders() -> None:
    """Free what is kept of folders."""
    with _lock:
        _cache.clear()


def _descend(place: str, folders: list[str]) -> Iterator[str]:
    """Every directory that the path `folders` may mean, best first (there may be both ``tex`` and ``Tex``)."""
    if not folders:
        yield place
        return
    listing = _listing(place)
    if listing is not None:
        for entry in dict.fromkeys(listing.find(folders[0], folder=True)):
            yield from _descend(os.path.join(place, entry), folders[1:])


def _tree(root: str) -> Iterator[str]:
    """`root` and the directories below it, nearest first, without folders of other models."""
    level = [root]
    count = 0
    for _ in range(MAX_DEPTH + 1):
        deeper: list[str] = []
        for place in level:
            count += 1
            listing = _listing(place) if count <= MAX_FOLDERS else None
            if listing is not None and (place == root or not listing.has_model):
                yield place
                deeper += [os.path.join(place, entry) for entry in listing.folders]
        level = deeper


def _file_in(place: str, base: str, root: str, *, exact: bool) -> Path | None:
    """The file `base` in the directory `place`, with its own ending or (not `exact`) another image ending."""
    listing = _listing(place)
    if listing is None:
        return None
    entries = listing.find(base, folder=False) if exact else listing.find_other_ending(base)
    for entry in entries:
        path = os.path.join(place, entry)
        if os.path.isfile(path) and _inside(path, root):
            return Path(path)
    return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@lru_cache(maxsize=256)
def _real_root(root: str) -> str:
    return os.path.join(os.path.realpath(root), "")


def _inside(path: str, root: str) -> bool:
    """Whether `path` lies in `root` when every link is followed."""
    return os.path.realpath(path).startswith(_real_root(root))


def _key(name: str) -> str:
    """What names are compared by: NFKC, no case, no blanks or dots at the end (Windows ignores those)."""
    if name.isascii():
        return name.lower().rstrip(" .")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).rstrip(" .")


def _stem(key: str) -> str:
    stem, ending = os.path.splitext(key)
    return stem if ending in EXTENSIONS else key


@lru_cache(maxsize=1024)
def _damaged_keys(name: str) -> tuple[str, ...]:
    """The keys of `name` as it reads after its bytes were taken for another encoding, or before that happened."""
    if name.isascii() or len(name) > _LONGEST_NAME:
        return ()
    keys: dict[str, None] = {}
    for written, taken in itertools.permutations(_ENCODINGS, 2):
        try:
            raw = name.encode(written)
        except UnicodeEncodeError:
            continue
        try:
            keys[_key(raw.decode(taken))] = None
        except UnicodeDecodeError:
            if taken == "utf-8":  # how Python lists names whose bytes are not UTF-8
                keys[_key(raw.decode(taken, "surrogateescape"))] = None
    keys.pop(_key(name), None)
    return tuple(keys)
