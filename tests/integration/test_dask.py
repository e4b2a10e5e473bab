"""The Dask runner on an own LocalCluster, driven through its port."""

from __future__ import annotations

import gc
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runners import DaskTaskRunner, codec, dask_recall, dask_results, get_dask_client
from runners.arguments import Aligned, Arguments
from runners.body import TaskBody
from runners.errors import (
    BackendError,
    ResultLostError,
    RunnerNotStartedError,
    RunnerOptionError,
    UserError,
)
from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchRejected,
    BatchStarted,
    Call,
    Outcome,
    ResultsLost,
    SlotsChanged,
)
from runners.worker import run_batch

pytestmark = pytest.mark.dask

DONE, UNSTARTED, FAILED = Outcome.COMPLETED, Outcome.UNSTARTED, Outcome.FAILED


@pytest.fixture(scope="module")
def runner() -> Iterator[DaskTaskRunner]:
    """Batches that wait are left where they are, as nobody submits them again here; but see the test that wants it."""
    made = DaskTaskRunner(cluster_kwargs={"n_workers": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask_recall, "UNHEARD_SECONDS", math.inf)
        yield made
        made.close()


@pytest.fixture(scope="module")
def port(runner: DaskTaskRunner, open_port: Callable[..., Any]) -> Any:
    return open_port(runner)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A path for which tasks wait: it comes into being when the test makes it, at its end at the latest."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def about(event: BatchStarted | BatchFinished) -> int:
    return event.batch_id if isinstance(event, BatchStarted) else event.table.batch_id


# --- tasks -------------------------------------------------------------------------------------------


def double(x: Any) -> Any:
    return 2 * x


def total(lists: Any) -> Any:
    return sum(sum(values) for values in lists)


def speak(x: Any) -> None:
    print("said", x)


def wait_for(path: Any) -> str:
    while not Path(path).exists():
        time.sleep(0.01)
    return "through"


def wait_as_told(lists: Any) -> None:
    while not Path(lists[0][0]).exists():
        time.sleep(0.01)


def pass_or_wait(path: Any) -> str:
    return "passed" if path is None else wait_for(path)


def wait_for_ever(_: Any) -> None:
    while True:
        time.sleep(0.01)


def die_at(x: Any) -> Any:
    if x == "die":
        os._exit(3)
    return x


def make_lock(x: Any) -> Any:
    return threading.Lock() if x == "bad" else x


def megabytes(n: Any) -> bytes:
    return bytes(n << 20)


def ask(payload: bytes) -> bytes:
    from runners.context import current_item

    item = current_item.get()
    assert item is not None
    reply: bytes = item.channel.call(item.batch_id, item.execution.execution_id, item.entry, "ask", payload)
    return reply


def one_thread(_: Any) -> int:
    with get_dask_client() as client:
        return client.submit(sum, [1, 2, 3]).result(timeout=30)


def log_much(_: Any) -> None:
    for i in range(3000):
        print(i, "x" * 200)


# --- results and records -----------------------------------------------------------------------------


def test_the_slots_are_told_first(port: Any) -> None:
    """Two workers of one thread each are two slots, and the runner says where they are."""
    assert port.until(lambda e: isinstance(e, SlotsChanged)).slots == 2
    assert "tcp://127.0.0.1" in port.runner.describe()


def test_a_batch_gives_a_table_and_results(port: Any) -> None:
    """The record says what happened to each item; results come when asked for."""
    batch = port.batch(double, [1, 2, 3])
    table = port.run(batch)
    assert table.outcomes == bytes([DONE] * 3)
    assert all(d >= 0 for d in table.durations)
    assert port.runner.fetch(batch.batch_id, 0, [2, 0]) == [6, 2]


def test_small_results_come_with_their_table(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are here when the batch has ended, and on the cluster for its readers; what is larger is fetched."""
    client, asked = port.runner._desk.client, []
    gather = client.gather
    monkeypatch.setattr(client, "gather", lambda futures: asked.append(futures) or gather(futures))
    small, large = port.batch(double, [7, 8]), port.batch(megabytes, [1])
    port.run(small)
    port.run(large)
    assert port.runner.fetch(small.batch_id, 0, [1, 0]) == [16, 14]
    assert asked == []
    assert len(port.runner.fetch(large.batch_id, 0, [0])[0]) == 1 << 20
    assert len(asked) == 1
    down = port.batch(total, inputs=[small])
    port.run(down)
    assert port.runner.fetch(down.batch_id, 0, [0]) == [30]


def test_upstream_batches_arrive_as_values(port: Any) -> None:
    """A fan-in of 300 batches is one task with 300 inputs that never pass through this process."""
    ups = [port.batch(double, [i]) for i in range(300)]
    port.runner.submit(ups)
    for up in ups:
        port.table(up)
    down = port.batch(total, inputs=ups)
    port.run(down)
    assert port.runner.fetch(down.batch_id, 0, [0]) == [sum(2 * i for i in range(300))]


def test_dependents_of_one_batch_run_at_the_same_time(port: Any, gate: Path) -> None:
    """Their input is at one worker; the other one is idle, so it gets one of them."""
    up = port.batch(lambda x: x, [str(gate)])
    port.run(up)
    downs = [port.batch(wait_as_told, inputs=[up]) for _ in range(2)]
    port.runner.submit(downs)
    places = {port.of(BatchStarted, batch).worker for batch in downs}
    assert len(places) == 2
    gate.touch()
    assert [port.table(batch).outcomes for batch in downs] == [bytes([DONE])] * 2
    port.runner.release([batch.batch_id for batch in [up, *downs]])


def test_what_waits_behind_a_long_task_goes_back_when_another_worker_has_nothing_to_do(
    port: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back unstarted, so that it can go there, and does not run where it was."""
    monkeypatch.setattr(dask_recall, "UNHEARD_SECONDS", 0.05)
    gates = [tmp_path / "0", tmp_path / "1"]
    running = [port.batch(wait_for, [str(gate)]) for gate in gates]
    port.runner.submit(running)
    for batch in running:
        port.of(BatchStarted, batch)
    trace = tmp_path / "trace"
    queued = port.batch(leave_trace, [("/", str(trace))])
    port.runner.submit([queued])
    desk = port.runner._desk
    key = desk.flights[queued.batch_id].future.key
    while not (there := [w for w, keys in desk.client.processing().items() if key in keys]):
        pass  # each question goes to the scheduler
    busy = next(k for k in (0, 1) if desk.flights[running[k].batch_id].worker == there[0])
    gates[1 - busy].touch()
    assert port.table(queued).outcomes == bytes([UNSTARTED])
    gates[busy].touch()
    assert [port.table(batch).outcomes for batch in running] == [bytes([DONE])] * 2
    port.run(port.batch(double, [1]))
    assert not trace.exists()
    assert port.run(port.batch(leave_trace, [("/", str(trace))])).outcomes == bytes([DONE])
    assert trace.read_text() == "once "
    port.runner.release([batch.batch_id for batch in running])


def test_a_task_that_waits_for_others_does_not_count_as_work(port: Any, gate: Path) -> None:
    """While a task at one worker has a question, two further ones run, one at each worker."""
    asking = port.batch(ask, [b"who"])
    port.runner.submit([asking])
    call = port.until(lambda e: isinstance(e, Call) and e.batch_id == asking.batch_id)
    batches = [port.batch(wait_for, [str(gate)]) for _ in range(2)]
    port.runner.submit(batches)
    for batch in batches:
        port.of(BatchStarted, batch)
    gate.touch()
    for batch in batches:
        port.table(batch)
    port.runner.answer(call.call_id, b"you")
    port.table(asking)
    port.runner.release([batch.batch_id for batch in [asking, *batches]])


def test_strings_are_never_taken_for_keys(port: Any) -> None:
    """A user's string that equals the key of a Dask task stays a string."""
    first = port.batch(double, ["a"])
    port.run(first)
    key = port.runner._desk.kept[first.batch_id].future.key
    second = port.batch(double, [key])
    port.run(second)
    assert port.runner.fetch(second.batch_id, 0, [0]) == [key * 2]


def test_start_and_progress_are_told_live(port: Any, gate: Path) -> None:
    """A batch is seen to start, and its first item to end, while the second still runs."""
    batch = port.batch(wait_for, ["/", str(gate)])
    port.runner.submit([batch])
    started = port.of(BatchStarted, batch)
    progress = port.until(
        lambda e: isinstance(e, BatchProgress) and e.batch_id == batch.batch_id and e.entry == 1
    )
    assert progress.outcomes == bytes([DONE])
    assert port.ends(batch) == []
    gate.touch()
    assert port.table(batch).execution_id == started.execution_id


def test_prints_are_in_the_record(port: Any) -> None:
    """What a task prints is a log line of its item."""
    lines = port.run(port.batch(speak, ["a", "b"])).logs
    assert [(line.position, line.message) for line in lines] == [(0, "said a"), (1, "said b")]


def test_live_events_arrive_before_the_end(port: Any) -> None:
    """Events of a task reach the client before its future is done: the table need not be asked for."""
    fetched: list[int] = []
    desk = port.runner._desk
    original, desk._fetch_table = desk._fetch_table, lambda batch_id, _: fetched.append(batch_id)
    try:
        batches = [port.batch(double, [i]) for i in range(200)]
        port.runner.submit(batches)
        for batch in batches:
            port.table(batch)
            kinds = [
                type(e).__name__
                for e in port.events
                if isinstance(e, BatchStarted | BatchFinished) and about(e) == batch.batch_id
            ]
            assert kinds == ["BatchStarted", "BatchFinished"]
    finally:
        desk._fetch_table = original
    assert fetched == []


def test_a_table_too_large_for_an_event_is_fetched(port: Any) -> None:
    """A record of half a megabyte does not go through the scheduler's event log, and is complete."""
    assert len(port.run(port.batch(log_much)).logs) == 3000


def test_few_items_of_a_large_result_are_picked_on_the_worker(port: Any) -> None:
    """Of 6 values of 1 MB each two are fetched, and only these travel."""
    batch = port.batch(megabytes, [1] * 6)
    port.run(batch)
    desk = port.runner._desk
    asked = dask_results.ask(desk.client, desk.kept[batch.batch_id], (batch.batch_id, 0, [1, 3]))
    (result,) = dask_results.gather(desk.client, [asked])
    assert asked.picked
    assert [len(v) for v in result.packed.load(0)] == [1 << 20] * 2
    assert [len(v) for v in port.runner.fetch(batch.batch_id, 0, [1, 3])] == [1 << 20] * 2


def test_a_small_result_travels_without_the_large_one_that_it_was_made_of(port: Any) -> None:
    """Of two fused stages of one item: what the first has made stays on the worker."""
    batch = port.batch(megabytes, [4])
    (large,) = batch.stages
    small = replace(
        large,
        node_id=large.node_id + 1,
        body=codec.dump_payload(TaskBody(len, "len"), cached=True),
        arguments=codec.dump_payload(Arguments((Aligned(large.node_id, range(1)),))),
        follows=True,
    )
    batch = replace(batch, stages=(large, small))
    port.run(batch)
    desk = port.runner._desk
    asked = dask_results.ask(desk.client, desk.kept[batch.batch_id], (batch.batch_id, 1, [0]))
    (result,) = dask_results.gather(desk.client, [asked])
    assert result.packed.load(0) == [4 << 20]
    assert result.packed.__sizeof__() < 1000


@pytest.mark.slow
def test_a_result_of_500_mb(port: Any) -> None:
    """A huge result stays on the worker, feeds another task there, and can be fetched."""
    batch = port.batch(megabytes, [500])
    port.run(batch)
    down = port.batch(lambda lists: len(lists[0][0]), inputs=[batch])
    assert port.run(down).outcomes == bytes([DONE])
    assert port.runner.fetch(down.batch_id, 0, [0]) == [500 << 20]
    assert len(port.runner.fetch(batch.batch_id, 0, [0])[0]) == 500 << 20
    port.runner.release([batch.batch_id])
    gc.collect()


def test_an_unpicklable_result_spoils_its_item_only(port: Any) -> None:
    """The other items of the batch keep their results."""
    batch = port.batch(make_lock, [1, "bad", 3])
    table = port.run(batch)
    assert table.outcomes == bytes([DONE, FAILED, DONE])
    assert "cannot be pickled" in table.details[1].message
    assert port.runner.fetch(batch.batch_id, 0, [0, 2]) == [1, 3]


def test_released_results_are_gone(port: Any) -> None:
    """Fetching what was released is an error, and a batch that needs it says that its input is lost."""
    up = port.batch(double, [1])
    port.run(up)
    port.runner.release([up.batch_id])
    with pytest.raises(ResultLostError):
        port.runner.fetch(up.batch_id, 0, [0])
    assert port.run(port.batch(total, inputs=[up])).outcomes == bytes([Outcome.INPUT_LOST])


# --- calls -------------------------------------------------------------------------------------------


def test_nested_batches_fifty_deep(port: Any) -> None:
    """Each of 50 tasks waits for the next one, on two threads in all, and none starves."""
    depth, waiting = 50, []
    port.runner.submit([port.batch(ask, [b"0"])])
    for level in range(depth):
        payload = str(level).encode()
        call = port.until(lambda e, p=payload: isinstance(e, Call) and e.payload == p)
        waiting.append(call)
        if level + 1 < depth:
            port.runner.submit([port.batch(ask, [str(level + 1).encode()])])
    while waiting:
        call = waiting.pop()
        port.runner.answer(call.call_id, b"re" + call.payload)
        port.runner.answer(call.call_id, b"twice is harmless")
        port.until(lambda e, c=call: getattr(getattr(e, "table", None), "batch_id", 0) == c.batch_id)
        assert port.runner.fetch(call.batch_id, 0, [0]) == [b"re" + call.payload]
        port.runner.release([call.batch_id])


def test_a_task_can_use_dask_itself(port: Any) -> None:
    """`get_dask_client` gives a client inside a task and lends the task's slot."""
    batch = port.batch(one_thread)
    assert port.run(batch).outcomes == bytes([DONE])
    assert port.runner.fetch(batch.batch_id, 0, [0]) == [6]


def test_get_dask_client_elsewhere() -> None:
    """Outside of a Dask task it says so."""
    with pytest.raises(UserError, match="inside tasks"), get_dask_client():
        pass


# --- cancelling --------------------------------------------------------------------------------------


def test_cancelling_what_waits_and_what_runs(port: Any) -> None:
    """A running item is interrupted, its batch's rest and queued batches come back unstarted."""
    running = [port.batch(wait_for_ever, [1, 2]) for _ in range(2)]
    port.runner.submit(running)
    for batch in running:
        port.of(BatchStarted, batch)
    queued = [port.batch(double, [1]) for _ in range(6)]
    port.runner.submit(queued)
    port.runner.cancel([b.batch_id for b in queued])
    for batch in queued:
        assert port.table(batch).outcomes == bytes([UNSTARTED])
    port.runner.cancel([b.batch_id for b in running])
    for batch in running:
        assert port.table(batch).outcomes == bytes([Outcome.CANCELLED, UNSTARTED])
        assert len(port.ends(batch)) == 1


def test_cancelling_a_waiting_call(port: Any) -> None:
    """A task that waits for an answer is interrupted at once, and its worker goes on working."""
    batches = [port.batch(ask, [b"never answered"]) for _ in range(2)]
    port.runner.submit(batches)
    for batch in batches:
        port.of(Call, batch)
    port.runner.cancel([b.batch_id for b in batches])
    assert [port.table(b).outcomes for b in batches] == [bytes([Outcome.CANCELLED])] * 2
    more = [port.batch(double, [i]) for i in range(20)]
    port.runner.submit(more)
    assert all(port.table(b).outcomes == bytes([DONE]) for b in more)


def test_force_ends_the_worker(port: Any) -> None:
    """What does not stop is lost with its worker process, and a new worker takes its place."""
    since = len(port.events)
    batch = port.batch(ignore_interrupts)
    port.runner.submit([batch])
    port.of(BatchStarted, batch)
    port.runner.cancel([batch.batch_id], force=True)
    assert "it did not stop: its worker was ended" in port.end(batch).reason
    wait_until_whole(port, since)


def ignore_interrupts(_: Any) -> None:
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass


# --- losing workers ----------------------------------------------------------------------------------


def wait_until_whole(port: Any, since: int) -> None:
    """Wait until a worker has gone, and until both work again."""
    port.until(lambda e: isinstance(e, SlotsChanged) and e.slots == 1, since=since)
    since = max(i for i, e in enumerate(port.events) if isinstance(e, SlotsChanged) and e.slots == 1)
    port.until(lambda e: isinstance(e, SlotsChanged) and e.slots == 2, since=since)


def test_a_killed_worker(port: Any) -> None:
    """Of the batches there, the one that ran is suspect; what was only queued is not."""
    since = len(port.events)
    batches = [port.batch(wait_for_ever) for _ in range(4)]
    port.runner.submit(batches)
    os.kill(int(port.of(BatchStarted, batches[0]).worker.split(":")[1]), 9)
    lost = port.end(batches[0])
    assert isinstance(lost, BatchLost)
    assert lost.suspect
    assert "died" in lost.reason
    port.runner.cancel([b.batch_id for b in batches])
    ends = [port.end(b) for b in batches[1:]]
    assert not any(isinstance(e, BatchLost) and e.suspect for e in ends)
    wait_until_whole(port, since)


def test_what_is_told_as_lost_is_not_here_either(port: Any, gate: Path) -> None:
    """A cancelled item bars Dask from computing a batch again: its small results count as lost with the worker."""
    since = len(port.events)
    batch = port.batch(pass_or_wait, [None, str(gate)])
    port.runner.submit([batch])
    port.until(lambda e: isinstance(e, BatchProgress) and e.batch_id == batch.batch_id and e.entry == 1)
    port.runner.cancel([batch.batch_id])
    table = port.table(batch)
    assert table.outcomes == bytes([DONE, Outcome.CANCELLED])
    assert port.runner.fetch(batch.batch_id, 0, [0]) == ["passed"]
    os.kill(int(table.worker.split(":")[1]), 9)
    assert port.until(lambda e: isinstance(e, ResultsLost), since=since).batch_ids == (batch.batch_id,)
    with pytest.raises(ResultLostError):
        port.runner.fetch(batch.batch_id, 0, [0])
    wait_until_whole(port, since)


def test_a_task_that_ends_its_process(port: Any) -> None:
    """`os._exit` loses its batch and nothing hangs."""
    since = len(port.events)
    batch = port.batch(die_at, [1, "die", 3])
    port.runner.submit([batch])
    lost = port.end(batch)
    assert isinstance(lost, BatchLost)
    assert lost.suspect
    wait_until_whole(port, since)
    assert port.run(port.batch(double, [1])).outcomes == bytes([DONE])


def test_results_of_a_dead_worker_are_computed_again(port: Any) -> None:
    """Dask does that by itself; the second execution is told, and the result is there."""
    since = len(port.events)
    batch = port.batch(double, [21])
    table = port.run(batch)
    os.kill(int(table.worker.split(":")[1]), 9)
    again = port.until(
        lambda e: (
            isinstance(e, BatchStarted)
            and e.batch_id == batch.batch_id
            and e.execution_id != table.execution_id
        )
    )
    assert again.execution_id
    assert port.runner.fetch(batch.batch_id, 0, [0]) == [42]
    assert len(port.ends(batch)) == 1
    wait_until_whole(port, since)


def test_what_must_not_run_again_does_not(port: Any, tmp_path: Path) -> None:
    """Results of a batch with a cancelled item are lost with their worker, and its code stays stopped."""
    since = len(port.events)
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    gate.touch()
    batch = port.batch(leave_trace, [(str(gate), str(trace)), (str(tmp_path / "never"), str(trace))])
    port.runner.submit([batch])
    port.until(lambda e: isinstance(e, BatchProgress) and e.batch_id == batch.batch_id and e.entry == 1)
    port.runner.cancel([batch.batch_id])
    table = port.table(batch)
    assert table.outcomes == bytes([DONE, Outcome.CANCELLED])
    gate.unlink()  # a second execution would wait here, and not end by itself
    os.kill(int(table.worker.split(":")[1]), 9)
    wait_until_whole(port, since)
    more = [port.batch(double, [i]) for i in range(10)]
    port.runner.submit(more)
    for other in more:
        port.table(other)
    with pytest.raises(ResultLostError):
        port.runner.fetch(batch.batch_id, 0, [0])
    assert port.run(port.batch(total, inputs=[batch])).outcomes == bytes([Outcome.INPUT_LOST])
    assert trace.read_text(encoding="utf-8") == "once "
    assert len(port.ends(batch)) == 1


def test_a_second_execution_does_not_call(port: Any) -> None:
    """A call of what Dask computes again is not passed on: the result is lost, and nobody waits for ever."""
    since = len(port.events)
    batch = port.batch(ask, [b"once"])
    port.runner.submit([batch])
    port.runner.answer(port.of(Call, batch).call_id, b"answer")
    os.kill(int(port.table(batch).worker.split(":")[1]), 9)
    wait_until_whole(port, since)
    assert port.run(port.batch(total, inputs=[batch])).outcomes == bytes([Outcome.INPUT_LOST])
    asked = [e for e in port.events if isinstance(e, Call) and e.batch_id == batch.batch_id]
    assert len({e.call_id for e in asked}) == 1


@pytest.mark.parametrize("state", ["executing", "cancelled"])
def test_a_batch_that_is_taken_back_as_it_begins(port: Any, tmp_path: Path, state: str) -> None:
    """It begins and says so, or does not begin at all: no code runs that the flow's process cannot know of."""
    from runners.dask_worker import DaskChannel

    task, told = SimpleNamespace(state=state), []

    def log_event(topic: str, message: tuple[str, bytes, int]) -> None:
        told.append(codec.unpack(message[1]))
        task.state = "cancelled"  # from now on

    tasks = SimpleNamespace(tasks={"key": task})
    worker = SimpleNamespace(state=tasks, address="tcp://here", log_event=log_event)
    (tmp_path / "gate").touch()
    batch = port.batch(leave_trace, [(str(tmp_path / "gate"), str(tmp_path / "trace"))])
    _, table = run_batch(batch, [], DaskChannel(worker, "topic", "key", batch.run_id), in_process=False)
    begins = state == "executing"
    assert table.outcomes == bytes([DONE if begins else UNSTARTED])
    assert (tmp_path / "trace").exists() == begins
    assert [event.execution_id for event in told] == ([table.execution_id] if begins else [])


def leave_trace(paths: Any) -> None:
    while not Path(paths[0]).exists():
        time.sleep(0.01)
    with open(paths[1], "a", encoding="utf-8") as file:
        file.write("once ")


# --- options -----------------------------------------------------------------------------------------


def test_options(port: Any) -> None:
    """What no worker can honour is an error at once, and the rest reaches Dask."""
    check = port.runner.check_options
    address = next(iter(port.runner._desk.workers))
    check({"workers": [address], "priority": 3})
    with pytest.raises(RunnerOptionError, match="GPU"):
        check({"resources": {"GPU": 1}})
    with pytest.raises(RunnerOptionError, match="wait for ever"):
        check({"workers": "elsewhere"})
    with pytest.raises(RunnerOptionError, match="num_cpus"):
        check({"num_cpus": 1})
    batch = port.batch(double, [1], options={"workers": [address], "priority": 3})
    assert port.run(batch).outcomes == bytes([DONE])


def test_a_batch_that_cannot_be_submitted_is_rejected(port: Any) -> None:
    """A wrong option value is that batch's problem."""
    batch = port.batch(double, [1], options={"allow_other_workers": True})
    port.runner.submit([batch])
    event = port.end(batch)
    assert isinstance(event, BatchRejected)
    assert "workers=" in event.detail.message


def test_a_large_batch_gives_no_warning(port: Any, recwarn: pytest.WarningsRecorder) -> None:
    """20 MB of arguments pass without Dask's remark on large graphs."""
    batch = port.batch(len, [bytes(20 << 20)])
    assert port.run(batch).outcomes == bytes([DONE])
    assert [str(w.message) for w in recwarn if "large graph" in str(w.message)] == []


def test_unstarted_and_closed_runners() -> None:
    """A runner that is not running says so."""
    with pytest.raises(RunnerNotStartedError):
        DaskTaskRunner().submit([])
    DaskTaskRunner().close()


def test_errors_have_the_right_owner() -> None:
    """A gone flow is the backend's problem."""
    assert issubclass(BackendError, Exception)
    assert "distributed" in sys.modules
