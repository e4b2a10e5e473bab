"""What travels as bytes is what it was before."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from orchestration.core.states import State
from orchestration.web.binary import delta

STATES = st.binary(max_size=200).map(lambda data: bytes(byte % len(State) for byte in data))


def applied(before: bytes, change: bytes) -> tuple[int, bytes]:
    """The node that a delta is about, and its states with the delta applied."""
    node, count = struct.unpack_from("<II", change)
    assert len(change) == 8 + 5 * count
    states = dict(enumerate(before))
    for k in range(count):
        index, state = struct.unpack_from("<IB", change, 8 + 5 * k)
        assert states.get(index) != state, "nothing is told that has not changed"
        states[index] = state
    return node, bytes(states[index] for index in range(len(states)))


@given(STATES, STATES)
def test_a_delta_leads_from_one_to_the_other(one: bytes, other: bytes) -> None:
    """Also where a node's width has just been learned; a node does not lose items."""
    before, now = sorted((one, other), key=len)
    change = delta(7, before, now)
    if before == now:
        assert change == b""
    else:
        assert applied(before, change) == (7, now)
