"""What the fuzzer knows about a file that it mutates."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import NamedTuple

MODEL_KINDS = ("pmx", "pmd", "vmd", "vpd")
IMAGE_KINDS = ("png", "jpeg", "bmp", "tga", "dds", "gif", "tiff", "webp")
KINDS = MODEL_KINDS + IMAGE_KINDS


class Field(NamedTuple):
    """One value of a seed. `code` is its `struct` format with the byte order; `role` ``count`` or ``value``."""

    offset: int
    code: str
    role: str = "value"

    @property
    def size(self) -> int:
        return struct.calcsize(self.code)


class Record(NamedTuple):
    """The bytes of one record, and the field that counts the records of its section (None: nothing does)."""

    start: int
    end: int
    count: Field | None


@dataclasses.dataclass(frozen=True)
class Seed:
    """A whole file. `cuts` are the offsets where sections or chunks begin; `mend` makes check sums right again.

    It is taken `weight` times as often as others.
    """

    kind: str
    name: str
    data: bytes
    fields: tuple[Field, ...] = ()
    records: tuple[Record, ...] = ()
    cuts: tuple[int, ...] = ()
    mend: Callable[[bytes], bytes] | None = None
    weight: int = 1
