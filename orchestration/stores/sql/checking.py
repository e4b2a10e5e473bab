"""Does the record agree with itself? What no run of Millrace leaves behind, whatever dies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...core.states import RUN_TERMINAL, TERMINAL, RunState, State
from ..limits import Tie
from ..replay import counts_of, states_of
from .connection import Connection
from .rows import RunView
from .runs import dead

_OF_A_RUN = ("node", "journal", "error", "failure", "run_history", "log")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not agree.

    Attributes:
        kind: `orphans`, `lease`, `stale`, `state`, or of the database itself `integrity`.
        run_id: whose it is; "" if of none.
    """

    kind: str
    run_id: str
    text: str


def problems(connection: Connection, now: float) -> Iterator[Problem]:
    """Compare runs, nodes, journal and leases with each other."""
    yield from _orphans(connection)
    yield from _leases(connection, now)
    yield from _stale(connection, now)
    yield from _run_states(connection)
    runs = connection.execute(
        "SELECT run_no, run_id, name, state, counts FROM run ORDER BY run_no"
    ).fetchall()
    for run_no, run_id, name, state, counts in runs:
        view = RunView(connection, run_no)
        for text in _disagreements(view, RunState(state), json.loads(counts)):
            yield Problem("state", run_id, f"Run {name}: {text}")


def _orphans(connection: Connection) -> Iterator[Problem]:
    for table in _OF_A_RUN:
        found = connection.execute(
            f"SELECT run_no, count(*) FROM {table} WHERE run_no NOT IN (SELECT run_no FROM run) GROUP BY run_no"
        ).fetchall()
        for run_no, rows in found:
            yield Problem(
                "orphans", "", f"{rows} rows of {table} are of a run (number {run_no}) that is not there"
            )
    found = connection.execute(
        "SELECT run.run_id, run.name, journal.node_id, count(*) FROM journal JOIN run USING (run_no) "
        "WHERE NOT EXISTS (SELECT 1 FROM node WHERE node.run_no = journal.run_no "
        "AND node.node_id = journal.node_id) GROUP BY run.run_id, run.name, journal.node_id"
    ).fetchall()
    for run_id, name, node_id, rows in found:
        yield Problem(
            "orphans", run_id, f"Run {name}: {rows} entries are of node {node_id}, which is not there"
        )


def _leases(connection: Connection, now: float) -> Iterator[Problem]:
    found = connection.execute(
        "SELECT name, holder, run_id, label, held FROM lease WHERE expires > ? AND tie <> ? AND NOT EXISTS "
        f"(SELECT 1 FROM run WHERE run.run_id = lease.run_id AND state < {RunState.COMPLETED:d})",
        (now, int(Tie.LEFT)),
    ).fetchall()
    for limit, holder, run_id, label, held in found:
        does = "holds a slot of" if held else "waits for"
        yield Problem("lease", run_id, f"{label} ({holder}) {does} limit {limit!r}, but its run is not live")


def _stale(connection: Connection, now: float) -> Iterator[Problem]:
    for run_id, gone in dead(connection, now).items():
        (name, state, host, pid) = connection.execute(
            "SELECT name, state, host, pid FROM run WHERE run_id = ?", (run_id,)
        ).fetchone()
        why = "is gone" if gone else "has not been heard of for too long"
        text = f"Run {name} says {RunState(state).title}, but its process {pid} on {host or 'an unknown host'} {why}"
        yield Problem("stale", run_id, text)


def _run_states(connection: Connection) -> Iterator[Problem]:
    found = connection.execute(
        "SELECT run.run_id, run.name, run.state, last.state FROM run JOIN run_history AS last USING (run_no) "
        "WHERE last.seq = (SELECT max(seq) FROM run_history AS h WHERE h.run_no = run.run_no) "
        "AND last.state <> run.state"
    ).fetchall()
    for run_id, name, state, last in found:
        text = f"Run {name} says {RunState(state).title}, its history ends with {RunState(last).title}"
        yield Problem("state", run_id, text)


def _disagreements(view: RunView, state: RunState, counts: Sequence[int]) -> Iterator[str]:
    nodes = view.nodes()
    current = [node.counts for node in nodes if node.replaced_by is None]
    total = tuple(map(sum, zip(*current, strict=True))) if current else (0,) * len(State)
    if total != tuple(counts):
        yield f"its counts ({_told(counts)}) are not the sum of its nodes' ({_told(total)})"
    if state not in RUN_TERMINAL:
        return  # what is told of a live run may be ahead of its journal
    for node in nodes:
        derived = counts_of(states_of(view, node))
        if derived != node.counts and node.replaced_by is None:  # a resume may leave that ahead for good
            yield f"node {node.path} says {_told(node.counts)}, its journal {_told(derived)}"
        open_items = sum(n for s, n in zip(State, node.counts, strict=True) if s not in TERMINAL)
        if open_items and node.replaced_by is None:
            yield f"it has ended ({state.title}), but {open_items} task runs of node {node.path} have not"


def _told(counts: Sequence[int]) -> str:
    return ", ".join(f"{n} {s.title}" for s, n in zip(State, counts, strict=True) if n) or "nothing"
