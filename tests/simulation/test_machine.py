"""Hypothesis drives the coordinator through events in any order there can be, and some there cannot."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from orchestration.core import invariants
from orchestration.core.commands import AnswerPermit, AskLeases, CancelBatches, SubmitBatch, WithdrawLeases
from orchestration.core.coordinator import Coordinator
from orchestration.core.events import (
    CancelRequested,
    CoreEvent,
    FilesLost,
    LeasesAnswered,
    LimitsKnown,
    NodeSubmitted,
    PauseRequested,
    PermitAsked,
    ResultsWanted,
    ResumeRequested,
    RunInterrupted,
    SlotLent,
    SlotReclaimed,
    Tick,
)
from orchestration.core.journal import AttemptsEnded, Entry, LeasesReturned
from orchestration.core.records import Node
from orchestration.core.specs import INLINE, MAIN
from orchestration.core.states import TERMINAL, State
from orchestration.testing.flows import ENOUGH, random_flow
from orchestration.testing.replayed import Replayed
from orchestration.testing.results import Results
from orchestration.testing.script import Act, Step, reference
from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchRejected,
    BatchStarted,
    Detail,
    Outcome,
    ResultsLost,
    SlotsChanged,
    Stored,
    Table,
)

SEEDS = st.integers(0, 2**32)
HAS_RESULT = (Outcome.COMPLETED, Outcome.CACHED)


class CoordinatorMachine(RuleBasedStateMachine):
    """A driver, an engine, a store and users without any sense of order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.planned: list[Step] = []
        self.steps: dict[int, Step] = {}
        self.files: dict[str, dict[int, int]] = {}
        self.made: dict[tuple[int, int], int] = {}  # by any process
        self.first_batch_id = 0
        self.tame = True
        self.comparable = True  # nothing has happened that the reference interpreter does not know of
        self.known: frozenset[str] = frozenset()
        self.limits: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self.core = Coordinator("run", lambda: 0.5, prefetch=2, first_batch_id=self.first_batch_id)
        before = {i: s.spec.recovered for i, s in self.steps.items() if s.spec.recovered is not None}
        self.replayed = Replayed(before=before)
        self.batches: dict[int, SubmitBatch] = {}
        self.asks: dict[int, AskLeases] = {}
        self.held: dict[int, tuple[str, ...]] = {}  # batch -> limits
        self.results: dict[tuple[int, int], dict[int, int]] = {}
        self.past: list[CoreEvent] = []
        self.told: dict[int, set[int]] = {}  # batch -> entries told to be abandoned
        self.begun: dict[int, int] = {}  # batch -> items that its first execution has begun
        self.where = Results(self.core, self.steps, self.results, self.files, self.made)

    # --- the driver -----------------------------------------------------------------------------

    def handle(self, event: CoreEvent) -> list[Any]:
        commands = self.core.handle(event, self.now)
        for command in commands:
            if isinstance(command, Entry):
                self.replayed.apply(command)
            match command:
                case SubmitBatch():
                    assert command.batch_id not in self.batches
                    self.batches[command.batch_id] = command
                case AskLeases():
                    self.asks[command.batch_id] = command
                case WithdrawLeases(batch_ids):
                    for batch_id in batch_ids:
                        self.asks.pop(batch_id, None)
                        self.held.pop(batch_id, None)
                case LeasesReturned(holders):
                    for holder in holders:
                        del self.held[int(holder.rpartition("/")[2])]
                case AttemptsEnded(indices=indices, attempts=attempts, states=states, outcomes=outcomes):
                    assert len(indices) == len(attempts) == len(states) == len(outcomes)
                case CancelBatches() | AnswerPermit():
                    pass
        self.core.counted()
        if not isinstance(event, NodeSubmitted | PermitAsked | LeasesAnswered | ResumeRequested):
            self.past.append(event)
        return commands

    # --- rules: the flow ------------------------------------------------------------------------

    @initialize(seed=SEEDS, tame=st.booleans())
    def plan(self, seed: int, tame: bool) -> None:
        """Choose a flow. A tame one meets nothing that changes how it must end."""
        rng = random.Random(seed)
        self.tame = tame
        self.limits = {"db": rng.randint(1, 2), "api": 1} if rng.random() < 0.5 else {}
        steps = random_flow(rng, nodes=6, widest=6, tags=tuple(self.limits))
        for step in steps:
            policy = replace(
                step.spec.policy,
                retries_on_loss=ENOUGH if tame else rng.choice((0, 1, 3)),
                rerun_on_loss=tame or rng.random() < 0.7,
            )
            runner = INLINE if rng.random() < 0.15 else MAIN
            self.planned.append(replace(step, spec=replace(step.spec, policy=policy, runner=runner)))
        self.planned.reverse()

    @precondition(lambda self: self.planned)
    @rule()
    def submit(self) -> None:
        """The flow submits its next node."""
        step = self.planned.pop()
        self.steps[step.spec.node_id] = step
        self.handle(NodeSubmitted(step.spec))

    @rule(slots=st.integers(0, 4))
    def change_slots(self, slots: int) -> None:
        """The cluster grows or shrinks."""
        self.handle(SlotsChanged(slots))

    @rule(names=st.sets(st.sampled_from(["db", "api"])))
    def know_limits(self, names: set[str]) -> None:
        """Limits are set or removed."""
        self.known = frozenset(names & self.limits.keys())
        self.handle(LimitsKnown(self.known))

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.handle(Tick())

    # --- rules: the engine ----------------------------------------------------------------------

    def choose(self, pick: int) -> SubmitBatch:
        ids = sorted(self.batches)
        return self.batches[ids[pick % len(ids)]]

    def act(self, command: SubmitBatch, entry: int) -> Act:
        node_id, index = command.item(entry)
        spent = self.core.nodes[node_id].known.spent.get(index)
        return self.steps[node_id].plan(index, spent.failures if spent else 0)

    @precondition(lambda self: self.batches)
    @rule(pick=SEEDS, again=st.booleans())
    def start(self, pick: int, again: bool) -> None:
        """A worker begins a batch, perhaps not the first to do so."""
        command = self.choose(pick)
        execution = f"{command.batch_id}{'-again' if again and not command.permit else ''}"
        self.handle(BatchStarted(command.batch_id, execution, "w", self.now))

    @precondition(lambda self: self.batches)
    @rule(pick=SEEDS, entry=st.integers(0, 6), abandons=st.booleans())
    def progress(self, pick: int, entry: int, abandons: bool) -> None:
        """A worker tells how far it is, perhaps that an item could not be stopped."""
        command = self.choose(pick)
        n = len(command.indices) * len(command.node_ids)
        entry = min(entry, n - 1)
        act = self.act(command, entry)
        details: dict[int, Detail] = {}
        outcomes = b""
        told = self.told.setdefault(command.batch_id, set())
        if abandons and act.outcome is Outcome.TIMED_OUT and not command.permit and entry not in told:
            told.add(entry)
            outcomes = bytes([0] * entry + [Outcome.TIMED_OUT])
            details[entry] = Detail(message=act.message, retriable=act.retriable, abandoned=True)
        self.handle(
            BatchProgress(command.batch_id, f"{command.batch_id}", "w", entry, self.now, outcomes, details)
        )

    @precondition(lambda self: any(c.permit for c in self.batches.values()))
    @rule(pick=SEEDS, twin=st.booleans(), again=st.booleans())
    def ask_permit(self, pick: int, twin: bool, again: bool) -> None:
        """A worker asks whether it may start its next item, a second execution of the batch perhaps as well."""
        commands = [c for _, c in sorted(self.batches.items()) if c.permit]
        command = commands[pick % len(commands)]
        begun = self.begun.get(command.batch_id, 0)
        if begun >= len(command.indices):
            return
        first = f"{command.batch_id}"
        ask = PermitAsked(f"{first}/{begun}", command.batch_id, first, begun)
        answers = [c.permitted for c in self.handle(ask) if isinstance(c, AnswerPermit)]
        assert len(answers) == 1
        if again:
            assert [c.permitted for c in self.handle(ask) if isinstance(c, AnswerPermit)] == answers
        if twin:
            other = PermitAsked(f"twin/{begun}", command.batch_id, "twin", begun)
            assert [c.permitted for c in self.handle(other) if isinstance(c, AnswerPermit)] == [False]
        if answers[0]:
            self.begun[command.batch_id] = begun + 1

    @precondition(lambda self: self.batches)
    @rule(pick=SEEDS, ran=st.integers(0, 6), cancelled=st.booleans(), input_lost=st.booleans())
    def finish(self, pick: int, ran: int, cancelled: bool, input_lost: bool) -> None:
        """A batch ends: all of it, or with a tail that has not started."""
        command = self.choose(pick)
        whole = len(command.indices) * len(command.node_ids)
        self.end(command, ran if ran < 5 else whole, cancelled, input_lost)

    def end(self, command: SubmitBatch, ran: int, cancelled: bool = False, input_lost: bool = False) -> None:
        stages = len(command.node_ids)
        n = len(command.indices) * stages
        ran = min(ran, n)
        outcomes = bytearray(n)
        values: list[dict[int, int]] = [{} for _ in range(stages)]
        details: dict[int, Detail] = {}
        lengths: dict[int, int] = {}
        missing: list[int] = []
        flight = self.core.flights[command.batch_id]
        parts = flight.parts
        for entry in range(ran):
            position, stage = divmod(entry, stages)
            node_id, index = command.item(entry)
            if stage and position not in values[stage - 1]:
                continue  # the stage before has no result
            if entry in self.told.get(command.batch_id, ()):
                outcomes[entry] = Outcome.TIMED_OUT
                continue
            if position in parts[stage].settled:  # given up as abandoned: nobody knows what its code did
                outcomes[entry] = Outcome.CANCELLED
                continue
            act = self.act(command, entry)
            outcomes[entry] = act.outcome
            wanted = self.core.nodes[node_id].known.cancel_wanted
            if cancelled and entry == ran - 1 and index in wanted:
                outcomes[entry] = Outcome.CANCELLED
            elif input_lost and entry == ran - 1:
                outcomes[entry] = Outcome.INPUT_LOST
                missing = self.inputs_of(node_id, index)
                if not missing:  # nobody knows why: it is charged
                    self.comparable = self.comparable and self.tame
            elif command.permit and entry >= self.begun.get(command.batch_id, 0):
                outcomes[entry] = Outcome.REFUSED
            elif act.outcome in HAS_RESULT:
                given = values[stage - 1][position] if stage else None
                values[stage][position] = self.where.value(node_id, index, given)
                if act.length is not None:
                    lengths[entry] = act.length
                self.made[node_id, index] = values[stage][position]
            elif act.message:
                details[entry] = Detail(
                    message=act.message, retriable=act.retriable, after_seconds=act.after_seconds
                )
        stored: list[Stored | None] = []
        for stage, node_id in enumerate(command.node_ids):
            self.results[command.batch_id, stage] = values[stage]
            url = f"memory:{command.batch_id}/{stage}"
            if self.steps[node_id].persist:
                self.files[url] = values[stage]
            stored.append(Stored(url, "") if self.steps[node_id].persist else None)
        columns = array("d", [0.01]) * n
        table = Table(
            command.batch_id, f"{command.batch_id}", "w", self.now, bytes(outcomes), columns, columns,
            details=details, lengths=lengths, stored=tuple(stored) if any(stored) else (),
            missing=missing,
        )  # fmt: skip
        del self.batches[command.batch_id]
        self.handle(BatchFinished(table))

    def inputs_of(self, node_id: int, index: int) -> list[int]:
        """Return the batches that have results which an item reads."""
        found: set[int] = set()
        for edge in self.core.nodes[node_id].ins:
            found.update(
                edge.up.batches[i] for i in edge.read_by((index,)) if edge.up.states[i] == State.COMPLETED
            )
        return sorted(found - {-1})

    @precondition(lambda self: self.results)
    @rule(picks=st.lists(SEEDS, min_size=1, max_size=4))
    def lose_results(self, picks: list[int]) -> None:
        """A worker dies that has results of batches which have ended."""
        ended = sorted({batch_id for batch_id, _ in self.results})
        self.comparable = self.comparable and self.tame
        self.handle(ResultsLost(tuple({ended[pick % len(ended)] for pick in picks}), "w has died"))

    def stored_nodes(self) -> list[Node]:
        """Return the nodes whose files somebody may yet read: not of called tasks, see `crash`."""
        nodes = self.core.nodes.values()
        return [node for node in nodes if node.known.recovered and node.spec.runner == MAIN]

    @precondition(lambda self: self.stored_nodes())
    @rule(pick=SEEDS)
    def lose_files(self, pick: int) -> None:
        """Somebody has read a file in storage and found it damaged."""
        nodes = self.stored_nodes()
        node = nodes[pick % len(nodes)]
        urls = sorted({file.url for file, _ in node.known.recovered.values()})
        self.comparable = self.comparable and self.tame
        self.handle(FilesLost(node.node_id, frozenset({urls[pick % len(urls)]}), "it is damaged"))

    @precondition(lambda self: any(node.holes for node in self.core.nodes.values()))
    @rule(pick=SEEDS)
    def want_results(self, pick: int) -> None:
        """User code asks for results that are gone."""
        nodes = [node for node in self.core.nodes.values() if node.holes and not node.dropped]
        if nodes:
            node = nodes[pick % len(nodes)]
            self.handle(ResultsWanted(node.node_id, [i for i in range(node.width) if node.gone(i)]))

    @precondition(lambda self: self.batches)
    @rule(pick=SEEDS, suspect=st.booleans())
    def lose(self, pick: int, suspect: bool) -> None:
        """A worker dies with a batch."""
        command = self.choose(pick)
        del self.batches[command.batch_id]
        self.handle(BatchLost(command.batch_id, "w has died", suspect))
        self.comparable = self.comparable and self.tame

    @precondition(lambda self: self.batches and not self.tame)
    @rule(pick=SEEDS)
    def reject(self, pick: int) -> None:
        """A batch cannot be sent."""
        command = self.choose(pick)
        del self.batches[command.batch_id]
        self.comparable = False
        self.handle(BatchRejected(command.batch_id, Detail(message="cannot be pickled", retriable=False)))

    @precondition(lambda self: self.past)
    @rule(pick=SEEDS)
    def stale(self, pick: int) -> None:
        """Something that was heard before is heard again."""
        event = self.past[pick % len(self.past)]
        if isinstance(event, BatchFinished | BatchLost | BatchProgress | BatchStarted | BatchRejected | Tick):
            batch_id = event.table.batch_id if isinstance(event, BatchFinished) else None
            states = {i: bytes(node.states) for i, node in self.core.nodes.items()}
            self.handle(event)
            if batch_id is not None:
                assert states == {i: bytes(node.states) for i, node in self.core.nodes.items()}

    # --- rules: limits and slots ----------------------------------------------------------------

    @precondition(lambda self: self.asks)
    @rule(pick=SEEDS)
    def answer_leases(self, pick: int) -> None:
        """The store grants leases, or says who has them."""
        ids = sorted(self.asks)
        self.grant(self.asks[ids[pick % len(ids)]])

    def grant(self, ask: AskLeases) -> bool:
        taken = {
            name: ["other"] for name in ask.names
            if sum(name in names for names in self.held.values()) >= self.limits[name]
        }  # fmt: skip
        if not taken:
            del self.asks[ask.batch_id]
            self.held[ask.batch_id] = ask.names
        self.handle(LeasesAnswered(ask.batch_id, not taken, taken))
        return not taken

    @rule(batch_id=st.integers(0, 30))
    def grant_what_nobody_wants(self, batch_id: int) -> None:
        """A grant that crossed with a withdrawal is given back."""
        flight = self.core.flights.get(batch_id)
        if flight is not None and flight.over and not flight.submitted:
            commands = self.handle(LeasesAnswered(batch_id, True, {}))
            assert commands == [WithdrawLeases((batch_id,))]

    @precondition(lambda self: self.batches)
    @rule(pick=SEEDS, lend=st.booleans())
    def lend(self, pick: int, lend: bool) -> None:
        """Code in a batch begins or ends to wait for other task runs."""
        batch_id = self.choose(pick).batch_id
        self.handle(SlotLent(batch_id) if lend else SlotReclaimed(batch_id))

    # --- rules: people --------------------------------------------------------------------------

    @rule()
    def pause(self) -> None:
        """Somebody pauses the run."""
        self.handle(PauseRequested())

    @rule()
    def resume(self) -> None:
        """Somebody resumes it."""
        self.handle(ResumeRequested())

    @precondition(lambda self: not self.tame and self.steps)
    @rule(pick=SEEDS, indices=st.none() | st.frozensets(st.integers(0, 7), max_size=4))
    def cancel(self, pick: int, indices: frozenset[int] | None) -> None:
        """Somebody cancels a node or items of it."""
        self.comparable = False
        self.handle(CancelRequested(sorted(self.steps)[pick % len(self.steps)], indices))

    @precondition(lambda self: not self.tame)
    @rule(really=st.integers(0, 9))
    def end_run(self, really: int) -> None:
        """Somebody cancels the run, or it is interrupted. Not often: little happens afterwards."""
        if really < 2:
            self.comparable = False
            self.handle(CancelRequested() if really else RunInterrupted("SIGTERM"))

    @rule(lost=st.sets(st.integers(0, 5)))
    def crash(self, lost: Collection[int] = ()) -> None:
        """The flow's process dies; another one takes over what the journal tells.

        Args:
            lost: nodes whose files are of no use any more. Of a task that is called the session finds out before it
                submits it (`Inline.take_over`): the task runs again. Of others, whoever reads them does.
        """
        if self.core.over or self.core.cancelled or not self.steps:
            return
        self.first_batch_id = max(self.core.flights, default=self.first_batch_id - 1) + 1
        for node_id, step in self.steps.items():
            found = self.replayed.recovered(node_id)
            if step.spec.runner == INLINE and node_id in lost:
                found = replace(found, results={}, started=found.started | found.results.keys())
            if found.started and not step.spec.policy.rerun_on_loss:
                self.comparable = False
            self.steps[node_id] = replace(step, spec=replace(step.spec, recovered=found))
        self._begin()
        self.handle(LimitsKnown(self.known))
        for step in self.steps.values():
            self.handle(NodeSubmitted(step.spec))

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        """State, counters, queues and journal agree."""
        invariants.check(self.core)
        self.replayed.check(self.core)

    def teardown(self) -> None:
        """Let everything come to its end: each item ends once, and as the reference interpreter says."""
        while self.planned:
            self.submit()
        self.handle(ResumeRequested())
        self.handle(SlotsChanged(3))
        for _ in range(3000):
            if self.batches:
                command = self.batches[min(self.batches)]
                if command.permit:
                    for _ in command.indices:
                        self.ask_permit(sorted(
                            i for i, c in self.batches.items() if c.permit
                        ).index(command.batch_id), False, False)  # fmt: skip
                self.end(command, len(command.indices) * len(command.node_ids), cancelled=True)
            elif not any(self.grant(ask) for ask in list(self.asks.values())):
                due = self.core.next_timer()
                if due is None:
                    break
                self.now = max(self.now, due)
                self.handle(Tick())
            self.all_is_well()
        for node in self.core.nodes.values():
            assert node.opened
            for index in range(node.width):
                assert node.state(index) in TERMINAL, "\n".join(self.core.story(node.node_id, index))
                assert self.replayed.items[node.node_id][index].terminal == 1
        assert not self.asks
        assert not self.held
        assert self.core.at_engine == self.core.asking == 0
        if self.comparable:
            assert self.where.ends() == reference(list(self.steps.values()))
        if self.core.cancelled:
            assert all(n.counts[State.PENDING] == 0 for n in self.core.nodes.values())


