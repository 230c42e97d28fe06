"""Small line charts as SVG text, which need neither script nor network."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 48, 40, 44
MAX_TICKS = 12
HUES = (212, 150, 28, 338, 265, 185, 95, 5)


@dataclass(frozen=True)
class Line:
    """`points`: (x, y), in the order in which they are joined; `steps`: as a staircase."""

    name: str
    points: Sequence[tuple[float, float]]
    steps: bool = False
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        low, high = (self._of(v) for v in (self.low, self.high))
        part = (self._of(value) - low) / ((high - low) or 1.0)
        return self.start + part * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log(value) if self.log else value


def chart(
    lines: Sequence[Line], x_title: str, y_title: str, *, log_x: bool = True, log_y: bool = False
) -> str:
    """Lines as SVG; empty without points. Coordinates must be above 0 where an axis is
    logarithmic."""
    points = [p for line in lines for p in line.points]
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    x = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, log_x)
    pad = 0.0 if log_y else 0.08 * ((max(ys) - min(ys)) or abs(max(ys)) or 1.0)
    y = _Scale(min(ys) - pad, max(ys) + pad, HEIGHT - BOTTOM, TOP, log_y)
    drawn = "".join(
        _line(line, x, y, HUES[i % len(HUES)], len(lines) > 1) for i, line in enumerate(lines)
    )
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{html.escape(y_title)}'>"
        f"{_axes(x, y, sorted(set(xs)), x_title, y_title)}{drawn}</svg>"
    )


def _axes(x: _Scale, y: _Scale, ticks: Sequence[float], x_title: str, y_title: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    rows = [
        f"<line class='axis' x1='{LEFT}' y1='{bottom}' x2='{right}' y2='{bottom}'/>",
        f"<line class='axis' x1='{LEFT}' y1='{TOP}' x2='{LEFT}' y2='{bottom}'/>",
        _word(right, HEIGHT - 8, x_title, "end"),
        _word(LEFT, TOP - 24, y_title, "start"),
    ]
    for value in ticks if len(ticks) <= MAX_TICKS else (x.low, x.high):
        rows.append(_word(x.at(value), bottom + 18, _number(value), "middle"))
    for value in dict.fromkeys((y.low, y.high)):
        rows.append(_word(LEFT - 8, y.at(value) + 4, _number(value), "end"))
    return "".join(rows)


def _line(line: Line, x: _Scale, y: _Scale, hue: int, named: bool) -> str:
    color = f"hsl({hue} 65% 48%)"
    at = [(x.at(a), y.at(b)) for a, b in line.points]
    path = [f"M{at[0][0]:.1f} {at[0][1]:.1f}"]
    for a, b in at[1:]:
        path.append(f"H{a:.1f}V{b:.1f}" if line.steps else f"L{a:.1f} {b:.1f}")
    rows = [f"<path d='{''.join(path)}' fill='none' stroke='{color}' stroke-width='2'/>"]
    for place, (a, b) in enumerate(at):
        rows.append(f"<circle cx='{a:.1f}' cy='{b:.1f}' r='4' fill='{color}'/>")
        if place < len(line.labels):
            rows.append(_word(a, b - 9, line.labels[place], "middle"))
    if named:
        rows.append(_word(at[-1][0] - 6, at[-1][1] - 8, line.name, "end"))
    return "".join(rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _word(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{html.escape(text)}</text>"
