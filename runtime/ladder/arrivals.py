"""Times of requests for a simulation: drawn, or as they were recorded."""

from __future__ import annotations

import math
import random
from pathlib import Path

from ...core.errors import UsageError
from ...core.files import read_text

MOST = 1_000_000  # requests of a simulation
FORMS = "poisson:RATE, mmpp:LOW,HIGH,STAY (rates a second, seconds in each) or a CSV file"


def arrivals_of(text: str, seconds: float, seed: int = 0) -> list[float]:
    """Times in ms, rising from 0. A file's first column holds seconds; its header is passed over.

    Raises UsageError.
    """
    kind, _, given = text.partition(":")
    if kind == "poisson":
        (rate,) = _numbers(text, given, 1)
        return poisson(rate, seconds, seed)
    if kind == "mmpp":
        low, high, stay = _numbers(text, given, 3)
        return bursts(low, high, stay, seconds, seed)
    return _recorded(Path(text))


def poisson(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Independent requests, `rate` a second on average."""
    _check_count(rate * seconds)
    draw, now, found = random.Random(seed), 0.0, list[float]()
    while (now := now + 1000.0 * draw.expovariate(rate)) < 1000.0 * seconds:
        found.append(now)
    return found


def bursts(low: float, high: float, stay: float, seconds: float, seed: int = 0) -> list[float]:
    """Markov-modulated Poisson: two states with these rates, in each `stay` seconds on average."""
    _check_count(max(low, high) * seconds)
    draw, now, found, rates = random.Random(seed), 0.0, list[float](), (low, high)
    state, change = 0, draw.expovariate(1.0 / stay)
    while now < seconds:
        following = now + draw.expovariate(rates[state])
        if following >= change:  # without memory: the rest of the wait is drawn again
            now, state = change, 1 - state
            change = now + draw.expovariate(1.0 / stay)
            continue
        now = following
        found.append(1000.0 * now)
    return [ms for ms in found if ms < 1000.0 * seconds]


def _numbers(text: str, given: str, count: int) -> list[float]:
    try:
        found = [float(word) for word in given.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(math.isfinite(x) and x > 0 for x in found):
        raise UsageError(f"`--arrivals` is `{text}`; it must be {FORMS}, with numbers above 0.")
    return found


def _recorded(path: Path) -> list[float]:
    try:
        lines = [line.split(",")[0].strip() for line in read_text(path).splitlines()]
    except FileNotFoundError as error:
        raise UsageError(f"`--arrivals` is `{path}`; it must be {FORMS}.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"`{path}` can't be read: {error}.") from error
    found: list[float] = []
    for number, cell in enumerate(lines):
        try:
            found.append(1000.0 * float(cell))
        except ValueError as error:
            if number and cell:
                raise UsageError(
                    f"`{path}`: line {number + 1} has no number of seconds."
                ) from error
    if not found or not all(map(math.isfinite, found)):
        raise UsageError(f"`{path}` holds no times of requests, in seconds.")
    _check_count(len(found))
    return [ms - min(found) for ms in sorted(found)]


def _check_count(count: float) -> None:
    if count > MOST:
        raise UsageError(f"`--arrivals` gives {count:,.0f} requests; there may be {MOST:,}.")
