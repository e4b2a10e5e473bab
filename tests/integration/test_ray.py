"""RayTaskRunner on a local Ray, which all tests of this module share."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.base import TaskRunner
from runners.errors import ResultLostError, RunnerOptionError
from runners.messages import (
    BatchFinished,
    BatchLost,
    BatchProgress,
    BatchRejected,
    BatchStarted,
    Call,
    Outcome,
    SlotsChanged,
)
from runners.options import ambient_options

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def shared(open_port: Callable[[TaskRunner], Any]) -> Iterator[Any]:
    """A started runner on two slots."""
    from runners.ray import RayTaskRunner

    port = open_port(RayTaskRunner(init_kwargs={"num_cpus": 2, "object_store_memory": 200_000_000}))
    yield port
    port.runner.close()


@pytest.fixture
def port(shared: Any) -> Any:
    """The shared runner, without the events of earlier tests."""
    shared.events.clear()
    return shared


# --- what the tests run on workers -----------------------------------------------------------------


def square(x: int) -> int:
    print(f"squaring {x}")
    return x * x


def zeros(n: int) -> Any:
    """Return an array; one that is read-only for a negative number."""
    import numpy as np

    array = np.zeros(abs(n))
    array.flags.writeable = n > 0
    return array


def places(groups: Any) -> list[str]:
    """Say where the memory of arrays is: this process' own, or Ray's."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "plasma" in line:
            spans.append([int(end, 16) for end in line.split()[0].split("-")])
    return [
        "shared" if any(low <= array.ctypes.data < high for low, high in spans) else "own"
        for group in groups
        for array in group
    ]


