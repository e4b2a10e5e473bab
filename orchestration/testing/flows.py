"""Random flows for the simulation: every kind of dependency, policy and ending."""

from __future__ import annotations

import random
from collections.abc import Sequence

from runners.messages import Outcome

from ..core.specs import Dependency, NodeSpec, Policy, Reach
from ..core.triggers import (
    Trigger,
    all_failed,
    all_finished,
    all_successful,
    any_failed,
    any_successful,
    not_all_skipped,
    some_successful,
)
from .script import DONE, Act, Plan, Step

ENOUGH = 1_000_000  # losses that no simulation comes to: their budget is not what is tested

TRIGGERS = (
    all_failed,
    all_finished,
    any_failed,
    any_successful,
    not_all_skipped,
    some_successful(2),
    some_successful(0.5),
    Trigger("more good than bad", lambda tally: tally.successful > tally.failed),
)


def random_plan(rng: random.Random, *, trouble: float = 0.2, longest: int = 6) -> Plan:
    """Return what the items of a node do; which do what follows from `rng` alone."""
    salt = rng.random()
    lists = rng.random() < 0.5

    def plan(index: int, failures: int) -> Act:
        own = random.Random(f"{salt}/{index}")
        seconds = own.choice((0.001, 0.02, 0.3))
        length = own.randrange(longest) if lists and own.random() < 0.9 else None
        done = Act(seconds=seconds, length=length)
        if own.random() >= trouble:
            return done
        kind = own.randrange(6)
        if kind == 0:
            return Act(Outcome.SKIPPED, seconds, message="nothing to do")
        if kind == 1:
            return Act(Outcome.FAILED, seconds, message="hopeless", retriable=False)
        if kind == 2:
            deaf = own.random() < 0.3
            return Act(Outcome.TIMED_OUT, 5.0 if deaf else seconds, message="too slow", deaf=deaf)
        if kind == 3:
            return Act(Outcome.CACHED, 0.0, length=length)
        if failures < own.randrange(1, 4):  # flaky
            outcome, after = (Outcome.FAILED, None) if kind == 4 else (Outcome.RETRY, own.choice((0.0, 2.0)))
            return Act(outcome, seconds, message="flaky", after_seconds=after)
        return done

    return plan


def random_policy(rng: random.Random) -> Policy:
    return Policy(
        retries=rng.choice((0, 1, 3)),
        delay=lambda n: 0.5 * n,
        jitter=rng.choice((0.0, 1.0)),
        retries_on_loss=ENOUGH,
        trigger=all_successful if rng.random() < 0.6 else rng.choice(TRIGGERS),
        skip_on_upstream_skip=rng.random() < 0.6,
        batch=rng.choice((None, None, 1, 3)),
        priority=rng.choice((0, 0, 1)),
        max_concurrency=rng.choice((None, None, None, 1, 2)),
    )


def random_flow(
    rng: random.Random, *, nodes: int = 8, widest: int = 12, tags: Sequence[str] = ()
) -> list[Step]:
    """Return a flow with up to so many nodes, each depending on earlier ones in any way there is."""
    steps: list[Step] = []
    widths: list[int | None] = []  # None: known at run time only
    for node_id in range(rng.randint(1, nodes)):
        dependencies, width = _dependencies(rng, widths, widest)
        spec = NodeSpec(
            node_id,
            f"task{node_id}",
            f"task{rng.randrange(4)}",
            kind="single" if width == 1 else "map",
            width=width,
            policy=random_policy(rng),
            dependencies=dependencies,
            tags=frozenset(tag for tag in tags if rng.random() < 0.4),
        )
        plan = random_plan(rng) if rng.random() < 0.8 else lambda index, failures: DONE
        steps.append(Step(spec, plan, persist=rng.random() < 0.5, at=rng.choice((0.0, 0.0, 1.0))))
        widths.append(width)
    # a later step may only come after those that it depends on
    at = 0.0
    for k, step in enumerate(steps):
        at = max(at, step.at)
        steps[k] = Step(step.spec, step.plan, step.persist, at)
    return steps


