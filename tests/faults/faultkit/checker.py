"""Compares what happened outside with what the journal says, and both with what should have happened."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from click.testing import CliRunner
from faultkit.history import Execution, History
from faultkit.plan import Node, Plan, reference, value_of

from orchestration.core.journal import LOST
from orchestration.core.states import RUN_TERMINAL, TERMINAL, State
from orchestration.errors import StoreCorruptError
from orchestration.stores.base import AttemptRow, HistoryRow, NodeRow, Store
from runners.messages import Outcome

ALL = 1_000_000
DID_NOT_RUN = frozenset({Outcome.UNSTARTED, Outcome.CACHED, Outcome.INPUT_LOST, Outcome.REFUSED})


@dataclass
class Verdict:
    """What is wrong with a run, by kind, and what its trouble has cost."""

    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    over_limit: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)  # processes, leases, states that last
    untrue: list[str] = field(default_factory=list)  # what `millrace runs show` says
    task_runs: int = 0
    executions: int = 0
    beyond_first: int = 0
    seconds: float = 0.0
    redone_seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        kinds = ("lost", "wrong", "unrecorded", "forbidden", "over_limit", "left_behind", "untrue")
        return [f"{kind}: {text}" for kind in kinds for text in getattr(self, kind)]


@dataclass(frozen=True)
class Expected:
    """What may differ from a run without trouble.

    Attributes:
        run_states: in which the run may end.
        states: by which a task run may end that should have completed, such as "Cancelled".
        rerun_stored: stored results were damaged, or the code has changed: what had been stored may run again.
        damaged: files of stored results were: what must not run twice has no result then, and its readers crash.
        forgotten: the last transactions were taken from the store: it cannot tell of what they told.
        limit: slots of the limit, if there is one.
        deaths: of processes, by pid, by the monotonic clock.
    """

    run_states: frozenset[str] = frozenset({"Completed"})
    states: frozenset[str] = frozenset()
    rerun_stored: bool = False
    damaged: bool = False
    forgotten: bool = False
    limit: int | None = None
    deaths: dict[int, float] = field(default_factory=dict)


class Item:
    """All that the record and the history say of one task run."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        versions: Sequence[NodeRow],
        index: int,
        ran: list[Execution],
        *,
        skips_last: bool,
    ) -> None:
        self.index = index
        self.ran = ran
        self.rows: list[AttemptRow] = []
        self.moves: list[HistoryRow] = []
        self.lives = len(versions)  # processes that had it
        self.cut_short = 0  # processes that died while it was at the engine
        self.suspected = 0  # losses of its batch after which it was taken for unstarted
        self.not_kept = 0  # processes before the last in which it ended with nothing to take over
        for version in versions:
            rows = store.attempts(run_id, version.node_id, index)
            moves = store.history(run_id, version.node_id, index)
            self.rows += rows
            self.moves += moves
            self.cut_short += _cut_short(rows, moves)
            self.suspected += sum(map(_suspected, moves))
            done = [row for row in rows if row.state in TERMINAL]
            kept = [row for row in done if row.stored is not None and row.state == State.COMPLETED]
            kept += [row for row in done if skips_last and row.state == State.SKIPPED]
            self.not_kept += version is not versions[-1] and len(kept) < len(done)
        self.repeats = [move.reason for move in self.moves if " as " in move.reason]
        # where a repeated start is the one whose table counted, the record tells of the first without its name
        ends = [row.execution_id for row in self.rows if row.execution_id]
        self.implied = sum(any(end in reason for end in ends) for reason in self.repeats)
        self.implied += sum(
            " as unknown-" in reason for reason in self.repeats
        )  # its worker died too early to say

        self.skipped = any(row.outcome == Outcome.SKIPPED for row in self.rows)
        self.remade = sum("had to be made again" in row.reason for row in self.rows)  # lost after its end
        self.losses = sum(row.outcome == LOST for row in self.rows)
        self.unread = sum(row.outcome == Outcome.INPUT_LOST for row in self.rows)  # lost before its start

    @property
    def excuses(self) -> int:
        """How many starts beyond the first the record has a reason for that is no failure."""
        return self.losses + self.remade + self.cut_short + self.suspected + len(self.repeats) + self.not_kept

    def is_recorded(self, one: Execution) -> bool:
        """Whether the record names this execution as one of the item's attempts, or as a second start of one."""
        for row in self.rows:
            named = row.execution_id == one.execution_id
            unnamed = row.outcome == LOST and not row.execution_id
            if row.attempt == one.attempt and row.outcome not in DID_NOT_RUN and (named or unnamed):
                return True
        return any(one.execution_id in reason for reason in self.repeats)


