"""Charts as self-contained SVG elements, from numbers and labels. Colours are CSS variables of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 720


@dataclass(frozen=True, slots=True)
class Bar:
    """The gain or loss of one query; `label` is its tooltip."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Point:
    """A system's quality (0 to 1) and its seconds per query; None if the time is unknown."""

    label: str
    quality: float
    seconds: float | None
    kind: str  # a CSS class: subject, run, published


def gain_chart(bars: Sequence[Bar], title: str) -> str:
    """A bar chart, from the greatest gain to the greatest loss. Bars narrow as their number grows."""
    height, left, right, top, bottom = 260, 52, 12, 14, 30
    ordered = sorted(bars, key=lambda bar: -bar.value)
    reach = max([0.05, *(abs(bar.value) for bar in ordered)])
    reach = math.ceil(reach * 10) / 10 if reach > 0.1 else 0.1
    room, middle = _WIDTH - left - right, (top + height - bottom) / 2
    scale, step = (height - top - bottom) / 2 / reach, room / max(1, len(ordered))
    parts = []
    for tick in (-reach, -reach / 2, 0.0, reach / 2, reach):
        y = middle - tick * scale
        style = "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{style}" x1="{left}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_signed(tick)}</text>')
    width = max(0.6, step - (2 if step > 6 else 0.4 if step > 2 else 0))
    for position, bar in enumerate(ordered):
        x, size = left + position * step, max(abs(bar.value) * scale, 0.8)
        y = middle - size if bar.value > 0 else middle
        kind = "gain" if bar.value > 0 else "loss" if bar.value < 0 else "same"
        parts.append(
            f'<rect class="{kind}" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{size:.1f}">'
            f"<title>{escape(bar.label)}: {_signed(bar.value, 4)}</title></rect>"
        )
    parts.append(
        f'<text class="tick" x="{left}" y="{height - 8}">queries, from the greatest gain to the greatest loss</text>'
    )
    return _svg(height, title, parts)


def scatter_chart(points: Sequence[tuple[float, float, str]], title: str, *, across: str, up: str) -> str:
    """A square scatter of (value of one run, value of another, label) by query, with the diagonal of equal values.

    `across` and `up` name the two runs. Both axes have one range: 0 to 1, or that of larger values.
    """
    size, left, right, top, bottom = 400, 52, 12, 14, 44
    values = [value for x, y, _ in points for value in (x, y)]
    low, high = min([0.0, *values]), max([1.0, *values])
    room = size - left - right
    scale, floor = room / (high - low), size - bottom - (size - left - right - (size - top - bottom)) / 2

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - low) * scale, floor - (y - low) * (floor - top) / (high - low)

    parts = []
    for step in range(6):
        tick = low + (high - low) * step / 5
        x, y = at(tick, tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{floor:.1f}"/>')
        parts.append(f'<line class="grid" x1="{left}" x2="{size - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 16:.1f}" text-anchor="middle">{tick:.3g}</text>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    (x1, y1), (x2, y2) = at(low, low), at(high, high)
    parts.append(f'<line class="axis" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>')
    for ours, theirs, label in points:
        x, y = at(ours, theirs)
        kind = "gain" if theirs > ours else "loss" if theirs < ours else "same"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(label)}: {ours:.4f}, {theirs:.4f}'
            "</title></circle>"
        )
    parts.append(f'<text class="tick" x="{left}" y="{size - 8}">across: {escape(_short(across))}</text>')
    middle = f'<text class="tick" x="{size - right}" y="{size - 8}" text-anchor="end">up: {escape(_short(up))}</text>'
    return _svg(size, title, [*parts, middle], width=size)


def time_chart(points: Sequence[Point], title: str, measure: str) -> str:
    """Quality over seconds per query, on a logarithmic axis. A dashed line: a system without a time."""
    height, left, right, top, bottom = 340, 52, 150, 16, 44
    timed = [(point, point.seconds) for point in points if point.seconds]
    low = min([seconds for _, seconds in timed], default=0.1)
    high = max([seconds for _, seconds in timed], default=1.0)
    first, last = math.floor(math.log10(low * 0.8)), math.ceil(math.log10(high * 1.25))
    values = [point.quality for point in points]
    bottom_value, top_value = _span(min(values, default=0.0), max(values, default=1.0))
    room_x, room_y = _WIDTH - left - right, height - top - bottom

    def at_x(seconds: float) -> float:
        return left + (math.log10(seconds) - first) / max(1, last - first) * room_x

    def at_y(quality: float) -> float:
        return top + (top_value - quality) / (top_value - bottom_value) * room_y

    parts = []
    for power in range(first, max(first + 1, last) + 1):
        x, label = at_x(10.0**power), f"{10.0**power:g} s"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{label}</text>')
    for tick in _ticks(bottom_value, top_value):
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.2f}</text>')
    parts.append(
        f'<text class="tick" x="{left}" y="{height - 6}">seconds per query (vertical axis: {escape(measure)})</text>'
    )
    labels = []  # (preferred y, text, class), drawn in the margin: none covers another or a point
    for point in points:
        y, tip = at_y(point.quality), f"{point.label}: {measure} {point.quality:.4f}"
        if point.seconds:
            x = at_x(point.seconds)
            parts.append(f'<line class="lead" x1="{x:.1f}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<circle class="{point.kind}" cx="{x:.1f}" cy="{y:.1f}" r="6">'
                f"<title>{escape(tip)}, {point.seconds:.3g} s per query</title></circle>"
            )
        else:
            parts.append(
                f'<line class="untimed" x1="{left}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}">'
                f"<title>{escape(tip)}, time unknown</title></line>"
            )
        labels.append((y, point.label, point.kind))
    for y, label, kind in _apart(labels, 15, height - bottom):
        shown = label if len(label) <= 20 else label[:19] + "…"
        parts.append(f'<text class="name {kind}" x="{_WIDTH - right + 8}" y="{y + 4:.1f}">{escape(shown)}</text>')
    return _svg(height, title, parts)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _svg(height: int, title: str, parts: Sequence[str], width: int = _WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _apart(labels: Sequence[tuple[float, str, str]], gap: float, most: float) -> list[tuple[float, str, str]]:
    """The labels from top to bottom, moved to be at least `gap` apart and at most at y = `most`."""
    moved: list[tuple[float, str, str]] = []
    for y, label, kind in sorted(labels):
        moved.append((max(y, moved[-1][0] + gap) if moved else y, label, kind))
    for position in range(len(moved) - 1, -1, -1):
        limit = most if position == len(moved) - 1 else moved[position + 1][0] - gap
        y, label, kind = moved[position]
        moved[position] = min(y, limit), label, kind
    return moved


def _span(low: float, high: float) -> tuple[float, float]:
    """The smallest range of multiples of 0.05 that contains both values with a margin of 0.01."""
    low, high = math.floor((low - 0.01) * 20) / 20, math.ceil((high + 0.01) * 20) / 20
    return low, high if high > low else low + 0.05


def _ticks(low: float, high: float) -> list[float]:
    step = 0.05 if high - low <= 0.35 else 0.1
    return [low + step * number for number in range(round((high - low) / step) + 1)]


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}" if value else "0"