def random_chains(rng: random.Random, *, longest: int = 5, tags: Sequence[str] = ()) -> list[Step]:
    """Return maps over maps and singles after singles with short items, so that most of them are fused."""
    steps: list[Step] = []
    trouble = rng.choice((0.0, 0.05, 0.2))
    for _ in range(rng.randint(1, 2)):
        width = rng.choice((1, 5, 16))
        shared = frozenset(tag for tag in tags if rng.random() < 0.5)
        for depth in range(rng.randint(2, longest)):
            up = len(steps) - 1
            link = Dependency(up, Reach.SOME, (0,)) if width == 1 else Dependency(up, Reach.ALIGNED)
            spec = NodeSpec(
                len(steps),
                f"task{len(steps)}",
                f"task{rng.randrange(3)}",
                kind="single" if width == 1 else "map",
                width=width if width == 1 or not depth or rng.random() < 0.5 else None,
                policy=Policy(
                    retries=rng.choice((0, 2)),
                    retries_on_loss=ENOUGH,
                    trigger=all_successful if rng.random() < 0.9 else all_finished,
                    batch=rng.choice((None, None, None, 3)),
                ),
                dependencies=(link,) if depth else (),
                tags=shared if rng.random() < 0.9 else frozenset(),
            )
            plan = _short_plan(random.Random(rng.random()), trouble)
            steps.append(Step(spec, plan, persist=rng.random() < 0.2))
    return steps


def random_submits(rng: random.Random, *, tags: Sequence[str] = ()) -> list[Step]:
    """Return loops of single short task runs, some with others behind them, so that many share batches."""
    steps: list[Step] = []
    trouble = rng.choice((0.0, 0.05, 0.2))
    for _ in range(rng.randint(20, 60)):
        up = rng.randrange(len(steps)) if steps and rng.random() < 0.4 else None
        spec = NodeSpec(
            len(steps),
            f"task{len(steps)}",
            f"task{rng.randrange(2)}",
            policy=Policy(
                retries=rng.choice((0, 2)),
                retries_on_loss=ENOUGH,
                trigger=all_successful if rng.random() < 0.9 else all_finished,
                priority=rng.choice((0, 0, 0, 1)),
            ),
            dependencies=() if up is None else (Dependency(up, Reach.SOME, (0,)),),
            tags=frozenset(tag for tag in tags if rng.random() < 0.1),
        )
        plan = _short_plan(random.Random(rng.random()), trouble, slow=0.03)
        steps.append(Step(spec, plan, persist=rng.random() < 0.2, at=len(steps) // 20 * 0.5))
    return steps


def _short_plan(rng: random.Random, trouble: float, slow: float = 0.0) -> Plan:
    salt = rng.random()

    def plan(index: int, failures: int) -> Act:
        own = random.Random(f"{salt}/{index}")
        if slow and own.random() < slow:
            return Act(seconds=own.choice((0.3, 2.0)))
        if own.random() >= trouble:
            return Act(seconds=0.001)
        kind = own.randrange(3)
        if kind == 0:
            return Act(Outcome.SKIPPED, 0.001)
        if kind == 1:
            return Act(Outcome.FAILED, 0.001, message="hopeless", retriable=False)
        return Act(Outcome.FAILED, 0.001, message="flaky") if failures < 1 else Act(seconds=0.001)

    return plan


def _dependencies(
    rng: random.Random, widths: Sequence[int | None], widest: int
) -> tuple[tuple[Dependency, ...], int | None]:
    """Choose upstream nodes, and the width that follows from them."""
    found: list[Dependency] = []
    width: int | None = rng.choice((0, 1, 1, rng.randint(2, widest)))
    learned = False
    for _ in range(rng.randrange(4)):
        if not widths:
            break
        up = rng.randrange(len(widths))
        tolerant = rng.random() < 0.2
        known = widths[up]
        kind = rng.choice(list(Reach))
        if kind is Reach.ALL:
            found.append(Dependency(up, Reach.ALL, tolerant=tolerant))
        elif kind is Reach.ALIGNED and (known is None or rng.random() < 0.5):
            learned = learned or known is None or rng.random() < 0.9
            found.append(Dependency(up, Reach.ALIGNED, tolerant=tolerant))
        elif known is None or known == 0:
            continue
        elif kind is Reach.SOME:
            members = tuple(rng.choices(range(known), k=rng.randint(1, 4)))
            found.append(Dependency(up, Reach.SOME, members, tolerant=tolerant))
        elif kind is Reach.ALIGNED and width is not None:
            picked = tuple(rng.choices(range(known), k=max(width, widest)))
            found.append(Dependency(up, Reach.ALIGNED, picked, tolerant=tolerant))
        elif kind is Reach.PICKED:
            picks = {
                i: rng.choices(range(known), k=rng.randrange(3)) for i in range(widest) if rng.random() < 0.5
            }
            found.append(Dependency(up, Reach.PICKED, picks=picks, tolerant=tolerant))
        elif kind is Reach.ELEMENTS:
            learned = learned or rng.random() < 0.9
            found.append(Dependency(up, Reach.ELEMENTS, (rng.randrange(known),), tolerant=tolerant))
    if not learned:
        return tuple(found), width
    # indices per item need a known width
    return tuple(d for d in found if not (d.reach is Reach.ALIGNED and d.indices is not None)), None
