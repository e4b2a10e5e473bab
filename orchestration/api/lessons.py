"""What earlier runs of a flow in this process have taught of the time that its tasks take.

A run that begins with it needs no small batches to find out. It is a hint: sizes start small enough (some
milliseconds of work) to be right soon where tasks have become slower.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..core.batching import Lesson

MAX_FLOWS = 256

_lock = threading.Lock()
_lessons: OrderedDict[Hashable, dict[str, Lesson]] = OrderedDict()


def recall(fn: Callable[..., Any], runner: str) -> Mapping[str, Lesson]:
    """Return what is known of a flow's tasks on a kind of runner, by task name."""
    with _lock:
        return dict(_lessons.get(_key(fn, runner), {}))


def remember(fn: Callable[..., Any], runner: str, lessons: Mapping[str, Lesson]) -> None:
    """Keep what a run of a flow has taught."""
    if not lessons:
        return
    with _lock:
        known = _lessons.setdefault(_key(fn, runner), {})
        known.update(lessons)
        _lessons.move_to_end(_key(fn, runner))
        while len(_lessons) > MAX_FLOWS:
            _lessons.popitem(last=False)


def _key(fn: Callable[..., Any], runner: str) -> Hashable:
    """Name a flow by its code: a function that is defined anew with other code is another."""
    return getattr(fn, "__module__", None), getattr(fn, "__code__", type(fn)), runner