def _cut_short(rows: Sequence[AttemptRow], moves: Sequence[HistoryRow]) -> bool:
    """Whether the record of one process ends with the item at the engine."""
    steps = [move.state for move in moves]
    while steps and steps[-1] in (State.CRASHED, State.CANCELLED):
        steps.pop()
    sent = sum(step == State.SUBMITTED for step in steps)
    back = len(rows) + sum(step == State.READY for step in steps)
    return bool(sent) and sent > back


def _suspected(move: HistoryRow) -> bool:
    """Whether an item came back from a batch that was lost. What has only lost its inputs had not been started."""
    back = move.state in (State.READY, State.PENDING) and bool(move.reason)
    return back and not (move.reason.endswith("it is made again") or move.reason == "an input was lost")


def check(store: Store, run_id: str, plan: Plan, history: History, expected: Expected) -> Verdict:
    """Judge a run that has ended."""
    found = Verdict(task_runs=plan.width, executions=len(history.executions))
    row = store.run(run_id)
    if row.state not in RUN_TERMINAL or row.state.title not in expected.run_states:
        found.wrong.append(f"the run is {row.state.title} ({row.message})")
    nodes: dict[str, list[NodeRow]] = {}
    for node in store.nodes(run_id):
        nodes.setdefault(node.task_name, []).append(node)
        if node.replaced_by is None and any(
            n for state, n in enumerate(node.counts) if State(state) not in TERMINAL
        ):
            found.left_behind.append(f"node {node.path} has task runs that have not ended: {node.counts}")
    states = {name: _states(store, run_id, versions[-1]) for name, versions in nodes.items()}
    executions = history.by_item
    ends: dict[str, list[tuple[str, int | None]]] = {}
    for node, plain in zip(plan.nodes, reference(plan).values(), strict=True):
        items = [
            Item(
                store,
                run_id,
                nodes.get(node.name, ()),
                i,
                executions.get((node.name, i), []),
                skips_last=plan.persist or node.once,
            )
            for i in range(node.width)
        ]
        now = states.get(node.name, [])
        ends[node.name] = _judge_node(found, plan, node, items, now, plain, ends, history, expected)
    _judge_limit(found, history, expected)
    for limit in store.limits(time.time()):
        for lease in store.leases(limit.name, time.time()):
            found.left_behind.append(f"a lease of {limit.name}: {lease.label}, held={lease.held}")
    _judge_show(found, store, run_id, row.state.title, states)
    return found


def _states(store: Store, run_id: str, node: NodeRow) -> list[str]:
    rows = store.task_runs(run_id, node_id=node.node_id, limit=ALL)
    return [row.state.title for row in rows]


def _judge_node(
    found: Verdict,
    plan: Plan,
    node: Node,
    items: Sequence[Item],
    now: Sequence[str],
    plain: Sequence[tuple[str, int | None]],
    ends: dict[str, list[tuple[str, int | None]]],
    history: History,
    expected: Expected,
) -> list[tuple[str, int | None]]:
    """Judge each item of a node; return how each has ended."""
    results, ended_well = history.results.get(node.name), expected.run_states == {"Completed"}
    mine: list[tuple[str, int | None]] = []
    for item, (plain_state, _) in zip(items, plain, strict=True):
        place = f"{node.name}[{item.index}]"
        state = now[item.index] if item.index < len(now) else "missing"
        wanted, given = _wanted(plan, node, item, plain_state, ends, expected)
        value = value_of(node, item.index, given) if state == "Completed" else None
        mine.append((state, value))
        if state == "missing" and "Completed" in expected.run_states:
            found.lost.append(f"{place} is not in the record")
        elif state not in wanted and "Completed" in expected.run_states | expected.states:
            found.wrong.append(f"{place} is {state}, not {' or '.join(sorted(wanted))}")
        if state == "Completed" and not any(one.value == value for one in item.ran):
            found.lost.append(f"{place} is Completed, and no execution has made its value")
        got = results[item.index] if results is not None else None
        told = expected.damaged and node.once and str(got).startswith("ResultLostError")
        if state == "Completed" and got != value and not told and (results is not None or ended_well):
            found.lost.append(f"{place}: the flow got {got!r} for {value}")
        _judge_executions(found, place, node, item, expected)
    return mine


