"""Stories: what has happened to an item, within bounds."""

from __future__ import annotations

from array import array

from orchestration.core.states import Cause
from orchestration.core.story import KEPT, KEPT_ITEMS, Story
from orchestration.testing.handdriven import HandDriven
from runners.messages import Outcome


def test_a_story_tells_what_happened_in_order() -> None:
    """Each line says when, what, and why."""
    run = HandDriven()
    node = run.add()
    run.now = 2.5
    run.start()
    run.end(Outcome.SKIPPED)
    assert run.core.story(node, 0) == [
        "0.000 Ready: its upstream has ended, it may run",
        "0.000 Submitted: it went to the engine",
        "2.500 Running: its code has started",
        "2.500 Skipped: it asked to be skipped",
    ]


def test_only_the_newest_lines_are_kept() -> None:
    """A long run does not grow a long story."""
    story = Story()
    for k in range(KEPT + 10):
        story.add(float(k), 0, range(1), Cause.DISPATCHED, "")
    lines = story.of(0, 0)
    assert len(lines) == KEPT
    assert lines[0].startswith("10.000")


def test_scattered_items_are_bounded_together() -> None:
    """Lines that hold many scattered items go earlier, so that stories never cost more than the run."""
    story = Story()
    scattered = array("i", range(0, KEPT_ITEMS // 2, 2))
    for k in range(10):
        story.add(float(k), 0, scattered, Cause.DISPATCHED, "")
    assert len(story.of(0, 0)) == 4
