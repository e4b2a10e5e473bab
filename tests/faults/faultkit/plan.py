"""Random small flows as plain data, and how each of their task runs must end."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HUGE = 40_000_000  # see `workload.HUGE`, which travels to workers that cannot import this


@dataclass(frozen=True)
class Node:
    """One map, or a single task run, of a flow.

    Attributes:
        source: the node that it maps over, item by item; `gather` takes the list of all results instead.
        flaky: by index, how many attempts fail before one does not.
        fatal, skips: items that always fail; that skip themselves.
        once: `rerun_on_loss=False`.
        sick: by index, what an item does to its process or itself in its first attempt, or with "always:" before
            it in all; see `workload.SICK`.
    """

    name: str
    width: int
    source: int | None = None
    gather: int | None = None
    seconds: float = 0.0
    retries: int = 0
    retries_on_loss: int = 50
    flaky: dict[int, int] = field(default_factory=dict)
    fatal: tuple[int, ...] = ()
    skips: tuple[int, ...] = ()
    once: bool = False
    limited: bool = False
    batch: int | None = None
    timeout: float | None = None
    sick: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A flow: its nodes, in the order of submission."""

    nodes: tuple[Node, ...]
    persist: bool = False

    def data(self) -> dict[str, Any]:
        """Return the plan as the flow's parameter: JSON values only."""
        nodes = [asdict(node) for node in self.nodes]
        for node in nodes:
            node["flaky"] = {str(k): v for k, v in node["flaky"].items()}
            node["sick"] = {str(k): v for k, v in node["sick"].items()}
        return {"nodes": nodes, "persist": self.persist}

    @property
    def width(self) -> int:
        return sum(node.width for node in self.nodes)


def value_of(node: Node, index: int, given: Any) -> int:
    """Return what a task run makes of its input: something that tells every mistake."""
    if node.sick.get(index, "").endswith("huge"):
        return HUGE
    return zlib.crc32(f"{node.name}/{index}/{given}".encode())


def reference(plan: Plan) -> dict[str, list[tuple[str, int | None]]]:
    """Return by node how each item ends where nothing goes wrong: (state, value)."""
    ends: dict[str, list[tuple[str, int | None]]] = {}
    for node in plan.nodes:
        items = []
        for index in range(node.width):
            before = _inputs(plan, node, index, ends)
            states = {state for state, _ in before}
            if "Skipped" in states:  # a skip goes before a failure
                items.append(("Skipped", None))
            elif states - {"Completed"}:
                items.append(("UpstreamFailed", None))
            else:
                items.append(_own_end(node, index, _given(node, before)))
        ends[node.name] = items
    return ends


def _inputs(
    plan: Plan, node: Node, index: int, ends: dict[str, list[tuple[str, int | None]]]
) -> Sequence[tuple[str, int | None]]:
    if node.gather is not None:
        return ends[plan.nodes[node.gather].name]
    if node.source is not None:
        return ends[plan.nodes[node.source].name][index : index + 1]
    return ()


def _given(node: Node, before: Sequence[tuple[str, int | None]]) -> Any:
    if node.gather is not None:
        return [value for _, value in before]
    return before[0][1] if before else None


def _own_end(node: Node, index: int, given: Any) -> tuple[str, int | None]:
    if node.sick.get(index, "").endswith("unpicklable"):
        return "Failed", None
    if index in node.fatal or node.flaky.get(index, 0) > node.retries:
        return "Failed", None
    if index in node.skips:
        return "Skipped", None
    return "Completed", value_of(node, index, given)


def random_plan(
    rng: random.Random,
    *,
    width: int = 12,
    seconds: float = 0.004,
    depth: int = 4,
    persist: bool | None = None,
    once: bool = False,
    limited: bool = False,
) -> Plan:
    """Return a random flow: maps, maps over maps, fan-ins, single task runs, retries, failures and skips.

    Args:
        seconds: that a task run takes on average.
        once: all tasks have `rerun_on_loss=False`; none has retries.
        limited: some tasks have the tag `shared`, for a limit.
    """
    nodes: list[Node] = []
    for k in range(rng.randint(2, depth)):
        maps = [i for i, node in enumerate(nodes) if node.width > 1]
        kind = rng.choice(("map", "over", "over", "single", "gather")) if nodes else "map"
        source = rng.choice(maps[-2:]) if kind == "over" and maps else None
        gather = rng.randrange(len(nodes)) if kind == "gather" else None
        wide = nodes[source].width if source is not None else rng.randint(2, width)
        wide = 1 if kind in ("single", "gather") else wide
        flaky = {i: rng.randint(1, 2) for i in range(wide) if not once and rng.random() < 0.15}
        nodes.append(
            Node(
                name=f"t{k}",
                width=wide,
                source=source,
                gather=gather,
                seconds=round(seconds * rng.choice((0, 0, 1, 1, 3)), 6),
                retries=2 if flaky else rng.choice((0, 0, 1)) * (not once),
                flaky=flaky,
                fatal=tuple(i for i in range(wide) if rng.random() < 0.03),
                skips=tuple(i for i in range(wide) if rng.random() < 0.03),
                once=once,
                limited=limited and rng.random() < 0.6,
                batch=rng.choice((None, None, None, 1, 4)),
            )
        )
    return Plan(tuple(nodes), rng.random() < 0.7 if persist is None else persist)
