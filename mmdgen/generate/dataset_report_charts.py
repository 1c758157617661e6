"""Charts as inline SVG, and numbers in words, for the report on a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmdgen.dataset.card import size_text
from mmdgen.errors import one_line
from mmdgen.generate.report_page import text

_CHART = (320, 96)  # of a histogram, in CSS pixels
_COURSE = (680, 140)
WORKERS_SHOWN = 64
POINTS = 400  # of a line, at most


def shown(value: object, limit: int = 400) -> str:
    """Return a value as HTML text: printable, on one line, not too long, escaped."""
    return text(one_line(str(value), limit))


def histogram(
    bins: Sequence[float], low: float, high: float, expected: Sequence[float] = (), *, suspect: bool = False
) -> str:
    """Return an SVG of bars over [low, high], with the expected heights as a line."""
    width, height = _CHART
    floor = height - 16
    top = max([*bins, *expected, 1e-9]) * 1.05
    step = width / max(1, len(bins))
    mark = " suspect" if suspect else ""
    bars = "".join(
        f'<rect class="bar{mark}" x="{place * step:.1f}" y="{floor * (1 - value / top):.1f}" '
        f'width="{max(step - 0.6, 0.4):.1f}" height="{floor * value / top:.1f}"/>'
        for place, value in enumerate(bins)
        if value
    )
    heights = enumerate(floor * (1 - value / top) for value in expected)
    points = " ".join(f"{(place + 0.5) * step:.1f},{y:.1f}" for place, y in heights)
    line = f'<polyline class="line" points="{points}"/>' if points else ""
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="histogram from {low:g} to {high:g}">{bars}{line}'
        f'<line class="axis" x1="0" y1="{floor}" x2="{width}" y2="{floor}"/>'
        f'<text x="0" y="{height - 3}">{low:g}</text><text x="{width / 2}" y="{height - 3}" text-anchor="middle">'
        f'{(low + high) / 2:g}</text><text x="{width}" y="{height - 3}" text-anchor="end">{high:g}</text></svg>'
    )


def memory_chart(starts: Iterable[dict[str, Any]]) -> str:
    """Return a chart of the workers' memory over their start's time, each start after the one before."""
    lines: list[list[tuple[float, float]]] = []
    offset = 0.0
    for start in starts:
        for worker in start["workers"][:WORKERS_SHOWN]:
            lines.append([(offset + seconds, memory) for seconds, memory in worker["course"] if memory])
        offset += start["seconds"]
    lines = [line for line in lines if len(line) > 1]
    if not lines or offset <= 0:
        return ""
    width, height = _COURSE
    floor = height - 16
    top = max(memory for line in lines for _, memory in line) * 1.1
    drawn = "".join(
        f'<polyline class="line" points="{_points(line, width / offset, floor / top, floor)}"/>' for line in lines
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="memory of the workers over time">{drawn}<line class="axis" x1="0" y1="{floor}" x2="{width}" '
        f'y2="{floor}"/><text x="0" y="11">{size_text(top)}</text><text x="{width}" y="{height - 3}" text-anchor="end">'
        f"{duration(offset)}</text></svg><figcaption>Memory of each worker after each shard</figcaption></figure>\n"
    )


def _points(line: list[tuple[float, float]], across: float, up: float, floor: float) -> str:
    thinned = line[:: max(1, len(line) // POINTS)]
    return " ".join(f"{across * x:.1f},{floor - up * y:.1f}" for x, y in thinned)


def duration(seconds: float) -> str:
    """Return seconds in words."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
