"""Delays between attempts, and what a loss costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .records import Policy, Spent

MAX_DELAY_SECONDS = 30 * 24 * 3600.0
FREE_LOSSES = 3  # of workers that died, without evidence of a start, that cost nothing
COMPANY = 32  # items that a batch may have which were lost among more than that: see `charge_loss`
QUEUE_LOSSES = 20  # of batches that were only queued at what died: nobody's fault, but not for ever


def delays(spec: float | Sequence[float] | Callable[[int], float]) -> Callable[[int], float]:
    """Return the delay before retry n (from 1) for what users write: a number, a list (its last entry
    repeats) or a function of n."""
    if callable(spec):
        return spec
    if isinstance(spec, int | float):
        return lambda n: float(spec)
    steps = [float(step) for step in spec]
    return lambda n: steps[min(n, len(steps)) - 1] if steps else 0.0


def exponential_backoff(
    factor: float = 2.0, max_seconds: float = 3600.0, *, backoff_factor: float | None = None
) -> Callable[[int], float]:
    """Return delays of factor, 2 * factor, 4 * factor ... seconds, at most `max_seconds`.

    Args:
        backoff_factor: another name of `factor`.
    """
    factor = factor if backoff_factor is None else backoff_factor

    def delay(n: int) -> float:
        return float(min(factor * 2.0 ** min(n - 1, 60), max_seconds))

    return delay


def jittered(seconds: float, jitter: float, uniform: float) -> float:
    """Return seconds * (1 + uniform * jitter), within 0 and MAX_DELAY_SECONDS."""
    return min(max(0.0, seconds * (1.0 + uniform * jitter)), MAX_DELAY_SECONDS)


def charge_loss(
    spent: Spent, policy: Policy, *, started: bool, suspect: bool, company: int = 1, ended: bool = False
) -> bool | None:
    """Charge an item for the loss of its batch.

    It runs alone from then on, unless little speaks against it: it was one of many, or had ended before. To run a
    large batch item by item would cost far more than one death more of a worker.

    Args:
        started: whether its code is known to have started.
        suspect: whether its worker died, and may have died of it.
        company: how many items of the batch were lost together.
        ended: whether its code is known to have ended before.

    Returns:
        None if it is free of charge, else whether the item may run again. What has not started may, even
        where the task must not run twice.
    """
    if suspect and (ended or (not started and company > COMPANY)):
        spent.cleared += 1
    if not started:
        if suspect:
            spent.free_losses += 1
        else:
            spent.queue_losses += 1
        if spent.free_losses <= FREE_LOSSES and spent.queue_losses <= QUEUE_LOSSES:
            return None
    spent.losses += 1
    return (policy.rerun_on_loss or not started) and spent.losses <= policy.retries_on_loss


def in_words(error: BaseException) -> str:
    """Return an exception's type and message, also where a user's `__str__` raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__} (its message cannot be shown)"
