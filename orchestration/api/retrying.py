"""Running again what has ended: a new run of the same flow and parameters, with or without stored results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runners.codec import loads

from ..core.states import RUN_TERMINAL
from ..errors import ParameterError, RunAliveError, RunNotFoundError, RunNotResumableError
from ..stores import open_store
from ..stores.base import REUSE_TAG, RecoveredNode, RunRow, Store
from ..stores.remains import persisted
from .annotations import tags
from .flows import Flow
from .parameters import validate
from .secrets import withheld

RETRY_TAG = "retry-of:"


def retry_flow(
    flow: Flow[Any, Any],
    run: str,
    *,
    failed_only: bool = False,
    secrets: Mapping[str, Any] | None = None,
    return_state: bool,
) -> Any:
    """Run a flow anew with the parameters of a run that has ended.

    Args:
        run: an id, a prefix of one, or a name.
        secrets: the parameters that were not recorded.
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
    parameters = recorded_parameters(flow, row, secrets or {})
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


def recorded_parameters(flow: Flow[Any, Any], row: RunRow, secrets: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's parameters as its flow was called with them.

    Args:
        secrets: those that were not recorded, by name.

    Raises:
        RunNotResumableError: they could not be recorded, or secrets are missing.
        ParameterError: others are given than were not recorded, or they do not fit.
    """
    if row.parameters_pickle is None:
        raise RunNotResumableError(
            f"run {row.name} cannot be run again: its parameters could not be pickled when it started"
        )
    parameters: dict[str, Any] = loads(row.parameters_pickle)
    needed = withheld(parameters)
    missing = [name for name in needed if name not in secrets]
    if missing:
        raise RunNotResumableError(
            f"parameter {' and '.join(map(repr, missing))} of run {row.name} is a secret, which is never recorded. "
            f"Give it again: millrace runs resume {row.name} -p {missing[0]}=..., or "
            f"flow.resume({row.name!r}, secrets={{{missing[0]!r}: ...}})"
        )
    other = [name for name in secrets if name not in needed]
    if other:
        raise ParameterError(
            f"parameter {other[0]!r} of run {row.name} is recorded, or is none of its flow's: a run goes on with the "
            "parameters that it had. Leave it out."
        )
    parameters.update(secrets)
    return validate(flow.fn, flow.name, parameters) if secrets and flow.validate_parameters else parameters


def reusable(store: Store, row: RunRow) -> Mapping[str, RecoveredNode]:
    """Return the stored results of a run, and of those whose results it has reused itself."""
    lineage = _lineage(store, row)
    if len(lineage) == 1:  # nearly always: nothing is to be merged, and there may be 100,000 nodes
        return store.recovered(row.run_id)
    found: dict[str, RecoveredNode] = {}
    for run_id in lineage:
        for path, node in store.recovered(run_id).items():
            old = found.get(path)
            results: Mapping[int, Any] = node.results
            skipped = node.skipped
            if old is not None and old.fingerprint == node.fingerprint:
                tried = node.attempts.keys()
                results = {**{i: r for i, r in old.results.items() if i not in tried}, **node.results}
                skipped |= old.skipped - tried - node.results.keys()
            own = run_id == row.run_id  # a retry as a new run starts anew what is not stored
            found[path] = replace(
                node,
                attempts=node.attempts if own else {},
                results=results,
                started=node.started if own else frozenset(),
                skipped=skipped,
            )
    return found


def as_persistent(flow: Flow[Any, Any], recovered: Mapping[str, RecoveredNode]) -> Flow[Any, Any]:
    """Return the flow with results persisted if they were before, for instance by `millrace run --persist`."""
    if flow.persist_results or not persisted(recovered):
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
