"""Keyed randomness: the only source of random numbers in mmdgen.

A stream is named by a seed and a path, never by the order of calls, so every sample can be drawn again alone and the
result does not depend on workers, engines or interruptions. Zero is a seed like any other.
"""

from __future__ import annotations

import hashlib

import numpy as np

Key = int | str


def _digest(seed: int, path: tuple[Key, ...]) -> bytes:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, found {seed!r}")
    # The type is part of the key: 1 and "1" are different streams. Lengths make the encoding injective.
    parts = [b"i%d" % seed]
    for key in path:
        if isinstance(key, str):
            parts.append(b"s" + key.encode("utf-8"))
        elif isinstance(key, int) and not isinstance(key, bool):
            parts.append(b"i%d" % key)
        else:
            raise TypeError(f"a key must be an int or a str, found {key!r}")
    return hashlib.sha256(b"".join(b"%d:" % len(part) + part for part in parts)).digest()


def generator(seed: int, *path: Key) -> np.random.Generator:
    """Return the numpy generator of the stream named by `seed` and `path` (Philox, keyed by SHA-256)."""
    key = np.frombuffer(_digest(seed, path)[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def fraction(seed: int, *path: Key) -> float:
    """Return one number in [0, 1) for the stream: the hash itself, for splits that must not move when others come."""
    return int.from_bytes(_digest(seed, path)[:7], "big") / 2**56
