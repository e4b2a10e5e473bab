"""Which runs may go, and what goes with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...core.states import RUN_TERMINAL, RunState
from ..base import REUSE_TAG
from .connection import Connection

_OF_A_RUN = ("journal", "log", "error", "failure", "node", "run_history", "run")


@dataclass(frozen=True, slots=True)
class Brief:
    """What decides about a run."""

    run_id: str
    name: str
    parent_run_id: str | None
    ended: float | None  # None: it is live
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tree:
    """A run with its subflow runs, all of which have ended: they stay or go together."""

    runs: tuple[Brief, ...]  # the outermost first

    @property
    def run_ids(self) -> list[str]:
        return [run.run_id for run in self.runs]


def briefs(connection: Connection) -> list[Brief]:
    """Return all runs, newest first."""
    found = connection.execute(
        "SELECT run_id, name, parent_run_id, state, ended, created, tags FROM run ORDER BY created DESC, run_no DESC"
    )
    return [
        Brief(
            run_id,
            name,
            parent,
            (created if ended is None else ended) if RunState(state) in RUN_TERMINAL else None,
            frozenset(json.loads(tags)),
        )
        for run_id, name, parent, state, ended, created, tags in found
    ]


def prunable(runs: Sequence[Brief], *, ended_before: float | None, keep: int | None) -> list[Tree]:
    """Return what may go, newest first: what ended before a time, and what is not among the newest `keep`.

    A run whose stored results a staying run has taken over stays, too.
    """
    trees = _trees(runs)
    going: dict[str, Tree] = {}
    for place, (root, tree) in enumerate(trees.items()):
        ends = [run.ended for run in tree]
        if any(end is None for end in ends):
            continue
        last = max(end for end in ends if end is not None)
        if (ended_before is not None and last < ended_before) or (keep is not None and place >= keep):
            going[root] = Tree(tuple(tree))
    _keep_reused(trees, going)
    return list(going.values())


def _trees(runs: Sequence[Brief]) -> dict[str, list[Brief]]:
    """Return runs by the outermost run that they are part of, as far as it is there."""
    by_id = {run.run_id: run for run in runs}
    trees = {run.run_id: [run] for run in runs if run.parent_run_id not in by_id}
    for run in runs:
        root = run
        while root.parent_run_id in by_id:
            root = by_id[root.parent_run_id]
        if root is not run:
            trees[root.run_id].append(run)
    return trees


def _keep_reused(trees: Mapping[str, Sequence[Brief]], going: dict[str, Tree]) -> None:
    root_of = {run.run_id: root for root, tree in trees.items() for run in tree}
    staying = [root for root in trees if root not in going]
    while staying:
        for run in trees[staying.pop()]:
            for reused in (tag.removeprefix(REUSE_TAG) for tag in run.tags if tag.startswith(REUSE_TAG)):
                root = root_of.get(reused)
                if root is not None and going.pop(root, None) is not None:
                    staying.append(root)


def result_places(connection: Connection, run_ids: Iterable[str]) -> set[tuple[str, str]]:
    """Return (storage URL, key prefix) of what these runs have stored."""
    places = set()
    for run_id in run_ids:
        prefix = f"runs/{run_id}"
        found = connection.execute(
            "SELECT DISTINCT stored_url FROM journal JOIN run USING (run_no) "
            "WHERE run_id = ? AND stored_url IS NOT NULL",
            (run_id,),
        )
        for (url,) in found:
            root, between, _ = url.partition(f"/{prefix}/")
            if between:
                places.add((root, prefix))
    return places


def delete(connection: Connection, tree: Tree) -> bool:
    """Delete the runs of a tree; return False if one of them was taken up again meanwhile."""
    numbers = []
    for run_id in tree.run_ids:
        row = connection.execute(
            f"SELECT run_no, state FROM run WHERE run_id = ? {connection.for_update}", (run_id,)
        ).fetchone()
        if row is not None and RunState(row[1]) not in RUN_TERMINAL:
            return False
        if row is not None:
            numbers.append(row[0])
    for table in _OF_A_RUN:
        connection.executemany(f"DELETE FROM {table} WHERE run_no = ?", [(number,) for number in numbers])
    connection.executemany("DELETE FROM lease WHERE run_id = ?", [(run_id,) for run_id in tree.run_ids])
    return True
