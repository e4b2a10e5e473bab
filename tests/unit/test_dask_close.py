"""The end of a Dask client: nothing of it waits on when its event loop ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("distributed")


class Connection:
    """To a scheduler that closes it when it is told to, before the client does."""

    def __init__(self) -> None:
        self.is_closed = False

    async def write(self, *_: Any, **__: Any) -> int:
        self.is_closed = True
        return 1

    def closed(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("connected", [True, False])
def test_the_sender_has_ended_when_the_loop_does(connected: bool) -> None:
    """It would wait for more to send, and nobody would take what it gets when the time for that is over."""
    from distributed.batched import BatchedSend
    from distributed.utils import LoopRunner

    from runners.dask_close import close_client

    owner = LoopRunner()
    owner.start()
    loop = owner.loop
    sender = BatchedSend(interval="10ms", loop=loop)

    def close(timeout: float) -> None:
        if connected:
            sender.start(Connection())
            sender.send("close-stream")
        owner.stop()

    close_client(SimpleNamespace(scheduler_comm=sender, loop=loop, close=close))
    assert sender.stopped.is_set() == connected
    assert not loop.asyncio_loop.is_running()
