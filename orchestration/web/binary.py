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


def timeline_bytes(found: Timeline) -> bytes:
    """Return a timeline, little-endian: magic, u32 rows, u32 length of the JSON, that JSON, and the columns.

    Each part is padded to 8 bytes: f64 started, f32 seconds, u32 node, u32 index, u16 worker, u8 attempt, u8 state.
    """
    n = len(found.started)
    head = json.dumps({"workers": found.workers, "next": n}).encode()
    parts = [MAGIC + struct.pack("<II", n, len(head)) + head]
    parts += [
        _bytes(column) for column in (found.started, found.seconds, found.node, found.index, found.worker)
    ]
    parts += [bytes(found.attempt), bytes(found.state)]
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
    changed = list(compress(range(len(now)), map(int.__ne__, old, now)))
    parts = [struct.pack("<IB", index, now[index]) for index in changed]
    return struct.pack("<II", node_id, len(changed)) + b"".join(parts)