def walk(seed: int, steps: int) -> CoordinatorMachine:
    """Take random steps, most of them of the kind that brings a flow forward, then let it end."""
    rng = random.Random(seed)
    machine = CoordinatorMachine()
    machine.plan(rng.randrange(2**32), rng.random() < 0.5)
    machine.submit()
    machine.change_slots(3)

    def pick() -> int:
        return rng.randrange(2**32)

    def coin() -> bool:
        return rng.random() < 0.5

    def some_items() -> frozenset[int] | None:
        return None if rng.random() < 0.3 else frozenset(rng.choices(range(8), k=rng.randint(1, 3)))

    moves: list[tuple[int, bool, Callable[[], Any], Callable[[], Any]]] = [
        (6, False, lambda: machine.planned, machine.submit),
        (1, False, lambda: True, lambda: machine.change_slots(rng.randrange(5))),
        (1, False, lambda: True, lambda: machine.know_limits({"db", "api"} if coin() else {"db"})),
        (4, False, lambda: True, lambda: machine.wait(rng.choice((0.0, 0.3, 1.0, 6.0)))),
        (9, False, lambda: machine.batches, lambda: machine.start(pick(), rng.random() < 0.2)),
        (6, False, lambda: machine.batches, lambda: machine.progress(pick(), rng.randrange(7), coin())),
        (9, False, lambda: any(c.permit for c in machine.batches.values()),
         lambda: machine.ask_permit(pick(), coin(), coin())),
        (9, False, lambda: machine.batches,
         lambda: machine.finish(pick(), rng.randrange(7), coin(), rng.random() < 0.2)),
        (3, False, lambda: machine.batches, lambda: machine.lose(pick(), coin())),
        (1, True, lambda: machine.batches, lambda: machine.reject(pick())),
        (4, False, lambda: machine.past, lambda: machine.stale(pick())),
        (9, False, lambda: machine.asks, lambda: machine.answer_leases(pick())),
        (2, False, lambda: True, lambda: machine.grant_what_nobody_wants(rng.randrange(30))),
        (2, False, lambda: machine.batches, lambda: machine.lend(pick(), coin())),
        (1, False, lambda: True, machine.pause),
        (2, False, lambda: True, machine.resume),
        (3, True, lambda: machine.steps, lambda: machine.cancel(pick(), some_items())),
        (1, True, lambda: rng.random() < 0.1, lambda: machine.end_run(rng.randrange(2))),
        (1, False, lambda: rng.random() < 0.3, lambda: machine.crash(rng.sample(range(6), rng.randrange(3)))),
    ]  # fmt: skip
    weights = [weight for weight, *_ in moves]
    for _ in range(steps):
        _, wild, possible, move = rng.choices(moves, weights)[0]
        if possible() and not (wild and machine.tame):
            move()
            machine.all_is_well()
    machine.teardown()
    return machine


