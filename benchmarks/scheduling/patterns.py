"""Task Bench's dependence patterns: which points of a timestep need which points of the one before.

A graph is a grid of `steps` timesteps of up to `width` points. The definitions are those of Task Bench's core
library (Slaughter et al., "Task Bench: A Parameterized Benchmark for Evaluating Parallel Runtime Performance",
SC 2020), with its default radix 3 for `nearest`, `spread` and `random_nearest`. Only the chance of
`random_nearest` differs: its numbers come from another hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

RADIX = 3
PERIOD = 3  # timesteps after which `spread` and `random_nearest` repeat
CONNECTED = 0.25  # share of the possible dependencies that `random_nearest` has


def dependencies(pattern: str, width: int, step: int, point: int) -> list[int]:
    """Return the points of `step - 1` that a point of `step` needs, in ascending order."""
    if step == 0:
        return []
    before = width_at(pattern, width, step - 1)
    needed = PATTERNS[pattern](width, dependence_set(pattern, width, step), point)
    return sorted({p for p in needed if 0 <= p < before})


def width_at(pattern: str, width: int, step: int) -> int:
    """Return how many points a timestep has: a tree grows from one point, all others are as wide everywhere."""
    return min(width, 1 << min(step, 62)) if pattern == "tree" else width


def dependence_set(pattern: str, width: int, step: int) -> int:
    """Return which of the pattern's sets of dependencies a timestep has."""
    if pattern == "fft":
        sets = max(1, (width - 1).bit_length())
        return (step + sets - 1) % sets
    return step % PERIOD if pattern in {"spread", "random_nearest"} else 0


@cache
def grid(pattern: str, width: int, steps: int) -> Sequence[Sequence[Sequence[int]]]:
    """Return the dependencies of all points of all timesteps."""
    return [
        [dependencies(pattern, width, step, point) for point in range(width_at(pattern, width, step))]
        for step in range(steps)
    ]


def _fft(width: int, dset: int, point: int) -> list[int]:
    return [p for p in (point - (1 << dset), point, point + (1 << dset)) if 0 <= p < width]


def _nearest(width: int, dset: int, point: int) -> list[int]:
    return list(range(max(0, point - RADIX // 2), min(point + (RADIX - 1) // 2, width - 1) + 1))


def _spread(width: int, dset: int, point: int) -> list[int]:
    return [(point + i * width // RADIX + (dset if i else 0)) % width for i in range(RADIX)]


def _random_nearest(width: int, dset: int, point: int) -> list[int]:
    return [p for p in _nearest(width, dset, point) if p == point or _chance(dset, p, point) < CONNECTED]


def _chance(dset: int, before: int, point: int) -> float:
    digest = hashlib.blake2b(f"{RADIX}:{dset}:{before}:{point}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


PATTERNS: dict[str, Callable[[int, int, int], list[int]]] = {
    "trivial": lambda width, dset, point: [],
    "no_comm": lambda width, dset, point: [point],
    "stencil_1d": lambda width, dset, point: [p for p in (point - 1, point, point + 1) if 0 <= p < width],
    "fft": _fft,
    "tree": lambda width, dset, point: [point // 2],
    "nearest": _nearest,
    "spread": _spread,
    "random_nearest": _random_nearest,
}
