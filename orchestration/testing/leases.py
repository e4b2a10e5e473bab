"""A stand-in for the store's leases: several runs of one simulation share its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..core.events import LeasesAnswered


class Overbooked(AssertionError):
    """More leases are held than a limit has slots."""


@dataclass
class _Ask:
    holder: str
    names: Sequence[str]
    label: str
    batch_id: int
    tell: Callable[[LeasesAnswered], None]


class LeaseAuthority:
    """Grants leases first come first served, all names of a request or none."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = dict(limits)
        self.held: dict[str, dict[str, str]] = {name: {} for name in limits}  # limit -> holder -> label
        self.most: dict[str, int] = dict.fromkeys(limits, 0)  # most that were ever held at once
        self._waiting: list[_Ask] = []

    def ask(
        self,
        holder: str,
        names: Sequence[str],
        label: str,
        batch_id: int,
        tell: Callable[[LeasesAnswered], None],
    ) -> None:
        """Grant now, or say who is in the way and grant later."""
        ask = _Ask(holder, names, label, batch_id, tell)
        blocked = {name: list(self.held[name].values()) for name in names if self._full(name)}
        if blocked:
            self._waiting.append(ask)
            tell(LeasesAnswered(batch_id, False, blocked))
        else:
            self._grant(ask)

    def release(self, holders: Sequence[str]) -> None:
        """Give back what these hold or wait for, and let others have it."""
        gone = set(holders)
        self._waiting = [ask for ask in self._waiting if ask.holder not in gone]
        for leases in self.held.values():
            for holder in gone & leases.keys():
                del leases[holder]
        for ask in list(self._waiting):
            if not any(self._full(name) for name in ask.names):
                self._waiting.remove(ask)
                self._grant(ask)

    def expire(self, run_id: str) -> None:
        """A run's process has died: what it holds comes free."""
        prefix = f"{run_id}/"
        held = {h for leases in self.held.values() for h in leases if h.startswith(prefix)}
        self.release(sorted(held | {ask.holder for ask in self._waiting if ask.holder.startswith(prefix)}))

    @property
    def quiet(self) -> bool:
        """Whether nobody holds or waits for anything."""
        return not self._waiting and not any(self.held.values())

    def _full(self, name: str) -> bool:
        return len(self.held[name]) >= self.limits[name]

    def _grant(self, ask: _Ask) -> None:
        for name in ask.names:
            self.held[name][ask.holder] = ask.label
            self.most[name] = max(self.most[name], len(self.held[name]))
            if len(self.held[name]) > self.limits[name]:
                raise Overbooked(f"{name} is held by {sorted(self.held[name])}")
        ask.tell(LeasesAnswered(ask.batch_id, True, {}))
