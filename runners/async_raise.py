"""Raising an exception in another thread, and taking one back that has not arrived yet."""

from __future__ import annotations

import ctypes


class _Drained(BaseException):
    """Raised by `take_back` in its own thread, and caught there."""


def raise_in(thread_id: int, kind: type[BaseException]) -> None:
    """Have `kind` raised in a thread of this process at its next bytecode that looks for it."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(kind))


def take_back(thread_id: int) -> None:
    """Take back what has not arrived in the calling thread, `thread_id`.

    Up to Python 3.12 the interpreter goes on looking for the exception in all threads, at each loop and call,
    until one is raised somewhere; beside a profiler or tracer that never ends. So one is raised here.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), None)
    try:
        raise_in(thread_id, _Drained)
        for _ in range(1000):  # it arrives at one of the first turns
            pass
    except _Drained:
        pass
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), None)
