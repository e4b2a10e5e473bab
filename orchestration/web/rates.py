"""How often somebody may do something: token buckets, forgotten when they are full again."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

MOST_KEYS = 10_000  # beyond them buckets that are full again are forgotten


class Rate:
    """Lets each key do something `at_once` times, and `per_second` times a second from then on."""

    def __init__(
        self, at_once: float, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what was in it, and when

    def wait(self, key: str) -> float:
        """Return the seconds until the key may do it, 0.0 if it may now."""
        return max(0.0, (1.0 - self._left(key, self._clock())) / self._per_second)

    def take(self, key: str) -> float:
        """Count one, if the key may; return as `wait`."""
        now = self._clock()
        left = self._left(key, now)
        if left < 1.0:
            return (1.0 - left) / self._per_second
        if len(self._buckets) >= MOST_KEYS:
            self._forget_full(now)
        self._buckets[key] = (left - 1.0, now)
        return 0.0

    def _left(self, key: str, now: float) -> float:
        left, at = self._buckets.get(key, (self._at_once, now))
        return min(self._at_once, left + (now - at) * self._per_second)

    def _forget_full(self, now: float) -> None:
        full = [key for key in self._buckets if self._left(key, now) >= self._at_once]
        for key in full or list(self._buckets)[: MOST_KEYS // 10]:
            del self._buckets[key]


def network_of(address: str) -> str:
    """Return what counts as one client: of IPv6 the network, in which one host has any number of addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
