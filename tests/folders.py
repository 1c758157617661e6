"""Folders compared file by file."""

from __future__ import annotations

from pathlib import Path


def tree(out: Path) -> dict[str, bytes]:
    """Return what each file under `out` holds."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def assert_same(out: Path, reference: Path) -> None:
    """Two folders have the same files with the same bytes."""
    found, expected = tree(out), tree(reference)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []
