"""What an item's outcome means for it: where it goes, and what it costs. The one retry authority."""

from __future__ import annotations

import math
from collections.abc import Callable

from runners.messages import CANCELLED_AND, Detail, Outcome

from .records import Node, Part
from .retry import in_words, jittered
from .states import Cause

# Outcomes of attempts that say nothing more than themselves.
PLAIN = {Outcome.COMPLETED: Cause.COMPLETED, Outcome.CACHED: Cause.COMPLETED, Outcome.SKIPPED: Cause.SKIPPED}


def cause_of(part: Part, position: int, outcome: Outcome, message: str, retriable: bool) -> tuple[Cause, str]:
    """Say what an outcome leads to, and why in words. Budgets are charged here, once."""
    node, index = part.node, part.indices[position]
    if outcome in PLAIN:
        return PLAIN[outcome], message
    unstarted = outcome is Outcome.UNSTARTED or (outcome is Outcome.REFUSED and position >= part.seen)
    wanted = node.known.cancel_wanted.get(index)
    if wanted is not None:
        if outcome is Outcome.CANCELLED and message.startswith(CANCELLED_AND):
            return Cause.CANCELLED, f"{wanted}; it {message.removeprefix(CANCELLED_AND)}"
        if unstarted or outcome in (Outcome.CANCELLED, Outcome.INPUT_LOST, Outcome.REFUSED):
            return Cause.CANCELLED, wanted
        return Cause.FAILED, message
    if unstarted:
        return Cause.RETURNED, message
    if outcome is Outcome.REFUSED:
        return Cause.LOST_FOR_GOOD, "it had been started before and must not run twice"
    if outcome is Outcome.INPUT_LOST:  # it has not started, its arguments could not be read
        return _loss(node, index, message, again=True)
    if outcome is Outcome.CANCELLED:
        return _loss(node, index, "its batch was stopped", again=node.policy.rerun_on_loss)
    spent = node.budget(index)
    if not retriable or spent.failures >= node.policy.retries:
        return Cause.FAILED, message
    spent.failures += 1
    return Cause.WILL_RETRY, message


def _loss(node: Node, index: int, why: str, *, again: bool) -> tuple[Cause, str]:
    spent = node.budget(index)
    spent.losses += 1
    again = again and spent.losses <= node.policy.retries_on_loss
    return (Cause.LOST if again else Cause.LOST_FOR_GOOD), why


def retry_delay(
    node: Node, index: int, detail: Detail | None, uniform: Callable[[], float]
) -> tuple[float, str]:
    """Return for how many seconds an item that failed waits for its next attempt, and a complaint or ""."""
    if detail is not None and detail.after_seconds is not None:
        return jittered(detail.after_seconds, 0.0, 0.0), ""
    try:
        seconds = _seconds(node.policy.delay(node.budget(index).failures))
    except Exception as error:  # a user's callable; the retry matters more than its delay
        return 0.0, f"retry_delay_seconds raised {in_words(error)}; it is retried at once"
    if seconds is None:
        return 0.0, "retry_delay_seconds returned what is no number of seconds; it is retried at once"
    jitter = node.policy.jitter
    return jittered(seconds, jitter, uniform() if jitter else 0.0), ""


def _seconds(answer: object) -> float | None:
    try:
        seconds = float(answer)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return None if math.isnan(seconds) else seconds
