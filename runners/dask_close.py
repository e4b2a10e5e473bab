"""The end of a Dask client, without what distributed leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

CLOSE_SECONDS = 5.0
LAST_SECONDS = 1.0  # for the sender to end: it takes a turn of the loop


def close_client(client: Any) -> None:
    """Close a client, and the sender of its messages before the event loop ends.

    distributed 2026.8 leaves a sender waiting whose scheduler has closed the connection first. Having just said
    goodbye, it waits for 10 ms for more to send. If the loop ends as these are over, which is so on a busy machine,
    nobody takes the timeout, and asyncio prints "Future exception was never retrieved" at the end of the process.
    """
    from distributed.utils import LoopRunner

    sender, loop = getattr(client, "scheduler_comm", None), client.loop
    held = LoopRunner(loop=loop)  # so that the loop outlives the client
    with contextlib.suppress(Exception):  # it has ended already
        held.start()  # type: ignore[no-untyped-call,unused-ignore]
    try:
        client.close(timeout=CLOSE_SECONDS)
    finally:
        with contextlib.suppress(Exception):
            if sender is not None and sender.comm is not None and loop.asyncio_loop.is_running():
                asyncio.run_coroutine_threadsafe(_end(sender), loop.asyncio_loop).result(LAST_SECONDS)
        held.stop()  # type: ignore[no-untyped-call,unused-ignore]


async def _end(sender: Any) -> None:
    sender.abort()
    await sender.stopped.wait()
