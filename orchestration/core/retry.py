"""Delays between attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

MAX_DELAY_SECONDS = 30 * 24 * 3600.0
FREE_LOSSES = 3  # losses without evidence of a start that cost nothing; more count against the budget


def delays(spec: float | Sequence[float] | Callable[[int], float]) -> Callable[[int], float]:
    """Return the delay before retry n (from 1) for what users write: a number, a list (its last entry
    repeats) or a function of n."""
    if callable(spec):
        return spec
    if isinstance(spec, int | float):
        return lambda n: float(spec)
    steps = [float(step) for step in spec]
    return lambda n: steps[min(n, len(steps)) - 1] if steps else 0.0


def exponential_backoff(factor: float = 2.0, max_seconds: float = 3600.0) -> Callable[[int], float]:
    """Return delays of factor, 2 * factor, 4 * factor ... seconds, at most `max_seconds`."""

    def delay(n: int) -> float:
        return float(min(factor * 2.0 ** min(n - 1, 60), max_seconds))

    return delay


def jittered(seconds: float, jitter: float, uniform: float) -> float:
    """Return seconds * (1 + uniform * jitter), within 0 and MAX_DELAY_SECONDS."""
    return min(max(0.0, seconds * (1.0 + uniform * jitter)), MAX_DELAY_SECONDS)
