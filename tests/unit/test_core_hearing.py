"""Live events are hints, tables are the record; what is old is dropped and what runs twice is recorded."""

from __future__ import annotations

from orchestration.core.commands import CancelBatches
from orchestration.core.events import PermitAsked, SlotLent, SlotReclaimed
from orchestration.core.journal import AttemptsEnded, LogWritten, Moved, StartRepeated
from orchestration.core.specs import INLINE, Policy
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import BatchFinished, BatchLost, BatchProgress, BatchStarted, Detail, LogLine, Outcome

THREE = Policy(batch=3)


def repeats(run: HandDriven) -> list[str]:
    return [entry.execution_id for entry in run.all_said(StartRepeated)]


def test_hints_show_what_runs() -> None:
    """Started: the first item runs. Progress: all up to the one that runs now have started."""
    run = HandDriven(slots=1)
    node = run.add(width=3, policy=THREE)
    run.start()
    assert run.states(node) == [State.RUNNING, State.SUBMITTED, State.SUBMITTED]
    run.progress(0, 1)
    run.progress(0, 0)
    run.progress(0, 77)
    assert run.states(node) == [State.RUNNING] * 3
    started = [move for move in run.all_said(Moved) if move.state is State.RUNNING]
    assert [(list(move.indices), move.worker) for move in started] == [([0], "w"), ([1], "w"), ([2], "w")]


def test_without_hints_the_end_is_the_same() -> None:
    """A table alone is enough."""
    run = HandDriven()
    node = run.add()
    run.end()
    assert run.state(node) is State.COMPLETED


def test_a_hint_that_comes_with_its_table_says_nothing() -> None:
    """A short batch is at its end when its start is heard: one entry has both times. Other executions are recorded."""
    run = HandDriven(slots=2)
    nodes = run.add(), run.add()
    table, other = (run.table(run.batches[batch_id]) for batch_id in (0, 1))
    hints = BatchStarted(0, table.execution_id, "w", 0.0), BatchStarted(1, "again", "w", 0.0)
    said = run.core.handle_all((*hints, BatchFinished(table), BatchFinished(other)), run.now)
    moves = [entry.node_id for entry in said if isinstance(entry, Moved) and entry.state is State.RUNNING]
    assert moves == [nodes[1]]
    assert [entry.execution_id for entry in said if isinstance(entry, StartRepeated)] == [other.execution_id]
    assert [run.state(node) for node in nodes] == [State.COMPLETED] * 2


def test_messages_of_ended_batches_change_nothing() -> None:
    """Repeated tables, losses and hints of a batch that has ended are dropped without a word."""
    run = HandDriven()
    node = run.add()
    table = run.table(run.batches[0])
    run.tell_finished(table)
    failed = run.table(run.all_batches()[0], Outcome.FAILED)
    for event in (
        BatchFinished(table),
        BatchFinished(failed),
        BatchLost(0, "late"),
        BatchStarted(0, "x0", "w", 0.0),
        BatchProgress(0, "x0", "w", 0, 0.0),
        BatchLost(99, "never heard of"),
        BatchStarted(99, "x", "w", 0.0),
    ):
        assert run.tell(event) == []
    assert run.state(node) is State.COMPLETED


def test_the_table_of_a_lost_batch_is_old() -> None:
    """A worker that was given up comes back: its items run elsewhere by now, and that is what counts."""
    run = HandDriven()
    node = run.add()
    run.start()
    table = run.table(run.batches[0])
    run.lose()
    assert run.tell_finished(table) == []
    assert run.state(node) is State.SUBMITTED
    run.end()
    assert run.core.nodes[node].location(0) == (1, 0)


def test_a_second_execution_is_recorded_once() -> None:
    """However often it is heard of, before the end and after."""
    run = HandDriven()
    node = run.add()
    run.start()
    run.start(execution="twin")
    run.start(execution="twin")
    run.end()
    run.tell(BatchStarted(0, "twin", "w", 0.0))
    run.tell(BatchStarted(0, "third", "w", 0.0))
    assert repeats(run) == ["twin", "third"]
    assert run.state(node) is State.COMPLETED


