"""The flow's thread, the driver's and the workers' read each other's state at any moment.

Threads normally change every 5 ms, so that what two of them do to the same thing within a microsecond shows once in a
thousand test runs. Here they change as often as the interpreter can.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration import flow, task
from runners.base import TaskRunner


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads of this process change after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@task
def double(n: int) -> int:
    return 2 * n


@task
def called(n: int) -> Any:
    """Calls and submits tasks from inside one."""
    return double(n) + double(double.submit(n))


@pytest.mark.usefixtures("restless_threads")
def test_nobody_misses_an_end(quick_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow neither returns before its task runs have ended nor waits for those that have."""
    monkeypatch.setenv("MILLRACE_STORE", "memory")

    @flow(task_runner=quick_runner)
    def main() -> Any:
        return called.submit(1)

    for _ in range(60):
        assert main() == 6


@pytest.mark.usefixtures("restless_threads")
def test_the_flow_ends_with_its_last_node(quick_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of which nobody waits for the result have ended when the flow has."""
    monkeypatch.setenv("MILLRACE_STORE", "memory")
    ended: list[int] = []

    @flow(task_runner=quick_runner)
    def main() -> None:
        for n in range(8):
            double.submit(n).add_done_callback(lambda future: ended.append(future.result()))

    for _ in range(25):
        ended.clear()
        main()
        assert sorted(ended) == [0, 2, 4, 6, 8, 10, 12, 14]
