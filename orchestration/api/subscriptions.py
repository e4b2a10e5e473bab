"""Following a run as it goes: every change, as it is journalled."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..core.journal import AttemptsEnded, Entry, Moved, RunMoved
from ..core.readiness import label
from ..core.states import RUN_TERMINAL, State
from ..stores import open_store
from ..stores.base import Store
from .sessions import LocalSession, local_session

POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Change:
    """Something of a run has changed.

    Attributes:
        kind: "run" or "task_runs".
        state: the new state's name.
        task_name, node_id, indices: of the task runs concerned; their number alone, `count`, where the run is in
            another process.
        message: in words.
    """

    kind: str
    run_id: str
    state: str
    at: float
    task_name: str = ""
    node_id: int = -1
    indices: Sequence[int] = ()
    count: int = 0
    message: str = ""


def subscribe(run: str, *, store: str | None = None) -> Iterator[Change]:
    """Yield the changes of a run until it has ended; at once and all if it runs in this process.

    Args:
        run: an id, a prefix of one, or a name.
        store: where the run is recorded; default what MILLRACE_STORE says.
    """
    session = local_session(run)
    if session is not None:
        yield from _from_driver(session)
    else:
        place = open_store(store)
        yield from _from_store(place, place.run(run).run_id)


def _from_driver(session: LocalSession) -> Iterator[Change]:
    entries: queue.SimpleQueue[Sequence[Entry]] = queue.SimpleQueue()
    session.driver.observers.append(entries.put)
    try:
        while True:
            for entry in entries.get():
                yield from _changes(session, entry)
                if isinstance(entry, RunMoved) and entry.state in RUN_TERMINAL:
                    return
    finally:
        session.driver.observers.remove(entries.put)


def _changes(session: LocalSession, entry: Entry) -> Iterator[Change]:
    run_id = session.run_id
    if isinstance(entry, RunMoved):
        yield Change("run", run_id, entry.state.title, entry.at, message=entry.message)
    elif isinstance(entry, Moved | AttemptsEnded):
        node = session.driver.core.nodes[entry.node_id]
        groups: dict[State, list[int]] = {}
        if isinstance(entry, Moved):
            groups[entry.state] = list(entry.indices)
        elif not entry.remade:
            for index, state in zip(entry.indices, entry.states, strict=True):
                groups.setdefault(State(state), []).append(index)
        for state, indices in groups.items():
            message = entry.reason or (label(node, indices[0]) if len(indices) == 1 else "")
            yield Change(
                "task_runs",
                run_id,
                state.title,
                entry.at,
                node.spec.task_name,
                entry.node_id,
                indices,
                len(indices),
                message,
            )


def _from_store(store: Store, run_id: str) -> Iterator[Change]:
    """Follow a run of another process by what is recorded of it."""
    seen: dict[int, tuple[int, ...]] = {}
    state = None
    while True:
        row = store.run(run_id)
        now = time.time()
        for node in store.nodes(run_id):
            before = seen.get(node.node_id, (0,) * len(State))
            for kind in State:
                if node.counts[kind] > before[kind]:
                    grown = node.counts[kind] - before[kind]
                    yield Change(
                        "task_runs", run_id, kind.title, now, node.task_name, node.node_id, (), grown
                    )
            seen[node.node_id] = node.counts
        if row.state != state:
            state = row.state
            yield Change("run", run_id, row.state.title, now, message=row.message)
        if row.state in RUN_TERMINAL:
            return
        time.sleep(POLL_SECONDS)