def test_the_first_table_counts_whichever_execution_it_is_of() -> None:
    """The engine ran the batch twice and the second was quicker: its result is the one that is there."""
    run = HandDriven()
    run.add()
    run.start(execution="first")
    run.end(execution="second")
    assert repeats(run) == ["second"]
    assert [end.execution_id for end in run.all_said(AttemptsEnded)] == ["second"]


def test_a_late_start_of_a_batch_that_was_given_up_is_recorded() -> None:
    """It was taken for unstarted and runs again under the same attempt: so this start is a repeated one."""
    run = HandDriven(slots=1)
    run.add(width=3, policy=THREE)
    run.lose(suspect=False)
    run.tell(BatchStarted(0, "zombie", "w", 0.0))
    assert repeats(run) == ["zombie"]


def test_an_item_that_could_not_be_stopped_is_settled_early() -> None:
    """Timed out and deaf: it fails now, what has ended is waited for, the table changes nothing."""
    run = HandDriven(slots=1)
    node = run.add(width=3, policy=THREE)
    detail = Detail(message="too slow", abandoned=True)
    run.progress(0, 1, outcomes=bytes([Outcome.COMPLETED, Outcome.TIMED_OUT]), details={1: detail})
    assert run.states(node) == [State.RUNNING, State.FAILED, State.READY]
    assert run.core.nodes[node].names[1] == "TimedOut"
    run.progress(0, 1, outcomes=bytes([Outcome.COMPLETED, Outcome.TIMED_OUT]), details={1: detail})
    run.end([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.COMPLETED])
    assert run.states(node) == [State.COMPLETED, State.FAILED, State.SUBMITTED]
    assert run.core.nodes[node].location(1) is None
    assert run.core.nodes[node].location(2) is None
    assert len(run.all_said(AttemptsEnded)) == 2


def test_what_follows_an_item_that_could_not_be_stopped_runs_elsewhere() -> None:
    """It comes back unstarted, without its attempt being spent; what was cancelled meanwhile ends as cancelled."""
    run = HandDriven(slots=2)
    node = run.add(width=4, policy=Policy(batch=4))
    run.cancel(node, 3)
    run.progress(0, 0, outcomes=bytes([Outcome.TIMED_OUT]), details={0: Detail(abandoned=True)})
    assert run.states(node) == [State.FAILED, State.SUBMITTED, State.SUBMITTED, State.CANCELLED]
    assert [list(batch.indices) for batch in run.batches.values()] == [[0, 1, 2, 3], [1, 2]]
    assert [run.attempts(node, i) for i in range(4)] == [1, 1, 1, 0]
    run.end(batch_id=1)
    assert run.states(node) == [State.FAILED, State.COMPLETED, State.COMPLETED, State.CANCELLED]


def test_a_worker_that_hangs_is_ended() -> None:
    """The engine is asked to end it: what the batch had done is lost with it, and not failed."""
    run = HandDriven(slots=2)
    node = run.add(width=2, policy=Policy(batch=2))
    abandoned = {1: Detail(abandoned=True)}
    run.progress(0, 1, outcomes=bytes([Outcome.COMPLETED, Outcome.TIMED_OUT]), details=abandoned)
    assert run.all_said(CancelBatches) == [CancelBatches((0,), force=True)]
    run.lose(batch_id=0)
    run.wait(0)
    assert run.states(node) == [State.SUBMITTED, State.FAILED]


def test_a_worker_with_what_must_not_run_twice_is_not_ended() -> None:
    """What has ended before in a batch that hangs would be lost with its worker: it is waited for."""
    run = HandDriven(slots=1)
    node = run.add(width=2, policy=Policy(batch=2, rerun_on_loss=False))
    for entry in range(2):
        run.tell(PermitAsked(f"c{entry}", 0, "x0", entry))
    abandoned = {1: Detail(abandoned=True)}
    run.progress(0, 1, outcomes=bytes([Outcome.COMPLETED, Outcome.TIMED_OUT]), details=abandoned)
    assert not run.all_said(CancelBatches)
    run.end([Outcome.COMPLETED, Outcome.TIMED_OUT])
    assert run.states(node) == [State.COMPLETED, State.FAILED]


