"""Tasks called directly by a task on a worker: run there, recorded and decided in the flow's process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runners.codec import pack
from runners.context import ItemContext
from runners.messages import Batch
from runners.worker import run_batch

from .futures import TaskRunFuture
from .states import State

if TYPE_CHECKING:
    from .remote import RemoteSession
    from .requests import NodeRequest


def call_here(session: RemoteSession, item: ItemContext, request: NodeRequest) -> State:
    """Run a task in this worker until it has ended; return its final state with the result at hand."""
    node_id = session.ask("call_open", request)
    table: bytes | None = None
    value: Any = None
    while True:
        batch: Batch | None
        fetched: Sequence[Sequence[Any] | None]
        batch, fetched, ended = session.ask("call_next", node_id, table)
        if batch is None:
            value = next(iter(fetched[0] or ()), value)  # what an earlier process has stored
            break
        # results stay in this worker: only the caller has use for them
        results, made = run_batch(batch, fetched, item.channel, in_process=True)
        value, table = results[0][0], pack(made)
    kind, name, message, error = ended

    def data() -> Any:
        if error is not None:
            raise error
        return value

    return State(kind, name, message, data).of(TaskRunFuture(session, node_id, 0), at_hand=True)
