"""What the processes of a run have left outside of the system: every execution of user code."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Execution:
    """One execution of one task run's code.

    Attributes:
        end: "end", "fail", "skip"; "" where its process died in it, or it was stopped.
    """

    name: str
    index: int
    attempt: int
    execution_id: str  # of the batch
    pid: int
    started: float
    limited: bool
    end: str = ""
    ended: float | None = None
    value: Any = None


@dataclass
class History:
    """The executions of one run, in the order of their starts, and the results that its flow got."""

    executions: list[Execution] = field(default_factory=list)
    results: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def by_item(self) -> dict[tuple[str, int], list[Execution]]:
        found: dict[tuple[str, int], list[Execution]] = defaultdict(list)
        for execution in self.executions:
            found[execution.name, execution.index].append(execution)
        return found

    def most_at_once(self, deaths: dict[int, float]) -> int:
        """Return how many executions under a limit were alive at the same time, by what is certain.

        Args:
            deaths: when processes died, by pid. An execution without an end ended no later.
        """
        moments = []
        for one in self.executions:
            if not one.limited:
                continue
            end = one.ended if one.ended is not None else deaths.get(one.pid)
            if end is not None and end > one.started:
                moments += [(one.started, 1), (end, -1)]
        moments.sort()
        at_once = most = 0
        for _, change in moments:
            at_once += change
            most = max(most, at_once)
        return most


def read(path: Path) -> History:
    """Read a history. A line that is not whole would be a defect of this suite and raises."""
    history = History()
    running: dict[tuple[int, str, str, int], Execution] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        said = json.loads(line)
        if said["e"] == "results":
            history.results[said["n"]] = said["r"]
            continue
        key = (said["p"], said["x"], said["n"], said["i"])
        if said["e"] == "start":
            batch = said["x"].rpartition(":")[0]
            one = Execution(said["n"], said["i"], said["a"], batch, said["p"], said["t"], bool(said["l"]))
            history.executions.append(one)
            running[key] = one
        else:
            one = running.pop(key)
            one.end, one.ended, one.value = said["e"], said["t"], said.get("v")
    return history
