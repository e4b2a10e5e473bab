"""Files in result storage that are gone or damaged: what they held is made again where something needs it."""

from __future__ import annotations

from orchestration.core.events import FilesLost, LimitsKnown, ResultsWanted
from orchestration.core.journal import AttemptsEnded
from orchestration.core.specs import Dependency, Policy, Reach, Recovered
from orchestration.core.states import State
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome, Stored

ONCE = Policy(rerun_on_loss=False)
FILE, OTHER = Stored("file:///r/0", "digest"), Stored("file:///r/1", "digest")
BAD = "the result file file:///r/0 is damaged"


def all_of(node: int) -> Dependency:
    return Dependency(node, Reach.ALL)


def same_of(node: int) -> Dependency:
    return Dependency(node, Reach.ALIGNED)


def in_file(width: int, file: Stored = FILE) -> Recovered:
    """What an earlier process has left: one file with the results of all items."""
    return Recovered(results={i: (file, i) for i in range(width)}, width=width)


def lose_file(run: HandDriven, node: int, file: Stored = FILE) -> None:
    run.tell(FilesLost(node, frozenset({file.url}), BAD))


def test_a_reader_that_finds_a_file_damaged_waits_for_what_was_in_it() -> None:
    """Only what it reads is made again; the journal and the reader's story say what was wrong with which file."""
    run = HandDriven(slots=1)
    up = run.add(width=4, policy=Policy(batch=4), recovered=in_file(4))
    down = run.add(Dependency(up, Reach.SOME, (1, 2)), policy=Policy(retries_on_loss=0))
    run.end(Outcome.INPUT_LOST, missing_files=(FILE.url,))
    assert run.state(down) is State.PENDING
    assert any("was lost" in line and "made again" in line for line in run.core.story(down, 0))
    (batch,) = run.batches.values()
    assert (batch.node_id, list(batch.indices)) == (up, [1, 2])
    run.end()
    run.end()
    assert (run.state(down), run.attempts(down)) == (State.COMPLETED, 1)
    (again,) = [end for end in run.all_said(AttemptsEnded) if end.remade]
    assert "had to be made again" in again.reason
    assert run.core.nodes[up].gone(3)
    assert run.core.nodes[up].stored.get(3) is None


def test_other_files_stay_what_they_were() -> None:
    """A file that nobody complains of is read as before; a complaint about an unknown one changes nothing."""
    run = HandDriven(slots=1)
    both = Recovered(results={0: (FILE, 0), 1: (OTHER, 0)}, width=2)
    up = run.add(width=2, recovered=both)
    lose_file(run, up, Stored("file:///elsewhere", ""))
    lose_file(run, up)
    node = run.core.nodes[up]
    assert [node.stored.get(i) for i in range(2)] == [None, (OTHER, 0)]
    assert [node.gone(i) for i in range(2)] == [True, False]
    assert both.results[0] == (FILE, 0)


def test_user_code_finds_a_file_gone() -> None:
    """What it asked for is made again, and is at the engine then; a late complaint about the old file is no news."""
    run = HandDriven(slots=1)
    node = run.add(recovered=in_file(1))
    lose_file(run, node)
    run.tell(ResultsWanted(node, [0]))
    run.end(stored=OTHER)
    lose_file(run, node)
    assert run.core.nodes[node].location(0) == (0, 0)
    assert run.core.nodes[node].stored[0] == (OTHER, 0)


def test_engine_and_storage_lose_it_one_after_the_other() -> None:
    """A result that the engine has lost is read from its file; when that is gone, too, it is made again."""
    run = HandDriven(slots=1)
    up = run.add(width=2, policy=Policy(batch=2))
    run.end(stored=FILE)
    run.lose_results(0)
    down = run.add(all_of(up))
    run.end(Outcome.INPUT_LOST, missing_files=(FILE.url,))
    run.end(stored=OTHER)
    run.lose_results(2)
    run.tell(FilesLost(up, frozenset({OTHER.url}), BAD))
    run.end(Outcome.INPUT_LOST, missing_files=(OTHER.url,))
    run.end()
    run.end()
    assert run.state(down) is State.COMPLETED
    assert [run.attempts(up, i) for i in range(2)] == [3, 3]


