"""The window of an item: interrupts arrive inside it, once, and never outside."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from runners.body import TaskBody
from runners.context import RunContext
from runners.execution import CancelInterrupt, Execution, GaveWay, Interrupt, TimeoutInterrupt, late_message
from runners.messages import Batch, BatchProgress, Outcome, Payload, Stage
from runners.monitor import Monitor, look_after

PATIENCE = 30.0


class Nowhere:
    """A channel that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def call(self, *_: Any) -> bytes:
        return b""


def make(items: int = 3, stages: int = 1, batch_id: int = 1) -> Execution:
    stage = Stage(0, "t", Payload(), Payload(), [1] * items)
    batch = Batch("r", batch_id, range(items), (stage,) * stages, Payload())
    execution = Execution(batch, RunContext("r", "", ""), Nowhere(), in_process=True)
    execution.bodies = [TaskBody(len, "t")] * stages
    return execution


@pytest.fixture
def execution() -> Execution:
    """Of a batch of three items, in this thread."""
    return make()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """`elsewhere(f)` calls f in another thread and returns its value."""

    def call(f: Callable[[], Any]) -> Any:
        box: list[Any] = []
        thread = threading.Thread(target=lambda: box.append(f()))
        thread.start()
        thread.join(PATIENCE)
        return box[0]

    return call


def told(execution: Execution) -> int:
    """Return how many lines the next live event has."""
    event = execution.progress()
    assert event is not None
    return len(event.logs)


def work(steps: int) -> int:
    """Run bytecodes, at each of which an exception may arrive."""
    for _ in range(steps):
        pass
    return steps


def busy() -> None:
    """Run bytecodes until interrupted."""
    for _ in range(10**9):
        pass


def test_an_item_is_timed(execution: Execution) -> None:
    """Offset and duration are noted, and the value of what ran is returned."""
    assert execution.window(1, None, lambda: "value") == ("value", True)
    assert execution.offsets[1] > 0
    assert execution.durations[1] > 0


def test_an_interrupt_stops_python_code(execution: Execution, elsewhere: Any) -> None:
    """A loop ends at its next bytecode, and where it was can be shown."""
    running = threading.Event()

    def interrupt() -> None:
        running.wait(PATIENCE)
        execution.interrupt(TimeoutInterrupt)

    threading.Thread(target=interrupt).start()
    assert execution.window(0, None, lambda: (running.set(), busy())) == (None, True)
    assert execution.interrupted is TimeoutInterrupt
    assert execution.stop is not None


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Threads take turns 5,000 times more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("many_switches")
def test_racing_interrupts_never_leak() -> None:
    """Thousands of interrupts at random moments around begin and end: none is seen outside `window`."""
    items, enough = 50_000, 2_000
    chance = random.Random(4)
    execution = make(items)
    over = threading.Event()

    def shoot() -> None:
        aim = random.Random(5)
        while not over.is_set():
            execution.interrupt(aim.choice([TimeoutInterrupt, CancelInterrupt]))
            work(aim.randrange(60))

    gunner = threading.Thread(target=shoot)
    gunner.start()
    hits = 0
    try:
        for entry in range(items):
            steps = chance.randrange(1_000)
            value, started = execution.window(entry, None, work, steps)
            work(20)  # an interrupt that is late would be raised here
            assert started
            assert value in (None, steps)
            hits += execution.interrupted is not None
            if hits == enough:
                break
    finally:
        over.set()
        gunner.join(PATIENCE)
    assert hits > 0
    assert not execution.interrupt(TimeoutInterrupt)


