"""Results that are asked for together come together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration import flow, task
from runners import ThreadPoolTaskRunner
from runners.base import Wanted
from runners.errors import ResultLostError


class Recording(ThreadPoolTaskRunner):
    """Keeps how many results each request was for."""

    requests: list[int] = []  # noqa: RUF012  # shared with the copy that a flow run starts

    def fetch_many(self, wanted: Sequence[Wanted]) -> list[list[Any] | ResultLostError]:
        self.requests.append(len(wanted))
        return super().fetch_many(wanted)


@task
def double(x: int) -> int:
    return 2 * x


def test_returned_futures_of_many_nodes_come_together() -> None:
    """One request for all of them, but for those that the flow has asked for before."""
    Recording.requests.clear()

    @flow(task_runner=Recording(2))
    def singles() -> Any:
        early = double.submit(100)
        early.result()
        futures = [double.submit(n) for n in range(5)]
        return {"early": early, "first": double.submit(50), "all": [*futures, 7]}

    assert singles() == {"early": 200, "first": 100, "all": [0, 2, 4, 6, 8, 7]}
    assert Recording.requests == [1, 6]
