"""`millrace runs show RUN --timing`."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestration.core.journal import Counted, RunMoved
from orchestration.core.states import RunState, State
from orchestration.stores import open_store
from orchestration.terminal.words import brief
from orchestration.testing.store_entries import NOW, counts, ended, new_run, node
from runners.messages import Outcome

Call = Callable[..., tuple[int, str, str]]


def recorded(*, submitted_at: float = NOW - 0.5, coordinator: float = 0.25) -> None:
    """One map of ten: a batch of eight, two that failed first and then ran alone."""
    store = open_store(None)
    run_id = new_run(store, name="slow-otter")
    most = ended(0, range(8), batch_id=0)
    most = replace(most, started=array("d", [NOW + k / 4 for k in range(8)]), at=NOW + 3)
    failed = ended(0, [8, 9], State.AWAITING_RETRY, Outcome.FAILED, batch_id=1)
    failed = replace(failed, started=array("d", [NOW, NOW + 0.25]))
    again = [ended(0, [k], batch_id=k, attempt=2) for k in (8, 9)]
    entries = [replace(entry, submitted_at=submitted_at, cpu_seconds=0.1) for entry in (most, failed, *again)]
    over = RunMoved(RunState.COMPLETED, NOW + 4, coordinator_seconds=coordinator)
    store.append(run_id, 1, [*entries, over, Counted(0, counts(completed=10), (12.0, 65.0, 2.5))])
    store.close()


def test_a_table_and_what_it_means(call: Call) -> None:
    """It fits a terminal, and says in words what cost the time."""
    recorded()
    code, out, _ = call("runs", "show", "slow-otter", "--timing")
    assert code == 0
    table, said = out[out.index("NODE") :].splitlines(), " ".join(out.split())
    assert table[0].split() == ["NODE", "RUNS", "WALL", "CODE", "CPU", "QUEUE", "ENGINE", "BATCHES"]
    assert table[1].split() == ["task#0", "10", "2.00s", "3.00s", "0.40s", "1.20s", "1.25s", "4", "x", "1"]
    assert all(len(line) <= 80 and line.isascii() for line in table)
    assert "task#0: 2 attempts had to be repeated, after 0.50s of code and 2.50s of waiting." in said
    assert "task#0: its task runs waited 1m05s for limits, all together." in said
    assert "4 slots in 3.50s: 21% user code" in said
    assert "Slots mostly" in said
    assert "The coordinator was busy for 0.25s of CPU time." in said


def test_single_task_runs_of_one_task_share_a_line(call: Call) -> None:
    """Ten thousand of them would be all that one sees. A batch that several shared counts once; JSON has each."""
    store = open_store(None)
    run_id = new_run(store, name="slow-otter")
    loads = [replace(node(k, 1, f"load-{k}"), kind="single", task_name="load") for k in range(1, 5)]
    ends = [ended(k, [0], batch_id=k // 3, started=NOW + k) for k in range(1, 5)]
    told = [replace(entry, submitted_at=NOW + 1, at=NOW + 6) for entry in ends]
    store.append(run_id, 1, [*loads, *told, *(Counted(k, counts(completed=1)) for k in range(1, 5))])
    store.close()
    lines = call("runs", "show", "slow-otter", "--timing")[1].splitlines()
    (line,) = (line.split() for line in lines if line.startswith("load"))
    assert line[:2] == ["load", "4"]
    assert line[2] == brief(3 + ends[0].durations[0])
    assert line[-3:] == ["2", "x", "2"]
    nodes = json.loads(call("runs", "show", "slow-otter", "--timing", "--json")[1])["timing"]["nodes"]
    assert [row["path"] for row in nodes if row["batches"]] == ["load-1", "load-2", "load-3", "load-4"]


def test_a_coordinator_that_could_not_keep_up(call: Call) -> None:
    """It is named where it had hardly a pause."""
    recorded(coordinator=3.0)
    assert "hardly keep up" in call("runs", "show", "slow-otter", "--timing")[1]


def test_json(call: Call) -> None:
    """All of it, in seconds; without the option the key is not there."""
    recorded()
    told = json.loads(call("runs", "show", "slow-otter", "--timing", "--json")[1])["timing"]
    assert (told["slots"], told["wall_seconds"], told["code_seconds"]) == (4, 3.5, 3.0)
    assert told["coordinator_seconds"] == 0.25
    (row,) = told["nodes"]
    assert (row["task"], row["attempts"], row["retries"], row["retry_seconds"]) == ("task", 12, 2, 0.5)
    assert (row["batch_median"], row["batch_largest"]) == (1, 8)
    assert "timing" not in json.loads(call("runs", "show", "slow-otter", "--json")[1])


def test_a_record_without_times(call: Call) -> None:
    """What an earlier version recorded is shown as far as it goes; so is what has not begun."""
    recorded(submitted_at=0.0)
    out = call("runs", "show", "slow-otter", "--timing")[1]
    assert "3.00s" in out
    assert "earlier version" in out
    store = open_store(None)
    new_run(store, "fedcba9876543210", name="new-otter")
    store.close()
    assert "nothing to time" in call("runs", "show", "new-otter", "--timing")[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0s"), (0.0004, "0ms"), (0.012, "12ms"), (0.34, "0.34s"), (9.994, "9.99s"), (9.996, "10.0s")),
        *((59.94, "59.9s"), (59.96, "1m00s"), (125, "2m05s"), (12_000, "3h20m"), (356_400, "4d03h")),
    ],
)
def test_brief_durations(seconds: float, text: str) -> None:
    """At most six characters up to ten days."""
    assert brief(seconds) == text
