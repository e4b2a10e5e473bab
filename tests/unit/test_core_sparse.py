"""Facts of some items: notes, lengths, places in result storage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.core.batching import Sizer
from orchestration.core.records import Node
from orchestration.core.sparse import Lengths, Notes
from orchestration.core.specs import NodeSpec
from runners.messages import Stored

INDICES = st.lists(st.integers(0, 49), unique=True).map(sorted) | st.tuples(
    st.integers(0, 49), st.integers(0, 49)
).map(lambda ends: range(min(ends), max(ends)))


@given(st.lists(st.tuples(INDICES, st.sampled_from(["a", "b", "c"])), max_size=6))
def test_notes_read_like_a_dict(puts: list[tuple[list[int], str]]) -> None:
    """Each item is noted once, in bulk or singly, and found again."""
    notes: Notes[str] = Notes()
    expected: dict[int, str] = {}
    for indices, value in puts:
        fresh = [i for i in indices if i not in expected]
        if len(fresh) == len(indices):
            notes.put(indices, value, 50)
            expected.update(dict.fromkeys(indices, value))
    assert {i: notes.get(i) for i in range(60) if i in notes} == expected
    assert bool(notes) == bool(expected)
    assert notes.get(55, "none") == "none"


def test_notes_with_more_values_than_a_byte_can_tell() -> None:
    """Three hundred bulk notes of different text are all kept."""
    notes: Notes[str] = Notes()
    for k in range(300):
        notes.put(range(10 * k, 10 * k + 10), f"reason {k}", 3000)
    assert [notes[10 * k + 9] for k in range(300)] == [f"reason {k}" for k in range(300)]


def test_what_is_not_noted_is_a_key_error() -> None:
    """As with a dict."""
    with pytest.raises(KeyError):
        Notes[str]()[3]


def test_a_single_note_goes_before_a_bulk_one_and_can_be_removed() -> None:
    """What is said of one item is more exact than what is said of many."""
    notes: Notes[str] = Notes()
    notes.put(range(20), "all", 20)
    notes[3] = "one"
    assert notes[3] == "one"
    notes.discard(3)
    notes.discard(4)
    assert 3 not in notes
    assert 4 not in notes
    assert notes[5] == "all"


def test_lengths() -> None:
    """Zero is a length, and none is none."""
    lengths = Lengths()
    assert lengths.get(2) is None
    lengths.put(2, 0, 4)
    assert lengths.get(2) == 0
    assert lengths.get(3) is None


def test_places_in_storage() -> None:
    """Results of this process are found by batch, recovered ones by item, others not at all."""
    node = Node(NodeSpec(0, "a", "a", "map", 3), Sizer())
    node.open(3)
    here, before = Stored("memory:5", ""), Stored("memory:1", "")
    node.facts.files[5] = here
    node.facts.recovered = {1: (before, 9)}
    node.batches[0], node.positions[0] = 5, 2
    assert node.stored[0] == (here, 2)
    assert node.stored[1] == (before, 9)
    assert 2 not in node.stored
    with pytest.raises(KeyError):
        node.stored[2]
