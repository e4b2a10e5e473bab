"""Lending the slot of a task run that waits for others."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

from runners.channel import Channel


def lend(channel: Channel) -> AbstractContextManager[None]:
    """Lend the current task run's slot; only channels of this process have one to lend."""
    return channel.lend() if isinstance(channel, Lender) else nullcontext()


def lends_here(channel: Channel) -> bool:
    """Whether a channel is of this process's own runner. That of a worker is not, even if it runs in this process."""
    return isinstance(channel, Lender)


@runtime_checkable
class Lender(Protocol):
    """A channel whose slot can be lent from here: that of a runner in the flow's process."""

    def lend(self) -> AbstractContextManager[None]: ...