def _wanted(
    plan: Plan,
    node: Node,
    item: Item,
    plain: str,
    ends: dict[str, list[tuple[str, int | None]]],
    expected: Expected,
) -> tuple[set[str], Any]:
    """Return the states in which an item may end, given how what it depends on has ended, and its input."""
    before: Sequence[tuple[str, int | None]] = ()
    if node.gather is not None:
        before = ends[plan.nodes[node.gather].name]
    elif node.source is not None:
        before = ends[plan.nodes[node.source].name][item.index : item.index + 1]
    states = {state for state, _ in before}
    given: Any = [value for _, value in before] if node.gather is not None else None
    if node.source is not None and before:
        given = before[0][1]
    useless = expected.rerun_stored and item.ran  # it may have completed, and its result is not used
    begun = node.once and (item.losses or item.cut_short or item.not_kept or useless)
    begun = begun or (node.once and expected.damaged and bool(before))
    lost = {"Crashed"} if begun or item.losses + item.unread > node.retries_on_loss else set()
    if "Skipped" in states:
        return lost | {"Skipped"} | (expected.states & {"Cancelled"}), given
    if states - {"Completed"}:
        if item.skipped:  # in an earlier process, where it had its input
            lost |= {"Skipped"}
        return lost | {"UpstreamFailed"} | (expected.states & {"Cancelled"}), given
    own = "Failed" if item.index in node.fatal else "Skipped" if item.index in node.skips else "Completed"
    wanted = {own if plain in ("UpstreamFailed", "Skipped") else plain} | expected.states
    sick = node.sick.get(item.index, "").rpartition(":")
    if node.timeout is not None and sick[2] in ("spin", "sleep", "c"):
        wanted |= {"Failed"}
    if sick[2] == "unpicklable":
        wanted = {"Failed"}
    if "Cancelled" in expected.states and item.ran and item.ran[-1].end == "fail":
        wanted |= {"Failed"}  # it failed before it could be stopped, and is not tried again
    return wanted | lost, given


def _judge_executions(found: Verdict, place: str, node: Node, item: Item, expected: Expected) -> None:
    """Each execution is recorded; each beyond the first has its reason; none where `rerun_on_loss` forbids it."""
    unnamed = [one for one in item.ran if not item.is_recorded(one)]
    for one in unnamed[item.cut_short + item.suspected + item.implied :] if not expected.forgotten else ():
        found.unrecorded.append(
            f"{place}: attempt {one.attempt}, execution {one.execution_id}, ended {one.end!r}"
        )
    failures = extra = 0  # starts after a failure; after something else
    for number, one in enumerate(item.ran):
        last = number == len(item.ran) - 1
        seconds = (one.ended or expected.deaths.get(one.pid, one.started)) - one.started
        found.seconds += max(0.0, seconds)
        if last:
            break
        found.beyond_first += 1
        if one.end == "fail":
            failures += 1
            continue
        extra += 1
        found.redone_seconds += max(0.0, seconds)
        if node.once:
            found.forbidden.append(f"{place} was started again; its first start ended {one.end!r}")
    if expected.rerun_stored or expected.forgotten:
        return
    # each process has the retries of the policy, and starts anew what failed in the one before
    over = max(0, failures - (node.retries + 1) * item.lives + 1)
    if over + extra > item.excuses:
        found.forbidden.append(
            f"{place} was started after {failures} failures and {extra} other ends; the record tells of "
            f"{item.lives} processes and {item.excuses} losses, with {node.retries} retries each"
        )


def _judge_limit(found: Verdict, history: History, expected: Expected) -> None:
    if expected.limit is not None and (most := history.most_at_once(expected.deaths)) > expected.limit:
        found.over_limit.append(f"{most} at once under a limit of {expected.limit}")


def _judge_show(found: Verdict, store: Store, run_id: str, state: str, states: dict[str, list[str]]) -> None:
    """`millrace runs show` counts what is recorded, in JSON and for people.

    Raises:
        StoreCorruptError: it reads a page of the store that is damaged, and that nobody has read before.
    """
    from orchestration.cli.app import cli

    command = ["runs", "show", run_id, "--store", store.url]
    told = CliRunner().invoke(cli, [*command, "--json"])
    if isinstance(told.exception, StoreCorruptError):
        raise told.exception
    if told.exit_code:
        found.untrue.append(f"runs show: exit {told.exit_code}: {told.output} {told.exception!r}")
        return
    shown = json.loads(told.stdout)
    wanted = Counter(one for items in states.values() for one in items)
    if shown["state"] != state or Counter(shown["counts"]) != wanted:
        found.untrue.append(f"runs show: {shown['state']} {shown['counts']}; recorded {state} {dict(wanted)}")
    plain = CliRunner().invoke(cli, command)
    if plain.exit_code or state.lower() not in plain.output.lower():
        found.untrue.append(f"runs show says for a run that is {state}: {plain.output}")
