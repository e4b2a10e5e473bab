"""Finding runs and states by what people type, and what to say when they cannot be had."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

from ..errors import FencedError, RunAliveError, RunNotFoundError, RunNotResumableError, UserError
from .base import RunRow

MIN_PREFIX = 8

S = TypeVar("S", bound=IntEnum)


def ambiguous(run: str, ids: Sequence[str]) -> RunNotFoundError:
    return RunNotFoundError(
        f"{run!r} is the beginning of several run ids: {', '.join(ids)}. Give more of it."
    )


def not_found(run: str, known: Sequence[tuple[str, str]], url: str) -> RunNotFoundError:
    """Say that there is no such run, and which ones look alike.

    Args:
        known: (id, name) of the newest runs.
    """
    if not known:
        return RunNotFoundError(f"There is no run {run!r}: {url} has no runs yet.")
    names = {name: run_id for run_id, name in reversed(known)}
    alike = [
        f"{word} ({names[word]})" if word in names else word
        for word in difflib.get_close_matches(run, [*names, *(i for i, _ in known)], n=3, cutoff=0.6)
    ]
    if not alike and len(run) < MIN_PREFIX:
        alike = [f"{name} ({i})" for i, name in known if run and i.startswith(run)][:3]
    hint = f"Did you mean {' or '.join(alike)}?" if alike else "`millrace runs ls` lists them."
    return RunNotFoundError(f"There is no run {run!r} in {url}. {hint}")


def unknown(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"There is no run {run_id!r} in this store.")


def alive(run: RunRow, now: float) -> RunAliveError:
    heard = max(0.0, now - (run.heartbeat or now))
    return RunAliveError(
        f"Run {run.name} ({run.run_id}) is alive: process {run.pid} on {run.host or 'an unknown host'} was "
        f"heard of {heard:.0f} s ago. Stop it first: millrace runs cancel {run.name}"
    )


def completed(run: RunRow) -> RunNotResumableError:
    return RunNotResumableError(f"run {run.name} has completed: there is nothing to resume")


def fenced(run_id: str, epoch: int, newest: int) -> FencedError:
    return FencedError(
        f"Run {run_id} has been taken over: this process is its number {epoch}, the newest is {newest}."
    )


def states_named(kind: type[S], names: Sequence[str]) -> frozenset[S] | None:
    """Return states by their titles, in any case; None if none is named."""
    if not names:
        return None
    known = {str(state.title).lower(): state for state in kind}  # type: ignore[attr-defined]
    for name in names:
        if name.lower() not in known:
            titles = ", ".join(state.title for state in kind)  # type: ignore[attr-defined]
            raise UserError(f"There is no state {name!r}. There are: {titles}.")
    return frozenset(known[name.lower()] for name in names)
