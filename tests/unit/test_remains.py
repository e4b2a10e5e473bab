"""What a resume reads: nothing of a node is made out before the flow asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestration.core.states import State
from orchestration.stores.remains import NodeHead, Remains, Row, Trace, persisted
from runners.messages import Outcome, Stored

FILE = Stored("file:///r/1", "abc")


class Recorded:
    """Completed single task runs, the first of them of two processes; notes what is made out."""

    def __init__(self, size: int, fingerprint: str = "v1") -> None:
        self.size, self.fingerprint = size, fingerprint
        self.read: list[str] = []

    def remains(self) -> Iterator[Row]:
        done = Trace(range(1), None, bytes([State.COMPLETED]), bytes([Outcome.COMPLETED]), [1], [0], FILE)
        for n in range(self.size):
            path = f"single-{n}"
            yield path, self.fingerprint, NodeHead(n, path, self.fingerprint, 1, False), done, self
        yield (
            "single-0",
            self.fingerprint,
            NodeHead(self.size, "single-0", self.fingerprint, 1, False),
            None,
            self,
        )

    @staticmethod
    def read_remains(row: Row) -> tuple[NodeHead, Trace | None]:
        row[4].read.append(row[0])
        return row[2], row[3]


def test_nodes_are_made_out_when_they_are_asked_for() -> None:
    """A flow that begins again waits for none of 100,000 task runs, and not for those that it never submits."""
    view = Recorded(1000)
    found = Remains(view)
    assert len(found) == 1000
    assert "single-7" in found
    assert "single-1000" not in found
    assert persisted(found)
    assert view.read == []
    assert found["single-7"].results == found["single-0"].results == {0: (FILE, 0)}
    assert view.read == ["single-7", "single-0", "single-0"]


def test_whether_results_were_stored_is_known_without_looking() -> None:
    """A run that stored nothing says so of each of its nodes."""
    view = Recorded(1000, fingerprint="")
    assert not persisted(Remains(view))
    assert persisted(dict(Remains(Recorded(3))))
    assert not persisted({})
    assert view.read == []