@pytest.mark.parametrize("call", ["begin", "end", "clock"])
def test_interrupts_at_the_edges(execution: Execution, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """One that lands while the window opens or closes, with the lock held or not, is spent there."""
    spent = []

    def interrupting(real: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            value = real(*args) if after else None
            if execution._open and not spent:
                spent.append(execution.entry)
                execution.interrupted = CancelInterrupt
                raise CancelInterrupt
            return value if after else real(*args)

        return wrapper

    monkeypatch.setattr(execution, call, interrupting(getattr(execution, call), call == "begin"))
    value, started = execution.window(0, None, int, 5)
    assert started
    assert spent == [0]
    assert value == (None if call == "begin" else 5)
    assert not execution._open
    assert not execution._lock.locked()
    assert not execution.interrupt(CancelInterrupt)


def test_only_one_interrupt(execution: Execution, elsewhere: Any) -> None:
    """An item is interrupted once; what it does afterwards is its own business."""

    def body() -> str:
        with pytest.raises(TimeoutInterrupt):
            elsewhere(lambda: execution.interrupt(TimeoutInterrupt)), busy()
        assert not elsewhere(lambda: execution.interrupt(CancelInterrupt))
        return "cleaned up"

    assert execution.window(0, None, body) == ("cleaned up", True)


def test_nothing_starts_after_a_cancellation(execution: Execution) -> None:
    """A cancellation between two items keeps the next from starting."""
    execution.cancel()
    assert execution.window(1, None, lambda: "ran") == (None, False)
    assert execution.durations[1] == 0


def test_listening_wakes_and_raises_at_the_end(execution: Execution, elsewhere: Any) -> None:
    """Who waits in C code is woken; the interrupt comes when the block is left, and not before."""
    steps = []

    def body() -> None:
        woken = threading.Event()
        with execution.listening(woken.set):
            elsewhere(lambda: execution.interrupt(CancelInterrupt))
            steps.append(woken.wait(PATIENCE))
            steps.append(sum(range(1_000)))
        steps.append("not reached")

    assert execution.window(0, None, body) == (None, True)
    assert steps == [True, 499_500]


def test_listening_nests(execution: Execution, elsewhere: Any) -> None:
    """An inner block raises on leaving, and the outer one keeps its own cleanup whole."""
    steps = []

    def body() -> None:
        with execution.listening(lambda: None):
            try:
                with execution.listening(lambda: None):
                    elsewhere(lambda: execution.interrupt(CancelInterrupt))
            finally:
                steps.append("whole")

    execution.window(0, None, body)
    assert steps == ["whole"]


def test_cleanup_after_an_interrupt_may_listen(execution: Execution, elsewhere: Any) -> None:
    """Code that cleans up after an interrupt can wait again without being thrown out once more."""

    def body() -> str:
        try:
            elsewhere(lambda: execution.interrupt(CancelInterrupt)), busy()
        except Interrupt:
            with execution.listening(lambda: None):
                return "cleaned"
        return "?"

    assert execution.window(0, None, body) == ("cleaned", True)


def test_who_waits_for_what_has_ended_beside_it_gives_way(execution: Execution) -> None:
    """It would be told when the batch ends, which waits for it. What has not ended here may end elsewhere."""
    reached: list[int] = []

    def body() -> None:
        execution.give_way(1, None)
        execution.give_way(0, (1, 2))
        reached.append(1)
        execution.give_way(0, (2, 0))
        reached.append(2)

    execution.outcomes[0] = Outcome.COMPLETED
    assert execution.window(1, None, body) == (None, True)
    assert isinstance(execution.stop, GaveWay)
    assert reached == [1]


def test_who_may_run_once_only_gives_no_way() -> None:
    execution = make()
    once = replace(execution.batch.stages[0], permit=True)
    execution.batch = replace(execution.batch, stages=(once,))
    execution.outcomes[0] = Outcome.COMPLETED
    execution.window(1, None, execution.give_way, 0, None)
    assert execution.stop is None


def test_a_window_for_each_timeout(execution: Execution, elsewhere: Any) -> None:
    """An item is interrupted when its own time is up, not by the limit of the one before."""
    execution.clock = iter([0.0, 0.1, 1.0, 2.0, 3.0, 4.0, 90.0, 91.0, 92.0]).__next__
    execution.begin(0, 0.5)
    assert not execution.expire()
    execution.end()
    execution.begin(1, None)
    assert not execution.expire()
    execution.end()
    execution.begin(2, 50.0)
    with execution.listening(lambda: None):
        pass
    with pytest.raises(TimeoutInterrupt), execution.listening(lambda: None):
        assert elsewhere(execution.expire)
    execution.end()


def test_abandoned_items(execution: Execution, elsewhere: Any) -> None:
    """Who ignores an interrupt beyond the grace is told as abandoned, once, and its window stays."""
    execution.begin(1, 0.0)
    execution.outcomes[0] = Outcome.COMPLETED

    def watch() -> list[bool]:
        early = execution.give_up(0.0)
        return [early, execution.expire(), *map(execution.give_up, [1e9, 0.0, 0.0])]

    with pytest.raises(TimeoutInterrupt), execution.listening(lambda: None):
        assert elsewhere(watch) == [False, True, False, True, False]
    event = execution.progress()
    assert event is not None
    assert event.outcomes == bytes([Outcome.COMPLETED, Outcome.TIMED_OUT])
    assert event.details[1].abandoned
    execution.end()


def test_progress_tells_what_is_new(execution: Execution) -> None:
    """Nothing new, nothing told; a detail is told once."""
    assert execution.progress() is not None
    assert execution.progress() is None
    execution.window(0, None, lambda: None)
    execution.outcomes[0] = Outcome.FAILED
    execution.details[0] = detail = object()
    first = execution.progress()
    execution.window(1, None, lambda: None)
    second = execution.progress()
    assert isinstance(first, BatchProgress)
    assert isinstance(second, BatchProgress)
    assert (first.details, second.details) == ({0: detail}, {})
    assert (first.outcomes, second.outcomes) == (bytes([Outcome.FAILED]), bytes([Outcome.FAILED]))


def test_too_many_lines(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines beyond the limit are forgotten when they have been told live, and counted."""
    monkeypatch.setattr("runners.execution.MAX_LOG_LINES", 10)
    for n in range(10):
        execution.log(0, 0.0, 20, "l", str(n))
    assert told(execution) == 10
    for n in range(5):
        execution.log(0, 0.0, 20, "l", str(n))
    table = execution.table(0.0)
    assert (len(table.logs), table.logs_dropped) == (10, 5)
    assert [line.seq for line in table.logs] == list(range(5, 15))
    assert told(execution) == 5


def test_a_cancellation_may_come_first() -> None:
    """The monitor remembers what it was asked to cancel before it began here."""
    monitor, early, other = Monitor(), make(batch_id=7), make(batch_id=8)
    assert monitor.cancel("r", [7]) == 0
    monitor.add(early)
    monitor.add(other)
    assert early.cancelled
    assert not other.cancelled
    assert monitor.cancel("r", [8, 9]) == 1
    assert other.cancelled
    monitor.remove(early)
    monitor.remove(other)


def test_looking_after_an_execution(execution: Execution) -> None:
    """A tick emits what is new."""
    look_after(execution)
    look_after(execution)
    assert len(execution.channel.events) == 1  # type: ignore[attr-defined]


def test_locks_after_a_fork(execution: Execution) -> None:
    """The child's copies of held locks are new ones."""
    monitor = Monitor()
    monitor.add(execution)
    execution._lock.acquire()
    execution._log_lock.acquire()
    monitor._reset()
    execution.log(0, 0.0, 20, "l", "not stuck")
    assert execution.window(0, None, lambda: 1) == (1, True)


@pytest.mark.parametrize(
    ("seconds", "stopped", "how"),
    [
        (0.51, True, ""),
        (3.0, True, " and could be stopped only after 3 s"),  # code in C had let nobody interrupt it
        (3.0, False, " and could not be stopped before it ended by itself, after 3 s"),
    ],
)
def test_how_late_an_item_was_stopped_is_told(seconds: float, stopped: bool, how: str) -> None:
    """What took much longer than its timeout says so, and whether it was stopped at all."""
    message = late_message(0.5, seconds, stopped=stopped)
    assert message == f"ran longer than its timeout of 0.5 s{how}"