def sleeping(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def spinning(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def exiting(code: int) -> None:
    os._exit(code)


def interrupting(_: Any) -> None:
    raise KeyboardInterrupt


def asking(text: str) -> str:
    from runners.context import current_item

    item = current_item.get()
    assert item is not None
    reply = item.channel.call(item.batch_id, item.execution_id, item.entry, "ask", text.encode())
    return reply.decode()


def maybe_lock(x: int) -> Any:
    return threading.Lock() if x else "plain"


def assigned_cpus(_: Any) -> float:
    import ray

    return float(ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0))


def half_a_gigabyte(_: Any) -> bytes:
    return bytes(500_000_000)


# --- tests -----------------------------------------------------------------------------------------


def test_results_and_table(port: Any) -> None:
    """A batch runs as one Ray task whose table has every item, with its prints."""
    batch = port.batch(square, [1, 2, 3])
    table = port.run(batch)
    assert list(table.outcomes) == [Outcome.COMPLETED] * 3
    assert [line.message for line in table.logs] == ["squaring 1", "squaring 2", "squaring 3"]
    assert port.runner.fetch(batch.batch_id, 0, [2, 0]) == [9, 1]


def test_small_results_come_with_their_table(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are here when the batch has ended: nobody asks Ray for them. What has buffers is fetched when wanted."""
    from runners import ray_results

    asked: list[Any] = []
    get_many = ray_results.get_many
    monkeypatch.setattr(ray_results, "get_many", lambda refs: asked.extend(refs) or get_many(refs))
    small, array = port.batch(square, [7, 8]), port.batch(zeros, [3])
    port.run(small)
    port.run(array)
    assert port.runner.fetch(small.batch_id, 0, [1, 0]) == [64, 49]
    assert asked == []
    assert list(port.runner.fetch(array.batch_id, 0, [0])[0]) == [0.0] * 3
    assert len(asked) == 1


def test_only_read_only_arrays_are_read_in_place(port: Any) -> None:
    """In shared memory; of others each reader has a copy, and of large ones only of those that it reads."""
    made = port.batch(zeros, [1_000_000, 1_000_000, -1_000_000])
    port.run(made)
    read = port.batch(places, inputs=[made])
    table = port.run(read)
    first, second, shared = port.runner.fetch(read.batch_id, 0, [0])[0]
    assert {first, second} == {"own"}
    assert shared == "shared"
    assert 16_000_000 <= table.moved_bytes < 16_100_000
    assert [array.flags.writeable for array in port.runner.fetch(made.batch_id, 0, [0, 1, 2])] == [
        True,
        True,
        False,
    ]


def test_live_events(port: Any) -> None:
    """The start of a batch and its progress are told while it runs."""
    batch = port.batch(sleeping, [0.0, 60.0])
    port.runner.submit([batch])
    started = port.of(BatchStarted, batch)
    progress = port.until(lambda e: isinstance(e, BatchProgress) and e.entry == 1)
    assert progress.execution_id == started.execution_id
    assert not port.ends(batch)
    port.runner.cancel([batch.batch_id])
    assert list(port.table(batch).outcomes) == [Outcome.COMPLETED, Outcome.CANCELLED]


@pytest.mark.parametrize("code", [sleeping, spinning])
def test_cancel_a_running_batch(port: Any, code: Any) -> None:
    """A batch that runs comes back with its table within half a second, also out of a sleep."""
    batch = port.batch(code, [60.0, 60.0])
    port.runner.submit([batch])
    port.of(BatchStarted, batch)
    asked = time.monotonic()
    port.runner.cancel([batch.batch_id])
    assert list(port.table(batch).outcomes) == [Outcome.CANCELLED, Outcome.UNSTARTED]
    assert time.monotonic() - asked < 0.5


def test_cancel_a_queued_batch(port: Any) -> None:
    """A batch that waits in Ray's queue comes back unstarted, while those that run go on."""
    running = [port.batch(sleeping, [60.0]) for _ in range(2)]
    port.runner.submit(running)
    for batch in running:
        port.of(BatchStarted, batch)
    queued = port.batch(square, [1])
    port.runner.submit([queued])
    port.runner.cancel([queued.batch_id])
    table = port.table(queued)
    assert (list(table.outcomes), table.execution_id) == ([Outcome.UNSTARTED], "")
    assert not any(port.ends(batch) for batch in running)
    port.runner.cancel([batch.batch_id for batch in running])
    assert [list(port.table(batch).outcomes) for batch in running] == [[Outcome.CANCELLED]] * 2


def test_cancel_by_force(port: Any) -> None:
    """Force ends the worker process, and the batch counts as lost."""
    batch = port.batch(sleeping, [60.0])
    port.runner.submit([batch])
    port.of(BatchStarted, batch)
    port.runner.cancel([batch.batch_id], force=True)
    end = port.end(batch)
    assert isinstance(end, BatchLost)
    assert "it did not stop: its worker was ended" in end.reason


def test_a_timeout_reaches_a_sleep(port: Any) -> None:
    """An item that sleeps past its timeout is woken, and the next one of its batch runs."""
    table = port.run(port.batch(sleeping, [60.0, 0.0], timeout=0.2))
    assert list(table.outcomes) == [Outcome.TIMED_OUT, Outcome.COMPLETED]
    assert table.durations[0] < 2


def test_keyboard_interrupt_of_user_code(port: Any) -> None:
    """What user code raises is its failure, never a cancellation."""
    assert list(port.run(port.batch(interrupting, [1])).outcomes) == [Outcome.FAILED]


def test_a_worker_that_is_killed(port: Any) -> None:
    """Its batch is reported lost and suspect, and others go on."""
    batch = port.batch(sleeping, [60.0])
    port.runner.submit([batch])
    worker = port.of(BatchStarted, batch).worker
    os.kill(int(worker.split(":")[1]), signal.SIGKILL)
    lost = port.end(batch)
    assert isinstance(lost, BatchLost)
    assert lost.suspect
    assert list(port.run(port.batch(square, [1])).outcomes) == [Outcome.COMPLETED]


def test_a_task_that_exits_its_process(port: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """`os._exit` loses only the batch that calls it, and Ray's notice of it is not printed."""
    bad, good = port.batch(exiting, [3]), port.batch(square, [2])
    port.runner.submit([bad, good])
    assert isinstance(port.end(bad), BatchLost)
    assert isinstance(port.end(good), BatchFinished)
    assert "worker died" not in "".join(capfd.readouterr())


def test_an_unpicklable_result(port: Any) -> None:
    """A result that cannot leave the worker fails its item only."""
    table = port.run(port.batch(maybe_lock, [0, 1]))
    assert list(table.outcomes) == [Outcome.COMPLETED, Outcome.FAILED]
    assert "cannot be pickled" in table.details[1].message


def test_call_and_answer(port: Any) -> None:
    """User code on a worker gets the answer of the flow's process; answering twice is harmless."""
    batch = port.batch(asking, ["how are you"])
    port.runner.submit([batch])
    call = port.of(Call, batch)
    port.runner.answer(call.call_id, b"fine")
    port.runner.answer(call.call_id, b"again")
    port.table(batch)
    assert port.runner.fetch(batch.batch_id, 0, [0]) == ["fine"]


def test_cancel_a_batch_that_waits_for_an_answer(port: Any) -> None:
    """Waiting for an answer ends at once when the batch is cancelled; also where Ray first cancels the question."""
    for _ in range(10):  # one in six went wrong while that was taken for a failure
        batch = port.batch(asking, ["?"])
        port.runner.submit([batch])
        port.of(Call, batch)
        port.runner.cancel([batch.batch_id])
        assert list(port.table(batch).outcomes) == [Outcome.CANCELLED]


def test_without_its_mailbox(port: Any) -> None:
    """When the actor for live events dies, batches run on, and calls work again once Ray has restarted it."""
    waiting = port.batch(asking, ["?"])
    port.runner.submit([waiting])
    first = port.of(Call, waiting)
    ray.kill(port.runner._desk.mailbox, no_restart=False)
    assert list(port.run(port.batch(square, [1])).outcomes) == [Outcome.COMPLETED]
    again = port.until(lambda e: isinstance(e, Call) and e is not first and e.call_id == first.call_id)
    port.runner.answer(again.call_id, b"yes")
    port.table(waiting)
    assert port.runner.fetch(waiting.batch_id, 0, [0]) == ["yes"]


def test_large_arguments_are_shared(port: Any) -> None:
    """A large payload goes into the object store once, however many batches have it."""
    data = bytes(1_000_000)

    def measure(_: int) -> int:
        return len(data)

    batches = [port.batch(measure, [i]) for i in range(4)]
    port.runner.submit(batches)
    for batch in batches:
        port.table(batch)
        assert port.runner.fetch(batch.batch_id, 0, [0]) == [1_000_000]
    held = {s.body.digest for b in batches for s in b.stages} & set(port.runner._desk.submission.shared)
    assert len(held) == 1


def test_released_results_are_gone(port: Any) -> None:
    """What was released cannot be fetched, and a batch that reads it says whose results are missing."""
    batch = port.batch(square, [1])
    port.run(batch)
    port.runner.release([batch.batch_id])
    with pytest.raises(ResultLostError):
        port.runner.fetch(batch.batch_id, 0, [0])
    reader = port.batch(places, inputs=[batch])
    port.runner.submit([reader])
    table = port.table(reader)
    assert table.outcomes == bytes([Outcome.INPUT_LOST])
    assert table.missing == (batch.batch_id,)


def test_a_result_larger_than_the_object_store(port: Any) -> None:
    """500 MB on a store of 200 MB spill to disk and arrive whole."""
    batch = port.batch(half_a_gigabyte, [0])
    port.runner.submit([batch])
    assert list(port.table(batch, 100).outcomes) == [Outcome.COMPLETED]
    assert len(port.runner.fetch(batch.batch_id, 0, [0])[0]) == 500_000_000
    port.runner.release([batch.batch_id])


def test_options(port: Any) -> None:
    """Options reach Ray; those that no node can honour, or that mean nothing, are errors beforehand."""
    batch = port.batch(assigned_cpus, [0], options={"num_cpus": 2})
    port.run(batch)
    assert port.runner.fetch(batch.batch_id, 0, [0]) == [2.0]
    port.runner.check_options({"num_cpus": 0.5, "resources": {}})
    for wrong in ({"num_cpus": 64}, {"resources": {"unobtainium": 1}}, {"num_gpus": "x"}, {"prioritee": 1}):
        with pytest.raises(RunnerOptionError):
            port.runner.check_options(wrong)


def test_options_that_ray_refuses(port: Any) -> None:
    """A batch that Ray does not take is rejected with Ray's reason."""
    batch = port.batch(square, [1], options={"num_cpus": -1})
    port.runner.submit([batch])
    assert isinstance(port.end(batch), BatchRejected)


def test_remote_options() -> None:
    """Inside the block submissions see the options, inner blocks before outer ones."""
    from runners.ray import remote_options

    with remote_options(num_cpus=2, memory=1):
        with remote_options(num_cpus=4):
            assert dict(ambient_options.get()) == {"num_cpus": 4, "memory": 1}
        assert dict(ambient_options.get()) == {"num_cpus": 2, "memory": 1}
    assert not ambient_options.get()


def test_a_second_runner_shares_the_local_ray(port: Any, open_port: Callable[[TaskRunner], Any]) -> None:
    """A subflow's runner uses the Ray that its parent's has started, and leaves it running."""
    other = open_port(port.runner.duplicate())
    try:
        assert other.until(lambda e: isinstance(e, SlotsChanged)).slots == 2
        assert list(other.run(other.batch(square, [1])).outcomes) == [Outcome.COMPLETED]
    finally:
        other.runner.close()
    assert list(port.run(port.batch(square, [1])).outcomes) == [Outcome.COMPLETED]


def test_describe(port: Any) -> None:
    """People see which Ray it is."""
    assert port.runner.describe() == "local Ray, 2 CPUs"
    assert Path(port.runner._desk.session.folder).is_dir()
