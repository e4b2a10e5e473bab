"""States of a task run, and the whole table of how one leads to another."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """States of a task run; one byte per item of a node. The values are stored: never renumber."""

    PENDING = 0  # waits for upstream
    READY = 1  # may run; waits for a runner slot
    AWAITING_LIMIT = 2  # may run; waits for a lease
    SUBMITTED = 3  # in a batch that the engine has
    RUNNING = 4  # user code has started
    AWAITING_RETRY = 5  # failed or lost; a timer runs; holds no slot and no lease
    PAUSED = 6  # waits for a person
    COMPLETED = 7
    SKIPPED = 8
    FAILED = 9
    UPSTREAM_FAILED = 10
    CRASHED = 11
    CANCELLED = 12

    @property
    def title(self) -> str:
        """The state's name for people, such as `UpstreamFailed`."""
        return "".join(part.title() for part in self.name.split("_"))


TERMINAL = frozenset(
    {State.COMPLETED, State.SKIPPED, State.FAILED, State.UPSTREAM_FAILED, State.CRASHED, State.CANCELLED}
)
SUCCESS = frozenset({State.COMPLETED, State.SKIPPED})
UNSUCCESSFUL = frozenset(State) - SUCCESS  # not yet, or not at all
AT_ENGINE = frozenset({State.SUBMITTED, State.RUNNING})
WAITING = frozenset({State.PENDING, State.READY, State.AWAITING_LIMIT, State.AWAITING_RETRY, State.PAUSED})


class Cause(IntEnum):
    """What can happen to a task run."""

    UPSTREAM_DONE = 0
    UPSTREAM_FAILED = 1
    UPSTREAM_SKIPPED = 2
    UPSTREAM_UNUSABLE = 3  # mapped over something that is no list
    LIMIT_REACHED = 4
    LIMIT_FREED = 5
    DISPATCHED = 6
    STARTED = 7
    COMPLETED = 8
    SKIPPED = 9
    FAILED = 10
    WILL_RETRY = 11
    RETURNED = 12  # came back unstarted
    LOST = 13  # and may run again
    LOST_FOR_GOOD = 14
    TIMER = 15
    PAUSED = 16
    RESUMED = 17
    CANCELLED = 18
    RECOVERED = 19  # its result was stored by an earlier process of this run
    INTERRUPTED = 20  # the run ends before it could
    RODE_ALONG = 21  # fused: it went to the engine in the batch of the items that it waits for
    WAITS_AGAIN = 22  # fused: it came back unstarted, and waits for its upstream as before
    LOST_ON_THE_WAY = 23  # fused: lost with its upstream, which will run again before it
    INPUT_LOST = 24  # a result that it reads is gone, and is made again: it waits for that
    SKIPPED_BEFORE = 25  # it asked to be skipped in an earlier process of this run


_P, _R, _L, _S, _X, _W, _H = (
    State.PENDING,
    State.READY,
    State.AWAITING_LIMIT,
    State.SUBMITTED,
    State.RUNNING,
    State.AWAITING_RETRY,
    State.PAUSED,
)

# cause -> (states in which it may happen, state that follows). Terminal states are in no left column: results that
# are made again (see `remaking`) leave their items Completed.
TABLE: dict[Cause, tuple[frozenset[State], State]] = {
    Cause.UPSTREAM_DONE: (frozenset({_P}), State.READY),
    Cause.UPSTREAM_FAILED: (frozenset({_P}), State.UPSTREAM_FAILED),
    Cause.UPSTREAM_SKIPPED: (frozenset({_P}), State.SKIPPED),
    Cause.UPSTREAM_UNUSABLE: (frozenset({_P}), State.FAILED),
    Cause.LIMIT_REACHED: (frozenset({_R}), State.AWAITING_LIMIT),
    Cause.LIMIT_FREED: (frozenset({_L}), State.READY),
    Cause.DISPATCHED: (frozenset({_R, _L}), State.SUBMITTED),
    Cause.STARTED: (frozenset({_S}), State.RUNNING),
    Cause.COMPLETED: (frozenset({_S, _X}), State.COMPLETED),
    Cause.SKIPPED: (frozenset({_S, _X}), State.SKIPPED),
    Cause.FAILED: (frozenset({_S, _X}), State.FAILED),
    Cause.WILL_RETRY: (frozenset({_S, _X}), State.AWAITING_RETRY),
    Cause.RETURNED: (frozenset({_S, _X}), State.READY),
    Cause.LOST: (frozenset({_S, _X}), State.AWAITING_RETRY),
    Cause.LOST_FOR_GOOD: (frozenset({_P, _S, _X}), State.CRASHED),  # Pending: by an earlier process
    Cause.TIMER: (frozenset({_W}), State.READY),
    Cause.PAUSED: (frozenset({_R, _L}), State.PAUSED),
    Cause.RESUMED: (frozenset({_H}), State.READY),
    Cause.CANCELLED: (frozenset({_P, _R, _L, _S, _X, _W, _H}), State.CANCELLED),
    Cause.RECOVERED: (frozenset({_P}), State.COMPLETED),
    Cause.INTERRUPTED: (frozenset({_P, _R, _L, _S, _X, _W, _H}), State.CRASHED),
    Cause.RODE_ALONG: (frozenset({_P}), State.SUBMITTED),
    Cause.WAITS_AGAIN: (frozenset({_S, _X}), State.PENDING),
    Cause.LOST_ON_THE_WAY: (frozenset({_S, _X}), State.PENDING),
    Cause.INPUT_LOST: (frozenset({_R, _S, _X}), State.PENDING),
    Cause.SKIPPED_BEFORE: (frozenset({_P}), State.SKIPPED),
}


class RunState(IntEnum):
    """States of a flow run. The values are stored: never renumber."""

    PENDING = 0
    RUNNING = 1
    AWAITING_RETRY = 2
    PAUSED = 3
    CANCELLING = 4
    COMPLETED = 5
    FAILED = 6
    CRASHED = 7
    CANCELLED = 8

    @property
    def title(self) -> str:
        return "".join(part.title() for part in self.name.split("_"))


RUN_TERMINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CRASHED, RunState.CANCELLED})


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> Pending"]
    for cause, (sources, target) in TABLE.items():
        lines += [f"    {s.title} --> {target.title}: {cause.name.lower()}" for s in sorted(sources)]
    lines += [f"    {s.title} --> [*]" for s in sorted(TERMINAL)]
    return "\n".join(lines)
