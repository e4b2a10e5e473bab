"""What streams tell: how runs differ from how they were when they were looked at before."""

from __future__ import annotations

from typing import Any

from ..stores.as_json import log_json
from ..stores.base import NodeRow, Store
from ..stores.replay import ItemStates
from ..stores.served import ServedStore
from .binary import delta
from .reading import run_detail
from .shown import shown_change, shown_run

LOOK_SECONDS = 0.1
BUSY_SECONDS = (
    0.25  # while so much changes that nobody can follow it: a picture costs a page's machine 6 ms of CPU
)
BUSY_BYTES = 2000  # of item states in one look: 400 task runs of a map
IDLE_SECONDS = 1.0  # between looks at what has ended: it may be resumed
LIST_SECONDS = 0.5
LISTED = 100


class RunLook:
    """What has changed in a run since the last look."""

    def __init__(self, store: ServedStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._shown: dict[str, Any] = {}
        self._nodes: dict[int, NodeRow] = {}
        self._states: dict[int, ItemStates] = {}
        self._seq: int | None = None

    def __call__(self) -> tuple[dict[str, Any], float]:
        store, news = self._store, dict[str, Any]()
        detail = run_detail(store, self._run_id)
        if detail["ended"] or self._shown.get("ended"):  # it may have been found alive: read all again
            self._states = {node: ItemStates(known.states) for node, known in self._states.items()}
        if _lasting(detail) != _lasting(self._shown):
            news["latest"] = {"run": detail}
            self._shown = detail
        changed = [
            node
            for node in store.nodes(self._run_id)
            if node.replaced_by is None and self._nodes.get(node.node_id) != node
        ]
        if changed:
            news["nodes"] = {node.node_id: shown_change(node) for node in changed}
            news["items"] = b"".join([self._delta(node) for node in changed])
            self._nodes |= {node.node_id: node for node in changed}
        self._read_logs(news)
        if detail["ended"]:
            return news, IDLE_SECONDS
        return news, BUSY_SECONDS if len(news.get("items", b"")) > BUSY_BYTES else LOOK_SECONDS

    def whole(self) -> dict[str, Any]:
        if not self._shown:
            return {}
        nodes = {node.node_id: shown_change(node) for node in list(self._nodes.values())}
        return {"latest": {"run": self._shown}, "nodes": nodes}

    def _delta(self, node: NodeRow) -> bytes:
        """Return what has changed since a node was seen first: a page reads what it was then by itself.

        To tell all of 100,000 items takes longer than to read them, and whoever opens a page waits for it.
        """
        before = self._states.get(node.node_id)
        known = before if before is not None and before.seq else ItemStates()
        now = self._states[node.node_id] = self._store.states_since(self._run_id, node.node_id, known)
        return b"" if before is None else delta(node.node_id, before.states, now.states)

    def _read_logs(self, news: dict[str, Any]) -> None:
        if self._seq is None:  # a page reads what is there by itself; here is what comes after
            self._seq = self._last_seq()
            return
        lines = self._store.logs(self._run_id, after=self._seq, limit=1000)
        if lines:
            self._seq = lines[-1].seq
            news["lines"] = [log_json(line) for line in lines]

    def _last_seq(self) -> int:
        """Return a seq that no line is above, found by asking for single lines: there may be a million of them."""
        step = low = 0
        while line := self._store.logs(self._run_id, after=low + step, limit=1):
            low, step = line[0].seq, max(1, 2 * step)
        while step:
            step //= 2
            if line := self._store.logs(self._run_id, after=low + step, limit=1):
                low = line[0].seq
        return low


class ListLook:
    """Which of the newest runs have changed since the last look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shown: dict[str, dict[str, Any]] = {}

    def __call__(self) -> tuple[dict[str, Any], float]:
        rows = [row for row in self._store.runs(limit=LISTED) if row.parent_run_id is None]
        now: dict[str, dict[str, Any]] = {}
        for row in rows:
            asked = self._store.requests(row.run_id, row.epoch) if row.ended is None else None
            now[row.run_id] = shown_run(row, asked)
        changed = [
            run for run_id, run in now.items() if _lasting(self._shown.get(run_id, {})) != _lasting(run)
        ]
        self._shown = now
        return ({"latest": {"runs": changed}} if changed else {}), LIST_SECONDS

    def whole(self) -> dict[str, Any]:
        return {"latest": {"runs": list(self._shown.values())}} if self._shown else {}


def _lasting(run: dict[str, Any]) -> dict[str, Any]:
    """Leave out what changes with each look at a live run: pages know the time themselves."""
    return run | {"seconds": None}
