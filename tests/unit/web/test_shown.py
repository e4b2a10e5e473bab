"""What pages are told, made from rows."""

from __future__ import annotations

from orchestration.core.states import State
from orchestration.stores.base import AttemptRow, HistoryRow
from orchestration.web.shown import story
from runners.messages import Outcome


def test_a_story_tells_an_attempt_whose_start_nobody_heard_of_in_its_place() -> None:
    """Its worker died first: then it counts when that was told."""
    ready = HistoryRow(1, 0, range(1), State.READY, 100.0, "")
    lost = AttemptRow(1, Outcome.FAILED, State.AWAITING_RETRY, None, None, "w", "e", 0, "died", ended=101.0)
    again = HistoryRow(3, 0, range(1), State.READY, 102.0, "retry")
    done = AttemptRow(2, Outcome.COMPLETED, State.COMPLETED, 103.0, 1.0, "w", "f", 1, ended=104.0)
    assert [text.split(" on ")[0] for text in story([ready, again], [lost, done])] == [
        "Ready",
        "Attempt 1 ended AwaitingRetry",
        "Ready: retry",
        "Attempt 2 ended Completed after 1.00 s",
    ]
