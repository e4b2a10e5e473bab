"""Transactions of processes that write by way of a server: each is done once, however often it is sent.

The number of a writer's newest transaction is written in that transaction. The row is locked first, so of two
copies of one request the second finds what the first has done.
"""

from __future__ import annotations

from typing import Any

from ...errors import InternalError
from .. import limits as rules
from ..wire.port import OF_ALL_RUNS, Call, Sending, Writing, pack_answer, pack_answers
from . import acquiring, journal, leases, runs
from .connection import Connection
from .text import clean

KEEP_SECONDS = 365 * 86400.0  # what a process has left in its buffer may be sent as late as that


def perform(connection: Connection, writing: Writing, now: float) -> bytes:
    """Do what has not been done yet; return the answers to the newest transaction, now or as they were then."""
    newest, answer = _lock(connection, writing.writer_id, now)
    for group in writing.groups:
        if group.number > newest:
            newest = group.number
            answer = pack_answers([_answer(connection, call, writing.sending, now) for call in group.calls])
    connection.execute(
        "UPDATE remote_writer SET number = ?, answer = ? WHERE writer_id = ?",
        (newest, answer, writing.writer_id),
    )
    return answer


def limits_of(writing: Writing) -> list[str]:
    """Return the limits that these transactions judge or change."""
    calls = [call for group in writing.groups for call in group.calls]
    names = [name for call in calls if call.verb == "acquire" for name in call.arguments["names"]]
    return names + [call.arguments["name"] for call in calls if call.verb in OF_ALL_RUNS]


def _lock(connection: Connection, writer_id: str, now: float) -> tuple[int, bytes]:
    ((number, answer),) = connection.execute(
        "INSERT INTO remote_writer (writer_id, number, at) VALUES (?, 0, ?) "
        "ON CONFLICT (writer_id) DO UPDATE SET at = excluded.at RETURNING number, answer",
        (writer_id, now),
    ).fetchall()
    if not number:  # a new one: a moment to forget those of long ago
        connection.execute("DELETE FROM remote_writer WHERE at < ?", (now - KEEP_SECONDS,))
    return number, answer or b""


def _answer(connection: Connection, call: Call, sending: Sending, now: float) -> bytes:
    return pack_answer(call.verb, _do(connection, call, sending, now))


def _do(connection: Connection, call: Call, sending: Sending, now: float) -> Any:
    given, mark = dict(call.arguments), call.mark or ""
    match call.verb:
        case "append":
            if sending is not Sending.AT_ONCE:
                lives = sending is Sending.BUFFERED
                runs.revive(connection, given["run_id"], given["epoch"], now, lives=lives)
            return journal.append(connection, **given)
        case "acquire":
            at, given["label"] = given.pop("now"), clean(given["label"])
            return acquiring.acquire(connection, rules.demand(**given), at)
        case "create_run":
            return runs.create(connection, given["run"], mark)
        case "claim":
            return runs.claim(connection, **given, mark=mark)
        case "request":
            return runs.request(connection, **given)
        case "set_limit":
            rules.check(**given)
            return leases.set_limit(connection, **given)
        case "remove_limit":
            return leases.remove_limit(connection, **given)
        case verb:
            raise InternalError(f"{verb!r} does not write by number")
