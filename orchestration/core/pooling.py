"""Which single task runs share a batch: in a loop of submits each would cost an engine more than its work.

They are stages of one batch that do not wait for one another (see `runners.messages.Stage.follows`). Pooled is what
is ready and known to be short, best first as ever, and only beyond what the slots can take at once: nothing that could
run by itself now waits behind something else. Who builds upon a pooled result has it when the batch has ended, so a
batch is worth a submission and little more, unless there is plenty to do meanwhile.
"""

from __future__ import annotations

import math

from .batching import GRAIN_SECONDS
from .fusing import short
from .records import MAIN, Node

MAX_POOLED = 64  # in a batch; so many share the cost of a submission well
MAX_POOL_SECONDS = 0.1  # of work in a batch ...
POOL_SHARE = 0.25  # ... and of a slot's share of what is ready
DEADLINE_SECONDS = 0.2  # of a batch: those who wait for one another might have come into the same
MAX_BYTES_EACH = 256 << 10  # that one moves or reads: what is large should go where its inputs are


class Pool:
    """The room in a batch for further single task runs.

    Args:
        first: the node whose batch it is.
        seconds: of work that go in any case.
        ready: number of nodes that have something ready, the first among them.
        slots: how many could begin something now; if none, all.
    """

    def __init__(self, first: Node, seconds: float, ready: int, slots: int) -> None:
        plenty = POOL_SHARE * ready * (first.sizer.mean or 0.0) / slots
        self.first = first
        self._places = min(MAX_POOLED, math.ceil(ready / slots)) - 1
        self._seconds = max(GRAIN_SECONDS, min(MAX_POOL_SECONDS, plenty)) - seconds

    def takes(self, node: Node) -> bool:
        """Whether there is room for a node's item, and nothing speaks against its coming along."""
        first = self.first
        return (
            self._places > 0
            and may_pool(node)
            and (node.sizer.mean or 0.0) <= self._seconds
            and node.policy.priority == first.policy.priority
            and node.spec.placement == first.spec.placement
        )

    def add(self, seconds: float) -> None:
        """Something with so much work has come along."""
        self._places -= 1
        self._seconds -= seconds


def may_pool(node: Node) -> bool:
    """Whether a node is one short item that may share a batch with what it has nothing to do with.

    Not if it must not run twice, as the loss of a batch is the loss of all in it, nor with a history that makes it
    suspicious. Nor if its code waits for task runs: one that has ended in the same batch is told when the batch ends.
    """
    return (
        node.width == 1
        and short(node)
        and node.spec.runner == MAIN
        and node.policy.rerun_on_loss
        and node.policy.batch is None
        and not node.sizer.waits
        and not node.known.spent
        and node.sizer.bytes_each + sum(_bytes_read(node)) <= MAX_BYTES_EACH
    )


def reads_much(node: Node) -> bool:
    """Whether a single task run reads large results, or some of unknown size: of those that stay in the process."""
    sizes = _bytes_read(node)
    return not all(sizes) or sum(sizes) > MAX_BYTES_EACH


def _bytes_read(node: Node) -> list[float]:
    """Return how many bytes of each node's results the item of a single task run reads."""
    return [
        edge.up.sizer.bytes_each * (len(edge.members) or edge.up.width)
        for edge in node.ins
        if edge.dependency.reads
    ]