def test_a_called_task_runs_again_whose_file_was_lost() -> None:
    """Found by Hypothesis: the file of a task that was called, and of which others read, is lost in a crash."""
    machine = CoordinatorMachine()
    machine.plan(3678436, True)
    machine.submit()
    machine.submit()
    called = machine.steps[1].spec
    assert called.runner == INLINE
    machine.finish(0, 6, False, False)
    assert machine.replayed.recovered(called.node_id).results
    machine.crash(lost=(called.node_id,))
    assert machine.core.nodes[called.node_id].unfinished
    machine.teardown()
    assert machine.comparable  # teardown has compared it, then


LONG = os.environ.get("MILLRACE_SIMULATION", "") == "long"


@pytest.mark.parametrize("block", range(40 if LONG else 4))
def test_random_walks_end_well(block: int) -> None:
    """Long sequences of events, most of them plausible, reach corners that short arbitrary ones do not."""
    compared = 0
    for seed in range(100 * block, 100 * (block + 1)):
        try:
            compared += walk(seed, 80).comparable
        except Exception as error:
            error.add_note(f"walk({seed}, 80)")
            raise
    assert compared > 20


TestCoordinator = CoordinatorMachine.TestCase
TestCoordinator.settings = settings(
    max_examples=2000 if LONG else 60,
    stateful_step_count=60 if LONG else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