def test_what_must_not_run_twice_is_not_made_again() -> None:
    """Its readers are Crashed, and say which file it was, and why that is the end."""
    run = HandDriven(slots=1)
    up = run.add(policy=ONCE, recovered=in_file(1))
    down = run.add(all_of(up))
    lose_file(run, up)
    run.end(Outcome.INPUT_LOST, missing_files=(FILE.url,))
    assert not run.batches
    assert (run.state(up), run.state(down)) == (State.COMPLETED, State.CRASHED)
    assert BAD in run.reason(down)
    assert "rerun_on_loss=False" in run.reason(down)


def test_a_file_and_the_files_above_it_are_lost() -> None:
    """What is to be made again finds its own inputs damaged: they are made again before it."""
    run = HandDriven(slots=1)
    top = run.add(recovered=in_file(1))
    middle = run.add(all_of(top), recovered=in_file(1, OTHER))
    down = run.add(all_of(middle))
    run.end(Outcome.INPUT_LOST, missing_files=(OTHER.url,))
    run.end(Outcome.INPUT_LOST, missing_files=(FILE.url,))
    made = [batch.node_id for batch in run.all_batches()]
    run.finish_all()
    assert [*made, *[b.node_id for b in run.all_batches()[len(made) :]]] == [down, middle, top, middle, down]
    assert run.state(down) is State.COMPLETED


def test_it_is_made_again_when_what_it_is_made_from_has_ended_this_time() -> None:
    """Its upstream was not stored, and runs anew in this process: to make it again before that is not possible."""
    run = HandDriven(slots=4)
    up = run.add(width=2, policy=Policy(batch=1))
    middle = run.add(same_of(up), width=2, policy=Policy(batch=1), recovered=in_file(2))
    down = run.add(same_of(middle), width=2, policy=Policy(batch=1))
    first = {b.node_id: b.batch_id for b in run.batches.values() if list(b.indices) == [0]}
    second = {b.node_id: b.batch_id for b in run.batches.values() if list(b.indices) == [1]}
    run.end(Outcome.INPUT_LOST, first[down], missing_files=(FILE.url,))
    run.end(Outcome.INPUT_LOST, second[down], missing_files=(FILE.url,))
    assert {b.node_id for b in run.batches.values()} == {up}
    run.end(batch_id=second[up])
    assert {(b.node_id, *b.indices) for b in run.batches.values()} == {(up, 0), (middle, 1)}
    run.finish_all()
    assert run.states(down) == [State.COMPLETED, State.COMPLETED]


def test_what_gathers_is_made_again_when_all_of_its_upstream_has_ended() -> None:
    """The same where it reads a whole node, one whose width is not known yet."""
    run = HandDriven(slots=4)
    source = run.add()
    up = run.add(Dependency(source, Reach.ELEMENTS, (0,)), width=None, policy=Policy(batch=1))
    middle = run.add(all_of(up), recovered=in_file(1))
    lose_file(run, middle)
    run.tell(ResultsWanted(middle, [0]))
    assert {b.node_id for b in run.batches.values()} == {source}
    run.end(lengths={0: 2})
    run.end()
    assert {b.node_id for b in run.batches.values()} == {up}
    run.end()
    assert {b.node_id for b in run.batches.values()} == {middle}
    run.end()
    assert run.core.nodes[middle].location(0) is not None


def test_what_it_was_made_from_fails_this_time() -> None:
    """It cannot be made again then, and who reads it says why; its neighbour can."""
    run = HandDriven(slots=4)
    up = run.add(width=2, policy=Policy(batch=1))
    middle = run.add(same_of(up), width=2, policy=Policy(batch=1), recovered=in_file(2))
    down = run.add(same_of(middle), width=2, policy=Policy(batch=2))
    reader = next(b.batch_id for b in run.batches.values() if b.node_id == down)
    run.end(Outcome.INPUT_LOST, reader, missing_files=(FILE.url,))
    run.end(Outcome.FAILED)
    run.finish_all()
    assert run.states(down) == [State.CRASHED, State.COMPLETED]
    assert "which it builds upon, is Failed now" in run.reason(down, 0)


def test_a_batch_that_waits_for_leases_is_taken_apart() -> None:
    """Its file is found damaged by somebody else before the store has answered: it waits without a lease."""
    run = HandDriven(slots=1)
    run.tell(LimitsKnown(frozenset({"db"})))
    up = run.add(recovered=in_file(1))
    down = run.add(all_of(up), tags=frozenset({"db"}))
    assert run.asks
    lose_file(run, up)
    assert not run.asks
    assert run.state(down) is State.PENDING
    run.end()
    (ask,) = run.asks
    run.answer(ask, granted=True)
    run.end()
    assert run.state(down) is State.COMPLETED
