"""`millrace runs ls`, `show` and `story`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from ..core.states import RUN_TERMINAL, TERMINAL, RunState, State
from ..errors import UserError
from ..stores.as_json import (
    attempt_json,
    detail_json,
    history_json,
    node_json,
    outcome_title,
    run_json,
    seconds_of,
    task_run_json,
    timing_json,
)
from ..stores.base import NodeRow, RunRow, Store, TaskRunRow
from ..stores.failures import FailureGroup
from ..stores.lookup import states_named
from ..stores.queues import waits_of
from ..stores.timing import line_of
from ..terminal import words
from ..terminal.progress import NodeProgress, progress_lines
from ..terminal.styled import STATE_STYLE, Line, columns_of, is_terminal
from ..terminal.summary import failure_lines, location
from ..terminal.tally import Failure
from .common import find_run, json_option, open_reaped, run_argument, state_title, store_option
from .output import print_json, print_lines, print_table
from .timing import print_timing

MAX_NODES = 30


@click.command("ls")
@click.option("--state", "states", multiple=True, help="Only runs in this state; may be repeated.")
@click.option("--flow", "flow_name", help="Only runs of this flow.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@click.option("--subflows", is_flag=True, help="Also runs that were started by other runs.")
@json_option
@store_option
def list_runs(
    states: tuple[str, ...],
    flow_name: str | None,
    limit: int,
    subflows: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """List runs, newest first.

    JSON: a list with keys id, name, flow, state, state_name, message, created, started, ended, seconds, heartbeat,
    runner, entrypoint, version, tags, parameters, parent_id, host, pid, processes, counts, error.
    """
    place = open_reaped(store)
    wanted = states_named(RunState, states)
    rows: list[RunRow] = []
    before = None
    while len(rows) < limit:
        page = place.runs(states=wanted, flow_name=flow_name, limit=max(limit, 50), before=before)
        rows += [row for row in page if subflows or row.parent_run_id is None]
        if len(page) < max(limit, 50):
            break
        before = page[-1].created, page[-1].run_id
    rows = rows[:limit]
    if as_json:
        print_json([run_json(row) for row in rows])
    elif rows:
        _print_runs(place, rows)
    else:
        hint = (
            "No run matches." if states or flow_name else "No runs yet. Start one: millrace run FILE.py:FLOW"
        )
        click.echo(f"{hint} ({place.url})", err=True)


def _print_runs(store: Store, rows: Sequence[RunRow]) -> None:
    now = time.time()
    table, styles, seen = [], [], set[str]()
    for row in rows:
        title = state_title(store, row)
        seconds = seconds_of(row, now)
        name = row.name if row.name not in seen else row.run_id[:12]  # a name means its newest run
        seen.add(row.name)
        table.append(
            [
                name,
                row.flow_name,
                title,
                task_runs_text(row.counts),
                words.ago(row.started or row.created, now),
                "-" if seconds is None else words.duration(seconds),
            ]
        )
        styles.append(["", "", STATE_STYLE.get(title, STATE_STYLE.get(row.state.title, "")), "", "", ""])
    head = ["RUN", "FLOW", "STATE", "TASK RUNS", "STARTED", "TOOK"]
    print_table(head, table, right=frozenset({4, 5}), styles=styles, shrink=(1, 3, 0))


def task_runs_text(counts: Sequence[int]) -> str:
    """Return such as `9,940/10,000, 20 failed`: how many have ended, of how many, and what went wrong."""
    total = sum(counts)
    done = sum(counts[s] for s in TERMINAL)
    failed = sum(counts[s] for s in (State.FAILED, State.CRASHED, State.UPSTREAM_FAILED))
    text = f"{done:,}" if done == total else f"{done:,}/{total:,}"
    return f"{text}, {failed:,} failed" if failed else text


@click.command()
@run_argument
@click.option("--task-runs", is_flag=True, help="List the task runs.")
@click.option("--state", "states", multiple=True, help="Only task runs in this state; implies --task-runs.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many task runs."
)
@click.option("--errors", is_flag=True, help="Show the errors with their tracebacks.")
@click.option("--timing", is_flag=True, help="Show where the time went.")
@json_option
@store_option
def show(
    run: str,
    task_runs: bool,
    states: tuple[str, ...],
    limit: int,
    errors: bool,
    timing: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """Show a run: what it was called with, its nodes, its errors.

    JSON keys: those of `runs ls`, nodes (node, path, task, kind, width, tags, upstream, policy, counts, created,
    started, ended), errors (type, message, traceback, count), and with --task-runs task_runs (node, index, task,
    name, state, state_name, attempts, started, seconds, worker, reason, root, error). With --timing: timing (slots,
    wall_seconds, coordinator_seconds, and of the slots' time code_seconds, worker_seconds, engine_seconds,
    idle_seconds; nodes with node,
    path, task, attempts, started, ended, code_seconds, cpu_seconds, slot_wait_seconds, limit_wait_seconds,
    retry_wait_seconds, worker_seconds, delivery_seconds, return_seconds, batches, batch_median, batch_largest,
    retries, retry_seconds).
    """
    place = open_reaped(store)
    row = find_run(place, run)
    wanted = states_named(State, states)
    items = place.task_runs(row.run_id, states=wanted, limit=limit) if task_runs or states else None
    nodes = [node for node in place.nodes(row.run_id) if node.replaced_by is None]
    found = failures_of(place, row.run_id)
    if as_json:
        shown: dict[str, Any] = run_json(row)
        shown["nodes"] = [node_json(node) for node in nodes]
        shown["errors"] = [{**(detail_json(group.error) or {}), "count": group.count} for group in found]
        if items is not None:
            shown["task_runs"] = [task_run_json(item) for item in items]
        if timing:
            shown["timing"] = timing_json(place.timing(row.run_id), row)
        print_json(shown)
        return
    print_lines(_about(place, row) + _limits(place, row), wrap=True)
    print_lines(_nodes(nodes))
    if found:
        _print_errors(error_kinds(found), full=errors)
    if items is not None:
        _print_task_runs(items, nodes, limit)
    if timing:
        print_timing(place.timing(row.run_id), row, most=MAX_NODES)
    hint = _next_step(row)
    if hint:
        click.echo(hint)


def _about(store: Store, row: RunRow) -> list[Line]:
    now = time.time()
    title = state_title(store, row)
    seconds = seconds_of(row, now)
    took = "" if seconds is None else f", took {words.duration(seconds)}"
    if row.state not in RUN_TERMINAL:
        took = "" if seconds is None else f", for {words.duration(seconds)}"
    started = words.ago(row.started or row.created, now)
    facts = [
        ("flow", f"{row.flow_name}{' ' + row.version if row.version else ''}  {row.entrypoint}"),
        ("id", row.run_id),
        ("started", f"{started}{took} on {row.host or '?'}, process {row.pid}, runner {row.runner}"),
        ("tags", ", ".join(sorted(row.tags))),
        ("parameters", ", ".join(f"{k}={_short(v)}" for k, v in row.parameters.items())),
        ("task runs", words.kinds(row.counts)),
        ("message", row.message),
    ]
    lines: list[Line] = [[(row.name, "bold"), ("  ", ""), (title, STATE_STYLE.get(row.state.title, ""))]]
    return lines + [[(f"  {name:<11}", "dim"), (text, "")] for name, text in facts if text]


def _limits(store: Store, row: RunRow) -> list[Line]:
    """Say which limits a live run waits for, and who is in its way."""
    if row.state in RUN_TERMINAL:
        return []
    lines: list[Line] = []
    for wait in waits_of(store, row.run_id, store.now()):
        holders = [lease.label for lease in wait.holders]
        held = f", held by {', '.join(holders[:3])}" if holders else ""
        more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
        ahead = f"; {wait.ahead} wait before it" if wait.ahead else ""
        lines.append([("  waits for  ", "dim"), (f"limit {wait.limit}{held}{more}{ahead}", "yellow")])
    return lines


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _nodes(nodes: Sequence[NodeRow]) -> list[Line]:
    seen = is_terminal(sys.stdout)
    columns = columns_of(sys.stdout) if seen else 1000
    return progress_lines(progress_of(nodes), columns=columns, rows=MAX_NODES, bars=seen)


def progress_of(nodes: Sequence[NodeRow]) -> list[NodeProgress]:
    """Return how far nodes are, single task runs of one task together."""
    together: dict[str, list[NodeRow]] = {}
    for node in nodes:
        together.setdefault(line_of(node), []).append(node)
    return [
        NodeProgress(
            line,
            group[0].width if len(group) == 1 else sum(node.width or 0 for node in group),
            [sum(column) for column in zip(*(node.counts for node in group), strict=True)],
        )
        for line, group in together.items()
    ]


def failures_of(store: Store, run_id: str, limit: int = 1000) -> list[FailureGroup]:
    """Return what task runs failed by, without those that never ran because others failed."""
    found = store.failures(run_id, limit=limit)
    return [group for group in found if group.state is not State.UPSTREAM_FAILED]


def error_kinds(found: Sequence[FailureGroup]) -> list[Failure]:
    """Put errors of one type from one line together, whatever way the code came to it."""
    kinds: dict[tuple[str, str], Failure] = {}
    for group in found:
        error = group.error
        key = (error.type_name, location(error.traceback) or error.message)
        new = Failure(error.type_name, error.message, error.traceback, "")
        kinds.setdefault(key, new).count += group.count
    return list(kinds.values())


def _print_errors(kinds: Sequence[Failure], *, full: bool) -> None:
    if not full:
        print_lines(failure_lines(kinds), wrap=True)
        return
    for kind in kinds:
        print_lines([[(f"  {words.plural(kind.count, 'task run')}:", "red")]])
        text = kind.traceback.rstrip() or f"{kind.type_name}: {kind.message}"
        click.echo("\n".join("    " + line for line in text.splitlines()))


def _print_task_runs(items: Sequence[TaskRunRow], nodes: Sequence[NodeRow], limit: int) -> None:
    if not items:
        click.echo("  no such task runs")
        return
    now = time.time()
    kinds = {node.node_id: node.kind for node in nodes}
    table, styles = [], []
    for item in items:
        why = item.reason or (f"{item.detail.type_name}: {item.detail.message}" if item.detail else "")
        table.append(
            [
                item.name or words.label(item.task_name, kinds.get(item.node_id, "map"), item.index),
                item.state_name,
                str(item.attempts),
                words.ago(item.started, now),
                "-" if item.seconds is None else words.duration(item.seconds),
                why.partition("\n")[0],
            ]
        )
        styles.append(["", STATE_STYLE.get(item.state.title, ""), "", "", "", ""])
    head = ["TASK RUN", "STATE", "TRIES", "STARTED", "TOOK", "WHY"]
    print_table(head, table, right=frozenset({2, 3, 4}), styles=styles, shrink=(5, 0))
    if len(items) == limit:
        click.echo(f"  the first {limit:,}; more with --limit")


def _next_step(row: RunRow) -> str:
    if row.state in (RunState.CRASHED, RunState.CANCELLED, RunState.FAILED):
        return f"  to continue it: millrace runs resume {row.name}"
    return ""


@click.command()
@run_argument
@click.argument("node")
@click.argument("index", type=click.IntRange(min=0), default=0)
@json_option
@store_option
def story(run: str, node: str, index: int, as_json: bool, store: str | None) -> None:
    """Show what happened to one task run: its moves and its attempts.

    NODE is a number, a task's name (its newest node) or a path as `runs show` prints it.
    JSON keys: history (at, state, reason), attempts (attempt, outcome, state, started, seconds, worker, execution_id,
    reason, error).
    """
    place = open_reaped(store)
    row = find_run(place, run)
    found = _find_node(place.nodes(row.run_id), node, row)
    history = place.history(row.run_id, found.node_id, index)
    attempts = place.attempts(row.run_id, found.node_id, index)
    if as_json:
        moves = [history_json(one) for one in history]
        print_json({"history": moves, "attempts": [attempt_json(one) for one in attempts]})
        return
    told = [(one.at, one.state.title, one.reason) for one in history]
    for one in attempts:
        took = f" after {words.duration(one.seconds)}" if one.seconds is not None else ""
        why = f": {one.detail.type_name}: {one.detail.message}" if one.detail else ""
        more = f"; {one.reason}" if one.reason else ""
        text = f"attempt {one.attempt} {outcome_title(one.outcome).lower()}{took} on {one.worker}{why}{more}"
        told.append((one.ended, one.state.title, text))
    lines: list[Line] = [
        [(words.clock(at), "dim"), (f"  {state:<14}", STATE_STYLE.get(state, "")), (f"  {text}", "")]
        for at, state, text in sorted(told)
    ]
    print_lines(lines or [[("nothing has happened to it yet", "dim")]], wrap=True)


def _find_node(nodes: Sequence[NodeRow], text: str, row: RunRow) -> NodeRow:
    for node in reversed(nodes):
        if text in (node.path, node.task_name) or text == str(node.node_id):
            return node
    there = ", ".join(dict.fromkeys(node.task_name for node in nodes)) or "none"
    raise UserError(f"run {row.name} has no node {text!r}. It has: {there}.")
