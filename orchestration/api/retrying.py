"""Running again what has ended: a new run of the same flow and parameters, with or without stored results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runners.codec import loads

from ..core.states import RUN_TERMINAL
from ..errors import RunAliveError, RunNotFoundError, RunNotResumableError
from ..stores import open_store
from ..stores.base import REUSE_TAG, RecoveredNode, RunRow, Store
from .annotations import tags
from .flows import Flow

RETRY_TAG = "retry-of:"


def retry_flow(flow: Flow[Any, Any], run: str, *, failed_only: bool = False, return_state: bool) -> Any:
    """Run a flow anew with the parameters of a run that has ended.

    Args:
        run: an id, a prefix of one, or a name.
        failed_only: completed task runs whose results are in storage are not run again.

    Raises:
        RunNotFoundError, RunAliveError, RunNotResumableError.
    """
    from .engine import _drive
    from .running import RunningFlow, new_run

    store = open_store(flow.store)
    row = store.run(run)
    if row.state not in RUN_TERMINAL:
        raise RunAliveError(
            f"run {row.name} has not ended: it is {row.state.title}. Stop it first: "
            f"millrace runs cancel {row.name}"
        )
    parameters = recorded_parameters(row)
    found = reusable(store, row) if failed_only else {}
    if failed_only and not any(node.results for node in found.values()):
        raise RunNotResumableError(
            f"run {row.name} has stored no results that a retry could reuse. Retry without --failed-only; "
            "next time run with --persist, or @flow(persist_results=True)."
        )
    found = {path: replace(node, attempts={}) for path, node in found.items()}  # budgets of its own
    chosen = as_persistent(flow, found)

    def make() -> RunningFlow:
        with tags(f"{REUSE_TAG if failed_only else RETRY_TAG}{row.run_id}"):
            return new_run(chosen, parameters, parent=None, recovered=found)

    return _drive(chosen, make, parameters, return_state)


def recorded_parameters(row: RunRow) -> dict[str, Any]:
    """Return a run's parameters as its flow was called with them."""
    if row.parameters_pickle is None:
        raise RunNotResumableError(
            f"run {row.name} cannot be run again: its parameters could not be pickled when it started"
        )
    parameters: dict[str, Any] = loads(row.parameters_pickle)
    return parameters


def reusable(store: Store, row: RunRow) -> dict[str, RecoveredNode]:
    """Return the stored results of a run, and of those whose results it has reused itself."""
    found: dict[str, RecoveredNode] = {}
    for run_id in _lineage(store, row):
        for path, node in store.recovered(run_id).items():
            old = found.get(path)
            results: Mapping[int, Any] = node.results
            if old is not None and old.fingerprint == node.fingerprint:
                tried = node.attempts.keys()
                results = {**{i: r for i, r in old.results.items() if i not in tried}, **node.results}
            own = run_id == row.run_id  # a retry as a new run starts anew what is not stored
            found[path] = replace(
                node,
                attempts=node.attempts if own else {},
                results=results,
                started=node.started if own else frozenset(),
            )
    return found


def as_persistent(flow: Flow[Any, Any], recovered: Mapping[str, RecoveredNode]) -> Flow[Any, Any]:
    """Return the flow with results persisted if they were before, for instance by `millrace run --persist`."""
    if flow.persist_results or not any(node.fingerprint for node in recovered.values()):
        return flow
    return replace(flow, persist_results=True)


def _lineage(store: Store, row: RunRow) -> list[str]:
    """Return the ids of the runs whose results a run has reused, oldest first, then its own."""
    ids = [row.run_id]
    while True:
        earlier = next((t.removeprefix(REUSE_TAG) for t in row.tags if t.startswith(REUSE_TAG)), None)
        if earlier is None or earlier in ids:
            return ids[::-1]
        try:
            row = store.run(earlier)
        except RunNotFoundError:
            return ids[::-1]
        ids.append(earlier)
