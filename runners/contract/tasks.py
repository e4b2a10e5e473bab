"""The user code that the contract suite runs on workers. Needs nothing but the package."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..context import current_item
from ..errors import Fail, Retry, Skip

GIVE_UP_SECONDS = 60.0  # after which code that nobody releases ends by itself

Address = tuple[str, int]
logger = logging.getLogger("millrace.task_runs")


@dataclass(frozen=True)
class Order:
    """A user's dataclass, to be found in arguments."""

    label: str
    values: Any


class Pages:
    """Holds bytes that pickle leaves out of band, as NumPy does with arrays."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Pages, (pickle.PickleBuffer(self.data),)


def pages(data: Any) -> Pages:
    """Make pages that can be written to, or not."""
    return Pages(bytearray(data) if data[:1] == b"w" else data)


def overwrite(pages: Pages) -> str:
    """Say what is in pages, then write to them if that is possible."""
    view = memoryview(pages.data)
    found = bytes(view[1:4]).decode()
    if not view.readonly:
        view[1:4] = b"new"
    return f"{found} {'read-only' if view.readonly else 'writable'}"


def overwrite_all(groups: Any) -> list[str]:
    return [overwrite(pages) for pages in groups]


def count_up(pages: Pages, value: Any) -> tuple[int, int]:
    """Count how many calls have seen these pages, in the pages."""
    pages.data[0] += 1
    return pages.data[0], len(pages.data)


class UnpicklableError(Exception):
    """Cannot be sent anywhere."""

    def __reduce__(self) -> Any:
        raise TypeError("this exception stays where it is")


class UnloadableError(Exception):
    """Can be pickled, and fails when it is loaded: its `__init__` takes more than `args` has."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Unloadable:
    """Pickles, and raises when it is loaded, as code does whose imports are missing on the worker."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ModuleNotFoundError("No module named 'of_the_user'")


class UnprintableError(Exception):
    """Raises where its message is asked for."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


# --- values -------------------------------------------------------------------------------------


def same(value: Any) -> Any:
    return value


def double(value: Any) -> Any:
    return value * 2


def total(values: Any) -> Any:
    return sum(values)


def describe(*args: Any, **kwargs: Any) -> Any:
    """Return what arrived, to be compared with what was sent."""
    return list(args), kwargs


def whose_turn(value: Any) -> tuple[Any, int]:
    """Return the thread, by which items of one batch show that they run in one."""
    return value, threading.get_ident()


def make_lock(value: int) -> Any:
    """Return what cannot be pickled for odd values."""
    return threading.Lock() if value % 2 else value


def unloadable(value: Any) -> Any:
    """Return what arrives in no other process."""
    return value, Unloadable()


def unpacked(order: Order) -> tuple[str, Any]:
    return order.label, order.values


class Multiplier:
    """A callable object with a bound method and state."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, value: int) -> int:
        return value * self.factor

    def __call__(self, value: int) -> int:
        return self.times(value)


class AsyncMultiplier(Multiplier):
    """The same, to be awaited."""

    async def __call__(self, value: int) -> int:  # type: ignore[override]
        await asyncio.sleep(0)
        return self.times(value)


async def double_async(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


def count_to(value: int) -> Iterator[int]:
    yield from range(value)


async def count_to_async(value: int) -> AsyncIterator[int]:
    for number in range(value):
        await asyncio.sleep(0)
        yield number


def awaited_later(value: int) -> Any:
    """A sync wrapper around an async function."""
    return double_async(value)


# --- failures -----------------------------------------------------------------------------------


def fail_odd(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


RAISED: dict[str, Callable[[], BaseException]] = {
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "base": lambda: BaseException("base"),
    "generator exit": GeneratorExit,
    "stop": lambda: StopIteration(1),
    "cancelled": asyncio.CancelledError,
    "unpicklable": lambda: UnpicklableError("mine alone"),
    "unloadable": lambda: UnloadableError(7, "seven"),
    "unprintable": UnprintableError,
    "surrogate": lambda: ValueError("\udcff"),
    "skip": lambda: Skip("not today"),
    "retry": lambda: Retry("busy", after_seconds=5),
    "fail": lambda: Fail("never again"),
}


def raise_kind(kind: str) -> str:
    """Raise what `kind` names; return it if it names nothing."""
    if kind in RAISED:
        raise RAISED[kind]()
    return kind


async def raise_kind_async(kind: str) -> str:
    await asyncio.sleep(0)
    return raise_kind(kind)


# --- time ---------------------------------------------------------------------------------------


@contextmanager
def at_gate(address: Address) -> Iterator[socket.socket]:
    """Tell the gate of a test that this item runs."""
    with socket.create_connection(address, timeout=GIVE_UP_SECONDS) as connection:
        connection.sendall(b"?")
        yield connection


def pass_gate(address: Address | None, value: Any = None) -> Any:
    """Block in C code until the test opens the gate; without an address there is none."""
    if address is not None:
        with at_gate(address) as connection:
            connection.recv(1)
    return value


def spin(address: Address | None, value: Any = None) -> Any:
    """Tell the gate that this runs, then execute Python code until interrupted."""
    if address is not None:
        with at_gate(address):
            end = time.monotonic() + GIVE_UP_SECONDS
            while time.monotonic() < end:
                time.sleep(0.002)
    return value


async def spin_async(address: Address | None, value: Any = None) -> Any:
    """Tell the gate that this runs, then await what never comes."""
    if address is not None:
        with at_gate(address):
            await asyncio.sleep(GIVE_UP_SECONDS)
    return value


# --- lines and calls ----------------------------------------------------------------------------


def say(text: str) -> str:
    """Print, and log a warning."""
    print(text)  # noqa: T201  # what the suite is about
    logger.warning("warned of %s", text)
    return text


def say_and_wait(text: str, address: Address) -> str:
    say(text)
    pass_gate(address)
    return text


def ask(question: bytes) -> bytes:
    """Return what the flow's process answers."""
    item = current_item.get()
    assert item is not None
    return item.channel.call(item.batch_id, item.execution.execution_id, item.entry, "ask", question)


def who_am_i(value: Any) -> tuple[Any, ...]:
    """Return what the item knows about itself."""
    item = current_item.get()
    assert item is not None
    return value, item.task_run_id, item.index, item.attempt, item.run.flow_name, item.parameters
