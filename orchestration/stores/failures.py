"""Failures that are alike, counted while they are written: nobody has to read a million of them to tell how many.

Alike are task runs that raised one type of exception by way of the same lines, whatever its message; those that
ended without an exception for one reason; and those that never ran because task runs of one task failed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from runners.messages import Detail

from ..core.journal import AttemptsEnded, Moved
from ..core.states import State

FAILURES = frozenset({State.FAILED, State.UPSTREAM_FAILED, State.CRASHED})
_OTHERS = bytes(frozenset(State) - FAILURES)
_LINE = re.compile(r'^ +File "(.+)", line (\d+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Place:
    """A task run that failed, and when. `name` is its own, where its task gives one."""

    node_id: int
    index: int
    at: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Task runs that failed alike.

    Attributes:
        state: Failed, Crashed or UpstreamFailed.
        first, last: by the time of their ends; None in runs that an earlier version has recorded.
        reason, detail: of the first.
        root: the task run whose failure kept the first from running; None: it is a root itself.
    """

    state: State
    count: int
    first: Place | None
    last: Place | None
    reason: str = ""
    detail: Detail | None = None
    root: tuple[int, int] | None = None

    @property
    def error(self) -> Detail:
        """The error of the first, or its reason as one."""
        return self.detail or Detail(message=self.reason)


class Failures:
    """Failures by node and kind, from the entries of a journal."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[int, bytes], FailureGroup] = {}

    def moved(self, entry: Moved) -> None:
        """Count items that failed, or were given up, without an attempt."""
        if entry.state not in FAILURES or not entry.indices:
            return
        first, last = (Place(entry.node_id, entry.indices[k], entry.at) for k in (0, -1))
        common, root = ("reason", entry.reason), None
        if entry.roots is not None:
            common, root = ("task", entry.roots.task_name), entry.roots.of(0)
        group = FailureGroup(entry.state, len(entry.indices), first, last, entry.reason, None, root)
        self._add(entry.node_id, _digest(entry.state, common), group)

    def ended(self, entry: AttemptsEnded) -> None:
        """Count items that ended by an attempt which failed."""
        if not entry.states.translate(None, _OTHERS):  # as nearly always: nothing per item
            return

        def at(k: int) -> float:
            return entry.started[k] + entry.durations[k] if entry.started[k] else entry.at

        alike: dict[tuple[object, ...], list[int]] = {}
        for k, state in enumerate(entry.states):
            if state in FAILURES:
                alike.setdefault((state, *_looks(entry.details.get(k))), []).append(k)
        for members in alike.values():
            ends = min(members, key=at), max(reversed(members), key=at)
            first, last = (
                Place(entry.node_id, entry.indices[k], at(k), entry.names.get(k, "")) for k in ends
            )
            state, detail = State(entry.states[ends[0]]), entry.details.get(ends[0])
            common = ("reason", entry.reason) if detail is None else _origin(detail)
            group = FailureGroup(state, len(members), first, last, entry.reason, detail)
            self._add(entry.node_id, _digest(state, common), group)

    def groups(self, node_ids: Collection[int], limit: int) -> list[FailureGroup]:
        """Return the failures of some nodes: roots first, of these the most frequent."""
        found: dict[bytes, FailureGroup] = {}
        for (node_id, kind), group in self.kinds.items():
            if node_id in node_ids:
                found[kind] = joined(found[kind], group) if kind in found else group
        ordered = sorted(found.items(), key=lambda pair: (_rank(pair[1]), pair[0]))
        return [group for _, group in ordered][:limit]

    def _add(self, node_id: int, kind: bytes, group: FailureGroup) -> None:
        known = self.kinds.get((node_id, kind))
        self.kinds[node_id, kind] = group if known is None else joined(known, group)


def joined(one: FailureGroup, other: FailureGroup) -> FailureGroup:
    """Return both as one; `other` was recorded later, or is of a later node."""
    count = one.count + other.count
    if one.first is None or one.last is None or other.first is None or other.last is None:
        return replace(one, count=count)
    last = other.last if other.last.at >= one.last.at else one.last
    return replace(other if other.first.at < one.first.at else one, count=count, last=last)


def _rank(group: FailureGroup) -> tuple[bool, int, float]:
    return group.state is State.UPSTREAM_FAILED, -group.count, group.first.at if group.first else 0.0


def _looks(detail: Detail | None) -> tuple[str, ...]:
    """Return what is the same for most errors of one origin, in a tenth of the time that it takes to find that out."""
    if detail is None:
        return ()
    text, message = detail.traceback.rstrip(), detail.message
    told = text.removesuffix(message) if text else message
    return detail.type_name, told


def _origin(detail: Detail) -> tuple[object, ...]:
    """Return what errors that are alike have in common: the type, and the lines that it came by if they are known."""
    lines = _LINE.findall(detail.traceback)
    return ("error", detail.type_name, *(lines or [detail.message]))


def _digest(state: int, common: tuple[object, ...]) -> bytes:
    text = repr((int(state), *common))
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