def test_an_abandoned_item_that_was_retried_keeps_the_result_of_its_retry() -> None:
    """The old batch's table comes after the retry has completed: it does not say where the result is."""
    run = HandDriven(slots=2)
    node = run.add(width=3, policy=Policy(batch=3, retries=1))
    detail = Detail(abandoned=True)
    ended = bytes([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.TIMED_OUT])
    run.progress(0, 2, outcomes=ended, details={2: detail})
    run.end(batch_id=1)
    run.end([Outcome.COMPLETED] * 3, batch_id=0)
    assert run.states(node) == [State.COMPLETED] * 3
    assert [run.core.nodes[node].location(i) for i in range(3)] == [(0, 0), (0, 1), (1, 0)]


def test_a_hint_that_makes_no_sense_is_harmless() -> None:
    """Details without outcomes, or of items that have not failed, are not acted upon."""
    run = HandDriven()
    node = run.add()
    detail = Detail(abandoned=True)
    run.progress(0, 0, details={0: detail})
    run.progress(0, 0, outcomes=bytes([Outcome.COMPLETED]), details={0: detail})
    assert run.state(node) is State.RUNNING


def test_log_lines_are_journalled_once_and_before_the_end() -> None:
    """Lines sent live and again with the table are written once; none comes after its task run's end."""
    run = HandDriven()
    run.add()
    lines = [LogLine(k, 0, 0, 0.0, 20, "log", f"line {k}") for k in range(3)]
    run.tell(BatchProgress(0, "x0", "w", 0, 0.0, logs=lines[:2]))
    batch = run.batches[0]
    table = run.table(batch)
    object.__setattr__(table, "logs", lines)
    run.tell_finished(table)
    written = run.all_said(LogWritten)
    assert [line.message for entry in written for line in entry.lines] == ["line 0", "line 1", "line 2"]
    kinds = [type(command) for command in run.said]
    assert kinds.index(AttemptsEnded) > max(k for k, kind in enumerate(kinds) if kind is LogWritten)


def test_a_lent_slot_is_free() -> None:
    """Code that waits for other task runs makes room for them; waits in waits count once."""
    run = HandDriven(slots=1)
    parent = run.add()
    child = run.add(parent=(parent, 0))
    assert run.state(child) is State.READY
    run.tell(SlotLent(0))
    assert run.state(child) is State.SUBMITTED
    run.tell(SlotLent(0))
    run.tell(SlotReclaimed(0))
    assert run.core.at_engine == 1
    run.tell(SlotReclaimed(0))
    run.tell(SlotReclaimed(0))
    assert run.core.at_engine == 2
    other = run.add()
    run.end(batch_id=1)
    assert run.state(other) is State.READY
    run.end(batch_id=0)
    assert run.state(other) is State.SUBMITTED


def test_a_batch_that_ends_while_its_slot_is_lent() -> None:
    """The slot is not freed twice."""
    run = HandDriven(slots=1)
    run.add()
    run.tell(SlotLent(0))
    run.lose()
    assert run.core.at_engine == 1
    run.tell(SlotReclaimed(0))
    assert run.core.at_engine == 1


def test_a_directly_called_task_needs_no_slot() -> None:
    """It runs in the thread that called it, on a full cluster and without one; it has no slot to lend."""
    run = HandDriven(slots=0)
    node = run.add(runner=INLINE)
    assert run.state(node) is State.SUBMITTED
    run.tell(SlotLent(0))
    assert run.core.at_engine == 0
    run.end()
    assert run.state(node) is State.COMPLETED


def test_the_window_follows_the_slots() -> None:
    """No more batches go out than there are slots, however that number changes."""
    run = HandDriven(slots=0)
    run.add(width=10, policy=Policy(batch=1))
    assert len(run.batches) == 0
    run.tell_slots(3)
    assert len(run.batches) == 3
    run.tell_slots(1)
    run.end()
    run.end()
    assert len(run.batches) == 1
    run.end()
    assert len(run.batches) == 1


def test_short_items_are_prefetched() -> None:
    """Once items are known to be short, a slot finds its next batch waiting."""
    run = HandDriven(slots=1, prefetch=2)
    run.add(width=100)
    assert len(run.batches) == 1
    run.end(seconds=0.001)
    assert len(run.batches) == 2
