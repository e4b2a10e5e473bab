"""Flows for the simulation: what each item does when it runs, and what must come of it all.

`reference` is a naive interpreter without an engine, batches, losses or time: the judge of the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from runners.messages import Outcome

from ..core.specs import Dependency, NodeSpec, Reach, Recovered
from ..core.states import State
from ..core.triggers import FAILURE, Tally

Value = int


@dataclass(frozen=True, slots=True)
class Act:
    """What an item does in one attempt.

    Attributes:
        length: of its result, if that is a list.
        kills: it ends the worker it runs on.
        deaf: it cannot be stopped.
    """

    outcome: Outcome = Outcome.COMPLETED
    seconds: float = 0.01
    length: int | None = None
    message: str = ""
    retriable: bool = True
    after_seconds: float | None = None
    kills: bool = False
    deaf: bool = False


DONE = Act()

Plan = Callable[[int, int], Act]  # (index, failures recorded so far) -> what the item does


def always(index: int, failures: int) -> Act:
    """Complete at once."""
    return DONE


@dataclass(frozen=True, slots=True)
class Step:
    """One `.submit()` or `.map()` of a simulated flow."""

    spec: NodeSpec
    plan: Plan = always
    persist: bool = False
    at: float = 0.0  # seconds after the run's start


@dataclass(frozen=True, slots=True)
class End:
    """How an item ended, and with which value."""

    state: State
    value: Value | None = None


@dataclass
class _Result:
    ends: list[End] = field(default_factory=list)
    lengths: dict[int, int] = field(default_factory=dict)
    stands_in: bool = False


def digest(path: str, index: int, inputs: Sequence[object]) -> Value:
    """Return the value that an item makes of its inputs."""
    return crc32(repr((path, index, *inputs)).encode())


def gather(values: Sequence[Value | None]) -> Value:
    """Return one value for many upstream results."""
    return crc32(repr(list(values)).encode())


def reference(steps: Sequence[Step]) -> dict[int, list[End]]:
    """Return how each item of each node must end, if nothing is cancelled and no budget for losses runs out."""
    results: dict[int, _Result] = {}
    for step in steps:
        results[step.spec.node_id] = _interpret(step, results)
    return {node_id: result.ends for node_id, result in results.items()}


def _interpret(step: Step, results: Mapping[int, _Result]) -> _Result:
    spec = step.spec
    width, stands_in, unusable = _width(spec, results)
    result = _Result(stands_in=stands_in)
    for index in range(width):
        result.ends.append(_end(step, index, results, result, unusable=unusable, alone=stands_in))
    return result


def _width(spec: NodeSpec, results: Mapping[int, _Result]) -> tuple[int, bool, bool]:
    """Return the width, whether the one item stands for the map, and whether it cannot be mapped over."""
    widths = [] if spec.width is None else [spec.width]
    bad = stands_in = False
    for dependency in spec.dependencies:
        up = results[dependency.node_id]
        if dependency.reach is Reach.ALIGNED and dependency.indices is None:
            stands_in |= up.stands_in
            if spec.width is None or not up.stands_in:
                widths.append(len(up.ends))
        elif dependency.reach is Reach.ELEMENTS:
            index = _element(dependency, up)
            if up.ends[index].state is State.COMPLETED and index in up.lengths:
                widths.append(up.lengths[index])
            else:
                bad = True
    if spec.width is not None:
        return spec.width, False, bad or len(set(widths)) > 1
    if stands_in or bad or len(set(widths)) != 1:
        return 1, True, True
    return widths[0], False, False


def _element(dependency: Dependency, up: _Result) -> int:
    return 0 if up.stands_in else next(iter(dependency.indices or (0,)))


def _uppers(dependency: Dependency, index: int, up: _Result, *, alone: bool) -> Sequence[int]:
    """Return the upstream items that one item depends on; `alone`: it stands for a map that cannot be."""
    match dependency.reach:
        case Reach.ALL:
            return range(len(up.ends))
        case Reach.SOME:
            return (0,) if up.stands_in else sorted(set(dependency.indices or ()))
        case Reach.ELEMENTS:
            return (_element(dependency, up),)
    if up.stands_in:
        identity = dependency.reach is Reach.ALIGNED and dependency.indices is None
        return () if alone and not identity else (0,)
    if alone:
        return ()
    if dependency.reach is Reach.PICKED:
        return (dependency.picks or {}).get(index, ())
    if dependency.indices is not None:
        return (dependency.indices[index],)
    return (index,) if index < len(up.ends) else ()


def _end(
    step: Step,
    index: int,
    results: Mapping[int, _Result],
    result: _Result,
    *,
    unusable: bool,
    alone: bool,
) -> End:
    spec, tally = step.spec, Tally()
    inputs: list[object] = []
    for dependency in spec.dependencies:
        up = results[dependency.node_id]
        mismatched = (
            dependency.reach is Reach.ALIGNED
            and dependency.indices is None
            and not up.stands_in
            and spec.width is not None
            and spec.width != len(up.ends)
        )
        uppers = () if mismatched else _uppers(dependency, index, up, alone=alone)
        for upper in uppers:
            state = up.ends[upper].state
            tally.add(State.COMPLETED if dependency.tolerant and state in FAILURE else state)
        inputs.append(input_of(dependency, index, [up.ends[upper].value for upper in uppers]))
    if tally.skipped and spec.policy.skip_on_upstream_skip:
        return End(State.SKIPPED)
    if tally.total and not spec.policy.trigger.holds(tally):
        return End(State.UPSTREAM_FAILED)
    if unusable:
        return End(State.FAILED)
    return _perform(step, index, result, inputs)


def input_of(dependency: Dependency, index: int, values: Sequence[Value | None]) -> object:
    """Return what an item receives along one dependency."""
    if dependency.reach is Reach.ELEMENTS:
        return (values[0], index)
    return gather(values)


def _perform(step: Step, index: int, result: _Result, inputs: Sequence[object]) -> End:
    failures = 0
    while True:
        act = step.plan(index, failures)
        if act.kills:
            return End(State.CRASHED)
        if act.outcome in (Outcome.COMPLETED, Outcome.CACHED):
            if act.length is not None:
                result.lengths[index] = act.length
            return End(State.COMPLETED, digest(step.spec.path, index, inputs))
        if act.outcome is Outcome.SKIPPED:
            return End(State.SKIPPED)
        if not act.retriable or failures >= step.spec.policy.retries:
            return End(State.FAILED)
        failures += 1


def resubmitted(steps: Sequence[Step], recover: Callable[[int], Recovered]) -> list[Step]:
    """Return the steps as a later process submits them, each with what is recovered of its node."""
    return [replace(step, spec=replace(step.spec, recovered=recover(step.spec.node_id))) for step in steps]
