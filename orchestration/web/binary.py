"""What a picture of a hundred thousand task runs is drawn from: bytes in columns, not objects."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from array import array
from itertools import compress

from starlette.responses import Response

from ..stores.timeline import Timeline

MAGIC = b"MRTL"


def snapshot(states: bytes) -> Response:
    """Answer with the states of a node's items; `Millrace-Seq` names this state of affairs."""
    name = hashlib.blake2b(states, digest_size=8).hexdigest()
    headers = {"Millrace-Seq": name, "Cache-Control": "no-store"}
    return Response(states, media_type="application/octet-stream", headers=headers)


def timeline_bytes(found: Timeline, *, whole: bool = True) -> bytes:
    """Return a timeline, little-endian: magic, u32 rows, u32 length of the JSON, that JSON, and the columns.

    Each part is padded to 8 bytes: f64 started, f32 seconds, u32 node, u32 index, u16 worker, u8 attempt, u8 state,
    u8 outcome.

    Args:
        whole: it is all there is; else it comes after what the page has.
    """
    n = len(found.started)
    cursor = f"{found.seq}-{found.replaced}"
    head = json.dumps({"workers": found.workers, "next": cursor, "whole": whole}).encode()
    parts = [MAGIC + struct.pack("<II", n, len(head)) + head]
    parts += [
        _bytes(column) for column in (found.started, found.seconds, found.node, found.index, found.worker)
    ]
    parts += [bytes(found.attempt), bytes(found.state), bytes(found.outcome)]
    return b"".join(_padded(part) for part in parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def _bytes(column: array[int] | array[float]) -> bytes:
    if sys.byteorder == "little":
        return column.tobytes()
    swapped = array(column.typecode, column)
    swapped.byteswap()
    return swapped.tobytes()


def delta(node_id: int, before: bytes, now: bytes) -> bytes:
    """Return what has changed in a node: u32 node, u32 count, then (u32 index, u8 state) each; b"" if nothing has."""
    old = before + b"\xff" * (len(now) - len(before))  # no state: those items are new
    if old == now:
        return b""
    # As one number each: to compare 100,000 items one by one takes several times as long.
    differs = (int.from_bytes(old, "little") ^ int.from_bytes(now, "little")).to_bytes(len(now), "little")
    changed = array("I", compress(range(len(now)), differs))
    rows, indices = bytearray(5 * len(changed)), _bytes(changed)
    for k in range(4):
        rows[k::5] = indices[k::4]
    rows[4::5] = bytes(map(now.__getitem__, changed))
    return struct.pack("<II", node_id, len(changed)) + rows
